//! SIGTERM, SIGINT and SIGHUP end a run in order: the guest stops, its output is written, the
//! terminal is restored, and the status says which signal it was.

use crate::exit;
use crate::terminal::Restore;
use nix::sys::signal::{SigSet, Signal};
use ring3_monitor::board::{StopHandle, StopReason};
use std::sync::Arc;
use std::time::Duration;

/// How long a run may take to end after a signal before the process exits without it.
const GRACE: Duration = Duration::from_secs(5);

/// The signals, blocked in every thread that is started afterwards.
pub struct BlockedSignals(SigSet);

impl BlockedSignals {
    /// Blocks the signals; call it before any other thread exists.
    pub fn block() -> nix::Result<Self> {
        let set: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
            .into_iter()
            .collect();
        set.thread_block()?;
        Ok(Self(set))
    }

    /// Starts the thread that waits for them.
    pub fn watch(self, stop: Arc<StopHandle>, restore: Option<Restore>) -> std::io::Result<()> {
        let wait = move || {
            let Ok(signal) = self.0.wait() else { return };
            stop.request(StopReason::Signal(signal as i32));
            let number = signal as i32;
            // A second signal means "now".
            let second = std::thread::Builder::new().name("grace".into());
            let again = self.0;
            let restore_again = restore.clone();
            let _ = second.spawn(move || {
                let _ = again.wait();
                leave(number, restore_again.as_ref());
            });
            std::thread::sleep(GRACE);
            leave(number, restore.as_ref());
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(wait)?;
        Ok(())
    }
}

/// The machine did not end by itself: leave without it.
fn leave(signal: i32, restore: Option<&Restore>) -> ! {
    if let Some(restore) = restore {
        restore.now();
    }
    std::process::exit(exit::signal(signal).into())
}
