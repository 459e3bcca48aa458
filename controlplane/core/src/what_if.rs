//! What would happen: a question about the cluster, tried on a copy of its State.
//!
//! ```text
//!  State ──copy──► Trial: nodes come, files are submitted, nodes are drained by evictions
//!                    │  ▲
//!        reconcilers │  │ agents that do at once what is wanted of them
//!                    ▼  │
//!                  at rest ──► Answer: what is placed where, what waits and why, what stays
//! ```
//!
//! The copy costs nothing; rules, budgets, quotas and scheduler are the real ones. Left out are the reconcilers that go
//! by calendars and measurements (see [`Reconcilers::on_trial`]): nothing is measured in a trial. Entry point: [`ask`].
//! Never changes the State that it is asked about.
//!
//! [`Reconcilers::on_trial`]: crate::reconcile::Reconcilers::on_trial

mod advice;
mod answer;
mod trial;

use bulkhead_types::{Name, NodeFacts, ObjectRef, Rejection, Resources, Stamped, StringMap, Taint};

use crate::State;

use trial::Trial;

pub use advice::{Advice, AdviceQuestion, Expander, GROWTH_MAX, Growth, Removal, advise};

/// Nodes that a question may add, at most.
pub const NODES_ADDED_MAX: u32 = 5000;
/// How much time may pass in a trial, in milliseconds: enough for `minReadySeconds` of a few steps.
pub const HORIZON_MS: u64 = 3_600_000;

/// A question: all of it at once.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Nodes that come, before anything else happens.
    pub added: Vec<AddedNodes>,
    /// What is submitted then.
    pub submission: Option<Stamped>,
    /// Nodes that are drained: cordoned, their pods evicted as budgets allow it.
    pub drained: Vec<Name>,
}

/// Nodes that are alike.
#[derive(Clone, Debug)]
pub struct AddedNodes {
    /// How many, from 1.
    pub count: u32,
    /// What they are.
    pub shape: NodeShape,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum NodeShape {
    /// As this one, empty and not cordoned.
    Like(Name),
    /// So much for pods.
    Of {
        /// What pods may use.
        allocatable: Resources,
        /// Most pods at a time.
        pods_max: u32,
        /// Its labels, beside its name's.
        labels: StringMap,
        /// Its taints.
        taints: Vec<Taint>,
    },
}

/// What would become of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It would be placed on this node.
    Placed {
        /// Its name.
        node: Name,
    },
    /// It would wait.
    Waits {
        /// What the scheduler says of it.
        reason: String,
    },
    /// It would end on the node that it is on now.
    Ends {
        /// Its name.
        node: Name,
    },
    /// It would stay on a node that is drained.
    Stays {
        /// Its name.
        node: Name,
        /// Why.
        reason: String,
    },
}

/// A pod of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFate {
    /// Which pod.
    pub pod: ObjectRef,
    /// It is not there yet.
    pub is_new: bool,
    /// What would become of it.
    pub fate: Fate,
}

/// What is reserved on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Of pods, with overhead.
    pub requests: Resources,
    /// How many.
    pub pods: u32,
}

/// A node on which something would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOutlook {
    /// Its name.
    pub name: Name,
    /// It is not there yet.
    pub is_new: bool,
    /// What pods may use.
    pub allocatable: Resources,
    /// Now.
    pub before: Load,
    /// Then.
    pub after: Load,
}

/// What would happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Pods of which something would change, and those that would wait: in order of name, ending ones first.
    pub pods: Vec<PodFate>,
    /// Nodes on which something would change, in order of name.
    pub nodes: Vec<NodeOutlook>,
    /// Nothing more would happen. Otherwise the trial was ended before it came to rest.
    pub at_rest: bool,
}

/// Tries what would happen to `state`. `may_go_on` is asked now and then, and ends the trial when it says no.
///
/// # Errors
/// Why the question cannot be asked: a node that is not there, a submission that is refused, too many nodes.
pub fn ask(
    state: &State,
    question: &Question,
    now_ms: u64,
    may_go_on: &mut dyn FnMut() -> bool,
) -> Result<Answer, Rejection> {
    let mut trial = Trial::new(state.clone(), now_ms);
    trial.add(&question.added)?;
    if let Some(submission) = &question.submission {
        trial.submit(submission)?;
    }
    trial.drain(&question.drained)?;
    let at_rest = trial.run(may_go_on);
    Ok(answer::compare(state, &trial, at_rest))
}

/// Facts of a node that is all for pods.
fn facts_of(allocatable: Resources, pods_max: u32, labels: &StringMap) -> NodeFacts {
    NodeFacts { capacity: allocatable, allocatable, pods_max, labels: labels.clone(), ..NodeFacts::default() }
}
