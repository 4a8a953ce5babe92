//! The Bochs display interface ("VBE extensions"): modes beyond VGA with a linear framebuffer.
//!
//! Bochs VBE display API, version B0C5h.

use super::spec::dispi as d;

/// Largest mode.
pub const MAX_WIDTH: u16 = 2560;
/// Largest mode.
pub const MAX_HEIGHT: u16 = 1600;
/// Bytes of a bank in the window at A0000h.
pub const BANK: usize = 0x1_0000;

/// What a linear mode shows of video memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// The byte of the first pixel.
    pub start: usize,
    /// Bytes from one line to the next.
    pub pitch: usize,
    /// Lines.
    pub height: usize,
}

/// The interface's registers.
#[derive(Clone, Debug)]
pub struct Dispi {
    index: u16,
    id: u16,
    pub xres: u16,
    pub yres: u16,
    pub bpp: u16,
    enable: u16,
    pub bank: u16,
    pub virt_width: u16,
    virt_height: u16,
    pub x_offset: u16,
    pub y_offset: u16,
    /// Bytes of video memory.
    memory: usize,
}

impl Dispi {
    pub fn new(memory: usize) -> Self {
        Self {
            index: 0,
            id: d::ID5,
            xres: 640,
            yres: 480,
            bpp: 8,
            enable: 0,
            bank: 0,
            virt_width: 640,
            virt_height: 480,
            x_offset: 0,
            y_offset: 0,
            memory,
        }
    }

    pub fn enabled(&self) -> bool {
        self.enable & d::ENABLED != 0
    }

    pub fn dac_8bit(&self) -> bool {
        self.enable & d::DAC_8BIT != 0
    }

    /// Bytes per line; 4 bits per pixel are one bit in each of four planes, whose bytes are
    /// interleaved in video memory.
    pub fn pitch(&self) -> usize {
        match self.bpp {
            4 => usize::from(self.virt_width) / 2,
            bpp => usize::from(self.virt_width) * usize::from(bpp.div_ceil(8)),
        }
    }

    /// The first byte shown.
    pub fn start(&self) -> usize {
        let x = usize::from(self.x_offset);
        let within = if self.bpp == 4 {
            (x / 2) & !3
        } else {
            x * usize::from(self.bpp.div_ceil(8))
        };
        usize::from(self.y_offset) * self.pitch() + within
    }

    pub fn read_index(&self) -> u16 {
        self.index
    }

    pub fn write_index(&mut self, value: u16) {
        self.index = value;
    }

    pub fn read(&self) -> u16 {
        let caps = self.enable & d::GET_CAPS != 0;
        match self.index {
            d::ID => self.id,
            d::XRES if caps => MAX_WIDTH,
            d::YRES if caps => MAX_HEIGHT,
            d::BPP if caps => 32,
            d::XRES => self.xres,
            d::YRES => self.yres,
            d::BPP => self.bpp,
            d::ENABLE => self.enable,
            d::BANK => self.bank,
            d::VIRT_WIDTH => self.virt_width,
            d::VIRT_HEIGHT => self.virt_height,
            d::X_OFFSET => self.x_offset,
            d::Y_OFFSET => self.y_offset,
            d::MEMORY => (self.memory / BANK) as u16,
            _ => 0,
        }
    }

    /// Lines that fit into video memory at the present width.
    fn lines(&self) -> u16 {
        self.memory
            .checked_div(self.pitch())
            .map_or(0, |lines| lines.min(0xffff) as u16)
    }

    /// Writes the selected register; true if video memory is to be cleared.
    pub fn write(&mut self, value: u16) -> bool {
        match self.index {
            d::ID if (d::ID0..=d::ID5).contains(&value) => self.id = value,
            // Geometry is latched by switching on; while on, it cannot change.
            d::XRES if !self.enabled() && value <= MAX_WIDTH && value.is_multiple_of(8) => {
                self.xres = value;
            }
            d::YRES if !self.enabled() && value <= MAX_HEIGHT => self.yres = value,
            d::BPP if !self.enabled() && matches!(value, 0 | 4 | 8 | 15 | 16 | 24 | 32) => {
                self.bpp = if value == 0 { 8 } else { value };
            }
            d::ENABLE => return self.write_enable(value),
            d::BANK if usize::from(value) < self.memory / BANK => self.bank = value,
            d::VIRT_WIDTH if value >= self.xres => {
                let old = std::mem::replace(&mut self.virt_width, value);
                if self.lines() < self.yres {
                    self.virt_width = old;
                }
                self.virt_height = self.lines();
            }
            d::X_OFFSET if value <= self.virt_width.saturating_sub(self.xres) => {
                self.x_offset = value;
            }
            d::Y_OFFSET if value <= self.lines().saturating_sub(self.yres) => self.y_offset = value,
            _ => {}
        }
        false
    }

    fn write_enable(&mut self, value: u16) -> bool {
        let switched_on = value & d::ENABLED != 0 && !self.enabled();
        let off = value & d::ENABLED == 0;
        self.enable = value & 0xe3;
        if off {
            self.bank = 0;
        }
        if !switched_on {
            return false;
        }
        self.virt_width = self.xres;
        self.virt_height = self.lines();
        (self.x_offset, self.y_offset, self.bank) = (0, 0, 0);
        if self.xres == 0 || self.yres == 0 || self.lines() < self.yres {
            self.enable &= !d::ENABLED;
            return false;
        }
        value & d::NO_CLEAR == 0
    }
}
