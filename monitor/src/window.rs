//! The supervisor window: guest linear space as a 4 GiB reservation of host address space, where
//! supervisor pages appear as mappings of the RAM memfd.
//!
//! Invariant: a page is mapped only if the guest's TLB could hold it (its A bit is set, and D for a
//! writable mapping), and writable only if it has no watch. Pages die as TLB entries do.
#![allow(unsafe_code)] // maps memory

use crate::memory::{GuestRam, attr};
use ring3_translator::addr::PAGE_SIZE;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

/// Inaccessible space before and after the window: an access that starts inside reaches at most
/// this far outside (repeated string instructions of up to 4096 elements).
pub const GUARD: u64 = 1 << 20;
const SPAN: u64 = 1 << 32;
/// Most mappings kept; beyond, all are dropped at once.
const MAX_RUNS: usize = 12_000;

/// A contiguous mapping.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Physical address of its first byte.
    pub phys: u64,
    /// Bytes.
    pub len: u64,
    /// Size of the guest's pages in it: what one INVLPG drops.
    pub page: u64,
    /// Writable, but for watched pages.
    pub writable: bool,
    /// It survives a CR3 load.
    pub global: bool,
}

/// Counters of the window.
#[derive(Clone, Copy, Debug, Default)]
pub struct WindowStats {
    /// Mappings made.
    pub maps: u64,
    /// Pages in them.
    pub pages: u64,
    /// Mappings dropped.
    pub drops: u64,
    /// Protection changes.
    pub protects: u64,
}

/// See the module's text.
pub struct Window {
    reservation: u64,
    reserved: u64,
    base: u64,
    fd: i32,
    runs: BTreeMap<u64, Run>,
    /// Counters.
    pub stats: WindowStats,
}

impl Window {
    /// Reserves the address space.
    /// # Errors
    /// When the host has no 8 GiB of address space left.
    pub fn new(ram: &GuestRam) -> io::Result<Self> {
        let reserved = 2 * SPAN + 2 * GUARD;
        // SAFETY: a new inaccessible mapping at an address of the kernel's choice.
        let p = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                reserved as usize,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let reservation = p as u64;
        let base = (reservation + GUARD).next_multiple_of(SPAN);
        Ok(Self {
            reservation,
            reserved,
            base,
            fd: ram.fd(),
            runs: BTreeMap::new(),
            stats: WindowStats::default(),
        })
    }

    /// Host address of linear address 0; a multiple of 4 GiB.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Host addresses that belong to the window and its guards.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.base - GUARD..self.base + SPAN + GUARD
    }

    /// Number of mappings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// True if nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// True if linear address `lin` is in a mapping.
    #[must_use]
    pub fn is_mapped(&self, lin: u64) -> bool {
        self.runs
            .range(..=lin)
            .next_back()
            .is_some_and(|(start, r)| lin < start + r.len)
    }

    /// True if linear address `lin` is in a mapping that is writable but for watched pages.
    #[must_use]
    pub fn is_writable(&self, lin: u64) -> bool {
        self.runs
            .range(..=lin)
            .next_back()
            .is_some_and(|(start, r)| lin < start + r.len && r.writable)
    }

    /// Maps `len` bytes of memory at `phys`, all of one [`GuestRam::region`], to linear address
    /// `lin` (all page aligned), replacing what was there. Watched pages become read-only. `page` is
    /// the size of the guest's pages.
    /// # Errors
    /// When the host refuses; the range is unmapped then.
    #[allow(clippy::too_many_arguments)] // one mapping's facts, used at two places
    pub fn map(
        &mut self,
        ram: &GuestRam,
        lin: u64,
        phys: u64,
        len: u64,
        page: u64,
        writable: bool,
        global: bool,
    ) -> io::Result<()> {
        if self.runs.len() >= MAX_RUNS {
            self.clear();
        }
        self.unmap_range(lin, len);
        let Some(offset) = ram.file_offset(phys) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a fixed mapping inside our own reservation (lin + len <= 4 GiB).
        let p = unsafe {
            libc::mmap(
                (self.base + lin) as *mut _,
                len as usize,
                prot,
                libc::MAP_SHARED | libc::MAP_FIXED,
                self.fd,
                offset as i64,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.stats.maps += 1;
        self.stats.pages += len / PAGE_SIZE;
        self.runs.insert(
            lin,
            Run {
                phys,
                len,
                page: page.max(PAGE_SIZE),
                writable,
                global,
            },
        );
        if writable {
            // Neighbours that are watched become read-only by one call.
            let watched = |page: u64| ram.attributes(phys + page) & attr::WATCHED != 0;
            let mut page = 0;
            while page < len {
                let start = page;
                while page < len && watched(page) {
                    page += PAGE_SIZE;
                }
                if page > start {
                    self.protect_linear(lin + start, page - start, false)?;
                }
                page += PAGE_SIZE;
            }
        }
        Ok(())
    }

    fn protect_linear(&mut self, lin: u64, len: u64, writable: bool) -> io::Result<()> {
        let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        self.stats.protects += 1;
        // SAFETY: pages inside our own reservation.
        let r = unsafe { libc::mprotect((self.base + lin) as *mut _, len as usize, prot) };
        if r < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Makes every mapping of the physical page `phys` read-only or, where its run is writable,
    /// writable again.
    pub fn protect_physical(&mut self, phys: u64, writable: bool) {
        let page = phys & !(PAGE_SIZE - 1);
        let hits: Vec<u64> = self
            .runs
            .iter()
            .filter(|(_, r)| r.writable && page >= r.phys && page < r.phys + r.len)
            .map(|(lin, r)| lin + (page - r.phys))
            .collect();
        for lin in hits {
            if self.protect_linear(lin, PAGE_SIZE, writable).is_err() {
                // Out of host mappings: start over with an empty window.
                self.clear();
                return;
            }
        }
    }

    /// Makes every mapping of a range of physical pages read-only: all of them are watched.
    pub fn protect_range(&mut self, phys: Range<u64>) {
        let hits: Vec<(u64, u64)> = self
            .runs
            .iter()
            .filter(|(_, r)| r.writable && phys.start < r.phys + r.len && r.phys < phys.end)
            .map(|(lin, r)| {
                let from = phys.start.max(r.phys);
                let to = phys.end.min(r.phys + r.len);
                (lin + (from - r.phys), to - from)
            })
            .collect();
        for (lin, len) in hits {
            if self.protect_linear(lin, len, false).is_err() {
                self.clear();
                return;
            }
        }
    }

    fn unmap_host(&mut self, lin: u64, len: u64) {
        self.stats.drops += 1;
        // SAFETY: replaces pages inside our own reservation by inaccessible ones.
        unsafe {
            libc::mmap(
                (self.base + lin) as *mut _,
                len as usize,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
    }

    /// Drops the guest pages that overlap the range, whole; runs are split around them. True if
    /// there was one.
    pub fn unmap_range(&mut self, lin: u64, len: u64) -> bool {
        let mut any = false;
        while let Some((&start, &run)) = self.runs.range(..lin + len).next_back() {
            let end = start + run.len;
            if end <= lin {
                break;
            }
            any = true;
            // Guest pages are aligned to their size in linear space.
            let from = (lin & !(run.page - 1)).max(start);
            let to = (lin + len).next_multiple_of(run.page).min(end);
            self.runs.remove(&start);
            self.unmap_host(from, to - from);
            if to < end {
                self.runs.insert(
                    to,
                    Run {
                        phys: run.phys + (to - start),
                        len: end - to,
                        ..run
                    },
                );
            }
            if from > start {
                self.runs.insert(
                    start,
                    Run {
                        len: from - start,
                        ..run
                    },
                );
            } else if from == 0 {
                break;
            }
        }
        any
    }

    /// Drops all mappings.
    pub fn clear(&mut self) {
        if !self.runs.is_empty() {
            self.runs.clear();
            self.unmap_host(0, SPAN);
        }
    }

    /// Goes through all mappings in order of their linear addresses: `verdict` says whether one
    /// stays, and then whether it is global from now on.
    pub fn review(&mut self, mut verdict: impl FnMut(u64, &Run) -> Option<bool>) {
        let mut dead = Vec::new();
        for (&lin, run) in &mut self.runs {
            match verdict(lin, run) {
                Some(global) => run.global = global,
                None => dead.push((lin, run.len)),
            }
        }
        if dead.len() == self.runs.len() {
            self.clear();
            return;
        }
        for (lin, len) in dead {
            self.runs.remove(&lin);
            self.unmap_host(lin, len);
        }
    }

    /// Maps the memory around physical address `pa` one to one (paging off).
    /// # Errors
    /// When the host refuses, or nothing is there.
    pub fn map_identity(&mut self, ram: &GuestRam, pa: u64) -> io::Result<()> {
        let region = ram.region(pa).ok_or(io::ErrorKind::InvalidInput)?;
        let len = region.end.min(SPAN) - region.start;
        self.map(ram, region.start, region.start, len, PAGE_SIZE, true, true)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the whole reservation is ours.
        unsafe { libc::munmap(self.reservation as *mut _, self.reserved as usize) };
    }
}
