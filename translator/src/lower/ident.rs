//! Instructions that are re-encoded as themselves: registers renamed, memory operand rewritten.

use super::access::{Rw, memory_operand};
use super::{Lower, host_number, set_memory};
use crate::asm::{HostMem, Width, reg};
use crate::classify::Trap;
use crate::mutation::Mutation;
use iced_x86::{Code, Instruction, InstructionInfoOptions, Mnemonic, OpAccess, OpKind, Register};

/// What one byte-register operand needs when the encoding has a REX prefix.
#[derive(Clone, Copy)]
struct HighByte {
    operand: u32,
    /// Host register whose bits 8-15 it is.
    of: u8,
    written: bool,
}

fn high_byte_of(r: Register) -> Option<u8> {
    match r {
        Register::AH => Some(0),
        Register::CH => Some(1),
        Register::DH => Some(2),
        Register::BH => Some(3),
        _ => None,
    }
}

impl Lower<'_> {
    /// Lowers a [`crate::classify::Class::Ident`] instruction.
    pub(crate) fn ident(&mut self, guest: &Instruction) {
        let mut insn = *guest;
        canonical(&mut insn);
        let mut memory = None;
        {
            let info = self
                .info
                .info_options(&insn, InstructionInfoOptions::NO_REGISTER_USAGE);
            for u in info.used_memory() {
                let rw = match u.access() {
                    OpAccess::Read
                    | OpAccess::CondRead
                    | OpAccess::NoMemAccess
                    | OpAccess::None => Rw::Read,
                    // With an unmasked exception the x87 writes nothing, without a fault.
                    OpAccess::Write if may_not_store(guest.mnemonic()) => Rw::Update,
                    OpAccess::Write => Rw::Write,
                    _ => Rw::Update,
                };
                let none = matches!(u.access(), OpAccess::NoMemAccess | OpAccess::None);
                memory = Some((u.memory_size().size() as u32, rw, none));
            }
        }
        let mut high = None;
        for i in 0..insn.op_count() {
            if insn.op_kind(i) != OpKind::Register {
                continue;
            }
            let r = insn.op_register(i);
            match r {
                Register::ESP => insn.set_op_register(i, Register::R12D),
                Register::SP => insn.set_op_register(i, Register::R12W),
                _ => {}
            }
            if let Some(of) = high_byte_of(r) {
                // Which operands are written does not matter for correctness of the copy back.
                high = Some(HighByte {
                    operand: i,
                    of,
                    written: i == 0
                        || guest.mnemonic() == Mnemonic::Xadd
                        || guest.mnemonic() == Mnemonic::Xchg,
                });
            }
        }
        let Some((size, rw, none)) = memory else {
            let needs_rex = (0..insn.op_count())
                .any(|i| matches!(insn.op_register(i), Register::R12D | Register::R12W));
            let ok = match high {
                Some(h) if needs_rex => self.with_high_byte(&mut insn, h),
                _ => self.encode(&insn),
            };
            if !ok {
                self.callout(guest, Some(Trap::Undefined));
            }
            return;
        };
        if none || size == 0 {
            // Only address computations without an access (none is left in this class).
            self.callout(guest, Some(Trap::Undefined));
            return;
        }
        let (seg, ea) = memory_operand(&insn);
        // XCHG with memory and LOCK work on window and soft addresses alike.
        let mut failed = false;
        self.access(seg, ea, size, rw, &mut |l, m| {
            let mut host = insn;
            set_memory(&mut host, m);
            failed |= match high {
                Some(h) if m.needs_rex() => !l.with_high_byte(&mut host, h),
                _ => !l.encode(&host),
            };
        });
        debug_assert!(!failed, "cannot encode {guest}");
        if failed {
            self.callout(guest, Some(Trap::Undefined));
        }
    }

    /// Encodes an instruction whose high-byte register cannot be named beside a REX prefix: works
    /// on a rotated copy in r11. Flags are the instruction's own (RORX has none).
    fn with_high_byte(&mut self, insn: &mut Instruction, h: HighByte) -> bool {
        self.rorx32(reg::R11, h.of, 8);
        insn.set_op_register(h.operand, Register::R11L);
        let ok = self.encode(insn);
        if h.written && !self.broken(Mutation::HighByte) {
            self.rorx32(h.of, reg::R11, 24);
        }
        ok
    }

    /// `rorx dst, src, count` on 32 bits.
    pub(crate) fn rorx32(&mut self, dst: u8, src: u8, count: u8) {
        let r = if dst >= 8 { 0 } else { 0x80 };
        let b = if src >= 8 { 0 } else { 0x20 };
        self.c().bytes(&[
            0xc4,
            r | 0x40 | b | 3,
            0x7b,
            0xf0,
            0xc0 | ((dst & 7) << 3) | (src & 7),
            count,
        ]);
    }

    /// LEA: no access, only arithmetic.
    pub(crate) fn lea(&mut self, insn: &Instruction) {
        let (_, ea) = memory_operand(insn);
        let dst = host_number(insn.op0_register());
        let m = ea.mem();
        let wide = insn.code() == Code::Lea_r32_m;
        if wide && !ea.addr16 {
            self.c().lea32(dst, m);
            return;
        }
        self.c().lea32(reg::R13, m);
        if ea.addr16 {
            self.c().movzx16(reg::R13, reg::R13);
        }
        self.c()
            .mov_rr(if wide { Width::B4 } else { Width::B2 }, dst, reg::R13);
    }

    /// BT/BTS/BTR/BTC m, r: the bit offset reaches beyond the operand. Computes the address of the
    /// unit that holds the bit, then works with the offset modulo the operand size.
    pub(crate) fn bit_string(&mut self, guest: &Instruction) {
        let (seg, ea) = memory_operand(guest);
        let wide = matches!(
            guest.code(),
            Code::Bt_rm32_r32 | Code::Bts_rm32_r32 | Code::Btr_rm32_r32 | Code::Btc_rm32_r32
        );
        let source = host_number(guest.op1_register());
        let write = !matches!(guest.code(), Code::Bt_rm32_r32 | Code::Bt_rm16_r16);
        let (shift, scale) = if wide { (5, 4) } else { (4, 2) };
        // r8 = signed bit offset >> shift; r11 = offset mod size (in bits)
        if wide {
            self.c().mov_rr(Width::B4, reg::R8, source);
        } else if self.broken(Mutation::BitOffsetWord) {
            self.c().movzx16(reg::R8, source);
        } else {
            let rex = 0x44 | if source >= 8 { 1 } else { 0 };
            self.c().bytes(&[rex, 0x0f, 0xbf, 0xc0 | (source & 7)]); // movsx r8d, source16
        }
        // sarx r8d, r8d, r14d (or, by mistake, shrx)
        let pp = if self.broken(Mutation::BitOffsetSign) {
            0x0b
        } else {
            0x0a
        };
        let c = self.c();
        c.mov_imm(reg::R14, shift);
        c.bytes(&[0xc4, 0x42, pp, 0xf7, 0xc0]);
        c.mov_imm(reg::R14, if wide { 31 } else { 15 });
        // pext r11d, source, r14d
        c.bytes(&[0xc4, 0x42, ((!source & 0xf) << 3) | 2, 0xf5, 0xde]);
        // r8 = base address + r8 * scale
        c.lea32(reg::R13, ea.mem());
        c.lea32(reg::R8, HostMem::indexed(reg::R13, (reg::R8, scale), 0));
        let ea = super::access::Ea::of_register(reg::R8, 0, ea.addr16);
        let rw = if write { Rw::Update } else { Rw::Read };
        let mut insn = *guest;
        insn.set_op1_register(if wide { Register::R11D } else { Register::R11W });
        let mut ok = true;
        self.access(seg, ea, if wide { 4 } else { 2 }, rw, &mut |l, m| {
            let mut host = insn;
            set_memory(&mut host, m);
            ok &= l.encode(&host);
        });
        debug_assert!(ok);
    }
}

/// x87 stores of numbers. The host's write may not happen, but the bounce buffer is committed.
fn may_not_store(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Fst | M::Fstp | M::Fist | M::Fistp | M::Fisttp | M::Fbstp
    )
}

/// Replaces encodings that 64-bit mode does not have.
fn canonical(insn: &mut Instruction) {
    let code = match insn.code() {
        Code::Inc_r32 => Code::Inc_rm32,
        Code::Inc_r16 => Code::Inc_rm16,
        Code::Dec_r32 => Code::Dec_rm32,
        Code::Dec_r16 => Code::Dec_rm16,
        Code::Mov_AL_moffs8 => Code::Mov_r8_rm8,
        Code::Mov_AX_moffs16 => Code::Mov_r16_rm16,
        Code::Mov_EAX_moffs32 => Code::Mov_r32_rm32,
        Code::Mov_moffs8_AL => Code::Mov_rm8_r8,
        Code::Mov_moffs16_AX => Code::Mov_rm16_r16,
        Code::Mov_moffs32_EAX => Code::Mov_rm32_r32,
        Code::Add_rm8_imm8_82 => Code::Add_rm8_imm8,
        Code::Or_rm8_imm8_82 => Code::Or_rm8_imm8,
        Code::Adc_rm8_imm8_82 => Code::Adc_rm8_imm8,
        Code::Sbb_rm8_imm8_82 => Code::Sbb_rm8_imm8,
        Code::And_rm8_imm8_82 => Code::And_rm8_imm8,
        Code::Sub_rm8_imm8_82 => Code::Sub_rm8_imm8,
        Code::Xor_rm8_imm8_82 => Code::Xor_rm8_imm8,
        Code::Cmp_rm8_imm8_82 => Code::Cmp_rm8_imm8,
        _ => return,
    };
    insn.set_code(code);
}
