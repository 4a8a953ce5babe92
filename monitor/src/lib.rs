//! The virtual machine monitor.

pub mod cpu;
pub mod executor;
pub mod acpi;
pub mod board;
pub mod clock;
pub mod config;
pub mod control;
pub mod drives;
pub mod firmware;
pub mod host;
pub mod image;
pub mod host_fault;
pub mod kicker;
pub mod vcpu;
pub mod linux;
pub mod machine;
pub mod rig;
pub mod stats;
pub mod memory;
pub mod mmu;
pub mod paging;
pub mod window;
