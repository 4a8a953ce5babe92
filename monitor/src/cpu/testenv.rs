//! A machine for unit tests: flat memory without paging, recorded ports, and builders of
//! descriptor tables.
//!
//! [`machine`] gives a protected-mode processor in ring 0 with a 32-bit TSS and these selectors.

use crate::cpu::descriptor::Descriptor;
use crate::cpu::env::{Access, Env, Privilege, TlbFlush};
use crate::cpu::fault::Fault;
use ring3_translator::addr::{LinAddr, PhysAddr};
use ring3_translator::state::{GuestState, SegReg, TableReg, cr0, gpr};
use ring3_translator::state_box::StateBox;

/// Bytes of test memory.
pub(crate) const MEMORY: usize = 0x4_0000;
/// Linear address of the GDT (0x20 entries).
pub(crate) const GDT_BASE: u64 = 0x1000;
/// Linear address of the IDT (256 entries).
pub(crate) const IDT_BASE: u64 = 0x2000;
/// Linear address of the current 32-bit TSS (limit 0x67 plus a full I/O map).
pub(crate) const TSS_BASE: u64 = 0x4000;
/// Ring 0 stack pointer of the TSS.
pub(crate) const KERNEL_ESP: u32 = 0x9000;
/// Flat ring 0 code.
pub(crate) const CODE0: u16 = 0x08;
/// Flat ring 0 data.
pub(crate) const DATA0: u16 = 0x10;
/// Flat ring 3 code, with RPL 3.
pub(crate) const CODE3: u16 = 0x1b;
/// Flat ring 3 data, with RPL 3.
pub(crate) const DATA3: u16 = 0x23;
/// The current TSS.
pub(crate) const TSS: u16 = 0x28;

/// See the module's text.
pub(crate) struct FlatEnv {
    pub(crate) memory: Vec<u8>,
    /// Pages (by address) whose access raises #PF.
    pub(crate) fault_pages: Vec<u64>,
    /// Pages whose write raises #PF.
    pub(crate) read_only_pages: Vec<u64>,
    /// Calls of `read`.
    pub(crate) reads: usize,
    /// Calls of `write`.
    pub(crate) writes: usize,
    /// What `port_in` answers, by port.
    pub(crate) port_values: Vec<(u16, u32)>,
    /// Port accesses: port, size, and the value written.
    pub(crate) port_log: Vec<(u16, u8, Option<u32>)>,
    /// TLB flushes.
    pub(crate) flushes: Vec<TlbFlush>,
    /// INVLPG addresses.
    pub(crate) invalidated: Vec<LinAddr>,
    /// What `read_pdptes` answers.
    pub(crate) pdptes: [u64; 4],
    /// What `tsc` answers.
    pub(crate) tsc: u64,
    /// What `timers_overdue` answers, once.
    pub(crate) timers_overdue: bool,
    /// What `event_waiting` answers.
    pub(crate) event_waiting: bool,
}

impl FlatEnv {
    pub(crate) fn new() -> Self {
        Self {
            memory: vec![0; MEMORY],
            fault_pages: Vec::new(),
            read_only_pages: Vec::new(),
            reads: 0,
            writes: 0,
            port_values: Vec::new(),
            port_log: Vec::new(),
            flushes: Vec::new(),
            invalidated: Vec::new(),
            pdptes: [0; 4],
            tsc: 0,
            timers_overdue: false,
            event_waiting: false,
        }
    }

    fn check(&self, at: LinAddr, len: usize, write: bool, who: Privilege) -> Result<(), Fault> {
        let user = if who == Privilege::User { 4 } else { 0 };
        for n in 0..len as u32 {
            let byte = at.add32(n);
            let page = byte.page().0;
            let absent = byte.0 >= self.memory.len() as u64 || self.fault_pages.contains(&page);
            if absent || (write && self.read_only_pages.contains(&page)) {
                return Err(Fault::page(
                    byte.0,
                    user | u32::from(write) << 1 | u32::from(!absent),
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    pub(crate) fn put16(&mut self, at: u64, value: u16) {
        self.put(at, &value.to_le_bytes());
    }
    pub(crate) fn put32(&mut self, at: u64, value: u32) {
        self.put(at, &value.to_le_bytes());
    }
    pub(crate) fn put64(&mut self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }
    pub(crate) fn get16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.memory[at as usize..][..2].try_into().unwrap())
    }
    pub(crate) fn get32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.memory[at as usize..][..4].try_into().unwrap())
    }
    pub(crate) fn get64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.memory[at as usize..][..8].try_into().unwrap())
    }
    /// `N` doublewords from `at`.
    pub(crate) fn dwords<const N: usize>(&self, at: u32) -> [u32; N] {
        core::array::from_fn(|n| self.get32(u64::from(at) + 4 * n as u64))
    }
    /// `N` words from `at`.
    pub(crate) fn words<const N: usize>(&self, at: u32) -> [u16; N] {
        core::array::from_fn(|n| self.get16(u64::from(at) + 2 * n as u64))
    }
    /// Writes the GDT entry of `selector`.
    pub(crate) fn gdt(&mut self, selector: u16, raw: u64) {
        self.put64(GDT_BASE + u64::from(selector & 0xfff8), raw);
    }
    /// Writes an IDT entry.
    pub(crate) fn idt(&mut self, vector: u8, raw: u64) {
        self.put64(IDT_BASE + u64::from(vector) * 8, raw);
    }
}

impl Env for FlatEnv {
    fn read(
        &mut self,
        _: &mut GuestState,
        at: LinAddr,
        buf: &mut [u8],
        who: Privilege,
    ) -> Result<(), Fault> {
        self.reads += 1;
        if !self.fault_pages.is_empty() || at.0 as usize + buf.len() > self.memory.len() {
            self.check(at, buf.len(), false, who)?;
        }
        buf.copy_from_slice(&self.memory[at.0 as usize..][..buf.len()]);
        Ok(())
    }
    fn write(
        &mut self,
        _: &mut GuestState,
        at: LinAddr,
        data: &[u8],
        who: Privilege,
    ) -> Result<(), Fault> {
        self.writes += 1;
        let special = !self.fault_pages.is_empty() || !self.read_only_pages.is_empty();
        if special || at.0 as usize + data.len() > self.memory.len() {
            self.check(at, data.len(), true, who)?;
        }
        self.memory[at.0 as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }
    fn probe(
        &mut self,
        _: &mut GuestState,
        at: LinAddr,
        len: u32,
        access: Access,
        who: Privilege,
    ) -> Result<(), Fault> {
        self.check(at, len as usize, access == Access::Write, who)
    }
    fn ram_address(
        &mut self,
        _: &mut GuestState,
        at: LinAddr,
        access: Access,
        who: Privilege,
    ) -> Option<PhysAddr> {
        let vga = 0xa_0000..0xc_0000;
        let ram = self.check(at, 1, access == Access::Write, who).is_ok() && !vga.contains(&at.0);
        ram.then_some(PhysAddr(at.0))
    }
    fn flush_tlb(&mut self, _: &mut GuestState, what: TlbFlush) {
        self.flushes.push(what);
    }
    fn invalidate_page(&mut self, _: &mut GuestState, at: LinAddr) {
        self.invalidated.push(at);
    }
    fn read_pdptes(&mut self, _: u64) -> [u64; 4] {
        self.pdptes
    }
    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        self.port_log.push((port, size, None));
        self.port_values
            .iter()
            .find(|p| p.0 == port)
            .map_or(u32::MAX, |p| p.1)
    }
    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        self.port_log.push((port, size, Some(value)));
    }
    fn tsc(&mut self) -> u64 {
        self.tsc
    }
    fn timers_overdue(&mut self) -> bool {
        std::mem::take(&mut self.timers_overdue)
    }
    fn event_waiting(&mut self) -> bool {
        self.event_waiting
    }
}

/// A segment descriptor from base, raw 20-bit limit and rights (the layout of `SegAttr`).
pub(crate) const fn segment(base: u32, limit: u32, attr: u16) -> u64 {
    (limit & 0xffff) as u64
        | (base as u64 & 0xff_ffff) << 16
        | (attr as u64) << 40
        | (limit as u64 & 0xf_0000) << 32
        | (base as u64 >> 24) << 56
}

/// A gate; `attr` is the access byte (0x8e: present 32-bit interrupt gate of DPL 0).
pub(crate) const fn gate(selector: u16, offset: u32, attr: u8) -> u64 {
    offset as u64 & 0xffff
        | (selector as u64) << 16
        | (attr as u64) << 40
        | (offset as u64 >> 16) << 48
}

/// A processor in flat 32-bit ring 0 with ESP 0x8000 and EIP 0x1_0000; see the module's text.
pub(crate) fn machine() -> (StateBox, FlatEnv) {
    let mut st = StateBox::new();
    let mut env = FlatEnv::new();
    env.gdt(CODE0, segment(0, 0xf_ffff, 0xc09b));
    env.gdt(DATA0, segment(0, 0xf_ffff, 0xc093));
    env.gdt(CODE3, segment(0, 0xf_ffff, 0xc0fb));
    env.gdt(DATA3, segment(0, 0xf_ffff, 0xc0f3));
    env.gdt(TSS, segment(TSS_BASE as u32, 0x2088, 0x008b));
    env.put32(TSS_BASE + 4, KERNEL_ESP);
    env.put16(TSS_BASE + 8, DATA0);
    env.put16(TSS_BASE + 0x66, 0x88);
    st.gdtr = TableReg {
        base: GDT_BASE,
        limit: 0xff,
    };
    st.idtr = TableReg {
        base: IDT_BASE,
        limit: 0x7ff,
    };
    st.cr0 = cr0::PE | cr0::ET;
    st.tr = Descriptor(segment(TSS_BASE as u32, 0x2088, 0x008b)).to_segment(TSS);
    st.ldtr = ring3_translator::state::Segment::null(0);
    set_ring(&mut st, 0);
    st.set_reg32(gpr::SP, 0x8000);
    st.rip = 0x1_0000;
    (st, env)
}

/// Loads the flat segments of ring 0 or ring 3 and the CPL.
pub(crate) fn set_ring(st: &mut GuestState, cpl: u8) {
    let (code, data, code_attr, data_attr) = if cpl == 0 {
        (CODE0, DATA0, 0xc09b, 0xc093)
    } else {
        (CODE3, DATA3, 0xc0fb, 0xc0f3)
    };
    for reg in SegReg::ALL {
        let (selector, attr) = if reg == SegReg::Cs {
            (code, code_attr)
        } else {
            (data, data_attr)
        };
        st.set_segment(
            reg,
            Descriptor(segment(0, 0xf_ffff, attr)).to_segment(selector),
        );
    }
    st.cpl = cpl;
}

/// Puts the processor into real mode with all segments at paragraph 0 and SP 0x8000.
pub(crate) fn set_real(st: &mut GuestState) {
    st.cr0 &= !cr0::PE;
    for reg in SegReg::ALL {
        st.set_segment(reg, ring3_translator::state::Segment::real(0));
    }
    st.cpl = 0;
    st.idtr = TableReg {
        base: 0,
        limit: 0x3ff,
    };
}

/// Puts the processor into V8086 mode with all segments at paragraph 0.
pub(crate) fn set_v86(st: &mut GuestState) {
    st.sys_flags |= ring3_translator::state::eflags::VM;
    st.cpl = 3;
    for reg in SegReg::ALL {
        st.set_segment(reg, crate::cpu::segment::v86_segment(0));
    }
}

/// The architectural registers, to show that a fault changed none of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    gpr: [u64; 16],
    rip: u64,
    eflags: u32,
    cpl: u8,
    seg: [ring3_translator::state::Segment; 6],
    ldtr: ring3_translator::state::Segment,
    tr: ring3_translator::state::Segment,
    cr: [u64; 4],
    dr: [u64; 8],
}

/// Takes a copy of the architectural registers.
pub(crate) fn registers(st: &GuestState) -> Registers {
    Registers {
        gpr: st.gpr,
        rip: st.rip,
        eflags: st.eflags(),
        cpl: st.cpl,
        seg: st.seg,
        ldtr: st.ldtr,
        tr: st.tr,
        cr: [st.cr0, st.cr2, st.cr3, st.cr4],
        dr: st.dr,
    }
}

impl Registers {
    /// Takes CR2 from `other`: page faults change it even when nothing else changes.
    pub(crate) fn forget_cr2(&mut self, other: &Self) {
        self.cr[1] = other.cr[1];
    }
}
