//! What a running task reads from its own TSS: inner stacks and the I/O permission bitmap.
//! Intel SDM vol. 3A, 7.2.1, and vol. 1, 19.5.2.

use crate::cpu::descriptor::selector_fault;
use crate::cpu::env::{Env, Privilege};
use crate::cpu::fault::{Fault, Vector};
use ring3_translator::addr::LinAddr;
use ring3_translator::mutation::Mutation;
use ring3_translator::state::GuestState;

/// Offset of the I/O map base in a 32-bit TSS.
const IO_MAP_BASE: u32 = 0x66;
/// The smallest limit of a 32-bit TSS.
pub(crate) const TSS32_LIMIT: u32 = 0x67;

/// True if TR holds a 32-bit TSS (type 9 or 11).
#[inline]
pub(crate) fn is_tss32(st: &GuestState) -> bool {
    st.tr.usable && st.tr.attr.kind() & 8 != 0
}

/// The inner stack pointer SS:ESP for `cpl` (0-2) from the current TSS.
///
/// # Errors
/// #TS(TR) if it is beyond the TSS limit; #PF of the TSS access.
#[inline]
pub fn stack_for_level<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    cpl: u8,
) -> Result<(u16, u32), Fault> {
    let base = LinAddr(st.tr.base);
    if is_tss32(st) {
        let offset = u32::from(cpl) * 8 + 4;
        // IF (TSSstackAddress + 5) > current TSS limit, THEN #TS(current TSS selector).
        if offset + 5 > st.tr.limit {
            return Err(selector_fault(Vector::Ts, st.tr.selector));
        }
        let mut raw = [0; 8];
        // The slot is 8 bytes; a limit that cuts off its reserved half is honoured.
        let len = if offset + 7 <= st.tr.limit { 8 } else { 6 };
        env.read(
            st,
            base.add32(offset),
            &mut raw[..len],
            Privilege::Supervisor,
        )?;
        let raw = u64::from_le_bytes(raw);
        Ok(((raw >> 32) as u16, raw as u32))
    } else {
        let offset = u32::from(cpl) * 4 + 2;
        // IF (TSSstackAddress + 3) > current TSS limit, THEN #TS(current TSS selector).
        if !st.tr.usable || offset + 3 > st.tr.limit {
            return Err(selector_fault(Vector::Ts, st.tr.selector));
        }
        let mut raw = [0; 4];
        env.read(st, base.add32(offset), &mut raw, Privilege::Supervisor)?;
        let raw = u32::from_le_bytes(raw);
        Ok(((raw >> 16) as u16, raw & 0xffff))
    }
}

fn io_map_base<E: Env>(st: &mut GuestState, env: &mut E) -> Result<u32, Fault> {
    let mut raw = [0; 2];
    env.read(
        st,
        LinAddr(st.tr.base).add32(IO_MAP_BASE),
        &mut raw,
        Privilege::Supervisor,
    )?;
    Ok(u32::from(u16::from_le_bytes(raw)))
}

/// Whether the current task may access `size` (1, 2 or 4) ports from `port`: by IOPL, else by the
/// TSS bitmap. The caller raises #GP(0) on false.
///
/// # Errors
/// #PF of the TSS access.
pub fn io_permitted<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    port: u16,
    size: u8,
) -> Result<bool, Fault> {
    // IF ((PE = 1) and ((CPL > IOPL) or (VM = 1))), the I/O permission bits decide.
    if !st.protected() || (!st.v86() && st.cpl <= st.iopl()) {
        return Ok(true);
    }
    if !is_tss32(st) || st.tr.limit < TSS32_LIMIT {
        return Ok(false);
    }
    // The processor reads two bytes, so the map must hold one more byte than the bit's.
    let offset = io_map_base(st, env)? + u32::from(port / 8);
    if offset + 1 > st.tr.limit {
        return Ok(false);
    }
    let mut raw = [0; 2];
    env.read(
        st,
        LinAddr(st.tr.base).add32(offset),
        &mut raw,
        Privilege::Supervisor,
    )?;
    let wanted = (1u16 << size) - 1;
    let first = (port & 7) ^ u16::from(st.broken(Mutation::IoBitmap));
    Ok(u16::from_le_bytes(raw) >> first & wanted == 0)
}

/// The bit of the software interrupt redirection bitmap (CR4.VME), which lies in the 32 bytes
/// before the I/O map: true sends INT `vector` through the IDT. Intel SDM vol. 3B, 20.3.3.
///
/// # Errors
/// #GP(0) without a 32-bit TSS that holds the bitmap; #PF of the TSS access.
pub(crate) fn interrupt_redirected<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    vector: u8,
) -> Result<bool, Fault> {
    if !is_tss32(st) || st.tr.limit < TSS32_LIMIT {
        return Err(Fault::gp(0));
    }
    let offset = (io_map_base(st, env)? + u32::from(vector / 8))
        .checked_sub(32)
        .ok_or(Fault::gp(0))?;
    if offset > st.tr.limit {
        return Err(Fault::gp(0));
    }
    let mut raw = [0];
    env.read(
        st,
        LinAddr(st.tr.base).add32(offset),
        &mut raw,
        Privilege::Supervisor,
    )?;
    Ok(raw[0] >> (vector & 7) & 1 != 0)
}
