//! The checks of the new task's segments, made in the new task.

use super::{Case, EXTRA, KINDS_OF_WAYS, NEW, Way, base, expect_type, new_tss32};
use crate::descriptor::{kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate};

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
        for way in KINDS_OF_WAYS {
            let c = Case::wide(way, 0, 3);
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

/// The table.
pub(super) fn table() -> Table {
    let mut rows = new_segments();
    deviate(&mut rows, deviation::EXT_CLEAR, |name| {
        name.starts_with("Fault: ")
    });
    deviate(&mut rows, deviation::TASK_SS_ABSENT, |name| {
        name.contains("SS absent")
    });
    Table::new("task-segments", "SDM 3A 7.3 (table 7-1)", rows)
}
