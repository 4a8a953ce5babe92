//! Tests of IRET in every mode.

use super::*;
use crate::cpu::testenv::{
    CODE0, CODE3, DATA0, DATA3, TSS, TSS_BASE, machine, registers, segment, set_real, set_ring,
    set_v86,
};
use ring3_translator::state::Segment;

const EIP: u32 = 0x1_5000;
const ALL: u32 = 0x003f_7fd7;

fn fault(vector: Vector, error: u16) -> Result<(), Fault> {
    Err(Fault::with_error(vector, u32::from(error)))
}

/// The EIP after the instruction.
const NEXT: u32 = 0x1_0001;

#[test]
fn to_ring_3_in_three_accesses() {
    let (mut st, mut env) = machine();
    for (n, value) in [
        EIP,
        CODE3.into(),
        eflags::IF | eflags::ZF,
        0xa000,
        DATA3.into(),
    ]
    .into_iter()
    .enumerate()
    {
        env.put32(0x8000 + 4 * n as u64, value);
    }
    iret(&mut st, &mut env, OperandSize::Dword, NEXT).unwrap();
    assert_eq!((env.reads, env.writes), (3, 0));
    assert_eq!(
        (st.eip(), st.cpl, st.reg32(gpr::SP), st.eflags()),
        (EIP, 3, 0xa000, 0x242)
    );
    assert_eq!(
        (
            st.segment(SegReg::Cs).selector,
            st.segment(SegReg::Ss).selector
        ),
        (CODE3, DATA3)
    );
    assert!(
        !st.segment(SegReg::Ds).usable,
        "ring 0 data segments are nulled"
    );
}

#[test]
fn a_short_frame_at_a_page_end_needs_no_next_page() {
    let (mut st, mut env) = machine();
    for (n, value) in [EIP, CODE0.into(), 2].into_iter().enumerate() {
        env.put32(0x8ff4 + 4 * n as u64, value);
    }
    env.fault_pages.push(0x9000);
    st.set_reg32(gpr::SP, 0x8ff4);
    iret(&mut st, &mut env, OperandSize::Dword, NEXT).unwrap();
    assert_eq!((st.eip(), st.reg32(gpr::SP)), (EIP, 0x9000));
    // The same frame to ring 3 does need it.
    st.set_reg32(gpr::SP, 0x8ff4);
    env.put32(0x8ff8, CODE3.into());
    let before = registers(&st);
    assert_eq!(
        iret(&mut st, &mut env, OperandSize::Dword, NEXT)
            .unwrap_err()
            .address,
        Some(0x9000)
    );
    assert_eq!(registers(&st), before);
}

#[test]
fn flags_by_privilege_and_size() {
    use eflags::{AC, FIXED, ID, IF, IOPL, NT, RF, TF, VIF, VIP, VM};
    let basic = eflags::ARITH | TF | NT | FIXED;
    // (CPL, old flags, image, size, flags after)
    let cases = [
        (0, 0, ALL & !VM, OperandSize::Dword, ALL & !VM),
        (0, 0, ALL, OperandSize::Word, basic | IF | IOPL),
        (0, VIF | ID, 0, OperandSize::Word, VIF | ID | FIXED),
        (0, VIF | ID | IF | IOPL, 0, OperandSize::Dword, FIXED),
        (3, 0, ALL, OperandSize::Dword, basic | RF | AC | ID),
        (
            3,
            IOPL | IF,
            ALL & !IF,
            OperandSize::Dword,
            basic | RF | AC | ID | IOPL,
        ),
        (3, IF | VIP, 0, OperandSize::Dword, IF | VIP | FIXED),
        (3, 0, ALL, OperandSize::Word, basic),
    ];
    for (cpl, old, image, size, expected) in cases {
        let (mut st, mut env) = machine();
        set_ring(&mut st, cpl);
        st.set_eflags(old);
        let cs = st.segment(SegReg::Cs).selector;
        let width = u64::from(size.bytes());
        for (n, value) in [0x5000, cs.into(), image].into_iter().enumerate() {
            let at = 0x8000 + width * n as u64;
            if width == 4 {
                env.put32(at, value)
            } else {
                env.put16(at, value as u16)
            }
        }
        iret(&mut st, &mut env, size, NEXT).unwrap();
        assert_eq!(
            st.eflags(),
            expected,
            "cpl {cpl} old {old:#x} image {image:#x} {size:?}"
        );
        assert_eq!(
            (st.eip(), st.reg32(gpr::SP)),
            (0x5000, 0x8000 + 3 * size.bytes())
        );
    }
}

#[test]
fn bad_frames() {
    use Vector::{Gp, Np, Ss};
    // (EIP, CS, SS, result); GDT 0x40: absent ring 3 code, 0x48: small ring 3 code, 0x50: absent data
    let cases = [
        (EIP, 0, DATA3, fault(Gp, 0)),
        (EIP, 0x200, DATA3, fault(Gp, 0x200)),
        (EIP, DATA3, DATA3, fault(Gp, DATA3)),
        (EIP, CODE0 | 3, DATA3, fault(Gp, CODE0)),
        (EIP, CODE3 & !3, DATA3, fault(Gp, CODE3)),
        (EIP, 0x43, DATA3, fault(Np, 0x40)),
        (EIP, 0x4b, DATA3, fault(Gp, 0)),
        (EIP, CODE3, 0, fault(Gp, 0)),
        (EIP, CODE3, DATA0, fault(Gp, DATA0)),
        (EIP, CODE3, CODE3, fault(Gp, CODE3)),
        (EIP, CODE3, 0x53, fault(Ss, 0x50)),
    ];
    for (eip, cs, ss, expected) in cases {
        let (mut st, mut env) = machine();
        env.gdt(0x40, segment(0, 0xf_ffff, 0xc07b));
        env.gdt(0x48, segment(0, 0xff, 0x40fb));
        env.gdt(0x50, segment(0, 0xf_ffff, 0xc073));
        for (n, value) in [eip, cs.into(), 2, 0xa000, ss.into()]
            .into_iter()
            .enumerate()
        {
            env.put32(0x8000 + 4 * n as u64, value);
        }
        let before = registers(&st);
        let expected = expected.map_err(|f| Fault {
            error: f.error.map(|e| e & !3),
            ..f
        });
        assert_eq!(
            iret(&mut st, &mut env, OperandSize::Dword, NEXT),
            expected,
            "cs {cs:#x} ss {ss:#x}"
        );
        assert_eq!(registers(&st), before);
    }
}

#[test]
fn stack_limit_covers_the_frame() {
    let (mut st, mut env) = machine();
    let mut ss = *st.segment(SegReg::Ss);
    ss.limit = 0x800a;
    st.set_segment(SegReg::Ss, ss);
    assert_eq!(
        iret(&mut st, &mut env, OperandSize::Dword, NEXT),
        fault(Vector::Ss, 0)
    );
    ss.limit = 0x800b;
    st.set_segment(SegReg::Ss, ss);
    for (n, value) in [EIP, CODE3.into(), 2].into_iter().enumerate() {
        env.put32(0x8000 + 4 * n as u64, value);
    }
    assert_eq!(
        iret(&mut st, &mut env, OperandSize::Dword, NEXT),
        fault(Vector::Ss, 0),
        "no room for SS:ESP"
    );
    env.put32(0x8004, CODE0.into());
    iret(&mut st, &mut env, OperandSize::Dword, NEXT).unwrap();
}

#[test]
fn to_v86_mode_loads_everything() {
    let (mut st, mut env) = machine();
    let flags = eflags::VM | eflags::IF | eflags::IOPL;
    let frame = [
        0x123, 0x1000, flags, 0xfffe, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000,
    ];
    for (n, value) in frame.into_iter().enumerate() {
        env.put32(0x8000 + 4 * n as u64, value);
    }
    iret(&mut st, &mut env, OperandSize::Dword, NEXT).unwrap();
    assert_eq!(
        (st.eip(), st.cpl, st.reg32(gpr::SP), st.eflags()),
        (0x123, 3, 0xfffe, flags | 2)
    );
    let expected = [0x3000, 0x1000, 0x2000, 0x4000, 0x5000, 0x6000];
    for (reg, selector) in SegReg::ALL.into_iter().zip(expected) {
        assert_eq!(*st.segment(reg), {
            let mut s = v86_segment(selector);
            s.class = st.segment(reg).class;
            s
        });
    }
    // An EIP beyond 64 KiB faults, and outside ring 0 VM is ignored.
    let (mut st, _) = machine();
    env.put32(0x8000, 0x1_0000);
    assert_eq!(
        iret(&mut st, &mut env, OperandSize::Dword, NEXT),
        fault(Vector::Gp, 0)
    );
    set_ring(&mut st, 3);
    env.put32(0x8004, CODE3.into());
    iret(&mut st, &mut env, OperandSize::Dword, NEXT).unwrap();
    assert!(!st.v86());
}

#[test]
fn inside_v86_mode() {
    use eflags::{FIXED, IF, IOPL, TF, VIF, VIP, VM};
    let gp = || fault(Vector::Gp, 0);
    // (IOPL, VME, size, old VIP, image, result and flags after)
    let cases = [
        (
            3,
            false,
            OperandSize::Dword,
            0,
            IF,
            Ok(VM | IOPL | IF | FIXED),
        ),
        (
            3,
            false,
            OperandSize::Word,
            0,
            IF | TF,
            Ok(VM | IOPL | IF | TF | FIXED),
        ),
        (0, false, OperandSize::Word, 0, IF, Err(gp())),
        (0, true, OperandSize::Dword, 0, IF, Err(gp())),
        (0, true, OperandSize::Word, 0, IF, Ok(VM | VIF | FIXED)),
        (0, true, OperandSize::Word, 0, IOPL, Ok(VM | FIXED)),
        (0, true, OperandSize::Word, 0, TF, Err(gp())),
        (0, true, OperandSize::Word, VIP, IF, Err(gp())),
        (0, true, OperandSize::Word, VIP, 0, Ok(VM | VIP | FIXED)),
    ];
    for (iopl, vme, size, vip, image, expected) in cases {
        let (mut st, mut env) = machine();
        set_v86(&mut st);
        st.sys_flags |= iopl << 12 | vip;
        st.cr4 = u64::from(vme);
        let width = u64::from(size.bytes());
        for (n, value) in [0x42u16, 0x1000, image as u16].into_iter().enumerate() {
            env.put16(0x8000 + width * n as u64, value);
        }
        let before = registers(&st);
        match (iret(&mut st, &mut env, size, NEXT), expected) {
            (Ok(()), Ok(flags)) => {
                assert_eq!(
                    (st.eflags(), st.eip(), st.segment(SegReg::Cs).base),
                    (flags, 0x42, 0x1_0000)
                );
            }
            (Err(got), Err(Err(wanted))) => {
                assert_eq!(got, wanted);
                assert_eq!(registers(&st), before);
            }
            (got, wanted) => {
                panic!("IOPL {iopl} VME {vme} {size:?} {image:#x}: {got:?}, wanted {wanted:?}")
            }
        }
    }
}

#[test]
fn real_mode() {
    let (mut st, mut env) = machine();
    set_real(&mut st);
    st.set_segment(SegReg::Ss, Segment::real(0));
    env.put(0x8000, &[0x34, 0x12, 0x00, 0xf0, 0xff, 0xff]);
    iret(&mut st, &mut env, OperandSize::Word, NEXT).unwrap();
    assert_eq!(
        (st.eip(), st.segment(SegReg::Cs).base, st.reg32(gpr::SP)),
        (0x1234, 0xf_0000, 0x8006)
    );
    assert_eq!(st.eflags(), 0x7fd7);
    st.set_reg32(gpr::SP, 0x8000);
    for (n, value) in [0x42, 0x100, u32::MAX].into_iter().enumerate() {
        env.put32(0x8000 + 4 * n as u64, value);
    }
    iret(&mut st, &mut env, OperandSize::Dword, NEXT).unwrap();
    assert_eq!(
        (st.eip(), st.eflags()),
        (0x42, 0x0025_7fd7),
        "VM, VIF and VIP cannot be set"
    );
    env.put32(0x800c, 0x1_0000);
    assert_eq!(
        iret(&mut st, &mut env, OperandSize::Dword, NEXT),
        fault(Vector::Gp, 0)
    );
}

#[test]
fn nested_task_returns_by_the_back_link() {
    let (mut st, mut env) = machine();
    st.sys_flags |= eflags::NT;
    env.put16(TSS_BASE, 0x40);
    env.gdt(0x40, segment(0x3_0000, 0x67, 0x89));
    env.put32(0x3_0020, EIP);
    for (n, selector) in [DATA0, CODE0, DATA0, DATA0, 0, 0].into_iter().enumerate() {
        env.put16(0x3_0048 + 4 * n as u64, selector);
    }
    let before = registers(&st);
    assert_eq!(
        iret(&mut st, &mut env, OperandSize::Dword, NEXT),
        fault(Vector::Ts, 0x40),
        "not busy"
    );
    assert_eq!(registers(&st), before);
    env.gdt(0x40, segment(0x3_0000, 0x67, 0x8b));
    iret(&mut st, &mut env, OperandSize::Dword, NEXT).unwrap();
    assert_eq!((st.eip(), st.tr.selector, st.eflags()), (EIP, 0x40, 2));
    assert_eq!(
        (env.get32(TSS_BASE + 0x20), env.get32(TSS_BASE + 0x24)),
        (0x1_0001, 2),
        "EIP and NT clear"
    );
    assert_eq!(
        env.get64(crate::cpu::testenv::GDT_BASE + u64::from(TSS)) >> 40 & 0xff,
        0x89,
        "no longer busy"
    );
}
