//! The memory map that firmware would report (INT 15h, AX=E820h; ACPI 6.5, 15.1).

/// The ACPI address range types that the map uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// Usable RAM.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
}

/// One range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// What is there.
    pub kind: E820Kind,
}

/// End of conventional memory: the last KiB below 640 KiB is the extended BIOS data area.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// Where the ACPI tables and the BIOS area begin.
const FIRMWARE_START: u64 = 0xe_0000;
/// The first byte above the legacy area.
const HIGH_RAM_START: u64 = 0x10_0000;

/// The map of a machine with `memory` bytes of RAM: holes at 640 KiB - 1 MiB, of which the part
/// from 0xE0000 (ACPI tables) is reserved.
#[must_use]
pub fn memory_map(memory: u64) -> Vec<E820Entry> {
    let range = |base: u64, end: u64, kind| E820Entry {
        base,
        size: end.saturating_sub(base),
        kind,
    };
    let mut map = vec![
        range(0, LOW_RAM_END.min(memory), E820Kind::Ram),
        range(LOW_RAM_END, 0xa_0000, E820Kind::Reserved),
        range(FIRMWARE_START, HIGH_RAM_START, E820Kind::Reserved),
    ];
    if memory > HIGH_RAM_START {
        map.push(range(HIGH_RAM_START, memory, E820Kind::Ram));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_disjoint_and_cover_all_ram_above_1m() {
        let memory = 512 << 20;
        let map = memory_map(memory);
        for pair in map.windows(2) {
            assert!(pair[0].base + pair[0].size <= pair[1].base, "{pair:x?}");
        }
        let last = map.last().unwrap();
        assert_eq!(
            (last.base, last.base + last.size, last.kind),
            (1 << 20, memory, E820Kind::Ram)
        );
    }

    #[test]
    fn the_legacy_hole_is_never_ram() {
        for e in memory_map(64 << 20)
            .iter()
            .filter(|e| e.kind == E820Kind::Ram)
        {
            assert!(e.base + e.size <= 0x9_fc00 || e.base >= 0x10_0000, "{e:x?}");
        }
    }
}
