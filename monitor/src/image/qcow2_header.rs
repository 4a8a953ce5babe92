//! The header of qcow2 images, and the limits that make everything after it bounded.
//!
//! QEMU's docs/interop/qcow2.txt, "Header" and "Header extensions". Versions 2 and 3 are read. Not
//! supported, and refused: encryption, external data files, zstd compression, extended L2 entries.

use super::MAX_SIZE;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(super) const MAGIC: &[u8; 4] = b"QFI\xfb";
/// Most bytes of an L1 table and of a refcount table: QEMU's own limits.
const MAX_L1: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// Most bytes of a backing file's name.
const MAX_NAME: u32 = 1023;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;

/// What is wrong with a qcow2 image.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// The host.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file ends too early.
    #[error("its {0} lies beyond the end of the file")]
    Truncated(&'static str),
    /// A field makes no sense.
    #[error("its {what} makes no sense ({value:#x})")]
    Field {
        /// The field.
        what: &'static str,
        /// What it holds.
        value: u64,
    },
    /// Structures lie upon each other.
    #[error("its {0} overlaps other structures")]
    Overlap(&'static str),
    /// A cluster that is used is counted as free: writing would destroy it.
    #[error("it uses the cluster at {0:#x}, which it counts as free")]
    Refcount(u64),
    /// A disk that no drive can be.
    #[error("its disk has {0} bytes")]
    Size(u64),
    /// A feature that is not read.
    #[error("it has {0}, which is not supported")]
    Unsupported(&'static str),
    /// It was not closed properly, or was found corrupt before.
    #[error("it is marked as {0}")]
    Marked(&'static str),
}

impl Qcow2Error {
    /// What the user can do.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Io(_) => "look at the file and its file system",
            Self::Unsupported(_) => "convert it with 'qemu-img convert -O qcow2'",
            Self::Marked(_) | Self::Refcount(_) => "repair it with 'qemu-img check -r all'",
            _ => "examine it with 'qemu-img check', or name format=raw if it is no qcow2 image",
        }
    }
}

/// The parts of a header that matter here, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    /// Bytes of the disk.
    pub size: u64,
    pub l1_offset: u64,
    pub l1_entries: u64,
    pub refcount_offset: u64,
    pub refcount_clusters: u64,
    pub refcount_order: u32,
    pub snapshots: u32,
    pub backing: Option<Backing>,
}

/// The file below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backing {
    pub name: Vec<u8>,
    pub format: Option<Vec<u8>>,
}

/// A big-endian number at `at`; zero past the end.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..at + N).unwrap_or(&[]);
    field.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn field(ok: bool, what: &'static str, value: u64) -> Result<(), Qcow2Error> {
    if ok {
        Ok(())
    } else {
        Err(Qcow2Error::Field { what, value })
    }
}

impl Header {
    /// Bytes of a cluster.
    pub fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table.
    pub fn l2_entries(&self) -> u64 {
        self.cluster() / 8
    }

    /// L1 entries that the disk's size needs.
    pub fn l1_needed(&self) -> u64 {
        self.size.div_ceil(self.cluster() * self.l2_entries())
    }

    /// Reads and checks the header of a file of `len` bytes. Reads one cluster at most.
    /// # Errors
    /// [`Qcow2Error`].
    pub fn read(file: &File, len: u64) -> Result<Self, Qcow2Error> {
        let mut fixed = [0; 104];
        let fixed_len = len.min(104) as usize;
        file.read_exact_at(&mut fixed[..fixed_len], 0)?;
        if fixed_len < 72 || fixed[..4] != *MAGIC {
            return Err(Qcow2Error::Truncated("header"));
        }
        let version = number::<4>(&fixed, 4) as u32;
        field(matches!(version, 2 | 3), "version", version.into())?;
        let cluster_bits = number::<4>(&fixed, 20);
        field(
            (9..=21).contains(&cluster_bits),
            "cluster size",
            cluster_bits,
        )?;
        let cluster = 1u64 << cluster_bits;
        let mut bytes = vec![0; cluster.min(len) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        let header_length = if version == 2 {
            72
        } else {
            number::<4>(&bytes, 100)
        };
        if version == 3 {
            if fixed_len < 104 {
                return Err(Qcow2Error::Truncated("header"));
            }
            let ok = (104..=cluster).contains(&header_length) && header_length.is_multiple_of(8);
            field(ok, "header length", header_length)?;
            features(number::<8>(&bytes, 72), &bytes, header_length)?;
        }
        let header = Self {
            version,
            cluster_bits: cluster_bits as u32,
            size: number::<8>(&bytes, 24),
            l1_entries: number::<4>(&bytes, 36),
            l1_offset: number::<8>(&bytes, 40),
            refcount_offset: number::<8>(&bytes, 48),
            refcount_clusters: number::<4>(&bytes, 56),
            refcount_order: if version == 2 {
                4
            } else {
                number::<4>(&bytes, 96) as u32
            },
            snapshots: number::<4>(&bytes, 60) as u32,
            backing: None,
        };
        match number::<4>(&bytes, 32) {
            0 => {}
            1 | 2 => return Err(Qcow2Error::Unsupported("encryption")),
            method => field(false, "encryption method", method)?,
        }
        header.limits(len)?;
        let format = if version == 3 {
            backing_format(&bytes, header_length)?
        } else {
            None
        };
        let backing = backing(&bytes, format)?;
        Ok(Self { backing, ..header })
    }

    /// Sizes and places of the tables.
    fn limits(&self, len: u64) -> Result<(), Qcow2Error> {
        let cluster = self.cluster();
        if self.size == 0 || self.size > MAX_SIZE {
            return Err(Qcow2Error::Size(self.size));
        }
        field(
            self.refcount_order <= 6,
            "refcount width",
            self.refcount_order.into(),
        )?;
        let enough = self.l1_entries >= self.l1_needed();
        field(
            enough && self.l1_entries * 8 <= MAX_L1,
            "L1 table's size",
            self.l1_entries,
        )?;
        let place = |offset: u64, bytes: u64, what: &'static str| {
            field(
                offset >= cluster && offset.is_multiple_of(cluster),
                what,
                offset,
            )?;
            match offset.checked_add(bytes) {
                Some(end) if end <= len => Ok(()),
                _ => Err(Qcow2Error::Truncated(what)),
            }
        };
        place(self.l1_offset, self.l1_entries * 8, "L1 table")?;
        let bytes = self.refcount_clusters.saturating_mul(cluster);
        field(
            bytes > 0 && bytes <= MAX_REFCOUNT_TABLE.max(cluster),
            "refcount table's size",
            bytes,
        )?;
        place(self.refcount_offset, bytes, "refcount table")
    }
}

/// Refuses features that change what the rest means.
fn features(incompatible: u64, bytes: &[u8], header_length: u64) -> Result<(), Qcow2Error> {
    let refused = [
        (1, Qcow2Error::Marked("not closed properly")),
        (2, Qcow2Error::Marked("corrupt")),
        (4, Qcow2Error::Unsupported("an external data file")),
        (16, Qcow2Error::Unsupported("extended L2 entries")),
    ];
    for (bit, error) in refused {
        if incompatible & bit != 0 {
            return Err(error);
        }
    }
    let compression = if header_length > 104 {
        number::<1>(bytes, 104)
    } else {
        0
    };
    if incompatible & 8 != 0 || compression != 0 {
        return Err(Qcow2Error::Unsupported("clusters compressed by zstd"));
    }
    field(incompatible & !0x1f == 0, "set of features", incompatible)
}

/// The backing file's format, from the header extensions.
fn backing_format(bytes: &[u8], header_length: u64) -> Result<Option<Vec<u8>>, Qcow2Error> {
    let mut at = header_length as usize;
    // Every turn advances by eight bytes at least.
    while at + 8 <= bytes.len() {
        let (kind, len) = (number::<4>(bytes, at) as u32, number::<4>(bytes, at + 4));
        at += 8;
        if kind == 0 {
            return Ok(None);
        }
        let data = usize::try_from(len)
            .ok()
            .and_then(|len| bytes.get(at..at.checked_add(len)?));
        let data = data.ok_or(Qcow2Error::Field {
            what: "header extension's length",
            value: len,
        })?;
        if kind == EXTENSION_BACKING_FORMAT {
            return Ok(Some(data.to_vec()));
        }
        at += data.len().next_multiple_of(8);
    }
    Ok(None)
}

fn backing(bytes: &[u8], format: Option<Vec<u8>>) -> Result<Option<Backing>, Qcow2Error> {
    let (offset, len) = (number::<8>(bytes, 8), number::<4>(bytes, 16) as u32);
    if offset == 0 {
        return Ok(None);
    }
    let end = offset.checked_add(len.into());
    let name = (len > 0 && len <= MAX_NAME)
        .then_some(end)
        .flatten()
        .and_then(|end| bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?));
    let name = name.ok_or(Qcow2Error::Field {
        what: "backing file's name",
        value: offset,
    })?;
    Ok(Some(Backing {
        name: name.to_vec(),
        format,
    }))
}
