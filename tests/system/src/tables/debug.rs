//! Single steps, breakpoints, the shadows of STI and MOV SS, and EFLAGS by POPF and IRET.

use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};

/// B0-B3, BD, BS, BT of DR6.
const STATUS: u32 = 0xe00f;
const BS: u32 = 0x4000;
const BD: u32 = 0x2000;

fn trap(row: &mut Row, eip: u32, status: u32) {
    row.fault(1, None, eip);
    row.expect_bits(Field::Dr6, STATUS, status);
}

/// TF. 3B 18.3.1.4.
fn steps() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in [0u8, 3] {
        let new = |name: &str| {
            let mut row = Row::new(format!("TF: {name}, ring {cpl}")).cpl(cpl);
            row.eflags |= eflags::TF;
            row
        };
        for (name, bytes) in [
            ("NOP", &[0x90][..]),
            ("MOV", &[0xb8, 1, 0, 0, 0]),
            ("CPUID", &[0x0f, 0xa2]),
            ("PUSHF", &[0x9c]),
            ("a prefixed instruction", &[0x66, 0x89, 0xc0]),
            ("MOV to ES", &[0x06, 0x07]),
        ] {
            let mut row = new(name);
            if name == "MOV to ES" {
                row.bytes(&[0x06]);
                let second = row.bytes(&[0x07]);
                row.stop();
                trap(&mut row, second, BS);
            } else {
                row.bytes(bytes);
                let next = row.stop();
                trap(&mut row, next, BS);
            }
            row.expect_bits(Field::Eflags, eflags::TF, eflags::TF);
            row.expect_bits(Field::HandlerFlags, eflags::TF, 0);
            rows.push(row);
        }
        let mut row = new("PUSHF stores TF");
        row.bytes(&[0x9c]);
        let next = row.stop();
        trap(&mut row, next, BS);
        row.expect_bits(Field::Mem(at::ROW_STACK - 4), eflags::TF, eflags::TF);
        rows.push(row);
        // A jump, a call: the trap is at the target.
        let mut row = new("JMP");
        row.bytes(&[0xeb, 0x10]);
        trap(&mut row, at::CODE + 0x12, BS);
        rows.push(row);
        let mut row = new("CALL");
        row.bytes(&[0xe8, 0x10, 0, 0, 0]);
        trap(&mut row, at::CODE + 0x15, BS);
        rows.push(row);
        // One iteration of a repeated string instruction.
        let mut row = new("REP STOSB");
        row.gpr[1] = 3;
        row.gpr[7] = at::DATA;
        let eip = row.bytes(&[0xf3, 0xaa]);
        row.stop();
        trap(&mut row, eip, BS);
        row.expect(Field::Gpr(1), 2);
        row.expect(Field::Gpr(7), at::DATA + 1);
        rows.push(row);
        let mut row = new("REP STOSB, the last one");
        row.gpr[1] = 1;
        row.gpr[7] = at::DATA;
        row.bytes(&[0xf3, 0xaa]);
        let next = row.stop();
        trap(&mut row, next, BS);
        row.expect(Field::Gpr(1), 0);
        rows.push(row);
        let mut row = new("REP STOSB of nothing");
        row.gpr[1] = 0;
        row.bytes(&[0xf3, 0xaa]);
        let next = row.stop();
        trap(&mut row, next, BS);
        rows.push(row);
        // INT n: no trap; TF is saved set and cleared.
        let mut row = new("INT n");
        row.open_vector(0x40, 3);
        row.bytes(&[0xcd, 0x40]);
        let next = row.stop();
        row.fault(0x40, None, next);
        row.expect_bits(Field::Eflags, eflags::TF, eflags::TF);
        row.expect_bits(Field::HandlerFlags, eflags::TF, 0);
        row.expect_bits(Field::Dr6, STATUS, 0);
        rows.push(row);
        // POPF that clears TF: the trap still comes. One that sets it: after the next instruction.
        let mut row = new("POPF that clears TF");
        row.gpr[4] = at::ROW_STACK - 0x20;
        row.put32(at::ROW_STACK - 0x20, eflags::FIXED);
        row.bytes(&[0x9d]);
        let next = row.stop();
        trap(&mut row, next, BS);
        row.expect_bits(Field::Eflags, eflags::TF, 0);
        rows.push(row);
        let mut row = Row::new(format!("TF: POPF that sets TF, ring {cpl}")).cpl(cpl);
        row.gpr[4] = at::ROW_STACK - 0x20;
        row.put32(at::ROW_STACK - 0x20, eflags::FIXED | eflags::TF);
        row.bytes(&[0x9d, 0x90]);
        let next = row.stop();
        trap(&mut row, next, BS);
        rows.push(row);
        let mut row = Row::new(format!("TF: IRET that sets TF, ring {cpl}")).cpl(cpl);
        let esp = at::ROW_STACK - 0x20;
        row.gpr[4] = esp;
        for (n, value) in [
            at::TARGET,
            u32::from(at::code_of(cpl)),
            eflags::FIXED | eflags::TF,
        ]
        .into_iter()
        .enumerate()
        {
            row.put32(esp + n as u32 * 4, value);
        }
        row.put(at::TARGET, &[0x90, 0x0f, 0x0b]);
        row.bytes(&[0xcf]);
        trap(&mut row, at::TARGET + 1, BS);
        rows.push(row);
    }
    // MOV SS and POP SS: the trap waits for one more instruction. LSS casts no shadow.
    for (name, bytes) in [("MOV SS", &[0x8e, 0xd0][..]), ("POP SS", &[0x17])] {
        let mut row = Row::new(format!("TF: {name} holds the trap back"));
        row.eflags |= eflags::TF;
        row.gpr[0] = u32::from(at::DATA0);
        row.gpr[4] = at::ROW_STACK - 0x20;
        row.put32(at::ROW_STACK - 0x20, u32::from(at::DATA0));
        row.bytes(bytes);
        row.bytes(&[0x90]);
        let next = row.stop();
        trap(&mut row, next, BS);
        rows.push(row);
    }
    rows
}

/// DR0-DR3 and DR7. 3B 18.2, 18.3.1.
fn breakpoints() -> Vec<Row> {
    let mut rows = Vec::new();
    // Execution: a fault that saves RF; RF in the image suppresses it.
    for n in 0..4u32 {
        for (enable, name) in [(1, "local"), (2, "global")] {
            let mut row = Row::new(format!("execution breakpoint {n}, {name}"));
            row.dr[n as usize] = at::CODE + 1;
            row.dr7 = 0x400 | enable << (2 * n);
            row.bytes(&[0x90]);
            let eip = row.stop();
            trap(&mut row, eip, 1 << n);
            rows.push(row);
        }
    }
    let mut row = Row::new("an execution fault saves RF");
    row.dr[0] = at::CODE;
    row.dr7 = 0x402;
    let eip = row.stop();
    trap(&mut row, eip, 1);
    // "The processor sets RF in the saved image for faults": 18.3.1.1 leaves #DB's own to the
    // handler, "if the debug exception is a fault ... RF is set" in 6.8.3 and vol. 3B, 18.3.1.1.
    rows.push(row);
    let mut row = Row::new("RF of an IRET suppresses an execution breakpoint once");
    row.eflags |= eflags::RF;
    row.dr[0] = at::CODE;
    row.dr7 = 0x402;
    row.bytes(&[0x90]);
    row.ends();
    rows.push(row);
    for (vector, bytes) in [(6u8, &[0x0f, 0x0b][..]), (13, &[0x8e, 0xd8])] {
        let mut row = Row::new(format!("vector {vector} saves RF"));
        row.gpr[0] = 0x1000;
        let eip = row.bytes(bytes);
        row.fault(vector, None, eip);
        row.expect_bits(Field::Eflags, eflags::RF, eflags::RF);
        row.deviation = Some(deviation::RF_CLEAR);
        rows.push(row);
    }
    let mut row = Row::new("a trap does not save RF");
    row.eflags |= eflags::TF;
    row.bytes(&[0x90]);
    let next = row.stop();
    trap(&mut row, next, BS);
    row.expect_bits(Field::Eflags, eflags::RF, 0);
    rows.push(row);
    // Data: lengths, reads and writes, neighbours.
    for (rw, mode) in [(1u32, "write"), (3, "access")] {
        for (len, size) in [(0u32, 1u32), (1, 2), (3, 4)] {
            for offset in [-4i32, -1, 0, 1, 2, 3, 4] {
                for (name, bytes, width, write) in [
                    ("MOV AL, [EBX]", &[0x8a, 0x03][..], 1i32, false),
                    ("MOV [EBX], AL", &[0x88, 0x03], 1, true),
                    ("MOV [EBX], EAX", &[0x89, 0x03], 4, true),
                    ("MOV EAX, [EBX]", &[0x8b, 0x03], 4, false),
                    ("INC DWORD [EBX]", &[0xff, 0x03], 4, true),
                ] {
                    if width == 4 && offset % 4 != 0 && offset != 2 {
                        continue;
                    }
                    let mut row = Row::new(format!("{mode} of {size} at {offset}: {name}"));
                    let address = at::DATA + 0x100;
                    row.dr[1] = address;
                    row.dr7 = 0x400 | 8 | (rw | len << 2) << 20;
                    row.gpr[3] = address.wrapping_add_signed(offset);
                    row.bytes(bytes);
                    let next = row.here();
                    let overlaps = offset < size as i32 && 0 < offset + width;
                    if overlaps && (write || rw == 3) {
                        row.stop();
                        trap(&mut row, next, 2);
                    } else {
                        row.ends();
                        row.expect_bits(Field::Dr6, STATUS, 0);
                    }
                    rows.push(row);
                }
            }
        }
    }
    // Both at once: one exception with all the bits.
    let mut row = Row::new("a data breakpoint and a single step");
    row.eflags |= eflags::TF;
    row.dr[0] = at::DATA;
    row.dr7 = 0x400 | 2 | 0xd << 16;
    row.gpr[3] = at::DATA;
    row.bytes(&[0x89, 0x03]);
    let next = row.stop();
    trap(&mut row, next, BS | 1);
    rows.push(row);
    // PUSH, POP, string instructions.
    let mut row = Row::new("PUSH meets a data breakpoint");
    row.dr[0] = at::ROW_STACK - 4;
    row.dr7 = 0x400 | 2 | 0xd << 16;
    row.bytes(&[0x50]);
    let next = row.stop();
    trap(&mut row, next, 1);
    rows.push(row);
    let mut row = Row::new("REP STOSB stops after the iteration that meets it");
    row.dr[0] = at::DATA + 2;
    row.dr7 = 0x400 | 2 | 1 << 16;
    row.gpr[1] = 5;
    row.gpr[7] = at::DATA;
    let eip = row.bytes(&[0xf3, 0xaa]);
    row.stop();
    trap(&mut row, eip, 1);
    row.expect(Field::Gpr(1), 2);
    rows.push(row);
    let mut row = Row::new("REP STOSD meets a breakpoint in the middle of an element");
    row.dr[0] = at::DATA + 6;
    row.dr7 = 0x400 | 2 | 1 << 16;
    row.gpr[1] = 5;
    row.gpr[7] = at::DATA;
    let eip = row.bytes(&[0xf3, 0xab]);
    row.stop();
    trap(&mut row, eip, 1);
    row.expect(Field::Gpr(1), 3);
    rows.push(row);
    // MOV SS holds a data breakpoint of its own access back.
    let mut row = Row::new("MOV SS from a watched operand");
    row.put32(at::DATA, u32::from(at::DATA0));
    row.dr[0] = at::DATA;
    row.dr7 = 0x400 | 2 | 7 << 16;
    row.gpr[3] = at::DATA;
    row.bytes(&[0x8e, 0x13, 0x90]); // mov ss, [ebx]; nop
    let next = row.stop();
    trap(&mut row, next, 1);
    rows.push(row);
    let mut row = Row::new("an execution breakpoint in the shadow of MOV SS");
    row.gpr[0] = u32::from(at::DATA0);
    row.dr[0] = at::CODE + 2;
    row.dr7 = 0x402;
    row.bytes(&[0x8e, 0xd0, 0x90]);
    row.ends();
    row.deviation = Some(deviation::SS_SHADOW_BREAKPOINT);
    rows.push(row);
    // Ports, with CR4.DE: without it, R/W 2 means nothing.
    let mut row = Row::new("I/O breakpoint");
    row.cr4 = 8;
    row.dr[2] = 0x80;
    row.dr7 = 0x400 | 0x20 | 2 << 24;
    row.bytes(&[0xe6, 0x80]);
    let next = row.stop();
    trap(&mut row, next, 4);
    rows.push(row);
    // General detect.
    for (name, bytes) in [
        ("MOV EAX, DR0", &[0x0f, 0x21, 0xc0][..]),
        ("MOV DR3, EAX", &[0x0f, 0x23, 0xd8]),
        ("MOV EAX, DR7", &[0x0f, 0x21, 0xf8]),
    ] {
        let mut row = Row::new(format!("general detect: {name}"));
        row.dr7 = 0x2400;
        let eip = row.bytes(bytes);
        row.stop();
        trap(&mut row, eip, BD);
        row.expect_bits(Field::Dr7, 0x2000, 0);
        rows.push(row);
    }
    // DR4 and DR5 are DR6 and DR7 without DE.
    let mut row = Row::new("DR5 is DR7 without DE");
    row.dr7 = 0x402;
    row.dr[0] = 0x1234;
    row.bytes(&[0x0f, 0x21, 0xe8]);
    row.ends();
    row.expect(Field::Gpr(0), 0x402);
    rows.push(row);
    for n in [0u8, 6, 7] {
        let mut row = Row::new(format!("MOV EAX, DR{n} in ring 3")).cpl(3);
        let eip = row.bytes(&[0x0f, 0x21, 0xc0 | n << 3]);
        row.stop();
        row.fault(13, Some(0), eip);
        rows.push(row);
    }
    rows
}

/// What keeps an interrupt off for one instruction. Vol. 2, STI, MOV, POP; 3A 6.8.3.
fn shadows() -> Vec<Row> {
    let mut rows = Vec::new();
    let new = |name: &str| {
        let mut row = Row::new(name);
        row.irq = true;
        row.gpr[0] = u32::from(at::DATA0);
        row
    };
    let interrupt = |row: &mut Row, eip: u32| row.fault(0x23, None, eip);
    let mut row = new("STI lets one instruction pass");
    row.bytes(&[0xfb, 0x90]);
    let at_end = row.stop();
    interrupt(&mut row, at_end);
    rows.push(row);
    let mut row = new("a second STI casts no new shadow");
    row.bytes(&[0xfb, 0xfb]);
    let at_end = row.stop();
    interrupt(&mut row, at_end);
    rows.push(row);
    let mut row = new("STI, CLI: no interrupt");
    row.bytes(&[0xfb, 0xfa, 0x90]);
    row.ends();
    rows.push(row);
    let mut row = new("STI with IF set casts no shadow: the interrupt came before");
    row.eflags |= eflags::IF;
    row.bytes(&[0xfb, 0x90]);
    row.stop();
    interrupt(&mut row, at::CODE);
    rows.push(row);
    let mut row = new("STI, HLT: the interrupt finds HLT done");
    row.bytes(&[0xfb, 0xf4]);
    let at_end = row.stop();
    interrupt(&mut row, at_end);
    rows.push(row);
    let mut row = new("STI, MOV SS: the interrupt after MOV SS's own shadow");
    row.bytes(&[0xfb, 0x8e, 0xd0]);
    let after_ss = row.here();
    row.bytes(&[0x90]);
    let after_nop = row.stop();
    // Only the first of consecutive shadows is sure: 6.8.3 says that the processor "may" take it
    // after either.
    let _ = after_ss;
    interrupt(&mut row, after_nop);
    row.checks.retain(|c| c.field == Field::Kind);
    rows.push(row);
    let mut row = new("POPF that sets IF: at once");
    row.gpr[4] = at::ROW_STACK - 0x20;
    row.put32(at::ROW_STACK - 0x20, eflags::FIXED | eflags::IF);
    row.bytes(&[0x9d]);
    let at_end = row.stop();
    interrupt(&mut row, at_end);
    rows.push(row);
    let mut row = new("IRET that sets IF: at once");
    let esp = at::ROW_STACK - 0x20;
    row.gpr[4] = esp;
    for (n, value) in [at::TARGET, u32::from(at::CODE0), eflags::FIXED | eflags::IF]
        .into_iter()
        .enumerate()
    {
        row.put32(esp + n as u32 * 4, value);
    }
    row.put(at::TARGET, &[0x90, 0x0f, 0x0b]);
    row.bytes(&[0xcf]);
    interrupt(&mut row, at::TARGET);
    rows.push(row);
    let mut row = new("a fault in the shadow of STI");
    row.bytes(&[0xfb]);
    let eip = row.stop();
    row.fault(6, None, eip);
    rows.push(row);
    // An interrupt gate clears IF, a trap gate does not: but the vector's own is an interrupt gate.
    let mut row = new("the handler of an interrupt has IF clear");
    row.eflags |= eflags::IF;
    row.bytes(&[0x90]);
    row.stop();
    interrupt(&mut row, at::CODE);
    row.expect_bits(Field::HandlerFlags, eflags::IF, 0);
    row.expect_bits(Field::Eflags, eflags::IF, eflags::IF);
    rows.push(row);
    // Between iterations.
    let mut row = new("REP is interrupted at its own address");
    row.eflags |= eflags::IF;
    row.gpr[1] = 100;
    row.gpr[7] = at::DATA;
    let eip = row.bytes(&[0xf3, 0xaa]);
    row.stop();
    interrupt(&mut row, eip);
    rows.push(row);
    rows
}

/// What POPF and IRET change, by ring and IOPL. Vol. 2.
fn flags() -> Vec<Row> {
    let mut rows = Vec::new();
    let all = 0x0027_7fd7 & !eflags::TF;
    for cpl in 0..4u8 {
        for iopl in [0u32, 1, 2, 3] {
            for (initial, image) in [
                (eflags::FIXED, all),
                (
                    all & !eflags::RF & !eflags::NT & !eflags::VM & !eflags::IOPL,
                    eflags::FIXED,
                ),
            ] {
                for (name, bytes, wide, iret) in [
                    ("POPF", &[0x66, 0x9d][..], false, false),
                    ("POPFD", &[0x9d], true, false),
                    ("IRET", &[0x66, 0xcf], false, true),
                    ("IRETD", &[0xcf], true, true),
                ] {
                    // VM in an IRETD image of ring 0 is another matter.
                    let image = if iret { image & !eflags::VM } else { image };
                    let mut row = Row::new(format!(
                        "{name}: ring {cpl} IOPL {iopl} {initial:#x} to {image:#x}"
                    ))
                    .cpl(cpl);
                    row.eflags = initial | iopl << 12;
                    let esp = at::ROW_STACK - 0x20;
                    row.gpr[4] = esp;
                    let mut mask = 0xcd5 & !eflags::TF | eflags::NT;
                    if u32::from(cpl) <= iopl {
                        mask |= eflags::IF;
                    }
                    if cpl == 0 {
                        mask |= eflags::IOPL;
                    }
                    if wide {
                        mask |= eflags::AC | eflags::ID;
                    }
                    let expected = row.eflags & !mask | image & mask;
                    if iret {
                        let values = [at::TARGET, u32::from(at::code_of(cpl)), image];
                        if wide {
                            for (n, value) in values.into_iter().enumerate() {
                                row.put32(esp + n as u32 * 4, value);
                            }
                        } else {
                            // The target must be below 64 KiB.
                            let words = [0x500u16, at::code_of(cpl), image as u16];
                            let bytes: Vec<u8> =
                                words.iter().flat_map(|w| w.to_le_bytes()).collect();
                            row.put(esp, &bytes);
                            row.put(0x500, &[0x0f, 0x0b]);
                        }
                        row.put(at::TARGET, &[0x0f, 0x0b]);
                        row.bytes(bytes);
                        row.stop();
                        row.fault(6, None, if wide { at::TARGET } else { 0x500 });
                    } else {
                        row.put32(esp, image);
                        row.bytes(bytes);
                        row.ends();
                    }
                    row.expect_flags(expected);
                    rows.push(row);
                }
            }
        }
    }
    rows
}

/// The table.
pub fn table() -> Table {
    let mut rows = steps();
    let mut breakpoints = breakpoints();
    deviate(&mut breakpoints, deviation::BREAKPOINT_WIDE, |name| {
        name.contains(" at 2: ") && !name.contains(" of 4 ") && {
            let reads = name.ends_with("MOV EAX, [EBX]") && name.starts_with("access");
            reads || name.ends_with("MOV [EBX], EAX") || name.ends_with("INC DWORD [EBX]")
        }
    });
    deviate(&mut breakpoints, deviation::BREAK_AND_STEP, |name| {
        name.ends_with("a single step")
    });
    deviate(&mut breakpoints, deviation::SS_SHADOW_BREAKPOINT, |name| {
        name.starts_with("MOV SS from a watched")
    });
    deviate(&mut breakpoints, deviation::GENERAL_DETECT, |name| {
        name.starts_with("general detect")
    });
    rows.extend(breakpoints);
    rows.extend(shadows());
    rows.extend(flags());
    Table {
        name: "debug",
        source: "SDM 3B 18.2-18.3; 3A 6.8; vol. 2, POPF, IRET, STI, MOV",
        rows,
    }
}
