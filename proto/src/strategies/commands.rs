//! Commands, submissions and what else is in the log.

use super::*;

record!(/// Any binding.
binding: Binding {
    pod: object_id(), node: object_id(), nodes_considered: any::<u32>(), score: any::<i64>(),
    devices: vec(allocated_device(), 0..3), networks: vec(network_attachment(), 0..3),
    cpus: rare(pod_cpus()),
});
record!(/// Any report about a pod.
pod_report: PodReport {
    pod: object_id(), sequence: any::<u64>(), status: pod_status(), gone: any::<bool>(),
});
record!(/// Any precondition.
    precondition: Precondition { object: object_ref(), revision: of(any::<u64>()) });

/// Any command that a user may send.
pub fn user_command() -> impl Strategy<Value = Command> + Clone {
    prop_oneof![
        object().prop_map(Command::Create),
        object().prop_map(Command::Apply),
        (object_ref(), of(any::<u64>()), any::<bool>())
            .prop_map(|(object, grace_ms, force)| Command::Delete { object, grace_ms, force }),
        (object_ref(), any::<u32>()).prop_map(|(object, replicas)| Command::Scale { object, replicas }),
        (object_ref(), any::<bool>())
            .prop_map(|(deployment, paused)| Command::SetPaused { deployment, paused }),
        (object_ref(), of(any::<u64>()))
            .prop_map(|(deployment, to_revision)| Command::UndoRollout { deployment, to_revision }),
        (object_ref(), small())
            .prop_map(|(deployment, restarted_at)| Command::RestartRollout { deployment, restarted_at }),
        (name(), any::<bool>())
            .prop_map(|(node, unschedulable)| Command::SetUnschedulable { node, unschedulable }),
    ]
}

fn reconciler_command() -> impl Strategy<Value = Command> + Clone {
    let id = object_id;
    prop_oneof![
        (id(), any::<u64>(), name(), small(), any::<u64>()).prop_map(
            |(deployment, generation, name, template_hash, rollout_revision)| {
                Command::CreateReplicaSet { deployment, generation, name, template_hash, rollout_revision }
            }
        ),
        (id(), any::<u64>()).prop_map(|(replica_set, rollout_revision)| Command::SetRolloutRevision {
            replica_set,
            rollout_revision
        }),
        (id(), any::<u32>(), any::<u32>()).prop_map(|(replica_set, from, to)| Command::ScaleReplicaSet {
            replica_set,
            from,
            to
        }),
        (id(), vec(name(), 0..4)).prop_map(|(replica_set, names)| Command::CreatePods { replica_set, names }),
        (vec(id(), 0..4), of(id()), small()).prop_map(|(pods, surplus_of, reason)| Command::DeletePods {
            pods,
            surplus_of,
            reason
        }),
        (id(), deployment_status())
            .prop_map(|(deployment, status)| Command::SetDeploymentStatus { deployment, status }),
        (id(), replica_set_status())
            .prop_map(|(replica_set, status)| Command::SetReplicaSetStatus { replica_set, status }),
        vec(binding(), 0..4).prop_map(|bindings| Command::BindPods { bindings }),
        vec((id(), text()), 0..4).prop_map(|pods| Command::SetPodsUnschedulable { pods }),
        (id(), id(), vec(id(), 0..4)).prop_map(|(pod, node, victims)| Command::Preempt {
            pod,
            node,
            victims
        }),
        vec(binding(), 0..4).prop_map(|bindings| Command::BindPodGroup { bindings }),
        (vec((id(), id()), 0..4), vec(id(), 0..4)).prop_map(|(seats, victims)| {
            let nominations = seats.into_iter().map(|(pod, node)| Nomination { pod, node }).collect();
            Command::PreemptForGroup { nominations, victims }
        }),
        vec(id(), 0..4).prop_map(|pods| Command::ClearNominations { pods }),
        vec(id(), 0..4).prop_map(|pods| Command::AdmitResizes { pods }),
        (object_ref(), vec(container_size(), 0..3))
            .prop_map(|(pod, containers)| Command::ResizePod { pod, containers }),
        (id(), any::<u64>(), node_phase()).prop_map(|(node, incarnation, phase)| Command::SetNodePhase {
            node,
            incarnation,
            phase
        }),
    ]
}

fn other_command() -> impl Strategy<Value = Command> + Clone {
    prop_oneof![
        vec((kind(), object_id()), 0..4).prop_map(|objects| Command::CollectGarbage { objects }),
        (name(), node_facts()).prop_map(|(name, facts)| Command::RegisterNode { name, facts }),
        (object_id(), any::<u64>(), vec(pod_report(), 0..3))
            .prop_map(|(node, incarnation, reports)| { Command::ReportPods { node, incarnation, reports } }),
        (object_id(), any::<u64>(), vec(object_id(), 0..3)).prop_map(|(node, incarnation, deleted)| {
            Command::ReportVolumes { node, incarnation, deleted }
        }),
        (object_id(), any::<u64>(), vec(volume_result(), 0..3)).prop_map(|(node, incarnation, results)| {
            Command::ReportVolumeTasks { node, incarnation, results }
        }),
        (uuid(), members()).prop_map(|(cluster_id, members)| Command::InitCluster { cluster_id, members }),
        any::<u32>().prop_map(|level| Command::RaiseFeatureLevel { level }),
        (member_id(), uuid(), small(), small(), any::<u32>()).prop_map(
            |(member, storage_uid, address, version, feature_level_max)| Command::RegisterMember {
                member,
                storage_uid,
                address,
                version,
                feature_level_max
            }
        ),
    ]
}

/// Any list of first voters.
pub fn members() -> impl Strategy<Value = Vec<(MemberId, SmolStr)>> + Clone {
    vec((member_id(), small()), 0..4)
}

/// Any command.
pub fn command() -> impl Strategy<Value = Command> + Clone {
    prop_oneof![
        user_command(),
        reconciler_command(),
        other_command(),
        workloads::owned_command(),
        devices::device_command(),
        sriov::sriov_command(),
        node_pools::node_pool_command(),
        descheduler::descheduler_command()
    ]
}

record!(/// Any submission.
stamped: Stamped {
    request_id: uuid(), actor: small(), proposed_at_ms: any::<u64>(), trace_context: of(small()),
    preconditions: vec(precondition(), 0..3), commands: vec(command(), 0..4),
});

/// Any membership action.
pub fn membership_action() -> impl Strategy<Value = MembershipAction> + Clone {
    prop_oneof![
        (member_id(), small()).prop_map(|(member, address)| MembershipAction::AddLearner { member, address }),
        member_id().prop_map(|member| MembershipAction::Promote { member }),
        member_id().prop_map(|member| MembershipAction::Remove { member }),
    ]
}

record!(/// Any membership change.
membership_change: MembershipChange {
    request_id: uuid(), actor: small(), proposed_at_ms: any::<u64>(), action: membership_action(),
    force_unsafe: any::<bool>(),
});

/// Any log record.
pub fn log_record() -> impl Strategy<Value = LogRecord> + Clone {
    prop_oneof![
        vec(stamped(), 0..3).prop_map(LogRecord::Batch),
        membership_change().prop_map(LogRecord::Membership),
    ]
}
