//! Descriptors, gates and task state segments as bytes. Intel SDM vol. 3A, 3.4.5, 5.8, 7.2.

/// Types of code and data segments, accessed bit set where the name says nothing else.
pub mod kind {
    /// Read-only data, not accessed.
    pub const DATA_R: u8 = 0x10;
    /// Writable data, not accessed.
    pub const DATA_W: u8 = 0x12;
    /// Expand-down writable data, not accessed.
    pub const DATA_DOWN: u8 = 0x16;
    /// Execute-only code, not accessed.
    pub const CODE_X: u8 = 0x18;
    /// Readable code, not accessed.
    pub const CODE_R: u8 = 0x1a;
    /// Readable conforming code, not accessed.
    pub const CONFORMING: u8 = 0x1e;
    /// Accessed.
    pub const ACCESSED: u8 = 1;
    /// Available 16-bit TSS.
    pub const TSS16: u8 = 1;
    /// LDT.
    pub const LDT: u8 = 2;
    /// Busy bit of a TSS.
    pub const BUSY: u8 = 2;
    /// 16-bit call gate.
    pub const CALL16: u8 = 4;
    /// Task gate.
    pub const TASK: u8 = 5;
    /// 16-bit interrupt gate.
    pub const INT16: u8 = 6;
    /// 16-bit trap gate.
    pub const TRAP16: u8 = 7;
    /// Available 32-bit TSS.
    pub const TSS32: u8 = 9;
    /// 32-bit call gate.
    pub const CALL32: u8 = 12;
    /// 32-bit interrupt gate.
    pub const INT32: u8 = 14;
    /// 32-bit trap gate.
    pub const TRAP32: u8 = 15;
}

/// Granularity and size flags of a segment descriptor.
pub mod flag {
    /// G: the limit counts 4 KiB.
    pub const G: u8 = 8;
    /// D or B.
    pub const BIG: u8 = 4;
}

/// A segment descriptor. `kind` has five bits (S and type).
#[must_use]
pub fn segment(base: u32, limit: u32, kind: u8, dpl: u8, present: bool, flags: u8) -> u64 {
    let access = u64::from(kind & 0x1f | dpl << 5 | u8::from(present) << 7);
    let (base, limit) = (u64::from(base), u64::from(limit));
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 15) << 48
        | u64::from(flags) << 52
        | (base >> 24) << 56
}

/// A flat present segment with 4 GiB and B or D set.
#[must_use]
pub fn flat(kind: u8, dpl: u8) -> u64 {
    segment(0, 0xf_ffff, kind, dpl, true, flag::G | flag::BIG)
}

/// A gate descriptor; `count` only for call gates.
#[must_use]
pub fn gate(kind: u8, dpl: u8, present: bool, selector: u16, offset: u32, count: u8) -> u64 {
    let access = u64::from(kind & 0x1f | dpl << 5 | u8::from(present) << 7);
    let offset = u64::from(offset);
    offset & 0xffff
        | u64::from(selector) << 16
        | u64::from(count) << 32
        | access << 40
        | (offset >> 16) << 48
}

/// A 32-bit TSS's contents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tss32 {
    /// Previous task link.
    pub link: u16,
    /// Stacks of rings 0-2: ESP, SS.
    pub stacks: [(u32, u16); 3],
    /// CR3.
    pub cr3: u32,
    /// EIP.
    pub eip: u32,
    /// EFLAGS.
    pub eflags: u32,
    /// EAX ECX EDX EBX ESP EBP ESI EDI.
    pub gpr: [u32; 8],
    /// ES CS SS DS FS GS.
    pub segments: [u16; 6],
    /// LDT selector.
    pub ldt: u16,
    /// T: trap when the task is entered.
    pub trap: bool,
    /// I/O map base.
    pub io_map: u16,
}

impl Tss32 {
    /// The 104 bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut words = vec![u32::from(self.link)];
        for (esp, ss) in self.stacks {
            words.extend([esp, u32::from(ss)]);
        }
        words.extend([self.cr3, self.eip, self.eflags]);
        words.extend(self.gpr);
        words.extend(self.segments.map(u32::from));
        words.push(u32::from(self.ldt));
        words.push(u32::from(self.trap) | u32::from(self.io_map) << 16);
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }
}

/// A 16-bit TSS's contents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tss16 {
    /// Previous task link.
    pub link: u16,
    /// Stacks of rings 0-2: SP, SS.
    pub stacks: [(u16, u16); 3],
    /// IP.
    pub ip: u16,
    /// FLAGS.
    pub flags: u16,
    /// AX CX DX BX SP BP SI DI.
    pub gpr: [u16; 8],
    /// ES CS SS DS.
    pub segments: [u16; 4],
    /// LDT selector.
    pub ldt: u16,
}

impl Tss16 {
    /// The 44 bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut words = vec![self.link];
        for (sp, ss) in self.stacks {
            words.extend([sp, ss]);
        }
        words.extend([self.ip, self.flags]);
        words.extend(self.gpr);
        words.extend(self.segments);
        words.push(self.ldt);
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }
}
