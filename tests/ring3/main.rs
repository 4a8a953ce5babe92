//! Ring 3 under all of its policies: hostile and odd programs inside a real guest, executors that
//! are killed, memory-hungry programs, hosts that lack something.

mod expected;
mod machine;
mod programs;
mod refusal;
