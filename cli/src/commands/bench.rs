//! `bench`: figures, beside etcd where there is something to compare with.
//!
//! Both are driven in the same way: the same number of clients and connections, values of the same size on the
//! same number of keys, one request in flight per client.

mod agent_start;
mod bind;
mod compare;
mod failover;
mod load;
mod pod_start;
mod reconcile;
mod results;
mod scale;
mod sched;
mod stream;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Context;
use crate::failure::Failure;
use crate::output::{emit, emit_line, table};
use crate::progress::Progress;
use crate::time::parse_duration;
use load::Sample;
use results::{Figure, Results};
use writer::{Peer, Pool};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchVerb {
    /// Replicated commands per second, unary and streamed
    Log(LogArgs),
    /// The same unary load on etcd
    Etcd(EtcdArgs),
    /// From a kill to the next acknowledged write
    Failover(failover::FailoverArgs),
    /// From a pod's binding to the first byte of its output
    PodStart(pod_start::PodStartArgs),
    /// What many starts cost the agent: its processor time, and its memory for each guest
    AgentStart(agent_start::AgentStartArgs),
    /// Restart, replay, snapshots and memory of one server with many pods
    Scale(scale::ScaleArgs),
    /// What one change among 100,000 pods, and a rollout of 1,000, cost the leader's reconcilers
    Reconcile(reconcile::ReconcileArgs),
    /// How fast pods are placed, by what they ask for
    Sched(sched::SchedArgs),
    /// From the submission of 100,000 pods to the last of 5,000 agents; nodes and pods stay on the servers
    Bind(bind::BindArgs),
    /// Bulkhead and etcd alternately in one run, with ratios
    Compare(compare::CompareArgs),
}

/// How the load looks.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// Numbers of concurrent clients, one run each
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256", value_name = "N,...")]
    clients: Vec<usize>,
    /// How long each run is measured
    #[arg(long, default_value = "5s", value_parser = parse_duration, value_name = "DURATION")]
    duration: Duration,
    /// How long each run goes on before it is measured
    #[arg(long, default_value = "1s", value_parser = parse_duration, value_name = "DURATION")]
    warm_up: Duration,
    /// Bytes of each value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(32..=65_536))]
    value_size: u32,
    /// How many keys (namespaces) are written
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    keys: u32,
    /// Most connections, shared by the clients, spread over the servers
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
}

/// Where figures go.
#[derive(Clone, Debug, Args)]
pub(crate) struct OutputArgs {
    /// Print JSON lines instead of a table
    #[arg(long)]
    json: bool,
    /// Append each figure as a JSON line to this file
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Only unary calls
    #[arg(long, conflicts_with = "only_stream")]
    only_unary: bool,
    /// Only streams
    #[arg(long)]
    only_stream: bool,
    #[command(flatten)]
    stream: StreamArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// How the streamed load looks.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct StreamArgs {
    /// How many streams
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    streams: u32,
    /// Most submissions in flight on each stream
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    window: u32,
}

#[derive(Debug, Args)]
pub(crate) struct EtcdArgs {
    /// etcd's client endpoints
    #[arg(long, value_delimiter = ',', required = true, value_name = "HOST:PORT,...")]
    endpoints: Vec<String>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(verb: BenchVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        BenchVerb::Log(args) => log(args, context).await,
        BenchVerb::Etcd(args) => {
            let results = Results::open(&args.output)?;
            let pool = Pool::new(Peer::Etcd, &args.endpoints, &args.load)?;
            unary(&pool, &args.load, "etcd", results).await
        }
        BenchVerb::Failover(args) => failover::run(args, context).await,
        BenchVerb::PodStart(args) => pod_start::run(args, context).await,
        BenchVerb::AgentStart(args) => agent_start::run(args, context).await,
        BenchVerb::Scale(args) => scale::run(args).await,
        BenchVerb::Reconcile(args) => reconcile::run(args).await,
        BenchVerb::Sched(args) => sched::run(args).await,
        BenchVerb::Bind(args) => bind::run(args, context).await,
        BenchVerb::Compare(args) => compare::run(args, context).await,
    }
}

/// The servers' addresses.
fn servers(context: &Context) -> Vec<String> {
    context.client.endpoints().iter().map(|(address, _)| address.clone()).collect()
}

async fn log(args: LogArgs, context: &Context) -> Result<(), Failure> {
    let mut results = Results::open(&args.output)?;
    writer::prepare(context, args.load.keys).await?;
    let pool = Pool::new(Peer::Bulkhead, &servers(context), &args.load)?;
    if !args.only_stream {
        results = unary_figures(&pool, &args.load, "log.unary", results).await?;
    }
    if !args.only_unary {
        let _progress = Progress::start("submitting over streams");
        let sample = stream::run(&pool, args.stream, &args.load).await?;
        results.add(Figure::throughput("log.stream.throughput", sample.throughput()))?;
        results.add(Figure::milliseconds("log.stream.p99", sample.p99_ms()))?;
        results.show("stream", &sample)?;
    }
    results.finish()
}

async fn unary(pool: &Pool, load: &LoadArgs, name: &str, results: Results) -> Result<(), Failure> {
    unary_figures(pool, load, name, results).await?.finish()
}

async fn unary_figures(
    pool: &Pool,
    load: &LoadArgs,
    name: &str,
    mut results: Results,
) -> Result<Results, Failure> {
    for &clients in &load.clients {
        let _progress = Progress::start(format!("{clients} clients"));
        let sample = load::run(pool, clients, load).await?;
        results.add(Figure::throughput(&format!("{name}.c{clients}.throughput"), sample.throughput()))?;
        results.add(Figure::milliseconds(&format!("{name}.c{clients}.p99"), sample.p99_ms()))?;
        results.show(&format!("{clients} clients"), &sample)?;
    }
    Ok(results)
}

/// A table of samples.
fn print_samples(rows: &[(String, Sample)]) -> Result<(), Failure> {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|(name, sample)| {
            let ms = |quantile| format!("{:.2}", sample.quantile_ms(quantile));
            vec![
                name.clone(),
                format!("{:.0}", sample.throughput()),
                ms(0.5),
                ms(0.99),
                ms(1.0),
                sample.errors.to_string(),
            ]
        })
        .collect();
    emit(&table::render(&["LOAD", "PER SECOND", "P50 MS", "P99 MS", "MAX MS", "ERRORS"], &cells))
}

/// One figure in words.
fn print_figure(figure: &Figure) -> Result<(), Failure> {
    emit_line(&figure.to_string())
}
