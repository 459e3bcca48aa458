//! What clients send wrong is refused with its place; what they leave out gets Kubernetes' defaults; what
//! the log does not know stops it.

use bulkhead_proto::{ACTOR_DEFAULT, ProtoCodec, Registration, Submission, v1};
use bulkhead_types::*;
use prost::Message as _;

fn meta() -> Option<v1::ObjectMeta> {
    Some(v1::ObjectMeta {
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        ..v1::ObjectMeta::default()
    })
}

fn labels() -> std::collections::BTreeMap<String, String> {
    [("app".to_owned(), "web".to_owned())].into()
}

/// The least Deployment that a client may write.
fn deployment() -> v1::Deployment {
    let container =
        v1::Container { name: "main".to_owned(), image: "web:v1".to_owned(), ..v1::Container::default() };
    let spec = v1::PodSpec { containers: vec![container], ..v1::PodSpec::default() };
    v1::Deployment {
        meta: meta(),
        spec: Some(v1::DeploymentSpec {
            selector: Some(v1::LabelSelector { match_labels: labels(), match_expressions: vec![] }),
            template: Some(v1::PodTemplate {
                labels: labels(),
                spec: Some(spec),
                ..v1::PodTemplate::default()
            }),
            ..v1::DeploymentSpec::default()
        }),
        status: None,
    }
}

fn apply(deployment: v1::Deployment) -> v1::SubmitRequest {
    let object = v1::Object { object: Some(v1::object::Object::Deployment(deployment)) };
    request(vec![v1::user_command::Variant::Apply(object)])
}

fn request(variants: Vec<v1::user_command::Variant>) -> v1::SubmitRequest {
    let commands = variants.into_iter().map(|v| v1::UserCommand { variant: Some(v) }).collect();
    v1::SubmitRequest { commands, ..v1::SubmitRequest::default() }
}

#[test]
fn a_short_deployment_gets_defaults() {
    let submission = Submission::try_from(apply(deployment())).expect("acceptable");
    assert_eq!(submission.actor, ACTOR_DEFAULT);
    assert_eq!(submission.request_id, None);
    let [Command::Apply(Object::Deployment(deployment))] = submission.commands.as_slice() else {
        panic!("{submission:?}")
    };
    let spec = &deployment.spec;
    assert_eq!((spec.replicas, spec.progress_deadline_ms, spec.revision_history_limit), (1, 600_000, 10));
    assert_eq!(spec.strategy, DeploymentStrategy::default());
    assert_eq!(spec.template.spec.termination_grace_ms, 30_000);
    assert_eq!(spec.template.spec.restart_policy, RestartPolicy::Always);
}

#[test]
fn what_is_the_control_planes_is_ignored() {
    let mut wire = deployment();
    let meta = wire.meta.as_mut().expect("set above");
    (meta.id, meta.revision, meta.generation) = (9, 9, 9);
    meta.owner = Some(v1::OwnerRef { kind: 77, id: 1 });
    wire.status = Some(v1::DeploymentStatus { replicas: 5, ..v1::DeploymentStatus::default() });
    let clean = Submission::try_from(apply(deployment()));
    assert!(clean.is_ok());
    assert_eq!(Submission::try_from(apply(wire)), clean);
}

#[test]
fn refusals_say_where() {
    let check = |request: v1::SubmitRequest, path: &str| {
        let error = Submission::try_from(request).expect_err(path);
        assert_eq!(error.path, path, "{error}");
        assert!(!error.reason.is_empty());
    };
    let changed = |change: &dyn Fn(&mut v1::Deployment, &mut v1::DeploymentSpec)| {
        let mut wire = deployment();
        let mut spec = wire.spec.take().expect("set above");
        change(&mut wire, &mut spec);
        if wire.spec.is_none() {
            wire.spec = Some(spec);
        }
        apply(wire)
    };
    let at = |rest: &str| format!("commands[0].apply.deployment.{rest}");
    check(request(vec![]), "commands");
    check(
        v1::SubmitRequest { commands: vec![v1::UserCommand { variant: None }], ..request(vec![]) },
        "commands[0]",
    );
    check(v1::SubmitRequest { request_id: "x".to_owned(), ..apply(deployment()) }, "request_id");
    check(
        v1::SubmitRequest { request_id: uuid::Uuid::nil().to_string(), ..apply(deployment()) },
        "request_id",
    );
    check(v1::SubmitRequest { actor: "x".repeat(257), ..apply(deployment()) }, "actor");
    check(
        v1::SubmitRequest { commands: vec![v1::UserCommand::default(); 1025], ..request(vec![]) },
        "commands",
    );
    check(changed(&|d, _| d.meta = None), &at("meta"));
    check(changed(&|d, _| d.meta.as_mut().expect("set").name = "Web".to_owned()), &at("meta.name"));
    check(changed(&|_, s| s.template = None), &at("spec.template"));
    check(changed(&|_, s| s.replicas = Some(REPLICAS_MAX + 1)), &at("spec.replicas"));
    let pod = |change: fn(&mut v1::PodSpec)| {
        changed(&move |_, s| change(s.template.as_mut().and_then(|t| t.spec.as_mut()).expect("set above")))
    };
    let pod_at = |rest: &str| at(&format!("spec.template.spec.{rest}"));
    check(pod(|p| p.restart_policy = 44), &pod_at("restart_policy"));
    check(pod(|p| p.containers[0].image_pull_policy = -1), &pod_at("containers[0].image_pull_policy"));
    check(pod(|p| p.containers.clear()), &pod_at("containers"));
    check(
        pod(|p| {
            p.containers[0].ports =
                vec![v1::ContainerPort { container_port: 65_536, ..v1::ContainerPort::default() }]
        }),
        &pod_at("containers[0].ports[0].container_port"),
    );
    check(pod(|p| p.containers[0].args = vec!["x".repeat(3 << 20)]), "commands[0].apply");
    let scale = v1::command::Scale { object: None, replicas: 1 };
    check(request(vec![v1::user_command::Variant::Scale(scale)]), "commands[0].scale.object");
}

#[test]
fn an_agents_registration_is_bounded() {
    let join =
        |facts| v1::JoinRequest { node: "node-1".to_owned(), facts: Some(facts), cluster_id: String::new() };
    assert!(Registration::try_from(join(v1::NodeFacts::default())).is_ok());
    let check = |facts, path: &str| {
        let error = Registration::try_from(join(facts)).expect_err(path);
        assert_eq!(error.path, path, "{error}");
    };
    let warnings = vec![String::new(); 65];
    check(v1::NodeFacts { warnings, ..v1::NodeFacts::default() }, "facts.warnings");
    let preconditions = Some(v1::NodePreconditions { preconditions: vec![Default::default(); 33] });
    check(v1::NodeFacts { preconditions, ..v1::NodeFacts::default() }, "facts.preconditions.preconditions");
    let labels = [("-".to_owned(), String::new())].into();
    check(v1::NodeFacts { labels, ..v1::NodeFacts::default() }, "facts.labels");
    check(v1::NodeFacts { boot_id: "x".repeat(300 << 10), ..v1::NodeFacts::default() }, "facts");
}

#[test]
fn reports_are_bounded() {
    let usage = vec![v1::PodUsage::default(); ITEMS_MAX + 1];
    let error = AgentReport::try_from(v1::AgentReport { usage, ..v1::AgentReport::default() });
    assert_eq!(error.expect_err("too many").path, "usage");
}

#[test]
fn only_users_commands_become_requests() {
    let own = Command::RaiseFeatureLevel { level: 2 };
    assert!(v1::UserCommand::try_from(&own).is_err());
    let cordon = Command::SetUnschedulable { node: Name::new("n").expect("a name"), unschedulable: true };
    let wire = v1::UserCommand::try_from(&cordon).expect("a user's");
    assert_eq!(Command::try_from(wire), Ok(cordon));
}

#[test]
fn the_log_refuses_what_it_does_not_know() {
    let check = |bytes: &[u8], reason: &str| {
        let error = ProtoCodec.decode_log(bytes).expect_err(reason);
        assert!(error.reason.contains(reason), "{error}");
    };
    let stamped = |commands| v1::Stamped { proposed_at_ms: 1, commands, ..v1::Stamped::default() };
    let batch = |commands| v1::LogRecord {
        format_version: 1,
        record: Some(v1::log_record::Record::Batch(v1::Batch { stamped: vec![stamped(commands)] })),
    };
    check(&[], "no format version");
    check(&[0x08, 0x02], "format version 2");
    check(&[0x08, 0x01], "a variant that this version does not know");
    check(&batch(vec![v1::Command { variant: None }]).encode_to_vec(), "batch.stamped[0].commands[0]");
    check(&batch(vec![v1::Command { variant: None }; COMMANDS_MAX + 1]).encode_to_vec(), "1025 items");
    let phase = v1::command::SetNodePhase { node: 1, incarnation: 1, phase: 9 };
    let phase = v1::Command { variant: Some(v1::command::Variant::SetNodePhase(phase)) };
    check(&batch(vec![phase]).encode_to_vec(), "commands[0].set_node_phase.phase: 9 is no NodePhase");

    // A field of a later version, deep inside: Batch { stamped { 15: 1 } }.
    check(&[0x08, 0x01, 0x12, 0x04, 0x0a, 0x02, 0x78, 0x01], "6 of its 8 bytes");
    // A command of a later version: variant 29.
    check(&[0x08, 0x01, 0x12, 0x07, 0x0a, 0x05, 0x32, 0x03, 0xea, 0x01, 0x00], "of its 11 bytes");
    // A default that is spelt out: proposed_at_ms = 0.
    check(&[0x08, 0x01, 0x12, 0x04, 0x0a, 0x02, 0x18, 0x00], "of its 8 bytes");
}

#[test]
fn too_much_for_the_log_is_not_written() {
    let names = (0..=ITEMS_MAX).map(|n| Name::new(format!("p{n}")).expect("a name")).collect();
    let command = Command::CreatePods { replica_set: ObjectId(1), names };
    let stamped = Stamped {
        request_id: uuid::Uuid::nil(),
        actor: "system:rollout".into(),
        proposed_at_ms: 1,
        trace_context: None,
        preconditions: vec![],
        commands: vec![command],
    };
    let written = std::panic::catch_unwind(|| ProtoCodec.encode_log(&LogRecord::Batch(vec![stamped])));
    assert!(written.is_err());
}
