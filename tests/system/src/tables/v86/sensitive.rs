//! CLI, STI, PUSHF, POPF and IRET by IOPL, VME and VIP.

use super::{STACK, VME, expect_frame, v86};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

/// CLI, STI, PUSHF, POPF, INT n, IRET: 20.2.7, 20.3, and each instruction's page.
fn sensitive() -> Vec<Row> {
    let mut rows = Vec::new();
    for iopl in 0..4u32 {
        for vme in [false, true] {
            for vip in [false, true] {
                for set in [false, true] {
                    if vip && !vme {
                        continue;
                    }
                    let new = |what: &str| {
                        let name =
                            format!("{what}: IOPL {iopl} VME {vme} VIP {vip} IF or VIF {set}");
                        let mut row = v86(name, iopl, if vme { VME } else { 0 });
                        row.eflags |= if vip { eflags::VIP } else { 0 };
                        row.eflags |= match (set, iopl == 3) {
                            (false, _) => 0,
                            (true, true) => eflags::IF,
                            (true, false) => eflags::VIF,
                        };
                        row
                    };
                    let virtual_flag = vme && iopl < 3;
                    let refused = iopl < 3 && !vme;
                    let finish = |mut row: Row, eip: u32, fails: bool, change: Option<u32>| {
                        row.deviation = (virtual_flag && !fails).then_some(deviation::NO_VME);
                        if fails {
                            row.stop();
                            row.fault(13, Some(0), eip);
                            expect_frame(&mut row, true);
                            row.expect_flags(row.eflags);
                        } else {
                            row.ends();
                            if let Some(flags) = change {
                                row.expect_flags(flags);
                            }
                        }
                        row
                    };
                    let bit = if virtual_flag {
                        eflags::VIF
                    } else {
                        eflags::IF
                    };

                    let mut row = new("CLI");
                    let flags = row.eflags & !bit;
                    let eip = row.bytes(&[0xfa]);
                    rows.push(finish(row, eip, refused, Some(flags)));

                    let mut row = new("STI");
                    let flags = row.eflags | bit;
                    let eip = row.bytes(&[0xfb]);
                    rows.push(finish(
                        row,
                        eip,
                        refused || virtual_flag && vip,
                        Some(flags),
                    ));

                    for wide in [false, true] {
                        // PUSHF pushes IOPL 3 and VIF for IF; PUSHFD is refused below IOPL 3.
                        let mut row = new(if wide { "PUSHFD" } else { "PUSHF" });
                        let eip = row.bytes(if wide { &[0x66, 0x9c] } else { &[0x9c] });
                        let mut image = row.eflags & 0xffff;
                        if virtual_flag {
                            image |= eflags::IOPL;
                            image = image & !eflags::IF | if set { eflags::IF } else { 0 };
                        }
                        if wide {
                            // VM and RF are not stored.
                            image |= row.eflags & (eflags::VIF | eflags::VIP);
                        }
                        let fails = refused || iopl < 3 && wide;
                        if !fails {
                            if wide {
                                row.expect(Field::Mem(STACK - 4), image);
                            } else {
                                row.watches.push((STACK - 2, 2));
                                row.expect(Field::Mem(STACK - 2), image);
                            }
                        }
                        rows.push(finish(row, eip, fails, None));

                        // POPF: IF goes to VIF; a TF in the image, or VIP with IF, is refused.
                        for image in [
                            0u32,
                            eflags::IF,
                            eflags::TF | eflags::ZF,
                            0xffff & !eflags::TF,
                            eflags::ZF | eflags::CF,
                        ] {
                            let mut row = new(&format!(
                                "{} {image:#x}",
                                if wide { "POPFD" } else { "POPF" }
                            ));
                            row.put32(STACK, image);
                            let eip = row.bytes(if wide { &[0x66, 0x9d] } else { &[0x9d] });
                            let fails = refused
                                || iopl < 3 && wide
                                || virtual_flag
                                    && (image & eflags::TF != 0 || vip && image & eflags::IF != 0);
                            let arithmetic = 0xcd5 | eflags::NT;
                            let mut flags = row.eflags & !arithmetic | image & arithmetic;
                            if virtual_flag {
                                flags = flags & !eflags::VIF
                                    | if image & eflags::IF != 0 {
                                        eflags::VIF
                                    } else {
                                        0
                                    };
                            } else {
                                flags = flags & !eflags::IF | image & eflags::IF;
                            }
                            if wide {
                                // AC and ID come from the image, which has them clear.
                                flags &= !(eflags::AC | eflags::ID);
                            }
                            if !fails && image & eflags::TF != 0 {
                                row.bytes(&[0x90]);
                                let end = row.stop();
                                row.fault(1, None, end);
                                rows.push(row);
                                continue;
                            }
                            rows.push(finish(row, eip, fails, Some(flags)));

                            // IRET the same.
                            if wide && iopl < 3 {
                                continue;
                            }
                            let mut row = new(&format!(
                                "{} {image:#x}",
                                if wide { "IRETD" } else { "IRET" }
                            ));
                            let eip = row.bytes(if wide { &[0x66, 0xcf] } else { &[0xcf] });
                            let target = 0x40;
                            if wide {
                                row.put32(STACK, target);
                                row.put32(STACK + 4, at::LOW_CODE >> 4);
                                row.put32(STACK + 8, image);
                            } else {
                                row.put(STACK, &(target as u16).to_le_bytes());
                                row.put(STACK + 2, &((at::LOW_CODE >> 4) as u16).to_le_bytes());
                                row.put(STACK + 4, &(image as u16).to_le_bytes());
                            }
                            row.stop();
                            row.deviation = (virtual_flag && !fails).then_some(deviation::NO_VME);
                            row.put(at::LOW_CODE + target, &[0x90, 0x0f, 0x0b]);
                            if fails {
                                row.fault(13, Some(0), eip);
                            } else if image & eflags::TF != 0 {
                                row.fault(1, None, target + 1);
                            } else {
                                row.fault(6, None, target + 1);
                                row.expect_flags(flags);
                                row.expect_bits(
                                    Field::Esp,
                                    0xffff,
                                    0x8000 + if wide { 12 } else { 6 },
                                );
                            }
                            rows.push(row);
                        }
                    }
                }
            }
        }
    }
    rows
}

/// The table.
pub(super) fn table() -> Table {
    Table::new(
        "v86-sensitive",
        "SDM 3B 20.2.7, 20.3.3, 20.4; vol. 2, CLI, STI, PUSHF, POPF, IRET",
        sensitive(),
    )
}
