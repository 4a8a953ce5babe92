//! FNSTENV, FLDENV, FNSAVE and FRSTOR: the x87 environment and state in the formats of the 8087
//! and 80387. Intel SDM vol. 1, 8.1.10 and figures 8-9 to 8-12.
//!
//! The pointers are stored as zero, so the real-mode and protected-mode formats differ only in
//! which reserved halves are all ones.

use crate::cpu::env::Env;
use crate::cpu::execute::Flow;
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::fpu::{FCW_INIT, ST, TAG, X87, in_use, materialize, require_fpu};
use crate::cpu::operand;
use crate::cpu::segment::real_addressing;
use iced_x86::{Code, Instruction};
use ring3_translator::mutation::Mutation;
use ring3_translator::state::GuestState;

/// Bytes of the environment in 16- and 32-bit format.
const ENV16: usize = 14;
const ENV32: usize = 28;
/// Bytes of the eight registers.
const REGISTERS: usize = 80;
/// FCW: all exceptions masked.
const MASKS: u16 = 0x3f;
/// FCW bits that software sets; bit 6 reads as one.
const FCW_BITS: u16 = 0x1f3f;
const FCW_ONES: u16 = 0x40;
/// FSW.ES and FSW.B.
const FSW_SUMMARY: u16 = 0x8080;
const FSW_ES: u16 = 0x80;

fn word(st: &GuestState, at: usize) -> u16 {
    u16::from_le_bytes([st.xsave.0[at], st.xsave.0[at + 1]])
}

fn set_word(st: &mut GuestState, at: usize, value: u16) {
    st.xsave.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Sets FSW. The image holds the registers in stack order, the processor keeps them where they
/// are: when TOP changes, the image is rotated.
fn set_status(st: &mut GuestState, fsw: u16) {
    let top = |fsw: u16| usize::from(fsw >> 11 & 7);
    let turn = (top(fsw) + 8 - top(word(st, 2))) % 8;
    st.xsave.0[ST..ST + 128].rotate_left(turn * 16);
    set_word(st, 2, fsw);
}

/// FSW.ES: an unmasked x87 exception waits.
pub(crate) fn exception_pending(st: &GuestState) -> bool {
    in_use(st) & X87 != 0 && word(st, 2) & FSW_ES != 0
}

/// What every MMX instruction but EMMS does to the x87 state: TOP is 0, all registers are in use.
/// Intel SDM vol. 1, 9.6.2.
pub(crate) fn enter_mmx(st: &mut GuestState) {
    materialize(st, X87);
    set_status(st, word(st, 2) & !0x3800);
    st.xsave.0[4] = 0xff;
}

/// The two-bit tag of a register's ten bytes: valid, zero or special.
fn tag(register: &[u8]) -> u16 {
    let exponent = u16::from_le_bytes([register[8], register[9]]) & 0x7fff;
    let integer_bit = register[7] & 0x80 != 0;
    let zero = register[..8].iter().all(|b| *b == 0);
    match (exponent, integer_bit) {
        (0, _) if zero => 1,
        (1..0x7fff, true) => 0,
        _ => 2,
    }
}

/// The 16-bit tag word, from the abridged tags and the registers' contents.
fn full_tags(st: &GuestState) -> u16 {
    let top = usize::from(word(st, 2) >> 11 & 7);
    let mut tags = 0;
    for physical in 0..8 {
        let bits = if st.xsave.0[TAG] & 1 << physical == 0 {
            3
        } else {
            let at = ST + (physical + 8 - top) % 8 * 16;
            match tag(&st.xsave.0[at..at + 10]) {
                2 if st.broken(Mutation::FpuTags) => 0,
                t => t,
            }
        };
        tags |= bits << (physical * 2);
    }
    tags
}

/// The environment as stored; returns its length.
fn environment(st: &GuestState, wide: bool, out: &mut [u8; ENV32]) -> usize {
    let words = [word(st, 0), word(st, 2), full_tags(st)];
    if !wide {
        for (slot, value) in out.chunks_exact_mut(2).zip(words) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        return ENV16;
    }
    // Slots after the three words: FIP, FCS with opcode, FDP, FDS; all ones in reserved halves.
    let pointers: [u32; 4] = if real_addressing(st) {
        [0xffff_0000, 0, 0xffff_0000, 0]
    } else {
        [0, 0, 0, 0xffff_0000]
    };
    let slots = words
        .into_iter()
        .map(|w| 0xffff_0000 | u32::from(w))
        .chain(pointers);
    for (slot, value) in out.chunks_exact_mut(4).zip(slots) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    ENV32
}

/// Loads control, status and tag words from a stored environment.
fn take_environment(st: &mut GuestState, wide: bool, bytes: &[u8]) {
    let step = if wide { 4 } else { 2 };
    let at = |n: usize| u16::from_le_bytes([bytes[n * step], bytes[n * step + 1]]);
    let (fcw, fsw, tags) = ((at(0) & FCW_BITS) | FCW_ONES, at(1), at(2));
    // The summary bits follow from the exceptions that are pending and not masked.
    let pending = fsw & MASKS & !fcw != 0;
    materialize(st, X87);
    set_word(st, 0, fcw);
    set_status(
        st,
        (fsw & !FSW_SUMMARY) | if pending { FSW_SUMMARY } else { 0 },
    );
    let mut abridged = 0u8;
    for physical in 0..8 {
        if tags >> (physical * 2) & 3 != 3 {
            abridged |= 1 << physical;
        }
    }
    st.xsave.0[TAG..TAG + 20].fill(0);
    st.xsave.0[TAG] = abridged;
}

/// If an unmasked exception is pending: #MF.
fn require_no_pending(st: &mut GuestState) -> Result<(), Fault> {
    materialize(st, X87);
    if word(st, 2) & FSW_ES != 0 {
        Err(Fault::plain(Vector::Mf))
    } else {
        Ok(())
    }
}

/// FNSTENV: stores the environment, then masks all exceptions.
/// # Errors
/// #NM with CR0.EM or TS; memory faults.
pub fn fnstenv<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    require_fpu(st)?;
    materialize(st, X87);
    let mut bytes = [0; ENV32];
    let len = environment(st, insn.code() == Code::Fnstenv_m28byte, &mut bytes);
    let (seg, offset) = operand::address(st, insn);
    operand::store_bytes(st, env, seg, offset, &bytes[..len])?;
    let (fcw, fsw) = (word(st, 0), word(st, 2));
    set_word(st, 0, fcw | MASKS);
    set_word(st, 2, fsw & !FSW_SUMMARY);
    Ok(Flow::Next)
}

/// FLDENV.
/// # Errors
/// #NM with CR0.EM or TS; #MF if an unmasked exception is pending; memory faults.
pub fn fldenv<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    require_fpu(st)?;
    require_no_pending(st)?;
    let wide = insn.code() == Code::Fldenv_m28byte;
    let mut bytes = [0; ENV32];
    let len = if wide { ENV32 } else { ENV16 };
    let (seg, offset) = operand::address(st, insn);
    operand::load_bytes(st, env, seg, offset, &mut bytes[..len])?;
    take_environment(st, wide, &bytes);
    Ok(Flow::Next)
}

/// FNSAVE: stores environment and registers, then initializes the FPU.
/// # Errors
/// #NM with CR0.EM or TS; memory faults.
pub fn fnsave<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    require_fpu(st)?;
    materialize(st, X87);
    let mut head = [0; ENV32];
    let len = environment(st, insn.code() == Code::Fnsave_m108byte, &mut head);
    let mut bytes = [0; ENV32 + REGISTERS];
    bytes[..len].copy_from_slice(&head[..len]);
    for n in 0..8 {
        let at = ST + n * 16;
        bytes[len + n * 10..len + n * 10 + 10].copy_from_slice(&st.xsave.0[at..at + 10]);
    }
    let (seg, offset) = operand::address(st, insn);
    operand::store_bytes(st, env, seg, offset, &bytes[..len + REGISTERS])?;
    // FNINIT: the registers keep their contents.
    set_word(st, 0, FCW_INIT);
    set_status(st, 0);
    st.xsave.0[TAG..TAG + 20].fill(0);
    Ok(Flow::Next)
}

/// FRSTOR.
/// # Errors
/// #NM with CR0.EM or TS; #MF if an unmasked exception is pending; memory faults.
pub fn frstor<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    require_fpu(st)?;
    require_no_pending(st)?;
    let wide = insn.code() == Code::Frstor_m108byte;
    let len = if wide { ENV32 } else { ENV16 };
    let mut bytes = [0; ENV32 + REGISTERS];
    let (seg, offset) = operand::address(st, insn);
    operand::load_bytes(st, env, seg, offset, &mut bytes[..len + REGISTERS])?;
    take_environment(st, wide, &bytes);
    for n in 0..8 {
        let at = ST + n * 16;
        st.xsave.0[at..at + 10].copy_from_slice(&bytes[len + n * 10..len + n * 10 + 10]);
        st.xsave.0[at + 10..at + 16].fill(0);
    }
    Ok(Flow::Next)
}
