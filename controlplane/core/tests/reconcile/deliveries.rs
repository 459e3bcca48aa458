//! Deliveries by steps: canaries, batches, partitions, blue and green.

use bulkhead_types::{
    ANNOTATION_DELETION_COST, BatchPause, CanaryStep, Command, DELIVERY_LEVEL, Delivery, DeploymentSpec,
    FEATURE_LEVEL_MAX, IntOrPercent, Kind, Object, ObjectRef, Rare,
};

use crate::kit::{Cluster, Say, deployment, reference, rolling};

fn web() -> ObjectRef {
    reference(Kind::Deployment, "web")
}

fn size(replicas: u32) -> CanaryStep {
    CanaryStep::SetReplicas { replicas: IntOrPercent::Int(replicas) }
}

fn pause(duration_ms: Option<u64>) -> CanaryStep {
    CanaryStep::Pause { duration_ms }
}

fn canary(steps: Vec<CanaryStep>, failure_limit: u32) -> Delivery {
    Delivery::Canary { steps, failure_limit }
}

fn blue_green(auto_promotion_ms: Option<u64>, preview_replicas: Option<u32>) -> Delivery {
    Delivery::BlueGreen { auto_promotion_ms, scale_down_delay_ms: 30_000, preview_replicas }
}

/// A Deployment of `replicas` pods that runs its first template whole.
fn start(replicas: u32, delivery: Delivery, change: impl FnOnce(&mut DeploymentSpec)) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.nodes(3);
    let is_blue_green = matches!(delivery, Delivery::BlueGreen { .. });
    cluster.ok(Command::Apply(deployment("web", replicas, |spec| {
        spec.strategy = if is_blue_green { rolling(replicas, 0) } else { rolling(1, 0) };
        spec.delivery = Rare::some(delivery);
        change(spec);
    })));
    cluster.converge();
    assert_eq!(
        cluster.sets("web"),
        format!("1:{replicas}/{replicas}/{replicas}"),
        "a first one has no steps"
    );
    cluster
}

/// Where a Deployment stands: its sets, and what is said of its progress.
fn check(cluster: &mut Cluster, expected: &str) {
    cluster.converge();
    let conditions = cluster.conditions("web");
    let progress = conditions.rsplit_once("Progressing=").map_or("", |(_, text)| text);
    assert_eq!(format!("{} {progress}", cluster.sets("web")), expected);
}

fn promote(full: bool) -> Command {
    Command::PromoteRollout { deployment: web(), full }
}

fn abort() -> Command {
    Command::AbortRollout { deployment: web() }
}

fn retry() -> Command {
    Command::RetryRollout { deployment: web() }
}

fn refused(cluster: &mut Cluster, command: Command) -> String {
    cluster.submit(vec![command]).unwrap_err().reason
}

#[test]
fn a_canary_goes_step_by_step() {
    let steps = vec![size(1), pause(Some(60_000)), size(3), pause(None)];
    let mut cluster = start(5, canary(steps, 0), |_| ());
    cluster.set_image("web", "web:2");
    check(&mut cluster, "1:4/4/4 2:1/1/1 Unknown(DeliveryPaused)");
    cluster.advance(58_000);
    check(&mut cluster, "1:4/4/4 2:1/1/1 Unknown(DeliveryPaused)");
    cluster.advance(3000);
    check(&mut cluster, "1:2/2/2 2:3/3/3 Unknown(DeliveryPaused)");
    cluster.advance(3_600_000);
    check(&mut cluster, "1:2/2/2 2:3/3/3 Unknown(DeliveryPaused)");
    cluster.ok(promote(false));
    check(&mut cluster, "2:5/5/5 True(NewReplicaSetAvailable)");
    assert_eq!(refused(&mut cluster, promote(false)), "has no delivery under way");
}

#[test]
fn a_delivery_is_promoted_ended_and_begun_anew() {
    let mut cluster = start(4, canary(vec![size(1), pause(None), size(2), pause(None)], 0), |_| ());
    assert_eq!(refused(&mut cluster, abort()), "has no delivery under way");
    cluster.set_image("web", "web:2");
    cluster.settle();
    assert_eq!(refused(&mut cluster, promote(false)), "is not paused: step 1 of 4 is under way");
    check(&mut cluster, "1:3/3/3 2:1/1/1 Unknown(DeliveryPaused)");
    assert_eq!(refused(&mut cluster, retry()), "was not ended: there is nothing to begin anew");
    cluster.ok(abort());
    check(&mut cluster, "1:4/4/4 False(RolloutAborted)");
    cluster.ok(abort());
    assert!(refused(&mut cluster, promote(true)).starts_with("was ended (RolloutAborted)"));
    cluster.advance(3_600_000);
    check(&mut cluster, "1:4/4/4 False(RolloutAborted)");
    cluster.ok(retry());
    check(&mut cluster, "1:3/3/3 2:1/1/1 Unknown(DeliveryPaused)");
    cluster.ok(promote(true));
    check(&mut cluster, "2:4/4/4 True(NewReplicaSetAvailable)");
}

#[test]
fn too_many_failed_pods_end_a_canary() {
    let mut cluster = start(4, canary(vec![size(2), pause(None)], 1), |spec| {
        spec.progress_deadline_ms = 60_000;
    });
    cluster.set_image("web", "web:2");
    cluster.settle();
    let new = |cluster: &Cluster| cluster.active_pods().into_iter().rfind(|pod| !pod.status.ready);
    let failed = new(&cluster).unwrap().meta.id;
    cluster.say(failed, Say::Failed);
    check(&mut cluster, "1:2/2/2 2:2/2/2 Unknown(DeliveryPaused)");
    let status = cluster.get_deployment("web").status.delivery.get().cloned().unwrap();
    assert_eq!(status.failed_pods, [failed], "one is tolerated");
    // The second one only is not ready for too long.
    let second = cluster.active_pods().into_iter().next_back().unwrap();
    cluster.say(second.meta.id, Say::NotReady);
    cluster.advance(59_000);
    assert_eq!(cluster.sets("web"), "1:2/2/2 2:2/2/1");
    cluster.advance(3000);
    check(&mut cluster, "1:4/4/4 False(FailureLimitExceeded)");
    cluster.set_image("web", "web:3");
    check(&mut cluster, "1:2/2/2 3:2/2/2 Unknown(DeliveryPaused)");
}

#[test]
fn another_template_begins_at_the_first_step_and_the_stable_one_ends_it() {
    let mut cluster = start(4, canary(vec![size(1), pause(None)], 0), |_| ());
    cluster.set_image("web", "web:2");
    check(&mut cluster, "1:3/3/3 2:1/1/1 Unknown(DeliveryPaused)");
    cluster.set_image("web", "web:3");
    check(&mut cluster, "1:3/3/3 3:1/1/1 Unknown(DeliveryPaused)");
    cluster.ok(Command::UndoRollout { deployment: web(), to_revision: Some(1) });
    check(&mut cluster, "4:4/4/4 True(NewReplicaSetAvailable)");
    cluster.ok(Command::RestartRollout { deployment: web(), restarted_at: "now".into() });
    check(&mut cluster, "4:3/3/3 5:1/1/1 Unknown(DeliveryPaused)");
}

#[test]
fn sizes_follow_the_wanted_number_and_what_holds_the_deployment() {
    let half = CanaryStep::SetReplicas { replicas: IntOrPercent::Percent(50) };
    let mut cluster = start(4, canary(vec![half, pause(None)], 0), |_| ());
    cluster.set_image("web", "web:2");
    check(&mut cluster, "1:2/2/2 2:2/2/2 Unknown(DeliveryPaused)");
    cluster.ok(Command::Scale { object: web(), replicas: 8 });
    check(&mut cluster, "1:4/4/4 2:4/4/4 Unknown(DeliveryPaused)");
    cluster.ok(Command::SetStopped { object: web(), stopped: true });
    check(&mut cluster, " Unknown(DeploymentStopped)");
    cluster.ok(Command::SetStopped { object: web(), stopped: false });
    check(&mut cluster, "1:4/4/4 2:4/4/4 Unknown(DeliveryPaused)");
    cluster.ok(Command::SetPaused { deployment: web(), paused: true });
    cluster.ok(Command::Scale { object: web(), replicas: 6 });
    check(&mut cluster, "1:3/3/3 2:3/3/3 Unknown(DeploymentPaused)");
    cluster.ok(Command::Scale { object: web(), replicas: 10 });
    check(&mut cluster, "1:7/7/7 2:3/3/3 Unknown(DeploymentPaused)");
    cluster.ok(Command::SetPaused { deployment: web(), paused: false });
    check(&mut cluster, "1:5/5/5 2:5/5/5 Unknown(DeliveryPaused)");
    cluster.change("web", |spec| spec.delivery = Rare::NONE);
    check(&mut cluster, "2:10/10/10 True(NewReplicaSetAvailable)");
    assert_eq!(cluster.get_deployment("web").status.delivery, Rare::NONE);
}

#[test]
fn batches_wait_for_each_other_and_stop_at_the_partition() {
    let batches = |partition, pause| Delivery::Batches {
        partition: IntOrPercent::Int(partition),
        size: Some(IntOrPercent::Int(2)),
        pause,
    };
    let manual = Some(BatchPause { duration_ms: None });
    let mut cluster = start(6, batches(1, manual), |_| ());
    cluster.set_image("web", "web:2");
    check(&mut cluster, "1:4/4/4 2:2/2/2 Unknown(DeliveryPaused)");
    cluster.ok(promote(false));
    check(&mut cluster, "1:2/2/2 2:4/4/4 Unknown(DeliveryPaused)");
    cluster.ok(promote(false));
    check(&mut cluster, "1:1/1/1 2:5/5/5 True(NewReplicaSetAvailable)");
    cluster.change("web", |spec| spec.delivery = Rare::some(batches(0, None)));
    check(&mut cluster, "2:6/6/6 True(NewReplicaSetAvailable)");
}

#[test]
fn a_blue_green_delivery_switches_once() {
    let mut cluster = start(3, blue_green(Some(60_000), None), |_| ());
    let active = |cluster: &Cluster| {
        let deployment = cluster.get_deployment("web");
        let (delivery, status) = (&deployment.spec.delivery, &deployment.status.delivery);
        let status = status.get().unwrap();
        status.active(delivery.get().unwrap(), deployment.spec.replicas) == &status.update
    };
    cluster.set_image("web", "web:2");
    check(&mut cluster, "1:3/3/3 2:3/3/3 Unknown(DeliveryPaused)");
    assert!(!active(&cluster));
    cluster.advance(63_000);
    check(&mut cluster, "1:3/3/3 2:3/3/3 Unknown(DeliveryPaused)");
    assert!(active(&cluster));
    cluster.advance(33_000);
    check(&mut cluster, "2:3/3/3 True(NewReplicaSetAvailable)");
    cluster.set_image("web", "web:3");
    check(&mut cluster, "2:3/3/3 3:3/3/3 Unknown(DeliveryPaused)");
    cluster.advance(63_000);
    cluster.ok(abort());
    check(&mut cluster, "2:3/3/3 False(RolloutAborted)");
}

#[test]
fn a_preview_is_made_whole_before_the_switch() {
    let mut cluster = start(3, blue_green(None, Some(1)), |_| ());
    cluster.set_image("web", "web:2");
    check(&mut cluster, "1:3/3/3 2:1/1/1 Unknown(DeliveryPaused)");
    cluster.ok(promote(false));
    cluster.settle();
    assert_eq!(cluster.sets("web"), "1:3/3/3 2:3/3/1", "the old ones serve until the new ones can");
    check(&mut cluster, "1:3/3/3 2:3/3/3 Unknown(DeliveryPaused)");
    cluster.advance(33_000);
    check(&mut cluster, "2:3/3/3 True(NewReplicaSetAvailable)");
}

#[test]
fn no_move_is_made_on_an_older_view() {
    let mut cluster = start(4, canary(vec![size(1), pause(None), size(2)], 0), |_| ());
    cluster.set_image("web", "web:2");
    check(&mut cluster, "1:3/3/3 2:1/1/1 Unknown(DeliveryPaused)");
    let deployment = cluster.get_deployment("web");
    let from = deployment.status.delivery.clone();
    let status = from.get().cloned().unwrap();
    let step = |step| {
        let to = Rare::some(bulkhead_types::DeliveryStatus { step, ..status.clone() });
        Command::AdvanceDelivery { deployment: deployment.meta.id, from: from.clone(), to }
    };
    assert_eq!(refused(&mut cluster, step(2)), "it pauses until somebody promotes");
    assert_eq!(refused(&mut cluster, step(3)), "one step follows another");
    cluster.ok(promote(false));
    assert_eq!(refused(&mut cluster, step(2)), "its delivery is not where it was seen any more");
    let mut old = deployment.status.clone();
    old.available_replicas = 1;
    cluster.ok(Command::SetDeploymentStatus { deployment: deployment.meta.id, status: old });
    let step = cluster.get_deployment("web").status.delivery.get().map(|status| status.step);
    assert_eq!(step, Some(2), "figures of before the promotion leave it alone");
}

/// The answer to a move to the next step while the first step's pod is not ready.
fn check_early_move(level: u32, expected: Result<(), &str>) {
    let mut cluster = Cluster::at_level(Default::default(), level);
    cluster.nodes(3);
    cluster.ok(Command::Apply(deployment("web", 4, |spec| {
        spec.strategy = rolling(1, 0);
        spec.delivery = Rare::some(canary(vec![size(1), size(2)], 0));
    })));
    cluster.converge();
    cluster.set_image("web", "web:2");
    cluster.settle();
    let deployment = cluster.get_deployment("web");
    let from = deployment.status.delivery.clone();
    let status = from.get().cloned().unwrap();
    assert_eq!((cluster.sets("web").as_str(), status.step), ("1:4/4/4 2:1/1/0", 0));
    let to = Rare::some(bulkhead_types::DeliveryStatus { step: 1, ..status });
    let answer = cluster.submit(vec![Command::AdvanceDelivery { deployment: deployment.meta.id, from, to }]);
    assert_eq!(
        answer.map(|_| ()).map_err(|rejection| rejection.reason.to_string()),
        expected.map_err(str::to_owned)
    );
}

#[test]
fn a_step_is_over_only_where_its_pods_are_available_when_it_is_applied() {
    check_early_move(FEATURE_LEVEL_MAX, Err("not all pods of the step are available any more"));
    // The log of an older cluster means what it meant.
    check_early_move(DELIVERY_LEVEL, Ok(()));
}

#[test]
fn old_pods_go_in_the_order_of_their_cost() {
    let batches = Delivery::Batches {
        partition: IntOrPercent::Int(0),
        size: Some(IntOrPercent::Int(1)),
        pause: Some(BatchPause { duration_ms: None }),
    };
    let mut cluster = start(3, batches, |spec| spec.strategy = rolling(0, 1));
    let pods: Vec<_> = cluster.state().pods().iter().cloned().collect();
    for (pod, cost) in pods.iter().zip(["5", "-1", "2"]) {
        let mut object = Object::Pod(pod.clone());
        object.meta_mut().annotations.insert(ANNOTATION_DELETION_COST.into(), cost.into());
        cluster.ok(Command::Apply(object));
    }
    cluster.set_image("web", "web:2");
    let mut left: Vec<_> = pods.iter().map(|pod| pod.meta.id).collect();
    for (at, last) in [(1, false), (1, false), (0, true)] {
        cluster.converge();
        let gone = left.remove(at);
        let has = |id| cluster.state().pods().get(id).is_some();
        assert!(!has(gone) && left.iter().all(|id| has(*id)), "batch by batch, the cheapest first");
        if !last {
            cluster.ok(promote(false));
        }
    }
}

#[test]
fn steps_need_their_level_by_every_way() {
    let mut cluster = Cluster::at_level(Default::default(), 5);
    let object = deployment("web", 1, |spec| spec.delivery = Rare::some(canary(vec![size(1)], 0)));
    let mut managed = object.clone();
    let mut managers = bulkhead_types::Managers::default();
    managers.update("scale", &[vec!["spec", "replicas"]]);
    managed.meta_mut().set_managers(managers);
    let ways = [
        Command::Apply(object.clone()),
        Command::Update { object, seen: None },
        Command::Update { object: managed, seen: None },
        promote(true),
        abort(),
        retry(),
    ];
    for command in ways {
        assert_eq!(refused(&mut cluster, command), "needs level 6, the cluster runs at level 5");
    }
}
