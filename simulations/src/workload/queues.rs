//! Groups of pods and queues among what clients ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    ANNOTATION_POD_GROUP, ANNOTATION_QUEUE_NAME, ANNOTATION_TASK_SPEC, Command, FEATURE_LEVEL_MAX, Kind,
    LABEL_POD_GROUP, LABEL_POD_GROUP_MIN_AVAILABLE, Name, Object, ObjectMeta, ObjectRef, Pod, PodGroup,
    PodGroupSpec, PodGroupStatus, PodStatus, QUEUES_LEVEL, Queue, QueueSpec, QueueState, QueueStatus,
    QuotaAmounts, QuotaResource, Rare, RestartPolicy, Shared,
};
use smol_str::SmolStr;

use super::{name, pod_spec, policies};
use crate::rng::Rng;

/// So many groups by objects, and as many by labels.
const GROUPS: u64 = 3;
/// Most pods that a group wants together.
const LEAST_MAX: u64 = 3;
/// What large pods of groups ask for, in thousandths of a core: most of a small node.
const LARGE_CPU_MILLIS: u64 = 3000;
const QUEUES: [&str; 2] = ["q-1", "q-2"];
const ROLES: [&str; 2] = ["lead", "work"];

/// The command that a cluster needs first, if it does.
pub(super) fn level(state: &State) -> Option<Command> {
    let is_low = state.feature_level() < QUEUES_LEVEL;
    is_low.then_some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX })
}

/// Something about groups and queues in a namespace; `count` makes names of pods.
pub(super) fn command(rng: &mut Rng, namespace: Name, count: u64) -> Command {
    let number = rng.range(1, GROUPS);
    let group_name = name(&format!("group-{number}"));
    match rng.range(0, 99) {
        0..15 => Command::Apply(Object::PodGroup(Arc::new(group(rng, namespace, group_name)))),
        15..18 => delete(Kind::PodGroup, Some(namespace), group_name),
        18..30 => Command::Apply(Object::Queue(Arc::new(queue(rng)))),
        30..33 => delete(Kind::Queue, None, name(rng.pick::<&str>(&QUEUES))),
        33..40 => {
            let number = rng.range(count.saturating_sub(40), count);
            delete(Kind::Pod, Some(namespace), name(&format!("member-{number}")))
        }
        _ => Command::Create(Object::Pod(Arc::new(member(rng, namespace, number, count)))),
    }
}

fn delete(kind: Kind, namespace: Option<Name>, name: Name) -> Command {
    Command::Delete { object: ObjectRef { kind, namespace, name }, grace_ms: None, force: false }
}

fn group(rng: &mut Rng, namespace: Name, group_name: Name) -> PodGroup {
    let mut min_task_member = BTreeMap::new();
    if rng.chance(300) {
        min_task_member.insert(SmolStr::new_static(ROLES[0]), 1);
    }
    let spec = PodGroupSpec {
        min_member: rng.range(1, LEAST_MAX) as u32,
        min_task_member,
        min_resources: QuotaAmounts::default(),
        queue: name(rng.pick::<&str>(&["default", "default", QUEUES[0], QUEUES[1]])),
        priority_class_name: None,
        schedule_timeout_ms: *rng.pick(&[None, None, Some(2000), Some(10_000)]),
    };
    let meta = ObjectMeta::new(Some(namespace), group_name);
    PodGroup { meta, spec, status: PodGroupStatus::default() }
}

fn queue(rng: &mut Rng) -> Queue {
    let mut capability = QuotaAmounts::default();
    for (resource, permille, least, most) in [("cpu", 500, 500, 4000), ("pods", 300, 1, 6)] {
        if rng.chance(permille) {
            let resource = QuotaResource::parse(resource).expect("a resource");
            capability.insert(resource, rng.range(least, most));
        }
    }
    let state = if rng.chance(850) { QueueState::Open } else { QueueState::Closed };
    let spec = QueueSpec { weight: rng.range(1, 3) as u32, capability, state };
    Queue {
        meta: ObjectMeta::new(None, name(rng.pick::<&str>(&QUEUES))),
        spec,
        status: QueueStatus::default(),
    }
}

/// A pod of a group by object or labels, or of a queue only.
fn member(rng: &mut Rng, namespace: Name, number: u64, count: u64) -> Pod {
    let mut meta = ObjectMeta::new(Some(namespace), name(&format!("member-{count}")));
    let mut note = |key: &'static str, text: String| {
        meta.annotations.insert(SmolStr::new_static(key), SmolStr::new(text));
    };
    match rng.range(0, 3) {
        0 | 1 => {
            note(ANNOTATION_POD_GROUP, format!("group-{number}"));
            note(ANNOTATION_TASK_SPEC, (*rng.pick(&ROLES)).to_owned());
        }
        2 => {
            let labels = [
                (LABEL_POD_GROUP, format!("labelled-{number}")),
                (LABEL_POD_GROUP_MIN_AVAILABLE, rng.range(2, LEAST_MAX).to_string()),
            ];
            for (key, text) in labels {
                meta.labels.insert(SmolStr::new_static(key), SmolStr::new(text));
            }
        }
        _ => note(ANNOTATION_QUEUE_NAME, (*rng.pick(&QUEUES)).to_owned()),
    }
    let policy = *rng.pick(&[RestartPolicy::Never, RestartPolicy::OnFailure, RestartPolicy::Always]);
    let mut spec = pod_spec(rng, policy, "train:1");
    // Most groups are of one priority by themselves, and some of those are above others.
    if number == GROUPS && !rng.chance(50) {
        let mut options = spec.options.get().cloned().unwrap_or_default();
        options.priority_class = Rare::some("system-cluster-critical".into());
        spec.options = Rare::some(options);
        // And want so much that others must end for them.
        if rng.chance(600)
            && let Some(container) = spec.containers.first_mut()
        {
            container.requests.cpu_millis = Some(LARGE_CPU_MILLIS);
        }
    } else if rng.chance(100) {
        policies::rank(rng, &mut spec);
    }
    Pod { meta, spec: Shared::new(spec), node: None, status: PodStatus::default() }
}
