//! Debian's kernels boot to init, work with results equal to the host's, and power off.

use md5::Md5;
use ring3_guests::cache::{Cache, hexadecimal};
use ring3_guests::session::{self, Transcript};
use ring3_guests::{Image, Refresh, prepare};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The kernel without PAE.
#[test]
fn debian_686_does_the_workload() {
    workload("debian-686/first-light", ring3);
}

/// The kernel with PAE and NX.
#[test]
fn debian_686_pae_does_the_workload() {
    workload("debian-686-pae/first-light", ring3);
}

/// Boots each kernel to init and off again, twenty times in a row.
#[test]
#[ignore = "takes minutes; make test-guests runs it"]
fn twenty_boots_of_each_kernel() {
    for name in ["debian-686/boot", "debian-686-pae/boot"] {
        for n in 1..=20 {
            let (_, transcript, missing) = boot(name, ring3);
            assert!(
                missing.is_empty(),
                "{name}, boot {n}: {}\n{}",
                missing.join("; "),
                transcript.text()
            );
        }
    }
}

/// The workload and what is expected of it are right: another monitor gives the same.
#[test]
#[ignore = "needs QEMU; make test-guests runs it"]
fn qemu_does_the_same_workload() {
    workload("debian-686/first-light", session::qemu_command);
    workload("debian-686-pae/first-light", session::qemu_command);
}

fn ring3(image: &Image, serial: &Path) -> Command {
    session::ring3_command(Path::new(env!("CARGO_BIN_EXE_ring3")), image, serial)
}

/// One run to its end: when it began, what the guest said, and what of its proof is missing.
fn boot(
    name: &str,
    monitor: impl Fn(&Image, &Path) -> Command,
) -> (SystemTime, Transcript, Vec<String>) {
    let root = Cache::default_root().unwrap();
    let image = prepare(&root, name, Refresh::IfMissing).unwrap_or_else(|e| panic!("{name}: {e}"));
    let directory = tempfile::tempdir().unwrap();
    let serial = directory.path().join("serial");
    let limit = Duration::from_secs(image.proof.timeout_seconds);
    let started = SystemTime::now();
    let transcript = session::run(monitor(&image, &serial), &serial, limit)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let missing = transcript.missing(&image.proof);
    (started, transcript, missing)
}

fn workload(name: &str, monitor: impl Fn(&Image, &Path) -> Command) {
    let (started, transcript, missing) = boot(name, monitor);
    assert!(
        missing.is_empty(),
        "{name}: {}\n{}",
        missing.join("; "),
        transcript.text()
    );
    results_equal_the_hosts(&transcript);
    time_is_right(&transcript, started);
}

/// Each result line against what this program computes.
fn results_equal_the_hosts(transcript: &Transcript) {
    let stream = b"ring3 first light\n"
        .iter()
        .copied()
        .cycle()
        .take(64 << 20)
        .collect::<Vec<_>>();
    let numbers: String = (1..=1_200_000).map(|n| format!("{n}\n")).collect();
    let plain = &numbers.as_bytes()[..8 << 20];
    let plain_md5 = hexadecimal(&Md5::digest(plain));
    let sum: f64 = (1..=20_000)
        .map(f64::from)
        .fold(0.0, |s, i| s + 1.0 / (i * i));
    let random = (0..1000).fold(1u64, |x, _| x * 16807 % 2_147_483_647);
    let expected = [
        ("sha256", hexadecimal(&Sha256::digest(&stream))),
        ("md5", hexadecimal(&Md5::digest(&stream))),
        ("plain", plain_md5.clone()),
        ("gzip", "same".into()),
        ("gzip-smaller", "yes".into()),
        ("fork", "300".into()),
        ("exit-status", "1".into()),
        // Records copied, each one read and one write, and none of them partial.
        ("syscalls", "300000+0".into()),
        ("loop", "200000".into()),
        (
            "bc-power",
            "1606938044258990275541962092341162602522202993782792835301376".into(),
        ),
        // Digits of pi: 4 * atan(1) with the last place as bc's truncation leaves it.
        ("bc-pi", "3.1415926535897932384626433832795028841968".into()),
        (
            "bc-root",
            "1.414213562373095048801688724209698078569671875376948073176679".into(),
        ),
        ("awk-sum", format!("{sum:.9}")),
        ("awk-exp", format!("{:.12}", std::f64::consts::E)),
        ("awk-root", format!("{:.12}", std::f64::consts::SQRT_2)),
        ("awk-int", random.to_string()),
        ("pipe-count", (16 << 20).to_string()),
        ("pipe-md5", plain_md5),
        ("signal-trap", "42".into()),
        // A shell's status of a process that a signal ended: 128 and the signal's number.
        ("signal-term", "143".into()),
        ("signal-kill", "137".into()),
        ("signal-segv", "139".into()),
        ("signal-usr1", "50".into()),
        ("signal-stop", "T".into()),
        ("signal-cont", "S".into()),
    ];
    for (name, value) in expected {
        assert_eq!(transcript.result(name), Some(value.as_str()), "{name}");
    }
}

/// `sleep 2` lasts two seconds for the guest and for us, and `date` is the host's.
fn time_is_right(transcript: &Transcript, started: SystemTime) {
    let within = |name: &str, found: Duration| {
        assert!(
            (1.8..=2.2).contains(&found.as_secs_f64()),
            "{name}: sleep 2 took {found:?}"
        );
    };
    within("guest", transcript.guest_time("sleep").expect("T3:sleep"));
    let at = |name| {
        transcript
            .result_at(name)
            .unwrap_or_else(|| panic!("no {name}"))
    };
    within("host", at("sleep-end").saturating_sub(at("sleep-begin")));
    for name in ["date-first", "date-last"] {
        let guest: u64 = transcript
            .result(name)
            .and_then(|v| v.parse().ok())
            .expect(name);
        let host = (started + at(name))
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        // The RTC counts whole seconds, and the guest reads it at one moment only.
        assert!(
            guest.abs_diff(host) <= 2,
            "{name}: guest {guest}, host {host}"
        );
    }
}
