//! The fixed code at the cache's start: entry, exits, thunks, look-ups.
//!
//! It touches `GuestState` by r15 and constants, the monitor's stack, the return stack by one
//! PUSHFQ/POP or PUSH/POPFQ, and what the poll pointer points at.

use super::Violation;
use super::flow::text;
use super::memory::slot_of;
use super::rules::forbidden;
use crate::cache::Translator;
use crate::off;
use crate::prelude::jump_cache_off;
use crate::state::{GuestState, HELPER_COUNT, XSAVE_BYTES};
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

/// Checks the fixed code of a cache. Returns the number of instructions.
/// # Errors
/// All violations.
pub fn prelude(translator: &Translator) -> Result<usize, Vec<Violation>> {
    let base = translator.range().start;
    let end = translator.stubs().end;
    fixed(&translator.read(base, (end - base) as usize), base)
}

/// Checks fixed code at host address `base`.
pub(super) fn fixed(code: &[u8], base: u64) -> Result<usize, Vec<Violation>> {
    let mut decoder = Decoder::with_ip(64, code, base, DecoderOptions::NONE);
    let mut list = Vec::new();
    while decoder.can_decode() {
        list.push(decoder.decode());
    }
    let starts: Vec<u64> = list.iter().map(Instruction::ip).collect();
    let mut found = Vec::new();
    let mut info = InstructionInfoFactory::new();
    let mut dead = false; // padding after a transfer
    let mut count = 0;
    for (n, insn) in list.iter().enumerate() {
        if dead && insn.code() == Code::Int3 {
            continue;
        }
        count += 1;
        dead = matches!(
            insn.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return
        );
        let before = n.checked_sub(1).map(|n| &list[n]).filter(|_| {
            // What a branch reaches has more than one predecessor.
            !list
                .iter()
                .any(|i| branches(i) && i.near_branch_target() == insn.ip())
        });
        if let Err(why) = instruction(insn, before, &starts, &mut info) {
            found.push(Violation {
                offset: (insn.ip() - base) as u32,
                text: text(insn),
                why,
            });
        }
    }
    if found.is_empty() {
        Ok(count)
    } else {
        Err(found)
    }
}

fn own(insn: &Instruction) -> bool {
    matches!(
        insn.mnemonic(),
        Mnemonic::Push
            | Mnemonic::Pop
            | Mnemonic::Pushfq
            | Mnemonic::Popfq
            | Mnemonic::Xsave
            | Mnemonic::Xsaveopt
            | Mnemonic::Xrstor
    )
}

fn branches(insn: &Instruction) -> bool {
    insn.op_count() > 0 && insn.op0_kind() == OpKind::NearBranch64
}

/// Whether `before` has just put into r14 what `insn` uses it for: an index of 16 bits, or the poll
/// pointer.
fn prepared(before: Option<&Instruction>, poll: bool) -> bool {
    before.is_some_and(|b| {
        let to = b.op_count() == 2 && b.op0_kind() == OpKind::Register;
        if poll {
            to && b.op0_register() == Register::R14
                && b.code() == Code::Mov_r64_rm64
                && state_operand(b) == Some(off!(poll_ptr))
        } else {
            to && b.op0_register() == Register::R14D && b.code() == Code::Movzx_r32_rm16
        }
    })
}

fn instruction(
    insn: &Instruction,
    before: Option<&Instruction>,
    starts: &[u64],
    factory: &mut InstructionInfoFactory,
) -> Result<(), String> {
    if !own(insn)
        && let Some(why) = forbidden(insn)
    {
        return Err(why.into());
    }
    match insn.flow_control() {
        FlowControl::Next => {}
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
            if insn.op0_kind() == OpKind::NearBranch64 =>
        {
            return if starts.contains(&insn.near_branch_target()) {
                Ok(())
            } else {
                Err("a branch out of the fixed code".into())
            };
        }
        FlowControl::Return if insn.code() == Code::Retnq => return Ok(()),
        FlowControl::IndirectBranch if insn.code() == Code::Jmp_rm64 => {
            // Into the cache: by the argument of `enter`, after a fault, by the jump cache.
            let by_register =
                insn.op0_kind() == OpKind::Register && insn.op0_register() == Register::R14;
            return if by_register || jump_operand(insn, before) {
                Ok(())
            } else {
                Err("an indirect jump of no permitted form".into())
            };
        }
        FlowControl::IndirectCall if insn.code() == Code::Call_rm64 => return helper_operand(insn),
        _ => return Err("a control transfer of no permitted form".into()),
    }
    operands(insn, before, factory)
}

fn state_operand(insn: &Instruction) -> Option<i32> {
    let plain = insn.memory_base() == Register::R15
        && insn.memory_index() == Register::None
        && insn.segment_prefix() == Register::None;
    plain
        .then(|| i32::try_from(insn.memory_displacement64() as i64).ok())
        .flatten()
}

fn jump_operand(insn: &Instruction, before: Option<&Instruction>) -> bool {
    if state_operand(insn) == Some(off!(resume_rip)) {
        return true;
    }
    insn.memory_base() == Register::R15
        && insn.memory_index() == Register::R14
        && insn.memory_index_scale() == 8
        && insn.segment_prefix() == Register::None
        && prepared(before, false)
        && (0..2).any(|t| insn.memory_displacement64() == jump_cache_off(t) as u64)
}

fn helper_operand(insn: &Instruction) -> Result<(), String> {
    let inside = state_operand(insn).is_some_and(|at| {
        let at = at - off!(helpers);
        at >= 0 && at < HELPER_COUNT as i32 * 8 && at % 8 == 0
    });
    if inside {
        Ok(())
    } else {
        Err("a call of no permitted form".into())
    }
}

fn operands(
    insn: &Instruction,
    before: Option<&Instruction>,
    factory: &mut InstructionInfoFactory,
) -> Result<(), String> {
    let info = factory.info(insn);
    let stack = |r: Register| r.full_register() == Register::RSP;
    for used in info.used_memory() {
        if own(insn) && stack(used.base()) && used.index() == Register::None {
            continue; // its own push or pop
        }
        let Some(at) = state_operand(insn) else {
            let poll = insn.memory_base() == Register::R14
                && insn.memory_index() == Register::None
                && insn.memory_displacement64() == 0
                && insn.code() == Code::Mov_r32_rm32
                && prepared(before, true);
            if poll {
                continue;
            }
            return Err("a memory operand of no permitted form".into());
        };
        let size = match insn.mnemonic() {
            Mnemonic::Xsave | Mnemonic::Xsaveopt | Mnemonic::Xrstor if at == off!(xsave) => {
                XSAVE_BYTES
            }
            Mnemonic::Xsave | Mnemonic::Xsaveopt | Mnemonic::Xrstor => {
                return Err("an FPU image elsewhere than in its place".into());
            }
            _ => used.memory_size().size(),
        };
        let outside =
            at < 0 || at as usize + size > size_of::<GuestState>() || slot_of(at).is_some();
        if outside && used.access() != OpAccess::NoMemAccess {
            return Err("an access outside GuestState, or to a jump cache".into());
        }
    }
    for used in info.used_registers() {
        let write = matches!(
            used.access(),
            OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
        );
        if !write {
            continue;
        }
        let r = used.register().full_register();
        if r == Register::R15 {
            let loads = insn.code() == Code::Mov_rm64_r64 && insn.op1_register() == Register::RDI
                || insn.code() == Code::Mov_r64_rm64 && insn.op1_register() == Register::RDI
                || insn.code() == Code::Pop_r64;
            if !loads {
                return Err("changes r15".into());
            }
        }
        if r == Register::RSP && !own(insn) && !moves_stack(insn) {
            return Err("changes rsp".into());
        }
        if r.is_segment_register() {
            return Err("changes a segment register".into());
        }
    }
    Ok(())
}

/// From a field that holds a stack, or by the 8 bytes that align the monitor's.
fn moves_stack(insn: &Instruction) -> bool {
    let loads = matches!(insn.code(), Code::Mov_r64_rm64)
        && state_operand(insn).is_some_and(|at| {
            [off!(host_rsp), off!(cache_rsp), off!(return_stack_top)].contains(&at)
        });
    let aligns = matches!(insn.mnemonic(), Mnemonic::Add | Mnemonic::Sub)
        && insn.op1_kind() != OpKind::Register
        && insn.immediate(1) == 8;
    loads || aligns
}
