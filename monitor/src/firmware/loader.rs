//! The ACPI tables as firmware places them: a blob, and commands that allocate it, add its address
//! to pointers, and make checksums. SeaBIOS `src/fw/romfile_loader.h`.

use crate::acpi::{self, AcpiHardware};

const TABLES: &str = "etc/acpi/tables";
const RSDP: &str = "etc/acpi/rsdp";

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
const ZONE_HIGH: u8 = 1;
const ZONE_FSEG: u8 = 2;
/// Bytes of a command.
const COMMAND: usize = 128;

fn command(kind: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    parts.iter().for_each(|part| bytes.extend(*part));
    bytes.resize(COMMAND, 0);
    bytes
}

fn name(text: &str) -> [u8; 56] {
    let mut field = [0; 56];
    field[..text.len()].copy_from_slice(text.as_bytes());
    field
}

fn allocate(file: &str, align: u32, zone: u8) -> Vec<u8> {
    command(ALLOCATE, &[&name(file), &align.to_le_bytes(), &[zone]])
}

fn add_pointer(file: &str, offset: u32) -> Vec<u8> {
    command(
        ADD_POINTER,
        &[&name(file), &name(TABLES), &offset.to_le_bytes(), &[4]],
    )
}

fn add_checksum(file: &str, at: u32, start: u32, len: u32) -> Vec<u8> {
    command(
        ADD_CHECKSUM,
        &[
            &name(file),
            &at.to_le_bytes(),
            &start.to_le_bytes(),
            &len.to_le_bytes(),
        ],
    )
}

/// The offsets of 32-bit physical addresses in a table. ACPI 6.5, 5.2.9 (FADT) and 5.2.7 (RSDT).
fn pointers(table: &[u8]) -> Vec<usize> {
    match table.get(..4) {
        Some(b"FACP") => vec![36, 40],
        Some(b"RSDT") => (36..table.len()).step_by(4).collect(),
        _ => Vec::new(),
    }
}

/// The files, by name.
pub(super) fn files(hw: &AcpiHardware) -> [(&'static str, Vec<u8>); 3] {
    let image = acpi::build(hw);
    let base = image
        .parts
        .iter()
        .map(|p| p.0)
        .filter(|at| *at != image.rsdp)
        .min()
        .unwrap_or(image.rsdp);
    let (mut blob, mut rsdp) = (Vec::new(), Vec::new());
    let mut script = vec![
        allocate(TABLES, 64, ZONE_HIGH),
        allocate(RSDP, 16, ZONE_FSEG),
    ];
    let relative = |table: &mut [u8], at: usize| {
        if let Some(field) = table.get_mut(at..at + 4)
            && let Ok(bytes) = <[u8; 4]>::try_from(&*field)
        {
            field.copy_from_slice(&u32::from_le_bytes(bytes).wrapping_sub(base).to_le_bytes());
        }
    };
    for (at, data) in image.parts {
        let mut data = data;
        if at == image.rsdp {
            relative(&mut data, 16);
            script.push(add_pointer(RSDP, 16));
            script.push(add_checksum(RSDP, 8, 0, 20));
            rsdp = data;
            continue;
        }
        let offset = at - base;
        for pointer in pointers(&data) {
            relative(&mut data, pointer);
            script.push(add_pointer(TABLES, offset + pointer as u32));
        }
        // The FACS has no checksum.
        if !data.starts_with(b"FACS") {
            script.push(add_checksum(TABLES, offset + 9, offset, data.len() as u32));
        }
        blob.resize(offset as usize, 0);
        blob.extend(data);
    }
    [
        (TABLES, blob),
        (RSDP, rsdp),
        ("etc/table-loader", script.concat()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Board, BoardConfig};
    use crate::clock::VmClock;
    use std::sync::Arc;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Carries the script out as firmware would, with the blob at `base`.
    fn place(base: u32) -> (Vec<u8>, Vec<u8>) {
        let config = BoardConfig {
            memory: 64 << 20,
            firmware: true,
            ..BoardConfig::default()
        };
        let board = Board::new(config, Arc::new(VmClock::manual(0)));
        let [(_, mut blob), (_, mut rsdp), (_, script)] = files(&board.acpi_hardware());
        for c in script.chunks(COMMAND) {
            let in_rsdp = c[4..4 + RSDP.len()] == *RSDP.as_bytes() && c[4 + RSDP.len()] == 0;
            let file = if in_rsdp { &mut rsdp } else { &mut blob };
            match word(c, 0) {
                ADD_POINTER => {
                    let at = word(c, 116) as usize;
                    let value = word(file, at).wrapping_add(base);
                    file[at..at + 4].copy_from_slice(&value.to_le_bytes());
                }
                ADD_CHECKSUM => {
                    let (at, start, len) = (
                        word(c, 60) as usize,
                        word(c, 64) as usize,
                        word(c, 68) as usize,
                    );
                    let sum = file[start..start + len]
                        .iter()
                        .fold(0u8, |s, b| s.wrapping_add(*b));
                    file[at] = file[at].wrapping_sub(sum);
                }
                _ => {}
            }
        }
        (blob, rsdp)
    }

    #[test]
    fn placed_tables_are_linked_and_sum_to_zero() {
        const BASE: u32 = 0x1ff_0000;
        let (blob, rsdp) = place(BASE);
        let table = |address: u32| {
            let at = (address - BASE) as usize;
            &blob[at..at + word(&blob, at + 4) as usize]
        };
        let sum = |t: &[u8]| t.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        assert_eq!((&rsdp[..8], sum(&rsdp)), (&b"RSD PTR "[..], 0));
        let rsdt = table(word(&rsdp, 16));
        assert_eq!((&rsdt[..4], sum(rsdt)), (&b"RSDT"[..], 0));
        let fadt = table(word(rsdt, 36));
        assert_eq!((&fadt[..4], sum(fadt)), (&b"FACP"[..], 0));
        let (facs, dsdt) = (table(word(fadt, 36)), table(word(fadt, 40)));
        assert_eq!(
            (&facs[..4], &dsdt[..4], sum(dsdt)),
            (&b"FACS"[..], &b"DSDT"[..], 0)
        );
        assert!(word(fadt, 36).is_multiple_of(64));
        assert_eq!(
            word(fadt, 56),
            0x600,
            "where firmware puts the power management ports"
        );
    }
}
