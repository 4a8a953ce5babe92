//! A hard disk with Debian on it, as an installer would leave it: a partition table, GRUB in front
//! of the first partition, and one ext4 file system with the packages installed and configured.
//!
//! Nothing is mounted and no privilege is needed. mmdebstrap installs the packages into a
//! directory (as root, or in a user name space), a setup script of ours has the last word there,
//! mke2fs fills a file system from the result below fakeroot, and [`layout`] puts the boot blocks
//! and the partition together. The programs are `mmdebstrap`, `arch-test`, `fakeroot`, `tar` and
//! `mke2fs`; `make disk-tools` installs them.
//!
//! The image lies in `images/` below the cache directory, named by a digest of the packages, the
//! scripts and the layout. It is read-only: whoever lets a guest write makes a copy first.

mod layout;
mod packages;

pub use layout::{PARTITION_OFFSET, copy_sparse};

use crate::GuestError;
use crate::cache::{Cache, hexadecimal};
use crate::fetch::Fetcher;
use packages::Set;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Changes when disks are built in another way: those of before are not used then.
const FORMAT: &str = "1";
/// The time that files get which have none of their own.
const EPOCH: &str = "1700000000";
/// The file system's UUID, by which the kernel finds it: a constant, so that builds are alike.
const FILE_SYSTEM: &str = "72696e67-3300-4000-8000-000000000001";
/// Directory hashes are salted with this.
const HASH_SEED: &str = "72696e67-3300-4000-8000-000000000002";

/// What is on the disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianDisk {
    /// The release.
    pub suite: String,
    /// Packages beyond the essential ones; what they depend on comes along, what they recommend
    /// does not.
    pub packages: Vec<String>,
    /// Size of the whole disk in MiB.
    pub mebibytes: u64,
    /// Files of `guests/disk/`; the first is run by `sh` with the root directory as its argument
    /// when all packages are configured, in the directory that holds the others.
    pub scripts: Vec<String>,
}

/// Files that scripts are made of.
const SCRIPTS: [(&str, &str); 3] = [
    ("setup.sh", include_str!("../../disk/setup.sh")),
    ("work.c", include_str!("../../disk/work.c")),
    ("work.py", include_str!("../../disk/work.py")),
];

/// The text of one of the files of `guests/disk/`.
#[must_use]
pub fn script(name: &str) -> Option<&'static str> {
    let found = SCRIPTS.iter().find(|(n, _)| *n == name);
    found.map(|(_, text)| *text)
}

impl DebianDisk {
    /// The image, built if the cache does not have it, and where its packages are from.
    ///
    /// # Errors
    /// [`GuestError`]: a program that is missing or failed, no space, a package that is gone.
    pub(crate) fn prepare(
        &self,
        fetcher: &mut Fetcher,
        name: &str,
    ) -> Result<(PathBuf, String), GuestError> {
        let (architecture, suites) = (fetcher.architecture, fetcher.suites);
        let (refresh, cache) = (fetcher.refresh, &mut *fetcher.cache);
        let mut scripts = Vec::new();
        for file in &self.scripts {
            let text = script(file).ok_or_else(|| GuestError::BadRecipe {
                file: name.into(),
                reason: format!("there is no script {file}"),
            })?;
            scripts.push((file.as_str(), text));
        }
        let mut set = Set::of(cache, architecture, suites, &self.packages, refresh)?;
        let origin = format!("{} packages of Debian {}", set.len(), self.suite);
        let mut hash = Sha256::new();
        hash.update(format!(
            "{FORMAT} {EPOCH} {FILE_SYSTEM} {self:?} {architecture} "
        ));
        hash.update(set.manifest());
        for (_, text) in &scripts {
            hash.update(text);
        }
        let digest = hexadecimal(&hash.finalize());
        let directory = cache.directory("images")?;
        let path = directory.join(format!("{name}-{}", &digest[..16]));
        if !path.exists() {
            set.fetch(cache)?;
            self.build(cache, &set, &scripts, architecture, &path)?;
        }
        Ok((path, origin))
    }

    fn build(
        &self,
        cache: &Cache,
        set: &Set,
        scripts: &[(&str, &str)],
        architecture: &str,
        image: &Path,
    ) -> Result<(), GuestError> {
        // Below the system's temporary directory and open to all: in its user name space
        // mmdebstrap is somebody else, who may not look into a home directory.
        let work = Workspace::new()?;
        let at = |name: &str| work.0.join(name);
        set.repository(cache, &at("packages"))?;
        for (name, text) in scripts {
            let path = at(name);
            fs::write(&path, text).map_err(GuestError::file("write", &path))?;
        }
        let setup = scripts.first().map_or("", |(name, _)| *name);
        let tree = at("tree.tar");
        run(
            "mmdebstrap",
            Command::new("mmdebstrap")
                .arg("--quiet")
                .arg(format!("--architectures={architecture}"))
                .args(["--variant=apt", "--format=tar"])
                .arg(format!("--include={}", self.packages.join(",")))
                .arg("--aptopt=APT::Install-Recommends \"0\"")
                .arg(format!(
                    "--customize-hook=cd '{}' && sh {setup} \"$1\"",
                    work.0.display()
                ))
                .arg(&self.suite)
                .arg("-")
                .arg(format!(
                    "deb [trusted=yes] copy:{} ./",
                    at("packages").display()
                ))
                .env("FILE_SYSTEM", FILE_SYSTEM)
                .stdout(File::create(&tree).map_err(GuestError::file("create", &tree))?),
        )?;
        let partial = image.with_extension("partial");
        let filled = self.fill(&partial, &work).and_then(|()| {
            let grub = at("tree/boot/grub/i386-pc");
            layout::make_bootable(&partial, &grub, self.mebibytes << 20)?;
            fs::set_permissions(&partial, fs::Permissions::from_mode(0o444))
                .and_then(|()| fs::rename(&partial, image))
                .map_err(GuestError::file("write", image))
        });
        if filled.is_err() {
            // It is large, and of no use.
            let _ = fs::remove_file(&partial);
        }
        filled
    }

    /// Makes the file system on `disk`, of `tree.tar` in the workspace, which becomes `tree`.
    fn fill(&self, disk: &Path, work: &Workspace) -> Result<(), GuestError> {
        File::create(disk)
            .and_then(|f| f.set_len(self.mebibytes << 20))
            .map_err(GuestError::file("create", disk))?;
        // One fakeroot for both: it remembers owners and modes from tar to mke2fs.
        let script = "mkdir tree && tar --numeric-owner -xf tree.tar -C tree && rm tree.tar && \
                      mke2fs -q -F -t ext4 -L debian -U \"$FILE_SYSTEM\" \
                      -E \"offset=$OFFSET,hash_seed=$HASH_SEED\" -d tree \"$DISK\" \"$SIZE\"";
        let kibibytes = (self.mebibytes << 10) - (PARTITION_OFFSET >> 10);
        run(
            "fakeroot",
            Command::new("fakeroot")
                .args(["sh", "-c", script])
                .current_dir(&work.0)
                .env("DISK", disk)
                .env("OFFSET", PARTITION_OFFSET.to_string())
                .env("SIZE", format!("{kibibytes}k"))
                .env("FILE_SYSTEM", FILE_SYSTEM)
                .env("HASH_SEED", HASH_SEED)
                .env("E2FSPROGS_FAKE_TIME", EPOCH),
        )
    }
}

/// Checks the file system on a disk that a guest has used, changing nothing.
///
/// # Errors
/// [`GuestError::Program`] with what `e2fsck` found, or why it did not run.
pub fn check_file_system(disk: &Path) -> Result<(), GuestError> {
    let mut place = disk.as_os_str().to_owned();
    place.push(format!("?offset={PARTITION_OFFSET}"));
    run("e2fsck", Command::new("e2fsck").arg("-fn").arg(place))
}

/// A directory that is removed with everything in it.
struct Workspace(PathBuf);

impl Workspace {
    fn new() -> Result<Self, GuestError> {
        let path = std::env::temp_dir().join(format!("ring3-disk-{}", std::process::id()));
        fs::create_dir(&path).map_err(GuestError::file("create", &path))?;
        let workspace = Self(path);
        fs::set_permissions(&workspace.0, fs::Permissions::from_mode(0o755))
            .map_err(GuestError::file("open to all", &workspace.0))?;
        Ok(workspace)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Directories of the tree may be closed even to their owner.
        let _ = Command::new("chmod")
            .args([OsStr::new("-R"), OsStr::new("u+rwX"), self.0.as_os_str()])
            .stderr(Stdio::null())
            .status();
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a program to its end; its last words if it fails.
fn run(program: &'static str, command: &mut Command) -> Result<(), GuestError> {
    let output = command
        .env("LC_ALL", "C")
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .env(
            "PATH",
            // e2fsprogs lives where ordinary users do not look.
            format!(
                "{}:/usr/sbin:/sbin",
                std::env::var("PATH").unwrap_or_default()
            ),
        )
        .stdin(Stdio::null())
        .output()
        .map_err(|e| GuestError::Program {
            program,
            reason: match e.kind() {
                std::io::ErrorKind::NotFound => "it is not installed (make disk-tools)".into(),
                _ => e.to_string(),
            },
        })?;
    if output.status.success() {
        return Ok(());
    }
    let words = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&words);
    let lines: Vec<_> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    Err(GuestError::Program {
        program,
        reason: format!(
            "{} ({})",
            lines[lines.len().saturating_sub(6)..].join("; "),
            output.status
        ),
    })
}
