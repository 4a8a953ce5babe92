//! Raw images: byte n of the disk is byte n of the file.

use ring3_devices::block::{BlockBackend, BlockError, SECTOR};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Raw {
    file: File,
    /// Bytes in the file; the last sector may be partial and is filled up with zeros.
    len: u64,
    read_only: bool,
}

impl Raw {
    /// # Errors
    /// When the file cannot be measured.
    pub fn new(mut file: File, read_only: bool) -> io::Result<Self> {
        // The end also tells a block device's size.
        let len = file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            len,
            read_only,
        })
    }

    fn range(&self, first: u64, len: usize) -> Result<u64, BlockError> {
        let count = (len / SECTOR) as u64;
        if first
            .checked_add(count)
            .is_none_or(|end| end > self.sectors())
        {
            return Err(BlockError::OutOfRange);
        }
        Ok(first * SECTOR as u64)
    }
}

impl BlockBackend for Raw {
    fn sectors(&self) -> u64 {
        self.len.div_ceil(SECTOR as u64)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, first: u64, buf: &mut [u8]) -> Result<(), BlockError> {
        let at = self.range(first, buf.len())?;
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], at + done as u64) {
                // The file's end within its last sector, or a file that was cut short meanwhile.
                Ok(0) => {
                    buf[done..].fill(0);
                    break;
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(BlockError::Host),
            }
        }
        Ok(())
    }

    fn write(&mut self, first: u64, data: &[u8]) -> Result<(), BlockError> {
        if self.read_only {
            return Err(BlockError::ReadOnly);
        }
        let at = self.range(first, data.len())?;
        self.file
            .write_all_at(data, at)
            .map_err(|_| BlockError::Host)
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        if self.read_only {
            return Ok(());
        }
        self.file.sync_data().map_err(|_| BlockError::Host)
    }
}
