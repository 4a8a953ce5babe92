//! The translation mode: every fact about the processor's state that a translation relies on
//! without checking it at run time. It is part of the key of a translation unit.

use crate::state::{GuestState, SegClass, SegReg, cr0, cr4, eflags};

/// What a translation unit was translated for.
///
/// Bits: 0-1 CPL; 2 protected; 3 V8086; 4 CS.D (32-bit code); 5 SS.B (32-bit stack); 6 TF;
/// 7 CR0.EM or TS (x87 traps); 8 CR0.TS (MMX/SSE trap); 9 OSFXSR; 10 OSXSAVE with AVX in XCR0;
/// 11 single-instruction unit; 12 CR0.MP and TS (WAIT traps); 13 CR0.EM; 14 CS.limit is at least
/// FFFFh; 16-17 class of ES; 18-19 of CS; 20-21 of SS; 22-23 of DS. FS and GS are checked at run
/// time in protected mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Mode(pub u32);

impl Mode {
    const PROTECTED: u32 = 1 << 2;
    const V86: u32 = 1 << 3;
    const CODE32: u32 = 1 << 4;
    const STACK32: u32 = 1 << 5;
    const TF: u32 = 1 << 6;
    const X87_TRAPS: u32 = 1 << 7;
    const TS: u32 = 1 << 8;
    const SSE: u32 = 1 << 9;
    const AVX: u32 = 1 << 10;
    const STEP: u32 = 1 << 11;
    const WAIT_TRAPS: u32 = 1 << 12;
    const EM: u32 = 1 << 13;
    const CODE_64K: u32 = 1 << 14;

    /// The mode that `st` is in.
    #[must_use]
    pub fn of(st: &GuestState) -> Self {
        let mut m = u32::from(st.cpl & 3);
        let bit = |on: bool, b: u32| if on { b } else { 0 };
        m |= bit(st.protected(), Self::PROTECTED);
        m |= bit(st.v86(), Self::V86);
        m |= bit(st.segment(SegReg::Cs).attr.big(), Self::CODE32);
        m |= bit(st.segment(SegReg::Ss).attr.big(), Self::STACK32);
        m |= bit(st.sys_flags & eflags::TF != 0, Self::TF);
        m |= bit(st.cr0 & (cr0::EM | cr0::TS) != 0, Self::X87_TRAPS);
        m |= bit(st.cr0 & cr0::TS != 0, Self::TS);
        m |= bit(
            st.cr0 & cr0::EM == 0 && st.cr4 & cr4::OSFXSR != 0,
            Self::SSE,
        );
        m |= bit(st.cr4 & cr4::OSXSAVE != 0 && st.xcr0 & 6 == 6, Self::AVX);
        m |= bit(
            st.cr0 & (cr0::MP | cr0::TS) == cr0::MP | cr0::TS,
            Self::WAIT_TRAPS,
        );
        m |= bit(st.cr0 & cr0::EM != 0, Self::EM);
        m |= bit(st.segment(SegReg::Cs).limit >= 0xffff, Self::CODE_64K);
        m |= bit(st.breakpoints_armed() || st.alignment_checked(), Self::STEP);
        for (shift, reg) in [
            (16, SegReg::Es),
            (18, SegReg::Cs),
            (20, SegReg::Ss),
            (22, SegReg::Ds),
        ] {
            m |= (st.segment(reg).class as u32) << shift;
        }
        Self(m)
    }

    /// The same mode for a unit of exactly one instruction that is not chained.
    #[must_use]
    pub const fn single_instruction(self) -> Self {
        Self(self.0 | Self::STEP)
    }
    /// True if a unit of this mode, of one instruction or not, was made for a state whose mode is
    /// `state`.
    #[must_use]
    pub const fn serves(self, state: Self) -> bool {
        self.0 & !Self::STEP == state.0
    }
    /// True for a unit of exactly one instruction.
    #[must_use]
    pub const fn is_single_instruction(self) -> bool {
        self.0 & (Self::STEP | Self::TF) != 0
    }
    /// Current privilege level, 0-3.
    #[must_use]
    pub const fn cpl(self) -> u8 {
        (self.0 & 3) as u8
    }
    /// CR0.PE.
    #[must_use]
    pub const fn protected(self) -> bool {
        self.0 & Self::PROTECTED != 0
    }
    /// EFLAGS.VM.
    #[must_use]
    pub const fn v86(self) -> bool {
        self.0 & Self::V86 != 0
    }
    /// Real or virtual-8086 addressing.
    #[must_use]
    pub const fn real_addressing(self) -> bool {
        !self.protected() || self.v86()
    }
    /// 32-bit default operand and address size.
    #[must_use]
    pub const fn code32(self) -> bool {
        self.0 & Self::CODE32 != 0
    }
    /// CS.limit is at least FFFFh: no EIP of 16 bits lies beyond it.
    #[must_use]
    pub const fn code_64k(self) -> bool {
        self.0 & Self::CODE_64K != 0
    }
    /// Stack operations use ESP, not SP.
    #[must_use]
    pub const fn stack32(self) -> bool {
        self.0 & Self::STACK32 != 0
    }
    /// EFLAGS.TF.
    #[must_use]
    pub const fn trap_flag(self) -> bool {
        self.0 & Self::TF != 0
    }
    /// x87 instructions raise #NM.
    #[must_use]
    pub const fn x87_traps(self) -> bool {
        self.0 & Self::X87_TRAPS != 0
    }
    /// CR0.EM: MMX instructions raise #UD.
    #[must_use]
    pub const fn emulation(self) -> bool {
        self.0 & Self::EM != 0
    }
    /// MMX, SSE and AVX instructions raise #NM.
    #[must_use]
    pub const fn simd_traps(self) -> bool {
        self.0 & Self::TS != 0
    }
    /// SSE instructions are enabled (else #UD).
    #[must_use]
    pub const fn sse(self) -> bool {
        self.0 & Self::SSE != 0
    }
    /// AVX instructions are enabled (else #UD).
    #[must_use]
    pub const fn avx(self) -> bool {
        self.0 & Self::AVX != 0
    }
    /// WAIT raises #NM.
    #[must_use]
    pub const fn wait_traps(self) -> bool {
        self.0 & Self::WAIT_TRAPS != 0
    }
    /// The class of a segment; FS and GS are `Limited` in real and V8086 mode, else `Based`
    /// (their pointer is checked at run time).
    #[must_use]
    pub const fn seg_class(self, reg: SegReg) -> SegClass {
        let shift = match reg {
            SegReg::Es => 16,
            SegReg::Cs => 18,
            SegReg::Ss => 20,
            SegReg::Ds => 22,
            SegReg::Fs | SegReg::Gs => {
                return if self.real_addressing() {
                    SegClass::Limited
                } else {
                    SegClass::Based
                };
            }
        };
        match (self.0 >> shift) & 3 {
            0 => SegClass::Flat,
            1 => SegClass::Based,
            2 => SegClass::Limited,
            _ => SegClass::Odd,
        }
    }
    /// Whether default data accesses use the supervisor window (rings 0-2 and real mode).
    #[must_use]
    pub const fn window(self) -> bool {
        self.cpl() != 3
    }
    /// Index of the jump cache and soft TLB: 0 for rings 0-2, 1 for ring 3.
    #[must_use]
    pub const fn table(self) -> usize {
        if self.cpl() == 3 { 1 } else { 0 }
    }
}
