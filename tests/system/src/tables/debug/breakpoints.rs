//! DR0-DR3 and DR7: execution, data and I/O breakpoints, general detect.

use super::{BD, BS, STATUS, trap};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};

/// DR0-DR3 and DR7. 3B 18.2, 18.3.1.
fn breakpoints() -> Vec<Row> {
    let mut rows = Vec::new();
    // Execution: a fault that saves RF; RF in the image suppresses it.
    for n in 0..4u32 {
        for (enable, name) in [(1, "local"), (2, "global")] {
            let mut row = Row::new(format!("execution breakpoint {n}, {name}"));
            row.dr[n as usize] = at::CODE + 1;
            row.dr7 = 0x400 | enable << (2 * n);
            row.bytes(&[0x90]);
            let eip = row.stop();
            trap(&mut row, eip, 1 << n);
            rows.push(row);
        }
    }
    let mut row = Row::new("an execution fault saves RF");
    row.dr[0] = at::CODE;
    row.dr7 = 0x402;
    let eip = row.stop();
    trap(&mut row, eip, 1);
    // "The processor sets RF in the saved image for faults": 18.3.1.1 leaves #DB's own to the
    // handler, "if the debug exception is a fault ... RF is set" in 6.8.3 and vol. 3B, 18.3.1.1.
    rows.push(row);
    let mut row = Row::new("RF of an IRET suppresses an execution breakpoint once");
    row.eflags |= eflags::RF;
    row.dr[0] = at::CODE;
    row.dr7 = 0x402;
    row.bytes(&[0x90]);
    row.ends();
    rows.push(row);
    for (vector, bytes) in [(6u8, &[0x0f, 0x0b][..]), (13, &[0x8e, 0xd8])] {
        let mut row = Row::new(format!("vector {vector} saves RF"));
        row.gpr[0] = 0x1000;
        let eip = row.bytes(bytes);
        row.fault(vector, None, eip);
        row.expect_bits(Field::Eflags, eflags::RF, eflags::RF);
        row.deviation = Some(deviation::RF_CLEAR);
        rows.push(row);
    }
    let mut row = Row::new("a trap does not save RF");
    row.eflags |= eflags::TF;
    row.bytes(&[0x90]);
    let next = row.stop();
    trap(&mut row, next, BS);
    row.expect_bits(Field::Eflags, eflags::RF, 0);
    rows.push(row);
    // Data: lengths, reads and writes, neighbours.
    for (rw, mode) in [(1u32, "write"), (3, "access")] {
        for (len, size) in [(0u32, 1u32), (1, 2), (3, 4)] {
            for offset in [-4i32, -1, 0, 1, 2, 3, 4] {
                for (name, bytes, width, write) in [
                    ("MOV AL, [EBX]", &[0x8a, 0x03][..], 1i32, false),
                    ("MOV [EBX], AL", &[0x88, 0x03], 1, true),
                    ("MOV [EBX], EAX", &[0x89, 0x03], 4, true),
                    ("MOV EAX, [EBX]", &[0x8b, 0x03], 4, false),
                    ("INC DWORD [EBX]", &[0xff, 0x03], 4, true),
                ] {
                    if width == 4 && offset % 4 != 0 && offset != 2 {
                        continue;
                    }
                    let mut row = Row::new(format!("{mode} of {size} at {offset}: {name}"));
                    let address = at::DATA + 0x100;
                    row.dr[1] = address;
                    row.dr7 = 0x400 | 8 | (rw | len << 2) << 20;
                    row.gpr[3] = address.wrapping_add_signed(offset);
                    row.bytes(bytes);
                    let next = row.here();
                    let overlaps = offset < size as i32 && 0 < offset + width;
                    if overlaps && (write || rw == 3) {
                        row.stop();
                        trap(&mut row, next, 2);
                    } else {
                        row.ends();
                        row.expect_bits(Field::Dr6, STATUS, 0);
                    }
                    rows.push(row);
                }
            }
        }
    }
    // Both at once: one exception with all the bits.
    let mut row = Row::new("a data breakpoint and a single step");
    row.eflags |= eflags::TF;
    row.dr[0] = at::DATA;
    row.dr7 = 0x400 | 2 | 0xd << 16;
    row.gpr[3] = at::DATA;
    row.bytes(&[0x89, 0x03]);
    let next = row.stop();
    trap(&mut row, next, BS | 1);
    rows.push(row);
    // PUSH, POP, string instructions.
    let mut row = Row::new("PUSH meets a data breakpoint");
    row.dr[0] = at::ROW_STACK - 4;
    row.dr7 = 0x400 | 2 | 0xd << 16;
    row.bytes(&[0x50]);
    let next = row.stop();
    trap(&mut row, next, 1);
    rows.push(row);
    let mut row = Row::new("REP STOSB stops after the iteration that meets it");
    row.dr[0] = at::DATA + 2;
    row.dr7 = 0x400 | 2 | 1 << 16;
    row.gpr[1] = 5;
    row.gpr[7] = at::DATA;
    let eip = row.bytes(&[0xf3, 0xaa]);
    row.stop();
    trap(&mut row, eip, 1);
    row.expect(Field::Gpr(1), 2);
    rows.push(row);
    let mut row = Row::new("REP STOSD meets a breakpoint in the middle of an element");
    row.dr[0] = at::DATA + 6;
    row.dr7 = 0x400 | 2 | 1 << 16;
    row.gpr[1] = 5;
    row.gpr[7] = at::DATA;
    let eip = row.bytes(&[0xf3, 0xab]);
    row.stop();
    trap(&mut row, eip, 1);
    row.expect(Field::Gpr(1), 3);
    rows.push(row);
    // MOV SS holds a data breakpoint of its own access back.
    let mut row = Row::new("MOV SS from a watched operand");
    row.put32(at::DATA, u32::from(at::DATA0));
    row.dr[0] = at::DATA;
    row.dr7 = 0x400 | 2 | 7 << 16;
    row.gpr[3] = at::DATA;
    row.bytes(&[0x8e, 0x13, 0x90]); // mov ss, [ebx]; nop
    let next = row.stop();
    trap(&mut row, next, 1);
    rows.push(row);
    let mut row = Row::new("an execution breakpoint in the shadow of MOV SS");
    row.gpr[0] = u32::from(at::DATA0);
    row.dr[0] = at::CODE + 2;
    row.dr7 = 0x402;
    row.bytes(&[0x8e, 0xd0, 0x90]);
    row.ends();
    row.deviation = Some(deviation::SS_SHADOW_BREAKPOINT);
    rows.push(row);
    // Ports, with CR4.DE: without it, R/W 2 means nothing.
    let mut row = Row::new("I/O breakpoint");
    row.cr4 = 8;
    row.dr[2] = 0x80;
    row.dr7 = 0x400 | 0x20 | 2 << 24;
    row.bytes(&[0xe6, 0x80]);
    let next = row.stop();
    trap(&mut row, next, 4);
    rows.push(row);
    // General detect.
    for (name, bytes) in [
        ("MOV EAX, DR0", &[0x0f, 0x21, 0xc0][..]),
        ("MOV DR3, EAX", &[0x0f, 0x23, 0xd8]),
        ("MOV EAX, DR7", &[0x0f, 0x21, 0xf8]),
    ] {
        let mut row = Row::new(format!("general detect: {name}"));
        row.dr7 = 0x2400;
        let eip = row.bytes(bytes);
        row.stop();
        trap(&mut row, eip, BD);
        row.expect_bits(Field::Dr7, 0x2000, 0);
        rows.push(row);
    }
    // DR4 and DR5 are DR6 and DR7 without DE.
    let mut row = Row::new("DR5 is DR7 without DE");
    row.dr7 = 0x402;
    row.dr[0] = 0x1234;
    row.bytes(&[0x0f, 0x21, 0xe8]);
    row.ends();
    row.expect(Field::Gpr(0), 0x402);
    rows.push(row);
    for n in [0u8, 6, 7] {
        let mut row = Row::new(format!("MOV EAX, DR{n} in ring 3")).cpl(3);
        let eip = row.bytes(&[0x0f, 0x21, 0xc0 | n << 3]);
        row.stop();
        row.fault(13, Some(0), eip);
        rows.push(row);
    }
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = breakpoints();
    deviate(&mut rows, deviation::BREAKPOINT_WIDE, |name| {
        name.contains(" at 2: ") && !name.contains(" of 4 ") && {
            let reads = name.ends_with("MOV EAX, [EBX]") && name.starts_with("access");
            reads || name.ends_with("MOV [EBX], EAX") || name.ends_with("INC DWORD [EBX]")
        }
    });
    deviate(&mut rows, deviation::BREAK_AND_STEP, |name| {
        name.ends_with("a single step")
    });
    deviate(&mut rows, deviation::SS_SHADOW_BREAKPOINT, |name| {
        name.starts_with("MOV SS from a watched")
    });
    deviate(&mut rows, deviation::GENERAL_DETECT, |name| {
        name.starts_with("general detect")
    });
    Table::new(
        "breakpoints",
        "SDM 3B 18.2, 18.3.1.1-18.3.1.3; vol. 2, MOV (debug registers)",
        rows,
    )
}
