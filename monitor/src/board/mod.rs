//! The assembled PC.

mod stop;

pub use stop::{StopHandle, StopReason};
