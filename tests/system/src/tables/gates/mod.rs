//! Far CALL, JMP and RET: direct, through call gates, between rings; INT through gates; the stacks.

use crate::descriptor::{flag, segment};
use crate::layout as at;
use crate::row::Table;

mod call;
mod direct;
mod interrupts;
mod returns;
mod stacks;

/// The code segment under test.
pub(super) const TARGET_SEL: u16 = at::FREE;

/// The gate under test.
pub(super) const GATE: u16 = at::FREE + 8;

/// A stack segment.
pub(super) const STACK_SEL: u16 = at::FREE + 0x10;

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
    vec![
        direct::table(),
        direct::accessed_table(),
        call::table(),
        stacks::table(),
        returns::table(),
        interrupts::table(),
    ]
}
