//! The checker rejects forbidden code, and accepts what the translator emits.

use super::fixed::fixed;
use super::{Neighbours, UnitCode, unit};
use crate::helper::AccessInfo;
use crate::off;
use crate::prelude::{Stubs, gpr_off, jump_cache_off};
use crate::state::GuestState;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};

const BASE: u64 = 0x1000_0000;

/// Addresses of the fixed code in these tests, near the unit.
fn stubs() -> Stubs {
    Stubs {
        exit_link: BASE - 0x1000,
        exit_end: BASE - 0xf00,
        jump_miss: BASE - 0xe00,
        return_lookup: [BASE - 0xd00, BASE - 0xc00],
        callout: BASE - 0xb00,
        soft_read: BASE - 0xa00,
        soft_write: BASE - 0x900,
        commit: BASE - 0x800,
        segment_check: BASE - 0x700,
        fpu_load: BASE - 0x600,
        ..Stubs::default()
    }
}

type Asm = dynasmrt::VecAssembler<dynasmrt::x64::X64Relocation>;

/// Assembles a unit and says what the checker finds first; empty if it passes.
fn verdict(write: impl FnOnce(&mut Asm)) -> String {
    let mut a = Asm::new(BASE as usize);
    write(&mut a);
    check(&a.finalize().unwrap(), None)
}

fn check(code: &[u8], hot: Option<u32>) -> String {
    let unit_code = UnitCode {
        base: BASE,
        code,
        hot: hot.unwrap_or(code.len() as u32),
        body: 0,
        table: 0,
        stubs: &stubs(),
        sites: 5..7,
        links: 3..4,
        exits: &[],
        marks: &[],
    };
    match unit(&unit_code, &Neighbours::NONE) {
        Ok(_) => String::new(),
        Err(v) => v[0].why.clone(),
    }
}

macro_rules! unit_code {
    ($($t:tt)*) => { verdict(|a| { dynasm!(a ; .arch x64 $($t)* ; jmp extern stubs().exit_end as usize); }) };
}

const TLB: i32 = off!(tlb);

/// A look-up of r13 for 4 bytes of reading, in table 0.
fn lookup(a: &mut Asm, tag: i32, bytes: i32) {
    dynasm!(a ; .arch x64
        ; lea r13d, [rax + 8]
        ; pext r14d, r13d, [r15 + off!(mask_index)]
        ; lea r14d, [r14 + r14]
        ; mov r9d, [r15 + r14 * 8 + tag]
        ; not r9d
        ; lea r9d, [r13 + r9 + bytes]
        ; pext r9d, r9d, [r15 + off!(mask_page)]
        ; mov r10, rcx ; mov ecx, r9d ; jrcxz >hit
        ; mov rcx, r10 ; jmp extern stubs().exit_end as usize
        ; hit: ; mov rcx, r10
        ; mov r14, [r15 + r14 * 8 + TLB + 8]
    );
}

#[track_caller]
fn rejects(verdict: &str, why: &str) {
    assert!(verdict.contains(why), "found {verdict:?}, expected {why:?}");
}

#[test]
fn what_the_translator_emits_is_accepted() {
    let info = AccessInfo::new(4, 0, true, true).0 as i32;
    assert_eq!(unit_code!(; mov eax, 7), "");
    assert_eq!(
        verdict(|a| {
            lookup(a, TLB, 4);
            dynasm!(a ; .arch x64 ; mov ebx, [r13 + r14] ; jmp extern stubs().exit_end as usize);
        }),
        ""
    );
    assert_eq!(
        unit_code!(
        ; mov r13d, 5 ; mov r9d, 0x1234 ; mov r10d, info ; call extern stubs().soft_write as usize
        ; add [r13 + r14], ebx ; mov r9d, 0 ; call extern stubs().commit as usize),
        ""
    );
    // gs:[eax+ebx*4+8]
    assert_eq!(unit_code!(; .bytes [0x65, 0x67, 0x8b, 0x44, 0x98, 8]), "");
}

#[test]
fn ways_into_the_kernel_and_host_state_are_rejected() {
    rejects(&unit_code!(; syscall), "enters the kernel");
    rejects(&unit_code!(; .bytes [0xcd, 0x80]), "enters the kernel");
    rejects(&unit_code!(; int3), "enters the kernel");
    rejects(&unit_code!(; .bytes [0x0f, 0x34]), "enters the kernel");
    rejects(&unit_code!(; hlt), "privileged");
    rejects(&unit_code!(; cpuid), "enters the kernel");
    rejects(&unit_code!(; rdtsc), "enters the kernel");
    rejects(&unit_code!(; in al, dx), "privileged");
    rejects(&unit_code!(; popfq), "enters the kernel");
    rejects(
        &unit_code!(; .bytes [0x8e, 0xd8]),
        "segment, control or debug register",
    );
    rejects(
        &unit_code!(; .bytes [0x0f, 0x01, 0xef]),
        "enters the kernel",
    ); // wrpkru
    rejects(
        &unit_code!(; .bytes [0xf3, 0x48, 0x0f, 0xae, 0xd8]),
        "enters the kernel",
    ); // wrgsbase rax
    rejects(
        &unit_code!(; .bytes [0x8c, 0xd8]),
        "segment, control or debug register",
    ); // mov eax, ds
    rejects(
        &unit_code!(; .bytes [0x0f, 0xff, 0xc0]),
        "enters the kernel",
    ); // ud0
}

#[test]
fn memory_outside_the_guest_is_rejected() {
    rejects(&unit_code!(; mov eax, [rbx]), "no permitted form");
    rejects(&unit_code!(; mov [rbx], eax), "no permitted form");
    rejects(
        &unit_code!(; mov eax, [rip + 16]),
        "relative to the instruction pointer",
    );
    rejects(
        &unit_code!(; .bytes [0x8b, 0x04, 0x25, 0, 0, 0, 0]),
        "absolute",
    ); // mov eax, [0]
    // gs:[rax]: 64-bit address; [eax]: no prefix; fs:[eax]; gs:[r15d]; gs:[eip].
    rejects(
        &unit_code!(; .bytes [0x65, 0x8b, 0x00]),
        "without 32-bit address size",
    );
    rejects(
        &unit_code!(; .bytes [0x67, 0x8b, 0x00]),
        "32-bit address outside",
    );
    rejects(
        &unit_code!(; .bytes [0x64, 0x67, 0x8b, 0x00]),
        "other than GS",
    );
    rejects(
        &unit_code!(; .bytes [0x65, 0x67, 0x41, 0x8b, 0x07]),
        "a window address made from R15D",
    );
    rejects(
        &unit_code!(; .bytes [0x65, 0x67, 0x8b, 0x05, 0, 0, 0, 0]),
        "relative to the instruction",
    );
    // bts gs:[eax], ecx reaches 256 MiB around.
    rejects(
        &unit_code!(; .bytes [0x65, 0x67, 0x0f, 0xab, 0x08]),
        "a bit offset",
    );
    // vpgatherdd, maskmovdqu, xlatb, movsb
    rejects(
        &unit_code!(; .bytes [0xc4, 0xe2, 0x75, 0x90, 0x04, 0x50]),
        "enters the kernel",
    );
    rejects(&unit_code!(; maskmovdqu xmm0, xmm1), "masked move to rdi");
    rejects(&unit_code!(; xlatb), "enters the kernel");
    rejects(&unit_code!(; movsb), "without a repeat prefix");
    rejects(&unit_code!(; rep movsb), "a repeat count");
}

#[test]
fn the_state_is_touched_only_in_its_known_fields() {
    assert_eq!(unit_code!(; mov BYTE [r15 + off!(if_flag)], 0), "");
    rejects(
        &unit_code!(; mov eax, [r15 + size_of::<GuestState>() as i32]),
        "outside GuestState",
    );
    rejects(&unit_code!(; mov eax, [r15 - 4]), "outside GuestState");
    rejects(&unit_code!(; mov eax, [r15 + off!(owner)]), "reads 4 bytes");
    rejects(
        &unit_code!(; mov eax, [r15 + off!(if_flag)]),
        "reads 4 bytes",
    );
    rejects(
        &unit_code!(; mov [r15 + off!(window_base)], eax),
        "writes 4 bytes",
    );
    rejects(&unit_code!(; mov [r15 + off!(cpl)], al), "writes 1 bytes");
    rejects(
        &unit_code!(; mov [r15 + off!(jump_cache)], eax),
        "writes 4 bytes",
    );
    rejects(&unit_code!(; mov DWORD [r15 + off!(exit_arg)], 9), "link 9");
    rejects(&unit_code!(; mov eax, [r15 + r14 * 8 + TLB]), "r15+r14*8");
    rejects(&unit_code!(; mov eax, [r15 + rax]), "no permitted form");
}

#[test]
fn soft_accesses_need_their_look_up() {
    rejects(
        &unit_code!(; mov r13d, 4 ; mov ebx, [r13 + r14]),
        "without a look-up",
    );
    let after = |tag: i32, bytes: i32, f: &dyn Fn(&mut Asm)| {
        verdict(|a| {
            lookup(a, tag, bytes);
            f(a);
            dynasm!(a ; .arch x64 ; jmp extern stubs().exit_end as usize);
        })
    };
    let read = |a: &mut Asm| dynasm!(a ; .arch x64 ; mov ebx, [r13 + r14]);
    assert_eq!(after(TLB, 4, &read), "");
    rejects(&after(TLB, 2, &read), "4 bytes at 0");
    rejects(&after(TLB + 8, 4, &read), "Delta"); // the delta instead of the tag
    rejects(
        &after(TLB, 4, &|a| dynasm!(a ; .arch x64 ; mov [r13 + r14], ebx)),
        "written: true",
    );
    rejects(
        &after(
            TLB,
            4,
            &|a| dynasm!(a ; .arch x64 ; mov ebx, [r13 + r14 + 4]),
        ),
        "4 bytes at 4",
    );
    rejects(
        &after(
            TLB,
            4,
            &|a| dynasm!(a ; .arch x64 ; mov r13d, eax ; mov ebx, [r13 + r14]),
        ),
        "without a look-up",
    );
    rejects(
        &after(TLB, 4, &|a| dynasm!(a ; .arch x64 ; mov eax, r14d)),
        "reads R14D",
    );
    rejects(
        &after(TLB, 4, &|a| dynasm!(a ; .arch x64 ; add r14d, 1)),
        "reads R14D",
    );
    rejects(
        &after(TLB, 4, &|a| dynasm!(a ; .arch x64 ; lea rax, [r13 + r14])),
        "guest register 0",
    );
    rejects(
        &after(TLB, 4, &|a| dynasm!(a ; .arch x64 ; mov rdx, r14)),
        "guest register 2",
    );
    let info = AccessInfo::new(4, 0, false, false).0 as i32;
    rejects(
        &unit_code!(; mov r13d, 5 ; mov r9d, 1 ; mov r10d, info ; call extern stubs().soft_read as usize
            ; mov [r13 + r14], ebx),
        "written: true",
    );
    rejects(
        &unit_code!(; mov r13d, 5 ; call extern stubs().soft_read as usize),
        "gets r9",
    );
    // A delta that was checked on one way only.
    rejects(
        &verdict(|a| {
            lookup(a, TLB, 4);
            dynasm!(a ; .arch x64 ; jz >out ; mov r13d, eax ; out: ; mov ebx, [r13 + r14]
                ; jmp extern stubs().exit_end as usize);
        }),
        "without a look-up",
    );
    // The delta of an entry whose tag did not match.
    rejects(
        &unit_code!(; mov r13d, 4 ; pext r14d, r13d, [r15 + off!(mask_index)] ; lea r14d, [r14 + r14]
            ; mov r14, [r15 + r14 * 8 + TLB + 8]),
        "a delta without a hit",
    );
}

#[test]
fn string_instructions_need_bounds() {
    let window = |a: &mut Asm| dynasm!(a ; .arch x64 ; mov r14, [r15 + off!(window_base)] ; lea rdi, [rdi + r14]);
    let counted = |a: &mut Asm| {
        dynasm!(a ; .arch x64 ; pext r14d, ecx, [r15 + off!(mask_long_count)]
            ; mov r10, rcx ; mov ecx, r14d ; jrcxz >few ; mov rcx, r10
            ; jmp extern stubs().exit_end as usize ; few: ; mov rcx, r10);
    };
    let end =
        |a: &mut Asm| dynasm!(a ; .arch x64 ; mov edi, edi ; jmp extern stubs().exit_end as usize);
    assert_eq!(
        verdict(|a| {
            counted(a);
            window(a);
            dynasm!(a ; .arch x64 ; rep stosd);
            end(a);
        }),
        ""
    );
    rejects(
        &verdict(|a| {
            window(a);
            dynasm!(a ; .arch x64 ; rep stosd);
            end(a);
        }),
        "a repeat count",
    );
    rejects(
        &verdict(|a| {
            counted(a);
            dynasm!(a ; .arch x64 ; rep stosd);
            end(a);
        }),
        "a string address",
    );
    rejects(
        &verdict(|a| {
            counted(a);
            window(a);
            dynasm!(a ; .arch x64 ; inc ecx ; rep stosd);
            end(a);
        }),
        "a repeat count",
    );
    rejects(
        &verdict(|a| {
            counted(a);
            window(a);
            dynasm!(a ; .arch x64 ; rep stosd ; rep stosd);
            end(a);
        }),
        "a repeat count",
    );
    rejects(
        &verdict(|a| {
            counted(a);
            window(a);
            dynasm!(a ; .arch x64 ; rep stosd ; jmp extern stubs().exit_end as usize);
        }),
        "guest register 7",
    );
}

#[test]
fn transfers_go_to_permitted_places_only() {
    rejects(&unit_code!(; mov r13d, 4 ; jmp rax), "an absolute");
    rejects(&unit_code!(; mov r13d, 4 ; call rax), "an absolute");
    rejects(
        &unit_code!(; mov r13d, 4 ; jmp QWORD [rax]),
        "no permitted form",
    );
    rejects(
        &unit_code!(; mov r13d, 4 ; jmp QWORD [r15 + off!(rip)]),
        "jumps by slot None",
    );
    rejects(
        &verdict(|a| dynasm!(a ; .arch x64 ; jmp extern 0x1234_5678)),
        "no exit and no unit",
    );
    rejects(
        &unit_code!(; call extern 0x1234_5678),
        "no helper and no unit",
    );
    rejects(
        &unit_code!(; mov r9d, 8 ; call extern stubs().callout as usize),
        "a callout with r9",
    );
    rejects(&verdict(|a| dynasm!(a ; .arch x64 ; mov eax, 1)), "runs on");
    rejects(
        &verdict(|a| dynasm!(a ; .arch x64 ; mov eax, [r15 + off!(fpu_live)] ; ret)),
        "returns",
    );
    rejects(&unit_code!(; jmp BYTE >x ; nop ; x:), "nothing reaches");
    // Into the middle of an instruction.
    rejects(
        &check(&[0xeb, 0x01, 0xb8, 0x90, 0x90, 0x90, 0x90, 0xc3], None),
        "middle of an instruction",
    );
    // A table of the other privilege, a slot of another address.
    let other = jump_cache_off(1);
    rejects(
        &verdict(
            |a| dynasm!(a ; .arch x64 ; mov r13d, 1 ; movzx r14d, r13w ; jmp QWORD [r15 + r14 * 8 + other]),
        ),
        "jumps by",
    );
    let slot = jump_cache_off(0) + 0x10 * 8;
    assert_eq!(
        verdict(|a| dynasm!(a ; .arch x64 ; mov r13d, 0x10 ; jmp QWORD [r15 + slot])),
        ""
    );
    rejects(
        &verdict(|a| dynasm!(a ; .arch x64 ; mov r13d, 0x11 ; jmp QWORD [r15 + slot])),
        "jumps by slot",
    );
    // From the hot half into the cold one.
    rejects(
        &check(&[0xb8, 1, 0, 0, 0, 0xc3], Some(5)),
        "beyond the end of its half",
    );
}

#[test]
fn pinned_registers_and_stack_are_rejected() {
    rejects(&unit_code!(; mov eax, r15d), "writes");
    rejects(&unit_code!(; mov r15d, eax), "writes");
    rejects(&unit_code!(; add esp, 4), "ESP");
    rejects(&unit_code!(; push rax), "enters the kernel");
    rejects(&unit_code!(; pop rax), "POP that PUSHFQ");
    rejects(&unit_code!(; pushfq), "POP R11 does not follow");
    assert_eq!(unit_code!(; pushfq ; pop r11), "");
    rejects(&unit_code!(; mov eax, r9d), "is Unset");
    rejects(&unit_code!(; add rax, 1), "64-bit");
    rejects(
        &unit_code!(; mov r11, [r15 + off!(poll_ptr)] ; mov eax, r11d),
        "is Readable",
    );
    rejects(
        &unit_code!(; mov r14, [r15 + off!(poll_ptr)] ; mov [r14], eax),
        "Pointee",
    );
    rejects(&unit_code!(; cld), "the string step does not");
}

#[test]
fn fixed_code_is_held_to_its_own_rules() {
    let fixed_verdict = |write: &dyn Fn(&mut Asm)| {
        let mut a = Asm::new(BASE as usize);
        write(&mut a);
        fixed(&a.finalize().unwrap(), BASE)
            .err()
            .map_or(String::new(), |v| v[0].why.clone())
    };
    let good = |a: &mut Asm| dynasm!(a ; .arch x64 ; mov [r15 + gpr_off(0)], rax ; ret);
    assert_eq!(fixed_verdict(&good), "");
    rejects(
        &fixed_verdict(&|a| dynasm!(a ; .arch x64 ; mov [rax], rax ; ret)),
        "no permitted form",
    );
    rejects(
        &fixed_verdict(&|a| dynasm!(a ; .arch x64 ; mov r15, rax ; ret)),
        "changes r15",
    );
    rejects(
        &fixed_verdict(&|a| dynasm!(a ; .arch x64 ; mov rsp, rax ; ret)),
        "changes rsp",
    );
    rejects(
        &fixed_verdict(&|a| dynasm!(a ; .arch x64 ; syscall)),
        "enters the kernel",
    );
    rejects(
        &fixed_verdict(&|a| dynasm!(a ; .arch x64 ; jmp rax)),
        "no permitted form",
    );
    rejects(
        &fixed_verdict(&|a| dynasm!(a ; .arch x64 ; call QWORD [r15 + off!(poll_ptr)])),
        "a call of no",
    );
    let poll = |a: &mut Asm| dynasm!(a ; .arch x64 ; mov r14, [r15 + off!(poll_ptr)] ; mov r14d, [r14] ; ret);
    assert_eq!(fixed_verdict(&poll), "");
    rejects(
        &fixed_verdict(
            &|a| dynasm!(a ; .arch x64 ; mov r14, [r15 + off!(rip)] ; mov r14d, [r14] ; ret),
        ),
        "no permitted form",
    );
    let look_up = |a: &mut Asm| dynasm!(a ; .arch x64 ; movzx r14d, r13w ; jmp QWORD [r15 + r14 * 8 + jump_cache_off(0)]);
    assert_eq!(fixed_verdict(&look_up), "");
    rejects(
        &fixed_verdict(
            &|a| dynasm!(a ; .arch x64 ; mov r14d, r13d ; jmp QWORD [r15 + r14 * 8 + jump_cache_off(0)]),
        ),
        "no permitted form",
    );
    rejects(
        &fixed_verdict(&|a| dynasm!(a ; .arch x64 ; mov [r15 + jump_cache_off(0)], rax)),
        "jump cache",
    );
}
