//! Disks beyond 28-bit addresses. ATA/ATAPI-6, 4.2 and 6.2.

use super::*;
use crate::block::{BlockError, SECTOR};
use crate::bus::DmaError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Sectors of 2 TiB.
const SECTORS: u64 = 1 << 32;

/// A disk of 2 TiB that holds what was written, and elsewhere its sectors' numbers.
#[derive(Clone, Default)]
struct Sparse(Arc<Mutex<BTreeMap<u64, Vec<u8>>>>);

fn pattern(lba: u64) -> Vec<u8> {
    lba.to_le_bytes().repeat(SECTOR / 8)
}

impl BlockBackend for Sparse {
    fn sectors(&self) -> u64 {
        SECTORS
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&mut self, first: u64, buf: &mut [u8]) -> Result<(), BlockError> {
        let written = self.0.lock().unwrap();
        for (lba, sector) in (first..).zip(buf.chunks_mut(SECTOR)) {
            if lba >= SECTORS {
                return Err(BlockError::OutOfRange);
            }
            sector.copy_from_slice(written.get(&lba).unwrap_or(&pattern(lba)));
        }
        Ok(())
    }
    fn write(&mut self, first: u64, data: &[u8]) -> Result<(), BlockError> {
        for (lba, sector) in (first..).zip(data.chunks(SECTOR)) {
            self.0.lock().unwrap().insert(lba, sector.to_vec());
        }
        Ok(())
    }
    fn flush(&mut self) -> Result<(), BlockError> {
        Ok(())
    }
}

struct Ram(Vec<u8>);

impl DmaMemory for Ram {
    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        let from = self.0.get(at as usize..at as usize + buf.len());
        buf.copy_from_slice(from.ok_or(DmaError { address: at })?);
        Ok(())
    }
    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), DmaError> {
        let to = self.0.get_mut(at as usize..at as usize + data.len());
        to.ok_or(DmaError { address: at })?.copy_from_slice(data);
        Ok(())
    }
}

fn disk() -> (Ide, Sparse) {
    let (mut ide, image) = (Ide::new(), Sparse::default());
    ide.attach_disk(0, 0, Box::new(image.clone()));
    ide.config_mut().write(4, 2, 5);
    (ide, image)
}

fn set(ide: &mut Ide, register: u16, value: u8) {
    ide.write(0, register, 1, value.into());
}

fn reg(ide: &mut Ide, register: u16) -> u8 {
    PortDevice::read(ide, 0, register, 1) as u8
}

/// Each register is written twice, high half first.
fn issue(ide: &mut Ide, lba: u64, count: u16, command: u8) {
    let l = lba.to_le_bytes();
    let [low, high] = count.to_le_bytes();
    for (register, value) in [
        (6, 0x40),
        (2, high),
        (3, l[3]),
        (4, l[4]),
        (5, l[5]),
        (2, low),
        (3, l[0]),
        (4, l[1]),
        (5, l[2]),
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

#[test]
fn identify_tells_two_tebibytes() {
    let (mut ide, _) = disk();
    set(&mut ide, 7, 0xec);
    let w = words(&mut ide, 512);
    let word = |n: usize| u64::from(u16::from_le_bytes([w[2 * n], w[2 * n + 1]]));
    assert_eq!(
        word(100) | word(101) << 16 | word(102) << 32 | word(103) << 48,
        SECTORS
    );
    assert_eq!(word(60) | word(61) << 16, 0x0fff_ffff, "28-bit limit");
    assert_eq!(word(1), 16_383);
    assert_eq!(word(83) & 0x400, 0x400, "48-bit addresses");
    // READ NATIVE MAX EXT: the low half, then the high half by HOB.
    set(&mut ide, 6, 0x40);
    set(&mut ide, 7, 0x27);
    let low = [3, 4, 5].map(|r| reg(&mut ide, r));
    set(&mut ide, offset::PRIMARY_CONTROL, 0x80);
    let high = [3, 4, 5].map(|r| reg(&mut ide, r));
    assert_eq!((low, high), ([0xff, 0xff, 0xff], [0xff, 0, 0]));
}

#[test]
fn the_last_sectors_are_read_and_no_more() {
    let (mut ide, _) = disk();
    issue(&mut ide, SECTORS - 2, 2, 0x24);
    assert_eq!(words(&mut ide, SECTOR), pattern(SECTORS - 2));
    assert_eq!(words(&mut ide, SECTOR), pattern(SECTORS - 1));
    for (lba, count) in [(SECTORS - 1, 2), (SECTORS, 1), ((1 << 48) - 1, 0)] {
        issue(&mut ide, lba, count, 0x24);
        assert_eq!(
            (reg(&mut ide, 7) & 0x09, reg(&mut ide, 1)),
            (1, 0x10),
            "IDNF"
        );
    }
}

#[test]
fn multiple_writes_interrupt_per_block() {
    let (mut ide, image) = disk();
    set(&mut ide, 2, 4);
    set(&mut ide, 7, 0xc6);
    reg(&mut ide, 7);
    // Six sectors: a block of four and one of two.
    let at = (1 << 31) + 5;
    issue(&mut ide, at, 6, 0x39);
    assert!(!ide.irq(0), "the first block comes without interrupt");
    for (sectors, fill) in [(4, 0x11u8), (2, 0x22)] {
        for _ in 0..sectors * SECTOR / 2 {
            ide.write(0, 0, 2, u32::from(fill) * 0x101);
        }
        assert!(ide.irq(0));
        reg(&mut ide, 7);
    }
    assert_eq!(reg(&mut ide, 7), 0x50);
    let written = image.0.lock().unwrap();
    assert_eq!(written.len(), 6);
    assert_eq!(
        (written[&(at + 3)][0], written[&(at + 5)][511]),
        (0x11, 0x22)
    );
}

#[test]
fn dma_moves_data_both_ways_above_one_tebibyte() {
    let (mut ide, image) = disk();
    let mut ram = Ram(vec![0; 0x4000]);
    ram.0[..8].copy_from_slice(&[0, 0x10, 0, 0, 0, 4, 0, 0x80]); // 1024 bytes at 1000h
    let run = |ide: &mut Ide, ram: &mut Ram, command: u8, direction: u8, lba: u64| {
        ide.write(0, offset::BUS_MASTER + 4, 4, 0);
        set(ide, offset::BUS_MASTER + 2, 0x06);
        issue(ide, lba, 2, command);
        set(ide, offset::BUS_MASTER, direction | 1);
        assert!(ide.dma_ready());
        ide.run_dma(ram);
        assert!(ide.irq(0));
        assert_eq!(
            reg(ide, offset::BUS_MASTER + 2) & 0x07,
            0x04,
            "interrupt, no error"
        );
        assert_eq!(reg(ide, 7), 0x50);
        set(ide, offset::BUS_MASTER, 0);
    };
    let at = 3 << 30;
    run(&mut ide, &mut ram, 0x25, 0x08, at);
    assert_eq!(ram.0[0x1000..0x1200], pattern(at));
    assert_eq!(ram.0[0x1200..0x1400], pattern(at + 1));
    ram.0[0x1000..0x1400].fill(0x5a);
    run(&mut ide, &mut ram, 0x35, 0, at + 8);
    assert_eq!(image.0.lock().unwrap()[&(at + 9)], vec![0x5a; SECTOR]);
}
