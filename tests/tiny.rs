//! Our own guests, one per CPU feature, each of which checks itself. `make test-guests` runs the
//! same images under QEMU.

use ring3_guests::cache::Cache;
use ring3_guests::{Refresh, prepare, session};
use std::path::Path;
use std::time::Duration;

/// Boots the guest under each engine and expects its proof: every check passed, and the status
/// says so.
fn passes(name: &str) {
    for engine in ["bt", "step"] {
        passes_under(name, engine);
    }
}

fn passes_under(name: &str, engine: &str) {
    let root = Cache::default_root().unwrap();
    let image = prepare(&root, name, Refresh::IfMissing).unwrap_or_else(|e| panic!("{name}: {e}"));
    let directory = tempfile::tempdir().unwrap();
    let serial = directory.path().join("serial");
    let ring3 = Path::new(env!("CARGO_BIN_EXE_ring3"));
    let mut command = session::ring3_command(ring3, &image, &serial);
    command.args(["--engine", engine]);
    let limit = Duration::from_secs(image.proof.timeout_seconds);
    let transcript =
        session::run(command, &serial, limit).unwrap_or_else(|e| panic!("{name}: {e}"));
    let missing = transcript.missing(&image.proof);
    let notable: String = transcript
        .lines
        .iter()
        .filter(|line| !line.text.starts_with("PASS "))
        .map(|line| format!("{}\n", line.text))
        .collect();
    assert!(
        missing.is_empty(),
        "{name}, --engine {engine}: {}\n{notable}",
        missing.join("; ")
    );
}

macro_rules! guests {
    ($($function:ident: $name:literal),* $(,)?) => {
        $(#[test] fn $function() { passes($name); })*

        /// A recipe without a test here would go unnoticed.
        #[test]
        fn every_tiny_guest_is_tested() {
            let tested = [$($name),*];
            let tiny = ring3_guests::Recipe::all().unwrap().into_iter().map(|r| r.name).filter(|n| n.starts_with("tiny-"));
            for name in tiny {
                assert!(tested.contains(&name.as_str()), "{name} is not tested");
            }
        }
    };
}

guests! {
    real_mode: "tiny-real",
    rings_and_gates: "tiny-rings",
    two_level_paging: "tiny-paging",
    pae_paging: "tiny-pae",
    virtual_8086_mode: "tiny-v86",
    task_switches: "tiny-tasks",
    self_modifying_code: "tiny-smc",
    breakpoints_and_single_steps: "tiny-debug",
    interrupts_in_tight_loops: "tiny-irq",
    string_instructions_across_faults: "tiny-rep",
    x87_and_sse_state: "tiny-fpu",
}
