//! What clients ask for of StatefulSets and DaemonSets.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    Command, DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, IntOrPercent, Kind,
    LabelSelector, Object, ObjectMeta, ObjectRef, PodManagementPolicy, PodTemplate, RestartPolicy, Shared,
    StatefulSet, StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy, StringMap, Taint,
    TaintEffect,
};
use smol_str::SmolStr;

use crate::rng::Rng;
use crate::workload::{labels, name, node_name, pod_spec};

/// The source of such operations.
#[derive(Debug)]
pub(crate) struct Sets {
    /// Makes every template, and every restart, a new one.
    pub(crate) count: u64,
    pub(crate) agents: u32,
    pub(crate) replicas_max: u64,
}

impl Sets {
    pub(crate) fn command(&self, rng: &mut Rng, state: &State) -> Command {
        let stateful = ObjectRef {
            kind: Kind::StatefulSet,
            namespace: Some(name("default")),
            name: name(&format!("db-{}", rng.range(1, 2))),
        };
        let daemons =
            ObjectRef { kind: Kind::DaemonSet, namespace: Some(name("default")), name: name("log") };
        let either = if rng.chance(600) { stateful.clone() } else { daemons.clone() };
        match rng.range(0, 99) {
            0..25 => Command::Apply(Object::StatefulSet(Arc::new(self.stateful_set(rng, &stateful)))),
            25..40 => Command::Apply(Object::DaemonSet(Arc::new(self.daemon_set(rng, &daemons)))),
            40..60 => Command::Scale { object: stateful, replicas: rng.range(0, self.replicas_max) as u32 },
            60..70 => Command::UndoRollout { deployment: either, to_revision: None },
            70..80 => {
                let restarted_at = SmolStr::new(format!("restart-{}", self.count));
                Command::RestartRollout { deployment: either, restarted_at }
            }
            80..84 => Command::Delete { object: either, grace_ms: None, force: false },
            _ => self.taint(rng, state).unwrap_or(Command::Scale { object: stateful, replicas: 1 }),
        }
    }

    fn template(&self, rng: &mut Rng, app: &StringMap, image: &str) -> PodTemplate {
        let version = *rng.pick(&[1, 2, 3, self.count]);
        let pod = pod_spec(rng, RestartPolicy::Always, &format!("{image}:{version}"));
        PodTemplate { labels: app.clone(), annotations: StringMap::new(), spec: Shared::new(pod) }
    }

    fn stateful_set(&self, rng: &mut Rng, reference: &ObjectRef) -> StatefulSet {
        let app = labels("app", reference.name.as_str());
        // The management cannot change: each name has its own.
        let pod_management_policy = match reference.name.as_str().ends_with('1') {
            true => PodManagementPolicy::OrderedReady,
            false => PodManagementPolicy::Parallel,
        };
        let update_strategy = match rng.range(0, 9) {
            0 => StatefulSetUpdateStrategy::OnDelete,
            _ => StatefulSetUpdateStrategy::RollingUpdate {
                partition: *rng.pick(&[0, 0, 0, 1, 2]),
                max_unavailable: *rng.pick(&[
                    IntOrPercent::Int(1),
                    IntOrPercent::Int(2),
                    IntOrPercent::Percent(50),
                ]),
            },
        };
        let spec = StatefulSetSpec {
            replicas: rng.range(0, self.replicas_max) as u32,
            ordinals_start: *rng.pick(&[0, 0, 0, 2]),
            template: self.template(rng, &app, "db"),
            selector: LabelSelector::from_labels(app),
            service_name: SmolStr::default(),
            claims: Default::default(),
            pod_management_policy,
            update_strategy,
            min_ready_ms: *rng.pick(&[0, 0, 500, 3000]),
            revision_history_limit: *rng.pick(&[0, 1, 3]),
            stopped: false,
        };
        let meta = ObjectMeta::new(reference.namespace.clone(), reference.name.clone());
        StatefulSet { meta, spec, status: StatefulSetStatus::default() }
    }

    fn daemon_set(&self, rng: &mut Rng, reference: &ObjectRef) -> DaemonSet {
        use IntOrPercent::{Int, Percent};
        let app = labels("app", reference.name.as_str());
        let update_strategy = match rng.range(0, 9) {
            0 => DaemonSetUpdateStrategy::OnDelete,
            _ => {
                let (max_unavailable, max_surge) =
                    *rng.pick(&[(Int(1), Int(0)), (Int(2), Int(0)), (Percent(50), Int(0)), (Int(0), Int(1))]);
                DaemonSetUpdateStrategy::RollingUpdate { max_unavailable, max_surge }
            }
        };
        let spec = DaemonSetSpec {
            template: self.template(rng, &app, "log"),
            selector: LabelSelector::from_labels(app),
            update_strategy,
            min_ready_ms: *rng.pick(&[0, 0, 500]),
            revision_history_limit: *rng.pick(&[0, 1, 3]),
        };
        let meta = ObjectMeta::new(reference.namespace.clone(), reference.name.clone());
        DaemonSet { meta, spec, status: DaemonSetStatus::default() }
    }

    /// Gives a node a taint that nobody tolerates, or takes all taints away.
    fn taint(&self, rng: &mut Rng, state: &State) -> Option<Command> {
        let node = node_name(rng.range(0, u64::from(self.agents) - 1) as u32);
        let effect = *rng.pick(&[None, None, Some(TaintEffect::NoSchedule), Some(TaintEffect::NoExecute)]);
        let found = state.find_object(&ObjectRef { kind: Kind::Node, namespace: None, name: node })?;
        let Object::Node(mut node) = found else { return None };
        let taint = |effect| Taint { key: "gpu".into(), value: SmolStr::default(), effect };
        Arc::make_mut(&mut node).spec.taints = effect.map(taint).into_iter().collect();
        Some(Command::Apply(Object::Node(node)))
    }
}
