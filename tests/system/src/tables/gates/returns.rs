//! Far RET, and the outer stack that RETF and IRET return to.

use super::{CODE_KINDS, STACK_SEL, TARGET_SEL, code, is_conforming};
use crate::descriptor::{flag, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};

/// Far RET. Vol. 2, RET.
fn returns() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in 0..4u8 {
        for rpl in 0..4u8 {
            for dpl in 0..4u8 {
                for k in CODE_KINDS {
                    for present in [true, false] {
                        let mut row = Row::new(format!(
                            "RETF: CPL {cpl} RPL {rpl} DPL {dpl} type {k:#x} P {present}"
                        ))
                        .cpl(cpl);
                        row.descriptor(TARGET_SEL, code(k, dpl, present));
                        row.put(at::TARGET, &[0x0f, 0x0b]);
                        let selector = TARGET_SEL | u16::from(rpl);
                        let esp = at::ROW_STACK - 0x20;
                        row.gpr[4] = esp;
                        for (n, value) in [
                            at::TARGET,
                            u32::from(selector),
                            0x77,
                            0x88,
                            at::OTHER_STACK,
                            u32::from(at::data_of(rpl)),
                        ]
                        .into_iter()
                        .enumerate()
                        {
                            row.put32(esp + n as u32 * 4, value);
                        }
                        row.data = [at::data_of(cpl), at::DATA3, 0, 0];
                        let eip = row.bytes(&[0xca, 8, 0]); // retf 8
                        row.stop();
                        // RPL ≥ CPL; conforming DPL ≤ RPL, nonconforming DPL = RPL.
                        let allowed = rpl >= cpl
                            && if is_conforming(k) {
                                dpl <= rpl
                            } else {
                                dpl == rpl
                            };
                        if !allowed || !present {
                            row.fault(
                                if allowed { 11 } else { 13 },
                                Some(u32::from(TARGET_SEL)),
                                eip,
                            );
                            row.expect(Field::Esp, esp);
                        } else {
                            row.fault(6, None, at::TARGET);
                            row.expect(Field::Cs, u32::from(selector));
                            if rpl > cpl {
                                row.expect(Field::Esp, at::OTHER_STACK + 8);
                                row.expect(Field::Ss, u32::from(at::data_of(rpl)));
                                // Segments that the new ring may not use become null.
                                row.expect(Field::Ds, 0);
                                row.expect(Field::Es, u32::from(at::DATA3));
                            } else {
                                row.expect(Field::Esp, esp + 16);
                                row.expect(Field::Ds, u32::from(at::data_of(cpl)));
                            }
                        }
                        rows.push(row);
                    }
                }
            }
        }
    }
    // The outer stack.
    let data = |k: u8, dpl: u8, p: bool| segment(0, 0xf_ffff, k, dpl, p, flag::G | flag::BIG);
    let cases: Vec<(&str, u16, Option<u64>, u8, u32)> = vec![
        ("null", 0, None, 13, 0),
        ("null with RPL", 3, None, 13, 0),
        ("beyond the GDT", 0x1003, None, 13, 0x1000),
        (
            "RPL too low",
            STACK_SEL | 2,
            Some(data(kind::DATA_W, 3, true)),
            13,
            u32::from(STACK_SEL),
        ),
        (
            "DPL too low",
            STACK_SEL | 3,
            Some(data(kind::DATA_W, 2, true)),
            13,
            u32::from(STACK_SEL),
        ),
        (
            "read-only",
            STACK_SEL | 3,
            Some(data(kind::DATA_R, 3, true)),
            13,
            u32::from(STACK_SEL),
        ),
        (
            "code",
            STACK_SEL | 3,
            Some(data(kind::CODE_R, 3, true)),
            13,
            u32::from(STACK_SEL),
        ),
        (
            "absent",
            STACK_SEL | 3,
            Some(data(kind::DATA_W, 3, false)),
            12,
            u32::from(STACK_SEL),
        ),
    ];
    for iret in [false, true] {
        for &(what, ss, descriptor, vector, error) in &cases {
            let name = if iret { "IRET" } else { "RETF" };
            let mut row = Row::new(format!("{name} to ring 3: SS {what}"));
            if let Some(d) = descriptor {
                row.descriptor(STACK_SEL, d);
            }
            let esp = at::ROW_STACK - 0x20;
            row.gpr[4] = esp;
            let mut frame = vec![at::TARGET, u32::from(at::CODE3)];
            if iret {
                frame.push(eflags::FIXED);
            }
            frame.extend([at::OTHER_STACK, u32::from(ss)]);
            for (n, value) in frame.into_iter().enumerate() {
                row.put32(esp + n as u32 * 4, value);
            }
            let eip = row.bytes(&[if iret { 0xcf } else { 0xcb }]);
            row.stop();
            row.fault(vector, Some(error), eip);
            row.expect(Field::Esp, esp);
            rows.push(row);
        }
    }
    for (what, selector, error) in [
        ("null", 0u32, 0u32),
        ("null with RPL", 3, 0),
        ("beyond the GDT", 0x1000, 0x1000),
        ("of data", u32::from(at::DATA0), u32::from(at::DATA0)),
        ("of a TSS", u32::from(at::TSS_SEL), u32::from(at::TSS_SEL)),
    ] {
        for iret in [false, true] {
            let name = if iret { "IRET" } else { "RETF" };
            let mut row = Row::new(format!("{name}: CS {what}"));
            let esp = at::ROW_STACK - 0x20;
            row.gpr[4] = esp;
            for (n, value) in [at::TARGET, selector, eflags::FIXED]
                .into_iter()
                .enumerate()
            {
                row.put32(esp + n as u32 * 4, value);
            }
            let eip = row.bytes(&[if iret { 0xcf } else { 0xcb }]);
            row.stop();
            row.fault(13, Some(error), eip);
            row.expect(Field::Esp, esp);
            rows.push(row);
        }
    }
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = returns();
    deviate(&mut rows, deviation::OUTER_SS_ABSENT, |name| {
        name.ends_with("SS absent")
    });
    Table::new("far-returns", "SDM 3A 5.8.6; vol. 2, RET, IRET", rows)
}
