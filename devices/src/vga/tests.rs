//! Register-level tests of the VGA. IBM VGA Technical Reference: "Graphics Controller Registers" (write
//! and read modes), "Sequencer Registers" (map mask, memory mode), "Attribute Controller Registers",
//! "Video DAC"; Bochs VBE display API.

use super::*;

pub(super) fn out(vga: &mut Vga, index_port: u16, index: u8, value: u8) {
    PortDevice::write(
        vga,
        0,
        index_port,
        2,
        u32::from(value) << 8 | u32::from(index),
    );
}
fn poke(vga: &mut Vga, at: u64, byte: u8) {
    MmioDevice::write(vga, 0, at, &[byte]);
}
fn peek(vga: &mut Vga, at: u64) -> u8 {
    let mut byte = [0];
    MmioDevice::read(vga, 0, at, &mut byte);
    byte[0]
}
pub(super) fn dispi(vga: &mut Vga, index: u16, value: u16) {
    PortDevice::write(vga, 0, offset::DISPI, 2, index.into());
    PortDevice::write(vga, 0, offset::DISPI + 1, 2, value.into());
}
fn read_dispi(vga: &mut Vga, index: u16) -> u16 {
    PortDevice::write(vga, 0, offset::DISPI, 2, index.into());
    PortDevice::read(vga, 0, offset::DISPI + 1, 2) as u16
}
pub(super) fn video_mode(vga: &mut Vga, width: u16, height: u16, bpp: u16) {
    for (index, value) in [(4, 0), (1, width), (2, height), (3, bpp), (4, 0x41)] {
        dispi(vga, index, value);
    }
}

/// 16-colour planar memory as modes 0Dh-12h set it.
pub(super) fn planar() -> Vga {
    let mut vga = Vga::new();
    vga.set_text_mode();
    out(&mut vga, port::SEQUENCER_INDEX, 4, 0x06);
    out(&mut vga, port::SEQUENCER_INDEX, 2, 0x0f);
    out(&mut vga, port::GRAPHICS_INDEX, 5, 0x00);
    out(&mut vga, port::GRAPHICS_INDEX, 6, 0x05);
    vga.clear_memory();
    vga
}

#[test]
fn text_screen_shows_what_was_written_at_b8000() {
    let mut vga = Vga::new();
    vga.set_text_mode();
    for (i, byte) in b"Hi \xb0".iter().enumerate() {
        MmioDevice::write(&mut vga, 0, 0x1_8000 + 160 + 2 * i as u64, &[*byte, 0x1f]);
    }
    out(&mut vga, port::CRTC_INDEX, 0x0f, 83);
    let screen = vga.text().unwrap();
    assert_eq!((screen.columns, screen.cells.len()), (80, 2000));
    assert_eq!(screen.lines()[1], "Hi ░");
    assert_eq!(screen.cells[80].attribute, 0x1f);
    assert_eq!(screen.cursor, Some((1, 3)));
    assert_eq!(peek(&mut vga, 0x1_8000 + 160), b'H');
    assert_eq!(peek(&mut vga, 0x1_8001 + 160), 0x1f);
    assert_eq!(
        peek(&mut vga, 0),
        0xff,
        "A0000h is not decoded in text modes"
    );
}

#[test]
fn text_renders_glyphs_of_plane_2_in_attribute_colours() {
    let mut vga = Vga::new();
    vga.set_text_mode();
    vga.vram
        .write((usize::from(b'A') * 32 + 3) * 4 + 2, &[0x81]);
    MmioDevice::write(&mut vga, 0, 0x1_8000, &[b'A', 0x1e]);
    let frame = vga.render();
    assert_eq!((frame.width, frame.height), (720, 400));
    let line = &frame.pixels[3 * 720..3 * 720 + 9];
    let (yellow, blue) = (0xff_ff55, 0x00_00aa);
    assert_eq!(line[0], yellow);
    assert_eq!(line[1..7], [blue; 6]);
    assert_eq!(line[7..9], [yellow, blue]);
}

#[test]
fn write_mode_0_rotates_sets_and_masks() {
    let mut vga = planar();
    out(&mut vga, port::SEQUENCER_INDEX, 2, 0x0b);
    out(&mut vga, port::GRAPHICS_INDEX, 0, 0x01);
    out(&mut vga, port::GRAPHICS_INDEX, 1, 0x03);
    out(&mut vga, port::GRAPHICS_INDEX, 3, 0x01);
    out(&mut vga, port::GRAPHICS_INDEX, 8, 0xf0);
    poke(&mut vga, 5, 0x41);
    assert_eq!(vga.quad_bytes(20), [0xf0, 0x00, 0x00, 0xa0]);
}

#[test]
fn write_mode_1_copies_latches() {
    let mut vga = planar();
    vga.vram.write(0, &[1, 2, 3, 4]);
    peek(&mut vga, 0);
    out(&mut vga, port::GRAPHICS_INDEX, 5, 0x01);
    poke(&mut vga, 9, 0xff);
    assert_eq!(vga.quad_bytes(36), [1, 2, 3, 4]);
}

#[test]
fn write_modes_2_and_3_and_logical_functions() {
    let mut vga = planar();
    out(&mut vga, port::GRAPHICS_INDEX, 5, 0x02);
    out(&mut vga, port::GRAPHICS_INDEX, 8, 0x0f);
    poke(&mut vga, 0, 0x05);
    assert_eq!(vga.quad_bytes(0), [0x0f, 0, 0x0f, 0]);
    out(&mut vga, port::GRAPHICS_INDEX, 5, 0x03);
    out(&mut vga, port::GRAPHICS_INDEX, 0, 0x02);
    out(&mut vga, port::GRAPHICS_INDEX, 8, 0xff);
    peek(&mut vga, 0);
    poke(&mut vga, 0, 0x03);
    assert_eq!(vga.quad_bytes(0), [0x0c, 3, 0x0c, 0]);
    out(&mut vga, port::GRAPHICS_INDEX, 5, 0x00);
    for (function, expected) in [
        (0x08, 0x0c & 0x3c),
        (0x10, 0x0c | 0x3c),
        (0x18, 0x0c ^ 0x3c),
    ] {
        out(&mut vga, port::GRAPHICS_INDEX, 3, function);
        peek(&mut vga, 0);
        poke(&mut vga, 1, 0x3c);
        assert_eq!(vga.quad_bytes(4)[0], expected);
    }
}

#[test]
fn read_mode_1_compares_colours() {
    let mut vga = planar();
    vga.vram.write(0, &[0b1100, 0b1010, 0, 0]);
    out(&mut vga, port::GRAPHICS_INDEX, 5, 0x08);
    out(&mut vga, port::GRAPHICS_INDEX, 2, 0x03);
    out(&mut vga, port::GRAPHICS_INDEX, 7, 0x0f);
    assert_eq!(peek(&mut vga, 0), 0b1000);
    out(&mut vga, port::GRAPHICS_INDEX, 7, 0x01);
    assert_eq!(peek(&mut vga, 0), 0b1100);
}

#[test]
fn read_map_selects_the_plane() {
    let mut vga = planar();
    vga.vram.write(0, &[1, 2, 3, 4]);
    for plane in 0..4 {
        out(&mut vga, port::GRAPHICS_INDEX, 4, plane);
        assert_eq!(peek(&mut vga, 0), plane + 1);
    }
}

/// 320x200 with 256 colours.
pub(super) fn mode_13h() -> Vga {
    let mut vga = planar();
    out(&mut vga, port::SEQUENCER_INDEX, 4, 0x0e);
    out(&mut vga, port::GRAPHICS_INDEX, 5, 0x40);
    out(&mut vga, port::CRTC_INDEX, 9, 0x41);
    vga.dac[3 * 9..3 * 9 + 3].copy_from_slice(&[0x3f, 0, 0x20]);
    vga
}

#[test]
fn chain_4_is_linear_and_renders_through_the_dac() {
    let mut vga = mode_13h();
    poke(&mut vga, 321, 9);
    assert_eq!(peek(&mut vga, 321), 9);
    let frame = vga.render();
    assert_eq!((frame.width, frame.height), (320, 200));
    assert_eq!(frame.pixels[321], 0xff_0082);
}

#[test]
fn mode_x_writes_four_pixels_by_map_mask() {
    let mut vga = mode_13h();
    out(&mut vga, port::SEQUENCER_INDEX, 4, 0x06);
    out(&mut vga, port::SEQUENCER_INDEX, 2, 0x06);
    poke(&mut vga, 80, 9);
    let frame = vga.render();
    let line: Vec<bool> = frame.pixels[320..324]
        .iter()
        .map(|p| *p == 0xff_0082)
        .collect();
    assert_eq!(line, [false, true, true, false]);
    out(&mut vga, port::CRTC_INDEX, 0x0d, 80);
    assert_eq!(
        vga.render().pixels[1],
        0xff_0082,
        "start address scrolls by four pixels"
    );
}

#[test]
fn planar_graphics_render_through_palette() {
    let mut vga = planar();
    out(&mut vga, port::CRTC_INDEX, 9, 0x40);
    poke(&mut vga, 0, 0x80);
    let frame = vga.render();
    assert_eq!((frame.width, frame.height), (640, 400));
    assert_eq!(frame.pixels[..2], [0xff_ffff, 0]);
}

#[test]
fn dispi_identifies_and_reports_limits() {
    let mut vga = Vga::new();
    assert_eq!(
        (read_dispi(&mut vga, 0), read_dispi(&mut vga, 10)),
        (0xb0c5, 256)
    );
    dispi(&mut vga, 0, 0xb0c2);
    assert_eq!(read_dispi(&mut vga, 0), 0xb0c2);
    dispi(&mut vga, 4, 2);
    let caps = [1, 2, 3].map(|index| read_dispi(&mut vga, index));
    assert_eq!(caps, [2560, 1600, 32]);
}

#[test]
fn largest_mode_fits_and_renders_from_the_framebuffer() {
    let mut vga = Vga::new();
    video_mode(&mut vga, 2560, 1600, 32);
    assert_eq!(read_dispi(&mut vga, 4) & 1, 1);
    vga.write_vram((1599 * 2560 + 2559) * 4, &[0x33, 0x22, 0x11, 0]);
    let frame = vga.render();
    assert_eq!((frame.width, frame.height), (2560, 1600));
    assert_eq!(frame.pixels.last(), Some(&0x11_2233));
    assert!(vga.text().is_none());
    vga.write_vram(VRAM_SIZE as u64 - 1, &[1, 2, 3]);
    vga.write_vram(u64::MAX, &[1]);
}

#[test]
fn banks_cover_all_of_video_memory_and_no_more() {
    let mut vga = Vga::new();
    video_mode(&mut vga, 1024, 768, 8);
    for bank in [0u16, 1, 11, 255] {
        dispi(&mut vga, 5, bank);
        poke(&mut vga, 0xffff, 0x5a);
        let mut byte = [0];
        vga.read_vram(u64::from(bank) * 0x1_0000 + 0xffff, &mut byte);
        assert_eq!(byte, [0x5a], "bank {bank}");
        assert_eq!(peek(&mut vga, 0xffff), 0x5a);
    }
    dispi(&mut vga, 5, 256);
    assert_eq!(
        read_dispi(&mut vga, 5),
        255,
        "a bank past the end is refused"
    );
    assert_eq!(peek(&mut vga, 0x1_0000), 0xff, "the window has 64 KiB");
}

#[test]
fn sixteen_bit_pixels_and_panning() {
    let mut vga = Vga::new();
    video_mode(&mut vga, 640, 480, 16);
    dispi(&mut vga, 6, 800);
    dispi(&mut vga, 8, 100);
    dispi(&mut vga, 9, 10);
    vga.write_vram((10 * 800 + 100) * 2, &0xf800u16.to_le_bytes());
    assert_eq!(vga.render().pixels[0], 0xff_0000);
    dispi(&mut vga, 8, 200);
    assert_eq!(
        read_dispi(&mut vga, 8),
        100,
        "would show past the line's end"
    );
}

#[test]
fn impossible_mode_is_not_switched_on() {
    let mut vga = Vga::new();
    video_mode(&mut vga, 0, 480, 32);
    assert_eq!(read_dispi(&mut vga, 4) & 1, 0);
    dispi(&mut vga, 1, 4000);
    assert_eq!(read_dispi(&mut vga, 1), 0);
}

#[test]
fn crtc_protection_attribute_flip_flop_and_dac() {
    let mut vga = Vga::new();
    vga.set_text_mode();
    out(&mut vga, port::CRTC_INDEX, 0, 0x11);
    assert_eq!(vga.crtc[0], 0x5f, "registers 0-7 are protected");
    PortDevice::read(&mut vga, 0, port::STATUS, 1);
    for value in [0x10, 0x41] {
        PortDevice::write(&mut vga, 0, port::ATTRIBUTE, 1, value);
    }
    assert_eq!(vga.attr[0x10], 0x41);
    PortDevice::write(&mut vga, 0, port::DAC_WRITE, 1, 255);
    for value in [1, 2, 3, 4] {
        PortDevice::write(&mut vga, 0, port::DAC_DATA, 1, value);
    }
    assert_eq!((vga.dac[765..768].to_vec(), vga.dac[0]), (vec![1, 2, 3], 4));
    assert_eq!(PortDevice::read(&mut vga, 0, port::MONO_STATUS, 1), 0xff);
}

#[test]
fn retrace_bits_follow_the_clock() {
    let mut vga = Vga::new();
    let mut bits = |line: u64| PortDevice::read(&mut vga, line * LINE + 1, port::STATUS, 1) & 9;
    assert_eq!((bits(10), bits(405), bits(412)), (0, 1, 9));
}

#[test]
fn random_register_traffic_never_panics() {
    let mut vga = Vga::new();
    let mut seed = 3u32;
    for step in 0..60_000u64 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (port, value) = ((seed >> 8) as u16 & 0x3f, seed >> 16);
        match seed >> 30 {
            0 => dispi(
                &mut vga,
                port & 15,
                value as u16 & !0x41 | u16::from(port & 48 == 0),
            ),
            1 => poke(&mut vga, seed.into(), value as u8),
            2 => PortDevice::write(&mut vga, step, port, 2, value),
            _ => drop((
                peek(&mut vga, seed.into()),
                PortDevice::read(&mut vga, step, port, 1),
            )),
        }
        if step % 4096 == 0 {
            assert!(vga.render().pixels.len() <= 2560 * 1600);
            assert!(vga.text().is_none_or(|text| text.columns <= 256));
        }
    }
}
