//! Edits on real servers: fields have managers, conflicts are named, and what a manifest no longer says goes.

use bulkhead_tests::Cluster;
use serde_json::Value;

const WEB: &str = include_str!("../../examples/deployment.yaml");

fn web(cluster: &Cluster) -> Value {
    cluster.cli().object("deployment", "web").expect("it is there")
}

#[test]
fn apply_leaves_to_others_what_is_theirs() {
    let cluster = Cluster::start(1);
    let (cli, dir) = (cluster.cli(), cluster.dir());
    cli.apply(dir, WEB);
    // `scale` owns the number from now on: a manifest without one leaves it.
    let _ = cli.run(&["scale", "deploy/web", "--replicas", "5"]).ok();
    let _ = cli.run(&["label", "deploy/web", "team=a"]).ok();
    let _ = cli.run(&["annotate", "deploy/web", "kubernetes.io/change-cause=second"]).ok();
    cli.apply(dir, WEB);
    let found = web(&cluster);
    assert_eq!(found["spec"]["replicas"], 5);
    assert_eq!(found["metadata"]["labels"]["team"], "a");
    assert_eq!(found["metadata"]["annotations"]["kubernetes.io/change-cause"], "second");
    // One with a number is told whose it is, until it takes it over.
    let file = dir.join("web.yaml");
    let path = file.to_str().expect("a path in UTF-8");
    let with_number = WEB.replacen("spec:\n", "spec:\n  replicas: 3\n", 1);
    std::fs::write(&file, &with_number).expect("written");
    let words = ["spec.replicas", "is managed by \"scale\"", "--force-conflicts"];
    cli.run(&["apply", "-f", path]).refused(5, &words);
    cli.run(&["diff", "-f", path]).refused(5, &words);
    let _ = cli.run(&["apply", "-f", path, "--force-conflicts"]).ok();
    assert_eq!(web(&cluster)["spec"]["replicas"], 3);
    // A line that is taken out of the manifest goes; the default comes back.
    std::fs::write(&file, WEB.replace("  minReadySeconds: 5\n", "")).expect("written");
    let diff = cli.run(&["diff", "-f", path]);
    assert_eq!(diff.code, 1, "{}{}", diff.stdout, diff.stderr);
    assert!(diff.stdout.contains("-  minReadySeconds: 5\n+  minReadySeconds: 0\n"), "{}", diff.stdout);
    let _ = cli.run(&["apply", "-f", path]).ok();
    assert_eq!(web(&cluster)["spec"]["minReadySeconds"], 0);
    assert_eq!(web(&cluster)["spec"]["replicas"], 1);
    assert_eq!(cli.run(&["diff", "-f", path]).code, 0);
    assert!(cli.run(&["apply", "-f", path]).ok().contains("unchanged"));
}

#[test]
fn a_stopped_deployment_runs_nothing_and_is_not_scaled() {
    let cluster = Cluster::start(1);
    let cli = cluster.cli();
    cli.apply(cluster.dir(), WEB);
    let _ =
        cli.run(&["wait", "deploy/web", "--for", "jsonpath={.status.replicas}=1", "--timeout", "90s"]).ok();
    let _ = cli.run(&["stop", "deploy/web"]).ok();
    let _ =
        cli.run(&["wait", "deploy/web", "--for", "jsonpath={.status.replicas}=0", "--timeout", "90s"]).ok();
    cli.run(&["scale", "deploy/web", "--replicas", "2"]).refused(1, &["is stopped", "start it first"]);
    // A manifest that says nothing of it does not start it.
    cli.apply(cluster.dir(), WEB);
    assert_eq!(web(&cluster)["spec"]["stopped"], true);
    let _ = cli.run(&["start", "deploy/web"]).ok();
    let _ =
        cli.run(&["wait", "deploy/web", "--for", "jsonpath={.status.replicas}=1", "--timeout", "90s"]).ok();
}

#[test]
fn parts_are_patched_and_set_by_whoever_is_asked() {
    let cluster = Cluster::start(1);
    let (cli, dir) = (cluster.cli(), cluster.dir());
    cli.apply(dir, WEB);
    let _ = cli.run(&["set", "image", "deploy/web", "web=demo/web:v2"]).ok();
    let _ = cli
        .run(&[
            "patch",
            "deploy/web",
            "-p",
            "spec: {template: {spec: {containers: [{name: web, args: [a]}]}}}",
        ])
        .ok();
    let container = || web(&cluster)["spec"]["template"]["spec"]["containers"][0].clone();
    assert_eq!(
        (container()["image"].as_str(), container()["args"][0].as_str()),
        (Some("demo/web:v2"), Some("a"))
    );
    cli.run(&[
        "patch",
        "deploy/web",
        "--type",
        "merge",
        "-p",
        "spec: {selector: {matchLabels: {app: other}}}",
    ])
    .refused(1, &["spec.selector"]);
    let file = dir.join("web.yaml");
    std::fs::write(&file, WEB).expect("written");
    let path = file.to_str().expect("a path in UTF-8");
    cli.run(&["apply", "-f", path]).refused(5, &["containers[name=web].image", "bulkhead-set"]);
    // A patch of what the manifest does not say is nobody's business but its own.
    let ours = WEB.replace("demo/web:v1", "demo/web:v2");
    std::fs::write(&file, ours).expect("written");
    let _ = cli.run(&["apply", "-f", path]).ok();
    assert_eq!(container()["args"][0], "a");
    let shown = cli.run(&["get", "deploy/web", "-o", "yaml", "--show-managed-fields"]).ok();
    assert!(shown.contains("manager: bulkhead-patch") && shown.contains("f:args"), "{shown}");
    let hidden = cli.run(&["get", "deploy/web", "-o", "yaml"]).ok();
    assert!(!hidden.contains("managedFields"), "{hidden}");
}

/// How many pods would be placed and wait, as `what-if` says it.
fn would_be(cluster: &Cluster, words: &[&str]) -> (bool, String) {
    let said = cluster.cli().run(&[&["what-if"], words].concat()).ok();
    (said.contains("placed    default"), said)
}

#[test]
fn what_would_be_is_asked_and_changes_nothing() {
    let cluster = Cluster::start(3);
    let (cli, dir) = (cluster.cli(), cluster.dir());
    let file = dir.join("web.yaml");
    let path = file.to_str().expect("a path in UTF-8");
    std::fs::write(&file, WEB).expect("written");
    let new_nodes = ["--add-nodes", "2", "--cpu", "4", "--memory", "8Gi"];
    let (placed, said) = would_be(&cluster, &[&new_nodes[..], &["-f", path]].concat());
    assert!(placed && said.contains("what-if-1") && said.contains(" 1 be placed, 0 wait"), "{said}");
    assert!(cli.object("deployment", "web").is_none(), "a file that was only asked about is not applied");
    let revision = said.split("At revision ").nth(1).and_then(|rest| rest.split(':').next());
    let before: u64 = revision.expect("the revision is said").parse().expect("a number");

    cli.apply(dir, WEB);
    let waits = ["wait", "deploy/web", "--for", "jsonpath={.status.replicas}=1", "--timeout", "90s"];
    let _ = cli.run(&waits).ok();
    let (placed, said) = would_be(&cluster, &[]);
    assert!(!placed && said.contains("no nodes available to schedule pods"), "{said}");
    let (placed, said) = would_be(&cluster, &new_nodes);
    assert!(placed && said.contains(" 1 be placed, 0 wait"), "{said}");
    // Before it was applied there was nothing to place.
    let at = before.to_string();
    let (_, said) = would_be(&cluster, &[&new_nodes[..], &["--at", &at]].concat());
    assert!(said.contains(&format!("At revision {at}: 0 pods would end, 0 be placed, 0 wait")), "{said}");

    // There are no nodes that more of could help.
    let said = cli.run(&["advise"]).ok();
    assert!(said.contains("1 pods wait") && said.contains("No pool helps"), "{said}");
    cli.run(&["advise", "--at", "999999999"]).refused(1, &["at_revision", "yet to come"]);
    cli.run(&["advise", "--priority", "a=1"]).refused(2, &["--expander priority"]);

    cli.run(&["what-if", "--drain", "nowhere"]).refused(3, &["Node nowhere", "does not exist"]);
    cli.run(&["what-if", "--at", "999999999"]).refused(1, &["at_revision", "yet to come"]);
    std::fs::write(&file, format!("{WEB}\nnonsense: 1\n")).expect("written");
    cli.run(&["what-if", "-f", path]).refused(1, &["web.yaml", "nonsense"]);
    assert_eq!(web(&cluster)["status"]["replicas"], 1);
}
