//! The same guest work under ring3 and QEMU's translator, alternating, pinned to one core, and
//! natively where the host runs the guest's busybox. Medians and ratios.
//!
//! `cargo bench --bench versus -- [--rounds N] [--core N] [--guest NAME]`

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use ring3_guests::cache::Cache;
use ring3_guests::image::script;
use ring3_guests::session::{self, Transcript};
use ring3_guests::{Image, Refresh, prepare};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is measured: the marker's name, and what it is for people.
const WORK: [(&str, &str); 8] = [
    ("boot", "boot to init, guest uptime"),
    ("boot-host", "boot to init, from the monitor's start"),
    ("fork", "300 x fork, exec, wait"),
    ("syscalls", "600 000 system calls"),
    ("loop", "shell loop, 200 000 rounds"),
    ("sha256", "sha256 of 32 MiB"),
    ("gzip", "gzip and gunzip of 8 MiB"),
    ("pipes", "16 MiB through dd, tr, dd"),
];

/// Seconds by the name of the work, one per round.
type Samples = BTreeMap<&'static str, Vec<f64>>;

struct Options {
    rounds: u32,
    core: usize,
    guest: String,
}

fn main() -> Result<()> {
    let options = options()?;
    let mut core = CpuSet::new();
    core.set(options.core).context("no such core")?;
    // The monitors inherit it.
    sched_setaffinity(Pid::from_raw(0), &core).context("cannot pin to the core")?;
    let image = prepare(&Cache::default_root()?, &options.guest, Refresh::IfMissing)?;
    let directory = tempfile::tempdir()?;
    let serial = directory.path().join("serial");
    let (mut ring3, mut qemu, mut native) = (Samples::new(), Samples::new(), Samples::new());
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        let command =
            session::ring3_command(Path::new(env!("CARGO_BIN_EXE_ring3")), &image, &serial);
        measure("ring3", command, &serial, &image, &mut ring3)?;
        measure(
            "QEMU",
            session::qemu_command(&image, &serial),
            &serial,
            &image,
            &mut qemu,
        )?;
        if let Err(error) = natively(&image, directory.path(), &mut native) {
            eprintln!("no native figures: {error:#}");
        }
    }
    println!(
        "{}: {}; {} rounds, core {}, medians",
        image.name, image.origin, options.rounds, options.core
    );
    println!(
        "{:<40} {:>9} {:>9} {:>9} {:>11} {:>13}",
        "", "native s", "ring3 s", "QEMU s", "QEMU/ring3", "ring3/native"
    );
    for (name, what) in WORK {
        let value = |samples: &Samples| samples.get(name).map(|s| median(s));
        let (n, r, q) = (value(&native), value(&ring3), value(&qemu));
        let cell = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.2}"));
        // Uptime has hundredths: less than that has no ratio.
        let ratio = |a: Option<f64>, b: Option<f64>| {
            cell(a.zip(b).filter(|(_, b)| *b > 0.0).map(|(a, b)| a / b))
        };
        println!(
            "{what:<40} {:>9} {:>9} {:>9} {:>11} {:>13}",
            cell(n),
            cell(r),
            cell(q),
            ratio(q, r),
            ratio(r, n)
        );
    }
    translation_cost(&image, &serial)
}

/// What the translator itself cost in one boot: units, guest instructions, time per instruction.
fn translation_cost(image: &Image, serial: &Path) -> Result<()> {
    let mut command = session::ring3_command(Path::new(env!("CARGO_BIN_EXE_ring3")), image, serial);
    let output = command
        .arg("--stats=json")
        .output()
        .context("cannot run ring3")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let stats: serde_json::Value = text
        .lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .context("ring3 printed no statistics")?;
    let t = &stats["translator"];
    println!(
        "translation: {} units, {} guest instructions, {} host bytes, {} ns per instruction",
        t["units"], t["instructions"], t["host_bytes"], t["ns_per_instruction"]
    );
    Ok(())
}

fn options() -> Result<Options> {
    let mut options = Options {
        rounds: 5,
        core: 0,
        guest: "debian-686/bench".into(),
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
            // cargo bench adds it.
            "--bench" => {}
            other => bail!("unknown argument {other}"),
        }
    }
    Ok(options)
}

fn measure(
    who: &str,
    command: Command,
    serial: &Path,
    image: &Image,
    samples: &mut Samples,
) -> Result<()> {
    let limit = Duration::from_secs(image.proof.timeout_seconds);
    let transcript = session::run(command, serial, limit).with_context(|| who.to_string())?;
    let missing = transcript.missing(&image.proof);
    if !missing.is_empty() {
        bail!("{who}: {}\n{}", missing.join("; "), transcript.text());
    }
    take(&transcript, samples);
    Ok(())
}

fn take(transcript: &Transcript, samples: &mut Samples) {
    for (name, _) in WORK {
        let time = match name {
            "boot-host" => transcript.result_at("init"),
            _ => transcript.guest_time(name),
        };
        if let Some(time) = time {
            samples.entry(name).or_default().push(time.as_secs_f64());
        }
    }
}

/// The workload by the guest's own busybox, on the host.
fn natively(image: &Image, directory: &Path, samples: &mut Samples) -> Result<()> {
    let busybox = image
        .busybox
        .as_ref()
        .context("this guest has no busybox")?;
    // The cache keeps it as data.
    let program = directory.join("busybox");
    std::fs::copy(busybox, &program)?;
    let mut permissions = std::fs::metadata(&program)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&program, permissions)?;
    let workload = directory.join("workload");
    std::fs::write(&workload, script("bench.sh").context("no workload")?)?;
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
    take(&transcript, samples);
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
