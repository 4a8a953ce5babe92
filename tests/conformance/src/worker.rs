//! An engine in a process of its own: a crash or a hang of the engine is a finding about one
//! case, not the end of the run.
//!
//! The parent sends a case as text, the worker answers with its outcome; both are preceded by
//! their length. Memory travels as runs of bytes that differ from the case's initial memory.

use crate::case::{Case, Outcome, Regs, Stop};
use crate::engine::Engine;
use crate::text;
use crate::vector::Vector;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Processor time for one case; and the longest wait, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The same for a program: a case of more than twelve pieces.
const PATIENCE_PROGRAM: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Time lost to crashes and hangs after which the engine is given up.
const MOST_LOST: Duration = Duration::from_secs(60);
/// Longest message.
const MOST_BYTES: u32 = 1 << 20;

/// What the parent needs to know of an engine without starting it.
pub struct Facts {
    /// Its name; the worker is started with `--worker NAME`.
    pub name: String,
    /// See [`Engine::accepts_user_only`].
    pub user_only: bool,
    /// See [`Engine::components`].
    pub components: u64,
    /// See [`Engine::accepts`].
    pub accepts: Box<dyn Fn(&Case) -> bool>,
}

/// The parent's side.
pub struct Isolated {
    facts: Facts,
    program: PathBuf,
    running: Option<Running>,
    lost: Duration,
}

struct Running {
    child: Child,
    input: ChildStdin,
    answers: Receiver<Vec<u8>>,
}

impl Running {
    fn answer(&self, patience: Duration) -> Result<Vec<u8>, RecvTimeoutError> {
        let begin = Instant::now();
        let used = cpu_time(self.child.id());
        loop {
            let answer = self.answers.recv_timeout(PATIENCE / 4);
            let patient = cpu_time(self.child.id()).saturating_sub(used) < patience
                && begin.elapsed() < LONGEST_WAIT;
            if patient && answer == Err(RecvTimeoutError::Timeout) {
                continue;
            }
            return answer;
        }
    }
}

/// Processor time that a process has used, by /proc; zero if it is gone.
#[must_use]
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name is in parentheses and may contain blanks; utime and stime are fields 14 and 15.
    let tail = stat.rsplit_once(')').map_or("", |(_, tail)| tail);
    let ticks: u64 = tail
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10) // USER_HZ is 100
}

impl Isolated {
    /// An engine that `program --worker NAME` serves.
    #[must_use]
    pub fn new(program: PathBuf, facts: Facts) -> Self {
        Self {
            facts,
            program,
            running: None,
            lost: Duration::ZERO,
        }
    }

    fn start(&self) -> io::Result<Running> {
        let mut child = Command::new(&self.program)
            .args(["--worker", &self.facts.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("no pipe to the worker");
        let input = child.stdin.take().ok_or_else(missing)?;
        let mut output = child.stdout.take().ok_or_else(missing)?;
        let (send, answers) = channel();
        std::thread::spawn(move || {
            while let Ok(Some(message)) = receive(&mut output) {
                if send.send(message).is_err() {
                    break;
                }
            }
        });
        Ok(Running {
            child,
            input,
            answers,
        })
    }

    fn ask(&mut self, case: &Case) -> Result<Outcome, String> {
        let running = match self.running.take() {
            Some(r) => r,
            None => self
                .start()
                .map_err(|e| format!("the worker does not start: {e}"))?,
        };
        let running = self.running.insert(running);
        let sent = send(&mut running.input, text::print(case).as_bytes());
        let answer = match sent {
            Ok(()) if case.pieces.len() > 12 => running.answer(PATIENCE_PROGRAM),
            Ok(()) => running.answer(PATIENCE),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        match answer {
            Ok(bytes) => decode(case, &bytes).ok_or_else(|| "an answer that makes no sense".into()),
            Err(RecvTimeoutError::Timeout) => {
                self.stop();
                Err("it did not stop in time".into())
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.post_mortem()),
        }
    }

    fn run_one(&mut self, case: &Case) -> Outcome {
        if self.lost >= MOST_LOST {
            let mut outcome = Outcome::lost("");
            outcome.stop =
                Stop::Skipped("given up: too much time lost to crashes and hangs".into());
            return outcome;
        }
        let begin = Instant::now();
        self.ask(case).unwrap_or_else(|why| {
            self.lost += begin.elapsed();
            Outcome::lost(why)
        })
    }

    /// Why the worker ended.
    fn post_mortem(&mut self) -> String {
        let Some(mut r) = self.running.take() else {
            return "no worker".into();
        };
        drop(r.input);
        let status = r
            .child
            .wait()
            .map_or_else(|e| e.to_string(), |s| s.to_string());
        let mut log = String::new();
        if let Some(mut stderr) = r.child.stderr.take() {
            let mut bytes = vec![0; 4096];
            let n = stderr.read(&mut bytes).unwrap_or_default();
            // "thread 'main' (1234) panicked at": the number would make every crash a reason of its own.
            let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
            let from = text.find("panicked at").unwrap_or_default();
            log = text[from..].lines().take(2).collect::<Vec<_>>().join(" ");
        }
        format!("crashed: {status} {log}")
    }

    fn stop(&mut self) {
        if let Some(mut r) = self.running.take() {
            // Already ended is as good as killed.
            r.child.kill().ok();
            r.child.wait().ok();
        }
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Engine for Isolated {
    fn name(&self) -> String {
        self.facts.name.clone()
    }
    fn accepts_user_only(&self) -> bool {
        self.facts.user_only
    }
    fn accepts(&self, case: &Case) -> bool {
        (self.facts.accepts)(case)
    }
    fn components(&self) -> u64 {
        self.facts.components
    }
    fn run_batch(&mut self, cases: &[Case]) -> Vec<Outcome> {
        cases.iter().map(|c| self.run_one(c)).collect()
    }
}

/// The worker's side: serves cases from standard input until it closes.
///
/// # Errors
/// I/O errors, and a message that is not a case.
pub fn serve(engine: &mut dyn Engine) -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    while let Some(message) = receive(&mut input)? {
        let text = String::from_utf8(message).map_err(io::Error::other)?;
        let case = text::parse(&text).map_err(io::Error::other)?;
        let outcome = engine.run(&case);
        send(&mut output, &encode(&case, &outcome))?;
    }
    Ok(())
}

fn send(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let mut framed = (message.len() as u32).to_le_bytes().to_vec();
    framed.extend_from_slice(message);
    to.write_all(&framed)?;
    to.flush()
}

fn receive(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    match from.read_exact(&mut len) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let len = u32::from_le_bytes(len);
    if len > MOST_BYTES {
        return Err(io::Error::other("a message beyond the limit"));
    }
    let mut message = vec![0; len as usize];
    from.read_exact(&mut message)?;
    Ok(Some(message))
}

fn encode(case: &Case, o: &Outcome) -> Vec<u8> {
    let mut b = Vec::with_capacity(2048);
    let (kind, words, why) = match &o.stop {
        Stop::End => (0u8, [0; 3], ""),
        Stop::Trap {
            vector,
            error,
            address,
        } => (1, [u32::from(*vector), *error, *address], ""),
        Stop::Skipped(why) => (2, [0; 3], why.as_str()),
        Stop::Lost(why) => (3, [0; 3], why.as_str()),
    };
    b.push(kind);
    words
        .iter()
        .chain(&o.regs.gpr)
        .chain(&[o.regs.eip, o.regs.eflags])
        .for_each(|w| b.extend(w.to_le_bytes()));
    o.regs.seg.iter().for_each(|s| b.extend(s.to_le_bytes()));
    let v = &o.vector;
    b.extend(v.fcw.to_le_bytes());
    b.extend(v.fsw.to_le_bytes());
    b.push(v.ftw);
    b.extend(v.mxcsr.to_le_bytes());
    v.st.iter().for_each(|r| b.extend(r));
    v.zmm.iter().for_each(|r| b.extend(r));
    v.k.iter().for_each(|k| b.extend(k.to_le_bytes()));
    let initial = case.memory();
    let mut runs: Vec<(u16, &[u8])> = Vec::new();
    const RUN: usize = 16;
    for at in (0..initial.len()).step_by(RUN) {
        if initial[at..at + RUN] != o.memory[at..at + RUN] {
            runs.push(((at / RUN) as u16, &o.memory[at..at + RUN]));
        }
    }
    b.extend((runs.len() as u16).to_le_bytes());
    for (at, bytes) in runs {
        b.extend(at.to_le_bytes());
        b.extend(bytes);
    }
    b.extend(why.as_bytes());
    b
}

/// Takes values from the front of a message.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }
    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}

fn decode(case: &Case, bytes: &[u8]) -> Option<Outcome> {
    let mut r = Reader(bytes);
    let [kind] = r.take()?;
    let words = [r.u32()?, r.u32()?, r.u32()?];
    let mut regs = Regs::default();
    for gpr in &mut regs.gpr {
        *gpr = r.u32()?;
    }
    (regs.eip, regs.eflags) = (r.u32()?, r.u32()?);
    for seg in &mut regs.seg {
        *seg = r.u16()?;
    }
    let mut v = Vector {
        fcw: r.u16()?,
        fsw: r.u16()?,
        ..Vector::default()
    };
    [v.ftw] = r.take()?;
    v.mxcsr = r.u32()?;
    for st in &mut v.st {
        *st = r.take()?;
    }
    for zmm in &mut v.zmm {
        *zmm = r.take()?;
    }
    for k in &mut v.k {
        *k = r.take().map(u64::from_le_bytes)?;
    }
    let mut memory = case.memory();
    for _ in 0..r.u16()? {
        let at = usize::from(r.u16()?) * 16;
        memory
            .get_mut(at..at + 16)?
            .copy_from_slice(&r.take::<16>()?);
    }
    let why = String::from_utf8_lossy(r.0).into_owned();
    let stop = match kind {
        0 => Stop::End,
        1 => Stop::Trap {
            vector: words[0] as u8,
            error: words[1],
            address: words[2],
        },
        2 => Stop::Skipped(why),
        _ => Stop::Lost(why),
    };
    Some(Outcome {
        stop,
        regs,
        vector: v,
        memory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{forms, unit};
    use crate::native::Native;
    use crate::rng::Rng;

    #[test]
    fn outcomes_survive_the_pipe() {
        let mut native = Native::new().unwrap();
        for form in forms::table().0.iter().step_by(97) {
            if let Ok(case) = unit::make(*form, &mut Rng::new(4)) {
                let outcome = native.run(&case);
                assert_eq!(decode(&case, &encode(&case, &outcome)), Some(outcome));
            }
        }
        let case = unit::make(forms::table().0[0], &mut Rng::new(4)).unwrap();
        let lost = Outcome::lost("why");
        assert_eq!(
            decode(&case, &encode(&case, &lost)).unwrap().stop,
            Stop::Lost("why".into())
        );
        assert_eq!(decode(&case, &[1, 2, 3]), None);
    }
}
