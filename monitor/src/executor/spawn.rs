//! Starting an executor: clone with shared memory, exec of the image, first stop.
#![allow(unsafe_code)] // clone, and raw system calls in the child before it execs

use super::{ExecutorError, MAILBOX_FD, RAM_FD};
use core::ffi::{c_int, c_void};
use core::ptr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What the child needs; it shares the parent's memory until it execs.
struct Child {
    image: RawFd,
    ram: RawFd,
    mailbox: RawFd,
    core: Option<usize>,
    /// Step that failed, and its errno.
    failed: (&'static str, i32),
}

const CHILD_STACK: usize = 64 * 1024;

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Runs in the child: only system calls, no allocation, nothing that the suspended parent owns.
extern "C" fn child(arg: *mut c_void) -> c_int {
    // SAFETY: the parent passed a live `Child` and is suspended until exec or exit.
    let c = unsafe { &mut *arg.cast::<Child>() };
    let mut step = |what: &'static str, result: i64| {
        if result < 0 && c.failed.1 == 0 {
            c.failed = (what, errno());
        }
        result
    };
    // SAFETY: system calls on descriptors that the parent keeps open, and on locals.
    unsafe {
        // Out of the terminal's foreground group: a ^C is the monitor's business.
        step("setsid", i64::from(libc::setsid()));
        step(
            "prctl(PDEATHSIG)",
            i64::from(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)),
        );
        if let Some(core) = c.core {
            let mut set: libc::cpu_set_t = core::mem::zeroed();
            libc::CPU_SET(core, &mut set);
            step(
                "sched_setaffinity",
                i64::from(libc::sched_setaffinity(
                    0,
                    size_of_val(&set),
                    &raw const set,
                )),
            );
        }
        let ram = step("dup", i64::from(libc::fcntl(c.ram, libc::F_DUPFD, 10)));
        let mailbox = step("dup", i64::from(libc::fcntl(c.mailbox, libc::F_DUPFD, 10)));
        let image = step("dup", i64::from(libc::fcntl(c.image, libc::F_DUPFD, 10)));
        step("dup2", i64::from(libc::dup2(ram as c_int, RAM_FD)));
        step("dup2", i64::from(libc::dup2(mailbox as c_int, MAILBOX_FD)));
        step(
            "close_range",
            libc::syscall(
                libc::SYS_close_range,
                MAILBOX_FD + 1,
                c_int::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            ),
        );
        let empty: u64 = 0;
        step(
            "sigprocmask",
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const empty,
                ptr::null::<u64>(),
                8,
            ),
        );
        step(
            "ptrace(TRACEME)",
            libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0),
        );
        if c.failed.1 == 0 {
            let argv = [c"ring3-executor".as_ptr(), ptr::null()];
            let envp: [*const libc::c_char; 1] = [ptr::null()];
            let flags = libc::AT_EMPTY_PATH;
            let r = libc::syscall(
                libc::SYS_execveat,
                image as c_int,
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                flags,
            );
            if r < 0 {
                c.failed = ("execveat of a memfd", errno());
            }
        }
        libc::syscall(libc::SYS_exit_group, 1);
    }
    1
}

/// Starts a process from `image`, traced by the calling thread and stopped at its first
/// instruction, with `ram` and `mailbox` as its only descriptors. Returns its id.
/// # Errors
/// [`ExecutorError::Spawn`] with the step that the host refused.
pub fn spawn(
    image: RawFd,
    ram: RawFd,
    mailbox: RawFd,
    core: Option<usize>,
) -> Result<libc::pid_t, ExecutorError> {
    let mut arg = Child {
        image,
        ram,
        mailbox,
        core,
        failed: ("clone", 0),
    };
    let mut stack = vec![0u128; CHILD_STACK / 16];
    let mut blocked: libc::sigset_t;
    let mut old: libc::sigset_t;
    // SAFETY: the child runs on its own stack, which with `arg` lives until clone returns: CLONE_VFORK
    // suspends us until it execs or exits. All signals are blocked meanwhile, so none of
    // our handlers runs in the child on our memory.
    let pid = unsafe {
        blocked = core::mem::zeroed();
        old = core::mem::zeroed();
        libc::sigfillset(&raw mut blocked);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const blocked, &raw mut old);
        let top = stack.as_mut_ptr().add(stack.len()).cast::<c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let pid = libc::clone(child, top, flags, (&raw mut arg).cast());
        if pid < 0 {
            arg.failed.1 = errno();
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, ptr::null_mut());
        pid
    };
    if pid < 0 || arg.failed.1 != 0 {
        if pid > 0 {
            let _ = super::ptrace::wait(pid);
        }
        let (step, errno) = arg.failed;
        return Err(ExecutorError::Spawn {
            step,
            source: std::io::Error::from_raw_os_error(errno),
        });
    }
    match super::ptrace::wait(pid) {
        Ok(super::ptrace::Stop::Signal(libc::SIGTRAP)) => {}
        other => {
            abandon(pid);
            return Err(ExecutorError::Protocol(format!(
                "no stop after exec: {other:?}"
            )));
        }
    }
    Ok(pid)
}

/// Ends and reaps a child that never became an executor.
pub fn abandon(pid: libc::pid_t) {
    // SAFETY: our own unreaped child.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    while !matches!(
        super::ptrace::wait(pid),
        Ok(super::ptrace::Stop::Gone) | Err(_)
    ) {
        let _ = super::ptrace::run_trusted(pid);
    }
}

/// A pidfd of our own child.
/// # Errors
/// What the host says.
pub fn pidfd(pid: libc::pid_t) -> std::io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A memfd that holds `bytes` (`executable`: and may be exec'd).
/// # Errors
/// What the host says.
pub fn memfd(
    name: &core::ffi::CStr,
    size: u64,
    bytes: &[u8],
    executable: bool,
) -> std::io::Result<OwnedFd> {
    const MFD_NOEXEC_SEAL: u32 = 8;
    const MFD_EXEC: u32 = 0x10;
    let wanted = if executable {
        MFD_EXEC
    } else {
        MFD_NOEXEC_SEAL
    };
    // SAFETY: a constant name. Kernels before 6.3 know neither flag and say EINVAL.
    let mut fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | wanted) };
    if fd < 0 && errno() == libc::EINVAL {
        // SAFETY: as above.
        fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    }
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a valid descriptor; the length is that of the slice.
    let written = unsafe {
        if libc::ftruncate(fd.as_raw_fd(), size as libc::off_t) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        libc::pwrite(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0)
    };
    if written != bytes.len() as isize {
        return Err(std::io::Error::other("short write to a memfd"));
    }
    Ok(fd)
}
