//! Disk images: what the user names, and what drives see.
//!
//! A format that the user names is taken as it is. Without one the first bytes decide, as users
//! expect; since the guest of a raw image chooses these, it is then kept from writing the beginning
//! of another format there ([`store::Image`]), and a guess other than raw is told.

mod lock;
mod overlay;
mod qcow2;
mod qcow2_check;
mod qcow2_header;
mod raw;
mod spec;
mod store;

pub use qcow2_header::Qcow2Error;
pub use spec::{DriveSpec, ImageFormat, Interface, parse_drive};

use crate::notice::notice;
use overlay::Overlay;
use qcow2::Qcow2Store;
use raw::Raw;
use ring3_devices::block::BlockBackend;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use store::{Image, Store};

/// Most bytes of a disk: 2 TiB, what partition tables and BIOS calls of this PC can name.
pub const MAX_SIZE: u64 = 2 << 40;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot be opened, read or measured.
    #[error("cannot {action} the image {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The image.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// Another program has it open in a way that excludes ours.
    #[error("the image {} is in use, by another program or as another drive{}", path.display(), if *read_only { ", and written to there" } else { " (use ro or --snapshot to share it with others that only read)" })]
    InUse {
        /// The image.
        path: PathBuf,
        /// We wanted to read only.
        read_only: bool,
    },
    /// It is a directory, a character device, a socket.
    #[error("{} is neither a file nor a block device: name a disk image", path.display())]
    NotAnImage {
        /// What was named.
        path: PathBuf,
    },
    /// Empty, or larger than drives can be.
    #[error("the image {} is a disk of {size} bytes: a drive has at least 1 byte and at most 2 TiB", path.display())]
    Size {
        /// The image.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// Something is wrong with its tables.
    #[error("the image {} cannot be used: {problem}; {}", path.display(), problem.advice())]
    Qcow2 {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        problem: Qcow2Error,
    },
    /// It names a file below it.
    #[error("the image {} names the backing file {}, {why}", path.display(), name.display())]
    Backing {
        /// The image.
        path: PathBuf,
        /// The file below.
        name: PathBuf,
        /// Why that is not opened.
        why: &'static str,
    },
    /// The host gives no temporary file.
    #[error("cannot create a temporary file for --snapshot")]
    Overlay(#[source] io::Error),
}

impl ImageError {
    fn qcow2(path: &Path, problem: Qcow2Error) -> Self {
        let path = path.to_owned();
        match problem {
            Qcow2Error::Size(size) => Self::Size { path, size },
            problem => Self::Qcow2 { path, problem },
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::File {
        action,
        path,
        source,
    }
}

/// How an image is to be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// Its format; `None`: what its first bytes say.
    pub format: Option<ImageFormat>,
    /// The guest cannot write to it.
    pub read_only: bool,
    /// Writes are kept in an unnamed temporary file and dropped with the image.
    pub snapshot: bool,
    /// The file that it names as lying below it may be read.
    pub backing: bool,
    /// Later failures are not told to the user.
    pub quiet: bool,
}

/// A file with its lock.
struct OpenedFile {
    file: File,
    path: PathBuf,
    len: u64,
    /// See [`identity`].
    identity: (u64, u64),
}

/// What tells one file from another: device and inode.
fn identity(path: &Path) -> Result<(u64, u64), ImageError> {
    let metadata = std::fs::metadata(path).map_err(failed("open", path))?;
    Ok((metadata.dev(), metadata.ino()))
}

impl OpenedFile {
    /// Opens and locks: exclusively if `writable`, else shared.
    fn open(path: &Path, writable: bool) -> Result<Self, ImageError> {
        let metadata = std::fs::metadata(path).map_err(failed("open", path))?;
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(ImageError::NotAnImage { path: path.into() });
        }
        // Should it have become a FIFO since, opening it must not wait.
        let mut file = OpenOptions::new()
            .read(true)
            .write(writable)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(failed("open", path))?;
        lock::take(&file, writable).map_err(|e| {
            if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) {
                ImageError::InUse {
                    path: path.into(),
                    read_only: !writable,
                }
            } else {
                failed("lock", path)(e)
            }
        })?;
        // The end also tells a block device's size.
        let len = file
            .seek(SeekFrom::End(0))
            .map_err(failed("measure", path))?;
        Ok(Self {
            file,
            path: path.into(),
            len,
            identity: (metadata.dev(), metadata.ino()),
        })
    }
}

/// Opens an image and takes its lock: exclusive if the guest may write to it, else shared.
/// # Errors
/// [`ImageError`] with one sentence that names the image; nothing was written.
pub fn open(path: &Path, mode: OpenMode) -> Result<Box<dyn BlockBackend>, ImageError> {
    let writable = !mode.read_only && !mode.snapshot;
    let file = OpenedFile::open(path, writable)?;
    let format = match mode.format {
        Some(format) => format,
        None => spec::detect(&file.file).map_err(failed("read", path))?,
    };
    let store: Box<dyn Store> = match format {
        ImageFormat::Raw => {
            if file.len == 0 || file.len > MAX_SIZE {
                return Err(ImageError::Size {
                    path: path.into(),
                    size: file.len,
                });
            }
            Box::new(Raw::new(file.file, file.len))
        }
        ImageFormat::Qcow2 => Box::new(Qcow2Store::new(file, writable, mode.backing)?),
    };
    if mode.format.is_none() && format != ImageFormat::Raw && !mode.quiet {
        notice(&format!(
            "the image {} looks like qcow2 and is used as such (format=raw or format=qcow2 says which)",
            path.display()
        ));
    }
    let store = if mode.snapshot && !mode.read_only {
        Box::new(Overlay::new(store).map_err(ImageError::Overlay)?)
    } else {
        store
    };
    let mut image = Image::new(store, path.into(), mode.read_only);
    image.quiet = mode.quiet;
    image.guessed_raw = mode.format.is_none() && format == ImageFormat::Raw && writable;
    Ok(Box::new(image))
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "qcow2_tests.rs"]
mod qcow2_tests;
