//! Segment registers and their hidden parts. Intel SDM vol. 3A, chapter 3.

/// Segment register numbers as instructions encode them. Intel SDM vol. 2A, table 2-1 ff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SegReg {
    /// Extra segment.
    Es = 0,
    /// Code segment.
    Cs = 1,
    /// Stack segment.
    Ss = 2,
    /// Data segment.
    Ds = 3,
    /// Additional data segment F.
    Fs = 4,
    /// Additional data segment G.
    Gs = 5,
}

impl SegReg {
    /// All six, in encoding order.
    pub const ALL: [Self; 6] = [Self::Es, Self::Cs, Self::Ss, Self::Ds, Self::Fs, Self::Gs];
}

/// How translated code may form addresses through a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SegClass {
    /// Base 0, limit 4 GiB, readable and writable (CS: readable): no check, no add.
    Flat = 0,
    /// Any base, limit 4 GiB, readable and writable: the base is added.
    Based = 1,
    /// Expand-up with a smaller limit, readable and writable: base added and limit compared inline.
    Limited = 2,
    /// Anything else (null, not writable, expand-down): every access asks the monitor.
    #[default]
    Odd = 3,
}

/// Access rights of a loaded segment, in the layout of descriptor bits 40-55: type in bits 0-3,
/// S in 4, DPL in 5-6, P in 7, AVL in 12, L in 13, D/B in 14, G in 15. Intel SDM vol. 3A, 3.4.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct SegAttr(pub u16);

impl SegAttr {
    /// A present, writable, accessed data segment of DPL 0 (the real-mode value).
    pub const REAL_DATA: Self = Self(0x0093);

    /// The 4-bit type field.
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 & 0xf) as u8
    }
    /// S: set for code and data, clear for system descriptors.
    #[must_use]
    pub const fn is_code_or_data(self) -> bool {
        self.0 & 0x10 != 0
    }
    /// Descriptor privilege level, 0-3.
    #[must_use]
    pub const fn dpl(self) -> u8 {
        ((self.0 >> 5) & 3) as u8
    }
    /// P: present.
    #[must_use]
    pub const fn present(self) -> bool {
        self.0 & 0x80 != 0
    }
    /// L: 64-bit code.
    #[must_use]
    pub const fn long(self) -> bool {
        self.0 & 0x2000 != 0
    }
    /// D/B: 32-bit default operand size, or 32-bit stack.
    #[must_use]
    pub const fn big(self) -> bool {
        self.0 & 0x4000 != 0
    }
    /// A code segment (S set, type bit 3 set).
    #[must_use]
    pub const fn is_code(self) -> bool {
        self.is_code_or_data() && self.0 & 8 != 0
    }
    /// A conforming code segment.
    #[must_use]
    pub const fn is_conforming(self) -> bool {
        self.is_code() && self.0 & 4 != 0
    }
    /// Readable: any data segment, or code with the R bit.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.is_code_or_data() && (self.0 & 8 == 0 || self.0 & 2 != 0)
    }
    /// A writable data segment.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.is_code_or_data() && self.0 & 0xa == 2
    }
    /// An expand-down data segment.
    #[must_use]
    pub const fn is_expand_down(self) -> bool {
        self.is_code_or_data() && self.0 & 0xc == 4
    }
}

/// A segment register with its hidden part. Intel SDM vol. 3A, 3.4.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes (already scaled by G): the last valid offset of an expand-up segment.
    pub limit: u32,
    /// The visible selector.
    pub selector: u16,
    /// Access rights of the loaded descriptor.
    pub attr: SegAttr,
    /// False for a null selector: any use faults.
    pub usable: bool,
    /// Derived by [`GuestState::set_segment`]; do not set by hand.
    pub class: SegClass,
}

impl Segment {
    /// A real-mode or V8086 data segment for `selector` with a 64 KiB limit.
    #[must_use]
    pub const fn real(selector: u16) -> Self {
        Self {
            base: (selector as u64) << 4,
            limit: 0xffff,
            selector,
            attr: SegAttr::REAL_DATA,
            usable: true,
            class: SegClass::Limited,
        }
    }

    /// A protected-mode null segment that holds `selector` (0-3).
    #[must_use]
    pub const fn null(selector: u16) -> Self {
        Self {
            base: 0,
            limit: 0,
            selector,
            attr: SegAttr(0),
            usable: false,
            class: SegClass::Odd,
        }
    }
}

/// GDTR or IDTR. Intel SDM vol. 3A, 2.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TableReg {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes (the last valid offset).
    pub limit: u16,
}
