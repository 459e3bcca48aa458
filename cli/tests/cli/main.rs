//! The real binary against a server that holds objects in memory and fails when it is told to.

mod autoscaling;
mod claims;
mod compacted;
mod devices;
mod edits;
mod fake;
mod fleets;
mod jobs;
mod placement;
mod preflight;
mod profiles;
mod quotas;
mod sets;
mod top;
mod vertical;
mod what_if;

use std::process::{Command, Output};

use bulkhead_proto::v1;
use expect_test::{Expect, expect};
use fake::Fake;

const MANIFEST: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web:v1
        ports: [{containerPort: 80}]
";

/// Runs the command line against servers.
async fn bulkhead_on(servers: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command
        .env_remove("BULKHEAD_NAMESPACE")
        .env("BULKHEAD_SERVER", servers)
        .env("BULKHEAD_ACTOR", "user:test");
    command.args(words);
    tokio::task::spawn_blocking(move || command.output().expect("the binary runs"))
        .await
        .expect("it was waited for")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Exit code, standard output and standard error, with what differs from run to run taken out.
async fn check(fake: &Fake, words: &[&str], expected: Expect) {
    let output = bulkhead_on(&fake.address, words).await;
    let shown = format!(
        "exit {}\n{}{}",
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr)
    );
    expected.assert_eq(&shown.replace(&fake.address, "SERVER"));
}

/// What a description says without when the object was created.
fn without_times(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("Created:")).map(|line| format!("{line}\n")).collect()
}

fn write(dir: &tempfile::TempDir, name: &str, content: &str) -> String {
    let path = dir.path().join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(&path, content).expect("a file");
    path.display().to_string()
}

/// A server that holds the Deployment of [`MANIFEST`].
async fn with_web() -> Fake {
    let fake = Fake::start().await;
    fake.put_manifest(MANIFEST);
    fake
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_change_keeps_its_request_id() {
    let fake = with_web().await;
    fake.state().refuse_submissions = 3;
    check(
        &fake,
        &["scale", "deploy/web", "--replicas", "5"],
        expect![[r#"
        exit 0
        deployment.apps/web scaled
    "#]],
    )
    .await;
    let ids = fake.state().request_ids.clone();
    assert_eq!(ids.len(), 4, "three refusals and the answer");
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let state = fake.state();
    let Some(v1::object::Object::Deployment(web)) = state.object("web") else { panic!("no deployment") };
    assert_eq!(web.spec.as_ref().and_then(|s| s.replicas), Some(5));
    assert!(state.traceparents.iter().all(|t| t.len() == 55), "{:?}", state.traceparents);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_is_asked_when_one_is_down() {
    let fake = with_web().await;
    let output =
        bulkhead_on(&format!("127.0.0.1:1,{}", fake.address), &["get", "deploy", "-o", "name"]).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "deployment.apps/web\n".to_owned()));
    let output = bulkhead_on("127.0.0.1:1", &["get", "deploy", "--timeout", "300ms"]).await;
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_what_happened() {
    let fake = with_web().await;
    check(
        &fake,
        &["get", "pod", "nobody"],
        expect![[r#"
        exit 3
        error: nobody not found
    "#]],
    )
    .await;
    check(&fake, &["get", "unknown"], expect![[r#"
        exit 2
        error: kind "unknown" is unknown: there are namespaces (ns), nodes (no), pods (po), replicasets (rs), deployments (deploy)
    "#]]).await;
    check(
        &fake,
        &["delete", "deploy", "nobody"],
        expect![[r#"
        exit 3
        error: Deployment default/nobody not found
    "#]],
    )
    .await;
    check(
        &fake,
        &["delete", "deploy", "nobody", "--ignore-not-found"],
        expect![[r#"
        exit 0
    "#]],
    )
    .await;
    check(
        &fake,
        &["label", "deploy", "web", "app=api"],
        expect![[r#"
        exit 5
        error: Deployment default/web has label app already: --overwrite changes it
    "#]],
    )
    .await;
    check(
        &fake,
        &["rollout", "status", "pod/web"],
        expect![[r#"
        exit 2
        error: Pod default/web has no rollouts: only Deployments, StatefulSets and DaemonSets have
    "#]],
    )
    .await;
    fake.state().conflict = true;
    check(
        &fake,
        &["label", "deploy", "web", "tier=front"],
        expect![[r#"
        exit 5
        error: somebody else changed it
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_applied_as_a_whole() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    write(&dir, "a.yaml", MANIFEST);
    write(&dir, "deep/b.json", r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}"#);
    write(&dir, "ignored.txt", "not a manifest");
    let path = dir.path().display().to_string();
    check(
        &fake,
        &["apply", "-f", &path, "--dry-run"],
        expect![[r#"
        exit 0
        deployment.apps/web created (dry run)
        namespace/team created (dry run)
    "#]],
    )
    .await;
    check(
        &fake,
        &["apply", "-f", &path],
        expect![[r#"
        exit 0
        deployment.apps/web created
        namespace/team created
    "#]],
    )
    .await;
    check(
        &fake,
        &["apply", "-f", &path],
        expect![[r#"
        exit 0
        deployment.apps/web unchanged
        namespace/team unchanged
    "#]],
    )
    .await;
    let wrong = write(&dir, "wrong/a.yaml", &MANIFEST.replace("replicas: 2", "replicas: two\n  color: red"));
    let output = bulkhead_on(&fake.address, &["apply", "-f", &wrong]).await;
    assert_eq!(output.status.code(), Some(1));
    expect![[r#"
        error: nothing was applied
        FILE:7:13 spec.replicas: expected a whole number, found the string "two"
        FILE:8:3 spec.color: unknown field
    "#]]
    .assert_eq(&text(&output.stderr).replace(&wrong, "FILE"));
    check(
        &fake,
        &["apply", "-f", "/nowhere.yaml"],
        expect![[r#"
        exit 1
        error: cannot read /nowhere.yaml: No such file or directory (os error 2)
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_get_prints_can_be_applied_again() {
    let fake = with_web().await;
    let dir = tempfile::tempdir().expect("a directory");
    for format in ["yaml", "json"] {
        let printed = bulkhead_on(&fake.address, &["get", "deploy", "web", "-o", format]).await;
        assert!(printed.status.success(), "{}", text(&printed.stderr));
        let file = write(&dir, &format!("web.{format}"), &text(&printed.stdout));
        let applied = bulkhead_on(&fake.address, &["apply", "-f", &file]).await;
        assert_eq!(text(&applied.stdout), "deployment.apps/web unchanged\n", "{}", text(&applied.stderr));
    }
    let list = bulkhead_on(&fake.address, &["get", "deploy,ns", "-o", "yaml"]).await;
    let file = write(&dir, "list.yaml", &text(&list.stdout));
    let applied = bulkhead_on(&fake.address, &["apply", "-f", &file]).await;
    assert_eq!(text(&applied.stdout), "deployment.apps/web unchanged\n", "{}", text(&applied.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_have_kubectls_columns() {
    let fake = with_web().await;
    fake.change_deployment("web", |d| {
        let status = d.status.get_or_insert_default();
        (status.ready_replicas, status.updated_replicas, status.available_replicas) = (1, 2, 1);
    });
    fake.put_running_pod("web-1", "node-1");
    let table = bulkhead_on(&fake.address, &["get", "deploy", "-o", "wide"]).await;
    expect![[r#"
        NAME   READY   UP-TO-DATE   AVAILABLE   AGE   REVISION   CONTAINERS   IMAGES   SELECTOR
        web    1/2     2            1           90d   0          web          web:v1   app=web
    "#]]
    .assert_eq(&text(&table.stdout));
    let table = bulkhead_on(&fake.address, &["get", "pods,nodes", "-A"]).await;
    expect![[r#"
        NAMESPACE   NAME        READY   STATUS    RESTARTS   AGE   NODE
        default     pod/web-1   1/1     Running   0          90d   node-1

        NAME          STATUS     AGE   VERSION   CPU   MEMORY
        node/node-1   NotReady   90d   <none>    0     0
    "#]]
    .assert_eq(&text(&table.stdout));
    check(
        &fake,
        &["get", "rs"],
        expect![[r#"
        exit 0
        No replicasets found in namespace default
    "#]],
    )
    .await;
    let described = bulkhead_on(&fake.address, &["describe", "pod", "web-1"]).await;
    expect![[r#"
        Name:              web-1
        Namespace:         default
        Labels:            app=web
        Annotations:       <none>
        Revision:          5 (generation 1)
        Node:              node-1
        Status:            Running
        Ready:             yes, for 88d
        Conditions:
          TYPE              STATUS   FOR   REASON   MESSAGE
          PodScheduled      True     -
          Initialized       True     -
          ContainersReady   True     88d
          Ready             True     88d
        Guest restarts:    0
        Reserves:          cpu 0, memory 64Mi, ephemeral-storage 0
        Restart policy:    Always
        Grace:             30s
        Containers:
          web:
            Image:         web:v1
            State:         Running, for 89d
            Restarts:      0
            Ready:         yes
        Start:
          STEP     BEGAN     TOOK
          image    0 ms      3 ms
          kernel   150 ms    1200 ms
          output   1700 ms   goes on
          Booted for the pod: its guest is of another size than those of the pool
        Events:
          REVISION   AGE   ACTOR              EVENT      SUMMARY
          7          87d   system:scheduler   PodBound   bound to node-1
    "#]]
    .assert_eq(&without_times(&text(&described.stdout)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rollout_status_follows_to_the_end_and_over_a_lost_connection() {
    let fake = with_web().await;
    fake.change_deployment("web", |d| d.status.get_or_insert_default().observed_generation = 1);
    let address = fake.address.clone();
    let command =
        tokio::spawn(async move { bulkhead_on(&address, &["rollout", "status", "deployment/web"]).await });
    fake.watched(1).await;
    fake.change_deployment("web", |d| {
        let status = d.status.get_or_insert_default();
        (status.updated_replicas, status.replicas) = (2, 2);
    });
    fake.seen_by_watchers().await;
    fake.break_watches();
    fake.watched(2).await;
    fake.change_deployment("web", |d| d.status.get_or_insert_default().available_replicas = 2);
    let output = command.await.expect("it ran");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    expect![[r#"
        Waiting for deployment "web" rollout to finish: 0 out of 2 new replicas have been updated...
        Waiting for deployment "web" rollout to finish: 0 of 2 updated replicas are available...
        deployment "web" successfully rolled out
    "#]]
    .assert_eq(&text(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn rollout_status_fails_when_the_deadline_is_exceeded() {
    let fake = with_web().await;
    fake.change_deployment("web", |d| {
        let status = d.status.get_or_insert_default();
        status.observed_generation = 1;
        status.conditions.push(v1::Condition {
            condition_type: "Progressing".to_owned(),
            status: v1::ConditionStatus::False.into(),
            reason: "ProgressDeadlineExceeded".to_owned(),
            ..v1::Condition::default()
        });
    });
    check(
        &fake,
        &["rollout", "status", "web"],
        expect![[r#"
        exit 1
        error: deployment "web" exceeded its progress deadline
    "#]],
    )
    .await;
    fake.change_deployment("web", |d| d.status.get_or_insert_default().conditions.clear());
    check(
        &fake,
        &["rollout", "status", "web", "--timeout", "200ms"],
        expect![[r#"
        exit 4
        Waiting for deployment "web" rollout to finish: 0 out of 2 new replicas have been updated...
        error: the rollout is not complete after 200ms
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_waits_until_the_object_is_gone() {
    let fake = with_web().await;
    fake.state().delete_slowly = true;
    let address = fake.address.clone();
    let command = tokio::spawn(async move { bulkhead_on(&address, &["delete", "deploy", "web"]).await });
    fake.watched(1).await;
    assert!(!command.is_finished());
    fake.remove("web");
    let output = command.await.expect("it ran");
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "deployment.apps/web deleted\n".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_printed_as_they_are() {
    let fake = with_web().await;
    fake.put_running_pod("web-1", "node-1");
    check(
        &fake,
        &["logs", "web-1"],
        expect![[r#"
        exit 0
        hello world
        second
        third
    "#]],
    )
    .await;
    check(
        &fake,
        &["logs", "web-1", "--timestamps", "-c", "web"],
        expect![[r#"
        exit 0
        1970-01-01T00:00:00.001Z hello world
        1970-01-01T00:00:01Z second
        1970-01-01T00:00:01Z third
    "#]],
    )
    .await;
    check(
        &fake,
        &["logs", "nobody"],
        expect![[r#"
        exit 3
        error: nobody not found
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_of_a_command_in_a_pod_becomes_this_ones() {
    let fake = with_web().await;
    fake.put_running_pod("web-1", "node-1");
    // Standard input, which is asked for, is empty and no terminal.
    check(
        &fake,
        &["exec", "-it", "web-1", "-c", "web", "--", "sh", "-c", "exit 3"],
        expect![[r#"
        exit 3
        web-1 ["sh", "-c", "exit 3"] stdin=true tty=false
        standard input is no terminal: the command has none either
        error: command terminated with exit code 3
    "#]],
    )
    .await;
    check(
        &fake,
        &["exec", "web-1", "-c", "stopped", "--", "sh"],
        expect![[r#"
        exit 1
        error: container stopped does not run
    "#]],
    )
    .await;
    check(
        &fake,
        &["attach", "web-1"],
        expect![[r#"
        exit 0
        hello world
        second
        third
    "#]],
    )
    .await;
    check(
        &fake,
        &["attach", "-it", "web-1"],
        expect![[r#"
        exit 2
        error: container web reads no standard input: its spec does not say stdin: true, which is settled when the pod is made. Leave -i out to see its output, or start a process of your own with bulkhead exec -i
    "#]],
    )
    .await;
    check(
        &fake,
        &["cp", "here", "there"],
        expect![[r#"
        exit 2
        error: neither is in a pod: POD:PATH
    "#]],
    )
    .await;
    check(
        &fake,
        &["cp", "web-1:/etc", "prod/web-1:/etc"],
        expect![[r#"
        exit 2
        error: one of the two must be on this machine
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_leaves_alone_what_nobody_would_start_again() {
    let fake = with_web().await;
    fake.put_running_pod("lonely", "node-1");
    check(&fake, &["drain", "node-1"], expect![[r#"
        exit 1
        node/node-1 cordoned
        error: cannot drain node/node-1: nobody will start these elsewhere: Pod default/lonely; delete them anyway with --force
    "#]]).await;
    check(
        &fake,
        &["drain", "node-1", "--force"],
        expect![[r#"
        exit 0
        node/node-1 already cordoned
        evicting pod default/lonely
        pod/lonely evicted
        node/node-1 drained
    "#]],
    )
    .await;
    check(
        &fake,
        &["uncordon", "node-1"],
        expect![[r#"
        exit 0
        node/node-1 uncordoned
    "#]],
    )
    .await;
    check(
        &fake,
        &["uncordon", "node-1"],
        expect![[r#"
        exit 0
        node/node-1 already uncordoned
    "#]],
    )
    .await;
    check(
        &fake,
        &["taint", "node", "node-1", "gpu=yes:NoSchedule"],
        expect![[r#"
        exit 0
        node/node-1 tainted
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_benchmark_writes_its_figures_down() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("results.jsonl");
    let path = file.display().to_string();
    let words =
        ["bench", "log", "--clients", "1,4", "--duration", "200ms", "--warm-up", "20ms", "--results", &path];
    let output = bulkhead_on(&fake.address, &words).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = std::fs::read_to_string(file).expect("the results");
    let figures: Vec<serde_json::Value> =
        lines.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let names: Vec<&str> = figures.iter().filter_map(|f| f["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "log.unary.c1.throughput",
            "log.unary.c1.p99",
            "log.unary.c4.throughput",
            "log.unary.c4.p99",
            "log.stream.throughput",
            "log.stream.p99"
        ]
    );
    assert!(figures.iter().all(|f| f["value"].as_f64().is_some_and(|v| v > 0.0)), "{lines}");
}
