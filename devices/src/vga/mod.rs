//! A VGA with the Bochs display interface.
//!
//! IBM PS/2 Video Subsystem Technical Reference (VGA); Bochs VBE display API (B0C5h). Retraces
//! follow the VM clock at 70 Hz whatever the CRTC says. The light pen and the vertical retrace
//! interrupt are left out.

mod dispi;
mod memory;
mod render;
mod spec;
mod text;
mod video;

pub use dispi::{Linear, MAX_HEIGHT, MAX_WIDTH};
pub use render::Frame;
pub use text::{Cell, TextScreen};
pub use video::VideoMemory;

use crate::bus::{MmioDevice, Nanos, OPEN_BUS, PortDevice};
use crate::pci::{Bar, ConfigSpace, Identity, PciFunction};
use dispi::Dispi;
use spec::{attr, crtc, misc, port};

/// Port layout of [`Vga`]: offsets below 30h are from port 3B0h.
pub mod offset {
    /// Ports 1CEh (index) and 1CFh (data), 16 bits each; 1D0h is another name of the data port.
    pub const DISPI: u16 = 0x100;
}

/// Bytes of video memory: enough for 2560x1600 with 32 bits.
pub const VRAM_SIZE: usize = 16 << 20;

/// Nanoseconds of one frame and of one scan line (70 Hz, 449 lines).
const FRAME: Nanos = 14_268_000;
const LINE: Nanos = FRAME / 449;

/// The display adapter. Its window at A0000h is the [`MmioDevice`]; the linear framebuffer is
/// reached by [`Vga::read_vram`] and [`Vga::write_vram`].
pub struct Vga {
    config: ConfigSpace,
    vram: Box<dyn VideoMemory>,
    latch: u32,
    misc: u8,
    feature: u8,
    seq_index: u8,
    seq: [u8; 8],
    gc_index: u8,
    gc: [u8; 16],
    crtc_index: u8,
    crtc: [u8; 32],
    attr_index: u8,
    attr_data_next: bool,
    attr: [u8; 32],
    dac: [u8; 768],
    dac_mask: u8,
    dac_read: usize,
    dac_write: usize,
    dac_reading: bool,
    dispi: Dispi,
    changes: u64,
}

impl Default for Vga {
    fn default() -> Self {
        Self::new()
    }
}

impl Vga {
    /// An adapter after power-on, without a mode.
    #[must_use]
    pub fn new() -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x1234,
            device: 0x1111,
            revision: 2,
            class: 0x03_00_00,
        });
        config.set_bar(
            0,
            Bar::Memory {
                size: VRAM_SIZE as u32,
                prefetchable: true,
            },
        );
        Self {
            config,
            vram: Box::new(vec![0; VRAM_SIZE]),
            latch: 0,
            misc: misc::COLOUR,
            feature: 0,
            seq_index: 0,
            seq: [0; 8],
            gc_index: 0,
            gc: [0; 16],
            crtc_index: 0,
            crtc: [0; 32],
            attr_index: 0,
            attr_data_next: false,
            attr: [0; 32],
            dac: [0; 768],
            dac_mask: 0xff,
            dac_read: 0,
            dac_write: 0,
            dac_reading: false,
            dispi: Dispi::new(VRAM_SIZE),
            changes: 0,
        }
    }

    /// Sets 80x25 colour text (mode 3) with the standard palette, as a video BIOS leaves it, for
    /// boards that start a kernel without firmware; [`Self::load_font`] gives it characters.
    pub fn set_text_mode(&mut self) {
        self.misc = 0x67;
        self.seq = [3, 0, 3, 0, 2, 0, 0, 0];
        self.gc = [0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff, 0, 0, 0, 0, 0, 0, 0];
        self.crtc[..0x19].copy_from_slice(&[
            0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0,
            0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
        ]);
        for i in 0..16u8 {
            self.attr[usize::from(i)] = match i {
                6 => 0x14,
                8.. => 0x30 | i,
                _ => i,
            };
        }
        self.attr[attr::MODE..attr::MODE + 5].copy_from_slice(&[0x0c, 0, 0x0f, 8, 0]);
        self.attr_index = 0x20;
        for colour in 0..64usize {
            // Bits 5-3 are the dim, bits 2-0 the strong components, red first.
            for component in 0..3 {
                let strong = colour >> (2 - component) & 1;
                let dim = colour >> (5 - component) & 1;
                self.dac[colour * 3 + component] = (strong * 42 + dim * 21) as u8;
            }
        }
        self.vram.write(0, &[b' ', 7, 0, 0].repeat(0x1_0000));
        self.changes += 1;
    }

    /// Exchanges the video memory, of [`VRAM_SIZE`] bytes; what the old one held is gone.
    pub fn set_memory(&mut self, memory: Box<dyn VideoMemory>) {
        self.vram = memory;
        self.changes += 1;
    }

    /// Counts what changes the picture, but for writes to video memory that do not pass through
    /// the adapter: equal counts, equal pictures.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The part of video memory that the screen shows, in modes of the Bochs interface.
    #[must_use]
    pub fn linear(&self) -> Option<Linear> {
        self.dispi.enabled().then(|| Linear {
            start: self.dispi.start(),
            pitch: self.dispi.pitch(),
            height: self.dispi.yres.into(),
        })
    }

    /// The address that the guest has given the linear framebuffer.
    #[must_use]
    pub fn framebuffer(&self) -> Option<u64> {
        self.config.mapping(0).map(|(base, _)| base)
    }

    /// Reads the linear framebuffer; bytes past its end are ones.
    pub fn read_vram(&self, offset: u64, data: &mut [u8]) {
        self.vram
            .read(usize::try_from(offset).unwrap_or(usize::MAX), data);
    }

    /// Writes the linear framebuffer; bytes past its end are dropped.
    pub fn write_vram(&mut self, offset: u64, data: &[u8]) {
        self.changes += 1;
        self.vram
            .write(usize::try_from(offset).unwrap_or(usize::MAX), data);
    }

    /// The four planes' bytes at `at`, a multiple of four.
    fn quad_bytes(&self, at: usize) -> [u8; 4] {
        let mut quad = [0; 4];
        self.vram.read(at, &mut quad);
        quad
    }

    fn clear_memory(&mut self) {
        let zeros = [0; 4096];
        for at in (0..self.vram.size()).step_by(zeros.len()) {
            self.vram.write(at, &zeros);
        }
    }

    fn palette_enabled(&self) -> bool {
        self.attr_index & 0x20 != 0
    }

    /// Input status 1: display disabled and vertical retrace.
    fn status1(&mut self, now: Nanos) -> u8 {
        self.attr_data_next = false;
        let in_frame = now % FRAME;
        let vertical = in_frame / LINE >= 400;
        let retrace = (412..414).contains(&(in_frame / LINE));
        let horizontal = in_frame % LINE > LINE * 4 / 5;
        u8::from(vertical || horizontal) | u8::from(retrace) << 3
    }

    fn read_port(&mut self, now: Nanos, at: u16) -> u8 {
        let colour = self.misc & misc::COLOUR != 0;
        match at {
            port::MONO_CRTC_INDEX | port::MONO_CRTC_DATA | port::MONO_STATUS if colour => OPEN_BUS,
            port::CRTC_INDEX | port::CRTC_DATA | port::STATUS if !colour => OPEN_BUS,
            port::MONO_CRTC_INDEX | port::CRTC_INDEX => self.crtc_index,
            port::MONO_CRTC_DATA | port::CRTC_DATA => self
                .crtc
                .get(usize::from(self.crtc_index))
                .copied()
                .unwrap_or(0),
            port::MONO_STATUS | port::STATUS => self.status1(now),
            port::ATTRIBUTE => self.attr_index,
            port::ATTRIBUTE_READ => self.attr[usize::from(self.attr_index & 0x1f)],
            // Input status 0: the switch sense of a colour monitor.
            port::MISC => 0x10,
            port::SEQUENCER_INDEX => self.seq_index,
            port::SEQUENCER_DATA => self.seq[usize::from(self.seq_index & 7)],
            port::DAC_MASK => self.dac_mask,
            port::DAC_READ => {
                if self.dac_reading {
                    3
                } else {
                    0
                }
            }
            port::DAC_WRITE => (self.dac_write / 3) as u8,
            port::DAC_DATA => {
                let level = self.dac[self.dac_read];
                self.dac_read = (self.dac_read + 1) % 768;
                level
            }
            port::FEATURE => self.feature,
            port::MISC_READ => self.misc,
            port::GRAPHICS_INDEX => self.gc_index,
            port::GRAPHICS_DATA => self.gc[usize::from(self.gc_index & 15)],
            _ => OPEN_BUS,
        }
    }

    fn write_port(&mut self, at: u16, value: u8) {
        let colour = self.misc & misc::COLOUR != 0;
        // Indices, and the registers that only steer the processor's writes, show nothing.
        let shows = match at {
            port::ATTRIBUTE | port::MISC | port::DAC_MASK | port::DAC_DATA => true,
            port::MONO_CRTC_DATA | port::CRTC_DATA => true,
            port::SEQUENCER_DATA => matches!(self.seq_index & 7, 0 | 1 | 3 | 4),
            port::GRAPHICS_DATA => matches!(self.gc_index & 15, 5 | 6),
            _ => false,
        };
        self.changes += u64::from(shows);
        match at {
            port::MONO_CRTC_INDEX..=port::MONO_STATUS if colour => {}
            port::CRTC_INDEX..=port::STATUS if !colour => {}
            port::MONO_CRTC_INDEX | port::CRTC_INDEX => self.crtc_index = value,
            port::MONO_CRTC_DATA | port::CRTC_DATA => self.write_crtc(value),
            port::MONO_STATUS | port::STATUS => self.feature = value,
            port::ATTRIBUTE => self.write_attribute(value),
            port::MISC => self.misc = value,
            port::SEQUENCER_INDEX => self.seq_index = value,
            port::SEQUENCER_DATA => self.write_sequencer(value),
            port::DAC_MASK => self.dac_mask = value,
            port::DAC_READ => {
                self.dac_read = usize::from(value) * 3;
                self.dac_reading = true;
            }
            port::DAC_WRITE => {
                self.dac_write = usize::from(value) * 3;
                self.dac_reading = false;
            }
            port::DAC_DATA => {
                self.dac[self.dac_write] = if self.dispi.dac_8bit() {
                    value
                } else {
                    value & 0x3f
                };
                self.dac_write = (self.dac_write + 1) % 768;
            }
            port::GRAPHICS_INDEX => self.gc_index = value,
            port::GRAPHICS_DATA => self.gc[usize::from(self.gc_index & 15)] = value,
            _ => {}
        }
    }

    fn write_sequencer(&mut self, value: u8) {
        let index = usize::from(self.seq_index & 7);
        const MASKS: [u8; 8] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0];
        self.seq[index] = value & MASKS[index];
    }

    fn write_crtc(&mut self, value: u8) {
        let index = usize::from(self.crtc_index);
        let protected = self.crtc[crtc::V_RETRACE_END] & 0x80 != 0;
        match index {
            // Protection leaves only the line compare bit of the overflow register.
            crtc::OVERFLOW if protected => {
                self.crtc[index] = self.crtc[index] & !0x10 | value & 0x10;
            }
            0..8 if protected => {}
            0..0x19 => self.crtc[index] = value,
            _ => {}
        }
    }

    fn write_attribute(&mut self, value: u8) {
        if self.attr_data_next {
            let index = usize::from(self.attr_index & 0x1f);
            // The palette is writable only while the screen does not use it (PAS clear).
            if index >= 16 || !self.palette_enabled() {
                self.attr[index] = value;
            }
        } else {
            self.attr_index = value & 0x3f;
        }
        self.attr_data_next = !self.attr_data_next;
    }
}

impl PortDevice for Vga {
    fn read(&mut self, now: Nanos, offset: u16, size: u8) -> u32 {
        match offset {
            offset::DISPI => self.dispi.read_index().into(),
            0x101 | 0x102 => self.dispi.read().into(),
            _ => (0..u16::from(size.min(4))).fold(0, |word, lane| {
                word | u32::from(self.read_port(now, offset.wrapping_add(lane))) << (8 * lane)
            }),
        }
    }

    fn write(&mut self, _now: Nanos, offset: u16, size: u8, value: u32) {
        match offset {
            offset::DISPI => self.dispi.write_index(value as u16),
            0x101 | 0x102 => {
                self.changes += 1;
                if self.dispi.write(value as u16) {
                    self.clear_memory();
                }
            }
            _ => {
                for lane in 0..u16::from(size.min(4)) {
                    self.write_port(offset.wrapping_add(lane), (value >> (8 * lane)) as u8);
                }
            }
        }
    }
}

impl MmioDevice for Vga {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = self.read_window((offset as usize).wrapping_add(i) & 0x1_ffff);
        }
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        for (i, byte) in data.iter().enumerate() {
            self.write_window((offset as usize).wrapping_add(i) & 0x1_ffff, *byte);
        }
    }
}

impl PciFunction for Vga {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}

#[cfg(test)]
mod render_tests;
#[cfg(test)]
mod tests;
