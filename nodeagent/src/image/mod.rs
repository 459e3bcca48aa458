//! OCI images on this node: fetched or imported, checked, and flattened into one read-only ext4 file each.
//!
//! ```text
//!  registry ─┐                                   ┌─► <digest>.ext4 ──create_overlay──► a container's qcow2 disk
//!  layout ───┴─► manifest ─► layers ─► Unpacker ─┤
//!                    digests checked on the way  └─► <digest>.json ──resolve_process──► argv, env, user
//! ```
//!
//! Entry points: [`ImageStore`], [`create_overlay`] and [`resolve_process`]. Images are hostile: every size is
//! bounded, every path is resolved inside the image, and nothing of an image is ever executed or mounted on the host.

mod config;
mod digest;
mod error;
mod files;
mod flatten;
mod keyring;
mod layer;
mod layout;
mod process;
mod qcow2;
mod registry;
mod store;
mod watch;

pub(crate) use config::signal_number;
pub use config::{Group, ImageConfig, User};
pub use digest::ImageDigest;
pub use error::ImageError;
pub(crate) use flatten::make_file_system;
pub use flatten::{create_empty, create_overlay, create_volume, volume_length};
pub use keyring::{Keyring, read_registry_config};
pub use process::{ContainerProcess, ProcessError, ProcessOverrides, resolve_process};
pub(crate) use watch::watch;

pub use store::{Image, ImageStore, ImageStoreOptions, ImageSummary, PullPolicy};
