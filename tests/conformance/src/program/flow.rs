//! Control flow of programs, and code that modifies itself.

use super::writer::{AF, ALL, CF, Patch, Place, Writer};
use super::{COUNTERS, DEPTH, MOST_COUNTERS, ROOM, TABLE};
use crate::layout;

/// Deepest nesting of loops.
const MOST_LOOPS: u32 = 3;
/// Deepest recursion.
const MOST_DEPTH: u32 = 40;

impl Writer<'_> {
    /// A block; `budget` bytes at most, roughly.
    pub(super) fn block(&mut self, budget: usize) {
        let limit = (self.code.len() + budget).min(ROOM);
        while self.code.len() + 100 < limit {
            let left = limit - self.code.len();
            match self.rng.below(40) {
                0..3 => self.forward_branch(),
                3 if self.loops < MOST_LOOPS && self.counters < MOST_COUNTERS && left > 300 => {
                    self.bounded_loop(left / 3)
                }
                4..7 => self.call(),
                7 if left > 250 => self.jump_table(),
                8 => self.indirect_jump(),
                9 if !self.in_function => self.recursion(),
                10 => self.call_checkpoint(),
                _ => self.instruction(),
            }
        }
    }

    /// The main part, `rounds` times.
    pub(super) fn rounds(&mut self, budget: usize, rounds: u32) {
        if rounds <= 1 {
            self.block(budget);
            return;
        }
        self.repeat(rounds, |w| w.block(budget));
    }

    pub(super) fn call_checkpoint(&mut self) {
        self.define(ALL);
        let target = self.checkpoint;
        self.near(&[0xe8], target);
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

    fn bounded_loop(&mut self, budget: usize) {
        self.loops += 1;
        let times = 2 + self.rng.below(if self.loops == 1 { 8 } else { 2 });
        self.repeat(times, |w| w.block(budget.max(150)));
        self.loops -= 1;
    }

    fn repeat(&mut self, times: u32, body: impl FnOnce(&mut Self)) {
        let counter = Place::at(COUNTERS + 4 * self.counters);
        self.counters += 1;
        self.memory(true, &[0xc7], 0, counter); // mov dword [counter], times
        self.put32(times);
        self.define(ALL);
        let top = self.here();
        body(self);
        self.define(ALL); // the next round begins with the flags of this one
        self.memory(true, &[0xff], 1, counter); // dec dword [counter]
        self.near(&[0x0f, 0x85], top);
        self.flags(ALL & !CF, 0);
    }

    fn call(&mut self) {
        if self.functions.is_empty() {
            return;
        }
        self.define(ALL);
        // Functions call each other downwards only, and seldom: each call multiplies the work.
        if self.in_function && (self.loops > 1 || self.rng.chance(50)) {
            return;
        }
        match self.rng.below(10) {
            0..4 if !self.in_function => {
                let r = self.reg();
                self.op(true, &[0x83, 0xe0 | r, 3]); // and r, 3
                self.op(true, &[0x39, 0xc0 | r << 3]); // cmp eax, r
                let wide = self.wide_code();
                self.indexed(0xff, 2, r, self.data(TABLE), wide);
            }
            4 | 5 => {
                // The callee returns beyond the next byte.
                let target = self.skip;
                self.near(&[0xe8], target);
                self.put(&[0x40]); // inc eax, skipped
            }
            6 => {
                // call next; pop r: a return address that no return takes.
                let r = self.reg();
                let bytes = if self.wide_code() { 5 } else { 3 };
                let next = self.here() + bytes;
                self.near(&[0xe8], next);
                self.put(&[0x58 | r]);
                self.undefined = 0;
                return;
            }
            _ => {
                let n = self.rng.below(self.functions.len() as u32) as usize;
                let target = self.functions[n];
                self.near(&[0xe8], target);
            }
        }
        self.undefined = 0; // functions return with all flags defined
    }

    /// An instruction on word or dword `[table + r * size]`, with 32-bit addressing.
    fn indexed(&mut self, opcode: u8, field: u8, r: u8, table: u32, wide: bool) {
        self.size_prefixes(wide, true);
        let scale = if wide { 0x80 } else { 0x40 };
        self.put(&[opcode, 0x04 | field << 3, scale | r << 3 | 5]);
        self.put32(table);
    }

    /// A jump by a table that lies in the code, and its four targets.
    fn jump_table(&mut self) {
        let (r, wide) = (self.reg(), self.wide_code());
        self.op(true, &[0x83, 0xe0 | r, 3]); // and r, 3
        self.op(true, &[0x39, 0xc0 | r << 3]); // cmp eax, r
        self.undefined = 0;
        self.put(&[0x2e]); // cs
        self.indexed(0xff, 4, r, 0, wide);
        let entry = if wide { 4 } else { 2 };
        let table = self.code.len();
        let address = self.here();
        self.code[table - 4..table].copy_from_slice(&address.to_le_bytes());
        self.put(&vec![0; 4 * entry]);
        let mut ends = Vec::new();
        for n in 0..4 {
            let target = self.here().to_le_bytes();
            let at = table + n * entry;
            self.code[at..at + entry].copy_from_slice(&target[..entry]);
            for _ in 0..1 + self.rng.below(2) {
                self.instruction();
            }
            self.define(ALL);
            self.near(&[0xe9], 0);
            ends.push(self.code.len() - entry);
        }
        let end = self.here();
        for at in ends {
            self.set_near(at, end);
        }
        self.undefined = 0;
    }

    /// A jump by a register, or by a return to a pushed address.
    fn indirect_jump(&mut self) {
        let (r, wide) = (self.reg(), self.wide_code());
        let by_return = self.rng.chance(50);
        self.put(&[0xb8 | r]); // mov r, target
        let at = self.code.len();
        self.put_sized(wide, 0);
        if by_return {
            self.put(&[0x50 | r, 0xc3]);
        } else {
            self.put(&[0xff, 0xe0 | r]);
        }
        for _ in 0..self.rng.below(5) {
            self.put(&[0xcc]);
        }
        let target = self.here().to_le_bytes();
        let bytes = if wide { 4 } else { 2 };
        self.code[at..at + bytes].copy_from_slice(&target[..bytes]);
    }

    fn recursion(&mut self) {
        let depth = 1 + self.rng.below(MOST_DEPTH);
        self.memory(true, &[0xc7], 0, Place::at(DEPTH)); // mov dword [DEPTH], depth
        self.put32(depth);
        let target = self.recursive;
        self.near(&[0xe8], target);
        self.undefined = 0;
    }

    /// dec [DEPTH]; jz out; call self; out: add eax, ebx; ret
    pub(super) fn recursive_function(&mut self) {
        let own = self.here();
        self.memory(true, &[0xff], 1, Place::at(DEPTH));
        let bytes = if self.wide_code() { 5 } else { 3 };
        self.put(&[0x74, bytes]);
        self.near(&[0xe8], own);
        self.put(&[0x01, 0xd8, 0xc3]);
    }

    /// Returns one byte beyond the return address.
    pub(super) fn skip_function(&mut self) {
        let wide = self.wide_code();
        self.size_prefixes(wide, true);
        self.put(&[0xff, 0x04, 0x24, 0xc3]); // inc [esp]; ret
    }

    /// Writes into the code: the instruction that follows at once, one that follows later, one of
    /// a function; one byte or four.
    pub(super) fn modify_code(&mut self) {
        match self.rng.below(6) {
            0 | 1 => self.modify_next(),
            2 => self.patchable(),
            _ if self.patches.is_empty() => self.patchable(),
            3 => {
                let n = self.rng.below(self.patches.len() as u32) as usize;
                let Patch { at, toggle } = self.patches[n];
                if toggle == 0 {
                    let low = self.rng.below(4) as u8;
                    self.code_memory(self.wide_code(), &[0x88], low, at); // mov [at], low8
                } else {
                    self.code_memory(self.wide_code(), &[0x80], 6, at); // xor byte [at], toggle
                    self.put(&[toggle]);
                    self.flags(ALL & !AF, AF);
                }
            }
            4 if self.wide_code() && self.flat => {
                // By a string instruction.
                let found = self.patches.iter().rposition(|p| p.toggle == 0);
                if let Some(n) = found {
                    let at = self.patches[n].at;
                    self.put(&[0xbf]); // mov edi, at
                    self.put32(at);
                    let one = self.rng.chance(50);
                    self.put(if one {
                        &[0xaa][..] // stosb
                    } else {
                        &[0xb9, 1, 0, 0, 0, 0xf3, 0xaa][..] // mov ecx, 1; rep stosb
                    });
                }
            }
            _ => self.modify_data_in_code(),
        }
    }

    /// mov [target], low8; NOPs; add r, imm8: the immediate is overwritten.
    fn modify_next(&mut self) {
        let (r, low) = (self.reg(), self.rng.below(4) as u8);
        let far = self.rng.below(3) as usize;
        self.code_memory(self.wide_code(), &[0x88], low, 0);
        let displacement = self.code.len() - 4;
        self.put(&[0x90, 0x90, 0x90][..far]);
        self.put(&[0x83, 0xc0 | r, 0x11]);
        let target = (self.linear() - 1).to_le_bytes();
        self.code[displacement..displacement + 4].copy_from_slice(&target);
        self.flags(ALL, 0);
    }

    /// An instruction that others, before or after it, may change.
    fn patchable(&mut self) {
        let r = self.reg();
        let wide = self.size();
        if self.rng.chance(50) {
            self.op(wide, &[0x83, 0xc0 | r, 0x11]); // add r, imm8
            let at = self.linear() - 1;
            self.patches.push(Patch { at, toggle: 0 });
            self.flags(ALL, 0);
        } else {
            self.op(wide, &[0x40 | r]); // inc r, or dec r
            let at = self.linear() - 1;
            self.patches.push(Patch { at, toggle: 8 });
            self.flags(ALL & !CF, 0);
        }
    }

    /// Counts in a word that lies between instructions.
    fn modify_data_in_code(&mut self) {
        let (r, low) = (self.reg(), self.linear() + 2);
        debug_assert!(low < layout::CODE + 2 * layout::PAGE);
        self.put(&[0xeb, 4, 0, 0, 0, 0]); // jmp over; dd 0
        self.code_memory(true, &[0x01], r, low); // add [word], r
        self.flags(ALL, 0);
    }
}
