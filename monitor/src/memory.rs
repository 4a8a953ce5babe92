//! Guest RAM and its page attributes.
//!
//! RAM is one memfd, so that windows and executors can map it again. No Rust reference points into
//! it: every access is a bounded copy or an atomic operation through [`GuestRam`]. Video memory is
//! the last part of the same memfd: see [`video`].
#![allow(unsafe_code)] // maps the memfd and copies through raw pointers

use crate::firmware::shadow::{self, Shadow};
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use ring3_devices::pci::{MemoryAttribute, PAM_REGIONS};
use ring3_translator::addr::PAGE_SIZE;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

pub mod video;

/// Attributes of a guest-physical page.
pub mod attr {
    /// Translations exist for bytes of this page.
    pub const CODE: u8 = 1;
    /// Writes do not go where reads come from: a ROM, or RAM that firmware has made read-only.
    pub const ROUTED: u8 = 2;
    /// The first write is to be known: it clears the attribute and goes through.
    pub const LOGGED: u8 = 4;
    /// Mappings of an executor were made from entries of this page.
    pub const TABLE: u8 = 8;
    /// An executor may have this page mapped writable: a new watch must look for it there.
    pub const DIRECT: u8 = 16;
    /// Attributes that forbid direct writes through windows, TLBs and executors.
    pub const WATCHED: u8 = CODE | ROUTED | LOGGED | TABLE;
    /// Watches that hear of every write, after it.
    pub const NOTIFIED: u8 = CODE | TABLE;
}

/// The VGA hole in low memory, in bytes.
pub const VGA_HOLE: Range<u64> = 0xa_0000..0xc_0000;

/// Guest RAM from physical address 0 on, and video memory where the guest has put it; the VGA hole
/// belongs to devices.
pub struct GuestRam {
    fd: OwnedFd,
    base: NonNull<u8>,
    size: u64,
    attributes: Vec<AtomicU8>,
    /// The firmware's ROM, which ends at 4 GiB.
    rom: OnceLock<Vec<u8>>,
    shadow: Mutex<Shadow>,
    video: video::Video,
}

impl core::fmt::Debug for GuestRam {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("GuestRam")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

// SAFETY: the mapping lives as long as the value, and all accesses are raw copies or atomics on it;
// data races on guest RAM are the guest's own affair and never touch a Rust object.
unsafe impl Send for GuestRam {}
// SAFETY: as above.
unsafe impl Sync for GuestRam {}

impl GuestRam {
    /// Allocates `size` bytes of zeroed RAM (a multiple of the page size), without video memory.
    /// # Errors
    /// When the host refuses a memfd of that size or its mapping.
    pub fn new(size: u64) -> io::Result<Self> {
        Self::with_video(size, 0)
    }

    /// Allocates `size` bytes of zeroed RAM and `video` bytes of video memory (both multiples of
    /// the page size), which is not in the guest's address space yet.
    /// # Errors
    /// When the host refuses a memfd of that size or its mapping.
    pub fn with_video(size: u64, video: u64) -> io::Result<Self> {
        // SAFETY: constant name; the result is checked.
        let fd = unsafe { libc::memfd_create(c"ring3-ram".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a valid descriptor.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), (size + video) as libc::off_t) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let length = (size + video) as usize;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let p = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                length,
                prot,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let Some(base) = NonNull::new(p.cast()) else {
            return Err(io::Error::other("mmap returned null"));
        };
        let pages = ((size + video) / PAGE_SIZE) as usize;
        Ok(Self {
            fd,
            base,
            size,
            attributes: (0..pages).map(|_| AtomicU8::new(0)).collect(),
            rom: OnceLock::new(),
            shadow: Mutex::default(),
            video: video::Video::new(video),
        })
    }

    /// Size of RAM in bytes, without video memory.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The memfd, borrowed.
    #[must_use]
    pub fn borrow_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The memfd.
    #[must_use]
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Offset in the memfd of a physical byte; None where it has none.
    #[must_use]
    pub fn file_offset(&self, pa: u64) -> Option<u64> {
        if pa < self.size {
            return Some(pa);
        }
        self.video.offset(pa).map(|at| self.size + at)
    }

    /// The physical addresses around `pa` whose bytes follow each other in the memfd and can be
    /// accessed in place; None for device memory and holes.
    #[must_use]
    pub fn region(&self, pa: u64) -> Option<Range<u64>> {
        if pa >= self.size {
            return self.video.region(pa);
        }
        if pa < VGA_HOLE.start {
            Some(0..VGA_HOLE.start.min(self.size))
        } else if pa >= VGA_HOLE.end {
            Some(VGA_HOLE.end..self.size)
        } else {
            None
        }
    }

    /// True if the whole page of `pa` is memory that is accessed in place: RAM or video memory.
    #[must_use]
    pub fn is_ram(&self, pa: u64) -> bool {
        if pa < self.size {
            !VGA_HOLE.contains(&pa)
        } else {
            self.video.offset(pa).is_some()
        }
    }

    /// True if the whole page of `pa` is RAM proper, not video memory: its address is its offset in
    /// the memfd.
    #[must_use]
    pub fn is_plain_ram(&self, pa: u64) -> bool {
        pa < self.size && !VGA_HOLE.contains(&pa)
    }

    /// Host address of a byte of memory, for TLB deltas; None outside.
    #[must_use]
    pub fn host_address(&self, pa: u64) -> Option<u64> {
        if !self.is_ram(pa) {
            return None;
        }
        Some(self.base.as_ptr() as u64 + self.file_offset(pa)?)
    }

    /// Host address of a byte that a write changes in place; None outside memory and where
    /// [`Self::store`] must do it.
    #[must_use]
    pub fn host_address_for_writes(&self, pa: u64) -> Option<u64> {
        self.host_address(pa)
            .filter(|_| self.attributes(pa) & attr::ROUTED == 0)
    }

    /// The physical address of a host address from [`Self::host_address`].
    #[must_use]
    pub fn physical_of(&self, host: u64) -> u64 {
        let at = host.wrapping_sub(self.base.as_ptr() as u64);
        match at.checked_sub(self.size) {
            None => at,
            Some(at) => self.video.physical_of(at),
        }
    }

    fn attribute(&self, pa: u64) -> Option<&AtomicU8> {
        let at = self.file_offset(pa)?;
        self.attributes.get((at / PAGE_SIZE) as usize)
    }

    /// Attributes of the page of `pa`; 0 outside memory.
    #[must_use]
    pub fn attributes(&self, pa: u64) -> u8 {
        self.attribute(pa).map_or(0, |a| a.load(Ordering::Relaxed))
    }

    /// Sets attribute bits of the page of `pa`; returns the old attributes.
    pub fn set_attributes(&self, pa: u64, bits: u8) -> u8 {
        self.attribute(pa)
            .map_or(0, |a| a.fetch_or(bits, Ordering::Relaxed))
    }

    /// Clears attribute bits of the page of `pa`.
    pub fn clear_attributes(&self, pa: u64, bits: u8) {
        if let Some(a) = self.attribute(pa) {
            a.fetch_and(!bits, Ordering::Relaxed);
        }
    }

    /// Clears the attributes of all pages.
    pub fn clear_all_attributes(&self) {
        for a in &self.attributes {
            a.store(0, Ordering::Relaxed);
        }
    }

    /// Offset in the memfd of a physical byte, and how many bytes from there on belong to the same
    /// memory, at most `len`.
    fn span(&self, pa: u64, len: u64) -> (usize, usize) {
        let (at, end) = match self.file_offset(pa) {
            None => return (0, 0),
            Some(at) if at < self.size => (at, self.size),
            Some(at) => (at, self.size + self.video.size()),
        };
        (at as usize, (end - at).min(len) as usize)
    }

    /// Copies memory out; bytes outside read as 0xff. For DMA, boot and page walks.
    pub fn read(&self, pa: u64, buf: &mut [u8]) {
        let (at, available) = self.span(pa, buf.len() as u64);
        // SAFETY: `available` bytes from `at` are inside the mapping.
        unsafe {
            core::ptr::copy_nonoverlapping(self.base.as_ptr().add(at), buf.as_mut_ptr(), available)
        };
        buf[available..].fill(0xff);
    }

    /// A write as the bus does it, within one page: into RAM, or where the routing of the legacy
    /// area sends it. Watchers are not told; bytes outside RAM are dropped.
    pub fn store(&self, pa: u64, data: &[u8]) {
        if self.attributes(pa) & attr::ROUTED == 0 {
            self.write_unwatched(pa, data);
        } else {
            self.shadow
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(pa, data);
        }
    }

    /// Installs the firmware's ROM, once, and routes the legacy area to it as after RESET.
    pub fn set_rom(&self, image: Vec<u8>) {
        if self.rom.set(image).is_ok() {
            self.reset_routing();
        }
    }

    /// Routes the legacy area to the firmware's ROM, as after RESET; nothing without a ROM.
    pub fn reset_routing(&self) {
        let Some(rom) = self.rom.get() else { return };
        let visible = self
            .shadow
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .reset(rom);
        self.write_unwatched(shadow::AREA.start, &visible);
        for pa in shadow::AREA.step_by(PAGE_SIZE as usize) {
            self.set_attributes(pa, attr::ROUTED);
        }
    }

    /// Routes the regions of the legacy area. Returns the pages that no longer read the same or
    /// are no longer writable in place: translations and TLB entries of these must die.
    pub fn route(&self, to: &[MemoryAttribute; PAM_REGIONS.len()]) -> Vec<u64> {
        let mut changed = Vec::new();
        let mut shadow = self.shadow.lock().unwrap_or_else(PoisonError::into_inner);
        for (i, &to) in to.iter().enumerate() {
            if shadow.routing(i) == to {
                continue;
            }
            let range = shadow::region(i);
            let mut visible = vec![0; (range.end - range.start) as usize];
            self.read(range.start, &mut visible);
            if shadow.route(i, to, &mut visible) {
                self.write_unwatched(range.start, &visible);
            }
            for pa in range.step_by(PAGE_SIZE as usize) {
                if to.read_ram && to.write_ram {
                    self.clear_attributes(pa, attr::ROUTED);
                } else {
                    self.set_attributes(pa, attr::ROUTED);
                }
                changed.push(pa);
            }
        }
        changed
    }

    /// Reads the ROM below 4 GiB; false if `pa` is not in it.
    pub fn read_rom(&self, pa: u64, buf: &mut [u8]) -> bool {
        let Some(rom) = self.rom.get() else {
            return false;
        };
        let Some(at) = pa.checked_sub((1 << 32) - rom.len() as u64) else {
            return false;
        };
        let rest = usize::try_from(at)
            .ok()
            .and_then(|at| rom.get(at..))
            .filter(|rest| !rest.is_empty());
        let Some(rest) = rest else { return false };
        let available = rest.len().min(buf.len());
        buf[..available].copy_from_slice(&rest[..available]);
        buf[available..].fill(0xff);
        true
    }

    /// Copies into memory without telling watchers; bytes outside are dropped.
    pub fn write_unwatched(&self, pa: u64, data: &[u8]) {
        let (at, available) = self.span(pa, data.len() as u64);
        // SAFETY: `available` bytes from `at` are inside the mapping.
        unsafe {
            core::ptr::copy_nonoverlapping(data.as_ptr(), self.base.as_ptr().add(at), available)
        };
    }

    fn aligned<T>(&self, pa: u64) -> Option<NonNull<T>> {
        let size = size_of::<T>() as u64;
        let (at, available) = self.span(pa, size);
        let inside = pa.is_multiple_of(size) && available as u64 == size;
        // SAFETY: inside the mapping.
        inside.then(|| unsafe { self.base.add(at).cast() })
    }

    /// An aligned 32-bit word; all ones outside RAM.
    #[must_use]
    pub fn read_u32(&self, pa: u64) -> u32 {
        // SAFETY: aligned and inside the mapping, accessed atomically only.
        self.aligned::<AtomicU32>(pa)
            .map_or(u32::MAX, |p| unsafe { p.as_ref() }.load(Ordering::Relaxed))
    }

    /// An aligned 64-bit word; all ones outside RAM.
    #[must_use]
    pub fn read_u64(&self, pa: u64) -> u64 {
        // SAFETY: aligned and inside the mapping, accessed atomically only.
        self.aligned::<AtomicU64>(pa)
            .map_or(u64::MAX, |p| unsafe { p.as_ref() }.load(Ordering::Relaxed))
    }

    /// Atomically sets bits of an aligned 32-bit word (page-table A and D bits).
    pub fn or_u32(&self, pa: u64, bits: u32) {
        if let Some(p) = self.aligned::<AtomicU32>(pa) {
            // SAFETY: aligned and inside the mapping, accessed atomically only.
            unsafe { p.as_ref() }.fetch_or(bits, Ordering::Relaxed);
        }
    }
}

impl Drop for GuestRam {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with these sizes.
        unsafe {
            libc::munmap(
                self.base.as_ptr().cast(),
                (self.size + self.video.size()) as usize,
            )
        };
    }
}

impl crate::linux::GuestMemory for GuestRam {
    fn write(&self, pa: u64, data: &[u8]) -> Result<(), crate::linux::OutOfMemory> {
        if pa
            .checked_add(data.len() as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(crate::linux::OutOfMemory {
                pa,
                len: data.len() as u64,
            });
        }
        self.write_unwatched(pa, data);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.size
    }
}
