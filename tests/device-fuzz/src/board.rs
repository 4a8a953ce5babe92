//! The whole board: all chips behind their real ports and addresses, with guest memory.

use crate::target::{Op, Target};
use ring3_devices::block::{MemoryDisk, SECTOR};
use ring3_devices::bus::Nanos;
use ring3_devices::kbc::{Buttons, Key};
use ring3_monitor::board::{Board, BoardConfig, HPET_BASE, HostPort, IOAPIC_BASE, LAPIC_BASE};
use ring3_monitor::clock::VmClock;
use ring3_monitor::memory::GuestRam;
use std::sync::Arc;

/// Bytes of guest memory.
const MEMORY: u64 = 16 << 20;
/// Bytes of video memory.
const VIDEO: u64 = 16 << 20;

/// The board under test.
pub struct BoardTarget {
    board: Board,
    clock: Arc<VmClock>,
    ram: Arc<GuestRam>,
}

impl BoardTarget {
    /// A board with every drive.
    ///
    /// # Errors
    /// When the host refuses memory.
    pub fn new() -> std::io::Result<Self> {
        let clock = Arc::new(VmClock::manual(1_700_000_000));
        let config = BoardConfig {
            memory: MEMORY,
            serial_ports: 4,
            debug_exit: true,
            firmware: true,
            ..BoardConfig::default()
        };
        let mut board = Board::new(config, Arc::clone(&clock));
        let ram = Arc::new(GuestRam::with_video(MEMORY, VIDEO)?);
        board.connect_memory(Arc::clone(&ram));
        let disk = |sectors, ro| Box::new(MemoryDisk::new(vec![0x33; sectors * SECTOR], ro));
        board.attach_disk(0, 0, disk(1000, false));
        board.attach_cd_rom(1, 0, Some(disk(800, true)));
        board.attach_floppy(0, Some(disk(2880, false)));
        Ok(Self { board, clock, ram })
    }

    fn address(at: u64) -> u64 {
        // The legacy window, the framebuffer's usual place, the APICs, the HPET, or anywhere.
        let (base, size) = [
            (0xa_0000, 0x2_0000),
            (0xc_0000, 0x4_0000),
            (0xe000_0000, VIDEO),
            (0xfd00_0000, VIDEO),
            (IOAPIC_BASE, 0x1000),
            (LAPIC_BASE, 0x1000),
            (HPET_BASE, 0x1000),
            (0, 1 << 33),
        ][(at >> 40) as usize % 8];
        base + at % size
    }
}

impl Target for BoardTarget {
    fn name(&self) -> &'static str {
        "board"
    }
    fn ports(&self) -> u16 {
        0xffff
    }
    fn favourites(&self) -> &'static [u16] {
        &[
            0x00, 0x04, 0x05, 0x08, 0x0a, 0x0b, 0x0c, 0x20, 0x21, 0x40, 0x42, 0x43, 0x60, 0x61,
            0x64, 0x70, 0x71, 0x81, 0x92, 0xa0, 0xa1, 0xb2, 0xcf8, 0xcfc, 0xcfe, 0x170, 0x172,
            0x176, 0x177, 0x1ce, 0x1cf, 0x1d0, 0x1f0, 0x1f2, 0x1f6, 0x1f7, 0x376, 0x378, 0x37a,
            0x3b4, 0x3c0, 0x3c4, 0x3c5, 0x3c8, 0x3c9, 0x3ce, 0x3cf, 0x3d4, 0x3d5, 0x3f2, 0x3f4,
            0x3f5, 0x3f6, 0x3f8, 0x3f9, 0x3fa, 0x402, 0x4d0, 0x510, 0x511, 0x514, 0x518, 0x600,
            0x604, 0x608, 0xb000, 0xb004, 0xc000,
        ]
    }
    fn commands(&self) -> &'static [u8] {
        &[
            0x00, 0x01, 0x03, 0x08, 0x0f, 0x11, 0x20, 0x30, 0x34, 0x36, 0x4a, 0xc5, 0xc8, 0xca,
            0xe6, 0xec, 0xa0, 0xa1, 0xd1, 0xd4, 0xfe, 0x41, 0x61, 0x80,
        ]
    }
    fn memory(&self) -> u64 {
        1 << 46
    }
    fn bus_master(&self) -> bool {
        true
    }
    fn deadline(&self) -> Option<Nanos> {
        self.board.next_deadline()
    }
    fn apply(&mut self, now: Nanos, op: &Op) {
        self.clock.advance(now.saturating_sub(self.clock.now_ns()));
        let b = &mut self.board;
        match op {
            Op::In { port, size } => _ = b.port_in(*port, *size),
            Op::Out { port, size, value } => b.port_out(*port, *size, *value),
            Op::Burst {
                port,
                size,
                value,
                count,
            } => {
                for n in 0..u32::from(*count) {
                    b.port_out(*port, *size, value.wrapping_add(n));
                }
            }
            Op::Drain { port, size, count } => {
                for _ in 0..*count {
                    b.port_in(*port, *size);
                }
            }
            Op::Load { at, len } => {
                let mut buf = [0; 64];
                b.mmio_read(Self::address(*at), &mut buf[..usize::from(*len).min(64)]);
            }
            Op::Store { at, data } => b.mmio_write(Self::address(*at), data),
            Op::Ram { at, data } => self.ram.write_unwatched(*at, data),
            Op::Wait(_) | Op::Deadline => b.run_timers(),
            Op::Host(n) => self.host(*n),
        }
        // What the run loop and the I/O thread take away.
        let effects = self.board.take_effects();
        if let Some(video) = effects.video {
            self.ram.place_video(video);
        }
        if let Some(routing) = effects.routing {
            self.ram.route(&routing);
        }
        if self.board.take_request().is_some() {
            self.board.reset();
        }
    }
}

impl BoardTarget {
    fn host(&mut self, n: u32) {
        let b = &mut self.board;
        match n % 16 {
            0 => _ = b.screen(),
            1 => _ = b.screen_text(),
            2 => {
                if let Some(key) = Key::from_set1((n >> 8) as u16 & 0xe07f) {
                    b.key_event(key, n & 0x80 != 0);
                }
            }
            3 => b.mouse_event(
                (n << 4) as i32,
                (n << 8) as i32,
                (n << 12) as i32,
                Buttons::from_bits_truncate((n >> 5) as u8),
            ),
            4 => _ = b.give_input(HostPort::Serial((n >> 8) as usize % 4), &[1; 100]),
            5 => {
                for port in b.host_ports() {
                    b.take_output(port, &mut Vec::new());
                }
                b.debug_output(&mut Vec::new());
            }
            6 => b.press_power_button(),
            7 => b.set_apic_base(u64::from(n) << 8),
            8 => _ = b.set_tsc_deadline(Some(u64::from(n) << 16)),
            9 => b.raise_nmi(),
            10 => {
                let medium = MemoryDisk::new(vec![1; (n >> 8) as usize % 4000 * SECTOR], true);
                _ = b.set_cd_rom(1, 0, (n & 0x10 != 0).then(|| Box::new(medium) as _));
            }
            11 => {
                let medium =
                    MemoryDisk::new(vec![1; (n >> 8) as usize % 6000 * SECTOR], n & 0x20 != 0);
                b.set_floppy(
                    (n >> 6) as usize & 1,
                    (n & 0x10 != 0).then(|| Box::new(medium) as _),
                );
            }
            _ if b.interrupt_pending() => _ = b.acknowledge(),
            _ => {}
        }
    }
}
