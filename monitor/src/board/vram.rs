//! The display adapter's memory as part of the guest's, so that the guest can draw into it directly.

use crate::memory::GuestRam;
use ring3_devices::vga::VideoMemory;
use std::sync::Arc;

/// See the module's text.
pub(super) struct Vram {
    ram: Arc<GuestRam>,
}

impl Vram {
    pub fn new(ram: Arc<GuestRam>) -> Self {
        Self { ram }
    }
}

impl VideoMemory for Vram {
    fn size(&self) -> usize {
        self.ram.video_size() as usize
    }

    fn read(&self, at: usize, buf: &mut [u8]) {
        self.ram.read_video(at as u64, buf);
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        self.ram.write_video(at as u64, data);
    }
}
