//! Guest address newtypes, so that linear, physical and host addresses cannot be confused.

/// A guest linear address (after segmentation, before paging). Intel SDM vol. 3A, 3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinAddr(pub u64);

/// A guest physical address (after paging and the A20 gate). Intel SDM vol. 3A, 3.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(pub u64);

/// Bytes in the smallest page.
pub const PAGE_SIZE: u64 = 4096;

impl LinAddr {
    /// The address of the first byte of the 4 KiB page that holds this address.
    #[must_use]
    pub const fn page(self) -> Self {
        Self(self.0 & !(PAGE_SIZE - 1))
    }

    /// The offset within the 4 KiB page, in bytes.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 & (PAGE_SIZE - 1)
    }

    /// `self + n`, wrapping at 4 GiB as 32-bit linear addresses do.
    #[must_use]
    pub const fn add32(self, n: u32) -> Self {
        Self((self.0 as u32).wrapping_add(n) as u64)
    }
}

impl PhysAddr {
    /// The address of the first byte of the 4 KiB page that holds this address.
    #[must_use]
    pub const fn page(self) -> Self {
        Self(self.0 & !(PAGE_SIZE - 1))
    }

    /// The offset within the 4 KiB page, in bytes.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 & (PAGE_SIZE - 1)
    }

    /// The page frame number.
    #[must_use]
    pub const fn frame(self) -> u64 {
        self.0 / PAGE_SIZE
    }
}
