//! The virtual machine monitor.

pub mod cpu;
pub mod acpi;
pub mod board;
pub mod clock;
pub mod config;
pub mod host;
pub mod linux;
