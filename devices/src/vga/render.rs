//! The picture: text, planar, CGA, 256-colour and linear modes to RGB.
//!
//! IBM VGA Technical Reference, "CRT Controller Registers" and "Attribute Controller Registers". The
//! picture has a pixel for each one that a mode has: the lines and dots that the hardware repeats
//! to fill the screen are left out, except that text of 40 columns is as wide as that of 80.
//! Blinking characters and the cursor are shown in their visible phase; the border is not shown.

use super::Vga;
use super::spec::{attr, crtc, gc, seq};

/// A picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Pixels per line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// `width * height` pixels as 0x00RRGGBB.
    pub pixels: Vec<u32>,
}

/// What is shown on a scan line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// The address of its first unit: four bytes, one in each plane.
    pub address: usize,
    /// The line within the row.
    pub row_scan: usize,
    /// The horizontal pixel panning register, if it applies.
    pub panning: Option<u8>,
}

/// Scan lines and columns that no VGA timing exceeds; keeps nonsense geometry bounded.
const MAX_VGA: usize = 2048;

impl Vga {
    /// Renders the picture as it is shown now.
    #[must_use]
    pub fn render(&self) -> Frame {
        if self.dispi.enabled() {
            return self.render_linear();
        }
        let mut frame = if self.gc[gc::MISC] & 1 != 0 {
            match self.gc[gc::MODE] >> 5 & 3 {
                0 => self.render_planar(),
                1 => self.render_cga(),
                _ => self.render_256(),
            }
        } else {
            self.render_text()
        };
        // PAS clear or screen off: black.
        if !self.palette_enabled() || self.seq[seq::CLOCKING] & seq::SCREEN_OFF != 0 {
            frame.pixels.fill(0);
        }
        frame
    }

    /// A DAC entry as RGB.
    fn dac_rgb(&self, index: u8) -> u32 {
        let entry = usize::from(index & self.dac_mask) * 3;
        let wide = self.dispi.enabled() && self.dispi.dac_8bit();
        self.dac[entry..entry + 3].iter().fold(0, |rgb, level| {
            let level = if wide {
                *level
            } else {
                (level & 0x3f) << 2 | level >> 4 & 3
            };
            rgb << 8 | u32::from(level)
        })
    }

    /// The colour of a four-bit attribute.
    fn attribute_rgb(&self, pixel: u8) -> u32 {
        let pixel = pixel & self.attr[attr::PLANE_ENABLE] & 0x0f;
        let select = self.attr[attr::COLOUR_SELECT];
        let palette = self.attr[usize::from(pixel)];
        let index = if self.attr[attr::MODE] & attr::P54S != 0 {
            palette & 0x0f | select << 4
        } else {
            palette & 0x3f | (select & 0x0c) << 4
        };
        self.dac_rgb(index)
    }

    pub(super) fn columns(&self) -> usize {
        usize::from(self.crtc[crtc::H_DISPLAY_END]) + 1
    }

    /// Scan lines shown.
    pub(super) fn lines(&self) -> usize {
        let overflow = usize::from(self.crtc[crtc::OVERFLOW]);
        let low = usize::from(self.crtc[crtc::V_DISPLAY_END]);
        ((overflow & 0x02) << 7 | (overflow & 0x40) << 3 | low) + 1
    }

    /// The last scan line before the address counter starts anew at zero.
    fn line_compare(&self) -> usize {
        let overflow = usize::from(self.crtc[crtc::OVERFLOW]);
        let max_scan = usize::from(self.crtc[crtc::MAX_SCAN]);
        let low = usize::from(self.crtc[crtc::LINE_COMPARE]);
        (max_scan & 0x40) << 3 | (overflow & 0x10) << 4 | low
    }

    /// Scan lines of a row of characters, or of one address in graphics.
    pub(super) fn cell(&self) -> usize {
        usize::from(self.crtc[crtc::MAX_SCAN] & 0x1f) + 1
    }

    /// Each scan line is shown twice, as a power of two.
    pub(super) fn doubled(&self) -> usize {
        usize::from(self.crtc[crtc::MAX_SCAN] >> 7)
    }

    /// What the CRT controller shows on a scan line.
    pub(super) fn scan(&self, line: usize) -> Scan {
        let split = self.line_compare() + 1;
        let below = line >= split;
        let preset = self.crtc[crtc::PRESET_ROW];
        let (line, start) = if below {
            ((line - split) >> self.doubled(), 0)
        } else {
            let line = (line >> self.doubled()) + usize::from(preset & 0x1f);
            (line, self.start() + usize::from(preset >> 5 & 3))
        };
        let panned = !below || self.attr[attr::MODE] & attr::PANNING_COMPATIBILITY == 0;
        Scan {
            address: start + line / self.cell() * self.row_step(),
            row_scan: line % self.cell(),
            panning: panned.then_some(self.attr[attr::PANNING] & 0x0f),
        }
    }

    pub(super) fn start(&self) -> usize {
        let [high, low] = [self.crtc[crtc::START_HIGH], self.crtc[crtc::START_HIGH + 1]];
        usize::from(u16::from_be_bytes([high, low]))
    }

    /// Addresses from one row to the next, in units of the start address.
    pub(super) fn row_step(&self) -> usize {
        usize::from(self.crtc[crtc::OFFSET]) * 2
    }

    fn quad_at(&self, offset: usize) -> [u8; 4] {
        self.quad_bytes((offset & 0xffff) * 4)
    }

    /// Builds a frame line by line; what a line lacks is black, what it has too much is dropped.
    fn frame(width: usize, height: usize, mut line: impl FnMut(usize, &mut Vec<u32>)) -> Frame {
        let (width, height) = (width.min(MAX_VGA), height.min(MAX_VGA));
        let mut pixels = Vec::with_capacity(width * height);
        for y in 0..height {
            line(y, &mut pixels);
            pixels.resize((y + 1) * width, 0);
        }
        Frame {
            width,
            height,
            pixels,
        }
    }

    /// Graphics of the VGA: `unit` makes the pixels of one address, `pan` says by how many of them
    /// the picture is shifted. Lines that must be the same are emitted once.
    fn render_graphics(
        &self,
        per_unit: usize,
        pan: impl Fn(u8) -> usize,
        unit: impl Fn([u8; 4], &mut Vec<u32>),
    ) -> Frame {
        let mode = self.crtc[crtc::MODE];
        let banked = mode & (crtc::NOT_CMS0 | crtc::NOT_CMS1) != crtc::NOT_CMS0 | crtc::NOT_CMS1;
        let step = if banked { 1 } else { self.cell() } << self.doubled();
        // Address bits count words here where they do for the CRT controller.
        let bank = if mode & crtc::BYTE_MODE != 0 { 13 } else { 12 };
        let width = self.columns() * per_unit;
        Self::frame(width, self.lines().div_ceil(step), |y, out| {
            let scan = self.scan(y * step);
            let from = out.len();
            for column in 0..=self.columns() {
                let mut at = scan.address + column;
                if mode & crtc::NOT_CMS0 == 0 {
                    at = at & !(1 << bank) | (scan.row_scan & 1) << bank;
                }
                if mode & crtc::NOT_CMS1 == 0 {
                    at = at & !(2 << bank) | (scan.row_scan & 2) << bank;
                }
                unit(self.quad_at(at), out);
            }
            out.drain(from..from + scan.panning.map_or(0, &pan));
        })
    }

    fn render_planar(&self) -> Frame {
        let colours: [u32; 16] = std::array::from_fn(|i| self.attribute_rgb(i as u8));
        let pan = |value: u8| usize::from(value & 7);
        self.render_graphics(8, pan, |planes, out| {
            out.extend((0..8).rev().map(|bit| {
                let pixel = (0..4).fold(0, |p, i| p | usize::from(planes[i] >> bit & 1) << i);
                colours[pixel]
            }));
        })
    }

    /// CGA graphics: two bits per pixel, even bytes in plane 0 and odd ones in plane 1.
    fn render_cga(&self) -> Frame {
        let colours: [u32; 4] = std::array::from_fn(|i| self.attribute_rgb(i as u8));
        let pan = |value: u8| usize::from(value & 7);
        self.render_graphics(8, pan, |[even, odd, ..], out| {
            for byte in [even, odd] {
                let pixels = (0..4).rev().map(|i| usize::from(byte >> (2 * i) & 3));
                out.extend(pixels.map(|pixel| colours[pixel]));
            }
        })
    }

    fn render_256(&self) -> Frame {
        // Two dots of the clock for each pixel.
        let pan = |value: u8| usize::from(value >> 1 & 3);
        self.render_graphics(4, pan, |planes, out| {
            out.extend(planes.map(|pixel| self.dac_rgb(pixel)));
        })
    }

    fn render_text(&self) -> Frame {
        let clocking = self.seq[seq::CLOCKING];
        let nine = clocking & seq::EIGHT_DOTS == 0;
        let dots = if nine { 9 } else { 8 };
        let wide = if clocking & seq::HALF_CLOCK != 0 {
            2
        } else {
            1
        };
        let line_graphics = self.attr[attr::MODE] & attr::LINE_GRAPHICS != 0;
        let underline = usize::from(self.crtc[crtc::UNDERLINE] & 0x1f);
        let cursor = self.cursor_address();
        let doubled = self.doubled();
        let width = self.columns() * dots * wide;
        Self::frame(width, self.lines() >> doubled, |y, out| {
            let scan = self.scan(y << doubled);
            let from = out.len();
            for column in 0..=self.columns() {
                let at = (scan.address + column) & 0xffff;
                let [character, attribute, ..] = self.quad_at(at);
                let (ink, paper) = self.text_colours(attribute);
                let mut glyph = self.glyph(character, attribute, scan.row_scan);
                // The ninth dot is background, but for characters that draw lines.
                let joined = line_graphics && (0xc0..=0xdf).contains(&character);
                let mut ninth = joined && glyph & 1 != 0;
                let underlined = attribute & 0x77 == 0x01 && scan.row_scan == underline;
                if underlined || cursor == Some(at) && self.cursor_covers(scan.row_scan) {
                    (glyph, ninth) = (0xff, true);
                }
                let dots = (0..8).rev().map(|bit| glyph >> bit & 1 != 0);
                for dot in dots.chain(nine.then_some(ninth)) {
                    let colour = if dot { ink } else { paper };
                    out.extend(std::iter::repeat_n(colour, wide));
                }
            }
            // With nine dots, 8 stands for no shift and 0 for one dot.
            let pan = match scan.panning {
                None | Some(8..) => 0,
                Some(value) if nine => usize::from(value) + 1,
                Some(value) => usize::from(value),
            };
            out.drain(from..from + pan * wide);
        })
    }

    fn text_colours(&self, attribute: u8) -> (u32, u32) {
        let blink = self.attr[attr::MODE] & attr::BLINK != 0;
        let paper = attribute >> 4 & if blink { 7 } else { 15 };
        (
            self.attribute_rgb(attribute & 0x0f),
            self.attribute_rgb(paper),
        )
    }

    /// A line of a character's shape from the font in plane 2.
    fn glyph(&self, character: u8, attribute: u8, line: usize) -> u8 {
        let select = self.seq[seq::FONT];
        // Attribute bit 3 chooses between the two fonts of the character map select register.
        let font = if attribute & 8 != 0 {
            select >> 2 & 3 | (select >> 5 & 1) << 2
        } else {
            select & 3 | (select >> 4 & 1) << 2
        };
        // Fonts 0-3 lie at 0, 16, 32 and 48 KiB, fonts 4-7 at 8 KiB above these.
        let base = usize::from(font & 3) * 0x4000 + usize::from(font >> 2) * 0x2000;
        self.quad_at(base + usize::from(character) * 32 + line)[2]
    }

    fn cursor_covers(&self, line: usize) -> bool {
        // No line is within them if the start lies below the end.
        let start = usize::from(self.crtc[crtc::CURSOR_START] & 0x1f);
        let end = usize::from(self.crtc[crtc::CURSOR_END] & 0x1f);
        (start..=end).contains(&line)
    }

    /// The address of the character under the cursor, unless it is switched off.
    pub(super) fn cursor_address(&self) -> Option<usize> {
        let [high, low] = [
            self.crtc[crtc::CURSOR_HIGH],
            self.crtc[crtc::CURSOR_HIGH + 1],
        ];
        let skew = usize::from(self.crtc[crtc::CURSOR_END] >> 5 & 3);
        let shown = self.crtc[crtc::CURSOR_START] & 0x20 == 0;
        shown.then(|| (usize::from(u16::from_be_bytes([high, low])) + skew) & 0xffff)
    }

    fn render_linear(&self) -> Frame {
        let d = &self.dispi;
        let (width, height) = (usize::from(d.xres), usize::from(d.yres));
        let mut pixels = Vec::with_capacity(width * height);
        let mut line = vec![0; width * usize::from(d.bpp.div_ceil(8)).max(1)];
        for y in 0..height {
            self.vram.read(d.start() + y * d.pitch(), &mut line);
            let five = |v: u16| u32::from(v & 31) << 3 | u32::from(v & 31) >> 2;
            let six = |v: u16| u32::from(v & 63) << 2 | u32::from(v & 63) >> 4;
            let word = |c: &[u8]| u16::from_le_bytes([c[0], c[1]]);
            match d.bpp {
                4 => pixels.extend((0..width).map(|x| {
                    let quad = line.get(x / 8 * 4..x / 8 * 4 + 4).unwrap_or(&[0; 4]);
                    let bit = 7 - x % 8;
                    self.attribute_rgb((0..4).fold(0, |p, i| p | (quad[i] >> bit & 1) << i))
                })),
                8 => pixels.extend(line.iter().take(width).map(|pixel| self.dac_rgb(*pixel))),
                15 => pixels.extend(line.chunks_exact(2).take(width).map(|c| {
                    let v = word(c);
                    five(v >> 10) << 16 | five(v >> 5) << 8 | five(v)
                })),
                16 => pixels.extend(line.chunks_exact(2).take(width).map(|c| {
                    let v = word(c);
                    five(v >> 11) << 16 | six(v >> 5) << 8 | five(v)
                })),
                bpp => {
                    let bytes = usize::from(bpp / 8);
                    pixels.extend(
                        line.chunks_exact(bytes).take(width).map(|c| {
                            u32::from(c[2]) << 16 | u32::from(c[1]) << 8 | u32::from(c[0])
                        }),
                    );
                }
            }
            pixels.resize((y + 1) * width, 0);
        }
        Frame {
            width,
            height,
            pixels,
        }
    }
}
