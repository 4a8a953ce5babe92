//! The stack of an inner ring: what the TSS says and what its descriptor may be.

use super::{GATE, STACK_SEL, far};
use crate::descriptor::{Tss32, flag, gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate};

/// How an inner ring is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    CallGate,
    Software,
    /// #BR: benign, so that what goes wrong is delivered as itself.
    Exception,
}

/// The inner stack: what the TSS says and what its descriptor may be. 5.8.5, 6.12.1; vol. 2.
fn inner_stacks() -> Vec<Row> {
    let mut rows = Vec::new();
    let data = |k: u8, dpl: u8, p: bool| segment(0, 0xf_ffff, k, dpl, p, flag::G | flag::BIG);
    let cases: Vec<(&str, u16, Option<u64>, u8, u32)> = vec![
        ("null", 0, None, 10, 0),
        ("null with RPL", 1, None, 10, 0),
        ("beyond the GDT", 0x1001, None, 10, 0x1000),
        (
            "RPL too low",
            STACK_SEL,
            Some(data(kind::DATA_W, 1, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "RPL too high",
            STACK_SEL | 2,
            Some(data(kind::DATA_W, 1, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "DPL too low",
            STACK_SEL | 1,
            Some(data(kind::DATA_W, 0, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "DPL too high",
            STACK_SEL | 1,
            Some(data(kind::DATA_W, 2, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "read-only",
            STACK_SEL | 1,
            Some(data(kind::DATA_R, 1, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "code",
            STACK_SEL | 1,
            Some(data(kind::CODE_R, 1, true)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "system",
            STACK_SEL | 1,
            Some(segment(at::LDT, 0x3ff, kind::LDT, 1, true, 0)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "absent",
            STACK_SEL | 1,
            Some(data(kind::DATA_W, 1, false)),
            12,
            u32::from(STACK_SEL),
        ),
        (
            "absent and read-only",
            STACK_SEL | 1,
            Some(data(kind::DATA_R, 1, false)),
            10,
            u32::from(STACK_SEL),
        ),
        (
            "too small",
            STACK_SEL | 1,
            Some(segment(at::STACK1, 0x1f, kind::DATA_W, 1, true, flag::BIG)),
            12,
            u32::from(STACK_SEL),
        ),
    ];
    for entry in [Entry::CallGate, Entry::Software, Entry::Exception] {
        for &(what, ss, descriptor, vector, error) in &cases {
            let mut row = Row::new(format!("{entry:?} into ring 1: SS {what}")).cpl(3);
            let tss = Tss32 {
                stacks: [
                    (at::STACK0, at::DATA0),
                    // For "too small": the frame wraps below 0.
                    (if what == "too small" { 4 } else { at::STACK1 }, ss),
                    (0, 0),
                ],
                io_map: 0x68,
                ..Tss32::default()
            };
            row.put(at::TSS, &tss.bytes());
            if let Some(d) = descriptor {
                row.descriptor(STACK_SEL, d);
            }
            let eip = enter(&mut row, entry);
            row.stop();
            let ext = u32::from(entry == Entry::Exception);
            row.fault(vector, Some(error + ext), eip);
            row.expect(Field::Cs, u32::from(at::CODE3));
            row.expect(Field::Esp, at::ROW_STACK);
            if what == "too small" {
                row.deviation = Some(deviation::SEGMENT_LIMITS);
            } else if ext != 0 {
                row.deviation = Some(deviation::EXT_CLEAR);
            }
            rows.push(row);
        }
        // The TSS does not reach to the stack's slot: #TS(TSS).
        for (limit, inside) in [(0x13, true), (0x10, false)] {
            let mut row = Row::new(format!("{entry:?} into ring 1: TSS limit {limit:#x}")).cpl(3);
            row.descriptor(
                at::TSS_SEL,
                segment(at::TSS, limit, kind::TSS32, 0, true, 0),
            );
            let eip = enter(&mut row, entry);
            row.stop();
            if inside {
                // The dword at 0CH is ESP1, the word at 10H SS1.
                row.fault(6, None, at::TARGET);
                row.expect(Field::Ss, u32::from(at::DATA1));
            } else {
                let ext = u32::from(entry == Entry::Exception);
                row.fault(10, Some(u32::from(at::TSS_SEL) + ext), eip);
                if ext != 0 {
                    row.deviation = Some(deviation::EXT_CLEAR);
                }
            }
            rows.push(row);
        }
    }
    rows
}

/// Goes from ring 3 to ring 1 at TARGET; gives the instruction's EIP.
fn enter(row: &mut Row, entry: Entry) -> u32 {
    row.put(at::TARGET, &[0x0f, 0x0b]);
    match entry {
        Entry::CallGate => {
            row.descriptor(GATE, gate(kind::CALL32, 3, true, at::CODE1, at::TARGET, 0));
            row.bytes(&far(0x9a, GATE, 0))
        }
        Entry::Software => {
            row.gate(0x40, gate(kind::INT32, 3, true, at::CODE1, at::TARGET, 0));
            row.bytes(&[0xcd, 0x40])
        }
        Entry::Exception => {
            row.gate(5, gate(kind::INT32, 0, true, at::CODE1, at::TARGET, 0));
            row.put(at::DATA, &[5, 0, 0, 0, 9, 0, 0, 0]);
            row.gpr[3] = 0;
            row.asm(|a| a.bound(iced_x86::code_asm::ebx, iced_x86::code_asm::ptr(at::DATA)))
        }
    }
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = inner_stacks();
    deviate(&mut rows, deviation::INNER_SS_ABSENT, |name| {
        name.ends_with("SS absent")
    });
    Table::new(
        "inner-stacks",
        "SDM 3A 5.8.5, 6.12.1; vol. 2, CALL, INT",
        rows,
    )
}
