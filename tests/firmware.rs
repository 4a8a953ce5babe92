//! Boot sectors through real firmware, seen and driven by the control socket. Public bootable images
//! have recipes: `tests/suite.rs`.

mod machine;

use machine::Machine;
use ring3_guests::cache::Cache;
use ring3_guests::{Refresh, session};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A diskette whose boot sector prints "key?" and a blank, waits for a key by INT 16h, prints it, and powers
/// off when the key is 'q', through the ports that firmware set up.
fn boot_sector(directory: &Path) -> String {
    let mut code: Vec<u8> = Vec::new();
    for c in b"key? " {
        // mov ax, 0e00h+c; mov bx, 7; int 10h
        code.extend([0xb8, *c, 0x0e, 0xbb, 0x07, 0x00, 0xcd, 0x10]);
    }
    let start = code.len();
    // xor ax, ax; int 16h; mov ah, 0eh; int 10h; cmp al, 'q'; jne start
    code.extend([0x31, 0xc0, 0xcd, 0x16, 0xb4, 0x0e, 0xcd, 0x10, 0x3c, b'q']);
    let back = start as i32 - (code.len() as i32 + 2);
    code.extend([0x75, back as u8]);
    // mov dx, 604h; mov ax, 2000h; out dx, ax; hlt
    code.extend([0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4]);
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code.resize(1_474_560, 0);
    let path = directory.join("boot.img");
    std::fs::write(&path, code).unwrap();
    path.display().to_string()
}

#[test]
fn a_boot_sector_reads_keys_and_powers_off() {
    let directory = tempfile::tempdir().unwrap();
    let image = boot_sector(directory.path());
    let mut machine = Machine::start(&["--floppy", &image, "--boot", "a", "--memory", "16M"]);
    machine.wait("key\\?$");
    machine.ctl(&["type", "aB%"]);
    machine.wait("key\\? aB%");
    // The picture has what the text says: 720x400, and a cursor or characters that are not black.
    let png = machine.path("shot.png");
    machine.ctl(&["screenshot", png.to_str().unwrap()]);
    let bytes = std::fs::read(&png).unwrap();
    assert_eq!(&bytes[1..4], b"PNG");
    assert_eq!(bytes[16..24], [0, 0, 2, 0xd0, 0, 0, 1, 0x90], "720x400");
    assert!(
        bytes.len() > 1000,
        "{} bytes are an empty screen",
        bytes.len()
    );
    // The machine may be gone before it can answer.
    let _ = machine.try_ctl(&["type", "q"]);
    assert_eq!(machine.exit_code(), Some(0));
}

/// A diskette assembled from a source in `tests/sectors`.
fn assembled(directory: &Path, name: &str) -> String {
    let source = format!("{}/tests/sectors/{name}.asm", env!("CARGO_MANIFEST_DIR"));
    let image = directory.join(name);
    let status = Command::new("nasm")
        .args(["-f", "bin", "-Wall", "-Werror", "-o"])
        .args([image.as_path(), Path::new(&source)])
        .status()
        .expect("nasm, of Debian's package nasm");
    assert!(status.success());
    image.display().to_string()
}

/// `--boot menu`, with firmware and the VGA BIOS named on the command line.
#[test]
fn the_boot_menu_starts_what_is_chosen() {
    let root = Cache::default_root().unwrap();
    let part = |path: &str| {
        let file = ring3_guests::package_file(&root, "seabios", path, Refresh::IfMissing);
        file.unwrap_or_else(|e| panic!("{e}")).display().to_string()
    };
    let (bios, vga) = (
        part("usr/share/seabios/bios-256k.bin"),
        part("usr/share/seabios/vgabios-stdvga.bin"),
    );
    let directory = tempfile::tempdir().unwrap();
    let image = boot_sector(directory.path());
    let disk = directory.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let machine = Machine::start(&[
        "--bios",
        &bios,
        "--vgabios",
        &vga,
        "--boot",
        "menu",
        "--memory",
        "16M",
        "--floppy",
        &image,
        "--disk",
        disk.to_str().unwrap(),
    ]);
    machine.wait("boot menu");
    machine.ctl(&["sendkey", "esc"]);
    let menu = machine.wait(r"\d\. Floppy \[drive A\]");
    let line = menu.lines().find(|l| l.contains("Floppy")).unwrap();
    machine.ctl(&["type", &line.trim_start()[..1]]);
    machine.wait("key\\?$");
}

#[test]
fn the_bios_turns_the_machine_off_by_apm() {
    let directory = tempfile::tempdir().unwrap();
    let image = assembled(directory.path(), "apm");
    let mut machine = Machine::start(&["--floppy", &image, "--boot", "a", "--memory", "16M"]);
    let start = Instant::now();
    let mut code = machine.exit_code();
    while code.is_none() && start.elapsed() < Duration::from_secs(60) {
        code = machine.exit_code();
    }
    assert_eq!(code, Some(0));
}

#[test]
fn the_largest_vbe_mode_shows_what_is_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let image = assembled(directory.path(), "vbe");
    let serial = directory.path().join("serial");
    let to = format!("file:{}", serial.display());
    let machine = Machine::start(&[
        "--floppy", &image, "--boot", "a", "--memory", "16M", "--serial", &to,
    ]);
    let start = Instant::now();
    let said = || std::fs::read_to_string(&serial).unwrap_or_default();
    while !said().ends_with('\n') {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(said(), "2560x1600\n");
    let shot = machine.path("vbe.png");
    machine.ctl(&["screenshot", shot.to_str().unwrap()]);
    let file = std::io::BufReader::new(std::fs::File::open(&shot).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (2560, 1600));
    let pixel = |x: usize, y: usize| &pixels[(y * 2560 + x) * 3..][..3];
    for y in [0, 800, 1599] {
        assert_eq!(
            (pixel(0, y), pixel(1279, y)),
            (&[255, 0, 0][..], &[255, 0, 0][..])
        );
        assert_eq!(
            (pixel(1280, y), pixel(2558, y)),
            (&[0, 0, 255][..], &[0, 0, 255][..])
        );
    }
    assert_eq!(pixel(2559, 1599), [0, 255, 0]);
}

/// A kernel and its initial RAM disk by firmware's boot loader and our option ROM.
#[test]
fn a_kernel_boots_under_firmware() {
    let root = Cache::default_root().unwrap();
    let image = ring3_guests::prepare(&root, "debian-686/boot", Refresh::IfMissing);
    let image = image.unwrap_or_else(|e| panic!("{e}"));
    let directory = tempfile::tempdir().unwrap();
    let serial = directory.path().join("serial");
    let limit = Duration::from_secs(image.proof.timeout_seconds);
    let mut command =
        session::ring3_command(Path::new(env!("CARGO_BIN_EXE_ring3")), &image, &serial);
    command.args(["--firmware", "seabios"]);
    let transcript = session::run(command, &serial, limit).unwrap_or_else(|e| panic!("{e}"));
    let missing = transcript.missing(&image.proof);
    let text = transcript.text();
    assert!(missing.is_empty(), "{}\n{text}", missing.join("; "));
}

#[test]
fn a_paused_machine_takes_keys_later_and_resets() {
    let directory = tempfile::tempdir().unwrap();
    let image = boot_sector(directory.path());
    let mut machine = Machine::start(&["--floppy", &image, "--boot", "a", "--memory", "16M"]);
    machine.wait("key\\?$");
    machine.ctl(&["pause"]);
    machine.ctl(&["type", "x"]);
    assert!(!machine.ctl(&["screen-text"]).contains("key? x"));
    machine.ctl(&["resume"]);
    machine.wait("key\\? x");
    assert!(machine.ctl(&["stats"]).starts_with('{'));
    machine.ctl(&["reset"]);
    machine.wait("key\\?$");
    assert!(
        machine
            .try_ctl(&["sendkey", "hyper-x"])
            .unwrap_err()
            .contains("hyper")
    );
    assert!(
        machine
            .try_ctl(&["cdrom", "/nonexistent"])
            .unwrap_err()
            .contains("/nonexistent")
    );
    machine.ctl(&["quit"]);
    assert_eq!(machine.exit_code(), Some(5));
}

#[test]
fn a_writable_image_is_not_shared() {
    let directory = tempfile::tempdir().unwrap();
    let image = boot_sector(directory.path());
    let _machine = Machine::start(&["--floppy", &image, "--memory", "16M"]);
    let output = Command::new(env!("CARGO_BIN_EXE_ring3"))
        .args(["run", "--serial", "none", "--disk", &image])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("in use"), "{text}");
}
