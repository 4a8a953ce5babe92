//! Guests that do anything at all: none crashes or hangs the monitor, and the user can always end
//! the run.

use nix::pty::openpty;
use ring3_guests::cache::Cache;
use ring3_guests::tiny::assemble;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// How long each guest may rage.
const RAGE: Duration = Duration::from_millis(800);
/// How soon the monitor ends once it is asked to.
const END: Duration = Duration::from_secs(3);
/// How long a machine may take to come up on a busy host.
const START: Duration = Duration::from_secs(30);

fn image() -> PathBuf {
    let cache = Cache::open(&Cache::default_root().unwrap()).unwrap();
    assemble(&cache, "hostile.asm").unwrap()
}

fn command(case: &str, engine: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ring3"));
    command
        .args(["run", "--memory", "64M", "--no-reboot"])
        .args(["--engine", engine, "--append", case, "--kernel"])
        .arg(image());
    command
}

/// Waits until the guest said that it begins; reads on in the background, so that it never blocks.
fn await_go(mut output: impl Read + Send + 'static) {
    let (tell, told) = mpsc::channel();
    spawn(move || {
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = output.read(&mut buffer) {
            if seen.len() < 256 {
                seen.extend_from_slice(&buffer[..n]);
                if seen.windows(2).any(|w| w == b"GO") {
                    let _ = tell.send(());
                }
            }
        }
    });
    told.recv_timeout(START).expect("the guest begins");
}

/// The status; a monitor that still runs at the deadline is killed and fails.
fn status(child: &mut Child, within: Duration, case: &str) -> i32 {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let signal = status.signal();
            return status
                .code()
                .unwrap_or_else(|| panic!("{case}: killed by signal {signal:?}"));
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("{case}: does not end");
        }
        sleep(Duration::from_millis(5));
    }
}

/// Lets the guest rage, then ends it by SIGTERM. It may end itself by a triple fault or a reset.
fn rages(case: &str, engine: &str) {
    let mut child = command(case, engine)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    await_go(child.stdout.take().unwrap());
    let until = Instant::now() + RAGE;
    while Instant::now() < until && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(5));
    }
    if child.try_wait().unwrap().is_none() {
        let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    }
    let code = status(&mut child, END, case);
    let mut text = String::new();
    let _ = child.stderr.take().unwrap().read_to_string(&mut text);
    assert!(
        matches!(code, 3 | 4 | 143),
        "{case}, {engine}: status {code}: {text}"
    );
    assert!(!text.contains("panicked"), "{case}, {engine}: {text}");
}

#[test]
fn faults_without_end() {
    for case in ["f", "u", "s"] {
        rages(case, "bt");
        rages(case, "step");
    }
}

#[test]
fn wild_jumps_and_code_that_is_no_memory() {
    for case in ["w1", "w2", "w3", "v"] {
        rages(case, "bt");
    }
    rages("w4", "step");
}

#[test]
fn own_code_and_page_tables_overwritten() {
    for case in ["c1", "c2", "c3", "p1", "p2", "p3", "p4", "r"] {
        rages(case, "bt");
    }
    rages("p2", "step");
}

#[test]
fn random_descriptors_and_registers() {
    for case in ["g1", "g2", "g3", "g4", "g5", "g6", "x1", "x2", "x3"] {
        rages(case, "bt");
    }
    rages("x4", "step");
}

#[test]
fn devices_misused() {
    for case in ["o1", "o2", "o3", "d", "m", "i"] {
        rages(case, "bt");
    }
}

#[test]
fn a_triple_fault_has_its_status() {
    let mut child = command("t", "bt")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(status(&mut child, START, "t"), 3);
}

/// On a terminal, Ctrl-A x ends the run whatever the guest does.
#[test]
fn the_escape_key_always_works() {
    for case in ["f", "u", "w1", "i", "h", "r"] {
        let terminal = openpty(None, None).unwrap();
        let side = || Stdio::from(terminal.slave.try_clone().unwrap());
        let ring3 = command(case, "bt");
        // Raw mode needs the controlling terminal.
        let mut child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(ring3.get_program())
            .args(ring3.get_args())
            .stdin(side())
            .stdout(side())
            .spawn()
            .unwrap();
        let mut master = File::from(terminal.master);
        await_go(master.try_clone().unwrap());
        sleep(Duration::from_millis(200));
        master.write_all(b"\x01x").unwrap();
        assert_eq!(status(&mut child, END, case), 5, "{case}");
    }
}
