//! Long random programs, in 32- and 16-bit code: blocks of integer, string, x87, MMX and SSE
//! instructions, bounded loops, calls (direct, indirect, nested, recursive, with changed return
//! addresses), jump tables, data-dependent branches, and code that modifies itself near and far;
//! with checkpoints that log all registers and flags to memory and sum them up.
//!
//! A program never uses an undefined flag: before one could be used or logged, an instruction
//! that defines all flags is inserted. It never faults and always ends. Memory operands lie in
//! the data pages below [`COUNTERS`]; loop counters, tables and the log lie above.

mod flow;
mod instructions;
mod writer;

use crate::case::{Case, Privilege, Regs, Width, seg};
use crate::generate::state;
use crate::layout;
use crate::rng::Rng;
use writer::{ALL, Place, Writer};

/// Loop counters, four bytes each.
const COUNTERS: u32 = layout::DATA + 0x1000;
/// Number of loop counters.
const MOST_COUNTERS: u32 = 40;
/// Table of function addresses for indirect calls.
const TABLE: u32 = layout::DATA + 0x10a0;
/// Depth that the recursive function has still to go.
const DEPTH: u32 = layout::DATA + 0x10e0;
/// Sum of all that checkpoints logged.
const SUM: u32 = layout::DATA + 0x10e4;
/// Number of checkpoints passed.
const PASSED: u32 = layout::DATA + 0x10e8;
/// The log's write pointer, an offset in DS.
const LOG_POINTER: u32 = layout::DATA + 0x10f0;
/// The checkpoint log: 36 bytes each (EDI ESI EBP ESP EBX EDX ECX EAX, EFLAGS), as a ring.
const LOG: u32 = layout::DATA + 0x1100;
/// Bytes of the log.
const LOG_BYTES: u32 = 36 * 100;
/// Longest main part of a program, in bytes; functions and checkpoints come on top.
pub const MOST_BYTES: usize = 4500;
/// All code ends before the end of the code pages.
const ROOM: usize = 2 * layout::PAGE as usize - 64;
/// Functions in a program.
const FUNCTIONS: usize = 4;

/// Checkpoints that a program passed, by its final memory.
#[must_use]
pub fn checkpoints(memory: &[u8]) -> u32 {
    layout::offset_of(PASSED)
        .and_then(|at| memory.get(at..at + 4))
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// Registers for a program of this width: data and stack segments with and without a base.
fn registers(rng: &mut Rng, width: Width) -> Regs {
    let mut regs = state::regs(rng, width);
    let flat = layout::SEL_DATA32;
    match width {
        Width::Code32 => {
            let data = if rng.chance(75) {
                flat
            } else {
                layout::SEL_BASED
            };
            regs.seg = [data, layout::SEL_CODE32, flat, data, flat, flat];
            if rng.chance(15) {
                regs.seg[seg::CS] = layout::SEL_CODE32_BASED;
            }
        }
        Width::Code16 => {
            let data = layout::SEL_DATA16;
            let stack = if rng.chance(80) {
                layout::SEL_STACK16
            } else {
                flat
            };
            regs.seg = [data, layout::SEL_CODE16, stack, data, flat, flat];
        }
    }
    regs.gpr[4] = (layout::STACK + 0x800).wrapping_sub(state::base(&regs, seg::SS));
    regs.eflags &= 0x8d7 | 0x202;
    regs
}

/// A random program of about `bytes` bytes (200 to [`MOST_BYTES`]) whose main part runs `rounds`
/// times.
#[must_use]
pub fn make(seed: u64, bytes: usize, rounds: u32) -> Case {
    let mut rng = Rng::new(seed);
    let width = if rng.chance(60) {
        Width::Code32
    } else {
        Width::Code16
    };
    let mut vector = state::vector(&mut rng);
    // No unmasked exceptions, and none pending; random rounding, flushing and precision.
    vector.mxcsr = vector.mxcsr & 0xe040 | 0x1f80;
    (vector.fcw, vector.fsw) = (vector.fcw & 0xf00 | 0x7f, vector.fsw & 0x3800);
    let mut regs = registers(&mut rng, width);
    let mut w = Writer::new(&mut rng, width, &regs);
    let checkpoint = w.here();
    w.checkpoint_function();
    w.checkpoint = checkpoint;
    w.skip = w.here();
    w.skip_function();
    w.recursive = w.here();
    w.recursive_function();
    for n in 0..FUNCTIONS {
        let at = w.here();
        w.in_function = true;
        w.loops = 1; // shorter loops in functions
        w.block((bytes.clamp(200, MOST_BYTES) / 10).max(100));
        w.define(ALL);
        w.put(&[0xc3]);
        w.functions.push(at);
        debug_assert_eq!(w.functions.len(), n + 1);
    }
    let start = w.here();
    (w.in_function, w.loops, w.undefined) = (false, 0, 0);
    w.rounds(bytes.clamp(200, MOST_BYTES), rounds);
    w.call_checkpoint();
    let (code, mut marks, functions) = (w.code, w.marks, w.functions);
    regs.eip = start;
    marks.push(code.len());
    marks.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for to in marks {
        if to > from {
            pieces.push(code[from..to].to_vec());
            from = to;
        }
    }
    let entry = (width.bits() / 8) as usize;
    let table = functions
        .iter()
        .flat_map(|f| f.to_le_bytes()[..entry].to_vec())
        .collect();
    let log = LOG.wrapping_sub(state::base(&regs, seg::DS));
    Case {
        title: format!("program {seed:x}, {bytes} bytes, {rounds} rounds"),
        width,
        pieces,
        code_at: layout::CODE,
        regs,
        vector,
        fill: seed | 1,
        patches: vec![
            (TABLE, table),
            (LOG_POINTER, log.to_le_bytes().to_vec()),
            (SUM, vec![0; 8]),
            (PASSED, vec![0; 4]),
        ],
        undefined: 0,
        undefined_at_fault: 0,
        ignored: Vec::new(),
        privilege: Privilege::Any,
    }
}

impl Writer<'_> {
    /// Logs all registers and flags. Everything is 32 bits wide in either width.
    fn checkpoint_function(&mut self) {
        self.op(true, &[0x9c]); // pushfd
        self.op(true, &[0x60]); // pushad
        self.op(true, &[0x89, 0xe6]); // mov esi, esp
        self.memory(true, &[0x8b], 7, Place::at(LOG_POINTER)); // mov edi, [LOG_POINTER]
        self.op(true, &[0xb9]); // mov ecx, 9
        self.put32(9);
        self.put(&[0xf3]);
        self.size_prefixes(true, true);
        self.put(&[0x36, 0xa5]); // rep movs dword es:[edi], ss:[esi]
        let log = self.data(LOG);
        self.op(true, &[0x89, 0xf8]); // mov eax, edi
        self.op(true, &[0x2d]); // sub eax, LOG
        self.put32(log);
        self.op(true, &[0x3d]); // cmp eax, LOG_BYTES
        self.put32(LOG_BYTES);
        self.put(&[0x72, 0]); // jb over
        let over = self.code.len();
        self.op(true, &[0xbf]); // mov edi, LOG
        self.put32(log);
        self.code[over - 1] = (self.code.len() - over) as u8;
        self.memory(true, &[0x89], 7, Place::at(LOG_POINTER));
        self.memory(true, &[0xff], 0, Place::at(PASSED)); // inc dword [PASSED]
        self.op(true, &[0xb9]); // mov ecx, 9
        self.put32(9);
        self.op(true, &[0x31, 0xc0]); // xor eax, eax
        let top = self.code.len();
        self.size_prefixes(true, true);
        self.put(&[0x03, 0x44, 0x8c, 0xfc]); // add eax, [esp + ecx*4 - 4]
        self.op(true, &[0xc1, 0xc0, 5]); // rol eax, 5
        self.op(true, &[0x49]); // dec ecx
        let distance = top as i64 - (self.code.len() as i64 + 2);
        self.put(&[0x75, distance as u8]); // jnz top
        self.memory(true, &[0x01], 0, Place::at(SUM)); // add [SUM], eax
        self.op(true, &[0x61]); // popad
        self.op(true, &[0x9d]); // popfd
        self.put(&[0xc3]);
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
        let cases: Vec<Case> = (1..300)
            .map(|n| make(n * 77, 200 + 15 * n as usize, 1 + n as u32 % 4))
            .collect();
        let mut narrow = 0;
        for (case, o) in cases.iter().zip(native.run_batch(&cases)) {
            assert_eq!(
                o.stop,
                Stop::End,
                "{}: {} at {:08x}",
                case.title,
                describe(&o.stop),
                o.regs.eip
            );
            assert!(checkpoints(&o.memory) > 0, "{}", case.title);
            narrow += u32::from(case.width == Width::Code16);
        }
        assert!(narrow > 50, "{narrow}");
    }
}
