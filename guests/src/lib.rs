//! Guest recipes: where an image comes from, how it boots, what proves that it worked.
//!
//! - [`recipe`]: the recipes, which are data (`guests/recipes/*.toml`);
//! - [`image`]: from a recipe to the files that boot;
//! - [`cache`]: where fetched and built files are kept, with their checksums;
//! - [`debian`]: Debian packages by a private apt root, nothing installed;
//! - [`initramfs`], [`cpio`]: the initial file system around a static busybox;
//! - [`tiny`]: our own guests of one CPU feature each, assembled by nasm;
//! - [`session`]: running a guest and reading what it says on its serial port.

pub mod cache;
pub mod cpio;
pub mod debian;
mod error;
pub mod image;
pub mod initramfs;
pub mod recipe;
pub mod session;
pub mod tiny;

pub use error::GuestError;
pub use image::{Image, Refresh, package_file, prepare};
pub use recipe::Recipe;
