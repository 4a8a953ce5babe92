//! What the processor means: segmentation, transfers, events, and every instruction that the
//! translator hands out instead of emitting.

pub mod env;
pub mod fault;
pub mod descriptor;
pub mod event;
mod event_real;
pub mod far;
mod far_return;
pub mod iret;
pub mod segment;
pub mod segment_query;
pub mod stack;
pub mod sysenter;
pub mod task;
mod task_tss;
#[cfg(test)]
pub(crate) mod testenv;

pub mod bcd;
pub mod control;
pub mod cpuid;
pub mod debugreg;
pub mod execute;
pub mod flagsops;
pub mod fpu;
pub mod io;
pub mod msr;
pub mod operand;
pub mod stackops;
pub mod strings;
pub mod sysinfo;
mod cpuid_host;
mod execute_segment;
mod fpu_env;
mod fpu_xsave;
mod stackops_branch;
mod strings_bulk;
