//! Every kind of mistake, with the message that a user gets.

use bulkhead_manifest::{DEPTH_MAX, DOCUMENTS_MAX, ERRORS_MAX, SOURCE_BYTES_MAX, Source, parse};
use bulkhead_types::Name;
use expect_test::{Expect, expect};

fn messages(text: &str) -> String {
    let source = Source { name: "a.yaml".to_owned(), text: text.to_owned() };
    let namespace = Name::new("default").expect("a name");
    match parse(&[source], Some(&namespace)) {
        Ok(parsed) => {
            parsed.iter().map(|p| format!("{}:{} {}\n", p.file, p.line, p.object.object_ref())).collect()
        }
        Err(errors) => errors.iter().map(|e| format!("{e}\n")).collect(),
    }
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&messages(text));
}

/// A pod with one container, to which `more` is added.
fn check_container(more: &str, expected: Expect) {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: c\n    image: i:1\n{}",
        more.lines().map(|l| format!("    {l}\n")).collect::<String>()
    );
    check(&text, expected);
}

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  creationTimestamp: null
  labels:
    app: web
  name: web
spec:
  replicas: 2
  selector:
    matchLabels:
      app: web
  strategy: {}
  template:
    metadata:
      creationTimestamp: null
      labels:
        app: web
    spec:
      containers:
      - image: web:v1
        name: web
        resources: {}
status: {}
";

#[test]
fn a_resource_version_is_a_revision_or_nothing() {
    let parsed = |version: &str| {
        let text =
            format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: a, resourceVersion: {version}}}\n");
        let source = Source { name: "a.yaml".to_owned(), text };
        parse(&[source], None).map(|parsed| parsed[0].resource_version)
    };
    assert_eq!(parsed("\"17\""), Ok(Some(17)));
    for nothing in ["null", "\"\"", "\"0\""] {
        assert_eq!(parsed(nothing), Ok(None), "{nothing}");
    }
    for bad in ["17", "x17", "\"-1\"", "[17]"] {
        let errors = parsed(bad).expect_err(bad);
        assert_eq!(errors[0].path, "metadata.resourceVersion", "{errors:?}");
    }
}

#[test]
fn what_kubectl_prints_is_accepted() {
    check(
        DEPLOYMENT,
        expect![[r#"
        a.yaml:1 Deployment default/web
    "#]],
    );
    check(
        r#"{"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}, "spec": {}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "team"}, "spec": {
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Never", "schedulerName": "default-scheduler",
                "enableServiceLinks": true, "securityContext": {}, "volumes": [], "priority": 0,
                "terminationGracePeriodSeconds": 5, "nodeName": "", "hostNetwork": false, "affinity": null,
                "containers": [{"name": "c", "image": "busybox", "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File", "tty": false, "resources": {"limits": {"cpu": 1}}}]}}]}"#,
        expect![[r#"
            a.yaml:2 Namespace team
            a.yaml:3 Pod team/p
        "#]],
    );
    check("# nothing but a comment\n---\n---\n", expect![[""]]);
}

#[test]
fn several_mistakes_are_reported_together() {
    let text = DEPLOYMENT
        .replace("replicas: 2", "replicas: two\n  replica: 2")
        .replace("image: web:v1", "image: web:v1\n        ports: [{containerPort: 80}, {containerPort: 80}]")
        .replace("resources: {}", "resources: {requests: {memory: 64Mo, cpu: 2}, limits: {cpu: 500m}}")
        .replace("      labels:\n        app: web\n", "      labels:\n        app: api\n");
    check(
        &text,
        expect![[r#"
        a.yaml:9:13 spec.replicas: expected a whole number, found the string "two"
        a.yaml:10:3 spec.replica: unknown field: did you mean "replicas"?
        a.yaml:18:7 spec.template.metadata.labels: spec.selector does not match the template's labels
        a.yaml:23:39 spec.template.spec.containers[0].ports[1].containerPort: 80/TCP is used twice in the pod
        a.yaml:25:40 spec.template.spec.containers[0].resources.requests.memory: "64Mo" is not a quantity: expected a number with an optional suffix (m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei)
        a.yaml:25:46 spec.template.spec.containers[0].resources.requests.cpu: 2 is above the limit of 500m
    "#]],
    );
}

#[test]
fn types_are_checked() {
    check(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: 1, labels: [a], annotations: {a: 1, b: true}}\n\
         spec:\n  replicas: -1\n  paused: yes\n  minReadySeconds: 1.5\n  strategy:\n    rollingUpdate: {maxSurge: '5', maxUnavailable: 1.5}\n\
         \x20 selector: app\n  template:\n    spec:\n      containers: {}\n",
        expect![[r#"
            a.yaml:3:18 metadata.name: expected a string, found the number 1: put it in quotes
            a.yaml:3:29 metadata.labels: expected a map of strings, found a list
            a.yaml:3:51 metadata.annotations[a]: expected a string, found the number 1: put it in quotes
            a.yaml:3:57 metadata.annotations[b]: expected a string, found the boolean true: put it in quotes
            a.yaml:5:13 spec.replicas: -1 is out of range: must be between 0 and 1000000
            a.yaml:6:11 spec.paused: expected true or false, found the string "yes"
            a.yaml:7:20 spec.minReadySeconds: expected a whole number, found the number 1.5
            a.yaml:9:31 spec.strategy.rollingUpdate.maxSurge: expected a whole number, or a share such as 25%, found the string "5"
            a.yaml:9:52 spec.strategy.rollingUpdate.maxUnavailable: expected a whole number, found the number 1.5
            a.yaml:10:13 spec.selector: expected a map, found the string "app"
            a.yaml:13:19 spec.template.spec.containers: expected a list, found a map
        "#]],
    );
    check_container(
        "command: sh\nargs: [1, a]\nenv: [a]\nports: 80",
        expect![[r#"
        a.yaml:9:14 spec.containers[0].command: expected a list, found the string "sh"
        a.yaml:10:12 spec.containers[0].args[0]: expected a string, found the number 1: put it in quotes
        a.yaml:11:11 spec.containers[0].env[0]: expected a map, found the string "a"
        a.yaml:12:12 spec.containers[0].ports: expected a list, found the number 80
    "#]],
    );
}

#[test]
fn what_kubernetes_has_and_bulkhead_lacks_is_told_from_what_nobody_has() {
    check_container(
        "volumeMounts: [{name: a, mountPath: /a}]\nvolumeDevices: [{name: a}]\nenvFrom: [{}]\nimagePulPolicy: Always\ntty: yes\n\
         env: [{name: A, valueFrom: {fieldRef: {fieldPath: x}}}, {name: B, valu: x}]\nports: [{containerPort: 80, hostIP: here}]",
        expect![[r#"
            a.yaml:9:21 spec.containers[0].volumeMounts[0].name: "a" is no volume of the pod
            a.yaml:10:5 spec.containers[0].volumeDevices: not supported yet
            a.yaml:11:15 spec.containers[0].envFrom[0]: needs one of configMapRef, secretRef
            a.yaml:12:5 spec.containers[0].imagePulPolicy: unknown field: did you mean "imagePullPolicy"?
            a.yaml:13:10 spec.containers[0].tty: expected true or false, found the string "yes"
            a.yaml:14:55 spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: "x" is no field that a pod tells: use metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, status.podIP or status.hostIP
            a.yaml:14:71 spec.containers[0].env[1].valu: unknown field: did you mean "value"?
            a.yaml:15:41 spec.containers[0].ports[0].hostIP: must be an IP address of the node, such as 10.0.0.1
        "#]],
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, generateName: x}\nspec:\n  serviceAccountName: a\n  schedulingGates: [{name: g}]\n  \
         volumes: [{name: a}]\n  dnsPolicy: Host\n  hostNetwork: true\n  runtimeClassName: runc\n  containers: [{name: c, image: i}]\n",
        expect![[r#"
            a.yaml:3:21 metadata.generateName: not supported yet
            a.yaml:5:3 spec.serviceAccountName: not supported yet
            a.yaml:6:3 spec.schedulingGates: not supported yet
            a.yaml:7:13 spec.volumes[0]: needs one of emptyDir, configMap, secret, downwardAPI, projected, persistentVolumeClaim
            a.yaml:8:14 spec.dnsPolicy: "Host" is not one of ClusterFirst, Default, None, ClusterFirstWithHostNet
            a.yaml:9:16 spec.hostNetwork: not supported yet: only the default, false, is accepted
            a.yaml:10:21 spec.runtimeClassName: runc shares the host's kernel and so isolates no tenant: it is not offered; leave the field out, or use rune
        "#]],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n",
        expect![[r#"
            a.yaml:2:7 kind: kind Service is not supported yet; there are Namespace, Node, Pod, ReplicaSet, Deployment, StatefulSet, DaemonSet, Job, CronJob, ConfigMap, Secret, HorizontalPodAutoscaler, CronHorizontalPodAutoscaler, PodDisruptionBudget, ElasticWorkload, VerticalPodAutoscaler, PriorityClass, Profile, PersistentVolumeClaim, ResourceQuota, LimitRange, Department, Project, PodGroup, Queue, DeviceClass, SriovNetworkNodePolicy, SriovNetwork, SriovIBNetwork, NodePool, NodeOperation, DeschedulerPolicy, ElasticQuotaTree, VolumeSnapshot, StorageClass, PersistentVolume
        "#]],
    );
    check(
        "apiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: s}\n",
        expect![[r#"
            a.yaml:2:7 kind: kind "Deploymnet" is unknown: did you mean "Deployment"?; there are Namespace, Node, Pod, ReplicaSet, Deployment, StatefulSet, DaemonSet, Job, CronJob, ConfigMap, Secret, HorizontalPodAutoscaler, CronHorizontalPodAutoscaler, PodDisruptionBudget, ElasticWorkload, VerticalPodAutoscaler, PriorityClass, Profile, PersistentVolumeClaim, ResourceQuota, LimitRange, Department, Project, PodGroup, Queue, DeviceClass, SriovNetworkNodePolicy, SriovNetwork, SriovIBNetwork, NodePool, NodeOperation, DeschedulerPolicy, ElasticQuotaTree, VolumeSnapshot, StorageClass, PersistentVolume
        "#]],
    );
    check(
        "apiVersion: v1\nkind: Deployment\nmetadata: {name: s}\n",
        expect![[r#"
        a.yaml:1:1 spec: is required
        a.yaml:1:13 apiVersion: Deployment is in apps/v1, found "v1"
    "#]],
    );
}

#[test]
fn the_form_of_the_text_is_checked() {
    check(
        "a: b: c\n",
        expect![[r#"
        a.yaml:1:5 not YAML: mapping values are not allowed in this context
    "#]],
    );
    check(
        "a: [1, 2\n",
        expect![[r#"
        a.yaml:2:1 not YAML: while parsing a flow sequence, expected ',' or ']'
    "#]],
    );
    check(
        "\tkind: Pod\n",
        expect![[r#"
        a.yaml:1:2 apiVersion: is required
        a.yaml:1:2 metadata: is required
        a.yaml:1:2 spec: is required
    "#]],
    );
    check(
        "just text\n",
        expect![[r#"
        a.yaml:1:1 expected an object with apiVersion, kind and metadata, found the string "just text"
    "#]],
    );
    check(
        "kind: Pod\nkind: Pod\napiVersion: v1\n",
        expect![[r#"
        a.yaml:1:1 metadata: is required
        a.yaml:1:1 spec: is required
        a.yaml:2:1 key "kind" is given twice
    "#]],
    );
    check(
        "? [a]\n: b\n",
        expect![[r#"
        a.yaml:1:3 the key of a map must be a string
    "#]],
    );
    check(
        "<<: {a: b}\n",
        expect![[r#"
        a.yaml:1:1 merge keys (<<) are not supported: write the fields out
    "#]],
    );
    check(
        "kind: !secret x\n",
        expect![[r#"
        a.yaml:1:7 tag !secret is not supported
    "#]],
    );
    check(
        "kind: *nowhere\n",
        expect![[r#"
        a.yaml:1:7 not YAML: while parsing node, found unknown anchor
    "#]],
    );
    check(
        "a: &a [*a]\n",
        expect![[r#"
        a.yaml:1:8 alias inside of what it stands for
    "#]],
    );
}

#[test]
fn required_fields_are_required() {
    check(
        "apiVersion: v1\nmetadata: {}\n",
        expect![[r#"
        a.yaml:1:1 kind: is required
    "#]],
    );
    check(
        "kind: Pod\n",
        expect![[r#"
        a.yaml:1:1 apiVersion: is required
        a.yaml:1:1 metadata: is required
        a.yaml:1:1 spec: is required
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {}\nspec: {}\n",
        expect![[r#"
        a.yaml:3:11 metadata.name: is required
        a.yaml:4:7 spec.containers: is required
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{}, {name: a}]}\n",
        expect![[r#"
        a.yaml:4:21 spec.containers[0].image: is required
        a.yaml:4:21 spec.containers[0].name: is required
        a.yaml:4:25 spec.containers[1].image: is required
    "#]],
    );
    check(
        "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: p}\nspec: {}\n",
        expect![[r#"
        a.yaml:4:7 spec.selector: is required
        a.yaml:4:7 spec.template: is required
    "#]],
    );
}

#[test]
fn amounts_and_values_are_checked() {
    check_container(
        "resources: {requests: {cpu: -1, memory: lots, gpus: 1, nvidia.com/gpu: 1, mem: 1}, limits: [a]}",
        expect![[r#"
            a.yaml:9:33 spec.containers[0].resources.requests.cpu: "-1" is negative: a quantity must be zero or more
            a.yaml:9:45 spec.containers[0].resources.requests.memory: "lots" is not a quantity: expected a number with an optional suffix (m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei)
            a.yaml:9:51 spec.containers[0].resources.requests.gpus: unknown resource
            a.yaml:9:79 spec.containers[0].resources.requests.mem: unknown resource
            a.yaml:9:96 spec.containers[0].resources.limits: expected a map of quantities, found a list
        "#]],
    );
    check_container(
        "resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}",
        expect![[r#"
        a.yaml:9:28 spec.containers[0].resources.requests.memory: 2Gi is above the limit of 1Gi
    "#]],
    );
    check_container(
        "ports: [{containerPort: 70000}, {containerPort: 0}, {containerPort: 1, protocol: tcp}, {name: x}]\n\
         env: [{name: 'A=B', value: x}]\nimagePullPolicy: always\nworkingDir: here\n",
        expect![[r#"
            a.yaml:9:29 spec.containers[0].ports[0].containerPort: 70000 is out of range: must be between 0 and 65535
            a.yaml:9:86 spec.containers[0].ports[2].protocol: "tcp" is not one of TCP, UDP, SCTP
            a.yaml:9:92 spec.containers[0].ports[3].containerPort: is required
            a.yaml:10:12 spec.containers[0].env[0].name: environment variable "A=B" is invalid: must be printable ASCII without '='
            a.yaml:11:22 spec.containers[0].imagePullPolicy: "always" is not one of Always, IfNotPresent, Never
            a.yaml:12:5 spec.containers[0].workingDir: "here" must be an absolute path
        "#]],
    );
    check(
        &DEPLOYMENT.replace("strategy: {}", "strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}"),
        expect![[r#"
            a.yaml:13:45 spec.strategy.rollingUpdate: must not be set when type is Recreate
        "#]],
    );
    check(
        &DEPLOYMENT.replace("strategy: {}", "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}"),
        expect![[r#"
            a.yaml:13:43 spec.strategy.rollingUpdate.maxUnavailable: must not be 0 when maxSurge is 0: a rollout could never move
        "#]],
    );
    check(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n, namespace: default, labels: {Bad/Prefix/x: y}}\nspec: {taints: [{key: a}, {effect: Never}]}\n",
        expect![[r#"
            a.yaml:3:21 metadata.namespace: must not be set: a Node lives in no namespace
            a.yaml:3:50 metadata.labels[Bad/Prefix/x]: label key "Bad/Prefix/x" is invalid: the prefix must be a lower-case DNS subdomain of at most 253 characters
            a.yaml:4:17 spec.taints[0].effect: is required
            a.yaml:4:27 spec.taints[1].key: is required
            a.yaml:4:36 spec.taints[1].effect: "Never" is not one of NoSchedule, PreferNoSchedule, NoExecute
        "#]],
    );
}

#[test]
fn the_same_object_twice_is_refused() {
    check(
        &format!("{DEPLOYMENT}---\n{DEPLOYMENT}"),
        expect![[r#"
        a.yaml:26:1 metadata.name: Deployment default/web is given twice, first at a.yaml:1
    "#]],
    );
}

#[test]
fn bounds_hold() {
    let deep = format!("a: {}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    check(
        &deep,
        expect![[r#"
        a.yaml:1:35 is nested more than 32 deep
    "#]],
    );
    check(&"---\n# empty\n".repeat(DOCUMENTS_MAX + 1), expect![[""]]);
    let many = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n".repeat(DOCUMENTS_MAX + 1);
    let found = messages(&many);
    assert!(found.ends_with("further errors are not shown\n"), "{found}");
    check(
        &"#".repeat(SOURCE_BYTES_MAX + 1),
        expect![[r#"
        a.yaml:0:0 has 4194305 bytes: at most 4194304 are read
    "#]],
    );
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..12 {
        bomb += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(","));
    }
    check(
        &bomb,
        expect![[r#"
        a.yaml:5:5 has more than 200000 nodes, aliases included
    "#]],
    );
    let wrong: String = (0..ERRORS_MAX + 20).map(|n| format!("wrong{n}: 1\n")).collect();
    let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: n}}\n{wrong}");
    let found = messages(&text);
    assert_eq!(found.lines().count(), ERRORS_MAX);
    expect!["a.yaml:0:0 21 further errors are not shown"]
        .assert_eq(found.lines().last().expect("a last line"));
    let wide: String = (0..6000).map(|n| format!("k{n}: 1\n")).collect();
    check(
        &wide,
        expect![[r#"
        a.yaml:4097:1 a map has more than 4096 entries
    "#]],
    );
}
