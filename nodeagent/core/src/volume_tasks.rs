//! What the control plane wants done with volumes: growing, snapshots, copies; what stands in an intent, and nothing else.
//!
//! ```text
//!             no guest has it, or one that speaks
//!  Kept ─────────────────────────────────────────► Asked ──┬── done ────────► Over, told with every report until no intent
//!   ▲                                                      │                        names it
//!   ├──── its time has come ── Failed ◄──── went wrong ────┤
//!   └──── a guest has it ───── Grown  ◄──── file only ─────┘    (an expansion: the guest's kernel does the rest)
//! ```
//!
//! While something is asked for, no guest starts with the volumes that it is about, and nothing of them is deleted: a copy
//! is of one moment. A guest that is about to begin or to end is waited for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bulkhead_types::{ITEMS_MAX, ObjectId, VolumeOrder, VolumeResult, VolumeTask};
use uuid::Uuid;

use crate::Action;

/// A guest that has a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pod: ObjectId,
    pub(crate) instance: u32,
    /// It was heard, and is not about to end.
    pub(crate) speaks: bool,
}

/// The orders of the last accepted intent, by what they are for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(BTreeMap<ObjectId, Task>);

#[derive(Clone, Debug)]
struct Task {
    order: VolumeOrder,
    stage: Stage,
    /// What is wanted instead once the host has answered; the inner `None`: nothing.
    next: Option<Option<VolumeOrder>>,
    /// What came of the last try, and whether a report has said so.
    result: Option<(VolumeResult, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was done yet.
    Kept,
    /// The host was asked, and answers for certain.
    Asked,
    /// It could not be done; it is tried again at this time, in milliseconds.
    Failed { retry_at_ms: u64 },
    /// The file has its size; the file system gets it with the next guest that speaks.
    Grown,
    /// All of it is done.
    Over,
}

impl Task {
    fn new(order: VolumeOrder) -> Self {
        Self { order, stage: Stage::Kept, next: None, result: None }
    }

    /// The volume that must not be written to behind the host's back.
    fn subject(&self) -> Uuid {
        match self.order.task {
            VolumeTask::Expand => self.order.volume,
            VolumeTask::Snapshot | VolumeTask::Restore | VolumeTask::Clone => self.order.source,
        }
    }

    fn holder<'a>(&self, holders: &'a BTreeMap<Uuid, Holder>) -> Option<&'a Holder> {
        holders.get(&self.subject())
    }

    /// Whether nothing but time is in the way.
    fn is_free(&self, holders: &BTreeMap<Uuid, Holder>) -> bool {
        let holder = self.holder(holders);
        match self.stage {
            Stage::Grown => holder.is_some_and(|holder| holder.speaks),
            _ => holder.is_none_or(|holder| holder.speaks),
        }
    }
}

impl Tasks {
    /// Takes over what an accepted intent says. What is asked for already goes on to its end.
    pub(crate) fn set(&mut self, wanted: &[VolumeOrder]) {
        let orders: BTreeMap<ObjectId, VolumeOrder> = wanted.iter().map(|order| (order.id, *order)).collect();
        self.0.retain(|id, task| {
            let wanted = orders.get(id).copied();
            let is_same = wanted == Some(task.order);
            task.next = (!is_same).then_some(wanted);
            is_same || task.stage == Stage::Asked
        });
        for (id, order) in orders {
            self.0.entry(id).or_insert(Task::new(order));
        }
    }

    /// Asks for what can be done now.
    pub(crate) fn step(
        &mut self,
        now_ms: u64,
        holders: &BTreeMap<Uuid, Holder>,
        actions: &mut VecDeque<Action>,
    ) {
        for task in self.0.values_mut() {
            let is_due = match task.stage {
                Stage::Kept | Stage::Grown => true,
                Stage::Failed { retry_at_ms } => now_ms >= retry_at_ms,
                Stage::Asked | Stage::Over => false,
            };
            if is_due && task.is_free(holders) {
                let guest = task.holder(holders).map(|holder| (holder.pod, holder.instance));
                task.stage = Stage::Asked;
                actions.push_back(Action::VolumeTask { order: task.order, guest });
            }
        }
    }

    /// The host's answer.
    pub(crate) fn answered(&mut self, now_ms: u64, retry_ms: u64, result: VolumeResult) {
        let Some(task) = self.0.get_mut(&result.id) else { return };
        if task.stage != Stage::Asked || task.order.task != result.task {
            return;
        }
        match task.next.take() {
            None => {}
            Some(None) => {
                self.0.remove(&result.id);
                return;
            }
            Some(Some(order)) => return *task = Task::new(order),
        }
        task.stage = if result.done {
            Stage::Over
        } else if result.task == VolumeTask::Expand && result.message.is_empty() {
            Stage::Grown
        } else {
            Stage::Failed { retry_at_ms: now_ms.saturating_add(retry_ms.max(1)) }
        };
        // What was said already is not said again.
        let told = task.result.as_ref().is_some_and(|(former, told)| *told && *former == result);
        task.result = Some((result, told));
    }

    /// The volumes that something is being done with.
    pub(crate) fn busy(&self) -> BTreeSet<Uuid> {
        let asked = self.0.values().filter(|task| task.stage == Stage::Asked);
        asked
            .flat_map(|task| [task.order.volume, task.order.source])
            .filter(|volume| !volume.is_nil())
            .collect()
    }

    /// A new session knows nothing of what an earlier one was told.
    pub(crate) fn forget_reports(&mut self) {
        for (_, told) in self.0.values_mut().filter_map(|task| task.result.as_mut()) {
            *told = false;
        }
    }

    /// Whether something is to be told that no report has said.
    pub(crate) fn has_news(&self) -> bool {
        self.0.values().any(|task| matches!(task.result, Some((_, false))))
    }

    /// What a report says: what is done each time, because reports may be lost; what is not once.
    pub(crate) fn take_report(&mut self) -> Vec<VolumeResult> {
        let mut results = Vec::new();
        for task in self.0.values_mut() {
            let Some((result, told)) = task.result.as_mut() else { continue };
            if (!*told || result.done) && results.len() < ITEMS_MAX {
                *told = true;
                results.push(result.clone());
            }
        }
        results
    }

    /// When something is tried again, in milliseconds; what waits for a guest waits for that instead.
    pub(crate) fn deadline_ms(&self, holders: &BTreeMap<Uuid, Holder>) -> Option<u64> {
        let due = |task: &Task| match task.stage {
            Stage::Failed { retry_at_ms } if task.is_free(holders) => Some(retry_at_ms),
            _ => None,
        };
        self.0.values().filter_map(due).min()
    }
}
