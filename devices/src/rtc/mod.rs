//! The MC146818 real-time clock with 128 bytes of CMOS memory.
//!
//! Motorola MC146818A datasheet; PIIX3 datasheet (290550), 2.5.6. Square-wave output and daylight
//! saving are not connected. The time is a number of seconds anchored to the VM clock; registers
//! are computed when they are read, so that a pause costs nothing.

mod calendar;
mod spec;

pub use spec::CENTURY;

use crate::bus::{BytePorts, Nanos, OPEN_BUS, SECOND, Timed};
use calendar::Fields;
use spec::{reg, reg_a, reg_b, reg_c, reg_d};

/// Bytes of battery-backed memory, the clock's registers included.
pub const CMOS_SIZE: usize = 128;

/// An RTC: offset 0 is the index port (70h), offset 1 the data port (71h).
#[derive(Clone, Debug)]
pub struct Rtc {
    cmos: [u8; CMOS_SIZE],
    index: u8,
    nmi_disabled: bool,
    a: u8,
    b: u8,
    c: u8,
    /// Seconds since 1970 in the clock's own time at `anchor`.
    seconds: i64,
    /// VM time at which the second `seconds` began; may lie before time 0.
    anchor: i64,
    /// The time registers while SET or the divider reset holds them.
    held: Option<Fields>,
    weekday_offset: u8,
    /// The time up to which flags are computed.
    now: Nanos,
}

impl Rtc {
    /// A running clock in BCD, 24-hour format that shows `unix_seconds` (since 1970, in whatever
    /// zone the guest expects) at VM time 0.
    #[must_use]
    pub fn new(unix_seconds: i64) -> Self {
        Self {
            cmos: [0; CMOS_SIZE],
            index: 0,
            nmi_disabled: false,
            a: reg_a::DV_32KHZ | 6,
            b: reg_b::HOURS_24,
            c: 0,
            seconds: unix_seconds,
            anchor: 0,
            held: None,
            weekday_offset: 0,
            now: 0,
        }
    }

    /// The interrupt output (IRQ 8).
    #[must_use]
    pub fn irq(&self) -> bool {
        self.c & self.b & reg_c::SOURCES != 0
    }

    /// The CMOS bytes beyond the clock, for the board to describe memory and drives. Bytes 0-13
    /// and the century byte are computed from the clock and what is stored there has no effect.
    pub fn cmos_mut(&mut self) -> &mut [u8; CMOS_SIZE] {
        &mut self.cmos
    }

    /// Whether bit 7 of the index port masks NMI.
    #[must_use]
    pub fn nmi_disabled(&self) -> bool {
        self.nmi_disabled
    }

    fn running(&self) -> bool {
        self.held.is_none()
    }

    /// Nanoseconds since the anchor.
    fn since_anchor(&self, now: Nanos) -> u64 {
        (i128::from(now) - i128::from(self.anchor)).clamp(0, u64::MAX.into()) as u64
    }

    fn seconds_at(&self, now: Nanos) -> i64 {
        self.seconds
            .saturating_add((self.since_anchor(now) / SECOND) as i64)
    }

    fn fields(&self, now: Nanos) -> Fields {
        self.held
            .unwrap_or_else(|| Fields::from_unix(self.seconds_at(now), self.weekday_offset))
    }

    /// Restarts the divider so that the next second begins after `until_next` nanoseconds.
    fn set_time(&mut self, now: Nanos, fields: Fields, until_next: Nanos) {
        self.seconds = fields.to_unix();
        self.weekday_offset = fields.weekday_offset();
        self.anchor = i64::try_from(now).unwrap_or(i64::MAX) - (SECOND - until_next) as i64;
    }

    /// Periods of the periodic interrupt since the anchor, and the period as 32768 Hz pulses.
    fn period(&self) -> Option<u64> {
        match self.a & reg_a::RS {
            0 => None,
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn pulses(&self, now: Nanos) -> u64 {
        (u128::from(self.since_anchor(now)) * 32_768 / u128::from(SECOND)) as u64
    }

    fn time_of_pulse(&self, pulse: u64) -> Nanos {
        let nanos = (u128::from(pulse) * u128::from(SECOND)).div_ceil(32_768) as i128;
        (i128::from(self.anchor) + nanos).clamp(0, u64::MAX.into()) as u64
    }

    fn time_of_second(&self, second: i64) -> Nanos {
        let nanos = i128::from(second.wrapping_sub(self.seconds)) * i128::from(SECOND);
        (i128::from(self.anchor) + nanos).clamp(0, u64::MAX.into()) as u64
    }

    fn divider_reset(&self) -> bool {
        self.a & reg_a::DV_RESET == reg_a::DV_RESET
    }

    /// The first second after `after` in which the alarm matches.
    fn next_alarm(&self, after: i64) -> Option<i64> {
        let bytes = [reg::SECONDS_ALARM, reg::MINUTES_ALARM, reg::HOURS_ALARM];
        let [s, m, h] = bytes.map(|at| self.cmos[usize::from(at)]);
        calendar::next_alarm(after, self.b, h, m, s)
    }

    fn read_register(&self, now: Nanos) -> u8 {
        match self.index {
            reg::A => {
                let phase = self.since_anchor(now) % SECOND;
                let updating = self.running() && phase >= SECOND - spec::UPDATE_TIME;
                self.a | if updating { reg_a::UIP } else { 0 }
            }
            reg::B => self.b,
            reg::C => self.c | if self.irq() { reg_c::IRQF } else { 0 },
            reg::D => reg_d::VRT,
            index => match self.fields(now).read(index, self.b) {
                Some(value) => value,
                None => self.cmos[usize::from(index)],
            },
        }
    }

    fn write_register(&mut self, now: Nanos, value: u8) {
        match self.index {
            reg::A => {
                let was_reset = self.divider_reset();
                self.a = value & !reg_a::UIP;
                if was_reset && !self.divider_reset() {
                    // The first update follows half a second after the divider starts.
                    if let Some(fields) = self.held.filter(|_| self.b & reg_b::SET == 0) {
                        self.held = None;
                        self.set_time(now, fields, SECOND / 2);
                    }
                } else if self.divider_reset() {
                    self.held = Some(self.fields(now));
                }
            }
            reg::B => self.write_b(now, value),
            reg::C | reg::D => {}
            index => {
                let mut fields = self.fields(now);
                if fields.write(index, value, self.b) {
                    match &mut self.held {
                        Some(held) => *held = fields,
                        None => {
                            let phase = self.since_anchor(now) % SECOND;
                            self.set_time(now, fields, SECOND - phase);
                        }
                    }
                } else {
                    self.cmos[usize::from(index)] = value;
                }
            }
        }
    }

    fn write_b(&mut self, now: Nanos, value: u8) {
        let phase = self.since_anchor(now) % SECOND;
        if value & reg_b::SET != 0 {
            self.held = Some(self.fields(now));
            self.b = value & !reg_b::UIE;
            return;
        }
        self.b = value;
        if let Some(fields) = self.held.filter(|_| !self.divider_reset()) {
            self.held = None;
            self.set_time(now, fields, SECOND - phase);
        }
    }
}

impl Timed for Rtc {
    fn next_deadline(&self) -> Option<Nanos> {
        // A flag that is already set holds the output: nothing changes until it is read.
        let wants = |bit: u8| self.b & bit != 0 && self.c & bit == 0;
        let periodic = (wants(reg_b::PIE) && !self.divider_reset())
            .then(|| self.period())
            .flatten()
            .map(|period| self.time_of_pulse((self.pulses(self.now) / period + 1) * period));
        let current = self.seconds_at(self.now);
        let update = (wants(reg_b::UIE) && self.running())
            .then(|| self.time_of_second(current.saturating_add(1)));
        let alarm = (wants(reg_b::AIE) && self.running())
            .then(|| self.next_alarm(current))
            .flatten()
            .map(|second| self.time_of_second(second));
        [periodic, update, alarm].into_iter().flatten().min()
    }

    fn advance(&mut self, now: Nanos) {
        if now <= self.now {
            return;
        }
        let then = std::mem::replace(&mut self.now, now);
        if let Some(period) = self.period().filter(|_| !self.divider_reset())
            && self.pulses(then) / period != self.pulses(now) / period
        {
            self.c |= reg_c::PF;
        }
        if self.running() {
            let (before, after) = (self.seconds_at(then), self.seconds_at(now));
            if after > before {
                self.c |= reg_c::UF;
                if self.next_alarm(before).is_some_and(|at| at <= after) {
                    self.c |= reg_c::AF;
                }
            }
        }
    }
}

impl BytePorts for Rtc {
    fn read_byte(&mut self, now: Nanos, offset: u16) -> u8 {
        self.advance(now);
        if offset != 1 {
            return OPEN_BUS;
        }
        let value = self.read_register(self.now);
        if self.index == reg::C {
            self.c = 0;
        }
        value
    }

    fn write_byte(&mut self, now: Nanos, offset: u16, value: u8) {
        self.advance(now);
        match offset {
            0 => {
                self.index = value & 0x7f;
                self.nmi_disabled = value & 0x80 != 0;
            }
            1 => self.write_register(self.now, value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
