//! Fuzzes every chip, and the board, for a time each.

use clap::Parser;
use ring3_device_fuzz::heap::Counting;
use ring3_device_fuzz::run;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[global_allocator]
static HEAP: Counting = Counting::new();

/// Fuzzes the PC's chips by ports, memory and DMA.
#[derive(Parser)]
struct Arguments {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// First seed; by default the time.
    #[arg(long)]
    seed: Option<u64>,
    /// Only this target.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    let a = Arguments::parse();
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |d| d.as_secs());
    let first = a.seed.unwrap_or(clock);
    let ticks = Arc::new(AtomicU64::new(0));
    let seeds = Arc::new(AtomicU64::new(first));
    watch(Arc::clone(&ticks), Arc::clone(&seeds));
    let mut bad = 0;
    for name in run::names() {
        if a.only.as_ref().is_some_and(|o| o != name) {
            continue;
        }
        let end = Instant::now() + Duration::from_secs(a.seconds);
        let (mut seed, mut done) = (first, 0);
        let mut failed = None;
        while failed.is_none() && Instant::now() < end {
            seeds.store(seed, Ordering::Relaxed);
            match run::series(name, seed, &HEAP, &|_| {
                _ = ticks.fetch_add(1, Ordering::Relaxed)
            }) {
                Ok(n) => done += n,
                Err(why) => failed = Some(why),
            }
            seed += 1;
        }
        println!(
            "{name:<10} {done:>10} operations, seeds {first}-{}",
            seed - 1
        );
        if let Some(why) = failed {
            println!("FAILED: {why}");
            bad += 1;
        }
    }
    if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Ends the process when an operation does not come to its end.
fn watch(ticks: Arc<AtomicU64>, seeds: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let (mut last, mut idle) = (0, 0);
        loop {
            // Short sleeps: a process that is stopped for a minute misses one of them.
            std::thread::sleep(Duration::from_secs(1));
            let now = ticks.load(Ordering::Relaxed);
            idle = if now == last { idle + 1 } else { 0 };
            last = now;
            if idle > 3 * run::PATIENCE.as_secs() {
                println!(
                    "FAILED: an operation hangs, seed {}",
                    seeds.load(Ordering::Relaxed)
                );
                std::process::exit(1);
            }
        }
    });
}
