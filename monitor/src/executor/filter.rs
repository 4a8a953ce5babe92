//! The seccomp filter of an executor: the second fence.
//!
//! While guest code runs, the kernel stops every system call at its entry for the monitor
//! (PTRACE_SYSEMU) and never carries it out. The filter holds also while the monitor runs the
//! stub's command loop: it allows `mmap` of guest RAM and `munmap`, below 4 GiB, from the loop's
//! own instruction; everything else traps. It is also what stops the emulated vsyscall page, which
//! is no system call to ptrace.

use libc::sock_filter;

const LD_ABS: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JEQ: u16 = 0x15;
const JGE_X: u16 = 0x3d; // BPF_JMP | BPF_JGE | BPF_X
const XOR_K: u16 = 0xa4;
const SUB_K: u16 = 0x14;
const TAX: u16 = 0x07;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const TRAP: u32 = 0x0003_0000;
const ARCH_X86_64: u32 = 0xc000_003e;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const IP: u32 = 8;
const fn arg(n: u32) -> u32 {
    16 + 8 * n
}

/// The mapping flags that `mmap` must carry.
pub const MAP_FLAGS: u32 = (libc::MAP_SHARED | libc::MAP_FIXED) as u32;

/// A step of the filter: load a word, demand something of it, or decide.
enum Step {
    Load(u32),
    /// Trap unless the word equals.
    Must(u32),
    /// Trap if any of the bits is set.
    Clear(u32),
    /// Jump to the end of the `munmap` block (allow) if equal, else on.
    Raw(sock_filter),
}

const fn op(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// The range check: arguments 0 and 1 are an address and a non-zero length that end by 4 GiB.
fn range() -> Vec<Step> {
    vec![
        Step::Load(arg(0) + 4),
        Step::Must(0),
        Step::Load(arg(1) + 4),
        Step::Must(0),
        Step::Load(arg(1)),
        // X = length - 1, which wraps to 2^32 - 1 for length 0 and then only passes at address 0.
        Step::Raw(op(SUB_K, 1)),
        Step::Raw(op(TAX, 0)),
        Step::Load(arg(0)),
        Step::Raw(op(XOR_K, u32::MAX)),
        // A = 2^32 - 1 - address: allow if A >= X. jt/jf are patched like Must.
        Step::Raw(sock_filter {
            code: JGE_X,
            jt: 0,
            jf: 0xff,
            k: 0,
        }),
    ]
}

/// Builds the filter for an image whose command loop's `syscall` ends at `ip`.
#[must_use]
pub fn program(ip: u64) -> Vec<sock_filter> {
    let mut steps = vec![
        Step::Load(ARCH),
        Step::Must(ARCH_X86_64),
        Step::Load(IP),
        Step::Must(ip as u32),
        Step::Load(IP + 4),
        Step::Must((ip >> 32) as u32),
    ];
    steps.extend(range());
    steps.push(Step::Load(NR));
    // munmap: nothing more to check; the jump over the mmap block is patched below.
    let munmap_jump = steps.len();
    steps.push(Step::Raw(sock_filter {
        code: JEQ,
        jt: 0,
        jf: 0,
        k: libc::SYS_munmap as u32,
    }));
    steps.push(Step::Must(libc::SYS_mmap as u32));
    for (n, low) in [(3, MAP_FLAGS), (4, super::RAM_FD as u32)] {
        steps.push(Step::Load(arg(n)));
        steps.push(Step::Must(low));
        steps.push(Step::Load(arg(n) + 4));
        steps.push(Step::Must(0));
    }
    steps.push(Step::Load(arg(2)));
    steps.push(Step::Clear(
        !((libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as u32),
    ));
    steps.push(Step::Load(arg(2) + 4));
    steps.push(Step::Must(0));
    let allow = steps.len();
    let trap = allow + 1;
    let mut out = Vec::with_capacity(trap + 1);
    for (i, step) in steps.into_iter().enumerate() {
        let to_trap = (trap - i - 1) as u8;
        out.push(match step {
            Step::Load(k) => op(LD_ABS, k),
            Step::Must(k) => sock_filter {
                code: JEQ,
                jt: 0,
                jf: to_trap,
                k,
            },
            Step::Clear(k) => sock_filter {
                code: JSET,
                jt: to_trap,
                jf: 0,
                k,
            },
            Step::Raw(f) if f.code == JGE_X => sock_filter { jf: to_trap, ..f },
            Step::Raw(f) if i == munmap_jump => sock_filter {
                jt: (allow - i - 1) as u8,
                ..f
            },
            Step::Raw(f) => f,
        });
    }
    out.push(op(RET, ALLOW));
    out.push(op(RET, TRAP));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Classic BPF, the subset above.
    fn decide(program: &[sock_filter], data: &[u8; 64]) -> u32 {
        let (mut a, mut x, mut pc) = (0u32, 0u32, 0usize);
        loop {
            let f = &program[pc];
            pc += 1;
            let jump = |taken: bool| usize::from(if taken { f.jt } else { f.jf });
            match f.code {
                LD_ABS => {
                    let k = f.k as usize;
                    a = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
                }
                JEQ => pc += jump(a == f.k),
                JSET => pc += jump(a & f.k != 0),
                JGE_X => pc += jump(a >= x),
                XOR_K => a ^= f.k,
                SUB_K => a = a.wrapping_sub(f.k),
                TAX => x = a,
                RET => return f.k,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    fn call(arch: u32, ip: u64, nr: i64, args: [u64; 6]) -> [u8; 64] {
        let mut d = [0; 64];
        d[0..4].copy_from_slice(&(nr as u32).to_le_bytes());
        d[4..8].copy_from_slice(&arch.to_le_bytes());
        d[8..16].copy_from_slice(&ip.to_le_bytes());
        for (i, v) in args.iter().enumerate() {
            d[16 + 8 * i..24 + 8 * i].copy_from_slice(&v.to_le_bytes());
        }
        d
    }

    #[test]
    fn only_pinned_calls_pass() {
        let ip = 0x10_0000_00c5;
        let p = program(ip);
        let flags = u64::from(MAP_FLAGS);
        let good = [0x1000, 0x1000, 3, flags, 0, 0x5000];
        let check = |arch, ip, nr, args| decide(&p, &call(arch, ip, nr, args));
        assert_eq!(check(ARCH_X86_64, ip, libc::SYS_mmap, good), ALLOW);
        assert_eq!(
            check(
                ARCH_X86_64,
                ip,
                libc::SYS_mmap,
                [0xffff_f000, 0x1000, 7, flags, 0, 0]
            ),
            ALLOW
        );
        assert_eq!(
            check(
                ARCH_X86_64,
                ip,
                libc::SYS_munmap,
                [0x8000_0000, 0x8000_0000, 9, 9, 9, 9]
            ),
            ALLOW
        );
        assert_eq!(
            check(0x4000_0003, ip, libc::SYS_mmap, good),
            TRAP,
            "i386 entry"
        );
        assert_eq!(
            check(ARCH_X86_64, ip - 1, libc::SYS_mmap, good),
            TRAP,
            "other instruction"
        );
        assert_eq!(
            check(ARCH_X86_64, ip + (1 << 32), libc::SYS_mmap, good),
            TRAP,
            "same low half"
        );
        for bad in [
            [0x1000, 0x1000, 3, flags, 1, 0],
            [0x1000, 0x1000, 3, flags | 0x20, 0, 0],
            [0x1000, 0x1000, 3, flags, 1 << 32, 0],
            [0x1000, 0x1000, 3, flags | 1 << 33, 0, 0],
            [0x1000, 0x1000, 8, flags, 0, 0],
            [0x1000, 0x1000, 3 | 1 << 40, flags, 0, 0],
            [0x1_0000_0000, 0x1000, 3, flags, 0, 0],
            [0xffff_f000, 0x2000, 3, flags, 0, 0],
            [0x1000, 0xffff_f001, 3, flags, 0, 0],
            [0x1000, 0x1_0000_0000, 3, flags, 0, 0],
            [0x1000, 0, 3, flags, 0, 0],
        ] {
            assert_eq!(
                check(ARCH_X86_64, ip, libc::SYS_mmap, bad),
                TRAP,
                "{bad:x?}"
            );
        }
        for nr in (0..1024).chain(0x4000_0000..0x4000_0400) {
            if nr != libc::SYS_mmap && nr != libc::SYS_munmap {
                assert_eq!(check(ARCH_X86_64, ip, nr, good), TRAP, "number {nr}");
            }
        }
    }
}
