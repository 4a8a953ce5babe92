//! A promoted address space: its executor and what is mapped there.

use super::gates::Gates;
use super::reads::Reads;
use super::shadow::{Code, Mapped, Shadow};
use super::tables::{Level, Tables, Use};
use crate::executor::{Executor, ExecutorError, Rights};
use crate::memory::attr;
use crate::mmu::Mmu;
use crate::paging::Page;
use hashbrown::HashMap;
use ring3_translator::addr::PAGE_SIZE;
use ring3_translator::state::{GuestState, cr4, efer};

/// What makes two address spaces the same. Intel SDM vol. 3A, 4.3 and 4.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpaceKey {
    cr3: u64,
    pdpte: [u64; 4],
    format: u64,
}

impl SpaceKey {
    /// The address space that `st` uses.
    #[must_use]
    pub fn of(st: &GuestState) -> Self {
        let pae = st.cr4 & cr4::PAE != 0;
        Self {
            cr3: st.cr3 & if pae { 0xffff_ffe0 } else { 0xffff_f000 },
            pdpte: if pae { st.pdpte } else { [0; 4] },
            format: st.cr4 & (cr4::PAE | cr4::PSE) | (st.msr.efer & efer::NXE) << 32,
        }
    }

    fn pae(&self) -> bool {
        self.format & cr4::PAE != 0
    }
}

/// The pages that one directory entry covers.
#[derive(Clone, Copy, Debug)]
struct Region {
    /// Guest-physical address of the page table; none under a large page.
    table: Option<u64>,
    directory: u64,
    /// Pages mapped in the executor.
    pages: u32,
}

/// See the module's text.
pub struct Live {
    /// The process.
    pub executor: Executor,
    /// What it has mapped.
    pub shadow: Shadow,
    regions: HashMap<u32, Region>,
    slot: usize,
    /// Bytes of a page-table entry.
    entry: u32,
    /// Pages unmapped by table writes since guest code last ran.
    pub drops: u32,
    /// Tables newly watched that executors may have mapped writable, by physical address.
    pub exposed: Vec<u64>,
    /// A page whose rights may have grown.
    pub grown: Option<u32>,
    /// What the code that is mapped executable does not read.
    pub hidden: Reads,
    /// Pages by which guest code enters its kernel.
    pub gates: Gates,
}

impl Live {
    /// An empty space in `executor`.
    #[must_use]
    pub fn new(executor: Executor, slot: usize, key: &SpaceKey) -> Self {
        Self {
            executor,
            shadow: Shadow::default(),
            regions: HashMap::new(),
            slot,
            entry: if key.pae() { 8 } else { 4 },
            drops: 0,
            exposed: Vec::new(),
            grown: None,
            hidden: Reads::empty(),
            gates: Gates::default(),
        }
    }

    fn region_span(&self) -> u32 {
        PAGE_SIZE as u32 / self.entry
    }

    /// First page of the region of `page`, and pages in it.
    #[must_use]
    pub fn region_of(&self, page: u32) -> (u32, u32) {
        let span = self.region_span();
        (page & !(span - 1), span)
    }

    fn uses(&self, base: u32, region: &Region) -> [Option<(u64, Use)>; 2] {
        let of = |level, base| Use {
            slot: self.slot,
            level,
            base,
            entry: self.entry,
        };
        let span = self.region_span();
        let directory_base = base & !(span * span - 1);
        [
            region.table.map(|pa| (pa, of(Level::Leaf, base))),
            Some((region.directory, of(Level::Directory, directory_base))),
        ]
    }

    /// The rights that the guest's tables and the watches leave for a page.
    #[must_use]
    pub fn rights(mmu: &Mmu, page: &Page) -> Rights {
        Rights {
            write: page.writable && mmu.ram.attributes(page.phys) & attr::WATCHED == 0,
            execute: !page.no_execute,
        }
    }

    /// Maps guest-linear page number `at` as the walk's result `page` says, and watches the tables
    /// that it came from. It is executable if `code` and the tables say so. Done before guest code
    /// runs next.
    /// # Errors
    /// Those of [`Executor::map`].
    pub fn map(
        &mut self,
        st: &mut GuestState,
        mmu: &mut Mmu,
        tables: &mut Tables,
        at: u32,
        page: &Page,
        code: Code,
    ) -> Result<(), ExecutorError> {
        let (base, _) = self.region_of(at);
        let region = *self.regions.entry(base).or_insert_with(|| Region {
            table: (page.entries[1] != u64::MAX).then_some(page.entries[1]),
            directory: page.entries[0],
            pages: 0,
        });
        if region.pages == 0 {
            for (pa, what) in self.uses(base, &region).into_iter().flatten() {
                if tables.add(pa, what) && mmu.watch(st, pa, attr::TABLE) & attr::DIRECT != 0 {
                    self.exposed.push(pa);
                }
            }
        }
        // After the watches: a table may map itself.
        let mut rights = Self::rights(mmu, page);
        let code = match code {
            _ if self.gates.contains(at) => Code::Translated,
            _ if !rights.execute => Code::Unknown,
            code => code,
        };
        rights.execute = code == Code::Direct;
        let phys = page.phys & !(PAGE_SIZE - 1);
        if rights.write {
            mmu.ram.set_attributes(phys, attr::DIRECT);
        }
        let mapped = Mapped {
            frame: (phys / PAGE_SIZE) as u32,
            write: rights.write,
            code,
        };
        let new = self.shadow.get(at).is_none();
        self.shadow.set(at, mapped);
        if let Some(region) = self.regions.get_mut(&base) {
            region.pages += u32::from(new);
        }
        self.executor.map(at << 12, phys, PAGE_SIZE as u32, rights)
    }

    fn forget_region(&mut self, mmu: &mut Mmu, tables: &mut Tables, base: u32) {
        if let Some(region) = self.regions.remove(&base) {
            for (pa, what) in self.uses(base, &region).into_iter().flatten() {
                if tables.remove(pa, what) {
                    mmu.unwatch(pa, attr::TABLE);
                }
            }
        }
    }

    /// Unmaps a page, if it is mapped.
    /// # Errors
    /// Those of [`Executor::unmap`].
    pub fn unmap(
        &mut self,
        mmu: &mut Mmu,
        tables: &mut Tables,
        at: u32,
    ) -> Result<(), ExecutorError> {
        if self.shadow.remove(at).is_none() {
            return Ok(());
        }
        self.drops += 1;
        let (base, _) = self.region_of(at);
        let left = self.regions.get_mut(&base).map(|region| {
            region.pages -= 1;
            region.pages
        });
        if left == Some(0) {
            self.forget_region(mmu, tables, base);
        }
        self.executor.unmap(at << 12, PAGE_SIZE as u32)
    }

    /// Unmaps the region that begins at page `base`.
    /// # Errors
    /// Those of [`Executor::unmap`].
    pub fn unmap_region(
        &mut self,
        mmu: &mut Mmu,
        tables: &mut Tables,
        base: u32,
    ) -> Result<(), ExecutorError> {
        let span = self.region_span();
        if !self.regions.contains_key(&base) {
            return Ok(());
        }
        (base..base + span).try_for_each(|page| self.unmap(mmu, tables, page))
    }

    /// Forgets all mappings; the executor must be emptied or ended.
    pub fn forget(&mut self, mmu: &mut Mmu, tables: &mut Tables) {
        let bases: Vec<u32> = self.regions.keys().copied().collect();
        for base in bases {
            self.forget_region(mmu, tables, base);
        }
        self.shadow.clear();
        self.exposed.clear();
        self.grown = None;
    }
}
