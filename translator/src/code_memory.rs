//! Memory for host code: one memfd mapped twice, executable and writable, so that no page is ever
//! both at the same address.
#![allow(unsafe_code)] // maps memory and writes through raw pointers into it

use core::ffi::c_void;
use core::ptr::NonNull;
use std::io;

/// The code cache's memory.
pub struct CodeMemory {
    execute: NonNull<u8>,
    write: NonNull<u8>,
    size: usize,
    /// Code was written and not yet made visible to instruction fetch.
    dirty: bool,
}

// SAFETY: the mappings belong to this value alone; writes need &mut self.
unsafe impl Send for CodeMemory {}

impl CodeMemory {
    /// Reserves `size` bytes (a multiple of the page size).
    /// # Errors
    /// When the host refuses a memfd or the mappings.
    pub fn new(size: usize) -> io::Result<Self> {
        // SAFETY: a constant name; the descriptor is checked and closed below.
        let fd = unsafe { libc::memfd_create(c"ring3-code".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd is a fresh memfd.
        if unsafe { libc::ftruncate(fd, size as libc::off_t) } < 0 {
            let e = io::Error::last_os_error();
            // SAFETY: fd is ours.
            unsafe { libc::close(fd) };
            return Err(e);
        }
        let map = |prot| {
            // SAFETY: a new mapping at an address of the kernel's choice.
            let p =
                unsafe { libc::mmap(core::ptr::null_mut(), size, prot, libc::MAP_SHARED, fd, 0) };
            if p == libc::MAP_FAILED {
                Err(io::Error::last_os_error())
            } else {
                Ok(p)
            }
        };
        let result = map(libc::PROT_READ | libc::PROT_EXEC)
            .and_then(|x| map(libc::PROT_READ | libc::PROT_WRITE).map(|w| (x, w)));
        // SAFETY: fd is ours and the mappings keep the memory.
        unsafe { libc::close(fd) };
        let (x, w): (*mut c_void, *mut c_void) = result?;
        match (NonNull::new(x.cast()), NonNull::new(w.cast())) {
            (Some(execute), Some(write)) => Ok(Self {
                execute,
                write,
                size,
                dirty: false,
            }),
            _ => Err(io::Error::other("mmap returned a null address")),
        }
    }

    /// Host address of byte `offset` in the executable mapping.
    #[must_use]
    pub fn address(&self, offset: usize) -> u64 {
        self.execute.as_ptr() as u64 + offset as u64
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Copies code to `offset`; out-of-range writes are refused.
    pub fn write(&mut self, offset: usize, code: &[u8]) -> bool {
        if offset
            .checked_add(code.len())
            .is_none_or(|end| end > self.size)
        {
            return false;
        }
        self.dirty = true;
        // SAFETY: the range was checked against the mapping; source and target do not overlap.
        unsafe {
            core::ptr::copy_nonoverlapping(
                code.as_ptr(),
                self.write.as_ptr().add(offset),
                code.len(),
            )
        };
        true
    }

    /// Makes written code visible to this processor's instruction fetch. Code is written through
    /// one linear address and fetched through another, which needs a serializing instruction
    /// between (Intel SDM vol. 3A, 9.1.3; AMD APM vol. 2, 7.6). IRET is the cheapest one that user
    /// mode has everywhere; CPUID would leave an outer virtual machine.
    pub fn synchronize(&mut self) {
        if !core::mem::take(&mut self.dirty) {
            return;
        }
        // SAFETY: IRET to the next instruction with the present stack, flags and selectors.
        unsafe {
            core::arch::asm!(
                "mov {t:e}, ss",
                "mov {s}, rsp",
                "push {t}",
                "push {s}",
                "pushfq",
                "mov {t:e}, cs",
                "push {t}",
                "lea {t}, [rip + 2f]",
                "push {t}",
                "iretq",
                "2:",
                t = out(reg) _,
                s = out(reg) _,
            );
        }
    }

    /// Bytes of code, for listings and checks.
    #[must_use]
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let end = (offset + len).min(self.size);
        let start = offset.min(end);
        // SAFETY: the range is inside the mapping, which nothing writes while &self is held.
        unsafe { core::slice::from_raw_parts(self.write.as_ptr().add(start), end - start) }.to_vec()
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        // SAFETY: both mappings were made in `new` with this size.
        unsafe {
            libc::munmap(self.execute.as_ptr().cast(), self.size);
            libc::munmap(self.write.as_ptr().cast(), self.size);
        }
    }
}
