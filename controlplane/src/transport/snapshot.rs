//! Snapshots between servers: in chunks, checked, resumable.

use std::sync::Arc;

use bulkhead_controlplane_core::replica::{decode_message, encode, snapshot_point};
use bulkhead_controlplane_core::server::{Input, SendSnapshot};
use bulkhead_controlplane_disk::{Receiving, read_snapshot, receive};
use bulkhead_proto::{ProtoCodec, v1};
use bulkhead_storage::{SnapshotInfo, SnapshotMeta, SnapshotStore};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use v1::peers_client::PeersClient;
use v1::snapshot_chunk::Part;

use super::connect;
use super::link::Context;
use crate::handle::Handle;

/// Most chunks between the disk and the socket.
const CHUNKS_AHEAD_MAX: usize = 4;

/// Sends a snapshot: asks what the peer has of it already, then sends the rest.
pub(super) async fn send(
    context: &Context,
    store: Arc<dyn SnapshotStore>,
    send: SendSnapshot,
) -> Result<(), Status> {
    let address =
        context.addresses.of(send.to).ok_or_else(|| Status::unavailable("its address is not known"))?;
    let channel = connect(&address).map_err(|e| Status::unavailable(e.to_string()))?;
    let mut client = PeersClient::new(channel);
    let info = find(&*store, send.index)?;
    let header = v1::SnapshotChunk { part: Some(Part::Header(header(context, &send, &info)?)) };
    let asked = client.install_snapshot(tokio_stream::iter([header.clone()])).await?.into_inner();
    if asked.complete {
        return Ok(());
    }
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD_MAX);
    sender.send(header).await.map_err(|_| Status::internal("the stream ended"))?;
    let reader = tokio::task::spawn_blocking(move || read(&*store, &info, asked.next_chunk, &sender));
    let receipt = client.install_snapshot(ReceiverStream::new(receiver)).await?.into_inner();
    reader.await.map_err(|e| Status::internal(e.to_string()))??;
    if receipt.complete { Ok(()) } else { Err(Status::data_loss("the peer does not have all of it")) }
}

fn find(store: &dyn SnapshotStore, index: u64) -> Result<SnapshotInfo, Status> {
    let list = store.list().map_err(|e| Status::data_loss(e.to_string()))?;
    list.into_iter()
        .find(|info| info.meta.index == index)
        .ok_or_else(|| Status::not_found(format!("snapshot {index} was replaced by a newer one")))
}

fn header(context: &Context, send: &SendSnapshot, info: &SnapshotInfo) -> Result<v1::SnapshotHeader, Status> {
    let message = decode_message(&send.message).map_err(|e| Status::internal(e.to_string()))?;
    Ok(v1::SnapshotHeader {
        hello: Some(context.identity.hello(send.to)),
        term: message.get_term(),
        index: info.meta.index,
        index_term: info.meta.term,
        raft_message: send.message.clone().into(),
        chunks: u64::from(info.chunks),
        size_bytes: info.bytes,
        revision: info.meta.revision,
    })
}

/// Reads chunks until the receiver is gone or all are read.
fn read(
    store: &dyn SnapshotStore,
    info: &SnapshotInfo,
    from: u64,
    sender: &mpsc::Sender<v1::SnapshotChunk>,
) -> Result<(), Status> {
    let first = u32::try_from(from).map_err(|_| Status::invalid_argument("no such chunk"))?;
    for chunk in first..info.chunks {
        let data = store.read_chunk(info.meta.index, chunk).map_err(|e| Status::data_loss(e.to_string()))?;
        let part = v1::SnapshotData {
            chunk: u64::from(chunk),
            crc32c: crc32c::crc32c(&data),
            data: Bytes::from(data),
            last: chunk + 1 == info.chunks,
        };
        if sender.blocking_send(v1::SnapshotChunk { part: Some(Part::Data(part)) }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Receives one snapshot: its writer, and what Raft says about it.
pub(crate) struct Receiver {
    store: Arc<dyn SnapshotStore>,
    receiving: Receiving,
    header: v1::SnapshotHeader,
}

impl Receiver {
    /// Begins, or goes on where an earlier stream broke.
    pub(crate) fn open(store: Arc<dyn SnapshotStore>, header: v1::SnapshotHeader) -> Result<Self, Status> {
        let message =
            decode_message(&header.raft_message).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let point = snapshot_point(message.get_snapshot());
        if (point.index, point.term) != (header.index, header.index_term) {
            return Err(Status::invalid_argument("the header and raft's message name different snapshots"));
        }
        let meta = SnapshotMeta {
            index: point.index,
            term: point.term,
            revision: header.revision,
            extra: encode(&point.conf_state),
        };
        let storage = |e: bulkhead_storage::StorageError| Status::internal(e.to_string());
        let receiving = receive(&*store, &meta).map_err(storage)?;
        Ok(Self { store, receiving, header })
    }

    /// The first chunk that is missing.
    pub(crate) fn next_chunk(&self) -> u64 {
        match &self.receiving {
            Receiving::Writer(writer) => u64::from(writer.next_chunk()),
            Receiving::Present(_) => self.header.chunks,
        }
    }

    /// Whether no chunk is missing: then it can be finished although none came.
    pub(crate) fn is_whole(&self) -> bool {
        self.next_chunk() >= self.header.chunks
    }

    /// Takes one chunk; tells whether it was the last.
    pub(crate) fn take(&mut self, data: &v1::SnapshotData) -> Result<bool, Status> {
        if crc32c::crc32c(&data.data) != data.crc32c {
            return Err(Status::data_loss(format!("chunk {} was damaged on its way", data.chunk)));
        }
        let chunk = u32::try_from(data.chunk).map_err(|_| Status::invalid_argument("no such chunk"))?;
        let Receiving::Writer(writer) = &mut self.receiving else { return Ok(data.last) };
        writer.write_chunk(chunk, &data.data).map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(data.last)
    }

    /// Makes it durable, reads it back as a State, and hands both to the core.
    pub(crate) fn finish(self, handle: &Handle) -> Result<(), Status> {
        let Self { store, receiving, header } = self;
        if let Receiving::Writer(writer) = receiving {
            writer.finish().map_err(|e| Status::internal(e.to_string()))?;
        }
        let state = read_snapshot(&*store, &ProtoCodec, header.index)
            .map_err(|e| Status::data_loss(e.to_string()))?;
        let message = header.raft_message.to_vec();
        handle
            .tell_blocking(Input::SnapshotReceived { message, state: Box::new(state) })
            .map_err(|e| Status::unavailable(e.to_string()))
    }
}
