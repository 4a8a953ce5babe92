//! Instructions on EFLAGS: CLI, STI, PUSHF, POPF, LAHF, SAHF. Intel SDM vol. 2, each entry, and
//! vol. 3B, 20.3 (VME) and 20.4 (PVI).

use crate::cpu::env::Env;
use crate::cpu::execute::Flow;
use crate::cpu::fault::Fault;
use crate::cpu::stackops::StackPointer;
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, cr4, eflags, shadow};

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
                if !st.broken(Mutation::StiShadow) {
                    st.interrupt_shadow = shadow::STI;
                }
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
    st.arith_flags =
        (st.arith_flags & u64::from(eflags::ARITH) & !mask) | (u64::from(value) & mask);
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
    if (value as u8).count_ones() & 1 == 0 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::execute::tests::{faults, run};
    use crate::cpu::testenv::{machine, set_real, set_ring, set_v86};
    use ring3_translator::state::gpr;

    const CLI: &[u8] = &[0xfa];
    const STI: &[u8] = &[0xfb];

    #[test]
    fn sti_makes_a_shadow_only_when_it_opens_interrupts() {
        let (mut st, mut env) = machine();
        assert_eq!(run(&mut st, &mut env, STI), Ok(Flow::Next));
        assert_eq!((st.if_flag, st.interrupt_shadow), (1, 1));
        st.interrupt_shadow = 0;
        assert_eq!(run(&mut st, &mut env, STI), Ok(Flow::Next));
        assert_eq!((st.if_flag, st.interrupt_shadow), (1, 0));
        assert_eq!(run(&mut st, &mut env, CLI), Ok(Flow::Next));
        assert_eq!(st.if_flag, 0);
    }

    #[test]
    fn cli_and_sti_obey_iopl_and_fall_back_to_the_virtual_flag() {
        for v86 in [false, true] {
            let (mut st, mut env) = machine();
            set_ring(&mut st, 3);
            if v86 {
                set_v86(&mut st);
            }
            st.if_flag = 1;
            faults(&mut st, &mut env, CLI, Fault::gp(0));
            faults(&mut st, &mut env, STI, Fault::gp(0));
            st.cr4 = if v86 { cr4::PVI } else { cr4::VME }; // the other mode's feature
            faults(&mut st, &mut env, CLI, Fault::gp(0));
            st.cr4 = if v86 { cr4::VME } else { cr4::PVI };
            st.sys_flags |= eflags::VIF;
            assert_eq!(run(&mut st, &mut env, CLI), Ok(Flow::Next));
            assert_eq!((st.if_flag, st.sys_flags & eflags::VIF), (1, 0));
            assert_eq!(run(&mut st, &mut env, STI), Ok(Flow::Next));
            assert_eq!(
                (st.sys_flags & eflags::VIF, st.interrupt_shadow),
                (eflags::VIF, 0)
            );
            st.sys_flags |= eflags::VIP;
            faults(&mut st, &mut env, STI, Fault::gp(0));
            st.sys_flags |= eflags::IOPL;
            assert_eq!(run(&mut st, &mut env, CLI), Ok(Flow::Next));
            assert_eq!(st.if_flag, 0);
        }
    }

    #[test]
    fn pushf_hides_vm_and_rf() {
        let (mut st, mut env) = machine();
        st.set_eflags(0x0021_7fd7 | eflags::RF);
        assert_eq!(run(&mut st, &mut env, &[0x9c]), Ok(Flow::Next));
        assert_eq!(
            (env.get32(0x7ffc), st.reg32(gpr::SP)),
            (0x0020_7fd7, 0x7ffc)
        );
        assert_eq!(run(&mut st, &mut env, &[0x66, 0x9c]), Ok(Flow::Next));
        assert_eq!((env.get16(0x7ffa), st.reg32(gpr::SP)), (0x7fd7, 0x7ffa));
    }

    #[test]
    fn popf_changes_what_the_privilege_allows() {
        // CPL, IOPL before, operand bytes; which of IF, IOPL, AC|ID change when all ones are popped.
        let cases = [
            (0, 0, 4, true, true, true),
            (0, 0, 2, true, true, false),
            (3, 0, 4, false, false, true),
            (3, 3, 4, true, false, true),
            (3, 2, 2, false, false, false),
        ];
        for (cpl, iopl, size, interrupt, level, high) in cases {
            let (mut st, mut env) = machine();
            set_ring(&mut st, cpl);
            st.sys_flags = iopl << 12 | eflags::RF;
            env.put32(0x8000, u32::MAX);
            let code: &[u8] = if size == 4 { &[0x9d] } else { &[0x66, 0x9d] };
            assert_eq!(run(&mut st, &mut env, code), Ok(Flow::Next));
            let flags = st.eflags();
            assert_eq!(
                flags & eflags::IF != 0,
                interrupt,
                "cpl {cpl} iopl {iopl} size {size}"
            );
            assert_eq!(u32::from(st.iopl()), if level { 3 } else { iopl });
            assert_eq!(flags & (eflags::AC | eflags::ID) != 0, high);
            assert_eq!(flags & (eflags::VM | eflags::VIF | eflags::VIP), 0);
            assert_eq!(flags & eflags::RF == 0, size == 4);
            assert_eq!(flags & eflags::ARITH, eflags::ARITH);
            assert_eq!(st.reg32(gpr::SP), 0x8000 + size);
        }
    }

    #[test]
    fn v8086_mode_flag_images_use_the_virtual_flag_with_vme() {
        let (mut st, mut env) = machine();
        set_v86(&mut st);
        st.rip = 0x100;
        faults(&mut st, &mut env, &[0x9c], Fault::gp(0));
        faults(&mut st, &mut env, &[0x9d], Fault::gp(0));
        st.cr4 = cr4::VME;
        faults(&mut st, &mut env, &[0x66, 0x9c], Fault::gp(0));
        faults(&mut st, &mut env, &[0x66, 0x9d], Fault::gp(0));
        st.if_flag = 1;
        assert_eq!(run(&mut st, &mut env, &[0x9c]), Ok(Flow::Next));
        assert_eq!(env.get16(0x7ffe), 0x3002); // IF shows VIF, IOPL shows 3
        env.put16(0x7ffe, 0x0203);
        assert_eq!(run(&mut st, &mut env, &[0x9d]), Ok(Flow::Next));
        assert_eq!(st.eflags() & 0xffff, 0x0203); // real IF kept, CF loaded
        assert_ne!(st.sys_flags & eflags::VIF, 0);
        env.put16(0x8000, 0x0100); // TF
        faults(&mut st, &mut env, &[0x9d], Fault::gp(0));
        env.put16(0x8000, 0x0200); // IF while VIP
        st.sys_flags |= eflags::VIP;
        faults(&mut st, &mut env, &[0x9d], Fault::gp(0));
    }

    #[test]
    fn popf_in_real_mode_changes_iopl_and_if() {
        let (mut st, mut env) = machine();
        set_real(&mut st);
        env.put16(0x8000, 0x7202);
        assert_eq!(run(&mut st, &mut env, &[0x9d]), Ok(Flow::Next));
        assert_eq!(st.eflags(), 0x7202);
        assert_eq!(st.reg32(gpr::SP), 0x8002);
    }

    #[test]
    fn lahf_and_sahf_move_five_flags() {
        let (mut st, mut env) = machine();
        st.arith_flags = u64::from(eflags::OF | eflags::DF);
        st.set_reg32(gpr::AX, 0xff00);
        assert_eq!(run(&mut st, &mut env, &[0x9e]), Ok(Flow::Next));
        assert_eq!(st.eflags(), eflags::ARITH | eflags::FIXED);
        st.set_reg32(gpr::AX, 0);
        assert_eq!(run(&mut st, &mut env, &[0x9f]), Ok(Flow::Next));
        assert_eq!(st.reg32(gpr::AX), 0xd700);
    }

    #[test]
    fn subtraction_flags_agree_with_wide_arithmetic() {
        for a in 0..=255u32 {
            for b in 0..=255u32 {
                let flags = subtract_flags(a, b, 8);
                let signed = i32::from(a as u8 as i8) - i32::from(b as u8 as i8);
                assert_eq!(flags & eflags::CF != 0, a < b);
                assert_eq!(flags & eflags::ZF != 0, a == b);
                assert_eq!(flags & eflags::OF != 0, !(-128..=127).contains(&signed));
                assert_eq!(flags & eflags::SF != 0, (a.wrapping_sub(b) & 0x80) != 0);
                assert_eq!(flags & eflags::AF != 0, a & 15 < b & 15);
            }
        }
    }
}
