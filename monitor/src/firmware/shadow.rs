//! The legacy area at C0000h-FFFFFh, where RAM and ROM lie behind the same addresses.
//!
//! Intel 440FX datasheet (290549), 3.2.17: the PAM registers send reads and writes of each region
//! to RAM or to the ROM, independently. Guest RAM always holds what *reads* see, so that reads and
//! code run at full speed whatever the routing; what is hidden behind it is kept here and swapped
//! in when the routing changes. Writes that do not go where reads come from take the slow path.

use ring3_devices::pci::{MemoryAttribute, PAM_REGIONS};

/// The area, in guest-physical bytes.
pub const AREA: core::ops::Range<u64> = 0xc_0000..0x10_0000;

/// Bytes of a ROM that also appear below 1 MiB: the last ones of the image.
const LOW_ROM: usize = 0x2_0000;

const RAM: MemoryAttribute = MemoryAttribute {
    read_ram: true,
    write_ram: true,
};
const ROM: MemoryAttribute = MemoryAttribute {
    read_ram: false,
    write_ram: false,
};

/// The hidden contents and the routing of each region of [`PAM_REGIONS`].
#[derive(Debug)]
pub struct Shadow {
    hidden: Vec<u8>,
    routing: [MemoryAttribute; PAM_REGIONS.len()],
}

impl Default for Shadow {
    /// All RAM, nothing hidden.
    fn default() -> Self {
        Self {
            hidden: Vec::new(),
            routing: [RAM; PAM_REGIONS.len()],
        }
    }
}

/// A region, as guest-physical bytes.
#[must_use]
pub fn region(index: usize) -> core::ops::Range<u64> {
    let (base, size) = PAM_REGIONS[index];
    u64::from(base)..u64::from(base) + u64::from(size)
}

fn offset(pa: u64) -> usize {
    (pa - AREA.start) as usize
}

impl Shadow {
    /// Everything is routed to `rom`, which ends at 4 GiB and, its last 128 KiB, at 1 MiB. Returns
    /// what reads of the area see; RAM behind it is zero.
    pub fn reset(&mut self, rom: &[u8]) -> Vec<u8> {
        let len = (AREA.end - AREA.start) as usize;
        self.hidden = vec![0; len];
        self.routing = [ROM; PAM_REGIONS.len()];
        let mut visible = vec![0xff; len];
        let low = &rom[rom.len().saturating_sub(LOW_ROM)..];
        visible[len - low.len()..].copy_from_slice(low);
        visible
    }

    /// The routing of region `index`.
    #[must_use]
    pub fn routing(&self, index: usize) -> MemoryAttribute {
        self.routing[index]
    }

    /// Routes region `index`. `visible` holds what reads of the region saw, and then what they
    /// see; true if that changed.
    pub fn route(&mut self, index: usize, to: MemoryAttribute, visible: &mut [u8]) -> bool {
        let old = core::mem::replace(&mut self.routing[index], to);
        if old.read_ram == to.read_ram || self.hidden.is_empty() {
            return false;
        }
        let range = region(index);
        let hidden = &mut self.hidden[offset(range.start)..offset(range.end)];
        hidden.swap_with_slice(visible);
        true
    }

    /// A write to a region whose reads and writes do not both go to RAM: into hidden RAM, or
    /// dropped.
    pub fn write(&mut self, pa: u64, data: &[u8]) {
        for (at, byte) in (pa..).zip(data) {
            let found = (0..PAM_REGIONS.len()).find(|&i| region(i).contains(&at));
            let Some(to) = found.map(|i| self.routing[i]) else {
                continue;
            };
            if to.write_ram
                && !to.read_ram
                && let Some(slot) = self.hidden.get_mut(offset(at))
            {
                *slot = *byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_cover_the_area_once() {
        let mut regions: Vec<_> = (0..PAM_REGIONS.len()).map(region).collect();
        regions.sort_by_key(|r| r.start);
        assert_eq!((regions[0].start, regions[12].end), (AREA.start, AREA.end));
        assert!(regions.windows(2).all(|p| p[0].end == p[1].start));
    }

    #[test]
    fn shadowing_goes_rom_then_write_through_then_ram() {
        let mut shadow = Shadow::default();
        let rom: Vec<u8> = (0..0x4_0000u32).map(|i| (i >> 12) as u8).collect();
        let area = shadow.reset(&rom);
        assert_eq!(
            (area[0], area[0x2_0000], area[0x3_ffff]),
            (0xff, 0x20, 0x3f)
        );
        let mut f = area[0x3_0000..].to_vec();
        // Dropped while writes go to the ROM.
        shadow.write(0xf_0000, &[1]);
        let through = MemoryAttribute {
            read_ram: false,
            write_ram: true,
        };
        assert!(!shadow.route(0, through, &mut f));
        shadow.write(0xf_0001, &[2]);
        assert!(shadow.route(0, RAM, &mut f));
        assert_eq!(f[..3], [0, 2, 0]);
        // Read-only RAM, and back to the ROM.
        assert!(!shadow.route(
            0,
            MemoryAttribute {
                read_ram: true,
                write_ram: false
            },
            &mut f
        ));
        shadow.write(0xf_0001, &[3]);
        assert_eq!(f[1], 2);
        assert!(shadow.route(0, ROM, &mut f));
        assert_eq!(f[0], 0x30);
    }
}
