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

mod address;
mod agent;
mod autoscaler;
mod bandwidth;
mod bytes;
mod claim;
mod codec;
mod command;
mod config;
mod controller_revision;
mod cpu_need;
mod cpu_set;
mod cpu_topology;
mod cron_autoscaler;
mod cron_job;
mod daemon_set;
mod delivery;
mod descheduler;
mod device;
mod device_class;
mod device_fault;
mod device_partition;
mod device_rules;
mod digest;
mod disruption_budget;
mod elastic_quota;
mod elastic_workload;
mod event;
mod expand;
mod feature;
mod field_set;
mod host_port;
mod id;
mod index_set;
mod job;
mod limit_range;
mod managers;
mod meta;
mod name;
mod namespace_defaults;
mod network_selection;
mod node;
mod node_image;
mod node_operation;
mod node_pool;
mod object;
mod owned;
mod placement;
mod pod;
mod pod_addresses;
mod pod_conditions;
mod pod_field;
mod pod_group;
mod priority_class;
mod probe;
mod profile;
mod quantity;
mod queue;
mod quota;
mod quota_resource;
mod rare;
mod rejection;
mod resolved;
mod resources;
mod scheduler_config;
mod security;
mod selector;
mod snapshot;
mod sriov;
mod stateful_set;
mod string_map;
mod sysctl;
mod validate;
mod vertical_autoscaler;
mod volume;
mod workload;

pub use address::*;
pub use agent::*;
pub use autoscaler::*;
pub use bandwidth::*;
pub use bytes::*;
pub use claim::*;
pub use codec::*;
pub use command::*;
pub use config::*;
pub use controller_revision::*;
pub use cpu_need::*;
pub use cpu_set::*;
pub use cpu_topology::*;
pub use cron_autoscaler::*;
pub use cron_job::*;
pub use daemon_set::*;
pub use delivery::*;
pub use descheduler::*;
pub use device::*;
pub use device_class::*;
pub use device_fault::*;
pub use device_partition::*;
pub use device_rules::*;
pub use digest::*;
pub use disruption_budget::*;
pub use elastic_quota::*;
pub use elastic_workload::*;
pub use event::*;
pub use expand::*;
pub use feature::*;
pub use field_set::*;
pub use host_port::*;
pub use id::*;
pub use index_set::*;
pub use job::*;
pub use limit_range::*;
pub use managers::*;
pub use meta::*;
pub use name::*;
pub use namespace_defaults::*;
pub use network_selection::*;
pub use node::*;
pub use node_image::*;
pub use node_operation::*;
pub use node_pool::*;
pub use object::*;
pub use owned::*;
pub use placement::*;
pub use pod::*;
pub use pod_addresses::*;
pub use pod_conditions::*;
pub use pod_field::*;
pub use pod_group::*;
pub use priority_class::*;
pub use probe::*;
pub use profile::*;
pub use quantity::*;
pub use queue::*;
pub use quota::*;
pub use quota_resource::*;
pub use rare::*;
pub use rejection::*;
pub use resolved::*;
pub use resources::*;
pub use scheduler_config::*;
pub use security::*;
pub use selector::*;
pub use snapshot::*;
pub use sriov::*;
pub use stateful_set::*;
pub use string_map::*;
pub use sysctl::*;
pub use validate::*;
pub use vertical_autoscaler::*;
pub use volume::*;
pub use workload::*;
