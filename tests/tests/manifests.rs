//! Manifests: every mistake at once, what Kubernetes' tools write is read, and what exit codes mean.

use std::path::Path;

use bulkhead_tests::{Cluster, Done};

/// Four mistakes, each on a line of its own.
const MISTAKES: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: fine
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: Web
spec:
  replicas: many
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
        - name: web
          imagee: demo/web:v1
          resources:
            limits:
              memory: 64Mb
";

/// As `kubectl create deployment --dry-run=client -o yaml` prints it.
const GENERATED: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  creationTimestamp: null
  labels:
    app: web
  name: web
spec:
  replicas: 1
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
      - image: demo/web:v1
        name: web
        resources: {}
status: {}
";

fn apply(cluster: &Cluster, file: &Path, more: &[&str]) -> Done {
    let file = file.to_str().expect("a path in UTF-8");
    cluster.cli().run(&[&["apply", "-f", file], more].concat())
}

#[test]
fn mistakes_are_named_with_their_place_and_nothing_is_applied() {
    let cluster = Cluster::start(1);
    let file = cluster.dir().join("mistakes.yaml");
    std::fs::write(&file, MISTAKES).expect("written");
    let done = apply(&cluster, &file, &[]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    let at = |line: u32, column: u32| format!("mistakes.yaml:{line}:{column}");
    for (place, path) in [
        (at(9, 9), "metadata.name"),
        (at(11, 13), "spec.replicas"),
        (at(22, 11), "spec.template.spec.containers[0].imagee"),
        (at(25, 23), "spec.template.spec.containers[0].resources.limits.memory"),
    ] {
        let line = done.stderr.lines().find(|line| line.contains(&place));
        let line = line.unwrap_or_else(|| panic!("{place} is not in:\n{}", done.stderr));
        assert!(line.contains(path), "{path} is not in: {line}");
        let reason = line.split(path).last().unwrap_or_default();
        assert!(reason.trim_matches([':', ' ']).len() > 5, "no reason: {line}");
    }
    assert!(cluster.cli().object("namespace", "fine").is_none(), "nothing is applied");

    let file = cluster.dir().join("generated.yaml");
    std::fs::write(&file, GENERATED).expect("written");
    let _ = apply(&cluster, &file, &["--dry-run"]).ok();
    assert!(cluster.cli().object("deployment", "web").is_none(), "a dry run changes nothing");
    let _ = apply(&cluster, &file, &[]).ok();
    assert!(cluster.cli().object("deployment", "web").is_some());
    let again = apply(&cluster, &file, &[]).ok();
    assert!(again.contains("unchanged"), "{again}");
}

#[test]
fn a_resource_version_is_a_precondition() {
    let cluster = Cluster::start(1);
    let file = cluster.dir().join("labelled.yaml");
    let version = || {
        let object = cluster.cli().object("namespace", "labelled").expect("there");
        object["metadata"]["resourceVersion"].as_str().expect("a string").to_owned()
    };
    let write = |version: &str, label: &str| {
        let meta = format!("{{name: labelled, resourceVersion: \"{version}\", labels: {{is: {label}}}}}");
        std::fs::write(&file, format!("apiVersion: v1\nkind: Namespace\nmetadata: {meta}\n"))
            .expect("written");
    };
    // Not there yet: whoever wrote it has read something that is gone.
    write("7", "first");
    apply(&cluster, &file, &[]).refused(5, &["does not exist", "expected at revision 7"]);
    write("", "first");
    let _ = apply(&cluster, &file, &[]).ok();
    let read = version();
    write(&read, "second");
    let _ = apply(&cluster, &file, &[]).ok();
    let now = version();
    write(&read, "third");
    let words = ["labelled", &format!("has revision {now}, not {read}"), "read it again"];
    apply(&cluster, &file, &["--dry-run"]).refused(5, &words);
    apply(&cluster, &file, &[]).refused(5, &words);
    write(&now, "third");
    let _ = apply(&cluster, &file, &[]).ok();
}

#[test]
fn exit_codes_are_as_documented() {
    let mut cluster = Cluster::start(1);
    let cli = cluster.cli();
    let _ = cli.run(&["get", "namespaces"]).ok();
    cli.run(&["get", "--no-such-option"]).refused(2, &["--no-such-option"]);
    cli.run(&["get", "unicorns"]).refused(2, &["unicorns"]);
    cli.run(&["get", "pod", "nobody"]).refused(3, &["nobody"]);
    cli.run(&["delete", "deployment", "nobody"]).refused(3, &["nobody"]);
    cli.run(&["delete", "namespace", "default"]).refused(1, &["default"]);

    // A deployment that nobody can run never becomes complete.
    let file = cluster.dir().join("generated.yaml");
    std::fs::write(&file, GENERATED).expect("written");
    let _ = apply(&cluster, &file, &[]).ok();
    let waited = cli.run(&["rollout", "status", "deployment/web", "--timeout", "1s"]);
    assert_eq!(waited.code, 4, "{}{}", waited.stdout, waited.stderr);

    // Somebody else was first: the id is taken.
    let again = cli.run(&["member", "add", "127.0.0.1:9", "--id", "1"]);
    again.refused(5, &["1"]);

    cluster.take(1).terminate();
    let nobody = cli.run(&["--timeout", "1s", "get", "namespaces"]);
    assert_eq!(nobody.code, 4, "{}{}", nobody.stdout, nobody.stderr);
}
