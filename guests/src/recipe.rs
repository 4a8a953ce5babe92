//! The recipes: guest facts as data, carried inside the program.

use crate::GuestError;
use crate::disk::DebianDisk;
use crate::step::Step;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A file of `guests/recipes/` with its name.
macro_rules! files {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("../recipes/", $name)))),*] };
}

/// The recipe files, in the order in which they are listed.
const FILES: &[(&str, &str)] = &files![
    "debian-686.toml",
    "debian-686-pae.toml",
    "screen.toml",
    "grub-floppy.toml",
    "grub-cd.toml",
    "isolinux.toml",
    "syslinux.toml",
    "memtest-kernel.toml",
    "memtest-cd.toml",
    "ipxe-kernel.toml",
    "ipxe-isolinux.toml",
    "ipxe-cd.toml",
    "gnumach.toml",
    "debian-disk.toml",
    "debian-installer.toml",
    "tiny.toml",
];

/// The suites that recipes take packages from, unless they say otherwise.
pub(crate) const SUITES: [&str; 3] = ["bookworm", "bookworm-updates", "bookworm-security"];

/// One guest: where its image comes from and how it boots.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What `ring3 guests` calls it.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// How it boots.
    pub boot: Boot,
    /// Where its files come from.
    pub source: Source,
    /// The ways in which it can be run; the first is the usual one.
    #[serde(rename = "flavour")]
    pub flavours: Vec<Flavour>,
}

/// How a guest boots.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Memory size as the command line writes it ("512M").
    pub memory: String,
    /// The kernel command line.
    #[serde(default)]
    pub append: String,
    /// Whether it ends by the debug-exit port.
    #[serde(default)]
    pub debug_exit: bool,
    /// What firmware tries first.
    pub order: Option<Order>,
    /// For a kernel: whether firmware starts it. Drives always need firmware.
    #[serde(default)]
    pub firmware: bool,
    /// Whether the guest may restart; otherwise that ends the run.
    #[serde(default)]
    pub reboot: bool,
    /// Whether the guest writes to copies of its disks and diskettes, which last as long as the
    /// run and can be checked at its end; otherwise what it writes is dropped.
    #[serde(default)]
    pub copies: bool,
}

/// What firmware tries first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The first floppy drive.
    Floppy,
    /// The first hard disk.
    Disk,
    /// The first CD-ROM drive.
    Cdrom,
}

impl Order {
    /// The letter that stands for it on command lines.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::Floppy => "a",
            Self::Disk => "c",
            Self::Cdrom => "d",
        }
    }
}

/// Where a guest's files come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// A Debian kernel package and an initramfs around Debian's busybox.
    Debian {
        /// The suites to look in.
        suites: Vec<String>,
        /// Debian's name of the guest's architecture.
        architecture: String,
        /// The kernel.
        kernel: Package,
        /// The statically linked busybox.
        busybox: Package,
    },
    /// One of our own tiny guests, assembled by nasm.
    Nasm {
        /// The source in `guests/tiny/`.
        file: String,
    },
    /// A kernel or drives, made of parts.
    Parts {
        /// The suites to look in.
        #[serde(default = "default_suites")]
        suites: Vec<String>,
        /// Debian's name of the guest's architecture.
        #[serde(default = "default_architecture")]
        architecture: String,
        /// The parts by name. A part may be built of others.
        parts: BTreeMap<String, Part>,
        /// The part that is the kernel, if the monitor loads one.
        kernel: Option<String>,
        /// The part that is its initial file system.
        initrd: Option<String>,
        /// The drives with media in them.
        #[serde(default)]
        drives: Vec<Drive>,
    },
}

fn default_suites() -> Vec<String> {
    SUITES.map(String::from).to_vec()
}

fn default_architecture() -> String {
    "i386".into()
}

/// A file that a guest boots from, or that such a file is built of.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Part {
    /// A file of a Debian package, as it is.
    Package {
        /// The package, see [`Package::names`].
        package: String,
        /// What the path of the file begins with; no other file's may.
        path: String,
    },
    /// These very characters.
    Text {
        /// The content.
        text: String,
    },
    /// One of our own sources, assembled by nasm.
    Nasm {
        /// The source in `guests/tiny/`.
        file: String,
    },
    /// A diskette of 1.44 MB with a FAT file system.
    FatFloppy {
        /// Parts by their path on the diskette.
        files: BTreeMap<String, String>,
        /// Whether SYSLINUX is installed on it.
        #[serde(default)]
        syslinux: bool,
    },
    /// A disc with these files, which boots by a boot loader of its own.
    Iso {
        /// Parts by their path on the disc.
        files: BTreeMap<String, String>,
        /// The path on the disc of ISOLINUX, or of another loader that takes a boot information
        /// table; no loader when it is missing.
        loader: Option<String>,
    },
    /// A bootable disc with files added or replaced.
    IsoWith {
        /// The part that is the disc.
        base: String,
        /// Parts by their path on the disc.
        files: BTreeMap<String, String>,
    },
    /// A hard disk with Debian installed on it, bootable.
    DebianDisk(DebianDisk),
    /// An empty disk.
    Blank {
        /// Its size as the command line writes memory sizes ("64M").
        size: String,
    },
}

/// A drive with a medium.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// What it is.
    pub kind: DriveKind,
    /// The part that is the medium, which is never written to.
    pub part: String,
}

/// What a drive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriveKind {
    /// A floppy drive.
    Floppy,
    /// An IDE hard disk.
    Disk,
    /// An ATAPI drive.
    Cdrom,
}

/// A file of a Debian package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Name patterns, the preferred first; `*` stands for digits, dots and dashes.
    pub names: Vec<String>,
    /// What the version begins with (after an epoch).
    pub version: String,
    /// What the path of the file begins with.
    pub path: String,
}

/// One way to run a guest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flavour {
    /// Its name, unique in the recipe.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Pieces of the `/init` script, joined (files of `guests/init/`); empty without initramfs.
    #[serde(default)]
    pub init: Vec<String>,
    /// The script that init runs, if it runs one.
    pub workload: Option<String>,
    /// When the suite runs it.
    #[serde(default)]
    pub runs: Runs,
    /// What is done with it.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Our own programs that it finds in `/bin` (files of `guests/programs/`).
    #[serde(default)]
    pub programs: Vec<String>,
    /// Memory size instead of the guest's usual one.
    pub memory: Option<String>,
    /// What proves success.
    pub proof: Proof,
}

/// When the suite runs a flavour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runs {
    /// In the quick run and in the full one.
    Quick,
    /// In the full run.
    #[default]
    Full,
    /// Only when it is named: on the terminal, for a person.
    ByHand,
}

/// What proves that a guest did what it should: every step was done, and this.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Regular expressions, each of which some line on the serial port matches.
    #[serde(default)]
    pub serial: Vec<String>,
    /// Regular expressions that no line on the serial port, and no screen that was looked at,
    /// may match.
    #[serde(default)]
    pub never: Vec<String>,
    /// The monitor's exit status, if the guest ends by itself after the steps; otherwise the
    /// machine is switched off then.
    pub exit_status: Option<i32>,
    /// Seconds after which it has failed as a whole, on a slow machine.
    pub timeout_seconds: u64,
}

/// `tiny.toml`: a table of guests that differ only in name, description and source.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TinyTable {
    boot: Boot,
    proof: Proof,
    guest: Vec<TinyRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TinyRow {
    name: String,
    description: String,
    file: String,
}

impl Recipe {
    /// All recipes.
    ///
    /// # Errors
    /// [`GuestError::BadRecipe`] when one does not parse (checked by a unit test).
    pub fn all() -> Result<Vec<Self>, GuestError> {
        let mut all = Vec::new();
        for &(file, text) in FILES {
            let bad = |e: toml::de::Error| GuestError::BadRecipe {
                file: file.into(),
                reason: e.to_string(),
            };
            if file == "tiny.toml" {
                let table: TinyTable = toml::from_str(text).map_err(bad)?;
                all.extend(table.guest.into_iter().map(|row| Self {
                    name: row.name,
                    description: row.description,
                    boot: table.boot.clone(),
                    source: Source::Nasm { file: row.file },
                    flavours: vec![Flavour {
                        name: "check".into(),
                        description: "checks itself".into(),
                        init: Vec::new(),
                        workload: None,
                        runs: Runs::Quick,
                        steps: Vec::new(),
                        programs: Vec::new(),
                        memory: None,
                        proof: table.proof.clone(),
                    }],
                }));
            } else {
                all.push(toml::from_str(text).map_err(bad)?);
            }
        }
        Ok(all)
    }

    /// Finds a guest by `NAME` or `NAME/FLAVOUR`; without flavour, its first.
    ///
    /// # Errors
    /// [`GuestError::UnknownGuest`]; [`GuestError::BadRecipe`].
    pub fn find(name: &str) -> Result<(Self, Flavour), GuestError> {
        let (guest, flavour) = match name.split_once('/') {
            Some((guest, flavour)) => (guest, Some(flavour)),
            None => (name, None),
        };
        let recipe = Self::all()?.into_iter().find(|r| r.name == guest);
        let found = recipe.and_then(|recipe| {
            let found = match flavour {
                Some(wanted) => recipe.flavours.iter().find(|f| f.name == wanted),
                None => recipe.flavours.first(),
            };
            let found = found.cloned()?;
            Some((recipe, found))
        });
        found.ok_or_else(|| GuestError::UnknownGuest(name.into()))
    }
}

impl Package {
    /// Whether a package name fits one of the patterns; the pattern's rank (0 is preferred).
    #[must_use]
    pub fn rank(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|pattern| fits(pattern, name))
    }
}

/// Whether `name` fits `pattern`, where `*` stands for any digits, dots and dashes.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => {
            let Some(tail) = name.strip_prefix(head) else {
                return false;
            };
            let wild = tail
                .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-')
                .unwrap_or(tail.len());
            (0..=wild).any(|n| fits(rest, &tail[n..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_parses_and_names_are_unique() {
        let all = Recipe::all().unwrap();
        let mut names: Vec<_> = all.iter().map(|r| r.name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        for recipe in &all {
            assert!(
                !recipe.flavours.is_empty(),
                "{} has no flavour",
                recipe.name
            );
            for flavour in &recipe.flavours {
                for text in flavour.proof.serial.iter().chain(&flavour.proof.never) {
                    regex::Regex::new(text).unwrap();
                }
                for step in &flavour.steps {
                    step.check()
                        .unwrap_or_else(|e| panic!("{}: {e}", recipe.name));
                }
                for file in flavour.init.iter().chain(&flavour.workload) {
                    assert!(
                        crate::image::script(file).is_some(),
                        "{}: no script {file}",
                        recipe.name
                    );
                }
            }
            for flavour in &recipe.flavours {
                for program in &flavour.programs {
                    assert!(crate::program::exists(program), "no program {program}");
                }
            }
            if let Source::Nasm { file } = &recipe.source {
                assert!(
                    crate::tiny::source(file).is_some(),
                    "{}: no source {file}",
                    recipe.name
                );
            }
        }
    }

    #[test]
    fn a_pattern_fits_kernel_versions_but_no_other_flavour_of_kernel() {
        let pattern = "linux-image-6.1.*-686";
        assert!(fits(pattern, "linux-image-6.1.0-50-686"));
        assert!(!fits(pattern, "linux-image-6.1.0-50-rt-686"));
        assert!(!fits(pattern, "linux-image-6.1.0-50-686-pae"));
        assert!(!fits(pattern, "linux-image-6.10.0-50-686"));
        assert!(fits("busybox-static", "busybox-static"));
    }

    #[test]
    fn a_guest_is_found_with_and_without_flavour() {
        assert_eq!(Recipe::find("debian-686").unwrap().1.name, "shell");
        assert_eq!(
            Recipe::find("debian-686-pae/first-light").unwrap().1.name,
            "first-light"
        );
        let error = Recipe::find("debian-486").unwrap_err().to_string();
        assert!(
            error.contains("debian-486") && error.contains("guests list"),
            "{error}"
        );
    }
}
