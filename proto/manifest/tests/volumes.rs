//! Variables and volumes from ConfigMaps, Secrets and the pod itself: what is read is printed again, and every mistake.

use bulkhead_manifest::{Names, Source, parse, to_yaml};
use bulkhead_types::{Kind, Name, Object, ObjectId};
use expect_test::{Expect, expect};

fn read(text: &str) -> Result<Vec<Object>, String> {
    let source = Source { name: "a.yaml".to_owned(), text: text.to_owned() };
    let namespace = Name::new("default").expect("a name");
    match parse(&[source], Some(&namespace)) {
        Ok(parsed) => Ok(parsed.into_iter().map(|p| p.object).collect()),
        Err(errors) => Err(errors.iter().map(|e| format!("{e}\n")).collect()),
    }
}

/// A pod whose container and whose spec have more.
fn pod(container: &str, spec: &str) -> String {
    let indented = |text: &str, by: &str| text.lines().map(|l| format!("{by}{l}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n{}  containers:\n  - name: c\n    image: i:1\n{}",
        indented(spec, "  "),
        indented(container, "    ")
    )
}

fn no_name(_: Kind, _: ObjectId) -> Option<Name> {
    None
}

fn check_printed(text: &str) {
    let names = Names { cluster_id: None, name_of: &no_name };
    for object in read(text).unwrap_or_else(|errors| panic!("{errors}")) {
        let printed = to_yaml(&object, names);
        let again = read(&printed).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
        assert_eq!(again, [object], "{printed}");
    }
}

fn check_refused(container: &str, spec: &str, expected: Expect) {
    let errors = read(&pod(container, spec)).expect_err("a mistake");
    expected.assert_eq(&errors);
}

const VOLUMES: &str = "\
volumes:
- name: a
  emptyDir: {}
- name: b
  emptyDir: {medium: Memory, sizeLimit: 1Gi}
- name: c
  configMap: {name: settings, defaultMode: 0400, optional: true, items: [{key: k, path: x/y, mode: 0o440}]}
- name: d
  secret: {secretName: keys, defaultMode: 256}
- name: e
  downwardAPI:
    items:
    - {path: labels, fieldRef: {apiVersion: v1, fieldPath: metadata.labels}}
    - {path: cpu, resourceFieldRef: {containerName: c, resource: limits.cpu, divisor: 1m}}
- name: f
  projected:
    sources:
    - configMap: {name: settings}
    - secret: {name: keys, items: [{key: k, path: z}]}
    - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}, mode: 0600}]}
";

#[test]
fn everything_is_read_and_printed_again() {
    let container = "\
env:
- {name: A, value: $(B)}
- {name: B, valueFrom: {configMapKeyRef: {name: settings, key: k, optional: true}}}
- {name: C, valueFrom: {secretKeyRef: {name: keys, key: k}}}
- {name: D, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['a/b']\"}}}
- {name: E, valueFrom: {resourceFieldRef: {resource: requests.memory}}}
envFrom:
- {prefix: P_, configMapRef: {name: settings}}
- {secretRef: {name: keys, optional: true}}
volumeMounts:
- {name: a, mountPath: /a, readOnly: true}
- {name: b, mountPath: /b/c/, subPath: x/y}
";
    check_printed(&pod(container, VOLUMES));
    check_printed(include_str!("../../../examples/config.yaml"));
    check_printed(include_str!("../../../examples/pod-network.yaml"));
    check_printed(include_str!("../../../examples/resize.yaml"));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_line() {
    check_refused(
        "env:\n- {name: A, value: x, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}\n- {name: B, valueFrom: {}}\n\
         - {name: C, valueFrom: {fieldRef: {fieldPath: status.phase}}}\n- {name: D, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}\n\
         - {name: E, valueFrom: {configMapKeyRef: {name: a, key: ../b}, secretKeyRef: {name: a, key: b}}}\n\
         - {name: F, valueFrom: {secretKeyRef: {name: a, key: ..b}}}\n\
         - {name: G, valueFrom: {resourceFieldRef: {resource: limits.gpu}}}",
        "",
        expect![[r#"
            a.yaml:11:28 spec.containers[0].env[1].valueFrom: needs one of configMapKeyRef, secretKeyRef, fieldRef, resourceFieldRef
            a.yaml:12:51 spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: "status.phase" is no field that a pod tells: use metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, status.podIP or status.hostIP
            a.yaml:14:82 spec.containers[0].env[4].valueFrom.secretKeyRef: only one of configMapKeyRef, secretKeyRef, fieldRef, resourceFieldRef is possible
            a.yaml:16:58 spec.containers[0].env[6].valueFrom.resourceFieldRef.resource: "limits.gpu" is not one of requests.cpu, limits.cpu, requests.memory, limits.memory, requests.ephemeral-storage, limits.ephemeral-storage
        "#]],
    );
    check_refused(
        "envFrom:\n- {prefix: a=}\n- {configMapRef: {}}\nvolumeMounts:\n- {name: no, mountPath: a}\n\
         - {name: v, mountPath: /x, subPath: ../y}\n- {name: v, mountPath: /x}\n- {name: v, mountPath: /y, subPathExpr: x}",
        "volumes:\n- {name: v, emptyDir: {sizeLimit: x, medium: Disk}}\n- {name: v, emptyDir: {}, secret: {secretName: a}}",
        expect![[r#"
            a.yaml:7:37 spec.volumes[0].emptyDir.sizeLimit: "x" is not a quantity: expected a number with an optional suffix (m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei)
            a.yaml:7:48 spec.volumes[0].emptyDir.medium: "Disk" is not one of Memory, HugePages, HugePages-2Mi, HugePages-1Gi
            a.yaml:8:37 spec.volumes[1].secret: only one of emptyDir, configMap, secret, downwardAPI, projected, persistentVolumeClaim is possible
            a.yaml:13:7 spec.containers[0].envFrom[0]: needs one of configMapRef, secretRef
            a.yaml:14:22 spec.containers[0].envFrom[1].configMapRef.name: is required
            a.yaml:16:8 spec.containers[0].volumeMounts[0].name: "no" is no volume of the pod
            a.yaml:16:18 spec.containers[0].volumeMounts[0].mountPath: "a" must be an absolute path below /, without ':', empty parts, '.' and '..'
            a.yaml:17:32 spec.containers[0].volumeMounts[1].subPath: "../y" must be a relative path without empty parts, '.' and '..', must not begin with '..', and must have at most 1024 bytes
            a.yaml:18:17 spec.containers[0].volumeMounts[2].mountPath: "/x" is used twice in the container
            a.yaml:19:32 spec.containers[0].volumeMounts[3].subPathExpr: not supported yet
        "#]],
    );
}

#[test]
fn what_does_not_hold_together_is_refused_with_its_line() {
    check_refused(
        "envFrom:\n- {prefix: a=, configMapRef: {name: A_B}}\n\
         volumeMounts:\n- {name: no, mountPath: a}\n- {name: v, mountPath: /x, subPath: ../y}\n- {name: v, mountPath: /x/}\n\
         env:\n- {name: D, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}\n- {name: E, valueFrom: {secretKeyRef: {name: a, key: ..b}}}\n\
         - {name: F, value: x, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}",
        "volumes:\n- {name: v, emptyDir: {sizeLimit: 0}}\n- {name: v, configMap: {name: a, defaultMode: 01000}}\n\
         - {name: w, secret: {secretName: a, items: [{key: k, path: /x}]}}\n\
         - {name: x, downwardAPI: {items: [{path: x, resourceFieldRef: {resource: limits.cpu}}]}}",
        expect![[r#"
            a.yaml:7:26 spec.volumes[0].emptyDir.sizeLimit: must be more than nothing, and at most 2^53
            a.yaml:8:6 spec.volumes[1].name: "v" is used twice: names of volumes are unique in a pod
            a.yaml:8:36 spec.volumes[1].configMap.defaultMode: must be between 0 and 0777
            a.yaml:9:56 spec.volumes[2].secret.items[0].path: "/x" must be a relative path without empty parts, '.' and '..', must not begin with '..', and must have at most 1024 bytes
            a.yaml:10:47 spec.volumes[3].downwardAPI.items[0].resourceFieldRef.containerName: is required in a volume
            a.yaml:15:8 spec.containers[0].envFrom[0].prefix: must be printable ASCII without '='
            a.yaml:15:35 spec.containers[0].envFrom[0].configMapRef.name: name "A_B" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
            a.yaml:17:8 spec.containers[0].volumeMounts[0].name: "no" is no volume of the pod
            a.yaml:17:18 spec.containers[0].volumeMounts[0].mountPath: "a" must be an absolute path below /, without ':', empty parts, '.' and '..'
            a.yaml:18:32 spec.containers[0].volumeMounts[1].subPath: "../y" must be a relative path without empty parts, '.' and '..', must not begin with '..', and must have at most 1024 bytes
            a.yaml:19:17 spec.containers[0].volumeMounts[2].mountPath: "/x" is used twice in the container
            a.yaml:21:40 spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: is possible in a volume only: name a key in ['...']
            a.yaml:22:53 spec.containers[0].env[1].valueFrom.secretKeyRef.key: is no key: must be 1 to 253 letters, digits, '-', '_' or '.', not '.' and not begin with '..'
            a.yaml:23:17 spec.containers[0].env[2].value: must be empty when valueFrom is set
        "#]],
    );
    check_refused(
        "",
        "volumes:\n- {name: v}\n- {name: w, hostPath: {path: /}}\n- {name: x, projected: {sources: [{serviceAccountToken: {path: x}}, {}]}}\n\
         - {name: y, configMap: {name: a, defaultMode: rw}}",
        expect![[r#"
            a.yaml:7:5 spec.volumes[0]: needs one of emptyDir, configMap, secret, downwardAPI, projected, persistentVolumeClaim
            a.yaml:8:15 spec.volumes[1].hostPath: not supported yet
            a.yaml:9:38 spec.volumes[2].projected.sources[0].serviceAccountToken: not supported yet
            a.yaml:9:71 spec.volumes[2].projected.sources[1]: needs one of configMap, secret, downwardAPI
            a.yaml:10:49 spec.volumes[3].configMap.defaultMode: expected permissions such as 0644, found the string "rw"
        "#]],
    );
}
