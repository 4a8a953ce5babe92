//! What a processor counts.

use hashbrown::HashMap;
use iced_x86::Mnemonic;

/// Exits and callouts of one processor.
#[derive(Clone, Debug)]
pub struct ExitStats {
    /// Exits of translated code by [`ring3_translator::state::ExitKind`].
    pub exits: [u64; 5],
    /// Callouts, indexed by mnemonic.
    pub callouts: Vec<u64>,
    /// Instructions that are not supported, by mnemonic: each raised #UD.
    pub unsupported: HashMap<Mnemonic, u64>,
    /// Exceptions delivered, by vector.
    pub exceptions: [u64; 32],
    /// Exceptions and software interrupts delivered to the kernel from ring 3.
    pub traps: u64,
    /// External interrupts delivered.
    pub interrupts: u64,
    /// Software interrupts delivered.
    pub software_interrupts: u64,
    /// Host faults in translated code that were polls for events.
    pub polls: u64,
    /// Host faults in translated code by host trap number.
    pub host_faults: [u64; 32],
    /// Soft accesses that left the cache.
    pub soft_misses: u64,
    /// Units entered from the run loop, in window form and in soft form.
    pub entries: [u64; 2],
    /// Times a jump cache changed its mode.
    pub table_switches: u64,
    /// Times the processor halted.
    pub halts: u64,
    /// Changes of the A20 gate.
    pub a20_changes: u64,
}

impl Default for ExitStats {
    fn default() -> Self {
        Self {
            exits: [0; 5],
            callouts: vec![0; Mnemonic::values().count()],
            unsupported: HashMap::new(),
            exceptions: [0; 32],
            traps: 0,
            interrupts: 0,
            software_interrupts: 0,
            polls: 0,
            host_faults: [0; 32],
            soft_misses: 0,
            entries: [0; 2],
            table_switches: 0,
            halts: 0,
            a20_changes: 0,
        }
    }
}

impl ExitStats {
    /// Callouts that happened, by mnemonic.
    pub fn callouts_by_mnemonic(&self) -> impl Iterator<Item = (Mnemonic, u64)> + '_ {
        Mnemonic::values()
            .zip(self.callouts.iter().copied())
            .filter(|(_, n)| *n > 0)
    }
}
