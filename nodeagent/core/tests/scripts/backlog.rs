//! Orders for which a pod's task has no room.

use bulkhead_nodeagent_core::{Action, Agent, Input};

use crate::support::*;

/// What the host is given about pods, as long as it takes it; the first that it refuses goes back.
fn offered(agent: &mut Agent, now_ms: u64, takes: bool) -> Vec<&'static str> {
    let mut names = Vec::new();
    while let Some(action) = agent.poll_action() {
        let name = match action {
            Action::Prepare { .. } => "prepare",
            Action::PersistRecord(_) => "persist",
            Action::StartVm(_) => "start",
            Action::KillVm { .. } => "kill",
            Action::CleanUp { .. } => "clean",
            Action::ForgetRecord { .. } => "forget",
            Action::Report(report) => {
                agent.handle(now_ms, ack(report.sent_at_ms));
                continue;
            }
            _ => {
                assert!(!agent.clone().refused(now_ms, action), "it is about no pod");
                continue;
            }
        };
        names.push(name);
        if !takes {
            assert!(agent.refused(now_ms, action));
        }
    }
    names
}

/// The same at the times at which the core wants to be asked again, up to one.
fn offered_until(agent: &mut Agent, until_ms: u64, takes: bool) -> Vec<&'static str> {
    let mut names = Vec::new();
    while let Some(at_ms) = agent.next_deadline_ms().filter(|at_ms| *at_ms <= until_ms) {
        agent.tick(at_ms);
        names.extend(offered(agent, at_ms, takes));
    }
    names
}

fn wants(inputs: Vec<Input>) -> Agent {
    let mut agent = Agent::new(config());
    inputs.into_iter().for_each(|input| agent.handle(0, input));
    agent
}

#[test]
fn what_a_pods_task_has_no_room_for_is_asked_for_again_in_its_order() {
    let mut agent = wants(vec![recovered(), joined(1), intent(1, 101, vec![pod(7)])]);
    assert_eq!(offered(&mut agent, 0, false), ["prepare"]);
    // A host that never has room is asked now and then, and not all the time.
    let again = offered_until(&mut agent, 60_000, false);
    assert!(
        again.len() >= 2 && again.len() <= 60 && again.iter().all(|name| *name == "prepare"),
        "{again:?}"
    );
    assert_eq!(offered_until(&mut agent, 120_000, true), ["prepare"], "until it takes it, and not again");

    // Nothing overtakes what was refused: no guest starts without its record.
    agent.handle(120_000, image(7));
    assert_eq!(offered(&mut agent, 120_000, false), ["persist"]);
    let again = offered_until(&mut agent, 150_000, false);
    assert!(!again.is_empty() && again.iter().all(|name| *name == "persist"), "{again:?}");
    // What is asked for again and again meanwhile is kept once.
    agent.handle(150_000, intent(1, 102, vec![deleting(pod(7), 0)]));
    assert!(offered(&mut agent, 150_000, false).iter().all(|name| *name == "persist"));
    assert!(offered_until(&mut agent, 400_000, false).iter().all(|name| *name == "persist"));
    assert_eq!(offered_until(&mut agent, 411_000, true)[..3], ["persist", "start", "kill"]);
}

#[test]
fn another_pods_orders_do_not_wait() {
    let mut agent = wants(vec![recovered(), joined(1), intent(1, 101, vec![pod(7), pod(8)])]);
    assert_eq!(offered(&mut agent, 0, false), ["prepare", "prepare"]);
    assert_eq!(offered_until(&mut agent, 60_000, true), ["prepare", "prepare"]);
    agent.handle(60_000, image(7));
    assert_eq!(offered(&mut agent, 60_000, false), ["persist"]);
    agent.handle(60_000, image(8));
    assert_eq!(offered(&mut agent, 60_000, true), ["persist", "start"]);
}
