//! Paging: rights, error codes, accessed and dirty bits, reserved bits.

use crate::deviation;
use crate::layout as at;
use crate::row::{Field, NXE, PGE, PSE, Row, Table, WP};
use iced_x86::code_asm::{al, byte_ptr, ebx, ecx};

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const G: u64 = 0x100;
const NX: u64 = 1 << 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Modify,
    Fetch,
}

const ACCESSES: [Access; 4] = [Access::Read, Access::Write, Access::Modify, Access::Fetch];

/// How addresses are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Bits32,
    Pae,
}

/// One combination.
#[derive(Clone, Copy, Debug)]
struct Case {
    style: Style,
    /// CR0.WP, EFER.NXE, CR4.PGE, CR4.SMEP.
    wp: bool,
    nxe: bool,
    pge: bool,
    smep: bool,
    user: bool,
    access: Access,
    /// Entries as they lie in memory, without the address; the second is absent for large pages.
    pde: u64,
    pte: Option<u64>,
}

/// What the manual says of it: the error code of a page fault, or none. 4.6 and 4.7.
fn fault(c: &Case) -> Option<u32> {
    let nx_on = c.style == Style::Pae && c.nxe;
    let entries: Vec<u64> = std::iter::once(c.pde).chain(c.pte).collect();
    let write = matches!(c.access, Access::Write | Access::Modify);
    let mut code = u32::from(write) << 1 | u32::from(c.user) << 2;
    // "I/D flag (bit 4): the access was an instruction fetch and either CR4.SMEP = 1 or both
    // CR4.PAE = 1 and IA32_EFER.NXE = 1."
    if c.access == Access::Fetch && (c.smep || nx_on) {
        code |= 16;
    }
    for e in &entries {
        if e & P == 0 {
            return Some(code);
        }
        // "If IA32_EFER.NXE = 0 and the P flag is 1, the XD flag (bit 63) is reserved."
        if c.style == Style::Pae && !c.nxe && e & NX != 0 {
            return Some(code | 9);
        }
    }
    let user_page = entries.iter().all(|e| e & U != 0);
    let writable = entries.iter().all(|e| e & W != 0);
    let executable = !nx_on || entries.iter().all(|e| e & NX == 0);
    let allowed = match (c.user, c.access) {
        (true, _) if !user_page => false,
        (true, Access::Write | Access::Modify) => writable,
        (false, Access::Write | Access::Modify) => writable || !c.wp,
        (false, Access::Fetch) if c.smep && user_page => false,
        (_, Access::Fetch) => executable,
        (_, Access::Read) => true,
    };
    (!allowed).then_some(code | 1)
}

fn place(row: &mut Row, c: &Case, page: u32) {
    let frame = if c.pte.is_none() { 0 } else { page };
    match c.style {
        Style::Bits32 => {
            let (pde, at_pde) = (c.pde as u32, at::PD + (at::TEST >> 22) * 4);
            match c.pte {
                Some(pte) => {
                    row.put32(at_pde, pde | at::PT);
                    row.put32(at::PT, pte as u32 | frame);
                }
                // The 4 MiB page that holds the data.
                None => row.put32(at_pde, pde | page & 0xffc0_0000),
            }
        }
        Style::Pae => {
            let at_pde = at::PAE_PD + 0x1000;
            match c.pte {
                Some(pte) => {
                    row.put(at_pde, &(c.pde | u64::from(at::PAE_PT)).to_le_bytes());
                    row.put(at::PAE_PT, &(pte | u64::from(frame)).to_le_bytes());
                }
                None => row.put(
                    at_pde,
                    &(c.pde | u64::from(page & 0xffe0_0000)).to_le_bytes(),
                ),
            }
        }
    }
}

/// The entries afterwards (4.8): A on every entry that was used, D on the one that maps the page;
/// after a fault, what would map the page is as before.
fn expect_entries(row: &mut Row, c: &Case, done: bool) {
    let write = matches!(c.access, Access::Write | Access::Modify);
    let leaf = if done {
        A | if write { D } else { 0 }
    } else {
        0
    };
    let upper = if done { A } else { 0 };
    let bits = (A | D) as u32;
    let (at_pde, at_pte) = match c.style {
        Style::Bits32 => (at::PD + (at::TEST >> 22) * 4, at::PT),
        Style::Pae => (at::PAE_PD + 0x1000, at::PAE_PT),
    };
    match c.pte {
        Some(pte) => {
            row.expect_bits(Field::Mem(at_pte), bits, (pte | leaf) as u32);
            // "Whenever the processor uses a paging-structure entry as part of linear-address
            // translation, it sets the accessed flag": a walk that ends in a fault may have.
            if done {
                row.expect_bits(Field::Mem(at_pde), bits, (c.pde | upper) as u32);
            }
        }
        None => row.expect_bits(Field::Mem(at_pde), bits, (c.pde | leaf) as u32),
    }
}

fn row(c: &Case) -> Row {
    let mut row = Row::new(format!(
        "{:?}{}{}{}{} {} {:?} pde {:x} pte {:x?}",
        c.style,
        if c.wp { " WP" } else { "" },
        if c.nxe { " NXE" } else { "" },
        if c.pge { " PGE" } else { "" },
        if c.smep { " SMEP" } else { "" },
        if c.user { "user" } else { "supervisor" },
        c.access,
        c.pde,
        c.pte,
    ))
    .cpl(if c.user { 3 } else { 0 });
    row = match c.style {
        Style::Bits32 => row.paging(),
        Style::Pae => row.pae(),
    };
    row.cr0 |= if c.wp { WP } else { 0 };
    row.cr4 |= PSE | if c.pge { PGE } else { 0 };
    row.efer = if c.nxe { NXE } else { 0 };
    if c.smep {
        // The kernel's own pages are user pages: the row turns SMEP on when nothing of them is left
        // to fetch in ring 0.
        row.cr4 |= 1 << 20;
        supervisor_identity(&mut row, c.style);
    }
    place(&mut row, c, at::DATA);
    let large_base = match (c.pte, c.style) {
        (Some(_), _) => 0,
        (None, Style::Bits32) => at::DATA & 0x3f_ffff,
        (None, Style::Pae) => at::DATA & 0x1f_ffff,
    };
    let target = at::TEST + large_base + 0x123;
    row.gpr[3] = target;
    row.put(at::DATA + 0x123, &[0x0f, 0x0b]); // UD2, where a fetch leads
    let expected = fault(c);
    let start = match c.access {
        Access::Read => row.asm(|a| a.mov(al, byte_ptr(ebx))),
        Access::Write => row.asm(|a| a.mov(byte_ptr(ebx), al)),
        Access::Modify => row.asm(|a| a.add(byte_ptr(ebx), 1)),
        Access::Fetch => row.asm(|a| a.jmp(ebx)),
    };
    match (expected, c.access) {
        (Some(code), Access::Fetch) => {
            row.fault(14, Some(code), target);
            row.expect(Field::Cr2, target);
        }
        (Some(code), _) => {
            row.stop();
            row.fault(14, Some(code), start);
            row.expect(Field::Cr2, target);
        }
        (None, Access::Fetch) => row.fault(6, None, target),
        (None, _) => {
            row.ends();
        }
    }
    if expected.is_none() {
        match c.access {
            Access::Read => row.expect_bits(Field::Gpr(0), 0xff, 0x0f),
            Access::Write => row.expect_bits(Field::Mem(at::DATA + 0x120), 0xff00_0000, 0xa0 << 24),
            Access::Modify => {
                row.expect_bits(Field::Mem(at::DATA + 0x120), 0xff00_0000, 0x10 << 24)
            }
            Access::Fetch => {}
        }
    }
    expect_entries(&mut row, c, expected.is_none());
    let as_read = fault(&Case {
        access: Access::Read,
        ..*c
    });
    row.deviation = match expected {
        Some(code) if code & 8 != 0 => Some(deviation::RSVD_WITHOUT_P),
        Some(_) if c.access == Access::Modify => Some(deviation::MODIFY_READS_FIRST),
        _ => None,
    };
    // Where reading is allowed, only the A bit tells.
    if as_read.is_none() && c.pte.unwrap_or(c.pde) & A != 0 {
        row.deviation = None;
    }
    row
}

/// The pages that the kernel and ring 0 code lie in become supervisor pages, and those of ring 3
/// code and stacks stay user pages.
fn supervisor_identity(row: &mut Row, style: Style) {
    let user = |n: u32| {
        let page = n << 12;
        row.cs & 3 == 3 && (page == at::CODE || page == at::ROW_STACK - 0x1000)
    };
    let entries: Vec<u64> = (0..2048u32)
        .map(|n| u64::from(n << 12 | 0x63 | if user(n) { 4 } else { 0 }))
        .collect();
    match style {
        Style::Bits32 => {
            let bytes: Vec<u8> = entries
                .iter()
                .flat_map(|e| (*e as u32).to_le_bytes())
                .collect();
            row.put(at::IDENTITY, &bytes);
        }
        Style::Pae => {
            let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
            row.put(at::PAE_IDENTITY, &bytes);
        }
    }
}

/// Every combination of P, R/W, U/S and XD in both entries, PS, WP, NXE, PAE, PGE with G, ring and
/// access.
fn combinations() -> Vec<Row> {
    let mut rows = Vec::new();
    for style in [Style::Bits32, Style::Pae] {
        for bits in 0..8u32 {
            let (wp, nxe, pge) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            if style == Style::Bits32 && nxe {
                continue;
            }
            for user in [false, true] {
                for access in ACCESSES {
                    let base = Case {
                        style,
                        wp,
                        nxe,
                        pge,
                        smep: false,
                        user,
                        access,
                        pde: 0,
                        pte: None,
                    };
                    let nx: &[u64] = if style == Style::Pae { &[0, NX] } else { &[0] };
                    let global = if pge { G } else { 0 };
                    for (pde, nx1) in (0..8).flat_map(|e| nx.iter().map(move |nx| (e, nx))) {
                        let pde = pde | nx1;
                        rows.push(row(&Case {
                            pde: pde | PS | global,
                            ..base
                        }));
                        for (pte, nx2) in (0..8).flat_map(|e| nx.iter().map(move |nx| (e, nx))) {
                            rows.push(row(&Case {
                                pde,
                                pte: Some(pte | nx2 | global),
                                ..base
                            }));
                        }
                    }
                }
            }
        }
    }
    // SMEP.
    for style in [Style::Bits32, Style::Pae] {
        for user in [false, true] {
            for access in ACCESSES {
                for pde in [3, 7] {
                    for pte in [3, 6, 7] {
                        let nxe = false;
                        let c = Case {
                            style,
                            wp: true,
                            nxe,
                            pge: false,
                            smep: true,
                            user,
                            access,
                            pde,
                            pte: Some(pte),
                        };
                        rows.push(row(&c));
                    }
                }
            }
        }
    }
    rows
}

/// What a read leaves alone, and what was set before stays set.
fn accessed_and_dirty() -> Vec<Row> {
    let mut rows = Vec::new();
    for style in [Style::Bits32, Style::Pae] {
        for user in [false, true] {
            for access in ACCESSES {
                for before in [A, D, A | D] {
                    let c = Case {
                        style,
                        wp: true,
                        nxe: false,
                        pge: false,
                        smep: false,
                        user,
                        access,
                        pde: 7,
                        pte: Some(7 | before),
                    };
                    rows.push(row(&c));
                    rows.push(row(&Case {
                        pde: 7 | A,
                        pte: Some(7 | before),
                        ..c
                    }));
                    rows.push(row(&Case {
                        pde: 7 | PS | before,
                        pte: None,
                        ..c
                    }));
                }
            }
        }
    }
    rows
}

/// Reserved bits. 4.3 (table 4-4 without PSE-36), 4.4.
fn reserved() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |style: Style, pde: u64, pte: Option<u64>, what: String| {
        for (user, access) in [
            (false, Access::Read),
            (true, Access::Read),
            (true, Access::Write),
            (true, Access::Fetch),
            (false, Access::Fetch),
        ] {
            let c = Case {
                style,
                wp: true,
                nxe: true,
                pge: false,
                smep: false,
                user,
                access,
                pde: 7,
                pte: Some(7),
            };
            let mut row = row(&c);
            row.name = format!(
                "{style:?} {what} {} {access:?}",
                if user { "user" } else { "supervisor" }
            );
            row.checks.clear();
            row.watches.clear();
            let code = 9
                | u32::from(access == Access::Write) << 1
                | u32::from(user) << 2
                | if access == Access::Fetch && style == Style::Pae {
                    16
                } else {
                    0
                };
            match style {
                Style::Bits32 => row.put32(at::PD + (at::TEST >> 22) * 4, pde as u32),
                Style::Pae => {
                    row.put(at::PAE_PD + 0x1000, &pde.to_le_bytes());
                    if let Some(pte) = pte {
                        row.put(at::PAE_PT, &pte.to_le_bytes());
                    }
                }
            }
            // The address was chosen for a small page.
            let eip = if access == Access::Fetch {
                row.gpr[3]
            } else {
                at::CODE
            };
            row.fault(14, Some(code), eip);
            row.expect(Field::Cr2, row.gpr[3]);
            row.efer = if style == Style::Pae { NXE } else { 0 };
            row.deviation = Some(deviation::RSVD_WITHOUT_P);
            rows.push(row);
        }
    };
    for bit in 13..22 {
        add(
            Style::Bits32,
            7 | PS | 1 << bit,
            None,
            format!("4 MiB page, bit {bit}"),
        );
    }
    for bit in 13..21 {
        add(
            Style::Pae,
            7 | PS | 1 << bit,
            None,
            format!("2 MiB page, bit {bit}"),
        );
    }
    // MAXPHYADDR is 36 or more here: bits 52-62 are reserved whatever it is.
    for bit in 52..63 {
        add(
            Style::Pae,
            7 | u64::from(at::PAE_PT) | 1 << bit,
            Some(7 | u64::from(at::DATA)),
            format!("directory entry, bit {bit}"),
        );
        add(
            Style::Pae,
            7 | PS | 1 << bit,
            None,
            format!("2 MiB page, bit {bit}"),
        );
        add(
            Style::Pae,
            7 | u64::from(at::PAE_PT),
            Some(7 | u64::from(at::DATA) | 1 << bit),
            format!("table entry, bit {bit}"),
        );
    }
    rows
}

/// Bits that are ignored.
fn ignored() -> Vec<Row> {
    let mut rows = Vec::new();
    for (style, bits) in [
        (Style::Bits32, vec![9, 10, 11]),
        (Style::Pae, vec![9, 10, 11]),
    ] {
        for bit in bits {
            for access in ACCESSES {
                let c = Case {
                    style,
                    wp: true,
                    nxe: true,
                    pge: false,
                    smep: false,
                    user: true,
                    access,
                    pde: 7 | 1 << bit,
                    pte: Some(7 | 1 << bit),
                };
                let c = Case {
                    nxe: style == Style::Pae,
                    ..c
                };
                rows.push(row(&c));
            }
        }
    }
    // Without CR4.PSE a directory entry's bit 7 means nothing in 32-bit paging; D of an entry that
    // leads to a table is not touched.
    for access in ACCESSES {
        for user in [false, true] {
            let c = Case {
                style: Style::Bits32,
                wp: true,
                nxe: false,
                pge: false,
                smep: false,
                user,
                access,
                pde: 7 | PS,
                pte: Some(7),
            };
            let mut row = row(&c);
            row.cr4 &= !PSE;
            row.name += ", no PSE";
            rows.push(row);
        }
    }
    rows
}

/// PDPT entries that are not present.
fn pdpt() -> Vec<Row> {
    let mut rows = Vec::new();
    for user in [false, true] {
        for access in ACCESSES {
            let c = Case {
                style: Style::Pae,
                wp: false,
                nxe: false,
                pge: false,
                smep: false,
                user,
                access,
                pde: 7,
                pte: Some(7),
            };
            let mut row = row(&c);
            row.name += ", no directory";
            row.deviation = (access == Access::Modify).then_some(deviation::MODIFY_READS_FIRST);
            row.checks.clear();
            row.watches.clear();
            row.put(at::PDPT + 8, &[0; 8]);
            let write = matches!(access, Access::Write | Access::Modify);
            let eip = if access == Access::Fetch {
                row.gpr[3]
            } else {
                at::CODE
            };
            row.fault(14, Some(u32::from(write) << 1 | u32::from(user) << 2), eip);
            rows.push(row);
        }
    }
    // Reserved bits of a present entry: the load of CR3 raises #GP(0) and changes nothing. 4.4.1.
    for bit in [1, 2, 5, 6, 7, 8, 52, 62, 63] {
        let mut row = Row::new(format!("PDPT entry with bit {bit}: MOV CR3")).pae();
        let other = at::DATA;
        row.put(other, &(u64::from(at::PAE_PD) | 1).to_le_bytes());
        row.put(
            other + 24,
            &(u64::from(at::PAE_PD) | 1 | 1u64 << bit).to_le_bytes(),
        );
        row.gpr[1] = other;
        let eip = row.asm(|a| a.mov(iced_x86::code_asm::cr3, ecx));
        row.stop();
        row.fault(13, Some(0), eip);
        row.expect(Field::Cr3, at::PDPT);
        row.deviation = Some(deviation::PDPTE_UNCHECKED);
        rows.push(row);
    }
    let mut row = Row::new("PDPT entries that are not present may hold anything").pae();
    row.put(at::DATA, &(u64::from(at::PAE_PD) | 1).to_le_bytes());
    row.put(at::DATA + 8, &(!1u64).to_le_bytes());
    row.gpr[1] = at::DATA;
    row.asm(|a| a.mov(iced_x86::code_asm::cr3, ecx));
    row.ends();
    row.expect(Field::Cr3, at::DATA);
    rows.push(row);
    rows
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        Table::new("paging-rights", "SDM 3A 4.6, 4.7", combinations()),
        Table::new("accessed-dirty", "SDM 3A 4.8", accessed_and_dirty()),
        Table::new(
            "paging-reserved",
            "SDM 3A 4.3 (table 4-4), 4.4.2 (tables 4-8 to 4-11), 4.7",
            reserved(),
        ),
        Table::new("paging-ignored", "SDM 3A 4.3, 4.4.2", ignored()),
        Table::new("pdpt", "SDM 3A 4.4.1", pdpt()),
    ]
}
