//! A node of 200 pods in virtual time: every guest has a supervisor of its own, and what its probes do takes turns on the node's
//! processors.
//!
//! The model: a probe's process needs a processor for [`COST_MS`], first come first served; the supervisor is told in the
//! millisecond in which it ends. So the most that any answer can be late is all probes of the node, due at once, one after the
//! other on each processor.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use bulkhead_guest_protocol::host::ProbeConfig;

use super::checks::probe;
use super::*;

const PODS: usize = 200;
/// Readiness and liveness of each.
const PROBES: usize = 2 * PODS;
/// What a probe costs, process and request.
const COST_MS: u64 = 4;
const PERIOD_MS: u64 = 2_000;
const RUN_MS: u64 = 60_000;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
struct Served {
    /// Fewest and most questions of one probe.
    asked: (u64, u64),
    /// From a question to its answer, at most.
    latest_ms: u64,
    /// Questions that were given up, and containers that were ended for them.
    abandoned: usize,
    ended: usize,
}

/// Runs the node; pod `n` begins at `begin_ms(n)`.
fn serve(processors: usize, timeout_ms: u64, begin_ms: impl Fn(usize) -> u64) -> Served {
    let mut pod = pod(RestartPolicy::Always, 0, 1);
    let probe = || Some(ProbeConfig { timeout_ms, failure_threshold: 3, ..probe(0, PERIOD_MS) });
    (pod.containers[0].readiness_probe, pod.containers[0].liveness_probe) = (probe(), probe());
    let mut node: Vec<Supervisor> = (0..PODS).map(|_| Supervisor::new(&pod)).collect();
    // When each processor is free; ends of probes by time; and who is looked at when.
    let mut free: BinaryHeap<Reverse<u64>> = (0..processors).map(|_| Reverse(0)).collect();
    let mut ends = BinaryHeap::new();
    let mut looks: BTreeSet<(u64, usize)> = (0..PODS).map(|n| (begin_ms(n), n)).collect();
    let mut asked = [[0_u64; 2]; PODS];
    let mut served = Served { asked: (u64::MAX, 0), latest_ms: 0, abandoned: 0, ended: 0 };
    let mut begun = [false; PODS];
    loop {
        let look = looks.first().copied();
        let end = ends.peek().map(|Reverse((at, ..)): &Reverse<(u64, usize, bool, u64, u64)>| *at);
        let now_ms = look.map(|(at, _)| at).into_iter().chain(end).min().expect("it goes on");
        if now_ms > RUN_MS {
            break;
        }
        let (index, events) = match end.filter(|at| *at == now_ms) {
            Some(_) => {
                let Reverse((at, index, is_live, number, asked_ms)) = ends.pop().expect("just seen");
                served.latest_ms = served.latest_ms.max(at - asked_ms);
                let task = if is_live { Task::Liveness } else { Task::Readiness };
                (index, vec![Event::Done { index: 0, task, number, outcome: Ok(()) }])
            }
            None => {
                let (_, index) = looks.pop_first().expect("just seen");
                let begin = vec![Event::Begin, Event::Started { index: 0 }, Event::Tick];
                (index, if std::mem::replace(&mut begun[index], true) { vec![Event::Tick] } else { begin })
            }
        };
        for event in events {
            for action in node[index].handle(event, at(now_ms)) {
                match action {
                    Action::Do { task, number, .. } => {
                        let is_live = task == Task::Liveness;
                        asked[index][usize::from(is_live)] += 1;
                        let Reverse(at) = free.pop().expect("a processor");
                        let done_ms = at.max(now_ms) + COST_MS;
                        free.push(Reverse(done_ms));
                        ends.push(Reverse((done_ms, index, is_live, number, now_ms)));
                    }
                    Action::Abandon { .. } => served.abandoned += 1,
                    Action::Terminate { .. } | Action::Kill { .. } => served.ended += 1,
                    _ => {}
                }
            }
        }
        looks.retain(|(_, other)| *other != index);
        looks.extend(node[index].next_deadline_ms().map(|at| (at.max(now_ms), index)));
    }
    let counts = asked.iter().flatten();
    served.asked = (*counts.clone().min().expect("some"), *counts.max().expect("some"));
    served
}

#[test]
fn probes_of_200_pods_are_on_time_even_when_all_are_due_at_once() {
    let processors = 2;
    let worst_ms = (PROBES / processors) as u64 * COST_MS;
    // The default time for an answer is 1 s.
    let at_once = serve(processors, 1_000, |_| 0);
    assert_eq!((at_once.abandoned, at_once.ended), (0, 0), "{at_once:?}");
    assert_eq!(at_once.latest_ms, worst_ms, "the bound is reached, and not passed");
    assert_eq!(
        at_once.asked,
        (RUN_MS / PERIOD_MS + 1, RUN_MS / PERIOD_MS + 1),
        "none is left out, none drifts"
    );
    // Pods that began one after the other wait for their own other probe only.
    let spread = serve(processors, 1_000, |n| n as u64 * PERIOD_MS / PODS as u64);
    assert_eq!((spread.abandoned, spread.latest_ms), (0, COST_MS), "{spread:?}");
}

#[test]
fn a_node_that_cannot_do_its_probes_in_time_says_so() {
    // One processor, and an answer within less than all of them need.
    let worst_ms = PROBES as u64 * COST_MS;
    let late = serve(1, worst_ms / 2, |_| 0);
    assert!(late.abandoned > 0 && late.latest_ms > worst_ms / 2, "{late:?}");
}
