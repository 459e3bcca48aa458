//! How fast the scheduler places pods: `cargo run --release -p bulkhead-controlplane-core --example placement_speed`.
//!
//! Prints placements per second for 5,000 nodes and 100,000 plain pods of a few shapes, with and without the
//! time that the machine takes to decide and apply them, and how the cost per placement grows from 500 to
//! 50,000 nodes. The scheduler runs as it does on a leader: over a real State, a batch at a time.
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

fn submit(machine: &mut Machine, commands: Vec<Command>) {
    for commands in commands.chunks(COMMANDS_PER_SUBMISSION) {
        machine.apply_stamped(&stamped(commands.to_vec())).transaction.outcome.unwrap();
    }
}

fn cluster(nodes: usize, pods: usize) -> Machine {
    let mut machine = Machine::default();
    let members = vec![(MemberId(1), "a:1".into())];
    submit(&mut machine, vec![Command::InitCluster { cluster_id: Uuid::from_u128(1), members }]);
    let all = Resources { cpu_millis: 96_000, memory_bytes: 512 << 30, ephemeral_storage_bytes: 1 << 40 };
    let facts = NodeFacts { capacity: all, allocatable: all, pods_max: 250, ..NodeFacts::default() };
    let register =
        |n| Command::RegisterNode { name: Name::new(format!("node-{n}")).unwrap(), facts: facts.clone() };
    submit(&mut machine, (0..nodes).map(register).collect());
    let specs: Vec<_> = (1..=SHAPES).map(spec).collect();
    let create = |n: usize| {
        let name = Name::new(format!("pod-{n}")).unwrap();
        let meta = ObjectMeta::new(Some(Name::new("default").unwrap()), name);
        let spec = specs[n % specs.len()].clone();
        Command::Create(Object::Pod(Arc::new(Pod { meta, spec, node: None, status: PodStatus::default() })))
    };
    submit(&mut machine, (0..pods).map(create).collect());
    machine
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

/// Places all pods; returns how long the scheduler took, and how long everything took.
fn place(nodes: usize, pods: usize) -> (Duration, Duration) {
    let mut machine = cluster(nodes, pods);
    let soft = SoftState::new(NOW_MS);
    let mut reconcilers = Reconcilers::new(ReconcileConfig::default());
    let start = Instant::now();
    reconcilers.reset(machine.state());
    let mut scheduling = start.elapsed();
    loop {
        let since = Instant::now();
        let proposals = reconcilers.run(&Context { state: machine.state(), now_ms: NOW_MS, soft: &soft });
        scheduling += since.elapsed();
        if proposals.is_empty() {
            break;
        }
        for proposal in proposals {
            let applied = machine.apply_stamped(&stamped(vec![proposal.command]));
            let since = Instant::now();
            applied.changes.iter().for_each(|change| reconcilers.observe(change));
            reconcilers.settled(proposal.reconciler);
            scheduling += since.elapsed();
        }
    }
    assert!(machine.state().pending_pods().is_empty(), "everything fits");
    (scheduling, start.elapsed())
}

fn per_second(pods: usize, time: Duration) -> f64 {
    pods as f64 / time.as_secs_f64()
}

fn main() {
    let pods = 100_000;
    let (scheduling, everything) = place(5000, pods);
    println!("placements/s, 5,000 nodes, {pods} pods of {SHAPES} shapes:");
    println!("  scheduler alone           {:>12.0}", per_second(pods, scheduling));
    println!("  with decide and evolve    {:>12.0}", per_second(pods, everything));
    let mut costs = Vec::new();
    for nodes in [500, 5000, 50_000] {
        let (scheduling, _) = place(nodes, pods);
        let cost_ns = scheduling.as_nanos() as f64 / pods as f64;
        println!("  {nodes:>6} nodes: {cost_ns:>8.0} ns per placement");
        costs.push(cost_ns);
    }
    println!("cost at 50,000 nodes / cost at 500 nodes: {:.2}", costs[2] / costs[0]);
}
