//! Guest memory for chips that are bus masters.

use ring3_devices::bus::{DmaError, DmaMemory};

/// Bytes of guest memory.
pub const SIZE: usize = 1 << 20;

/// RAM from address 0 on, with a hole where devices are: DMA into device memory is refused.
pub struct Ram(pub Vec<u8>);

/// The legacy video window, which is not RAM.
pub const HOLE: std::ops::Range<usize> = 0xa_0000..0xc_0000;

impl Ram {
    /// Zeroed memory.
    #[must_use]
    pub fn new() -> Self {
        Self(vec![0; SIZE])
    }

    fn range(address: u64, len: usize) -> Result<std::ops::Range<usize>, DmaError> {
        let error = DmaError { address };
        let from = usize::try_from(address).map_err(|_| error)?;
        let to = from
            .checked_add(len)
            .filter(|&to| to <= SIZE)
            .ok_or(error)?;
        if from < HOLE.end && to > HOLE.start {
            return Err(error);
        }
        Ok(from..to)
    }
}

impl Default for Ram {
    fn default() -> Self {
        Self::new()
    }
}

impl DmaMemory for Ram {
    fn read(&mut self, address: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        buf.copy_from_slice(&self.0[Self::range(address, buf.len())?]);
        Ok(())
    }
    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.0[Self::range(address, data.len())?].copy_from_slice(data);
        Ok(())
    }
}
