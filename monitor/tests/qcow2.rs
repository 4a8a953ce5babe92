//! qcow2 images that are broken at random, and those of qemu-img.
//!
//! `RING3_SEED` repeats a run of the first test with another seed.
#![allow(unsafe_code)] // an allocator that counts

use ring3_devices::block::{BlockBackend, SECTOR};
use ring3_monitor::image::{ImageFormat, OpenMode, open};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is allocated, to see that no image makes it much.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work; the counters touch no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes that opening and using an image may take: the largest tables that the format's
/// limits allow, twice, and the library's caches.
const BUDGET: usize = 600 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

fn mode(read_only: bool) -> OpenMode {
    OpenMode {
        format: Some(ImageFormat::Qcow2),
        read_only,
        backing: true,
        quiet: true,
        ..OpenMode::default()
    }
}

/// A whole image with clusters of `1 << bits` bytes and a disk of 64 L2 tables, some of it there.
fn whole(bits: u32, random: &mut Random) -> Vec<u8> {
    let cluster = 1usize << bits;
    let size = (64 * cluster * cluster / 8) as u64;
    let clusters = 24;
    let mut bytes = vec![0; clusters * cluster];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &bits.to_be_bytes());
    put(24, &size.to_be_bytes());
    put(36, &64u32.to_be_bytes());
    put(40, &(3 * cluster as u64).to_be_bytes());
    put(48, &(cluster as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(cluster, &(2 * cluster as u64).to_be_bytes());
    for i in 0..clusters {
        put(2 * cluster + 2 * i, &1u16.to_be_bytes());
    }
    let copied = 1u64 << 63;
    // Clusters 4 to 7 are L2 tables, the rest is data.
    for table in 4..8 {
        let entry = (table * cluster) as u64 | copied;
        put(3 * cluster + (table - 4) * 8, &entry.to_be_bytes());
    }
    for data in 8..clusters {
        let (table, index) = (4 + data % 4, random.below(cluster as u64 / 8) as usize);
        let entry = (data * cluster) as u64 | copied;
        put(table * cluster + index * 8, &entry.to_be_bytes());
    }
    bytes
}

/// Breaks an image in one place: a field or table entry, or its length.
fn break_it(bytes: &mut Vec<u8>, bits: u32, random: &mut Random) {
    let cluster = 1usize << bits;
    let pages = (bytes.len() / cluster) as u64;
    let fields = [
        (4, 4),
        (8, 8),
        (16, 4),
        (20, 4),
        (24, 8),
        (32, 4),
        (36, 4),
        (40, 8),
        (48, 8),
    ];
    let more = [
        (56, 4),
        (60, 4),
        (64, 8),
        (72, 8),
        (80, 8),
        (88, 8),
        (96, 4),
        (100, 4),
        (104, 4),
    ];
    let (at, len) = match random.below(10) {
        0 => {
            let len = random.below(bytes.len() as u64) as usize;
            return bytes.truncate(len);
        }
        1..=4 => random.one(&[fields, more].concat()),
        5 => (cluster + random.below(4) as usize * 8, 8),
        6 => (3 * cluster + random.below(64) as usize * 8, 8),
        7 => (2 * cluster + random.below(32) as usize * 2, 2),
        8 => (random.below(bytes.len() as u64 - 8) as usize, 8),
        _ => (
            (4 + random.below(4) as usize) * cluster + random.below(64) as usize * 8,
            8,
        ),
    };
    let value = match random.below(6) {
        0 => random.next(),
        1 => 1 << random.below(64),
        2 => random.one(&[0, 1, 2, 7, 8, 9, 21, 22, 63, 64, 72, 104, 1023, 1024]),
        3 => u64::MAX << random.below(64),
        4 => random.below(pages + 2) << bits | 1 << 63,
        _ => random.below(pages + 2) << bits,
    };
    if at + len <= bytes.len() {
        bytes[at..at + len].copy_from_slice(&value.to_be_bytes()[8 - len..]);
    }
}

/// Uses an image as drives do.
fn exercise(disk: &mut dyn BlockBackend, random: &mut Random) {
    let mut piece = vec![0; 40 * SECTOR];
    for _ in 0..12 {
        let at = match random.below(3) {
            0 => disk.sectors().saturating_sub(40),
            1 => random.below(1 << 12),
            _ => random.below(disk.sectors()),
        };
        match random.below(3) {
            0 => drop(disk.flush()),
            1 => drop(disk.write(at, &piece)),
            _ => drop(disk.read(at, &mut piece)),
        }
    }
}

#[test]
fn no_broken_image_is_written_panics_or_takes_much() {
    let seed = std::env::var("RING3_SEED").ok();
    let mut random = Random(seed.and_then(|s| s.parse().ok()).unwrap_or(0x5eed_5eed));
    // In memory where that is possible: many small files are made durable.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let path = directory.join(format!("ring3-fuzz-{}", std::process::id()));
    let (mut opened, mut refused) = (0, 0);
    for round in 0..3000 {
        let bits = random.one(&[9, 9, 12, 16]);
        let mut bytes = whole(bits, &mut random);
        for _ in 0..random.below(3) {
            break_it(&mut bytes, bits, &mut random);
        }
        std::fs::write(&path, &bytes).unwrap();
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        MOST.store(NOW.load(Ordering::Relaxed), Ordering::Relaxed);
        match open(&path, mode(random.below(4) == 0)) {
            Ok(mut disk) => {
                opened += 1;
                exercise(&mut *disk, &mut random);
            }
            Err(e) => {
                refused += 1;
                assert!(e.to_string().contains("ring3-fuzz-"), "{e}");
                assert!(std::fs::read(&path).unwrap() == bytes, "round {round}: {e}");
                let after = std::fs::metadata(&path).unwrap().modified().unwrap();
                assert_eq!(before, after, "round {round}: {e}");
            }
        }
        let most = MOST.load(Ordering::Relaxed);
        assert!(most < BUDGET, "round {round}: {most} bytes");
    }
    println!("{opened} opened, {refused} refused");
    assert!(opened > 800 && refused > 800);
    std::fs::remove_file(path).unwrap();
}

fn qemu(program: &str, arguments: &[&str], path: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .arg(path)
        .output()
        .unwrap_or_else(|e| panic!("{program} (see make peers): {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// What a disk of `sectors` holds after writes by ring3 and by a plain copy of them.
fn write_and_compare(path: &Path, model: &mut [u8], random: &mut Random) {
    let mut disk = open(path, mode(false)).unwrap();
    let sectors = disk.sectors();
    assert_eq!(sectors as usize * SECTOR, model.len());
    for _ in 0..300 {
        let len = 1 + random.below(300).min(sectors - 1);
        let at = random.below(sectors - len + 1);
        let range = at as usize * SECTOR..(at + len) as usize * SECTOR;
        if random.below(2) == 0 {
            let byte = random.next() as u8;
            model[range.clone()].fill(byte);
            disk.write(at, &model[range]).unwrap();
        } else {
            let mut buf = vec![0; range.len()];
            disk.read(at, &mut buf).unwrap();
            assert!(buf == model[range], "{}: sector {at}", path.display());
        }
        if random.below(20) == 0 {
            disk.flush().unwrap();
        }
    }
}

fn contents(path: &Path, scratch: &Path) -> Vec<u8> {
    let raw = scratch.join("contents.raw");
    let to = raw.to_str().unwrap();
    let status = Command::new("qemu-img")
        .args(["convert", "-f", "qcow2", "-O", "raw"])
        .args([path.to_str().unwrap(), to])
        .status();
    assert!(status.unwrap().success());
    std::fs::read(raw).unwrap()
}

#[test]
#[ignore = "needs qemu-img: make test-guests"]
fn images_of_qemu_img_are_read_and_written_as_qemu_does() {
    let scratch = std::env::temp_dir().join(format!("ring3-qemu-img-{}", std::process::id()));
    std::fs::create_dir(&scratch).unwrap();
    let mut random = Random(77);
    let base: Vec<u8> = (0..(24 << 20) / 8)
        .flat_map(|i: u64| (i / 512 * 0x0101).to_le_bytes())
        .collect();
    let raw = scratch.join("base.raw");
    std::fs::write(&raw, &base).unwrap();
    let raw_text = raw.to_str().unwrap().to_owned();
    let path: PathBuf = scratch.join("disk.qcow2");
    let kinds: [(&str, &[&str]); 8] = [
        ("plain", &[]),
        ("version 2", &["-o", "compat=0.10"]),
        ("small clusters", &["-o", "cluster_size=512"]),
        ("large clusters", &["-o", "cluster_size=2M"]),
        ("one-bit refcounts", &["-o", "refcount_bits=1"]),
        ("wide refcounts", &["-o", "refcount_bits=64"]),
        ("preallocated", &["-o", "preallocation=metadata"]),
        ("compressed", &["-c"]),
    ];
    for (kind, options) in kinds {
        let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2"];
        arguments.extend(options);
        arguments.push(&raw_text);
        qemu("qemu-img", &arguments, &path);
        let mut model = base.clone();
        write_and_compare(&path, &mut model, &mut random);
        qemu("qemu-img", &["check", "-f", "qcow2"], &path);
        assert!(contents(&path, &scratch) == model, "{kind}");
    }
    // A chain: qcow2 on qcow2 on raw.
    let (middle, top) = (scratch.join("middle.qcow2"), scratch.join("top.qcow2"));
    let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &raw_text];
    qemu("qemu-img", &create, &middle);
    let mut model = base.clone();
    write_and_compare(&middle, &mut model, &mut random);
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        "middle.qcow2",
    ];
    qemu("qemu-img", &create, &top);
    write_and_compare(&top, &mut model, &mut random);
    qemu("qemu-img", &["check", "-f", "qcow2"], &top);
    assert!(contents(&top, &scratch) == model);
    assert!(std::fs::read(&raw).unwrap() == base);
    // An internal snapshot keeps what it had.
    qemu(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "qcow2", &raw_text],
        &path,
    );
    qemu("qemu-img", &["snapshot", "-c", "before"], &path);
    let mut model = base.clone();
    write_and_compare(&path, &mut model, &mut random);
    qemu("qemu-img", &["check", "-f", "qcow2"], &path);
    assert!(contents(&path, &scratch) == model);
    qemu("qemu-img", &["snapshot", "-a", "before"], &path);
    assert!(contents(&path, &scratch) == base, "the snapshot");
    // Two terabytes, by their last sector.
    let create = ["create", "-q", "-f", "qcow2"];
    let mut arguments = create.to_vec();
    let huge = scratch.join("huge.qcow2");
    let huge_text = huge.to_str().unwrap();
    arguments.extend([huge_text, "2T"]);
    let status = Command::new("qemu-img").args(&arguments).status();
    assert!(status.unwrap().success());
    let mut disk = open(&huge, mode(false)).unwrap();
    assert_eq!(disk.sectors(), 1 << 32);
    disk.write((1 << 32) - 1, &[0x5a; SECTOR]).unwrap();
    drop(disk);
    qemu("qemu-img", &["check", "-f", "qcow2"], &huge);
    let mut disk = open(&huge, mode(true)).unwrap();
    let mut sector = [0; SECTOR];
    disk.read((1 << 32) - 1, &mut sector).unwrap();
    assert_eq!(sector, [0x5a; SECTOR]);
    drop(disk);
    std::fs::remove_dir_all(scratch).unwrap();
}
