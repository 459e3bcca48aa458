//! Whatever happens, evictions for requests leave at least as many live pods as they must.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{Command, Kind, Pod, UpdateMode, VERTICAL_EVICTION_MS};
use proptest::prelude::*;

use crate::kit::{Cluster, Say, deployment, reference};
use crate::play::{check_history, delete};
use crate::vertical_autoscalers::{Usage, found, of_web};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Op {
    Use(u64, u64),
    Minutes(u64),
    Scale(u32),
    Say(usize, Say),
    Delete(usize),
    Evict(usize),
    Mode(bool),
    Lead,
    Image(u32),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let say = prop_oneof![Just(Say::NotReady), Just(Say::Failed), Just(Say::Ready)];
    let op = prop_oneof![
        3 => (1u64..4000, 1u64..2000).prop_map(|(cpu, memory)| Op::Use(cpu, memory << 20)),
        6 => (1u64..4).prop_map(Op::Minutes),
        1 => (0u32..6).prop_map(Op::Scale),
        2 => (any::<usize>(), say).prop_map(|(pick, say)| Op::Say(pick, say)),
        1 => any::<usize>().prop_map(Op::Delete),
        2 => any::<usize>().prop_map(Op::Evict),
        1 => any::<bool>().prop_map(Op::Mode),
        1 => Just(Op::Lead),
        1 => (1u32..4).prop_map(Op::Image),
    ];
    proptest::collection::vec(op, 1..25)
}

fn verticals(state: &State) -> (u64, u64) {
    let statuses = || state.vertical_pod_autoscalers().iter().map(|one| &one.status);
    (statuses().map(|s| s.evictions).sum(), statuses().map(|s| s.last_eviction_ms).max().unwrap_or(0))
}

fn live(state: &State) -> usize {
    let lives = |pod: &&Arc<Pod>| !pod.meta.is_deleting() && !pod.status.phase.is_terminal();
    state.pods().iter().filter(lives).count()
}

/// After each command: an eviction for requests took one pod, left two, and was not the second within a minute.
fn watch(before: &State, after: &State) {
    let ((evictions, last_ms), (now, now_ms)) = (verticals(before), verticals(after));
    if now == evictions {
        return;
    }
    assert_eq!(now, evictions + 1);
    assert!(last_ms == 0 || now_ms >= last_ms + VERTICAL_EVICTION_MS, "{last_ms} {now_ms}");
    assert_eq!(live(after) + 1, live(before));
    assert!(live(after) >= 2, "{} are left", live(after));
    let unsettled = |pod: &&Arc<Pod>| pod.meta.is_deleting() && !pod.status.phase.is_terminal();
    assert_eq!(before.pods().iter().filter(unsettled).count(), 0, "one at a time");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn two_are_left_alive(replicas in 1u32..6, ops in ops()) {
        let mut cluster = Cluster::new();
        cluster.nodes(4);
        cluster.watch(|seen| watch(seen.before, seen.after));
        cluster.ok(Command::Create(deployment("web", replicas, |_| {})));
        cluster.ok(Command::Create(of_web(|_| ())));
        cluster.converge();
        let (mut cpu, mut memory) = (100, 64 << 20);
        for op in ops {
            let pods = cluster.active_pods();
            let pick = |index: usize| pods.get(index % pods.len().max(1)).cloned();
            match op {
                Op::Use(more_cpu, more_memory) => (cpu, memory) = (more_cpu, more_memory),
                Op::Minutes(minutes) => cluster.minutes(minutes, cpu, memory),
                Op::Scale(replicas) => {
                    cluster.ok(Command::Scale { object: reference(Kind::Deployment, "web"), replicas });
                }
                Op::Say(index, say) => {
                    pick(index).into_iter().for_each(|pod| cluster.say(pod.meta.id, say));
                    cluster.settle();
                }
                Op::Delete(index) => {
                    if let Some(pod) = pick(index) {
                        cluster.ok(delete(Kind::Pod, pod.meta.name.as_str()));
                    }
                }
                // Somebody whose picture of the cluster is an old one.
                Op::Evict(index) => {
                    let autoscaler = Some(found(&cluster, "web").meta.id);
                    if let Some(pod) = pick(index) {
                        let pod = reference(Kind::Pod, pod.meta.name.as_str());
                        let before = cluster.state().clone();
                        let _ = cluster.submit(vec![Command::Evict { pod, grace_ms: None, autoscaler }]);
                        watch(&before, cluster.state());
                    }
                }
                Op::Mode(auto) => {
                    let update_mode = if auto { UpdateMode::Auto } else { UpdateMode::Initial };
                    cluster.ok(Command::Apply(of_web(|spec| spec.update_mode = update_mode)));
                }
                Op::Lead => cluster.new_leader(),
                Op::Image(version) => cluster.set_image("web", &format!("web:{version}")),
            }
        }
        cluster.minutes(2, cpu, memory);
        check_history(&cluster);
    }
}
