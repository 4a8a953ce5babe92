//! qcow2 images, through the library imago, and the chain of files below them.
//!
//! imago reads and writes the format; opening is ours: every file is locked and its tables are
//! checked ([`super::qcow2_check`]) before imago sees it, and imago opens nothing by itself.
//!
//! An image may name a *backing file*: what it does not hold itself is read from there. Whoever
//! made the image chose that name, and it could be any file of the host; so such a file is opened
//! only if the user says `backing`, its format is stated by the image and never guessed, and it is
//! never written to. No file may appear twice in a chain of at most [`MAX_CHAIN`].

use super::qcow2_check::check;
use super::qcow2_header::{Backing, Header};
use super::store::Store;
use super::{ImageError, ImageFormat, OpenedFile, identity};
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

type Access = FormatAccess<Storage>;

/// Most files of a chain.
const MAX_CHAIN: usize = 16;

/// See the module's text.
pub(super) struct Qcow2Store {
    access: Access,
    /// A defect of the library was met: what it holds cannot be trusted any more.
    broken: bool,
}

impl Qcow2Store {
    /// Takes an opened file. `backing`: the file below may be opened.
    /// # Errors
    /// [`ImageError`]; nothing was written.
    pub fn new(file: OpenedFile, writable: bool, backing: bool) -> Result<Self, ImageError> {
        let mut chain = vec![file.identity];
        let access = open(file, writable, backing, &mut chain)?;
        Ok(Self {
            access,
            broken: false,
        })
    }

    /// Calls the library. A panic of it must not end the machine: it is a broken disk.
    fn call(&mut self, f: impl FnOnce(&Access) -> io::Result<()>) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the image failed before"));
        }
        catch_unwind(AssertUnwindSafe(|| f(&self.access))).unwrap_or_else(|_| {
            self.broken = true;
            Err(io::Error::other("a defect of the qcow2 library"))
        })
    }
}

impl Store for Qcow2Store {
    fn len(&self) -> u64 {
        self.access.size()
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.call(|access| access.read(buf, at))
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        self.call(|access| access.write(data, at))
    }

    fn flush(&mut self) -> io::Result<()> {
        // First what the library holds in memory, then what the host does.
        self.call(|access| access.flush().and_then(|()| access.sync()))
    }

    fn close(&mut self) -> io::Result<()> {
        self.call(Access::flush)
    }
}

fn open(
    file: OpenedFile,
    writable: bool,
    backing: bool,
    chain: &mut Vec<(u64, u64)>,
) -> Result<Access, ImageError> {
    let OpenedFile {
        file, path, len, ..
    } = file;
    let bad = |e| ImageError::qcow2(&path, e);
    let header = Header::read(&file, len).map_err(bad)?;
    check(&file, &header, len, writable).map_err(bad)?;
    let below = match &header.backing {
        None => None,
        Some(named) => Some(open_backing(&path, named, backing, chain)?),
    };
    let failed = |source| ImageError::File {
        action: "open",
        path: path.clone(),
        source,
    };
    let storage = Storage::try_from(file).map_err(failed)?;
    let image = catch_unwind(AssertUnwindSafe(|| {
        Qcow2::<Storage>::builder(storage)
            .write(writable)
            .backing(below)
            .data_file(None)
            .open(DenyImplicitOpenGate::default())
    }))
    .unwrap_or_else(|_| Err(io::Error::other("a defect of the qcow2 library")))
    .map_err(failed)?;
    Ok(FormatAccess::new(image))
}

fn open_backing(
    above: &Path,
    named: &Backing,
    allowed: bool,
    chain: &mut Vec<(u64, u64)>,
) -> Result<Access, ImageError> {
    let name = PathBuf::from(OsStr::from_bytes(&named.name));
    let refuse = |why| ImageError::Backing {
        path: above.into(),
        name: name.clone(),
        why,
    };
    if !allowed {
        return Err(refuse(
            "add 'backing' to the drive's properties if that file may be read",
        ));
    }
    let format = match named.format.as_deref() {
        Some(b"raw" | b"file") => ImageFormat::Raw,
        Some(b"qcow2") => ImageFormat::Qcow2,
        _ => {
            return Err(refuse(
                "and does not say that it is raw or qcow2: set it with 'qemu-img rebase -u -F FORMAT'",
            ));
        }
    };
    let directory = above.parent().unwrap_or(Path::new(""));
    // `join` takes an absolute name as it is.
    let path = directory.join(&name);
    // Before the lock: our own on the file above would refuse it, with another reason.
    if chain.contains(&identity(&path)?) {
        return Err(refuse("which is above it already: the chain has no end"));
    }
    let file = OpenedFile::open(&path, false)?;
    chain.push(file.identity);
    if chain.len() > MAX_CHAIN {
        return Err(refuse("and the chain of files is too long"));
    }
    if format == ImageFormat::Qcow2 {
        return open(file, false, allowed, chain);
    }
    let OpenedFile { file, path, .. } = file;
    let raw = Storage::try_from(file).and_then(|storage| {
        Raw::builder(storage)
            .write(false)
            .open(DenyImplicitOpenGate::default())
    });
    raw.map(FormatAccess::new)
        .map_err(|source| ImageError::File {
            action: "open",
            path,
            source,
        })
}
