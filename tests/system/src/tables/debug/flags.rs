//! What POPF and IRET change, by ring and IOPL.

use crate::layout as at;
use crate::row::{Row, Table, eflags};

/// What POPF and IRET change, by ring and IOPL. Vol. 2.
fn flags() -> Vec<Row> {
    let mut rows = Vec::new();
    let all = 0x0027_7fd7 & !eflags::TF;
    for cpl in 0..4u8 {
        for iopl in [0u32, 1, 2, 3] {
            for (initial, image) in [
                (eflags::FIXED, all),
                (
                    all & !eflags::RF & !eflags::NT & !eflags::VM & !eflags::IOPL,
                    eflags::FIXED,
                ),
            ] {
                for (name, bytes, wide, iret) in [
                    ("POPF", &[0x66, 0x9d][..], false, false),
                    ("POPFD", &[0x9d], true, false),
                    ("IRET", &[0x66, 0xcf], false, true),
                    ("IRETD", &[0xcf], true, true),
                ] {
                    // VM in an IRETD image of ring 0 is another matter.
                    let image = if iret { image & !eflags::VM } else { image };
                    let mut row = Row::new(format!(
                        "{name}: ring {cpl} IOPL {iopl} {initial:#x} to {image:#x}"
                    ))
                    .cpl(cpl);
                    row.eflags = initial | iopl << 12;
                    let esp = at::ROW_STACK - 0x20;
                    row.gpr[4] = esp;
                    let mut mask = 0xcd5 & !eflags::TF | eflags::NT;
                    if u32::from(cpl) <= iopl {
                        mask |= eflags::IF;
                    }
                    if cpl == 0 {
                        mask |= eflags::IOPL;
                    }
                    if wide {
                        mask |= eflags::AC | eflags::ID;
                    }
                    let expected = row.eflags & !mask | image & mask;
                    if iret {
                        let values = [at::TARGET, u32::from(at::code_of(cpl)), image];
                        if wide {
                            for (n, value) in values.into_iter().enumerate() {
                                row.put32(esp + n as u32 * 4, value);
                            }
                        } else {
                            // The target must be below 64 KiB.
                            let words = [0x500u16, at::code_of(cpl), image as u16];
                            let bytes: Vec<u8> =
                                words.iter().flat_map(|w| w.to_le_bytes()).collect();
                            row.put(esp, &bytes);
                            row.put(0x500, &[0x0f, 0x0b]);
                        }
                        row.put(at::TARGET, &[0x0f, 0x0b]);
                        row.bytes(bytes);
                        row.stop();
                        row.fault(6, None, if wide { at::TARGET } else { 0x500 });
                    } else {
                        row.put32(esp, image);
                        row.bytes(bytes);
                        row.ends();
                    }
                    row.expect_flags(expected);
                    rows.push(row);
                }
            }
        }
    }
    rows
}

/// The table.
pub(super) fn table() -> Table {
    Table::new("eflags", "SDM vol. 2, POPF, IRET", flags())
}
