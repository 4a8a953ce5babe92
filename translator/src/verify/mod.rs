//! The emission checker: proves of finished host code that it cannot reach beyond the guest.
//!
//! It disassembles every byte of a unit (hot and cold half) and follows every way through it with
//! abstract register values. It shares no code with lowering. A unit passes if:
//!
//! **Memory operands** have one of these forms, and no other:
//!
//! | form | condition |
//! |---|---|
//! | `gs:[ea32]` | segment prefix GS, 32-bit address size, no IP-relative or vector address, made from numbers; a bit offset in a register is bounded by the operand |
//! | `[r15+const]` | a field of `GuestState` on the list in `memory.rs`, with its size; five fields may be written |
//! | `[r15+r14*8+const]` | the tag or delta of r13's soft-TLB entry: r14 is twice PEXT of r13 with the index mask |
//! | `[r13+r14]` | r14 is the delta of r13: after a tag comparison that covered the bytes and the kind of access, or a soft-access helper asked for them; no more bytes; r13 and r14 unchanged since |
//! | `[r14]`, 4 bytes, read | r14 was loaded from `poll_ptr`, `fs_base_ptr` or `gs_base_ptr` |
//! | `rep` string on `[rsi]`, `[rdi]` | window base + number, or looked-up bytes with DF clear; RCX compared with 4096 |
//! | masked move to `[rdi]` | rdi = r13 + r14 with a look-up of all its bytes for writing |
//!
//! **Control** goes to the unit itself (at an instruction), the fixed exits and helpers, linked
//! units of the same mode, or by `[r15+jump cache]` with r13 the target EIP, or by RET with r13 the EIP. Every half
//! ends in a transfer; no code is unreachable.
//!
//! **Registers**: r15, rsp and segment registers are never written (but RSP by CALL, RET and the
//! pair PUSHFQ, POP R11) and never an operand. Host addresses are used in the forms above and in
//! nothing else, so none reaches a guest register or guest memory. Wherever the unit is left, guest
//! registers have zero upper halves. Scratch registers are read only after they were set.
//!
//! **Instructions** that enter the kernel, are privileged, read or change host state, or belong to
//! features that guests do not have, do not occur (`rules.rs`).
//!
//! The fixed code at the cache's start is checked by [`prelude`], instruction by instruction.
//!
//! Trusted: the run-time tables (TLB entries, jump caches, the pointers), helpers, the decoder.

mod fixed;
mod flow;
mod memory;
mod rules;
mod step;
#[cfg(test)]
mod tests;
mod value;

use crate::cache::Translator;
use crate::prelude::{Stubs, jump_cache_off};
use crate::unit::UnitId;
use core::fmt;
use core::ops::Range;
pub use fixed::prelude;

/// The host code of one unit and what it may refer to.
pub struct UnitCode<'a> {
    /// Host address of the first byte.
    pub base: u64,
    /// Both halves.
    pub code: &'a [u8],
    /// Bytes of the hot half.
    pub hot: u32,
    /// Offset of the entry for direct jumps; that for indirect jumps is 0.
    pub body: u32,
    /// Jump cache and soft TLB of its mode.
    pub table: usize,
    /// The fixed code.
    pub stubs: &'a Stubs,
    /// Its callout sites.
    pub sites: Range<u32>,
    /// Its links.
    pub links: Range<u32>,
    /// Offsets of the exits of its links: a linked jump may be taken back at any time.
    pub exits: &'a [u32],
    /// Offset from which on code belongs to an EIP.
    pub marks: &'a [(u32, u32)],
}

/// What direct jumps may reach outside their unit.
pub struct Neighbours<'a> {
    /// Whether an address is the entry for direct jumps of a unit of the same mode.
    pub is_body: &'a dyn Fn(u64) -> bool,
    /// Code at an address.
    pub read: &'a dyn Fn(u64, usize) -> Vec<u8>,
}

impl Neighbours<'_> {
    /// No other unit exists.
    pub const NONE: Neighbours<'static> = Neighbours {
        is_body: &|_| false,
        read: &|_, _| Vec::new(),
    };

    /// Whether a direct jump to `address` from code with jump cache `table` is permitted.
    fn accepts(&self, address: u64, table: usize) -> bool {
        (self.is_body)(address) || is_detour(&(self.read)(address, DETOUR_BYTES), table)
    }
}

/// `mov r13d, eip ; jmp [r15 + jump cache + (eip & 0xffff) * 8]`.
const DETOUR_BYTES: usize = 13;

fn is_detour(code: &[u8], table: usize) -> bool {
    let Some((head, rest)) = code.split_first_chunk::<2>() else {
        return false;
    };
    let Some((eip, rest)) = rest.split_first_chunk::<4>() else {
        return false;
    };
    let Some((jump, slot)) = rest.split_first_chunk::<3>() else {
        return false;
    };
    let wanted = jump_cache_off(table) + i32::from(u16::from_le_bytes([eip[0], eip[1]])) * 8;
    *head == [0x41, 0xbd] && *jump == [0x41, 0xff, 0xa7] && slot == wanted.to_le_bytes()
}

/// Forbidden code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Offset in the unit, or in the fixed code.
    pub offset: u32,
    /// The instruction.
    pub text: String,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "+{:#x} `{}`: {}", self.offset, self.text, self.why)
    }
}

/// Checks one unit's code. Returns the number of host instructions.
/// # Errors
/// The first violations.
pub fn unit(code: &UnitCode<'_>, near: &Neighbours<'_>) -> Result<usize, Vec<Violation>> {
    flow::run(code, near)
}

/// Checks a unit in its cache, linked as it is now.
/// # Errors
/// The first violations.
pub fn translated(translator: &Translator, id: UnitId) -> Result<usize, Vec<Violation>> {
    let emitted = translator.emitted(id);
    let near = Neighbours {
        is_body: &|address| translator.mode_of_body(address) == Some(emitted.mode),
        read: &|address, len| translator.read(address, len),
    };
    unit(
        &UnitCode {
            base: emitted.base,
            code: &emitted.code,
            hot: emitted.hot,
            body: emitted.body,
            table: emitted.mode.table(),
            stubs: translator.stubs(),
            sites: emitted.sites,
            links: emitted.links,
            exits: &emitted.exits,
            marks: &emitted.marks,
        },
        &near,
    )
}
