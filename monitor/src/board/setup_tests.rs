//! The board of a directly booted kernel is as firmware would leave it.

use super::*;
use crate::board::wiring::SMBUS_BASE;
use crate::memory::GuestRam;
use ring3_devices::block::MemoryDisk;

fn board() -> Board {
    let config = BoardConfig {
        memory: 16 << 20,
        serial_ports: 4,
        ..BoardConfig::default()
    };
    Board::new(config, Arc::new(VmClock::manual(0)))
}

#[test]
fn base_addresses_are_decoded() {
    let mut board = board();
    // The timer counts at PMBASE + 8, nothing is busy on the SMBus, the bus master is idle.
    assert_ne!(board.port_in(PM_BASE + 8, 4), u32::MAX);
    assert_eq!(board.port_in(SMBUS_BASE, 1), 0);
    assert_eq!(board.port_in(0xc002, 1) & 0x07, 0);
    // No module answers on the SMBus.
    board.port_out(SMBUS_BASE + 2, 1, 0x48);
    assert_eq!(board.port_in(SMBUS_BASE, 1), 4);
    // SCI and PIRQ lines are level-triggered.
    assert_eq!(
        (board.port_in(0x4d0, 1), board.port_in(0x4d1, 1)),
        (0, 0x0e)
    );
}

#[test]
fn isa_dma_reaches_memory_through_the_cascade() {
    let mut board = board();
    let ram = Arc::new(GuestRam::new(16 << 20).unwrap());
    board.connect_memory(Arc::clone(&ram));
    let image: Vec<u8> = (0..1_474_560u32).map(|i| (i / 512) as u8).collect();
    board.attach_floppy(0, Some(Box::new(MemoryDisk::new(image, false))));
    let out = |board: &mut Board, writes: &[(u16, u32)]| {
        for &(port, value) in writes {
            board.port_out(port, 1, value);
        }
    };
    // Channel 2 to memory at 12000h, 512 bytes; then its mask off.
    out(
        &mut board,
        &[
            (0x0a, 6),
            (0x0c, 0),
            (0x0b, 0x46),
            (0x04, 0x00),
            (0x04, 0x20),
            (0x81, 0x01),
            (0x05, 0xff),
            (0x05, 0x01),
            (0x0a, 2),
        ],
    );
    // Controller out of reset, motor on; sense the reset's four interrupts; specify with DMA.
    out(&mut board, &[(0x3f2, 0x00), (0x3f2, 0x1c)]);
    for _ in 0..4 {
        out(&mut board, &[(0x3f5, 0x08)]);
        let _ = (board.port_in(0x3f5, 1), board.port_in(0x3f5, 1));
    }
    out(&mut board, &[(0x3f5, 0x03), (0x3f5, 0xc1), (0x3f5, 0x10)]);
    // READ DATA: cylinder 0, head 1, sector 3, to the end of the track.
    for byte in [0xe6, 0x04, 0, 1, 3, 2, 18, 0x1b, 0xff] {
        board.port_out(0x3f5, 1, byte);
    }
    assert_eq!(board.port_in(0x3f4, 1) & 0xd0, 0xd0, "results wait");
    assert_eq!(board.port_in(0x3f5, 1) & 0xc0, 0, "ended well");
    let mut sector = [0; 512];
    ram.read(0x1_2000, &mut sector);
    assert_eq!(sector, [20; 512]);
}
