//! From the submission of many pods to the last agent that knows of the last one: servers, log, scheduler and sessions together.
//!
//! The agents are made here: they join, report on time and read what they shall run, as real ones do, and start nothing. So the
//! nodes and pods stay behind on the servers: measure on servers that were made for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bulkhead_proto::v1;
use bulkhead_proto::v1::agent_message::Message as AgentSays;
use bulkhead_proto::v1::agents_client::AgentsClient;
use bulkhead_proto::v1::server_message::Message as ServerSays;
use bulkhead_types::{
    Command, Container, Name, NodeFacts, Object, ObjectMeta, Pod, PodSpec, PodStatus, ResourceRequirements,
    Resources, Shared,
};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use uuid::Uuid;

use super::results::{Figure, Results};
use super::{OutputArgs, servers};
use crate::client::channel;
use crate::commands::Context;
use crate::failure::{Class, Failure};
use crate::progress::Progress;

/// Agents that share a connection: fewer than the streams that HTTP/2 servers let one have.
const AGENTS_PER_CONNECTION: u32 = 100;
/// Agents that join at the same time.
const JOINS: usize = 256;
/// Pods of one submission, and submissions in flight.
const PODS_PER_SUBMISSION: usize = 1000;
const SUBMISSIONS: usize = 8;
/// Reports of an agent that wait to be sent.
const REPORTS_MAX: usize = 4;
/// Longest wait until all agents know of all pods.
const BOUND_TIMEOUT: Duration = Duration::from_secs(600);
/// What one node has, and one pod asks for.
const NODE: Resources = Resources {
    cpu_millis: 96_000,
    memory_bytes: 512 << 30,
    ephemeral_storage_bytes: 1 << 40,
    ..Resources::ZERO
};
const PODS_PER_NODE_MAX: u32 = 250;
const POD_CPU_MILLIS: u64 = 100;
const POD_MEMORY_BYTES: u64 = 128 << 20;

#[derive(Debug, Args)]
pub(crate) struct BindArgs {
    /// How many pods
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pods: u32,
    /// How many nodes, each with an agent that starts nothing
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    nodes: u32,
    #[command(flatten)]
    output: OutputArgs,
}

/// What all agents know together.
#[derive(Debug, Default)]
struct Known {
    /// Pods in the agents' last intents.
    pods: AtomicU64,
    changed: Notify,
}

pub(crate) async fn run(args: BindArgs, context: &Context) -> Result<(), Failure> {
    let most = u64::from(args.nodes) * u64::from(PODS_PER_NODE_MAX);
    if u64::from(args.pods) > most {
        return Err(Failure::usage(format!("{} nodes take {most} pods, not {}", args.nodes, args.pods)));
    }
    let mut results = Results::open(&args.output)?;
    let progress = Progress::start(format!("{} agents join", args.nodes));
    let known = Arc::new(Known::default());
    let mut agents = join_all(args.nodes, &servers(context), &known).await?;
    progress.set(format!("submitting {} pods", args.pods));
    let before = known.pods.load(Ordering::Acquire);
    let batches = pods(args.pods)?;
    let started = Instant::now();
    let work = async {
        let submissions = futures::stream::iter(batches)
            .map(|batch| context.client.submit(batch, vec![]))
            .buffer_unordered(SUBMISSIONS)
            .try_for_each(|_| futures::future::ready(Ok(())));
        submissions.await?;
        let submitted = started.elapsed();
        progress.set("waiting until every agent knows its pods");
        known.wait_for(before + u64::from(args.pods)).await;
        Ok::<_, Failure>((submitted, started.elapsed()))
    };
    let (submitted, bound) = tokio::select! {
        done = tokio::time::timeout(BOUND_TIMEOUT, work) => done.map_err(|_| late(&known, before, args.pods))??,
        failure = first_failure(&mut agents) => return Err(failure),
    };
    agents.shutdown().await;
    drop(progress);
    eprintln!(
        "all acknowledged after {:.2} s, all known to their agents after {:.2} s",
        submitted.as_secs_f64(),
        bound.as_secs_f64()
    );
    let name = format!("e2e.bind_{}_pods_{}_nodes", short(args.pods), short(args.nodes));
    results.add(Figure::new(&name, bound.as_secs_f64(), "s"))?;
    results.finish()
}

fn late(known: &Known, before: u64, pods: u32) -> Failure {
    let found = known.pods.load(Ordering::Acquire).saturating_sub(before);
    Failure::new(Class::Unavailable, format!("agents know {found} of {pods} pods after {BOUND_TIMEOUT:?}"))
}

/// An agent's session never ends by itself: why one did.
async fn first_failure(agents: &mut JoinSet<Failure>) -> Failure {
    match agents.join_next().await {
        Some(Ok(failure)) => failure,
        Some(Err(error)) => Failure::failed(format!("an agent failed: {error}")),
        None => std::future::pending().await,
    }
}

impl Known {
    async fn wait_for(&self, pods: u64) {
        loop {
            let changed = self.changed.notified();
            if self.pods.load(Ordering::Acquire) >= pods {
                return;
            }
            changed.await;
        }
    }

    /// An agent was told of so many pods, and knew of so many before.
    fn change(&self, before: u64, now: u64) {
        // Differences wrap: the sum never is below zero.
        self.pods.fetch_add(now.wrapping_sub(before), Ordering::AcqRel);
        self.changed.notify_one();
    }
}

/// A number as people say it: 5k, 100k.
fn short(number: u32) -> String {
    if number >= 1000 && number.is_multiple_of(1000) {
        format!("{}k", number / 1000)
    } else {
        number.to_string()
    }
}

/// The pods, in submissions. Their names begin with what no run before had.
fn pods(count: u32) -> Result<Vec<Vec<Command>>, Failure> {
    let requests = ResourceRequirements {
        cpu_millis: Some(POD_CPU_MILLIS),
        memory_bytes: Some(POD_MEMORY_BYTES),
        ephemeral_storage_bytes: None,
    };
    let container =
        Container { name: "main".into(), image: "web:1".into(), requests, ..Container::default() };
    let spec = Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() });
    let run = Uuid::new_v4().simple().to_string();
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let namespace = Name::new("default").map_err(|e| failed(&e))?;
    let create = |number: u32| {
        let name = Name::new(format!("bench-{}-{number}", &run[..8])).map_err(|e| failed(&e))?;
        let meta = ObjectMeta::new(Some(namespace.clone()), name);
        let pod = Pod { meta, spec: spec.clone(), node: None, status: PodStatus::default() };
        Ok(Command::Create(Object::Pod(Arc::new(pod))))
    };
    let commands = (0..count).map(create).collect::<Result<Vec<_>, Failure>>()?;
    Ok(commands.chunks(PODS_PER_SUBMISSION).map(<[_]>::to_vec).collect())
}

/// All agents, joined; each ends only with why.
async fn join_all(count: u32, servers: &[String], known: &Arc<Known>) -> Result<JoinSet<Failure>, Failure> {
    let connections = count.div_ceil(AGENTS_PER_CONNECTION).max(servers.len() as u32) as usize;
    let channels: Vec<Channel> =
        servers.iter().cycle().take(connections).map(|server| channel(server)).collect::<Result<_, _>>()?;
    let join = |number: u32| {
        let client = AgentsClient::new(channels[number as usize % connections].clone());
        join(number, client, known.clone())
    };
    let sessions: Vec<_> =
        futures::stream::iter(0..count).map(join).buffer_unordered(JOINS).try_collect().await?;
    let mut agents = JoinSet::new();
    for session in sessions {
        agents.spawn(async move {
            let node = session.joined.node;
            match session.attend().await {
                Ok(()) => Failure::failed(format!("the session of node {node} ended")),
                Err(status) => status.into(),
            }
        });
    }
    Ok(agents)
}

async fn join(number: u32, mut client: AgentsClient<Channel>, known: Arc<Known>) -> Result<Session, Failure> {
    let facts =
        NodeFacts { capacity: NODE, allocatable: NODE, pods_max: PODS_PER_NODE_MAX, ..NodeFacts::default() };
    let request = v1::JoinRequest {
        node: format!("bench-{number}"),
        facts: Some((&facts).into()),
        cluster_id: String::new(),
    };
    let joined = client.join(request).await?.into_inner();
    Ok(Session { client, joined, known, pods: 0, generation: 0 })
}

/// One agent's session.
struct Session {
    client: AgentsClient<Channel>,
    joined: v1::JoinResponse,
    known: Arc<Known>,
    /// In the last intent.
    pods: u64,
    /// Its generation.
    generation: u64,
}

impl Session {
    /// Reports on time and reads intents, as long as the session lasts.
    async fn attend(mut self) -> Result<(), tonic::Status> {
        let (reports, receiver) = mpsc::channel(REPORTS_MAX);
        let mut on_time = tokio::time::interval(Duration::from_millis(self.joined.heartbeat_ms.max(1)));
        on_time.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let began = Instant::now();
        // The server answers with the first report.
        drop(reports.try_send(self.report(began)));
        let mut messages = self.client.connect(ReceiverStream::new(receiver)).await?.into_inner();
        loop {
            tokio::select! {
                message = messages.message() => match message? {
                    Some(message) => self.hear(message)?,
                    None => return Ok(()),
                },
                // A report that finds no room is late; the next one says the same.
                _ = on_time.tick() => drop(reports.try_send(self.report(began))),
            }
        }
    }

    fn hear(&mut self, message: v1::ServerMessage) -> Result<(), tonic::Status> {
        match message.message {
            Some(ServerSays::Intent(intent)) => {
                let pods = intent.pods.len() as u64;
                self.known.change(self.pods, pods);
                (self.pods, self.generation) = (pods, intent.generation);
                Ok(())
            }
            Some(ServerSays::SessionReplaced(_)) => {
                Err(tonic::Status::aborted("another agent joined as the same node"))
            }
            Some(ServerSays::Ack(_)) | None => Ok(()),
        }
    }

    fn report(&self, began: Instant) -> v1::AgentMessage {
        let report = v1::AgentReport {
            node: self.joined.node,
            incarnation: self.joined.incarnation,
            sent_at_ms: began.elapsed().as_millis() as u64,
            observed_generation: self.generation,
            ..v1::AgentReport::default()
        };
        v1::AgentMessage { message: Some(AgentSays::Report(report)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_in_the_names_of_figures() {
        assert_eq!([100_000, 5_000, 999, 1_500, 0].map(short), ["100k", "5k", "999", "1500", "0"]);
    }

    #[test]
    fn every_pod_is_submitted_once() {
        let batches = pods(2_500).expect("pods");
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500]);
        let names: std::collections::BTreeSet<_> =
            batches.iter().flatten().map(|command| format!("{command:?}")).collect();
        assert_eq!(names.len(), 2_500);
    }

    #[tokio::test]
    async fn what_agents_know_adds_up() {
        let known = Known::default();
        known.change(0, 3);
        known.change(0, 2);
        known.change(3, 1);
        known.wait_for(3).await;
        assert_eq!(known.pods.load(Ordering::Acquire), 3);
    }
}
