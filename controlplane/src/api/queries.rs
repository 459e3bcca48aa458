//! `Queries`: get, list, watch, history.

use std::pin::Pin;
use std::time::Duration;

use bulkhead_controlplane_core::query::{Selection, list};
use bulkhead_controlplane_core::watch::{Compacted, Watch, WatchEvent};
use bulkhead_controlplane_core::{ChangeType, State};
use bulkhead_proto::v1::queries_server::Queries;
use bulkhead_proto::{Field, v1};
use bulkhead_types::{FieldSelector, Kind, LabelSelector, Name, ObjectId, ObjectRef};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Api, optional_name};
use crate::deadline::deadline;
use crate::error::{compacted, convert_status, invalid};
use crate::past::Past;

/// Items of a list when the request does not say.
pub(super) const LIMIT_DEFAULT: u32 = 500;
/// Most items of one page.
pub(super) const LIMIT_MAX: u32 = 5000;
/// Most answers that wait for a slow watcher; it waits in the ring beyond that.
const WATCH_QUEUE_MAX: usize = 1024;
/// How long a watch waits for events to be on disk that memory has dropped already.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between bookmarks when the request does not say, in milliseconds.
const BOOKMARK_MS_DEFAULT: u64 = 10_000;
/// Least time between bookmarks, in milliseconds.
const BOOKMARK_MS_MIN: u64 = 100;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn is_stale(consistency: i32) -> bool {
    consistency == i32::from(v1::Consistency::Stale)
}

pub(super) fn kind(number: i32) -> Result<Kind, Status> {
    Kind::from_wire(number).map_err(|e| convert_status(&e.within("kind")))
}

pub(super) fn selection(
    kind: Option<Kind>,
    namespace: &str,
    labels: &str,
    fields: &str,
) -> Result<Selection, Status> {
    Ok(Selection {
        kind,
        namespace: optional_name("namespace", namespace)?,
        labels: LabelSelector::parse(labels).map_err(|e| invalid("label_selector", e.to_string()))?,
        fields: FieldSelector::parse(fields).map_err(|e| invalid("field_selector", e.to_string()))?,
    })
}

#[tonic::async_trait]
impl Queries for Api {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let kind = kind(request.kind)?;
        let namespace = optional_name("namespace", &request.namespace)?;
        let name = Name::new(&request.name).map_err(|e| invalid("name", e.to_string()))?;
        let reference = ObjectRef { kind, namespace, name };
        let state = self.read(is_stale(request.consistency), request.at_least, deadline).await?;
        let object = state
            .find_object(&reference)
            .ok_or_else(|| Status::not_found(format!("{reference} does not exist")))?;
        Ok(Response::new(v1::GetResponse { object: Some((&object).into()), revision: state.revision() }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let selection = selection(
            Some(kind(request.kind)?),
            &request.namespace,
            &request.label_selector,
            &request.field_selector,
        )?;
        let after = continue_after(&request.continue_token)?;
        let limit = if request.limit == 0 { LIMIT_DEFAULT } else { request.limit.min(LIMIT_MAX) };
        let state = self.read(is_stale(request.consistency), request.at_least, deadline).await?;
        let page = list(&state, &selection, after, limit as usize);
        Ok(Response::new(v1::ListResponse {
            items: page.items.iter().map(Into::into).collect(),
            revision: state.revision(),
            continue_token: page.next.map_or_else(String::new, |id| id.0.to_string()),
            remaining: None,
        }))
    }

    type WatchStream = Answers<v1::WatchResponse>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let kind = if request.kind == 0 { None } else { Some(kind(request.kind)?) };
        let selection =
            selection(kind, &request.namespace, &request.label_selector, &request.field_selector)?;
        let interval_ms = match request.bookmark_interval_ms {
            0 => BOOKMARK_MS_DEFAULT,
            given => given.max(BOOKMARK_MS_MIN),
        };
        if request.from_revision > 0 {
            self.check_watchable(request.from_revision).await?;
        }
        let start = self.read(request.from_revision > 0, request.from_revision, deadline).await?;
        let (sender, receiver) = mpsc::channel(WATCH_QUEUE_MAX);
        let watcher =
            Watcher { api: self.clone(), selection, sender, bookmark: Duration::from_millis(interval_ms) };
        tokio::spawn(watcher.run(request.from_revision, start));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type ListEventsStream = Answers<v1::HistoryEntry>;

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<Self::ListEventsStream>, Status> {
        let deadline = deadline(request.metadata());
        self.history(request.into_inner(), deadline).await
    }

    async fn what_if(
        &self,
        request: Request<v1::WhatIfRequest>,
    ) -> Result<Response<v1::WhatIfResponse>, Status> {
        let deadline = deadline(request.metadata());
        self.what_would_be(request.into_inner(), deadline).await.map(Response::new)
    }

    async fn advise(
        &self,
        request: Request<v1::AdviseRequest>,
    ) -> Result<Response<v1::AdviseResponse>, Status> {
        let deadline = deadline(request.metadata());
        self.advice(request.into_inner(), deadline).await.map(Response::new)
    }

    async fn usage(&self, request: Request<v1::UsageRequest>) -> Result<Response<v1::UsageResponse>, Status> {
        let deadline = deadline(request.metadata());
        self.usage_of(request.into_inner(), deadline).await.map(Response::new)
    }
}

pub(super) fn continue_after(token: &str) -> Result<ObjectId, Status> {
    if token.is_empty() {
        return Ok(ObjectId(0));
    }
    token.parse().map(ObjectId).map_err(|_| invalid("continue_token", "is not a token of this server"))
}

/// One watch.
struct Watcher {
    api: Api,
    selection: Selection,
    sender: mpsc::Sender<Result<v1::WatchResponse, Status>>,
    bookmark: Duration,
}

/// The watcher is gone: nobody to tell anything.
struct Gone;

/// Why a watch does not get out of the past.
enum Stop {
    /// The watcher is gone.
    Gone,
    /// It must be told this.
    Told(Status),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Told(status)
    }
}

impl Api {
    /// Refuses a watch that begins before what memory and disk have.
    async fn check_watchable(&self, after: u64) -> Result<(), Status> {
        if self.watches.check(after).is_ok() {
            return Ok(());
        }
        let oldest = Past::oldest(self).await?;
        if after < oldest { Err(compacted(oldest)) } else { Ok(()) }
    }
}

impl Watcher {
    async fn run(self, from_revision: u64, start: State) {
        self.api.metrics.watches.inc();
        // Its going away is how a watch ends.
        let _ = self.follow(from_revision, start).await;
        self.api.metrics.watches.dec();
    }

    async fn follow(&self, from_revision: u64, start: State) -> Result<(), Gone> {
        let selection = self.selection.clone();
        let mut watch = if from_revision == 0 {
            let (watch, listed) = Watch::begin(selection, &start);
            for event in listed {
                self.send(event).await?;
            }
            watch
        } else {
            Watch::resume(selection, from_revision)
        };
        drop(start);
        loop {
            match self.api.watches.next(&mut watch, || self.api.views.state()) {
                Ok(events) => {
                    for event in events {
                        self.send(event).await?;
                    }
                }
                Err(Compacted { .. }) => {
                    watch = self.catch_up(watch).await?;
                    continue;
                }
            }
            self.wait(&watch).await?;
        }
    }

    /// Goes through the stored history until the watch is where memory begins.
    async fn catch_up(&self, watch: Watch) -> Result<Watch, Gone> {
        match self.go_through_past(watch).await {
            Ok(watch) => Ok(watch),
            Err(Stop::Gone) => Err(Gone),
            Err(Stop::Told(status)) => {
                // The watcher may have gone meanwhile: then nobody wants to be told.
                let _ = self.sender.send(Err(status)).await;
                Err(Gone)
            }
        }
    }

    async fn go_through_past(&self, mut watch: Watch) -> Result<Watch, Stop> {
        let begun = tokio::select! {
            begun = Past::begin(&self.api, watch.after()) => begun?,
            () = self.sender.closed() => return Err(Stop::Gone),
        };
        let Some(mut past) = begun else {
            return Err(Stop::Told(compacted(self.api.watches.oldest())));
        };
        while self.api.watches.check(watch.after()).is_err() {
            let (next, at, events, any) = past.next(watch).await?;
            (past, watch) = (next, at);
            for event in events {
                self.send(event).await.map_err(|_| Stop::Gone)?;
            }
            if !any {
                // Memory has dropped what the disk does not have yet: the history thread is busy.
                self.wait_for_history(watch.after()).await?;
            }
        }
        Ok(watch)
    }

    async fn wait_for_history(&self, after: u64) -> Result<(), Stop> {
        let mut kept = self.api.history_kept.clone();
        tokio::select! {
            kept = timeout(HISTORY_TIMEOUT, kept.wait_for(|kept| *kept > after)) => match kept {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(Stop::Told(compacted(self.api.watches.oldest()))),
            },
            () = self.sender.closed() => Err(Stop::Gone),
        }
    }

    /// Waits for something newer, with a bookmark now and then.
    async fn wait(&self, watch: &Watch) -> Result<(), Gone> {
        loop {
            tokio::select! {
                newer = timeout(self.bookmark, self.api.watches.newer(watch.after())) => match newer {
                    Ok(true) => return Ok(()),
                    Ok(false) => return Err(Gone),
                    Err(_) => self.send(watch.bookmark()).await?,
                },
                () = self.sender.closed() => return Err(Gone),
            }
        }
    }

    async fn send(&self, event: WatchEvent) -> Result<(), Gone> {
        let response = match event {
            WatchEvent::Change { change_type, object, revision } => v1::WatchResponse {
                r#type: watch_type(change_type).into(),
                object: Some((&object).into()),
                revision,
            },
            WatchEvent::Bookmark(revision) => {
                v1::WatchResponse { r#type: v1::WatchType::Bookmark.into(), object: None, revision }
            }
        };
        self.sender.send(Ok(response)).await.map_err(|_| Gone)
    }
}

fn watch_type(change: ChangeType) -> v1::WatchType {
    match change {
        ChangeType::Added => v1::WatchType::Added,
        ChangeType::Modified => v1::WatchType::Modified,
        ChangeType::Deleted => v1::WatchType::Deleted,
    }
}
