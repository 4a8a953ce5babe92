//! Single files of Debian packages, by the cache's record or by apt.

use crate::GuestError;
use crate::cache::{Cache, write_whole};
use crate::debian::{Apt, unpack};
use crate::image::Refresh;
use crate::recipe::Package;
use std::path::PathBuf;

/// Fetches what is missing.
pub(crate) struct Fetcher<'a> {
    pub cache: &'a mut Cache,
    pub suites: &'a [String],
    pub architecture: &'a str,
    pub refresh: Refresh,
    apt: Option<Apt>,
}

impl<'a> Fetcher<'a> {
    /// Fetches into `cache`, from these suites.
    pub fn new(
        cache: &'a mut Cache,
        suites: &'a [String],
        architecture: &'a str,
        refresh: Refresh,
    ) -> Self {
        Self {
            cache,
            suites,
            architecture,
            refresh,
            apt: None,
        }
    }

    /// The package file of the newest package that fits, and its name and version.
    pub fn package(&mut self, package: &Package) -> Result<(PathBuf, String), GuestError> {
        let key = self.package_key(package);
        if self.refresh == Refresh::IfMissing
            && let Some((path, recorded)) = self.cache.lookup(&key)?
        {
            return Ok((path, recorded.origin));
        }
        self.download(package, &key)
    }

    fn package_key(&self, package: &Package) -> String {
        format!("{} {}", self.architecture, package.names.join(" or "))
    }

    /// The file that `package` describes, unpacked, and where it is from.
    pub fn file(&mut self, package: &Package) -> Result<(PathBuf, String), GuestError> {
        let deb_key = self.package_key(package);
        let file_key = format!("{deb_key}: {}", package.path);
        if self.refresh == Refresh::IfMissing
            && self.cache.lookup(&deb_key)?.is_some()
            && let Some((path, recorded)) = self.cache.lookup(&file_key)?
        {
            return Ok((path, recorded.origin));
        }
        let (deb, origin) = self.package(package)?;
        let content = unpack(&deb, &package.path)?;
        self.cache.directory("files")?;
        let stem = deb.file_stem().unwrap_or_default().to_string_lossy();
        // The whole path: two files of a package may have the same name.
        let place = package.path.trim_end_matches('-').replace('/', "-");
        let name = format!("files/{stem}-{place}");
        write_whole(&self.cache.root().join(&name), &content)?;
        let path = self.cache.record(&name, &file_key, &origin)?;
        Ok((path, origin))
    }

    fn download(&mut self, package: &Package, key: &str) -> Result<(PathBuf, String), GuestError> {
        let apt = match &mut self.apt {
            Some(apt) => apt,
            none => none.insert(Apt::new(self.cache, self.architecture, self.suites)?),
        };
        let (name, version) = apt.resolve(package)?;
        let origin = format!("{name} {version}");
        let file = apt.download(self.cache, &name, &version)?;
        let path = self.cache.record(&file, key, &origin)?;
        Ok((path, origin))
    }
}
