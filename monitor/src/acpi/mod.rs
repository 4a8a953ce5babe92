//! ACPI tables for a guest that starts without firmware. ACPI 6.5, chapter 5.
//!
//! RSDP, RSDT, FADT, FACS and a DSDT with the sleep state S5, the PCI root bridge and its interrupt
//! routing, and the legacy chips. There is no MADT: interrupts go through the 8259 pair.

mod aml;
mod dsdt;
mod tables;

pub use tables::{AREA, AcpiHardware, AcpiImage, build};
