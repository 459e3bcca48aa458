//! Other sizes for a guest that runs: its processors, its memory, its containers.

use crate::message::check_length;
use crate::{CONTAINERS_MAX, DecodeError, NAME_LENGTH_MAX, TEXT_LENGTH_MAX};

/// What a guest should become. What is already so changes nothing. Nothing is changed when a container uses more memory than it
/// should have.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resize {
    /// Comes back in the [`Resized`].
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// So many processors should be in use; 0 leaves them.
    #[prost(uint32, tag = "2")]
    pub cpus: u32,
    /// Memory that is added is to be used, and to be given back when that is asked for.
    #[prost(bool, tag = "3")]
    pub memory: bool,
    /// Limits of containers.
    #[prost(message, repeated, tag = "4")]
    pub containers: Vec<ContainerLimits>,
}

/// What a container may use.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerLimits {
    /// Name of the container.
    #[prost(string, tag = "1")]
    pub name: String,
    /// As in [`crate::host::ContainerConfig`].
    #[prost(uint64, tag = "2")]
    pub cpu_millis: u64,
    /// As in [`crate::host::ContainerConfig`].
    #[prost(uint64, tag = "3")]
    pub memory_bytes: u64,
    /// As in [`crate::host::ContainerConfig`].
    #[prost(uint64, tag = "4")]
    pub cpu_request_millis: u64,
    /// It is restarted for them, if they are others than it has.
    #[prost(bool, tag = "5")]
    pub restart: bool,
}

/// What came of a [`Resize`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resized {
    /// Of the Resize.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Why it is not so; empty when it is.
    #[prost(string, tag = "2")]
    pub error: String,
    /// A container uses more memory than it should have.
    #[prost(bool, tag = "3")]
    pub in_use: bool,
    /// Processors in use now.
    #[prost(uint32, tag = "4")]
    pub cpus: u32,
}

impl Resize {
    /// Checks what the guest relies on.
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        if self.containers.len() > CONTAINERS_MAX {
            return Err(DecodeError::Invalid { field: "Resize.containers", reason: "are too many".into() });
        }
        self.containers
            .iter()
            .try_for_each(|one| check_length("ContainerLimits.name", &one.name, NAME_LENGTH_MAX))
    }
}

impl Resized {
    /// Checks every bound.
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_length("Resized.error", &self.error, TEXT_LENGTH_MAX)
    }
}
