//! The monitor's instruction interpreter as an engine: what the translator hands out instead of
//! emitting. It knows only those instructions; cases with others are skipped.

use crate::case::{Case, Outcome, Stop, Width, seg};
use crate::engine::Engine;
use crate::guest;
use crate::layout;
use crate::vector::XsaveLayout;
use iced_x86::{Decoder, DecoderOptions};
use ring3_monitor::cpu::cpuid::CpuModel;
use ring3_monitor::cpu::env::{Access, Env, Privilege, TlbFlush};
use ring3_monitor::cpu::event::{Event, SoftwareKind};
use ring3_monitor::cpu::execute::{Flow, execute};
use ring3_monitor::cpu::fault::{Fault, Vector};
use ring3_translator::addr::LinAddr;
use ring3_translator::scan::too_long;
use ring3_translator::state::{GuestState, eflags};
use ring3_translator::state_box::StateBox;

/// Instructions executed before a case counts as endless.
const PATIENCE: u32 = 200_000;

/// The engine.
pub struct Interpreter {
    st: StateBox,
    memory: Memory,
    model: CpuModel,
    layout: XsaveLayout,
}

/// Linear memory with the rights of [`layout`], and the descriptor tables.
struct Memory {
    bytes: Vec<u8>,
    read_only: Vec<u8>,
    tables: Vec<u8>,
}

impl Memory {
    /// The byte at a linear address, for reading.
    fn byte(&self, at: u32) -> Option<u8> {
        if let Some(n) = layout::offset_of(at) {
            return Some(self.bytes[n]);
        }
        let page = at.wrapping_sub(layout::READ_ONLY) as usize;
        self.read_only.get(page).copied()
    }

    fn check(&self, at: LinAddr, len: u32, write: bool, who: Privilege) -> Result<(), Fault> {
        let user = if who == Privilege::User { 4 } else { 0 };
        for n in 0..len {
            let byte = at.add32(n).0 as u32;
            if who == Privilege::Supervisor && guest::table_offset(byte).is_some() {
                continue;
            }
            let writable = layout::offset_of(byte).is_some();
            if self.byte(byte).is_none() || (write && !writable) {
                let code = user | u32::from(write) << 1 | u32::from(self.byte(byte).is_some());
                return Err(Fault::page(u64::from(byte), code));
            }
        }
        Ok(())
    }
}

impl Env for Memory {
    fn read(
        &mut self,
        _: &mut GuestState,
        at: LinAddr,
        buf: &mut [u8],
        who: Privilege,
    ) -> Result<(), Fault> {
        self.check(at, buf.len() as u32, false, who)?;
        for (n, byte) in buf.iter_mut().enumerate() {
            let lin = at.add32(n as u32).0 as u32;
            let table = guest::table_offset(lin).and_then(|n| self.tables.get(n).copied());
            *byte = table.or(self.byte(lin)).unwrap_or_default();
        }
        Ok(())
    }
    fn write(
        &mut self,
        _: &mut GuestState,
        at: LinAddr,
        data: &[u8],
        who: Privilege,
    ) -> Result<(), Fault> {
        self.check(at, data.len() as u32, true, who)?;
        for (n, byte) in data.iter().enumerate() {
            if let Some(n) = layout::offset_of(at.add32(n as u32).0 as u32) {
                self.bytes[n] = *byte;
            }
        }
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
        self.check(at, len, access == Access::Write, who)
    }
    fn flush_tlb(&mut self, _: &mut GuestState, _: TlbFlush) {}
    fn invalidate_page(&mut self, _: &mut GuestState, _: LinAddr) {}
    fn read_pdptes(&mut self, _: u64) -> [u64; 4] {
        [0; 4]
    }
    fn port_in(&mut self, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn port_out(&mut self, _: u16, _: u8, _: u32) {}
    fn tsc(&mut self) -> u64 {
        0
    }
    fn event_waiting(&mut self) -> bool {
        false
    }
}

impl Interpreter {
    /// The interpreter with the default processor model.
    #[must_use]
    pub fn new() -> Self {
        let mut tables = vec![0; 3 * layout::PAGE as usize];
        for (at, bytes) in guest::tables(true) {
            if let Some(at) = guest::table_page_offset(at) {
                tables[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        Self {
            st: StateBox::new(),
            memory: Memory {
                bytes: Vec::new(),
                read_only: layout::read_only_page(),
                tables,
            },
            model: CpuModel::host_default(),
            layout: XsaveLayout::host(),
        }
    }

    fn run_case(&mut self, case: &Case) -> Outcome {
        let components = self.components();
        guest::set_system(&mut self.st, components);
        guest::load(&mut self.st, case, 3, &self.layout);
        self.memory.bytes = case.memory();
        let mut stop = Stop::Lost("it did not stop in time".into());
        for _ in 0..PATIENCE {
            if let Some(found) = self.step(case) {
                stop = found;
                break;
            }
        }
        let (regs, vector) = guest::save(&self.st, &self.layout);
        Outcome {
            stop,
            regs,
            vector,
            memory: self.memory.bytes.clone(),
        }
    }

    fn step(&mut self, case: &Case) -> Option<Stop> {
        if self.st.sys_flags & (eflags::TF | eflags::AC) != 0 {
            return Some(Stop::Skipped("TF and AC are the run loop's".into()));
        }
        let base = case.code_base();
        let cs = &self.st.seg[seg::CS];
        if (cs.base as u32, cs.selector) != (base, case.regs.seg[seg::CS]) {
            return Some(Stop::Skipped("left its code segment".into()));
        }
        if self.st.eip().wrapping_add(base) == case.end() {
            return Some(Stop::End);
        }
        let mut code = Vec::with_capacity(15);
        let mut absent = None;
        let limit = self.st.seg[seg::CS].limit;
        for n in 0..15 {
            if self
                .st
                .eip()
                .checked_add(n)
                .is_none_or(|offset| offset > limit)
            {
                break;
            }
            let at = self.st.eip().wrapping_add(base).wrapping_add(n);
            match self.memory.byte(at) {
                Some(byte) => code.push(byte),
                None => {
                    absent = Some(at);
                    break;
                }
            }
        }
        let bits = if case.width == Width::Code32 { 32 } else { 16 };
        let mut decoder =
            Decoder::with_ip(bits, &code, u64::from(self.st.eip()), DecoderOptions::NONE);
        let insn = decoder.decode();
        if decoder.last_error() == iced_x86::DecoderError::NoMoreBytes && code.len() < 15 {
            return Some(absent.map_or(
                Stop::Trap {
                    vector: 13,
                    error: 0,
                    address: 0,
                },
                |address| Stop::Trap {
                    vector: 14,
                    error: 4,
                    address,
                },
            ));
        }
        if decoder.last_error() != iced_x86::DecoderError::None && too_long(&code, bits == 32) {
            return Some(trap(Fault::gp(0)));
        }
        let pushes_next = |st: &mut GuestState| st.rip = u64::from(insn.next_ip32());
        match execute(&mut self.st, &mut self.memory, &self.model, &insn) {
            Ok(Flow::Next) => {
                pushes_next(&mut self.st);
                None
            }
            Ok(Flow::Jump | Flow::Repeat) => None,
            Ok(Flow::SoftInterrupt(Event::Software { vector, kind, .. }))
                if kind != SoftwareKind::IntN =>
            {
                pushes_next(&mut self.st);
                Some(Stop::Trap {
                    vector,
                    error: 0,
                    address: 0,
                })
            }
            Ok(Flow::Unsupported) => Some(Stop::Skipped("not the interpreter's".into())),
            Ok(other) => Some(Stop::Lost(format!("{other:?}"))),
            Err(fault) => Some(trap(fault)),
        }
    }
}

impl Default for Interpreter {
    fn default() -> Self {
        Self::new()
    }
}

/// A fault as a stop.
#[must_use]
pub fn trap(fault: Fault) -> Stop {
    let address = if fault.vector == Vector::Pf {
        fault.address.unwrap_or_default() as u32
    } else {
        0
    };
    Stop::Trap {
        vector: fault.vector as u8,
        error: fault.error.unwrap_or_default(),
        address,
    }
}

impl Engine for Interpreter {
    fn name(&self) -> String {
        "interpreter".into()
    }
    fn accepts_user_only(&self) -> bool {
        true
    }
    fn accepts(&self, case: &Case) -> bool {
        guest::offers(&self.model, case)
    }
    fn components(&self) -> u64 {
        self.model.xcr0_bits() & self.layout.features
    }
    fn run_batch(&mut self, cases: &[Case]) -> Vec<Outcome> {
        cases.iter().map(|c| self.run_case(c)).collect()
    }
}
