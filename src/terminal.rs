//! Raw mode of the terminal, restored whatever happens.
//!
//! Three ways lead out of a run: the guard is dropped; a thread panics; the signal thread gives up
//! waiting and exits. Each restores the settings that were found at the start.

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{IsTerminal, stdin};
use std::sync::{Arc, Mutex, PoisonError};

/// The terminal's settings before raw mode, to be put back once.
#[derive(Clone)]
pub struct Restore(Arc<Mutex<Option<Termios>>>);

impl Restore {
    /// Puts the settings back; later calls do nothing.
    pub fn now(&self) {
        let saved = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(saved) = saved {
            // Output that the terminal does not take must not hold up the way out, hence TCSANOW.
            // A terminal that has gone needs no restoring.
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, &saved);
        }
    }
}

/// Raw mode for as long as it lives.
pub struct RawTerminal(Restore);

impl RawTerminal {
    /// Puts standard input into raw mode; `None` if it is not a terminal, or not ours: a
    /// background job must not change it.
    pub fn enter() -> Option<Self> {
        if !stdin().is_terminal() || nix::unistd::tcgetpgrp(stdin()).ok()? != nix::unistd::getpgrp()
        {
            return None;
        }
        let saved = tcgetattr(stdin()).ok()?;
        let mut raw = saved.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).ok()?;
        let restore = Restore(Arc::new(Mutex::new(Some(saved))));
        let in_panic = restore.clone();
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            in_panic.now();
            print(info);
        }));
        Some(Self(restore))
    }

    /// A handle that restores the terminal from another thread.
    pub fn restore_handle(&self) -> Restore {
        self.0.clone()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.0.now();
    }
}
