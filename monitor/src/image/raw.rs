//! Raw images: byte n of the disk is byte n of the file.

use super::store::Store;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Raw {
    file: File,
    len: u64,
}

impl Raw {
    /// An image of `len` bytes.
    pub fn new(file: File, len: u64) -> Self {
        Self { file, len }
    }
}

impl Store for Raw {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, at).map_err(|e| {
            if e.kind() == io::ErrorKind::UnexpectedEof {
                return io::Error::other("the file has become shorter");
            }
            e
        })
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, at)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}
