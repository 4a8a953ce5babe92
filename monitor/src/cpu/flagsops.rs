//! Instructions on EFLAGS: CLI, STI, PUSHF, POPF, LAHF, SAHF. Intel SDM vol. 2, each entry, and
//! vol. 3B, 20.3 (VME) and 20.4 (PVI).

use crate::cpu::env::Env;
use crate::cpu::execute::Flow;
use crate::cpu::fault::Fault;
use crate::cpu::stackops::StackPointer;
use ring3_translator::state::{GuestState, cr4, eflags};

/// Which interrupt flag CLI and STI act on.
enum InterruptFlag {
    Real,
    Virtual,
}

/// Real mode, or CPL <= IOPL: IF. V86 mode with CR4.VME, or CPL 3 with CR4.PVI: VIF.
/// Else #GP(0).
fn interrupt_flag(st: &GuestState) -> Result<InterruptFlag, Fault> {
    if !st.protected() || st.cpl <= st.iopl() {
        return Ok(InterruptFlag::Real);
    }
    let feature = if st.v86() { cr4::VME } else { cr4::PVI };
    if st.cpl == 3 && st.cr4 & feature != 0 {
        Ok(InterruptFlag::Virtual)
    } else {
        Err(Fault::gp(0))
    }
}

/// CLI.
/// # Errors
/// #GP(0) if CPL is above IOPL and no virtual interrupt flag exists.
pub fn cli(st: &mut GuestState) -> Result<Flow, Fault> {
    match interrupt_flag(st)? {
        InterruptFlag::Real => st.if_flag = 0,
        InterruptFlag::Virtual => st.sys_flags &= !eflags::VIF,
    }
    Ok(Flow::Next)
}

/// STI. Holds interrupts off for one instruction if IF was clear.
/// # Errors
/// #GP(0) as CLI, or if a virtual interrupt is pending (VIP).
pub fn sti(st: &mut GuestState) -> Result<Flow, Fault> {
    match interrupt_flag(st)? {
        InterruptFlag::Real => {
            if st.if_flag == 0 {
                st.if_flag = 1;
                st.interrupt_shadow = 1;
            }
        }
        InterruptFlag::Virtual => {
            if st.sys_flags & eflags::VIP != 0 {
                return Err(Fault::gp(0));
            }
            st.sys_flags |= eflags::VIF;
        }
    }
    Ok(Flow::Next)
}

/// PUSHF and PUSHFD; `size` is 2 or 4.
/// # Errors
/// #GP(0) in V86 mode with IOPL below 3 (16-bit with CR4.VME excepted); stack faults.
pub fn pushf<E: Env>(st: &mut GuestState, env: &mut E, size: u32) -> Result<Flow, Fault> {
    let mut image = st.eflags() & !(eflags::VM | eflags::RF);
    if st.v86() && st.iopl() < 3 {
        if st.cr4 & cr4::VME == 0 || size != 2 {
            return Err(Fault::gp(0));
        }
        image = (image & !eflags::IF) | eflags::IOPL;
        if st.sys_flags & eflags::VIF != 0 {
            image |= eflags::IF;
        }
    }
    let mut sp = StackPointer::of(st);
    sp.push(st, env, size, image)?;
    sp.commit(st);
    Ok(Flow::Next)
}

/// POPF and POPFD; `size` is 2 or 4.
/// # Errors
/// #GP(0) in V86 mode with IOPL below 3 (16-bit with CR4.VME excepted, unless it would set IF
/// with VIP set, or TF); stack faults.
pub fn popf<E: Env>(st: &mut GuestState, env: &mut E, size: u32) -> Result<Flow, Fault> {
    let virtual_if = st.v86() && st.iopl() < 3;
    if virtual_if && (st.cr4 & cr4::VME == 0 || size != 2) {
        return Err(Fault::gp(0));
    }
    let mut sp = StackPointer::of(st);
    let image = sp.pop(st, env, size)?;
    if virtual_if {
        let wants_if = image & eflags::IF != 0;
        if (wants_if && st.sys_flags & eflags::VIP != 0) || image & eflags::TF != 0 {
            return Err(Fault::gp(0));
        }
        st.sys_flags = (st.sys_flags & !eflags::VIF) | if wants_if { eflags::VIF } else { 0 };
    }
    let mut writable = eflags::ARITH | eflags::TF | eflags::NT;
    if !st.protected() || st.cpl == 0 {
        writable |= eflags::IOPL;
    }
    if !st.protected() || st.cpl <= st.iopl() {
        writable |= eflags::IF;
    }
    let mut old = st.eflags();
    if size == 4 {
        writable |= eflags::AC | eflags::ID;
        old &= !eflags::RF;
    }
    sp.commit(st);
    st.set_eflags((old & !writable) | (image & writable));
    Ok(Flow::Next)
}

/// The flags that LAHF and SAHF move.
const AH_FLAGS: u32 = eflags::SF | eflags::ZF | eflags::AF | eflags::PF | eflags::CF;

/// LAHF.
pub fn lahf(st: &mut GuestState) -> Flow {
    let image = (st.eflags() & AH_FLAGS) | eflags::FIXED;
    st.set_reg8(4, image as u8);
    Flow::Next
}

/// SAHF.
pub fn sahf(st: &mut GuestState) -> Flow {
    let value = u32::from(st.reg8(4));
    set_flags(st, AH_FLAGS, value);
    Flow::Next
}

/// Replaces the arithmetic flags in `mask` by those of `value`.
pub fn set_flags(st: &mut GuestState, mask: u32, value: u32) {
    let mask = u64::from(mask & eflags::ARITH);
    st.arith_flags = (st.arith_flags & u64::from(eflags::ARITH) & !mask) | (u64::from(value) & mask);
}

/// SF, ZF and PF of a result of `bits` (8, 16 or 32) bits.
#[must_use]
pub fn result_flags(value: u32, bits: u32) -> u32 {
    let value = value & (u32::MAX >> (32 - bits));
    let mut flags = 0;
    if value == 0 {
        flags |= eflags::ZF;
    }
    if value >> (bits - 1) != 0 {
        flags |= eflags::SF;
    }
    if (value as u8).count_ones() % 2 == 0 {
        flags |= eflags::PF;
    }
    flags
}

/// CF, PF, AF, ZF, SF and OF of `a - b` in `bits` (8, 16 or 32) bits.
#[must_use]
pub fn subtract_flags(a: u32, b: u32, bits: u32) -> u32 {
    let mask = u32::MAX >> (32 - bits);
    let (a, b) = (a & mask, b & mask);
    let result = a.wrapping_sub(b) & mask;
    let mut flags = result_flags(result, bits);
    if a < b {
        flags |= eflags::CF;
    }
    if (a ^ b ^ result) & 0x10 != 0 {
        flags |= eflags::AF;
    }
    if ((a ^ b) & (a ^ result)) >> (bits - 1) != 0 {
        flags |= eflags::OF;
    }
    flags
}

/// Evaluates a condition code (0-15, as Jcc encodes it).
#[must_use]
pub fn condition(st: &GuestState, cc: u8) -> bool {
    let f = st.arith_flags as u32;
    let set = |mask: u32| f & mask != 0;
    let holds = match cc >> 1 {
        0 => set(eflags::OF),
        1 => set(eflags::CF),
        2 => set(eflags::ZF),
        3 => set(eflags::CF | eflags::ZF),
        4 => set(eflags::SF),
        5 => set(eflags::PF),
        6 => set(eflags::SF) != set(eflags::OF),
        _ => set(eflags::ZF) || set(eflags::SF) != set(eflags::OF),
    };
    holds != (cc & 1 != 0)
}
