//! The chips of the board and the wires between them.

use super::ports::PortMap;
use super::wiring::{
    CMOS_CENTURY, IRQ_RTC, IRQ_SCI, IRQ_TIMER, PIRQ_LINES, SERIAL, Slot, cmos_memory,
};
use super::{BoardConfig, MachineRequest};
use crate::clock::VmClock;
use ring3_devices::bus::{BytePorts, PortDevice, Timed};
use ring3_devices::debug::{DebugConsole, DebugExit, PostPort};
use ring3_devices::pic::{PicPair, offset::ELCR};
use ring3_devices::pit::Pit;
use ring3_devices::rtc::Rtc;
use ring3_devices::uart::Uart;

/// Every chip of the board.
#[derive(Debug)]
pub(super) struct Chips {
    pub pic: PicPair,
    pub pit: Pit,
    pub rtc: Rtc,
    pub uarts: Vec<Uart>,
    pub post: PostPort,
    pub debug_console: DebugConsole,
    pub debug_exit: DebugExit,
}

impl Chips {
    /// The chips after power-on and firmware's set-up for a directly booted kernel.
    pub fn new(config: &BoardConfig, clock: &VmClock) -> Self {
        let mut rtc = Rtc::new((clock.wall_base_ns() / 1_000_000_000) as i64);
        let cmos = rtc.cmos_mut();
        for (index, value) in cmos_memory(config.memory) {
            cmos[index] = value;
        }
        debug_assert!(usize::from(CMOS_CENTURY) < cmos.len());
        let mut pic = PicPair::new();
        let level = PIRQ_LINES
            .iter()
            .fold(1u16 << IRQ_SCI, |mask, line| mask | 1 << line);
        for (i, mask) in (0u16..).zip(level.to_le_bytes()) {
            pic.write_byte(0, ELCR + i, mask);
        }
        let mut chips = Self {
            pic,
            pit: Pit::new(),
            rtc,
            uarts: (0..config.serial_ports.clamp(1, SERIAL.len()))
                .map(|_| Uart::new())
                .collect(),
            post: PostPort::default(),
            debug_console: DebugConsole::default(),
            debug_exit: DebugExit::default(),
        };
        chips.advance(clock.now_ns());
        chips
    }

    /// The chip behind a slot.
    pub fn at(&mut self, slot: Slot) -> Option<&mut dyn PortDevice> {
        Some(match slot {
            Slot::Pic => &mut self.pic,
            Slot::Pit => &mut self.pit,
            Slot::Rtc => &mut self.rtc,
            Slot::Uart0 => self.uarts.get_mut(0)?,
            Slot::Uart1 => self.uarts.get_mut(1)?,
            Slot::Uart2 => self.uarts.get_mut(2)?,
            Slot::Uart3 => self.uarts.get_mut(3)?,
            Slot::Post => &mut self.post,
            Slot::DebugConsole => &mut self.debug_console,
            Slot::DebugExit => &mut self.debug_exit,
            _ => return None,
        })
    }

    /// Brings the chips that know time to `now`.
    pub fn advance(&mut self, now: u64) {
        self.pit.advance(now);
        self.rtc.advance(now);
    }

    /// The earliest time at which an output may change by itself.
    pub fn next_deadline(&self) -> Option<u64> {
        [self.pit.next_deadline(), self.rtc.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Side effects of a cycle on the wiring itself.
    pub fn after_cycle(&mut self, _slot: Slot, _ports: &mut PortMap) {}

    /// Drives every interrupt line from the chips' outputs.
    pub fn update_lines(&mut self) {
        self.update_timer_line();
        self.pic.set_line(IRQ_RTC, self.rtc.irq());
        // Ports that share a line are wired together.
        let levels = self
            .uarts
            .iter()
            .zip(SERIAL)
            .fold(0u16, |mask, (uart, (_, line))| {
                mask | u16::from(uart.irq()) << line
            });
        for (i, (_, line)) in SERIAL.iter().enumerate().take(self.uarts.len()) {
            if SERIAL[..i].iter().all(|(_, earlier)| earlier != line) {
                self.pic.set_line(*line, levels >> line & 1 != 0);
            }
        }
    }

    /// The timer's edges are delivered one by one: the next when the one before has been
    /// acknowledged. While the guest masks the line, as on hardware, only one is remembered.
    fn update_timer_line(&mut self) {
        if self.pic.masked(IRQ_TIMER) {
            let mut any = false;
            while self.pit.take_edge() {
                any = true;
            }
            if !any {
                return;
            }
        } else if self.pic.requested(IRQ_TIMER) || !self.pit.take_edge() {
            return;
        }
        self.pic.set_line(IRQ_TIMER, false);
        self.pic.set_line(IRQ_TIMER, true);
    }

    /// What the guest asked of the machine through a chip, once.
    pub fn take_request(&mut self) -> Option<MachineRequest> {
        self.debug_exit
            .take_exit()
            .map(|status| MachineRequest::DebugExit(status as u8))
    }

    /// The A20 gate.
    pub fn a20(&self) -> bool {
        true
    }
}
