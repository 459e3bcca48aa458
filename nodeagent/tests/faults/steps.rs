//! The agent is killed at every step of a pod's start and end, and fails at every one that may fail.
//!
//! The plan is not written down here: a life of each scenario is run once with everything that it reaches written down, and what
//! was reached is the plan. Together the scenarios must reach all of [`Step::ALL`].

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;

use bulkhead_nodeagent::steps::Step;
use bulkhead_types::{
    ClaimIntent, ContainerPort, HostPort, PodIntent, PodOptions, PodPhase, PodReport, Protocol, Rare, Shared,
    Volume, VolumeSource,
};

use super::machine::{Machine, id, named, web};

/// How a pod lives and ends.
#[derive(Clone, Copy, Debug)]
enum Scenario {
    /// It is asked to end, and does.
    Plain,
    /// It must be unique, has a port of the node, disks of its own and a claim's volume.
    Rich,
    /// Its guest does not end when it is asked to.
    Stubborn,
}

impl Scenario {
    const ALL: [Self; 3] = [Self::Plain, Self::Rich, Self::Stubborn];

    fn pod(self, number: u64) -> PodIntent {
        match self {
            Self::Plain => web(number),
            Self::Rich => rich(number),
            Self::Stubborn => named(web(number), &format!("ignores-stop-{number}")),
        }
    }

    /// Of the pod's deletion, in milliseconds. Without one a guest is killed.
    fn grace_ms(self) -> u64 {
        match self {
            Self::Plain | Self::Rich => 5_000,
            Self::Stubborn => 0,
        }
    }
}

fn rich(number: u64) -> PodIntent {
    let mut pod = web(number);
    let mut spec = (*pod.spec).clone();
    let volume = |name: &str, source| Volume { name: name.into(), source };
    let empty = VolumeSource::EmptyDir { memory: false, size_limit_bytes: Some(8 << 20) };
    let claim = VolumeSource::PersistentVolumeClaim { claim_name: "data".into(), read_only: false };
    let volumes = vec![volume("scratch", empty), volume("data", claim)];
    spec.options = Rare::some(PodOptions { volumes, ..PodOptions::default() });
    spec.containers[0].ports = vec![ContainerPort {
        name: None,
        container_port: 80,
        protocol: Protocol::Tcp,
        host: Rare::some(HostPort { port: free_port(), ip: Some([127, 0, 0, 1].into()) }),
    }];
    pod.spec = Shared::new(spec);
    pod.unique = true;
    // The same for all: it outlives every one of them.
    let uid = uuid::Uuid::from_u128(99);
    pod.claims = vec![ClaimIntent {
        claim_name: "data".into(),
        uid,
        size_bytes: 8 << 20,
        used: false,
        read_only: false,
    }];
    pod
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// One time that a step is reached.
type Time = (String, u32);

/// What a life of a scenario reaches, which of it may fail, and how many control groups a guest has.
async fn plan(machine: &mut Machine, scenario: Scenario, number: u64) -> (Vec<(Time, bool)>, usize) {
    let log = machine.dir().join("reached");
    machine.start(Some(&format!("log:{}", log.display()))).await;
    let pod = scenario.pod(number);
    machine.server.intend(vec![pod.clone()]);
    machine.ready(number).await;
    // What is done beside the start has been done once QEMU was asked.
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    machine.until("the control socket", || text().contains(Step::ControlOpen.name())).await;
    let groups = machine.guest_groups();
    machine.delete(&[pod], scenario.grace_ms()).await;
    machine.until("the last step", || text().contains(Step::RecordForgotten.name())).await;
    machine.kill_agent().await;
    let mut times = BTreeMap::<String, u32>::new();
    let reached = text();
    let reached = reached.lines().map(|line| {
        let (step, may_fail) = line.split_once(' ').expect("two words");
        let count = times.entry(step.to_owned()).or_default();
        *count += 1;
        ((step.to_owned(), *count), may_fail == "true")
    });
    (reached.collect(), groups)
}

fn is_of_start(step: &str) -> bool {
    Step::ALL.iter().any(|known| known.name() == step && *known < Step::StopAsked)
}

/// There is one guest of this pod, and nothing of another.
fn check_runs(machine: &Machine, pod: &PodIntent, groups: usize, what: &str) {
    assert_eq!(machine.guests().len(), 1, "{what}: guests");
    assert_eq!(machine.guards().len(), usize::from(pod.unique), "{what}: guards");
    assert_eq!(machine.guest_folders(), 1, "{what}: folders");
    assert_eq!(machine.guest_groups(), groups, "{what}: control groups");
}

/// Nothing of a guest is there.
fn check_nothing(machine: &Machine, what: &str) {
    assert_eq!((machine.guests(), machine.guards()), (vec![], vec![]), "{what}: processes");
    assert_eq!((machine.guest_folders(), machine.guest_groups()), (0, 0), "{what}: folders, control groups");
}

/// Kills the agent at every time of every step; the next agent must bring the pod to where it should be: up, once, or away.
async fn kill_at_every_step(scenario: Scenario) {
    let Some(mut machine) = Machine::new().await else { return };
    let (plan, groups) = plan(&mut machine, scenario, 1).await;
    for (number, ((step, count), _)) in (2..).zip(&plan) {
        let what = format!("{scenario:?}, killed at {step} {count}");
        let pod = scenario.pod(number);
        machine.start(Some(&format!("die:{step}:{count}"))).await;
        machine.server.intend(vec![pod.clone()]);
        if !is_of_start(step) {
            machine.ready(number).await;
            machine.server.intend(vec![crate::deleting(pod.clone(), scenario.grace_ms())]);
        }
        let status = machine.ended(&what).await;
        assert_eq!(status.signal(), Some(9), "{what}: {status}");

        machine.start(None).await;
        if is_of_start(step) {
            let report = machine.ready(number).await;
            assert!(report.status.sandbox_restarts <= 1, "{what}: {report:?}");
            check_runs(&machine, &pod, groups, &what);
        }
        machine.delete(&[pod], scenario.grace_ms()).await;
        check_nothing(&machine, &what);
        machine.kill_agent().await;
    }
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_plain_pod_leaves_one_guest_or_none() {
    kill_at_every_step(Scenario::Plain).await;
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_unique_pod_leaves_one_guest_or_none() {
    kill_at_every_step(Scenario::Rich).await;
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_pod_that_must_be_killed_leaves_none() {
    kill_at_every_step(Scenario::Stubborn).await;
}

#[tokio::test]
async fn the_plan_reaches_every_step_there_is() {
    let Some(mut machine) = Machine::new().await else { return };
    let mut reached = BTreeSet::new();
    for (number, scenario) in (1..).zip(Scenario::ALL) {
        let (plan, _) = plan(&mut machine, scenario, number).await;
        reached.extend(plan.into_iter().map(|((step, _), _)| step));
        std::fs::remove_file(machine.dir().join("reached")).expect("it was written");
    }
    let all: BTreeSet<String> = Step::ALL.iter().map(|step| step.name().to_owned()).collect();
    assert_eq!(reached, all);
}

/// At every step that may fail the disk is full, once: the pod says so, nothing of its guest is there, and it is tried again.
#[tokio::test]
async fn a_disk_that_is_full_at_any_step_is_named_and_leaves_nothing_half_made() {
    let Some(mut machine) = Machine::new().await else { return };
    // Time to look before it is tried again.
    machine.settings.backoff_ms = (1_500, 1_500);
    let (plan, groups) = plan(&mut machine, Scenario::Rich, 1).await;
    let may_fail: Vec<Time> =
        plan.into_iter().filter(|(_, may_fail)| *may_fail).map(|(time, _)| time).collect();
    assert!(may_fail.len() >= 10, "{may_fail:?}");
    for (number, (step, count)) in (2..).zip(&may_fail) {
        let what = format!("full at {step} {count}");
        let pod = Scenario::Rich.pod(number);
        machine.start(Some(&format!("full:{step}:{count}"))).await;
        machine.server.intend(vec![pod.clone()]);
        let full = |report: &PodReport| report.status.reason == "DiskPressure";
        let report = machine.server.report(id(&pod), &what, full).await;
        assert_eq!(report.status.phase, PodPhase::Pending, "{what}: {report:?}");
        check_nothing(&machine, &what);
        let report = machine.ready(id(&pod)).await;
        assert_eq!(report.status.reason, "", "{what}: {report:?}");
        check_runs(&machine, &pod, groups, &what);
        machine.delete(&[pod], 5_000).await;
        check_nothing(&machine, &what);
        machine.kill_agent().await;
    }
}
