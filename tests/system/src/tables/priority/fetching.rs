//! Faults of fetching and decoding.

use crate::descriptor::{flag, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table};

/// Fetching: 6.9 class 8 and 9. The instruction lies at the end of a page before nothing.
fn fetching() -> Vec<Row> {
    let mut rows = Vec::new();
    let end = at::TEST + 0x1000;
    // (name, bytes before the end, vector, error)
    let cases: &[(&str, &[u8], u8, Option<u32>)] = &[
        ("UD2 ends with the page", &[0x0f, 0x0b], 6, None),
        ("half an opcode", &[0x0f], 14, Some(0)),
        ("prefixes only", &[0x66, 0x67, 0xf3], 14, Some(0)),
        ("an immediate is missing", &[0xb8, 1, 2, 3], 14, Some(0)),
        (
            "an undefined form ends with the page",
            &[0xff, 0xff],
            6,
            None,
        ),
        ("an invalid LOCK form in full", &[0xf0, 0x90], 6, None),
        (
            "fourteen prefixes and the opcode on the next page",
            &[0x66; 14],
            14,
            Some(0),
        ),
        ("fifteen prefixes", &[0x66; 15], 13, Some(0)),
        (
            "an instruction of fifteen bytes",
            &[
                0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x0f,
                0x0b,
            ],
            6,
            None,
        ),
        (
            "an instruction of sixteen bytes",
            &[
                0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                0x0f, 0x0b,
            ],
            13,
            Some(0),
        ),
    ];
    for &(name, bytes, vector, error) in cases {
        for cpl in [0, 3u8] {
            let mut row = Row::new(format!("{name}, CPL {cpl}")).cpl(cpl).paging();
            row.put32(at::PT, at::DATA | 7);
            let eip = end - bytes.len() as u32;
            row.put(at::DATA + 0x1000 - bytes.len() as u32, bytes);
            row.eip = eip;
            if name == "fifteen prefixes" {
                // What would follow is there.
                row.put32(at::PT + 4, (at::DATA + 0x1000) | 7);
                row.put(at::DATA + 0x1000, &[0x90]);
            }
            let error = error.map(|e| {
                if vector == 14 {
                    e | u32::from(cpl == 3) << 2
                } else {
                    e
                }
            });
            row.fault(vector, error, eip);
            if vector == 14 {
                row.expect(Field::Cr2, end);
            }
            rows.push(row);
        }
    }
    // The code segment's limit, in the same way.
    for (name, bytes, vector) in [
        ("UD2 ends with the segment", &[0x0f, 0x0b][..], 6u8),
        ("an instruction crosses the limit", &[0xb8, 1, 2], 13),
        ("no byte is left", &[0x90], 13),
    ] {
        let mut row = Row::new(name);
        let len = bytes.len() as u32;
        row.descriptor(
            at::FREE,
            segment(at::CODE, 0xff, kind::CODE_R, 0, true, flag::BIG),
        );
        row.cs = at::FREE;
        row.eip = 0x100 - len;
        row.put(at::CODE + 0x100 - len, bytes);
        row.put(at::CODE + 0x100, &[0x0f, 0x0b, 0x0f, 0x0b]);
        let eip = if name == "no byte is left" {
            0x100
        } else {
            row.eip
        };
        row.fault(vector, (vector == 13).then_some(0), eip);
        if vector == 13 {
            row.deviation = Some(deviation::SEGMENT_LIMITS);
        }
        rows.push(row);
    }
    rows
}

/// The table.
pub(super) fn table() -> Table {
    Table::new(
        "fetch-order",
        "SDM 3A 6.9 (table 6-2); vol. 2, 2.3.11",
        fetching(),
    )
}
