//! What a chip sees of the machine around it: port and memory cycles, time, and guest memory.
//!
//! Chips get the VM clock as an argument and never block. Nothing here calls back into the board:
//! after every call the board samples the chip's interrupt output and its next deadline.

/// VM-clock time in nanoseconds. The clock is monotonic and stops while the VM is paused.
pub type Nanos = u64;

/// Nanoseconds in one second.
pub const SECOND: Nanos = 1_000_000_000;

/// What an unclaimed port or memory byte reads as.
pub const OPEN_BUS: u8 = 0xff;

/// A chip that decodes I/O port cycles of 1, 2 or 4 bytes.
pub trait PortDevice {
    /// Reads `size` bytes at `offset` within the chip's port range; the upper bits of the result
    /// beyond `size` are zero.
    fn read(&mut self, now: Nanos, offset: u16, size: u8) -> u32;
    /// Writes the low `size` bytes of `value` at `offset` within the chip's port range.
    fn write(&mut self, now: Nanos, offset: u16, size: u8, value: u32);
}

/// A chip on the 8-bit ISA data bus: wider cycles reach it as several byte cycles in ascending
/// order, as the bus controller splits them.
pub trait BytePorts {
    /// Reads the byte register at `offset`.
    fn read_byte(&mut self, now: Nanos, offset: u16) -> u8;
    /// Writes the byte register at `offset`.
    fn write_byte(&mut self, now: Nanos, offset: u16, value: u8);
}

impl<T: BytePorts> PortDevice for T {
    fn read(&mut self, now: Nanos, offset: u16, size: u8) -> u32 {
        (0..size.min(4)).fold(0, |word, lane| {
            let byte = self.read_byte(now, offset.wrapping_add(u16::from(lane)));
            word | u32::from(byte) << (8 * lane)
        })
    }

    fn write(&mut self, now: Nanos, offset: u16, size: u8, value: u32) {
        for lane in 0..size.min(4) {
            let byte = (value >> (8 * lane)) as u8;
            self.write_byte(now, offset.wrapping_add(u16::from(lane)), byte);
        }
    }
}

/// A chip that decodes memory cycles.
pub trait MmioDevice {
    /// Fills `data` from `offset` within the chip's memory range.
    fn read(&mut self, now: Nanos, offset: u64, data: &mut [u8]);
    /// Writes `data` at `offset` within the chip's memory range.
    fn write(&mut self, now: Nanos, offset: u64, data: &[u8]);
}

/// A chip whose outputs change with time alone.
pub trait Timed {
    /// The earliest time at which [`Timed::advance`] may change an output, if any.
    fn next_deadline(&self) -> Option<Nanos>;
    /// Brings the chip's state to `now`. The cost does not depend on how much time has passed.
    fn advance(&mut self, now: Nanos);
}

/// A guest-physical range that a bus master may not touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("DMA outside guest memory at {address:#x}")]
pub struct DmaError {
    /// The guest-physical address of the first byte of the rejected transfer.
    pub address: u64,
}

/// Guest memory as bus masters see it.
pub trait DmaMemory {
    /// Copies guest-physical memory at `address` to `buf`.
    /// # Errors
    /// [`DmaError`] if part of the range is not RAM; `buf` is then unspecified.
    fn read(&mut self, address: u64, buf: &mut [u8]) -> Result<(), DmaError>;
    /// Copies `data` to guest-physical memory at `address`.
    /// # Errors
    /// [`DmaError`] if part of the range is not RAM; part of the data may have been written.
    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), DmaError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo([u8; 4]);
    impl BytePorts for Echo {
        fn read_byte(&mut self, _: Nanos, offset: u16) -> u8 {
            self.0.get(usize::from(offset)).copied().unwrap_or(OPEN_BUS)
        }
        fn write_byte(&mut self, _: Nanos, offset: u16, value: u8) {
            if let Some(slot) = self.0.get_mut(usize::from(offset)) {
                *slot = value;
            }
        }
    }

    #[test]
    fn wide_cycles_are_split_into_bytes_in_ascending_order() {
        let mut echo = Echo([0; 4]);
        echo.write(0, 1, 2, 0xbeef);
        assert_eq!(echo.0, [0, 0xef, 0xbe, 0]);
        assert_eq!(echo.read(0, 0, 4), 0x00be_ef00);
        assert_eq!(echo.read(0, 3, 2), 0xff00);
    }
}
