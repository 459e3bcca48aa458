//! The scheduler: pods that wait, and nodes for them.
//!
//! ```text
//!  changes ─► NodeIndex (dense slots, what is free, a log of which slots changed, nodes by label)
//!         └─► Shapes (waiting pods by everything that matters to placement)
//!                  │  each with Candidates: its feasible slots in cells by what other pods allow (Plan), and there in buckets by
//!                  │  score; repaired from the log
//!                  ▼
//!             highest priority, then oldest
//!                  ▼
//!             pick: best score, ties by the pod's hash ─► BindPods, SetPodsUnschedulable
//!                  │ none, and lower ones are bound
//!                  ▼
//!             Preemptor ─► Preempt, PreemptForGroup: room is kept, others end
//! ```
//!
//! Placing the next pod of a shape takes the top bucket and moves one slot: its cost does not grow with the
//! number of nodes. Filters are those of [`crate::placement`], which `decide` asks again. Who is near whom is a part of the
//! State; a run counts what it binds on a copy.

mod candidates;
mod fairness;
mod gangs;
mod group_preemptor;
mod group_search;
mod hall;
mod held;
mod index;
mod ledgers;
mod loads;
mod place;
mod plan;
mod pod_groups;
mod preemptor;
mod reclaim;
mod reconciler;
mod report;
mod reserves;
mod score;
mod search;
mod shape;
mod shapes;
mod tell;
mod topology;
mod victims;

pub(crate) use reconciler::Scheduler;
