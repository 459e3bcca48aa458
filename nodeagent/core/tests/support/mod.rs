//! Builders of inputs, shared by the tests.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part")]

use bulkhead_nodeagent_core::{Action, Agent, AgentConfig, Input, RecoveredVm, VmRecord};
use bulkhead_types::{
    AgentAck, Container, ContainerState, ContainerStatus, ContainerTermination, Deletion, Intent, Joined,
    Name, ObjectId, PodIntent, PodPhase, PodSpec, Rare, ResourceRequirements, Resources, RestartPolicy,
    Shared,
};
use smol_str::SmolStr;
use uuid::Uuid;

pub(crate) const NODE: ObjectId = ObjectId(1);
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn config() -> AgentConfig {
    let allocatable = Resources {
        cpu_millis: 4000,
        memory_bytes: 1024 * MIB,
        ephemeral_storage_bytes: 1 << 40,
        huge_pages: bulkhead_types::HugePages { two_mib_bytes: 64 * MIB, one_gib_bytes: 0 },
        ..Resources::ZERO
    };
    AgentConfig::new("node-1", allocatable, 10)
}

pub(crate) fn spec(memory_mib: u64, restart_policy: RestartPolicy) -> PodSpec {
    let requests = ResourceRequirements {
        cpu_millis: Some(100),
        memory_bytes: Some(memory_mib * MIB),
        ephemeral_storage_bytes: None,
    };
    let container = Container {
        name: SmolStr::new("main"),
        image: SmolStr::new("app:1"),
        requests,
        ..Container::default()
    };
    PodSpec {
        restart_policy,
        termination_grace_ms: 30_000,
        containers: vec![container],
        ..PodSpec::default()
    }
}

pub(crate) fn pod(id: u64) -> PodIntent {
    PodIntent {
        id: ObjectId(id),
        uid: Uuid::from_u128(u128::from(id)),
        namespace: Name::new("default").unwrap(),
        name: Name::new(format!("pod-{id}")).unwrap(),
        spec: Shared::new(spec(128, RestartPolicy::Always)),
        deletion: None,
        ended: false,
        unique: false,
        trace_context: None,
        resolved: Rare::NONE,
        pull_credentials: Rare::NONE,
        claims: vec![],
        devices: vec![],
        networks: vec![],
        cpus: None,
        batch: false,
        resizing: false,
        bandwidth: None,
    }
}

pub(crate) fn with_policy(id: u64, policy: RestartPolicy) -> PodIntent {
    PodIntent { spec: Shared::new(spec(128, policy)), ..pod(id) }
}

pub(crate) fn deleting(pod: PodIntent, grace_ms: u64) -> PodIntent {
    PodIntent {
        deletion: Some(Deletion { requested_at_ms: 1, grace_ms, by_job: false, preemptor: None }),
        ..pod
    }
}

pub(crate) fn unique(pod: PodIntent) -> PodIntent {
    PodIntent { unique: true, ..pod }
}

pub(crate) fn ended(pod: PodIntent) -> PodIntent {
    PodIntent { ended: true, ..pod }
}

/// Gives an agent these inputs at one time; everything that it orders.
pub(crate) fn feed(agent: &mut Agent, now_ms: u64, inputs: impl IntoIterator<Item = Input>) -> Vec<Action> {
    let mut actions = Vec::new();
    for input in inputs {
        agent.handle(now_ms, input);
        actions.extend(std::iter::from_fn(|| agent.poll_action()));
    }
    actions
}

/// The last record that is to be written, as the next agent reads it.
pub(crate) fn last_record(actions: Vec<Action>) -> VmRecord {
    let record = |action| if let Action::PersistRecord(record) = action { Some(record) } else { None };
    let last = actions.into_iter().filter_map(record).next_back().unwrap();
    serde_json::from_str(&serde_json::to_string(&last).unwrap()).unwrap()
}

/// A guest that the last agent left.
pub(crate) fn left(record: VmRecord, running: bool) -> RecoveredVm {
    RecoveredVm { record, running, started_at_ms: 0, last_console: String::new(), out_of_memory: None }
}

pub(crate) fn recovered() -> Input {
    Input::Recovered { vms: vec![], lease_until_ms: None }
}

pub(crate) fn joined(incarnation: u64) -> Input {
    Input::Joined(Joined { node: NODE, incarnation, lease_ms: 10_000, heartbeat_ms: 3_000 })
}

pub(crate) fn ack(sent_at_ms: u64) -> Input {
    Input::Ack(AgentAck { sent_at_ms, lease_ms: 10_000, devices_unknown: false })
}

pub(crate) fn intent(incarnation: u64, generation: u64, pods: Vec<PodIntent>) -> Input {
    Input::Intent(Intent {
        node: NODE,
        incarnation,
        generation,
        pods,
        deleted_volumes: vec![],
        gpu: None,
        cpu_pools: None,
        nics: vec![],
        volume_orders: vec![],
    })
}

pub(crate) fn image(id: u64) -> Input {
    let digest = SmolStr::new("sha256:aa");
    Input::ImageReady { pod: ObjectId(id), container: SmolStr::new("main"), digest }
}

pub(crate) fn started(id: u64, instance: u32) -> Input {
    Input::VmStarted { pod: ObjectId(id), instance, started_at_ms: 1_000_000 }
}

pub(crate) fn hello(id: u64, instance: u32) -> Input {
    Input::GuestHello { pod: ObjectId(id), instance }
}

pub(crate) fn container(id: u64, instance: u32, state: ContainerState) -> Input {
    let ready = matches!(state, ContainerState::Running { .. });
    let status = ContainerStatus {
        name: SmolStr::new("main"),
        state,
        last_termination: None,
        restart_count: 0,
        ready,
        image_digest: SmolStr::default(),
    };
    Input::GuestContainer { pod: ObjectId(id), instance, status, unready_because: String::new() }
}

pub(crate) fn runs(id: u64, instance: u32) -> Input {
    container(id, instance, ContainerState::Running { started_at_ms: 1_000_500 })
}

pub(crate) fn ends(id: u64, instance: u32, exit_code: i32) -> Input {
    let end = ContainerTermination {
        exit_code,
        signal: 0,
        reason: SmolStr::new(if exit_code == 0 { "Completed" } else { "Error" }),
        message: String::new(),
        started_at_ms: 1_000_500,
        finished_at_ms: 1_000_600,
    };
    container(id, instance, ContainerState::Terminated(Box::new(end)))
}

pub(crate) fn guest_pod(id: u64, instance: u32, phase: PodPhase) -> Input {
    let (reason, message) = (SmolStr::default(), String::new());
    Input::GuestPod { pod: ObjectId(id), instance, phase, reason, message }
}

pub(crate) fn exited(id: u64, instance: u32) -> Input {
    Input::VmExited {
        pod: ObjectId(id),
        instance,
        status: "exit status 0".to_owned(),
        at_ms: 2_000_000,
        last_console: "boot\nKernel panic\n".to_owned(),
    }
}

pub(crate) fn gone(id: u64) -> Input {
    Input::VmGone { pod: ObjectId(id) }
}
