//! Register layout of the local APIC. Intel SDM vol. 3A, table 11-1.

/// Offsets of the registers from the APIC base.
pub mod reg {
    pub const ID: u16 = 0x020;
    pub const VERSION: u16 = 0x030;
    pub const TPR: u16 = 0x080;
    pub const PPR: u16 = 0x0a0;
    pub const EOI: u16 = 0x0b0;
    pub const LDR: u16 = 0x0d0;
    pub const DFR: u16 = 0x0e0;
    pub const SVR: u16 = 0x0f0;
    pub const ISR: u16 = 0x100;
    pub const TMR: u16 = 0x180;
    pub const IRR: u16 = 0x200;
    pub const ESR: u16 = 0x280;
    pub const ICR_LOW: u16 = 0x300;
    pub const ICR_HIGH: u16 = 0x310;
    pub const LVT_TIMER: u16 = 0x320;
    pub const LVT_LINT0: u16 = 0x350;
    pub const LVT_ERROR: u16 = 0x370;
    pub const TIMER_INITIAL: u16 = 0x380;
    pub const TIMER_CURRENT: u16 = 0x390;
    pub const TIMER_DIVIDE: u16 = 0x3e0;
}
/// Version register: version 14h, six entries in the local vector table.
pub const VERSION: u32 = 0x0005_0014;
/// Spurious vector register: the APIC is enabled by software.
pub const SOFTWARE_ENABLE: u32 = 0x100;
/// Local vector table, 11.5.1.
pub mod lvt {
    /// Places in the table.
    pub const TIMER: usize = 0;
    pub const LINT0: usize = 3;
    pub const LINT1: usize = 4;
    pub const ERROR: usize = 5;
    pub const COUNT: usize = 6;
    pub const MASKED: u32 = 1 << 16;
    pub const PERIODIC: u32 = 1 << 17;
    /// Timer modes: bits 18-17.
    pub const TSC_DEADLINE: u32 = 2 << 17;
    pub const TIMER_MODE: u32 = 3 << 17;
}
/// Error status register, 11.5.3.
pub mod error {
    /// An interrupt command had a vector below 16.
    pub const SEND_ILLEGAL_VECTOR: u32 = 0x20;
    /// A vector below 16 was received.
    pub const RECEIVED_ILLEGAL_VECTOR: u32 = 0x40;
    /// A register that does not exist was accessed.
    pub const ILLEGAL_REGISTER: u32 = 0x80;
}
/// Interrupt command register, 11.6.1.
pub mod icr {
    /// Writable bits of the lower half.
    pub const LOW: u32 = 0x000c_cfff;
    /// Writable bits of the upper half.
    pub const HIGH: u32 = 0xff00_0000;
    pub const LOGICAL: u32 = 0x0800;
    /// Level and trigger mode.
    pub const LEVEL_AND_TRIGGER: u32 = 0xc000;
    /// Level-triggered and de-asserted.
    pub const DEASSERT: u32 = 0x8000;
}
