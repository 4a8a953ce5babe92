//! Interrupts through the 8086 vector table: real mode, and V8086 mode with CR4.VME. Intel SDM
//! vol. 2A, INT n, "REAL-ADDRESS-MODE", and vol. 3B, 20.1.4 and 20.3.3.

use crate::cpu::env::{Env, Privilege};
use crate::cpu::event::Attempt;
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::segment::real_segment;
use crate::cpu::stack::{OperandSize, Stack};
use ring3_translator::addr::LinAddr;
use ring3_translator::state::{GuestState, SegReg, eflags};

/// Reads CS and IP of a handler from the table at `base`.
fn read_vector<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    base: u64,
    vector: u8,
    who: Privilege,
) -> Result<(u16, u16), Fault> {
    let mut raw = [0; 4];
    env.read(
        st,
        LinAddr(base).add32(u32::from(vector) * 4),
        &mut raw,
        who,
    )?;
    Ok((
        u16::from_le_bytes([raw[2], raw[3]]),
        u16::from_le_bytes([raw[0], raw[1]]),
    ))
}

/// Pushes FLAGS, CS and IP and enters the handler.
fn push_and_enter<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    flags: u32,
    eip: u32,
    (cs, ip): (u16, u16),
) -> Result<(), Fault> {
    // IF stack not large enough for a 6-byte return information, THEN #SS.
    let mut stack = Stack::current(st);
    let old_cs = u32::from(st.segment(SegReg::Cs).selector);
    stack.push_all(st, env, OperandSize::Word, [flags, old_cs, eip])?;
    stack.commit(st);
    st.set_segment(SegReg::Cs, real_segment(st, SegReg::Cs, cs));
    st.rip = u64::from(ip);
    Ok(())
}

/// Delivers through the real-mode vector table at IDTR.
pub(crate) fn deliver_real<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    a: &Attempt,
) -> Result<(), Fault> {
    // IF ((vector_number « 2) + 3) is not within IDT limit, THEN #GP.
    if u32::from(a.vector) * 4 + 3 > u32::from(st.idtr.limit) {
        return Err(Fault::with_error(Vector::Gp, u32::from(a.vector) * 8 + 2));
    }
    let handler = read_vector(st, env, st.idtr.base, a.vector, Privilege::Supervisor)?;
    push_and_enter(st, env, a.flags, a.eip, handler)?;
    // IF, TF, AC and RF are cleared.
    st.sys_flags &= !(eflags::TF | eflags::AC | eflags::RF);
    st.if_flag = 0;
    Ok(())
}

/// INT n in V8086 mode whose redirection bit is clear: the vector table at linear address 0 serves
/// it, without leaving V8086 mode (methods 5 and 6 of the manual's table 20-2).
pub(crate) fn deliver_redirected<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    a: &Attempt,
) -> Result<(), Fault> {
    let virtual_if = st.iopl() < 3;
    let mut flags = a.flags;
    if virtual_if {
        // The image shows IOPL 3, and VIF in the place of IF.
        let vif = if flags & eflags::VIF != 0 {
            eflags::IF
        } else {
            0
        };
        flags = (flags & !eflags::IF) | eflags::IOPL | vif;
    }
    let handler = read_vector(st, env, 0, a.vector, Privilege::User)?;
    push_and_enter(st, env, flags, a.eip, handler)?;
    st.sys_flags &= !(eflags::TF | eflags::RF);
    if virtual_if {
        st.sys_flags &= !eflags::VIF;
    } else {
        st.if_flag = 0;
    }
    Ok(())
}
