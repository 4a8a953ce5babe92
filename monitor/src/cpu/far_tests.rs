//! Tests of far JMP, CALL and RET.

use super::*;
use crate::cpu::testenv::{
    CODE0, CODE3, DATA0, DATA3, FlatEnv, KERNEL_ESP, TSS, TSS_BASE, gate, machine, registers,
    segment, set_real, set_ring, set_v86,
};
use ring3_translator::state::eflags;
use ring3_translator::state_box::StateBox;

const SLOT: u16 = 0x40;
const GATE: u16 = 0x50;
const EIP: u32 = 0x1_5000;

fn fault(vector: Vector, error: u16) -> Result<(), Fault> {
    Err(Fault::with_error(vector, u32::from(error)))
}

#[test]
fn direct_targets() {
    use Vector::{Gp, Np};
    // (attr of the target, CPL, RPL, result, CS selector after)
    let cases = [
        (0xc09bu16, 0u8, 0u16, Ok(()), SLOT),
        (0xc099, 0, 0, Ok(()), SLOT),
        (0xc09b, 0, 3, fault(Gp, SLOT), 0),
        (0xc0fb, 0, 0, fault(Gp, SLOT), 0),
        (0xc0fb, 3, 0, Ok(()), SLOT | 3),
        (0xc09b, 3, 3, fault(Gp, SLOT), 0),
        (0xc09f, 3, 3, Ok(()), SLOT | 3),
        (0xc09f, 3, 0, Ok(()), SLOT | 3),
        (0xc0ff, 0, 0, fault(Gp, SLOT), 0),
        (0xc01b, 0, 0, fault(Np, SLOT), 0),
        (0xc093, 0, 0, fault(Gp, SLOT), 0),
        (0x0082, 0, 0, fault(Gp, SLOT), 0),
        (0x008e, 0, 0, fault(Gp, SLOT), 0),
    ];
    for (attr, cpl, rpl, expected, cs) in cases {
        for call in [false, true] {
            let (mut st, mut env) = machine();
            set_ring(&mut st, cpl);
            env.gdt(SLOT, segment(0, 0xf_ffff, attr));
            let before = registers(&st);
            let old_cs = st.segment(SegReg::Cs).selector;
            let got = if call {
                far_call(
                    &mut st,
                    &mut env,
                    SLOT | rpl,
                    EIP,
                    0x1_0007,
                    OperandSize::Dword,
                )
            } else {
                far_jump(&mut st, &mut env, SLOT | rpl, EIP, 0, OperandSize::Dword)
            };
            assert_eq!(got, expected, "{attr:#x} cpl {cpl} rpl {rpl} call {call}");
            if got.is_err() {
                assert_eq!(registers(&st), before);
                continue;
            }
            assert_eq!(
                (st.eip(), st.segment(SegReg::Cs).selector, st.cpl),
                (EIP, cs, cpl)
            );
            if call {
                assert_eq!(st.reg32(gpr::SP), 0x7ff8);
                assert_eq!(env.dwords::<2>(0x7ff8), [0x1_0007, u32::from(old_cs)]);
            }
        }
    }
}

#[test]
fn limits_of_selector_eip_and_stack() {
    let (mut st, mut env) = machine();
    env.gdt(SLOT, segment(0, 0x0fff, 0x409b));
    let before = registers(&st);
    let dword = OperandSize::Dword;
    assert_eq!(
        far_jump(&mut st, &mut env, 3, EIP, 0, dword),
        Err(Fault::gp(0))
    );
    assert_eq!(
        far_jump(&mut st, &mut env, 0x100, EIP, 0, dword),
        Err(Fault::gp(0x100))
    );
    assert_eq!(
        far_jump(&mut st, &mut env, SLOT, 0x1000, 0, dword),
        Err(Fault::gp(0))
    );
    assert_eq!(
        far_call(&mut st, &mut env, SLOT, 0x1000, 0, dword),
        Err(Fault::gp(0))
    );
    assert_eq!(registers(&st), before);
    // A 16-bit operand truncates the offset.
    far_jump(&mut st, &mut env, SLOT, 0xabcd_0fff, 0, OperandSize::Word).unwrap();
    assert_eq!(st.eip(), 0xfff);
    st.set_segment(
        SegReg::Ss,
        Descriptor(segment(0, 0x0fff, 0x4093)).to_segment(DATA0),
    );
    assert_eq!(
        far_call(&mut st, &mut env, CODE0, EIP, 0, dword),
        fault(Vector::Ss, 0)
    );
}

#[test]
fn gates_reach_inner_rings_by_call_only() {
    let (mut st, mut env) = machine();
    set_ring(&mut st, 3);
    env.gdt(GATE, gate(CODE0, EIP, 0xec) | 3 << 32);
    let before = registers(&st);
    assert_eq!(
        far_jump(&mut st, &mut env, GATE | 3, 0, 0, OperandSize::Dword),
        fault(Vector::Gp, CODE0)
    );
    assert_eq!(registers(&st), before);
    for (n, value) in [11, 22, 33].into_iter().enumerate() {
        env.put32(0x8000 + 4 * n as u64, value);
    }
    // The offset in the instruction is ignored, and so is its operand size.
    far_call(
        &mut st,
        &mut env,
        GATE | 3,
        0xdead_beef,
        0x1_0007,
        OperandSize::Word,
    )
    .unwrap();
    assert_eq!(
        (st.eip(), st.cpl, st.segment(SegReg::Cs).selector),
        (EIP, 0, CODE0)
    );
    assert_eq!(
        (st.reg32(gpr::SP), st.segment(SegReg::Ss).selector),
        (KERNEL_ESP - 28, DATA0)
    );
    let frame = env.dwords::<7>(KERNEL_ESP - 28);
    assert_eq!(
        frame,
        [
            0x1_0007,
            u32::from(CODE3),
            11,
            22,
            33,
            0x8000,
            u32::from(DATA3)
        ]
    );
    // RETF 12 goes back, releases the parameters on both stacks and nulls inner data segments.
    st.set_segment(
        SegReg::Ds,
        Descriptor(segment(0, 0xf_ffff, 0xc093)).to_segment(DATA0),
    );
    far_return(&mut st, &mut env, 12, OperandSize::Dword).unwrap();
    assert_eq!((st.eip(), st.cpl, st.reg32(gpr::SP)), (0x1_0007, 3, 0x800c));
    assert_eq!(
        (
            st.segment(SegReg::Cs).selector,
            st.segment(SegReg::Ss).selector
        ),
        (CODE3, DATA3)
    );
    assert_eq!(
        (
            st.segment(SegReg::Ds).selector,
            st.segment(SegReg::Es).selector
        ),
        (0, DATA3)
    );
}

#[test]
fn sixteen_bit_gate_copies_words() {
    let (mut st, mut env) = machine();
    set_ring(&mut st, 3);
    env.gdt(GATE, gate(CODE0, 0xffff_1234, 0xe4) | 2 << 32);
    env.put32(0x8000, 0x2222_1111);
    far_call(&mut st, &mut env, GATE, 0, 0x1_0007, OperandSize::Dword).unwrap();
    assert_eq!((st.eip(), st.reg32(gpr::SP)), (0x1234, KERNEL_ESP - 12));
    assert_eq!(
        env.words::<6>(KERNEL_ESP - 12),
        [7, CODE3, 0x1111, 0x2222, 0x8000, DATA3]
    );
}

#[test]
fn same_privilege_gate_uses_the_current_stack() {
    let (mut st, mut env) = machine();
    env.gdt(GATE, gate(CODE0, EIP, 0x8c) | 3 << 32);
    far_call(&mut st, &mut env, GATE, 0, 0x1_0007, OperandSize::Word).unwrap();
    assert_eq!((st.eip(), st.reg32(gpr::SP)), (EIP, 0x7ff8));
    far_jump(&mut st, &mut env, GATE, 0, 0, OperandSize::Dword).unwrap();
    assert_eq!((st.eip(), st.reg32(gpr::SP)), (EIP, 0x7ff8));
}

#[test]
fn broken_gates() {
    use Vector::{Gp, Np, Pf, Ss, Ts};
    type Setup = fn(&mut StateBox, &mut FlatEnv);
    let cases: [(&str, Setup, Vector, u32); 11] = [
        (
            "gate DPL",
            |_, env| env.gdt(GATE, gate(CODE0, EIP, 0x8c)),
            Gp,
            GATE.into(),
        ),
        (
            "gate absent",
            |_, env| env.gdt(GATE, gate(CODE0, EIP, 0x6c)),
            Np,
            GATE.into(),
        ),
        (
            "null code",
            |_, env| env.gdt(GATE, gate(0, EIP, 0xec)),
            Gp,
            0,
        ),
        (
            "code outside",
            |_, env| env.gdt(GATE, gate(0x200, EIP, 0xec)),
            Gp,
            0x200,
        ),
        (
            "data as code",
            |_, env| env.gdt(GATE, gate(DATA0, EIP, 0xec)),
            Gp,
            DATA0.into(),
        ),
        (
            "code absent",
            |_, env| env.gdt(CODE0, segment(0, 0xf_ffff, 0xc01b)),
            Np,
            CODE0.into(),
        ),
        ("TSS limit", |st, _| st.tr.limit = 8, Ts, TSS.into()),
        ("null stack", |_, env| env.put16(TSS_BASE + 8, 0), Ts, 0),
        (
            "stack DPL",
            |_, env| env.put16(TSS_BASE + 8, DATA3 & !3),
            Ts,
            (DATA3 & !3).into(),
        ),
        (
            "stack absent",
            |_, env| env.gdt(DATA0, segment(0, 0xf_ffff, 0xc013)),
            Ss,
            DATA0.into(),
        ),
        (
            "stack page",
            |_, env| env.read_only_pages.push(0x8000),
            Pf,
            2,
        ),
    ];
    for (name, setup, vector, error) in cases {
        let (mut st, mut env) = machine();
        set_ring(&mut st, 3);
        env.gdt(GATE, gate(CODE0, EIP, 0xec));
        setup(&mut st, &mut env);
        let before = registers(&st);
        let got = far_call(&mut st, &mut env, GATE | 3, 0, 7, OperandSize::Dword).unwrap_err();
        assert_eq!(
            (got.vector, got.error.map(|e| e & !1)),
            (vector, Some(error)),
            "{name}"
        );
        assert_eq!(registers(&st), before, "{name}");
    }
}

#[test]
fn returns_check_the_outer_frame() {
    use Vector::{Gp, Np, Ss};
    // (EIP, CS, ESP, SS, result) from ring 0; GDT 0x40: absent ring 3 code, 0x48: absent ring 3 data
    let cases = [
        (EIP, CODE0, 0, 0, Ok(())),
        (EIP, CODE3, 0xa000, DATA3, Ok(())),
        (EIP, 0, 0, 0, fault(Gp, 0)),
        (EIP, 0x200, 0, 0, fault(Gp, 0x200)),
        (EIP, DATA0, 0, 0, fault(Gp, DATA0)),
        (EIP, CODE3 & !3, 0, 0, fault(Gp, CODE3 & !3)),
        (EIP, CODE0 | 3, 0, 0, fault(Gp, CODE0)),
        (EIP, 0x43, 0xa000, DATA3, fault(Np, 0x40)),
        (EIP, CODE3, 0xa000, 0, fault(Gp, 0)),
        (EIP, CODE3, 0xa000, DATA0, fault(Gp, DATA0)),
        (EIP, CODE3, 0xa000, DATA3 & !3, fault(Gp, DATA3 & !3)),
        (EIP, CODE3, 0xa000, 0x4b, fault(Ss, 0x48)),
    ];
    for (eip, cs, esp, ss, expected) in cases {
        let (mut st, mut env) = machine();
        env.gdt(0x40, segment(0, 0xf_ffff, 0xc07b));
        env.gdt(0x48, segment(0, 0xf_ffff, 0xc073));
        for (n, value) in [eip, cs.into(), esp, ss.into()].into_iter().enumerate() {
            env.put32(0x8000 + 4 * n as u64, value);
        }
        let before = registers(&st);
        let got = far_return(&mut st, &mut env, 0, OperandSize::Dword);
        assert_eq!(got, expected, "cs {cs:#x} ss {ss:#x}");
        if got.is_err() {
            assert_eq!(registers(&st), before);
        } else {
            let sp = if cs == CODE0 { 0x8008 } else { 0xa000 };
            assert_eq!(
                (st.eip(), st.segment(SegReg::Cs).selector, st.reg32(gpr::SP)),
                (EIP, cs, sp)
            );
        }
    }
}

#[test]
fn a_return_never_goes_inwards() {
    let (mut st, mut env) = machine();
    set_ring(&mut st, 3);
    env.put32(0x8000, EIP);
    env.put32(0x8004, CODE0.into());
    assert_eq!(
        far_return(&mut st, &mut env, 0, OperandSize::Dword),
        fault(Vector::Gp, CODE0)
    );
}

#[test]
fn real_and_v86_mode() {
    for v86 in [false, true] {
        let (mut st, mut env) = machine();
        if v86 {
            set_v86(&mut st)
        } else {
            set_real(&mut st)
        }
        far_call(&mut st, &mut env, 0xf000, 0x1234, 0x42, OperandSize::Word).unwrap();
        assert_eq!(
            (st.eip(), st.segment(SegReg::Cs).base, st.reg32(gpr::SP)),
            (0x1234, 0xf_0000, 0x7ffc)
        );
        assert_eq!(env.words::<2>(0x7ffc), [0x42, 0]);
        far_jump(&mut st, &mut env, 0x1000, 0xffff, 0, OperandSize::Dword).unwrap();
        assert_eq!((st.eip(), st.segment(SegReg::Cs).base), (0xffff, 0x1_0000));
        assert_eq!(
            far_jump(&mut st, &mut env, 0, 0x1_0000, 0, OperandSize::Dword),
            Err(Fault::gp(0))
        );
        far_return(&mut st, &mut env, 6, OperandSize::Word).unwrap();
        assert_eq!(
            (st.eip(), st.segment(SegReg::Cs).base, st.reg32(gpr::SP)),
            (0x42, 0, 0x8006)
        );
    }
}

#[test]
fn leaving_protected_mode_keeps_a_big_code_segment() {
    let (mut st, mut env) = machine();
    st.cr0 &= !1;
    st.reclassify_segments();
    far_jump(&mut st, &mut env, 0x100, 0x2_0000, 0, OperandSize::Dword).unwrap();
    assert_eq!(
        (
            st.eip(),
            st.segment(SegReg::Cs).base,
            st.segment(SegReg::Cs).limit
        ),
        (0x2_0000, 0x1000, u32::MAX)
    );
}

#[test]
fn task_switch_by_jump_stores_the_next_eip() {
    let (mut st, mut env) = machine();
    env.gdt(SLOT, segment(0x3_0000, 0x67, 0x89));
    env.put32(0x3_0020, EIP);
    for (n, selector) in [DATA0, CODE0, DATA0, DATA0, 0, 0].into_iter().enumerate() {
        env.put16(0x3_0048 + 4 * n as u64, selector);
    }
    far_jump(&mut st, &mut env, SLOT, 0, 0x1_0007, OperandSize::Dword).unwrap();
    assert_eq!(
        (st.eip(), st.tr.selector, env.get32(TSS_BASE + 0x20)),
        (EIP, SLOT, 0x1_0007)
    );
    assert_eq!(st.eflags() & eflags::NT, 0);
    // Back through a task gate: the first task is available again.
    env.gdt(GATE, gate(TSS, 0, 0x85));
    far_jump(&mut st, &mut env, GATE, 0, EIP + 7, OperandSize::Dword).unwrap();
    assert_eq!(
        (st.eip(), st.tr.selector, env.get32(0x3_0020)),
        (0x1_0007, TSS, EIP + 7)
    );
}

#[test]
fn tss_targets_check_rights() {
    // (attr, CPL, selector, result)
    let cases = [
        (0x8bu16, 0u8, SLOT, fault(Vector::Gp, SLOT)),
        (0x09, 0, SLOT, fault(Vector::Np, SLOT)),
        (0x89, 3, SLOT, fault(Vector::Gp, SLOT)),
        (0x89, 0, SLOT | 3, fault(Vector::Gp, SLOT)),
        (0x89, 0, SLOT, fault(Vector::Ts, SLOT)),
    ];
    for (attr, cpl, selector, expected) in cases {
        let (mut st, mut env) = machine();
        set_ring(&mut st, cpl);
        env.gdt(SLOT, segment(0x3_0000, 0x66, attr));
        let before = registers(&st);
        assert_eq!(
            far_call(&mut st, &mut env, selector, 0, 7, OperandSize::Dword),
            expected,
            "{attr:#x} {cpl}"
        );
        assert_eq!(registers(&st), before);
    }
}
