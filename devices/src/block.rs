//! What a disk controller needs of a disk image.

/// Bytes in the unit of [`BlockBackend`].
pub const SECTOR: usize = 512;

/// A transfer that the image could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The range does not exist.
    #[error("sectors beyond the end of the image")]
    OutOfRange,
    /// The image cannot be written.
    #[error("the image is read-only")]
    ReadOnly,
    /// The host failed.
    #[error("host input/output error")]
    Host,
}

/// A disk image in sectors of 512 bytes.
pub trait BlockBackend: Send {
    /// Sectors in the image.
    fn sectors(&self) -> u64;
    /// Whether writes fail.
    fn read_only(&self) -> bool;
    /// Fills `buf`, a whole number of sectors, from sector `first` on.
    /// # Errors
    /// [`BlockError`]; `buf` is then unspecified.
    fn read(&mut self, first: u64, buf: &mut [u8]) -> Result<(), BlockError>;
    /// Writes `data`, a whole number of sectors, from sector `first` on.
    /// # Errors
    /// [`BlockError`]; part of the data may have been written.
    fn write(&mut self, first: u64, data: &[u8]) -> Result<(), BlockError>;
    /// Makes all completed writes durable.
    /// # Errors
    /// [`BlockError::Host`].
    fn flush(&mut self) -> Result<(), BlockError>;
}

/// An image in memory, for scratch disks and tests.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    bytes: Vec<u8>,
    read_only: bool,
}

impl MemoryDisk {
    /// An image of the given bytes, filled up with zeros to whole sectors.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>, read_only: bool) -> Self {
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        Self { bytes, read_only }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn range(&self, first: u64, len: usize) -> Result<std::ops::Range<usize>, BlockError> {
        let start = usize::try_from(first)
            .ok()
            .and_then(|first| first.checked_mul(SECTOR));
        let start = start.ok_or(BlockError::OutOfRange)?;
        let end = start
            .checked_add(len)
            .filter(|end| *end <= self.bytes.len());
        Ok(start..end.ok_or(BlockError::OutOfRange)?)
    }
}

impl BlockBackend for MemoryDisk {
    fn sectors(&self) -> u64 {
        (self.bytes.len() / SECTOR) as u64
    }
    fn read_only(&self) -> bool {
        self.read_only
    }
    fn read(&mut self, first: u64, buf: &mut [u8]) -> Result<(), BlockError> {
        let range = self.range(first, buf.len())?;
        buf.copy_from_slice(&self.bytes[range]);
        Ok(())
    }
    fn write(&mut self, first: u64, data: &[u8]) -> Result<(), BlockError> {
        if self.read_only {
            return Err(BlockError::ReadOnly);
        }
        let range = self.range(first, data.len())?;
        self.bytes[range].copy_from_slice(data);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), BlockError> {
        Ok(())
    }
}
