//! How many pods a workload shall have: figures become a recommendation, and that a size. Pure.
//!
//! ```text
//!  State + soft state ─ figures ─► [PodFigure] ─ metric ─► MetricReading ─ pace ─► size ─ verdict ─► Decision
//! ```
//!
//! Source: "Algorithm details" of "Horizontal Pod Autoscaling" in the Kubernetes documentation. One thing differs: what is
//! multiplied is the size that the workload shall have, not how many pods it has now, so that pods which a rollout adds for
//! a while ask for no others.

mod figures;
mod metric;
mod pace;
mod query;
mod verdict;

pub use figures::{CPU_INITIALIZATION_MS, INITIAL_READINESS_MS, read_figures, workload_pods};
pub use metric::{PodFigure, read_metric};
pub use pace::{Limits, limits};
pub use query::{QUERIES_MAX, queries, query_text};
pub use verdict::{Decision, Look, REFRESH_MS, look};
