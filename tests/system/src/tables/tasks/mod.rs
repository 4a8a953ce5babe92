//! Task switches: by JMP, CALL, IRET, task gates, interrupts and exceptions, between 16- and 32-bit
//! tasks; what is saved, loaded, marked and refused.

use crate::descriptor::{Tss16, Tss32, flag, gate, kind, segment};
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};
use iced_x86::code_asm::{ebx, ptr};

mod entering;
mod nesting;
mod refusals;
mod register;
mod segments;
mod switches;

/// The new task's TSS and the gate that leads to it.
pub(super) const NEW: u16 = at::FREE;

pub(super) const GATE: u16 = at::FREE + 8;

/// Descriptors for the new task's segments.
pub(super) const EXTRA: u16 = at::FREE + 0x10;

/// A software interrupt's vector.
pub(super) const VECTOR: u8 = 0x40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Jump,
    Call,
    JumpGate,
    CallGate,
    Interrupt,
    /// #BR: an exception without error code.
    Fault,
    /// #NP: an exception with one.
    FaultWithCode,
    Return,
}

pub(super) const WAYS: [Way; 8] = [
    Way::Jump,
    Way::Call,
    Way::JumpGate,
    Way::CallGate,
    Way::Interrupt,
    Way::Fault,
    Way::FaultWithCode,
    Way::Return,
];

impl Way {
    /// Table 7-2: CALL, interrupts and exceptions nest.
    pub(super) fn nests(self) -> bool {
        !matches!(self, Self::Jump | Self::JumpGate | Self::Return)
    }
    pub(super) fn is_fault(self) -> bool {
        matches!(self, Self::Fault | Self::FaultWithCode)
    }
    pub(super) fn by_gate(self) -> bool {
        !matches!(self, Self::Jump | Self::Call | Self::Return)
    }
}

/// The new task's registers, which tell it from the old one's.
pub(super) const REGISTERS: [u32; 8] = [
    0x1111_1101,
    0x1111_1102,
    0x1111_1103,
    0x1111_1104,
    at::OTHER_STACK,
    0x1111_1106,
    0x1111_1107,
    0x1111_1108,
];

pub(super) const OLD_FLAGS: u32 = eflags::FIXED | eflags::CF | eflags::ID | eflags::DF;

pub(super) const NEW_FLAGS: u32 = eflags::FIXED | eflags::ZF;

/// A 16-bit task's stack pointer: its stack segment is based.
pub(super) const SP16: u16 = 0x800;

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) way: Way,
    pub(super) old32: bool,
    pub(super) new32: bool,
    pub(super) old_cpl: u8,
    pub(super) new_cpl: u8,
}

impl Case {
    /// Between 32-bit tasks.
    pub(super) const fn wide(way: Way, old_cpl: u8, new_cpl: u8) -> Self {
        Self {
            way,
            old32: true,
            new32: true,
            old_cpl,
            new_cpl,
        }
    }
}

/// One way of each kind into a task that has a descriptor of its own.
pub(super) const KINDS_OF_WAYS: [Way; 5] = [
    Way::Jump,
    Way::Call,
    Way::Interrupt,
    Way::Fault,
    Way::Return,
];

pub(super) fn new_tss32(cpl: u8) -> Tss32 {
    let data = at::data_of(cpl);
    Tss32 {
        stacks: [
            (at::OTHER_STACK - 0x80, at::DATA0),
            (at::STACK1, at::DATA1),
            (at::STACK2, at::DATA2),
        ],
        eip: at::TARGET,
        eflags: NEW_FLAGS,
        gpr: REGISTERS,
        segments: [data, at::code_of(cpl), data, data, at::DATA3, 0],
        ldt: at::LDT_SEL,
        io_map: 0x68,
        ..Tss32::default()
    }
}

/// Selectors of the 16-bit task's code and stack: based at its code and stack.
pub(super) fn selectors16(cpl: u8) -> (u16, u16) {
    let rpl = u16::from(cpl);
    (EXTRA | rpl, (EXTRA + 8) | rpl)
}

pub(super) fn new_tss16(cpl: u8) -> Tss16 {
    let (cs, ss) = selectors16(cpl);
    Tss16 {
        stacks: [(SP16 - 0x80, EXTRA + 0x10), (0, 0), (0, 0)],
        ip: 0,
        flags: NEW_FLAGS as u16,
        gpr: [0x2201, 0x2202, 0x2203, 0x2204, SP16, 0x2206, 0x2207, 0x2208],
        segments: [at::data_of(cpl), cs, ss, at::data_of(cpl)],
        ldt: at::LDT_SEL,
        ..Tss16::default()
    }
}

pub(super) fn tss_kind(wide: bool, busy: bool) -> u8 {
    (if wide { kind::TSS32 } else { kind::TSS16 }) | if busy { kind::BUSY } else { 0 }
}

/// Sets up both tasks and the instruction that switches; gives its EIP and the next one's.
pub(super) fn base(name: String, c: &Case) -> (Row, u32, u32) {
    let mut row = Row::new(name).cpl(c.old_cpl);
    row.eflags = OLD_FLAGS;
    if !c.old32 {
        row.descriptor(at::TSS_SEL, segment(at::TSS, 0x2b, kind::TSS16, 0, true, 0));
        let old = Tss16 {
            stacks: [(0x900, at::DATA0), (0, 0), (0, 0)],
            ..Tss16::default()
        };
        row.put(at::TSS, &old.bytes());
    }
    let limit = if c.new32 { 0x67 } else { 0x2b };
    let busy = c.way == Way::Return;
    row.descriptor(
        NEW,
        segment(at::TSS2, limit, tss_kind(c.new32, busy), c.old_cpl, true, 0),
    );
    if c.new32 {
        row.put(at::TSS2, &new_tss32(c.new_cpl).bytes());
    } else {
        let based = |k: u8, base: u32, flags: u8| {
            segment(base, 0xffff, k | kind::ACCESSED, c.new_cpl, true, flags)
        };
        row.descriptor(EXTRA, based(kind::CODE_R, at::TARGET, flag::BIG));
        row.descriptor(
            EXTRA + 8,
            based(kind::DATA_W, at::OTHER_STACK - u32::from(SP16), 0),
        );
        row.descriptor(
            EXTRA + 0x10,
            segment(
                at::OTHER_STACK - u32::from(SP16),
                0xffff,
                kind::DATA_W | 1,
                0,
                true,
                0,
            ),
        );
        row.put(at::TSS2, &new_tss16(c.new_cpl).bytes());
    }
    row.put(at::TARGET, &[0x0f, 0x0b]);
    row.descriptor(GATE, gate(kind::TASK, c.old_cpl, true, NEW, 0, 0));
    let far = |opcode: u8, selector: u16| {
        let [low, high] = selector.to_le_bytes();
        [opcode, 0x78, 0x56, 0x34, 0x12, low, high]
    };
    let task = gate(kind::TASK, 3, true, NEW, 0, 0);
    let eip = match c.way {
        Way::Jump => row.bytes(&far(0xea, NEW)),
        Way::Call => row.bytes(&far(0x9a, NEW)),
        Way::JumpGate => row.bytes(&far(0xea, GATE)),
        Way::CallGate => row.bytes(&far(0x9a, GATE)),
        Way::Interrupt => {
            row.gate(VECTOR, task);
            row.bytes(&[0xcd, VECTOR])
        }
        Way::Fault => {
            // Neither contributory nor a page fault: what fails in its delivery is delivered itself.
            row.gate(5, task);
            row.put(at::DATA, &[5, 0, 0, 0, 9, 0, 0, 0]);
            row.gpr[3] = 0;
            row.asm(|a| a.bound(ebx, ptr(at::DATA)))
        }
        Way::FaultWithCode => {
            row.gate(11, task);
            row.descriptor(EXTRA + 0x18, segment(0, 0xffff, kind::DATA_W, 3, false, 0));
            row.gpr[3] = u32::from(EXTRA + 0x18 + 3);
            row.bytes(&[0x8e, 0xdb]) // mov ds, bx
        }
        Way::Return => {
            row.eflags |= eflags::NT;
            row.put(at::TSS, &NEW.to_le_bytes());
            row.bytes(&[0xcf])
        }
    };
    let next = if c.way.is_fault() { eip } else { row.here() };
    (row, eip, next)
}

/// The type byte of a GDT entry after the switch.
pub(super) fn expect_type(row: &mut Row, selector: u16, wide: bool, busy: bool) {
    let address = at::GDT + u32::from(selector) + 4;
    row.expect_bits(
        Field::Mem(address),
        0x1f00,
        u32::from(tss_kind(wide, busy)) << 8,
    );
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        switches::table(),
        refusals::table(),
        segments::table(),
        entering::table(),
        nesting::table(),
        register::table(),
    ]
}
