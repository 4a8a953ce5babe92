//! A row: a state, some instructions, and what must be found when they have ended.

use crate::descriptor::{Tss32, gate, kind, segment};
use crate::deviation::Deviation;
use crate::layout as at;
use crate::record::{BY_TASK, REAL, SHUTDOWN};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;

/// CR0 of rows without paging: PE, MP, ET, NE.
pub const CR0: u32 = 0x33;
/// CR0.WP.
pub const WP: u32 = 1 << 16;
/// CR0.PG.
pub const PG: u32 = 1 << 31;
/// CR4.PSE.
pub const PSE: u32 = 1 << 4;
/// CR4.PAE.
pub const PAE: u32 = 1 << 5;
/// CR4.PGE.
pub const PGE: u32 = 1 << 7;
/// EFER.NXE.
pub const NXE: u32 = 1 << 11;

/// EFLAGS bits.
pub mod eflags {
    #![allow(missing_docs)] // the manual's names
    pub const CF: u32 = 1;
    pub const FIXED: u32 = 2;
    pub const ZF: u32 = 0x40;
    pub const TF: u32 = 0x100;
    pub const IF: u32 = 0x200;
    pub const DF: u32 = 0x400;
    pub const IOPL: u32 = 0x3000;
    pub const NT: u32 = 0x4000;
    pub const RF: u32 = 0x1_0000;
    pub const VM: u32 = 0x2_0000;
    pub const AC: u32 = 0x4_0000;
    pub const VIF: u32 = 0x8_0000;
    pub const VIP: u32 = 0x10_0000;
    pub const ID: u32 = 0x20_0000;
}

/// General registers by number.
pub mod gpr {
    #![allow(missing_docs)] // the manual's names
    pub const EAX: u8 = 0;
    pub const ECX: u8 = 1;
    pub const EDX: u8 = 2;
    pub const EBX: u8 = 3;
    pub const ESP: u8 = 4;
    pub const EBP: u8 = 5;
    pub const ESI: u8 = 6;
    pub const EDI: u8 = 7;
}

/// Something that a row can expect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// What ended the row: the vector, plus one of the marks of [`crate::record`].
    Kind,
    /// The error code on the handler's stack.
    Error,
    /// The saved EIP.
    Eip,
    /// The saved CS.
    Cs,
    /// The saved EFLAGS.
    Eflags,
    /// ESP of the interrupted code.
    Esp,
    /// SS of the interrupted code.
    Ss,
    /// DS (in V8086 mode: the saved one), and so on.
    Ds,
    /// ES.
    Es,
    /// FS.
    Fs,
    /// GS.
    Gs,
    /// A general register.
    Gpr(u8),
    /// The handler's CS.
    HandlerCs,
    /// The handler's SS.
    HandlerSs,
    /// The handler's ESP.
    HandlerEsp,
    /// The handler's EFLAGS.
    HandlerFlags,
    /// CR0.
    Cr0,
    /// CR2.
    Cr2,
    /// CR3.
    Cr3,
    /// CR4.
    Cr4,
    /// DR6.
    Dr6,
    /// DR7.
    Dr7,
    /// TR.
    Tr,
    /// LDTR.
    Ldtr,
    /// Four bytes of memory (fewer at the end of a watched range).
    Mem(u32),
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Gpr(n) => {
                ["EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"][usize::from(n & 7)]
            }
            Self::Mem(address) => return write!(f, "[{address:#x}]"),
            Self::Kind => "kind",
            Self::Error => "error",
            Self::Eip => "EIP",
            Self::Cs => "CS",
            Self::Eflags => "EFLAGS",
            Self::Esp => "saved ESP",
            Self::Ss => "SS",
            Self::Ds => "DS",
            Self::Es => "ES",
            Self::Fs => "FS",
            Self::Gs => "GS",
            Self::HandlerCs => "handler's CS",
            Self::HandlerSs => "handler's SS",
            Self::HandlerEsp => "handler's ESP",
            Self::HandlerFlags => "handler's EFLAGS",
            Self::Cr0 => "CR0",
            Self::Cr2 => "CR2",
            Self::Cr3 => "CR3",
            Self::Cr4 => "CR4",
            Self::Dr6 => "DR6",
            Self::Dr7 => "DR7",
            Self::Tr => "TR",
            Self::Ldtr => "LDTR",
        };
        f.write_str(name)
    }
}

/// One expectation.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Of what.
    pub field: Field,
    /// Which bits.
    pub mask: u32,
    /// Their value.
    pub value: u32,
}

/// A row under construction, and complete.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the report calls it.
    pub name: String,
    /// Starts in real mode.
    pub real: bool,
    /// An interrupt request (vector 23h) waits.
    pub irq: bool,
    /// Control registers.
    pub cr0: u32,
    /// See `cr0`.
    pub cr3: u32,
    /// See `cr0`.
    pub cr4: u32,
    /// EFER.
    pub efer: u32,
    /// DR0-DR3.
    pub dr: [u32; 4],
    /// DR7.
    pub dr7: u32,
    /// GDT limit.
    pub gdt_limit: u16,
    /// IDT limit.
    pub idt_limit: u16,
    /// IDT base.
    pub idt_base: u32,
    /// General registers; ESP too.
    pub gpr: [u32; 8],
    /// EIP.
    pub eip: u32,
    /// CS.
    pub cs: u16,
    /// EFLAGS.
    pub eflags: u32,
    /// SS.
    pub ss: u16,
    /// DS, ES, FS, GS.
    pub data: [u16; 4],
    /// Code is 16-bit.
    pub code16: bool,
    /// Memory to be written beforehand.
    pub patches: Vec<(u32, Vec<u8>)>,
    /// Memory to be looked at afterwards.
    pub watches: Vec<(u32, u32)>,
    /// What is expected.
    pub checks: Vec<Check>,
    /// The event came through a 16-bit gate.
    pub narrow_frame: bool,
    /// Whether there is an error code; `None`: by the vector.
    pub error_code: Option<bool>,
    /// Why QEMU fails here.
    pub deviation: Option<Deviation>,
    /// Linear address of what is assembled next, minus the address that the code is assembled for.
    cursor: u32,
    /// Linear address of EIP 0.
    code_base: u32,
}

impl Row {
    /// Ring 0, flat, no paging.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            real: false,
            irq: false,
            cr0: CR0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            dr: [0; 4],
            dr7: 0x400,
            gdt_limit: 0xfff,
            idt_limit: 0x7ff,
            idt_base: at::IDT,
            gpr: [
                0xa0a0_a0a0,
                0xc1c1_c1c1,
                0xd2d2_d2d2,
                0xb3b3_b3b3,
                at::ROW_STACK,
                0xb5b5_b5b5,
                0x5656_5656,
                0xd7d7_d7d7,
            ],
            eip: at::CODE,
            cs: at::CODE0,
            eflags: eflags::FIXED,
            ss: at::DATA0,
            data: [at::DATA0, at::DATA0, 0, 0],
            code16: false,
            patches: Vec::new(),
            watches: Vec::new(),
            checks: Vec::new(),
            narrow_frame: false,
            error_code: None,
            deviation: None,
            cursor: at::CODE,
            code_base: 0,
        }
    }

    /// In that ring, with its flat segments.
    #[must_use]
    pub fn cpl(mut self, cpl: u8) -> Self {
        self.cs = at::code_of(cpl);
        self.ss = at::data_of(cpl);
        self.data = [at::data_of(cpl), at::data_of(cpl), 0, 0];
        self
    }

    /// V8086 mode, with the low segments.
    #[must_use]
    pub fn v86(mut self, iopl: u32) -> Self {
        self.low();
        self.eflags |= eflags::VM | iopl << 12;
        self
    }

    /// Real mode, with the low segments; every vector leads to the kernel.
    #[must_use]
    pub fn real_mode(mut self) -> Self {
        self.low();
        self.real = true;
        self.cr0 &= !1;
        self.idt_limit = 0x3ff;
        self.idt_base = 0;
        let table = (0..=255).flat_map(|v| at::low_stub(v).to_le_bytes());
        self.patches.push((0, table.collect()));
        self
    }

    fn low(&mut self) {
        self.cs = (at::LOW_CODE >> 4) as u16;
        self.ss = (at::LOW_STACK >> 4) as u16;
        self.data = [(at::LOW_DATA >> 4) as u16; 4];
        self.gpr[4] = 0x8000;
        self.eip = 0;
        self.code16 = true;
        self.cursor = at::LOW_CODE;
        self.code_base = at::LOW_CODE;
    }

    /// 32-bit paging, first 8 MiB identity for everyone.
    #[must_use]
    pub fn paging(mut self) -> Self {
        self.cr0 |= PG;
        self.cr3 = at::PD;
        self.handler_cr3()
    }

    /// PAE paging, the same.
    #[must_use]
    pub fn pae(mut self) -> Self {
        self.cr0 |= PG;
        self.cr4 |= PAE;
        self.cr3 = at::PDPT;
        self.handler_cr3()
    }

    fn handler_cr3(mut self) -> Self {
        let cr3 = self.cr3.to_le_bytes().to_vec();
        self.patches.push((at::HANDLER_TSS + 28, cr3));
        self
    }

    /// Bytes at a physical address.
    pub fn put(&mut self, address: u32, bytes: &[u8]) {
        self.patches.push((address, bytes.to_vec()));
    }

    /// A dword at a physical address.
    pub fn put32(&mut self, address: u32, value: u32) {
        self.put(address, &value.to_le_bytes());
    }

    /// A descriptor of the GDT, or of the LDT if the selector says so.
    pub fn descriptor(&mut self, selector: u16, value: u64) {
        let table = if selector & 4 == 0 { at::GDT } else { at::LDT };
        self.put(table + u32::from(selector & !7), &value.to_le_bytes());
    }

    /// A gate of the IDT.
    pub fn gate(&mut self, vector: u8, value: u64) {
        self.put(at::IDT + u32::from(vector) * 8, &value.to_le_bytes());
    }

    /// A vector's own handler, open to that ring.
    pub fn open_vector(&mut self, vector: u8, dpl: u8) {
        self.handler_gate(vector, kind::INT32, dpl);
    }

    /// A gate of type `k` to a vector's own handler; true if it is one of 16 bits.
    pub fn handler_gate(&mut self, vector: u8, k: u8, dpl: u8) -> bool {
        let narrow = matches!(k, kind::INT16 | kind::TRAP16);
        let (selector, offset) = if narrow {
            (at::STUBS, at::stub16(vector))
        } else {
            (at::CODE0, at::stub(vector))
        };
        self.gate(vector, gate(k, dpl, true, selector, offset, 0));
        narrow
    }

    /// A 32-bit task of ring 0 that begins at [`at::TARGET`]: its descriptor, and its TSS at
    /// [`at::TSS2`].
    pub fn plain_task(&mut self, selector: u16) {
        self.descriptor(selector, segment(at::TSS2, 0x67, kind::TSS32, 0, true, 0));
        let tss = Tss32 {
            eip: at::TARGET,
            eflags: eflags::FIXED,
            gpr: [0, 0, 0, 0, at::OTHER_STACK, 0, 0, 0],
            segments: [at::DATA0, at::CODE0, at::DATA0, at::DATA0, 0, 0],
            io_map: 0x68,
            ..Tss32::default()
        };
        self.put(at::TSS2, &tss.bytes());
    }

    /// A task gate for a vector: its handler is a task of its own, which needs nothing of the
    /// row's stack or segments.
    pub fn task_vector(&mut self, vector: u8) {
        self.gate(vector, gate(kind::TASK, 0, true, at::HANDLER_SEL, 0, 0));
        self.put32(at::HANDLER_TSS + 32, at::task_stub(vector));
    }

    /// The handler task's contents, as the template has them.
    #[must_use]
    pub fn handler_tss() -> Tss32 {
        Tss32 {
            eip: at::task_stub(8),
            eflags: eflags::FIXED,
            gpr: [0, 0, 0, 0, at::HANDLER_STACK, 0, 0, 0],
            segments: [at::DATA0, at::CODE0, at::DATA0, at::DATA0, 0, 0],
            io_map: 0x68,
            ..Tss32::default()
        }
    }

    /// Moves to a linear address; the code there runs with CS base `base`.
    pub fn org(&mut self, linear: u32, base: u32) {
        self.cursor = linear;
        self.code_base = base;
    }

    /// The EIP of what is assembled next.
    #[must_use]
    pub fn here(&self) -> u32 {
        self.cursor.wrapping_sub(self.code_base)
    }

    /// Assembles instructions and returns the EIP of the first.
    ///
    /// # Panics
    /// If they cannot be encoded: the table is wrong.
    pub fn asm(&mut self, f: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> u32 {
        let start = self.here();
        let bits = if self.code16 { 16 } else { 32 };
        let mut a = CodeAssembler::new(bits).expect("16 and 32 are bitnesses");
        f(&mut a).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let bytes = a
            .assemble(u64::from(start))
            .unwrap_or_else(|e| panic!("{}: {e}", self.name));
        self.bytes(&bytes)
    }

    /// Puts raw instruction bytes and returns the EIP of the first.
    pub fn bytes(&mut self, bytes: &[u8]) -> u32 {
        let start = self.here();
        self.put(self.cursor, bytes);
        self.cursor = self.cursor.wrapping_add(bytes.len() as u32);
        start
    }

    /// The row's end: UD2, which must be reached.
    pub fn ends(&mut self) -> u32 {
        let eip = self.bytes(&[0x0f, 0x0b]);
        self.fault(6, None, eip);
        eip
    }

    /// UD2, which must not be reached.
    pub fn stop(&mut self) -> u32 {
        self.bytes(&[0x0f, 0x0b])
    }

    /// The row ends by this exception, through its gate.
    pub fn fault(&mut self, vector: u8, error: Option<u32>, eip: u32) {
        let mark = if self.real { REAL } else { 0 };
        self.expect(Field::Kind, mark + u32::from(vector));
        if let Some(error) = error {
            self.expect(Field::Error, error);
        }
        self.expect(Field::Eip, eip);
    }

    /// The row ends by a fault whose handler is a task.
    pub fn fault_by_task(&mut self, vector: u8, error: Option<u32>) {
        self.expect(Field::Kind, BY_TASK + u32::from(vector));
        if let Some(error) = error {
            self.expect(Field::Error, error);
        }
    }

    /// The row ends by a shutdown.
    pub fn shuts_down(&mut self) {
        self.expect(Field::Kind, SHUTDOWN);
    }

    /// Expects a value.
    pub fn expect(&mut self, field: Field, value: u32) {
        self.expect_bits(field, u32::MAX, value);
    }

    /// Expects some bits of a value.
    pub fn expect_bits(&mut self, field: Field, mask: u32, value: u32) {
        if let Field::Mem(address) = field
            && !self.watched(address)
        {
            self.watches.push((address, 4));
        }
        self.checks.push(Check {
            field,
            mask,
            value: value & mask,
        });
    }

    /// Expects saved EFLAGS, except RF.
    pub fn expect_flags(&mut self, value: u32) {
        self.expect_bits(Field::Eflags, !eflags::RF, value);
    }

    fn watched(&self, address: u32) -> bool {
        self.watches.iter().any(|&(at, len)| {
            at <= address && address < at + len && (address - at).is_multiple_of(4)
        })
    }

    /// Expects two bytes of memory.
    pub fn expect16(&mut self, address: u32, value: u16) {
        self.expect_bits(Field::Mem(address), 0xffff, u32::from(value));
    }
}

/// Rows with their place in the manual.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name on the command line.
    pub name: &'static str,
    /// The manual's section.
    pub source: &'static str,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Table {
    /// A table.
    #[must_use]
    pub fn new(name: &'static str, source: &'static str, rows: Vec<Row>) -> Self {
        Self { name, source, rows }
    }

    /// Every n-th row, so that about `most` are left: a large table is a product of few variables.
    #[must_use]
    pub fn sample(mut self, most: usize) -> Self {
        // Odd, so that it has no factor in common with what varies by twos and fours.
        let nth = self.rows.len().div_ceil(most) | 1;
        self.rows = self.rows.into_iter().step_by(nth).collect();
        self
    }
}

/// Names the deviation of the rows whose name satisfies `which`.
///
/// # Panics
/// If there is none: the table is wrong.
pub fn deviate(rows: &mut [Row], deviation: Deviation, which: impl Fn(&str) -> bool) {
    let mut found = false;
    for row in rows.iter_mut().filter(|row| which(&row.name)) {
        row.deviation = Some(deviation);
        found = true;
    }
    assert!(found, "no row has the deviation {}", deviation.name);
}
