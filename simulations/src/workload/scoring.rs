//! How nodes are scored, what namespaces say of where their pods go, and pods that say it themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    ANNOTATION_DEFAULT_TOLERATIONS, ANNOTATION_LOAD_AWARE, ANNOTATION_NODE_SELECTOR,
    ANNOTATION_SCORING_STRATEGY, Command, ConfigMap, FEATURE_LEVEL_MAX, Kind, Name, Namespace, Object,
    ObjectMeta, Pod, PodStatus, RestartPolicy, SCHEDULER_CONFIG_NAME, SCHEDULER_CONFIG_NAMESPACE,
    SCORING_LEVEL, Shared, StringMap,
};
use smol_str::SmolStr;

use super::{name, pod_spec};
use crate::rng::Rng;

/// A namespace whose pods choose among all nodes; where they may not, they wait for ever.
const EVERYWHERE: &str = r#"[{"key":"ExclusiveNamespace","operator":"Exists"}]"#;

/// The command that a cluster needs first, if it does.
fn first(state: &State) -> Option<Command> {
    if state.feature_level() < SCORING_LEVEL {
        return Some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX });
    }
    let system = name(SCHEDULER_CONFIG_NAMESPACE);
    let is_there = state.find(Kind::Namespace, None, &system).is_some();
    (!is_there).then(|| Command::Create(namespace(system, StringMap::new())))
}

/// Something about scores; `count` makes names of pods.
pub(super) fn command(rng: &mut Rng, state: &State, within: Name, count: u64) -> Command {
    if let Some(first) = first(state) {
        return first;
    }
    match rng.range(0, 99) {
        0..40 => Command::Apply(Object::ConfigMap(Arc::new(config(rng)))),
        40..55 => Command::Apply(namespace(within, annotations(rng))),
        _ => Command::Create(Object::Pod(Arc::new(pod(rng, within, count)))),
    }
}

fn namespace(text: Name, annotations: StringMap) -> Object {
    let meta = ObjectMeta { annotations, ..ObjectMeta::new(None, text) };
    Object::Namespace(Arc::new(Namespace { meta }))
}

/// Some of them malformed: those are refused.
fn annotations(rng: &mut Rng) -> StringMap {
    let mut annotations = StringMap::new();
    let mut say = |key: &'static str, value: &'static str| {
        annotations.insert(SmolStr::new_static(key), SmolStr::new_static(value));
    };
    if rng.chance(500) {
        say(ANNOTATION_DEFAULT_TOLERATIONS, rng.pick::<&str>(&[EVERYWHERE, EVERYWHERE, "[{"]));
    }
    if rng.chance(200) {
        say(ANNOTATION_NODE_SELECTOR, rng.pick::<&str>(&["", "nonsense"]));
    }
    annotations
}

fn config(rng: &mut Rng) -> ConfigMap {
    let mut data = BTreeMap::new();
    let mut say = |key: &'static str, value: &'static str| {
        data.insert(SmolStr::new_static(key), value.to_owned());
    };
    if rng.chance(700) {
        let strategy = *rng.pick(&["LeastAllocated", "MostAllocated", "MostAllocated", "Binpack"]);
        say("NodeResourcesFit.scoringStrategy.type", strategy);
    }
    if rng.chance(400) {
        let resources = *rng.pick(&["cpu=1", "memory=3,cpu=1", "cpu=1,nvidia.com/gpu=5", "cpu=0"]);
        say("NodeResourcesFit.scoringStrategy.resources", resources);
    }
    for key in ["NodeResourcesFit.weight", "NodeResourcesBalancedAllocation.weight", "LoadAware.weight"] {
        if rng.chance(400) {
            say(key, rng.pick::<&str>(&["0", "1", "10", "100", "101"]));
        }
    }
    let meta = ObjectMeta::new(Some(name(SCHEDULER_CONFIG_NAMESPACE)), name(SCHEDULER_CONFIG_NAME));
    ConfigMap { meta, immutable: false, data, binary_data: BTreeMap::new() }
}

/// A pod that chooses how nodes are scored for it.
fn pod(rng: &mut Rng, within: Name, count: u64) -> Pod {
    let mut meta = ObjectMeta::new(Some(within), name(&format!("scored-{count}")));
    let mut say = |key: &'static str, value: &'static str| {
        meta.annotations.insert(SmolStr::new_static(key), SmolStr::new_static(value));
    };
    if rng.chance(600) {
        say(ANNOTATION_LOAD_AWARE, "true");
    }
    if rng.chance(600) {
        say(ANNOTATION_SCORING_STRATEGY, rng.pick::<&str>(&["LeastAllocated", "MostAllocated"]));
    }
    let spec = pod_spec(rng, RestartPolicy::OnFailure, "web:1");
    Pod { meta, spec: Shared::new(spec), node: None, status: PodStatus::default() }
}
