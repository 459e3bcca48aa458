//! The agent is killed at every step of a pod's start, resize and end, its devices and network among them, and fails at every one that may fail.
//!
//! The plan is not written down here: a life of each scenario is run once with everything that it reaches written down, and what
//! was reached is the plan. Together the scenarios must reach all of [`Step::ALL`].

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;

use bulkhead_nodeagent::steps::Step;
use bulkhead_types::{PodPhase, PodReport};

use super::life::{Life, Phase, Picture, Scenario, check_no_guest};
use super::machine::{Machine, id};
use crate::resize::sized;

/// One time that a step is reached.
type Time = (String, u32);

/// What a life of a scenario reaches.
struct Plan {
    scenario: Scenario,
    /// In order; the pod is up behind the first so many, and its end begins behind the second.
    times: Vec<Time>,
    of_start: usize,
    of_life: usize,
    /// Of those, what may fail.
    may_fail: Vec<Time>,
    /// What the machine is before and after it.
    before: Picture,
    bridge: String,
}

/// Counts how often each step was reached.
fn times(reached: &[(String, bool)]) -> impl Iterator<Item = (Time, bool)> + '_ {
    reached.iter().enumerate().map(|(at, (step, may_fail))| {
        let count = reached[..=at].iter().filter(|(other, _)| other == step).count();
        ((step.clone(), u32::try_from(count).expect("few")), *may_fail)
    })
}

async fn plan(machine: &mut Machine, scenario: Scenario, number: u64, bridge: Option<&str>) -> Plan {
    let life = Life::new(machine, scenario, number, bridge);
    machine.start(None).await;
    while life.phase() <= Phase::Start {
        life.pass(machine, "the plan").await;
    }
    let of_start = machine.reached().len();
    while life.phase() < Phase::End {
        life.pass(machine, "the plan").await;
    }
    let of_life = machine.reached().len();
    life.live(machine, "the plan").await;
    let reached = machine.reached();
    life.close(machine).await;
    let before = Picture::of(machine);
    life.check_over(machine, &before, "the plan");
    let (links, _) = machine.host().network();
    let bridge = links.into_iter().next().expect("there is a bridge").name;
    let may_fail = times(&reached).filter(|(_, may_fail)| *may_fail).map(|(time, _)| time).collect();
    let times = times(&reached).map(|(time, _)| time).collect();
    Plan { scenario, times, of_start, of_life, may_fail, before, bridge }
}

/// Lives until the agent is killed at a time.
async fn killed_at(machine: &mut Machine, life: &Life, time: &Time, what: &str) {
    let status = match machine.begin(Some(&format!("die:{}:{}", time.0, time.1))).await {
        Some(status) => status,
        None => {
            let mut agent = machine.take_agent();
            let early = tokio::select! {
                biased;
                ended = agent.wait() => Some(ended),
                () = life.live(machine, what) => None,
            };
            // The last step is the end of a life, too.
            let is_reached = || times(&machine.reached()).any(|(reached, _)| reached == *time);
            assert!(early.is_some() || is_reached(), "never reached: {what}");
            match early {
                Some(ended) => ended.expect("ours"),
                None => agent.wait().await.expect("ours"),
            }
        }
    };
    assert_eq!(status.signal(), Some(9), "{what}: {status}");
    // As nobody mended anything yet.
    life.check_stored(machine, what);
}

/// A second time at which the agent is killed: while it recovers from a first.
struct Second {
    first: Time,
    second: Time,
}

/// Kills the agent at every time of every step; the next agent must bring the pod to where it should be: up, once, or away. Tells at
/// which times of which recovery it can be killed again so that something else is left to do: what is the same step with the same
/// steps still to come is one.
async fn kill_at_every_step(machine: &mut Machine, scenario: Scenario) -> (Plan, Vec<Second>) {
    let first = plan(machine, scenario, 1, None).await;
    let plan = match scenario {
        // It finds the bridge there.
        Scenario::Rich => plan(machine, scenario, 2, Some(&first.bridge)).await,
        _ => first,
    };
    let (mut seconds, mut seen) = (Vec::new(), BTreeSet::new());
    let all = plan.times.len();
    let tried = match scenario {
        // They start as others do.
        Scenario::Sick | Scenario::Stubborn => plan.of_life..all,
        // And this one ends so, too.
        Scenario::Resized => plan.of_start..plan.of_life,
        Scenario::Stored => plan.of_start..all,
        Scenario::Plain | Scenario::Rich | Scenario::Devices | Scenario::Pooled | Scenario::Copied => 0..all,
    };
    // It does much of it twice.
    // And of those that pools, templates and volumes add fewer are tried of each commit: a life of theirs takes longer.
    let share = match scenario {
        Scenario::Resized => 2,
        Scenario::Pooled => 5,
        Scenario::Copied => 8,
        Scenario::Stored => 12,
        _ => 1,
    };
    let due = (3..).zip(&plan.times[tried]).filter(|(number, _)| is_due(*number, share));
    for (number, time) in due {
        let what = format!("{:?}, killed at {} {}", plan.scenario, time.0, time.1);
        let life = Life::new(machine, plan.scenario, number, Some(&plan.bridge));
        killed_at(machine, &life, time, &what).await;
        let phase = life.phase();
        machine.start(None).await;
        // A life that was over before the agent died has no further phase.
        while life.phase() <= phase.min(Phase::NoFunctions) {
            life.pass(machine, &what).await;
        }
        let reached = machine.reached();
        for (at, (second, _)) in times(&reached).enumerate() {
            let mut left: Vec<&String> = reached[at + 1..].iter().map(|(step, _)| step).collect();
            left.sort_unstable();
            let is_new = seen.insert(format!("{phase:?} {} {left:?}", second.0));
            if is_new || std::env::var_os(PAIRS).is_some_and(|pairs| pairs == "all") {
                seconds.push(Second { first: time.clone(), second });
            }
        }
        if phase == Phase::Start {
            let report = machine.ready(id(&life.pod)).await;
            assert!(report.status.sandbox_restarts <= 1, "{what}: {report:?}");
        }
        finish(machine, &life, &plan.before, &what).await;
    }
    (plan, seconds)
}

/// With `KILLS_OF=4` every fourth time is tried, others for every `KILLS_BY`, such as a commit: all of them take
/// minutes; with a share of 2, every eighth, and so on. Without it, all.
fn is_due(number: u64, share: u64) -> bool {
    let read = |name: &str| std::env::var(name).unwrap_or_default();
    let of = read("KILLS_OF").parse().unwrap_or(1).max(1);
    let of = if of > 1 { of * share } else { of };
    let by: u64 = read("KILLS_BY").bytes().map(u64::from).sum();
    (number + by).is_multiple_of(of)
}

/// Whoever sets this has the agent killed twice: at all pairs of times with `all`, else at those that leave something else to do.
const PAIRS: &str = "KILL_PAIRS";

/// Lives to the end; nothing is left.
async fn finish(machine: &mut Machine, life: &Life, before: &Picture, what: &str) {
    life.live(machine, what).await;
    life.close(machine).await;
    life.check_over(machine, before, what);
}

async fn check_kills(scenario: Scenario) {
    let Some(mut machine) = Machine::new().await else { return };
    kill_at_every_step(&mut machine, scenario).await;
}

/// Kills the agent, and the next one while it recovers.
async fn check_kills_twice(scenario: Scenario) {
    let Some(mut machine) = Machine::new().await else { return };
    let (plan, seconds) = kill_at_every_step(&mut machine, scenario).await;
    if std::env::var_os(PAIRS).is_none() {
        return;
    }
    println!("{scenario:?}: {} times, {} pairs of times", plan.times.len(), seconds.len());
    for (number, Second { first, second }) in (10_000..).zip(&seconds) {
        let what = format!("{scenario:?}, killed at {first:?} and, while that was mended, at {second:?}");
        let life = Life::new(&mut machine, scenario, number, Some(&plan.bridge));
        killed_at(&mut machine, &life, first, &what).await;
        killed_at(&mut machine, &life, second, &what).await;
        machine.start(None).await;
        finish(&mut machine, &life, &plan.before, &what).await;
    }
}

/// What changes nothing that outlives a boot: processes, sockets, control groups, sysfs, links, what others were told.
const VOLATILE: [Step; 36] = [
    Step::BridgeAdded,
    Step::AddressRemoved,
    Step::AddressAdded,
    Step::BridgeUp,
    Step::HostForwards,
    Step::RulesSet,
    Step::LinkRemoved,
    Step::FunctionsCounted,
    Step::AutoprobeSet,
    Step::MtuSet,
    Step::NicUp,
    Step::PortsBound,
    Step::DisksPlanned,
    Step::FunctionTold,
    Step::OverrideSet,
    Step::FunctionUnbound,
    Step::FunctionProbed,
    Step::TapAdded,
    Step::TapAttached,
    Step::DevicesAttached,
    Step::CgroupMade,
    Step::GuardForked,
    Step::GuardOrdered,
    Step::QemuForked,
    Step::StartTold,
    Step::ControlOpen,
    Step::ChannelOpen,
    Step::StopSaid,
    Step::Killed,
    Step::ProcessEnded,
    Step::CgroupRemoved,
    Step::EndTold,
    Step::CleanUpBegun,
    Step::FunctionReset,
    Step::DevicesReleased,
    Step::CleanUpTold,
];

/// The machine boots anew at every time after which something else is on disk: guests are gone, functions and links are as the kernel
/// makes them, notes of before mean nothing. The policy makes functions anew, and the pod runs again or is away.
async fn check_boots(scenario: Scenario) {
    let Some(mut machine) = Machine::new().await else { return };
    let plan = plan(&mut machine, scenario, 1, None).await;
    let is_lasting = |(step, _): &&Time| VOLATILE.iter().all(|volatile| volatile.name() != step);
    let lasting: Vec<&Time> = plan.times.iter().filter(is_lasting).collect();
    assert!(lasting.len() > 20, "{lasting:?}");
    for (number, time) in (2..).zip(lasting).filter(|(number, _)| is_due(*number, 1)) {
        let what = format!("{scenario:?}, machine booted at {} {}", time.0, time.1);
        let life = Life::new(&mut machine, scenario, number, None);
        killed_at(&mut machine, &life, time, &what).await;
        machine.reboot().await;
        machine.start(None).await;
        finish(&mut machine, &life, &plan.before, &what).await;
    }
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_plain_pod_and_again_while_it_recovers_leaves_one_guest_or_none() {
    check_kills_twice(Scenario::Plain).await;
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_unique_pod_leaves_one_guest_or_none() {
    check_kills(Scenario::Rich).await;
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_pod_that_must_be_killed_leaves_none() {
    check_kills(Scenario::Stubborn).await;
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_pod_with_devices_leaves_them_with_one_guest_or_as_they_were() {
    check_kills(Scenario::Devices).await;
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_pod_with_a_sick_device_leaves_it_in_quarantine() {
    check_kills(Scenario::Sick).await;
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_resize_leaves_the_guest_with_its_new_sizes() {
    check_kills(Scenario::Resized).await;
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_pod_with_a_guest_of_the_pool_leaves_one_guest_and_none_of_the_pool()
{
    check_kills(Scenario::Pooled).await;
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_template_and_its_copy_leaves_one_guest_or_none() {
    check_kills(Scenario::Copied).await;
}

#[tokio::test]
async fn an_agent_killed_at_any_step_with_a_volume_leaves_none_half_made_and_its_guest_running() {
    check_kills(Scenario::Stored).await;
}

/// That it is begun cannot be written down: it is not begun.
#[tokio::test]
async fn a_disk_that_is_full_holds_a_resize_up_and_says_so() {
    let Some(mut machine) = Machine::new().await else { return };
    machine.settings.backoff_ms = (1_500, 1_500);
    let life = Life::new(&mut machine, Scenario::Resized, 1, None);
    machine.start(None).await;
    while life.phase() <= Phase::Start {
        life.pass(&machine, "its start").await;
    }
    let written = machine.reached().iter().filter(|(step, _)| step == Step::RecordWritten.name()).count();
    machine.kill_agent().await;
    // An agent that finds the guest writes no record of it before that.
    assert!(written > 0);
    machine.start(Some(&format!("full:{}:1", Step::RecordWritten.name()))).await;
    machine.ready(id(&life.pod)).await;
    machine.server.intend(vec![sized(&life.pod, 2500, 400)]);
    let full = |report: &PodReport| {
        report.status.actual.get().is_some_and(|actual| actual.message.contains("record cannot be written"))
    };
    let report = machine.server.report(id(&life.pod), "a full disk", full).await;
    assert!(report.status.actual.get().is_some_and(|actual| !actual.refused), "{report:?}");
    assert_eq!(machine.hardware(), [0; 0], "nothing was changed");
    life.live(&machine, "with room again").await;
}

#[tokio::test]
async fn a_machine_that_boots_at_any_step_of_a_pod_with_devices_gives_it_the_same_ones_again() {
    check_boots(Scenario::Devices).await;
}

#[tokio::test]
async fn the_plan_reaches_every_step_there_is() {
    let Some(mut machine) = Machine::new().await else { return };
    let mut reached = BTreeSet::new();
    let mut bridge = None;
    for (number, scenario) in (1..).zip(Scenario::ALL) {
        let plan = plan(&mut machine, scenario, number, bridge.as_deref()).await;
        reached.extend(plan.times.into_iter().map(|(step, _)| step));
        bridge = Some(plan.bridge);
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
    let plan = plan(&mut machine, Scenario::Rich, 1, None).await;
    assert!(plan.may_fail.len() >= 10, "{:?}", plan.may_fail);
    for (number, (step, count)) in (2..).zip(&plan.may_fail) {
        let what = format!("full at {step} {count}");
        let life = Life::new(&mut machine, Scenario::Rich, number, None);
        machine.start(Some(&format!("full:{step}:{count}"))).await;
        machine.server.intend(vec![life.pod.clone()]);
        let full = |report: &PodReport| report.status.reason == "DiskPressure";
        let report = machine.server.report(id(&life.pod), &what, full).await;
        assert_eq!(report.status.phase, PodPhase::Pending, "{what}: {report:?}");
        check_no_guest(&machine, &what);
        life.live(&machine, &what).await;
        machine.kill_agent().await;
        life.check_over(&machine, &plan.before, &what);
    }
}
