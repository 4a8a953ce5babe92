//! FPU state, and what outlives an executor: nothing of the guest is lost, nothing of the host leaks.

use super::tests::{Bench, CODE, DATA, RW, RX, exception, start};
use super::*;
use std::os::unix::fs::FileExt;

#[repr(align(64))]
struct Area([u8; 4096]);

#[test]
fn fpu_state_goes_in_stays_over_frames_and_comes_out() {
    // fld1; faddp; vaddps ymm1,ymm0,ymm0 ; hlt (a frame); movaps xmm2,xmm1; int3
    let avx = std::arch::is_x86_feature_detected!("avx");
    let add: &[u8] = if avx {
        &[0xc5, 0xfc, 0x58, 0xc8]
    } else {
        &[0x0f, 0x28, 0xc8, 0x0f, 0x58, 0xc8]
    };
    let code = [
        &[0xd9, 0xe8, 0xde, 0xc1][..],
        add,
        &[0xf4, 0x0f, 0x28, 0xd1, 0xcc],
    ]
    .concat();
    let mut b = Bench::new(&code);
    let mut area = Box::new(Area([0; 4096]));
    area.0[0..2].copy_from_slice(&0x037fu16.to_le_bytes());
    area.0[2..4].copy_from_slice(&0x3800u16.to_le_bytes()); // TOP = 7
    area.0[4] = 0x80; // one register in use
    area.0[24..28].copy_from_slice(&0x3f80u32.to_le_bytes()); // round down
    area.0[32..42].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0x40]); // 2.0
    for i in 0..4 {
        area.0[160 + 4 * i..164 + 4 * i].copy_from_slice(&(1.5f32 + i as f32).to_le_bytes());
    }
    // AVX: component 2 at its CPUID offset.
    let ymm = core::arch::x86_64::__cpuid_count(0xd, 2).ebx as usize;
    if avx {
        area.0[ymm..ymm + 4].copy_from_slice(&100f32.to_le_bytes());
    }
    area.0[512] = if avx { 7 } else { 3 };
    area.0[464..512].fill(0xaa);
    b.executor.load_fpu(&area.0).expect("loads");
    let mut regs = start();
    assert_eq!(b.run(&mut regs), exception(13, 0), "hlt");
    regs.eip += 1;
    assert_eq!(b.run(&mut regs), exception(3, 0));
    let mut out = Box::new(Area([0x55; 4096]));
    b.executor.save_fpu(&mut out.0, 7).expect("saves");
    assert_eq!(out.0[32..42], [0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0x40], "3.0");
    assert_eq!(out.0[24..28], 0x3f80u32.to_le_bytes());
    assert_eq!(out.0[160 + 16..160 + 20], 3f32.to_le_bytes(), "xmm1");
    assert_eq!(out.0[160 + 32..160 + 36], 3f32.to_le_bytes(), "xmm2");
    assert_eq!(out.0[160 + 44..160 + 48], 9f32.to_le_bytes(), "xmm2 lane 3");
    if avx {
        assert_eq!(out.0[ymm + 16..ymm + 20], 200f32.to_le_bytes(), "ymm1");
    }
    assert_eq!(
        out.0[464..512],
        [0x55; 48],
        "software bytes are the caller's"
    );
}

#[test]
fn unmasked_floating_point_exceptions_have_their_vectors() {
    // fldcw [DATA]; fld1; fldz; fdivp; fwait — divide by zero unmasked
    let fldcw = [0xd9, 0x2d, 0, 0, 0, 0x10];
    let x87 = [&fldcw[..], &[0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b]].concat();
    let mut b = Bench::new(&x87);
    b.ram
        .write_all_at(&0x037bu16.to_le_bytes(), 0x1000)
        .unwrap();
    let mut regs = start();
    assert_eq!(b.run(&mut regs), exception(16, 0));
    assert_eq!(regs.eip, CODE + 12);
    // ldmxcsr [DATA]; xorps xmm0,xmm0; movss xmm1,[DATA]; divss xmm1,xmm0
    let sse = [
        0x0f, 0xae, 0x15, 0, 0, 0, 0x10, 0x0f, 0x57, 0xc0, 0xf3, 0x0f, 0x10, 0x0d, 4, 0, 0, 0x10,
        0xf3, 0x0f, 0x5e, 0xc8,
    ];
    let mut b = Bench::new(&sse);
    b.ram
        .write_all_at(&0x1d80u32.to_le_bytes(), 0x1000)
        .unwrap();
    b.ram.write_all_at(&1f32.to_le_bytes(), 0x1004).unwrap();
    let mut regs = start();
    assert_eq!(b.run(&mut regs), exception(19, 0));
    assert_eq!(regs.eip, CODE + 18);
}

#[test]
fn killing_at_any_moment_loses_no_register_and_no_memory() {
    // l: inc eax; mov [DATA],eax; movd xmm0,eax; jmp l
    let code = [
        0x40, 0xa3, 0, 0, 0, 0x10, 0x66, 0x0f, 0x6e, 0xc0, 0xeb, 0xf4,
    ];
    let mut b = Bench::new(&code);
    let mut area = Box::new(Area([0; 4096]));
    let mut regs = start();
    b.executor.save_fpu(&mut area.0, 7).unwrap();
    let mut last = 0;
    for round in 0..40u64 {
        let kick = b.executor.kicker();
        let delay = std::time::Duration::from_micros(round * 53);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(delay);
            kick.kill();
        });
        assert_eq!(b.run(&mut regs), TrapKind::Killed);
        thread.join().unwrap();
        assert!(matches!(
            b.executor.run(&mut regs),
            Err(ExecutorError::Dead)
        ));
        b.executor.save_fpu(&mut area.0, 7).expect("of the dead");
        let mut word = [0; 4];
        b.ram.read_exact_at(&mut word, 0x1000).unwrap();
        let memory = u32::from_le_bytes(word);
        let xmm = u32::from_le_bytes(area.0[160..164].try_into().unwrap());
        let eax = regs.gpr[0];
        // Exactly the state between two instructions.
        let expected = match regs.eip - CODE {
            0 | 10 => (eax, eax),
            1 => (eax.wrapping_sub(1), eax.wrapping_sub(1)),
            6 => (eax, eax.wrapping_sub(1)),
            other => panic!("EIP {other}"),
        };
        assert_eq!(
            (memory, xmm),
            expected,
            "round {round} at {}",
            regs.eip - CODE
        );
        assert!(eax >= last);
        last = eax;
        let mut next = b.pool.take().expect("another");
        next.map(CODE, 0, 4096, RX).unwrap();
        next.map(DATA, 0x1000, 4096, RW).unwrap();
        next.load_fpu(&area.0).expect("loads");
        b.executor = next;
    }
    assert!(last > 0);
}

#[test]
fn killing_a_held_executor_loses_nothing() {
    let mut b = Bench::new(&[0x66, 0x0f, 0x6e, 0xc0, 0xcd, 0x80, 0xcc]);
    let mut regs = start();
    regs.gpr[0] = 0x1234_5678;
    assert_eq!(b.run(&mut regs), TrapKind::Syscall);
    b.executor.kicker().kill();
    let before = regs;
    assert_eq!(b.run(&mut regs), TrapKind::Killed);
    assert_eq!(regs, before);
    let mut area = [0; 4096];
    b.executor.save_fpu(&mut area, 7).unwrap();
    assert_eq!(area[160..164], 0x1234_5678u32.to_le_bytes());
    let mut other = b.pool.take().unwrap();
    other.kicker().kill();
    assert!(matches!(
        other.map(DATA, 0, 0x1000, RW).and_then(|()| other.flush()),
        Err(ExecutorError::Dead)
    ));
}

#[test]
fn a_returned_executor_is_empty_and_clean() {
    let mut b = Bench::new(&[0x66, 0x0f, 0x6e, 0xc0, 0xcd, 0x80]);
    let mut regs = start();
    regs.gpr[0] = 77;
    assert_eq!(b.run(&mut regs), TrapKind::Syscall);
    let next = b.pool.take().unwrap();
    let old = std::mem::replace(&mut b.executor, next);
    let pid = old.pid();
    b.pool.give_back(old);
    let mut again = b.pool.take().unwrap();
    assert_eq!(again.pid(), pid);
    let trap = again.run(&mut start()).unwrap();
    assert_eq!(
        trap.kind,
        TrapKind::PageFault {
            cr2: CODE,
            mapped: false
        }
    );
    let mut area = [0; 4096];
    again.save_fpu(&mut area, 7).unwrap();
    assert_eq!(area[160..176], [0; 16]);
    assert_eq!(area[24..28], 0x1f80u32.to_le_bytes());
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    assert!(
        maps.lines()
            .all(|l| u64::from_str_radix(l.split('-').next().unwrap(), 16).unwrap() >= 1 << 32),
        "{maps}"
    );
}

#[test]
fn dropped_executors_leave_no_process() {
    let b = Bench::new(&[0xcc]);
    let pid = b.executor.pid();
    drop(b);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn killing_among_system_calls_and_faults_loses_none_and_repeats_none() {
    // l: inc eax; int 0x80; inc byte [DATA]; ud2; jmp l
    let mut b = Bench::new(&[
        0x40, 0xcd, 0x80, 0xfe, 0x05, 0, 0, 0, 0x10, 0x0f, 0x0b, 0xeb, 0xf3,
    ]);
    let mut regs = start();
    let (mut calls, mut faults, mut deaths) = (0u32, 0u32, 0u32);
    while deaths < 100 {
        let kick = b.executor.kicker();
        let delay = std::time::Duration::from_micros(u64::from(deaths) * 7);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(delay);
            kick.kill();
        });
        loop {
            match b.executor.run(&mut regs) {
                Ok(Trap {
                    kind: TrapKind::Syscall,
                    ..
                }) => {
                    calls += 1;
                    assert_eq!((regs.eip, regs.gpr[0]), (CODE + 3, calls));
                }
                Ok(Trap {
                    kind: TrapKind::Exception { vector: 6, .. },
                    ..
                }) => {
                    faults += 1;
                    assert_eq!((regs.eip, faults), (CODE + 9, calls));
                    assert_eq!(b.page_byte(0x1000), calls as u8);
                    regs.eip += 2;
                }
                Ok(Trap {
                    kind: TrapKind::Killed,
                    ..
                })
                | Err(ExecutorError::Dead) => break,
                other => panic!("{other:?}"),
            }
        }
        thread.join().unwrap();
        deaths += 1;
        b.executor = b.pool.take().expect("another");
        b.executor.map(CODE, 0, 4096, RX).unwrap();
        b.executor.map(DATA, 0x1000, 4096, RW).unwrap();
    }
    assert!(calls > 100, "{calls}");
}
