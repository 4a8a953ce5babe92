//! The fixed tables and their places. ACPI 6.5, 5.2.

use super::dsdt::definition_block;
use crate::linux::{GuestMemory, OutOfMemory};

/// Guest physical addresses that the tables may use: firmware's area, which the memory map
/// reserves and where a guest searches for the RSDP.
pub const AREA: core::ops::Range<u32> = 0xe_0000..0xf_0000;

const OEM_ID: &[u8; 6] = b"RING3 ";
const OEM_TABLE_ID: &[u8; 8] = b"RING3PC ";
const CREATOR_ID: &[u8; 4] = b"RNG3";
const REVISION: u32 = 1;

/// FADT flags. 5.2.9, table 5.10.
const WBINVD: u32 = 1 << 0;
const PROC_C1: u32 = 1 << 2;
const SLP_BUTTON: u32 = 1 << 5;
const RTC_S4: u32 = 1 << 7;
const RESET_REG_SUP: u32 = 1 << 10;
const USE_PLATFORM_CLOCK: u32 = 1 << 15;

/// IAPC_BOOT_ARCH: legacy devices, 8042.
const BOOT_ARCH: u16 = 0b11;

/// The APICs, as the tables describe them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApicHardware {
    /// Physical address of the local APIC.
    pub local: u32,
    /// Physical address of the I/O APIC.
    pub io: u32,
    /// The I/O APIC's id.
    pub io_id: u8,
    /// I/O APIC input of the system timer's line; other lines have the input of their number.
    pub timer_pin: u8,
    /// I/O APIC inputs of PIRQ A-D.
    pub pirq_pins: [u8; 4],
}

/// What the tables say about the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiHardware {
    /// First port of the power-management registers (PMBASE).
    pub pm_base: u16,
    /// The system control interrupt's 8259 line.
    pub sci_irq: u8,
    /// SMI command port, and the values that turn ACPI on and off; `None` if ACPI is always on.
    pub smi_command: Option<(u16, u8, u8)>,
    /// Reset register port and the value that resets.
    pub reset: (u16, u8),
    /// Slot of the ISA bridge on bus 0.
    pub isa_bridge_slot: u8,
    /// 8259 lines of PIRQ A-D.
    pub pirq_irqs: [u8; 4],
    /// First and last address of the PCI memory window.
    pub pci_memory: (u32, u32),
    /// First port and 8259 line of each serial port.
    pub serial_ports: Vec<(u16, u8)>,
    /// CMOS index of the century byte, 0 if none.
    pub century: u8,
    /// The APICs.
    pub apic: ApicHardware,
    /// Physical address of the HPET.
    pub hpet: u32,
}

/// The tables as bytes for guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiImage {
    /// Physical address of the RSDP.
    pub rsdp: u32,
    /// (physical address, bytes) of each table, all within [`AREA`].
    pub parts: Vec<(u32, Vec<u8>)>,
}

impl AcpiImage {
    /// Puts the tables into guest memory.
    /// # Errors
    /// [`OutOfMemory`] if the guest has less than 1 MiB of RAM.
    pub fn write_to(&self, memory: &dyn GuestMemory) -> Result<(), OutOfMemory> {
        self.parts
            .iter()
            .try_for_each(|(at, data)| memory.write(u64::from(*at), data))
    }
}

/// Assembles the tables.
#[must_use]
pub fn build(hw: &AcpiHardware) -> AcpiImage {
    let mut next = AREA.start + 0x40;
    let mut parts = Vec::new();
    let mut place = |data: Vec<u8>, align: u32| {
        let at = next.next_multiple_of(align);
        next = at + data.len() as u32;
        parts.push((at, data));
        at
    };
    let facs_at = place(facs(), 64);
    let dsdt_at = place(table(b"DSDT", 1, &definition_block(hw)), 16);
    let fadt_at = place(fadt(hw, facs_at, dsdt_at), 16);
    let madt_at = place(madt(hw), 16);
    let hpet_at = place(hpet(hw), 16);
    let entries = [fadt_at, madt_at, hpet_at].map(u32::to_le_bytes);
    let rsdt_at = place(table(b"RSDT", 1, &entries.concat()), 16);
    debug_assert!(next <= AREA.end);
    parts.push((AREA.start, rsdp(rsdt_at)));
    AcpiImage {
        rsdp: AREA.start,
        parts,
    }
}

/// The byte that makes the sum of `data` zero.
fn checksum(data: &[u8]) -> u8 {
    data.iter()
        .fold(0u8, |sum, &b| sum.wrapping_add(b))
        .wrapping_neg()
}

/// A table: the common header (5.2.6) and a body.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut t = Vec::with_capacity(36 + body.len());
    t.extend(signature);
    t.extend((36 + body.len() as u32).to_le_bytes());
    t.extend([revision, 0]);
    t.extend(OEM_ID);
    t.extend(OEM_TABLE_ID);
    t.extend(REVISION.to_le_bytes());
    t.extend(CREATOR_ID);
    t.extend(REVISION.to_le_bytes());
    t.extend(body);
    t[9] = checksum(&t);
    t
}

/// Root System Description Pointer, revision 0. 5.2.5.3.
fn rsdp(rsdt: u32) -> Vec<u8> {
    let mut t = Vec::with_capacity(20);
    t.extend(b"RSD PTR ");
    t.push(0);
    t.extend(OEM_ID);
    t.push(0);
    t.extend(rsdt.to_le_bytes());
    t[8] = checksum(&t);
    t
}

/// Firmware ACPI Control Structure, version 1; no checksum. 5.2.10.
fn facs() -> Vec<u8> {
    let mut t = vec![0u8; 64];
    t[0..4].copy_from_slice(b"FACS");
    t[4..8].copy_from_slice(&64u32.to_le_bytes());
    t[32] = 1;
    t
}

/// A Generic Address Structure in port space. 5.2.3.2.
fn port_gas(port: u16, bits: u8, access: u8) -> [u8; 12] {
    let [lo, hi] = port.to_le_bytes();
    [1, bits, 0, access, lo, hi, 0, 0, 0, 0, 0, 0]
}

/// Fixed ACPI Description Table, revision 3 (244 bytes). 5.2.9.
fn fadt(hw: &AcpiHardware, facs: u32, dsdt: u32) -> Vec<u8> {
    let mut t = vec![0u8; 244 - 36];
    // Offsets are the specification's: from the start of the table, header included.
    let mut put = |at: usize, data: &[u8]| t[at - 36..at - 36 + data.len()].copy_from_slice(data);
    put(36, &facs.to_le_bytes());
    put(40, &dsdt.to_le_bytes());
    put(46, &u16::from(hw.sci_irq).to_le_bytes());
    if let Some((port, enable, disable)) = hw.smi_command {
        put(48, &u32::from(port).to_le_bytes());
        put(52, &[enable, disable]);
    }
    let (event, control, timer) = (hw.pm_base, hw.pm_base + 4, hw.pm_base + 8);
    put(56, &u32::from(event).to_le_bytes());
    put(64, &u32::from(control).to_le_bytes());
    put(76, &u32::from(timer).to_le_bytes());
    put(88, &[4, 2, 0, 4]); // PM1_EVT_LEN, PM1_CNT_LEN, PM2_CNT_LEN, PM_TMR_LEN
    put(96, &0x0fffu16.to_le_bytes()); // P_LVL2_LAT: no C2
    put(98, &0x0fffu16.to_le_bytes()); // P_LVL3_LAT: no C3
    put(108, &[hw.century]);
    put(109, &BOOT_ARCH.to_le_bytes());
    put(
        112,
        &(WBINVD | PROC_C1 | SLP_BUTTON | RTC_S4 | RESET_REG_SUP | USE_PLATFORM_CLOCK)
            .to_le_bytes(),
    );
    put(116, &port_gas(hw.reset.0, 8, 1));
    put(128, &[hw.reset.1]);
    put(148, &port_gas(event, 32, 2));
    put(172, &port_gas(control, 16, 2));
    put(208, &port_gas(timer, 32, 3));
    table(b"FACP", 3, &t)
}

/// Multiple APIC Description Table. 5.2.12.
fn madt(hw: &AcpiHardware) -> Vec<u8> {
    /// Interrupt inputs: active high, level-triggered.
    const LEVEL_HIGH: u16 = 0x000d;
    let mut t = hw.apic.local.to_le_bytes().to_vec();
    t.extend(1u32.to_le_bytes()); // PCAT_COMPAT: there are 8259s as well
    t.extend([0, 8, 0, 0, 1, 0, 0, 0]); // processor 0, local APIC 0, enabled
    t.extend([1, 12, hw.apic.io_id, 0]);
    t.extend(hw.apic.io.to_le_bytes());
    t.extend(0u32.to_le_bytes()); // its first global interrupt
    let mut redirect = |line: u8, to: u8, flags: u16| {
        t.extend([2, 10, 0, line]);
        t.extend(u32::from(to).to_le_bytes());
        t.extend(flags.to_le_bytes());
    };
    redirect(0, hw.apic.timer_pin, 0);
    redirect(hw.sci_irq, hw.sci_irq, LEVEL_HIGH);
    // NMI on LINT1 of every processor.
    t.extend([4, 6, 0xff, 0, 0, 1]);
    table(b"APIC", 1, &t)
}

/// IA-PC HPET specification 1.0a, 3.2.4.
fn hpet(hw: &AcpiHardware) -> Vec<u8> {
    // Revision 1, three comparators, 64 bits, legacy replacement, Intel.
    let mut t = 0x8086_a201u32.to_le_bytes().to_vec();
    t.extend([0, 64, 0, 0]); // in memory
    t.extend(u64::from(hw.hpet).to_le_bytes());
    t.push(0); // its number
    t.extend(100u16.to_le_bytes()); // least ticks in periodic mode without loss
    t.push(0); // no page protection
    table(b"HPET", 1, &t)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hardware() -> AcpiHardware {
        AcpiHardware {
            pm_base: 0xb000,
            sci_irq: 9,
            smi_command: Some((0xb2, 0xf1, 0xf0)),
            reset: (0xcf9, 0x06),
            isa_bridge_slot: 1,
            pirq_irqs: [10, 10, 11, 11],
            pci_memory: (0xe000_0000, 0xfebf_ffff),
            serial_ports: vec![(0x3f8, 4), (0x2f8, 3)],
            century: 0x32,
            apic: ApicHardware {
                local: 0xfee0_0000,
                io: 0xfec0_0000,
                io_id: 0,
                timer_pin: 2,
                pirq_pins: [16, 17, 18, 19],
            },
            hpet: 0xfed0_0000,
        }
    }

    fn part(image: &AcpiImage, at: u32) -> Vec<u8> {
        image
            .parts
            .iter()
            .find(|p| p.0 == at)
            .expect("a table at this address")
            .1
            .clone()
    }

    fn u32_at(t: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(t[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn every_pointer_leads_to_a_valid_table() {
        let image = build(&hardware());
        let sum = |t: &[u8]| t.iter().fold(0u8, |s, &b| s.wrapping_add(b));
        let rsdp = part(&image, image.rsdp);
        assert_eq!(
            (&rsdp[..8], sum(&rsdp), image.rsdp % 16),
            (&b"RSD PTR "[..], 0, 0)
        );
        let rsdt = part(&image, u32_at(&rsdp, 16));
        assert_eq!((&rsdt[..4], sum(&rsdt)), (&b"RSDT"[..], 0));
        let fadt = part(&image, u32_at(&rsdt, 36));
        assert_eq!((&fadt[..4], sum(&fadt), fadt.len()), (&b"FACP"[..], 0, 244));
        let facs = part(&image, u32_at(&fadt, 36));
        assert_eq!((&facs[..4], u32_at(&fadt, 36) % 64), (&b"FACS"[..], 0));
        let dsdt = part(&image, u32_at(&fadt, 40));
        assert_eq!((&dsdt[..4], sum(&dsdt)), (&b"DSDT"[..], 0));
        let madt = part(&image, u32_at(&rsdt, 40));
        assert_eq!((&madt[..4], sum(&madt)), (&b"APIC"[..], 0));
        let hpet = part(&image, u32_at(&rsdt, 44));
        assert_eq!((&hpet[..4], sum(&hpet), hpet.len()), (&b"HPET"[..], 0, 56));
        for t in [&rsdt, &fadt, &dsdt, &madt, &hpet] {
            assert_eq!(u32_at(t, 4) as usize, t.len());
        }
    }

    #[test]
    fn tables_do_not_overlap_and_stay_in_their_area() {
        let mut parts = build(&hardware()).parts;
        parts.sort();
        for pair in parts.windows(2) {
            assert!(pair[0].0 + pair[0].1.len() as u32 <= pair[1].0);
        }
        let last = parts.last().unwrap();
        assert!(parts[0].0 >= AREA.start && last.0 + last.1.len() as u32 <= AREA.end);
    }

    /// Writes the tables where `iasl -d` can read them, if a directory is given.
    #[test]
    fn tables_can_be_written_for_the_disassembler() {
        let Some(dir) = std::env::var_os("RING3_ACPI_DUMP") else {
            return;
        };
        for (_, data) in build(&hardware()).parts {
            let file = format!("{}.aml", String::from_utf8_lossy(&data[..4]).trim());
            std::fs::write(std::path::Path::new(&dir).join(file), data).unwrap();
        }
    }
}
