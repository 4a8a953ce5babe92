//! The bytes of a bootable PC disk: master boot record, GRUB's core image in the gap behind it, and
//! one partition.
//!
//! GRUB's `boot.img` is the boot record's code. It loads one sector, the first of `core.img`, from
//! the sector number at offset 5Ch (1 as built), and that one loads the rest from the sectors that
//! follow, as its own block list says (as built by `grub-mkimage`). So nothing needs patching but
//! the jump at 66h, which would distrust the BIOS's boot drive number on a floppy: `grub-install`
//! replaces it by two NOPs on hard disks. GRUB: `grub-core/boot/i386/pc/boot.S`, `diskboot.S`.

use crate::GuestError;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Where the partition begins: 1 MiB, as every partitioning program has it.
pub const PARTITION_OFFSET: u64 = 1 << 20;
/// Offset of the jump in `boot.img` that tests the drive number.
const DRIVE_CHECK: usize = 0x66;
/// Offset of the sector number of `core.img`.
const CORE_SECTOR: usize = 0x5c;
/// Offset of the partition table.
const TABLE: usize = 0x1be;
/// Partition type: Linux.
const LINUX: u8 = 0x83;
/// Cylinder, head and sector where these cannot say it.
const BEYOND_CHS: [u8; 3] = [0xfe, 0xff, 0xff];

/// The boot record: GRUB's code and a table with one active partition of so many bytes.
fn boot_record(boot: &[u8], partition_bytes: u64) -> Result<[u8; 512], String> {
    let mut record: [u8; 512] = boot
        .try_into()
        .map_err(|_| format!("boot.img has {} bytes", boot.len()))?;
    if record[CORE_SECTOR..CORE_SECTOR + 8] != 1u64.to_le_bytes() {
        return Err("boot.img does not load sector 1".into());
    }
    record[DRIVE_CHECK..DRIVE_CHECK + 2].fill(0x90);
    let first = u32::try_from(PARTITION_OFFSET / SECTOR).unwrap_or(u32::MAX);
    let count = u32::try_from(partition_bytes / SECTOR)
        .map_err(|_| "the partition is too large for a table of this kind".to_string())?;
    record[TABLE..].fill(0);
    record[TABLE] = 0x80;
    record[TABLE + 1..TABLE + 4].copy_from_slice(&BEYOND_CHS);
    record[TABLE + 4] = LINUX;
    record[TABLE + 5..TABLE + 8].copy_from_slice(&BEYOND_CHS);
    record[TABLE + 8..TABLE + 12].copy_from_slice(&first.to_le_bytes());
    record[TABLE + 12..TABLE + 16].copy_from_slice(&count.to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    Ok(record)
}

/// Puts the GRUB of directory `grub` and a partition table in front of the file system on a disk of
/// `bytes`.
pub(super) fn make_bootable(disk: &Path, grub: &Path, bytes: u64) -> Result<(), GuestError> {
    let read = |name: &str| {
        let path = grub.join(name);
        fs::read(&path).map_err(GuestError::file("read", path))
    };
    let (boot, core) = (read("boot.img")?, read("core.img")?);
    let bad = |reason: String| GuestError::Program {
        program: "grub-mkimage",
        reason,
    };
    if core.len() as u64 > PARTITION_OFFSET - SECTOR {
        return Err(bad(format!("core.img has {} bytes", core.len())));
    }
    let record = boot_record(&boot, bytes - PARTITION_OFFSET).map_err(bad)?;
    let write = || {
        let mut file = File::options().write(true).open(disk)?;
        file.write_all(&record)?;
        file.write_all(&core)?;
        file.sync_all()
    };
    write().map_err(GuestError::file("write", disk))
}

/// Copies a file whose holes stay holes.
///
/// # Errors
/// As the system has it.
pub fn copy_sparse(from: &Path, to: &Path) -> std::io::Result<()> {
    use nix::unistd::{Whence, lseek};
    let mut source = File::open(from)?;
    let mut target = File::create(to)?;
    target.set_len(source.metadata()?.len())?;
    let mut at = 0;
    loop {
        let start = match lseek(source.as_fd(), at, Whence::SeekData) {
            Ok(start) => start,
            // There is no more data.
            Err(nix::errno::Errno::ENXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = lseek(source.as_fd(), start, Whence::SeekHole)?;
        let (from, length) = (start.cast_unsigned(), (end - start).cast_unsigned());
        source.seek(SeekFrom::Start(from))?;
        target.seek(SeekFrom::Start(from))?;
        std::io::copy(&mut (&source).take(length), &mut target)?;
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot_image() -> [u8; 512] {
        let mut image = [0xeb; 512];
        image[CORE_SECTOR..CORE_SECTOR + 8].copy_from_slice(&1u64.to_le_bytes());
        image
    }

    #[test]
    fn the_table_has_one_active_linux_partition_from_1_mib_to_the_end() {
        let record = boot_record(&boot_image(), 63 << 20).unwrap();
        let entry = &record[0x1be..0x1ce];
        assert_eq!((entry[0], entry[4]), (0x80, 0x83));
        assert_eq!(entry[8..12], 2048u32.to_le_bytes());
        assert_eq!(entry[12..16], (63u32 * 2048).to_le_bytes());
        assert_eq!(record[0x1ce..0x1fe], [0; 48]);
        assert_eq!(record[0x1fe..], [0x55, 0xaa]);
        assert_eq!(record[0x66..0x68], [0x90, 0x90]);
        assert_eq!(record[0x68], 0xeb, "code stays");
    }

    #[test]
    fn a_boot_image_that_is_another_program_is_refused() {
        assert!(boot_record(&[0; 512], 1 << 20).is_err());
        assert!(boot_record(&boot_image()[..511], 1 << 20).is_err());
        assert!(boot_record(&boot_image(), 1 << 42).is_err());
    }

    #[test]
    fn a_sparse_copy_is_equal_and_still_sparse() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        let mut file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.seek(SeekFrom::Start(20 << 20)).unwrap();
        file.write_all(b"in the middle").unwrap();
        drop(file);
        copy_sparse(&from, &to).unwrap();
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        let metadata = fs::metadata(&to).unwrap();
        assert!(metadata.blocks() * 512 < 8 << 20, "{}", metadata.blocks());
    }
}
