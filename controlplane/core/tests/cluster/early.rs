//! How soon a leader whose process ended is replaced, whatever its followers have heard and when.

use bulkhead_controlplane_core::replica::encode;
use bulkhead_controlplane_core::server::{Input, PeerMessage};
use bulkhead_types::MemberId;
use raft::eraftpb::{Message, MessageType};

use crate::world::{World, outcome};

/// A leader that has just died.
struct Death {
    world: World,
    gone: MemberId,
    /// Its followers, in the order of their ids.
    followers: [MemberId; 2],
}

impl Death {
    /// A follower is told that nobody listens at the leader's address.
    fn tell(&mut self, follower: usize) {
        let now_ms = self.world.now_ms;
        let member = self.followers[follower];
        let server = self.world.servers.get_mut(&member).expect("it is there");
        server.handle(now_ms, Input::PeerDown { member: self.gone });
    }

    /// A follower gets a heartbeat that was under way when the leader died.
    fn late_heartbeat(&mut self, follower: usize) {
        let (now_ms, from) = (self.world.now_ms, self.gone);
        let server = self.world.servers.get_mut(&self.followers[follower]).expect("it is there");
        let mut message = Message { from: from.0, to: self.followers[follower].0, ..Message::default() };
        message.set_msg_type(MessageType::MsgHeartbeat);
        message.term = server.status().term;
        server.handle(now_ms, Input::Peer { from, message: PeerMessage::Raft(encode(&message)) });
    }
}

/// Lets a leader die, what happens then happen at the ticks for which `then` is called, and expects another leader
/// within `ticks`: with any seed, because seeds draw the election time-outs.
fn check(newest_is_higher: bool, then: fn(&mut Death, u64), ticks: u64) {
    for seed in 1..=30 {
        let mut world = World::with_seed(seed);
        outcome(world.create(1, "before")).expect("accepted");
        let gone = world.leader().expect("it answered");
        let mut followers = world.servers.keys().copied().filter(|member| *member != gone);
        let followers = [(); 2].map(|()| followers.next().expect("there are three"));
        if newest_is_higher {
            world.down.push(followers[0]);
            outcome(world.create(2, "newer")).expect("accepted");
        }
        world.down = vec![gone];
        let mut death = Death { world, gone, followers };
        for tick in 0..ticks {
            then(&mut death, tick);
            death.world.tick();
        }
        assert!(death.world.leader().is_some(), "seed {seed}: nobody leads after {ticks} ticks");
        outcome(death.world.create(3, "after")).expect("accepted");
    }
}

/// Both followers are told at the first tick.
fn tell_both(death: &mut Death, tick: u64) {
    if tick == 0 {
        death.tell(0);
        death.tell(1);
    }
}

#[test]
fn when_both_followers_hear_of_it_one_leads_at_once() {
    check(false, tell_both, 1);
}

/// The follower `first` is told at the first tick, the other one at the tick `at`.
fn tell_one_later(death: &mut Death, first: usize, tick: u64, at: u64) {
    if tick == 0 {
        death.tell(first);
    }
    if tick == at {
        death.tell(1 - first);
    }
}

#[test]
fn when_one_hears_later_the_other_one_asks_again_or_its_own_turn_comes() {
    check(false, |death, tick| tell_one_later(death, 0, tick, 1), 3);
    check(false, |death, tick| tell_one_later(death, 1, tick, 1), 3);
    check(false, |death, tick| tell_one_later(death, 0, tick, 3), 8);
    check(false, |death, tick| tell_one_later(death, 1, tick, 3), 5);
}

#[test]
fn when_only_the_higher_one_has_the_newest_log_it_need_not_wait_for_its_turn() {
    check(true, tell_both, 2);
}

#[test]
fn late_messages_of_the_dead_hold_nobody_up() {
    check(
        false,
        |death, tick| {
            tell_both(death, tick);
            if tick < 2 {
                death.late_heartbeat(0);
                death.late_heartbeat(1);
            }
        },
        3,
    );
}
