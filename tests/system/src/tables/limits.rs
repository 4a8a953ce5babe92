//! Limits, expand-down segments, and rights of segments that are loaded.

use crate::descriptor::{flag, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table};

const SELECTOR: u16 = at::FREE;

/// First and last offset of a segment. 5.3.
fn bounds(limit: u32, down: bool, big: bool) -> (u64, u64) {
    match (down, big) {
        (false, _) => (0, u64::from(limit)),
        (true, true) => (u64::from(limit) + 1, 0xffff_ffff),
        (true, false) => (u64::from(limit) + 1, 0xffff),
    }
}

fn accesses() -> Vec<Row> {
    let mut rows = Vec::new();
    // (limit field, flags)
    let shapes = [
        (0xfff, flag::BIG),
        (0xffe, 0),
        (0, flag::BIG),
        (0, flag::G | flag::BIG),
        (0x1, flag::G),
        (0xffff, 0),
    ];
    for (raw, flags) in shapes {
        for down in [false, true] {
            for (name, opcode, size, write) in [
                ("MOV AL, [EBX]", &[0x8a, 0x03][..], 1u64, false),
                ("MOV [EBX], AL", &[0x88, 0x03], 1, true),
                ("MOV [EBX], AX", &[0x66, 0x89, 0x03], 2, true),
                ("MOV EAX, [EBX]", &[0x8b, 0x03], 4, false),
                ("ADD [EBX], EAX", &[0x01, 0x03], 4, true),
            ] {
                let limit = if flags & flag::G != 0 {
                    raw << 12 | 0xfff
                } else {
                    raw
                };
                let (low, high) = bounds(limit, down, flags & flag::BIG != 0);
                let mut offsets = vec![
                    low,
                    low + 1,
                    (high + 1).saturating_sub(size),
                    (high + 2).saturating_sub(size),
                    high,
                ];
                if low > 0 {
                    offsets.push(low - 1);
                }
                offsets.sort_unstable();
                offsets.dedup();
                for offset in offsets {
                    if offset > 0xffff_ffff {
                        continue;
                    }
                    for stack in [false, true] {
                        let register = if stack { "SS" } else { "DS" };
                        let shape = if down { "down" } else { "up" };
                        let mut row = Row::new(format!("{register} {shape} limit {raw:#x} flags {flags:x}: {name} at {offset:#x}")).cpl(3);
                        // What is inside must be memory: the base brings it there.
                        let base = at::DATA.wrapping_sub(offset as u32).wrapping_add(0x800);
                        let k = if down { kind::DATA_DOWN } else { kind::DATA_W };
                        row.descriptor(SELECTOR, segment(base, raw, k, 3, true, flags));
                        row.gpr[3] = offset as u32;
                        row.gpr[0] = u32::from(SELECTOR | 3);
                        row.put32(at::DATA + 0x800, 0x1122_3344);
                        let prefix: &[u8] = if stack {
                            row.bytes(&[0x8e, 0xd0]); // mov ss, ax
                            &[0x36]
                        } else {
                            row.bytes(&[0x8e, 0xd8]); // mov ds, ax
                            &[]
                        };
                        row.bytes(&[0xb8, 1, 0, 0, 0]); // mov eax, 1
                        let mut bytes = prefix.to_vec();
                        bytes.extend_from_slice(opcode);
                        let eip = row.bytes(&bytes);
                        let inside = offset >= low && offset + size - 1 <= high;
                        if inside {
                            row.ends();
                            if write {
                                let old = 0x1122_3344u32;
                                let new = match size {
                                    1 => old & !0xff | 1,
                                    2 => old & !0xffff | 1,
                                    _ => old + 1,
                                };
                                row.expect(Field::Mem(at::DATA + 0x800), new);
                            } else {
                                let value = if size == 1 { 0x44 } else { 0x1122_3344 };
                                row.expect(Field::Gpr(0), value);
                            }
                        } else {
                            row.stop();
                            row.fault(if stack { 12 } else { 13 }, Some(0), eip);
                            row.expect(Field::Mem(at::DATA + 0x800), 0x1122_3344);
                            row.deviation = Some(deviation::SEGMENT_LIMITS);
                        }
                        rows.push(row);
                    }
                }
            }
        }
    }
    rows
}

/// Rights: 5.5 and 5.6 for what is loaded already.
fn rights() -> Vec<Row> {
    let mut rows = Vec::new();
    for (k, readable, writable) in [
        (kind::DATA_R, true, false),
        (kind::DATA_W, true, true),
        (kind::CODE_R, true, false),
        (kind::CONFORMING, true, false),
    ] {
        for write in [false, true] {
            for (register, load, prefix) in [
                ("DS", 0xd8u8, &[][..]),
                ("ES", 0xc0, &[0x26]),
                ("FS", 0xe0, &[0x64]),
                ("GS", 0xe8, &[0x65]),
            ] {
                let mut row = Row::new(format!(
                    "{register} type {k:#x}: {}",
                    if write { "write" } else { "read" }
                ))
                .cpl(3);
                row.descriptor(SELECTOR, segment(0, 0xf_ffff, k, 3, true, 12));
                row.gpr[0] = u32::from(SELECTOR | 3);
                row.gpr[3] = at::DATA;
                row.bytes(&[0x8e, load]);
                let mut bytes = prefix.to_vec();
                bytes.extend([if write { 0x89 } else { 0x8b }, 0x03]);
                let eip = row.bytes(&bytes);
                if if write { writable } else { readable } {
                    row.ends();
                } else {
                    row.stop();
                    row.fault(13, Some(0), eip);
                    row.deviation = Some(deviation::SEGMENT_LIMITS);
                }
                rows.push(row);
            }
        }
    }
    for (register, load, prefix) in [
        ("DS", 0xd8u8, &[][..]),
        ("ES", 0xc0, &[0x26]),
        ("FS", 0xe0, &[0x64]),
        ("GS", 0xe8, &[0x65]),
    ] {
        for write in [false, true] {
            let mut row = Row::new(format!(
                "{register} null: {}",
                if write { "write" } else { "read" }
            ));
            row.gpr[0] = 0;
            row.gpr[3] = at::DATA;
            row.bytes(&[0x8e, load]);
            let mut bytes = prefix.to_vec();
            bytes.extend([if write { 0x89 } else { 0x8b }, 0x03]);
            let eip = row.bytes(&bytes);
            row.stop();
            row.fault(13, Some(0), eip);
            row.deviation = Some(deviation::SEGMENT_LIMITS);
            rows.push(row);
        }
    }
    for (what, bytes) in [
        ("write through CS", &[0x2e, 0x89, 0x03][..]),
        ("read through execute-only CS", &[0x2e, 0x8b, 0x03]),
    ] {
        let mut row = Row::new(what).cpl(3);
        row.descriptor(
            SELECTOR,
            segment(0, 0xf_ffff, kind::CODE_X | 1, 3, true, 12),
        );
        if what.contains("execute-only") {
            row.cs = SELECTOR | 3;
        }
        row.gpr[3] = at::DATA;
        let eip = row.bytes(bytes);
        row.stop();
        row.fault(13, Some(0), eip);
        row.deviation = Some(deviation::SEGMENT_LIMITS);
        rows.push(row);
    }
    rows
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        Table::new("limits", "SDM 3A 5.3, 3.4.5.1", accesses()),
        Table::new("segment-rights", "SDM 3A 5.4.1, 5.5, 3.4.5.1", rights()),
    ]
}
