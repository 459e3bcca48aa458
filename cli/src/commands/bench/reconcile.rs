//! What the reconcilers of a leader cost: by one change among many pods, and by a rollout.
//!
//! The leader's own reconcilers over a real State, without log and sockets. Counted is only their work (noticing
//! changes, and looking), not what it takes to decide and apply what they propose, nor what agents do.

mod leader;

use anyhow::Context as _;
use bulkhead_types::ObjectId;
use clap::Args;

use super::OutputArgs;
use super::results::{Figure, Results};
use crate::failure::Failure;
use crate::progress::Progress;
use leader::Leader;

const ONE_CHANGE: &str = "reconcile.one_change_100k_pods";
const ROLLOUT: &str = "reconcile.rollout_1000";
/// Of the figure for one change.
const WORKLOADS: u32 = 5_000;
const PODS_PER_WORKLOAD: u32 = 20;
/// How many pods change, one after the other; the figure is the median.
const CHANGES: usize = 1_000;
/// Of the figure for a rollout.
const REPLICAS: u32 = 1_000;

#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// Only figures whose name begins so
    #[arg(long, default_value = "", value_name = "PREFIX")]
    only: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: ReconcileArgs) -> Result<(), Failure> {
    let measured = tokio::task::spawn_blocking(move || measure(&args)).await;
    measured.map_err(|e| Failure::failed(format!("the measurement failed: {e}")))?
}

fn measure(args: &ReconcileArgs) -> Result<(), Failure> {
    let mut results = Results::open(&args.output)?;
    let wants = |name: &str| name.starts_with(&args.only) || args.only.starts_with(name);
    if wants(ONE_CHANGE) {
        let _progress = Progress::start("making 100,000 pods in 5,000 Deployments");
        results.add(Figure::new(ONE_CHANGE, one_change()?, "us"))?;
    }
    if wants(ROLLOUT) {
        let _progress = Progress::start("rolling a Deployment of 1,000 replicas");
        let half = rollout(REPLICAS / 2)?;
        results.add(Figure::new(ROLLOUT, rollout(REPLICAS)?, "ms").beside("half as many replicas", half))?;
    }
    results.finish()
}

/// Microseconds of work until everything is at rest again after a pod has become unready, or ready again.
fn one_change() -> anyhow::Result<f64> {
    let mut leader = Leader::new(WORKLOADS * PODS_PER_WORKLOAD)?;
    for number in 0..WORKLOADS {
        leader.apply_deployment(&format!("web-{number}"), PODS_PER_WORKLOAD, 1)?;
    }
    leader.converge()?;
    let pods: Vec<ObjectId> = leader.state().pods().iter().map(|pod| pod.meta.id).collect();
    anyhow::ensure!(pods.len() == (WORKLOADS * PODS_PER_WORKLOAD) as usize, "{} pods run", pods.len());
    let every = pods.len() / CHANGES;
    let mut micros = Vec::new();
    for (count, pod) in pods.iter().step_by(every).enumerate() {
        leader.take_work();
        leader.report(*pod, count % 2 == 1)?;
        leader.settle()?;
        micros.push(leader.take_work().as_secs_f64() * 1e6);
        // As it was, so that every change is the first one of its workload.
        leader.report(*pod, true)?;
        leader.settle()?;
    }
    micros.sort_by(f64::total_cmp);
    micros.get(micros.len() / 2).copied().context("pods changed")
}

/// Milliseconds of work of a whole rolling update.
fn rollout(replicas: u32) -> anyhow::Result<f64> {
    let mut leader = Leader::new(2 * REPLICAS)?;
    leader.apply_deployment("web", replicas, 1)?;
    leader.converge()?;
    leader.take_work();
    leader.apply_deployment("web", replicas, 2)?;
    leader.converge()?;
    anyhow::ensure!(leader.state().pods().len() == replicas as usize, "the rollout is over");
    Ok(leader.take_work().as_secs_f64() * 1e3)
}
