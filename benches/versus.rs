//! The same guest work natively (the guest's own programs on the host), under ring3 with each
//! policy for ring 3, and under QEMU's translator: alternating in one run, pinned to one core.
//! Medians and ratios.
//!
//! `cargo bench --bench versus -- [--rounds N] [--core N] [--guest NAME] [--no-memory]`

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use ring3_guests::cache::Cache;
use ring3_guests::image::script;
use ring3_guests::session::{self, Transcript};
use ring3_guests::{Image, Refresh, prepare};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is measured: the marker's name, and what it is for people.
const WORK: [(&str, &str); 14] = [
    ("boot", "boot to init, guest uptime"),
    ("boot-host", "boot to init, from the start"),
    ("sha256", "sha256 of 32 MiB by a pipe"),
    ("sha256-stream", "sha256 of 128 MiB, 1 MiB reads"),
    ("sha256-file", "sha256 of 256 MiB, 4 KiB reads"),
    ("gzip", "gzip and gunzip of 24 MiB"),
    ("loop", "shell loop, 500 000 rounds"),
    ("crypto", "ChaCha20, 2 500 000 blocks"),
    ("integer", "sorting, 150 times 32 768"),
    ("sse", "SSE, 400 M multiply-adds"),
    ("avx", "AVX, 800 M multiply-adds"),
    ("syscalls", "1 000 000 system calls"),
    ("fork", "600 x fork, exec, wait"),
    ("pipes", "32 MiB through dd, tr, dd"),
];

/// The program with much memory; it runs in a machine of its own.
const MEMORY: [(&str, &str); 4] = [
    ("hungry/first_touch", "first touch of 1 GiB at random"),
    ("hungry/random_reads", "2 M random reads"),
    ("hungry/random_writes", "2 M random writes, 1 GiB written"),
    ("hungry/fork_and_copies", "fork, 256 MiB copied on write"),
];

/// Who does the work, as columns are headed.
const NATIVE: &str = "native";
const POLICIES: [&str; 3] = ["auto", "direct", "translate"];
const PEER: &str = "TCG";

/// Work that one guest does, as [`WORK`].
type Work = [(&'static str, &'static str)];

/// Seconds by the work's name and who did it, one per round.
type Samples = BTreeMap<(&'static str, &'static str), Vec<f64>>;

struct Options {
    rounds: u32,
    core: usize,
    guest: String,
    memory: bool,
}

fn main() -> Result<()> {
    let options = options()?;
    let mut core = CpuSet::new();
    core.set(options.core).context("no such core")?;
    // The monitors inherit it.
    sched_setaffinity(Pid::from_raw(0), &core).context("cannot pin to the core")?;
    let image = prepare(&Cache::default_root()?, &options.guest, Refresh::IfMissing)?;
    println!(
        "{}: {}; {} rounds, core {}, medians, seconds",
        image.name, image.origin, options.rounds, options.core
    );
    compare(&image, "bench.sh", &WORK, &options)?;
    if options.memory {
        let (recipe, _) = options
            .guest
            .split_once('/')
            .unwrap_or((&options.guest, ""));
        let hungry = prepare(
            &Cache::default_root()?,
            &format!("{recipe}/hungry"),
            Refresh::IfMissing,
        )?;
        println!();
        compare(&hungry, "hungry.sh", &MEMORY, &options)?;
    }
    println!();
    let directory = tempfile::tempdir()?;
    let stats = counters(&image, "translate", &directory.path().join("serial"))?;
    let t = &stats["translator"];
    println!(
        "translation: {} units, {} guest instructions, {} host bytes, {} ns per instruction",
        t["units"], t["instructions"], t["host_bytes"], t["ns_per_instruction"]
    );
    Ok(())
}

/// Runs one guest under everything, and its workload natively, and prints the table.
fn compare(image: &Image, workload: &str, work: &Work, options: &Options) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let serial = directory.path().join("serial");
    let ring3 = Path::new(env!("CARGO_BIN_EXE_ring3"));
    let mut samples = Samples::new();
    for round in 1..=options.rounds {
        eprintln!("{}: round {round} of {}", image.name, options.rounds);
        for policy in POLICIES {
            let mut command = session::ring3_command(ring3, image, &serial);
            command.arg(format!("--ring3={policy}"));
            measure(policy, command, &serial, image, work, &mut samples)?;
        }
        let peer = session::qemu_command(image, &serial);
        measure(PEER, peer, &serial, image, work, &mut samples)?;
        if let Err(error) = natively(image, workload, directory.path(), work, &mut samples) {
            eprintln!("no native figures: {error:#}");
        }
    }
    let columns: Vec<&str> = [&[NATIVE], &POLICIES[..], &[PEER]].concat();
    print!("{:<32}", "");
    for name in &columns {
        print!(" {name:>9}");
    }
    println!(
        " {:>11} {:>14} {:>8}",
        "native/auto", "translate/auto", "TCG/auto"
    );
    for (name, what) in work {
        let value = |who: &'static str| samples.get(&(*name, who)).map(|s| median(s));
        // Uptime has hundredths: less than that has no ratio.
        let ratio = |a: &'static str| {
            let auto = value("auto").filter(|v| *v > 0.0);
            cell(value(a).zip(auto).map(|(a, auto)| a / auto))
        };
        print!("{what:<32}");
        for who in &columns {
            print!(" {:>9}", cell(value(who)));
        }
        println!(
            " {:>11} {:>14} {:>8}",
            ratio(NATIVE),
            ratio("translate"),
            ratio(PEER)
        );
    }
    Ok(())
}

/// A number, or that there is none: the processor lacks what the work needs, or cannot boot.
fn cell(value: Option<f64>) -> String {
    value.map_or("n/a".into(), |v| format!("{v:.2}"))
}

/// The counters of one run.
fn counters(image: &Image, policy: &str, serial: &Path) -> Result<serde_json::Value> {
    let mut command = session::ring3_command(Path::new(env!("CARGO_BIN_EXE_ring3")), image, serial);
    let output = command
        .arg(format!("--ring3={policy}"))
        .arg("--stats=json")
        .output()
        .context("cannot run ring3")?;
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .context("ring3 printed no statistics")
}

fn options() -> Result<Options> {
    let mut options = Options {
        rounds: 5,
        core: 0,
        guest: "debian-686/bench".into(),
        memory: true,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .with_context(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
            "--core" => options.core = value()?.parse().context("--core")?,
            "--guest" => options.guest = value()?,
            "--no-memory" => options.memory = false,
            // cargo bench adds it.
            "--bench" => {}
            other => bail!("unknown argument {other}"),
        }
    }
    Ok(options)
}

fn measure(
    who: &'static str,
    command: Command,
    serial: &Path,
    image: &Image,
    work: &Work,
    samples: &mut Samples,
) -> Result<()> {
    let limit = Duration::from_secs(image.proof.timeout_seconds);
    let transcript = session::run(command, serial, limit).with_context(|| who.to_string())?;
    let missing = transcript.missing(&image.proof);
    if !missing.is_empty() {
        bail!("{who}: {}\n{}", missing.join("; "), transcript.text());
    }
    take(&transcript, who, work, samples);
    Ok(())
}

fn take(transcript: &Transcript, who: &'static str, work: &Work, samples: &mut Samples) {
    for (name, _) in work {
        let time = match *name {
            "boot-host" => transcript.result_at("init"),
            _ => transcript.guest_time(name),
        };
        if let Some(time) = time {
            let of_this = samples.entry((*name, who)).or_default();
            of_this.push(time.as_secs_f64());
        }
    }
}

/// The workload by the guest's own busybox and programs, on the host.
fn natively(
    image: &Image,
    workload: &str,
    directory: &Path,
    work: &Work,
    samples: &mut Samples,
) -> Result<()> {
    let busybox = image
        .busybox
        .as_ref()
        .context("this guest has no busybox")?;
    // The cache keeps them as data.
    let install = |from: &Path, name: &str| -> Result<PathBuf> {
        let program = directory.join(name);
        std::fs::copy(from, &program)?;
        let mut permissions = std::fs::metadata(&program)?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        std::fs::set_permissions(&program, permissions)?;
        Ok(program)
    };
    let program = install(busybox, "busybox")?;
    for (name, path) in &image.programs {
        install(path, name)?;
    }
    let text = script(workload).context("no workload")?;
    let workload = directory.join("workload");
    std::fs::write(&workload, text)?;
    let serial = directory.join("native");
    let mut command = Command::new(&program);
    command
        .arg("sh")
        .arg(&workload)
        .current_dir(directory)
        .env("BUSYBOX", &program)
        .env("RING3_NATIVE", "1")
        .env("PATH", directory)
        .stdout(Stdio::from(
            std::fs::File::options()
                .append(true)
                .create(true)
                .open(&serial)?,
        ));
    let transcript = session::run(command, &serial, Duration::from_secs(120))?;
    if !transcript.status.success() {
        bail!("the host does not run it: {}", transcript.status);
    }
    take(&transcript, NATIVE, work, samples);
    Ok(())
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}
