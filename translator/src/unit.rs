//! What a translation unit is to the outside: its key, its source, where it lies, what was counted.

use crate::mode::Mode;
use std::time::Duration;

/// What identifies a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Guest-physical address of the first byte.
    pub phys: u64,
    /// EIP of the first instruction.
    pub eip: u32,
    /// The mode it holds for.
    pub mode: Mode,
}

/// Index of a unit, valid until the cache is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitId(pub(crate) u32);

/// Where a host address belongs.
#[derive(Clone, Copy, Debug)]
pub struct Location {
    /// The unit.
    pub unit: UnitId,
    /// EIP of the guest instruction.
    pub eip: u32,
    /// Its guest-physical address (of its first byte).
    pub phys: u64,
}

/// What the translator has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct TranslatorStats {
    /// Units translated.
    pub units: u64,
    /// Guest instructions translated.
    pub instructions: u64,
    /// Guest bytes translated.
    pub guest_bytes: u64,
    /// Host bytes emitted.
    pub host_bytes: u64,
    /// Time spent scanning and emitting.
    pub time: Duration,
    /// Links patched.
    pub links: u64,
    /// Units dropped because their code was written.
    pub invalidated: u64,
    /// Times the whole cache was dropped.
    pub flushes: u64,
    /// Sites retranslated into the adapted form.
    pub adapted: u64,
}

/// What a unit is made from.
pub struct Source<'a> {
    /// Its key.
    pub key: Key,
    /// Guest bytes from the key's address on: to the end of the page or as many as a unit may hold,
    /// or, where not even one instruction lies within the page, 15 bytes and more across it.
    pub bytes: &'a [u8],
    /// The second page's physical address when `bytes` reaches into it.
    pub second_page: Option<u64>,
    /// False to make single jumps that always exit (reference engine).
    pub chain: bool,
    /// Whether other pages may be linked directly.
    pub chain_pages: bool,
}

/// The host code of one unit, and what belongs to it.
pub struct Emitted {
    /// Host address of the first byte.
    pub base: u64,
    /// Hot half, then cold half.
    pub code: Vec<u8>,
    /// Bytes of the hot half.
    pub hot: u32,
    /// Offset of the entry for direct jumps.
    pub body: u32,
    /// What it was translated for.
    pub mode: Mode,
    /// Ids of its callout sites.
    pub sites: core::ops::Range<u32>,
    /// Ids of its links.
    pub links: core::ops::Range<u32>,
    /// Offsets of the exits that unlinked jumps take.
    pub exits: Vec<u32>,
    /// Offset from which on code belongs to the instruction at an EIP.
    pub marks: Vec<(u32, u32)>,
}
