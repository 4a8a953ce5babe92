//! The pair of Intel 8259A interrupt controllers with the PIIX3's edge/level control registers.
//!
//! Intel 8259A datasheet (231468-003); ELCR: Intel PIIX3 datasheet (290550), 2.5.3. The MCS-80
//! call mode and the buffered mode have no meaning in a PC and are ignored; ICW1.LTIM is ignored
//! in favour of ELCR, as in the PIIX3.

use crate::bus::{BytePorts, Nanos, OPEN_BUS};

/// Port layout of [`PicPair`] as a [`BytePorts`] chip.
pub mod offset {
    /// Master A0=0 and A0=1 (two ports).
    pub const MASTER: u16 = 0;
    /// Slave A0=0 and A0=1 (two ports).
    pub const SLAVE: u16 = 2;
    /// ELCR1 and ELCR2 (two ports).
    pub const ELCR: u16 = 4;
}

mod icw1 {
    pub const IC4: u8 = 0x01;
    pub const SNGL: u8 = 0x02;
    pub const INIT: u8 = 0x10;
}
mod icw4 {
    pub const AEOI: u8 = 0x02;
    pub const SFNM: u8 = 0x10;
}
mod ocw3 {
    pub const SELECT: u8 = 0x08;
    pub const RIS: u8 = 0x01;
    pub const RR: u8 = 0x02;
    pub const POLL: u8 = 0x04;
    pub const SMM: u8 = 0x20;
    pub const ESMM: u8 = 0x40;
}

/// The master input that the slave's INT output drives.
const CASCADE: u8 = 2;
/// The input number that a vanished request is reported on.
const SPURIOUS: u8 = 7;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Init {
    #[default]
    Done,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, Debug, Default)]
struct Chip {
    irr: u8,
    imr: u8,
    isr: u8,
    /// Input levels.
    lines: u8,
    /// Inputs that request by level: ELCR bits and the master's cascade input.
    level: u8,
    /// The input with the lowest priority.
    lowest: u8,
    vector: u8,
    init: Init,
    needs_icw4: bool,
    single: bool,
    auto_eoi: bool,
    rotate_on_aeoi: bool,
    special_fully_nested: bool,
    special_mask: bool,
    read_isr: bool,
    poll: bool,
}

impl Chip {
    fn new(level: u8) -> Self {
        Self {
            level,
            lowest: 7,
            ..Self::default()
        }
    }

    fn set_line(&mut self, input: u8, high: bool) {
        let bit = 1 << input;
        let rose = high && self.lines & bit == 0;
        if high {
            self.lines |= bit;
        } else {
            self.lines &= !bit;
        }
        // A request that goes away before the acknowledge is gone (and reads as input 7 if the
        // processor already saw INT): "Interrupt Request", datasheet p. 17.
        if !high {
            self.irr &= !bit;
        } else if rose || self.level & bit != 0 {
            self.irr |= bit;
        }
    }

    /// The distance of an input from the top of the priority order, 0-7.
    fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.lowest).wrapping_sub(1) & 7
    }

    /// The highest-priority input of a mask.
    fn highest(&self, mask: u8) -> Option<u8> {
        (0..8)
            .map(|r| (self.lowest + 1 + r) & 7)
            .find(|i| mask & (1 << i) != 0)
    }

    /// The input that would be acknowledged now.
    fn pending(&self) -> Option<u8> {
        let request = self.highest(self.irr & !self.imr)?;
        let mut in_service = self.isr;
        if self.special_mask {
            // A level in service that is masked no longer inhibits lower ones.
            in_service &= !self.imr;
        }
        if self.special_fully_nested {
            // The slave may interrupt its own service routine.
            in_service &= !(1 << CASCADE);
        }
        match self.highest(in_service) {
            Some(busy) if self.rank(busy) <= self.rank(request) => None,
            _ => Some(request),
        }
    }

    fn accept(&mut self, input: u8) {
        let bit = 1 << input;
        if self.auto_eoi {
            if self.rotate_on_aeoi {
                self.lowest = input;
            }
        } else {
            self.isr |= bit;
        }
        if self.level & bit == 0 {
            self.irr &= !bit;
        }
    }

    /// Takes the pending input into service; input 7 without service if there is none.
    fn acknowledge(&mut self) -> u8 {
        match self.pending() {
            Some(input) => {
                self.accept(input);
                input
            }
            None => SPURIOUS,
        }
    }

    fn read(&mut self, a0: bool) -> u8 {
        if self.poll {
            self.poll = false;
            return match self.pending() {
                Some(input) => {
                    self.accept(input);
                    0x80 | input
                }
                None => 0,
            };
        }
        match (a0, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }

    fn write(&mut self, a0: bool, value: u8) {
        if a0 {
            self.write_data(value);
        } else if value & icw1::INIT != 0 {
            self.start_init(value);
        } else if value & ocw3::SELECT != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    fn start_init(&mut self, value: u8) {
        // The edge latches are cleared: an input needs a new rising edge (datasheet p. 11).
        self.irr = self.lines & self.level;
        *self = Self {
            irr: self.irr,
            lines: self.lines,
            level: self.level,
            vector: self.vector,
            lowest: 7,
            init: Init::Icw2,
            needs_icw4: value & icw1::IC4 != 0,
            single: value & icw1::SNGL != 0,
            ..Self::default()
        };
    }

    fn write_data(&mut self, value: u8) {
        let last = if self.needs_icw4 {
            Init::Icw4
        } else {
            Init::Done
        };
        match self.init {
            Init::Done => self.imr = value,
            Init::Icw2 => {
                self.vector = value & 0xf8;
                self.init = if self.single { last } else { Init::Icw3 };
            }
            // The cascade wiring of a PC is fixed.
            Init::Icw3 => self.init = last,
            Init::Icw4 => {
                self.auto_eoi = value & icw4::AEOI != 0;
                self.special_fully_nested = value & icw4::SFNM != 0;
                self.init = Init::Done;
            }
        }
    }

    fn write_ocw2(&mut self, value: u8) {
        let input = value & 7;
        match value >> 5 {
            0 => self.rotate_on_aeoi = false,
            1 => {
                self.end(None);
            }
            2 => {}
            3 => {
                self.end(Some(input));
            }
            4 => self.rotate_on_aeoi = true,
            5 => {
                if let Some(ended) = self.end(None) {
                    self.lowest = ended;
                }
            }
            6 => self.lowest = input,
            _ => {
                self.end(Some(input));
                self.lowest = input;
            }
        }
    }

    /// Ends the service of an input, or of the highest in service, and returns it.
    fn end(&mut self, input: Option<u8>) -> Option<u8> {
        let mut candidates = self.isr;
        if self.special_mask {
            // A masked level's ISR bit is not cleared by a non-specific EOI (datasheet p. 15).
            candidates &= !self.imr;
        }
        let input = input.or_else(|| self.highest(candidates))?;
        self.isr &= !(1 << input);
        Some(input)
    }

    fn write_ocw3(&mut self, value: u8) {
        if value & ocw3::ESMM != 0 {
            self.special_mask = value & ocw3::SMM != 0;
        }
        if value & ocw3::POLL != 0 {
            self.poll = true;
        } else if value & ocw3::RR != 0 {
            self.read_isr = value & ocw3::RIS != 0;
        }
    }
}

/// Master and slave 8259A, cascaded on input 2: the sixteen interrupt lines of a PC.
#[derive(Clone, Debug)]
pub struct PicPair {
    master: Chip,
    slave: Chip,
}

impl Default for PicPair {
    fn default() -> Self {
        Self::new()
    }
}

impl PicPair {
    /// ELCR1 and ELCR2 bits that exist: IRQ 0, 1, 2, 8 and 13 are always edge-triggered.
    const ELCR_MASK: [u8; 2] = [0xf8, 0xde];

    /// The power-on state: uninitialised, all inputs edge-triggered and low.
    #[must_use]
    pub fn new() -> Self {
        Self {
            master: Chip::new(1 << CASCADE),
            slave: Chip::new(0),
        }
    }

    /// Drives interrupt line `irq` (0-15; 2 is the cascade and ignored) to a level.
    pub fn set_line(&mut self, irq: u8, high: bool) {
        match irq {
            CASCADE => return,
            0..8 => self.master.set_line(irq, high),
            8..16 => self.slave.set_line(irq - 8, high),
            _ => return,
        }
        self.update();
    }

    /// The master's INT output, which drives the processor's INTR.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.master.pending().is_some()
    }

    /// The processor's interrupt acknowledge cycles: takes the highest request into service and
    /// returns its vector; the vector of IRQ 7 or 15 if the request has gone (spurious).
    pub fn acknowledge(&mut self) -> u8 {
        let input = self.master.acknowledge();
        let vector = if input == CASCADE {
            self.slave.vector | self.slave.acknowledge()
        } else {
            self.master.vector | input
        };
        self.update();
        vector
    }

    /// Whether a request on `irq` (0-15) is latched and not yet acknowledged.
    #[must_use]
    pub fn requested(&self, irq: u8) -> bool {
        match irq {
            0..8 => self.master.irr & (1 << irq) != 0,
            8..16 => self.slave.irr & (1 << (irq - 8)) != 0,
            _ => false,
        }
    }

    /// Whether `irq` (0-15) is masked by its own mask bit or, from 8 on, by the cascade's.
    #[must_use]
    pub fn masked(&self, irq: u8) -> bool {
        match irq {
            0..8 => self.master.imr & (1 << irq) != 0,
            8..16 => {
                self.slave.imr & (1 << (irq - 8)) != 0 || self.master.imr & (1 << CASCADE) != 0
            }
            _ => true,
        }
    }

    /// The one place where the slave's INT output reaches the master.
    fn update(&mut self) {
        self.master
            .set_line(CASCADE, self.slave.pending().is_some());
    }
}

impl BytePorts for PicPair {
    fn read_byte(&mut self, _now: Nanos, at: u16) -> u8 {
        let a0 = at & 1 != 0;
        let value = match at & !1 {
            offset::MASTER => self.master.read(a0),
            offset::SLAVE => self.slave.read(a0),
            offset::ELCR if a0 => self.slave.level,
            offset::ELCR => self.master.level & Self::ELCR_MASK[0],
            _ => OPEN_BUS,
        };
        self.update();
        value
    }

    fn write_byte(&mut self, _now: Nanos, at: u16, value: u8) {
        let a0 = at & 1 != 0;
        match at & !1 {
            offset::MASTER => self.master.write(a0, value),
            offset::SLAVE => self.slave.write(a0, value),
            offset::ELCR if a0 => self.slave.level = value & Self::ELCR_MASK[1],
            offset::ELCR => self.master.level = value & Self::ELCR_MASK[0] | 1 << CASCADE,
            _ => {}
        }
        self.update();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offset::{ELCR, MASTER, SLAVE};

    /// A pair initialised as PCs do: vectors 0x20 and 0x28, nothing masked.
    fn pair() -> PicPair {
        let mut pic = PicPair::new();
        for (base, vector, wiring) in [(MASTER, 0x20, 4), (SLAVE, 0x28, 2)] {
            for (a0, value) in [(0, 0x11), (1, vector), (1, wiring), (1, 0x01), (1, 0x00)] {
                pic.write_byte(0, base + a0, value);
            }
        }
        pic
    }

    fn isr(pic: &mut PicPair, base: u16) -> u8 {
        pic.write_byte(0, base, 0x0b);
        pic.read_byte(0, base)
    }

    #[test]
    fn edge_request_is_delivered_once() {
        let mut pic = pair();
        pic.set_line(0, true);
        assert!(pic.intr());
        assert_eq!(pic.acknowledge(), 0x20);
        assert!(!pic.intr());
        pic.write_byte(0, MASTER, 0x20);
        pic.set_line(0, true);
        assert!(
            !pic.intr(),
            "a line that stays high makes no second request"
        );
        pic.set_line(0, false);
        pic.set_line(0, true);
        assert!(pic.intr());
    }

    #[test]
    fn level_request_repeats_until_the_line_drops() {
        let mut pic = pair();
        pic.write_byte(0, ELCR + 1, 0xff);
        assert_eq!(pic.read_byte(0, ELCR + 1), 0xde);
        pic.set_line(11, true);
        assert_eq!(pic.acknowledge(), 0x2b);
        pic.write_byte(0, SLAVE, 0x20);
        pic.write_byte(0, MASTER, 0x20);
        assert!(pic.intr());
        pic.set_line(11, false);
        assert!(!pic.intr());
    }

    #[test]
    fn higher_priority_preempts_and_lower_waits_for_eoi() {
        let mut pic = pair();
        pic.set_line(4, true);
        assert_eq!(pic.acknowledge(), 0x24);
        pic.set_line(7, true);
        assert!(!pic.intr());
        pic.set_line(1, true);
        assert_eq!(pic.acknowledge(), 0x21);
        assert_eq!(isr(&mut pic, MASTER), 0x12);
        pic.write_byte(0, MASTER, 0x20);
        assert_eq!(
            isr(&mut pic, MASTER),
            0x10,
            "EOI ends the highest in service"
        );
        pic.write_byte(0, MASTER, 0x64);
        assert_eq!(pic.acknowledge(), 0x27);
    }

    #[test]
    fn vanished_request_is_spurious_and_not_in_service() {
        let mut pic = pair();
        pic.set_line(3, true);
        pic.set_line(3, false);
        assert_eq!(pic.acknowledge(), 0x27);
        assert_eq!(isr(&mut pic, MASTER), 0);
    }

    #[test]
    fn slave_spurious_leaves_the_cascade_in_service() {
        let mut pic = pair();
        pic.set_line(9, true);
        pic.master.accept(CASCADE);
        pic.set_line(9, false);
        assert_eq!(pic.slave.acknowledge(), 7);
        assert_eq!(isr(&mut pic, MASTER), 4);
        assert_eq!(isr(&mut pic, SLAVE), 0);
    }

    #[test]
    fn automatic_eoi_leaves_nothing_in_service_and_can_rotate() {
        let mut pic = pair();
        for (a0, value) in [(0, 0x11), (1, 0x20), (1, 4), (1, 0x03), (1, 0), (0, 0x80)] {
            pic.write_byte(0, MASTER + a0, value);
        }
        pic.set_line(0, true);
        assert_eq!(pic.acknowledge(), 0x20);
        assert_eq!(isr(&mut pic, MASTER), 0);
        pic.set_line(0, false);
        pic.set_line(0, true);
        pic.set_line(1, true);
        assert_eq!(pic.acknowledge(), 0x21, "input 0 rotated to the bottom");
    }

    #[test]
    fn specific_rotation_sets_the_lowest_priority() {
        let mut pic = pair();
        pic.write_byte(0, MASTER, 0xc3);
        pic.set_line(3, true);
        pic.set_line(4, true);
        assert_eq!(pic.acknowledge(), 0x24);
    }

    #[test]
    fn special_mask_mode_lets_lower_levels_through() {
        let mut pic = pair();
        pic.set_line(1, true);
        pic.acknowledge();
        pic.set_line(6, true);
        assert!(!pic.intr());
        pic.write_byte(0, MASTER + 1, 0x02);
        pic.write_byte(0, MASTER, 0x68);
        assert_eq!(pic.acknowledge(), 0x26);
    }

    #[test]
    fn poll_acknowledges_and_reports() {
        let mut pic = pair();
        pic.set_line(5, true);
        pic.write_byte(0, MASTER, 0x0c);
        assert_eq!(pic.read_byte(0, MASTER), 0x85);
        assert!(!pic.intr());
        pic.write_byte(0, MASTER, 0x0c);
        assert_eq!(pic.read_byte(0, MASTER), 0);
    }

    #[test]
    fn mask_register_reads_back_and_blocks() {
        let mut pic = pair();
        pic.write_byte(0, MASTER + 1, 0xfb);
        pic.set_line(0, true);
        assert_eq!(pic.read_byte(0, MASTER + 1), 0xfb);
        assert!(!pic.intr() && pic.masked(0) && pic.requested(0));
        pic.set_line(8, true);
        assert_eq!(pic.acknowledge(), 0x28);
    }

    #[test]
    fn icw1_clears_edge_latches_and_mask() {
        let mut pic = pair();
        pic.write_byte(0, MASTER + 1, 0xff);
        pic.set_line(0, true);
        pic.write_byte(0, MASTER, 0x13);
        pic.write_byte(0, MASTER + 1, 0x40);
        pic.write_byte(0, MASTER + 1, 0x01);
        assert_eq!(pic.read_byte(0, MASTER + 1), 0);
        assert!(!pic.intr(), "a new edge is needed");
        pic.set_line(0, false);
        pic.set_line(0, true);
        assert_eq!(pic.acknowledge(), 0x40);
    }
}
