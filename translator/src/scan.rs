//! Scanning: guest bytes to a unit's instructions with their classes.

use crate::classify::{Class, Table};
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
        out.push(Scanned { insn, class });
        if ends_unit(class) {
            break;
        }
    }
    if out.is_empty() {
        return Err(ScanError::NeedMoreBytes);
    }
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
