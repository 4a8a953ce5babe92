//! Code that changes itself or is changed through another address, by the processor's own writes or
//! by a device.

use crate::descriptor::{gate, kind};
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};
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

/// Where a function lies that is called before and after something writes to it.
const FUNCTION: u32 = at::TARGET + 0x40;

/// Every way in which an instruction writes. The function is MOV EAX, imm32; RET, and its immediate
/// changes from 1 to 2.
fn writers() -> Vec<Row> {
    let mut rows = Vec::new();
    let cases: &[(&str, &[u8])] = &[
        ("MOV byte", &[0xc6, 0x03, 2]),
        ("MOV word", &[0x66, 0xc7, 0x03, 2, 0]),
        ("MOV dword", &[0xc7, 0x03, 2, 0, 0, 0]),
        ("INC", &[0xff, 0x03]),
        ("ADD", &[0x83, 0x03, 1]),
        ("LOCK INC", &[0xf0, 0xff, 0x03]),
        ("XCHG", &[0xb9, 2, 0, 0, 0, 0x87, 0x0b]),
        ("XADD", &[0xb9, 1, 0, 0, 0, 0x0f, 0xc1, 0x0b]),
        ("CMPXCHG", &[0xb9, 2, 0, 0, 0, 0x0f, 0xb1, 0x0b]), // EAX is 1
        ("BTC, twice", &[0x0f, 0xba, 0x3b, 0, 0x0f, 0xba, 0x3b, 1]),
        ("SHL", &[0xd1, 0x23]),
        ("POP", &[0x6a, 2, 0x8f, 0x03]),
        ("STOSB", &[0xb0, 2, 0xaa]),
        ("MOVSD", &[0xa5]),
        ("REP MOVSB", &[0xb9, 4, 0, 0, 0, 0xf3, 0xa4]),
        ("FISTP", &[0xdf, 0x06, 0xdb, 0x1b]), // fild word [esi]
        ("MOVD", &[0x0f, 0x6e, 0x0e, 0x0f, 0x7e, 0x0b]), // by MM1
        ("PUSH", &[0x89, 0xe5, 0x8d, 0x63, 4, 0x6a, 2, 0x89, 0xec]), // ESP kept in EBP
    ];
    for cpl in [0u8, 3] {
        for &(name, bytes) in cases {
            let mut row = Row::new(format!("by {name}, ring {cpl}")).cpl(cpl);
            row.put(FUNCTION, &[0xb8, 1, 0, 0, 0, 0xc3]);
            row.put32(at::DATA, 2);
            row.gpr[2] = FUNCTION;
            row.gpr[3] = FUNCTION + 1;
            row.gpr[6] = at::DATA;
            row.gpr[7] = FUNCTION + 1;
            row.bytes(&[0xff, 0xd2]); // call edx
            row.bytes(bytes);
            row.bytes(&[0x31, 0xc0, 0xff, 0xd2]);
            row.ends();
            row.expect(Field::Gpr(0), 2);
            rows.push(row);
        }
    }
    rows
}

/// What the processor writes for itself: the function INC EBX; RET becomes INC EAX; RET.
fn by_processor() -> Vec<Row> {
    const AFTER: u32 = 0xc340;
    let mut rows = Vec::new();
    let new = |name: &str, cpl: u8, function: u32| {
        let mut row = Row::new(name).cpl(cpl);
        row.put(function, &[0x43, 0xc3]);
        row.gpr[2] = function;
        row.gpr[3] = 10;
        row.gpr[0] = 20;
        row.bytes(&[0xff, 0xd2]);
        row.expect(Field::Gpr(3), 11);
        row
    };
    // The frame of INT: ring 3's ESP is what is written over the function.
    let mut row = new("by the frame of INT", 3, FUNCTION);
    row.put32(at::TSS + 4, FUNCTION + 8);
    row.gate(
        0x40,
        gate(kind::INT32, 3, true, at::CODE0, at::TARGET + 0xf0, 0),
    );
    row.put(at::TARGET + 0xf0, &[0xcf]);
    row.bytes(&[0x89, 0xe5, 0xbc]); // mov ebp, esp; mov esp, AFTER
    row.bytes(&AFTER.to_le_bytes());
    row.bytes(&[0xcd, 0x40, 0x89, 0xec, 0xff, 0xd2]);
    // The row's end needs a stack of its own.
    row.task_vector(6);
    row.stop();
    row.fault_by_task(6, None);
    row.checks.retain(|c| !matches!(c.field, Field::Gpr(_)));
    row.expect(Field::Mem(at::TSS + 0x28), 21);
    row.expect(Field::Mem(at::TSS + 0x34), 11);
    rows.push(row);
    // A task switch saves EAX over it.
    let function = at::TSS + 0x28;
    let mut row = new("by a task switch", 0, function);
    row.plain_task(at::FREE);
    row.put(at::TARGET, &[0xcf]);
    row.bytes(&[0xb8]);
    row.bytes(&AFTER.to_le_bytes());
    let [low, high] = at::FREE.to_le_bytes();
    row.bytes(&[0x9a, 0, 0, 0, 0, low, high, 0xff, 0xd2]);
    row.ends();
    row.expect(Field::Gpr(0), AFTER + 1);
    rows.push(row);
    rows
}

/// A device writes: the firmware configuration's DMA reads its signature, "QEMU", over four NOPs:
/// PUSH ECX; INC EBP; DEC EBP; PUSH EBP. The RET that follows goes where EBP says.
fn by_device() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in [0u8, 3] {
        for times in [1u32, 20] {
            let mut row = Row::new(format!("by a device's DMA after {times} calls, ring {cpl}"));
            row = row.cpl(cpl);
            row.eflags |= eflags::IOPL;
            row.put(FUNCTION, &[0x90, 0x90, 0x90, 0x90, 0xc3]);
            row.put(at::TARGET, &[0x0f, 0x0b]);
            // Control (item 0, select and read), length, address: big-endian.
            let words = [0xau32, 4, 0, FUNCTION];
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
            row.put(at::DATA, &bytes);
            row.gpr[5] = at::TARGET;
            row.gpr[3] = FUNCTION;
            row.gpr[1] = times;
            row.bytes(&[0xff, 0xd3, 0xe2, 0xfc]); // call ebx; loop
            row.gpr[0] = at::DATA.swap_bytes();
            row.bytes(&[0x66, 0xba, 0x18, 0x05, 0xef]); // mov dx, 518h; out dx, eax
            row.bytes(&[0x83, 0x3d]); // wait: cmp dword [DATA], 0; jne wait
            row.bytes(&at::DATA.to_le_bytes());
            row.bytes(&[0, 0x75, 0xf7]);
            row.bytes(&[0xff, 0xd3]);
            row.stop();
            row.fault(6, None, at::TARGET);
            row.expect(Field::Mem(FUNCTION), u32::from_le_bytes(*b"QEMU"));
            rows.push(row);
        }
    }
    rows
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        Table::new("self-modifying", "SDM 3A 8.1.3, 11.6", {
            let mut rows = changing_code();
            rows.extend(writers());
            rows
        }),
        Table::new("cross-modifying", "SDM 3A 8.1.3, 11.6", {
            let mut rows = by_processor();
            rows.extend(by_device());
            rows
        }),
    ]
}
