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
}

#[test]
fn what_cannot_be_read_is_refused_with_its_line() {
    check_refused(
        "env:\n- {name: A, value: x, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}\n- {name: B, valueFrom: {}}\n\
         - {name: C, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n- {name: D, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}\n\
         - {name: E, valueFrom: {configMapKeyRef: {name: a, key: ../b}, secretKeyRef: {name: a, key: b}}}\n\
         - {name: F, valueFrom: {secretKeyRef: {name: a, key: ..b}}}\n\
         - {name: G, valueFrom: {resourceFieldRef: {resource: limits.gpu}}}",
        "",
        expect![[""]],
    );
    check_refused(
        "envFrom:\n- {prefix: a=}\n- {configMapRef: {}}\nvolumeMounts:\n- {name: no, mountPath: a}\n\
         - {name: v, mountPath: /x, subPath: ../y}\n- {name: v, mountPath: /x}\n- {name: v, mountPath: /y, subPathExpr: x}",
        "volumes:\n- {name: v, emptyDir: {sizeLimit: x, medium: Disk}}\n- {name: v, emptyDir: {}, secret: {secretName: a}}",
        expect![[""]],
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
        expect![[""]],
    );
    check_refused(
        "",
        "volumes:\n- {name: v}\n- {name: w, hostPath: {path: /}}\n- {name: x, projected: {sources: [{serviceAccountToken: {path: x}}, {}]}}\n\
         - {name: y, configMap: {name: a, defaultMode: rw}}",
        expect![[""]],
    );
}
