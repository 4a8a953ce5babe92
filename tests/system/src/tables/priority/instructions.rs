//! Faults of one instruction, in the order in which they are met.

use super::{BEYOND, CR0_TS, NOWHERE};
use crate::deviation;
use crate::layout as at;
use crate::row::{Row, Table, deviate};
use iced_x86::IcedError;
use iced_x86::code_asm::{
    CodeAssembler, al, ax, cr0, dword_ptr, dx, eax, ebx, edx, ptr, qword_ptr, word_ptr, xmm0,
    xmmword_ptr,
};

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

/// The table.
pub(super) fn table() -> Table {
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
    Table::new("instruction-order", "SDM 3A 6.9 (table 6-2); vol. 2", rows)
}
