//! How much the containers of a workload request: measurements become a recommendation, and that requests. Pure, and in
//! whole numbers only, so that it comes out the same wherever it is computed.
//!
//! ```text
//!  soft state ─ samples ─► ContainerModel (histograms) ─ estimate ─► status ─ logged ─► resize ─► new pods, evictions
//! ```
//!
//! Source: "Vertical Pod Autoscaling" in the Kubernetes documentation, and its recommender and updater
//! (github.com/kubernetes/autoscaler, vertical-pod-autoscaler): buckets, half-life, percentiles, margin, confidence and
//! the reaction to OOM kills are theirs.

mod estimate;
mod histogram;
mod model;
mod resize;
mod verdict;

pub use estimate::{CPU_LEAST_MILLIS, MEMORY_LEAST_BYTES, estimate};
pub use histogram::{Buckets, HALF_LIFE_MS, Histogram, Percent};
pub use model::{ContainerModel, CpuSample, PEAK_WINDOW_MS};
pub(crate) use resize::{Resized, check_eviction, fit, is_misfit, workload_of};
pub use verdict::{CHECKPOINT_MS, Models, look};
