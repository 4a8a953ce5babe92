//! The shapes of characters on a text screen that no video BIOS has set up.

use font8x8::{
    BASIC_FONTS, BLOCK_FONTS, BOX_FONTS, GREEK_FONTS, LATIN_FONTS, MISC_FONTS, UnicodeFonts,
};

/// The 16 lines of a character, its leftmost pixel in bit 7: each of the eight lines of the crate's
/// shape twice. Blank for what the crate does not have.
pub(super) fn shape(character: char) -> [u8; 16] {
    let lines = BASIC_FONTS
        .get(character)
        .or_else(|| LATIN_FONTS.get(character))
        .or_else(|| BOX_FONTS.get(character))
        .or_else(|| BLOCK_FONTS.get(character))
        .or_else(|| GREEK_FONTS.get(character))
        .or_else(|| MISC_FONTS.get(character))
        .unwrap_or_default();
    std::array::from_fn(|line| lines[line / 2].reverse_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_upright() {
        // The stem of an L is on the left, its foot at the bottom.
        let l = shape('L');
        assert!(l[2] & 0x60 != 0 && l[2] & 0x0e == 0, "{l:02x?}");
        assert!(l[12].count_ones() > l[2].count_ones(), "{l:02x?}");
        assert_eq!(shape('█'), [0xff; 16]);
        assert_eq!(shape(' '), [0; 16]);
    }
}
