//! Exceptions as values. Intel SDM vol. 3A, chapter 6.

/// Exception vectors. Intel SDM vol. 3A, table 6-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Vector {
    /// #DE, divide error.
    De = 0,
    /// #DB, debug.
    Db = 1,
    /// Non-maskable interrupt.
    Nmi = 2,
    /// #BP, breakpoint (INT3).
    Bp = 3,
    /// #OF, overflow (INTO).
    Of = 4,
    /// #BR, bound range.
    Br = 5,
    /// #UD, invalid opcode.
    Ud = 6,
    /// #NM, device not available.
    Nm = 7,
    /// #DF, double fault.
    Df = 8,
    /// #TS, invalid TSS.
    Ts = 10,
    /// #NP, segment not present.
    Np = 11,
    /// #SS, stack fault.
    Ss = 12,
    /// #GP, general protection.
    Gp = 13,
    /// #PF, page fault.
    Pf = 14,
    /// #MF, x87 error.
    Mf = 16,
    /// #AC, alignment check.
    Ac = 17,
    /// #MC, machine check.
    Mc = 18,
    /// #XM, SIMD exception.
    Xm = 19,
}

/// An exception that an instruction raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which one.
    pub vector: Vector,
    /// The error code, for the vectors that push one.
    pub error: Option<u32>,
    /// The linear address that CR2 receives (page faults).
    pub address: Option<u64>,
}

impl Fault {
    /// An exception without error code.
    #[must_use]
    pub const fn plain(vector: Vector) -> Self {
        Self {
            vector,
            error: None,
            address: None,
        }
    }
    /// An exception with an error code.
    #[must_use]
    pub const fn with_error(vector: Vector, error: u32) -> Self {
        Self {
            vector,
            error: Some(error),
            address: None,
        }
    }
    /// #GP(error).
    #[must_use]
    pub const fn gp(error: u32) -> Self {
        Self::with_error(Vector::Gp, error)
    }
    /// #UD.
    #[must_use]
    pub const fn ud() -> Self {
        Self::plain(Vector::Ud)
    }
    /// #PF at a linear address.
    #[must_use]
    pub const fn page(address: u64, error: u32) -> Self {
        Self {
            vector: Vector::Pf,
            error: Some(error),
            address: Some(address),
        }
    }
}
