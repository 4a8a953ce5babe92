//! The tables of the MultiProcessor Specification 1.4, chapter 4, for guests that know no ACPI and
//! start without firmware. (Firmware makes its own.)

use crate::acpi::AcpiHardware;

/// Bytes of the floating pointer structure.
const POINTER: u32 = 16;
/// Bytes of the configuration table's header.
const HEADER: usize = 44;
/// ISA lines; line 2 is the 8259's cascade.
const LINES: u8 = 16;
const ISA_BUS: u8 = 1;
const PCI_BUS: u8 = 0;
/// Interrupt types.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXTINT: u8 = 3;
/// Interrupt flags: as the bus has it; active high and level-triggered.
const CONFORMS: u16 = 0;
const LEVEL_HIGH: u16 = 0x000d;

/// The floating pointer and the table, for memory at `at`: a multiple of 16 in the last 64 KiB
/// below 1 MiB. `processor`: CPUID.1 EAX and EDX.
#[must_use]
pub fn build(hw: &AcpiHardware, processor: [u32; 2], at: u32) -> Vec<u8> {
    let mut entries = Vec::new();
    // 4.3.1: local APIC 0, enabled, the bootstrap processor.
    let mut cpu = vec![0, 0, 0x14, 3];
    cpu.extend(processor[0].to_le_bytes());
    cpu.extend(processor[1].to_le_bytes());
    cpu.extend([0; 8]);
    entries.push(cpu);
    for (id, name) in [(PCI_BUS, b"PCI   "), (ISA_BUS, b"ISA   ")] {
        let mut bus = vec![1, id];
        bus.extend(name);
        entries.push(bus);
    }
    let mut io_apic = vec![2, hw.apic.io_id, 0x11, 1];
    io_apic.extend(hw.apic.io.to_le_bytes());
    entries.push(io_apic);
    let interrupt = |entry: u8, kind: u8, flags: u16, bus: u8, line: u8, to: u8, pin: u8| {
        let [low, high] = flags.to_le_bytes();
        vec![entry, kind, low, high, bus, line, to, pin]
    };
    for line in (0..LINES).filter(|line| *line != 2) {
        let (pin, flags) = match line {
            0 => (hw.apic.timer_pin, CONFORMS),
            _ if line == hw.sci_irq => (line, LEVEL_HIGH),
            _ => (line, CONFORMS),
        };
        entries.push(interrupt(3, INT, flags, ISA_BUS, line, hw.apic.io_id, pin));
    }
    // A PCI source is its slot and pin; pin p of slot s is wired to PIRQ (s - 1 + p) mod 4.
    for slot in 1..32u8 {
        for pin in 0..4u8 {
            let to = hw.apic.pirq_pins[usize::from((slot + 3 + pin) & 3)];
            let source = slot << 2 | pin;
            entries.push(interrupt(
                3,
                INT,
                LEVEL_HIGH,
                PCI_BUS,
                source,
                hw.apic.io_id,
                to,
            ));
        }
    }
    entries.push(interrupt(4, EXTINT, CONFORMS, ISA_BUS, 0, 0xff, 0));
    entries.push(interrupt(4, NMI, CONFORMS, ISA_BUS, 0, 0xff, 1));

    let mut table = b"PCMP".to_vec();
    let length = HEADER + entries.iter().map(Vec::len).sum::<usize>();
    table.extend((length as u16).to_le_bytes());
    table.extend([4, 0]);
    table.extend(b"RING3   ");
    table.extend(b"RING3PC     ");
    table.extend([0; 6]);
    table.extend((entries.len() as u16).to_le_bytes());
    table.extend(hw.apic.local.to_le_bytes());
    table.extend([0; 4]);
    table.extend(entries.concat());
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
    table[7] = sum(&table).wrapping_neg();

    let mut all = b"_MP_".to_vec();
    all.extend((at + POINTER).to_le_bytes());
    all.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    all[10] = sum(&all).wrapping_neg();
    all.extend(table);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Board, BoardConfig};
    use crate::clock::VmClock;
    use std::sync::Arc;

    #[test]
    fn sums_are_zero_and_entries_fill_the_table() {
        let board = Board::new(BoardConfig::default(), Arc::new(VmClock::manual(0)));
        let all = build(&board.acpi_hardware(), [0x623, 0x1ff], 0xf_1000);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        assert_eq!((&all[..4], sum(&all[..16])), (&b"_MP_"[..], 0));
        assert_eq!(all[4..8], 0xf_1010u32.to_le_bytes());
        let table = &all[16..];
        let length = usize::from(u16::from_le_bytes([table[4], table[5]]));
        assert_eq!((length, sum(table)), (table.len(), 0));
        let (mut at, mut count) = (HEADER, 0);
        while at < length {
            at += if table[at] == 0 { 20 } else { 8 };
            count += 1;
        }
        assert_eq!(
            (at, count),
            (length, u16::from_le_bytes([table[34], table[35]]))
        );
    }
}
