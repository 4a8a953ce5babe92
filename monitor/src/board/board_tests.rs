use super::*;
use crate::memory::attr;
use ring3_devices::block::MemoryDisk;

fn board() -> (Board, Arc<VmClock>) {
    let clock = Arc::new(VmClock::manual(1_700_000_000));
    let config = BoardConfig {
        memory: 64 << 20,
        serial_ports: 2,
        debug_exit: true,
        ..BoardConfig::default()
    };
    (Board::new(config, Arc::clone(&clock)), clock)
}

/// Both 8259s as PCs have them: vectors 0x20 and 0x28, nothing masked.
fn init_pics(board: &mut Board) {
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0),
        (0xa0, 0x11),
        (0xa1, 0x28),
        (0xa1, 2),
        (0xa1, 1),
        (0xa1, 0),
    ] {
        board.port_out(port, 1, value);
    }
}

#[test]
fn unmapped_ports_read_all_ones() {
    let (mut board, _) = board();
    assert_eq!(board.port_in(0x1234, 1), 0xff);
    assert_eq!(board.port_in(0x1234, 2), 0xffff);
    assert_eq!(board.port_in(0xfffc, 4), 0xffff_ffff);
    board.port_out(0xfffd, 2, 0x5678);
    let mut buf = [0; 5];
    board.mmio_read(0xf000_0000, &mut buf);
    assert_eq!(buf, [0xff; 5]);
}

#[test]
fn wide_accesses_reach_byte_chips_in_order() {
    let (mut board, _) = board();
    // Index and data of the CMOS by one 16-bit write, then read the byte back.
    board.port_out(0x70, 2, 0x5a40);
    board.port_out(0x70, 1, 0x40);
    assert_eq!(board.port_in(0x71, 1), 0x5a);
}

#[test]
fn cmos_reports_the_memory() {
    let (mut board, _) = board();
    let mut read = |index| {
        board.port_out(0x70, 1, index);
        board.port_in(0x71, 1)
    };
    assert_eq!(
        read(0x35) << 8 | read(0x34),
        ((64 << 20) - (16 << 20)) >> 16
    );
    assert_eq!(read(0x16) << 8 | read(0x15), 640);
    assert_eq!(read(0x32), 0x20);
}

#[test]
fn timer_edges_are_delivered_one_by_one_after_a_pause() {
    let (mut board, clock) = board();
    init_pics(&mut board);
    for (port, value) in [(0x43, 0x34), (0x40, 0xa9), (0x40, 0x04)] {
        board.port_out(port, 1, value);
    }
    // OUT rises already when mode 2 is set.
    assert_eq!(board.acknowledge(), 0x20);
    board.port_out(0x20, 1, 0x20);
    let due = board.next_deadline().expect("the timer runs");
    assert!((900_000..1_100_000).contains(&due), "{due}");
    clock.advance(due + 5_000_000);
    board.run_timers();
    let mut ticks = 0;
    while board.interrupt_pending() {
        assert_eq!(board.acknowledge(), 0x20);
        board.port_out(0x20, 1, 0x20);
        ticks += 1;
        assert!(ticks < 100);
    }
    assert_eq!(ticks, 6);
    assert!(board.next_deadline().unwrap() > clock.now_ns());
}

#[test]
fn a_masked_timer_leaves_one_tick_behind() {
    let (mut board, clock) = board();
    init_pics(&mut board);
    board.port_out(0x21, 1, 1);
    for (port, value) in [(0x43, 0x34), (0x40, 0xa9), (0x40, 0x04)] {
        board.port_out(port, 1, value);
    }
    clock.advance(20_000_000);
    board.run_timers();
    assert!(!board.interrupt_pending());
    board.port_out(0x21, 1, 0);
    assert_eq!(board.acknowledge(), 0x20);
    board.port_out(0x20, 1, 0x20);
    assert!(!board.interrupt_pending());
}

#[test]
fn serial_output_is_batched_and_input_interrupts() {
    let (mut board, clock) = board();
    init_pics(&mut board);
    let before = board.next_deadline();
    board.port_out(0x2f8, 1, u32::from(b'a'));
    let due = board.next_deadline().unwrap();
    assert!(before.is_none_or(|b| due < b) && due <= clock.now_ns() + 1_000_000);
    board.port_out(0x2f8, 1, u32::from(b'b'));
    let mut out = Vec::new();
    board.take_output(HostPort::Serial(1), &mut out);
    assert_eq!(out, b"ab");
    assert_eq!(board.next_deadline(), before);
    board.port_out(0x2fc, 1, 8);
    board.port_out(0x2f9, 1, 1);
    assert_eq!(board.give_input(HostPort::Serial(1), b"z"), 1);
    assert!(board.interrupt_flag().load(Ordering::Acquire));
    assert_eq!(board.acknowledge(), 0x23);
    assert_eq!(board.port_in(0x2f8, 1), u32::from(b'z'));
    assert_eq!(board.give_input(HostPort::Serial(3), b"z"), 0);
}

#[test]
fn output_survives_a_reset() {
    let (mut board, _) = board();
    board.port_out(0x3f8, 1, u32::from(b'a'));
    board.reset();
    board.port_out(0x3f8, 1, u32::from(b'b'));
    let mut out = Vec::new();
    board.take_output(HostPort::Serial(0), &mut out);
    assert_eq!(out, b"ab");
}

#[test]
fn debug_exit_is_a_request_and_a_stop_does_not_replace_it() {
    let (mut board, _) = board();
    assert_eq!(board.take_request(), None);
    board.port_out(0x501, 1, 0x10);
    board.request_stop(StopReason::Quit);
    assert_eq!(board.take_request(), Some(MachineRequest::DebugExit(0x21)));
    assert_eq!(board.take_request(), None);
    let config = BoardConfig {
        memory: 64 << 20,
        serial_ports: 1,
        debug_exit: false,
        ..BoardConfig::default()
    };
    let mut plain = Board::new(config, Arc::new(VmClock::manual(0)));
    plain.port_out(0x501, 1, 0x10);
    assert!(!plain.request_pending());
}

#[test]
fn every_port_survives_every_access() {
    let (mut board, clock) = board();
    for round in 0..3u32 {
        for port in 0..=0xffffu16 {
            for size in [1, 2, 4] {
                board.port_out(
                    port,
                    size,
                    (u32::from(port) ^ round).wrapping_mul(0x9e37_79b9),
                );
                let value = board.port_in(port, size);
                assert!(size == 4 || value >> (8 * size) == 0, "{port:#x}");
            }
        }
        clock.advance(1_000_000_007);
        board.run_timers();
    }
}

fn config_read(board: &mut Board, device: u32, function: u32, register: u32) -> u32 {
    board.port_out(
        0xcf8,
        4,
        0x8000_0000 | device << 11 | function << 8 | register,
    );
    board.port_in(0xcfc, 4)
}

#[test]
fn pci_functions_are_in_their_slots() {
    let (mut board, _) = board();
    assert_eq!(config_read(&mut board, 0, 0, 0), 0x1237_8086);
    assert_eq!(config_read(&mut board, 1, 0, 0), 0x7000_8086);
    assert_eq!(config_read(&mut board, 1, 3, 0), 0x7113_8086);
    assert_eq!(config_read(&mut board, 1, 1, 0), 0x7010_8086);
    assert_eq!(config_read(&mut board, 2, 0, 0), 0x1111_1234);
    assert_eq!(config_read(&mut board, 3, 0, 0), u32::MAX);
    assert_eq!(
        config_read(&mut board, 1, 0, 0x60),
        0x0b0b_0a0a,
        "PIRQ routing"
    );
}

#[test]
fn acpi_is_enabled_and_powers_off() {
    let (mut board, _) = board();
    assert_eq!(board.port_in(0xb004, 2) & 1, 0);
    board.port_out(0xb2, 1, 0xf1);
    assert_eq!(board.port_in(0xb004, 2) & 1, 1, "SCI_EN");
    board.port_out(0xb004, 2, 0x2001);
    assert_eq!(board.take_request(), Some(MachineRequest::PowerOff));
}

#[test]
fn the_power_management_block_follows_its_base() {
    let (mut board, clock) = board();
    clock.advance(1_000_000_000);
    assert_eq!(board.port_in(0xb008, 4), 3_579_545);
    board.port_out(0xcf8, 4, 0x8000_0b40);
    board.port_out(0xcfc, 4, 0x0000_4001);
    assert_eq!(board.port_in(0xb008, 4), u32::MAX);
    assert_eq!(board.port_in(0x4008, 4), 3_579_545);
}

#[test]
fn every_reset_register_resets() {
    for (port, value) in [(0x64, 0xfe), (0x92, 0x01), (0xcf9, 0x06)] {
        let (mut board, _) = board();
        board.port_out(port, 1, value);
        assert_eq!(
            board.take_request(),
            Some(MachineRequest::Reset),
            "{port:#x}"
        );
    }
}

#[test]
fn a20_has_two_gates() {
    let (mut board, _) = board();
    assert!(board.a20());
    for value in [0xd1, 0xdd] {
        board.port_out(if value == 0xd1 { 0x64 } else { 0x60 }, 1, value);
    }
    assert!(!board.a20());
    board.port_out(0x92, 1, 2);
    assert!(board.a20());
}

/// A board for firmware, with memory.
fn firmware_board() -> (Board, Arc<GuestRam>) {
    let config = BoardConfig {
        memory: 16 << 20,
        firmware: true,
        ..BoardConfig::default()
    };
    let mut board = Board::new(config, Arc::new(VmClock::manual(0)));
    let ram = Arc::new(GuestRam::new(16 << 20).unwrap());
    ram.set_rom((0..0x4_0000u32).map(|i| (i >> 8) as u8).collect());
    board.connect_memory(Arc::clone(&ram));
    board.take_effects();
    (board, ram)
}

fn config_write(board: &mut Board, device: u32, function: u32, offset: u32, value: u32) {
    board.port_out(0xcf8, 4, 1 << 31 | device << 11 | function << 8 | offset);
    board.port_out(0xcfc, 4, value);
}

#[test]
fn memory_routing_reaches_ram_and_back() {
    let (mut board, ram) = firmware_board();
    let byte = |pa| {
        let mut b = [0];
        ram.read(pa, &mut b);
        b[0]
    };
    assert_eq!((byte(0xf_0100), byte(0xc_0000)), (0x01, 0xff));
    let mut reset = [0];
    assert!(ram.read_rom(0xffff_fff0, &mut reset) && reset[0] == 0xff);
    assert!(!ram.read_rom(0xfffb_ffff, &mut reset) && !ram.read_rom(1 << 32, &mut reset));
    // PAM0: F0000h-FFFFFh to RAM for writes only, then for both.
    config_write(&mut board, 0, 0, 0x58, 0x2000);
    let routing = board.take_effects().routing.unwrap();
    assert_eq!(ram.route(&routing).len(), 16);
    ram.store(0xf_0100, &[0x77]);
    assert_eq!(byte(0xf_0100), 0x01);
    config_write(&mut board, 0, 0, 0x58, 0x3000);
    ram.route(&board.take_effects().routing.unwrap());
    assert_eq!(byte(0xf_0100), 0x77);
    // Read-only RAM drops writes; a reset shows the ROM again.
    config_write(&mut board, 0, 0, 0x58, 0x1000);
    ram.route(&board.take_effects().routing.unwrap());
    ram.store(0xf_0100, &[0x78]);
    assert_eq!(byte(0xf_0100), 0x77);
    ram.reset_routing();
    assert_eq!(byte(0xf_0100), 0x01);
}

#[test]
fn bus_masters_tell_of_code_and_spare_devices() {
    let (mut board, ram) = firmware_board();
    let mut disk = vec![0; 1024];
    disk[..4].copy_from_slice(b"boot");
    board.attach_disk(0, 0, Box::new(MemoryDisk::new(disk, false)));
    // Bus master at C000h, granted; one descriptor of 512 bytes at 5000h.
    config_write(&mut board, 1, 1, 0x20, 0xc000);
    config_write(&mut board, 1, 1, 0x04, 0x5);
    board.take_effects();
    let mut read = |target: u32| {
        ram.write_unwatched(0x4000, &target.to_le_bytes());
        ram.write_unwatched(0x4004, &[0, 2, 0, 0x80]);
        board.port_out(0xc004, 4, 0x4000);
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
        board.port_out(0xc000, 1, 0x09);
        let status = board.port_in(0xc002, 1);
        board.port_out(0xc000, 1, 0);
        board.port_out(0xc002, 1, 0x06);
        (status & 0x07, board.take_effects().written)
    };
    assert_eq!(read(0x5000), (0x04, vec![]));
    ram.set_attributes(0x6000, attr::CODE);
    assert_eq!(
        read(0x5f00),
        (0x04, vec![0x6000]),
        "a page with translations"
    );
    assert_eq!(read(0xa_0000).0 & 2, 2, "into the VGA window: an error");
    assert_eq!(read(0xffff_fff0).0 & 2, 2, "beyond memory: an error");
    let mut bytes = [0; 4];
    ram.read(0x5000, &mut bytes);
    assert_eq!(&bytes, b"boot");
}

#[test]
fn a_run_of_reads_is_as_one_read_after_another() {
    let disk: Vec<u8> = (0..3 * 512).map(|i| (i / 3) as u8).collect();
    let prepared = || {
        let (mut board, _) = firmware_board();
        board.attach_disk(0, 0, Box::new(MemoryDisk::new(disk.clone(), false)));
        let writes = [
            // The second 8259's initialization: vectors from 70h.
            [(0xa0, 0x11), (0xa1, 0x70), (0xa1, 2), (0xa1, 1)],
            // READ SECTORS, three from the first.
            [(0x1f2, 3), (0x1f3, 0), (0x1f6, 0xe0), (0x1f7, 0x20)],
        ];
        for (port, value) in writes.concat() {
            board.port_out(port, 1, value);
        }
        board
    };
    for size in [2, 4] {
        let (mut one, mut run) = (prepared(), prepared());
        for (port, bytes) in [(0x1f0, 1024), (0x3fd, 8), (0x1f0, 512)] {
            let expected: Vec<u8> = (0..bytes / usize::from(size))
                .flat_map(|_| one.port_in(port, size).to_le_bytes()[..usize::from(size)].to_vec())
                .collect();
            let mut data = vec![0; bytes];
            run.port_in_run(port, size, &mut data);
            assert!(data == expected, "port {port:x} by {size}");
            assert!(
                port != 0x1f0 || data != vec![0; bytes],
                "port {port:x} by {size}"
            );
            // Requests of the second 8259, and the drive's status without acknowledgement.
            one.port_out(0xa0, 1, 0x0a);
            run.port_out(0xa0, 1, 0x0a);
            assert_eq!(run.port_in(0xa0, 1), one.port_in(0xa0, 1));
            assert_eq!(run.port_in(0x3f6, 1), one.port_in(0x3f6, 1));
        }
        assert_eq!(run.port_in(0xa0, 1) & 0x40, 0x40, "the line of the channel");
    }
}

#[test]
fn a_reset_keeps_drives_and_battery_backed_memory() {
    let (mut board, _) = firmware_board();
    board.attach_disk(0, 0, Box::new(MemoryDisk::new(vec![0; 512], false)));
    board.port_out(0x70, 1, 0x50);
    board.port_out(0x71, 1, 0xa5);
    config_write(&mut board, 1, 1, 0x04, 0x5);
    board.reset();
    board.port_out(0x70, 1, 0x50);
    assert_eq!(board.port_in(0x71, 1), 0xa5);
    assert_eq!(
        board.port_in(0x1f7, 1) & 0xc0,
        0x40,
        "a drive that is ready"
    );
    assert_eq!(config_read(&mut board, 1, 1, 0x04) & 7, 0);
}

#[test]
fn the_vga_window_and_framebuffer_follow_their_decoding() {
    let (mut board, _) = firmware_board();
    let mut buf = [0; 2];
    board.mmio_write(0xe000_0000, &[1, 2]);
    config_write(&mut board, 2, 0, 0x10, 0xe000_0000);
    config_write(&mut board, 2, 0, 0x04, 2);
    board.mmio_read(0xe000_0000, &mut buf);
    assert_eq!(buf, [0, 0], "the write before decoding was lost");
    board.mmio_write(0xe000_0000, &[1, 2]);
    board.mmio_read(0xe000_0000, &mut buf);
    assert_eq!(buf, [1, 2]);
    board.mmio_read(0xe100_0000, &mut buf);
    assert_eq!(buf, [0xff, 0xff]);
}
