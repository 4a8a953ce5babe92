//! Video memory: the part of the memfd behind RAM. The guest finds it where the display adapter's
//! base address register puts it, and draws into it as into RAM.
//!
//! Who shows the screen wants to know what changed. The attribute LOGGED finds out by the write
//! watch: [`GuestRam::harvest_video`] sets it on all pages and returns those that had lost it; the
//! first write to a page takes it away and goes through at full speed from then on. Only the
//! processor's thread harvests, since windows and TLBs must lose their writable entries with it.
//! Without a harvest nothing is watched.
#![allow(unsafe_code)] // copies through raw pointers

use super::{GuestRam, attr};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ring3_translator::addr::PAGE_SIZE;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// [`Video::base`] of video memory that the guest has not mapped: far from all physical addresses,
/// so that the distance of none of them is small.
const NOWHERE: u64 = 1 << 63;

/// Where video memory is, and whether it was written to.
#[derive(Debug)]
pub(super) struct Video {
    size: u64,
    base: AtomicU64,
    written: AtomicBool,
    code_written: AtomicBool,
    signal: Arc<Signal>,
}

impl Video {
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            base: AtomicU64::new(NOWHERE),
            written: AtomicBool::new(false),
            code_written: AtomicBool::new(false),
            signal: Arc::default(),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn offset(&self, pa: u64) -> Option<u64> {
        let at = pa.wrapping_sub(self.base.load(Ordering::Relaxed));
        (at < self.size).then_some(at)
    }

    pub(super) fn physical_of(&self, at: u64) -> u64 {
        self.base.load(Ordering::Relaxed).wrapping_add(at)
    }

    pub(super) fn region(&self, pa: u64) -> Option<Range<u64>> {
        let start = pa - self.offset(pa)?;
        Some(start..start + self.size)
    }
}

/// Wakes whoever waits for a change of the screen. Raising it costs one load while nobody waits.
#[derive(Debug, Default)]
pub struct Signal {
    wanted: AtomicBool,
    raised: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    /// Something changed.
    pub fn raise(&self) {
        if self.wanted.load(Ordering::SeqCst) && self.wanted.swap(false, Ordering::SeqCst) {
            *self.raised.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            self.changed.notify_all();
        }
    }

    /// Announces that the caller is going to wait: look at what may have changed between this and
    /// [`Self::wait`], and no change is missed.
    #[must_use]
    pub fn prepare(&self) -> u64 {
        let raised = *self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanted.store(true, Ordering::SeqCst);
        raised
    }

    /// Waits until the signal is raised after `since`, at most `limit`.
    pub fn wait(&self, since: u64, limit: Duration) {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        // Poisoned or not, the number is all there is.
        drop(
            self.changed
                .wait_timeout_while(raised, limit, |raised| *raised == since),
        );
    }
}

impl GuestRam {
    /// Bytes of video memory.
    #[must_use]
    pub fn video_size(&self) -> u64 {
        self.video.size
    }

    /// The guest-physical address of video memory, if the guest has mapped it.
    #[must_use]
    pub fn video_base(&self) -> Option<u64> {
        Some(self.video.base.load(Ordering::Relaxed)).filter(|base| *base != NOWHERE)
    }

    /// Puts video memory at a page-aligned physical address. Translations, windows and TLBs know
    /// nothing of it: the caller drops what they hold of the old place and of the new.
    pub fn place_video(&self, base: Option<u64>) {
        self.video
            .base
            .store(base.unwrap_or(NOWHERE), Ordering::Relaxed);
    }

    /// Who is woken by changes of the screen.
    #[must_use]
    pub fn video_signal(&self) -> &Arc<Signal> {
        &self.video.signal
    }

    /// True if a page has lost LOGGED since the last harvest.
    #[must_use]
    pub fn video_written(&self) -> bool {
        self.video.written.load(Ordering::SeqCst)
    }

    /// A write to the page of `pa` is about to happen: LOGGED goes. True if it was there.
    pub fn note_write(&self, pa: u64) -> bool {
        let Some(attribute) = self.attribute(pa) else {
            return false;
        };
        if attribute.load(Ordering::Relaxed) & attr::LOGGED == 0 {
            return false;
        }
        attribute.fetch_and(!attr::LOGGED, Ordering::SeqCst);
        self.video.written.store(true, Ordering::SeqCst);
        self.video.signal.raise();
        true
    }

    /// Sets LOGGED on every page of video memory. Returns the numbers of those that did not have
    /// it, in ascending order: written since the last harvest, or never watched.
    #[must_use]
    pub fn harvest_video(&self) -> Vec<u32> {
        self.video.written.store(false, Ordering::SeqCst);
        let first = (self.size / PAGE_SIZE) as usize;
        (0..)
            .zip(&self.attributes[first..])
            .filter(|(_, a)| a.fetch_or(attr::LOGGED, Ordering::SeqCst) & attr::LOGGED == 0)
            .map(|(page, _)| page)
            .collect()
    }

    /// Host addresses of video memory.
    #[must_use]
    pub fn video_host_range(&self) -> Range<u64> {
        let start = self.base.as_ptr() as u64 + self.size;
        start..start + self.video.size
    }

    /// Copies video memory out, wherever the guest has it; bytes past its end read as 0xff.
    pub fn read_video(&self, at: u64, buf: &mut [u8]) {
        let available = self.video.size.saturating_sub(at).min(buf.len() as u64) as usize;
        let from = self.size + at.min(self.video.size);
        // SAFETY: `available` bytes from `from` are inside the mapping.
        unsafe {
            core::ptr::copy_nonoverlapping(
                self.base.as_ptr().add(from as usize),
                buf.as_mut_ptr(),
                available,
            );
        }
        buf[available..].fill(0xff);
    }

    /// The display adapter's own writes; bytes past the end are dropped. Watchers of LOGGED hear
    /// of it; of CODE, whoever asks [`Self::take_video_code_written`].
    pub fn write_video(&self, at: u64, data: &[u8]) {
        let available = self.video.size.saturating_sub(at).min(data.len() as u64) as usize;
        if available == 0 {
            return;
        }
        let to = self.size + at;
        // SAFETY: `available` bytes from `to` are inside the mapping.
        unsafe {
            core::ptr::copy_nonoverlapping(
                data.as_ptr(),
                self.base.as_ptr().add(to as usize),
                available,
            );
        }
        for page in to / PAGE_SIZE..=(to + available as u64 - 1) / PAGE_SIZE {
            let attribute = &self.attributes[page as usize];
            let attributes = attribute.load(Ordering::Relaxed);
            if attributes & attr::CODE != 0 {
                self.video.code_written.store(true, Ordering::Relaxed);
            }
            if attributes & attr::LOGGED != 0 {
                attribute.fetch_and(!attr::LOGGED, Ordering::SeqCst);
                self.video.written.store(true, Ordering::SeqCst);
                self.video.signal.raise();
            }
        }
    }

    /// Whether the display adapter wrote to a page with translations since the last call.
    #[must_use]
    pub fn take_video_code_written(&self) -> bool {
        self.video.code_written.load(Ordering::Relaxed)
            && self.video.code_written.swap(false, Ordering::Relaxed)
    }

    /// The pages of video memory, as the guest has mapped them, that have translations.
    #[must_use]
    pub fn video_code(&self) -> Vec<u64> {
        let Some(base) = self.video_base() else {
            return Vec::new();
        };
        (base..base + self.video.size)
            .step_by(PAGE_SIZE as usize)
            .filter(|page| self.attributes(*page) & attr::CODE != 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: u64 = 1 << 20;
    const BASE: u64 = 0xfd00_0000;

    #[test]
    fn video_memory_is_where_the_guest_puts_it() {
        let ram = GuestRam::with_video(RAM, 4 * PAGE_SIZE).unwrap();
        assert!(!ram.is_ram(RAM) && !ram.is_ram(BASE) && ram.region(BASE).is_none());
        ram.write_video(0x1ffe, &[1, 2, 3, 4]);
        ram.place_video(Some(BASE));
        let mut buf = [0; 4];
        ram.read(BASE + 0x1ffe, &mut buf);
        assert_eq!(buf, [1, 2, 3, 4]);
        assert_eq!(ram.region(BASE + 5), Some(BASE..BASE + 4 * PAGE_SIZE));
        assert_eq!(ram.file_offset(BASE + 5), Some(RAM + 5));
        let host = ram.host_address(BASE + 5).unwrap();
        assert_eq!(ram.physical_of(host), BASE + 5);
        // RAM's end is not video memory's start.
        ram.write_unwatched(RAM - 2, &[9; 4]);
        ram.read_video(0, &mut buf);
        assert_eq!(buf, [0; 4]);
        ram.read(BASE + 4 * PAGE_SIZE - 2, &mut buf);
        assert_eq!(buf, [0, 0, 0xff, 0xff]);
        assert_eq!(ram.read_u32(BASE + 4 * PAGE_SIZE), u32::MAX);
        ram.write_video(u64::MAX, &[1]);
        ram.place_video(None);
        assert!(!ram.is_ram(BASE) && ram.video_base().is_none());
    }

    #[test]
    fn a_harvest_finds_what_was_written_since_the_last() {
        let ram = GuestRam::with_video(RAM, 4 * PAGE_SIZE).unwrap();
        ram.place_video(Some(BASE));
        assert_eq!(
            ram.harvest_video(),
            [0, 1, 2, 3],
            "nothing was known before"
        );
        assert_eq!(ram.harvest_video(), [0u32; 0]);
        assert!(!ram.video_written());
        assert!(ram.note_write(BASE + 2 * PAGE_SIZE + 7));
        assert!(!ram.note_write(BASE + 2 * PAGE_SIZE), "once is enough");
        assert!(!ram.note_write(RAM - 1) && !ram.note_write(BASE - 1));
        ram.write_video(PAGE_SIZE - 1, &[1, 2]);
        assert!(ram.video_written());
        assert_eq!(ram.harvest_video(), [0, 1, 2]);
        assert!(!ram.take_video_code_written());
        ram.set_attributes(BASE + PAGE_SIZE, attr::CODE);
        ram.write_video(PAGE_SIZE, &[1]);
        assert!(ram.take_video_code_written() && !ram.take_video_code_written());
        assert_eq!(ram.video_code(), [BASE + PAGE_SIZE]);
    }

    #[test]
    fn a_signal_between_looking_and_waiting_is_not_missed() {
        let signal = Signal::default();
        let since = signal.prepare();
        signal.raise();
        // Would last the whole limit otherwise.
        signal.wait(since, Duration::from_secs(3600));
        signal.raise();
        assert_eq!(signal.prepare(), since + 1, "nobody waited for the second");
    }
}
