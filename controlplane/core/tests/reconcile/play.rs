//! What laws have in common, whatever the kind: words of users, what pods and servers suffer, and how both are played.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{Command, Kind, ObjectRef, Pod};
use proptest::prelude::*;

use crate::kit::{Cluster, Say, reference};

/// So many cases of a law that takes long, or as many as `PROPTEST_CASES` says (`make laws`).
pub fn cases(few: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { few };
    ProptestConfig { cases, failure_persistence: None, ..config }
}

/// A command of a reconciler, and what it did.
pub struct Seen<'a> {
    pub now_ms: u64,
    /// Whose command it was.
    pub by: &'static str,
    pub before: &'a State,
    pub after: &'a State,
}

/// What happens to pods and servers.
#[derive(Clone, Debug)]
pub enum Chance {
    /// Somebody deletes one of all pods.
    Delete(usize),
    /// An agent says something of one of all pods.
    Say(usize, Say),
    /// Agents do what is wanted of them.
    Agents,
    Advance(u64),
    /// Another server takes over: soft state and dirty sets are lost.
    NewLeader,
    /// The next proposals are dropped on their way to the log.
    Lose,
}

/// Of nineteen chances the half are words of agents.
pub fn any_chance() -> impl Strategy<Value = Chance> + Clone {
    let say = prop_oneof![
        5 => Just(Say::Ready),
        2 => Just(Say::NotReady),
        1 => Just(Say::Failed),
        4 => Just(Say::Gone),
    ];
    prop_oneof![
        1 => (0usize..16).prop_map(Chance::Delete),
        8 => (0usize..16, say).prop_map(|(pod, say)| Chance::Say(pod, say)),
        4 => Just(Chance::Agents),
        3 => (1u64..20_000).prop_map(Chance::Advance),
        1 => Just(Chance::NewLeader),
        2 => Just(Chance::Lose),
    ]
}

/// What a user says of a workload. Some words are refused where they make no sense.
#[derive(Clone, Debug)]
pub enum Word {
    Scale(u32),
    Pause(bool),
    Stop(bool),
    Undo,
    Restart(u32),
    Promote { full: bool },
    Abort,
    Retry,
}

impl Word {
    pub fn of(&self, object: ObjectRef) -> Command {
        let deployment = object.clone();
        match *self {
            Self::Scale(replicas) => Command::Scale { object, replicas },
            Self::Pause(paused) => Command::SetPaused { deployment, paused },
            Self::Stop(stopped) => Command::SetStopped { object, stopped },
            Self::Undo => Command::UndoRollout { deployment, to_revision: None },
            Self::Restart(at) => Command::RestartRollout { deployment, restarted_at: format!("{at}").into() },
            Self::Promote { full } => Command::PromoteRollout { deployment, full },
            Self::Abort => Command::AbortRollout { deployment },
            Self::Retry => Command::RetryRollout { deployment },
        }
    }
}

pub fn delete(kind: Kind, name: &str) -> Command {
    Command::Delete { object: reference(kind, name), grace_ms: None, force: false }
}

impl Cluster {
    /// From now on this sees every command of a reconciler.
    pub fn watch(&mut self, watch: impl FnMut(&Seen<'_>) + 'static) {
        self.watch = Box::new(watch);
    }

    /// One of all pods, if there are any.
    pub fn pick(&self, at: usize) -> Option<Arc<Pod>> {
        let count = self.state().pods().len();
        self.state().pods().iter().nth(at % count.max(1)).cloned()
    }

    pub fn befall(&mut self, chance: &Chance) {
        match chance {
            Chance::Delete(at) => {
                if let Some(pod) = self.pick(*at) {
                    self.ok(delete(Kind::Pod, pod.meta.name.as_str()));
                }
            }
            Chance::Say(at, say) => {
                if let Some(pod) = self.pick(*at) {
                    self.say(pod.meta.id, *say);
                }
            }
            Chance::Agents => _ = self.agents(),
            Chance::Advance(ms) => self.advance(*ms),
            Chance::NewLeader => self.new_leader(),
            Chance::Lose => self.lose(),
        }
    }
}

/// Plays them in order; the cluster comes to rest after each, but for what is to be lost next: that must not have arrived
/// before.
pub fn play<Op>(
    cluster: &mut Cluster,
    ops: &[Op],
    lost: fn(&Op) -> bool,
    mut one: impl FnMut(&mut Cluster, &Op),
) {
    for (at, op) in ops.iter().enumerate() {
        one(cluster, op);
        if !ops.get(at + 1).is_some_and(lost) {
            cluster.settle();
        }
    }
}

/// Until it is done; time passes in between.
pub fn heal(cluster: &mut Cluster, mut is_done: impl FnMut(&Cluster) -> bool) -> bool {
    for _ in 0..200 {
        cluster.converge();
        if is_done(cluster) {
            return true;
        }
        cluster.advance(5000);
    }
    false
}

/// Neither replay nor snapshot makes another State of it.
pub fn check_history(cluster: &Cluster) {
    let digest = cluster.state().digest();
    assert_eq!(cluster.replayed().digest(), digest, "events alone lead to the same State");
    assert_eq!(crate::sets::restored(cluster.state()).digest(), digest, "and so does a snapshot");
}

/// Whether the same moves make the same log.
pub fn check_repeats(play: impl Fn() -> Cluster) {
    let (one, other) = (play(), play());
    assert_eq!(one.transactions, other.transactions);
    assert_eq!(one.proposals, other.proposals);
    assert_eq!(one.state().digest(), other.state().digest());
}
