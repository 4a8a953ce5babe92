//! Port 92h: fast A20 and fast reset. IBM PS/2 Technical Reference, "System Control Port A"; PIIX3
//! datasheet (290550), 2.5.5.2.

use crate::bus::{BytePorts, Nanos};

const FAST_INIT: u8 = 0x01;
const FAST_A20: u8 = 0x02;

/// Port 92h. Address line 20 passes if this gate or the keyboard controller's is open.
#[derive(Clone, Debug, Default)]
pub struct Port92 {
    value: u8,
    reset_request: bool,
}

impl Port92 {
    /// Whether the fast A20 gate is open.
    #[must_use]
    pub fn a20(&self) -> bool {
        self.value & FAST_A20 != 0
    }

    /// Whether the guest raised the reset bit since the last call.
    pub fn take_reset_request(&mut self) -> bool {
        std::mem::take(&mut self.reset_request)
    }
}

impl BytePorts for Port92 {
    fn read_byte(&mut self, _now: Nanos, _offset: u16) -> u8 {
        self.value
    }
    fn write_byte(&mut self, _now: Nanos, _offset: u16, value: u8) {
        self.reset_request |= value & !self.value & FAST_INIT != 0;
        self.value = value & (FAST_INIT | FAST_A20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_needs_a_rising_bit_and_a20_reads_back() {
        let mut port = Port92::default();
        port.write_byte(0, 0, 0x03);
        assert!(port.a20() && port.take_reset_request() && !port.take_reset_request());
        port.write_byte(0, 0, 0x03);
        assert!(!port.take_reset_request());
        assert_eq!(port.read_byte(0, 0), 0x03);
    }
}
