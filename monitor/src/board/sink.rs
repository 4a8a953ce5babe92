//! Where serial output goes on the host: a descriptor that may be full, closed or stuck, behind a
//! bounded buffer.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes that wait for a slow reader before the sink takes no more.
pub const CAPACITY: usize = 1 << 20;
/// A blocking descriptor gets at most this much at once: POSIX promises room for PIPE_BUF bytes
/// when a pipe polls writable.
const BLOCKING_CHUNK: usize = 512;

/// A buffered output descriptor that never blocks its writer.
#[derive(Debug)]
pub struct Sink {
    fd: OwnedFd,
    nonblocking: bool,
    pending: VecDeque<u8>,
    closed: bool,
    /// Why output was lost, if not because its reader has gone.
    failure: Option<Errno>,
}

impl Sink {
    /// A sink on a descriptor that this process shares with others, such as standard output.
    ///
    /// `O_NONBLOCK` belongs to the open file, not to the descriptor: setting it on standard output
    /// would reach the shell. So a pipe or terminal is opened anew through /proc; where that is not
    /// possible, small writes after poll do.
    /// # Errors
    /// If the descriptor cannot be duplicated.
    pub fn shared(fd: BorrowedFd<'_>) -> std::io::Result<Self> {
        let kind = fstat(fd).map(|s| SFlag::from_bits_truncate(s.st_mode) & SFlag::S_IFMT);
        if matches!(kind, Ok(SFlag::S_IFIFO | SFlag::S_IFCHR)) {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
            if let Ok(own) = open(path.as_str(), flags, Mode::empty()) {
                return Ok(Self::new(own, true));
            }
        }
        Ok(Self::new(fd.try_clone_to_owned()?, false))
    }

    /// A sink on a descriptor that nothing else uses; it becomes non-blocking.
    #[must_use]
    pub fn owned(fd: OwnedFd) -> Self {
        let nonblocking = fcntl(&fd, FcntlArg::F_GETFL)
            .map(|flags| OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK)
            .and_then(|flags| fcntl(&fd, FcntlArg::F_SETFL(flags)))
            .is_ok();
        Self::new(fd, nonblocking)
    }

    fn new(fd: OwnedFd, nonblocking: bool) -> Self {
        Self {
            fd,
            nonblocking,
            pending: VecDeque::new(),
            closed: false,
            failure: None,
        }
    }

    /// Bytes that the sink takes now.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.closed {
            usize::MAX
        } else {
            CAPACITY.saturating_sub(self.pending.len())
        }
    }

    /// Queues bytes; the caller keeps to [`Sink::room`] (more is accepted, to lose nothing).
    pub fn push(&mut self, data: &[u8]) {
        if !self.closed {
            self.pending.extend(data);
        }
    }

    /// True while bytes wait.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Why output is lost, once: a full file system, a broken disk.
    pub fn take_failure(&mut self) -> Option<Errno> {
        self.failure.take()
    }

    /// True once the reader has gone or a write failed: output is dropped from then on.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes what the descriptor takes without blocking. Returns the bytes written.
    pub fn flush(&mut self) -> usize {
        let mut written = 0;
        while !self.pending.is_empty() {
            if !self.nonblocking && !self.polls_writable() {
                break;
            }
            let (front, _) = self.pending.as_slices();
            let chunk = if self.nonblocking {
                front
            } else {
                &front[..front.len().min(BLOCKING_CHUNK)]
            };
            match nix::unistd::write(&self.fd, chunk) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(n) => {
                    self.pending.drain(..n);
                    written += n;
                }
                Err(Errno::EINTR) => {}
                Err(e) => {
                    let gone = matches!(e, Errno::EPIPE | Errno::ECONNRESET | Errno::EIO);
                    // A terminal that hung up gives EIO.
                    self.failure = (!gone || self.is_file()).then_some(e);
                    self.closed = true;
                    self.pending = VecDeque::new();
                }
            }
        }
        written
    }

    fn is_file(&self) -> bool {
        fstat(&self.fd)
            .is_ok_and(|s| SFlag::from_bits_truncate(s.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG)
    }

    fn polls_writable(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_full_pipe_blocks_nobody_and_loses_nothing() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut sink = Sink::shared(writer.as_fd()).unwrap();
        drop(writer);
        let data: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        sink.push(&data);
        sink.flush();
        assert!(sink.is_pending(), "a pipe holds 64 KiB");
        let thread = std::thread::spawn(move || {
            let mut all = Vec::new();
            std::fs::File::from(reader).read_to_end(&mut all).unwrap();
            all
        });
        while sink.is_pending() {
            sink.flush();
            std::thread::yield_now();
        }
        drop(sink);
        assert!(thread.join().unwrap() == data);
    }

    #[test]
    fn a_closed_reader_is_noticed() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut sink = Sink::owned(writer);
        drop(reader);
        sink.push(b"x");
        sink.flush();
        assert!(sink.is_closed() && !sink.is_pending());
        assert_eq!(sink.room(), usize::MAX);
        assert_eq!(sink.take_failure(), None);
    }

    #[test]
    fn a_full_file_system_is_a_failure() {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut sink = Sink::owned(full.unwrap().into());
        sink.push(b"x");
        sink.flush();
        assert!(sink.is_closed() && !sink.is_pending());
        assert_eq!(sink.take_failure(), Some(Errno::ENOSPC));
        assert_eq!(sink.take_failure(), None);
    }
}
