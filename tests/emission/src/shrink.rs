//! Makes a failing input small.

use crate::input::Input;
use crate::subject::Subject;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why an input fails in a cache of its own; None if it does not.
#[must_use]
pub fn failure(input: &Input) -> Option<String> {
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let mut subject = Subject::new(1 << 20)?;
        subject.translate(input).map(drop)
    }));
    match attempt {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(panic) => Some(format!("panic: {}", text_of(panic.as_ref()))),
    }
}

/// The message of a panic.
#[must_use]
pub fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "without a message".into())
}

/// Removes runs of bytes, then adapted sites, as long as it still fails.
#[must_use]
pub fn shrink(input: &Input) -> Input {
    let mut best = input.clone();
    let mut len = best.bytes.len().div_ceil(2);
    while len > 0 {
        let mut at = 0;
        while at + len <= best.bytes.len() && best.bytes.len() > len {
            let mut less = best.clone();
            less.bytes.drain(at..at + len);
            if failure(&less).is_some() {
                best = less;
            } else {
                at += len;
            }
        }
        len /= 2;
    }
    let mut n = 0;
    while n < best.adapted.len() {
        let mut less = best.clone();
        less.adapted.remove(n);
        if failure(&less).is_some() {
            best = less;
        } else {
            n += 1;
        }
    }
    best
}
