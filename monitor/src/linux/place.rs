//! Where everything goes in guest memory.
//!
//! | guest physical | what |
//! |---|---|
//! | 0x01000 | GDT |
//! | 0x10000 | zero page |
//! | 0x20000 | command line |
//! | preferred address, else 1 MiB | kernel |
//! | top of RAM, below `initrd_addr_max` | initial RAM disk, page aligned |

use super::GuestMemory;
use super::boot_params::ZeroPage;
use super::e820::{LOW_RAM_END, memory_map};
use super::entry::{LinuxEntry, gdt_bytes};
use super::error::BootError;
use super::header::SetupHeader;
use crate::bounded_file;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const GDT_AT: u32 = 0x1000;
const ZERO_PAGE_AT: u32 = 0x1_0000;
const CMDLINE_AT: u32 = 0x2_0000;
const KERNEL_AT: u64 = 0x10_0000;
const PAGE: u64 = 4096;

/// The files of one boot.
#[derive(Clone, Debug, Default)]
pub struct BootImages {
    /// Names the kernel in errors.
    pub kernel_path: PathBuf,
    /// The bzImage.
    pub kernel: Vec<u8>,
    /// The initial RAM disk and its name.
    pub initrd: Option<(PathBuf, Vec<u8>)>,
    /// The kernel's command line, without a NUL.
    pub cmdline: String,
    /// Physical address of the ACPI RSDP, 0 to let the kernel search.
    pub rsdp: u64,
}

impl BootImages {
    /// Reads the files for a guest with `memory` bytes of RAM.
    /// # Errors
    /// [`BootError`] for a file that is missing, unreadable, empty or larger than guest memory.
    pub fn read(
        kernel: &Path,
        initrd: Option<&Path>,
        cmdline: &str,
        rsdp: u64,
        memory: u64,
    ) -> Result<Self, BootError> {
        let initrd = match initrd {
            Some(path) => Some((path.to_path_buf(), load_file(path, "--initrd", memory)?)),
            None => None,
        };
        Ok(Self {
            kernel_path: kernel.to_path_buf(),
            kernel: load_file(kernel, "--kernel", memory)?,
            initrd,
            cmdline: cmdline.to_owned(),
            rsdp,
        })
    }

    /// Checks everything that [`boot`] would refuse on a machine with `memory` bytes of RAM.
    /// # Errors
    /// [`BootError`], as [`boot`].
    pub fn check(&self, memory: u64) -> Result<(), BootError> {
        Placement::find(self, memory).map(drop)
    }
}

/// Where the images go.
struct Placement {
    header: SetupHeader,
    load: u64,
    /// Address and size; (0, 0) without an initial RAM disk.
    initrd: (u32, u32),
}

impl Placement {
    fn find(images: &BootImages, memory: u64) -> Result<Self, BootError> {
        let path = &images.kernel_path;
        let header = SetupHeader::parse(&images.kernel, path)?;
        check_cmdline(&images.cmdline, &header, path)?;
        let payload = (images.kernel.len() - header.payload_offset) as u64;
        let (load, kernel_end) = place_kernel(&header, payload, memory, path)?;
        let initrd = match &images.initrd {
            Some((name, data)) => {
                place_initrd(&header, data.len() as u64, kernel_end, memory, name)?
            }
            None => (0, 0),
        };
        Ok(Self {
            header,
            load,
            initrd,
        })
    }
}

/// Reads a boot file for a guest with `memory` bytes of RAM; `option` is the command-line option
/// that named it.
/// # Errors
/// [`BootError::Missing`], [`BootError::Unreadable`], [`BootError::Empty`] or
/// [`BootError::TooLarge`].
fn load_file(path: &Path, option: &'static str, memory: u64) -> Result<Vec<u8>, BootError> {
    let path_buf = || path.to_path_buf();
    match bounded_file::read(path, memory) {
        Ok(Some(data)) if data.is_empty() => Err(BootError::Empty { path: path_buf() }),
        Ok(Some(data)) => Ok(data),
        Ok(None) => Err(BootError::TooLarge {
            path: path_buf(),
            option,
            memory,
        }),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(BootError::Missing {
            path: path_buf(),
            option,
        }),
        Err(source) => Err(BootError::Unreadable {
            path: path_buf(),
            source,
        }),
    }
}

/// Places kernel, initial RAM disk, command line, zero page and GDT in `memory`.
/// # Errors
/// [`BootError`]; guest memory may hold parts of the images then.
pub fn boot(memory: &dyn GuestMemory, images: &BootImages) -> Result<LinuxEntry, BootError> {
    let Placement {
        header,
        load,
        initrd,
    } = Placement::find(images, memory.size())?;
    let payload = &images.kernel[header.payload_offset..];
    memory.write(load, payload)?;
    if let Some((_, data)) = &images.initrd {
        memory.write(u64::from(initrd.0), data)?;
    }
    let mut cmdline = images.cmdline.as_bytes().to_vec();
    cmdline.push(0);
    memory.write(u64::from(CMDLINE_AT), &cmdline)?;
    let gdt = gdt_bytes();
    memory.write(u64::from(GDT_AT), &gdt)?;
    let zero_page = ZeroPage {
        header: &header,
        code32_start: load as u32,
        cmdline: CMDLINE_AT,
        initrd,
        e820: &memory_map(memory.size()),
        memory: memory.size(),
        rsdp: images.rsdp,
    };
    memory.write(u64::from(ZERO_PAGE_AT), &zero_page.bytes())?;
    Ok(LinuxEntry {
        eip: load as u32,
        esi: ZERO_PAGE_AT,
        gdt: GDT_AT,
        gdt_limit: gdt.len() as u16 - 1,
    })
}

pub(super) fn check_cmdline(
    cmdline: &str,
    header: &SetupHeader,
    path: &Path,
) -> Result<(), BootError> {
    if cmdline.bytes().any(|b| b == 0) {
        return Err(BootError::CommandLineNul);
    }
    // The kernel's limit, and the room between the command line and the EBDA.
    let max = header
        .cmdline_size
        .min((LOW_RAM_END - u64::from(CMDLINE_AT)) as usize - 1);
    if cmdline.len() > max {
        return Err(BootError::CommandLineTooLong {
            path: path.to_path_buf(),
            len: cmdline.len(),
            max,
        });
    }
    Ok(())
}

/// The kernel's load address and the end of the memory that it needs to start. A kernel that is
/// loaded below its preferred address moves itself there, so the need is the same.
pub(super) fn place_kernel(
    header: &SetupHeader,
    payload: u64,
    memory: u64,
    path: &Path,
) -> Result<(u64, u64), BootError> {
    let aligned = header.pref_address.is_multiple_of(header.alignment);
    let wanted = header.relocatable && aligned && header.pref_address >= KERNEL_AT;
    let load = if wanted {
        header.pref_address
    } else {
        KERNEL_AT
    };
    let run = load.max(header.pref_address);
    let need = run.saturating_add(header.init_size.max(payload));
    if need > memory {
        return Err(BootError::KernelTooLarge {
            path: path.to_path_buf(),
            need,
            memory,
        });
    }
    Ok((load, need))
}

/// Address and size of the initial RAM disk: as high as RAM and the kernel's limit allow.
pub(super) fn place_initrd(
    header: &SetupHeader,
    size: u64,
    kernel_end: u64,
    memory: u64,
    path: &Path,
) -> Result<(u32, u32), BootError> {
    let top = memory.min(u64::from(header.initrd_addr_max) + 1);
    let room = top.saturating_sub(kernel_end.next_multiple_of(PAGE));
    if size > room {
        return Err(BootError::InitrdTooLarge {
            path: path.to_path_buf(),
            size,
            room,
        });
    }
    let at = (top - size) & !(PAGE - 1);
    if at < kernel_end {
        return Err(BootError::InitrdTooLarge {
            path: path.to_path_buf(),
            size,
            room,
        });
    }
    Ok((at as u32, size as u32))
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::sample;
    use super::super::test_memory::VecMemory;
    use super::*;

    fn images(payload: usize, initrd: usize) -> BootImages {
        BootImages {
            kernel_path: "vmlinuz".into(),
            kernel: sample(payload),
            initrd: (initrd > 0).then(|| ("initrd.gz".into(), vec![0x5a; initrd])),
            cmdline: "console=ttyS0".into(),
            rsdp: 0xe_0000,
        }
    }

    #[test]
    fn everything_is_where_the_zero_page_says() {
        let memory = VecMemory::new(64 << 20);
        let entry = boot(&memory, &images(5000, 10_000)).unwrap();
        assert_eq!(entry.eip, 0x0100_0000);
        let zp = u64::from(entry.esi);
        assert_eq!(memory.bytes(0x0100_0000, 5000), sample(5000)[1024..]);
        assert_eq!(memory.u32(zp + 0x202), u32::from_le_bytes(*b"HdrS"));
        let (at, size) = (u64::from(memory.u32(zp + 0x218)), memory.u32(zp + 0x21c));
        assert_eq!(size, 10_000);
        assert_eq!(at % 4096, 0);
        assert!(at + u64::from(size) <= 64 << 20);
        assert_eq!(memory.bytes(at, 10_000), vec![0x5a; 10_000]);
        let cmd = u64::from(memory.u32(zp + 0x228));
        assert_eq!(memory.bytes(cmd, 14), b"console=ttyS0\0");
        assert_eq!(memory.u32(zp + 0x214), 0x0100_0000);
        // screen_info: mode 3, 80 columns, 25 rows, a VGA.
        assert_eq!(memory.bytes(zp + 0x06, 2), [3, 80]);
        assert_eq!(memory.bytes(zp + 0x0e, 2), [25, 1]);
        assert_eq!(
            memory.bytes(zp + 0x1e8, 1)[0] as usize,
            memory_map(64 << 20).len()
        );
        assert_eq!(memory.bytes(u64::from(entry.gdt) + 16, 8)[5], 0x9b);
    }

    #[test]
    fn an_unrelocatable_kernel_goes_to_1_mib() {
        let memory = VecMemory::new(64 << 20);
        let mut i = images(100, 0);
        i.kernel[0x234] = 0;
        assert_eq!(boot(&memory, &i).unwrap().eip, 0x10_0000);
    }

    #[test]
    fn initrd_respects_the_kernels_limit() {
        let memory = VecMemory::new(64 << 20);
        let mut i = images(100, 4097);
        i.kernel[0x22c..0x230].copy_from_slice(&0x02ff_ffffu32.to_le_bytes());
        let entry = boot(&memory, &i).unwrap();
        let at = memory.u32(u64::from(entry.esi) + 0x218);
        assert_eq!(at, 0x0300_0000 - 8192);
    }

    #[test]
    fn too_little_memory_is_one_clear_sentence() {
        let text = boot(&VecMemory::new(8 << 20), &images(100, 0))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("19 MiB") && text.contains("8 MiB") && text.contains("--memory"),
            "{text}"
        );
        let text = boot(&VecMemory::new(20 << 20), &images(100, 2 << 20))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("initrd.gz") && text.contains("--memory"),
            "{text}"
        );
    }

    #[test]
    fn command_line_limits() {
        let memory = VecMemory::new(64 << 20);
        let mut i = images(100, 0);
        i.cmdline = "x".repeat(2048);
        assert!(matches!(
            boot(&memory, &i),
            Err(BootError::CommandLineTooLong { max: 2047, .. })
        ));
        i.cmdline = "x".repeat(2047);
        assert!(boot(&memory, &i).is_ok());
        i.cmdline = "a\0b".into();
        assert!(matches!(boot(&memory, &i), Err(BootError::CommandLineNul)));
    }

    #[test]
    fn missing_empty_and_endless_files_are_named() {
        let text = load_file(Path::new("/nonexistent/bz"), "--kernel", 1 << 20)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("/nonexistent/bz") && text.contains("--kernel"),
            "{text}"
        );
        let text = load_file(Path::new("/dev/null"), "--initrd", 1 << 20)
            .unwrap_err()
            .to_string();
        assert!(text.contains("empty"), "{text}");
        let text = load_file(Path::new("/dev/zero"), "--initrd", 1 << 20)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("/dev/zero does not fit into the 1 MiB"),
            "{text}"
        );
        assert!(matches!(
            load_file(Path::new("/"), "--kernel", 1 << 20),
            Err(BootError::Unreadable { .. })
        ));
    }
}
