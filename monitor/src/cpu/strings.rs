//! String instructions with every check: MOVS, STOS, LODS, SCAS, CMPS, INS, OUTS, with or without
//! a repeat prefix. Intel SDM vol. 1, 7.3.9; vol. 2B, REP.
//!
//! One element at a time is always right. Where it cannot be told apart, whole runs within a page
//! are moved by one copy. A call does a bounded amount of work and asks to be repeated, so that
//! interrupts are seen; every completed element is architectural before the next begins.

use crate::cpu::env::Env;
use crate::cpu::execute::Flow;
use crate::cpu::fault::Fault;
use crate::cpu::flagsops::{set_flags, subtract_flags};
use crate::cpu::io::check_port;
use crate::cpu::operand::{load, probe_store, segment_register, store};
use crate::cpu::strings_bulk;
use iced_x86::{Instruction, OpKind};
use ring3_translator::state::{GuestState, SegReg, eflags, gpr};

/// Bytes that one call moves at most.
const BUDGET: u32 = 16 * 1024;
/// Bytes that one call moves at most through a port.
const PORT_BUDGET: u32 = 4096;

/// Which string instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringOp {
    /// DS:SI to ES:DI.
    Movs,
    /// Accumulator to ES:DI.
    Stos,
    /// DS:SI to accumulator.
    Lods,
    /// Compares the accumulator with ES:DI.
    Scas,
    /// Compares DS:SI with ES:DI.
    Cmps,
    /// Port DX to ES:DI.
    Ins,
    /// DS:SI to port DX.
    Outs,
}

impl StringOp {
    /// The instruction reads DS:SI (or an overriding segment) and moves SI.
    #[must_use]
    pub fn uses_source(self) -> bool {
        matches!(self, Self::Movs | Self::Lods | Self::Cmps | Self::Outs)
    }
    /// The instruction accesses ES:DI and moves DI.
    #[must_use]
    pub fn uses_destination(self) -> bool {
        !matches!(self, Self::Lods | Self::Outs)
    }
    /// The instruction compares and sets the flags.
    #[must_use]
    pub fn compares(self) -> bool {
        matches!(self, Self::Scas | Self::Cmps)
    }
    fn uses_port(self) -> bool {
        matches!(self, Self::Ins | Self::Outs)
    }
}

/// A string instruction in progress.
#[derive(Clone, Copy, Debug)]
pub struct StringInsn {
    /// Which one.
    pub op: StringOp,
    /// Bytes of an element: 1, 2 or 4.
    pub size: u32,
    /// FFFFH or FFFFFFFFH: the width of SI, DI and CX.
    pub mask: u32,
    /// The segment of SI.
    pub source: SegReg,
    /// EFLAGS.DF.
    pub down: bool,
    /// REPE, not REPNE: comparisons go on while the elements are equal.
    pub while_equal: bool,
}

impl StringInsn {
    /// A pointer or counter register at the address size.
    #[must_use]
    pub fn index(&self, st: &GuestState, reg: usize) -> u32 {
        st.reg32(reg) & self.mask
    }

    /// Writes a pointer or counter register at the address size.
    pub fn set_index(&self, st: &mut GuestState, reg: usize, value: u32) {
        if self.mask == 0xffff {
            st.set_reg16(reg, value as u16);
        } else {
            st.set_reg32(reg, value);
        }
    }

    /// Moves the pointers past `n` elements.
    pub fn advance(&self, st: &mut GuestState, n: u32) {
        let bytes = n.wrapping_mul(self.size);
        let step = if self.down {
            bytes.wrapping_neg()
        } else {
            bytes
        };
        if self.op.uses_source() {
            let si = self.index(st, gpr::SI).wrapping_add(step);
            self.set_index(st, gpr::SI, si);
        }
        if self.op.uses_destination() {
            let di = self.index(st, gpr::DI).wrapping_add(step);
            self.set_index(st, gpr::DI, di);
        }
    }

    /// AL, AX or EAX.
    #[must_use]
    pub fn accumulator(&self, st: &GuestState) -> u32 {
        match self.size {
            1 => u32::from(st.reg8(gpr::AX)),
            2 => u32::from(st.reg16(gpr::AX)),
            _ => st.reg32(gpr::AX),
        }
    }

    /// Does one element and moves the pointers.
    fn element<E: Env>(&self, st: &mut GuestState, env: &mut E) -> Result<(), Fault> {
        let size = self.size as usize;
        let si = self.index(st, gpr::SI);
        let di = self.index(st, gpr::DI);
        match self.op {
            StringOp::Movs => {
                let value = load(st, env, self.source, si, size)?;
                store(st, env, SegReg::Es, di, size, value)?;
            }
            StringOp::Stos => {
                let value = u64::from(self.accumulator(st));
                store(st, env, SegReg::Es, di, size, value)?;
            }
            StringOp::Lods => {
                let value = load(st, env, self.source, si, size)? as u32;
                match size {
                    1 => st.set_reg8(gpr::AX, value as u8),
                    2 => st.set_reg16(gpr::AX, value as u16),
                    _ => st.set_reg32(gpr::AX, value),
                }
            }
            StringOp::Scas => {
                let value = load(st, env, SegReg::Es, di, size)? as u32;
                self.compare(st, self.accumulator(st), value);
            }
            StringOp::Cmps => {
                let first = load(st, env, self.source, si, size)? as u32;
                let second = load(st, env, SegReg::Es, di, size)? as u32;
                self.compare(st, first, second);
            }
            StringOp::Ins => {
                // A port read cannot be undone, so the destination is checked before it.
                probe_store(st, env, SegReg::Es, di, self.size)?;
                let value = env.port_in(st.reg16(gpr::DX), self.size as u8);
                store(st, env, SegReg::Es, di, size, u64::from(value))?;
            }
            StringOp::Outs => {
                let value = load(st, env, self.source, si, size)? as u32;
                env.port_out(st.reg16(gpr::DX), self.size as u8, value);
            }
        }
        self.advance(st, 1);
        Ok(())
    }

    /// Sets the flags of `first - second`.
    pub fn compare(&self, st: &mut GuestState, first: u32, second: u32) {
        let all = eflags::CF | eflags::PF | eflags::AF | eflags::ZF | eflags::SF | eflags::OF;
        set_flags(st, all, subtract_flags(first, second, self.size * 8));
    }
}

/// Executes a string instruction of `size`-byte elements.
/// # Errors
/// Memory faults and #GP(0) for a port; the elements before the faulting one are done then.
pub fn execute<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
    op: StringOp,
    size: u32,
) -> Result<Flow, Fault> {
    let wide = (0..insn.op_count())
        .any(|i| matches!(insn.op_kind(i), OpKind::MemorySegESI | OpKind::MemoryESEDI));
    let run = StringInsn {
        op,
        size,
        mask: if wide { u32::MAX } else { 0xffff },
        source: segment_register(insn.memory_segment()),
        down: st.arith_flags as u32 & eflags::DF != 0,
        while_equal: insn.has_repe_prefix(),
    };
    if op.uses_port() {
        let port = st.reg16(gpr::DX);
        check_port(st, env, port, size as u8)?;
    }
    // F3 is REPE, F2 REPNE for comparisons; for the others both mean REP.
    if !insn.has_repe_prefix() && !insn.has_repne_prefix() {
        run.element(st, env)?;
        return Ok(Flow::Next);
    }
    let budget = if st.sys_flags & eflags::TF != 0 || st.breakpoints_armed() {
        1 // a single step ends after each element, and a watched one is looked for
    } else if op.uses_port() {
        PORT_BUDGET / size
    } else {
        BUDGET / size
    };
    let mut done = 0;
    loop {
        let count = run.index(st, gpr::CX);
        if count == 0 {
            return Ok(Flow::Next);
        }
        if done >= budget {
            return Ok(Flow::Repeat);
        }
        let most = count.min(budget - done);
        let bulk = if most > 1 {
            strings_bulk::chunk(st, env, &run, most)?
        } else {
            0
        };
        let n = if bulk == 0 {
            run.element(st, env)?;
            1
        } else {
            bulk
        };
        run.set_index(st, gpr::CX, count.wrapping_sub(n));
        done += n;
        if op.compares() {
            let equal = st.arith_flags as u32 & eflags::ZF != 0;
            if equal != run.while_equal {
                return Ok(Flow::Next);
            }
        }
    }
}

#[cfg(test)]
#[path = "strings_tests.rs"]
mod tests;
