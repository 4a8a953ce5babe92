//! The run loop: events, dispatch, exits.
#![allow(unsafe_code)] // calls into translated code

use crate::board::MachineRequest;
use crate::config::EngineKind;
use crate::cpu::event::Event;
use crate::cpu::fault::{Fault, Vector};
use crate::direct::{self, Next};
use crate::memory::attr;
use crate::mmu::{Fetched, Miss};
use crate::vcpu::core::{CODE_WRITE_PATIENCE, Captured, Core, Nmi};
use crate::vcpu::{Span, Vcpu};
use crate::vcpu::{alignment, debug};
use core::ffi::c_void;
use core::sync::atomic::Ordering;
use ring3_translator::addr::PAGE_SIZE;
use ring3_translator::cache::{Found, Key, Location, Source, UnitId};
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{ExitKind, GuestState, SegClass, SegReg, cr4, eflags};
use std::sync::Arc;

/// Why the run loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VcpuExit {
    /// The board asks for something.
    Request(MachineRequest),
    /// Triple fault.
    Shutdown,
    /// The given EIP was reached (test rigs).
    Reached,
    /// An event that a rig's processor would have delivered.
    Event(Event),
    /// A host fault in translated code that the monitor cannot explain: a defect of ring3.
    Internal(String),
}

/// Bit of a page fault's error code: a write. Intel SDM vol. 3A, 4.7.
const PAGE_FAULT_WRITE: u32 = 1 << 1;

type Enter = unsafe extern "sysv64" fn(*mut GuestState, u64);
type Resume = unsafe extern "sysv64" fn(*mut GuestState);

/// Most bytes of guest code in a unit: a longer run of instructions goes on in another.
const UNIT_BYTES: usize = 512;

impl Vcpu {
    /// As [`Self::run`], but returns `None` instead of waiting when the processor halts.
    pub fn run_or_halt(&mut self) -> Option<VcpuExit> {
        self.run_loop(None, true)
    }

    /// Runs until the machine has to do something. `stop_at`: an EIP that ends the run when it is
    /// about to execute (only exact when units start there: single-stepping engines, test rigs).
    pub fn run(&mut self, stop_at: Option<u32>) -> VcpuExit {
        loop {
            if let Some(exit) = self.run_loop(stop_at, false) {
                return exit;
            }
        }
    }

    fn run_loop(&mut self, stop_at: Option<u32>, until_halt: bool) -> Option<VcpuExit> {
        let mut tail: Option<u32> = None;
        loop {
            let (st, core) = self.parts_mut();
            if core.debug.waits() {
                debug::overdue(st, core); // traps come before interrupts
            }
            if let Some(exit) = self.look_around() {
                return Some(exit);
            }
            let (st, core) = self.parts_mut();
            if core.debug.waits() && st.interrupt_shadow == 0 {
                continue; // the interrupt's delivery met a breakpoint
            }
            if st.halted != 0 {
                if until_halt {
                    return None;
                }
                core.stats.halts += 1;
                self.wait();
                continue;
            }
            if stop_at == Some(st.eip()) {
                return Some(VcpuExit::Reached);
            }
            let once = st.interrupt_shadow != 0;
            let mut span = if once || core.engine == EngineKind::Step {
                Span::Instruction
            } else {
                Span::Unit
            };
            let trap_flag = st.sys_flags & eflags::TF != 0 && !st.broken(Mutation::StepMissed);
            let armed = st.breakpoints_armed();
            if st.cpl == 3 && core.direct.may_run() && span == Span::Unit {
                if let Some(held) = core.direct.take_hold() {
                    span = held;
                } else if self.run_directly() {
                    tail = None;
                    continue;
                }
            }
            let (st, core) = self.parts_mut();
            if armed && debug::before(st, core) {
                tail = None;
                continue;
            }
            if st.alignment_checked() && alignment::before(st, core) {
                tail = None;
                continue;
            }
            core.completed = false;
            core.repeating = false;
            let unit = match find(st, core, span) {
                Ok(unit) => unit,
                Err(f) => {
                    core.raise(st, f);
                    tail = None;
                    continue;
                }
            };
            st.sys_flags &= !eflags::RF;
            if let Some(link) = tail.take() {
                join(st, core, link, &unit);
            }
            if let Some(exit) = self.enter(unit.body, &mut tail) {
                return Some(exit);
            }
            let (st, core) = self.parts_mut();
            if once {
                st.interrupt_shadow = 0; // also where this instruction would cast one
            }
            let trap_flag = if st.broken(Mutation::StepLate) {
                st.sys_flags & eflags::TF != 0
            } else {
                trap_flag
            };
            if trap_flag || armed || core.debug.waits() {
                debug::after(st, core, trap_flag);
            }
        }
    }

    /// Requests, shutdown and deliverable interrupts.
    fn look_around(&mut self) -> Option<VcpuExit> {
        if self.kicker.attention.load(Ordering::Acquire) {
            // First disarm, then look: a kick that comes in between stays visible.
            self.disarm_poll();
            self.kicker.attention.swap(false, Ordering::AcqRel);
            let (st, core) = self.parts_mut();
            let request = core.follow_board(st);
            if let Some(r) = request {
                return Some(VcpuExit::Request(r));
            }
        }
        let (st, core) = self.parts_mut();
        if let Some(event) = core.capture.and_then(|c| c.event) {
            core.capture = Some(Captured::default());
            return Some(VcpuExit::Event(event));
        }
        if core.shutdown {
            core.shutdown = false;
            return Some(VcpuExit::Shutdown);
        }
        if core.nmi.pending && !core.nmi.blocked && st.interrupt_shadow == 0 {
            core.nmi = Nmi {
                pending: false,
                blocked: true,
            };
            core.deliver(st, Event::Nmi);
            return None;
        }
        if !core.intr.load(Ordering::Acquire) {
            st.event_waiting = 0;
            return None;
        }
        if st.if_flag == 0 || st.interrupt_shadow != 0 {
            st.event_waiting = 1;
            return None;
        }
        let vector = {
            let mut board = core.board();
            board.interrupt_pending().then(|| board.acknowledge())
        };
        if let Some(vector) = vector {
            core.stats.interrupts += 1;
            if st.cpl == 3 && core.direct.is_on() {
                let (now, entries) = (core.clock.now_ns(), core.kernel_entries());
                core.direct.tick(st, now, entries);
            }
            if core::mem::take(&mut core.repeating) {
                st.sys_flags |= eflags::RF; // Intel SDM vol. 3B, 18.3.1.1
            }
            core.deliver(st, Event::External(vector));
            if core.shutdown {
                core.shutdown = false;
                return Some(VcpuExit::Shutdown);
            }
        }
        st.event_waiting = u32::from(core.intr.load(Ordering::Acquire));
        None
    }

    /// Runs ring-3 code on the bare processor if it shall; false if it is to be translated.
    fn run_directly(&mut self) -> bool {
        let kicker = Arc::clone(&self.kicker);
        let (st, core) = self.parts_mut();
        let clock = Arc::clone(&core.clock);
        if !direct::allowed(st) {
            return false;
        }
        let Some(slot) = core.direct.wanted(st, || clock.now_ns()) else {
            return false;
        };
        if core.direct.must_translate(slot, st.eip()) {
            return false;
        }
        match direct::run(st, core, &kicker, slot) {
            Next::Again => {}
            Next::Translate(span) => core.direct.hold(span),
        }
        true
    }

    /// Blocks until an event comes: an idle guest costs nothing.
    fn wait(&mut self) {
        let core = &mut self.core;
        if core.direct.is_on() {
            core.direct.idle();
        }
        loop {
            let awake = self.kicker.attention.load(Ordering::Acquire)
                || (self.state().if_flag != 0 && self.core.intr.load(Ordering::Acquire));
            if awake {
                break;
            }
            std::thread::park();
        }
        let core = &mut self.core;
        if core.direct.is_on() {
            let (now, entries) = (core.clock.now_ns(), core.kernel_entries());
            core.direct.was_idle(now, entries);
        }
    }

    /// Runs translated code from `target` until it leaves for good.
    fn enter(&mut self, target: u64, tail: &mut Option<u32>) -> Option<VcpuExit> {
        let stubs = *self.core.translator.stubs();
        let table = self.core.mode.table();
        let (st, core) = self.parts_mut();
        core.restore_returns(st);
        core.translator.synchronize();
        core.stats.entries[table] += 1;
        let st = self.shared.as_ptr();
        // SAFETY: the state's address is valid; its owner is set from our exclusive borrow of the
        // core, which is not used until translated code has returned. The target is code that the
        // translator emitted, and the thread's signal handler is registered.
        unsafe {
            (*st).owner = (&raw mut *self.core).cast::<c_void>();
            let enter: Enter = core::mem::transmute(stubs.enter);
            enter(st, target);
        }
        loop {
            let (st, core) = self.parts_mut();
            let kind = st.exit_kind;
            // A helper's thunk was called on the return stack.
            let thunk = if kind == ExitKind::Helper as u32 {
                8
            } else {
                0
            };
            core.keep_returns(st, thunk);
            core.stats.exits[(kind as usize).min(4)] += 1;
            if kind == ExitKind::Link as u32 {
                *tail = Some(st.exit_arg);
                return None;
            }
            if kind == ExitKind::End as u32 {
                core.completed = true;
                return None;
            }
            if kind != ExitKind::Fault as u32 {
                return None;
            }
            match self.host_fault() {
                Ok(false) => return None,
                Ok(true) => {
                    self.core.translator.synchronize();
                    let st = self.shared.as_ptr();
                    // SAFETY: as above; the state was saved completely by the fault exit.
                    unsafe {
                        (*st).owner = (&raw mut *self.core).cast::<c_void>();
                        (*st).resume_rip = (*st).fault.rip;
                        let resume: Resume = core::mem::transmute(stubs.resume);
                        resume(st);
                    }
                }
                Err(text) => return Some(VcpuExit::Internal(text)),
            }
        }
    }

    /// Polls find nothing from here on, until the next kick.
    fn disarm_poll(&self) {
        let nothing = self.state().poll_target;
        self.shared.poll_ptr().store(nothing, Ordering::Release);
    }

    /// A poll has found that an event waits; the guest is about to execute the instruction at `eip`.
    fn polled(&mut self, eip: u32) {
        let (st, core) = self.parts_mut();
        core.stats.polls += 1;
        abandon(st, eip);
        // If the event is not deliverable, STI and the like will look again.
        self.disarm_poll();
        self.kicker.attention.store(true, Ordering::Release);
    }

    /// Handles a host fault in translated code; true if the instruction shall run again.
    fn host_fault(&mut self) -> Result<bool, String> {
        let poison = self.poison;
        let (st, core) = self.parts_mut();
        let fault = st.fault;
        core.stats.host_faults[(fault.trapno & 31) as usize] += 1;
        let page_fault = fault.trapno == Vector::Pf as u32;
        let poll = page_fault && fault.addr == poison.poll;
        if poll && fault.rip < core.translator.stubs().end {
            // The poll of a return lookup: the return is done, r13 is where it went.
            let target = st.gpr[13] as u32;
            self.polled(target);
            return Ok(false);
        }
        let Some(at) = core.translator.locate(fault.rip) else {
            return Err(format!(
                "host fault {} at {:#x}, outside every unit",
                fault.trapno, fault.rip
            ));
        };
        if poll {
            self.polled(at.eip);
            return Ok(false);
        }
        if page_fault {
            return access_fault(st, core, &at, poison.segment);
        }
        // The host's exceptions are the guest's own.
        let vector = match fault.trapno {
            0 => Vector::De,
            6 => Vector::Ud,
            13 => Vector::Gp,
            16 => Vector::Mf,
            17 => Vector::Ac,
            19 if st.cr4 & cr4::OSXMMEXCPT == 0 => Vector::Ud,
            19 => Vector::Xm,
            n => {
                return Err(format!(
                    "host trap {n} in translated code at EIP {:#x}",
                    at.eip
                ));
            }
        };
        abandon(st, at.eip);
        let error = matches!(vector, Vector::Gp | Vector::Ac).then_some(0);
        core.raise(
            st,
            Fault {
                vector,
                error,
                address: None,
            },
        );
        Ok(false)
    }
}

/// Translated code was left in the middle of the instruction at `eip`, which has changed nothing:
/// the guest is at its start. What the host's registers hold beyond the guest's own is dropped.
fn abandon(st: &mut GuestState, eip: u32) {
    st.rip = u64::from(eip);
    for r in &mut st.gpr[..8] {
        *r &= 0xffff_ffff;
    }
}

/// A host page fault of the instruction `at`; `unusable` is where poisoned segment bases point.
/// True if the instruction shall run again.
fn access_fault(
    st: &mut GuestState,
    core: &mut Core,
    at: &Location,
    unusable: u64,
) -> Result<bool, String> {
    let fault = st.fault;
    let window = &core.mmu.window;
    if fault.addr != unusable && !window.range().contains(&fault.addr) {
        return Err(format!(
            "translated code at {:#x} (EIP {:#x}) touched host address {:#x}",
            fault.rip, at.eip, fault.addr
        ));
    }
    // Beyond an end of the linear space the adapted form wraps around.
    match u32::try_from(fault.addr.wrapping_sub(window.base())) {
        Ok(lin) if fault.addr != unusable => Ok(window_fault(st, core, lin, at)),
        _ => {
            adapt(st, core, at);
            Ok(false)
        }
    }
}

/// A miss in the supervisor window; true if the instruction shall run again.
fn window_fault(st: &mut GuestState, core: &mut Core, lin: u32, at: &Location) -> bool {
    match core
        .mmu
        .window_miss(st, lin, st.fault.err & PAGE_FAULT_WRITE != 0)
    {
        Miss::Mapped => return true,
        Miss::Fault(f) => {
            abandon(st, at.eip);
            core.raise(st, f);
        }
        Miss::Unmappable | Miss::Table => adapt(st, core, at),
        Miss::Code(pa) => {
            let writes = core.code_writes.entry(pa / PAGE_SIZE).or_default();
            *writes = writes.saturating_add(1);
            let own_page = pa / PAGE_SIZE == at.phys / PAGE_SIZE;
            if *writes <= CODE_WRITE_PATIENCE && !own_page {
                core.code_written(st, pa & !(PAGE_SIZE - 1), PAGE_SIZE);
                return true;
            }
            adapt(st, core, at);
        }
    }
    false
}

/// Abandons the instruction `at`, which is translated in the adapted form from now on.
fn adapt(st: &mut GuestState, core: &mut Core, at: &Location) {
    abandon(st, at.eip);
    core.translator.adapt(st, at.phys);
    if !core.translator.page_has_code(at.phys) {
        core.mmu.unwatch(at.phys, attr::CODE);
    }
}

/// Finds or makes the unit at CS:EIP.
fn find(st: &mut GuestState, core: &mut Core, span: Span) -> Result<Found, Fault> {
    let state_mode = st.mode();
    let mode = if span == Span::Unit {
        state_mode
    } else {
        state_mode.single_instruction()
    };
    core.mode = mode;
    let cs = *st.segment(SegReg::Cs);
    let eip = st.eip();
    if cs.class != SegClass::Flat && eip > cs.limit {
        return Err(Fault::gp(0));
    }
    let lin = (cs.base as u32).wrapping_add(eip);
    let Fetched { phys, global, .. } = core.fetch_code(st, lin)?;
    if span == Span::Unit {
        core.own_table(st, mode, cs.base);
    }
    let key = Key { phys, eip, mode };
    if span != Span::Instruction
        && let Some(unit) = core.translator.lookup(&key)
    {
        let valid = match unit.second_page {
            None => true,
            Some(page) => {
                let next = lin.wrapping_add(PAGE_SIZE as u32) & !0xfff;
                core.fetch_code(st, next)?.phys == page
            }
        };
        if valid {
            remember(st, core, eip, &unit, global);
            return Ok(unit);
        }
        core.translator.invalidate(st, phys, 1);
    }
    let unit = translate(st, core, key, lin, span)?;
    let unit = core.translator.found(unit);
    if span != Span::Instruction {
        remember(st, core, eip, &unit, global);
    }
    Ok(unit)
}

/// Enters a unit into the jump cache.
fn remember(st: &mut GuestState, core: &mut Core, eip: u32, unit: &Found, global: bool) {
    let table = core.mode.table();
    let slot = (eip & 0xffff) as usize;
    if st.jump_cache[table][slot] != unit.indirect && !core.mode.is_single_instruction() {
        st.jump_cache[table][slot] = unit.indirect;
        core.filled[table].push(slot as u16);
        if table == 0 && !global {
            core.non_global_code = true;
        }
    }
}

/// Links the jump that led here.
fn join(st: &GuestState, core: &mut Core, link: u32, unit: &Found) {
    let Some((target, mode)) = core.translator.link_target(link) else {
        return;
    };
    // An event may have come between the jump and this unit, or a flush may have reused the id.
    if target != st.eip() || mode != core.mode || core.mode.is_single_instruction() {
        return;
    }
    if unit.second_page.is_some() {
        core.translator.link_by_cache(link, core.mode.table());
    } else {
        core.translator.link(link, unit.unit);
    }
}

fn translate(
    st: &mut GuestState,
    core: &mut Core,
    key: Key,
    lin: u32,
    span: Span,
) -> Result<UnitId, Fault> {
    if !core.translator.has_room() {
        core.translator.flush(st);
        for table in 0..2 {
            core.filled[table].clear();
            core.forget_returns[table] = true;
        }
    }
    let in_page = PAGE_SIZE - (key.phys & (PAGE_SIZE - 1));
    let cs = *st.segment(SegReg::Cs);
    // Bytes that the code segment's limit leaves.
    let within_limit = if cs.class == SegClass::Flat {
        u64::MAX
    } else {
        u64::from(cs.limit) - u64::from(key.eip) + 1
    };
    let mut bytes = [0xffu8; UNIT_BYTES + 16];
    let first = in_page.min(within_limit).min(UNIT_BYTES as u64) as usize;
    core.read_code(key.phys, &mut bytes[..first]);
    let chain = span == Span::Unit && core.engine == EngineKind::Bt;
    let source = Source {
        key,
        bytes: &bytes[..first],
        second_page: None,
        chain,
        chain_pages: key.mode.window(),
    };
    let attempt = emit(core, span, &source);
    let unit = match attempt {
        Some(unit) => unit,
        None => {
            // The first instruction reaches beyond the page or the limit.
            let more = within_limit.saturating_sub(in_page).min(15) as usize;
            if more == 0 {
                return Err(Fault::gp(0));
            }
            let next = lin.wrapping_add(in_page as u32);
            let second = core.fetch_code(st, next)?.phys;
            core.read_code(second, &mut bytes[first..first + more]);
            let page = second & !(PAGE_SIZE - 1);
            let source = Source {
                key,
                bytes: &bytes[..first + more],
                second_page: Some(page),
                chain,
                chain_pages: key.mode.window(),
            };
            let unit = emit(core, span, &source);
            if span != Span::Instruction {
                core.watch_code(st, page);
            }
            // More than 15 bytes in one instruction, or a limit in its middle.
            unit.ok_or(Fault::gp(0))?
        }
    };
    if span != Span::Instruction {
        core.watch_code(st, key.phys);
    }
    Ok(unit)
}

fn emit(core: &mut Core, span: Span, source: &Source<'_>) -> Option<UnitId> {
    if span == Span::Instruction {
        core.translator.translate_once(source).ok()
    } else {
        core.translator.translate(source).ok()
    }
}
