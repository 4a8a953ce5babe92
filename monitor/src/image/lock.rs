//! Locks on images, which hold for as long as the open file does: open file description locks,
//! fcntl(2). They are what other programs of this kind use as well.

use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io;

/// Locks the whole file: for writing exclusively, for reading shared. Does not wait.
/// # Errors
/// EAGAIN or EACCES if another program's lock excludes this one.
pub(super) fn take(file: &File, writable: bool) -> io::Result<()> {
    let kind = if writable {
        libc::F_WRLCK
    } else {
        libc::F_RDLCK
    };
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock))?;
    Ok(())
}
