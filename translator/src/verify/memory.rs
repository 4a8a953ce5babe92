//! The permitted forms of a memory operand.

use super::rules::general;
use super::value::{Facts, Lookup, Val};
use crate::off;
use crate::prelude::jump_cache_off;
use crate::state::{GuestState, JUMP_CACHE_ENTRIES, SegReg, Segment, TLB_ENTRIES, TlbEntry};
use iced_x86::{Instruction, Register};

/// Where a memory operand lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `gs:[ea32]`.
    Window,
    /// A field of `GuestState`, by its displacement.
    Field(i32),
    /// A tag of r13's soft-TLB entry.
    Tag { table: usize, write: bool },
    /// The delta of r13's soft-TLB entry.
    Delta { table: usize },
    /// A jump-cache slot indexed by the low half of r13.
    Slot { table: usize },
    /// Guest bytes by r13 + r14, from this displacement on.
    Looked(Lookup, i64),
    /// What a poll or segment-base pointer points at.
    Pointee,
}

/// Finds the form of an instruction's memory operand.
/// # Errors
/// What is wrong with it.
pub(super) fn place(insn: &Instruction, f: &Facts) -> Result<Place, String> {
    if insn.is_vsib() {
        return Err("a vector of addresses".into());
    }
    if insn.is_ip_rel_memory_operand() {
        return Err("an operand relative to the instruction pointer".into());
    }
    let (base, index) = (insn.memory_base(), insn.memory_index());
    let displacement = insn.memory_displacement64() as i64;
    let part = |r: Register, wide: bool| {
        r == Register::None || if wide { r.is_gpr64() } else { r.is_gpr32() }
    };
    let absolute = base == Register::None && index == Register::None;
    if insn.segment_prefix() == Register::GS {
        let narrow =
            part(base, false) && part(index, false) && (!absolute || insn.memory_displ_size() == 4);
        if !narrow {
            return Err("a window operand without 32-bit address size".into());
        }
        for r in [base, index] {
            if let Some((n, _)) = general(r)
                && (n == 4 || n == 15 || !f.regs[n].is_number())
            {
                return Err(format!(
                    "a window address made from {r:?}, which is {:?}",
                    f.regs[n]
                ));
            }
        }
        return Ok(Place::Window);
    }
    if insn.segment_prefix() != Register::None {
        return Err("a segment prefix other than GS".into());
    }
    if absolute || !part(base, true) || !part(index, true) {
        return Err("an absolute or 32-bit address outside the window".into());
    }
    match (base, index, insn.memory_index_scale()) {
        (Register::R15, Register::None, _) => i32::try_from(displacement)
            .map(Place::Field)
            .map_err(|_| "a displacement beyond 32 bits".into()),
        (Register::R15, Register::R14, 8) => indexed(f.regs[14], displacement),
        (Register::R13, Register::R14, 1) => match f.regs[14] {
            Val::Delta(l) if f.regs[13].is_u32() => Ok(Place::Looked(l, displacement)),
            other => Err(format!("r13+r14 without a look-up: r14 is {other:?}")),
        },
        (Register::R14, Register::None, _) if displacement == 0 && f.regs[14] == Val::Readable => {
            Ok(Place::Pointee)
        }
        _ => Err("an address of no permitted form".into()),
    }
}

fn indexed(r14: Val, displacement: i64) -> Result<Place, String> {
    for table in 0..2 {
        let tlb = i64::from(off!(tlb)) + (table * TLB_ENTRIES * size_of::<TlbEntry>()) as i64;
        if r14 == Val::Entry {
            match displacement - tlb {
                0 => {
                    return Ok(Place::Tag {
                        table,
                        write: false,
                    });
                }
                4 => return Ok(Place::Tag { table, write: true }),
                8 => return Ok(Place::Delta { table }),
                _ => {}
            }
        }
        if r14 == Val::U16 && displacement == i64::from(jump_cache_off(table)) {
            return Ok(Place::Slot { table });
        }
    }
    Err(format!("r15+r14*8+{displacement:#x} with r14 {r14:?}"))
}

/// The jump-cache slot at a displacement from r15: table and index.
pub(super) fn slot_of(displacement: i32) -> Option<(usize, u32)> {
    (0..2).find_map(|table| {
        let at = displacement - jump_cache_off(table);
        let inside = at >= 0 && at < (JUMP_CACHE_ENTRIES * 8) as i32 && at % 8 == 0;
        inside.then_some((table, at as u32 / 8))
    })
}

/// Fields that units read: displacement, bytes.
fn readable() -> impl Iterator<Item = (i32, u32)> {
    let segment = |r: SegReg| off!(seg) + r as i32 * size_of::<Segment>() as i32;
    let field = |at: usize| at as i32;
    SegReg::ALL
        .into_iter()
        .flat_map(move |r| {
            [
                (segment(r) + field(core::mem::offset_of!(Segment, base)), 4),
                (segment(r) + field(core::mem::offset_of!(Segment, limit)), 4),
                (
                    segment(r) + field(core::mem::offset_of!(Segment, selector)),
                    2,
                ),
            ]
        })
        .chain([
            (off!(if_flag), 1),
            (off!(sys_flags), 4),
            (off!(event_waiting), 4),
            (off!(string_step), 4),
            (off!(string_step), 8),
            (off!(poll_ptr), 8),
            (off!(fs_base_ptr), 8),
            (off!(gs_base_ptr), 8),
            (off!(window_base), 8),
            (off!(fpu_live), 4),
            (off!(mask_page), 4),
            (off!(mask_index), 4),
            (off!(mask_arith), 4),
            (off!(mask_long_count), 4),
        ])
}

/// Checks an access to a field of `GuestState`.
/// # Errors
/// What is wrong with it.
pub(super) fn field(displacement: i32, bytes: u32, write: bool) -> Result<(), String> {
    if displacement < 0
        || i64::from(displacement) + i64::from(bytes) > size_of::<GuestState>() as i64
    {
        return Err(format!("an access outside GuestState at {displacement:#x}"));
    }
    let known = if write {
        [
            (off!(rip), 4),
            (off!(rip), 8),
            (off!(exit_arg), 4),
            (off!(if_flag), 1),
            (off!(string_step), 8),
        ]
        .contains(&(displacement, bytes))
    } else {
        readable().any(|f| f == (displacement, bytes))
    };
    if known {
        Ok(())
    } else {
        let verb = if write { "writes" } else { "reads" };
        Err(format!(
            "{verb} {bytes} bytes of GuestState at {displacement:#x}"
        ))
    }
}
