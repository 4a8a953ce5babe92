//! The translator as an engine: the monitor's processor on a bare board.
//!
//! - `window`: CPL 0 with supervisor pages, so that accesses take the window form;
//! - `soft`: CPL 3 with user pages, so that they take the soft form;
//! - `step`: as `soft`, one instruction in a unit.

use crate::case::{Case, Outcome, Stop};
use crate::engine::Engine;
use crate::guest;
use crate::interpret::trap;
use crate::layout::{self, MEMORY_BYTES, PAGE, WRITABLE};
use crate::vector::XsaveLayout;
use ring3_monitor::cpu::cpuid::CpuModel;
use ring3_monitor::cpu::env::TlbFlush;
use ring3_monitor::cpu::event::{Event, SoftwareKind};
use ring3_monitor::rig::{Form, Rig, RigStop};
use std::io;

/// Bytes of guest memory.
const RAM: u64 = 16 << 20;

/// One translated engine.
pub struct Translated {
    rig: Rig,
    form: Form,
    model: CpuModel,
    layout: XsaveLayout,
    /// What the writable memory holds now.
    shadow: Vec<u8>,
}

impl Translated {
    /// A processor of this form.
    /// # Errors
    /// When the host refuses memory or signal handlers.
    pub fn new(form: Form) -> io::Result<Self> {
        let mut rig = Rig::new(RAM, form)?;
        for (at, bytes) in guest::tables(form != Form::Window) {
            rig.write(u64::from(at), &bytes);
        }
        let mut shadow = vec![0; MEMORY_BYTES];
        read_memory(&rig, &mut shadow);
        Ok(Self {
            rig,
            form,
            model: CpuModel::host_default(),
            layout: XsaveLayout::host(),
            shadow,
        })
    }

    /// Makes the processor make a mistake on purpose from now on.
    #[cfg(feature = "mutation")]
    pub fn mutate(&mut self, mutation: ring3_translator::mutation::Mutation) {
        self.rig.vcpu_mut().mutate(mutation);
    }

    fn run_case(&mut self, case: &Case) -> Outcome {
        self.write_memory(&case.memory());
        let components = self.components();
        let cpl = if self.form == Form::Window { 0 } else { 3 };
        let (st, core) = self.rig.vcpu_mut().parts_mut();
        let fresh = st.cr3 == 0;
        guest::set_system(st, components);
        guest::load(st, case, cpl, &self.layout);
        if fresh {
            core.mmu.flush(st, TlbFlush::All);
        }
        let stop = match self.rig.run() {
            RigStop::Event(Event::Software {
                next_eip,
                kind,
                vector,
            }) if kind != SoftwareKind::IntN => {
                self.rig.state_mut().rip = u64::from(next_eip);
                if next_eip.wrapping_add(case.code_base()) == case.end() + 1 && vector == 3 {
                    self.rig.state_mut().rip = u64::from(next_eip - 1);
                    Stop::End
                } else {
                    Stop::Trap {
                        vector,
                        error: 0,
                        address: 0,
                    }
                }
            }
            RigStop::Event(Event::Exception(fault)) => trap(fault),
            RigStop::Event(other) => Stop::Lost(format!("{other:?}")),
            RigStop::Halted => Stop::Lost("halted".into()),
            RigStop::Other(why) => Stop::Lost(why),
        };
        let (regs, vector) = guest::save(self.rig.state(), &self.layout);
        read_memory(&self.rig, &mut self.shadow);
        Outcome {
            stop,
            regs,
            vector,
            memory: self.shadow.clone(),
        }
    }

    /// Writes the pages that differ, in runs: code that stays keeps its translations.
    fn write_memory(&mut self, wanted: &[u8]) {
        const RUN: usize = 64;
        for at in (0..MEMORY_BYTES).step_by(RUN) {
            if self.shadow[at..at + RUN] != wanted[at..at + RUN] {
                self.rig
                    .write(u64::from(layout::address_of(at)), &wanted[at..at + RUN]);
            }
        }
        self.shadow.copy_from_slice(wanted);
    }
}

fn read_memory(rig: &Rig, into: &mut [u8]) {
    let mut at = 0;
    for (base, len) in WRITABLE {
        for page in (0..len).step_by(PAGE as usize) {
            rig.read(u64::from(base + page), &mut into[at..at + PAGE as usize]);
            at += PAGE as usize;
        }
    }
}

impl Engine for Translated {
    fn name(&self) -> String {
        match self.form {
            Form::Window => "window",
            Form::Soft => "soft",
            Form::Step => "step",
        }
        .into()
    }
    fn accepts_user_only(&self) -> bool {
        self.form != Form::Window
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
