//! A watch that outlives the server it began on, and what servers keep.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_proto::v1;
use bulkhead_types::{Kind, Object, ObjectId, Revision};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use super::{BACKOFF_MIN, Client, Filter, decode, is_unavailable, queries, scope};
use crate::failure::Failure;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is there, or has a new state.
    Present,
    /// It is gone, or does not match any more.
    Gone,
}

/// Changes in order: after a broken connection it goes on where it was. When no server remembers what came after that,
/// it lists again: then each object that changed meanwhile comes once, as it is now, and none is missed.
pub(crate) struct Watcher<'c> {
    client: &'c Client,
    kind: Kind,
    filter: Filter,
    /// Everything up to here was told.
    revision: Revision,
    /// What is there, as it was told last.
    known: BTreeMap<ObjectId, Object>,
    /// What a new list showed and is not told yet.
    found: VecDeque<(Change, Object, Revision)>,
    stream: Option<Streaming<v1::WatchResponse>>,
}

impl<'c> Watcher<'c> {
    /// Goes on from a list.
    pub(super) fn new(
        client: &'c Client,
        kind: Kind,
        filter: &Filter,
        listed: &[Object],
        revision: Revision,
    ) -> Self {
        let known = listed.iter().map(|object| (object.meta().id, object.clone())).collect();
        let filter = filter.clone();
        Self { client, kind, filter, revision, known, found: VecDeque::new(), stream: None }
    }

    /// The next change and its revision; waits for it without limit.
    pub(crate) async fn next(&mut self) -> Result<(Change, Object, Revision), Failure> {
        loop {
            if let Some(next) = self.found.pop_front() {
                return Ok(next);
            }
            let Some(stream) = &mut self.stream else {
                match self.connect().await? {
                    Ok(stream) => self.stream = Some(stream),
                    Err(status) if oldest_kept(&status).is_some() => self.list_again().await?,
                    Err(status) => return Err(status.into()),
                }
                continue;
            };
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Err(status) if oldest_kept(&status).is_some() => {
                    self.list_again().await?;
                    continue;
                }
                Err(status) if !is_unavailable(&status) => return Err(status.into()),
                Ok(None) | Err(_) => {
                    self.stream = None;
                    // A server that ends every watch at once must not be asked in a tight loop.
                    tokio::time::sleep(BACKOFF_MIN).await;
                    continue;
                }
            };
            self.revision = self.revision.max(message.revision);
            let change = match message.r#type() {
                v1::WatchType::Added | v1::WatchType::Modified => Change::Present,
                v1::WatchType::Deleted => Change::Gone,
                v1::WatchType::Bookmark | v1::WatchType::Unspecified => continue,
            };
            let object = decode(message.object)?;
            match change {
                Change::Present => self.known.insert(object.meta().id, object.clone()),
                Change::Gone => self.known.remove(&object.meta().id),
            };
            return Ok((change, object, message.revision));
        }
    }

    /// Reads everything anew, and finds out what is not told yet.
    async fn list_again(&mut self) -> Result<(), Failure> {
        self.stream = None;
        // Servers that forget faster than this client reads must not be asked in a tight loop.
        tokio::time::sleep(BACKOFF_MIN).await;
        let (objects, revision) = self.client.list(self.kind, &self.filter).await?;
        let now = objects.into_iter().map(|object| (object.meta().id, object)).collect();
        let before = std::mem::replace(&mut self.known, now);
        self.found = differences(&before, &self.known, revision);
        self.revision = revision;
        Ok(())
    }

    async fn connect(&self) -> Result<Result<Streaming<v1::WatchResponse>, Status>, Failure> {
        let request = v1::WatchRequest {
            kind: v1::Kind::from(self.kind).into(),
            namespace: scope(self.kind, &self.filter),
            label_selector: self.filter.labels.clone(),
            field_selector: self.filter.fields.clone(),
            from_revision: self.revision,
            bookmark_interval_ms: 0,
        };
        self.client
            .call_or_refusal(|channel| {
                let request = self.client.request(request.clone());
                async move { queries(channel).watch(request).await }
            })
            .await
    }
}

/// The oldest revision that is kept, when that is why a server refuses to go on from an older one.
pub(crate) fn oldest_kept(status: &Status) -> Option<Revision> {
    let info = status.get_details_error_info().filter(|info| info.reason == "COMPACTED")?;
    (status.code() == Code::OutOfRange)
        .then(|| info.metadata.get("oldest_revision").and_then(|r| r.parse().ok()).unwrap_or_default())
}

/// What became of objects between two lists, in the order of the revisions; those that are gone first.
fn differences(
    before: &BTreeMap<ObjectId, Object>,
    now: &BTreeMap<ObjectId, Object>,
    revision: Revision,
) -> VecDeque<(Change, Object, Revision)> {
    let gone = before.iter().filter(|(id, _)| !now.contains_key(id));
    let mut found: VecDeque<_> = gone.map(|(_, object)| (Change::Gone, object.clone(), revision)).collect();
    let is_new = |(id, object): &(&ObjectId, &Object)| {
        before.get(id).is_none_or(|known| known.meta().revision != object.meta().revision)
    };
    let mut changed: Vec<_> = now.iter().filter(is_new).map(|(_, object)| object).collect();
    changed.sort_by_key(|object| object.meta().revision);
    found.extend(changed.into_iter().map(|o| (Change::Present, o.clone(), o.meta().revision)));
    found
}
