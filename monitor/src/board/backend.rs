//! The host side of a serial or parallel port: descriptors for input and output, and the peer of a socket.

use super::HostPort;
use super::console::EscapeFilter;
use super::io_thread::Source;
use super::sink::Sink;
use crate::config::{SERIAL_PORTS, SerialSpec};
use crate::socket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Output kept for a socket's first peer, in bytes.
const BACKLOG: usize = 64 << 10;

/// Why a serial port's host side could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SerialError {
    /// The output file.
    #[error("cannot write a port's output to {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// The socket.
    #[error("cannot listen on the Unix socket {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// Output was lost in mid-run.
    #[error("output to {to} is incomplete")]
    Lost {
        /// Where it should have gone.
        to: String,
        /// What the host said.
        source: std::io::Error,
    },
    /// Standard input or output.
    #[error("cannot use standard input and output for the serial port")]
    Stdio(#[source] std::io::Error),
    /// More than there are.
    #[error("the machine has {SERIAL_PORTS} serial ports: give --serial at most as often")]
    TooMany,
    /// Two ports at standard input.
    #[error(
        "standard input and output serve one serial port: name files or sockets for the others"
    )]
    StdioTwice,
}

/// Opens the host sides of serial ports, COM1 first, and of a parallel port that prints to a file.
/// # Errors
/// [`SerialError`] names the file or socket.
pub fn open_ports(
    serial: &[SerialSpec],
    parallel: Option<&Path>,
) -> Result<Vec<(HostPort, SerialBackend)>, SerialError> {
    if serial.len() > SERIAL_PORTS {
        return Err(SerialError::TooMany);
    }
    let is_stdio = |spec: &&SerialSpec| **spec == SerialSpec::Stdio;
    if serial.iter().filter(is_stdio).count() > 1 {
        return Err(SerialError::StdioTwice);
    }
    let serial = serial.iter().cloned().enumerate();
    let serial = serial.map(|(port, spec)| (HostPort::Serial(port), spec));
    let parallel = parallel.map(|path| (HostPort::Parallel, SerialSpec::File(path.into())));
    let mut open = Vec::new();
    for (port, spec) in serial.chain(parallel) {
        if let Some(backend) = SerialBackend::open(&spec, true)? {
            open.push((port, backend));
        }
    }
    Ok(open)
}

/// The host side of one port.
#[derive(Debug)]
pub struct SerialBackend {
    /// Where input comes from; `None` after its end.
    pub(super) input: Option<OwnedFd>,
    pub(super) sink: Option<Sink>,
    /// Output kept while a socket has no peer.
    pub(super) backlog: Vec<u8>,
    pub(super) listener: Option<Listener>,
    /// Takes Ctrl-A sequences out of the input.
    pub(super) escapes: Option<EscapeFilter>,
    /// The run ends when the reader of the output goes away.
    pub(super) stop_when_closed: bool,
    /// Where output goes, for people.
    to: String,
}

/// A listening socket that removes its name at the end.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: UnixListener,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl SerialBackend {
    /// Opens the host side; `None` for [`SerialSpec::None`]. `escapes`: if standard input is a
    /// terminal, its Ctrl-A sequences are ours.
    /// # Errors
    /// [`SerialError`] names the file or socket.
    pub fn open(spec: &SerialSpec, escapes: bool) -> Result<Option<Self>, SerialError> {
        let mut backend = Self {
            input: None,
            sink: None,
            backlog: Vec::new(),
            listener: None,
            escapes: None,
            stop_when_closed: false,
            to: "standard output".into(),
        };
        match spec {
            SerialSpec::None => return Ok(None),
            SerialSpec::Stdio => {
                let output = Sink::shared(std::io::stdout().as_fd()).map_err(SerialError::Stdio)?;
                backend.sink = Some(output);
                backend.input = std::io::stdin().as_fd().try_clone_to_owned().ok();
                // Piped input is data: only a person at a terminal has an escape key.
                let console = escapes && std::io::stdin().is_terminal();
                backend.escapes = console.then(EscapeFilter::default);
                backend.stop_when_closed = true;
            }
            SerialSpec::File(path) => {
                let file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(path)
                    .map_err(|source| SerialError::File {
                        path: path.clone(),
                        source,
                    })?;
                backend.sink = Some(Sink::owned(file.into()));
                backend.to = path.display().to_string();
            }
            SerialSpec::Unix(path) => {
                let fail = |source| SerialError::Socket {
                    path: path.clone(),
                    source,
                };
                let socket = socket::listen(path).map_err(fail)?;
                let listener = Listener {
                    socket,
                    path: path.clone(),
                };
                listener.socket.set_nonblocking(true).map_err(fail)?;
                backend.listener = Some(listener);
            }
        }
        Ok(Some(backend))
    }

    /// An interactive console on two descriptors, as [`SerialSpec::Stdio`] makes one.
    #[cfg(test)]
    pub(super) fn console(input: OwnedFd, output: OwnedFd) -> Self {
        Self {
            input: Some(input),
            sink: Some(Sink::owned(output)),
            backlog: Vec::new(),
            listener: None,
            escapes: Some(EscapeFilter::default()),
            stop_when_closed: true,
            to: "standard output".into(),
        }
    }

    /// Bytes of output that can be taken now.
    pub(super) fn room(&self) -> usize {
        self.sink.as_ref().map_or(usize::MAX, Sink::room)
    }

    /// Hands output to the peer, or keeps its newest part for the next one.
    pub(super) fn output(&mut self, data: &[u8]) {
        match &mut self.sink {
            Some(sink) => sink.push(data),
            None => {
                self.backlog.extend_from_slice(data);
                let excess = self.backlog.len().saturating_sub(BACKLOG);
                self.backlog.drain(..excess);
            }
        }
    }

    /// Takes a waiting peer.
    pub(super) fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        let Ok((stream, _)) = listener.socket.accept() else {
            return;
        };
        self.connect(stream);
    }

    fn connect(&mut self, stream: UnixStream) {
        let Ok(input) = stream.try_clone() else {
            return;
        };
        let mut sink = Sink::owned(stream.into());
        sink.push(&std::mem::take(&mut self.backlog));
        self.input = Some(input.into());
        self.sink = Some(sink);
    }

    /// Reads what the user or peer sent; an end of input closes the input only, except that a
    /// socket then waits for its next peer. Call it when the input polls ready.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> usize {
        let Some(fd) = &self.input else { return 0 };
        match nix::unistd::read(fd, buf) {
            Ok(n) if n > 0 => n,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            _ => {
                self.input = None;
                if self.listener.is_some() {
                    self.sink = None;
                }
                0
            }
        }
    }

    /// Adds what is to be waited for. `input`: whether the guest has room for input.
    pub(super) fn poll_into<'a>(
        &'a self,
        port: usize,
        input: bool,
        fds: &mut Vec<PollFd<'a>>,
        sources: &mut Vec<(usize, Source)>,
    ) {
        let mut add = |fd: BorrowedFd<'a>, flags, source| {
            fds.push(PollFd::new(fd, flags));
            sources.push((port, source));
        };
        match (&self.sink, &self.listener) {
            (Some(sink), _) if sink.is_pending() => {
                add(sink.as_fd(), PollFlags::POLLOUT, Source::Output)
            }
            (None, Some(listener)) => add(listener.socket.as_fd(), PollFlags::POLLIN, Source::Peer),
            _ => {}
        }
        if let Some(fd) = &self.input
            && input
        {
            add(fd.as_fd(), PollFlags::POLLIN, Source::Input);
        }
    }

    /// Writes what the peer takes; returns the bytes written.
    pub(super) fn flush(&mut self) -> usize {
        self.sink.as_mut().map_or(0, Sink::flush)
    }

    /// True while output waits for the peer.
    pub(super) fn is_pending(&self) -> bool {
        self.sink.as_ref().is_some_and(Sink::is_pending)
    }

    /// The failure of the output, once. A socket's peer that fails has gone, which is none.
    pub(super) fn take_failure(&mut self) -> Option<SerialError> {
        let source = self.sink.as_mut()?.take_failure()?;
        self.stop_when_closed = false;
        self.listener.is_none().then(|| SerialError::Lost {
            to: self.to.clone(),
            source: source.into(),
        })
    }

    /// A socket whose peer has gone waits for the next one. True if the run should end.
    pub(super) fn reap(&mut self) -> bool {
        if !self.sink.as_ref().is_some_and(Sink::is_closed) {
            return false;
        }
        if self.listener.is_some() {
            self.sink = None;
            self.input = None;
        }
        self.stop_when_closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_socket_gives_its_first_peer_what_was_said_before() {
        let path = std::env::temp_dir().join(format!("ring3-backend-{}", std::process::id()));
        let mut backend = SerialBackend::open(&SerialSpec::Unix(path.clone()), false)
            .unwrap()
            .unwrap();
        backend.output(b"early ");
        let mut peer = UnixStream::connect(&path).unwrap();
        backend.accept();
        backend.output(b"late");
        backend.sink.as_mut().unwrap().flush();
        let mut seen = [0; 10];
        peer.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"early late");
        peer.write_all(b"in").unwrap();
        let mut buf = [0; 8];
        assert_eq!(backend.read(&mut buf), 2);
        drop(peer);
        assert_eq!(backend.read(&mut buf), 0);
        assert!(backend.sink.is_none() && backend.input.is_none());
        drop(backend);
        assert!(!path.exists());
    }

    #[test]
    fn an_impossible_file_is_named() {
        let text = SerialBackend::open(&SerialSpec::File("/nonexistent/x".into()), false)
            .unwrap_err()
            .to_string();
        assert!(text.contains("/nonexistent/x"), "{text}");
    }
}
