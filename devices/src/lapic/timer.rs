//! The local APIC's timer: one-shot, periodic, or to a deadline of the time stamp counter.
//!
//! Intel SDM vol. 3A, 11.5.4. The timer tells that it has expired; mask, mode and vector are in the
//! local vector table.

use crate::bus::Nanos;

/// Nanoseconds per tick before division: a bus clock of 100 MHz.
const TICK: Nanos = 10;

/// What the timer's entry in the local vector table makes of it. SDM vol. 3A, figure 11-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
}

#[derive(Clone, Debug, Default)]
pub struct Timer {
    divide: u32,
    initial: u32,
    /// When the present period began; `None` while stopped.
    started: Option<Nanos>,
    /// When the time stamp counter reaches IA32_TSC_DEADLINE; `None` while disarmed.
    deadline: Option<Nanos>,
}

impl Timer {
    /// Nanoseconds per count.
    fn period(&self) -> Nanos {
        let code = self.divide & 3 | self.divide >> 1 & 4;
        // 0: by 2 ... 6: by 128, 7: by 1
        TICK << ((code + 1) & 7)
    }

    fn total(&self) -> Nanos {
        Nanos::from(self.initial) * self.period()
    }

    pub fn divide(&self) -> u32 {
        self.divide
    }

    pub fn initial(&self) -> u32 {
        self.initial
    }

    pub fn current(&self, now: Nanos) -> u32 {
        let Some(started) = self.started else {
            return 0;
        };
        u64::from(self.initial).saturating_sub((now - started) / self.period()) as u32
    }

    /// A write of the initial count starts the timer, 0 stops it.
    pub fn start(&mut self, now: Nanos, initial: u32) {
        self.initial = initial;
        self.started = (initial != 0).then_some(now);
    }

    /// A write of the divide configuration: the count goes on from where it is, at the new rate.
    pub fn set_divide(&mut self, now: Nanos, value: u32) {
        let left = self.current(now);
        self.divide = value & 0x0b;
        if self.started.is_some() {
            let done = u64::from(self.initial - left) * self.period();
            self.started = Some(now.saturating_sub(done));
        }
    }

    pub fn set_deadline(&mut self, due: Option<Nanos>) {
        self.deadline = due;
    }

    pub fn deadline_armed(&self) -> bool {
        self.deadline.is_some()
    }

    /// A change to or from deadline mode disarms the timer.
    pub fn disarm(&mut self) {
        (self.deadline, self.started) = (None, None);
    }

    /// When it expires next.
    pub fn next(&self) -> Option<Nanos> {
        let count = |started: Nanos| started.saturating_add(self.total());
        self.deadline.or(self.started.map(count))
    }

    /// Brings the timer to `now`; true if it has expired. Several periods are one expiry: the
    /// request register has one bit.
    pub fn advance(&mut self, now: Nanos, mode: Mode) -> bool {
        if self.deadline.take_if(|due| *due <= now).is_some() {
            return true;
        }
        let total = self.total();
        let Some(passed) = self.started.map(|started| now - started) else {
            return false;
        };
        if passed < total {
            return false;
        }
        self.started = (mode == Mode::Periodic).then(|| now - passed % total);
        true
    }
}
