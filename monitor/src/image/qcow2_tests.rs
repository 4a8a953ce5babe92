//! Images made by hand, whole and broken. `tests/qcow2.rs` has those of qemu-img.

use super::*;
use ring3_devices::block::{BlockError, SECTOR};

const BITS: u32 = 16;
const CLUSTER: usize = 1 << BITS;
const RW: OpenMode = OpenMode {
    format: Some(ImageFormat::Qcow2),
    read_only: false,
    snapshot: false,
    backing: false,
    quiet: true,
};

/// A version 3 image of one gigabyte: header, refcount table, refcount block, L1 table, an L2
/// table, and two clusters of data at the beginning of the disk.
fn image() -> Vec<u8> {
    let mut bytes = vec![0; 7 * CLUSTER];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &BITS.to_be_bytes());
    put(24, &(1u64 << 30).to_be_bytes());
    put(36, &2u32.to_be_bytes());
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..7 {
        put(2 * CLUSTER + 2 * cluster, &1u16.to_be_bytes());
    }
    let copied = 1u64 << 63;
    put(3 * CLUSTER, &(4 * CLUSTER as u64 + copied).to_be_bytes());
    put(4 * CLUSTER, &(5 * CLUSTER as u64 + copied).to_be_bytes());
    put(
        4 * CLUSTER + 8,
        &(6 * CLUSTER as u64 + copied).to_be_bytes(),
    );
    bytes[5 * CLUSTER..6 * CLUSTER].fill(0x11);
    bytes[6 * CLUSTER..].fill(0x22);
    bytes
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("ring3-qcow2-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn sector(disk: &mut dyn BlockBackend, at: u64) -> [u8; SECTOR] {
    let mut buf = [0; SECTOR];
    disk.read(at, &mut buf).unwrap();
    buf
}

#[test]
fn what_is_written_is_there_after_the_next_start() {
    let file = Scratch::new("write", &image());
    let mut disk = open(&file.0, RW).unwrap();
    assert_eq!(disk.sectors(), 1 << 21);
    assert_eq!(sector(&mut *disk, 127)[0], 0x11);
    assert_eq!(sector(&mut *disk, 128)[0], 0x22);
    assert_eq!(sector(&mut *disk, 256)[0], 0);
    disk.write(127, &[0x33; 2 * SECTOR]).unwrap();
    disk.write((1 << 21) - 1, &[0x44; SECTOR]).unwrap();
    disk.write(1 << 20, &[0x55; 300 * SECTOR]).unwrap();
    assert_eq!(
        disk.write(1 << 21, &[0; SECTOR]),
        Err(BlockError::OutOfRange)
    );
    disk.flush().unwrap();
    // As after SIGKILL: what the library would do at the end does not happen.
    std::mem::forget(disk);
    let copy = Scratch::new("write-copy", &std::fs::read(&file.0).unwrap());
    let mut disk = open(&copy.0, RW).unwrap();
    for (at, byte) in [
        (126, 0x11),
        (127, 0x33),
        (128, 0x33),
        (129, 0x22),
        ((1 << 21) - 1, 0x44),
        ((1 << 20) + 299, 0x55),
        ((1 << 20) + 300, 0),
    ] {
        assert_eq!(sector(&mut *disk, at), [byte; SECTOR], "sector {at}");
    }
}

#[test]
fn a_snapshot_leaves_the_image_as_it_is() {
    let whole = image();
    let file = Scratch::new("snapshot", &whole);
    let mode = OpenMode {
        snapshot: true,
        ..RW
    };
    let mut disk = open(&file.0, mode).unwrap();
    disk.write(100, &[7; 100 * SECTOR]).unwrap();
    disk.flush().unwrap();
    assert_eq!(sector(&mut *disk, 150), [7; SECTOR]);
    assert_eq!(sector(&mut *disk, 99), [0x11; SECTOR]);
    drop(disk);
    assert!(std::fs::read(&file.0).unwrap() == whole);
}

/// A change of bytes, and a part of the error.
type Fault = (&'static str, usize, &'static [u8], &'static str);

#[test]
fn broken_images_are_refused_and_left_alone() {
    let c = CLUSTER;
    let faults: Vec<Fault> = vec![
        ("version", 4, &[0, 0, 0, 9], "version"),
        ("cluster bits 0", 20, &[0, 0, 0, 0], "cluster size"),
        ("cluster bits 8", 20, &[0, 0, 0, 8], "cluster size"),
        ("cluster bits 22", 20, &[0, 0, 0, 22], "cluster size"),
        ("cluster bits all", 20, &[0xff; 4], "cluster size"),
        (
            "size 2^63",
            24,
            &[0x80, 0, 0, 0, 0, 0, 0, 0],
            "9223372036854775808 bytes",
        ),
        ("size 0", 24, &[0; 8], "0 bytes"),
        (
            "size for L1",
            24,
            &[0, 0, 0, 0, 0x80, 0, 0, 0],
            "L1 table's size",
        ),
        ("encrypted", 32, &[0, 0, 0, 2], "encryption"),
        ("L1 size", 36, &[0xff; 4], "L1 table's size"),
        ("L1 size 0", 36, &[0; 4], "L1 table's size"),
        ("L1 in header", 40, &[0; 8], "L1 table"),
        ("L1 unaligned", 40, &[0, 0, 0, 0, 0, 3, 0, 8], "L1 table"),
        (
            "L1 far",
            40,
            &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
            "L1 table",
        ),
        ("L1 on refcounts", 40, &[0, 0, 0, 0, 0, 1, 0, 0], "overlaps"),
        (
            "refcounts far",
            48,
            &[0, 0, 0, 0, 0, 0x70, 0, 0],
            "refcount table",
        ),
        ("refcounts on L1", 48, &[0, 0, 0, 0, 0, 3, 0, 0], "refcount"),
        ("refcount clusters", 56, &[0xff; 4], "refcount table"),
        ("refcount clusters 0", 56, &[0; 4], "refcount table"),
        ("external data", 79, &[4], "external data file"),
        ("dirty", 79, &[1], "not closed properly"),
        ("corrupt", 79, &[2], "corrupt"),
        ("zstd", 79, &[8], "zstd"),
        ("extended", 79, &[16], "extended L2"),
        ("features", 72, &[1], "features"),
        ("refcount order", 96, &[0, 0, 0, 7], "refcount width"),
        ("header length", 100, &[0, 0, 0, 96], "header length"),
        ("header length odd", 100, &[0, 0, 0, 107], "header length"),
        (
            "header length far",
            100,
            &[0xff, 0xff, 0xff, 0xf8],
            "header length",
        ),
        (
            "extension",
            104,
            &[1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff],
            "extension",
        ),
        (
            "refcount block unaligned",
            c,
            &[0, 0, 0, 0, 0, 2, 2, 0],
            "refcount block",
        ),
        (
            "refcount block is L1",
            c,
            &[0, 0, 0, 0, 0, 3, 0, 0],
            "overlaps",
        ),
        (
            "refcount block is itself",
            c,
            &[0, 0, 0, 0, 0, 1, 0, 0],
            "overlaps",
        ),
        ("L2 is L1", 3 * c, &[0x80, 0, 0, 0, 0, 3, 0, 0], "overlaps"),
        (
            "L2 twice",
            3 * c + 8,
            &[0x80, 0, 0, 0, 0, 4, 0, 0],
            "overlaps",
        ),
        ("L2 beyond", 3 * c, &[0x80, 0, 0, 0, 0, 7, 0, 0], "L2 table"),
        (
            "L2 reserved bits",
            3 * c,
            &[0x80, 0, 0, 0, 0, 4, 0, 1],
            "L2 table",
        ),
        (
            "data is L2",
            4 * c,
            &[0x80, 0, 0, 0, 0, 4, 0, 0],
            "overlaps",
        ),
        (
            "data is the header",
            4 * c,
            &[0x40, 0, 0, 0, 0, 0, 0, 0],
            "overlaps",
        ),
        (
            "data beyond",
            4 * c,
            &[0x80, 0, 0, 0, 0, 7, 0, 0],
            "data cluster",
        ),
        (
            "data unaligned",
            4 * c,
            &[0x80, 0, 0, 0, 0, 5, 2, 0],
            "data cluster",
        ),
        (
            "data reserved bits",
            4 * c,
            &[0x81, 0, 0, 0, 0, 5, 0, 0],
            "data cluster",
        ),
        ("data free", 2 * c + 10, &[0, 0], "counts as free"),
        ("L2 free", 2 * c + 8, &[0, 0], "counts as free"),
        ("no refcount block", c, &[0; 8], "counts as free"),
        (
            "backing name far",
            8,
            &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8],
            "backing file",
        ),
        (
            "backing name long",
            8,
            &[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 4, 0],
            "backing file",
        ),
    ];
    for (name, at, change, expected) in faults {
        let mut bytes = image();
        bytes[at..at + change.len()].copy_from_slice(change);
        let file = Scratch::new("broken", &bytes);
        let before = std::fs::metadata(&file.0).unwrap().modified().unwrap();
        let error = open(&file.0, RW).err().unwrap_or_else(|| panic!("{name}"));
        let text = error.to_string();
        assert!(text.contains(expected), "{name}: {text}");
        assert!(text.contains("ring3-qcow2-"), "{name}: {text}");
        assert!(std::fs::read(&file.0).unwrap() == bytes, "{name}");
        let after = std::fs::metadata(&file.0).unwrap().modified().unwrap();
        assert_eq!(before, after, "{name}");
    }
}

#[test]
fn truncated_images_are_refused() {
    let whole = image();
    for len in [
        0,
        3,
        4,
        71,
        72,
        103,
        104,
        105,
        CLUSTER,
        3 * CLUSTER,
        4 * CLUSTER - 1,
        5 * CLUSTER - 1,
        6 * CLUSTER,
    ] {
        let file = Scratch::new("short", &whole[..len]);
        let text = open(&file.0, RW).err().unwrap_or_else(|| panic!("{len}"));
        assert!(
            text.to_string().contains("end of the file"),
            "{len}: {text}"
        );
    }
    // A last cluster that is not whole is filled with zeros.
    let file = Scratch::new("tail", &whole[..6 * CLUSTER + 512]);
    let mut disk = open(&file.0, RW).unwrap();
    assert_eq!(sector(&mut *disk, 128), [0x22; SECTOR]);
    assert_eq!(sector(&mut *disk, 129), [0; SECTOR]);
}

#[test]
fn a_cluster_that_breaks_later_is_a_disk_error() {
    let file = Scratch::new("later", &image());
    let mut disk = open(&file.0, RW).unwrap();
    // The L2 table has not been read by the library yet.
    let bad = OpenOptions::new().write(true).open(&file.0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(
        &bad,
        &[0x80, 0, 0, 0, 0, 5, 2, 0],
        4 * CLUSTER as u64,
    )
    .unwrap();
    let mut buf = [0; SECTOR];
    assert_eq!(disk.read(0, &mut buf), Err(BlockError::Host));
    assert_eq!(disk.write(0, &buf), Err(BlockError::Host));
    assert_eq!(sector(&mut *disk, 1 << 20), [0; SECTOR], "the rest goes on");
}

/// An image whose backing file is `name` of `format`.
fn above(name: &str, format: Option<&str>) -> Vec<u8> {
    let mut bytes = image();
    bytes[8..16].copy_from_slice(&512u64.to_be_bytes());
    bytes[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
    bytes[512..512 + name.len()].copy_from_slice(name.as_bytes());
    if let Some(format) = format {
        bytes[104..108].copy_from_slice(&0xe279_2acau32.to_be_bytes());
        bytes[108..112].copy_from_slice(&(format.len() as u32).to_be_bytes());
        bytes[112..112 + format.len()].copy_from_slice(format.as_bytes());
    }
    bytes
}

#[test]
fn backing_files_are_opened_when_allowed_and_never_written() {
    let mode = OpenMode {
        backing: true,
        ..RW
    };
    let base = vec![0x77; 4 * CLUSTER];
    let below = Scratch::new("base.raw", &base);
    let name = below.0.file_name().unwrap().to_str().unwrap();
    let file = Scratch::new("top", &above(name, Some("raw")));
    let text = open(&file.0, RW).err().unwrap().to_string();
    assert!(
        text.contains(name) && text.contains("add 'backing'"),
        "{text}"
    );
    let mut disk = open(&file.0, mode).unwrap();
    assert_eq!(sector(&mut *disk, 0), [0x11; SECTOR]);
    assert_eq!(sector(&mut *disk, 256), [0x77; SECTOR], "from below");
    assert_eq!(sector(&mut *disk, 512), [0; SECTOR], "beyond what is below");
    disk.write(257, &[0x88; SECTOR]).unwrap();
    assert_eq!(sector(&mut *disk, 258), [0x77; SECTOR]);
    assert!(
        open(
            &below.0,
            OpenMode {
                format: Some(ImageFormat::Raw),
                ..RW
            }
        )
        .is_err(),
        "it is locked"
    );
    drop(disk);
    assert!(std::fs::read(&below.0).unwrap() == base);
}

#[test]
fn chains_without_format_or_end_are_refused() {
    let mode = OpenMode {
        backing: true,
        ..RW
    };
    let name = |what: &str| format!("ring3-qcow2-{}-{what}", std::process::id());
    let own = Scratch::new("own", &above(&name("own"), Some("qcow2")));
    let a = Scratch::new("a", &above(&name("b"), Some("qcow2")));
    let _b = Scratch::new("b", &above(&name("a"), Some("qcow2")));
    for read_only in [false, true] {
        let mode = OpenMode { read_only, ..mode };
        for image in [&own, &a] {
            let text = open(&image.0, mode).err().unwrap().to_string();
            assert!(text.contains("no end"), "{text}");
        }
    }
    let c = Scratch::new("c", &above(&name("a"), None));
    let text = open(&c.0, mode).err().unwrap().to_string();
    assert!(text.contains("qemu-img rebase"), "{text}");
    let d = Scratch::new("d", &above("/nonexistent/file", Some("raw")));
    let text = open(&d.0, mode).err().unwrap().to_string();
    assert!(text.contains("/nonexistent/file"), "{text}");
}
