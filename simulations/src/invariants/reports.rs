//! What an agent was told is known is in the log: an acknowledged report was applied.
//!
//! An agent does not say again what was acknowledged. If the acknowledgement was for nothing, a pod stays for ever
//! as it was.

use bulkhead_controlplane_core::State;
use bulkhead_types::{ObjectId, Pod, PodReport};

use super::{Verdict, Violation};

/// Whether a report that is sent now must end its pod: it says that the pod is gone, the log has asked for its end,
/// and has not decided on this report before.
///
/// A report is sent again until it is acknowledged. Its first copy may have been applied when nobody had asked for
/// the pod's end yet; the later ones then change nothing, and need not: an agent that learns of the request says
/// anew that the pod is gone, with a higher number.
#[must_use]
pub fn must_end(state: &State, report: &PodReport) -> bool {
    let is_open = |pod: &Pod| pod.meta.is_deleting() && report.sequence > pod.status.report_sequence;
    report.gone && state.pods().get(report.pod).is_some_and(|pod| is_open(pod))
}

/// Checks a report that has just been acknowledged against the log's State. `had_to_end` is what [`must_end`] said
/// when it was sent.
///
/// # Errors
/// When the State knows less of a pod than the report says.
pub fn check(state: &State, node: ObjectId, report: &PodReport, had_to_end: bool) -> Verdict {
    let Some(pod) = state.pods().get(report.pod).filter(|pod| pod.node == Some(node)) else { return Ok(()) };
    let violation = |text: String| {
        Err(Violation::new(
            "reports",
            format!("of pod {} at node {node} was acknowledged: {text}", report.pod),
        ))
    };
    if had_to_end {
        return violation("that it is gone, but it is still there".to_owned());
    }
    let status = &pod.status;
    // Later reports have higher numbers; a report that changes nothing leaves no trace, and needs none.
    let is_known = status.report_sequence >= report.sequence
        || status.phase.is_terminal()
        || (status.phase, status.ready) == (report.status.phase, report.status.ready);
    if is_known {
        return Ok(());
    }
    violation(format!(
        "report {} with {:?}, ready {}; known is report {} with {:?}, ready {}",
        report.sequence,
        report.status.phase,
        report.status.ready,
        status.report_sequence,
        status.phase,
        status.ready
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_controlplane_core::Machine;
    use bulkhead_types::{
        Binding, Command, Container, Name, NodeFacts, Object, ObjectMeta, PodPhase, PodSpec, PodStatus,
        Resources, Shared, Stamped,
    };
    use std::sync::Arc;
    use uuid::Uuid;

    fn apply(machine: &mut Machine, command: Command) {
        machine.apply_stamped(&Stamped {
            request_id: Uuid::nil(),
            actor: "system:test".into(),
            proposed_at_ms: 5,
            trace_context: None,
            preconditions: Vec::new(),
            commands: vec![command],
        });
    }

    /// A node with a pod.
    fn bound() -> (Machine, ObjectId, ObjectId) {
        let name = |text: &str| Name::new(text).expect("a name");
        let room = Resources {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            ephemeral_storage_bytes: 0,
            ..Resources::ZERO
        };
        let facts = NodeFacts { capacity: room, allocatable: room, pods_max: 9, ..NodeFacts::default() };
        let container = Container { name: "c".into(), image: "i:1".into(), ..Container::default() };
        let spec = Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() });
        let meta = ObjectMeta::new(Some(name("default")), name("p"));
        let pod = Pod { meta, spec, node: None, status: PodStatus::default() };
        let mut machine = Machine::default();
        apply(&mut machine, Command::InitCluster { cluster_id: Uuid::from_u128(1), members: Vec::new() });
        apply(&mut machine, Command::RegisterNode { name: name("n"), facts });
        apply(&mut machine, Command::Create(Object::Pod(Arc::new(pod))));
        let node = machine.state().nodes().iter().next().expect("the node is there").meta.id;
        let pod = machine.state().pods().iter().next().expect("the pod is there").meta.id;
        let binding = Binding {
            pod,
            node,
            nodes_considered: 1,
            score: 0,
            devices: vec![],
            networks: vec![],
            cpus: Default::default(),
        };
        apply(&mut machine, Command::BindPods { bindings: vec![binding] });
        (machine, node, pod)
    }

    #[test]
    fn a_report_that_was_lost_is_noticed() {
        let (mut machine, node, pod) = bound();
        let status = PodStatus { phase: PodPhase::Running, ready: true, ..PodStatus::default() };
        let report = PodReport { pod, sequence: 7, status, gone: false };
        assert!(check(machine.state(), node, &report, false).is_err(), "nobody applied it");
        assert!(check(machine.state(), ObjectId(99), &report, false).is_ok(), "it is elsewhere");
        apply(&mut machine, Command::ReportPods { node, incarnation: 1, reports: vec![report.clone()] });
        assert!(check(machine.state(), node, &report, false).is_ok());
        let gone = PodReport { gone: true, ..report };
        assert!(check(machine.state(), node, &gone, false).is_ok(), "nobody asked for its end");
        assert!(check(machine.state(), node, &gone, true).is_err(), "it should not be there");
    }
    #[test]
    fn the_end_that_was_asked_for_comes_with_the_first_report_after_the_request() {
        let (mut machine, node, pod) = bound();
        let status = PodStatus { phase: PodPhase::Succeeded, ..PodStatus::default() };
        let ended = PodReport { pod, sequence: 7, status, gone: true };
        let tell =
            |report: &PodReport| Command::ReportPods { node, incarnation: 1, reports: vec![report.clone()] };
        assert!(!must_end(machine.state(), &ended), "nobody asked for its end");
        apply(&mut machine, tell(&ended));
        let delete = Command::DeletePods { pods: vec![pod], surplus_of: None, reason: "asked".into() };
        apply(&mut machine, delete);
        assert!(!must_end(machine.state(), &ended), "it was decided on before the request");
        apply(&mut machine, tell(&ended));
        assert!(check(machine.state(), node, &ended, false).is_ok(), "a copy changes nothing");
        let anew = PodReport { sequence: 8, ..ended.clone() };
        assert!(!must_end(machine.state(), &PodReport { gone: false, ..anew.clone() }), "it is still there");
        assert!(must_end(machine.state(), &anew));
        assert!(check(machine.state(), node, &anew, true).is_err(), "nobody applied it");
        apply(&mut machine, tell(&anew));
        assert!(machine.state().pods().get(pod).is_none());
        assert!(check(machine.state(), node, &anew, true).is_ok());
        assert!(!must_end(machine.state(), &anew), "it is no more");
    }
}
