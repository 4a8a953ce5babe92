//! Guest recipes: where an image comes from, how it boots, what proves that it worked.
//!
//! - [`recipe`]: the recipes, which are data (`guests/recipes/*.toml`);
//! - [`image`]: from a recipe to the files that boot;
//! - [`parts`]: floppies, discs and files that recipes describe;
//! - [`cache`]: where fetched and built files are kept, with their checksums;
//! - [`debian`]: Debian packages by a private apt root, nothing installed;
//! - [`disk`]: a hard disk with Debian installed on it;
//! - [`initramfs`], [`cpio`]: the initial file system around a static busybox;
//! - [`tiny`]: our own guests of one CPU feature each, assembled by nasm;
//! - [`program`]: our own i386 Linux programs, compiled by gcc;
//! - [`session`]: running a guest and reading what it says on its serial port;
//! - [`step`], [`drive`]: driving a guest as a person would, under this monitor or its peer;
//! - [`suite`]: many guests, and the table of their results.

pub mod cache;
pub mod cpio;
pub mod debian;
pub mod disk;
pub mod drive;
mod error;
mod fetch;
pub mod image;
pub mod initramfs;
pub mod parts;
pub mod program;
pub mod recipe;
pub mod session;
pub mod step;
pub mod suite;
pub mod tiny;
mod tools;

pub use error::GuestError;
pub use image::{Image, Refresh, package_file, prepare};
pub use recipe::Recipe;
