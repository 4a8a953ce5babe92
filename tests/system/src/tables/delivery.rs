//! Delivery of exceptions and interrupts: each exception by each kind of gate, with its error code
//! and the EIP and RF that it saves; an interrupt request; real mode's vector table.

use crate::descriptor::{gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

/// Never mapped in rows with paging.
const NOWHERE: u32 = at::TEST + 0x5000;
/// A selector beyond the GDT.
const BEYOND: u16 = 0x1000;
/// The interrupt request that [`Row::irq`] makes.
const REQUEST: u8 = 0x23;
const CR0_TS: u32 = 8;
const AM: u32 = 1 << 18;
/// CR4.OSFXSR and OSXMMEXCPT.
const SSE: u32 = 0x600;

/// Name, vector, error code, and what raises it: gives the EIP that is saved.
type Trigger = (&'static str, u8, Option<u32>, fn(&mut Row) -> u32);

/// Puts an instruction that faults, and gives its EIP.
fn fault(row: &mut Row, bytes: &[u8]) -> u32 {
    let eip = row.bytes(bytes);
    row.stop();
    eip
}

/// Puts an instruction that traps, and gives the next one's EIP.
fn trap(row: &mut Row, bytes: &[u8]) -> u32 {
    row.bytes(bytes);
    row.stop()
}

/// An absent segment that the current ring could load.
fn absent(row: &mut Row) {
    let cpl = row.cs & 3;
    row.descriptor(
        at::FREE,
        segment(0, 0xffff, kind::DATA_W, cpl as u8, false, 0),
    );
    row.gpr[0] = u32::from(at::FREE | cpl);
}

/// Table 6-1; 6.13; each vector's page of 6.15.
const TRIGGERS: &[Trigger] = &[
    ("#DE", 0, None, |r| {
        r.gpr[3] = 0;
        fault(r, &[0xf7, 0xf3])
    }),
    ("#DB, a single step", 1, None, |r| {
        r.eflags |= eflags::TF;
        trap(r, &[0x90])
    }),
    ("#BP", 3, None, |r| trap(r, &[0xcc])),
    ("#OF", 4, None, |r| {
        r.eflags |= 0x800;
        trap(r, &[0xce])
    }),
    ("#BR", 5, None, |r| {
        r.put(at::DATA, &[5, 0, 0, 0, 9, 0, 0, 0]);
        r.gpr[0] = 10;
        r.gpr[3] = at::DATA;
        fault(r, &[0x62, 0x03])
    }),
    ("#UD", 6, None, |r| fault(r, &[0x0f, 0x0b])),
    ("#NM", 7, None, |r| {
        r.cr0 |= CR0_TS;
        fault(r, &[0xd9, 0xd0])
    }),
    ("#TS", 10, Some(BEYOND as u32), |r| {
        // IRET to a task that is none.
        r.eflags |= eflags::NT;
        r.put(at::TSS, &BEYOND.to_le_bytes());
        fault(r, &[0xcf])
    }),
    ("#NP", 11, Some(at::FREE as u32), |r| {
        absent(r);
        fault(r, &[0x8e, 0xd8])
    }),
    ("#NP of a gate", 11, Some(0x41 * 8 + 2), |r| {
        r.gate(0x41, gate(kind::INT32, 3, false, at::CODE0, at::TARGET, 0));
        fault(r, &[0xcd, 0x41])
    }),
    ("#SS", 12, Some(at::FREE as u32), |r| {
        absent(r);
        fault(r, &[0x8e, 0xd0])
    }),
    ("#GP(0)", 13, Some(0), |r| {
        fault(r, &[0xea, 0, 0, 0, 0, 0, 0])
    }),
    ("#GP of a selector", 13, Some(BEYOND as u32), |r| {
        r.gpr[0] = u32::from(BEYOND);
        fault(r, &[0x8e, 0xd8])
    }),
    ("#GP of a selector of the LDT", 13, Some(0x404), |r| {
        r.gpr[0] = 0x407;
        fault(r, &[0x8e, 0xd8])
    }),
    ("#GP of a gate", 13, Some(0x41 * 8 + 2), |r| {
        r.gate(0x41, gate(kind::CALL32, 3, true, at::CODE0, at::TARGET, 0));
        fault(r, &[0xcd, 0x41])
    }),
    ("#PF", 14, Some(2), |r| {
        *r = r.clone().paging();
        r.gpr[3] = NOWHERE;
        fault(r, &[0x89, 0x03])
    }),
    ("#MF", 16, None, |r| {
        // Control word with ZM clear; FLD1, FLDZ, FDIVP, WAIT.
        r.put(at::DATA, &[0x7b, 0x03]);
        r.bytes(&[0xd9, 0x2d]);
        r.bytes(&at::DATA.to_le_bytes());
        r.bytes(&[0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9]);
        fault(r, &[0x9b])
    }),
    ("#AC", 17, Some(0), |r| {
        r.cr0 |= AM;
        r.eflags |= eflags::AC;
        r.gpr[3] = at::DATA + 1;
        r.deviation = Some(deviation::NO_ALIGNMENT_CHECK);
        fault(r, &[0x8b, 0x03])
    }),
    ("#XM", 19, None, |r| {
        // MXCSR with ZM clear; 1.0 / 0.0.
        r.cr4 |= SSE;
        r.put32(at::DATA, 0x1d80);
        r.put32(at::DATA + 4, 0x3f80_0000);
        r.put32(at::DATA + 8, 0);
        r.gpr[3] = at::DATA;
        r.bytes(&[0x0f, 0xae, 0x13]); // ldmxcsr [ebx]
        r.bytes(&[0xf3, 0x0f, 0x10, 0x43, 0x04]); // movss xmm0, [ebx+4]
        r.deviation = Some(deviation::NO_SIMD_EXCEPTIONS);
        fault(r, &[0xf3, 0x0f, 0x5e, 0x43, 0x08]) // divss xmm0, [ebx+8]
    }),
];

/// What a handler in ring 0 finds, reached by a gate of that kind from code at `eip`.
fn expect_frame(row: &mut Row, k: u8, cpl: u8, error: Option<u32>) {
    let narrow = matches!(k, kind::INT16 | kind::TRAP16);
    let width = if narrow { 2 } else { 4 };
    let full = if narrow { 0xffff } else { u32::MAX };
    row.expect(Field::Cs, u32::from(at::code_of(cpl)));
    let saved = row.eflags & full & !eflags::RF;
    row.expect_bits(Field::Eflags, full & !eflags::RF, saved);
    let slots = 3 + u32::from(error.is_some());
    if cpl == 0 {
        row.expect(Field::HandlerEsp, at::ROW_STACK - slots * width);
    } else {
        row.expect(Field::Ss, u32::from(at::data_of(cpl)));
        row.expect(Field::Esp, at::ROW_STACK & full);
        row.expect(Field::HandlerEsp, at::STACK0 - (slots + 2) * width);
    }
    // An interrupt gate clears IF, every gate TF and NT.
    let mut flags = row.eflags & !(eflags::TF | eflags::NT);
    if matches!(k, kind::INT16 | kind::INT32) {
        flags &= !eflags::IF;
    }
    row.expect(Field::HandlerFlags, flags);
}

fn exceptions() -> Vec<Row> {
    let mut rows = Vec::new();
    for &(name, vector, error, raise) in TRIGGERS {
        for cpl in [0u8, 3] {
            if vector == 17 && cpl == 0 {
                continue;
            }
            let new = |what: &str| {
                let mut row = Row::new(format!("{name} by {what}, ring {cpl}")).cpl(cpl);
                row.eflags |= eflags::IF | eflags::DF | eflags::CF;
                row
            };
            // A page fault's error code tells the ring.
            let user = if vector == 14 && cpl == 3 { 4 } else { 0 };
            let error = error.map(|e| e | user);
            for k in [kind::INT16, kind::TRAP16, kind::INT32, kind::TRAP32] {
                let mut row = new(&format!("gate type {k:#x}"));
                let eip = raise(&mut row);
                row.narrow_frame = row.handler_gate(vector, k, 3);
                row.fault(
                    vector,
                    error,
                    if row.narrow_frame { eip & 0xffff } else { eip },
                );
                expect_frame(&mut row, k, cpl, error);
                if vector == 14 {
                    row.expect(Field::Cr2, NOWHERE);
                }
                rows.push(row);
            }
            // The old task's state holds what a frame would.
            let mut row = new("task gate");
            let eip = raise(&mut row);
            row.task_vector(vector);
            row.gate(vector, gate(kind::TASK, 3, true, at::HANDLER_SEL, 0, 0));
            row.fault_by_task(vector, error);
            row.expect(Field::Mem(at::TSS + 0x20), eip);
            row.expect_bits(Field::Mem(at::TSS + 0x24), !eflags::RF, row.eflags);
            row.expect16(at::HANDLER_TSS, at::TSS_SEL);
            let pushed = if error.is_some() { 4 } else { 0 };
            row.expect(Field::HandlerEsp, at::HANDLER_STACK - pushed);
            rows.push(row);
            // RF: set by faults, clear for traps. 3B 18.3.1.1.
            let faults = !matches!(vector, 1 | 3 | 4);
            let mut row = new("RF");
            let eip = raise(&mut row);
            row.open_vector(vector, 3);
            row.fault(vector, error, eip);
            let rf = if faults { eflags::RF } else { 0 };
            row.expect_bits(Field::Eflags, eflags::RF, rf);
            if faults && row.deviation.is_none() {
                row.deviation = Some(deviation::RF_CLEAR);
            }
            rows.push(row);
        }
    }
    // A double fault pushes zero.
    for cpl in [0u8, 3] {
        for k in [kind::INT16, kind::TRAP16, kind::INT32, kind::TRAP32] {
            let mut row = Row::new(format!("#DF by gate type {k:#x}, ring {cpl}")).cpl(cpl);
            row.gate(13, 0);
            row.bytes(&[0xea, 0, 0, 0, 0, 0, 0]);
            row.stop();
            row.narrow_frame = row.handler_gate(8, k, 3);
            row.expect(Field::Kind, 8);
            row.expect(Field::Error, 0);
            rows.push(row);
        }
    }
    rows
}

/// An interrupt request. 6.8.1, 6.12.1.
fn requests() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in [0u8, 1, 3] {
        for k in [kind::INT16, kind::TRAP16, kind::INT32, kind::TRAP32] {
            let mut row = Row::new(format!("a request by gate type {k:#x}, ring {cpl}")).cpl(cpl);
            row.irq = true;
            row.eflags |= eflags::IF | eflags::NT | eflags::CF;
            row.bytes(&[0x90]);
            row.stop();
            // The gate's DPL does not matter.
            row.narrow_frame = row.handler_gate(REQUEST, k, 0);
            let eip = if row.narrow_frame {
                at::CODE & 0xffff
            } else {
                at::CODE
            };
            row.fault(REQUEST, None, eip);
            expect_frame(&mut row, k, cpl, None);
            rows.push(row);
        }
        // By a task: the old one is nested in it.
        let mut row = Row::new(format!("a request by task gate, ring {cpl}")).cpl(cpl);
        row.irq = true;
        row.eflags |= eflags::IF | eflags::CF;
        row.stop();
        row.gate(REQUEST, gate(kind::TASK, 0, true, at::HANDLER_SEL, 0, 0));
        row.put32(at::HANDLER_TSS + 32, at::stub(REQUEST));
        row.expect(Field::Kind, u32::from(REQUEST));
        row.expect(Field::Tr, u32::from(at::HANDLER_SEL));
        row.expect(Field::Mem(at::TSS + 0x20), at::CODE);
        row.expect_bits(Field::Mem(at::TSS + 0x24), !eflags::RF, row.eflags);
        row.expect16(at::HANDLER_TSS, at::TSS_SEL);
        row.expect_bits(Field::HandlerFlags, eflags::NT | eflags::IF, eflags::NT);
        rows.push(row);
        // What is wrong with the gate is an external event's fault: EXT is set.
        for (what, value, vector, error) in [
            (
                "an absent gate",
                gate(kind::INT32, 0, false, at::CODE0, 0, 0),
                11u8,
                0x11b,
            ),
            (
                "a call gate",
                gate(kind::CALL32, 0, true, at::CODE0, 0, 0),
                13,
                0x11b,
            ),
            (
                "a null selector",
                gate(kind::INT32, 0, true, 0, 0, 0),
                13,
                1,
            ),
            (
                "a selector beyond the GDT",
                gate(kind::INT32, 0, true, BEYOND, 0, 0),
                13,
                u32::from(BEYOND) + 1,
            ),
            (
                "a task gate to no TSS",
                gate(kind::TASK, 0, true, at::DATA0, 0, 0),
                13,
                u32::from(at::DATA0) + 1,
            ),
        ] {
            let mut row = Row::new(format!("a request by {what}, ring {cpl}")).cpl(cpl);
            row.irq = true;
            row.eflags |= eflags::IF;
            row.stop();
            row.gate(REQUEST, value);
            row.fault(vector, Some(error), at::CODE);
            row.deviation = Some(deviation::EXT_CLEAR);
            rows.push(row);
        }
    }
    rows
}

/// Real mode: the vector table, its place and its limit. 3B 20.1.4; vol. 2, INT.
fn real() -> Vec<Row> {
    let mut rows = Vec::new();
    let stack = at::LOW_STACK + 0x8000;
    for (name, bytes, vector, traps) in [
        ("INT n", &[0xcd, 0x40][..], 0x40u8, true),
        ("INT3", &[0xcc], 3, true),
        ("INTO", &[0xce], 4, true),
        ("INT1", &[0xf1], 1, true),
        ("#DE", &[0xf7, 0xf3], 0, false),
        ("#UD", &[0x0f, 0x0b], 6, false),
        ("#BR", &[0x62, 0x06, 0, 0], 5, false),
        ("LLDT is unknown", &[0x0f, 0x00, 0xd0], 6, false),
        (
            "MOV to CR4 of a reserved bit",
            &[0x0f, 0x22, 0xe0],
            13,
            false,
        ),
    ] {
        for moved in [false, true] {
            let place = if moved { "moved" } else { "at 0" };
            let mut row = Row::new(format!("real mode, table {place}: {name}")).real_mode();
            row.gpr[0] = 0x8000_0000;
            row.gpr[3] = 0;
            row.put(at::LOW_DATA, &[1, 0, 2, 0]); // BOUND: AX is below 1
            row.eflags |= 0x800 | eflags::IF | eflags::CF;
            if moved {
                row.idt_base = at::LOW_DATA;
                let entry = at::low_stub(vector).to_le_bytes();
                row.put(at::LOW_DATA + u32::from(vector) * 4, &entry);
            }
            let eip = row.bytes(bytes);
            let next = row.stop();
            let saved = if traps { next } else { eip };
            row.fault(vector, None, saved);
            row.expect(Field::Cs, at::LOW_CODE >> 4);
            row.expect_bits(Field::Eflags, 0xffff, row.eflags);
            row.expect(Field::Esp, 0x8000);
            row.watches.push((stack - 6, 2));
            row.expect(Field::Mem(stack - 6), saved);
            row.expect_bits(Field::HandlerFlags, eflags::IF | eflags::TF | eflags::CF, 1);
            row.deviation = match name {
                "INT1" => Some(deviation::INT1),
                "MOV to CR4 of a reserved bit" => Some(deviation::CR_UNCHECKED),
                _ => None,
            };
            rows.push(row);
        }
    }
    // Beyond the limit: #GP; and beyond that: double fault, shutdown.
    for (limit, ends) in [
        (0x103u16, Some(0x40u8)),
        (0x102, Some(13)),
        (0x37, Some(13)),
        (0x36, Some(8)),
        (0x23, Some(8)),
        (0x22, None),
        (0, None),
    ] {
        let mut row = Row::new(format!("real mode: INT 40h, table's limit {limit:#x}")).real_mode();
        row.idt_limit = limit;
        let eip = row.bytes(&[0xcd, 0x40]);
        let next = row.stop();
        match ends {
            Some(vector) => row.fault(vector, None, if vector == 0x40 { next } else { eip }),
            None => row.shuts_down(),
        }
        rows.push(row);
    }
    // The frame wraps at 64 KiB.
    let mut row = Row::new("real mode: INT with SP 2").real_mode();
    row.gpr[4] = 2;
    row.bytes(&[0xcd, 0x40]);
    let next = row.stop();
    row.fault(0x40, None, next);
    row.watches.push((at::LOW_STACK + 0xfffc, 4));
    row.expect(
        Field::Mem(at::LOW_STACK + 0xfffc),
        next | (at::LOW_CODE >> 4) << 16,
    );
    rows.push(row);
    rows
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        Table::new(
            "exceptions",
            "SDM 3A 6.3-6.5, 6.12-6.13 (table 6-1), 6.15; 3B 18.3.1.1",
            exceptions(),
        ),
        Table::new("requests", "SDM 3A 6.3.2, 6.8.1, 6.12, 6.13", requests()),
        Table::new("real-interrupts", "SDM 3B 20.1.4; vol. 2, INT", real()),
    ]
}
