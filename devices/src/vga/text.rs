//! The text screen as characters, for terminals and tests.

use super::Vga;
use super::spec::gc;

/// Code page 437 as Unicode; the control range shows its glyphs.
const CP437: &str = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼ !\"#$%&'()*+,-./0123456789:;<=>?@\
ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~⌂ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ\
áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ";

/// A character cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The character.
    pub character: char,
    /// The attribute: foreground in bits 0-3, background in 4-6, blink or bright background in 7.
    pub attribute: u8,
}

/// A text screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextScreen {
    /// Cells per row.
    pub columns: usize,
    /// All cells, row after row.
    pub cells: Vec<Cell>,
    /// Row and column of the cursor, if it is shown within the screen.
    pub cursor: Option<(usize, usize)>,
}

impl TextScreen {
    /// The rows as text, without the blanks at their ends.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let text = |row: &[Cell]| row.iter().map(|cell| cell.character).collect::<String>();
        self.cells
            .chunks(self.columns.max(1))
            .map(|row| text(row).trim_end().to_owned())
            .collect()
    }
}

impl Vga {
    /// The screen shows pixels, not characters.
    #[must_use]
    pub fn is_graphics(&self) -> bool {
        self.dispi.enabled() || self.gc[gc::MISC] & 1 != 0
    }

    /// Loads font 0, as a video BIOS does: `shape` gives the 16 lines of a character, leftmost
    /// pixel in bit 7.
    pub fn load_font(&mut self, shape: impl Fn(char) -> [u8; 16]) {
        for (code, character) in CP437.chars().enumerate() {
            for (line, bits) in shape(character).into_iter().enumerate() {
                // A character has 32 bytes in plane 2.
                self.vram.write((code * 32 + line) * 4 + 2, &[bits]);
            }
        }
    }

    /// The text screen; `None` in graphics modes.
    #[must_use]
    pub fn text(&self) -> Option<TextScreen> {
        if self.is_graphics() {
            return None;
        }
        let glyphs: Vec<char> = CP437.chars().collect();
        let columns = self.columns();
        let step = self.cell() << self.doubled();
        let rows = self.lines() / step;
        let mut cells = Vec::with_capacity(columns * rows);
        let mut cursor = None;
        for row in 0..rows {
            let address = self.scan(row * step).address;
            for column in 0..columns {
                let offset = (address + column) & 0xffff;
                if self.cursor_address() == Some(offset) {
                    cursor = Some((row, column));
                }
                let [code, attribute, ..] = self.quad_bytes(offset * 4);
                let character = glyphs.get(usize::from(code)).copied().unwrap_or(' ');
                cells.push(Cell {
                    character,
                    attribute,
                });
            }
        }
        Some(TextScreen {
            columns,
            cells,
            cursor,
        })
    }
}
