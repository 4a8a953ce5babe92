//! XSAVE, XSAVEOPT and XRSTOR in the standard format. Intel SDM vol. 1, 13.7-13.9. The compacted
//! format (XSAVEC, XSAVES) is not advertised.

use crate::cpu::cpuid::CpuModel;
use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::execute::Flow;
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::fpu::{
    AVX, HEADER, MXCSR, SSE, ST, X87, XMM, XMM_END, YMM, YMM_END, aligned_area, checked_mxcsr,
    guest_image, in_use, mark, materialize, take_x87, take_xmm,
};
use iced_x86::Instruction;
use ring3_translator::addr::LinAddr;
use ring3_translator::state::{GuestState, cr0, cr4, gpr};

/// Bytes of the area without and with AVX (all sixteen registers count).
const AREA_LEGACY: usize = 576;
const AREA_AVX: usize = 832;

/// The requested feature bitmap: EDX:EAX and XCR0.
/// CR4.OSXSAVE clear: #UD. CR0.TS set: #NM.
fn requested(st: &GuestState) -> Result<u64, Fault> {
    if st.cr4 & cr4::OSXSAVE == 0 {
        return Err(Fault::ud());
    }
    if st.cr0 & cr0::TS != 0 {
        return Err(Fault::plain(Vector::Nm));
    }
    let mask = u64::from(st.reg32(gpr::DX)) << 32 | u64::from(st.reg32(gpr::AX));
    Ok(mask & st.xcr0)
}

fn area_bytes(components: u64) -> usize {
    if components & AVX != 0 {
        AREA_AVX
    } else {
        AREA_LEGACY
    }
}

/// XSAVE, and XSAVEOPT where `optimized`: the latter skips components in their initial state.
/// # Errors
/// #UD without CR4.OSXSAVE or the feature; #NM with CR0.TS; #GP(0) unless 64-byte aligned; memory
/// faults.
pub fn xsave<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    insn: &Instruction,
    optimized: bool,
) -> Result<Flow, Fault> {
    if optimized && !model.has_xsaveopt() {
        return Err(Fault::ud());
    }
    let mask = requested(st)?;
    let len = area_bytes(mask);
    let at = aligned_area(st, insn, len, 64, Access::Write)?;
    let who = Privilege::of(st);
    env.probe(st, at, len as u32, Access::Write, who)?;
    let mut old = [0; 8];
    env.read(st, LinAddr(at.0 + HEADER as u64), &mut old, who)?;

    let used = in_use(st);
    let image = guest_image(st, model);
    let written = if optimized { mask & used } else { mask };
    let mut put = |st: &mut GuestState, from: usize, to: usize| {
        env.write(st, LinAddr(at.0 + from as u64), &image[from..to], who)
    };
    if written & X87 != 0 {
        put(st, 0, MXCSR)?;
        put(st, ST, XMM)?;
    }
    if mask & (SSE | AVX) != 0 {
        put(st, MXCSR, ST)?;
    }
    if written & SSE != 0 {
        put(st, XMM, XMM_END)?;
    }
    if written & AVX != 0 {
        put(st, YMM, YMM_END)?;
    }
    let bits = (u64::from_le_bytes(old) & !mask) | (used & mask);
    env.write(st, LinAddr(at.0 + HEADER as u64), &bits.to_le_bytes(), who)?;
    Ok(Flow::Next)
}

/// XRSTOR.
/// # Errors
/// #UD without CR4.OSXSAVE; #NM with CR0.TS; #GP(0) unless 64-byte aligned, for a header with bits
/// that XCR0 lacks, the compacted format or reserved bytes, or for reserved MXCSR bits; memory
/// faults.
pub fn xrstor<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    let mask = requested(st)?;
    let len = area_bytes(mask);
    let at = aligned_area(st, insn, len, 64, Access::Read)?;
    let who = Privilege::of(st);
    let mut image = [0; AREA_AVX];
    // The first bytes, then the header, whose contents come before faults of the rest (measured).
    env.probe(st, at, 1, Access::Read, who)?;
    let header = LinAddr(at.0 + HEADER as u64);
    env.read(st, header, &mut image[HEADER..AREA_LEGACY], who)?;

    let mut bits = [0; 8];
    bits.copy_from_slice(&image[HEADER..HEADER + 8]);
    let present = u64::from_le_bytes(bits);
    // XSTATE_BV sets a bit that XCR0 lacks, or bytes 23:8 of the header are not all 0: #GP(0).
    if present & !st.xcr0 != 0 || image[HEADER + 8..HEADER + 24].iter().any(|b| *b != 0) {
        return Err(Fault::gp(0));
    }
    env.read(st, at, &mut image[..len], who)?;
    if mask & (SSE | AVX) != 0 {
        let mxcsr = checked_mxcsr(model, &image)?;
        st.xsave.0[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr);
    }
    mark(st, mask & !present, false);
    if mask & present & X87 != 0 {
        take_x87(st, &image);
    }
    if mask & present & SSE != 0 {
        take_xmm(st, &image);
    }
    if mask & present & AVX != 0 {
        materialize(st, AVX);
        st.xsave.0[YMM..YMM_END].copy_from_slice(&image[YMM..YMM_END]);
    }
    Ok(Flow::Next)
}
