//! What a trial changed.

use std::sync::Arc;

use bulkhead_types::{Kind, Name, Node, Object, ObjectId, Pod};

use super::trial::Trial;
use super::{Answer, Fate, Load, NodeOutlook, PodFate};
use crate::State;
use crate::reconcile::is_active;

/// What a pod that was deleted before the scheduler saw it, or that it was not told about, waits for.
const REASON_UNKNOWN: &str = "the scheduler has not said why";

pub(super) fn compare(before: &State, trial: &Trial, at_rest: bool) -> Answer {
    let mut pods: Vec<PodFate> = ended(before, trial).chain(others(before, trial)).collect();
    pods.sort_by(|a, b| order(a).cmp(&order(b)));
    let mut nodes: Vec<NodeOutlook> =
        trial.state().nodes().iter().filter_map(|node| outlook(before, trial.state(), node)).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Answer { pods, nodes, at_rest }
}

fn order(fate: &PodFate) -> (u8, Option<&Name>, &Name) {
    let rank = match fate.fate {
        Fate::Ends { .. } => 0,
        Fate::Stays { .. } => 1,
        Fate::Placed { .. } => 2,
        Fate::Waits { .. } => 3,
    };
    (rank, fate.pod.namespace.as_ref(), &fate.pod.name)
}

fn node_name(state: &State, node: ObjectId) -> Name {
    state.nodes().get(node).expect("a pod's node is there").meta.name.clone()
}

fn fate_of(pod: &Arc<Pod>, is_new: bool, fate: Fate) -> PodFate {
    PodFate { pod: Object::Pod(pod.clone()).object_ref(), is_new, fate }
}

/// Pods that live now and would not.
fn ended<'a>(before: &'a State, trial: &'a Trial) -> impl Iterator<Item = PodFate> + 'a {
    let lives = |id: ObjectId| trial.state().pods().get(id).is_some_and(|pod| is_active(pod));
    let ends = before.pods().iter().filter(move |pod| is_active(pod) && !lives(pod.meta.id));
    ends.filter_map(|pod| Some(fate_of(pod, false, Fate::Ends { node: node_name(before, pod.node?) })))
}

/// Pods that would live, and are not left alone.
fn others<'a>(before: &'a State, trial: &'a Trial) -> impl Iterator<Item = PodFate> + 'a {
    let after = trial.state();
    after.pods().iter().filter(|pod| is_active(pod)).filter_map(move |pod| {
        let former = before.pods().get(pod.meta.id);
        let fate = match pod.node {
            None => {
                let said = &pod.status.message;
                let reason = if said.is_empty() { REASON_UNKNOWN.to_owned() } else { said.clone() };
                Fate::Waits { reason }
            }
            Some(node) if former.is_none_or(|former| former.node.is_none()) => {
                Fate::Placed { node: node_name(after, node) }
            }
            Some(node) if trial.drained().contains(&node) => {
                Fate::Stays { node: node_name(after, node), reason: why_it_stays(pod, trial) }
            }
            Some(_) => return None,
        };
        Some(fate_of(pod, former.is_none(), fate))
    })
}

fn why_it_stays(pod: &Pod, trial: &Trial) -> String {
    let refused = trial.kept(pod.meta.id).filter(|reason| !reason.is_empty());
    match (refused, pod.meta.owner.map(|owner| owner.kind)) {
        (Some(reason), _) => reason.to_owned(),
        (None, None) => "nobody would start it elsewhere: draining needs --force".to_owned(),
        (None, Some(Kind::DaemonSet)) => "its DaemonSet would start it there again".to_owned(),
        (None, Some(_)) => "the trial ended before it was evicted".to_owned(),
    }
}

fn load(state: &State, node: ObjectId) -> Load {
    let usage = state.node_usage(node);
    Load { requests: usage.requests, pods: usage.pods }
}

fn outlook(before: &State, after: &State, node: &Node) -> Option<NodeOutlook> {
    let id = node.meta.id;
    let is_new = before.nodes().get(id).is_none();
    let (was, is) = (load(before, id), load(after, id));
    (is_new || was != is).then(|| NodeOutlook {
        name: node.meta.name.clone(),
        is_new,
        allocatable: node.status.facts.allocatable,
        before: was,
        after: is,
    })
}
