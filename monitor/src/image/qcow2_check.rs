//! A look at all tables of a qcow2 image before it is used.
//!
//! QEMU's docs/interop/qcow2.txt, "Cluster mapping" and "Host cluster management". The library that
//! reads and writes the image trusts its tables; these checks make that safe: every table and every
//! cluster lies in the file, no two tables lie upon each other, no cluster of the disk lies upon a
//! table, and (for images that are written) nothing in use is counted as free, so that a new
//! cluster never destroys an old one. Internal snapshots' own tables are protected by the counts.
//!
//! Reads the L1 table, the refcount table, each L2 table once and the refcount blocks; keeps 8 bytes
//! for each table and at most [`MAX_BLOCKS`] of refcount blocks.

use super::qcow2_header::{Header, Qcow2Error};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of refcount blocks that are kept.
const MAX_BLOCKS: usize = 32 << 20;
/// Host offsets in L1, L2 and refcount table entries.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Checks the tables of `file`, of `len` bytes. `counts`: the refcounts too.
/// # Errors
/// [`Qcow2Error`].
pub(super) fn check(
    file: &File,
    header: &Header,
    len: u64,
    counts: bool,
) -> Result<(), Qcow2Error> {
    let cluster = header.cluster();
    let l1 = table(file, header.l1_offset, header.l1_entries)?;
    let refcounts = table(
        file,
        header.refcount_offset,
        header.refcount_clusters * cluster / 8,
    )?;
    let mut tables = vec![0];
    let mut add = |offset: u64, clusters: u64| {
        tables.extend((0..clusters).map(|i| offset / cluster + i));
    };
    add(header.l1_offset, (header.l1_entries * 8).div_ceil(cluster));
    add(header.refcount_offset, header.refcount_clusters);
    for &entry in refcounts.iter().filter(|e| **e != 0) {
        place(entry, OFFSET, header, len, cluster, "refcount block")?;
        add(entry, 1);
    }
    for &entry in l1.iter().filter(|e| **e & !(1 << 63) != 0) {
        let offset = entry & OFFSET;
        place(entry, OFFSET | 1 << 63, header, len, cluster, "L2 table")?;
        add(offset, 1);
    }
    tables.sort_unstable();
    if tables.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Qcow2Error::Overlap("tables"));
    }
    let mut counts = counts.then(|| Refcounts::new(file, header, refcounts));
    if let Some(counts) = &mut counts {
        for &table in &tables {
            counts.used(table)?;
        }
    }
    let check = ClusterCheck {
        header,
        len,
        tables: &tables,
    };
    for &entry in l1.iter().take(header.l1_needed() as usize) {
        if entry & OFFSET == 0 {
            continue;
        }
        for entry in table(file, entry & OFFSET, header.l2_entries())? {
            check.entry(entry, counts.as_mut())?;
        }
    }
    Ok(())
}

/// A table of big-endian words.
fn table(file: &File, offset: u64, entries: u64) -> Result<Vec<u64>, Qcow2Error> {
    let mut bytes = vec![0; entries as usize * 8];
    file.read_exact_at(&mut bytes, offset)?;
    let word = |b: &[u8]| b.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    Ok(bytes.chunks_exact(8).map(word).collect())
}

/// Checks where a table entry points. `allowed`: the bits that it may have.
fn place(
    entry: u64,
    allowed: u64,
    header: &Header,
    len: u64,
    bytes: u64,
    what: &'static str,
) -> Result<(), Qcow2Error> {
    let offset = entry & OFFSET;
    let cluster = header.cluster();
    if entry & !allowed != 0 || offset == 0 || !offset.is_multiple_of(cluster) {
        return Err(Qcow2Error::Field { what, value: entry });
    }
    match offset.checked_add(bytes) {
        Some(end) if end <= len => Ok(()),
        _ => Err(Qcow2Error::Truncated(what)),
    }
}

/// Checks of L2 entries.
struct ClusterCheck<'a> {
    header: &'a Header,
    len: u64,
    /// Clusters that hold tables, ascending.
    tables: &'a [u64],
}

impl ClusterCheck<'_> {
    fn entry(&self, entry: u64, counts: Option<&mut Refcounts<'_>>) -> Result<(), Qcow2Error> {
        const WHAT: &str = "data cluster";
        let bits = self.header.cluster_bits;
        let clusters = if entry & 1 << 62 != 0 {
            // Bits 0 to x-1: host offset; x to 61: sectors beyond the first.
            let x = 62 - (bits - 8);
            let offset = entry & ((1 << x) - 1);
            let sectors = (entry & ((1 << 62) - 1)) >> x;
            if entry & 1 << 63 != 0 {
                return Err(Qcow2Error::Field {
                    what: WHAT,
                    value: entry,
                });
            }
            // The count of sectors is an upper bound: the last may reach past the file's end.
            if offset >= self.len {
                return Err(Qcow2Error::Truncated(WHAT));
            }
            let last = ((offset | 0x1ff) + sectors * 512).min(self.len - 1);
            offset >> bits..=last >> bits
        } else if entry & OFFSET == 0 {
            let zero = u64::from(self.header.version >= 3);
            if entry & !zero != 0 {
                return Err(Qcow2Error::Field {
                    what: WHAT,
                    value: entry,
                });
            }
            return Ok(());
        } else {
            let zero = u64::from(self.header.version >= 3);
            // A cluster that reads as zeros may be reserved beyond the file's end.
            let bytes = if entry & zero != 0 { 0 } else { 1 };
            let len = if bytes == 0 { u64::MAX } else { self.len };
            place(
                entry,
                OFFSET | 1 << 63 | zero,
                self.header,
                len,
                bytes,
                WHAT,
            )?;
            let cluster = (entry & OFFSET) >> bits;
            cluster..=cluster
        };
        // Compressed clusters span two clusters at most, for they are smaller than one.
        let (first, last) = clusters.into_inner();
        let table = self.tables.partition_point(|t| *t < first);
        if self.tables.get(table).is_some_and(|t| *t <= last) {
            return Err(Qcow2Error::Overlap(WHAT));
        }
        if let Some(counts) = counts {
            for cluster in first..=last {
                counts.used(cluster)?;
            }
        }
        Ok(())
    }
}

/// Refcounts, read as they are needed.
struct Refcounts<'a> {
    file: &'a File,
    table: Vec<u64>,
    blocks: HashMap<u64, Vec<u8>>,
    cluster_bits: u32,
    order: u32,
}

impl<'a> Refcounts<'a> {
    fn new(file: &'a File, header: &Header, table: Vec<u64>) -> Self {
        Self {
            file,
            table,
            blocks: HashMap::new(),
            cluster_bits: header.cluster_bits,
            order: header.refcount_order,
        }
    }

    /// Fails if `cluster` is counted as free.
    fn used(&mut self, cluster: u64) -> Result<(), Qcow2Error> {
        let free = Qcow2Error::Refcount(cluster << self.cluster_bits);
        // Entries of a block, as a power of two.
        let entries = self.cluster_bits + 3 - self.order;
        let offset = usize::try_from(cluster >> entries)
            .ok()
            .and_then(|i| self.table.get(i).copied())
            .filter(|offset| *offset != 0);
        let Some(offset) = offset else {
            return Err(free);
        };
        let size = 1usize << self.cluster_bits;
        if !self.blocks.contains_key(&offset) {
            if self.blocks.len() * size >= MAX_BLOCKS {
                self.blocks.clear();
            }
            let mut block = vec![0; size];
            self.file.read_exact_at(&mut block, offset)?;
            self.blocks.insert(offset, block);
        }
        let block = &self.blocks[&offset];
        let index = (cluster & ((1 << entries) - 1)) as usize;
        let counted = if self.order < 3 {
            let bit = index << self.order;
            block[bit / 8] >> (bit % 8) & ((1u16 << (1 << self.order)) - 1) as u8 != 0
        } else {
            let bytes = 1 << (self.order - 3);
            block[index * bytes..(index + 1) * bytes]
                .iter()
                .any(|b| *b != 0)
        };
        if counted { Ok(()) } else { Err(free) }
    }
}
