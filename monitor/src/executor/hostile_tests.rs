//! Guest code that attacks its jail: it far-jumps into 64-bit mode and tries everything from there.
//! Each attempt must end in a stop, with nothing done.

use super::image::{FRAME_BASE, FRAME_SIZE, IMAGE_BASE, MAILBOX_BASE, MAILBOX_SIZE};
use super::registers::{UserRegs, blank};
use super::tests::{Bench, CODE, DATA, RAM, RW, RWX, start};
use super::*;
use libc::user_regs_struct;
use std::os::unix::fs::FileExt;

/// `ljmp 0x33:next`, then 64-bit `code`.
fn long(code: &[u8]) -> Vec<u8> {
    let next = (CODE + 7).to_le_bytes();
    [&[0xea][..], &next, &[0x33, 0], code].concat()
}

const SYSCALL: [u8; 2] = [0x0f, 0x05];
const HLT: u8 = 0xf4;

/// Everything about the process and RAM that a system call could have changed.
#[derive(PartialEq, Debug)]
struct World {
    maps: String,
    fds: Vec<String>,
    status: Vec<String>,
    ram_size: u64,
    ram: Vec<u8>,
}

fn world(b: &Bench) -> World {
    let pid = b.executor.pid();
    let read = |what: &str| std::fs::read_to_string(format!("/proc/{pid}/{what}")).expect("alive");
    let kept = [
        "Name",
        "Tgid",
        "Uid",
        "Gid",
        "FDSize",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "Threads",
        "NoNewPrivs",
        "Seccomp:",
        "Cpus_allowed:",
    ];
    let status = read("status")
        .lines()
        .filter(|l| kept.iter().any(|k| l.starts_with(k)))
        .map(String::from)
        .collect();
    let mut fds: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| {
            format!(
                "{} {}",
                p.display(),
                std::fs::read_link(&p).unwrap().display()
            )
        })
        .collect();
    fds.sort();
    let mut ram = vec![0; RAM as usize];
    b.ram.read_exact_at(&mut ram, 0).unwrap();
    World {
        maps: read("maps"),
        fds,
        status,
        ram_size: b.ram.metadata().unwrap().len(),
        ram,
    }
}

/// Arguments that make many calls do visible things: descriptor 0 is RAM, DATA is readable.
fn tempting() -> UserRegs {
    // RAX number; RDI, RSI, RDX = 0, DATA, 16 (ECX and R11 are lost anyway)
    UserRegs {
        gpr: [0, 0, 16, 0, DATA + 0x800, 0, DATA, 0],
        ..start()
    }
}

const CALL: TrapKind = TrapKind::Foreign(ForeignCause::Syscall);
fn foreign(signal: i32) -> TrapKind {
    TrapKind::Foreign(ForeignCause::Signal(signal))
}

#[test]
fn the_process_has_nothing_but_ram_and_the_stub() {
    let b = Bench::new(&[HLT]);
    let mut executor = b.executor;
    executor.flush().unwrap();
    let pid = executor.pid();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut lines: Vec<(u64, u64, String)> = maps
        .lines()
        .map(|l| {
            let mut words = l.split_whitespace();
            let (from, to) = words.next().unwrap().split_once('-').unwrap();
            let hex = |s| u64::from_str_radix(s, 16).unwrap();
            (hex(from), hex(to), words.next().unwrap().to_string())
        })
        .collect();
    lines.retain(|l| l.0 < 1 << 63); // the vsyscall page, which no munmap removes
    let own = |base: u64, size: u64, rights: &str| (base, base + size, rights.to_string());
    let expected = vec![
        own(u64::from(CODE), 0x1000, "r-xs"),
        own(u64::from(DATA), 0x1000, "rw-s"),
        own(IMAGE_BASE, 0x1000, "r-xp"),
        own(MAILBOX_BASE, MAILBOX_SIZE, "r--s"),
        own(FRAME_BASE, FRAME_SIZE, "rw-p"),
    ];
    assert_eq!(lines, expected, "{maps}");
    let fds: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(fds, ["0"]);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in [
        "Seccomp:\t2",
        "NoNewPrivs:\t1",
        "Threads:\t1",
        "SigBlk:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line}\n{status}");
    }
}

#[test]
fn no_system_call_is_carried_out_by_any_entry_and_number() {
    let entries: [(&str, Vec<u8>, TrapKind); 4] = [
        (
            "64-bit syscall",
            long(&[&SYSCALL[..], &[HLT]].concat()),
            CALL,
        ),
        ("64-bit int 0x80", long(&[0xcd, 0x80, HLT]), CALL),
        ("32-bit int 0x80", vec![0xcd, 0x80, HLT], TrapKind::Syscall),
        // TF set before: the step's signal or the call, whichever comes first, never the call's result
        (
            "64-bit syscall stepping",
            long(&[0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x0f, 0x05, HLT]),
            CALL,
        ),
    ];
    for (name, code, expected) in entries {
        let mut b = Bench::new(&code);
        b.executor.flush().unwrap();
        let before = world(&b);
        let numbers = (0..=600u32).chain(0x4000_0000..=0x4000_0258).chain([
            0x4000_ffff,
            0x7fff_ffff,
            u32::MAX,
            u32::MAX - 511,
        ]);
        for number in numbers {
            let mut regs = tempting();
            regs.gpr[0] = number;
            regs.gpr[4] = DATA + 0xf00;
            let kind = b.run(&mut regs);
            assert_eq!(kind, expected, "{name} {number:#x}");
            assert_eq!(regs.gpr[0], number, "{name}: no result in EAX");
        }
        let mut after = world(&b);
        // The stack that PUSHF used.
        after.ram[0x1e00..0x1f00].copy_from_slice(&before.ram[0x1e00..0x1f00]);
        assert!(
            after == before,
            "{name} changed the world: {:?}",
            after.maps
        );
    }
}

#[test]
fn a_32_bit_syscall_instruction_does_nothing() {
    // Loses EIP on AMD processors, is #UD on Intel ones.
    let mut b = Bench::new(&[0x0f, 0x05, HLT]);
    b.executor.flush().unwrap();
    let before = world(&b);
    for number in 0..=600u32 {
        let mut regs = tempting();
        regs.gpr[0] = number;
        match b.run(&mut regs) {
            CALL => assert_eq!(regs.gpr[0], number),
            TrapKind::Exception { vector: 6, .. } => assert_eq!(regs.eip, CODE),
            // With its stack unreadable the kernel gives up before the stop.
            TrapKind::PageFault { cr2, .. } => assert_eq!(cr2, regs.eip),
            other => panic!("{number}: {other:?}"),
        }
    }
    assert!(world(&b) == before);
}

#[test]
fn sysenter_and_the_vsyscall_page_do_nothing() {
    let mut b = Bench::new(&long(&[0x0f, 0x34, HLT]));
    let kind = b.run(&mut tempting());
    assert!(
        [CALL, foreign(libc::SIGILL), foreign(libc::SIGSEGV)].contains(&kind),
        "{kind:?}"
    );
    for entry in [
        0xffff_ffff_ff60_0000u64,
        0xffff_ffff_ff60_0400,
        0xffff_ffff_ff60_0800,
    ] {
        // mov rdi,DATA; mov rax,entry; call rax; hlt
        let code = [
            &[0xbf][..],
            &DATA.to_le_bytes(),
            &[0x48, 0xb8],
            &entry.to_le_bytes(),
            &[0xff, 0xd0, HLT],
        ]
        .concat();
        let mut b = Bench::new(&long(&code));
        let kind = b.run(&mut tempting());
        assert!(
            [foreign(libc::SIGSYS), foreign(libc::SIGSEGV)].contains(&kind),
            "{entry:#x}: {kind:?}"
        );
        assert_eq!(b.page_byte(0x1000), 0, "no time of day was written");
    }
}

#[test]
fn the_upper_address_space_is_not_writable() {
    // mov rax,address; mov dword [rax],0x41414141; hlt
    let store = |a: u64| {
        long(
            &[
                &[0x48, 0xb8][..],
                &a.to_le_bytes(),
                &[0xc7, 0, 0x41, 0x41, 0x41, 0x41, HLT],
            ]
            .concat(),
        )
    };
    let mut b = Bench::new(&[]);
    let ours = [
        IMAGE_BASE,
        IMAGE_BASE + 0x80,
        MAILBOX_BASE,
        MAILBOX_BASE + 0x40,
        MAILBOX_BASE + MAILBOX_SIZE - 4,
    ];
    let wild =
        (32..64).flat_map(|bit| [1u64 << bit, (1 << bit) - 4096, (1u64 << bit).wrapping_neg()]);
    for address in ours
        .into_iter()
        .chain(wild)
        .chain([0xffff_ffff_ff60_0000, 0x7fff_ffff_e000])
    {
        // 2^32 - 4096 is guest space, where nothing is mapped either.
        b.ram.write_all_at(&store(address), 0).unwrap();
        assert_eq!(b.run(&mut start()), foreign(libc::SIGSEGV), "{address:#x}");
    }
    let mailbox = std::fs::read_to_string(format!("/proc/{}/maps", b.executor.pid())).unwrap();
    assert!(mailbox.contains("r--s"));
}

#[test]
fn scribbling_over_the_frame_area_changes_no_trap() {
    // mov rdi,FRAME; mov ecx,size; mov al,0x41; rep stosb; then ud2
    let fill = [
        &[0x48, 0xbf][..],
        &FRAME_BASE.to_le_bytes(),
        &[0xb9],
        &(FRAME_SIZE as u32).to_le_bytes(),
        &[0xb0, 0x41, 0xf3, 0xaa, 0x0f, 0x0b],
    ]
    .concat();
    let mut b = Bench::new(&long(&fill));
    assert_eq!(b.run(&mut start()), foreign(libc::SIGILL));
    b.ram.write_all_at(&[0xcd, 0x21], 0).unwrap();
    assert_eq!(
        b.run(&mut start()),
        TrapKind::Exception {
            vector: 13,
            error: 0x10a
        }
    );
    // A stack pointer inside the frame area, from 64-bit code, and a fault there.
    let pivot = [
        &[0x48, 0xbc][..],
        &(FRAME_BASE + 0x8000).to_le_bytes(),
        &[0x50, HLT],
    ]
    .concat();
    b.ram.write_all_at(&long(&pivot), 0).unwrap();
    assert_eq!(b.run(&mut start()), foreign(libc::SIGSEGV));
    b.ram.write_all_at(&[0xcd, 0x22], 0).unwrap();
    assert_eq!(
        b.run(&mut start()),
        TrapKind::Exception {
            vector: 13,
            error: 0x112
        }
    );
}

#[test]
fn forged_sigreturn_frames_are_not_taken() {
    let mut b = Bench::new(&[]);
    // A frame that would set CS, RIP and a full signal mask.
    let mut frame = vec![0xff; 0x400];
    frame[40 + 8 * 16..40 + 8 * 17].copy_from_slice(&IMAGE_BASE.to_le_bytes());
    b.ram.write_all_at(&frame, 0x1800).unwrap();
    for (code, number, expected) in [
        (long(&[&SYSCALL[..], &[HLT]].concat()), 15, CALL),
        (
            long(&[&SYSCALL[..], &[HLT]].concat()),
            0x4000_0000 | 513,
            CALL,
        ),
        (vec![0xcd, 0x80, HLT], 119, TrapKind::Syscall),
        (vec![0xcd, 0x80, HLT], 173, TrapKind::Syscall),
    ] {
        b.ram.write_all_at(&code, 0).unwrap();
        let mut regs = start();
        regs.gpr[0] = number;
        let eip = CODE + code.len() as u32 - 1;
        assert_eq!(b.run(&mut regs), expected);
        assert_eq!((regs.eip, regs.gpr[4]), (eip, DATA + 0x800));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", b.executor.pid())).unwrap();
    assert!(status.contains("SigBlk:\t0000000000000000"));
}

#[test]
fn jumping_to_any_byte_of_the_stub_maps_nothing() {
    const SECRET: u64 = 0x5000;
    let image = ExecutorImage::assemble().unwrap();
    let mut b = Bench::new(&[]);
    b.executor.map(0x2000_0000, 0x2000, 0x1000, RWX).unwrap();
    b.executor.map(CODE, 0, 0x1000, RWX).unwrap();
    b.ram.write_all_at(b"secret", SECRET).unwrap();
    let flags = u64::from(filter::MAP_FLAGS);
    let command = [
        libc::SYS_mmap as u64,
        0x3000_0000,
        0x1000,
        3,
        flags,
        0,
        SECRET,
        0,
        u64::MAX,
    ];
    let bytes: Vec<u8> = command.iter().flat_map(|w| w.to_le_bytes()).collect();
    b.ram.write_all_at(&bytes, 0x1000).unwrap();
    // All argument registers as for the mapping, RBX at the forged command, jump to R11.
    let mov = |opcode: [u8; 2], v: u64| [&opcode[..], &v.to_le_bytes()].concat();
    let template = |target: u64| {
        long(
            &[
                mov([0x48, 0xb8], command[0]),
                mov([0x48, 0xbf], command[1]),
                mov([0x48, 0xbe], command[2]),
                mov([0x48, 0xba], command[3]),
                mov([0x49, 0xba], command[4]),
                mov([0x49, 0xb8], command[5]),
                mov([0x49, 0xb9], command[6]),
                mov([0x48, 0xbb], u64::from(DATA)),
                mov([0x49, 0xbb], target),
                vec![0x41, 0xff, 0xe3],
            ]
            .concat(),
        )
    };
    b.executor.flush().unwrap();
    let before = world(&b).maps;
    let kick = b.executor.kicker();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ended = std::sync::Arc::clone(&stop);
    // Byte soup may loop.
    let kicker = std::thread::spawn(move || {
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(20));
            kick.kick();
        }
    });
    let mut calls = 0;
    for offset in 0..image.bytes.len() as u64 + 16 {
        b.ram
            .write_all_at(&template(IMAGE_BASE + offset), 0)
            .unwrap();
        let mut kind = TrapKind::Kick;
        while kind == TrapKind::Kick {
            let mut regs = start();
            kind = b.run(&mut regs);
        }
        assert!(
            matches!(kind, TrapKind::Foreign(_)),
            "offset {offset}: {kind:?}"
        );
        calls += usize::from(kind == CALL);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    kicker.join().unwrap();
    assert!(calls >= 4, "the stub's system calls were reached: {calls}");
    assert_eq!(world(&b).maps, before);
    // mov al,[0x30000000]
    b.ram.write_all_at(&[0xa0, 0, 0, 0, 0x30], 0).unwrap();
    let mut kind = TrapKind::Kick;
    while kind == TrapKind::Kick {
        kind = b.run(&mut start());
    }
    assert_eq!(
        kind,
        TrapKind::PageFault {
            cr2: 0x3000_0000,
            mapped: false
        }
    );
}

#[test]
fn a_kick_stops_a_64_bit_loop_that_tried_to_block_signals() {
    let mut b = Bench::new(&[]);
    b.ram.write_all_at(&[0xff; 8], 0x1000).unwrap();
    let mut regs = tempting();
    b.ram.write_all_at(&long(&SYSCALL), 0).unwrap();
    regs.gpr[0] = 14; // rt_sigprocmask(SIG_BLOCK, DATA, 16)
    assert_eq!(b.run(&mut regs), CALL);
    b.ram.write_all_at(&long(&[0xeb, 0xfe]), 0).unwrap();
    let kick = b.executor.kicker();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(10));
        kick.kick();
    });
    assert_eq!(b.run(&mut start()), foreign(super::kick::SIGNAL));
    thread.join().unwrap();
}

#[test]
fn the_filter_stops_the_stub_itself() {
    // The second fence alone: system calls are real here.
    let bad: [[u64; 7]; 4] = [
        [libc::SYS_getpid as u64, 0, 0, 0, 0, 0, 0],
        [
            libc::SYS_mmap as u64,
            1 << 33,
            4096,
            3,
            u64::from(filter::MAP_FLAGS),
            0,
            0,
        ],
        [
            libc::SYS_mmap as u64,
            0x1000_0000,
            4096,
            3,
            0x22,
            u64::MAX,
            0,
        ],
        [335, 0, 0, 0, 0, 0, 0],
    ];
    for command in bad {
        let mut b = Bench::new(&[HLT]);
        b.executor.flush().unwrap();
        b.executor.mailbox.push(command);
        let result = b.executor.flush();
        assert!(result.is_err(), "{command:x?}: {result:?}");
    }
    let mut b = Bench::new(&[HLT]);
    b.executor.flush().unwrap();
    let single = b.executor.image.single;
    let regs = user_regs_struct {
        rip: single,
        rax: libc::SYS_munmap as u64,
        rdi: 0x1000,
        rsi: 0x1000,
        ..blank()
    };
    let result = b.executor.run_fragment(&regs, single + 3..=single + 3);
    assert!(
        matches!(result, Err(ExecutorError::Protocol(_))),
        "wrong instruction: {result:?}"
    );
}

#[test]
fn running_out_of_mappings_is_an_error_and_reset_recovers() {
    let mut b = Bench::new(&[0xcd, 0x80]);
    let mut failed = None;
    for page in 0..80_000u32 {
        let result = b.executor.map(
            0x4000_0000 + page * 0x2000,
            u64::from(page % 2) * 0x1000,
            0x1000,
            RW,
        );
        if let Err(e) = result.and_then(|()| {
            if page % 512 == 511 {
                b.executor.flush()
            } else {
                Ok(())
            }
        }) {
            failed = Some(e);
            break;
        }
    }
    let limit: u32 = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    if limit < 80_000 {
        let Some(ExecutorError::Map(e)) = failed else {
            panic!("{failed:?}")
        };
        assert_eq!(e.raw_os_error(), Some(libc::ENOMEM));
    }
    b.executor.reset().expect("resets");
    b.executor.map(CODE, 0, 4096, super::tests::RX).unwrap();
    assert_eq!(b.run(&mut start()), TrapKind::Syscall);
}

#[test]
fn a_pool_keeps_a_bounded_number() {
    let mut b = Bench::new(&[]);
    let many: Vec<_> = (0..20).map(|_| b.pool.take().expect("takes")).collect();
    let pids: Vec<_> = many.iter().map(Executor::pid).collect();
    for e in many {
        b.pool.give_back(e);
    }
    assert_eq!(b.pool.idle(), 8);
    let alive = |pid: &i32| std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert_eq!(pids.iter().filter(|p| alive(p)).count(), 8);
    drop(b);
    assert_eq!(pids.iter().filter(|p| alive(p)).count(), 0);
}
