//! The host processor's own answers: CPUID, usable AVX state.

use core::arch::x86_64::__cpuid_count;

/// Host CPUID (EAX, EBX, ECX, EDX).
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let r = __cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// The host executes AVX (its operating system has enabled the state).
#[must_use]
pub fn avx_usable() -> bool {
    std::arch::is_x86_feature_detected!("avx")
}
