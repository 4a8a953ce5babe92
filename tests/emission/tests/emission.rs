//! A short fuzzing run, as part of the ordinary tests.

use ring3_emission::run;

/// Inputs for each seed.
const INPUTS: u64 = 12_000;

#[test]
fn arbitrary_bytes_in_every_mode_emit_permitted_code_only() {
    for seed in 1..=8 {
        match run::run(seed, INPUTS, None) {
            Ok(report) => {
                let text = run::text(&report);
                println!("seed {seed}\n{text}");
                assert_eq!(report.inputs.len(), 4, "all kinds of input: {text}");
                assert!(report.memory > 0, "memory is known: {text}");
                assert!(report.units > INPUTS / 2, "most inputs make a unit: {text}");
                assert!(
                    report.rechecked > report.units,
                    "links were checked: {text}"
                );
            }
            Err(why) => panic!("{why}"),
        }
    }
}
