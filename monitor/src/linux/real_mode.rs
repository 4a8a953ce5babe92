//! A kernel as a boot loader in real mode leaves it: the 16-bit entry of the boot protocol, for
//! kernels that start under firmware. Linux `Documentation/arch/x86/boot.rst`, "The Real-Mode
//! Kernel Header" and "Running the Kernel".
//!
//! | guest physical | what |
//! |---|---|
//! | 0x10000 | setup code and header, then its heap and stack |
//! | 0x20000 | command line |
//! | 0x100000 | kernel |
//! | top of RAM less 1 MiB, below `initrd_addr_max` | initial RAM disk, page aligned |

use super::error::BootError;
use super::header::SetupHeader;
use super::place::{BootImages, check_cmdline, place_initrd, place_kernel};

/// Where the setup code goes.
pub const SETUP_AT: u32 = 0x1_0000;
/// Where the command line goes.
pub const CMDLINE_AT: u32 = 0x2_0000;
/// Where the protected-mode part goes.
pub const KERNEL_AT: u32 = 0x10_0000;
/// What firmware may keep at the top of RAM, in bytes: SeaBIOS takes up to 256 KiB for tables.
const FIRMWARE_TOP: u64 = 1 << 20;

/// `type_of_loader`: none of those with a number of their own.
const LOADER_UNDEFINED: u8 = 0xff;
/// `loadflags`: `heap_end_ptr` is valid.
const CAN_USE_HEAP: u8 = 1 << 7;

/// The parts of a kernel and their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealModeKernel {
    /// The setup code with its header filled in, for [`SETUP_AT`].
    pub setup: Vec<u8>,
    /// The protected-mode part, for [`KERNEL_AT`].
    pub kernel: Vec<u8>,
    /// The command line with its NUL, for [`CMDLINE_AT`].
    pub cmdline: Vec<u8>,
    /// The initial RAM disk and its place.
    pub initrd: Option<(u32, Vec<u8>)>,
}

impl RealModeKernel {
    /// Splits the images and fills the header in for a machine with `memory` bytes of RAM.
    /// # Errors
    /// [`BootError`] as for a direct boot.
    pub fn new(images: &BootImages, memory: u64) -> Result<Self, BootError> {
        let path = &images.kernel_path;
        let header = SetupHeader::parse(&images.kernel, path)?;
        check_cmdline(&images.cmdline, &header, path)?;
        let (setup, kernel) = images.kernel.split_at(header.payload_offset);
        let usable = memory.saturating_sub(FIRMWARE_TOP);
        let (_, end) = place_kernel(&header, kernel.len() as u64, usable, path)?;
        let initrd = images
            .initrd
            .as_ref()
            .map(|(path, data)| {
                let (at, _) = place_initrd(&header, data.len() as u64, end, usable, path)?;
                Ok::<_, BootError>((at, data.clone()))
            })
            .transpose()?;
        let mut setup = setup.to_vec();
        let mut put = |at: usize, data: &[u8]| setup[at..at + data.len()].copy_from_slice(data);
        put(0x210, &[LOADER_UNDEFINED]);
        let flags = images.kernel[0x211] | CAN_USE_HEAP;
        put(0x211, &[flags]);
        if let Some((at, data)) = &initrd {
            put(0x218, &at.to_le_bytes());
            put(0x21c, &(data.len() as u32).to_le_bytes());
        }
        // The heap ends where the stack's 512 bytes begin, below the command line.
        put(0x224, &0xfe00u16.to_le_bytes());
        put(0x228, &CMDLINE_AT.to_le_bytes());
        let mut cmdline = images.cmdline.as_bytes().to_vec();
        cmdline.push(0);
        Ok(Self {
            setup,
            kernel: kernel.to_vec(),
            cmdline,
            initrd,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::sample;
    use super::*;

    #[test]
    fn header_names_every_place() {
        let images = BootImages {
            kernel_path: "vmlinuz".into(),
            kernel: sample(5000),
            initrd: Some(("initrd".into(), vec![7; 9000])),
            cmdline: "quiet".into(),
            rsdp: 0,
        };
        let k = RealModeKernel::new(&images, 64 << 20).unwrap();
        let word = |at: usize| u32::from_le_bytes(k.setup[at..at + 4].try_into().unwrap());
        assert_eq!((k.setup.len(), k.kernel.len()), (1024, 5000));
        assert_eq!(k.cmdline, b"quiet\0");
        assert_eq!((word(0x228), word(0x21c)), (CMDLINE_AT, 9000));
        assert_eq!(k.setup[0x210], 0xff);
        assert_eq!(k.setup[0x211] & 0x81, 0x81);
        let at = k.initrd.unwrap().0;
        assert_eq!((word(0x218), at % 4096), (at, 0));
        assert!(u64::from(at) + 9000 <= (63 << 20));
        let small = RealModeKernel::new(&images, 8 << 20).unwrap_err();
        assert!(small.to_string().contains("--memory"));
    }
}
