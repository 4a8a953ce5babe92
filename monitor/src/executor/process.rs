//! One executor: running guest code, mapping its pages, reading its state.

use super::ExecutorError;
use super::image::{ExecutorImage, FRAME_BASE, FRAME_SIZE, MAILBOX_BASE};
use super::kick::ExecutorKick;
use super::mailbox::{Mailbox, Rights, check_range};
use super::ptrace::{self, Stop};
use super::registers::{FLAG_ID, UserRegs, blank, differences};
use super::trap::{Class, ForeignCause, Trap, TrapKind, classify, in_compat};
use core::marker::PhantomData;
use core::ops::RangeInclusive;
use libc::{c_int, pid_t, user_regs_struct};
use std::io;
use std::sync::Arc;

/// Registers that change by more than this many are written all at once.
const MAX_POKES: usize = 4;
/// The signal code of ICEBP.
const TRAP_BRKPT: i32 = 1;
/// Bytes 464-511 of an XSAVE image are software's, not state.
const SOFTWARE_BYTES: core::ops::Range<usize> = 464..512;

/// A jailed process that runs one guest address space. See the module's text.
pub struct Executor {
    pub(super) pid: pid_t,
    pub(super) image: Arc<ExecutorImage>,
    pub(super) mailbox: Mailbox,
    pub(super) ram_size: u64,
    kick: ExecutorKick,
    /// Registers of the stopped process, while `known`.
    task: user_regs_struct,
    known: bool,
    /// EFLAGS.ID of the process: ptrace does not set it.
    id: bool,
    /// The host leaves RIP at an ICEBP, not after it (virtual AMD processors do).
    pub(super) icebp_quirk: bool,
    /// Dead; `fpu` holds its last state.
    gone: bool,
    /// A kick arrived while our own fragments ran.
    kicked: bool,
    /// The signal that the stopped process has not received, for [`Self::exact`].
    signal: Option<c_int>,
    /// XSAVE image: scratch, or the truth while `fpu_held` or `gone`.
    fpu: Vec<u8>,
    fpu_held: bool,
    /// ptrace binds to the thread that started the process.
    not_send: PhantomData<*const ()>,
}

fn ptrace_error(request: &'static str) -> impl FnOnce(io::Error) -> ExecutorError {
    move |source| match source.raw_os_error() {
        Some(libc::ESRCH | libc::ECHILD) => ExecutorError::Dead,
        _ => ExecutorError::Ptrace { request, source },
    }
}

impl Executor {
    /// Takes over a process that is stopped at its first instruction.
    pub(super) fn adopt(
        pid: pid_t,
        kick: ExecutorKick,
        image: Arc<ExecutorImage>,
        mailbox: Mailbox,
        ram_size: u64,
    ) -> Self {
        Self {
            pid,
            image,
            mailbox,
            ram_size,
            kick,
            task: blank(),
            known: false,
            id: false,
            icebp_quirk: false,
            gone: false,
            kicked: false,
            signal: None,
            fpu: Vec::new(),
            fpu_held: false,
            not_send: PhantomData,
        }
    }

    /// Learns the size of the host's XSAVE image; once, at the start.
    pub(super) fn size_fpu(&mut self) -> Result<(), ExecutorError> {
        self.fpu.resize(1 << 16, 0);
        let length = ptrace::get_xstate(self.pid, &mut self.fpu)
            .map_err(ptrace_error("PTRACE_GETREGSET"))?;
        self.fpu.truncate(length);
        Ok(())
    }

    /// The host process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A handle that stops guest code from other threads.
    #[must_use]
    pub fn kicker(&self) -> ExecutorKick {
        self.kick.clone()
    }

    /// Queues mapping `len` bytes of RAM from `ram_offset` at guest-linear `lin`; it replaces what
    /// is there. Done before the next run.
    /// # Errors
    /// [`ExecutorError::BadRange`] if a value is not page aligned, `lin` is in page 0, or RAM or
    /// the address space ends before; the errors of a flush if the queue was full.
    pub fn map(
        &mut self,
        lin: u32,
        ram_offset: u64,
        len: u32,
        rights: Rights,
    ) -> Result<(), ExecutorError> {
        check_range(lin, u64::from(len))?;
        if ram_offset & 0xfff != 0
            || ram_offset
                .checked_add(u64::from(len))
                .is_none_or(|end| end > self.ram_size)
        {
            return Err(ExecutorError::BadRange(ram_offset, u64::from(len)));
        }
        self.make_room()?;
        self.mailbox
            .push_map(u64::from(lin), ram_offset, u64::from(len), rights);
        Ok(())
    }

    /// Queues unmapping `len` bytes at `lin`. Done before the next run.
    /// # Errors
    /// As [`Self::map`].
    pub fn unmap(&mut self, lin: u32, len: u32) -> Result<(), ExecutorError> {
        check_range(lin, u64::from(len))?;
        self.make_room()?;
        self.mailbox.push_unmap(u64::from(lin), u64::from(len));
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), ExecutorError> {
        if self.mailbox.is_full() {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Carries out the queued commands now.
    /// # Errors
    /// [`ExecutorError::Map`] with the first failure (the rest is dropped), [`ExecutorError::Dead`].
    pub fn flush(&mut self) -> Result<(), ExecutorError> {
        if self.mailbox.queued() == 0 {
            return Ok(());
        }
        self.mailbox.seal();
        let expected = MAILBOX_BASE + (self.mailbox.queued() * super::image::COMMAND_BYTES) as u64;
        let (start, end) = (self.image.batch, self.image.batch_end);
        let result = self.run_fragment(
            &user_regs_struct {
                rip: start,
                rbx: MAILBOX_BASE,
                ..blank()
            },
            end..=end,
        );
        self.mailbox.clear();
        let r = result?;
        if r.rbx == expected {
            return Ok(());
        }
        Err(ExecutorError::Map(io::Error::from_raw_os_error(
            -(r.rax as i32),
        )))
    }

    /// Unmaps everything and forgets the registers and FPU state.
    /// # Errors
    /// As [`Self::flush`].
    pub fn reset(&mut self) -> Result<(), ExecutorError> {
        self.alive()?;
        self.mailbox.clear();
        for half in [0, 1 << 31] {
            self.mailbox
                .push([libc::SYS_munmap as u64, half, 1 << 31, 0, 0, 0, 0]);
        }
        self.flush()?;
        self.kicked = false;
        let mut clean = vec![0; 576];
        clean[0..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        clean[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        clean[512] = 3;
        self.load_fpu(&clean)
    }

    /// Runs one of our fragments to its breakpoint, with RIP in `ends`. System calls are real.
    pub(super) fn run_fragment(
        &mut self,
        regs: &user_regs_struct,
        ends: RangeInclusive<u64>,
    ) -> Result<user_regs_struct, ExecutorError> {
        self.alive()?;
        self.known = false;
        self.signal = None;
        let pid = self.pid;
        let result = ptrace::set_regs(pid, regs).and_then(|()| ptrace::run_trusted(pid));
        self.or_dead(result, "PTRACE_SETREGS")?;
        loop {
            match self.wait()? {
                Stop::Signal(libc::SIGTRAP) => {
                    let r = self.read_task()?;
                    if ends.contains(&r.rip) {
                        return Ok(r);
                    }
                }
                // Nothing but signals from outside can stop a fragment.
                Stop::Signal(libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGSYS) => {
                    let r = self.read_task()?;
                    self.kick.kill();
                    return Err(ExecutorError::Protocol(format!(
                        "a fragment faulted at {:#x}",
                        r.rip
                    )));
                }
                _ => self.kicked = true,
            }
            let result = ptrace::run_trusted(pid);
            self.or_dead(result, "PTRACE_CONT")?;
        }
    }

    /// Runs guest code from `regs` until something stops it, and writes the registers back. Queued
    /// mappings are carried out first.
    ///
    /// The caller guarantees what direct execution demands (ring 3, flat segments, IF=1, IOPL=0).
    /// The FPU state stays in the process: see [`Self::save_fpu`] and [`Self::load_fpu`].
    /// # Errors
    /// See [`ExecutorError`]; `regs` is then unchanged.
    pub fn run(&mut self, regs: &mut UserRegs) -> Result<Trap, ExecutorError> {
        self.alive()?;
        match self.prepare(regs) {
            Ok(()) => {}
            // Killed while it did not run: the guest is where it was.
            Err(ExecutorError::Dead) => return Ok(Trap::new(TrapKind::Killed, &self.task)),
            Err(e) => return Err(e),
        }
        if core::mem::take(&mut self.kicked) {
            return Ok(Trap::new(TrapKind::Kick, &self.task));
        }
        self.known = false;
        self.signal = None;
        self.kick.set_running(true);
        let started = ptrace::run_without_syscalls(self.pid, 0);
        let stop = if started.is_ok() {
            Some(ptrace::wait(self.pid))
        } else {
            None
        };
        self.kick.set_running(false);
        match self.or_dead(started, "PTRACE_SYSEMU") {
            Ok(()) => {}
            Err(ExecutorError::Dead) => return Ok(Trap::new(TrapKind::Killed, &self.task)),
            Err(e) => return Err(e),
        }
        let trap = match stop.unwrap_or(Ok(Stop::Gone)) {
            Ok(Stop::Syscall) => self.finish(None),
            Ok(Stop::Signal(signal)) => self.finish(Some(signal)),
            Ok(Stop::Exit) => self.salvage().map(|()| self.killed()),
            Ok(Stop::Gone) => {
                self.gone = true;
                Err(ExecutorError::Protocol(
                    "the process died without its exit stop".into(),
                ))
            }
            Err(source) => Err(ExecutorError::Ptrace {
                request: "wait",
                source,
            }),
        }?;
        regs.set_from_host(&self.task);
        Ok(trap)
    }

    /// Everything before the resumption: mappings, EFLAGS.ID, registers.
    fn prepare(&mut self, regs: &UserRegs) -> Result<(), ExecutorError> {
        self.flush()?;
        let id = u64::from(regs.eflags) & FLAG_ID;
        if self.id != (id != 0) {
            let rsp = FRAME_BASE + FRAME_SIZE - 64;
            let result = ptrace::poke(self.pid, rsp, 0x202 | id);
            self.or_dead(result, "PTRACE_POKEDATA")?;
            let (start, end) = (self.image.popf, self.image.popf + 2);
            self.run_fragment(
                &user_regs_struct {
                    rip: start,
                    rsp,
                    ..blank()
                },
                end..=end,
            )?;
        }
        let new = regs.to_host(&self.task);
        let result = if self.known && differences(&new, &self.task).count() <= MAX_POKES {
            differences(&new, &self.task)
                .try_for_each(|(offset, v)| ptrace::poke_register(self.pid, offset, v))
        } else {
            ptrace::set_regs(self.pid, &new)
        };
        self.or_dead(result, "PTRACE_SETREGS")
    }

    /// Reads and classifies a stop: a system call, or a signal.
    fn finish(&mut self, signal: Option<c_int>) -> Result<Trap, ExecutorError> {
        let info = match signal {
            None | Some(super::kick::SIGNAL) => None,
            Some(_) => ptrace::signal_info(self.pid).ok(),
        };
        self.read_task()?;
        // A call that was stopped but killed before we looked shows in the registers all the same.
        let call = signal.is_none();
        if !in_compat(&self.task) {
            let cause = signal.map_or(ForeignCause::Syscall, ForeignCause::Signal);
            return Ok(Trap::new(TrapKind::Foreign(cause), &self.task));
        }
        if call {
            return Ok(Trap::new(TrapKind::Syscall, &self.task));
        }
        let (Some(signal), Some(info)) = (signal, info) else {
            return Ok(Trap::new(TrapKind::Kick, &self.task));
        };
        let kind = match classify(signal, &info, fault_address(&info)) {
            Class::Kind(kind) => {
                if signal == libc::SIGTRAP && info.si_code == TRAP_BRKPT && self.icebp_quirk {
                    self.task.rip += 1;
                    self.known = false;
                }
                self.signal = (!self.gone && kind != TrapKind::Kick).then_some(signal);
                kind
            }
            Class::NeedsFrame if self.gone => TrapKind::Killed,
            Class::NeedsFrame => {
                self.signal = Some(signal);
                match self.exact() {
                    Ok((vector, error)) => TrapKind::Exception { vector, error },
                    // The instruction is executed again wherever the guest goes on.
                    Err(ExecutorError::Dead) => TrapKind::Killed,
                    Err(e) => return Err(e),
                }
            }
        };
        Ok(Trap::new(kind, &self.task))
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
        // The kernel clears the FPU state for the handler.
        let result = ptrace::get_xstate(pid, &mut self.fpu).map(drop);
        self.or_dead(result, "PTRACE_GETREGSET")?;
        self.fpu_held = true;
        let found = self.take_frame(signal);
        let restored = if self.gone {
            Ok(())
        } else {
            ptrace::set_xstate(pid, &self.fpu)
        };
        let restored = self.or_dead(restored, "PTRACE_SETREGSET");
        self.fpu_held = false;
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
    /// much as fits). Works on a killed executor too.
    /// # Errors
    /// The host's refusal.
    pub fn save_fpu(&mut self, area: &mut [u8]) -> Result<(), ExecutorError> {
        if !self.gone {
            match ptrace::get_xstate(self.pid, &mut self.fpu) {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => self.died()?,
                Err(source) => {
                    return Err(ExecutorError::Ptrace {
                        request: "PTRACE_GETREGSET",
                        source,
                    });
                }
            }
        }
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
        self.or_dead(result, "PTRACE_SETREGSET")
    }

    /// True while the process can run guest code.
    #[must_use]
    pub fn is_alive(&mut self) -> bool {
        // Reading the registers finds out.
        let readable = !self.gone && self.read_task().is_ok();
        readable && !self.gone
    }

    fn alive(&self) -> Result<(), ExecutorError> {
        if self.gone {
            Err(ExecutorError::Dead)
        } else {
            Ok(())
        }
    }

    /// Reads the registers of the stopped process; of one that was killed meanwhile too.
    fn read_task(&mut self) -> Result<user_regs_struct, ExecutorError> {
        match ptrace::get_regs(self.pid) {
            Ok(r) => self.set_task(r),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => self.died()?,
            Err(source) => {
                return Err(ExecutorError::Ptrace {
                    request: "PTRACE_GETREGS",
                    source,
                });
            }
        }
        Ok(self.task)
    }

    fn set_task(&mut self, r: user_regs_struct) {
        self.task = r;
        self.known = true;
        self.id = r.eflags & FLAG_ID != 0;
    }

    /// Waits for a stop that leaves the process alive.
    fn wait(&mut self) -> Result<Stop, ExecutorError> {
        match ptrace::wait(self.pid).map_err(ptrace_error("wait"))? {
            Stop::Exit => {
                self.salvage()?;
                Err(ExecutorError::Dead)
            }
            Stop::Gone => {
                self.gone = true;
                Err(ExecutorError::Dead)
            }
            stop => Ok(stop),
        }
    }

    /// ESRCH: the stopped process has been killed. Takes what is left of it.
    fn died(&mut self) -> Result<(), ExecutorError> {
        if self.gone {
            return Ok(());
        }
        match ptrace::wait(self.pid) {
            Ok(Stop::Exit) => self.salvage(),
            other => {
                self.gone = true;
                Err(ExecutorError::Protocol(format!("no exit stop: {other:?}")))
            }
        }
    }

    /// At the exit stop: takes registers and FPU state, then lets the process die and reaps it.
    fn salvage(&mut self) -> Result<(), ExecutorError> {
        let regs = ptrace::get_regs(self.pid);
        let fpu = if self.fpu_held {
            Ok(0)
        } else {
            ptrace::get_xstate(self.pid, &mut self.fpu)
        };
        let _ = ptrace::run_trusted(self.pid);
        while !matches!(ptrace::wait(self.pid), Ok(Stop::Gone) | Err(_)) {
            let _ = ptrace::run_trusted(self.pid);
        }
        self.gone = true;
        self.set_task(regs.map_err(ptrace_error("PTRACE_GETREGS"))?);
        fpu.map_err(ptrace_error("PTRACE_GETREGSET"))?;
        Ok(())
    }

    /// The trap of a process that died while it ran. A system call in progress was stopped at its
    /// entry and not carried out, so it is a system call still.
    fn killed(&self) -> Trap {
        let call = (self.task.orig_rax as i64) >= 0;
        let kind = match (in_compat(&self.task), call) {
            (true, true) => TrapKind::Syscall,
            (true, false) => TrapKind::Killed,
            (false, true) => TrapKind::Foreign(ForeignCause::Syscall),
            (false, false) => TrapKind::Foreign(ForeignCause::Signal(libc::SIGKILL)),
        };
        Trap::new(kind, &self.task)
    }

    /// Maps "no such process" to [`ExecutorError::Dead`] after taking what is left of it.
    fn or_dead<T>(
        &mut self,
        result: io::Result<T>,
        request: &'static str,
    ) -> Result<T, ExecutorError> {
        match result {
            Ok(v) => Ok(v),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {
                self.died()?;
                Err(ExecutorError::Dead)
            }
            Err(source) => Err(ExecutorError::Ptrace { request, source }),
        }
    }
}

#[allow(unsafe_code)] // siginfo is a union
fn fault_address(info: &libc::siginfo_t) -> u64 {
    // SAFETY: any bytes are a valid address; only page faults use it.
    unsafe { info.si_addr() as u64 }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        self.kick.kill();
        // At most the exit stop and the death remain.
        while !matches!(ptrace::wait(self.pid), Ok(Stop::Gone) | Err(_)) {
            let _ = ptrace::run_trusted(self.pid);
        }
    }
}
