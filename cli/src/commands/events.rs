//! `events`: what happened, who asked, and when.

use bulkhead_proto::v1;
use bulkhead_types::ObjectRef;
use clap::Args;
use serde_json::json;
use tonic::Streaming;

use super::Context;
use crate::client::queries;
use crate::failure::Failure;
use crate::output::{emit, emit_line, table};
use crate::target;
use crate::time::{age, rfc3339};

const HEADER: [&str; 6] = ["REVISION", "AGE", "ACTOR", "EVENT", "OBJECT", "SUMMARY"];
/// Rows that are lined up together; further ones follow with the same widths.
const PAGE_ROWS: usize = 1000;

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
    let request = v1::ListEventsRequest {
        namespace: if args.all_namespaces || object.is_some() {
            String::new()
        } else {
            context.namespace.to_string()
        },
        object: object.as_ref().map(Into::into),
        from_revision: args.since_revision,
        limit: args.limit,
        follow: args.watch,
    };
    let mut stream = open(request, context).await?;
    let mut rows = Vec::new();
    let mut widths: Option<Vec<usize>> = None;
    while let Some(entry) = stream.message().await? {
        if args.json {
            emit_line(&as_json(&entry).to_string())?;
            continue;
        }
        let row = row(&entry, args.timestamps);
        match &widths {
            Some(widths) => emit(&table::render_row(&row, widths))?,
            None => rows.push(row),
        }
        // When following, nobody says where the past ends: the first row is as good a width as any.
        if widths.is_none() && (args.watch || rows.len() == PAGE_ROWS) {
            widths = Some(table::widths(&HEADER, &rows));
            emit(&table::render(&HEADER, &rows))?;
        }
    }
    if widths.is_none() && !args.json {
        emit(&table::render(&HEADER, &rows))?;
    }
    Ok(())
}

async fn open(
    request: v1::ListEventsRequest,
    context: &Context,
) -> Result<Streaming<v1::HistoryEntry>, Failure> {
    context
        .client
        .call(|channel| {
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
    let mut stream = open(request, context).await?;
    let mut entries = Vec::new();
    while let Some(entry) = stream.message().await? {
        entries.push(entry);
    }
    Ok(entries)
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
