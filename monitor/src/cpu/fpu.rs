//! FXSAVE and FXRSTOR, and the saved FPU image that all state instructions share. Intel SDM
//! vol. 1, 10.5 and 13.4; vol. 2, each entry.
//!
//! While the monitor runs, the guest's x87, SSE and AVX state is an image in XSAVE standard format
//! in `GuestState::xsave`. A component whose XSTATE_BV bit is clear is in its initial state, and
//! its bytes mean nothing; MXCSR is always valid. Instruction and operand pointers (FIP, FCS, FDP,
//! FDS) and the last opcode would be those of translated code, so they are always reported as zero.

use crate::cpu::cpuid::CpuModel;
use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::execute::Flow;
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::{operand, segment};
use iced_x86::Instruction;
use ring3_translator::addr::LinAddr;
use ring3_translator::state::{GuestState, cr0, cr4};

/// XSTATE_BV and XCR0 bit of the x87 state.
pub(crate) const X87: u64 = 1;
/// XSTATE_BV and XCR0 bit of the XMM registers.
pub(crate) const SSE: u64 = 2;
/// XSTATE_BV and XCR0 bit of the upper halves of the YMM registers.
pub(crate) const AVX: u64 = 4;

/// Offset of the abridged tag byte; FCW is at 0 and FSW at 2.
pub(crate) const TAG: usize = 4;
/// Offset of MXCSR.
pub(crate) const MXCSR: usize = 24;
/// Offset of MXCSR_MASK.
const MXCSR_MASK: usize = 28;
/// Offset of ST0; each register takes 16 bytes, in stack order.
pub(crate) const ST: usize = 32;
/// Offset of XMM0.
pub(crate) const XMM: usize = 160;
/// End of XMM7: outside 64-bit mode XMM8-15 do not exist.
pub(crate) const XMM_END: usize = 288;
/// Offset of XSTATE_BV.
pub(crate) const HEADER: usize = 512;
/// Offset of the upper half of YMM0, and the end of that of YMM7.
pub(crate) const YMM: usize = 576;
/// End of the upper half of YMM7.
pub(crate) const YMM_END: usize = YMM + 128;
/// Bytes of the AVX component with all sixteen registers.
const YMM_ALL: usize = 256;
/// FCW after FNINIT.
pub(crate) const FCW_INIT: u16 = 0x37f;

/// The part of the image that guests see.
pub(crate) type Image = [u8; YMM_END];

/// XSTATE_BV: the components that are not in their initial state.
pub(crate) fn in_use(st: &GuestState) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&st.xsave.0[HEADER..HEADER + 8]);
    u64::from_le_bytes(bytes)
}

/// Sets and clears XSTATE_BV bits.
pub(crate) fn mark(st: &mut GuestState, components: u64, used: bool) {
    let old = in_use(st);
    let new = if used {
        old | components
    } else {
        old & !components
    };
    st.xsave.0[HEADER..HEADER + 8].copy_from_slice(&new.to_le_bytes());
}

/// Gives components in their initial state their initial bytes and marks them as in use.
pub(crate) fn materialize(st: &mut GuestState, components: u64) {
    let missing = components & !in_use(st);
    if missing & X87 != 0 {
        st.xsave.0[..MXCSR].fill(0);
        st.xsave.0[ST..XMM].fill(0);
        st.xsave.0[..2].copy_from_slice(&FCW_INIT.to_le_bytes());
    }
    if missing & SSE != 0 {
        st.xsave.0[XMM..XMM + 256].fill(0);
    }
    if missing & AVX != 0 {
        st.xsave.0[YMM..YMM + YMM_ALL].fill(0);
    }
    mark(st, components, true);
}

/// The guest's view of the image: initial bytes filled in, pointers zero.
pub(crate) fn guest_image(st: &GuestState, model: &CpuModel) -> Image {
    let used = in_use(st);
    let mut image = [0; YMM_END];
    if used & X87 != 0 {
        image[..TAG + 1].copy_from_slice(&st.xsave.0[..TAG + 1]);
        for reg in (ST..XMM).step_by(16) {
            image[reg..reg + 10].copy_from_slice(&st.xsave.0[reg..reg + 10]);
        }
    } else {
        image[..2].copy_from_slice(&FCW_INIT.to_le_bytes());
    }
    image[MXCSR..MXCSR_MASK].copy_from_slice(&st.xsave.0[MXCSR..MXCSR_MASK]);
    image[MXCSR_MASK..ST].copy_from_slice(&model.mxcsr_mask().to_le_bytes());
    if used & SSE != 0 {
        image[XMM..XMM_END].copy_from_slice(&st.xsave.0[XMM..XMM_END]);
    }
    if used & AVX != 0 {
        image[YMM..].copy_from_slice(&st.xsave.0[YMM..YMM_END]);
    }
    image
}

/// Takes the x87 state from a guest's FXSAVE image of at least 160 bytes.
pub(crate) fn take_x87(st: &mut GuestState, image: &[u8]) {
    materialize(st, X87);
    st.xsave.0[..MXCSR].fill(0);
    st.xsave.0[..TAG + 1].copy_from_slice(&image[..TAG + 1]);
    // Reserved control bits read as fixed values; the summary bits follow from the exceptions that
    // are pending and not masked.
    let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
    let (fcw, fsw) = (word(0) & 0x1f3f | 0x40, word(2) & !0x8080);
    let pending = fsw & 0x3f & !fcw != 0;
    st.xsave.0[..2].copy_from_slice(&fcw.to_le_bytes());
    st.xsave.0[2..4].copy_from_slice(&(fsw | if pending { 0x8080 } else { 0 }).to_le_bytes());
    for reg in (ST..XMM).step_by(16) {
        st.xsave.0[reg..reg + 10].copy_from_slice(&image[reg..reg + 10]);
    }
}

/// Takes XMM0-7 from a guest's FXSAVE image of at least 288 bytes.
pub(crate) fn take_xmm(st: &mut GuestState, image: &[u8]) {
    materialize(st, SSE);
    st.xsave.0[XMM..XMM_END].copy_from_slice(&image[XMM..XMM_END]);
}

/// The MXCSR of a guest's image. If it has a reserved bit set: #GP(0).
pub(crate) fn checked_mxcsr(model: &CpuModel, image: &[u8]) -> Result<[u8; 4], Fault> {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&image[MXCSR..MXCSR_MASK]);
    if u32::from_le_bytes(bytes) & !model.mxcsr_mask() != 0 {
        Err(Fault::gp(0))
    } else {
        Ok(bytes)
    }
}

/// If CR0.EM or CR0.TS is set: #NM.
pub(crate) fn require_fpu(st: &GuestState) -> Result<(), Fault> {
    if st.cr0 & (cr0::EM | cr0::TS) != 0 {
        Err(Fault::plain(Vector::Nm))
    } else {
        Ok(())
    }
}

/// The linear address of an area of `len` bytes. If it is not aligned: #GP(0).
pub(crate) fn aligned_area(
    st: &GuestState,
    insn: &Instruction,
    len: usize,
    align: u64,
    access: Access,
) -> Result<LinAddr, Fault> {
    let (seg, offset) = operand::address(st, insn);
    // Which exception comes first, measured on AMD (the manuals leave it open): FXSAVE and FXRSTOR
    // look at the limit for the first byte, at alignment, and at the limit for the rest; XSAVE and
    // XRSTOR (64) at alignment first.
    if align < 64 {
        segment::linear(st, seg, offset, 1, access)?;
    }
    let linear = (st.segment(seg).base as u32).wrapping_add(offset);
    if u64::from(linear) % align != 0 {
        return Err(Fault::gp(0));
    }
    segment::linear(st, seg, offset, len as u32, access)
}

/// FXSAVE. Without CR4.OSFXSR the XMM registers are not stored.
/// # Errors
/// #NM with CR0.EM or TS; #GP(0) unless 16-byte aligned; memory faults.
pub fn fxsave<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    require_fpu(st)?;
    let at = aligned_area(st, insn, HEADER, 16, Access::Write)?;
    let who = Privilege::of(st);
    env.probe(st, at, HEADER as u32, Access::Write, who)?;
    let image = guest_image(st, model);
    let end = if st.cr4 & cr4::OSFXSR != 0 {
        XMM_END
    } else {
        XMM
    };
    env.write(st, at, &image[..end], who)?;
    Ok(Flow::Next)
}

/// FXRSTOR. Without CR4.OSFXSR the XMM registers and MXCSR are not loaded.
/// # Errors
/// #NM with CR0.EM or TS; #GP(0) unless 16-byte aligned or for reserved MXCSR bits; memory faults.
pub fn fxrstor<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    require_fpu(st)?;
    let at = aligned_area(st, insn, HEADER, 16, Access::Read)?;
    let who = Privilege::of(st);
    let mut image = [0; HEADER];
    env.read(st, at, &mut image, who)?;
    if st.cr4 & cr4::OSFXSR != 0 {
        let mxcsr = checked_mxcsr(model, &image)?;
        st.xsave.0[MXCSR..MXCSR_MASK].copy_from_slice(&mxcsr);
        take_xmm(st, &image);
    }
    take_x87(st, &image);
    Ok(Flow::Next)
}

#[cfg(test)]
#[path = "fpu_tests.rs"]
mod tests;
