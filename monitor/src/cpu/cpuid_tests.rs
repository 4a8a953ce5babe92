//! The processor model: what it offers, hides, and makes consistent.

use super::*;
use crate::cpu::execute::tests::full_model;
use ring3_translator::state_box::StateBox;

/// A host with no optional feature at all.
fn bare_model() -> CpuModel {
    let host = |leaf: u32, _: u32| match leaf {
        0 => [1, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
        1 => [0x0002_0652, 0, 0, 0],
        _ => [0; 4],
    };
    CpuModel::from_host(&host, false)
}

#[test]
fn features_that_translated_code_cannot_carry_out_are_hidden() {
    let st = StateBox::new();
    let model = full_model();
    let [_, _, ecx, edx] = model.cpuid(&st, 1, 0);
    // MONITOR, VMX, CX16, PCID, x2APIC, TSC deadline, OSXSAVE; APIC, PSE36, HTT
    assert_eq!(
        ecx & (1 << 3 | 1 << 5 | 1 << 13 | 1 << 17 | 1 << 21 | 1 << 24 | 1 << 27),
        0
    );
    assert_eq!(edx & (1 << 9 | 1 << 17 | 1 << 28), 0);
    let [_, ebx, ecx, edx] = model.cpuid(&st, 7, 0);
    // FSGSBASE, AVX2, INVPCID, AVX-512F, SMAP; nothing in ECX (UMIP, PKU, ...) and EDX
    assert_eq!(ebx & (1 | 1 << 5 | 1 << 10 | 1 << 16 | 1 << 20), 0);
    assert_eq!((ecx, edx), (0, 0));
    let [_, _, ecx, edx] = model.cpuid(&st, 0x8000_0001, 0);
    // SVM, SSE4A, XOP, FMA4; SYSCALL, long mode, 3DNow!
    assert_eq!(ecx & (1 << 2 | 1 << 6 | 1 << 11 | 1 << 16), 0);
    assert_eq!(edx & (1 << 11 | 1 << 29 | 1 << 30 | 1 << 31), 0);
    for hidden in [
        CpuidFeature::AVX2,
        CpuidFeature::AVX512F,
        CpuidFeature::SYSCALL,
        CpuidFeature::MONITOR,
        CpuidFeature::FSGSBASE,
        CpuidFeature::VAES,
        CpuidFeature::SSE4A,
        CpuidFeature::RDPID,
        CpuidFeature::SVM,
        CpuidFeature::X64,
    ] {
        assert!(!model.supports(hidden), "{hidden:?}");
    }
}

#[test]
fn the_host_limits_the_model() {
    let st = StateBox::new();
    let model = bare_model();
    let [_, _, ecx, edx] = model.cpuid(&st, 1, 0);
    assert_eq!(ecx, HYPERVISOR);
    assert_eq!(edx, LEAF1_EDX_OWN);
    for absent in [
        CpuidFeature::SSE2,
        CpuidFeature::AVX,
        CpuidFeature::CMOV,
        CpuidFeature::RDTSCP,
        CpuidFeature::LZCNT,
    ] {
        assert!(!model.supports(absent), "{absent:?}");
        assert!(full_model().supports(absent), "{absent:?}");
    }
    assert!(!model.has_nx() && !model.has_rdtscp() && !model.has_xsaveopt());
    assert_eq!(model.cr4_bits() & (cr4::OSXSAVE | cr4::SMEP), 0);
    assert_eq!(model.cpuid(&st, 0xd, 0), [0; 4]);
}

#[test]
fn avx_needs_xsave_and_the_host_operating_system() {
    let st = StateBox::new();
    let host = |leaf: u32, _: u32| {
        if leaf < 2 {
            [1, u32::MAX, !XSAVE, u32::MAX]
        } else {
            [0; 4]
        }
    };
    for model in [
        CpuModel::from_host(&host, true),
        CpuModel::from_host(&|_, _| [1, u32::MAX, u32::MAX, 0], false),
    ] {
        assert_eq!(model.cpuid(&st, 1, 0)[2] & (AVX | FMA | F16C), 0);
        assert_eq!(model.xcr0_bits(), 3);
        assert!(!model.supports(CpuidFeature::AVX) && !model.supports(CpuidFeature::FMA));
    }
}

#[test]
fn dynamic_bits_follow_the_state() {
    let mut st = StateBox::new();
    let model = full_model().with_apic(true);
    assert_eq!(model.cpuid(&st, 1, 0)[2] & OSXSAVE, 0);
    st.cr4 = cr4::OSXSAVE;
    assert_eq!(model.cpuid(&st, 1, 0)[2] & OSXSAVE, OSXSAVE);
    assert_eq!(model.cpuid(&st, 0xd, 0), [7, 576, 832, 0]);
    st.xcr0 = 7;
    assert_eq!(model.cpuid(&st, 0xd, 0), [7, 832, 832, 0]);
    assert_eq!(model.cpuid(&st, 0xd, 2), [256, 576, 0, 0]);
    assert_ne!(model.cpuid(&st, 1, 0)[2] & TSC_DEADLINE, 0);
    assert_eq!(full_model().cpuid(&st, 1, 0)[2] & TSC_DEADLINE, 0);
    for leaf in [1, 0x8000_0001] {
        st.msr.apic_base |= 1 << 11;
        assert_ne!(model.cpuid(&st, leaf, 0)[3] & APIC, 0);
        st.msr.apic_base &= !(1 << 11);
        assert_eq!(model.cpuid(&st, leaf, 0)[3] & APIC, 0);
    }
}

#[test]
fn identification_leaves() {
    let st = StateBox::new();
    let model = full_model();
    assert_eq!(model.vendor(), Vendor::Amd);
    assert_eq!(
        model.cpuid(&st, 0, 0),
        [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]
    );
    assert_eq!(model.cpuid(&st, 1, 0)[0], 0x00b2_0f21);
    let [max, b, c, d] = model.cpuid(&st, 0x4000_0000, 0);
    let text: Vec<u8> = [b, c, d].into_iter().flat_map(u32::to_le_bytes).collect();
    assert_eq!(
        (max, text.as_slice()),
        (0x4000_0000, b"ring3 ring3 ".as_slice())
    );
    assert_eq!(model.cpuid(&st, 0x8000_0000, 0)[0], 0x8000_0008);
    assert_eq!(model.cpuid(&st, 0x8000_0008, 0)[0], 36 | 32 << 8);
    for absent in [
        3,
        5,
        6,
        0xa,
        0xb,
        0x15,
        0x16,
        0x4000_0001,
        0x8000_0009,
        u32::MAX,
    ] {
        assert_eq!(model.cpuid(&st, absent, 0), [0; 4], "{absent:x}");
    }
    // Beyond the basic maximum Intel repeats the highest leaf.
    let intel = bare_model();
    assert_eq!(intel.vendor(), Vendor::Intel);
    assert_eq!(intel.cpuid(&st, 0x15, 0), intel.cpuid(&st, 0xd, 0));
}

#[test]
fn the_host_model_offers_what_every_64_bit_processor_has() {
    let st = StateBox::new();
    let model = CpuModel::host_default();
    for present in [
        CpuidFeature::SSE2,
        CpuidFeature::CMOV,
        CpuidFeature::CX8,
        CpuidFeature::FXSR,
        CpuidFeature::SEP,
    ] {
        assert!(model.supports(present), "{present:?}");
    }
    let host = cpuid_host::cpuid(1, 0);
    let [signature, _, ecx, _] = model.cpuid(&st, 1, 0);
    assert_eq!(signature, host[0]);
    assert_eq!(ecx & !(host[2] | HYPERVISOR), 0);
}
