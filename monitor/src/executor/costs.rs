//! Measuring what a trap costs.

use super::{Executor, ExecutorError, UserRegs};
use crate::direct::policy::Costs;
use crate::host_tsc::monotonic_ns;

/// Traps that are measured together; the least of several such groups counts, since the host may
/// do something else in between.
const GROUP: u64 = 8;
const GROUPS: u32 = 4;
/// Where nothing is mapped in an executor that has just been taken from the pool.
const NOWHERE: u32 = 0x1000_0000;

impl Executor {
    /// Measures the cost of a trap with fetches from a page that is not there. For an executor
    /// without mappings.
    /// # Errors
    /// Those of [`Executor::run`].
    pub fn costs(&mut self) -> Result<Costs, ExecutorError> {
        let mut least = Costs {
            trap: u64::MAX,
            cpu: u64::MAX,
        };
        for _ in 0..GROUPS {
            let (start, cpu) = (monotonic_ns(), self.cpu_time());
            for _ in 0..GROUP {
                let mut regs = UserRegs {
                    gpr: [0; 8],
                    eip: NOWHERE,
                    eflags: 0x202,
                    fs_base: None,
                    gs_base: None,
                };
                self.run(&mut regs)?;
            }
            least.trap = least.trap.min((monotonic_ns() - start) / GROUP);
            least.cpu = least.cpu.min((self.cpu_time() - cpu) / GROUP);
        }
        Ok(least)
    }
}
