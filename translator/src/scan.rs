//! Scanning: guest bytes to a unit's instructions with their classes and flag liveness.

use crate::classify::{ARITH_FLAGS, Class, Table, flags_killed};
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};

/// Most instructions in one unit.
pub const MAX_INSTRUCTIONS: usize = 96;

/// One scanned instruction.
#[derive(Clone, Copy)]
pub struct Scanned {
    /// As decoded in guest mode; `ip` is the EIP.
    pub insn: Instruction,
    /// How it is lowered.
    pub class: Class,
    /// True if no arithmetic flag's value before this instruction matters.
    pub flags_dead: bool,
}

/// Why nothing could be scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanError {
    /// The first instruction reaches beyond the given bytes.
    NeedMoreBytes,
}

/// Scans a unit that starts at `eip`; `limit` is the most instructions to take. The result ends
/// with the first instruction that ends a unit, or before the first that is incomplete.
/// # Errors
/// [`ScanError::NeedMoreBytes`] if not even one instruction is complete.
pub fn scan(
    bytes: &[u8],
    eip: u32,
    code32: bool,
    limit: usize,
    table: &Table,
    out: &mut Vec<Scanned>,
) -> Result<(), ScanError> {
    out.clear();
    let bits = if code32 { 32 } else { 16 };
    let mut decoder = Decoder::with_ip(bits, bytes, u64::from(eip), DecoderOptions::NONE);
    let mut insn = Instruction::default();
    while out.len() < limit && decoder.can_decode() {
        decoder.decode_out(&mut insn);
        let class = match decoder.last_error() {
            DecoderError::None => table.class(&insn),
            DecoderError::NoMoreBytes => {
                if out.is_empty() {
                    return Err(ScanError::NeedMoreBytes);
                }
                break;
            }
            _ => {
                if !out.is_empty() {
                    break;
                }
                Class::Undefined
            }
        };
        out.push(Scanned {
            insn,
            class,
            flags_dead: false,
        });
        if ends_unit(class) {
            break;
        }
    }
    if out.is_empty() {
        return Err(ScanError::NeedMoreBytes);
    }
    mark_liveness(out);
    Ok(())
}

/// Whether a unit ends after an instruction of this class.
#[must_use]
pub fn ends_unit(class: Class) -> bool {
    matches!(
        class,
        Class::Call
            | Class::CallIndirect
            | Class::Return
            | Class::Jump
            | Class::JumpIndirect
            | Class::JumpIf
            | Class::Loop
            | Class::CalloutEnd
            | Class::Undefined
    )
}

fn flags_read(s: &Scanned) -> u32 {
    match s.class {
        Class::Callout | Class::CalloutEnd | Class::Undefined | Class::Pushf | Class::Sti => {
            ARITH_FLAGS
        }
        _ => s.insn.rflags_read() & ARITH_FLAGS,
    }
}

fn mark_liveness(insns: &mut [Scanned]) {
    let mut live = ARITH_FLAGS;
    for s in insns.iter_mut().rev() {
        let killed = if s.class == Class::Nop {
            0
        } else {
            flags_killed(&s.insn)
        };
        live = (live & !killed) | flags_read(s);
        s.flags_dead = live & ARITH_FLAGS == 0;
    }
}

/// Whether the arithmetic flags are dead at `eip`, by looking at the instructions there; false
/// when it cannot be seen.
#[must_use]
pub fn flags_dead_at(bytes: &[u8], eip: u32, code32: bool, table: &Table) -> bool {
    let bits = if code32 { 32 } else { 16 };
    let mut decoder = Decoder::with_ip(bits, bytes, u64::from(eip), DecoderOptions::NONE);
    let mut live = ARITH_FLAGS;
    for _ in 0..12 {
        if !decoder.can_decode() {
            return false;
        }
        let insn = decoder.decode();
        if decoder.last_error() != DecoderError::None {
            return false;
        }
        let s = Scanned {
            insn,
            class: table.class(&insn),
            flags_dead: false,
        };
        if flags_read(&s) & live != 0 || ends_unit(s.class) {
            return false;
        }
        live &= !flags_killed(&insn);
        if live == 0 {
            return true;
        }
    }
    false
}
