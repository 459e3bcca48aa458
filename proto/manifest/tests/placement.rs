//! Affinity and topology spread constraints: read, printed and read again; every mistake at its place.
#![allow(clippy::unwrap_used)]

mod kit;

use bulkhead_manifest::to_yaml;
use bulkhead_types::{NodeInclusionPolicy, NodeSelectorOperator, Object, WhenUnsatisfiable};
use expect_test::expect;
use kit::{NAMES, check, read};

const POD: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: web}}
spec:
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
        - matchExpressions:
          - {key: zone, operator: In, values: [a, b]}
          - {key: cores, operator: Gt, values: ['15']}
        - matchFields:
          - {key: metadata.name, operator: In, values: [n1]}
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 10
        preference: {matchExpressions: [{key: disk, operator: Exists}]}
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - labelSelector: {matchLabels: {app: db}}
        namespaceSelector: {}
        topologyKey: zone
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - labelSelector: {matchLabels: {app: web}}
        topologyKey: kubernetes.io/hostname
        mismatchLabelKeys: [track]
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          labelSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db]}]}
          namespaces: [default, other]
          topologyKey: rack
  topologySpreadConstraints:
  - maxSkew: 1
    minDomains: 3
    topologyKey: zone
    whenUnsatisfiable: DoNotSchedule
    labelSelector: {matchLabels: {app: web}}
    matchLabelKeys: [pod-template-hash]
  - maxSkew: 2
    topologyKey: rack
    whenUnsatisfiable: ScheduleAnyway
    nodeAffinityPolicy: Ignore
    nodeTaintsPolicy: Honor
  containers: [{name: main, image: 'web:1'}]
";

#[test]
fn what_a_pod_says_about_its_place_is_read() {
    let Object::Pod(pod) = &read(POD)[0] else { panic!("a Pod") };
    let placement = pod.spec.placement().unwrap();
    let nodes = placement.node_affinity.get().unwrap();
    assert_eq!(nodes.required[0].match_expressions[1].operator, NodeSelectorOperator::Gt);
    assert_eq!(nodes.required[1].match_fields[0].values, ["n1"]);
    assert_eq!(nodes.preferred[0].weight, 10);
    let near = placement.pod_affinity.get().unwrap();
    assert!(near.required[0].namespace_selector.as_ref().unwrap().is_empty());
    let away = placement.pod_anti_affinity.get().unwrap();
    assert_eq!(away.preferred[0].pod_affinity_term.namespaces, ["default", "other"]);
    assert_eq!(away.required[0].mismatch_label_keys, ["track"]);
    let [hard, soft] = placement.topology_spread_constraints.as_slice() else { panic!("two constraints") };
    assert_eq!((hard.min_domains, hard.node_affinity_policy), (Some(3), NodeInclusionPolicy::Honor));
    assert_eq!(hard.node_taints_policy, NodeInclusionPolicy::Ignore);
    assert_eq!((soft.max_skew, soft.when_unsatisfiable), (2, WhenUnsatisfiable::ScheduleAnyway));
    assert_eq!(soft.label_selector, None);
}

#[test]
fn what_is_printed_is_read_as_the_same() {
    let object = read(POD).remove(0);
    let again = read(&to_yaml(&object, NAMES)).remove(0);
    assert_eq!(object, again);
}

#[test]
fn a_pod_without_any_of_it_stays_as_it_was() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  affinity: {podAffinity: {}}\n  \
                topologySpreadConstraints: []\n  containers: [{name: main, image: 'web:1'}]\n";
    let Object::Pod(pod) = &read(text)[0] else { panic!("a Pod") };
    assert!(pod.spec.placement().is_none() && pod.spec.options.get().is_none());
}

#[test]
fn all_mistakes_are_named_together() {
    check(
        r"
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
        - matchExpressions:
          - {key: zone, operator: In}
          - {key: cores, operator: Gt, values: ['1', '2']}
          - {key: cores, operator: Lt, values: [many]}
          - {key: disk, operator: Exists, values: [x]}
          matchFields:
          - {key: metadata.uid, operator: Exists, values: [n1]}
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 0
        preference: {}
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - labelSelector: {matchLabels: {app: web}}
        topologyKey: ''
      - topologyKey: zone
        matchLabelKeys: [a]
      - labelSelector: {matchLabels: {app: web}}
        topologyKey: zone
        matchLabelKeys: [app, b]
        mismatchLabelKeys: [b]
        namespaces: [A_b]
    podAntiAffinity:
      requiredDuringScheduling: []
  topologySpreadConstraints:
  - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}
  - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}
  - {maxSkew: 1, topologyKey: rack, whenUnsatisfiable: ScheduleAnyway, minDomains: 2}
  - {maxSkew: 0, topologyKey: rack, whenUnsatisfiable: DoNotSchedule}
  - {topologyKey: rack}
  containers: [{name: main, image: 'web:1'}]
",
        expect![[r#"
            a.yaml:11:13 spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: must have at least one value for In and NotIn
            a.yaml:12:40 spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].values: must have exactly one value for Gt and Lt
            a.yaml:13:49 spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[2].values[0]: must be a whole number for Gt and Lt
            a.yaml:14:43 spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[3].values: must be empty for Exists and DoesNotExist
            a.yaml:16:14 spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: must be metadata.name: there is no other field
            a.yaml:16:33 spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].operator: must be In or NotIn
            a.yaml:18:17 spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: 0 is out of range: must be between 1 and 100
            a.yaml:23:9 spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: must not be empty
            a.yaml:25:9 spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[1].matchLabelKeys: must not be set without labelSelector
            a.yaml:28:26 spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[2].matchLabelKeys[0]: "app" is in labelSelector too: one of them is enough
            a.yaml:28:31 spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[2].matchLabelKeys[1]: "b" is in mismatchLabelKeys too: no pod can match both
            a.yaml:30:22 spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[2].namespaces[0]: name "A_b" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
            a.yaml:32:7 spec.affinity.podAntiAffinity.requiredDuringScheduling: unknown field
            a.yaml:37:15 spec.topologySpreadConstraints[3].maxSkew: 0 is out of range: must be between 1 and 2147483647
            a.yaml:38:5 spec.topologySpreadConstraints[4].maxSkew: is required
            a.yaml:38:5 spec.topologySpreadConstraints[4].whenUnsatisfiable: is required
        "#]],
    );
}

#[test]
fn bounds_hold_where_the_text_has_no_mistake() {
    let terms = "      - {topologyKey: zone}\n".repeat(33);
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  affinity:\n    podAffinity:\n      \
         requiredDuringSchedulingIgnoredDuringExecution:\n{terms}  topologySpreadConstraints:\n  \
         - {{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}}\n  \
         - {{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}}\n  \
         - {{maxSkew: 1, topologyKey: rack, whenUnsatisfiable: ScheduleAnyway, minDomains: 2}}\n  \
         containers: [{{name: main, image: 'web:1'}}]\n"
    );
    check(
        &pod,
        expect![[r#"
        a.yaml:7:7 spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution: has 33 terms: at most 32 are allowed
        a.yaml:43:5 spec.topologySpreadConstraints[1]: repeats topologyKey "zone" with the same whenUnsatisfiable
        a.yaml:44:72 spec.topologySpreadConstraints[2].minDomains: is possible only with whenUnsatisfiable: DoNotSchedule
    "#]],
    );
}

#[test]
fn ports_of_nodes_are_read_and_printed_as_the_same() {
    let objects = read(include_str!("../../../examples/host-port.yaml"));
    let Object::Deployment(deployment) = &objects[0] else { panic!("a Deployment") };
    let ports: Vec<_> = deployment.spec.template.spec.host_ports().collect();
    let shown: Vec<_> = ports.iter().map(|one| format!("{}:{}", one.ip, one.port)).collect();
    assert_eq!(shown, ["0.0.0.0:80", "127.0.0.1:9090"]);
    assert_eq!(read(&to_yaml(&objects[0], NAMES)), objects);
    let pod = |port: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  - name: c\n    image: i:1\n    \
             ports: [{port}]\n"
        )
    };
    // 0 is none, as in Kubernetes.
    let none = read(&pod("{containerPort: 80, hostPort: 0}"));
    let Object::Pod(none) = &none[0] else { panic!("a pod") };
    assert_eq!(none.spec.host_ports().next(), None);
    check(
        &pod(
            "{containerPort: 80, hostIP: 10.0.0.1}, {containerPort: 81, hostPort: 65536}, {containerPort: 82, hostPort: 82, protocol: UDP}",
        ),
        expect![[r#"
            a.yaml:8:41 spec.containers[0].ports[0].hostIP: says nothing without hostPort
            a.yaml:8:82 spec.containers[0].ports[1].hostPort: 65536 is out of range: must be between 0 and 65535
            a.yaml:8:110 spec.containers[0].ports[2].hostPort: UDP ports cannot be published on a node yet, only TCP ones
        "#]],
    );
}
