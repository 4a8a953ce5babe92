//! Direct boot of a Linux kernel: the 32-bit entry of the x86 boot protocol, version 2.04 or
//! later (Linux `Documentation/arch/x86/boot.rst`).
//!
//! [`boot`] puts kernel, command line, initial RAM disk, zero page and a flat GDT into guest
//! memory; [`apply`] puts the processor into the state that the protocol asks for. Old zImage
//! kernels and the EFI hand-over are left out; [`RealModeKernel`] is for the 16-bit entry, which
//! firmware's boot loader uses.

mod boot_params;
mod e820;
mod entry;
mod error;
mod header;
mod place;
mod real_mode;

pub use e820::{E820Entry, E820Kind, memory_map};
pub use entry::{LinuxEntry, apply};
pub use error::BootError;
pub use header::SetupHeader;
pub use place::{BootImages, boot};
pub use real_mode::{CMDLINE_AT, KERNEL_AT, RealModeKernel, SETUP_AT};

/// Guest physical memory as a loader needs it.
pub trait GuestMemory {
    /// Copies `data` to guest physical address `pa`.
    /// # Errors
    /// [`OutOfMemory`] if the range is not inside guest RAM; nothing was written then.
    fn write(&self, pa: u64, data: &[u8]) -> Result<(), OutOfMemory>;
    /// Bytes of RAM, counted from address 0.
    fn size(&self) -> u64;
}

/// A range that is not inside guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest memory has no {len} bytes at {pa:#x}")]
pub struct OutOfMemory {
    /// Guest physical address of the first byte.
    pub pa: u64,
    /// Bytes of the access.
    pub len: u64,
}

#[cfg(test)]
pub(crate) mod test_memory {
    use super::{GuestMemory, OutOfMemory};
    use std::cell::RefCell;

    /// Guest RAM as a plain vector.
    pub struct VecMemory(pub RefCell<Vec<u8>>);

    impl VecMemory {
        pub fn new(size: usize) -> Self {
            Self(RefCell::new(vec![0; size]))
        }
        pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
            self.0.borrow()[at as usize..at as usize + len].to_vec()
        }
        pub fn u32(&self, at: u64) -> u32 {
            u32::from_le_bytes(self.bytes(at, 4).try_into().unwrap())
        }
    }

    impl GuestMemory for VecMemory {
        fn write(&self, pa: u64, data: &[u8]) -> Result<(), OutOfMemory> {
            let mut ram = self.0.borrow_mut();
            let end = pa as usize + data.len();
            let target = ram.get_mut(pa as usize..end).ok_or(OutOfMemory {
                pa,
                len: data.len() as u64,
            })?;
            target.copy_from_slice(data);
            Ok(())
        }
        fn size(&self) -> u64 {
            self.0.borrow().len() as u64
        }
    }
}
