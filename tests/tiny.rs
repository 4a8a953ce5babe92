//! Our own guests, one per CPU feature, each of which checks itself. `make test-guests` runs the
//! same images under QEMU.

use ring3_guests::cache::Cache;
use ring3_guests::{Refresh, prepare, session};
use std::path::Path;
use std::time::Duration;

/// Boots the guest under each engine and expects its proof: every check passed, and the status
/// says so.
fn passes(name: &str) {
    for (engine, ring3) in [("bt", "translate"), ("bt", "direct"), ("step", "translate")] {
        passes_under(name, engine, ring3);
    }
}

fn passes_under(name: &str, engine: &str, ring3: &str) {
    let root = Cache::default_root().unwrap();
    let image = prepare(&root, name, Refresh::IfMissing).unwrap_or_else(|e| panic!("{name}: {e}"));
    let directory = tempfile::tempdir().unwrap();
    let serial = directory.path().join("serial");
    let program = Path::new(env!("CARGO_BIN_EXE_ring3"));
    let mut command = session::ring3_command(program, &image, &serial);
    command.args(["--engine", engine, "--ring3", ring3]);
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
        "{name}, --engine {engine} --ring3 {ring3}: {}\n{notable}",
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
    ring_3_directly: "tiny-direct",
}

/// The guest above really runs directly, and nothing goes wrong that nobody sees.
#[test]
fn ring_3_runs_in_executors() {
    let root = Cache::default_root().unwrap();
    let image = prepare(&root, "tiny-direct", Refresh::IfMissing).unwrap();
    let serial = tempfile::NamedTempFile::new().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_ring3"));
    let mut command = session::ring3_command(program, &image, serial.path());
    let output = command
        .args(["--ring3", "direct", "--stats=json"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let json = errors.lines().find(|l| l.starts_with('{')).expect(&errors);
    let stats: serde_json::Value = serde_json::from_str(json).unwrap();
    let direct = |key: &str| stats["direct"][key].as_u64().expect(key);
    assert!(direct("entries") > 50, "{json}");
    assert!(direct("page_faults") > 5 && direct("pages_dropped") > 5);
    assert_eq!(direct("errors"), 0, "{json}");
    assert_eq!(direct("watched_tables"), 0, "nothing is watched at the end");
}
