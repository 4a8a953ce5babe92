//! ACPI tables, for firmware and for a guest that starts without it. ACPI 6.5, chapter 5.
//!
//! RSDP, RSDT, FADT, FACS, MADT, HPET and a DSDT with the sleep state S5, the PCI root bridge and
//! its interrupt routing for the 8259s and for the I/O APIC, and the legacy chips.

mod aml;
mod dsdt;
mod tables;

pub use tables::{AREA, AcpiHardware, AcpiImage, ApicHardware, build};
