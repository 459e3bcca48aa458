//! What makes a guest one of its own that began as a copy of another one.

use crate::message::check_length;
use crate::{DecodeError, TEXT_LENGTH_MAX};

/// Least randomness of a [`Reseed`], in bytes: what the kernel's generator is keyed with.
pub const ENTROPY_LENGTH_MIN: usize = 32;
/// Most, in bytes.
pub const ENTROPY_LENGTH_MAX: usize = 256;

/// Randomness of the host, and its time. Before Configure only, and only where the guest's Hello says that it can. Answered with a
/// [`Reseeded`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reseed {
    /// For the kernel's generator: what it gives from then on is nobody else's. [`ENTROPY_LENGTH_MIN`] to [`ENTROPY_LENGTH_MAX`] bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub entropy: Vec<u8>,
    /// What the host's clock shows, in milliseconds since the epoch: the copy's stands where that of the first one stood.
    #[prost(uint64, tag = "2")]
    pub unix_ms: u64,
}

impl Reseed {
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        let field = "Reseed.entropy";
        check_length(field, &self.entropy, ENTROPY_LENGTH_MAX)?;
        if self.entropy.len() < ENTROPY_LENGTH_MIN {
            let reason = format!("{} bytes, at least {ENTROPY_LENGTH_MIN} are needed", self.entropy.len());
            return Err(DecodeError::Invalid { field, reason });
        }
        Ok(())
    }
}

/// What came of a [`Reseed`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reseeded {
    /// Why it was not done; empty when it was.
    #[prost(string, tag = "1")]
    pub error: String,
}

impl Reseeded {
    pub(crate) fn validate(&self) -> Result<(), DecodeError> {
        check_length("Reseeded.error", &self.error, TEXT_LENGTH_MAX)
    }
}
