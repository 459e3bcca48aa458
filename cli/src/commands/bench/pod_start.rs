//! From a pod's binding to the first byte of its output, beside a bare boot.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bulkhead_proto::v1;
use bulkhead_types::{
    Command, Container, Kind, Name, Object, ObjectMeta, ObjectRef, Pod, PodPhase, PodSpec, PodStatus,
    RestartPolicy, Shared, check_image_reference,
};
use clap::Args;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::OutputArgs;
use super::results::{Figure, Results};
use crate::client::{Filter, pod_io};
use crate::commands::{Context, wait};
use crate::failure::{Class, Failure};
use crate::progress::Progress;
use crate::time::{now_ms, parse_duration};

const LOGS_POLL: Duration = Duration::from_millis(10);
const POOL_POLL: Duration = Duration::from_millis(100);
const NAME: &str = "pod_start.bound_to_output";
const POOL_NAME: &str = "pod_start.from_pool";
const TEMPLATE_NAME: &str = "pod_start.from_template";

#[derive(Debug, Args)]
pub(crate) struct PodStartArgs {
    /// The image to start; its program must print something at once
    #[arg(long)]
    image: String,
    /// How often; the figure is the median
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// How long one start may take
    #[arg(long, default_value = "120s", value_parser = parse_duration, value_name = "DURATION")]
    start_timeout: Duration,
    /// A shell command that boots the same kernel and initramfs without Bulkhead
    #[arg(long, value_name = "COMMAND")]
    bare_cmd: Option<String>,
    /// What a line of the bare boot's output contains when it is done
    #[arg(long, default_value = "ready", value_name = "TEXT")]
    bare_marker: String,
    /// The folder of the agent's pool of guests (DATA/vm-pool), on this machine: every start waits until one waits there
    #[arg(long, value_name = "DIR")]
    pool: Option<PathBuf>,
    /// Where the agent says which templates it has (DATA/vm-templates.json), on this machine: one start more comes first, beside which the
    /// template is made
    #[arg(long, value_name = "FILE", conflicts_with = "pool")]
    templates: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: PodStartArgs, context: &Context) -> Result<(), Failure> {
    check_image_reference(&args.image).map_err(|e| Failure::usage(e.to_string()))?;
    let mut results = Results::open(&args.output)?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    if let Some(file) = &args.templates {
        let _progress = Progress::start("the start beside which the template is made");
        limited(args.start_timeout, start_pod(&args, 0, context)).await?;
        let waited = tokio::time::timeout(args.start_timeout, template(file)).await;
        waited.map_err(|_| Failure::new(Class::Unavailable, "no template was made"))?;
    }
    for run in 1..=args.runs {
        let _progress = Progress::start(format!("start {run} of {}", args.runs));
        if let Some(pool) = &args.pool {
            let waited = tokio::time::timeout(args.start_timeout, pooled_guest(pool)).await;
            waited.map_err(|_| Failure::new(Class::Unavailable, "no guest of the pool has booted"))?;
        }
        ours.push(limited(args.start_timeout, start_pod(&args, run, context)).await?);
        if let Some(command) = &args.bare_cmd {
            bare.push(limited(args.start_timeout, boot_bare(command, &args.bare_marker)).await?);
        }
    }
    let name = match (&args.pool, &args.templates) {
        (Some(_), _) => POOL_NAME,
        (_, Some(_)) => TEMPLATE_NAME,
        (None, None) => NAME,
    };
    let figure = Figure::milliseconds(name, median(&mut ours));
    let figure = if bare.is_empty() { figure } else { figure.beside("bare boot", median(&mut bare)) };
    results.add(figure)?;
    results.finish()
}

/// Waits until a guest of the pool waits for a pod: the agent marks its folder.
async fn pooled_guest(pool: &Path) {
    let is_ready = || {
        let guests = std::fs::read_dir(pool).into_iter().flatten().flatten();
        guests.into_iter().any(|guest| guest.path().join("ready").exists())
    };
    while !is_ready() {
        tokio::time::sleep(POOL_POLL).await;
    }
}

/// Waits until there is a template: the agent says what each holds.
async fn template(file: &Path) {
    while !std::fs::read_to_string(file).is_ok_and(|text| text.contains("held_bytes")) {
        tokio::time::sleep(POOL_POLL).await;
    }
}

async fn limited(
    limit: Duration,
    run: impl Future<Output = Result<Duration, Failure>>,
) -> Result<Duration, Failure> {
    tokio::time::timeout(limit, run)
        .await
        .unwrap_or_else(|_| Err(Failure::new(Class::Unavailable, format!("not started within {limit:?}"))))
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |t| t.as_secs_f64() * 1000.0)
}

/// Starts one pod, and takes it away again. Both ends are seen here, so no two clocks are compared.
async fn start_pod(args: &PodStartArgs, run: u32, context: &Context) -> Result<Duration, Failure> {
    let client = &context.client;
    let name =
        Name::new(format!("bench-start-{}-{run}", now_ms())).map_err(|e| Failure::failed(e.to_string()))?;
    let object =
        ObjectRef { kind: Kind::Pod, namespace: Some(context.namespace.clone()), name: name.clone() };
    let container =
        Container { name: "main".into(), image: args.image.as_str().into(), ..Container::default() };
    let spec =
        PodSpec { restart_policy: RestartPolicy::Never, containers: vec![container], ..PodSpec::default() };
    let pod = Pod {
        meta: ObjectMeta::new(object.namespace.clone(), name.clone()),
        spec: Shared::new(spec),
        node: None,
        status: PodStatus::default(),
    };
    let filter = Filter {
        namespace: object.namespace.clone(),
        fields: format!("metadata.name={name}"),
        ..Filter::default()
    };
    let (listed, revision) = client.list(Kind::Pod, &filter).await?;
    let mut watcher = client.watch(Kind::Pod, &filter, &listed, revision);
    client.submit(vec![Command::Create(Object::Pod(Arc::new(pod)))], vec![]).await?;
    let (id, bound) = loop {
        if let (_, Object::Pod(pod), _) = watcher.next().await?
            && pod.node.is_some()
        {
            break (pod.meta.id, Instant::now());
        }
    };
    // Before that there is nothing to read; who asked all the time would take from the guest what it boots with.
    while !matches!(watcher.next().await?, (_, Object::Pod(pod), _) if has_begun(&pod)) {}
    first_output(&object, context).await?;
    let took = bound.elapsed();
    client
        .submit(vec![Command::Delete { object: object.clone(), grace_ms: Some(0), force: false }], vec![])
        .await?;
    wait::gone(client, &[(object, id)], None, |_| Ok(())).await?;
    Ok(took)
}

/// Its container runs, or ran.
fn has_begun(pod: &Pod) -> bool {
    !matches!(pod.status.phase, PodPhase::Pending)
}

/// Returns when the pod's first byte of output arrives.
async fn first_output(object: &ObjectRef, context: &Context) -> Result<(), Failure> {
    let request = v1::LogsRequest {
        namespace: object.namespace.as_ref().map(ToString::to_string).unwrap_or_default(),
        pod: object.name.to_string(),
        follow: true,
        ..v1::LogsRequest::default()
    };
    loop {
        for (_, channel) in context.client.endpoints() {
            match pod_io(channel.clone()).logs(context.client.request(request.clone())).await {
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    while let Ok(Some(chunk)) = stream.message().await {
                        if !chunk.data.is_empty() {
                            return Ok(());
                        }
                    }
                }
                Err(status) if status.code() == tonic::Code::FailedPrecondition => {}
                Err(status) if crate::client::is_unavailable(&status) => {}
                Err(status) => return Err(status.into()),
            }
            // Its node told the server of it, and may be about to tell others.
            tokio::time::sleep(LOGS_POLL).await;
        }
    }
}

/// Runs the bare boot until its marker, and ends it.
async fn boot_bare(command: &str, marker: &str) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let mut process = tokio::process::Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run the bare boot")?;
    let output = process.stdout.take().context("the bare boot has no output")?;
    let mut lines = BufReader::new(output).split(b'\n');
    while let Some(line) = lines.next_segment().await.context("cannot read the bare boot's output")? {
        if String::from_utf8_lossy(&line).contains(marker) {
            let took = begun.elapsed();
            process.kill().await.context("cannot end the bare boot")?;
            return Ok(took);
        }
    }
    Err(Failure::failed(format!("the bare boot ended without a line that contains {marker:?}")))
}
