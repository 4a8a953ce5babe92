//! Which of several exceptions is delivered; double and triple faults.

use crate::layout as at;
use crate::row::Table;

mod boundary;
mod double;
mod fetching;
mod instructions;

/// A linear address that is never mapped in rows with paging.
pub(super) const NOWHERE: u32 = at::TEST + 0x5000;

/// A selector beyond the GDT.
pub(super) const BEYOND: u32 = 0x1000;

pub(super) const CR0_TS: u32 = 8;

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        instructions::table(),
        fetching::table(),
        double::table(),
        double::shutdown_table(),
        boundary::table(),
    ]
}
