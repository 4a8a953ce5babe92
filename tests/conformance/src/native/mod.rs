//! The host processor as an engine: cases run in a jailed child process.
//!
//! The child enters each case by `sigreturn`, which loads general registers, flags, CS, SS and
//! the whole XSAVE state at once, and leaves it by the signal of the final INT3 or of the fault.
//! So a case costs one signal, and there is no stub whose effects would have to be told apart
//! from the case's. 32-bit code runs in compatibility mode in the host's own flat segments,
//! 16-bit code in segments of the child's local descriptor table ([`crate::layout`]).
//!
//! Jail: the child holds no file descriptor; seccomp leaves it `futex`, `rt_sigreturn` and
//! `exit_group`; code in compatibility mode reaches the low 4 GiB, where only the case's own
//! pages are. The parent kills a child that makes no progress and starts another.

mod child;
mod jail;
mod shared;

use crate::case::{Case, Outcome, Regs, Stop, seg};
use crate::engine::Engine;
use crate::vector::{Vector, XsaveLayout};
use crate::worker::cpu_time;
use shared::{Area, BATCH, MAGIC_RUNNING};
use std::time::{Duration, Instant};

/// Processor time without progress before the child is killed; and the longest wait for it.
const PATIENCE: Duration = Duration::from_millis(1500);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Why the native engine is not available.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// A system call of the set-up failed.
    #[error("native execution: {0}")]
    System(&'static str, #[source] std::io::Error),
    /// The child ended during its own set-up; its exit status tells the step.
    #[error("native execution: the child ended during step {0} of its set-up")]
    SetUp(i32),
}

/// The native engine.
pub struct Native {
    area: Area,
    layout: XsaveLayout,
    child: Option<i32>,
    sequence: u32,
    /// Children started.
    pub starts: u32,
}

impl Native {
    /// Starts a child.
    /// # Errors
    /// [`NativeError`] if the host forbids what is needed (memfd, fork, modify_ldt, seccomp).
    pub fn new() -> Result<Self, NativeError> {
        let layout = XsaveLayout::host();
        let area = Area::new(layout).map_err(|e| NativeError::System("shared memory", e))?;
        let mut native = Self {
            area,
            layout,
            child: None,
            sequence: 0,
            starts: 0,
        };
        native.start()?;
        Ok(native)
    }

    fn start(&mut self) -> Result<(), NativeError> {
        self.area.reset();
        self.sequence = 0;
        self.starts += 1;
        let pid = child::fork(&self.area).map_err(|e| NativeError::System("fork", e))?;
        self.child = Some(pid);
        let begin = Instant::now();
        while self.area.state() != MAGIC_RUNNING {
            self.area.wait_done(0, Duration::from_millis(5));
            if let Some(status) = child::ended(pid) {
                self.child = None;
                return Err(NativeError::SetUp(status));
            }
            if begin.elapsed() > LONGEST_WAIT {
                self.stop();
                return Err(NativeError::SetUp(-1));
            }
        }
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(pid) = self.child.take() {
            child::kill(pid);
        }
    }

    /// Runs up to [`BATCH`] cases; returns how many are done, and why the next one is not.
    fn attempt(&mut self, cases: &[Case]) -> (usize, Option<String>) {
        let Some(pid) = self.child else {
            return (0, Some("no child".into()));
        };
        for (n, case) in cases.iter().enumerate() {
            let input = self.area.input(n);
            input.regs = case.regs;
            case.vector.store(&mut input.xsave, &self.layout);
            input.memory.copy_from_slice(&case.memory());
        }
        self.sequence += 1;
        self.area.submit(self.sequence, cases.len() as u32);
        let used = || cpu_time(pid as u32);
        let mut last = (0, Instant::now(), used());
        loop {
            if self
                .area
                .wait_done(self.sequence, Duration::from_millis(20))
            {
                return (cases.len(), None);
            }
            let current = self.area.current();
            if let Some(status) = child::ended(pid) {
                self.child = None;
                return (
                    current as usize,
                    Some(format!("the child ended with status {status}")),
                );
            }
            if current != last.0 {
                last = (current, Instant::now(), used());
            } else if used().saturating_sub(last.2) > PATIENCE || last.1.elapsed() > LONGEST_WAIT {
                self.stop();
                return (current as usize, Some("it did not stop in time".into()));
            }
        }
    }

    fn outcome(&mut self, n: usize, case: &Case) -> Outcome {
        let output = self.area.output(n);
        let mut regs: Regs = output.regs;
        let at_end =
            output.trap == 3 && output.regs.eip.wrapping_add(case.code_base()) == case.end() + 1;
        if at_end {
            regs.eip = regs.eip.wrapping_sub(1);
        }
        let stop = if at_end {
            Stop::End
        } else {
            Stop::Trap {
                vector: output.trap as u8,
                error: output.error,
                address: if output.trap == 14 {
                    output.cr2 as u32
                } else {
                    0
                },
            }
        };
        Outcome {
            stop,
            regs,
            vector: Vector::load(&output.xsave, &self.layout),
            memory: output.memory.to_vec(),
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Engine for Native {
    fn name(&self) -> String {
        "native".into()
    }

    fn accepts_user_only(&self) -> bool {
        true
    }

    fn accepts(&self, case: &Case) -> bool {
        case.regs.seg[seg::CS] & 3 == 3
    }

    fn components(&self) -> u64 {
        self.layout.features
    }

    fn run_batch(&mut self, cases: &[Case]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(cases.len());
        while outcomes.len() < cases.len() {
            let rest = &cases[outcomes.len()..];
            let part = &rest[..rest.len().min(BATCH)];
            let (done, failure) = self.attempt(part);
            for (n, case) in part.iter().enumerate().take(done) {
                let outcome = self.outcome(n, case);
                outcomes.push(outcome);
            }
            if let Some(why) = failure {
                outcomes.push(Outcome::lost(why));
                if let Err(e) = self.start() {
                    let why = e.to_string();
                    outcomes.resize_with(cases.len(), || Outcome::lost(why.clone()));
                }
            }
        }
        outcomes
    }
}
