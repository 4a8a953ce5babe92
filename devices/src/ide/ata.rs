//! Disk commands: addressing, PIO and DMA data, IDENTIFY DEVICE.

use super::drive::{Drive, Fifo2, Kind, Phase, mode_word, put_text};
use super::spec::{command, device, error};
use crate::block::{BlockBackend, BlockError, SECTOR};

/// Most sectors per DRQ block that SET MULTIPLE MODE accepts.
const MAX_MULTIPLE: u32 = 16;
/// Sectors moved per step of a DMA command.
const DMA_BLOCK: u32 = 128;

/// A disk and its transfer in progress.
pub struct Disk {
    image: Box<dyn BlockBackend>,
    heads: u64,
    sectors_per_track: u64,
    multiple: u32,
    lba: u64,
    left: u32,
    block: u32,
    /// The write cache is off: SET FEATURES 82h.
    pub write_through: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Lba28,
    Lba48,
}

impl Disk {
    pub fn new(image: Box<dyn BlockBackend>) -> Self {
        Self {
            image,
            heads: 16,
            sectors_per_track: 63,
            multiple: 0,
            lba: 0,
            left: 0,
            block: 1,
            write_through: false,
        }
    }

    pub fn reset(&mut self) {
        (self.heads, self.sectors_per_track, self.multiple, self.left) = (16, 63, 0, 0);
    }

    fn cylinders(&self) -> u64 {
        let sectors = self.image.sectors().min(16_514_064);
        (sectors / (self.heads * self.sectors_per_track)).clamp(1, 65_535)
    }

    /// Sectors of the next DRQ block.
    fn step(&self) -> u32 {
        self.left.min(self.block)
    }
}

fn error_bits(failure: BlockError) -> u8 {
    match failure {
        BlockError::OutOfRange => error::IDNF,
        BlockError::ReadOnly => error::ABRT,
        BlockError::Host => error::UNC,
    }
}

impl Drive {
    pub(super) fn the_disk(&mut self) -> Option<&mut Disk> {
        match &mut self.kind {
            Kind::Disk(disk) => Some(disk),
            Kind::CdRom(_) => None,
        }
    }

    /// The address in the registers; `None` for an impossible CHS address.
    fn address(&self, width: Width) -> Option<u64> {
        let r = &self.regs;
        let byte = |n: u8, shift: u32| u64::from(n) << shift;
        let [low, mid, high] = r.lba;
        let low24 = byte(low.current, 0) | byte(mid.current, 8) | byte(high.current, 16);
        if width == Width::Lba48 {
            let high24 = byte(low.previous, 24) | byte(mid.previous, 32) | byte(high.previous, 40);
            return Some(low24 | high24);
        }
        if r.device & device::LBA != 0 {
            return Some(low24 | byte(r.device & 0x0f, 24));
        }
        let Kind::Disk(disk) = &self.kind else {
            return None;
        };
        let head = u64::from(r.device & 0x0f);
        let sector = u64::from(low.current).checked_sub(1)?;
        let cylinder = low24 >> 8;
        (head < disk.heads && sector < disk.sectors_per_track)
            .then(|| (cylinder * disk.heads + head) * disk.sectors_per_track + sector)
    }

    /// The sector count in the registers: zero means 256, or 65536 with 48-bit addresses.
    fn count(&self, width: Width) -> u32 {
        let Fifo2 { current, previous } = self.regs.count;
        match (width, current, previous) {
            (Width::Lba28, 0, _) => 256,
            (Width::Lba28, n, _) => n.into(),
            (Width::Lba48, 0, 0) => 65_536,
            (Width::Lba48, low, high) => u16::from_le_bytes([low, high]).into(),
        }
    }

    /// Shows the address of the last sector done, and that none is left.
    fn show_progress(&mut self, lba: u64, left: u32, width: Width) {
        if width == Width::Lba48 || self.regs.device & device::LBA != 0 {
            for (i, register) in self.regs.lba.iter_mut().enumerate() {
                register.current = (lba >> (8 * i)) as u8;
                register.previous = (lba >> (24 + 8 * i)) as u8;
            }
            if width == Width::Lba28 {
                self.regs.device = self.regs.device & 0xf0 | (lba >> 24) as u8 & 0x0f;
            }
        }
        let [low, high, ..] = left.to_le_bytes();
        self.regs.count = Fifo2 {
            current: low,
            previous: high,
        };
    }

    /// Runs a disk command.
    pub fn disk_command(&mut self, value: u8) {
        use Width::{Lba28, Lba48};
        let multiple = self.the_disk().map_or(0, |disk| disk.multiple);
        match value {
            command::READ | command::READ_NO_RETRY => self.transfer(Lba28, 1, false, false),
            command::READ_EXT => self.transfer(Lba48, 1, false, false),
            command::WRITE | command::WRITE_NO_RETRY => self.transfer(Lba28, 1, true, false),
            command::WRITE_EXT => self.transfer(Lba48, 1, true, false),
            command::READ_MULTIPLE => self.transfer(Lba28, multiple, false, false),
            command::READ_MULTIPLE_EXT => self.transfer(Lba48, multiple, false, false),
            command::WRITE_MULTIPLE => self.transfer(Lba28, multiple, true, false),
            command::WRITE_MULTIPLE_EXT => self.transfer(Lba48, multiple, true, false),
            command::READ_DMA | command::READ_DMA_NO_RETRY => {
                self.transfer(Lba28, DMA_BLOCK, false, true);
            }
            command::READ_DMA_EXT => self.transfer(Lba48, DMA_BLOCK, false, true),
            command::WRITE_DMA | command::WRITE_DMA_NO_RETRY => {
                self.transfer(Lba28, DMA_BLOCK, true, true);
            }
            command::WRITE_DMA_EXT => self.transfer(Lba48, DMA_BLOCK, true, true),
            command::VERIFY | command::VERIFY_NO_RETRY => self.verify(Lba28),
            command::VERIFY_EXT => self.verify(Lba48),
            command::RECALIBRATE..0x20 | command::SEEK..0x80 => self.complete(),
            command::INIT_PARAMETERS => self.init_parameters(),
            command::SET_MULTIPLE => self.set_multiple(),
            command::FLUSH | command::FLUSH_EXT => {
                match self.the_disk().map_or(Ok(()), |disk| disk.image.flush()) {
                    Ok(()) => self.complete(),
                    Err(failure) => self.fail(error_bits(failure)),
                }
            }
            command::IDENTIFY => self.identify(),
            command::READ_NATIVE_MAX => self.native_max(Lba28),
            command::READ_NATIVE_MAX_EXT => self.native_max(Lba48),
            _ => self.fail(error::ABRT),
        }
    }

    /// Whether the command's range exists; fails the command if not.
    fn checked_range(&mut self, width: Width) -> Option<(u64, u32)> {
        let range = self.address(width).map(|lba| (lba, self.count(width)));
        let sectors = self.the_disk().map_or(0, |disk| disk.image.sectors());
        let range = range.filter(|(lba, count)| lba + u64::from(*count) <= sectors);
        if range.is_none() {
            self.fail(error::IDNF);
        }
        range
    }

    fn transfer(&mut self, width: Width, block: u32, write: bool, dma: bool) {
        if block == 0 {
            // READ/WRITE MULTIPLE without SET MULTIPLE MODE.
            return self.fail(error::ABRT);
        }
        let Some((lba, left)) = self.checked_range(width) else {
            return;
        };
        let Some(disk) = self.the_disk() else { return };
        if write && disk.image.read_only() {
            return self.fail(error::ABRT);
        }
        (disk.lba, disk.left, disk.block) = (lba, left, block);
        self.show_progress(lba + u64::from(left) - 1, 0, width);
        if write {
            self.request_block(dma, false);
        } else {
            self.load_block(dma);
        }
    }

    /// Reads the next block into the buffer and offers it.
    fn load_block(&mut self, dma: bool) {
        let Some(disk) = self.the_disk() else { return };
        let mut buffer = vec![0; disk.step() as usize * SECTOR];
        match disk.image.read(disk.lba, &mut buffer) {
            Ok(()) => {
                self.buffer = buffer;
                self.start_phase(Phase::DataIn { dma }, !dma);
            }
            Err(failure) => self.fail(error_bits(failure)),
        }
    }

    /// Asks the host for the next block; the first one comes without interrupt.
    fn request_block(&mut self, dma: bool, interrupt: bool) {
        let Some(disk) = self.the_disk() else { return };
        self.buffer = vec![0; disk.step() as usize * SECTOR];
        self.start_phase(Phase::DataOut { dma }, interrupt && !dma);
    }

    /// The buffer was read or filled by the host.
    pub fn disk_data_done(&mut self) {
        let (phase, buffer) = (self.phase, std::mem::take(&mut self.buffer));
        self.phase = Phase::Idle;
        let Some(disk) = self.the_disk() else { return };
        if disk.left == 0 {
            // IDENTIFY data, not sectors.
            self.regs.status = super::spec::status::DRDY | super::spec::status::DSC;
            return;
        }
        let step = disk.step();
        if matches!(phase, Phase::DataOut { .. })
            && let Err(failure) = disk.image.write(disk.lba, &buffer)
        {
            disk.left = 0;
            return self.fail(error_bits(failure));
        }
        disk.lba += u64::from(step);
        disk.left -= step;
        // Without a write cache, what is written is durable.
        if disk.left == 0
            && disk.write_through
            && matches!(phase, Phase::DataOut { .. })
            && let Err(failure) = disk.image.flush()
        {
            return self.fail(error_bits(failure));
        }
        match (phase, disk.left) {
            // A PIO read ends without interrupt: the last block announced itself.
            (Phase::DataIn { dma: false }, 0) => {
                self.regs.status = super::spec::status::DRDY | super::spec::status::DSC;
            }
            (_, 0) => self.complete(),
            (Phase::DataIn { dma }, _) => self.load_block(dma),
            (Phase::DataOut { dma }, _) => self.request_block(dma, true),
            _ => {}
        }
    }

    fn verify(&mut self, width: Width) {
        if self.checked_range(width).is_some() {
            self.complete();
        }
    }

    fn init_parameters(&mut self) {
        let sectors = self.regs.count.current;
        let heads = u64::from(self.regs.device & 0x0f) + 1;
        if sectors == 0 {
            return self.fail(error::ABRT);
        }
        if let Some(disk) = self.the_disk() {
            (disk.heads, disk.sectors_per_track) = (heads, sectors.into());
        }
        self.complete();
    }

    fn set_multiple(&mut self) {
        let count = u32::from(self.regs.count.current);
        if count > MAX_MULTIPLE || (count != 0 && !count.is_power_of_two()) {
            return self.fail(error::ABRT);
        }
        if let Some(disk) = self.the_disk() {
            disk.multiple = count;
        }
        self.complete();
    }

    fn native_max(&mut self, width: Width) {
        let last = self
            .the_disk()
            .map_or(0, |disk| disk.image.sectors().saturating_sub(1));
        let limit = if width == Width::Lba28 {
            0x0fff_ffff
        } else {
            0xffff_ffff_ffff
        };
        let count = self.regs.count;
        self.show_progress(last.min(limit), 0, width);
        self.regs.count = count;
        self.complete();
    }

    /// IDENTIFY DEVICE. ATA/ATAPI-6, 8.15.
    fn identify(&mut self) {
        let (mwdma, udma) = (mode_word(self.mwdma), mode_word(self.udma));
        let Some(disk) = self.the_disk() else { return };
        disk.left = 0;
        let mut w = [0u16; 256];
        let sectors = disk.image.sectors();
        let (cylinders, heads, per_track) = (disk.cylinders(), disk.heads, disk.sectors_per_track);
        let capacity = (cylinders * heads * per_track) as u32;
        let low = |n: u64| n as u16;
        w[0] = 0x0040;
        w[1] = low(cylinders.min(16_383));
        (w[3], w[6]) = (low(heads), low(per_track));
        put_text(&mut w, 10, 10, "R3-0000001");
        put_text(&mut w, 23, 4, "1.0");
        put_text(&mut w, 27, 20, "RING3 HARDDISK");
        w[47] = 0x8000 | MAX_MULTIPLE as u16;
        w[48] = 1;
        w[49] = 0x0b00;
        w[50] = 0x4000;
        w[51] = 0x0200;
        w[53] = 7;
        (w[54], w[55], w[56]) = (low(cylinders), low(heads), low(per_track));
        (w[57], w[58]) = (capacity as u16, (capacity >> 16) as u16);
        w[59] = if disk.multiple == 0 {
            0
        } else {
            0x100 | disk.multiple as u16
        };
        let lba28 = sectors.min(0x0fff_ffff);
        (w[60], w[61]) = (low(lba28), low(lba28 >> 16));
        w[63] = mwdma;
        w[64] = 3;
        w[65..69].fill(120);
        w[80] = 0x0070;
        // NOP and write cache; FLUSH, FLUSH EXT and 48-bit addresses.
        (w[82], w[83], w[84]) = (0x0020, 0x7400, 0x4000);
        let cache = if disk.write_through { 0 } else { 0x0020 };
        (w[85], w[86], w[87]) = (cache, 0x3400, 0x4000);
        w[88] = udma;
        w[93] = 0x6001;
        for (i, word) in w[100..104].iter_mut().enumerate() {
            *word = low(sectors >> (16 * i));
        }
        self.buffer = w.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.start_phase(Phase::DataIn { dma: false }, true);
    }
}
