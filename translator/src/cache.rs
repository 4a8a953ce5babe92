//! The translation cache: units by key, links between them, and what watches them.

mod links;
mod listing;
mod pages;

use self::links::{Link, NO_LINK};
use self::pages::{PageUnits, unit_lines};
use crate::addr::PAGE_SIZE;
use crate::asm::{CodeBuf, Half};
use crate::classify::{FeatureSet, Table};
use crate::code_memory::CodeMemory;
use crate::large_pages::list;
use crate::lower::{Entries, Lower, Scratch, Site, UnitInfo};
use crate::mode::Mode;
use crate::prelude::{self, Stubs};
use crate::scan::{MAX_INSTRUCTIONS, ScanError, Scanned, scan};
use crate::state::GuestState;
pub use crate::unit::{Emitted, Key, Location, Source, TranslatorStats, UnitId};
use hashbrown::{HashMap, HashSet};
use iced_x86::{Encoder, InstructionInfoFactory};
use std::io;
use std::time::Instant;

/// Bytes that no unit exceeds.
const UNIT_ROOM: usize = 64 << 10;

/// A translated unit.
struct Unit {
    key: Key,
    /// Guest bytes covered.
    len: u32,
    /// Physical page of the bytes beyond the first page, if it crosses.
    second_page: Option<u64>,
    /// Offset of its code in the cache.
    start: u32,
    /// Bytes of its code, and of its hot half.
    size: u32,
    hot: u32,
    indirect: u32,
    body: u32,
    instructions: u32,
    /// The first of the links that jump to it; [`NO_LINK`] for none.
    incoming: u32,
    /// Its own links: a range of ids.
    links: core::ops::Range<u32>,
    /// Its callout sites: a range of ids.
    sites: core::ops::Range<u32>,
    alive: bool,
}

/// Bytes of host code in a unit, on an average: for the room of lists.
const BYTES_PER_UNIT: usize = 300;
/// Bytes of the cache for each site and each link that may exist: code that does nothing but call
/// the monitor has many of them and little host code.
const BYTES_PER_RECORD: usize = 64;

/// A unit that was looked up, with what whoever looks it up needs.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The unit.
    pub unit: UnitId,
    /// Host address of its entry for direct jumps.
    pub body: u64,
    /// Host address of its entry for indirect jumps.
    pub indirect: u64,
    /// The second physical page of a unit that crosses a page boundary.
    pub second_page: Option<u64>,
}

/// A unit that was looked up lately: 32 bytes, so that two share a line of the host's cache.
#[derive(Clone, Copy)]
struct Recent {
    key: Key,
    /// [`NO_UNIT`] in an empty entry.
    unit: u32,
    body: u32,
    indirect: u32,
    crosses: bool,
}

const NO_UNIT: u32 = u32::MAX;

const NO_RECENT: Recent = Recent {
    key: Key {
        phys: u64::MAX,
        eip: 0,
        mode: Mode(0),
    },
    unit: NO_UNIT,
    body: 0,
    indirect: 0,
    crosses: false,
};

/// Entries of the table of units looked up lately (a power of two).
const RECENT_UNITS: usize = 32_768;

/// The place of a key in that table.
fn recent_slot(key: &Key) -> usize {
    let page = (key.phys / PAGE_SIZE) as usize;
    (key.phys as usize ^ page.wrapping_mul(0x9e5) ^ (key.eip >> 12) as usize) & (RECENT_UNITS - 1)
}

/// The translation cache of one virtual processor.
pub struct Translator {
    memory: CodeMemory,
    used: usize,
    stubs: Stubs,
    scratch: Scratch,
    finished: Vec<u8>,
    scanned: Vec<Scanned>,
    encoder: Encoder,
    info: InstructionInfoFactory,
    table: Table,
    units: Vec<Unit>,
    by_key: HashMap<Key, UnitId>,
    recent: Box<[Recent]>,
    by_page: HashMap<u64, PageUnits>,
    links: Vec<Link>,
    /// The links to other pages that were patched since these were last undone.
    cross_links: Vec<u32>,
    sites: Vec<Site>,
    /// (offset in the cache, EIP), sorted by offset.
    marks: Vec<(u32, u32)>,
    adapted: HashSet<u64>,
    stats: TranslatorStats,
    /// Where to roll back to before the next translation: the last one was for one use.
    once: Option<Checkpoint>,
    #[cfg(feature = "mutation")]
    mutation: Option<crate::mutation::Mutation>,
}

/// Lengths of the cache's lists before a unit for one use.
struct Checkpoint {
    used: usize,
    units: usize,
    links: usize,
    sites: usize,
    marks: usize,
}

impl Translator {
    /// A cache of `size` bytes for a processor with `features`.
    /// # Errors
    /// When the host refuses the memory.
    pub fn new(size: usize, features: &FeatureSet) -> io::Result<Self> {
        let mut memory = CodeMemory::new(size)?;
        let mut buf = CodeBuf::default();
        let base = memory.address(0);
        let stubs = prelude::emit(&mut buf, base);
        let mut finished = Vec::new();
        buf.finish(base, &mut finished);
        if !memory.write(0, &finished) {
            return Err(io::Error::other(
                "the code cache is smaller than its fixed code",
            ));
        }
        Ok(Self {
            used: finished.len().next_multiple_of(64),
            memory,
            stubs,
            scratch: Scratch::default(),
            finished,
            scanned: Vec::with_capacity(MAX_INSTRUCTIONS),
            encoder: Encoder::new(64),
            info: InstructionInfoFactory::new(),
            table: Table::new(features),
            units: list(size / BYTES_PER_UNIT),
            by_key: HashMap::new(),
            recent: vec![NO_RECENT; RECENT_UNITS].into_boxed_slice(),
            by_page: HashMap::new(),
            links: list(2 * size / BYTES_PER_UNIT),
            cross_links: Vec::new(),
            sites: Vec::new(),
            marks: list(6 * size / BYTES_PER_UNIT),
            adapted: HashSet::new(),
            stats: TranslatorStats::default(),
            once: None,
            #[cfg(feature = "mutation")]
            mutation: None,
        })
    }

    /// What each opcode is to this processor.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The fixed code's addresses.
    #[must_use]
    pub fn stubs(&self) -> &Stubs {
        &self.stubs
    }

    /// Host address range of the cache.
    #[must_use]
    pub fn range(&self) -> core::ops::Range<u64> {
        self.memory.address(0)..self.memory.address(self.memory.size())
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> &TranslatorStats {
        &self.stats
    }

    /// Call before written or patched code may run.
    pub fn synchronize(&mut self) {
        self.memory.synchronize();
    }

    /// Fills every jump-cache slot with the miss exit; call when wiring a state up.
    pub fn clear_jump_caches(&self, st: &mut GuestState) {
        for table in 0..2 {
            self.clear_jump_cache(st, table);
        }
    }

    /// Empties one jump cache.
    pub fn clear_jump_cache(&self, st: &mut GuestState, table: usize) {
        st.jump_cache[table].fill(self.stubs.jump_miss);
    }

    /// A unit by its key.
    pub fn lookup(&mut self, key: &Key) -> Option<Found> {
        let slot = recent_slot(key);
        let recent = self.recent[slot];
        if recent.key == *key {
            let unit = UnitId(recent.unit);
            return Some(Found {
                unit,
                body: self.memory.address(recent.body as usize),
                indirect: self.memory.address(recent.indirect as usize),
                second_page: if recent.crosses {
                    self.units[unit.0 as usize].second_page
                } else {
                    None
                },
            });
        }
        let id = *self.by_key.get(key)?;
        let unit = &self.units[id.0 as usize];
        self.recent[slot] = Recent {
            key: *key,
            unit: id.0,
            body: unit.body,
            indirect: unit.indirect,
            crosses: unit.second_page.is_some(),
        };
        Some(self.found(id))
    }

    /// What [`Self::lookup`] tells of a unit.
    #[must_use]
    pub fn found(&self, unit: UnitId) -> Found {
        let u = &self.units[unit.0 as usize];
        Found {
            unit,
            body: self.memory.address(u.body as usize),
            indirect: self.memory.address(u.indirect as usize),
            second_page: u.second_page,
        }
    }

    /// The instruction behind a callout site.
    #[must_use]
    pub fn site(&self, id: u32) -> Option<&Site> {
        self.sites.get(id as usize)
    }

    /// True if a unit of the usual size still fits; if not, flush before translating.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let most = self.memory.size() / BYTES_PER_RECORD;
        self.used + UNIT_ROOM < self.memory.size()
            && self.sites.len() + MAX_INSTRUCTIONS < most
            && self.links.len() + MAX_INSTRUCTIONS < most
    }

    /// Drops every translation. Only between runs of translated code.
    pub fn flush(&mut self, st: &mut GuestState) {
        self.once = None;
        self.used = self.first_unit();
        self.units.clear();
        self.by_key.clear();
        self.recent.fill(NO_RECENT);
        self.by_page.clear();
        self.links.clear();
        self.cross_links.clear();
        self.sites.clear();
        self.marks.clear();
        self.clear_jump_caches(st);
        self.stats.flushes += 1;
    }

    fn first_unit(&self) -> usize {
        (self.stubs.end - self.memory.address(0)).next_multiple_of(64) as usize
    }

    /// Translates a unit and enters it into the cache.
    /// # Errors
    /// When the bytes do not hold one whole instruction.
    pub fn translate(&mut self, source: &Source<'_>) -> Result<UnitId, ScanError> {
        self.forget_once();
        let id = self.emit(source)?;
        self.by_key.insert(source.key, id);
        let unit = &self.units[id.0 as usize];
        let second = unit.second_page;
        for page in [Some(source.key.phys), second].into_iter().flatten() {
            let units = self.by_page.entry(page / PAGE_SIZE).or_default();
            units.lines |= unit_lines(unit, page);
            units.list.push(id);
        }
        Ok(id)
    }

    /// Translates a unit for one use: it is not found again, and the next translation reuses its
    /// place.
    /// # Errors
    /// When the bytes do not hold one whole instruction.
    pub fn translate_once(&mut self, source: &Source<'_>) -> Result<UnitId, ScanError> {
        self.forget_once();
        self.once = Some(Checkpoint {
            used: self.used,
            units: self.units.len(),
            links: self.links.len(),
            sites: self.sites.len(),
            marks: self.marks.len(),
        });
        self.emit(source)
    }

    fn forget_once(&mut self) {
        if let Some(c) = self.once.take() {
            self.used = c.used;
            self.units.truncate(c.units);
            self.links.truncate(c.links);
            self.sites.truncate(c.sites);
            self.marks.truncate(c.marks);
        }
    }

    fn emit(&mut self, source: &Source<'_>) -> Result<UnitId, ScanError> {
        let started = Instant::now();
        let crosses = self.scan(source)?;
        let mode = source.key.mode;
        let unit_info = UnitInfo {
            mode,
            eip: source.key.eip,
            phys: source.key.phys,
            adapted: &self.adapted,
            site_base: self.sites.len() as u32,
            link_base: self.links.len() as u32,
            chain: source.chain && !mode.is_single_instruction(),
            chain_pages: source.chain_pages,
            #[cfg(feature = "mutation")]
            mutation: self.mutation,
        };
        let mut lower = Lower::new(
            &mut self.scratch,
            &self.stubs,
            &mut self.encoder,
            &mut self.info,
            &self.table,
            unit_info,
        );
        let entries = lower.run(&self.scanned);
        let second_page = if crosses { source.second_page } else { None };
        let id = self.place(source.key, second_page, &entries);
        self.stats.time += started.elapsed();
        Ok(id)
    }

    /// Scans a unit into `scanned`; true if its only instruction crosses a page.
    fn scan(&mut self, source: &Source<'_>) -> Result<bool, ScanError> {
        let Key { phys, eip, mode } = source.key;
        let limit = if mode.is_single_instruction() || !source.chain {
            1
        } else {
            MAX_INSTRUCTIONS
        };
        let first_page = (PAGE_SIZE - (phys & (PAGE_SIZE - 1))) as usize;
        let in_page = source.bytes.len().min(first_page);
        let (table, out) = (&self.table, &mut self.scanned);
        let code32 = mode.code32();
        match scan(&source.bytes[..in_page], eip, code32, limit, table, out) {
            Ok(()) => Ok(false),
            Err(error) if in_page == source.bytes.len() => Err(error),
            Err(_) => scan(source.bytes, eip, code32, 1, table, out).map(|()| true),
        }
    }

    /// Puts the lowered unit behind the last one and enters it into the lists.
    fn place(&mut self, key: Key, second_page: Option<u64>, entries: &Entries) -> UnitId {
        let id = UnitId(self.units.len() as u32);
        let start = self.used as u32;
        let base = self.memory.address(self.used);
        self.scratch.buf.finish(base, &mut self.finished);
        let written = self.memory.write(self.used, &self.finished);
        debug_assert!(written, "has_room() was checked by the caller");
        self.used = (self.used + self.finished.len()).next_multiple_of(16);

        let buf = &self.scratch.buf;
        let hot = buf.hot_len();
        let at = |half: Half, pos: u32| start + pos + if half == Half::Cold { hot } else { 0 };
        // Hot marks first, then cold ones: each list is already in order.
        for half in [Half::Hot, Half::Cold] {
            let marks = self.scratch.marks.iter().filter(|m| m.0 == half);
            self.marks.extend(marks.map(|m| (at(m.0, m.1), m.2)));
        }
        let first_site = self.sites.len() as u32;
        self.sites.extend_from_slice(&self.scratch.sites);
        let first_link = self.links.len() as u32;
        for l in &self.scratch.links {
            self.links.push(Link {
                from: id,
                field: at(l.half, l.at),
                stub: start + buf.offset_of(l.stub),
                target_eip: l.target,
                cross: l.cross,
                to: None,
                next: NO_LINK,
                previous: NO_LINK,
            });
        }
        let len: u32 = self.scanned.iter().map(|s| s.insn.len() as u32).sum();
        let instructions = self.scanned.len() as u32;
        self.units.push(Unit {
            key,
            len: len.max(1),
            second_page,
            start,
            size: self.finished.len() as u32,
            hot,
            indirect: start + buf.offset_of(entries.indirect),
            body: start + buf.offset_of(entries.body),
            instructions,
            incoming: NO_LINK,
            links: first_link..self.links.len() as u32,
            sites: first_site..self.sites.len() as u32,
            alive: true,
        });
        self.stats.units += 1;
        self.stats.instructions += u64::from(instructions);
        self.stats.guest_bytes += u64::from(len);
        self.stats.host_bytes += self.finished.len() as u64;
        id
    }

    /// The guest instruction that a host address belongs to.
    #[must_use]
    pub fn locate(&self, host: u64) -> Option<Location> {
        let offset = u32::try_from(host.checked_sub(self.memory.address(0))?).ok()?;
        let unit = self
            .units
            .partition_point(|u| u.start <= offset)
            .checked_sub(1)?;
        let mark = self
            .marks
            .partition_point(|m| m.0 <= offset)
            .checked_sub(1)?;
        let u = &self.units[unit];
        let eip = self.marks[mark].1;
        let delta = u64::from(eip.wrapping_sub(u.key.eip));
        Some(Location {
            unit: UnitId(unit as u32),
            eip,
            phys: u.key.phys + delta,
        })
    }

    /// Guest-physical addresses of all adapted instructions, in no order.
    pub fn adapted_sites(&self) -> impl Iterator<Item = u64> + '_ {
        self.adapted.iter().copied()
    }

    /// Guest instructions in a unit.
    #[must_use]
    pub fn instructions(&self, unit: UnitId) -> u32 {
        self.units[unit.0 as usize].instructions
    }
}
