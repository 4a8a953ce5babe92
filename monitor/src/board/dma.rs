//! Memory as the board's bus masters see it, and when they move data.

use super::wiring::Slot;
use super::{Board, Effects};
use crate::memory::{GuestRam, attr};
use ring3_devices::bus::{DmaError, DmaMemory};
use ring3_translator::addr::PAGE_SIZE;

/// RAM and video memory, without the windows of devices.
pub(super) struct BusMemory<'a> {
    ram: &'a GuestRam,
    effects: &'a mut Effects,
}

impl BusMemory<'_> {
    fn check(&self, address: u64, len: usize) -> Result<(), DmaError> {
        let region = self.ram.region(address).ok_or(DmaError { address })?;
        let end = address.checked_add(len as u64);
        end.filter(|end| *end <= region.end)
            .map(drop)
            .ok_or(DmaError { address })
    }
}

impl DmaMemory for BusMemory<'_> {
    fn read(&mut self, address: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        self.check(address, buf.len())?;
        self.ram.read(address, buf);
        Ok(())
    }

    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.check(address, data.len())?;
        let (mut at, mut rest) = (address, data);
        while !rest.is_empty() {
            let room = (PAGE_SIZE - (at & (PAGE_SIZE - 1))) as usize;
            let (piece, later) = rest.split_at(room.min(rest.len()));
            self.ram.note_write(at);
            self.ram.store(at, piece);
            let page = at & !(PAGE_SIZE - 1);
            if self.ram.attributes(at) & attr::NOTIFIED != 0
                && self.effects.written.last() != Some(&page)
            {
                self.effects.written.push(page);
            }
            at += piece.len() as u64;
            rest = later;
        }
        Ok(())
    }
}

impl Board {
    /// Lets the bus masters that a write to `slot` may have started move their data.
    pub(super) fn run_bus_masters(&mut self, slot: Slot) {
        let Some(ram) = &self.ram else { return };
        let mut memory = BusMemory {
            ram,
            effects: &mut self.effects,
        };
        match slot {
            // A configuration write may grant the bus.
            Slot::Ide | Slot::PciConfig => {
                let ide = &mut self.chips.pci.functions.ide;
                if ide.dma_ready() {
                    ide.run_dma(&mut memory);
                }
            }
            Slot::FwCfg if self.chips.fw_cfg.dma_ready() => {
                self.chips.fw_cfg.run_dma(&mut memory);
            }
            Slot::Floppy | Slot::Dma if self.chips.floppy.dma_ready() => {
                self.chips.floppy.run_dma(&mut self.chips.dma, &mut memory);
            }
            _ => {}
        }
    }
}
