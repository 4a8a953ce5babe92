//! The high precision event timer: three comparators.
//!
//! IA-PC HPET specification 1.0a. A 10 MHz, 64-bit counter; only comparator 0 is periodic-capable,
//! all are 64-bit. FSB (message) interrupts are left out.

use crate::bus::{MmioDevice, Nanos, Timed};

/// Comparators.
pub const TIMERS: usize = 3;
/// Edges kept for a board that delivers them late, one by one; older ones are lost, as on a PC
/// whose interrupts stay disabled.
pub const MAX_BACKLOG: u32 = 64;
/// Nanoseconds per tick.
const TICK: Nanos = 100;
/// Interrupts that a comparator can be routed to on an I/O APIC.
const ROUTES: u32 = 0x00f0_0000;

mod config {
    pub const ENABLE: u64 = 1;
    pub const LEGACY: u64 = 2;
}
mod timer {
    pub const LEVEL: u64 = 1 << 1;
    pub const ENABLE: u64 = 1 << 2;
    pub const PERIODIC: u64 = 1 << 3;
    pub const PERIODIC_CAPABLE: u64 = 1 << 4;
    pub const WIDE: u64 = 1 << 5;
    pub const SET_VALUE: u64 = 1 << 6;
    pub const FORCE_32: u64 = 1 << 8;
    pub const ROUTE: u64 = 31 << 9;
    pub const WRITABLE: u64 = 0x3f4e;
}

#[derive(Clone, Copy, Debug, Default)]
struct Comparator {
    config: u64,
    target: u64,
    period: u64,
    /// Edge-triggered expiries that the board has not taken.
    fired: u32,
}

/// The timer block.
#[derive(Clone, Debug)]
pub struct Hpet {
    config: u64,
    status: u64,
    /// The counter at `since`, or while stopped.
    counter: u64,
    since: Nanos,
    timers: [Comparator; TIMERS],
    now: Nanos,
}

impl Default for Hpet {
    fn default() -> Self {
        Self::new()
    }
}

impl Hpet {
    /// A stopped block with the counter at zero.
    #[must_use]
    pub fn new() -> Self {
        let capable = u64::from(ROUTES) << 32 | timer::WIDE;
        let mut timers = [Comparator {
            config: capable,
            target: u64::MAX,
            ..Default::default()
        }; TIMERS];
        timers[0].config |= timer::PERIODIC_CAPABLE;
        Self {
            config: 0,
            status: 0,
            counter: 0,
            since: 0,
            timers,
            now: 0,
        }
    }

    /// Whether comparators 0 and 1 replace the interrupts of the 8254 and the RTC.
    #[must_use]
    pub fn legacy_replacement(&self) -> bool {
        self.config & config::LEGACY != 0
    }

    /// The interrupt that a comparator (0-2) is routed to: IRQ 0 or 8 in legacy replacement mode,
    /// else an I/O APIC input; `None` while it is disabled.
    #[must_use]
    pub fn route(&self, index: usize) -> Option<u8> {
        let comparator = self.timers.get(index)?;
        match (comparator.config & timer::ENABLE != 0, index) {
            (false, _) => None,
            (true, 0) if self.legacy_replacement() => Some(0),
            (true, 1) if self.legacy_replacement() => Some(8),
            _ => Some((comparator.config >> 9 & 31) as u8),
        }
    }

    /// The level of a comparator's (0-2) interrupt in level-triggered mode.
    #[must_use]
    pub fn irq(&self, index: usize) -> bool {
        self.route(index).is_some() && self.status & 1 << index != 0
    }

    /// Takes an edge-triggered expiry of a comparator (0-2), for which the board pulses its line.
    pub fn take_edge(&mut self, index: usize) -> bool {
        self.timers.get_mut(index).is_some_and(|timer| {
            let any = timer.fired > 0;
            timer.fired = timer.fired.saturating_sub(1);
            any
        })
    }

    fn running(&self) -> bool {
        self.config & config::ENABLE != 0
    }

    fn counter_at(&self, now: Nanos) -> u64 {
        let passed = if self.running() {
            now.saturating_sub(self.since) / TICK
        } else {
            0
        };
        self.counter.wrapping_add(passed)
    }

    /// Ticks from the counter's value until the comparator matches (1 to the counter's width).
    fn ticks_left(comparator: &Comparator, counter: u64) -> u64 {
        if comparator.config & timer::FORCE_32 != 0 {
            let left = (comparator.target as u32).wrapping_sub(counter as u32);
            if left == 0 { 1 << 32 } else { left.into() }
        } else {
            match comparator.target.wrapping_sub(counter) {
                0 => u64::MAX,
                left => left,
            }
        }
    }

    fn expire(&mut self, index: usize, times: u64) {
        let comparator = &mut self.timers[index];
        if comparator.config & timer::LEVEL != 0 {
            self.status |= 1 << index;
        } else if comparator.config & timer::ENABLE != 0 {
            let total = u64::from(comparator.fired).saturating_add(times);
            comparator.fired = total.min(MAX_BACKLOG.into()) as u32;
        }
    }

    fn read_register(&self, offset: u64) -> u64 {
        match offset {
            // Period in femtoseconds, Intel's vendor id, legacy capable, 64 bits, three timers.
            0x000 => (TICK * 1_000_000) << 32 | 0x8086_a001 | (TIMERS as u64 - 1) << 8,
            0x010 => self.config,
            0x020 => self.status,
            0x0f0 => self.counter_at(self.now),
            0x100..0x160 => {
                let comparator = &self.timers[(offset as usize - 0x100) / 0x20];
                match offset & 0x1f {
                    0 => comparator.config,
                    8 => comparator.target,
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    /// Writes the bits of `mask` of the register at `offset`.
    fn write_register(&mut self, offset: u64, value: u64, mask: u64) {
        let merge = |old: u64, bits: u64| old & !(mask & bits) | value & mask & bits;
        match offset {
            0x010 => {
                let counter = self.counter_at(self.now);
                self.config = merge(self.config, config::ENABLE | config::LEGACY);
                (self.counter, self.since) = (counter, self.now);
            }
            0x020 => self.status &= !(value & mask),
            // The counter is written while stopped.
            0x0f0 if !self.running() => self.counter = merge(self.counter, u64::MAX),
            0x100..0x160 => {
                self.write_timer((offset as usize - 0x100) / 0x20, offset & 0x1f, value, mask)
            }
            _ => {}
        }
    }

    fn write_timer(&mut self, index: usize, register: u64, value: u64, mask: u64) {
        let merge = |old: u64, bits: u64| old & !(mask & bits) | value & mask & bits;
        let comparator = &mut self.timers[index];
        match register {
            0 => {
                let capable = comparator.config & timer::PERIODIC_CAPABLE != 0;
                let periodic = if capable {
                    0
                } else {
                    timer::PERIODIC | timer::SET_VALUE
                };
                // Expiries of the old programming would reach a driver that has just changed it.
                comparator.fired = 0;
                let route = comparator.config & timer::ROUTE;
                comparator.config = merge(comparator.config, timer::WRITABLE & !periodic);
                // A route that the timer is not capable of is not stored (2.3.8).
                if ROUTES & 1 << (comparator.config >> 9 & 31) == 0 {
                    comparator.config = comparator.config & !timer::ROUTE | route;
                }
                if comparator.config & timer::LEVEL == 0 {
                    self.status &= !(1 << index);
                }
            }
            8 => {
                let periodic = comparator.config & timer::PERIODIC != 0;
                if periodic {
                    comparator.period = merge(comparator.period, u64::MAX);
                }
                // In periodic mode the accumulator changes only by permission (Tn_VAL_SET_CNF).
                if !periodic || comparator.config & timer::SET_VALUE != 0 {
                    comparator.target = merge(comparator.target, u64::MAX);
                }
                // The permission lasts for one write of the register's last half.
                if mask >> 32 != 0 || mask == 0xffff_ffff {
                    comparator.config &= !timer::SET_VALUE;
                }
            }
            _ => {}
        }
    }
}

impl Timed for Hpet {
    fn next_deadline(&self) -> Option<Nanos> {
        if !self.running() {
            return None;
        }
        let counter = self.counter_at(self.now);
        let whole = self.since + (self.now - self.since) / TICK * TICK;
        let armed = self
            .timers
            .iter()
            .filter(|timer| timer.config & timer::ENABLE != 0);
        let left = armed.map(|timer| Self::ticks_left(timer, counter)).min()?;
        Some(whole.saturating_add(left.saturating_mul(TICK)))
    }

    fn advance(&mut self, now: Nanos) {
        if now <= self.now {
            return;
        }
        let before = self.counter_at(self.now);
        self.now = now;
        let passed = self.counter_at(now).wrapping_sub(before);
        for index in 0..TIMERS {
            let comparator = &mut self.timers[index];
            let left = Self::ticks_left(comparator, before);
            if passed < left {
                continue;
            }
            let mut periods = 1;
            if comparator.config & timer::PERIODIC != 0 && comparator.period != 0 {
                periods = (passed - left) / comparator.period + 1;
                comparator.target = comparator
                    .target
                    .wrapping_add(periods.wrapping_mul(comparator.period));
            }
            self.expire(index, periods);
        }
    }
}

impl MmioDevice for Hpet {
    fn read(&mut self, now: Nanos, offset: u64, data: &mut [u8]) {
        self.advance(now);
        let bytes = self.read_register(offset & !7).to_le_bytes();
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = bytes.get(offset as usize % 8 + i).copied().unwrap_or(0);
        }
    }

    fn write(&mut self, now: Nanos, offset: u64, data: &[u8]) {
        self.advance(now);
        let shift = offset as usize % 8;
        let (mut value, mut mask) = ([0; 8], [0; 8]);
        for (i, byte) in data.iter().enumerate().take(8 - shift) {
            (value[shift + i], mask[shift + i]) = (*byte, 0xff);
        }
        self.write_register(
            offset & !7,
            u64::from_le_bytes(value),
            u64::from_le_bytes(mask),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(hpet: &mut Hpet, now: Nanos, at: u64, value: u64) {
        MmioDevice::write(hpet, now, at, &value.to_le_bytes());
    }
    fn read(hpet: &mut Hpet, now: Nanos, at: u64) -> u64 {
        let mut word = [0; 8];
        MmioDevice::read(hpet, now, at, &mut word);
        u64::from_le_bytes(word)
    }

    #[test]
    fn counter_runs_only_while_enabled() {
        let mut hpet = Hpet::new();
        assert_eq!(read(&mut hpet, 1000, 0) >> 32, 100_000_000);
        assert_eq!(read(&mut hpet, 5000, 0xf0), 0);
        write(&mut hpet, 5000, 0x10, 1);
        assert_eq!(read(&mut hpet, 6000, 0xf0), 10);
        write(&mut hpet, 6000, 0x10, 0);
        assert_eq!(read(&mut hpet, 9000, 0xf0), 10);
    }

    #[test]
    fn one_shot_fires_at_the_match() {
        let mut hpet = Hpet::new();
        write(&mut hpet, 0, 0x10, 1);
        write(&mut hpet, 0, 0x120, 0x4 | 20 << 9);
        write(&mut hpet, 0, 0x128, 50);
        assert_eq!(
            (hpet.route(1), hpet.next_deadline()),
            (Some(20), Some(5000))
        );
        hpet.advance(4999);
        assert!(!hpet.take_edge(1));
        hpet.advance(5000);
        assert!(hpet.take_edge(1) && !hpet.take_edge(1));
    }

    #[test]
    fn periodic_legacy_timer_keeps_its_phase() {
        let mut hpet = Hpet::new();
        write(&mut hpet, 0, 0x100, 0x4c);
        write(&mut hpet, 0, 0x108, 10);
        write(&mut hpet, 0, 0x108, 30);
        write(&mut hpet, 0, 0x10, 3);
        assert_eq!((hpet.route(0), hpet.next_deadline()), (Some(0), Some(1000)));
        hpet.advance(1000);
        assert!(hpet.take_edge(0));
        assert_eq!(hpet.next_deadline(), Some(4000));
        hpet.advance(10_500);
        for _ in 0..3 {
            assert!(hpet.take_edge(0), "4000, 7000, 10000");
        }
        assert!(!hpet.take_edge(0));
        assert_eq!(hpet.next_deadline(), Some(13_000));
        hpet.advance(1_000_000_000);
        let kept = (0..1000).filter(|_| hpet.take_edge(0)).count();
        assert_eq!(kept, MAX_BACKLOG as usize);
    }

    #[test]
    fn level_interrupt_holds_until_status_is_cleared() {
        let mut hpet = Hpet::new();
        write(&mut hpet, 0, 0x10, 1);
        write(&mut hpet, 0, 0x140, 0x6);
        write(&mut hpet, 0, 0x148, 5);
        hpet.advance(500);
        assert!(hpet.irq(2));
        write(&mut hpet, 600, 0x20, 4);
        assert!(!hpet.irq(2));
    }

    #[test]
    fn only_comparator_0_is_periodic_and_32_bit_mode_wraps() {
        let mut hpet = Hpet::new();
        write(&mut hpet, 0, 0x120, 0x4c);
        assert_eq!(read(&mut hpet, 0, 0x120) & 0x48, 0);
        write(&mut hpet, 0, 0xf0, 0xffff_fff0);
        write(&mut hpet, 0, 0x120, 0x104);
        write(&mut hpet, 0, 0x128, 5);
        write(&mut hpet, 0, 0x10, 1);
        assert_eq!(hpet.next_deadline(), Some(21 * 100));
    }

    /// IA-PC HPET 1.0a, 2.3.4-2.3.8: capabilities, and what of the configuration is writable.
    #[test]
    fn capabilities_and_configuration() {
        let mut hpet = Hpet::new();
        let capabilities = read(&mut hpet, 0, 0);
        assert_eq!(capabilities >> 8 & 31, TIMERS as u64 - 1);
        assert_eq!(capabilities >> 13 & 7, 0b101, "64 bits, legacy replacement");
        write(&mut hpet, 0, 0x10, u64::MAX);
        assert_eq!(read(&mut hpet, 0, 0x10), 3);
        for (timer, periodic) in [(0, 0x10), (1, 0), (2, 0)] {
            let config = read(&mut hpet, 0, 0x100 + 0x20 * timer);
            assert_eq!(
                (config & 0x30, config >> 32),
                (0x20 | periodic, ROUTES.into())
            );
        }
        write(&mut hpet, 0, 0x140, 5 << 9);
        let route = read(&mut hpet, 0, 0x140) >> 9 & 31;
        assert_ne!(route, 5, "no such input");
    }

    /// 2.3.7, 2.4.6: the counter is set while it is halted, by halves too.
    #[test]
    fn the_halted_counter_is_written_by_halves() {
        let mut hpet = Hpet::new();
        MmioDevice::write(&mut hpet, 0, 0xf4, &1u32.to_le_bytes());
        MmioDevice::write(&mut hpet, 0, 0xf0, &7u32.to_le_bytes());
        assert_eq!(read(&mut hpet, 0, 0xf0), 1 << 32 | 7);
        let mut half = [0; 4];
        MmioDevice::read(&mut hpet, 0, 0xf4, &mut half);
        assert_eq!(half, [1, 0, 0, 0]);
    }
}
