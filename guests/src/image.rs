//! From a recipe to files that boot.

use crate::cache::{Cache, hexadecimal, write_whole};
use crate::debian::{Apt, unpack};
use crate::initramfs::{self, Contents};
use crate::recipe::{Flavour, Package, Proof, Recipe, Source};
use crate::{GuestError, tiny};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Scripts that init and workloads are made of.
const SCRIPTS: [(&str, &str); 6] = [
    ("common.sh", include_str!("../init/common.sh")),
    ("shell.sh", include_str!("../init/shell.sh")),
    ("script.sh", include_str!("../init/script.sh")),
    ("first-light.sh", include_str!("../init/first-light.sh")),
    ("bench.sh", include_str!("../init/bench.sh")),
    ("nothing.sh", include_str!("../init/nothing.sh")),
];

/// A guest that is ready to boot.
#[derive(Clone, Debug)]
pub struct Image {
    /// `NAME/FLAVOUR`.
    pub name: String,
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// The initial file system, if there is one.
    pub initrd: Option<PathBuf>,
    /// The statically linked busybox in it.
    pub busybox: Option<PathBuf>,
    /// The kernel command line.
    pub append: String,
    /// Memory size as the command line writes it.
    pub memory: String,
    /// Whether it ends by the debug-exit port.
    pub debug_exit: bool,
    /// What proves success.
    pub proof: Proof,
    /// Name and version of what was fetched, for people.
    pub origin: String,
}

/// Whether to ask the network for newer packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Only when something is not in the cache.
    IfMissing,
    /// Always.
    Always,
}

/// Fetches, builds and checks what the guest `name` (`NAME` or `NAME/FLAVOUR`) needs, in the
/// cache directory `root` ([`Cache::default_root`]). Works offline once everything was fetched.
///
/// # Errors
/// [`GuestError`] with the reason, one sentence.
pub fn prepare(root: &Path, name: &str, refresh: Refresh) -> Result<Image, GuestError> {
    let (recipe, flavour) = Recipe::find(name)?;
    let mut cache = Cache::open(root)?;
    let (kernel, initrd, busybox, origin) = match &recipe.source {
        Source::Debian {
            suites,
            architecture,
            kernel,
            busybox,
        } => {
            let mut fetcher = Fetcher {
                cache: &mut cache,
                apt: None,
                suites,
                architecture,
                refresh,
            };
            let (kernel, kernel_origin) = fetcher.file(kernel)?;
            let (busybox, busybox_origin) = fetcher.file(busybox)?;
            let initrd = initrd(&cache, &busybox, &flavour)?;
            (
                kernel,
                Some(initrd),
                Some(busybox),
                format!("{kernel_origin}, {busybox_origin}"),
            )
        }
        Source::Nasm { file } => (
            tiny::assemble(&cache, file)?,
            None,
            None,
            format!("guests/tiny/{file}"),
        ),
    };
    Ok(Image {
        name: format!("{}/{}", recipe.name, flavour.name),
        kernel,
        initrd,
        busybox,
        append: recipe.boot.append,
        memory: recipe.boot.memory,
        debug_exit: recipe.boot.debug_exit,
        proof: flavour.proof,
        origin,
    })
}

/// The suites that single files are fetched from.
const SUITES: [&str; 3] = ["bookworm", "bookworm-updates", "bookworm-security"];

/// One file of a Debian package, fetched where needed: the firmware, bootable images. `path` is
/// what the file's path in the package begins with.
/// # Errors
/// [`GuestError`].
pub fn package_file(
    root: &Path,
    package: &str,
    path: &str,
    refresh: Refresh,
) -> Result<PathBuf, GuestError> {
    let mut cache = Cache::open(root)?;
    let suites = SUITES.map(String::from);
    let mut fetcher = Fetcher {
        cache: &mut cache,
        apt: None,
        suites: &suites,
        architecture: "i386",
        refresh,
    };
    let package = Package {
        names: vec![package.into()],
        version: String::new(),
        path: path.into(),
    };
    Ok(fetcher.file(&package)?.0)
}

/// The text of one of the scripts of `guests/init/`.
#[must_use]
pub fn script(name: &str) -> Option<&'static str> {
    SCRIPTS
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, text)| *text)
}

struct Fetcher<'a> {
    cache: &'a mut Cache,
    apt: Option<Apt>,
    suites: &'a [String],
    architecture: &'a str,
    refresh: Refresh,
}

impl Fetcher<'_> {
    /// The file that `package` describes, unpacked, and where it is from.
    fn file(&mut self, package: &Package) -> Result<(PathBuf, String), GuestError> {
        let deb_key = format!("{} {}", self.architecture, package.names.join(" or "));
        let file_key = format!("{deb_key}: {}", package.path);
        let mut fetched = None;
        if self.refresh == Refresh::IfMissing {
            fetched = self.cache.lookup(&deb_key)?;
            if fetched.is_some()
                && let Some((path, recorded)) = self.cache.lookup(&file_key)?
            {
                return Ok((path, recorded.origin));
            }
        }
        let (deb, origin) = match fetched {
            Some((path, recorded)) => (path, recorded.origin),
            None => self.download(package, &deb_key)?,
        };
        let content = unpack(&deb, &package.path)?;
        self.cache.directory("files")?;
        let stem = deb.file_stem().unwrap_or_default().to_string_lossy();
        let name = format!(
            "files/{stem}-{}",
            package
                .path
                .trim_end_matches('-')
                .rsplit('/')
                .next()
                .unwrap_or_default()
        );
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

/// Builds the initramfs of a flavour, named by its contents.
fn initrd(cache: &Cache, busybox: &Path, flavour: &Flavour) -> Result<PathBuf, GuestError> {
    let text = |name: &String| {
        script(name).ok_or_else(|| GuestError::BadRecipe {
            file: flavour.name.clone(),
            reason: format!("there is no script {name}"),
        })
    };
    let init = flavour
        .init
        .iter()
        .map(text)
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let workload = flavour.workload.as_ref().map(text).transpose()?;
    let busybox = fs::read(busybox).map_err(GuestError::file("read", busybox))?;
    let mut hash = Sha256::new();
    for part in [
        &busybox[..],
        init.as_bytes(),
        workload.unwrap_or_default().as_bytes(),
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hexadecimal(&hash.finalize());
    let directory = cache.directory("initrd")?;
    let path = directory.join(format!("{}-{}.cpio.gz", flavour.name, &digest[..16]));
    if !path.exists() {
        let contents = Contents {
            busybox: &busybox,
            init: &init,
            workload,
        };
        let packed = initramfs::build(&contents).map_err(GuestError::file("build", &path))?;
        write_whole(&path, &packed)?;
    }
    Ok(path)
}
