//! The text on a VGA screen from its registers and memory (IBM VGA Technical Reference, "CRT
//! controller" and "graphics controller"), for monitors that do not give it as text.

use codepage_437::CP437_WINGDINGS;

/// The registers that say what is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Registers {
    /// Graphics controller 6: bit 0 graphics, bits 2-3 the memory window.
    pub miscellaneous: u8,
    /// CRT controller 1: last column.
    pub last_column: u8,
    /// CRT controller 7: bits 8 and 9 of the last line in bits 1 and 6.
    pub overflow: u8,
    /// CRT controller 9: scan lines per row less one; bit 7 doubles.
    pub max_scan: u8,
    /// CRT controller 12h: last line, low byte.
    pub last_line: u8,
    /// CRT controller 0Ch and 0Dh.
    pub start: u16,
    /// CRT controller 13h: words per row, halved.
    pub offset: u8,
}

impl Registers {
    /// Where the window begins in physical memory; `None` in graphics.
    pub fn window(&self) -> Option<u32> {
        if self.miscellaneous & 1 != 0 {
            return None;
        }
        Some(match self.miscellaneous >> 2 & 3 {
            0 | 1 => 0xa0000,
            2 => 0xb0000,
            _ => 0xb8000,
        })
    }

    /// The text, rows without blanks at their ends. `memory` is the window, characters at even
    /// addresses.
    pub fn text(&self, memory: &[u8]) -> String {
        let columns = usize::from(self.last_column) + 1;
        let overflow = usize::from(self.overflow);
        let high = (overflow & 0x02) << 7 | (overflow & 0x40) << 3;
        let lines = (high | usize::from(self.last_line)) + 1;
        let scans = (usize::from(self.max_scan & 0x1f) + 1) << (self.max_scan >> 7);
        let mut text = String::new();
        for row in 0..lines / scans {
            let first = usize::from(self.start) + row * usize::from(self.offset) * 2;
            let cells = (first..first + columns).map(|cell| {
                let at = cell * 2 % memory.len().max(2);
                match memory.get(at).copied().unwrap_or(0) {
                    0 | 0xff => ' ',
                    code => CP437_WINGDINGS.decode(code),
                }
            });
            let line: String = cells.collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_3_after_scrolling() {
        let registers = Registers {
            miscellaneous: 0x0e,
            last_column: 79,
            overflow: 0x1f,
            max_scan: 0x4f,
            last_line: 0x8f,
            start: 80,
            offset: 40,
        };
        assert_eq!(registers.window(), Some(0xb8000));
        let mut memory = vec![0; 32768];
        for (cell, code) in [(0, b'x'), (80, b'a'), (82, 0xc4), (160 + 79, b'z')] {
            memory[cell * 2] = code;
        }
        assert_eq!(registers.text(&memory), format!("a ─\n{:>80}", "z"));
        let graphics = Registers {
            miscellaneous: 5,
            ..registers
        };
        assert_eq!(graphics.window(), None);
    }
}
