//! Hosts that refuse what direct execution needs: ring 3 stays translated, one line says why.
#![allow(unsafe_code)] // a seccomp filter is installed between fork and exec

use crate::machine::{Options, run};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Loads the number of the system call; compares it; refuses it with an error or allows it.
/// Linux Documentation/userspace-api/seccomp_filter.rst.
fn refuse(command: &mut Command, number: libc::c_long, error: i32) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            number as u32,
        ),
        statement(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | error as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: system calls only, on a program that outlives them.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                ) != 0
        };
        if failed {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: `install` only makes system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

fn no_ptrace(command: &mut Command) {
    refuse(command, libc::SYS_ptrace, libc::EPERM);
}

fn no_seccomp(command: &mut Command) {
    refuse(command, libc::SYS_seccomp, libc::EINVAL);
}

fn no_memory_executables(command: &mut Command) {
    refuse(command, libc::SYS_execveat, libc::EACCES);
}

/// What is refused to a command, and a word of the reason.
type Refusal = (fn(&mut Command), &'static str);

const REFUSALS: [Refusal; 3] = [
    (no_ptrace, "ptrace"),
    (no_seccomp, "seccomp"),
    (no_memory_executables, "exec"),
];

/// `ring3 host` says what is refused and what follows.
#[test]
fn the_host_report_says_what_is_refused() {
    for (prepare, word) in REFUSALS {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ring3"));
        command.arg("host").stdin(Stdio::null());
        prepare(&mut command);
        let output = command.output().expect("ring3 starts");
        assert!(output.status.success(), "{word}: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text
            .lines()
            .find(|l| l.trim_start().starts_with("direct execution"))
            .expect("a line");
        assert!(
            line.contains(" no ")
                && line.contains(word)
                && line.ends_with("ring 3 stays translated"),
            "{word}: {line}"
        );
    }
}

/// The machine starts all the same, says once why, and the guest works.
#[test]
fn a_guest_boots_translated_where_direct_execution_is_refused() {
    for (prepare, word) in REFUSALS {
        let mut options = Options::new("debian-686-pae/boot", "auto");
        options.prepare = Some(prepare);
        let done = run(options);
        let said: Vec<&str> = done
            .messages
            .lines()
            .filter(|l| l.starts_with("ring3: "))
            .collect();
        assert_eq!(said.len(), 1, "{word}: {}", done.messages);
        assert!(
            said[0].contains(word) && said[0].ends_with("; ring 3 stays translated"),
            "{word}: {}",
            said[0]
        );
        assert_eq!(done.seen.ids.len(), 0, "{word}: executors were left");
        assert_eq!(done.stats["direct"]["entries"].as_u64(), Some(0), "{word}");
    }
}
