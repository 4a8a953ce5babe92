//! What only the processor's thread can do, asked for by others.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Orders that wait at most.
const MAX: usize = 64;
/// How often a paused machine looks for other requests (signals, a reset).
const LOOK: Duration = Duration::from_millis(50);

/// An order.
#[derive(Debug)]
pub enum Order {
    /// Stop running the guest; the answer comes when it has stopped.
    Pause(SyncSender<()>),
    /// Run it again.
    Resume(SyncSender<()>),
    /// Send the counters as JSON.
    Stats(SyncSender<String>),
    /// Watch video memory, and send the numbers of the pages that were written to since the last
    /// time.
    Harvest(SyncSender<Vec<u32>>),
}

/// Orders for the machine's thread.
#[derive(Debug, Default)]
pub struct Orders {
    queue: Mutex<VecDeque<Order>>,
    arrived: Condvar,
}

impl Orders {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Order>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an order; false if too many wait.
    pub fn give(&self, order: Order) -> bool {
        let mut queue = self.queue();
        if queue.len() >= MAX {
            return false;
        }
        queue.push_back(order);
        self.arrived.notify_all();
        true
    }

    /// The next order.
    #[must_use]
    pub fn take(&self) -> Option<Order> {
        self.queue().pop_front()
    }

    /// Waits for an order, but not for long.
    pub fn wait(&self) {
        let queue = self.queue();
        if queue.is_empty() {
            drop(self.arrived.wait_timeout(queue, LOOK));
        }
    }
}
