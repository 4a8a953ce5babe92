//! Far RET. Intel SDM vol. 2B, RET.

use crate::cpu::descriptor::{
    Descriptor, gp_selector, is_null, read_descriptor, selector_fault, set_accessed,
};
use crate::cpu::env::Env;
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::segment::{
    check_eip, code_segment, fetch_stack_segment, null_inaccessible, real_addressing, real_segment,
};
use crate::cpu::stack::{OperandSize, Stack};
use ring3_translator::state::{GuestState, SegReg};

/// RETF and RETF imm16; `pop_bytes` is the immediate. On success RIP, CS, CPL and SS:ESP are set.
///
/// # Errors
/// As the manual's RET: #GP, #NP, #SS, #PF.
pub fn far_return<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    pop_bytes: u16,
    size: OperandSize,
) -> Result<(), Fault> {
    let mut stack = Stack::current(st);
    // IF the return address is not within stack limits, THEN #SS(0).
    let [eip, cs_selector] = stack.pop_all(st, env, size)?;
    let cs_selector = cs_selector as u16;
    if real_addressing(st) {
        let cs = real_segment(st, SegReg::Cs, cs_selector);
        // IF tempEIP not within code segment limits, THEN #GP(0).
        check_eip(&cs, eip)?;
        stack.release(u32::from(pop_bytes));
        stack.commit(st);
        st.set_segment(SegReg::Cs, cs);
        st.rip = u64::from(eip);
        return Ok(());
    }
    let code = return_code(st, env, cs_selector)?;
    let rpl = (cs_selector & 3) as u8;
    stack.release(u32::from(pop_bytes));
    if rpl == st.cpl {
        let code = set_accessed(st, env, cs_selector, code)?;
        let cs = code_segment(code, cs_selector, rpl);
        // IF the return instruction pointer is not within its code segment limit, THEN #GP(0).
        check_eip(&cs, eip)?;
        stack.commit(st);
        st.set_segment(SegReg::Cs, cs);
        st.rip = u64::from(eip);
        return Ok(());
    }
    // RETURN-TO-OUTER-PRIVILEGE-LEVEL:
    // IF top (16 or 8 + SRC) bytes of stack are not within stack limits, THEN #SS(0).
    let [esp, ss_selector] = stack.pop_all(st, env, size)?;
    let ss_selector = ss_selector as u16;
    // NULL → #GP(0); outside limits, RPL or DPL ≠ RPL of CS, not writable → #GP(SS selector);
    // not present → #SS(SS selector).
    let ss = fetch_stack_segment(st, env, ss_selector, rpl, Vector::Gp)?;
    let code = set_accessed(st, env, cs_selector, code)?;
    let cs = code_segment(code, cs_selector, rpl);
    // IF the return instruction pointer is not within the code segment limit, THEN #GP(0).
    check_eip(&cs, eip)?;
    let mut outer = Stack::new(&ss, esp, rpl, 0);
    outer.release(u32::from(pop_bytes));
    st.cpl = rpl;
    st.set_segment(SegReg::Cs, cs);
    st.set_segment(SegReg::Ss, ss);
    outer.commit(st);
    st.rip = u64::from(eip);
    null_inaccessible(st);
    Ok(())
}

/// Reads and checks the code descriptor that RETF or IRET returns to.
#[inline]
pub(crate) fn return_code<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
) -> Result<Descriptor, Fault> {
    // IF return code segment selector is NULL, THEN #GP(0).
    if is_null(selector) {
        return Err(Fault::gp(0));
    }
    // IF it addresses a descriptor beyond the table limit, THEN #GP(selector).
    let code = read_descriptor(st, env, selector)?;
    let rpl = (selector & 3) as u8;
    let attr = code.attr();
    let refused = !attr.is_code()
        // IF return code segment selector RPL < CPL, THEN #GP(selector).
        || rpl < st.cpl
        // IF conforming and DPL > RPL, or nonconforming and DPL ≠ RPL, THEN #GP(selector).
        || if attr.is_conforming() { attr.dpl() > rpl } else { attr.dpl() != rpl };
    if refused {
        return Err(gp_selector(selector));
    }
    // IF return code segment descriptor is not present, THEN #NP(selector).
    if !attr.present() {
        return Err(selector_fault(Vector::Np, selector));
    }
    Ok(code)
}
