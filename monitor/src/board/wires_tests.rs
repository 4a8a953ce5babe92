//! That looking at one chip is enough, and that chips without the time do without it.

use super::wiring::{FIXED_PORTS, LAPIC_BASE, MOVING_PORTS, SERIAL, SERIAL_SLOTS, Slot};
use super::{Board, BoardConfig, HPET_BASE, HostPort, IOAPIC_BASE};
use crate::clock::VmClock;
use ring3_devices::block::MemoryDisk;
use std::sync::Arc;

fn config() -> BoardConfig {
    BoardConfig {
        memory: 64 << 20,
        serial_ports: 4,
        debug_exit: true,
        ..BoardConfig::default()
    }
}

/// Numbers without a pattern that chips could share.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % below
    }
}

#[test]
fn no_cycle_changes_an_output_that_is_not_looked_at() {
    let clock = Arc::new(VmClock::manual(1_700_000_000));
    let mut board = Board::new(config(), Arc::clone(&clock));
    board.attach_disk(0, 0, Box::new(MemoryDisk::new(vec![0; 51_200], false)));
    board.attach_cd_rom(1, 0, None);
    board.attach_floppy(0, None);
    let serial = SERIAL.map(|(port, _)| (port, 8));
    let fixed = FIXED_PORTS.iter().map(|run| (run.0, run.1));
    let runs: Vec<(u16, u16)> = fixed.chain(serial).chain([(0xb000, 64)]).collect();
    let chips = [LAPIC_BASE, IOAPIC_BASE, HPET_BASE];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for step in 0..300_000 {
        let (first, count) = runs[random.next(runs.len() as u64) as usize];
        let port = first + random.next(count.into()) as u16;
        let size = 1 << random.next(3);
        let memory = chips[random.next(3) as usize] + 16 * random.next(64);
        match random.next(16) {
            0..6 => board.port_out(port, size, random.next(1 << 32) as u32),
            6..10 => drop(board.port_in(port, size)),
            10..12 => board.mmio_write(memory, &(random.next(1 << 32) as u32).to_le_bytes()),
            12 => board.mmio_read(memory, &mut [0; 4]),
            13 if board.interrupt_pending() => drop(board.acknowledge()),
            13 => drop(board.give_input(HostPort::Serial(random.next(4) as usize), b"x")),
            14 => clock.advance(random.next(1 << 22)),
            _ => board.run_timers(),
        }
        assert!(board.is_current(), "step {step}, port {port:#x}");
        if board.take_request().is_some() {
            board.reset();
        }
    }
}

#[test]
fn chips_that_are_given_no_time_do_not_look_at_it() {
    let clock = VmClock::manual(0);
    let pair = || super::chips::Chips::new(&config(), &clock);
    let runs = FIXED_PORTS.iter().map(|run| (run.2, run.3, run.1));
    let moving = MOVING_PORTS.iter().map(|run| (run.1, run.2, run.0));
    let serial = SERIAL_SLOTS.iter().map(|slot| (*slot, 0, 8));
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for (slot, first, count) in runs.chain(moving).chain(serial) {
        let (mut with, mut without) = (pair(), pair());
        for _ in 0..2000 {
            let offset = first + random.next(count.into()) as u16;
            let write = random.next(2) == 0;
            let times = if slot.looks_at_time(write) {
                (0, 0)
            } else {
                (random.next(1 << 40), 0)
            };
            let (Some(a), Some(b)) = (with.at(slot), without.at(slot)) else {
                continue;
            };
            if write {
                let value = random.next(256) as u32;
                a.write(times.0, offset, 1, value);
                b.write(times.1, offset, 1, value);
            } else {
                let values = (a.read(times.0, offset, 1), b.read(times.1, offset, 1));
                assert_eq!(values.0, values.1, "{slot:?} {offset:#x}");
            }
        }
        with.look_at_all();
        without.look_at_all();
        with.carry();
        without.carry();
        assert_eq!(with.next_deadline(), without.next_deadline(), "{slot:?}");
        assert!(with.is_current() && without.is_current());
        assert_eq!(with.wires, without.wires, "{slot:?}");
    }
    assert!(
        !Slot::Ide.looks_at_time(true),
        "the test has something to look at"
    );
}
