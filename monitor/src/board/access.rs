//! Port and memory cycles of the processor.

use super::Board;
use super::wiring::{Slot, VGA_WINDOW};
use ring3_devices::bus::MmioDevice;
use ring3_devices::ide;
use ring3_devices::vga::{VRAM_SIZE, Vga};

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
        let now = self.clock.now_ns();
        for element in data.chunks_exact_mut(usize::from(size)) {
            let value = if stream && let Some(chip) = self.chips.at(slot) {
                chip.read(now, offset, size)
            } else {
                self.port_in(port, size)
            };
            element.copy_from_slice(&value.to_le_bytes()[..element.len()]);
        }
        if stream {
            self.after_cycle(slot, offset, false, now);
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
        let now = self.clock.now_ns();
        let vga = &mut self.chips.pci.functions.vga;
        if VGA_WINDOW.contains(&pa) {
            MmioDevice::read(vga, now, pa - VGA_WINDOW.start, buf);
        } else if let Some(offset) = framebuffer(vga, pa) {
            vga.read_vram(offset, buf);
        } else if let Some((chip, offset)) = self.chips.apic.at(pa) {
            chip.read(now, offset, buf);
            self.after_access();
        } else {
            buf.fill(0xff);
        }
    }

    /// Writes device memory at guest-physical `pa`; where nothing decodes it, it is ignored.
    pub fn mmio_write(&mut self, pa: u64, data: &[u8]) {
        let now = self.clock.now_ns();
        let vga = &mut self.chips.pci.functions.vga;
        if VGA_WINDOW.contains(&pa) {
            MmioDevice::write(vga, now, pa - VGA_WINDOW.start, data);
            self.after_video();
        } else if let Some(offset) = framebuffer(vga, pa) {
            vga.write_vram(offset, data);
        } else if let Some((chip, offset)) = self.chips.apic.at(pa) {
            chip.write(now, offset, data);
            self.after_access();
        }
    }

    fn chip_in(&mut self, port: u16, size: u8) -> u32 {
        let (slot, offset) = self.ports.find(port);
        let now = self.clock.now_ns();
        let Some(chip) = self.chips.at(slot) else {
            return open_bus(size);
        };
        let value = chip.read(now, offset, size);
        self.after_cycle(slot, offset, false, now);
        value
    }

    fn chip_out(&mut self, port: u16, size: u8, value: u32) {
        let (slot, offset) = self.ports.find(port);
        let now = self.clock.now_ns();
        let Some(chip) = self.chips.at(slot) else {
            return;
        };
        chip.write(now, offset, size, value);
        self.after_cycle(slot, offset, true, now);
    }

    /// What a cycle may have changed beside the chip itself.
    fn after_cycle(&mut self, slot: Slot, offset: u16, write: bool, now: u64) {
        self.serial_after_cycle(slot, offset, write, now);
        if write {
            self.run_bus_masters(slot);
        }
        self.after_access();
    }
}
