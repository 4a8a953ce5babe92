//! The 82093AA I/O APIC.
//!
//! Intel 82093AA datasheet (290566). The board collects messages to local APICs with
//! [`IoApic::send`], delivers them, and reports end of interrupt back.

use crate::bus::{MmioDevice, Nanos};
use crate::lapic::{Delivery, Target};

/// Inputs.
pub const PINS: usize = 24;

mod entry {
    pub const LOGICAL: u64 = 1 << 11;
    pub const PENDING: u64 = 1 << 12;
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL: u64 = 1 << 15;
    pub const MASKED: u64 = 1 << 16;
    pub const WRITABLE: u64 = 0xff00_0000_0001_afff;
}

/// An interrupt message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Destination: [`Target::Physical`] or [`Target::Logical`].
    pub target: Target,
    /// Delivery mode.
    pub delivery: Delivery,
    /// Vector.
    pub vector: u8,
    /// Level-triggered: the end of interrupt comes back.
    pub level: bool,
}

/// An I/O APIC.
#[derive(Clone, Debug)]
pub struct IoApic {
    id: u8,
    index: u8,
    entries: [u64; PINS],
    lines: u32,
    /// Edges that wait to be sent.
    edges: u32,
    /// Of `entries`, a bit each: not masked, level-triggered, remote IRR. Kept by
    /// [`Self::set_entry`], so that the board can ask after every access whether anything is due.
    unmasked: u32,
    level: u32,
    remote: u32,
}

impl IoApic {
    /// An I/O APIC after reset: all inputs masked.
    #[must_use]
    pub fn new(id: u8) -> Self {
        Self {
            id: id & 0x0f,
            index: 0,
            entries: [entry::MASKED; PINS],
            lines: 0,
            edges: 0,
            unmasked: 0,
            level: 0,
            remote: 0,
        }
    }

    fn set_entry(&mut self, pin: usize, value: u64) {
        self.entries[pin] = value;
        let bit = 1 << pin;
        let put = |mask: &mut u32, on: bool| *mask = if on { *mask | bit } else { *mask & !bit };
        put(&mut self.unmasked, value & entry::MASKED == 0);
        put(&mut self.level, value & entry::LEVEL != 0);
        put(&mut self.remote, value & entry::REMOTE_IRR != 0);
    }

    /// The vector that input `pin` (0-23) sends by fixed or lowest-priority delivery, unless it is
    /// masked.
    #[must_use]
    pub fn vector(&self, pin: usize) -> Option<u8> {
        let entry = *self.entries.get(pin)?;
        let by_vector = matches!(
            Delivery::from_bits((entry >> 8) as u32),
            Delivery::Fixed | Delivery::LowestPriority
        );
        (entry & entry::MASKED == 0 && by_vector).then_some(entry as u8)
    }

    /// Drives input `pin` (0-23) active or not; polarity is the board's wiring and ignored.
    pub fn set_line(&mut self, pin: usize, active: bool) {
        let Some(entry) = self.entries.get(pin) else {
            return;
        };
        let bit = 1 << pin;
        // An edge at a masked input is lost.
        if active && self.lines & bit == 0 && entry & (entry::LEVEL | entry::MASKED) == 0 {
            self.edges |= bit;
        }
        self.lines = if active {
            self.lines | bit
        } else {
            self.lines & !bit
        };
    }

    /// Inputs that have a message to send.
    fn due(&self) -> u32 {
        self.unmasked & (self.edges & !self.level | self.lines & self.level & !self.remote)
    }

    /// Sends what is due: `accept` gets each message once and tells whether a local APIC took it.
    /// A level-triggered one that none took stays due.
    pub fn send(&mut self, mut accept: impl FnMut(Message) -> bool) {
        let mut due = self.due();
        while due != 0 {
            let pin = due.trailing_zeros() as usize;
            due &= due - 1;
            let entry = self.entries[pin];
            let level = entry & entry::LEVEL != 0;
            let destination = (entry >> 56) as u8;
            let target = if entry & entry::LOGICAL != 0 {
                Target::Logical(destination)
            } else {
                Target::Physical(destination)
            };
            let taken = accept(Message {
                target,
                delivery: Delivery::from_bits((entry >> 8) as u32),
                vector: entry as u8,
                level,
            });
            self.edges &= !(1 << pin);
            if level && taken {
                self.set_entry(pin, entry | entry::REMOTE_IRR);
            }
        }
    }

    /// A processor ended the level-triggered interrupt `vector`; a line that is still active
    /// makes a new message.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for pin in 0..PINS {
            let entry = self.entries[pin];
            if entry & entry::LEVEL != 0 && entry as u8 == vector {
                self.set_entry(pin, entry & !entry::REMOTE_IRR);
            }
        }
    }

    fn read_register(&self) -> u32 {
        match self.index {
            0 | 2 => u32::from(self.id) << 24,
            1 => (PINS as u32 - 1) << 16 | 0x11,
            0x10..=0x3f => {
                let pin = usize::from(self.index - 0x10) / 2;
                let pending = if self.edges & 1 << pin != 0 {
                    entry::PENDING
                } else {
                    0
                };
                ((self.entries[pin] | pending) >> (32 * u32::from(self.index & 1))) as u32
            }
            _ => 0,
        }
    }

    fn write_register(&mut self, value: u32) {
        match self.index {
            0 => self.id = (value >> 24 & 0x0f) as u8,
            0x10..=0x3f => {
                let pin = usize::from(self.index - 0x10) / 2;
                let shift = 32 * u32::from(self.index & 1);
                let mask = entry::WRITABLE & 0xffff_ffff << shift;
                let mut entry = self.entries[pin] & !mask | u64::from(value) << shift & mask;
                if entry & entry::LEVEL == 0 {
                    entry &= !entry::REMOTE_IRR;
                }
                self.set_entry(pin, entry);
            }
            _ => {}
        }
    }
}

impl MmioDevice for IoApic {
    fn read(&mut self, _now: Nanos, offset: u64, data: &mut [u8]) {
        let word = match offset & !3 {
            0x00 => self.index.into(),
            0x10 => self.read_register(),
            _ => 0,
        };
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = word
                .to_le_bytes()
                .get(offset as usize % 4 + i)
                .copied()
                .unwrap_or(0);
        }
    }

    fn write(&mut self, _now: Nanos, offset: u64, data: &[u8]) {
        match (offset, data.first(), data.first_chunk::<4>()) {
            (0x00, Some(index), _) => self.index = *index,
            (0x10, _, Some(word)) => self.write_register(u32::from_le_bytes(*word)),
            // The EOI register of later versions.
            (0x40, Some(vector), _) => self.end_of_interrupt(*vector),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(apic: &mut IoApic, register: u8, value: u32) {
        MmioDevice::write(apic, 0, 0, &[register]);
        MmioDevice::write(apic, 0, 0x10, &value.to_le_bytes());
    }
    fn read(apic: &mut IoApic, register: u8) -> u32 {
        MmioDevice::write(apic, 0, 0, &[register]);
        let mut word = [0; 4];
        MmioDevice::read(apic, 0, 0x10, &mut word);
        u32::from_le_bytes(word)
    }

    fn take_message(apic: &mut IoApic) -> Option<Message> {
        let mut all = Vec::new();
        apic.send(|message| {
            all.push(message);
            true
        });
        assert!(all.len() < 2);
        all.pop()
    }

    #[test]
    fn edges_send_once_and_masked_ones_are_lost() {
        let mut apic = IoApic::new(1);
        apic.set_line(4, true);
        write(&mut apic, 0x18, 0x0931);
        write(&mut apic, 0x19, 0x0300_0000);
        assert_eq!(take_message(&mut apic), None);
        apic.set_line(4, false);
        apic.set_line(4, true);
        let message = take_message(&mut apic).unwrap();
        assert_eq!((message.target, message.vector), (Target::Logical(3), 0x31));
        assert_eq!(message.delivery, Delivery::LowestPriority);
        assert_eq!(take_message(&mut apic), None);
    }

    #[test]
    fn level_repeats_after_end_of_interrupt_while_active() {
        let mut apic = IoApic::new(1);
        write(&mut apic, 0x26, 0xa041);
        apic.set_line(11, true);
        assert!(take_message(&mut apic).unwrap().level);
        assert_eq!(take_message(&mut apic), None);
        assert_eq!(read(&mut apic, 0x26) & 0x4000, 0x4000);
        apic.end_of_interrupt(0x41);
        assert!(take_message(&mut apic).is_some());
        apic.set_line(11, false);
        apic.end_of_interrupt(0x41);
        assert_eq!(take_message(&mut apic), None);
    }

    #[test]
    fn a_level_that_nobody_takes_stays_due() {
        let mut apic = IoApic::new(1);
        write(&mut apic, 0x26, 0xa041);
        assert_eq!(apic.vector(11), Some(0x41));
        apic.set_line(11, true);
        apic.send(|_| false);
        assert_eq!(read(&mut apic, 0x26) & 0x4000, 0, "no remote IRR");
        assert!(take_message(&mut apic).is_some());
        // Edge mode clears remote IRR, as operating systems do to recover a lost EOI.
        write(&mut apic, 0x26, 0x1_2041);
        assert_eq!((read(&mut apic, 0x26) & 0x4000, apic.vector(11)), (0, None));
    }

    #[test]
    fn identity_and_version() {
        let mut apic = IoApic::new(2);
        assert_eq!(
            (read(&mut apic, 0), read(&mut apic, 1)),
            (0x0200_0000, 0x0017_0011)
        );
        assert_eq!(
            (read(&mut apic, 0x10), read(&mut apic, 0xff)),
            (0x1_0000, 0)
        );
        apic.set_line(99, true);
    }

    /// 82093AA, 3.2.4: halves of an entry, its read-only bits, deliveries without a vector.
    #[test]
    fn entries_keep_what_is_writable() {
        let mut apic = IoApic::new(1);
        write(&mut apic, 0x10 + 2 * 23, 0xffff_ffff);
        write(&mut apic, 0x11 + 2 * 23, 0xffff_ffff);
        assert_eq!(read(&mut apic, 0x3e), 0x1_afff);
        assert_eq!(read(&mut apic, 0x3f), 0xff00_0000);
        assert_eq!(read(&mut apic, 0x3d), 0, "the neighbour");
        write(&mut apic, 0x10, 0x0400);
        write(&mut apic, 0x11, 0x0500_0000);
        assert_eq!(apic.vector(0), None);
        apic.set_line(0, true);
        let message = take_message(&mut apic).unwrap();
        assert_eq!(
            (message.target, message.delivery),
            (Target::Physical(5), Delivery::Nmi)
        );
    }

    /// 82093AA, 3.1: the index register, and windows that are not registers.
    #[test]
    fn registers_are_selected_by_the_index() {
        let mut apic = IoApic::new(1);
        write(&mut apic, 0, 0xff00_0000);
        assert_eq!(read(&mut apic, 0), 0x0f00_0000, "four bits of id");
        assert_eq!(read(&mut apic, 2), 0x0f00_0000, "arbitration id");
        let mut word = [0xaa; 4];
        MmioDevice::read(&mut apic, 0, 0, &mut word);
        assert_eq!(word, [2, 0, 0, 0]);
        MmioDevice::read(&mut apic, 0, 0x20, &mut word);
        assert_eq!(word, [0; 4]);
    }
}
