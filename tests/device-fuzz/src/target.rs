//! What is fuzzed, and the operations on it.

use fastrand::Rng;
use ring3_devices::bus::{MmioDevice, Nanos, PortDevice, Timed};

/// One operation on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A port read.
    In {
        /// Offset in the target's ports.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
    },
    /// A port write.
    Out {
        /// Offset in the target's ports.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// What is written.
        value: u32,
    },
    /// Many writes of one port.
    Burst {
        /// Offset in the target's ports.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// What is written first; each write adds one.
        value: u32,
        /// Writes.
        count: u16,
    },
    /// Many reads of one port.
    Drain {
        /// Offset in the target's ports.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// Reads.
        count: u16,
    },
    /// A memory read.
    Load {
        /// Offset in the target's memory.
        at: u64,
        /// Bytes, at most 64.
        len: u16,
    },
    /// A memory write.
    Store {
        /// Offset in the target's memory.
        at: u64,
        /// What is written.
        data: Vec<u8>,
    },
    /// Guest memory is written: what DMA descriptors are read from.
    Ram {
        /// Physical address.
        at: u64,
        /// What is written.
        data: Vec<u8>,
    },
    /// Time passes, in ns.
    Wait(u64),
    /// Time passes to the next deadline.
    Deadline,
    /// Something that the board or the host does: what, is up to the device.
    Host(u32),
}

/// Something to be fuzzed.
pub trait Target {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Numbers of its ports.
    fn ports(&self) -> u16 {
        0
    }
    /// Ports that deserve more than their share: command and data registers.
    fn favourites(&self) -> &'static [u16] {
        &[]
    }
    /// Bytes of memory cycles; 0: none.
    fn memory(&self) -> u64 {
        0
    }
    /// Bytes written to favourites more often: commands.
    fn commands(&self) -> &'static [u8] {
        &[]
    }
    /// Carries an operation out.
    fn apply(&mut self, now: Nanos, op: &Op);
    /// When something happens by itself.
    fn deadline(&self) -> Option<Nanos> {
        None
    }
    /// Whether guest memory matters to it.
    fn bus_master(&self) -> bool {
        false
    }
}

/// Makes a random operation.
pub fn make(rng: &mut Rng, target: &dyn Target) -> Op {
    let size = [1u8, 1, 1, 2, 4][rng.usize(..5)];
    let favourite = |rng: &mut Rng| {
        let list = target.favourites();
        if !list.is_empty() && rng.u8(..100) < 60 {
            list[rng.usize(..list.len())]
        } else {
            rng.u16(..target.ports().max(1))
        }
    };
    let value = |rng: &mut Rng| {
        let commands = target.commands();
        match rng.u8(..10) {
            0..5 if !commands.is_empty() => u32::from(commands[rng.usize(..commands.len())]),
            0 => 0,
            1 => u32::MAX,
            2 => 1 << rng.u8(..32),
            3..7 => u32::from(rng.u8(..)),
            _ => rng.u32(..),
        }
    };
    loop {
        match rng.u8(..100) {
            0..25 if target.ports() > 0 => {
                return Op::In {
                    port: favourite(rng),
                    size,
                };
            }
            25..65 if target.ports() > 0 => {
                return Op::Out {
                    port: favourite(rng),
                    size,
                    value: value(rng),
                };
            }
            65..68 if target.ports() > 0 => {
                return Op::Burst {
                    port: favourite(rng),
                    size,
                    value: value(rng),
                    count: rng.u16(..1200),
                };
            }
            68..72 if target.ports() > 0 => {
                return Op::Drain {
                    port: favourite(rng),
                    size,
                    count: rng.u16(..3000),
                };
            }
            72..78 if target.memory() > 0 => {
                return Op::Load {
                    at: place(rng, target.memory()),
                    len: length(rng),
                };
            }
            78..86 if target.memory() > 0 => {
                return Op::Store {
                    at: place(rng, target.memory()),
                    data: bytes(rng),
                };
            }
            86..89 if target.bus_master() => {
                return Op::Ram {
                    at: rng.u64(..crate::ram::SIZE as u64),
                    data: bytes(rng),
                };
            }
            89..94 => {
                return Op::Wait(match rng.u8(..8) {
                    0 => 0,
                    1 => rng.u64(..1 << 50), // two weeks
                    2 => 1 << rng.u8(..61),
                    _ => rng.u64(..100_000_000),
                });
            }
            94..96 => return Op::Deadline,
            96.. => return Op::Host(rng.u32(..)),
            _ => {}
        }
    }
}

fn place(rng: &mut Rng, memory: u64) -> u64 {
    match rng.u8(..8) {
        0 => rng.u64(..),
        1 => memory.wrapping_sub(rng.u64(..16)),
        2 => rng.u64(..0x400.min(memory)) & !3,
        _ => rng.u64(..memory),
    }
}

fn length(rng: &mut Rng) -> u16 {
    [1, 2, 4, 4, 8, 3, 64, 0][rng.usize(..8)]
}

fn bytes(rng: &mut Rng) -> Vec<u8> {
    let len = usize::from(length(rng));
    let fill = rng.u8(..);
    if rng.bool() {
        vec![fill; len]
    } else {
        (0..len).map(|_| rng.u8(..)).collect()
    }
}

/// Port operations on a chip.
pub fn port_op(chip: &mut dyn PortDevice, now: Nanos, op: &Op) {
    match *op {
        Op::In { port, size } => _ = chip.read(now, port, size),
        Op::Out { port, size, value } => chip.write(now, port, size, value),
        Op::Burst {
            port,
            size,
            value,
            count,
        } => {
            for n in 0..u32::from(count) {
                chip.write(now, port, size, value.wrapping_add(n));
            }
        }
        Op::Drain { port, size, count } => {
            for _ in 0..count {
                chip.read(now, port, size);
            }
        }
        _ => {}
    }
}

/// Memory operations on a chip.
pub fn memory_op(chip: &mut dyn MmioDevice, now: Nanos, op: &Op) {
    match op {
        Op::Load { at, len } => {
            let mut buf = [0; 64];
            chip.read(now, *at, &mut buf[..usize::from(*len).min(64)]);
        }
        Op::Store { at, data } => chip.write(now, *at, data),
        _ => {}
    }
}

/// Time operations on a chip.
pub fn time_op(chip: &mut dyn Timed, now: Nanos, op: &Op) {
    if matches!(op, Op::Wait(_) | Op::Deadline) {
        chip.advance(now);
    }
}
