//! Loading segment registers, LLDT, and asking about selectors: every type of descriptor.

use crate::descriptor::{flag, kind, segment};
use crate::layout as at;
use crate::row::{Field, Row, Table};

const SELECTOR: u16 = at::FREE;

/// A segment register: its number in MOV Sreg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Es = 0,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

const REGISTERS: [Register; 5] = [
    Register::Es,
    Register::Ss,
    Register::Ds,
    Register::Fs,
    Register::Gs,
];

impl Register {
    fn field(self) -> Field {
        match self {
            Self::Es => Field::Es,
            Self::Ss => Field::Ss,
            Self::Ds => Field::Ds,
            Self::Fs => Field::Fs,
            Self::Gs => Field::Gs,
        }
    }
}

/// What loading does: the exception, or none. Vol. 2, MOV; 3A 5.4 to 5.7.
fn load_fault(reg: Register, access: u8, dpl: u8, present: bool, cpl: u8, rpl: u8) -> Option<u8> {
    let code = access & 0x18 == 0x18;
    let data = access & 0x18 == 0x10;
    if reg == Register::Ss {
        // RPL = CPL, writable data, DPL = CPL: else #GP. Not present: #SS.
        let writable = data && access & 2 != 0;
        if rpl != cpl || !writable || dpl != cpl {
            return Some(13);
        }
        return (!present).then_some(12);
    }
    // Data or readable code; data and nonconforming code: RPL ≤ DPL and CPL ≤ DPL.
    let readable = data || code && access & 2 != 0;
    let conforming = code && access & 4 != 0;
    if !readable || !conforming && (rpl > dpl || cpl > dpl) {
        return Some(13);
    }
    (!present).then_some(11)
}

fn load(reg: Register, access: u8, dpl: u8, present: bool, cpl: u8, rpl: u8) -> Row {
    // Expand-down: everything from 1000H.
    let limit = if access & 0x1c == 0x14 { 0 } else { 0xf_ffff };
    let name = format!("MOV {reg:?}: type {access:#x} DPL {dpl} P {present} CPL {cpl} RPL {rpl}");
    let mut row = Row::new(name).cpl(cpl);
    let big = flag::G | flag::BIG;
    row.descriptor(SELECTOR, segment(0, limit, access, dpl, present, big));
    let selector = SELECTOR | u16::from(rpl);
    row.gpr[0] = u32::from(selector);
    let old = match reg {
        Register::Es => row.data[1],
        Register::Ss => row.ss,
        Register::Ds => row.data[0],
        Register::Fs | Register::Gs => 0,
    };
    let eip = row.bytes(&[0x8e, 0xc0 | (reg as u8) << 3]);
    let entry = at::GDT + u32::from(SELECTOR) + 4;
    if let Some(vector) = load_fault(reg, access, dpl, present, cpl, rpl) {
        row.stop();
        row.fault(vector, Some(u32::from(SELECTOR)), eip);
        row.expect(reg.field(), u32::from(old));
        row.expect_bits(Field::Mem(entry), 0x100, u32::from(access & 1) << 8);
    } else {
        row.bytes(&[0x90]); // the shadow of MOV SS
        row.ends();
        row.expect(reg.field(), u32::from(selector));
        row.expect_bits(Field::Mem(entry), 0x100, 0x100);
    }
    row
}

fn loads() -> Vec<Row> {
    let mut rows = Vec::new();
    for access in 0..32u8 {
        for dpl in 0..4u8 {
            for cpl in 0..4u8 {
                for rpl in 0..4u8 {
                    for present in [true, false] {
                        for reg in REGISTERS {
                            rows.push(load(reg, access, dpl, present, cpl, rpl));
                        }
                    }
                }
            }
        }
    }
    rows
}

/// Selectors that name nothing, and the other instructions that load.
fn other_loads() -> Vec<Row> {
    let mut rows = Vec::new();
    // Null selectors, and selectors beyond a table.
    for reg in REGISTERS {
        for cpl in [0u8, 3] {
            for (selector, inside) in [
                (0u16, true),
                (1, true),
                (3, true),
                (0x1003, false),
                (0x407, false),
            ] {
                let mut row =
                    Row::new(format!("MOV {reg:?}: selector {selector:#x} CPL {cpl}")).cpl(cpl);
                row.gpr[0] = u32::from(selector);
                let eip = row.bytes(&[0x8e, 0xc0 | (reg as u8) << 3]);
                if inside && reg != Register::Ss {
                    row.ends();
                    row.expect(reg.field(), u32::from(selector));
                } else {
                    row.stop();
                    row.fault(13, Some(u32::from(selector & 0xfffc)), eip);
                }
                rows.push(row);
            }
        }
        // The last entry of the GDT by its limit.
        for (limit, inside) in [(0x87, true), (0x86, false), (0x80, false)] {
            let mut row = Row::new(format!("MOV {reg:?}: GDT limit {limit:#x}"));
            row.gdt_limit = limit;
            row.descriptor(SELECTOR, segment(0, 0xf_ffff, kind::DATA_W, 0, true, 12));
            row.gpr[0] = u32::from(SELECTOR);
            let eip = row.bytes(&[0x8e, 0xc0 | (reg as u8) << 3]);
            if inside {
                row.bytes(&[0x90]);
                row.ends();
            } else {
                row.stop();
                row.fault(13, Some(u32::from(SELECTOR)), eip);
            }
            rows.push(row);
        }
    }
    // The other ways: POP and LxS take ESP and the offset only if the selector is good.
    for (name, bytes, reg) in [
        ("POP DS", &[0x1f][..], Register::Ds),
        ("POP ES", &[0x07], Register::Es),
        ("POP SS", &[0x17], Register::Ss),
        ("POP FS", &[0x0f, 0xa1], Register::Fs),
        ("POP GS", &[0x0f, 0xa9], Register::Gs),
        ("LDS", &[0xc5, 0x0b], Register::Ds),
        ("LES", &[0xc4, 0x0b], Register::Es),
        ("LSS", &[0x0f, 0xb2, 0x0b], Register::Ss),
        ("LFS", &[0x0f, 0xb4, 0x0b], Register::Fs),
        ("LGS", &[0x0f, 0xb5, 0x0b], Register::Gs),
    ] {
        for access in 0..32u8 {
            for present in [true, false] {
                rows.push(by_instruction(name, bytes, reg, access, present));
            }
        }
    }
    rows
}

/// Ring 0, DPL 0, RPL 0.
fn by_instruction(name: &str, bytes: &[u8], reg: Register, access: u8, present: bool) -> Row {
    let mut row = Row::new(format!("{name}: type {access:#x} P {present}"));
    // Expand-down: everything from 1000H.
    let limit = if access & 0x1c == 0x14 { 0 } else { 0xf_ffff };
    row.descriptor(SELECTOR, segment(0, limit, access, 0, present, 12));
    row.gpr[3] = at::DATA;
    row.put32(at::DATA, 0x1234_5678);
    row.put32(at::DATA + 4, u32::from(SELECTOR));
    row.gpr[4] = at::ROW_STACK - 0x20;
    row.put32(at::ROW_STACK - 0x20, 0xabcd_0000 | u32::from(SELECTOR));
    let eip = row.bytes(bytes);
    if let Some(vector) = load_fault(reg, access, 0, present, 0, 0) {
        row.stop();
        row.fault(vector, Some(u32::from(SELECTOR)), eip);
        row.expect(Field::Esp, at::ROW_STACK - 0x20);
        row.expect(Field::Gpr(1), row.gpr[1]);
    } else {
        row.bytes(&[0x90]); // the shadow of POP SS
        row.ends();
        row.expect(reg.field(), u32::from(SELECTOR));
        if name.starts_with("POP") {
            row.expect(Field::Esp, at::ROW_STACK - 0x1c);
        } else {
            row.expect(Field::Gpr(1), 0x1234_5678);
        }
    }
    row
}

/// The same rules for descriptors of the LDT: ring 3, DPL 3, RPL 3.
fn local_loads() -> Vec<Row> {
    let mut rows = Vec::new();
    let selector = SELECTOR | 7;
    for reg in REGISTERS {
        for access in 0..32u8 {
            for present in [true, false] {
                let mut row = Row::new(format!("MOV {reg:?}, LDT: type {access:#x} P {present}"));
                row = row.cpl(3);
                let limit = if access & 0x1c == 0x14 { 0 } else { 0xf_ffff };
                row.descriptor(selector, segment(0, limit, access, 3, present, 12));
                row.gpr[0] = u32::from(selector);
                let eip = row.bytes(&[0x8e, 0xc0 | (reg as u8) << 3]);
                if let Some(vector) = load_fault(reg, access, 3, present, 3, 3) {
                    row.stop();
                    row.fault(vector, Some(u32::from(selector & !3)), eip);
                } else {
                    row.bytes(&[0x90]);
                    row.ends();
                    row.expect(reg.field(), u32::from(selector));
                    let entry = at::LDT + u32::from(selector & !7) + 4;
                    row.expect_bits(Field::Mem(entry), 0x100, 0x100);
                }
                rows.push(row);
            }
        }
    }
    rows
}

/// LLDT. Vol. 2.
fn ldt() -> Vec<Row> {
    let mut rows = Vec::new();
    for access in 0..32u8 {
        for present in [true, false] {
            let mut row = Row::new(format!("LLDT: type {access:#x} P {present}"));
            row.descriptor(SELECTOR, segment(at::LDT, 0x3ff, access, 0, present, 0));
            row.gpr[0] = u32::from(SELECTOR);
            let eip = row.bytes(&[0x0f, 0x00, 0xd0]);
            if access == kind::LDT && present {
                row.ends();
                row.expect(Field::Ldtr, u32::from(SELECTOR));
            } else {
                row.stop();
                let vector = if access == kind::LDT { 11 } else { 13 };
                row.fault(vector, Some(u32::from(SELECTOR)), eip);
                row.expect(Field::Ldtr, u32::from(at::LDT_SEL));
            }
            rows.push(row);
        }
    }
    for (selector, good) in [
        (0u16, true),
        (3, true),
        (SELECTOR | 4, false),
        (0x1000, false),
    ] {
        let mut row = Row::new(format!("LLDT: selector {selector:#x}"));
        row.descriptor(SELECTOR | 4, segment(at::LDT, 0x3ff, kind::LDT, 0, true, 0));
        row.gpr[0] = u32::from(selector);
        let eip = row.bytes(&[0x0f, 0x00, 0xd0]);
        if good {
            // Null: references to the LDT fail from now on.
            row.gpr[1] = u32::from(SELECTOR | 4);
            let load = row.bytes(&[0x8e, 0xd9]);
            row.stop();
            row.fault(13, Some(u32::from(SELECTOR | 4)), load);
        } else {
            row.stop();
            row.fault(13, Some(u32::from(selector)), eip);
        }
        rows.push(row);
    }
    rows
}

/// LAR, LSL, VERR, VERW of one selector: ZF of each in a bit of EDI, results in registers.
fn queries() -> Vec<Row> {
    let mut rows = Vec::new();
    for access in 0..32u8 {
        for dpl in [0u8, 3] {
            for cpl in [0u8, 3] {
                for rpl in [0u8, 3] {
                    for present in [true, false] {
                        let name = format!(
                            "LAR, LSL, VERR, VERW: type {access:#x} DPL {dpl} P {present} CPL {cpl} RPL {rpl}"
                        );
                        let mut row = Row::new(name).cpl(cpl);
                        row.descriptor(
                            SELECTOR,
                            segment(0x1234_5678, 0x8_9abc, access, dpl, present, flag::G),
                        );
                        row.gpr[0] = u32::from(SELECTOR | u16::from(rpl));
                        row.gpr[7] = 0;
                        for n in 0..4u8 {
                            match n {
                                0 => row.bytes(&[0x0f, 0x02, 0xc8]), // lar ecx, eax
                                1 => row.bytes(&[0x0f, 0x03, 0xd0]), // lsl edx, eax
                                2 => row.bytes(&[0x0f, 0x00, 0xe0]), // verr ax
                                _ => row.bytes(&[0x0f, 0x00, 0xe8]), // verw ax
                            };
                            row.bytes(&[0x75, 0x03, 0x83, 0xcf, 1 << n]); // jnz over; or edi, bit
                        }
                        row.ends();
                        let code_or_data = access & 0x10 != 0;
                        let code = access & 0x18 == 0x18;
                        let conforming = code && access & 4 != 0;
                        let visible = conforming || dpl >= cpl.max(rpl);
                        // Vol. 2, LAR: LDT, TSS, call gates, task gates; LSL: what has a limit.
                        let lar =
                            visible && (code_or_data || matches!(access, 1..=5 | 9 | 11 | 12));
                        let lsl = visible && (code_or_data || matches!(access, 1 | 2 | 3 | 9 | 11));
                        // A segment need not be present to be asked about: only its type and level.
                        let verr = visible && code_or_data && (!code || access & 2 != 0);
                        let verw = visible && code_or_data && !code && access & 2 != 0;
                        let bits = [lar, lsl, verr, verw]
                            .iter()
                            .enumerate()
                            .fold(0, |b, (n, &on)| b | u32::from(on) << n);
                        row.expect(Field::Gpr(7), bits);
                        let rights = u32::from(access) << 8
                            | u32::from(dpl) << 13
                            | u32::from(present) << 15
                            | 0x0080_0000;
                        row.expect_bits(
                            Field::Gpr(1),
                            0x00f0_ff00,
                            if lar { rights } else { row.gpr[1] },
                        );
                        row.expect(Field::Gpr(2), if lsl { 0x89ab_cfff } else { row.gpr[2] });
                        rows.push(row);
                    }
                }
            }
        }
    }
    rows
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        Table::new("segment-loads", "SDM 3A 5.4-5.7; vol. 2, MOV", loads()),
        Table::new(
            "selector-loads",
            "SDM 3A 3.4.2-3.4.4, 3.5.1; vol. 2, MOV, POP, LDS",
            other_loads().into_iter().chain(local_loads()).collect(),
        ),
        Table::new("lldt", "SDM 3A 2.4.2, 3.5.1; vol. 2, LLDT", ldt()),
        Table::new(
            "segment-queries",
            "SDM 3A 5.10.1-5.10.3; vol. 2, LAR, LSL, VERR",
            queries(),
        ),
    ]
}
