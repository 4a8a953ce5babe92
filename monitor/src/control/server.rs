//! The socket and its connections: a thread that accepts, and one for each peer.

use super::protocol::{Answer, MAX_LINE, Request};
use super::remote::Remote;
use crate::socket;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Peers at once.
const MAX_PEERS: usize = 64;
/// How long a peer may leave an answer unread.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket.
    #[error("cannot listen on the control socket {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// Another machine listens there.
    #[error("another machine listens on the control socket {}", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
}

/// A socket that is ready for [`ControlServer::serve`]; its name goes away with it.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
    closing: Arc<AtomicBool>,
}

impl ControlServer {
    /// Listens at `path`, readable and writable for this user only. A socket that a dead process
    /// left there is replaced.
    /// # Errors
    /// [`ControlError`].
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |source: io::Error| {
            let path = path.into();
            match source.kind() {
                io::ErrorKind::AddrInUse => ControlError::Taken { path },
                _ => ControlError::Listen { path, source },
            }
        };
        let listener = socket::listen(path).map_err(failed)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
        Ok(Self {
            listener,
            path: path.into(),
            closing: Arc::default(),
        })
    }

    /// Serves peers on threads of their own until the server is dropped.
    /// # Errors
    /// If the host gives no thread.
    pub fn serve(&self, remote: Remote) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        let closing = Arc::clone(&self.closing);
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                let peers = Arc::new(AtomicUsize::new(0));
                for stream in listener.incoming() {
                    if closing.load(Ordering::Acquire) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    if peers.fetch_add(1, Ordering::AcqRel) >= MAX_PEERS {
                        peers.fetch_sub(1, Ordering::AcqRel);
                        // A new socket's buffer takes this without waiting.
                        let text = format!("{MAX_PEERS} others are connected already");
                        let _ = (&stream).write_all(&line(&refusal(text)));
                        continue;
                    }
                    let (remote, count) = (remote.clone(), Arc::clone(&peers));
                    let peer = std::thread::Builder::new()
                        .name("control peer".into())
                        .spawn(move || {
                            // A peer that goes away is no error.
                            let _ = converse(&stream, &remote);
                            count.fetch_sub(1, Ordering::AcqRel);
                        });
                    if peer.is_err() {
                        peers.fetch_sub(1, Ordering::AcqRel);
                    }
                }
            })?;
        Ok(())
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // Wakes the accepting thread.
        drop(UnixStream::connect(&self.path));
        let _ = std::fs::remove_file(&self.path);
    }
}

fn refusal(text: String) -> Answer {
    Answer {
        error: Some(text),
        ..Answer::default()
    }
}

/// An answer as it is sent.
fn line(answer: &Answer) -> Vec<u8> {
    // Strings and numbers always have a JSON form.
    let mut out = serde_json::to_vec(answer).unwrap_or_default();
    out.push(b'\n');
    out
}

fn converse(stream: &UnixStream, remote: &Remote) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = Vec::new();
        reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut request)?;
        if request.is_empty() {
            return Ok(());
        }
        let mut stream = stream;
        let whole = request.last() == Some(&b'\n');
        if !whole && request.len() as u64 == MAX_LINE {
            let text = format!("a request has at most {MAX_LINE} bytes and ends with a newline");
            return stream.write_all(&line(&refusal(text)));
        }
        let mut last = None;
        let (answer, bytes) = match serde_json::from_slice::<Request>(&request) {
            Ok(request) => {
                // The machine may be gone before it can answer to these.
                last = matches!(request, Request::Quit | Request::Reset).then(|| request.clone());
                remote.handle(request)
            }
            Err(e) => (refusal(format!("not a request: {e}")), Vec::new()),
        };
        let mut out = line(&answer);
        out.extend(bytes);
        let written = stream.write_all(&out);
        match last {
            Some(Request::Quit) => remote.quit(),
            Some(_) => remote.reset(),
            None => {}
        }
        written?;
        if !whole {
            return Ok(());
        }
    }
}
