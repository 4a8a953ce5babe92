//! Which of several exceptions is delivered; double and triple faults.

use crate::descriptor::{Tss32, flag, gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};
use iced_x86::IcedError;
use iced_x86::code_asm::{
    CodeAssembler, al, ax, cr0, dword_ptr, dx, eax, ebx, edx, ptr, qword_ptr, word_ptr, xmm0,
    xmmword_ptr,
};

/// A linear address that is never mapped in rows with paging.
const NOWHERE: u32 = at::TEST + 0x5000;
/// A selector beyond the GDT.
const BEYOND: u32 = 0x1000;

/// Name, CPL, changes, instruction, vector, error code: the first exception in the order of table
/// 6-2 (and of the instruction's page) wins. EBX points nowhere.
type Case = (
    &'static str,
    u8,
    fn(&mut Row),
    fn(&mut CodeAssembler) -> Result<(), IcedError>,
    u8,
    Option<u32>,
);

const CR0_EM: u32 = 4;
const CR0_TS: u32 = 8;
const OSFXSR: u32 = 0x200;

fn instruction_order() -> Vec<Row> {
    let nothing: fn(&mut Row) = |_| {};
    let cases: Vec<Case> = vec![
        (
            "an invalid LOCK comes before the operand",
            0,
            nothing,
            |a| a.db(&[0xf0, 0x8b, 0x03]),
            6,
            None,
        ),
        (
            "a register form of LEA is invalid",
            0,
            nothing,
            |a| a.db(&[0x8d, 0xc0]),
            6,
            None,
        ),
        (
            "MOV to CS is invalid",
            0,
            nothing,
            |a| a.db(&[0x8e, 0x0b]),
            6,
            None,
        ),
        (
            "privilege comes before the operand: LGDT",
            3,
            nothing,
            |a| a.db(&[0x0f, 0x01, 0x13]),
            13,
            Some(0),
        ),
        (
            "privilege comes before the operand: LLDT",
            3,
            nothing,
            |a| a.db(&[0x0f, 0x00, 0x13]),
            13,
            Some(0),
        ),
        (
            "privilege comes before the operand: LTR",
            3,
            nothing,
            |a| a.db(&[0x0f, 0x00, 0x1b]),
            13,
            Some(0),
        ),
        (
            "privilege comes before the operand: LMSW",
            3,
            nothing,
            |a| a.db(&[0x0f, 0x01, 0x33]),
            13,
            Some(0),
        ),
        (
            "privilege comes before the operand: INVLPG",
            3,
            nothing,
            |a| a.db(&[0x0f, 0x01, 0x3b]),
            13,
            Some(0),
        ),
        (
            "I/O permission comes before the operand: OUTSB",
            3,
            |r| r.gpr[6] = NOWHERE,
            |a| a.outsb(),
            13,
            Some(0),
        ),
        (
            "I/O permission comes before the operand: INSB",
            3,
            |r| r.gpr[7] = NOWHERE,
            |a| a.insb(),
            13,
            Some(0),
        ),
        (
            "the operand comes before the division",
            0,
            |r| {
                r.gpr[2] = 1;
            },
            |a| a.div(dword_ptr(ebx)),
            14,
            Some(0),
        ),
        (
            "the operand comes before the bounds",
            0,
            nothing,
            |a| a.bound(eax, ptr(ebx)),
            14,
            Some(0),
        ),
        (
            "TS comes before the operand: x87",
            0,
            |r| r.cr0 |= CR0_TS,
            |a| a.fld(dword_ptr(ebx)),
            7,
            None,
        ),
        (
            "EM comes before the operand: x87",
            0,
            |r| r.cr0 |= CR0_EM,
            |a| a.fld(dword_ptr(ebx)),
            7,
            None,
        ),
        (
            "EM and TS: SSE is invalid",
            0,
            |r| {
                r.cr0 |= CR0_EM | CR0_TS;
                r.cr4 |= OSFXSR;
            },
            |a| a.movups(xmm0, xmmword_ptr(ebx)),
            6,
            None,
        ),
        (
            "no OSFXSR: SSE is invalid, whatever TS says",
            0,
            |r| r.cr0 |= CR0_TS,
            |a| a.movups(xmm0, xmmword_ptr(ebx)),
            6,
            None,
        ),
        (
            "TS comes before the operand: SSE",
            0,
            |r| {
                r.cr0 |= CR0_TS;
                r.cr4 |= OSFXSR;
            },
            |a| a.movups(xmm0, xmmword_ptr(ebx)),
            7,
            None,
        ),
        (
            "TS comes before alignment: SSE",
            0,
            |r| {
                r.cr0 |= CR0_TS;
                r.cr4 |= OSFXSR;
                r.gpr[3] = at::DATA + 1;
            },
            |a| a.movaps(xmm0, xmmword_ptr(ebx)),
            7,
            None,
        ),
        (
            "MMX with EM is invalid",
            0,
            |r| r.cr0 |= CR0_EM,
            |a| a.db(&[0x0f, 0x6f, 0x03]),
            6,
            None,
        ),
        (
            "MMX with TS",
            0,
            |r| r.cr0 |= CR0_TS,
            |a| a.db(&[0x0f, 0x6f, 0x03]),
            7,
            None,
        ),
        (
            "alignment of SSE comes before paging",
            0,
            |r| {
                r.cr4 |= OSFXSR;
                r.gpr[3] = NOWHERE + 1;
            },
            |a| a.movaps(xmm0, xmmword_ptr(ebx)),
            13,
            Some(0),
        ),
        (
            "FXSAVE misaligned",
            0,
            |r| {
                r.cr4 |= OSFXSR;
                r.gpr[3] = at::DATA + 8;
            },
            |a| a.fxsave(ptr(ebx)),
            13,
            Some(0),
        ),
        (
            "WAIT with MP and TS",
            0,
            |r| r.cr0 |= CR0_TS,
            |a| a.wait(),
            7,
            None,
        ),
        (
            "WAIT without TS",
            0,
            nothing,
            |a| {
                a.wait()?;
                a.db(&[0x0f, 0x0b])
            },
            6,
            None,
        ),
        (
            "CPUID.NX: MOV to CR0 in ring 3",
            3,
            nothing,
            |a| a.mov(cr0, eax),
            13,
            Some(0),
        ),
        ("HLT in ring 3", 3, nothing, |a| a.hlt(), 13, Some(0)),
        (
            "CLI in ring 3, IOPL 0",
            3,
            nothing,
            |a| a.cli(),
            13,
            Some(0),
        ),
        (
            "RDMSR of nothing",
            0,
            |r| r.gpr[1] = 0x1234_5678,
            |a| a.rdmsr(),
            13,
            Some(0),
        ),
        (
            "WRMSR of nothing",
            0,
            |r| r.gpr[1] = 0x1234_5678,
            |a| a.wrmsr(),
            13,
            Some(0),
        ),
        (
            "CR0: PG without PE",
            0,
            |r| r.gpr[0] = 0x8000_0010,
            |a| a.mov(cr0, eax),
            13,
            Some(0),
        ),
        (
            "CR0: NW without CD",
            0,
            |r| r.gpr[0] = 0xa000_0013,
            |a| a.mov(cr0, eax),
            13,
            Some(0),
        ),
        (
            "CR4: a reserved bit",
            0,
            |r| r.gpr[0] = 0x8000_0000,
            |a| a.mov(iced_x86::code_asm::cr4, eax),
            13,
            Some(0),
        ),
        (
            "CR1 is no register",
            0,
            nothing,
            |a| a.db(&[0x0f, 0x20, 0xc8]),
            6,
            None,
        ),
        (
            "MOV to DR7: bits above 31 do not exist, MOV from DR4 with DE",
            0,
            |r| r.cr4 |= 8,
            |a| a.db(&[0x0f, 0x21, 0xe0]),
            6,
            None,
        ),
        (
            "MOV to DR5 with DE",
            0,
            |r| r.cr4 |= 8,
            |a| a.db(&[0x0f, 0x23, 0xe8]),
            6,
            None,
        ),
        (
            "RDTSC with TSD",
            3,
            |r| r.cr4 |= 4,
            |a| a.rdtsc(),
            13,
            Some(0),
        ),
        (
            "RDPMC in ring 3 without PCE",
            3,
            nothing,
            |a| a.rdpmc(),
            13,
            Some(0),
        ),
        (
            "the selector comes after the operand's page: LES",
            0,
            nothing,
            |a| a.db(&[0xc4, 0x03]),
            14,
            Some(0),
        ),
        (
            "a selector beyond the table",
            0,
            |r| r.gpr[0] = BEYOND,
            |a| a.mov(iced_x86::code_asm::es, ax),
            13,
            Some(BEYOND),
        ),
        (
            "the stack comes after the operand: PUSH",
            3,
            |r| r.gpr[4] = NOWHERE - 0x1000,
            |a| a.push(dword_ptr(ebx)),
            14,
            Some(4),
        ),
        (
            "CMPXCHG8B of a register",
            0,
            nothing,
            |a| a.db(&[0x0f, 0xc7, 0xc8]),
            6,
            None,
        ),
        (
            "XCHG reads and writes: W",
            0,
            nothing,
            |a| a.xchg(dword_ptr(ebx), eax),
            14,
            Some(2),
        ),
        (
            "CMPXCHG that fails writes all the same",
            0,
            nothing,
            |a| a.cmpxchg(word_ptr(ebx), dx),
            14,
            Some(2),
        ),
        (
            "FLD of 8 bytes",
            3,
            nothing,
            |a| a.fld(qword_ptr(ebx)),
            14,
            Some(4),
        ),
        (
            "BTS reads and writes: W",
            0,
            nothing,
            |a| a.bts(dword_ptr(ebx), edx),
            14,
            Some(2),
        ),
        (
            "SETcc writes",
            0,
            nothing,
            |a| a.sete(iced_x86::code_asm::byte_ptr(ebx)),
            14,
            Some(2),
        ),
        (
            "TEST reads",
            0,
            nothing,
            |a| a.test(iced_x86::code_asm::byte_ptr(ebx), al),
            14,
            Some(0),
        ),
    ];
    let mut rows = Vec::new();
    for (name, cpl, change, instruction, vector, error) in cases {
        let mut row = Row::new(name).cpl(cpl).paging();
        row.gpr[3] = NOWHERE;
        row.gpr[2] = 0;
        change(&mut row);
        let eip = row.asm(instruction);
        row.stop();
        let eip = if name == "WAIT without TS" {
            eip + 1
        } else {
            eip
        };
        row.fault(vector, error, eip);
        rows.push(row);
    }
    rows
}

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

/// Interrupts, traps and breakpoints of one boundary: 6.9.
fn boundary() -> Vec<Row> {
    let mut rows = Vec::new();
    // A single-step trap comes before an interrupt.
    let mut row = Row::new("trap before interrupt");
    row.irq = true;
    row.eflags |= eflags::TF;
    row.bytes(&[0xfb]); // sti
    row.bytes(&[0x90]);
    let end = row.stop();
    let _ = end;
    row.fault(1, None, at::CODE + 1);
    rows.push(row);
    let mut row = Row::new("trap before interrupt, the interrupt before the handler");
    row.irq = true;
    row.eflags |= eflags::TF | eflags::IF;
    // The trap gate leaves IF set: the interrupt is taken before the handler's first instruction.
    // The pending interrupt itself is taken before the row's first instruction.
    row.bytes(&[0x90]);
    row.stop();
    row.fault(0x23, None, at::CODE);
    rows.push(row);
    // A fault of the instruction means no trap.
    let mut row = Row::new("a fault has no trap of its own");
    row.eflags |= eflags::TF;
    let eip = row.bytes(&[0x0f, 0x0b]);
    row.fault(6, None, eip);
    row.expect_bits(Field::Eflags, eflags::TF, eflags::TF);
    row.expect_bits(Field::Dr6, 0x4000, 0);
    rows.push(row);
    // An interrupt comes before a code breakpoint at the next instruction.
    let mut row = Row::new("interrupt before code breakpoint");
    row.irq = true;
    row.eflags |= eflags::IF;
    row.dr[0] = at::CODE;
    row.dr7 = 0x402;
    row.stop();
    row.fault(0x23, None, at::CODE);
    row.expect_bits(Field::Dr6, 0xf, 0);
    rows.push(row);
    // A code breakpoint comes before faults of fetching and decoding.
    let mut row = Row::new("code breakpoint before an invalid opcode");
    row.dr[0] = at::CODE;
    row.dr7 = 0x402;
    let eip = row.stop();
    row.fault(1, None, eip);
    row.expect_bits(Field::Dr6, 0xf, 1);
    rows.push(row);
    let mut row = Row::new("code breakpoint before a fault of fetching").paging();
    row.dr[0] = NOWHERE;
    row.dr7 = 0x402;
    row.gpr[3] = NOWHERE;
    row.asm(|a| a.jmp(ebx));
    row.fault(1, None, NOWHERE);
    row.expect_bits(Field::Dr6, 0xf, 1);
    rows.push(row);
    rows
}

/// The table.
pub fn table() -> Table {
    let mut rows = instruction_order();
    deviate(&mut rows, deviation::LOCK_LATE, |name| {
        name.starts_with("an invalid LOCK")
    });
    deviate(&mut rows, deviation::EM_LATE, |name| {
        name.starts_with("EM and TS")
    });
    deviate(&mut rows, deviation::MSR_UNKNOWN, |name| {
        name.ends_with("MSR of nothing")
    });
    deviate(&mut rows, deviation::CR_UNCHECKED, |name| {
        [
            "CR0: PG without PE",
            "CR0: NW without CD",
            "CR4: a reserved bit",
        ]
        .contains(&name)
    });
    deviate(&mut rows, deviation::MODIFY_READS_FIRST, |name| {
        name.starts_with("XCHG") || name.starts_with("CMPXCHG that") || name.starts_with("BTS")
    });
    rows.extend(fetching());
    let mut double = double_faults();
    deviate(&mut double, deviation::INNER_SS_ABSENT, |name| {
        name == "Software, then StackAbsent"
    });
    rows.extend(double);
    rows.extend(shutdowns());
    rows.extend(boundary());
    deviate(&mut rows, deviation::STI_NO_TRAP, |name| {
        name == "trap before interrupt"
    });
    Table {
        name: "priority",
        source: "SDM 3A 6.9, 6.15 (tables 6-2, 6-5)",
        rows,
    }
}
