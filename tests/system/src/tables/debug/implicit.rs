//! Data breakpoints on what the processor accesses for itself: frames, descriptor tables, task
//! states. The manual makes no exception for them: "when the processor attempts to access a memory
//! address" (3B 18.3.1.2). After an event the trap comes before the handler's first instruction.

use super::{STATUS, trap};
use crate::descriptor::{gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

const VECTOR: u8 = 0x40;
const SELECTOR: u16 = at::FREE;
/// R/W fields of DR7.
const WRITE: u32 = 1;
const ACCESS: u32 = 3;

/// Breakpoint 0, enabled globally, of four bytes.
fn watch(row: &mut Row, address: u32, condition: u32) {
    row.dr[0] = address;
    row.dr7 = 0x400 | 2 | (condition | 3 << 2) << 16;
}

/// A row whose event leads to the handler `stub`: with the breakpoint met, it ends before it.
fn event(name: String, cpl: u8, address: u32, condition: u32, met: bool) -> Row {
    let mut row = Row::new(name).cpl(cpl);
    watch(&mut row, address, condition);
    row.open_vector(VECTOR, 3);
    row.deviation = met.then_some(deviation::EVENT_BREAKPOINT);
    row
}

fn events() -> Vec<Row> {
    let mut rows = Vec::new();
    let idt = |vector: u8| at::IDT + u32::from(vector) * 8;
    for cpl in [0u8, 3] {
        // Ring 0 was entered by way of the top of its stack: the row goes below it.
        let (top, slots) = if cpl == 0 {
            (at::ROW_STACK - 0x20, 3)
        } else {
            (at::STACK0, 5)
        };
        let mut places: Vec<(String, u32, bool, bool)> = (0..=slots)
            .map(|n| (format!("slot {n} of the frame"), top - n * 4, true, n > 0))
            .collect();
        places.push(("the gate".into(), idt(VECTOR), false, true));
        places.push(("the gate beside".into(), idt(VECTOR + 1), false, false));
        places.push((
            "the inner stack pointer".into(),
            at::TSS + 4,
            false,
            cpl == 3,
        ));
        for (what, address, written, touched) in places {
            for condition in [WRITE, ACCESS] {
                let met = touched && (written || condition == ACCESS);
                let mode = if condition == WRITE {
                    "write"
                } else {
                    "access"
                };
                let mut row = event(
                    format!("INT, {mode} of {what}, ring {cpl}"),
                    cpl,
                    address,
                    condition,
                    met,
                );
                row.bytes(&[0x83, 0xec, 0x20]); // sub esp, 20h
                row.bytes(&[0xcd, VECTOR]);
                let next = row.here();
                row.stop();
                if met {
                    trap(&mut row, at::stub(VECTOR), 1);
                    row.expect(Field::Cs, u32::from(at::CODE0));
                } else {
                    row.fault(VECTOR, None, next);
                    row.expect_bits(Field::Dr6, STATUS, 0);
                }
                rows.push(row);
            }
        }
    }
    // A fault, and an interrupt request.
    let mut row = event("a fault's frame".into(), 3, at::STACK0 - 8, WRITE, true);
    row.stop();
    trap(&mut row, at::stub(6), 1);
    rows.push(row);
    let mut row = event("a request's frame".into(), 3, at::STACK0 - 8, WRITE, true);
    row.irq = true;
    row.eflags |= eflags::IF;
    row.stop();
    trap(&mut row, at::stub(0x23), 1);
    rows.push(row);
    // A fault's own operand is not met: it has not been accessed.
    let mut row = Row::new("an operand of an instruction that faults").paging();
    watch(&mut row, at::DATA, ACCESS);
    row.gpr[6] = at::DATA;
    row.gpr[7] = at::TEST + 0x5000;
    let eip = row.bytes(&[0xa5]); // movsd: read, then a page that is absent
    row.stop();
    row.fault(14, Some(2), eip);
    row.expect_bits(Field::Dr6, STATUS, 0);
    row.deviation = Some(deviation::BREAK_BEFORE_FAULT);
    rows.push(row);
    rows
}

fn instructions() -> Vec<Row> {
    let mut rows = Vec::new();
    let entry = at::GDT + u32::from(SELECTOR);
    // (name, bytes with AX = the selector, kind of descriptor, is the entry written)
    let cases: &[(&str, &[u8], u8, bool)] = &[
        ("MOV DS, accessed", &[0x8e, 0xd8], kind::DATA_W | 1, false),
        ("MOV DS, not accessed", &[0x8e, 0xd8], kind::DATA_W, true),
        ("LAR", &[0x0f, 0x02, 0xc8], kind::DATA_W, false),
        ("VERR", &[0x0f, 0x00, 0xe0], kind::DATA_W, false),
        ("LLDT", &[0x0f, 0x00, 0xd0], kind::LDT, false),
        ("LTR", &[0x0f, 0x00, 0xd8], kind::TSS32, true),
    ];
    for &(name, bytes, k, written) in cases {
        for condition in [WRITE, ACCESS] {
            let mode = if condition == WRITE {
                "write"
            } else {
                "access"
            };
            let mut row = Row::new(format!("{name}, {mode} of the descriptor"));
            row.descriptor(SELECTOR, segment(at::TSS2, 0x67, k, 0, true, 0));
            row.gpr[0] = u32::from(SELECTOR);
            watch(&mut row, entry + 4, condition);
            row.bytes(bytes);
            if written || condition == ACCESS {
                let next = row.stop();
                trap(&mut row, next, 1);
            } else {
                row.ends();
                row.expect_bits(Field::Dr6, STATUS, 0);
            }
            rows.push(row);
        }
    }
    let [low, high] = SELECTOR.to_le_bytes();
    // A far jump: the trap is at the target.
    let mut row = Row::new("far JMP, access of the descriptor");
    row.descriptor(SELECTOR, segment(0, 0xf_ffff, kind::CODE_R, 0, true, 12));
    watch(&mut row, entry + 4, ACCESS);
    row.bytes(&[0xea]);
    row.bytes(&at::TARGET.to_le_bytes());
    row.bytes(&[low, high]);
    row.put(at::TARGET, &[0x0f, 0x0b]);
    trap(&mut row, at::TARGET, 1);
    rows.push(row);
    // A call gate's frame on the inner stack; the old stack is not written.
    for (what, address, met) in [
        ("the inner stack", at::STACK0 - 4, true),
        ("the outer stack", at::ROW_STACK - 4, false),
    ] {
        let mut row = Row::new(format!("CALL gate, write of {what}")).cpl(3);
        row.descriptor(
            SELECTOR,
            gate(kind::CALL32, 3, true, at::CODE0, at::TARGET, 0),
        );
        watch(&mut row, address, WRITE);
        row.put(at::TARGET, &[0x0f, 0x0b]);
        row.bytes(&[0x9a, 0, 0, 0, 0, low, high]);
        if met {
            trap(&mut row, at::TARGET, 1);
        } else {
            row.fault(6, None, at::TARGET);
        }
        rows.push(row);
    }
    // IRET reads three slots in the same ring, five to another one.
    for cpl in [0u8, 3] {
        let rpl = 3;
        for slot in 0..6u32 {
            let mut row = Row::new(format!("IRET of ring {cpl} to 3, access of slot {slot}"));
            row = row.cpl(cpl);
            let esp = at::ROW_STACK - 0x20;
            row.gpr[4] = esp;
            for (n, value) in [
                at::TARGET,
                u32::from(at::code_of(rpl)),
                eflags::FIXED,
                at::OTHER_STACK,
                u32::from(at::data_of(rpl)),
            ]
            .into_iter()
            .enumerate()
            {
                row.put32(esp + n as u32 * 4, value);
            }
            watch(&mut row, esp + slot * 4, ACCESS);
            row.put(at::TARGET, &[0x0f, 0x0b]);
            row.bytes(&[0xcf]);
            let slots = if rpl == cpl { 3 } else { 5 };
            if slot < slots {
                trap(&mut row, at::TARGET, 1);
            } else {
                row.fault(6, None, at::TARGET);
            }
            rows.push(row);
        }
    }
    // A task switch: the trap comes before the new task's first instruction.
    for (what, address, condition, met) in [
        ("write of the old EIP", at::TSS + 0x20, WRITE, true),
        ("write of the new EIP", at::TSS2 + 0x20, WRITE, false),
        ("access of the new EIP", at::TSS2 + 0x20, ACCESS, true),
        ("access of the old CR3", at::TSS + 0x1c, ACCESS, false),
        ("access of the new ESP0", at::TSS2 + 4, ACCESS, false),
    ] {
        let mut row = Row::new(format!("JMP to a task, {what}"));
        row.plain_task(SELECTOR);
        row.put(at::TARGET, &[0x0f, 0x0b]);
        watch(&mut row, address, condition);
        row.bytes(&[0xea, 0, 0, 0, 0, low, high]);
        if met {
            trap(&mut row, at::TARGET, 1);
        } else {
            row.fault(6, None, at::TARGET);
        }
        rows.push(row);
    }
    // IN in ring 3 reads the I/O permission bitmap.
    let mut row = Row::new("IN, access of the I/O permission bitmap").cpl(3);
    row.descriptor(at::TSS_SEL, segment(at::TSS, 0xff, kind::TSS32, 0, true, 0));
    watch(&mut row, at::TSS + 0x78, ACCESS);
    row.bytes(&[0xe4, 0x80]);
    let next = row.stop();
    trap(&mut row, next, 1);
    rows.push(row);
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = events();
    rows.extend(instructions());
    Table::new("implicit-breakpoints", "SDM 3B 18.3.1.2", rows)
}
