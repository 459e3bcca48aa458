//! Servers over a lossless network and an instant disk: the smallest world in which a cluster must work.
//! Faults are the simulator's work.

mod catching_up;
mod early;
mod leases;
mod pci_facts;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_controlplane_core::replica::{LogView, SnapshotPoint};
use bulkhead_controlplane_core::server::{Fatal, Input, PeerMessage, Reply, Server, ServerConfig};
use bulkhead_proto::ProtoCodec;
use bulkhead_types::{Command, FEATURE_LEVEL_MAX, MemberId, MemberRole, MembershipAction};
use raft::eraftpb::{ConfState, HardState};
use world::*;

#[test]
fn an_acknowledged_command_is_on_every_replica_and_a_retry_gets_the_first_answer() {
    let mut world = World::new();
    let first = outcome(world.create(1, "a"));
    assert!(first.is_ok(), "{first:?}");
    assert_eq!(outcome(world.create(1, "a")), first, "the same request");
    assert!(outcome(world.create(2, "a")).is_err(), "another request, the same name");
    world.assert_equal();
}

#[test]
fn a_new_leader_goes_on_and_the_old_one_catches_up_by_snapshot() {
    let mut world = World::new();
    assert!(outcome(world.create(1, "before")).is_ok());
    let old = world.leader().expect("a leader");
    world.down.push(old);
    for n in 0..120 {
        assert!(outcome(world.create(100 + n, &format!("n{n}"))).is_ok());
    }
    world.down.clear();
    world.assert_equal();
    assert!(world.servers[&old].status().snapshot_index > 1, "it needed a snapshot");
    assert_eq!(world.servers[&old].state().namespaces().len(), 122);
}

#[test]
fn members_join_as_learners_are_promoted_and_leave() {
    let mut world = World::new();
    for n in 0..80 {
        assert!(outcome(world.create(100 + n, &format!("n{n}"))).is_ok());
    }
    let four = MemberId(4);
    let add = MembershipAction::AddLearner { member: four, address: "127.0.0.1:4".into() };
    assert!(outcome(world.membership(1, add.clone())).is_ok());
    world.start(4, LogView::default());
    world.assert_equal();
    assert!(outcome(world.membership(2, MembershipAction::Promote { member: four })).is_ok());
    world.run_until("registered", |w| {
        w.servers[&four].state().member(four).is_some_and(|m| !m.storage_uid.is_nil())
    });
    let victim = *world.servers.keys().find(|m| Some(**m) != world.leader() && **m != four).expect("one");
    assert!(outcome(world.membership(3, MembershipAction::Remove { member: victim })).is_ok());
    world.run_until("the removed one stops", |w| w.fatals.get(&victim) == Some(&Fatal::Removed(victim)));
    world.assert_equal();
    let leader = world.leader().expect("a leader");
    assert_eq!(world.servers[&leader].state().member(victim).map(|m| m.role), Some(MemberRole::Removed));
    match world.membership(4, MembershipAction::AddLearner { member: victim, address: "x:1".into() }) {
        Reply::Rejected(rejection) => assert!(rejection.reason.contains("never used again"), "{rejection}"),
        other => panic!("{other:?}"),
    }
    let five = MembershipAction::AddLearner { member: MemberId(5), address: "127.0.0.1:5".into() };
    assert!(outcome(world.membership(5, five)).is_ok());
    match world.membership(6, MembershipAction::Remove { member: leader }) {
        Reply::Rejected(rejection) => {
            let text = rejection.to_string();
            assert!(text.contains("leads the cluster") && text.contains("transfer the leadership"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

/// Three voters and a learner that has caught up.
fn with_learner() -> (World, MemberId) {
    let mut world = World::new();
    assert!(outcome(world.create(100, "first")).is_ok());
    let four = MemberId(4);
    let add = MembershipAction::AddLearner { member: four, address: "127.0.0.1:4".into() };
    assert!(outcome(world.membership(1, add)).is_ok());
    world.start(4, LogView::default());
    world.assert_equal();
    (world, four)
}

/// Nobody sends it anything any more, and a learner calls no elections by which others would hear of it.
#[test]
fn a_learner_that_was_removed_while_it_was_cut_off_is_told_so() {
    let (mut world, four) = with_learner();
    world.down.push(four);
    assert!(outcome(world.membership(2, MembershipAction::Remove { member: four })).is_ok());
    world.down.clear();
    world.run_until("it stops", |w| w.fatals.get(&four) == Some(&Fatal::Removed(four)));
}

/// It asks for no votes, so that its Raft names the leader that it heard of last for ever: agents would be held there, and hear of
/// nothing that they should run.
#[test]
fn a_learner_that_hears_nothing_knows_of_no_leader() {
    let (mut world, four) = with_learner();
    assert_eq!(world.servers[&four].leader(), world.leader());
    let others = world.servers.keys().copied().filter(|member| *member != four);
    world.down.extend(others.collect::<Vec<_>>());
    world.run_until("it knows of none", |w| w.servers[&four].leader().is_none());
    world.down.clear();
    world.run_until("it knows of one again", |w| w.servers[&four].leader().is_some());
}

/// Of four voters one is down and one is removed: leaving the joint configuration takes three of the old four, so
/// the one that goes must have its say until then.
#[test]
fn a_removed_voter_has_its_say_until_the_joint_configuration_is_left() {
    let (mut world, four) = with_learner();
    assert!(outcome(world.membership(2, MembershipAction::Promote { member: four })).is_ok());
    world.assert_equal();
    let leader = world.leader().expect("a leader");
    let others: Vec<MemberId> =
        world.servers.keys().copied().filter(|m| *m != leader && *m != four).collect();
    let (dead, leaving) = (others[0], others[1]);
    world.down.push(dead);
    assert!(outcome(world.membership(3, MembershipAction::Remove { member: leaving })).is_ok());
    assert!(outcome(world.create(101, "after")).is_ok(), "the cluster goes on");
    world.run_until("the removed one stops", |w| w.fatals.get(&leaving) == Some(&Fatal::Removed(leaving)));
    assert!(outcome(world.create(102, "later")).is_ok());
}

#[test]
fn changes_of_the_membership_wait_for_their_turn_and_for_a_new_leader() {
    let mut world = World::new();
    assert!(outcome(world.create(1, "a")).is_ok());
    let leader = world.leader().expect("a leader");
    // All at once: each waits until the one before is done.
    let add = |member: u64| MembershipAction::AddLearner {
        member: MemberId(member),
        address: format!("127.0.0.1:{member}").into(),
    };
    let tickets: Vec<u64> = (4..8).map(|n| world.ask_membership(leader, u128::from(n), add(n))).collect();
    world.run_until("all answers", |w| tickets.iter().all(|t| w.replies.contains_key(t)));
    let answers: Vec<_> = tickets.iter().map(|t| outcome(world.replies[t].clone())).collect();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(outcome(world.membership(4, add(4))), answers[0], "a repeated request gets the first answer");
    // A leader of a moment ago has heard nobody yet and has entries to apply: it waits instead of refusing.
    world.down.push(leader);
    world.run_until("another leader", |w| w.servers.iter().any(|(m, s)| *m != leader && s.is_leader()));
    let new = *world.servers.iter().find(|(m, s)| **m != leader && s.is_leader()).expect("one").0;
    let ticket = world.ask_membership(new, 20, MembershipAction::Remove { member: leader });
    world.run_until("an answer", |w| w.replies.contains_key(&ticket));
    assert!(outcome(world.replies[&ticket].clone()).is_ok());
    // Whoever waits while the leadership is lost is told so.
    let learner = MembershipAction::Promote { member: MemberId(4) };
    let ticket = world.ask_membership(new, 21, learner);
    let other = *world.servers.keys().find(|m| **m != leader && **m != new).expect("a voter");
    world.down.push(other);
    world.run_until("an answer", |w| w.replies.contains_key(&ticket));
    assert_eq!(world.replies[&ticket], Reply::Lost);
}

#[test]
fn the_removal_that_would_break_the_quorum_is_refused() {
    let mut world = World::new();
    assert!(outcome(world.create(1, "a")).is_ok());
    let leader = world.leader().expect("a leader");
    let others: Vec<MemberId> = world.servers.keys().copied().filter(|m| *m != leader).collect();
    world.down.push(others[0]);
    for _ in 0..40 {
        world.tick();
    }
    match world.membership(2, MembershipAction::Remove { member: others[1] }) {
        Reply::Rejected(rejection) => assert!(rejection.reason.contains("could be heard"), "{rejection}"),
        other => panic!("{other:?}"),
    }
    let dead = outcome(world.membership(3, MembershipAction::Remove { member: others[0] }));
    assert!(dead.is_ok(), "the dead one may go without its consent: {dead:?}");
}

/// Tells `to` another digest than it will find, as if from each of `from`, and goes on until somebody stops.
fn lie(world: &mut World, to: MemberId, from: &[MemberId]) {
    let index = world.servers[&to].applied_index() / 8 * 8 + 8;
    let now_ms = world.now_ms;
    let server = world.servers.get_mut(&to).expect("it");
    for from in from {
        let message =
            PeerMessage::Digest { index, digest_version: bulkhead_types::DIGEST_VERSION, digest: 1 };
        server.handle(now_ms, Input::Peer { from: *from, message });
    }
    for n in 0..10 {
        let _ = world.create(10 + n, &format!("n{n}"));
        if !world.fatals.is_empty() {
            return;
        }
    }
    for _ in 0..100 {
        world.tick();
    }
}

#[test]
fn a_replica_that_differs_from_the_majority_stops_and_the_others_go_on() {
    let mut world = World::new();
    assert!(outcome(world.create(1, "a")).is_ok());
    let follower = *world.servers.keys().find(|m| Some(**m) != world.leader()).expect("one");
    let others: Vec<MemberId> = world.servers.keys().copied().filter(|m| *m != follower).collect();
    lie(&mut world, follower, &others);
    assert!(matches!(world.fatals.get(&follower), Some(Fatal::Diverged { .. })), "{:?}", world.fatals);
    let text = world.fatals[&follower].to_string();
    assert!(text.contains("after entry ") && text.contains("bulkhead member replace"), "{text}");
    assert!(outcome(world.create(100, "goes-on")).is_ok());
    assert_eq!(world.fatals.len(), 1);
}

#[test]
fn a_leader_that_differs_from_the_others_is_the_one_that_stops() {
    let mut world = World::new();
    assert!(outcome(world.create(1, "a")).is_ok());
    let leader = world.leader().expect("a leader");
    let others: Vec<MemberId> = world.servers.keys().copied().filter(|m| *m != leader).collect();
    lie(&mut world, leader, &others);
    assert!(matches!(world.fatals.get(&leader), Some(Fatal::Diverged { .. })), "{:?}", world.fatals);
    assert!(outcome(world.create(100, "goes-on")).is_ok());
    assert_eq!(world.fatals.len(), 1);
}

#[test]
fn a_replica_that_only_the_leader_contradicts_waits_for_the_others_word() {
    let mut world = World::new();
    assert!(outcome(world.create(1, "a")).is_ok());
    let leader = world.leader().expect("a leader");
    let follower = *world.servers.keys().find(|m| **m != leader).expect("one");
    lie(&mut world, follower, &[leader]);
    assert_eq!(world.fatals, BTreeMap::new(), "the third one agrees with it");
    let third = *world.servers.keys().find(|m| **m != leader && **m != follower).expect("one");
    world.down.push(third);
    lie(&mut world, follower, &[leader]);
    assert!(matches!(world.fatals.get(&follower), Some(Fatal::Diverged { .. })), "{:?}", world.fatals);
}

/// The servers as they are, but some pass for older ones.
fn world_of_levels(levels: [u32; 3]) -> World {
    let mut world = World::new();
    for (member, level) in (1..).zip(levels) {
        let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        let genesis = SnapshotPoint { index: 1, term: 1, conf_state };
        let log = LogView::new(genesis, HardState::default(), Vec::new());
        let config = ServerConfig { feature_level_max: level, ..config(member) };
        let server =
            Server::new(config, Arc::new(ProtoCodec), State::default(), log, &logger()).expect("starts");
        world.servers.insert(MemberId(member), server);
    }
    world
}

fn rejection(reply: Reply) -> String {
    match reply {
        Reply::Rejected(rejection) => rejection.to_string(),
        Reply::Applied(transaction) => transaction.outcome.as_ref().expect_err("refused").to_string(),
        other => panic!("{other:?}"),
    }
}

fn raise(world: &mut World, request: u128, level: u32) -> Reply {
    let ticket = world.submit(request, Command::RaiseFeatureLevel { level });
    world.run_until("an answer", |w| w.replies.contains_key(&ticket));
    world.replies[&ticket].clone()
}

fn level_everywhere(world: &mut World, level: u32) {
    world.run_until("the level", |w| {
        let up = w.servers.iter().filter(|(m, _)| !w.down.contains(m));
        up.map(|(_, s)| s.state().feature_level()).all(|found| found == level)
    });
}

#[test]
fn a_new_cluster_begins_at_what_everybody_supports_and_a_mixed_one_stays_there() {
    let mut world = world_of_levels([2, 1, 2]);
    level_everywhere(&mut world, 1);
    let refused = rejection(raise(&mut world, 1, 2));
    assert!(refused.contains("member 2 supports up to level 1"), "{refused}");
    // A record of level 2 is refused before it is proposed: member 2 could not read it.
    world.force_unsafe = true;
    let leader = world.leader().expect("a leader");
    let victim = *world.servers.keys().find(|m| **m != leader).expect("one");
    let refused = rejection(world.membership(2, MembershipAction::Remove { member: victim }));
    assert!(refused.contains("needs level 2, the cluster runs at level 1"), "{refused}");
    assert!(outcome(world.create(3, "goes-on")).is_ok());
    assert_eq!(world.fatals, BTreeMap::new());
}

#[test]
fn a_level_is_never_lowered_and_an_older_server_does_not_start_above_its_own() {
    let mut world = world_of_levels([2, 2, 2]);
    level_everywhere(&mut world, 2);
    assert!(outcome(raise(&mut world, 1, 2)).is_ok(), "what holds may be asked for again");
    let refused = rejection(raise(&mut world, 2, 1));
    assert!(refused.contains("going back to 1 is not possible"), "{refused}");
    let refused = rejection(raise(&mut world, 3, 3));
    assert!(refused.contains("supports up to level 2"), "{refused}");
    let state = world.servers[&MemberId(1)].state().clone();
    let older = ServerConfig { feature_level_max: 1, ..config(1) };
    let log = LogView::default();
    let Err(refused) = Server::new(older, Arc::new(ProtoCodec), state, log, &logger()) else {
        panic!("it started")
    };
    assert!(
        refused.to_string().contains("runs at feature level 2, this server supports up to 1"),
        "{refused}"
    );
}

#[test]
fn a_learner_that_is_older_holds_a_level_up_and_stops_when_it_meets_a_higher_one() {
    let mut world = world_of_levels([2, 2, 2]);
    level_everywhere(&mut world, 2);
    let four = MemberId(4);
    let add = MembershipAction::AddLearner { member: four, address: "127.0.0.1:4".into() };
    assert!(outcome(world.membership(1, add)).is_ok());
    let refused = rejection(raise(&mut world, 2, 3));
    assert!(refused.contains("level"), "{refused}");
    let older = ServerConfig { feature_level_max: 1, ..config(4) };
    let server = Server::new(older, Arc::new(ProtoCodec), State::default(), LogView::default(), &logger());
    world.servers.insert(four, server.expect("it knows nothing of the cluster yet"));
    world.run_until("the older one stops", |w| w.fatals.contains_key(&four));
    let text = world.fatals[&four].to_string();
    assert!(text.contains("feature level 2") && text.contains("supports up to 1"), "{text}");
    assert!(outcome(world.create(3, "goes-on")).is_ok());
}

#[test]
fn a_forced_removal_passes_the_check_and_is_in_the_log() {
    let mut world = World::new();
    level_everywhere(&mut world, FEATURE_LEVEL_MAX);
    let leader = world.leader().expect("a leader");
    let others: Vec<MemberId> = world.servers.keys().copied().filter(|m| *m != leader).collect();
    world.down.push(others[0]);
    for _ in 0..40 {
        world.tick();
    }
    let refused = rejection(world.membership(2, MembershipAction::Remove { member: others[1] }));
    for words in ["quorum would be lost", "silent: ", "--force-unsafe", "bulkhead recover"] {
        assert!(refused.contains(words), "{words:?} is not in {refused}");
    }
    world.force_unsafe = true;
    assert!(outcome(world.membership(3, MembershipAction::Remove { member: others[1] })).is_ok());
    let record = world.servers[&leader].state().member(others[1]).map(|m| m.role);
    assert_eq!(record, Some(MemberRole::Removed));
}

#[test]
fn the_log_is_compacted_by_size_and_by_age() {
    let check = |change: fn(&mut ServerConfig), idle_ticks: u64, expected: bool| {
        let mut world = World::new();
        let conf_state = ConfState { voters: vec![1], ..ConfState::default() };
        let genesis = SnapshotPoint { index: 1, term: 1, conf_state };
        let mut config = ServerConfig { initial_members: vec![(MemberId(1), "a:1".into())], ..config(1) };
        config.snapshot_entries = u64::MAX;
        change(&mut config);
        let log = LogView::new(genesis, HardState::default(), Vec::new());
        let server = Server::new(config, Arc::new(ProtoCodec), State::default(), log, &logger());
        world.servers = BTreeMap::from([(MemberId(1), server.expect("starts"))]);
        assert!(outcome(world.create(1, "a")).is_ok());
        for _ in 0..idle_ticks {
            world.tick();
        }
        assert_eq!(world.servers[&MemberId(1)].status().snapshot_index > 1, expected);
    };
    check(|_| (), 200, false);
    check(|config| config.snapshot_log_bytes = 100, 5, true);
    check(|config| config.snapshot_age_ms = 1000, 200, true);
    check(|config| config.snapshot_age_ms = 1_000_000, 200, false);
}

#[test]
fn a_leader_whose_process_ended_is_replaced_without_the_election_time_out() {
    let mut world = World::new();
    outcome(world.create(1, "before")).expect("accepted");
    let gone = world.leader().expect("it answered");
    world.down.push(gone);
    let now_ms = world.now_ms;
    for (_, server) in world.servers.iter_mut().filter(|(member, _)| **member != gone) {
        server.handle(now_ms, Input::PeerDown { member: gone });
    }
    // The first candidate calls at once, the second three ticks later; the time-out begins at ten.
    for _ in 0..6 {
        world.tick();
    }
    assert!(world.leader().is_some(), "nobody leads");
    outcome(world.create(2, "after")).expect("accepted");
}

#[test]
fn a_wrong_word_about_the_leader_changes_nothing_while_the_others_hear_it() {
    let mut world = World::new();
    outcome(world.create(1, "before")).expect("accepted");
    let leader = world.leader().expect("it answered");
    let misled = *world.servers.keys().find(|member| **member != leader).expect("there are three");
    let (term, now_ms) = (world.servers[&leader].status().term, world.now_ms);
    world.servers.get_mut(&misled).expect("it is there").handle(now_ms, Input::PeerDown { member: leader });
    for _ in 0..60 {
        world.tick();
    }
    assert_eq!((world.leader(), world.servers[&leader].status().term), (Some(leader), term));
}
