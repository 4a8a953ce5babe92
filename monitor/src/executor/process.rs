//! One executor: running guest code, mapping its pages, reading its state.

use super::ExecutorError;
use super::image::{COMMAND_BYTES, ExecutorImage, FRAME_BASE, FRAME_SIZE, MAILBOX_BASE};
use super::kick::ExecutorKick;
use super::mailbox::{Mailbox, Rights, check_range};
use super::ptrace::{self, Stop};
use super::registers::{FLAG_ID, FLAG_TF, UserRegs, blank, differences};
use super::trap::{Class, ForeignCause, Trap, TrapKind, classify, in_compat};
use core::marker::PhantomData;
use core::ops::RangeInclusive;
use libc::{c_int, pid_t, user_regs_struct};
use std::io;
use std::sync::Arc;

/// Registers that change by more than this many are written all at once.
const MAX_POKES: usize = 4;
/// The highest signal code that is no ptrace event.
const SI_KERNEL: i32 = 0x80;
/// The signal code of ICEBP.
const TRAP_BRKPT: i32 = 1;

/// A jailed process that runs one guest address space. See the module's text.
pub struct Executor {
    pub(super) pid: pid_t,
    pub(super) image: Arc<ExecutorImage>,
    pub(super) mailbox: Mailbox,
    pub(super) ram_size: u64,
    pub(super) lowest: u32,
    kick: ExecutorKick,
    /// Registers of the stopped process, while `known`.
    pub(super) task: user_regs_struct,
    pub(super) known: bool,
    /// EFLAGS.ID of the process: ptrace does not set it.
    id: bool,
    /// The host leaves RIP at an ICEBP, not after it (virtual AMD processors do).
    pub(super) icebp_quirk: bool,
    /// Dead; `fpu` holds its last state.
    pub(super) gone: bool,
    /// A kick arrived while our own fragments ran.
    pub(super) kicked: bool,
    /// The signal that the stopped process has not received, for [`Self::exact`].
    pub(super) signal: Option<c_int>,
    /// XSAVE image of the guest, true while `fpu_current`. Read at every stop: whatever happens
    /// to a process that is held, nothing is lost.
    pub(super) fpu: Vec<u8>,
    pub(super) fpu_current: bool,
    /// Processor time that it has used for mapping, ns.
    upkeep: u64,
    /// The host processor that it is held on.
    placed: Option<usize>,
    /// ptrace binds to the thread that started the process.
    not_send: PhantomData<*const ()>,
}

/// Maps "no such process" to [`ExecutorError::Dead`].
pub(super) fn ptrace_error(request: &'static str) -> impl FnOnce(io::Error) -> ExecutorError {
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
        (ram_size, lowest): (u64, u32),
    ) -> Self {
        Self {
            pid,
            image,
            mailbox,
            ram_size,
            lowest,
            kick,
            task: blank(),
            known: false,
            id: false,
            icebp_quirk: false,
            gone: false,
            kicked: false,
            signal: None,
            fpu: Vec::new(),
            fpu_current: true,
            upkeep: 0,
            placed: None,
            not_send: PhantomData,
        }
    }

    /// The host process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Lets the process run on the host processors of `set` only. `core`: the one, if it is one.
    /// Where the host refuses, it runs where it did.
    pub fn set_affinity(&mut self, set: &nix::sched::CpuSet, core: Option<usize>) {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(self.pid), set);
        self.placed = core;
    }

    /// Processor time that the process has used for guest code and its traps, ns; 0 where the host
    /// does not tell.
    #[must_use]
    pub fn cpu_time(&self) -> u64 {
        self.all_cpu_time().saturating_sub(self.upkeep)
    }

    fn all_cpu_time(&self) -> u64 {
        nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(self.pid))
            .and_then(nix::time::ClockId::now)
            .map_or(0, |t| {
                t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64
            })
    }

    /// The host processor that the process is held on.
    #[must_use]
    pub fn placed(&self) -> Option<usize> {
        self.placed
    }

    /// A handle that stops guest code from other threads.
    #[must_use]
    pub fn kicker(&self) -> ExecutorKick {
        self.kick.clone()
    }

    /// Queues mapping `len` bytes of RAM from `ram_offset` at guest-linear `lin`; it replaces what
    /// is there. Done before the next run.
    /// # Errors
    /// [`ExecutorError::BadRange`] if a value is not page aligned, `lin` is below
    /// [`super::ExecutorPool::lowest_address`], or RAM or the address space ends before; the errors
    /// of a flush if the queue was full.
    pub fn map(
        &mut self,
        lin: u32,
        ram_offset: u64,
        len: u32,
        rights: Rights,
    ) -> Result<(), ExecutorError> {
        check_range(lin, u64::from(len), self.lowest)?;
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
        check_range(lin, u64::from(len), self.lowest)?;
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
        match self.flush_commands()? {
            None => Ok(()),
            Some((_, error)) => Err(ExecutorError::Map(error)),
        }
    }

    /// Runs the queued commands; returns the first that failed.
    pub(super) fn flush_commands(&mut self) -> Result<Option<(usize, io::Error)>, ExecutorError> {
        let before = self.all_cpu_time();
        self.mailbox.seal();
        let queued = self.mailbox.queued();
        let (start, end) = (self.image.batch, self.image.batch_end);
        let regs = user_regs_struct {
            rip: start,
            rbx: MAILBOX_BASE,
            ..blank()
        };
        let result = self.run_fragment(&regs, end..=end);
        self.mailbox.clear();
        self.upkeep += self.all_cpu_time().saturating_sub(before);
        let r = result?;
        let done = (r.rbx.wrapping_sub(MAILBOX_BASE) as usize) / COMMAND_BYTES;
        Ok((done < queued).then(|| (done, io::Error::from_raw_os_error(-(r.rax as i32)))))
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
        let result = ptrace::set_regs(pid, regs);
        self.or_dead(result, "PTRACE_SETREGS")?;
        let result = ptrace::run_trusted(pid);
        self.or_dead(result, "PTRACE_CONT")?;
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
    /// The FPU state is not part of `regs`: see [`Self::save_fpu`] and [`Self::load_fpu`].
    /// # Errors
    /// See [`ExecutorError`]; `regs` is then unchanged.
    pub fn run(&mut self, regs: &mut UserRegs) -> Result<Trap, ExecutorError> {
        self.alive()?;
        match self.prepare(regs) {
            Ok(()) => {}
            // Killed while it did not run: the guest is where it was.
            Err(ExecutorError::Dead) => return Ok(Trap::unmoved(TrapKind::Killed, regs)),
            Err(e) => return Err(e),
        }
        if core::mem::take(&mut self.kicked) {
            return Ok(Trap::unmoved(TrapKind::Kick, regs));
        }
        self.known = false;
        self.signal = None;
        self.fpu_current = false;
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
            Err(ExecutorError::Dead) => return Ok(Trap::unmoved(TrapKind::Killed, regs)),
            Err(e) => return Err(e),
        }
        let trap = match stop.unwrap_or(Ok(Stop::Gone)) {
            Ok(Stop::Syscall) => self.finish(None),
            Ok(Stop::Signal(signal)) => self.finish(Some(signal)),
            Ok(Stop::Exit) => self.salvage().map(|()| self.killed()),
            Ok(Stop::Gone) => {
                // Resumed from its exit stop: it was killed while held and ran nothing more.
                self.gone = true;
                return Ok(Trap::unmoved(TrapKind::Killed, regs));
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
        // Killed since: the information is that of the exit stop, or none.
        let info = info.filter(|i| Some(i.si_signo) == signal && i.si_code <= SI_KERNEL);
        let by_instruction = [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGTRAP,
        ];
        if info.is_none() && signal.is_some_and(|s| by_instruction.contains(&s)) {
            self.died()?;
        } else {
            self.read_task()?;
            self.read_fpu()?;
        }
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
            return Ok(Trap::new(self.without_information(signal), &self.task));
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

    /// True while the process can run guest code.
    #[must_use]
    pub fn is_alive(&mut self) -> bool {
        // Reading the registers finds out.
        let readable = !self.gone && self.read_task().is_ok();
        readable && !self.gone
    }

    /// The meaning of a signal stop whose information is not there: a kick, or a process killed
    /// just now. Faults are found again where the guest goes on; #BP and #DB are past.
    fn without_information(&self, signal: Option<c_int>) -> TrapKind {
        match signal {
            Some(libc::SIGTRAP) if self.gone => {
                let vector = if self.task.eflags & FLAG_TF != 0 {
                    1
                } else {
                    3
                };
                TrapKind::Exception { vector, error: 0 }
            }
            _ if self.gone => TrapKind::Killed,
            _ => TrapKind::Kick,
        }
    }

    pub(super) fn alive(&self) -> Result<(), ExecutorError> {
        if self.gone {
            Err(ExecutorError::Dead)
        } else {
            Ok(())
        }
    }

    /// Reads the registers of the stopped process; of one that was killed meanwhile too.
    pub(super) fn read_task(&mut self) -> Result<user_regs_struct, ExecutorError> {
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
    pub(super) fn wait(&mut self) -> Result<Stop, ExecutorError> {
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
    pub(super) fn died(&mut self) -> Result<(), ExecutorError> {
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
        let fpu = if self.fpu_current {
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
    pub(super) fn or_dead<T>(
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
