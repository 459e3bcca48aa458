//! What nobody can have: combinations that no cluster could run, and Secrets that are none. Each is refused when it is
//! submitted, by the manifest's reader or by `decide`, with path and reason; in one table, so that none is forgotten.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bulkhead_controlplane_core::Machine;
use bulkhead_manifest::{Source, parse};
use bulkhead_types::{
    Command, FEATURE_LEVEL_MAX, GUEST_DISKS_LEVEL, MemberId, Name, Object, PodSpec, Rare, Rejection, Shared,
    Stamped, Volume, VolumeSource, WORKLOADS_LEVEL,
};
use expect_test::{Expect, expect};
use uuid::Uuid;

const GPU: &str = "resources: {limits: {nvidia.com/gpu: 1}}";
const CLAIM: &str = "volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]";

/// A cluster of one server at a feature level.
fn cluster(level: u32) -> Machine {
    let mut machine = Machine::default();
    let members = vec![(MemberId(1), "a:1".into())];
    let own = Command::RegisterMember {
        member: MemberId(1),
        storage_uid: Uuid::nil(),
        address: "a:1".into(),
        version: "1".into(),
        feature_level_max: FEATURE_LEVEL_MAX,
    };
    submit(&mut machine, Command::InitCluster { cluster_id: Uuid::from_u128(7), members }).unwrap();
    submit(&mut machine, own).unwrap();
    submit(&mut machine, Command::RaiseFeatureLevel { level }).unwrap();
    machine
}

fn submit(machine: &mut Machine, command: Command) -> Result<(), Rejection> {
    let stamped = Stamped {
        request_id: Uuid::nil(),
        actor: "user:test".into(),
        proposed_at_ms: 1000,
        trace_context: None,
        preconditions: Vec::new(),
        commands: vec![command],
    };
    machine.apply_stamped(&stamped).transaction.outcome.map(drop)
}

/// The objects of a manifest, or what its reader says: a line each.
fn read(text: &str) -> Result<Vec<Object>, String> {
    let source = Source { name: "a.yaml".to_owned(), text: text.to_owned() };
    match parse(&[source], Some(&Name::new("default").unwrap())) {
        Ok(parsed) => Ok(parsed.into_iter().map(|one| one.object).collect()),
        Err(errors) => {
            Err(errors.iter().map(|error| format!("{}: {}\n", error.path, error.reason)).collect())
        }
    }
}

/// What is said to the last of some manifests, applied one after the other at a feature level.
fn answer(level: u32, texts: &str) -> String {
    let mut machine = cluster(level);
    let mut said = String::new();
    for text in texts.split("---\n") {
        said = match read(text) {
            Ok(objects) => objects.into_iter().map(|object| applied(&mut machine, object)).collect(),
            Err(said) => said,
        };
    }
    said
}

fn applied(machine: &mut Machine, object: Object) -> String {
    submit(machine, Command::Apply(object))
        .map_or_else(|said| format!("{said}\n"), |()| "accepted\n".to_owned())
}

/// Several manifests in one table: each is named, and what is said to it stands below.
fn check(table: &[(&str, String)], expected: Expect) {
    let rows = table.iter().map(|(what, text)| {
        let said: String =
            answer(FEATURE_LEVEL_MAX, text).lines().map(|line| format!("    {line}\n")).collect();
        format!("{what}\n{said}")
    });
    expected.assert_eq(&rows.collect::<String>());
}

fn head(kind: &str, name: &str) -> String {
    let group = match kind {
        "Job" | "CronJob" => "batch/v1",
        "HorizontalPodAutoscaler" => "autoscaling/v2",
        "CronHorizontalPodAutoscaler" => "autoscaling.alibabacloud.com/v1beta1",
        "Pod" | "Secret" => "v1",
        _ => "apps/v1",
    };
    format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}}}\n")
}

/// A pod's spec in flow style: more of the pod, and more of its container.
fn pod_spec(pod: &str, container: &str) -> String {
    let pod = if pod.is_empty() { String::new() } else { format!("{pod}, ") };
    let container = if container.is_empty() { String::new() } else { format!(", {container}") };
    format!("{{{pod}containers: [{{name: main, image: 'web:1'{container}}}]}}")
}

/// A workload of pods with a label, and what else it says.
fn workload(kind: &str, spec: &str, pod: &str, container: &str) -> String {
    let (selector, labels, name) = ("{matchLabels: {app: web}}", "{app: web}", "web");
    let pod = pod_spec(pod, container);
    format!(
        "{}spec: {{{spec}selector: {selector}, template: {{metadata: {{labels: {labels}}}, spec: {pod}}}}}\n",
        head(kind, name)
    )
}

fn job_spec(spec: &str, pod: &str, container: &str) -> String {
    let pod = if pod.is_empty() {
        "restartPolicy: Never".to_owned()
    } else {
        format!("restartPolicy: Never, {pod}")
    };
    format!("{{{spec}template: {{spec: {}}}}}", pod_spec(&pod, container))
}

fn job(spec: &str, pod: &str, container: &str) -> String {
    format!("{}spec: {}\n", head("Job", "once"), job_spec(spec, pod, container))
}

fn cron_job(cron: &str, spec: &str, pod: &str, container: &str) -> String {
    let template = job_spec(spec, pod, container);
    format!(
        "{}spec: {{schedule: '0 1 * * *', {cron}jobTemplate: {{spec: {template}}}}}\n",
        head("CronJob", "nightly")
    )
}

/// An autoscaler of a workload called `web`.
fn autoscaler(kind: &str, bounds: &str) -> String {
    let target = format!("{{apiVersion: apps/v1, kind: {kind}, name: web}}");
    let metric =
        "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}";
    format!(
        "{}spec: {{scaleTargetRef: {target}, {bounds}, metrics: [{metric}]}}\n",
        head("HorizontalPodAutoscaler", "web")
    )
}

fn clock(zone: &str, size: u32) -> String {
    let target = "{apiVersion: apps/v1, kind: Deployment, name: web}";
    format!(
        "{}spec: {{scaleTargetRef: {target}, {zone}jobs: [{{name: all, schedule: '0 0 1 * * *', targetSize: {size}}}]}}\n",
        head("CronHorizontalPodAutoscaler", "clock")
    )
}

fn secret(kind: &str, data: &str) -> String {
    format!("{}type: {kind}\nstringData: {data}\n", head("Secret", "s"))
}

/// What is in Secrets here.
const VALUE: &str = "ssssecret";
const RECREATE: &str = "strategy: {type: Recreate}, ";

/// Manifests one after the other.
fn then(first: &str, second: &str) -> String {
    format!("{first}---\n{second}")
}

#[test]
fn one_volume_for_several_pods() {
    let of = |kind: &str, replicas: u32| {
        let strategy = if kind == "Deployment" { RECREATE } else { "" };
        workload(kind, &format!("replicas: {replicas}, {strategy}"), CLAIM, "")
    };
    check(
        &[
            ("a Deployment of one", of("Deployment", 1)),
            ("a Deployment of two", of("Deployment", 2)),
            (
                "a Deployment whose new pod would wait for the old one",
                workload("Deployment", "replicas: 1, ", CLAIM, ""),
            ),
            ("a ReplicaSet of two", of("ReplicaSet", 2)),
            ("a StatefulSet of two that share", of("StatefulSet", 2)),
            ("a DaemonSet", workload("DaemonSet", "", CLAIM, "")),
            ("a Job, one at a time", job("parallelism: 1, completions: 3, ", CLAIM, "")),
            ("a Job, two at a time", job("parallelism: 2, completions: 3, ", CLAIM, "")),
            ("a CronJob, two at a time", cron_job("", "parallelism: 2, ", CLAIM, "")),
            (
                "an autoscaler of one",
                autoscaler("Deployment", "maxReplicas: 1") + "---\n" + &of("Deployment", 1),
            ),
            (
                "an autoscaler above one",
                then(&of("Deployment", 1), &autoscaler("Deployment", "maxReplicas: 2")),
            ),
            (
                "an autoscaler of a StatefulSet",
                then(&of("StatefulSet", 1), &autoscaler("StatefulSet", "maxReplicas: 2")),
            ),
            (
                "the autoscaler came first",
                then(&autoscaler("Deployment", "maxReplicas: 2"), &of("Deployment", 1)),
            ),
            ("a clock above one", then(&of("Deployment", 1), &clock("", 2))),
        ],
        expect![[r#"
            a Deployment of one
                accepted
            a Deployment of two
                spec.replicas: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together
            a Deployment whose new pod would wait for the old one
                spec.strategy.rollingUpdate.maxSurge: must be 0: a new pod cannot have PersistentVolumeClaim data while the old one runs, so the rollout would never move; set it to 0, or the type to Recreate
            a ReplicaSet of two
                spec.replicas: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together
            a StatefulSet of two that share
                spec.replicas: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together
            a DaemonSet
                spec.template.spec.volumes[0].persistentVolumeClaim: is not possible in a DaemonSet: a claim is on one node, the pods are on many; use emptyDir, or a StatefulSet with volumeClaimTemplates
            a Job, one at a time
                accepted
            a Job, two at a time
                spec.parallelism: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together
            a CronJob, two at a time
                spec.jobTemplate.spec.parallelism: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together
            an autoscaler of one
                accepted
            an autoscaler above one
                HorizontalPodAutoscaler default/web: spec.maxReplicas: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together; set it to 1, or scale something else
            an autoscaler of a StatefulSet
                HorizontalPodAutoscaler default/web: spec.maxReplicas: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together; set it to 1, or scale something else
            the autoscaler came first
                Deployment default/web: spec.template.spec.volumes: HorizontalPodAutoscaler default/web may give it more than one pod, and all would use PersistentVolumeClaim data, which one guest at a time can have; delete that first, or let it scale to 1 at most
            a clock above one
                CronHorizontalPodAutoscaler default/clock: spec.jobs[0].targetSize: must be at most 1: all pods would use PersistentVolumeClaim data, which one guest at a time can have; a StatefulSet with volumeClaimTemplates gives each pod its own, and pods that say readOnly: true of it read together; set it to 1, or scale something else
        "#]],
    );
}

#[test]
fn devices_and_runtimes() {
    let runtime = |class: &str| {
        format!("{}spec: {}\n", head("Pod", "p"), pod_spec(&format!("runtimeClassName: {class}"), ""))
    };
    let both = format!("{}spec: {}\n", head("Pod", "p"), pod_spec("runtimeClassName: runc", GPU));
    check(
        &[
            ("a GPU in a Pod", format!("{}spec: {}\n", head("Pod", "p"), pod_spec("", GPU))),
            ("a GPU in a Deployment", workload("Deployment", "", "", GPU)),
            ("a GPU in a DaemonSet", workload("DaemonSet", "", "", GPU)),
            ("a GPU in a Job", job("", "", GPU)),
            ("a GPU in a CronJob", cron_job("", "", "", GPU)),
            ("a GPU with runc", both),
            ("rune", runtime("rune")),
            ("runv", runtime("runv")),
            ("runc", runtime("runc")),
            ("another runtime", runtime("gvisor")),
        ],
        expect![[r#"
            a GPU in a Pod
                accepted
            a GPU in a Deployment
                accepted
            a GPU in a DaemonSet
                spec.template.spec.containers[0].resources: a DaemonSet may not ask for devices: it would hold some on every node for ever; use a Deployment
            a GPU in a Job
                accepted
            a GPU in a CronJob
                spec.jobTemplate.spec.template.spec.containers[0].resources: a CronJob may not ask for devices: its runs would wait for each other's; use a Job
            a GPU with runc
                spec.runtimeClassName: runc shares the host's kernel and so isolates no tenant: it is not offered; leave the field out, or use rune
            rune
                accepted
            runv
                accepted
            runc
                spec.runtimeClassName: runc shares the host's kernel and so isolates no tenant: it is not offered; leave the field out, or use rune
            another runtime
                spec.runtimeClassName: "gvisor" is unknown: use rune (a guest VM for each pod), or leave the field out
        "#]],
    );
}

#[test]
fn bounds_that_leave_nothing() {
    let rolling = |kind: &str, field: &str, surge: &str, unavailable: &str| {
        let bounds = format!("maxSurge: {surge}, maxUnavailable: {unavailable}");
        let spec = format!("{field}: {{type: RollingUpdate, rollingUpdate: {{{bounds}}}}}, ");
        workload(kind, &spec, "", "")
    };
    let canary =
        "strategy: {type: Canary, canary: {maxSurge: 0, maxUnavailable: 0, steps: [{setReplicas: 1}]}}, ";
    let none = "updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0}}, ";
    check(
        &[
            ("a Deployment, numbers", rolling("Deployment", "strategy", "0", "0")),
            ("a Deployment, shares", rolling("Deployment", "strategy", "0%", "0%")),
            ("a Deployment, one share rounds up", rolling("Deployment", "strategy", "0", "1%")),
            ("a canary", workload("Deployment", canary, "", "")),
            ("a DaemonSet", rolling("DaemonSet", "updateStrategy", "0", "0%")),
            ("a DaemonSet, both", rolling("DaemonSet", "updateStrategy", "1", "1")),
            ("a StatefulSet", workload("StatefulSet", none, "", "")),
            ("an autoscaler", autoscaler("Deployment", "minReplicas: 5, maxReplicas: 4")),
            ("an autoscaler of none", autoscaler("Deployment", "minReplicas: 0, maxReplicas: 4")),
            ("an autoscaler up to none", autoscaler("Deployment", "maxReplicas: 0")),
        ],
        expect![[r#"
            a Deployment, numbers
                spec.strategy.rollingUpdate.maxUnavailable: must not be 0 when maxSurge is 0: a rollout could never move
            a Deployment, shares
                spec.strategy.rollingUpdate.maxUnavailable: must not be 0 when maxSurge is 0: a rollout could never move
            a Deployment, one share rounds up
                accepted
            a canary
                spec.strategy.canary.maxUnavailable: must not be 0 when maxSurge is 0: a rollout could never move
            a DaemonSet
                spec.updateStrategy.rollingUpdate.maxUnavailable: must not be 0 when maxSurge is 0: a rollout could never move
            a DaemonSet, both
                spec.updateStrategy.rollingUpdate.maxUnavailable: must be 0 when maxSurge is set: a node has either no pod or two for a while
            a StatefulSet
                spec.updateStrategy.rollingUpdate.maxUnavailable: must not be 0: a rollout could never move
            an autoscaler
                spec.maxReplicas: must be at least minReplicas (5)
            an autoscaler of none
                spec.minReplicas: must be at least 1: figures of no pods say nothing
            an autoscaler up to none
                spec.maxReplicas: must be between 1 and 1000000
        "#]],
    );
}

#[test]
fn zones_and_selectors() {
    let zone = |zone: &str| cron_job(&format!("timeZone: {zone}, "), "", "", "");
    let changed = |kind: &str| {
        let present = workload(kind, "", "", "");
        let wanted = present.replace("app: web", "app: api");
        then(&present, &wanted)
    };
    check(
        &[
            ("a CronJob in a zone", zone("Europe/Berlin")),
            ("a CronJob nowhere", zone("Europe/Atlantis")),
            ("a CronJob in a zone spelt otherwise", zone("europe/berlin")),
            ("a clock nowhere", clock("timeZone: Mars/Base, ", 2)),
            ("another selector of a Deployment", changed("Deployment")),
            ("another selector of a ReplicaSet", changed("ReplicaSet")),
            ("another selector of a StatefulSet", changed("StatefulSet")),
            ("another selector of a DaemonSet", changed("DaemonSet")),
        ],
        expect![[r#"
            a CronJob in a zone
                accepted
            a CronJob nowhere
                spec.timeZone: "Europe/Atlantis" is no time zone of the IANA database
            a CronJob in a zone spelt otherwise
                spec.timeZone: "europe/berlin" is no time zone of the IANA database: did you mean "Europe/Berlin"?
            a clock nowhere
                spec.timeZone: "Mars/Base" is no time zone of the IANA database
            another selector of a Deployment
                Deployment default/web: spec.selector: cannot change after creation; delete the object and create it anew, or give the new one another name
            another selector of a ReplicaSet
                ReplicaSet default/web: spec.selector: cannot change after creation; delete the object and create it anew, or give the new one another name
            another selector of a StatefulSet
                StatefulSet default/web: spec.selector: cannot change after creation; delete the object and create it anew, or give the new one another name
            another selector of a DaemonSet
                DaemonSet default/web: spec.selector: cannot change after creation; delete the object and create it anew, or give the new one another name
        "#]],
    );
}

/// As [`check`], and no value of a Secret is in what is said.
fn check_silent(table: &[(&str, String)], expected: Expect) {
    for (what, text) in table {
        let said = answer(FEATURE_LEVEL_MAX, text);
        assert!(!said.contains(VALUE) && !said.contains("5551234"), "{what}: {said}");
    }
    check(table, expected);
}

#[test]
fn secrets_have_the_keys_of_their_type() {
    let registries = |data: &str| secret("kubernetes.io/dockerconfigjson", data);
    let whole = r#"{.dockerconfigjson: '{"auths": {"a": {"auth": "ssssecret"}}}'}"#;
    check_silent(
        &[
            ("anything", secret("Opaque", "{any: ssssecret}")),
            ("a certificate without its key", secret("kubernetes.io/tls", "{tls.crt: ssssecret}")),
            ("a certificate", secret("kubernetes.io/tls", "{tls.crt: ssssecret, tls.key: ssssecret}")),
            ("registries, another key", registries("{config.json: ssssecret}")),
            ("registries, no JSON", registries("{.dockerconfigjson: ssssecret}")),
            ("registries, a list", registries(r#"{.dockerconfigjson: '["ssssecret"]'}"#)),
            ("registries", registries(whole)),
            ("older ones", secret("kubernetes.io/dockercfg", "{.dockercfg: '{\"a\": {}}'}")),
            ("older ones, the new key", secret("kubernetes.io/dockercfg", "{.dockerconfigjson: '{}'}")),
            ("older ones, no JSON", secret("kubernetes.io/dockercfg", "{.dockercfg: ssssecret}")),
            ("nobody", secret("kubernetes.io/basic-auth", "{user: ssssecret}")),
            ("a name alone", secret("kubernetes.io/basic-auth", "{username: ssssecret}")),
            ("a password alone", secret("kubernetes.io/basic-auth", "{password: ssssecret}")),
        ],
        expect![[r#"
            anything
                accepted
            a certificate without its key
                data[tls.key]: is required in a Secret of type kubernetes.io/tls
            a certificate
                accepted
            registries, another key
                data[.dockerconfigjson]: is required in a Secret of type kubernetes.io/dockerconfigjson
            registries, no JSON
                data[.dockerconfigjson]: must be a JSON object, as `docker login` writes it
            registries, a list
                data[.dockerconfigjson]: must be a JSON object, as `docker login` writes it
            registries
                accepted
            older ones
                accepted
            older ones, the new key
                data[.dockercfg]: is required in a Secret of type kubernetes.io/dockercfg
            older ones, no JSON
                data[.dockercfg]: must be a JSON object, as `docker login` writes it
            nobody
                data: needs username, password, or both in a Secret of type kubernetes.io/basic-auth
            a name alone
                accepted
            a password alone
                accepted
        "#]],
    );
}

#[test]
fn secrets_that_are_none() {
    let large = format!("{{a: {}}}", VALUE.repeat((1 << 20) / VALUE.len() + 1));
    check_silent(
        &[
            ("a type of its own", secret("example.com/own", "{a: ssssecret}")),
            ("not offered yet", secret("kubernetes.io/ssh-auth", "{ssh-privatekey: ssssecret}")),
            ("a key that is no file name", secret("Opaque", "{a/b: ssssecret}")),
            ("no base64", secret("Opaque", "{}") + "data: {a: 'ssssecret!'}\n"),
            ("a number", secret("Opaque", "{a: 5551234}")),
            ("too large", secret("Opaque", &large)),
        ],
        expect![[r#"
            a type of its own
                type: "example.com/own" is not one of Opaque, kubernetes.io/tls, kubernetes.io/dockerconfigjson, kubernetes.io/basic-auth, kubernetes.io/dockercfg
            not offered yet
                type: "kubernetes.io/ssh-auth" is not one of Opaque, kubernetes.io/tls, kubernetes.io/dockerconfigjson, kubernetes.io/basic-auth, kubernetes.io/dockercfg
            a key that is no file name
                data[a/b]: is no key: must be 1 to 253 letters, digits, '-', '_' or '.', not '.' and not begin with '..'
            no base64
                data[a]: is no base64
            a number
                stringData[a]: expected a string: put it in quotes
            too large
                data: holds 1048582 bytes: at most 1048576 are allowed
        "#]],
    );
}

#[test]
fn a_secret_that_is_immutable_stays() {
    let frozen = secret("Opaque", "{a: ssssecret}") + "immutable: true\n";
    let becomes = |from: &str, to: &str| then(&frozen, &frozen.replace(from, to));
    check(
        &[
            ("the same again", then(&frozen, &frozen)),
            ("another value", becomes("a: ssssecret", "a: another")),
            ("one more", becomes("a: ssssecret", "a: ssssecret, b: another")),
            ("not immutable any more", becomes("immutable: true", "immutable: false")),
            (
                "another type",
                becomes(
                    "type: Opaque\nstringData: {a",
                    "type: kubernetes.io/basic-auth\nstringData: {password",
                ),
            ),
        ],
        expect![[r#"
            the same again
                accepted
            another value
                Secret default/s: data: cannot change: the object is immutable; delete the object and create it anew, or give the new one another name
            one more
                Secret default/s: data: cannot change: the object is immutable; delete the object and create it anew, or give the new one another name
            not immutable any more
                Secret default/s: immutable: cannot be taken back; delete the object and create it anew, or give the new one another name
            another type
                Secret default/s: type: cannot change after creation; delete the object and create it anew, or give the new one another name
        "#]],
    );
}

/// A log of a lower level means what it meant: its rules of Secrets hold until the level is raised.
#[test]
fn earlier_levels_keep_their_rules_of_secrets() {
    let alone = secret("kubernetes.io/basic-auth", "{username: a}");
    assert_eq!(answer(FEATURE_LEVEL_MAX, &alone), "accepted\n");
    expect![[r#"
        Secret default/s: data[password]: is required in a Secret of type kubernetes.io/basic-auth
    "#]]
    .assert_eq(&answer(WORKLOADS_LEVEL, &alone));
}

/// A guest has places for so many disks; whatever makes pods says so, and a log of a lower level means what it meant.
#[test]
fn more_disks_than_a_guest_has_places_for() {
    let volumes: Vec<String> = (0..28).map(|n| format!("{{name: v{n}, emptyDir: {{}}}}")).collect();
    let pod = format!("volumes: [{}]", volumes.join(", "));
    let claims: Vec<String> = (0..28)
        .map(|n| {
            format!(
                "{{metadata: {{name: v{n}}}, spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}"
            )
        })
        .collect();
    let templates = format!("volumeClaimTemplates: [{}], ", claims.join(", "));
    let all = [
        ("a Pod", format!("{}spec: {}\n", head("Pod", "one"), pod_spec(&pod, ""))),
        ("a ReplicaSet", workload("ReplicaSet", "", &pod, "")),
        ("a Deployment", workload("Deployment", "", &pod, "")),
        ("a StatefulSet", workload("StatefulSet", "", &pod, "")),
        ("a StatefulSet with claims of its own", workload("StatefulSet", &templates, "", "")),
        ("a DaemonSet", workload("DaemonSet", "", &pod, "")),
        ("a Job", job("", &pod, "")),
        ("a CronJob", cron_job("", "", &pod, "")),
    ];
    let reason = "the pod needs 29 disks, one for each of its 1 containers and 28 volumes on disk, and a guest has places for 28: \
                  use fewer, emptyDir with medium Memory, or several pods";
    for (what, text) in all {
        let said = answer(FEATURE_LEVEL_MAX, &text);
        assert!(said.ends_with(&format!("spec.volumes: {reason}\n")), "{what}: {said}");
        // As it would have been submitted by a client of an earlier version.
        let fewer = text.replacen("{name: v0, emptyDir: {}}, ", "", 1);
        let fewer = fewer.replacen(&format!("{}, ", claims[0]), "", 1);
        let mut objects = read(&fewer).unwrap_or_else(|said| panic!("{what}: {said}"));
        let object = with_one_more_disk(objects.pop().unwrap());
        let at = |level| applied(&mut cluster(level), object.clone());
        assert_eq!(at(GUEST_DISKS_LEVEL - 1), "accepted\n", "{what}");
        let said = at(GUEST_DISKS_LEVEL);
        assert!(said.contains(reason), "{what}: {said}");
    }
}

/// The object, whose pods have an `emptyDir` more than its manifest says.
fn with_one_more_disk(mut object: Object) -> Object {
    let spec = match &mut object {
        Object::Pod(pod) => &mut Arc::make_mut(pod).spec,
        Object::ReplicaSet(set) => &mut Arc::make_mut(set).spec.template.spec,
        Object::Deployment(one) => &mut Arc::make_mut(one).spec.template.spec,
        Object::StatefulSet(set) => &mut Arc::make_mut(set).spec.template.spec,
        Object::DaemonSet(set) => &mut Arc::make_mut(set).spec.template.spec,
        Object::Job(job) => &mut Arc::make_mut(job).spec.template.spec,
        Object::CronJob(job) => &mut Arc::make_mut(job).spec.job_template.spec.template.spec,
        other => panic!("{} makes no pods", other.object_ref()),
    };
    let mut more = PodSpec::clone(spec);
    let mut options = more.options.get().cloned().unwrap_or_default();
    let source = VolumeSource::EmptyDir { memory: false, size_limit_bytes: None, huge_pages: Rare::NONE };
    options.volumes.push(Volume { name: "more".into(), source });
    more.options = Rare::some(options);
    *spec = Shared::new(more);
    object
}

/// What an ElasticWorkload makes of its source is judged by the cluster's level too, not by what this server knows: others may know less.
#[test]
fn units_are_judged_by_the_clusters_level() {
    let volumes: Vec<String> = (0..27).map(|n| format!("{{name: v{n}, emptyDir: {{}}}}")).collect();
    let pod = format!("volumes: [{}]", volumes.join(", "));
    let source = read(&workload("Deployment", "replicas: 1, ", &pod, "")).unwrap().pop().unwrap();
    let elastic = "apiVersion: autoscaling.alibabacloud.com/v1beta1\nkind: ElasticWorkload\nmetadata: {name: elastic}\n\
                   spec: {sourceTarget: {apiVersion: apps/v1, kind: Deployment, name: web, min: 0, max: 4}, replicas: 1, \
                   elasticUnit: [{name: spot, labels: {capacity: spot}, max: 10}]}\n";
    let elastic = read(elastic).unwrap().pop().unwrap();
    let mut machine = cluster(GUEST_DISKS_LEVEL - 1);
    assert_eq!(applied(&mut machine, with_one_more_disk(source)), "accepted\n");
    let mut raised = machine.clone();
    submit(&mut raised, Command::RaiseFeatureLevel { level: GUEST_DISKS_LEVEL }).unwrap();
    assert_eq!(applied(&mut machine, elastic.clone()), "accepted\n");
    let refused = applied(&mut raised, elastic);
    assert!(refused.contains("unit spot") && refused.contains("needs 29 disks"), "{refused}");
}
