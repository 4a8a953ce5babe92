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
const CR0_BITS: u64 =
    cr0::PE | cr0::MP | cr0::EM | cr0::TS | cr0::NE | cr0::WP | cr0::AM | cr0::NW | cr0::CD | cr0::PG;

/// If the current privilege level is not 0: #GP(0).
/// # Errors
/// That fault.
pub fn require_cpl0(st: &GuestState) -> Result<(), Fault> {
    if st.cpl == 0 { Ok(()) } else { Err(Fault::gp(0)) }
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
pub fn set_cr0<E: Env>(st: &mut GuestState, env: &mut E, model: &CpuModel, value: u64) -> Result<(), Fault> {
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
    // WP too: filled entries carry the supervisor's write permission as it was.
    if changed & (cr0::PG | cr0::PE | cr0::WP) != 0 {
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
pub fn set_cr3<E: Env>(st: &mut GuestState, env: &mut E, model: &CpuModel, value: u64) -> Result<(), Fault> {
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
pub fn set_cr4<E: Env>(st: &mut GuestState, env: &mut E, model: &CpuModel, value: u64) -> Result<(), Fault> {
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
    if !matches!(cr, Register::CR0 | Register::CR2 | Register::CR3 | Register::CR4) {
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
