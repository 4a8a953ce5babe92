//! Writer of "newc" cpio archives, the form of Linux's initramfs
//! (kernel documentation, driver-api/early-userspace/buffer-format).
//!
//! Left out: hard links and checksums (the kernel ignores the latter).

/// An archive under construction. Nothing in it depends on time, user or machine.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

impl Archive {
    /// An archive with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory. Parents come first, paths have no leading slash.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[], (0, 0));
    }

    /// Adds a regular file with these permission bits.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, REGULAR | permissions & 0o7777, content, (0, 0));
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK | 0o777, target.as_bytes(), (0, 0));
    }

    /// Adds a character device node.
    pub fn character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.entry(path, CHARACTER | permissions & 0o7777, &[], (major, minor));
    }

    /// The archive with its trailer.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entries = u32::MAX; // the trailer's inode number wraps to 0
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.entries = self.entries.wrapping_add(1);
        let links = if mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            content.len() as u32,
            0,
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, mode, device and content of an entry.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads an archive back by the format's description.
    fn read(mut bytes: &[u8]) -> Vec<Entry> {
        let mut all = Vec::new();
        let mut offset = 0;
        loop {
            let field = |i: usize| {
                let at = 6 + 8 * i;
                u32::from_str_radix(std::str::from_utf8(&bytes[at..at + 8]).unwrap(), 16).unwrap()
            };
            assert_eq!(&bytes[..6], b"070701");
            let (mode, size, rdev, name_size) = (
                field(1),
                field(6) as usize,
                (field(9), field(10)),
                field(11) as usize,
            );
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let data = (offset + 110 + name_size).next_multiple_of(4) - offset;
            let next = (offset + data + size).next_multiple_of(4) - offset;
            if name == "TRAILER!!!" {
                assert_eq!(next, bytes.len());
                return all;
            }
            all.push((name, mode, rdev, bytes[data..data + size].to_vec()));
            offset += next;
            bytes = &bytes[next..];
        }
    }

    #[test]
    fn every_kind_of_entry_reads_back() {
        let mut archive = Archive::new();
        archive.directory("dev");
        archive.character_device("dev/ttyS0", 0o600, 4, 64);
        archive.file("init", 0o755, b"hello");
        archive.symlink("sh", "busybox");
        let entries = read(&archive.finish());
        let expected = [
            ("dev", 0o040_755, (0, 0), &b""[..]),
            ("dev/ttyS0", 0o020_600, (4, 64), b""),
            ("init", 0o100_755, (0, 0), b"hello"),
            ("sh", 0o120_777, (0, 0), b"busybox"),
        ];
        assert_eq!(entries.len(), expected.len());
        for (entry, want) in entries.iter().zip(expected) {
            assert_eq!(
                (entry.0.as_str(), entry.1, entry.2, entry.3.as_slice()),
                want
            );
        }
    }
}
