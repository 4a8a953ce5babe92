//! Firmware: its images, and what the board tells it through the configuration device.
//!
//! Made for SeaBIOS (`src/fw/paravirt.c`, `src/romfile.c` and `docs/Runtime_config.md` of its
//! source name the files and items).

mod linux_rom;
mod loader;
pub mod mp_table;
pub mod shadow;
pub mod smbios;

use self::smbios::Smbios;
use crate::acpi::AcpiHardware;
use crate::bounded_file;
use crate::linux::{E820Kind, RealModeKernel, memory_map};
use ring3_devices::fw_cfg::{FileError, FwCfg, key};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The option ROM's name by which SeaBIOS finds it: vendor and device id of the display adapter.
const VGA_ROM: &str = "pci1234,1111.rom";

/// What a machine may boot from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootDevice {
    /// The first floppy drive.
    Floppy,
    /// The first hard disk.
    Disk,
    /// The first CD-ROM drive.
    CdRom,
}

/// Why firmware cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// The file.
    #[error("cannot read the firmware image {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// Not a ROM of a size that the board can decode.
    #[error("{} is no BIOS image: that has 64 KiB to 1 MiB, in steps of 64 KiB", path.display())]
    BiosSize {
        /// The file.
        path: PathBuf,
    },
    /// Not an option ROM.
    #[error("{} is no option ROM: it does not begin with 55h AAh, or is larger than 128 KiB", path.display())]
    OptionRom {
        /// The file.
        path: PathBuf,
    },
    /// The option ROM that starts a kernel: a defect of ring3.
    #[error("internal error of ring3, please report it: option ROM: {0}")]
    Rom(String),
    /// The configuration device has no room.
    #[error("firmware configuration")]
    Configuration(#[from] FileError),
}

/// What a machine wants of its firmware.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Bytes of RAM.
    pub memory: u64,
    /// What is tried first.
    pub first: Option<BootDevice>,
    /// Offer the boot menu.
    pub menu: bool,
    /// The drives, by their paths in firmware's device tree.
    pub drives: Vec<(BootDevice, String)>,
    /// A kernel to start before any drive.
    pub kernel: Option<RealModeKernel>,
    /// What the machine says it is.
    pub smbios: Option<Smbios>,
}

/// The images.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The BIOS: ends at 4 GiB.
    pub bios: Vec<u8>,
    /// The display adapter's option ROM.
    pub vga: Vec<u8>,
}

/// Bytes of the smallest and the largest BIOS image; every size is a multiple of the smallest.
const BIOS_SIZE: RangeInclusive<usize> = 0x1_0000..=0x10_0000;
/// Bytes of the largest option ROM.
const OPTION_ROM_SIZE: usize = 0x2_0000;

/// Reads an image of at most `most` bytes; None if it has more.
fn read(path: &Path, most: usize) -> Result<Option<Vec<u8>>, FirmwareError> {
    bounded_file::read(path, most as u64).map_err(|source| FirmwareError::Read {
        path: path.into(),
        source,
    })
}

impl Firmware {
    /// Reads and checks the images.
    /// # Errors
    /// [`FirmwareError`] names the file.
    pub fn read(bios_path: &Path, vga_path: &Path) -> Result<Self, FirmwareError> {
        let fits = |image: &Vec<u8>| {
            BIOS_SIZE.contains(&image.len()) && image.len().is_multiple_of(*BIOS_SIZE.start())
        };
        let bios = read(bios_path, *BIOS_SIZE.end())?.filter(fits);
        let bios = bios.ok_or_else(|| FirmwareError::BiosSize {
            path: bios_path.into(),
        })?;
        let signed = |image: &Vec<u8>| image.starts_with(&[0x55, 0xaa]);
        let vga = read(vga_path, OPTION_ROM_SIZE)?.filter(signed);
        let vga = vga.ok_or_else(|| FirmwareError::OptionRom {
            path: vga_path.into(),
        })?;
        Ok(Self { bios, vga })
    }

    /// What the board tells this firmware.
    /// # Errors
    /// [`FirmwareError::Configuration`].
    pub fn configuration(
        &self,
        hw: &AcpiHardware,
        wishes: &Wishes,
    ) -> Result<FwCfg, FirmwareError> {
        let mut fw_cfg = FwCfg::new();
        fw_cfg.set_item(key::RAM_SIZE, wishes.memory.to_le_bytes().to_vec());
        fw_cfg.set_item(key::CPU_COUNT, 1u16.to_le_bytes().to_vec());
        fw_cfg.set_item(key::MAX_CPUS, 1u16.to_le_bytes().to_vec());
        fw_cfg.set_item(
            key::BOOT_MENU,
            u16::from(wishes.menu).to_le_bytes().to_vec(),
        );
        fw_cfg.set_item(key::IRQ0_OVERRIDE, vec![1]);
        fw_cfg.set_file("etc/e820", e820(wishes.memory))?;
        fw_cfg.set_file(VGA_ROM, self.vga.clone())?;
        // A second is enough to press a key, and nobody waits long without a menu.
        fw_cfg.set_file("etc/boot-menu-wait", 2500u64.to_le_bytes().to_vec())?;
        for (name, contents) in loader::files(hw) {
            fw_cfg.set_file(name, contents)?;
        }
        if let Some(tables) = &wishes.smbios {
            fw_cfg.set_file(smbios::ANCHOR_FILE, tables.anchor(0))?;
            fw_cfg.set_file(smbios::TABLES_FILE, tables.tables.clone())?;
        }
        if let Some(kernel) = &wishes.kernel {
            linux_rom::add(&mut fw_cfg, kernel)?;
        }
        fw_cfg.set_file("bootorder", boot_order(wishes).into_bytes())?;
        // Without anything to boot, firmware stays at its message; it does not start over.
        fw_cfg.set_file("etc/boot-fail-wait", u32::MAX.to_le_bytes().to_vec())?;
        Ok(fw_cfg)
    }
}

/// The file `bootorder`: a path per line. A kernel comes first, then the drives of the wished
/// kind, then disks, CD-ROM drives and floppy drives.
fn boot_order(wishes: &Wishes) -> String {
    let rank = |kind: BootDevice| match kind {
        _ if wishes.first == Some(kind) => 0,
        BootDevice::Disk => 1,
        BootDevice::CdRom => 2,
        BootDevice::Floppy => 3,
    };
    let mut drives: Vec<_> = wishes.drives.iter().collect();
    drives.sort_by_key(|(kind, _)| rank(*kind));
    let kernel = wishes.kernel.iter().map(|_| linux_rom::BOOT_PATH);
    let drives = drives.into_iter().map(|(_, path)| path.as_str());
    kernel.chain(drives).collect::<Vec<_>>().join("\n")
}

/// The RAM that firmware may use, as (base, size, kind) records; it adds its own reservations.
fn e820(memory: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // RAM is one range here: SeaBIOS takes its size from the one that ends below 4 GiB.
    let last = memory_map(memory)
        .into_iter()
        .rfind(|e| e.kind == E820Kind::Ram);
    if let Some(e) = last {
        bytes.extend(0u64.to_le_bytes());
        bytes.extend((e.base + e.size).to_le_bytes());
        bytes.extend((e.kind as u32).to_le_bytes());
    }
    bytes
}

/// The CMOS bytes from which SeaBIOS takes the boot order (38h, 3Dh), diskette drives (10h) and
/// the translation of disk geometries (39h). `floppies`: the kinds of the drives by the codes of
/// byte 10h, 0 for none.
#[must_use]
pub fn cmos(first: Option<BootDevice>, floppies: [u8; 2]) -> Vec<(u8, u8)> {
    const CODE: [(BootDevice, u8); 3] = [
        (BootDevice::Floppy, 1),
        (BootDevice::Disk, 2),
        (BootDevice::CdRom, 3),
    ];
    let code = |device: BootDevice| CODE.iter().find(|c| c.0 == device).map_or(0, |c| c.1);
    // Without a wish: disk, CD-ROM, floppy.
    let mut order = vec![2, 3, 1];
    if let Some(first) = first.map(code) {
        order.retain(|c| *c != first);
        order.insert(0, first);
    }
    // 14h bits 7-6: drives - 1, bit 0: any.
    let types = floppies[0] << 4 | floppies[1] & 0x0f;
    let count = floppies.iter().filter(|f| **f != 0).count() as u8;
    let equipment = 0x06 | if count > 0 { 1 | (count - 1) << 6 } else { 0 };
    vec![
        (0x10, types),
        (0x14, equipment),
        // Bit 0: no check of the boot sector's signature on diskettes.
        (0x38, 0x01 | order[2] << 4),
        // All four disks by LBA.
        (0x39, 0x55),
        (0x3d, order[0] | order[1] << 4),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_order_in_cmos() {
        let of = |first, index| cmos(first, [4, 0]).iter().find(|e| e.0 == index).unwrap().1;
        assert_eq!((of(None, 0x3d), of(None, 0x38)), (0x32, 0x11));
        assert_eq!(
            (
                of(Some(BootDevice::CdRom), 0x3d),
                of(Some(BootDevice::CdRom), 0x38)
            ),
            (0x23, 0x11)
        );
        assert_eq!(
            (of(Some(BootDevice::Floppy), 0x3d), of(None, 0x10)),
            (0x21, 0x40)
        );
        assert_eq!(of(None, 0x14), 0x07);
    }

    #[test]
    fn boot_order_by_path() {
        let drives = [
            (BootDevice::CdRom, "cd"),
            (BootDevice::Floppy, "a"),
            (BootDevice::Disk, "c"),
            (BootDevice::Floppy, "b"),
        ];
        let mut wishes = Wishes {
            drives: drives.map(|(kind, path)| (kind, path.into())).into(),
            ..Wishes::default()
        };
        assert_eq!(boot_order(&wishes), "c\ncd\na\nb");
        wishes.first = Some(BootDevice::Floppy);
        assert_eq!(boot_order(&wishes), "a\nb\nc\ncd");
        wishes.kernel = Some(RealModeKernel {
            setup: vec![],
            kernel: vec![],
            cmdline: vec![],
            initrd: None,
        });
        assert_eq!(
            boot_order(&wishes),
            "/rom@genroms/linuxboot.bin\na\nb\nc\ncd"
        );
    }

    #[test]
    fn memory_is_one_range() {
        let map = e820(512 << 20);
        assert_eq!(map.len(), 20);
        assert_eq!(map[8..16], (512u64 << 20).to_le_bytes());
        assert_eq!(map[16..], [1, 0, 0, 0]);
    }

    #[test]
    fn wrong_images_are_named() {
        let dir = std::env::temp_dir().join(format!("ring3-firmware-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (bios, vga) = (dir.join("bios"), dir.join("vga"));
        std::fs::write(&bios, vec![0; 1000]).unwrap();
        std::fs::write(&vga, [0x55, 0xaa, 1]).unwrap();
        for wrong in [&bios, Path::new("/dev/zero")] {
            let text = Firmware::read(wrong, &vga).unwrap_err().to_string();
            assert!(text.contains("no BIOS image"), "{text}");
        }
        std::fs::write(&bios, vec![0; 0x2_0000]).unwrap();
        assert!(Firmware::read(&bios, &vga).is_ok());
        std::fs::write(&vga, [0; 3]).unwrap();
        let text = Firmware::read(&bios, &vga).unwrap_err().to_string();
        assert!(text.contains("no option ROM"), "{text}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
