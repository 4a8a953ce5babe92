//! What processor semantics need from the rest of the machine: linear memory, ports, time.

use crate::cpu::fault::Fault;
use ring3_translator::addr::{LinAddr, PhysAddr};
use ring3_translator::state::GuestState;

/// What a memory access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write (also read-modify-write).
    Write,
    /// Instruction fetch.
    Execute,
}

/// With whose rights paging checks an access. Intel SDM vol. 3A, 4.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Implicit or explicit supervisor access (CPL 0-2, descriptor tables, TSS).
    Supervisor,
    /// CPL 3.
    User,
}

impl Privilege {
    /// The rights of code at the state's CPL.
    #[must_use]
    pub fn of(st: &GuestState) -> Self {
        if st.cpl == 3 {
            Self::User
        } else {
            Self::Supervisor
        }
    }
}

/// Which TLB entries die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlbFlush {
    /// All entries, global ones too (CR0.PG, CR4.PGE/PSE/PAE changes).
    All,
    /// All but global entries (CR3 load).
    NonGlobal,
}

/// The machine around one processor.
pub trait Env {
    /// Reads linear memory with paging; crossing pages and device memory included.
    /// # Errors
    /// #PF as the architecture says; nothing was read then.
    fn read(
        &mut self,
        st: &mut GuestState,
        at: LinAddr,
        buf: &mut [u8],
        who: Privilege,
    ) -> Result<(), Fault>;
    /// Writes linear memory; all pages are checked before the first byte changes.
    /// # Errors
    /// #PF as the architecture says; nothing was written then.
    fn write(
        &mut self,
        st: &mut GuestState,
        at: LinAddr,
        data: &[u8],
        who: Privilege,
    ) -> Result<(), Fault>;
    /// Checks that `len` bytes could be accessed, without accessing them (sets A, and D for writes).
    /// # Errors
    /// #PF as the access itself would raise.
    fn probe(
        &mut self,
        st: &mut GuestState,
        at: LinAddr,
        len: u32,
        access: Access,
        who: Privilege,
    ) -> Result<(), Fault>;
    /// The physical address behind `at` if an access of this kind reaches ordinary RAM there, which
    /// has no side effects (sets A, and D for writes); `None` if it is no RAM, is not known to be,
    /// or would fault.
    fn ram_address(
        &mut self,
        _st: &mut GuestState,
        _at: LinAddr,
        _access: Access,
        _who: Privilege,
    ) -> Option<PhysAddr> {
        None
    }
    /// Whether #AC comes before #PF: AMD processors do it so (measured), Intel SDM vol. 3A, table
    /// 6-2 has it the other way round.
    fn alignment_first(&self) -> bool {
        false
    }
    /// Drops TLB entries.
    fn flush_tlb(&mut self, st: &mut GuestState, what: TlbFlush);
    /// Drops the entries of one page (INVLPG).
    fn invalidate_page(&mut self, st: &mut GuestState, at: LinAddr);
    /// Reads the four PAE directory-pointer entries at `cr3` from physical memory.
    fn read_pdptes(&mut self, cr3: u64) -> [u64; 4];
    /// Reads a port; `size` is 1, 2 or 4 bytes.
    fn port_in(&mut self, port: u16, size: u8) -> u32;
    /// Reads a port once for each element of `size` bytes in `data`.
    fn port_in_run(&mut self, port: u16, size: u8, data: &mut [u8]) {
        for element in data.chunks_exact_mut(usize::from(size)) {
            let value = self.port_in(port, size).to_le_bytes();
            element.copy_from_slice(&value[..element.len()]);
        }
    }
    /// Writes a port; `size` is 1, 2 or 4 bytes.
    fn port_out(&mut self, port: u16, size: u8, value: u32);
    /// The guest's time stamp counter without `Msrs::tsc_offset`, in ticks.
    fn tsc(&mut self) -> u64;
    /// Called before TSC is read with interrupts enabled: true if a timer has expired that nothing
    /// has acted on yet, and now an interrupt waits. It comes first then: code that measures ticks
    /// by TSC must not see their time pass before it sees them, however late their thread is.
    fn timers_overdue(&mut self) -> bool {
        false
    }
    /// Called when an instruction made interrupts deliverable (STI, POPF, IRET): true if an
    /// external interrupt or another event waits.
    fn event_waiting(&mut self) -> bool;
    /// IA32_APIC_BASE was written: the local APIC answers elsewhere, or not at all.
    fn set_apic_base(&mut self, _value: u64) {}
    /// Arms the local APIC's timer for the moment at which [`Self::tsc`] reaches `counter`, or
    /// disarms it; false if the timer takes no deadlines now.
    fn set_tsc_deadline(&mut self, _counter: Option<u64>) -> bool {
        false
    }
    /// Whether a deadline is armed that has not passed.
    fn tsc_deadline_armed(&mut self) -> bool {
        false
    }
}
