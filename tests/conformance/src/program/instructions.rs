//! The straight-line instructions of programs.

use super::writer::{AF, ALL, CF, OF, PF, Place, SF, Writer, ZF};
use crate::case::Width;
use crate::layout;

/// A mandatory prefix and an opcode.
type VectorOp = (&'static [u8], &'static [u8]);

/// SSE2 operations on XMM registers and 16-byte memory.
const XMM: [VectorOp; 16] = [
    (&[0x66], &[0x0f, 0xfe]), // paddd
    (&[0x66], &[0x0f, 0xd4]), // paddq
    (&[0x66], &[0x0f, 0xef]), // pxor
    (&[0x66], &[0x0f, 0xf4]), // pmuludq
    (&[0x66], &[0x0f, 0x61]), // punpcklwd
    (&[0x66], &[0x0f, 0x75]), // pcmpeqw
    (&[], &[0x0f, 0x58]),     // addps
    (&[], &[0x0f, 0x59]),     // mulps
    (&[], &[0x0f, 0x54]),     // andps
    (&[], &[0x0f, 0x14]),     // unpcklps
    (&[0x66], &[0x0f, 0x58]), // addpd
    (&[0x66], &[0x0f, 0x5e]), // divpd
    (&[], &[0x0f, 0x5b]),     // cvtdq2ps
    (&[], &[0x0f, 0x5d]),     // minps
    (&[0x66], &[0x0f, 0x6f]), // movdqa
    (&[], &[0x0f, 0x28]),     // movaps
];

/// MMX operations on 8-byte memory.
const MMX: [u8; 6] = [0xfc, 0xfe, 0xef, 0xd5, 0x60, 0x6f];

impl Writer<'_> {
    /// One instruction without control flow.
    pub(super) fn instruction(&mut self) {
        self.marks.push(self.code.len());
        match self.rng.below(100) {
            0..52 => self.integer(),
            52..66 => self.memory_instruction(),
            66..72 => self.string(),
            72..78 => self.stack(),
            78..88 => self.vector(),
            88..90 => self.segment(),
            90..93 => self.divide(),
            _ => self.modify_code(),
        }
        self.marks.push(self.code.len());
    }

    fn integer(&mut self) {
        let (a, b, wide) = (self.reg(), self.reg(), self.size());
        let modrm = 0xc0 | a << 3 | b;
        let op = self.rng.below(8) as u8;
        match self.rng.below(24) {
            0..5 => {
                self.carry_in(op);
                self.op(wide, &[op << 3 | 1, modrm]);
                self.arithmetic_flags(op);
            }
            5..7 => {
                self.carry_in(op);
                let pair = self.rng.below(0x40) as u8; // byte registers: any
                self.put(&[op << 3, 0xc0 | pair]);
                self.arithmetic_flags(op);
            }
            7..9 => {
                self.carry_in(op);
                let imm = self.rng.u32();
                self.op(wide, &[0x81, 0xc0 | op << 3 | b]);
                self.put_sized(wide, imm);
                self.arithmetic_flags(op);
            }
            9..11 => self.shift(wide, b),
            11 => {
                self.op(wide, &[0x0f, 0xaf, modrm]); // imul
                self.flags(CF | OF, PF | AF | ZF | SF);
            }
            12 => {
                self.op(wide, &[0xf7, 0xe0 | b]); // mul
                self.flags(CF | OF, PF | AF | ZF | SF);
            }
            13 | 14 => {
                let way = self.rng.pick(&[0x40, 0x48]); // inc, dec
                self.op(wide, &[way | a]);
                self.flags(ALL & !CF, 0);
            }
            15 => {
                let cc = self.condition();
                self.put(&[0x0f, 0x90 | cc, 0xc0 | b]); // setcc
            }
            16 => {
                let cc = self.condition();
                self.op(wide, &[0x0f, 0x40 | cc, modrm]); // cmovcc
            }
            17 => self.lea(a, b),
            18 => self.op(true, &[0x0f, 0xc8 | a]), // bswap
            19 => {
                let bit = self.rng.u32() as u8;
                self.op(wide, &[0x0f, 0xba, 0xe0 | op << 3 & 0x18 | b, bit]); // bt, bts, btr, btc
                self.flags(CF, ALL & !CF & !ZF);
            }
            20 => {
                self.op(wide, &[0x0f, 0xb1, modrm]); // cmpxchg
                self.flags(ALL, 0);
            }
            21 => {
                let negate = self.rng.chance(50);
                self.op(wide, &[0xf7, if negate { 0xd8 } else { 0xd0 } | b]);
                if negate {
                    self.flags(ALL, 0);
                }
            }
            22 => {
                self.define(ALL);
                let way = self.rng.pick(&[0x9f, 0x9e, 0xf5, 0xf8, 0xf9]); // lahf sahf cmc clc stc
                self.put(&[way]);
            }
            _ => {
                let way = self.rng.pick(&[0x98, 0x99]); // cwde, cdq
                self.op(wide, &[way]);
            }
        }
    }

    fn lea(&mut self, a: u8, b: u8) {
        let displacement = self.rng.u32();
        let base = self.reg();
        let scale = self.rng.below(4) as u8 * 0x40;
        self.size_prefixes(true, true);
        self.put(&[0x8d, 0x84 | a << 3, scale | b << 3 | base]);
        self.put32(displacement); // lea a, [base + b*scale + displacement]
    }

    /// ADC and SBB read CF.
    fn carry_in(&mut self, op: u8) {
        if op == 2 || op == 3 {
            self.define(CF);
        }
    }

    fn arithmetic_flags(&mut self, op: u8) {
        if matches!(op, 1 | 4 | 6) {
            self.flags(ALL & !AF, AF)
        } else {
            self.flags(ALL, 0)
        }
    }

    fn shift(&mut self, wide: bool, r: u8) {
        let op = self.rng.pick(&[0u8, 1, 2, 3, 4, 5, 7]);
        if op < 4 {
            self.define(CF);
        }
        if self.rng.chance(30) {
            // By CL: with a count of 0 nothing changes; beyond 16 bits CF is undefined.
            self.op(wide, &[0xd3, 0xc0 | op << 3 | r]);
            self.undefined |= OF | if op >= 4 { AF } else { 0 } | if wide { 0 } else { CF };
            return;
        }
        let most = if wide { 31 } else { 15 };
        let count = 1 + self.rng.below(most) as u8;
        self.op(wide, &[0xc1, 0xc0 | op << 3 | r, count]);
        let of = if count == 1 { 0 } else { OF };
        if op < 4 {
            self.flags(CF, of)
        } else {
            self.flags(ALL & !AF & !OF, AF | of)
        }
    }

    pub(super) fn condition(&mut self) -> u8 {
        let cc = self.rng.below(16) as u8;
        self.define([OF, CF, ZF, CF | ZF, SF, PF, SF | OF, SF | OF | ZF][usize::from(cc >> 1)]);
        cc
    }

    fn memory_instruction(&mut self) {
        let (a, wide) = (self.reg(), self.size());
        let op = self.rng.below(8) as u8;
        match self.rng.below(12) {
            0..4 => {
                let place = self.place();
                self.carry_in(op);
                let way = self.rng.below(2) as u8 * 2;
                self.memory(wide, &[op << 3 | 1 | way], a, place);
                self.arithmetic_flags(op);
            }
            4..6 => {
                let place = self.place();
                let opcode = self.rng.pick(&[0x8bu8, 0x89, 0x8a, 0x88]); // mov
                self.memory(wide, &[opcode], a, place);
            }
            6 => {
                let place = self.place();
                let opcode = self.rng.pick(&[0xb6u8, 0xb7, 0xbe, 0xbf]); // movzx, movsx
                self.memory(wide, &[0x0f, opcode], a, place);
            }
            7 => {
                let place = self.place();
                let exchange = self.rng.chance(50);
                let size = wide != self.wide_code();
                if exchange {
                    self.prefixed_memory(&[], size, &[0x87], a, place); // xchg
                } else {
                    self.prefixed_memory(&[0xf0], size, &[0x0f, 0xc1], a, place); // lock xadd
                    self.flags(ALL, 0);
                }
            }
            8 => {
                // A bit string: the offset reaches beyond the operand.
                let r = self.reg();
                self.restrict(r);
                let opcode = 0xa3 | op << 3 & 0x18; // bt, bts, btr, btc
                self.memory(true, &[0x0f, opcode], r, Place::at(layout::DATA));
                self.flags(CF, ALL & !CF & !ZF);
            }
            9 => {
                let place = self.place();
                self.define(ALL);
                self.memory(true, &[0x0f, 0xc7], 1, place); // cmpxchg8b
            }
            10 => {
                let place = self.place();
                self.memory(wide, &[0xff], op & 1, place); // inc, dec
                self.flags(ALL & !CF, 0);
            }
            _ => {
                let place = self.place();
                self.memory(wide, &[0xff], 6, place); // push, pop
                self.op(wide, &[0x58 | a]);
            }
        }
    }

    /// A string instruction within the data pages, mostly repeated.
    fn string(&mut self) {
        let address32 = self.wide_code() || self.rng.chance(30);
        let wide = self.size();
        let (prefix, op) = self.rng.pick(&[
            (0xf3, 0xa4u8),
            (0xf3, 0xa5),
            (0xf3, 0xaa),
            (0xf3, 0xab),
            (0xf3, 0xa6),
            (0xf2, 0xa6),
            (0xf2, 0xae),
            (0xf3, 0xaf),
            (0xf3, 0xad),
            (0, 0xa5),
            (0, 0xab),
            (0, 0xad),
        ]);
        // SCAS writes nothing: it may run over both pages, in more than 4096 steps.
        let long = op == 0xae && self.rng.chance(10);
        let (from, to) = (0xa0 + self.rng.below(0x600), 0x800 + self.rng.below(0x700));
        let count = if long {
            0x1000 + self.rng.below(0x400)
        } else {
            1 + self.rng.below(40)
        };
        let to = if long { self.rng.below(0x300) } else { to };
        let (from, to) = (self.data(layout::DATA + from), self.data(layout::DATA + to));
        for (opcode, value) in [(0xbe, from), (0xbf, to), (0xb9, count)] {
            self.op(true, &[opcode]); // mov esi / edi / ecx
            self.put32(value);
        }
        let backward = !long && self.rng.chance(20);
        if backward {
            self.put(&[0xfd]); // std
        }
        self.size_prefixes(wide, address32);
        if prefix != 0 {
            self.put(&[prefix]);
        }
        self.put(&[op]);
        if backward {
            self.put(&[0xfc]); // cld
        }
        if matches!(op, 0xa6 | 0xae | 0xaf) {
            self.flags(ALL, 0);
        }
    }

    fn stack(&mut self) {
        let (a, b, wide) = (self.reg(), self.reg(), self.size());
        match self.rng.below(7) {
            0 | 1 => {
                self.op(wide, &[0x50 | a]); // push; pop
                self.op(wide, &[0x58 | b]);
            }
            2 => {
                self.op(wide, &[0x60]); // pusha; popa
                self.op(wide, &[0x61]);
            }
            3 => {
                self.define(ALL);
                self.op(wide, &[0x9c]); // pushf; popf
                self.op(wide, &[0x9d]);
            }
            4 => {
                // A 16-bit frame pointer holds only a 16-bit stack pointer.
                let wide = wide || self.wide_stack;
                let locals = self.rng.below(64);
                let level = self.rng.pick(&[0u8, 0, 0, 1]);
                self.op(wide, &[0xc8]); // enter; leave
                self.put_sized(false, locals);
                self.put(&[level]);
                self.op(wide, &[0xc9]);
            }
            5 => {
                let value = self.rng.u32();
                self.op(wide, &[0x68]); // push imm
                self.put_sized(wide, value);
                self.op(wide, &[0x58 | a]);
            }
            _ => {
                let place = self.place();
                self.op(wide, &[0x50 | a]); // push; pop [memory]
                self.memory(wide, &[0x8f], 0, place);
            }
        }
    }

    fn vector(&mut self) {
        let (a, b) = (self.rng.below(8) as u8, self.rng.below(8) as u8);
        let (prefixes, opcode) = self.rng.pick(&XMM);
        match self.rng.below(8) {
            0 | 1 => {
                self.put(prefixes);
                self.put(opcode);
                self.put(&[0xc0 | a << 3 | b]);
            }
            2 => {
                // A displacement that keeps the operand aligned.
                let at = layout::DATA + self.rng.below(0x80) * 16;
                self.prefixed_memory(prefixes, false, opcode, a, Place::at(at));
            }
            3 => {
                let place = self.place();
                let opcode = self.rng.pick(&[0x6fu8, 0x7f]); // movdqu
                self.prefixed_memory(&[0xf3], false, &[0x0f, opcode], a, place);
            }
            4 => {
                let place = self.place();
                let op = self.rng.pick(&MMX);
                self.prefixed_memory(&[], false, &[0x0f, op], a, place);
                self.put(&[0x0f, 0xef, 0xc0 | b << 3 | a]); // pxor
                self.put(&[0x0f, 0x77]); // emms
            }
            5 => {
                let (load, store) = (self.place(), self.rng.below(64));
                let op = self.rng.below(8) as u8;
                self.prefixed_memory(&[], false, &[0xdd], 0, load); // fld qword
                self.prefixed_memory(&[], false, &[0xdc], op, load); // fadd, fmul, fcom ...
                let keep = Place::at(layout::DATA + store * 8);
                let way = self
                    .rng
                    .pick(&[(0xddu8, 3u8), (0xdb, 3), (0xdf, 7), (0xdb, 7)]);
                self.put(&[0xdb, 0xe2]); // fnclex
                self.prefixed_memory(&[], false, &[way.0], way.1, keep); // fstp, fistp
            }
            6 => {
                self.put(&[0x0f, 0x2e, 0xc0 | a << 3 | b]); // ucomiss
                self.flags(ALL, 0);
            }
            _ => {
                let r = self.reg();
                self.put(&[0x66, 0x0f, 0x7e, 0xc0 | a << 3 | r]); // movd r, xmm
            }
        }
    }

    /// Loads a segment register and reads or writes through it.
    fn segment(&mut self) {
        let a = self.reg();
        let offset = self.rng.below(0x3f0) * 4;
        let (selector, base) = self.rng.pick(&[
            (layout::SEL_DATA32, 0),
            (layout::SEL_BASED, 0x0012_3450),
            (layout::SEL_LIMITED, layout::DATA),
        ]);
        let wide = self.size();
        self.op(wide, &[0x6a, selector as u8]); // push selector; pop gs
        self.op(wide, &[0x0f, 0xa9]);
        let opcode = self.rng.pick(&[0x8bu8, 0x89, 0x01]);
        self.put(&[0x65]);
        self.size_prefixes(true, true);
        self.put(&[opcode, a << 3 | 5]);
        self.put32((layout::DATA + offset).wrapping_sub(base));
        if opcode == 1 {
            self.flags(ALL, 0);
        }
        if self.rng.chance(40) {
            let pair = self.rng.pick(&[[0x06, 0x07], [0x1e, 0x1f], [0x1e, 0x07]]);
            for byte in pair {
                self.op(wide, &[byte]); // push es or ds; pop es or ds
            }
        }
    }

    fn divide(&mut self) {
        let wide = self.width == Width::Code32 || self.rng.chance(50);
        self.op(wide, &[0x83, 0xc9, 1]); // or ecx, 1
        self.op(wide, &[0x31, 0xd2]); // xor edx, edx
        self.op(wide, &[0xf7, 0xf1]); // div ecx
        self.flags(0, ALL);
    }
}
