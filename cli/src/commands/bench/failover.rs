//! From a kill to the next acknowledged write.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bulkhead_proto::v1;
use clap::Args;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

use super::results::{Figure, Results};
use super::writer::{ERROR_PAUSE, Peer, Pool, Writer, etcd, prepare};
use super::{LoadArgs, OutputArgs, servers};
use crate::client::{channel, cluster};
use crate::commands::Context;
use crate::failure::{Class, Failure};
use crate::progress::Progress;

/// How long writes run before the kill.
const WARM_UP: Duration = Duration::from_secs(1);
/// A write that is not acknowledged in this time is given up, and the next one sent.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(250);
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
const LEADER_POLL: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    /// A shell command that kills the leader with SIGKILL; LEADER_ADDRESS and LEADER_ID say which
    #[arg(long, value_name = "COMMAND")]
    kill_cmd: String,
    /// How often; the figure is the median. The command must start again what it killed, some seconds later
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    kills: u32,
    /// Measure etcd at these endpoints instead
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,...")]
    etcd: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: FailoverArgs, context: &Context) -> Result<(), Failure> {
    let mut results = Results::open(&args.output)?;
    let (name, ms) = if args.etcd.is_empty() {
        ("failover.next_ack", bulkhead(context, &args.kill_cmd, args.kills).await?)
    } else {
        ("etcd.failover.next_ack", of_etcd(&args.etcd, &args.kill_cmd, args.kills).await?)
    };
    results.add(Figure::milliseconds(name, ms))?;
    results.finish()
}

/// One writer per server; values as everywhere else.
fn load(connections: usize) -> LoadArgs {
    LoadArgs {
        clients: vec![connections],
        duration: Duration::ZERO,
        warm_up: WARM_UP,
        value_size: 256,
        keys: 64,
        connections: u32::try_from(connections).unwrap_or(1),
    }
}

/// Bulkhead's time in milliseconds.
pub(super) async fn bulkhead(context: &Context, kill: &str, kills: u32) -> Result<f64, Failure> {
    let servers = servers(context);
    let load = load(servers.len());
    prepare(context, load.keys).await?;
    let pool = Pool::new(Peer::Bulkhead, &servers, &load)?;
    measure(&pool, &servers, kill, kills).await
}

/// etcd's time in milliseconds.
pub(super) async fn of_etcd(endpoints: &[String], kill: &str, kills: u32) -> Result<f64, Failure> {
    let pool = Pool::new(Peer::Etcd, endpoints, &load(endpoints.len()))?;
    measure(&pool, endpoints, kill, kills).await
}

/// The median of some times in milliseconds; the lower one of an even number.
fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// Kills the leader so many times, each time once all servers acknowledge writes again.
async fn measure(pool: &Pool, endpoints: &[String], kill: &str, kills: u32) -> Result<f64, Failure> {
    let mut times = Vec::new();
    for _ in 0..kills {
        times.push(measure_once(pool, endpoints, kill).await?);
    }
    // A median hides whether there are two kinds of failovers.
    let each: Vec<String> = times.iter().map(|ms| format!("{ms:.0}")).collect();
    eprintln!("milliseconds after each kill: {}", each.join(" "));
    Ok(median(times))
}

async fn measure_once(pool: &Pool, endpoints: &[String], kill: &str) -> Result<f64, Failure> {
    let progress = Progress::start("writing until the kill");
    let (stop, stopped) = watch::channel(false);
    let (acks, mut acked) = mpsc::channel(1024);
    let writers: Vec<_> = (0..endpoints.len())
        .map(|client| tokio::spawn(write_on(client, pool.writer(client), acks.clone(), stopped.clone())))
        .collect();
    drop(acks);
    let warm = async {
        let begin = Instant::now();
        let mut silent: BTreeSet<usize> = (0..endpoints.len()).collect();
        while begin.elapsed() < WARM_UP || !silent.is_empty() {
            if let Some(ack) = acked.recv().await {
                silent.remove(&ack.client);
            }
        }
    };
    let warm = tokio::time::timeout(RECOVERY_TIMEOUT, warm).await;
    let outcome = match warm {
        Err(_) => {
            Err(Failure::new(Class::Unavailable, "not every server acknowledged a write before the kill"))
        }
        Ok(()) => {
            let (id, address) = leader(pool.peer, endpoints).await?;
            progress.set(format!("killing {address}; waiting for the next acknowledged write"));
            kill_leader(kill, id, &address, &mut acked).await
        }
    };
    let _ = stop.send(true);
    for writer in writers {
        writer.abort();
    }
    outcome
}

/// Kills, and waits for the first acknowledgement of a write that began afterwards.
async fn kill_leader(
    command: &str,
    id: u64,
    address: &str,
    acked: &mut mpsc::Receiver<Ack>,
) -> Result<f64, Failure> {
    let mut running = Command::new("sh")
        .args(["-c", command])
        .env("LEADER_ID", id.to_string())
        .env("LEADER_ADDRESS", address)
        .spawn()
        .context("cannot run the kill command")?;
    // Acknowledgements go on while the command starts: they must not fill the channel.
    let status = loop {
        tokio::select! {
            status = running.wait() => break status.context("cannot wait for the kill command")?,
            _ = acked.recv() => {}
        }
    };
    let killed = Instant::now();
    if !status.success() {
        return Err(Failure::failed(format!("the kill command failed: {status}")));
    }
    let next = async {
        while let Some(ack) = acked.recv().await {
            if ack.began >= killed {
                return Some(ack.at);
            }
        }
        None
    };
    match tokio::time::timeout(RECOVERY_TIMEOUT, next).await {
        Ok(Some(at)) => Ok((at - killed).as_secs_f64() * 1000.0),
        _ => Err(Failure::new(
            Class::Unavailable,
            format!("no write was acknowledged within {RECOVERY_TIMEOUT:?}"),
        )),
    }
}

/// An acknowledged write.
struct Ack {
    /// Whose; each client writes to a server of its own.
    client: usize,
    began: Instant,
    at: Instant,
}

async fn write_on(
    client: usize,
    mut writer: Writer,
    acks: mpsc::Sender<Ack>,
    stopped: watch::Receiver<bool>,
) {
    while !*stopped.borrow() {
        let began = Instant::now();
        match tokio::time::timeout(ATTEMPT_TIMEOUT, writer.write()).await {
            Ok(Ok(())) => {
                if acks.send(Ack { client, began, at: Instant::now() }).await.is_err() {
                    return;
                }
            }
            _ => tokio::time::sleep(ERROR_PAUSE).await,
        }
    }
}

/// Who leads: id and address.
async fn leader(peer: Peer, endpoints: &[String]) -> Result<(u64, String), Failure> {
    let find = async {
        loop {
            for address in endpoints {
                let found = match peer {
                    Peer::Bulkhead => leads(channel(address)?).await,
                    Peer::Etcd => etcd_leads(channel(address)?).await,
                };
                if let Some(id) = found {
                    return Ok((id, address.clone()));
                }
            }
            tokio::time::sleep(LEADER_POLL).await;
        }
    };
    tokio::time::timeout(LEADER_TIMEOUT, find)
        .await
        .unwrap_or_else(|_| Err(Failure::new(Class::Unavailable, "none of the endpoints leads")))
}

/// The server's id, when it leads.
async fn leads(channel: Channel) -> Option<u64> {
    let status = cluster(channel).status(v1::StatusRequest {}).await.ok()?.into_inner();
    (status.leader == status.member && status.member > 0).then_some(status.member)
}

async fn etcd_leads(channel: Channel) -> Option<u64> {
    let mut client = etcd::maintenance_client::MaintenanceClient::new(channel);
    let status = client.status(etcd::StatusRequest {}).await.ok()?.into_inner();
    let member = status.header?.member_id;
    (status.leader == member && member > 0).then_some(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_times() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
        assert_eq!(median(vec![7.0]), 7.0);
    }
}
