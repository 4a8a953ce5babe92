//! The 128 KiB window at A0000h: planes, latches, write modes, chain-4, odd/even and banks.
//!
//! IBM VGA Technical Reference, "Graphics Controller". Byte `p` of the four at `4 * offset` in
//! video memory belongs to plane `p`, so that the modes with one byte per pixel are linear.

use super::Vga;
use super::dispi::BANK;
use super::spec::{gc, misc, seq};

/// Each bit of a plane mask widened to a byte.
const fn spread(planes: u8) -> u32 {
    let mut wide = 0;
    let mut plane = 0;
    while plane < 4 {
        if planes & 1 << plane != 0 {
            wide |= 0xff << (8 * plane);
        }
        plane += 1;
    }
    wide
}

const fn all_planes(byte: u8) -> u32 {
    byte as u32 * 0x0101_0101
}

/// What a window address selects.
enum Target {
    /// A byte of video memory.
    Linear(usize),
    /// Planes of a mask, at an offset within each.
    Planes(usize, u8),
    /// Nothing.
    Unmapped,
}

impl Vga {
    fn target(&self, offset: usize) -> Target {
        if self.dispi.enabled() && self.dispi.bpp > 4 {
            return match offset {
                0..BANK => Target::Linear(usize::from(self.dispi.bank) * BANK + offset),
                _ => Target::Unmapped,
            };
        }
        if self.misc & misc::RAM_ENABLE == 0 {
            return Target::Unmapped;
        }
        let (base, len) = match self.gc[gc::MISC] >> 2 & 3 {
            0 => (0, 0x2_0000),
            1 => (0, 0x1_0000),
            2 => (0x1_0000, 0x8000),
            _ => (0x1_8000, 0x8000),
        };
        let Some(at) = offset.checked_sub(base).filter(|at| *at < len) else {
            return Target::Unmapped;
        };
        let mode = self.seq[seq::MEMORY_MODE];
        if mode & seq::CHAIN4 != 0 {
            // The two low address bits select the plane.
            Target::Planes(at >> 2, 1 << (at & 3))
        } else if mode & seq::ODD_EVEN_OFF == 0 {
            // The low address bit selects the even or the odd planes.
            Target::Planes(at >> 1, 0x5 << (at & 1))
        } else {
            let bank = if self.dispi.enabled() {
                usize::from(self.dispi.bank) * BANK
            } else {
                0
            };
            Target::Planes(bank + at, 0x0f)
        }
    }

    fn quad(&self, offset: usize) -> Option<usize> {
        let at = offset * 4;
        // VGA modes have 64 KiB per plane.
        let at = if self.dispi.enabled() {
            at
        } else {
            at & 0x3_ffff
        };
        (at + 4 <= self.vram.size()).then_some(at)
    }

    /// Reads a byte of the window.
    pub(super) fn read_window(&mut self, offset: usize) -> u8 {
        match self.target(offset) {
            Target::Unmapped => 0xff,
            Target::Linear(at) => {
                let mut byte = [0];
                self.vram.read(at, &mut byte);
                byte[0]
            }
            Target::Planes(offset, planes) => {
                let Some(at) = self.quad(offset) else {
                    return 0xff;
                };
                let bytes = self.quad_bytes(at);
                self.latch = u32::from_le_bytes(bytes);
                let selected = usize::from(self.gc[gc::READ_MAP] & 3);
                match planes {
                    0x5 => bytes[selected & 2],
                    0xa => bytes[selected & 2 | 1],
                    0xf if self.gc[gc::MODE] & 8 != 0 => {
                        let care = spread(self.gc[gc::DONT_CARE]);
                        let wrong = (self.latch ^ spread(self.gc[gc::COMPARE])) & care;
                        let [a, b, c, d] = wrong.to_le_bytes();
                        !(a | b | c | d)
                    }
                    0xf => bytes[selected],
                    single => bytes[single.trailing_zeros() as usize & 3],
                }
            }
        }
    }

    /// Writes a byte of the window.
    pub(super) fn write_window(&mut self, offset: usize, value: u8) {
        match self.target(offset) {
            Target::Unmapped => {}
            Target::Linear(at) => {
                self.changes += 1;
                self.vram.write(at, &[value]);
            }
            Target::Planes(offset, planes) => {
                let Some(at) = self.quad(offset) else { return };
                let mask = spread(planes & self.seq[seq::MAP_MASK]);
                let data = self.write_data(value);
                let old = u32::from_le_bytes(self.quad_bytes(at));
                let new = old & !mask | data & mask;
                if new != old {
                    self.changes += 1;
                    self.vram.write(at, &new.to_le_bytes());
                }
            }
        }
    }

    /// The graphics controller's data path: what the four planes receive for a byte.
    fn write_data(&self, value: u8) -> u32 {
        let rotated = value.rotate_right(u32::from(self.gc[gc::ROTATE] & 7));
        let set_reset = spread(self.gc[gc::SET_RESET]);
        let bit_mask = self.gc[gc::BIT_MASK];
        let (data, bit_mask) = match self.gc[gc::MODE] & 3 {
            0 => {
                let enable = spread(self.gc[gc::ENABLE_SET_RESET]);
                (all_planes(rotated) & !enable | set_reset & enable, bit_mask)
            }
            1 => return self.latch,
            2 => (spread(value & 0x0f), bit_mask),
            _ => (set_reset, rotated & bit_mask),
        };
        let data = match self.gc[gc::ROTATE] >> 3 & 3 {
            0 => data,
            1 => data & self.latch,
            2 => data | self.latch,
            _ => data ^ self.latch,
        };
        let mask = all_planes(bit_mask);
        data & mask | self.latch & !mask
    }
}
