//! What keeps an interrupt off for one instruction.

use super::{BS, trap};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

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

/// What the loads of [`stack_loads`] find: in EAX, at EBX, and on the stack.
fn operands(row: &mut Row, load: &str) {
    row.gpr[0] = u32::from(at::DATA0);
    row.gpr[3] = at::DATA;
    row.gpr[4] = at::ROW_STACK - 0x20;
    row.put32(row.gpr[4], u32::from(at::DATA0));
    row.put32(
        at::DATA,
        if load == "LSS" {
            row.gpr[4]
        } else {
            u32::from(at::DATA0)
        },
    );
    row.put32(at::DATA + 4, u32::from(at::DATA0));
}

/// MOV SS and POP SS: the instruction after them runs before an interrupt and before a trap,
/// whatever it is; LSS and the other segments cast no shadow. The instruction in the shadow may fault,
/// transfer control or wait.
fn stack_loads() -> Vec<Row> {
    let mut rows = Vec::new();
    let loads: [(&str, &[u8], bool); 6] = [
        ("MOV SS", &[0x8e, 0xd0], true),
        ("MOV SS, [EBX]", &[0x8e, 0x13], true),
        ("POP SS", &[0x17], true),
        ("LSS", &[0x0f, 0xb2, 0x23], false),
        ("MOV DS", &[0x8e, 0xd8], false),
        ("POP DS", &[0x1f], false),
    ];
    for (name, bytes, shadow) in loads {
        for (what, next, len) in [
            ("NOP", &[0x90][..], 1u32),
            ("MOV ESP", &[0xbc, 0, 0x3f, 0x62, 0], 5),
            ("JMP", &[0xeb, 0x10], 0x12),
            ("PUSHF", &[0x9c], 1),
            ("CPUID", &[0x0f, 0xa2], 2),
        ] {
            // Interrupts become deliverable in the shadow of STI: MOV SS runs in it.
            let mut row = Row::new(format!("STI, {name}, {what}"));
            row.irq = true;
            operands(&mut row, name);
            row.bytes(&[0xfb]);
            row.bytes(bytes);
            let after_load = row.here();
            row.bytes(next);
            row.stop();
            row.put(after_load + len, &[0x0f, 0x0b]);
            // 6.8.3 leaves open whether consecutive shadows add up.
            row.expect(Field::Kind, 0x23);
            if !shadow {
                row.expect(Field::Eip, after_load);
            }
            rows.push(row);
            // The single-step trap, the same.
            let mut row = Row::new(format!("TF: {name}, {what}"));
            row.eflags |= eflags::TF;
            operands(&mut row, name);
            row.bytes(bytes);
            let after_load = row.here();
            row.bytes(next);
            row.stop();
            row.put(after_load + len, &[0x0f, 0x0b]);
            let eip = if shadow { after_load + len } else { after_load };
            trap(&mut row, eip, BS);
            row.deviation = (name == "LSS").then_some(deviation::LSS_SHADOW);
            rows.push(row);
        }
    }
    // What faults in a shadow faults; what waits there is woken.
    for (name, bytes) in [("MOV SS", &[0x8e, 0xd0][..]), ("POP SS", &[0x17])] {
        let mut row = Row::new(format!("a fault after {name}, IF set"));
        row.gpr[0] = u32::from(at::DATA0);
        row.gpr[4] = at::ROW_STACK - 0x20;
        row.put32(row.gpr[4], u32::from(at::DATA0));
        row.bytes(bytes);
        row.ends();
        rows.push(row);
    }
    // In V8086 mode with IOPL 3, and in real mode, STI is the same.
    for real in [false, true] {
        let mode = if real { "real" } else { "V8086" };
        let mut row = Row::new(format!("{mode} mode: STI lets one instruction pass"));
        row = if real { row.real_mode() } else { row.v86(3) };
        row.irq = true;
        row.bytes(&[0xfb, 0x90]);
        let eip = row.stop();
        row.fault(0x23, None, eip);
        rows.push(row);
        let mut row = Row::new(format!("{mode} mode: MOV SS, MOV SP with IF clear"));
        row = if real { row.real_mode() } else { row.v86(3) };
        row.irq = true;
        row.gpr[0] = at::LOW_STACK >> 4;
        row.bytes(&[0x8e, 0xd0, 0xbc, 0, 0x80]);
        row.ends();
        rows.push(row);
    }
    rows
}

/// Instructions that end HLT, and what does not. Vol. 2, HLT.
fn waits() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = Row::new("HLT with IF set: the interrupt came before");
    row.irq = true;
    row.eflags |= eflags::IF;
    let eip = row.bytes(&[0xf4]);
    row.stop();
    row.fault(0x23, None, eip);
    rows.push(row);
    let mut row = Row::new("HLT under TF: the trap ends it");
    row.eflags |= eflags::TF;
    row.bytes(&[0xf4]);
    let next = row.stop();
    trap(&mut row, next, BS);
    row.deviation = Some(deviation::HLT_NO_TRAP);
    rows.push(row);
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = shadows();
    rows.extend(stack_loads());
    rows.extend(waits());
    Table::new(
        "interrupt-shadows",
        "SDM 3A 6.8.1, 6.8.3; vol. 2, STI, MOV, POP, HLT",
        rows,
    )
}
