//! Tests of `segment`: the access check and every loader, valid and faulting.

use super::*;
use crate::cpu::testenv::{
    CODE0, DATA0, DATA3, GDT_BASE, TSS, machine, registers, segment, set_real, set_ring, set_v86,
};
use ring3_translator::state::eflags;

const SLOT: u16 = 0x40;

#[test]
fn access_checks_by_type_and_limit() {
    use Access::{Execute, Read, Write};
    let ok = |at| Ok(LinAddr(at));
    let (gp, ss) = (Err(Fault::gp(0)), Err(Fault::with_error(Vector::Ss, 0)));
    // (base, raw limit, attr, register, offset, len, access, result)
    let cases = [
        (
            0u32,
            0xf_ffff,
            0xc093u16,
            SegReg::Ds,
            0x1234u32,
            4u32,
            Write,
            ok(0x1234),
        ),
        (
            0,
            0xf_ffff,
            0xc093,
            SegReg::Ds,
            0xffff_fffe,
            4,
            Write,
            ok(0xffff_fffe),
        ),
        (
            0xffff_f000,
            0xf_ffff,
            0xc093,
            SegReg::Ds,
            0x2000,
            1,
            Read,
            ok(0x1000),
        ),
        (
            0x1000,
            0xffff,
            0x0093,
            SegReg::Ds,
            0xfffc,
            4,
            Read,
            ok(0x1_0ffc),
        ),
        (0x1000, 0xffff, 0x0093, SegReg::Ds, 0xfffd, 4, Read, gp),
        (0x1000, 0xffff, 0x0093, SegReg::Ss, 0xfffd, 4, Read, ss),
        (0x1000, 0xffff, 0x0093, SegReg::Ds, 0x1_0000, 1, Read, gp),
        (0x1000, 0xffff, 0x0093, SegReg::Ds, 0xffff_ffff, 2, Read, gp),
        // A read-only data segment, and code that is or is not readable.
        (0, 0xffff, 0x0091, SegReg::Es, 0, 4, Read, ok(0)),
        (0, 0xffff, 0x0091, SegReg::Es, 0, 4, Write, gp),
        (0, 0xf_ffff, 0xc09b, SegReg::Cs, 8, 4, Read, ok(8)),
        (0, 0xf_ffff, 0xc09b, SegReg::Cs, 8, 4, Write, gp),
        (0, 0xf_ffff, 0xc099, SegReg::Cs, 8, 4, Read, gp),
        (0, 0xf_ffff, 0xc099, SegReg::Cs, 8, 4, Execute, ok(8)),
        (0, 0x00ff, 0x409b, SegReg::Cs, 0x100, 1, Execute, gp),
        // Expand-down: valid above the limit, up to 64 KiB or 4 GiB.
        (0, 0x0fff, 0x0097, SegReg::Ds, 0x0fff, 1, Read, gp),
        (0, 0x0fff, 0x0097, SegReg::Ds, 0x1000, 1, Read, ok(0x1000)),
        (0, 0x0fff, 0x0097, SegReg::Ds, 0xfffd, 4, Write, gp),
        (0, 0x0fff, 0x4097, SegReg::Ds, 0xfffd, 4, Write, ok(0xfffd)),
        (0, 0x0fff, 0x4097, SegReg::Ss, 0xffff_fffd, 4, Write, ss),
        (0, 0xf_ffff, 0xc097, SegReg::Ds, 0, 1, Read, gp),
    ];
    for (base, limit, attr, reg, offset, len, access, expected) in cases {
        let (mut st, _) = machine();
        st.set_segment(reg, Descriptor(segment(base, limit, attr)).to_segment(SLOT));
        let got = linear(&st, reg, offset, len, access);
        assert_eq!(
            got, expected,
            "{attr:#x} {reg:?} {offset:#x}+{len} {access:?}"
        );
    }
}

#[test]
fn null_segments_fault_in_protected_mode_only() {
    let (mut st, _) = machine();
    st.set_segment(SegReg::Fs, Segment::null(0));
    assert_eq!(
        linear(&st, SegReg::Fs, 0, 1, Access::Read),
        Err(Fault::gp(0))
    );
    st.cr0 &= !1;
    assert_eq!(linear(&st, SegReg::Fs, 0, 1, Access::Read), Ok(LinAddr(0)));
}

#[test]
fn protected_mode_loads() {
    use Vector::{Gp, Np, Ss};
    let fault = |v, e| Err(Fault::with_error(v, e));
    let s = u32::from(SLOT);
    // (attr, register, cpl, rpl, result)
    let cases = [
        (0xc093u16, SegReg::Ds, 0u8, 0u16, Ok(())),
        (0xc093, SegReg::Ds, 0, 3, fault(Gp, s)),
        (0xc093, SegReg::Ds, 3, 0, fault(Gp, s)),
        (0xc0f3, SegReg::Gs, 3, 3, Ok(())),
        (0xc0f3, SegReg::Fs, 0, 3, Ok(())),
        (0xc013, SegReg::Es, 0, 0, fault(Np, s)),
        (0xc099, SegReg::Es, 0, 0, fault(Gp, s)),
        (0xc09b, SegReg::Es, 0, 0, Ok(())),
        (0xc09f, SegReg::Es, 3, 3, Ok(())),
        (0x0082, SegReg::Es, 0, 0, fault(Gp, s)),
        (0xc093, SegReg::Ss, 0, 0, Ok(())),
        (0xc093, SegReg::Ss, 0, 3, fault(Gp, s)),
        (0xc0f3, SegReg::Ss, 0, 0, fault(Gp, s)),
        (0xc0f3, SegReg::Ss, 3, 3, Ok(())),
        (0xc091, SegReg::Ss, 0, 0, fault(Gp, s)),
        (0xc09b, SegReg::Ss, 0, 0, fault(Gp, s)),
        (0xc013, SegReg::Ss, 0, 0, fault(Ss, s)),
        (0xc09b, SegReg::Cs, 0, 0, Err(Fault::ud())),
    ];
    for (attr, reg, cpl, rpl, expected) in cases {
        let (mut st, mut env) = machine();
        set_ring(&mut st, cpl);
        env.gdt(SLOT, segment(0x1_2345, 0xf_ffff, attr));
        let before = registers(&st);
        let got = load_segment(&mut st, &mut env, reg, SLOT | rpl);
        assert_eq!(got, expected, "{attr:#x} {reg:?} cpl {cpl} rpl {rpl}");
        if got.is_ok() {
            let loaded = st.segment(reg);
            assert_eq!(
                (loaded.base, loaded.selector, loaded.attr.0),
                (0x1_2345, SLOT | rpl, attr)
            );
        } else {
            assert_eq!(registers(&st), before);
        }
    }
}

#[test]
fn null_selectors_load_into_data_segments_only() {
    let (mut st, mut env) = machine();
    load_segment(&mut st, &mut env, SegReg::Fs, 3).unwrap();
    assert_eq!(
        (
            st.segment(SegReg::Fs).selector,
            st.segment(SegReg::Fs).usable
        ),
        (3, false)
    );
    assert_eq!(
        load_segment(&mut st, &mut env, SegReg::Ss, 0),
        Err(Fault::gp(0))
    );
    assert_eq!(
        load_segment(&mut st, &mut env, SegReg::Ds, 0x108),
        Err(Fault::gp(0x108))
    );
}

#[test]
fn loading_sets_the_accessed_bit() {
    let (mut st, mut env) = machine();
    env.gdt(SLOT, segment(0, 0xf_ffff, 0xc092));
    load_segment(&mut st, &mut env, SegReg::Es, SLOT).unwrap();
    assert_eq!(
        env.get64(GDT_BASE + u64::from(SLOT)),
        segment(0, 0xf_ffff, 0xc093)
    );
    assert_eq!(st.segment(SegReg::Es).attr.0, 0xc093);
    env.read_only_pages.push(GDT_BASE);
    env.gdt(SLOT, segment(0, 0xf_ffff, 0xc092));
    let before = registers(&st);
    assert_eq!(
        load_segment(&mut st, &mut env, SegReg::Ds, SLOT)
            .unwrap_err()
            .vector,
        Vector::Pf
    );
    assert_eq!(registers(&st), before);
}

#[test]
fn real_mode_keeps_limit_and_rights() {
    let (mut st, mut env) = machine();
    st.cr0 &= !1;
    load_segment(&mut st, &mut env, SegReg::Ds, 0x1234).unwrap();
    let ds = *st.segment(SegReg::Ds);
    assert_eq!(
        (ds.base, ds.selector, ds.limit, ds.attr.0),
        (0x1_2340, 0x1234, u32::MAX, 0xc093)
    );
    assert_eq!(
        linear(&st, SegReg::Ds, 0x10_0000, 4, Access::Write),
        Ok(LinAddr(0x11_2340))
    );
    set_real(&mut st);
    load_segment(&mut st, &mut env, SegReg::Ss, 0xffff).unwrap();
    assert_eq!(
        linear(&st, SegReg::Ss, 0xfffe, 2, Access::Write),
        Ok(LinAddr(0x10_ffee))
    );
    assert_eq!(
        linear(&st, SegReg::Ss, 0xffff, 2, Access::Write),
        Err(Fault::with_error(Vector::Ss, 0))
    );
}

#[test]
fn v86_mode_sets_64_kib() {
    let (mut st, mut env) = machine();
    set_v86(&mut st);
    st.set_segment(
        SegReg::Es,
        Descriptor(segment(0, 0xf_ffff, 0xc0f3)).to_segment(0x23),
    );
    load_segment(&mut st, &mut env, SegReg::Es, 0xb800).unwrap();
    let es = *st.segment(SegReg::Es);
    assert_eq!(
        (es.base, es.limit, es.attr.0, st.eflags() & eflags::VM),
        (0xb_8000, 0xffff, 0xf3, eflags::VM)
    );
}

#[test]
fn system_registers() {
    let s = u32::from(SLOT);
    let np = Err(Fault::with_error(Vector::Np, s));
    // (attr, LLDT's result, LTR's result)
    let cases = [
        (0x0082u16, Ok(()), Err(Fault::gp(s))),
        (0x0002, np, Err(Fault::gp(s))),
        (0x0089, Err(Fault::gp(s)), Ok(())),
        (0x0081, Err(Fault::gp(s)), Ok(())),
        (0x0009, Err(Fault::gp(s)), np),
        (0x008b, Err(Fault::gp(s)), Err(Fault::gp(s))),
        (0x0092, Err(Fault::gp(s)), Err(Fault::gp(s))),
    ];
    for (attr, lldt, ltr) in cases {
        let (mut st, mut env) = machine();
        env.gdt(SLOT, segment(0x7000, 0x67, attr));
        assert_eq!(load_ldtr(&mut st, &mut env, SLOT), lldt, "LLDT {attr:#x}");
        assert_eq!(load_tr(&mut st, &mut env, SLOT), ltr, "LTR {attr:#x}");
        if ltr.is_ok() {
            assert_eq!(
                (st.tr.base, st.tr.selector, st.tr.attr.0),
                (0x7000, SLOT, attr | 2)
            );
            assert_eq!(
                env.get64(GDT_BASE + u64::from(SLOT)),
                segment(0x7000, 0x67, attr | 2)
            );
        } else {
            assert_eq!(st.tr.selector, TSS);
        }
        if lldt.is_ok() {
            assert_eq!(
                (st.ldtr.base, st.ldtr.limit, st.ldtr.usable),
                (0x7000, 0x67, true)
            );
            load_ldtr(&mut st, &mut env, 0).unwrap();
            assert!(!st.ldtr.usable);
        }
        assert_eq!(load_tr(&mut st, &mut env, 0), Err(Fault::gp(0)));
        assert_eq!(load_ldtr(&mut st, &mut env, 0xc), Err(Fault::gp(0xc)));
        st.cpl = 3;
        assert_eq!(load_ldtr(&mut st, &mut env, SLOT), Err(Fault::gp(0)));
        set_v86(&mut st);
        assert_eq!(load_tr(&mut st, &mut env, SLOT), Err(Fault::ud()));
    }
}

#[test]
fn returning_outwards_nulls_inner_segments() {
    let (mut st, mut env) = machine();
    env.gdt(SLOT, segment(0, 0xf_ffff, 0xc09f));
    for (reg, selector) in [
        (SegReg::Ds, DATA0),
        (SegReg::Es, DATA3),
        (SegReg::Fs, SLOT),
        (SegReg::Gs, CODE0),
    ] {
        load_segment(&mut st, &mut env, reg, selector).unwrap();
    }
    st.cpl = 3;
    null_inaccessible(&mut st);
    let selectors =
        [SegReg::Ds, SegReg::Es, SegReg::Fs, SegReg::Gs].map(|r| st.segment(r).selector);
    assert_eq!(selectors, [0, DATA3, SLOT, 0]);
}
