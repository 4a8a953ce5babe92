//! One counter of the 8254: its state as a function of the clock pulses since it was loaded.
//!
//! Nothing is counted down. A counter remembers at which pulse its count was loaded and derives
//! the count and OUT from the pulses that passed since, so that a long pause costs nothing.

use super::spec::{Access, Mode};

/// An 8254 clock pulse number since VM time 0.
pub type Tick = u64;

/// One counter.
#[derive(Clone, Debug)]
pub struct Counter {
    mode: Mode,
    access: Access,
    bcd: bool,
    /// The count in effect, as a number of pulses: 1 to 65536.
    count: u64,
    /// A count that takes effect at the end of the current (half) period or at the next trigger.
    next_count: Option<u64>,
    /// Pulses counted before `since`.
    counted: u64,
    /// The pulse at which counting (re)started; `None` while the gate holds it or no count exists.
    since: Option<Tick>,
    /// A count was written since the last control word (modes 1 and 5: a trigger came too).
    loaded: bool,
    gate: bool,
    low_byte: Option<u8>,
    read_high: bool,
    latch: Option<u16>,
    status: Option<u8>,
}

impl Default for Counter {
    fn default() -> Self {
        Self {
            mode: Mode::InterruptOnTerminalCount,
            access: Access::LowHigh,
            bcd: false,
            count: 0x1_0000,
            next_count: None,
            counted: 0,
            since: None,
            loaded: false,
            gate: true,
            low_byte: None,
            read_high: false,
            latch: None,
            status: None,
        }
    }
}

impl Counter {
    const fn modulus(&self) -> u64 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    /// Pulses counted since the count was loaded.
    fn elapsed(&self, tick: Tick) -> u64 {
        self.counted + self.since.map_or(0, |since| tick.saturating_sub(since))
    }

    /// Pulses until OUT of mode 3 goes low.
    const fn high_half(count: u64) -> u64 {
        count.div_ceil(2)
    }

    /// Puts a waiting count into effect if its period boundary has passed (modes 2 and 3).
    pub fn advance(&mut self, tick: Tick) {
        let Some(next) = self.next_count else { return };
        if !self.mode.is_periodic() || self.since.is_none() {
            return;
        }
        let (boundary, start) = self.reload_point();
        let elapsed = self.elapsed(tick);
        if elapsed >= boundary {
            let phase = if start == 0 { 0 } else { Self::high_half(next) };
            self.counted = phase + (elapsed - boundary);
            self.since = Some(tick.max(self.since.unwrap_or(tick)));
            self.count = next;
            self.next_count = None;
        }
    }

    /// For a waiting count: after how many pulses it takes effect, and whether (non-zero) that is
    /// at the start of the low half. Counts wait less than one period, so `counted` was reduced
    /// when the count was written.
    fn reload_point(&self) -> (u64, u64) {
        let half = Self::high_half(self.count);
        if self.mode == Mode::SquareWave && self.counted < half && self.count > 1 {
            (half, 1)
        } else {
            (self.count, 0)
        }
    }

    /// OUT.
    pub fn out(&self, tick: Tick) -> bool {
        let e = self.elapsed(tick);
        match self.mode {
            Mode::InterruptOnTerminalCount => self.loaded && e >= self.count,
            Mode::OneShot => !self.loaded || e >= self.count,
            Mode::RateGenerator => {
                !(self.loaded && self.gate) || self.count == 1 || e % self.count != self.count - 1
            }
            Mode::SquareWave => {
                !(self.loaded && self.gate) || e % self.count < Self::high_half(self.count)
            }
            Mode::SoftwareStrobe | Mode::HardwareStrobe => !self.loaded || e != self.count,
        }
    }

    /// Rising edges of OUT within the pulses `(from, to]`, given that `advance(from)` was called
    /// and no register changed in between.
    pub fn rising_edges(&self, from: Tick, to: Tick) -> u64 {
        if !self.loaded || self.since.is_none() {
            return 0;
        }
        if self.next_count.is_some() && self.mode.is_periodic() {
            let mut ahead = self.clone();
            ahead.advance(to);
            if ahead.next_count.is_none() {
                let (boundary, low_half) = self.reload_point();
                let at_boundary = u64::from(low_half == 0);
                let past = self.elapsed(to) - boundary;
                let phase = if low_half == 0 {
                    0
                } else {
                    Self::high_half(ahead.count)
                };
                return at_boundary + (phase + past) / ahead.count;
            }
        }
        let (a, b) = (self.elapsed(from), self.elapsed(to));
        match self.edge() {
            Some(Edge::Every(period)) => b / period - a / period,
            Some(Edge::Once(at)) => u64::from(a < at && at <= b),
            None => 0,
        }
    }

    /// The pulse of the next rising edge of OUT after `tick`.
    pub fn next_rising_edge(&self, tick: Tick) -> Option<Tick> {
        let since = self.since.filter(|_| self.loaded)?;
        let e = self.elapsed(tick);
        let target = match self.edge()? {
            Edge::Once(at) if e >= at => return None,
            Edge::Once(at) => at,
            Edge::Every(period) => match self.next_count {
                Some(next) if self.reload_point().1 != 0 => {
                    self.reload_point().0 + (next - Self::high_half(next))
                }
                _ => (e / period + 1) * period,
            },
        };
        Some(since + target.saturating_sub(self.counted))
    }

    fn edge(&self) -> Option<Edge> {
        match self.mode {
            Mode::InterruptOnTerminalCount | Mode::OneShot => Some(Edge::Once(self.count)),
            Mode::RateGenerator | Mode::SquareWave if self.count == 1 || !self.gate => None,
            Mode::RateGenerator | Mode::SquareWave => Some(Edge::Every(self.count)),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => Some(Edge::Once(self.count + 1)),
        }
    }

    /// The counting element's value as a read shows it.
    fn value(&self, tick: Tick) -> u16 {
        let e = self.elapsed(tick);
        let raw = match self.mode {
            Mode::RateGenerator => self.count - e % self.count,
            Mode::SquareWave => {
                let even = self.count & !1;
                let phase = e % self.count;
                let half = Self::high_half(self.count);
                even.wrapping_sub(2 * if phase < half { phase } else { phase - half })
            }
            _ => {
                let m = self.modulus();
                (self.count + m - e % m) % m
            }
        };
        let raw = raw % self.modulus();
        if self.bcd { to_bcd(raw) } else { raw as u16 }
    }

    /// A control word for this counter (not a latch command).
    pub fn control(&mut self, mode: Mode, access: Access, bcd: bool) {
        *self = Self {
            mode,
            access,
            bcd,
            gate: self.gate,
            ..Self::default()
        };
    }

    /// Counter latch command: a latched count that was not read yet stays.
    pub fn latch_count(&mut self, tick: Tick) {
        self.advance(tick);
        if self.latch.is_none() {
            self.latch = Some(self.value(tick));
        }
    }

    /// Read-back of the status byte.
    pub fn latch_status(&mut self, tick: Tick) {
        self.advance(tick);
        let pending = self.next_count.is_some() || !self.loaded;
        let null = pending || self.since.is_some_and(|s| tick < s) && self.counted == 0;
        let status = u8::from(self.out(tick)) << 7
            | u8::from(null) << 6
            | (self.access as u8) << 4
            | (self.mode as u8) << 1
            | u8::from(self.bcd);
        self.status.get_or_insert(status);
    }

    /// Reads the counter's port.
    pub fn read(&mut self, tick: Tick) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        self.advance(tick);
        let value = self.latch.unwrap_or_else(|| self.value(tick));
        let high = match self.access {
            Access::Low => false,
            Access::High => true,
            Access::LowHigh => self.read_high,
        };
        if self.access == Access::LowHigh {
            self.read_high = !self.read_high;
        }
        if self.access != Access::LowHigh || high {
            self.latch = None;
        }
        (if high { value >> 8 } else { value }) as u8
    }

    /// Writes the counter's port.
    pub fn write(&mut self, tick: Tick, byte: u8) {
        self.advance(tick);
        let word = match (self.access, self.low_byte.take()) {
            (Access::Low, _) => u16::from(byte),
            (Access::High, _) => u16::from(byte) << 8,
            (Access::LowHigh, Some(low)) => u16::from_le_bytes([low, byte]),
            (Access::LowHigh, None) => {
                self.low_byte = Some(byte);
                if self.mode == Mode::InterruptOnTerminalCount {
                    // The first byte stops the count and sets OUT low (datasheet, mode 0).
                    self.loaded = false;
                    self.since = None;
                }
                return;
            }
        };
        let count = if self.bcd {
            from_bcd(word)
        } else {
            u64::from(word)
        };
        let count = if count == 0 { self.modulus() } else { count };
        match self.mode {
            Mode::RateGenerator | Mode::SquareWave if self.loaded && self.since.is_some() => {
                // Keep `counted` within the current period, for `reload_point`.
                let elapsed = self.elapsed(tick);
                if self.since.is_some_and(|since| since <= tick) {
                    self.counted = elapsed % self.count;
                    self.since = Some(tick);
                    self.next_count = Some(count);
                } else {
                    self.count = count;
                }
            }
            Mode::OneShot | Mode::HardwareStrobe => self.next_count = Some(count),
            _ => self.load(tick, count),
        }
    }

    fn load(&mut self, tick: Tick, count: u64) {
        self.count = count;
        self.next_count = None;
        self.counted = 0;
        self.loaded = true;
        // The count reaches the counting element with the next pulse.
        self.since = self.gate.then_some(tick + 1);
    }

    /// Drives the GATE input.
    pub fn set_gate(&mut self, tick: Tick, gate: bool) {
        self.advance(tick);
        let rose = gate && !self.gate;
        let fell = !gate && self.gate;
        let elapsed = self.elapsed(tick);
        self.gate = gate;
        match self.mode {
            Mode::OneShot | Mode::HardwareStrobe => {
                if rose && (self.loaded || self.next_count.is_some()) {
                    self.count = self.next_count.take().unwrap_or(self.count);
                    self.counted = 0;
                    self.loaded = true;
                    self.since = Some(tick + 1);
                }
            }
            Mode::RateGenerator | Mode::SquareWave => {
                if fell {
                    self.counted = 0;
                    self.since = None;
                } else if rose && self.loaded {
                    let count = self.next_count.take().unwrap_or(self.count);
                    self.load(tick, count);
                }
            }
            Mode::InterruptOnTerminalCount | Mode::SoftwareStrobe => {
                if fell {
                    self.counted = elapsed;
                    self.since = None;
                } else if rose && self.loaded {
                    self.since = Some(tick);
                }
            }
        }
    }

    /// The period in pulses while the counter makes a square wave (the speaker's tone).
    pub fn square_wave_period(&self) -> Option<u64> {
        let sounding = self.mode == Mode::SquareWave && self.loaded && self.gate;
        sounding.then_some(self.count)
    }
}

enum Edge {
    Every(u64),
    Once(u64),
}

const fn from_bcd(word: u16) -> u64 {
    ((word >> 12) & 0xf) as u64 * 1000
        + ((word >> 8) & 0xf) as u64 * 100
        + ((word >> 4) & 0xf) as u64 * 10
        + (word & 0xf) as u64
}

const fn to_bcd(value: u64) -> u16 {
    ((value / 1000 % 10) << 12 | (value / 100 % 10) << 8 | (value / 10 % 10) << 4 | (value % 10))
        as u16
}
