//! What users said last, and what must be there for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    CanaryStep, Command, Delivery, IntOrPercent, JOB_COMPLETE, Kind, LABEL_HOSTNAME, Object, Pod, Rare,
    ScalingRules,
};

use crate::autoscalers::{self, Guests as _};
use crate::daemon_laws;
use crate::job_kit::{cron_job, job};
use crate::kit::{Cluster, deployment, map, pod, pod_spec, replica_set, rolling};
use crate::play::{Word, delete};
use crate::sets::{daemon_set, image, is_available, ordinal, stateful_set};

/// One of each kind, and Deployments of three sorts.
pub const NAMES: [&str; 8] = ["web", "canary", "auto", "alone", "db", "log", "once", "clock"];
/// Bounds of the autoscaler of `auto`.
const AUTO: (u32, u32) = (1, 4);
/// Half of the request of a pod, which its autoscaler aims at.
const AUTO_USES: u64 = 50;

pub fn kind_of(name: &str) -> Kind {
    match name {
        "alone" => Kind::ReplicaSet,
        "db" => Kind::StatefulSet,
        "log" => Kind::DaemonSet,
        "once" => Kind::Job,
        "clock" => Kind::CronJob,
        _ => Kind::Deployment,
    }
}

/// What is wanted of one workload.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    replicas: u32,
    version: u32,
    stopped: bool,
}

/// See the module.
pub struct Model {
    wanted: BTreeMap<&'static str, Wanted>,
    /// Pods without an owner.
    pub bare: BTreeSet<String>,
    /// What each pod uses, in thousandths of a core.
    pub use_millis: u64,
}

/// As a user creates it: three replicas of version 1.
fn object(name: &str) -> Object {
    let steps = vec![
        CanaryStep::SetReplicas { replicas: IntOrPercent::Int(1) },
        CanaryStep::Pause { duration_ms: None },
        CanaryStep::SetReplicas { replicas: IntOrPercent::Percent(50) },
    ];
    match name {
        "alone" => replica_set(name, 3, pod_spec("alone:1", 100, 64 << 20)),
        "db" => stateful_set(name, 3, |_| ()),
        "log" => daemon_set(name, |spec| spec.template = daemon_laws::wanted(1)),
        "once" => job(name, |spec| {
            (spec.parallelism, spec.completions, spec.backoff_limit) = (2, Some(3), 2);
        }),
        "clock" => cron_job(name, "*/2 * * * *", |spec| {
            spec.concurrency_policy = bulkhead_types::ConcurrencyPolicy::Forbid;
        }),
        name => deployment(name, 3, |wanted| {
            (wanted.template, wanted.strategy) = (image(name, 1), rolling(1, 1));
            if name == "canary" {
                wanted.delivery = Rare::some(Delivery::Canary { steps, failure_limit: 1 });
            }
        }),
    }
}

impl Model {
    /// Everything is applied.
    pub fn start(cluster: &mut Cluster) -> Self {
        let mut model = Self { wanted: BTreeMap::new(), bare: BTreeSet::new(), use_millis: AUTO_USES };
        NAMES.into_iter().for_each(|name| model.apply(cluster, name));
        let mut scaler = autoscalers::autoscaler("auto", (Kind::Deployment, "auto"), AUTO.0, AUTO.1);
        scaler.spec.scale_down = ScalingRules { stabilization_window_ms: 0, ..scaler.spec.scale_down };
        cluster.ok(Command::Apply(autoscalers::object(scaler)));
        model
    }

    pub fn apply(&mut self, cluster: &mut Cluster, name: &'static str) {
        if !self.wanted.contains_key(name) && cluster.submit(vec![Command::Apply(object(name))]).is_ok() {
            self.wanted.insert(name, Wanted { replicas: 3, version: 1, stopped: false });
        }
    }

    pub fn remove(&mut self, cluster: &mut Cluster, name: &str) {
        if self.wanted.remove(name).is_some() {
            cluster.ok(delete(kind_of(name), name));
        }
    }

    /// A word that was accepted.
    pub fn hear(&mut self, name: &str, word: &Word) {
        let wanted = self.wanted.get_mut(name).expect("what is not there hears nothing");
        match word {
            Word::Scale(replicas) => wanted.replicas = *replicas,
            Word::Stop(stopped) => wanted.stopped = *stopped,
            _ => {}
        }
    }

    pub fn change_image(&mut self, cluster: &mut Cluster, name: &str, version: u32) {
        let Some(wanted) = self.wanted.get_mut(name) else { return };
        match kind_of(name) {
            Kind::Deployment => cluster.change(name, |spec| spec.template = image(name, version)),
            Kind::StatefulSet => {
                cluster.change_stateful_set(name, |spec| spec.template = image(name, version))
            }
            Kind::DaemonSet => {
                cluster.change_daemon_set(name, |spec| spec.template = daemon_laws::wanted(version));
            }
            _ => return,
        }
        wanted.version = version;
    }

    pub fn bare_name(at: usize) -> String {
        format!("bare-{at}")
    }

    /// A pod of nobody, with labels that a selector asks for.
    pub fn create_bare(&mut self, cluster: &mut Cluster, at: usize) {
        let bare = Self::bare_name(at);
        let mut wanted = pod(&bare, pod_spec("bare:1", 100, 64 << 20));
        wanted.meta_mut().labels = map(&[("app", NAMES[at])]);
        if cluster.submit(vec![Command::Create(wanted)]).is_ok() {
            self.bare.insert(bare);
        }
    }

    /// Agents start what is wanted, and tell what it uses.
    pub fn start_guests(&self, cluster: &mut Cluster) {
        cluster.start_guests(true);
        cluster.tell_usage(|_| self.use_millis);
    }

    /// Whether all is as users wanted it.
    pub fn at_rest(&self, cluster: &Cluster) -> Result<(), String> {
        let state = cluster.state();
        let mut bare = BTreeSet::new();
        let mut pods = BTreeMap::<String, Vec<&Arc<Pod>>>::new();
        for pod in state.pods().iter() {
            match root(state, pod)? {
                Some(owner) => pods.entry(owner).or_default().push(pod),
                None => _ = bare.insert(pod.meta.name.to_string()),
            }
        }
        same("bare pods", &bare, &self.bare)?;
        for (name, wanted) in &self.wanted {
            let pods = pods.remove(*name).unwrap_or_default();
            match kind_of(name) {
                Kind::Job => finished(cluster, name, &pods)?,
                Kind::CronJob => kept(cluster, name)?,
                Kind::DaemonSet => everywhere(state, wanted, &pods)?,
                _ => self.sized(cluster, name, wanted, &pods)?,
            }
        }
        same("pods of what was removed", pods.len(), 0)
    }

    /// As many as wanted, available, of the wanted version.
    fn sized(
        &self,
        cluster: &Cluster,
        name: &str,
        wanted: &Wanted,
        pods: &[&Arc<Pod>],
    ) -> Result<(), String> {
        let live: Vec<_> = pods.iter().filter(|pod| !pod.status.phase.is_terminal()).collect();
        let bounds = match (name, wanted.stopped, self.use_millis.cmp(&AUTO_USES)) {
            (_, true, _) => 0..=0,
            ("auto", _, std::cmp::Ordering::Less) => AUTO.0..=AUTO.0,
            ("auto", _, std::cmp::Ordering::Equal) => AUTO.0..=AUTO.1,
            ("auto", _, std::cmp::Ordering::Greater) => AUTO.1..=AUTO.1,
            _ => wanted.replicas..=wanted.replicas,
        };
        if !bounds.contains(&(live.len() as u32))
            || !live.iter().all(|pod| is_available(pod, 0, cluster.now_ms))
        {
            return Err(format!("{name}: {bounds:?} available, not {}", shown(pods)));
        }
        if kind_of(name) == Kind::StatefulSet {
            let ordinals: BTreeSet<u32> = pods.iter().map(|pod| ordinal(pod)).collect();
            same("ordinals", ordinals, (0..*bounds.end()).collect())?;
        }
        let is_aborted = kind_of(name) == Kind::Deployment
            && cluster.get_deployment(name).status.delivery.get().is_some_and(|status| status.is_aborted());
        let versions: BTreeSet<u32> = live.iter().map(|pod| version(pod)).collect();
        let is_right =
            if is_aborted { versions.len() <= 1 } else { versions.iter().all(|v| *v == wanted.version) };
        if is_right { Ok(()) } else { Err(format!("{name}: {versions:?}, wanted {}", wanted.version)) }
    }
}

/// The name of the topmost owner of a pod.
fn root(state: &State, pod: &Pod) -> Result<Option<String>, String> {
    let (mut owner, mut top) = (pod.meta.owner, None);
    while let Some(of) = owner {
        let object = state.object(of.kind, of.id).ok_or_else(|| format!("{} has no owner", pod.meta.name))?;
        (owner, top) = (object.meta().owner, Some(object.meta().name.to_string()));
    }
    Ok(top)
}

fn same<T: PartialEq + Debug>(what: &str, found: T, wanted: T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?}, wanted {wanted:?}")) }
}

fn version(pod: &Pod) -> u32 {
    pod.spec.containers[0].image.rsplit_once(':').unwrap().1.parse().unwrap()
}

fn shown(pods: &[&Arc<Pod>]) -> String {
    let each = pods.iter().map(|pod| {
        format!(
            "{} {:?} ready {} ending {}",
            pod.meta.name,
            pod.status.phase,
            pod.status.ready,
            pod.meta.is_deleting()
        )
    });
    each.collect::<Vec<_>>().join(", ")
}

/// Of a Job nothing runs, and it has a result that its counts bear out.
fn finished(cluster: &Cluster, name: &str, pods: &[&Arc<Pod>]) -> Result<(), String> {
    let job = cluster.get_job(name);
    let live = pods.iter().filter(|pod| !pod.status.phase.is_terminal()).count();
    same("live pods of the Job", live, 0)?;
    let Some(end) = job.end() else { return Err(format!("{name} has no end: {:?}", job.status)) };
    match end.condition_type.as_str() {
        JOB_COMPLETE => same("completions", job.status.succeeded, 3),
        _ => same("failed often enough", job.status.failed > job.spec.backoff_limit, true),
    }
}

/// Of a CronJob as many ended jobs are kept as it says, at most.
fn kept(cluster: &Cluster, name: &str) -> Result<(), String> {
    let cron_job = cluster.get_cron_job(name);
    let jobs = cluster.state().owned(cron_job.meta.id, Kind::Job);
    let ended: Vec<_> =
        jobs.filter_map(|id| cluster.state().jobs().get(id)).filter_map(|job| job.end()).collect();
    let complete = ended.iter().filter(|end| end.condition_type == JOB_COMPLETE).count() as u32;
    let failed = ended.len() as u32 - complete;
    let spec = &cron_job.spec;
    same("jobs that are too many", complete.saturating_sub(spec.successful_jobs_history_limit), 0)?;
    same("failed jobs that are too many", failed.saturating_sub(spec.failed_jobs_history_limit), 0)
}

/// One pod of the wanted version on each node with a fast disk.
fn everywhere(state: &State, wanted: &Wanted, pods: &[&Arc<Pod>]) -> Result<(), String> {
    let fast =
        state.nodes().iter().filter(|node| node.meta.labels.get("disk").is_some_and(|disk| disk == "fast"));
    let mut nodes: Vec<String> = fast.map(|node| node.meta.labels[LABEL_HOSTNAME].to_string()).collect();
    nodes.sort();
    let mut found: Vec<String> =
        pods.iter().map(|pod| pod.spec.node_name.clone().unwrap().to_string()).collect();
    found.sort();
    same("nodes with the DaemonSet's pods", found, nodes)?;
    let well =
        |pod: &&&Arc<Pod>| pod.status.ready && !pod.meta.is_deleting() && version(pod) == wanted.version;
    same("its pods that are well", pods.iter().filter(well).count(), pods.len())
}
