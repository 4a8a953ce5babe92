//! Delivery of exceptions, interrupts and software interrupts. Intel SDM vol. 3A, chapter 6, and
//! vol. 2A, INT n. Real mode's vector table is in `event_real`.
//!
//! One attempt either delivers the event completely or returns the fault it met and leaves the
//! state as it was (a task switch past its commit point excepted, see `task`). [`deliver`] joins
//! attempts by the double-fault rules.

use crate::cpu::descriptor::{
    Descriptor, DescriptorKind, gp_selector, is_null, read_descriptor, selector_fault, set_accessed,
};
use crate::cpu::env::{Env, Privilege};
use crate::cpu::event_real::{deliver_real, deliver_redirected};
use crate::cpu::far::gate_size;
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::segment::{check_eip, code_segment, fetch_stack_segment, read_global};
use crate::cpu::stack::Stack;
use crate::cpu::task::{SwitchReason, stack_for_level, task_switch};
use crate::cpu::task_tss::interrupt_redirected;
use ring3_translator::addr::LinAddr;
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, SegReg, Segment, cr4, dr7, eflags, gpr};

/// The instruction of a software interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftwareKind {
    /// INT imm8.
    IntN,
    /// INT3 (opcode CC).
    Int3,
    /// INTO with OF set.
    Into,
    /// INT1 (opcode F1): no DPL check, counts as an external event in error codes.
    Icebp,
}

/// What is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An exception. RIP is the faulting instruction (traps: the next one). For #DB the caller
    /// has set DR6.
    Exception(Fault),
    /// A maskable interrupt with its vector; the caller has checked IF. RIP is the next
    /// instruction.
    External(u8),
    /// INT n, INT3, INTO or INT1. RIP is that instruction.
    Software {
        /// The vector (3, 4 and 1 for the one-byte forms).
        vector: u8,
        /// EIP after the instruction.
        next_eip: u32,
        /// Which instruction.
        kind: SoftwareKind,
    },
    /// The non-maskable interrupt; the caller blocks further ones until IRET.
    Nmi,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// The handler's first instruction is next.
    Done,
    /// A triple fault: the processor shuts down.
    Shutdown,
}

/// One attempt's parameters.
pub(crate) struct Attempt {
    pub(crate) vector: u8,
    /// The error code that protected mode pushes.
    pub(crate) error: Option<u32>,
    /// The EIP to save.
    pub(crate) eip: u32,
    /// The EFLAGS image to save.
    pub(crate) flags: u32,
    /// INT n, INT3 or INTO: the gate's DPL is checked.
    pub(crate) software: bool,
}

/// Delivers `event`, with the faults that delivery itself raises.
pub fn deliver<E: Env>(st: &mut GuestState, env: &mut E, event: Event) -> Delivery {
    let mut current = event;
    if let Event::Exception(Fault {
        address: Some(address),
        ..
    }) = event
    {
        st.cr2 = address;
    }
    loop {
        let Err(mut fault) = attempt(st, env, current) else {
            return Delivery::Done;
        };
        if let Some(address) = fault.address {
            st.cr2 = address;
        }
        // EXT: the fault arose while an event external to the program was delivered.
        let external =
            !matches!(current, Event::Software { kind, .. } if kind != SoftwareKind::Icebp);
        if external
            && matches!(
                fault.vector,
                Vector::Ts | Vector::Np | Vector::Ss | Vector::Gp
            )
        {
            fault.error = fault.error.map(|code| code | 1);
        }
        match escalate(current, fault) {
            Some(next) => current = Event::Exception(next),
            None => return Delivery::Shutdown,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FaultClass {
    Benign,
    Contributory,
    Page,
    Double,
}

const fn class_of(vector: Vector) -> FaultClass {
    match vector {
        Vector::De | Vector::Ts | Vector::Np | Vector::Ss | Vector::Gp => FaultClass::Contributory,
        Vector::Pf => FaultClass::Page,
        Vector::Df => FaultClass::Double,
        _ => FaultClass::Benign,
    }
}

/// Which exception follows when `second` arose while `first` was delivered; `None` is shutdown.
/// Intel SDM vol. 3A, table 6-5.
fn escalate(first: Event, second: Fault) -> Option<Fault> {
    let first = match first {
        Event::Exception(fault) => class_of(fault.vector),
        _ => FaultClass::Benign,
    };
    let double = Some(Fault::with_error(Vector::Df, 0));
    match (first, class_of(second.vector)) {
        (FaultClass::Double, FaultClass::Contributory | FaultClass::Page | FaultClass::Double) => {
            None
        }
        (FaultClass::Contributory, FaultClass::Contributory) => double,
        (FaultClass::Page, FaultClass::Contributory | FaultClass::Page) => double,
        _ => Some(second),
    }
}

/// True for the vectors that push an error code. Intel SDM vol. 3A, table 6-1.
const fn pushes_error(vector: Vector) -> bool {
    use Vector as V;
    matches!(
        vector,
        V::Df | V::Ts | V::Np | V::Ss | V::Gp | V::Pf | V::Ac
    )
}

/// The RF bit of the saved image: set for faults, except #DB; kept for interrupts and traps;
/// clear for software interrupts. Intel SDM vol. 3B, 17.3.1.1.
fn saved_flags(st: &GuestState, event: Event) -> u32 {
    let flags = st.eflags();
    match event {
        Event::Exception(fault) => match fault.vector {
            Vector::Db | Vector::Nmi | Vector::Bp | Vector::Of | Vector::Df | Vector::Mc => flags,
            _ => flags | eflags::RF,
        },
        Event::Software { .. } => flags & !eflags::RF,
        Event::External(_) | Event::Nmi => flags,
    }
}

fn attempt<E: Env>(st: &mut GuestState, env: &mut E, event: Event) -> Result<(), Fault> {
    let flags = saved_flags(st, event);
    let eip = st.eip();
    let plain = |vector| Attempt {
        vector,
        error: None,
        eip,
        flags,
        software: false,
    };
    let a = match event {
        Event::Exception(fault) => {
            let pushes = pushes_error(fault.vector) && !st.broken(Mutation::ErrorCode);
            let error = pushes.then_some(fault.error.unwrap_or(0));
            Attempt {
                error,
                ..plain(fault.vector as u8)
            }
        }
        Event::External(vector) => plain(vector),
        Event::Nmi => plain(Vector::Nmi as u8),
        Event::Software {
            vector,
            next_eip,
            kind,
        } => Attempt {
            eip: next_eip,
            software: kind != SoftwareKind::Icebp,
            ..plain(vector)
        },
    };
    if !st.protected() {
        deliver_real(st, env, &a)?;
    } else if st.v86()
        && matches!(
            event,
            Event::Software {
                kind: SoftwareKind::IntN,
                ..
            }
        )
    {
        // IF CR4.VME = 1 and the redirection bit is clear, THEN the 8086 handler serves INT n.
        if st.cr4 & cr4::VME != 0 && !interrupt_redirected(st, env, a.vector)? {
            deliver_redirected(st, env, &a)?;
        } else if st.iopl() < 3 {
            // IF VM = 1 and IOPL < 3 AND INT n, THEN #GP(0).
            return Err(Fault::gp(0));
        } else {
            deliver_protected(st, env, &a)?;
        }
    } else {
        deliver_protected(st, env, &a)?;
    }
    if a.vector == Vector::Db as u8 && !matches!(event, Event::External(_)) && !a.software {
        // The processor clears GD on entering the debug handler, so that it may use the registers.
        st.dr[7] &= !dr7::GD;
    }
    st.interrupt_shadow = 0;
    st.halted = 0;
    Ok(())
}

/// The error code that names an IDT entry: the IDT bit is set.
const fn idt_fault(vector: Vector, number: u8) -> Fault {
    Fault::with_error(vector, number as u32 * 8 + 2)
}

/// "PROTECTED-MODE".
#[inline]
fn deliver_protected<E: Env>(st: &mut GuestState, env: &mut E, a: &Attempt) -> Result<(), Fault> {
    // IF ((vector_number « 3) + 7) is not within IDT limits, THEN #GP(error_code(vector,1,EXT)).
    let offset = u32::from(a.vector) * 8;
    if offset + 7 > u32::from(st.idtr.limit) {
        return Err(idt_fault(Vector::Gp, a.vector));
    }
    let mut raw = [0; 8];
    env.read(
        st,
        LinAddr(st.idtr.base).add32(offset),
        &mut raw,
        Privilege::Supervisor,
    )?;
    let gate = Descriptor(u64::from_le_bytes(raw));
    let kind = gate.kind();
    // OR selected IDT descriptor is not an interrupt-, trap-, or task-gate type, THEN #GP.
    let masks = match kind {
        DescriptorKind::InterruptGate16 | DescriptorKind::InterruptGate32 => true,
        DescriptorKind::TrapGate16 | DescriptorKind::TrapGate32 | DescriptorKind::TaskGate => false,
        _ => return Err(idt_fault(Vector::Gp, a.vector)),
    };
    // IF software interrupt and gate DPL < CPL, THEN #GP(error_code(vector_number,1,0)).
    if a.software && gate.dpl() < st.cpl {
        return Err(idt_fault(Vector::Gp, a.vector));
    }
    // IF gate not present, THEN #NP(error_code(vector_number,1,EXT)).
    if !gate.present() {
        return Err(idt_fault(Vector::Np, a.vector));
    }
    if kind == DescriptorKind::TaskGate {
        return through_task_gate(st, env, gate, a);
    }
    through_gate(st, env, gate, masks, a)
}

/// "TASK-GATE".
fn through_task_gate<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    gate: Descriptor,
    a: &Attempt,
) -> Result<(), Fault> {
    let selector = gate.gate_selector();
    // IF local/global bit is set to local or index not within GDT limits, THEN #GP(selector).
    let tss = read_global(st, env, selector, Vector::Gp)?;
    // IF the descriptor is no TSS or specifies that the TSS is busy, THEN #GP(TSS selector).
    if !matches!(
        tss.kind(),
        DescriptorKind::Tss16 { busy: false } | DescriptorKind::Tss32 { busy: false }
    ) {
        return Err(gp_selector(selector));
    }
    // IF TSS not present, THEN #NP(TSS selector).
    if !tss.present() {
        return Err(selector_fault(Vector::Np, selector));
    }
    let resume = a.flags & eflags::RF != 0;
    task_switch(
        st,
        env,
        selector,
        tss,
        SwitchReason::Event {
            error: a.error,
            resume,
        },
        a.eip,
    )
}

/// "TRAP-OR-INTERRUPT-GATE".
#[inline]
fn through_gate<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    gate: Descriptor,
    masks: bool,
    a: &Attempt,
) -> Result<(), Fault> {
    let selector = gate.gate_selector();
    // IF new code-segment selector is NULL, THEN #GP(EXT).
    if is_null(selector) {
        return Err(Fault::gp(0));
    }
    // IF it is not within its descriptor table limits, THEN #GP(selector).
    let code = read_descriptor(st, env, selector)?;
    let attr = code.attr();
    // IF descriptor does not indicate a code segment, or new code-segment DPL > CPL, THEN #GP.
    if !attr.is_code() || attr.dpl() > st.cpl {
        return Err(gp_selector(selector));
    }
    // IF new code-segment descriptor is not present, THEN #NP(selector).
    if !attr.present() {
        return Err(selector_fault(Vector::Np, selector));
    }
    let inner = !attr.is_conforming() && attr.dpl() < st.cpl;
    let v86 = st.v86();
    // IF VM = 1 and the new code segment is conforming or its DPL ≠ 0, THEN #GP(selector).
    if v86 && (!inner || attr.dpl() != 0) {
        return Err(gp_selector(selector));
    }
    let code = set_accessed(st, env, selector, code)?;
    let size = gate_size(gate);
    let eip = size.truncate(gate.gate_offset());
    let old_cs = u32::from(st.segment(SegReg::Cs).selector);
    if inner {
        // INTER-PRIVILEGE-LEVEL-INTERRUPT, INTERRUPT-FROM-VIRTUAL-8086-MODE.
        let cpl = attr.dpl();
        let (ss_selector, esp) = stack_for_level(st, env, cpl)?;
        // NULL, limits, RPL, DPL, type → #TS(NewSS); not present → #SS(NewSS).
        let ss = fetch_stack_segment(st, env, ss_selector, cpl, Vector::Ts)?;
        let mut stack = Stack::new(&ss, esp, cpl, u32::from(ss_selector & 0xfffc));
        let cs = code_segment(code, selector, cpl);
        // IF new stack does not have room for the frame, THEN #SS(NewSS).
        let slots = if v86 { 9 } else { 5 } + u32::from(a.error.is_some());
        stack.check_push(slots, size)?;
        // IF instruction pointer from IDT gate is not within new code-segment limits, #GP(EXT).
        check_eip(&cs, eip)?;
        let old_ss = u32::from(st.segment(SegReg::Ss).selector);
        let old_esp = st.reg32(gpr::SP);
        if v86 {
            let sel = |reg| u32::from(st.segment(reg).selector);
            let (gs, fs, ds, es) = (
                sel(SegReg::Gs),
                sel(SegReg::Fs),
                sel(SegReg::Ds),
                sel(SegReg::Es),
            );
            match a.error {
                None => stack.push_all(
                    st,
                    env,
                    size,
                    [gs, fs, ds, es, old_ss, old_esp, a.flags, old_cs, a.eip],
                )?,
                Some(error) => {
                    let frame = [
                        gs, fs, ds, es, old_ss, old_esp, a.flags, old_cs, a.eip, error,
                    ];
                    stack.push_all(st, env, size, frame)?;
                }
            }
        } else {
            match a.error {
                None => stack.push_all(st, env, size, [old_ss, old_esp, a.flags, old_cs, a.eip])?,
                Some(error) => stack.push_all(
                    st,
                    env,
                    size,
                    [old_ss, old_esp, a.flags, old_cs, a.eip, error],
                )?,
            }
        }
        st.cpl = cpl;
        enter_handler(st, masks);
        st.set_segment(SegReg::Ss, ss);
        stack.commit(st);
        st.set_segment(SegReg::Cs, cs);
        if v86 {
            for reg in [SegReg::Gs, SegReg::Fs, SegReg::Ds, SegReg::Es] {
                st.set_segment(reg, Segment::null(0));
            }
        }
    } else {
        // INTRA-PRIVILEGE-LEVEL-INTERRUPT: no room on the current stack → #SS(EXT).
        let mut stack = Stack::current(st);
        stack.check_push(3 + u32::from(a.error.is_some()), size)?;
        let cs = code_segment(code, selector, st.cpl);
        // IF instruction pointer not within code-segment limit, THEN #GP(EXT).
        check_eip(&cs, eip)?;
        match a.error {
            None => stack.push_all(st, env, size, [a.flags, old_cs, a.eip])?,
            Some(error) => stack.push_all(st, env, size, [a.flags, old_cs, a.eip, error])?,
        }
        enter_handler(st, masks);
        stack.commit(st);
        st.set_segment(SegReg::Cs, cs);
    }
    st.rip = u64::from(eip);
    Ok(())
}

/// TF, NT, RF and VM are cleared; IF too by an interrupt gate. From V8086 mode all segment
/// registers are loaded next.
#[inline]
fn enter_handler(st: &mut GuestState, masks: bool) {
    st.sys_flags &= !(eflags::TF | eflags::NT | eflags::RF | eflags::VM);
    if masks && !st.broken(Mutation::GateInterruptFlag) {
        st.if_flag = 0;
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
