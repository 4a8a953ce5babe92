//! INT n with and without redirection; INT3 and INTO.

use super::{STACK, VME, expect_frame, v86};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

/// INT n with and without redirection. Table 20-2.
fn software_interrupts() -> Vec<Row> {
    let mut rows = Vec::new();
    for iopl in 0..4u32 {
        for vme in [false, true] {
            for redirected in [false, true] {
                for dpl in [0u8, 3] {
                    for vif in [false, true] {
                        let name = format!(
                            "INT n: IOPL {iopl} VME {vme} bit {} gate DPL {dpl} IF or VIF {vif}",
                            u8::from(redirected)
                        );
                        let mut row = v86(name, iopl, if vme { VME } else { 0 });
                        row.eflags |= eflags::CF;
                        row.eflags |= match (vif, iopl == 3) {
                            (false, _) => 0,
                            (true, true) => eflags::IF,
                            (true, false) => eflags::VIF,
                        };
                        if vif && iopl < 3 && !vme {
                            continue;
                        }
                        let vector = 0x93u8;
                        // Bit set: the protected-mode handler.
                        let mut bitmap = [0u8; 32];
                        if redirected {
                            bitmap[usize::from(vector / 8)] = 1 << (vector % 8);
                        } else {
                            bitmap = [0xff; 32];
                            bitmap[usize::from(vector / 8)] = !(1 << (vector % 8));
                        }
                        row.put(at::TSS + 0x68, &bitmap);
                        row.open_vector(vector, dpl);
                        row.put(u32::from(vector) * 4, &[0x44, 0, 0, 0x10]); // 1000:0044
                        row.put(at::LOW_CODE + 0x44, &[0x0f, 0x0b]);
                        let eip = row.bytes(&[0xcd, vector]);
                        let next = row.here();
                        row.stop();
                        let to_8086 = vme && !redirected;
                        row.deviation = to_8086.then_some(deviation::NO_VME);
                        if to_8086 {
                            row.fault(6, None, 0x44);
                            let flag = if iopl == 3 { eflags::IF } else { eflags::VIF };
                            row.expect_flags(row.eflags & !flag);
                            let mut image = row.eflags & 0xffff | eflags::IOPL;
                            if iopl < 3 {
                                image = image & !eflags::IF | if vif { eflags::IF } else { 0 };
                            }
                            for (n, value) in
                                [next, at::LOW_CODE >> 4, image].into_iter().enumerate()
                            {
                                let address = STACK - 6 + n as u32 * 2;
                                row.watches.push((address, 2));
                                row.expect(Field::Mem(address), value);
                            }
                            row.expect_bits(Field::Esp, 0xffff, 0x8000 - 6);
                        } else if iopl < 3 {
                            row.fault(13, Some(0), eip);
                            expect_frame(&mut row, true);
                        } else if dpl < 3 {
                            row.fault(13, Some(u32::from(vector) * 8 + 2), eip);
                        } else {
                            row.fault(vector, None, next);
                            expect_frame(&mut row, false);
                            row.expect_flags(row.eflags);
                        }
                        rows.push(row);
                    }
                }
            }
        }
    }
    // INT3 and INTO are not sensitive to IOPL and never redirected.
    for (what, bytes, vector) in [("INT3", 0xccu8, 3u8), ("INTO", 0xce, 4)] {
        for iopl in [0, 3] {
            for dpl in [0u8, 3] {
                for vme in [false, true] {
                    let mut row = v86(
                        format!("{what}: IOPL {iopl} VME {vme} gate DPL {dpl}"),
                        iopl,
                        u32::from(vme),
                    );
                    row.eflags |= 0x800;
                    row.open_vector(vector, dpl);
                    let eip = row.bytes(&[bytes]);
                    let next = row.stop();
                    if dpl < 3 {
                        row.fault(13, Some(u32::from(vector) * 8 + 2), eip);
                    } else {
                        row.fault(vector, None, next);
                        expect_frame(&mut row, false);
                    }
                    rows.push(row);
                }
            }
        }
    }
    rows
}

/// The table.
pub(super) fn table() -> Table {
    Table::new(
        "v86-interrupts",
        "SDM 3B 20.3.3 (table 20-2); vol. 2, INT",
        software_interrupts(),
    )
}
