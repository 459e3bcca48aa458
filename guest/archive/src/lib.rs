//! Files and folders as a tar stream, and back, for `cp`: the guest packs what the client unpacks, and the other way
//! round.
//!
//! ```text
//!  pack:    path ─► walk (no link is followed below it) ─► "name", "name/a", "name/b/c" …
//!  unpack:  … ─► below TARGET, if that is a folder; as TARGET, if nothing is there
//! ```
//! Who unpacks trusts neither the stream nor what is below the target: every path is plain, every folder is opened
//! beneath the target and never through a link, and what is read of the stream at once is bounded.

mod pack;
mod unpack;

use std::fmt::Display;
use std::io;

pub use pack::pack;
pub use unpack::{Links, unpack};

/// The error with what was being done.
fn context(what: impl Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
