//! The 256-byte configuration space of one PCI function.
//!
//! PCI Local Bus Specification 2.1, chapter 6.

/// Configuration register offsets of a type 0 header.
pub mod reg {
    /// Vendor and device id.
    pub const VENDOR: u8 = 0x00;
    /// Command register.
    pub const COMMAND: u8 = 0x04;
    /// Status register.
    pub const STATUS: u8 = 0x06;
    /// Revision, programming interface, subclass, class.
    pub const REVISION: u8 = 0x08;
    /// Cache line size.
    pub const CACHE_LINE: u8 = 0x0c;
    /// Header type; bit 7: more than one function.
    pub const HEADER_TYPE: u8 = 0x0e;
    /// First of six base address registers.
    pub const BAR0: u8 = 0x10;
    /// Subsystem vendor and device id.
    pub const SUBSYSTEM: u8 = 0x2c;
    /// Expansion ROM base address.
    pub const ROM: u8 = 0x30;
    /// Interrupt line: storage for the guest.
    pub const INTERRUPT_LINE: u8 = 0x3c;
    /// Interrupt pin: 0 none, 1-4 INTA-INTD.
    pub const INTERRUPT_PIN: u8 = 0x3d;
}

/// Command register bits.
pub mod command {
    /// Responds to I/O cycles.
    pub const IO: u16 = 1;
    /// Responds to memory cycles.
    pub const MEMORY: u16 = 2;
    /// May master the bus.
    pub const BUS_MASTER: u16 = 4;
}

/// What a base address register maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// I/O ports; the size is a power of two of at least 4.
    Io {
        /// Ports.
        size: u32,
    },
    /// Memory; the size is a power of two of at least 16.
    Memory {
        /// Bytes.
        size: u32,
        /// No side effects on reads.
        prefetchable: bool,
    },
    /// The expansion ROM; the size is a power of two of at least 2048.
    Rom {
        /// Bytes.
        size: u32,
    },
}

impl Bar {
    const fn write_mask(self) -> u32 {
        match self {
            Self::Io { size } => !(size - 1) & !3,
            Self::Memory { size, .. } => !(size - 1) & !15,
            Self::Rom { size } => (!(size - 1) & !0x7ff) | 1,
        }
    }

    const fn fixed_bits(self) -> u32 {
        match self {
            Self::Io { .. } => 1,
            Self::Memory {
                prefetchable: true, ..
            } => 8,
            Self::Memory { .. } | Self::Rom { .. } => 0,
        }
    }
}

/// Identity of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface as in 0xCCSSPP.
    pub class: u32,
}

/// A configuration space: contents, which bits the guest writes, and base addresses.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; 256],
    writable: [u8; 256],
    /// Bits that a written one clears.
    clear_by_one: [u8; 256],
    /// Index 6 is the expansion ROM.
    bars: [Option<Bar>; 7],
}

const ROM_BAR: usize = 6;

const fn bar_offset(index: usize) -> usize {
    if index == ROM_BAR {
        reg::ROM as usize
    } else {
        reg::BAR0 as usize + 4 * index
    }
}

impl ConfigSpace {
    /// The space of a function without base addresses or interrupt; the command register's I/O,
    /// memory and bus master bits, latency timer, cache line and interrupt line are writable.
    #[must_use]
    pub fn new(id: Identity) -> Self {
        let mut space = Self {
            bytes: [0; 256],
            writable: [0; 256],
            clear_by_one: [0; 256],
            bars: [None; 7],
        };
        space.set_u16(reg::VENDOR, id.vendor);
        space.set_u16(reg::VENDOR + 2, id.device);
        space.set_u32(reg::REVISION, id.class << 8 | u32::from(id.revision));
        space.allow(reg::COMMAND, &0x0547u16.to_le_bytes());
        space.allow(reg::CACHE_LINE, &[0xff, 0xff]);
        space.allow(reg::INTERRUPT_LINE, &[0xff]);
        // Status: signalled and received aborts, parity and system errors.
        space.clear_by_one[usize::from(reg::STATUS) + 1] = 0xf9;
        space
    }

    /// Makes the set bits of `mask` writable from `offset` on.
    pub fn allow(&mut self, offset: u8, mask: &[u8]) {
        for (slot, bits) in self.writable[usize::from(offset)..].iter_mut().zip(mask) {
            *slot |= bits;
        }
    }

    /// Takes back every writable bit of a byte.
    pub fn forbid(&mut self, offset: u8) {
        self.writable[usize::from(offset)] = 0;
    }

    /// Declares a base address register, 0-5, or 6 for the expansion ROM.
    pub fn set_bar(&mut self, index: usize, bar: Bar) {
        if let Some(slot) = self.bars.get_mut(index) {
            *slot = Some(bar);
            let at = bar_offset(index);
            self.bytes[at..at + 4].copy_from_slice(&bar.fixed_bits().to_le_bytes());
            self.writable[at..at + 4].copy_from_slice(&bar.write_mask().to_le_bytes());
        }
    }

    /// Declares the interrupt pin: 1-4 for INTA-INTD.
    pub fn set_interrupt_pin(&mut self, pin: u8) {
        self.bytes[usize::from(reg::INTERRUPT_PIN)] = pin;
    }

    /// The interrupt pin, 0-based, if the function has one.
    #[must_use]
    pub fn interrupt_pin(&self) -> Option<u8> {
        self.bytes[usize::from(reg::INTERRUPT_PIN)]
            .checked_sub(1)
            .filter(|pin| *pin < 4)
    }

    /// One byte.
    #[must_use]
    pub fn u8(&self, offset: u8) -> u8 {
        self.bytes[usize::from(offset)]
    }

    /// Two bytes; the space ends with zeros.
    #[must_use]
    pub fn u16(&self, offset: u8) -> u16 {
        self.read(offset, 2) as u16
    }

    /// Sets one byte regardless of what the guest may write.
    pub fn set_u8(&mut self, offset: u8, value: u8) {
        self.bytes[usize::from(offset)] = value;
    }

    /// Sets two bytes; offset at most 0xfe.
    pub fn set_u16(&mut self, offset: u8, value: u16) {
        self.set(offset, &value.to_le_bytes());
    }

    /// Sets four bytes; offset at most 0xfc.
    pub fn set_u32(&mut self, offset: u8, value: u32) {
        self.set(offset, &value.to_le_bytes());
    }

    fn set(&mut self, offset: u8, bytes: &[u8]) {
        for (slot, byte) in self.bytes[usize::from(offset)..].iter_mut().zip(bytes) {
            *slot = *byte;
        }
    }

    /// The command register.
    #[must_use]
    pub fn command(&self) -> u16 {
        self.u16(reg::COMMAND)
    }

    /// Whether the function may master the bus.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.command() & command::BUS_MASTER != 0
    }

    /// Where a base address register maps its range now: base and size, in ports or bytes; `None`
    /// while decoding is off or the address cannot be decoded.
    #[must_use]
    pub fn mapping(&self, index: usize) -> Option<(u64, u64)> {
        let bar = (*self.bars.get(index)?)?;
        let value = self.read(bar_offset(index) as u8, 4);
        let (enable, size, base) = match bar {
            Bar::Io { size } => (command::IO, size, value & !3),
            Bar::Memory { size, .. } => (command::MEMORY, size, value & !15),
            Bar::Rom { size } if value & 1 != 0 => (command::MEMORY, size, value & !0x7ff),
            Bar::Rom { .. } => return None,
        };
        // An address of zero or at the very top is what sizing leaves behind, not a mapping.
        let end = u64::from(base) + u64::from(size);
        let limit = if enable == command::IO {
            0x1_0000
        } else {
            0xfff0_0000
        };
        let decoded = self.command() & enable != 0 && base != 0 && end <= limit;
        decoded.then_some((base.into(), size.into()))
    }

    /// Reads `size` (1, 2, 4) bytes; bytes past the end are zero.
    #[must_use]
    pub fn read(&self, offset: u8, size: u8) -> u32 {
        let bytes = self.bytes[usize::from(offset)..]
            .iter()
            .take(usize::from(size.min(4)));
        bytes
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte))
    }

    /// A guest's write of `size` (1, 2, 4) bytes; bits that are not writable keep their value.
    pub fn write(&mut self, offset: u8, size: u8, value: u32) {
        let start = usize::from(offset);
        for (at, byte) in (start..256)
            .zip(value.to_le_bytes())
            .take(usize::from(size.min(4)))
        {
            let mask = self.writable[at];
            let old = self.bytes[at];
            self.bytes[at] = (old & !mask | byte & mask) & !(byte & self.clear_by_one[at]);
        }
    }
}
