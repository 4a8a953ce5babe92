//! SMBIOS: what the machine says it is. DMTF DSP0134 (System Management BIOS) 2.8.

use ring3_translator::addr::PAGE_SIZE;

/// Name of the file with the entry point.
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";
/// Name of the file with the structures.
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";

const MAKER: &str = "ring3";
const PRODUCT: &str = "Standard PC (i440FX + PIIX)";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The BIOS: its version and date.
const BIOS_VERSION: &str = "1";
const BIOS_DATE: &str = "01/01/2026";

/// Bytes of the entry point.
const ANCHOR_SIZE: usize = 31;
/// "Unknown" in many enumerations.
const UNKNOWN: u8 = 2;
/// "Other".
const OTHER: u8 = 1;
/// A handle that leads nowhere.
const NO_HANDLE: u16 = 0xfffe;

/// Entry point and structures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smbios {
    anchor: Vec<u8>,
    /// The structures.
    pub tables: Vec<u8>,
}

/// One structure: type, handle, the formatted area behind the header, strings.
struct Builder {
    bytes: Vec<u8>,
    count: u16,
    largest: usize,
}

impl Builder {
    fn add(&mut self, kind: u8, handle: u16, body: &[u8], strings: &[&str]) {
        let start = self.bytes.len();
        self.bytes.extend([kind, body.len() as u8 + 4]);
        self.bytes.extend(handle.to_le_bytes());
        self.bytes.extend(body);
        for text in strings {
            self.bytes.extend(text.as_bytes());
            self.bytes.push(0);
        }
        if strings.is_empty() {
            self.bytes.push(0);
        }
        self.bytes.push(0);
        self.count += 1;
        self.largest = self.largest.max(self.bytes.len() - start);
    }
}

impl Smbios {
    /// The tables of a machine with `memory` bytes of RAM and a processor of `processor_mhz`,
    /// which identifies itself with CPUID.1 EAX and EDX `signature`.
    #[must_use]
    pub fn new(memory: u64, processor_mhz: u16, signature: [u32; 2]) -> Self {
        let mut b = Builder {
            bytes: Vec::new(),
            count: 0,
            largest: 0,
        };
        // 7.1 BIOS information: its segment, 64 KiB, PCI, shadowing, boot from CD, selectable boot.
        let characteristics: u64 = 1 << 7 | 1 << 12 | 1 << 15 | 1 << 16;
        let mut body = vec![1, 2, 0x00, 0xf0, 3, 0];
        body.extend(characteristics.to_le_bytes());
        // ACPI; this is a virtual machine.
        body.extend([0x01, 0x10, 0xff, 0xff, 0xff, 0xff]);
        b.add(0, 0x000, &body, &[MAKER, BIOS_VERSION, BIOS_DATE]);
        // 7.2 System: no UUID; woken by the power switch.
        let mut body = vec![1, 2, 3, 0];
        body.extend([0; 16]);
        body.extend([6, 0, 0]);
        b.add(1, 0x100, &body, &[MAKER, PRODUCT, VERSION]);
        // 7.4 Chassis: other; states safe, security none; no contained elements, no SKU.
        let mut body = vec![1, OTHER, 2, 0, 0, 3, 3, 3, 3];
        body.extend([0, 0, 0, 0, 0, 0, 0, 0, 0]);
        b.add(3, 0x300, &body, &[MAKER, VERSION]);
        // 7.5 Processor: central, populated and enabled, without caches.
        let mut body = vec![1, 3, UNKNOWN, 2];
        body.extend(signature[0].to_le_bytes());
        body.extend(signature[1].to_le_bytes());
        body.extend([3, 0]);
        for word in [0, processor_mhz, processor_mhz] {
            body.extend(word.to_le_bytes());
        }
        body.extend([0x41, OTHER]);
        body.extend([0xff; 6]);
        body.extend([0, 0, 0, 1, 1, 1, 0, 0, UNKNOWN, 0]);
        b.add(4, 0x400, &body, &["CPU 0", MAKER, VERSION]);
        // 7.17 Memory array, 7.18 its device, 7.20 its addresses, in KiB and MiB.
        let kib = (memory >> 10).min(0x8000_0000 - 1) as u32;
        let mut body = vec![1, 3, 6];
        body.extend(kib.to_le_bytes());
        body.extend(NO_HANDLE.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        b.add(16, 0x1000, &body, &[]);
        let mut body = 0x1000u16.to_le_bytes().to_vec();
        body.extend(NO_HANDLE.to_le_bytes());
        for word in [0xffff, 0xffff, (memory >> 20).min(0x7ffe) as u16] {
            body.extend(word.to_le_bytes());
        }
        body.extend([9, 0, 1, 0, 7]); // DIMM, no set, its locator, no bank, RAM
        body.extend([0, 0, 0, 0, 2, 0, 0, 0, 0]);
        b.add(17, 0x1100, &body, &["DIMM 0", MAKER]);
        let mut body = 0u32.to_le_bytes().to_vec();
        body.extend((kib - 1).to_le_bytes());
        body.extend(0x1000u16.to_le_bytes());
        body.push(1);
        b.add(19, 0x1300, &body, &[]);
        // 7.33 Boot: no error detected.
        b.add(32, 0x2000, &[0, 0, 0, 0, 0, 0, 0], &[]);
        b.add(127, 0x7f00, &[], &[]);
        Self {
            anchor: Self::entry(&b),
            tables: b.bytes,
        }
    }

    /// 5.2.1: the entry point, with its checksums open and the table's address 0.
    fn entry(b: &Builder) -> Vec<u8> {
        let mut a = b"_SM_\0".to_vec();
        a.extend([ANCHOR_SIZE as u8, 2, 8]);
        a.extend((b.largest as u16).to_le_bytes());
        a.extend([0; 6]);
        a.extend(b"_DMI_\0");
        a.extend((b.bytes.len() as u16).to_le_bytes());
        a.extend(0u32.to_le_bytes());
        a.extend(b.count.to_le_bytes());
        a.push(0x28);
        a
    }

    /// The entry point of tables at physical address `at`.
    #[must_use]
    pub fn anchor(&self, at: u32) -> Vec<u8> {
        let mut a = self.anchor.clone();
        a[24..28].copy_from_slice(&at.to_le_bytes());
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        a[21] = sum(&a[16..]).wrapping_neg();
        a[4] = sum(&a).wrapping_neg();
        a
    }

    /// Entry point and structures for memory at `at`, which has to be a multiple of 16 in the
    /// last 64 KiB below 1 MiB.
    #[must_use]
    pub fn placed(&self, at: u32) -> Vec<u8> {
        let offset = ANCHOR_SIZE.next_multiple_of(16);
        let mut bytes = self.anchor(at + offset as u32);
        bytes.resize(offset, 0);
        bytes.extend(&self.tables);
        debug_assert!(bytes.len() <= PAGE_SIZE as usize);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_follow_each_other_to_the_end() {
        let tables = Smbios::new(512 << 20, 2600, [0x00b4_0f40, 0x0783_fbff]);
        let (mut at, mut kinds) = (0, Vec::new());
        while at < tables.tables.len() {
            let (kind, length) = (tables.tables[at], usize::from(tables.tables[at + 1]));
            kinds.push((kind, length));
            let strings = &tables.tables[at + length..];
            let end = strings.windows(2).position(|w| w == [0, 0]).unwrap();
            at += length + end + 2;
        }
        // The lengths that version 2.8 gives them.
        assert_eq!(
            kinds,
            [
                (0, 24),
                (1, 27),
                (3, 22),
                (4, 42),
                (16, 15),
                (17, 28),
                (19, 15),
                (32, 11),
                (127, 4)
            ]
        );
    }

    #[test]
    fn entry_point_sums_to_zero_and_leads_to_the_structures() {
        let all = Smbios::new(64 << 20, 2600, [0, 0]).placed(0xf_0000);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        assert_eq!(
            (&all[..4], sum(&all[..31]), sum(&all[16..31])),
            (&b"_SM_"[..], 0, 0)
        );
        let at = u32::from_le_bytes(all[24..28].try_into().unwrap());
        let length = usize::from(u16::from_le_bytes([all[22], all[23]]));
        assert_eq!((at, length), (0xf_0020, all.len() - 32));
        assert_eq!(all[28], 9);
    }
}
