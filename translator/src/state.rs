//! `GuestState`: the register file and run-time tables that translated code and the monitor share.
//!
//! Translated code reaches every field by a constant displacement from r15, so the layout is
//! `repr(C)` and field offsets are taken with `offset_of!`. The architectural part comes first.
//! While translated code runs, the general registers and the arithmetic flags live in the host's
//! registers; they are in this structure whenever Rust code runs (between exits, and in helpers).

pub use crate::register_bits::{apic_base, cr0, cr4, dr6, dr7, efer, eflags, shadow};
pub use crate::segment::{SegAttr, SegClass, SegReg, Segment, TableReg};

use crate::mode::Mode;
use crate::mutation::Mutation;
use core::ffi::c_void;

/// Model-specific registers that carry state. Intel SDM vol. 4.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Msrs {
    /// IA32_EFER.
    pub efer: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_APIC_BASE.
    pub apic_base: u64,
    /// IA32_TSC_DEADLINE; stale once the deadline has passed.
    pub tsc_deadline: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// Added to the host-derived counter to give the guest's TSC (IA32_TSC, IA32_TSC_ADJUST).
    pub tsc_offset: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// IA32_MTRR_DEF_TYPE.
    pub mtrr_def_type: u64,
    /// IA32_MTRR_FIX*: 64K_00000, 16K_80000, 16K_A0000, 4K_C0000 .. 4K_F8000.
    pub mtrr_fixed: [u64; 11],
    /// IA32_MTRR_PHYSBASE/PHYSMASK pairs.
    pub mtrr_var: [u64; 16],
}

/// One soft-TLB entry; see `lower::access` for the sequence that reads it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TlbEntry {
    /// Page address (low 12 bits 0) if reads hit, else [`TlbEntry::invalid_tag`].
    pub read: u32,
    /// Page address if writes hit, else [`TlbEntry::invalid_tag`].
    pub write: u32,
    /// Host address minus guest linear address.
    pub delta: u64,
}

impl TlbEntry {
    /// A tag that never matches in entry `index`: a page of an entry far away. (A constant would
    /// not do: the flag-free comparison computes a page difference.)
    #[must_use]
    pub const fn invalid_tag(index: usize) -> u32 {
        ((index as u32) ^ (TLB_ENTRIES as u32 / 2)) << 12
    }
    /// An entry that misses always.
    #[must_use]
    pub const fn empty(index: usize) -> Self {
        let tag = Self::invalid_tag(index);
        Self {
            read: tag,
            write: tag,
            delta: 0,
        }
    }
}

/// Entries in each soft TLB (a power of two).
pub const TLB_ENTRIES: usize = 512;
/// Entries in each jump cache: one for each value of EIP's low 16 bits.
pub const JUMP_CACHE_ENTRIES: usize = 65536;
/// Bytes of the XSAVE image (x87, SSE, AVX and room for AVX-512 and PKRU).
pub const XSAVE_BYTES: usize = 4096;

/// Why translated code returned to the monitor. Stored in `GuestState::exit_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ExitKind {
    /// An unlinked direct jump; `exit_arg` is the link, `rip` the target.
    Link = 0,
    /// An indirect jump that missed the jump cache; `rip` is the target.
    Indirect = 1,
    /// A helper asked to leave; the reason is with the helper's owner, `rip` is up to date.
    Helper = 2,
    /// A host signal in the cache; see `fault`.
    Fault = 3,
    /// The end of a unit that is not chained by request (single step); `rip` is the next EIP.
    End = 4,
}

/// What a host signal handler recorded about a fault in translated code.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HostFault {
    /// Host address of the instruction that faulted.
    pub rip: u64,
    /// si_addr / CR2, valid for trap 14.
    pub addr: u64,
    /// Hardware trap number (REG_TRAPNO).
    pub trapno: u32,
    /// Hardware error code (REG_ERR).
    pub err: u32,
}

/// Number of entries of the helper table.
pub const HELPER_COUNT: usize = 16;

/// The register file and run-time tables of one virtual processor. See the module's text.
#[repr(C, align(4096))]
pub struct GuestState {
    // ---- architectural state ----
    /// General registers in encoding order (rax rcx rdx rbx rsp rbp rsi rdi r8-r15). In 16- and
    /// 32-bit modes only the low halves of the first eight count; upper halves may be garbage.
    pub gpr: [u64; 16],
    /// Instruction pointer (offset in CS).
    pub rip: u64,
    /// Arithmetic flags and DF as saved from the host ([`eflags::ARITH`]); other bits are garbage.
    pub arith_flags: u64,
    /// The bits of [`eflags::SYS`].
    pub sys_flags: u32,
    /// IF: 0 or 1.
    pub if_flag: u8,
    /// Not 0 while interrupts are held off for one instruction: [`shadow::STI`] or [`shadow::SS`].
    pub interrupt_shadow: u8,
    /// Current privilege level.
    pub cpl: u8,
    /// 1 after HLT until an event wakes the processor.
    pub halted: u8,
    /// Segment registers, indexed by [`SegReg`].
    pub seg: [Segment; 6],
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table register.
    pub gdtr: TableReg,
    /// Interrupt descriptor table register.
    pub idtr: TableReg,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 2 (page-fault linear address).
    pub cr2: u64,
    /// Control register 3 (page-table base).
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// The four PAE page-directory-pointer entries loaded with CR3. Intel SDM vol. 3A, 4.4.1.
    pub pdpte: [u64; 4],
    /// Extended control register 0.
    pub xcr0: u64,
    /// Debug registers.
    pub dr: [u64; 8],
    /// Model-specific registers.
    pub msr: Msrs,

    // ---- run-time state of translated code ----
    /// Monitor stack pointer while translated code runs.
    pub host_rsp: u64,
    /// Cache-side stack pointer while Rust code runs.
    pub cache_rsp: u64,
    /// Address of the sentinel at the top of the current return stack.
    pub return_stack_top: u64,
    /// The same for each table's return stack.
    pub return_tops: [u64; 2],
    /// Stack pointer of each table's return stack while the other one runs.
    pub return_rsp: [u64; 2],
    /// Step of string instructions: 1, or -1 (as 64 bits) while DF is set.
    pub string_step: i64,
    /// Address that polls load from: [`GuestState::poll_target`] or an unmapped page. Atomic.
    pub poll_ptr: u64,
    /// What an unarmed poll loads.
    pub poll_target: u64,
    /// 1 while an event waits that a closed IF holds back; an inline STI looks at it.
    pub event_waiting: u32,
    /// Explicit padding.
    pub pad1: u32,
    /// Host address of the supervisor window (4 GiB aligned).
    pub window_base: u64,
    /// An [`ExitKind`].
    pub exit_kind: u32,
    /// Argument of the exit.
    pub exit_arg: u32,
    /// The last host fault in translated code.
    pub fault: HostFault,
    /// Where a resumed fault continues.
    pub resume_rip: u64,
    /// `fpu_live` as it was at the exit; a resumed fault reloads the FPU state when 1.
    pub resume_fpu: u32,
    /// PEXT masks used by the flag-free soft access: page number bits, and entry-index bits.
    pub mask_page: u32,
    /// See `mask_page`.
    pub mask_index: u32,
    /// PEXT/PDEP mask of the arithmetic flags.
    pub mask_arith: u32,
    /// PEXT mask of the bits of a repeat count that make it too long to run inline.
    pub mask_long_count: u32,
    /// 1 while the guest's FPU/SSE/AVX state is in the host's registers.
    pub fpu_live: u32,
    /// XSAVE mask for the guest's state components (EDX:EAX as one value).
    pub xsave_mask: u32,
    /// Address of FS's base while FS is [`SegClass::Flat`] or `Based`, else of an unmapped page.
    pub fs_base_ptr: u64,
    /// The same for GS.
    pub gs_base_ptr: u64,
    /// Address of an unmapped page (the poison of `poll_ptr`, `fs_base_ptr`, `gs_base_ptr`).
    pub poison: u64,
    /// Host pointer that a soft-access helper resolved.
    pub soft_ptr: u64,
    /// Guest linear address of a pending bounced write.
    pub bounce_lin: u64,
    /// Bytes of a pending bounced or watched write; 0 if none.
    pub bounce_len: u32,
    /// Privilege and kind of the pending write (monitor's own encoding).
    pub bounce_info: u32,
    /// Host address for each helper; see `helper::Helper`.
    pub helpers: [u64; HELPER_COUNT],
    /// The monitor object that helpers act on.
    pub owner: *mut c_void,
    /// Default host FPU control words that monitor code expects: MXCSR.
    pub host_mxcsr: u32,
    /// Explicit padding.
    pub pad0: u32,
    /// Data of an access that cannot be done in place (MMIO, page crossing).
    pub bounce: BounceBuffer,
    /// FPU, SSE and AVX state in XSAVE standard format while `fpu_live` is 0.
    pub xsave: XsaveArea,
    /// Soft TLBs: index 0 for supervisor accesses, 1 for user accesses.
    pub tlb: [[TlbEntry; TLB_ENTRIES]; 2],
    /// Jump caches: index 0 for rings 0-2, 1 for everything else.
    pub jump_cache: [[u64; JUMP_CACHE_ENTRIES]; 2],
    /// The mistake that this processor makes: 0 or a [`Mutation`]'s number plus one.
    #[cfg(feature = "mutation")]
    pub mutation: u32,
}

/// See [`GuestState::bounce`]. An access begins at [`BounceBuffer::place`].
#[repr(C, align(64))]
pub struct BounceBuffer(pub [u8; Self::ALIGNMENT + Self::MAX_ACCESS]);

impl BounceBuffer {
    /// Alignment of the buffer, bytes: no instruction asks for more.
    const ALIGNMENT: usize = 64;
    /// Bytes of the largest access.
    pub const MAX_ACCESS: usize = 128;

    /// Where the bytes of an access at linear address `lin` begin: with its own alignment.
    #[must_use]
    pub const fn place(lin: u32) -> usize {
        lin as usize % Self::ALIGNMENT
    }
}

/// See [`GuestState::xsave`].
#[repr(C, align(64))]
pub struct XsaveArea(pub [u8; XSAVE_BYTES]);

/// General register numbers.
pub mod gpr {
    /// EAX.
    pub const AX: usize = 0;
    /// ECX.
    pub const CX: usize = 1;
    /// EDX.
    pub const DX: usize = 2;
    /// EBX.
    pub const BX: usize = 3;
    /// ESP.
    pub const SP: usize = 4;
    /// EBP.
    pub const BP: usize = 5;
    /// ESI.
    pub const SI: usize = 6;
    /// EDI.
    pub const DI: usize = 7;
}

impl GuestState {
    /// Whether this processor makes a mistake on purpose; never without the feature `mutation`.
    #[cfg(feature = "mutation")]
    #[must_use]
    pub fn broken(&self, mutation: Mutation) -> bool {
        self.mutation == mutation as u32 + 1
    }
    /// Whether this processor makes a mistake on purpose; never without the feature `mutation`.
    #[cfg(not(feature = "mutation"))]
    #[inline(always)]
    #[must_use]
    pub const fn broken(&self, _: Mutation) -> bool {
        false
    }
    /// The low 32 bits of general register `n` (0-7).
    #[must_use]
    pub fn reg32(&self, n: usize) -> u32 {
        self.gpr[n] as u32
    }
    /// Sets the low 32 bits of general register `n` and clears the rest.
    pub fn set_reg32(&mut self, n: usize, value: u32) {
        self.gpr[n] = u64::from(value);
    }
    /// The low 16 bits of general register `n`.
    #[must_use]
    pub fn reg16(&self, n: usize) -> u16 {
        self.gpr[n] as u16
    }
    /// Sets the low 16 bits of general register `n`; the rest is kept.
    pub fn set_reg16(&mut self, n: usize, value: u16) {
        self.gpr[n] = (self.gpr[n] & !0xffff) | u64::from(value);
    }
    /// Byte register `n` in legacy encoding: 0-3 AL CL DL BL, 4-7 AH CH DH BH.
    #[must_use]
    pub fn reg8(&self, n: usize) -> u8 {
        if n < 4 {
            self.gpr[n] as u8
        } else {
            (self.gpr[n - 4] >> 8) as u8
        }
    }
    /// Sets byte register `n` in legacy encoding.
    pub fn set_reg8(&mut self, n: usize, value: u8) {
        if n < 4 {
            self.gpr[n] = (self.gpr[n] & !0xff) | u64::from(value);
        } else {
            self.gpr[n - 4] = (self.gpr[n - 4] & !0xff00) | (u64::from(value) << 8);
        }
    }
    /// EIP.
    #[must_use]
    pub fn eip(&self) -> u32 {
        self.rip as u32
    }

    /// The whole EFLAGS image.
    #[must_use]
    pub fn eflags(&self) -> u32 {
        (self.arith_flags as u32 & eflags::ARITH)
            | (self.sys_flags & eflags::SYS)
            | if self.if_flag != 0 { eflags::IF } else { 0 }
            | eflags::FIXED
    }

    /// Sets every EFLAGS bit; the caller has applied the privilege rules.
    pub fn set_eflags(&mut self, value: u32) {
        self.arith_flags = u64::from(value & eflags::ARITH);
        self.string_step = if value & eflags::DF != 0 { -1 } else { 1 };
        self.sys_flags = value & eflags::SYS;
        self.if_flag = u8::from(value & eflags::IF != 0);
    }

    /// True in protected mode (CR0.PE), V8086 included.
    #[must_use]
    pub fn protected(&self) -> bool {
        self.cr0 & cr0::PE != 0
    }
    /// True in virtual-8086 mode.
    #[must_use]
    pub fn v86(&self) -> bool {
        self.sys_flags & eflags::VM != 0
    }
    /// True while DR7 enables a breakpoint: then every instruction is a unit of its own, and the
    /// run loop looks between them.
    #[must_use]
    pub fn breakpoints_armed(&self) -> bool {
        self.dr[7] & dr7::ENABLES != 0
    }
    /// True while misaligned accesses raise #AC: then too every instruction is a unit of its own.
    #[must_use]
    pub fn alignment_checked(&self) -> bool {
        let ring = self.cpl == 3 || self.broken(Mutation::AlignmentRing);
        let on = self.sys_flags & eflags::AC != 0 && self.cr0 & cr0::AM != 0;
        ring && on && !self.broken(Mutation::AlignmentCheck)
    }
    /// True if MXCSR.MM lets misaligned operands of most SSE instructions pass. Not valid while the
    /// FPU state is the host's.
    #[must_use]
    pub fn misalignment_masked(&self) -> bool {
        const MXCSR: usize = 24;
        const MM: u8 = 1 << 1; // bit 17
        self.xsave.0[MXCSR + 2] & MM != 0
    }
    /// The I/O privilege level, 0-3.
    #[must_use]
    pub fn iopl(&self) -> u8 {
        ((self.sys_flags & eflags::IOPL) >> 12) as u8
    }
    /// A segment register.
    #[must_use]
    pub fn segment(&self, reg: SegReg) -> &Segment {
        &self.seg[reg as usize]
    }

    /// Loads a segment register's visible and hidden part and derives its class. Every change of
    /// a segment goes through here. Does not touch CPL.
    #[inline]
    pub fn set_segment(&mut self, reg: SegReg, value: Segment) {
        let old = &self.seg[reg as usize];
        let same = old.base == value.base
            && old.limit == value.limit
            && old.selector == value.selector
            && old.attr == value.attr
            && old.usable == value.usable;
        if !same {
            self.replace_segment(reg, value);
        }
    }

    fn replace_segment(&mut self, reg: SegReg, mut value: Segment) {
        value.class = self.classify(reg, &value);
        self.seg[reg as usize] = value;
        self.refresh_base_pointer(reg);
    }

    /// Derives all classes anew; call after CR0.PE or EFLAGS.VM changed.
    pub fn reclassify_segments(&mut self) {
        for reg in SegReg::ALL {
            let value = self.seg[reg as usize];
            self.replace_segment(reg, value);
        }
    }

    fn classify(&self, reg: SegReg, s: &Segment) -> SegClass {
        if !s.usable || !s.attr.present() || !s.attr.is_readable() || s.attr.is_expand_down() {
            return SegClass::Odd;
        }
        let real = !self.protected() || self.v86();
        if reg != SegReg::Cs && !real && !s.attr.is_writable() {
            return SegClass::Odd;
        }
        if s.limit != u32::MAX {
            SegClass::Limited
        } else if s.base == 0 {
            SegClass::Flat
        } else {
            SegClass::Based
        }
    }

    fn refresh_base_pointer(&mut self, reg: SegReg) {
        let s = &self.seg[reg as usize];
        let direct = matches!(s.class, SegClass::Flat | SegClass::Based);
        let pointer = if direct {
            &raw const s.base as u64
        } else {
            self.poison
        };
        match reg {
            SegReg::Fs => self.fs_base_ptr = pointer,
            SegReg::Gs => self.gs_base_ptr = pointer,
            _ => {}
        }
    }

    /// The translation mode of the current state.
    #[must_use]
    pub fn mode(&self) -> Mode {
        Mode::of(self)
    }

    /// Empties both soft TLBs.
    pub fn flush_soft_tlb(&mut self) {
        for tlb in &mut self.tlb {
            for (i, entry) in tlb.iter_mut().enumerate() {
                *entry = TlbEntry::empty(i);
            }
        }
    }

    /// Puts the processor into its state after RESET. Intel SDM vol. 3A, table 10-1. Run-time
    /// fields keep their values.
    pub fn reset(&mut self) {
        self.gpr = [0; 16];
        self.gpr[gpr::DX] = 0x0000_0600;
        self.rip = 0xfff0;
        self.set_eflags(eflags::FIXED);
        self.interrupt_shadow = 0;
        self.cpl = 0;
        self.halted = 0;
        self.cr0 = cr0::CD | cr0::NW | cr0::ET;
        self.cr2 = 0;
        self.cr3 = 0;
        self.cr4 = 0;
        self.pdpte = [0; 4];
        self.xcr0 = 1;
        self.dr = [0, 0, 0, 0, 0, 0, dr6::ONES, dr7::ONES];
        let tsc_offset = self.msr.tsc_offset;
        self.msr = Msrs {
            pat: 0x0007_0406_0007_0406,
            apic_base: 0xfee0_0000 | apic_base::ENABLE | apic_base::BSP,
            misc_enable: 1,
            tsc_offset,
            ..Msrs::default()
        };
        for reg in SegReg::ALL {
            self.replace_segment(reg, Segment::real(0));
        }
        let mut cs = Segment::real(0xf000);
        cs.base = 0xffff_0000;
        self.set_segment(SegReg::Cs, cs);
        self.mask_page = 0xffff_f000;
        self.mask_index = (TLB_ENTRIES as u32 - 1) << 12;
        self.mask_long_count = 0xffff_f000;
        self.mask_arith = eflags::ARITH;
        let system = |attr| Segment {
            limit: 0xffff,
            attr: SegAttr(attr),
            usable: true,
            ..Segment::null(0)
        };
        self.ldtr = system(0x82);
        self.tr = system(0x8b);
        self.gdtr = TableReg {
            base: 0,
            limit: 0xffff,
        };
        self.idtr = TableReg {
            base: 0,
            limit: 0xffff,
        };
        self.fpu_live = 0;
        self.xsave.0.fill(0);
        // x87 FCW after FNINIT would be 0x37f; after RESET it is 0x40. MXCSR 0x1f80.
        self.xsave.0[0..2].copy_from_slice(&0x0040u16.to_le_bytes());
        self.xsave.0[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        // XSTATE_BV: x87 and SSE images are valid, so that XRSTOR loads them.
        self.xsave.0[512..520].copy_from_slice(&3u64.to_le_bytes());
    }
}
