//! Hostile and odd programs (`guests/programs/`), each outcome compared with the processor's.

use crate::expected::{Conditions, differences};
use crate::machine::{Options, run};
use ring3_guests::cache::sha256_of;

const BOTH: &[&str] = &["", "hot-"];
const ONCE: &[&str] = &[""];

/// All programs, and whether they run once or also after they have computed.
const PROGRAMS: [(&str, &[&str]); 10] = [
    ("faults", BOTH),
    ("jail", BOTH),
    ("selectors", BOTH),
    ("code", BOTH),
    ("mappings", BOTH),
    ("state", ONCE),
    ("debug", BOTH),
    ("ports", BOTH),
    ("many", ONCE),
    ("hungry", ONCE),
];

fn hostile(guest: &str, policy: &str, long: bool) {
    let mut options = Options::new(guest, policy);
    if long {
        options.append = "long";
    }
    let done = run(options);
    let lines = done.transcript.lines.iter().map(|l| l.text.clone());
    let conditions = Conditions {
        translated: policy == "translate",
        long,
    };
    let wrong = differences(lines, &PROGRAMS, conditions);
    assert!(
        wrong.is_empty(),
        "{guest} --ring3={policy}:\n{}\n{}",
        wrong.join("\n"),
        done.messages
    );
    assert!(done.stats["translator"]["units"].as_u64() > Some(0));
    // The guest's kernel and shell are well.
    let busybox = crate::machine::image(guest).busybox.expect("a busybox");
    assert_eq!(
        done.transcript.result("health"),
        Some(sha256_of(&busybox).unwrap().as_str())
    );
    if policy == "translate" {
        assert!(done.seen.ids.is_empty(), "{:?}", done.seen.ids);
    } else {
        assert!(!done.seen.ids.is_empty(), "no executor was seen");
    }
}

#[test]
fn hostile_programs_translated() {
    hostile("debian-686/ring3", "translate", false);
}

#[test]
fn hostile_programs_directly() {
    hostile("debian-686-pae/ring3", "direct", false);
}

#[test]
#[ignore = "takes a while; make test-guests runs it"]
fn hostile_programs_by_the_usual_policy() {
    for guest in ["debian-686-pae/ring3", "debian-686/ring3"] {
        hostile(guest, "auto", false);
    }
}

#[test]
#[ignore = "takes a while; make test-guests runs it"]
fn hostile_programs_directly_without_pae() {
    hostile("debian-686/ring3", "direct", false);
}

#[test]
#[ignore = "takes minutes; make test-guests runs it"]
fn hostile_programs_at_length() {
    for guest in ["debian-686/ring3", "debian-686-pae/ring3"] {
        for policy in ["translate", "direct", "auto"] {
            hostile(guest, policy, true);
        }
    }
}
