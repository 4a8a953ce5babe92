//! Processor state that a trap does not carry: the FPU, and what only a signal frame tells.

use super::process::ptrace_error;
use super::ptrace::{self, Stop};
use super::{Executor, ExecutorError};
use libc::c_int;

/// Bytes 464-511 of an XSAVE image are software's, not state.
const SOFTWARE_BYTES: core::ops::Range<usize> = 464..512;

impl Executor {
    /// Learns the size of the host's XSAVE image; once, at the start.
    pub(super) fn size_fpu(&mut self) -> Result<(), ExecutorError> {
        self.fpu.resize(1 << 16, 0);
        let length = ptrace::get_xstate(self.pid, &mut self.fpu)
            .map_err(ptrace_error("PTRACE_GETREGSET"))?;
        self.fpu.truncate(length);
        Ok(())
    }

    /// Reads the FPU state at a stop.
    pub(super) fn read_fpu(&mut self) -> Result<(), ExecutorError> {
        match ptrace::get_xstate(self.pid, &mut self.fpu) {
            Ok(_) => {
                self.fpu_current = true;
                Ok(())
            }
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => self.died(),
            Err(source) => Err(ExecutorError::Ptrace {
                request: "PTRACE_GETREGSET",
                source,
            }),
        }
    }

    /// Vector and error code of the exception that ended the last run, from a signal frame that the
    /// kernel writes for it (about three times the cost of a trap). Valid until the next mapping is
    /// flushed or the next run.
    /// # Errors
    /// [`ExecutorError::Protocol`] if the last run did not end by an exception.
    pub fn exact(&mut self) -> Result<(u8, u32), ExecutorError> {
        const GREGS: u64 = 40;
        self.alive()?;
        let Some(signal) = self.signal.take() else {
            return Err(ExecutorError::Protocol("no exception to look at".into()));
        };
        let guest = self.task;
        let pid = self.pid;
        // The kernel clears the FPU state for the handler; the guest's is in `fpu`.
        let found = self.take_frame(signal);
        let restored = if self.gone {
            Ok(())
        } else {
            ptrace::set_xstate(pid, &self.fpu)
        };
        let restored = self.or_dead(restored, "PTRACE_SETREGSET");
        self.task = guest;
        self.known = false;
        let frame = found?;
        restored?;
        let word = |index: u64| ptrace::peek(pid, frame.wrapping_add(GREGS + 8 * index));
        let (error, vector) = (word(19), word(20));
        let (error, vector) = (
            self.or_dead(error, "PTRACE_PEEKDATA")?,
            self.or_dead(vector, "PTRACE_PEEKDATA")?,
        );
        Ok((vector as u8, error as u32))
    }

    /// Lets `signal` be delivered; returns the address of the `ucontext` in the executor.
    fn take_frame(&mut self, signal: c_int) -> Result<u64, ExecutorError> {
        let pid = self.pid;
        let mut deliver = signal;
        loop {
            let result = ptrace::run_without_syscalls(pid, deliver);
            self.or_dead(result, "PTRACE_SYSEMU")?;
            deliver = 0;
            match self.wait()? {
                Stop::Signal(libc::SIGTRAP) => {
                    let r = self.read_task()?;
                    if r.rip == self.image.handler + 1 {
                        return Ok(r.rdx);
                    }
                }
                Stop::Signal(s) if s == signal || s == libc::SIGSEGV => {
                    return Err(ExecutorError::Protocol(format!(
                        "signal {s} instead of a frame"
                    )));
                }
                _ => self.kicked = true,
            }
        }
    }

    /// Copies the guest's FPU, SSE and AVX state into the XSAVE image `area` (standard format; as
    /// much as fits). A copy, no system call. Works on a killed executor too.
    /// # Errors
    /// [`ExecutorError::BadRange`] if `area` is shorter than the legacy part.
    pub fn save_fpu(&self, area: &mut [u8]) -> Result<(), ExecutorError> {
        let n = area.len().min(self.fpu.len());
        if n < SOFTWARE_BYTES.end {
            return Err(ExecutorError::BadRange(0, n as u64));
        }
        area[..SOFTWARE_BYTES.start].copy_from_slice(&self.fpu[..SOFTWARE_BYTES.start]);
        area[SOFTWARE_BYTES.end..n].copy_from_slice(&self.fpu[SOFTWARE_BYTES.end..n]);
        Ok(())
    }

    /// Loads the guest's FPU state from an XSAVE image in standard format.
    /// # Errors
    /// The host's refusal, as of an image that XRSTOR would refuse.
    pub fn load_fpu(&mut self, area: &[u8]) -> Result<(), ExecutorError> {
        self.alive()?;
        let n = area.len().min(self.fpu.len());
        self.fpu[..n].copy_from_slice(&area[..n]);
        self.fpu[n..].fill(0);
        let result = ptrace::set_xstate(self.pid, &self.fpu);
        if result.is_err() {
            self.read_fpu()?;
        }
        self.or_dead(result, "PTRACE_SETREGSET")
    }
}
