//! Single steps, breakpoints, the shadows of STI and MOV SS, and EFLAGS by POPF and IRET.

use crate::row::{Field, Row, Table};

mod breakpoints;
mod flags;
mod implicit;
mod shadows;
mod steps;

/// B0-B3, BD, BS, BT of DR6.
pub(super) const STATUS: u32 = 0xe00f;

pub(super) const BS: u32 = 0x4000;

pub(super) const BD: u32 = 0x2000;

pub(super) fn trap(row: &mut Row, eip: u32, status: u32) {
    row.fault(1, None, eip);
    row.expect_bits(Field::Dr6, STATUS, status);
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        steps::table(),
        breakpoints::table(),
        implicit::table(),
        shadows::table(),
        flags::table(),
    ]
}
