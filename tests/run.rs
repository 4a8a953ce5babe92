//! Whole machines with kernels of a few bytes: how a run ends, and where its serial output goes.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long any of these runs may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A bzImage file with this protected-mode code, removed at the end.
struct Kernel(PathBuf);

impl Kernel {
    fn new(name: &str, code: &[u8]) -> Self {
        let mut image = vec![0u8; 1024];
        image[0x1f1] = 1;
        image[0x1f4..0x1f8].copy_from_slice(&(code.len().div_ceil(16) as u32).to_le_bytes());
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x201] = 0x66;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x0204u16.to_le_bytes());
        image[0x211] = 1;
        image.extend_from_slice(code);
        let path = std::env::temp_dir().join(format!("ring3-run-{}-{name}", std::process::id()));
        std::fs::write(&path, image).unwrap();
        Self(path)
    }

    fn start(&self, args: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_ring3"))
            .args(["run", "--memory", "16M", "--kernel"])
            .arg(&self.0)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ring3 starts")
    }

    fn run(&self, args: &[&str]) -> Output {
        finish(self.start(args))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Waits for the end; a run that does not end in time is killed and fails.
fn finish(mut child: Child) -> Output {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("still running: {:?}", child.wait_with_output().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn assert_status(output: &Output, status: i32) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{text} (signal {:?})",
        output.status.signal()
    );
}

/// `mov dx, port; mov al, value; out dx, al`
fn out(port: u16, value: u8) -> Vec<u8> {
    let [lo, hi] = port.to_le_bytes();
    vec![0x66, 0xba, lo, hi, 0xb0, value, 0xee]
}

/// `hlt; jmp $-1`
const STOP: [u8; 3] = [0xf4, 0xeb, 0xfd];

/// Turns the machine off through PM1a control: SLP_TYP 0, SLP_EN.
fn power_off() -> Vec<u8> {
    [
        &[0x66, 0xba, 0x04, 0xb0, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef][..],
        &STOP,
    ]
    .concat()
}

#[test]
fn power_off_is_status_0() {
    assert_status(&Kernel::new("off", &power_off()).run(&[]), 0);
}

#[test]
fn debug_exit_gives_its_status_only_when_asked_for() {
    let code = [out(0x501, 0x10), power_off()].concat();
    let kernel = Kernel::new("debug", &code);
    assert_status(&kernel.run(&["--debug-exit"]), 0x21);
    assert_status(&kernel.run(&[]), 0);
}

#[test]
fn restart_and_triple_fault_end_under_no_reboot() {
    let reset = [out(0xcf9, 0x06), STOP.to_vec()].concat();
    assert_status(&Kernel::new("reset", &reset).run(&["--no-reboot"]), 4);
    // The IDT is empty: INT3 cannot be delivered, nor what follows from that.
    assert_status(&Kernel::new("triple", &[0xcc]).run(&["--no-reboot"]), 3);
}

#[test]
fn serial_output_arrives_whole() {
    let text = b"hello from ring 0\n";
    let code = [
        text.iter().flat_map(|b| out(0x3f8, *b)).collect(),
        power_off(),
    ]
    .concat();
    let kernel = Kernel::new("serial", &code);
    let output = kernel.run(&[]);
    assert_status(&output, 0);
    assert_eq!(output.stdout, text);

    let file = std::env::temp_dir().join(format!("ring3-run-{}-out", std::process::id()));
    let spec = format!("file:{}", file.display());
    let output = kernel.run(&["--serial", &spec]);
    assert_status(&output, 0);
    assert_eq!(std::fs::read(&file).unwrap(), text);
    assert!(output.stdout.is_empty());
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn four_serial_ports_and_the_printer_have_their_own_files() {
    let mut code = Vec::new();
    for (port, byte) in [(0x3f8, b'1'), (0x2f8, b'2'), (0x3e8, b'3'), (0x2e8, b'4')] {
        code.extend(out(port, byte));
    }
    // More than the port keeps by itself: data, then strobes for ever, and in between a look at
    // the status until the printer takes a byte.
    code.extend(out(0x378, b'P'));
    code.extend([0xb9, 0xff, 0xff, 0x01, 0x00]); // mov ecx, 1ffffh
    let mut strobe = vec![0x66, 0xba, 0x79, 0x03, 0xec, 0x84, 0xc0, 0x79, 0xfb]; // in al; test; jns
    strobe.extend(out(0x37a, 0x0d));
    strobe.extend(out(0x37a, 0x0c));
    let back = -(strobe.len() as i8 + 2);
    strobe.extend([0xe2, back as u8]); // loop
    code.extend(strobe);
    code.extend(power_off());
    let kernel = Kernel::new("ports", &code);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let spec = |name: &str| format!("file:{}", file(name).display());
    let mut args: Vec<String> = Vec::new();
    for name in ["1", "2", "3", "4"] {
        args.extend(["--serial".into(), spec(name)]);
    }
    args.extend(["--parallel".into(), spec("printed")]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_status(&kernel.run(&args), 0);
    for name in ["1", "2", "3", "4"] {
        assert_eq!(std::fs::read(file(name)).unwrap(), name.as_bytes());
    }
    let printed = std::fs::read(file("printed")).unwrap();
    assert!(printed.len() == 0x1_ffff && printed.iter().all(|&b| b == b'P'));
    // Without a file nothing is kept, and nothing waits.
    assert_status(&kernel.run(&["--serial", "none"]), 0);
    let refused = |args: &[&str], why: &str| {
        let output = kernel.run(args);
        assert_status(&output, 1);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(why), "{text}");
    };
    refused(&["--serial=none"; 5], "has 4 serial ports");
    refused(&["--serial=stdio"; 2], "serve one serial port");
}

#[test]
fn signals_end_busy_and_halted_guests() {
    let busy = Kernel::new("busy", &[0xeb, 0xfe]);
    let halted = Kernel::new("halted", &STOP);
    for kernel in [&busy, &halted] {
        for signal in [15, 2, 1] {
            let child = kernel.start(&[]);
            std::thread::sleep(Duration::from_millis(300));
            let begin = Instant::now();
            let status = Command::new("kill")
                .arg(format!("-{signal}"))
                .arg(child.id().to_string())
                .status();
            assert!(status.unwrap().success());
            let output = finish(child);
            assert_status(&output, 128 + signal);
            assert!(
                begin.elapsed() < Duration::from_secs(3),
                "{:?}",
                begin.elapsed()
            );
        }
    }
}

#[test]
fn a_reader_that_leaves_ends_an_endless_talker() {
    // mov dx, 0x3f8; mov al, 'x'; again: out dx, al; jmp again
    let code = [&out(0x3f8, b'x')[..], &[0xeb, 0xfd]].concat();
    let kernel = Kernel::new("talker", &code);
    let mut child = kernel.start(&[]);
    let mut some = [0; 64];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut some)
        .unwrap();
    assert_eq!(some, [b'x'; 64]);
    drop(child.stdout.take());
    assert_status(&finish(child), 128 + 13);
}

#[test]
fn stats_are_json_on_request() {
    let output = Kernel::new("stats", &power_off()).run(&["--stats=json"]);
    assert_status(&output, 0);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let value: serde_json::Value = serde_json::from_str(text.trim()).expect(&text);
    assert!(value.is_object());
}

#[test]
fn lost_serial_output_is_told_and_is_no_success() {
    // 'x' to COM1, then soft off.
    let mut code = out(0x3f8, b'x');
    code.extend(power_off());
    let kernel = Kernel::new("full", &code);
    let output = kernel.run(&["--serial", "file:/dev/full"]);
    assert_status(&output, 1);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].contains("output to /dev/full cannot be written: No space left"),
        "{text}"
    );
    assert!(
        lines[1].contains("output to /dev/full is incomplete"),
        "{text}"
    );
}
