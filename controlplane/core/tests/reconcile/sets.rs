//! What tests of StatefulSets and DaemonSets share.

use std::sync::Arc;

use bulkhead_controlplane_core::{Restorer, State};
use bulkhead_types::{
    Command, DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, IntOrPercent, Kind,
    LABEL_CONTROLLER_REVISION_HASH, LabelSelector, Node, Object, ObjectId, ObjectMeta, Pod,
    PodManagementPolicy, PodTemplate, StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy, Taint,
    TaintEffect,
};

use crate::kit::{Cluster, map, name, pod_spec, reference, template};

pub fn stateful_set(app: &str, replicas: u32, change: impl FnOnce(&mut StatefulSetSpec)) -> Object {
    let mut spec = StatefulSetSpec {
        replicas,
        ordinals_start: 0,
        selector: LabelSelector::from_labels(map(&[("app", app)])),
        template: image(app, 1),
        service_name: "".into(),
        claims: Default::default(),
        pod_management_policy: PodManagementPolicy::OrderedReady,
        update_strategy: StatefulSetUpdateStrategy::default(),
        min_ready_ms: 0,
        revision_history_limit: 10,
        stopped: false,
    };
    change(&mut spec);
    let meta = ObjectMeta::new(Some(name("default")), name(app));
    Object::StatefulSet(Arc::new(StatefulSet { meta, spec, status: Default::default() }))
}

pub fn daemon_set(app: &str, change: impl FnOnce(&mut DaemonSetSpec)) -> Object {
    let mut spec = DaemonSetSpec {
        selector: LabelSelector::from_labels(map(&[("app", app)])),
        template: image(app, 1),
        update_strategy: DaemonSetUpdateStrategy::default(),
        min_ready_ms: 0,
        revision_history_limit: 10,
    };
    change(&mut spec);
    let meta = ObjectMeta::new(Some(name("default")), name(app));
    Object::DaemonSet(Arc::new(DaemonSet { meta, spec, status: Default::default() }))
}

pub fn image(app: &str, version: u32) -> PodTemplate {
    template(app, pod_spec(&format!("{app}:{version}"), 100, 64 << 20))
}

pub fn partition(partition: u32, max_unavailable: u32) -> StatefulSetUpdateStrategy {
    let max_unavailable = IntOrPercent::Int(max_unavailable);
    StatefulSetUpdateStrategy::RollingUpdate { partition, max_unavailable }
}

pub fn node_by_node(max_unavailable: u32, max_surge: u32) -> DaemonSetUpdateStrategy {
    DaemonSetUpdateStrategy::RollingUpdate {
        max_unavailable: IntOrPercent::Int(max_unavailable),
        max_surge: IntOrPercent::Int(max_surge),
    }
}

pub fn is_active(pod: &Pod) -> bool {
    !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}

pub fn is_available(pod: &Pod, min_ready_ms: u64, now_ms: u64) -> bool {
    is_active(pod) && pod.status.ready && pod.status.ready_since_ms + min_ready_ms <= now_ms
}

pub fn ordinal(pod: &Pod) -> u32 {
    pod.meta.name.as_str().rsplit_once('-').unwrap().1.parse().unwrap()
}

/// The template that a pod was made from.
pub fn template_of(state: &State, pod: &Pod) -> PodTemplate {
    let revision = pod.meta.labels[LABEL_CONTROLLER_REVISION_HASH].as_str();
    let found = state.find(Kind::ControllerRevision, pod.meta.namespace.as_ref(), &name(revision));
    state.controller_revisions().get(found.unwrap()).unwrap().template.clone()
}

/// A pod as `name:version`, with `!` when it is not available, `~` when it ends and `x` when it has ended.
fn shown(pod: &Pod) -> String {
    let version = pod.spec.containers[0].image.rsplit_once(':').unwrap().1.to_owned();
    let mark = match (pod.meta.is_deleting(), pod.status.phase.is_terminal(), pod.status.ready) {
        (true, ..) => "~",
        (_, true, _) => "x",
        (.., true) => "",
        _ => "!",
    };
    format!("{}:{version}{mark}", ordinal(pod))
}

impl Cluster {
    pub fn get_stateful_set(&self, app: &str) -> Arc<StatefulSet> {
        match self.state().find_object(&reference(Kind::StatefulSet, app)) {
            Some(Object::StatefulSet(set)) => set,
            _ => panic!("no StatefulSet {app}"),
        }
    }

    pub fn get_daemon_set(&self, app: &str) -> Arc<DaemonSet> {
        match self.state().find_object(&reference(Kind::DaemonSet, app)) {
            Some(Object::DaemonSet(set)) => set,
            _ => panic!("no DaemonSet {app}"),
        }
    }

    pub fn change_stateful_set(&mut self, app: &str, change: impl FnOnce(&mut StatefulSetSpec)) {
        let mut set = self.get_stateful_set(app);
        change(&mut Arc::make_mut(&mut set).spec);
        self.ok(Command::Apply(Object::StatefulSet(set)));
    }

    pub fn change_daemon_set(&mut self, app: &str, change: impl FnOnce(&mut DaemonSetSpec)) {
        let mut set = self.get_daemon_set(app);
        change(&mut Arc::make_mut(&mut set).spec);
        self.ok(Command::Apply(Object::DaemonSet(set)));
    }

    pub fn change_node(&mut self, node: &str, change: impl FnOnce(&mut Node)) {
        let Some(Object::Node(mut found)) = self.state().find_object(&reference(Kind::Node, node)) else {
            panic!("no node {node}")
        };
        change(Arc::make_mut(&mut found));
        self.ok(Command::Apply(Object::Node(found)));
    }

    /// A StatefulSet's pods in order of their ordinals, see [`shown`].
    pub fn ordinals(&self, app: &str) -> String {
        let mut pods: Vec<_> = self.state().pods_of(self.get_stateful_set(app).meta.id).collect();
        pods.sort_by_key(|pod| ordinal(pod));
        pods.iter().map(|pod| shown(pod)).collect::<Vec<_>>().join(" ")
    }

    pub fn pod_at(&self, app: &str, wanted: u32) -> ObjectId {
        let mut pods = self.state().pods_of(self.get_stateful_set(app).meta.id);
        pods.find(|pod| ordinal(pod) == wanted).unwrap().meta.id
    }

    /// A DaemonSet's pods as `node=version` with the marks of [`shown`], in order of nodes and creation.
    pub fn daemons(&self, app: &str) -> String {
        let pods = self.state().pods_of(self.get_daemon_set(app).meta.id);
        let mut pods: Vec<_> = pods.map(|pod| (pod.spec.node_name.clone().unwrap(), pod)).collect();
        pods.sort_by_key(|(node, pod)| (node.clone(), pod.meta.id));
        let each = |(node, pod): &(_, &Arc<Pod>)| {
            let mut named = Pod::clone(pod);
            named.meta.name = name("x-0");
            format!("{node}={}", &shown(&named)[2..])
        };
        pods.iter().map(each).collect::<Vec<_>>().join(" ").replace("node-", "")
    }

    /// The revisions that are kept, as `number:version`, by number.
    pub fn history(&self) -> String {
        let mut rows: Vec<_> = self.state().controller_revisions().iter().collect();
        rows.sort_by_key(|row| row.revision);
        let version = |image: &str| image.rsplit_once(':').unwrap().1.to_owned();
        let each = rows
            .iter()
            .map(|row| format!("{}:{}", row.revision, version(&row.template.spec.containers[0].image)));
        each.collect::<Vec<_>>().join(" ")
    }
}

/// A State as a snapshot keeps it.
pub fn restored(state: &State) -> State {
    let mut restorer = Restorer::default();
    state.records().for_each(|record| restorer.push(record).unwrap());
    restorer.finish().unwrap()
}

pub fn taint(key: &str, effect: TaintEffect) -> Taint {
    Taint { key: key.into(), value: "".into(), effect }
}
