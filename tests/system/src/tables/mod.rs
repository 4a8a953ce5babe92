//! The tables, one file for each part of the processor.

use crate::row::Table;

mod alignment;
mod debug;
mod gates;
mod limits;
mod memory;
mod paging;
mod priority;
mod segments;
mod tasks;
mod v86;

/// Every table.
#[must_use]
pub fn all() -> Vec<Table> {
    let tables = [
        segments::table,
        limits::table,
        gates::table,
        tasks::table,
        v86::table,
        priority::table,
        paging::table,
        memory::table,
        debug::table,
        alignment::table,
    ];
    tables.iter().map(|table| table()).collect()
}
