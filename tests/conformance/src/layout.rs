//! The linear address space that every engine gives a case, and its segments.
//!
//! ```text
//! 0x00400000  2 pages  code, read-write-execute (self-modifying code is a case too)
//! 0x00500000  2 pages  data, read-write
//! 0x00502000  1 page   data, read-only
//! 0x00600000  1 page   stack, read-write
//! ```
//! All other pages are not present. The read-write pages together are a case's *memory*, one
//! array in the order above ([`MEMORY_BYTES`] long); [`offset_of`] maps an address into it.

/// First byte of the code pages.
pub const CODE: u32 = 0x0040_0000;
/// First byte of the data pages.
pub const DATA: u32 = 0x0050_0000;
/// First byte of the read-only page.
pub const READ_ONLY: u32 = 0x0050_2000;
/// First byte of the stack page.
pub const STACK: u32 = 0x0060_0000;
/// Bytes in a page.
pub const PAGE: u32 = 4096;
/// The writable regions: address, bytes.
pub const WRITABLE: [(u32, u32); 3] = [(CODE, 2 * PAGE), (DATA, 2 * PAGE), (STACK, PAGE)];
/// Bytes of all writable regions.
pub const MEMORY_BYTES: usize = 5 * PAGE as usize;

/// The offset in a case's memory of linear address `at`, if it is writable.
#[must_use]
pub fn offset_of(at: u32) -> Option<usize> {
    let mut start = 0;
    for (base, len) in WRITABLE {
        if at.wrapping_sub(base) < len {
            return Some(start + (at - base) as usize);
        }
        start += len as usize;
    }
    None
}

/// The linear address of offset `at` in a case's memory.
#[must_use]
pub fn address_of(at: usize) -> u32 {
    let mut at = at as u32;
    for (base, len) in WRITABLE {
        if at < len {
            return base + at;
        }
        at -= len;
    }
    u32::MAX
}

/// The constant contents of the read-only page.
#[must_use]
pub fn read_only_page() -> Vec<u8> {
    let mut page = vec![0; PAGE as usize];
    crate::rng::Rng::new(0x526f).fill(&mut page);
    page
}

/// The host's flat 32-bit user code selector (Linux); the same in the guest.
pub const SEL_CODE32: u16 = 0x23;
/// The host's flat user data selector (Linux); the same in the guest.
pub const SEL_DATA32: u16 = 0x2b;
/// 16-bit code at [`CODE`], limit 64 KiB.
pub const SEL_CODE16: u16 = 0x07;
/// 16-bit data: [`DATA`] is at offset 0x8000, limit 64 KiB.
pub const SEL_DATA16: u16 = 0x0f;
/// 16-bit stack: [`STACK`] is at offset 0x8000, limit 64 KiB.
pub const SEL_STACK16: u16 = 0x17;
/// 32-bit data with a base and a limit of 4 GiB.
pub const SEL_BASED: u16 = 0x1f;
/// 32-bit data at [`DATA`] with a limit of 0x17ff.
pub const SEL_LIMITED: u16 = 0x27;
/// Expand-down: valid from offset 0x1000, [`DATA`] is at offset 0x1000.
pub const SEL_DOWN: u16 = 0x2f;
/// Flat but read-only.
pub const SEL_READ_ONLY: u16 = 0x37;
/// 32-bit code at [`CODE`], limit two pages.
pub const SEL_CODE32_BASED: u16 = 0x3f;
/// A data segment that is not present.
pub const SEL_ABSENT: u16 = 0x47;

/// A descriptor of the local table, as plain facts.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Its selector (table 1, RPL 3).
    pub selector: u16,
    /// Linear base.
    pub base: u32,
    /// Limit field (20 bits), in pages if `pages`.
    pub limit: u32,
    /// G.
    pub pages: bool,
    /// D/B.
    pub big: bool,
    /// Type field with the accessed bit. Intel SDM vol. 3A, table 3-1.
    pub kind: u8,
    /// P.
    pub present: bool,
}

const fn segment(
    selector: u16,
    base: u32,
    limit: u32,
    pages: bool,
    big: bool,
    kind: u8,
) -> Descriptor {
    Descriptor {
        selector,
        base,
        limit,
        pages,
        big,
        kind,
        present: true,
    }
}

/// The local descriptor table. All have DPL 3.
pub const LOCAL: [Descriptor; 9] = [
    segment(SEL_CODE16, CODE, 0xffff, false, false, 0xb),
    segment(SEL_DATA16, DATA - 0x8000, 0xffff, false, false, 0x3),
    segment(SEL_STACK16, STACK - 0x8000, 0xffff, false, false, 0x3),
    segment(SEL_BASED, 0x0012_3450, 0xf_ffff, true, true, 0x3),
    segment(SEL_LIMITED, DATA, 0x17ff, false, true, 0x3),
    segment(SEL_DOWN, DATA - 0x1000, 0xfff, false, true, 0x7),
    segment(SEL_READ_ONLY, 0, 0xf_ffff, true, true, 0x1),
    segment(SEL_CODE32_BASED, CODE, 0x1fff, false, true, 0xb),
    Descriptor {
        selector: SEL_ABSENT,
        base: 0,
        limit: 0xf_ffff,
        pages: true,
        big: true,
        kind: 0x3,
        present: false,
    },
];

/// The flat descriptors of the global table that user code can load.
pub const GLOBAL: [Descriptor; 2] = [
    segment(SEL_CODE32, 0, 0xf_ffff, true, true, 0xb),
    segment(SEL_DATA32, 0, 0xf_ffff, true, true, 0x3),
];

impl Descriptor {
    /// The descriptor behind a selector of these tables, whatever its RPL.
    #[must_use]
    pub fn of(selector: u16) -> Option<Self> {
        LOCAL
            .into_iter()
            .chain(GLOBAL)
            .find(|d| d.selector | 3 == selector | 3)
    }
    /// The limit in bytes.
    #[must_use]
    pub const fn byte_limit(&self) -> u32 {
        if self.pages {
            self.limit << 12 | 0xfff
        } else {
            self.limit
        }
    }
    /// The eight bytes of the descriptor as one little-endian number. Intel SDM vol. 3A, 3.4.5.
    #[must_use]
    pub const fn encode(&self, dpl: u8) -> u64 {
        let b = self.base as u64;
        let l = self.limit as u64;
        let access = 0x10 | self.kind as u64 | (dpl as u64) << 5 | (self.present as u64) << 7;
        let flags = (self.big as u64) << 2 | (self.pages as u64) << 3;
        (l & 0xffff)
            | (b & 0xff_ffff) << 16
            | access << 40
            | (l >> 16 & 0xf) << 48
            | flags << 52
            | (b >> 24) << 56
    }
    /// True if an access of `len` bytes at `offset` is within the limit. Intel SDM vol. 3A, 5.3.
    #[must_use]
    pub fn contains(&self, offset: u32, len: u32) -> bool {
        let end = u64::from(offset) + u64::from(len) - 1;
        if self.kind & 0xc == 4 {
            let top = if self.big {
                u64::from(u32::MAX)
            } else {
                0xffff
            };
            offset > self.byte_limit() && end <= top
        } else {
            end <= u64::from(self.byte_limit())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_addresses_are_inverse() {
        for at in 0..MEMORY_BYTES {
            assert_eq!(offset_of(address_of(at)), Some(at));
        }
        assert_eq!(offset_of(READ_ONLY), None);
        assert_eq!(offset_of(STACK + PAGE), None);
    }

    #[test]
    fn flat_descriptor_has_the_known_encoding() {
        assert_eq!(GLOBAL[1].encode(3), 0x00cf_f300_0000_ffff);
    }
}
