//! Translations that change: INVLPG, CR3, CR4.PGE, CR0.PG and global pages.
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

/// What INVLPG takes, and what needs no invalidation: rights that control registers grant, D after A.
/// 4.10.4.1; vol. 2, INVLPG.
fn details() -> Vec<Row> {
    let mut rows = Vec::new();
    // Any address of a large page drops all of it.
    for pae in [false, true] {
        for offset in [0u32, 0x1000, 0x1f_f000] {
            let mut row = Row::new(format!("INVLPG of {offset:#x} in a large page, PAE {pae}"));
            row = if pae { row.pae() } else { row.paging() };
            row.cr4 |= PSE | PGE;
            let size = if pae { 0x20_0000 } else { 0x40_0000u32 };
            let entry = if pae {
                at::PAE_PD + 0x1000
            } else {
                at::PD + 0x400
            };
            row.put32(entry, at::DATA & !(size - 1) | 0x183);
            let inside = at::DATA & (size - 1);
            row.put32(at::DATA, 0x1111_1111);
            row.put32(inside, 0x2222_2222);
            row.gpr[3] = at::TEST + inside;
            row.gpr[6] = at::TEST + offset;
            row.bytes(&[0x8b, 0x0b]); // mov ecx, [ebx]
            row.asm(|a| a.mov(dword_ptr(entry), 0x183));
            row.bytes(&[0x0f, 0x01, 0x3e]); // invlpg [esi]
            row.bytes(&[0x8b, 0x03]);
            row.ends();
            row.expect(Field::Gpr(1), 0x1111_1111);
            row.expect(Field::Gpr(0), 0x2222_2222);
            rows.push(row);
        }
    }
    // It accesses nothing: no fault for an absent page, nor without paging.
    for paged in [false, true] {
        let mut row = Row::new(format!("INVLPG of an absent page, paging {paged}"));
        if paged {
            row = row.paging();
        }
        row.gpr[3] = at::TEST + 0x5000;
        row.bytes(&[0x0f, 0x01, 0x3b]);
        row.ends();
        rows.push(row);
    }
    // The segment's base counts.
    let mut row = Row::new("INVLPG through a based segment").paging();
    row.descriptor(
        at::FREE,
        segment(at::TEST, 0xf_ffff, kind::DATA_W | 1, 0, true, 12),
    );
    row.data[2] = at::FREE;
    row.put32(at::PT, at::DATA | 3);
    row.put32(at::DATA, 0x1111_1111);
    row.put32(at::DATA + 0x1000, 0x2222_2222);
    row.gpr[3] = at::TEST;
    row.gpr[6] = 0;
    row.bytes(&[0x8b, 0x0b]);
    row.asm(|a| a.mov(dword_ptr(at::PT), (at::DATA + 0x1003) as i32));
    row.bytes(&[0x64, 0x0f, 0x01, 0x3e]); // invlpg fs:[esi]
    row.bytes(&[0x8b, 0x03]);
    row.ends();
    row.expect(Field::Gpr(1), 0x1111_1111);
    row.expect(Field::Gpr(0), 0x2222_2222);
    rows.push(row);
    // Without CR4.PGE, G means nothing: MOV to CR3 drops the page.
    let mut row = Row::new("MOV CR3 without PGE, G set").paging();
    row.put32(at::PT, at::DATA | 0x103);
    row.put32(at::DATA, 0x1111_1111);
    row.put32(at::DATA + 0x1000, 0x2222_2222);
    row.gpr[3] = at::TEST;
    row.bytes(&[0x8b, 0x0b]);
    row.asm(|a| a.mov(dword_ptr(at::PT), (at::DATA + 0x1103) as i32));
    row.bytes(&[0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x8b, 0x03]);
    row.ends();
    row.expect(Field::Gpr(0), 0x2222_2222);
    rows.push(row);
    // Another directory: what was seen through the old one is gone. The row's own pages stay.
    let mut row = Row::new("MOV CR3 to another directory").paging();
    let other = at::DATA + 0x1000;
    row.put32(at::PT, at::DATA | 3);
    for n in 0..2u32 {
        row.put32(other + n * 4, (at::IDENTITY + n * 0x1000) | 7);
    }
    row.gpr[3] = at::TEST;
    row.gpr[1] = other;
    row.bytes(&[0x8b, 0x03, 0x0f, 0x22, 0xd9]); // mov cr3, ecx
    let eip = row.bytes(&[0x8b, 0x03]);
    row.stop();
    row.fault(14, Some(0), eip);
    row.expect(Field::Cr3, other);
    rows.push(row);
    // CR0.WP counts at each access (4.6.1), whatever was cached.
    for on in [true, false] {
        let mut row = Row::new(format!("CR0.WP turned {}", if on { "on" } else { "off" }));
        row = row.paging();
        row.cr0 |= if on { 0 } else { 1 << 16 };
        row.put32(at::PT, at::DATA | 0x61);
        row.gpr[3] = at::TEST;
        row.bytes(&[0x8b, 0x0b]);
        if on {
            row.bytes(&[0x89, 0x0b]); // allowed so far
        }
        row.bytes(&[0x0f, 0x20, 0xc0, 0x0f, 0xba, 0xf8, 0x10, 0x0f, 0x22, 0xc0]); // btc eax, 16
        let eip = row.bytes(&[0x89, 0x0b]);
        if on {
            row.stop();
            row.fault(14, Some(3), eip);
        } else {
            row.ends();
        }
        rows.push(row);
    }
    rows
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        Table::new("invalidation", "SDM 3A 4.10.2-4.10.4", translations()),
        Table::new(
            "invlpg",
            "SDM 3A 4.6.1, 4.10.2.4, 4.10.4; vol. 2, INVLPG",
            details(),
        ),
    ]
}
