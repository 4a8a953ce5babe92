//! The child's seccomp filter: `futex`, `rt_sigreturn` and `exit_group` of the 64-bit table;
//! everything else, and every call by another table (INT 0x80), kills the child.
#![allow(unsafe_code)] // Installs a filter by system calls.

use super::child::syscall;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const KILL: u32 = 0x8000_0000; // SECCOMP_RET_KILL_PROCESS
const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
const ARCH_X86_64: u32 = 0xc000_003e;

const fn op(code: u16, k: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: yes,
        jf: no,
        k,
    }
}

/// Installs the filter for the calling process, for ever. Returns false if the kernel refuses.
///
/// Runs in the forked child: no allocation, no C library.
pub fn enter() -> bool {
    let program = [
        op(LOAD, 4, 0, 0),
        op(JUMP_EQUAL, ARCH_X86_64, 0, 5),
        op(LOAD, 0, 0, 0),
        op(JUMP_EQUAL, libc::SYS_futex as u32, 2, 0),
        op(JUMP_EQUAL, libc::SYS_rt_sigreturn as u32, 1, 0),
        op(JUMP_EQUAL, libc::SYS_exit_group as u32, 0, 1),
        op(RETURN, ALLOW, 0, 0),
        op(RETURN, KILL, 0, 0),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: prctl with a filter that lives across the call.
    unsafe {
        syscall(
            libc::SYS_prctl,
            [libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0, 0, 0],
        ) == 0
            && syscall(
                libc::SYS_prctl,
                [
                    libc::PR_SET_SECCOMP as u64,
                    u64::from(libc::SECCOMP_MODE_FILTER),
                    &raw const filter as u64,
                    0,
                    0,
                    0,
                ],
            ) == 0
    }
}
