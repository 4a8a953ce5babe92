//! The zero page. Linux `arch/x86/include/uapi/asm/bootparam.h`, `Documentation/arch/x86/zero-page.rst`.

use super::e820::E820Entry;
use super::header::{HEADER_START, SetupHeader};

/// Bytes of the zero page.
pub const SIZE: usize = 4096;
/// `type_of_loader`: no assigned id.
const LOADER_UNDEFINED: u8 = 0xff;
/// Room in `e820_table`.
const E820_MAX: usize = 128;

/// What the zero page reports beside the kernel's own header.
#[derive(Clone, Copy, Debug)]
pub struct ZeroPage<'a> {
    /// The kernel's header.
    pub header: &'a SetupHeader,
    /// Physical address of the protected-mode entry.
    pub code32_start: u32,
    /// Physical address of the NUL-terminated command line.
    pub cmdline: u32,
    /// Address and size of the initial RAM disk (0, 0 if none).
    pub initrd: (u32, u32),
    /// The memory map.
    pub e820: &'a [E820Entry],
    /// Bytes of RAM.
    pub memory: u64,
    /// Physical address of the ACPI RSDP, 0 to let the kernel search.
    pub rsdp: u64,
}

impl ZeroPage<'_> {
    /// The page's bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut page = vec![0u8; SIZE];
        let mut put = |at: usize, data: &[u8]| page[at..at + data.len()].copy_from_slice(data);
        put(HEADER_START, &self.header.raw);
        let above_1m_kib = (self.memory >> 10).saturating_sub(1024);
        // screen_info.ext_mem_k and alt_mem_k: the older interfaces' sizes, in KiB above 1 MiB.
        put(0x002, &(above_1m_kib.min(0xfc00) as u16).to_le_bytes());
        put(
            0x1e0,
            &(above_1m_kib.min(u64::from(u32::MAX)) as u32).to_le_bytes(),
        );
        // screen_info: mode 3 of a VGA with 256 KiB, 80 columns, 25 rows of 16 lines, cursor at 0, 0.
        put(0x006, &[3, 80]);
        put(0x00a, &3u16.to_le_bytes());
        put(0x00e, &[25, 1]);
        put(0x010, &16u16.to_le_bytes());
        put(0x070, &self.rsdp.to_le_bytes());
        put(0x210, &[LOADER_UNDEFINED]);
        put(0x214, &self.code32_start.to_le_bytes());
        put(0x218, &self.initrd.0.to_le_bytes());
        put(0x21c, &self.initrd.1.to_le_bytes());
        put(0x228, &self.cmdline.to_le_bytes());
        let entries = &self.e820[..self.e820.len().min(E820_MAX)];
        put(0x1e8, &[entries.len() as u8]);
        for (i, e) in entries.iter().enumerate() {
            put(0x2d0 + i * 20, &e.base.to_le_bytes());
            put(0x2d8 + i * 20, &e.size.to_le_bytes());
            put(0x2e0 + i * 20, &(e.kind as u32).to_le_bytes());
        }
        page
    }
}
