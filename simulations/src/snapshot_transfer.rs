//! Snapshots on their way, in parts, from one server's disk to another's.

use std::sync::Arc;

use bulkhead_controlplane_core::server::{Input, SendSnapshot};
use bulkhead_controlplane_disk::{DiskError, Receiving, read_snapshot, receive};
use bulkhead_storage::{SnapshotInfo, StorageError};
use bulkhead_types::MemberId;

use crate::clock::Micros;
use crate::invariants::Violation;
use crate::message::{Body, Chunk};
use crate::network::Host;
use crate::world::{Event, World};

/// A transfer without progress for so long is given up, in microseconds.
const PATIENCE_US: Micros = 3_000_000;

/// A snapshot that is being sent.
pub(crate) struct Outgoing {
    to: MemberId,
    info: Arc<SnapshotInfo>,
    message: Arc<Vec<u8>>,
    /// Grows with every answer.
    progress: u32,
}

/// A snapshot that is being received.
pub(crate) struct Incoming {
    from: MemberId,
    transfer: u64,
    info: Arc<SnapshotInfo>,
    message: Arc<Vec<u8>>,
    /// `None` once all parts are there and it is being made durable.
    writer: Option<Receiving>,
}

impl World {
    pub(crate) fn snapshot_failed(&mut self, member: MemberId, life: u32, error: DiskError) {
        match error {
            // The server saved one at the same index meanwhile, and took over its place.
            DiskError::Storage(error) if error.is_refusal() && !error.is_full() => {}
            DiskError::Storage(error) => self.disk_failed(member, life, &error),
            error => self.fail(Violation::new("snapshot", format!("server {member}: {error}"))),
        }
    }

    /// A server wants one of its snapshots at a peer.
    pub(crate) fn begin_sending(&mut self, member: MemberId, life: u32, send: SendSnapshot) {
        self.next_transfer += 1;
        let transfer = self.next_transfer;
        let Some(up) = self.running(member, life) else { return };
        let found = up.stores.snapshots.list();
        let info = found.ok().and_then(|all| all.into_iter().find(|i| i.meta.index == send.index));
        self.note(Host::Server(member), "send snapshot", u128::from(send.index), || {
            format!("{} to server-{}: {}", send.index, send.to, if info.is_some() { "begun" } else { "gone" })
        });
        let Some(info) = info else {
            return self.give(member, Input::SnapshotSent { to: send.to, delivered: false });
        };
        let outgoing =
            Outgoing { to: send.to, info: Arc::new(info), message: Arc::new(send.message), progress: 0 };
        if let Some(up) = self.running(member, life) {
            up.outgoing.insert(transfer, outgoing);
        }
        self.send_chunk(member, life, transfer, 0);
    }

    fn send_chunk(&mut self, member: MemberId, life: u32, transfer: u64, number: u32) {
        let now_us = self.now_us;
        let Some(up) = self.running(member, life) else { return };
        let Some(outgoing) = up.outgoing.get_mut(&transfer) else { return };
        outgoing.progress += 1;
        let progress = outgoing.progress;
        let Ok(bytes) = up.stores.snapshots.read_chunk(outgoing.info.meta.index, number) else {
            return self.end_sending(member, life, transfer, false);
        };
        let (to, info, message) = (outgoing.to, outgoing.info.clone(), outgoing.message.clone());
        let chunk = Chunk { transfer, info, message, number, bytes };
        self.queue.push(now_us + PATIENCE_US, Event::TransferLate { member, life, transfer, progress });
        self.send(Host::Server(member), Host::Server(to), Body::Chunk(chunk));
    }

    /// A transfer may have stood still for too long.
    pub(crate) fn transfer_late(&mut self, member: MemberId, life: u32, transfer: u64, progress: u32) {
        let Some(up) = self.running(member, life) else { return };
        if up.outgoing.get(&transfer).is_some_and(|o| o.progress == progress) {
            self.end_sending(member, life, transfer, false);
        }
    }

    fn end_sending(&mut self, member: MemberId, life: u32, transfer: u64, delivered: bool) {
        let Some(up) = self.running(member, life) else { return };
        if let Some(outgoing) = up.outgoing.remove(&transfer) {
            self.give(member, Input::SnapshotSent { to: outgoing.to, delivered });
        }
    }

    /// The receiver of a snapshot answered.
    pub(crate) fn receive_chunk_answer(
        &mut self,
        member: MemberId,
        transfer: u64,
        next: Option<u32>,
        taken: bool,
    ) {
        let Some(life) = self.servers.get(&member).map(|h| h.life) else { return };
        match next {
            Some(number) => self.send_chunk(member, life, transfer, number),
            None => self.end_sending(member, life, transfer, taken),
        }
    }

    /// A part of a snapshot arrives.
    pub(crate) fn receive_chunk(&mut self, member: MemberId, from: MemberId, chunk: Chunk) {
        let now_us = self.now_us;
        let transfer = chunk.transfer;
        let Some(host) = self.servers.get_mut(&member) else { return };
        let life = host.life;
        let after_us = host.disk.snapshot_us();
        let Some(up) = host.up.as_mut() else { return };
        let present = up.incoming.as_ref().is_some_and(|i| (i.from, i.transfer) == (from, transfer));
        if !present {
            match receive(&*up.stores.snapshots, &chunk.info.meta) {
                Ok(writer) => {
                    let (info, message) = (chunk.info.clone(), chunk.message.clone());
                    let present = matches!(writer, Receiving::Present(_));
                    up.incoming = Some(Incoming { from, transfer, info, message, writer: Some(writer) });
                    if present {
                        let event = Event::SnapshotComplete { member, life, transfer };
                        return self.queue.push(now_us + after_us, event);
                    }
                }
                Err(error) => return self.refuse_chunk(member, life, from, transfer, &error),
            }
        }
        let Some(incoming) = up.incoming.as_mut() else { return };
        // A repeated last part: the answer is on its way.
        let Some(Receiving::Writer(writer)) = incoming.writer.as_mut() else { return };
        if chunk.number == writer.next_chunk()
            && let Err(error) = writer.write_chunk(chunk.number, &chunk.bytes)
        {
            up.incoming = None;
            return self.refuse_chunk(member, life, from, transfer, &error);
        }
        let next = writer.next_chunk();
        if next < chunk.info.chunks {
            return self.answer_chunk(member, from, transfer, Some(next), true);
        }
        self.queue.push(now_us + after_us, Event::SnapshotComplete { member, life, transfer });
    }

    fn answer_chunk(
        &mut self,
        member: MemberId,
        to: MemberId,
        transfer: u64,
        next: Option<u32>,
        taken: bool,
    ) {
        let body = Body::ChunkAnswer { transfer, next, taken };
        self.send(Host::Server(member), Host::Server(to), body);
    }

    fn refuse_chunk(
        &mut self,
        member: MemberId,
        life: u32,
        from: MemberId,
        transfer: u64,
        error: &StorageError,
    ) {
        self.note(Host::Server(member), "refuse snapshot", u128::from(transfer), || error.to_string());
        self.answer_chunk(member, from, transfer, None, false);
        if !error.is_refusal() || error.is_full() {
            self.disk_failed(member, life, error);
        }
    }

    /// All parts of a snapshot are there: it is made durable, checked, and handed to the server.
    pub(crate) fn complete_snapshot(&mut self, member: MemberId, life: u32, transfer: u64) {
        let codec = self.codec.clone();
        let Some(up) = self.running(member, life) else { return };
        let Some(incoming) = up.incoming.as_mut().filter(|i| i.transfer == transfer) else { return };
        let Some(writer) = incoming.writer.take() else { return };
        let (from, message) = (incoming.from, incoming.message.clone());
        let (index, expected) = (incoming.info.meta.index, incoming.info.digest);
        let revision = incoming.info.meta.revision;
        up.incoming = None;
        let finished = match writer {
            Receiving::Writer(writer) => writer.finish(),
            Receiving::Present(info) => Ok(info),
        };
        if let Some(host) = self.servers.get_mut(&member) {
            host.history_since = host.history_since.max(revision);
        }
        let Some(up) = self.running(member, life) else { return };
        let state = match finished {
            Ok(info) if info.digest == expected => read_snapshot(&*up.stores.snapshots, &*codec, index),
            Ok(info) => {
                let text = format!(
                    "server {member}: digest {:x} of a received snapshot, sent {expected:x}",
                    info.digest
                );
                return self.fail(Violation::new("snapshot", text));
            }
            Err(error) => Err(error.into()),
        };
        self.note(Host::Server(member), "snapshot received", u128::from(index), || format!("at {index}"));
        match state {
            Ok(state) => {
                self.counts.snapshots_received += 1;
                let verdict = self.chronicle.check_restored(member, index, &state);
                self.judge(verdict);
                self.answer_chunk(member, from, transfer, None, true);
                let message = Arc::unwrap_or_clone(message);
                self.give(member, Input::SnapshotReceived { message, state: Box::new(state) });
            }
            Err(error) => {
                self.answer_chunk(member, from, transfer, None, false);
                self.snapshot_failed(member, life, error);
            }
        }
    }
}
