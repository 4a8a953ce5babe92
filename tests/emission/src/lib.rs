//! Fuzzing of decode, scan and emit: arbitrary bytes in every mode.
//!
//! [`input`] makes a piece of guest code with a mode; [`subject`] translates it, checks what was
//! emitted with [`ring3_translator::verify`], and the bounds on its size; [`run`] does that many
//! times in one cache, with links, invalidation and adapted sites in between; [`shrink`] makes a
//! failing input small.

pub mod input;
pub mod run;
pub mod shrink;
pub mod subject;
