//! Dispatch, events, segment moves and near transfers, and the runner that the families' tests use.

use super::*;
use crate::cpu::cpuid::CpuModel;
use crate::cpu::fault::Fault;
use crate::cpu::testenv::{
    CODE0, DATA0, DATA3, FlatEnv, machine, registers, segment, set_real, set_ring, set_v86,
};
use iced_x86::{Decoder, DecoderOptions};
use ring3_translator::state::{SegReg, gpr};
use ring3_translator::state_box::StateBox;

/// A model with every optional feature, of a made-up AMD processor.
pub(crate) fn full_model() -> CpuModel {
    let host = |leaf: u32, sub: u32| match (leaf, sub) {
        (0, _) => [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        (1, _) => [0x00b2_0f21, 0, u32::MAX, u32::MAX],
        (7, 0) => [0, u32::MAX, u32::MAX, u32::MAX],
        (0xd, 1) => [1, 0, 0, 0],
        (0x8000_0000, _) => [0x8000_0008, 0, 0, 0],
        (0x8000_0001, _) => [0, 0, u32::MAX, u32::MAX],
        _ => [0; 4],
    };
    CpuModel::from_host(&host, true)
}

/// Decodes `code` at EIP with the default size of CS and executes it.
pub(crate) fn run(st: &mut StateBox, env: &mut FlatEnv, code: &[u8]) -> Result<Flow, Fault> {
    let bits = if st.segment(SegReg::Cs).attr.big() {
        32
    } else {
        16
    };
    let insn = Decoder::with_ip(bits, code, st.rip, DecoderOptions::NONE).decode();
    execute(st, env, &full_model(), &insn)
}

/// Runs an instruction that must fault and shows that no register changed.
pub(crate) fn faults(st: &mut StateBox, env: &mut FlatEnv, code: &[u8], fault: Fault) {
    let before = registers(st);
    assert_eq!(run(st, env, code), Err(fault), "{code:02x?}");
    assert_eq!(registers(st), before, "{code:02x?}");
}

#[test]
fn privileged_instructions_fault_at_cpl_3_and_change_nothing() {
    let cases: [&[u8]; 17] = [
        &[0xf4],                         // hlt
        &[0x0f, 0x20, 0xc0],             // mov eax, cr0
        &[0x0f, 0x22, 0xd8],             // mov cr3, eax
        &[0x0f, 0x21, 0xf8],             // mov eax, dr7
        &[0x0f, 0x23, 0xc0],             // mov dr0, eax
        &[0x0f, 0x06],                   // clts
        &[0x0f, 0x01, 0xf0],             // lmsw ax
        &[0x0f, 0x01, 0x15, 0, 0, 0, 0], // lgdt [0]
        &[0x0f, 0x01, 0x1d, 0, 0, 0, 0], // lidt [0]
        &[0x0f, 0x00, 0xd0],             // lldt ax
        &[0x0f, 0x00, 0xd8],             // ltr ax
        &[0x0f, 0x01, 0x3d, 0, 0, 0, 0], // invlpg [0]
        &[0x0f, 0x08],                   // invd
        &[0x0f, 0x09],                   // wbinvd
        &[0x0f, 0x30],                   // wrmsr
        &[0x0f, 0x32],                   // rdmsr
        &[0x0f, 0x33],                   // rdpmc
    ];
    for code in cases {
        let (mut st, mut env) = machine();
        set_ring(&mut st, 3);
        faults(&mut st, &mut env, code, Fault::gp(0));
    }
}

#[test]
fn protected_mode_instructions_are_undefined_in_real_and_v8086_mode() {
    let cases: [&[u8]; 9] = [
        &[0x0f, 0x00, 0xd0], // lldt
        &[0x0f, 0x00, 0xd8], // ltr
        &[0x0f, 0x00, 0xc0], // sldt
        &[0x0f, 0x00, 0xc8], // str
        &[0x0f, 0x02, 0xc0], // lar
        &[0x0f, 0x03, 0xc0], // lsl
        &[0x0f, 0x00, 0xe0], // verr
        &[0x0f, 0x00, 0xe8], // verw
        &[0x63, 0xc0],       // arpl
    ];
    for code in cases {
        let (mut st, mut env) = machine();
        set_real(&mut st);
        faults(&mut st, &mut env, code, Fault::ud());
        let (mut st, mut env) = machine();
        set_v86(&mut st);
        faults(&mut st, &mut env, code, Fault::ud());
    }
}

#[test]
fn halt_moves_past_itself_and_undefined_opcodes_fault() {
    let (mut st, mut env) = machine();
    let rip = st.rip;
    assert_eq!(run(&mut st, &mut env, &[0xf4]), Ok(Flow::Halt));
    assert_eq!((st.rip, st.halted), (rip + 1, 1));
    for code in [
        &[0x0f, 0x0b][..],
        &[0x0f, 0xb9, 0xc0],
        &[0x0f, 0xff, 0xc0],
        &[0x0f, 0x01, 0xc8],
        &[0x0f, 0x01, 0xc9],
    ] {
        faults(&mut st, &mut env, code, Fault::ud());
    }
    assert_eq!(run(&mut st, &mut env, &[0x01, 0xc0]), Ok(Flow::Unsupported)); // add: always inline
}

#[test]
fn software_interrupts_name_vector_kind_and_return_address() {
    let (mut st, mut env) = machine();
    let event = |vector, len: u32, kind| {
        Ok(Flow::SoftInterrupt(Event::Software {
            vector,
            next_eip: 0x1_0000 + len,
            kind,
        }))
    };
    assert_eq!(
        run(&mut st, &mut env, &[0xcd, 0x80]),
        event(0x80, 2, SoftwareKind::IntN)
    );
    assert_eq!(
        run(&mut st, &mut env, &[0xcd, 0x03]),
        event(3, 2, SoftwareKind::IntN)
    );
    assert_eq!(
        run(&mut st, &mut env, &[0xcc]),
        event(3, 1, SoftwareKind::Int3)
    );
    assert_eq!(
        run(&mut st, &mut env, &[0xf1]),
        event(1, 1, SoftwareKind::Icebp)
    );
    assert_eq!(run(&mut st, &mut env, &[0xce]), Ok(Flow::Next));
    st.arith_flags = u64::from(eflags::OF);
    assert_eq!(
        run(&mut st, &mut env, &[0xce]),
        event(4, 1, SoftwareKind::Into)
    );
}

#[test]
fn segment_registers_move_with_shadow_zero_extension_and_checks() {
    let (mut st, mut env) = machine();
    st.set_reg32(gpr::AX, 0xffff_0000 | u32::from(DATA0));
    assert_eq!(run(&mut st, &mut env, &[0x8e, 0xe0]), Ok(Flow::Next)); // mov fs, eax
    assert_eq!(
        (st.segment(SegReg::Fs).selector, st.interrupt_shadow),
        (DATA0, 0)
    );
    assert_eq!(run(&mut st, &mut env, &[0x8e, 0xd0]), Ok(Flow::Next)); // mov ss, eax
    assert_eq!(st.interrupt_shadow, 2);
    st.set_reg32(gpr::CX, 0xffff_ffff);
    assert_eq!(run(&mut st, &mut env, &[0x8c, 0xc9]), Ok(Flow::Next)); // mov ecx, cs
    assert_eq!(st.reg32(gpr::CX), u32::from(CODE0));
    st.set_reg32(gpr::CX, 0xffff_ffff);
    assert_eq!(run(&mut st, &mut env, &[0x66, 0x8c, 0xc9]), Ok(Flow::Next)); // mov cx, cs
    assert_eq!(st.reg32(gpr::CX), 0xffff_0000 | u32::from(CODE0));
    env.put32(0x5000, 0xffff_ffff);
    assert_eq!(
        run(&mut st, &mut env, &[0x8c, 0x0d, 0, 0x50, 0, 0]),
        Ok(Flow::Next)
    ); // mov [5000h], cs
    assert_eq!(env.get32(0x5000), 0xffff_0000 | u32::from(CODE0));
    faults(&mut st, &mut env, &[0x8e, 0xc8], Fault::ud()); // mov cs, eax
    st.set_reg32(gpr::AX, 0xf8); // beyond the descriptors in use: null descriptor, not a segment
    faults(&mut st, &mut env, &[0x8e, 0xd8], Fault::gp(0xf8));
}

#[test]
fn push_and_pop_of_segments_use_the_operand_size() {
    let (mut st, mut env) = machine();
    assert_eq!(run(&mut st, &mut env, &[0x0e]), Ok(Flow::Next)); // push cs
    assert_eq!(
        (st.reg32(gpr::SP), env.get32(0x7ffc)),
        (0x7ffc, u32::from(CODE0))
    );
    assert_eq!(run(&mut st, &mut env, &[0x66, 0x1e]), Ok(Flow::Next)); // push ds, 16-bit
    assert_eq!((st.reg32(gpr::SP), env.get16(0x7ffa)), (0x7ffa, DATA0));
    assert_eq!(run(&mut st, &mut env, &[0x66, 0x17]), Ok(Flow::Next)); // pop ss, 16-bit
    assert_eq!((st.reg32(gpr::SP), st.interrupt_shadow), (0x7ffc, 2));
    env.put32(0x7ffc, 0);
    faults(&mut st, &mut env, &[0x17], Fault::gp(0)); // pop ss, null selector
    assert_eq!(run(&mut st, &mut env, &[0x07]), Ok(Flow::Next)); // pop es, null selector
    assert!(!st.segment(SegReg::Es).usable);
    assert_eq!(st.reg32(gpr::SP), 0x8000);
}

#[test]
fn far_pointers_load_selector_and_offset_or_nothing() {
    let (mut st, mut env) = machine();
    env.put32(0x5000, 0x1234_5678);
    env.put16(0x5004, DATA0);
    env.put16(0x5012, 0xf8);
    assert_eq!(
        run(&mut st, &mut env, &[0x0f, 0xb2, 0x05, 0, 0x50, 0, 0]),
        Ok(Flow::Next)
    ); // lss
    assert_eq!((st.reg32(gpr::AX), st.interrupt_shadow), (0x1234_5678, 0));
    st.set_reg32(gpr::AX, 0xffff_ffff);
    faults(
        &mut st,
        &mut env,
        &[0x66, 0xc4, 0x05, 0x10, 0x50, 0, 0],
        Fault::gp(0xf8),
    ); // les ax
    env.put16(0x5010, 0xabcd);
    env.put16(0x5012, DATA0);
    assert_eq!(
        run(&mut st, &mut env, &[0x66, 0xc4, 0x05, 0x10, 0x50, 0, 0]),
        Ok(Flow::Next)
    );
    assert_eq!(st.reg32(gpr::AX), 0xffff_abcd);
}

#[test]
fn far_jumps_calls_and_returns_go_through_descriptors() {
    let (mut st, mut env) = machine();
    let jump = [0xea, 0x00, 0x20, 0, 0, CODE0 as u8, 0];
    assert_eq!(run(&mut st, &mut env, &jump), Ok(Flow::Jump));
    assert_eq!(st.rip, 0x2000);
    env.put32(0x5000, 0x3000);
    env.put16(0x5004, CODE0);
    assert_eq!(
        run(&mut st, &mut env, &[0xff, 0x1d, 0, 0x50, 0, 0]),
        Ok(Flow::Jump)
    ); // call far [5000h]
    assert_eq!(
        (st.rip, env.dwords::<2>(0x7ff8)),
        (0x3000, [0x2006, u32::from(CODE0)])
    );
    assert_eq!(run(&mut st, &mut env, &[0xca, 8, 0]), Ok(Flow::Jump)); // retf 8
    assert_eq!((st.rip, st.reg32(gpr::SP)), (0x2006, 0x8008));
    faults(
        &mut st,
        &mut env,
        &[0xea, 0, 0, 0, 0, DATA3 as u8, 0],
        Fault::gp(0x20),
    );
}

#[test]
fn near_transfers_check_the_code_limit_before_changing_anything() {
    let (mut st, mut env) = machine();
    env.gdt(0x30, segment(0, 0x1_00ff, 0x409b)); // 32-bit code that ends at 100FFH
    assert_eq!(
        run(&mut st, &mut env, &[0xea, 0, 0, 1, 0, 0x30, 0]),
        Ok(Flow::Jump)
    );
    faults(&mut st, &mut env, &[0xe8, 0xfb, 0, 0, 0], Fault::gp(0)); // call 10100h
    faults(&mut st, &mut env, &[0xe9, 0xfb, 0, 0, 0], Fault::gp(0)); // jmp 10100h
    env.put32(0x8000, 0x1_0100);
    faults(&mut st, &mut env, &[0xc3], Fault::gp(0)); // ret to 10100h
    st.rip = 0x1_00f0;
    st.set_reg32(gpr::CX, 2);
    faults(&mut st, &mut env, &[0xe2, 0x7f], Fault::gp(0)); // loop 10171h: ECX stays
    st.set_reg32(gpr::CX, 1);
    assert_eq!(run(&mut st, &mut env, &[0xe2, 0x7f]), Ok(Flow::Next)); // not taken: no check
    assert_eq!(st.reg32(gpr::CX), 0);
    faults(&mut st, &mut env, &[0xe3, 0x7f], Fault::gp(0)); // jecxz, taken
    assert_eq!(
        run(&mut st, &mut env, &[0xe8, 0xfb, 0xff, 0xff, 0xff]),
        Ok(Flow::Jump)
    ); // call self
    assert_eq!((st.rip, env.get32(0x7ffc)), (0x1_00f0, 0x1_00f5));
    assert_eq!(run(&mut st, &mut env, &[0xc2, 4, 0]), Ok(Flow::Jump)); // ret 4
    assert_eq!((st.rip, st.reg32(gpr::SP)), (0x1_00f5, 0x8004));
    // 16-bit operand size truncates the target.
    st.set_reg32(gpr::BX, 0x0001_0020);
    assert_eq!(run(&mut st, &mut env, &[0x66, 0xff, 0xe3]), Ok(Flow::Jump)); // jmp bx
    assert_eq!(st.rip, 0x20);
}

#[test]
fn conditional_jumps_follow_every_condition() {
    use eflags::{CF, OF, PF, SF, ZF};
    // For each pair of conditions, flags under which the even one holds and does not.
    let cases: [(u32, u32); 8] = [
        (OF, 0),
        (CF, 0),
        (ZF, 0),
        (CF, SF),
        (SF, 0),
        (PF, 0),
        (OF, OF | SF),
        (SF, OF | SF),
    ];
    for (n, (holds, fails)) in cases.into_iter().enumerate() {
        for (flags, even_taken) in [(holds, true), (fails, false)] {
            for odd in [false, true] {
                let (mut st, mut env) = machine();
                st.arith_flags = u64::from(flags);
                let opcode = 0x70 + 2 * n as u8 + u8::from(odd);
                let expected = if even_taken != odd {
                    Flow::Jump
                } else {
                    Flow::Next
                };
                assert_eq!(
                    run(&mut st, &mut env, &[opcode, 0x10]),
                    Ok(expected),
                    "{opcode:02x} {flags:x}"
                );
                if expected == Flow::Jump {
                    assert_eq!(st.rip, 0x1_0012);
                }
            }
        }
    }
}

#[test]
fn sixteen_bit_loops_count_in_cx_only() {
    let (mut st, mut env) = machine();
    set_real(&mut st);
    st.rip = 0x100;
    st.set_reg32(gpr::CX, 0x0001_0000);
    assert_eq!(run(&mut st, &mut env, &[0xe3, 0x10]), Ok(Flow::Jump)); // jcxz
    assert_eq!(st.rip, 0x112);
    assert_eq!(run(&mut st, &mut env, &[0xe2, 0xfe]), Ok(Flow::Jump)); // loop
    assert_eq!(st.reg32(gpr::CX), 0x0001_ffff);
    st.arith_flags = u64::from(eflags::ZF);
    assert_eq!(run(&mut st, &mut env, &[0xe0, 0xfe]), Ok(Flow::Next)); // loopne with ZF
    assert_eq!(run(&mut st, &mut env, &[0xe1, 0xfe]), Ok(Flow::Jump)); // loope with ZF
}

#[test]
fn interrupts_of_timers_that_have_expired_come_before_tsc_is_read() {
    let (mut st, mut env) = machine();
    (env.tsc, env.timers_overdue) = (0x1_0000_0002, true);
    st.if_flag = 1;
    let before = registers(&st);
    assert_eq!(run(&mut st, &mut env, &[0x0f, 0x31]), Ok(Flow::Repeat));
    assert_eq!(registers(&st), before);
    assert_eq!(run(&mut st, &mut env, &[0x0f, 0x31]), Ok(Flow::Next));
    assert_eq!((st.reg32(gpr::DX), st.reg32(gpr::AX)), (1, 2));
    // Nothing can be delivered, so nothing waits for it.
    for closed in [
        |st: &mut StateBox| st.if_flag = 0,
        |st: &mut StateBox| st.interrupt_shadow = 1,
    ] {
        let (mut st, mut env) = machine();
        env.timers_overdue = true;
        st.if_flag = 1;
        closed(&mut st);
        assert_eq!(run(&mut st, &mut env, &[0x0f, 0x31]), Ok(Flow::Next));
    }
}
