//! The tables, one file for each part of the processor.

use crate::row::Table;

mod gates;
mod paging;
mod tasks;

/// Every table.
#[must_use]
pub fn all() -> Vec<Table> {
    vec![paging::table(), tasks::table(), gates::table()]
}
