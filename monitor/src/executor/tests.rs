//! Guest code of every kind in an executor: what stops it, and with what state.

use super::registers::UserRegs;
use super::*;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

pub(super) const CODE: u32 = 0x0804_8000;
pub(super) const DATA: u32 = 0x1000_0000;
pub(super) const RAM: u64 = 1 << 20;
pub(super) const RX: Rights = Rights {
    write: false,
    execute: true,
};
pub(super) const RW: Rights = Rights {
    write: true,
    execute: false,
};
pub(super) const RWX: Rights = Rights {
    write: true,
    execute: true,
};

/// RAM whose page 0 holds code and is mapped at [`CODE`], and whose page 1 is mapped writable at
/// [`DATA`]; the other pages are not mapped.
pub(super) struct Bench {
    pub ram: File,
    pub pool: ExecutorPool,
    pub executor: Executor,
}

impl Bench {
    pub fn new(code: &[u8]) -> Self {
        let fd = spawn::memfd(c"test-ram", RAM, code, false).expect("memfd");
        let mut pool = ExecutorPool::new(fd.as_fd(), None).expect("pool");
        let mut executor = pool.take().expect("executor");
        executor.map(CODE, 0, 4096, RX).expect("map");
        executor.map(DATA, 0x1000, 4096, RW).expect("map");
        Self {
            ram: fd.into(),
            pool,
            executor,
        }
    }
    pub fn run(&mut self, regs: &mut UserRegs) -> TrapKind {
        self.executor.run(regs).expect("runs").kind
    }
    pub fn page_byte(&self, offset: u64) -> u8 {
        let mut b = [0];
        self.ram.read_exact_at(&mut b, offset).expect("reads");
        b[0]
    }
}

pub(super) fn start() -> UserRegs {
    UserRegs {
        eip: CODE,
        gpr: [0, 0, 0, 0, DATA + 0x800, 0, 0, 0],
        eflags: 0x202,
        ..UserRegs::default()
    }
}

pub(super) fn exception(vector: u8, error: u32) -> TrapKind {
    TrapKind::Exception { vector, error }
}

/// Runs `code` from fresh registers.
fn once(code: &[u8]) -> (TrapKind, UserRegs, Bench) {
    let mut b = Bench::new(code);
    let mut regs = start();
    let kind = b.run(&mut regs);
    (kind, regs, b)
}

#[test]
fn this_host_is_supported() {
    host_support().expect("supported");
}

#[test]
fn registers_and_flags_go_in_and_come_out() {
    // inc eax (64-bit code would read a REX prefix); stc; std; int3
    let mut b = Bench::new(&[0x40, 0xf9, 0xfd, 0xcc]);
    let mut regs = start();
    regs.gpr = [
        0xffff_ffff,
        0x1111_1111,
        0x2222_2222,
        0x3333_3333,
        DATA + 8,
        0x5555_5555,
        0x6666_6666,
        0x7777_7777,
    ];
    regs.eflags = 0x202;
    let before = regs;
    assert_eq!(b.run(&mut regs), exception(3, 0));
    assert_eq!(regs.gpr[0], 0);
    assert_eq!(regs.gpr[1..], before.gpr[1..]);
    assert_eq!(regs.eip, CODE + 4);
    assert_eq!(regs.eflags, 0x2 | 0x200 | 0x400 | 0x40 | 0x10 | 0x4 | 1);
}

#[test]
fn a_loop_computes_natively() {
    // mov ecx,100000000; l: add eax,ecx; dec ecx; jnz l; ud2
    let (kind, regs, _) = once(&[
        0xb9, 0, 0xe1, 0xf5, 5, 1, 0xc8, 0x49, 0x75, 0xfb, 0x0f, 0x0b,
    ]);
    assert_eq!(kind, exception(6, 0));
    assert_eq!(regs.gpr[0], (100_000_000u64 * 100_000_001 / 2) as u32);
    assert_eq!(regs.eip, CODE + 10);
}

#[test]
fn each_exception_has_its_vector_error_code_and_eip() {
    let of = 0x7f; // mov al,7f; inc al sets OF
    let cases: &[(&str, &[u8], TrapKind, u32)] = &[
        ("int3", &[0xcc], exception(3, 0), 1),
        ("int 3", &[0xcd, 3], exception(3, 0), 2),
        ("icebp", &[0xf1], exception(1, 0), 1),
        ("ud2", &[0x0f, 0x0b], exception(6, 0), 0),
        ("hlt", &[0xf4], exception(13, 0), 0),
        ("cli", &[0xfa], exception(13, 0), 0),
        ("in al,dx", &[0xec], exception(13, 0), 0),
        ("mov eax,cr0", &[0x0f, 0x20, 0xc0], exception(13, 0), 0),
        ("int 0x21", &[0xcd, 0x21], exception(13, 0x21 * 8 + 2), 0),
        (
            "mov ax,0x1234; mov ds,ax",
            &[0x66, 0xb8, 0x38, 0x12, 0x8e, 0xd8],
            exception(13, 0x1238),
            4,
        ),
        ("div by zero", &[0xf7, 0xf1], exception(0, 0), 0),
        (
            "into with OF",
            &[0xb0, of, 0xfe, 0xc0, 0xce],
            exception(4, 0),
            5,
        ),
        ("into without OF", &[0xce, 0xcc], exception(3, 0), 2),
        (
            "bound",
            &[0xb9, 0xff, 0xff, 0xff, 0xff, 0x62, 0x0d, 0, 0, 0, 0x10],
            exception(5, 0),
            5,
        ),
        ("sysenter", &[0x0f, 0x34], exception(6, 0), 0),
        ("int 0x80", &[0xcd, 0x80], TrapKind::Syscall, 2),
    ];
    for (name, code, kind, eip) in cases {
        if *name == "sysenter"
            && !std::fs::read_to_string("/proc/cpuinfo")
                .unwrap()
                .contains("AuthenticAMD")
        {
            continue; // Intel processors take it and lose EIP
        }
        let (got, regs, _) = once(code);
        assert_eq!((got, regs.eip), (*kind, CODE + eip), "{name}");
    }
}

#[test]
fn single_step_is_a_debug_exception_after_the_instruction() {
    let mut b = Bench::new(&[0x90, 0x90]);
    let mut regs = start();
    regs.eflags |= 0x100;
    assert_eq!(b.run(&mut regs), exception(1, 0));
    assert_eq!((regs.eip, regs.eflags & 0x100), (CODE + 1, 0x100));
}

#[test]
fn page_faults_have_the_address_and_the_frame_the_error_code() {
    // Not mapped: read, write, fetch. Mapped without the right: write to code, fetch from data.
    let write = |a: u32| [&[0xc6, 0x05][..], &a.to_le_bytes(), &[7]].concat();
    let read = |a: u32| [&[0xa0][..], &a.to_le_bytes()].concat();
    let jump = |a: u32| [&[0xb8][..], &a.to_le_bytes(), &[0xff, 0xe0]].concat();
    let cases = [
        (read(0x2000_0123), 0x2000_0123, false, 4, CODE),
        (write(0x2000_0123), 0x2000_0123, false, 6, CODE),
        (jump(0x2000_0123), 0x2000_0123, false, 0x14, 0x2000_0123),
        (write(CODE + 0x10), CODE + 0x10, true, 7, CODE),
        (jump(DATA), DATA, true, 0x15, DATA),
        (read(0xffff_ffff), 0xffff_ffff, false, 4, CODE),
        (read(0), 0, false, 4, CODE),
    ];
    for (code, cr2, mapped, error, eip) in cases {
        let (kind, mut regs, mut b) = once(&code);
        assert_eq!(kind, TrapKind::PageFault { cr2, mapped });
        assert_eq!(regs.eip, eip);
        assert_eq!(
            b.executor.exact().expect("frame"),
            (14, error),
            "cr2 {cr2:#x}"
        );
        // The frame costs nothing: the same again, then with the page.
        assert_eq!(b.run(&mut regs), TrapKind::PageFault { cr2, mapped });
    }
}

#[test]
fn a_miss_is_mapped_and_continues() {
    // inc byte [0x20000000]; int 0x80
    let (kind, mut regs, mut b) = once(&[0xfe, 0x05, 0, 0, 0, 0x20, 0xcd, 0x80]);
    assert_eq!(
        kind,
        TrapKind::PageFault {
            cr2: 0x2000_0000,
            mapped: false
        }
    );
    b.executor.map(0x2000_0000, 0x5000, 0x1000, RW).unwrap();
    assert_eq!(b.run(&mut regs), TrapKind::Syscall);
    assert_eq!(b.page_byte(0x5000), 1);
    b.executor.unmap(0x2000_0000, 0x1000).unwrap();
    regs.eip = CODE;
    assert_eq!(
        b.run(&mut regs),
        TrapKind::PageFault {
            cr2: 0x2000_0000,
            mapped: false
        }
    );
}

#[test]
fn a_system_call_keeps_all_registers_and_continues() {
    // l: int 0x80; jmp l
    let mut b = Bench::new(&[0xcd, 0x80, 0xeb, 0xfc]);
    for eax in [
        0,
        1,
        4,
        252,
        335,
        336,
        0x4000_0001,
        0xffff_fdfc,
        0xffff_fe00,
        0xffff_ffff,
    ] {
        let mut regs = start();
        regs.gpr = [eax, 2, 3, 4, DATA, 6, 7, 8];
        let before = regs.gpr;
        assert_eq!(b.run(&mut regs), TrapKind::Syscall, "eax {eax:#x}");
        assert_eq!((regs.gpr, regs.eip), (before, CODE + 2));
        assert_eq!(b.run(&mut regs), TrapKind::Syscall, "eax {eax:#x}");
        assert_eq!((regs.gpr, regs.eip), (before, CODE + 2));
    }
}

#[test]
fn fs_and_gs_have_their_bases() {
    // mov eax,fs:[0]; mov ebx,gs:[0]; int3
    let mut b = Bench::new(&[0x64, 0xa1, 0, 0, 0, 0, 0x65, 0x8b, 0x1d, 0, 0, 0, 0, 0xcc]);
    b.ram
        .write_all_at(&[1, 2, 3, 4, 5, 6, 7, 8], 0x1010)
        .unwrap();
    let mut regs = start();
    (regs.fs_base, regs.gs_base) = (Some(DATA + 0x10), Some(DATA + 0x14));
    assert_eq!(b.run(&mut regs), exception(3, 0));
    assert_eq!((regs.gpr[0], regs.gpr[3]), (0x0403_0201, 0x0807_0605));
    let mut again = start();
    again.fs_base = Some(0);
    assert_eq!(
        b.run(&mut again),
        TrapKind::PageFault {
            cr2: 0,
            mapped: false
        },
        "base 0 is set too"
    );
}

#[test]
fn selectors_are_reported_as_found() {
    // int3; xor eax,eax; mov fs,eax; int3
    let mut b = Bench::new(&[0xcc, 0x31, 0xc0, 0x8e, 0xe0, 0xcc]);
    let mut regs = start();
    regs.fs_base = Some(0);
    assert_eq!(
        b.executor.run(&mut regs).unwrap().selectors,
        Selectors::loaded(&regs)
    );
    let trap = b.executor.run(&mut regs).unwrap();
    assert_eq!(trap.kind, exception(3, 0));
    assert_eq!(trap.selectors.fs, 0);
    assert_ne!(trap.selectors, Selectors::loaded(&regs));
    regs.eip = CODE;
    assert_eq!(
        b.executor.run(&mut regs).unwrap().selectors,
        Selectors::loaded(&regs),
        "loaded anew"
    );
}

#[test]
fn id_nt_and_ac_flags_go_both_ways() {
    // pushfd; pop eax; int3
    let mut b = Bench::new(&[0x9c, 0x58, 0xcc]);
    for flags in [
        0,
        1 << 21,
        1 << 14,
        1 << 18,
        1 << 21 | 1 << 14,
        0x8d5 | 1 << 21,
        0,
    ] {
        let mut regs = start();
        regs.gpr[4] = DATA + 0x800;
        regs.eflags = flags | 0x202;
        assert_eq!(b.run(&mut regs), exception(3, 0));
        assert_eq!(regs.gpr[0], flags | 0x202, "flags {flags:#x} inside");
        assert_eq!(regs.eflags, flags | 0x202, "flags {flags:#x} back");
    }
}

#[test]
fn a_kick_stops_an_endless_loop_soon() {
    let mut b = Bench::new(&[0x40, 0xeb, 0xfd]); // l: inc eax; jmp l
    let kick = b.executor.kicker();
    let mut worst = std::time::Duration::ZERO;
    let mut regs = start();
    for _ in 0..20 {
        let kick = kick.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let t = std::time::Instant::now();
            kick.kick();
            t
        });
        assert_eq!(b.run(&mut regs), TrapKind::Kick);
        worst = worst.max(thread.join().unwrap().elapsed());
        assert!((CODE..CODE + 3).contains(&regs.eip));
    }
    assert!(regs.gpr[0] > 1000, "it ran: {}", regs.gpr[0]);
    assert!(worst < std::time::Duration::from_millis(500), "{worst:?}");
}

#[test]
fn a_kick_before_a_run_is_not_lost() {
    let mut b = Bench::new(&[0xeb, 0xfe]);
    b.executor.kicker().kick();
    assert_eq!(b.run(&mut start()), TrapKind::Kick);
}

#[test]
fn other_signals_from_outside_only_kick() {
    let mut b = Bench::new(&[0xeb, 0xfe]);
    let pid = nix::unistd::Pid::from_raw(b.executor.pid());
    use nix::sys::signal::Signal::*;
    for signal in [
        SIGTERM, SIGSEGV, SIGTRAP, SIGFPE, SIGSTOP, SIGCONT, SIGINT, SIGSYS, SIGILL,
    ] {
        nix::sys::signal::kill(pid, signal).unwrap();
        assert_eq!(b.run(&mut start()), TrapKind::Kick, "{signal}");
    }
    b.ram.write_all_at(&[0xcd, 0x80], 0).unwrap();
    let mut kind = TrapKind::Kick;
    for _ in 0..4 {
        if kind == TrapKind::Kick {
            kind = b.run(&mut start());
        }
    }
    assert_eq!(kind, TrapKind::Syscall);
}

#[test]
fn bad_ranges_are_refused() {
    let mut b = Bench::new(&[]);
    let e = &mut b.executor;
    for (lin, offset, len) in [
        (0, 0, 0x1000),
        (0x1001, 0, 0x1000),
        (0x1000, 1, 0x1000),
        (0x1000, 0, 0),
        (0x1000, 0, 1),
        (0xffff_f000, 0, 0x2000),
        (0x1000, RAM, 0x1000),
        (0x1000, u64::MAX - 0xfff, 0x1000),
        (0x1000, 0, RAM as u32 + 0x1000),
    ] {
        assert!(
            matches!(
                e.map(lin, offset, len, RW),
                Err(ExecutorError::BadRange(..))
            ),
            "{lin:#x} {offset:#x} {len:#x}"
        );
    }
    e.map(0xffff_f000, RAM - 0x1000, 0x1000, RW)
        .expect("the last page");
}

#[test]
fn more_mappings_than_the_queue_holds_are_done() {
    let mut b = Bench::new(&[0x8a, 0x03, 0xcc]); // mov al,[ebx]; int3
    for page in 0..3000u32 {
        // Alternating so that nothing merges.
        b.executor
            .map(
                0x4000_0000 + page * 0x1000,
                u64::from(page % 2 * 2) * 0x1000,
                0x1000,
                RW,
            )
            .unwrap();
    }
    b.ram.write_all_at(&[9], 0x2000).unwrap();
    for page in [0u32, 1, 1500, 1501, 2998, 2999] {
        let mut regs = start();
        regs.gpr[3] = 0x4000_0000 + page * 0x1000;
        assert_eq!(b.run(&mut regs), exception(3, 0));
        assert_eq!(regs.gpr[0] as u8, if page % 2 == 1 { 9 } else { 0x8a });
    }
}

#[test]
fn a_null_segment_and_rdtsc_fault() {
    // mov eax, fs:[DATA]: FS null, then flat
    let mut b = Bench::new(&[0x64, 0xa1, 0, 0, 0x20, 0, 0xcc]);
    let mut regs = start();
    let fault = b.executor.run(&mut regs).unwrap();
    assert_eq!((fault.kind, regs.eip), (exception(13, 0), CODE));
    assert_eq!(fault.selectors, Selectors::loaded(&regs));
    // rdtsc
    let mut b = Bench::new(&[0x0f, 0x31, 0xcc]);
    let mut regs = start();
    assert_eq!(b.executor.run(&mut regs).unwrap().kind, exception(13, 0));
    assert_eq!(regs.eip, CODE);
}
