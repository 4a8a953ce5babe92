//! Ring 3 under all of its policies: hostile and odd programs inside a real guest, executors that
//! are killed, a memory-hungry program, hosts that lack something.

mod expected;
mod killed;
mod machine;
mod memory;
mod programs;
mod refusal;
