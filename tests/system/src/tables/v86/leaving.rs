//! Leaving V8086 mode by gates, and entering it by IRETD.

use super::v86;
use crate::descriptor::{flag, gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};

/// Leaving V8086 mode. 20.2.4, 20.3.1; vol. 2, INT and IRET.
fn leaving() -> Vec<Row> {
    let mut rows = Vec::new();
    // The handler must be nonconforming code of DPL 0.
    for dpl in 0..4u8 {
        for k in [kind::CODE_R, kind::CONFORMING] {
            let mut row = v86(format!("handler type {k:#x} DPL {dpl}"), 3, 0);
            row.descriptor(
                at::FREE,
                segment(0, 0xf_ffff, k, dpl, true, flag::G | flag::BIG),
            );
            row.gate(0x40, gate(kind::INT32, 3, true, at::FREE, at::TARGET, 0));
            row.put(at::TARGET, &[0x0f, 0x0b]);
            let eip = row.bytes(&[0xcd, 0x40]);
            row.stop();
            if dpl == 0 && k == kind::CODE_R {
                row.fault(6, None, at::TARGET);
                row.expect(Field::Cs, u32::from(at::FREE));
                row.expect(Field::Esp, at::STACK0 - 36);
                for field in [Field::Ds, Field::Es, Field::Fs, Field::Gs] {
                    row.expect(field, 0);
                }
            } else {
                row.fault(13, Some(u32::from(at::FREE)), eip);
            }
            rows.push(row);
        }
    }
    // 16-bit and trap gates.
    for k in [kind::INT16, kind::TRAP16, kind::TRAP32] {
        let mut row = v86(format!("INT through gate type {k:#x}"), 3, 0);
        row.eflags |= eflags::IF;
        let narrow = row.handler_gate(0x40, k, 3);
        row.bytes(&[0xcd, 0x40]);
        let next = row.here();
        row.stop();
        row.narrow_frame = narrow;
        row.fault(0x40, None, next);
        row.expect(Field::HandlerEsp, at::STACK0 - if narrow { 18 } else { 36 });
        let keeps = k & 1 != 0;
        row.expect_bits(
            Field::HandlerFlags,
            eflags::IF | eflags::VM,
            if keeps { eflags::IF } else { 0 },
        );
        rows.push(row);
    }
    // IRETD in ring 0 with VM set in the image: every register from the stack.
    let mut row = Row::new("IRETD to V8086 mode");
    let esp = at::ROW_STACK - 0x40;
    row.gpr[4] = esp;
    let image = eflags::VM | eflags::IOPL | eflags::CF | eflags::AC | eflags::FIXED;
    for (n, value) in [
        0x55, 0x1000, image, 0x1_7777, 0x2000, 0x11, 0x22, 0x33, 0x44,
    ]
    .into_iter()
    .enumerate()
    {
        row.put32(esp + n as u32 * 4, value);
    }
    row.put(at::LOW_CODE + 0x55, &[0x0f, 0x0b]);
    row.bytes(&[0xcf]);
    row.stop();
    row.fault(6, None, 0x55);
    row.expect_flags(image);
    for (field, value) in [
        (Field::Cs, 0x1000),
        (Field::Ss, 0x2000),
        (Field::Esp, 0x1_7777),
        (Field::Es, 0x11),
        (Field::Ds, 0x22),
        (Field::Fs, 0x33),
        (Field::Gs, 0x44),
    ] {
        row.expect(field, value);
    }
    rows.push(row);
    let mut row = Row::new("IRETD to V8086 mode, EIP beyond 64 KiB");
    row.gpr[4] = esp;
    for (n, value) in [
        0x1_0000, 0x1000, image, 0x7777, 0x2000, 0x11, 0x22, 0x33, 0x44,
    ]
    .into_iter()
    .enumerate()
    {
        row.put32(esp + n as u32 * 4, value);
    }
    row.put(at::LOW_CODE + 0x1_0000, &[0x0f, 0x0b]);
    let eip = row.bytes(&[0xcf]);
    row.stop();
    row.fault(13, Some(0), eip);
    row.expect(Field::Esp, esp);
    rows.push(row);
    // VM of the image means nothing in other rings.
    for cpl in 1..4u8 {
        let mut row = Row::new(format!("IRETD with VM in ring {cpl}")).cpl(cpl);
        row.gpr[4] = esp;
        for (n, value) in [at::TARGET, u32::from(at::code_of(cpl)), image]
            .into_iter()
            .enumerate()
        {
            row.put32(esp + n as u32 * 4, value);
        }
        row.put(at::TARGET, &[0x0f, 0x0b]);
        row.bytes(&[0xcf]);
        row.stop();
        row.fault(6, None, at::TARGET);
        row.expect_bits(Field::Eflags, eflags::VM | eflags::IOPL, 0);
        rows.push(row);
    }
    rows
}

/// Exceptions out of V8086 mode by every kind of gate: the frame, and the segment registers that
/// become null. 20.3.1.
fn exceptions() -> Vec<Row> {
    let mut rows = Vec::new();
    // (name, instruction, vector, error code)
    let cases: &[(&str, &[u8], u8, Option<u32>)] = &[
        ("#DE", &[0xf7, 0xf3], 0, None),
        ("#BR", &[0x62, 0x06, 0, 0], 5, None),
        ("#UD", &[0x0f, 0x0b], 6, None),
        ("#NM", &[0xd9, 0xd0], 7, None),
        ("#GP", &[0xf4], 13, Some(0)),
        ("#PF", &[0x67, 0xa1, 0, 0xf0, 0, 0], 14, Some(4)),
    ];
    for &(name, bytes, vector, error) in cases {
        for k in [kind::INT16, kind::TRAP16, kind::INT32, kind::TRAP32] {
            let mut row = v86(format!("{name} by gate type {k:#x}"), 3, 0);
            row.eflags |= eflags::IF | eflags::CF;
            row.gpr[3] = 0;
            row.gpr[0] = 9;
            row.put(at::LOW_DATA, &[1, 0, 2, 0]);
            if vector == 7 {
                row.cr0 |= 8; // TS
            }
            if vector == 14 {
                row = row.paging();
                row.put32(at::IDENTITY + ((at::LOW_DATA + 0xf000) >> 12) * 4, 0);
            }
            let eip = row.bytes(bytes);
            row.stop();
            let narrow = row.handler_gate(vector, k, 0);
            row.narrow_frame = narrow;
            row.fault(vector, error, eip);
            row.expect(Field::Cs, at::LOW_CODE >> 4);
            let width = if narrow { 2 } else { 4 };
            let slots = 9 + u32::from(error.is_some());
            row.expect(Field::HandlerEsp, at::STACK0 - slots * width);
            for (n, value) in [
                at::LOW_DATA,
                at::LOW_DATA,
                at::LOW_DATA,
                at::LOW_DATA,
                at::LOW_STACK,
            ]
            .into_iter()
            .enumerate()
            {
                let address = at::STACK0 - (n as u32 + 1) * width;
                row.watches.push((address, width));
                row.expect_bits(Field::Mem(address), 0xffff, value >> 4);
            }
            let keeps = if matches!(k, kind::TRAP16 | kind::TRAP32) {
                eflags::IF
            } else {
                0
            };
            row.expect_bits(Field::HandlerFlags, eflags::VM | eflags::IF, keeps);
            rows.push(row);
        }
    }
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = leaving();
    deviate(&mut rows, deviation::V86_HANDLER, |name| {
        name == "handler type 0x1a DPL 1" || name == "handler type 0x1a DPL 2"
    });
    deviate(&mut rows, deviation::SEGMENT_LIMITS, |name| {
        name.ends_with("beyond 64 KiB")
    });
    deviate(&mut rows, deviation::IRET_VM, |name| {
        name.starts_with("IRETD with VM")
    });
    rows.extend(exceptions());
    Table::new(
        "v86-transitions",
        "SDM 3B 20.2.4-20.2.6, 20.3.1; vol. 2, INT, IRET",
        rows,
    )
}
