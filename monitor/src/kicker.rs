//! How other threads make a processor look up: the poisoned poll pointer and a thread wake-up.
#![allow(unsafe_code)] // one atomic field of the guest state is shared between threads

use crate::board::Kick;
use crate::executor::ExecutorKick;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ring3_translator::state::GuestState;
use ring3_translator::state_box::StateBox;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

/// The processor's state, kept alive for kickers that outlast the run loop.
pub struct SharedState(StateBox);

// SAFETY: other threads touch only `poll_ptr`, and that atomically.
unsafe impl Sync for SharedState {}

impl SharedState {
    /// Wraps a state.
    #[must_use]
    pub fn new(state: StateBox) -> Arc<Self> {
        Arc::new(Self(state))
    }

    /// The state's address. Everything but `poll_ptr` belongs to the processor's thread.
    #[must_use]
    pub fn as_ptr(&self) -> *mut GuestState {
        self.0.as_ptr()
    }

    /// The shared field.
    #[must_use]
    pub fn poll_ptr(&self) -> &AtomicU64 {
        // SAFETY: the field is aligned, lives as long as self, and everyone accesses it atomically
        // (translated code by single aligned loads).
        unsafe { AtomicU64::from_ptr(&raw mut (*self.0.as_ptr()).poll_ptr) }
    }
}

/// Wakes one processor.
pub struct Kicker {
    state: Arc<SharedState>,
    /// Set by a kick, cleared by the run loop when it looks.
    pub attention: AtomicBool,
    poison: u64,
    thread: std::sync::OnceLock<Thread>,
    /// What runs guest code for this processor now, outside its own thread.
    executor: Mutex<Option<ExecutorKick>>,
}

impl Kicker {
    /// A kicker that poisons polls with `poison`.
    #[must_use]
    pub fn new(state: Arc<SharedState>, poison: u64) -> Self {
        Self {
            state,
            attention: AtomicBool::new(false),
            poison,
            thread: std::sync::OnceLock::new(),
            executor: Mutex::new(None),
        }
    }

    /// Names the executor that runs guest code from now on. Look at `attention` after this.
    pub fn set_executor(&self, executor: Option<ExecutorKick>) {
        *self.executor.lock().unwrap_or_else(PoisonError::into_inner) = executor;
    }

    /// Names the calling thread as the processor's.
    pub fn bind_thread(&self) {
        let _ = self.thread.set(std::thread::current());
    }
}

impl Kick for Kicker {
    fn kick(&self) {
        self.attention.store(true, Ordering::Release);
        self.state.poll_ptr().store(self.poison, Ordering::Release);
        if let Some(executor) = &*self.executor.lock().unwrap_or_else(PoisonError::into_inner) {
            executor.kick();
        }
        if let Some(t) = self.thread.get() {
            t.unpark();
        }
    }
}
