//! The local APIC of one processor.
//!
//! Intel SDM vol. 3A, chapter 11 (xAPIC). The interface is the memory page at the APIC base; the
//! board delivers interprocessor interrupts that [`Lapic::take_ipi`] returns. x2APIC mode and
//! performance and thermal sources beyond their registers are left out.

use crate::bus::{MmioDevice, Nanos, Timed};
use std::collections::VecDeque;

mod reg {
    pub const ID: u16 = 0x020;
    pub const VERSION: u16 = 0x030;
    pub const TPR: u16 = 0x080;
    pub const PPR: u16 = 0x0a0;
    pub const EOI: u16 = 0x0b0;
    pub const LDR: u16 = 0x0d0;
    pub const DFR: u16 = 0x0e0;
    pub const SVR: u16 = 0x0f0;
    pub const ISR: u16 = 0x100;
    pub const TMR: u16 = 0x180;
    pub const IRR: u16 = 0x200;
    pub const ESR: u16 = 0x280;
    pub const ICR_LOW: u16 = 0x300;
    pub const ICR_HIGH: u16 = 0x310;
    pub const LVT_TIMER: u16 = 0x320;
    pub const LVT_LINT0: u16 = 0x350;
    pub const LVT_ERROR: u16 = 0x370;
    pub const TIMER_INITIAL: u16 = 0x380;
    pub const TIMER_CURRENT: u16 = 0x390;
    pub const TIMER_DIVIDE: u16 = 0x3e0;
}
mod lvt {
    pub const MASKED: u32 = 1 << 16;
    pub const PERIODIC: u32 = 1 << 17;
    /// Timer modes: bits 18-17.
    pub const TSC_DEADLINE: u32 = 2 << 17;
    pub const TIMER_MODE: u32 = 3 << 17;
}
const SOFTWARE_ENABLE: u32 = 0x100;
/// ESR: a vector below 16 was received.
const ILLEGAL_VECTOR: u32 = 0x40;

/// Nanoseconds per tick of the timer before division: a bus clock of 100 MHz.
const TIMER_TICK: Nanos = 10;

/// How an interrupt message is delivered. SDM vol. 3A, 11.6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// By vector.
    Fixed,
    /// By vector, to the processor with the lowest priority.
    LowestPriority,
    /// System management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up; the vector is the page of the first instruction.
    StartUp,
    /// From an 8259.
    ExtInt,
    /// Reserved encoding.
    Reserved,
}

impl Delivery {
    /// The three-bit encoding used in the ICR, LVT and IOAPIC.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => Self::Reserved,
        }
    }
}

/// Who receives an interprocessor interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One APIC by its id, or all by FFh.
    Physical(u8),
    /// A logical destination, to be matched with [`Lapic::matches_logical`].
    Logical(u8),
    /// The sender.
    Own,
    /// All.
    All,
    /// All but the sender.
    Others,
}

/// An interrupt message to other processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// Destination.
    pub target: Target,
    /// Delivery mode.
    pub delivery: Delivery,
    /// Vector.
    pub vector: u8,
    /// The INIT level de-assert message, which modern processors ignore.
    pub deassert: bool,
}

/// A 256-bit vector register.
type Vectors = [u32; 8];

fn highest(bits: &Vectors) -> Option<u8> {
    let (i, word) = bits
        .iter()
        .enumerate()
        .rev()
        .find(|(_, word)| **word != 0)?;
    Some((i as u32 * 32 + 31 - word.leading_zeros()) as u8)
}

fn set(bits: &mut Vectors, vector: u8, on: bool) {
    let bit = 1 << (vector & 31);
    let word = &mut bits[usize::from(vector >> 5)];
    *word = if on { *word | bit } else { *word & !bit };
}

fn test(bits: &Vectors, vector: u8) -> bool {
    bits[usize::from(vector >> 5)] & 1 << (vector & 31) != 0
}

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
    lvt: [u32; 6],
    isr: Vectors,
    tmr: Vectors,
    irr: Vectors,
    divide: u32,
    initial: u32,
    /// When the timer's present period began; `None` while stopped.
    started: Option<Nanos>,
    /// When the time stamp counter reaches IA32_TSC_DEADLINE; `None` while disarmed.
    deadline: Option<Nanos>,
    ipis: VecDeque<Ipi>,
    eois: VecDeque<u8>,
    now: Nanos,
}

impl Lapic {
    /// Messages held for the board; a guest cannot make more without the board running.
    const QUEUE: usize = 64;

    /// An APIC after reset: software-disabled, all local sources masked.
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
            lvt: [lvt::MASKED; 6],
            isr: [0; 8],
            tmr: [0; 8],
            irr: [0; 8],
            divide: 0,
            initial: 0,
            started: None,
            deadline: None,
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

    /// The task priority as CR8 shows it (bits 7-4 of the TPR).
    #[must_use]
    pub fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    /// Writes CR8.
    pub fn set_cr8(&mut self, value: u8) {
        self.tpr = value << 4;
    }

    /// Sets up virtual wire mode as firmware does: enabled, LINT0 takes the 8259's interrupts and
    /// LINT1 the NMI. MultiProcessor Specification 1.4, 3.6.2.2.
    pub fn set_virtual_wire(&mut self) {
        self.svr = SOFTWARE_ENABLE | 0xff;
        self.lvt[3] = 0x700;
        self.lvt[4] = 0x400;
    }

    fn deadline_mode(&self) -> bool {
        self.lvt[0] & lvt::TIMER_MODE == lvt::TSC_DEADLINE
    }

    /// The processor wrote IA32_TSC_DEADLINE: the timer fires when its time stamp counter gets
    /// there, at `due`, or is disarmed. False, and nothing changes, in another timer mode. SDM
    /// vol. 3A, 11.5.4.1.
    pub fn set_deadline(&mut self, now: Nanos, due: Option<Nanos>) -> bool {
        self.advance(now);
        if self.deadline_mode() {
            self.deadline = due;
            self.advance(now);
        }
        self.deadline_mode()
    }

    /// Whether a deadline is armed: IA32_TSC_DEADLINE does not read as zero.
    #[must_use]
    pub fn deadline_armed(&self) -> bool {
        self.deadline.is_some()
    }

    /// Whether `vector` waits in the request register.
    #[must_use]
    pub fn requested(&self, vector: u8) -> bool {
        test(&self.irr, vector)
    }

    /// Whether interrupts of the 8259 pair pass through LINT0 (virtual wire mode) or the APIC is
    /// not in use.
    #[must_use]
    pub fn accepts_extint(&self) -> bool {
        let lint0 = self.lvt[3];
        !self.enabled()
            || (lint0 & lvt::MASKED == 0 && Delivery::from_bits(lint0 >> 8) == Delivery::ExtInt)
    }

    /// Whether LINT1 delivers NMIs.
    #[must_use]
    pub fn accepts_nmi(&self) -> bool {
        if !self.enabled() {
            return true;
        }
        let lint1 = self.lvt[4];
        lint1 & lvt::MASKED == 0 && Delivery::from_bits(lint1 >> 8) == Delivery::Nmi
    }

    /// Whether a logical destination means this APIC. SDM vol. 3A, 11.6.2.2.
    #[must_use]
    pub fn matches_logical(&self, destination: u8) -> bool {
        if self.dfr >> 28 == 0xf {
            return self.ldr & destination != 0;
        }
        // Cluster model: the upper half names a cluster, F all of them.
        let cluster = destination >> 4;
        (cluster == 0xf || cluster == self.ldr >> 4) && self.ldr & destination & 0x0f != 0
    }

    /// Accepts an interrupt by vector; false if the APIC is disabled by software.
    pub fn accept(&mut self, vector: u8, level: bool) -> bool {
        if vector < 16 {
            self.error(ILLEGAL_VECTOR);
            return true;
        }
        if self.enabled() {
            set(&mut self.irr, vector, true);
            set(&mut self.tmr, vector, level);
        }
        self.enabled()
    }

    fn error(&mut self, bit: u32) {
        self.esr_pending |= bit;
        let entry = self.lvt[5];
        if entry & lvt::MASKED == 0 && self.enabled() && entry as u8 >= 16 {
            set(&mut self.irr, entry as u8, true);
        }
    }

    /// The processor priority: the higher of task priority and what is in service.
    fn ppr(&self) -> u8 {
        let service = highest(&self.isr).map_or(0, |vector| vector & 0xf0);
        if self.tpr & 0xf0 >= service {
            self.tpr
        } else {
            service
        }
    }

    /// The vector that waits for the processor.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        highest(&self.irr).filter(|vector| self.enabled() && vector & 0xf0 > self.ppr() & 0xf0)
    }

    /// The interrupt acknowledge: takes the pending vector into service; the spurious vector if
    /// none waits any more.
    pub fn acknowledge(&mut self) -> u8 {
        match self.pending() {
            Some(vector) => {
                set(&mut self.irr, vector, false);
                set(&mut self.isr, vector, true);
                vector
            }
            None => self.svr as u8,
        }
    }

    /// An interprocessor interrupt that the processor sent.
    pub fn take_ipi(&mut self) -> Option<Ipi> {
        self.ipis.pop_front()
    }

    /// The vector of a level-triggered interrupt that the processor ended, for the IOAPICs.
    pub fn take_eoi(&mut self) -> Option<u8> {
        self.eois.pop_front()
    }

    fn end_of_interrupt(&mut self) {
        if let Some(vector) = highest(&self.isr) {
            set(&mut self.isr, vector, false);
            if test(&self.tmr, vector) && self.eois.len() < Self::QUEUE {
                self.eois.push_back(vector);
            }
        }
    }

    fn send(&mut self) {
        let low = self.icr as u32;
        let destination = (self.icr >> 56) as u8;
        let target = match (low >> 18 & 3, low & 0x800 != 0) {
            (0, false) => Target::Physical(destination),
            (0, true) => Target::Logical(destination),
            (1, _) => Target::Own,
            (2, _) => Target::All,
            _ => Target::Others,
        };
        let delivery = Delivery::from_bits(low >> 8);
        let deassert = delivery == Delivery::Init && low & 0xc000 == 0x8000;
        if self.ipis.len() < Self::QUEUE {
            self.ipis.push_back(Ipi {
                target,
                delivery,
                vector: low as u8,
                deassert,
            });
        }
    }

    /// Nanoseconds per count of the timer.
    fn timer_period(&self) -> Nanos {
        let code = self.divide & 3 | self.divide >> 1 & 4;
        // 0: by 2 ... 6: by 128, 7: by 1
        TIMER_TICK << ((code + 1) & 7)
    }

    fn timer_total(&self) -> Nanos {
        Nanos::from(self.initial) * self.timer_period()
    }

    fn current_count(&self) -> u32 {
        let Some(started) = self.started else {
            return 0;
        };
        let passed = (self.now - started) / self.timer_period();
        u64::from(self.initial).saturating_sub(passed) as u32
    }

    fn read_register(&self, register: u16) -> u32 {
        let vectors = |bits: &Vectors, base: u16| bits[usize::from((register - base) >> 4 & 7)];
        match register & 0xff0 {
            reg::ID => u32::from(self.id) << 24,
            reg::VERSION => 0x0005_0014,
            reg::TPR => self.tpr.into(),
            reg::PPR => self.ppr().into(),
            reg::LDR => u32::from(self.ldr) << 24,
            reg::DFR => self.dfr,
            reg::SVR => self.svr,
            reg::ISR..reg::TMR => vectors(&self.isr, reg::ISR),
            reg::TMR..reg::IRR => vectors(&self.tmr, reg::TMR),
            reg::IRR..reg::ESR => vectors(&self.irr, reg::IRR),
            reg::ESR => self.esr,
            reg::ICR_LOW => self.icr as u32,
            reg::ICR_HIGH => (self.icr >> 32) as u32,
            at @ reg::LVT_TIMER..=reg::LVT_ERROR => {
                self.lvt[usize::from((at - reg::LVT_TIMER) >> 4)]
            }
            reg::TIMER_INITIAL => self.initial,
            reg::TIMER_CURRENT => self.current_count(),
            reg::TIMER_DIVIDE => self.divide,
            _ => 0,
        }
    }

    fn write_register(&mut self, register: u16, value: u32) {
        match register & 0xff0 {
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
                self.icr = self.icr & !0xffff_ffff | u64::from(value & 0x000c_cfff);
                self.send();
            }
            reg::ICR_HIGH => {
                self.icr = self.icr & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32
            }
            at @ reg::LVT_TIMER..=reg::LVT_ERROR => {
                let mask = match at {
                    reg::LVT_TIMER => 0x0007_00ff,
                    reg::LVT_LINT0..reg::LVT_ERROR => 0x0001_a7ff,
                    reg::LVT_ERROR => 0x0001_00ff,
                    _ => 0x0001_07ff,
                };
                let forced = if self.enabled() { 0 } else { lvt::MASKED };
                let was = self.deadline_mode();
                self.lvt[usize::from((at - reg::LVT_TIMER) >> 4)] = value & mask | forced;
                // A change to or from deadline mode disarms the timer.
                if was != self.deadline_mode() {
                    (self.deadline, self.started) = (None, None);
                }
            }
            // In deadline mode writes to the initial count are ignored.
            reg::TIMER_INITIAL if self.deadline_mode() => {}
            reg::TIMER_INITIAL => {
                self.initial = value;
                self.started = (value != 0).then_some(self.now);
            }
            reg::TIMER_DIVIDE => {
                // The count goes on from where it is, at the new rate.
                let left = self.current_count();
                self.divide = value & 0x0b;
                if self.started.is_some() {
                    let done = u64::from(self.initial - left) * self.timer_period();
                    self.started = Some(self.now.saturating_sub(done));
                }
            }
            _ => {}
        }
    }
}

impl Timed for Lapic {
    fn next_deadline(&self) -> Option<Nanos> {
        if self.lvt[0] & lvt::MASKED != 0 {
            return None;
        }
        let count = |started: Nanos| started.saturating_add(self.timer_total());
        self.deadline.or(self.started.map(count))
    }

    fn advance(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        if self.deadline.take_if(|due| *due <= self.now).is_some() && self.lvt[0] & lvt::MASKED == 0
        {
            self.accept(self.lvt[0] as u8, false);
        }
        let Some(started) = self.started else { return };
        let total = self.timer_total();
        let passed = self.now - started;
        if passed < total {
            return;
        }
        // Several periods make one interrupt: the request register has one bit.
        self.started = (self.lvt[0] & lvt::PERIODIC != 0).then(|| started + passed / total * total);
        if self.lvt[0] & lvt::MASKED == 0 {
            self.accept(self.lvt[0] as u8, false);
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
mod tests {
    use super::*;

    fn write(apic: &mut Lapic, now: Nanos, register: u16, value: u32) {
        MmioDevice::write(apic, now, register.into(), &value.to_le_bytes());
    }
    fn read(apic: &mut Lapic, now: Nanos, register: u16) -> u32 {
        let mut word = [0; 4];
        MmioDevice::read(apic, now, register.into(), &mut word);
        u32::from_le_bytes(word)
    }
    fn enabled() -> Lapic {
        let mut apic = Lapic::new(0);
        write(&mut apic, 0, reg::SVR, 0x1ff);
        apic
    }

    #[test]
    fn priorities_nest_and_eoi_ends_the_highest() {
        let mut apic = enabled();
        apic.accept(0x41, false);
        apic.accept(0x52, true);
        assert_eq!(apic.acknowledge(), 0x52);
        assert_eq!(apic.pending(), None);
        apic.accept(0x60, false);
        assert_eq!(apic.acknowledge(), 0x60);
        write(&mut apic, 0, reg::EOI, 0);
        assert_eq!(apic.take_eoi(), None, "edge-triggered");
        write(&mut apic, 0, reg::EOI, 0);
        assert_eq!(apic.take_eoi(), Some(0x52));
        assert_eq!(apic.acknowledge(), 0x41);
        assert_eq!(read(&mut apic, 0, reg::ISR + 0x20), 2);
    }

    #[test]
    fn task_priority_blocks() {
        let mut apic = enabled();
        write(&mut apic, 0, reg::TPR, 0x50);
        apic.accept(0x5f, false);
        assert_eq!(apic.pending(), None);
        apic.set_cr8(4);
        assert_eq!(apic.pending(), Some(0x5f));
        assert_eq!(read(&mut apic, 0, reg::PPR), 0x40);
    }

    #[test]
    fn one_shot_timer_counts_down_and_fires_once() {
        let mut apic = enabled();
        write(&mut apic, 0, reg::TIMER_DIVIDE, 3); // by 16
        write(&mut apic, 0, reg::LVT_TIMER, 0x30);
        write(&mut apic, 0, reg::TIMER_INITIAL, 100);
        assert_eq!(apic.next_deadline(), Some(16_000));
        assert_eq!(read(&mut apic, 8_000, reg::TIMER_CURRENT), 50);
        apic.advance(15_999);
        assert_eq!(apic.pending(), None);
        apic.advance(16_000);
        assert_eq!((apic.acknowledge(), apic.next_deadline()), (0x30, None));
        assert_eq!(read(&mut apic, 17_000, reg::TIMER_CURRENT), 0);
    }

    #[test]
    fn periodic_timer_keeps_its_phase_over_a_pause() {
        let mut apic = enabled();
        write(&mut apic, 0, reg::TIMER_DIVIDE, 0x0b); // by 1
        write(&mut apic, 0, reg::LVT_TIMER, 0x2_0030);
        write(&mut apic, 0, reg::TIMER_INITIAL, 100);
        apic.advance(1_000_000_300);
        assert_eq!(apic.acknowledge(), 0x30);
        assert_eq!(apic.next_deadline(), Some(1_000_001_000));
    }

    #[test]
    fn deadline_fires_once_and_only_in_its_mode() {
        let mut apic = enabled();
        write(&mut apic, 0, reg::LVT_TIMER, 0x30);
        assert!(!apic.set_deadline(0, Some(500)) && !apic.deadline_armed());
        write(&mut apic, 0, reg::LVT_TIMER, 0x4_0030);
        write(&mut apic, 0, reg::TIMER_INITIAL, 10);
        assert_eq!(apic.next_deadline(), None, "the initial count is ignored");
        assert!(apic.set_deadline(0, Some(500)));
        assert_eq!(apic.next_deadline(), Some(500));
        apic.advance(499);
        assert_eq!(apic.pending(), None);
        apic.advance(500);
        assert_eq!((apic.acknowledge(), apic.deadline_armed()), (0x30, false));
        // One in the past fires at once; zero disarms; another mode disarms.
        apic.set_deadline(600, Some(1));
        assert!(apic.requested(0x30));
        apic.set_deadline(600, Some(700));
        apic.set_deadline(600, None);
        assert_eq!(apic.next_deadline(), None);
        apic.set_deadline(600, Some(700));
        write(&mut apic, 600, reg::LVT_TIMER, 0x2_0030);
        assert_eq!((apic.deadline_armed(), apic.next_deadline()), (false, None));
    }

    #[test]
    fn command_register_sends_messages() {
        let mut apic = enabled();
        write(&mut apic, 0, reg::ICR_HIGH, 0x0200_0000);
        write(&mut apic, 0, reg::ICR_LOW, 0x4610);
        let ipi = apic.take_ipi().unwrap();
        assert_eq!(
            (ipi.target, ipi.delivery, ipi.vector),
            (Target::Physical(2), Delivery::StartUp, 0x10)
        );
        write(&mut apic, 0, reg::ICR_LOW, 0x000c_40fe);
        assert_eq!(apic.take_ipi().map(|ipi| ipi.target), Some(Target::Others));
        write(&mut apic, 0, reg::ICR_LOW, 0x8500);
        assert!(apic.take_ipi().unwrap().deassert);
    }

    #[test]
    fn logical_destinations_flat_and_cluster() {
        let mut apic = enabled();
        write(&mut apic, 0, reg::LDR, 0x1200_0000);
        assert!(apic.matches_logical(0x02) && !apic.matches_logical(0x04));
        write(&mut apic, 0, reg::DFR, 0);
        assert!(apic.matches_logical(0x12) && apic.matches_logical(0xf2));
        assert!(!apic.matches_logical(0x22));
    }

    #[test]
    fn disabled_apic_masks_and_passes_the_8259() {
        let mut apic = Lapic::new(3);
        assert!(apic.accepts_extint());
        write(&mut apic, 0, reg::LVT_TIMER, 0x30);
        assert_eq!(read(&mut apic, 0, reg::LVT_TIMER), 0x1_0030);
        write(&mut apic, 0, reg::SVR, 0x1ff);
        assert!(!apic.accepts_extint());
        write(&mut apic, 0, reg::LVT_LINT0, 0x700);
        assert!(apic.accepts_extint());
        assert_eq!(read(&mut apic, 0, reg::ID), 3 << 24);
    }

    #[test]
    fn virtual_wire_passes_intr_and_nmi() {
        let mut apic = Lapic::new(0);
        write(&mut apic, 0, reg::SVR, 0x1ff);
        assert!(!apic.accepts_extint() && !apic.accepts_nmi());
        apic.set_virtual_wire();
        assert!(apic.accepts_extint() && apic.accepts_nmi());
        assert_eq!(read(&mut apic, 0, reg::LVT_LINT0), 0x700);
        assert!(apic.accept(0x55, false) && apic.requested(0x55));
        write(&mut apic, 0, reg::SVR, 0xff);
        assert!(!apic.accept(0x56, false));
    }

    #[test]
    fn illegal_vectors_are_latched_as_errors() {
        let mut apic = enabled();
        write(&mut apic, 0, reg::LVT_ERROR, 0x77);
        apic.accept(3, false);
        assert_eq!(apic.pending(), Some(0x77));
        write(&mut apic, 0, reg::ESR, 0);
        assert_eq!(read(&mut apic, 0, reg::ESR), ILLEGAL_VECTOR);
    }
}
