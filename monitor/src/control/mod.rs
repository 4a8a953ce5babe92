//! The control socket: a running machine, seen and driven from outside.

pub mod keys;
mod orders;
mod picture;
pub mod protocol;
mod remote;
mod screen;
mod server;

pub use orders::{Order, Orders};
pub use remote::Remote;
pub use screen::{Changes, Screen};
pub use server::{ControlError, ControlServer};
