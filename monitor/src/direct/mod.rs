//! Direct execution: ring-3 code of promoted address spaces runs on the bare processor, in
//! executors ([`crate::executor`]).
//!
//! Ring 3 starts translated. Where an address space has computed without entering its kernel, it is
//! *promoted* (`policy`): an executor is taken, and whenever the guest is about to run this
//! space's ring-3 code and the processor's state allows it (`enter::allowed`), the executor runs it
//! instead of the code cache. Whatever stops it either makes a mapping (a page that the guest's
//! tables allow and the executor lacks) or sends the guest on translated at the same instruction,
//! where the translator finds and delivers the event exactly. A space that traps too often is
//! *demoted*.
//!
//! An executor's mappings are never more than the guest's tables and the page watches allow: every
//! table that a mapping was made from is watched ([`attr::TABLE`]), and a write to an entry drops
//! what was made from it before guest code runs there again. A page that gets a watch of its own is
//! dropped in the same way ([`Direct::forbid_writes`]). Code that reads what an executor cannot show
//! is not executable there (`reads`). This is stricter than a TLB, so INVLPG and
//! CR3 loads need nothing.

mod affinity;
mod enter;
mod gates;
pub mod policy;
mod reads;
mod shadow;
mod space;
mod tables;

use crate::config::Ring3Policy;
use crate::executor::{ExecutorError, ExecutorPool, Unsupported, host_support};
use crate::memory::{GuestRam, attr};
use crate::mmu::Mmu;
use crate::vcpu::Span;
use affinity::Affinity;
pub(crate) use enter::{Next, allowed, run};
use hashbrown::HashMap;
use policy::{Costs, Evidence, Record};
use reads::Known;
use ring3_translator::addr::PAGE_SIZE;
use ring3_translator::state::GuestState;
use shadow::Code;
use space::{Live, SpaceKey};
use std::os::fd::BorrowedFd;
use tables::{Level, Tables};

/// Address spaces that are remembered.
const MAX_SPACES: usize = 256;
/// Executors in use at once.
const MAX_LIVE: usize = 32;
/// A space whose executor was not entered for so long gives it up to another, ns.
const STALE: u64 = 500_000_000;
/// A time in an address space that is too short to remember, ns.
const SHORT_STINT: u64 = 50_000;
/// Pages unmapped by table writes in a row that end a space: the guest takes it apart.
const MAX_DROPS: u32 = 1024;
/// Host mappings of one executor at most, if the host allows twice as many.
const MAX_MAPPINGS: u32 = 32_000;

/// What direct execution counts.
#[derive(Clone, Debug, Default)]
pub struct DirectStats {
    /// Promotions.
    pub promotions: u64,
    /// Demotions because a space trapped too often.
    pub demotions: u64,
    /// Promoted spaces that the guest took apart, or that gave way to others.
    pub ended: u64,
    /// Sum over promotions of the time from the start of the evidence to the promotion, ns.
    pub promotion_ns: u64,
    /// The longest of these, ns.
    pub promotion_max_ns: u64,
    /// Times guest code was entered directly.
    pub entries: u64,
    /// Time in executors, hand-over included, ns.
    pub time_ns: u64,
    /// Stops by missing mappings.
    pub misses: u64,
    /// Stops by writes to pages whose dirty bit was clear or that were watched.
    pub write_misses: u64,
    /// Guest page faults.
    pub page_faults: u64,
    /// Time and processor time of the executor that one hand-over takes, ns; 0 before the first.
    pub trap_ns: (u64, u64),
    /// System call instructions.
    pub system_calls: u64,
    /// Calls of pages that hold SYSENTER.
    pub gate_calls: u64,
    /// Other exceptions, by vector.
    pub exceptions: [u64; 32],
    /// Stops by events for the processor.
    pub kicks: u64,
    /// Guest code that left 32-bit mode.
    pub foreign: u64,
    /// Guest code that loaded a segment register.
    pub selectors: u64,
    /// Pages of code that stay translated because they read what an executor cannot show.
    pub translated_pages: u64,
    /// FPU states loaded into executors.
    pub fpu_loads: u64,
    /// Pages mapped.
    pub pages_mapped: u64,
    /// Pages unmapped because a table changed or a watch was set.
    pub pages_dropped: u64,
    /// Times all mappings of an executor were dropped because there were too many.
    pub evictions: u64,
    /// Most host mappings that one executor had.
    pub most_mappings: u64,
    /// Executors started.
    pub started: u64,
    /// Executors that died by a signal from outside.
    pub killed: u64,
    /// Executors given up because of a host error.
    pub errors: u64,
    /// The last such error.
    pub last_error: Option<String>,
}

struct Space {
    key: SpaceKey,
    record: Record,
    promoted: bool,
    live: Option<Live>,
    last_run: u64,
}

/// See the module's text. Belongs to the thread that started it.
#[derive(Default)]
pub struct Direct {
    policy: Ring3Policy,
    pool: Option<ExecutorPool>,
    index: HashMap<SpaceKey, usize>,
    slots: Vec<Option<Space>>,
    tables: Tables,
    known: Known,
    evidence: Evidence,
    /// The space that [`Self::evidence`] is of.
    current: Option<SpaceKey>,
    /// The last tick: VM time and this thread's processor time, ns.
    last_tick: (u64, u64),
    /// Number of promoted spaces.
    promoted: usize,
    /// The next pass of the run loop executes so much translated code.
    hold: Option<Span>,
    affinity: Affinity,
    /// What a hand-over costs here; measured once, with the first executor.
    costs: Option<Costs>,
    max_mappings: u32,
    /// Counters.
    pub stats: DirectStats,
}

fn max_mappings() -> u32 {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    let limit = limit.ok().and_then(|text| text.trim().parse::<u32>().ok());
    limit.map_or(MAX_MAPPINGS, |n| (n / 2).min(MAX_MAPPINGS))
}

impl Direct {
    /// Turns direct execution on, for the calling thread.
    /// # Errors
    /// Why this host cannot: one line. Ring 3 then stays translated.
    pub fn start(&mut self, policy: Ring3Policy, ram: &GuestRam) -> Result<(), Unsupported> {
        if policy == Ring3Policy::Translate {
            return Ok(());
        }
        host_support()?;
        // The memfd lives as long as RAM does.
        let fd: BorrowedFd<'_> = ram.borrow_fd();
        self.pool = Some(ExecutorPool::new(fd, None)?);
        self.policy = policy;
        self.max_mappings = max_mappings();
        Ok(())
    }

    /// True if any address space may ever run directly.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.pool.is_some()
    }

    /// True if there is an address space that may run directly now.
    #[must_use]
    pub fn may_run(&self) -> bool {
        self.promoted != 0 || self.policy == Ring3Policy::Direct
    }

    /// What the next pass of the run loop must do translated, if anything.
    pub(crate) fn take_hold(&mut self) -> Option<Span> {
        self.hold.take()
    }

    /// Keeps direct execution off for one pass of the run loop: see [`Self::take_hold`].
    pub(crate) fn hold(&mut self, span: Span) {
        self.hold = Some(span);
    }

    /// The guest has loaded CR3: what ran before is evidence for another space. `entries`: kernel
    /// entries counted so far.
    pub fn switched(&mut self, st: &GuestState, now: u64, entries: u64) {
        let stint = self.evidence.stint(now, entries);
        let before = self.current.replace(SpaceKey::of(st));
        if stint.time >= SHORT_STINT
            && let Some(slot) = before.and_then(|key| self.slot(&key, now))
            && let Some(space) = &mut self.slots[slot]
        {
            space.record.leaves(stint);
        }
        self.evidence = Evidence::begin(now, entries);
    }

    /// The processor was idle: that is no evidence.
    pub fn was_idle(&mut self, now: u64, entries: u64) {
        self.evidence = Evidence::begin(now, entries);
    }

    /// The processor has nothing to do: the host may move its thread.
    pub fn idle(&mut self) {
        self.affinity.release();
    }

    /// An external interrupt has stopped ring-3 code of the current space: time to judge it.
    pub fn tick(&mut self, st: &GuestState, now: u64, entries: u64) {
        let share = self.host_share(now);
        let costs = self.costs();
        let stint = self.evidence.stint(now, entries);
        if stint.time < SHORT_STINT || !allowed(st) {
            return;
        }
        let slot = self.slot(&SpaceKey::of(st), now);
        let Some(space) = slot.and_then(|slot| self.slots[slot].as_mut()) else {
            return;
        };
        let Some((time, earned)) = space.record.judge(now, stint, share, &costs) else {
            return;
        };
        if !space.promoted && earned {
            self.stats.promotion_ns += time;
            self.stats.promotion_max_ns = self.stats.promotion_max_ns.max(time);
            self.promote(slot, now);
        }
        self.evidence = Evidence::begin(now, entries);
    }

    /// How much of the time since the last tick the host gave to this thread, of 256.
    fn host_share(&mut self, now: u64) -> u64 {
        let cpu = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID
            .now()
            .map_or(now, |t| {
                t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64
            });
        let (then, cpu_then) = core::mem::replace(&mut self.last_tick, (now, cpu));
        let used = cpu.saturating_sub(cpu_then) * 256;
        used.checked_div(now.saturating_sub(then))
            .map_or(256, |share| share.min(256))
    }

    /// The costs of a hand-over as measured, or as on common hosts.
    fn costs(&self) -> Costs {
        self.costs.unwrap_or_default()
    }

    fn promote(&mut self, slot: Option<usize>, now: u64) {
        if let Some(space) = slot.and_then(|slot| self.slots[slot].as_mut()) {
            space.promoted = true;
            space.last_run = now;
            space.record.promoted(now);
            self.promoted += 1;
            self.stats.promotions += 1;
        }
    }

    /// The slot of the current space if its ring-3 code shall run directly.
    pub(crate) fn wanted(&mut self, st: &GuestState, now: impl FnOnce() -> u64) -> Option<usize> {
        let key = SpaceKey::of(st);
        let known = self.index.get(&key).copied();
        let promoted = |slot: &usize| self.slots[*slot].as_ref().is_some_and(|s| s.promoted);
        if let Some(slot) = known.filter(promoted) {
            return Some(slot);
        }
        if self.policy == Ring3Policy::Direct {
            let now = now();
            let slot = self.slot(&key, now);
            self.promote(slot, now);
            return slot;
        }
        None
    }

    /// True if the code at `eip` in the space of `slot` reads what its executor cannot show.
    pub(crate) fn must_translate(&mut self, slot: usize, eip: u32) -> bool {
        let mapped = self.live(slot).and_then(|live| live.shadow.get(eip >> 12));
        mapped.is_some_and(|mapped| mapped.code == Code::Translated)
    }

    /// Finds or makes the slot of a space. None if all slots are in use by promoted spaces.
    fn slot(&mut self, key: &SpaceKey, now: u64) -> Option<usize> {
        if let Some(&slot) = self.index.get(key) {
            return Some(slot);
        }
        let slot = if let Some(slot) = self.slots.iter().position(Option::is_none) {
            slot
        } else if self.slots.len() < MAX_SPACES {
            self.slots.push(None);
            self.slots.len() - 1
        } else {
            let idle = self.slots.iter().enumerate();
            let idle = idle.filter_map(|(i, s)| s.as_ref().filter(|s| !s.promoted).map(|s| (i, s)));
            let (slot, oldest) = idle.min_by_key(|(_, s)| s.last_run)?;
            self.index.remove(&oldest.key);
            slot
        };
        self.index.insert(*key, slot);
        self.slots[slot] = Some(Space {
            key: *key,
            record: Record::default(),
            promoted: false,
            live: None,
            last_run: now,
        });
        Some(slot)
    }

    /// Makes sure that the promoted space in `slot` has an executor.
    fn ensure_live(&mut self, mmu: &mut Mmu, slot: usize, now: u64) -> Result<(), ExecutorError> {
        if self.live(slot).is_some() {
            return Ok(());
        }
        let live = self.slots.iter().flatten().filter(|s| s.live.is_some());
        if live.count() >= MAX_LIVE {
            let candidates = self.slots.iter().enumerate();
            let oldest = candidates
                .filter_map(|(i, s)| s.as_ref().filter(|s| s.live.is_some()).map(|s| (i, s)))
                .min_by_key(|(_, s)| s.last_run)
                .filter(|(_, s)| now.saturating_sub(s.last_run) > STALE)
                .map(|(i, _)| i);
            match oldest {
                Some(oldest) => self.end(mmu, oldest),
                // All are busy: this one goes on translated for a while.
                None => {
                    self.demote(mmu, slot, now);
                    return Ok(());
                }
            }
        }
        let Some(pool) = &mut self.pool else {
            return Ok(());
        };
        self.stats.started += u64::from(pool.idle() == 0);
        let mut executor = pool.take()?;
        if self.costs.is_none() {
            self.affinity.before_run(&mut executor, now);
            let costs = executor.costs()?;
            self.stats.trap_ns = (costs.trap, costs.cpu);
            self.costs = Some(costs);
        }
        if let Some(Some(space)) = self.slots.get_mut(slot) {
            space.record.begin_judgement(executor.cpu_time());
            space.live = Some(Live::new(executor, slot, &space.key));
        }
        Ok(())
    }

    fn live(&mut self, slot: usize) -> Option<&mut Live> {
        self.slots.get_mut(slot)?.as_mut()?.live.as_mut()
    }

    /// Takes a space's executor back. `reuse`: it is in order.
    fn release(&mut self, mmu: &mut Mmu, slot: usize, reuse: bool) {
        let space = self.slots.get_mut(slot).and_then(Option::as_mut);
        let Some(mut live) = space.and_then(|s| s.live.take()) else {
            return;
        };
        live.forget(mmu, &mut self.tables);
        if reuse && let Some(pool) = &mut self.pool {
            pool.give_back(live.executor);
        }
    }

    /// A promoted space is one no more; it may earn it again at once.
    fn end(&mut self, mmu: &mut Mmu, slot: usize) {
        self.release(mmu, slot, true);
        if let Some(Some(space)) = self.slots.get_mut(slot)
            && core::mem::take(&mut space.promoted)
        {
            self.promoted -= 1;
            self.stats.ended += 1;
        }
    }

    /// A promoted space has trapped too often.
    fn demote(&mut self, mmu: &mut Mmu, slot: usize, now: u64) {
        self.release(mmu, slot, true);
        if let Some(Some(space)) = self.slots.get_mut(slot)
            && core::mem::take(&mut space.promoted)
        {
            space.record.demoted(now);
            self.promoted -= 1;
            self.stats.demotions += 1;
        }
    }

    /// The host failed: the executor is given up, and the space goes on translated for a while.
    fn failed(&mut self, mmu: &mut Mmu, slot: usize, now: u64, error: &ExecutorError) {
        self.stats.errors += 1;
        self.stats.last_error = Some(error.to_string());
        self.release(mmu, slot, false);
        self.demote(mmu, slot, now);
    }

    /// The guest, or a device, wrote `len` bytes at `pa` into a page with [`attr::TABLE`].
    pub fn table_written(&mut self, mmu: &mut Mmu, pa: u64, len: u64, now: u64) {
        for what in self.tables.uses(pa) {
            let Some(Some(space)) = self.slots.get_mut(what.slot) else {
                continue;
            };
            let Some(live) = &mut space.live else {
                continue;
            };
            let before = live.shadow.pages();
            let result = what.touched(pa, len).try_for_each(|at| match what.level {
                Level::Leaf => live.unmap(mmu, &mut self.tables, at),
                Level::Directory => live.unmap_region(mmu, &mut self.tables, at),
            });
            let (left, drops) = (live.shadow.pages(), live.drops);
            self.stats.pages_dropped += u64::from(before - left);
            if let Err(e) = result {
                self.failed(mmu, what.slot, now, &e);
            } else if before != left && (left == 0 || drops > MAX_DROPS) {
                // The process has ended, or forked: the next owner of these tables starts anew.
                self.end(mmu, what.slot);
            }
        }
    }

    /// A guest that lets its programs write its page tables: no executor does it unseen.
    fn hide_tables(&mut self, mmu: &mut Mmu, slot: usize, now: u64) {
        while let Some(pa) = self.live(slot).and_then(|live| live.exposed.pop()) {
            self.forbid_writes(mmu, pa, now);
        }
    }

    /// A page that executors may have mapped writable ([`attr::DIRECT`]) is watched from now on.
    pub fn forbid_writes(&mut self, mmu: &mut Mmu, pa: u64, now: u64) {
        mmu.ram.clear_attributes(pa, attr::DIRECT);
        let frame = (pa / PAGE_SIZE) as u32;
        for slot in 0..self.slots.len() {
            let Some(live) = self.slots[slot].as_mut().and_then(|s| s.live.as_mut()) else {
                continue;
            };
            let pages = live.shadow.writable_at(frame);
            self.stats.pages_dropped += pages.len() as u64;
            let mut pages = pages.into_iter();
            if let Err(e) = pages.try_for_each(|at| live.unmap(mmu, &mut self.tables, at)) {
                self.failed(mmu, slot, now, &e);
            }
        }
    }

    /// Forgets all spaces: the machine restarts.
    pub fn clear(&mut self, mmu: &mut Mmu) {
        for slot in 0..self.slots.len() {
            self.release(mmu, slot, true);
        }
        self.slots.clear();
        self.index.clear();
        self.current = None;
        self.promoted = 0;
        self.hold = None;
    }

    /// Ends all executors and lets the thread go: the machine stops.
    pub fn stop(&mut self, mmu: &mut Mmu) {
        self.clear(mmu);
        self.pool = None;
        self.affinity.release();
    }

    /// Number of promoted spaces now.
    #[must_use]
    pub fn promoted(&self) -> usize {
        self.promoted
    }

    /// Number of watched page tables now.
    #[must_use]
    pub fn watched_tables(&self) -> usize {
        self.tables.len()
    }
}
