//! Instructions that load, store or query system state: descriptor-table registers, task
//! register, selector queries, time stamp and performance counters. Intel SDM vol. 2, each entry.

use crate::cpu::control::require_cpl0;
use crate::cpu::cpuid::CpuModel;
use crate::cpu::env::Env;
use crate::cpu::execute::Flow;
use crate::cpu::fault::Fault;
use crate::cpu::flagsops::set_flags;
use crate::cpu::segment::{load_ldtr, load_tr, real_addressing};
use crate::cpu::{msr, operand, segment_query};
use iced_x86::{Code, Instruction, Mnemonic};
use ring3_translator::state::{GuestState, TableReg, cr4, eflags, gpr};

/// LGDT and LIDT: six bytes; with 16-bit operand size only 24 base bits count.
/// # Errors
/// #GP(0) if CPL is not 0; memory faults.
pub fn load_table<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    require_cpl0(st)?;
    let (seg, offset) = operand::address(st, insn);
    let image = operand::load(st, env, seg, offset, 6)?;
    let mut base = image >> 16;
    if matches!(insn.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) {
        base &= 0x00ff_ffff;
    }
    let table = TableReg {
        base,
        limit: image as u16,
    };
    if insn.mnemonic() == Mnemonic::Lgdt {
        st.gdtr = table;
    } else {
        st.idtr = table;
    }
    Ok(Flow::Next)
}

/// SGDT and SIDT: limit and all 32 base bits whatever the operand size, as processors since the
/// 386 do.
/// # Errors
/// Memory faults.
pub fn store_table<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    let table = if insn.mnemonic() == Mnemonic::Sgdt {
        st.gdtr
    } else {
        st.idtr
    };
    let (seg, offset) = operand::address(st, insn);
    let image = u64::from(table.limit) | (table.base & 0xffff_ffff) << 16;
    operand::store(st, env, seg, offset, 6, image)?;
    Ok(Flow::Next)
}

/// LLDT and LTR.
/// # Errors
/// #UD in real and V8086 mode; #GP(0) if CPL is not 0; operand and descriptor faults.
pub fn load_system<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    if real_addressing(st) {
        return Err(Fault::ud());
    }
    require_cpl0(st)?;
    let selector = operand::read_rm(st, env, insn, 0, 2)? as u16;
    if insn.mnemonic() == Mnemonic::Lldt {
        load_ldtr(st, env, selector)?;
    } else {
        load_tr(st, env, selector)?;
    }
    Ok(Flow::Next)
}

/// SLDT and STR.
/// # Errors
/// #UD in real and V8086 mode; operand faults.
pub fn store_system<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    insn: &Instruction,
) -> Result<Flow, Fault> {
    if real_addressing(st) {
        return Err(Fault::ud());
    }
    let selector = if insn.mnemonic() == Mnemonic::Sldt {
        st.ldtr.selector
    } else {
        st.tr.selector
    };
    operand::write_rm(st, env, insn, 0, 2, u32::from(selector))?;
    Ok(Flow::Next)
}

/// LAR, LSL, VERR and VERW: ZF tells whether the selector is visible.
/// # Errors
/// #UD in real and V8086 mode; operand faults.
pub fn query<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    if real_addressing(st) {
        return Err(Fault::ud());
    }
    let op = insn.op_count() - 1;
    let selector = operand::read_rm(st, env, insn, op, 2)? as u16;
    let found = match insn.mnemonic() {
        Mnemonic::Verr => segment_query::verr(st, env, selector)?,
        Mnemonic::Verw => segment_query::verw(st, env, selector)?,
        mnemonic => {
            let value = if mnemonic == Mnemonic::Lar {
                segment_query::lar(st, env, selector)?
            } else {
                segment_query::lsl(st, env, selector)?
            };
            if let Some(value) = value {
                operand::set_register(st, insn.op0_register(), value);
            }
            value.is_some()
        }
    };
    set_flags(st, eflags::ZF, if found { eflags::ZF } else { 0 });
    Ok(Flow::Next)
}

/// ARPL: raises the destination selector's RPL to the source's.
/// # Errors
/// #UD in real and V8086 mode; operand faults.
pub fn arpl<E: Env>(st: &mut GuestState, env: &mut E, insn: &Instruction) -> Result<Flow, Fault> {
    if real_addressing(st) {
        return Err(Fault::ud());
    }
    let destination = operand::read_rm(st, env, insn, 0, 2)?;
    let rpl = operand::register(st, insn.op1_register()) & 3;
    let raised = destination & 3 < rpl;
    if raised {
        operand::write_rm(st, env, insn, 0, 2, (destination & !3) | rpl)?;
    }
    set_flags(st, eflags::ZF, if raised { eflags::ZF } else { 0 });
    Ok(Flow::Next)
}

fn set_edx_eax(st: &mut GuestState, value: u64) {
    st.set_reg32(gpr::AX, value as u32);
    st.set_reg32(gpr::DX, (value >> 32) as u32);
}

/// RDTSC, and RDTSCP where `aux` is true.
/// # Errors
/// #UD for RDTSCP if the model lacks it; #GP(0) outside ring 0 with CR4.TSD.
pub fn rdtsc<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    model: &CpuModel,
    aux: bool,
) -> Result<Flow, Fault> {
    if aux && !model.has_rdtscp() {
        return Err(Fault::ud());
    }
    if st.cr4 & cr4::TSD != 0 && st.cpl != 0 {
        return Err(Fault::gp(0));
    }
    // A single step would see the instruction twice.
    let open = st.if_flag != 0 && st.interrupt_shadow == 0 && st.sys_flags & eflags::TF == 0;
    if open && env.timers_overdue() {
        return Ok(Flow::Repeat);
    }
    let ticks = env.tsc().wrapping_add(st.msr.tsc_offset);
    set_edx_eax(st, ticks);
    if aux {
        let aux = st.msr.tsc_aux as u32;
        st.set_reg32(gpr::CX, aux);
    }
    Ok(Flow::Next)
}

/// RDPMC: the model has no performance counters, so every index is invalid.
/// # Errors
/// #GP(0).
pub fn rdpmc() -> Result<Flow, Fault> {
    Err(Fault::gp(0))
}

/// RDMSR.
/// # Errors
/// #GP(0) if CPL is not 0 or the register does not exist.
pub fn rdmsr<E: Env>(st: &mut GuestState, env: &mut E, model: &CpuModel) -> Result<Flow, Fault> {
    require_cpl0(st)?;
    let index = st.reg32(gpr::CX);
    let value = msr::read(st, env, model, index)?;
    set_edx_eax(st, value);
    Ok(Flow::Next)
}

/// WRMSR.
/// # Errors
/// #GP(0) if CPL is not 0, the register does not exist, or the value is not allowed.
pub fn wrmsr<E: Env>(st: &mut GuestState, env: &mut E, model: &CpuModel) -> Result<Flow, Fault> {
    require_cpl0(st)?;
    let index = st.reg32(gpr::CX);
    let value = u64::from(st.reg32(gpr::DX)) << 32 | u64::from(st.reg32(gpr::AX));
    msr::write(st, env, model, index, value)?;
    Ok(Flow::Next)
}

/// CPUID.
pub fn cpuid(st: &mut GuestState, model: &CpuModel) -> Flow {
    let (leaf, subleaf) = (st.reg32(gpr::AX), st.reg32(gpr::CX));
    let [eax, ebx, ecx, edx] = model.cpuid(st, leaf, subleaf);
    st.set_reg32(gpr::AX, eax);
    st.set_reg32(gpr::BX, ebx);
    st.set_reg32(gpr::CX, ecx);
    st.set_reg32(gpr::DX, edx);
    Flow::Next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::execute::tests::{faults, run};
    use crate::cpu::testenv::{CODE0, CODE3, DATA0, DATA3, TSS, machine, segment, set_ring};

    #[test]
    fn descriptor_table_registers_load_24_or_32_base_bits_and_store_all() {
        let (mut st, mut env) = machine();
        env.put16(0x5000, 0x1ff);
        env.put32(0x5002, 0x8765_4321);
        assert_eq!(
            run(&mut st, &mut env, &[0x0f, 0x01, 0x1d, 0, 0x50, 0, 0]),
            Ok(Flow::Next)
        );
        assert_eq!(
            st.idtr,
            TableReg {
                base: 0x8765_4321,
                limit: 0x1ff
            }
        );
        assert_eq!(
            run(&mut st, &mut env, &[0x66, 0x0f, 0x01, 0x15, 0, 0x50, 0, 0]),
            Ok(Flow::Next)
        );
        assert_eq!(
            st.gdtr,
            TableReg {
                base: 0x0065_4321,
                limit: 0x1ff
            }
        );
        set_ring(&mut st, 3);
        assert_eq!(
            run(&mut st, &mut env, &[0x66, 0x0f, 0x01, 0x0d, 0, 0x60, 0, 0]),
            Ok(Flow::Next)
        ); // sidt
        assert_eq!((env.get16(0x6000), env.get32(0x6002)), (0x1ff, 0x8765_4321));
        assert_eq!(
            run(&mut st, &mut env, &[0x0f, 0x01, 0x05, 0, 0x60, 0, 0]),
            Ok(Flow::Next)
        ); // sgdt
        assert_eq!((env.get16(0x6000), env.get32(0x6002)), (0x1ff, 0x0065_4321));
    }

    #[test]
    fn task_and_local_table_registers_are_stored_and_loaded() {
        let (mut st, mut env) = machine();
        st.set_reg32(gpr::AX, u32::MAX);
        assert_eq!(run(&mut st, &mut env, &[0x0f, 0x00, 0xc8]), Ok(Flow::Next)); // str eax
        assert_eq!(st.reg32(gpr::AX), u32::from(TSS));
        env.gdt(0x30, segment(0x9000, 0x1f, 0x0082));
        st.set_reg32(gpr::AX, 0x30);
        assert_eq!(run(&mut st, &mut env, &[0x0f, 0x00, 0xd0]), Ok(Flow::Next)); // lldt ax
        assert_eq!((st.ldtr.selector, st.ldtr.base), (0x30, 0x9000));
        assert_eq!(
            run(&mut st, &mut env, &[0x66, 0x0f, 0x00, 0xc1]),
            Ok(Flow::Next)
        ); // sldt cx
        assert_eq!(st.reg16(gpr::CX), 0x30);
        faults(&mut st, &mut env, &[0x0f, 0x00, 0xd8], Fault::gp(0x30)); // ltr of an LDT
    }

    #[test]
    fn selector_queries_tell_by_zf_and_keep_the_register_where_hidden() {
        let (mut st, mut env) = machine();
        set_ring(&mut st, 3);
        // selector; LAR, LSL, VERR and VERW see it from ring 3
        let cases = [
            (DATA3, true, true),
            (CODE3, true, false),
            (DATA0, false, false),
            (CODE0, false, false),
            (0, false, false),
        ];
        for (selector, visible, writable) in cases {
            for (code, expected) in [
                (&[0x0f, 0x02, 0xd8][..], visible),
                (&[0x0f, 0x03, 0xd8], visible),
                (&[0x0f, 0x00, 0xe0], visible),
                (&[0x0f, 0x00, 0xe8], writable),
            ] {
                st.set_reg32(gpr::AX, u32::from(selector));
                st.set_reg32(gpr::BX, 0x5555);
                assert_eq!(run(&mut st, &mut env, code), Ok(Flow::Next));
                assert_eq!(
                    st.eflags() & eflags::ZF != 0,
                    expected,
                    "{selector:x} {code:02x?}"
                );
                assert!(expected || st.reg32(gpr::BX) == 0x5555);
            }
        }
        st.set_reg32(gpr::AX, u32::from(DATA3));
        assert_eq!(run(&mut st, &mut env, &[0x0f, 0x03, 0xd8]), Ok(Flow::Next)); // lsl ebx, eax
        assert_eq!(st.reg32(gpr::BX), u32::MAX);
    }

    #[test]
    fn arpl_raises_the_rpl() {
        let (mut st, mut env) = machine();
        env.put16(0x5000, 0x11);
        st.set_reg32(gpr::CX, 0x1b);
        let code = [0x63, 0x0d, 0, 0x50, 0, 0];
        assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Next));
        assert_eq!(
            (env.get16(0x5000), st.eflags() & eflags::ZF),
            (0x13, eflags::ZF)
        );
        assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Next));
        assert_eq!((env.get16(0x5000), st.eflags() & eflags::ZF), (0x13, 0));
        env.read_only_pages.push(0x5000);
        assert_eq!(run(&mut st, &mut env, &code), Ok(Flow::Next)); // nothing to write
        st.set_reg32(gpr::CX, 3);
        env.read_only_pages.clear();
        env.put16(0x5000, 0x11);
        env.read_only_pages.push(0x5000);
        faults(&mut st, &mut env, &code, Fault::page(0x5000, 3));
    }

    #[test]
    fn the_time_stamp_counter_obeys_tsd_and_its_offset() {
        let (mut st, mut env) = machine();
        env.tsc = 0x1_0000_0000;
        st.msr.tsc_offset = 0x23;
        st.msr.tsc_aux = 77;
        st.cr4 = cr4::TSD;
        assert_eq!(run(&mut st, &mut env, &[0x0f, 0x01, 0xf9]), Ok(Flow::Next)); // rdtscp
        assert_eq!(
            (st.reg32(gpr::DX), st.reg32(gpr::AX), st.reg32(gpr::CX)),
            (1, 0x23, 77)
        );
        set_ring(&mut st, 3);
        faults(&mut st, &mut env, &[0x0f, 0x31], Fault::gp(0));
        faults(&mut st, &mut env, &[0x0f, 0x01, 0xf9], Fault::gp(0));
        st.cr4 = 0;
        assert_eq!(run(&mut st, &mut env, &[0x0f, 0x31]), Ok(Flow::Next));
    }
}
