//! What changed on the screen since somebody last looked.
//!
//! Writes to the linear framebuffer are found by the write watch (`memory/video.rs`); whatever else
//! changes the picture passes through the adapter, which counts it. Whoever waits for a change
//! sleeps until one of the two is noticed: a screen that stays as it is costs nothing, and a screen
//! that nobody asks for is not watched.

use super::orders::Order;
use super::remote::Remote;
use crate::memory::GuestRam;
use ring3_devices::vga::Linear;
use ring3_translator::addr::PAGE_SIZE;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most lines between two changed ones that are reported as changed too.
const GAP: usize = 8;

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// To be given when asking again.
    pub generation: u64,
    /// The screen shows graphics, not text.
    pub graphics: bool,
    /// Lines of the picture that may differ, from the first to before the second number; none of
    /// them if nothing changed. `None`: all, and perhaps its size.
    pub lines: Option<Vec<(usize, usize)>>,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    /// When the picture changed otherwise than by the framebuffer.
    picture: u64,
    /// The adapter's count at that time.
    count: Option<u64>,
    /// When each page of video memory was found written.
    pages: Vec<u64>,
}

/// The watcher of one machine's screen; several may ask it.
#[derive(Debug)]
pub struct Screen {
    ram: Arc<GuestRam>,
    state: Mutex<State>,
}

impl Screen {
    /// A watcher that has not looked yet.
    #[must_use]
    pub fn new(ram: Arc<GuestRam>) -> Self {
        let pages = vec![0; (ram.video_size() / PAGE_SIZE) as usize];
        let state = State {
            pages,
            ..State::default()
        };
        Self {
            ram,
            state: Mutex::new(state),
        }
    }

    /// What changed after `since`; waits for a change, at most `limit`. Without `since`, everything.
    pub(super) fn changes(
        &self,
        remote: &Remote,
        since: Option<u64>,
        limit: Duration,
    ) -> Result<Changes, String> {
        let deadline = Instant::now() + limit;
        loop {
            // From here on no change is missed.
            let ticket = self.ram.video_signal().prepare();
            let changes = self.look(remote, since)?;
            let rest = deadline.saturating_duration_since(Instant::now());
            if changes.lines.as_ref().is_none_or(|l| !l.is_empty()) || rest.is_zero() {
                return Ok(changes);
            }
            self.ram.video_signal().wait(ticket, rest);
        }
    }

    fn look(&self, remote: &Remote, since: Option<u64>) -> Result<Changes, String> {
        let (count, linear, graphics) = remote.picture();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = state.count.is_none();
        if state.count != Some(count) {
            state.generation += 1;
            state.picture = state.generation;
            state.count = Some(count);
        }
        if linear.is_some()
            && (first || state.picture == state.generation || self.ram.video_written())
        {
            let written = remote.ask(Order::Harvest)?;
            if !written.is_empty() {
                state.generation += 1;
            }
            for page in written {
                let generation = state.generation;
                if let Some(slot) = state.pages.get_mut(page as usize) {
                    *slot = generation;
                }
            }
        }
        let since = since.filter(|s| *s >= state.picture && *s <= state.generation);
        let lines = since.map(|since| {
            linear.map_or(Vec::new(), |linear| {
                let pages = state.pages.iter().enumerate();
                lines(linear, pages.filter(|p| *p.1 > since).map(|p| p.0))
            })
        });
        Ok(Changes {
            generation: state.generation,
            graphics,
            lines,
        })
    }
}

/// The lines that pages of video memory show on, ascending.
fn lines(shown: Linear, pages: impl Iterator<Item = usize>) -> Vec<(usize, usize)> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let page = PAGE_SIZE as usize;
    for at in pages.map(|p| p * page) {
        if at + page <= shown.start || shown.pitch == 0 {
            continue;
        }
        let first = at.saturating_sub(shown.start) / shown.pitch;
        let last = (at + page - 1 - shown.start) / shown.pitch;
        if first >= shown.height {
            break;
        }
        let end = (last + 1).min(shown.height);
        match ranges.last_mut() {
            Some(range) if range.end + GAP >= first => range.end = range.end.max(end),
            _ => ranges.push(first..end),
        }
    }
    ranges.into_iter().map(|r| (r.start, r.end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_lines() {
        let shown = Linear {
            start: 8192,
            pitch: 1024,
            height: 100,
        };
        assert_eq!(lines(shown, [0, 1].into_iter()), []);
        assert_eq!(lines(shown, [2, 3].into_iter()), [(0, 8)]);
        assert_eq!(lines(shown, [2, 20].into_iter()), [(0, 4), (72, 76)]);
        assert_eq!(lines(shown, [26, 27, 28].into_iter()), [(96, 100)]);
        let long = Linear {
            start: 5000,
            pitch: 10_240,
            height: 4,
        };
        assert_eq!(lines(long, [1].into_iter()), [(0, 1)]);
        assert_eq!(lines(long, [3].into_iter()), [(0, 2)]);
    }
}
