//! `--snapshot`: writes go to an unnamed temporary file, whose clusters hide the image's.

use ring3_devices::block::{BlockBackend, BlockError, SECTOR};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// Sectors of a cluster.
const CLUSTER: u64 = 128;
const CLUSTER_BYTES: u64 = CLUSTER * SECTOR as u64;

/// See the module's text.
pub(super) struct Overlay {
    below: Box<dyn BlockBackend>,
    file: File,
    /// Place in the file of each written cluster, in clusters.
    map: HashMap<u64, u64>,
}

impl Overlay {
    /// # Errors
    /// When the host gives no temporary file.
    pub fn new(below: Box<dyn BlockBackend>) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE)
            .open(std::env::temp_dir())?;
        Ok(Self {
            below,
            file,
            map: HashMap::new(),
        })
    }

    /// Splits sectors from `first` at cluster ends: (cluster, sector in it, bytes in the buffer).
    fn pieces(first: u64, len: usize) -> impl Iterator<Item = (u64, u64, core::ops::Range<usize>)> {
        let mut done = 0;
        core::iter::from_fn(move || {
            if done >= len {
                return None;
            }
            let sector = first + (done / SECTOR) as u64;
            let room = (CLUSTER - sector % CLUSTER) as usize * SECTOR;
            let piece = done..len.min(done + room);
            done = piece.end;
            Some((sector / CLUSTER, sector % CLUSTER, piece))
        })
    }

    fn check(&self, first: u64, len: usize) -> Result<(), BlockError> {
        let end = first.checked_add((len / SECTOR) as u64);
        if end.is_none_or(|end| end > self.below.sectors()) {
            return Err(BlockError::OutOfRange);
        }
        Ok(())
    }

    /// The place of a cluster in the file; the image's contents are copied up at first.
    fn place(&mut self, cluster: u64) -> Result<u64, BlockError> {
        if let Some(&place) = self.map.get(&cluster) {
            return Ok(place);
        }
        let place = self.map.len() as u64;
        let first = cluster * CLUSTER;
        let sectors = CLUSTER.min(self.below.sectors() - first);
        let mut old = vec![0; sectors as usize * SECTOR];
        self.below.read(first, &mut old)?;
        self.file
            .write_all_at(&old, place * CLUSTER_BYTES)
            .map_err(|_| BlockError::Host)?;
        self.map.insert(cluster, place);
        Ok(place)
    }
}

impl BlockBackend for Overlay {
    fn sectors(&self) -> u64 {
        self.below.sectors()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&mut self, first: u64, buf: &mut [u8]) -> Result<(), BlockError> {
        self.check(first, buf.len())?;
        for (cluster, sector, range) in Self::pieces(first, buf.len()) {
            match self.map.get(&cluster) {
                Some(place) => {
                    let at = place * CLUSTER_BYTES + sector * SECTOR as u64;
                    self.file
                        .read_exact_at(&mut buf[range], at)
                        .map_err(|_| BlockError::Host)?;
                }
                None => self
                    .below
                    .read(cluster * CLUSTER + sector, &mut buf[range])?,
            }
        }
        Ok(())
    }

    fn write(&mut self, first: u64, data: &[u8]) -> Result<(), BlockError> {
        self.check(first, data.len())?;
        for (cluster, sector, range) in Self::pieces(first, data.len()) {
            let at = self.place(cluster)? * CLUSTER_BYTES + sector * SECTOR as u64;
            self.file
                .write_all_at(&data[range], at)
                .map_err(|_| BlockError::Host)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        Ok(())
    }
}
