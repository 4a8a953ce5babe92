//! Stopping a running executor from any thread or signal handler.
#![allow(unsafe_code)] // a system call without pointers

use crate::host_tsc::monotonic_ns;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// The signal that kicks.
pub const SIGNAL: i32 = libc::SIGUSR1;
/// A kick that is not answered for this long (ns) is followed by SIGKILL.
const ANSWER_LIMIT: u64 = 200_000_000;

struct Shared {
    pidfd: OwnedFd,
    running: AtomicBool,
    /// Time of the first unanswered kick, ns; 0 if none.
    unanswered: AtomicU64,
}

/// Makes [`super::Executor::run`] return soon. Cheap to clone; async-signal-safe; harmless when the
/// executor does not run (its next run then returns at once) or is long dead.
#[derive(Clone)]
pub struct ExecutorKick(Arc<Shared>);

impl ExecutorKick {
    pub(super) fn new(pidfd: OwnedFd) -> Self {
        Self(Arc::new(Shared {
            pidfd,
            running: AtomicBool::new(false),
            unanswered: AtomicU64::new(0),
        }))
    }

    fn signal(&self, signal: i32) {
        // SAFETY: no pointers; a pidfd cannot name another process than ours.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.pidfd.as_raw_fd(),
                signal,
                core::ptr::null::<libc::siginfo_t>(),
                0,
            );
        }
    }

    /// Kicks. The watchdog is here: a kick that finds the executor running although an earlier kick
    /// is 200 ms old kills it (which loses nothing).
    pub fn kick(&self) {
        self.signal(SIGNAL);
        if !self.0.running.load(Ordering::Acquire) {
            return;
        }
        let now = monotonic_ns().max(1);
        if let Err(first) =
            self.0
                .unanswered
                .compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire)
            && now.saturating_sub(first) > ANSWER_LIMIT
        {
            self.kill();
        }
    }

    /// Kills the process; its run returns [`super::TrapKind::Killed`] with the guest's registers.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    pub(super) fn set_running(&self, running: bool) {
        self.0.unanswered.store(0, Ordering::Release);
        self.0.running.store(running, Ordering::Release);
    }
}
