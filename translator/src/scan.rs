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

/// Bytes of the longest instruction. Intel SDM vol. 2A, 2.3.11.
pub const LONGEST: usize = 15;

/// True if what `bytes` begins with is no instruction only because it is longer than 15 bytes: that
/// raises #GP(0), not #UD. Prefixes alone make instructions so long.
#[must_use]
pub fn too_long(bytes: &[u8], code32: bool) -> bool {
    let Some(first) = bytes.first_chunk::<LONGEST>() else {
        return false;
    };
    let bits = if code32 { 32 } else { 16 };
    let length = |bytes: &[u8]| {
        let mut decoder = Decoder::with_ip(bits, bytes, 0, DecoderOptions::NONE);
        let len = decoder.decode().len();
        (decoder.last_error() == DecoderError::None).then_some(len)
    };
    for (from, &byte) in first.iter().enumerate() {
        // Without its first prefixes it is shorter, and may be an instruction: by itself, or with
        // some sixteenth byte. What really follows does not matter, and may lie on a missing page.
        if let Some(len) = length(&first[from..]) {
            return from + len > LONGEST;
        }
        let longer = (0..=u8::MAX).any(|next| {
            [0xc0, 0x58, 0x0f].into_iter().any(|rest| {
                let mut bytes = [rest; 2 * LONGEST];
                bytes[..LONGEST].copy_from_slice(first);
                bytes[LONGEST] = next;
                length(&bytes[from..]).is_some_and(|len| from + len > LONGEST)
            })
        });
        if longer || !is_prefix(byte) {
            return longer;
        }
    }
    true
}

/// True for the bytes that are prefixes in 16- and 32-bit code. Intel SDM vol. 2A, 2.1.1.
#[must_use]
pub const fn is_prefix(byte: u8) -> bool {
    matches!(
        byte,
        0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3
    )
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
            _ if !out.is_empty() => break,
            _ if too_long(bytes, code32) => Class::TooLong,
            DecoderError::NoMoreBytes => return Err(ScanError::NeedMoreBytes),
            _ => Class::Undefined,
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
            | Class::TooLong
    )
}

#[cfg(test)]
mod tests {
    use super::too_long;

    #[test]
    fn sixteen_bytes_are_too_long_and_fifteen_undefined_ones_are_not() {
        let with = |prefixes: &[u8], tail: &[u8]| [prefixes, tail].concat();
        assert!(too_long(&with(&[0x66; 15], &[0x90]), true));
        assert!(too_long(&with(&[0x66; 20], &[0x90]), true));
        assert!(too_long(&[0x66; 15], true));
        assert!(too_long(&with(&[0x2e; 11], &[0xb8, 1, 2, 3, 4]), true));
        assert!(!too_long(&with(&[0x2e; 11], &[0xb8, 1, 2, 3, 4]), false));
        let mut lock = [0x66; 14];
        lock[0] = 0xf0;
        assert!(!too_long(&with(&lock, &[0x90, 0x90, 0x90]), true));
        assert!(!too_long(&[0x0f, 0xff, 0xc0], true));
        assert!(too_long(&with(&[0x2e; 13], &[0xc5, 0xfc]), true));
        // The opcode is the sixteenth byte, or its ModR/M byte.
        let aesdeclast = [0x66, 0x0f, 0x38, 0xdf, 0xe8];
        assert!(too_long(&with(&[0x67; 12], &aesdeclast), true));
        assert!(too_long(&with(&[0x26; 13], &[0x0f, 0xc5, 0xe8, 5]), true));
        // An undefined opcode that ends at the fifteenth byte.
        assert!(!too_long(&with(&[0x26; 13], &[0xde, 0xda]), false));
        assert!(!too_long(&with(&[0x26; 13], &[0xde, 0xda, 0xcc]), false));
    }
}
