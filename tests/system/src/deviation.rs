//! Where QEMU's translator is known to deviate from the manual. A row names its deviation; the run
//! then expects the row to fail under QEMU, and reports it if it does not.

/// A deviation: its name and what QEMU 7.2 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deviation {
    /// A short name for the report.
    pub name: &'static str,
    /// What QEMU does instead.
    pub what: &'static str,
}

/// Names a deviation.
macro_rules! deviations {
    ($($id:ident: $name:literal, $what:literal;)*) => {
        $(
            #[doc = $what]
            pub const $id: Deviation = Deviation { name: $name, what: $what };
        )*
    };
}

deviations! {
    RSVD_WITHOUT_P: "rsvd-without-p",
        "page faults for reserved bits report P = 0 (SDM 3A 4.7: RSVD comes with P = 1)";
    PDPTE_UNCHECKED: "pdpte-unchecked",
        "MOV to CR3 does not look at the PAE directory-pointer entries (SDM 3A 4.4.1)";
    MODIFY_READS_FIRST: "modify-reads-first",
        "read-modify-write instructions read as reads: W/R is clear in the error code, and A is set although the write is refused";
}
