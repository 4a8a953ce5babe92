//! The ROM of one table: kernel, template, rows.

use crate::descriptor::{Tss32, flag, flat, gate, kind, segment};
use crate::layout as at;
use crate::row::{Row, eflags};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

const KERNEL_SOURCE: &str = include_str!("../kernel/kernel.asm");
const ROM_SOURCE: &str = include_str!("../kernel/rom.asm");
/// What firmware may have, bytes.
const LARGEST: usize = 1 << 20;

/// Page-table flags of identity pages: present, writable, user, accessed, dirty.
const IDENTITY: u32 = 0x67;
/// The same for entries that lead to tables.
const TABLE: u32 = 0x27;

/// What every row begins with.
struct Template {
    clear: Vec<(u32, u32)>,
    data: Vec<(u32, Vec<u8>)>,
}

fn template() -> Template {
    let mut gdt = vec![0u64; 16];
    let mut set = |selector: u16, value: u64| gdt[usize::from(selector >> 3)] = value;
    let accessed = |k: u8| k | kind::ACCESSED;
    for cpl in 0..4 {
        set(at::code_of(cpl), flat(accessed(kind::CODE_R), cpl));
        set(at::data_of(cpl), flat(accessed(kind::DATA_W), cpl));
    }
    let code = accessed(kind::CODE_R);
    set(
        at::STUBS,
        segment(at::KERNEL, 0xffff, code, 0, true, flag::BIG),
    );
    set(at::TSS_SEL, segment(at::TSS, 0x67, kind::TSS32, 0, true, 0));
    set(
        at::HANDLER_SEL,
        segment(at::HANDLER_TSS, 0x67, kind::TSS32, 0, true, 0),
    );
    set(0x30, segment(0, 0xffff, code, 0, true, 0));
    set(0x38, segment(0, 0xffff, accessed(kind::DATA_W), 0, true, 0));
    set(at::LDT_SEL, segment(at::LDT, 0x3ff, kind::LDT, 0, true, 0));
    let idt = (0..=255u8).map(|v| match v {
        8 => gate(kind::TASK, 0, true, at::HANDLER_SEL, 0, 0),
        _ => gate(kind::INT32, 0, true, at::CODE0, at::stub(v), 0),
    });
    let tss = Tss32 {
        stacks: [
            (at::STACK0, at::DATA0),
            (at::STACK1, at::DATA1),
            (at::STACK2, at::DATA2),
        ],
        eflags: eflags::FIXED,
        io_map: 0x68,
        ..Tss32::default()
    };
    let words = |entries: Vec<u64>| entries.iter().flat_map(|e| e.to_le_bytes()).collect();
    let dwords = |entries: Vec<u32>| entries.iter().flat_map(|e| e.to_le_bytes()).collect();
    let pdpt = (0..4)
        .map(|n| u64::from(at::PAE_PD + n * 0x1000) | 1)
        .collect();
    let pae_pd = (0..4)
        .map(|n| u64::from((at::PAE_IDENTITY + n * 0x1000) | TABLE))
        .collect();
    let data = vec![
        (at::GDT, words(gdt)),
        (at::IDT, words(idt.collect())),
        (at::TSS, tss.bytes()),
        (at::HANDLER_TSS, Row::handler_tss().bytes()),
        (
            at::PD,
            dwords(vec![at::IDENTITY | TABLE, (at::IDENTITY + 0x1000) | TABLE]),
        ),
        (at::PD + 0x400, dwords(vec![at::PT | TABLE])),
        (at::PDPT, words(pdpt)),
        (at::PAE_PD, words(pae_pd)),
        (
            at::PAE_PD + 0x1000,
            words(vec![u64::from(at::PAE_PT | TABLE)]),
        ),
        (
            at::IDENTITY,
            dwords((0..2048).map(|n| n << 12 | IDENTITY).collect()),
        ),
        (
            at::PAE_IDENTITY,
            words((0..2048).map(|n| n << 12 | u64::from(IDENTITY)).collect()),
        ),
    ];
    let stack = |top: u32| (top - 0x100, 0x200);
    let clear = vec![
        (at::ARENA, 0x4000),
        (at::PD, 0x8000),
        stack(at::STACK0),
        stack(at::STACK1),
        stack(at::STACK2),
        stack(at::ROW_STACK),
        stack(at::HANDLER_STACK),
        stack(at::OTHER_STACK),
        (at::CODE, 0x100),
        (at::TARGET, 0x100),
        (at::DATA, 0x2000),
        (at::LOW_CODE, 0x100),
        (at::LOW_DATA, 0x100),
        stack(at::LOW_STACK + 0x8000),
    ];
    Template { clear, data }
}

fn push(blob: &mut Vec<u8>, words: &[u32]) {
    blob.extend(words.iter().flat_map(|w| w.to_le_bytes()));
}

fn padded(blob: &mut Vec<u8>, bytes: &[u8]) {
    blob.extend_from_slice(bytes);
    blob.resize(blob.len().next_multiple_of(4), 0);
}

fn encode(row: &Row) -> Vec<u8> {
    let mut blob = Vec::new();
    let flags = u32::from(row.real) | u32::from(row.irq) << 1;
    push(&mut blob, &[0, flags, row.cr0, row.cr3, row.cr4, row.efer]);
    push(&mut blob, &row.dr);
    push(&mut blob, &[row.dr7]);
    push(&mut blob, &[u32::from(row.gdt_limit) << 16, at::GDT]);
    push(&mut blob, &[u32::from(row.idt_limit) << 16, row.idt_base]);
    push(&mut blob, &[u32::from(at::LDT_SEL), u32::from(at::TSS_SEL)]);
    push(&mut blob, &row.gpr);
    push(
        &mut blob,
        &[row.eip, u32::from(row.cs), row.eflags, u32::from(row.ss)],
    );
    push(&mut blob, &row.data.map(u32::from));
    push(
        &mut blob,
        &[row.patches.len() as u32, row.watches.len() as u32],
    );
    for (address, bytes) in &row.patches {
        push(&mut blob, &[*address, bytes.len() as u32]);
        padded(&mut blob, bytes);
    }
    for &(address, len) in &row.watches {
        push(&mut blob, &[address, len]);
    }
    let size = blob.len() as u32;
    blob[..4].copy_from_slice(&size.to_le_bytes());
    blob
}

fn assemble(directory: &Path, name: &str, source: &str, defines: &[String]) -> Result<Vec<u8>> {
    let (input, output) = (directory.join(name), directory.join("out.bin"));
    std::fs::write(&input, source).context("cannot write the kernel's source")?;
    let mut command = Command::new("nasm");
    command
        .args(["-f", "bin", "-Wall", "-Werror", "-o"])
        .arg(&output);
    command.args(defines).arg(&input);
    let result = command
        .output()
        .context("cannot run nasm (Debian's package nasm has it)")?;
    if !result.status.success() {
        bail!(
            "nasm rejects {name}: {}",
            String::from_utf8_lossy(&result.stderr)
        );
    }
    std::fs::read(&output).context("cannot read what nasm made")
}

/// A ROM image that runs as many of the first rows as 1 MiB holds, and how many these are.
///
/// # Errors
/// Without nasm.
pub fn build(rows: &[Row]) -> Result<(Vec<u8>, usize)> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let kernel = assemble(directory.path(), "kernel.asm", KERNEL_SOURCE, &[])?;
    let Template { clear, data } = template();
    let mut head = Vec::new();
    push(&mut head, &[clear.len() as u32]);
    for (address, len) in clear {
        push(&mut head, &[address, len]);
    }
    push(&mut head, &[data.len() as u32]);
    for (address, bytes) in data {
        push(&mut head, &[address, bytes.len() as u32]);
        padded(&mut head, &bytes);
    }
    let room = LARGEST - kernel.len() - head.len() - 0x200;
    let mut body = Vec::new();
    let mut count = 0;
    for row in rows.iter().map(encode) {
        if body.len() + row.len() > room {
            break;
        }
        body.extend(row);
        count += 1;
    }
    if count == 0 {
        bail!("a row is larger than a ROM");
    }
    let mut image = kernel;
    push(&mut image, &[count as u32]);
    image.extend_from_slice(&head);
    image.extend(body);
    let used = image.len();
    let size = (used + 0x100).next_multiple_of(0x1_0000);
    let defines = [
        format!("-DROM_SIZE={size}"),
        format!("-DKERNEL_SIZE={used}"),
    ];
    let rom = assemble(directory.path(), "rom.asm", ROM_SOURCE, &defines)?;
    image.resize(size - rom.len(), 0);
    image.extend(rom);
    Ok((image, count))
}
