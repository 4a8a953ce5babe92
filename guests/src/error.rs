//! Why a guest could not be made ready.

use std::path::PathBuf;

/// Why a guest could not be made ready or run.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// No recipe has this name.
    #[error("there is no guest named '{0}': 'ring3 guests list' shows those there are")]
    UnknownGuest(String),
    /// A recipe that the program carries does not parse: a bug in the recipe.
    #[error("recipe {file} is not valid: {reason}")]
    BadRecipe {
        /// The recipe's file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Neither RING3_CACHE, XDG_CACHE_HOME nor HOME says where the cache is.
    #[error("no cache directory: set RING3_CACHE, XDG_CACHE_HOME or HOME")]
    NoCacheDirectory,
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// "read", "write" …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A program that is needed is not there or failed.
    #[error("{program} failed: {reason}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// Its last words, or why it did not start.
        reason: String,
    },
    /// Debian has no package that fits the recipe.
    #[error("no Debian package fits {pattern} {version} for {architecture}")]
    NoPackage {
        /// The name patterns.
        pattern: String,
        /// The version's required beginning.
        version: String,
        /// The Debian architecture.
        architecture: String,
    },
    /// A cached file is not what was fetched.
    #[error(
        "{} has SHA-256 {found}, but {expected} was recorded when it was fetched; delete it and fetch again",
        path.display()
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Recorded digest.
        expected: String,
        /// Digest now.
        found: String,
    },
    /// A package lacks a file that the recipe names.
    #[error("{package} holds no file {path}")]
    NotInPackage {
        /// The package file.
        package: String,
        /// The path's required beginning.
        path: String,
    },
}

impl GuestError {
    /// For `map_err`: an I/O error on `path` while doing `action`.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}
