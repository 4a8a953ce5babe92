//! Encoding for programs: one text for both widths, with the prefixes that each needs.

use crate::case::{Regs, Width, seg};
use crate::generate::state;
use crate::layout;
use crate::rng::Rng;

pub(super) const CF: u32 = 1;
pub(super) const PF: u32 = 4;
pub(super) const AF: u32 = 0x10;
pub(super) const ZF: u32 = 0x40;
pub(super) const SF: u32 = 0x80;
pub(super) const OF: u32 = 0x800;
pub(super) const ALL: u32 = CF | PF | AF | ZF | SF | OF;

/// Registers that programs compute with (not ESP).
const WORK: [u8; 7] = [0, 1, 2, 3, 5, 6, 7];

/// A place in the data pages: a linear address, plus a register that holds a small offset.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub at: u32,
    pub plus: Option<u8>,
}

impl Place {
    pub(super) fn at(at: u32) -> Self {
        Self { at, plus: None }
    }
}

/// An instruction whose last byte other instructions may overwrite.
#[derive(Clone, Copy)]
pub(super) struct Patch {
    /// Linear address of the byte.
    pub at: u32,
    /// What it may be exchanged with, by XOR; 0: anything.
    pub toggle: u8,
}

pub(super) struct Writer<'a> {
    pub rng: &'a mut Rng,
    pub width: Width,
    pub code: Vec<u8>,
    /// Flags that are undefined here.
    pub undefined: u32,
    pub loops: u32,
    pub counters: u32,
    pub in_function: bool,
    pub checkpoint: u32,
    pub skip: u32,
    pub recursive: u32,
    /// Offsets in CS of the functions so far.
    pub functions: Vec<u32>,
    pub patches: Vec<Patch>,
    /// Where instructions begin and end that can be left out without harm.
    pub marks: Vec<usize>,
    data_base: u32,
    code_base: u32,
    /// DS and ES are flat.
    pub flat: bool,
    /// The stack pointer has 32 bits.
    pub wide_stack: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(rng: &'a mut Rng, width: Width, regs: &Regs) -> Self {
        Self {
            rng,
            width,
            code: Vec::new(),
            undefined: 0,
            loops: 0,
            counters: 0,
            in_function: false,
            checkpoint: 0,
            skip: 0,
            recursive: 0,
            functions: Vec::new(),
            patches: Vec::new(),
            marks: Vec::new(),
            data_base: state::base(regs, seg::DS),
            code_base: state::base(regs, seg::CS),
            wide_stack: layout::Descriptor::of(regs.seg[seg::SS]).is_some_and(|d| d.big),
            flat: regs.seg[seg::DS] == layout::SEL_DATA32,
        }
    }

    pub(super) fn wide_code(&self) -> bool {
        self.width == Width::Code32
    }
    /// Offset in CS of the next byte.
    pub(super) fn here(&self) -> u32 {
        self.linear().wrapping_sub(self.code_base)
    }
    /// Linear address of the next byte.
    pub(super) fn linear(&self) -> u32 {
        layout::CODE + self.code.len() as u32
    }
    /// Offset in DS of a linear address.
    pub(super) fn data(&self, at: u32) -> u32 {
        at.wrapping_sub(self.data_base)
    }
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }
    pub(super) fn put32(&mut self, v: u32) {
        self.put(&v.to_le_bytes());
    }
    /// Two or four bytes.
    pub(super) fn put_sized(&mut self, wide: bool, v: u32) {
        self.put(&v.to_le_bytes()[..if wide { 4 } else { 2 }]);
    }
    pub(super) fn reg(&mut self) -> u8 {
        self.rng.pick(&WORK)
    }
    /// An operand size: mostly the code's own.
    pub(super) fn size(&mut self) -> bool {
        self.rng.chance(if self.wide_code() { 88 } else { 45 })
    }
    /// Prefixes for this operand and address size.
    pub(super) fn size_prefixes(&mut self, wide: bool, address32: bool) {
        if wide != self.wide_code() {
            self.put(&[0x66]);
        }
        if address32 != self.wide_code() {
            self.put(&[0x67]);
        }
    }
    /// An instruction without memory operand.
    pub(super) fn op(&mut self, wide: bool, bytes: &[u8]) {
        if wide != self.wide_code() {
            self.put(&[0x66]);
        }
        self.put(bytes);
    }
    /// An instruction with `field` in ModRM.reg and memory.
    pub(super) fn memory(&mut self, wide: bool, opcode: &[u8], field: u8, place: Place) {
        self.prefixed_memory(&[], wide != self.wide_code(), opcode, field, place);
    }
    /// The same with mandatory prefixes, and 66h where `size` says so.
    pub(super) fn prefixed_memory(
        &mut self,
        prefixes: &[u8],
        size: bool,
        opcode: &[u8],
        field: u8,
        place: Place,
    ) {
        let offset = self.data(place.at);
        // ModRM.rm of SI DI BP BX.
        let narrow = match place.plus {
            None => Some(6),
            Some(r) => [6, 7, 5, 3]
                .iter()
                .position(|n| *n == r)
                .map(|n| n as u8 + 4),
        };
        let narrow = narrow.filter(|_| !self.wide_code() && self.rng.chance(60));
        if place.plus == Some(5) {
            self.put(&[0x3e]); // (E)BP means SS otherwise
        }
        if size {
            self.put(&[0x66]);
        }
        if narrow.is_some() == self.wide_code() {
            self.put(&[0x67]);
        }
        self.put(prefixes);
        self.put(opcode);
        match (narrow, place.plus) {
            (Some(rm), plus) => {
                let mode = if plus.is_some() { 0x80 } else { 0 };
                self.put(&[mode | field << 3 | rm]);
                self.put_sized(false, offset);
            }
            (None, Some(r)) => {
                self.put(&[0x80 | field << 3 | r]);
                self.put32(offset);
            }
            (None, None) => {
                self.put(&[field << 3 | 5]);
                self.put32(offset);
            }
        }
    }
    /// An instruction with `field` in ModRM.reg and a place in the code: by DS or FS, which is flat.
    pub(super) fn code_memory(&mut self, wide: bool, opcode: &[u8], field: u8, linear: u32) {
        if !(self.wide_code() && self.flat && self.rng.chance(70)) {
            self.put(&[0x64]);
        }
        self.size_prefixes(wide, true);
        self.put(opcode);
        self.put(&[field << 3 | 5]);
        self.put32(linear);
    }
    /// A near branch to offset `target`; `opcode` is E8, E9 or 0F 8x.
    pub(super) fn near(&mut self, opcode: &[u8], target: u32) {
        self.put(opcode);
        let at = self.code.len();
        self.put_sized(self.wide_code(), 0);
        self.set_near(at, target);
    }
    /// Directs the near branch whose displacement is at `at`.
    pub(super) fn set_near(&mut self, at: usize, target: u32) {
        let bytes = if self.wide_code() { 4 } else { 2 };
        let next = (layout::CODE + (at + bytes) as u32).wrapping_sub(self.code_base);
        let relative = target.wrapping_sub(next).to_le_bytes();
        self.code[at..at + bytes].copy_from_slice(&relative[..bytes]);
    }
    /// Makes all flags of `needed` defined.
    pub(super) fn define(&mut self, needed: u32) {
        if self.undefined & needed != 0 {
            let (a, b) = (self.reg(), self.reg());
            self.put(&[0x39, 0xc0 | a << 3 | b]); // cmp b, a
            self.undefined = 0;
        }
    }
    pub(super) fn flags(&mut self, defined: u32, undefined: u32) {
        self.undefined = self.undefined & !defined | undefined;
    }
    /// Restricts register `r` to an offset in the first data page, aligned to four or not. The AND
    /// leaves AF undefined.
    pub(super) fn restrict(&mut self, r: u8) {
        let mask: u32 = if self.rng.chance(85) { 0xfdc } else { 0xfd9 };
        self.op(true, &[0x81, 0xe0 | r]); // and r, mask
        self.put32(mask);
        self.flags(ALL & !AF, AF);
    }
    /// A place that a register and a small displacement give, 16 bytes or more below the page's
    /// end.
    pub(super) fn place(&mut self) -> Place {
        let r = self.reg();
        self.restrict(r);
        Place {
            at: layout::DATA + self.rng.below(4) * 4,
            plus: Some(r),
        }
    }
}
