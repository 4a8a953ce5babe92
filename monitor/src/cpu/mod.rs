//! What the processor means: segmentation, transfers, events, and every instruction that the
//! translator hands out instead of emitting.

pub mod descriptor;
pub mod env;
pub mod event;
mod event_real;
pub mod far;
mod far_return;
pub mod fault;
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
pub(crate) mod cpuid_host;
pub mod debugreg;
pub mod execute;
mod execute_segment;
pub mod flagsops;
pub mod fpu;
pub(crate) mod fpu_env;
mod fpu_xsave;
pub mod io;
pub mod masked_lanes;
pub mod msr;
pub mod operand;
pub mod stackops;
mod stackops_branch;
pub mod strings;
mod strings_bulk;
pub mod sysinfo;
