//! Makes cases: a table of all instruction forms, and random cases for each.
//!
//! A *form* is an iced-x86 `Code` (mnemonic with operand types and encoding), a code size, and
//! whether its register-or-memory operand is a register or memory. [`forms::table`] lists every
//! form of 16- and 32-bit code, and those left out with the reason. [`unit::make`] builds one
//! random case of a form.

pub mod forms;
pub mod operands;
pub mod special;
pub mod state;
pub mod unit;
