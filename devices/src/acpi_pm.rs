//! ACPI fixed hardware of the PIIX4: power management events, timer, sleep, GPE0, SMI command.
//!
//! Intel PIIX4 datasheet (290562), 7.2; ACPI specification 1.0b, 4.7.3. There is no system
//! management mode: the SMI command port itself performs ACPI enable and disable, as the SMI
//! handler of a firmware would.

use crate::bus::{BytePorts, Nanos, SECOND, Timed};

/// Value written to the SMI command port to enable ACPI (for the fixed ACPI table).
pub const ACPI_ENABLE: u8 = 0xf1;
/// Value written to the SMI command port to disable ACPI.
pub const ACPI_DISABLE: u8 = 0xf0;

/// Sleep type (SLP_TYP) of soft off (S5) in the PIIX4, and in firmware tables for it.
pub const SLP_TYP_SOFT_OFF: u8 = 0;
/// Sleep type of S5 that this board's own tables name; the PIIX4 gives it no other sleep state.
pub const SLP_TYP_S5: u8 = 5;
/// Sleep type of suspend to RAM (S3) in the PIIX4.
pub const SLP_TYP_SUSPEND: u8 = 1;

/// Port layout of [`AcpiPm`]; offsets 0-63 are the block at PMBASE.
pub mod offset {
    /// PMSTS, the PM1a event block (4 ports).
    pub const PM1_EVENT: u16 = 0x00;
    /// PMCNTRL, the PM1a control block (2 ports).
    pub const PM1_CONTROL: u16 = 0x04;
    /// PMTMR (4 ports).
    pub const TIMER: u16 = 0x08;
    /// GPSTS and GPEN, the GPE0 block (4 ports).
    pub const GPE0: u16 = 0x0c;
    /// The SMI command port APMC (B2h) and status port APMS (B3h), apart from the block.
    pub const SMI_COMMAND: u16 = 0x40;
}

/// PM1 status and enable bits.
mod pm1 {
    pub const TIMER: u16 = 0x0001;
    pub const POWER_BUTTON: u16 = 0x0100;
    pub const RTC: u16 = 0x0400;
    pub const WAKE: u16 = 0x8000;
    /// Status bits that exist: TMROF, BM, GBL, PWRBTN, RTC, WAK.
    pub const STATUS: u16 = 0x8531;
    /// Enable bits that exist.
    pub const ENABLE: u16 = 0x0521;
    pub const SOURCES: u16 = 0x0521;
}
/// PM1 control bits.
mod control {
    pub const SCI_EN: u16 = 0x0001;
    pub const SLP_EN: u16 = 0x2000;
    pub const WRITABLE: u16 = 0x1c07;
}

/// What a write of SLP_EN asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepRequest {
    /// Turn the machine off.
    PowerOff,
    /// Suspend to RAM.
    Suspend,
}

/// Width of the power management timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerWidth {
    /// 24 bits, as in the PIIX4.
    Bits24,
    /// 32 bits (TMR_VAL_EXT in the fixed ACPI table).
    Bits32,
}

/// The ACPI registers.
#[derive(Clone, Debug)]
pub struct AcpiPm {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u16,
    gpe_enable: u16,
    width: TimerWidth,
    /// PCNTRL, GPOREG and the like: storage.
    other: [u8; 0x40],
    apmc: u8,
    apms: u8,
    sleep: Option<SleepRequest>,
    now: Nanos,
}

/// Timer ticks per nanosecond: 3.579545 MHz = 315/88 MHz.
const TICKS: (u128, u128) = (315, 88_000);

impl AcpiPm {
    /// The registers after reset; ACPI is disabled.
    #[must_use]
    pub fn new(width: TimerWidth) -> Self {
        Self {
            status: 0,
            enable: 0,
            control: 0,
            gpe_status: 0,
            gpe_enable: 0,
            width,
            other: [0; 0x40],
            apmc: 0,
            apms: 0,
            sleep: None,
            now: 0,
        }
    }

    /// The system control interrupt (level, IRQ 9).
    #[must_use]
    pub fn irq(&self) -> bool {
        self.acpi_enabled()
            && (self.status & self.enable & pm1::SOURCES != 0
                || self.gpe_status & self.gpe_enable != 0)
    }

    /// Whether the guest (or its firmware) has switched to ACPI mode.
    #[must_use]
    pub fn acpi_enabled(&self) -> bool {
        self.control & control::SCI_EN != 0
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self) {
        self.status |= pm1::POWER_BUTTON;
    }

    /// The RTC asserts its interrupt, whether or not that reaches IRQ 8: RTC_STS. With the HPET in
    /// its place, this is how an alarm arrives.
    pub fn rtc_asserted(&mut self) {
        self.status |= pm1::RTC;
    }

    /// Marks a wake from suspend.
    pub fn wake(&mut self) {
        self.status |= pm1::WAKE;
    }

    /// Raises a general-purpose event (0-15).
    pub fn raise_gpe(&mut self, event: u8) {
        if let Some(bit) = 1u16.checked_shl(event.into()) {
            self.gpe_status |= bit;
        }
    }

    /// The sleep state that the guest asked for since the last call.
    pub fn take_sleep_request(&mut self) -> Option<SleepRequest> {
        self.sleep.take()
    }

    fn ticks(now: Nanos) -> u64 {
        (u128::from(now) * TICKS.0 / TICKS.1) as u64
    }

    /// Ticks between changes of the timer's top bit.
    const fn half_range(&self) -> u64 {
        match self.width {
            TimerWidth::Bits24 => 1 << 23,
            TimerWidth::Bits32 => 1 << 31,
        }
    }

    fn timer(&self, now: Nanos) -> u32 {
        (Self::ticks(now) & (2 * self.half_range() - 1)) as u32
    }

    fn write_control(&mut self, value: u16) {
        self.control = value & control::WRITABLE;
        if value & control::SLP_EN != 0 {
            self.sleep = match (value >> 10 & 7) as u8 {
                SLP_TYP_SOFT_OFF | SLP_TYP_S5 => Some(SleepRequest::PowerOff),
                SLP_TYP_SUSPEND => Some(SleepRequest::Suspend),
                _ => self.sleep,
            };
        }
    }
}

/// One byte of a 16-bit register replaced.
fn merge(word: u16, high: bool, byte: u8) -> u16 {
    if high {
        word & 0x00ff | u16::from(byte) << 8
    } else {
        word & 0xff00 | u16::from(byte)
    }
}

impl Timed for AcpiPm {
    fn next_deadline(&self) -> Option<Nanos> {
        let wanted =
            self.acpi_enabled() && self.enable & pm1::TIMER != 0 && self.status & pm1::TIMER == 0;
        let half = self.half_range();
        let next = (Self::ticks(self.now) / half + 1) * half;
        let nanos = (u128::from(next) * TICKS.1).div_ceil(TICKS.0);
        wanted.then(|| u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn advance(&mut self, now: Nanos) {
        if now > self.now {
            let half = self.half_range();
            if Self::ticks(now) / half != Self::ticks(self.now) / half {
                self.status |= pm1::TIMER;
            }
            self.now = now;
        }
    }
}

impl BytePorts for AcpiPm {
    fn read_byte(&mut self, now: Nanos, at: u16) -> u8 {
        self.advance(now);
        let lane = usize::from(at & 1);
        match at {
            0x00..=0x01 => self.status.to_le_bytes()[lane],
            0x02..=0x03 => self.enable.to_le_bytes()[lane],
            0x04..=0x05 => self.control.to_le_bytes()[lane],
            0x08..=0x0b => self.timer(self.now).to_le_bytes()[usize::from(at & 3)],
            0x0c..=0x0d => self.gpe_status.to_le_bytes()[lane],
            0x0e..=0x0f => self.gpe_enable.to_le_bytes()[lane],
            0x10..0x40 => self.other[usize::from(at)],
            offset::SMI_COMMAND => self.apmc,
            0x41 => self.apms,
            _ => 0,
        }
    }

    fn write_byte(&mut self, now: Nanos, at: u16, value: u8) {
        self.advance(now);
        let high = at & 1 != 0;
        match at {
            0x00..=0x01 => self.status &= !(merge(0, high, value) & pm1::STATUS),
            0x02..=0x03 => self.enable = merge(self.enable, high, value) & pm1::ENABLE,
            0x04..=0x05 => self.write_control(merge(self.control, high, value)),
            0x0c..=0x0d => self.gpe_status &= !merge(0, high, value),
            0x0e..=0x0f => self.gpe_enable = merge(self.gpe_enable, high, value),
            0x10..0x40 => self.other[usize::from(at)] = value,
            offset::SMI_COMMAND => {
                self.apmc = value;
                match value {
                    ACPI_ENABLE => self.control |= control::SCI_EN,
                    ACPI_DISABLE => self.control &= !control::SCI_EN,
                    _ => {}
                }
            }
            0x41 => self.apms = value,
            _ => {}
        }
    }
}

/// The timer's frequency in hertz, rounded.
pub const TIMER_HERTZ: u64 = TICKS.0 as u64 * SECOND / TICKS.1 as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::PortDevice;

    fn enabled() -> AcpiPm {
        let mut pm = AcpiPm::new(TimerWidth::Bits24);
        pm.write(0, offset::SMI_COMMAND, 1, ACPI_ENABLE.into());
        pm
    }

    #[test]
    fn smi_command_enables_and_disables_acpi() {
        let mut pm = enabled();
        assert_eq!(pm.read(0, offset::PM1_CONTROL, 2) & 1, 1);
        pm.write(0, offset::SMI_COMMAND, 1, ACPI_DISABLE.into());
        assert!(!pm.acpi_enabled());
    }

    #[test]
    fn timer_counts_at_its_frequency_and_wraps() {
        let mut pm = enabled();
        assert_eq!(TIMER_HERTZ, 3_579_545);
        assert_eq!(pm.read(SECOND, offset::TIMER, 4), 3_579_545);
        assert_eq!(
            pm.read(5 * SECOND, offset::TIMER, 4),
            (5 * 3_579_545 + 2) & 0xff_ffff
        );
    }

    #[test]
    fn timer_overflow_raises_sci_exactly_at_the_top_bit_change() {
        let mut pm = enabled();
        pm.write(0, offset::PM1_EVENT + 2, 2, 1);
        let due = pm.next_deadline().unwrap();
        pm.advance(due - 1);
        assert!(!pm.irq());
        pm.advance(due);
        assert!(pm.irq());
        assert_eq!(pm.read(due, offset::TIMER, 4), 0x80_0000);
        assert_eq!(pm.next_deadline(), None);
        pm.write(due, offset::PM1_EVENT, 2, 1);
        assert!(!pm.irq());
        assert!(pm.next_deadline().unwrap() > due);
    }

    #[test]
    fn power_button_interrupts_and_clears() {
        let mut pm = enabled();
        pm.write(0, offset::PM1_EVENT + 2, 2, 0x100);
        pm.press_power_button();
        assert!(pm.irq());
        assert_eq!(pm.read(0, offset::PM1_EVENT, 2), 0x100);
        pm.write(0, offset::PM1_EVENT, 2, 0x100);
        assert!(!pm.irq());
    }

    /// ACPI 1.0b, 4.7.3.1.1, RTC_STS.
    #[test]
    fn the_clock_sets_its_status_and_interrupts_if_enabled() {
        let mut pm = enabled();
        pm.rtc_asserted();
        assert_eq!(pm.read(0, offset::PM1_EVENT, 2), 0x400);
        assert!(!pm.irq());
        pm.write(0, offset::PM1_EVENT + 2, 2, 0x400);
        assert!(pm.irq());
        pm.write(0, offset::PM1_EVENT, 2, 0x400);
        assert_eq!((pm.irq(), pm.read(0, offset::PM1_EVENT, 2)), (false, 0));
    }

    #[test]
    fn sleep_enable_requests_power_off() {
        for (kind, expected) in [
            (0, Some(SleepRequest::PowerOff)),
            (5, Some(SleepRequest::PowerOff)),
            (1, Some(SleepRequest::Suspend)),
            (6, None),
        ] {
            let mut pm = enabled();
            pm.write(0, offset::PM1_CONTROL, 2, 0x2001 | kind << 10);
            assert_eq!(pm.take_sleep_request(), expected);
            assert_eq!(
                pm.read(0, offset::PM1_CONTROL, 2) & 0x2000,
                0,
                "SLP_EN reads as zero"
            );
        }
        let mut pm = enabled();
        pm.write(0, offset::PM1_CONTROL, 2, 0x1401);
        assert_eq!(pm.take_sleep_request(), None, "without SLP_EN");
    }

    #[test]
    fn general_purpose_events() {
        let mut pm = enabled();
        pm.raise_gpe(9);
        assert!(!pm.irq());
        pm.write(0, offset::GPE0 + 2, 2, 1 << 9);
        assert!(pm.irq());
        pm.write(0, offset::GPE0, 2, 1 << 9);
        assert!(!pm.irq());
        pm.raise_gpe(200);
    }
}
