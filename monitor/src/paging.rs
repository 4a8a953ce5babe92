//! The page-table walk. Intel SDM vol. 3A, chapter 4.
//!
//! None, 32-bit (with 4 MiB pages) and PAE paging. Rights are checked before accessed and dirty
//! bits are set; bits are set on every level that was used, the dirty bit on the leaf.

use crate::cpu::env::{Access, Privilege};
use crate::cpu::fault::Fault;
use crate::memory::GuestRam;
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, cr0, cr4, efer, eflags};

/// A translated page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Guest-physical address of the byte asked for.
    pub phys: u64,
    /// Bytes of the page: 4 KiB, 2 MiB or 4 MiB (no paging: 4 GiB as 0).
    pub size: u64,
    /// User accesses are allowed.
    pub user: bool,
    /// Writes at the privilege asked for are allowed and the dirty bit is set.
    pub writable: bool,
    /// Writes at the privilege asked for are allowed.
    pub may_write: bool,
    /// Global: survives a CR3 load.
    pub global: bool,
    /// Instruction fetches are refused (execute-disable).
    pub no_execute: bool,
    /// Guest-physical addresses of the entries used, directory first; `u64::MAX` for none.
    pub entries: [u64; 2],
}

/// Where an entry points: bits 12-51.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bits of table entries. Intel SDM vol. 3A, tables 4-4 to 4-11.
mod pte {
    pub(super) const P: u64 = 1;
    pub(super) const W: u64 = 2;
    pub(super) const U: u64 = 4;
    pub(super) const A: u64 = 0x20;
    pub(super) const D: u64 = 0x40;
    pub(super) const PS: u64 = 0x80;
    pub(super) const G: u64 = 0x100;
    pub(super) const NX: u64 = 1 << 63;
}

/// Page-fault error code bits. Intel SDM vol. 3A, 4.7.
mod error {
    pub(super) const P: u32 = 1;
    pub(super) const W: u32 = 2;
    pub(super) const U: u32 = 4;
    pub(super) const RSVD: u32 = 8;
    pub(super) const I: u32 = 16;
}

/// The kind of access that a walk is for.
#[derive(Clone, Copy)]
pub struct Walk {
    /// What it does.
    pub access: Access,
    /// With whose rights.
    pub who: Privilege,
    /// False to look only: no A or D bit is set, and entries without A do not count as mapped.
    pub commit: bool,
}

/// A table entry that a walk used.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// Its guest-physical address.
    at: u64,
    value: u64,
}

/// What the tables hold for a linear address.
struct Path {
    /// The entries used, directory first; the last is the leaf.
    entries: [Entry; 2],
    count: usize,
    /// Bytes of the page.
    size: u64,
}

impl Path {
    fn large(directory: Entry, size: u64) -> Self {
        Self {
            entries: [directory, Entry::default()],
            count: 1,
            size,
        }
    }

    fn small(directory: Entry, table: Entry) -> Self {
        Self {
            entries: [directory, table],
            count: 2,
            size: 0x1000,
        }
    }
}

/// Follows the tables of 32-bit paging. Intel SDM vol. 3A, 4.3.
/// # Errors
/// Bits of the page fault's error code: an entry is absent (0) or has reserved bits set.
fn follow_32(st: &GuestState, ram: &GuestRam, lin: u32) -> Result<Path, u32> {
    let read = |at: u64| {
        let value = u64::from(ram.read_u32(at));
        if value & pte::P == 0 {
            return Err(0u32);
        }
        Ok(Entry { at, value })
    };
    let pde = read((st.cr3 & 0xffff_f000) + u64::from(lin >> 22) * 4)?;
    if pde.value & pte::PS != 0 && st.cr4 & cr4::PSE != 0 {
        // Without PSE-36, bits 13-21 are reserved.
        if pde.value & 0x3f_e000 != 0 {
            return Err(error::P | error::RSVD);
        }
        return Ok(Path::large(pde, 0x40_0000));
    }
    let table = read((pde.value & 0xffff_f000) + u64::from((lin >> 12) & 0x3ff) * 4)?;
    Ok(Path::small(pde, table))
}

/// Follows the tables of PAE paging. Intel SDM vol. 3A, 4.4.
/// # Errors
/// As [`follow_32`].
fn follow_pae(
    st: &GuestState,
    ram: &GuestRam,
    lin: u32,
    phys_bits: u32,
    nx_on: bool,
) -> Result<Path, u32> {
    let reserved = (!0u64 << phys_bits) & !pte::NX | if nx_on { 0 } else { pte::NX };
    let read = |at: u64| {
        let value = ram.read_u64(at);
        if value & pte::P == 0 {
            return Err(0u32);
        }
        if value & reserved != 0 {
            return Err(error::P | error::RSVD);
        }
        Ok(Entry { at, value })
    };
    let pdpte = st.pdpte[(lin >> 30) as usize];
    if pdpte & pte::P == 0 {
        return Err(0);
    }
    let pde = read((pdpte & ADDRESS) + u64::from((lin >> 21) & 0x1ff) * 8)?;
    if pde.value & pte::PS != 0 {
        // Bits 13-20 are reserved.
        if pde.value & 0x1f_e000 != 0 {
            return Err(error::P | error::RSVD);
        }
        return Ok(Path::large(pde, 0x20_0000));
    }
    let table = read((pde.value & ADDRESS) + u64::from((lin >> 12) & 0x1ff) * 8)?;
    Ok(Path::small(pde, table))
}

/// Walks the tables for `lin`. `phys_bits` is the width of physical addresses.
/// # Errors
/// The page fault that the access raises.
pub fn walk(
    st: &GuestState,
    ram: &GuestRam,
    lin: u32,
    walk: Walk,
    phys_bits: u32,
) -> Result<Page, Fault> {
    if st.cr0 & cr0::PG == 0 {
        return Ok(Page {
            phys: u64::from(lin),
            size: 0,
            user: true,
            writable: true,
            may_write: true,
            global: true,
            no_execute: false,
            entries: [u64::MAX; 2],
        });
    }
    let pae = st.cr4 & cr4::PAE != 0;
    let nx_on = pae && st.msr.efer & efer::NXE != 0;
    let fault = |extra: u32| {
        let mut code = extra;
        if walk.access == Access::Write {
            code |= error::W;
        }
        if walk.who == Privilege::User && !st.broken(Mutation::PageFaultUser) {
            code |= error::U;
        }
        if walk.access == Access::Execute && (nx_on || st.cr4 & cr4::SMEP != 0) {
            code |= error::I;
        }
        Fault::page(u64::from(lin), code)
    };
    let path = if pae {
        follow_pae(st, ram, lin, phys_bits, nx_on)
    } else {
        follow_32(st, ram, lin)
    }
    .map_err(fault)?;
    let size = path.size;
    let used = &path.entries[..path.count];
    let all = used.iter().fold(!0u64, |a, e| a & e.value);
    let any = used.iter().fold(0u64, |a, e| a | e.value);
    let user = all & pte::U != 0;
    let no_execute = nx_on && any & pte::NX != 0;
    let may_write = match walk.who {
        Privilege::User => all & pte::W != 0,
        Privilege::Supervisor => {
            all & pte::W != 0 || st.cr0 & cr0::WP == 0 || st.broken(Mutation::WriteProtect)
        }
    };
    let allowed = match (walk.who, walk.access) {
        (Privilege::User, _) if !user => false,
        (_, Access::Write) if !may_write => false,
        (_, Access::Execute) if no_execute => false,
        (Privilege::Supervisor, Access::Execute) if user && st.cr4 & cr4::SMEP != 0 => false,
        (Privilege::Supervisor, Access::Read | Access::Write)
            if user && st.cr4 & cr4::SMAP != 0 && st.sys_flags & eflags::AC == 0 =>
        {
            false
        }
        _ => true,
    };
    if !allowed {
        return Err(fault(error::P));
    }
    let leaf = used[path.count - 1];
    let wants_dirty = walk.access == Access::Write;
    if walk.commit {
        for e in used {
            if e.value & pte::A == 0 && !st.broken(Mutation::AccessedBit) {
                ram.or_u32(e.at, pte::A as u32);
            }
        }
        if wants_dirty && leaf.value & pte::D == 0 && !st.broken(Mutation::DirtyBit) {
            ram.or_u32(leaf.at, pte::D as u32);
        }
    } else if all & pte::A == 0 {
        return Err(fault(0));
    }
    let dirty = leaf.value & pte::D != 0 || (walk.commit && wants_dirty);
    // An entry of 32-bit paging has no higher bits.
    let frame = leaf.value & ADDRESS & !(size - 1);
    Ok(Page {
        phys: frame | (u64::from(lin) & (size - 1)),
        size,
        user,
        writable: may_write && dirty,
        may_write,
        global: st.cr4 & cr4::PGE != 0 && leaf.value & pte::G != 0,
        no_execute,
        entries: core::array::from_fn(|i| used.get(i).map_or(u64::MAX, |e| e.at)),
    })
}

/// The guest's tables to look at: nothing is marked, and what was not accessed counts as absent.
#[derive(Clone, Copy)]
pub struct Tables<'a> {
    /// Whose tables.
    pub st: &'a GuestState,
    /// Where they are.
    pub ram: &'a GuestRam,
    /// Bits of a physical address.
    pub phys_bits: u32,
    /// What the A20 gate lets through.
    pub a20_mask: u64,
}

impl Tables<'_> {
    /// The page at `lin` for an access of ring 0.
    #[must_use]
    pub fn page(&self, lin: u32, access: Access) -> Option<Page> {
        let how = Walk {
            access,
            who: Privilege::Supervisor,
            commit: false,
        };
        let mut page = walk(self.st, self.ram, lin, how, self.phys_bits).ok()?;
        page.phys &= self.a20_mask;
        Some(page)
    }

    /// The page at `lin` if it is ring 0's own.
    #[must_use]
    pub fn supervisor_page(&self, lin: u32) -> Option<Page> {
        self.page(lin, Access::Read).filter(|p| !p.user)
    }

    /// How many of the `most` 4 KiB pages after that of `lin`, which is `first`, have entries of
    /// the same table that say the same of the frames that follow: at least so many are mapped
    /// alike. 0 for large pages.
    #[must_use]
    pub fn alike_after(&self, lin: u32, first: &Page, most: u64) -> u64 {
        const SAYS: u64 = pte::P | pte::W | pte::U | pte::A | pte::D | pte::G | pte::NX;
        const FRAME: u64 = 0x000f_ffff_ffff_f000;
        let [_, at] = first.entries;
        if at == u64::MAX {
            return 0;
        }
        let wide = self.st.cr4 & cr4::PAE != 0;
        let (size, entries) = if wide { (8, 512) } else { (4, 1024) };
        let read = |n: u64| {
            let at = at + n * size;
            if wide {
                self.ram.read_u64(at)
            } else {
                u64::from(self.ram.read_u32(at))
            }
        };
        let left = entries - 1 - u64::from(lin >> 12) % entries;
        let entry = read(0);
        (1..=left.min(most))
            .take_while(|&n| (read(n) ^ entry.wrapping_add(n << 12)) & (SAYS | FRAME) == 0)
            .count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{Tables, pte};
    use crate::cpu::env::Access;
    use crate::memory::GuestRam;
    use ring3_translator::state::{GuestState, cr0, cr4, efer};
    use ring3_translator::state_box::StateBox;

    const DIRECTORY: u64 = 0x1000;
    const TABLE: u64 = 0x2000;
    const USUAL: u64 = pte::P | pte::W | pte::A | pte::D | pte::G;

    fn tables_at(pae: bool) -> (StateBox, GuestRam) {
        let mut state = StateBox::new();
        let st: &mut GuestState = &mut state;
        st.cr0 |= cr0::PE | cr0::PG | cr0::WP;
        st.cr4 |= cr4::PGE;
        st.cr3 = DIRECTORY;
        let ram = GuestRam::new(4 << 20).unwrap();
        let pde = (TABLE | pte::P | pte::W | pte::U | pte::A).to_le_bytes();
        if pae {
            st.cr4 |= cr4::PAE;
            st.msr.efer |= efer::NXE;
            st.pdpte[0] = DIRECTORY | pte::P;
            ram.write_unwatched(DIRECTORY, &pde);
        } else {
            ram.write_unwatched(DIRECTORY, &pde[..4]);
        }
        (state, ram)
    }

    fn put(ram: &GuestRam, pae: bool, page: u64, entry: u64) {
        let bytes = entry.to_le_bytes();
        if pae {
            ram.write_unwatched(TABLE + page * 8, &bytes);
        } else {
            ram.write_unwatched(TABLE + page * 4, &bytes[..4]);
        }
    }

    /// What single looks at each page say.
    fn alike_one_by_one(tables: &Tables<'_>, lin: u32, most: u64) -> u64 {
        let first = tables.page(lin, Access::Read).unwrap();
        (1..=most)
            .take_while(|&n| {
                tables
                    .page(lin + (n as u32) * 0x1000, Access::Read)
                    .is_some_and(|p| {
                        (p.phys, p.size, p.user, p.writable, p.global, p.no_execute)
                            == (
                                first.phys + n * 0x1000,
                                first.size,
                                first.user,
                                first.writable,
                                first.global,
                                first.no_execute,
                            )
                    })
            })
            .count() as u64
    }

    #[test]
    fn pages_alike_are_counted_as_single_looks_count_them() {
        for pae in [false, true] {
            let (state, ram) = tables_at(pae);
            let tables = Tables {
                st: &state,
                ram: &ram,
                phys_bits: 36,
                a20_mask: u64::MAX,
            };
            let odd_ones = [
                0,
                USUAL ^ pte::P,
                USUAL ^ pte::W,
                USUAL ^ pte::A,
                USUAL ^ pte::D,
                USUAL ^ pte::G,
                USUAL | pte::U,
                USUAL | 0x1000_0000,
            ];
            for odd in odd_ones.into_iter().chain(pae.then_some(USUAL | pte::NX)) {
                for n in 0..100 {
                    put(
                        &ram,
                        pae,
                        n,
                        (0x10_0000 + (n << 12)) | USUAL | ((n & 1) << 9),
                    );
                }
                put(&ram, pae, 37, odd | 0x12_5000);
                let lin = 0x5123;
                let first = tables.page(lin, Access::Read).unwrap();
                let alike = tables.alike_after(lin, &first, 60);
                assert_eq!(alike, 31, "{odd:x}");
                assert_eq!(alike, alike_one_by_one(&tables, lin, 60));
                assert_eq!(tables.alike_after(lin, &first, 10), 10);
            }
            // The table's last entry has none after it.
            let last = if pae { 511 } else { 1023 };
            put(&ram, pae, last, 0x10_0000 | USUAL);
            let lin = (last as u32) << 12;
            let first = tables.page(lin, Access::Read).unwrap();
            assert_eq!(tables.alike_after(lin, &first, 5), 0);
        }
    }
}
