//! Running guest code directly, and what stops it.

use super::policy::demotes;
use super::reads::{Known, Reads};
use super::shadow::Code;
use super::space::Live;
use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::segment::load_segment;
use crate::executor::{ExecutorError, Selectors, Trap, TrapKind, UserRegs};
use crate::kicker::Kicker;
use crate::memory::attr;
use crate::mmu::Mmu;
use crate::vcpu::Span;
use crate::vcpu::core::Core;
use core::sync::atomic::Ordering;
use ring3_translator::addr::{LinAddr, PAGE_SIZE};
use ring3_translator::scan::LONGEST;
use ring3_translator::state::{GuestState, SegClass, SegReg, cr0, cr4, dr6, eflags};

/// What the run loop does after a direct run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Looks around and decides anew.
    Again,
    /// Executes so much translated code before deciding anew.
    Translate(Span),
}

/// The opcode of SYSENTER.
const SYSENTER: [u8; 2] = [0x0f, 0x34];
/// Flags that ring-3 code changes.
const USER_FLAGS: u32 = eflags::ARITH | eflags::TF | eflags::NT | eflags::AC | eflags::ID;
/// Pages looked at around a missing one: an aligned block.
const AROUND: u32 = 32;

/// Whether the state allows direct execution: what an executor does not show or raise must not
/// occur.
#[must_use]
pub(crate) fn allowed(st: &GuestState) -> bool {
    let stop_flags = eflags::TF | eflags::VM | eflags::IOPL | eflags::AC;
    let flat = |reg| {
        let s = st.segment(reg);
        s.class == SegClass::Flat && (reg == SegReg::Ds || reg == SegReg::Es || s.attr.big())
    };
    let based = |reg| {
        let s = st.segment(reg);
        !s.usable || matches!(s.class, SegClass::Flat | SegClass::Based)
    };
    let avx = st.xsave_mask & 4 == 0 || (st.cr4 & cr4::OSXSAVE != 0 && st.xcr0 & 7 == 7);
    st.cpl == 3
        && st.if_flag != 0
        && st.sys_flags & stop_flags == 0
        && st.interrupt_shadow == 0
        && st.cr0 & (cr0::PG | cr0::TS | cr0::EM) == cr0::PG
        && st.cr4 & (cr4::PVI | cr4::OSFXSR) == cr4::OSFXSR
        && avx
        && !st.breakpoints_armed()
        && !st.ldtr.usable
        && [SegReg::Cs, SegReg::Ss, SegReg::Ds, SegReg::Es].map(flat) == [true; 4]
        && based(SegReg::Fs)
        && based(SegReg::Gs)
}

fn registers(st: &GuestState) -> UserRegs {
    let base = |reg| {
        let s = st.segment(reg);
        s.usable.then_some(s.base as u32)
    };
    UserRegs {
        gpr: core::array::from_fn(|i| st.reg32(i)),
        eip: st.eip(),
        eflags: st.eflags(),
        fs_base: base(SegReg::Fs),
        gs_base: base(SegReg::Gs),
    }
}

fn store(st: &mut GuestState, regs: &UserRegs) {
    for (i, &value) in regs.gpr.iter().enumerate() {
        st.set_reg32(i, value);
    }
    st.rip = u64::from(regs.eip);
    st.set_eflags(st.eflags() & !USER_FLAGS | regs.eflags & USER_FLAGS);
}

/// Runs the space in `slot` until something stops it.
pub(crate) fn run(st: &mut GuestState, core: &mut Core, kicker: &Kicker, slot: usize) -> Next {
    let page = st.eip() >> 12;
    if let Some(live) = core.direct.live(slot)
        && live.gates.contains(page)
    {
        return Next::Translate(Span::KeptInstruction);
    }
    let now = core.clock.now_ns();
    let mut regs = registers(st);
    let trap = match enter(st, core, kicker, slot, &mut regs, now) {
        Ok(Some(trap)) => trap,
        Ok(None) => return Next::Translate(Span::Unit),
        Err(e) => {
            core.direct.failed(&mut core.mmu, slot, now, &e);
            return Next::Translate(Span::Unit);
        }
    };
    let after = core.clock.now_ns();
    let time = after.saturating_sub(now);
    store(st, &regs);
    st.sys_flags &= !eflags::RF;
    core.direct.stats.entries += 1;
    core.direct.stats.time_ns += time;
    if let Some(live) = core.direct.live(slot)
        && let Err(e) = live
            .executor
            .save_fpu(&mut st.xsave.0, u64::from(st.xsave_mask))
    {
        core.direct.failed(&mut core.mmu, slot, now, &e);
    }
    if let TrapKind::Foreign(_) = trap.kind {
        // Where it jumped from is not known; the guest's own code segments are 32-bit ones.
        core.direct.stats.foreign += 1;
        core.raise(st, Fault::gp(0));
        return Next::Again;
    }
    if let Err(fault) = adopt_selectors(st, core, &regs, trap.selectors) {
        core.raise(st, fault);
        return Next::Again;
    }
    if let Some(Some(space)) = core.direct.slots.get_mut(slot) {
        space.last_run = after;
    }
    let next = follow(st, core, slot, trap.kind, after);
    core.direct.hide_tables(&mut core.mmu, slot, after);
    judge(core, slot, trap.kind, next, after);
    next
}

/// Counts a stop for or against its space.
fn judge(core: &mut Core, slot: usize, kind: TrapKind, next: Next, now: u64) {
    let costs = core.direct.costs();
    let Some(Some(space)) = core.direct.slots.get_mut(slot) else {
        return;
    };
    let too_often = match kind {
        TrapKind::Kick | TrapKind::Killed => false,
        TrapKind::PageFault { .. } if next == Next::Again => {
            space.record.missed();
            false
        }
        _ => {
            let live = space.live.as_ref();
            let cpu = || live.map_or(0, |l| l.executor.cpu_time());
            space.record.trapped(now, &costs, cpu)
        }
    };
    if too_often && demotes(core.direct.policy) {
        core.direct.demote(&mut core.mmu, slot, now);
    }
}

/// The hand-over. None if the guest shall not run now.
fn enter(
    st: &mut GuestState,
    core: &mut Core,
    kicker: &Kicker,
    slot: usize,
    regs: &mut UserRegs,
    now: u64,
) -> Result<Option<Trap>, ExecutorError> {
    core.direct.ensure_live(&mut core.mmu, slot, now)?;
    hide(st, core, slot)?;
    upgrade(st, core, slot)?;
    core.direct.hide_tables(&mut core.mmu, slot, now);
    let direct = &mut core.direct;
    let Some(live) = direct.slots[slot].as_mut().and_then(|s| s.live.as_mut()) else {
        return Ok(None);
    };
    live.drops = 0;
    if live
        .executor
        .load_guest_fpu(&st.xsave.0, u64::from(st.xsave_mask))?
    {
        direct.stats.fpu_loads += 1;
    }
    direct.affinity.before_run(&mut live.executor, now);
    kicker.set_executor(Some(live.executor.kicker()));
    // A kick before this line found no executor; one after it stops the run.
    let trap = if kicker.attention.load(Ordering::Acquire) {
        Ok(None)
    } else {
        live.executor.run(regs).map(Some)
    };
    kicker.set_executor(None);
    // If nothing ran: as if the kick had stopped it at once.
    Ok(trap?.or(Some(Trap {
        kind: TrapKind::Kick,
        selectors: Selectors::loaded(regs),
    })))
}

/// What the executor must not show grows when the guest gives FS or GS a selector: code is
/// searched anew then.
fn hide(st: &GuestState, core: &mut Core, slot: usize) -> Result<(), ExecutorError> {
    let Core { direct, mmu, .. } = core;
    let live = direct.slots[slot].as_mut().and_then(|s| s.live.as_mut());
    let hidden = Reads::hidden(st);
    let Some(live) = live.filter(|live| !live.hidden.contains(hidden)) else {
        return Ok(());
    };
    if live.shadow.pages() != 0 {
        live.forget(mmu, &mut direct.tables);
        live.executor.reset()?;
    }
    live.hidden |= hidden;
    Ok(())
}

/// Takes over the segment registers that guest code has loaded itself, from the guest's own
/// descriptor tables.
fn adopt_selectors(
    st: &mut GuestState,
    core: &mut Core,
    regs: &UserRegs,
    found: Selectors,
) -> Result<(), Fault> {
    let loaded = Selectors::loaded(regs);
    if found == loaded {
        return Ok(());
    }
    core.direct.stats.selectors += 1;
    // A selector copied from CS or DS is the host's: the guest's own is meant.
    let [cs, ds] = [SegReg::Cs, SegReg::Ds].map(|r| st.segment(r).selector);
    for (reg, found, loaded_there) in [
        (SegReg::Ss, found.ss, loaded.ss),
        (SegReg::Ds, found.ds, loaded.ds),
        (SegReg::Es, found.es, loaded.es),
        (SegReg::Fs, found.fs, loaded.fs),
        (SegReg::Gs, found.gs, loaded.gs),
    ] {
        if found != loaded_there {
            let selector = match found {
                s if s == loaded.cs => cs,
                s if s == loaded.ds => ds,
                s => s,
            };
            load_segment(st, core, reg, selector)?;
        }
    }
    Ok(())
}

/// What a stop means for the guest.
fn follow(st: &mut GuestState, core: &mut Core, slot: usize, kind: TrapKind, now: u64) -> Next {
    match kind {
        TrapKind::Kick => {
            core.direct.stats.kicks += 1;
            Next::Again
        }
        TrapKind::Killed => {
            core.direct.stats.killed += 1;
            core.direct.release(&mut core.mmu, slot, false);
            Next::Again
        }
        TrapKind::PageFault { cr2, .. } => match page_fault(st, core, slot, cr2, now) {
            Ok(next) => next,
            Err(e) => {
                core.direct.failed(&mut core.mmu, slot, now, &e);
                Next::Translate(Span::Unit)
            }
        },
        TrapKind::Syscall => {
            core.direct.stats.system_calls += 1;
            if code_bytes(st, core, -2) == [0xcd, 0x80] {
                st.rip = u64::from(st.eip().wrapping_sub(2));
                Next::Translate(Span::Unit)
            } else {
                // SYSCALL, which the processor model lacks in 32-bit code; its EIP is lost.
                core.raise(st, Fault::ud());
                Next::Again
            }
        }
        TrapKind::Exception { vector, .. } => {
            if vector == 6 && code_bytes(st, core, 0) == SYSENTER {
                core.direct.stats.system_calls += 1;
                if let Err(e) = found_gate(st, core, slot) {
                    core.direct.failed(&mut core.mmu, slot, now, &e);
                }
                return Next::Translate(Span::Unit);
            }
            core.direct.stats.exceptions[usize::from(vector & 31)] += 1;
            exception(st, core, vector)
        }
        // Handled by the caller.
        TrapKind::Foreign(_) => Next::Again,
    }
}

/// Two bytes of code, `distance` bytes from EIP.
fn code_bytes(st: &mut GuestState, core: &mut Core, distance: i32) -> [u8; 2] {
    let mut bytes = [0; 2];
    let at = LinAddr(u64::from(st.eip().wrapping_add_signed(distance)));
    match core.read(st, at, &mut bytes, Privilege::User) {
        Ok(()) => bytes,
        Err(_) => [0; 2],
    }
}

/// An exception other than #PF. Faults are found again by translated code at the same EIP; traps
/// are past their instruction.
fn exception(st: &mut GuestState, core: &mut Core, vector: u8) -> Next {
    let before = code_bytes(st, core, -2);
    let back = match (vector, before) {
        // POPF has set TF: this is the trap after the instruction that followed it.
        (1, _) if st.sys_flags & eflags::TF != 0 => {
            st.dr[6] |= dr6::BS;
            core.raise(st, Fault::plain(Vector::Db));
            return Next::Again;
        }
        (1, [_, 0xf1]) | (3, [_, 0xcc]) | (4, [_, 0xce]) => 1,
        (3, [0xcd, 3]) | (4, [0xcd, 4]) => 2,
        _ => 0,
    };
    st.rip = u64::from(st.eip().wrapping_sub(back));
    // #GP is often an instruction that the guest may execute and this host may not (RDTSC, IN by
    // permission): one instruction is enough then.
    Next::Translate(if vector == 13 {
        Span::Instruction
    } else {
        Span::Unit
    })
}

/// #PF in the executor: a mapping that is missing or too narrow, or a fault of the guest's.
fn page_fault(
    st: &mut GuestState,
    core: &mut Core,
    slot: usize,
    cr2: u32,
    now: u64,
) -> Result<Next, ExecutorError> {
    let at = cr2 >> 12;
    let lowest = core.direct.pool.as_ref().map_or(0, |p| p.lowest_address());
    let Some(live) = core.direct.live(slot) else {
        return Ok(Next::Again);
    };
    let Some(have) = live.shadow.get(at) else {
        let Ok(page) = core.mmu.walk(st, cr2, Access::Read, Privilege::User, true) else {
            core.direct.stats.page_faults += 1;
            return Ok(Next::Translate(Span::Unit));
        };
        if cr2 < lowest || !core.mmu.ram.is_plain_ram(page.phys) {
            core.direct.stats.write_misses += 1;
            return Ok(Next::Translate(Span::Instruction));
        }
        core.direct.stats.misses += 1;
        map_around(st, core, slot, at, page.size, now)?;
        return Ok(Next::Again);
    };
    if have.code == Code::Translated && is_fetch(st, cr2) {
        return gate_called(st, core, slot, at);
    }
    let Ok(page) = core.mmu.walk(st, cr2, Access::Read, Privilege::User, false) else {
        core.direct.stats.page_faults += 1;
        return Ok(Next::Translate(Span::Unit));
    };
    let watches = core.mmu.ram.attributes(page.phys) & attr::WATCHED;
    if page.writable && !have.write && watches == attr::CODE {
        // As likely a write as anything: translations of code that runs directly are of little use.
        core.direct.stats.write_misses += 1;
        core.code_written(st, page.phys & !(PAGE_SIZE - 1), PAGE_SIZE);
    }
    let rights = Live::rights(&core.mmu, &page);
    if rights.execute && have.code == Code::Unknown && is_fetch(st, cr2) {
        map_around(st, core, slot, at, page.size, now)?;
        let code = core.direct.live(slot).and_then(|live| live.shadow.get(at));
        return Ok(match code {
            Some(mapped) if mapped.code == Code::Direct => Next::Again,
            _ => Next::Translate(Span::Unit),
        });
    }
    if rights.write && !have.write {
        remap(st, core, slot, at)?;
        return Ok(Next::Again);
    }
    if page.may_write && !page.writable {
        // The first write, or else a fault: translated code sets the dirty bit or raises it.
        core.direct.stats.write_misses += 1;
        if let Some(live) = core.direct.live(slot) {
            live.grown = Some(at);
        }
        return Ok(Next::Translate(Span::Instruction));
    }
    if page.writable && !rights.write {
        // A watched page: the write goes through its watchers.
        core.direct.stats.write_misses += 1;
        return Ok(Next::Translate(Span::Instruction));
    }
    core.direct.stats.page_faults += 1;
    Ok(Next::Translate(Span::Unit))
}

/// SYSENTER has stopped guest code: its page is a gate.
fn found_gate(st: &mut GuestState, core: &mut Core, slot: usize) -> Result<(), ExecutorError> {
    let page = st.eip() >> 12;
    let new = core
        .direct
        .live(slot)
        .is_some_and(|live| live.gates.add(page));
    if new {
        remap(st, core, slot, page)?;
    }
    Ok(())
}

/// A fetch from a page that is translated; it may be a gate.
fn gate_called(
    st: &mut GuestState,
    core: &mut Core,
    slot: usize,
    at: u32,
) -> Result<Next, ExecutorError> {
    let entries = core.kernel_entries();
    if let Some(live) = core.direct.live(slot)
        && live.gates.contains(at)
    {
        let stays = live.gates.called(at, entries);
        core.direct.stats.gate_calls += 1;
        if !stays {
            remap(st, core, slot, at)?;
            return Ok(Next::Again);
        }
    }
    Ok(Next::Translate(Span::Unit))
}

/// True if a page fault at `cr2` may be that of an instruction fetch: it is in the page of the
/// instruction, or the instruction may go on there.
fn is_fetch(st: &GuestState, cr2: u32) -> bool {
    cr2 >> 12 == st.eip() >> 12 || cr2.wrapping_sub(st.eip()) < LONGEST as u32
}

/// Maps page `at` of the current space with the rights that it has now. It may have been written:
/// its code is searched when it is executed next.
fn remap(st: &mut GuestState, core: &mut Core, slot: usize, at: u32) -> Result<(), ExecutorError> {
    let Core { direct, mmu, .. } = core;
    let walked = mmu.walk(st, at << 12, Access::Read, Privilege::User, false);
    let live = direct.slots[slot].as_mut().and_then(|s| s.live.as_mut());
    if let (Ok(page), Some(live)) = (walked, live)
        && mmu.ram.is_plain_ram(page.phys)
    {
        direct.stats.pages_mapped += 1;
        live.map(st, mmu, &mut direct.tables, at, &page, Code::Unknown)?;
        let runs = u64::from(live.shadow.runs());
        direct.stats.most_mappings = direct.stats.most_mappings.max(runs);
    }
    Ok(())
}

/// Widens the mapping of a page that a translated instruction has just made dirty.
fn upgrade(st: &mut GuestState, core: &mut Core, slot: usize) -> Result<(), ExecutorError> {
    let Some(live) = core.direct.live(slot) else {
        return Ok(());
    };
    let Some(at) = live.grown.take() else {
        return Ok(());
    };
    if live.shadow.get(at).is_some_and(|have| !have.write) {
        remap(st, core, slot, at)?;
    }
    Ok(())
}

/// Whether the code in `page` reads what the executor must hide.
fn judge_code(st: &GuestState, mmu: &Mmu, known: &mut Known, hidden: Reads, page: u32) -> Code {
    let reads = known.of(page, |lin, to| {
        let walked = mmu.walk(st, lin, Access::Read, Privilege::User, false);
        walked.is_ok_and(|found| {
            mmu.ram.read(found.phys, to);
            true
        })
    });
    if (reads & hidden).is_empty() {
        Code::Direct
    } else {
        Code::Translated
    }
}

/// Maps page `at` and what is around it and has been used before, or the whole of a large page.
/// Where an instruction fetch asks for it, what is around and cannot be written becomes executable
/// too.
fn map_around(
    st: &mut GuestState,
    core: &mut Core,
    slot: usize,
    at: u32,
    size: u64,
    now: u64,
) -> Result<(), ExecutorError> {
    let Core { direct, mmu, .. } = core;
    let lowest = direct.pool.as_ref().map_or(0, |p| p.lowest_address());
    let Some(space) = direct.slots.get_mut(slot).and_then(Option::as_mut) else {
        return Ok(());
    };
    let Some(live) = &mut space.live else {
        return Ok(());
    };
    let fetch = is_fetch(st, at << 12);
    let (base, span) = live.region_of(at);
    let first = at & !(AROUND - 1);
    let near = first..first + AROUND;
    let block = if size > PAGE_SIZE {
        base..base + span
    } else {
        near.clone()
    };
    if live.shadow.runs() + span > direct.max_mappings {
        direct.stats.evictions += 1;
        live.forget(mmu, &mut direct.tables);
        live.executor.reset()?;
        if space.record.evicted(now) && demotes(direct.policy) {
            direct.demote(mmu, slot, now);
            return Ok(());
        }
    }
    for page in block {
        let have = live.shadow.get(page).map(|m| m.code);
        let search = fetch && near.contains(&page) && have.is_none_or(|c| c == Code::Unknown);
        if page << 12 < lowest || (have.is_some() && !search) {
            continue;
        }
        // Only what has been accessed: nothing else could be in a TLB.
        let walked = mmu.walk(st, page << 12, Access::Read, Privilege::User, false);
        if let Ok(found) = walked
            && mmu.ram.is_plain_ram(found.phys)
        {
            let search = search && !found.no_execute && (page == at || !found.may_write);
            if have.is_some() && !search {
                continue;
            }
            let code = if search {
                judge_code(st, mmu, &mut direct.known, live.hidden, page)
            } else {
                Code::Unknown
            };
            direct.stats.translated_pages += u64::from(code == Code::Translated);
            direct.stats.pages_mapped += 1;
            live.map(st, mmu, &mut direct.tables, page, &found, code)?;
        }
    }
    let runs = u64::from(live.shadow.runs());
    direct.stats.most_mappings = direct.stats.most_mappings.max(runs);
    Ok(())
}
