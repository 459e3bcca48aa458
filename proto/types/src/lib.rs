//! The vocabulary of Bulkhead: ids, quantities, selectors, resources, commands and events as validated data.
//!
//! ```text
//!  manifest (YAML) ─┐                        ┌─► controlplane/core   decide / evolve over these types
//!  proto (wire)  ───┴─► bulkhead-types ──────┼─► nodeagent/core      intents in, reports out
//!                                            └─► proto               wire form, golden bytes
//! ```
//!
//! Entry points: [`Object`] (everything stored), [`Command`] (what somebody wants), [`Event`] (what happened),
//! [`Intent`] (what a node should run) and [`AgentReport`] (what it does run).
//!
//! This crate never does IO, never reads a clock, and knows nothing of protobuf, YAML or Raft. Field names,
//! units and defaults are those of the Kubernetes API where Kubernetes has them; units come last in a name
//! (`cpu_millis`, `memory_bytes`, `grace_ms`).

mod agent;
mod codec;
mod command;
mod digest;
mod event;
mod feature;
mod id;
mod meta;
mod name;
mod node;
mod object;
mod pod;
mod quantity;
mod rejection;
mod resources;
mod selector;
mod string_map;
mod validate;
mod workload;

pub use agent::*;
pub use codec::*;
pub use command::*;
pub use digest::*;
pub use event::*;
pub use feature::*;
pub use id::*;
pub use meta::*;
pub use name::*;
pub use node::*;
pub use object::*;
pub use pod::*;
pub use quantity::*;
pub use rejection::*;
pub use resources::*;
pub use selector::*;
pub use string_map::*;
pub use validate::*;
pub use workload::*;
