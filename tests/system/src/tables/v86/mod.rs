//! V8086 mode: what is sensitive to IOPL, what exists at all, interrupts and exceptions out of it,
//! and the virtual-mode extensions (CR4.VME, CR4.PVI).

use crate::descriptor::{kind, segment};
use crate::layout as at;
use crate::row::{Field, Row, Table, eflags};

mod instructions;
mod interrupts;
mod leaving;
mod protected;
mod sensitive;

pub(super) const VME: u32 = 1;

pub(super) const PVI: u32 = 2;

/// Where the stack of V8086 rows begins, linear.
pub(super) const STACK: u32 = at::LOW_STACK + 0x8000;

/// The TSS with a redirection bitmap: bitmap at 68H, I/O map after it.
pub(super) const IO_MAP: u16 = 0x88;

pub(super) fn v86(name: String, iopl: u32, cr4: u32) -> Row {
    let mut row = Row::new(name).v86(iopl);
    row.cr4 = cr4;
    row.descriptor(
        at::TSS_SEL,
        segment(at::TSS, 0x2ff, kind::TSS32, 0, true, 0),
    );
    row.put(at::TSS + 0x66, &IO_MAP.to_le_bytes());
    // No port is open: the map's bits are set, and the byte after it.
    row.put(at::TSS + u32::from(IO_MAP), &[0xff; 0x60]);
    row
}

/// Frame of a V8086 interrupt, as 20.3.1 has it.
pub(super) fn expect_frame(row: &mut Row, error: bool) {
    row.expect(Field::Cs, at::LOW_CODE >> 4);
    row.expect(Field::Ss, at::LOW_STACK >> 4);
    for field in [Field::Ds, Field::Es, Field::Fs, Field::Gs] {
        row.expect(field, at::LOW_DATA >> 4);
    }
    row.expect(
        Field::HandlerEsp,
        at::STACK0 - 36 - if error { 4 } else { 0 },
    );
    row.expect_bits(
        Field::HandlerFlags,
        eflags::VM | eflags::TF | eflags::NT | eflags::IF,
        0,
    );
}

/// The tables.
pub fn tables() -> Vec<Table> {
    vec![
        sensitive::table(),
        interrupts::table(),
        instructions::table(),
        leaving::table(),
        protected::table(),
    ]
}
