//! A picture of the screen as PNG.

use ring3_devices::vga::Frame;

/// Encodes a frame. A screen without pixels becomes one black pixel.
/// # Errors
/// When the encoder refuses the geometry.
pub(super) fn png(frame: &Frame) -> Result<Vec<u8>, png::EncodingError> {
    let complete = frame.width > 0 && frame.pixels.len() == frame.width * frame.height;
    let (width, height, pixels) = if complete {
        (frame.width, frame.height, &frame.pixels[..])
    } else {
        (1, 1, &[0][..])
    };
    let rgb: Vec<u8> = pixels
        .iter()
        .flat_map(|p| [(p >> 16) as u8, (p >> 8) as u8, *p as u8])
        .collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&rgb)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_survive() {
        let frame = Frame {
            width: 2,
            height: 1,
            pixels: vec![0x0012_3456, 0x00ff_0001],
        };
        let bytes = png(&frame).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut buf = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut buf).unwrap();
        assert_eq!(buf, [0x12, 0x34, 0x56, 0xff, 0, 1]);
        assert!(png(&Frame::default()).is_ok());
    }
}
