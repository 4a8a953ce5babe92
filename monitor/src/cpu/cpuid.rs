//! The processor model "ring3-v1": what CPUID tells the guest, and so which instructions, control
//! register bits and model-specific registers exist. Intel SDM vol. 2A, CPUID; AMD64 APM vol. 3,
//! appendix E.
//!
//! The model is the host's own processor, seen by a 32-bit operating system, less everything that
//! translated code cannot carry out. Vendor, family, model, stepping, brand string and caches are
//! the host's. Absent by design: long mode and SYSCALL, AVX2 and later (gathers),
//! SMAP, UMIP, FSGSBASE, PCID, MONITOR, performance counters and x2APIC.

use crate::cpu::cpuid_host;
use iced_x86::CpuidFeature;
use ring3_translator::state::{GuestState, apic_base, cr4};

/// CPUID.1:EDX features that are offered where the host has them: FPU VME DE PSE TSC MSR PAE CX8
/// SEP PGE CMOV PAT CLFSH MMX FXSR SSE SSE2.
const LEAF1_EDX: u32 = 1 << 0
    | 1 << 1
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 11
    | 1 << 13
    | 1 << 15
    | 1 << 16
    | 1 << 19
    | 1 << 23
    | 1 << 24
    | 1 << 25
    | 1 << 26;
/// CPUID.1:EDX features that the monitor itself provides, whatever the host has: VME DE PSE TSC MSR
/// PAE MCE SEP MTRR PGE MCA PAT. Machine checks have no banks and never come; memory types are kept
/// and change nothing.
const LEAF1_EDX_OWN: u32 = 1 << 1
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 11
    | 1 << 12
    | 1 << 13
    | 1 << 14
    | 1 << 16;
/// CPUID.1:EDX.APIC.
const APIC: u32 = 1 << 9;
/// CPUID.1:EDX.SEP.
const SEP: u32 = 1 << 11;
/// CPUID.1:ECX.TSC_Deadline: the local APIC's timer can follow the time stamp counter. The monitor
/// provides it with the APIC.
const TSC_DEADLINE: u32 = 1 << 24;
/// CPUID.1:ECX features that are offered where the host has them: SSE3 PCLMULQDQ SSSE3 FMA SSE4.1
/// SSE4.2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND.
const LEAF1_ECX: u32 = 1 << 0
    | 1 << 1
    | 1 << 9
    | FMA
    | 1 << 19
    | 1 << 20
    | 1 << 22
    | 1 << 23
    | 1 << 25
    | XSAVE
    | AVX
    | F16C
    | 1 << 30;
const FMA: u32 = 1 << 12;
const XSAVE: u32 = 1 << 26;
const OSXSAVE: u32 = 1 << 27;
const AVX: u32 = 1 << 28;
const F16C: u32 = 1 << 29;
const HYPERVISOR: u32 = 1 << 31;
/// CPUID.7.0:EBX features that are offered where the host has them: BMI1 SMEP BMI2 ERMS RDSEED ADX
/// CLFLUSHOPT SHA.
const LEAF7_EBX: u32 = 1 << 3 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 18 | 1 << 19 | 1 << 23 | 1 << 29;
/// CPUID.7.0:EBX.TSC_ADJUST, which the monitor itself provides.
const TSC_ADJUST: u32 = 1 << 1;
/// CPUID.8000_0001H:ECX features: LZCNT, PREFETCHW. LZCNT and TZCNT are encodings that mean BSR and
/// BSF on processors without them, so they must be told as the host executes them.
const EXT1_ECX: u32 = 1 << 5 | 1 << 8;
/// CPUID.8000_0001H:EDX features: NX, RDTSCP.
const EXT1_EDX: u32 = NX | RDTSCP;
const NX: u32 = 1 << 20;
const RDTSCP: u32 = 1 << 27;
/// CPUID.8000_0001H:EDX bits in which AMD repeats CPUID.1:EDX.
const EXT1_EDX_MIRROR: u32 = 0x0183_f3ff;

/// Highest basic leaf.
const MAX_BASIC: u32 = 0xd;
/// Highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;
/// The only hypervisor leaf.
const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// Bytes of the XSAVE area with x87 and SSE only, and with AVX.
const XSAVE_LEGACY: u32 = 576;
const XSAVE_AVX: u32 = XSAVE_LEGACY + 256;

/// Whose processor the model claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// "GenuineIntel".
    Intel,
    /// "AuthenticAMD" or "HygonGenuine".
    Amd,
    /// Any other.
    Other,
}

/// The processor model "ring3-v1".
#[derive(Clone, Debug)]
pub struct CpuModel {
    vendor_text: [u32; 3],
    signature: u32,
    leaf1_ecx: u32,
    leaf1_edx: u32,
    leaf2: [u32; 4],
    leaf4: [[u32; 4]; 4],
    leaf7_ebx: u32,
    xsaveopt: bool,
    ext1_ecx: u32,
    ext1_edx: u32,
    brand: [u32; 12],
    ext5: [u32; 4],
    ext6: [u32; 4],
    mxcsr_mask: u32,
    physical_bits: u32,
}

impl CpuModel {
    /// The model derived from the processor that runs the monitor.
    #[must_use]
    pub fn host_default() -> Self {
        Self::from_host(&cpuid_host::cpuid, cpuid_host::avx_usable())
    }

    /// The model derived from the processor that `host(leaf, subleaf)` describes (EAX, EBX, ECX,
    /// EDX). `avx` tells whether the host's operating system has enabled AVX state.
    #[must_use]
    pub fn from_host(host: &dyn Fn(u32, u32) -> [u32; 4], avx: bool) -> Self {
        let [basic, b, c, d] = host(0, 0);
        let basic_leaf = |leaf: u32, sub: u32| {
            if leaf <= basic {
                host(leaf, sub)
            } else {
                [0; 4]
            }
        };
        let extended = host(0x8000_0000, 0)[0];
        let extended_leaf = |leaf: u32| {
            if (0x8000_0000..=extended).contains(&leaf) {
                host(leaf, 0)
            } else {
                [0; 4]
            }
        };
        let vendor_text = [b, d, c];
        let [signature, _, host_ecx, host_edx] = basic_leaf(1, 0);
        let [_, _, ext_ecx, ext_edx] = extended_leaf(0x8000_0001);
        let amd = vendor_of(vendor_text) == Vendor::Amd;

        let mut leaf1_ecx = host_ecx & LEAF1_ECX;
        if !avx || leaf1_ecx & XSAVE == 0 {
            leaf1_ecx &= !(AVX | FMA | F16C);
        }
        let leaf1_edx = (host_edx & LEAF1_EDX) | LEAF1_EDX_OWN;
        let mut ext1_edx = ext_edx & EXT1_EDX;
        if amd {
            ext1_edx |= leaf1_edx & EXT1_EDX_MIRROR;
        }
        let mut leaf4 = [[0; 4]; 4];
        let mut leaf2 = [0; 4];
        if !amd {
            leaf2 = basic_leaf(2, 0);
            for (sub, leaf) in (0..).zip(leaf4.iter_mut()) {
                *leaf = basic_leaf(4, sub);
                leaf[0] &= 0x3ff; // one core, one thread
            }
        }
        let mut brand = [0; 12];
        for (leaf, text) in (0x8000_0002..).zip(brand.chunks_exact_mut(4)) {
            text.copy_from_slice(&extended_leaf(leaf));
        }
        let ext6 = extended_leaf(0x8000_0006);
        Self {
            vendor_text,
            signature,
            leaf1_ecx,
            leaf1_edx,
            leaf2,
            leaf4,
            leaf7_ebx: (basic_leaf(7, 0)[1] & LEAF7_EBX) | TSC_ADJUST,
            xsaveopt: leaf1_ecx & XSAVE != 0 && basic_leaf(0xd, 1)[0] & 1 != 0,
            ext1_ecx: ext_ecx & EXT1_ECX,
            ext1_edx,
            brand,
            ext5: extended_leaf(0x8000_0005),
            ext6: [ext6[0], ext6[1], ext6[2], if amd { ext6[3] } else { 0 }],
            // AMD with misaligned SSE mode has MXCSR.MM, bit 17; guest LDMXCSR can set it.
            mxcsr_mask: if amd && ext_ecx & 1 << 7 != 0 {
                0x2_ffff
            } else {
                0xffff
            },
            physical_bits: 36,
        }
    }

    /// The model with or without a local APIC (without by default).
    #[must_use]
    pub fn with_apic(mut self, on: bool) -> Self {
        let bits = if self.vendor() == Vendor::Amd {
            (APIC, APIC)
        } else {
            (APIC, 0)
        };
        self.leaf1_edx = (self.leaf1_edx & !APIC) | if on { bits.0 } else { 0 };
        self.ext1_edx = (self.ext1_edx & !APIC) | if on { bits.1 } else { 0 };
        self
    }

    /// The model without SYSENTER and SYSEXIT.
    #[must_use]
    pub fn without_sysenter(mut self) -> Self {
        self.leaf1_edx &= !SEP;
        self
    }

    /// CPUID.1 EAX and EDX: family, model and stepping, and the features of a processor with its
    /// local APIC on. For tables in which firmware describes the processor.
    #[must_use]
    pub fn identity(&self) -> [u32; 2] {
        [self.signature, self.leaf1_edx]
    }

    /// The vendor.
    #[must_use]
    pub fn vendor(&self) -> Vendor {
        vendor_of(self.vendor_text)
    }

    /// Width of physical addresses, in bits.
    #[must_use]
    pub fn physical_bits(&self) -> u32 {
        self.physical_bits
    }

    /// MXCSR bits that exist.
    #[must_use]
    pub fn mxcsr_mask(&self) -> u32 {
        self.mxcsr_mask
    }

    /// RDTSCP and IA32_TSC_AUX exist.
    #[must_use]
    pub fn has_rdtscp(&self) -> bool {
        self.ext1_edx & RDTSCP != 0
    }

    /// Execute-disable pages (EFER.NXE) exist.
    #[must_use]
    pub fn has_nx(&self) -> bool {
        self.ext1_edx & NX != 0
    }

    /// XSAVEOPT exists.
    #[must_use]
    pub fn has_xsaveopt(&self) -> bool {
        self.xsaveopt
    }

    /// A local APIC exists.
    #[must_use]
    pub fn has_apic(&self) -> bool {
        self.leaf1_edx & APIC != 0
    }

    /// CR4 bits that can be set.
    #[must_use]
    pub fn cr4_bits(&self) -> u64 {
        let mut bits = cr4::VME
            | cr4::PVI
            | cr4::TSD
            | cr4::DE
            | cr4::PSE
            | cr4::PAE
            | cr4::MCE
            | cr4::PGE
            | cr4::PCE
            | cr4::OSFXSR
            | cr4::OSXMMEXCPT;
        if self.leaf1_ecx & XSAVE != 0 {
            bits |= cr4::OSXSAVE;
        }
        if self.leaf7_ebx & 1 << 7 != 0 {
            bits |= cr4::SMEP;
        }
        bits
    }

    /// XCR0 bits that can be set: x87, SSE, AVX.
    #[must_use]
    pub fn xcr0_bits(&self) -> u64 {
        if self.leaf1_ecx & AVX != 0 { 7 } else { 3 }
    }

    /// True if instructions of this feature exist; else the translator raises #UD.
    #[must_use]
    pub fn supports(&self, feature: CpuidFeature) -> bool {
        use CpuidFeature as F;
        let edx = |bit: u32| self.leaf1_edx & 1 << bit != 0;
        let ecx = |bit: u32| self.leaf1_ecx & 1 << bit != 0;
        let leaf7 = |bit: u32| self.leaf7_ebx & 1 << bit != 0;
        match feature {
            F::INTEL8086
            | F::INTEL8086_ONLY
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::CPUID
            | F::FPU287
            | F::FPU387
            | F::PAUSE
            | F::RDPMC
            | F::MULTIBYTENOP => true,
            // Encodings that are no-operations, or WBINVD, where the feature is absent.
            F::WBNOINVD
            | F::CET_IBT
            | F::CLDEMOTE
            | F::PREFETCHW
            | F::PREFETCHWT1
            | F::PREFETCHITI
            | F::MPX => true,
            F::FPU => edx(0),
            F::TSC => edx(4),
            F::MSR => edx(5),
            F::CX8 => edx(8),
            F::SEP => edx(11),
            F::CMOV => edx(15),
            F::CLFSH => edx(19),
            F::MMX => edx(23),
            F::FXSR => edx(24),
            F::SSE => edx(25),
            F::SSE2 => edx(26),
            F::SSE3 => ecx(0),
            F::PCLMULQDQ => ecx(1),
            F::SSSE3 => ecx(9),
            F::FMA => ecx(12),
            F::SSE4_1 => ecx(19),
            F::SSE4_2 => ecx(20),
            F::MOVBE => ecx(22),
            F::POPCNT => ecx(23),
            F::AES => ecx(25),
            F::XSAVE => ecx(26),
            F::XSAVEOPT => self.xsaveopt,
            F::AVX => ecx(28),
            F::F16C => ecx(29),
            F::RDRAND => ecx(30),
            F::BMI1 => leaf7(3),
            F::BMI2 => leaf7(8),
            F::RDSEED => leaf7(18),
            F::ADX => leaf7(19),
            F::CLFLUSHOPT => leaf7(23),
            F::SHA => leaf7(29),
            F::LZCNT => self.ext1_ecx & 1 << 5 != 0,
            F::RDTSCP => self.has_rdtscp(),
            _ => false,
        }
    }

    /// What CPUID returns (EAX, EBX, ECX, EDX) in the state `st`.
    #[must_use]
    pub fn cpuid(&self, st: &GuestState, leaf: u32, subleaf: u32) -> [u32; 4] {
        let [vendor_b, vendor_d, vendor_c] = self.vendor_text;
        match leaf {
            0 => [MAX_BASIC, vendor_b, vendor_c, vendor_d],
            1 => self.leaf1(st),
            2 => self.leaf2,
            4 => self
                .leaf4
                .get(subleaf as usize)
                .copied()
                .unwrap_or_default(),
            7 if subleaf == 0 => [0, self.leaf7_ebx, 0, 0],
            0xd => self.leaf_d(st, subleaf),
            3..=MAX_BASIC => [0; 4],
            HYPERVISOR_LEAF => {
                let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
                [HYPERVISOR_LEAF, word(b"ring"), word(b"3 ri"), word(b"ng3 ")]
            }
            0x8000_0000 if self.vendor() == Vendor::Amd => {
                [MAX_EXTENDED, vendor_b, vendor_c, vendor_d]
            }
            0x8000_0000 => [MAX_EXTENDED, 0, 0, 0],
            0x8000_0001 => {
                let apic_off = self.has_apic() && !apic_enabled(st);
                let edx = if apic_off {
                    self.ext1_edx & !APIC
                } else {
                    self.ext1_edx
                };
                [
                    if self.vendor() == Vendor::Amd {
                        self.signature
                    } else {
                        0
                    },
                    0,
                    self.ext1_ecx,
                    edx,
                ]
            }
            0x8000_0002..=0x8000_0004 => {
                let at = (leaf - 0x8000_0002) as usize * 4;
                [
                    self.brand[at],
                    self.brand[at + 1],
                    self.brand[at + 2],
                    self.brand[at + 3],
                ]
            }
            0x8000_0005 => self.ext5,
            0x8000_0006 => self.ext6,
            // Bit 8: the time stamp counter runs at a constant rate.
            0x8000_0007 => [0, 0, 0, 1 << 8],
            0x8000_0008 => [self.physical_bits | 32 << 8, 0, 0, 0],
            // Beyond the maximum, Intel answers with the highest basic leaf, AMD with zeros.
            _ if leaf < HYPERVISOR_LEAF && self.vendor() == Vendor::Intel => {
                self.leaf_d(st, subleaf)
            }
            _ => [0; 4],
        }
    }

    fn leaf1(&self, st: &GuestState) -> [u32; 4] {
        let mut ecx = self.leaf1_ecx | HYPERVISOR;
        if st.cr4 & cr4::OSXSAVE != 0 {
            ecx |= OSXSAVE;
        }
        let mut edx = self.leaf1_edx;
        if !apic_enabled(st) {
            edx &= !APIC;
        }
        if edx & APIC != 0 {
            ecx |= TSC_DEADLINE;
        }
        // EBX: CLFLUSH line of 8 quadwords, one logical processor, APIC id 0.
        [self.signature, 8 << 8 | 1 << 16, ecx, edx]
    }

    fn leaf_d(&self, st: &GuestState, subleaf: u32) -> [u32; 4] {
        if self.leaf1_ecx & XSAVE == 0 {
            return [0; 4];
        }
        let avx = self.leaf1_ecx & AVX != 0;
        let size = |on: bool| if on { XSAVE_AVX } else { XSAVE_LEGACY };
        match subleaf {
            0 => [
                self.xcr0_bits() as u32,
                size(st.xcr0 & 4 != 0),
                size(avx),
                0,
            ],
            1 => [u32::from(self.xsaveopt), 0, 0, 0],
            2 if avx => [XSAVE_AVX - XSAVE_LEGACY, XSAVE_LEGACY, 0, 0],
            _ => [0; 4],
        }
    }
}

/// CPUID shows the APIC only while it is globally enabled.
fn apic_enabled(st: &GuestState) -> bool {
    st.msr.apic_base & apic_base::ENABLE != 0
}

fn vendor_of(text: [u32; 3]) -> Vendor {
    let mut bytes = [0u8; 12];
    for (out, word) in bytes.chunks_exact_mut(4).zip(text) {
        out.copy_from_slice(&word.to_le_bytes());
    }
    match &bytes {
        b"GenuineIntel" => Vendor::Intel,
        b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
        _ => Vendor::Other,
    }
}

#[cfg(test)]
#[path = "cpuid_tests.rs"]
mod tests;
