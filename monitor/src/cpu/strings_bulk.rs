//! Runs of string elements by one copy.
//!
//! A run stays within one page of the source and of the destination, and is attempted only where
//! the result equals that of one element after another:
//! - MOVS: copying `n` bytes at once is the same as element by element unless an element is
//!   written before it is read: upwards if the destination starts inside the source, downwards if
//!   it ends there. In RAM that is decided by physical addresses, since two linear pages may be one
//!   physical page.
//! - Downwards (DF), MOVS and STOS only.
//! - Device memory: a read may have a side effect that the following write uses (the VGA's
//!   latches). Source and destination then lie in one aperture of 128 KiB, so closer copies are
//!   done by elements. Farther ones go by the distance modulo the page size.
//! - Comparisons read both sides ahead within the page and stop at the deciding element.
//! - Any failed check or page fault falls back to elements, which find the exact one.

use crate::cpu::env::{Access, Env, Privilege};
use crate::cpu::fault::Fault;
use crate::cpu::segment;
use crate::cpu::strings::{StringInsn, StringOp};
use ring3_translator::addr::{LinAddr, PAGE_SIZE};
use ring3_translator::state::{GuestState, SegReg, gpr};

const PAGE: u32 = PAGE_SIZE as u32;
/// Bytes that a comparison reads ahead at most.
const SCAN_BYTES: usize = 256;
/// Bytes of the VGA's memory aperture at A0000H.
const VGA_BYTES: u32 = 0x2_0000;

/// Elements from `offset` on until it wraps at the address size.
fn until_wrap(run: &StringInsn, offset: u32) -> u64 {
    let size = u64::from(run.size);
    let room = u64::from(run.mask) + 1 - u64::from(offset);
    if run.down {
        u64::from(offset) / size + u64::from(room >= size)
    } else {
        room / size
    }
}

/// Elements from `at` on to the end of its page, or its beginning; 0 if the first crosses the end.
fn until_page_end(run: &StringInsn, at: LinAddr) -> u32 {
    let offset = at.offset() as u32;
    let up = (PAGE - offset) / run.size;
    if run.down && up > 0 {
        offset / run.size + 1
    } else {
        up
    }
}

/// The linear address of the lowest of `n` elements from `seg:offset` on, if all pass the segment
/// check.
fn checked(
    st: &GuestState,
    run: &StringInsn,
    seg: SegReg,
    offset: u32,
    n: u32,
    access: Access,
) -> Option<LinAddr> {
    let lowest = if run.down {
        offset - (n - 1) * run.size
    } else {
        offset
    };
    segment::linear(st, seg, lowest, n * run.size, access).ok()
}

/// The most bytes that MOVS may copy at once from `from` to `to`.
fn copy_limit<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    run: &StringInsn,
    from: LinAddr,
    to: LinAddr,
) -> u32 {
    let who = Privilege::of(st);
    if let Some(source) = env.ram_address(st, from, Access::Read, who)
        && let Some(destination) = env.ram_address(st, to, Access::Write, who)
    {
        let ahead = if run.down {
            source.0.wrapping_sub(destination.0)
        } else {
            destination.0.wrapping_sub(source.0)
        };
        return match ahead {
            distance @ 1..PAGE_SIZE if source.page() == destination.page() => distance as u32,
            _ => PAGE,
        };
    }
    let (from, to) = (from.0 as u32, to.0 as u32);
    if from.abs_diff(to) < VGA_BYTES {
        return 0;
    }
    let ahead = if run.down {
        from.wrapping_sub(to)
    } else {
        to.wrapping_sub(from)
    };
    match ahead % PAGE {
        0 => PAGE,
        distance => distance,
    }
}

/// Compares up to `n` elements, through the deciding one. Returns how many; 0 after a page fault.
fn scan<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    run: &StringInsn,
    from: LinAddr,
    to: LinAddr,
    n: u32,
) -> u32 {
    let size = run.size as usize;
    let bytes = n as usize * size;
    let (mut first, mut second) = ([0u8; SCAN_BYTES], [0u8; SCAN_BYTES]);
    let who = Privilege::of(st);
    if run.op == StringOp::Cmps {
        if env.read(st, from, &mut first[..bytes], who).is_err() {
            return 0;
        }
    } else {
        let value = run.accumulator(st).to_le_bytes();
        for element in first[..bytes].chunks_exact_mut(size) {
            element.copy_from_slice(&value[..size]);
        }
    }
    if env.read(st, to, &mut second[..bytes], who).is_err() {
        return 0;
    }
    let pairs = || {
        first[..bytes]
            .chunks_exact(size)
            .zip(second[..bytes].chunks_exact(size))
    };
    let decides = |(a, b): (&[u8], &[u8])| (a == b) != run.while_equal;
    let done = pairs().position(decides).map_or(n, |at| at as u32 + 1);
    if let Some((a, b)) = pairs().nth(done as usize - 1) {
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u32, |n, b| n << 8 | u32::from(*b));
        run.compare(st, number(a), number(b));
    }
    run.advance(st, done);
    done
}

/// Does up to `most` elements of a repeated instruction at once and moves the pointers, not the
/// counter. Returns how many; 0 means that one element has to be done the slow way.
///
/// # Errors
/// None of its own: a fault is left for the slow way, except after a port was read.
pub fn chunk<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    run: &StringInsn,
    most: u32,
) -> Result<u32, Fault> {
    let copies = matches!(run.op, StringOp::Movs | StringOp::Stos);
    if run.op == StringOp::Lods || (run.down && !copies) {
        return Ok(0);
    }
    let (si, di) = (run.index(st, gpr::SI), run.index(st, gpr::DI));
    let access = if run.op.compares() {
        Access::Read
    } else {
        Access::Write
    };
    let mut n = if run.op.compares() {
        most.min(SCAN_BYTES as u32 / run.size)
    } else {
        most
    };
    let mut from = LinAddr(0);
    let mut to = LinAddr(0);
    if run.op.uses_source() {
        n = u64::from(n).min(until_wrap(run, si)) as u32;
        let Some(at) = checked(st, run, run.source, si, 1, Access::Read) else {
            return Ok(0);
        };
        n = n.min(until_page_end(run, at));
        from = at;
    }
    if run.op.uses_destination() {
        n = u64::from(n).min(until_wrap(run, di)) as u32;
        let Some(at) = checked(st, run, SegReg::Es, di, 1, access) else {
            return Ok(0);
        };
        n = n.min(until_page_end(run, at));
        to = at;
    }
    if run.op == StringOp::Movs {
        n = n.min(copy_limit(st, env, run, from, to) / run.size);
    }
    if n < 2 {
        return Ok(0);
    }
    if run.op.uses_source() {
        let Some(lowest) = checked(st, run, run.source, si, n, Access::Read) else {
            return Ok(0);
        };
        from = lowest;
    }
    if run.op.uses_destination() {
        let Some(lowest) = checked(st, run, SegReg::Es, di, n, access) else {
            return Ok(0);
        };
        to = lowest;
    }
    if run.op.compares() {
        return Ok(scan(st, env, run, from, to, n));
    }
    let size = run.size as usize;
    let bytes = n as usize * size;
    let mut buffer = [0u8; PAGE as usize];
    let data = &mut buffer[..bytes];
    let who = Privilege::of(st);
    let port = st.reg16(gpr::DX);
    match run.op {
        StringOp::Movs => {
            if env.read(st, from, data, who).is_err() || env.write(st, to, data, who).is_err() {
                return Ok(0);
            }
        }
        StringOp::Stos => {
            let value = st.reg32(gpr::AX).to_le_bytes();
            for element in data.chunks_exact_mut(size) {
                element.copy_from_slice(&value[..size]);
            }
            if env.write(st, to, data, who).is_err() {
                return Ok(0);
            }
        }
        StringOp::Ins => {
            if env.probe(st, to, bytes as u32, Access::Write, who).is_err() {
                return Ok(0);
            }
            env.port_in_run(port, size as u8, data);
            env.write(st, to, data, who)?;
        }
        StringOp::Outs => {
            if env.read(st, from, data, who).is_err() {
                return Ok(0);
            }
            for element in data.chunks_exact(size) {
                let mut value = [0u8; 4];
                value[..size].copy_from_slice(element);
                env.port_out(port, size as u8, u32::from_le_bytes(value));
            }
        }
        StringOp::Lods | StringOp::Scas | StringOp::Cmps => return Ok(0),
    }
    run.advance(st, n);
    Ok(n)
}
