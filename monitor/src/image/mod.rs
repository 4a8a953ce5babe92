//! Disk images: what the user names, and what drives see.

mod lock;
mod overlay;
mod raw;
mod spec;

pub use spec::{DriveSpec, ImageFormat, Interface, parse_drive};

use overlay::Overlay;
use raw::Raw;
use ring3_devices::block::{BlockBackend, SECTOR};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Most bytes of an image: what 48 bits of sectors address, far beyond the drives' own limit.
pub const MAX_SIZE: u64 = (1 << 48) * SECTOR as u64;

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
    #[error("the image {} is in use by another program{}", path.display(), if *read_only { "" } else { " (use ro or --snapshot to share it)" })]
    InUse {
        /// The image.
        path: PathBuf,
        /// We wanted to read only.
        read_only: bool,
    },
    /// It is a directory, a character device, a socket.
    #[error("{} is neither a file nor a block device", path.display())]
    NotAnImage {
        /// What was named.
        path: PathBuf,
    },
    /// Empty, or larger than drives can be.
    #[error("the image {} has a size of {size} bytes, which no drive can have", path.display())]
    Size {
        /// The image.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// A format that this build does not read.
    #[error("the image {} is of the format qcow2, which this build cannot read: convert it with 'qemu-img convert -O raw'", path.display())]
    Qcow2 {
        /// The image.
        path: PathBuf,
    },
    /// The format cannot be written through.
    #[error("an overlay file for --snapshot")]
    Overlay(#[source] io::Error),
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::File {
        action,
        path,
        source,
    }
}

/// Opens an image and takes its lock: exclusive if the guest may write to it, else shared.
/// `snapshot`: writes are kept in an unnamed temporary file and dropped with the result.
/// # Errors
/// [`ImageError`] with one sentence that names the image; nothing was written.
pub fn open(
    path: &Path,
    format: Option<ImageFormat>,
    read_only: bool,
    snapshot: bool,
) -> Result<Box<dyn BlockBackend>, ImageError> {
    let writable = !read_only && !snapshot;
    let kind = std::fs::metadata(path)
        .map_err(file("open", path))?
        .file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(ImageError::NotAnImage { path: path.into() });
    }
    let opened: File = OpenOptions::new()
        .read(true)
        .write(writable)
        .open(path)
        .map_err(file("open", path))?;
    lock::take(&opened, writable).map_err(|e| {
        if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) {
            ImageError::InUse {
                path: path.into(),
                read_only: !writable,
            }
        } else {
            file("lock", path)(e)
        }
    })?;
    let format = match format {
        Some(format) => format,
        None => spec::detect(&opened).map_err(file("read", path))?,
    };
    if format == ImageFormat::Qcow2 {
        return Err(ImageError::Qcow2 { path: path.into() });
    }
    let raw = Raw::new(opened, !writable).map_err(file("measure", path))?;
    let size = raw.sectors() * SECTOR as u64;
    if size == 0 || size > MAX_SIZE {
        return Err(ImageError::Size {
            path: path.into(),
            size,
        });
    }
    if snapshot && !read_only {
        return Ok(Box::new(
            Overlay::new(Box::new(raw)).map_err(ImageError::Overlay)?,
        ));
    }
    Ok(Box::new(raw))
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
