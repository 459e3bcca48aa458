//! `logs`: a container's output.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::v1;
use bulkhead_types::{Kind, LABEL_JOB_NAME, LabelSelector, Object, Pod, StringMap};
use clap::Args;
use smol_str::SmolStr;
use tonic::Streaming;

use super::Context;
use crate::client::{Filter, is_unavailable, pod_io};
use crate::failure::Failure;
use crate::output::emit_bytes;
use crate::target;
use crate::time::{now_ms, parse_duration, rfc3339};

/// Which container of which pod.
#[derive(Debug, Args)]
pub(super) struct ContainerArgs {
    /// POD, pod/POD, or deployment/NAME, statefulset/NAME, daemonset/NAME, job/NAME for one of its pods
    #[arg(value_name = "POD")]
    pub(super) pod: String,
    /// The container; may be left out when the pod has one beside its init containers
    #[arg(long, short)]
    pub(super) container: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    of: ContainerArgs,
    /// Go on with new output until the container ends
    #[arg(long, short)]
    follow: bool,
    /// Only so many of the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Begin every line with its time
    #[arg(long)]
    timestamps: bool,
    /// The output before the last restart
    #[arg(long, short)]
    previous: bool,
    /// Only what is newer, such as 5m
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    since: Option<Duration>,
    /// Not its output but log files that it writes itself, below a path of one of its volumes; * and ? stand for any text and
    /// any character of a name. With --follow also what comes, and files that come
    #[arg(long, value_name = "PATH", conflicts_with_all = ["timestamps", "previous", "since"])]
    file: Option<String>,
    /// Not a container's output but what the pod's guests said on their consoles, as far as it is kept: why a guest died
    #[arg(long, conflicts_with_all = ["container", "follow", "timestamps", "previous", "since", "file"])]
    console: bool,
}

pub(crate) async fn run(args: LogsArgs, context: &Context) -> Result<(), Failure> {
    let since =
        args.since.map(|ago| now_ms().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)));
    let pod = find_pod(&args.of.pod, context).await?;
    let mut request = v1::LogsRequest {
        namespace: context.namespace.to_string(),
        pod: pod.meta.name.to_string(),
        container: container(&pod, args.of.container.as_ref()),
        follow: args.follow,
        tail_lines: args.tail,
        previous: args.previous,
        timestamps: args.timestamps,
        since_ms: since.unwrap_or_default(),
        file: args.file.clone().unwrap_or_default(),
        console: args.console,
    };
    let mut printer = Printer { timestamps: args.timestamps, at_line_start: true };
    let mut last_ms = 0;
    loop {
        let mut stream = open(request.clone(), context).await?;
        let broken = loop {
            match stream.message().await {
                Ok(Some(chunk)) => {
                    last_ms = last_ms.max(chunk.time_ms);
                    printer.print(&chunk)?;
                }
                Ok(None) => return Ok(()),
                // Of files nobody knows how far they were printed.
                Err(status) if args.follow && args.file.is_none() && is_unavailable(&status) => break status,
                Err(status) => return Err(status.into()),
            }
        };
        // Another server passes the rest on. What came in the same millisecond as the last piece may be missing.
        eprintln!("connection lost ({}); going on after {}", broken.message(), rfc3339(last_ms));
        if last_ms > 0 {
            (request.since_ms, request.tail_lines) = (last_ms + 1, None);
        }
    }
}

pub(super) async fn open(
    request: v1::LogsRequest,
    context: &Context,
) -> Result<Streaming<v1::LogChunk>, Failure> {
    context
        .client
        .call(|channel| {
            let request = context.client.request(request.clone());
            async move { pod_io(channel).logs(request).await }
        })
        .await
}

/// The pod that is meant; of a workload, the newest that runs.
pub(super) async fn find_pod(word: &str, context: &Context) -> Result<Arc<Pod>, Failure> {
    let object = target::parse_one(&[word.to_owned()], &context.namespace, Kind::Pod)?;
    let selector = match context.client.get(&object).await? {
        Object::Pod(pod) => return Ok(pod),
        Object::Deployment(d) => d.spec.selector.clone(),
        Object::ReplicaSet(set) => set.spec.selector.clone(),
        Object::StatefulSet(set) => set.spec.selector.clone(),
        Object::DaemonSet(set) => set.spec.selector.clone(),
        // A job's template need not have labels of its own.
        Object::Job(job) => LabelSelector::from_labels(StringMap::from([(
            SmolStr::new_static(LABEL_JOB_NAME),
            job.meta.name.as_str().into(),
        )])),
        other => {
            return Err(Failure::usage(format!("{} has no containers: only pods have", other.object_ref())));
        }
    };
    let filter = Filter { namespace: Some(context.namespace.clone()), ..Filter::default() };
    let (pods, _) = context.client.list(Kind::Pod, &filter).await?;
    let newest = pods
        .iter()
        .filter_map(|o| match o {
            Object::Pod(pod) if selector.matches(&pod.meta.labels) => Some(pod),
            _ => None,
        })
        .max_by_key(|pod| (pod.status.ready, pod.node.is_some(), pod.meta.id));
    match newest {
        Some(pod) => Ok(Arc::clone(pod)),
        None => Err(super::get::not_found(&format!("a pod of {object}"))),
    }
}

/// The container that is meant: as kubectl does, the one beside init containers when there is one; else it has to be
/// named, as the agent says.
pub(super) fn container(pod: &Pod, named: Option<&String>) -> String {
    match (named, &pod.spec.containers[..]) {
        (Some(name), _) => name.clone(),
        (None, [only]) => only.name.to_string(),
        (None, _) => String::new(),
    }
}

struct Printer {
    timestamps: bool,
    at_line_start: bool,
}

impl Printer {
    fn print(&mut self, chunk: &v1::LogChunk) -> Result<(), Failure> {
        if !self.timestamps {
            return emit_bytes(&chunk.data);
        }
        let mut out = Vec::with_capacity(chunk.data.len() + 40);
        for line in chunk.data.split_inclusive(|b| *b == b'\n') {
            if self.at_line_start {
                out.extend_from_slice(rfc3339(chunk.time_ms).as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line);
            self.at_line_start = line.ends_with(b"\n");
        }
        emit_bytes(&out)
    }
}
