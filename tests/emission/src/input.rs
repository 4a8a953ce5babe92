//! Inputs: guest bytes of four kinds, in any mode.

use iced_x86::{Decoder, DecoderOptions};
use ring3_conformance::generate::{forms, unit};
use ring3_conformance::rng::Rng;
use ring3_translator::mode::Mode;
use std::fmt;

/// Where the bytes of an input come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Random bytes.
    Bytes,
    /// Instructions of random forms, as they are.
    Real,
    /// The same with bits changed, bytes and prefixes inserted or lost.
    Mutated,
    /// A walk through all opcode maps with prefixes and random operands.
    Maps,
}

/// One translation to be made.
#[derive(Clone, Debug)]
pub struct Input {
    /// Where the bytes come from.
    pub kind: Kind,
    /// Guest bytes, up to the end of the first page or beyond it.
    pub bytes: Vec<u8>,
    /// Guest-physical address of the first byte.
    pub phys: u64,
    /// EIP of the first byte.
    pub eip: u32,
    /// The mode, any combination of its bits.
    pub mode: Mode,
    /// Whether jumps may be chained.
    pub chain: bool,
    /// Whether other pages may be linked.
    pub chain_pages: bool,
    /// Offsets of instructions to be in the adapted form.
    pub adapted: Vec<u16>,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "mode {:#08x} (cpl {}, {}, {}-bit code, {}-bit stack{}{}), phys {:#x}, eip {:#x}, chain {}, pages {}",
            self.mode.0,
            self.mode.cpl(),
            match (self.mode.protected(), self.mode.v86()) {
                (_, true) => "v86",
                (true, _) => "protected",
                _ => "real",
            },
            if self.mode.code32() { 32 } else { 16 },
            if self.mode.stack32() { 32 } else { 16 },
            if self.mode.trap_flag() { ", TF" } else { "" },
            if self.mode.x87_traps() {
                ", no FPU"
            } else {
                ""
            },
            self.phys,
            self.eip,
            self.chain,
            self.chain_pages
        )?;
        writeln!(f, "bytes {:02x?}, adapted {:x?}", self.bytes, self.adapted)?;
        let bits = if self.mode.code32() { 32 } else { 16 };
        for insn in Decoder::with_ip(bits, &self.bytes, u64::from(self.eip), DecoderOptions::NONE)
            .iter()
            .take(40)
        {
            writeln!(f, "  {:08x}  {insn}", insn.ip32())?;
        }
        Ok(())
    }
}

/// Makes inputs.
pub struct Generator {
    forms: Vec<forms::Form>,
    /// Position of the walk through the opcode maps.
    walk: u32,
}

/// Legacy and VEX/XOP/EVEX beginnings: opcode maps.
const MAPS: [&[u8]; 16] = [
    &[],
    &[0x0f],
    &[0x0f, 0x38],
    &[0x0f, 0x3a],
    &[0xc5, 0xf8],
    &[0xc5, 0x79],
    &[0xc5, 0xfe],
    &[0xc4, 0xe1, 0x7d],
    &[0xc4, 0xe2, 0x79],
    &[0xc4, 0xe2, 0x7d],
    &[0xc4, 0xe2, 0x7b],
    &[0xc4, 0xe3, 0x7d],
    &[0xc4, 0xe2, 0xfd],
    &[0x8f, 0xe8, 0x78],
    &[0x8f, 0xe9, 0x78],
    &[0x62, 0xf1, 0x7c, 0x48],
];
const PREFIXES: [u8; 11] = [
    0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
];

impl Default for Generator {
    fn default() -> Self {
        Self {
            forms: forms::table().0,
            walk: 0,
        }
    }
}

impl Generator {
    /// Makes one input.
    pub fn make(&mut self, rng: &mut Rng) -> Input {
        let kind = rng.pick(&[
            Kind::Bytes,
            Kind::Real,
            Kind::Real,
            Kind::Mutated,
            Kind::Maps,
            Kind::Maps,
        ]);
        let mode = mode(rng);
        let bytes = match kind {
            Kind::Bytes => {
                let mut b = vec![0; 1 + rng.below(300) as usize];
                rng.fill(&mut b);
                b
            }
            Kind::Real => self.real(rng),
            Kind::Mutated => {
                let mut b = self.real(rng);
                mutate(rng, &mut b);
                b
            }
            Kind::Maps => self.maps(rng),
        };
        let page = u64::from(rng.below(64)) << 12;
        let offset = match rng.below(4) {
            0 => 0xfff - u64::from(rng.below(20)),
            _ => u64::from(rng.below(4096)),
        };
        let eip = match rng.below(8) {
            0 => rng.u32(),
            1 => 0u32.wrapping_sub(rng.below(64)),
            2 => 0x1_0000 - rng.below(64),
            n => u32::from(n as u16 * 0x1357) << 12 | offset as u32,
        };
        let eip = if mode.code32() { eip } else { eip & 0xffff };
        let adapted = (0..rng.below(3) * 8)
            .map(|_| rng.below(bytes.len() as u32) as u16)
            .collect();
        Input {
            kind,
            bytes,
            phys: page | offset,
            eip,
            mode,
            chain: !rng.chance(15),
            chain_pages: rng.chance(60),
            adapted,
        }
    }

    fn real(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..1 + rng.below(12) {
            let form = rng.pick(&self.forms);
            if let Ok(case) = unit::make(form, rng) {
                // The case's first pieces may prepare registers; any of them is an instruction.
                let pieces = &case.pieces;
                bytes.extend_from_slice(&pieces[rng.below(pieces.len() as u32) as usize]);
            }
        }
        if bytes.is_empty() {
            bytes.push(0x90);
        }
        bytes
    }

    fn maps(&mut self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..1 + rng.below(6) {
            let map = MAPS[(self.walk / 256) as usize % MAPS.len()];
            let opcode = self.walk as u8;
            self.walk = self.walk.wrapping_add(1);
            for _ in 0..rng.below(3) {
                bytes.push(rng.pick(&PREFIXES));
            }
            bytes.extend_from_slice(map);
            if map.len() >= 2 && map[0] >= 0x62 && rng.chance(40) {
                let last = bytes.len() - 1;
                bytes[last] ^= rng.u32() as u8; // vvvv, L, pp, W
            }
            bytes.push(opcode);
            let mut tail = [0; 10];
            rng.fill(&mut tail);
            bytes.extend_from_slice(&tail[..rng.below(11) as usize]);
        }
        bytes
    }
}

fn mode(rng: &mut Rng) -> Mode {
    // Bits 0-13 and 16-23: see `Mode`. Real combinations come up often enough: half of the modes
    // are flat or of one class, without single steps and with an FPU.
    let steps = if rng.chance(70) { 1 << 6 | 1 << 11 } else { 0 };
    let any = rng.u32() & 0x00ff_3fff & !steps;
    let usual = |rng: &mut Rng| {
        let cpl = rng.pick(&[0u32, 0, 1, 2, 3, 3]);
        let sizes = rng.pick(&[0x30u32, 0x30, 0, 0x10, 0x20]);
        let class = rng.pick(&[
            0u32,
            0,
            0x0055_0000,
            0x00aa_0000,
            0x00ff_0000,
            0x0008_0000,
            0x0020_0000,
        ]);
        let kind = rng.pick(&[4u32, 4, 4, 4, 0, 0x0c]);
        let cpl = match kind {
            0 => 0,
            0x0c => 3,
            _ => cpl,
        };
        cpl | kind | sizes | class | 0x600
    };
    Mode(if rng.chance(50) { any } else { usual(rng) })
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(6) {
        let at = rng.below(bytes.len() as u32) as usize;
        match rng.below(5) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.u32() as u8,
            2 => bytes.insert(at, rng.pick(&PREFIXES)),
            3 if bytes.len() > 1 => _ = bytes.remove(at),
            _ => {
                let from = rng.below(bytes.len() as u32) as usize;
                let part: Vec<u8> = bytes[from..].iter().take(8).copied().collect();
                bytes.splice(at..at, part);
            }
        }
    }
}
