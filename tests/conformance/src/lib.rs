//! Instruction conformance: the host processor is the oracle.
//!
//! A [`case::Case`] is a piece of 16- or 32-bit code with a complete initial state. An
//! [`engine::Engine`] runs it and reports an [`case::Outcome`]. [`native::Native`] is the host
//! processor in a jailed child process; the translated engines run the same case in the virtual
//! machine. [`generate`] makes cases for every instruction form that can be encoded,
//! [`compare`] says where two outcomes differ, [`shrink`] makes a failing case small and
//! [`text`] stores it.
//!
//! Covered: unprivileged semantics, and that privileged instructions fault at CPL 3. Left out:
//! system semantics (descriptor checks, gates, paging structures), which have their own tests.

pub mod case;
pub mod compare;
pub mod coverage;
pub mod engine;
pub mod engines;
pub mod generate;
pub mod golden;
pub mod guest;
pub mod interpret;
pub mod layout;
pub mod native;
pub mod program;
pub mod report;
pub mod rng;
pub mod runner;
pub mod shrink;
pub mod text;
pub mod translated;
pub mod vector;
pub mod worker;
