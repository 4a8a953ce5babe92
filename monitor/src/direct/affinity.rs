//! Where the processor's thread and its executor run.
//!
//! A hand-over between two processes on the same host processor costs a few microseconds, on
//! different ones 26 to 160. The host's scheduler would spread the two, so both are held on one
//! while guest code runs directly, and the thread gives up the counter that executors may not read
//! ([`host_tsc`]). Now and then, and whenever the guest is idle, they are let go,
//! so that the host can move them.

use crate::executor::Executor;
use crate::host_tsc;
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// The thread is let go for one run after being held for so long, ns.
const HOLD: u64 = 250_000_000;

/// See the module's text. Belongs to the processor's thread.
#[derive(Default)]
pub struct Affinity {
    /// What the thread may run on by itself.
    allowed: Option<CpuSet>,
    held: Option<(usize, u64)>,
}

fn only(core: usize) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    set.set(core).ok()?;
    Some(set)
}

impl Affinity {
    /// Call before guest code runs in `executor` at `now` (ns). Where the host refuses, everything
    /// works, only slower.
    pub fn before_run(&mut self, executor: &mut Executor, now: u64) {
        host_tsc::hide();
        match self.held {
            Some((_, since)) if now.saturating_sub(since) > HOLD => {
                self.release();
                if let Some(allowed) = &self.allowed {
                    executor.set_affinity(allowed, None);
                }
            }
            Some((core, _)) => Self::place(executor, core),
            None => {
                let Ok(core) = sched_getcpu() else { return };
                let this = Pid::from_raw(0);
                if self.allowed.is_none() {
                    self.allowed = sched_getaffinity(this).ok();
                }
                if only(core).is_some_and(|set| sched_setaffinity(this, &set).is_ok()) {
                    self.held = Some((core, now));
                    Self::place(executor, core);
                }
            }
        }
    }

    fn place(executor: &mut Executor, core: usize) {
        if executor.placed() != Some(core)
            && let Some(set) = only(core)
        {
            executor.set_affinity(&set, Some(core));
        }
    }

    /// Lets the thread go.
    pub fn release(&mut self) {
        host_tsc::show();
        if self.held.take().is_some()
            && let Some(allowed) = &self.allowed
        {
            let _ = sched_setaffinity(Pid::from_raw(0), allowed);
        }
    }
}
