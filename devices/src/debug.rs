//! Ports for firmware and test programs: POST codes, the debug console, and the debug exit.
//!
//! Port 80h: IBM PC/AT Technical Reference, POST. The debug console follows Bochs' port E9h; the
//! exit port follows the `isa-debug-exit` device that kernel test suites expect.

use crate::bus::{BytePorts, Nanos};

/// The POST code latch and the other unused page-register latches around it.
#[derive(Clone, Debug, Default)]
pub struct PostPort {
    code: u8,
}

impl PostPort {
    /// The last POST code written.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl BytePorts for PostPort {
    fn read_byte(&mut self, _now: Nanos, _offset: u16) -> u8 {
        self.code
    }
    fn write_byte(&mut self, _now: Nanos, _offset: u16, value: u8) {
        self.code = value;
    }
}

/// The debug console port: bytes written are collected; reading returns E9h as a signature.
#[derive(Clone, Debug, Default)]
pub struct DebugConsole {
    output: Vec<u8>,
}

impl DebugConsole {
    /// The value that reads return.
    pub const SIGNATURE: u8 = 0xe9;
    /// Bytes kept until the host takes them; further ones are lost.
    pub const CAPACITY: usize = 64 * 1024;

    /// Moves the collected bytes to the end of `to`.
    pub fn take_output(&mut self, to: &mut Vec<u8>) {
        to.append(&mut self.output);
    }
}

impl BytePorts for DebugConsole {
    fn read_byte(&mut self, _now: Nanos, _offset: u16) -> u8 {
        Self::SIGNATURE
    }
    fn write_byte(&mut self, _now: Nanos, _offset: u16, value: u8) {
        if self.output.len() < Self::CAPACITY {
            self.output.push(value);
        }
    }
}

/// The debug exit port: a write asks the host to end the VM with status `value << 1 | 1`.
#[derive(Clone, Debug, Default)]
pub struct DebugExit {
    status: Option<u32>,
}

impl DebugExit {
    /// The exit status the guest asked for, once.
    pub fn take_exit(&mut self) -> Option<u32> {
        self.status.take()
    }
}

impl crate::bus::PortDevice for DebugExit {
    fn read(&mut self, _now: Nanos, _offset: u16, _size: u8) -> u32 {
        0
    }
    fn write(&mut self, _now: Nanos, _offset: u16, _size: u8, value: u32) {
        self.status = Some(value << 1 | 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::PortDevice;

    #[test]
    fn console_collects_and_is_bounded() {
        let mut console = DebugConsole::default();
        for byte in b"hi" {
            console.write_byte(0, 0, *byte);
        }
        let mut out = Vec::new();
        console.take_output(&mut out);
        assert_eq!(out, b"hi");
        assert_eq!(console.read(0, 0, 1), 0xe9);
        for _ in 0..DebugConsole::CAPACITY + 10 {
            console.write_byte(0, 0, b'x');
        }
        out.clear();
        console.take_output(&mut out);
        assert_eq!(out.len(), DebugConsole::CAPACITY);
    }

    #[test]
    fn exit_status_is_odd_and_taken_once() {
        let mut exit = DebugExit::default();
        exit.write(0, 0, 4, 0x10);
        assert_eq!(exit.take_exit(), Some(0x21));
        assert_eq!(exit.take_exit(), None);
    }

    #[test]
    fn post_code_reads_back() {
        let mut post = PostPort::default();
        post.write_byte(0, 0, 0x55);
        assert_eq!((post.code(), post.read_byte(0, 0)), (0x55, 0x55));
    }
}
