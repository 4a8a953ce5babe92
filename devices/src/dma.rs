//! The pair of 8237A DMA controllers with the page registers.
//!
//! Intel 8237A datasheet (231466-005); page registers: PIIX3 datasheet (290550), 2.5.1. The board
//! moves data with [`DmaPair::transfer`] on behalf of a requesting device. Memory-to-memory
//! transfers, cascading beyond channel 4 and compressed timing do nothing on a PC.

use crate::bus::{BytePorts, DmaError, DmaMemory, Nanos, OPEN_BUS};

/// Port layout of [`DmaPair`].
pub mod offset {
    /// Controller of channels 0-3 (00h-0Fh).
    pub const FIRST: u16 = 0x00;
    /// Page registers (80h-8Fh).
    pub const PAGES: u16 = 0x10;
    /// Controller of channels 4-7 (C0h-DFh, one register every two ports).
    pub const SECOND: u16 = 0x20;
}

/// The page register of each channel, from port 80h; channel 4 has none.
const PAGE_OF: [usize; 8] = [0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa];

/// Which way a transfer goes, from the mode register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nothing moves.
    Verify,
    /// The device's data go to memory.
    ToMemory,
    /// Memory goes to the device.
    FromMemory,
}

#[derive(Clone, Copy, Debug, Default)]
struct Channel {
    base_address: u16,
    base_count: u16,
    address: u16,
    count: u16,
    mode: u8,
}

mod mode {
    pub const AUTO_INIT: u8 = 0x10;
    pub const DECREMENT: u8 = 0x20;
}

#[derive(Clone, Debug)]
struct Controller {
    channels: [Channel; 4],
    command: u8,
    mask: u8,
    request: u8,
    terminal: u8,
    high_byte: bool,
}

impl Controller {
    fn new() -> Self {
        Self {
            channels: Default::default(),
            command: 0,
            mask: 0x0f,
            request: 0,
            terminal: 0,
            high_byte: false,
        }
    }

    fn read(&mut self, register: u16) -> u8 {
        match register {
            0..8 => {
                let channel = &self.channels[usize::from(register / 2)];
                let word = if register & 1 == 0 {
                    channel.address
                } else {
                    channel.count
                };
                self.high_byte = !self.high_byte;
                word.to_le_bytes()[usize::from(!self.high_byte)]
            }
            8 => std::mem::take(&mut self.terminal) | self.request << 4,
            // The temporary register of memory-to-memory transfers.
            13 => 0,
            15 => self.mask | 0xf0,
            _ => OPEN_BUS,
        }
    }

    fn write(&mut self, register: u16, value: u8) {
        let bit = 1 << (value & 3);
        let set = |word: &mut u8| {
            *word = if value & 4 != 0 {
                *word | bit
            } else {
                *word & !bit
            }
        };
        match register {
            0..8 => {
                let channel = &mut self.channels[usize::from(register / 2)];
                let word = if register & 1 == 0 {
                    &mut channel.base_address
                } else {
                    &mut channel.base_count
                };
                let mut bytes = word.to_le_bytes();
                bytes[usize::from(self.high_byte)] = value;
                *word = u16::from_le_bytes(bytes);
                self.high_byte = !self.high_byte;
                (channel.address, channel.count) = if register & 1 == 0 {
                    (channel.base_address, channel.count)
                } else {
                    (channel.address, channel.base_count)
                };
            }
            8 => self.command = value,
            9 => set(&mut self.request),
            10 => set(&mut self.mask),
            11 => self.channels[usize::from(value & 3)].mode = value,
            12 => self.high_byte = false,
            13 => {
                *self = Self {
                    channels: self.channels,
                    ..Self::new()
                }
            }
            14 => self.mask = 0,
            _ => self.mask = value & 0x0f,
        }
    }
}

/// Channels 0-3 (bytes) and 5-7 (words); channel 4 cascades the first controller.
#[derive(Clone, Debug)]
pub struct DmaPair {
    controllers: [Controller; 2],
    pages: [u8; 16],
}

impl Default for DmaPair {
    fn default() -> Self {
        Self::new()
    }
}

impl DmaPair {
    /// The state after reset: all channels masked.
    #[must_use]
    pub fn new() -> Self {
        Self {
            controllers: [Controller::new(), Controller::new()],
            pages: [0; 16],
        }
    }

    /// Whether a request on `channel` (0-7) would be served: not masked, controller enabled.
    #[must_use]
    pub fn ready(&self, channel: usize) -> bool {
        const DISABLED: u8 = 0x04;
        let open = |c: &Controller, i: usize| c.mask & 1 << i == 0 && c.command & DISABLED == 0;
        let cascade = channel >= 4 || open(&self.controllers[1], 0);
        channel < 8 && cascade && open(&self.controllers[channel / 4], channel % 4)
    }

    /// The direction that the channel (0-7) is programmed for.
    #[must_use]
    pub fn direction(&self, channel: usize) -> Direction {
        match self.controllers[(channel / 4) & 1].channels[channel % 4].mode >> 2 & 3 {
            1 => Direction::ToMemory,
            2 => Direction::FromMemory,
            _ => Direction::Verify,
        }
    }

    /// Bytes until the channel's (0-7) terminal count.
    #[must_use]
    pub fn remaining(&self, channel: usize) -> usize {
        let units =
            usize::from(self.controllers[(channel / 4) & 1].channels[channel % 4].count) + 1;
        units << usize::from(channel >= 4)
    }

    /// Moves up to `data.len()` bytes between a device and memory on `channel` (0-7), in the
    /// programmed direction, at most to the terminal count. Returns the bytes moved and whether
    /// the terminal count was reached.
    /// # Errors
    /// [`DmaError`] if memory is missing; the channel has advanced all the same.
    pub fn transfer(
        &mut self,
        channel: usize,
        data: &mut [u8],
        memory: &mut dyn DmaMemory,
    ) -> Result<(usize, bool), DmaError> {
        if !self.ready(channel) {
            return Ok((0, false));
        }
        let shift = usize::from(channel >= 4);
        let direction = self.direction(channel);
        let page = u64::from(self.pages[PAGE_OF[channel]]);
        let len = (data.len() >> shift << shift).min(self.remaining(channel));
        let controller = &mut self.controllers[channel / 4];
        let state = &mut controller.channels[channel % 4];
        let down = state.mode & mode::DECREMENT != 0;
        let mut result = Ok(());
        for unit in data[..len].chunks_mut(1 << shift) {
            // The address wraps within the page: 64 KiB of bytes or of words.
            let at = if shift == 0 {
                page << 16 | u64::from(state.address)
            } else {
                (page & 0xfe) << 16 | u64::from(state.address) << 1
            };
            let moved = match direction {
                Direction::ToMemory => memory.write(at, unit),
                Direction::FromMemory => memory.read(at, unit),
                Direction::Verify => Ok(()),
            };
            result = result.and(moved);
            state.address = state.address.wrapping_add(if down { u16::MAX } else { 1 });
            state.count = state.count.wrapping_sub(1);
        }
        let terminal = len > 0 && state.count == 0xffff;
        if terminal {
            controller.terminal |= 1 << (channel % 4);
            if state.mode & mode::AUTO_INIT != 0 {
                (state.address, state.count) = (state.base_address, state.base_count);
            } else {
                controller.mask |= 1 << (channel % 4);
            }
        }
        result.map(|()| (len, terminal))
    }
}

impl BytePorts for DmaPair {
    fn read_byte(&mut self, _now: Nanos, at: u16) -> u8 {
        match at {
            0..0x10 => self.controllers[0].read(at),
            0x10..0x20 => self.pages[usize::from(at & 15)],
            0x20..0x40 => self.controllers[1].read((at - offset::SECOND) / 2),
            _ => OPEN_BUS,
        }
    }

    fn write_byte(&mut self, _now: Nanos, at: u16, value: u8) {
        match at {
            0..0x10 => self.controllers[0].write(at, value),
            0x10..0x20 => self.pages[usize::from(at & 15)] = value,
            0x20..0x40 => self.controllers[1].write((at - offset::SECOND) / 2, value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ram(Vec<u8>);
    impl DmaMemory for Ram {
        fn read(&mut self, address: u64, buf: &mut [u8]) -> Result<(), DmaError> {
            let at = address as usize;
            buf.copy_from_slice(self.0.get(at..at + buf.len()).ok_or(DmaError { address })?);
            Ok(())
        }
        fn write(&mut self, address: u64, data: &[u8]) -> Result<(), DmaError> {
            let at = address as usize;
            let to = self
                .0
                .get_mut(at..at + data.len())
                .ok_or(DmaError { address })?;
            to.copy_from_slice(data);
            Ok(())
        }
    }

    fn word(dma: &mut DmaPair, port: u16, value: u16) {
        dma.write_byte(0, port, value as u8);
        dma.write_byte(0, port, (value >> 8) as u8);
    }

    /// Channel 2 to or from 0x2fffe for 4 bytes, cascade open.
    fn channel_2(mode: u8) -> (DmaPair, Ram) {
        let mut dma = DmaPair::new();
        dma.write_byte(0, 0x20 + 2 * 10, 0);
        dma.write_byte(0, 12, 0);
        word(&mut dma, 4, 0xfffe);
        word(&mut dma, 5, 3);
        dma.write_byte(0, 0x11, 2);
        dma.write_byte(0, 11, mode | 2);
        dma.write_byte(0, 10, 2);
        (dma, Ram(vec![0; 0x4_0000]))
    }

    #[test]
    fn address_wraps_within_the_page_and_terminal_count_masks() {
        let (mut dma, mut ram) = channel_2(0x44);
        assert!(dma.ready(2) && dma.direction(2) == Direction::ToMemory);
        assert_eq!(
            dma.transfer(2, &mut [1, 2, 3, 4, 5], &mut ram),
            Ok((4, true))
        );
        assert_eq!(
            (ram.0[0x2_fffe], ram.0[0x2_0000], ram.0[0x2_0001]),
            (1, 3, 4)
        );
        assert!(!dma.ready(2));
        assert_eq!(dma.read_byte(0, 8), 4);
        assert_eq!(dma.read_byte(0, 8), 0, "reading clears terminal counts");
        assert_eq!((dma.read_byte(0, 5), dma.read_byte(0, 5)), (0xff, 0xff));
    }

    #[test]
    fn automatic_initialisation_restarts() {
        let (mut dma, mut ram) = channel_2(0x58);
        ram.0[0x2_fffe] = 9;
        let mut data = [0; 4];
        assert_eq!(dma.transfer(2, &mut data, &mut ram), Ok((4, true)));
        assert_eq!((data[0], dma.ready(2), dma.remaining(2)), (9, true, 4));
    }

    #[test]
    fn masked_or_disabled_channels_do_not_move() {
        let (mut dma, mut ram) = channel_2(0x44);
        dma.write_byte(0, 10, 6);
        assert_eq!(dma.transfer(2, &mut [1], &mut ram), Ok((0, false)));
        dma.write_byte(0, 14, 0);
        dma.write_byte(0, 8, 4);
        assert!(!dma.ready(2));
        dma.write_byte(0, 13, 0);
        assert_eq!(dma.read_byte(0, 15), 0xff);
    }

    #[test]
    fn word_channels_address_words() {
        let mut dma = DmaPair::new();
        word(&mut dma, 0x20 + 2 * 2, 0x8000);
        word(&mut dma, 0x20 + 2 * 3, 0);
        dma.write_byte(0, 0x1b, 3);
        dma.write_byte(0, 0x20 + 2 * 11, 0x45);
        dma.write_byte(0, 0x20 + 2 * 10, 1);
        let mut ram = Ram(vec![0; 0x4_0000]);
        assert_eq!(dma.transfer(5, &mut [7, 8, 9], &mut ram), Ok((2, true)));
        assert_eq!(ram.0[0x3_0000..0x3_0003], [7, 8, 0]);
    }

    #[test]
    fn missing_memory_is_an_error_and_the_channel_advances() {
        let (mut dma, _) = channel_2(0x44);
        assert!(dma.transfer(2, &mut [1], &mut Ram(vec![])).is_err());
        assert_eq!(dma.remaining(2), 3);
    }

    /// 8237A, "Mode register": address decrement; verify transfers make no memory cycles.
    #[test]
    fn addresses_go_down_and_verify_moves_nothing() {
        let (mut dma, mut ram) = channel_2(0x64);
        assert_eq!(dma.transfer(2, &mut [1, 2, 3], &mut ram), Ok((3, false)));
        assert_eq!(ram.0[0x2_fffc..0x2_ffff], [3, 2, 1]);
        let (mut dma, mut ram) = channel_2(0x40);
        assert_eq!(dma.direction(2), Direction::Verify);
        assert_eq!(dma.transfer(2, &mut [7; 4], &mut ram), Ok((4, true)));
        assert!(ram.0.iter().all(|byte| *byte == 0));
    }

    /// 8237A, "Software commands": clear first/last flip-flop, master clear, clear mask register;
    /// "Request register".
    #[test]
    fn software_commands() {
        let (mut dma, _) = channel_2(0x44);
        assert_eq!(dma.read_byte(0, 4), 0xfe);
        dma.write_byte(0, 12, 0);
        assert_eq!((dma.read_byte(0, 4), dma.read_byte(0, 4)), (0xfe, 0xff));
        dma.write_byte(0, 9, 0x05);
        assert_eq!(dma.read_byte(0, 8), 0x20, "channel 1 is requested");
        dma.write_byte(0, 9, 0x01);
        assert_eq!(dma.read_byte(0, 8), 0);
        dma.read_byte(0, 4);
        dma.write_byte(0, 13, 0);
        assert_eq!(dma.read_byte(0, 15), 0xff, "all masked");
        assert_eq!(
            dma.read_byte(0, 4),
            0xfe,
            "the low byte first, the address kept"
        );
        dma.write_byte(0, 14, 0);
        assert_eq!(dma.read_byte(0, 15), 0xf0);
        dma.write_byte(0, 15, 0x05);
        assert_eq!(dma.read_byte(0, 15), 0xf5);
    }
}
