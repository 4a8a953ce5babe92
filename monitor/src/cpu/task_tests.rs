//! Tests of task switches and of the TSS's I/O map.

use super::*;
use crate::cpu::testenv::{
    CODE0, CODE3, DATA0, DATA3, FlatEnv, GDT_BASE, TSS, TSS_BASE, machine, registers, segment,
    set_ring, set_v86,
};
use ring3_translator::state_box::StateBox;

const NEW: u16 = 0x40;
const NEW_BASE: u64 = 0x3_0000;
const EIP: u32 = 0x1_5000;

/// A ring 0 task 0x40 that is ready to run in ring 3.
fn two_tasks() -> (StateBox, FlatEnv, Descriptor) {
    let (mut st, mut env) = machine();
    let raw = segment(NEW_BASE as u32, 0x67, 0x89);
    env.gdt(NEW, raw);
    env.put32(NEW_BASE + 0x1c, 0x7000);
    env.put32(NEW_BASE + 0x20, EIP);
    env.put32(NEW_BASE + 0x24, eflags::IF | eflags::ZF);
    for n in 0..8 {
        env.put32(NEW_BASE + 0x28 + 4 * n, 0x1111_0000 + n as u32);
    }
    for (n, selector) in [DATA3, CODE3, DATA3, DATA3, 0, DATA3]
        .into_iter()
        .enumerate()
    {
        env.put16(NEW_BASE + 0x48 + 4 * n as u64, selector);
    }
    st.set_eflags(eflags::CF);
    for n in 0..8 {
        st.set_reg32(n, 0x2222_0000 + n as u32);
    }
    (st, env, Descriptor(raw))
}

#[test]
fn call_saves_links_and_loads() {
    let (mut st, mut env, d) = two_tasks();
    st.dr[7] = 0x7ff;
    task_switch(&mut st, &mut env, NEW, d, SwitchReason::Call, 0x1_0007).unwrap();
    assert_eq!(
        (st.eip(), st.cpl, st.eflags()),
        (EIP, 3, 0x242 | eflags::NT)
    );
    assert_eq!(st.reg32(gpr::DI), 0x1111_0007);
    let selectors = SegReg::ALL.map(|reg| st.segment(reg).selector);
    assert_eq!(selectors, [DATA3, CODE3, DATA3, DATA3, 0, DATA3]);
    assert!(!st.segment(SegReg::Fs).usable);
    assert_eq!(
        (st.cr0 & cr0::TS, st.dr[7], st.cr3),
        (cr0::TS, 0x6aa, 0),
        "no paging: CR3 stays"
    );
    assert_eq!(
        (st.tr.selector, st.tr.base, st.tr.attr.kind()),
        (NEW, NEW_BASE, 11)
    );
    // The old task stays busy; its state is saved; the new one links back to it.
    let busy = |env: &FlatEnv, s: u16| env.get64(GDT_BASE + u64::from(s)) >> 41 & 1;
    assert_eq!(
        (busy(&env, TSS), busy(&env, NEW), env.get16(NEW_BASE)),
        (1, 1, TSS)
    );
    let saved = env.dwords::<16>(TSS_BASE as u32 + 0x20);
    assert_eq!(saved[..3], [0x1_0007, 3, 0x2222_0000]);
    assert_eq!(
        saved[10..],
        [DATA0, CODE0, DATA0, DATA0, DATA0, DATA0].map(u32::from)
    );
}

#[test]
fn jump_and_iret_free_the_old_task() {
    for (reason, attr) in [(SwitchReason::Jump, 0x89), (SwitchReason::Iret, 0x8b)] {
        let (mut st, mut env, _) = two_tasks();
        let raw = segment(NEW_BASE as u32, 0x67, attr);
        env.gdt(NEW, raw);
        st.sys_flags |= eflags::NT;
        task_switch(&mut st, &mut env, NEW, Descriptor(raw), reason, 0x1_0007).unwrap();
        assert_eq!(
            env.get64(GDT_BASE + u64::from(TSS)) >> 41 & 1,
            0,
            "{reason:?}"
        );
        assert_eq!(
            env.get64(GDT_BASE + u64::from(NEW)) >> 41 & 1,
            1,
            "{reason:?}"
        );
        assert_eq!(
            (env.get16(NEW_BASE), st.eflags() & eflags::NT),
            (0, 0),
            "{reason:?}"
        );
        let saved_nt = env.get32(TSS_BASE + 0x24) & eflags::NT != 0;
        assert_eq!(saved_nt, reason == SwitchReason::Jump);
    }
}

#[test]
fn paging_loads_cr3_and_flushes() {
    let (mut st, mut env, d) = two_tasks();
    st.cr0 |= cr0::PG;
    st.cr4 |= cr4::PAE;
    env.pdptes = [0x8001, 0, 0, 0];
    task_switch(&mut st, &mut env, NEW, d, SwitchReason::Jump, 0).unwrap();
    assert_eq!((st.cr3, st.pdpte[0]), (0x7000, 0x8001));
    assert_eq!(env.flushes, [TlbFlush::NonGlobal]);
    let (mut st, mut env, d) = two_tasks();
    st.cr0 |= cr0::PG;
    st.cr4 |= cr4::PAE;
    env.pdptes = [0x8003, 0, 0, 0];
    assert_eq!(
        task_switch(&mut st, &mut env, NEW, d, SwitchReason::Jump, 0),
        Err(Fault::gp(0))
    );
    assert_eq!((st.cr3, st.eip()), (0, EIP), "the fault is the new task's");
}

#[test]
fn sixteen_bit_tasks() {
    let (mut st, mut env, _) = two_tasks();
    let raw = segment(NEW_BASE as u32, 0x2b, 0x81);
    env.gdt(NEW, raw);
    env.put(NEW_BASE, &[0; 0x68]);
    env.gdt(0x48, segment(0x2_0000, 0xffff, 0x0093));
    env.gdt(0x50, segment(0x2_0000, 0xffff, 0x009b));
    env.put16(NEW_BASE + 0x0e, 0x1234);
    env.put16(NEW_BASE + 0x10, 0x0202);
    env.put16(NEW_BASE + 0x12, 0xaaaa);
    for (n, selector) in [0x48u16, 0x50, 0x48, 0].into_iter().enumerate() {
        env.put16(NEW_BASE + 0x22 + 2 * n as u64, selector);
    }
    task_switch(
        &mut st,
        &mut env,
        NEW,
        Descriptor(raw),
        SwitchReason::Call,
        0x1_0007,
    )
    .unwrap();
    assert_eq!(
        (st.eip(), st.eflags(), st.reg16(gpr::AX)),
        (0x1234, 0x4202, 0xaaaa)
    );
    assert_eq!(
        (st.segment(SegReg::Cs).base, st.segment(SegReg::Gs).usable),
        (0x2_0000, false)
    );
    assert_eq!(stack_for_level(&mut st, &mut env, 0), Ok((0, 0)));
    // Back by IRET's kind of switch: words are saved, nothing beyond 16 bits.
    env.put32(NEW_BASE + 0x2c, 0x5555_5555);
    let old = Descriptor(env.get64(GDT_BASE + u64::from(TSS)));
    env.put32(TSS_BASE + 0x20, EIP);
    task_switch(&mut st, &mut env, TSS, old, SwitchReason::Iret, 0x1236).unwrap();
    assert_eq!(
        (
            env.words::<3>(NEW_BASE as u32 + 0x0e),
            env.get16(NEW_BASE + 0x24)
        ),
        ([0x1236, 0x202, 0xaaaa], 0x50)
    );
    assert_eq!(
        (env.get32(NEW_BASE + 0x2c), st.eip(), st.cpl),
        (0x5555_5555, EIP, 0)
    );
}

#[test]
fn faults_before_the_commit_point_change_nothing() {
    type Setup = fn(&mut StateBox, &mut FlatEnv);
    let cases: [(&str, Setup, Vector); 4] = [
        (
            "old TSS page",
            |_, env| env.read_only_pages.push(TSS_BASE),
            Vector::Pf,
        ),
        (
            "new TSS page",
            |_, env| env.fault_pages.push(NEW_BASE),
            Vector::Pf,
        ),
        (
            "GDT page",
            |_, env| env.read_only_pages.push(GDT_BASE),
            Vector::Pf,
        ),
        ("old TSS limit", |st, _| st.tr.limit = 0x5e, Vector::Ts),
    ];
    for (name, setup, vector) in cases {
        let (mut st, mut env, d) = two_tasks();
        setup(&mut st, &mut env);
        let (before, memory) = (registers(&st), env.memory.clone());
        let got = task_switch(&mut st, &mut env, NEW, d, SwitchReason::Call, 7).unwrap_err();
        assert_eq!(
            (got.vector, registers(&st) == before, env.memory == memory),
            (vector, true, true),
            "{name}"
        );
    }
    let (mut st, mut env, _) = two_tasks();
    let short = Descriptor(segment(NEW_BASE as u32, 0x66, 0x89));
    let got = task_switch(&mut st, &mut env, NEW, short, SwitchReason::Call, 7);
    assert_eq!(got, Err(Fault::with_error(Vector::Ts, NEW.into())));
}

#[test]
fn bad_segments_fault_in_the_new_task() {
    use Vector::{Gp, Np, Ss, Ts};
    // (register slot or 6 for the LDT, selector, vector, error)
    let cases = [
        (1usize, 0u16, Ts, 0u32),
        (1, 0x200, Ts, 0x200),
        (1, DATA3, Ts, DATA3.into()),
        (1, CODE0 | 3, Ts, CODE0.into()),
        (1, 0x5b, Np, 0x58),
        (2, 0, Ts, 0),
        (2, DATA0, Ts, DATA0.into()),
        (2, 0x63, Ss, 0x60),
        (3, DATA0, Ts, DATA0.into()),
        (5, 0x200, Ts, 0x200),
        (0, 0x63, Np, 0x60),
        (6, 0x200, Ts, 0x200),
        (6, DATA0, Ts, DATA0.into()),
        (6, 0x0c, Ts, 0x0c),
        (7, 0, Gp, 0),
    ];
    for (slot, selector, vector, error) in cases {
        let (mut st, mut env, d) = two_tasks();
        env.gdt(0x58, segment(0, 0xf_ffff, 0xc07b));
        env.gdt(0x60, segment(0, 0xf_ffff, 0xc073));
        match slot {
            7 => env.gdt(CODE3, segment(0, 0xff, 0x40fb)),
            _ => env.put16(NEW_BASE + 0x48 + 4 * slot as u64, selector),
        }
        let got = task_switch(&mut st, &mut env, NEW, d, SwitchReason::Jump, 7);
        let error = if slot == 7 { 0 } else { error & 0xfffc };
        assert_eq!(
            got,
            Err(Fault::with_error(vector, error)),
            "slot {slot} {selector:#x}"
        );
        assert_eq!((st.eip(), st.tr.selector), (EIP, NEW));
    }
}

#[test]
fn v86_task_and_debug_trap() {
    let (mut st, mut env, d) = two_tasks();
    env.put32(NEW_BASE + 0x24, eflags::VM);
    env.put32(NEW_BASE + 0x20, 0x100);
    env.put16(NEW_BASE + 0x64, 1);
    assert_eq!(
        task_switch(&mut st, &mut env, NEW, d, SwitchReason::Jump, 7),
        Err(Fault::plain(Vector::Db)),
        "the T flag traps after the switch"
    );
    assert_eq!(
        (st.eip(), st.cpl, st.v86(), st.dr[6] & dr6::BT),
        (0x100, 3, true, dr6::BT)
    );
    assert_eq!(st.segment(SegReg::Cs).base, u64::from(CODE3) << 4);
}

#[test]
fn io_map() {
    // (CPL, IOPL, V86, port, size, permitted): bits 0x61 and 0x3f0-0x3f7 are clear, all else set
    let cases = [
        (0, 0, false, 0x60, 1, true),
        (3, 3, false, 0x60, 1, true),
        (3, 0, false, 0x60, 1, false),
        (3, 0, false, 0x61, 1, true),
        (3, 0, false, 0x61, 2, false),
        (3, 0, false, 0x3f4, 4, true),
        (3, 0, false, 0x3f5, 4, false),
        (3, 0, false, 0x3ef, 2, false),
        (3, 3, true, 0x60, 1, false),
        (3, 3, true, 0x61, 1, true),
        (3, 0, false, 0xffff, 1, false),
    ];
    for (cpl, iopl, v86, port, size, expected) in cases {
        let (mut st, mut env) = machine();
        if v86 {
            set_v86(&mut st)
        } else {
            set_ring(&mut st, cpl)
        }
        st.sys_flags |= iopl << 12;
        env.put(TSS_BASE + 0x88, &[0xff; 0x2001]);
        env.put(TSS_BASE + 0x88 + 0x61 / 8, &[!2]);
        env.put(TSS_BASE + 0x88 + 0x3f0 / 8, &[0]);
        assert_eq!(
            io_permitted(&mut st, &mut env, port, size),
            Ok(expected),
            "{port:#x} size {size} v86 {v86}"
        );
    }
    // The map ends with the TSS limit; a 16-bit TSS has none; real mode needs none.
    let (mut st, mut env) = machine();
    st.cpl = 3;
    st.tr.limit = 0x88 + 0x60 / 8;
    assert_eq!(io_permitted(&mut st, &mut env, 0x60, 1), Ok(false));
    st.tr.limit += 1;
    assert_eq!(io_permitted(&mut st, &mut env, 0x60, 1), Ok(true));
    st.tr.attr.0 = 0x83;
    assert_eq!(io_permitted(&mut st, &mut env, 0x60, 1), Ok(false));
    st.cr0 &= !1;
    assert_eq!(io_permitted(&mut st, &mut env, 0x60, 1), Ok(true));
}
