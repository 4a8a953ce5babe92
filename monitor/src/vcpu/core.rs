//! The part of a processor that is not its register file: memory, translations, and the way to
//! the board. It is the [`Env`] of the processor's semantics.

mod env;

use crate::board::{Board, IoHandle, Kick, MachineRequest};
use crate::clock::VmClock;
use crate::config::EngineKind;
use crate::cpu::cpuid::CpuModel;
use crate::cpu::env::{Access, Env, Privilege, TlbFlush};
use crate::cpu::event::{Delivery, Event, deliver};
use crate::cpu::fault::Fault;
use crate::direct::Direct;
use crate::kicker::Kicker;
use crate::memory::attr;
use crate::mmu::{Fetched, Mmu};
use crate::vcpu::debug::Debugger;
use crate::vcpu::stats::ExitStats;
use core::sync::atomic::{AtomicBool, Ordering};
use hashbrown::HashMap;
use iced_x86::Mnemonic;
use ring3_translator::addr::PAGE_SIZE;
use ring3_translator::cache::Translator;
use ring3_translator::mode::Mode;
use ring3_translator::state::GuestState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Writes into a code page through the window that drop its translations before the writing site
/// is adapted instead.
pub const CODE_WRITE_PATIENCE: u8 = 3;

/// Most pages of code that a flush looks up in the guest's tables instead of forgetting them.
const MAX_CODE_PAGES: usize = 4096;

/// See the module's text.
pub struct Core {
    /// Memory.
    pub mmu: Mmu,
    /// Translations.
    pub translator: Translator,
    /// The board.
    pub board: Arc<Mutex<Board>>,
    /// The I/O thread, once it runs.
    pub io: Option<Arc<IoHandle>>,
    /// The timer deadline that this processor has acted on in the I/O thread's place.
    pub overdue: u64,
    /// The INTR pin.
    pub intr: Arc<AtomicBool>,
    /// Time.
    pub clock: Arc<VmClock>,
    /// The virtual processor's model.
    pub model: Arc<CpuModel>,
    /// Wakes this processor.
    pub kicker: Arc<Kicker>,
    /// How guest code runs.
    pub engine: EngineKind,
    /// The mode of the unit that runs.
    pub mode: Mode,
    /// Something happened that the run loop must look at before translated code goes on.
    pub leave: bool,
    /// The instruction that left the cache was completed (single step traps come after it).
    pub completed: bool,
    /// The instruction that left the cache is a repeated string instruction with more to do.
    pub repeating: bool,
    /// Breakpoints.
    pub debug: Debugger,
    /// A triple fault.
    pub shutdown: bool,
    /// The non-maskable interrupt.
    pub nmi: Nmi,
    /// Mode and CS base that the jump caches hold entries for.
    pub table_owner: [Option<(Mode, u64)>; 2],
    /// Slots of the jump caches that are filled.
    pub filled: [Vec<u16>; 2],
    /// The return stack of a table holds frames that must not be used any more.
    pub forget_returns: [bool; 2],
    /// A jump-cache entry or direct link of the supervisor rests on a non-global mapping.
    pub non_global_code: bool,
    /// Pages that code of rings 0-2 was run from.
    pub code_pages: CodePages,
    /// Linear pages that code of ring 3 was run from: a bit each.
    pub user_code: Vec<u64>,
    /// Window writes into pages with translations, by page.
    pub code_writes: HashMap<u64, u8>,
    /// Test rigs: events are kept here instead of being delivered.
    pub capture: Option<Captured>,
    /// Ring 3 on the bare processor.
    pub direct: Direct,
    /// Exits and callouts.
    pub stats: ExitStats,
}

/// The state of the non-maskable interrupt. Intel SDM vol. 3A, 6.7.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nmi {
    /// One waits. Another that comes meanwhile is lost.
    pub pending: bool,
    /// One is being handled: the next IRET ends that.
    pub blocked: bool,
}

/// What a rig's processor met last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The event, if there was one.
    pub event: Option<Event>,
}

/// Linear pages that code was run from, and where they were in physical memory.
#[derive(Default)]
pub struct CodePages {
    frames: HashMap<u32, u64>,
}

impl CodePages {
    fn insert(&mut self, page: u32, frame: u64) {
        self.frames.insert(page, frame);
    }

    fn frame(&self, page: u32) -> Option<u64> {
        self.frames.get(&page).copied()
    }

    fn len(&self) -> usize {
        self.frames.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.frames.clear();
    }

    /// Page and frame numbers.
    fn pages(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.frames.iter().map(|(&page, &frame)| (page, frame))
    }
}

impl Core {
    /// The board, locked. A panic elsewhere must not take the machine down with a second one.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers an exception of the instruction at RIP.
    pub fn raise(&mut self, st: &mut GuestState, fault: Fault) {
        self.stats.exceptions[usize::from(fault.vector as u8) & 31] += 1;
        self.deliver(st, Event::Exception(fault));
    }

    /// Delivers any event.
    pub fn deliver(&mut self, st: &mut GuestState, event: Event) {
        st.halted = 0;
        if st.cpl == 3 && !matches!(event, Event::External(_)) {
            self.stats.traps += 1;
        }
        if let Some(captured) = &mut self.capture {
            captured.event = Some(event);
            self.leave = true;
            return;
        }
        self.debug.begin_event();
        if deliver(st, self, event) == Delivery::Shutdown {
            self.shutdown = true;
        }
        self.debug.end_event();
    }

    /// Tells the debugger of an access, if a breakpoint could see it.
    #[inline]
    fn note(&mut self, st: &GuestState, at: u32, len: usize, access: Access) {
        if st.breakpoints_armed() {
            self.debug.note(st, at, len as u32, access == Access::Write);
        }
    }

    /// Empties one jump cache.
    pub fn clear_table(&mut self, st: &mut GuestState, table: usize) {
        let miss = self.translator.stubs().jump_miss;
        for &slot in &self.filled[table] {
            st.jump_cache[table][usize::from(slot)] = miss;
        }
        self.filled[table].clear();
        self.forget_returns[table] = true;
    }

    /// Makes the mode's jump cache and return stack hold entries of this mode and CS base only.
    pub fn own_table(&mut self, st: &mut GuestState, mode: Mode, cs_base: u64) {
        let table = mode.table();
        if self.table_owner[table] != Some((mode, cs_base)) {
            self.table_owner[table] = Some((mode, cs_base));
            self.stats.table_switches += 1;
            self.clear_table(st, table);
        }
    }

    /// Keeps the return stack that the cache was left with. `extra`: bytes that a thunk's own call
    /// takes on it.
    pub fn keep_returns(&mut self, st: &mut GuestState, extra: u64) {
        st.return_rsp[self.mode.table()] = st.cache_rsp + extra;
    }

    /// Puts the mode's return stack in place for entering the cache.
    pub fn restore_returns(&mut self, st: &mut GuestState) {
        let table = self.mode.table();
        st.return_stack_top = st.return_tops[table];
        if core::mem::take(&mut self.forget_returns[table]) {
            st.return_rsp[table] = st.return_tops[table];
        }
        st.cache_rsp = st.return_rsp[table];
    }

    /// Kernel entries by ring-3 code itself: exceptions, software interrupts, SYSENTER.
    pub fn kernel_entries(&self) -> u64 {
        self.stats.traps + self.stats.callouts[Mnemonic::Sysenter as usize]
    }

    /// Marks a page as holding translated code.
    pub fn watch_code(&mut self, st: &mut GuestState, pa: u64) {
        let old = self.mmu.watch(st, pa, attr::CODE);
        if old & attr::DIRECT != 0 {
            let now = self.clock.now_ns();
            self.direct.forbid_writes(&mut self.mmu, pa, now);
        }
    }

    /// Tells the watchers of a write into physical memory, which is done.
    pub fn written(&mut self, st: &mut GuestState, pa: u64, len: u64) {
        let watches = self.mmu.ram.attributes(pa) & attr::NOTIFIED;
        if watches == 0 {
            return;
        }
        if watches & attr::TABLE != 0 {
            let now = self.clock.now_ns();
            self.direct.table_written(&mut self.mmu, pa, len, now);
        }
        self.code_written(st, pa, len);
    }

    /// Tells the translator of a write into physical memory.
    pub fn code_written(&mut self, st: &mut GuestState, pa: u64, len: u64) {
        if self.mmu.ram.attributes(pa) & attr::CODE == 0 {
            return;
        }
        if self.translator.invalidate(st, pa, len) {
            self.leave = true;
            self.translator.synchronize();
        }
        if !self.translator.page_has_code(pa) {
            self.mmu.unwatch(pa, attr::CODE);
        }
    }

    /// One piece of an access that does not cross a page, at a physical address.
    fn read_physical(&mut self, pa: u64, buf: &mut [u8]) {
        if self.mmu.ram.is_ram(pa) {
            self.mmu.ram.read(pa, buf);
        } else if !self.mmu.ram.read_rom(pa, buf) {
            let before = self.intr.load(Ordering::Acquire);
            let mut board = self.board();
            board.mmio_read(pa, buf);
            self.after_board_write(board);
            // Reading may have brought a timer to the present, of which nobody else tells.
            if !before && self.intr.load(Ordering::Acquire) {
                self.kicker.kick();
            }
        }
    }

    /// Reads instruction bytes within one page; device memory and holes read as all ones.
    pub fn read_code(&self, pa: u64, buf: &mut [u8]) {
        if self.mmu.ram.is_ram(pa) {
            self.mmu.ram.read(pa, buf);
        } else if !self.mmu.ram.read_rom(pa, buf) {
            buf.fill(0xff);
        }
    }

    fn write_physical(&mut self, st: &mut GuestState, pa: u64, data: &[u8]) {
        if self.mmu.ram.is_ram(pa) {
            self.mmu.ram.store(pa, data);
            self.written(st, pa, data.len() as u64);
        } else {
            let mut board = self.board();
            board.mmio_write(pa, data);
            let attention = board.request_pending() || board.effects_pending();
            self.after_board_write(board);
            self.note_interrupt(st);
            if attention {
                self.leave = true;
                self.kicker.kick();
            }
        }
    }

    /// Call after an access by the guest that may have raised INTR: nobody kicks for these.
    fn note_interrupt(&mut self, st: &mut GuestState) {
        if self.intr.load(Ordering::Acquire) {
            st.event_waiting = 1; // an inline STI looks at it
            if st.if_flag != 0 {
                self.leave = true;
                self.kicker.kick(); // a transfer does not leave: the next poll does
            }
        }
    }

    /// Takes what the board asks for and does to memory: caches follow it before the guest's next
    /// instruction. Returns the request, if there is one.
    pub fn follow_board(&mut self, st: &mut GuestState) -> Option<MachineRequest> {
        let mut board = self.board();
        let request = board.take_request();
        let effects = board.take_effects();
        let a20_mask = a20_mask(&board);
        drop(board);
        self.nmi.pending |= effects.nmi;
        for page in effects.written {
            self.written(st, page, PAGE_SIZE);
        }
        let changed = effects
            .routing
            .map(|to| self.mmu.ram.route(&to))
            .unwrap_or_default();
        for &page in &changed {
            self.written(st, page, PAGE_SIZE);
            if self.mmu.ram.attributes(page) & attr::DIRECT != 0 {
                let now = self.clock.now_ns();
                self.direct.forbid_writes(&mut self.mmu, page, now);
            }
        }
        if effects.video.is_some() || effects.video_code_written {
            for page in self.mmu.ram.video_code() {
                self.code_written(st, page, PAGE_SIZE);
            }
        }
        let mut moved = !changed.is_empty();
        if let Some(base) = effects.video {
            self.mmu.ram.place_video(base);
            moved = true;
        }
        if a20_mask != self.mmu.a20_mask {
            self.mmu.a20_mask = a20_mask;
            self.stats.a20_changes += 1;
            moved = true;
        }
        if moved {
            self.mmu.forget(st);
            self.flush_tlb(st, TlbFlush::All);
        }
        request
    }

    fn after_board_write(&self, board: MutexGuard<'_, Board>) {
        if let Some(io) = &self.io {
            io.wake_before(board.next_deadline());
        }
    }

    fn resolve(
        &mut self,
        st: &mut GuestState,
        lin: u32,
        access: Access,
        who: Privilege,
    ) -> Result<u64, Fault> {
        match Mmu::probe_tlb(st, lin, access == Access::Write, who) {
            Some(host) => Ok(self.mmu.ram.physical_of(host)),
            None => self.mmu.resolve(st, lin, access, who),
        }
    }

    /// Translates a fetch of code, and remembers that code runs from there: every page in the
    /// fetch TLB has been noted.
    /// # Errors
    /// #PF.
    pub fn fetch_code(&mut self, st: &mut GuestState, lin: u32) -> Result<Fetched, Fault> {
        let fetched = self.mmu.fetch(st, lin)?;
        if fetched.walked {
            let page = lin >> 12;
            if st.cpl == 3 {
                self.user_code[page as usize / 64] |= 1 << (page % 64);
            } else {
                let frame = fetched.phys / PAGE_SIZE;
                if self.code_pages.frame(page).is_some_and(|f| f != frame) {
                    self.forget_code_pages(st);
                }
                self.code_pages.insert(page, frame);
            }
        }
        Ok(fetched)
    }

    /// Whether code of rings 0-2 is still where it was run from.
    fn code_pages_hold(&self, st: &GuestState) -> bool {
        self.code_pages.len() <= MAX_CODE_PAGES
            && self
                .code_pages
                .pages()
                .all(|(page, frame)| self.mmu.code_frame(st, page << 12) == Some(frame))
    }

    /// Forgets what rests on where code of rings 0-2 is mapped.
    fn forget_code_pages(&mut self, st: &mut GuestState) {
        self.clear_table(st, 0);
        self.translator.unlink_cross_pages();
        self.code_pages.clear();
        self.mmu.forget_fetches();
        self.non_global_code = false;
    }
}

/// The mask that the A20 gate lays on physical addresses.
fn a20_mask(board: &Board) -> u64 {
    if board.a20() { u64::MAX } else { !(1 << 20) }
}
