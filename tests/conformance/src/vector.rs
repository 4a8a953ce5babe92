//! x87, SSE, AVX and AVX-512 state as plain values, and its XSAVE standard-format image.
//!
//! Intel SDM vol. 1, 13.4. Offsets of the extended components come from CPUID leaf 0xD.
//! Only the registers that 32-bit code can name are kept (8 of each). The last x87 instruction
//! and operand pointers and the last opcode are left out: see [`crate::compare`].

use ring3_monitor::cpu::cpuid::CpuModel;

/// Bytes kept for an XSAVE image: legacy, header, AVX, AVX-512.
pub const XSAVE_BYTES: usize = 2816;

/// The register values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vector {
    /// x87 control word.
    pub fcw: u16,
    /// x87 status word (TOP in bits 11-13).
    pub fsw: u16,
    /// Abridged tag word: bit n set if physical register n is not empty.
    pub ftw: u8,
    /// SSE control and status.
    pub mxcsr: u32,
    /// ST0-ST7 (80 bits each; the low 64 bits are the MMX register of the same number if TOP is 0).
    pub st: [[u8; 10]; 8],
    /// XMM/YMM/ZMM 0-7.
    pub zmm: [[u8; 64]; 8],
    /// Opmask registers.
    pub k: [u64; 8],
}

impl Default for Vector {
    fn default() -> Self {
        Self {
            fcw: 0x37f,
            fsw: 0,
            ftw: 0,
            mxcsr: 0x1f80,
            st: [[0; 10]; 8],
            zmm: [[0; 64]; 8],
            k: [0; 8],
        }
    }
}

/// State component numbers.
const AVX: u32 = 2;
const OPMASK: u32 = 5;
const ZMM_HIGH: u32 = 6;

/// Where XSAVE puts each extended component on this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct XsaveLayout {
    /// XCR0.
    pub features: u64,
    /// Offset of the upper halves of YMM0-15, 0 if absent.
    pub avx: usize,
    /// Offset of k0-k7, 0 if absent.
    pub opmask: usize,
    /// Offset of the upper halves of ZMM0-15, 0 if absent.
    pub zmm_high: usize,
    /// MXCSR bits that exist.
    pub mxcsr_mask: u32,
}

impl XsaveLayout {
    /// The host's layout.
    #[must_use]
    pub fn host() -> Self {
        use core::arch::x86_64::{__cpuid, __cpuid_count};
        let osxsave = __cpuid(1).ecx & 1 << 27 != 0;
        let mxcsr_mask = CpuModel::host_default().mxcsr_mask();
        if !osxsave {
            return Self {
                features: 3,
                mxcsr_mask,
                ..Self::default()
            };
        }
        let main = __cpuid_count(0xd, 0);
        // CPUID reports what XCR0 may hold; what it does hold bounds what code can use. Linux
        // enables all of x87, SSE, AVX and AVX-512 at once, and dynamic features are not used.
        let features = u64::from(main.eax) & 0xe7;
        let offset = |component: u32| {
            if features >> component & 1 == 0 {
                0
            } else {
                __cpuid_count(0xd, component).ebx as usize
            }
        };
        Self {
            features,
            avx: offset(AVX),
            opmask: offset(OPMASK),
            zmm_high: offset(ZMM_HIGH),
            mxcsr_mask,
        }
    }
}

impl Vector {
    /// Writes the image that XRSTOR loads, without MXCSR bits that the host does not have. Bytes
    /// 464-511 (software's own) are not touched.
    ///
    /// `image` has at least [`XSAVE_BYTES`] bytes.
    pub fn store(&self, image: &mut [u8], layout: &XsaveLayout) {
        image[..464].fill(0);
        image[512..XSAVE_BYTES].fill(0);
        image[0..2].copy_from_slice(&self.fcw.to_le_bytes());
        image[2..4].copy_from_slice(&self.fsw.to_le_bytes());
        image[4] = self.ftw;
        let mxcsr = self.mxcsr & layout.mxcsr_mask;
        image[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        image[28..32].copy_from_slice(&0xffffu32.to_le_bytes());
        for n in 0..8 {
            image[32 + 16 * n..][..10].copy_from_slice(&self.st[n]);
            image[160 + 16 * n..][..16].copy_from_slice(&self.zmm[n][..16]);
            if layout.avx != 0 {
                image[layout.avx + 16 * n..][..16].copy_from_slice(&self.zmm[n][16..32]);
            }
            if layout.zmm_high != 0 {
                image[layout.zmm_high + 32 * n..][..32].copy_from_slice(&self.zmm[n][32..]);
            }
            if layout.opmask != 0 {
                image[layout.opmask + 8 * n..][..8].copy_from_slice(&self.k[n].to_le_bytes());
            }
        }
        image[512..520].copy_from_slice(&layout.features.to_le_bytes());
    }

    /// Reads an image that XSAVE stored (standard format). A component whose XSTATE_BV bit is
    /// clear has its initial value.
    #[must_use]
    pub fn load(image: &[u8], layout: &XsaveLayout) -> Self {
        let mut v = Self::default();
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let present = u64::from_le_bytes(image[512..520].try_into().unwrap_or_default());
        let has = |component: u32| present >> component & 1 != 0;
        if has(0) {
            v.fcw = word(0);
            v.fsw = word(2);
            v.ftw = image[4];
        }
        v.mxcsr = u32::from_le_bytes(image[24..28].try_into().unwrap_or_default());
        for n in 0..8 {
            if has(0) {
                v.st[n].copy_from_slice(&image[32 + 16 * n..][..10]);
            }
            if has(1) {
                v.zmm[n][..16].copy_from_slice(&image[160 + 16 * n..][..16]);
            }
            if has(AVX) && layout.avx != 0 {
                v.zmm[n][16..32].copy_from_slice(&image[layout.avx + 16 * n..][..16]);
            }
            if has(ZMM_HIGH) && layout.zmm_high != 0 {
                v.zmm[n][32..].copy_from_slice(&image[layout.zmm_high + 32 * n..][..32]);
            }
            if has(OPMASK) && layout.opmask != 0 {
                v.k[n] = u64::from_le_bytes(
                    image[layout.opmask + 8 * n..][..8]
                        .try_into()
                        .unwrap_or_default(),
                );
            }
        }
        v
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_round_trips() {
        let layout = XsaveLayout::host();
        let mut v = Vector {
            fcw: 0x27f,
            fsw: 0x3800,
            ftw: 0x81,
            mxcsr: 0x3fa0,
            ..Vector::default()
        };
        v.st[3] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        v.zmm[7][5] = 9;
        if layout.avx != 0 {
            v.zmm[2][17] = 5;
        }
        let mut image = vec![0; XSAVE_BYTES];
        v.store(&mut image, &layout);
        assert_eq!(Vector::load(&image, &layout), v);
    }
}
