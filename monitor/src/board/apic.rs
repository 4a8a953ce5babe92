//! The APICs of the board: where they answer in memory, and the messages between them.
//!
//! Intel SDM vol. 3A, chapter 11; Intel 82093AA datasheet (290566); MultiProcessor Specification
//! 1.4, 3.6. One processor. The 8259 pair reaches it through LINT0, or directly while the local
//! APIC is disabled. A base address inside RAM is not decoded: RAM answers there.

use super::wiring::{HPET_BASE, IOAPIC_BASE, IOAPIC_ID, LAPIC_BASE};
use ring3_devices::bus::{MmioDevice, Nanos, Timed};
use ring3_devices::hpet::Hpet;
use ring3_devices::ioapic::IoApic;
use ring3_devices::lapic::{Delivery, Lapic, Target};
use ring3_translator::state::apic_base;

/// Bytes that each of them decodes.
const WINDOW: u64 = 0x1000;
/// Bytes that the HPET decodes.
const HPET_WINDOW: u64 = 0x400;
/// Page that no chip decodes.
const NOWHERE: u64 = u64::MAX;

/// What an interrupt message asked of the processor beside a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signals {
    /// A non-maskable interrupt.
    pub nmi: bool,
    /// INIT.
    pub init: bool,
}

/// Local APIC, I/O APIC and HPET.
#[derive(Debug)]
pub(super) struct Apics {
    pub local: Lapic,
    pub io: IoApic,
    pub hpet: Hpet,
    /// Where the local APIC answers; [`NOWHERE`] while it is globally disabled.
    base: u64,
    signals: Signals,
}

impl Apics {
    /// After RESET; with `set_up`, in virtual wire mode as firmware leaves it.
    pub fn new(set_up: bool) -> Self {
        let mut local = Lapic::new(0);
        if set_up {
            local.set_virtual_wire();
        }
        Self {
            local,
            io: IoApic::new(IOAPIC_ID),
            hpet: Hpet::new(),
            base: LAPIC_BASE,
            signals: Signals::default(),
        }
    }

    /// The processor wrote IA32_APIC_BASE.
    pub fn set_base(&mut self, value: u64) {
        let on = value & apic_base::ENABLE != 0;
        let was_on = self.base != NOWHERE;
        self.base = if on { value & !0xfff } else { NOWHERE };
        if was_on && !on {
            // SDM vol. 3A, 11.4.3: disabled and enabled again, it is as after RESET.
            self.local = Lapic::new(0);
        }
    }

    /// The processor wrote IA32_TSC_DEADLINE. False if the timer takes no deadlines now.
    pub fn set_deadline(&mut self, now: Nanos, due: Option<Nanos>) -> bool {
        self.enabled() && self.local.set_deadline(now, due)
    }

    fn enabled(&self) -> bool {
        self.base != NOWHERE
    }

    /// The chip that answers at `pa`, and the offset in it.
    pub fn at(&mut self, pa: u64) -> Option<(&mut dyn MmioDevice, u64)> {
        let page = pa & !(WINDOW - 1);
        let offset = pa & (WINDOW - 1);
        match page {
            _ if page == self.base => Some((&mut self.local, offset)),
            IOAPIC_BASE => Some((&mut self.io, offset)),
            HPET_BASE if offset < HPET_WINDOW => Some((&mut self.hpet, offset)),
            _ => None,
        }
    }

    /// Whether the 8259 pair reaches the processor.
    pub fn accepts_extint(&self) -> bool {
        !self.enabled() || self.local.accepts_extint()
    }

    /// The local APIC's own interrupt waits for the processor.
    pub fn pending(&self) -> bool {
        self.enabled() && self.local.pending().is_some()
    }

    /// The vector that I/O APIC input `pin` sends has not been acknowledged yet.
    pub fn requested(&self, pin: usize) -> bool {
        self.io
            .vector(pin)
            .is_some_and(|vector| self.local.requested(vector))
    }

    /// An NMI on the processor's or the local APIC's pin.
    pub fn raise_nmi(&mut self) {
        if !self.enabled() || self.local.accepts_nmi() {
            self.signals.nmi = true;
        }
    }

    /// What messages asked for, once.
    pub fn take_signals(&mut self) -> Signals {
        core::mem::take(&mut self.signals)
    }

    /// Drives the level of an I/O APIC input.
    pub fn set_line(&mut self, pin: usize, active: bool) {
        self.io.set_line(pin, active);
    }

    /// One edge on an I/O APIC input. Its message leaves at once.
    pub fn pulse(&mut self, pin: usize) {
        self.io.set_line(pin, false);
        self.io.set_line(pin, true);
        self.deliver();
        self.io.set_line(pin, false);
    }

    /// Carries messages until none is left. Each end of interrupt can make one new message, and
    /// that none: the loop ends.
    pub fn deliver(&mut self) {
        let (local, signals) = (&mut self.local, &mut self.signals);
        while let Some(ipi) = local.take_ipi() {
            // "All but the sender" is nobody here.
            if ipi.target != Target::Others && !ipi.deassert {
                accept(local, signals, ipi.target, ipi.delivery, ipi.vector, false);
            }
        }
        while let Some(vector) = local.take_eoi() {
            self.io.end_of_interrupt(vector);
        }
        self.io
            .send(|m| accept(local, signals, m.target, m.delivery, m.vector, m.level));
    }

    /// Brings timers to `now`.
    pub fn advance(&mut self, now: Nanos) {
        self.local.advance(now);
        self.hpet.advance(now);
    }

    /// The earliest time at which a timer may change an output.
    pub fn next_deadline(&self) -> Option<Nanos> {
        match (self.local.next_deadline(), self.hpet.next_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// Gives a message to the local APIC if it is meant; false if that does not take it.
fn accept(
    local: &mut Lapic,
    signals: &mut Signals,
    target: Target,
    delivery: Delivery,
    vector: u8,
    level: bool,
) -> bool {
    let meant = match target {
        Target::Physical(id) => id == 0xff || id == local.id(),
        Target::Logical(destination) => local.matches_logical(destination),
        Target::Own | Target::All => true,
        Target::Others => false,
    };
    if !meant {
        return false;
    }
    match delivery {
        Delivery::Fixed | Delivery::LowestPriority => local.accept(vector, level),
        Delivery::Nmi => {
            signals.nmi = true;
            true
        }
        Delivery::Init => {
            signals.init = true;
            true
        }
        // There is no system management mode, a running processor ignores start-up messages, and
        // the 8259s have a wire of their own.
        Delivery::Smi | Delivery::StartUp | Delivery::ExtInt | Delivery::Reserved => true,
    }
}
