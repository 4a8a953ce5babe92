//! Tests of event delivery: frames, checks, and the double-fault rules.

use super::*;
use crate::cpu::testenv::{
    CODE0, CODE3, DATA0, DATA3, FlatEnv, KERNEL_ESP, TSS, TSS_BASE, gate, machine, registers,
    segment, set_real, set_ring, set_v86,
};
use ring3_translator::state::{TableReg, cr0, dr7};
use ring3_translator::state_box::StateBox;

const HANDLER: u32 = 0x1_2000;
const DF_HANDLER: u32 = 0x1_3000;

/// A ring 3 program with every vector's gate set to a 32-bit interrupt gate of DPL 0.
fn user() -> (StateBox, FlatEnv) {
    let (mut st, mut env) = machine();
    set_ring(&mut st, 3);
    st.set_eflags(eflags::IF | eflags::CF);
    for vector in 0..=255 {
        env.idt(vector, gate(CODE0, HANDLER + u32::from(vector), 0x8e));
    }
    env.idt(8, gate(CODE0, DF_HANDLER, 0x8e));
    env.idt(0x80, gate(CODE0, HANDLER + 0x80, 0xef));
    (st, env)
}

fn int_n(vector: u8) -> Event {
    Event::Software {
        vector,
        next_eip: 0x1_0002,
        kind: SoftwareKind::IntN,
    }
}

#[test]
fn interrupt_from_ring_3_switches_stacks() {
    let (mut st, mut env) = user();
    let (reads, writes) = (env.reads, env.writes);
    assert_eq!(
        deliver(&mut st, &mut env, Event::External(0x20)),
        Delivery::Done
    );
    assert_eq!(
        (env.reads - reads, env.writes - writes),
        (4, 1),
        "memory accesses of the hot path"
    );
    assert_eq!((st.eip(), st.cpl, st.eflags()), (HANDLER + 0x20, 0, 3));
    assert_eq!(
        (
            st.segment(SegReg::Cs).selector,
            st.segment(SegReg::Ss).selector
        ),
        (CODE0, DATA0)
    );
    assert_eq!(st.reg32(gpr::SP), KERNEL_ESP - 20);
    let frame = env.dwords::<5>(KERNEL_ESP - 20);
    assert_eq!(
        frame,
        [0x1_0000, u32::from(CODE3), 0x203, 0x8000, u32::from(DATA3)]
    );
    assert_eq!(st.segment(SegReg::Ds).selector, DATA3, "data segments stay");
}

#[test]
fn trap_gate_keeps_interrupts_enabled() {
    let (mut st, mut env) = user();
    st.sys_flags |= eflags::TF | eflags::NT | eflags::RF;
    assert_eq!(deliver(&mut st, &mut env, int_n(0x80)), Delivery::Done);
    assert_eq!(st.eflags(), eflags::IF | eflags::CF | eflags::FIXED);
    let frame = env.dwords::<5>(KERNEL_ESP - 20);
    assert_eq!(
        (frame[0], frame[2]),
        (0x1_0002, 0x203 | eflags::TF | eflags::NT)
    );
}

#[test]
fn faults_push_error_code_and_rf() {
    let (mut st, mut env) = user();
    assert_eq!(
        deliver(
            &mut st,
            &mut env,
            Event::Exception(Fault::page(0xdead_b000, 6))
        ),
        Delivery::Done
    );
    assert_eq!((st.cr2, st.eip()), (0xdead_b000, HANDLER + 14));
    let frame = env.dwords::<6>(KERNEL_ESP - 24);
    assert_eq!(
        frame,
        [
            6,
            0x1_0000,
            u32::from(CODE3),
            0x203 | eflags::RF,
            0x8000,
            u32::from(DATA3)
        ]
    );
}

#[test]
fn same_privilege_uses_the_current_stack() {
    let (mut st, mut env) = user();
    set_ring(&mut st, 0);
    assert_eq!(
        deliver(&mut st, &mut env, Event::Exception(Fault::gp(0x18))),
        Delivery::Done
    );
    assert_eq!(
        env.dwords::<4>(0x8000 - 16),
        [0x18, 0x1_0000, u32::from(CODE0), 0x203 | eflags::RF]
    );
    assert_eq!((st.reg32(gpr::SP), st.cpl), (0x8000 - 16, 0));
}

#[test]
fn sixteen_bit_gate_pushes_words() {
    let (mut st, mut env) = user();
    env.idt(0x21, gate(CODE0, 0x5_1234, 0x86));
    assert_eq!(
        deliver(&mut st, &mut env, Event::External(0x21)),
        Delivery::Done
    );
    assert_eq!((st.eip(), st.reg32(gpr::SP)), (0x1234, KERNEL_ESP - 10));
    assert_eq!(
        env.words::<5>(KERNEL_ESP - 10),
        [0, CODE3, 0x203, 0x8000, DATA3]
    );
}

#[test]
fn software_interrupts_check_the_gate() {
    // (event, expected vector, error code pushed)
    let of = |vector, kind| Event::Software {
        vector,
        next_eip: 0x1_0001,
        kind,
    };
    let cases = [
        (int_n(0x20), 13, Some(0x20 * 8 + 2)),
        (of(3, SoftwareKind::Int3), 13, Some(3 * 8 + 2)),
        (of(4, SoftwareKind::Into), 13, Some(4 * 8 + 2)),
        (of(1, SoftwareKind::Icebp), 1, None),
        (int_n(0x80), 0x80, None),
    ];
    for (event, vector, error) in cases {
        let (mut st, mut env) = user();
        assert_eq!(deliver(&mut st, &mut env, event), Delivery::Done);
        assert_eq!(st.eip(), HANDLER + vector, "{event:?}");
        if let Some(error) = error {
            let frame = env.dwords::<2>(KERNEL_ESP - 24);
            assert_eq!(
                frame,
                [error, 0x1_0000],
                "the fault is the instruction's: {event:?}"
            );
        }
    }
}

/// The vector that arrives and its error code when `External(0x20)` meets a broken set-up.
#[test]
fn broken_tables_raise_the_manuals_faults() {
    type Setup = fn(&mut StateBox, &mut FlatEnv);
    let idt = 0x20 * 8 + 2;
    let cases: [(&str, Setup, u32, u32); 15] = [
        ("IDT limit", |st, _| st.idtr.limit = 0x106, 13, idt | 1),
        (
            "not a gate",
            |_, env| env.idt(0x20, segment(0, 0, 0x93)),
            13,
            idt | 1,
        ),
        (
            "call gate",
            |_, env| env.idt(0x20, gate(CODE0, 0, 0x8c)),
            13,
            idt | 1,
        ),
        (
            "gate not present",
            |_, env| env.idt(0x20, gate(CODE0, 0, 0x0e)),
            11,
            idt | 1,
        ),
        ("null code", |_, env| env.idt(0x20, gate(0, 0, 0x8e)), 13, 1),
        (
            "code outside GDT",
            |_, env| env.idt(0x20, gate(0x200, 0, 0x8e)),
            13,
            0x201,
        ),
        (
            "data as code",
            |_, env| env.idt(0x20, gate(DATA0, 0, 0x8e)),
            13,
            u32::from(DATA0) | 1,
        ),
        (
            "code not present",
            |_, env| {
                env.gdt(0x40, segment(0, 0xf_ffff, 0xc01b));
                env.idt(0x20, gate(0x40, 0, 0x8e));
            },
            11,
            0x41,
        ),
        (
            "EIP beyond limit",
            |_, env| {
                env.gdt(0x40, segment(0, 0xff, 0x409b));
                env.idt(0x20, gate(0x40, 0x100, 0x8e));
            },
            13,
            1,
        ),
        // The inner stack is bad for ring 1 only, so that the fault's own delivery succeeds.
        ("ring 1 null stack", |_, env| ring1(env, 0, 0xc0b3), 10, 1),
        (
            "ring 1 stack RPL",
            |_, env| ring1(env, 0x48, 0xc0b3),
            10,
            0x49,
        ),
        (
            "ring 1 stack DPL",
            |_, env| ring1(env, 0x49, 0xc093),
            10,
            0x49,
        ),
        (
            "ring 1 stack read-only",
            |_, env| ring1(env, 0x49, 0xc0b1),
            10,
            0x49,
        ),
        (
            "ring 1 stack not present",
            |_, env| ring1(env, 0x49, 0xc033),
            12,
            0x49,
        ),
        (
            "ring 1 stack too small",
            |_, env| {
                ring1(env, 0x49, 0xc0b3);
                env.gdt(0x48, segment(0, 0xff, 0x40b3));
            },
            12,
            0x49,
        ),
    ];
    for (name, setup, vector, error) in cases {
        let (mut st, mut env) = user();
        setup(&mut st, &mut env);
        assert_eq!(
            deliver(&mut st, &mut env, Event::External(0x20)),
            Delivery::Done,
            "{name}"
        );
        assert_eq!(st.eip(), HANDLER + vector, "{name}");
        assert_eq!(env.get32(u64::from(KERNEL_ESP) - 24), error, "{name}");
    }
}

/// Routes vector 0x20 to ring 1 with the given stack selector and the rights of GDT entry 0x48.
fn ring1(env: &mut FlatEnv, stack: u16, attr: u16) {
    env.gdt(0x40, segment(0, 0xf_ffff, 0xc0bb));
    env.gdt(0x48, segment(0, 0xf_ffff, attr));
    env.idt(0x20, gate(0x41, HANDLER + 0x20, 0x8e));
    env.put32(TSS_BASE + 12, 0xa000);
    env.put16(TSS_BASE + 16, stack);
}

#[test]
fn ring_1_handler_gets_its_own_stack() {
    let (mut st, mut env) = user();
    ring1(&mut env, 0x49, 0xc0b3);
    assert_eq!(
        deliver(&mut st, &mut env, Event::External(0x20)),
        Delivery::Done
    );
    assert_eq!(
        (st.cpl, st.segment(SegReg::Cs).selector, st.reg32(gpr::SP)),
        (1, 0x41, 0xa000 - 20)
    );
}

#[test]
fn tss_limit_cuts_off_the_stack() {
    let (mut st, mut env) = user();
    ring1(&mut env, 0x49, 0xc0b3);
    st.tr.limit = 0x10;
    assert_eq!(
        deliver(&mut st, &mut env, Event::External(0x20)),
        Delivery::Done
    );
    assert_eq!(
        (st.eip(), env.get32(u64::from(KERNEL_ESP) - 24)),
        (HANDLER + 10, u32::from(TSS) | 1)
    );
}

#[test]
fn double_faults_and_shutdown() {
    // (first event, broken vectors, vector that arrives; None: shutdown)
    let pf = Event::Exception(Fault::page(0x1000, 0));
    let gp = Event::Exception(Fault::gp(0));
    let ud = Event::Exception(Fault::ud());
    let cases: [(Event, &[u8], Option<u32>); 8] = [
        (pf, &[14], Some(8)),
        (gp, &[13], Some(8)),
        (ud, &[6], Some(13)),
        (ud, &[6, 13], Some(8)),
        (Event::External(0x30), &[0x30], Some(13)),
        (Event::Nmi, &[2, 13], Some(8)),
        (gp, &[13, 8], None),
        (pf, &[14, 8], None),
    ];
    for (event, broken, expected) in cases {
        let (mut st, mut env) = user();
        for &vector in broken {
            env.idt(vector, 0);
        }
        let before = registers(&st);
        let delivery = deliver(&mut st, &mut env, event);
        match expected {
            None => {
                assert_eq!(delivery, Delivery::Shutdown, "{event:?}");
                let mut after = registers(&st);
                after.forget_cr2(&before);
                assert_eq!(after, before);
            }
            Some(8) => {
                assert_eq!(
                    (delivery, st.eip()),
                    (Delivery::Done, DF_HANDLER),
                    "{event:?}"
                );
                assert_eq!(env.dwords::<2>(KERNEL_ESP - 24), [0, 0x1_0000]);
                assert_eq!(
                    env.get32(u64::from(KERNEL_ESP) - 12) & eflags::RF,
                    0,
                    "#DF is an abort"
                );
            }
            Some(vector) => assert_eq!(
                (delivery, st.eip()),
                (Delivery::Done, HANDLER + vector),
                "{event:?}"
            ),
        }
    }
}

#[test]
fn page_fault_on_the_new_stack_doubles_with_the_second_address() {
    let (mut st, mut env) = user();
    env.read_only_pages.push(u64::from(KERNEL_ESP) - 0x1000);
    // #DF has its own stack by a task gate in real systems; here ring 1 serves it.
    ring1(&mut env, 0x49, 0xc0b3);
    env.idt(8, gate(0x41, DF_HANDLER, 0x8e));
    assert_eq!(
        deliver(&mut st, &mut env, Event::Exception(Fault::page(0x1234, 4))),
        Delivery::Done
    );
    // SS is pushed first.
    assert_eq!((st.eip(), st.cr2), (DF_HANDLER, u64::from(KERNEL_ESP) - 4));
}

#[test]
fn from_v86_mode_to_ring_0() {
    let (mut st, mut env) = user();
    set_v86(&mut st);
    for (n, reg) in SegReg::ALL.into_iter().enumerate() {
        st.set_segment(reg, crate::cpu::segment::v86_segment(0x1000 + n as u16));
    }
    st.rip = 0x100;
    assert_eq!(
        deliver(&mut st, &mut env, Event::Exception(Fault::gp(0))),
        Delivery::Done
    );
    assert_eq!(
        (st.cpl, st.v86(), st.reg32(gpr::SP)),
        (0, false, KERNEL_ESP - 40)
    );
    let flags = 0x203 | eflags::VM | eflags::RF;
    let frame = env.dwords::<10>(KERNEL_ESP - 40);
    assert_eq!(
        frame,
        [
            0, 0x100, 0x1001, flags, 0x8000, 0x1002, 0x1000, 0x1003, 0x1004, 0x1005
        ]
    );
    for reg in [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs] {
        assert!(!st.segment(reg).usable);
    }
    assert_eq!(st.segment(SegReg::Cs).base, 0);
}

#[test]
fn v86_needs_a_ring_0_nonconforming_handler() {
    let (mut st, mut env) = user();
    set_v86(&mut st);
    env.gdt(0x40, segment(0, 0xf_ffff, 0xc09f));
    env.idt(0x20, gate(0x40, HANDLER, 0x8e));
    assert_eq!(
        deliver(&mut st, &mut env, Event::External(0x20)),
        Delivery::Done
    );
    assert_eq!(
        (st.eip(), env.get32(u64::from(KERNEL_ESP) - 40)),
        (HANDLER + 13, 0x41)
    );
}

#[test]
fn v86_int_n_by_iopl_and_vme() {
    // (IOPL, VME, redirection bit, arrives in: Some(protected vector) or None for the 8086 handler)
    let cases = [
        (3, false, false, Some(0x80)),
        (0, false, false, Some(13)),
        (0, true, true, Some(13)),
        (3, true, true, Some(0x80)),
        (0, true, false, None),
        (3, true, false, None),
    ];
    for (iopl, vme, redirected, expected) in cases {
        let (mut st, mut env) = user();
        set_v86(&mut st);
        st.sys_flags |= iopl << 12 | eflags::VIF;
        st.cr4 = u64::from(vme);
        st.rip = 0x200;
        // The bitmap's 32 bytes end where the I/O map (0x88) starts.
        env.put(TSS_BASE + 0x88 - 32 + 16, &[u8::from(redirected)]);
        env.put32(0x80 * 4, 0x0060_1234);
        let event = Event::Software {
            vector: 0x80,
            next_eip: 0x202,
            kind: SoftwareKind::IntN,
        };
        assert_eq!(deliver(&mut st, &mut env, event), Delivery::Done);
        let name = format!("IOPL {iopl} VME {vme} bit {redirected}");
        if let Some(vector) = expected {
            assert_eq!((st.eip(), st.cpl), (HANDLER + vector, 0), "{name}");
            continue;
        }
        assert_eq!(
            (st.eip(), st.segment(SegReg::Cs).base, st.v86()),
            (0x1234, 0x600, true),
            "{name}"
        );
        assert_eq!(
            env.words::<3>(0x7ffa),
            [0x202, 0, 0x3203],
            "IOPL 3 and the (virtual) IF are shown: {name}"
        );
        let virtual_if = iopl < 3;
        assert_eq!(
            (st.if_flag == 1, st.eflags() & eflags::VIF != 0),
            (virtual_if, !virtual_if),
            "{name}"
        );
    }
}

#[test]
fn real_mode_uses_the_vector_table() {
    let (mut st, mut env) = machine();
    set_real(&mut st);
    st.set_eflags(eflags::IF | eflags::TF | eflags::AC | eflags::ZF);
    st.set_segment(SegReg::Ss, Segment::real(0x100));
    st.set_segment(SegReg::Cs, Segment::real(0x1000));
    st.gpr[gpr::SP] = 0x5555_0100;
    st.rip = 0x42;
    env.put32(0x10 * 4, 0xf000_e05b);
    assert_eq!(
        deliver(&mut st, &mut env, Event::External(0x10)),
        Delivery::Done
    );
    assert_eq!(
        (
            st.eip(),
            st.segment(SegReg::Cs).base,
            st.segment(SegReg::Cs).selector
        ),
        (0xe05b, 0xf_0000, 0xf000)
    );
    assert_eq!(st.reg32(gpr::SP), 0x5555_00fa, "only SP moves");
    assert_eq!(env.words::<3>(0x1000 + 0xfa), [0x42, 0x1000, 0x342]);
    assert_eq!(st.eflags(), eflags::ZF | eflags::FIXED);
}

#[test]
fn real_mode_frames_wrap_at_the_stack_top() {
    let (mut st, mut env) = machine();
    set_real(&mut st);
    st.rip = 0x42;
    st.set_reg32(gpr::SP, 4);
    env.put32(0, 0x0000_1234);
    assert_eq!(
        deliver(
            &mut st,
            &mut env,
            Event::Exception(Fault::plain(Vector::De))
        ),
        Delivery::Done
    );
    assert_eq!((st.reg32(gpr::SP), env.get16(0xfffe)), (0xfffe, 0x42));
}

#[test]
fn real_mode_without_a_table_shuts_down() {
    let (mut st, mut env) = machine();
    set_real(&mut st);
    st.idtr = TableReg { base: 0, limit: 0 };
    let before = registers(&st);
    assert_eq!(
        deliver(&mut st, &mut env, Event::Exception(Fault::ud())),
        Delivery::Shutdown
    );
    assert_eq!(registers(&st), before);
}

#[test]
fn debug_exceptions_clear_general_detect() {
    let (mut st, mut env) = user();
    st.dr[7] |= dr7::GD;
    assert_eq!(
        deliver(
            &mut st,
            &mut env,
            Event::Exception(Fault::plain(Vector::Db))
        ),
        Delivery::Done
    );
    assert_eq!(st.dr[7] & dr7::GD, 0);
    assert_eq!(
        env.get32(u64::from(KERNEL_ESP) - 12) & eflags::RF,
        0,
        "#DB keeps RF as it was"
    );
}

#[test]
fn delivery_wakes_a_halted_processor() {
    let (mut st, mut env) = user();
    (st.halted, st.interrupt_shadow) = (1, 1);
    assert_eq!(deliver(&mut st, &mut env, Event::Nmi), Delivery::Done);
    assert_eq!(
        (st.halted, st.interrupt_shadow, st.eip()),
        (0, 0, HANDLER + 2)
    );
}

#[test]
fn task_gate_runs_the_event_in_another_task() {
    let (mut st, mut env) = user();
    env.gdt(0x40, segment(0x3_0000, 0x67, 0x89));
    env.idt(14, gate(0x40, 0, 0x85));
    let tss = 0x3_0000;
    env.put32(tss + 0x20, DF_HANDLER);
    env.put32(tss + 0x38, 0xb000);
    for (n, selector) in [DATA0, CODE0, DATA0, DATA0, 0, 0].into_iter().enumerate() {
        env.put16(tss + 0x48 + 4 * n as u64, selector);
    }
    assert_eq!(
        deliver(&mut st, &mut env, Event::Exception(Fault::page(0x77, 2))),
        Delivery::Done
    );
    assert_eq!(
        (st.eip(), st.cpl, st.reg32(gpr::SP), st.tr.selector),
        (DF_HANDLER, 0, 0xb000 - 4, 0x40)
    );
    assert_eq!(
        (env.get32(0xb000 - 4), env.get16(tss)),
        (2, TSS),
        "error code and back link"
    );
    assert_eq!(st.eflags(), eflags::NT | eflags::FIXED);
    assert_eq!(st.cr0 & cr0::TS, cr0::TS);
    let saved = (
        env.get32(TSS_BASE + 0x20),
        env.get32(TSS_BASE + 0x24),
        env.get16(TSS_BASE + 0x4c),
    );
    assert_eq!(saved, (0x1_0000, 0x203 | eflags::RF, CODE3));
}
