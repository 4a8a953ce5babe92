//! The start of an executor: from the first instruction of its image to an empty, jailed process.

use super::image::{FRAME_BASE, FRAME_SIZE, IMAGE_BASE, IMAGE_END, MAILBOX_BASE, MAILBOX_SIZE};
use super::registers::blank;
use super::{Executor, ExecutorError, MAILBOX_FD, filter, ptrace};
use libc::user_regs_struct;
use std::io;

/// End of the address space that the kernel uses unasked.
const SPACE_END: u64 = (1 << 47) - 4096;

const SA_RESTORER: u64 = 0x0400_0000;

impl Executor {
    /// Maps the mailbox, unmaps everything that is not ours, prepares signal frames and shuts the
    /// jail.
    pub(super) fn initialise(&mut self) -> Result<(), ExecutorError> {
        let setup = |step| move |source| ExecutorError::Setup { step, source };
        ptrace::set_options(self.pid).map_err(setup("PTRACE_SETOPTIONS"))?;
        self.size_fpu()?;
        let single = user_regs_struct {
            rip: self.image.single,
            rax: libc::SYS_mmap as u64,
            rdi: MAILBOX_BASE,
            rsi: MAILBOX_SIZE,
            rdx: libc::PROT_READ as u64,
            r10: (libc::MAP_SHARED | libc::MAP_FIXED) as u64,
            r8: MAILBOX_FD as u64,
            ..blank()
        };
        let end = self.image.single + 3;
        let r = self.run_fragment(&single, end..=end)?;
        if r.rax != MAILBOX_BASE {
            return Err(setup("mapping the mailbox")(io::Error::from_raw_os_error(
                -(r.rax as i32),
            )));
        }
        let icebp = self.image.icebp;
        let r = self.run_fragment(
            &user_regs_struct {
                rip: icebp,
                ..blank()
            },
            icebp..=icebp + 1,
        )?;
        self.icebp_quirk = r.rip == icebp;
        self.unmap_foreign()?;
        let frames = self.frame_commands();
        let words: Vec<u64> = filter::program(self.image.batch_return)
            .iter()
            .map(|f| {
                u64::from(f.code)
                    | u64::from(f.jt) << 16
                    | u64::from(f.jf) << 24
                    | u64::from(f.k) << 32
            })
            .collect();
        let address = self.mailbox.constants(0x100, &words);
        let fprog = self.mailbox.constants(0x80, &[words.len() as u64, address]);
        let call = |nr: libc::c_long, a: [u64; 3]| [nr as u64, a[0], a[1], a[2], 0, 0, 0];
        let mode = u64::from(libc::SECCOMP_SET_MODE_FILTER);
        let jail = [
            // The guest's time stamp counter is not the host's: RDTSC raises #GP here.
            (
                "PR_SET_TSC",
                call(
                    libc::SYS_prctl,
                    [libc::PR_SET_TSC as u64, libc::PR_TSC_SIGSEGV as u64, 0],
                ),
            ),
            (
                "PR_SET_NO_NEW_PRIVS",
                call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0]),
            ),
            ("close", call(libc::SYS_close, [MAILBOX_FD as u64, 0, 0])),
            ("seccomp", call(libc::SYS_seccomp, [mode, 0, fprog])),
        ];
        self.commands(&[&frames[..], &jail[..]].concat())
    }

    /// Runs set-up calls, all of which must succeed.
    fn commands(&mut self, list: &[(&'static str, [u64; 7])]) -> Result<(), ExecutorError> {
        for (_, command) in list {
            self.mailbox.push(*command);
        }
        match self.flush_commands()? {
            None => Ok(()),
            Some((i, source)) => Err(ExecutorError::Setup {
                step: list.get(i).map_or("?", |c| c.0),
                source,
            }),
        }
    }

    /// Unmaps stack, vdso and vvar.
    fn unmap_foreign(&mut self) -> Result<(), ExecutorError> {
        let unmap = |start: u64, end: u64| {
            let command = [libc::SYS_munmap as u64, start, end - start, 0, 0, 0, 0];
            ("unmapping", command)
        };
        let all = [unmap(0, IMAGE_BASE), unmap(IMAGE_END, SPACE_END)];
        match self.commands(&all) {
            // Kernels that seal the vdso refuse the whole range: unmap what they let go. What
            // stays is read-only code and clock data of the host, worth no more than RDTSC.
            Err(ExecutorError::Setup { source, .. })
                if source.raw_os_error() == Some(libc::EPERM) => {}
            other => return other,
        }
        let maps =
            std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).map_err(|source| {
                ExecutorError::Setup {
                    step: "reading /proc/PID/maps",
                    source,
                }
            })?;
        for line in maps.lines().filter(|l| !l.contains("[v")) {
            let range = line
                .split_whitespace()
                .next()
                .and_then(|r| r.split_once('-'));
            let Some((start, end)) = range else { continue };
            let parse = |s: &str| u64::from_str_radix(s, 16).unwrap_or(0);
            let (start, end) = (parse(start), parse(end));
            if start >= IMAGE_END || end <= IMAGE_BASE {
                self.commands(&[unmap(start, end)])?;
            }
        }
        Ok(())
    }

    /// An alternate stack and handlers for the exceptions whose details only a signal frame tells.
    fn frame_commands(&mut self) -> Vec<(&'static str, [u64; 7])> {
        let stack = self.mailbox.constants(0, &[FRAME_BASE, 0, FRAME_SIZE]);
        let flags = SA_RESTORER | (libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER) as u64;
        let handler = self.image.handler;
        let action = self.mailbox.constants(0x40, &[handler, flags, handler, 0]);
        let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as u64;
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let mut out = vec![
            (
                "the frame area",
                [
                    libc::SYS_mmap as u64,
                    FRAME_BASE,
                    FRAME_SIZE,
                    prot,
                    anonymous,
                    u64::MAX,
                    0,
                ],
            ),
            (
                "sigaltstack",
                [libc::SYS_sigaltstack as u64, stack, 0, 0, 0, 0, 0],
            ),
        ];
        for signal in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
        ] {
            out.push((
                "rt_sigaction",
                [
                    libc::SYS_rt_sigaction as u64,
                    signal as u64,
                    action,
                    0,
                    8,
                    0,
                    0,
                ],
            ));
        }
        out
    }
}
