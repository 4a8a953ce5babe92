//! Fuzzing of the PC's chips, each alone and all on the board.
//!
//! A [`target::Target`] takes operations: port and memory cycles, time, DMA, and events from the
//! host. [`run`] makes random series of them and watches for panics, hangs and memory; a failing
//! series is shrunk. Everything follows from a seed.

pub mod board;
pub mod chips;
pub mod heap;
pub mod ram;
pub mod run;
pub mod storage;
pub mod target;
