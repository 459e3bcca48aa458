//! Changes of objects that are there: patch, replace, edit, set, annotate, diff, prune, stop.

use std::os::unix::fs::PermissionsExt as _;

use bulkhead_proto::v1::object::Object as Kind;
use expect_test::expect;

use crate::fake::Fake;
use crate::{MANIFEST, bulkhead_on, check, text, with_web, write};

fn web(fake: &Fake) -> bulkhead_types::Deployment {
    let Some(Kind::Deployment(web)) = fake.state().object("web").cloned() else { panic!("no deployment") };
    bulkhead_types::Deployment::try_from(web).expect("a good object")
}

/// With which code a command ends, and the one line that it says.
async fn says(fake: &Fake, words: &[&str], code: i32, line: &str) {
    let output = bulkhead_on(&fake.address, words).await;
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!((output.status.code(), said), (Some(code), format!("{line}\n")), "{words:?}");
}

fn image(fake: &Fake) -> String {
    web(fake).spec.template.spec.containers[0].image.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_kinds_of_patches() {
    let fake = with_web().await;
    let strategic = "spec: {template: {spec: {containers: [{name: web, image: 'web:v2'}]}}}";
    says(&fake, &["patch", "deploy", "web", "-p", strategic], 0, "deployment.apps/web patched").await;
    assert_eq!(image(&fake), "web:v2");
    assert_eq!(web(&fake).spec.template.spec.containers[0].ports.len(), 1, "the rest of the container stays");
    let merge = r#"{"spec": {"replicas": 4, "paused": true}}"#;
    says(&fake, &["patch", "deploy/web", "--type", "merge", "-p", merge], 0, "deployment.apps/web patched")
        .await;
    let spec = web(&fake).spec;
    assert_eq!((spec.replicas, spec.paused), (4, true));
    let json =
        r#"[{"op": "test", "path": "/spec/replicas", "value": 4}, {"op": "remove", "path": "/spec/paused"}]"#;
    says(&fake, &["patch", "deploy/web", "--type", "json", "-p", json], 0, "deployment.apps/web patched")
        .await;
    assert!(!web(&fake).spec.paused);
    says(
        &fake,
        &["patch", "deploy/web", "--type", "json", "-p", json],
        1,
        "error: the patch does not fit: operation '/1' failed at path '/spec/paused': path is invalid",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_that_do_not_fit_change_nothing() {
    let fake = with_web().await;
    check(
        &fake,
        &["patch", "deploy/web", "-p", "spec: {replcas: 3}"],
        expect![[r#"
        exit 1
        error: nothing was applied
        Deployment default/web:1:196 spec.replcas: unknown field: did you mean "replicas"?
    "#]],
    )
    .await;
    says(
        &fake,
        &["patch", "deploy/web", "-p", "metadata: {name: other}"],
        1,
        "error: metadata.name cannot change: it says which object this is",
    )
    .await;
    says(
        &fake,
        &["patch", "deploy/web", "-p", "spec: {replicas: 9}", "--dry-run"],
        0,
        "deployment.apps/web patched (dry run)",
    )
    .await;
    assert_eq!(web(&fake).spec.replicas, 2);
    fake.state().conflict = true;
    says(&fake, &["patch", "deploy/web", "-p", "spec: {replicas: 9}"], 5, "error: somebody else changed it")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_objects_are_replaced_only_where_they_are() {
    let fake = with_web().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = write(&dir, "web.yaml", &MANIFEST.replace("replicas: 2", "replicas: 6"));
    says(&fake, &["replace", "-f", &path], 0, "deployment.apps/web replaced").await;
    assert_eq!(web(&fake).spec.replicas, 6);
    let other = write(&dir, "other.yaml", &MANIFEST.replacen("name: web\n", "name: other\n", 1));
    says(&fake, &["replace", "-f", &other], 3, "error: Deployment default/other does not exist").await;
    let stale = write(
        &dir,
        "stale.yaml",
        &MANIFEST.replacen("name: web\n", "name: web\n  resourceVersion: '1'\n", 1),
    );
    says(&fake, &["replace", "-f", &stale], 5, "error: Deployment default/web changed meanwhile").await;
}

/// An editor that runs one command of sed.
fn editor(dir: &tempfile::TempDir, name: &str, command: &str) -> String {
    let path = write(dir, name, &format!("#!/bin/sh\nexec sed -i '{command}' \"$1\"\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a script");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_in_an_editor() {
    let fake = with_web().await;
    let dir = tempfile::tempdir().expect("a directory");
    let nothing = editor(&dir, "nothing", "s/nowhere//");
    says(&fake, &["edit", "deploy", "web", "--editor", &nothing], 0, "deployment.apps/web not changed").await;
    let more = editor(&dir, "more", "s/replicas: 2/replicas: 3/");
    says(&fake, &["edit", "deploy", "web", "--editor", &more], 0, "deployment.apps/web edited").await;
    assert_eq!(web(&fake).spec.replicas, 3);
    // A mistake is shown above the text when it is opened again; who saves it as it is gets it kept.
    let seen = dir.path().join("seen").display().to_string();
    let wrong = write(
        &dir,
        "wrong",
        &format!("#!/bin/sh\ncat \"$1\" >> {seen}\nexec sed -i 's/replicas: 3/replcas: 3/' \"$1\"\n"),
    );
    std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o755)).expect("a script");
    let output = bulkhead_on(&fake.address, &["edit", "deploy", "web", "--editor", &wrong]).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("replcas") && said.contains("what you wrote is kept in"), "{said}");
    let shown = std::fs::read_to_string(&seen).expect("the editor ran");
    assert!(shown.contains("# deployment.apps/web:"), "{shown}");
    let kept = said.lines().find_map(|l| l.strip_prefix("what you wrote is kept in ")).expect("a path");
    assert!(std::fs::read_to_string(kept).expect("it is kept").contains("replcas"));
    std::fs::remove_file(kept).expect("it is there");
    assert_eq!(web(&fake).spec.replicas, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_concern_is_set_without_the_rest() {
    let fake = with_web().await;
    says(&fake, &["set", "image", "deploy/web", "web=web:v9"], 0, "deployment.apps/web image updated").await;
    assert_eq!(image(&fake), "web:v9");
    says(
        &fake,
        &["set", "image", "deploy/web", "nobody=web:v9"],
        3,
        r#"error: there is no container "nobody""#,
    )
    .await;
    says(&fake, &["set", "env", "deploy/web", "A=1", "B=2"], 0, "deployment.apps/web env updated").await;
    says(&fake, &["set", "env", "deploy/web", "A-"], 0, "deployment.apps/web env updated").await;
    says(
        &fake,
        &["set", "resources", "deploy/web", "--limits", "cpu=1,memory=1Gi", "--requests", "cpu=500m"],
        0,
        "deployment.apps/web resource requirements updated",
    )
    .await;
    let container = &web(&fake).spec.template.spec.containers[0];
    assert_eq!((container.env.len(), container.env[0].name.as_str()), (1, "B"));
    assert_eq!((container.limits.cpu_millis, container.requests.cpu_millis), (Some(1000), Some(500)));
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_deployment_rolls_and_is_placed_is_set_without_the_rest() {
    let fake = with_web().await;
    says(
        &fake,
        &["set", "strategy", "deploy/web", "--max-surge", "0", "--max-unavailable", "50%"],
        0,
        "deployment.apps/web strategy updated",
    )
    .await;
    says(
        &fake,
        &["set", "scheduling", "deploy/web", "--node-selector", "disk=ssd", "--toleration", "gpu:NoSchedule"],
        0,
        "deployment.apps/web scheduling updated",
    )
    .await;
    let spec = web(&fake).spec;
    assert_eq!(
        spec.strategy,
        bulkhead_types::DeploymentStrategy::RollingUpdate {
            max_surge: bulkhead_types::IntOrPercent::Int(0),
            max_unavailable: bulkhead_types::IntOrPercent::Percent(50),
        }
    );
    let pod = &spec.template.spec;
    assert_eq!(pod.node_selector.get("disk").map(|v| v.as_str()), Some("ssd"));
    assert_eq!(pod.tolerations.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn strategy_and_annotations_are_set() {
    let fake = with_web().await;
    says(&fake, &["set", "strategy", "deploy/web", "--recreate"], 0, "deployment.apps/web strategy updated")
        .await;
    assert_eq!(web(&fake).spec.strategy, bulkhead_types::DeploymentStrategy::Recreate);
    says(
        &fake,
        &["set", "strategy", "deploy/web"],
        2,
        "error: nothing to set: --max-surge, --max-unavailable, --partition, --recreate or --on-delete",
    )
    .await;
    says(
        &fake,
        &["annotate", "deploy/web", "kubernetes.io/change-cause=any text"],
        0,
        "deployment.apps/web annotated",
    )
    .await;
    says(&fake, &["annotate", "deploy/web", "kubernetes.io/change-cause=other"], 5, "error: Deployment default/web has annotation kubernetes.io/change-cause already: --overwrite changes it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_says_what_an_apply_would_change() {
    let fake = with_web().await;
    let dir = tempfile::tempdir().expect("a directory");
    let same = write(&dir, "same.yaml", MANIFEST);
    check(
        &fake,
        &["diff", "-f", &same],
        expect![[r#"
        exit 0
    "#]],
    )
    .await;
    let other = write(&dir, "other.yaml", &MANIFEST.replace("replicas: 2", "replicas: 5"));
    check(
        &fake,
        &["diff", "-f", &other],
        expect![[r#"
        exit 1
        --- present deployment.apps/web
        +++ applied deployment.apps/web
        @@ -8,7 +8,7 @@
         spec:
           minReadySeconds: 0
           progressDeadlineSeconds: 600
        -  replicas: 2
        +  replicas: 5
           revisionHistoryLimit: 10
           selector:
             matchLabels:
    "#]],
    )
    .await;
    assert_eq!(web(&fake).spec.replicas, 2, "nothing was changed");
    let wrong = write(&dir, "wrong.yaml", &MANIFEST.replace("replicas: 2", "replicas: two"));
    let output = bulkhead_on(&fake.address, &["diff", "-f", &wrong]).await;
    assert_eq!(output.status.code(), Some(2), "above 1 for a failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_named_and_forced() {
    let fake = with_web().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = write(&dir, "web.yaml", MANIFEST);
    says(&fake, &["apply", "-f", &path], 0, "deployment.apps/web unchanged").await;
    says(&fake, &["set", "image", "deploy/web", "web=web:v2"], 0, "deployment.apps/web image updated").await;
    says(
        &fake,
        &["apply", "-f", &path],
        5,
        r#"error: spec.template.spec.containers[name=web].image is managed by "bulkhead-set""#,
    )
    .await;
    says(&fake, &["apply", "-f", &path, "--force-conflicts"], 0, "deployment.apps/web configured").await;
    assert_eq!(image(&fake), "web:v1");
    says(&fake, &["apply", "-f", &path, "--server-side"], 0, "deployment.apps/web unchanged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_deletes_what_no_manifest_names() {
    let fake = with_web().await;
    let named = |name: &str| MANIFEST.replacen("name: web\n", &format!("name: {name}\n"), 1);
    fake.put_manifest(&named("old"));
    fake.put_manifest(&named("other").replacen("labels: {app: web}\n", "labels: {app: other}\n", 1));
    fake.put_manifest(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: kept, labels: {app: web}}, data: {a: b}}",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let path = write(&dir, "web.yaml", MANIFEST);
    let output = bulkhead_on(&fake.address, &["apply", "-f", &path, "--prune"]).await;
    assert_eq!(output.status.code(), Some(2), "without labels too much would go");
    check(
        &fake,
        &["apply", "-f", &path, "--prune", "-l", "app=web", "--dry-run"],
        expect![[r#"
            exit 0
            deployment.apps/web unchanged (dry run)
            deployment.apps/old pruned (dry run)
        "#]],
    )
    .await;
    check(
        &fake,
        &["apply", "-f", &path, "--prune", "-l", "app=web"],
        expect![[r#"
            exit 0
            deployment.apps/web unchanged
            deployment.apps/old pruned
        "#]],
    )
    .await;
    let state = fake.state();
    assert!(
        state.object("old").is_none() && state.object("other").is_some() && state.object("kept").is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_stopped_and_started() {
    let fake = with_web().await;
    let done = |words: &'static [&'static str], said: &'static str| {
        let fake = fake.clone();
        async move {
            let output = bulkhead_on(&fake.address, words).await;
            assert_eq!(text(&output.stdout), said, "{}", text(&output.stderr));
        }
    };
    done(&["stop", "deploy/web"], "deployment.apps/web stopped\n").await;
    assert!(web(&fake).spec.stopped);
    done(&["start", "deploy", "web"], "deployment.apps/web started\n").await;
    assert!(!web(&fake).spec.stopped);
    done(&["redeploy", "deploy", "web"], "deployment.apps/web redeployed\n").await;
    says(
        &fake,
        &["stop", "ds/web"],
        2,
        "error: DaemonSet default/web cannot be stopped or started: only Deployments and StatefulSets can",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_for_what_stands_at_a_path() {
    let fake = with_web().await;
    says(
        &fake,
        &["wait", "deploy/web", "--for", "jsonpath={.spec.replicas}=2"],
        0,
        "deployment.apps/web condition met",
    )
    .await;
    says(
        &fake,
        &["wait", "deploy/web", "--for", "jsonpath={.spec.replicas}=7", "--timeout", "300ms"],
        4,
        "error: not so after 300ms: $.spec.replicas is 7",
    )
    .await;
    let waits = ["wait", "deploy/web", "--for", "jsonpath={.spec.paused}=true"];
    let (output, ()) = tokio::join!(bulkhead_on(&fake.address, &waits), async {
        fake.watched(2).await;
        fake.change_deployment("web", |d| d.spec.get_or_insert_default().paused = true);
    });
    assert_eq!(text(&output.stdout), "deployment.apps/web condition met\n", "{}", text(&output.stderr));
}
