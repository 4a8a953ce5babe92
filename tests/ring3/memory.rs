//! A program with much memory: right, and bounded in host mappings.

use crate::machine::{Options, run};

/// The recipe's proof has the contents; here are the mappings, as the host counts them.
#[test]
#[ignore = "needs 2 GiB; make test-guests runs it"]
fn a_hungry_program_is_right_and_bounded() {
    let limit: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    for policy in ["translate", "direct", "auto"] {
        let done = run(Options::new("debian-686-pae/hungry", policy));
        println!(
            "--ring3={policy}: at most {} mappings, {:.1} s",
            done.seen.most_mappings,
            done.transcript.elapsed.as_secs_f64()
        );
        assert!(
            done.seen.most_mappings < limit * 3 / 4,
            "--ring3={policy}: {} mappings of {limit}",
            done.seen.most_mappings
        );
        assert_eq!(done.stats["direct"]["errors"].as_u64(), Some(0));
    }
}
