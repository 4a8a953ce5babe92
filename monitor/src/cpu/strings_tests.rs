//! String instructions: elements, runs, faults in the middle, bounded work.

use super::*;
use crate::cpu::execute::tests::{faults, run};
use crate::cpu::testenv::{FlatEnv, machine, set_real};
use ring3_translator::state_box::StateBox;

const REP_MOVSB: &[u8] = &[0xf3, 0xa4];
const REP_MOVSD: &[u8] = &[0xf3, 0xa5];
const REP_STOSD: &[u8] = &[0xf3, 0xab];

fn pointers(st: &mut StateBox, si: u32, di: u32, cx: u32) {
    st.set_reg32(gpr::SI, si);
    st.set_reg32(gpr::DI, di);
    st.set_reg32(gpr::CX, cx);
}

fn state(st: &StateBox) -> (u32, u32, u32) {
    (st.reg32(gpr::SI), st.reg32(gpr::DI), st.reg32(gpr::CX))
}

fn pattern(env: &mut FlatEnv, at: usize, len: usize) {
    for n in 0..len {
        env.memory[at + n] = (n * 7 + n / 256 + 1) as u8;
    }
}

#[test]
fn single_elements_move_by_their_size_in_both_directions() {
    // opcode with prefix, element size, uses SI, uses DI
    let cases: [(&[u8], u32, bool, bool); 15] = [
        (&[0xa4], 1, true, true),
        (&[0x66, 0xa5], 2, true, true),
        (&[0xa5], 4, true, true),
        (&[0xaa], 1, false, true),
        (&[0x66, 0xab], 2, false, true),
        (&[0xab], 4, false, true),
        (&[0xac], 1, true, false),
        (&[0x66, 0xad], 2, true, false),
        (&[0xad], 4, true, false),
        (&[0xae], 1, false, true),
        (&[0xa6], 1, true, true),
        (&[0x66, 0xa7], 2, true, true),
        (&[0xa7], 4, true, true),
        (&[0x6d], 4, false, true),
        (&[0x6f], 4, true, false),
    ];
    for (code, size, si, di) in cases {
        for down in [false, true] {
            let (mut st, mut env) = machine();
            pointers(&mut st, 0x5000, 0x6000, 9);
            st.arith_flags = if down { u64::from(eflags::DF) } else { 0 };
            assert_eq!(run(&mut st, &mut env, code), Ok(Flow::Next));
            let step = if down { size.wrapping_neg() } else { size };
            let moved = |base: u32, uses: bool| if uses { base.wrapping_add(step) } else { base };
            assert_eq!(
                state(&st),
                (moved(0x5000, si), moved(0x6000, di), 9),
                "{code:02x?}"
            );
        }
    }
}

#[test]
fn repeated_copies_equal_elementwise_copies_for_every_overlap() {
    // Distances around element and page sizes, where runs and elements could differ.
    for distance in [
        -4097i64, -4096, -4095, -16, -4, -3, -1, 0, 1, 2, 3, 4, 5, 64, 4094, 4095, 4096, 4097, 9000,
    ] {
        for (code, size) in [(REP_MOVSB, 1usize), (REP_MOVSD, 4)] {
            for down in [false, true] {
                let (mut st, mut env) = machine();
                let count = 6000 / size;
                let from = 0x1_2345i64;
                let to = from + distance;
                let last = if down { ((count - 1) * size) as i64 } else { 0 };
                pattern(&mut env, 0x1_0000, 0x8000);
                let mut expected = env.memory.clone();
                for n in 0..count {
                    let n = if down { count - 1 - n } else { n };
                    let (a, b) = ((from as usize) + n * size, (to as usize) + n * size);
                    expected.copy_within(a..a + size, b);
                }
                pointers(
                    &mut st,
                    (from + last) as u32,
                    (to + last) as u32,
                    count as u32,
                );
                st.arith_flags = if down { u64::from(eflags::DF) } else { 0 };
                assert_eq!(run(&mut st, &mut env, code), Ok(Flow::Next));
                assert_eq!(st.reg32(gpr::CX), 0);
                assert!(
                    env.memory == expected,
                    "distance {distance} size {size} down {down}"
                );
            }
        }
    }
}

#[test]
fn distant_forward_copies_and_fills_use_few_accesses() {
    let (mut st, mut env) = machine();
    pattern(&mut env, 0x1_0000, 0x3000);
    pointers(&mut st, 0x1_0000, 0x3_0000, 0xc00);
    assert_eq!(run(&mut st, &mut env, REP_MOVSD), Ok(Flow::Next));
    assert_eq!((env.reads, env.writes), (3, 3));
    assert!(env.memory[0x1_0000..0x1_3000] == env.memory[0x3_0000..0x3_3000]);
    env.writes = 0;
    st.set_reg32(gpr::AX, 0x1234_5678);
    pointers(&mut st, 0, 0x2_0ffe, 0x402);
    assert_eq!(run(&mut st, &mut env, REP_STOSD), Ok(Flow::Next));
    assert_eq!(env.writes, 4); // an element across the boundary, a page, again one, the last
    assert!((0..0x402).all(|n| env.get32(0x2_0ffe + n * 4) == 0x1234_5678));
    assert_eq!(env.get32(0x2_0ffe + 0x402 * 4), 0);
}

#[test]
fn distant_backward_copies_and_fills_use_few_accesses_too() {
    let (mut st, mut env) = machine();
    st.arith_flags = u64::from(eflags::DF);
    pattern(&mut env, 0x1_0000, 0x3000);
    pointers(&mut st, 0x1_2ffc, 0x3_2ffc, 0xc00);
    assert_eq!(run(&mut st, &mut env, REP_MOVSD), Ok(Flow::Next));
    assert_eq!((env.reads, env.writes), (3, 3));
    assert_eq!(state(&st), (0x1_0000 - 4, 0x3_0000 - 4, 0));
    assert!(env.memory[0x1_0000..0x1_3000] == env.memory[0x3_0000..0x3_3000]);
    env.writes = 0;
    st.set_reg32(gpr::AX, 0x1234_5678);
    pointers(&mut st, 0, 0x2_2002, 0x402);
    assert_eq!(run(&mut st, &mut env, REP_STOSD), Ok(Flow::Next));
    assert_eq!(env.writes, 4); // the first, one across the boundary, a page, again one across
    assert!((0..0x402).all(|n| env.get32(0x2_2002 - n * 4) == 0x1234_5678));
    assert_eq!(env.get32(0x2_2002 - 0x402 * 4), 0);
}

#[test]
fn copies_within_the_vga_aperture_go_element_by_element() {
    let (mut st, mut env) = machine();
    env.memory.resize(0xc_0000, 0);
    pattern(&mut env, 0xa_0000, 64);
    pointers(&mut st, 0xa_0000, 0xa_8000, 64);
    assert_eq!(run(&mut st, &mut env, REP_MOVSB), Ok(Flow::Next));
    assert_eq!((env.reads, env.writes), (64, 64));
}

#[test]
fn a_fault_keeps_the_elements_before_it() {
    for (code, size) in [(REP_MOVSD, 4u32), (REP_MOVSB, 1)] {
        let (mut st, mut env) = machine();
        pattern(&mut env, 0x5000, 0x2000);
        env.read_only_pages.push(0x3_1000);
        pointers(&mut st, 0x5000, 0x3_0ff0, 0x100);
        let rip = st.rip;
        assert_eq!(run(&mut st, &mut env, code), Err(Fault::page(0x3_1000, 3)));
        assert_eq!(state(&st), (0x5010, 0x3_1000, 0x100 - 0x10 / size));
        assert_eq!(st.rip, rip);
        assert_eq!(env.memory[0x5000..0x5010], env.memory[0x3_0ff0..0x3_1000]);
    }
}

#[test]
fn a_segment_limit_stops_a_run_exactly() {
    let (mut st, mut env) = machine();
    let mut es = *st.segment(SegReg::Es);
    es.limit = 0x6007;
    st.set_segment(SegReg::Es, es);
    st.set_reg32(gpr::AX, u32::MAX);
    pointers(&mut st, 0, 0x6000, 4);
    assert_eq!(run(&mut st, &mut env, REP_STOSD), Err(Fault::gp(0)));
    assert_eq!(state(&st), (0, 0x6008, 2));
    assert_eq!(env.dwords::<3>(0x6000), [u32::MAX, u32::MAX, 0]);
}

#[test]
fn long_repeats_return_in_bounded_steps_and_single_steps_after_each_element() {
    let (mut st, mut env) = machine();
    pointers(&mut st, 0, 0x1_0000, 0x6000);
    let code = [0xf3, 0xaa];
    assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Repeat));
    assert_eq!(state(&st), (0, 0x1_4000, 0x2000));
    assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Next));
    assert_eq!(state(&st), (0, 0x1_6000, 0));
    st.sys_flags |= eflags::TF;
    pointers(&mut st, 0, 0x1_0000, 2);
    assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Repeat));
    assert_eq!(state(&st), (0, 0x1_0001, 1));
    assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Next));
    assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Next)); // a zero count does nothing
    assert_eq!(state(&st), (0, 0x1_0002, 0));
}

#[test]
fn sixteen_bit_indices_wrap_and_keep_their_upper_halves() {
    let (mut st, mut env) = machine();
    set_real(&mut st);
    st.rip = 0x100;
    st.set_reg8(0, 0x5a);
    pointers(&mut st, 0, 0xaaaa_fffe, 0xbbbb_0004);
    assert_eq!(run(&mut st, &mut env, &[0xf3, 0xaa]), Ok(Flow::Next));
    assert_eq!(state(&st), (0, 0xaaaa_0002, 0xbbbb_0000));
    assert_eq!(
        [
            env.memory[0xffff],
            env.memory[0],
            env.memory[1],
            env.memory[2]
        ],
        [0x5a, 0x5a, 0x5a, 0]
    );
    st.arith_flags = u64::from(eflags::DF);
    st.set_reg8(0, 0xa5);
    st.rip = 0x100;
    pointers(&mut st, 0, 0xaaaa_0002, 0xbbbb_0005);
    assert_eq!(run(&mut st, &mut env, &[0xf3, 0xaa]), Ok(Flow::Next));
    assert_eq!(state(&st), (0, 0xaaaa_fffd, 0xbbbb_0000));
    assert_eq!(env.memory[0xfffd..0x1_0000], [0, 0xa5, 0xa5]);
    assert_eq!(env.memory[..4], [0xa5, 0xa5, 0xa5, 0]);
}

#[test]
fn segment_overrides_apply_to_the_source_only() {
    let (mut st, mut env) = machine();
    let mut fs = *st.segment(SegReg::Fs);
    fs.base = 0x1000;
    st.set_segment(SegReg::Fs, fs);
    env.put32(0x6000, 0x1111_1111);
    env.put32(0x5000, 0x2222_2222);
    pointers(&mut st, 0x5000, 0x7000, 0);
    assert_eq!(run(&mut st, &mut env, &[0x64, 0xa5]), Ok(Flow::Next));
    assert_eq!(env.get32(0x7000), 0x1111_1111);
}

#[test]
fn comparisons_stop_at_the_deciding_element() {
    let (mut st, mut env) = machine();
    env.put(0x5000, b"abcdefgh");
    env.put(0x6000, b"abcXefgh");
    pointers(&mut st, 0x5000, 0x6000, 8);
    assert_eq!(run(&mut st, &mut env, &[0xf3, 0xa6]), Ok(Flow::Next)); // repe cmpsb
    assert_eq!(state(&st), (0x5004, 0x6004, 4));
    assert_eq!(st.eflags() & (eflags::ZF | eflags::CF), 0); // 'd' > 'X'
    st.set_reg8(0, b'g');
    pointers(&mut st, 0, 0x6000, 100);
    assert_eq!(run(&mut st, &mut env, &[0xf2, 0xae]), Ok(Flow::Next)); // repne scasb
    assert_eq!(state(&st), (0, 0x6007, 93));
    assert_ne!(st.eflags() & eflags::ZF, 0);
    // No element compared: flags stay.
    st.arith_flags = u64::from(eflags::CF);
    pointers(&mut st, 0, 0x6000, 0);
    assert_eq!(run(&mut st, &mut env, &[0xf2, 0xae]), Ok(Flow::Next));
    assert_eq!(st.eflags(), eflags::CF | eflags::FIXED);
}

#[test]
fn long_comparisons_agree_with_a_plain_search() {
    for (at, size) in [
        (0usize, 1u32),
        (255, 1),
        (256, 1),
        (300, 2),
        (1000, 4),
        (2000, 1),
    ] {
        for equal in [false, true] {
            let (mut st, mut env) = machine();
            let (fill, odd) = if equal { (0x11, 0x22) } else { (0x22, 0x11) };
            env.memory[0x5f80..0x5f80 + 4000].fill(fill);
            env.memory[0x5f80 + at * size as usize..][..size as usize].fill(odd);
            st.set_reg32(gpr::AX, 0x1111_1111);
            pointers(&mut st, 0, 0x5f80, 4000 / size);
            let mut code = vec![
                if equal { 0xf3 } else { 0xf2 },
                if size == 1 { 0xae } else { 0xaf },
            ];
            if size == 2 {
                code.insert(0, 0x66);
            }
            assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Next));
            let compared = (at as u32 + 1).min(4000 / size);
            assert_eq!(
                state(&st),
                (0, 0x5f80 + compared * size, 4000 / size - compared),
                "{at} {size} {equal}"
            );
            let last_equal = equal != ((at as u32) < 4000 / size); // the last element compared
            assert_eq!(st.eflags() & eflags::ZF != 0, last_equal);
            assert_eq!(st.eflags() & eflags::CF != 0, !last_equal); // 11H.. - 22H.. borrows
        }
    }
    // A fault past the deciding element is not taken, one before it is.
    let (mut st, mut env) = machine();
    env.memory[0x5f80..0x6000].fill(1);
    env.fault_pages.push(0x6000);
    env.memory[0x5fff] = 0;
    pointers(&mut st, 0, 0x5f80, 0x1000);
    assert_eq!(run(&mut st, &mut env, &[0xf2, 0xae]), Ok(Flow::Next));
    assert_eq!(state(&st), (0, 0x6000, 0x1000 - 0x80));
    env.memory[0x5fff] = 1;
    pointers(&mut st, 0, 0x5f80, 0x1000);
    assert_eq!(
        run(&mut st, &mut env, &[0xf2, 0xae]),
        Err(Fault::page(0x6000, 0))
    );
    assert_eq!(state(&st), (0, 0x6000, 0x1000 - 0x80));
}

#[test]
fn port_strings_check_memory_before_reading_the_port() {
    let (mut st, mut env) = machine();
    env.port_values = vec![(0x1f0, 0xbeef)];
    st.set_reg32(gpr::DX, 0x1f0);
    pointers(&mut st, 0, 0x5ffc, 4);
    env.fault_pages.push(0x6000);
    assert_eq!(
        run(&mut st, &mut env, &[0xf3, 0x66, 0x6d]),
        Err(Fault::page(0x6000, 2))
    );
    assert_eq!(state(&st), (0, 0x6000, 2));
    assert_eq!((env.port_log.len(), env.get32(0x5ffc)), (2, 0xbeef_beef));
    faults(&mut st, &mut env, &[0x6d], Fault::page(0x6000, 2));
    assert_eq!(env.port_log.len(), 2);
    env.fault_pages.clear();
    env.port_log.clear();
    env.put32(0x7000, 0x0403_0201);
    pointers(&mut st, 0x7000, 0, 3);
    assert_eq!(run(&mut st, &mut env, &[0xf3, 0x6e]), Ok(Flow::Next)); // rep outsb
    assert_eq!(
        env.port_log,
        [
            (0x1f0, 1, Some(1)),
            (0x1f0, 1, Some(2)),
            (0x1f0, 1, Some(3))
        ]
    );
    assert_eq!(state(&st), (0x7003, 0, 0));
}
