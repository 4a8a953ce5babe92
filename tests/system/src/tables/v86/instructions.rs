//! What is privileged, and what V8086 mode does not know.

use super::{expect_frame, v86};
use crate::row::{Row, Table};

/// What is privileged, and what V8086 mode does not know. Vol. 2.
fn instructions() -> Vec<Row> {
    let mut rows = Vec::new();
    let privileged: &[(&str, &[u8])] = &[
        ("HLT", &[0xf4]),
        ("LGDT", &[0x0f, 0x01, 0x16, 0, 0]),
        ("LIDT", &[0x0f, 0x01, 0x1e, 0, 0]),
        ("LMSW", &[0x0f, 0x01, 0xf0]),
        ("CLTS", &[0x0f, 0x06]),
        ("MOV EAX, CR0", &[0x0f, 0x20, 0xc0]),
        ("MOV CR0, EAX", &[0x0f, 0x22, 0xc0]),
        ("MOV CR3, EAX", &[0x0f, 0x22, 0xd8]),
        ("MOV EAX, DR0", &[0x0f, 0x21, 0xc0]),
        ("MOV DR7, EAX", &[0x0f, 0x23, 0xf8]),
        ("INVD", &[0x0f, 0x08]),
        ("WBINVD", &[0x0f, 0x09]),
        ("INVLPG", &[0x0f, 0x01, 0x3e, 0, 0]),
        ("RDMSR", &[0x0f, 0x32]),
        ("WRMSR", &[0x0f, 0x30]),
        ("IN AL, 80h", &[0xe4, 0x80]),
        ("OUT 80h, AL", &[0xe6, 0x80]),
        ("IN AX, DX", &[0xed]),
        ("OUTSB", &[0x6e]),
        ("INSB", &[0x6c]),
    ];
    let unknown: &[(&str, &[u8])] = &[
        ("SLDT", &[0x0f, 0x00, 0xc0]),
        ("STR", &[0x0f, 0x00, 0xc8]),
        ("LLDT", &[0x0f, 0x00, 0xd0]),
        ("LTR", &[0x0f, 0x00, 0xd8]),
        ("VERR", &[0x0f, 0x00, 0xe0]),
        ("VERW", &[0x0f, 0x00, 0xe8]),
        ("LAR", &[0x0f, 0x02, 0xc0]),
        ("LSL", &[0x0f, 0x03, 0xc0]),
        ("ARPL", &[0x63, 0xc0]),
    ];
    for iopl in [0, 3] {
        for (what, bytes) in privileged {
            let mut row = v86(format!("{what}: IOPL {iopl}"), iopl, 0);
            let eip = row.bytes(bytes);
            row.stop();
            row.fault(13, Some(0), eip);
            expect_frame(&mut row, true);
            rows.push(row);
        }
        for (what, bytes) in unknown {
            let mut row = v86(format!("{what}: IOPL {iopl}"), iopl, 0);
            let eip = row.bytes(bytes);
            row.stop();
            row.fault(6, None, eip);
            expect_frame(&mut row, false);
            rows.push(row);
        }
    }
    for (what, bytes) in [
        ("SMSW", &[0x0f, 0x01, 0xe0][..]),
        ("SGDT", &[0x0f, 0x01, 0x06, 0, 0]),
        ("MOV DS, AX", &[0x8e, 0xd8]),
        ("RDTSC", &[0x0f, 0x31]),
    ] {
        let mut row = v86(format!("{what} is allowed"), 0, 0);
        row.bytes(bytes);
        row.ends();
        rows.push(row);
    }
    rows
}

/// The table.
pub(super) fn table() -> Table {
    Table::new(
        "v86-instructions",
        "SDM 3B 20.2.7, 20.2.8; vol. 2",
        instructions(),
    )
}
