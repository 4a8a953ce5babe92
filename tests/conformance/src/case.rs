//! A case, and what became of it.

use crate::layout;
use crate::rng::Rng;
use crate::vector::Vector;

/// Default operand and address size of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Width {
    /// CS.D = 0.
    Code16,
    /// CS.D = 1.
    Code32,
}

impl Width {
    /// 16 or 32.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Code16 => 16,
            Self::Code32 => 32,
        }
    }
}

/// Segment registers in encoding order: ES CS SS DS FS GS.
pub mod seg {
    /// ES.
    pub const ES: usize = 0;
    /// CS.
    pub const CS: usize = 1;
    /// SS.
    pub const SS: usize = 2;
    /// DS.
    pub const DS: usize = 3;
    /// FS.
    pub const FS: usize = 4;
    /// GS.
    pub const GS: usize = 5;
}

/// General registers, EIP, flags and selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Regs {
    /// EAX ECX EDX EBX ESP EBP ESI EDI.
    pub gpr: [u32; 8],
    /// Offset in CS.
    pub eip: u32,
    /// EFLAGS.
    pub eflags: u32,
    /// Selectors, see [`seg`].
    pub seg: [u16; 6],
}

/// Who may run a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// The outcome does not depend on CPL.
    Any,
    /// The outcome is that of CPL 3.
    UserOnly,
}

/// A piece of code with its complete initial state.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What it tests, for people: the form and the disassembly.
    pub title: String,
    /// Code size.
    pub width: Width,
    /// The code, an instruction or group of instructions each; the engine stops at the end.
    pub pieces: Vec<Vec<u8>>,
    /// Linear address of the first byte (in the code pages).
    pub code_at: u32,
    /// Initial registers. `eip` is where execution starts.
    pub regs: Regs,
    /// Initial x87, SSE and AVX state.
    pub vector: Vector,
    /// Seed of the initial contents of data and stack; 0: all zero.
    pub fill: u64,
    /// Bytes placed over the initial contents: linear address, bytes.
    pub patches: Vec<(u32, Vec<u8>)>,
    /// EFLAGS bits that are undefined at the end.
    pub undefined: u32,
    /// EFLAGS bits that may be undefined when it faults.
    pub undefined_at_fault: u32,
    /// Memory that is not compared: linear address, bytes.
    pub ignored: Vec<(u32, u32)>,
    /// Whether CPL matters.
    pub privilege: Privilege,
}

impl Case {
    /// The code as one run of bytes.
    #[must_use]
    pub fn code(&self) -> Vec<u8> {
        self.pieces.concat()
    }
    /// Linear address after the last byte of the code.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.code_at + self.pieces.iter().map(|p| p.len() as u32).sum::<u32>()
    }
    /// The linear base of CS.
    #[must_use]
    pub fn code_base(&self) -> u32 {
        layout::Descriptor::of(self.regs.seg[seg::CS]).map_or(0, |d| d.base)
    }
    /// The complete initial memory: INT3 around the code, pseudo-random data, patches.
    #[must_use]
    pub fn memory(&self) -> Vec<u8> {
        let mut memory = vec![0; layout::MEMORY_BYTES];
        let code_pages = layout::WRITABLE[0].1 as usize;
        memory[..code_pages].fill(0xcc);
        if self.fill != 0 {
            Rng::new(self.fill).fill(&mut memory[code_pages..]);
        }
        let code = self.code();
        for (at, bytes) in
            std::iter::once((self.code_at, &code)).chain(self.patches.iter().map(|(a, b)| (*a, b)))
        {
            for (i, byte) in bytes.iter().enumerate() {
                if let Some(at) = layout::offset_of(at.wrapping_add(i as u32)) {
                    memory[at] = *byte;
                }
            }
        }
        memory
    }
}

/// Why a case stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It reached its end.
    End,
    /// An exception.
    Trap {
        /// Vector number.
        vector: u8,
        /// Error code; 0 for vectors without one.
        error: u32,
        /// CR2 of a page fault, else 0.
        address: u32,
    },
    /// The engine does not implement something that the case needs: nothing to compare.
    Skipped(String),
    /// It did not stop in time, or the engine could not run it; the text says why.
    Lost(String),
}

/// What a case left behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Why it stopped.
    pub stop: Stop,
    /// Registers at the stop. After a trap `eip` is the pushed value; at the end it is the end.
    pub regs: Regs,
    /// x87, SSE and AVX state.
    pub vector: Vector,
    /// The writable memory, see [`layout`].
    pub memory: Vec<u8>,
}

impl Outcome {
    /// An outcome for an engine that lost the case.
    #[must_use]
    pub fn lost(why: impl Into<String>) -> Self {
        Self {
            stop: Stop::Lost(why.into()),
            regs: Regs::default(),
            vector: Vector::default(),
            memory: vec![0; layout::MEMORY_BYTES],
        }
    }
}
