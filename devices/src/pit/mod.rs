//! The Intel 8254 programmable interval timer and port 61h.
//!
//! Intel 8254 datasheet (231164-005); port 61h: PIIX3 datasheet (290550), 2.5.5.1. Counter 0's
//! OUT is the system timer interrupt: rising edges are counted, so that a board that was late can
//! still deliver them one by one, up to a bound. Counter 1 counts but refreshes nothing. A count
//! of 1 in modes 2 and 3 is illegal in hardware; here OUT then stays high.

mod counter;
mod spec;

use crate::bus::{BytePorts, Nanos, OPEN_BUS, Timed};
use counter::{Counter, Tick};
use spec::{Access, Mode, PULSES_PER_NANO, nmi_sc, read_back};

/// Offset of the control word register; counters 0-2 are below it.
pub const CONTROL: u16 = 3;
/// Offset of port 61h within [`Pit`]'s port range.
pub const PORT_61H: u16 = 4;

/// Timer edges kept for a board that delivers them late; older ones are lost, as on a PC whose
/// interrupts stay disabled.
pub const MAX_BACKLOG: u32 = 64;

/// An 8254 with port 61h.
#[derive(Clone, Debug)]
pub struct Pit {
    counters: [Counter; 3],
    /// The pulse up to which counter 0's edges are counted.
    tick: Tick,
    out0: bool,
    backlog: u32,
    port61: u8,
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

fn tick_at(now: Nanos) -> Tick {
    (u128::from(now) * u128::from(PULSES_PER_NANO.0) / u128::from(PULSES_PER_NANO.1)) as u64
}

/// The first nanosecond of a pulse.
fn time_of(tick: Tick) -> Nanos {
    let nanos =
        (u128::from(tick) * u128::from(PULSES_PER_NANO.1)).div_ceil(PULSES_PER_NANO.0.into());
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

impl Pit {
    /// The power-on state: no counter runs.
    #[must_use]
    pub fn new() -> Self {
        let mut counters: [Counter; 3] = Default::default();
        counters[2].set_gate(0, false);
        Self {
            counters,
            tick: 0,
            out0: false,
            backlog: 0,
            port61: 0,
        }
    }

    /// OUT of counter 0 at the time of the last call.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.out0
    }

    /// Rising edges of OUT 0 that [`Pit::take_edge`] has not taken yet.
    #[must_use]
    pub fn backlog(&self) -> u32 {
        self.backlog
    }

    /// Takes one rising edge of OUT 0: the board pulses the interrupt line for each, when the
    /// previous one has been acknowledged.
    pub fn take_edge(&mut self) -> bool {
        let any = self.backlog > 0;
        self.backlog = self.backlog.saturating_sub(1);
        any
    }

    /// The speaker's tone in hertz, while counter 2 drives it with a square wave.
    #[must_use]
    pub fn speaker_hertz(&self) -> Option<u32> {
        let period = self.counters[2].square_wave_period()?;
        let on = self.port61 & nmi_sc::SPEAKER != 0;
        on.then(|| (1_193_182 / period.max(1)) as u32)
    }

    /// Counts the edge that a register write itself makes, and samples OUT 0.
    fn update(&mut self, before: bool) {
        self.out0 = self.counters[0].out(self.tick);
        if self.out0 && !before {
            self.backlog = (self.backlog + 1).min(MAX_BACKLOG);
        }
    }

    fn write_control(&mut self, tick: Tick, word: u8) {
        let select = usize::from(word >> 6);
        if select == 3 {
            for (i, counter) in self.counters.iter_mut().enumerate() {
                if word & (2 << i) != 0 {
                    if word & read_back::NO_COUNT == 0 {
                        counter.latch_count(tick);
                    }
                    if word & read_back::NO_STATUS == 0 {
                        counter.latch_status(tick);
                    }
                }
            }
            return;
        }
        let access = match (word >> 4) & 3 {
            0 => return self.counters[select].latch_count(tick),
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowHigh,
        };
        self.counters[select].control(Mode::from_control(word), access, word & 1 != 0);
        if select == 0 {
            // Edges of the old programming would reach a driver that has just restarted the timer.
            self.backlog = 0;
        }
    }

    fn read_port61(&self, now: Nanos) -> u8 {
        let refresh = (now / nmi_sc::REFRESH_PERIOD) & 1 != 0;
        let out2 = self.counters[2].out(tick_at(now));
        self.port61
            | if refresh { nmi_sc::REFRESH } else { 0 }
            | if out2 { nmi_sc::TIMER2_OUT } else { 0 }
    }
}

impl Timed for Pit {
    fn next_deadline(&self) -> Option<Nanos> {
        self.counters[0].next_rising_edge(self.tick).map(time_of)
    }

    fn advance(&mut self, now: Nanos) {
        let tick = tick_at(now);
        if tick > self.tick {
            let edges = self.counters[0].rising_edges(self.tick, tick);
            let total = edges
                .saturating_add(self.backlog.into())
                .min(MAX_BACKLOG.into());
            self.backlog = total as u32;
            for counter in &mut self.counters {
                counter.advance(tick);
            }
            self.tick = tick;
            self.out0 = self.counters[0].out(tick);
        }
    }
}

impl BytePorts for Pit {
    fn read_byte(&mut self, now: Nanos, offset: u16) -> u8 {
        self.advance(now);
        match offset {
            0..=2 => self.counters[usize::from(offset)].read(self.tick),
            PORT_61H => self.read_port61(now),
            _ => OPEN_BUS,
        }
    }

    fn write_byte(&mut self, now: Nanos, offset: u16, value: u8) {
        self.advance(now);
        let before = self.out0;
        match offset {
            0..=2 => self.counters[usize::from(offset)].write(self.tick, value),
            CONTROL => self.write_control(self.tick, value),
            PORT_61H => {
                self.port61 = value & nmi_sc::WRITABLE;
                self.counters[2].set_gate(self.tick, value & nmi_sc::TIMER2_GATE != 0);
            }
            _ => {}
        }
        self.update(before);
    }
}

#[cfg(test)]
mod tests;
