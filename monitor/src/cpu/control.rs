//! Control registers: MOV CRn, CLTS, LMSW, SMSW, XGETBV and XSETBV. Intel SDM vol. 3A, 2.5 and
//! 2.6; vol. 2, each entry. Long mode is absent: CR0.PG never meets EFER.LME.

use crate::cpu::cpuid::CpuModel;
use crate::cpu::env::{Env, TlbFlush};
use crate::cpu::execute::Flow;
use crate::cpu::fault::Fault;
use crate::cpu::operand;
use iced_x86::{Instruction, OpKind, Register};
use ring3_translator::state::{GuestState, cr0, cr4, gpr};

/// The CR0 bits that exist; writes to others are ignored, ET reads as one.
const CR0_BITS: u64 = cr0::PE
    | cr0::MP
    | cr0::EM
    | cr0::TS
    | cr0::NE
    | cr0::WP
    | cr0::AM
    | cr0::NW
    | cr0::CD
    | cr0::PG;

/// If the current privilege level is not 0: #GP(0).
/// # Errors
/// That fault.
pub fn require_cpl0(st: &GuestState) -> Result<(), Fault> {
    if st.cpl == 0 {
        Ok(())
    } else {
        Err(Fault::gp(0))
    }
}

/// If a present PAE directory-pointer entry has a reserved bit set (1, 2, 5-8, or above the
/// physical address width): #GP(0). Intel SDM vol. 3A, 4.4.1.
fn load_pdptes<E: Env>(env: &mut E, model: &CpuModel, cr3: u64) -> Result<[u64; 4], Fault> {
    let reserved = 0x1e6 | !((1u64 << model.physical_bits()) - 1);
    let entries = env.read_pdptes(cr3);
    if entries.iter().any(|e| e & 1 != 0 && e & reserved != 0) {
        return Err(Fault::gp(0));
    }
    Ok(entries)
}

/// Loads CR0 as MOV to CR0 and LMSW do.
/// # Errors
/// #GP(0) for NW without CD, PG without PE, or bad PAE directory-pointer entries.
pub fn set_cr0<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    value: u64,
) -> Result<(), Fault> {
    let new = (value & CR0_BITS) | cr0::ET;
    let changed = new ^ st.cr0;
    if new & (cr0::NW | cr0::CD) == cr0::NW || new & (cr0::PG | cr0::PE) == cr0::PG {
        return Err(Fault::gp(0));
    }
    let pae = new & cr0::PG != 0 && st.cr4 & cr4::PAE != 0;
    if pae && changed & (cr0::PG | cr0::CD | cr0::NW) != 0 {
        st.pdpte = load_pdptes(env, model, st.cr3)?;
    }
    st.cr0 = new;
    // WP too: filled entries carry the supervisor's write permission as it was. Without paging
    // before and after, nothing that is kept depends on CR0: firmware and boot loaders go to
    // protected mode and back for every service.
    let paged = new & cr0::PG != 0 && changed & cr0::WP != 0;
    if changed & cr0::PG != 0 || paged {
        env.flush_tlb(st, TlbFlush::All);
    }
    if changed & cr0::PE != 0 {
        st.reclassify_segments();
    }
    Ok(())
}

/// Loads CR3 as MOV to CR3 does.
/// # Errors
/// #GP(0) for bad PAE directory-pointer entries.
pub fn set_cr3<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    value: u64,
) -> Result<(), Fault> {
    if st.cr0 & cr0::PG != 0 && st.cr4 & cr4::PAE != 0 {
        st.pdpte = load_pdptes(env, model, value)?;
    }
    st.cr3 = value;
    let what = if st.cr4 & cr4::PGE != 0 {
        TlbFlush::NonGlobal
    } else {
        TlbFlush::All
    };
    env.flush_tlb(st, what);
    Ok(())
}

/// Loads CR4 as MOV to CR4 does.
/// # Errors
/// #GP(0) for bits that the model does not have, or bad PAE directory-pointer entries.
pub fn set_cr4<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    value: u64,
) -> Result<(), Fault> {
    if value & !model.cr4_bits() != 0 {
        return Err(Fault::gp(0));
    }
    let paging_bits = cr4::PSE | cr4::PAE | cr4::PGE | cr4::SMEP;
    let changed = (value ^ st.cr4) & paging_bits != 0;
    if changed && st.cr0 & cr0::PG != 0 && value & cr4::PAE != 0 {
        st.pdpte = load_pdptes(env, model, st.cr3)?;
    }
    st.cr4 = value;
    if changed {
        env.flush_tlb(st, TlbFlush::All);
    }
    Ok(())
}

/// MOV r32, CRn.
/// # Errors
/// #UD for a register that does not exist; #GP(0) if CPL is not 0.
pub fn mov_from_cr(st: &mut GuestState, insn: &Instruction) -> Result<Flow, Fault> {
    let value = match insn.op1_register() {
        Register::CR0 => st.cr0,
        Register::CR2 => st.cr2,
        Register::CR3 => st.cr3,
        Register::CR4 => st.cr4,
        _ => return Err(Fault::ud()),
    };
    require_cpl0(st)?;
    operand::set_register(st, insn.op0_register(), value as u32);
    Ok(Flow::Next)
}

/// MOV CRn, r32.
/// # Errors
/// #UD for a register that does not exist; #GP(0) if CPL is not 0, and as the register's load.
pub fn mov_to_cr<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    let value = u64::from(operand::register(st, insn.op1_register()));
    let cr = insn.op0_register();
    if !matches!(
        cr,
        Register::CR0 | Register::CR2 | Register::CR3 | Register::CR4
    ) {
        return Err(Fault::ud());
    }
    require_cpl0(st)?;
    match cr {
        Register::CR0 => set_cr0(st, env, model, value)?,
        Register::CR2 => st.cr2 = value,
        Register::CR3 => set_cr3(st, env, model, value)?,
        _ => set_cr4(st, env, model, value)?,
    }
    Ok(Flow::Next)
}

/// CLTS.
/// # Errors
/// #GP(0) if CPL is not 0.
pub fn clts(st: &mut GuestState) -> Result<Flow, Fault> {
    require_cpl0(st)?;
    st.cr0 &= !cr0::TS;
    Ok(Flow::Next)
}

/// LMSW: loads PE, MP, EM and TS; PE cannot be cleared.
/// # Errors
/// #GP(0) if CPL is not 0; operand faults.
pub fn lmsw<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    require_cpl0(st)?;
    let source = u64::from(operand::read_rm(st, env, insn, 0, 2)?);
    let value = (st.cr0 & !(cr0::MP | cr0::EM | cr0::TS)) | (source & 0xf);
    set_cr0(st, env, model, value)?;
    Ok(Flow::Next)
}

/// SMSW: a 32-bit register receives all of CR0, everything else the low 16 bits.
/// # Errors
/// Operand faults.
pub fn smsw<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    let value = st.cr0 as u32;
    operand::write_rm(st, env, insn, 0, 2, value)?;
    Ok(Flow::Next)
}

/// INVLPG: the address is formed without a limit check.
/// # Errors
/// #UD for a register operand; #GP(0) if CPL is not 0.
pub fn invlpg<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    if insn.op0_kind() != OpKind::Memory {
        return Err(Fault::ud());
    }
    require_cpl0(st)?;
    let (seg, offset) = operand::address(st, insn);
    let base = st.segment(seg).base;
    env.invalidate_page(st, ring3_translator::addr::LinAddr(base).add32(offset));
    Ok(Flow::Next)
}

/// XGETBV.
/// # Errors
/// #UD without CR4.OSXSAVE; #GP(0) for a register other than XCR0.
pub fn xgetbv(st: &mut GuestState) -> Result<Flow, Fault> {
    if st.cr4 & cr4::OSXSAVE == 0 {
        return Err(Fault::ud());
    }
    if st.reg32(gpr::CX) != 0 {
        return Err(Fault::gp(0));
    }
    let value = st.xcr0;
    st.set_reg32(gpr::AX, value as u32);
    st.set_reg32(gpr::DX, (value >> 32) as u32);
    Ok(Flow::Next)
}

/// XSETBV.
/// # Errors
/// #UD without CR4.OSXSAVE; #GP(0) if CPL is not 0, for a register other than XCR0, without the
/// x87 bit, with AVX but not SSE, or for a component that the model does not have.
pub fn xsetbv(st: &mut GuestState, model: &CpuModel) -> Result<Flow, Fault> {
    if st.cr4 & cr4::OSXSAVE == 0 {
        return Err(Fault::ud());
    }
    require_cpl0(st)?;
    let value = u64::from(st.reg32(gpr::DX)) << 32 | u64::from(st.reg32(gpr::AX));
    let sse_missing = value & 6 == 4;
    if st.reg32(gpr::CX) != 0 || value & 1 == 0 || sse_missing || value & !model.xcr0_bits() != 0 {
        return Err(Fault::gp(0));
    }
    st.xcr0 = value;
    Ok(Flow::Next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::execute::tests::{faults, run};
    use crate::cpu::testenv::{machine, set_ring};
    use ring3_translator::addr::LinAddr;
    use ring3_translator::state::SegReg;

    const TO_CR0: &[u8] = &[0x0f, 0x22, 0xc0];
    const TO_CR3: &[u8] = &[0x0f, 0x22, 0xd8];
    const TO_CR4: &[u8] = &[0x0f, 0x22, 0xe0];

    #[test]
    fn cr0_ignores_unknown_bits_and_refuses_contradictions() {
        let (mut st, mut env) = machine();
        for bad in [cr0::PG, cr0::PE | cr0::NW] {
            st.set_reg32(gpr::AX, bad as u32);
            faults(&mut st, &mut env, TO_CR0, Fault::gp(0));
        }
        st.set_reg32(gpr::AX, (0x1ffa_ffc0u64 | cr0::PE | cr0::TS) as u32);
        assert_eq!(run(&mut st, &mut env, TO_CR0), Ok(Flow::Next));
        assert_eq!(st.cr0, cr0::PE | cr0::TS | cr0::ET);
        assert!(env.flushes.is_empty());
        st.set_reg32(gpr::AX, (cr0::PG | cr0::PE | cr0::WP) as u32);
        assert_eq!(run(&mut st, &mut env, TO_CR0), Ok(Flow::Next));
        assert_eq!(env.flushes, [TlbFlush::All]);
        assert_eq!(run(&mut st, &mut env, &[0x0f, 0x20, 0xc1]), Ok(Flow::Next)); // mov ecx, cr0
        assert_eq!(st.reg32(gpr::CX), 0x8001_0011);
    }

    #[test]
    fn leaving_protected_mode_classifies_segments_anew() {
        let (mut st, mut env) = machine();
        let mut code = *st.segment(SegReg::Cs);
        code.attr.0 = 0x009b;
        st.set_segment(SegReg::Es, code); // readable code: not writable in protected mode
        let before = st.segment(SegReg::Es).class;
        st.set_reg32(gpr::AX, 0);
        assert_eq!(run(&mut st, &mut env, TO_CR0), Ok(Flow::Next));
        assert_ne!(st.segment(SegReg::Es).class, before);
        assert!(!st.protected());
        assert!(env.flushes.is_empty(), "addresses are what they were");
    }

    #[test]
    fn pae_entries_are_loaded_and_their_reserved_bits_checked() {
        let (mut st, mut env) = machine();
        st.cr4 = cr4::PAE;
        env.pdptes = [0x1001, 0x2000, 0x3001, 0x4019];
        st.set_reg32(gpr::AX, (cr0::PG | cr0::PE) as u32);
        assert_eq!(run(&mut st, &mut env, TO_CR0), Ok(Flow::Next));
        assert_eq!(st.pdpte, env.pdptes);
        env.pdptes = [0x1001, 0x2006, 0, 0]; // reserved bits only where not present: legal
        st.set_reg32(gpr::AX, 0x5000);
        assert_eq!(run(&mut st, &mut env, TO_CR3), Ok(Flow::Next));
        assert_eq!((st.cr3, st.pdpte), (0x5000, env.pdptes));
        for bad in [0x1003, 0x1005, 0x1021, 0x1101, 1 | 1 << 36, 1 | 1 << 63] {
            env.pdptes = [0x1001, bad, 0, 0];
            st.set_reg32(gpr::AX, 0x6000);
            faults(&mut st, &mut env, TO_CR3, Fault::gp(0));
        }
    }

    #[test]
    fn cr3_keeps_global_entries_only_with_pge() {
        let (mut st, mut env) = machine();
        assert_eq!(run(&mut st, &mut env, TO_CR3), Ok(Flow::Next));
        st.cr4 = cr4::PGE;
        assert_eq!(run(&mut st, &mut env, TO_CR3), Ok(Flow::Next));
        assert_eq!(env.flushes, [TlbFlush::All, TlbFlush::NonGlobal]);
    }

    #[test]
    fn cr4_refuses_what_the_model_lacks() {
        let (mut st, mut env) = machine();
        for bad in [cr4::UMIP, cr4::SMAP, cr4::FSGSBASE, 1 << 17, 1 << 31] {
            st.set_reg32(gpr::AX, bad as u32);
            faults(&mut st, &mut env, TO_CR4, Fault::gp(0));
        }
        st.set_reg32(gpr::AX, (cr4::PGE | cr4::OSFXSR | cr4::OSXSAVE) as u32);
        assert_eq!(run(&mut st, &mut env, TO_CR4), Ok(Flow::Next));
        assert_eq!(st.cr4, cr4::PGE | cr4::OSFXSR | cr4::OSXSAVE);
        st.set_reg32(gpr::AX, cr4::PGE as u32);
        assert_eq!(run(&mut st, &mut env, TO_CR4), Ok(Flow::Next));
        assert_eq!(env.flushes, [TlbFlush::All]); // the second write changed no paging bit
    }

    #[test]
    fn absent_control_registers_are_undefined() {
        let (mut st, mut env) = machine();
        for code in [
            [0x0f, 0x20, 0xc8],
            [0x0f, 0x22, 0xc8],
            [0x0f, 0x20, 0xe8],
            [0x0f, 0x22, 0xf8],
        ] {
            faults(&mut st, &mut env, &code, Fault::ud());
        }
    }

    #[test]
    fn lmsw_sets_but_never_clears_pe_and_smsw_is_not_privileged() {
        let (mut st, mut env) = machine();
        st.cr0 |= cr0::TS | cr0::NE;
        st.set_reg32(gpr::AX, 0xfff2);
        assert_eq!(run(&mut st, &mut env, &[0x0f, 0x01, 0xf0]), Ok(Flow::Next));
        assert_eq!(st.cr0, cr0::PE | cr0::MP | cr0::ET | cr0::NE);
        set_ring(&mut st, 3);
        st.set_reg32(gpr::BX, u32::MAX);
        assert_eq!(run(&mut st, &mut env, &[0x0f, 0x01, 0xe3]), Ok(Flow::Next));
        assert_eq!(st.reg32(gpr::BX), 0x33);
        env.put32(0x5000, u32::MAX);
        assert_eq!(
            run(&mut st, &mut env, &[0x0f, 0x01, 0x25, 0, 0x50, 0, 0]),
            Ok(Flow::Next)
        );
        assert_eq!(env.get32(0x5000), 0xffff_0033);
        set_ring(&mut st, 0);
        st.cr0 |= cr0::TS;
        assert_eq!(run(&mut st, &mut env, &[0x0f, 0x06]), Ok(Flow::Next));
        assert_eq!(st.cr0 & cr0::TS, 0);
    }

    #[test]
    fn invlpg_adds_the_base_and_skips_the_limit() {
        let (mut st, mut env) = machine();
        let mut ds = *st.segment(SegReg::Ds);
        (ds.base, ds.limit) = (0x1_0000, 0xff);
        st.set_segment(SegReg::Ds, ds);
        assert_eq!(
            run(&mut st, &mut env, &[0x0f, 0x01, 0x3d, 0, 0x50, 0, 0]),
            Ok(Flow::Next)
        );
        assert_eq!(env.invalidated, [LinAddr(0x1_5000)]);
    }

    #[test]
    fn xcr0_needs_osxsave_ring_0_and_a_legal_combination() {
        const XGETBV: &[u8] = &[0x0f, 0x01, 0xd0];
        const XSETBV: &[u8] = &[0x0f, 0x01, 0xd1];
        let (mut st, mut env) = machine();
        faults(&mut st, &mut env, XGETBV, Fault::ud());
        faults(&mut st, &mut env, XSETBV, Fault::ud());
        st.cr4 = cr4::OSXSAVE;
        st.set_reg32(gpr::DX, 0);
        for bad in [0, 2, 5, 9, 0xe7] {
            st.set_reg32(gpr::AX, bad);
            faults(&mut st, &mut env, XSETBV, Fault::gp(0));
        }
        st.set_reg32(gpr::AX, 7);
        assert_eq!(run(&mut st, &mut env, XSETBV), Ok(Flow::Next));
        assert_eq!(st.xcr0, 7);
        set_ring(&mut st, 3);
        faults(&mut st, &mut env, XSETBV, Fault::gp(0));
        st.set_reg32(gpr::AX, 0);
        assert_eq!(run(&mut st, &mut env, XGETBV), Ok(Flow::Next));
        assert_eq!(st.reg32(gpr::AX), 7);
        st.set_reg32(gpr::CX, 1);
        faults(&mut st, &mut env, XGETBV, Fault::gp(0));
    }
}
