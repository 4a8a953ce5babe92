//! Pictures of screens, and what must hold for them.

use crate::step::Screenshot;
use std::collections::HashSet;
use std::io::Cursor;

/// A picture of a screen.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The PNG file.
    pub png: Vec<u8>,
    /// The text that it shows, in a text mode.
    pub text: Option<String>,
    width: u32,
    height: u32,
    /// Three bytes each.
    pixels: Vec<u8>,
}

impl Picture {
    /// Decodes a PNG file.
    ///
    /// # Errors
    /// One sentence, when it is none.
    pub fn new(png: Vec<u8>, text: Option<String>) -> Result<Self, String> {
        let strange = |e: &dyn std::fmt::Display| format!("a picture that is none: {e}");
        let mut decoder = png::Decoder::new(Cursor::new(&png));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().map_err(|e| strange(&e))?;
        let size = reader.output_buffer_size().ok_or("a picture without end")?;
        let mut bytes = vec![0; size];
        let info = reader.next_frame(&mut bytes).map_err(|e| strange(&e))?;
        let samples = info.color_type.samples();
        if samples < 3 || info.bit_depth != png::BitDepth::Eight {
            return Err(strange(&"not in colours of 8 bits"));
        }
        let pixels = bytes[..info.buffer_size()]
            .chunks_exact(samples)
            .flat_map(|p| [p[0], p[1], p[2]])
            .collect();
        Ok(Self {
            png,
            text,
            width: info.width,
            height: info.height,
            pixels,
        })
    }

    fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let at = (y as usize * self.width as usize + x as usize) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// Whether it is as the recipe says.
    ///
    /// # Errors
    /// One sentence that says how it differs.
    pub fn check(&self, wanted: &Screenshot) -> Result<(), String> {
        let size = (self.width, self.height);
        if wanted.size.is_some_and(|s| s != size) {
            return Err(format!(
                "picture {} has {} x {} pixels",
                wanted.name, self.width, self.height
            ));
        }
        if let Some(least) = wanted.colours {
            let colours: HashSet<&[u8]> = self.pixels.chunks_exact(3).collect();
            if colours.len() < least {
                return Err(format!(
                    "picture {} has {} colours",
                    wanted.name,
                    colours.len()
                ));
            }
        }
        Ok(())
    }
}

/// How many pixels of two pictures differ; `None` if they have different sizes. Where one of them
/// shows the VGA's doubled pixels or lines as two, and the other as one, these are one. Only the
/// upper six bits of a colour count: the VGA's palette has no more, and monitors fill the rest
/// differently.
#[must_use]
pub fn different_pixels(a: &Picture, b: &Picture) -> Option<usize> {
    let (across, down) = (doubled(a.width, b.width)?, doubled(a.height, b.height)?);
    let six = |pixel: [u8; 3]| pixel.map(|level| level >> 2);
    let places =
        (0..a.height.max(b.height)).flat_map(|y| (0..a.width.max(b.width)).map(move |x| (x, y)));
    let differ = |&(x, y): &(u32, u32)| {
        let of = |p: &Picture, i: usize| p.pixel(x / across[i], y / down[i]);
        six(of(a, 0)) != six(of(b, 1))
    };
    Some(places.filter(differ).count())
}

/// By what to divide places in the larger of two pictures to get those in each.
fn doubled(a: u32, b: u32) -> Option<[u32; 2]> {
    match (a, b) {
        _ if a == b => Some([1, 1]),
        _ if a.checked_mul(2) == Some(b) => Some([2, 1]),
        _ if b.checked_mul(2) == Some(a) => Some([1, 2]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Same;

    fn picture(pixels: &[u8]) -> Picture {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, (pixels.len() / 3) as u32, 1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(pixels).unwrap();
        drop(writer);
        Picture::new(bytes, None).unwrap()
    }

    #[test]
    fn pictures_are_compared_by_pixels() {
        let a = picture(&[0, 0, 0, 1, 2, 3]);
        let b = picture(&[0, 0, 3, 1, 2, 4]);
        assert_eq!(different_pixels(&a, &a), Some(0));
        assert_eq!(different_pixels(&a, &b), Some(1));
        assert_eq!(different_pixels(&a, &picture(&[0; 9])), None);
        let doubled = picture(&[0, 0, 0, 80, 0, 0, 1, 2, 3, 0, 90, 0]);
        assert_eq!(different_pixels(&a, &doubled), Some(2));
        assert_eq!(different_pixels(&doubled, &a), Some(2));
    }

    #[test]
    fn size_and_colours_are_conditions() {
        let wanted = |size, colours| Screenshot {
            name: "x".into(),
            same: Same::Nothing,
            size,
            colours,
        };
        let a = picture(&[0, 0, 0, 1, 2, 3]);
        assert!(a.check(&wanted(Some((2, 1)), Some(2))).is_ok());
        assert!(a.check(&wanted(Some((2, 2)), None)).is_err());
        assert!(a.check(&wanted(None, Some(3))).is_err());
        assert!(Picture::new(b"no".to_vec(), None).is_err());
    }
}
