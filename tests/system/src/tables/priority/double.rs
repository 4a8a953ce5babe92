//! Faults while an event is delivered: double faults and shutdown.

use super::{BEYOND, CR0_TS, NOWHERE};
use crate::descriptor::{Tss32, gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};
use iced_x86::code_asm::{eax, ebx, ptr};

/// The classes of table 6-5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Divide,
    Tss,
    NotPresent,
    Stack,
    General,
    Page,
    Invalid,
    Bound,
    NoFpu,
    Software,
    External,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    GateAbsent,
    GateType,
    StackSelector,
    StackAbsent,
    StackPage,
    HandlerAbsent,
}

const FIRSTS: [First; 11] = [
    First::Divide,
    First::Tss,
    First::NotPresent,
    First::Stack,
    First::General,
    First::Page,
    First::Invalid,
    First::Bound,
    First::NoFpu,
    First::Software,
    First::External,
];

const SECONDS: [Second; 6] = [
    Second::GateAbsent,
    Second::GateType,
    Second::StackSelector,
    Second::StackAbsent,
    Second::StackPage,
    Second::HandlerAbsent,
];

/// Raises `first` in ring 3; gives its vector, its EIP and the EIP that is saved for it.
fn raise(row: &mut Row, first: First) -> (u8, u32) {
    match first {
        First::Divide => {
            row.gpr[3] = 0;
            (0, row.asm(|a| a.div(ebx)))
        }
        First::Tss => {
            // IRET with NT and a bad link.
            row.eflags |= eflags::NT;
            row.put(at::TSS, &BEYOND.to_le_bytes()[..2]);
            (10, row.bytes(&[0xcf]))
        }
        First::NotPresent => {
            row.descriptor(at::FREE, segment(0, 0xffff, kind::DATA_W, 3, false, 0));
            row.gpr[0] = u32::from(at::FREE);
            (11, row.bytes(&[0x8e, 0xd8]))
        }
        First::Stack => {
            row.descriptor(at::FREE, segment(0, 0xffff, kind::DATA_W, 3, false, 0));
            row.gpr[0] = u32::from(at::FREE | 3);
            (12, row.bytes(&[0x8e, 0xd0]))
        }
        First::General => (13, row.bytes(&[0xf4])),
        First::Page => {
            row.gpr[3] = NOWHERE;
            (14, row.asm(|a| a.mov(eax, ptr(ebx))))
        }
        First::Invalid => (6, row.bytes(&[0x0f, 0x0b])),
        First::Bound => {
            row.put(at::DATA, &[5, 0, 0, 0, 9, 0, 0, 0]);
            row.gpr[3] = 0;
            (5, row.asm(|a| a.bound(ebx, ptr(at::DATA))))
        }
        First::NoFpu => {
            row.cr0 |= CR0_TS;
            (7, row.bytes(&[0xd9, 0xd0]))
        }
        First::Software => (0x40, row.bytes(&[0xcd, 0x40])),
        First::External => {
            row.irq = true;
            row.eflags |= eflags::IF;
            (0x23, row.bytes(&[0x90]))
        }
    }
}

/// Table 6-5.
fn double_faults() -> Vec<Row> {
    let mut rows = Vec::new();
    for first in FIRSTS {
        for second in SECONDS {
            let mut row = Row::new(format!("{first:?}, then {second:?}"))
                .cpl(3)
                .paging();
            // Ring 1 handles the first; its stack is what the second fault is about.
            let (vector, eip) = raise(&mut row, first);
            row.stop();
            let index = u32::from(vector) * 8 + 2;
            let external = u32::from(first != First::Software);
            let handler = gate(kind::INT32, 3, true, at::CODE1, at::TARGET, 0);
            row.gate(vector, handler);
            row.put(at::TARGET, &[0x0f, 0x0b]);
            let mut stack1 = (at::STACK1, at::DATA1);
            let (second_vector, error) = match second {
                Second::GateAbsent => {
                    row.gate(
                        vector,
                        gate(kind::INT32, 3, false, at::CODE1, at::TARGET, 0),
                    );
                    (11, index)
                }
                Second::GateType => {
                    row.gate(
                        vector,
                        gate(kind::CALL32, 3, true, at::CODE1, at::TARGET, 0),
                    );
                    (13, index)
                }
                Second::StackSelector => {
                    stack1.1 = BEYOND as u16 | 1;
                    (10, BEYOND)
                }
                Second::StackAbsent => {
                    row.descriptor(at::FREE + 8, segment(0, 0xffff, kind::DATA_W, 1, false, 0));
                    stack1.1 = (at::FREE + 8) | 1;
                    (12, u32::from(at::FREE + 8))
                }
                Second::StackPage => {
                    stack1.0 = NOWHERE + 0x800;
                    (14, 2)
                }
                Second::HandlerAbsent => {
                    row.descriptor(at::FREE + 8, segment(0, 0xffff, kind::CODE_R, 1, false, 0));
                    row.gate(
                        vector,
                        gate(kind::INT32, 3, true, at::FREE + 8, at::TARGET, 0),
                    );
                    (11, u32::from(at::FREE + 8))
                }
            };
            // A second fault of the same vector could not be delivered by the gate that it is about.
            let tss = Tss32 {
                stacks: [(at::STACK0, at::DATA0), stack1, (0, 0)],
                io_map: 0x68,
                ..Tss32::default()
            };
            row.put(at::TSS, &tss.bytes());
            if first == First::Tss {
                row.put(at::TSS, &BEYOND.to_le_bytes()[..2]);
            }
            let contributory = |v: u8| matches!(v, 0 | 10 | 11 | 12 | 13);
            let double = match vector {
                14 => contributory(second_vector) || second_vector == 14,
                v => contributory(v) && contributory(second_vector),
            };
            if double {
                row.fault_by_task(8, Some(0));
                row.expect(Field::Tr, u32::from(at::HANDLER_SEL));
                row.expect16(at::HANDLER_TSS, at::TSS_SEL);
                row.expect(Field::Mem(at::TSS + 0x20), eip);
                row.expect16(at::TSS + 0x4c, at::CODE3);
            } else {
                let ext = if second_vector == 14 { 0 } else { external };
                row.fault(second_vector, Some(error | ext), eip);
                row.expect(Field::Cs, u32::from(at::CODE3));
                if second_vector == 14 {
                    row.expect(Field::Cr2, NOWHERE + 0x800 - 4);
                }
                let clear = external == 1 && second_vector != 14;
                row.deviation = clear.then_some(deviation::EXT_CLEAR);
            }
            if first == First::Page && double {
                let cr2 = if second == Second::StackPage {
                    NOWHERE + 0x800 - 4
                } else {
                    NOWHERE
                };
                row.expect(Field::Cr2, cr2);
            }
            rows.push(row);
        }
    }
    rows
}

/// A fault in the delivery of a double fault: shutdown. 6.15, interrupt 8.
fn shutdowns() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: &str, prepare: &dyn Fn(&mut Row)| {
        let mut row = Row::new(name).cpl(3).paging();
        row.gate(13, gate(kind::INT32, 3, false, at::CODE0, at::TARGET, 0));
        row.bytes(&[0xf4]);
        row.stop();
        prepare(&mut row);
        row.shuts_down();
        rows.push(row);
    };
    add("the double-fault gate is absent", &|row| row.gate(8, 0));
    add("the double-fault gate is a call gate", &|row| {
        row.gate(8, gate(kind::CALL32, 0, true, at::CODE0, at::TARGET, 0))
    });
    add("the double-fault task is busy", &|row| {
        row.descriptor(
            at::HANDLER_SEL,
            segment(at::HANDLER_TSS, 0x67, kind::TSS32 | kind::BUSY, 0, true, 0),
        );
    });
    add("the double-fault task is absent", &|row| {
        row.descriptor(
            at::HANDLER_SEL,
            segment(at::HANDLER_TSS, 0x67, kind::TSS32, 0, false, 0),
        );
    });
    add("the double-fault handler's stack is not mapped", &|row| {
        row.open_vector(8, 0);
        let tss = Tss32 {
            stacks: [(NOWHERE + 0x800, at::DATA0), (0, 0), (0, 0)],
            io_map: 0x68,
            ..Tss32::default()
        };
        row.put(at::TSS, &tss.bytes());
    });
    add("the IDT ends before the double fault's gate", &|row| {
        row.idt_limit = 0x46
    });
    add("the IDT is empty", &|row| row.idt_limit = 0);
    rows
}

/// The table of double faults.
pub(super) fn table() -> Table {
    let mut rows = double_faults();
    deviate(&mut rows, deviation::INNER_SS_ABSENT, |name| {
        name == "Software, then StackAbsent"
    });
    Table::new(
        "double-faults",
        "SDM 3A 6.15, interrupt 8 (tables 6-4, 6-5)",
        rows,
    )
}

/// The table of shutdowns.
pub(super) fn shutdown_table() -> Table {
    Table::new("shutdown", "SDM 3A 6.15, interrupt 8", shutdowns())
}
