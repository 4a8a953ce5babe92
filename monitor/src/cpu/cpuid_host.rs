//! The host processor's own answers: CPUID, usable AVX state, time stamp counter frequency.
#![allow(unsafe_code)] // CPUID and RDTSC are intrinsics

use core::arch::x86_64::{__cpuid_count, _rdtsc};
use std::time::{Duration, Instant};

/// Host CPUID (EAX, EBX, ECX, EDX).
#[must_use]
#[allow(unused_unsafe)] // the intrinsic is safe to call in newer toolchains only
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    // SAFETY: every x86-64 processor has CPUID, and it only writes registers.
    let r = unsafe { __cpuid_count(leaf, subleaf) };
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// The host executes AVX (its operating system has enabled the state).
#[must_use]
pub fn avx_usable() -> bool {
    std::arch::is_x86_feature_detected!("avx")
}

/// The host's time stamp counter frequency in Hz: from CPUID leaf 15H where the crystal is known,
/// else measured against the monotonic clock for a few milliseconds.
#[must_use]
pub fn tsc_hz() -> u64 {
    if cpuid(0, 0)[0] >= 0x15 {
        let [denominator, numerator, crystal, _] = cpuid(0x15, 0);
        if denominator != 0 && numerator != 0 && crystal != 0 {
            return u64::from(crystal) * u64::from(numerator) / u64::from(denominator);
        }
    }
    let start = Instant::now();
    let first = ticks();
    while start.elapsed() < Duration::from_millis(5) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let last = ticks();
    let nanoseconds = start.elapsed().as_nanos().max(1);
    (u128::from(last.wrapping_sub(first)) * 1_000_000_000 / nanoseconds) as u64
}

#[allow(unused_unsafe)] // as above
fn ticks() -> u64 {
    // SAFETY: RDTSC only writes registers; Linux leaves it enabled.
    unsafe { _rdtsc() }
}
