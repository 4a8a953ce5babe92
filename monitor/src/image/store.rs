//! What a disk image is to the drives: a store of bytes behind checks, and reports of failures.

use crate::notice::notice;
use ring3_devices::block::{BlockBackend, BlockError, SECTOR};
use std::io;
use std::path::PathBuf;

/// Failures of one image that are reported; a broken disk must not fill the terminal.
const REPORTS: u32 = 10;
/// First bytes of formats that a guest must not turn an image of guessed format into.
const HEADERS: [&[u8]; 6] = [
    b"QFI\xfb",
    b"KDMV",
    b"COWD",
    b"conectix",
    b"vhdxfile",
    b"# Disk Des",
];

/// An image's contents, however they are stored.
pub(super) trait Store: Send {
    /// Bytes of the disk.
    fn len(&self) -> u64;
    /// Reads within the disk.
    fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes within the disk.
    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()>;
    /// Makes completed writes durable.
    fn flush(&mut self) -> io::Result<()>;
    /// Gives the host what is held in memory, at the end.
    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An image in a drive.
pub(super) struct Image {
    pub store: Box<dyn Store>,
    pub path: PathBuf,
    pub read_only: bool,
    /// Its format was guessed to be raw: sector 0 must not begin like another one, or the next
    /// start would guess otherwise and let the guest name files of the host.
    pub guessed_raw: bool,
    /// Failures are not reported.
    pub quiet: bool,
    reports: u32,
}

impl Image {
    pub fn new(store: Box<dyn Store>, path: PathBuf, read_only: bool) -> Self {
        Self {
            store,
            path,
            read_only,
            guessed_raw: false,
            quiet: false,
            reports: 0,
        }
    }

    fn report(&mut self, action: &str, sector: u64, reason: &str) {
        if self.quiet {
            return;
        }
        self.reports += 1;
        if self.reports <= REPORTS {
            let path = self.path.display();
            notice(&format!(
                "the image {path}: cannot {action} sector {sector}: {reason}; the guest sees a disk error"
            ));
        }
        if self.reports == REPORTS {
            notice(&format!(
                "the image {}: further errors are not reported",
                self.path.display()
            ));
        }
    }

    /// The byte of sector `first`, if `len` bytes from there exist.
    fn place(&self, first: u64, len: usize) -> Result<u64, BlockError> {
        let end = first.checked_add((len / SECTOR) as u64);
        if end.is_none_or(|end| end > self.sectors()) {
            return Err(BlockError::OutOfRange);
        }
        Ok(first * SECTOR as u64)
    }

    /// How much of a transfer is inside the disk; the rest fills its last sector.
    fn inside(&self, at: u64, len: usize) -> usize {
        (self.store.len() - at).min(len as u64) as usize
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if !self.read_only
            && let Err(e) = self.store.close()
            && !self.quiet
        {
            notice(&format!(
                "the image {}: writes that the guest has not flushed are lost: {e}",
                self.path.display()
            ));
        }
    }
}

impl BlockBackend for Image {
    fn sectors(&self) -> u64 {
        self.store.len().div_ceil(SECTOR as u64)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, first: u64, buf: &mut [u8]) -> Result<(), BlockError> {
        let at = self.place(first, buf.len())?;
        let inside = self.inside(at, buf.len());
        buf[inside..].fill(0);
        self.store.read(at, &mut buf[..inside]).map_err(|e| {
            self.report("read", first, &e.to_string());
            BlockError::Host
        })
    }

    fn write(&mut self, first: u64, data: &[u8]) -> Result<(), BlockError> {
        if self.read_only {
            return Err(BlockError::ReadOnly);
        }
        let at = self.place(first, data.len())?;
        if first == 0 && self.guessed_raw && HEADERS.iter().any(|h| data.starts_with(h)) {
            self.report(
                "write",
                0,
                "it would look like another format, and this one's was guessed: name format=raw",
            );
            return Err(BlockError::Host);
        }
        let inside = self.inside(at, data.len());
        self.store.write(at, &data[..inside]).map_err(|e| {
            self.report("write", first, &e.to_string());
            BlockError::Host
        })
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        if self.read_only {
            return Ok(());
        }
        self.store.flush().map_err(|e| {
            self.report("flush", 0, &e.to_string());
            BlockError::Host
        })
    }
}
