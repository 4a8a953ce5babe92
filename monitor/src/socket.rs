//! Unix sockets that the machine listens on.

use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Bytes of the longest name. Linux `include/uapi/linux/un.h`, less the terminating NUL.
const MAX_NAME: usize = 107;

/// Listens at `path`. A socket that a dead process left there is replaced; a file of another kind
/// never is.
/// # Errors
/// [`ErrorKind::AddrInUse`] if another process listens there; else what the host says.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    if path.as_os_str().len() > MAX_NAME {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("the name of a socket has at most {MAX_NAME} bytes"),
        ));
    }
    match UnixListener::bind(path) {
        Err(e) if e.kind() == ErrorKind::AddrInUse => match UnixStream::connect(path) {
            Ok(_) => Err(e),
            // Only a socket can refuse.
            Err(refused) if refused.kind() == ErrorKind::ConnectionRefused && is_socket(path) => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            Err(_) => Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "there is a file of that name",
            )),
        },
        other => other,
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_what_a_dead_process_left_is_replaced() {
        let dir = std::env::temp_dir().join(format!("ring3-socket-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        let first = listen(&path).unwrap();
        let kind = |result: io::Result<UnixListener>| result.unwrap_err().kind();
        assert_eq!(kind(listen(&path)), ErrorKind::AddrInUse);
        drop(first);
        drop(listen(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert_eq!(kind(listen(&path)), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let long = dir.join("x".repeat(MAX_NAME));
        assert_eq!(kind(listen(&long)), ErrorKind::InvalidInput);
        fs::remove_dir_all(&dir).unwrap();
    }
}
