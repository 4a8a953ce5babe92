//! Model-specific registers. Intel SDM vol. 4; AMD64 PPR "MSRs".
//!
//! A register that is not listed raises #GP(0), which operating systems expect when they probe.
//! Those listed without storage read as a fixed value and ignore writes, because operating systems
//! read-modify-write them without a probe. DEBUGCTL's branch trace bits are accepted and have no
//! effect.

use crate::cpu::cpuid::{CpuModel, Vendor};
use crate::cpu::env::{Env, TlbFlush};
use crate::cpu::fault::Fault;
use ring3_translator::state::{GuestState, apic_base, efer};

/// Register numbers, by the manuals' names.
pub mod index {
    #![allow(missing_docs)] // the names are the manuals'
    pub const P5_MC_ADDR: u32 = 0x0;
    pub const P5_MC_TYPE: u32 = 0x1;
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const EBL_CR_POWERON: u32 = 0x2a;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const BIOS_UPDT_TRIG: u32 = 0x79;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const MTRRCAP: u32 = 0xfe;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const PERF_STATUS: u32 = 0x198;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUGCTL: u32 = 0x1d9;
    pub const LAST_BRANCH_FROM: u32 = 0x1db;
    pub const LAST_INT_TO: u32 = 0x1de;
    pub const MTRR_PHYSBASE0: u32 = 0x200;
    pub const MTRR_PHYSMASK7: u32 = 0x20f;
    pub const MTRR_FIX64K_00000: u32 = 0x250;
    pub const MTRR_FIX16K_80000: u32 = 0x258;
    pub const MTRR_FIX16K_A0000: u32 = 0x259;
    pub const MTRR_FIX4K_C0000: u32 = 0x268;
    pub const MTRR_FIX4K_F8000: u32 = 0x26f;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const EFER: u32 = 0xc000_0080;
    pub const TSC_AUX: u32 = 0xc000_0103;
    pub const AMD_SYSCFG: u32 = 0xc001_0010;
    pub const AMD_HWCR: u32 = 0xc001_0015;
    pub const AMD_TOP_MEM: u32 = 0xc001_001a;
    pub const AMD_TOP_MEM2: u32 = 0xc001_001d;
    pub const AMD_NB_CFG: u32 = 0xc001_001f;
    pub const AMD_PATCH_LOADER: u32 = 0xc001_0020;
    pub const AMD_INT_PENDING: u32 = 0xc001_0055;
    pub const AMD_MMIO_CONF_BASE: u32 = 0xc001_0058;
    pub const AMD_SMM_ADDR: u32 = 0xc001_0112;
    pub const AMD_SMM_MASK: u32 = 0xc001_0113;
    pub const AMD_VM_CR: u32 = 0xc001_0114;
    pub const AMD_LS_CFG: u32 = 0xc001_1020;
    pub const AMD_DE_CFG: u32 = 0xc001_1029;
    pub const AMD_LAST_CFG: u32 = 0xc001_102f;
}

use index as i;

/// MTRRCAP: eight variable ranges, fixed ranges, write combining.
const MTRRCAP_VALUE: u64 = 0x508;
/// DEBUGCTL bits that are accepted: LBR and BTF.
const DEBUGCTL_BITS: u64 = 3;
/// HWCR.TscFreqSel: the counter runs at the P0 frequency; Linux warns where it is clear.
const HWCR_TSC_FREQ_SEL: u64 = 1 << 24;
/// VM_CR.SVMDIS.
const VM_CR_SVMDIS: u64 = 1 << 4;
/// DE_CFG: LFENCE is serializing.
const DE_CFG_LFENCE_SERIALIZES: u64 = 1 << 1;
/// FEATURE_CONTROL: locked, nothing enabled.
const FEATURE_CONTROL_LOCKED: u64 = 1;
/// Patch level that AMD processors report before an update.
const AMD_PATCH_LEVEL: u64 = 0x0100_0065;
/// IA32_BIOS_SIGN_ID: a revision of 1 in the high half.
const INTEL_PATCH_LEVEL: u64 = 1 << 32;
/// MISC_ENABLE bits that hold state: fast strings, automatic thermal control, BTS and PEBS
/// unavailable, enhanced SpeedStep.
const MISC_ENABLE_BITS: u64 = 1 | 1 << 3 | 1 << 11 | 1 << 12 | 1 << 16;

/// A register that has no storage: reads as `.0`, ignores writes.
fn constant(model: &CpuModel, index: u32) -> Option<u64> {
    let any = match index {
        i::P5_MC_ADDR | i::P5_MC_TYPE | i::PLATFORM_ID | i::MCG_STATUS => Some(0),
        i::LAST_BRANCH_FROM..=i::LAST_INT_TO => Some(0),
        _ => None,
    };
    any.or_else(|| match (model.vendor(), index) {
        (Vendor::Amd, i::BIOS_SIGN_ID) => Some(AMD_PATCH_LEVEL),
        (Vendor::Amd, i::AMD_HWCR) => Some(HWCR_TSC_FREQ_SEL),
        (Vendor::Amd, i::AMD_VM_CR) => Some(VM_CR_SVMDIS),
        (Vendor::Amd, i::AMD_DE_CFG) => Some(DE_CFG_LFENCE_SERIALIZES),
        (
            Vendor::Amd,
            i::AMD_SYSCFG
            | i::AMD_TOP_MEM
            | i::AMD_TOP_MEM2
            | i::AMD_NB_CFG
            | i::AMD_INT_PENDING
            | i::AMD_MMIO_CONF_BASE
            | i::AMD_SMM_ADDR
            | i::AMD_SMM_MASK
            | i::AMD_LS_CFG..=i::AMD_LAST_CFG,
        ) => Some(0),
        (Vendor::Intel | Vendor::Other, i::BIOS_SIGN_ID) => Some(INTEL_PATCH_LEVEL),
        (Vendor::Intel, i::EBL_CR_POWERON | i::PERF_STATUS) => Some(0),
        _ => None,
    })
}

/// The position of a fixed-range MTRR in `Msrs::mtrr_fixed`.
fn fixed_range(index: u32) -> Option<usize> {
    match index {
        i::MTRR_FIX64K_00000 => Some(0),
        i::MTRR_FIX16K_80000 => Some(1),
        i::MTRR_FIX16K_A0000 => Some(2),
        i::MTRR_FIX4K_C0000..=i::MTRR_FIX4K_F8000 => {
            Some((index - i::MTRR_FIX4K_C0000) as usize + 3)
        }
        _ => None,
    }
}

/// A memory type that MTRRs know: UC, WC, WT, WP, WB.
fn mtrr_type(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 4 | 5 | 6)
}

/// A memory type that the PAT knows: those of the MTRRs and UC-.
fn pat_type(kind: u8) -> bool {
    mtrr_type(kind) || kind == 7
}

fn variable_range(index: u32) -> Option<usize> {
    (i::MTRR_PHYSBASE0..=i::MTRR_PHYSMASK7)
        .contains(&index)
        .then(|| (index - i::MTRR_PHYSBASE0) as usize)
}

/// RDMSR of register `index`; the caller has checked the privilege.
/// # Errors
/// #GP(0) if the register does not exist.
pub fn read<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    index: u32,
) -> Result<u64, Fault> {
    if let Some(value) = constant(model, index) {
        return Ok(value);
    }
    if let Some(n) = fixed_range(index) {
        return Ok(st.msr.mtrr_fixed[n]);
    }
    if let Some(n) = variable_range(index) {
        return Ok(st.msr.mtrr_var[n]);
    }
    Ok(match index {
        i::TSC => env.tsc().wrapping_add(st.msr.tsc_offset),
        i::TSC_ADJUST => st.msr.tsc_offset,
        i::APIC_BASE => st.msr.apic_base,
        i::FEATURE_CONTROL if model.vendor() == Vendor::Intel => FEATURE_CONTROL_LOCKED,
        i::MTRRCAP => MTRRCAP_VALUE,
        i::MTRR_DEF_TYPE => st.msr.mtrr_def_type,
        i::PAT => st.msr.pat,
        i::SYSENTER_CS => st.msr.sysenter_cs,
        i::SYSENTER_ESP => st.msr.sysenter_esp,
        i::SYSENTER_EIP => st.msr.sysenter_eip,
        i::MCG_CAP | i::DEBUGCTL => 0,
        i::MISC_ENABLE => st.msr.misc_enable,
        i::TSC_DEADLINE if model.has_apic() => {
            if !env.tsc_deadline_armed() {
                st.msr.tsc_deadline = 0;
            }
            st.msr.tsc_deadline
        }
        i::EFER if model.has_nx() => st.msr.efer,
        i::TSC_AUX if model.has_rdtscp() => st.msr.tsc_aux,
        _ => return Err(Fault::gp(0)),
    })
}

/// IA32_TSC_DEADLINE becomes `value`; writes are ignored while the timer is in another mode. Intel
/// SDM vol. 3A, 11.5.4.1.
fn set_deadline<E: Env>(st: &mut GuestState, env: &mut E, value: u64) {
    let counter = (value != 0).then(|| value.wrapping_sub(st.msr.tsc_offset));
    if env.set_tsc_deadline(counter) {
        st.msr.tsc_deadline = value;
    }
}

/// The counter was written: an armed deadline is nearer or farther.
fn move_deadline<E: Env>(st: &mut GuestState, env: &mut E) {
    if env.tsc_deadline_armed() {
        set_deadline(st, env, st.msr.tsc_deadline);
    }
}

/// WRMSR of register `index`; the caller has checked the privilege.
/// # Errors
/// #GP(0) if the register does not exist, is read-only, or has a reserved bit set in `value`.
pub fn write<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    index: u32,
    value: u64,
) -> Result<(), Fault> {
    let physical = (1u64 << model.physical_bits()) - 1;
    let allow = |legal: bool| if legal { Ok(()) } else { Err(Fault::gp(0)) };
    if constant(model, index).is_some() {
        return Ok(());
    }
    if let Some(n) = fixed_range(index) {
        allow(value.to_le_bytes().into_iter().all(mtrr_type))?;
        st.msr.mtrr_fixed[n] = value;
        return Ok(());
    }
    if let Some(n) = variable_range(index) {
        let legal = if n % 2 == 0 {
            mtrr_type(value as u8) && value & !(physical & !0xf00) == 0
        } else {
            value & !(physical & !0x7ff) == 0
        };
        allow(legal)?;
        st.msr.mtrr_var[n] = value;
        return Ok(());
    }
    match index {
        i::TSC => {
            st.msr.tsc_offset = value.wrapping_sub(env.tsc());
            move_deadline(st, env);
        }
        i::TSC_ADJUST => {
            st.msr.tsc_offset = value;
            move_deadline(st, env);
        }
        i::TSC_DEADLINE if model.has_apic() => set_deadline(st, env, value),
        i::APIC_BASE => {
            use apic_base::{BSP, ENABLE};
            allow(value & !(BSP | ENABLE | (physical & !0xfff)) == 0)?;
            // BSP is read-only.
            st.msr.apic_base = (value & !BSP) | (st.msr.apic_base & BSP);
            env.set_apic_base(st.msr.apic_base);
        }
        i::BIOS_UPDT_TRIG if model.vendor() != Vendor::Amd => {}
        i::AMD_PATCH_LOADER if model.vendor() == Vendor::Amd => {}
        i::MTRR_DEF_TYPE => {
            allow(mtrr_type(value as u8) && value & !0xcff == 0)?;
            st.msr.mtrr_def_type = value;
        }
        i::PAT => {
            allow(value.to_le_bytes().into_iter().all(pat_type))?;
            st.msr.pat = value;
        }
        i::SYSENTER_CS => st.msr.sysenter_cs = value & 0xffff,
        i::SYSENTER_ESP => st.msr.sysenter_esp = value & 0xffff_ffff,
        i::SYSENTER_EIP => st.msr.sysenter_eip = value & 0xffff_ffff,
        i::DEBUGCTL => allow(value & !DEBUGCTL_BITS == 0)?,
        i::MISC_ENABLE => {
            st.msr.misc_enable = value & MISC_ENABLE_BITS;
        }
        i::EFER if model.has_nx() => {
            allow(value & !efer::NXE == 0)?;
            if value != st.msr.efer {
                st.msr.efer = value;
                env.flush_tlb(st, TlbFlush::All);
            }
        }
        i::TSC_AUX if model.has_rdtscp() => {
            allow(value >> 32 == 0)?;
            st.msr.tsc_aux = value;
        }
        _ => return Err(Fault::gp(0)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::execute::Flow;
    use crate::cpu::execute::tests::{faults, full_model, run};
    use crate::cpu::testenv::machine;
    use ring3_translator::state::gpr;

    #[test]
    fn registers_with_storage_read_back_what_was_written() {
        let cases = [
            (i::SYSENTER_CS, 0x60, 0x60),
            (i::SYSENTER_ESP, 0xc123_4560, 0xc123_4560),
            (i::SYSENTER_EIP, 0x1_c123_4560, 0xc123_4560),
            (i::PAT, 0x0007_0106_0504_0706, 0x0007_0106_0504_0706),
            (i::EFER, efer::NXE, efer::NXE),
            (i::TSC_AUX, 5, 5),
            (i::APIC_BASE, 0xfee0_0000, 0xfee0_0100), // BSP is read-only
            (i::MTRR_DEF_TYPE, 0xc06, 0xc06),
            (
                i::MTRR_FIX64K_00000,
                0x0606_0606_0606_0606,
                0x0606_0606_0606_0606,
            ),
            (
                i::MTRR_FIX4K_F8000,
                0x0505_0505_0505_0505,
                0x0505_0505_0505_0505,
            ),
            (i::MTRR_PHYSBASE0, 0xe000_0001, 0xe000_0001),
            (i::MTRR_PHYSMASK7, 0xf_f000_0800, 0xf_f000_0800),
            (i::TSC_ADJUST, 0x100, 0x100),
            (i::MISC_ENABLE, 1 | 1 << 34, 1),
            (i::DEBUGCTL, 1, 0),
            (i::AMD_HWCR, 0, HWCR_TSC_FREQ_SEL),
            (i::AMD_DE_CFG, u64::MAX, DE_CFG_LFENCE_SERIALIZES),
        ];
        let (mut st, mut env) = machine();
        for (index, value, expected) in cases {
            st.set_reg32(gpr::CX, index);
            st.set_reg32(gpr::AX, value as u32);
            st.set_reg32(gpr::DX, (value >> 32) as u32);
            assert_eq!(
                run(&mut st, &mut env, &[0x0f, 0x30]),
                Ok(Flow::Next),
                "{index:x}"
            );
            assert_eq!(
                run(&mut st, &mut env, &[0x0f, 0x32]),
                Ok(Flow::Next),
                "{index:x}"
            );
            let read = u64::from(st.reg32(gpr::DX)) << 32 | u64::from(st.reg32(gpr::AX));
            assert_eq!(read, expected, "{index:x}");
        }
        assert_eq!(env.flushes, [TlbFlush::All]); // EFER.NXE
    }

    #[test]
    fn reserved_values_and_unknown_registers_fault() {
        let (mut st, mut env) = machine();
        let bad = [
            (i::PAT, 2),
            (i::PAT, 0x0300_0000_0000_0000),
            (i::EFER, efer::SCE),
            (i::EFER, efer::LME),
            (i::APIC_BASE, 1 << 10),
            (i::APIC_BASE, 1 << 36),
            (i::MTRR_DEF_TYPE, 7),
            (i::MTRR_FIX16K_80000, 2),
            (i::MTRR_PHYSBASE0, 0x100),
            (i::MTRR_PHYSMASK7, 1 << 40),
            (i::MTRRCAP, 0),
            (i::MCG_CAP, 0),
            (i::DEBUGCTL, 4),
            (i::TSC_AUX, 1 << 32),
            (i::TSC_DEADLINE, 5), // without an APIC
            (0xc000_0081, 0),
            (0x1234_5678, 0),
        ];
        for (index, value) in bad {
            st.set_reg32(gpr::CX, index);
            st.set_reg32(gpr::AX, value as u32);
            st.set_reg32(gpr::DX, (value >> 32) as u32);
            faults(&mut st, &mut env, &[0x0f, 0x30], Fault::gp(0));
        }
        for index in [
            0xc000_0081,
            0xc000_0100,
            0x400,
            0x17b,
            0x1234_5678,
            u32::MAX,
        ] {
            st.set_reg32(gpr::CX, index);
            faults(&mut st, &mut env, &[0x0f, 0x32], Fault::gp(0));
        }
    }

    #[test]
    fn deadlines_are_kept_only_while_the_timer_takes_them() {
        let (mut st, mut env) = machine();
        let model = full_model().with_apic(true);
        assert_eq!(write(&mut st, &mut env, &model, i::TSC_DEADLINE, 9), Ok(()));
        assert_eq!(read(&mut st, &mut env, &model, i::TSC_DEADLINE), Ok(0));
    }

    #[test]
    fn writing_the_counter_moves_the_offset() {
        let (mut st, mut env) = machine();
        env.tsc = 1000;
        let model = full_model();
        write(&mut st, &mut env, &model, i::TSC, 5).unwrap();
        env.tsc = 1010;
        assert_eq!(read(&mut st, &mut env, &model, i::TSC), Ok(15));
        assert_eq!(
            read(&mut st, &mut env, &model, i::TSC_ADJUST),
            Ok(5u64.wrapping_sub(1000))
        );
    }
}
