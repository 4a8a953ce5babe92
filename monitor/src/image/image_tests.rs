use super::*;

fn image(name: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ring3-image-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_partial_last_sector_is_filled_with_zeros() {
    let path = image("partial", &[7; 700]);
    let mut disk = open(&path, None, false, false).unwrap();
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
    let first = open(&path, None, false, false).unwrap();
    let text = open(&path, None, false, false).err().unwrap().to_string();
    assert!(text.contains("in use by another program"), "{text}");
    assert!(open(&path, None, true, false).is_err());
    drop(first);
    let _reader = open(&path, None, true, false).unwrap();
    let _snapshot = open(&path, None, false, true).unwrap();
    assert!(open(&path, None, false, false).is_err());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn snapshots_keep_writes_from_the_image() {
    let path = image("snapshot", &[9; 200 * 512]);
    let mut disk = open(&path, None, false, true).unwrap();
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
    let mut disk = open(&path, None, true, false).unwrap();
    assert!(disk.read_only() && disk.write(0, &[0; 512]).is_err());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn useless_images_are_refused_by_name() {
    let empty = image("empty", &[]);
    let text = open(&empty, None, false, false).err().unwrap().to_string();
    assert!(text.contains("no drive can have"), "{text}");
    let text = open(Path::new("/dev/null"), None, true, false)
        .err()
        .unwrap()
        .to_string();
    assert!(text.contains("neither a file nor a block device"), "{text}");
    let text = open(Path::new("/nonexistent"), None, true, false)
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
    };
    assert_eq!(drive, expected);
    assert!(parse_drive("x,if=cdrom").unwrap().read_only);
    for text in ["", ",ro", "x,if=scsi", "x,", "x,format"] {
        assert!(parse_drive(text).is_err(), "{text}");
    }
}
