//! Register-level tests of the IDE controller. ATA/ATAPI-6: clause 7, registers; clause 8, commands;
//! clause 9, protocols. Bus master: PIIX3 datasheet (290550), 2.7. Packets: MMC-3, clause 6.

use super::*;
use crate::block::{MemoryDisk, SECTOR};
use crate::bus::DmaError;

/// 1 MiB of guest memory.
struct Ram(Vec<u8>);

impl Ram {
    fn new() -> Self {
        Self(vec![0; 1 << 20])
    }
    fn range(&self, at: u64, len: usize) -> Result<std::ops::Range<usize>, DmaError> {
        let at = at as usize;
        let fits = at.checked_add(len).is_some_and(|end| end <= self.0.len());
        fits.then_some(at..at.wrapping_add(len))
            .ok_or(DmaError { address: at as u64 })
    }
}

impl DmaMemory for Ram {
    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        let range = self.range(at, buf.len())?;
        buf.copy_from_slice(&self.0[range]);
        Ok(())
    }
    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), DmaError> {
        let range = self.range(at, data.len())?;
        self.0[range].copy_from_slice(data);
        Ok(())
    }
}

/// Sector n is filled with bytes n, n+1, ...
fn image(sectors: usize) -> Vec<u8> {
    (0..sectors * SECTOR)
        .map(|i| (i / SECTOR + i % SECTOR) as u8)
        .collect()
}

fn with_disk(sectors: usize) -> Ide {
    let mut ide = Ide::new();
    ide.attach_disk(0, 0, Box::new(MemoryDisk::new(image(sectors), false)));
    ide.config_mut().write(4, 2, 5);
    ide
}

fn with_cd(sectors: usize) -> Ide {
    let mut ide = Ide::new();
    ide.attach_cd_rom(
        0,
        0,
        Some(Box::new(MemoryDisk::new(image(sectors * 4), true))),
    );
    ide.config_mut().write(4, 2, 5);
    ide
}

fn reg(ide: &mut Ide, register: u16) -> u8 {
    PortDevice::read(ide, 0, register, 1) as u8
}

fn set(ide: &mut Ide, register: u16, value: u8) {
    ide.write(0, register, 1, value.into());
}

fn issue(ide: &mut Ide, lba: u32, count: u8, command: u8) {
    let [a, b, c, d] = lba.to_le_bytes();
    for (register, value) in [
        (6, 0xe0 | d),
        (2, count),
        (3, a),
        (4, b),
        (5, c),
        (7, command),
    ] {
        set(ide, register, value);
    }
}

fn words(ide: &mut Ide, bytes: usize) -> Vec<u8> {
    (0..bytes / 2)
        .flat_map(|_| (PortDevice::read(ide, 0, 0, 2) as u16).to_le_bytes())
        .collect()
}

fn packet(ide: &mut Ide, features: u8, limit: u16, bytes: &[u8]) {
    let [low, high] = limit.to_le_bytes();
    for (register, value) in [(6, 0), (1, features), (4, low), (5, high), (7, 0xa0)] {
        set(ide, register, value);
    }
    assert_eq!(
        (reg(ide, 2) & 3, reg(ide, 7) & 8),
        (1, 8),
        "ready for the packet"
    );
    let mut packet = [0; 12];
    packet[..bytes.len()].copy_from_slice(bytes);
    for pair in packet.chunks(2) {
        ide.write(0, 0, 2, u16::from_le_bytes([pair[0], pair[1]]).into());
    }
}

fn sense(ide: &mut Ide) -> (u8, u8) {
    packet(ide, 0, 18, &[3, 0, 0, 0, 18]);
    let bytes = words(ide, 18);
    (bytes[2], bytes[12])
}

#[test]
fn pio_read_interrupts_per_sector() {
    let mut ide = with_disk(16);
    issue(&mut ide, 3, 2, 0x20);
    assert!(ide.irq(0));
    assert_eq!(reg(&mut ide, 7), 0x58);
    assert!(!ide.irq(0), "status acknowledges");
    assert_eq!(words(&mut ide, SECTOR), image(16)[3 * SECTOR..4 * SECTOR]);
    assert!(ide.irq(0));
    reg(&mut ide, 7);
    let second: Vec<u8> = (0..128)
        .flat_map(|_| PortDevice::read(&mut ide, 0, 0, 4).to_le_bytes())
        .collect();
    assert_eq!(second, image(16)[4 * SECTOR..5 * SECTOR]);
    assert!(!ide.irq(0), "no interrupt after the last sector of a read");
    assert_eq!(
        (reg(&mut ide, 7), reg(&mut ide, 2), reg(&mut ide, 3)),
        (0x50, 0, 4)
    );
}

#[test]
fn pio_write_interrupts_after_each_sector_and_reads_back() {
    let mut ide = with_disk(16);
    issue(&mut ide, 5, 1, 0x30);
    assert!(
        !ide.irq(0),
        "the first block is requested without interrupt"
    );
    assert_eq!(reg(&mut ide, 7) & 8, 8);
    for _ in 0..256 {
        ide.write(0, 0, 2, 0xa55a);
    }
    assert!(ide.irq(0));
    issue(&mut ide, 5, 1, 0x20);
    assert_eq!(words(&mut ide, 4), [0x5a, 0xa5, 0x5a, 0xa5]);
}

#[test]
fn sector_count_zero_means_256_or_65536() {
    let mut ide = with_disk(256);
    issue(&mut ide, 0, 0, 0x20);
    assert_eq!(words(&mut ide, 256 * SECTOR), image(256));
    assert_eq!(reg(&mut ide, 7), 0x50);
    issue(&mut ide, 1, 0, 0x20);
    assert_eq!(
        (reg(&mut ide, 1), reg(&mut ide, 7) & 1),
        (0x10, 1),
        "257 sectors are too many"
    );
    let mut big = with_disk(65_536);
    for register in [2, 3, 4, 5] {
        set(&mut big, register, 0);
        set(&mut big, register, 0);
    }
    set(&mut big, 6, 0x40);
    set(&mut big, 7, 0x42); // READ VERIFY EXT
    assert_eq!(reg(&mut big, 7), 0x50);
    set(&mut big, 3, 1);
    set(&mut big, 7, 0x42);
    assert_eq!(reg(&mut big, 7) & 1, 1);
}

#[test]
fn read_multiple_moves_blocks() {
    let mut ide = with_disk(16);
    issue(&mut ide, 0, 3, 0xc4);
    assert_eq!(reg(&mut ide, 1), 4, "aborted before SET MULTIPLE");
    issue(&mut ide, 0, 3, 0xc6);
    assert_eq!(reg(&mut ide, 1), 4, "not a power of two");
    issue(&mut ide, 0, 4, 0xc6);
    issue(&mut ide, 0, 6, 0xc4);
    reg(&mut ide, 7);
    words(&mut ide, 4 * SECTOR - 2);
    assert!(!ide.irq(0));
    words(&mut ide, 2);
    assert!(ide.irq(0));
    words(&mut ide, 2 * SECTOR);
    assert_eq!(reg(&mut ide, 7), 0x50);
}

#[test]
fn chs_addresses_follow_the_geometry() {
    let mut ide = with_disk(2048);
    for (register, value) in [(6, 0xa1), (2, 1), (3, 2), (4, 1), (5, 0), (7, 0x20)] {
        set(&mut ide, register, value);
    }
    let lba = (16 + 1) * 63 + 1;
    assert_eq!(
        words(&mut ide, SECTOR),
        image(2048)[lba * SECTOR..(lba + 1) * SECTOR]
    );
    for (register, value) in [(6, 0xa0), (2, 1), (3, 0), (7, 0x20)] {
        set(&mut ide, register, value);
    }
    assert_eq!(reg(&mut ide, 1), 0x10, "sector 0 does not exist");
}

#[test]
fn identify_reports_capacity_and_name() {
    let mut ide = with_disk(300);
    issue(&mut ide, 0, 0, 0xec);
    let bytes = words(&mut ide, 512);
    let word = |i: usize| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]);
    assert_eq!((word(60), word(61), word(100)), (300, 0, 300));
    assert_eq!(&bytes[54..60], b"IRGN 3");
    assert_eq!(reg(&mut ide, 7), 0x50);
}

fn prd(ram: &mut Ram, at: usize, address: u32, len: u16, last: bool) {
    ram.0[at..at + 4].copy_from_slice(&address.to_le_bytes());
    ram.0[at + 4..at + 6].copy_from_slice(&len.to_le_bytes());
    ram.0[at + 7] = u8::from(last) << 7;
}

#[test]
fn dma_read_scatters_over_descriptors() {
    let (mut ide, mut ram) = (with_disk(16), Ram::new());
    prd(&mut ram, 0x100, 0x8000, 0x300, false);
    prd(&mut ram, 0x108, 0x9000, 0x100, true);
    ide.write(0, 0x24, 4, 0x100);
    issue(&mut ide, 2, 2, 0xc8);
    assert!(!ide.dma_ready());
    ide.write(0, 0x20, 1, 0x09);
    assert!(ide.dma_ready());
    ide.run_dma(&mut ram);
    assert!(ide.irq(0));
    assert_eq!(reg(&mut ide, 0x22), 4, "interrupt, no longer active");
    assert_eq!(
        ram.0[0x8000..0x8300],
        image(16)[2 * SECTOR..2 * SECTOR + 0x300]
    );
    assert_eq!(
        ram.0[0x9000..0x9100],
        image(16)[2 * SECTOR + 0x300..4 * SECTOR]
    );
}

#[test]
fn dma_write_gathers_and_longer_tables_stay_active() {
    let (mut ide, mut ram) = (with_disk(16), Ram::new());
    ram.0[0x8000..0x8200].fill(0x77);
    prd(&mut ram, 0x100, 0x8000, 0, true);
    ide.write(0, 0x24, 4, 0x100);
    issue(&mut ide, 9, 1, 0xca);
    ide.write(0, 0x20, 1, 0x01);
    ide.run_dma(&mut ram);
    assert_eq!(
        reg(&mut ide, 0x22),
        5,
        "interrupt, and the table has room left"
    );
    issue(&mut ide, 9, 1, 0x20);
    assert_eq!(words(&mut ide, SECTOR), [0x77; SECTOR]);
}

#[test]
fn dma_outside_memory_fails_safely() {
    let (mut ide, mut ram) = (with_disk(16), Ram::new());
    prd(&mut ram, 0x100, 0xffff_f000, 0x200, true);
    ide.write(0, 0x24, 4, 0x100);
    issue(&mut ide, 0, 1, 0xc8);
    ide.write(0, 0x20, 1, 0x09);
    ide.run_dma(&mut ram);
    assert_eq!(reg(&mut ide, 0x22) & 3, 2);
    ide.write(0, 0x20, 1, 0);
    ide.write(0, 0x24, 4, 0xffff_0000);
    issue(&mut ide, 0, 1, 0xc8);
    ide.write(0, 0x20, 1, 0x09);
    ide.run_dma(&mut ram);
    assert_eq!(reg(&mut ide, 0x22) & 1, 0);
}

#[test]
fn short_descriptor_table_leaves_the_drive_waiting() {
    let (mut ide, mut ram) = (with_disk(16), Ram::new());
    prd(&mut ram, 0x100, 0x8000, 0x100, true);
    ide.write(0, 0x24, 4, 0x100);
    issue(&mut ide, 0, 1, 0xc8);
    ide.write(0, 0x20, 1, 0x09);
    ide.run_dma(&mut ram);
    assert_eq!((reg(&mut ide, 0x22), ide.irq(0)), (0, false));
}

#[test]
fn software_reset_shows_signatures() {
    let mut ide = with_disk(16);
    ide.attach_cd_rom(0, 1, None);
    set(&mut ide, 8, 4);
    assert_eq!(reg(&mut ide, 8), 0x80);
    set(&mut ide, 8, 0);
    assert_eq!([2, 3, 4, 5].map(|r| reg(&mut ide, r)), [1, 1, 0, 0]);
    set(&mut ide, 6, 0x10);
    assert_eq!([2, 3, 4, 5].map(|r| reg(&mut ide, r)), [1, 1, 0x14, 0xeb]);
    set(&mut ide, 7, 0xec);
    assert_eq!((reg(&mut ide, 1), reg(&mut ide, 4)), (4, 0x14));
}

#[test]
fn absent_devices_and_masked_interrupts() {
    let mut ide = with_disk(16);
    set(&mut ide, 6, 0x10);
    assert_eq!(reg(&mut ide, 7), 0);
    assert_eq!(reg(&mut ide, 0x17), 0);
    set(&mut ide, 8, 2);
    issue(&mut ide, 0, 1, 0x20);
    assert!(!ide.irq(0));
    set(&mut ide, 8, 0);
    assert!(ide.irq(0));
}

#[test]
fn read_only_image_aborts_writes() {
    let mut ide = Ide::new();
    ide.attach_disk(0, 0, Box::new(MemoryDisk::new(image(4), true)));
    issue(&mut ide, 0, 1, 0x30);
    assert_eq!((reg(&mut ide, 1), reg(&mut ide, 7) & 9), (4, 1));
}

#[test]
fn atapi_byte_count_limit_splits_the_reply() {
    let mut ide = with_cd(8);
    packet(&mut ide, 0, 2049, &[0x28, 0, 0, 0, 0, 2, 0, 0, 2]);
    let mut data = Vec::new();
    for _ in 0..2 {
        assert!(ide.irq(0));
        assert_eq!((reg(&mut ide, 2) & 3, reg(&mut ide, 7) & 8), (2, 8));
        let len = u16::from_le_bytes([reg(&mut ide, 4), reg(&mut ide, 5)]);
        assert_eq!(len, 2048, "an odd limit is rounded down");
        data.extend(words(&mut ide, len.into()));
    }
    assert!(ide.irq(0));
    assert_eq!((reg(&mut ide, 2) & 3, reg(&mut ide, 7)), (3, 0x50));
    assert_eq!(data, image(32)[8 * SECTOR..16 * SECTOR]);
}

#[test]
fn atapi_length_is_truncated_to_the_allocation_and_limit_zero_is_large() {
    let mut ide = with_cd(8);
    packet(&mut ide, 0, 0, &[0x12, 0, 0, 0, 5]);
    assert_eq!((reg(&mut ide, 4), reg(&mut ide, 5)), (5, 0));
    assert_eq!(words(&mut ide, 6)[..5], [5, 0x80, 0, 0x21, 31]);
    assert_eq!(reg(&mut ide, 7), 0x50);
    packet(&mut ide, 0, 0, &[0x12, 0, 0, 0, 0]);
    assert_eq!(reg(&mut ide, 7), 0x50, "nothing allocated, nothing sent");
}

#[test]
fn atapi_dma_read() {
    let (mut ide, mut ram) = (with_cd(64), Ram::new());
    prd(&mut ram, 0x100, 0x1_0000, 0, false);
    prd(&mut ram, 0x108, 0x2_0000, 0, true);
    ide.write(0, 0x24, 4, 0x100);
    packet(&mut ide, 1, 0, &[0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 64]);
    ide.write(0, 0x20, 1, 0x09);
    ide.run_dma(&mut ram);
    assert_eq!(reg(&mut ide, 0x22), 4);
    assert_eq!(ram.0[0x1_0000..0x3_0000], image(256));
}

#[test]
fn atapi_capacity_toc_and_errors() {
    let mut ide = with_cd(8);
    packet(&mut ide, 0, 8, &[0x25]);
    assert_eq!(words(&mut ide, 8), [0, 0, 0, 7, 0, 0, 8, 0]);
    packet(&mut ide, 0, 100, &[0x43, 2, 0, 0, 0, 0, 0, 0, 100]);
    let toc = words(&mut ide, 20);
    assert_eq!(toc[..4], [0, 18, 1, 1]);
    assert_eq!(toc[4..12], [0, 0x14, 1, 0, 0, 0, 2, 0]);
    assert_eq!(toc[12..20], [0, 0x14, 0xaa, 0, 0, 0, 2, 8]);
    packet(&mut ide, 0, 2048, &[0x28, 0, 0, 0, 0, 8, 0, 0, 1]);
    assert_eq!((reg(&mut ide, 1), reg(&mut ide, 7) & 1), (0x54, 1));
    assert_eq!(sense(&mut ide), (5, 0x21));
    assert_eq!(sense(&mut ide), (0, 0), "sense is reported once");
    packet(&mut ide, 0, 0, &[0xff]);
    assert_eq!(sense(&mut ide), (5, 0x20));
}

#[test]
fn media_change_is_reported_once() {
    let mut ide = with_cd(8);
    packet(&mut ide, 0, 0, &[0]);
    assert_eq!(reg(&mut ide, 7) & 1, 0);
    ide.set_medium(0, 0, None).unwrap();
    packet(&mut ide, 0, 0, &[0]);
    assert_eq!(sense(&mut ide), (2, 0x3a));
    ide.set_medium(0, 0, Some(Box::new(MemoryDisk::new(image(4), true))))
        .unwrap();
    packet(&mut ide, 0, 8, &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]);
    assert_eq!(words(&mut ide, 8), [0, 6, 4, 0x10, 2, 2, 0, 0]);
    packet(&mut ide, 0, 0, &[0]);
    assert_eq!(sense(&mut ide), (6, 0x28));
    packet(&mut ide, 0, 0, &[0]);
    assert_eq!(reg(&mut ide, 7) & 1, 0);
    packet(&mut ide, 0, 0, &[0x1e, 0, 0, 0, 1]);
    packet(&mut ide, 0, 0, &[0x1b, 0, 0, 0, 2]);
    assert_eq!(sense(&mut ide), (5, 0x53));
    packet(&mut ide, 0, 0, &[0x1e, 0, 0, 0, 0]);
    packet(&mut ide, 0, 0, &[0x1b, 0, 0, 0, 2]);
    assert!(!ide.has_medium(0, 0));
    assert_eq!(ide.set_medium(0, 1, None), Err(MediumError::NoDrive));
}

#[test]
fn random_register_traffic_never_panics() {
    let (mut ide, mut ram) = (with_disk(64), Ram::new());
    ide.attach_cd_rom(0, 1, Some(Box::new(MemoryDisk::new(image(64), true))));
    let mut seed = 7u32;
    for _ in 0..200_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (port, value) = ((seed >> 8) as u16 & 0x3f, seed >> 16);
        let size = [1, 2, 4][(seed >> 29) as usize % 3];
        if seed & 0x80 != 0 {
            ide.write(0, port, size, value);
        } else {
            PortDevice::read(&mut ide, 0, port, size);
        }
        ide.run_dma(&mut ram);
    }
}

/// A disk that counts flushes and fails at one sector.
struct Watched(MemoryDisk, std::sync::Arc<std::sync::atomic::AtomicU32>);

impl crate::block::BlockBackend for Watched {
    fn sectors(&self) -> u64 {
        self.0.sectors()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&mut self, first: u64, buf: &mut [u8]) -> Result<(), crate::block::BlockError> {
        let broken = first..first + (buf.len() / SECTOR) as u64;
        if broken.contains(&3) {
            return Err(crate::block::BlockError::Host);
        }
        self.0.read(first, buf)
    }
    fn write(&mut self, first: u64, data: &[u8]) -> Result<(), crate::block::BlockError> {
        self.0.write(first, data)
    }
    fn flush(&mut self) -> Result<(), crate::block::BlockError> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn without_write_cache_each_write_is_flushed_and_host_errors_are_uncorrectable() {
    let flushes = std::sync::Arc::<std::sync::atomic::AtomicU32>::default();
    let count = || flushes.load(std::sync::atomic::Ordering::Relaxed);
    let mut ide = Ide::new();
    let disk = Watched(MemoryDisk::new(image(8), false), flushes.clone());
    ide.attach_disk(0, 0, Box::new(disk));
    let write = |ide: &mut Ide| {
        issue(ide, 0, 2, 0x30);
        for _ in 0..SECTOR {
            ide.write(0, 0, 2, 0x5a5a);
        }
        assert_eq!(reg(ide, 7), 0x50);
    };
    let features = |ide: &mut Ide, feature: u8| {
        set(ide, 1, feature);
        issue(ide, 0, 0, 0xef);
        issue(ide, 0, 0, 0xec);
        words(ide, 512)[85 * 2] & 0x20 != 0
    };
    write(&mut ide);
    assert_eq!(count(), 0, "the cache is on at first");
    assert!(!features(&mut ide, 0x82));
    write(&mut ide);
    assert_eq!(count(), 1);
    assert!(features(&mut ide, 0x02));
    write(&mut ide);
    assert_eq!(count(), 1);
    issue(&mut ide, 0, 0, 0xe7);
    assert_eq!(count(), 2);
    issue(&mut ide, 3, 1, 0x20);
    assert_eq!(
        (reg(&mut ide, 7) & 1, reg(&mut ide, 1)),
        (1, 0x40),
        "ERR, UNC"
    );
    issue(&mut ide, 4, 1, 0x20);
    assert_eq!(reg(&mut ide, 7) & 9, 8, "the rest goes on");
}
