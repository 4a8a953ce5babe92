//! Register layout of the MC146818A.

/// The century byte's place, as PC firmware puts it.
pub const CENTURY: u8 = 0x32;

/// Nanoseconds at the end of each second in which UIP is set: 244 us of warning and 1984 us of
/// update (datasheet, table 6, 32.768 kHz).
pub const UPDATE_TIME: u64 = 2_228_000;

/// Register numbers.
pub mod reg {
    pub const SECONDS: u8 = 0;
    pub const SECONDS_ALARM: u8 = 1;
    pub const MINUTES: u8 = 2;
    pub const MINUTES_ALARM: u8 = 3;
    pub const HOURS: u8 = 4;
    pub const HOURS_ALARM: u8 = 5;
    pub const WEEKDAY: u8 = 6;
    pub const DAY: u8 = 7;
    pub const MONTH: u8 = 8;
    pub const YEAR: u8 = 9;
    pub const A: u8 = 10;
    pub const B: u8 = 11;
    pub const C: u8 = 12;
    pub const D: u8 = 13;
}
/// Register A.
pub mod reg_a {
    /// Update in progress.
    pub const UIP: u8 = 0x80;
    /// Divider held in reset when both bits are set.
    pub const DV_RESET: u8 = 0x60;
    /// Divider for the 32.768 kHz crystal.
    pub const DV_32KHZ: u8 = 0x20;
    /// Rate of the periodic interrupt.
    pub const RS: u8 = 0x0f;
}
/// Register B.
pub mod reg_b {
    pub const SET: u8 = 0x80;
    pub const PIE: u8 = 0x40;
    pub const AIE: u8 = 0x20;
    pub const UIE: u8 = 0x10;
    /// DM: registers are binary, not BCD.
    pub const BINARY: u8 = 0x04;
    /// 24/12.
    pub const HOURS_24: u8 = 0x02;
}
/// Register C; the flags have the places of their enables in register B.
pub mod reg_c {
    pub const IRQF: u8 = 0x80;
    pub const PF: u8 = 0x40;
    pub const AF: u8 = 0x20;
    pub const UF: u8 = 0x10;
    pub const SOURCES: u8 = PF | AF | UF;
}
/// Register D.
pub mod reg_d {
    /// Valid RAM and time.
    pub const VRT: u8 = 0x80;
}
