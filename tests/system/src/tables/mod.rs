//! The tables, one for each family of rules; a file or directory for each part of the processor.

use crate::row::Table;

mod alignment;
mod changing_code;
mod debug;
mod delivery;
mod gates;
mod limits;
mod paging;
mod ports;
mod priority;
mod segments;
mod tasks;
mod translations;
mod v86;
mod wrap;

/// Every table.
#[must_use]
pub fn all() -> Vec<Table> {
    [
        segments::tables,
        limits::tables,
        wrap::tables,
        gates::tables,
        delivery::tables,
        tasks::tables,
        v86::tables,
        priority::tables,
        paging::tables,
        translations::tables,
        changing_code::tables,
        ports::tables,
        debug::tables,
        alignment::tables,
    ]
    .iter()
    .flat_map(|tables| tables())
    .collect()
}
