//! What INVLPG must drop, and which pages it drops all the time.

use ring3_translator::addr::PAGE_SIZE;

/// Where TLBs hold pieces of large pages, which INVLPG drops as a whole: a bit for each 4 MiB of
/// linear space.
#[derive(Default)]
pub(super) struct LargePages {
    regions: [u64; 16],
}

impl LargePages {
    pub(super) fn note(&mut self, lin: u32, size: u64) {
        if size > PAGE_SIZE {
            let region = lin >> 22;
            self.regions[region as usize / 64] |= 1 << (region % 64);
        }
    }

    /// Whether there are any around `lin`. The caller drops everything then: no bit is left.
    pub(super) fn take(&mut self, lin: u32) -> bool {
        let region = lin >> 22;
        let any = self.regions[region as usize / 64] & 1 << (region % 64) != 0;
        if any {
            self.regions = [0; 16];
        }
        any
    }
}

/// Linear pages that kernels map, use once and invalidate, such as those of Linux's kmap: a host
/// mapping for each use costs more than the soft form of the few instructions that use them.
pub(super) struct Restless {
    /// By the low bits of the page number.
    pages: [RestlessPage; 64],
}

#[derive(Clone, Copy, Default)]
struct RestlessPage {
    /// Page number.
    page: u32,
    /// Mappings in a row that lived shortly.
    short_lives: u8,
    /// The count of INVLPGs at its last one.
    last: u64,
}

impl Default for Restless {
    fn default() -> Self {
        Self {
            pages: [RestlessPage::default(); 64],
        }
    }
}

impl Restless {
    /// Short lives in a row that make a page restless.
    const LIVES: u8 = 8;
    /// INVLPGs that a short life sees at most.
    const SHORT: u64 = 64;
    /// INVLPGs after which a page is restless no more.
    const REST: u64 = 4096;

    /// Counts an INVLPG of the page of `lin`; `mapped`: it was in the window. `now`: INVLPGs so
    /// far.
    pub(super) fn invalidated(&mut self, lin: u32, mapped: bool, now: u64) {
        let page = lin >> 12;
        let entry = &mut self.pages[page as usize % 64];
        if entry.page != page {
            if mapped {
                *entry = RestlessPage {
                    page,
                    short_lives: 1,
                    last: now,
                };
            }
            return;
        }
        if mapped {
            entry.short_lives = if now - entry.last <= Self::SHORT {
                entry.short_lives.saturating_add(1)
            } else {
                1
            };
        }
        entry.last = now;
    }

    pub(super) fn is(&self, lin: u32, now: u64) -> bool {
        let entry = &self.pages[(lin >> 12) as usize % 64];
        entry.page == lin >> 12
            && entry.short_lives >= Self::LIVES
            && now - entry.last <= Self::REST
    }
}

#[cfg(test)]
mod tests {
    use super::{LargePages, Restless};

    #[test]
    fn pieces_of_a_large_page_are_found_from_anywhere_in_it() {
        let mut large = LargePages::default();
        large.note(0x0040_1000, 0x1000);
        assert!(!large.take(0x0040_1000));
        large.note(0x0040_1000, 0x20_0000);
        assert!(!large.take(0x0080_0000));
        assert!(large.take(0x007f_f000));
        assert!(!large.take(0x007f_f000));
    }

    #[test]
    fn a_page_is_restless_while_it_is_mapped_and_invalidated_again_and_again() {
        let (mut restless, page) = (Restless::default(), 0xffa0_0123);
        let mut now = 0;
        for _ in 0..Restless::LIVES {
            assert!(!restless.is(page, now));
            now += Restless::SHORT;
            restless.invalidated(page, true, now);
        }
        assert!(restless.is(page, now + Restless::REST));
        assert!(!restless.is(page + 0x1000, now));
        assert!(!restless.is(page, now + Restless::REST + 1));
        // Invalidated while it is not mapped any more: it stays so.
        restless.invalidated(page, false, now + Restless::REST);
        assert!(restless.is(page, now + 2 * Restless::REST));
    }

    #[test]
    fn a_page_that_stays_mapped_for_long_is_not_restless() {
        let (mut restless, page) = (Restless::default(), 0xc000_0000);
        let mut now = 0;
        for _ in 0..100 {
            now += Restless::SHORT + 1;
            restless.invalidated(page, true, now);
            assert!(!restless.is(page, now));
        }
    }
}
