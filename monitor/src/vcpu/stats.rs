//! What a processor counts.

use hashbrown::HashMap;
use iced_x86::Mnemonic;

/// Exits and callouts of one processor.
#[derive(Clone, Debug, Default)]
pub struct ExitStats {
    /// Exits of translated code by [`ring3_translator::state::ExitKind`].
    pub exits: [u64; 5],
    /// Callouts by mnemonic.
    pub callouts: HashMap<Mnemonic, u64>,
    /// Instructions that are not supported, by mnemonic: each raised #UD.
    pub unsupported: HashMap<Mnemonic, u64>,
    /// Exceptions delivered, by vector.
    pub exceptions: [u64; 32],
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
