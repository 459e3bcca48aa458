//! Orders for which a pod's task had no room, kept in their order until it has.
//!
//! ```text
//!  actions ─► poll_action ─► host ── no room ──► Backlog::refused
//!     ▲            └─ of a pod that is behind ──► Backlog::divert          nothing overtakes what was refused
//!     └──────────── tick, once it is time ◄────── Backlog::take_due
//! ```
//!
//! What is asked for again and again while a pod's task is busy is kept once, and what only the newest is of use of replaces the one
//! before, so that a pod has few orders here however long its task takes.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_types::ObjectId;

use crate::Action;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backlog {
    pods: BTreeMap<ObjectId, VecDeque<Action>>,
    /// When the host is asked again, in milliseconds; of use while there is something.
    retry_at_ms: u64,
}

impl Backlog {
    /// The host had no room for an action; it is asked again at this time. False for one that is about no pod: nobody keeps it.
    pub(crate) fn refused(&mut self, action: Action, retry_at_ms: u64) -> bool {
        let Some(pod) = pod_of(&action) else { return false };
        if self.pods.is_empty() {
            self.retry_at_ms = retry_at_ms;
        }
        // It was asked for before all that is here.
        self.pods.entry(pod).or_default().push_front(action);
        true
    }

    /// Keeps an action back whose pod is behind; otherwise gives it back.
    pub(crate) fn divert(&mut self, action: Action) -> Option<Action> {
        let Some(orders) = pod_of(&action).and_then(|pod| self.pods.get_mut(&pod)) else {
            return Some(action);
        };
        match &action {
            // Nothing lies between the two.
            Action::PersistRecord(_) if matches!(orders.back(), Some(Action::PersistRecord(_))) => {
                orders.pop_back();
            }
            Action::UpdateFiles { instance, .. } => orders
                .retain(|order| !matches!(order, Action::UpdateFiles { instance: of, .. } if of == instance)),
            Action::SetCpus { instance, .. } => orders
                .retain(|order| !matches!(order, Action::SetCpus { instance: of, .. } if of == instance)),
            Action::KillVm { .. } | Action::CleanUp { .. } | Action::ResizeVm(_) => {
                let begins = |order: &Action| matches!(order, Action::Prepare { .. } | Action::StartVm(_));
                // What is asked for again of the same guest.
                let since = orders.iter().rev().take_while(|order| !begins(order));
                if since.into_iter().any(|order| *order == action) {
                    return None;
                }
            }
            _ => {}
        }
        orders.push_back(action);
        None
    }

    /// Everything that is kept, once it is time, pod by pod and each in its order.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Vec<Action> {
        if now_ms < self.retry_at_ms {
            return Vec::new();
        }
        std::mem::take(&mut self.pods).into_values().flatten().collect()
    }

    /// When the host is asked again, in milliseconds.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        (!self.pods.is_empty()).then_some(self.retry_at_ms)
    }
}

/// Whose task does it.
fn pod_of(action: &Action) -> Option<ObjectId> {
    match action {
        Action::Prepare { pod } => Some(pod.id),
        Action::PersistRecord(record) => Some(record.pod),
        Action::StartVm(start) => Some(start.pod.id),
        Action::ResizeVm(order) => Some(order.pod.id),
        Action::ForgetRecord { pod }
        | Action::UpdateFiles { pod, .. }
        | Action::SetCpus { pod, .. }
        | Action::StopVm { pod, .. }
        | Action::KillVm { pod, .. }
        | Action::CleanUp { pod, .. } => Some(*pod),
        // Its answer says that it could not be done, and it is asked for again.
        Action::VolumeTask { .. }
        | Action::Join
        | Action::Report(_)
        | Action::DeleteVolume { .. }
        | Action::PersistLease { .. }
        | Action::SetGpuMode(_)
        | Action::SetNics(_)
        | Action::Note(_) => None,
    }
}
