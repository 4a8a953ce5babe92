//! Cases as text: printed for people, stored as golden tests, read back.
//!
//! One `key value` pair a line; `#` starts a comment. Values that equal the default are left out.
//!
//! ```text
//! title Add_rm32_r32/r@32: add eax, ebx
//! width 32
//! code_at 00400100
//! piece 01 d8
//! gpr 00000001 ...        (EAX ECX EDX EBX ESP EBP ESI EDI)
//! seg 2b 23 2b 2b 2b 2b   (ES CS SS DS FS GS)
//! eip 00400100
//! eflags 202
//! ```

use crate::case::{Case, Privilege, Regs, Width};
use crate::vector::Vector;
use std::fmt::Write;

/// Why a text is not a case.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {what}")]
pub struct TextError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

fn hex_bytes(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The case as text.
#[must_use]
pub fn print(case: &Case) -> String {
    let mut t = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(t, "{key} {value}");
    };
    let r = &case.regs;
    line("title", case.title.clone());
    line("width", case.width.bits().to_string());
    line("code_at", format!("{:08x}", case.code_at));
    for piece in &case.pieces {
        line("piece", hex_bytes(piece));
    }
    line("gpr", r.gpr.map(|g| format!("{g:08x}")).join(" "));
    line("seg", r.seg.map(|g| format!("{g:x}")).join(" "));
    line("eip", format!("{:08x}", r.eip));
    line("eflags", format!("{:x}", r.eflags));
    let plain = Vector::default();
    let v = &case.vector;
    if (v.fcw, v.fsw, v.ftw) != (plain.fcw, plain.fsw, plain.ftw) {
        line("x87", format!("{:x} {:x} {:x}", v.fcw, v.fsw, v.ftw));
    }
    if v.mxcsr != plain.mxcsr {
        line("mxcsr", format!("{:x}", v.mxcsr));
    }
    for n in 0..8 {
        if v.st[n] != plain.st[n] {
            line("st", format!("{n} {}", hex_bytes(&v.st[n])));
        }
        if v.zmm[n] != plain.zmm[n] {
            let used = v.zmm[n].iter().rposition(|b| *b != 0).map_or(0, |p| p + 1);
            line("vector", format!("{n} {}", hex_bytes(&v.zmm[n][..used])));
        }
        if v.k[n] != 0 {
            line("mask", format!("{n} {:x}", v.k[n]));
        }
    }
    if case.fill != 0 {
        line("fill", format!("{:x}", case.fill));
    }
    for (at, bytes) in &case.patches {
        line("patch", format!("{at:08x} {}", hex_bytes(bytes)));
    }
    if case.undefined != 0 || case.undefined_at_fault != 0 {
        line(
            "undefined",
            format!("{:x} {:x}", case.undefined, case.undefined_at_fault),
        );
    }
    for (at, len) in &case.ignored {
        line("ignored", format!("{at:x} {len:x}"));
    }
    if case.privilege == Privilege::UserOnly {
        line("user_only", "1".into());
    }
    t
}

/// Reads a case.
///
/// # Errors
/// [`TextError`] with the line that is wrong.
pub fn parse(text: &str) -> Result<Case, TextError> {
    let mut case = Case {
        title: String::new(),
        width: Width::Code32,
        pieces: Vec::new(),
        code_at: 0,
        regs: Regs::default(),
        vector: Vector::default(),
        fill: 0,
        patches: Vec::new(),
        undefined: 0,
        undefined_at_fault: 0,
        ignored: Vec::new(),
        privilege: Privilege::Any,
    };
    for (n, raw) in text.lines().enumerate() {
        let trimmed = raw.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let fail = |what: String| TextError { line: n + 1, what };
        let (key, value) = trimmed
            .split_once(' ')
            .ok_or_else(|| fail("a key without value".into()))?;
        if key == "title" {
            case.title = value.into();
            continue;
        }
        let numbers: Vec<u64> = value
            .split_whitespace()
            .map(|w| {
                u64::from_str_radix(w, 16)
                    .map_err(|_| fail(format!("{w} is not a hexadecimal number")))
            })
            .collect::<Result<_, _>>()?;
        set(&mut case, key, &numbers).map_err(fail)?;
    }
    if case.pieces.is_empty() {
        return Err(TextError {
            line: 1,
            what: "no code".into(),
        });
    }
    Ok(case)
}

fn set(case: &mut Case, key: &str, v: &[u64]) -> Result<(), String> {
    let bytes = |from: usize| {
        v[from.min(v.len())..]
            .iter()
            .map(|b| *b as u8)
            .collect::<Vec<u8>>()
    };
    let need = |n: usize| {
        if v.len() < n {
            Err(format!("{key} needs {n} values"))
        } else {
            Ok(())
        }
    };
    let register = |n: u64| {
        usize::try_from(n)
            .ok()
            .filter(|n| *n < 8)
            .ok_or("register number above 7".to_string())
    };
    need(1)?;
    match key {
        "width" => {
            case.width = match v[0] {
                0x16 => Width::Code16,
                0x32 => Width::Code32,
                _ => return Err("the width is 16 or 32".into()),
            }
        }
        "code_at" => case.code_at = v[0] as u32,
        "piece" => case.pieces.push(bytes(0)),
        "gpr" => {
            need(8)?;
            case.regs.gpr = core::array::from_fn(|n| v[n] as u32);
        }
        "seg" => {
            need(6)?;
            case.regs.seg = core::array::from_fn(|n| v[n] as u16);
        }
        "eip" => case.regs.eip = v[0] as u32,
        "eflags" => case.regs.eflags = v[0] as u32,
        "x87" => {
            need(3)?;
            (case.vector.fcw, case.vector.fsw, case.vector.ftw) =
                (v[0] as u16, v[1] as u16, v[2] as u8);
        }
        "mxcsr" => case.vector.mxcsr = v[0] as u32,
        "st" => {
            let b = bytes(1);
            let st = &mut case.vector.st[register(v[0])?];
            *st = b.try_into().map_err(|_| "st needs ten bytes".to_string())?;
        }
        "vector" => {
            let b = bytes(1);
            let z = &mut case.vector.zmm[register(v[0])?];
            *z = [0; 64];
            z.get_mut(..b.len())
                .ok_or("more than 64 bytes")?
                .copy_from_slice(&b);
        }
        "mask" => {
            need(2)?;
            case.vector.k[register(v[0])?] = v[1];
        }
        "fill" => case.fill = v[0],
        "patch" => case.patches.push((v[0] as u32, bytes(1))),
        "undefined" => {
            need(2)?;
            (case.undefined, case.undefined_at_fault) = (v[0] as u32, v[1] as u32);
        }
        "ignored" => {
            need(2)?;
            case.ignored.push((v[0] as u32, v[1] as u32));
        }
        "user_only" => case.privilege = Privilege::UserOnly,
        _ => return Err(format!("unknown key {key}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{forms, unit};
    use crate::rng::Rng;

    #[test]
    fn every_form_survives_print_and_parse() {
        for form in forms::table().0.iter().step_by(7) {
            if let Ok(case) = unit::make(*form, &mut Rng::new(9)) {
                assert_eq!(parse(&print(&case)).as_ref(), Ok(&case));
            }
        }
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(parse("width 32\nfoo 1\n").unwrap_err().line, 2);
        assert_eq!(parse("piece 90\ngpr 1\n").unwrap_err().line, 2);
    }
}
