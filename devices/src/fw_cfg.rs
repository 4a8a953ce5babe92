//! The firmware configuration device that SeaBIOS and Linux know from QEMU.
//!
//! QEMU documentation, "QEMU Firmware Configuration (fw_cfg) Device". Items are read-only but for
//! the DMA interface's reads and skips; writes by the guest are refused.

use crate::bus::{DmaMemory, Nanos, PortDevice};
use std::collections::BTreeMap;

/// Port layout of [`FwCfg`].
pub mod offset {
    /// Selector, 16 bits, little-endian (510h).
    pub const SELECTOR: u16 = 0;
    /// Data, 8 bits (511h).
    pub const DATA: u16 = 1;
    /// DMA address, high then low half, big-endian (514h, 518h).
    pub const DMA: u16 = 4;
}

/// Item numbers with a fixed meaning.
pub mod key {
    /// "QEMU", by which guests find the device.
    pub const SIGNATURE: u16 = 0x00;
    /// Feature bits: 1 traditional, 2 DMA.
    pub const ID: u16 = 0x01;
    /// RAM size in bytes, 64 bits.
    pub const RAM_SIZE: u16 = 0x03;
    /// Processors, 16 bits.
    pub const CPU_COUNT: u16 = 0x05;
    /// Kernel address, 32 bits.
    pub const KERNEL_ADDRESS: u16 = 0x07;
    /// Kernel size, 32 bits.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Initial RAM disk's address, 32 bits.
    pub const INITRD_ADDRESS: u16 = 0x0a;
    /// Its size, 32 bits.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// Kernel.
    pub const KERNEL_DATA: u16 = 0x11;
    /// Initial RAM disk.
    pub const INITRD_DATA: u16 = 0x12;
    /// The command line's address, 32 bits.
    pub const CMDLINE_ADDRESS: u16 = 0x13;
    /// Its size, 32 bits.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// Command line.
    pub const CMDLINE_DATA: u16 = 0x15;
    /// Address of the kernel's real-mode part, 32 bits.
    pub const SETUP_ADDRESS: u16 = 0x16;
    /// Its size, 32 bits.
    pub const SETUP_SIZE: u16 = 0x17;
    /// The real-mode part.
    pub const SETUP_DATA: u16 = 0x18;
    /// The system timer is wired to I/O APIC input 2, 8 bits.
    pub const IRQ0_OVERRIDE: u16 = 0x8002;
    /// Boot menu, 16 bits.
    pub const BOOT_MENU: u16 = 0x0e;
    /// Most processors there can be, 16 bits.
    pub const MAX_CPUS: u16 = 0x0f;
    /// File directory.
    pub const DIRECTORY: u16 = 0x19;
    /// First of the named files.
    pub const FIRST_FILE: u16 = 0x20;
}

mod control {
    pub const ERROR: u32 = 1;
    pub const READ: u32 = 2;
    pub const SKIP: u32 = 4;
    pub const SELECT: u32 = 8;
    pub const WRITE: u32 = 16;
}

/// Bytes of a file name, its terminator included.
const NAME_SIZE: usize = 56;

/// Why a file was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The name has more than 55 bytes.
    #[error("file name longer than 55 bytes")]
    NameTooLong,
    /// There are too many files, or the file is larger than 4 GiB.
    #[error("no room in the file directory")]
    NoRoom,
}

/// The device.
#[derive(Clone, Debug)]
pub struct FwCfg {
    items: BTreeMap<u16, Vec<u8>>,
    /// Names in the order of their keys from [`key::FIRST_FILE`] on.
    names: Vec<String>,
    selected: u16,
    at: usize,
    dma_address: u64,
    dma_pending: Option<u64>,
}

impl Default for FwCfg {
    fn default() -> Self {
        Self::new()
    }
}

impl FwCfg {
    /// A device with its signature and an empty directory.
    #[must_use]
    pub fn new() -> Self {
        let mut device = Self {
            items: BTreeMap::new(),
            names: Vec::new(),
            selected: 0,
            at: 0,
            dma_address: 0,
            dma_pending: None,
        };
        device.set_item(key::SIGNATURE, b"QEMU".to_vec());
        device.set_item(key::ID, 3u32.to_le_bytes().to_vec());
        device.update_directory();
        device
    }

    /// Sets the contents of a numbered item.
    pub fn set_item(&mut self, key: u16, contents: Vec<u8>) {
        self.items.insert(key, contents);
    }

    /// Adds a named file, or replaces one of the same name.
    /// # Errors
    /// [`FileError`].
    pub fn set_file(&mut self, name: &str, contents: Vec<u8>) -> Result<(), FileError> {
        if name.len() >= NAME_SIZE {
            return Err(FileError::NameTooLong);
        }
        if u32::try_from(contents.len()).is_err() || self.names.len() >= 0x1000 {
            return Err(FileError::NoRoom);
        }
        let index = self
            .names
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| {
                self.names.push(name.to_owned());
                self.names.len() - 1
            });
        self.set_item(key::FIRST_FILE + index as u16, contents);
        self.update_directory();
        Ok(())
    }

    fn update_directory(&mut self) {
        let mut directory = (self.names.len() as u32).to_be_bytes().to_vec();
        for (index, name) in self.names.iter().enumerate() {
            let key = key::FIRST_FILE + index as u16;
            let size = self.items.get(&key).map_or(0, Vec::len) as u32;
            directory.extend(size.to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0, 0]);
            let mut field = [0; NAME_SIZE];
            field[..name.len()].copy_from_slice(name.as_bytes());
            directory.extend(field);
        }
        self.set_item(key::DIRECTORY, directory);
    }

    fn select(&mut self, key: u16) {
        // Bits 14 and 15 ask for writing and for architecture items; neither exists here.
        (self.selected, self.at) = (key, 0);
    }

    /// The next bytes of the selected item, zeros past its end.
    fn take(&mut self, buf: &mut [u8]) {
        buf.fill(0);
        if let Some(item) = self.items.get(&self.selected) {
            let rest = &item[self.at.min(item.len())..];
            for (slot, byte) in buf.iter_mut().zip(rest) {
                *slot = *byte;
            }
        }
        self.at = self.at.saturating_add(buf.len());
    }

    /// Whether the guest started a DMA operation that waits for [`FwCfg::run_dma`].
    #[must_use]
    pub fn dma_ready(&self) -> bool {
        self.dma_pending.is_some()
    }

    /// Carries out the DMA operation that the guest started.
    pub fn run_dma(&mut self, memory: &mut dyn DmaMemory) {
        let Some(address) = self.dma_pending.take() else {
            return;
        };
        let mut request = [0; 16];
        if memory.read(address, &mut request).is_err() {
            return;
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, target @ ..] = request;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let done = self.operate(control, length, u64::from_be_bytes(target), memory);
        let status = if done { 0 } else { control::ERROR };
        // A request block that was readable and cannot be written reports to nobody.
        let _ = memory.write(address, &status.to_be_bytes());
    }

    fn operate(&mut self, control: u32, len: u32, to: u64, memory: &mut dyn DmaMemory) -> bool {
        if control & control::SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        if control & control::READ != 0 {
            let mut chunk = [0; 4096];
            let mut done = 0u64;
            while done < u64::from(len) {
                let n = (u64::from(len) - done).min(4096) as usize;
                self.take(&mut chunk[..n]);
                let Some(at) = to.checked_add(done) else {
                    return false;
                };
                if memory.write(at, &chunk[..n]).is_err() {
                    return false;
                }
                done += n as u64;
            }
            return true;
        }
        if control & control::WRITE != 0 {
            return false;
        }
        if control & control::SKIP != 0 {
            self.at = self.at.saturating_add(len as usize);
        }
        true
    }
}

impl PortDevice for FwCfg {
    fn read(&mut self, _now: Nanos, offset: u16, size: u8) -> u32 {
        match (offset, size) {
            (offset::DATA, 1) => {
                let mut byte = [0];
                self.take(&mut byte);
                byte[0].into()
            }
            // "QEMU CFG" tells that the DMA interface is there.
            (offset::DMA, 4) => u32::from_le_bytes(*b"QEMU"),
            (8, 4) => u32::from_le_bytes(*b" CFG"),
            _ => 0,
        }
    }

    fn write(&mut self, _now: Nanos, offset: u16, size: u8, value: u32) {
        match (offset, size) {
            (offset::SELECTOR, 2) => self.select(value as u16),
            (offset::DMA, 4) => self.dma_address = u64::from(value.swap_bytes()) << 32,
            (8, 4) => {
                self.dma_pending = Some(self.dma_address | u64::from(value.swap_bytes()));
                self.dma_address = 0;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::DmaError;

    struct Ram([u8; 0x3000]);
    impl DmaMemory for Ram {
        fn read(&mut self, address: u64, buf: &mut [u8]) -> Result<(), DmaError> {
            let at = address as usize;
            let from = self
                .0
                .get(at..at.wrapping_add(buf.len()))
                .ok_or(DmaError { address })?;
            buf.copy_from_slice(from);
            Ok(())
        }
        fn write(&mut self, address: u64, data: &[u8]) -> Result<(), DmaError> {
            let at = address as usize;
            let to = self
                .0
                .get_mut(at..at.wrapping_add(data.len()))
                .ok_or(DmaError { address })?;
            to.copy_from_slice(data);
            Ok(())
        }
    }

    fn read(device: &mut FwCfg, key: u16, len: usize) -> Vec<u8> {
        device.write(0, offset::SELECTOR, 2, key.into());
        (0..len)
            .map(|_| device.read(0, offset::DATA, 1) as u8)
            .collect()
    }

    fn dma(device: &mut FwCfg, ram: &mut Ram, control: u32, len: u32, to: u64) -> u32 {
        ram.0[0..4].copy_from_slice(&control.to_be_bytes());
        ram.0[4..8].copy_from_slice(&len.to_be_bytes());
        ram.0[8..16].copy_from_slice(&to.to_be_bytes());
        device.write(0, offset::DMA, 4, 0);
        device.write(0, offset::DMA + 4, 4, 0);
        assert!(device.dma_ready());
        device.run_dma(ram);
        u32::from_be_bytes([ram.0[0], ram.0[1], ram.0[2], ram.0[3]])
    }

    #[test]
    fn signature_and_missing_items() {
        let mut device = FwCfg::new();
        assert_eq!(read(&mut device, key::SIGNATURE, 6), b"QEMU\0\0");
        assert_eq!(read(&mut device, 0x7777, 2), [0, 0]);
        assert_eq!(device.read(0, offset::DMA, 4).to_le_bytes(), *b"QEMU");
        assert_eq!(device.read(0, offset::DMA + 4, 4).to_le_bytes(), *b" CFG");
    }

    #[test]
    fn directory_lists_files_in_big_endian() {
        let mut device = FwCfg::new();
        device.set_file("etc/one", vec![1, 2, 3]).unwrap();
        device.set_file("etc/two", vec![4]).unwrap();
        device.set_file("etc/one", vec![9; 5]).unwrap();
        let directory = read(&mut device, key::DIRECTORY, 4 + 128);
        assert_eq!(directory[..12], [0, 0, 0, 2, 0, 0, 0, 5, 0, 0x20, 0, 0]);
        assert_eq!(&directory[12..20], b"etc/one\0");
        assert_eq!(read(&mut device, 0x21, 2), [4, 0]);
        assert_eq!(
            device.set_file(&"x".repeat(56), vec![]),
            Err(FileError::NameTooLong)
        );
    }

    #[test]
    fn dma_selects_skips_and_reads() {
        let (mut device, mut ram) = (FwCfg::new(), Ram([0xcc; 0x3000]));
        device.set_file("f", (0..100).collect()).unwrap();
        assert_eq!(dma(&mut device, &mut ram, 0x0020_000c, 10, 0), 0);
        assert_eq!(dma(&mut device, &mut ram, 0x2, 0x1100, 0x1000), 0);
        assert_eq!(ram.0[0x1000..0x1003], [10, 11, 12]);
        assert_eq!(ram.0[0x1059..0x105c], [99, 0, 0], "zeros past the end");
        assert_eq!(ram.0[0x2100], 0xcc);
    }

    #[test]
    fn dma_errors_are_reported() {
        let (mut device, mut ram) = (FwCfg::new(), Ram([0; 0x3000]));
        assert_eq!(dma(&mut device, &mut ram, 0x2, u32::MAX, 0x2f00), 1);
        assert_eq!(dma(&mut device, &mut ram, 0x2, 4, u64::MAX - 1), 1);
        assert_eq!(
            dma(&mut device, &mut ram, 0x10, 4, 0x1000),
            1,
            "writes are refused"
        );
    }
}
