//! Firmware: where its ROM lies, and what the board tells it.

pub mod shadow;
