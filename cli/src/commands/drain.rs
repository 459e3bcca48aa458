//! `drain`: a node without pods.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bulkhead_types::{Command, Kind, Object, ObjectId, ObjectRef, WORKLOADS_LEVEL};
use clap::Args;

use super::delete::parse_seconds;
use super::{Context, cordon, wait};
use crate::client::Filter;
use crate::failure::{Class, Failure};
use crate::output::emit_line;
use crate::target;

/// How long to wait before an eviction that a budget refused is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Longest time in which budgets refuse every eviction that is left, when no `--timeout` is given: whoever drains a node
/// unattended must learn that it does not come to an end.
const PATIENCE: Duration = Duration::from_secs(600);
/// The server's reason when what is asked for is not allowed now. Of an eviction only budgets say so.
const NOT_ALLOWED: &str = "NOT_ALLOWED";

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Names of nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// Delete pods too that nobody will start elsewhere
    #[arg(long)]
    force: bool,
    /// Leave pods of DaemonSets where they are: those would come back at once, whatever is done to the node
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Grace for pods, in seconds; the pod's own when not given
    #[arg(long, value_parser = parse_seconds, value_name = "SECONDS")]
    grace_period: Option<Duration>,
    /// Only pods with these labels
    #[arg(long, value_name = "LABELS")]
    pod_selector: Option<String>,
}

pub(crate) async fn run(args: DrainArgs, context: &Context) -> Result<(), Failure> {
    for word in &args.nodes {
        drain(word.strip_prefix("node/").unwrap_or(word), &args, context).await?;
    }
    Ok(())
}

async fn drain(node: &str, args: &DrainArgs, context: &Context) -> Result<(), Failure> {
    let name = target::name(node)?;
    cordon::set(name.clone(), true, context).await?;
    let filter = Filter {
        namespace: None,
        labels: args.pod_selector.clone().unwrap_or_default(),
        fields: format!("spec.nodeName={name}"),
    };
    let (pods, _) = context.client.list(Kind::Pod, &filter).await?;
    let running = pods.iter().filter(|o| matches!(o, Object::Pod(pod) if !pod.status.phase.is_terminal()));
    let is_daemon = |o: &&Object| o.meta().owner.is_some_and(|owner| owner.kind == Kind::DaemonSet);
    let (daemons, running): (Vec<&Object>, Vec<&Object>) = running.partition(is_daemon);
    if !daemons.is_empty() && !args.ignore_daemonsets {
        let daemons: Vec<String> = daemons.iter().map(|o| o.object_ref().to_string()).collect();
        return Err(Failure::failed(format!(
            "cannot drain node/{name}: these belong to DaemonSets, which would start them here again: {}; leave them with \
             --ignore-daemonsets",
            daemons.join(", ")
        )));
    }
    let orphans: Vec<String> =
        running.iter().filter(|o| o.meta().owner.is_none()).map(|o| o.object_ref().to_string()).collect();
    if !orphans.is_empty() && !args.force {
        return Err(Failure::failed(format!(
            "cannot drain node/{name}: nobody will start these elsewhere: {}; delete them anyway with --force",
            orphans.join(", ")
        )));
    }
    let grace_ms = args.grace_period.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    let asked: Vec<(ObjectRef, ObjectId)> = running.iter().map(|o| (o.object_ref(), o.meta().id)).collect();
    let left = running.iter().filter(|o| !o.meta().is_deleting()).map(|o| o.object_ref()).collect();
    evict(left, grace_ms, context).await?;
    let report = |object: &ObjectRef| emit_line(&format!("pod/{} evicted", object.name));
    wait::gone(&context.client, &asked, context.timeout, report).await?;
    emit_line(&format!("node/{name} drained"))
}

/// Evicts pods. Those that a PodDisruptionBudget keeps are tried again, until the time-out. A cluster that is of an older
/// level, as between the two halves of an upgrade, has no budgets and no evictions: there pods are deleted.
async fn evict(mut left: Vec<ObjectRef>, grace_ms: Option<u64>, context: &Context) -> Result<(), Failure> {
    let has_budgets = super::cluster::members(context).await?.feature_level >= WORKLOADS_LEVEL;
    let command = |pod: &ObjectRef| match has_budgets {
        true => Command::Evict { pod: pod.clone(), grace_ms, autoscaler: None },
        false => Command::Delete { object: pod.clone(), grace_ms, force: false },
    };
    let mut patience = Patience::new(Instant::now(), context.timeout);
    let mut told = BTreeSet::new();
    for pod in &left {
        emit_line(&format!("evicting pod {}", namespaced(pod)))?;
    }
    loop {
        let mut kept = Vec::new();
        let mut reason = String::new();
        for pod in left {
            match context.submit(command(&pod)).await {
                Ok(_) => patience.progress(Instant::now()),
                // Somebody else was faster.
                Err(failure) if failure.class == Class::NotFound => {}
                Err(failure) if has_budgets && is_kept(&failure) => {
                    reason = failure.message;
                    if told.insert(pod.clone()) {
                        eprintln!("waiting: {reason}");
                    }
                    kept.push(pod);
                }
                Err(failure) => return Err(failure),
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        if patience.ends_before(Instant::now() + RETRY) {
            return Err(Failure::new(Class::Unavailable, stays(&kept, &reason)));
        }
        left = kept;
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether a budget refused an eviction: that may be otherwise in a moment.
fn is_kept(failure: &Failure) -> bool {
    failure.reason == NOT_ALLOWED
}

/// Who stays, and why.
fn stays(kept: &[ObjectRef], reason: &str) -> String {
    let names: Vec<String> = kept.iter().map(namespaced).collect();
    format!(
        "{} pods stay: {reason}\n  they are {}; the node stays cordoned: drain it again when the budget allows it, or change the budget",
        kept.len(),
        names.join(", ")
    )
}

/// How long evictions are tried.
struct Patience {
    /// With a time-out of the user's: until then, whatever happens.
    until: Option<Instant>,
    /// Without: since when nothing was evicted.
    since: Instant,
}

impl Patience {
    fn new(now: Instant, timeout: Option<Duration>) -> Self {
        Self { until: timeout.map(|timeout| now + timeout), since: now }
    }

    fn progress(&mut self, now: Instant) {
        self.since = now;
    }

    fn ends_before(&self, next: Instant) -> bool {
        next >= self.until.unwrap_or(self.since + PATIENCE)
    }
}

/// `namespace/name`.
fn namespaced(object: &ObjectRef) -> String {
    let namespace = object.namespace.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{namespace}/{}", object.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether draining has ended so many seconds after its begin, with an eviction at some second.
    fn check(timeout: Option<u64>, progress: Option<u64>, after: u64, ended: bool) {
        let begin = Instant::now();
        let second = |second| begin + Duration::from_secs(second);
        let mut patience = Patience::new(begin, timeout.map(Duration::from_secs));
        progress.into_iter().for_each(|at| patience.progress(second(at)));
        assert_eq!(patience.ends_before(second(after)), ended, "{timeout:?} {progress:?} {after}");
    }

    #[test]
    fn draining_comes_to_an_end() {
        check(None, None, 599, false);
        check(None, None, 600, true);
        check(None, Some(500), 1099, false);
        check(None, Some(500), 1100, true);
        check(Some(5), Some(4), 4, false);
        check(Some(5), Some(4), 5, true);
        check(Some(5000), None, 4999, false);
    }
}
