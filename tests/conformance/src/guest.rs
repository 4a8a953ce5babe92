//! The guest that the translated engines run cases in: page tables, descriptor tables and
//! processor state that look to a case exactly as the host process does.
//!
//! Protected mode with 4 KiB pages; the pages of [`crate::layout`] are identity-mapped, all
//! others are not present except the tables' own, which lie high and are for supervisors.

use crate::case::{Case, Regs, seg};
use crate::layout::{self, Descriptor};
use crate::vector::{Vector, XSAVE_BYTES, XsaveLayout};
use iced_x86::{Decoder, DecoderOptions};
use ring3_monitor::cpu::cpuid::CpuModel;
use ring3_translator::state::{GuestState, SegAttr, SegReg, Segment, TableReg, cr0, cr4, eflags};

/// Bytes of guest memory that are needed.
pub const MEMORY: usize = 8 << 20;

const DIRECTORY: u32 = 0x1_0000;
const LOW_TABLE: u32 = 0x1_1000;
const HIGH_TABLE: u32 = 0x1_2000;
/// Physical pages of GDT, LDT and TSS, in this order.
const TABLES: u32 = 0x1_3000;
/// Where these pages are in linear memory.
const TABLES_AT: u32 = 0xe7a0_0000;
const TSS_LIMIT: u16 = 0x67;

const PRESENT: u32 = 1;
const WRITABLE: u32 = 2;
const USER: u32 = 4;

/// Constant contents of guest memory: physical address and bytes. At CPL 3 (`user`) the case's
/// pages are user pages, else supervisor pages, so that the form of access under test serves them.
#[must_use]
pub fn tables(user: bool) -> Vec<(u32, Vec<u8>)> {
    let rights = PRESENT | if user { USER } else { 0 };
    let mut directory = [0u32; 1024];
    directory[(layout::CODE >> 22) as usize] = LOW_TABLE | WRITABLE | rights;
    directory[(TABLES_AT >> 22) as usize] = HIGH_TABLE | WRITABLE | PRESENT;
    let mut low = [0u32; 1024];
    let index = |at: u32| (at >> 12 & 0x3ff) as usize;
    for (at, len) in layout::WRITABLE {
        for page in (at..at + len).step_by(layout::PAGE as usize) {
            low[index(page)] = page | WRITABLE | rights;
        }
    }
    low[index(layout::READ_ONLY)] = layout::READ_ONLY | rights;
    let mut high = [0u32; 1024];
    for n in 0..3 {
        high[index(TABLES_AT) + n as usize] = (TABLES + n * layout::PAGE) | WRITABLE | PRESENT;
    }
    let bytes = |table: &[u32]| {
        table
            .iter()
            .flat_map(|e| e.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let mut global = vec![0; 0x80];
    for d in layout::GLOBAL {
        let at = usize::from(d.selector & !7);
        global[at..at + 8].copy_from_slice(&d.encode(3).to_le_bytes());
    }
    let local = layout::LOCAL
        .iter()
        .flat_map(|d| d.encode(3).to_le_bytes())
        .collect();
    let mut task = vec![0; usize::from(TSS_LIMIT) + 1];
    task[0x66..0x68].copy_from_slice(&0xffffu16.to_le_bytes()); // no I/O permission bitmap
    vec![
        (DIRECTORY, bytes(&directory)),
        (LOW_TABLE, bytes(&low)),
        (HIGH_TABLE, bytes(&high)),
        (TABLES, global),
        (TABLES + layout::PAGE, local),
        (TABLES + 2 * layout::PAGE, task),
        (layout::READ_ONLY, layout::read_only_page()),
    ]
}

fn segment(selector: u16, dpl: u8) -> Segment {
    let Some(d) = Descriptor::of(selector).filter(|_| selector > 3) else {
        return Segment::null(selector);
    };
    let attr = 0x10
        | u16::from(d.kind)
        | u16::from(dpl) << 5
        | u16::from(d.present) << 7
        | u16::from(d.big) << 14
        | u16::from(d.pages) << 15;
    Segment {
        base: u64::from(d.base),
        limit: d.byte_limit(),
        attr: SegAttr(attr),
        usable: true,
        ..Segment::null(selector)
    }
}

fn system(n: u32, limit: u16, attr: u16, selector: u16) -> Segment {
    Segment {
        base: u64::from(TABLES_AT + n * layout::PAGE),
        limit: u32::from(limit),
        attr: SegAttr(attr),
        usable: true,
        ..Segment::null(selector)
    }
}

/// Puts the processor into the system state that every case starts from.
pub fn set_system(st: &mut GuestState, components: u64) {
    st.cr0 = cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::PG;
    st.cr2 = 0;
    st.cr3 = u64::from(DIRECTORY);
    st.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    st.xcr0 = components;
    st.gdtr = TableReg {
        base: u64::from(TABLES_AT),
        limit: 0x7f,
    };
    st.idtr = TableReg { base: 0, limit: 0 };
    st.ldtr = system(1, layout::LOCAL.len() as u16 * 8 - 1, 0x82, 0x50);
    st.tr = system(2, TSS_LIMIT, 0x8b, 0x40);
    st.interrupt_shadow = 0;
    st.halted = 0;
    st.dr = [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400];
}

/// Loads a case's registers. The selectors keep the host's RPL even at CPL 0: what is tested is
/// the code, which may read them.
pub fn load(st: &mut GuestState, case: &Case, cpl: u8, layout: &XsaveLayout) {
    st.cpl = cpl;
    st.set_eflags(case.regs.eflags | eflags::IF | eflags::FIXED);
    for n in 0..8 {
        st.set_reg32(n, case.regs.gpr[n]);
    }
    st.rip = u64::from(case.regs.eip);
    for (n, reg) in SegReg::ALL.into_iter().enumerate() {
        let dpl = if n == seg::CS || n == seg::SS { cpl } else { 3 };
        st.set_segment(reg, segment(case.regs.seg[n], dpl));
    }
    st.reclassify_segments();
    st.fpu_live = 0;
    case.vector.store(&mut st.xsave.0, layout);
    let usable = st.xcr0.to_le_bytes();
    st.xsave.0[512..520].copy_from_slice(&usable);
}

/// The offset within the pages of GDT, LDT and TSS of linear address `at`.
#[must_use]
pub fn table_offset(at: u32) -> Option<usize> {
    let offset = at.wrapping_sub(TABLES_AT);
    (offset < 3 * layout::PAGE).then_some(offset as usize)
}

/// The same for a physical address.
#[must_use]
pub fn table_page_offset(at: u32) -> Option<usize> {
    let offset = at.wrapping_sub(TABLES);
    (offset < 3 * layout::PAGE).then_some(offset as usize)
}

/// True if the virtual processor offers every instruction of the case.
#[must_use]
pub fn offers(model: &CpuModel, case: &Case) -> bool {
    let code = case.code();
    Decoder::with_ip(
        case.width.bits(),
        &code,
        u64::from(case.regs.eip),
        DecoderOptions::NONE,
    )
    .iter()
    .all(|i| i.cpuid_features().iter().all(|f| model.supports(*f)))
}

/// For a case with an instruction that the virtual processor does not offer: the same case with
/// UD2 and NOPs in its place. Both must end in the same #UD.
#[must_use]
pub fn stand_in(model: &CpuModel, case: &Case) -> Option<Case> {
    let mut other = case.clone();
    for piece in &mut other.pieces {
        let bits = case.width.bits();
        let i = Decoder::with_ip(bits, piece, 0, DecoderOptions::NONE).decode();
        if i.cpuid_features().iter().all(|f| model.supports(*f)) {
            continue;
        }
        if piece.len() > 15 {
            return None; // the length alone decides, here and there
        }
        let [first, second, rest @ ..] = piece.as_mut_slice() else {
            return None;
        };
        (*first, *second) = (0x0f, 0x0b);
        rest.fill(0x90);
        return Some(other);
    }
    None
}

/// Reads the registers back.
#[must_use]
pub fn save(st: &GuestState, layout: &XsaveLayout) -> (Regs, Vector) {
    let regs = Regs {
        gpr: core::array::from_fn(|n| st.reg32(n)),
        eip: st.eip(),
        eflags: st.eflags(),
        seg: core::array::from_fn(|n| st.seg[n].selector),
    };
    (regs, Vector::load(&st.xsave.0[..XSAVE_BYTES], layout))
}
