//! The PIIX3's PCI-to-ISA bridge (function 0): interrupt routing.
//!
//! Intel PIIX3 datasheet (290550), 2.2. ELCR is in the interrupt controller, RCR with the
//! configuration ports; the other registers are storage.

use super::{ConfigSpace, Identity, PciFunction};

/// PIRQRCA to PIRQRCD.
const PIRQRC: u8 = 0x60;
/// PIRQRC bit 7: not routed.
const DISABLED: u8 = 0x80;
/// Interrupts that the bridge can route to: not 0, 1, 2, 8 and 13.
const ROUTABLE: u16 = 0xdef8;

/// The PIRQ input (0-3) that an interrupt pin (0-3) of a device (0-31) is wired to, as on the
/// boards that firmware for this chip set expects.
#[must_use]
pub const fn pirq(device: u8, pin: u8) -> usize {
    (pin.wrapping_add(device).wrapping_sub(1) & 3) as usize
}

/// The bridge.
#[derive(Clone, Debug)]
pub struct IsaBridge {
    config: ConfigSpace,
}

impl Default for IsaBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl IsaBridge {
    /// The bridge after reset: nothing is routed.
    #[must_use]
    pub fn new() -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x7000,
            revision: 0,
            class: 0x06_01_00,
        });
        use super::config::reg;
        config.set_u8(reg::HEADER_TYPE, 0x80);
        config.set_u16(reg::COMMAND, 0x0007);
        config.set_u16(reg::STATUS, 0x0200);
        for (offset, mask, value) in [
            (0x4c, 0xff, 0x4d), // IORT
            (0x4e, 0xff, 0x03), // XBCS
            (0x4f, 0x01, 0x00),
            (0x60, 0x8f, DISABLED),
            (0x61, 0x8f, DISABLED),
            (0x62, 0x8f, DISABLED),
            (0x63, 0x8f, DISABLED),
            (0x69, 0xfe, 0x02), // TOM
            (0x6a, 0x9f, 0x04), // MSTAT
            (0x70, 0xef, 0x80), // MBIRQ0
            (0x71, 0xef, 0x80),
            (0x76, 0x8f, 0x0c), // MBDMA0
            (0x77, 0x8f, 0x0c),
            (0x78, 0xff, 0x02), // PCSC
            (0x79, 0xff, 0x00),
            (0x80, 0x01, 0x00), // APICBASE
            (0x82, 0x0f, 0x00), // DLC
            (0xa0, 0x3f, 0x08), // SMICNTL
            (0xa2, 0xff, 0x00), // SMIEN
            (0xa3, 0xff, 0x00),
            (0xa8, 0xff, 0x0f), // FTMR
        ] {
            config.allow(offset, &[mask]);
            config.set_u8(offset, value);
        }
        Self { config }
    }

    /// The interrupt (0-15) that a PIRQ input (0-3) is routed to.
    #[must_use]
    pub fn route(&self, pirq: usize) -> Option<u8> {
        let register = self.config.u8(PIRQRC + (pirq & 3) as u8);
        let irq = register & 0x0f;
        (register & DISABLED == 0 && ROUTABLE & 1 << irq != 0).then_some(irq)
    }

    /// The interrupt lines (bit n: IRQ n) that PIRQ inputs at these levels assert.
    #[must_use]
    pub fn asserted(&self, pirq_levels: [bool; 4]) -> u16 {
        (0..4)
            .filter(|pirq| pirq_levels[*pirq])
            .filter_map(|pirq| self.route(pirq))
            .fold(0, |lines, irq| lines | 1 << irq)
    }
}

impl PciFunction for IsaBridge {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}
