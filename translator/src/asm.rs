//! The emission buffer: hot and cold code of one unit, labels, and raw encodings with the memory
//! operand forms that translated code uses.

use dynasmrt::{AssemblyOffset, DynasmApi};

/// Host register numbers (ModRM encoding).
pub mod reg {
    /// rax.
    pub const RAX: u8 = 0;
    /// rcx.
    pub const RCX: u8 = 1;
    /// rbp.
    pub const RBP: u8 = 5;
    /// rsi.
    pub const RSI: u8 = 6;
    /// rdi.
    pub const RDI: u8 = 7;
    /// Scratch.
    pub const R8: u8 = 8;
    /// Scratch.
    pub const R9: u8 = 9;
    /// Scratch.
    pub const R10: u8 = 10;
    /// Scratch: a value that survives a memory access.
    pub const R11: u8 = 11;
    /// Guest ESP.
    pub const R12: u8 = 12;
    /// Scratch: linear address, or target EIP of an indirect transfer.
    pub const R13: u8 = 13;
    /// Scratch: delta of a soft access.
    pub const R14: u8 = 14;
    /// `GuestState`.
    pub const R15: u8 = 15;
}

/// Conditions as opcodes encode them. Intel SDM vol. 1, appendix B.
pub mod cond {
    /// Equal, zero.
    pub const E: u8 = 4;
    /// Not equal, not zero.
    pub const NE: u8 = 5;
}

/// Opcodes of branches with an 8-bit displacement, for [`CodeBuf::short`].
pub mod short {
    /// JE.
    pub const JE: u8 = 0x74;
    /// JNE.
    pub const JNE: u8 = 0x75;
    /// JRCXZ.
    pub const JRCXZ: u8 = 0xe3;
    /// JMP.
    pub const JMP: u8 = 0xeb;
}

/// A host memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMem {
    /// Base register.
    pub base: Option<u8>,
    /// Index register and scale (1, 2, 4, 8).
    pub index: Option<(u8, u8)>,
    /// Displacement.
    pub disp: i32,
    /// GS override and 32-bit address size: an access to the supervisor window.
    pub window: bool,
}

impl HostMem {
    /// `[base + disp]`.
    #[must_use]
    pub const fn at(base: u8, disp: i32) -> Self {
        Self {
            base: Some(base),
            index: None,
            disp,
            window: false,
        }
    }
    /// `[base + index * scale + disp]`; `index` is the register and its scale.
    #[must_use]
    pub const fn indexed(base: u8, index: (u8, u8), disp: i32) -> Self {
        Self {
            base: Some(base),
            index: Some(index),
            disp,
            window: false,
        }
    }
    /// A field of `GuestState`.
    #[must_use]
    pub const fn state(offset: i32) -> Self {
        Self::at(reg::R15, offset)
    }
    /// True if encoding it needs a REX prefix.
    #[must_use]
    pub fn needs_rex(&self) -> bool {
        self.base.is_some_and(|r| r >= 8) || self.index.is_some_and(|(r, _)| r >= 8)
    }
}

/// The two halves of a unit's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    /// Straight-line code.
    Hot,
    /// Out-of-line code, placed after the hot half.
    Cold,
}

/// A position that jumps can name before it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(u32);

/// Where a rel32 points.
#[derive(Clone, Copy, Debug)]
enum Target {
    Label(Label),
    Absolute(u64),
}

/// Operand size of raw encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    B1,
    /// 16 bits.
    B2,
    /// 32 bits.
    B4,
    /// 64 bits.
    B8,
}

impl Width {
    /// Size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::B1 => 1,
            Self::B2 => 2,
            Self::B4 => 4,
            Self::B8 => 8,
        }
    }
}

/// The code of one unit while it is being emitted. Buffers are reused between units.
#[derive(Default)]
pub struct CodeBuf {
    hot: Vec<u8>,
    cold: Vec<u8>,
    in_cold: bool,
    labels: Vec<Option<(bool, u32)>>,
    fixups: Vec<(bool, u32, Target)>,
}

impl CodeBuf {
    /// Forgets everything, keeps the capacity.
    pub fn clear(&mut self) {
        self.hot.clear();
        self.cold.clear();
        self.in_cold = false;
        self.labels.clear();
        self.fixups.clear();
    }

    fn cur(&mut self) -> &mut Vec<u8> {
        if self.in_cold {
            &mut self.cold
        } else {
            &mut self.hot
        }
    }

    /// Switches the half that emission goes to; returns the previous one.
    pub fn select(&mut self, half: Half) -> Half {
        let old = self.half();
        self.in_cold = half == Half::Cold;
        old
    }

    /// The half that emission goes to.
    #[must_use]
    pub fn half(&self) -> Half {
        if self.in_cold { Half::Cold } else { Half::Hot }
    }

    /// Offset of the next byte within its half.
    #[must_use]
    pub fn pos(&self) -> u32 {
        (if self.in_cold {
            self.cold.len()
        } else {
            self.hot.len()
        }) as u32
    }

    /// Bytes in the hot half.
    #[must_use]
    pub fn hot_len(&self) -> u32 {
        self.hot.len() as u32
    }

    /// Bytes in both halves.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hot.len() + self.cold.len()
    }

    /// True if nothing was emitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A fresh unbound label.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() as u32 - 1)
    }

    /// Binds a label here.
    pub fn bind(&mut self, label: Label) {
        let here = (self.in_cold, self.pos());
        self.labels[label.0 as usize] = Some(here);
    }

    /// A fresh label bound here.
    pub fn here(&mut self) -> Label {
        let l = self.label();
        self.bind(l);
        l
    }

    /// Offset of a bound label in the finished unit.
    #[must_use]
    pub fn offset_of(&self, label: Label) -> u32 {
        match self.labels[label.0 as usize] {
            Some((true, at)) => self.hot_len() + at,
            Some((false, at)) => at,
            None => 0,
        }
    }

    /// Appends raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.cur().extend_from_slice(bytes);
    }

    fn rel32(&mut self, target: Target) {
        let at = self.pos();
        let half = self.in_cold;
        self.fixups.push((half, at, target));
        self.bytes(&[0; 4]);
    }

    /// `jmp label`; returns the offset of the rel32 field within its half.
    pub fn jmp(&mut self, to: Label) -> u32 {
        self.bytes(&[0xe9]);
        self.rel32(Target::Label(to));
        self.pos() - 4
    }
    /// `jcc label`; `cc` is the condition's 4-bit encoding.
    pub fn jcc(&mut self, cc: u8, to: Label) -> u32 {
        self.bytes(&[0x0f, 0x80 | cc]);
        self.rel32(Target::Label(to));
        self.pos() - 4
    }
    /// `call label`; returns the offset of the rel32 field.
    pub fn call(&mut self, to: Label) -> u32 {
        self.bytes(&[0xe8]);
        self.rel32(Target::Label(to));
        self.pos() - 4
    }
    /// `jmp` to a host address.
    pub fn jmp_abs(&mut self, to: u64) {
        self.bytes(&[0xe9]);
        self.rel32(Target::Absolute(to));
    }
    /// `call` of a host address.
    pub fn call_abs(&mut self, to: u64) {
        self.bytes(&[0xe8]);
        self.rel32(Target::Absolute(to));
    }

    /// Emits a two-byte forward branch (`opcode rel8`) to be bound by [`Self::bind_short`].
    pub fn short(&mut self, opcode: u8) -> u32 {
        self.bytes(&[opcode, 0]);
        self.pos()
    }
    /// Binds a short branch here; it must be in the same half and within 127 bytes.
    pub fn bind_short(&mut self, branch: u32) {
        let distance = self.pos() - branch;
        assert!(distance < 128, "a short branch is too long");
        self.cur()[branch as usize - 1] = distance as u8;
    }

    /// Takes the branch if RCX-style register `source32` is zero, without touching flags:
    /// `mov r10,rcx; mov ecx,source; jrcxz +; mov rcx,r10; jmp nonzero; +: mov rcx,r10`.
    pub fn if_nonzero_jump(&mut self, source32: u8, nonzero: Label) {
        let zero = self.open_zero_test(source32);
        self.jmp(nonzero);
        self.close_zero_test(zero);
    }
    /// As [`Self::if_nonzero_jump`], to a host address.
    pub fn if_nonzero_jump_abs(&mut self, source32: u8, nonzero: u64) {
        let zero = self.open_zero_test(source32);
        self.jmp_abs(nonzero);
        self.close_zero_test(zero);
    }
    fn open_zero_test(&mut self, source32: u8) -> u32 {
        self.mov_rr(Width::B8, reg::R10, reg::RCX);
        self.mov_rr(Width::B4, reg::RCX, source32);
        let zero = self.short(short::JRCXZ);
        self.mov_rr(Width::B8, reg::RCX, reg::R10);
        zero
    }
    fn close_zero_test(&mut self, zero: u32) {
        self.bind_short(zero);
        self.mov_rr(Width::B8, reg::RCX, reg::R10);
    }

    /// Raw `opcode reg, mem` (or `mem, reg`): prefixes, REX, ModRM, SIB, displacement. `opcode`
    /// excludes prefixes. For `Width::B1`, `reg` counts as spl..dil style only if REX is emitted.
    pub fn op_mem(&mut self, width: Width, opcode: &[u8], reg: u8, m: &HostMem) {
        if m.window {
            self.bytes(&[0x65, 0x67]);
        }
        if width == Width::B2 {
            self.bytes(&[0x66]);
        }
        let mut rex = if width == Width::B8 { 0x48 } else { 0 };
        if reg >= 8 {
            rex |= 0x44;
        }
        if width == Width::B1 && reg >= 4 {
            rex |= 0x40;
        }
        if m.base.is_some_and(|b| b >= 8) {
            rex |= 0x41;
        }
        if m.index.is_some_and(|(i, _)| i >= 8) {
            rex |= 0x42;
        }
        if rex != 0 {
            self.bytes(&[rex]);
        }
        self.bytes(opcode);
        self.modrm_mem(reg, m);
    }

    fn modrm_mem(&mut self, reg: u8, m: &HostMem) {
        let r = (reg & 7) << 3;
        let scale = |s: u8| match s {
            2 => 0x40,
            4 => 0x80,
            8 => 0xc0,
            _ => 0,
        };
        match (m.base, m.index) {
            (None, None) => {
                // mod 00, rm 100, SIB with no base and no index: disp32.
                self.bytes(&[r | 4, 0x25]);
                self.bytes(&m.disp.to_le_bytes());
            }
            (None, Some((i, s))) => {
                self.bytes(&[r | 4, scale(s) | ((i & 7) << 3) | 5]);
                self.bytes(&m.disp.to_le_bytes());
            }
            (Some(b), index) => {
                let short = i8::try_from(m.disp).is_ok();
                let mode = if m.disp == 0 && b & 7 != 5 {
                    0x00
                } else if short {
                    0x40
                } else {
                    0x80
                };
                match index {
                    None if b & 7 != 4 => self.bytes(&[mode | r | (b & 7)]),
                    None => self.bytes(&[mode | r | 4, 0x24]),
                    Some((i, s)) => {
                        self.bytes(&[mode | r | 4, scale(s) | ((i & 7) << 3) | (b & 7)])
                    }
                }
                match mode {
                    0x40 => self.bytes(&[m.disp as u8]),
                    0x80 => self.bytes(&m.disp.to_le_bytes()),
                    _ => {}
                }
            }
        }
    }

    /// `jmp` or `call` to the host address in 64 bits of memory.
    pub fn transfer(&mut self, m: &HostMem, call: bool) {
        // FF /2 and /4 have 64-bit operands without REX.W.
        self.op_mem(Width::B4, &[0xff], if call { 2 } else { 4 }, m);
    }

    /// `mov reg, mem` (zero-extending for 8 and 16 bits).
    pub fn load(&mut self, width: Width, reg: u8, m: &HostMem) {
        match width {
            Width::B1 => self.op_mem(Width::B4, &[0x0f, 0xb6], reg, m),
            Width::B2 => self.op_mem(Width::B4, &[0x0f, 0xb7], reg, m),
            _ => self.op_mem(width, &[0x8b], reg, m),
        }
    }
    /// `mov mem, reg`.
    pub fn store(&mut self, width: Width, reg: u8, m: &HostMem) {
        let opcode = if width == Width::B1 { 0x88 } else { 0x89 };
        self.op_mem(width, &[opcode], reg, m);
    }
    /// `mov mem, imm` (sign-extended for 64 bits).
    pub fn store_imm(&mut self, width: Width, imm: u32, m: &HostMem) {
        let opcode = if width == Width::B1 { 0xc6 } else { 0xc7 };
        self.op_mem(width, &[opcode], 0, m);
        match width {
            Width::B1 => self.bytes(&[imm as u8]),
            Width::B2 => self.bytes(&(imm as u16).to_le_bytes()),
            _ => self.bytes(&imm.to_le_bytes()),
        }
    }
    /// `lea reg32, [base + index*scale + disp]` on full registers: flag-free addition.
    pub fn lea32(&mut self, reg: u8, m: HostMem) {
        self.op_mem(Width::B4, &[0x8d], reg, &HostMem { window: false, ..m });
    }
    /// `lea reg64, …`.
    pub fn lea64(&mut self, reg: u8, m: HostMem) {
        self.op_mem(Width::B8, &[0x8d], reg, &HostMem { window: false, ..m });
    }
    /// `lea reg32, [reg + n]`.
    pub fn add_const(&mut self, reg: u8, n: i32) {
        self.lea32(reg, HostMem::at(reg, n));
    }
    /// `mov dst, src` between registers.
    pub fn mov_rr(&mut self, width: Width, dst: u8, src: u8) {
        let mut rex = if width == Width::B8 { 0x48 } else { 0 };
        if src >= 8 {
            rex |= 0x44;
        }
        if dst >= 8 {
            rex |= 0x41;
        }
        if width == Width::B1 && (src >= 4 || dst >= 4) {
            rex |= 0x40;
        }
        if width == Width::B2 {
            self.bytes(&[0x66]);
        }
        if rex != 0 {
            self.bytes(&[rex]);
        }
        self.bytes(&[
            if width == Width::B1 { 0x88 } else { 0x89 },
            0xc0 | ((src & 7) << 3) | (dst & 7),
        ]);
    }
    /// `movzx dst32, src16`.
    pub fn movzx16(&mut self, dst: u8, src: u8) {
        let rex = if dst >= 8 { 0x44 } else { 0 } | if src >= 8 { 0x41 } else { 0 };
        if rex != 0 {
            self.bytes(&[rex | 0x40]);
        }
        self.bytes(&[0x0f, 0xb7, 0xc0 | ((dst & 7) << 3) | (src & 7)]);
    }
    /// `mov reg32, imm32`.
    pub fn mov_imm(&mut self, reg: u8, imm: u32) {
        if reg >= 8 {
            self.bytes(&[0x41]);
        }
        self.bytes(&[0xb8 | (reg & 7)]);
        self.bytes(&imm.to_le_bytes());
    }

    /// Resolves every fixup for a unit placed at host address `base` and appends it to `out`.
    pub fn finish(&mut self, base: u64, out: &mut Vec<u8>) {
        let hot_len = self.hot_len();
        for &(cold, at, target) in &self.fixups {
            let field = u64::from(at + if cold { hot_len } else { 0 });
            let to = match target {
                Target::Absolute(a) => a,
                Target::Label(l) => base + u64::from(self.offset_of(l)),
            };
            let rel = to.wrapping_sub(base + field + 4) as u32;
            let buf = if cold { &mut self.cold } else { &mut self.hot };
            buf[at as usize..at as usize + 4].copy_from_slice(&rel.to_le_bytes());
        }
        out.clear();
        out.extend_from_slice(&self.hot);
        out.extend_from_slice(&self.cold);
    }
}

impl Extend<u8> for CodeBuf {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, iter: T) {
        self.cur().extend(iter);
    }
}

impl<'a> Extend<&'a u8> for CodeBuf {
    fn extend<T: IntoIterator<Item = &'a u8>>(&mut self, iter: T) {
        self.cur().extend(iter);
    }
}

impl DynasmApi for CodeBuf {
    fn offset(&self) -> AssemblyOffset {
        AssemblyOffset(self.pos() as usize)
    }
    fn push(&mut self, byte: u8) {
        self.cur().push(byte);
    }
    fn align(&mut self, alignment: usize, with: u8) {
        while !self.cur().len().is_multiple_of(alignment) {
            self.push(with);
        }
    }
}
