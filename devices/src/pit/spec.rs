//! Register layouts of the 8254 and of port 61h.

/// Numerator and denominator of clock pulses per nanosecond: 14.31818 MHz / 12 = 105/88 MHz.
pub const PULSES_PER_NANO: (u64, u64) = (105, 88_000);

/// Counter modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Mode 0.
    InterruptOnTerminalCount = 0,
    /// Mode 1, hardware-retriggerable.
    OneShot = 1,
    /// Mode 2.
    RateGenerator = 2,
    /// Mode 3.
    SquareWave = 3,
    /// Mode 4.
    SoftwareStrobe = 4,
    /// Mode 5, hardware-triggered.
    HardwareStrobe = 5,
}

impl Mode {
    /// The mode field of a control word; 6 and 7 are aliases of 2 and 3.
    pub const fn from_control(word: u8) -> Self {
        match (word >> 1) & 7 {
            0 => Self::InterruptOnTerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::RateGenerator,
            3 | 7 => Self::SquareWave,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    /// Whether the counter reloads itself.
    pub const fn is_periodic(self) -> bool {
        matches!(self, Self::RateGenerator | Self::SquareWave)
    }
}

/// Which bytes of the count the port accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Access {
    /// Least significant byte only.
    Low = 1,
    /// Most significant byte only.
    High = 2,
    /// Least significant byte, then most significant byte.
    LowHigh = 3,
}

/// Bits of the read-back command.
pub mod read_back {
    /// Set: do not latch counts.
    pub const NO_COUNT: u8 = 0x20;
    /// Set: do not latch status.
    pub const NO_STATUS: u8 = 0x10;
}

/// Port 61h, NMI status and control. PIIX3 datasheet, 2.5.5.1.
pub mod nmi_sc {
    /// GATE of counter 2.
    pub const TIMER2_GATE: u8 = 0x01;
    /// Speaker data enable.
    pub const SPEAKER: u8 = 0x02;
    /// Bits that the guest can write: gate, speaker, and the two NMI source disables.
    pub const WRITABLE: u8 = 0x0f;
    /// Toggles with every memory refresh request.
    pub const REFRESH: u8 = 0x10;
    /// OUT of counter 2.
    pub const TIMER2_OUT: u8 = 0x20;
    /// Nanoseconds between refresh requests (counter 1 as PCs program it: 18 pulses).
    pub const REFRESH_PERIOD: u64 = 15_085;
}
