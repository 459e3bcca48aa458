use bulkhead_types::{
    ContainerStatus, ContainerTermination, ContainerUsage, Name, ObjectMeta, PodSpec, PodStatus, PodUsage,
    ResourceRequirements, ScaleTarget, Shared, UpdateMode, VerticalAutoscalerSpec,
};

use super::*;

const T: u64 = 1_000 * 24 * 3_600_000;
const MINUTE: u64 = 60_000;
const NODE: ObjectId = ObjectId(1);
const MIB: u64 = 1 << 20;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn vertical(status: VerticalAutoscalerStatus) -> VerticalPodAutoscaler {
    let target = ScaleTarget { kind: bulkhead_types::Kind::Deployment, name: name("web") };
    let spec =
        VerticalAutoscalerSpec { target, update_mode: UpdateMode::Auto, min_replicas: 2, policies: vec![] };
    VerticalPodAutoscaler { meta: ObjectMeta::new(Some(name("default")), name("web")), spec, status }
}

fn pod(status: PodStatus) -> Arc<Pod> {
    let requests = ResourceRequirements {
        cpu_millis: Some(100),
        memory_bytes: Some(64 * MIB),
        ephemeral_storage_bytes: None,
    };
    let container = Container { name: "app".into(), requests, ..Container::default() };
    let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
    let mut meta = ObjectMeta::new(Some(name("default")), name("web-1"));
    meta.id = ObjectId(7);
    Arc::new(Pod { meta, spec: Shared::new(spec), node: Some(NODE), status })
}

fn told(cpu_millis: u64, memory_bytes: u64, now_ms: u64) -> SoftState {
    let mut soft = SoftState::new(T, T);
    let containers = vec![ContainerUsage { name: "app".into(), cpu_millis, memory_bytes }];
    let pod = ObjectId(7);
    let usage = PodUsage { pod, cpu_millis, memory_bytes, window_ms: 10_000, age_ms: 0, containers };
    soft.set_usage(NODE, now_ms, vec![usage]);
    soft
}

/// Looks once a minute at a pod that always uses the same; the status after each that said something new.
fn looks(minutes: u64, cpu_millis: impl Fn(u64) -> u64) -> Vec<(u64, VerticalAutoscalerStatus)> {
    let (mut models, mut vertical, pod) =
        (Models::default(), vertical(VerticalAutoscalerStatus::default()), pod(PodStatus::default()));
    let mut said = Vec::new();
    for minute in 0..minutes {
        let now_ms = T + minute * MINUTE;
        models.observe(&pod.spec.containers, &[&pod], &told(cpu_millis(minute), 50 * MIB, now_ms), now_ms);
        if let Some(status) = look(&vertical, &models, true, now_ms) {
            said.push((minute, status.clone()));
            vertical.status = status;
        }
    }
    said
}

#[test]
fn what_changes_noticeably_is_said_and_checkpoints_are_rare() {
    let said = looks(2 * 1440, |_| 100);
    // Bounds close in ever more slowly; checkpoints make up the most of it.
    let checkpoints = said.iter().filter(|(_, status)| !status.checkpoint.is_empty()).count();
    assert_eq!(checkpoints, 48);
    assert!(said.len() - checkpoints < 45, "{}", said.len());
    assert!(said.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1.decision + 1 == two[1].1.decision));
    // Another load is news once more of it is known than of the one before.
    let news = looks(2 * 1440, |minute| if minute < 1440 { 100 } else { 300 });
    let target = |status: &VerticalAutoscalerStatus| status.containers[0].cpu_millis.expect("known").target;
    let (first, last) = (&news[0].1, &news[news.len() - 1].1);
    assert!(target(first) < 130 && target(last) > 300, "{} {}", target(first), target(last));
}

#[test]
fn without_figures_it_says_why() {
    let check = |has_pods: bool, reason: &str| {
        let status = look(&vertical(Default::default()), &Models::default(), has_pods, T).expect("news");
        assert_eq!(words(&status), [(RECOMMENDATION_PROVIDED, ConditionStatus::False, reason)]);
        // Said once.
        assert_eq!(look(&vertical(status), &Models::default(), has_pods, T + 2 * MINUTE), None);
    };
    check(true, "NoUsageKnown");
    check(false, "NoPodsMatched");
}

#[test]
fn a_kill_for_memory_counts_without_any_figures() {
    let killed = |reason: &str, finished_at_ms| {
        let end = ContainerTermination {
            exit_code: 137,
            signal: 9,
            reason: reason.into(),
            message: String::new(),
            started_at_ms: T,
            finished_at_ms,
        };
        let container = ContainerStatus {
            name: "app".into(),
            state: bulkhead_types::ContainerState::Running { started_at_ms: T },
            last_termination: Some(Box::new(end)),
            restart_count: 1,
            ready: false,
            image_digest: "".into(),
        };
        pod(PodStatus { containers: vec![container], ..PodStatus::default() })
    };
    let check = |pod: Arc<Pod>, expected_mib: Option<u64>| {
        let mut models = Models::default();
        models.observe(&[], &[&pod], &SoftState::new(T, T), T);
        let found = models.0.get("app").and_then(|model| estimate("app".into(), model).memory_bytes);
        assert_eq!(found.map(|one| one.target / MIB), expected_mib);
    };
    // 64 MiB requested, 100 more needed, the end of its bucket and 15 %.
    check(killed("OOMKilled", T - MINUTE), Some(195));
    check(killed("Error", T - MINUTE), None);
    check(killed("OOMKilled", T - 25 * 60 * MINUTE), None);
}

#[test]
fn containers_that_are_gone_are_forgotten_and_those_of_no_workload_kept() {
    let mut models = Models::default();
    let pod = pod(PodStatus::default());
    models.observe(&pod.spec.containers, &[&pod], &told(100, MIB, T), T);
    models.observe(&[], &[], &SoftState::new(T, T), T);
    assert_eq!(models.0.len(), 1);
    let other = Container { name: "other".into(), ..Container::default() };
    models.observe(&[other], &[], &SoftState::new(T, T), T);
    assert_eq!(models.0.len(), 0);
}
