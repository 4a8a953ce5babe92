//! The picture: text, planar, CGA, 256-colour and linear modes to RGB.

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

    fn columns(&self) -> usize {
        usize::from(self.crtc[crtc::H_DISPLAY_END]) + 1
    }

    /// Scan lines shown.
    fn lines(&self) -> usize {
        let overflow = usize::from(self.crtc[crtc::OVERFLOW]);
        let low = usize::from(self.crtc[crtc::V_DISPLAY_END]);
        ((overflow & 0x02) << 7 | (overflow & 0x40) << 3 | low) + 1
    }

    /// Scan lines per row of video memory.
    fn scans_per_row(&self) -> usize {
        let max_scan = self.crtc[crtc::MAX_SCAN];
        (usize::from(max_scan & 0x1f) + 1) << (max_scan >> 7)
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

    /// Builds a frame row by row; `rows` repeat `repeat` times as the hardware's scan doubling
    /// does, but are emitted once per shown line.
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

    fn render_planar(&self) -> Frame {
        let repeat = self.scans_per_row();
        Self::frame(
            self.columns() * 8,
            self.lines().div_ceil(repeat),
            |y, out| {
                let row = self.start() + y * self.row_step();
                for column in 0..self.columns() {
                    let planes = self.quad_at(row + column);
                    out.extend((0..8).rev().map(|bit| {
                        let pixel = (0..4).fold(0, |p, i| p | (planes[i] >> bit & 1) << i);
                        self.attribute_rgb(pixel)
                    }));
                }
            },
        )
    }

    /// CGA graphics: scan lines alternate between two 8 KiB halves; 2 bits per pixel, even bytes
    /// in plane 0 and odd ones in plane 1.
    fn render_cga(&self) -> Frame {
        let interleaved = self.crtc[crtc::MODE] & 1 == 0;
        let doubled = self.crtc[crtc::MAX_SCAN] >> 7;
        Self::frame(self.columns() * 8, self.lines() >> doubled, |y, out| {
            let (half, row) = if interleaved {
                ((y & 1) << 12, y / 2)
            } else {
                (0, y)
            };
            let line = self.start() + half + row * self.row_step();
            for column in 0..self.columns() {
                let [even, odd, ..] = self.quad_at(line + column);
                for byte in [even, odd] {
                    out.extend(
                        (0..4)
                            .rev()
                            .map(|i| self.attribute_rgb(byte >> (2 * i) & 3)),
                    );
                }
            }
        })
    }

    fn render_256(&self) -> Frame {
        let repeat = self.scans_per_row();
        Self::frame(
            self.columns() * 4,
            self.lines().div_ceil(repeat),
            |y, out| {
                let row = self.start() + y * self.row_step();
                for column in 0..self.columns() {
                    out.extend(self.quad_at(row + column).map(|pixel| self.dac_rgb(pixel)));
                }
            },
        )
    }

    fn render_text(&self) -> Frame {
        let nine = self.seq[seq::CLOCKING] & seq::EIGHT_DOTS == 0;
        let dots = if nine { 9 } else { 8 };
        let cell = usize::from(self.crtc[crtc::MAX_SCAN] & 0x1f) + 1;
        let doubled = self.crtc[crtc::MAX_SCAN] >> 7;
        let line_graphics = self.attr[attr::MODE] & 4 != 0;
        let cursor = self.cursor_address();
        Self::frame(self.columns() * dots, self.lines() >> doubled, |y, out| {
            let row = self.start() + y / cell * self.row_step();
            for column in 0..self.columns() {
                let [character, attribute, ..] = self.quad_at(row + column);
                let (ink, paper) = self.text_colours(attribute);
                let mut glyph = self.glyph(character, attribute, y % cell);
                if cursor == Some((row + column) & 0xffff) && self.cursor_covers(y % cell) {
                    glyph = 0xff;
                }
                out.extend(
                    (0..8)
                        .rev()
                        .map(|bit| if glyph >> bit & 1 != 0 { ink } else { paper }),
                );
                if nine {
                    // The ninth dot continues line-drawing characters.
                    let joined = line_graphics && (0xc0..=0xdf).contains(&character);
                    out.push(if joined && glyph & 1 != 0 { ink } else { paper });
                }
            }
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
        let shown = self.crtc[crtc::CURSOR_START] & 0x20 == 0;
        shown.then(|| usize::from(u16::from_be_bytes([high, low])))
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
