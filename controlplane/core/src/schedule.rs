//! The scheduler: pods that wait, and nodes for them.
//!
//! ```text
//!  changes ─► NodeIndex (dense slots, what is free, a log of which slots changed)
//!         └─► Shapes (waiting pods by everything that matters to placement)
//!                  │  each with Candidates: its feasible slots in buckets by score, repaired from the log
//!                  ▼
//!             highest priority, then oldest
//!                  ▼
//!             pick: best score, ties by the pod's hash ─► BindPods, SetPodsUnschedulable
//! ```
//!
//! Placing the next pod of a shape takes the top bucket and moves one slot: its cost does not grow with the
//! number of nodes. Filters are those of [`crate::placement`], which `decide` asks again.

mod candidates;
mod index;
mod priority;
mod reconciler;
mod report;
mod score;
mod shape;

pub(crate) use reconciler::Scheduler;
