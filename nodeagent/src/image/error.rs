//! Errors of the image store.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why an image is not ready.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The name is no image reference.
    #[error("{name:?} is no image reference: {reason}")]
    InvalidName {
        /// As given.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody has the image.
    #[error("Image {name} was not found {place}")]
    NotFound {
        /// The image.
        name: String,
        /// Where it was looked for, with a hint.
        place: String,
    },
    /// The registry refuses this client.
    #[error("Registry refuses access to {name}: {reason}; check the image pull secret")]
    Unauthorized {
        /// The image.
        name: String,
        /// What the registry said.
        reason: String,
    },
    /// The registry does not do what it should.
    #[error("Registry failed for {name}: {reason}")]
    Registry {
        /// The image.
        name: String,
        /// What happened.
        reason: String,
    },
    /// Content that is not what its digest says.
    #[error(
        "Blob has digest {actual}, but {expected} was expected; the image is damaged or was tampered with"
    )]
    DigestMismatch {
        /// From the manifest or the reference.
        expected: String,
        /// Of the content.
        actual: String,
    },
    /// Content that is not as long as its descriptor says.
    #[error("Blob {digest} is longer than the {size_bytes} bytes that its descriptor says")]
    SizeMismatch {
        /// Of the descriptor.
        digest: String,
        /// Of the descriptor.
        size_bytes: u64,
    },
    /// The image would take more than its limit.
    #[error(
        "Image needs more than the limit of {limit} {what}; raise the limit in the agent's configuration"
    )]
    TooLarge {
        /// Unit of the limit.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// No variant of the image runs on this machine.
    #[error("Image {name} is for {found}, this node runs linux/amd64")]
    WrongPlatform {
        /// The image.
        name: String,
        /// Platforms of the image.
        found: String,
    },
    /// A manifest, index or configuration that cannot be used.
    #[error("Image {name}: {what} is not valid: {reason}")]
    Malformed {
        /// The image.
        name: String,
        /// Which part.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A layer that tries to write outside of its image, or otherwise breaks the rules.
    #[error("Layer entry {path:?} is refused: {reason}")]
    HostileLayer {
        /// Path as in the layer.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// A program that this needs is not installed.
    #[error("{program} is not installed; run: apt-get install {package}")]
    ProgramMissing {
        /// Name of the program.
        program: &'static str,
        /// Debian package that has it.
        package: &'static str,
    },
    /// A program failed.
    #[error("{program} failed: {output}")]
    ProgramFailed {
        /// Name of the program.
        program: &'static str,
        /// Status and last lines of its output.
        output: String,
    },
    /// No space left.
    #[error("Disk is full while writing {path}; free some space or remove unused images")]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The image is in use.
    #[error("Image {name} is in use")]
    InUse {
        /// The image.
        name: String,
    },
    /// A file operation failed.
    #[error("Cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// A file operation's error; a full disk gets its own variant.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.into() },
            _ => Self::Io { operation, path: path.into(), source },
        }
    }
}

/// Adds operation and path to the error of a file operation.
pub(super) trait IoContext<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, ImageError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::io(operation, path, source))
    }
}

impl<T> IoContext<T> for rustix::io::Result<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|errno| ImageError::io(operation, path, errno.into()))
    }
}
