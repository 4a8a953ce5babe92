//! Far JMP and CALL: real and V8086 mode, code segments, call gates, task gates and task state
//! segments. Intel SDM vol. 2A, CALL and JMP. Far RET is in `far_return`.

use crate::cpu::descriptor::{
    Descriptor, DescriptorKind, gp_selector, is_null, read_descriptor, selector_fault, set_accessed,
};
use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::segment::{
    check_eip, code_segment, fetch_stack_segment, linear, read_global, real_addressing,
    real_segment,
};
use crate::cpu::stack::Stack;
use crate::cpu::task::{SwitchReason, stack_for_level, task_switch};
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, SegReg, Segment, gpr};

pub use crate::cpu::far_return::far_return;
pub use crate::cpu::stack::OperandSize;

/// JMP ptr16:16/32 and m16:16/32. On success RIP and CS are set, and by a task switch everything
/// else; that stores `next_eip`, the EIP after the instruction, in the outgoing TSS.
///
/// # Errors
/// As the manual's JMP: #GP, #NP, #TS, #SS, #PF.
pub fn far_jump<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    offset: u32,
    next_eip: u32,
    size: OperandSize,
) -> Result<(), Fault> {
    let eip = size.truncate(offset);
    if real_addressing(st) {
        let cs = real_segment(st, SegReg::Cs, selector);
        // IF tempEIP is beyond code segment limit, THEN #GP(0).
        check_eip(&cs, eip)?;
        enter(st, cs, eip);
        return Ok(());
    }
    let d = read_target(st, env, selector)?;
    match d.kind() {
        DescriptorKind::Code => {
            check_direct_code(st, d, selector)?;
            let d = set_accessed(st, env, selector, d)?;
            let cs = code_segment(d, selector, st.cpl);
            // IF tempEIP not within code segment limit, THEN #GP(0).
            check_eip(&cs, eip)?;
            enter(st, cs, eip);
            Ok(())
        }
        DescriptorKind::CallGate16 | DescriptorKind::CallGate32 => {
            let (code_selector, code) = read_call_gate(st, env, selector, d)?;
            // IF conforming and DPL > CPL, or nonconforming and DPL ≠ CPL, THEN #GP(code selector).
            let refused = if code.attr().is_conforming() {
                code.dpl() > st.cpl
            } else {
                code.dpl() != st.cpl
            };
            if refused {
                return Err(gp_selector(code_selector));
            }
            check_present(code, code_selector)?;
            let code = set_accessed(st, env, code_selector, code)?;
            let cs = code_segment(code, code_selector, st.cpl);
            let eip = gate_size(d).truncate(d.gate_offset());
            // IF instruction pointer is not within code segment limit, THEN #GP(0).
            check_eip(&cs, eip)?;
            enter(st, cs, eip);
            Ok(())
        }
        _ => switch_by(st, env, selector, d, SwitchReason::Jump, next_eip),
    }
}

/// CALL ptr16:16/32 and m16:16/32. On success RIP, CS, CPL, and SS:ESP are set.
///
/// # Errors
/// As the manual's CALL: #GP, #NP, #TS, #SS, #PF.
pub fn far_call<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    offset: u32,
    return_eip: u32,
    size: OperandSize,
) -> Result<(), Fault> {
    let eip = size.truncate(offset);
    let old_cs = u32::from(st.segment(SegReg::Cs).selector);
    let stack = Stack::current(st);
    if real_addressing(st) {
        // IF stack not large enough for return address, THEN #SS(0).
        stack.check_push(2, size)?;
        let cs = real_segment(st, SegReg::Cs, selector);
        // IF tempEIP is beyond code segment limit, THEN #GP(0).
        check_eip(&cs, eip)?;
        push_return(st, env, stack, size, [old_cs, return_eip])?;
        enter(st, cs, eip);
        return Ok(());
    }
    let d = read_target(st, env, selector)?;
    match d.kind() {
        DescriptorKind::Code => {
            check_direct_code(st, d, selector)?;
            // IF stack not large enough for return address, THEN #SS(0).
            stack.check_push(2, size)?;
            let d = set_accessed(st, env, selector, d)?;
            let cs = code_segment(d, selector, st.cpl);
            // IF tempEIP outside new code segment limit, THEN #GP(0).
            check_eip(&cs, eip)?;
            push_return(st, env, stack, size, [old_cs, return_eip])?;
            enter(st, cs, eip);
            Ok(())
        }
        DescriptorKind::CallGate16 | DescriptorKind::CallGate32 => {
            call_gate(st, env, selector, d, return_eip)
        }
        _ => switch_by(st, env, selector, d, SwitchReason::Call, return_eip),
    }
}

/// Sets CS and RIP; CPL is unchanged.
#[inline]
fn enter(st: &mut GuestState, cs: Segment, eip: u32) {
    st.set_segment(SegReg::Cs, cs);
    st.rip = u64::from(eip);
}

fn read_target<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
) -> Result<Descriptor, Fault> {
    // IF segment selector in target operand NULL, THEN #GP(0).
    if is_null(selector) {
        return Err(Fault::gp(0));
    }
    // IF segment selector index not within descriptor table limits, THEN #GP(new code selector).
    read_descriptor(st, env, selector)
}

fn check_present(d: Descriptor, selector: u16) -> Result<(), Fault> {
    // IF not present, THEN #NP(selector).
    if d.present() {
        Ok(())
    } else {
        Err(selector_fault(Vector::Np, selector))
    }
}

/// The checks of a direct transfer to a code segment.
fn check_direct_code(st: &GuestState, d: Descriptor, selector: u16) -> Result<(), Fault> {
    let refused = if d.attr().is_conforming() {
        // CONFORMING-CODE-SEGMENT: IF DPL > CPL, THEN #GP(new code segment selector).
        d.dpl() > st.cpl
    } else {
        // NONCONFORMING-CODE-SEGMENT: IF (RPL > CPL) or (DPL ≠ CPL), THEN #GP(selector).
        (selector & 3) as u8 > st.cpl || d.dpl() != st.cpl
    };
    if refused {
        return Err(gp_selector(selector));
    }
    check_present(d, selector)
}

/// The width that a gate's type implies.
pub(crate) const fn gate_size(gate: Descriptor) -> OperandSize {
    if gate.attr().kind() & 8 != 0 {
        OperandSize::Dword
    } else {
        OperandSize::Word
    }
}

/// Checks a call gate's rights and reads its code descriptor.
fn read_call_gate<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    gate: Descriptor,
) -> Result<(u16, Descriptor), Fault> {
    check_gate_rights(st, selector, gate)?;
    let code_selector = gate.gate_selector();
    // IF call gate code-segment selector is NULL, THEN #GP(0).
    if is_null(code_selector) {
        return Err(Fault::gp(0));
    }
    // IF its index is outside descriptor table limits, THEN #GP(code-segment selector).
    let code = read_descriptor(st, env, code_selector)?;
    // IF the descriptor does not indicate a code segment, THEN #GP(code-segment selector).
    if code.kind() != DescriptorKind::Code {
        return Err(gp_selector(code_selector));
    }
    Ok((code_selector, code))
}

fn check_gate_rights(st: &GuestState, selector: u16, gate: Descriptor) -> Result<(), Fault> {
    // IF gate DPL < CPL or gate DPL < gate selector's RPL, THEN #GP(gate selector).
    if gate.dpl() < st.cpl || gate.dpl() < (selector & 3) as u8 {
        return Err(gp_selector(selector));
    }
    check_present(gate, selector)
}

/// CALL, "CALL-GATE".
fn call_gate<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    gate: Descriptor,
    return_eip: u32,
) -> Result<(), Fault> {
    let (code_selector, code) = read_call_gate(st, env, selector, gate)?;
    // IF DPL > CPL, THEN #GP(code-segment selector).
    if code.dpl() > st.cpl {
        return Err(gp_selector(code_selector));
    }
    check_present(code, code_selector)?;
    let code = set_accessed(st, env, code_selector, code)?;
    let size = gate_size(gate);
    let eip = size.truncate(gate.gate_offset());
    if !code.attr().is_conforming() && code.dpl() < st.cpl {
        return call_inner(
            st,
            env,
            gate,
            code_segment(code, code_selector, code.dpl()),
            return_eip,
        );
    }
    // SAME-PRIVILEGE: IF stack does not have room for the return address, THEN #SS(0).
    let stack = Stack::current(st);
    stack.check_push(2, size)?;
    let cs = code_segment(code, code_selector, st.cpl);
    // IF EIP not within code segment limit, THEN #GP(0).
    check_eip(&cs, eip)?;
    let old_cs = u32::from(st.segment(SegReg::Cs).selector);
    push_return(st, env, stack, size, [old_cs, return_eip])?;
    enter(st, cs, eip);
    Ok(())
}

/// Pushes the return address on the caller's own stack.
fn push_return<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    mut stack: Stack,
    size: OperandSize,
    address: [u32; 2],
) -> Result<(), Fault> {
    // IF alignment checking is enabled and an unaligned memory reference is made at CPL 3, THEN
    // #AC(0).
    if st.alignment_checked() {
        stack.check_alignment(st, env, 2, size)?;
    }
    stack.push_all(st, env, size, address)?;
    stack.commit(st);
    Ok(())
}

/// CALL, "MORE-PRIVILEGE": the stack comes from the TSS, parameters are copied.
fn call_inner<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    gate: Descriptor,
    cs: Segment,
    return_eip: u32,
) -> Result<(), Fault> {
    let cpl = cs.attr.dpl();
    let size = gate_size(gate);
    let eip = size.truncate(gate.gate_offset());
    let (new_ss, new_esp) = stack_for_level(st, env, cpl)?;
    let ss = fetch_stack_segment(st, env, new_ss, cpl, Vector::Ts)?;
    let mut stack = Stack::new(&ss, new_esp, cpl, u32::from(new_ss & 0xfffc));
    let mut count = gate.gate_count();
    if st.broken(Mutation::GateParameters) {
        count = count.saturating_sub(1);
    }
    // IF new stack does not have room for parameters plus four slots, THEN #SS(NewSS).
    stack.check_push(count + 4, size)?;
    // IF EIP is not within code segment limit, THEN #GP(0).
    check_eip(&cs, eip)?;
    // Push order: old SS, old ESP, parameters (the last pushed by the caller is pushed last),
    // old CS, return EIP.
    let mut frame = [0u32; 35];
    frame[0] = u32::from(st.segment(SegReg::Ss).selector);
    frame[1] = st.reg32(gpr::SP);
    let mut bytes = [0u8; 31 * 4];
    let width = size.bytes() as usize;
    let bytes = &mut bytes[..count as usize * width];
    if !bytes.is_empty() {
        read_parameters(st, env, bytes)?;
    }
    for (slot, raw) in frame[2..].iter_mut().zip(bytes.chunks_exact(width).rev()) {
        *slot = raw
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u32::from(byte));
    }
    let end = count as usize + 4;
    frame[end - 2] = u32::from(st.segment(SegReg::Cs).selector);
    frame[end - 1] = return_eip;
    stack.push_each(st, env, size, &frame[..end])?;
    st.set_segment(SegReg::Ss, ss);
    stack.commit(st);
    st.cpl = cpl;
    enter(st, cs, eip);
    Ok(())
}

/// Reads the top of the caller's stack. A 16-bit stack that wraps is read slot by slot.
fn read_parameters<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    bytes: &mut [u8],
) -> Result<(), Fault> {
    let who = Privilege::of(st);
    let big = st.segment(SegReg::Ss).attr.big();
    let start = if big {
        st.reg32(gpr::SP)
    } else {
        u32::from(st.reg16(gpr::SP))
    };
    let len = bytes.len() as u32;
    if big || start + len <= 0x1_0000 {
        let at = linear(st, SegReg::Ss, start, len, Access::Read)?;
        return env.read(st, at, bytes, who);
    }
    for (pair, offset) in bytes.chunks_exact_mut(2).zip((start..).step_by(2)) {
        let at = linear(st, SegReg::Ss, offset & 0xffff, 2, Access::Read)?;
        env.read(st, at, pair, who)?;
    }
    Ok(())
}

/// "TASK-GATE" and "TASK-STATE-SEGMENT", and everything that is no far target.
fn switch_by<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    d: Descriptor,
    reason: SwitchReason,
    next_eip: u32,
) -> Result<(), Fault> {
    let (tss_selector, tss) = match d.kind() {
        DescriptorKind::TaskGate => {
            check_gate_rights(st, selector, d)?;
            let tss_selector = d.gate_selector();
            // IF the TSS selector's local/global bit is local or its index is not within GDT
            // limits, THEN #GP(TSS selector).
            (
                tss_selector,
                read_global(st, env, tss_selector, Vector::Gp)?,
            )
        }
        DescriptorKind::Tss16 { .. } | DescriptorKind::Tss32 { .. } => {
            // IF TSS DPL < CPL or TSS DPL < TSS selector RPL, THEN #GP(TSS selector). A system
            // segment in the LDT is no TSS.
            if d.dpl() < st.cpl || d.dpl() < (selector & 3) as u8 || selector & 4 != 0 {
                return Err(gp_selector(selector));
            }
            (selector, d)
        }
        // IF type is not code, call gate, task gate or TSS, THEN #GP(selector).
        _ => return Err(gp_selector(selector)),
    };
    // IF the TSS descriptor specifies that the TSS is not available, THEN #GP(TSS selector).
    if !matches!(
        tss.kind(),
        DescriptorKind::Tss16 { busy: false } | DescriptorKind::Tss32 { busy: false }
    ) {
        return Err(gp_selector(tss_selector));
    }
    // IF TSS is not present, THEN #NP(TSS selector).
    check_present(tss, tss_selector)?;
    task_switch(st, env, tss_selector, tss, reason, next_eip)
}

#[cfg(test)]
#[path = "far_tests.rs"]
mod tests;
