//! The command line as a user meets it: exit statuses and one clear sentence for each mistake.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn ring3(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ring3"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("ring3 starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs and expects status 1 with one sentence that has all of `words`.
fn refused(args: &[&str], words: &[&str]) {
    let output = ring3(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "one sentence: {text}");
    assert!(text.starts_with("ring3: "), "{text}");
    for word in words {
        assert!(text.contains(word), "{word} in {text}");
    }
}

/// A file that is removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("ring3-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The header of a bzImage (protocol 2.15) with `payload` bytes after it.
fn bzimage(payload: usize) -> Vec<u8> {
    let mut image = vec![0u8; 1024 + payload];
    image[0x1f1] = 1;
    image[0x1f4..0x1f8].copy_from_slice(&4096u32.to_le_bytes());
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x201] = 0x66;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    image[0x211] = 1;
    image[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    image[0x230..0x234].copy_from_slice(&0x0010_0000u32.to_le_bytes());
    image[0x234] = 1;
    image[0x238..0x23c].copy_from_slice(&255u32.to_le_bytes());
    image[0x258..0x260].copy_from_slice(&0x0100_0000u64.to_le_bytes());
    image[0x260..0x264].copy_from_slice(&0x0040_0000u32.to_le_bytes());
    image
}

#[test]
fn help_documents_the_exit_statuses() {
    for args in [&["--help"][..], &["run", "--help"]] {
        let output = ring3(args);
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in ["Exit status", "triple fault", "debug-exit", "128+n"] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
}

#[test]
fn usage_errors_have_status_2() {
    for args in [
        &[][..],
        &["run"],
        &["fly"],
        &["run", "--kernel", "k", "--memory", "lots"],
        &["run", "--kernel", "k", "--memory", "1M"],
        &["run", "--kernel", "k", "--memory", "8G"],
        &["run", "--kernel", "k", "--serial", "tty"],
        &["run", "--kernel", "k", "--serial", "file:"],
        &["run", "--kernel", "k", "--engine", "magic"],
        &["run", "--kernel", "k", "--stats=xml"],
        &["run", "--kernel", "k", "--boot", "a"],
        &["run", "--disk", "x,if=scsi"],
        &["run", "--cdrom", "x", "--control", "/tmp/x"],
        &["run", "--initrd", "x", "--cdrom", "x"],
    ] {
        let output = ring3(args);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn firmware_options_must_agree() {
    refused(
        &["run", "--firmware", "none", "--cdrom", "x"],
        &["--firmware none", "--kernel"],
    );
    refused(
        &["run", "--kernel", "k", "--bios", "b"],
        &["--bios", "--firmware seabios"],
    );
}

#[test]
fn wrong_kernels_are_named() {
    refused(
        &["run", "--kernel", "/nonexistent/vmlinuz"],
        &["/nonexistent/vmlinuz", "no file", "--kernel"],
    );
    refused(&["run", "--kernel", "/dev/null"], &["/dev/null", "empty"]);
    refused(&["run", "--kernel", "/"], &["cannot read /"]);
    let text = Temporary::new("text", b"#!/bin/sh\necho this is no kernel\n");
    refused(
        &["run", "--kernel", text.path()],
        &[text.path(), "not a bzImage"],
    );
    let cut = Temporary::new("cut", &bzimage(4096 * 16)[..20_000]);
    refused(&["run", "--kernel", cut.path()], &[cut.path(), "truncated"]);
}

#[test]
fn memory_and_initrd_must_fit() {
    let kernel = Temporary::new("kernel", &bzimage(4096 * 16));
    refused(
        &["run", "--kernel", kernel.path(), "--memory", "8M"],
        &[kernel.path(), "20 MiB", "--memory"],
    );
    let initrd = Temporary::new("initrd", &vec![1; 3 << 20]);
    refused(
        &[
            "run",
            "--kernel",
            kernel.path(),
            "--initrd",
            initrd.path(),
            "--memory",
            "21M",
        ],
        &[initrd.path(), "--memory"],
    );
    refused(
        &[
            "run",
            "--kernel",
            kernel.path(),
            "--initrd",
            "/nonexistent/i",
        ],
        &["/nonexistent/i", "--initrd"],
    );
    let long = "x".repeat(300);
    refused(
        &["run", "--kernel", kernel.path(), "--append", &long],
        &["300", "255", "--append"],
    );
}

#[test]
fn firmware_that_is_none_is_named() {
    let text = Temporary::new("firmware", b"not a BIOS");
    let start = [
        "run",
        "--serial",
        "none",
        "--control",
        "unix:/nonexistent/s",
    ];
    let with = |more: &[&str], words: &[&str]| refused(&[&start[..], more].concat(), words);
    with(&["--bios", "/nonexistent/b"], &["/nonexistent/b"]);
    with(&["--bios", text.path()], &[text.path(), "64 KiB"]);
    with(&["--vgabios", text.path()], &[text.path(), "55h AAh"]);
    with(&["--firmware", "none"], &["--kernel"]);
    let kernel = ["--kernel", text.path(), "--boot", "c"];
    assert_eq!(
        ring3(&[&start[..], &kernel].concat()).status.code(),
        Some(2)
    );
}

#[test]
fn host_report_names_every_requirement() {
    let output = ring3(&["host"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in [
        "BMI2",
        "FSGSBASE",
        "XSAVE",
        "memfd",
        "address space",
        "time stamp counter",
        "direct execution",
        "PEXT",
        "XSAVEOPT",
        "AVX2",
        "/dev/kvm",
        "vm.max_map_count",
        "huge pages",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert_eq!(output.status.success(), !text.contains("LACKS"), "{text}");
}

#[test]
fn guests_are_listed_and_unknown_ones_refused() {
    let output = ring3(&["guests", "list"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!output.stdout.is_empty());
    refused(&["guests", "fetch", "no-such-guest"], &["no-such-guest"]);
}
