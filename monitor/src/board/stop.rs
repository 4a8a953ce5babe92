//! Ends a run from outside: signals, a front end's close button, Ctrl-A x.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// Why a run should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The user asked for it.
    Quit,
    /// This signal arrived.
    Signal(i32),
}

/// A request to end the run, which any thread may make; the I/O thread waits for it. The first
/// request counts.
#[derive(Debug)]
pub struct StopHandle {
    /// 0: none; 1: quit; 2 + n: signal n.
    state: AtomicU32,
    event: EventFd,
}

impl StopHandle {
    /// A handle on which nothing is requested yet.
    /// # Errors
    /// If the host has no file descriptor left.
    pub fn new() -> std::io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self {
            state: AtomicU32::new(0),
            event,
        })
    }

    /// Asks the run to end.
    pub fn request(&self, reason: StopReason) {
        let code = match reason {
            StopReason::Quit => 1,
            StopReason::Signal(n) => 2 + n.unsigned_abs(),
        };
        let _ = self
            .state
            .compare_exchange(0, code, Ordering::AcqRel, Ordering::Relaxed);
        // A full counter is readable too, which is all that matters.
        let _ = self.event.write(1);
    }

    /// What was requested.
    #[must_use]
    pub fn requested(&self) -> Option<StopReason> {
        match self.state.load(Ordering::Acquire) {
            0 => None,
            1 => Some(StopReason::Quit),
            n => Some(StopReason::Signal((n - 2) as i32)),
        }
    }
}

/// Readable once a stop is requested; never read, so it stays readable.
impl AsFd for StopHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_counts() {
        let stop = StopHandle::new().unwrap();
        assert_eq!(stop.requested(), None);
        stop.request(StopReason::Signal(15));
        stop.request(StopReason::Quit);
        assert_eq!(stop.requested(), Some(StopReason::Signal(15)));
    }
}
