//! Which chip answers at which port: one table look-up.

use super::wiring::{
    DEBUG_EXIT_PORTS, FIXED_PORTS, MOVING_PORTS, PortRun, SERIAL, SERIAL_SLOTS, Slot,
};

/// The decoder of the 64 Ki ports.
pub(super) struct PortMap {
    /// The slot's number for each port.
    slots: Box<[u8; 0x1_0000]>,
    /// The chip's offset for each port.
    offsets: Box<[u16; 0x1_0000]>,
    /// Where the guest has put the runs of [`MOVING_PORTS`](super::wiring::MOVING_PORTS).
    moved: [Option<u16>; MOVING_PORTS.len()],
}

impl core::fmt::Debug for PortMap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PortMap")
            .field("moved", &self.moved)
            .finish_non_exhaustive()
    }
}

impl PortMap {
    /// The fixed ports, `serial_ports` serial ports, and the debug exit if wanted.
    pub fn new(serial_ports: usize, debug_exit: bool) -> Self {
        fn table<T: Copy + Default>() -> Box<[T; 0x1_0000]> {
            vec![T::default(); 0x1_0000]
                .try_into()
                .unwrap_or_else(|_| Box::new([T::default(); 0x1_0000]))
        }
        let mut map = Self {
            slots: table(),
            offsets: table(),
            moved: [None; MOVING_PORTS.len()],
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
            self.offsets[port] = offset + i;
        }
    }

    /// Moves a run of [`MOVING_PORTS`] (the guest writes a base address), or takes it away. Ports
    /// of other chips are not hidden by it.
    pub fn set_moving(&mut self, index: usize, base: Option<u16>) {
        if base == self.moved[index] {
            return;
        }
        let (count, slot, offset) = MOVING_PORTS[index];
        if let Some(old) = self.moved[index] {
            for i in 0..count {
                let port = usize::from(old.wrapping_add(i));
                if self.slots[port] == slot as u8 && self.offsets[port] == offset + i {
                    self.slots[port] = Slot::None as u8;
                }
            }
        }
        if let Some(new) = base {
            for i in 0..count {
                if self.slots[usize::from(new.wrapping_add(i))] == Slot::None as u8 {
                    self.claim((new.wrapping_add(i), 1, slot, offset + i));
                }
            }
        }
        self.moved[index] = base;
    }

    /// Who answers at `port`, and the chip's offset.
    pub fn find(&self, port: u16) -> (Slot, u16) {
        let port = usize::from(port);
        (Slot::ALL[usize::from(self.slots[port])], self.offsets[port])
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
    use super::super::wiring::MOVING_PM;
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
        map.set_moving(MOVING_PM, Some(0xb000));
        assert_eq!(map.find(0xb008), (Slot::Pm, 8));
        map.set_moving(MOVING_PM, Some(0x3e0));
        assert_eq!(map.find(0xb008).0, Slot::None);
        assert_eq!(map.find(0x3f8).0, Slot::Uart0);
        map.set_moving(MOVING_PM, None);
        assert_eq!(map.find(0x3e0).0, Slot::None);
        assert_eq!(map.find(0x3f8).0, Slot::Uart0);
    }
}
