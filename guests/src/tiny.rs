//! Our own guests, one per CPU feature, assembled by nasm.
//!
//! `screen.asm` is a diskette (`recipes/screen.toml`). Each of the others is a bzImage of a few KiB
//! (`guests/tiny/boot.inc` has the header and says how it is entered), so that any loader of the
//! Linux boot protocol runs it. It prints `PASS name` or `FAIL name: what` for each check on the
//! first serial port and on port 0xE9, and ends by the debug-exit port (0x501, QEMU's
//! `isa-debug-exit`, one byte wide: writing `v` ends the machine with status `v << 1 | 1`).

use crate::GuestError;
use crate::cache::{Cache, hexadecimal};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A file of `guests/tiny/` with its name.
macro_rules! files {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("../tiny/", $name)))),*] };
}

/// The includes and sources, by file name.
const SOURCES: [(&str, &str); 16] = files![
    "boot.inc",
    "paging.inc",
    "debug.asm",
    "fpu.asm",
    "direct.asm",
    "hostile.asm",
    "irq.asm",
    "paging.asm",
    "pae.asm",
    "real.asm",
    "rep.asm",
    "rings.asm",
    "screen.asm",
    "smc.asm",
    "tasks.asm",
    "v86.asm",
];

/// The text of a source file of `guests/tiny/`.
pub(crate) fn source(name: &str) -> Option<&'static str> {
    SOURCES
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, text)| *text)
}

/// Assembles one of the sources into the cache, unless this very text was assembled before, and
/// gives the image's path.
///
/// # Errors
/// [`GuestError::Program`] when nasm is missing or rejects the source; [`GuestError::File`].
pub fn assemble(cache: &Cache, name: &str) -> Result<PathBuf, GuestError> {
    let Some(text) = source(name) else {
        return Err(GuestError::BadRecipe {
            file: name.into(),
            reason: "there is no such source".into(),
        });
    };
    let mut hash = Sha256::new();
    for (file, include) in SOURCES.iter().filter(|(n, _)| n.ends_with(".inc")) {
        hash.update(file.as_bytes());
        hash.update(include.as_bytes());
    }
    hash.update(text.as_bytes());
    let digest = hexadecimal(&hash.finalize());
    let directory = cache.directory("tiny")?;
    let stem = name.trim_end_matches(".asm");
    let image = directory.join(format!("{stem}-{}.bin", &digest[..16]));
    if image.exists() {
        return Ok(image);
    }
    // Sources of another version of the program must not be mixed with these.
    let work = cache.directory(&format!("tiny/{}", &digest[..16]))?;
    for (file, text) in SOURCES
        .iter()
        .filter(|(n, _)| *n == name || n.ends_with(".inc"))
    {
        let path = work.join(file);
        fs::write(&path, text).map_err(GuestError::file("write", &path))?;
    }
    let failed = |reason: String| GuestError::Program {
        program: "nasm",
        reason,
    };
    let output = Command::new("nasm")
        .current_dir(&work)
        .args(["-f", "bin", "-Wall", "-Werror", "-o", "image", name])
        .output()
        .map_err(|e| failed(format!("{e} (Debian's package nasm has it)")))?;
    if !output.status.success() {
        return Err(failed(
            String::from_utf8_lossy(&output.stderr)
                .lines()
                .take(5)
                .collect::<Vec<_>>()
                .join("; "),
        ));
    }
    let built = work.join("image");
    fs::rename(&built, &image).map_err(GuestError::file("write", &image))?;
    fs::remove_dir_all(&work).map_err(GuestError::file("remove", &work))?;
    Ok(image)
}
