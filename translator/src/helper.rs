//! How translated code calls the monitor: the helper table.
//!
//! A helper runs on the monitor's stack with the guest's registers and flags in `GuestState`. It
//! returns [`CONTINUE`] to go on in the code cache (changed registers are reloaded) or [`LEAVE`]
//! to return to the run loop with [`crate::state::ExitKind::Helper`].

use crate::classify::Alignment;
use crate::state::GuestState;

/// The signature of every helper: state, r9d, r10d, r13 of the call site.
pub type HelperFn = extern "C" fn(*mut GuestState, u32, u32, u64) -> u32;

/// Go on in the code cache.
pub const CONTINUE: u32 = 0;
/// Return to the run loop.
pub const LEAVE: u32 = 1;

/// Entries of `GuestState::helpers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Helper {
    /// Execute the instruction of callout site `a`.
    Callout = 0,
    /// Resolve a read of linear address `c`: `a` is the EIP, `b` an [`AccessInfo`]. Leaves the
    /// host pointer in `GuestState::soft_ptr`.
    SoftRead = 1,
    /// The same for a write or read-modify-write; the data becomes visible at `Commit`.
    SoftWrite = 2,
    /// Finish the write that the last `SoftWrite` prepared. `LEAVE` goes to `GuestState::rip`.
    Commit = 3,
    /// Check offset `c` against a segment: `a` is the EIP, `b` an [`AccessInfo`]. Leaves the
    /// linear address in `GuestState::soft_ptr`.
    SegmentCheck = 4,
}

/// What a soft access or segment check is about, packed in 32 bits: size in bits 0-15, segment in
/// 16-18, write in 24, read-modify-write in 25, alignment to the size required in 26, unless
/// MXCSR.MM is set in 27.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct AccessInfo(pub u32);

impl AccessInfo {
    /// Packs size in bytes, segment number, whether it writes, and whether it reads before.
    #[must_use]
    pub const fn new(size: u32, segment: u8, write: bool, update: bool) -> Self {
        Self(size & 0xffff | (segment as u32) << 16 | (write as u32) << 24 | (update as u32) << 25)
    }
    /// The same with an alignment check.
    #[must_use]
    pub const fn aligned(self, alignment: Alignment) -> Self {
        Self(match alignment {
            Alignment::Free => self.0,
            Alignment::UnlessMasked => self.0 | 3 << 26,
            Alignment::Required => self.0 | 1 << 26,
        })
    }
    /// Whether a linear address that is not a multiple of the size raises #GP(0) before anything else.
    #[must_use]
    pub const fn alignment(self) -> Alignment {
        match self.0 >> 26 & 3 {
            0 => Alignment::Free,
            1 => Alignment::Required,
            _ => Alignment::UnlessMasked,
        }
    }
    /// True if the old value is read before the write.
    #[must_use]
    pub const fn update(self) -> bool {
        self.0 & 1 << 25 != 0
    }
    /// Size in bytes.
    #[must_use]
    pub const fn size(self) -> u32 {
        self.0 & 0xffff
    }
    /// Segment number as encoded in instructions.
    #[must_use]
    pub const fn segment(self) -> u8 {
        (self.0 >> 16) as u8 & 7
    }
    /// True for writes and read-modify-writes.
    #[must_use]
    pub const fn write(self) -> bool {
        self.0 & 1 << 24 != 0
    }
}
