//! Saving and restoring FPU state.

use super::*;
use crate::cpu::execute::tests::{faults, full_model, run};
use crate::cpu::testenv::{machine, set_real};
use ring3_translator::state::gpr;
use ring3_translator::state_box::StateBox;

const FXSAVE: &[u8] = &[0x0f, 0xae, 0x05, 0, 0x50, 0, 0];
const FXRSTOR: &[u8] = &[0x0f, 0xae, 0x0d, 0, 0x50, 0, 0];
const XSAVE: &[u8] = &[0x0f, 0xae, 0x25, 0, 0x50, 0, 0];
const XRSTOR: &[u8] = &[0x0f, 0xae, 0x2d, 0, 0x50, 0, 0];
const XSAVEOPT: &[u8] = &[0x0f, 0xae, 0x35, 0, 0x50, 0, 0];
const FNSTENV: &[u8] = &[0xd9, 0x35, 0, 0x50, 0, 0];
const FLDENV: &[u8] = &[0xd9, 0x25, 0, 0x50, 0, 0];
const FNSAVE: &[u8] = &[0xdd, 0x35, 0, 0x50, 0, 0];
const FRSTOR: &[u8] = &[0xdd, 0x25, 0, 0x50, 0, 0];
const AREA: usize = 0x5000;

/// x87 and SSE in use with distinct bytes, pointers as a host would leave them.
fn fill(st: &mut StateBox) {
    for (n, byte) in st.xsave.0[..YMM + 256].iter_mut().enumerate() {
        *byte = (n % 251) as u8;
    }
    st.xsave.0[HEADER..YMM].fill(0);
    st.xsave.0[..2].copy_from_slice(&0x37fu16.to_le_bytes());
    st.xsave.0[2..4].copy_from_slice(&0x3800u16.to_le_bytes()); // TOP 7
    st.xsave.0[TAG] = 0x80; // physical register 7, which is ST0
    st.xsave.0[MXCSR..MXCSR_MASK].copy_from_slice(&0x1f80u32.to_le_bytes());
    mark(st, X87 | SSE | AVX, true);
}

#[test]
fn the_device_not_available_conditions_come_first() {
    for code in [FXSAVE, FXRSTOR, FNSTENV, FLDENV, FNSAVE, FRSTOR] {
        for bit in [cr0::EM, cr0::TS] {
            let (mut st, mut env) = machine();
            st.cr0 |= bit;
            faults(&mut st, &mut env, code, Fault::plain(Vector::Nm));
        }
    }
    for code in [XSAVE, XRSTOR, XSAVEOPT] {
        let (mut st, mut env) = machine();
        st.cr0 |= cr0::TS;
        faults(&mut st, &mut env, code, Fault::ud());
        st.cr4 |= cr4::OSXSAVE;
        faults(&mut st, &mut env, code, Fault::plain(Vector::Nm));
    }
}

#[test]
fn misaligned_areas_are_general_protection_faults() {
    let (mut st, mut env) = machine();
    st.cr4 = cr4::OSFXSR | cr4::OSXSAVE;
    for (code, offset) in [
        (FXSAVE, 8),
        (FXRSTOR, 8),
        (XSAVE, 16),
        (XRSTOR, 32),
        (XSAVEOPT, 48),
    ] {
        let mut code = code.to_vec();
        code[3] = offset;
        faults(&mut st, &mut env, &code, Fault::gp(0));
    }
}

#[test]
fn fxsave_hides_pointers_and_keeps_what_it_does_not_own() {
    let (mut st, mut env) = machine();
    st.cr4 = cr4::OSFXSR;
    fill(&mut st);
    env.memory[AREA..AREA + 512].fill(0xee);
    assert_eq!(run(&mut st, &mut env, FXSAVE), Ok(Flow::Next));
    let image = &env.memory[AREA..AREA + 512];
    assert_eq!(image[..5], [0x7f, 3, 0, 0x38, 0x80]);
    assert!(image[5..MXCSR].iter().all(|b| *b == 0));
    assert_eq!(image[MXCSR..ST], [0x80, 0x1f, 0, 0, 0xff, 0xff, 2, 0]);
    assert_eq!(image[ST..ST + 16][..10], st.xsave.0[ST..ST + 10]);
    assert_eq!(image[XMM..XMM_END], st.xsave.0[XMM..XMM_END]);
    assert!(image[XMM_END..].iter().all(|b| *b == 0xee));
    // Without OSFXSR the XMM registers are neither stored nor loaded.
    st.cr4 = 0;
    env.memory[AREA..AREA + 512].fill(0xee);
    assert_eq!(run(&mut st, &mut env, FXSAVE), Ok(Flow::Next));
    assert!(
        env.memory[AREA + XMM..AREA + 512]
            .iter()
            .all(|b| *b == 0xee)
    );
    let before = st.xsave.0[XMM..XMM_END].to_vec();
    assert_eq!(run(&mut st, &mut env, FXRSTOR), Ok(Flow::Next));
    assert_eq!(st.xsave.0[XMM..XMM_END], before);
}

#[test]
fn fxsave_of_the_initial_state_and_fxrstor_of_reserved_mxcsr() {
    let (mut st, mut env) = machine();
    st.cr4 = cr4::OSFXSR;
    fill(&mut st);
    mark(&mut st, X87 | SSE, false); // the bytes are stale now
    assert_eq!(run(&mut st, &mut env, FXSAVE), Ok(Flow::Next));
    assert_eq!(env.memory[AREA..AREA + 5], [0x7f, 3, 0, 0, 0]);
    assert!(
        env.memory[AREA + ST..AREA + XMM_END]
            .iter()
            .all(|b| *b == 0)
    );
    env.put32(AREA as u64 + 24, 0x0100_0000);
    let before = guest_image(&st, &full_model());
    faults(&mut st, &mut env, FXRSTOR, Fault::gp(0));
    assert_eq!(guest_image(&st, &full_model()), before);
    env.put32(AREA as u64 + 24, 0x1fc0);
    env.put(AREA as u64 + XMM as u64, &[9; 128]);
    assert_eq!(run(&mut st, &mut env, FXRSTOR), Ok(Flow::Next));
    assert_eq!(st.xsave.0[XMM..XMM_END], [9; 128]);
    assert_eq!(st.xsave.0[MXCSR..MXCSR + 2], [0xc0, 0x1f]);
    assert_eq!(in_use(&st), X87 | SSE | AVX);
}

#[test]
fn xsave_writes_the_requested_components_only() {
    let (mut st, mut env) = machine();
    st.cr4 = cr4::OSFXSR | cr4::OSXSAVE;
    st.xcr0 = 7;
    st.set_reg32(gpr::DX, 0);
    fill(&mut st);
    mark(&mut st, SSE, false);
    env.memory[AREA..AREA + 1024].fill(0xee);
    env.put64((AREA + HEADER) as u64, 1 << 60 | SSE); // bits outside the request are kept
    st.set_reg32(gpr::AX, !1);
    assert_eq!(run(&mut st, &mut env, XSAVE), Ok(Flow::Next));
    let image = &env.memory[AREA..AREA + 1024];
    assert!(image[..MXCSR].iter().all(|b| *b == 0xee));
    assert_eq!(image[MXCSR..MXCSR + 2], [0x80, 0x1f]);
    assert!(image[ST..XMM].iter().all(|b| *b == 0xee));
    assert!(image[XMM..XMM_END].iter().all(|b| *b == 0)); // initial state is written as such
    assert_eq!(image[YMM..YMM_END], st.xsave.0[YMM..YMM_END]);
    assert!(image[YMM_END..].iter().all(|b| *b == 0xee));
    assert_eq!(env.get64((AREA + HEADER) as u64), 1 << 60 | AVX);
    // XSAVEOPT leaves the bytes of the component in its initial state alone.
    env.memory[AREA..AREA + HEADER].fill(0xee);
    assert_eq!(run(&mut st, &mut env, XSAVEOPT), Ok(Flow::Next));
    assert!(
        env.memory[AREA + XMM..AREA + XMM_END]
            .iter()
            .all(|b| *b == 0xee)
    );
}

#[test]
fn xrstor_loads_initializes_and_checks_its_header() {
    let (mut st, mut env) = machine();
    st.cr4 = cr4::OSFXSR | cr4::OSXSAVE;
    st.xcr0 = 7;
    st.set_reg32(gpr::DX, 0);
    st.set_reg32(gpr::AX, 7);
    fill(&mut st);
    env.put32(AREA as u64 + 24, 0x1f80);
    for (at, value) in [
        (HEADER, 8),
        (HEADER + 8, 1),
        (HEADER + 8, 1 << 63),
        (HEADER + 16, 1),
    ] {
        env.put64(at as u64 + AREA as u64, value);
        faults(&mut st, &mut env, XRSTOR, Fault::gp(0));
        env.put64(at as u64 + AREA as u64, 0);
    }
    env.put32(AREA as u64 + 24, 0x8000_0000);
    faults(&mut st, &mut env, XRSTOR, Fault::gp(0));
    env.put32(AREA as u64 + 24, 0x1f80);
    env.put64((AREA + HEADER) as u64, AVX);
    env.put((AREA + YMM) as u64, &[5; 128]);
    assert_eq!(run(&mut st, &mut env, XRSTOR), Ok(Flow::Next));
    assert_eq!(in_use(&st), AVX);
    assert_eq!(st.xsave.0[YMM..YMM_END], [5; 128]);
    let image = guest_image(&st, &full_model());
    assert_eq!(image[..5], [0x7f, 3, 0, 0, 0]);
    assert!(image[XMM..XMM_END].iter().all(|b| *b == 0));
}

#[test]
fn environments_convert_tags_and_mask_exceptions() {
    let (mut st, mut env) = machine();
    fill(&mut st);
    st.xsave.0[0] = 0x40; // all exceptions unmasked
    st.xsave.0[2] = 0x84; // ZE and ES
    st.xsave.0[TAG] = 0xf0; // ST0-ST3 with TOP 7: physical 7, 4, 5, 6 hold ST0, ST5, ST6, ST7
    let put = |st: &mut StateBox, n: usize, mantissa: u64, exponent: u16| {
        st.xsave.0[ST + n * 16..][..8].copy_from_slice(&mantissa.to_le_bytes());
        st.xsave.0[ST + n * 16 + 8..][..2].copy_from_slice(&exponent.to_le_bytes());
    };
    put(&mut st, 0, 1 << 63, 0x3fff); // physical 7: 1.0, valid
    put(&mut st, 5, 0, 0x8000); // physical 4: -0.0, zero
    put(&mut st, 6, 1 << 63, 0x7fff); // physical 5: infinity, special
    put(&mut st, 7, 1 << 62, 0x3fff); // physical 6: unnormal, special
    assert_eq!(run(&mut st, &mut env, FNSTENV), Ok(Flow::Next));
    let tags = 0b00_10_10_01_11_11_11_11u32;
    let expected = [
        0xffff_0340,
        0xffff_3884,
        0xffff_0000 | tags,
        0,
        0,
        0,
        0xffff_0000,
    ];
    assert_eq!(env.dwords::<7>(AREA as u32), expected);
    assert_eq!(st.xsave.0[0] & 0x3f, 0x3f);
    assert_eq!(st.xsave.0[2], 4);
    // Loading it back makes the exception pending again; then nothing but a reset goes on.
    assert_eq!(run(&mut st, &mut env, FLDENV), Ok(Flow::Next));
    assert_eq!(
        (st.xsave.0[2], st.xsave.0[3], st.xsave.0[TAG]),
        (0x84, 0xb8, 0xf0)
    );
    faults(&mut st, &mut env, FLDENV, Fault::plain(Vector::Mf));
    faults(&mut st, &mut env, FRSTOR, Fault::plain(Vector::Mf));
    let narrow = [&[0x66], FNSTENV].concat();
    assert_eq!(run(&mut st, &mut env, &narrow), Ok(Flow::Next));
    assert_eq!(
        env.words::<7>(AREA as u32),
        [0x340, 0xb884, tags as u16, 0, 0, 0, 0]
    );
}

#[test]
fn fnsave_stores_initializes_and_frstor_brings_back() {
    for real in [false, true] {
        for narrow in [false, true] {
            let (mut st, mut env) = machine();
            fill(&mut st);
            let mut save = vec![0xdd, 0x36, 0, 0x50]; // fnsave [5000h], 16-bit addressing
            let mut restore = vec![0xdd, 0x26, 0, 0x50];
            if real {
                set_real(&mut st);
                st.rip = 0x100;
            } else {
                (save, restore) = (FNSAVE.to_vec(), FRSTOR.to_vec());
            }
            if real != narrow {
                save.insert(0, 0x66);
                restore.insert(0, 0x66);
            }
            let before = guest_image(&st, &full_model());
            env.memory[AREA..AREA + 120].fill(0xee);
            assert_eq!(run(&mut st, &mut env, &save), Ok(Flow::Next));
            let len = if narrow { 94 } else { 108 };
            assert_eq!(env.memory[AREA + len], 0xee);
            assert_ne!(env.memory[AREA + len - 1], 0xee);
            // Initialized control state; the registers keep their contents (measured).
            assert_eq!(guest_image(&st, &full_model())[..5], [0x7f, 3, 0, 0, 0]);
            assert_eq!(run(&mut st, &mut env, &restore), Ok(Flow::Next));
            assert_eq!(
                guest_image(&st, &full_model()),
                before,
                "real {real} narrow {narrow}"
            );
        }
    }
}
