//! What followers pass on to their leader: several submissions in one call.
//!
//! ```text
//!   forward ─► queue ─► [ at most two calls under way, the rest waits and goes together ] ─► leader
//!      ▲                                                                                      │
//!      └────────────────────────── one answer each ◄──────────────────────────────────────────┘
//! ```
//!
//! An idle follower passes a submission on at once; a busy one pays for one call where it had many.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_proto::v1;
use smol_str::SmolStr;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::transport::Channel;
use tonic::{Code, Status};
use v1::peers_client::PeersClient;

use crate::error::unavailable;
use crate::propose::FORWARD_BYTES_MAX;

/// Most calls to one server that are under way: while they are, the next one grows.
const CALLS_MAX: usize = 2;
/// Most submissions of one call.
pub(crate) const PROPOSALS_MAX: usize = 1024;
/// About the most bytes of one call; a single submission may be longer.
const CALL_BYTES_MAX: usize = 1 << 20;
/// Most submissions that wait for a place in a call; further ones wait to be queued.
const QUEUE_MAX: usize = 4096;

/// A submission on its way to the leader, and who waits for the answer.
struct Item {
    request: v1::ProposeRequest,
    answer: oneshot::Sender<Result<v1::ProposeResponse, Status>>,
}

/// One queue for each server that led.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forwarders {
    queues: Arc<Mutex<BTreeMap<SmolStr, mpsc::Sender<Item>>>>,
}

impl Forwarders {
    /// Passes an encoded record on to the server at `address`.
    pub(crate) async fn send(
        &self,
        address: SmolStr,
        channel: Channel,
        record: Vec<u8>,
        brief: bool,
    ) -> Result<v1::ProposeResponse, Status> {
        let (answer, answered) = oneshot::channel();
        let item = Item { request: v1::ProposeRequest { record: record.into(), brief }, answer };
        let gone = || unavailable("the server is shutting down");
        self.queue(address, channel).send(item).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    fn queue(&self, address: SmolStr, channel: Channel) -> mpsc::Sender<Item> {
        // Nothing panics while it holds the map.
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(address).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(QUEUE_MAX);
            tokio::spawn(run(channel, receiver));
            sender
        });
        queue.clone()
    }
}

/// Makes calls of what is queued until the queue's senders are gone.
async fn run(channel: Channel, mut queue: mpsc::Receiver<Item>) {
    let calls = Arc::new(Semaphore::new(CALLS_MAX));
    let mut next = queue.recv().await;
    while let Some(first) = next.take() {
        let Ok(permit) = calls.clone().acquire_owned().await else { return };
        let mut bytes = first.request.record.len();
        let mut batch = vec![first];
        while batch.len() < PROPOSALS_MAX
            && let Ok(item) = queue.try_recv()
        {
            bytes += item.request.record.len();
            if bytes > CALL_BYTES_MAX {
                next = Some(item);
                break;
            }
            batch.push(item);
        }
        let client = PeersClient::new(channel.clone()).max_decoding_message_size(2 * FORWARD_BYTES_MAX);
        tokio::spawn(async move {
            call(client, batch).await;
            drop(permit);
        });
        if next.is_none() {
            next = queue.recv().await;
        }
    }
}

/// Makes one call and hands out its answers. Whoever waited may have gone; then nobody wants the answer.
async fn call(mut client: PeersClient<Channel>, mut batch: Vec<Item>) {
    if batch.len() > 1 {
        let proposals = batch.iter().map(|item| item.request.clone()).collect();
        match client.propose_many(v1::ProposeManyRequest { proposals }).await {
            Ok(response) => {
                let mut responses = response.into_inner().responses.into_iter();
                for item in batch {
                    let missing = || Status::internal("the leader left out an answer");
                    let _ = item.answer.send(responses.next().ok_or_else(missing));
                }
                return;
            }
            // A leader of an earlier version takes them one at a time.
            Err(status) if status.code() == Code::Unimplemented => {}
            Err(status) => {
                for item in batch {
                    let _ = item.answer.send(Err(status.clone()));
                }
                return;
            }
        }
    }
    for item in batch.drain(..) {
        let answer = client.propose(item.request).await.map(tonic::Response::into_inner);
        let _ = item.answer.send(answer);
    }
}
