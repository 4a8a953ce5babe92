//! The host's time stamp counter, and whether this thread may read it.
//!
//! Executors may not (PR_SET_TSC), since the guest's counter is another. The host keeps that in
//! CR4.TSD and writes CR4 at each switch between a thread that may and one that may not, which
//! takes 5 µs where the host is itself a paravirtual machine. So a thread that hands over to
//! executors gives the counter up too, and takes it back when it needs it. The C library's clocks
//! read the counter; where one is called unawares, the signal handler takes the counter back.
#![allow(unsafe_code)] // RDTSC, prctl and a system call have no safe form

use core::cell::Cell;

thread_local! {
    // What the host holds per thread as well; const, so that a signal handler's access cannot
    // allocate.
    static HIDDEN: Cell<bool> = const { Cell::new(false) };
}

fn set(how: libc::c_int) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_TSC, how, 0, 0, 0) == 0 }
}

/// True if this thread has given the counter up.
#[must_use]
pub fn is_hidden() -> bool {
    HIDDEN.get()
}

/// Gives the counter up on this thread. Where the host refuses, nothing changes.
pub fn hide() {
    if !HIDDEN.get() {
        HIDDEN.set(set(libc::PR_TSC_SIGSEGV));
    }
}

/// Takes the counter back. Safe in a signal handler.
pub fn show() {
    if HIDDEN.get() && set(libc::PR_TSC_ENABLE) {
        HIDDEN.set(false);
    }
}

/// The host's counter.
#[must_use]
pub fn read() -> u64 {
    show();
    // SAFETY: RDTSC reads a counter and touches no memory; every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The host's monotonic clock, in ns.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel, or the C library, writes one structure to a live local; the clock exists.
    unsafe {
        if HIDDEN.get() {
            libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut t);
        } else {
            libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t);
        }
    }
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_the_counter_has_clocks() {
        let before = read();
        let time = monotonic_ns();
        hide();
        assert!(is_hidden());
        let later = monotonic_ns();
        assert!(later >= time);
        assert!(is_hidden(), "the clock does not need the counter");
        assert!(read() > before);
        assert!(!is_hidden());
        assert!(monotonic_ns() >= later);
    }
}
