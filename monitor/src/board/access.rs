//! Port and memory cycles of the processor.

use super::Board;
use super::wiring::{Slot, VGA_WINDOW};
use ring3_devices::bus::{MmioDevice, Nanos};
use ring3_devices::ide;
use ring3_devices::vga::{VRAM_SIZE, Vga};

/// The time that chips are given that do not look at it.
const UNTIMED: Nanos = 0;

/// The offset in the linear framebuffer that the guest has mapped at `pa`.
fn framebuffer(vga: &Vga, pa: u64) -> Option<u64> {
    pa.checked_sub(vga.framebuffer()?)
        .filter(|offset| *offset < VRAM_SIZE as u64)
}

/// All ones of `size` bytes.
fn open_bus(size: u8) -> u32 {
    match size {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}

impl Board {
    /// Reads a port; `size` is 1, 2 or 4 bytes. Where nothing answers, all ones; an access that
    /// spans chips reaches each by bytes.
    pub fn port_in(&mut self, port: u16, size: u8) -> u32 {
        let value = if self.ports.is_whole(port, size) {
            self.chip_in(port, size)
        } else {
            (0..u16::from(size)).fold(0, |word, lane| {
                word | (self.chip_in(port.wrapping_add(lane), 1) & 0xff) << (8 * lane)
            })
        };
        value & open_bus(size)
    }

    /// Reads a port once for each element of `size` bytes in `data`, as one repeated INS does.
    pub fn port_in_run(&mut self, port: u16, size: u8, data: &mut [u8]) {
        let (slot, offset) = self.ports.find(port);
        // Between the words of a disk nothing has to be looked at: its interrupt line may rise
        // with the next block, and stays high until the status is read.
        let stream = slot == Slot::Ide && ide::is_data_register(offset);
        let now = self.time_for(slot, false);
        for element in data.chunks_exact_mut(usize::from(size)) {
            let value = if stream && let Some(chip) = self.chips.at(slot) {
                chip.read(now, offset, size)
            } else {
                self.port_in(port, size)
            };
            element.copy_from_slice(&value.to_le_bytes()[..element.len()]);
        }
        if stream {
            self.after_cycle(slot, offset, false);
        }
    }

    /// Writes a port; `size` is 1, 2 or 4 bytes. Where nothing answers, it is ignored.
    pub fn port_out(&mut self, port: u16, size: u8, value: u32) {
        if self.ports.is_whole(port, size) {
            self.chip_out(port, size, value & open_bus(size));
        } else {
            for lane in 0..u16::from(size) {
                self.chip_out(port.wrapping_add(lane), 1, value >> (8 * lane) & 0xff);
            }
        }
    }

    /// Reads device memory at guest-physical `pa`; where nothing decodes it, 0xff.
    pub fn mmio_read(&mut self, pa: u64, buf: &mut [u8]) {
        let vga = &mut self.chips.pci.functions.vga;
        if VGA_WINDOW.contains(&pa) {
            MmioDevice::read(vga, UNTIMED, pa - VGA_WINDOW.start, buf);
        } else if let Some(offset) = framebuffer(vga, pa) {
            vga.read_vram(offset, buf);
        } else if let Some((chip, offset)) = self.chips.apic.at(pa) {
            chip.read(self.clock.now_ns(), offset, buf);
            self.after_change(Slot::Apics);
        } else {
            buf.fill(0xff);
        }
    }

    /// Writes device memory at guest-physical `pa`; where nothing decodes it, it is ignored.
    pub fn mmio_write(&mut self, pa: u64, data: &[u8]) {
        let vga = &mut self.chips.pci.functions.vga;
        if VGA_WINDOW.contains(&pa) {
            MmioDevice::write(vga, UNTIMED, pa - VGA_WINDOW.start, data);
            self.after_video();
        } else if let Some(offset) = framebuffer(vga, pa) {
            vga.write_vram(offset, data);
        } else if let Some((chip, offset)) = self.chips.apic.at(pa) {
            chip.write(self.clock.now_ns(), offset, data);
            self.after_change(Slot::Apics);
        }
    }

    fn chip_in(&mut self, port: u16, size: u8) -> u32 {
        let (slot, offset) = self.ports.find(port);
        let now = self.time_for(slot, false);
        let Some(chip) = self.chips.at(slot) else {
            return open_bus(size);
        };
        let value = chip.read(now, offset, size);
        self.after_cycle(slot, offset, false);
        value
    }

    fn chip_out(&mut self, port: u16, size: u8, value: u32) {
        let (slot, offset) = self.ports.find(port);
        let now = self.time_for(slot, true);
        let Some(chip) = self.chips.at(slot) else {
            return;
        };
        chip.write(now, offset, size, value);
        self.after_cycle(slot, offset, true);
    }

    /// The time, if the chip behind `slot` looks at it: reading the clock can be the greater part
    /// of a cycle.
    fn time_for(&self, slot: Slot, write: bool) -> Nanos {
        if slot.looks_at_time(write) {
            self.clock.now_ns()
        } else {
            UNTIMED
        }
    }

    /// Follows what a cycle may have changed.
    fn after_cycle(&mut self, slot: Slot, offset: u16, write: bool) {
        if write {
            self.output_written(slot, offset);
            self.run_bus_masters(slot);
            match slot {
                // Where chips answer, and how interrupts are routed.
                Slot::PciConfig => return self.after_access(),
                Slot::Vga => self.after_video(),
                Slot::Keyboard | Slot::Port92 | Slot::Apm | Slot::Pm | Slot::DebugExit => {
                    self.take_requests();
                }
                _ => {}
            }
        }
        self.after_change(slot);
    }
}
