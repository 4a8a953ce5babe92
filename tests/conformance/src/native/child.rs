//! The child process: set-up, and the signal handler that is its main loop.
//!
//! Everything from `fork` on runs without the C library, allocation or thread-local storage:
//! the parent may have other threads, and FS belongs to the cases. All code after the first
//! trap runs in signal context.
#![allow(unsafe_code)] // Signal frames, raw system calls and fixed mappings.

use super::shared::{Area, BATCH, MAGIC_RUNNING, Shared};
use crate::case::seg;
use crate::layout;
use crate::vector::{XSAVE_BYTES, XsaveLayout};
use core::arch::asm;
use core::sync::atomic::Ordering;
use std::io;

/// Where the child maps the shared area: beyond 32-bit code's reach, and known to the handler
/// without any variable.
const SHARED_AT: usize = 0x1f00_0000_0000;
const ALT_STACK_BYTES: usize = 1 << 16;
const ALT_STACK_AT: usize = 0x1e00_0000_0000;
const SS_AUTODISARM: i32 = i32::MIN;
const SA_RESTORER: u64 = 0x0400_0000;
/// EFLAGS bits that sigreturn does not restore but POPF may set: NT and ID.
const BY_POPF: u64 = 1 << 14 | 1 << 21;

/// A raw system call.
///
/// # Safety
/// As the call itself.
pub unsafe fn syscall(number: i64, a: [u64; 6]) -> i64 {
    let result: i64;
    // SAFETY: the system call convention of x86-64 Linux.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
             in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _);
    }
    result
}

fn exit(status: u64) -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { syscall(libc::SYS_exit_group, [status, 0, 0, 0, 0, 0]) };
    }
}

/// Forks a child that serves `area`.
pub fn fork(area: &Area) -> io::Result<i32> {
    // SAFETY: getpid and fork; the child only runs `child_main`, which needs nothing of the
    // parent's locks or threads.
    unsafe {
        let parent = libc::getpid();
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => child_main(area.fd, parent),
            pid => Ok(pid),
        }
    }
}

/// The exit status of the child if it ended (a signal number plus 1000 if a signal ended it).
pub fn ended(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: waits for our own child without blocking.
    let result = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    if result == 0 {
        None
    } else if libc::WIFEXITED(status) {
        Some(libc::WEXITSTATUS(status))
    } else {
        Some(1000 + libc::WTERMSIG(status))
    }
}

/// Kills the child and waits for its end.
pub fn kill(pid: i32) {
    let mut status = 0;
    // SAFETY: `pid` is our own child that was not waited for yet.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, &raw mut status, 0);
    }
}

/// Maps `len` bytes at exactly `at`.
unsafe fn map(at: usize, len: usize, prot: i32, flags: i32, fd: i32) -> bool {
    let flags = flags | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE never replaces a mapping of the process.
    let got = unsafe {
        syscall(
            libc::SYS_mmap,
            [
                at as u64,
                len as u64,
                prot as u64,
                flags as u64,
                fd as i64 as u64,
                0,
            ],
        )
    };
    got == at as i64
}

#[repr(C)]
struct UserDescriptor {
    entry: u32,
    base: u32,
    limit: u32,
    bits: u32,
}

#[repr(C)]
struct KernelSigaction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

unsafe fn child_main(fd: i32, parent: i32) -> ! {
    // SAFETY: system calls that change only this process; mappings never replace others.
    unsafe {
        let step = |n: u64, ok: bool| {
            if !ok {
                exit(n);
            }
        };
        syscall(
            libc::SYS_prctl,
            [
                libc::PR_SET_PDEATHSIG as u64,
                libc::SIGKILL as u64,
                0,
                0,
                0,
                0,
            ],
        );
        step(10, syscall(libc::SYS_getppid, [0; 6]) == i64::from(parent));
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        step(
            11,
            map(SHARED_AT, size_of::<Shared>(), rw, libc::MAP_SHARED, fd),
        );
        step(12, map(ALT_STACK_AT, ALT_STACK_BYTES, rw, private, -1));
        for (at, len) in layout::WRITABLE {
            step(
                13,
                map(at as usize, len as usize, rw | libc::PROT_EXEC, private, -1),
            );
        }
        step(
            14,
            map(
                layout::READ_ONLY as usize,
                layout::PAGE as usize,
                rw,
                private,
                -1,
            ),
        );
        let page = layout::READ_ONLY as *mut u64;
        let mut rng = crate::rng::Rng::new(0x526f);
        for n in 0..layout::PAGE as usize / 8 {
            page.add(n).write(rng.u64());
        }
        let (at, len) = (u64::from(layout::READ_ONLY), u64::from(layout::PAGE));
        step(
            15,
            syscall(
                libc::SYS_mprotect,
                [at, len, libc::PROT_READ as u64, 0, 0, 0],
            ) == 0,
        );
        for (n, d) in layout::LOCAL.iter().enumerate() {
            step(16, set_descriptor(n as u32, d));
        }
        let stack = libc::stack_t {
            ss_sp: ALT_STACK_AT as *mut _,
            ss_flags: SS_AUTODISARM,
            ss_size: ALT_STACK_BYTES,
        };
        step(
            17,
            syscall(
                libc::SYS_sigaltstack,
                [&raw const stack as u64, 0, 0, 0, 0, 0],
            ) == 0,
        );
        let handler: extern "C" fn(i32, u64, *mut Context) = on_signal;
        let action = KernelSigaction {
            handler: handler as usize as u64,
            flags: (libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER) as u64 | SA_RESTORER,
            restorer: handler as usize as u64, // never used: the handler does its own sigreturn
            mask: 0,
        };
        for signal in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGTRAP,
        ] {
            let args = [signal as u64, &raw const action as u64, 0, 8, 0, 0];
            step(18, syscall(libc::SYS_rt_sigaction, args) == 0);
        }
        let none = 0u64;
        syscall(
            libc::SYS_rt_sigprocmask,
            [libc::SIG_SETMASK as u64, &raw const none as u64, 0, 8, 0, 0],
        );
        step(
            19,
            syscall(libc::SYS_close_range, [0, u64::from(u32::MAX), 0, 0, 0, 0]) == 0,
        );
        step(20, super::jail::enter());
        asm!("int3");
    }
    exit(21)
}

unsafe fn set_descriptor(entry: u32, d: &layout::Descriptor) -> bool {
    // struct user_desc: seg_32bit, contents (2), read_exec_only, limit_in_pages, not_present, useable.
    let code = d.kind & 8 != 0;
    let contents = if code { 2 } else { u32::from(d.kind & 4 != 0) };
    let writable_or_readable = d.kind & 2 != 0;
    let bits = u32::from(d.big)
        | contents << 1
        | u32::from(!writable_or_readable) << 3
        | u32::from(d.pages) << 4
        | u32::from(!d.present) << 5
        | 1 << 6;
    let desc = UserDescriptor {
        entry,
        base: d.base,
        limit: d.limit,
        bits,
    };
    // SAFETY: changes this process's local descriptor table only (mode 0x11: new format).
    unsafe {
        syscall(
            libc::SYS_modify_ldt,
            [0x11, &raw const desc as u64, 16, 0, 0, 0],
        ) == 0
    }
}

/// The kernel's `struct ucontext` up to the FPU pointer.
#[repr(C)]
struct Context {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    r8_r15: [u64; 8],
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    eflags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    err: u64,
    trapno: u64,
    oldmask: u64,
    cr2: u64,
    fpstate: *mut u8,
}

/// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS.
const CONTEXT_FLAGS: u64 = 7;

extern "C" fn on_signal(_signal: i32, _info: u64, context: *mut Context) {
    // SAFETY: the first statement gives this code the flags that compiled code expects (the
    // case may have left NT, AC or ID set).
    unsafe { asm!("push 2", "popfq") };
    // SAFETY: the kernel passes a valid frame; the shared area was mapped before the first trap,
    // and between `go` and `done` it belongs to this process.
    unsafe {
        let c = &mut *context;
        let shared = SHARED_AT as *mut Shared;
        let s = &*shared;
        if s.state.load(Ordering::SeqCst) == MAGIC_RUNNING {
            if c.cs == 0x33 {
                exit(30); // this handler itself faulted
            }
            let n = s.current.load(Ordering::SeqCst) as usize;
            capture(c, shared, n % BATCH);
            s.current.store(n as u32 + 1, Ordering::SeqCst);
        } else {
            s.state.store(MAGIC_RUNNING, Ordering::SeqCst);
        }
        let mut n = s.current.load(Ordering::SeqCst);
        if n >= s.count.load(Ordering::SeqCst) {
            next_batch(s);
            n = 0;
        }
        start(c, shared, n as usize % BATCH)
    }
}

/// Reports the batch as complete and waits for the next.
fn next_batch(s: &Shared) {
    let finished = s.go.load(Ordering::SeqCst);
    if s.count.load(Ordering::SeqCst) != 0 {
        s.done.store(finished, Ordering::SeqCst);
    }
    let seen = if s.count.load(Ordering::SeqCst) == 0 {
        0
    } else {
        finished
    };
    // SAFETY: futex calls on live words.
    unsafe {
        syscall(
            libc::SYS_futex,
            [s.done.as_ptr() as u64, libc::FUTEX_WAKE as u64, 1, 0, 0, 0],
        );
        while s.go.load(Ordering::SeqCst) == seen {
            let args = [
                s.go.as_ptr() as u64,
                libc::FUTEX_WAIT as u64,
                u64::from(seen),
                0,
                0,
                0,
            ];
            syscall(libc::SYS_futex, args);
        }
    }
}

/// Copies the case's pages to or from `memory`.
unsafe fn copy_pages(memory: *mut u8, out: bool) {
    let mut at = 0;
    for (base, len) in layout::WRITABLE {
        // SAFETY: the caller gives a live array of MEMORY_BYTES; the regions are mapped.
        unsafe {
            let (page, slot) = (base as usize as *mut u8, memory.add(at));
            if out {
                core::ptr::copy_nonoverlapping(page, slot, len as usize);
            } else {
                core::ptr::copy_nonoverlapping(slot, page, len as usize);
            }
        }
        at += len as usize;
    }
}

/// Saves the frame of the case that just stopped.
unsafe fn capture(c: &Context, shared: *mut Shared, n: usize) {
    // SAFETY: `n` is below BATCH, the frame's FPU image has at least the bytes that the layout
    // names (the kernel wrote it by XSAVE).
    unsafe {
        let output = (&raw mut (*shared).output)
            .cast::<super::shared::Output>()
            .add(n);
        let (ds, es): (u32, u32);
        asm!("mov {0:e}, ds", "mov {1:e}, es", out(reg) ds, out(reg) es, options(nomem, nostack));
        (&raw mut (*output).regs).write(crate::case::Regs {
            gpr: [c.rax, c.rcx, c.rdx, c.rbx, c.rsp, c.rbp, c.rsi, c.rdi].map(|r| r as u32),
            eip: c.rip as u32,
            eflags: c.eflags as u32,
            seg: [es as u16, c.cs, c.ss, ds as u16, current_fs(), current_gs()],
        });
        (&raw mut (*output).trap).write(c.trapno as u32);
        (&raw mut (*output).error).write(c.err as u32);
        (&raw mut (*output).cr2).write(c.cr2);
        let len = xsave_len(&(*shared).layout);
        core::ptr::copy_nonoverlapping(c.fpstate, (&raw mut (*output).xsave).cast(), len);
        copy_pages((&raw mut (*output).memory).cast(), true);
    }
}

fn current_fs() -> u16 {
    let value: u32;
    // SAFETY: reads a selector.
    unsafe { asm!("mov {0:e}, fs", out(reg) value, options(nomem, nostack)) };
    value as u16
}

fn current_gs() -> u16 {
    let value: u32;
    // SAFETY: reads a selector.
    unsafe { asm!("mov {0:e}, gs", out(reg) value, options(nomem, nostack)) };
    value as u16
}

/// Bytes of the image that the layout uses.
fn xsave_len(layout: &XsaveLayout) -> usize {
    let mut len = 576;
    for (at, bytes) in [
        (layout.avx, 256),
        (layout.opmask, 64),
        (layout.zmm_high, 512),
    ] {
        if at != 0 && at + bytes > len {
            len = at + bytes;
        }
    }
    if len > XSAVE_BYTES { XSAVE_BYTES } else { len }
}

/// Rewrites the frame to case `n` and returns from the signal into it.
unsafe fn start(c: &mut Context, shared: *mut Shared, n: usize) -> ! {
    // SAFETY: as `capture`; the inputs are complete (the parent wrote them before `go`).
    unsafe {
        let input = (&raw mut (*shared).input)
            .cast::<super::shared::Input>()
            .add(n);
        let r = (&raw const (*input).regs).read();
        copy_pages((&raw mut (*input).memory).cast(), false);
        let image = (&raw const (*input).xsave).cast::<u8>();
        core::ptr::copy_nonoverlapping(image, c.fpstate, 464);
        let len = xsave_len(&(*shared).layout);
        core::ptr::copy_nonoverlapping(image.add(512), c.fpstate.add(512), len - 512);
        c.flags = CONTEXT_FLAGS;
        c.r8_r15 = [0; 8];
        let [ax, cx, dx, bx, sp, bp, si, di] = r.gpr.map(u64::from);
        (c.rax, c.rcx, c.rdx, c.rbx, c.rsp, c.rbp, c.rsi, c.rdi) = (ax, cx, dx, bx, sp, bp, si, di);
        c.rip = u64::from(r.eip);
        c.eflags = u64::from(r.eflags);
        c.cs = r.seg[seg::CS];
        c.ss = r.seg[seg::SS];
        asm!("mov ds, {0:x}", "mov es, {1:x}", "mov fs, {2:x}", "mov gs, {3:x}",
             in(reg) r.seg[seg::DS], in(reg) r.seg[seg::ES], in(reg) r.seg[seg::FS], in(reg) r.seg[seg::GS],
             options(nostack));
        // The frame begins with the return address, eight bytes below the context; its slot is
        // free for the push. Flags that sigreturn leaves alone are those of the caller.
        asm!("mov rsp, {context}", "push {flags}", "popfq", "mov eax, 15", "syscall", "ud2",
             context = in(reg) core::ptr::from_mut(c), flags = in(reg) u64::from(r.eflags) & BY_POPF | 2,
             options(noreturn));
    }
}
