//! Segment and gate descriptors, and the GDT and LDT that hold them. Intel SDM vol. 3A, 3.4.5
//! and 3.5. Long mode's 16-byte system descriptors are not modelled.

use crate::cpu::env::{Env, Privilege};
use crate::cpu::fault::{Fault, Vector};
use ring3_translator::addr::LinAddr;
use ring3_translator::mutation::Mutation;
use ring3_translator::state::{GuestState, SegAttr, SegClass, Segment};

/// What a descriptor describes. Intel SDM vol. 3A, table 3-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescriptorKind {
    /// A code segment.
    Code,
    /// A data segment.
    Data,
    /// A 16-bit task state segment.
    Tss16 {
        /// The B bit of the type.
        busy: bool,
    },
    /// A 32-bit task state segment.
    Tss32 {
        /// The B bit of the type.
        busy: bool,
    },
    /// A local descriptor table.
    Ldt,
    /// A task gate.
    TaskGate,
    /// A 16-bit call gate.
    CallGate16,
    /// A 32-bit call gate.
    CallGate32,
    /// A 16-bit interrupt gate.
    InterruptGate16,
    /// A 32-bit interrupt gate.
    InterruptGate32,
    /// A 16-bit trap gate.
    TrapGate16,
    /// A 32-bit trap gate.
    TrapGate32,
    /// A reserved system type (0, 8, 10 or 13).
    Reserved(u8),
}

/// A raw 8-byte descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// Linear base address of a segment or system segment.
    #[must_use]
    pub const fn base(self) -> u64 {
        ((self.0 >> 16) & 0xff_ffff) | ((self.0 >> 32) & 0xff00_0000)
    }

    /// Limit in bytes, scaled by G.
    #[must_use]
    pub const fn limit(self) -> u32 {
        let raw = (self.0 & 0xffff) as u32 | ((self.0 >> 32) & 0xf_0000) as u32;
        if self.attr().0 & 0x8000 != 0 {
            (raw << 12) | 0xfff
        } else {
            raw
        }
    }

    /// Access rights, without the limit bits that lie between them.
    #[must_use]
    pub const fn attr(self) -> SegAttr {
        SegAttr((self.0 >> 40) as u16 & 0xf0ff)
    }

    /// Descriptor privilege level, 0-3.
    #[must_use]
    pub const fn dpl(self) -> u8 {
        self.attr().dpl()
    }

    /// P: present.
    #[must_use]
    pub const fn present(self) -> bool {
        self.attr().present()
    }

    /// What this descriptor describes.
    #[must_use]
    pub const fn kind(self) -> DescriptorKind {
        let attr = self.attr();
        if attr.is_code_or_data() {
            return if attr.is_code() {
                DescriptorKind::Code
            } else {
                DescriptorKind::Data
            };
        }
        match attr.kind() {
            1 => DescriptorKind::Tss16 { busy: false },
            2 => DescriptorKind::Ldt,
            3 => DescriptorKind::Tss16 { busy: true },
            4 => DescriptorKind::CallGate16,
            5 => DescriptorKind::TaskGate,
            6 => DescriptorKind::InterruptGate16,
            7 => DescriptorKind::TrapGate16,
            9 => DescriptorKind::Tss32 { busy: false },
            11 => DescriptorKind::Tss32 { busy: true },
            12 => DescriptorKind::CallGate32,
            14 => DescriptorKind::InterruptGate32,
            15 => DescriptorKind::TrapGate32,
            reserved => DescriptorKind::Reserved(reserved),
        }
    }

    /// A gate's target selector.
    #[must_use]
    pub const fn gate_selector(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// A 32-bit gate's target offset; a 16-bit gate's is its low half.
    #[must_use]
    pub const fn gate_offset(self) -> u32 {
        (self.0 & 0xffff) as u32 | ((self.0 >> 32) as u32 & 0xffff_0000)
    }

    /// A call gate's parameter count, 0-31 stack slots.
    #[must_use]
    pub const fn gate_count(self) -> u32 {
        (self.0 >> 32) as u32 & 0x1f
    }

    /// The segment register contents that loading this descriptor through `selector` gives.
    #[must_use]
    pub const fn to_segment(self, selector: u16) -> Segment {
        Segment {
            base: self.base(),
            limit: self.limit(),
            selector,
            attr: self.attr(),
            usable: true,
            class: SegClass::Odd,
        }
    }
}

/// A fault whose error code names a selector: TI and index, RPL and EXT clear.
/// Intel SDM vol. 3A, 6.13.
#[must_use]
pub const fn selector_fault(vector: Vector, selector: u16) -> Fault {
    Fault::with_error(vector, (selector & 0xfffc) as u32)
}

/// #GP(selector).
#[must_use]
pub const fn gp_selector(selector: u16) -> Fault {
    selector_fault(Vector::Gp, selector)
}

/// True for the null selectors 0-3.
#[must_use]
pub const fn is_null(selector: u16) -> bool {
    selector & 0xfffc == 0
}

/// The linear address of the descriptor that `selector` names, or `None` outside the table.
#[inline]
#[must_use]
pub fn descriptor_address(st: &GuestState, selector: u16) -> Option<LinAddr> {
    let (base, limit, usable) = if selector & 4 == 0 {
        (st.gdtr.base, u32::from(st.gdtr.limit), true)
    } else {
        (st.ldtr.base, st.ldtr.limit, st.ldtr.usable)
    };
    let offset = u32::from(selector & 0xfff8);
    (usable && offset + 7 <= limit).then(|| LinAddr(base).add32(offset))
}

/// Reads the descriptor that `selector` names, or `None` outside the table (LAR, LSL, VERR, VERW).
///
/// # Errors
/// #PF of the table access.
#[inline]
pub fn try_read_descriptor<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
) -> Result<Option<Descriptor>, Fault> {
    let Some(at) = descriptor_address(st, selector) else {
        return Ok(None);
    };
    let mut raw = [0; 8];
    env.read(st, at, &mut raw, Privilege::Supervisor)?;
    Ok(Some(Descriptor(u64::from_le_bytes(raw))))
}

/// Reads the descriptor that `selector` names; outside the table it raises `vector(selector)`.
///
/// # Errors
/// `vector(selector)`, or #PF of the table access.
#[inline]
pub fn read_descriptor_or<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    vector: Vector,
) -> Result<Descriptor, Fault> {
    try_read_descriptor(st, env, selector)?.ok_or(selector_fault(vector, selector))
}

/// Reads the descriptor that `selector` names from the GDT or LDT. Does not test for null.
///
/// # Errors
/// #GP(selector) outside the table; #PF of the table access.
#[inline]
pub fn read_descriptor<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
) -> Result<Descriptor, Fault> {
    read_descriptor_or(st, env, selector, Vector::Gp)
}

/// Sets the accessed bit of a code or data descriptor in its table, if it is clear, and returns
/// the descriptor with the bit set. Intel SDM vol. 3A, 3.4.5.1.
///
/// # Errors
/// #PF of the table access.
#[inline]
pub fn set_accessed<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    descriptor: Descriptor,
) -> Result<Descriptor, Fault> {
    if descriptor.attr().kind() & 1 != 0 || st.broken(Mutation::DescriptorAccessed) {
        return Ok(descriptor);
    }
    write_access_byte(st, env, selector, Descriptor(descriptor.0 | 1 << 40))
}

/// Sets or clears the busy bit of a TSS descriptor in its table and returns the new descriptor.
///
/// # Errors
/// #PF of the table access.
pub fn set_busy<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    descriptor: Descriptor,
    busy: bool,
) -> Result<Descriptor, Fault> {
    let bit = 1u64 << 41;
    let raw = if busy {
        descriptor.0 | bit
    } else {
        descriptor.0 & !bit
    };
    write_access_byte(st, env, selector, Descriptor(raw))
}

/// Only byte 5 is written: the other bytes may change under another processor's hands.
fn write_access_byte<E: Env>(
    st: &mut GuestState,
    env: &mut E,
    selector: u16,
    descriptor: Descriptor,
) -> Result<Descriptor, Fault> {
    if let Some(at) = descriptor_address(st, selector) {
        env.write(
            st,
            at.add32(5),
            &[(descriptor.0 >> 40) as u8],
            Privilege::Supervisor,
        )?;
    }
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testenv::{FlatEnv, GDT_BASE, machine};

    #[test]
    fn fields_of_known_descriptors() {
        // (raw, base, limit, attr, kind)
        let cases = [
            (
                0x00cf_9b00_0000_ffffu64,
                0,
                0xffff_ffff,
                0xc09b,
                DescriptorKind::Code,
            ),
            (
                0x00cf_f300_0000_ffff,
                0,
                0xffff_ffff,
                0xc0f3,
                DescriptorKind::Data,
            ),
            (
                0x1240_9234_5678_9abc,
                0x1234_5678,
                0x9abc,
                0x4092,
                DescriptorKind::Data,
            ),
            (
                0x000a_9200_0000_1234,
                0,
                0xa_1234,
                0x0092,
                DescriptorKind::Data,
            ),
            (
                0x0000_8900_4000_0067,
                0x4000,
                0x67,
                0x0089,
                DescriptorKind::Tss32 { busy: false },
            ),
            (
                0x0000_8300_4000_002b,
                0x4000,
                0x2b,
                0x0083,
                DescriptorKind::Tss16 { busy: true },
            ),
            (
                0x0000_8200_4000_0007,
                0x4000,
                7,
                0x0082,
                DescriptorKind::Ldt,
            ),
            (
                0x0000_8800_0000_0000,
                0,
                0,
                0x0088,
                DescriptorKind::Reserved(8),
            ),
        ];
        for (raw, base, limit, attr, kind) in cases {
            let d = Descriptor(raw);
            assert_eq!(
                (d.base(), d.limit(), d.attr(), d.kind()),
                (base, limit, SegAttr(attr), kind),
                "{raw:#x}"
            );
        }
        let gate = Descriptor(0x1234_ec05_0008_5678);
        assert_eq!(gate.kind(), DescriptorKind::CallGate32);
        assert_eq!(
            (gate.gate_selector(), gate.gate_offset(), gate.gate_count()),
            (8, 0x1234_5678, 5)
        );
        assert_eq!((gate.dpl(), gate.present()), (3, true));
    }

    #[test]
    fn table_limits_are_checked() {
        let (mut st, mut env) = machine();
        st.gdtr.limit = 0x16;
        assert!(read_descriptor(&mut st, &mut env, 0x0b).is_ok());
        assert_eq!(
            read_descriptor(&mut st, &mut env, 0x13),
            Err(Fault::gp(0x10))
        );
        st.gdtr.limit = 0x17;
        assert!(read_descriptor(&mut st, &mut env, 0x13).is_ok());
        assert_eq!(
            read_descriptor(&mut st, &mut env, 0x0f),
            Err(Fault::gp(0x0c)),
            "no LDT is loaded"
        );
        assert_eq!(
            read_descriptor_or(&mut st, &mut env, 0xffff, Vector::Ts),
            Err(Fault::with_error(Vector::Ts, 0xfffc))
        );
    }

    #[test]
    fn accessed_bit_is_written_once() {
        let (mut st, mut env) = machine();
        env.put64(GDT_BASE + 8, 0x00cf_9a00_0000_ffff);
        let d = read_descriptor(&mut st, &mut env, 8).unwrap();
        let writes = env.writes;
        let d = set_accessed(&mut st, &mut env, 8, d).unwrap();
        assert_eq!(
            (d.0, env.get64(GDT_BASE + 8)),
            (0x00cf_9b00_0000_ffff, 0x00cf_9b00_0000_ffff)
        );
        set_accessed(&mut st, &mut env, 8, d).unwrap();
        assert_eq!(env.writes, writes + 1);
    }

    #[test]
    fn a_page_fault_of_the_table_passes_through() {
        let (mut st, mut env): (_, FlatEnv) = machine();
        env.fault_pages.push(GDT_BASE);
        let fault = read_descriptor(&mut st, &mut env, 8).unwrap_err();
        assert_eq!(
            (fault.vector, fault.address),
            (Vector::Pf, Some(GDT_BASE + 8))
        );
    }
}
