//! An image whose writable media are copies, if its recipe wants that. They are removed with it.

use super::process::scratch;
use crate::disk::copy_sparse;
use crate::image::Image;
use crate::recipe::DriveKind;
use std::path::PathBuf;

pub(super) struct Copies {
    pub image: Image,
    directory: Option<PathBuf>,
}

impl Copies {
    pub fn of(image: &Image) -> Result<Self, String> {
        let mut copies = Self {
            image: image.clone(),
            directory: None,
        };
        if !image.boot.copies {
            return Ok(copies);
        }
        let directory = scratch()?;
        copies.directory = Some(directory.clone());
        for (n, (kind, medium)) in copies.image.drives.iter_mut().enumerate() {
            if *kind == DriveKind::Cdrom {
                continue;
            }
            let copy = directory.join(format!("drive{n}"));
            copy_sparse(medium, &copy)
                .map_err(|e| format!("cannot copy {}: {e}", medium.display()))?;
            *medium = copy;
        }
        copies.image.keep_writes = true;
        Ok(copies)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            // Only temporary files: that they may stay behind does no harm.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
