//! What many starts cost the agent: its processor time for pods that start together, and the memory that it keeps for each guest.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bulkhead_types::{
    Command, Container, Kind, Name, Object, ObjectId, ObjectMeta, ObjectRef, Pod, PodSpec, PodStatus,
    ResourceRequirements, RestartPolicy, Shared, check_image_reference,
};
use clap::Args;

use super::OutputArgs;
use super::results::{Figure, Results};
use crate::client::Filter;
use crate::commands::{Context, wait};
use crate::failure::{Class, Failure};
use crate::progress::Progress;
use crate::time::{now_ms, parse_duration};

/// Clock ticks a second in /proc/<pid>/stat: fixed at 100 for user space on Linux/x86-64 (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// After the last pod runs: what the agent still does for their starts is counted, too.
const SETTLE: Duration = Duration::from_secs(2);
/// Pods created in one submission.
const PODS_PER_SUBMISSION: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct AgentStartArgs {
    /// The agent's process, on this machine; its node is the only one that can take the pods
    #[arg(long, value_name = "PID")]
    pid: u32,
    /// The image to start
    #[arg(long)]
    image: String,
    /// How many pods start together
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pods: u32,
    /// How long all starts may take
    #[arg(long, default_value = "300s", value_parser = parse_duration, value_name = "DURATION")]
    start_timeout: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

/// What a process has used, without its children.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Used {
    cpu_seconds: f64,
    memory_bytes: u64,
}

impl Used {
    fn by(pid: u32) -> Result<Self, Failure> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}: does the agent run?"))
        };
        let used = Self::parse(&read("stat")?, &read("status")?);
        Ok(used.context("/proc does not say what the agent uses")?)
    }

    /// From /proc/<pid>/stat (fields 14 and 15, proc(5)) and /proc/<pid>/status.
    fn parse(stat: &str, status: &str) -> Option<Self> {
        let (_, after_name) = stat.rsplit_once(") ")?;
        let ticks = |field: usize| after_name.split(' ').nth(field - 3)?.parse::<u32>().ok();
        let cpu_seconds = (f64::from(ticks(14)?) + f64::from(ticks(15)?)) / TICKS_PER_SECOND;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(Self { cpu_seconds, memory_bytes: kib << 10 })
    }
}

pub(crate) async fn run(args: AgentStartArgs, context: &Context) -> Result<(), Failure> {
    check_image_reference(&args.image).map_err(|e| Failure::usage(e.to_string()))?;
    let mut results = Results::open(&args.output)?;
    let progress = Progress::start(format!("{} pods start", args.pods));
    let run = format!("bench-agent-{}", now_ms());
    // What the first start brings once (boot files, the image's configuration) is no part of the others.
    start(&args, &format!("{run}-first"), 1, context).await?;
    let before = Used::by(args.pid)?;
    let begun = Instant::now();
    let pods = start(&args, &format!("{run}-all"), args.pods, context).await?;
    let took = begun.elapsed();
    tokio::time::sleep(SETTLE).await;
    let after = Used::by(args.pid)?;
    progress.set("removing them");
    let first = start(&args, &format!("{run}-first"), 0, context).await?;
    remove(pods.into_iter().chain(first).collect(), &args, context).await?;
    drop(progress);
    eprintln!("{} pods ran after {:.2} s", args.pods, took.as_secs_f64());
    let cpu = after.cpu_seconds - before.cpu_seconds;
    results.add(Figure::new(&format!("agent.start_{}_stub", args.pods), cpu, "s of CPU"))?;
    let grown = after.memory_bytes.saturating_sub(before.memory_bytes) / u64::from(args.pods);
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let kib = grown as f64 / 1024.0;
    results.add(Figure::new("agent.memory_per_vm", kib, "KiB"))?;
    results.finish()
}

/// Creates so many pods whose names begin so, and waits until all that there are run.
async fn start(
    args: &AgentStartArgs,
    run: &str,
    count: u32,
    context: &Context,
) -> Result<Vec<(ObjectRef, ObjectId)>, Failure> {
    let client = &context.client;
    let filter = Filter { namespace: Some(context.namespace.clone()), ..Filter::default() };
    let (listed, revision) = client.list(Kind::Pod, &filter).await?;
    let mut watcher = client.watch(Kind::Pod, &filter, &listed, revision);
    let commands = pods(args, run, count, context)?;
    for batch in commands.chunks(PODS_PER_SUBMISSION) {
        client.submit(batch.to_vec(), vec![]).await?;
    }
    let ours = |pod: &Pod| pod.meta.name.as_str().starts_with(run);
    let mut running: std::collections::BTreeMap<ObjectId, ObjectRef> = listed
        .iter()
        .filter_map(|object| match object {
            Object::Pod(pod) if ours(pod) => Some((pod.meta.id, object.object_ref())),
            _ => None,
        })
        .collect();
    let all = async {
        while running.len() < count as usize {
            if let (_, object @ Object::Pod(pod), _) = &watcher.next().await?
                && ours(pod)
                && pod.status.ready
            {
                running.insert(pod.meta.id, object.object_ref());
            }
        }
        Ok::<_, Failure>(())
    };
    match tokio::time::timeout(args.start_timeout, all).await {
        Ok(done) => done?,
        Err(_) => {
            let message = format!("{} of {count} pods run after {:?}", running.len(), args.start_timeout);
            return Err(Failure::new(Class::Unavailable, message));
        }
    }
    Ok(running.into_iter().map(|(id, object)| (object, id)).collect())
}

fn pods(args: &AgentStartArgs, run: &str, count: u32, context: &Context) -> Result<Vec<Command>, Failure> {
    let requests = ResourceRequirements {
        cpu_millis: Some(1),
        memory_bytes: Some(1 << 20),
        ephemeral_storage_bytes: None,
    };
    let image = args.image.as_str().into();
    let container = Container { name: "main".into(), image, requests, ..Container::default() };
    let spec =
        PodSpec { restart_policy: RestartPolicy::Always, containers: vec![container], ..PodSpec::default() };
    let spec = Shared::new(spec);
    let create = |number: u32| {
        let name = Name::new(format!("{run}-{number}")).map_err(|e| Failure::failed(e.to_string()))?;
        let meta = ObjectMeta::new(Some(context.namespace.clone()), name);
        let pod = Pod { meta, spec: spec.clone(), node: None, status: PodStatus::default() };
        Ok(Command::Create(Object::Pod(Arc::new(pod))))
    };
    (0..count).map(create).collect()
}

async fn remove(
    pods: Vec<(ObjectRef, ObjectId)>,
    args: &AgentStartArgs,
    context: &Context,
) -> Result<(), Failure> {
    let delete = |(object, _): &(ObjectRef, _)| Command::Delete {
        object: object.clone(),
        grace_ms: Some(0),
        force: false,
    };
    let commands: Vec<Command> = pods.iter().map(delete).collect();
    for batch in commands.chunks(PODS_PER_SUBMISSION) {
        context.client.submit(batch.to_vec(), vec![]).await?;
    }
    wait::gone(&context.client, &pods, Some(args.start_timeout), |_| Ok(())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_uses_is_read_from_proc() {
        let stat = "42 (a (odd) name) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 900 900 20 0 5 0 1000 1 1 1";
        let status = "Name:\tagent\nVmHWM:\t   99999 kB\nVmRSS:\t   20480 kB\n";
        let used = Used { cpu_seconds: 2.0, memory_bytes: 20 << 20 };
        assert_eq!(Used::parse(stat, status), Some(used));
        assert_eq!(Used::parse("42 (cut", status), None);
        assert_eq!(Used::parse(stat, "Name:\tagent\n"), None);
        let own = Used::by(std::process::id()).expect("this process runs");
        assert!(own.memory_bytes > 0, "{own:?}");
    }
}
