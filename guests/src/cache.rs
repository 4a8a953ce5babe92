//! Where fetched and built files are kept, and the record of their checksums.
//!
//! Everything lives under one directory that may be deleted at any time. `fetched.json` there
//! says for each package which file was fetched and its SHA-256; a file is checked against it
//! whenever it is used, so that a truncated or altered image is never booted. A lock on the
//! directory lets several programs fetch at once.

use crate::GuestError;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The cache directory, locked for this process until dropped.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    record: Record,
    _lock: Flock<File>,
}

/// What `fetched.json` holds: recorded files by their path below the cache directory.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    files: BTreeMap<String, Recorded>,
}

/// A file that was fetched or unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// What it answers: the recipe's package pattern, or the package and path that it was
    /// unpacked from.
    pub key: String,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// The package's name and version, for people.
    pub origin: String,
}

impl Cache {
    /// The directory that the environment names: `RING3_CACHE`, or `ring3` below
    /// `XDG_CACHE_HOME`, or `~/.cache/ring3`.
    ///
    /// # Errors
    /// [`GuestError::NoCacheDirectory`] when none of the variables is set.
    pub fn default_root() -> Result<PathBuf, GuestError> {
        let var = |name| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        var("RING3_CACHE")
            .or_else(|| var("XDG_CACHE_HOME").map(|d| d.join("ring3")))
            .or_else(|| var("HOME").map(|d| d.join(".cache/ring3")))
            .ok_or(GuestError::NoCacheDirectory)
    }

    /// Opens (creating it where needed) and locks the cache below `root`; waits for another
    /// program that holds it, and says so on standard error.
    ///
    /// # Errors
    /// [`GuestError::File`] when the directory or its record cannot be used.
    pub fn open(root: &Path) -> Result<Self, GuestError> {
        fs::create_dir_all(root).map_err(GuestError::file("create", root))?;
        // apt and the boot commands need names that do not depend on the current directory.
        let root = fs::canonicalize(root).map_err(GuestError::file("resolve", root))?;
        let path = root.join("lock");
        let file = File::create(&path).map_err(GuestError::file("create", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .or_else(|(file, errno)| {
                if errno == Errno::EWOULDBLOCK {
                    eprintln!(
                        "ring3: waiting for another program that uses {}",
                        root.display()
                    );
                }
                Flock::lock(file, FlockArg::LockExclusive)
            })
            .map_err(|(_, errno)| GuestError::file("lock", &path)(errno.into()))?;
        let path = root.join("fetched.json");
        let record = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| GuestError::file("understand", &path)(e.into()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Record::default(),
            Err(e) => return Err(GuestError::file("read", &path)(e)),
        };
        Ok(Self {
            root,
            record,
            _lock: lock,
        })
    }

    /// The cache directory, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A directory below the cache, created where needed.
    ///
    /// # Errors
    /// [`GuestError::File`] when it cannot be created.
    pub fn directory(&self, name: &str) -> Result<PathBuf, GuestError> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(GuestError::file("create", &path))?;
        Ok(path)
    }

    /// Records the file `name` (relative to the cache) under `key`, replacing what was there.
    ///
    /// # Errors
    /// [`GuestError::File`] when the file cannot be read or the record not written.
    pub fn record(&mut self, name: &str, key: &str, origin: &str) -> Result<PathBuf, GuestError> {
        let path = self.root.join(name);
        let sha256 = sha256_of(&path)?;
        self.record.files.retain(|_, r| r.key != key);
        let recorded = Recorded {
            key: key.into(),
            sha256,
            origin: origin.into(),
        };
        self.record.files.insert(name.into(), recorded);
        let text = serde_json::to_vec_pretty(&self.record)
            .map_err(|e| GuestError::file("write", self.root.join("fetched.json"))(e.into()))?;
        write_whole(&self.root.join("fetched.json"), &text)?;
        Ok(path)
    }

    /// The file recorded under `key`, after checking its digest; `None` when there is none or
    /// it was deleted since.
    ///
    /// # Errors
    /// [`GuestError::Checksum`] when the file is not what was recorded.
    pub fn lookup(&self, key: &str) -> Result<Option<(PathBuf, Recorded)>, GuestError> {
        let Some((name, recorded)) = self.record.files.iter().find(|(_, r)| r.key == key) else {
            return Ok(None);
        };
        let path = self.root.join(name);
        if !path.exists() {
            return Ok(None);
        }
        let found = sha256_of(&path)?;
        if found != recorded.sha256 {
            return Err(GuestError::Checksum {
                path,
                expected: recorded.sha256.clone(),
                found,
            });
        }
        Ok(Some((path, recorded.clone())))
    }
}

/// The SHA-256 of a file in lower-case hexadecimal.
///
/// # Errors
/// [`GuestError::File`] when it cannot be read.
pub fn sha256_of(path: &Path) -> Result<String, GuestError> {
    let mut file = File::open(path).map_err(GuestError::file("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = file
            .read(&mut buffer)
            .map_err(GuestError::file("read", path))?;
        if n == 0 {
            return Ok(hexadecimal(&hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Writes a file so that a reader sees the old or the new content and nothing between.
///
/// # Errors
/// [`GuestError::File`] when it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), GuestError> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial).map_err(GuestError::file("create", &partial))?;
    file.write_all(bytes)
        .map_err(GuestError::file("write", &partial))?;
    fs::rename(&partial, path).map_err(GuestError::file("replace", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_file_is_found_again_with_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        {
            let mut cache = Cache::open(dir.path()).unwrap();
            fs::write(cache.root().join("a"), b"abc").unwrap();
            cache.record("a", "key", "origin 1").unwrap();
        }
        let cache = Cache::open(dir.path()).unwrap();
        let (path, recorded) = cache.lookup("key").unwrap().unwrap();
        assert_eq!(path, cache.root().join("a"));
        assert_eq!(recorded.origin, "origin 1");
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            recorded.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(cache.lookup("other").unwrap().is_none());
    }

    #[test]
    fn an_altered_file_is_refused_and_a_deleted_one_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(dir.path()).unwrap();
        let file = cache.root().join("a");
        fs::write(&file, b"abc").unwrap();
        cache.record("a", "key", "").unwrap();
        fs::write(&file, b"abd").unwrap();
        let error = cache.lookup("key").unwrap_err();
        assert!(matches!(error, GuestError::Checksum { .. }), "{error}");
        fs::remove_file(&file).unwrap();
        assert!(cache.lookup("key").unwrap().is_none());
    }
}
