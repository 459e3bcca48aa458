//! Bulkhead and etcd alternately in one run.

use clap::Args;

use super::load::{self, Sample};
use super::results::{Figure, Results};
use super::writer::{Peer, Pool, prepare};
use super::{LoadArgs, OutputArgs, StreamArgs, failover, servers, stream};
use crate::commands::Context;
use crate::failure::Failure;
use crate::progress::Progress;

/// etcd is driven by this many clients where Bulkhead uses streams: its best unary load.
const STREAM_PEER_CLIENTS: usize = 256;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// etcd's client endpoints
    #[arg(long, value_delimiter = ',', required = true, value_name = "HOST:PORT,...")]
    etcd: Vec<String>,
    /// How often both are measured, in turn; the figure is over all rounds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only figures whose name begins so
    #[arg(long, default_value = "", value_name = "PREFIX")]
    only: String,
    /// A shell command that kills Bulkhead's leader; LEADER_ADDRESS and LEADER_ID say which. Measured last
    #[arg(long, value_name = "COMMAND", requires = "etcd_kill_cmd")]
    kill_cmd: Option<String>,
    /// The same for etcd's leader
    #[arg(long, value_name = "COMMAND", requires = "kill_cmd")]
    etcd_kill_cmd: Option<String>,
    /// How often each leader is killed; the figure is the median. The commands must start again what they
    /// killed, some seconds later
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    kills: u32,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    stream: StreamArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl CompareArgs {
    fn wants(&self, names: &[String]) -> bool {
        names.iter().any(|name| name.starts_with(&self.only))
    }
}

pub(crate) async fn run(args: CompareArgs, context: &Context) -> Result<(), Failure> {
    let mut results = Results::open(&args.output)?;
    prepare(context, args.load.keys).await?;
    let ours = Pool::new(Peer::Bulkhead, &servers(context), &args.load)?;
    let theirs = Pool::new(Peer::Etcd, &args.etcd, &args.load)?;
    for &clients in &args.load.clients {
        let names = ["throughput", "p99"].map(|what| format!("log.unary.c{clients}.{what}"));
        if args.wants(&names) {
            let (our, their) = unary(&ours, &theirs, clients, &args).await?;
            results
                .add(Figure::throughput(&names[0], our.throughput()).beside("etcd", their.throughput()))?;
            results.add(Figure::milliseconds(&names[1], our.p99_ms()).beside("etcd", their.p99_ms()))?;
            results.show(&format!("bulkhead, {clients} clients"), &our)?;
            results.show(&format!("etcd, {clients} clients"), &their)?;
        }
    }
    let name = "log.stream.throughput".to_owned();
    if args.wants(std::slice::from_ref(&name)) {
        let (our, their) = streamed(&ours, &theirs, &args).await?;
        results.add(Figure::throughput(&name, our.throughput()).beside("etcd", their.throughput()))?;
        results.show("bulkhead, streams", &our)?;
        results.show(&format!("etcd, {STREAM_PEER_CLIENTS} clients"), &their)?;
    }
    let name = "failover.next_ack".to_owned();
    if let (Some(kill), Some(etcd_kill)) = (&args.kill_cmd, &args.etcd_kill_cmd)
        && args.wants(std::slice::from_ref(&name))
    {
        let our = failover::bulkhead(context, kill, args.kills).await?;
        let their = failover::of_etcd(&args.etcd, etcd_kill, args.kills).await?;
        results.add(Figure::milliseconds(&name, our).beside("etcd", their))?;
    }
    results.finish()
}

async fn unary(
    ours: &Pool,
    theirs: &Pool,
    clients: usize,
    args: &CompareArgs,
) -> Result<(Sample, Sample), Failure> {
    let (mut our, mut their) = (Sample::new(), Sample::new());
    for round in 1..=args.rounds {
        let _progress = Progress::start(format!("{clients} clients, round {round} of {}", args.rounds));
        our.merge_round(&load::run(ours, clients, &args.load).await?);
        their.merge_round(&load::run(theirs, clients, &args.load).await?);
    }
    Ok((our, their))
}

async fn streamed(ours: &Pool, theirs: &Pool, args: &CompareArgs) -> Result<(Sample, Sample), Failure> {
    let (mut our, mut their) = (Sample::new(), Sample::new());
    for round in 1..=args.rounds {
        let _progress = Progress::start(format!("streams, round {round} of {}", args.rounds));
        our.merge_round(&stream::run(ours, args.stream, &args.load).await?);
        their.merge_round(&load::run(theirs, STREAM_PEER_CLIENTS, &args.load).await?);
    }
    Ok((our, their))
}
