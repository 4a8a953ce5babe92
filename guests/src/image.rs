//! From a recipe to files that boot.

use crate::cache::{Cache, hexadecimal, write_whole};
use crate::fetch::Fetcher;
use crate::initramfs::{self, Contents};
use crate::parts::Parts;
use crate::recipe::{Boot, Drive, Flavour, Package, Recipe, SUITES, Source};
use crate::recipe::{DriveKind, Proof};
use crate::step::Step;
use crate::{GuestError, program, tiny};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Scripts that init and workloads are made of.
const SCRIPTS: [(&str, &str); 8] = [
    ("common.sh", include_str!("../init/common.sh")),
    ("shell.sh", include_str!("../init/shell.sh")),
    ("script.sh", include_str!("../init/script.sh")),
    ("first-light.sh", include_str!("../init/first-light.sh")),
    ("bench.sh", include_str!("../init/bench.sh")),
    ("ring3.sh", include_str!("../init/ring3.sh")),
    ("hungry.sh", include_str!("../init/hungry.sh")),
    ("nothing.sh", include_str!("../init/nothing.sh")),
];

/// A guest that is ready to boot.
#[derive(Clone, Debug)]
pub struct Image {
    /// `NAME/FLAVOUR`.
    pub name: String,
    /// The kernel that the monitor loads, if it loads one.
    pub kernel: Option<PathBuf>,
    /// Its initial file system, if there is one.
    pub initrd: Option<PathBuf>,
    /// The statically linked busybox in it.
    pub busybox: Option<PathBuf>,
    /// Our own programs in it, by name.
    pub programs: BTreeMap<String, PathBuf>,
    /// Drives and their media.
    pub drives: Vec<(DriveKind, PathBuf)>,
    /// Whether what the guest writes to its drives stays there: they are copies of the parts.
    pub keep_writes: bool,
    /// The parts by name, for steps that insert one.
    pub parts: BTreeMap<String, PathBuf>,
    /// How it boots.
    pub boot: Boot,
    /// What is done with it.
    pub steps: Vec<Step>,
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
    let mut image = Image {
        name: format!("{}/{}", recipe.name, flavour.name),
        kernel: None,
        initrd: None,
        busybox: None,
        programs: BTreeMap::new(),
        drives: Vec::new(),
        keep_writes: false,
        parts: BTreeMap::new(),
        boot: recipe.boot.clone(),
        steps: flavour.steps.clone(),
        proof: flavour.proof.clone(),
        origin: String::new(),
    };
    if let Some(memory) = &flavour.memory {
        image.boot.memory.clone_from(memory);
    }
    match &recipe.source {
        Source::Debian {
            suites,
            architecture,
            kernel,
            busybox,
        } => {
            let mut fetcher = Fetcher::new(&mut cache, suites, architecture, refresh);
            let (kernel, kernel_origin) = fetcher.file(kernel)?;
            let (busybox, busybox_origin) = fetcher.file(busybox)?;
            for name in &flavour.programs {
                let path = program::compile(&cache, name)?;
                image.programs.insert(name.clone(), path);
            }
            image.initrd = Some(initrd(&cache, &busybox, &image.programs, &flavour)?);
            image.kernel = Some(kernel);
            image.busybox = Some(busybox);
            image.origin = format!("{kernel_origin}, {busybox_origin}");
        }
        Source::Nasm { file } => {
            image.kernel = Some(tiny::assemble(&cache, file)?);
            image.origin = format!("guests/tiny/{file}");
        }
        Source::Parts {
            suites,
            architecture,
            parts,
            kernel,
            initrd,
            drives,
        } => {
            let fetcher = Fetcher::new(&mut cache, suites, architecture, refresh);
            let mut made = Parts::new(&recipe.name, parts, fetcher);
            for name in parts.keys() {
                made.part(name)?;
            }
            image.kernel = kernel.as_ref().map(|name| made.part(name)).transpose()?;
            image.initrd = initrd.as_ref().map(|name| made.part(name)).transpose()?;
            for Drive { kind, part } in drives {
                image.drives.push((*kind, made.part(part)?));
            }
            (image.parts, image.origin) = made.finish();
        }
    }
    Ok(image)
}

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
    let mut fetcher = Fetcher::new(&mut cache, &suites, "i386", refresh);
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

/// Builds the initramfs of a flavour, named by its contents.
fn initrd(
    cache: &Cache,
    busybox: &Path,
    programs: &BTreeMap<String, PathBuf>,
    flavour: &Flavour,
) -> Result<PathBuf, GuestError> {
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
    let programs = programs
        .iter()
        .map(|(name, path)| {
            let content = fs::read(path).map_err(GuestError::file("read", path))?;
            Ok((name.clone(), content))
        })
        .collect::<Result<Vec<_>, GuestError>>()?;
    let mut hash = Sha256::new();
    let own = programs
        .iter()
        .flat_map(|(name, content)| [name.as_bytes(), content]);
    for part in [
        &busybox[..],
        init.as_bytes(),
        workload.unwrap_or_default().as_bytes(),
    ]
    .into_iter()
    .chain(own)
    {
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
            programs: &programs,
        };
        let packed = initramfs::build(&contents).map_err(GuestError::file("build", &path))?;
        write_whole(&path, &packed)?;
    }
    Ok(path)
}
