//! The diskette controller and the disk controller, with media and DMA.

use crate::ram::Ram;
use crate::target::{Op, Target, port_op};
use ring3_devices::block::{BlockBackend, MemoryDisk, SECTOR};
use ring3_devices::bus::{DmaMemory, Nanos, PortDevice};
use ring3_devices::dma::DmaPair;
use ring3_devices::floppy::Floppy;
use ring3_devices::ide::Ide;
use ring3_devices::pci::PciFunction;

/// A medium of so many sectors.
fn medium(sectors: usize, read_only: bool) -> Box<dyn BlockBackend> {
    Box::new(MemoryDisk::new(vec![0x5a; sectors * SECTOR], read_only))
}

/// A disk of two tebibytes that stores nothing: addresses go to their limits.
struct Huge;

impl BlockBackend for Huge {
    fn sectors(&self) -> u64 {
        1 << 32
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&mut self, _: u64, buf: &mut [u8]) -> Result<(), ring3_devices::block::BlockError> {
        buf.fill(0x77);
        Ok(())
    }
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), ring3_devices::block::BlockError> {
        Ok(())
    }
    fn flush(&mut self) -> Result<(), ring3_devices::block::BlockError> {
        Ok(())
    }
}

/// The diskette controller with its DMA channel; the DMA chip's ports follow its own.
pub struct FloppyTarget {
    chip: Floppy,
    dma: DmaPair,
    ram: Ram,
}

impl Default for FloppyTarget {
    fn default() -> Self {
        let mut chip = Floppy::new();
        chip.attach(0, Some(medium(2880, false)));
        chip.attach(1, Some(medium(1440, true)));
        Self {
            chip,
            dma: DmaPair::new(),
            ram: Ram::new(),
        }
    }
}

/// Ports of the controller before those of the DMA chip.
const FLOPPY_PORTS: u16 = 8;

fn shifted(op: &Op) -> Op {
    let mut op = op.clone();
    if let Op::In { port, .. }
    | Op::Out { port, .. }
    | Op::Burst { port, .. }
    | Op::Drain { port, .. } = &mut op
    {
        *port -= FLOPPY_PORTS;
    }
    op
}

impl Target for FloppyTarget {
    fn name(&self) -> &'static str {
        "floppy"
    }
    fn ports(&self) -> u16 {
        FLOPPY_PORTS + 0x40
    }
    fn favourites(&self) -> &'static [u16] {
        // DOR, FIFO; page, mode, mask, address and count of DMA channel 2.
        &[
            2,
            5,
            5,
            5,
            5,
            5,
            5,
            FLOPPY_PORTS + 4,
            FLOPPY_PORTS + 5,
            FLOPPY_PORTS + 10,
            FLOPPY_PORTS + 11,
        ]
    }
    fn commands(&self) -> &'static [u8] {
        // Commands of the 82077AA, DOR with motors and DMA, DMA modes of channel 2.
        &[
            0x03, 0x07, 0x08, 0x0f, 0x4a, 0xe6, 0xc5, 0x46, 0x45, 0x4d, 0x0e, 0x13, 0x8e, 0x12,
            0x94, 0x42, 0x02, 0x1c, 0x2d, 0x46, 0x4a, 0x56, 0x5a, 0x00, 0x01, 0x02,
        ]
    }
    fn bus_master(&self) -> bool {
        true
    }
    fn apply(&mut self, now: Nanos, op: &Op) {
        match op {
            Op::In { port, .. }
            | Op::Out { port, .. }
            | Op::Burst { port, .. }
            | Op::Drain { port, .. }
                if *port >= FLOPPY_PORTS =>
            {
                port_op(&mut self.dma, now, &shifted(op));
            }
            Op::Host(n) => {
                let new = match n % 4 {
                    0 => None,
                    1 => Some(medium(2880, n & 8 != 0)),
                    2 => Some(medium((n >> 4) as usize % 6000, n & 8 != 0)),
                    _ => Some(medium(720, n & 8 != 0)),
                };
                self.chip.set_medium((n >> 16) as usize % 4, new);
            }
            _ => port_op(&mut self.chip, now, op),
        }
        if self.chip.dma_ready() {
            self.chip.run_dma(&mut self.dma, &mut self.ram);
        }
        let _ = self.chip.irq();
    }
}

/// The disk controller: a disk, a disk of 2 TiB, a CD-ROM, and an empty drive.
pub struct IdeTarget {
    chip: Ide,
    ram: Ram,
}

impl Default for IdeTarget {
    fn default() -> Self {
        let mut chip = Ide::new();
        chip.attach_disk(0, 0, medium(300, false));
        chip.attach_disk(0, 1, Box::new(Huge));
        chip.attach_cd_rom(1, 0, Some(medium(400, true)));
        chip.attach_cd_rom(1, 1, None);
        chip.config_mut().write(4, 2, 5);
        Self {
            chip,
            ram: Ram::new(),
        }
    }
}

impl IdeTarget {
    /// A packet command with random arguments: the whole sequence, which is unlikely by chance.
    fn packet(&mut self, now: Nanos, n: u32) {
        const COMMANDS: [u8; 16] = [
            0x00, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa8,
            0xbd, 0xbe,
        ];
        let base = 0x10;
        let mut write = |at: u16, v: u32| self.chip.write(now, base + at, 1, v);
        write(6, 0xa0 | (n & 0x10));
        write(1, n >> 1 & 1);
        write(4, n >> 8);
        write(5, n >> 16);
        write(7, 0xa0);
        let mut packet = [0u8; 12];
        let mut random = fastrand::Rng::with_seed(u64::from(n));
        random.fill(&mut packet);
        packet[0] = COMMANDS[n as usize >> 2 & 15];
        if random.bool() {
            packet[2..7].fill(0);
        }
        for pair in packet.chunks(2) {
            self.chip.write(
                now,
                base,
                2,
                u32::from(u16::from_le_bytes([pair[0], pair[1]])),
            );
        }
    }
}

impl Target for IdeTarget {
    fn name(&self) -> &'static str {
        "ide"
    }
    fn ports(&self) -> u16 {
        0x34
    }
    fn favourites(&self) -> &'static [u16] {
        // Data, count, command and device of both channels; bus master commands and tables.
        &[
            0, 0, 2, 3, 6, 7, 7, 0x10, 0x10, 0x12, 0x16, 0x17, 0x17, 0x20, 0x24, 0x28, 0x2c,
        ]
    }
    fn commands(&self) -> &'static [u8] {
        &[
            0x20, 0x24, 0x29, 0x30, 0x34, 0x39, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0x25, 0x35, 0xec,
            0xa1, 0xa0, 0xef, 0x91, 0x08, 0x90, 0xe7, 0xea, 0x40, 0x70, 0x00, 0x01, 0x09, 0xe0,
            0xf0, 0xa0,
        ]
    }
    fn bus_master(&self) -> bool {
        true
    }
    fn apply(&mut self, now: Nanos, op: &Op) {
        match op {
            Op::Ram { at, data } => {
                // Region descriptors: an address and a count, with the end marked at times.
                let mut table = Vec::new();
                for (n, chunk) in data.chunks(4).enumerate() {
                    let mut word = [0; 4];
                    word[..chunk.len()].copy_from_slice(chunk);
                    if n % 2 == 0 {
                        word[3] = 0;
                    }
                    table.extend_from_slice(&word);
                }
                let _ = self.ram.write(*at, &table);
            }
            Op::Host(n) => match n % 4 {
                0 => {
                    let new = (n & 8 != 0).then(|| medium((n >> 4) as usize % 2000, true));
                    let _ = self.chip.set_medium(1, (n >> 30) as usize & 1, new);
                }
                1 => {
                    let mut words = vec![[0; 2]; (n >> 8) as usize % 40_000];
                    self.chip.read_data((n >> 2) as usize & 1, &mut words);
                }
                _ => self.packet(now, *n),
            },
            _ => port_op(&mut self.chip, now, op),
        }
        if self.chip.dma_ready() {
            self.chip.run_dma(&mut self.ram);
        }
        let _ = (self.chip.irq(0), self.chip.irq(1));
    }
}
