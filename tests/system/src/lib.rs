//! What the manuals say of the processor's system parts, as tables, each row of which runs on a bare
//! machine under ring3's engines and under QEMU's translator.
//!
//! A [`row::Row`] is a state (descriptor tables, page tables, registers), some instructions and what
//! must be found when an exception, an interrupt or a shutdown has ended them. [`image`] makes one
//! ROM of a table's rows and the kernel that runs them (`kernel/kernel.asm`), [`machine`] runs it,
//! [`record`] reads what came back, [`report`] compares.
//!
//! Expected values come from the rules of the manual, stated in each table beside its rows, never
//! from a run. Where QEMU does something else, the row names the deviation ([`deviation`]).

pub mod descriptor;
pub mod deviation;
pub mod image;
pub mod layout;
pub mod machine;
pub mod record;
pub mod report;
pub mod row;
pub mod tables;
