//! Where addresses wrap: at 64 KiB, at 1 MiB (A20) and 4 GiB.

use crate::descriptor::{kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table};

const SELECTOR: u16 = at::FREE;

/// 64 KiB: 16-bit addresses, stacks and instruction pointers. Vol. 1, 3.3, 6.2; 3B 20.1.1, 21.
fn wrap_64k() -> Vec<Row> {
    let mut rows = Vec::new();
    for real in [true, false] {
        let new = |name: &str| {
            let mode = if real { "real" } else { "V8086" };
            let row = Row::new(format!("{mode}: {name}"));
            if real { row.real_mode() } else { row.v86(3) }
        };
        let error = (!real).then_some(0);
        for (name, bytes, vector) in [
            ("a word at FFFF", &[0xa1, 0xff, 0xff][..], 13u8),
            ("a dword at FFFD", &[0x66, 0xa1, 0xfd, 0xff], 13),
            ("a word of the stack at FFFF", &[0x36, 0xa1, 0xff, 0xff], 12),
            (
                "an address of 32 bits beyond 64 KiB",
                &[0x67, 0x66, 0xa1, 0, 0, 1, 0],
                13,
            ),
            ("a word written at FFFF", &[0xa3, 0xff, 0xff], 13),
        ] {
            let mut row = new(name);
            let eip = row.bytes(bytes);
            row.stop();
            row.fault(vector, error, eip);
            row.deviation = Some(deviation::SEGMENT_LIMITS);
            rows.push(row);
        }
        // Effective addresses are modulo 64 KiB.
        let mut row = new("BX + SI wraps");
        row.gpr[3] = 0xfff0;
        row.gpr[6] = 0x0030;
        row.put32(at::LOW_DATA + 0x20, 0x4711);
        row.bytes(&[0x8b, 0x00]); // mov ax, [bx+si]
        row.ends();
        row.expect_bits(Field::Gpr(0), 0xffff, 0x4711);
        rows.push(row);
        // The last byte and the last word are there.
        let mut row = new("a byte at FFFF");
        row.put(at::LOW_DATA + 0xfffc, &[1, 2, 3, 4]);
        row.bytes(&[0xa0, 0xff, 0xff]);
        row.ends();
        row.expect_bits(Field::Gpr(0), 0xff, 4);
        rows.push(row);
        // PUSH with SP = 0 goes to FFFE; with SP = 1 it would cross the end.
        let mut row = new("PUSH with SP 0");
        row.gpr[4] = 0x5555_0000;
        if real {
            row.gpr[4] = 0;
        }
        row.gpr[0] = 0x1234;
        row.bytes(&[0x50]);
        row.bytes(&[0xbc, 0x00, 0x80]); // mov sp, 8000h
        row.ends();
        row.watches.push((at::LOW_STACK + 0xfffe, 2));
        row.expect(Field::Mem(at::LOW_STACK + 0xfffe), 0x1234);
        rows.push(row);
        let mut row = new("POP with SP FFFE");
        row.put(at::LOW_STACK + 0xfffe, &[0x34, 0x12]);
        row.bytes(&[0xbc, 0xfe, 0xff]);
        row.bytes(&[0x58, 0x89, 0xe3]); // pop ax; mov bx, sp
        row.bytes(&[0xbc, 0x00, 0x80]);
        row.ends();
        row.expect_bits(Field::Gpr(0), 0xffff, 0x1234);
        row.expect_bits(Field::Gpr(3), 0xffff, 0);
        rows.push(row);
        // IP: a jump of 16 bits is modulo 64 KiB; running off the end is not.
        let mut row = new("JMP below 0 wraps");
        row.put(at::LOW_CODE + 0xfff0, &[0x0f, 0x0b]);
        row.bytes(&[0xe9, 0xed, 0xff]); // to FFF0
        row.fault(6, None, 0xfff0);
        rows.push(row);
        let mut row = new("running off the end of the segment");
        row.put(at::LOW_CODE + 0xfff0, &[0x90; 16]);
        row.put(at::LOW_CODE + 0x1_0000, &[0x0f, 0x0b]);
        row.bytes(&[0xe9, 0xed, 0xff]);
        row.fault(13, error, if real { 0 } else { 0x1_0000 });
        row.deviation = Some(deviation::SEGMENT_LIMITS);
        rows.push(row);
        let mut row = new("an instruction across the end of the segment");
        row.put(at::LOW_CODE + 0xfffe, &[0xb8, 0x0f, 0x0b, 0x0f, 0x0b]);
        row.bytes(&[0xe9, 0xfb, 0xff]); // to FFFE
        row.fault(13, error, 0xfffe);
        row.deviation = Some(deviation::SEGMENT_LIMITS);
        rows.push(row);
        // String instructions wrap SI and DI after their access.
        let mut row = new("REP MOVSB across the end");
        row.gpr[6] = 0xfffe;
        row.gpr[7] = 0x10;
        row.gpr[1] = 4;
        row.put(at::LOW_DATA + 0xfffc, &[0, 0, 0xaa, 0xbb]);
        row.put(at::LOW_DATA, &[0xcc, 0xdd]);
        row.bytes(&[0xf3, 0xa4]);
        row.ends();
        row.expect(Field::Mem(at::LOW_DATA + 0x10), 0xddcc_bbaa);
        row.expect_bits(Field::Gpr(6), 0xffff, 2);
        rows.push(row);
    }
    rows
}

/// Sets both of the gate's controls: the keyboard controller's output port and port 92h.
fn a20_gate(row: &mut Row, open: bool) {
    let bit = if open { 2 } else { 0 };
    row.bytes(&[0xb0, 0xd1, 0xe6, 0x64, 0xb0, 0xdd | bit, 0xe6, 0x60]);
    row.bytes(&[0xb0, bit, 0xe6, 0x92]);
}

/// 1 MiB: FFFF:0010 and the gate of address line 20. Port 92h, bit 1.
fn a20() -> Vec<Row> {
    let mut rows = Vec::new();
    for open in [true, false] {
        for (name, real) in [
            ("real mode", true),
            ("ring 0 without paging", false),
            ("ring 0 with paging", false),
        ] {
            let mut row = Row::new(format!(
                "A20 {}: {name}",
                if open { "open" } else { "closed" }
            ));
            let paged = name.ends_with("with paging");
            row = match (real, paged) {
                (true, _) => row.real_mode(),
                (false, true) => row.paging(),
                (false, false) => row,
            };
            // 0005xx below, and the same 1 MiB higher.
            row.put32(0x0600, 0x0000_1111);
            row.put32(0x10_0600, 0x0000_2222);
            if paged {
                row.put32(at::PT, 0x10_0007);
                row.put32(at::PT + 4, 0x0000_0007);
            }
            a20_gate(&mut row, open);
            if real {
                row.bytes(&[0xb8, 0xff, 0xff, 0x8e, 0xc0]); // mov ax, ffff; mov es, ax
                row.bytes(&[0x26, 0x8b, 0x1e, 0x10, 0x06]); // mov bx, es:[0610h]: 100600h
            } else {
                let at_high = if paged { at::TEST + 0x600 } else { 0x10_0600 };
                row.bytes(&[0x8b, 0x1d]);
                row.bytes(&at_high.to_le_bytes());
            }
            row.bytes(&[0xb0, 2, 0xe6, 0x92]);
            row.ends();
            row.expect_bits(Field::Gpr(3), 0xffff, if open { 0x2222 } else { 0x1111 });
            rows.push(row);
            // Writing.
            let mut row = Row::new(format!(
                "A20 {}: writing, {name}",
                if open { "open" } else { "closed" }
            ));
            row = match (real, paged) {
                (true, _) => row.real_mode(),
                (false, true) => row.paging(),
                (false, false) => row,
            };
            row.put32(0x0600, 0x0000_1111);
            row.put32(0x10_0600, 0x0000_2222);
            if paged {
                row.put32(at::PT, 0x10_0007);
            }
            row.gpr[3] = 0x3333;
            a20_gate(&mut row, open);
            if real {
                row.bytes(&[0xb8, 0xff, 0xff, 0x8e, 0xc0]);
                row.bytes(&[0x26, 0x89, 0x1e, 0x10, 0x06]);
            } else {
                let at_high = if paged { at::TEST + 0x600 } else { 0x10_0600 };
                row.bytes(&[0x66, 0x89, 0x1d]);
                row.bytes(&at_high.to_le_bytes());
            }
            row.bytes(&[0xb0, 2, 0xe6, 0x92]);
            row.ends();
            row.expect(Field::Mem(0x0600), if open { 0x1111 } else { 0x3333 });
            row.expect(Field::Mem(0x10_0600), if open { 0x3333 } else { 0x2222 });
            rows.push(row);
        }
    }
    rows
}

/// 4 GiB: base plus offset is modulo 2^32. 3.4.3; vol. 1, 3.3.
fn wrap_4g() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in [0u8, 3] {
        let mut row = Row::new(format!("base plus offset wraps, ring {cpl}")).cpl(cpl);
        row.descriptor(
            SELECTOR,
            segment(0xffff_f000, 0xf_ffff, kind::DATA_W, 3, true, 12),
        );
        row.gpr[0] = u32::from(SELECTOR | 3);
        row.gpr[3] = at::DATA + 0x1000;
        row.put32(at::DATA, 0x1357_9bdf);
        row.bytes(&[0x8e, 0xd8, 0x8b, 0x03]);
        row.ends();
        row.expect(Field::Gpr(0), 0x1357_9bdf);
        rows.push(row);
        let mut row = Row::new(format!("the sum of an address wraps, ring {cpl}")).cpl(cpl);
        row.gpr[3] = at::DATA.wrapping_add(0x1000);
        row.gpr[6] = 0xffff_f000;
        row.put32(at::DATA, 0x1357_9bdf);
        row.bytes(&[0x8b, 0x04, 0x33]); // mov eax, [ebx+esi]
        row.ends();
        row.expect(Field::Gpr(0), 0x1357_9bdf);
        rows.push(row);
        let mut row = Row::new(format!("a code segment's base wraps, ring {cpl}")).cpl(cpl);
        row.descriptor(
            SELECTOR,
            segment(0xf000_0000, 0xf_ffff, kind::CODE_R, cpl, true, 12),
        );
        let offset = at::TARGET.wrapping_sub(0xf000_0000);
        row.put(at::TARGET, &[0x0f, 0x0b]);
        row.bytes(&[0xea]);
        row.bytes(&offset.to_le_bytes());
        row.bytes(&(SELECTOR | u16::from(cpl)).to_le_bytes());
        row.fault(6, None, offset);
        rows.push(row);
        // Two pages, the last and the first of the linear space, read as one dword through a
        // segment whose limit does not end between them.
        let mut row = Row::new(format!("a dword across 4 GiB, ring {cpl}"))
            .cpl(cpl)
            .paging();
        row.descriptor(
            SELECTOR,
            segment(0xffff_0000, 0xf_ffff, kind::DATA_W, 3, true, 12),
        );
        row.put32(at::PD + 0xffc, at::PT | 7);
        row.put32(at::PT + 0xffc, at::DATA | 7);
        row.put32(at::IDENTITY, (at::DATA + 0x1000) | 0x67);
        row.put(at::DATA + 0xffe, &[0x11, 0x22, 0x33, 0x44]);
        row.gpr[0] = u32::from(SELECTOR | 3);
        row.gpr[3] = 0xfffe;
        row.bytes(&[0x8e, 0xd8, 0x8b, 0x03]);
        row.ends();
        row.expect(Field::Gpr(0), 0x4433_2211);
        rows.push(row);
    }
    rows
}

/// The last and the first page of the linear space: instructions and operands across 4 GiB, through
/// segments that do not end there. Vol. 1, 3.3; 3A 3.4, 4.
fn across_4g() -> Vec<Row> {
    let mut rows = Vec::new();
    let first = at::DATA + 0x1000;
    for cpl in [0u8, 3] {
        let new = |name: &str| {
            let mut row = Row::new(format!("{name}, ring {cpl}")).cpl(cpl).paging();
            // Linear FFFFF000: DATA. Linear 0: the page after it.
            row.put32(at::PD + 0xffc, at::PT | 7);
            row.put32(at::PT + 0xffc, at::DATA | 7);
            row.put32(at::IDENTITY, first | 0x67);
            row.descriptor(
                SELECTOR,
                segment(0xffff_0000, 0xf_ffff, kind::DATA_W | 1, cpl, true, 12),
            );
            row.descriptor(
                SELECTOR + 8,
                segment(0xffff_0000, 0xf_ffff, kind::CODE_R | 1, cpl, true, 12),
            );
            row.data[0] = SELECTOR | u16::from(cpl);
            row.data[1] = row.data[0];
            row
        };
        let end = at::DATA + 0x1000;
        for size in [2u32, 4, 8, 10, 16] {
            for below in 1..size.min(5) {
                let (read, write): (&[u8], &[u8]) = match size {
                    2 => (&[0x66, 0x8b, 0x03], &[0x66, 0x89, 0x06]),
                    4 => (&[0x8b, 0x03], &[0x89, 0x06]),
                    8 => (&[0xdf, 0x2b], &[0xdf, 0x3e]), // fild, fistp
                    10 => (&[0xdb, 0x2b], &[0xdb, 0x3e]), // fld, fstp
                    _ => (&[0x0f, 0x10, 0x03], &[0x0f, 0x11, 0x06]),
                };
                // From below the end to elsewhere, and back to the end by the same bytes.
                for out in [false, true] {
                    let what = if out { "written" } else { "read" };
                    let mut row = new(&format!("{size} bytes {what}, {below} below the end"));
                    row.cr4 |= 0x200;
                    let pattern: Vec<u8> = (1..=16).collect();
                    let crossing = 0x1_0000 - below;
                    // Elsewhere, beyond what crosses: in the last page too.
                    let elsewhere = 0xf100;
                    let (from, to) = if out {
                        (elsewhere, crossing)
                    } else {
                        (crossing, elsewhere)
                    };
                    let linear = |offset: u32| {
                        if offset == crossing {
                            end - below
                        } else {
                            at::DATA + 0x100
                        }
                    };
                    let bytes = &pattern[..size as usize];
                    row.put(linear(from), bytes);
                    row.gpr[3] = from;
                    row.gpr[6] = to;
                    row.bytes(read);
                    row.bytes(write);
                    row.ends();
                    let place = linear(to);
                    row.watches.push((place, size));
                    for (n, part) in bytes.chunks(4).enumerate() {
                        let mut raw = [0; 4];
                        raw[..part.len()].copy_from_slice(part);
                        row.expect(Field::Mem(place + n as u32 * 4), u32::from_le_bytes(raw));
                    }
                    rows.push(row);
                }
            }
        }
        // REP MOVSB runs across.
        let mut row = new("REP MOVSB across the end");
        row.put(end - 3, &[1, 2, 3, 4, 5, 6]);
        row.gpr[1] = 6;
        row.gpr[6] = 0xfffd;
        row.gpr[7] = 0xf100;
        row.bytes(&[0xf3, 0xa4]);
        row.ends();
        row.expect(Field::Mem(at::DATA + 0x100), 0x0403_0201);
        row.expect(Field::Gpr(6), 0x1_0003);
        rows.push(row);
        // An instruction across, and the one after it at linear 0.
        for below in 1..6u32 {
            let mut row = new(&format!("an instruction {below} bytes below the end"));
            row.put(end - below, &[0xb8, 1, 2, 3, 4, 0x0f, 0x0b]);
            let selector = SELECTOR + 8 + u16::from(cpl);
            row.bytes(&[0xea]);
            row.bytes(&(0x1_0000 - below).to_le_bytes());
            row.bytes(&selector.to_le_bytes());
            row.fault(6, None, 0x1_0000 - below + 5);
            row.expect(Field::Gpr(0), 0x0403_0201);
            rows.push(row);
        }
        // A page fault tells the first byte that is missing: linear 0.
        let mut row = new("the first page is absent");
        row.put32(at::IDENTITY, 0);
        row.gpr[3] = 0xfffe;
        let eip = row.bytes(&[0x8b, 0x03]);
        row.stop();
        row.fault(14, Some(if cpl == 3 { 4 } else { 0 }), eip);
        row.expect(Field::Cr2, 0);
        rows.push(row);
    }
    rows
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        Table::new("wrap-64k", "SDM vol. 1, 3.3; 3B 20.1.1, 21.34", wrap_64k()),
        Table::new("wrap-1m", "SDM 3A 8.7.13.4 (A20M#); 3B 20.1.1", a20()),
        Table::new("wrap-4g", "SDM vol. 1, 3.3; 3A 3.4", {
            let mut rows = wrap_4g();
            rows.extend(across_4g());
            rows
        }),
    ]
}
