//! Who may use which ports: IOPL and the I/O permission bitmap.

use crate::descriptor::{kind, segment};
use crate::layout as at;
use crate::row::{Row, Table};

/// Vol. 1, 19.5.2: who may use which ports.
fn ports() -> Vec<Row> {
    let mut rows = Vec::new();
    // (what, cpl, iopl, v86, allowed without a bitmap)
    for (v86, cpl) in [(false, 0u8), (false, 1), (false, 2), (false, 3), (true, 3)] {
        for iopl in 0..4u32 {
            for (open, map) in [("open", 0u8), ("closed", 0xff)] {
                for size in [1u32, 2, 4] {
                    let mode = if v86 {
                        "V8086".to_owned()
                    } else {
                        format!("ring {cpl}")
                    };
                    let mut row = Row::new(format!("IN of {size}: {mode} IOPL {iopl}, map {open}"));
                    row = if v86 { row.v86(iopl) } else { row.cpl(cpl) };
                    row.eflags |= iopl << 12;
                    row.descriptor(at::TSS_SEL, segment(at::TSS, 0xff, kind::TSS32, 0, true, 0));
                    row.put(at::TSS + 0x68, &[map; 0x98]);
                    row.gpr[2] = 0x80;
                    let bytes: &[u8] = match (size, v86) {
                        (1, _) => &[0xec],
                        (2, false) | (4, true) => &[0x66, 0xed],
                        _ => &[0xed],
                    };
                    let eip = row.bytes(bytes);
                    let allowed = !v86 && u32::from(cpl) <= iopl || map == 0;
                    if allowed {
                        row.ends();
                    } else {
                        row.stop();
                        row.fault(13, Some(0), eip);
                    }
                    rows.push(row);
                }
            }
        }
    }
    // Each bit that an access covers, and the end of the map by the TSS's limit.
    for size in [1u32, 2, 4] {
        for closed in [0x7fu32, 0x80, 0x81, 0x82, 0x83, 0x84] {
            let mut row = Row::new(format!("OUT of {size} to 80h: port {closed:#x} closed")).cpl(3);
            row.descriptor(at::TSS_SEL, segment(at::TSS, 0xff, kind::TSS32, 0, true, 0));
            let mut map = [0u8; 0x98];
            map[(closed / 8) as usize] = 1 << (closed % 8);
            row.put(at::TSS + 0x68, &map);
            row.gpr[2] = 0x80;
            let eip = row.bytes(match size {
                1 => &[0xee],
                2 => &[0x66, 0xef],
                _ => &[0xef],
            });
            if (0x80..0x80 + size).contains(&closed) {
                row.stop();
                row.fault(13, Some(0), eip);
            } else {
                row.ends();
            }
            rows.push(row);
        }
        // The byte after the port's is read too.
        for (limit, inside) in [(0x79u32, true), (0x78, false), (0x77, false), (0x67, false)] {
            let mut row = Row::new(format!("OUT of {size} to 80h: TSS limit {limit:#x}")).cpl(3);
            row.descriptor(
                at::TSS_SEL,
                segment(at::TSS, limit, kind::TSS32, 0, true, 0),
            );
            row.gpr[2] = 0x80;
            let eip = row.bytes(match size {
                1 => &[0xee],
                2 => &[0x66, 0xef],
                _ => &[0xef],
            });
            if inside {
                row.ends();
            } else {
                row.stop();
                row.fault(13, Some(0), eip);
            }
            rows.push(row);
        }
    }
    let mut row = Row::new("a 16-bit TSS has no map").cpl(3);
    row.descriptor(at::TSS_SEL, segment(at::TSS, 0xff, kind::TSS16, 0, true, 0));
    row.put(at::TSS + 2, &[0, 0x8, 0x10, 0]); // ring 0: 0010:0800
    row.put(at::TSS + 0x66, &[0x68, 0]);
    row.gpr[2] = 0x80;
    let eip = row.bytes(&[0xee]);
    row.stop();
    row.fault(13, Some(0), eip);
    rows.push(row);
    rows
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![Table::new(
        "io-bitmap",
        "SDM vol. 1, 19.5.1, 19.5.2",
        ports(),
    )]
}
