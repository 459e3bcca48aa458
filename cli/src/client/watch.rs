//! A watch that outlives the server it began on.

use bulkhead_proto::v1;
use bulkhead_types::{Object, Revision};
use tonic::Streaming;

use super::{Client, decode, is_unavailable, queries};
use crate::failure::Failure;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is there, or has a new state.
    Present,
    /// It is gone, or does not match any more.
    Gone,
}

/// Changes in order, without gap: after a broken connection it goes on where it was.
pub(crate) struct Watcher<'c> {
    client: &'c Client,
    request: v1::WatchRequest,
    stream: Option<Streaming<v1::WatchResponse>>,
}

impl<'c> Watcher<'c> {
    pub(super) fn new(client: &'c Client, request: v1::WatchRequest) -> Self {
        Self { client, request, stream: None }
    }

    /// The next change and its revision; waits for it without limit.
    pub(crate) async fn next(&mut self) -> Result<(Change, Object, Revision), Failure> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.stream = Some(self.connect().await?);
                continue;
            };
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Err(status) if !is_unavailable(&status) => return Err(status.into()),
                Ok(None) | Err(_) => {
                    self.stream = None;
                    // A server that ends every watch at once must not be asked in a tight loop.
                    tokio::time::sleep(super::BACKOFF_MIN).await;
                    continue;
                }
            };
            self.request.from_revision = self.request.from_revision.max(message.revision);
            let change = match message.r#type() {
                v1::WatchType::Added | v1::WatchType::Modified => Change::Present,
                v1::WatchType::Deleted => Change::Gone,
                v1::WatchType::Bookmark | v1::WatchType::Unspecified => continue,
            };
            return Ok((change, decode(message.object)?, message.revision));
        }
    }

    async fn connect(&self) -> Result<Streaming<v1::WatchResponse>, Failure> {
        self.client
            .call(|channel| {
                let request = self.client.request(self.request.clone());
                async move { queries(channel).watch(request).await }
            })
            .await
    }
}
