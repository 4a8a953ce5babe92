//! Register-level tests of PCI configuration. PCI Local Bus Specification 2.1, chapter 6 and 3.7.4.1
//! (mechanism 1); 440FX datasheet (290549), 3.2; PIIX3 datasheet (290550), 2.2; PIIX4 datasheet
//! (290562), 7.1.

use super::config::reg;
use super::*;

struct Board {
    host: HostBridge,
    isa: IsaBridge,
    pm: PowerManagement,
}

impl PciSlots for Board {
    fn function(&mut self, at: Address) -> Option<&mut dyn PciFunction> {
        match (at.bus, at.device, at.function) {
            (0, 0, 0) => Some(&mut self.host),
            (0, 1, 0) => Some(&mut self.isa),
            (0, 1, 3) => Some(&mut self.pm),
            _ => None,
        }
    }
}

fn board() -> (ConfigPorts, Board) {
    let board = Board {
        host: HostBridge::new(),
        isa: IsaBridge::new(),
        pm: PowerManagement::new(),
    };
    (ConfigPorts::default(), board)
}

fn select(ports: &mut ConfigPorts, board: &mut Board, device: u32, function: u32, register: u32) {
    ports.write(
        0,
        4,
        0x8000_0000 | device << 11 | function << 8 | register,
        board,
    );
}

#[test]
fn mechanism_1_finds_functions_and_reads_ones_elsewhere() {
    let (mut ports, mut board) = board();
    for (device, function, id) in [
        (0, 0, 0x1237_8086),
        (1, 0, 0x7000_8086),
        (1, 3, 0x7113_8086),
        (2, 0, u32::MAX),
    ] {
        select(&mut ports, &mut board, device, function, 0);
        assert_eq!(ports.read(4, 4, &mut board), id);
    }
    assert_eq!(ports.read(0, 4, &mut board), 0x8000_1000);
    ports.write(0, 4, 0, &mut board);
    assert_eq!(ports.read(4, 4, &mut board), u32::MAX, "not enabled");
}

#[test]
fn byte_lanes_of_the_data_port_select_bytes() {
    let (mut ports, mut board) = board();
    select(&mut ports, &mut board, 0, 0, 0);
    assert_eq!(ports.read(6, 2, &mut board), 0x1237);
    assert_eq!(ports.read(5, 1, &mut board), 0x80);
    assert_eq!(
        ports.read(7, 2, &mut board),
        0xffff,
        "crosses the doubleword"
    );
    select(&mut ports, &mut board, 0, 0, 0x58);
    ports.write(5, 1, 0x30, &mut board);
    assert!(board.host.pam(0).read_ram);
    assert_eq!(ports.read(4, 4, &mut board), 0x3000);
}

#[test]
fn pam_registers_route_their_regions() {
    let mut host = HostBridge::new();
    assert!(host.take_memory_map_changed() && !host.take_memory_map_changed());
    host.write_config(0x5a, 1, 0x31);
    assert!(host.take_memory_map_changed());
    assert_eq!(
        host.pam(1),
        MemoryAttribute {
            read_ram: true,
            write_ram: false
        }
    );
    assert_eq!(
        host.pam(2),
        MemoryAttribute {
            read_ram: true,
            write_ram: true
        }
    );
    assert_eq!(
        host.pam(3),
        MemoryAttribute {
            read_ram: false,
            write_ram: false
        }
    );
    host.write_config(0x5f, 1, 0x20);
    assert!(host.pam(12).write_ram && !host.pam(11).write_ram);
    let total: u32 = PAM_REGIONS.iter().map(|(_, size)| size).sum();
    assert_eq!(total, 0x4_0000);
}

#[test]
fn smram_lock_closes_and_freezes() {
    let mut host = HostBridge::new();
    host.write_config(0x72, 1, 0x48);
    assert_eq!(host.smram(), Smram::Open);
    host.write_config(0x72, 1, 0x58);
    assert_eq!(host.smram(), Smram::InSmm);
    host.write_config(0x72, 1, 0x40);
    assert_eq!(host.smram(), Smram::InSmm);
}

#[test]
fn pirq_routing_follows_the_registers() {
    let mut isa = IsaBridge::new();
    assert_eq!(isa.asserted([true; 4]), 0);
    isa.write_config(0x60, 4, 0x0d0b_0b0a);
    assert_eq!(
        (isa.route(0), isa.route(1), isa.route(3)),
        (Some(10), Some(11), None)
    );
    assert_eq!(isa.asserted([false, true, true, true]), 1 << 11);
    assert_eq!(
        (pirq(1, 0), pirq(3, 0), pirq(4, 3), pirq(0, 0)),
        (0, 2, 2, 3)
    );
}

#[test]
fn reset_control_needs_a_rising_trigger() {
    let (mut ports, mut board) = board();
    ports.write(1, 1, 0x02, &mut board);
    assert_eq!(ports.take_reset_request(), None);
    ports.write(1, 1, 0x06, &mut board);
    assert_eq!(ports.take_reset_request(), Some(Reset::Hard));
    ports.write(1, 1, 0x00, &mut board);
    ports.write(1, 1, 0x04, &mut board);
    assert_eq!(ports.take_reset_request(), Some(Reset::Soft));
}

#[test]
fn pmbase_is_decoded_when_enabled() {
    let mut pm = PowerManagement::new();
    pm.write_config(0x40, 4, 0xb03f);
    assert_eq!(pm.config().read(0x40, 4), 0xb001);
    assert_eq!(pm.pm_base(), None);
    pm.write_config(0x80, 1, 0xff);
    assert_eq!(pm.pm_base(), Some(0xb000));
    pm.set_pm_base(0x600);
    assert_eq!(pm.pm_base(), Some(0x600));
}

#[test]
fn base_addresses_size_and_map() {
    let id = Identity {
        vendor: 1,
        device: 2,
        revision: 0,
        class: 0x03_00_00,
    };
    let mut space = ConfigSpace::new(id);
    space.set_bar(
        0,
        Bar::Memory {
            size: 0x100_0000,
            prefetchable: true,
        },
    );
    space.set_bar(1, Bar::Io { size: 16 });
    space.set_bar(6, Bar::Rom { size: 0x1_0000 });
    for (at, sizing) in [
        (0x10, 0xff00_0008),
        (0x14, 0xffff_fff1),
        (0x30, 0xffff_0001),
    ] {
        space.write(at, 4, u32::MAX);
        assert_eq!(space.read(at, 4), sizing);
    }
    space.write(reg::COMMAND, 2, 7);
    assert_eq!(space.mapping(0), None, "sizing is no mapping");
    space.write(0x10, 4, 0xe000_0000);
    space.write(0x14, 4, 0xc000);
    space.write(0x30, 4, 0xf000_0001);
    assert_eq!(space.mapping(0), Some((0xe000_0000, 0x100_0000)));
    assert_eq!(space.mapping(1), Some((0xc000, 16)));
    assert_eq!(space.mapping(6), Some((0xf000_0000, 0x1_0000)));
    space.write(reg::COMMAND, 2, 4);
    assert_eq!(
        (space.mapping(0), space.mapping(1), space.bus_master()),
        (None, None, true)
    );
}

#[test]
fn status_bits_clear_by_writing_ones() {
    let mut pm = PowerManagement::new();
    pm.config_mut().set_u16(reg::STATUS, 0x2280);
    pm.write_config(reg::STATUS, 2, 0xffff);
    assert_eq!(pm.config().u16(reg::STATUS), 0x0280);
}
