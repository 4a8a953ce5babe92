//! `--snapshot`: writes go to an unnamed temporary file, whose clusters hide the image's.

use super::store::Store;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// Bytes of a cluster.
const CLUSTER: u64 = 0x1_0000;

/// See the module's text.
pub(super) struct Overlay {
    below: Box<dyn Store>,
    file: File,
    /// Place in the file of each written cluster, in clusters.
    map: HashMap<u64, u64>,
}

impl Overlay {
    /// # Errors
    /// When the host gives no temporary file.
    pub fn new(below: Box<dyn Store>) -> io::Result<Self> {
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

    /// Splits bytes from `at` at cluster ends: (cluster, offset in it, bytes in the buffer).
    fn pieces(at: u64, len: usize) -> impl Iterator<Item = (u64, u64, Range<usize>)> {
        let mut done = 0;
        core::iter::from_fn(move || {
            if done >= len {
                return None;
            }
            let at = at + done as u64;
            let room = (CLUSTER - at % CLUSTER) as usize;
            let piece = done..len.min(done + room);
            done = piece.end;
            Some((at / CLUSTER, at % CLUSTER, piece))
        })
    }

    /// The place of a cluster in the file; the image's contents are copied up at first.
    fn place(&mut self, cluster: u64) -> io::Result<u64> {
        if let Some(&place) = self.map.get(&cluster) {
            return Ok(place);
        }
        let place = self.map.len() as u64;
        let first = cluster * CLUSTER;
        let mut old = vec![0; CLUSTER.min(self.below.len() - first) as usize];
        self.below.read(first, &mut old)?;
        self.file.write_all_at(&old, place * CLUSTER)?;
        self.map.insert(cluster, place);
        Ok(place)
    }
}

impl Store for Overlay {
    fn len(&self) -> u64 {
        self.below.len()
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        for (cluster, offset, range) in Self::pieces(at, buf.len()) {
            let buf = &mut buf[range];
            match self.map.get(&cluster) {
                Some(place) => self.file.read_exact_at(buf, place * CLUSTER + offset)?,
                None => self.below.read(cluster * CLUSTER + offset, buf)?,
            }
        }
        Ok(())
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        for (cluster, offset, range) in Self::pieces(at, data.len()) {
            let place = self.place(cluster)?;
            self.file
                .write_all_at(&data[range], place * CLUSTER + offset)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
