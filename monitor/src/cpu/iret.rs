//! IRET and IRETD. Intel SDM vol. 2A, IRET, and vol. 3B, 20.2.4 and 20.3 (V8086 mode).
//!
//! The caller ends the blocking of NMIs and looks for events that the new IF lets in.

use crate::cpu::descriptor::{DescriptorKind, selector_fault, set_accessed};
use crate::cpu::env::{Env, Privilege};
use crate::cpu::far_return::return_code;
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::segment::{
    check_eip, code_segment, fetch_stack_segment, null_inaccessible, read_global, real_segment,
    v86_segment,
};
use crate::cpu::stack::{OperandSize, Stack};
use crate::cpu::task::{SwitchReason, task_switch};
use ring3_translator::addr::LinAddr;
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, SegReg, cr4, eflags, gpr};

/// CF, PF, AF, ZF, SF, TF, DF, OF and NT: what every IRET takes from the stack.
const ALWAYS: u32 = eflags::ARITH | eflags::TF | eflags::NT;

/// IRET (`Word`) or IRETD (`Dword`). On success RIP, CS, EFLAGS, CPL and SS:ESP are set, and by a
/// return to another task everything else; that stores `next_eip`, the EIP after the instruction,
/// in the outgoing TSS.
///
/// # Errors
/// As the manual's IRET: #GP, #NP, #SS, #TS, #PF.
#[inline]
pub fn iret<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    size: OperandSize,
    next_eip: u32,
) -> Result<(), Fault> {
    if !st.protected() {
        iret_real(st, env, size)
    } else if st.v86() {
        iret_v86(st, env, size)
    } else if st.sys_flags & eflags::NT != 0 {
        iret_task(st, env, next_eip)
    } else {
        iret_protected(st, env, size)
    }
}

/// `old` with the bits of `mask` taken from `new`; a 16-bit image has no upper half.
#[inline]
const fn merge(old: u32, new: u32, mask: u32, size: OperandSize) -> u32 {
    let mask = size.truncate(mask);
    (old & !mask) | (new & mask)
}

/// "REAL-ADDRESS-MODE".
fn iret_real<E: Env>(st: &mut GuestState, env: &mut E, size: OperandSize) -> Result<(), Fault> {
    let mut stack = Stack::current(st);
    let [eip, cs, flags] = stack.pop_all(st, env, size)?;
    let cs = real_segment(st, SegReg::Cs, cs as u16);
    // IF tempEIP not within CS limits, THEN #GP(0).
    check_eip(&cs, eip)?;
    // EFLAGS ← (tempEFLAGS AND 257FD5H) OR (EFLAGS AND 1A0000H); 16 bits: all of FLAGS.
    let mask = ALWAYS | eflags::IF | eflags::IOPL | eflags::RF | eflags::AC | eflags::ID;
    stack.commit(st);
    st.set_segment(SegReg::Cs, cs);
    st.rip = u64::from(eip);
    // RF of the old image does not survive an IRET with 16 bits: the instruction has completed.
    st.set_eflags(merge(st.eflags() & !eflags::RF, flags, mask, size));
    Ok(())
}

/// "RETURN-FROM-VIRTUAL-8086-MODE".
fn iret_v86<E: Env>(st: &mut GuestState, env: &mut E, size: OperandSize) -> Result<(), Fault> {
    let virtual_if = st.iopl() < 3;
    // IF IOPL < 3 and (CR4.VME = 0 or the operand size is 32), THEN #GP(0).
    if virtual_if && (st.cr4 & cr4::VME == 0 || size == OperandSize::Dword) {
        return Err(Fault::gp(0));
    }
    let mut stack = Stack::current(st);
    let [eip, cs, flags] = stack.pop_all(st, env, size)?;
    let cs = v86_segment(cs as u16);
    // IF tempEIP not within CS limits, THEN #GP(0).
    check_eip(&cs, eip)?;
    let old = st.eflags() & !eflags::RF;
    let new = if virtual_if {
        // IF tempFLAGS.TF = 1 or (EFLAGS.VIP = 1 and tempFLAGS.IF = 1), THEN #GP(0).
        if flags & eflags::TF != 0 || (old & eflags::VIP != 0 && flags & eflags::IF != 0) {
            return Err(Fault::gp(0));
        }
        // EFLAGS.VIF ← tempFLAGS.IF; IF and IOPL are not changed.
        let vif = if flags & eflags::IF != 0 {
            eflags::VIF
        } else {
            0
        };
        merge(old & !eflags::VIF, flags, ALWAYS, size) | vif
    } else {
        // VM, IOPL, VIP and VIF are not modified.
        merge(
            old,
            flags,
            ALWAYS | eflags::IF | eflags::RF | eflags::AC | eflags::ID,
            size,
        )
    };
    stack.commit(st);
    st.set_segment(SegReg::Cs, cs);
    st.rip = u64::from(eip);
    st.set_eflags(new);
    Ok(())
}

/// "TASK-RETURN".
fn iret_task<E: Env>(st: &mut GuestState, env: &mut E, next_eip: u32) -> Result<(), Fault> {
    let mut raw = [0; 2];
    env.read(st, LinAddr(st.tr.base), &mut raw, Privilege::Supervisor)?;
    let selector = u16::from_le_bytes(raw);
    // IF the local/global bit is set to local or the index is not within GDT limits, THEN #TS.
    let tss = read_global(st, env, selector, Vector::Ts)?;
    // IF the descriptor type is not TSS or the TSS is not busy, THEN #TS(TSS selector).
    if !matches!(
        tss.kind(),
        DescriptorKind::Tss16 { busy: true } | DescriptorKind::Tss32 { busy: true }
    ) {
        return Err(selector_fault(Vector::Ts, selector));
    }
    // IF TSS not present, THEN #NP(TSS selector).
    if !tss.present() {
        return Err(selector_fault(Vector::Np, selector));
    }
    task_switch(st, env, selector, tss, SwitchReason::Iret, next_eip)
}

/// "PROTECTED-MODE-RETURN" and what it leads to.
#[inline]
fn iret_protected<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    size: OperandSize,
) -> Result<(), Fault> {
    let mut stack = Stack::current(st);
    // Ring 3 frames are five slots; reading them at once must not fault for a three-slot frame, nor
    // meet a breakpoint beyond it.
    let at_once =
        size == OperandSize::Dword && st.cpl != 3 && stack.same_page(20) && !st.breakpoints_armed();
    let (eip, cs_selector, flags, outer) = if at_once {
        let mut whole = stack;
        let [eip, cs, flags, esp, ss] = whole.pop_all(st, env, size)?;
        stack.release(12);
        (eip, cs as u16, flags, Some((esp, ss)))
    } else {
        let [eip, cs, flags] = stack.pop_all(st, env, size)?;
        (eip, cs as u16, flags, None)
    };
    // IF tempEFLAGS(VM) = 1 and CPL = 0, THEN RETURN-TO-VIRTUAL-8086-MODE.
    if size == OperandSize::Dword && flags & eflags::VM != 0 && st.cpl == 0 {
        return iret_to_v86(st, env, stack, eip, cs_selector, flags);
    }
    let code = return_code(st, env, cs_selector)?;
    let rpl = (cs_selector & 3) as u8;
    let new_flags = protected_flags(st, flags, size);
    if rpl == st.cpl {
        // RETURN-TO-SAME-PRIVILEGE-LEVEL: IF EIP is not within CS limits, THEN #GP(0).
        let code = set_accessed(st, env, cs_selector, code)?;
        let cs = code_segment(code, cs_selector, rpl);
        check_eip(&cs, eip)?;
        stack.commit(st);
        st.set_segment(SegReg::Cs, cs);
        st.rip = u64::from(eip);
        st.set_eflags(new_flags);
        return Ok(());
    }
    // RETURN-TO-OUTER-PRIVILEGE-LEVEL: IF the two more slots are not within limits, THEN #SS(0).
    let (esp, ss_selector) = match outer {
        Some((esp, ss)) => (esp, ss as u16),
        None => {
            let [esp, ss] = stack.pop_all(st, env, size)?;
            (esp, ss as u16)
        }
    };
    // NULL → #GP(0); limits, RPL or DPL ≠ RPL of CS, not writable → #GP(SS); absent → #SS(SS).
    let ss = fetch_stack_segment(st, env, ss_selector, rpl, Vector::Gp)?;
    let code = set_accessed(st, env, cs_selector, code)?;
    let cs = code_segment(code, cs_selector, rpl);
    // IF tempEIP is not within code segment limit, THEN #GP(0).
    check_eip(&cs, eip)?;
    st.cpl = rpl;
    st.set_segment(SegReg::Cs, cs);
    st.set_segment(SegReg::Ss, ss);
    Stack::new(&ss, esp, rpl, 0).commit(st);
    st.rip = u64::from(eip);
    st.set_eflags(new_flags);
    null_inaccessible(st);
    Ok(())
}

/// The flags that a return from protected mode may change. VM never changes here.
#[inline]
fn protected_flags(st: &GuestState, flags: u32, size: OperandSize) -> u32 {
    let mut mask = ALWAYS | eflags::RF | eflags::AC | eflags::ID;
    // IF CPL ≤ IOPL, THEN EFLAGS(IF) ← tempEFLAGS.
    if st.cpl <= st.iopl() || st.broken(Mutation::IretInterruptFlag) {
        mask |= eflags::IF;
    }
    // IF CPL = 0, THEN EFLAGS(IOPL, VIF, VIP) ← tempEFLAGS.
    if st.cpl == 0 {
        mask |= eflags::IOPL | eflags::VIF | eflags::VIP;
    }
    merge(st.eflags() & !eflags::RF, flags, mask, size)
}

/// "RETURN-TO-VIRTUAL-8086-MODE", with the stack after EFLAGS.
fn iret_to_v86<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    mut stack: Stack,
    eip: u32,
    cs: u16,
    flags: u32,
) -> Result<(), Fault> {
    // IF top 24 bytes of stack are not within stack limits, THEN #SS(0).
    let [esp, ss, es, ds, fs, gs] = stack.pop_all(st, env, OperandSize::Dword)?;
    // IF tempEIP not within code segment limits, THEN #GP(0).
    if eip > 0xffff {
        return Err(Fault::gp(0));
    }
    st.set_eflags(flags);
    st.cpl = 3;
    let loads = [
        (SegReg::Cs, u32::from(cs)),
        (SegReg::Ss, ss),
        (SegReg::Es, es),
        (SegReg::Ds, ds),
        (SegReg::Fs, fs),
        (SegReg::Gs, gs),
    ];
    for (reg, selector) in loads {
        st.set_segment(reg, v86_segment(selector as u16));
    }
    st.set_reg32(gpr::SP, esp);
    st.rip = u64::from(eip);
    Ok(())
}

#[cfg(test)]
#[path = "iret_tests.rs"]
mod tests;
