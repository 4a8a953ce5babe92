//! Images that cannot be used: one sentence that names the file, status 1, nothing written.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(disk: &str) -> Output {
    // The drives are opened before the kernel is read.
    Command::new(env!("CARGO_BIN_EXE_ring3"))
        .args([
            "run",
            "--serial",
            "none",
            "--kernel",
            "/nonexistent/kernel",
            "--disk",
            disk,
        ])
        .output()
        .unwrap()
}

/// The one line that is said about an image.
fn refusal(path: &Path, options: &str) -> String {
    let content = path.is_file().then(|| std::fs::metadata(path).unwrap());
    let output = run(&format!("{}{options}", path.display()));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    if let Some(before) = content {
        let after = std::fs::metadata(path).unwrap();
        assert_eq!(before.modified().unwrap(), after.modified().unwrap());
        assert_eq!(before.len(), after.len());
    }
    text
}

/// The header of a version 3 image with a file below it, and nothing else.
fn header(backing: &str) -> Vec<u8> {
    let mut bytes = vec![0; 4 << 16];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(8, &512u64.to_be_bytes());
    put(16, &(backing.len() as u32).to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &(1u64 << 20).to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &(3u64 << 16).to_be_bytes());
    put(48, &(1u64 << 16).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(104, &0xe279_2acau32.to_be_bytes());
    put(108, &5u32.to_be_bytes());
    put(112, b"qcow2");
    put(512, backing.as_bytes());
    put(1 << 16, &(2u64 << 16).to_be_bytes());
    for cluster in 0..4 {
        put((2 << 16) + 2 * cluster, &1u16.to_be_bytes());
    }
    bytes
}

#[test]
fn unusable_images_are_refused_in_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let said = refusal(&directory.join("missing"), "");
    assert!(said.contains("No such file"), "{said}");
    assert!(refusal(directory, "").contains("neither a file nor"));
    let pipe = directory.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(refusal(&pipe, "").contains("neither a file nor"));
    assert!(refusal(&file("empty", b""), "").contains("0 bytes"));
    let huge = file("huge", b"");
    let sparse = std::fs::File::options().write(true).open(&huge).unwrap();
    sparse.set_len((2 << 40) + 512).unwrap();
    assert!(refusal(&huge, "").contains("at most 2 TiB"));
    assert!(refusal(&file("short.qcow2", b"QFI\xfb\0\0\0\x03"), "").contains("end of the file"));
    assert!(refusal(&file("raw", &[7; 4096]), ",format=qcow2").contains("beyond the end"));
    let below = file("below.qcow2", &header("below.qcow2"));
    assert!(refusal(&below, ",ro").contains("names the backing file below.qcow2, add 'backing'"));
    for writable in [",ro,backing", ",backing"] {
        assert!(refusal(&below, writable).contains("the chain has no end"));
    }
    let mut cut = header("x");
    cut[8..16].fill(0);
    cut.truncate(3 << 16);
    assert!(refusal(&file("cut.qcow2", &cut), "").contains("L1 table lies beyond the end"));
    // What is not said of the image is a wrong command line.
    let output = run("x,if=scsi");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("'if=scsi' is no property of an image"),
        "{text}"
    );
}
