//! Scripts: inputs with their times, and every action that must follow.
#![allow(clippy::unwrap_used, reason = "tests")]

mod backlog;
mod confine;
mod devices;
mod files;
mod leases;
mod life;
mod network;
mod resize;
mod silence;
#[path = "../support/mod.rs"]
mod support;
mod vm_pool;
mod volumes;

use std::fmt::Write as _;

use bulkhead_nodeagent_core::{Action, Agent, AgentConfig, Input, RecoveredVm, VmRecord};
use bulkhead_types::{ContainerState, ObjectId, PodPhase, PodStatus, RestartPolicy};
use expect_test::{Expect, expect};
use smol_str::SmolStr;
use support::*;

/// One step of a script.
#[allow(clippy::large_enum_variant, reason = "scripts are short")]
enum Step {
    /// An observation.
    In(Input),
    /// Time passes to here, through every deadline on the way.
    Tick,
    /// From here on reports are acknowledged, or not.
    Acks(bool),
}
use Step::{Acks, In, Tick};

fn check(steps: Vec<(u64, Step)>, expected: Expect) {
    check_with(config(), steps, expected);
}

fn check_with(config: AgentConfig, steps: Vec<(u64, Step)>, expected: Expect) {
    let mut agent = Agent::new(config);
    let mut text = String::new();
    let mut acks = true;
    for (now_ms, step) in steps {
        match step {
            In(input) => {
                agent.handle(now_ms, input);
                drain(&mut agent, now_ms, acks, &mut text);
            }
            Acks(on) => acks = on,
            Tick => {
                while let Some(at) = agent.next_deadline_ms().filter(|&at| at <= now_ms) {
                    agent.tick(at);
                    drain(&mut agent, at, acks, &mut text);
                    assert!(agent.next_deadline_ms().is_none_or(|next| next > at), "a deadline stays due");
                }
            }
        }
    }
    expected.assert_eq(&text);
}

fn show_result(result: &bulkhead_types::VolumeResult) -> String {
    let (id, task, size) = (result.id, result.task.as_str(), result.size_bytes);
    let how = if result.done { "done" } else { "not done" };
    format!(" {id} {task} {how} {size} {}", result.message).trim_end().to_owned()
}

fn drain(agent: &mut Agent, now_ms: u64, acks: bool, text: &mut String) {
    while let Some(action) = agent.poll_action() {
        if let (Action::Report(report), true) = (&action, acks) {
            agent.handle(now_ms, ack(report.sent_at_ms));
        }
        let line = match action {
            Action::Join => "join".to_owned(),
            Action::Prepare { pod } => format!("prepare {}", pod.id),
            Action::PersistRecord(record) => {
                let ended = record.ended.map_or(String::new(), |s| format!(" ended {:?}", s.phase));
                format!("persist {} instance {}{ended}", record.pod, record.instance)
            }
            Action::ForgetRecord { pod } => format!("forget {pod}"),
            Action::StartVm(start) => {
                let guard = start.lease_until_ms.map_or(String::new(), |ms| format!(" guarded until {ms}"));
                let address = start.address.map_or(String::new(), |address| format!(" at {address}"));
                format!("start {} instance {}{guard}{address}", start.pod.id, start.instance)
            }
            Action::UpdateFiles { pod, instance, volumes } => {
                let files = volumes.iter().flat_map(|v| &v.files).map(|f| format!(" {}", f.path));
                format!("files {pod}/{instance}{}", files.collect::<String>())
            }
            Action::ResizeVm(order) => resize::shown(&order),
            Action::SetCpus { pod, instance, runs_on } => format!("cpus {pod}/{instance} {runs_on}"),
            Action::StopVm { pod, instance, grace_ms } => format!("stop {pod}/{instance} grace {grace_ms}"),
            Action::KillVm { pod, instance } => format!("kill {pod}/{instance}"),
            Action::CleanUp { pod, keep_logs } => format!("clean {pod} keep_logs {keep_logs}"),
            Action::PersistLease { until_ms } => format!("lease {until_ms}"),
            // Every first intent says so, most often that there are none.
            Action::SetNics(nics) if nics.is_empty() => continue,
            Action::SetNics(nics) => {
                let nics = nics.iter().map(|nic| format!(" {}={}", nic.pci_address, nic.num_vfs));
                format!("nics{}", nics.collect::<String>())
            }
            Action::SetGpuMode(gpu) => format!("gpu mode {}", gpu.mode),
            Action::DeleteVolume { claim, volume } => {
                format!("delete volume {} of {claim}", volume.as_u128())
            }
            Action::VolumeTask { order, guest } => {
                let volumes = [order.source, order.volume].map(|volume| volume.as_u128());
                let guest =
                    guest.map_or(String::new(), |(pod, instance)| format!(" in guest {pod}/{instance}"));
                let (task, id) = (order.task.as_str(), order.id);
                format!("{task} {volumes:?} to {} for {id}{guest}", order.size_bytes)
            }
            Action::Note(note) => format!("note: {note}"),
            // Empty heartbeats would hide the rest.
            Action::Report(report)
                if report.pods.is_empty()
                    && report.deleted_volumes.is_empty()
                    && report.volume_results.is_empty()
                    && report.devices.get().is_none() =>
            {
                continue;
            }
            Action::Report(report) => {
                let pods = report.pods.iter().map(|pod| {
                    let gone = if pod.gone { " gone" } else { "" };
                    format!(" [{} {:x}{} {}]", pod.pod, pod.sequence, gone, show(&pod.status))
                });
                let deleted = report.deleted_volumes.iter().map(|claim| format!(" {claim} deleted"));
                let devices = report.devices.get().map_or_else(String::new, |report| {
                    let there: Vec<&str> = report.devices.iter().map(|one| one.id.as_str()).collect();
                    let kind = if report.snapshot { "all" } else { "new" };
                    format!(" devices {kind} {:?} gone {:?}", there, report.removed)
                });
                let volumes =
                    deleted.chain(report.volume_results.iter().map(show_result)).collect::<String>();
                format!("report{}{volumes}{devices}", pods.collect::<String>())
            }
        };
        writeln!(text, "{now_ms} {line}").unwrap();
    }
}

fn show(status: &PodStatus) -> String {
    let mut text = format!("{:?}", status.phase);
    for (word, shown) in [("ready", status.ready), (status.reason.as_str(), !status.reason.is_empty())] {
        if shown {
            write!(text, " {word}").unwrap();
        }
    }
    if status.sandbox_restarts > 0 {
        write!(text, " restarts {}", status.sandbox_restarts).unwrap();
    }
    if let Some(told) = status.addresses.get() {
        write!(text, " {:?}", told.pod_ips).unwrap();
    }
    let state = match &status.containers[0].state {
        ContainerState::Waiting { reason, .. } => format!("waiting:{reason}"),
        ContainerState::Running { .. } => "running".to_owned(),
        ContainerState::Terminated(end) => format!("exit:{}:{}", end.exit_code, end.reason),
    };
    format!("{text} {state} x{}", status.containers[0].restart_count)
}

/// Joined as incarnation 1, with these pods intended at time 10.
fn begin(pods: Vec<bulkhead_types::PodIntent>) -> Vec<(u64, Step)> {
    vec![(0, In(recovered())), (5, In(joined(1))), (10, In(intent(1, 100, pods)))]
}

/// Pod 7, instance 1, is up and running at time 60; its reports are acknowledged.
fn running(pod: bulkhead_types::PodIntent) -> Vec<(u64, Step)> {
    let mut steps = begin(vec![pod]);
    steps.extend([
        (20, In(image(7))),
        (30, In(started(7, 1))),
        (50, In(hello(7, 1))),
        (60, In(runs(7, 1))),
        (300, Tick),
    ]);
    steps
}

fn then(mut steps: Vec<(u64, Step)>, more: Vec<(u64, Step)>) -> Vec<(u64, Step)> {
    steps.extend(more);
    steps
}
