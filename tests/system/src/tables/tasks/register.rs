//! The task register.

use super::NEW;
use crate::descriptor::{kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate};

/// LTR. 7.2.4; vol. 2.
fn load() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in [0, 3u8] {
        for system in 0..16u8 {
            let mut row = Row::new(format!("LTR, CPL {cpl}, type {system}")).cpl(cpl);
            row.descriptor(NEW, segment(at::TSS2, 0x67, system, 0, true, 0));
            row.gpr[0] = u32::from(NEW);
            let eip = row.bytes(&[0x0f, 0x00, 0xd8]);
            if cpl == 0 && matches!(system, kind::TSS16 | kind::TSS32) {
                row.ends();
                row.expect(Field::Tr, u32::from(NEW));
                let address = at::GDT + u32::from(NEW) + 4;
                row.expect_bits(Field::Mem(address), 0xff00, u32::from(0x82 | system) << 8);
            } else {
                row.stop();
                row.fault(13, Some(if cpl == 0 { u32::from(NEW) } else { 0 }), eip);
            }
            rows.push(row);
        }
    }
    for (what, selector, error) in [
        ("null", 0, 0),
        ("null with RPL", 3, 0),
        ("of the LDT", NEW | 4, u32::from(NEW | 4)),
        ("beyond the GDT", 0x1000, 0x1000),
    ] {
        let mut row = Row::new(format!("LTR, selector {what}"));
        row.descriptor(NEW | 4, segment(at::TSS2, 0x67, kind::TSS32, 0, true, 0));
        row.gpr[0] = u32::from(selector);
        let eip = row.bytes(&[0x0f, 0x00, 0xd8]);
        row.stop();
        row.fault(13, Some(error), eip);
        rows.push(row);
    }
    let mut row = Row::new("LTR, absent");
    row.descriptor(NEW, segment(at::TSS2, 0x67, kind::TSS32, 0, false, 0));
    row.gpr[0] = u32::from(NEW);
    let eip = row.bytes(&[0x0f, 0x00, 0xd8]);
    row.stop();
    row.fault(11, Some(u32::from(NEW)), eip);
    rows.push(row);
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = load();
    deviate(&mut rows, deviation::LTR_NULL, |name| {
        name.starts_with("LTR, selector null")
    });
    Table::new("ltr", "SDM 3A 7.2.4; vol. 2, LTR", rows)
}
