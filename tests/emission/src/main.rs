//! Fuzzes the translator with arbitrary bytes and checks everything that it emits.

use clap::Parser;
use ring3_emission::run;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Translates arbitrary bytes in every mode and checks what was emitted.
#[derive(Parser)]
struct Arguments {
    /// Seconds to run.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// First seed; by default the time. Each seed makes one series of inputs.
    #[arg(long)]
    seed: Option<u64>,
    /// Inputs for each seed.
    #[arg(long, default_value_t = 20_000)]
    inputs: u64,
}

/// A series of inputs that takes this long hangs.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let a = Arguments::parse();
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |d| d.as_secs());
    let first = a.seed.unwrap_or(clock);
    let end = Instant::now() + Duration::from_secs(a.seconds);
    let current = Arc::new(AtomicU64::new(first));
    watch(Arc::clone(&current));
    let mut seed = first;
    while Instant::now() < end {
        current.store(seed, Ordering::Relaxed);
        match run::run(seed, a.inputs, Some(end)) {
            Ok(report) => print!("seed {seed}\n{}", run::text(&report)),
            Err(why) => {
                println!("FAILED: {why}");
                return ExitCode::FAILURE;
            }
        }
        seed += 1;
    }
    ExitCode::SUCCESS
}

/// Ends the process when one seed does not come to its end.
fn watch(current: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        loop {
            let seed = current.load(Ordering::Relaxed);
            std::thread::sleep(PATIENCE);
            if current.load(Ordering::Relaxed) == seed {
                println!("FAILED: seed {seed} hangs");
                std::process::exit(1);
            }
        }
    });
}
