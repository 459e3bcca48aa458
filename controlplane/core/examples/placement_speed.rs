//! How fast the scheduler places pods: `cargo run --release -p bulkhead-controlplane-core --example placement_speed`.
//!
//! Prints placements per second for 5,000 nodes and 100,000 plain pods of a few shapes, with and without the
//! time that the machine takes to decide and apply them, and how the cost per placement grows from 500 to
//! 50,000 nodes. The scheduler runs as it does on a leader: over a real State, a batch at a time, from the
//! moment that the pods come. What a new leader needs to look at all nodes first is printed apart.
#![allow(clippy::unwrap_used, clippy::disallowed_types, clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_controlplane_core::Machine;
use bulkhead_controlplane_core::reconcile::{Context, ReconcileConfig, Reconcilers, SoftState};
use bulkhead_types::{
    Command, Container, MemberId, Name, NodeFacts, Object, ObjectMeta, Pod, PodSpec, PodStatus,
    ResourceRequirements, Resources, Shared, Stamped,
};
use uuid::Uuid;

const NOW_MS: u64 = 1_000_000;
const SHAPES: u64 = 4;
const ROUNDS: usize = 5;
const COMMANDS_PER_SUBMISSION: usize = 1000;

fn stamped(commands: Vec<Command>) -> Stamped {
    Stamped {
        request_id: Uuid::nil(),
        actor: "user:bench".into(),
        proposed_at_ms: NOW_MS,
        trace_context: None,
        preconditions: Vec::new(),
        commands,
    }
}

fn cluster(nodes: usize) -> Machine {
    let mut machine = Machine::default();
    let members = vec![(MemberId(1), "a:1".into())];
    let mut commands = vec![Command::InitCluster { cluster_id: Uuid::from_u128(1), members }];
    let all = Resources { cpu_millis: 96_000, memory_bytes: 512 << 30, ephemeral_storage_bytes: 1 << 40 };
    let facts = NodeFacts { capacity: all, allocatable: all, pods_max: 250, ..NodeFacts::default() };
    commands.extend((0..nodes).map(|n| Command::RegisterNode {
        name: Name::new(format!("node-{n}")).unwrap(),
        facts: facts.clone(),
    }));
    for commands in commands.chunks(COMMANDS_PER_SUBMISSION) {
        machine.apply_stamped(&stamped(commands.to_vec())).transaction.outcome.unwrap();
    }
    machine
}

fn pods(count: usize) -> Vec<Command> {
    let specs: Vec<_> = (1..=SHAPES).map(spec).collect();
    let create = |n: usize| {
        let name = Name::new(format!("pod-{n}")).unwrap();
        let meta = ObjectMeta::new(Some(Name::new("default").unwrap()), name);
        let spec = specs[n % specs.len()].clone();
        Command::Create(Object::Pod(Arc::new(Pod { meta, spec, node: None, status: PodStatus::default() })))
    };
    (0..count).map(create).collect()
}

fn spec(size: u64) -> Shared<PodSpec> {
    let requests = ResourceRequirements {
        cpu_millis: Some(100 * size),
        memory_bytes: Some((128 << 20) * size),
        ephemeral_storage_bytes: None,
    };
    let container =
        Container { name: "main".into(), image: "web:1".into(), requests, ..Container::default() };
    Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() })
}

/// A leader's machine and reconcilers, with the time that the latter took.
struct Leader {
    machine: Machine,
    reconcilers: Reconcilers,
    soft: SoftState,
    reconciling: Duration,
}

impl Leader {
    fn apply(&mut self, commands: Vec<Command>) {
        let applied = self.machine.apply_stamped(&stamped(commands));
        let since = Instant::now();
        applied.changes.iter().for_each(|change| self.reconcilers.observe(change));
        self.reconciling += since.elapsed();
    }

    /// Until the reconcilers have nothing to do.
    fn run(&mut self) {
        while self.reconcilers.next_wake_ms().is_some_and(|ms| ms <= NOW_MS) {
            let since = Instant::now();
            let cx = Context { state: self.machine.state(), now_ms: NOW_MS, up_ms: 0, soft: &self.soft };
            let proposals = self.reconcilers.run(&cx);
            self.reconciling += since.elapsed();
            for proposal in proposals {
                self.apply(vec![proposal.command]);
                self.reconcilers.settled(proposal.reconciler);
            }
        }
    }
}

/// The best of a few rounds, each figure for itself: other work on the machine only ever adds.
fn place(nodes: usize, count: usize) -> (Duration, Duration, Duration) {
    let rounds: Vec<_> = (0..ROUNDS).map(|_| place_once(nodes, count)).collect();
    let best =
        |figure: fn(&(Duration, Duration, Duration)) -> Duration| rounds.iter().map(figure).min().unwrap();
    (best(|r| r.0), best(|r| r.1), best(|r| r.2))
}

/// How long the start of a leader, the placing of all pods, and that with `decide` and `evolve` took.
fn place_once(nodes: usize, count: usize) -> (Duration, Duration, Duration) {
    let mut leader = Leader {
        machine: cluster(nodes),
        reconcilers: Reconcilers::new(ReconcileConfig::default()),
        soft: SoftState::new(NOW_MS, 0),
        reconciling: Duration::ZERO,
    };
    let start = Instant::now();
    leader.reconcilers.reset(leader.machine.state());
    leader.run();
    let setup = start.elapsed();
    leader.reconciling = Duration::ZERO;
    for commands in pods(count).chunks(COMMANDS_PER_SUBMISSION) {
        leader.apply(commands.to_vec());
    }
    let start = Instant::now();
    leader.run();
    let everything = start.elapsed();
    assert!(leader.machine.state().pending_pods().is_empty(), "everything fits");
    (setup, leader.reconciling, everything)
}

fn per_second(pods: usize, time: Duration) -> f64 {
    pods as f64 / time.as_secs_f64()
}

fn main() {
    let count = 100_000;
    let (setup, scheduling, everything) = place(5000, count);
    println!("placements/s, 5,000 nodes, {count} pods of {SHAPES} shapes:");
    println!("  scheduler alone           {:>12.0}", per_second(count, scheduling));
    println!("  with decide and evolve    {:>12.0}", per_second(count, everything));
    println!("  a new leader's first look {:>9.1} ms", setup.as_secs_f64() * 1e3);
    let mut costs = Vec::new();
    for nodes in [500, 5000, 50_000] {
        let (setup, scheduling, _) = place(nodes, count);
        let cost_ns = scheduling.as_nanos() as f64 / count as f64;
        let setup_ms = setup.as_secs_f64() * 1e3;
        println!("  {nodes:>6} nodes: {cost_ns:>8.0} ns per placement, first look {setup_ms:.1} ms");
        costs.push(cost_ns);
    }
    println!("cost at 50,000 nodes / cost at 500 nodes: {:.2}", costs[2] / costs[0]);
}
