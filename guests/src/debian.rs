//! Debian packages for another architecture, without installing anything.
//!
//! apt works in a private root below the cache directory: its own configuration, package lists
//! and (empty) status file, with the guest's architecture. The system's mirrors and keyrings are
//! used, so apt verifies signatures as it does for the system; nothing of the system's package
//! state is read or changed, and no privilege is needed.

use crate::GuestError;
use crate::cache::{Cache, write_whole};
use crate::recipe::Package;
use std::cmp::Ordering;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
const DEFAULT_SECURITY: &str = "http://deb.debian.org/debian-security";
const DEFAULT_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A private apt root for one architecture.
#[derive(Debug)]
pub struct Apt {
    root: PathBuf,
    config: PathBuf,
    architecture: String,
    updated: bool,
}

impl Apt {
    /// Sets up the root below the cache directory for these suites.
    ///
    /// # Errors
    /// [`GuestError::File`] when the directories cannot be written.
    pub fn new(cache: &Cache, architecture: &str, suites: &[String]) -> Result<Self, GuestError> {
        let root = cache.directory(&format!("apt-{architecture}"))?;
        for name in ["lists/partial", "archives/partial", "sources"] {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(GuestError::file("create", path))?;
        }
        write_whole(&root.join("status"), b"")?;
        let sources = sources_text(&Mirrors::of_system(Path::new("/etc/apt")), suites);
        write_whole(&root.join("sources/debian.sources"), sources.as_bytes())?;
        let config = root.join("apt.conf");
        write_whole(&config, config_text(&root, architecture).as_bytes())?;
        Ok(Self {
            root,
            config,
            architecture: architecture.into(),
            updated: false,
        })
    }

    /// The newest package that fits: its name and version. Package lists are brought up to date
    /// first, once per `Apt`.
    ///
    /// # Errors
    /// [`GuestError::Program`] when apt fails, [`GuestError::NoPackage`] when nothing fits.
    pub fn resolve(&mut self, package: &Package) -> Result<(String, String), GuestError> {
        let update = self.update();
        let mut best: Option<(usize, String, String)> = None;
        for name in self.run("apt-cache", &["pkgnames"])?.lines() {
            let Some(rank) = package.rank(name) else {
                continue;
            };
            // madison's rows: name | version | source; the newest version comes first.
            let table = self.run("apt-cache", &["madison", name])?;
            let Some(version) = table
                .lines()
                .filter_map(|l| l.split('|').nth(1))
                .map(str::trim)
                .find(|v| {
                    v.split_once(':')
                        .map_or(*v, |(_, rest)| rest)
                        .starts_with(&package.version)
                })
            else {
                continue;
            };
            let better = best.as_ref().is_none_or(|(r, n, _)| {
                rank.cmp(r).then_with(|| natural_order(n, name)) == Ordering::Less
            });
            if better {
                best = Some((rank, name.into(), version.into()));
            }
        }
        match best {
            Some((_, name, version)) => Ok((name, version)),
            // One broken mirror does not matter as long as the others have the package.
            None => Err(update.err().unwrap_or_else(|| GuestError::NoPackage {
                pattern: package.names.join(" or "),
                version: package.version.clone(),
                architecture: self.architecture.clone(),
            })),
        }
    }

    /// Downloads one package (apt verifies it) and moves it to `packages/` in the cache; gives
    /// its name relative to the cache directory.
    ///
    /// # Errors
    /// [`GuestError::Program`] when apt fails, [`GuestError::File`].
    pub fn download(&self, cache: &Cache, name: &str, version: &str) -> Result<String, GuestError> {
        let temporary = self.root.join("download");
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(GuestError::file("empty", &temporary))?;
        }
        fs::create_dir_all(&temporary).map_err(GuestError::file("create", &temporary))?;
        self.run_in(
            &temporary,
            "apt-get",
            &["download", "-q", &format!("{name}={version}")],
        )?;
        let packages = cache.directory("packages")?;
        let entries = fs::read_dir(&temporary).map_err(GuestError::file("read", &temporary))?;
        for entry in entries.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.ends_with(".deb") {
                let target = packages.join(&file);
                fs::rename(entry.path(), &target).map_err(GuestError::file("write", &target))?;
                return Ok(format!("packages/{file}"));
            }
        }
        Err(GuestError::Program {
            program: "apt-get",
            reason: format!("it left no package file for {name}"),
        })
    }

    /// Brings the package lists up to date, once.
    ///
    /// # Errors
    /// [`GuestError::Program`] when a mirror fails. The others' lists are there all the same.
    pub fn update(&mut self) -> Result<(), GuestError> {
        if std::mem::replace(&mut self.updated, true) {
            return Ok(());
        }
        self.run("apt-get", &["update", "-q"]).map(drop)
    }

    /// Runs `apt-get` or `apt-cache` in the private root; its output.
    pub(crate) fn run(
        &self,
        program: &'static str,
        arguments: &[&str],
    ) -> Result<String, GuestError> {
        self.run_in(&self.root, program, arguments)
    }

    fn run_in(
        &self,
        directory: &Path,
        program: &'static str,
        arguments: &[&str],
    ) -> Result<String, GuestError> {
        let output = Command::new(program)
            .arg("-c")
            .arg(&self.config)
            .args(arguments)
            .current_dir(directory)
            .env("LC_ALL", "C")
            .env_remove("APT_CONFIG")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| GuestError::Program {
                program,
                reason: e.to_string(),
            })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<_> = words
            .lines()
            .filter(|l| l.starts_with("E:"))
            .take(3)
            .collect();
        Err(GuestError::Program {
            program,
            reason: format!("{} ({})", errors.join(" "), output.status),
        })
    }
}

/// Takes the one file whose path begins with `path` out of a package.
///
/// # Errors
/// [`GuestError::Program`] when `dpkg-deb` or `tar` fails; [`GuestError::NotInPackage`].
pub fn unpack(package: &Path, path: &str) -> Result<Vec<u8>, GuestError> {
    let failed = |program| {
        move |e: std::io::Error| GuestError::Program {
            program,
            reason: e.to_string(),
        }
    };
    let mut tar_file = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        // tar may stop reading early, of which dpkg-deb would complain.
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed("dpkg-deb"))?;
    let Some(stdout) = tar_file.stdout.take() else {
        return Err(GuestError::Program {
            program: "dpkg-deb",
            reason: "it has no output".into(),
        });
    };
    let output = Command::new("tar")
        .args(["--extract", "--to-stdout", "--wildcards", "--file=-"])
        .arg(format!("./{path}*"))
        .stdin(stdout)
        .output()
        .map_err(failed("tar"))?;
    let status = tar_file.wait().map_err(failed("dpkg-deb"))?;
    if !status.success() {
        return Err(GuestError::Program {
            program: "dpkg-deb",
            reason: format!("{} ({status})", package.display()),
        });
    }
    if !output.status.success() || output.stdout.is_empty() {
        return Err(GuestError::NotInPackage {
            package: package.display().to_string(),
            path: path.into(),
        });
    }
    Ok(output.stdout)
}

/// The mirrors and keyring that the system uses.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: String,
    keyring: Option<String>,
}

impl Mirrors {
    /// Reads the system's sources below `etc` (`/etc/apt`), in both of apt's formats; Debian's
    /// public mirror where there is nothing to read.
    fn of_system(etc: &Path) -> Self {
        let mut found = Self {
            main: DEFAULT_MIRROR.into(),
            security: DEFAULT_SECURITY.into(),
            keyring: None,
        };
        let mut files = vec![etc.join("sources.list")];
        if let Ok(entries) = fs::read_dir(etc.join("sources.list.d")) {
            files.extend(entries.flatten().map(|e| e.path()));
        }
        files.sort();
        // The first line of several wins, so go backwards.
        for file in files.iter().rev() {
            let Ok(text) = fs::read_to_string(file) else {
                continue;
            };
            match file.extension().and_then(|e| e.to_str()) {
                Some("sources") => text
                    .split("\n\n")
                    .for_each(|stanza| found.take_stanza(stanza)),
                Some("list") => text.lines().rev().for_each(|line| found.take_line(line)),
                _ => {}
            }
        }
        if found.keyring.is_none() && Path::new(DEFAULT_KEYRING).exists() {
            found.keyring = Some(DEFAULT_KEYRING.into());
        }
        found
    }

    fn take_stanza(&mut self, stanza: &str) {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
                .map(|v| v.trim().to_string())
        };
        if field("Enabled").is_some_and(|v| v == "no") {
            return;
        }
        for uri in field("URIs").unwrap_or_default().split_whitespace() {
            self.take(uri, field("Signed-By").as_deref());
        }
    }

    fn take_line(&mut self, line: &str) {
        let Some(rest) = line.trim().strip_prefix("deb ") else {
            return;
        };
        let rest = rest.trim();
        let (options, rest) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let keyring = options
            .split_whitespace()
            .find_map(|o| o.strip_prefix("signed-by="));
        if let Some(uri) = rest.split_whitespace().next() {
            self.take(uri, keyring);
        }
    }

    fn take(&mut self, uri: &str, keyring: Option<&str>) {
        let last = uri
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default();
        match last.trim_end_matches(".list") {
            "debian" => self.main = uri.into(),
            "debian-security" => self.security = uri.into(),
            _ => return,
        }
        if let Some(file) = keyring.filter(|k| k.starts_with('/')) {
            self.keyring = Some(file.into());
        }
    }
}

fn sources_text(mirrors: &Mirrors, suites: &[String]) -> String {
    let mut text = String::new();
    for (security, uri) in [(false, &mirrors.main), (true, &mirrors.security)] {
        let names: Vec<_> = suites
            .iter()
            .filter(|s| s.ends_with("-security") == security)
            .map(String::as_str)
            .collect();
        if names.is_empty() {
            continue;
        }
        // Writing to a String cannot fail. Only the package lists are wanted, not translations
        // and application metadata.
        let _ = write!(
            text,
            "Types: deb\nURIs: {uri}\nSuites: {}\nComponents: main\nTargets: Packages\n",
            names.join(" ")
        );
        if let Some(keyring) = &mirrors.keyring {
            let _ = writeln!(text, "Signed-By: {keyring}");
        }
        text.push('\n');
    }
    text
}

fn config_text(root: &Path, architecture: &str) -> String {
    let root = root.display();
    format!(
        r#"#clear APT::Architectures;
#clear APT::Update;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "{root}";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::Cache "{root}";
Dir::Cache::archives "{root}/archives";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/sources";
"#
    )
}

/// Orders names by their runs of digits as numbers and the rest as text.
fn natural_order(a: &str, b: &str) -> Ordering {
    fn pieces(text: &str) -> Vec<(u64, &str)> {
        let mut all = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let letters = tail
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(tail.len());
            let (word, tail) = tail.split_at(letters);
            all.push((number.parse().unwrap_or(0), word));
            rest = tail;
        }
        all
    }
    pieces(a).cmp(&pieces(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_kernel_names_order_after_older_ones() {
        let name = |n: u32| format!("linux-image-6.1.0-{n}-686");
        assert_eq!(natural_order(&name(9), &name(10)), Ordering::Less);
        assert_eq!(natural_order(&name(50), &name(47)), Ordering::Greater);
        assert_eq!(natural_order(&name(50), &name(50)), Ordering::Equal);
    }

    #[test]
    fn the_systems_mirrors_are_found_in_both_formats_and_strangers_ignored() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        fs::write(
            dir.path().join("sources.list"),
            "# a comment\ndeb [signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n\
             deb http://other.example/apt stable main\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("sources.list.d/security.sources"),
            "Types: deb\nURIs: http://safe.example/debian-security\nSuites: x\n\n\
             Types: deb\nEnabled: no\nURIs: http://off.example/debian\n",
        )
        .unwrap();
        let mirrors = Mirrors::of_system(dir.path());
        assert_eq!(mirrors.main, "http://mirror.example/debian/");
        assert_eq!(mirrors.security, "http://safe.example/debian-security");
        assert_eq!(mirrors.keyring.as_deref(), Some("/k.gpg"));
        let text = sources_text(&mirrors, &["bookworm".into(), "bookworm-security".into()]);
        assert!(
            text.contains("URIs: http://safe.example/debian-security\nSuites: bookworm-security\n"),
            "{text}"
        );
        assert!(
            text.contains("URIs: http://mirror.example/debian/\nSuites: bookworm\n"),
            "{text}"
        );
    }

    #[test]
    fn a_machine_without_sources_uses_the_public_mirror() {
        let dir = tempfile::tempdir().unwrap();
        let mirrors = Mirrors::of_system(dir.path());
        assert_eq!(
            (mirrors.main.as_str(), mirrors.security.as_str()),
            (DEFAULT_MIRROR, DEFAULT_SECURITY)
        );
    }
}
