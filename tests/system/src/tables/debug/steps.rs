//! Single steps.

use super::{BS, STATUS, trap};
use crate::descriptor::{gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

/// INT 40h: TF is saved set and cleared, and there is no trap.
fn interrupt(row: &mut Row) {
    row.bytes(&[0xcd, 0x40]);
    let next = row.stop();
    row.fault(0x40, None, next);
    row.expect_bits(Field::Eflags, eflags::TF, eflags::TF);
    row.expect_bits(Field::HandlerFlags, eflags::TF, 0);
    row.expect_bits(Field::Dr6, STATUS, 0);
}

/// TF. 3B 18.3.1.4.
fn steps() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in [0u8, 3] {
        let new = |name: &str| {
            let mut row = Row::new(format!("TF: {name}, ring {cpl}")).cpl(cpl);
            row.eflags |= eflags::TF;
            row
        };
        for (name, bytes) in [
            ("NOP", &[0x90][..]),
            ("MOV", &[0xb8, 1, 0, 0, 0]),
            ("CPUID", &[0x0f, 0xa2]),
            ("PUSHF", &[0x9c]),
            ("a prefixed instruction", &[0x66, 0x89, 0xc0]),
            ("MOV to ES", &[0x06, 0x07]),
        ] {
            let mut row = new(name);
            if name == "MOV to ES" {
                row.bytes(&[0x06]);
                let second = row.bytes(&[0x07]);
                row.stop();
                trap(&mut row, second, BS);
            } else {
                row.bytes(bytes);
                let next = row.stop();
                trap(&mut row, next, BS);
            }
            row.expect_bits(Field::Eflags, eflags::TF, eflags::TF);
            row.expect_bits(Field::HandlerFlags, eflags::TF, 0);
            rows.push(row);
        }
        let mut row = new("PUSHF stores TF");
        row.bytes(&[0x9c]);
        let next = row.stop();
        trap(&mut row, next, BS);
        row.expect_bits(Field::Mem(at::ROW_STACK - 4), eflags::TF, eflags::TF);
        rows.push(row);
        // A jump, a call: the trap is at the target.
        let mut row = new("JMP");
        row.bytes(&[0xeb, 0x10]);
        trap(&mut row, at::CODE + 0x12, BS);
        rows.push(row);
        let mut row = new("CALL");
        row.bytes(&[0xe8, 0x10, 0, 0, 0]);
        trap(&mut row, at::CODE + 0x15, BS);
        rows.push(row);
        // One iteration of a repeated string instruction.
        let mut row = new("REP STOSB");
        row.gpr[1] = 3;
        row.gpr[7] = at::DATA;
        let eip = row.bytes(&[0xf3, 0xaa]);
        row.stop();
        trap(&mut row, eip, BS);
        row.expect(Field::Gpr(1), 2);
        row.expect(Field::Gpr(7), at::DATA + 1);
        rows.push(row);
        let mut row = new("REP STOSB, the last one");
        row.gpr[1] = 1;
        row.gpr[7] = at::DATA;
        row.bytes(&[0xf3, 0xaa]);
        let next = row.stop();
        trap(&mut row, next, BS);
        row.expect(Field::Gpr(1), 0);
        rows.push(row);
        let mut row = new("REP STOSB of nothing");
        row.gpr[1] = 0;
        row.bytes(&[0xf3, 0xaa]);
        let next = row.stop();
        trap(&mut row, next, BS);
        rows.push(row);
        // INT n: no trap; TF is saved set and cleared.
        let mut row = new("INT n");
        row.open_vector(0x40, 3);
        interrupt(&mut row);
        rows.push(row);
        // POPF that clears TF: the trap still comes. One that sets it: after the next instruction.
        let mut row = new("POPF that clears TF");
        row.gpr[4] = at::ROW_STACK - 0x20;
        row.put32(at::ROW_STACK - 0x20, eflags::FIXED);
        row.bytes(&[0x9d]);
        let next = row.stop();
        trap(&mut row, next, BS);
        row.expect_bits(Field::Eflags, eflags::TF, 0);
        rows.push(row);
        let mut row = Row::new(format!("TF: POPF that sets TF, ring {cpl}")).cpl(cpl);
        row.gpr[4] = at::ROW_STACK - 0x20;
        row.put32(at::ROW_STACK - 0x20, eflags::FIXED | eflags::TF);
        row.bytes(&[0x9d, 0x90]);
        let next = row.stop();
        trap(&mut row, next, BS);
        rows.push(row);
        let mut row = Row::new(format!("TF: IRET that sets TF, ring {cpl}")).cpl(cpl);
        let esp = at::ROW_STACK - 0x20;
        row.gpr[4] = esp;
        for (n, value) in [
            at::TARGET,
            u32::from(at::code_of(cpl)),
            eflags::FIXED | eflags::TF,
        ]
        .into_iter()
        .enumerate()
        {
            row.put32(esp + n as u32 * 4, value);
        }
        row.put(at::TARGET, &[0x90, 0x0f, 0x0b]);
        row.bytes(&[0xcf]);
        trap(&mut row, at::TARGET + 1, BS);
        rows.push(row);
    }
    // MOV SS and POP SS: the trap waits for one more instruction. LSS casts no shadow.
    for (name, bytes) in [("MOV SS", &[0x8e, 0xd0][..]), ("POP SS", &[0x17])] {
        let mut row = Row::new(format!("TF: {name} holds the trap back"));
        row.eflags |= eflags::TF;
        row.gpr[0] = u32::from(at::DATA0);
        row.gpr[4] = at::ROW_STACK - 0x20;
        row.put32(at::ROW_STACK - 0x20, u32::from(at::DATA0));
        row.bytes(bytes);
        row.bytes(&[0x90]);
        let next = row.stop();
        trap(&mut row, next, BS);
        rows.push(row);
    }
    rows
}

/// TF in V8086 and real mode, and across changes of ring and mode: IRET, gates, far jumps.
fn across() -> Vec<Row> {
    let mut rows = Vec::new();
    for real in [false, true] {
        let new = |name: &str| {
            let mode = if real { "real" } else { "V8086" };
            let row = Row::new(format!("TF: {name}, {mode} mode"));
            let mut row = if real { row.real_mode() } else { row.v86(3) };
            row.eflags |= eflags::TF;
            row
        };
        for (name, bytes) in [
            ("NOP", &[0x90][..]),
            ("MOV DS", &[0x8e, 0xd8]),
            ("PUSHF", &[0x9c]),
            ("IN", &[0xe4, 0x80]),
            ("STI", &[0xfb]),
        ] {
            let mut row = new(name);
            if !real {
                row.descriptor(at::TSS_SEL, segment(at::TSS, 0xff, kind::TSS32, 0, true, 0));
            }
            row.bytes(bytes);
            let next = row.stop();
            row.fault(1, None, next);
            row.expect_bits(Field::Dr6, STATUS, BS);
            row.deviation = (name == "STI").then_some(deviation::STI_NO_TRAP);
            rows.push(row);
        }
        let mut row = new("MOV SS holds the trap back");
        row.gpr[0] = at::LOW_STACK >> 4;
        row.bytes(&[0x8e, 0xd0, 0x90]);
        let next = row.stop();
        row.fault(1, None, next);
        rows.push(row);
        // INT clears TF: no trap in the handler.
        let mut row = new("INT n");
        if !real {
            row.open_vector(0x40, 3);
        }
        interrupt(&mut row);
        rows.push(row);
    }
    // IRET that sets TF: the trap comes after the first instruction there.
    for rpl in [0u8, 1, 3] {
        let mut row = Row::new(format!("TF: IRET that sets TF to ring {rpl}"));
        let esp = at::ROW_STACK - 0x20;
        row.gpr[4] = esp;
        for (n, value) in [
            at::TARGET,
            u32::from(at::code_of(rpl)),
            eflags::FIXED | eflags::TF,
            at::OTHER_STACK,
            u32::from(at::data_of(rpl)),
        ]
        .into_iter()
        .enumerate()
        {
            row.put32(esp + n as u32 * 4, value);
        }
        row.put(at::TARGET, &[0x90, 0x0f, 0x0b]);
        row.bytes(&[0xcf]);
        trap(&mut row, at::TARGET + 1, BS);
        rows.push(row);
    }
    let mut row = Row::new("TF: IRET that sets TF to V8086 mode");
    let esp = at::ROW_STACK - 0x40;
    row.gpr[4] = esp;
    let image = eflags::FIXED | eflags::TF | eflags::VM;
    for (n, value) in [
        0x10,
        at::LOW_CODE >> 4,
        image,
        0x8000,
        at::LOW_STACK >> 4,
        0,
        0,
        0,
        0,
    ]
    .into_iter()
    .enumerate()
    {
        row.put32(esp + n as u32 * 4, value);
    }
    row.put(at::LOW_CODE + 0x10, &[0x90, 0x0f, 0x0b]);
    row.bytes(&[0xcf]);
    trap(&mut row, 0x11, BS);
    rows.push(row);
    // A call gate to an inner ring keeps TF: the trap is at its target.
    let mut row = Row::new("TF: CALL gate to ring 0").cpl(3);
    row.eflags |= eflags::TF;
    row.descriptor(
        at::FREE,
        gate(kind::CALL32, 3, true, at::CODE0, at::TARGET, 0),
    );
    row.put(at::TARGET, &[0x0f, 0x0b]);
    let [low, high] = at::FREE.to_le_bytes();
    row.bytes(&[0x9a, 0, 0, 0, 0, low, high]);
    trap(&mut row, at::TARGET, BS);
    row.expect(Field::Cs, u32::from(at::CODE0));
    rows.push(row);
    // RETF to an outer ring.
    let mut row = Row::new("TF: RETF to ring 3");
    row.eflags |= eflags::TF;
    row.gpr[4] = esp;
    for (n, value) in [
        at::TARGET,
        u32::from(at::CODE3),
        at::OTHER_STACK,
        u32::from(at::DATA3),
    ]
    .into_iter()
    .enumerate()
    {
        row.put32(esp + n as u32 * 4, value);
    }
    row.put(at::TARGET, &[0x0f, 0x0b]);
    row.bytes(&[0xcb]);
    trap(&mut row, at::TARGET, BS);
    row.expect(Field::Cs, u32::from(at::CODE3));
    rows.push(row);
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = steps();
    rows.extend(across());
    Table::new("single-step", "SDM 3B 18.3.1.4; 3A 6.8.3, 6.12.1", rows)
}
