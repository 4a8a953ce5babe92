//! A guest under ring3, and its executors as the host sees them.

use ring3_guests::cache::Cache;
use ring3_guests::session::{self, Transcript};
use ring3_guests::{Image, Refresh, prepare};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What was seen of a run's executors.
#[derive(Debug, Default)]
pub struct Seen {
    /// Their process ids.
    pub ids: BTreeSet<i32>,
    /// What was wrong with one of them.
    pub wrong: Vec<String>,
    /// Most mappings that one of them had.
    pub most_mappings: usize,
}

/// A finished run.
pub struct Run {
    /// What the guest said.
    pub transcript: Transcript,
    /// What the host saw.
    pub seen: Seen,
    /// The counters, as `--stats=json` prints them.
    pub stats: serde_json::Value,
    /// Everything on standard error.
    pub messages: String,
}

/// Something done to executors while they run.
pub type Meddle = dyn FnMut(&[i32]) + Send;

/// How a guest is run.
pub struct Options<'a> {
    /// `NAME/FLAVOUR`.
    pub guest: &'a str,
    /// Further words of the kernel's command line.
    pub append: &'a str,
    /// The value of `--ring3`.
    pub policy: &'a str,
    /// Done to the command before it is started.
    pub prepare: Option<fn(&mut Command)>,
    /// Called each time round with the ids of the executors that there are.
    pub meddle: Option<&'a mut Meddle>,
}

impl<'a> Options<'a> {
    /// A guest under a policy.
    pub fn new(guest: &'a str, policy: &'a str) -> Self {
        Self {
            guest,
            append: "",
            policy,
            prepare: None,
            meddle: None,
        }
    }
}

/// Fetches and builds a guest.
pub fn image(name: &str) -> Image {
    let root = Cache::default_root().unwrap();
    prepare(&root, name, Refresh::IfMissing).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Runs a guest to its end, checks its proof, and watches the executors meanwhile.
pub fn run(options: Options) -> Run {
    let mut image = image(options.guest);
    image.boot.append = format!("{} quiet {}", image.boot.append, options.append);
    let directory = tempfile::tempdir().unwrap();
    let serial = directory.path().join("serial");
    let errors = directory.path().join("stderr");
    let ring3 = Path::new(env!("CARGO_BIN_EXE_ring3"));
    let mut command = session::ring3_command(ring3, &image, &serial);
    command
        .arg(format!("--ring3={}", options.policy))
        .arg("--stats=json");
    if let Some(prepare) = options.prepare {
        prepare(&mut command);
    }
    command.stderr(fs::File::create(&errors).unwrap());
    let limit = Duration::from_secs(image.proof.timeout_seconds);
    let stop = AtomicBool::new(false);
    let mark = serial.display().to_string();
    let (result, seen) = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&mark, &stop, options.meddle));
        let result = session::run(command, &serial, limit);
        stop.store(true, Ordering::Relaxed);
        (result, watcher.join().unwrap())
    });
    let messages = fs::read_to_string(&errors).unwrap();
    let what = format!("{} --ring3={}", options.guest, options.policy);
    let transcript = result.unwrap_or_else(|e| panic!("{what}: {e}\n{messages}"));
    let missing = transcript.missing(&image.proof);
    assert!(
        missing.is_empty(),
        "{what}: {}\n{messages}\n{}",
        missing.join("; "),
        transcript.text()
    );
    for id in &seen.ids {
        assert!(!is_executor(*id), "{what}: executor {id} outlives the run");
    }
    assert!(seen.wrong.is_empty(), "{what}: {:#?}", seen.wrong);
    let stats = messages
        .lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| panic!("{what}: no counters\n{messages}"));
    Run {
        transcript,
        seen,
        stats,
        messages,
    }
}

/// Looks at the executors of the monitor that has `mark` in its command line, until told to stop.
fn watch(mark: &str, stop: &AtomicBool, mut meddle: Option<&mut Meddle>) -> Seen {
    let mut seen = Seen::default();
    let mut monitor = None;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(10));
        monitor = monitor.or_else(|| {
            children(std::process::id().cast_signed())
                .into_iter()
                .find(|id| command_line(*id).contains(mark))
        });
        let Some(monitor) = monitor else { continue };
        let executors: Vec<i32> = children(monitor)
            .into_iter()
            .filter(|id| is_executor(*id))
            .collect();
        for id in &executors {
            seen.ids.insert(*id);
            if let Some(what) = wrong_about(*id)
                && seen.wrong.len() < 10
            {
                seen.wrong.push(what);
            }
            // An empty file of a process that ends.
            let maps = fs::read_to_string(format!("/proc/{id}/maps")).unwrap_or_default();
            seen.most_mappings = seen.most_mappings.max(maps.lines().count());
        }
        if let Some(meddle) = &mut meddle {
            meddle(&executors);
        }
    }
    seen
}

fn command_line(id: i32) -> String {
    fs::read(format!("/proc/{id}/cmdline"))
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .unwrap_or_default()
}

/// By the file that it executes. (Its command line went with its stack.)
fn is_executor(id: i32) -> bool {
    fs::read_link(format!("/proc/{id}/exe"))
        .is_ok_and(|file| file.to_string_lossy().starts_with("/memfd:ring3-executor"))
}

/// The processes whose parent is `parent`.
fn children(parent: i32) -> Vec<i32> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        // It may have ended meanwhile.
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // "id (name) state parent": the name may contain anything.
        let parent_of = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok());
        if parent_of == Some(parent) {
            all.push(id);
        }
    }
    all
}

/// What an executor has that it should not have.
fn wrong_about(id: i32) -> Option<String> {
    let read = |what: &str| fs::read_to_string(format!("/proc/{id}/{what}")).ok();
    let status = read("status")?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_default()
            .to_string()
    };
    // Before its start is over, and while it dies, it is not yet or no longer jailed.
    if field("Seccomp") != "2" || field("State").starts_with(['Z', 'X']) {
        return None;
    }
    let mut descriptors: Vec<String> = fs::read_dir(format!("/proc/{id}/fd"))
        .ok()?
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    descriptors.sort();
    let expected = [
        ("Threads", "1"),
        ("NoNewPrivs", "1"),
        ("SigBlk", "0000000000000000"),
    ];
    for (name, value) in expected {
        if field(name) != value {
            return Some(format!("executor {id}: {name} is {}", field(name)));
        }
    }
    if field("TracerPid") == "0" {
        return Some(format!("executor {id}: nobody traces it"));
    }
    // Empty while it dies.
    if !descriptors.is_empty() && descriptors != ["0"] {
        return Some(format!("executor {id}: descriptors {descriptors:?}"));
    }
    None
}
