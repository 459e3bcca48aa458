//! Events as people read them, from the event store.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_proto::{Field, ProtoCodec, v1};
use bulkhead_storage::{EventRecord, EventStore};
use bulkhead_types::{Event, EventKind, Kind, LogCodec, ObjectId, ObjectRef, Transaction};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

mod summary;

use super::{Api, optional_name};
use crate::error::{compacted, convert_status, unavailable};

/// Records read at a time.
const READ_MAX: usize = 256;
/// Entries when the request does not say.
const LIMIT_DEFAULT: usize = 1000;
/// Most entries, not counting what is followed.
const LIMIT_MAX: usize = 100_000;
/// Answers that wait for a slow reader.
const QUEUE_MAX: usize = 256;

type Entries = Pin<Box<dyn Stream<Item = Result<v1::HistoryEntry, Status>> + Send>>;

/// Which events somebody asks for.
struct Wanted {
    object: Option<ObjectRef>,
    namespace: Option<bulkhead_types::Name>,
    limit: usize,
    follow: bool,
}

impl Api {
    pub(super) async fn history(
        &self,
        request: v1::ListEventsRequest,
        deadline: Instant,
    ) -> Result<Response<Entries>, Status> {
        // The event store follows the State: what a reader may have seen happen must be in it.
        let wanted_revision = self.views.state().revision();
        let mut kept = self.history_kept.clone();
        match timeout_at(deadline, kept.wait_for(|kept| *kept >= wanted_revision)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(unavailable("the server is shutting down")),
            Err(_) => return Err(unavailable("the event store of this server lags behind its State")),
        }
        let object = request.object.map(|object| Field::from_wire(Some(object))).transpose();
        let wanted = Wanted {
            object: object.map_err(|e: bulkhead_proto::ConvertError| convert_status(&e.within("object")))?,
            namespace: optional_name("namespace", &request.namespace)?,
            limit: if request.limit == 0 { LIMIT_DEFAULT } else { (request.limit as usize).min(LIMIT_MAX) },
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

    /// Sends what is kept (the newest entries, when a limit is given), then what happens from now on.
    async fn send_history(&self, wanted: Wanted, mut after: u64, sender: Sender) -> Result<(), Gone> {
        let mut names = Names::default();
        let mut newest = VecDeque::new();
        let mut caught_up = false;
        loop {
            let (entries, last) = match self.entries_after(after, &mut names).await {
                Ok(found) => found,
                Err(status) => return sender.send(Err(status)).await.map_err(|_| Gone),
            };
            let selected = entries.into_iter().filter(|entry| is_wanted(&wanted, entry));
            if caught_up {
                for entry in selected {
                    sender.send(Ok(entry)).await.map_err(|_| Gone)?;
                }
            } else {
                newest.extend(selected);
                let surplus = newest.len().saturating_sub(wanted.limit);
                newest.drain(..surplus);
            }
            if let Some(last) = last {
                after = last;
                continue;
            }
            for entry in newest.drain(..) {
                sender.send(Ok(entry)).await.map_err(|_| Gone)?;
            }
            caught_up = true;
            if !wanted.follow {
                return Ok(());
            }
            let seen = after.max(self.views.state().revision());
            tokio::select! {
                newer = self.watches.newer(seen) => if !newer { return Ok(()) },
                () = sender.closed() => return Ok(()),
            }
        }
    }

    /// The next entries, and the revision up to which they reach; `None` when there are no more.
    async fn entries_after(
        &self,
        after: u64,
        names: &mut Names,
    ) -> Result<(Vec<v1::HistoryEntry>, Option<u64>), Status> {
        let records = read(&self.events, after + 1).await?;
        let state = self.views.state();
        let mut entries = Vec::new();
        for record in &records {
            let transaction =
                ProtoCodec.decode_transaction(&record.bytes).map_err(|e| Status::data_loss(e.to_string()))?;
            for event in &transaction.events {
                names.learn(&state, event);
                if event.revision > after {
                    entries.push(entry_of(&state, names, &transaction, event));
                }
            }
        }
        Ok((entries, records.last().map(|record| record.last_revision)))
    }
}

type Sender = mpsc::Sender<Result<v1::HistoryEntry, Status>>;

/// The reader is gone: nobody to tell anything.
struct Gone;

/// Names of objects that were created on the way: those that are gone can still be named.
#[derive(Default)]
struct Names(BTreeMap<ObjectId, ObjectRef>);

impl Names {
    fn learn(&mut self, state: &State, event: &Event) {
        let created = match &event.kind {
            EventKind::ObjectCreated(object) => object.object_ref(),
            EventKind::PodCreated { replica_set, name } => {
                let namespace = self.of(state, Kind::ReplicaSet, *replica_set).and_then(|set| set.namespace);
                ObjectRef { kind: Kind::Pod, namespace, name: name.clone() }
            }
            EventKind::OwnedPodCreated { owner, stamp } => {
                let namespace = self.of(state, owner.kind, owner.id).and_then(|owner| owner.namespace);
                ObjectRef { kind: Kind::Pod, namespace, name: stamp.name.clone() }
            }
            _ => return,
        };
        self.0.insert(ObjectId(event.revision), created);
    }

    fn of(&self, state: &State, kind: Kind, id: ObjectId) -> Option<ObjectRef> {
        self.0.get(&id).cloned().or_else(|| state.object(kind, id).map(|object| object.object_ref()))
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

fn entry_of(state: &State, names: &Names, transaction: &Transaction, event: &Event) -> v1::HistoryEntry {
    let (name, object, summary) = describe(state, names, event);
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
fn describe(state: &State, names: &Names, event: &Event) -> (&'static str, Option<ObjectRef>, String) {
    let of = |kind: Kind, id: ObjectId| names.of(state, kind, id);
    match &event.kind {
        EventKind::ClusterInitialized { .. }
        | EventKind::FeatureLevelRaised { .. }
        | EventKind::MemberRegistered { .. }
        | EventKind::LearnerAdded { .. }
        | EventKind::MemberPromoted { .. }
        | EventKind::MemberRemoved { .. } => describe_cluster(&event.kind),
        EventKind::ObjectCreated(object) => ("Created", Some(object.object_ref()), String::new()),
        EventKind::ManagersChanged { kind, id, .. } => {
            ("ManagersChanged", of(*kind, *id), "other fields are managed, or by others".to_owned())
        }
        EventKind::MetaChanged { kind, id, .. } => {
            ("MetaChanged", of(*kind, *id), "labels or annotations".to_owned())
        }
        EventKind::DeletionRequested { kind, id, deletion, reason } => {
            ("DeletionRequested", of(*kind, *id), summary::of_deletion(reason, deletion, of))
        }
        EventKind::ObjectDeleted { kind, id } => ("Deleted", of(*kind, *id), format!("{kind} {id}")),
        EventKind::DeploymentSpecChanged { id, spec } => {
            ("SpecChanged", of(Kind::Deployment, *id), format!("{} replicas", spec.replicas))
        }
        EventKind::DeploymentStatusChanged { id, status } => {
            ("StatusChanged", of(Kind::Deployment, *id), summary::of_rollout(status))
        }
        EventKind::DeliveryChanged { id, delivery } => {
            ("DeliveryChanged", of(Kind::Deployment, *id), summary::of_delivery(delivery.get()))
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
        EventKind::PodCreated { .. }
        | EventKind::PodBound(_)
        | EventKind::PodStatusChanged { .. }
        | EventKind::PodResized { .. }
        | EventKind::OwnedPodCreated { .. } => describe_pod(state, names, event),
        EventKind::NodeSpecChanged { .. }
        | EventKind::NodeRegistered { .. }
        | EventKind::NodePhaseChanged { .. }
        | EventKind::DevicesReported { .. }
        | EventKind::ImagesReported { .. }
        | EventKind::DeviceLabelsSynced { .. }
        | EventKind::DeviceCordoned { .. }
        | EventKind::NodePoolSynced { .. }
        | EventKind::DeviceFaulted { .. } => describe_node(state, names, &event.kind),
        EventKind::SpecChanged(object) => {
            let changed = Some(object.object_ref());
            ("SpecChanged", changed, format!("generation {}", object.meta().generation + 1))
        }
        EventKind::StatusChanged { id, status } => {
            ("StatusChanged", of(status.kind(), *id), summary::of_status(state, *id, status))
        }
        EventKind::ControllerRevisionChanged { id, revision } => {
            ("RevisionChanged", of(Kind::ControllerRevision, *id), format!("revision {revision}"))
        }
        EventKind::JobPodEnded { job, end, index, message } => {
            let index = index.map_or_else(String::new, |index| format!(" of index {index}"));
            let because = if message.is_empty() { "" } else { ": " };
            ("PodEnded", of(Kind::Job, *job), format!("{end:?}{index}{because}{message}"))
        }
    }
}

/// What happened to the cluster itself.
fn describe_cluster(event: &EventKind) -> (&'static str, Option<ObjectRef>, String) {
    match event {
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
        other => unreachable!("{other:?} is told by describe"),
    }
}

/// What happened to a node and its devices.
fn describe_node(
    state: &State,
    names: &Names,
    event: &EventKind,
) -> (&'static str, Option<ObjectRef>, String) {
    let of = |kind: Kind, id: ObjectId| names.of(state, kind, id);
    match event {
        EventKind::NodeSpecChanged { id, spec } => {
            let summary = if spec.unschedulable { "cordoned" } else { "schedulable" };
            let mode = spec.gpu.get().map_or_else(String::new, |gpu| format!(", GPU mode {}", gpu.mode));
            ("SpecChanged", of(Kind::Node, *id), format!("{summary}{mode}"))
        }
        EventKind::NodePoolSynced { id, record, .. } => {
            let summary = record.get().map_or_else(
                || "nothing from a pool".to_owned(),
                |one| {
                    let (labels, taints) = (one.labels.len(), one.taints.len());
                    format!("{labels} labels and {taints} taints from pool {}", one.pool)
                },
            );
            ("PoolSynced", of(Kind::Node, *id), summary)
        }
        EventKind::NodeRegistered { id, incarnation, facts } => {
            let warnings = facts.warnings.iter().map(|warning| format!("; {warning}"));
            let summary = std::iter::once(format!("incarnation {incarnation}")).chain(warnings);
            ("Registered", of(Kind::Node, *id), summary.collect())
        }
        EventKind::NodePhaseChanged { id, phase } => {
            ("PhaseChanged", of(Kind::Node, *id), format!("{phase:?}"))
        }
        EventKind::DeviceLabelsSynced { id, record, .. } => {
            let count = record.get().map_or(0, |record| record.labels.len());
            ("DeviceLabelsSynced", of(Kind::Node, *id), format!("{count} labels by its devices"))
        }
        EventKind::ImagesReported { id, images } => {
            ("ImagesReported", of(Kind::Node, *id), format!("{} images", images.images.len()))
        }
        EventKind::DevicesReported { id, report, .. } => {
            let (changed, gone) = (report.devices.len(), report.removed.len());
            (
                "DevicesReported",
                of(Kind::ResourceSlice, *id),
                format!("{changed} new or changed, {gone} gone"),
            )
        }
        EventKind::DeviceCordoned { id, device, cordoned } => {
            let word = if *cordoned { "cordoned" } else { "uncordoned" };
            ("DeviceCordoned", of(Kind::ResourceSlice, *id), format!("{device} {word}"))
        }
        EventKind::DeviceFaulted { id, handled } => {
            let (fault, action) = (&handled.fault, handled.action.as_str());
            let of = of(Kind::ResourceSlice, *id);
            ("DeviceFaulted", of, format!("{} fault {}: {action}", fault.device, fault.code))
        }
        other => unreachable!("{other:?} is told by describe"),
    }
}

/// What happened to a pod but for its deletion.
fn describe_pod(state: &State, names: &Names, event: &Event) -> (&'static str, Option<ObjectRef>, String) {
    let of = |kind: Kind, id: ObjectId| names.of(state, kind, id);
    let node_name =
        |id: ObjectId| of(Kind::Node, id).map_or_else(|| id.to_string(), |node| node.name.to_string());
    match &event.kind {
        EventKind::PodCreated { replica_set, name } => {
            let pod = of(Kind::Pod, ObjectId(event.revision));
            let set = of(Kind::ReplicaSet, *replica_set).map_or_else(String::new, |set| format!("of {set}"));
            debug_assert!(pod.as_ref().is_none_or(|pod| pod.name == *name));
            ("Created", pod, set)
        }
        EventKind::PodBound(binding) => {
            let summary =
                format!("to {}, {} nodes considered", node_name(binding.node), binding.nodes_considered);
            let devices: Vec<&str> = binding.devices.iter().map(|given| given.device.as_str()).collect();
            let summary = match devices.is_empty() {
                true => summary,
                false => format!("{summary}, devices {}", devices.join(", ")),
            };
            ("Bound", of(Kind::Pod, binding.pod), summary)
        }
        EventKind::PodStatusChanged { id, status } => {
            let summary = format!("{:?} {} {}", status.phase, status.reason, status.message);
            ("StatusChanged", of(Kind::Pod, *id), summary.trim_end().to_owned())
        }
        EventKind::PodResized { id, resize, .. } => {
            let summary = resize.get().map_or_else(
                || "done".to_owned(),
                |resize| format!("{:?} {}", resize.stage, resize.message).trim_end().to_owned(),
            );
            ("Resized", of(Kind::Pod, *id), summary)
        }
        EventKind::OwnedPodCreated { owner, .. } => {
            let by = of(owner.kind, owner.id).map_or_else(String::new, |owner| format!("of {owner}"));
            ("Created", of(Kind::Pod, ObjectId(event.revision)), by)
        }
        other => unreachable!("{other:?} is told by describe"),
    }
}
