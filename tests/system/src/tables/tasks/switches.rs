//! Complete switches, every way between every two kinds of task: what is saved, loaded and marked.

use super::{
    Case, EXTRA, NEW, NEW_FLAGS, OLD_FLAGS, REGISTERS, SP16, WAYS, Way, base, expect_type,
    new_tss16, selectors16,
};
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

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

/// The table.
pub(super) fn table() -> Table {
    Table::new("task-switches", "SDM 3A 7.3 (table 7-2), 7.4", switches())
}
