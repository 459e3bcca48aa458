//! Leases of nodes, where clocks differ and entries are slow.

use bulkhead_controlplane_core::server::{Input, Reply};
use bulkhead_types::{
    AgentReport, Command, FENCING_LEVEL, LABEL_FENCE_GUARD, MemberId, Name, Node, NodeFacts, NodePhase,
    RejectionCode,
};

use crate::world::*;

const HOUR_MS: u64 = 3_600_000;
/// The ticket of heartbeats.
const HEARTBEAT: u64 = 900;

/// A cluster with one node that has just registered.
fn world_with_a_node() -> World {
    let mut world = World::new();
    let register =
        Command::RegisterNode { name: Name::new("node-1").expect("a name"), facts: NodeFacts::default() };
    let ticket = world.submit(1, register);
    world.run_until("the node", |w| w.replies.contains_key(&ticket));
    world.assert_equal();
    world
}

fn node(world: &World, member: MemberId) -> Node {
    world.servers[&member].state().nodes().iter().next().expect("registered").as_ref().clone()
}

/// The node's agent is heard by a member.
fn heartbeat(world: &mut World, member: MemberId) {
    let node = node(world, member);
    let report = AgentReport {
        node: node.meta.id,
        incarnation: node.status.incarnation,
        sent_at_ms: 7,
        observed_generation: 0,
        pods: Vec::new(),
        usage: Vec::new(),
        deleted_volumes: Vec::new(),
        devices: Default::default(),
        images: Default::default(),
        volume_results: Vec::new(),
        device_usage: Vec::new(),
        has_pci_facts: false,
    };
    let now_ms = world.clock_ms(member);
    let server = world.servers.get_mut(&member).expect("it is there");
    server.handle(now_ms, Input::Agent { ticket: HEARTBEAT, report });
}

#[test]
fn a_new_leader_gives_every_node_a_whole_lease_although_log_time_jumps_after_its_election() {
    let mut world = world_with_a_node();
    // The leader's clock is ahead, and it dies once the others have its entry but do not know that it is committed.
    let old = world.leader().expect("it answered");
    world.ahead_ms.insert(old, HOUR_MS);
    heartbeat(&mut world, old);
    world.submit(2, namespace("late"));
    let mut inputs = Vec::new();
    world.run(old, &mut inputs);
    world.down.push(old);
    for (member, input) in inputs.into_iter().filter(|(member, _)| *member != old) {
        let now_ms = world.clock_ms(member);
        world.servers.get_mut(&member).expect("it is there").handle(now_ms, input);
    }
    world.run_until("a new leader", |w| w.leader().is_some());
    let new = world.leader().expect("there is one");
    let jumped = |w: &World| w.servers[&new].state().now_ms() >= w.now_ms + HOUR_MS / 2;
    world.run_until("the old leader's entry", jumped);
    for _ in 0..config(1).reconcile.lease_ms / 10 / 2 {
        world.tick();
    }
    assert_eq!(node(&world, new).status.phase, NodePhase::Ready, "half a lease has passed at most");
}

#[test]
fn a_lease_is_not_renewed_behind_the_back_of_an_entry_that_ends_it() {
    let mut world = world_with_a_node();
    let leader = world.leader().expect("it answered");
    // Nobody hears the leader when it calls the node unreachable, and then the node is heard.
    world.down = world.servers.keys().copied().filter(|member| *member != leader).collect();
    world.now_ms += config(1).reconcile.lease_ms;
    world.tick();
    assert_eq!(node(&world, leader).status.phase, NodePhase::Ready, "the entry is under way");
    heartbeat(&mut world, leader);
    world.down.clear();
    world.run_until("the renewal", |w| w.replies.contains_key(&HEARTBEAT));
    assert_eq!(world.phases_at_renewal, [NodePhase::Unreachable], "renewed while the entry was under way");
    world.run_until("the node's return", |w| w.servers[&leader].state().nodes().iter().all(is_ready));
}

/// A world whose only node is silent, and its ticks until the leader wants to fence it.
fn world_with_a_lost_node() -> World {
    let mut world = World::new();
    let labels = [(LABEL_FENCE_GUARD.into(), "true".into())].into();
    let facts = NodeFacts { labels, ..NodeFacts::default() };
    let register = Command::RegisterNode { name: Name::new("node-1").expect("a name"), facts };
    let ticket = world.submit(1, register);
    world.run_until("the node", |w| w.replies.contains_key(&ticket));
    world.run_until("the level", |w| w.servers.values().all(|s| s.state().feature_level() >= FENCING_LEVEL));
    world
}

fn ticks_until_fenced(world: &mut World) -> usize {
    let leader = world.leader().expect("there is one");
    (0..5000)
        .find(|_| {
            world.tick();
            node(world, leader).status.phase == NodePhase::Fenced
        })
        .expect("it is fenced")
}

#[test]
fn a_lease_is_not_renewed_behind_the_back_of_a_fence() {
    // Two worlds do the same: the first tells when.
    let ticks = ticks_until_fenced(&mut world_with_a_lost_node());
    let mut world = world_with_a_lost_node();
    let leader = world.leader().expect("there is one");
    (0..ticks).for_each(|_| world.tick());
    assert_eq!(node(&world, leader).status.phase, NodePhase::Unreachable);
    // Nobody hears the leader when it fences the node, and then the node is heard.
    world.down = world.servers.keys().copied().filter(|member| *member != leader).collect();
    world.tick();
    heartbeat(&mut world, leader);
    world.down.clear();
    world.run_until("the answer", |w| w.replies.contains_key(&HEARTBEAT));
    assert_eq!(world.phases_at_renewal, [], "its session is over");
    assert!(
        matches!(&world.replies[&HEARTBEAT], Reply::Rejected(r) if r.code == RejectionCode::StaleIncarnation)
    );
    assert_eq!(node(&world, leader).status.phase, NodePhase::Fenced);
}

fn is_ready(node: &std::sync::Arc<Node>) -> bool {
    node.status.phase == NodePhase::Ready
}
