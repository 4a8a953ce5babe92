//! The translator: guest bytes in, host code out.
//!
//! It knows no device and no monitor: translated code leaves by exits and by a table of helpers.

pub mod addr;
pub mod asm;
pub mod cache;
pub mod classify;
pub mod code_memory;
pub mod helper;
pub mod large_pages;
pub mod lower;
pub mod mode;
pub mod mutation;
pub mod prelude;
pub mod register_bits;
pub mod scan;
pub mod segment;
pub mod state;
pub mod state_box;
pub mod unit;
pub mod verify;
