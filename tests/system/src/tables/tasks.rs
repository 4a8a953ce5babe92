//! Task switches: by JMP, CALL, IRET, task gates, interrupts and exceptions, between 16- and 32-bit
//! tasks; what is saved, loaded, marked and refused.

use crate::descriptor::{Tss16, Tss32, flag, flat, gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};
use iced_x86::code_asm::{ebx, ptr};

/// The new task's TSS and the gate that leads to it.
const NEW: u16 = at::FREE;
const GATE: u16 = at::FREE + 8;
/// Descriptors for the new task's segments.
const EXTRA: u16 = at::FREE + 0x10;
/// A software interrupt's vector.
const VECTOR: u8 = 0x40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
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

const WAYS: [Way; 8] = [
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
    fn nests(self) -> bool {
        !matches!(self, Self::Jump | Self::JumpGate | Self::Return)
    }
    fn is_fault(self) -> bool {
        matches!(self, Self::Fault | Self::FaultWithCode)
    }
    fn by_gate(self) -> bool {
        !matches!(self, Self::Jump | Self::Call | Self::Return)
    }
}

/// The new task's registers, which tell it from the old one's.
const REGISTERS: [u32; 8] = [
    0x1111_1101,
    0x1111_1102,
    0x1111_1103,
    0x1111_1104,
    at::OTHER_STACK,
    0x1111_1106,
    0x1111_1107,
    0x1111_1108,
];
const OLD_FLAGS: u32 = eflags::FIXED | eflags::CF | eflags::ID | eflags::DF;
const NEW_FLAGS: u32 = eflags::FIXED | eflags::ZF;
/// A 16-bit task's stack pointer: its stack segment is based.
const SP16: u16 = 0x800;

#[derive(Clone, Copy, Debug)]
struct Case {
    way: Way,
    old32: bool,
    new32: bool,
    old_cpl: u8,
    new_cpl: u8,
}

fn new_tss32(cpl: u8) -> Tss32 {
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
fn selectors16(cpl: u8) -> (u16, u16) {
    let rpl = u16::from(cpl);
    (EXTRA | rpl, (EXTRA + 8) | rpl)
}

fn new_tss16(cpl: u8) -> Tss16 {
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

fn tss_kind(wide: bool, busy: bool) -> u8 {
    (if wide { kind::TSS32 } else { kind::TSS16 }) | if busy { kind::BUSY } else { 0 }
}

/// Sets up both tasks and the instruction that switches; gives its EIP and the next one's.
fn base(name: String, c: &Case) -> (Row, u32, u32) {
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
fn expect_type(row: &mut Row, selector: u16, wide: bool, busy: bool) {
    let address = at::GDT + u32::from(selector) + 4;
    row.expect_bits(
        Field::Mem(address),
        0x1f00,
        u32::from(tss_kind(wide, busy)) << 8,
    );
}

/// What is saved in the old task's TSS. 7.3 step 8.
fn expect_saved(row: &mut Row, c: &Case, next: u32) {
    let flags = OLD_FLAGS; // RF: see the table of breakpoints
    let selectors = [
        row.data[1],
        row.cs,
        row.ss,
        row.data[0],
        row.data[2],
        row.data[3],
    ];
    let registers = row.gpr;
    if c.old32 {
        row.watches.push((at::TSS, 0x68));
        row.expect(Field::Mem(at::TSS + 0x20), next);
        row.expect_bits(Field::Mem(at::TSS + 0x24), !eflags::RF, flags);
        for (n, value) in registers.into_iter().enumerate() {
            row.expect(Field::Mem(at::TSS + 0x28 + n as u32 * 4), value);
        }
        for (n, value) in selectors.into_iter().enumerate() {
            row.expect16(at::TSS + 0x48 + n as u32 * 4, value);
        }
        // "...": the static fields are not written: 7.2.1.
        row.expect(Field::Mem(at::TSS + 4), at::STACK0);
        row.expect(Field::Mem(at::TSS + 0x1c), 0);
        row.expect(Field::Mem(at::TSS + 0x60), 0);
    } else {
        let values = [next as u16, flags as u16]
            .into_iter()
            .chain(registers.map(|v| v as u16))
            .chain(selectors.into_iter().take(4));
        for (n, value) in values.enumerate() {
            let address = at::TSS + 0x0e + n as u32 * 2;
            row.watches.push((address, 2));
            row.expect(Field::Mem(address), u32::from(value));
        }
        row.watches.push((at::TSS + 2, 2));
        row.expect(Field::Mem(at::TSS + 2), 0x900);
    }
}

/// What the new task finds. 7.3 steps 7 to 12.
fn expect_loaded(row: &mut Row, c: &Case) {
    use Field as F;
    let error = c.way == Way::FaultWithCode;
    let mut flags = NEW_FLAGS;
    if c.way.nests() {
        flags |= eflags::NT;
    }
    // The manual leaves EFLAGS' upper half open for a 16-bit TSS.
    let known = if c.new32 { !eflags::RF } else { 0xffff };
    row.expect_bits(F::Eflags, known, flags);
    row.expect(F::Tr, u32::from(NEW));
    row.expect(F::Ldtr, u32::from(at::LDT_SEL));
    row.expect_bits(F::Cr0, 8, 8); // TS
    let data = u32::from(at::data_of(c.new_cpl));
    row.expect(F::Ds, data);
    row.expect(F::Es, data);
    let link = if c.way.nests() {
        u32::from(at::TSS_SEL)
    } else {
        0
    };
    row.expect_bits(F::Mem(at::TSS2), 0xffff, link);
    if c.new32 {
        row.fault(6, None, at::TARGET);
        row.expect(F::Cs, u32::from(at::code_of(c.new_cpl)));
        row.expect(F::Ss, data);
        row.expect(F::Fs, u32::from(at::DATA3));
        row.expect(F::Gs, 0);
        for n in [0, 1, 2, 3, 5, 6, 7u8] {
            row.expect(F::Gpr(n), REGISTERS[usize::from(n)]);
        }
        let pushed = if error { 4 } else { 0 };
        row.expect(F::Esp, at::OTHER_STACK - pushed);
        if error {
            row.expect(F::Mem(at::OTHER_STACK - 4), u32::from(EXTRA + 0x18));
        }
        if c.new_cpl == 3 {
            row.expect(F::HandlerEsp, at::OTHER_STACK - 0x80 - 20);
        }
    } else {
        let (cs, ss) = selectors16(c.new_cpl);
        row.fault(6, None, 0);
        row.expect(F::Cs, u32::from(cs));
        row.expect(F::Ss, u32::from(ss));
        // "FS and GS": a 16-bit TSS has none; null.
        row.expect(F::Fs, 0);
        row.expect(F::Gs, 0);
        for (n, value) in new_tss16(0)
            .gpr
            .into_iter()
            .enumerate()
            .filter(|(n, _)| *n != 4)
        {
            row.expect_bits(F::Gpr(n as u8), 0xffff, u32::from(value));
        }
        let pushed = if error { 2 } else { 0 };
        row.expect_bits(F::Esp, 0xffff, u32::from(SP16 - pushed));
        if error {
            let address = at::OTHER_STACK - 2;
            row.watches.push((address, 2));
            row.expect(F::Mem(address), u32::from(EXTRA + 0x18));
        }
    }
}

fn switches() -> Vec<Row> {
    let mut rows = Vec::new();
    for way in WAYS {
        for (old32, new32) in [(true, true), (true, false), (false, true), (false, false)] {
            for old_cpl in [0, 3] {
                for new_cpl in [0, 3] {
                    let c = Case {
                        way,
                        old32,
                        new32,
                        old_cpl,
                        new_cpl,
                    };
                    if way == Way::FaultWithCode && old_cpl == 0 && !old32 {
                        continue; // the same as with a 32-bit task
                    }
                    let width = |wide| if wide { 32 } else { 16 };
                    let name = format!(
                        "{way:?} from {} (CPL {old_cpl}) to {} (CPL {new_cpl})",
                        width(old32),
                        width(new32)
                    );
                    let (mut row, _, next) = base(name, &c);
                    row.stop();
                    expect_saved(&mut row, &c, next);
                    expect_loaded(&mut row, &c);
                    // Table 7-2: JMP and IRET clear the old task's busy flag, CALL and interrupts
                    // leave it; all but IRET set the new task's, which IRET finds set.
                    expect_type(&mut row, at::TSS_SEL, old32, way.nests());
                    expect_type(&mut row, NEW, new32, true);
                    rows.push(row);
                }
            }
        }
    }
    rows
}

/// Who may switch: type, DPL, RPL, P, limits. Vol. 2, CALL, JMP, INT, IRET; 7.3 steps 2-4.
fn refusals() -> Vec<Row> {
    let mut rows = Vec::new();
    let case = |way, old_cpl| Case {
        way,
        old32: true,
        new32: true,
        old_cpl,
        new_cpl: 0,
    };
    // The descriptor's type, for what names a TSS directly or through a gate.
    for way in [
        Way::Jump,
        Way::Call,
        Way::JumpGate,
        Way::CallGate,
        Way::Interrupt,
        Way::Return,
        Way::Fault,
    ] {
        for system in 0..16u8 {
            let call_gate = matches!(system, 4 | 5 | 12);
            if !way.by_gate() && way != Way::Return && call_gate {
                continue; // a gate: other rules
            }
            let available = matches!(system, kind::TSS16 | kind::TSS32);
            let busy = matches!(system, 3 | 11);
            let good = if way == Way::Return { busy } else { available };
            if good {
                continue;
            }
            let c = case(way, 0);
            let (mut row, eip, _) = base(format!("{way:?}: type {system} for a TSS"), &c);
            row.stop();
            row.descriptor(NEW, segment(at::TSS2, 0x67, system, 0, true, 0));
            // CALL, JMP: #GP(TSS selector). INT: #GP(TSS selector + EXT). IRET: #TS(TSS selector).
            let ext = u32::from(way == Way::Fault);
            let vector = if way == Way::Return { 10 } else { 13 };
            row.fault(vector, Some(u32::from(NEW) + ext), eip);
            row.expect(Field::Tr, u32::from(at::TSS_SEL));
            rows.push(row);
        }
        // Code and data.
        for k in [kind::DATA_W, kind::CODE_R] {
            if matches!(way, Way::Jump | Way::Call) {
                continue;
            }
            let (mut row, eip, _) =
                base(format!("{way:?}: segment {k:#x} for a TSS"), &case(way, 0));
            row.stop();
            row.descriptor(NEW, flat(k, 0));
            let ext = u32::from(way == Way::Fault);
            let vector = if way == Way::Return { 10 } else { 13 };
            row.fault(vector, Some(u32::from(NEW) + ext), eip);
            rows.push(row);
        }
        // Not present: #NP(TSS selector).
        let (mut row, eip, _) = base(format!("{way:?}: absent TSS"), &case(way, 0));
        row.stop();
        let k = tss_kind(true, way == Way::Return);
        row.descriptor(NEW, segment(at::TSS2, 0x67, k, 0, false, 0));
        row.fault(11, Some(u32::from(NEW) + u32::from(way == Way::Fault)), eip);
        rows.push(row);
        // "IF the TSS limit is less than 67H (2BH): #TS(TSS selector)".
        for (wide, limit) in [(true, 0x66), (false, 0x2a)] {
            let (mut row, eip, _) = base(format!("{way:?}: TSS limit {limit:#x}"), &case(way, 0));
            row.stop();
            let k = tss_kind(wide, way == Way::Return);
            row.descriptor(NEW, segment(at::TSS2, limit, k, 0, true, 0));
            row.fault(10, Some(u32::from(NEW) + u32::from(way == Way::Fault)), eip);
            rows.push(row);
        }
        // A selector beyond the GDT, and one of the LDT.
        for selector in [0x1000u16, NEW | 4] {
            let (mut row, eip, _) = base(
                format!("{way:?}: TSS selector {selector:#x}"),
                &case(way, 0),
            );
            row.stop();
            row.descriptor(
                NEW | 4,
                segment(
                    at::TSS2,
                    0x67,
                    tss_kind(true, way == Way::Return),
                    0,
                    true,
                    0,
                ),
            );
            let [low, high] = selector.to_le_bytes();
            match way {
                Way::Jump => row.put(eip, &[0xea, 0, 0, 0, 0, low, high]),
                Way::Call => row.put(eip, &[0x9a, 0, 0, 0, 0, low, high]),
                Way::JumpGate | Way::CallGate => {
                    row.descriptor(GATE, gate(kind::TASK, 0, true, selector, 0, 0))
                }
                Way::Interrupt => row.gate(VECTOR, gate(kind::TASK, 3, true, selector, 0, 0)),
                Way::Fault => row.gate(5, gate(kind::TASK, 3, true, selector, 0, 0)),
                _ => row.put(at::TSS, &selector.to_le_bytes()),
            }
            let vector = if way == Way::Return { 10 } else { 13 };
            row.fault(
                vector,
                Some(u32::from(selector) + u32::from(way == Way::Fault)),
                eip,
            );
            rows.push(row);
        }
    }
    // Privilege: max(CPL, RPL) ≤ DPL of what is named.
    for way in [Way::Jump, Way::Call, Way::JumpGate, Way::CallGate] {
        for cpl in [0, 1, 2, 3u8] {
            for rpl in 0..4u8 {
                for dpl in 0..4u8 {
                    let c = case(way, cpl);
                    let (mut row, eip, _) =
                        base(format!("{way:?}: CPL {cpl} RPL {rpl} DPL {dpl}"), &c);
                    row.stop();
                    let named = if way.by_gate() { GATE } else { NEW };
                    if way.by_gate() {
                        row.descriptor(GATE, gate(kind::TASK, dpl, true, NEW, 0, 0));
                        // The TSS's own DPL does not count.
                        row.descriptor(NEW, segment(at::TSS2, 0x67, kind::TSS32, 0, true, 0));
                    } else {
                        row.descriptor(NEW, segment(at::TSS2, 0x67, kind::TSS32, dpl, true, 0));
                    }
                    let [low, high] = (named | u16::from(rpl)).to_le_bytes();
                    row.put(eip + 5, &[low, high]);
                    if dpl < cpl.max(rpl) {
                        row.fault(13, Some(u32::from(named)), eip);
                    } else {
                        row.fault(6, None, at::TARGET);
                        row.expect_bits(Field::Tr, 0xfffc, u32::from(NEW));
                    }
                    rows.push(row);
                }
            }
        }
    }
    for cpl in 0..4u8 {
        for dpl in 0..4u8 {
            let c = case(Way::Interrupt, cpl);
            let (mut row, eip, _) = base(format!("Interrupt: CPL {cpl} gate DPL {dpl}"), &c);
            row.stop();
            row.gate(VECTOR, gate(kind::TASK, dpl, true, NEW, 0, 0));
            if dpl < cpl {
                row.fault(13, Some(u32::from(VECTOR) * 8 + 2), eip);
            } else {
                row.fault(6, None, at::TARGET);
            }
            rows.push(row);
        }
    }
    // An absent gate.
    for way in [Way::JumpGate, Way::CallGate, Way::Interrupt, Way::Fault] {
        let (mut row, eip, _) = base(format!("{way:?}: absent gate"), &case(way, 0));
        row.stop();
        let absent = gate(kind::TASK, 3, false, NEW, 0, 0);
        let error = match way {
            Way::Interrupt => {
                row.gate(VECTOR, absent);
                u32::from(VECTOR) * 8 + 2
            }
            Way::Fault => {
                row.gate(5, absent);
                5 * 8 + 3
            }
            _ => {
                row.descriptor(GATE, absent);
                u32::from(GATE)
            }
        };
        row.fault(11, Some(error), eip);
        rows.push(row);
    }
    rows
}

/// Table 7-1: the checks of the new task's segments, made in the new task. Their handlers are a
/// task of its own, so that nothing of the broken task is needed.
fn new_segments() -> Vec<Row> {
    #[derive(Clone, Copy)]
    enum Slot {
        Es,
        Cs,
        Ss,
        Ds,
        Fs,
        Gs,
        Ldt,
    }
    use Slot as S;
    let bad = EXTRA; // the descriptor under test
    let beyond = 0x1000u16;
    // (what, slot, selector, descriptor, vector)
    let data = |k: u8, dpl: u8, p: bool| Some(segment(0, 0xf_ffff, k, dpl, p, 12));
    let cases: Vec<(&str, Slot, u16, Option<u64>, u8)> = vec![
        ("LDT selector of the LDT", S::Ldt, at::LDT_SEL | 4, None, 10),
        ("LDT selector beyond the GDT", S::Ldt, beyond, None, 10),
        (
            "LDT selector of a TSS",
            S::Ldt,
            bad,
            Some(segment(at::TSS3, 0x67, kind::TSS32, 0, true, 0)),
            10,
        ),
        (
            "LDT selector of data",
            S::Ldt,
            bad,
            data(kind::DATA_W, 0, true),
            10,
        ),
        (
            "LDT absent",
            S::Ldt,
            bad,
            Some(segment(at::LDT, 0x3ff, kind::LDT, 0, false, 0)),
            10,
        ),
        ("CS null", S::Cs, 3, None, 10),
        ("CS beyond the GDT", S::Cs, beyond | 3, None, 10),
        ("CS data", S::Cs, bad | 3, data(kind::DATA_W, 3, true), 10),
        (
            "CS system segment",
            S::Cs,
            bad | 3,
            Some(segment(at::LDT, 0x3ff, kind::LDT, 3, true, 0)),
            10,
        ),
        (
            "CS nonconforming, DPL below RPL",
            S::Cs,
            bad | 3,
            data(kind::CODE_R, 2, true),
            10,
        ),
        (
            "CS nonconforming, DPL above RPL",
            S::Cs,
            bad | 2,
            data(kind::CODE_R, 3, true),
            10,
        ),
        (
            "CS conforming, DPL above RPL",
            S::Cs,
            bad | 2,
            data(kind::CONFORMING, 3, true),
            10,
        ),
        (
            "CS absent",
            S::Cs,
            bad | 3,
            data(kind::CODE_R, 3, false),
            11,
        ),
        ("SS null", S::Ss, 3, None, 10),
        ("SS beyond the GDT", S::Ss, beyond | 3, None, 10),
        ("SS code", S::Ss, bad | 3, data(kind::CODE_R, 3, true), 10),
        (
            "SS read-only",
            S::Ss,
            bad | 3,
            data(kind::DATA_R, 3, true),
            10,
        ),
        (
            "SS DPL below CPL",
            S::Ss,
            bad | 3,
            data(kind::DATA_W, 2, true),
            10,
        ),
        (
            "SS RPL below CPL",
            S::Ss,
            bad | 2,
            data(kind::DATA_W, 3, true),
            10,
        ),
        (
            "SS absent",
            S::Ss,
            bad | 3,
            data(kind::DATA_W, 3, false),
            12,
        ),
        ("DS beyond the GDT", S::Ds, beyond | 3, None, 10),
        (
            "DS execute-only",
            S::Ds,
            bad | 3,
            data(kind::CODE_X, 3, true),
            10,
        ),
        (
            "DS DPL below CPL",
            S::Ds,
            bad | 3,
            data(kind::DATA_W, 2, true),
            10,
        ),
        (
            "DS system segment",
            S::Ds,
            bad | 3,
            Some(segment(at::LDT, 0x3ff, kind::LDT, 3, true, 0)),
            10,
        ),
        (
            "DS absent",
            S::Ds,
            bad | 3,
            data(kind::DATA_W, 3, false),
            11,
        ),
        ("ES beyond the GDT", S::Es, beyond | 3, None, 10),
        (
            "ES absent",
            S::Es,
            bad | 3,
            data(kind::DATA_W, 3, false),
            11,
        ),
        (
            "FS execute-only",
            S::Fs,
            bad | 3,
            data(kind::CODE_X, 3, true),
            10,
        ),
        (
            "FS absent",
            S::Fs,
            bad | 3,
            data(kind::DATA_W, 3, false),
            11,
        ),
        (
            "GS DPL below CPL",
            S::Gs,
            bad | 3,
            data(kind::DATA_W, 0, true),
            10,
        ),
        (
            "GS absent",
            S::Gs,
            bad | 3,
            data(kind::DATA_W, 3, false),
            11,
        ),
    ];
    let mut rows = Vec::new();
    for (what, slot, selector, descriptor, vector) in cases {
        for way in [
            Way::Jump,
            Way::Call,
            Way::Interrupt,
            Way::Fault,
            Way::Return,
        ] {
            let c = Case {
                way,
                old32: true,
                new32: true,
                old_cpl: 0,
                new_cpl: 3,
            };
            let (mut row, _, next) = base(format!("{way:?}: {what}"), &c);
            row.stop();
            if let Some(value) = descriptor {
                row.descriptor(bad, value);
            }
            let mut tss = new_tss32(3);
            match slot {
                S::Es => tss.segments[0] = selector,
                S::Cs => tss.segments[1] = selector,
                S::Ss => tss.segments[2] = selector,
                S::Ds => tss.segments[3] = selector,
                S::Fs => tss.segments[4] = selector,
                S::Gs => tss.segments[5] = selector,
                S::Ldt => tss.ldt = selector,
            }
            row.put(at::TSS2, &tss.bytes());
            row.task_vector(vector);
            let ext = u32::from(way == Way::Fault);
            row.fault_by_task(vector, Some(u32::from(selector & !3) + ext));
            // The old task is saved and the new one is current: the handler's link says so.
            row.expect(Field::Mem(at::TSS + 0x20), next);
            row.expect16(at::HANDLER_TSS, NEW);
            row.expect(Field::Mem(at::TSS2 + 0x20), at::TARGET);
            expect_type(&mut row, NEW, true, true);
            expect_type(&mut row, at::TSS_SEL, true, way.nests());
            rows.push(row);
        }
    }
    rows
}

/// Traps of the T flag, what EFLAGS may bring, CR3, code limits.
fn entering() -> Vec<Row> {
    let mut rows = Vec::new();
    for way in WAYS {
        let c = Case {
            way,
            old32: true,
            new32: true,
            old_cpl: 0,
            new_cpl: 3,
        };
        let (mut row, ..) = base(format!("{way:?}: T flag of the new TSS"), &c);
        row.stop();
        let tss = Tss32 {
            trap: true,
            ..new_tss32(3)
        };
        row.put(at::TSS2, &tss.bytes());
        // 18.3.1.5: "before the first instruction of the task".
        row.fault(1, None, at::TARGET);
        row.expect_bits(Field::Dr6, 0xe00f, 0x8000);
        rows.push(row);
    }
    for way in [Way::Jump, Way::Call, Way::Return] {
        let c = Case {
            way,
            old32: true,
            new32: true,
            old_cpl: 0,
            new_cpl: 3,
        };
        let (mut row, ..) = base(format!("{way:?}: TF of the new task"), &c);
        row.stop();
        let tss = Tss32 {
            eflags: NEW_FLAGS | eflags::TF,
            ..new_tss32(3)
        };
        row.put(at::TSS2, &tss.bytes());
        row.put(at::TARGET, &[0x90, 0x0f, 0x0b]);
        row.fault(1, None, at::TARGET + 1);
        row.expect_bits(Field::Dr6, 0xe00f, 0x4000);
        rows.push(row);

        // EIP beyond CS: #GP in the new task.
        let (mut row, ..) = base(format!("{way:?}: EIP beyond the code segment"), &c);
        row.stop();
        row.descriptor(EXTRA, segment(0, 0xfff, kind::CODE_R, 3, true, flag::BIG));
        let mut tss = new_tss32(3);
        tss.segments[1] = EXTRA | 3;
        row.put(at::TSS2, &tss.bytes());
        row.fault(13, Some(0), at::TARGET);
        row.expect(Field::Tr, u32::from(NEW));
        rows.push(row);

        // V8086 task.
        let (mut row, ..) = base(format!("{way:?}: V8086 task"), &c);
        row.stop();
        let mut tss = new_tss32(3);
        tss.eflags |= eflags::VM;
        tss.segments = [0x1801, 0x1000, 0x2000, 0x1802, 0x1803, 0x1804];
        tss.eip = 4;
        row.put(at::TSS2, &tss.bytes());
        row.put(at::LOW_CODE + 4, &[0x0f, 0x0b]);
        row.fault(6, None, 4);
        for (field, value) in [
            (Field::Es, 0x1801),
            (Field::Cs, 0x1000),
            (Field::Ss, 0x2000),
            (Field::Ds, 0x1802),
            (Field::Fs, 0x1803),
            (Field::Gs, 0x1804),
        ] {
            row.expect(field, value);
        }
        row.expect_bits(Field::Eflags, eflags::VM, eflags::VM);
        rows.push(row);

        // CR3 of the new task counts only while paging is on.
        let (mut row, ..) = base(format!("{way:?}: CR3 without paging"), &c);
        row.stop();
        row.put(
            at::TSS2,
            &Tss32 {
                cr3: at::PD,
                ..new_tss32(3)
            }
            .bytes(),
        );
        row.fault(6, None, at::TARGET);
        rows.push(row);
        let (row, ..) = base(format!("{way:?}: CR3 with paging"), &c);
        let mut row = row.paging();
        row.stop();
        let directory = at::DATA;
        for n in 0..2u32 {
            row.put32(directory + n * 4, (at::IDENTITY + n * 0x1000) | 0x27);
        }
        row.put(
            at::TSS2,
            &Tss32 {
                cr3: directory,
                ..new_tss32(3)
            }
            .bytes(),
        );
        row.fault(6, None, at::TARGET);
        row.expect(Field::Cr3, directory);
        rows.push(row);
    }
    // DR7's local bits are cleared, the global ones stay (18.2.4).
    for way in [Way::Jump, Way::Call, Way::Return, Way::Interrupt] {
        let c = Case {
            way,
            old32: true,
            new32: true,
            old_cpl: 0,
            new_cpl: 0,
        };
        let (mut row, ..) = base(format!("{way:?}: DR7"), &c);
        row.stop();
        row.dr = [0x1000, 0x2000, 0x3000, 0x4000];
        row.dr7 = 0x7ff;
        row.fault(6, None, at::TARGET);
        // LE is of no consequence since the P6.
        row.expect_bits(Field::Dr7, !0x100, 0x6aa);
        rows.push(row);
    }
    // A task may be entered again after it was left by JMP, and returned to after CALL.
    let c = Case {
        way: Way::Call,
        old32: true,
        new32: true,
        old_cpl: 0,
        new_cpl: 0,
    };
    let (mut row, _, next) = base("Call, then IRET back".into(), &c);
    row.put(at::TARGET, &[0xcf]);
    row.stop();
    row.fault(6, None, next);
    row.expect(Field::Tr, u32::from(at::TSS_SEL));
    row.expect_flags(OLD_FLAGS);
    row.expect(Field::Mem(at::TSS2 + 0x20), at::TARGET + 1);
    row.expect(Field::Mem(at::TSS2 + 0x24), NEW_FLAGS);
    expect_type(&mut row, NEW, true, false);
    expect_type(&mut row, at::TSS_SEL, true, true);
    rows.push(row);
    let (mut row, _, next) = base(
        "Jump, then jump back".into(),
        &Case {
            way: Way::Jump,
            ..c
        },
    );
    let [low, high] = at::TSS_SEL.to_le_bytes();
    row.put(at::TARGET, &[0xea, 0, 0, 0, 0, low, high]);
    row.stop();
    row.fault(6, None, next);
    row.expect(Field::Tr, u32::from(at::TSS_SEL));
    row.expect(Field::Mem(at::TSS2 + 0x20), at::TARGET + 7);
    expect_type(&mut row, NEW, true, false);
    expect_type(&mut row, at::TSS_SEL, true, true);
    rows.push(row);
    // A task is not reentrant: the current TSS is busy.
    for (name, opcode) in [("JMP", 0xea), ("CALL", 0x9a)] {
        let mut row = Row::new(format!("{name} to the current task"));
        let eip = row.bytes(&[opcode, 0, 0, 0, 0, low, high]);
        row.stop();
        row.fault(13, Some(u32::from(at::TSS_SEL)), eip);
        rows.push(row);
    }
    // LTR.
    for cpl in [0, 3u8] {
        for system in 0..16u8 {
            let mut row = Row::new(format!("LTR, CPL {cpl}, type {system}")).cpl(cpl);
            row.descriptor(NEW, segment(at::TSS2, 0x67, system, 0, true, 0));
            row.gpr[0] = u32::from(NEW);
            let eip = row.bytes(&[0x0f, 0x00, 0xd8]);
            if cpl == 0 && matches!(system, kind::TSS16 | kind::TSS32) {
                row.ends();
                row.expect(Field::Tr, u32::from(NEW));
                let address = at::GDT + u32::from(NEW) + 4;
                row.expect_bits(Field::Mem(address), 0xff00, u32::from(0x82 | system) << 8);
            } else {
                row.stop();
                row.fault(13, Some(if cpl == 0 { u32::from(NEW) } else { 0 }), eip);
            }
            rows.push(row);
        }
    }
    for (what, selector, error) in [
        ("null", 0, 0),
        ("null with RPL", 3, 0),
        ("of the LDT", NEW | 4, u32::from(NEW | 4)),
        ("beyond the GDT", 0x1000, 0x1000),
    ] {
        let mut row = Row::new(format!("LTR, selector {what}"));
        row.descriptor(NEW | 4, segment(at::TSS2, 0x67, kind::TSS32, 0, true, 0));
        row.gpr[0] = u32::from(selector);
        let eip = row.bytes(&[0x0f, 0x00, 0xd8]);
        row.stop();
        row.fault(13, Some(error), eip);
        rows.push(row);
    }
    let mut row = Row::new("LTR, absent");
    row.descriptor(NEW, segment(at::TSS2, 0x67, kind::TSS32, 0, false, 0));
    row.gpr[0] = u32::from(NEW);
    let eip = row.bytes(&[0x0f, 0x00, 0xd8]);
    row.stop();
    row.fault(11, Some(u32::from(NEW)), eip);
    rows.push(row);
    rows
}

/// The table.
pub fn table() -> Table {
    let mut rows = refusals();
    rows.extend(new_segments());
    deviate(&mut rows, deviation::EXT_CLEAR, |name| {
        name.starts_with("Fault: ")
    });
    deviate(&mut rows, deviation::TSS_IN_LDT, |name| {
        name.contains("TSS selector 0x84") && !name.starts_with("Return")
    });
    deviate(&mut rows, deviation::TASK_SS_ABSENT, |name| {
        name.contains("SS absent")
    });
    rows.extend(switches());
    rows.extend(entering());
    deviate(&mut rows, deviation::LTR_NULL, |name| {
        name.starts_with("LTR, selector null")
    });
    deviate(&mut rows, deviation::TSS_TRAP_FLAG, |name| {
        name.contains("T flag")
    });
    Table {
        name: "tasks",
        source: "SDM 3A 7.1-7.6",
        rows,
    }
}
