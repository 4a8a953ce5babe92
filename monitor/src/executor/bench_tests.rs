//! What executors cost on this host. `cargo test --release -p ring3-monitor executor::bench -- --ignored --nocapture`

use super::tests::{Bench, CODE, RW, start};
use super::*;
use crate::host_tsc;
use std::time::Duration;

/// The least of several samples of `work`, each `per` operations long: others use this host too.
fn least(samples: usize, per: u32, mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..samples)
        .map(|_| {
            let t = host_tsc::monotonic_ns();
            work();
            Duration::from_nanos(host_tsc::monotonic_ns() - t) / per
        })
        .collect();
    times.sort();
    times[0]
}

fn pin() {
    let mut set = nix::sched::CpuSet::new();
    set.set(1).unwrap();
    let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
}

#[test]
#[ignore = "prints measurements"]
fn costs() {
    pin();
    // As the processor's thread does.
    host_tsc::hide();
    let show = |name: &str, t: Duration| println!("{name:44} {:8.2} µs", t.as_nanos() as f64 / 1e3);
    let trap = |name: &str, code: &[u8], change: bool| {
        let mut b = Bench::new(code);
        let mut regs = start();
        let mut n = 0;
        let t = least(200, 100, || {
            for _ in 0..100 {
                regs.eip = CODE;
                if change {
                    n += 1;
                    regs.gpr = [n; 8];
                }
                b.run(&mut regs);
            }
        });
        show(name, t);
    };
    trap(
        "trap: page fault, registers as they were",
        &[0xa0, 0, 0, 0, 0],
        false,
    );
    trap(
        "trap: page fault, all registers changed",
        &[0xa0, 0, 0, 0, 0],
        true,
    );
    trap("trap: int 0x80", &[0xcd, 0x80], false);
    trap("trap: ud2", &[0x0f, 0x0b], false);
    trap("trap: hlt (#GP with a frame)", &[0xf4], false);

    let mut b = Bench::new(&[0xa0, 0, 0, 0, 0]);
    let mut regs = start();
    b.run(&mut regs);
    let mut area = [0; 4096];
    show(
        "save FPU state",
        least(200, 100, || {
            (0..100).for_each(|_| b.executor.save_fpu(&mut area, 7).unwrap())
        }),
    );
    show(
        "load FPU state",
        least(200, 100, || {
            (0..100).for_each(|_| b.executor.load_fpu(&area).unwrap())
        }),
    );
    for batch in [1u32, 16, 256] {
        let mut page = 0u32;
        let t = least(21, batch, || {
            for _ in 0..batch {
                page = (page + 1) % 5000;
                b.executor
                    .map(0x4000_0000 + page * 0x2000, 0x2000, 0x1000, RW)
                    .unwrap();
            }
            b.executor.flush().unwrap();
        });
        show(&format!("map one page, batch of {batch}"), t);
    }
    show(
        "take and give back, idle",
        least(21, 1, || {
            let e = b.pool.take().unwrap();
            b.pool.give_back(e);
        }),
    );
    show(
        "start a process",
        least(21, 1, || drop(b.pool_of_none().take().unwrap())),
    );
    // 20 000 000 iterations of a dependent loop: natively as fast as it gets.
    let code = [
        0xb9, 0, 0x2d, 0x31, 1, 1, 0xc8, 0x49, 0x75, 0xfb, 0x0f, 0x0b,
    ];
    let mut b = Bench::new(&code);
    show(
        "20 000 000 loop iterations",
        least(5, 1, || {
            b.run(&mut start());
        }),
    );
}

impl Bench {
    /// A pool without idle executors.
    fn pool_of_none(&self) -> ExecutorPool {
        use std::os::fd::AsFd;
        ExecutorPool::new(self.ram.as_fd(), None).expect("pool")
    }
}
