//! The initial file system of the Linux guests: a static busybox and an `/init` script.

use crate::cpio::Archive;
use flate2::{Compression, write::GzEncoder};
use std::io::Write;

/// What goes into an initramfs.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// A statically linked busybox for the guest's architecture.
    pub busybox: &'a [u8],
    /// The `/init` script.
    pub init: &'a str,
    /// A script put at `/workload`, for an init that runs one.
    pub workload: Option<&'a str>,
    /// Programs put in `/bin`: their names and contents.
    pub programs: &'a [(String, Vec<u8>)],
}

/// Builds the gzipped cpio archive. The same contents give the same bytes.
///
/// The links to the other applets are made by `/init` itself (`busybox --install`), which knows
/// what this busybox was built with.
///
/// # Errors
/// Only if compressing into memory fails.
pub fn build(contents: &Contents<'_>) -> std::io::Result<Vec<u8>> {
    let mut archive = Archive::new();
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        archive.directory(directory);
    }
    // The kernel opens /dev/console for init before anything can mount devtmpfs.
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.character_device("dev/null", 0o666, 1, 3);
    archive.character_device("dev/ttyS0", 0o600, 4, 64);
    archive.file("bin/busybox", 0o755, contents.busybox);
    archive.symlink("bin/sh", "busybox");
    archive.file("init", 0o755, contents.init.as_bytes());
    for (name, program) in contents.programs {
        archive.file(&format!("bin/{name}"), 0o755, program);
    }
    if let Some(workload) = contents.workload {
        archive.file("workload", 0o755, workload.as_bytes());
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::new(6));
    packed.write_all(&archive.finish())?;
    packed.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_archive_unpacks_to_what_was_given() {
        let contents = Contents {
            busybox: b"ELF",
            init: "#!/bin/busybox sh\n",
            workload: Some("true\n"),
            programs: &[("prog".into(), b"ELF too".to_vec())],
        };
        let packed = build(&contents).unwrap();
        assert_eq!(packed, build(&contents).unwrap(), "not reproducible");
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&packed[..])
            .read_to_end(&mut plain)
            .unwrap();
        for needle in [
            &b"bin/busybox\0"[..],
            b"#!/bin/busybox sh\n",
            b"bin/prog\0",
            b"workload\0",
            b"dev/console\0",
            b"TRAILER!!!",
        ] {
            assert!(plain.windows(needle.len()).any(|w| w == needle));
        }
    }
}
