//! Each command of the control socket against a running guest, and peers that misbehave.

mod machine;

use machine::Machine;
use ring3_monitor::control::Changes;
use ring3_monitor::control::protocol::{Answer, MAX_LINE};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Assembles a program of `tests/control`.
fn assemble(directory: &Path, name: &str) -> Vec<u8> {
    let source =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/control/{name}.asm"));
    let output = directory.join(name);
    let status = Command::new("nasm")
        .args(["-f", "bin", "-o"])
        .arg(&output)
        .arg(source)
        .status();
    assert!(status.expect("nasm (make tools)").success());
    std::fs::read(output).unwrap()
}

/// A machine with the guest of `boot.asm`, an empty CD-ROM drive and a diskette that begins with
/// sectors 'a' and 'b'.
fn booted(directory: &Path) -> Machine {
    let mut disk = assemble(directory, "boot");
    disk.resize(1 << 20, 0);
    let disk_path = directory.join("disk.img");
    std::fs::write(&disk_path, disk).unwrap();
    let diskette = medium(directory, "a.img", 512, b'b', 1_474_560);
    let options = [
        "--disk",
        &format!("{},format=raw", disk_path.display()),
        "--floppy",
        &diskette,
        "--boot",
        "c",
        "--memory",
        "16M",
        "--no-reboot",
    ];
    let machine = Machine::start(&options);
    machine.wait("ready");
    machine
}

/// An image with `byte` at `at`.
fn medium(directory: &Path, name: &str, at: usize, byte: u8, len: usize) -> String {
    let mut bytes = vec![0; len];
    bytes[at] = byte;
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// A connection that speaks the protocol itself.
struct Peer(BufReader<UnixStream>);

impl Peer {
    fn new(machine: &Machine) -> Self {
        Self(BufReader::new(
            UnixStream::connect(machine.path("ctl")).unwrap(),
        ))
    }

    fn send(&mut self, text: &[u8]) {
        self.0.get_mut().write_all(text).unwrap();
    }

    fn answer(&mut self) -> Answer {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    fn ask(&mut self, text: &str) -> Answer {
        self.send(text.as_bytes());
        self.send(b"\n");
        self.answer()
    }

    fn changes(&mut self, since: Option<u64>, timeout: u32) -> Changes {
        let since = since.map_or("null".into(), |n| n.to_string());
        let answer = self.ask(&format!(
            "{{\"command\":\"screen-changes\",\"since\":{since},\"timeout\":{timeout}}}"
        ));
        let text = answer.text.clone().unwrap_or_else(|| panic!("{answer:?}"));
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn text_keys_mouse_and_screenshots() {
    let directory = tempfile::tempdir().unwrap();
    let machine = booted(directory.path());
    // Code page 437 as UTF-8.
    machine.wait("^☺éß░█≈ ready");
    machine.ctl(&["type", "aB~\\n"]);
    machine.wait("K1e61 K3042 K297e K1c0d");
    machine.ctl(&["sendkey", "ctrl-c", "alt-x", "shift-f1", "esc", "left"]);
    machine.wait("K2e03 K2d00 K5400 K011b K4b(e0|00)");
    machine.ctl(&["mouse", "5", "--", "-3", "1"]);
    // Buttons and signs; up is positive.
    machine.wait("M(09|29)0503");
    let error = machine
        .try_ctl(&["wait-text", "never", "--timeout", "0.2"])
        .unwrap_err();
    assert!(
        error.contains("did not appear within 0.2 s") && error.contains("ready"),
        "{error}"
    );
    let error = machine
        .try_ctl(&["wait-text", "(", "--timeout", "1"])
        .unwrap_err();
    assert!(error.contains("not a regular expression"), "{error}");
    let png = machine.path("shot.png");
    machine.ctl(&["screenshot", png.to_str().unwrap()]);
    assert_eq!(
        std::fs::read(&png).unwrap()[16..24],
        [0, 0, 2, 0xd0, 0, 0, 1, 0x90]
    );
    let error = machine
        .try_ctl(&["screenshot", "/nonexistent/x.png"])
        .unwrap_err();
    assert!(error.contains("/nonexistent/x.png"), "{error}");
    let error = machine.try_ctl(&["type", "aß"]).unwrap_err();
    assert!(error.contains("cannot type 'ß'"), "{error}");
    let text = machine.ctl(&["screen-text"]);
    assert!(
        !text.contains("K1e61 K3042 K297e K1c0d K1e61"),
        "nothing was typed: {text}"
    );
    machine.ctl(&["sendkey", "f3"]);
    loop {
        match machine.try_ctl(&["screen-text"]) {
            Ok(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
            Err(e) => break assert!(e.contains("shows graphics"), "{e}"),
        }
    }
    machine.ctl(&["screenshot", png.to_str().unwrap()]);
    assert_eq!(std::fs::read(&png).unwrap()[1..4], *b"PNG");
}

#[test]
fn media_are_exchanged() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let machine = booted(directory);
    let c = medium(directory, "c.img", 512, b'c', 1_474_560);
    let disc = medium(directory, "d.iso", 16 * 2048, b'd', 20 * 2048);
    machine.ctl(&["sendkey", "f1"]);
    machine.wait("F:b");
    machine.ctl(&["floppy", "eject"]);
    machine.ctl(&["sendkey", "f1"]);
    machine.wait("F:-");
    machine.ctl(&["floppy", &c]);
    machine.ctl(&["sendkey", "f1"]);
    machine.wait("F:c");
    machine.ctl(&["sendkey", "f2"]);
    machine.wait("D:-");
    machine.ctl(&["cdrom", &disc]);
    machine.ctl(&["sendkey", "f2"]);
    machine.wait("D:d");
    machine.ctl(&["cdrom", "eject"]);
    machine.ctl(&["sendkey", "f2"]);
    machine.wait("D:- *$|D:d.*D:-");
    for words in [["cdrom", "/nonexistent"], ["floppy", "/dev/null"]] {
        let error = machine.try_ctl(&words).unwrap_err();
        assert!(
            error.contains(words[1]) && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn pause_stops_the_guest_and_its_screen() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = booted(directory.path());
    machine.ctl(&["pause"]);
    let shown = machine.ctl(&["screen-text"]);
    machine.ctl(&["type", "x"]);
    let mut peer = Peer::new(&machine);
    let changes = peer.changes(None, 0);
    assert_eq!((changes.graphics, &changes.lines), (false, &None));
    // An idle screen: nothing changes, however long one waits.
    let same = peer.changes(Some(changes.generation), 300);
    assert_eq!(
        (same.generation, same.lines),
        (changes.generation, Some(vec![]))
    );
    assert_eq!(machine.ctl(&["screen-text"]), shown);
    let stats: serde_json::Value = serde_json::from_str(&machine.ctl(&["stats"])).unwrap();
    assert!(stats["vm_time_ms"].as_u64().unwrap() > 0);
    machine.ctl(&["resume"]);
    machine.wait("K2d78");
    // The guest's clock moves something on its screen.
    assert_eq!(peer.changes(Some(changes.generation), 60_000).lines, None);
    machine.ctl(&["quit"]);
    assert_eq!(machine.exit_code(), Some(5));
}

#[test]
fn the_power_button_is_the_guests_to_answer() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = booted(directory.path());
    machine.ctl(&["powerdown"]);
    assert_eq!(machine.exit_code(), Some(0));
}

#[test]
fn reset_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = booted(directory.path());
    machine.ctl(&["reset"]);
    assert_eq!(
        machine.exit_code(),
        Some(4),
        "--no-reboot tells it by the status"
    );
}

#[test]
fn drawing_shows_as_lines() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let code = assemble(directory, "draw");
    let mut kernel = vec![0u8; 1024];
    kernel[0x1f1] = 1;
    kernel[0x1f4..0x1f8].copy_from_slice(&(code.len().div_ceil(16) as u32).to_le_bytes());
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x201] = 0x66;
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&0x0204u16.to_le_bytes());
    kernel[0x211] = 1;
    kernel.extend(code);
    let path = directory.join("kernel");
    std::fs::write(&path, kernel).unwrap();
    let machine = Machine::start(&["--kernel", path.to_str().unwrap(), "--memory", "16M"]);
    let mut peer = Peer::new(&machine);
    let mut changes = peer.changes(None, 0);
    // The mode, and the line after it.
    while !changes.graphics {
        changes = peer.changes(Some(changes.generation), 60_000);
    }
    loop {
        let next = peer.changes(Some(changes.generation), 300);
        if next.generation == changes.generation {
            break;
        }
        changes = next;
    }
    let since = changes.generation;
    assert_eq!(
        peer.changes(Some(since), 300).lines,
        Some(vec![]),
        "nobody draws"
    );
    machine.ctl(&["type", "a"]);
    let drawn = peer.changes(Some(since), 60_000);
    // One line of 2560 bytes, in pages of 4096.
    assert_eq!(drawn.lines, Some(vec![(299, 303)]));
    let again = peer.changes(Some(drawn.generation), 300);
    assert_eq!(again.lines, Some(vec![]));
    machine.ctl(&["type", "b"]);
    let drawn = peer.changes(Some(again.generation), 60_000);
    assert_eq!(drawn.lines, Some(vec![(299, 303)]), "the same line again");
    let png = machine.path("shot.png");
    machine.ctl(&["screenshot", png.to_str().unwrap()]);
    assert_eq!(
        std::fs::read(&png).unwrap()[16..24],
        [0, 0, 2, 0x80, 0, 0, 1, 0xe0]
    );
}

#[test]
fn peers_that_misbehave_disturb_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let machine = booted(directory.path());
    let mut peer = Peer::new(&machine);
    for request in [
        "",
        "nonsense",
        "{}",
        "[1]",
        "{\"command\":\"fly\"}",
        "{\"command\":\"mouse\",\"dx\":\"a\"}",
        "{\"command\":\"sendkey\",\"keys\":[\"no-such-key\"]}",
    ] {
        let error = peer
            .ask(request)
            .error
            .unwrap_or_else(|| panic!("{request}"));
        assert!(!error.is_empty() && error.lines().count() == 1, "{error}");
    }
    peer.send(b"\xff\xfe\n");
    assert!(peer.answer().error.unwrap().contains("not a request"));
    // Still of use.
    assert_eq!(peer.ask("{\"command\":\"screen-text\"}").error, None);
    // A request without end is refused, not kept.
    let mut endless = Peer::new(&machine);
    let piece = vec![b'x'; MAX_LINE as usize];
    endless.send(&piece);
    assert!(
        endless
            .answer()
            .error
            .unwrap()
            .contains("ends with a newline")
    );
    let mut rest = Vec::new();
    assert_eq!(endless.0.read_to_end(&mut rest).unwrap(), 0);
    // Peers that ask and never read, that die in mid-request, and that only sit there.
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut peer = Peer::new(&machine);
        for _ in 0..20 {
            peer.send(b"{\"command\":\"screenshot\"}\n");
        }
        stalled.push(peer);
        Peer::new(&machine).send(b"{\"command\":\"scr");
        Peer::new(&machine).send(b"{\"command\":\"screenshot\"}\n");
    }
    machine.ctl(&["type", "ok"]);
    machine.wait("K186f K256b");
    // Too many are told so.
    let mut crowd: Vec<Peer> = (0..80).map(|_| Peer::new(&machine)).collect();
    let mut last = crowd.pop().unwrap();
    assert!(last.answer().error.unwrap().contains("connected already"));
    drop((crowd, stalled));
    loop {
        match machine.try_ctl(&["screen-text"]) {
            Ok(_) => break,
            Err(e) => assert!(e.contains("connected already") || e.contains("gone"), "{e}"),
        }
    }
}
