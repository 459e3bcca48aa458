//! Events, transactions and records of snapshots.

use super::*;

fn cluster_event() -> impl Strategy<Value = EventKind> + Clone {
    prop_oneof![
        (uuid(), members())
            .prop_map(|(cluster_id, members)| EventKind::ClusterInitialized { cluster_id, members }),
        any::<u32>().prop_map(|level| EventKind::FeatureLevelRaised { level }),
        (member_id(), uuid(), small(), small(), any::<u32>()).prop_map(
            |(member, storage_uid, address, version, feature_level_max)| EventKind::MemberRegistered {
                member,
                storage_uid,
                address,
                version,
                feature_level_max
            }
        ),
        (member_id(), small()).prop_map(|(member, address)| EventKind::LearnerAdded { member, address }),
        member_id().prop_map(|member| EventKind::MemberPromoted { member }),
        member_id().prop_map(|member| EventKind::MemberRemoved { member }),
    ]
}

fn object_event() -> impl Strategy<Value = EventKind> + Clone {
    let id = object_id;
    prop_oneof![
        object().prop_map(EventKind::ObjectCreated),
        (kind(), id(), labels(), labels()).prop_map(|(kind, id, labels, annotations)| {
            EventKind::MetaChanged { kind, id, labels, annotations }
        }),
        (kind(), id(), deletion(), small()).prop_map(|(kind, id, deletion, reason)| {
            EventKind::DeletionRequested { kind, id, deletion, reason }
        }),
        (kind(), id()).prop_map(|(kind, id)| EventKind::ObjectDeleted { kind, id }),
        (id(), name()).prop_map(|(replica_set, name)| EventKind::PodCreated { replica_set, name }),
        binding().prop_map(EventKind::PodBound),
        (id(), pod_status()).prop_map(|(id, status)| EventKind::PodStatusChanged { id, status }),
        (id(), vec(container_size(), 0..3), rare(pod_resize()))
            .prop_map(|(id, sizes, resize)| EventKind::PodResized { id, sizes, resize }),
        (id(), node_spec()).prop_map(|(id, spec)| EventKind::NodeSpecChanged { id, spec }),
        (id(), any::<u64>(), node_facts()).prop_map(|(id, incarnation, facts)| EventKind::NodeRegistered {
            id,
            incarnation,
            facts
        }),
        (id(), node_phase()).prop_map(|(id, phase)| EventKind::NodePhaseChanged { id, phase }),
    ]
}

fn workload_event() -> impl Strategy<Value = EventKind> + Clone {
    let id = object_id;
    prop_oneof![
        (id(), deployment_spec()).prop_map(|(id, spec)| EventKind::DeploymentSpecChanged { id, spec }),
        (id(), deployment_status())
            .prop_map(|(id, status)| EventKind::DeploymentStatusChanged { id, status }),
        (id(), of(delivery_status()))
            .prop_map(|(id, delivery)| EventKind::DeliveryChanged { id, delivery: delivery.into() }),
        (id(), replica_set_spec()).prop_map(|(id, spec)| EventKind::ReplicaSetSpecChanged { id, spec }),
        (id(), any::<u32>()).prop_map(|(id, replicas)| EventKind::ReplicaSetScaled { id, replicas }),
        (id(), any::<u64>())
            .prop_map(|(id, rollout_revision)| EventKind::RolloutRevisionChanged { id, rollout_revision }),
        (id(), replica_set_status())
            .prop_map(|(id, status)| EventKind::ReplicaSetStatusChanged { id, status }),
    ]
}

/// Any event's content.
pub fn event_kind() -> impl Strategy<Value = EventKind> + Clone {
    prop_oneof![
        cluster_event(),
        object_event(),
        workload_event(),
        workloads::owned_event(),
        devices::device_event(),
        node_pools::node_pool_event()
    ]
}

record!(/// Any event.
    event: Event { revision: any::<u64>(), kind: event_kind() });
record!(/// Any transaction.
transaction: Transaction {
    request_id: uuid(), actor: small(), at_ms: any::<u64>(), trace_context: of(small()),
    outcome: outcome(), events: vec(event(), 0..4),
});

record!(/// Any member's record.
member_record: MemberRecord {
    member: member_id(), address: small(),
    role: select(vec![MemberRole::Voter, MemberRole::Learner, MemberRole::Removed]),
    storage_uid: uuid(), version: small(), feature_level_max: any::<u32>(),
});

/// Any snapshot record.
pub fn snapshot_record() -> impl Strategy<Value = SnapshotRecord> + Clone {
    prop_oneof![
        (of(uuid()), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
            |(cluster_id, revision, now_ms, feature_level)| SnapshotRecord::Header {
                cluster_id,
                revision,
                now_ms,
                feature_level
            }
        ),
        member_record().prop_map(SnapshotRecord::Member),
        object().prop_map(SnapshotRecord::Object),
        (uuid(), any::<u64>(), outcome()).prop_map(|(request_id, at_ms, outcome)| {
            SnapshotRecord::Request { request_id, at_ms, outcome }
        }),
        (any::<u32>(), any::<u128>(), any::<u64>()).prop_map(|(digest_version, digest, records)| {
            SnapshotRecord::Trailer { digest_version, digest, records }
        }),
    ]
}
