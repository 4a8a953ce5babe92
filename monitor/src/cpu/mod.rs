//! What the processor means: segmentation, transfers, events, and every instruction that the
//! translator hands out instead of emitting.

pub mod env;
pub mod fault;
