//! SYSENTER and SYSEXIT outside long mode. Intel SDM vol. 2B. They load flat segments without
//! reading a descriptor.

use crate::cpu::fault::Fault;
use ring3_translator::state::{GuestState, SegAttr, SegClass, SegReg, Segment, eflags, gpr};

/// A flat, present, accessed 4 GiB code segment of DPL 0; ring 3 adds [`DPL3`].
const FLAT_CODE: u16 = 0xc09b;
/// The data segment that goes with it.
const FLAT_DATA: u16 = 0xc093;
const DPL3: u16 = 0x60;

const fn flat(selector: u16, attr: u16) -> Segment {
    Segment {
        base: 0,
        limit: u32::MAX,
        selector,
        attr: SegAttr(attr),
        usable: true,
        class: SegClass::Flat,
    }
}

/// SYSENTER. Sets RIP, ESP, CS, SS and CPL; the caller has checked CPUID support.
///
/// # Errors
/// #GP(0).
pub fn sysenter(st: &mut GuestState) -> Result<(), Fault> {
    let selector = st.msr.sysenter_cs as u16 & 0xfffc;
    // IF CR0.PE = 0 OR IA32_SYSENTER_CS[15:2] = 0, THEN #GP(0).
    if !st.protected() || selector == 0 {
        return Err(Fault::gp(0));
    }
    // RFLAGS.VM ← 0, IF ← 0; RF is clear in any instruction that completes.
    let was_v86 = st.v86();
    st.sys_flags &= !(eflags::VM | eflags::RF);
    st.if_flag = 0;
    st.cpl = 0;
    if was_v86 {
        st.reclassify_segments();
    }
    st.set_segment(SegReg::Cs, flat(selector, FLAT_CODE));
    st.set_segment(SegReg::Ss, flat(selector.wrapping_add(8), FLAT_DATA));
    st.set_reg32(gpr::SP, st.msr.sysenter_esp as u32);
    st.rip = u64::from(st.msr.sysenter_eip as u32);
    Ok(())
}

/// SYSEXIT to 32-bit code: EDX is the new EIP, ECX the new ESP.
///
/// # Errors
/// #GP(0).
pub fn sysexit(st: &mut GuestState) -> Result<(), Fault> {
    let selector = st.msr.sysenter_cs as u16 & 0xfffc;
    // IF IA32_SYSENTER_CS[15:2] = 0 OR CR0.PE = 0 OR CPL ≠ 0, THEN #GP(0).
    if !st.protected() || selector == 0 || st.cpl != 0 {
        return Err(Fault::gp(0));
    }
    st.cpl = 3;
    st.sys_flags &= !eflags::RF;
    st.set_segment(
        SegReg::Cs,
        flat(selector.wrapping_add(16) | 3, FLAT_CODE | DPL3),
    );
    st.set_segment(
        SegReg::Ss,
        flat(selector.wrapping_add(24) | 3, FLAT_DATA | DPL3),
    );
    st.set_reg32(gpr::SP, st.reg32(gpr::CX));
    st.rip = u64::from(st.reg32(gpr::DX));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testenv::machine;

    #[test]
    fn enters_ring_0_and_comes_back() {
        let (mut st, _) = machine();
        st.msr.sysenter_cs = 0x61;
        st.msr.sysenter_esp = 0x8000;
        st.msr.sysenter_eip = 0xc000_0100;
        st.cpl = 3;
        st.set_eflags(eflags::IF | eflags::CF | eflags::RF);
        sysenter(&mut st).unwrap();
        assert_eq!(
            (st.cpl, st.rip, st.reg32(gpr::SP), st.eflags()),
            (0, 0xc000_0100, 0x8000, 3)
        );
        assert_eq!(
            (
                st.segment(SegReg::Cs).selector,
                st.segment(SegReg::Ss).selector
            ),
            (0x60, 0x68)
        );
        st.set_reg32(gpr::CX, 0xbfff_0000);
        st.set_reg32(gpr::DX, 0x0804_8000);
        sysexit(&mut st).unwrap();
        assert_eq!(
            (st.cpl, st.rip, st.reg32(gpr::SP)),
            (3, 0x0804_8000, 0xbfff_0000)
        );
        assert_eq!(
            (
                st.segment(SegReg::Cs).selector,
                st.segment(SegReg::Ss).selector
            ),
            (0x73, 0x7b)
        );
        assert_eq!(
            (
                st.segment(SegReg::Cs).attr.dpl(),
                st.segment(SegReg::Cs).class
            ),
            (3, SegClass::Flat)
        );
        // SYSEXIT outside ring 0 and both without a code selector fault and change nothing.
        assert_eq!(sysexit(&mut st), Err(Fault::gp(0)));
        st.msr.sysenter_cs = 3;
        assert_eq!(sysenter(&mut st), Err(Fault::gp(0)));
        assert_eq!((st.cpl, st.rip), (3, 0x0804_8000));
    }

    #[test]
    fn faults_in_real_mode() {
        let (mut st, _) = machine();
        st.msr.sysenter_cs = 8;
        st.cr0 &= !1;
        assert_eq!(
            (sysenter(&mut st), sysexit(&mut st)),
            (Err(Fault::gp(0)), Err(Fault::gp(0)))
        );
    }
}
