//! The virtual machine monitor.

pub mod cpu;
