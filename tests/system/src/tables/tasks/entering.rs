//! What meets a task as it begins: traps, V8086 mode, CR3, limits; how it comes back.

use super::{Case, EXTRA, NEW, NEW_FLAGS, OLD_FLAGS, WAYS, Way, base, expect_type, new_tss32};
use crate::descriptor::{Tss32, flag, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};

/// Traps of the T flag, what EFLAGS may bring, CR3, code limits.
fn entering() -> Vec<Row> {
    let mut rows = Vec::new();
    for way in WAYS {
        let c = Case::wide(way, 0, 3);
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
        let c = Case::wide(way, 0, 3);
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
        let c = Case::wide(way, 0, 0);
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
    let c = Case::wide(Way::Call, 0, 0);
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
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = entering();
    deviate(&mut rows, deviation::TSS_TRAP_FLAG, |name| {
        name.contains("T flag")
    });
    Table::new(
        "task-entry",
        "SDM 3A 7.2-7.5; 3B 18.2.4, 18.3.1.5, 20.2.4",
        rows,
    )
}
