//! The local APIC of one processor.
//!
//! Intel SDM vol. 3A, chapter 11 (xAPIC). The interface is the memory page at the APIC base; the
//! board delivers interprocessor interrupts that [`Lapic::take_ipi`] returns. x2APIC mode is left
//! out; performance and thermal sources are registers without a source; LINT0 takes the 8259s'
//! interrupts only as ExtINT and LINT1 only NMIs.

mod message;
mod spec;
mod timer;
mod vectors;

pub use message::{Delivery, Ipi, Target};

use crate::bus::{MmioDevice, Nanos, Timed};
use spec::{SOFTWARE_ENABLE, error, icr, lvt, reg};
use std::collections::VecDeque;
use timer::{Mode, Timer};
use vectors::Vectors;

/// A local APIC.
#[derive(Clone, Debug)]
pub struct Lapic {
    id: u8,
    tpr: u8,
    ldr: u8,
    dfr: u32,
    svr: u32,
    esr: u32,
    esr_pending: u32,
    icr: u64,
    /// Timer, thermal, performance, LINT0, LINT1, error.
    lvt: [u32; lvt::COUNT],
    isr: Vectors,
    tmr: Vectors,
    irr: Vectors,
    timer: Timer,
    ipis: VecDeque<Ipi>,
    eois: VecDeque<u8>,
    now: Nanos,
}

impl Lapic {
    /// An APIC after reset: software-disabled, all local sources masked. SDM vol. 3A, 11.4.7.1.
    #[must_use]
    pub fn new(id: u8) -> Self {
        Self {
            id,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            esr: 0,
            esr_pending: 0,
            icr: 0,
            lvt: [lvt::MASKED; lvt::COUNT],
            isr: Vectors::default(),
            tmr: Vectors::default(),
            irr: Vectors::default(),
            timer: Timer::default(),
            ipis: VecDeque::new(),
            eois: VecDeque::new(),
            now: 0,
        }
    }

    /// The APIC id.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Whether software enabled it (spurious vector register).
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.svr & SOFTWARE_ENABLE != 0
    }

    /// Sets up virtual wire mode as firmware does: enabled, LINT0 takes the 8259's interrupts and
    /// LINT1 the NMI. MultiProcessor Specification 1.4, 3.6.2.2.
    pub fn set_virtual_wire(&mut self) {
        self.svr = SOFTWARE_ENABLE | 0xff;
        self.lvt[lvt::LINT0] = 0x700;
        self.lvt[lvt::LINT1] = 0x400;
    }

    /// The processor wrote IA32_TSC_DEADLINE: the timer fires when its time stamp counter gets
    /// there, at `due`, or is disarmed. False, and nothing changes, in another timer mode. SDM
    /// vol. 3A, 11.5.4.1.
    pub fn set_deadline(&mut self, now: Nanos, due: Option<Nanos>) -> bool {
        self.advance(now);
        if self.timer_mode() != Mode::TscDeadline {
            return false;
        }
        self.timer.set_deadline(due);
        self.advance(now);
        true
    }

    /// Whether a deadline is armed: IA32_TSC_DEADLINE does not read as zero.
    #[must_use]
    pub fn deadline_armed(&self) -> bool {
        self.timer.deadline_armed()
    }

    /// Whether `vector` waits in the request register.
    #[must_use]
    pub fn requested(&self, vector: u8) -> bool {
        self.irr.test(vector)
    }

    /// Whether interrupts of the 8259 pair pass through LINT0 (virtual wire mode) or the APIC is
    /// not in use.
    #[must_use]
    pub fn accepts_extint(&self) -> bool {
        !self.enabled() || self.pin_delivers(lvt::LINT0, Delivery::ExtInt)
    }

    /// Whether LINT1 delivers NMIs.
    #[must_use]
    pub fn accepts_nmi(&self) -> bool {
        !self.enabled() || self.pin_delivers(lvt::LINT1, Delivery::Nmi)
    }

    fn pin_delivers(&self, pin: usize, delivery: Delivery) -> bool {
        let entry = self.lvt[pin];
        entry & lvt::MASKED == 0 && Delivery::from_bits(entry >> 8) == delivery
    }

    /// Accepts an interrupt by vector; false if the APIC is disabled by software.
    pub fn accept(&mut self, vector: u8, level: bool) -> bool {
        if vector < 16 {
            self.error(error::RECEIVED_ILLEGAL_VECTOR);
            return true;
        }
        if self.enabled() {
            self.irr.set(vector, true);
            self.tmr.set(vector, level);
        }
        self.enabled()
    }

    fn error(&mut self, bit: u32) {
        self.esr_pending |= bit;
        let entry = self.lvt[lvt::ERROR];
        if entry & lvt::MASKED == 0 && self.enabled() && entry as u8 >= 16 {
            self.irr.set(entry as u8, true);
        }
    }

    /// The processor priority: the higher of task priority and what is in service. SDM vol. 3A,
    /// 11.8.3.1.
    fn ppr(&self) -> u8 {
        let service = self.isr.highest().map_or(0, |vector| vector & 0xf0);
        if self.tpr & 0xf0 >= service {
            self.tpr
        } else {
            service
        }
    }

    /// The vector that waits for the processor.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        let highest = self.irr.highest()?;
        (self.enabled() && highest & 0xf0 > self.ppr() & 0xf0).then_some(highest)
    }

    /// The interrupt acknowledge: takes the pending vector into service; the spurious vector if
    /// none waits any more. SDM vol. 3A, 11.8.4 and 11.9.
    pub fn acknowledge(&mut self) -> u8 {
        match self.pending() {
            Some(vector) => {
                self.irr.set(vector, false);
                self.isr.set(vector, true);
                vector
            }
            None => self.svr as u8,
        }
    }

    fn timer_mode(&self) -> Mode {
        match self.lvt[lvt::TIMER] & lvt::TIMER_MODE {
            lvt::PERIODIC => Mode::Periodic,
            lvt::TSC_DEADLINE => Mode::TscDeadline,
            _ => Mode::OneShot,
        }
    }

    fn timer_masked(&self) -> bool {
        self.lvt[lvt::TIMER] & lvt::MASKED != 0
    }

    fn read_register(&mut self, register: u16) -> u32 {
        match register {
            reg::ID => u32::from(self.id) << 24,
            reg::VERSION => spec::VERSION,
            reg::TPR => self.tpr.into(),
            reg::PPR => self.ppr().into(),
            // Write-only.
            reg::EOI => 0,
            reg::LDR => u32::from(self.ldr) << 24,
            reg::DFR => self.dfr,
            reg::SVR => self.svr,
            reg::ISR..reg::TMR => self.isr.word(register),
            reg::TMR..reg::IRR => self.tmr.word(register),
            reg::IRR..reg::ESR => self.irr.word(register),
            reg::ESR => self.esr,
            reg::ICR_LOW => self.icr as u32,
            reg::ICR_HIGH => (self.icr >> 32) as u32,
            reg::LVT_TIMER..=reg::LVT_ERROR => self.lvt[entry(register)],
            reg::TIMER_INITIAL => self.timer.initial(),
            reg::TIMER_CURRENT => self.timer.current(self.now),
            reg::TIMER_DIVIDE => self.timer.divide(),
            _ => {
                self.error(error::ILLEGAL_REGISTER);
                0
            }
        }
    }

    fn write_register(&mut self, register: u16, value: u32) {
        match register {
            reg::ID => self.id = (value >> 24) as u8,
            reg::TPR => self.tpr = value as u8,
            reg::EOI => self.end_of_interrupt(),
            reg::LDR => self.ldr = (value >> 24) as u8,
            reg::DFR => self.dfr = value | 0x0fff_ffff,
            reg::SVR => {
                self.svr = value & 0x1ff;
                if !self.enabled() {
                    self.lvt.iter_mut().for_each(|entry| *entry |= lvt::MASKED);
                }
            }
            reg::ESR => self.esr = std::mem::take(&mut self.esr_pending),
            reg::ICR_LOW => {
                self.icr = self.icr & !0xffff_ffff | u64::from(value & icr::LOW);
                self.send();
            }
            reg::ICR_HIGH => self.icr = self.icr & 0xffff_ffff | u64::from(value & icr::HIGH) << 32,
            reg::LVT_TIMER..=reg::LVT_ERROR => self.write_entry(register, value),
            // In deadline mode writes to the initial count are ignored.
            reg::TIMER_INITIAL if self.timer_mode() == Mode::TscDeadline => {}
            reg::TIMER_INITIAL => self.timer.start(self.now, value),
            reg::TIMER_DIVIDE => self.timer.set_divide(self.now, value),
            // Read-only.
            reg::VERSION | reg::PPR | reg::ISR..reg::ESR | reg::TIMER_CURRENT => {}
            _ => self.error(error::ILLEGAL_REGISTER),
        }
    }

    fn write_entry(&mut self, register: u16, value: u32) {
        let writable = match register {
            reg::LVT_TIMER => 0x0007_00ff,
            reg::LVT_LINT0..reg::LVT_ERROR => 0x0001_a7ff,
            reg::LVT_ERROR => 0x0001_00ff,
            _ => 0x0001_07ff,
        };
        let forced = if self.enabled() { 0 } else { lvt::MASKED };
        let was = self.timer_mode() == Mode::TscDeadline;
        self.lvt[entry(register)] = value & writable | forced;
        if was != (self.timer_mode() == Mode::TscDeadline) {
            self.timer.disarm();
        }
    }
}

/// The place in the local vector table of the entry at `register`.
fn entry(register: u16) -> usize {
    usize::from((register - reg::LVT_TIMER) >> 4)
}

impl Timed for Lapic {
    fn next_deadline(&self) -> Option<Nanos> {
        self.timer.next().filter(|_| !self.timer_masked())
    }

    fn advance(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        if self.timer.advance(self.now, self.timer_mode()) && !self.timer_masked() {
            self.accept(self.lvt[lvt::TIMER] as u8, false);
        }
    }
}

impl MmioDevice for Lapic {
    fn read(&mut self, now: Nanos, offset: u64, data: &mut [u8]) {
        self.advance(now);
        // Registers are the first doubleword of each 16 bytes.
        let word = self.read_register(offset as u16 & 0xff0).to_le_bytes();
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = word.get(offset as usize % 16 + i).copied().unwrap_or(0);
        }
    }

    fn write(&mut self, now: Nanos, offset: u64, data: &[u8]) {
        self.advance(now);
        if let (0, Some(word)) = (offset % 16, data.first_chunk::<4>()) {
            self.write_register(offset as u16 & 0xff0, u32::from_le_bytes(*word));
        }
    }
}

#[cfg(test)]
mod tests;
