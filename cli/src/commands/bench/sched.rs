//! How fast the scheduler places pods: over a real State, as it does on a leader, without log and sockets.
//!
//! Counted is the processor's time for the work of the reconcilers (noticing changes, and looking), because the machine may have
//! other work; beside it stands the same with what deciding and applying takes. Names and loads are near those of Kubernetes' scheduler_perf.

mod leader;
mod quality;
mod sorts;

use std::time::Duration;

use bulkhead_types::ObjectId;
use clap::Args;

use super::OutputArgs;
use super::results::{Figure, Results};
use super::scale::{on_processor, resident_bytes};
use crate::failure::Failure;
use crate::progress::Progress;
use leader::Leader;
use sorts::Load;

/// Pods of most figures.
const PODS: usize = 100_000;
/// Of the figure for pods that come while others wait for ever.
const PODS_BESIDE_WAITING: usize = 20_000;
/// Of the figure for churn: how many go and come at a time, and how often.
const CHURN: usize = 1_000;
const CHURN_ROUNDS: usize = 40;
/// Each figure is the best of so many rounds: other work on the machine only ever adds.
const ROUNDS: usize = 3;
/// Runs without news, of which the median counts.
const IDLE_RUNS: usize = 101;
const NODES: usize = 5_000;
/// Of the figure for memory.
const MANY_NODES: usize = 50_000;
const BYTES: &str = "sched.index_bytes_per_node";
const UNSCHEDULABLE: &str = "sched.unschedulable.n5000";
const IDLE: &str = "sched.unschedulable.idle_run";
const CHURNED: &str = "sched.churn.n5000";
const PREEMPTED: &str = "sched.preemption.n5000";
const GANGS: &str = "sched.gang64gpu.n5000";
/// Of the figure for gangs: pods of each, cards of each node, and how many gangs fill all cards.
const GANG: usize = 64;
const CARDS_PER_NODE: usize = 8;
const GANG_COUNT: usize = NODES * CARDS_PER_NODE / GANG;
/// Of the figure for preemption: pods that fill the nodes, and pods of higher priority that come.
const LOW_PER_NODE: usize = 20;
const HIGH: usize = 5_000;

#[derive(Debug, Args)]
pub(crate) struct SchedArgs {
    /// Only figures whose name begins so
    #[arg(long, default_value = "", value_name = "PREFIX")]
    only: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: SchedArgs) -> Result<(), Failure> {
    let measured = tokio::task::spawn_blocking(move || measure(&args)).await;
    measured.map_err(|e| Failure::failed(format!("the measurement failed: {e}")))?
}

fn measure(args: &SchedArgs) -> Result<(), Failure> {
    let mut results = Results::open(&args.output)?;
    let wants = |name: &str| name.starts_with(&args.only) || args.only.starts_with(name);
    // First: after anything else it would be put where that was, and too little memory counted.
    if wants(BYTES) {
        let _progress = Progress::start("counting the memory for 50,000 nodes");
        results.add(Figure::new(BYTES, index_bytes_per_node()?, "bytes"))?;
    }
    let figures = [
        ("sched.basic.n500", 500, Load::Basic),
        ("sched.basic.n5000", NODES, Load::Basic),
        ("sched.basic.n50000", MANY_NODES, Load::Basic),
        ("sched.antiaffinity.n5000", NODES, Load::AntiAffinity),
        ("sched.spread.n5000", NODES, Load::Spread),
        ("sched.podaffinity.n5000", NODES, Load::PodAffinity),
        ("sched.nodeaffinity.n5000", NODES, Load::NodeAffinity),
    ];
    for (name, nodes, load) in figures.into_iter().filter(|(name, ..)| wants(name)) {
        let _progress = Progress::start(format!("placing 100,000 pods on {nodes} nodes ({name})"));
        let (alone, everything) = best(|| place(nodes, load))?;
        let with = per_second(PODS, everything);
        let figure = Figure::throughput(name, per_second(PODS, alone));
        results.add(figure.beside("with decide and evolve", with))?;
    }
    if wants(UNSCHEDULABLE) || wants(IDLE) {
        let _progress = Progress::start("placing pods beside 100,000 that wait");
        let (alone, everything, idle) = unschedulable()?;
        let with = per_second(PODS_BESIDE_WAITING, everything);
        let figure = Figure::throughput(UNSCHEDULABLE, per_second(PODS_BESIDE_WAITING, alone));
        results.add(figure.beside("with decide and evolve", with))?;
        results.add(Figure::new(IDLE, idle.as_secs_f64() * 1e6, "us"))?;
    }
    if wants(CHURNED) {
        let _progress = Progress::start("pods that come and go");
        let alone = churn()?;
        results.add(Figure::throughput(CHURNED, per_second(CHURN * CHURN_ROUNDS, alone)))?;
    }
    if wants(PREEMPTED) {
        let _progress = Progress::start("pods of higher priority on 5,000 full nodes");
        let (alone, everything) = best(preempt)?;
        let with = per_second(HIGH, everything);
        let figure = Figure::throughput(PREEMPTED, per_second(HIGH, alone));
        results.add(figure.beside("with decide and evolve", with))?;
    }
    if wants(GANGS) {
        let _progress = Progress::start("groups of 64 pods with a card each on 5,000 nodes");
        let (alone, everything) = best(gangs)?;
        let with = per_second(GANG * GANG_COUNT, everything);
        let figure = Figure::throughput(GANGS, per_second(GANG * GANG_COUNT, alone));
        results.add(figure.beside("with decide and evolve", with))?;
    }
    quality::measure(&mut results, wants)?;
    results.finish()
}

fn per_second(pods: usize, time: Duration) -> f64 {
    pods as f64 / time.as_secs_f64()
}

fn best(round: impl Fn() -> anyhow::Result<(Duration, Duration)>) -> anyhow::Result<(Duration, Duration)> {
    let mut best = round()?;
    for _ in 1..ROUNDS {
        let next = round()?;
        best = (best.0.min(next.0), best.1.min(next.1));
    }
    Ok(best)
}

/// What the scheduler took, and that with `decide` and `evolve`.
fn place(nodes: usize, load: Load) -> anyhow::Result<(Duration, Duration)> {
    let mut leader = Leader::new(nodes)?;
    leader.create(&load.sorts(PODS / nodes.min(NODES)), PODS)?;
    let since = on_processor();
    leader.run()?;
    let everything = on_processor().saturating_sub(since);
    let waiting = leader.state().pending_pods().len();
    anyhow::ensure!(waiting == 0, "{waiting} pods found no node");
    Ok((leader.take_work(), everything))
}

/// The same for plain pods beside many that fit nowhere; and what a look takes when nothing has changed.
fn unschedulable() -> anyhow::Result<(Duration, Duration, Duration)> {
    let mut leader = Leader::new(NODES)?;
    leader.create(&Load::Unschedulable.sorts(1), PODS)?;
    leader.run()?;
    let mut idle = Vec::new();
    for number in 0..IDLE_RUNS {
        leader.stir(number)?;
        leader.take_work();
        leader.run()?;
        idle.push(leader.take_work());
    }
    idle.sort_unstable();
    leader.create(&Load::Basic.sorts(1), PODS_BESIDE_WAITING)?;
    leader.take_work();
    let since = on_processor();
    leader.run()?;
    let everything = on_processor().saturating_sub(since);
    let waiting = leader.state().pending_pods().len();
    anyhow::ensure!(waiting == PODS, "{waiting} pods wait");
    Ok((leader.take_work(), everything, idle[IDLE_RUNS / 2]))
}

/// What the scheduler takes for pods of all sorts that come where others have gone.
fn churn() -> anyhow::Result<Duration> {
    let mut leader = Leader::new(NODES)?;
    let sorts = Load::Mixed.sorts(20);
    leader.create(&sorts, PODS / 2)?;
    leader.run()?;
    leader.take_work();
    for round in 0..CHURN_ROUNDS {
        let pods = leader.state().pods();
        let every = pods.len() / CHURN;
        let gone: Vec<ObjectId> =
            pods.iter().skip(round % every).step_by(every).take(CHURN).map(|pod| pod.meta.id).collect();
        leader.remove(&gone)?;
        leader.create(&sorts, CHURN)?;
        leader.run()?;
    }
    Ok(leader.take_work())
}

/// What the scheduler takes until room is kept for every one of many pods of high priority, on nodes full of lower ones; and
/// that with `decide` and `evolve`.
fn preempt() -> anyhow::Result<(Duration, Duration)> {
    let mut leader = Leader::new(NODES)?;
    leader.classes()?;
    leader.create(&sorts::filling(LOW_PER_NODE), NODES * LOW_PER_NODE)?;
    leader.run()?;
    anyhow::ensure!(leader.state().pending_pods().is_empty(), "the nodes have room for what fills them");
    leader.create(&sorts::urgent(LOW_PER_NODE), HIGH)?;
    leader.take_work();
    let since = on_processor();
    leader.run()?;
    let everything = on_processor().saturating_sub(since);
    let kept = leader.state().pods().iter().filter(|pod| pod.status.nominated_node.get().is_some()).count();
    anyhow::ensure!(kept == HIGH, "room is kept for {kept} pods");
    Ok((leader.take_work(), everything))
}

/// The same for PodGroups that fill every card of every node.
fn gangs() -> anyhow::Result<(Duration, Duration)> {
    let mut leader = Leader::new(NODES)?;
    leader.cards(CARDS_PER_NODE)?;
    leader.run()?;
    leader.create_groups(GANG_COUNT, GANG)?;
    leader.take_work();
    let since = on_processor();
    leader.run()?;
    let everything = on_processor().saturating_sub(since);
    let waiting = leader.state().pending_pods().len();
    anyhow::ensure!(waiting == 0, "{waiting} pods found no node");
    Ok((leader.take_work(), everything))
}

/// What a leader's reconcilers keep for each node once they have placed pods of every sort.
fn index_bytes_per_node() -> anyhow::Result<f64> {
    let mut leader = Leader::blind(MANY_NODES)?;
    leader.create(&Load::Mixed.sorts(1), 100)?;
    let before = resident_bytes()?;
    leader.renew()?;
    let after = resident_bytes()?;
    Ok(after.saturating_sub(before) as f64 / MANY_NODES as f64)
}
