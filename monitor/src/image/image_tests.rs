use super::*;

const RW: OpenMode = OpenMode {
    format: None,
    read_only: false,
    snapshot: false,
    backing: false,
    quiet: true,
};
const RO: OpenMode = OpenMode {
    read_only: true,
    ..RW
};
const SNAPSHOT: OpenMode = OpenMode {
    snapshot: true,
    ..RW
};

fn image(name: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ring3-image-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_partial_last_sector_is_filled_with_zeros() {
    let path = image("partial", &[7; 700]);
    let mut disk = open(&path, RW).unwrap();
    assert_eq!(disk.sectors(), 2);
    let mut buf = [1; 512];
    disk.read(1, &mut buf).unwrap();
    assert_eq!((buf[187], buf[188]), (7, 0));
    assert!(disk.read(2, &mut buf).is_err());
    assert!(disk.write(u64::MAX, &buf).is_err());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_writable_image_has_one_user() {
    let path = image("lock", &[0; 1024]);
    let first = open(&path, RW).unwrap();
    let text = open(&path, RW).err().unwrap().to_string();
    assert!(text.contains("in use"), "{text}");
    assert!(open(&path, RO).is_err());
    drop(first);
    let _reader = open(&path, RO).unwrap();
    let _snapshot = open(&path, SNAPSHOT).unwrap();
    assert!(open(&path, RW).is_err());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn snapshots_keep_writes_from_the_image() {
    let path = image("snapshot", &[9; 200 * 512]);
    let mut disk = open(&path, SNAPSHOT).unwrap();
    // Across the end of the first cluster.
    let data: Vec<u8> = (0..4 * 512u32).map(|i| i as u8).collect();
    disk.write(126, &data).unwrap();
    let mut all = vec![0; 200 * 512];
    disk.read(0, &mut all).unwrap();
    assert_eq!(all[126 * 512..130 * 512], data[..]);
    assert!(
        all[..126 * 512]
            .iter()
            .chain(&all[130 * 512..])
            .all(|b| *b == 9)
    );
    assert!(disk.write(199, &[0; 1024]).is_err());
    disk.flush().unwrap();
    drop(disk);
    assert!(std::fs::read(&path).unwrap().iter().all(|b| *b == 9));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn read_only_images_refuse_writes() {
    let path = image("ro", &[0; 512]);
    let mut disk = open(&path, RO).unwrap();
    assert!(disk.read_only() && disk.write(0, &[0; 512]).is_err());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn useless_images_are_refused_by_name() {
    let empty = image("empty", &[]);
    let text = open(&empty, RW).err().unwrap().to_string();
    assert!(text.contains("at least 1 byte"), "{text}");
    let text = open(Path::new("/dev/null"), RO).err().unwrap().to_string();
    assert!(text.contains("neither a file nor a block device"), "{text}");
    let text = open(Path::new("/nonexistent"), RO)
        .err()
        .unwrap()
        .to_string();
    assert!(text.contains("/nonexistent"), "{text}");
    std::fs::remove_file(empty).unwrap();
}

#[test]
fn drives_are_parsed() {
    let drive = parse_drive("a,,b.img,format=raw,if=floppy,ro").unwrap();
    let expected = DriveSpec {
        path: Some("a,b.img".into()),
        format: Some(ImageFormat::Raw),
        interface: Interface::Floppy,
        read_only: true,
        backing: false,
    };
    assert_eq!(drive, expected);
    assert!(parse_drive("a.qcow2,backing").unwrap().backing);
    assert!(parse_drive("x,if=cdrom").unwrap().read_only);
    for text in ["", ",ro", "x,if=scsi", "x,", "x,format"] {
        assert!(parse_drive(text).is_err(), "{text}");
    }
}

#[test]
fn disks_beyond_2_tib_are_refused_and_2_tib_work() {
    let path = image("huge", &[]);
    let file = File::create(&path).unwrap();
    file.set_len(MAX_SIZE).unwrap();
    let mut disk = open(&path, RW).unwrap();
    assert_eq!(disk.sectors(), 1 << 32);
    disk.write((1 << 32) - 1, &[0xa5; 512]).unwrap();
    let mut buf = [0; 512];
    disk.read((1 << 32) - 1, &mut buf).unwrap();
    assert_eq!(buf, [0xa5; 512]);
    drop(disk);
    file.set_len(MAX_SIZE + 1).unwrap();
    let text = open(&path, RW).err().unwrap().to_string();
    assert!(text.contains("at most 2 TiB"), "{text}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_guest_cannot_make_a_guessed_raw_image_another_format() {
    let path = image("guess", &[0; 4096]);
    let mut header = [0; 512];
    header[..4].copy_from_slice(b"QFI\xfb");
    let mut disk = open(&path, RW).unwrap();
    assert_eq!(
        disk.write(0, &header),
        Err(ring3_devices::block::BlockError::Host)
    );
    disk.write(1, &header).unwrap();
    disk.write(0, &[0x55; 512]).unwrap();
    drop(disk);
    let named = OpenMode {
        format: Some(ImageFormat::Raw),
        ..RW
    };
    open(&path, named).unwrap().write(0, &header).unwrap();
    assert!(
        open(&path, RW).is_err(),
        "now it looks like a broken qcow2 image"
    );
    let mut disk = open(&path, named).unwrap();
    let mut buf = [0; 512];
    disk.read(0, &mut buf).unwrap();
    assert_eq!(buf, header);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_file_that_shrinks_is_a_disk_error() {
    let path = image("shrink", &[1; 8192]);
    let mut disk = open(&path, RW).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4096)
        .unwrap();
    let mut buf = [0; 512];
    assert!(disk.read(7, &mut buf).is_ok());
    assert!(disk.read(8, &mut buf).is_err());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn directories_and_pipes_are_refused() {
    let directory = std::env::temp_dir();
    let text = open(&directory, RO).err().unwrap().to_string();
    assert!(text.contains("neither a file nor a block device"), "{text}");
    let pipe = directory.join(format!("ring3-image-pipe-{}", std::process::id()));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(open(&pipe, RW).is_err());
    std::fs::remove_file(pipe).unwrap();
}
