//! Our own i386 Linux programs (`guests/programs/`), compiled by gcc without a C library.

use crate::GuestError;
use crate::cache::{Cache, hexadecimal};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A file of `guests/programs/` with its name.
macro_rules! files {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("../programs/", $name)))),*] };
}

/// The sources, by file name; the first two are part of every program.
const SOURCES: [(&str, &str); 13] = files![
    "guest.h",
    "guest.c",
    "code.c",
    "debug.c",
    "faults.c",
    "hungry.c",
    "jail.c",
    "many.c",
    "mappings.c",
    "numeric.c",
    "ports.c",
    "selectors.c",
    "state.c",
];

/// Code for any processor that the guests' kernels run on, and nothing that a C library or the
/// compiler's own would have to give.
const FLAGS: [&str; 16] = [
    "-m32",
    "-march=i686",
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-static",
    "-nostdlib",
    "-ffreestanding",
    "-fno-pie",
    "-no-pie",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-Wl,--build-id=none,-z,noexecstack",
];

/// Whether there is a program of this name (its file without `.c`).
#[must_use]
pub fn exists(name: &str) -> bool {
    source(name).is_some()
}

fn source(name: &str) -> Option<&'static str> {
    SOURCES
        .iter()
        .skip(2)
        .find(|(file, _)| file.strip_suffix(".c") == Some(name))
        .map(|(_, text)| *text)
}

/// Compiles a program into the cache, unless these very sources were compiled before, and gives
/// the path of the static ELF executable.
///
/// # Errors
/// [`GuestError::Program`] when gcc is missing or rejects the source; [`GuestError::File`].
pub fn compile(cache: &Cache, name: &str) -> Result<PathBuf, GuestError> {
    let Some(text) = source(name) else {
        return Err(GuestError::BadRecipe {
            file: name.into(),
            reason: "there is no such program".into(),
        });
    };
    let mut hash = Sha256::new();
    for part in SOURCES[..2].iter().map(|(_, text)| *text).chain([text]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(FLAGS.join(" "));
    let digest = hexadecimal(&hash.finalize());
    let directory = cache.directory("programs")?;
    let program = directory.join(format!("{name}-{}", &digest[..16]));
    if program.exists() {
        return Ok(program);
    }
    // Sources of another version must not be mixed with these.
    let work = cache.directory(&format!("programs/{}", &digest[..16]))?;
    let own = format!("{name}.c");
    for (file, text) in SOURCES[..2].iter().chain([&(own.as_str(), text)]) {
        let path = work.join(file);
        fs::write(&path, text).map_err(GuestError::file("write", &path))?;
    }
    let failed = |reason: String| GuestError::Program {
        program: "gcc",
        reason,
    };
    let output = Command::new("gcc")
        .current_dir(&work)
        .args(FLAGS)
        .args(["-o", "program", &own, "guest.c"])
        .output()
        .map_err(|e| failed(format!("{e} (Debian's package gcc has it)")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let first: Vec<_> = text.lines().take(5).collect();
        return Err(failed(first.join("; ")));
    }
    let built = work.join("program");
    fs::rename(&built, &program).map_err(GuestError::file("write", &program))?;
    fs::remove_dir_all(&work).map_err(GuestError::file("remove", &work))?;
    Ok(program)
}
