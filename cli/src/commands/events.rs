//! `events`: what happened, who asked, and when.

use std::time::Duration;

use bulkhead_proto::v1;
use bulkhead_types::ObjectRef;
use clap::Args;
use serde_json::json;
use tonic::{Status, Streaming};

use super::Context;
use crate::client::{is_unavailable, oldest_kept, queries};
use crate::failure::Failure;
use crate::output::{emit, emit_line, table};
use crate::target;
use crate::time::{age, rfc3339};

const HEADER: [&str; 6] = ["REVISION", "AGE", "ACTOR", "EVENT", "OBJECT", "SUMMARY"];
/// Most events that one stream begins with, when it goes on from an earlier one: as many as a server sends.
const RESUMED_MAX: u32 = 100_000;
/// A server that ends every stream at once must not be asked in a tight loop.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only of this object: KIND/NAME
    #[arg(long = "for", value_name = "KIND/NAME")]
    object: Option<String>,
    /// Of all namespaces, and of the cluster itself
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// How many of the newest
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Only after this revision
    #[arg(long, default_value_t = 0)]
    since_revision: u64,
    /// Go on with what happens, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Full times instead of ages
    #[arg(long)]
    timestamps: bool,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: EventsArgs, context: &Context) -> Result<(), Failure> {
    let object = match &args.object {
        Some(word) => target::parse_named(std::slice::from_ref(word), &context.namespace)?.pop(),
        None => None,
    };
    let mut request = v1::ListEventsRequest {
        namespace: if args.all_namespaces || object.is_some() {
            String::new()
        } else {
            context.namespace.to_string()
        },
        object: object.as_ref().map(Into::into),
        from_revision: args.since_revision,
        limit: args.limit,
        follow: false,
    };
    // The past first, so that its columns line up; what follows keeps their widths.
    let past = all(request.clone(), context).await?;
    let rows: Vec<Vec<String>> = past.iter().map(|entry| row(entry, args.timestamps)).collect();
    if args.json {
        past.iter().try_for_each(|entry| emit_line(&as_json(entry).to_string()))?;
    } else {
        emit(&table::render(&HEADER, &rows))?;
    }
    if !args.watch {
        return Ok(());
    }
    let widths = table::widths(&HEADER, &rows);
    request.from_revision = past.last().map_or(request.from_revision, |entry| entry.revision);
    request.follow = true;
    request.limit = RESUMED_MAX;
    let print = |entry: &v1::HistoryEntry| {
        if args.json {
            emit_line(&as_json(entry).to_string())
        } else {
            emit(&table::render_row(&row(entry, args.timestamps), &widths))
        }
    };
    follow(request, context, print).await
}

/// Hands out what happens, for ever. What no server keeps any more is said to be missing.
async fn follow(
    mut request: v1::ListEventsRequest,
    context: &Context,
    print: impl Fn(&v1::HistoryEntry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        let ended = match open_or_refusal(request.clone(), context).await? {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(entry)) => {
                        request.from_revision = request.from_revision.max(entry.revision);
                        print(&entry)?;
                    }
                    Ok(None) => break None,
                    Err(status) => break Some(status),
                }
            },
            Err(status) => Some(status),
        };
        if let Some(status) = ended {
            if let Some(oldest) = oldest_kept(&status) {
                let first = request.from_revision + 1;
                eprintln!("events from revision {first} to before {oldest} are not kept any more");
                request.from_revision = request.from_revision.max(oldest.saturating_sub(1));
            } else if !is_unavailable(&status) {
                return Err(status.into());
            }
        }
        // Another server goes on where this one ended.
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn all(request: v1::ListEventsRequest, context: &Context) -> Result<Vec<v1::HistoryEntry>, Failure> {
    let mut stream = open(request, context).await?;
    let mut entries = Vec::new();
    while let Some(entry) = stream.message().await? {
        entries.push(entry);
    }
    Ok(entries)
}

async fn open(
    request: v1::ListEventsRequest,
    context: &Context,
) -> Result<Streaming<v1::HistoryEntry>, Failure> {
    Ok(open_or_refusal(request, context).await??)
}

/// The same for a caller who looks at why a server refuses.
async fn open_or_refusal(
    request: v1::ListEventsRequest,
    context: &Context,
) -> Result<Result<Streaming<v1::HistoryEntry>, Status>, Failure> {
    context
        .client
        .call_or_refusal(|channel| {
            let request = context.client.request(request.clone());
            async move { queries(channel).list_events(request).await }
        })
        .await
}

/// The newest events of one object.
pub(crate) async fn of_object(
    object: &ObjectRef,
    limit: u32,
    context: &Context,
) -> Result<Vec<v1::HistoryEntry>, Failure> {
    let request =
        v1::ListEventsRequest { object: Some(object.into()), limit, ..v1::ListEventsRequest::default() };
    all(request, context).await
}

fn object_name(entry: &v1::HistoryEntry) -> String {
    let Some(object) = entry.object.clone() else { return String::new() };
    ObjectRef::try_from(object).map(|o| target::slash_name(&o)).unwrap_or_default()
}

fn row(entry: &v1::HistoryEntry, timestamps: bool) -> Vec<String> {
    vec![
        entry.revision.to_string(),
        if timestamps { rfc3339(entry.at_ms) } else { age(entry.at_ms) },
        entry.actor.clone(),
        entry.event.clone(),
        object_name(entry),
        entry.summary.clone(),
    ]
}

fn as_json(entry: &v1::HistoryEntry) -> serde_json::Value {
    json!({
        "revision": entry.revision,
        "time": rfc3339(entry.at_ms),
        "timeMs": entry.at_ms,
        "actor": entry.actor,
        "event": entry.event,
        "object": object_name(entry),
        "namespace": entry.object.as_ref().map(|o| o.namespace.as_str()).filter(|n| !n.is_empty()),
        "summary": entry.summary,
        "traceparent": entry.trace_context,
    })
}
