//! Random series of operations on a target; a failing one is shrunk and printed.

use crate::board::BoardTarget;
use crate::chips;
use crate::heap::Counting;
use crate::storage::{FloppyTarget, IdeTarget};
use crate::target::{Op, Target, make};
use fastrand::Rng;
use nix::time::{ClockId, clock_gettime};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Operations in a series, after which the target starts anew.
pub const SERIES: usize = 3000;
/// Most bytes that a target may have in use beyond what it started with, pictures included.
pub const MOST_BYTES: usize = 96 << 20;
/// An operation that takes more of the processor's time than this hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Names of all targets.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = chips::all().iter().map(|t| t.name()).collect();
    names.extend(["floppy", "ide", "board"]);
    names
}

/// A fresh target.
///
/// # Errors
/// If there is none of this name, or the host refuses its memory.
pub fn target(name: &str) -> Result<Box<dyn Target>, String> {
    match name {
        "floppy" => Ok(Box::new(FloppyTarget::default())),
        "ide" => Ok(Box::new(IdeTarget::default())),
        "board" => BoardTarget::new()
            .map(|b| Box::new(b) as _)
            .map_err(|e| format!("guest memory: {e}")),
        _ => chips::all()
            .into_iter()
            .find(|t| t.name() == name)
            .ok_or_else(|| format!("no target is called {name}")),
    }
}

/// Time on a target's clock.
#[derive(Default)]
struct Time(u64);

impl Time {
    fn pass(&mut self, op: &Op, target: &dyn Target) -> u64 {
        match op {
            Op::Wait(ns) => self.0 = self.0.saturating_add(*ns).min(1 << 62),
            Op::Deadline => {
                if let Some(due) = target.deadline() {
                    self.0 = self.0.max(due.min(1 << 62));
                }
            }
            _ => self.0 += 100,
        }
        self.0
    }
}

/// Processor time of this thread: a busy host, or one that stops the process, is no hang.
fn spent() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// What one operation came to.
fn one(
    target: &mut dyn Target,
    time: &mut Time,
    op: &Op,
    heap: &Counting,
    start: usize,
) -> Result<(), String> {
    let now = time.pass(op, target);
    heap.take_peak();
    let begin = spent();
    catch_unwind(AssertUnwindSafe(|| target.apply(now, op))).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        format!("panic: {}", text.unwrap_or("without a message"))
    })?;
    let took = spent().saturating_sub(begin);
    if took > PATIENCE {
        return Err(format!("one operation took {took:?}"));
    }
    let used = heap.take_peak().saturating_sub(start);
    if used > MOST_BYTES {
        return Err(format!("{used} bytes in use"));
    }
    Ok(())
}

/// Carries a list of operations out on a fresh target; why it fails, if it does.
fn replay(name: &str, ops: &[Op], heap: &Counting) -> Option<String> {
    let start = heap.used();
    let mut target = target(name).ok()?;
    let mut time = Time::default();
    ops.iter()
        .find_map(|op| one(target.as_mut(), &mut time, op, heap, start).err())
}

fn shrink(name: &str, ops: &[Op], heap: &Counting) -> Vec<Op> {
    let mut best = ops.to_vec();
    let mut len = best.len().div_ceil(2);
    while len > 0 {
        let mut at = 0;
        while at < best.len() {
            let mut less = best.clone();
            less.drain(at..(at + len).min(less.len()));
            if replay(name, &less, heap).is_some() {
                best = less;
            } else {
                at += len;
            }
        }
        len /= 2;
    }
    best
}

/// Runs a series with a seed. `progress` is told the number of operations done.
///
/// # Errors
/// The failure: seed, shrunk operations, what went wrong.
pub fn series(
    name: &str,
    seed: u64,
    heap: &Counting,
    progress: &dyn Fn(u64),
) -> Result<u64, String> {
    let start = heap.used();
    let mut rng = Rng::with_seed(seed);
    let mut target = target(name)?;
    let mut time = Time::default();
    let mut ops = Vec::with_capacity(SERIES);
    for n in 0..SERIES {
        let op = make(&mut rng, target.as_ref());
        ops.push(op);
        progress(n as u64);
        if let Err(why) = one(target.as_mut(), &mut time, &ops[n], heap, start) {
            drop(target);
            let small = shrink(name, &ops, heap);
            let lines: Vec<String> = small.iter().map(|o| format!("  {o:?}")).collect();
            return Err(format!(
                "{name}, seed {seed}, operation {n}: {why}\nshrunk to {} operations:\n{}",
                small.len(),
                lines.join("\n")
            ));
        }
    }
    Ok(SERIES as u64)
}
