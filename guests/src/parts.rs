//! Parts of recipes: from their description to files.
//!
//! What is built lies in `images/` below the cache directory, named by a digest of everything
//! that it is built of, so that it is built once.

use crate::GuestError;
use crate::cache::{hexadecimal, sha256_of, write_whole};
use crate::fetch::Fetcher;
use crate::recipe::{Package, Part};
use crate::tiny;
use crate::tools::Tool;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Changes when images are built in another way: those of before are not used then.
const FORMAT: &str = "1";
/// The label of file systems.
const LABEL: &str = "RING3";

/// The parts of one recipe, and those that exist already.
pub(crate) struct Parts<'a> {
    recipe: &'a str,
    described: &'a BTreeMap<String, Part>,
    fetcher: Fetcher<'a>,
    made: BTreeMap<String, PathBuf>,
    /// Parts that are being made, to find a part that is built of itself.
    open: Vec<String>,
    origins: Vec<String>,
}

impl<'a> Parts<'a> {
    pub fn new(
        recipe: &'a str,
        described: &'a BTreeMap<String, Part>,
        fetcher: Fetcher<'a>,
    ) -> Self {
        Self {
            recipe,
            described,
            fetcher,
            made: BTreeMap::new(),
            open: Vec::new(),
            origins: Vec::new(),
        }
    }

    /// The files, and where they are from.
    pub fn finish(self) -> (BTreeMap<String, PathBuf>, String) {
        (self.made, self.origins.join(", "))
    }

    fn bad(&self, reason: String) -> GuestError {
        GuestError::BadRecipe {
            file: self.recipe.into(),
            reason,
        }
    }

    /// The file that a part is.
    pub fn part(&mut self, name: &str) -> Result<PathBuf, GuestError> {
        if let Some(path) = self.made.get(name) {
            return Ok(path.clone());
        }
        let described = self.described;
        let Some(part) = described.get(name) else {
            return Err(self.bad(format!("there is no part {name}")));
        };
        if self.open.iter().any(|n| n == name) {
            return Err(self.bad(format!("part {name} is built of itself")));
        }
        self.open.push(name.into());
        let path = self.make(name, part)?;
        self.open.pop();
        self.made.insert(name.into(), path.clone());
        Ok(path)
    }

    fn make(&mut self, name: &str, part: &Part) -> Result<PathBuf, GuestError> {
        let inputs = match part {
            Part::Package { package, path } => {
                let wanted = Package {
                    names: vec![package.clone()],
                    version: String::new(),
                    path: path.clone(),
                };
                let (file, origin) = self.fetcher.file(&wanted)?;
                if !self.origins.contains(&origin) {
                    self.origins.push(origin);
                }
                return Ok(file);
            }
            Part::Nasm { file } => return tiny::assemble(self.fetcher.cache, file),
            Part::FatFloppy { files, .. } | Part::Iso { files, .. } => self.inputs(files)?,
            Part::IsoWith { base, files } => {
                let mut inputs = self.inputs(files)?;
                inputs.insert(0, (String::new(), self.part(base)?));
                inputs
            }
            Part::DebianDisk(disk) => {
                let file = format!("{}-{name}", self.recipe);
                let (path, origin) = disk.prepare(&mut self.fetcher, &file)?;
                self.origins.push(origin);
                return Ok(path);
            }
            Part::Text { .. } | Part::Blank { .. } => Vec::new(),
        };
        let mut hash = Sha256::new();
        hash.update(format!("{FORMAT} {part:?}"));
        for (_, file) in &inputs {
            hash.update(sha256_of(file)?);
        }
        let digest = hexadecimal(&hash.finalize());
        let directory = self.fetcher.cache.directory("images")?;
        let path = directory.join(format!("{}-{name}-{}", self.recipe, &digest[..16]));
        if path.exists() {
            return Ok(path);
        }
        let partial = directory.join("partial");
        if partial.exists() {
            fs::remove_file(&partial).map_err(GuestError::file("remove", &partial))?;
        }
        match part {
            Part::Package { .. } | Part::Nasm { .. } | Part::DebianDisk(_) => {}
            Part::Text { text } => write_whole(&partial, text.as_bytes())?,
            Part::Blank { size } => {
                let bytes =
                    bytes_of(size).ok_or_else(|| self.bad(format!("'{size}' is no size")))?;
                File::create(&partial)
                    .and_then(|f| f.set_len(bytes))
                    .map_err(GuestError::file("create", &partial))?;
            }
            Part::FatFloppy { syslinux, .. } => self.floppy(&partial, &inputs, *syslinux)?,
            Part::Iso { loader, .. } => self.iso(&partial, &inputs, loader.as_deref())?,
            Part::IsoWith { .. } => self.iso_with(&partial, &inputs)?,
        }
        fs::rename(&partial, &path).map_err(GuestError::file("write", &path))?;
        Ok(path)
    }

    /// Paths on the medium and the files that come there.
    fn inputs(
        &mut self,
        files: &BTreeMap<String, String>,
    ) -> Result<Vec<(String, PathBuf)>, GuestError> {
        files
            .iter()
            .map(|(path, part)| Ok((path.trim_start_matches('/').into(), self.part(part)?)))
            .collect()
    }

    fn floppy(
        &mut self,
        image: &Path,
        files: &[(String, PathBuf)],
        syslinux: bool,
    ) -> Result<(), GuestError> {
        let cache = &mut *self.fetcher.cache;
        let mut format = words(&["-C", "-f", "1440", "-v", LABEL, "-N", "52494e47", "-i"]);
        format.extend([image.into(), "::".into()]);
        Tool::Mformat.run(cache, &format)?;
        let mut directories: Vec<String> = Vec::new();
        for (path, file) in files {
            for (at, _) in path.match_indices('/') {
                let directory = format!("::{}", &path[..at]);
                if !directories.contains(&directory) {
                    Tool::Mmd.run(cache, &["-i".into(), image.into(), (&directory).into()])?;
                    directories.push(directory);
                }
            }
            let target = format!("::{path}").into();
            let mut copy = words(&["-m", "-i"]);
            copy.extend([image.into(), file.into(), target]);
            Tool::Mcopy.run(cache, &copy)?;
        }
        if syslinux {
            Tool::Syslinux.run(cache, &["--install".into(), image.into()])?;
        }
        Ok(())
    }

    fn iso(
        &mut self,
        image: &Path,
        files: &[(String, PathBuf)],
        loader: Option<&str>,
    ) -> Result<(), GuestError> {
        let mut arguments = words(&["-as", "mkisofs", "-quiet", "-R", "-J", "-V", LABEL]);
        arguments.extend(["-o".into(), image.into()]);
        if let Some(loader) = loader {
            let loader = loader.trim_start_matches('/');
            arguments.extend(words(&["-b", loader, "-c", "boot.cat", "-no-emul-boot"]));
            arguments.extend(words(&["-boot-load-size", "4", "-boot-info-table"]));
        }
        arguments.push("-graft-points".into());
        for (path, file) in files {
            let mut graft = OsString::from(format!("/{path}="));
            graft.push(file);
            arguments.push(graft);
        }
        Tool::Xorriso.run(self.fetcher.cache, &arguments)
    }

    fn iso_with(&mut self, image: &Path, inputs: &[(String, PathBuf)]) -> Result<(), GuestError> {
        let mut arguments = words(&["-report_about", "SORRY", "-indev"]);
        for (n, (path, file)) in inputs.iter().enumerate() {
            if n == 0 {
                arguments.extend([file.into(), "-outdev".into(), image.into()]);
                arguments.extend(words(&["-boot_image", "any", "replay"]));
            } else {
                arguments.extend(["-map".into(), file.into(), format!("/{path}").into()]);
            }
        }
        Tool::Xorriso.run(self.fetcher.cache, &arguments)
    }
}

fn words(all: &[&str]) -> Vec<OsString> {
    all.iter().map(OsString::from).collect()
}

/// A whole number with K, M or G, as bytes.
fn bytes_of(text: &str) -> Option<u64> {
    let at = text.len().checked_sub(1)?;
    let shift = match text.as_bytes()[at] {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => return None,
    };
    text.get(..at)?
        .parse::<u32>()
        .ok()
        .map(|n| u64::from(n) << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::image::Refresh;

    fn make(text: &str, part: &str) -> Result<Vec<u8>, GuestError> {
        let described: BTreeMap<String, Part> = toml::from_str(text).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(dir.path()).unwrap();
        let fetcher = Fetcher::new(&mut cache, &[], "i386", Refresh::IfMissing);
        let mut parts = Parts::new("test", &described, fetcher);
        parts.part(part).map(|path| fs::read(path).unwrap())
    }

    #[test]
    fn texts_and_blank_disks_need_no_network() {
        let text = "a = { kind = 'text', text = 'x' }\nb = { kind = 'blank', size = '4K' }";
        assert_eq!(make(text, "a").unwrap(), b"x");
        assert_eq!(make(text, "b").unwrap(), [0; 4096]);
    }

    #[test]
    fn a_part_that_is_missing_or_built_of_itself_is_named() {
        let text = "a = { kind = 'iso-with', base = 'b', files = {} }\n\
                    b = { kind = 'iso', files = { 'x' = 'a' } }\n\
                    c = { kind = 'iso', files = { 'x' = 'none' } }\n\
                    d = { kind = 'blank', size = '1' }";
        let error = |part| make(text, part).unwrap_err().to_string();
        assert!(error("a").contains("part a is built of itself"));
        assert!(error("c").contains("there is no part none"));
        assert!(error("d").contains("'1' is no size"));
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes_of("64M"), Some(64 << 20));
        assert_eq!(bytes_of("2G"), Some(2 << 30));
        assert_eq!(bytes_of(""), None);
        assert_eq!(bytes_of("M"), None);
        assert_eq!(bytes_of("é"), None);
    }
}
