//! The wire form of Bulkhead: gRPC services, messages, their conversion to domain types, and the log's bytes.
//!
//! ```text
//!  client ─► v1::SubmitRequest ─► convert (checks) ─► bulkhead_types ─► core
//!                                                         │  ▲
//!                                               ProtoCodec ▼  │  canonical bytes, nothing unknown
//!                                                    log · events · snapshots
//! ```
//!
//! Entry points: [`v1`] (generated messages, clients and servers), [`Submission`] (what a
//! client asks for, checked), [`ProtoCodec`] (the log), and `From`/`TryFrom` between the two worlds.
//!
//! This crate never does IO and decides nothing.

mod codec;
mod convert;

#[cfg(feature = "strategies")]
pub mod strategies;

pub use codec::*;
pub use convert::*;

/// Messages of the package `bulkhead.v1`, with the feature `services` its clients and servers too, generated from
/// `proto/bulkhead/v1/*.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
#[allow(clippy::unwrap_used, clippy::too_many_lines, clippy::disallowed_methods, clippy::disallowed_types)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/bulkhead.v1.rs"));
}

/// The encoded `FileDescriptorSet` of all files of this package, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/bulkhead.v1.descriptors.bin"));
