//! The helpers that translated code calls. See [`ring3_translator::helper`].
#![allow(unsafe_code)] // entered from translated code with raw pointers to state and core

use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::execute::{Flow, execute};
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::segment;
use crate::memory::attr;
use crate::vcpu::core::Core;
use iced_x86::{Instruction, Mnemonic, Register};
use ring3_translator::addr::{LinAddr, PAGE_SIZE};
use ring3_translator::classify::{Alignment, Trap};
use ring3_translator::helper::{AccessInfo, CONTINUE, Helper, HelperFn, LEAVE};
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{BounceBuffer, GuestState, SegReg};
use std::sync::Arc;

/// How a prepared write is finished; stored in `GuestState::bounce_info`.
mod pending {
    /// The data went to RAM already; watchers of the physical address must hear of it.
    pub(super) const WATCHED: u32 = 1;
    /// The data is in the bounce buffer, for user rights.
    pub(super) const BOUNCED_USER: u32 = 2;
    /// The data is in the bounce buffer, for supervisor rights.
    pub(super) const BOUNCED_SUPERVISOR: u32 = 3;
}

/// Puts the helpers into a state's table.
pub fn install(st: &mut GuestState) {
    let all: [(Helper, HelperFn); 5] = [
        (Helper::Callout, callout),
        (Helper::SoftRead, soft_read),
        (Helper::SoftWrite, soft_write),
        (Helper::Commit, commit),
        (Helper::SegmentCheck, segment_check),
    ];
    for (helper, function) in all {
        st.helpers[helper as usize] = function as usize as u64;
    }
}

/// # Safety
/// `st` must be the state that the run loop entered translated code with: its `owner` then points
/// at the core, and the run loop touches neither until the cache is left.
unsafe fn borrow<'a>(st: *mut GuestState) -> (&'a mut GuestState, &'a mut Core) {
    // SAFETY: by the function's contract.
    unsafe {
        let st = &mut *st;
        let core = &mut *st.owner.cast::<Core>();
        (st, core)
    }
}

extern "C" fn callout(st: *mut GuestState, site: u32, _: u32, _: u64) -> u32 {
    // SAFETY: called by translated code only.
    let (st, core) = unsafe { borrow(st) };
    let Some(site) = core.translator.site(site) else {
        return LEAVE;
    };
    let (insn, model): (*const _, *const _) = (&raw const site.insn, Arc::as_ptr(&core.model));
    // SAFETY: executing an instruction can drop units but never moves or frees sites, which only
    // a translation or a flush by the run loop does; the model is never replaced while running.
    let (insn, model) = unsafe { (&*insn, &*model) };
    let (trap, last) = (site.trap, site.last);
    st.rip = u64::from(insn.ip32());
    core.leave = false;
    if let Some(trap) = trap {
        let fault = match trap {
            Trap::Undefined => {
                *core.stats.unsupported.entry(insn.mnemonic()).or_default() += 1;
                Fault::ud()
            }
            Trap::TooLong if st.broken(Mutation::LengthFault) => Fault::ud(),
            Trap::TooLong => Fault::gp(0),
            Trap::DeviceNotAvailable => Fault::plain(Vector::Nm),
        };
        core.raise(st, fault);
        return LEAVE;
    }
    let mnemonic = insn.mnemonic();
    core.stats.callouts[mnemonic as usize] += 1;
    match execute(st, core, model, insn) {
        Ok(Flow::Next) => {
            st.rip = u64::from(insn.next_ip32());
            core.completed = true;
            if core.leave || (may_change_mode(insn) && !core.mode.serves(st.mode())) {
                return LEAVE;
            }
            if st.interrupt_shadow != 0 {
                if last || core.event_waiting() {
                    return LEAVE; // the run loop steps over one instruction, then looks
                }
                st.interrupt_shadow = 0;
            } else if core.event_waiting() {
                if st.if_flag != 0 {
                    return LEAVE;
                }
                st.event_waiting = 1; // an inline STI looks at it
            }
            CONTINUE
        }
        Ok(Flow::Jump | Flow::Halt) => {
            core.completed = true;
            if core.nmi.blocked && matches!(mnemonic, Mnemonic::Iret | Mnemonic::Iretd) {
                core.nmi.blocked = false;
            }
            LEAVE
        }
        Ok(Flow::Repeat) => {
            core.repeating = true;
            LEAVE
        }
        Ok(Flow::SoftInterrupt(event)) => {
            core.stats.software_interrupts += 1;
            core.deliver(st, event);
            LEAVE
        }
        Ok(Flow::Unsupported) => {
            *core.stats.unsupported.entry(insn.mnemonic()).or_default() += 1;
            core.raise(st, Fault::ud());
            LEAVE
        }
        Err(fault) => {
            core.raise(st, fault);
            LEAVE
        }
    }
}

/// Whether an instruction that goes on with the next one can change what [`GuestState::mode`]
/// derives: segments, control registers, flags.
fn may_change_mode(insn: &Instruction) -> bool {
    use Mnemonic as M;
    // A mode says nothing about FS and GS.
    if matches!(insn.op0_register(), Register::FS | Register::GS) {
        return false;
    }
    !matches!(
        insn.mnemonic(),
        M::Pushf
            | M::Pushfd
            | M::Cli
            | M::Sti
            | M::In
            | M::Out
            | M::Rdtsc
            | M::Rdtscp
            | M::Cpuid
            | M::Movsb
            | M::Movsw
            | M::Movsd
            | M::Stosb
            | M::Stosw
            | M::Stosd
            | M::Lodsb
            | M::Lodsw
            | M::Lodsd
            | M::Scasb
            | M::Scasw
            | M::Scasd
            | M::Cmpsb
            | M::Cmpsw
            | M::Cmpsd
            | M::Pushad
            | M::Popad
    )
}

fn who(core: &Core) -> Privilege {
    if core.mode.cpl() == 3 {
        Privilege::User
    } else {
        Privilege::Supervisor
    }
}

fn fail(st: &mut GuestState, core: &mut Core, eip: u32, fault: Fault) -> u32 {
    st.rip = u64::from(eip);
    core.raise(st, fault);
    LEAVE
}

/// An operand that must be aligned and is not: that comes before any other fault of the access.
fn misaligned(st: &GuestState, info: u32, lin: u64) -> bool {
    let info = AccessInfo(info);
    let required = match info.alignment() {
        Alignment::Free => false,
        Alignment::UnlessMasked => !st.misalignment_masked(),
        Alignment::Required => true,
    };
    required && lin & u64::from(info.size() - 1) != 0
}

fn crosses(lin: u32, size: u32) -> bool {
    u64::from(lin & 0xfff) + u64::from(size) > PAGE_SIZE
}

extern "C" fn soft_read(st: *mut GuestState, eip: u32, info: u32, lin: u64) -> u32 {
    // SAFETY: called by translated code only.
    let (st, core) = unsafe { borrow(st) };
    core.stats.soft_misses += 1;
    if misaligned(st, info, lin) {
        return fail(st, core, eip, Fault::gp(0));
    }
    let (lin, size) = (lin as u32, AccessInfo(info).size());
    let who = who(core);
    if !crosses(lin, size) {
        match core.mmu.resolve(st, lin, Access::Read, who) {
            Ok(pa) => {
                if let Some(host) = core.mmu.ram.host_address(pa) {
                    st.soft_ptr = host;
                    return CONTINUE;
                }
            }
            Err(f) => return fail(st, core, eip, f),
        }
    }
    match fill_bounce(st, core, lin, size, who) {
        Ok(()) => CONTINUE,
        Err(f) => fail(st, core, eip, f),
    }
}

/// Reads memory into the bounce buffer, at the address's own alignment, and points there.
fn fill_bounce(
    st: &mut GuestState,
    core: &mut Core,
    lin: u32,
    size: u32,
    who: Privilege,
) -> Result<(), Fault> {
    let mut data = [0u8; BounceBuffer::MAX_ACCESS];
    let size = (size as usize).min(data.len());
    core.read(st, LinAddr(u64::from(lin)), &mut data[..size], who)?;
    let at = BounceBuffer::place(lin);
    st.bounce.0[at..at + size].copy_from_slice(&data[..size]);
    st.soft_ptr = &raw const st.bounce.0[at] as u64;
    Ok(())
}

extern "C" fn soft_write(st: *mut GuestState, eip: u32, info: u32, lin: u64) -> u32 {
    // SAFETY: called by translated code only.
    let (st, core) = unsafe { borrow(st) };
    core.stats.soft_misses += 1;
    if misaligned(st, info, lin) {
        return fail(st, core, eip, Fault::gp(0));
    }
    let info = AccessInfo(info);
    let (lin, size) = (lin as u32, info.size());
    let who = who(core);
    st.bounce_len = 0;
    if !crosses(lin, size) {
        match core.mmu.resolve(st, lin, Access::Write, who) {
            Ok(pa) => {
                if let Some(host) = core.mmu.ram.host_address_for_writes(pa) {
                    st.soft_ptr = host;
                    if core.mmu.ram.attributes(pa) & attr::WATCHED != 0 {
                        st.bounce_len = size;
                        st.bounce_lin = pa;
                        st.bounce_info = pending::WATCHED;
                    }
                    return CONTINUE;
                }
            }
            Err(f) => return fail(st, core, eip, f),
        }
    }
    if let Err(f) = core.probe(st, LinAddr(u64::from(lin)), size, Access::Write, who) {
        return fail(st, core, eip, f);
    }
    if info.update() {
        if let Err(f) = fill_bounce(st, core, lin, size, who) {
            return fail(st, core, eip, f);
        }
    } else {
        st.soft_ptr = &raw const st.bounce.0[BounceBuffer::place(lin)] as u64;
    }
    st.bounce_len = size;
    st.bounce_lin = u64::from(lin);
    st.bounce_info = if who == Privilege::User {
        pending::BOUNCED_USER
    } else {
        pending::BOUNCED_SUPERVISOR
    };
    CONTINUE
}

extern "C" fn commit(st: *mut GuestState, terminal: u32, _: u32, _: u64) -> u32 {
    // SAFETY: called by translated code only.
    let (st, core) = unsafe { borrow(st) };
    let len = core::mem::take(&mut st.bounce_len) as usize;
    if len == 0 {
        return CONTINUE;
    }
    core.leave = false;
    match st.bounce_info {
        pending::WATCHED => core.written(st, st.bounce_lin, len as u64),
        info => {
            let mut data = [0u8; BounceBuffer::MAX_ACCESS];
            let at = BounceBuffer::place(st.bounce_lin as u32);
            let len = len.min(data.len());
            data[..len].copy_from_slice(&st.bounce.0[at..at + len]);
            let who = if info == pending::BOUNCED_USER {
                Privilege::User
            } else {
                Privilege::Supervisor
            };
            // The rights were probed when the write was prepared, by this same instruction.
            let result = core.write(st, LinAddr(st.bounce_lin), &data[..len], who);
            debug_assert!(result.is_ok());
        }
    }
    // A transfer goes on to its target: links into dropped units are already undone.
    if core.leave && terminal == 0 {
        core.completed = true;
        LEAVE
    } else {
        CONTINUE
    }
}

extern "C" fn segment_check(st: *mut GuestState, eip: u32, info: u32, offset: u64) -> u32 {
    // SAFETY: called by translated code only.
    let (st, core) = unsafe { borrow(st) };
    let reg = SegReg::ALL[usize::from(AccessInfo(info).segment()).min(5)];
    let base = st.segment(reg).base;
    if misaligned(st, info, offset.wrapping_add(base)) {
        return fail(st, core, eip, Fault::gp(0));
    }
    let info = AccessInfo(info);
    let access = if info.write() {
        Access::Write
    } else {
        Access::Read
    };
    match segment::linear(st, reg, offset as u32, info.size(), access) {
        Ok(lin) => {
            st.soft_ptr = lin.0 & 0xffff_ffff;
            CONTINUE
        }
        Err(f) => fail(st, core, eip, f),
    }
}
