//! Initial states: random, with the corner values at which instructions change behaviour.

use crate::case::{Regs, Width, seg};
use crate::layout;
use crate::rng::Rng;
use crate::vector::Vector;

/// Integer corners (truncated to the operand's size).
const CORNERS: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    0x1f,
    0x20,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

const F32_CORNERS: [u32; 14] = [
    0,
    0x8000_0000,
    1,
    0x807f_ffff,
    0x0080_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x7f80_0001,
    0x4f00_0000,
    0x3f00_0000,
];

const F64_CORNERS: [u64; 14] = [
    0,
    1 << 63,
    1,
    0x800f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0x43e0_0000_0000_0000,
    0x41e0_0000_0000_0000,
];

/// Sign and exponent, significand.
const F80_CORNERS: [(u16, u64); 16] = [
    (0, 0),
    (0x8000, 0),
    (0, 1),
    (0, 1 << 63), // pseudo-denormal
    (1, 1 << 63),
    (0x3fff, 1 << 63),
    (0xbfff, 1 << 63),
    (0x3ffe, 0xc000_0000_0000_0000),
    (0x7ffe, u64::MAX),
    (0x7fff, 1 << 63),
    (0xffff, 1 << 63),
    (0x7fff, 0xc000_0000_0000_0000),
    (0x7fff, 0x8000_0000_0000_0001),
    (0x7fff, 0),       // pseudo-infinity
    (0x4000, 1 << 62), // unnormal
    (0x403e, 0x8000_0000_0000_0001),
];

/// A random integer, often a corner.
pub fn integer(rng: &mut Rng) -> u64 {
    match rng.below(10) {
        0..4 => rng.u64(),
        4..6 => u64::from(rng.below(64)),
        6 => rng.pick(&CORNERS) ^ u64::MAX,
        _ => rng.pick(&CORNERS),
    }
}

/// Fills `buf` in one random manner: bytes, or repeated lanes of integers or floats.
pub fn lanes(rng: &mut Rng, buf: &mut [u8]) {
    match rng.below(7) {
        0 => rng.fill(buf),
        1 => {
            let lane = rng.pick(&[1usize, 2, 4, 8]);
            for chunk in buf.chunks_mut(lane) {
                let v = integer(rng).to_le_bytes();
                chunk.copy_from_slice(&v[..chunk.len()]);
            }
        }
        2..4 => {
            for chunk in buf.chunks_mut(4) {
                let v = if rng.chance(70) {
                    rng.pick(&F32_CORNERS)
                } else {
                    near_one32(rng)
                };
                chunk.copy_from_slice(&v.to_le_bytes()[..chunk.len()]);
            }
        }
        4..6 => {
            for chunk in buf.chunks_mut(8) {
                let v = if rng.chance(70) {
                    rng.pick(&F64_CORNERS)
                } else {
                    near_one64(rng)
                };
                chunk.copy_from_slice(&v.to_le_bytes()[..chunk.len()]);
            }
        }
        _ => {
            for chunk in buf.chunks_mut(10) {
                chunk.copy_from_slice(&float80(rng)[..chunk.len()]);
            }
        }
    }
}

fn near_one32(rng: &mut Rng) -> u32 {
    (rng.u32() & 0x807f_ffff) | (0x70 + rng.below(0x20)) << 23
}

fn near_one64(rng: &mut Rng) -> u64 {
    (rng.u64() & 0x800f_ffff_ffff_ffff) | u64::from(0x3f0 + rng.below(0x20)) << 52
}

/// A random 80-bit float, often a corner.
pub fn float80(rng: &mut Rng) -> [u8; 10] {
    let (exponent, significand) = match rng.below(4) {
        0 => rng.pick(&F80_CORNERS),
        1 => (rng.u32() as u16, rng.u64()),
        _ => (
            (0x3fc0 + rng.below(0x80)) as u16 | (rng.u32() & 0x8000) as u16,
            rng.u64() | 1 << 63,
        ),
    };
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&significand.to_le_bytes());
    bytes[8..].copy_from_slice(&exponent.to_le_bytes());
    bytes
}

/// MXCSR.MM: misaligned operands of most SSE instructions are allowed. AMD processors only.
pub const MXCSR_MM: u32 = 1 << 17;

/// An MXCSR value without bits that are reserved everywhere.
pub fn mxcsr(rng: &mut Rng) -> u32 {
    let value = match rng.below(10) {
        0..5 => 0x1f80,
        5..9 => (rng.u32() & 0xe07f) | 0x1f80,
        _ => rng.u32() & 0xffff,
    };
    if rng.chance(10) {
        value | MXCSR_MM
    } else {
        value
    }
}

/// Random x87, SSE and AVX state.
pub fn vector(rng: &mut Rng) -> Vector {
    let mut v = Vector {
        mxcsr: mxcsr(rng),
        ..Vector::default()
    };
    if rng.chance(50) {
        v.fcw = 0x37f & !0x300 | (rng.u32() & 0xf00) as u16;
    }
    if rng.chance(8) {
        v.fcw &= !(rng.u32() & 0x3f) as u16; // unmasked exceptions
    }
    if rng.chance(75) {
        v.fsw = (rng.u32() & 0x7f00) as u16 & !0x8000;
        v.ftw = if rng.chance(60) {
            0xff
        } else {
            rng.u32() as u8
        };
    }
    if rng.chance(4) {
        // An exception is pending: the next x87 or MMX instruction that waits raises #MF.
        let pending = 1 << rng.below(6);
        v.fcw &= !pending;
        v.fsw |= pending | 0x8080;
    }
    for st in &mut v.st {
        *st = float80(rng);
    }
    for z in &mut v.zmm {
        lanes(rng, z);
    }
    for k in &mut v.k {
        *k = integer(rng);
    }
    v
}

/// Random general registers, flags and segments; ESP in the middle of the stack page, EIP unset.
pub fn regs(rng: &mut Rng, width: Width) -> Regs {
    let mut r = Regs {
        eflags: 0x202 | rng.u32() & 0x8d5,
        ..Regs::default()
    };
    if rng.chance(15) {
        r.eflags |= 0x400;
    }
    if rng.chance(5) {
        r.eflags |= rng.pick(&[1 << 14, 1 << 21]);
    }
    for gpr in &mut r.gpr {
        *gpr = integer(rng) as u32;
    }
    let extra = |rng: &mut Rng| {
        rng.pick(&[
            layout::SEL_DATA32,
            layout::SEL_BASED,
            layout::SEL_LIMITED,
            layout::SEL_DOWN,
            layout::SEL_READ_ONLY,
            layout::SEL_DATA16,
            layout::SEL_BASED,
            0,
        ])
    };
    let usual = if width == Width::Code32 {
        layout::SEL_DATA32
    } else {
        layout::SEL_DATA16
    };
    for n in [seg::ES, seg::DS] {
        r.seg[n] = if rng.chance(80) { usual } else { extra(rng) };
    }
    for n in [seg::FS, seg::GS] {
        r.seg[n] = extra(rng);
    }
    if width == Width::Code32 {
        r.seg[seg::CS] = if rng.chance(88) {
            layout::SEL_CODE32
        } else {
            layout::SEL_CODE32_BASED
        };
        r.seg[seg::SS] = match rng.below(20) {
            0 | 1 => layout::SEL_BASED,
            2 => layout::SEL_STACK16,
            _ => layout::SEL_DATA32,
        };
    } else {
        r.seg[seg::CS] = layout::SEL_CODE16;
        r.seg[seg::SS] = if rng.chance(85) {
            layout::SEL_STACK16
        } else {
            layout::SEL_DATA32
        };
    }
    let top = match rng.below(20) {
        0 => layout::STACK + rng.below(12),
        1 => layout::STACK + layout::PAGE - rng.below(12),
        2 => layout::STACK + 0x700 + rng.below(0x100),
        _ => layout::STACK + 0x800,
    };
    r.gpr[4] = top.wrapping_sub(base(&r, seg::SS));
    r
}

/// The linear base of segment register `n`.
#[must_use]
pub fn base(r: &Regs, n: usize) -> u32 {
    layout::Descriptor::of(r.seg[n]).map_or(0, |d| d.base)
}
