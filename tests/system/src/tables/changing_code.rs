//! Code that changes itself or is changed through another address or by a device.

use crate::layout as at;
use crate::row::{Field, Row, Table};
use iced_x86::code_asm::{byte_ptr, dword_ptr, eax, ebx, ecx};

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

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![Table::new(
        "changing-code",
        "SDM 3A 8.1.3, 11.6",
        changing_code(),
    )]
}
