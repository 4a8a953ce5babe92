//! What a guest has flushed is in the image after SIGKILL: a journaling file system is written to,
//! the monitor is killed at any moment, and the file system and every record that the guest said
//! was durable are looked for. Needs e2fsprogs and, for the long test, qemu-utils (`make tools peers`).

use ring3_guests::cache::Cache;
use ring3_guests::cpio::Archive;
use ring3_guests::{Refresh, prepare};
use ring3_monitor::image::{ImageFormat, OpenMode, open};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the guest loads for an ext4 file system on an IDE disk, in this order.
const MODULES: [&str; 16] = [
    "crc16",
    "crc32c_generic",
    "mbcache",
    "jbd2",
    "ext4",
    "crct10dif_common",
    "crct10dif_generic",
    "crc-t10dif",
    "crc64",
    "crc64_rocksoft_generic",
    "crc64-rocksoft",
    "t10-pi",
    "scsi_common",
    "scsi_mod",
    "libata",
    "ata_piix",
];
const DISK: &str = "sd_mod";
const SIZE: u64 = 48 << 20;
/// Bytes of a record: more than one page, no multiple of a sector.
const RECORD: usize = 9_999;

const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /dev /proc /mnt
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
for m in $(cat /modules/order); do insmod /modules/$m.ko || echo "K:module $m"; done
while [ ! -b /dev/sda ]; do usleep 10000; done
mount -t ext4 /dev/sda /mnt || { echo K:mount; poweroff -f; }
n=$(ls /mnt | grep -c '^r')
while :; do
    yes "record $n" | head -c 9999 >/record
    dd if=/record of=/mnt/r$n bs=9999 conv=fsync 2>/dev/null || { echo K:write; poweroff -f; }
    echo "K:durable $n" >/dev/ttyS0
    # Much that is never flushed, and something to free.
    yes "scratch $n" | head -c 200000 >/mnt/scratch$((n % 5))
    rm -f /mnt/scratch$(((n + 2) % 5))
    n=$((n + 1))
done
"#;

fn tool(name: &str, arguments: &[&str], path: &Path) -> std::process::Output {
    Command::new(name)
        .args(arguments)
        .arg(path)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .unwrap_or_else(|e| panic!("{name} (see make tools): {e}"))
}

/// The kernel, and an initial file system with the modules of its own package.
fn guest(directory: &Path) -> (PathBuf, PathBuf) {
    let root = Cache::default_root().unwrap();
    let image = prepare(&root, "debian-686/boot", Refresh::IfMissing).unwrap();
    let package = image.origin.split([' ', ',']).next().unwrap();
    let package = std::fs::read_dir(root.join("packages"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(&format!("{package}_"))
        })
        .unwrap_or_else(|| panic!("no package of {}", image.origin));
    let modules = directory.join("modules");
    std::fs::create_dir(&modules).unwrap();
    let mut unpack = Command::new("sh");
    unpack.args([
        "-c",
        "dpkg-deb --fsys-tarfile \"$1\" | tar x -C \"$2\" --wildcards '*/kernel/*'",
    ]);
    let status = unpack.arg("sh").arg(&package).arg(&modules).status();
    assert!(status.unwrap().success(), "dpkg-deb | tar");
    let mut archive = Archive::new();
    for path in ["bin", "modules"] {
        archive.directory(path);
    }
    let busybox = std::fs::read(image.busybox.unwrap()).unwrap();
    archive.file("bin/busybox", 0o755, &busybox);
    let mut order = String::new();
    for name in MODULES.iter().chain([&DISK]) {
        let found = Command::new("find")
            .arg(&modules)
            .args(["-name", &format!("{name}.ko")])
            .output()
            .unwrap();
        let path = String::from_utf8(found.stdout).unwrap();
        let bytes = std::fs::read(path.trim()).unwrap_or_else(|e| panic!("{name}: {e}"));
        archive.file(&format!("modules/{name}.ko"), 0o644, &bytes);
        order += name;
        order += "\n";
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    archive.file("init", 0o755, INIT.as_bytes());
    archive.character_device("console", 0o600, 5, 1);
    let initrd = directory.join("initrd");
    std::fs::write(&initrd, archive.finish()).unwrap();
    std::fs::remove_dir_all(modules).unwrap();
    (image.kernel.unwrap(), initrd)
}

/// The number that the guest last called durable.
fn durable(serial: &Path) -> Option<u32> {
    let text = String::from_utf8_lossy(&std::fs::read(serial).unwrap_or_default()).into_owned();
    // The last line may have been cut.
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    whole
        .lines()
        .filter_map(|line| line.trim().strip_prefix("K:durable ")?.parse().ok())
        .next_back()
}

struct Disk {
    path: PathBuf,
    format: ImageFormat,
}

impl Disk {
    /// A file system in an image of the format.
    fn new(directory: &Path, format: ImageFormat) -> Self {
        let raw = directory.join("disk.raw");
        File::create(&raw).unwrap().set_len(SIZE).unwrap();
        let made = tool("mke2fs", &["-q", "-F", "-t", "ext4"], &raw);
        assert!(made.status.success(), "{made:?}");
        if format == ImageFormat::Raw {
            return Self { path: raw, format };
        }
        let path = directory.join("disk.qcow2");
        std::fs::write(&path, empty_qcow2(SIZE)).unwrap();
        let mode = OpenMode {
            format: Some(ImageFormat::Qcow2),
            ..OpenMode::default()
        };
        let mut disk = open(&path, mode).unwrap();
        let bytes = std::fs::read(&raw).unwrap();
        for (i, piece) in bytes.chunks(0x1_0000).enumerate() {
            if piece.iter().any(|b| *b != 0) {
                disk.write(i as u64 * 128, piece).unwrap();
            }
        }
        disk.flush().unwrap();
        Self { path, format }
    }

    fn option(&self) -> String {
        let format = match self.format {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
        };
        format!("{},format={format}", self.path.display())
    }

    /// The disk's contents, in a file of its own.
    fn contents(&self, directory: &Path) -> PathBuf {
        let path = directory.join("contents");
        let mode = OpenMode {
            format: Some(self.format),
            read_only: true,
            ..OpenMode::default()
        };
        let mut disk = open(&self.path, mode).unwrap();
        assert_eq!(disk.sectors() * 512, SIZE);
        let file = File::create(&path).unwrap();
        let mut piece = vec![0; 0x1_0000];
        for at in (0..SIZE).step_by(piece.len()) {
            disk.read(at / 512, &mut piece).unwrap();
            file.write_all_at(&piece, at).unwrap();
        }
        path
    }
}

/// A version 3 image without data: header, refcount table, refcount block, L1 table.
fn empty_qcow2(size: u64) -> Vec<u8> {
    const CLUSTER: usize = 0x1_0000;
    let mut bytes = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &16u32.to_be_bytes());
    put(24, &size.to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..4 {
        put(2 * CLUSTER + 2 * cluster, &1u16.to_be_bytes());
    }
    bytes
}

/// Kills `kills` times while the guest writes, and looks after each.
fn kill_and_look(format: ImageFormat, kills: u32) {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (kernel, initrd) = guest(directory);
    let disk = Disk::new(directory, format);
    let serial = directory.join("serial");
    let mut seed = std::process::id();
    println!("seed {seed}");
    let mut expected = 0;
    for round in 0..kills {
        let _ = std::fs::remove_file(&serial);
        let mut child = Command::new(env!("CARGO_BIN_EXE_ring3"))
            .arg("run")
            .arg("--serial")
            .arg(format!("file:{}", serial.display()))
            .arg("--kernel")
            .arg(&kernel)
            .arg("--initrd")
            .arg(&initrd)
            .args([
                "--append",
                "console=ttyS0 quiet panic=-1",
                "--memory",
                "128M",
                "--disk",
            ])
            .arg(disk.option())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while durable(&serial).is_none_or(|n| n < expected + 3) {
            let text = || {
                String::from_utf8_lossy(&std::fs::read(&serial).unwrap_or_default()).into_owned()
            };
            assert!(
                child.try_wait().unwrap().is_none(),
                "the guest ended: {}",
                text()
            );
            assert!(
                start.elapsed() < Duration::from_secs(120),
                "nothing durable: {}",
                text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        std::thread::sleep(Duration::from_micros(u64::from(seed >> 12)));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = durable(&serial).unwrap();
        println!("{format:?} {round}: killed after record {last}");
        look(&disk.contents(directory), last);
        expected = last;
    }
}

/// Replays the journal as a kernel would, then expects a clean file system with all records.
fn look(contents: &Path, last: u32) {
    let replayed = tool("e2fsck", &["-y", "-E", "journal_only"], contents);
    assert!(
        replayed.status.code().is_some_and(|c| c <= 1),
        "{replayed:?}"
    );
    let checked = tool("e2fsck", &["-f", "-n"], contents);
    assert!(checked.status.success(), "{checked:?}");
    for n in 0..=last {
        let line = format!("record {n}\n");
        let expected: Vec<u8> = line.bytes().cycle().take(RECORD).collect();
        let found = tool("debugfs", &["-R", &format!("cat /r{n}")], contents);
        assert!(
            found.stdout == expected,
            "record {n} of {last} is not there"
        );
    }
}

#[test]
fn a_kill_loses_nothing_that_was_flushed_to_a_raw_image() {
    kill_and_look(ImageFormat::Raw, 1);
}

#[test]
fn a_kill_loses_nothing_that_was_flushed_to_a_qcow2_image() {
    kill_and_look(ImageFormat::Qcow2, 1);
}

#[test]
#[ignore = "a minute: make test-guests"]
fn many_kills_lose_nothing_that_was_flushed() {
    kill_and_look(ImageFormat::Raw, 6);
    kill_and_look(ImageFormat::Qcow2, 6);
}
