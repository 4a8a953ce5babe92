//! The translator: guest bytes in, host code out.
//!
//! It knows no device and no monitor: translated code leaves by exits and by a table of helpers.

pub mod addr;
pub mod mode;
pub mod state;
pub mod state_box;
