//! Events as people read them, from the event store.

use std::pin::Pin;
use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_proto::{Field, ProtoCodec, v1};
use bulkhead_storage::{EventRecord, EventStore};
use bulkhead_types::{Event, EventKind, Kind, LogCodec, ObjectId, ObjectRef, Transaction};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::{Api, optional_name};
use crate::error::{compacted, convert_status};

/// Records read at a time.
const READ_MAX: usize = 256;
/// Answers that wait for a slow reader.
const QUEUE_MAX: usize = 256;

type Entries = Pin<Box<dyn Stream<Item = Result<v1::HistoryEntry, Status>> + Send>>;

/// Which events somebody asks for.
struct Wanted {
    object: Option<ObjectRef>,
    namespace: Option<bulkhead_types::Name>,
    limit: u64,
    follow: bool,
}

impl Api {
    pub(super) async fn history(&self, request: v1::ListEventsRequest) -> Result<Response<Entries>, Status> {
        let object = request.object.map(|object| Field::from_wire(Some(object))).transpose();
        let wanted = Wanted {
            object: object.map_err(|e: bulkhead_proto::ConvertError| convert_status(&e.within("object")))?,
            namespace: optional_name("namespace", &request.namespace)?,
            limit: if request.limit == 0 { u64::MAX } else { u64::from(request.limit) },
            follow: request.follow,
        };
        let oldest = bounds(&self.events).await?.map_or(0, |(oldest, _)| oldest);
        if request.from_revision > 0 && request.from_revision + 1 < oldest {
            return Err(compacted(oldest));
        }
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let api = self.clone();
        tokio::spawn(async move {
            // The reader's going away is one way in which this ends.
            let _ = api.send_history(wanted, request.from_revision, sender).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn send_history(
        &self,
        mut wanted: Wanted,
        mut after: u64,
        sender: mpsc::Sender<Result<v1::HistoryEntry, Status>>,
    ) -> Result<(), mpsc::error::SendError<Result<v1::HistoryEntry, Status>>> {
        loop {
            let records = match read(&self.events, after + 1).await {
                Ok(records) => records,
                Err(status) => return sender.send(Err(status)).await,
            };
            let state = self.views.state();
            for record in &records {
                let transaction = match ProtoCodec.decode_transaction(&record.bytes) {
                    Ok(transaction) => transaction,
                    Err(error) => return sender.send(Err(Status::data_loss(error.to_string()))).await,
                };
                for event in transaction.events.iter().filter(|event| event.revision > after) {
                    let entry = entry_of(&state, &transaction, event);
                    if !is_wanted(&wanted, &entry) {
                        continue;
                    }
                    sender.send(Ok(entry)).await?;
                    wanted.limit -= 1;
                    if wanted.limit == 0 {
                        return Ok(());
                    }
                }
                after = record.last_revision;
            }
            if records.is_empty() {
                if !wanted.follow {
                    return Ok(());
                }
                tokio::select! {
                    newer = self.watches.newer(after.max(state.revision())) => if !newer { return Ok(()) },
                    () = sender.closed() => return Ok(()),
                }
            }
        }
    }
}

async fn bounds(events: &Arc<dyn EventStore>) -> Result<Option<(u64, u64)>, Status> {
    let events = events.clone();
    let found = tokio::task::spawn_blocking(move || events.bounds()).await;
    found.map_err(|e| Status::internal(e.to_string()))?.map_err(|e| Status::data_loss(e.to_string()))
}

async fn read(events: &Arc<dyn EventStore>, from: u64) -> Result<Vec<EventRecord>, Status> {
    let events = events.clone();
    let found = tokio::task::spawn_blocking(move || events.read(from, READ_MAX)).await;
    found.map_err(|e| Status::internal(e.to_string()))?.map_err(|e| Status::data_loss(e.to_string()))
}

fn is_wanted(wanted: &Wanted, entry: &v1::HistoryEntry) -> bool {
    let Some(object) = &entry.object else { return wanted.object.is_none() && wanted.namespace.is_none() };
    wanted.namespace.as_ref().is_none_or(|ns| object.namespace == ns.as_str())
        && wanted.object.as_ref().is_none_or(|o| {
            object.kind == o.kind.to_wire()
                && object.name == o.name.as_str()
                && object.namespace == o.namespace.as_ref().map_or("", |ns| ns.as_str())
        })
}

fn entry_of(state: &State, transaction: &Transaction, event: &Event) -> v1::HistoryEntry {
    let (name, object, summary) = describe(state, event);
    v1::HistoryEntry {
        revision: event.revision,
        at_ms: transaction.at_ms,
        actor: transaction.actor.to_string(),
        event: name.to_owned(),
        object: object.as_ref().map(Into::into),
        summary,
        trace_context: transaction.trace_context.as_ref().map(ToString::to_string),
    }
}

/// An event's name, the object that it is about (while it can still be named), and one line for people.
fn describe(state: &State, event: &Event) -> (&'static str, Option<ObjectRef>, String) {
    let of = |kind: Kind, id: ObjectId| state.object(kind, id).map(|object| object.object_ref());
    let node_name =
        |id: ObjectId| of(Kind::Node, id).map_or_else(|| id.to_string(), |node| node.name.to_string());
    match &event.kind {
        EventKind::ClusterInitialized { cluster_id, .. } => {
            ("ClusterInitialized", None, format!("cluster {cluster_id}"))
        }
        EventKind::FeatureLevelRaised { level } => ("FeatureLevelRaised", None, format!("level {level}")),
        EventKind::MemberRegistered { member, address, version, .. } => {
            ("MemberRegistered", None, format!("member {member} at {address}, version {version}"))
        }
        EventKind::LearnerAdded { member, address } => {
            ("LearnerAdded", None, format!("member {member} at {address}"))
        }
        EventKind::MemberPromoted { member } => ("MemberPromoted", None, format!("member {member} votes")),
        EventKind::MemberRemoved { member } => ("MemberRemoved", None, format!("member {member} left")),
        EventKind::ObjectCreated(object) => ("Created", Some(object.object_ref()), String::new()),
        EventKind::MetaChanged { kind, id, .. } => {
            ("MetaChanged", of(*kind, *id), "labels or annotations".to_owned())
        }
        EventKind::DeletionRequested { kind, id, deletion, reason } => {
            ("DeletionRequested", of(*kind, *id), format!("{reason}, grace {} ms", deletion.grace_ms))
        }
        EventKind::ObjectDeleted { kind, id } => ("Deleted", of(*kind, *id), format!("{kind} {id}")),
        EventKind::DeploymentSpecChanged { id, spec } => {
            ("SpecChanged", of(Kind::Deployment, *id), format!("{} replicas", spec.replicas))
        }
        EventKind::DeploymentStatusChanged { id, status } => {
            let summary =
                format!("{} updated, {} available", status.updated_replicas, status.available_replicas);
            ("StatusChanged", of(Kind::Deployment, *id), summary)
        }
        EventKind::ReplicaSetSpecChanged { id, spec } => {
            ("SpecChanged", of(Kind::ReplicaSet, *id), format!("{} replicas", spec.replicas))
        }
        EventKind::ReplicaSetScaled { id, replicas } => {
            ("Scaled", of(Kind::ReplicaSet, *id), format!("to {replicas}"))
        }
        EventKind::RolloutRevisionChanged { id, rollout_revision } => {
            ("RolloutRevisionChanged", of(Kind::ReplicaSet, *id), format!("revision {rollout_revision}"))
        }
        EventKind::ReplicaSetStatusChanged { id, status } => {
            ("StatusChanged", of(Kind::ReplicaSet, *id), format!("{} ready", status.ready_replicas))
        }
        EventKind::PodCreated { replica_set, name } => {
            let namespace = of(Kind::ReplicaSet, *replica_set).and_then(|set| set.namespace);
            ("Created", Some(ObjectRef { kind: Kind::Pod, namespace, name: name.clone() }), String::new())
        }
        EventKind::PodBound(binding) => {
            let summary =
                format!("to {}, {} nodes considered", node_name(binding.node), binding.nodes_considered);
            ("Bound", of(Kind::Pod, binding.pod), summary)
        }
        EventKind::PodStatusChanged { id, status } => {
            let summary = format!("{:?} {} {}", status.phase, status.reason, status.message);
            ("StatusChanged", of(Kind::Pod, *id), summary.trim_end().to_owned())
        }
        EventKind::NodeSpecChanged { id, spec } => {
            let summary = if spec.unschedulable { "cordoned" } else { "schedulable" };
            ("SpecChanged", of(Kind::Node, *id), summary.to_owned())
        }
        EventKind::NodeRegistered { id, incarnation, .. } => {
            ("Registered", of(Kind::Node, *id), format!("incarnation {incarnation}"))
        }
        EventKind::NodePhaseChanged { id, phase } => {
            ("PhaseChanged", of(Kind::Node, *id), format!("{phase:?}"))
        }
    }
}
