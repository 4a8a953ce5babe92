//! Long random programs: blocks of arithmetic, memory, string and flag instructions, bounded
//! loops, calls and indirect calls, data-dependent forward branches, and code that modifies
//! itself; with checkpoints that log all registers and flags to memory.
//!
//! A program never uses an undefined flag: before one could be used or logged, an instruction
//! that defines all flags is inserted. It never faults and always ends. Memory operands lie in
//! the data pages below [`LOG`]; loop counters, the log's pointer and the call table lie between.

use crate::case::{Case, Privilege, Regs, Width};
use crate::generate::state;
use crate::layout;
use crate::rng::Rng;

/// Loop counters, four bytes each.
const COUNTERS: u32 = layout::DATA + 0x1000;
/// Table of function addresses for indirect calls.
const TABLE: u32 = layout::DATA + 0x1080;
/// The log's write pointer.
const LOG_POINTER: u32 = layout::DATA + 0x10f0;
/// The checkpoint log: 36 bytes each (EDI ESI EBP ESP EBX EDX ECX EAX, EFLAGS), as a ring.
const LOG: u32 = layout::DATA + 0x1100;
/// Longest main part of a program, in bytes; functions and checkpoints come on top.
pub const MOST_BYTES: usize = 4500;
/// Functions in a program.
const FUNCTIONS: usize = 4;
/// Deepest nesting of loops.
const MOST_LOOPS: u32 = 3;

const CF: u32 = 1;
const PF: u32 = 4;
const AF: u32 = 0x10;
const ZF: u32 = 0x40;
const SF: u32 = 0x80;
const OF: u32 = 0x800;
const ALL: u32 = CF | PF | AF | ZF | SF | OF;

/// Registers that programs compute with (not ESP).
const WORK: [u8; 7] = [0, 1, 2, 3, 5, 6, 7];

struct Writer<'a> {
    rng: &'a mut Rng,
    code: Vec<u8>,
    undefined: u32,
    loops: u32,
    counters: u32,
    checkpoint: u32,
    /// Positions of a four-byte address of a function, and which.
    calls: Vec<(usize, usize)>,
    /// Where instructions begin and end that can be left out without harm.
    marks: Vec<usize>,
}

impl Writer<'_> {
    fn here(&self) -> u32 {
        layout::CODE + self.code.len() as u32
    }
    fn put(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }
    fn put32(&mut self, v: u32) {
        self.put(&v.to_le_bytes());
    }
    fn reg(&mut self) -> u8 {
        self.rng.pick(&WORK)
    }
    /// Makes all flags of `needed` defined.
    fn define(&mut self, needed: u32) {
        if self.undefined & needed != 0 {
            let (a, b) = (self.reg(), self.reg());
            self.put(&[0x39, 0xc0 | a << 3 | b]); // cmp b, a
            self.undefined = 0;
        }
    }
    fn flags(&mut self, defined: u32, undefined: u32) {
        self.undefined = self.undefined & !defined | undefined;
    }

    /// Restricts register `r` to an offset in the first data page, aligned to four or not, and
    /// returns it. The AND leaves AF undefined.
    fn pointer(&mut self) -> u8 {
        let r = self.reg();
        let mask: u32 = if self.rng.chance(85) { 0xfec } else { 0xfe9 };
        self.put(&[0x81, 0xe0 | r]); // and r, mask
        self.put32(mask);
        self.flags(ALL & !AF, AF);
        r
    }

    /// One instruction without control flow.
    fn instruction(&mut self) {
        self.marks.push(self.code.len());
        self.any_instruction();
        self.marks.push(self.code.len());
    }

    fn any_instruction(&mut self) {
        let (a, b) = (self.reg(), self.reg());
        let modrm = 0xc0 | a << 3 | b;
        let imm = self.rng.u32();
        let op = self.rng.below(8) as u8;
        match self.rng.below(30) {
            0..6 => self.arithmetic(op, |op| op << 3 | 1, &[modrm]),
            6 => {
                let pair = self.rng.below(0x40) as u8;
                self.arithmetic(op, |op| op << 3, &[0xc0 | pair]);
            }
            7 => {
                let tail = [&[0xc0 | op << 3 | b][..], &imm.to_le_bytes()].concat();
                self.arithmetic(op, |_| 0x81, &tail);
            }
            8..11 => {
                let p = self.pointer();
                let address = (layout::DATA + self.rng.below(4) * 4).to_le_bytes();
                let way = self.rng.below(2) as u8 * 2;
                let tail = [&[0x80 | a << 3 | p][..], &address].concat();
                self.arithmetic(op, |op| op << 3 | 1 | way, &tail);
            }
            11..13 => {
                let p = self.pointer();
                let load = self.rng.pick(&[0x8bu8, 0x89, 0x8a, 0x88]);
                self.put(&[load, 0x80 | a << 3 | p]); // mov r, [p + DATA] or back
                self.put32(layout::DATA);
            }
            13 => {
                let p = self.pointer();
                let wide = self.rng.pick(&[0xb6u8, 0xb7, 0xbe, 0xbf]);
                self.put(&[0x0f, wide, 0x80 | a << 3 | p]); // movzx/movsx
                self.put32(layout::DATA);
            }
            14 => self.shift(b),
            15 => {
                self.put(&[0x0f, 0xaf, modrm]); // imul
                self.flags(CF | OF, PF | AF | ZF | SF);
            }
            16 => {
                self.put(&[0xf7, 0xe0 | b]); // mul
                self.flags(CF | OF, PF | AF | ZF | SF);
            }
            17 => {
                self.put(&[0x40 | a]); // inc
                self.flags(ALL & !CF, 0);
            }
            18 => {
                self.put(&[0x48 | a]); // dec
                self.flags(ALL & !CF, 0);
            }
            19 => {
                let cc = self.condition();
                self.put(&[0x0f, 0x90 | cc, 0xc0 | b & 3]); // setcc
            }
            20 => {
                let cc = self.condition();
                self.put(&[0x0f, 0x40 | cc, modrm]); // cmovcc
            }
            21 => {
                let sib = (self.rng.below(4) as u8 * 0x40) | (b << 3) | self.rng.pick(&WORK);
                self.put(&[0x8d, 0x84 | (a << 3), sib]);
                self.put32(imm); // lea a, [base + index*scale + imm]
            }
            22 => self.put(&[0x0f, 0xc8 | a]), // bswap
            23 => {
                self.put(&[0x50 | a, 0x58 | b]); // push; pop
            }
            24 => {
                self.put(&[0x0f, 0xba, 0xe0 | (op << 3 & 0x18) | b, imm as u8]); // bt/bts/btr/btc
                self.flags(CF, ALL & !CF & !ZF);
            }
            25 => self.string(),
            26 => {
                self.put(&[0x0f, 0xb1, 0xc0 | a << 3 | b]); // cmpxchg
                self.flags(ALL, 0);
            }
            27 => {
                self.put(&[0x66, 0x01, modrm]); // add r16, r16
                self.flags(ALL, 0);
            }
            28 => {
                let op = self.rng.pick(&[0xd0u8, 0xd8]);
                self.put(&[0xf7, op | b]); // not; neg
                if op == 0xd8 {
                    self.flags(ALL, 0);
                }
            }
            _ => self.modify_code(),
        }
    }

    /// One of the eight two-operand operations: ADD OR ADC SBB AND SUB XOR CMP.
    fn arithmetic(&mut self, op: u8, opcode: impl Fn(u8) -> u8, tail: &[u8]) {
        // An immediate form carries the operation in its ModRM byte.
        let op = if opcode(op) == 0x81 {
            tail[0] >> 3 & 7
        } else {
            op
        };
        if op == 2 || op == 3 {
            self.define(CF);
        }
        self.put(&[opcode(op)]);
        self.put(tail);
        if matches!(op, 1 | 4 | 6) {
            self.flags(ALL & !AF, AF)
        } else {
            self.flags(ALL, 0)
        }
    }

    fn shift(&mut self, r: u8) {
        let op = self.rng.pick(&[0u8, 1, 2, 3, 4, 5, 7]);
        if op < 4 {
            self.define(CF);
        }
        if self.rng.chance(30) {
            self.put(&[0xd3, 0xc0 | op << 3 | r]); // by CL: with a count of 0 nothing changes
            self.undefined |= OF | if op >= 4 { AF } else { 0 };
        } else {
            let count = 1 + self.rng.below(31) as u8;
            self.put(&[0xc1, 0xc0 | op << 3 | r, count]);
            let of = if count == 1 { 0 } else { OF };
            if op < 4 {
                self.flags(CF, of)
            } else {
                self.flags(ALL & !AF & !OF, AF | of)
            }
        }
    }

    fn condition(&mut self) -> u8 {
        let cc = self.rng.below(16) as u8;
        self.define([OF, CF, ZF, CF | ZF, SF, PF, SF | OF, SF | OF | ZF][usize::from(cc >> 1)]);
        cc
    }

    /// A repeated string instruction within the first data page.
    fn string(&mut self) {
        let (from, to) = (self.rng.below(0x700), 0x800 + self.rng.below(0x700));
        self.put(&[0xbe]); // mov esi, from
        self.put32(layout::DATA + from);
        self.put(&[0xbf]); // mov edi, to
        self.put32(layout::DATA + to);
        self.put(&[0xb9]); // mov ecx, count
        let count = 1 + self.rng.below(40);
        self.put32(count);
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
        ]);
        self.put(&[prefix, op]);
        if matches!(op, 0xa6 | 0xae | 0xaf) {
            self.flags(ALL, 0);
        }
    }

    /// Writes a random byte or register over the immediate of an instruction that follows.
    fn modify_code(&mut self) {
        let (r, low) = (self.reg(), self.rng.below(4) as u8);
        let at = self.here();
        let far = self.rng.below(3);
        // mov [target], low8; (far NOPs); add r, imm8: the immediate is its third byte.
        self.put(&[0x88, 0x05 | low << 3]);
        self.put32(at + 6 + far + 2);
        for _ in 0..far {
            self.put(&[0x90]);
        }
        self.put(&[0x83, 0xc0 | r, 0x11]);
        self.flags(ALL, 0);
    }

    fn checkpoint(&mut self) {
        self.define(ALL);
        let target = self.checkpoint;
        self.put(&[0xe8]);
        let next = self.here() + 4;
        self.put32(target.wrapping_sub(next));
    }

    /// A block; `budget` bytes at most, roughly. Calls only from the main program.
    fn block(&mut self, budget: usize, main: bool) {
        let limit = self.code.len() + budget;
        while self.code.len() + 60 < limit {
            match self.rng.below(30) {
                0 | 1 => self.forward_branch(),
                2 if self.loops < MOST_LOOPS && self.counters < 32 => {
                    self.bounded_loop(budget / 3, main)
                }
                3 | 4 if main => self.call(),
                5 => self.checkpoint(),
                _ => self.instruction(),
            }
        }
    }

    fn forward_branch(&mut self) {
        let cc = self.condition();
        self.define(ALL); // both paths join with the same knowledge
        self.put(&[0x70 | cc, 0]);
        let from = self.code.len();
        for _ in 0..1 + self.rng.below(3) {
            self.instruction();
        }
        self.define(ALL);
        let distance = self.code.len() - from;
        if let Ok(distance @ 0..=127) = i8::try_from(distance) {
            self.code[from - 1] = distance as u8;
        }
    }

    fn bounded_loop(&mut self, budget: usize, main: bool) {
        let counter = COUNTERS + 4 * self.counters;
        self.counters += 1;
        self.loops += 1;
        self.put(&[0xc7, 0x05]); // mov dword [counter], n
        self.put32(counter);
        let times = 2 + self.rng.below(if self.loops == 1 { 12 } else { 3 });
        self.put32(times);
        self.define(ALL);
        let top = self.here();
        self.block(budget.max(90), main);
        self.define(ALL); // the next round begins with the flags of this one
        self.put(&[0xff, 0x0d]); // dec dword [counter]
        self.put32(counter);
        self.put(&[0x0f, 0x85]); // jnz top
        let next = self.here() + 4;
        self.put32(top.wrapping_sub(next));
        self.flags(ALL & !CF, 0);
        self.loops -= 1;
    }

    fn call(&mut self) {
        self.define(ALL);
        if self.rng.chance(50) {
            let r = self.reg();
            self.put(&[0x83, 0xe0 | r, 3]); // and r, 3
            self.put(&[0x39, 0xc0 | r << 3]); // cmp eax, r
            self.put(&[0xff, 0x14, 0x85 | r << 3]); // call [TABLE + r*4]
            self.put32(TABLE);
        } else {
            let f = self.rng.below(FUNCTIONS as u32) as usize;
            self.put(&[0xe8]);
            self.calls.push((self.code.len(), f));
            self.put32(0);
        }
        self.undefined = 0; // functions return with all flags defined
    }
}

/// A random program of about `bytes` bytes (200 to [`MOST_BYTES`]).
#[must_use]
pub fn make(seed: u64, bytes: usize) -> Case {
    let mut rng = Rng::new(seed);
    let vector = state::vector(&mut rng);
    let mut regs: Regs = state::regs(&mut rng, Width::Code32);
    let d = layout::SEL_DATA32;
    regs.seg = [d, layout::SEL_CODE32, d, d, d, d];
    regs.gpr[4] = layout::STACK + 0x800;
    regs.eflags &= 0x8d7 | 0x202;
    let bytes = bytes.clamp(200, MOST_BYTES);
    let mut w = Writer {
        rng: &mut rng,
        code: Vec::new(),
        undefined: 0,
        loops: 0,
        counters: 0,
        checkpoint: 0,
        calls: Vec::new(),
        marks: Vec::new(),
    };
    w.checkpoint = w.here();
    w.put(&[0x9c, 0x60]); // pushf; pusha
    w.put(&[0x89, 0xe6, 0x8b, 0x3d]); // mov esi, esp; mov edi, [LOG_POINTER]
    w.put32(LOG_POINTER);
    w.put(&[0xb9, 9, 0, 0, 0, 0xf3, 0xa5]); // mov ecx, 9; rep movsd
    w.put(&[0x89, 0xf8, 0x2d]); // mov eax, edi; sub eax, LOG
    w.put32(LOG);
    w.put(&[0x3d]); // cmp eax, 36 * 100
    w.put32(3600);
    w.put(&[0x72, 5, 0xbf]); // jb over; mov edi, LOG
    w.put32(LOG);
    w.put(&[0x89, 0x3d]); // mov [LOG_POINTER], edi
    w.put32(LOG_POINTER);
    w.put(&[0x61, 0x9d, 0xc3]); // popa; popf; ret
    let mut functions = [0; FUNCTIONS];
    w.loops = 1; // shorter loops in functions
    for f in &mut functions {
        *f = w.here();
        w.block((bytes / 10).max(100), false);
        w.define(ALL);
        w.put(&[0xc3]);
    }
    let start = w.here();
    w.loops = 0;
    w.undefined = 0;
    w.block(bytes, true);
    w.checkpoint();
    let (mut code, calls, mut marks) = (w.code, w.calls, w.marks);
    for (at, f) in calls {
        let next = layout::CODE + at as u32 + 4;
        code[at..at + 4].copy_from_slice(&functions[f].wrapping_sub(next).to_le_bytes());
    }
    regs.eip = start;
    marks.push(code.len());
    let mut pieces = Vec::new();
    let mut from = 0;
    for to in marks {
        if to > from {
            pieces.push(code[from..to].to_vec());
            from = to;
        }
    }
    let table = functions.iter().flat_map(|f| f.to_le_bytes()).collect();
    Case {
        title: format!("program {seed:x}"),
        width: Width::Code32,
        pieces,
        code_at: layout::CODE,
        regs,
        vector,
        fill: seed | 1,
        patches: vec![(TABLE, table), (LOG_POINTER, LOG.to_le_bytes().to_vec())],
        undefined: 0,
        undefined_at_fault: 0,
        ignored: Vec::new(),
        privilege: Privilege::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Stop;
    use crate::compare::describe;
    use crate::engine::Engine;
    use crate::native::Native;

    #[test]
    fn programs_end_on_the_host_and_log_checkpoints() {
        let mut native = Native::new().unwrap();
        let cases: Vec<Case> = (1..200)
            .map(|n| make(n * 77, 200 + 22 * n as usize))
            .collect();
        let mut logged = 0;
        for (case, o) in cases.iter().zip(native.run_batch(&cases)) {
            assert_eq!(
                o.stop,
                Stop::End,
                "{}: {} at {:08x}",
                case.title,
                describe(&o.stop),
                o.regs.eip
            );
            let at = layout::offset_of(LOG).unwrap();
            logged += u32::from(o.memory[at..at + 36] != case.memory()[at..at + 36]);
        }
        assert_eq!(logged, 199);
    }
}
