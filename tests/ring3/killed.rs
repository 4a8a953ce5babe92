//! Executors that are killed from outside, at any moment: the guest loses nothing.

use crate::machine::{Options, Run, run};
use md5::Md5;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ring3_guests::cache::hexadecimal;
use sha2::{Digest, Sha256};

/// Kills one of the executors every other time round, by chance.
fn killer(seed: u64) -> impl FnMut(&[i32]) + Send {
    let mut state = seed | 1;
    move |executors| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if state & 1 == 0 || executors.is_empty() {
            return;
        }
        let chosen = executors[(state >> 8) as usize % executors.len()];
        // It may be gone already.
        let _ = kill(Pid::from_raw(chosen), Signal::SIGKILL);
    }
}

fn under_fire(guest: &str, policy: &str) -> Run {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    println!("{guest} --ring3={policy}, seed {seed:#x}");
    let mut kills = killer(seed);
    let mut options = Options::new(guest, policy);
    options.meddle = Some(&mut kills);
    let done = run(options);
    let killed = done.stats["direct"]["killed"].as_u64();
    assert!(
        killed >= Some(5),
        "{guest} --ring3={policy}: {killed:?} killed of {:?}",
        done.seen.ids
    );
    done
}

/// Check sums of a long stream, gzip, shell loops, pipes, signals.
fn workload(policy: &str) {
    let done = under_fire("debian-686-pae/first-light", policy);
    let stream = b"ring3 first light\n"
        .iter()
        .copied()
        .cycle()
        .take(64 << 20)
        .collect::<Vec<_>>();
    let numbers: String = (1..=1_200_000).map(|n| format!("{n}\n")).collect();
    let plain = hexadecimal(&Md5::digest(&numbers.as_bytes()[..8 << 20]));
    let expected = [
        ("sha256", hexadecimal(&Sha256::digest(&stream))),
        ("md5", hexadecimal(&Md5::digest(&stream))),
        ("plain", plain.clone()),
        ("gzip", "same".into()),
        ("fork", "300".into()),
        ("syscalls", "300000+0".into()),
        ("loop", "200000".into()),
        (
            "bc-power",
            "1606938044258990275541962092341162602522202993782792835301376".into(),
        ),
        ("bc-pi", "3.1415926535897932384626433832795028841968".into()),
        ("pipe-count", (16 << 20).to_string()),
        ("pipe-md5", plain),
        ("signal-usr1", "50".into()),
    ];
    for (name, value) in expected {
        assert_eq!(
            done.transcript.result(name),
            Some(value.as_str()),
            "{policy}: {name}"
        );
    }
}

#[test]
fn killing_executors_loses_nothing() {
    workload("direct");
}

#[test]
#[ignore = "takes a while; make test-guests runs it"]
fn killing_executors_loses_nothing_under_the_usual_policy() {
    workload("auto");
}

/// Register state above all: each process compares all that it has, again and again.
#[test]
#[ignore = "takes a while; make test-guests runs it"]
fn killing_executors_loses_no_register() {
    let mut kills = killer(7);
    let mut options = Options::new("debian-686-pae/ring3", "direct");
    options.append = "programs=state,code,mappings long";
    options.meddle = Some(&mut kills);
    let done = run(options);
    let result = |name| done.transcript.result(name);
    assert_eq!(result("state/kept"), Some("4 of 4 processes"));
    assert_eq!(result("code/rewritten"), Some("0 wrong"));
    assert_eq!(result("mappings/model"), Some("0 wrong in 2000 steps"));
    assert_eq!(result("hot-mappings/model"), Some("0 wrong in 22000 steps"));
    assert!(done.stats["direct"]["killed"].as_u64() > Some(20));
}
