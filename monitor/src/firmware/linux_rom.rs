//! An option ROM that starts a Linux kernel under firmware: a bootstrap entry vector that fetches
//! the parts by the configuration device's DMA and jumps to the kernel's 16-bit entry.
//!
//! Plug and Play BIOS Specification 1.0A, 3.2 (option ROM header); QEMU documentation, "QEMU
//! Firmware Configuration (fw_cfg) Device" (DMA); Linux `Documentation/arch/x86/boot.rst`, "Running
//! the Kernel".

use super::FirmwareError;
use crate::linux::{CMDLINE_AT, KERNEL_AT, RealModeKernel, SETUP_AT};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use ring3_devices::fw_cfg::{FwCfg, key};

/// The file by which firmware finds the ROM.
const FILE: &str = "genroms/linuxboot.bin";
/// What the boot order calls it.
pub(super) const BOOT_PATH: &str = "/rom@genroms/linuxboot.bin";

/// Where the Plug and Play header is.
const PNP_AT: usize = 0x20;
/// Where its strings are.
const MAKER_AT: usize = 0x40;
const PRODUCT_AT: usize = 0x48;
/// Where the transfers are: 16 bytes each, as the device takes them.
const TABLE_AT: usize = 0x60;
/// Bytes of a transfer.
const TRANSFER: usize = 16;
/// Ports of the DMA address: high half, low half.
const DMA_HIGH: u32 = 0x514;
const DMA_LOW: u32 = 0x518;
/// DMA control: select the item in the upper half, and read.
const SELECT_AND_READ: u32 = 0x0a;
const SETUP_SEGMENT: u32 = SETUP_AT >> 4;

/// Puts kernel and ROM where firmware finds them.
pub(super) fn add(fw_cfg: &mut FwCfg, kernel: &RealModeKernel) -> Result<(), FirmwareError> {
    let mut items = vec![
        (
            [key::SETUP_ADDRESS, key::SETUP_SIZE, key::SETUP_DATA],
            SETUP_AT,
            &kernel.setup,
        ),
        (
            [key::CMDLINE_ADDRESS, key::CMDLINE_SIZE, key::CMDLINE_DATA],
            CMDLINE_AT,
            &kernel.cmdline,
        ),
        (
            [key::KERNEL_ADDRESS, key::KERNEL_SIZE, key::KERNEL_DATA],
            KERNEL_AT,
            &kernel.kernel,
        ),
    ];
    if let Some((at, data)) = &kernel.initrd {
        let keys = [key::INITRD_ADDRESS, key::INITRD_SIZE, key::INITRD_DATA];
        items.push((keys, *at, data));
    }
    let mut transfers = Vec::new();
    for (keys, at, data) in items {
        fw_cfg.set_item(keys[0], at.to_le_bytes().to_vec());
        fw_cfg.set_item(keys[1], (data.len() as u32).to_le_bytes().to_vec());
        fw_cfg.set_item(keys[2], data.clone());
        transfers.push((keys[2], data.len() as u32, at));
    }
    let rom = rom(&transfers).map_err(|e| FirmwareError::Rom(e.to_string()))?;
    Ok(fw_cfg.set_file(FILE, rom)?)
}

/// The ROM for transfers of (item, bytes, physical address).
fn rom(transfers: &[(u16, u32, u32)]) -> Result<Vec<u8>, IcedError> {
    let mut rom = vec![0u8; TABLE_AT];
    for &(item, len, to) in transfers {
        rom.extend((u32::from(item) << 16 | SELECT_AND_READ).to_be_bytes());
        rom.extend(len.to_be_bytes());
        rom.extend(u64::from(to).to_be_bytes());
    }
    let code_at = rom.len();
    rom.extend(code(transfers.len() as u32, code_at as u64)?);
    let size = rom.len().next_multiple_of(512);
    rom.resize(size, 0);
    let mut put = |at: usize, data: &[u8]| rom[at..at + data.len()].copy_from_slice(data);
    // Signature, size in units of 512 bytes, and an initialization that only returns.
    put(0, &[0x55, 0xaa, (size / 512) as u8, 0xcb]);
    put(0x1a, &(PNP_AT as u16).to_le_bytes());
    put(PNP_AT, b"$PnP\x01\x02");
    put(PNP_AT + 0x0e, &(MAKER_AT as u16).to_le_bytes());
    put(PNP_AT + 0x10, &(PRODUCT_AT as u16).to_le_bytes());
    put(PNP_AT + 0x1a, &(code_at as u16).to_le_bytes());
    put(MAKER_AT, b"ring3\0");
    put(PRODUCT_AT, b"Linux kernel\0");
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
    rom[PNP_AT + 9] = sum(&rom[PNP_AT..PNP_AT + 0x20]).wrapping_neg();
    rom[5] = sum(&rom).wrapping_neg();
    Ok(rom)
}

/// The bootstrap entry: real mode, called by firmware with `cs` at the ROM.
fn code(transfers: u32, at: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let (mut next, mut wait, mut failed) = (a.create_label(), a.create_label(), a.create_label());
    a.cli()?;
    a.cld()?;
    // A stack of our own, and room for one transfer in it.
    a.mov(ax, SETUP_SEGMENT)?;
    a.mov(ss, ax)?;
    a.mov(esp, 0xfff0)?;
    a.push(cs)?;
    a.pop(ds)?;
    a.push(ss)?;
    a.pop(es)?;
    a.mov(si, TABLE_AT as u32)?;
    a.mov(bp, transfers)?;
    a.set_label(&mut next)?;
    // The device writes its answer into the transfer, and a ROM keeps none: copy it to RAM. The
    // setup code is the first to be read, and its heap and stack lie behind it.
    a.mov(di, 0xffe0)?;
    a.mov(cx, TRANSFER as u32 / 2)?;
    a.rep().movsw()?;
    a.mov(dx, DMA_HIGH)?;
    a.xor(eax, eax)?;
    a.out(dx, eax)?;
    a.mov(dx, DMA_LOW)?;
    a.mov(eax, SETUP_AT + 0xffe0)?;
    a.bswap(eax)?;
    a.out(dx, eax)?;
    a.set_label(&mut wait)?;
    a.mov(eax, dword_ptr(0xffe0).es())?;
    a.bswap(eax)?;
    a.test(al, 1)?;
    a.jnz(failed)?;
    a.test(eax, eax)?;
    a.jnz(wait)?;
    a.dec(bp)?;
    a.jnz(next)?;
    // Every data segment at the setup code, and on to its second sector.
    a.mov(ax, SETUP_SEGMENT)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(fs, ax)?;
    a.mov(gs, ax)?;
    a.push(SETUP_SEGMENT + 0x20)?;
    a.push(0)?;
    a.retf()?;
    // INT 18h: the next boot device.
    a.set_label(&mut failed)?;
    a.sti()?;
    a.int(0x18)?;
    a.assemble(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_sum_to_zero_and_lead_to_the_code() {
        let rom = rom(&[
            (key::SETUP_DATA, 1024, SETUP_AT),
            (key::KERNEL_DATA, 5, KERNEL_AT),
        ])
        .unwrap();
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        assert_eq!((rom.len() % 512, rom.len() / 512), (0, rom[2].into()));
        assert_eq!((sum(&rom), sum(&rom[PNP_AT..PNP_AT + 0x20])), (0, 0));
        let entry = usize::from(rom[PNP_AT + 0x1a]) | usize::from(rom[PNP_AT + 0x1b]) << 8;
        assert_eq!(entry, TABLE_AT + 2 * TRANSFER);
        assert_eq!(rom[entry], 0xfa, "CLI");
        assert_eq!(rom[TABLE_AT..TABLE_AT + 8], [0, 0x18, 0, 0x0a, 0, 0, 4, 0]);
    }
}
