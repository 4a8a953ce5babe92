//! Far CALL, JMP and RET: direct, through call gates, between rings; INT through gates; the stacks.

use crate::descriptor::{flag, segment};
use crate::layout as at;
use crate::row::Table;

mod call;
mod direct;
mod interrupts;
mod iret;
mod returns;
mod stacks;
mod widths;

/// The code segment under test.
pub(super) const TARGET_SEL: u16 = at::FREE;

/// The gate under test.
pub(super) const GATE: u16 = at::FREE + 8;

/// A stack segment.
pub(super) const STACK_SEL: u16 = at::FREE + 0x10;

/// Every kind of code segment.
pub(super) const CODE_KINDS: [u8; 8] = [0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f];

/// True for conforming code.
pub(super) fn is_conforming(k: u8) -> bool {
    k & 0x1c == 0x1c
}

pub(super) fn far(opcode: u8, selector: u16, offset: u32) -> Vec<u8> {
    let mut bytes = vec![opcode];
    bytes.extend(offset.to_le_bytes());
    bytes.extend(selector.to_le_bytes());
    bytes
}

pub(super) fn code(k: u8, dpl: u8, present: bool) -> u64 {
    segment(0, 0xf_ffff, k, dpl, present, flag::G | flag::BIG)
}

/// The tables.
pub fn tables() -> Vec<Table> {
    let mut tables = vec![
        direct::table(),
        direct::accessed_table(),
        call::table(),
        stacks::table(),
        returns::table(),
        interrupts::table(),
        iret::table(),
    ];
    tables.extend(widths::tables());
    tables
}
