//! Small pictures, compared with what the registers' descriptions say of each pixel.

use super::tests::{dispi, mode_13h, out, planar, video_mode};
use super::*;

const INK: u32 = 0xff_ff55;
const PAPER: u32 = 0x00_00aa;

/// Text with the character 'A' as a full left column, at the top left in yellow on blue.
fn text() -> Vga {
    let mut vga = Vga::new();
    vga.set_text_mode();
    for line in 0..16 {
        glyph(&mut vga, 0, b'A', line, 0x80);
    }
    put(&mut vga, 0, b'A', 0x1e);
    // No cursor.
    out(&mut vga, port::CRTC_INDEX, 0x0a, 0x20);
    vga
}

fn put(vga: &mut Vga, at: usize, character: u8, attribute: u8) {
    vga.vram.write(at * 4, &[character, attribute]);
}

/// A line of a shape in the font at `base`.
fn glyph(vga: &mut Vga, base: usize, character: u8, line: usize, dots: u8) {
    let at = base + usize::from(character) * 32 + line;
    vga.vram.write(at * 4 + 2, &[dots]);
}

fn attribute(vga: &mut Vga, index: u8, value: u8) {
    PortDevice::read(vga, 0, port::STATUS, 1);
    for byte in [index | 0x20, value] {
        PortDevice::write(vga, 0, port::ATTRIBUTE, 1, byte.into());
    }
}

fn pixel(frame: &Frame, x: usize, y: usize) -> u32 {
    frame.pixels[y * frame.width + x]
}

fn row(frame: &Frame, x: usize, y: usize, len: usize) -> Vec<u32> {
    frame.pixels[y * frame.width + x..][..len].to_vec()
}

#[test]
fn eight_and_nine_dots_and_line_drawing() {
    let mut vga = text();
    put(&mut vga, 1, 0xc4, 0x1e);
    put(&mut vga, 2, b'-', 0x1e);
    for character in [0xc4, b'-'] {
        glyph(&mut vga, 0, character, 7, 0xff);
    }
    let frame = vga.render();
    assert_eq!((frame.width, frame.height), (720, 400));
    assert_eq!(row(&frame, 9, 7, 9), [INK; 9], "joined to its neighbour");
    assert_eq!(row(&frame, 18, 7, 8), [INK; 8]);
    assert_eq!(pixel(&frame, 26, 7), PAPER, "a dash is not");
    attribute(&mut vga, 0x10, 0x08);
    assert_eq!(pixel(&vga.render(), 17, 7), PAPER, "line graphics off");
    out(&mut vga, port::SEQUENCER_INDEX, 1, 0x01);
    let frame = vga.render();
    assert_eq!((frame.width, frame.height), (640, 400));
    assert_eq!(row(&frame, 8, 7, 16), [INK; 16]);
}

#[test]
fn forty_columns_are_as_wide_as_eighty() {
    let mut vga = text();
    out(&mut vga, port::CRTC_INDEX, 0x11, 0x0e);
    out(&mut vga, port::CRTC_INDEX, 1, 39);
    out(&mut vga, port::CRTC_INDEX, 0x13, 20);
    out(&mut vga, port::SEQUENCER_INDEX, 1, 0x08);
    put(&mut vga, 40, b'A', 0x1e);
    let frame = vga.render();
    assert_eq!((frame.width, frame.height), (720, 400));
    assert_eq!(row(&frame, 0, 16, 3), [INK, INK, PAPER], "the second row");
    let screen = vga.text().unwrap();
    assert_eq!((screen.columns, screen.cells[40].character), (40, 'A'));
}

#[test]
fn every_shape_of_the_cursor() {
    let mut vga = text();
    put(&mut vga, 1, b' ', 0x1e);
    out(&mut vga, port::CRTC_INDEX, 0x0f, 1);
    let shape = |vga: &mut Vga, start: u8, end: u8| -> Vec<usize> {
        out(vga, port::CRTC_INDEX, 0x0a, start);
        out(vga, port::CRTC_INDEX, 0x0b, end);
        let frame = vga.render();
        (0..16)
            .filter(|y| {
                let dots = row(&frame, 9, *y, 9);
                assert!(dots == [INK; 9] || dots == [PAPER; 9], "all nine dots");
                dots[0] == INK
            })
            .collect()
    };
    assert_eq!(shape(&mut vga, 13, 14), [13, 14]);
    assert_eq!(shape(&mut vga, 0, 15), (0..16).collect::<Vec<_>>());
    assert_eq!(shape(&mut vga, 7, 7), [7]);
    assert_eq!(shape(&mut vga, 14, 13), [0; 0], "the start below the end");
    assert_eq!(shape(&mut vga, 14, 31), [14, 15], "cut at the row's end");
    assert_eq!(shape(&mut vga, 0x20 | 13, 14), [0; 0], "off");
    assert_eq!(
        shape(&mut vga, 13, 0x20 | 14),
        [0; 0],
        "one further by skew"
    );
    out(&mut vga, port::CRTC_INDEX, 0x0f, 0);
    assert_eq!(shape(&mut vga, 13, 0x20 | 14), [13, 14]);
}

#[test]
fn blinking_or_a_bright_background() {
    let mut vga = text();
    put(&mut vga, 0, b'A', 0x9e);
    // Mode 3 leaves blinking on.
    assert_eq!(row(&vga.render(), 0, 0, 2), [INK, PAPER]);
    attribute(&mut vga, 0x10, 0x04);
    assert_eq!(row(&vga.render(), 0, 0, 2), [INK, 0x55_55ff]);
}

#[test]
fn underlines_of_monochrome_attributes() {
    let mut vga = text();
    out(&mut vga, port::CRTC_INDEX, 0x14, 0x0c);
    put(&mut vga, 1, b' ', 0x01);
    put(&mut vga, 2, b' ', 0x07);
    let frame = vga.render();
    assert_eq!(row(&frame, 9, 12, 9), [0x00_00aa; 9]);
    assert_eq!(row(&frame, 9, 11, 9), [0; 9]);
    assert_eq!(row(&frame, 18, 12, 9), [0; 9]);
}

#[test]
fn two_fonts_chosen_by_attribute_bit_3() {
    let mut vga = text();
    // Font 5 lies at 24 KiB in plane 2, font 2 at 32 KiB.
    glyph(&mut vga, 0x6000, b'A', 0, 0x0f);
    glyph(&mut vga, 0x8000, b'A', 0, 0x3c);
    // Map A (bit 3 set): font 5 = bits 5, 3, 2; map B: font 2 = bits 4, 1, 0.
    out(&mut vga, port::SEQUENCER_INDEX, 3, 0x20 | 0x04 | 0x02);
    put(&mut vga, 1, b'A', 0x16);
    let frame = vga.render();
    assert_eq!(
        row(&frame, 0, 0, 9)[..8],
        [&[PAPER; 4][..], &[INK; 4]].concat()
    );
    let brown = 0xaa_5500;
    let b = [&[PAPER; 2][..], &[brown; 4], &[PAPER; 3]].concat();
    assert_eq!(row(&frame, 9, 0, 9), b);
}

#[test]
fn split_screen_in_text() {
    let mut vga = text();
    put(&mut vga, 800, b'A', 0x1e);
    put(&mut vga, 0, b' ', 0x4e);
    out(&mut vga, port::CRTC_INDEX, 0x0c, (800 >> 8) as u8);
    out(&mut vga, port::CRTC_INDEX, 0x0d, 800u16 as u8);
    // Lines 0-99 from the start address, from 100 on from address 0.
    out(&mut vga, port::CRTC_INDEX, 0x18, 99);
    out(&mut vga, port::CRTC_INDEX, 0x07, 0x0f);
    out(&mut vga, port::CRTC_INDEX, 0x09, 0x0f);
    let frame = vga.render();
    assert_eq!(pixel(&frame, 0, 0), INK);
    assert_eq!(pixel(&frame, 0, 99), 0, "the seventh row has nothing");
    assert_eq!(pixel(&frame, 0, 100), 0xaa_0000, "address 0");
    assert_eq!(pixel(&frame, 0, 115), 0xaa_0000);
    assert_eq!(pixel(&frame, 0, 116), 0);
}

#[test]
fn text_is_panned_by_dots_and_lines() {
    let mut vga = text();
    put(&mut vga, 1, b'A', 0x4e);
    // Nine dots: 8 is no shift, 0 is one.
    assert_eq!(row(&vga.render(), 0, 0, 2), [INK, PAPER]);
    attribute(&mut vga, 0x13, 0);
    assert_eq!(row(&vga.render(), 7, 0, 2), [PAPER, INK]);
    attribute(&mut vga, 0x13, 7);
    assert_eq!(row(&vga.render(), 0, 0, 2), [PAPER, INK]);
    attribute(&mut vga, 0x13, 8);
    out(&mut vga, port::CRTC_INDEX, 0x08, 3);
    let frame = vga.render();
    assert_eq!((pixel(&frame, 0, 12), pixel(&frame, 0, 13)), (INK, 0));
    out(&mut vga, port::CRTC_INDEX, 0x08, 0x20);
    assert_eq!(pixel(&vga.render(), 1, 0), 0xaa_0000, "by one byte");
}

#[test]
fn planar_pixels_of_all_sixteen_colours_panned_and_split() {
    let mut vga = planar();
    out(&mut vga, port::CRTC_INDEX, 9, 0x40);
    // Eight pixels with the colours 0-7, then 8-15.
    for (at, high) in [(0, 0x00), (4, 0xff)] {
        vga.vram.write(at, &[0x55, 0x33, 0x0f, high]);
    }
    let ega = [
        0x00_0000, 0x00_00aa, 0x00_aa00, 0x00_aaaa, 0xaa_0000, 0xaa_00aa, 0xaa_5500, 0xaa_aaaa,
        0x55_5555, 0x55_55ff, 0x55_ff55, 0x55_ffff, 0xff_5555, 0xff_55ff, 0xff_ff55, 0xff_ffff,
    ];
    assert_eq!(row(&vga.render(), 0, 0, 16), ega);
    attribute(&mut vga, 0x13, 3);
    assert_eq!(row(&vga.render(), 0, 0, 13), ega[3..]);
    // Plane 3 hidden, then another block of the DAC.
    attribute(&mut vga, 0x13, 0);
    attribute(&mut vga, 0x12, 0x07);
    assert_eq!(row(&vga.render(), 8, 0, 8), ega[..8]);
    attribute(&mut vga, 0x12, 0x0f);
    attribute(&mut vga, 0x10, 0x81);
    attribute(&mut vga, 0x14, 0x0f);
    vga.dac[3 * 0xf1..3 * 0xf1 + 3].copy_from_slice(&[1, 2, 3]);
    assert_eq!(pixel(&vga.render(), 1, 0), 0x04_080c);
    // Split at line 200, the part below not panned.
    attribute(&mut vga, 0x10, 0x21);
    attribute(&mut vga, 0x14, 0);
    attribute(&mut vga, 0x13, 1);
    out(&mut vga, port::CRTC_INDEX, 0x0c, 0x40);
    vga.vram.write(0x4000 * 4, &[0x40, 0, 0, 0]);
    out(&mut vga, port::CRTC_INDEX, 0x18, 199);
    out(&mut vga, port::CRTC_INDEX, 0x07, 0x0f);
    out(&mut vga, port::CRTC_INDEX, 9, 0x00);
    let frame = vga.render();
    assert_eq!(pixel(&frame, 0, 0), ega[1], "panned by one");
    assert_eq!(row(&frame, 0, 200, 16), ega, "from address 0, as it is");
    attribute(&mut vga, 0x10, 0x01);
    assert_eq!(row(&vga.render(), 0, 200, 15), ega[1..], "panned as well");
}

#[test]
fn cga_graphics_interleave_their_lines() {
    let mut vga = planar();
    // Mode 4: shift interleave, odd/even memory, row scan bit 0 is an address bit.
    out(&mut vga, port::SEQUENCER_INDEX, 4, 0x02);
    out(&mut vga, port::GRAPHICS_INDEX, 5, 0x30);
    out(&mut vga, port::GRAPHICS_INDEX, 6, 0x0f);
    out(&mut vga, port::CRTC_INDEX, 0x11, 0x0e);
    out(&mut vga, port::CRTC_INDEX, 1, 39);
    out(&mut vga, port::CRTC_INDEX, 9, 0xc1);
    out(&mut vga, port::CRTC_INDEX, 0x13, 20);
    out(&mut vga, port::CRTC_INDEX, 0x17, 0xa2);
    let poke = |vga: &mut Vga, at: u64, byte| MmioDevice::write(vga, 0, 0x1_8000 + at, &[byte]);
    poke(&mut vga, 0, 0b00_01_10_11);
    poke(&mut vga, 1, 0b11_00_00_00);
    poke(&mut vga, 0x2000, 0b01_00_00_00);
    poke(&mut vga, 80, 0b10_00_00_00);
    let frame = vga.render();
    assert_eq!((frame.width, frame.height), (320, 200));
    let c = [0, 0x00_00aa, 0x00_aa00, 0x00_aaaa];
    assert_eq!(row(&frame, 0, 0, 5), [c[0], c[1], c[2], c[3], c[3]]);
    assert_eq!(pixel(&frame, 0, 1), c[1], "odd lines from 2000h");
    assert_eq!(pixel(&frame, 0, 2), c[2]);
    // Mode 6: one bit per pixel, from byte addresses.
    vga.clear_memory();
    out(&mut vga, port::SEQUENCER_INDEX, 4, 0x06);
    out(&mut vga, port::SEQUENCER_INDEX, 2, 0x01);
    out(&mut vga, port::GRAPHICS_INDEX, 5, 0x00);
    out(&mut vga, port::GRAPHICS_INDEX, 6, 0x0d);
    out(&mut vga, port::CRTC_INDEX, 1, 79);
    out(&mut vga, port::CRTC_INDEX, 0x13, 40);
    out(&mut vga, port::CRTC_INDEX, 0x17, 0xc2);
    poke(&mut vga, 0, 0x40);
    poke(&mut vga, 0x2000, 0x80);
    let frame = vga.render();
    assert_eq!((frame.width, frame.height), (640, 200));
    assert_eq!(row(&frame, 0, 0, 2), [c[0], c[1]]);
    assert_eq!(row(&frame, 0, 1, 2), [c[1], c[0]]);
}

#[test]
fn mode_13h_pans_by_pixels() {
    let mut vga = mode_13h();
    MmioDevice::write(&mut vga, 0, 3, &[9]);
    attribute(&mut vga, 0x13, 4);
    assert_eq!(row(&vga.render(), 0, 0, 2), [0, 0xff_0082]);
    out(&mut vga, port::CRTC_INDEX, 0x0d, 1);
    attribute(&mut vga, 0x13, 0);
    MmioDevice::write(&mut vga, 0, 4, &[9]);
    assert_eq!(
        pixel(&vga.render(), 0, 0),
        0xff_0082,
        "start by four pixels"
    );
}

#[test]
fn linear_modes_of_every_depth() {
    // Bytes of the second pixel, and its colour.
    let cases: [(u16, &[u8], u32); 5] = [
        (8, &[7], 0x0c_8204),
        (15, &[0x1f, 0x7c], 0xff_00ff),
        (16, &[0xe0, 0x07], 0x00_ff00),
        (24, &[0x33, 0x22, 0x11], 0x11_2233),
        (32, &[0x33, 0x22, 0x11, 0xee], 0x11_2233),
    ];
    for (bpp, bytes, colour) in cases {
        for (width, height) in [(640, 480), (2560, 1600)] {
            let mut vga = Vga::new();
            vga.dac[21..24].copy_from_slice(&[3, 0x20, 1]);
            video_mode(&mut vga, width, height, bpp);
            let line = usize::from(width) * bytes.len();
            let last = usize::from(height) - 1;
            vga.write_vram((last * line + bytes.len()) as u64, bytes);
            let frame = vga.render();
            assert_eq!((frame.width, frame.height), (width.into(), height.into()));
            assert_eq!(row(&frame, 0, last, 3), [0, colour, 0], "{bpp} {width}");
        }
    }
    // Gray in 15 and 16 bits reaches both ends.
    let mut vga = Vga::new();
    video_mode(&mut vga, 640, 480, 16);
    vga.write_vram(0, &[0xff, 0xff, 0x10, 0x84]);
    assert_eq!(row(&vga.render(), 0, 0, 2), [0xff_ffff, 0x84_8284]);
}

#[test]
fn the_dac_has_six_or_eight_bits_and_a_mask() {
    let mut vga = Vga::new();
    let load = |vga: &mut Vga| {
        PortDevice::write(vga, 0, port::DAC_WRITE, 1, 5);
        for level in [0xff, 0x80, 0x21] {
            PortDevice::write(vga, 0, port::DAC_DATA, 1, level);
        }
    };
    video_mode(&mut vga, 640, 480, 8);
    vga.write_vram(0, &[5, 0xf5]);
    load(&mut vga);
    assert_eq!(pixel(&vga.render(), 0, 0), 0xff_0086, "six bits of each");
    dispi(&mut vga, 4, 0x61);
    load(&mut vga);
    assert_eq!(pixel(&vga.render(), 0, 0), 0xff_8021);
    PortDevice::write(&mut vga, 0, port::DAC_MASK, 1, 0x0f);
    assert_eq!(pixel(&vga.render(), 1, 0), 0xff_8021);
}

#[test]
fn what_shows_nothing_is_no_change() {
    let mut vga = text();
    let before = vga.changes();
    let _ = vga.render();
    PortDevice::read(&mut vga, 0, port::STATUS, 1);
    PortDevice::write(&mut vga, 0, port::CRTC_INDEX, 1, 0x0e);
    out(&mut vga, port::SEQUENCER_INDEX, 2, 0x03);
    MmioDevice::write(&mut vga, 0, 0x1_8000, &[b'A', 0x1e]);
    assert_eq!(vga.changes(), before);
    MmioDevice::write(&mut vga, 0, 0x1_8000, b"B");
    assert!(vga.changes() > before);
}

/// Bochs VBE API, 4 bits per pixel: planes behind the window, with banks, beyond VGA's 64 KiB.
#[test]
fn planes_of_a_large_mode_go_through_map_mask_and_bank() {
    let mut vga = planar();
    video_mode(&mut vga, 1280, 1024, 4);
    out(&mut vga, port::SEQUENCER_INDEX, 2, 0x05);
    MmioDevice::write(&mut vga, 0, 0, &[0x81]);
    // Byte 10 of line 1000 lies in the third bank.
    let at = 1000 * 160 + 10;
    dispi(&mut vga, 5, (at >> 16) as u16);
    out(&mut vga, port::SEQUENCER_INDEX, 2, 0x02);
    MmioDevice::write(&mut vga, 0, at & 0xffff, &[0x10]);
    let frame = vga.render();
    assert_eq!((frame.width, frame.height), (1280, 1024));
    let (purple, green) = (0xaa_00aa, 0x00_aa00);
    assert_eq!(row(&frame, 0, 0, 8), [purple, 0, 0, 0, 0, 0, 0, purple]);
    assert_eq!(row(&frame, 80, 1000, 8), [0, 0, 0, green, 0, 0, 0, 0]);
}
