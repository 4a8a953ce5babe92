//! The classic holes of emulated devices, by name.

use ring3_device_fuzz::ram::{HOLE, Ram};
use ring3_devices::block::{MemoryDisk, SECTOR};
use ring3_devices::bus::{DmaMemory, MmioDevice, PortDevice, Timed};
use ring3_devices::floppy::Floppy;
use ring3_devices::ide::Ide;
use ring3_devices::pci::PciFunction;
use ring3_devices::pit::Pit;
use ring3_devices::vga::Vga;
use ring3_monitor::board::{Board, BoardConfig};
use ring3_monitor::clock::VmClock;
use ring3_monitor::memory::GuestRam;
use std::sync::Arc;

const FIFO: u16 = 5;
const MSR: u16 = 4;
const DOR: u16 = 2;

/// VENOM, CVE-2015-3456: commands whose parameters never end run over the FIFO.
#[test]
fn floppy_fifo_overrun() {
    for command in [0x8e, 0x0a, 0x4a, 0x01, 0x33, 0x13, 0x18, 0x00, 0xff] {
        let mut chip = Floppy::new();
        chip.attach(
            0,
            Some(Box::new(MemoryDisk::new(vec![0; 2880 * SECTOR], false))),
        );
        chip.write(0, DOR, 1, 0x1c);
        chip.write(0, FIFO, 1, command);
        for n in 0..100_000 {
            chip.write(0, FIFO, 1, n & 0x7f);
        }
        for _ in 0..100_000 {
            chip.read(0, FIFO, 1);
        }
        // A reset brings it back: four sense results follow.
        chip.write(0, DOR, 1, 0x00);
        chip.write(0, DOR, 1, 0x1c);
        for unit in 0..4 {
            assert_eq!(
                chip.read(0, MSR, 1) & 0xc0,
                0x80,
                "after {command:#x}: ready"
            );
            chip.write(0, FIFO, 1, 8);
            assert_eq!(chip.read(0, FIFO, 1), 0xc0 | unit, "after {command:#x}");
            chip.read(0, FIFO, 1);
        }
    }
}

fn cd(blocks: usize) -> Ide {
    let mut ide = Ide::new();
    let image = MemoryDisk::new(vec![0x41; blocks * 2048], true);
    ide.attach_cd_rom(0, 0, Some(Box::new(image)));
    ide.config_mut().write(4, 2, 5);
    // The first command reports the medium's change.
    packet(&mut ide, 0, &[0]);
    ide
}

fn packet(ide: &mut Ide, limit: u16, bytes: &[u8]) {
    let [low, high] = limit.to_le_bytes();
    for (register, value) in [(6, 0), (1, 0), (4, low), (5, high), (7, 0xa0)] {
        ide.write(0, register, 1, value.into());
    }
    let mut packet = [0; 12];
    packet[..bytes.len()].copy_from_slice(bytes);
    for pair in packet.chunks(2) {
        ide.write(0, 0, 2, u16::from_le_bytes([pair[0], pair[1]]).into());
    }
}

/// Bytes that the drive offers, as a driver fetches them; `most` words at most.
fn offered(ide: &mut Ide, most: usize) -> usize {
    let mut total = 0;
    for _ in 0..most {
        let status = ide.read(0, 7, 1);
        if status & 8 == 0 {
            return total;
        }
        let count = (ide.read(0, 4, 1) | ide.read(0, 5, 1) << 8) as usize;
        assert!(count > 0, "a piece of no bytes would go on for ever");
        for _ in 0..count.div_ceil(2) {
            ide.read(0, 0, 2);
        }
        total += count;
    }
    panic!("the drive offers data without end");
}

/// Lengths of ATAPI commands: CVE-2014-9718's and CVE-2019-15890's kind of endless transfer.
#[test]
fn atapi_length_stays_within_the_allocation() {
    for limit in [0, 1, 2, 3, 0x7ff, 0x800, 0xfffe, 0xffff] {
        let mut ide = cd(64);
        // INQUIRY and MODE SENSE with every allocation length; REQUEST SENSE.
        for (command, at) in [(0x12, 4), (0x5a, 8), (0x03, 4), (0x43, 8)] {
            for allocation in [0u8, 1, 5, 36, 255] {
                let mut bytes = [0; 12];
                bytes[0] = command;
                bytes[at] = allocation;
                if command == 0x5a {
                    bytes[2] = 0x2a;
                }
                packet(&mut ide, limit, &bytes);
                let got = offered(&mut ide, 4000);
                assert!(
                    got <= usize::from(allocation).next_multiple_of(2),
                    "{command:#x}: {got} bytes for {allocation}, limit {limit}"
                );
            }
        }
        // READ(10) of two blocks gives two blocks.
        packet(&mut ide, limit, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2]);
        assert_eq!(offered(&mut ide, 10_000), 4096, "limit {limit}");
    }
}

/// CVE-2020-29443: a block address of minus one indexes before the buffer.
#[test]
fn atapi_address_beyond_the_medium_is_an_error() {
    for (address, count) in [
        (u32::MAX, 1u16),
        (u32::MAX, 0xffff),
        (63, 2),
        (64, 1),
        (0x7fff_ffff, 2),
    ] {
        let mut ide = cd(64);
        let a = address.to_be_bytes();
        let c = count.to_be_bytes();
        packet(
            &mut ide,
            0xfffe,
            &[0x28, 0, a[0], a[1], a[2], a[3], 0, c[0], c[1]],
        );
        assert!(offered(&mut ide, 100_000) <= 4096);
        assert_eq!(
            ide.read(0, 7, 1) & 1,
            1,
            "address {address:#x}, {count} blocks"
        );
        packet(
            &mut ide,
            0xfffe,
            &[0xa8, 0, a[0], a[1], a[2], a[3], 0xff, 0xff, 0xff, 0xff],
        );
        assert!(offered(&mut ide, 100_000) <= 64 * 2048);
        assert_eq!(ide.read(0, 7, 1) & 1, 1);
    }
}

/// Counts of 0 and 1, BCD, and time that leaps: divisions and multiplications at their limits.
#[test]
fn pit_counter_arithmetic() {
    for mode in 0..8u32 {
        for access in 1..4u32 {
            for bcd in 0..2u32 {
                for count in [0u32, 1, 2, 3, 0xffff, 0x9999, 0xaaaa] {
                    let mut chip = Pit::new();
                    for channel in [0u16, 2] {
                        chip.write(
                            0,
                            3,
                            1,
                            u32::from(channel) << 6 | access << 4 | mode << 1 | bcd,
                        );
                        chip.write(0, channel, 1, count & 0xff);
                        chip.write(0, channel, 1, count >> 8);
                    }
                    for now in [1, 838, 1_000_000, 1 << 40, 1 << 62, u64::MAX / 2] {
                        chip.advance(now);
                        for channel in 0..3 {
                            chip.write(now, 3, 1, 0xc2 | 1 << (channel + 1));
                            chip.read(now, channel, 1);
                            chip.read(now, channel, 1);
                        }
                        let _ = (
                            chip.take_edge(),
                            chip.speaker_hertz(),
                            chip.irq(),
                            chip.backlog(),
                        );
                        if let Some(due) = chip.next_deadline() {
                            assert!(
                                due >= now,
                                "mode {mode}, count {count:#x}: a deadline in the past"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// CVE-2016-3710: banks of the VBE interface that reach beyond video memory.
#[test]
fn vga_bank_arithmetic() {
    const INDEX: u16 = 0x100;
    const DATA: u16 = 0x101;
    let mut chip = Vga::new();
    let dispi = |chip: &mut Vga, index: u32, value: u32| {
        PortDevice::write(chip, 0, INDEX, 2, index);
        PortDevice::write(chip, 0, DATA, 2, value);
    };
    dispi(&mut chip, 10, 0);
    PortDevice::write(&mut chip, 0, INDEX, 2, 10);
    let banks = PortDevice::read(&mut chip, 0, DATA, 2);
    for bpp in [4, 8, 15, 16, 24, 32] {
        for bank in [0, 1, banks - 1, banks, banks + 1, 0x7fff, 0x8000, 0xffff] {
            for (index, value) in [(4, 0), (1, 640), (2, 480), (3, bpp), (4, 0x41), (5, bank)] {
                dispi(&mut chip, index, value);
            }
            PortDevice::write(&mut chip, 0, INDEX, 2, 5);
            assert!(
                PortDevice::read(&mut chip, 0, DATA, 2) < banks,
                "bank {bank:#x} is not there"
            );
            // All 128 KiB of the window, in every map of the graphics controller.
            for map in 0..4 {
                PortDevice::write(&mut chip, 0, 0x1e, 2, 6 | map << 10 | 1 << 8);
                for at in [0u64, 0xfffe, 0x1_0000, 0x1_8000, 0x1_ffff, u64::MAX] {
                    MmioDevice::write(&mut chip, 0, at, &[0xa5; 8]);
                    MmioDevice::read(&mut chip, 0, at, &mut [0; 8]);
                }
            }
            // Display start and virtual width at their limits.
            for (index, value) in [(6, 0xffff), (8, 0xffff), (9, 0xffff), (7, 0xffff)] {
                dispi(&mut chip, index, value);
            }
            let _ = chip.render();
        }
    }
    // The framebuffer's last bytes, and what lies beyond.
    let mut data = [0; 16];
    for at in [
        (u64::from(banks) << 16) - 8,
        u64::from(banks) << 16,
        u64::MAX - 4,
    ] {
        chip.write_vram(at, &[1; 16]);
        chip.read_vram(at, &mut data);
    }
}

fn disk(sectors: usize) -> Ide {
    let mut ide = Ide::new();
    ide.attach_disk(
        0,
        0,
        Box::new(MemoryDisk::new(vec![0x42; sectors * SECTOR], false)),
    );
    ide.config_mut().write(4, 2, 5);
    ide
}

/// Sector counts of 0, and addresses that wrap when the count is added.
#[test]
fn ide_sector_count_wrap() {
    // READ SECTORS of 256 sectors (count 0), where only 300 exist: all of them or none.
    for (first, expected) in [
        (0u32, 256),
        (44, 256),
        (45, 0),
        (299, 0),
        (300, 0),
        (0x0fff_ffff, 0),
    ] {
        let mut ide = disk(300);
        let b = first.to_le_bytes();
        for (register, value) in [
            (2, 0),
            (3, b[0]),
            (4, b[1]),
            (5, b[2]),
            (6, 0xe0 | b[3] & 15),
            (7, 0x20),
        ] {
            ide.write(0, register, 1, u32::from(value));
        }
        let mut sectors = 0;
        while ide.read(0, 7, 1) & 8 != 0 {
            for _ in 0..256 {
                ide.read(0, 0, 2);
            }
            sectors += 1;
            assert!(sectors <= 256);
        }
        assert_eq!(sectors, expected, "from {first:#x}");
        assert_eq!(ide.read(0, 7, 1) & 1, u32::from(expected < 256));
    }
    // READ SECTORS EXT: 65536 sectors from the last 48-bit address.
    for command in [0x24, 0x29, 0x25, 0x34, 0x39, 0x35] {
        let mut ide = disk(300);
        for register in [2, 3, 4, 5] {
            let value = if register == 2 { 0 } else { 0xff };
            ide.write(0, register, 1, value);
            ide.write(0, register, 1, value);
        }
        ide.write(0, 6, 1, 0x40);
        ide.write(0, 7, 1, command);
        ide.write(0, 0x20, 1, 1);
        ide.run_dma(&mut Ram::new());
        for _ in 0..300 {
            ide.read(0, 0, 2);
            ide.write(0, 0, 2, 0);
        }
        assert_eq!(
            ide.read(0, 7, 1) & 0x89,
            1,
            "{command:#x}: an error, no data"
        );
    }
}

/// Bus masters that are sent to device memory: nothing but RAM may answer.
#[test]
fn dma_into_device_memory() {
    let mut ide = disk(16);
    let mut ram = Ram::new();
    // A region that begins in RAM and runs into the video window.
    let address = HOLE.start as u32 - 0x100;
    let mut table = address.to_le_bytes().to_vec();
    table.extend_from_slice(&[0, 2, 0, 0x80]);
    ram.write(0x100, &table).unwrap();
    ide.write(0, 0x24, 4, 0x100);
    for (register, value) in [(2, 1), (3, 0), (4, 0), (5, 0), (6, 0xe0), (7, 0xc8)] {
        ide.write(0, register, 1, value);
    }
    ide.write(0, 0x20, 1, 9);
    ide.run_dma(&mut ram);
    assert_eq!(
        ide.read(0, 0x22, 1) & 3,
        2,
        "an error, and no longer active"
    );

    let config = BoardConfig {
        memory: 16 << 20,
        serial_ports: 1,
        ..BoardConfig::default()
    };
    for target in [
        0x000b_8000u32,
        0xfee0_0000,
        0xfec0_0000,
        0xfed0_0000,
        0x00ff_ff00,
        0xffff_ff00,
    ] {
        let mut board = Board::new(config.clone(), Arc::new(VmClock::manual(1_700_000_000)));
        let ram = Arc::new(GuestRam::new(16 << 20).unwrap());
        board.connect_memory(Arc::clone(&ram));
        board.attach_disk(
            0,
            0,
            Box::new(MemoryDisk::new(vec![0x42; 64 * SECTOR], false)),
        );
        let seen = |board: &mut Board| {
            let mut bytes = [0; 64];
            board.mmio_read(target.into(), &mut bytes);
            bytes
        };
        let before = seen(&mut board);
        // Bus master registers at C100h.
        for (register, value) in [(0x20, 0xc101), (0x04, 5)] {
            board.port_out(0xcf8, 4, 0x8000_0900 | register);
            board.port_out(0xcfc, 4, value);
        }
        let mut table = target.to_le_bytes().to_vec();
        table.extend_from_slice(&[0, 2, 0, 0x80]);
        ram.write_unwatched(0x1000, &table);
        board.port_out(0xc104, 4, 0x1000);
        for (port, value) in [
            (0x1f2, 1),
            (0x1f3, 0),
            (0x1f4, 0),
            (0x1f5, 0),
            (0x1f6, 0xe0),
            (0x1f7, 0xc8),
        ] {
            board.port_out(port, 1, value);
        }
        board.port_out(0xc100, 1, 9);
        let status = board.port_in(0xc102, 1);
        assert_eq!(status & 3, 2, "{target:#x}: status {status:#x}");
        if !(0xc_0000..16 << 20).contains(&target) {
            assert_eq!(seen(&mut board), before, "{target:#x} was written");
        }
    }
}
