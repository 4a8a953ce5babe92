//! Segment registers: the check of every access through one, and loading them. Intel SDM
//! vol. 3A, chapter 5 (protection), and vol. 2, MOV, LDS, LLDT, LTR.
//!
//! Real mode keeps a segment's limit and rights when it loads one ("unreal mode"); V8086 mode
//! sets the fixed 64 KiB.

use crate::cpu::descriptor::{
    Descriptor, DescriptorKind, gp_selector, is_null, read_descriptor, read_descriptor_or,
    selector_fault, set_accessed, set_busy,
};
use crate::cpu::env::{Access, Env};
use crate::cpu::fault::{Fault, Vector};
use ring3_translator::addr::LinAddr;
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, SegAttr, SegClass, SegReg, Segment};

/// Rights of a V8086 segment: present, DPL 3, writable, accessed. Intel SDM vol. 3C, 26.3.1.2.
const V86_ATTR: SegAttr = SegAttr(0x00f3);

/// True if selectors are paragraph numbers: real and V8086 mode.
#[inline]
#[must_use]
pub fn real_addressing(st: &GuestState) -> bool {
    !st.protected() || st.v86()
}

/// The first and last valid offset of a segment; first > last if there is none.
#[inline]
#[must_use]
pub fn bounds(s: &Segment) -> (u32, u32) {
    if !s.usable {
        (1, 0)
    } else if s.attr.is_expand_down() {
        let high = if s.attr.big() { u32::MAX } else { 0xffff };
        s.limit.checked_add(1).map_or((1, 0), |low| (low, high))
    } else {
        (0, s.limit)
    }
}

/// The complete segment check of an access of `len` bytes at `reg`:`offset`, and its linear
/// address. A segment that spans 4 GiB wraps silently. Intel SDM vol. 3A, 5.3.
///
/// # Errors
/// #SS(0) for SS, else #GP(0).
#[inline]
pub fn linear(
    st: &GuestState,
    reg: SegReg,
    offset: u32,
    len: u32,
    access: Access,
) -> Result<LinAddr, Fault> {
    let s = st.segment(reg);
    let inside = match s.class {
        // Code segments are classed by readability only.
        _ if reg == SegReg::Cs && access == Access::Write => false,
        SegClass::Flat | SegClass::Based => true,
        SegClass::Limited => u64::from(offset) + u64::from(len) <= u64::from(s.limit) + 1,
        SegClass::Odd => false,
    };
    if inside {
        Ok(LinAddr(s.base).add32(offset))
    } else {
        linear_checked(st, reg, offset, len, access)
    }
}

fn linear_checked(
    st: &GuestState,
    reg: SegReg,
    offset: u32,
    len: u32,
    access: Access,
) -> Result<LinAddr, Fault> {
    let fault = if reg == SegReg::Ss {
        Fault::with_error(Vector::Ss, 0)
    } else {
        Fault::gp(0)
    };
    let s = st.segment(reg);
    let (mut low, mut high) = bounds(s);
    if s.attr.is_expand_down() && st.broken(Mutation::ExpandDown) {
        (low, high) = (0, s.limit);
    }
    if real_addressing(st) {
        // Only the limit counts.
        if !s.usable {
            (low, high) = (0, s.limit);
        }
    } else {
        // IF the segment register holds a null selector, THEN #GP(0) (SS: #SS(0)).
        let allowed = s.usable
            && match access {
                // IF a write and the segment is not a writable data segment, THEN #GP(0).
                Access::Write => s.attr.is_writable(),
                // IF a read and the segment is an execute-only code segment, THEN #GP(0).
                Access::Read => s.attr.is_readable(),
                Access::Execute => s.attr.is_code(),
            };
        if !allowed {
            return Err(fault);
        }
    }
    // IF any byte is outside the effective limit, THEN #GP(0) (SS: #SS(0)).
    let whole = low == 0 && high == u32::MAX;
    let inside = len == 0 || (low <= offset && offset <= high && len - 1 <= high - offset);
    if whole || inside {
        Ok(LinAddr(s.base).add32(offset))
    } else {
        Err(fault)
    }
}

/// The contents of `reg` after loading `selector` in real or V8086 mode.
#[inline]
pub(crate) fn real_segment(st: &GuestState, reg: SegReg, selector: u16) -> Segment {
    if st.v86() {
        return v86_segment(selector);
    }
    let mut s = *st.segment(reg);
    if !s.usable {
        return Segment::real(selector);
    }
    s.selector = selector;
    s.base = u64::from(selector) << 4;
    // The type's access limits do not hold in real mode: present, S and the writable type.
    s.attr = SegAttr(s.attr.0 & 0xf000 | SegAttr::REAL_DATA.0);
    s
}

/// A V8086-mode segment register. Intel SDM vol. 3B, 20.2.
#[must_use]
pub const fn v86_segment(selector: u16) -> Segment {
    let mut s = Segment::real(selector);
    s.attr = V86_ATTR;
    s
}

/// Loads ES, DS, FS or GS. Intel SDM vol. 2A, LDS, and vol. 2B, MOV.
///
/// # Errors
/// #GP(selector), #NP(selector), #PF of the descriptor table access.
pub fn load_data_segment<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    reg: SegReg,
    selector: u16,
) -> Result<(), Fault> {
    let value = if real_addressing(st) {
        real_segment(st, reg, selector)
    } else {
        fetch_data_segment(st, env, selector, st.cpl, Vector::Gp)?
    };
    st.set_segment(reg, value);
    Ok(())
}

/// Reads and checks the descriptor for ES, DS, FS or GS at `cpl`; violations raise `invalid`.
pub(crate) fn fetch_data_segment<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    cpl: u8,
    invalid: Vector,
) -> Result<Segment, Fault> {
    if is_null(selector) {
        return Ok(Segment::null(selector));
    }
    // IF segment selector index is outside descriptor table limits, THEN #GP(selector).
    let d = read_descriptor_or(st, env, selector, invalid)?;
    let attr = d.attr();
    // OR segment is not a data or readable code segment,
    // OR ((segment is a data or nonconforming code segment) AND (RPL > DPL or CPL > DPL)).
    let rpl = (selector & 3) as u8;
    if !attr.is_readable() || (!attr.is_conforming() && (rpl > attr.dpl() || cpl > attr.dpl())) {
        return Err(selector_fault(invalid, selector));
    }
    // IF segment not marked present, THEN #NP(selector).
    if !attr.present() {
        return Err(selector_fault(Vector::Np, selector));
    }
    Ok(set_accessed(st, env, selector, d)?.to_segment(selector))
}

/// Loads SS at the current privilege level. The caller makes the interrupt shadow.
/// Intel SDM vol. 2B, MOV.
///
/// # Errors
/// #GP(0), #GP(selector), #SS(selector), #PF of the descriptor table access.
pub fn load_stack_segment<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
) -> Result<(), Fault> {
    let value = if real_addressing(st) {
        real_segment(st, SegReg::Ss, selector)
    } else {
        fetch_stack_segment(st, env, selector, st.cpl, Vector::Gp)?
    };
    st.set_segment(SegReg::Ss, value);
    Ok(())
}

/// Reads and checks the descriptor of a stack segment for code at `cpl`; violations raise
/// `invalid`, a stack that is not present #SS.
#[inline]
pub(crate) fn fetch_stack_segment<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    cpl: u8,
    invalid: Vector,
) -> Result<Segment, Fault> {
    // IF segment selector is NULL, THEN #GP(0) (a stack from a TSS: #TS).
    if is_null(selector) {
        return Err(selector_fault(invalid, selector));
    }
    // IF segment selector index is outside descriptor table limits, THEN #GP(selector).
    let d = read_descriptor_or(st, env, selector, invalid)?;
    let attr = d.attr();
    // OR RPL ≠ CPL OR segment is not a writable data segment OR DPL ≠ CPL.
    if (selector & 3) as u8 != cpl || !attr.is_writable() || attr.dpl() != cpl {
        return Err(selector_fault(invalid, selector));
    }
    // IF segment not marked present, THEN #SS(selector).
    if !attr.present() {
        return Err(selector_fault(Vector::Ss, selector));
    }
    Ok(set_accessed(st, env, selector, d)?.to_segment(selector))
}

/// Loads any segment register but CS, as MOV, POP and LDS do.
///
/// # Errors
/// #UD for CS; see [`load_stack_segment`] and [`load_data_segment`].
pub fn load_segment<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    reg: SegReg,
    selector: u16,
) -> Result<(), Fault> {
    match reg {
        SegReg::Cs => Err(Fault::ud()),
        SegReg::Ss => load_stack_segment(st, env, selector),
        _ => load_data_segment(st, env, reg, selector),
    }
}

/// Checks that `eip` is within a code segment's limit.
///
/// # Errors
/// #GP(0).
#[inline]
pub(crate) fn check_eip(code: &Segment, eip: u32) -> Result<(), Fault> {
    if eip > code.limit {
        Err(Fault::gp(0))
    } else {
        Ok(())
    }
}

/// The contents of CS for code at `cpl`: the selector's RPL becomes the CPL.
#[inline]
pub(crate) fn code_segment(descriptor: Descriptor, selector: u16, cpl: u8) -> Segment {
    descriptor.to_segment(selector & !3 | u16::from(cpl))
}

/// After a return to an outer level: nulls the data segment registers that the new level may not
/// use. Intel SDM vol. 2A, IRET and RET, "RETURN-TO-OUTER-PRIVILEGE-LEVEL".
#[inline]
pub(crate) fn null_inaccessible(st: &mut GuestState) {
    for reg in [SegReg::Es, SegReg::Fs, SegReg::Gs, SegReg::Ds] {
        let s = st.segment(reg);
        // IF the register points to a data or nonconforming code segment and CPL > DPL, THEN null.
        if s.usable && !s.attr.is_conforming() && st.cpl > s.attr.dpl() {
            st.set_segment(reg, Segment::null(0));
        }
    }
}

/// LLDT. Intel SDM vol. 2A.
///
/// # Errors
/// #UD in real and V8086 mode, #GP(0) above ring 0, #GP(selector), #NP(selector), #PF.
pub fn load_ldtr<E: Env>(st: &mut GuestState, env: &mut E, selector: u16) -> Result<(), Fault> {
    check_system_load(st)?;
    if is_null(selector) {
        st.ldtr = Segment::null(selector);
        return Ok(());
    }
    // IF the selector's TI is set OR its index is outside the GDT limit, THEN #GP(selector).
    let d = read_global(st, env, selector, Vector::Gp)?;
    // IF the descriptor is not of type LDT, THEN #GP(selector).
    if d.kind() != DescriptorKind::Ldt {
        return Err(gp_selector(selector));
    }
    // IF segment descriptor not present, THEN #NP(selector).
    if !d.present() {
        return Err(selector_fault(Vector::Np, selector));
    }
    st.ldtr = d.to_segment(selector);
    Ok(())
}

/// LTR. Intel SDM vol. 2A.
///
/// # Errors
/// #UD in real and V8086 mode, #GP(0) above ring 0 or for null, #GP(selector), #NP(selector), #PF.
pub fn load_tr<E: Env>(st: &mut GuestState, env: &mut E, selector: u16) -> Result<(), Fault> {
    check_system_load(st)?;
    // IF the selector is NULL, THEN #GP(0).
    if is_null(selector) {
        return Err(Fault::gp(0));
    }
    // IF the selector does not point into the GDT, THEN #GP(selector).
    let d = read_global(st, env, selector, Vector::Gp)?;
    // IF the descriptor is not of an available TSS, THEN #GP(selector).
    if !matches!(
        d.kind(),
        DescriptorKind::Tss16 { busy: false } | DescriptorKind::Tss32 { busy: false }
    ) {
        return Err(gp_selector(selector));
    }
    // IF segment descriptor not present, THEN #NP(selector).
    if !d.present() {
        return Err(selector_fault(Vector::Np, selector));
    }
    let d = set_busy(st, env, selector, d, true)?;
    st.tr = d.to_segment(selector);
    Ok(())
}

fn check_system_load(st: &GuestState) -> Result<(), Fault> {
    // IF in real-address or virtual-8086 mode, THEN #UD.
    if real_addressing(st) {
        return Err(Fault::ud());
    }
    // IF CPL ≠ 0, THEN #GP(0).
    if st.cpl != 0 {
        Err(Fault::gp(0))
    } else {
        Ok(())
    }
}

/// Reads a descriptor that must be in the GDT.
pub(crate) fn read_global<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    invalid: Vector,
) -> Result<Descriptor, Fault> {
    if selector & 4 != 0 {
        return Err(selector_fault(invalid, selector));
    }
    match invalid {
        Vector::Gp => read_descriptor(st, env, selector),
        other => read_descriptor_or(st, env, selector, other),
    }
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
