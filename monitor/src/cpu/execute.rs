//! One instruction at a time: every instruction that the translator hands out instead of emitting.
//!
//! The families live in their own files; this one only chooses. On an error nothing architectural
//! has changed, except that a repeated string instruction keeps its completed elements and #DB
//! for a debug register access has set DR6.BD.

use crate::cpu::cpuid::CpuModel;
use crate::cpu::env::Env;
use crate::cpu::event::{Event, SoftwareKind};
use crate::cpu::fault::Fault;
use crate::cpu::stack::OperandSize;
use crate::cpu::strings::StringOp;
use crate::cpu::{
    bcd, control, debugreg, execute_segment as far, flagsops, fpu, fpu_env, fpu_xsave, io, iret,
    masked_lanes, stackops, stackops_branch as branch, strings, sysenter, sysinfo,
};
use iced_x86::{Code, Instruction, Mnemonic};
use ring3_translator::state::{GuestState, eflags};

/// How execution continues after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// With the next instruction: the caller sets RIP to `insn.next_ip32()`.
    Next,
    /// At RIP, which is set.
    Jump,
    /// The caller delivers this event.
    SoftInterrupt(Event),
    /// The processor halts: RIP is after the instruction and `halted` is set.
    Halt,
    /// A repeated string instruction has more to do: RIP stays, registers hold the progress.
    Repeat,
    /// Not an instruction of this processor as far as this interpreter knows: the caller counts
    /// it by name and raises #UD.
    Unsupported,
}

/// Executes one decoded 16- or 32-bit instruction whose `ip` is EIP. The guest's FPU state must be
/// in `st.xsave` (`fpu_live` 0).
///
/// # Errors
/// The exception that the instruction raises.
pub fn execute<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    use Mnemonic as M;
    match insn.mnemonic() {
        M::Cli => flagsops::cli(st),
        M::Sti => flagsops::sti(st),
        M::Pushf => flagsops::pushf(st, env, 2),
        M::Pushfd => flagsops::pushf(st, env, 4),
        M::Popf => flagsops::popf(st, env, 2),
        M::Popfd => flagsops::popf(st, env, 4),
        M::Lahf => Ok(flagsops::lahf(st)),
        M::Sahf => Ok(flagsops::sahf(st)),
        M::Hlt => halt(st, insn),

        M::In => io::port_in(st, env, insn, port_size(insn.code())),
        M::Out => io::port_out(st, env, insn, port_size(insn.code())),

        M::Mov => mov(st, env, model, insn),
        M::Clts => control::clts(st),
        M::Lmsw => control::lmsw(st, env, model, insn),
        M::Smsw => control::smsw(st, env, insn),
        M::Invlpg => control::invlpg(st, env, insn),
        M::Xgetbv => control::xgetbv(st),
        M::Xsetbv => control::xsetbv(st, model),
        // Caches are always coherent here: nothing to write back. WBNOINVD is WBINVD where absent.
        M::Invd | M::Wbinvd | M::Wbnoinvd => control::require_cpl0(st).map(|()| Flow::Next),

        M::Lgdt | M::Lidt => sysinfo::load_table(st, env, insn),
        M::Sgdt | M::Sidt => sysinfo::store_table(st, env, insn),
        M::Lldt | M::Ltr => sysinfo::load_system(st, env, insn),
        M::Sldt | M::Str => sysinfo::store_system(st, env, insn),
        M::Lar | M::Lsl | M::Verr | M::Verw => sysinfo::query(st, env, insn),
        M::Arpl => sysinfo::arpl(st, env, insn),
        M::Rdtsc => sysinfo::rdtsc(st, env, model, false),
        M::Rdtscp => sysinfo::rdtsc(st, env, model, true),
        M::Rdpmc => sysinfo::rdpmc(),
        M::Rdmsr => sysinfo::rdmsr(st, env, model),
        M::Wrmsr => sysinfo::wrmsr(st, env, model),
        M::Cpuid => Ok(sysinfo::cpuid(st, model)),

        M::Sysenter => sysenter::sysenter(st).map(|()| Flow::Jump),
        M::Sysexit => sysenter::sysexit(st).map(|()| Flow::Jump),
        M::Int => Ok(software_interrupt(
            insn,
            insn.immediate8(),
            SoftwareKind::IntN,
        )),
        M::Int3 => Ok(software_interrupt(insn, 3, SoftwareKind::Int3)),
        M::Into if st.arith_flags as u32 & eflags::OF == 0 => Ok(Flow::Next),
        M::Into => Ok(software_interrupt(insn, 4, SoftwareKind::Into)),
        M::Int1 => Ok(software_interrupt(insn, 1, SoftwareKind::Icebp)),
        M::Iret => {
            iret::iret(st, env, OperandSize::Word, insn.next_ip32())?;
            Ok(Flow::Jump)
        }
        M::Iretd => {
            iret::iret(st, env, OperandSize::Dword, insn.next_ip32())?;
            Ok(Flow::Jump)
        }

        M::Les | M::Lds | M::Lss | M::Lfs | M::Lgs => far::load_far_pointer(st, env, insn),
        M::Call | M::Jmp | M::Ret | M::Retf => transfer(st, env, insn),
        M::Loop | M::Loope | M::Loopne => branch::counted(st, insn, counter16(insn.code())),
        M::Jcxz => branch::counted(st, insn, true),
        M::Jecxz => branch::counted(st, insn, false),
        M::Push | M::Pop => push_pop(st, env, insn),
        M::Pusha => stackops::pusha(st, env, 2),
        M::Pushad => stackops::pusha(st, env, 4),
        M::Popa => stackops::popa(st, env, 2),
        M::Popad => stackops::popa(st, env, 4),
        M::Enter => stackops::enter(
            st,
            env,
            insn,
            if insn.code() == Code::Enterw_imm16_imm8 {
                2
            } else {
                4
            },
        ),
        M::Leave => stackops::leave(st, env, if insn.code() == Code::Leavew { 2 } else { 4 }),

        M::Vmaskmovps | M::Vmaskmovpd => masked_lanes::masked_move(st, env, insn),

        M::Aaa => Ok(bcd::aaa(st)),
        M::Aas => Ok(bcd::aas(st)),
        M::Aam => bcd::aam(st, insn.immediate8()),
        M::Aad => Ok(bcd::aad(st, insn.immediate8())),
        M::Daa => Ok(bcd::daa(st)),
        M::Das => Ok(bcd::das(st)),
        M::Salc => Ok(bcd::salc(st)),
        M::Xlatb => bcd::xlat(st, env, insn),
        M::Bound => bcd::bound(
            st,
            env,
            insn,
            if insn.code() == Code::Bound_r16_m1616 {
                2
            } else {
                4
            },
        ),
        M::Cmpxchg8b => bcd::cmpxchg8b(st, env, insn),

        M::Fxsave => fpu::fxsave(st, env, model, insn),
        M::Fxrstor => fpu::fxrstor(st, env, model, insn),
        M::Xsave => fpu_xsave::xsave(st, env, model, insn, false),
        M::Xsaveopt => fpu_xsave::xsave(st, env, model, insn, true),
        M::Xrstor => fpu_xsave::xrstor(st, env, model, insn),
        M::Fnstenv => fpu_env::fnstenv(st, env, insn),
        M::Fldenv => fpu_env::fldenv(st, env, insn),
        M::Fnsave => fpu_env::fnsave(st, env, insn),
        M::Frstor => fpu_env::frstor(st, env, insn),

        // MONITOR and MWAIT are not advertised.
        M::INVALID | M::Ud0 | M::Ud1 | M::Ud2 | M::Monitor | M::Mwait => Err(Fault::ud()),
        _ => general(st, env, insn),
    }
}

/// String instructions and conditional jumps, told apart by code.
fn general<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    use StringOp as S;
    let (op, size) = match insn.code() {
        Code::Movsb_m8_m8 => (S::Movs, 1),
        Code::Movsw_m16_m16 => (S::Movs, 2),
        Code::Movsd_m32_m32 => (S::Movs, 4),
        Code::Stosb_m8_AL => (S::Stos, 1),
        Code::Stosw_m16_AX => (S::Stos, 2),
        Code::Stosd_m32_EAX => (S::Stos, 4),
        Code::Lodsb_AL_m8 => (S::Lods, 1),
        Code::Lodsw_AX_m16 => (S::Lods, 2),
        Code::Lodsd_EAX_m32 => (S::Lods, 4),
        Code::Scasb_AL_m8 => (S::Scas, 1),
        Code::Scasw_AX_m16 => (S::Scas, 2),
        Code::Scasd_EAX_m32 => (S::Scas, 4),
        Code::Cmpsb_m8_m8 => (S::Cmps, 1),
        Code::Cmpsw_m16_m16 => (S::Cmps, 2),
        Code::Cmpsd_m32_m32 => (S::Cmps, 4),
        Code::Insb_m8_DX => (S::Ins, 1),
        Code::Insw_m16_DX => (S::Ins, 2),
        Code::Insd_m32_DX => (S::Ins, 4),
        Code::Outsb_DX_m8 => (S::Outs, 1),
        Code::Outsw_DX_m16 => (S::Outs, 2),
        Code::Outsd_DX_m32 => (S::Outs, 4),
        _ if insn.is_jcc_short_or_near() => return branch::jcc(st, insn),
        _ => return Ok(Flow::Unsupported),
    };
    strings::execute(st, env, insn, op, size)
}

/// HLT. If CPL is not 0: #GP(0).
fn halt(st: &mut GuestState, insn: &Instruction) -> Result<Flow, Fault> {
    control::require_cpl0(st)?;
    st.rip = u64::from(insn.next_ip32());
    st.halted = 1;
    Ok(Flow::Halt)
}

fn software_interrupt(insn: &Instruction, vector: u8, kind: SoftwareKind) -> Flow {
    Flow::SoftInterrupt(Event::Software {
        vector,
        next_eip: insn.next_ip32(),
        kind,
    })
}

fn port_size(code: Code) -> u8 {
    match code {
        Code::In_AL_DX | Code::In_AL_imm8 | Code::Out_DX_AL | Code::Out_imm8_AL => 1,
        Code::In_AX_DX | Code::In_AX_imm8 | Code::Out_DX_AX | Code::Out_imm8_AX => 2,
        _ => 4,
    }
}

fn counter16(code: Code) -> bool {
    matches!(
        code,
        Code::Loop_rel8_16_CX
            | Code::Loop_rel8_32_CX
            | Code::Loope_rel8_16_CX
            | Code::Loope_rel8_32_CX
            | Code::Loopne_rel8_16_CX
            | Code::Loopne_rel8_32_CX
    )
}

/// MOV to or from segment, control and debug registers.
fn mov<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    match insn.code() {
        Code::Mov_r32_cr => control::mov_from_cr(st, insn),
        Code::Mov_cr_r32 => control::mov_to_cr(st, env, model, insn),
        Code::Mov_r32_dr => debugreg::mov_from_dr(st, insn),
        Code::Mov_dr_r32 => debugreg::mov_to_dr(st, insn),
        Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg => far::mov_from_sreg(st, env, insn),
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 => far::mov_to_sreg(st, env, insn),
        _ => Ok(Flow::Unsupported),
    }
}

/// CALL, JMP, RET and RETF.
fn transfer<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    match insn.code() {
        Code::Call_rel16 | Code::Call_rm16 => branch::call(st, env, insn, 2),
        Code::Call_rel32_32 | Code::Call_rm32 => branch::call(st, env, insn, 4),
        Code::Jmp_rel8_16 | Code::Jmp_rel16 | Code::Jmp_rm16 => branch::jmp(st, env, insn, 2),
        Code::Jmp_rel8_32 | Code::Jmp_rel32_32 | Code::Jmp_rm32 => branch::jmp(st, env, insn, 4),
        Code::Retnw | Code::Retnw_imm16 => branch::ret(st, env, insn, 2),
        Code::Retnd | Code::Retnd_imm16 => branch::ret(st, env, insn, 4),
        Code::Call_ptr1616 | Code::Call_m1616 => far::far_call(st, env, insn, 2),
        Code::Call_ptr1632 | Code::Call_m1632 => far::far_call(st, env, insn, 4),
        Code::Jmp_ptr1616 | Code::Jmp_m1616 => far::far_jmp(st, env, insn, 2),
        Code::Jmp_ptr1632 | Code::Jmp_m1632 => far::far_jmp(st, env, insn, 4),
        Code::Retfw | Code::Retfw_imm16 => far::far_ret(st, env, insn, 2),
        Code::Retfd | Code::Retfd_imm16 => far::far_ret(st, env, insn, 4),
        _ => Ok(Flow::Unsupported),
    }
}

/// PUSH and POP of anything.
fn push_pop<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    use Code as C;
    match insn.code() {
        C::Push_r16 | C::Push_rm16 | C::Push_imm16 | C::Pushw_imm8 => {
            stackops::push(st, env, insn, 2)
        }
        C::Push_r32 | C::Push_rm32 | C::Pushd_imm32 | C::Pushd_imm8 => {
            stackops::push(st, env, insn, 4)
        }
        C::Pop_r16 | C::Pop_rm16 => stackops::pop(st, env, insn, 2),
        C::Pop_r32 | C::Pop_rm32 => stackops::pop(st, env, insn, 4),
        C::Pushw_ES | C::Pushw_CS | C::Pushw_SS | C::Pushw_DS | C::Pushw_FS | C::Pushw_GS => {
            far::push_sreg(st, env, insn, 2)
        }
        C::Pushd_ES | C::Pushd_CS | C::Pushd_SS | C::Pushd_DS | C::Pushd_FS | C::Pushd_GS => {
            far::push_sreg(st, env, insn, 4)
        }
        C::Popw_ES | C::Popw_CS | C::Popw_SS | C::Popw_DS | C::Popw_FS | C::Popw_GS => {
            far::pop_sreg(st, env, insn, 2)
        }
        C::Popd_ES | C::Popd_SS | C::Popd_DS | C::Popd_FS | C::Popd_GS => {
            far::pop_sreg(st, env, insn, 4)
        }
        _ => Ok(Flow::Unsupported),
    }
}

#[cfg(test)]
#[path = "execute_tests.rs"]
pub(crate) mod tests;
