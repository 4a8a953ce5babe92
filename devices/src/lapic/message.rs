//! Interrupt messages: the interrupt command register and destinations. Intel SDM vol. 3A, 11.6.

use super::Lapic;
use super::spec::{error, icr};

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

impl Lapic {
    /// Messages held for the board; a guest cannot make more without the board running.
    const QUEUE: usize = 64;

    /// An interprocessor interrupt that the processor sent.
    pub fn take_ipi(&mut self) -> Option<Ipi> {
        self.ipis.pop_front()
    }

    /// The vector of a level-triggered interrupt that the processor ended, for the IOAPICs.
    pub fn take_eoi(&mut self) -> Option<u8> {
        self.eois.pop_front()
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

    /// A write of the EOI register. SDM vol. 3A, 11.8.5.
    pub(super) fn end_of_interrupt(&mut self) {
        if let Some(vector) = self.isr.highest() {
            self.isr.set(vector, false);
            if self.tmr.test(vector) && self.eois.len() < Self::QUEUE {
                self.eois.push_back(vector);
            }
        }
    }

    /// A write of the lower half of the ICR sends the message.
    pub(super) fn send(&mut self) {
        let low = self.icr as u32;
        let destination = (self.icr >> 56) as u8;
        let target = match (low >> 18 & 3, low & icr::LOGICAL != 0) {
            (0, false) => Target::Physical(destination),
            (0, true) => Target::Logical(destination),
            (1, _) => Target::Own,
            (2, _) => Target::All,
            _ => Target::Others,
        };
        let delivery = Delivery::from_bits(low >> 8);
        let by_vector = matches!(delivery, Delivery::Fixed | Delivery::LowestPriority);
        if by_vector && (low as u8) < 16 {
            self.error(error::SEND_ILLEGAL_VECTOR);
            return;
        }
        let deassert = delivery == Delivery::Init && low & icr::LEVEL_AND_TRIGGER == icr::DEASSERT;
        if self.ipis.len() < Self::QUEUE {
            self.ipis.push_back(Ipi {
                target,
                delivery,
                vector: low as u8,
                deassert,
            });
        }
    }
}
