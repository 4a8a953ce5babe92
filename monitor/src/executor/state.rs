//! Processor state that a trap does not carry: the FPU, and what only a signal frame tells.

use super::process::ptrace_error;
use super::ptrace::{self, Stop};
use super::{Executor, ExecutorError};
use libc::c_int;

/// Bytes 464-511 of an XSAVE image are software's, not state.
const SOFTWARE_BYTES: core::ops::Range<usize> = 464..512;

/// The XSAVE header. Intel SDM vol. 1, 13.4.2.
const HEADER: usize = 512;
/// The end of the AVX component in standard format. Intel SDM vol. 1, 13.5.2.
const AVX_END: usize = 832;

/// The end of the image of the components in `mask`.
fn image_end(mask: u64) -> usize {
    if mask & 4 != 0 { AVX_END } else { HEADER + 64 }
}

fn word(image: &[u8], at: usize) -> u64 {
    let bytes = image.get(at..at + 8).and_then(|b| b.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

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

    /// Copies the state components in `mask` (bits of XCR0; x87, SSE and AVX at most) into the XSAVE
    /// image `area` of standard format, whose XSTATE_BV then names no others. A copy, no system
    /// call. Works on a killed executor too.
    /// # Errors
    /// [`ExecutorError::BadRange`] if `area` or the host's image is too short for them.
    pub fn save_fpu(&self, area: &mut [u8], mask: u64) -> Result<(), ExecutorError> {
        let end = image_end(mask);
        let n = area.len().min(self.fpu.len());
        if n < end {
            return Err(ExecutorError::BadRange(0, n as u64));
        }
        for part in [0..SOFTWARE_BYTES.start, HEADER..end] {
            area[part.clone()].copy_from_slice(&self.fpu[part]);
        }
        let present = word(&self.fpu, HEADER) & mask;
        area[HEADER..HEADER + 8].copy_from_slice(&present.to_le_bytes());
        Ok(())
    }

    /// Loads the components in `mask` from `area`, unless they are there already; the process keeps
    /// the others. True if it had to.
    /// # Errors
    /// [`ExecutorError::BadRange`] as for [`Self::save_fpu`]; the host's refusal, as of an image that
    /// XRSTOR would refuse.
    pub fn load_guest_fpu(&mut self, area: &[u8], mask: u64) -> Result<bool, ExecutorError> {
        self.alive()?;
        let end = image_end(mask);
        let n = area.len().min(self.fpu.len());
        if n < end {
            return Err(ExecutorError::BadRange(0, n as u64));
        }
        let present = word(area, HEADER) & mask;
        let parts = [0..SOFTWARE_BYTES.start, HEADER + 64..end];
        let same = word(&self.fpu, HEADER) & mask == present
            && parts
                .clone()
                .into_iter()
                .all(|p| area[p.clone()] == self.fpu[p]);
        if same {
            return Ok(false);
        }
        for part in parts {
            self.fpu[part.clone()].copy_from_slice(&area[part]);
        }
        let all = word(&self.fpu, HEADER) & !mask | present;
        self.fpu[HEADER..HEADER + 8].copy_from_slice(&all.to_le_bytes());
        self.write_fpu()?;
        Ok(true)
    }

    /// Loads the guest's FPU state from an XSAVE image in standard format.
    /// # Errors
    /// The host's refusal, as of an image that XRSTOR would refuse.
    pub fn load_fpu(&mut self, area: &[u8]) -> Result<(), ExecutorError> {
        self.alive()?;
        let n = area.len().min(self.fpu.len());
        self.fpu[..n].copy_from_slice(&area[..n]);
        self.fpu[n..].fill(0);
        self.write_fpu()
    }

    fn write_fpu(&mut self) -> Result<(), ExecutorError> {
        let result = ptrace::set_xstate(self.pid, &self.fpu);
        if result.is_err() {
            self.read_fpu()?;
        }
        self.or_dead(result, "PTRACE_SETREGSET")
    }
}
