//! Where things lie in the rows' machine. `kernel/kernel.asm` has the same numbers.

/// The kernel; its stubs lie in the first 64 KiB.
pub const KERNEL: u32 = 0x20_0000;
/// The rows' tables, stacks, code and data.
pub const ARENA: u32 = 0x60_0000;
/// Global descriptor table, 512 entries.
pub const GDT: u32 = ARENA;
/// Interrupt descriptor table.
pub const IDT: u32 = ARENA + 0x1000;
/// Local descriptor table, 128 entries.
pub const LDT: u32 = ARENA + 0x2000;
/// The current task's 32-bit TSS. Up to 700h bytes.
pub const TSS: u32 = ARENA + 0x3000;
/// The TSS of the task that takes double faults.
pub const HANDLER_TSS: u32 = ARENA + 0x3800;
/// A second TSS for the rows' use.
pub const TSS2: u32 = ARENA + 0x3900;
/// A third.
pub const TSS3: u32 = ARENA + 0x3a00;
/// Page directory, 32-bit paging.
pub const PD: u32 = ARENA + 0x8000;
/// Page table of [`TEST`], 32-bit paging.
pub const PT: u32 = ARENA + 0x9000;
/// Page-directory-pointer table.
pub const PDPT: u32 = ARENA + 0xa000;
/// Page directories of PAE paging, one for each GiB.
pub const PAE_PD: u32 = ARENA + 0xb000;
/// Page table of [`TEST`], PAE paging.
pub const PAE_PT: u32 = ARENA + 0xf000;
/// Identity page tables, 32-bit paging (two) and PAE (four): the first 8 MiB.
pub const IDENTITY: u32 = ARENA + 0x1_0000;
/// See [`IDENTITY`].
pub const PAE_IDENTITY: u32 = ARENA + 0x1_2000;
/// Stack tops: ring 0 from outside, rings 1 and 2 from outside, of the rows' own code, of the
/// double-fault task, and one more.
pub const STACK0: u32 = ARENA + 0x2_1000;
/// See [`STACK0`].
pub const STACK1: u32 = ARENA + 0x2_2000;
/// See [`STACK0`].
pub const STACK2: u32 = ARENA + 0x2_3000;
/// See [`STACK0`].
pub const ROW_STACK: u32 = ARENA + 0x2_4000;
/// See [`STACK0`].
pub const HANDLER_STACK: u32 = ARENA + 0x2_5000;
/// See [`STACK0`].
pub const OTHER_STACK: u32 = ARENA + 0x2_6000;
/// The rows' code.
pub const CODE: u32 = ARENA + 0x3_0000;
/// Where transfers of control lead.
pub const TARGET: u32 = ARENA + 0x3_1000;
/// The rows' data, two pages.
pub const DATA: u32 = ARENA + 0x4_0000;
/// Linear addresses for paging rows: mapped by [`PT`] or [`PAE_PT`] only.
pub const TEST: u32 = 0x4000_0000;
/// Real-mode and V8086 code, data and stack: segments 1000h, 3000h, 2000h.
pub const LOW_CODE: u32 = 0x1_0000;
/// See [`LOW_CODE`].
pub const LOW_DATA: u32 = 0x3_0000;
/// See [`LOW_CODE`].
pub const LOW_STACK: u32 = 0x2_0000;

/// Flat 32-bit code, DPL 0.
pub const CODE0: u16 = 0x08;
/// Flat data, DPL 0.
pub const DATA0: u16 = 0x10;
/// 32-bit code based at [`KERNEL`], for 16-bit gates.
pub const STUBS: u16 = 0x18;
/// The current task's TSS.
pub const TSS_SEL: u16 = 0x20;
/// The double-fault task's TSS.
pub const HANDLER_SEL: u16 = 0x28;
/// The LDT.
pub const LDT_SEL: u16 = 0x40;
/// Flat code, DPL 1 to 3 (with RPL).
pub const CODE1: u16 = 0x49;
/// See [`CODE1`].
pub const DATA1: u16 = 0x51;
/// See [`CODE1`].
pub const CODE2: u16 = 0x5a;
/// See [`CODE1`].
pub const DATA2: u16 = 0x62;
/// See [`CODE1`].
pub const CODE3: u16 = 0x6b;
/// See [`CODE1`].
pub const DATA3: u16 = 0x73;
/// The first selectors that rows may define.
pub const FREE: u16 = 0x80;

/// Flat code of a ring.
#[must_use]
pub const fn code_of(cpl: u8) -> u16 {
    [CODE0, CODE1, CODE2, CODE3][cpl as usize]
}
/// Flat data of a ring.
#[must_use]
pub const fn data_of(cpl: u8) -> u16 {
    [DATA0, DATA1, DATA2, DATA3][cpl as usize]
}
/// The kernel's handler of a vector, for 32-bit gates to [`CODE0`].
#[must_use]
pub const fn stub(vector: u8) -> u32 {
    KERNEL + 0x10 + vector as u32 * 16
}
/// The same for gates to [`STUBS`].
#[must_use]
pub const fn stub16(vector: u8) -> u32 {
    stub(vector) - KERNEL
}
/// Where a handler task of a vector (0-31) begins.
#[must_use]
pub const fn task_stub(vector: u8) -> u32 {
    KERNEL + 0x1010 + vector as u32 * 16
}
/// The handler of a vector in real mode: offset in segment 0.
#[must_use]
pub const fn low_stub(vector: u8) -> u32 {
    0x7100 + vector as u32 * 8
}
