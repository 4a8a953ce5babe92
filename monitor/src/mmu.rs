//! The guest's memory as the processor sees it: walks, soft TLBs, the window, code pages.

mod invlpg;

use self::invlpg::{LargePages, Restless};
use crate::cpu::env::{Access, Privilege, TlbFlush};
use crate::cpu::fault::Fault;
use crate::memory::{GuestRam, attr};
use crate::paging::{Page, Tables, Walk, walk};
use crate::window::{Run, Window};
use core::ops::Range;
use ring3_translator::addr::PAGE_SIZE;
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, TLB_ENTRIES, TlbEntry, cr0};
use std::io;
use std::sync::Arc;

/// Entries of the instruction-fetch TLB (a power of two).
const FETCH_ENTRIES: usize = 256;
/// Most entries of the guest's tables that a flush looks at to keep window mappings.
const FLUSH_LOOKS: u64 = 65_536;

/// One entry of the fetch TLB.
#[derive(Clone, Copy)]
struct FetchEntry {
    /// Linear page | privilege (0 supervisor, 1 user); all ones when empty.
    tag: u64,
    phys: u64,
    global: bool,
}

const EMPTY_FETCH: FetchEntry = FetchEntry {
    tag: u64::MAX,
    phys: 0,
    global: false,
};

/// Drops the entries of the soft TLBs that make pages in a range of host addresses writable.
fn drop_write_entries(st: &mut GuestState, host: Range<u64>) {
    for tlb in &mut st.tlb {
        for (i, e) in tlb.iter_mut().enumerate() {
            if e.write != TlbEntry::invalid_tag(i)
                && host.contains(&e.delta.wrapping_add(u64::from(e.write)))
            {
                e.write = TlbEntry::invalid_tag(i);
            }
        }
    }
}

/// Where an instruction is fetched from.
#[derive(Clone, Copy, Debug)]
pub struct Fetched {
    /// Physical address.
    pub phys: u64,
    /// The page is global.
    pub global: bool,
    /// The fetch TLB did not have the page.
    pub walked: bool,
}

/// Whether the guest's tables still say what a window mapping at `lin` rests on, and then whether
/// its pages are global.
fn still_so(tables: &Tables<'_>, lin: u64, run: &Run) -> Option<bool> {
    let mut at = lin;
    let mut global = None;
    while at < lin + run.len {
        let p = tables.supervisor_page(at as u32)?;
        let same = p.size == run.page
            && p.writable == run.writable
            && p.phys == run.phys + (at - lin)
            && *global.get_or_insert(p.global) == p.global;
        if !same {
            return None;
        }
        at = (at & !(run.page - 1)) + run.page;
        if at < lin + run.len {
            let left = (lin + run.len - at) / PAGE_SIZE;
            at += tables.alike_after((at - run.page) as u32, &p, left) * PAGE_SIZE;
        }
    }
    global
}

/// What a window miss came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Mapped: run the instruction again.
    Mapped,
    /// A guest page fault.
    Fault(Fault),
    /// Not for the window (device memory, user page, restless page): the site must be adapted.
    Unmappable,
    /// A write to a page with translations.
    Code(u64),
    /// A write to a page table that mappings of an executor rest on: the site must be adapted.
    Table,
}

/// Counters of the memory system.
#[derive(Clone, Copy, Debug, Default)]
pub struct MmuStats {
    /// Soft TLB fills.
    pub tlb_fills: u64,
    /// Flushes of all entries.
    pub flush_all: u64,
    /// Flushes by CR3 loads.
    pub flush_non_global: u64,
    /// INVLPG.
    pub invlpg: u64,
    /// Window misses (host faults that were mapped).
    pub window_misses: u64,
    /// Instruction-fetch walks.
    pub fetch_walks: u64,
    /// First writes to logged pages.
    pub logged_writes: u64,
}

/// See the module's text.
pub struct Mmu {
    /// Guest RAM.
    pub ram: Arc<GuestRam>,
    /// The supervisor window.
    pub window: Window,
    fetch: Vec<FetchEntry>,
    large: LargePages,
    restless: Restless,
    /// Bits of a physical address.
    pub phys_bits: u32,
    /// All ones, or without bit 20 while the A20 gate is closed.
    pub a20_mask: u64,
    /// Counters.
    pub stats: MmuStats,
}

impl Mmu {
    /// A memory system over `ram`.
    /// # Errors
    /// When the host has no address space for the window.
    pub fn new(ram: Arc<GuestRam>, phys_bits: u32) -> io::Result<Self> {
        let window = Window::new(&ram)?;
        Ok(Self {
            ram,
            window,
            fetch: vec![EMPTY_FETCH; FETCH_ENTRIES],
            large: LargePages::default(),
            restless: Restless::default(),
            phys_bits,
            a20_mask: u64::MAX,
            stats: MmuStats::default(),
        })
    }

    /// Walks the guest's tables. `commit`: as an access does, setting A and D bits.
    /// # Errors
    /// #PF; without `commit` also for entries whose A bit is clear.
    pub fn walk(
        &self,
        st: &GuestState,
        lin: u32,
        access: Access,
        who: Privilege,
        commit: bool,
    ) -> Result<Page, Fault> {
        let mut page = walk(
            st,
            &self.ram,
            lin,
            Walk {
                access,
                who,
                commit,
            },
            self.phys_bits,
        )?;
        page.phys &= self.a20_mask;
        Ok(page)
    }

    fn tables<'a>(&'a self, st: &'a GuestState) -> Tables<'a> {
        Tables {
            st,
            ram: &self.ram,
            phys_bits: self.phys_bits,
            a20_mask: self.a20_mask,
        }
    }

    /// Translates an instruction fetch.
    /// # Errors
    /// #PF.
    pub fn fetch(&mut self, st: &GuestState, lin: u32) -> Result<Fetched, Fault> {
        let user = st.cpl == 3;
        let page = u64::from(lin) & !(PAGE_SIZE - 1);
        let tag = page | u64::from(user);
        let offset = u64::from(lin) & (PAGE_SIZE - 1);
        let slot = (lin >> 12) as usize & (FETCH_ENTRIES - 1);
        let e = self.fetch[slot];
        if e.tag == tag {
            return Ok(Fetched {
                phys: e.phys | offset,
                global: e.global,
                walked: false,
            });
        }
        let who = if user {
            Privilege::User
        } else {
            Privilege::Supervisor
        };
        self.stats.fetch_walks += 1;
        let p = self.walk(st, lin, Access::Execute, who, true)?;
        self.large.note(lin, p.size);
        let phys = p.phys & !(PAGE_SIZE - 1);
        self.fetch[slot] = FetchEntry {
            tag,
            phys,
            global: p.global,
        };
        Ok(Fetched {
            phys: phys | offset,
            global: p.global,
            walked: true,
        })
    }

    /// Walks for a data access and fills the soft TLB when the page can be accessed directly.
    /// Returns the physical address.
    /// # Errors
    /// #PF.
    pub fn resolve(
        &mut self,
        st: &mut GuestState,
        lin: u32,
        access: Access,
        who: Privilege,
    ) -> Result<u64, Fault> {
        let p = self.walk(st, lin, access, who, true)?;
        if let Some(host) = self.ram.host_address(p.phys) {
            if access == Access::Write {
                self.note_write(p.phys);
            }
            self.stats.tlb_fills += 1;
            self.large.note(lin, p.size);
            let page = lin & !0xfff;
            let index = (lin >> 12) as usize & (TLB_ENTRIES - 1);
            let watched = self.ram.attributes(p.phys) & attr::WATCHED != 0;
            let entry = &mut st.tlb[usize::from(who == Privilege::User)][index];
            if entry.read != page && entry.write != page {
                *entry = TlbEntry::empty(index);
            }
            entry.read = page;
            entry.write = if p.writable && !watched {
                page
            } else {
                TlbEntry::invalid_tag(index)
            };
            entry.delta = host.wrapping_sub(u64::from(lin));
        }
        Ok(p.phys)
    }

    /// The host address of a linear byte if the soft TLB has it for this access.
    #[must_use]
    pub fn probe_tlb(st: &GuestState, lin: u32, write: bool, who: Privilege) -> Option<u64> {
        let entry =
            &st.tlb[usize::from(who == Privilege::User)][(lin >> 12) as usize & (TLB_ENTRIES - 1)];
        let tag = if write { entry.write } else { entry.read };
        (tag == lin & !0xfff).then(|| entry.delta.wrapping_add(u64::from(lin)))
    }

    /// Handles a host fault in the window at linear address `lin`.
    pub fn window_miss(&mut self, st: &mut GuestState, lin: u32, write: bool) -> Miss {
        let access = if write { Access::Write } else { Access::Read };
        let page = match self.walk(st, lin, access, Privilege::Supervisor, true) {
            Ok(p) => p,
            Err(f) => return Miss::Fault(f),
        };
        if !self.ram.is_ram(page.phys) {
            return Miss::Unmappable;
        }
        if write {
            // A page of a writable mapping that was only logged is writable again by this.
            if self.note_write(page.phys)
                && self.ram.attributes(page.phys) & attr::WATCHED == 0
                && self.window.is_writable(u64::from(lin))
            {
                return Miss::Mapped;
            }
            let attributes = self.ram.attributes(page.phys);
            if attributes & attr::ROUTED != 0 {
                return Miss::Unmappable;
            }
            if attributes & attr::TABLE != 0 {
                return Miss::Table;
            }
            if attributes & attr::CODE != 0 {
                return Miss::Code(page.phys);
            }
        }
        if st.cr0 & cr0::PG == 0 {
            self.stats.window_misses += 1;
            return match if self.a20_mask == u64::MAX {
                self.window.map_identity(&self.ram, page.phys)
            } else {
                self.map_page(lin, &page)
            } {
                Ok(()) => Miss::Mapped,
                Err(_) => Miss::Unmappable,
            };
        }
        let restless = page.size == PAGE_SIZE && self.restless.is(lin, self.stats.invlpg);
        if page.user || restless || self.a20_mask != u64::MAX {
            return Miss::Unmappable;
        }
        self.stats.window_misses += 1;
        let (start, phys, len) = self.extend(st, lin, &page);
        match self.window.map(
            &self.ram,
            start,
            phys,
            len,
            page.size,
            page.writable,
            page.global,
        ) {
            Ok(()) => Miss::Mapped,
            Err(_) => {
                // Out of host mappings: drop all, then the single page.
                self.window.clear();
                match self.map_page(lin, &page) {
                    Ok(()) => Miss::Mapped,
                    Err(_) => Miss::Unmappable,
                }
            }
        }
    }

    fn map_page(&mut self, lin: u32, page: &Page) -> io::Result<()> {
        let lin = u64::from(lin) & !(PAGE_SIZE - 1);
        let phys = page.phys & !(PAGE_SIZE - 1);
        self.window.map(
            &self.ram,
            lin,
            phys,
            PAGE_SIZE,
            PAGE_SIZE,
            page.writable,
            page.global,
        )
    }

    /// The largest physically contiguous run around `lin` whose pages have the same rights and
    /// whose accessed (and dirty) bits are already set.
    fn extend(&self, st: &GuestState, lin: u32, page: &Page) -> (u64, u64, u64) {
        const REACH: u64 = 64 << 20;
        let size = page.size.max(PAGE_SIZE);
        let lin = u64::from(lin) & !(size - 1);
        let phys = page.phys & !(size - 1);
        let region = self.ram.region(page.phys).unwrap_or_default();
        let tables = self.tables(st);
        let same = |l: u64, expected: u64| {
            if self.window.is_mapped(l) {
                return None;
            }
            let p = tables.supervisor_page(l as u32)?;
            let ok = p.size == page.size
                && p.writable == page.writable
                && p.global == page.global
                && p.phys == expected
                && region.contains(&p.phys)
                && p.phys + p.size <= region.end;
            ok.then_some(p.size)
        };
        let (mut start, mut start_phys, mut end, mut end_phys) =
            (lin, phys, lin + size, phys + size);
        // A large page may reach beyond RAM or over the VGA hole: take only what is memory.
        if start_phys < region.start || end_phys > region.end {
            let (from, to) = (phys.max(region.start), end_phys.min(region.end));
            return (lin + (from - phys), from, to - from);
        }
        while end - lin < REACH && end < 1 << 32 {
            let Some(s) = same(end, end_phys) else { break };
            end += s;
            end_phys += s;
        }
        while lin - start < REACH && start >= PAGE_SIZE && start_phys > region.start {
            let Some(s) = same(start - PAGE_SIZE, start_phys - PAGE_SIZE) else {
                break;
            };
            if s > start || start_phys - region.start < s {
                break;
            }
            start -= s;
            start_phys -= s;
        }
        (start, start_phys, end - start)
    }

    /// The frame number that ring 0 fetches code from at `lin`, if the accessed bits are set.
    #[must_use]
    pub fn code_frame(&self, st: &GuestState, lin: u32) -> Option<u64> {
        let page = self.tables(st).page(lin, Access::Execute);
        page.map(|p| p.phys / PAGE_SIZE)
    }

    /// TLB flushes: soft TLBs, fetch TLB, window.
    pub fn flush(&mut self, st: &mut GuestState, what: TlbFlush) {
        st.flush_soft_tlb();
        match what {
            TlbFlush::All => {
                self.stats.flush_all += 1;
                self.fetch.fill(EMPTY_FETCH);
            }
            TlbFlush::NonGlobal => {
                self.stats.flush_non_global += 1;
                for e in &mut self.fetch {
                    if !e.global {
                        *e = EMPTY_FETCH;
                    }
                }
            }
        }
        self.flush_window(st, what);
    }

    /// Drops the window mappings that are not what the guest's tables say now. A mapping costs a
    /// host fault and two system calls, a look at a table entry some nanoseconds, and kernels
    /// change little of their own space between flushes.
    fn flush_window(&mut self, st: &GuestState, what: TlbFlush) {
        let tables = Tables {
            st,
            ram: &self.ram,
            phys_bits: self.phys_bits,
            a20_mask: self.a20_mask,
        };
        let mut looks = 0;
        self.window.review(|lin, run| {
            if what == TlbFlush::NonGlobal && run.global {
                return Some(true);
            }
            looks += run.len.div_ceil(run.page);
            if looks > FLUSH_LOOKS {
                return None;
            }
            still_so(&tables, lin, run)
        });
    }

    /// Empties the fetch TLB.
    pub fn forget_fetches(&mut self) {
        self.fetch.fill(EMPTY_FETCH);
    }

    /// Drops everything that was derived from the guest's tables and from where memory is.
    pub fn forget(&mut self, st: &mut GuestState) {
        st.flush_soft_tlb();
        self.window.clear();
        self.fetch.fill(EMPTY_FETCH);
    }

    /// INVLPG.
    pub fn invalidate_page(&mut self, st: &mut GuestState, lin: u32) {
        self.stats.invlpg += 1;
        if st.broken(Mutation::Invlpg) {
            return;
        }
        if self.large.take(lin) {
            st.flush_soft_tlb();
            self.fetch.fill(EMPTY_FETCH);
        } else {
            let page = (lin >> 12) as usize;
            let index = page & (TLB_ENTRIES - 1);
            for tlb in &mut st.tlb {
                tlb[index] = TlbEntry::empty(index);
            }
            self.fetch[page & (FETCH_ENTRIES - 1)] = EMPTY_FETCH;
        }
        let mapped = self
            .window
            .unmap_range(u64::from(lin) & !(PAGE_SIZE - 1), PAGE_SIZE);
        self.restless.invalidated(lin, mapped, self.stats.invlpg);
    }

    /// Watches a physical page for `why`, one of [`attr::NOTIFIED`]: no direct write through the
    /// window or the soft TLBs reaches it any more. Returns the attributes that it had.
    pub fn watch(&mut self, st: &mut GuestState, phys: u64, why: u8) -> u8 {
        let old = self.ram.set_attributes(phys, why);
        if old & attr::WATCHED == 0 {
            self.forbid_writes(st, phys);
        }
        old
    }

    fn forbid_writes(&mut self, st: &mut GuestState, phys: u64) {
        self.window.protect_physical(phys, false);
        if let Some(host) = self.ram.host_address(phys & !(PAGE_SIZE - 1)) {
            drop_write_entries(st, host..host + PAGE_SIZE);
        }
    }

    /// A write to memory at `phys` goes through now: a logged page is not logged any more, and
    /// writable where nothing else watches it. True if it was logged.
    fn note_write(&mut self, phys: u64) -> bool {
        if !self.ram.note_write(phys) {
            return false;
        }
        self.stats.logged_writes += 1;
        if self.ram.attributes(phys) & attr::WATCHED == 0 {
            self.window.protect_physical(phys, true);
        }
        true
    }

    /// Watches all of video memory for writes. Returns the pages that were written to since the
    /// last time: see [`GuestRam::harvest_video`].
    pub fn harvest_video(&mut self, st: &mut GuestState) -> Vec<u32> {
        let pages = self.ram.harvest_video();
        let (Some(&first), Some(&last)) = (pages.first(), pages.last()) else {
            return pages;
        };
        if let Some(base) = self.ram.video_base() {
            let (from, to) = (u64::from(first), u64::from(last) + 1);
            self.window
                .protect_range(base + from * PAGE_SIZE..base + to * PAGE_SIZE);
            drop_write_entries(st, self.ram.video_host_range());
        }
        pages
    }

    /// Ends the watch for `why`: direct writes are allowed again if nobody else watches.
    pub fn unwatch(&mut self, phys: u64, why: u8) {
        self.ram.clear_attributes(phys, why);
        if self.ram.attributes(phys) & attr::WATCHED == 0 {
            self.window.protect_physical(phys, true);
        }
    }
}
