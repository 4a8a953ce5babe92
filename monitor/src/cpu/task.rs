//! Hardware task switches, with 16- and 32-bit task state segments. Intel SDM vol. 3A, 7.3.
//!
//! Everything that can fault before the switch is read or probed first; up to there an error
//! leaves the state unchanged. After the commit point errors belong to the new task: the state is
//! then the new task's, and RIP its first instruction, as the manual's step 13 says.

use crate::cpu::descriptor::{
    Descriptor, DescriptorKind, descriptor_address, is_null, read_descriptor_or, selector_fault,
    set_accessed, set_busy,
};
use crate::cpu::env::{Access, Env, Privilege, TlbFlush};
use crate::cpu::fault::{Fault, Vector};
use crate::cpu::segment::{
    check_eip, code_segment, fetch_data_segment, fetch_stack_segment, read_global, v86_segment,
};
use crate::cpu::stack::{OperandSize, Stack};
use crate::cpu::task_tss::{TSS32_LIMIT, is_tss32};
use ring3_translator::addr::LinAddr;
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, SegReg, Segment, cr0, cr4, dr6, dr7, eflags, gpr};

pub use crate::cpu::task_tss::{io_permitted, stack_for_level};

/// The smallest limit of a 16-bit TSS.
const TSS16_LIMIT: u32 = 0x2b;

/// What caused a task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchReason {
    /// JMP.
    Jump,
    /// CALL.
    Call,
    /// IRET with NT set.
    Iret,
    /// An interrupt or exception through a task gate.
    Event {
        /// The error code to push on the new stack.
        error: Option<u32>,
        /// Whether the saved EFLAGS image has RF set (faults).
        resume: bool,
    },
}

impl SwitchReason {
    const fn nests(self) -> bool {
        matches!(self, Self::Call | Self::Event { .. })
    }
}

/// The register part of a TSS, independent of its width.
struct Image {
    cr3: Option<u32>,
    eip: u32,
    eflags: u32,
    gpr: [u32; 8],
    /// Indexed by `SegReg`.
    selectors: [u16; 6],
    ldt: u16,
    trap: bool,
}

const fn wide(kind: DescriptorKind) -> bool {
    matches!(kind, DescriptorKind::Tss32 { .. })
}

/// Switches to the task of TSS `selector`, whose descriptor the caller has read and checked for
/// rights, presence, and being available (busy for [`SwitchReason::Iret`]). `next_eip` is stored
/// as the old task's EIP.
///
/// # Errors
/// #TS, #NP, #SS, #GP, #PF; #DB when the new task's T flag is set (then the switch is complete).
/// See the module's text for the state at an error.
pub fn task_switch<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    descriptor: Descriptor,
    reason: SwitchReason,
    next_eip: u32,
) -> Result<(), Fault> {
    let new32 = wide(descriptor.kind());
    let new_base = LinAddr(descriptor.base());
    // IF the new TSS limit is below 67H (2BH for 16 bits), THEN #TS(new TSS selector).
    if descriptor.limit() < if new32 { TSS32_LIMIT } else { TSS16_LIMIT } {
        return Err(selector_fault(Vector::Ts, selector));
    }
    // Step 5: the current TSS, the new TSS and the descriptors must be paged in.
    let old = st.tr;
    let old32 = is_tss32(st);
    let (save_at, save_len) = if old32 { (0x20, 0x40) } else { (0x0e, 0x1c) };
    if !old.usable || old.limit < save_at + save_len - 1 {
        return Err(selector_fault(Vector::Ts, old.selector));
    }
    let old_at = LinAddr(old.base).add32(save_at);
    env.probe(st, old_at, save_len, Access::Write, Privilege::Supervisor)?;
    let image = read_image(st, env, new_base, new32)?;
    if reason.nests() {
        env.probe(st, new_base, 2, Access::Write, Privilege::Supervisor)?;
    }
    for table_entry in [old.selector, selector] {
        if let Some(at) = descriptor_address(st, table_entry) {
            env.probe(st, at.add32(5), 1, Access::Write, Privilege::Supervisor)?;
        }
    }

    // Steps 6-11. From here on the switch happens.
    if !reason.nests() && !st.broken(Mutation::TaskBusy) {
        let old_descriptor = read_descriptor_or(st, env, old.selector, Vector::Ts)?;
        set_busy(st, env, old.selector, old_descriptor, false)?;
    }
    let mut saved_flags = st.eflags();
    match reason {
        SwitchReason::Iret => saved_flags &= !eflags::NT,
        SwitchReason::Event { resume: true, .. } => saved_flags |= eflags::RF,
        _ => {}
    }
    save_image(st, env, old_at, old32, next_eip, saved_flags)?;
    let mut descriptor = descriptor;
    if reason.nests() {
        env.write(
            st,
            new_base,
            &old.selector.to_le_bytes(),
            Privilege::Supervisor,
        )?;
    }
    if reason != SwitchReason::Iret {
        // The raw entry is read again: a switch to the task itself has just changed it.
        let raw = read_descriptor_or(st, env, selector, Vector::Ts)?;
        descriptor = set_busy(st, env, selector, raw, true)?;
    }
    st.tr = descriptor.to_segment(selector);
    st.cr0 |= cr0::TS;
    st.dr[7] &= !dr7::LOCAL;
    enter_task(st, env, &image, reason, new32)
}

/// Steps 12 and 13, in the new task's context.
fn enter_task<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    image: &Image,
    reason: SwitchReason,
    new32: bool,
) -> Result<(), Fault> {
    let mut flags = image.eflags;
    if reason.nests() && !st.broken(Mutation::TaskNested) {
        flags |= eflags::NT;
    }
    st.set_eflags(flags);
    st.rip = u64::from(image.eip);
    for (n, value) in image.gpr.into_iter().enumerate() {
        st.set_reg32(n, value);
    }
    // Visible parts first; a register whose descriptor turns out bad stays unusable.
    st.cpl = if st.v86() {
        3
    } else {
        (image.selectors[SegReg::Cs as usize] & 3) as u8
    };
    for reg in SegReg::ALL {
        st.set_segment(reg, Segment::null(image.selectors[reg as usize]));
    }
    st.ldtr = Segment::null(image.ldt);
    // If paging is not enabled, a CR3 value is read from the new TSS but not loaded.
    if let Some(cr3) = image.cr3.filter(|_| st.cr0 & cr0::PG != 0) {
        load_cr3(st, env, cr3)?;
    }
    load_ldt(st, env, image.ldt)?;
    if st.v86() {
        for reg in SegReg::ALL {
            st.set_segment(reg, v86_segment(image.selectors[reg as usize]));
        }
    } else {
        load_segments(st, env, &image.selectors)?;
    }
    if let SwitchReason::Event {
        error: Some(error), ..
    } = reason
    {
        // IF stack limit does not allow push of error code, THEN #SS(EXT).
        let mut stack = Stack::current(st);
        stack.push(
            st,
            env,
            if new32 {
                OperandSize::Dword
            } else {
                OperandSize::Word
            },
            error,
        )?;
        stack.commit(st);
    }
    // IF EIP not within code segment limit, THEN #GP(EXT).
    check_eip(st.segment(SegReg::Cs), image.eip)?;
    // IF the T flag of the new TSS is set, THEN #DB after the switch. Intel SDM vol. 3B, 17.3.1.5.
    if image.trap {
        st.dr[6] |= dr6::BT;
        return Err(Fault::plain(Vector::Db));
    }
    Ok(())
}

fn load_cr3<E: Env>(st: &mut GuestState, env: &mut E, cr3: u32) -> Result<(), Fault> {
    let cr3 = u64::from(cr3);
    if st.cr4 & cr4::PAE != 0 {
        let entries = env.read_pdptes(cr3);
        // IF a present PDPTE has a reserved bit set, THEN #GP(0). Intel SDM vol. 3A, 4.4.1.
        if entries
            .iter()
            .any(|e| e & 1 != 0 && e & 0xfff0_0000_0000_01e6 != 0)
        {
            return Err(Fault::gp(0));
        }
        st.pdpte = entries;
    }
    st.cr3 = cr3;
    env.flush_tlb(st, TlbFlush::NonGlobal);
    Ok(())
}

fn load_ldt<E: Env>(st: &mut GuestState, env: &mut E, selector: u16) -> Result<(), Fault> {
    if is_null(selector) {
        return Ok(());
    }
    // LDT segment selector of new task is valid and of type LDT, else #TS(new LDT selector).
    let d = read_global(st, env, selector, Vector::Ts)?;
    // LDT of new task is present in memory, else #TS(new LDT selector).
    if d.kind() != DescriptorKind::Ldt || !d.present() {
        return Err(selector_fault(Vector::Ts, selector));
    }
    st.ldtr = d.to_segment(selector);
    Ok(())
}

/// Intel SDM vol. 3A, table 7-1, checks 5-16.
fn load_segments<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selectors: &[u16; 6],
) -> Result<(), Fault> {
    let selector = selectors[SegReg::Cs as usize];
    let rpl = (selector & 3) as u8;
    // CS segment selector is valid: not null, inside its table, code; else #TS(new CS).
    if is_null(selector) {
        return Err(selector_fault(Vector::Ts, selector));
    }
    let d = read_descriptor_or(st, env, selector, Vector::Ts)?;
    let attr = d.attr();
    // Code segment DPL matches segment selector RPL (conforming: DPL ≤ RPL), else #TS(new CS).
    let matches = if attr.is_conforming() {
        attr.dpl() <= rpl
    } else {
        attr.dpl() == rpl
    };
    if !attr.is_code() || !matches {
        return Err(selector_fault(Vector::Ts, selector));
    }
    // Code segment is present in memory, else #NP(new CS).
    if !attr.present() {
        return Err(selector_fault(Vector::Np, selector));
    }
    let d = set_accessed(st, env, selector, d)?;
    st.set_segment(SegReg::Cs, code_segment(d, selector, rpl));
    // Stack segment selector valid, DPL and RPL match CPL, else #TS(new SS); present, else #SS.
    let ss = fetch_stack_segment(st, env, selectors[SegReg::Ss as usize], rpl, Vector::Ts)?;
    st.set_segment(SegReg::Ss, ss);
    // DS, ES, FS, GS valid, readable, DPL ≥ CPL (unless conforming), else #TS; present, else #NP.
    for reg in [SegReg::Ds, SegReg::Es, SegReg::Fs, SegReg::Gs] {
        let value = fetch_data_segment(st, env, selectors[reg as usize], rpl, Vector::Ts)?;
        st.set_segment(reg, value);
    }
    Ok(())
}

fn read_image<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    base: LinAddr,
    new32: bool,
) -> Result<Image, Fault> {
    // The link and the inner stacks before it are not looked at.
    let mut raw = [0u8; 0x68];
    let fields = if new32 {
        0x1c..raw.len()
    } else {
        0x0e..TSS16_LIMIT as usize + 1
    };
    let at = base.add32(fields.start as u32);
    env.read(st, at, &mut raw[fields], Privilege::Supervisor)?;
    let word = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
    let dword = |at: usize| u32::from(word(at)) | u32::from(word(at + 2)) << 16;
    Ok(if new32 {
        Image {
            cr3: Some(dword(0x1c)),
            eip: dword(0x20),
            eflags: dword(0x24),
            gpr: core::array::from_fn(|n| dword(0x28 + 4 * n)),
            selectors: core::array::from_fn(|n| word(0x48 + 4 * n)),
            ldt: word(0x60),
            trap: word(0x64) & 1 != 0,
        }
    } else {
        Image {
            cr3: None,
            eip: u32::from(word(0x0e)),
            eflags: u32::from(word(0x10)),
            // The upper halves are undefined by the manual; processors fill them with ones.
            gpr: core::array::from_fn(|n| 0xffff_0000 | u32::from(word(0x12 + 2 * n))),
            selectors: core::array::from_fn(|n| if n < 4 { word(0x22 + 2 * n) } else { 0 }),
            ldt: word(0x2a),
            trap: false,
        }
    })
}

/// Step 8: EIP, EFLAGS, the general registers and the segment selectors.
fn save_image<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    at: LinAddr,
    old32: bool,
    eip: u32,
    flags: u32,
) -> Result<(), Fault> {
    let mut raw = [0u8; 0x40];
    if old32 {
        // The reserved halves of the selector slots are written as zeros.
        let registers = (0..8).map(|n| st.reg32(n));
        let selectors = SegReg::ALL
            .into_iter()
            .map(|reg| u32::from(st.segment(reg).selector));
        let values = [eip, flags].into_iter().chain(registers).chain(selectors);
        for (slot, value) in raw.chunks_exact_mut(4).zip(values) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        env.write(st, at, &raw, Privilege::Supervisor)
    } else {
        let registers = (0..8).map(|n| st.reg16(n));
        let selectors = SegReg::ALL
            .into_iter()
            .take(4)
            .map(|reg| st.segment(reg).selector);
        let values = [eip as u16, flags as u16]
            .into_iter()
            .chain(registers)
            .chain(selectors);
        for (slot, value) in raw.chunks_exact_mut(2).zip(values) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        env.write(st, at, &raw[..2 * (2 + 8 + 4)], Privilege::Supervisor)
    }
}

/// The stack pointer register is where a TSS image keeps it.
const _: () = assert!(gpr::SP == 4);

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
