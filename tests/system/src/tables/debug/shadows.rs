//! What keeps an interrupt off for one instruction.

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

/// The table.
pub(super) fn table() -> Table {
    Table::new(
        "interrupt-shadows",
        "SDM 3A 6.8.1, 6.8.3; vol. 2, STI, MOV, POP",
        shadows(),
    )
}
