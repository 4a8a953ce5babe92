//! Tasks that come back: by IRET through the link, two levels deep, from and to V8086 mode; a task's
//! own LDT and page tables; pages of a TSS.

use super::{
    Case, EXTRA, GATE, KINDS_OF_WAYS, NEW, NEW_FLAGS, OLD_FLAGS, VECTOR, Way, base, expect_type,
    new_tss32, tss_kind,
};
use crate::descriptor::{Tss32, gate, kind, segment};
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

/// There and back between every two kinds of task. 7.3, 7.4.
fn back() -> Vec<Row> {
    let mut rows = Vec::new();
    for way in [Way::Call, Way::CallGate, Way::Interrupt] {
        for (old32, new32) in [(true, true), (true, false), (false, true), (false, false)] {
            for (old_cpl, new_cpl) in [(0, 0), (0, 3), (3, 0), (3, 3)] {
                let c = Case {
                    way,
                    old32,
                    new32,
                    old_cpl,
                    new_cpl,
                };
                let width = |wide| if wide { 32 } else { 16 };
                let (mut row, _, next) = base(
                    format!(
                        "{way:?} from {} (CPL {old_cpl}) to {} (CPL {new_cpl}) and back",
                        width(old32),
                        width(new32)
                    ),
                    &c,
                );
                row.put(at::TARGET, &[0xcf]);
                if old32 {
                    row.stop();
                    row.fault(6, None, next);
                    row.expect_flags(OLD_FLAGS);
                    row.expect(Field::Esp, row.gpr[4]);
                    for n in [0, 1, 2, 3, 5, 6, 7u8] {
                        row.expect(Field::Gpr(n), row.gpr[usize::from(n)]);
                    }
                } else {
                    // A 16-bit TSS keeps 16 bits of EIP: code lies there too.
                    row.put(next & 0xffff, &[0x0f, 0x0b]);
                    row.task_vector(6);
                    row.fault_by_task(6, None);
                    row.watches.push((at::TSS + 0x0e, 2));
                    row.expect(Field::Mem(at::TSS + 0x0e), next & 0xffff);
                }
                if old32 {
                    row.expect(Field::Tr, u32::from(at::TSS_SEL));
                    row.expect(Field::Cs, u32::from(row.cs));
                    row.expect(Field::Ss, u32::from(row.ss));
                    row.expect(Field::Ds, u32::from(row.data[0]));
                }
                expect_type(&mut row, NEW, new32, false);
                expect_type(&mut row, at::TSS_SEL, old32, true);
                // What IRET saved: the instruction after it, NT clear.
                let (eip_at, flags_at) = if new32 { (0x20, 0x24) } else { (0x0e, 0x10) };
                let start = if new32 { at::TARGET } else { 0 };
                row.expect_bits(Field::Mem(at::TSS2 + eip_at), 0xffff, start + 1);
                row.expect_bits(Field::Mem(at::TSS2 + flags_at), 0xffff, NEW_FLAGS);
                rows.push(row);
            }
        }
    }
    rows
}

/// The second task calls a third, which returns, and the second returns.
fn deep() -> Row {
    let c = Case::wide(Way::Call, 0, 0);
    let (mut row, _, next) = base("two levels deep and back".into(), &c);
    let third = EXTRA + 0x18;
    row.descriptor(third, segment(at::TSS3, 0x67, kind::TSS32, 0, true, 0));
    let mut tss = new_tss32(0);
    tss.eip = at::TARGET + 0x40;
    tss.gpr[4] = at::OTHER_STACK - 0x40;
    row.put(at::TSS3, &tss.bytes());
    let [low, high] = third.to_le_bytes();
    row.put(at::TARGET, &[0x9a, 0, 0, 0, 0, low, high, 0xcf]);
    row.put(at::TARGET + 0x40, &[0xcf]);
    row.stop();
    row.fault(6, None, next);
    row.expect_flags(OLD_FLAGS);
    row.expect(Field::Tr, u32::from(at::TSS_SEL));
    row.expect16(at::TSS3, NEW);
    row.expect16(at::TSS2, at::TSS_SEL);
    expect_type(&mut row, NEW, true, false);
    expect_type(&mut row, third, true, false);
    expect_type(&mut row, at::TSS_SEL, true, true);
    row
}

/// INT n in V8086 mode by a task gate, and the way back. 3B 20.3.2.
fn v86() -> Vec<Row> {
    let mut rows = Vec::new();
    for back in [false, true] {
        let name = if back { "and back" } else { "" };
        let mut row = Row::new(format!("INT from V8086 mode {name}")).v86(3);
        row.eflags |= eflags::CF;
        row.descriptor(NEW, segment(at::TSS2, 0x67, kind::TSS32, 0, true, 0));
        row.put(at::TSS2, &new_tss32(0).bytes());
        row.gate(VECTOR, gate(kind::TASK, 3, true, NEW, 0, 0));
        row.put(at::TARGET, if back { &[0xcf, 0x90] } else { &[0x0f, 0x0b] });
        row.bytes(&[0xcd, VECTOR]);
        let next = row.stop();
        if back {
            row.fault(6, None, next);
            row.expect_flags(row.eflags);
            row.expect(Field::Cs, at::LOW_CODE >> 4);
            row.expect(Field::Ss, at::LOW_STACK >> 4);
            row.expect(Field::Esp, 0x8000);
            row.expect(Field::Ds, at::LOW_DATA >> 4);
        } else {
            row.fault(6, None, at::TARGET);
            row.expect_flags(NEW_FLAGS | eflags::NT);
            row.expect(Field::Mem(at::TSS + 0x20), next);
            row.expect_bits(Field::Mem(at::TSS + 0x24), !eflags::RF, row.eflags);
            for (slot, value) in [
                (0x48, at::LOW_DATA),
                (0x4c, at::LOW_CODE),
                (0x50, at::LOW_STACK),
                (0x54, at::LOW_DATA),
            ] {
                row.expect16(at::TSS + slot, (value >> 4) as u16);
            }
        }
        rows.push(row);
    }
    rows
}

/// The new task's LDT, and pages that a TSS lies in. 7.2.1, 7.3.
fn memory() -> Vec<Row> {
    let mut rows = Vec::new();
    let other = EXTRA + 0x18;
    for way in KINDS_OF_WAYS {
        let c = Case::wide(way, 0, 3);
        let (mut row, ..) = base(format!("{way:?}: the task's own LDT"), &c);
        row.stop();
        // One descriptor, at DATA: entry 1.
        row.descriptor(other, segment(at::DATA, 0xf, kind::LDT, 0, true, 0));
        let own = segment(at::DATA + 0x100, 0xff, kind::DATA_W | 1, 3, true, 4);
        row.put(at::DATA + 8, &own.to_le_bytes());
        let tss = Tss32 {
            ldt: other,
            segments: [0x0f, at::CODE3, at::DATA3, 0x0f, 0, 0],
            ..new_tss32(3)
        };
        row.put(at::TSS2, &tss.bytes());
        row.put32(at::DATA + 0x110, 0x1234_5678);
        let load = [0xa1, 0x10, 0, 0, 0, 0x0f, 0x0b]; // mov eax, [10h]
        row.put(at::TARGET, &load);
        row.fault(6, None, at::TARGET + 5);
        row.expect(Field::Gpr(0), 0x1234_5678);
        row.expect(Field::Ldtr, u32::from(other));
        rows.push(row);

        // No page for the new TSS: the fault is the old task's, which is as it was.
        let (row, eip, _) = base(format!("{way:?}: no page for the new TSS"), &c);
        let mut row = row.paging();
        row.stop();
        let k = tss_kind(true, way == Way::Return);
        row.descriptor(NEW, segment(at::TEST + 0x5000, 0x67, k, 0, true, 0));
        row.descriptor(GATE, gate(kind::TASK, 0, true, NEW, 0, 0));
        row.expect(Field::Kind, 14);
        // Whether it is read or written first is the processor's affair.
        row.expect_bits(Field::Error, !2, 0);
        row.expect(Field::Eip, eip);
        row.expect_bits(Field::Cr2, !0xfff, at::TEST + 0x5000);
        row.expect(Field::Tr, u32::from(at::TSS_SEL));
        row.expect(Field::Cs, u32::from(at::CODE0));
        expect_type(&mut row, NEW, true, way == Way::Return);
        expect_type(&mut row, at::TSS_SEL, true, true);
        rows.push(row);
    }
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = back();
    rows.push(deep());
    rows.extend(v86());
    rows.extend(memory());
    Table::new("task-nesting", "SDM 3A 7.2.1, 7.3, 7.4; 3B 20.3.2", rows)
}
