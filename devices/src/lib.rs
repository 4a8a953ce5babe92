//! The chips of a PC, each as plain state behind the small bus traits of [`bus`].
//!
//! A chip knows neither its base address nor its interrupt number, holds no lock and reads no
//! clock: the board passes the VM's time to every call and samples the interrupt outputs after it.

pub mod acpi_pm;
pub mod block;
pub mod bus;
pub mod debug;
pub mod dma;
pub mod floppy;
pub mod fw_cfg;
pub mod hpet;
pub mod ide;
pub mod ioapic;
pub mod kbc;
pub mod lapic;
pub mod parallel;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod rtc;
pub mod smbus;
pub mod uart;
pub mod vga;
