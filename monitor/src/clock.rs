//! The virtual machine's clock: one monotonic time from which every timer chip, the guest's wall
//! clock and its time stamp counter derive.
//!
//! It stops while the machine is paused, so that a paused guest sees no time pass. A *manual*
//! clock moves only when told to: tests step it. Readers take no lock: the base values are
//! guarded by a sequence counter (odd while a writer changes them), writers by a mutex.

use crate::host_tsc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The rate of a manual clock's time stamp counter, in Hz.
const MANUAL_TSC_HZ: u64 = 1_000_000_000;

/// How long the host's counter is measured against the host's clock.
const CALIBRATION: Duration = Duration::from_millis(5);

/// A pausable monotonic clock. Shared as `Arc<VmClock>`.
#[derive(Debug)]
pub struct VmClock {
    manual: bool,
    /// The host's monotonic clock at the start, ns.
    epoch: u64,
    tsc_hz: u64,
    /// Ticks of the time stamp counter in a nanosecond, times 2^32.
    tsc_rate: u64,
    wall_base_ns: AtomicU64,
    sequence: AtomicU32,
    running: AtomicBool,
    /// Host nanoseconds since `epoch` when the clock last started.
    host_base: AtomicU64,
    /// Clock nanoseconds at that moment.
    vm_base: AtomicU64,
    writer: Mutex<()>,
}

impl VmClock {
    /// A clock that follows the host's, running from 0; the wall clock starts at the host's.
    /// Takes about 5 ms to measure the time stamp counter.
    #[must_use]
    pub fn new() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let hz = measure_tsc_hz(CALIBRATION);
        Self::build(false, hz, u64::try_from(wall.as_nanos()).unwrap_or(0))
    }

    /// A clock that only [`VmClock::advance`] moves; the wall clock starts at `unix_seconds`.
    /// Its time stamp counter runs at 1 GHz.
    #[must_use]
    pub fn manual(unix_seconds: u64) -> Self {
        Self::build(
            true,
            MANUAL_TSC_HZ,
            unix_seconds.saturating_mul(1_000_000_000),
        )
    }

    fn build(manual: bool, tsc_hz: u64, wall_base_ns: u64) -> Self {
        Self {
            manual,
            epoch: host_tsc::monotonic_ns(),
            tsc_hz,
            tsc_rate: ((u128::from(tsc_hz) << 32) / 1_000_000_000).max(1) as u64,
            wall_base_ns: AtomicU64::new(wall_base_ns),
            sequence: AtomicU32::new(0),
            running: AtomicBool::new(true),
            host_base: AtomicU64::new(0),
            vm_base: AtomicU64::new(0),
            writer: Mutex::new(()),
        }
    }

    /// Nanoseconds that the machine has run.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.read(|| {
            let base = self.vm_base.load(Ordering::Relaxed);
            if !self.advances_alone() {
                return base;
            }
            base + self
                .host_ns()
                .saturating_sub(self.host_base.load(Ordering::Relaxed))
        })
    }

    /// The time stamp counter of the machine, in ticks of [`VmClock::tsc_hz`], 0 at the start.
    #[must_use]
    pub fn tsc(&self) -> u64 {
        ((u128::from(self.now_ns()) * u128::from(self.tsc_rate)) >> 32) as u64
    }

    /// The clock time at which [`VmClock::tsc`] reaches `counter`, in ns; the present if it has. A
    /// distance of more than 2^63 ticks is one into the past.
    #[must_use]
    pub fn time_of_tsc(&self, counter: u64) -> u64 {
        let ticks = counter.wrapping_sub(self.tsc()) as i64;
        let left = (u128::from(ticks.max(0) as u64) << 32).div_ceil(u128::from(self.tsc_rate));
        self.now_ns()
            .saturating_add(u64::try_from(left).unwrap_or(u64::MAX))
    }

    /// The rate of the time stamp counter, in Hz.
    #[must_use]
    pub fn tsc_hz(&self) -> u64 {
        self.tsc_hz
    }

    /// The guest's wall clock: nanoseconds since 1970-01-01 00:00 UTC.
    #[must_use]
    pub fn wall_ns(&self) -> u64 {
        self.wall_base_ns
            .load(Ordering::Relaxed)
            .wrapping_add(self.now_ns())
    }

    /// The wall clock at clock time 0, in nanoseconds since 1970-01-01 00:00 UTC.
    #[must_use]
    pub fn wall_base_ns(&self) -> u64 {
        self.wall_base_ns.load(Ordering::Relaxed)
    }

    /// True unless paused.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Stops the clock. Stopping it twice is one stop.
    pub fn pause(&self) {
        self.write(|| {
            if !self.running.load(Ordering::Relaxed) {
                return;
            }
            if !self.manual {
                let ran = self
                    .host_ns()
                    .saturating_sub(self.host_base.load(Ordering::Relaxed));
                self.vm_base.fetch_add(ran, Ordering::Relaxed);
            }
            self.running.store(false, Ordering::Relaxed);
        });
    }

    /// Starts the clock again where it stopped.
    pub fn resume(&self) {
        self.write(|| {
            if self.running.load(Ordering::Relaxed) {
                return;
            }
            self.host_base.store(self.host_ns(), Ordering::Relaxed);
            self.running.store(true, Ordering::Relaxed);
        });
    }

    /// Moves a manual clock forward; a clock that follows the host's ignores it, and so does a
    /// paused one.
    pub fn advance(&self, ns: u64) {
        self.write(|| {
            if self.manual && self.running.load(Ordering::Relaxed) {
                let now = self.vm_base.load(Ordering::Relaxed).saturating_add(ns);
                self.vm_base.store(now, Ordering::Relaxed);
            }
        });
    }

    /// How long to sleep on the host until clock time `deadline`; zero if it has passed, `None`
    /// if the clock does not move by itself (paused or manual) and the deadline is ahead.
    #[must_use]
    pub fn host_delay(&self, deadline: u64) -> Option<Duration> {
        let left = deadline.saturating_sub(self.now_ns());
        if left == 0 {
            return Some(Duration::ZERO);
        }
        (!self.manual && self.is_running()).then(|| Duration::from_nanos(left))
    }

    fn advances_alone(&self) -> bool {
        !self.manual && self.running.load(Ordering::Relaxed)
    }

    fn host_ns(&self) -> u64 {
        host_tsc::monotonic_ns().saturating_sub(self.epoch)
    }

    fn read<T>(&self, compute: impl Fn() -> T) -> T {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before & 1 == 0 {
                let value = compute();
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return value;
                }
            }
            core::hint::spin_loop();
        }
    }

    fn write(&self, change: impl FnOnce()) {
        let guard = self
            .writer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        self.sequence.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.sequence.fetch_add(1, Ordering::Release);
        drop(guard);
    }
}

impl Default for VmClock {
    fn default() -> Self {
        Self::new()
    }
}

/// One (clock, counter) pair: the tightest of a few, so that a preemption between the two
/// readings does not count.
fn tsc_sample() -> (u64, u64) {
    let mut best = (host_tsc::monotonic_ns(), host_tsc::read());
    let mut best_width = u64::MAX;
    for _ in 0..8 {
        let before = host_tsc::monotonic_ns();
        let ticks = host_tsc::read();
        let width = host_tsc::monotonic_ns().saturating_sub(before);
        if width < best_width {
            best_width = width;
            best = (before, ticks);
        }
    }
    best
}

/// Measures the host's counter against its monotonic clock for about `span`.
fn measure_tsc_hz(span: Duration) -> u64 {
    let (start, first) = tsc_sample();
    std::thread::sleep(span);
    let (end, last) = tsc_sample();
    let ns = end.saturating_sub(start).max(1);
    (u128::from(last.wrapping_sub(first)) * 1_000_000_000 / u128::from(ns)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = VmClock::manual(1_000);
        assert_eq!(clock.now_ns(), 0);
        clock.advance(2_500_000_000);
        assert_eq!(clock.now_ns(), 2_500_000_000);
        assert_eq!(clock.tsc(), 2_500_000_000);
        assert_eq!(clock.wall_ns(), 1_002_500_000_000);
        clock.pause();
        clock.advance(1);
        assert_eq!(clock.now_ns(), 2_500_000_000);
        assert_eq!(clock.host_delay(2_600_000_000), None);
        assert_eq!(clock.host_delay(5), Some(Duration::ZERO));
    }

    #[test]
    fn pause_hides_host_time() {
        let clock = VmClock::new();
        clock.pause();
        let (ns, ticks) = (clock.now_ns(), clock.tsc());
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!((clock.now_ns(), clock.tsc()), (ns, ticks));
        clock.resume();
        let later = clock.now_ns();
        assert!(later >= ns && later < ns + 15_000_000, "{ns} {later}");
    }

    #[test]
    fn counter_and_clock_agree() {
        let clock = VmClock::new();
        let (ns0, t0) = (clock.now_ns(), clock.tsc());
        std::thread::sleep(Duration::from_millis(30));
        let (ns1, t1) = (clock.now_ns(), clock.tsc());
        let from_ticks = (t1 - t0) as f64 * 1e9 / clock.tsc_hz() as f64;
        let ratio = from_ticks / (ns1 - ns0) as f64;
        assert!((0.98..1.02).contains(&ratio), "{ratio}");
    }

    #[test]
    fn never_goes_back_while_paused_and_resumed() {
        let clock = Arc::new(VmClock::new());
        let writer = Arc::clone(&clock);
        let thread = std::thread::spawn(move || {
            for _ in 0..2000 {
                writer.pause();
                writer.resume();
            }
        });
        let mut last = 0;
        while !thread.is_finished() {
            let now = clock.now_ns();
            assert!(now >= last);
            last = now;
        }
        thread.join().unwrap();
    }
}
