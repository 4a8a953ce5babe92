//! Register-level tests of the floppy controller. Intel 82077AA datasheet (290166): 2.1, registers;
//! 5.1, parameters and status; 5.2, commands; 6.0, reset and polling.

use super::*;
use crate::block::MemoryDisk;
use crate::bus::DmaError;

struct Ram(Vec<u8>);
impl DmaMemory for Ram {
    fn read(&mut self, address: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        let at = address as usize;
        buf.copy_from_slice(self.0.get(at..at + buf.len()).ok_or(DmaError { address })?);
        Ok(())
    }
    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        let at = address as usize;
        self.0
            .get_mut(at..at + data.len())
            .ok_or(DmaError { address })?
            .copy_from_slice(data);
        Ok(())
    }
}

/// Every sector is filled with the low byte of its number.
fn image() -> Vec<u8> {
    (0..2880 * SECTOR).map(|i| (i / SECTOR) as u8).collect()
}

/// A 1.44 MB disk in drive 0, controller reset and interrupts taken.
fn floppy(read_only: bool) -> Floppy {
    let mut fdc = Floppy::new();
    fdc.attach(0, Some(Box::new(MemoryDisk::new(image(), read_only))));
    fdc.write_byte(0, reg::DOR, 0x00);
    fdc.write_byte(0, reg::DOR, 0x1c);
    for unit in 0..4 {
        assert_eq!(command(&mut fdc, &[8]), [0xc0 | unit, 0]);
    }
    fdc
}

fn send(fdc: &mut Floppy, bytes: &[u8]) {
    for byte in bytes {
        assert_eq!(
            fdc.read_byte(0, reg::MSR) & 0xc0,
            0x80,
            "ready for a command byte"
        );
        fdc.write_byte(0, reg::FIFO, *byte);
    }
}

fn result(fdc: &mut Floppy) -> Vec<u8> {
    std::iter::from_fn(|| {
        (fdc.read_byte(0, reg::MSR) & 0xd0 == 0xd0).then(|| fdc.read_byte(0, reg::FIFO))
    })
    .collect()
}

fn command(fdc: &mut Floppy, bytes: &[u8]) -> Vec<u8> {
    send(fdc, bytes);
    result(fdc)
}

/// Channel 2 with `mode`, memory at 0x1000, `len` bytes.
fn channel(mode: u8, len: u16) -> DmaPair {
    let mut dma = DmaPair::new();
    let [low, high] = (len - 1).to_le_bytes();
    for (port, value) in [
        (0x34, 0),
        (12, 0),
        (4, 0),
        (4, 0x10),
        (5, low),
        (5, high),
        (0x11, 0),
        (11, mode | 2),
        (10, 2),
    ] {
        dma.write_byte(0, port, value);
    }
    dma
}

#[test]
fn dma_read_runs_over_both_heads_until_terminal_count() {
    let (mut fdc, mut ram) = (floppy(false), Ram(vec![0; 0x1_0000]));
    let mut dma = channel(0x44, 3 * 512);
    send(&mut fdc, &[0xe6, 0, 0, 0, 17, 2, 18, 0x1b, 0xff]);
    assert!(fdc.dma_ready() && !fdc.irq());
    fdc.run_dma(&mut dma, &mut ram);
    assert!(fdc.irq());
    assert_eq!(
        [ram.0[0x1000], ram.0[0x1200], ram.0[0x1400], ram.0[0x1600]],
        [16, 17, 18, 0]
    );
    assert_eq!(result(&mut fdc), [0, 0, 0, 0, 1, 2, 2]);
    assert!(!fdc.irq());
}

#[test]
fn dma_write_reaches_the_image() {
    let (mut fdc, mut ram) = (floppy(false), Ram(vec![0x5a; 0x1_0000]));
    send(&mut fdc, &[0xc5, 0, 0, 0, 3, 2, 18, 0x1b, 0xff]);
    fdc.run_dma(&mut channel(0x48, 512), &mut ram);
    assert_eq!(result(&mut fdc)[..2], [0, 0]);
    ram.0.fill(0);
    send(&mut fdc, &[0xe6, 0, 0, 0, 3, 2, 18, 0x1b, 0xff]);
    fdc.run_dma(&mut channel(0x44, 512), &mut ram);
    assert_eq!(ram.0[0x1000..0x1200], [0x5a; 512]);
}

#[test]
fn pio_read_ends_with_end_of_cylinder() {
    let mut fdc = floppy(false);
    command(&mut fdc, &[3, 0xaf, 3]);
    send(&mut fdc, &[0x46, 0, 0, 0, 18, 2, 18, 0x1b, 0xff]);
    assert!(fdc.irq());
    for _ in 0..512 {
        assert_eq!(fdc.read_byte(0, reg::MSR), 0xf0);
        assert_eq!(fdc.read_byte(0, reg::FIFO), 17);
    }
    assert_eq!(result(&mut fdc), [0x40, 0x80, 0, 1, 0, 1, 2]);
}

#[test]
fn pio_write_and_read_back() {
    let mut fdc = floppy(false);
    command(&mut fdc, &[3, 0xaf, 3]);
    send(&mut fdc, &[0x45, 0, 0, 0, 1, 2, 1, 0x1b, 0xff]);
    for i in 0..512u16 {
        fdc.write_byte(0, reg::FIFO, i as u8);
    }
    assert_eq!(result(&mut fdc)[1], 0x80);
    send(&mut fdc, &[0x46, 0, 0, 0, 1, 2, 1, 0x1b, 0xff]);
    let read: Vec<u8> = (0..512).map(|_| fdc.read_byte(0, reg::FIFO)).collect();
    assert!(read.iter().enumerate().all(|(i, byte)| *byte == i as u8));
}

#[test]
fn fifo_overrun_by_endless_command_bytes_is_harmless() {
    // The FIFO overrun of 2015: commands whose bytes never seem to end.
    for first in 0..=255 {
        let mut fdc = floppy(false);
        fdc.write_byte(0, reg::FIFO, first);
        for _ in 0..5000 {
            fdc.write_byte(0, reg::FIFO, 0x00);
            assert!(fdc.received <= LONGEST && fdc.result_len <= 10);
        }
        fdc.write_byte(0, reg::DOR, 0);
        fdc.write_byte(0, reg::DOR, 0x0c);
        assert_eq!(fdc.read_byte(0, reg::MSR), 0x80);
    }
}

#[test]
fn fifo_overrun_by_endless_reads_is_harmless() {
    let mut fdc = floppy(false);
    send(&mut fdc, &[0x0e]);
    for _ in 0..5000 {
        fdc.read_byte(0, reg::FIFO);
        assert!(fdc.result_at <= fdc.result_len);
    }
    assert_eq!(fdc.read_byte(0, reg::MSR), 0x80);
}

#[test]
fn seek_interrupts_and_is_sensed() {
    let mut fdc = floppy(false);
    send(&mut fdc, &[0x0f, 0, 40]);
    assert!(fdc.irq());
    assert_eq!(command(&mut fdc, &[8]), [0x20, 40]);
    assert!(!fdc.irq());
    assert_eq!(command(&mut fdc, &[8]), [0x80], "nothing left to sense");
    assert_eq!(command(&mut fdc, &[4, 0]), [0x28]);
    send(&mut fdc, &[7, 0]);
    assert_eq!(command(&mut fdc, &[8]), [0x20, 0]);
    assert_eq!(command(&mut fdc, &[4, 0]), [0x38]);
    send(&mut fdc, &[7, 1]);
    assert_eq!(command(&mut fdc, &[8]), [0x71, 0], "no second drive");
}

#[test]
fn wrong_cylinder_is_not_found_without_implied_seek() {
    let mut fdc = floppy(false);
    assert_eq!(
        command(&mut fdc, &[0xe6, 0, 5, 0, 1, 2, 18, 0x1b, 0xff])[..2],
        [0x40, 4]
    );
    command(&mut fdc, &[0x13, 0, 0x57, 0]);
    send(&mut fdc, &[0xe6, 0, 5, 0, 1, 2, 18, 0x1b, 0xff]);
    assert!(fdc.dma_ready());
}

#[test]
fn disk_change_shows_until_a_seek_with_a_medium() {
    let mut fdc = floppy(false);
    let change = |fdc: &mut Floppy| fdc.read_byte(0, reg::DIR) & 0x80 != 0;
    assert!(change(&mut fdc));
    send(&mut fdc, &[0x0f, 0, 1]);
    assert!(!change(&mut fdc));
    assert!(fdc.set_medium(0, None));
    assert!(change(&mut fdc));
    send(&mut fdc, &[0x0f, 0, 2]);
    assert!(change(&mut fdc), "no medium");
    assert_eq!(command(&mut fdc, &[0x4a, 0])[..2], [0x40, 1]);
    fdc.set_medium(
        0,
        Some(Box::new(MemoryDisk::new(vec![0; 720 * 1024], false))),
    );
    send(&mut fdc, &[0x0f, 0, 1]);
    assert!(!change(&mut fdc));
    assert!(!fdc.set_medium(1, None));
}

#[test]
fn write_protection_is_reported() {
    let mut fdc = floppy(true);
    assert_eq!(
        command(&mut fdc, &[0xc5, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..2],
        [0x40, 2]
    );
    assert_eq!(command(&mut fdc, &[4, 0])[0] & 0x40, 0x40);
}

#[test]
fn format_fills_the_track() {
    let (mut fdc, mut ram) = (floppy(false), Ram(vec![0; 0x1_0000]));
    for sector in 0..18usize {
        ram.0[0x1000 + 4 * sector..][..4].copy_from_slice(&[0, 1, sector as u8 + 1, 2]);
    }
    send(&mut fdc, &[0x4d, 4, 2, 18, 0x54, 0xf6]);
    fdc.run_dma(&mut channel(0x48, 72), &mut ram);
    assert_eq!(result(&mut fdc)[..2], [4, 0]);
    send(&mut fdc, &[0x46, 4, 0, 1, 18, 2, 18, 0x1b, 0xff]);
    fdc.run_dma(&mut channel(0x44, 512), &mut ram);
    assert_eq!(ram.0[0x1000..0x1200], [0xf6; 512]);
}

#[test]
fn version_dump_lock_and_verify() {
    let mut fdc = floppy(false);
    assert_eq!(command(&mut fdc, &[0x10]), [0x90]);
    assert_eq!(command(&mut fdc, &[0x94]), [0x10]);
    command(&mut fdc, &[0x13, 0, 0x57, 0x10]);
    fdc.write_byte(0, reg::MSR, 0x80);
    assert_eq!(
        command(&mut fdc, &[0x0e])[7..],
        [0x80, 0x57, 0x10],
        "locked over the reset"
    );
    assert_eq!(
        command(&mut fdc, &[0xd6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..2],
        [0, 0]
    );
    assert_eq!(command(&mut fdc, &[0x01]), [0x80]);
}

#[test]
fn geometry_follows_the_image_size() {
    for (kib, cylinders, sectors) in [
        (360, 40, 9),
        (720, 80, 9),
        (1200, 80, 15),
        (1440, 80, 18),
        (2880, 80, 36),
    ] {
        let geometry = Geometry::of(kib * 2);
        assert_eq!((geometry.cylinders, geometry.sectors), (cylinders, sectors));
    }
}
