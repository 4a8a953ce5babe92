//! The DSDT's definition block: S5, the interrupt model, the processor, the PCI root bridge, the
//! legacy chips.

use super::aml::{
    Aml, Space, argument, device, dma, eisa_id, integer, io, irq, join, memory_fixed, memory_range,
    method, name, package, reference, resources, result, scope, store, when, word_range,
};
use super::tables::AcpiHardware;

/// Bytes that the HPET decodes.
const HPET_WINDOW: u32 = 0x400;

/// The definition block's terms.
pub fn definition_block(hw: &AcpiHardware) -> Aml {
    join([
        sleep_state(),
        // The operating system tells which interrupt model it uses: 0 8259s, 1 APIC. 5.8.1.
        name("PICF", integer(0)),
        method("_PIC", 1, store(argument(0), reference("PICF"))),
        scope("\\_SB", join([processor(), root_bridge(hw), hpet(hw)])),
    ])
}

/// The processor, as the MADT numbers it. 8.4.
fn processor() -> Aml {
    device(
        "CPU0",
        join([name("_HID", string("ACPI0007")), name("_UID", integer(0))]),
    )
}

fn string(text: &str) -> Aml {
    [&[0x0d], text.as_bytes(), &[0]].concat()
}

/// IA-PC HPET specification 1.0a, 3.2.5.
fn hpet(hw: &AcpiHardware) -> Aml {
    device(
        "HPET",
        join([
            name("_HID", eisa_id("PNP0103")),
            name("_UID", integer(0)),
            name(
                "_CRS",
                resources([memory_fixed(hw.hpet, HPET_WINDOW, false)]),
            ),
        ]),
    )
}

/// `\_S5`: the SLP_TYP values that PM1a and PM1b take for soft off (PIIX4: 0). 7.4.2.
fn sleep_state() -> Aml {
    name("\\_S5", package(vec![integer(0); 4]))
}

fn root_bridge(hw: &AcpiHardware) -> Aml {
    let windows = [
        word_range(Space::Bus, 0, 0xff),
        io(0xcf8, 8),
        word_range(Space::Io, 0, 0x0cf7),
        word_range(Space::Io, 0x0d00, 0xffff),
        memory_range(0xa_0000, 0xb_ffff, true),
        memory_range(hw.pci_memory.0, hw.pci_memory.1, false),
    ];
    device(
        "PCI0",
        join([
            name("_HID", eisa_id("PNP0A03")),
            name("_UID", integer(0)),
            name("_BBN", integer(0)),
            name("_CRS", resources(windows)),
            name("PRTP", routing(&hw.pirq_irqs)),
            name("PRTA", routing(&hw.apic.pirq_pins)),
            method(
                "_PRT",
                0,
                join([
                    when(reference("PICF"), result(reference("PRTA"))),
                    result(reference("PRTP")),
                ]),
            ),
            device(
                "ISA",
                join([
                    name("_ADR", integer(u64::from(hw.isa_bridge_slot) << 16)),
                    legacy(hw),
                ]),
            ),
        ]),
    )
}

/// A routing table: pin `p` (0-3) of slot `s` is wired to PIRQ line `(s - 1 + p) mod 4`, which
/// drives a fixed interrupt. Each entry: address, pin, source 0 (a fixed interrupt), its number.
/// 6.2.13.
fn routing(interrupts: &[u8; 4]) -> Aml {
    let entry = |slot: u32, pin: u32| {
        let line = interrupts[((slot + 3 + pin) & 3) as usize];
        package(vec![
            integer(u64::from(slot << 16 | 0xffff)),
            integer(u64::from(pin)),
            integer(0),
            integer(u64::from(line)),
        ])
    };
    package(
        (1..32)
            .flat_map(|slot| (0..4).map(move |pin| entry(slot, pin)))
            .collect(),
    )
}

fn legacy(hw: &AcpiHardware) -> Aml {
    let chip = |n: &str, hid: &str, res: Vec<Aml>| {
        device(
            n,
            join([name("_HID", eisa_id(hid)), name("_CRS", resources(res))]),
        )
    };
    let mut out = vec![
        chip("RTC", "PNP0B00", vec![io(0x70, 2), irq(8)]),
        chip("KBD", "PNP0303", vec![io(0x60, 1), io(0x64, 1), irq(1)]),
        chip("MOU", "PNP0F13", vec![irq(12)]),
        chip(
            "FDC0",
            "PNP0700",
            vec![io(0x3f2, 4), io(0x3f7, 1), irq(6), dma(2)],
        ),
        chip("LPT", "PNP0400", vec![io(0x378, 3), irq(7)]),
    ];
    for (i, &(port, line)) in hw.serial_ports.iter().enumerate() {
        let number = i as u64 + 1;
        out.push(device(
            &format!("COM{number}"),
            join([
                name("_HID", eisa_id("PNP0501")),
                name("_UID", integer(number)),
                name("_CRS", resources([io(port, 8), irq(line)])),
            ]),
        ));
    }
    join(out)
}
