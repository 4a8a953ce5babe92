//! Programs that build images, from Debian packages of the host's own architecture.
//!
//! They are unpacked below the cache directory and run from there: nothing is installed.

use crate::GuestError;
use crate::fetch::Fetcher;
use crate::image::Refresh;
use crate::recipe::{Package, SUITES};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a program needs: packages beyond those that every Debian system has.
const XORRISO: &[&str] = &[
    "xorriso",
    "libisoburn1",
    "libisofs6",
    "libburn4",
    "libjte2",
    "libreadline8",
];
const MTOOLS: &[&str] = &["mtools"];
/// Its installer copies by mtools.
const SYSLINUX: &[&str] = &["syslinux", "mtools"];

/// A program that builds images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// ISO 9660.
    Xorriso,
    /// Makes a FAT file system.
    Mformat,
    /// Makes a directory on it.
    Mmd,
    /// Copies a file onto it.
    Mcopy,
    /// Makes it bootable.
    Syslinux,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Xorriso => "xorriso",
            Self::Mformat => "mformat",
            Self::Mmd => "mmd",
            Self::Mcopy => "mcopy",
            Self::Syslinux => "syslinux",
        }
    }

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Xorriso => XORRISO,
            Self::Mformat | Self::Mmd | Self::Mcopy => MTOOLS,
            Self::Syslinux => SYSLINUX,
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`GuestError`] when it cannot be fetched, or does not end with success.
    pub fn run(
        self,
        cache: &mut crate::cache::Cache,
        arguments: &[OsString],
    ) -> Result<(), GuestError> {
        let failed = |reason: String| GuestError::Program {
            program: self.name(),
            reason,
        };
        let roots = unpacked(cache, self.packages())?;
        let join = |below: &dyn Fn(&Path) -> Vec<PathBuf>, last: Option<OsString>| {
            let mut all: Vec<PathBuf> = roots.iter().flat_map(|r| below(r)).collect();
            all.extend(last.iter().flat_map(std::env::split_paths));
            std::env::join_paths(all).map_err(|e| failed(e.to_string()))
        };
        let path = join(&|root| vec![root.join("usr/bin")], std::env::var_os("PATH"))?;
        let libraries = join(
            &|root| {
                let places = [root.join("usr/lib"), root.join("lib")];
                let inner = places
                    .iter()
                    .flat_map(|p| fs::read_dir(p).into_iter().flatten());
                inner.flatten().map(|entry| entry.path()).collect()
            },
            std::env::var_os("LD_LIBRARY_PATH"),
        )?;
        let program = roots
            .iter()
            .map(|root| root.join("usr/bin").join(self.name()))
            .find(|p| p.exists())
            .ok_or_else(|| failed("its package does not have it".into()))?;
        let output = Command::new(program)
            .args(arguments)
            .env("PATH", path)
            .env("LD_LIBRARY_PATH", libraries)
            .env("LC_ALL", "C")
            // mtools would refuse geometries of its own configuration, xorriso would write today.
            .env("MTOOLS_SKIP_CHECK", "1")
            .env("SOURCE_DATE_EPOCH", "1000000000")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| failed(e.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(4)..].join("; ");
        Err(failed(format!("{last} ({})", output.status)))
    }
}

/// The directories into which the packages are unpacked.
fn unpacked(
    cache: &mut crate::cache::Cache,
    packages: &[&str],
) -> Result<Vec<PathBuf>, GuestError> {
    let architecture = host_architecture()?;
    let directory = cache.directory("tools")?;
    let suites = SUITES.map(String::from);
    let mut fetcher = Fetcher::new(cache, &suites, &architecture, Refresh::IfMissing);
    let mut roots = Vec::new();
    for name in packages {
        let wanted = Package {
            names: vec![(*name).into()],
            version: String::new(),
            path: String::new(),
        };
        let (package, _) = fetcher.package(&wanted)?;
        let root = directory.join(package.file_stem().unwrap_or_default());
        if !root.exists() {
            let partial = directory.join("partial");
            if partial.exists() {
                fs::remove_dir_all(&partial).map_err(GuestError::file("empty", &partial))?;
            }
            let arguments: [&std::ffi::OsStr; 3] =
                ["-x".as_ref(), package.as_os_str(), partial.as_os_str()];
            let status = Command::new("dpkg-deb").args(arguments).status();
            if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
                return Err(GuestError::Program {
                    program: "dpkg-deb",
                    reason: format!("it does not unpack {}", package.display()),
                });
            }
            fs::rename(&partial, &root).map_err(GuestError::file("write", &root))?;
        }
        roots.push(root);
    }
    Ok(roots)
}

fn host_architecture() -> Result<String, GuestError> {
    let failed = |reason| GuestError::Program {
        program: "dpkg",
        reason,
    };
    let output = Command::new("dpkg")
        .arg("--print-architecture")
        .output()
        .map_err(|e| failed(e.to_string()))?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if name.is_empty() {
        return Err(failed("it does not know the architecture".into()));
    }
    Ok(name)
}
