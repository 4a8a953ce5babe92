//! Translations that change: INVLPG, CR3, CR4.PGE and global pages; code that changes itself or is
//! changed through another address; the I/O permission bitmap.
//!
//! Only what the manual demands is expected: that a translation which was not invalidated is still
//! used is allowed, not required (4.10.2, 4.10.4).

use crate::descriptor::{kind, segment};
use crate::layout as at;
use crate::row::{Field, PGE, PSE, Row, Table};
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, al, byte_ptr, cr0, cr3, cr4, dword_ptr, eax, ebx, ecx};

type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Ways to invalidate, and whether each drops global pages. 4.10.4.1.
const INVALIDATIONS: [(&str, Emit, bool); 4] = [
    ("INVLPG", |a| a.invlpg(byte_ptr(ebx)), true),
    (
        "MOV CR3",
        |a| {
            a.mov(eax, cr3)?;
            a.mov(cr3, eax)
        },
        false,
    ),
    (
        "CR4.PGE",
        |a| {
            a.mov(eax, cr4)?;
            a.xor(eax, PGE as i32)?;
            a.mov(cr4, eax)?;
            a.xor(eax, PGE as i32)?;
            a.mov(cr4, eax)
        },
        true,
    ),
    (
        "CR0.PG",
        |a| {
            a.mov(eax, cr0)?;
            a.btc(eax, 31)?;
            a.mov(cr0, eax)?;
            a.btc(eax, 31)?;
            a.mov(cr0, eax)
        },
        true,
    ),
];

fn translations() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, invalidate, drops_global) in INVALIDATIONS {
        for pae in [false, true] {
            for global in [false, true] {
                for large in [false, true] {
                    if global && !drops_global {
                        continue;
                    }
                    for change in ["frame", "absent", "writable"] {
                        let style = if pae { "PAE" } else { "32-bit" };
                        let shape = if large { "large" } else { "small" };
                        let mut row = Row::new(format!(
                            "{name}: {style}, {shape}, global {global}, {change}"
                        ));
                        row = if pae { row.pae() } else { row.paging() };
                        row.cr0 |= 1 << 16;
                        row.cr4 |= PSE | PGE;
                        let flags = 1
                            | if change == "writable" { 0 } else { 2 }
                            | if global { 0x100 } else { 0 };
                        // Large pages: at 6 MiB (DATA) and at 0.
                        let size = if pae { 0x20_0000 } else { 0x40_0000 };
                        let (first, second, entry) = match (large, pae) {
                            (false, false) => (at::DATA, at::DATA + 0x1000, at::PT),
                            (false, true) => (at::DATA, at::DATA + 0x1000, at::PAE_PT),
                            (true, false) => (at::DATA & !(size - 1), 0, at::PD + 0x400),
                            (true, true) => (at::DATA & !(size - 1), 0, at::PAE_PD + 0x1000),
                        };
                        let bits = flags | if large { 0x80 } else { 0 };
                        row.put32(entry, first | bits);
                        let offset = at::DATA & if large { size - 1 } else { 0xfff };
                        row.put32(at::DATA, 0x1111_1111);
                        row.put32(second + offset, 0x2222_2222);
                        row.gpr[3] = at::TEST + offset;
                        // Read it, so that it is known; then change the entry.
                        row.asm(|a| a.mov(ecx, dword_ptr(ebx)));
                        let new = match change {
                            "frame" => second | bits,
                            "absent" => 0,
                            _ => first | bits | 2,
                        };
                        row.asm(|a| a.mov(dword_ptr(entry), new));
                        row.asm(invalidate);
                        match change {
                            "frame" => {
                                row.asm(|a| a.mov(eax, dword_ptr(ebx)));
                                row.ends();
                                row.expect(Field::Gpr(0), 0x2222_2222);
                            }
                            "absent" => {
                                let eip = row.asm(|a| a.mov(eax, dword_ptr(ebx)));
                                row.stop();
                                row.fault(14, Some(0), eip);
                            }
                            _ => {
                                row.asm(|a| a.mov(byte_ptr(ebx), al));
                                row.ends();
                            }
                        }
                        row.expect(Field::Gpr(1), 0x1111_1111);
                        rows.push(row);
                    }
                }
            }
        }
        // Code.
        let mut row = Row::new(format!("{name}: the page that code is fetched from")).paging();
        row.cr4 |= PSE | PGE;
        row.put32(at::PT, at::DATA | 7);
        row.put(at::DATA, &[0xb8, 1, 0, 0, 0, 0xc3]); // mov eax, 1; ret
        row.put(at::DATA + 0x1000, &[0xb8, 2, 0, 0, 0, 0xc3]);
        row.gpr[3] = at::TEST;
        row.asm(|a| a.call(ebx));
        row.asm(|a| a.mov(ecx, eax));
        row.asm(|a| a.mov(dword_ptr(at::PT), at::DATA as i32 + 0x1007));
        row.asm(invalidate);
        row.asm(|a| a.call(ebx));
        row.ends();
        row.expect(Field::Gpr(1), 1);
        row.expect(Field::Gpr(0), 2);
        rows.push(row);
    }
    // What was absent needs no invalidation, and D is set by the first write after a read.
    let mut row = Row::new("an entry that becomes present").paging();
    row.gpr[3] = at::TEST;
    row.put32(at::DATA, 0x1234_5678);
    row.asm(|a| a.mov(dword_ptr(at::PT), (at::DATA | 7) as i32));
    row.asm(|a| a.mov(eax, dword_ptr(ebx)));
    row.ends();
    row.expect(Field::Gpr(0), 0x1234_5678);
    rows.push(row);
    for cpl in [0u8, 3] {
        let mut row = Row::new(format!("D after A, ring {cpl}")).cpl(cpl).paging();
        row.put32(at::PT, at::DATA | 7);
        row.gpr[3] = at::TEST;
        row.asm(|a| a.mov(eax, dword_ptr(ebx)));
        row.asm(|a| a.mov(dword_ptr(ebx), eax));
        row.ends();
        row.expect_bits(Field::Mem(at::PT), 0x60, 0x60);
        rows.push(row);
    }
    rows
}

/// 8.1.3, 11.6: what was written is executed.
fn changing_code() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in [0u8, 3] {
        let new = |name: &str| Row::new(format!("{name}, ring {cpl}")).cpl(cpl);
        // The next instruction's immediate.
        let mut row = new("the next instruction");
        let at_next = at::CODE + 10;
        row.asm(|a| a.mov(dword_ptr(at_next + 1), 0x77));
        row.asm(|a| a.mov(eax, 1));
        row.ends();
        row.expect(Field::Gpr(0), 0x77);
        rows.push(row);
        // An instruction that has run already, in a loop.
        let mut row = new("a loop that changes its body");
        row.gpr[1] = 3;
        row.gpr[0] = 0;
        let body = row.bytes(&[0x83, 0xc0, 1]); // add eax, 1
        row.asm(|a| a.inc(byte_ptr(body + 2)));
        let back = row.here();
        row.bytes(&[0xe2, (body.wrapping_sub(back + 2)) as u8]);
        row.ends();
        row.expect(Field::Gpr(0), 1 + 2 + 3);
        rows.push(row);
        // A function called before and after.
        let mut row = new("a function between two calls");
        row.put(at::TARGET, &[0xb8, 1, 0, 0, 0, 0xc3]);
        row.gpr[3] = at::TARGET;
        row.asm(|a| a.call(ebx));
        row.asm(|a| a.mov(ecx, eax));
        row.asm(|a| a.mov(byte_ptr(at::TARGET + 1), 9));
        row.asm(|a| a.call(ebx));
        row.ends();
        row.expect(Field::Gpr(1), 1);
        row.expect(Field::Gpr(0), 9);
        rows.push(row);
        // By a string instruction that overwrites what follows it.
        let mut row = new("REP STOSB over the code that follows");
        row.gpr[1] = 4;
        row.gpr[0] = 0x40; // inc eax
        row.gpr[7] = at::CODE + 2;
        row.bytes(&[0xf3, 0xaa]);
        row.bytes(&[0x0f, 0x0b, 0x0f, 0x0b]);
        row.ends();
        row.expect(Field::Gpr(0), 0x44);
        rows.push(row);
        // Through another linear address of the same page.
        let mut row = new("through another linear address").paging();
        row.put32(at::PT, at::TARGET | 7);
        row.put(at::TARGET, &[0xb8, 1, 0, 0, 0, 0xc3]);
        row.gpr[3] = at::TARGET;
        row.asm(|a| a.call(ebx));
        row.asm(|a| a.mov(ecx, eax));
        row.asm(|a| a.mov(byte_ptr(at::TEST + 1), 9));
        row.asm(|a| a.call(ebx));
        row.ends();
        row.expect(Field::Gpr(1), 1);
        row.expect(Field::Gpr(0), 9);
        rows.push(row);
        // An instruction across two pages, whose second half changes.
        let mut row = new("the second page of an instruction");
        row.put(at::TARGET + 0xffd, &[0xb8, 1, 2, 3, 4, 0xc3]);
        row.gpr[3] = at::TARGET + 0xffd;
        row.asm(|a| a.call(ebx));
        row.asm(|a| a.mov(ecx, eax));
        row.asm(|a| a.mov(byte_ptr(at::TARGET + 0x1001), 9));
        row.asm(|a| a.call(ebx));
        row.ends();
        row.expect(Field::Gpr(1), 0x0403_0201);
        row.expect(Field::Gpr(0), 0x0903_0201);
        rows.push(row);
        // PUSH onto the code that follows. Ring 0 was entered by way of that stack.
        if cpl == 3 {
            let mut row = new("PUSH over the code that follows");
            row.gpr[0] = 0x9090_9043; // inc ebx, nop, nop, nop
            row.gpr[3] = 7;
            row.gpr[4] = at::CODE + 5;
            row.bytes(&[0x50, 0x0f, 0x0b, 0x0f, 0x0b]);
            row.ends();
            row.expect(Field::Gpr(3), 8);
            rows.push(row);
        }
    }
    rows
}

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

/// The table.
pub fn table() -> Table {
    let mut rows = translations();
    rows.extend(changing_code());
    rows.extend(ports());
    Table {
        name: "memory",
        source: "SDM 3A 4.10, 8.1.3, 11.6; vol. 1, 19.5.2",
        rows,
    }
}
