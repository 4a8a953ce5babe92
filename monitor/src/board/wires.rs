//! The wires between the chips: interrupt lines, edges, and the times at which they change.
//!
//! A cycle changes the chip that it reaches. What that chip shows the others, its [`Outputs`], is
//! looked at after the cycle, and carried on if it is not what it was; the other chips are not
//! asked. So a cycle costs what its own chip costs. In builds with debug assertions each cycle checks
//! that a look at every chip would find nothing else ([`Chips::is_current`]).

use super::chips::Chips;
use super::wiring::{
    IRQ_FLOPPY, IRQ_IDE, IRQ_KEYBOARD, IRQ_MOUSE, IRQ_PARALLEL, IRQ_RTC, IRQ_SCI, IRQ_TIMER,
    PIRQ_PIN, SERIAL, Slot, TIMER_PIN,
};
use ring3_devices::bus::{Nanos, Timed};
use ring3_devices::hpet::TIMERS;

/// What a chip shows the rest of the board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outputs {
    /// The lines that it drives: bits 0-15 the interrupt lines, 16-19 PIRQ A-D.
    lines: u32,
    /// When it may change them by itself.
    deadline: Option<Nanos>,
}

/// What every chip showed when it was looked at last, and what was made of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wires {
    /// By the number of the slot.
    shown: [Outputs; Slot::ALL.len()],
    /// The earliest of their deadlines.
    deadline: Option<Nanos>,
    /// The levels that the interrupt controllers were last given.
    levels: u32,
    /// The levels of the HPET's own I/O APIC inputs.
    hpet_levels: u32,
    /// The RTC's output, which the power management sees too.
    rtc_level: bool,
}

/// The chip whose outputs a cycle at `slot` may change.
fn source(slot: Slot) -> Slot {
    match slot {
        Slot::Apm => Slot::Pm,
        // The floppy controller is the one chip that the DMA controller serves.
        Slot::Dma => Slot::Floppy,
        _ => slot,
    }
}

impl Chips {
    fn outputs(&self, slot: Slot) -> Outputs {
        let line = |line: u8, high: bool| u32::from(high) << line;
        let uart = |index: usize| {
            let level = self.uarts.get(index).is_some_and(|uart| uart.irq());
            line(SERIAL[index].1, level)
        };
        let (lines, deadline) = match slot {
            Slot::Pit => (0, self.pit.next_deadline()),
            Slot::Rtc => (line(IRQ_RTC, self.rtc.irq()), self.rtc.next_deadline()),
            Slot::Uart0 => (uart(0), None),
            Slot::Uart1 => (uart(1), None),
            Slot::Uart2 => (uart(2), None),
            Slot::Uart3 => (uart(3), None),
            Slot::Keyboard => {
                let keyboard = line(IRQ_KEYBOARD, self.keyboard.irq());
                let mouse = line(IRQ_MOUSE, self.keyboard.aux_irq());
                (keyboard | mouse, self.keyboard.next_deadline())
            }
            Slot::Pm => (line(IRQ_SCI, self.pm.irq()), self.pm.next_deadline()),
            Slot::Smbus => (line(IRQ_SCI, self.smbus.irq()), None),
            Slot::Floppy => (line(IRQ_FLOPPY, self.floppy.irq()), None),
            Slot::Parallel => (line(IRQ_PARALLEL, self.parallel.irq()), None),
            Slot::Ide => {
                let ide = &self.pci.functions.ide;
                let channel = |index| line(IRQ_IDE[index], ide.irq(index));
                (channel(0) | channel(1), None)
            }
            Slot::Vga => {
                let pirqs = self.pci.functions.pirqs();
                let levels = (PIRQ_PIN..).zip(pirqs);
                (
                    levels.fold(0, |all, (pin, high)| all | line(pin, high)),
                    None,
                )
            }
            Slot::Apics => (0, self.apic.next_deadline()),
            // The interrupt controllers' output is the processor's input; the others have none.
            Slot::Pic
            | Slot::None
            | Slot::Port92
            | Slot::Post
            | Slot::DebugConsole
            | Slot::DebugExit
            | Slot::PciConfig
            | Slot::Apm
            | Slot::Dma
            | Slot::FwCfg => (0, None),
        };
        Outputs { lines, deadline }
    }

    /// Looks at the chip that a cycle at `slot` has reached. True if there is something to
    /// [carry](Self::carry).
    pub fn look(&mut self, slot: Slot) -> bool {
        let slot = source(slot);
        let outputs = self.outputs(slot);
        let before = std::mem::replace(&mut self.wires.shown[slot as usize], outputs);
        if outputs.deadline != before.deadline {
            self.wires.deadline = self.earliest();
        }
        outputs.lines != before.lines
            || match slot {
                // Their masks and requests decide what becomes of the lines.
                Slot::Pic | Slot::Apics => true,
                Slot::Pit => self.pit.backlog() > 0,
                _ => false,
            }
    }

    /// Looks at every chip.
    pub fn look_at_all(&mut self) {
        for slot in Slot::ALL {
            self.look(slot);
        }
    }

    /// Whether nothing has changed that was not looked at.
    pub fn is_current(&self) -> bool {
        let looked_at = |slot: Slot| {
            source(slot) != slot || self.outputs(slot) == self.wires.shown[slot as usize]
        };
        Slot::ALL.into_iter().all(looked_at)
            && self.wires.deadline == self.earliest()
            && self.wires.levels == self.levels()
    }

    fn earliest(&self) -> Option<Nanos> {
        let deadlines = self
            .wires
            .shown
            .iter()
            .filter_map(|outputs| outputs.deadline);
        deadlines.min()
    }

    /// The earliest time at which an output may change by itself.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.wires.deadline
    }

    /// The level of every line. Outputs that share a line are wired together.
    fn levels(&self) -> u32 {
        let shown = &self.wires.shown;
        let mut levels = shown.iter().fold(0, |all, outputs| all | outputs.lines);
        let hpet = &self.apic.hpet;
        if hpet.legacy_replacement() {
            levels &= !(1 << IRQ_RTC);
            levels |= u32::from(hpet.irq(0)) << IRQ_TIMER | u32::from(hpet.irq(1)) << IRQ_RTC;
        }
        let pirqs = std::array::from_fn(|i| levels >> (PIRQ_PIN + i as u8) & 1 != 0);
        levels | u32::from(self.pci.functions.isa.asserted(pirqs))
    }

    /// Drives the interrupt controllers' inputs from what the chips show, and carries APIC
    /// messages.
    pub fn carry(&mut self) {
        self.update_hpet();
        self.update_timer_line();
        let rtc = self.wires.shown[Slot::Rtc as usize].lines != 0;
        let rtc_was = std::mem::replace(&mut self.wires.rtc_level, rtc);
        if rtc && !rtc_was {
            self.pm.rtc_asserted();
            self.look(Slot::Pm);
        }
        let levels = self.levels();
        let mut changed = levels ^ self.wires.levels;
        self.wires.levels = levels;
        while changed != 0 {
            let line = changed.trailing_zeros() as u8;
            changed &= changed - 1;
            let high = levels >> line & 1 != 0;
            if line < 16 {
                self.pic.set_line(line, high);
            }
            let pin = if line == IRQ_TIMER { TIMER_PIN } else { line };
            self.apic.set_line(pin.into(), high);
        }
        self.apic.deliver();
    }

    /// The HPET's outputs that do not replace those of the 8254 and the RTC.
    fn update_hpet(&mut self) {
        let mut levels = 0u32;
        for timer in 0..TIMERS {
            let hpet = &mut self.apic.hpet;
            let (replaces, route) = (hpet.legacy_replacement() && timer < 2, hpet.route(timer));
            let level = hpet.irq(timer);
            // Only the timer's own line is told of each missed expiry.
            let mut edge = false;
            while !(replaces && timer == 0) && hpet.take_edge(timer) {
                edge = true;
            }
            match route {
                Some(_) if replaces && edge => {
                    self.pic.set_line(IRQ_RTC, false);
                    self.pic.set_line(IRQ_RTC, true);
                    self.apic.pulse(IRQ_RTC.into());
                    self.pic.set_line(IRQ_RTC, false);
                }
                Some(pin) if !replaces => {
                    levels |= u32::from(level) << pin;
                    if edge {
                        self.apic.pulse(pin.into());
                    }
                }
                _ => {}
            }
        }
        let mut changed = levels ^ self.wires.hpet_levels;
        self.wires.hpet_levels = levels;
        while changed != 0 {
            let pin = changed.trailing_zeros();
            changed &= changed - 1;
            self.apic.set_line(pin as usize, levels >> pin & 1 != 0);
        }
    }

    /// The timer's edges are delivered one by one: the next when the one before has been
    /// acknowledged. While the guest masks the line, as on hardware, only one is remembered.
    fn update_timer_line(&mut self) {
        let by_pic = !self.pic.masked(IRQ_TIMER) && self.apic.accepts_extint();
        let by_apic = self.apic.io.vector(TIMER_PIN.into()).is_some();
        if by_pic || by_apic {
            let waits = by_pic && self.pic.requested(IRQ_TIMER)
                || by_apic && self.apic.requested(TIMER_PIN.into());
            if waits || !self.take_timer_edge() {
                return;
            }
        } else {
            let mut any = false;
            while self.take_timer_edge() {
                any = true;
            }
            if !any {
                return;
            }
        }
        self.pic.set_line(IRQ_TIMER, false);
        self.pic.set_line(IRQ_TIMER, true);
        self.apic.pulse(TIMER_PIN.into());
    }

    /// One edge of what drives the timer's line: the 8254, or the HPET in its place.
    fn take_timer_edge(&mut self) -> bool {
        if self.apic.hpet.legacy_replacement() {
            while self.pit.take_edge() {}
            self.apic.hpet.take_edge(0)
        } else {
            self.pit.take_edge()
        }
    }
}
