//! The processor's state at the 32-bit entry point. Linux `Documentation/arch/x86/boot.rst`,
//! "32-bit Boot Protocol".

use ring3_translator::state::{GuestState, SegAttr, SegReg, Segment, TableReg, cr0, gpr};

/// Selector of the flat code segment (`__BOOT_CS`).
pub const BOOT_CS: u16 = 0x10;
/// Selector of the flat data segment (`__BOOT_DS`).
pub const BOOT_DS: u16 = 0x18;

/// Flat 4 GiB, present, DPL 0, accessed; execute/read.
const CODE_ATTR: SegAttr = SegAttr(0xc09b);
/// Flat 4 GiB, present, DPL 0, accessed; read/write.
const DATA_ATTR: SegAttr = SegAttr(0xc093);

/// Where a loaded kernel starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinuxEntry {
    /// The first instruction.
    pub eip: u32,
    /// Physical address of the zero page.
    pub esi: u32,
    /// Physical address of the GDT.
    pub gdt: u32,
    /// The GDT's limit, in bytes (last valid offset).
    pub gdt_limit: u16,
}

/// The GDT: null, unused, `__BOOT_CS`, `__BOOT_DS`.
#[must_use]
pub fn gdt_bytes() -> [u8; 32] {
    let mut table = [0u8; 32];
    table[16..24].copy_from_slice(&flat_descriptor(CODE_ATTR).to_le_bytes());
    table[24..32].copy_from_slice(&flat_descriptor(DATA_ATTR).to_le_bytes());
    table
}

/// A descriptor with base 0 and limit 0xFFFFF pages. Intel SDM vol. 3A, 3.4.5.
fn flat_descriptor(attr: SegAttr) -> u64 {
    0x000f_0000_0000_ffff | u64::from(attr.0) << 40
}

/// Puts the processor at the kernel's 32-bit entry: protected mode, paging off, interrupts off,
/// CS flat `0x10`, DS, ES and SS flat `0x18`, EBP = EDI = EBX = 0, ESI at the zero page. The rest
/// is as after RESET.
pub fn apply(st: &mut GuestState, entry: &LinuxEntry) {
    st.reset();
    st.cr0 = cr0::PE | cr0::ET;
    let flat = |selector, attr| Segment {
        limit: u32::MAX,
        selector,
        attr,
        usable: true,
        ..Segment::null(0)
    };
    st.set_segment(SegReg::Cs, flat(BOOT_CS, CODE_ATTR));
    for reg in [SegReg::Ds, SegReg::Es, SegReg::Ss, SegReg::Fs, SegReg::Gs] {
        st.set_segment(reg, flat(BOOT_DS, DATA_ATTR));
    }
    st.gdtr = TableReg {
        base: u64::from(entry.gdt),
        limit: entry.gdt_limit,
    };
    st.idtr = TableReg { base: 0, limit: 0 };
    set_memory_types(st);
    st.gpr = [0; 16];
    st.set_reg32(gpr::SI, entry.esi);
    st.rip = u64::from(entry.eip);
    st.cpl = 0;
}

/// Memory types as firmware leaves them: write-back, but for the display's window, the BIOS area
/// (write-protected) and the devices below 4 GiB. Intel SDM vol. 3A, 12.11.
fn set_memory_types(st: &mut GuestState) {
    const BACK: u64 = 0x0606_0606_0606_0606;
    const PROTECTED: u64 = 0x0505_0505_0505_0505;
    /// Fixed ranges and the rest enabled, write-back.
    const DEFAULT: u64 = 0xc06;
    /// Devices: uncacheable from here, 512 MiB.
    const DEVICES: u64 = 0xe000_0000;
    const DEVICES_MASK: u64 = 0xf_e000_0000;
    const VALID: u64 = 1 << 11;
    st.msr.mtrr_fixed = [PROTECTED; 11];
    st.msr.mtrr_fixed[..3].copy_from_slice(&[BACK, BACK, 0]);
    st.msr.mtrr_var[..2].copy_from_slice(&[DEVICES, DEVICES_MASK | VALID]);
    st.msr.mtrr_def_type = DEFAULT;
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring3_translator::state::SegClass;
    use ring3_translator::state_box::StateBox;

    #[test]
    fn state_is_flat_protected_with_interrupts_off() {
        let mut st = StateBox::new();
        apply(
            &mut st,
            &LinuxEntry {
                eip: 0x10_0000,
                esi: 0x1_0000,
                gdt: 0x500,
                gdt_limit: 31,
            },
        );
        assert!(st.protected() && st.mode().code32() && st.mode().stack32());
        assert_eq!(st.if_flag, 0);
        assert_eq!(st.cr0 & cr0::PG, 0);
        assert_eq!((st.eip(), st.reg32(gpr::SI)), (0x10_0000, 0x1_0000));
        for reg in SegReg::ALL {
            assert_eq!(st.segment(reg).class, SegClass::Flat, "{reg:?}");
        }
        assert_eq!(st.segment(SegReg::Cs).selector, 0x10);
        assert_eq!(st.segment(SegReg::Ss).selector, 0x18);
    }

    #[test]
    fn descriptors_decode_to_the_loaded_segments() {
        let gdt = gdt_bytes();
        assert_eq!(&gdt[..16], &[0; 16]);
        assert_eq!(gdt[16..24], [0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0]);
        assert_eq!(gdt[24..32], [0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0]);
    }
}
