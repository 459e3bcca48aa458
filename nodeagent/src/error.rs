//! Why the agent cannot start or go on.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the agent ended.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The name is no node name.
    #[error("Node name {name:?} is no RFC 1123 label; choose another with --name")]
    InvalidName {
        /// As given.
        name: String,
    },
    /// There is nobody to talk to.
    #[error("No servers are configured; name at least one, such as http://127.0.0.1:7400")]
    NoServers,
    /// A server's address cannot be used.
    #[error("Server {server:?} is no URL such as http://host:port")]
    InvalidServer {
        /// As given.
        server: String,
        /// What is wrong.
        #[source]
        source: tonic::transport::Error,
    },
    /// Another agent uses the data directory.
    #[error("Data directory {path} is in use by another agent; stop it, or choose another --data-dir")]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
    },
    /// Which cluster the agent belongs to cannot be read or written.
    #[error("The cluster's id in data directory {path} cannot be read or written")]
    Belonging {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// KVM was demanded and no guest runs with it.
    #[error("No guest runs with KVM on this machine ({reason}); use --accel auto or --accel tcg")]
    NoKvm {
        /// What was seen.
        reason: String,
    },
    /// The guests' network was demanded and cannot be made.
    #[error("No network for guests ({reason}); use --network auto or --network none")]
    NoNetwork {
        /// What failed, with its remedy.
        reason: String,
    },
    /// The listening socket cannot be made.
    #[error("Cannot listen on {address}; choose another --listen")]
    Listen {
        /// As given.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The node's file of credentials cannot be used.
    #[error(
        "The credentials for registries cannot be used ({reason}); correct the file of --registry-config"
    )]
    RegistryConfig {
        /// What is wrong with it.
        reason: String,
    },
    /// The image store cannot be opened.
    #[error("Cannot open the image store")]
    Images(#[from] crate::image::ImageError),
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

/// Adds operation and path to the error of a file operation.
pub(crate) trait At<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, AgentError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, AgentError> {
        self.map_err(|source| AgentError::Io { operation, path: path.into(), source })
    }
}

/// An error and its causes in one line, for statuses and logs.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
