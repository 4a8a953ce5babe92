//! The virtual machine monitor.

pub mod acpi;
pub mod board;
mod bounded_file;
pub mod clock;
pub mod config;
pub mod control;
pub mod cpu;
pub mod direct;
pub mod drives;
pub mod executor;
pub mod firmware;
pub mod host;
pub mod host_fault;
pub mod host_tsc;
pub mod image;
pub mod kicker;
pub mod linux;
pub mod machine;
pub mod memory;
pub mod mmu;
mod notice;
pub mod paging;
pub mod rig;
mod socket;
pub mod stats;
pub mod vcpu;
pub mod window;
