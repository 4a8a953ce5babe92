//! IRET and IRETD to every mode: every kind of code segment, every ring, 16- and 32-bit code, V8086
//! mode, and in real mode. Tasks are in the table of task switches, V8086 code in its own.

use super::{CODE_KINDS, STACK_SEL, TARGET_SEL, code, is_conforming};
use crate::descriptor::{flag, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

const ESP: u32 = at::ROW_STACK - 0x40;
/// CF, PF, AF, ZF, SF, DF, OF: what every IRET takes from the image.
const STATUS: u32 = 0xcd5;

/// Puts the frame and the instruction.
fn iret(row: &mut Row, wide: bool, values: &[u32]) -> u32 {
    let width = if wide { 4 } else { 2 };
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|v| v.to_le_bytes()[..width].to_vec())
        .collect();
    let esp = row.gpr[4];
    let base = if row.code16 { at::LOW_STACK } else { 0 };
    row.put(base + esp, &bytes);
    if wide == row.code16 {
        row.bytes(&[0x66, 0xcf])
    } else {
        row.bytes(&[0xcf])
    }
}

/// Privilege and kind of the segment that is returned to; what becomes of the data segments and of
/// the flags. Vol. 2, IRET; 5.8.6.
fn segments() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in 0..4u8 {
        for rpl in 0..4u8 {
            for dpl in 0..4u8 {
                for k in CODE_KINDS {
                    for present in [true, false] {
                        let name = format!("CPL {cpl} RPL {rpl} DPL {dpl} type {k:#x} P {present}");
                        let mut row = Row::new(name).cpl(cpl);
                        row.gpr[4] = ESP;
                        row.eflags |= u32::from(cpl) << 12;
                        row.descriptor(TARGET_SEL, code(k, dpl, present));
                        row.put(at::TARGET, &[0x0f, 0x0b]);
                        let selector = u32::from(TARGET_SEL | u16::from(rpl));
                        let image = eflags::FIXED | STATUS | eflags::IF | eflags::AC;
                        row.data = [at::data_of(cpl), at::DATA3, 0, 0];
                        let eip = iret(
                            &mut row,
                            true,
                            &[
                                at::TARGET,
                                selector,
                                image,
                                at::OTHER_STACK,
                                u32::from(at::data_of(rpl)),
                            ],
                        );
                        row.stop();
                        // RPL ≥ CPL; conforming DPL ≤ RPL, nonconforming DPL = RPL.
                        let fits = if is_conforming(k) {
                            dpl <= rpl
                        } else {
                            dpl == rpl
                        };
                        if rpl < cpl || !fits || !present {
                            let vector = if rpl >= cpl && fits { 11 } else { 13 };
                            row.fault(vector, Some(u32::from(TARGET_SEL)), eip);
                            row.expect(Field::Esp, ESP);
                            row.expect_flags(row.eflags);
                        } else {
                            row.fault(6, None, at::TARGET);
                            row.expect(Field::Cs, selector);
                            // IF: CPL ≤ IOPL. IOPL: CPL = 0.
                            let iopl = if cpl == 0 { 0 } else { u32::from(cpl) << 12 };
                            row.expect_flags(image | iopl);
                            row.expect(Field::Es, u32::from(at::DATA3));
                            if rpl > cpl {
                                row.expect(Field::Esp, at::OTHER_STACK);
                                row.expect(Field::Ss, u32::from(at::data_of(rpl)));
                                row.expect(Field::Ds, 0);
                            } else {
                                row.expect(Field::Esp, ESP + 12);
                                row.expect(Field::Ds, u32::from(at::data_of(cpl)));
                            }
                        }
                        rows.push(row);
                    }
                }
            }
        }
    }
    rows
}

/// Widths: of the instruction, of the code segment and of the outer stack.
fn widths() -> Vec<Row> {
    let mut rows = Vec::new();
    for wide in [false, true] {
        for code32 in [false, true] {
            for stack32 in [false, true] {
                for cpl in 0..4u8 {
                    for rpl in cpl..4u8 {
                        let size = |big| if big { 32 } else { 16 };
                        let mut row = Row::new(format!(
                            "IRET of {} bits, ring {cpl} to {rpl}, {}-bit code, {}-bit stack",
                            size(wide),
                            size(code32),
                            size(stack32)
                        ))
                        .cpl(cpl);
                        let big = |on| if on { flag::BIG } else { 0 };
                        let code = kind::CODE_R | 1;
                        row.descriptor(
                            TARGET_SEL,
                            segment(at::TARGET, 0xffff, code, rpl, true, big(code32)),
                        );
                        let base = at::OTHER_STACK - 0x80;
                        row.descriptor(
                            STACK_SEL,
                            segment(base, 0xffff, kind::DATA_W | 1, rpl, true, big(stack32)),
                        );
                        // B8 immediate: its size tells the code segment's.
                        row.put(at::TARGET + 8, &[0xb8, 0x11, 0x22, 0x0f, 0x0b, 0x0f, 0x0b]);
                        row.gpr[4] = ESP;
                        let rpl16 = u16::from(rpl);
                        let cs = u32::from(TARGET_SEL | rpl16);
                        let ss = u32::from(STACK_SEL | rpl16);
                        let image = eflags::FIXED | eflags::CF;
                        iret(&mut row, wide, &[8, cs, image, 0x80, ss]);
                        row.stop();
                        row.fault(6, None, if code32 { 13 } else { 11 });
                        row.expect(Field::Cs, cs);
                        if code32 {
                            row.expect(Field::Gpr(0), 0x0b0f_2211);
                        } else {
                            row.expect_bits(Field::Gpr(0), 0xffff, 0x2211);
                        }
                        if rpl > cpl {
                            let mask = if stack32 { u32::MAX } else { 0xffff };
                            row.expect_bits(Field::Esp, mask, 0x80);
                            row.expect(Field::Ss, ss);
                        } else {
                            row.expect(Field::Esp, ESP + 3 * if wide { 4 } else { 2 });
                        }
                        rows.push(row);
                    }
                }
            }
        }
    }
    rows
}

/// To V8086 mode: the frame's nine slots, IOPL, VIF and VIP. 3B 20.2.4.
fn to_v86() -> Vec<Row> {
    let mut rows = Vec::new();
    for iopl in 0..4u32 {
        for extra in [0, eflags::VIF, eflags::VIP | eflags::VIF, eflags::AC] {
            let mut row = Row::new(format!("to V8086 mode: IOPL {iopl}, with {extra:#x}"));
            row.gpr[4] = ESP;
            let image = eflags::FIXED | eflags::VM | iopl << 12 | extra | eflags::ZF;
            iret(
                &mut row,
                true,
                &[
                    0x55, 0x1000, image, 0x1_7777, 0x2000, 0x11, 0x22, 0x33, 0x44,
                ],
            );
            row.put(at::LOW_CODE + 0x55, &[0x0f, 0x0b]);
            row.stop();
            row.fault(6, None, 0x55);
            row.expect_flags(image);
            for (field, value) in [
                (Field::Cs, 0x1000),
                (Field::Ss, 0x2000),
                (Field::Esp, 0x1_7777),
                (Field::Es, 0x11),
                (Field::Ds, 0x22),
                (Field::Fs, 0x33),
                (Field::Gs, 0x44),
            ] {
                row.expect(field, value);
            }
            rows.push(row);
        }
    }
    // A 16-bit image has no VM: ring 0 goes on in protected mode.
    let mut row = Row::new("a 16-bit image has no VM");
    row.gpr[4] = ESP;
    row.descriptor(
        TARGET_SEL,
        segment(at::TARGET, 0xffff, kind::CODE_R | 1, 0, true, flag::BIG),
    );
    row.put(at::TARGET + 8, &[0x0f, 0x0b]);
    iret(
        &mut row,
        false,
        &[8, u32::from(TARGET_SEL), eflags::FIXED, 0xffff, 0xffff],
    );
    row.stop();
    row.fault(6, None, 8);
    row.expect(Field::Cs, u32::from(TARGET_SEL));
    row.expect(Field::Esp, ESP + 6);
    rows.push(row);
    rows
}

/// In real mode. Vol. 2, IRET: all flags but VM, VIF and VIP.
fn real() -> Vec<Row> {
    let mut rows = Vec::new();
    for wide in [false, true] {
        for image in [
            eflags::FIXED,
            eflags::FIXED | STATUS | eflags::IOPL | eflags::NT | eflags::IF,
            eflags::FIXED | eflags::VM | eflags::VIF | eflags::VIP,
            eflags::FIXED | eflags::AC | eflags::ID,
        ] {
            if !wide && image > 0xffff {
                continue;
            }
            let size = if wide { 32 } else { 16 };
            let mut row = Row::new(format!("real mode, IRET of {size} bits: {image:#x}"));
            row = row.real_mode();
            row.gpr[4] = 0x7fc0;
            row.put(at::LOW_CODE + 0x40, &[0x0f, 0x0b]);
            iret(&mut row, wide, &[0x40, at::LOW_CODE >> 4, image]);
            row.stop();
            row.fault(6, None, 0x40);
            row.expect(Field::Cs, at::LOW_CODE >> 4);
            row.expect(Field::Esp, 0x7fc0 + 3 * size / 8);
            let mask = 0xffff & !eflags::RF;
            row.expect_bits(Field::Eflags, mask, image);
            // The frame has 16 bits; what the handler finds tells the rest.
            let upper = eflags::AC | eflags::ID | eflags::VM | eflags::VIF | eflags::VIP;
            let kept = if wide { eflags::AC | eflags::ID } else { 0 };
            // AC is cleared by the delivery in real mode.
            row.expect_bits(Field::HandlerFlags, upper & !eflags::AC, image & kept);
            rows.push(row);
        }
    }
    let mut row = Row::new("real mode, IRETD beyond 64 KiB").real_mode();
    row.gpr[4] = 0x7fc0;
    row.put(at::LOW_CODE + 0x1_0000, &[0x0f, 0x0b]);
    let eip = iret(
        &mut row,
        true,
        &[0x1_0000, at::LOW_CODE >> 4, eflags::FIXED],
    );
    row.stop();
    row.fault(13, None, eip);
    row.expect(Field::Esp, 0x7fc0);
    row.deviation = Some(deviation::SEGMENT_LIMITS);
    rows.push(row);
    rows
}

/// The table.
pub(super) fn table() -> Table {
    let mut rows = segments();
    rows.extend(widths());
    rows.extend(to_v86());
    rows.extend(real());
    Table::new(
        "iret",
        "SDM vol. 2, IRET; 3A 5.8.6, 6.12; 3B 20.1.3, 20.2.4",
        rows,
    )
}
