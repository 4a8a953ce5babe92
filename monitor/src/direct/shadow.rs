//! What an executor has mapped: a shadow of the guest's page tables, and how many host mappings
//! it makes.

/// What is known of a page as code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Nothing yet, or the guest's tables do not let it be executed: mapped without that right.
    Unknown,
    /// It may be executed directly.
    Direct,
    /// It has instructions that must be translated ([`super::reads`]): mapped without the right.
    Translated,
}

/// What one guest-linear page is in an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Guest-physical page number.
    pub frame: u32,
    /// Mapped writable.
    pub write: bool,
    /// Mapped executable if [`Code::Direct`].
    pub code: Code,
}

const PRESENT: u32 = 1;
const WRITE: u32 = 2;
const DIRECT: u32 = 4;
const TRANSLATED: u32 = 8;

impl Mapped {
    fn pack(self) -> u32 {
        let write = if self.write { WRITE } else { 0 };
        let code = match self.code {
            Code::Unknown => 0,
            Code::Direct => DIRECT,
            Code::Translated => TRANSLATED,
        };
        self.frame << 12 | PRESENT | write | code
    }

    fn unpack(word: u32) -> Option<Self> {
        (word & PRESENT != 0).then_some(Self {
            frame: word >> 12,
            write: word & WRITE != 0,
            code: match word & (DIRECT | TRANSLATED) {
                0 => Code::Unknown,
                DIRECT => Code::Direct,
                _ => Code::Translated,
            },
        })
    }

    /// True if the host keeps `self` and `next` in one mapping when `next` follows it.
    fn joins(self, next: Self) -> bool {
        let executable = |m: Self| m.code == Code::Direct;
        self.frame + 1 == next.frame
            && self.write == next.write
            && executable(self) == executable(next)
    }
}

/// Pages in one part of the table.
const PART: usize = 1024;

/// See the module's text. Pages are guest-linear page numbers (20 bits).
pub struct Shadow {
    parts: Vec<Option<Box<[u32; PART]>>>,
    pages: u32,
    runs: u32,
}

impl Default for Shadow {
    fn default() -> Self {
        Self {
            parts: vec![None; (1 << 20) / PART],
            pages: 0,
            runs: 0,
        }
    }
}

impl Shadow {
    /// The mapping of `page`, if there is one.
    #[must_use]
    pub fn get(&self, page: u32) -> Option<Mapped> {
        let part = self.parts.get(page as usize / PART)?.as_ref()?;
        Mapped::unpack(part[page as usize % PART])
    }

    /// Host mappings that the pages around `page` save by being joined with it.
    fn joints(&self, page: u32, at: Mapped) -> u32 {
        let before = page.checked_sub(1).and_then(|p| self.get(p));
        let after = self.get(page + 1);
        u32::from(before.is_some_and(|b| b.joins(at)))
            + u32::from(after.is_some_and(|a| at.joins(a)))
    }

    /// Maps `page`, replacing what is there.
    pub fn set(&mut self, page: u32, mapped: Mapped) {
        self.remove(page);
        self.pages += 1;
        self.runs = self.runs + 1 - self.joints(page, mapped);
        let part = self.parts[page as usize / PART].get_or_insert_with(|| Box::new([0; PART]));
        part[page as usize % PART] = mapped.pack();
    }

    /// Unmaps `page`; returns what was there.
    pub fn remove(&mut self, page: u32) -> Option<Mapped> {
        let old = self.get(page)?;
        self.runs = self.runs + self.joints(page, old) - 1;
        self.pages -= 1;
        if let Some(part) = &mut self.parts[page as usize / PART] {
            part[page as usize % PART] = 0;
        }
        Some(old)
    }

    /// The pages that show guest-physical page `frame` writable.
    #[must_use]
    pub fn writable_at(&self, frame: u32) -> Vec<u32> {
        let wanted = frame << 12 | PRESENT | WRITE;
        let parts = self.parts.iter().enumerate();
        parts
            .filter_map(|(i, part)| Some((i, part.as_ref()?)))
            .flat_map(|(i, part)| {
                let hits = part.iter().enumerate();
                hits.filter(move |(_, w)| **w & !(DIRECT | TRANSLATED) == wanted)
                    .map(move |(j, _)| (i * PART + j) as u32)
            })
            .collect()
    }

    /// Unmaps everything.
    pub fn clear(&mut self) {
        self.parts.fill(None);
        self.pages = 0;
        self.runs = 0;
    }

    /// Number of mapped pages.
    #[must_use]
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Number of host mappings: contiguous pages with the same rights make one.
    #[must_use]
    pub fn runs(&self) -> u32 {
        self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(frame: u32, write: bool) -> Mapped {
        Mapped {
            frame,
            write,
            code: Code::Direct,
        }
    }

    #[test]
    fn contiguous_pages_are_one_run() {
        let mut s = Shadow::default();
        s.set(0x100, mapped(10, false));
        s.set(0x102, mapped(12, false));
        assert_eq!((s.pages(), s.runs()), (2, 2));
        s.set(0x101, mapped(11, false));
        assert_eq!((s.pages(), s.runs()), (3, 1));
        // Other rights split.
        s.set(0x101, mapped(11, true));
        assert_eq!((s.pages(), s.runs()), (3, 3));
        let unknown = Mapped {
            code: Code::Unknown,
            ..mapped(11, false)
        };
        s.set(0x101, unknown);
        assert_eq!(s.runs(), 3);
        s.set(
            0x102,
            Mapped {
                code: Code::Translated,
                ..mapped(12, false)
            },
        );
        assert_eq!((s.get(0x101), s.runs()), (Some(unknown), 2));
        s.set(0x101, mapped(11, true));
        assert_eq!(s.remove(0x101), Some(mapped(11, true)));
        assert_eq!((s.pages(), s.runs()), (2, 2));
        assert_eq!(s.remove(0x101), None);
        s.clear();
        assert_eq!((s.pages(), s.runs(), s.get(0x100)), (0, 0, None));
    }

    #[test]
    fn the_ends_of_the_space() {
        let mut s = Shadow::default();
        s.set(0, mapped(0, true));
        s.set(0xf_ffff, mapped(1, true));
        assert_eq!(s.runs(), 2);
        assert_eq!(s.get(0xf_ffff), Some(mapped(1, true)));
        assert_eq!(s.writable_at(1), [0xf_ffff]);
        assert!(s.writable_at(2).is_empty());
    }

    /// Random changes against a plain recount.
    #[test]
    fn runs_are_counted_as_the_host_joins() {
        let mut s = Shadow::default();
        let mut seed = 7u32;
        for _ in 0..5000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let page = 1020 + (seed >> 20) % 16;
            match seed >> 12 & 3 {
                0 => drop(s.remove(page)),
                n => s.set(page, mapped(page + n / 3, seed & 0x400 != 0)),
            }
            let all: Vec<_> = (1000..1100).map(|p| s.get(p)).collect();
            let pages = all.iter().flatten().count() as u32;
            let joined = all
                .windows(2)
                .filter(|w| matches!((w[0], w[1]), (Some(a), Some(b)) if a.joins(b)))
                .count() as u32;
            assert_eq!((s.pages(), s.runs()), (pages, pages - joined));
        }
    }
}
