//! The setup header of a bzImage. Linux `Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel
//! Header".

use super::error::BootError;
use std::path::Path;

/// Offset of the header's first field, `setup_sects`.
pub(super) const HEADER_START: usize = 0x1f1;
/// The oldest accepted protocol.
const MIN_VERSION: u16 = 0x0204;
/// `loadflags`: the protected-mode part is loaded at 1 MiB or above.
const LOADED_HIGH: u8 = 1 << 0;
/// The largest header end that is copied: the next field of the zero page starts at 0x290.
const HEADER_LIMIT: usize = 0x290;

/// The fields that placement needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupHeader {
    /// Boot protocol version, major in the high byte.
    pub version: u16,
    /// Offset of the protected-mode part in the file, in bytes.
    pub payload_offset: usize,
    /// The highest address that the initial RAM disk may touch.
    pub initrd_addr_max: u32,
    /// The kernel may be loaded anywhere that is aligned.
    pub relocatable: bool,
    /// Alignment of a relocatable kernel, in bytes (at least 1).
    pub alignment: u64,
    /// Where the kernel wants to run (0 before protocol 2.10).
    pub pref_address: u64,
    /// Bytes that the kernel needs from its run address before it reads the memory map.
    pub init_size: u64,
    /// Longest command line, in bytes without the NUL.
    pub cmdline_size: usize,
    /// The header's bytes, for the zero page at the same offset.
    pub raw: Vec<u8>,
}

impl SetupHeader {
    /// Reads and checks the header of `image`; `path` names it in errors.
    /// # Errors
    /// [`BootError`] for anything that is not a complete bzImage of protocol 2.04 or later.
    pub fn parse(image: &[u8], path: &Path) -> Result<Self, BootError> {
        let owned = || path.to_path_buf();
        let not_bz = |what| BootError::NotBzImage {
            path: owned(),
            what,
        };
        if image.is_empty() {
            return Err(BootError::Empty { path: owned() });
        }
        if let Some(what) = foreign_format(image) {
            return Err(not_bz(what));
        }
        if image.len() < 0x264 {
            if u16_at(image, 0x1fe) == Some(0xaa55) && image.get(0x202..0x206) == Some(b"HdrS") {
                let have = image.len() as u64;
                return Err(BootError::Truncated {
                    path: owned(),
                    have,
                    need: 0x264,
                });
            }
            return Err(not_bz("it is too small to hold a boot header"));
        }
        if u16_at(image, 0x1fe) != Some(0xaa55) {
            return Err(not_bz("no 0xaa55 boot signature"));
        }
        if image.get(0x202..0x206) != Some(b"HdrS") {
            return Err(not_bz("no HdrS mark"));
        }
        let version = u16_at(image, 0x206).unwrap_or(0);
        if version < MIN_VERSION {
            return Err(BootError::OldProtocol {
                path: owned(),
                version,
            });
        }
        if image[0x211] & LOADED_HIGH == 0 {
            return Err(not_bz("it is an old zImage"));
        }
        let sectors = if image[0x1f1] == 0 {
            4
        } else {
            usize::from(image[0x1f1])
        };
        let payload_offset = (sectors + 1) * 512;
        // syssize: the protected-mode part in 16-byte paragraphs; the last one may be partial.
        let paragraphs = u64::from(u32_at(image, 0x1f4));
        let need = payload_offset as u64 + (paragraphs * 16).saturating_sub(15).max(1);
        if (image.len() as u64) < need {
            return Err(BootError::Truncated {
                path: owned(),
                have: image.len() as u64,
                need,
            });
        }
        let since = |v: u16, value: u64, old: u64| if version >= v { value } else { old };
        let payload = (image.len() - payload_offset) as u64;
        let header_end = (0x202 + usize::from(image[0x201])).clamp(0x230, HEADER_LIMIT);
        let init_size = since(0x20a, u64::from(u32_at(image, 0x260)), 0).max(payload);
        Ok(Self {
            version,
            payload_offset,
            initrd_addr_max: u32_at(image, 0x22c),
            relocatable: since(0x205, u64::from(image[0x234]), 0) != 0,
            alignment: since(0x205, u64::from(u32_at(image, 0x230)), 1).max(1),
            pref_address: since(0x20a, u64_at(image, 0x258), 0),
            init_size,
            cmdline_size: since(0x206, u64::from(u32_at(image, 0x238)), 255).min(65535) as usize,
            raw: image[HEADER_START..header_end.min(image.len())].to_vec(),
        })
    }
}

/// Names a well-known format that is often given by mistake.
fn foreign_format(image: &[u8]) -> Option<&'static str> {
    match image {
        [0x7f, b'E', b'L', b'F', ..] => Some("it is an ELF file, perhaps the uncompressed vmlinux"),
        [0x1f, 0x8b, ..] => Some("it is a gzip file"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("it is an xz file"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("it is a zstd file"),
        [b'0', b'7', b'0', b'7', b'0', ..] => Some("it is a cpio archive, perhaps the initrd"),
        _ => None,
    }
}

fn u16_at(image: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(image.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(image: &[u8], at: usize) -> u32 {
    image
        .get(at..at + 4)
        .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn u64_at(image: &[u8], at: usize) -> u64 {
    u64::from(u32_at(image, at)) | u64::from(u32_at(image, at + 4)) << 32
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A bzImage of protocol 2.15 with `payload` bytes of protected-mode code.
    pub fn sample(payload: usize) -> Vec<u8> {
        let mut image = vec![0u8; 1024 + payload];
        image[0x1f1] = 1;
        image[0x1f4..0x1f8].copy_from_slice(&((payload as u32).div_ceil(16)).to_le_bytes());
        image[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
        image[0x200..0x202].copy_from_slice(&[0xeb, 0x66]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        image[0x211] = 1;
        image[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        image[0x230..0x234].copy_from_slice(&0x0020_0000u32.to_le_bytes());
        image[0x234] = 1;
        image[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
        image[0x258..0x260].copy_from_slice(&0x0100_0000u64.to_le_bytes());
        image[0x260..0x264].copy_from_slice(&0x0030_0000u32.to_le_bytes());
        for (i, b) in image[1024..].iter_mut().enumerate() {
            *b = i as u8;
        }
        image
    }

    fn error(image: &[u8]) -> String {
        SetupHeader::parse(image, Path::new("/x/vmlinuz"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn reads_a_modern_header() {
        let h = SetupHeader::parse(&sample(5000), Path::new("k")).unwrap();
        assert_eq!(h.version, 0x20f);
        assert_eq!(h.payload_offset, 1024);
        assert_eq!((h.pref_address, h.init_size), (0x0100_0000, 0x0030_0000));
        assert!(h.relocatable);
        assert_eq!(h.raw.len(), 0x202 + 0x66 - 0x1f1);
    }

    #[test]
    fn wrong_files_are_named() {
        assert!(error(b"").contains("/x/vmlinuz is empty"));
        assert!(error(b"hello").contains("not a bzImage"));
        assert!(error(&[0u8; 4096]).contains("0xaa55"));
        assert!(error(b"\x7fELF....").contains("ELF"));
        assert!(error(&sample(5000)[..3000]).contains("truncated"));
        assert!(error(&sample(5000)[..0x240]).contains("truncated"));
        let mut old = sample(64);
        old[0x206] = 3;
        assert!(error(&old).contains("2.03"));
        let mut zimage = sample(64);
        zimage[0x211] = 0;
        assert!(error(&zimage).contains("zImage"));
    }

    #[test]
    fn no_prefix_or_bit_flip_panics() {
        let image = sample(600);
        for len in 0..image.len() {
            let _ = SetupHeader::parse(&image[..len], Path::new("k"));
        }
        for at in 0x1f1..0x270 {
            for value in [0, 0x80, 0xff] {
                let mut broken = image.clone();
                broken[at] = value;
                let _ = SetupHeader::parse(&broken, Path::new("k"));
            }
        }
    }
}
