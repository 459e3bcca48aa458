//! Errors of the frame layer and of the message layer.

use thiserror::Error;

/// Something wrong in the byte stream. The reader has already skipped it and can go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Bytes that belong to no frame.
    #[error("{bytes} bytes that belong to no frame were skipped")]
    Garbage {
        /// How many bytes were skipped.
        bytes: usize,
    },
    /// A header announces more than [`crate::FRAME_LENGTH_MAX`].
    #[error("a frame of {length} bytes was announced, the limit is {limit}")]
    TooLong {
        /// Announced (when reading) or actual (when encoding) length of the payload, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The payload does not match its checksum.
    #[error("a frame of {length} bytes fails its CRC32C check")]
    Checksum {
        /// Announced length of the payload, in bytes.
        length: usize,
    },
}

/// A payload that is not an acceptable message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not a Protocol Buffers encoding of the expected message.
    #[error("The payload is no valid message")]
    Malformed(#[from] prost::DecodeError),
    /// No known message inside: the other side is newer, or sends nonsense.
    #[error("The payload holds no message that protocol version {} knows", crate::PROTOCOL_VERSION)]
    Unknown,
    /// A field is longer, larger or stranger than the protocol allows.
    #[error("Field {field}: {reason}")]
    Invalid {
        /// Message and field, e.g. `LogChunk.data`.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}
