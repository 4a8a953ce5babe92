//! The PIIX3's IDE controller (function 1): two channels with two devices each, and bus master
//! DMA.
//!
//! ATA/ATAPI-6 (T13/1410D); Intel PIIX3 datasheet (290550), 2.3 and 2.7. Commands run at once, so
//! a device is never seen busy. DMA needs guest memory, which port cycles do not carry: after each
//! write the board calls [`Ide::run_dma`] if [`Ide::dma_ready`]. Timing registers are storage; the
//! overlap and queuing features, SMART and the security set are left out.

mod ata;
mod atapi;
mod bus_master;
mod drive;
mod spec;

use crate::block::BlockBackend;
use crate::bus::{DmaMemory, Nanos, OPEN_BUS, PortDevice};
use crate::pci::{Bar, ConfigSpace, Identity, PciFunction};
use bus_master::BusMaster;
use drive::{Drive, Kind, Phase};
use spec::{control, device, status};

/// Port layout of [`Ide`].
pub mod offset {
    /// Command block of the primary channel (1F0h-1F7h).
    pub const PRIMARY: u16 = 0x00;
    /// Device control and alternate status of the primary channel (3F6h).
    pub const PRIMARY_CONTROL: u16 = 0x08;
    /// Command block of the secondary channel (170h-177h).
    pub const SECONDARY: u16 = 0x10;
    /// Device control and alternate status of the secondary channel (376h).
    pub const SECONDARY_CONTROL: u16 = 0x18;
    /// Bus master registers (16 ports at the base address in BAR 4).
    pub const BUS_MASTER: u16 = 0x20;
}

/// Whether a read of this offset moves data and, until the status is read, lowers no output.
#[must_use]
pub fn is_data_register(offset: u16) -> bool {
    matches!(offset, offset::PRIMARY | offset::SECONDARY)
}

/// The base address register of the bus master ports.
pub const BUS_MASTER_BAR: usize = 4;

/// Why a medium could not be exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediumError {
    /// No CD-ROM drive is attached there.
    #[error("no CD-ROM drive at this position")]
    NoDrive,
}

/// One cable.
#[derive(Default)]
struct Channel {
    drives: [Option<Drive>; 2],
    selected: usize,
    control: u8,
    bus_master: BusMaster,
    /// The interrupt as last seen by the bus master's latch.
    was_irq: bool,
}

impl Channel {
    fn drive(&mut self) -> Option<&mut Drive> {
        self.drives[self.selected].as_mut()
    }

    fn irq(&self) -> bool {
        self.control & control::NIEN == 0
            && self.drives[self.selected]
                .as_ref()
                .is_some_and(|drive| drive.irq)
    }

    /// The one place where the interrupt reaches the bus master's latch.
    fn update(&mut self) {
        let irq = self.irq();
        if irq && !self.was_irq {
            self.bus_master.interrupt();
        }
        self.was_irq = irq;
    }

    fn dma_ready(&self) -> bool {
        let waits = |drive: &Drive| {
            matches!(
                drive.phase,
                Phase::DataIn { dma: true } | Phase::DataOut { dma: true }
            )
        };
        self.bus_master.active() && self.drives[self.selected].as_ref().is_some_and(waits)
    }

    fn read(&mut self, register: u16, size: u8) -> u32 {
        let high_order = self.control & control::HOB != 0;
        let empty = self.drives.iter().all(Option::is_none);
        let Some(drive) = self.drive() else {
            // The cable's pull-down makes an absent device look not busy; an unused cable floats.
            return if empty && register != 7 {
                OPEN_BUS.into()
            } else {
                0
            };
        };
        let pick = |f: drive::Fifo2| if high_order { f.previous } else { f.current };
        let value = match register {
            0 => return drive.read_data(size),
            1 => drive.regs.error,
            2 => pick(drive.regs.count),
            3..=5 => pick(drive.regs.lba[usize::from(register - 3)]),
            6 => drive.regs.device | device::FIXED,
            _ => {
                drive.irq = false;
                drive.regs.status
            }
        };
        value.into()
    }

    fn write(&mut self, register: u16, size: u8, value: u32) {
        let byte = value as u8;
        self.control &= !control::HOB;
        match register {
            0 => {
                if let Some(drive) = self.drive() {
                    drive.write_data(size, value);
                }
            }
            6 => {
                self.selected = usize::from(byte & device::DEV != 0);
                for drive in self.drives.iter_mut().flatten() {
                    drive.regs.device = byte;
                }
            }
            7 if byte == spec::command::DIAGNOSTIC => {
                // Both devices run it and device 0 answers.
                self.selected = 0;
                for drive in self.drives.iter_mut().flatten() {
                    drive.regs.device = 0;
                    drive.command(byte);
                }
            }
            7 => {
                if let Some(drive) = self.drive() {
                    drive.command(byte);
                }
            }
            _ => {
                // Both devices see the parameters.
                for drive in self.drives.iter_mut().flatten() {
                    if drive.regs.status & (status::BSY | status::DRQ) != 0 {
                        continue;
                    }
                    match register {
                        1 => drive.regs.features.write(byte),
                        2 => drive.regs.count.write(byte),
                        _ => drive.regs.lba[usize::from(register - 3)].write(byte),
                    }
                }
            }
        }
    }

    fn write_control(&mut self, value: u8) {
        if value & control::SRST != 0 {
            self.selected = 0;
            for drive in self.drives.iter_mut().flatten() {
                drive.reset();
                drive.regs.device = 0;
                drive.regs.status = status::BSY;
            }
        } else if self.control & control::SRST != 0 {
            self.drives.iter_mut().flatten().for_each(Drive::reset);
        }
        self.control = value & (control::NIEN | control::SRST | control::HOB);
    }
}

/// The controller.
pub struct Ide {
    config: ConfigSpace,
    channels: [Channel; 2],
}

impl Default for Ide {
    fn default() -> Self {
        Self::new()
    }
}

impl Ide {
    /// A controller without drives, in compatibility mode.
    #[must_use]
    pub fn new() -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x7010,
            revision: 0,
            class: 0x01_01_80,
        });
        config.set_u16(crate::pci::config::reg::STATUS, 0x0280);
        config.set_bar(BUS_MASTER_BAR, Bar::Io { size: 16 });
        // IDETIM of both channels: decoding enabled, timing bits writable.
        config.allow(0x40, &[0xff, 0x7f, 0xff, 0x7f, 0xff]);
        config.set_u16(0x40, 0x8000);
        config.set_u16(0x42, 0x8000);
        Self {
            config,
            channels: Default::default(),
        }
    }

    fn slot(&mut self, channel: usize, unit: usize) -> &mut Option<Drive> {
        &mut self.channels[channel & 1].drives[unit & 1]
    }

    /// Attaches a disk as unit 0 or 1 of channel 0 or 1, in place of what was there.
    pub fn attach_disk(&mut self, channel: usize, unit: usize, image: Box<dyn BlockBackend>) {
        *self.slot(channel, unit) = Some(Drive::disk(image));
    }

    /// Attaches a CD-ROM drive as unit 0 or 1 of channel 0 or 1, in place of what was there.
    pub fn attach_cd_rom(
        &mut self,
        channel: usize,
        unit: usize,
        medium: Option<Box<dyn BlockBackend>>,
    ) {
        *self.slot(channel, unit) = Some(Drive::cd_rom(medium));
    }

    /// Exchanges or removes the medium of a CD-ROM drive.
    /// # Errors
    /// [`MediumError::NoDrive`].
    pub fn set_medium(
        &mut self,
        channel: usize,
        unit: usize,
        medium: Option<Box<dyn BlockBackend>>,
    ) -> Result<(), MediumError> {
        match self.slot(channel, unit) {
            Some(Drive {
                kind: Kind::CdRom(cd),
                ..
            }) => {
                cd.set_medium(medium);
                Ok(())
            }
            _ => Err(MediumError::NoDrive),
        }
    }

    /// Whether a CD-ROM drive there holds a medium; the guest can eject it.
    #[must_use]
    pub fn has_medium(&self, channel: usize, unit: usize) -> bool {
        match &self.channels[channel & 1].drives[unit & 1] {
            Some(Drive {
                kind: Kind::CdRom(cd),
                ..
            }) => cd.has_medium(),
            _ => false,
        }
    }

    /// The interrupt of a channel (IRQ 14 and 15).
    #[must_use]
    pub fn irq(&self, channel: usize) -> bool {
        self.channels[channel & 1].irq()
    }

    /// Whether a transfer waits for [`Ide::run_dma`].
    #[must_use]
    pub fn dma_ready(&self) -> bool {
        self.config.bus_master() && self.channels.iter().any(Channel::dma_ready)
    }

    /// Moves the data of waiting DMA commands.
    pub fn run_dma(&mut self, memory: &mut dyn DmaMemory) {
        if !self.config.bus_master() {
            return;
        }
        for channel in self
            .channels
            .iter_mut()
            .filter(|channel| channel.dma_ready())
        {
            if let Some(drive) = channel.drives[channel.selected].as_mut() {
                channel.bus_master.run(drive, memory);
            }
            channel.update();
        }
    }

    /// Moves a run of words from the data register at once, as `rep insw` reads them; what the
    /// device does not offer is filled with zeros.
    pub fn read_data(&mut self, channel: usize, words: &mut [[u8; 2]]) {
        let channel = &mut self.channels[channel & 1];
        for word in words {
            *word = (channel.read(0, 2) as u16).to_le_bytes();
        }
        channel.update();
    }
}

impl PortDevice for Ide {
    fn read(&mut self, _now: Nanos, offset: u16, size: u8) -> u32 {
        let lanes = |read: &mut dyn FnMut(u16) -> u8| {
            (0..u16::from(size.min(4))).fold(0, |word, lane| {
                word | u32::from(read(offset + lane)) << (8 * lane)
            })
        };
        if offset >= offset::BUS_MASTER {
            return lanes(&mut |at| match at - offset::BUS_MASTER {
                at @ 0..16 => self.channels[usize::from(at / 8)].bus_master.read(at % 8),
                _ => OPEN_BUS,
            });
        }
        let channel = &mut self.channels[usize::from(offset >> 4 & 1)];
        let value = match offset & 0x0f {
            0 => channel.read(0, size),
            register @ 1..8 => channel.read(register, 1),
            8 => match channel.drive() {
                // Alternate status does not acknowledge the interrupt.
                Some(drive) => drive.regs.status.into(),
                None => 0,
            },
            _ => OPEN_BUS.into(),
        };
        channel.update();
        value
    }

    fn write(&mut self, _now: Nanos, offset: u16, size: u8, value: u32) {
        if offset >= offset::BUS_MASTER {
            for lane in 0..u16::from(size.min(4)) {
                if let at @ 0..16 = offset - offset::BUS_MASTER + lane {
                    let byte = (value >> (8 * lane)) as u8;
                    self.channels[usize::from(at / 8)]
                        .bus_master
                        .write(at % 8, byte);
                }
            }
            return;
        }
        let channel = &mut self.channels[usize::from(offset >> 4 & 1)];
        match offset & 0x0f {
            register @ 0..8 => channel.write(register, size, value),
            8 => channel.write_control(value as u8),
            _ => {}
        }
        channel.update();
    }
}

impl PciFunction for Ide {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}

#[cfg(test)]
mod lba48_tests;
#[cfg(test)]
mod tests;
