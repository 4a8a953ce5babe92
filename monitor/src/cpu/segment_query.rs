//! LAR, LSL, VERR and VERW: what a selector would give, without loading it. Intel SDM vol. 2A
//! and 2B. `None` and `false` mean ZF clear.

use crate::cpu::descriptor::{Descriptor, DescriptorKind, is_null, try_read_descriptor};
use crate::cpu::env::Env;
use crate::cpu::fault::Fault;
use crate::cpu::segment::real_addressing;
use ring3_translator::state::GuestState;

/// Reads the descriptor if the selector is not null, in its table, and visible at CPL and RPL.
fn visible<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
) -> Result<Option<Descriptor>, Fault> {
    // These instructions are not recognized in real-address and virtual-8086 mode: #UD.
    if real_addressing(st) {
        return Err(Fault::ud());
    }
    if is_null(selector) {
        return Ok(None);
    }
    let Some(d) = try_read_descriptor(st, env, selector)? else {
        return Ok(None);
    };
    // IF SegmentDescriptor is not a conforming code segment and (CPL > DPL) or (RPL > DPL).
    let hidden = !d.attr().is_conforming() && (st.cpl > d.dpl() || (selector & 3) as u8 > d.dpl());
    Ok((!hidden).then_some(d))
}

/// LAR: the second doubleword of the descriptor, masked by 00FFFF00H (bits 16-19 are undefined;
/// processors give the limit's high bits).
///
/// # Errors
/// #UD in real and V8086 mode; #PF.
pub fn lar<E: Env>(st: &mut GuestState, env: &mut E, selector: u16) -> Result<Option<u32>, Fault> {
    use DescriptorKind as K;
    Ok(visible(st, env, selector)?.and_then(|d| match d.kind() {
        K::Code | K::Data | K::Ldt | K::TaskGate => Some((d.0 >> 32) as u32 & 0x00ff_ff00),
        K::Tss16 { .. } | K::Tss32 { .. } | K::CallGate16 | K::CallGate32 => {
            Some((d.0 >> 32) as u32 & 0x00ff_ff00)
        }
        K::InterruptGate16
        | K::InterruptGate32
        | K::TrapGate16
        | K::TrapGate32
        | K::Reserved(_) => None,
    }))
}

/// LSL: the segment limit in bytes.
///
/// # Errors
/// #UD in real and V8086 mode; #PF.
pub fn lsl<E: Env>(st: &mut GuestState, env: &mut E, selector: u16) -> Result<Option<u32>, Fault> {
    use DescriptorKind as K;
    Ok(visible(st, env, selector)?.and_then(|d| match d.kind() {
        K::Code | K::Data | K::Ldt | K::Tss16 { .. } | K::Tss32 { .. } => Some(d.limit()),
        _ => None,
    }))
}

/// VERR: whether the segment can be read.
///
/// # Errors
/// #UD in real and V8086 mode; #PF.
pub fn verr<E: Env>(st: &mut GuestState, env: &mut E, selector: u16) -> Result<bool, Fault> {
    Ok(visible(st, env, selector)?.is_some_and(|d| d.attr().is_readable()))
}

/// VERW: whether the segment can be written.
///
/// # Errors
/// #UD in real and V8086 mode; #PF.
pub fn verw<E: Env>(st: &mut GuestState, env: &mut E, selector: u16) -> Result<bool, Fault> {
    Ok(visible(st, env, selector)?.is_some_and(|d| d.attr().is_writable()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testenv::{GDT_BASE, machine};

    #[test]
    fn what_each_kind_of_descriptor_answers() {
        // (descriptor, cpl, rpl, lar, lsl, verr, verw)
        let cases = [
            (
                0x00cf_9300_0000_ffff_u64,
                0,
                0,
                Some(0x00cf_9300),
                Some(u32::MAX),
                true,
                true,
            ),
            (0x00cf_9300_0000_ffff, 3, 3, None, None, false, false),
            (0x00cf_9300_0000_ffff, 0, 3, None, None, false, false),
            (
                0x00cf_f100_0000_ffff,
                3,
                3,
                Some(0x00cf_f100),
                Some(u32::MAX),
                true,
                false,
            ),
            (
                0x0040_9900_0000_0fff,
                0,
                0,
                Some(0x0040_9900),
                Some(0xfff),
                false,
                false,
            ),
            (
                0x0040_9e00_0000_0fff,
                3,
                3,
                Some(0x0040_9e00),
                Some(0xfff),
                true,
                false,
            ),
            (
                0x0000_8900_0000_0067,
                0,
                0,
                Some(0x8900),
                Some(0x67),
                false,
                false,
            ),
            (
                0x0000_8500_0030_0000,
                0,
                0,
                Some(0x8500),
                None,
                false,
                false,
            ),
            (
                0x0000_ec00_0008_0000,
                3,
                3,
                Some(0xec00),
                None,
                false,
                false,
            ),
            (0x0000_8e00_0008_0000, 0, 0, None, None, false, false),
            (0x0000_8800_0008_0000, 0, 0, None, None, false, false),
        ];
        for (raw, cpl, rpl, lar_, lsl_, r, w) in cases {
            let (mut st, mut env) = machine();
            st.cpl = cpl;
            env.put64(GDT_BASE + 0x40, raw);
            let (s, e, sel) = (&mut *st, &mut env, 0x40 | rpl);
            let got = (
                lar(s, e, sel),
                lsl(s, e, sel),
                verr(s, e, sel),
                verw(s, e, sel),
            );
            assert_eq!(
                got,
                (Ok(lar_), Ok(lsl_), Ok(r), Ok(w)),
                "{raw:#x} cpl {cpl} rpl {rpl}"
            );
            assert_eq!((lar(s, e, 0), lar(s, e, 0xfff8)), (Ok(None), Ok(None)));
            s.cr0 &= !1;
            assert_eq!(lar(s, e, sel), Err(Fault::ud()));
        }
    }
}
