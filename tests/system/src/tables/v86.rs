//! V8086 mode: what is sensitive to IOPL, what exists at all, interrupts and exceptions out of it,
//! and the virtual-mode extensions (CR4.VME, CR4.PVI).

use crate::descriptor::{flag, gate, kind, segment};
use crate::deviation;
use crate::layout as at;
use crate::row::{Field, Row, Table, deviate, eflags};

const VME: u32 = 1;
const PVI: u32 = 2;
/// Where the stack of V8086 rows begins, linear.
const STACK: u32 = at::LOW_STACK + 0x8000;
/// The TSS with a redirection bitmap: bitmap at 68H, I/O map after it.
const IO_MAP: u16 = 0x88;

fn v86(name: String, iopl: u32, cr4: u32) -> Row {
    let mut row = Row::new(name).v86(iopl);
    row.cr4 = cr4;
    row.descriptor(
        at::TSS_SEL,
        segment(at::TSS, 0x2ff, kind::TSS32, 0, true, 0),
    );
    row.put(at::TSS + 0x66, &IO_MAP.to_le_bytes());
    // No port is open: the map's bits are set, and the byte after it.
    row.put(at::TSS + u32::from(IO_MAP), &[0xff; 0x60]);
    row
}

/// Frame of a V8086 interrupt, as 20.3.1 has it.
fn expect_frame(row: &mut Row, error: bool) {
    row.expect(Field::Cs, at::LOW_CODE >> 4);
    row.expect(Field::Ss, at::LOW_STACK >> 4);
    for field in [Field::Ds, Field::Es, Field::Fs, Field::Gs] {
        row.expect(field, at::LOW_DATA >> 4);
    }
    row.expect(
        Field::HandlerEsp,
        at::STACK0 - 36 - if error { 4 } else { 0 },
    );
    row.expect_bits(
        Field::HandlerFlags,
        eflags::VM | eflags::TF | eflags::NT | eflags::IF,
        0,
    );
}

/// CLI, STI, PUSHF, POPF, INT n, IRET: 20.2.7, 20.3, and each instruction's page.
fn sensitive() -> Vec<Row> {
    let mut rows = Vec::new();
    for iopl in 0..4u32 {
        for vme in [false, true] {
            for vip in [false, true] {
                for set in [false, true] {
                    if vip && !vme {
                        continue;
                    }
                    let new = |what: &str| {
                        let name =
                            format!("{what}: IOPL {iopl} VME {vme} VIP {vip} IF or VIF {set}");
                        let mut row = v86(name, iopl, if vme { VME } else { 0 });
                        row.eflags |= if vip { eflags::VIP } else { 0 };
                        row.eflags |= match (set, iopl == 3) {
                            (false, _) => 0,
                            (true, true) => eflags::IF,
                            (true, false) => eflags::VIF,
                        };
                        row
                    };
                    let virtual_flag = vme && iopl < 3;
                    let refused = iopl < 3 && !vme;
                    let finish = |mut row: Row, eip: u32, fails: bool, change: Option<u32>| {
                        row.deviation = (virtual_flag && !fails).then_some(deviation::NO_VME);
                        if fails {
                            row.stop();
                            row.fault(13, Some(0), eip);
                            expect_frame(&mut row, true);
                            row.expect_flags(row.eflags);
                        } else {
                            row.ends();
                            if let Some(flags) = change {
                                row.expect_flags(flags);
                            }
                        }
                        row
                    };
                    let bit = if virtual_flag {
                        eflags::VIF
                    } else {
                        eflags::IF
                    };

                    let mut row = new("CLI");
                    let flags = row.eflags & !bit;
                    let eip = row.bytes(&[0xfa]);
                    rows.push(finish(row, eip, refused, Some(flags)));

                    let mut row = new("STI");
                    let flags = row.eflags | bit;
                    let eip = row.bytes(&[0xfb]);
                    rows.push(finish(
                        row,
                        eip,
                        refused || virtual_flag && vip,
                        Some(flags),
                    ));

                    for wide in [false, true] {
                        // PUSHF pushes IOPL 3 and VIF for IF; PUSHFD is refused below IOPL 3.
                        let mut row = new(if wide { "PUSHFD" } else { "PUSHF" });
                        let eip = row.bytes(if wide { &[0x66, 0x9c] } else { &[0x9c] });
                        let mut image = row.eflags & 0xffff;
                        if virtual_flag {
                            image |= eflags::IOPL;
                            image = image & !eflags::IF | if set { eflags::IF } else { 0 };
                        }
                        if wide {
                            // VM and RF are not stored.
                            image |= row.eflags & (eflags::VIF | eflags::VIP);
                        }
                        let fails = refused || iopl < 3 && wide;
                        if !fails {
                            if wide {
                                row.expect(Field::Mem(STACK - 4), image);
                            } else {
                                row.watches.push((STACK - 2, 2));
                                row.expect(Field::Mem(STACK - 2), image);
                            }
                        }
                        rows.push(finish(row, eip, fails, None));

                        // POPF: IF goes to VIF; a TF in the image, or VIP with IF, is refused.
                        for image in [
                            0u32,
                            eflags::IF,
                            eflags::TF | eflags::ZF,
                            0xffff & !eflags::TF,
                            eflags::ZF | eflags::CF,
                        ] {
                            let mut row = new(&format!(
                                "{} {image:#x}",
                                if wide { "POPFD" } else { "POPF" }
                            ));
                            row.put32(STACK, image);
                            let eip = row.bytes(if wide { &[0x66, 0x9d] } else { &[0x9d] });
                            let fails = refused
                                || iopl < 3 && wide
                                || virtual_flag
                                    && (image & eflags::TF != 0 || vip && image & eflags::IF != 0);
                            let arithmetic = 0xcd5 | eflags::NT;
                            let mut flags = row.eflags & !arithmetic | image & arithmetic;
                            if virtual_flag {
                                flags = flags & !eflags::VIF
                                    | if image & eflags::IF != 0 {
                                        eflags::VIF
                                    } else {
                                        0
                                    };
                            } else {
                                flags = flags & !eflags::IF | image & eflags::IF;
                            }
                            if wide {
                                // AC and ID come from the image, which has them clear.
                                flags &= !(eflags::AC | eflags::ID);
                            }
                            if !fails && image & eflags::TF != 0 {
                                row.bytes(&[0x90]);
                                let end = row.stop();
                                row.fault(1, None, end);
                                rows.push(row);
                                continue;
                            }
                            rows.push(finish(row, eip, fails, Some(flags)));

                            // IRET the same.
                            if wide && iopl < 3 {
                                continue;
                            }
                            let mut row = new(&format!(
                                "{} {image:#x}",
                                if wide { "IRETD" } else { "IRET" }
                            ));
                            let eip = row.bytes(if wide { &[0x66, 0xcf] } else { &[0xcf] });
                            let target = 0x40;
                            if wide {
                                row.put32(STACK, target);
                                row.put32(STACK + 4, at::LOW_CODE >> 4);
                                row.put32(STACK + 8, image);
                            } else {
                                row.put(STACK, &(target as u16).to_le_bytes());
                                row.put(STACK + 2, &((at::LOW_CODE >> 4) as u16).to_le_bytes());
                                row.put(STACK + 4, &(image as u16).to_le_bytes());
                            }
                            row.stop();
                            row.deviation = (virtual_flag && !fails).then_some(deviation::NO_VME);
                            row.put(at::LOW_CODE + target, &[0x90, 0x0f, 0x0b]);
                            if fails {
                                row.fault(13, Some(0), eip);
                            } else if image & eflags::TF != 0 {
                                row.fault(1, None, target + 1);
                            } else {
                                row.fault(6, None, target + 1);
                                row.expect_flags(flags);
                                row.expect_bits(
                                    Field::Esp,
                                    0xffff,
                                    0x8000 + if wide { 12 } else { 6 },
                                );
                            }
                            rows.push(row);
                        }
                    }
                }
            }
        }
    }
    rows
}

/// INT n with and without redirection. Table 20-2.
fn software_interrupts() -> Vec<Row> {
    let mut rows = Vec::new();
    for iopl in 0..4u32 {
        for vme in [false, true] {
            for redirected in [false, true] {
                for dpl in [0u8, 3] {
                    for vif in [false, true] {
                        let name = format!(
                            "INT n: IOPL {iopl} VME {vme} bit {} gate DPL {dpl} IF or VIF {vif}",
                            u8::from(redirected)
                        );
                        let mut row = v86(name, iopl, if vme { VME } else { 0 });
                        row.eflags |= eflags::CF;
                        row.eflags |= match (vif, iopl == 3) {
                            (false, _) => 0,
                            (true, true) => eflags::IF,
                            (true, false) => eflags::VIF,
                        };
                        if vif && iopl < 3 && !vme {
                            continue;
                        }
                        let vector = 0x93u8;
                        // Bit set: the protected-mode handler.
                        let mut bitmap = [0u8; 32];
                        if redirected {
                            bitmap[usize::from(vector / 8)] = 1 << (vector % 8);
                        } else {
                            bitmap = [0xff; 32];
                            bitmap[usize::from(vector / 8)] = !(1 << (vector % 8));
                        }
                        row.put(at::TSS + 0x68, &bitmap);
                        row.open_vector(vector, dpl);
                        row.put(u32::from(vector) * 4, &[0x44, 0, 0, 0x10]); // 1000:0044
                        row.put(at::LOW_CODE + 0x44, &[0x0f, 0x0b]);
                        let eip = row.bytes(&[0xcd, vector]);
                        let next = row.here();
                        row.stop();
                        let to_8086 = vme && !redirected;
                        row.deviation = to_8086.then_some(deviation::NO_VME);
                        if to_8086 {
                            row.fault(6, None, 0x44);
                            let flag = if iopl == 3 { eflags::IF } else { eflags::VIF };
                            row.expect_flags(row.eflags & !flag);
                            let mut image = row.eflags & 0xffff | eflags::IOPL;
                            if iopl < 3 {
                                image = image & !eflags::IF | if vif { eflags::IF } else { 0 };
                            }
                            for (n, value) in
                                [next, at::LOW_CODE >> 4, image].into_iter().enumerate()
                            {
                                let address = STACK - 6 + n as u32 * 2;
                                row.watches.push((address, 2));
                                row.expect(Field::Mem(address), value);
                            }
                            row.expect_bits(Field::Esp, 0xffff, 0x8000 - 6);
                        } else if iopl < 3 {
                            row.fault(13, Some(0), eip);
                            expect_frame(&mut row, true);
                        } else if dpl < 3 {
                            row.fault(13, Some(u32::from(vector) * 8 + 2), eip);
                        } else {
                            row.fault(vector, None, next);
                            expect_frame(&mut row, false);
                            row.expect_flags(row.eflags);
                        }
                        rows.push(row);
                    }
                }
            }
        }
    }
    // INT3 and INTO are not sensitive to IOPL and never redirected.
    for (what, bytes, vector) in [("INT3", 0xccu8, 3u8), ("INTO", 0xce, 4)] {
        for iopl in [0, 3] {
            for dpl in [0u8, 3] {
                for vme in [false, true] {
                    let mut row = v86(
                        format!("{what}: IOPL {iopl} VME {vme} gate DPL {dpl}"),
                        iopl,
                        u32::from(vme),
                    );
                    row.eflags |= 0x800;
                    row.open_vector(vector, dpl);
                    let eip = row.bytes(&[bytes]);
                    let next = row.stop();
                    if dpl < 3 {
                        row.fault(13, Some(u32::from(vector) * 8 + 2), eip);
                    } else {
                        row.fault(vector, None, next);
                        expect_frame(&mut row, false);
                    }
                    rows.push(row);
                }
            }
        }
    }
    rows
}

/// What is privileged, and what V8086 mode does not know. Vol. 2.
fn instructions() -> Vec<Row> {
    let mut rows = Vec::new();
    let privileged: &[(&str, &[u8])] = &[
        ("HLT", &[0xf4]),
        ("LGDT", &[0x0f, 0x01, 0x16, 0, 0]),
        ("LIDT", &[0x0f, 0x01, 0x1e, 0, 0]),
        ("LMSW", &[0x0f, 0x01, 0xf0]),
        ("CLTS", &[0x0f, 0x06]),
        ("MOV EAX, CR0", &[0x0f, 0x20, 0xc0]),
        ("MOV CR0, EAX", &[0x0f, 0x22, 0xc0]),
        ("MOV CR3, EAX", &[0x0f, 0x22, 0xd8]),
        ("MOV EAX, DR0", &[0x0f, 0x21, 0xc0]),
        ("MOV DR7, EAX", &[0x0f, 0x23, 0xf8]),
        ("INVD", &[0x0f, 0x08]),
        ("WBINVD", &[0x0f, 0x09]),
        ("INVLPG", &[0x0f, 0x01, 0x3e, 0, 0]),
        ("RDMSR", &[0x0f, 0x32]),
        ("WRMSR", &[0x0f, 0x30]),
        ("IN AL, 80h", &[0xe4, 0x80]),
        ("OUT 80h, AL", &[0xe6, 0x80]),
        ("IN AX, DX", &[0xed]),
        ("OUTSB", &[0x6e]),
        ("INSB", &[0x6c]),
    ];
    let unknown: &[(&str, &[u8])] = &[
        ("SLDT", &[0x0f, 0x00, 0xc0]),
        ("STR", &[0x0f, 0x00, 0xc8]),
        ("LLDT", &[0x0f, 0x00, 0xd0]),
        ("LTR", &[0x0f, 0x00, 0xd8]),
        ("VERR", &[0x0f, 0x00, 0xe0]),
        ("VERW", &[0x0f, 0x00, 0xe8]),
        ("LAR", &[0x0f, 0x02, 0xc0]),
        ("LSL", &[0x0f, 0x03, 0xc0]),
        ("ARPL", &[0x63, 0xc0]),
    ];
    for iopl in [0, 3] {
        for (what, bytes) in privileged {
            let mut row = v86(format!("{what}: IOPL {iopl}"), iopl, 0);
            let eip = row.bytes(bytes);
            row.stop();
            row.fault(13, Some(0), eip);
            expect_frame(&mut row, true);
            rows.push(row);
        }
        for (what, bytes) in unknown {
            let mut row = v86(format!("{what}: IOPL {iopl}"), iopl, 0);
            let eip = row.bytes(bytes);
            row.stop();
            row.fault(6, None, eip);
            expect_frame(&mut row, false);
            rows.push(row);
        }
    }
    for (what, bytes) in [
        ("SMSW", &[0x0f, 0x01, 0xe0][..]),
        ("SGDT", &[0x0f, 0x01, 0x06, 0, 0]),
        ("MOV DS, AX", &[0x8e, 0xd8]),
        ("RDTSC", &[0x0f, 0x31]),
    ] {
        let mut row = v86(format!("{what} is allowed"), 0, 0);
        row.bytes(bytes);
        row.ends();
        rows.push(row);
    }
    rows
}

/// Leaving V8086 mode. 20.2.4, 20.3.1; vol. 2, INT and IRET.
fn leaving() -> Vec<Row> {
    let mut rows = Vec::new();
    // The handler must be nonconforming code of DPL 0.
    for dpl in 0..4u8 {
        for k in [kind::CODE_R, kind::CONFORMING] {
            let mut row = v86(format!("handler type {k:#x} DPL {dpl}"), 3, 0);
            row.descriptor(
                at::FREE,
                segment(0, 0xf_ffff, k, dpl, true, flag::G | flag::BIG),
            );
            row.gate(0x40, gate(kind::INT32, 3, true, at::FREE, at::TARGET, 0));
            row.put(at::TARGET, &[0x0f, 0x0b]);
            let eip = row.bytes(&[0xcd, 0x40]);
            row.stop();
            if dpl == 0 && k == kind::CODE_R {
                row.fault(6, None, at::TARGET);
                row.expect(Field::Cs, u32::from(at::FREE));
                row.expect(Field::Esp, at::STACK0 - 36);
                for field in [Field::Ds, Field::Es, Field::Fs, Field::Gs] {
                    row.expect(field, 0);
                }
            } else {
                row.fault(13, Some(u32::from(at::FREE)), eip);
            }
            rows.push(row);
        }
    }
    // 16-bit and trap gates.
    for k in [kind::INT16, kind::TRAP16, kind::TRAP32] {
        let mut row = v86(format!("INT through gate type {k:#x}"), 3, 0);
        row.eflags |= eflags::IF;
        let narrow = k != kind::TRAP32;
        let (selector, offset) = if narrow {
            (at::STUBS, at::stub16(0x40))
        } else {
            (at::CODE0, at::stub(0x40))
        };
        row.gate(0x40, gate(k, 3, true, selector, offset, 0));
        row.bytes(&[0xcd, 0x40]);
        let next = row.here();
        row.stop();
        row.narrow_frame = narrow;
        row.fault(0x40, None, next);
        row.expect(Field::HandlerEsp, at::STACK0 - if narrow { 18 } else { 36 });
        let keeps = k & 1 != 0;
        row.expect_bits(
            Field::HandlerFlags,
            eflags::IF | eflags::VM,
            if keeps { eflags::IF } else { 0 },
        );
        rows.push(row);
    }
    // IRETD in ring 0 with VM set in the image: every register from the stack.
    let mut row = Row::new("IRETD to V8086 mode");
    let esp = at::ROW_STACK - 0x40;
    row.gpr[4] = esp;
    let image = eflags::VM | eflags::IOPL | eflags::CF | eflags::AC | eflags::FIXED;
    for (n, value) in [
        0x55, 0x1000, image, 0x1_7777, 0x2000, 0x11, 0x22, 0x33, 0x44,
    ]
    .into_iter()
    .enumerate()
    {
        row.put32(esp + n as u32 * 4, value);
    }
    row.put(at::LOW_CODE + 0x55, &[0x0f, 0x0b]);
    row.bytes(&[0xcf]);
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
    let mut row = Row::new("IRETD to V8086 mode, EIP beyond 64 KiB");
    row.gpr[4] = esp;
    for (n, value) in [
        0x1_0000, 0x1000, image, 0x7777, 0x2000, 0x11, 0x22, 0x33, 0x44,
    ]
    .into_iter()
    .enumerate()
    {
        row.put32(esp + n as u32 * 4, value);
    }
    row.put(at::LOW_CODE + 0x1_0000, &[0x0f, 0x0b]);
    let eip = row.bytes(&[0xcf]);
    row.stop();
    row.fault(13, Some(0), eip);
    row.expect(Field::Esp, esp);
    rows.push(row);
    // VM of the image means nothing in other rings.
    for cpl in 1..4u8 {
        let mut row = Row::new(format!("IRETD with VM in ring {cpl}")).cpl(cpl);
        row.gpr[4] = esp;
        for (n, value) in [at::TARGET, u32::from(at::code_of(cpl)), image]
            .into_iter()
            .enumerate()
        {
            row.put32(esp + n as u32 * 4, value);
        }
        row.put(at::TARGET, &[0x0f, 0x0b]);
        row.bytes(&[0xcf]);
        row.stop();
        row.fault(6, None, at::TARGET);
        row.expect_bits(Field::Eflags, eflags::VM | eflags::IOPL, 0);
        rows.push(row);
    }
    rows
}

/// CR4.PVI: ring 3 with IOPL below 3. 20.4.
fn protected_virtual_interrupts() -> Vec<Row> {
    let mut rows = Vec::new();
    for cpl in [0u8, 2, 3] {
        for iopl in [0u32, 2, 3] {
            for vip in [false, true] {
                for (what, opcode) in [("CLI", 0xfau8), ("STI", 0xfb)] {
                    let mut row =
                        Row::new(format!("PVI, {what}: CPL {cpl} IOPL {iopl} VIP {vip}")).cpl(cpl);
                    row.cr4 = PVI;
                    row.eflags |= iopl << 12 | if vip { eflags::VIP } else { 0 };
                    row.eflags |= if opcode == 0xfa { eflags::VIF } else { 0 };
                    let eip = row.bytes(&[opcode]);
                    let real = u32::from(cpl) <= iopl;
                    let virtual_flag = !real && cpl == 3;
                    let fails = !real && (!virtual_flag || opcode == 0xfb && vip);
                    let flags_set = row.eflags & (eflags::VIF | eflags::VIP) != 0;
                    row.deviation =
                        (!fails && (virtual_flag || flags_set)).then_some(deviation::NO_VME);
                    if fails {
                        row.stop();
                        row.fault(13, Some(0), eip);
                    } else {
                        row.ends();
                        let bit = if virtual_flag {
                            eflags::VIF
                        } else {
                            eflags::IF
                        };
                        let flags = if opcode == 0xfa {
                            row.eflags & !bit
                        } else {
                            row.eflags | bit
                        };
                        row.expect_flags(flags);
                    }
                    rows.push(row);
                }
            }
        }
    }
    rows
}

/// The table.
pub fn table() -> Table {
    let mut rows = sensitive();
    rows.extend(software_interrupts());
    rows.extend(instructions());
    rows.extend(leaving());
    deviate(&mut rows, deviation::V86_HANDLER, |name| {
        name == "handler type 0x1a DPL 1" || name == "handler type 0x1a DPL 2"
    });
    deviate(&mut rows, deviation::SEGMENT_LIMITS, |name| {
        name.ends_with("beyond 64 KiB")
    });
    deviate(&mut rows, deviation::IRET_VM, |name| {
        name.starts_with("IRETD with VM")
    });
    rows.extend(protected_virtual_interrupts());
    Table {
        name: "v86",
        source: "SDM 3B 20.1-20.4",
        rows,
    }
}
