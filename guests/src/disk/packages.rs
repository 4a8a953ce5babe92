//! The packages of a disk: all that the wanted ones depend on, at one version each, kept with
//! their checksums, and offered to mmdebstrap as a repository of their own.

use crate::GuestError;
use crate::cache::{Cache, hexadecimal, sha256_of, write_whole};
use crate::debian::Apt;
use crate::image::Refresh;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The package files by name, each with its SHA-256.
pub(super) struct Set {
    files: Vec<(String, String)>,
    architecture: String,
    suites: Vec<String>,
}

impl Set {
    /// The set that was used last for these packages; the newest where there is none or a refresh
    /// is asked for.
    pub fn of(
        cache: &mut Cache,
        architecture: &str,
        suites: &[String],
        wanted: &[String],
        refresh: Refresh,
    ) -> Result<Self, GuestError> {
        let question = format!("{} {}", suites.join(" "), wanted.join(" "));
        let digest = &hexadecimal(&Sha256::digest(&question))[..16];
        let key = format!("{architecture} packages {digest}");
        let mut set = Self {
            files: Vec::new(),
            architecture: architecture.into(),
            suites: suites.to_vec(),
        };
        if refresh == Refresh::IfMissing
            && let Some((path, _)) = cache.lookup(&key)?
        {
            let text = fs::read_to_string(&path).map_err(GuestError::file("read", &path))?;
            set.files = text
                .lines()
                .filter_map(|l| l.split_once("  "))
                .map(|(sha256, name)| (name.into(), sha256.into()))
                .collect();
            return Ok(set);
        }
        let directory = cache.directory("packages")?;
        for name in download(
            &mut Apt::new(cache, architecture, suites)?,
            &directory,
            wanted,
        )? {
            let digest = sha256_of(&directory.join(&name))?;
            set.files.push((name, digest));
        }
        set.files.sort();
        let name = format!("packages/{digest}.sha256");
        write_whole(&cache.root().join(&name), set.manifest().as_bytes())?;
        cache.record(&name, &key, &wanted.join(" "))?;
        Ok(set)
    }

    /// How many packages there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Checksums and names as `sha256sum` writes them.
    pub fn manifest(&self) -> String {
        self.files
            .iter()
            .map(|(name, sha256)| format!("{sha256}  {name}\n"))
            .collect()
    }

    /// Fetches those that have gone from the cache, and checks all.
    pub fn fetch(&mut self, cache: &Cache) -> Result<(), GuestError> {
        let directory = cache.directory("packages")?;
        let mut apt = None;
        for (name, expected) in &self.files {
            let path = directory.join(name);
            if !path.exists() {
                let apt = match &mut apt {
                    Some(apt) => apt,
                    none => none.insert(Apt::new(cache, &self.architecture, &self.suites)?),
                };
                let mut parts = name.splitn(3, '_');
                let package = parts.next().unwrap_or_default();
                let version = parts.next().unwrap_or_default().replace("%3a", ":");
                apt.download(cache, package, &version)?;
            }
            let found = sha256_of(&path)?;
            if found != *expected {
                return Err(GuestError::Checksum {
                    path,
                    expected: expected.clone(),
                    found,
                });
            }
        }
        Ok(())
    }

    /// Copies them into `directory` with an index by which apt finds them.
    pub fn repository(&self, cache: &Cache, directory: &Path) -> Result<(), GuestError> {
        fs::create_dir(directory).map_err(GuestError::file("create", directory))?;
        let mut index = String::new();
        for (name, sha256) in &self.files {
            let from = cache.root().join("packages").join(name);
            // apt decodes percent signs in names.
            let place = name.replace('%', "_");
            let to = directory.join(&place);
            let size = fs::copy(&from, &to).map_err(GuestError::file("copy", &from))?;
            let output = Command::new("dpkg-deb")
                .arg("--field")
                .arg(&from)
                .output()
                .map_err(|e| GuestError::Program {
                    program: "dpkg-deb",
                    reason: e.to_string(),
                })?;
            if !output.status.success() {
                return Err(GuestError::Program {
                    program: "dpkg-deb",
                    reason: format!("{} is no package", from.display()),
                });
            }
            index.push_str(String::from_utf8_lossy(&output.stdout).trim_end());
            index.push_str(&format!(
                "\nFilename: ./{place}\nSize: {size}\nSHA256: {sha256}\n\n"
            ));
        }
        write_whole(&directory.join("Packages"), index.as_bytes())
    }
}

/// Downloads what an empty system would install for the packages `wanted`, essential ones
/// included; apt verifies it. The names of the files.
fn download(apt: &mut Apt, directory: &Path, wanted: &[String]) -> Result<Vec<String>, GuestError> {
    let update = apt.update();
    // apt adds file names to this without a separator of its own.
    let archives = format!("Dir::Cache::archives={}/", directory.display());
    let partial = directory.join("partial");
    fs::create_dir_all(&partial).map_err(GuestError::file("create", partial))?;
    let mut arguments = vec![
        "--yes",
        "--quiet",
        "--no-install-recommends",
        "--option",
        &archives,
        "--option",
        "Binary::apt-get::APT::Keep-Downloaded-Packages=true",
        "install",
        "?essential",
        "apt",
    ];
    arguments.extend(wanted.iter().map(String::as_str));
    let simulate = [&["--simulate"], &arguments[..]].concat();
    // A mirror that fails does not matter as long as the others have everything.
    let plan = match (apt.run("apt-get", &simulate), update) {
        (Ok(plan), _) => plan,
        (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
    };
    apt.run("apt-get", &[&["--download-only"], &arguments[..]].concat())?;
    Ok(plan.lines().filter_map(installed_file).collect())
}

/// The file of a line such as `Inst libc6 (2.36-9 Debian:12.11/stable [i386])`.
fn installed_file(line: &str) -> Option<String> {
    let rest = line.strip_prefix("Inst ")?;
    let (name, rest) = rest.split_once(' ')?;
    let (version, rest) = rest.split_once('(')?.1.split_once(' ')?;
    let architecture = rest.split_once('[')?.1.split_once(']')?.0;
    let version = version.replace(':', "%3a");
    Some(format!("{name}_{version}_{architecture}.deb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_apt_names_them() {
        assert_eq!(
            installed_file("Inst libc6 (2.36-9+deb12u10 Debian:12.11/stable [i386]) []").unwrap(),
            "libc6_2.36-9+deb12u10_i386.deb"
        );
        assert_eq!(
            installed_file("Inst gcc (4:12.2.0-3 Debian:12.11/stable, x [all])").unwrap(),
            "gcc_4%3a12.2.0-3_all.deb"
        );
        assert!(installed_file("Conf libc6 (2.36-9 Debian:12.11/stable [i386])").is_none());
    }
}
