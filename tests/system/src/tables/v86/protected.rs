//! Protected-mode virtual interrupts: CR4.PVI, ring 3 with IOPL below 3.

use super::PVI;
use crate::deviation;
use crate::row::{Row, Table, eflags};

/// CR4.PVI: ring 3 with IOPL below 3. 20.4.
fn protected_virtual_interrupts() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in [0u8, 2, 3] {
        for iopl in [0u32, 2, 3] {
            for vip in [false, true] {
                for (what, opcode) in [("CLI", 0xfau8), ("STI", 0xfb)] {
                    let mut row =
                        Row::new(format!("PVI, {what}: CPL {cpl} IOPL {iopl} VIP {vip}")).cpl(cpl);
                    row.cr4 = PVI;
                    row.eflags |= iopl << 12 | if vip { eflags::VIP } else { 0 };
                    row.eflags |= if opcode == 0xfa { eflags::VIF } else { 0 };
                    let eip = row.bytes(&[opcode]);
                    let real = u32::from(cpl) <= iopl;
                    let virtual_flag = !real && cpl == 3;
                    let fails = !real && (!virtual_flag || opcode == 0xfb && vip);
                    let flags_set = row.eflags & (eflags::VIF | eflags::VIP) != 0;
                    row.deviation =
                        (!fails && (virtual_flag || flags_set)).then_some(deviation::NO_VME);
                    if fails {
                        row.stop();
                        row.fault(13, Some(0), eip);
                    } else {
                        row.ends();
                        let bit = if virtual_flag {
                            eflags::VIF
                        } else {
                            eflags::IF
                        };
                        let flags = if opcode == 0xfa {
                            row.eflags & !bit
                        } else {
                            row.eflags | bit
                        };
                        row.expect_flags(flags);
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
    Table::new("pvi", "SDM 3B 20.4", protected_virtual_interrupts())
}
