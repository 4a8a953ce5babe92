//! Which chip answers at which port: one table look-up.

use super::wiring::{DEBUG_EXIT_PORTS, FIXED_PORTS, PM_PORTS, PortRun, SERIAL, SERIAL_SLOTS, Slot};

/// The decoder of the 64 Ki ports.
pub(super) struct PortMap {
    /// The slot's number for each port.
    slots: Box<[u8; 0x1_0000]>,
    /// The chip's offset for each port.
    offsets: Box<[u8; 0x1_0000]>,
    power_management: Option<u16>,
}

impl core::fmt::Debug for PortMap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PortMap")
            .field("power_management", &self.power_management)
            .finish_non_exhaustive()
    }
}

impl PortMap {
    /// The fixed ports, `serial_ports` serial ports, and the debug exit if wanted.
    pub fn new(serial_ports: usize, debug_exit: bool) -> Self {
        let table = || -> Box<[u8; 0x1_0000]> {
            vec![0; 0x1_0000]
                .try_into()
                .unwrap_or_else(|_| Box::new([0; 0x1_0000]))
        };
        let mut map = Self {
            slots: table(),
            offsets: table(),
            power_management: None,
        };
        for &run in FIXED_PORTS {
            map.claim(run);
        }
        for (&(base, _), &slot) in SERIAL.iter().zip(&SERIAL_SLOTS).take(serial_ports) {
            map.claim((base, 8, slot, 0));
        }
        if debug_exit {
            map.claim(DEBUG_EXIT_PORTS);
        }
        map
    }

    fn claim(&mut self, (first, count, slot, offset): PortRun) {
        for i in 0..count {
            let port = usize::from(first.wrapping_add(i));
            self.slots[port] = slot as u8;
            self.offsets[port] = (offset + i) as u8;
        }
    }

    /// Moves the power-management registers (the guest writes PMBASE), or takes them away. Ports
    /// of other chips are not hidden by them.
    pub fn set_power_management(&mut self, base: Option<u16>) {
        if base == self.power_management {
            return;
        }
        if let Some(old) = self.power_management {
            for i in 0..PM_PORTS {
                let port = usize::from(old.wrapping_add(i));
                if self.slots[port] == Slot::Pm as u8 {
                    self.slots[port] = Slot::None as u8;
                }
            }
        }
        if let Some(new) = base {
            for i in 0..PM_PORTS {
                if self.slots[usize::from(new.wrapping_add(i))] == Slot::None as u8 {
                    self.claim((new.wrapping_add(i), 1, Slot::Pm, i));
                }
            }
        }
        self.power_management = base;
    }

    /// Who answers at `port`, and the chip's offset.
    pub fn find(&self, port: u16) -> (Slot, u16) {
        let port = usize::from(port);
        (
            Slot::ALL[usize::from(self.slots[port])],
            u16::from(self.offsets[port]),
        )
    }

    /// True if one chip answers at all `size` ports from `port`, as one access.
    pub fn is_whole(&self, port: u16, size: u8) -> bool {
        let (slot, offset) = self.find(port);
        (1..u16::from(size)).all(|i| {
            port.checked_add(i)
                .is_some_and(|p| self.find(p) == (slot, offset + i))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_ports_and_gaps() {
        let map = PortMap::new(1, false);
        assert_eq!(map.find(0x21), (Slot::Pic, 1));
        assert_eq!(map.find(0xa0), (Slot::Pic, 2));
        assert_eq!(map.find(0x61), (Slot::Pit, 4));
        assert_eq!(map.find(0x3ff), (Slot::Uart0, 7));
        assert_eq!(map.find(0x2f8).0, Slot::None);
        assert_eq!(map.find(0x501).0, Slot::None);
        assert!(map.is_whole(0xcfc, 4) && !map.is_whole(0x60, 2) && !map.is_whole(0xffff, 2));
    }

    #[test]
    fn power_management_moves_and_hides_nothing() {
        let mut map = PortMap::new(1, false);
        map.set_power_management(Some(0xb000));
        assert_eq!(map.find(0xb008), (Slot::Pm, 8));
        map.set_power_management(Some(0x3c0));
        assert_eq!(map.find(0xb008).0, Slot::None);
        assert_eq!(map.find(0x3f8).0, Slot::Uart0);
        map.set_power_management(None);
        assert_eq!(map.find(0x3c0).0, Slot::None);
        assert_eq!(map.find(0x3f8).0, Slot::Uart0);
    }
}
