//! What the kernel found at the end of a row.

use crate::row::{Field, Row};
use anyhow::{Result, bail};
use std::collections::BTreeMap;

const MAGIC: u32 = 0x2157_4f52;
/// Bytes before the watched memory.
const FIXED: usize = 156;

/// [`Field::Kind`] of a handler that a task gate led to, added to the vector.
pub const BY_TASK: u32 = 0x100;
/// [`Field::Kind`] of a shutdown (triple fault).
pub const SHUTDOWN: u32 = 0x200;
/// [`Field::Kind`] of a real-mode handler, added to the vector.
pub const REAL: u32 = 0x300;

/// One row's outcome.
#[derive(Clone, Debug)]
pub struct Record {
    words: Vec<u32>,
    watched: Vec<u8>,
}

impl Record {
    fn word(&self, byte: usize) -> u32 {
        self.words[byte / 4]
    }

    /// Everything that can be named, for this row.
    #[must_use]
    pub fn fields(&self, row: &Row) -> BTreeMap<Field, u32> {
        use Field as F;
        let mut f = BTreeMap::new();
        let kind = self.word(12);
        f.insert(F::Kind, kind);
        let mut at = 0;
        for &(address, len) in &row.watches {
            for n in (0..len).step_by(4) {
                let take = (len - n).min(4) as usize;
                let mut raw = [0; 4];
                raw[..take].copy_from_slice(&self.watched[at..at + take]);
                f.insert(F::Mem(address + n), u32::from_le_bytes(raw));
                at += take;
            }
        }
        if kind == SHUTDOWN {
            return f;
        }
        for n in 0..8 {
            f.insert(F::Gpr(n as u8), self.word(16 + n * 4));
        }
        for (n, name) in [F::Ss, F::Ds, F::Es, F::Fs, F::Gs].into_iter().enumerate() {
            f.insert(name, self.word(52 + n * 4) & 0xffff);
        }
        let names = [F::HandlerCs, F::Cr0, F::Cr2, F::Cr3, F::Cr4, F::Dr6, F::Dr7];
        for (n, name) in names.into_iter().enumerate() {
            f.insert(name, self.word(72 + n * 4));
        }
        f.insert(F::HandlerFlags, self.word(48));
        f.insert(F::HandlerEsp, self.word(32));
        f.insert(F::HandlerSs, self.word(52) & 0xffff);
        f.insert(F::Tr, self.word(100));
        f.insert(F::Ldtr, self.word(104));
        self.frame(row, kind, &mut f);
        f
    }

    /// What the processor pushed.
    fn frame(&self, row: &Row, kind: u32, f: &mut BTreeMap<Field, u32>) {
        use Field as F;
        let esp = self.word(32);
        let narrow = row.narrow_frame || kind & REAL == REAL;
        let width = if narrow { 2 } else { 4 };
        let slot = |n: usize| {
            let word = self.words[(108 + n * width) / 4];
            if !narrow {
                word
            } else if n.is_multiple_of(2) {
                word & 0xffff
            } else {
                word >> 16
            }
        };
        let vector = kind & 0xff;
        let has_error =
            kind & REAL != REAL && row.error_code.unwrap_or(matches!(vector, 8 | 10..=14 | 17));
        let first = usize::from(has_error);
        if has_error {
            f.insert(F::Error, slot(0));
        }
        if kind & REAL == BY_TASK {
            return;
        }
        let (cs, eflags) = (slot(first + 1) & 0xffff, slot(first + 2));
        f.insert(F::Eip, slot(first));
        f.insert(F::Cs, cs);
        f.insert(F::Eflags, eflags);
        let v86 = !narrow && eflags & 1 << 17 != 0;
        if kind & REAL != REAL && (v86 || cs & 3 != self.word(72) & 3) {
            f.insert(F::Esp, slot(first + 3));
            f.insert(F::Ss, slot(first + 4) & 0xffff);
        } else {
            let after = esp.wrapping_add(((first + 3) * width) as u32);
            f.insert(
                F::Esp,
                if kind & REAL == REAL {
                    after & 0xffff
                } else {
                    after
                },
            );
        }
        if v86 {
            for (n, name) in [F::Es, F::Ds, F::Fs, F::Gs].into_iter().enumerate() {
                if first + 5 + n < 12 {
                    f.insert(name, slot(first + 5 + n) & 0xffff);
                }
            }
        }
    }
}

/// Reads the records of `rows` from what came over the serial port. A run that ended early gives
/// fewer than there are rows.
///
/// # Errors
/// If the bytes are no records.
pub fn parse(mut bytes: &[u8], rows: &[Row]) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while bytes.len() >= FIXED {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        let (magic, size, index) = (word(0), word(4) as usize, word(8) as usize);
        if magic != MAGIC {
            break;
        }
        if index != records.len() || index >= rows.len() || size < FIXED || size > bytes.len() {
            bail!(
                "record {index} of {size} bytes after {} records",
                records.len()
            );
        }
        let watched: u32 = rows[index].watches.iter().map(|w| w.1).sum();
        if size != FIXED + watched as usize {
            bail!(
                "record {index} has {size} bytes, {} expected",
                FIXED + watched as usize
            );
        }
        records.push(Record {
            words: (0..FIXED / 4).map(|n| word(n * 4)).collect(),
            watched: bytes[FIXED..size].to_vec(),
        });
        bytes = &bytes[size..];
    }
    Ok(records)
}

/// True if the kernel said that every row has run.
#[must_use]
pub fn complete(bytes: &[u8]) -> bool {
    bytes.len() >= 8 && bytes[bytes.len() - 8..].starts_with(b"DONE")
}
