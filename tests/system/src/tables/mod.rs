//! The tables, one file for each part of the processor.

use crate::row::Table;

mod paging;

/// Every table.
#[must_use]
pub fn all() -> Vec<Table> {
    vec![paging::table()]
}
