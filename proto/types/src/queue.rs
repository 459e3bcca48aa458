//! Queues: whose pods get room in which order, and how much they may have together, as in `scheduling.volcano.sh/v1beta1`.
//!
//! Source: "Queue" in the documentation of Volcano. There is a queue `default` without anybody making it.

use serde::{Deserialize, Serialize};

use crate::{Measure, Name, ObjectMeta, Pod, QuotaAmounts};

/// The annotation of a pod with its queue; that of its PodGroup counts before it.
pub const ANNOTATION_QUEUE_NAME: &str = "scheduling.volcano.sh/queue-name";
/// The queue of pods that name none.
pub const QUEUE_DEFAULT: &str = "default";
/// Weight of a queue that says none.
pub const QUEUE_WEIGHT_DEFAULT: u32 = 1;
/// Largest weight of a queue.
pub const QUEUE_WEIGHT_MAX: u32 = 1 << 16;

/// Whose pods get room in which order, and how much they may have together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Queue {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted.
    pub spec: QueueSpec,
    /// What is known.
    pub status: QueueStatus,
}

/// Whether anything new of a queue gets room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QueueState {
    /// It does.
    #[default]
    Open = 1,
    /// It does not.
    Closed = 2,
    /// It does not, and what had room before still has it. Only known, never wanted.
    Closing = 3,
}

impl QueueState {
    /// The word in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "Open",
            Self::Closed => "Closed",
            Self::Closing => "Closing",
        }
    }
}

/// What is wanted of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QueueSpec {
    /// Its share beside other queues, from 1 to [`QUEUE_WEIGHT_MAX`].
    pub weight: u32,
    /// The most that its pods may use together; what is not named is not bounded.
    pub capability: QuotaAmounts,
    /// Open or Closed.
    pub state: QueueState,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self {
            weight: QUEUE_WEIGHT_DEFAULT,
            capability: QuotaAmounts::default(),
            state: QueueState::default(),
        }
    }
}

/// What is known of a queue. What is bound is checked against what is true then, not against this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QueueStatus {
    /// The spec generation that this follows; 0 before somebody has looked.
    pub observed_generation: u64,
    /// Whether anything new gets room.
    pub state: QueueState,
    /// What its pods use together.
    pub allocated: QuotaAmounts,
    /// Its PodGroups of phase Pending.
    pub pending: u32,
    /// Those of phase Inqueue.
    pub inqueue: u32,
    /// Those of phase Running.
    pub running: u32,
    /// Those of phase Unknown.
    pub unknown: u32,
    /// Those of phase Completed.
    pub completed: u32,
}

/// Whether queues and groups can be told how much there may or must be of something.
#[must_use]
pub fn is_counted_by_queues(measure: &Measure) -> bool {
    matches!(
        measure,
        Measure::RequestsCpu
            | Measure::RequestsMemory
            | Measure::RequestsEphemeralStorage
            | Measure::Pods
            | Measure::Extended(_)
    )
}

impl Pod {
    /// The queue that the pod itself names; `None` of the default one. Text that is no name names none.
    #[must_use]
    pub fn own_queue(&self) -> Option<Name> {
        if self.meta.annotations.is_empty() {
            return None;
        }
        let text = self.meta.annotations.get(ANNOTATION_QUEUE_NAME)?;
        Name::new(text.as_str()).ok().filter(|name| name.as_str() != QUEUE_DEFAULT)
    }
}
