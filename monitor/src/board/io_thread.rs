//! The thread that keeps the board's time and moves serial data.
//!
//! It sleeps until the earliest deadline or a descriptor is ready. The processor's thread wakes it
//! only when a deadline moved earlier than the one that it sleeps for: [`IoHandle::wake_before`].
//! At the end of a run it writes out what the guest has sent, for as long as the reader takes it.

use super::backend::{SerialBackend, SerialError};
use super::console::{ConsoleCommand, HELP};
use super::{Board, HostPort, StopHandle, StopReason};
use crate::clock::VmClock;
use crate::notice::notice;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the end of a run waits for a reader that takes nothing.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How soon input that the guest had no room for is offered again.
const INPUT_RETRY: Duration = Duration::from_millis(2);
/// Bytes read from the host at once.
const INPUT_CHUNK: usize = 1024;
/// "No deadline" in [`Shared::armed`].
const NEVER: u64 = u64::MAX;

/// Makes the processor's thread look at the board: it has an interrupt or a request.
pub trait Kick {
    /// Must be cheap and must not take the board's lock.
    fn kick(&self);
}

#[derive(Debug)]
struct Shared {
    wake: EventFd,
    /// The deadline that the thread sleeps for. Written under the board's lock.
    armed: AtomicU64,
    finish: AtomicBool,
    /// The first output that was lost.
    lost: Mutex<Option<SerialError>>,
}

impl Shared {
    /// Output is being lost: tells the user now, and the end of the run.
    fn lose(&self, what: SerialError) {
        if let SerialError::Lost { to, source } = &what {
            notice(&format!(
                "output to {to} cannot be written: {source}; the machine goes on without it"
            ));
        }
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.get_or_insert(what);
    }
}

/// Wakes the thread, also after its end.
#[derive(Clone, Debug)]
pub struct IoWaker(Arc<Shared>);

impl IoWaker {
    /// Makes the thread look at the board now.
    pub fn wake(&self) {
        // A full counter wakes as well.
        let _ = self.0.wake.write(1);
    }
}

/// The running thread, as the processor's thread sees it. Dropping it ends the thread.
#[derive(Debug)]
pub struct IoHandle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl IoHandle {
    /// A way to wake the thread that does not keep it running.
    #[must_use]
    pub fn waker(&self) -> IoWaker {
        IoWaker(Arc::clone(&self.shared))
    }

    /// Makes the thread look at the board now.
    pub fn wake(&self) {
        // A full counter wakes as well.
        let _ = self.shared.wake.write(1);
    }

    /// Wakes the thread if `deadline` (VM-clock ns, [`Board::next_deadline`]) is earlier than what
    /// it sleeps for. Call it with the board's lock held, after an access.
    pub fn wake_before(&self, deadline: Option<u64>) {
        if let Some(deadline) = deadline
            && deadline < self.shared.armed.load(Ordering::Relaxed)
        {
            // One wake for each deadline: the thread arms itself anew.
            self.shared.armed.store(deadline, Ordering::Relaxed);
            self.wake();
        }
    }

    /// The deadline that the thread sleeps for, in VM-clock ns; `u64::MAX` if it waits for none.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.shared.armed.load(Ordering::Relaxed)
    }

    /// Ends the thread after the output of the guest is written, or after its reader took nothing
    /// for two seconds, or when a signal asks the process to end.
    /// # Errors
    /// [`SerialError::Lost`] if output could not be written, in the run or now.
    pub fn finish(mut self) -> Result<(), SerialError> {
        self.end();
        let mut lost = self
            .shared
            .lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        lost.take().map_or(Ok(()), Err)
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.finish.store(true, Ordering::Release);
            self.wake();
            // A panic of the thread has printed its message; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Drop for IoHandle {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread's own side.
pub struct IoThread {
    board: Arc<Mutex<Board>>,
    clock: Arc<VmClock>,
    kick: Arc<dyn Kick + Send + Sync>,
    stop: Arc<StopHandle>,
    shared: Arc<Shared>,
    ports: Vec<Port>,
    /// Where the debug console's output goes.
    debug_log: Option<std::fs::File>,
    stop_seen: bool,
}

struct Port {
    at: HostPort,
    backend: SerialBackend,
    /// Input that the guest had no room for.
    held: Vec<u8>,
}

impl IoThread {
    /// Starts the thread. `ports` have host sides; those without one lose their output. `debug_log`
    /// takes the debug console's output.
    /// # Errors
    /// If the host gives no thread or descriptor.
    pub fn spawn(
        board: Arc<Mutex<Board>>,
        kick: Arc<dyn Kick + Send + Sync>,
        ports: Vec<(HostPort, SerialBackend)>,
        stop: Arc<StopHandle>,
        debug_log: Option<std::fs::File>,
    ) -> std::io::Result<IoHandle> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared {
            wake,
            armed: AtomicU64::new(NEVER),
            finish: AtomicBool::new(false),
            lost: Mutex::new(None),
        });
        let clock = Arc::clone(lock(&board).clock());
        let ports = ports
            .into_iter()
            .map(|(at, backend)| Port {
                at,
                backend,
                held: Vec::new(),
            })
            .collect();
        let mut this = Self {
            board,
            clock,
            kick,
            stop,
            shared: Arc::clone(&shared),
            ports,
            debug_log,
            stop_seen: false,
        };
        let thread = std::thread::Builder::new()
            .name("io".into())
            .spawn(move || this.run())?;
        Ok(IoHandle {
            shared,
            thread: Some(thread),
        })
    }

    fn run(&mut self) {
        // The default slack of 50 us would make every timer late by as much; without the right to
        // change it, timers are merely that late.
        let _ = nix::sys::prctl::set_timerslack(1);
        while !self.shared.finish.load(Ordering::Acquire) {
            let deadline = self.serve_board();
            self.flush_sinks();
            let timeout = self.timeout(deadline);
            self.wait(timeout);
        }
        self.drain();
    }

    /// Timers, output and input; returns the next deadline.
    fn serve_board(&mut self) -> Option<u64> {
        let mut board = lock(&self.board);
        let before = (board.interrupt_pending(), board.request_pending());
        board.run_timers();
        if !self.stop_seen
            && let Some(reason) = self.stop.requested()
        {
            self.stop_seen = true;
            board.request_stop(reason);
        }
        for port in board.host_ports() {
            if !self.ports.iter().any(|p| p.at == port) {
                board.take_output(port, &mut Vec::new());
            }
        }
        for port in &mut self.ports {
            port.exchange(&mut board);
        }
        let mut messages = Vec::new();
        board.debug_output(&mut messages);
        let deadline = board.next_deadline();
        self.shared
            .armed
            .store(deadline.unwrap_or(NEVER), Ordering::Relaxed);
        // Whoever raised what was up before has told the processor already.
        let attention =
            board.interrupt_pending() && !before.0 || board.request_pending() && !before.1;
        drop(board);
        self.log(&messages);
        if attention {
            self.kick.kick();
        }
        deadline
    }

    /// Messages that a full file system does not take are lost; the machine goes on.
    fn log(&mut self, messages: &[u8]) {
        if let Some(file) = &mut self.debug_log
            && let Err(source) = file.write_all(messages)
        {
            self.debug_log = None;
            self.shared.lose(SerialError::Lost {
                to: "the file of --debug-log".into(),
                source,
            });
        }
    }

    fn timeout(&self, deadline: Option<u64>) -> Option<Duration> {
        let timer = deadline.and_then(|at| self.clock.host_delay(at));
        let retry = self
            .ports
            .iter()
            .any(|p| !p.held.is_empty())
            .then_some(INPUT_RETRY);
        [timer, retry].into_iter().flatten().min()
    }

    /// Sleeps until something is ready, then reads and accepts what is there.
    fn wait(&mut self, timeout: Option<Duration>) {
        let mut fds = vec![PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN)];
        if !self.stop_seen {
            fds.push(PollFd::new(self.stop.as_fd(), PollFlags::POLLIN));
        }
        let mut sources = Vec::new();
        for (i, port) in self.ports.iter().enumerate() {
            port.backend
                .poll_into(i, port.held.is_empty(), &mut fds, &mut sources);
        }
        let first_source = fds.len() - sources.len();
        // An interrupted or failed wait is a wake without cause.
        if ppoll(&mut fds, timeout.map(TimeSpec::from_duration), None).unwrap_or(0) == 0 {
            return;
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
        let woken = ready(&fds[0]);
        let events: Vec<_> = fds[first_source..]
            .iter()
            .zip(&sources)
            .filter(|(fd, _)| ready(fd))
            .map(|(_, source)| *source)
            .collect();
        if woken {
            let _ = self.shared.wake.read();
        }
        for (i, source) in events {
            self.ports[i].on_ready(source, &self.stop);
        }
    }

    fn flush_sinks(&mut self) {
        for port in &mut self.ports {
            port.backend.flush();
            if let Some(lost) = port.backend.take_failure() {
                self.shared.lose(lost);
            }
            if port.backend.reap() {
                self.stop.request(StopReason::Signal(libc::SIGPIPE));
            }
        }
    }

    /// The end of a run: everything that the guest sent goes out while the reader takes it.
    fn drain(&mut self) {
        let mut patience = Instant::now() + DRAIN_GRACE;
        loop {
            let mut board = lock(&self.board);
            let mut moved = false;
            for port in &mut self.ports {
                moved |= port.collect(&mut board);
            }
            let mut messages = Vec::new();
            board.debug_output(&mut messages);
            drop(board);
            self.log(&messages);
            for port in &mut self.ports {
                moved |= port.backend.flush() > 0;
                if let Some(lost) = port.backend.take_failure() {
                    self.shared.lose(lost);
                }
            }
            if moved {
                patience = Instant::now() + DRAIN_GRACE;
                continue;
            }
            let signalled = matches!(self.stop.requested(), Some(StopReason::Signal(_)));
            if signalled
                || Instant::now() >= patience
                || !self.ports.iter().any(|p| p.backend.is_pending())
            {
                return;
            }
            let mut fds: Vec<_> = self
                .ports
                .iter()
                .filter_map(|p| p.backend.sink.as_ref())
                .map(|sink| PollFd::new(sink.as_fd(), PollFlags::POLLOUT))
                .collect();
            fds.push(PollFd::new(self.stop.as_fd(), PollFlags::POLLIN));
            let _ = ppoll(
                &mut fds,
                Some(TimeSpec::from_duration(Duration::from_millis(100))),
                None,
            );
        }
    }
}

/// What became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Input,
    Output,
    Peer,
}

impl Port {
    /// Moves output to the host side and offers held input, under the board's lock.
    fn exchange(&mut self, board: &mut Board) {
        self.collect(board);
        if !self.held.is_empty() {
            let taken = board.give_input(self.at, &self.held);
            self.held.drain(..taken);
        }
    }

    /// Moves output to the host side if it takes any; true if there was some.
    fn collect(&mut self, board: &mut Board) -> bool {
        let blocked = self.backend.room() == 0;
        board.set_blocked(self.at, blocked);
        if blocked {
            return false;
        }
        let mut output = Vec::new();
        board.take_output(self.at, &mut output);
        self.backend.output(&output);
        !output.is_empty()
    }

    fn on_ready(&mut self, source: Source, stop: &StopHandle) {
        match source {
            Source::Output => {
                self.backend.flush();
            }
            Source::Peer => self.backend.accept(),
            Source::Input => {
                let mut buf = [0; INPUT_CHUNK];
                let count = self.backend.read(&mut buf);
                let input = &buf[..count];
                let Some(escapes) = &mut self.backend.escapes else {
                    self.held.extend_from_slice(input);
                    return;
                };
                for command in escapes.feed(input, &mut self.held) {
                    match command {
                        ConsoleCommand::Quit => stop.request(StopReason::Quit),
                        ConsoleCommand::Help => self.backend.output(HELP),
                    }
                }
            }
        }
    }
}

/// The board, also after a panic elsewhere: chips are plain state.
fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "io_thread_tests.rs"]
mod tests;
