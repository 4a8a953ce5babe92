//! VMASKMOVPS and VMASKMOVPD: loads and stores of chosen lanes. Intel SDM vol. 2C, VMASKMOV:
//! lanes whose mask bit is 0 are not accessed and raise no fault, neither of the segment nor of the
//! page; the first lane that is accessed and not accessible decides.
//!
//! Translated code executes these itself where the whole operand is accessible; what comes here
//! reaches a page or a limit that some lanes may not.

use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::execute::Flow;
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::fpu::{AVX, SSE, XMM, YMM, materialize};
use crate::cpu::{operand, segment};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use ring3_translator::addr::LinAddr;
use ring3_translator::state::{GuestState, SegReg};

/// Bytes of the longest operand.
const MOST: usize = 32;

/// The register's number, and whether the instruction uses all of YMM.
fn vector_register(r: Register) -> (usize, bool) {
    (r.number() & 7, r.is_ymm())
}

/// All 32 bytes of a vector register. SSE and AVX state must be materialized.
fn read_vector(st: &GuestState, n: usize) -> [u8; MOST] {
    let mut bytes = [0; MOST];
    bytes[..16].copy_from_slice(&st.xsave.0[XMM + 16 * n..][..16]);
    bytes[16..].copy_from_slice(&st.xsave.0[YMM + 16 * n..][..16]);
    bytes
}

fn write_vector(st: &mut GuestState, n: usize, bytes: &[u8; MOST]) {
    st.xsave.0[XMM + 16 * n..][..16].copy_from_slice(&bytes[..16]);
    st.xsave.0[YMM + 16 * n..][..16].copy_from_slice(&bytes[16..]);
}

/// Executes the instruction; the mode has been checked (CR0.TS, CR4.OSXSAVE, XCR0).
/// # Errors
/// #GP or #SS of the segment; #PF for lanes that are accessed; nothing has changed then.
pub fn masked_move<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    let lane = if insn.mnemonic() == Mnemonic::Vmaskmovps {
        4
    } else {
        8
    };
    let store = insn.op0_kind() == OpKind::Memory;
    let data = if store {
        insn.op2_register()
    } else {
        insn.op0_register()
    };
    let (data, wide) = vector_register(data);
    let len = if wide { MOST } else { MOST / 2 };
    materialize(st, SSE | AVX);
    let mask = read_vector(st, vector_register(insn.op1_register()).0);
    let chosen = |at: usize| mask[at + lane - 1] & 0x80 != 0;
    let access = if store { Access::Write } else { Access::Read };
    let who = Privilege::of(st);
    let (seg, offset) = operand::address(st, insn);
    let mut places = [LinAddr(0); MOST / 4];
    for at in (0..len).step_by(lane).filter(|at| chosen(*at)) {
        // An offset beyond 4 GiB does not wrap: it lies beyond any limit.
        let Some(offset) = offset.checked_add(at as u32) else {
            return Err(if seg == SegReg::Ss {
                Fault::with_error(Vector::Ss, 0)
            } else {
                Fault::gp(0)
            });
        };
        let place = segment::linear(st, seg, offset, lane as u32, access)?;
        env.probe(st, place, lane as u32, access, who)?;
        places[at / lane] = place;
    }
    let mut value = if store {
        read_vector(st, data)
    } else {
        [0; MOST]
    };
    for at in (0..len).step_by(lane).filter(|at| chosen(*at)) {
        let part = &mut value[at..at + lane];
        if store {
            env.write(st, places[at / lane], part, who)?;
        } else {
            env.read(st, places[at / lane], part, who)?;
        }
    }
    if !store {
        write_vector(st, data, &value);
    }
    Ok(Flow::Next)
}
