//! Real guests under QEMU: output, exit codes, restarts, and what survives whom.

#[path = "guests/network.rs"]
mod network;

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bulkhead_tests::{Agent, Cluster, IMAGE_NAME, build_layout, find_program, guest_environment, skip, wait};
use serde_json::Value;

/// How long a guest may take to boot under emulation, on a busy machine.
const BOOT_SECONDS: u64 = 240;
/// How long the control plane and the agent may take for what needs no boot.
const CHANGE_SECONDS: u64 = 120;

/// One server and one agent that has the image.
struct Fleet {
    // Agents first: their guests end with them.
    agent: Agent,
    cluster: Cluster,
    layout: PathBuf,
}

/// A fleet, or `None` with a printed reason where guests cannot run.
fn fleet(options: &[&str]) -> Option<Fleet> {
    if let Err(missing) = guest_environment() {
        skip(&missing);
        return None;
    }
    let cluster = Cluster::start(1);
    let layout = match build_layout(cluster.dir()) {
        Ok(layout) => layout,
        Err(missing) => {
            skip(&missing);
            return None;
        }
    };
    let mut agent = Agent::prepare(cluster.dir(), "node-1", &cluster.servers(), options);
    agent.import(&layout, "v1", IMAGE_NAME);
    agent.start();
    let fleet = Fleet { agent, cluster, layout };
    wait::until_true("the node", BOOT_SECONDS, || fleet.cluster.cli().object("node", "node-1").is_some());
    Some(fleet)
}

impl Fleet {
    fn apply(&self, text: &str) {
        self.cluster.cli().apply(self.cluster.dir(), text);
    }

    fn pod(&self, name: &str) -> Option<Value> {
        self.cluster.cli().object("pod", name)
    }

    /// Waits until a pod's JSON has all of these words.
    fn await_pod(&self, name: &str, seconds: u64, words: &[&str]) -> Value {
        let what = format!("pod {name} with {words:?}");
        let seen = std::cell::RefCell::new(String::new());
        let look = || {
            let pod = self.pod(name)?;
            *seen.borrow_mut() = pod.to_string();
            words.iter().all(|word| seen.borrow().contains(word)).then_some(pod)
        };
        let otherwise = || {
            let log = std::fs::read_to_string(self.cluster.dir().join("node-1.log")).unwrap_or_default();
            format!(": {}\n{log}", seen.borrow())
        };
        wait::until_or(&what, seconds, look, otherwise)
    }

    fn logs(&self, args: &[&str]) -> String {
        self.cluster.cli().run(&[&["logs"], args].concat()).stdout
    }

    fn the_guest(&self) -> i32 {
        wait::until("one guest", BOOT_SECONDS, || match self.agent.guests()[..] {
            [pid] => Some(pid),
            _ => None,
        })
    }

    fn delete(&self, what: &[&str]) {
        let _ = self.cluster.cli().run(&[&["delete", "--timeout", "180s"], what].concat()).ok();
    }

    fn await_nothing_left(&self) {
        wait::until_true("no guest left", CHANGE_SECONDS, || self.agent.guests().is_empty());
        wait::until_true("no files left", CHANGE_SECONDS, || self.agent.pod_dirs().is_empty());
    }
}

/// A pod whose containers run shell scripts.
fn pod(name: &str, policy: &str, init: &[&str], script: &str) -> String {
    let container = |name: &str, script: &str| {
        format!(
            "    - name: {name}\n      image: {IMAGE_NAME}\n      imagePullPolicy: Never\n      command: [/bin/sh, -c]\n      \
             args: [{}]\n      resources:\n        limits:\n          memory: 64Mi\n",
            Value::from(script)
        )
    };
    let mut text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  restartPolicy: {policy}\n  \
         terminationGracePeriodSeconds: 1\n"
    );
    if !init.is_empty() {
        text += "  initContainers:\n";
        for (n, script) in init.iter().enumerate() {
            text += &container(&format!("init-{n}"), script);
        }
    }
    text + "  containers:\n" + &container("main", script)
}

const FOREVER: &str = "echo started; while :; do /bin/busybox sleep 1; done";

#[test]
fn a_deployment_prints_and_outlives_agent_and_server() {
    let Some(mut fleet) = fleet(&[]) else { return };
    let web = include_str!("../../examples/web.yaml").replace("replicas: 2", "replicas: 1");
    fleet.apply(&web);
    let cli = fleet.cluster.cli();
    let _ = cli.run(&["rollout", "status", "deployment/web", "--timeout", "300s"]).ok();
    let says = || fleet.logs(&["deployment/web"]).contains("from web v1");
    wait::until_true("the guest's output", BOOT_SECONDS, says);
    let pid = fleet.the_guest();

    // The agent is killed: the guest goes on, and the next agent takes it over.
    fleet.agent.take().kill();
    assert_eq!(fleet.agent.guests(), [pid]);
    fleet.agent.start();
    let line_count = fleet.logs(&["deployment/web"]).lines().count();
    wait::until_true("more output", CHANGE_SECONDS, || {
        fleet.logs(&["deployment/web"]).lines().count() > line_count
    });
    assert_eq!(fleet.agent.guests(), [pid], "the same guest");

    // The server ends: the guest goes on.
    fleet.cluster.take(1).terminate();
    assert_eq!(fleet.agent.guests(), [pid]);
    fleet.cluster.start_server(1);
    fleet.cluster.await_leader();
    wait::until_true("the node again", CHANGE_SECONDS, || {
        fleet.logs(&["deployment/web"]).contains("from web v1")
    });
    assert_eq!(fleet.agent.guests(), [pid], "the same guest");

    fleet.delete(&["deployment", "web"]);
    fleet.await_nothing_left();
    fleet.agent.take().terminate();
}

#[test]
fn a_stateful_set_and_a_daemon_set_print() {
    let Some(fleet) = fleet(&[]) else { return };
    let cli = fleet.cluster.cli();
    for (manifest, object) in [
        (
            include_str!("../../examples/statefulset.yaml").replace("replicas: 2", "replicas: 1"),
            "statefulset/db",
        ),
        (include_str!("../../examples/daemonset.yaml").to_owned(), "daemonset/log"),
    ] {
        fleet.apply(&manifest);
        let _ = cli.run(&["rollout", "status", object, "--timeout", "300s"]).ok();
        let says = || fleet.logs(&[object]).contains("from web v1");
        wait::until_true("the guest's output", BOOT_SECONDS, says);
        fleet.delete(&[object]);
        fleet.await_nothing_left();
    }
}

#[test]
fn pods_end_with_codes_in_order_and_start_again() {
    let Some(fleet) = fleet(&[]) else { return };
    fleet.apply(&pod("ordered", "Never", &["echo first", "echo second"], "echo third; exit 0"));
    fleet.apply(&pod("failing", "Never", &[], "echo failing; exit 7"));
    let ordered = fleet.await_pod("ordered", BOOT_SECONDS, &["\"Succeeded\""]);
    let failing = fleet.await_pod("failing", BOOT_SECONDS, &["\"Failed\"", "\"exitCode\":7"]);
    assert_eq!(ordered["status"]["phase"], "Succeeded", "{ordered}");
    assert_eq!(failing["status"]["phase"], "Failed", "{failing}");
    let mut times = Vec::new();
    for (container, says) in [("init-0", "first"), ("init-1", "second"), ("main", "third")] {
        let line = fleet.logs(&["ordered", "-c", container, "--timestamps"]);
        assert!(line.trim_end().ends_with(says), "{container}: {line}");
        times.push(line.split_whitespace().next().unwrap_or_default().to_owned());
    }
    assert!(times.is_sorted(), "{times:?}");
    fleet.delete(&["pod", "ordered", "failing"]);

    fleet.apply(&pod("again", "OnFailure", &[], "echo again; exit 3"));
    fleet.await_pod("again", BOOT_SECONDS, &["\"restartCount\":2", "\"CrashLoopBackOff\"", "\"exitCode\":3"]);
    fleet.delete(&["pod", "again"]);
    fleet.await_nothing_left();
}

/// Files below `dir` that hold this text.
fn files_with(dir: &std::path::Path, text: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).is_ok_and(|data| data.windows(text.len()).any(|part| part == text)) {
            found.push(path);
        }
    }
    found
}

#[test]
fn configuration_reaches_guests_and_follows_changes() {
    let Some(fleet) = fleet(&[]) else { return };
    let all = include_str!("../../examples/config.yaml");
    let documents: Vec<&str> = all.split("---\n").collect();
    let [settings, keys, deployment] = documents[..] else { panic!("three documents") };
    let pod_name = || {
        let pods = fleet.cluster.cli().run(&["get", "pods"]).stdout;
        pods.split_whitespace().find(|word| word.starts_with("config-")).map(str::to_owned)
    };

    // What is not there keeps the pod waiting, by name, and starts it once it appears.
    fleet.apply(deployment);
    let pod = wait::until("the pod", CHANGE_SECONDS, pod_name);
    fleet.await_pod(
        &pod,
        CHANGE_SECONDS,
        &["\"CreateContainerConfigError\"", "ConfigMap \\\"settings\\\" is not there"],
    );
    fleet.apply(settings);
    fleet.await_pod(
        &pod,
        CHANGE_SECONDS,
        &["\"CreateContainerConfigError\"", "Secret \\\"keys\\\" is not there"],
    );
    fleet.apply(keys);
    fleet.await_pod(&pod, BOOT_SECONDS, &["\"phase\":\"Running\"", "\"ready\":true"]);

    let says = |text: &str| fleet.logs(&["deployment/config"]).contains(text);
    let first = "file: first message; subPath: first message; variable: first message";
    wait::until_true("variables and files", BOOT_SECONDS, || says(first));
    assert!(
        says("config is green, token of 10 and 10 bytes, init saw green"),
        "{}",
        fleet.logs(&["deployment/config"])
    );
    assert!(says("settings are read-only"));
    let kept = files_with(&fleet.agent.data_dir(), b"opensesame");
    assert!(kept.is_empty(), "the Secret is on the node's disk: {kept:?}");

    // A change reaches the running guest: the mounted file, and nothing else.
    let pid = fleet.the_guest();
    fleet.apply(&settings.replace("first message", "second message"));
    let second = "file: second message; subPath: first message; variable: first message";
    wait::until_true("the new file", CHANGE_SECONDS, || says(second));
    assert_eq!(fleet.the_guest(), pid, "the same guest");
    fleet.delete(&["deployment", "config"]);
    fleet.await_nothing_left();
}

#[test]
fn one_job_succeeds_and_another_fails() {
    let Some(fleet) = fleet(&[]) else { return };
    let job = include_str!("../../examples/job.yaml").replace("demo/web:v1", IMAGE_NAME);
    fleet.apply(&job);
    fleet.apply(&job.replace("name: report\nspec", "name: failing\nspec").replace("exit 0", "exit 42"));
    let parts = include_str!("../../examples/job-indexed.yaml").replace("demo/web:v1", IMAGE_NAME);
    fleet.apply(&parts.replace("completions: 8", "completions: 2"));
    let wait_for = |job: &str, condition: &str| {
        let condition = format!("--for=condition={condition}");
        let _ = fleet.cluster.cli().run(&["wait", job, &condition, "--timeout", "300s"]).ok();
    };
    wait_for("job/report", "complete");
    wait_for("job/failing", "failed");
    wait_for("job/parts", "complete");
    assert!(fleet.logs(&["job/report"]).contains("working"));
    assert!(fleet.logs(&["job/parts"]).contains("part "), "the index is in the environment");
    fleet.delete(&["job", "report", "failing", "parts"]);
    fleet.await_nothing_left();
}

#[test]
fn a_killed_guest_is_named_and_started_again() {
    let Some(fleet) = fleet(&[]) else { return };
    fleet.apply(&pod("steady", "Always", &[], FOREVER));
    fleet.await_pod("steady", BOOT_SECONDS, &["\"Running\""]);
    let pid = fleet.the_guest();
    fleet.agent.kill_guest(pid);
    fleet.await_pod("steady", BOOT_SECONDS, &["\"GuestDied\""]);
    wait::until_true("another guest", BOOT_SECONDS, || {
        fleet.agent.guests().iter().any(|other| *other != pid)
    });
    fleet.await_pod("steady", BOOT_SECONDS, &["\"running\"", "\"restartCount\":1"]);
    fleet.delete(&["pod", "steady"]);
    fleet.await_nothing_left();
}

#[test]
fn what_cannot_start_says_why() {
    let Some(fleet) = fleet(&["--qemu", "/nonexistent/qemu"]) else { return };
    fleet.apply(&pod("no-qemu", "Always", &[], FOREVER));
    fleet.await_pod("no-qemu", CHANGE_SECONDS, &["\"QemuMissing\""]);
    fleet.apply(&pod("no-image", "Always", &[], FOREVER).replace(IMAGE_NAME, "demo/nobody:v9"));
    fleet.await_pod("no-image", CHANGE_SECONDS, &["\"ErrImage", "demo/nobody:v9"]);
    let wrong = format!("demo/web@sha256:{}", "0".repeat(64));
    fleet.apply(&pod("wrong-digest", "Always", &[], FOREVER).replace(IMAGE_NAME, &wrong));
    fleet.await_pod("wrong-digest", CHANGE_SECONDS, &["\"ErrImage", "sha256:0000"]);
    fleet.delete(&["pod", "no-qemu", "no-image", "wrong-digest"]);
    fleet.await_nothing_left();
    assert!(find_program("qemu-system-x86_64").is_some(), "it was there all the time");
}

#[test]
fn a_pod_pulls_from_a_registry_with_its_secret() {
    // What `htpasswd -bnB user password` prints.
    const ACCOUNTS: &str = "user:$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu\n";
    let programs = ["docker-registry", "skopeo"].map(|name| (name, find_program(name)));
    if let Some((missing, _)) = programs.iter().find(|(_, path)| path.is_none()) {
        return skip(&format!("{missing} is missing; remedy: make deps"));
    }
    let address = bulkhead_tests::free_addresses(1).remove(0);
    let Some(fleet) = fleet(&["--insecure-registry", &address]) else { return };
    let dir = fleet.cluster.dir();
    let config = dir.join("registry.yml");
    let storage = dir.join("registry");
    let accounts = dir.join("registry.accounts");
    std::fs::write(&accounts, ACCOUNTS).expect("written");
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n\
         auth:\n  htpasswd:\n    realm: images\n    path: {}\n",
        storage.display(),
        accounts.display()
    );
    std::fs::write(&config, text).expect("written");
    let mut command = Command::new("docker-registry");
    let registry = bulkhead_tests::Process::start(dir, "registry", command.arg("serve").arg(&config));
    wait::until_true("the registry", CHANGE_SECONDS, || std::net::TcpStream::connect(&address).is_ok());
    let pushed = Command::new("skopeo")
        .args(["copy", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds=user:password"])
        .arg(format!("oci:{}:v2", fleet.layout.display()))
        .arg(format!("docker://{address}/demo/web:v2"))
        .output()
        .expect("skopeo starts");
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let image = format!("{address}/demo/web:v2");
    let manifest = pod("pulled", "Never", &[], "echo pulled; exit 0");
    let manifest =
        manifest.replace(IMAGE_NAME, &image).replace("imagePullPolicy: Never", "imagePullPolicy: Always");
    fleet.apply(&manifest.replace("spec:\n", "spec:\n  imagePullSecrets: [{name: registry-credentials}]\n"));
    let missing = "Unable to retrieve some image pull secrets (registry-credentials)";
    let words = ["ImagePull", "unauthorized without credentials", missing];
    fleet.await_pod("pulled", CHANGE_SECONDS, &words);
    // The Secret comes later, and the same pod has it.
    let example = include_str!("../../examples/private-registry.yaml");
    let (secret, _) = example.split_once("---").expect("a Secret and a Deployment");
    fleet.apply(&secret.replace("registry.example.com\": {", &format!("{address}\": {{")));
    fleet.await_pod("pulled", BOOT_SECONDS, &["\"Succeeded\""]);
    assert!(fleet.logs(&["pulled"]).contains("pulled"));
    let described = fleet.cluster.cli().run(&["describe", "pod", "pulled"]).ok();
    assert!(described.contains("Image pull secrets"), "{described}");
    fleet.delete(&["pod", "pulled"]);
    fleet.delete(&["secret", "registry-credentials"]);
    fleet.await_nothing_left();
    registry.kill();
}

#[test]
fn probes_make_pods_ready_and_unready_and_restart_them() {
    let Some(fleet) = fleet(&[]) else { return };
    fleet.apply(include_str!("../../examples/probes.yaml"));
    let pod_name = || {
        let pods = fleet.cluster.cli().run(&["get", "pods"]).stdout;
        pods.split_whitespace().find(|word| word.starts_with("probes-")).map(str::to_owned)
    };
    let pod = wait::until("the pod", CHANGE_SECONDS, pod_name);
    fleet.await_pod(&pod, BOOT_SECONDS, &["\"ready\":true", "\"startedAt\""]);
    fleet.await_pod(
        &pod,
        CHANGE_SECONDS,
        &["\"ready\":false", "main: readiness probe failed 2 times: exit code 1", "\"ContainersNotReady\""],
    );
    let available =
        || fleet.cluster.cli().object("deployment", "probes").expect("there")["status"].to_string();
    wait::until_true("an unavailable replica", CHANGE_SECONDS, || {
        available().contains("\"unavailableReplicas\":1")
    });
    fleet.await_pod(
        &pod,
        CHANGE_SECONDS,
        &["\"restartCount\":1", "liveness probe failed 2 times: HTTP status 404 Not Found"],
    );
    fleet.await_pod(&pod, CHANGE_SECONDS, &["\"restartCount\":1", "\"ready\":true", "\"running\""]);
    let logs = fleet.logs(&["deployment/probes"]);
    assert!(logs.contains("run 1 begins"), "the same guest: {logs}");
    let described = fleet.cluster.cli().run(&["describe", "pod", &pod]).ok();
    for words in
        ["exec: /bin/busybox test -e /state/ready", "http-get http://:http/healthz", "ContainersReady"]
    {
        assert!(described.contains(words), "{words} is not in\n{described}");
    }
    fleet.delete(&["deployment", "probes"]);
    fleet.await_nothing_left();
}

#[test]
fn hooks_run_after_the_start_and_before_the_end() {
    let Some(fleet) = fleet(&[]) else { return };
    let hooks = include_str!("../../examples/hooks.yaml");
    fleet.apply(hooks);
    fleet.apply(
        &hooks.replace("name: hooks", "name: broken").replace("echo warm > /tmp/warm", "echo no; exit 3"),
    );
    let says = |text: &str| fleet.logs(&["hooks"]).contains(text);
    wait::until_true("the hook's file", BOOT_SECONDS, || says("postStart said warm"));
    fleet.await_pod("hooks", CHANGE_SECONDS, &["\"ready\":true"]);
    fleet.await_pod("broken", BOOT_SECONDS, &["\"terminated\"", "postStart hook failed: exit code 3: no"]);
    let followed = std::thread::scope(|scope| {
        let follower = scope.spawn(|| fleet.logs(&["hooks", "-f"]));
        fleet.delete(&["pod", "hooks", "broken"]);
        follower.join().expect("logs end with their pod")
    });
    assert!(followed.contains("SIGTERM, and preStop said draining"), "{followed}");
    fleet.await_nothing_left();
}

#[test]
fn a_sidecar_starts_first_and_ends_last() {
    let Some(fleet) = fleet(&[]) else { return };
    fleet.apply(include_str!("../../examples/sidecar.yaml"));
    let wait =
        fleet.cluster.cli().run(&["wait", "job/sidecar", "--for=condition=complete", "--timeout", "300s"]);
    let _ = wait.ok();
    let work = fleet.logs(&["job/sidecar", "-c", "work"]);
    assert!(work.contains("work saw: the proxy is up"), "{work}");
    let proxy = fleet.logs(&["job/sidecar", "-c", "proxy"]);
    assert!(proxy.contains("the proxy ends"), "{proxy}");
    fleet.delete(&["job", "sidecar"]);
    fleet.await_nothing_left();
}

#[test]
fn containers_have_the_rights_that_they_are_given() {
    let Some(fleet) = fleet(&[]) else { return };
    let security = include_str!("../../examples/security.yaml");
    fleet.apply(security);
    fleet.await_pod("security", BOOT_SECONDS, &["\"Succeeded\""]);
    let logs = fleet.logs(&["security"]);
    for words in [
        "1000:2000 in 2000 3000 4000",
        "data belongs to group 4000",
        "the root is read-only",
        "CapBnd:0000000000000400 NoNewPrivs:1 Seccomp:2",
    ] {
        assert!(logs.contains(words), "{words} is not in\n{logs}");
    }
    // The image's USER is root's.
    let root = security.replace("name: security", "name: as-root").replace("    runAsUser: 1000\n", "");
    fleet.apply(&root);
    fleet.await_pod("as-root", CHANGE_SECONDS, &["\"CreateContainerConfigError\"", "runAsNonRoot"]);
    fleet.delete(&["pod", "security", "as-root"]);
    fleet.await_nothing_left();
}

/// A pod of one run that uses the claim `data`.
fn data_pod(name: &str, script: &str) -> String {
    claim_pod(name, "data", script)
}

/// The same with another claim.
fn claim_pod(name: &str, claim: &str, script: &str) -> String {
    let mounted = pod(name, "Never", &[], script).replace(
        "      resources:\n",
        "      volumeMounts: [{name: data, mountPath: /data}]\n      resources:\n",
    );
    mounted + &format!("  volumes: [{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}]\n")
}

/// Grows the claim `data` under a guest that has it, and takes a snapshot of it.
fn grow_and_snapshot(fleet: &Fleet, claim: &str) {
    let run = |script: &str| {
        let words = ["exec", "reader", "--", "/bin/busybox", "sh", "-c", script];
        fleet.cluster.cli().run(&words).stdout.trim().to_owned()
    };
    let blocks = || run("/bin/busybox stat -f -c %b /data").parse::<u64>().unwrap_or_default();
    let before = blocks();
    fleet.apply(&claim.replace("32Mi", "96Mi"));
    let field = |kind: &str, name: &str, path: &str| {
        fleet.cluster.cli().object(kind, name).and_then(|object| object.pointer(path).cloned())
    };
    wait::until_true("the claim's size", CHANGE_SECONDS, || {
        field("pvc", "data", "/status/capacity/storage") == Some("96Mi".into())
    });
    let after = blocks();
    assert!(before > 0 && after > 2 * before, "{before} blocks, then {after}");
    assert_eq!(field("pvc", "data", "/status/conditions"), None);
    // Not flushed by anybody: the guest writes it out before the copy.
    run("echo later > /data/later");
    fleet.apply(
        "apiVersion: snapshot.storage.k8s.io/v1\nkind: VolumeSnapshot\nmetadata: {name: snap}\n\
         spec: {source: {persistentVolumeClaimName: data}}\n",
    );
    wait::until_true("the snapshot", CHANGE_SECONDS, || {
        field("vs", "snap", "/status/readyToUse") == Some(true.into())
    });
    assert_eq!(field("vs", "snap", "/status/restoreSize"), Some("96Mi".into()));
    run("echo after > /data/after");
}

/// A claim of the snapshot has what there was, in a pod of its own.
fn restore(fleet: &Fleet) {
    fleet.apply(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: restored}\n\
         spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 96Mi}}, \
         dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: snap}}\n",
    );
    fleet.apply(&claim_pod(
        "restored",
        "restored",
        "/bin/busybox cat /data/note /data/later; /bin/busybox ls /data",
    ));
    fleet.await_pod("restored", BOOT_SECONDS, &["\"phase\":\"Succeeded\""]);
    assert_eq!(fleet.logs(&["restored"]), "kept\nlater\nlater\nnote\n");
    fleet.delete(&["pod", "restored"]);
    fleet.delete(&["pvc", "restored"]);
    read_together(fleet);
    fleet.delete(&["vs", "snap"]);
}

/// Two guests read one volume at once, made of a snapshot of a running guest's.
fn read_together(fleet: &Fleet) {
    fleet.apply(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: shared}\n\
         spec: {accessModes: [ReadOnlyMany], resources: {requests: {storage: 96Mi}}, \
         dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: snap}}\n",
    );
    let script = "/bin/busybox cat /data/note /data/later; echo no > /data/mine || echo refused; while :; do /bin/busybox sleep 1; done";
    for name in ["first", "second"] {
        fleet.apply(&claim_pod(name, "shared", script));
    }
    for name in ["first", "second"] {
        fleet.await_pod(name, BOOT_SECONDS, &["\"phase\":\"Running\""]);
        wait::until_true("read", CHANGE_SECONDS, || fleet.logs(&[name]).contains("kept\nlater\n"));
        wait::until_true("not written", CHANGE_SECONDS, || fleet.logs(&[name]).contains("refused"));
    }
    fleet.delete(&["pod", "first"]);
    fleet.delete(&["pod", "second"]);
    fleet.delete(&["pvc", "shared"]);
}

#[test]
fn a_volume_outlives_its_pod() {
    let Some(fleet) = fleet(&[]) else { return };
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\n\
                 spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}}\n";
    // The claim comes last: until then the pod waits for it.
    fleet.apply(&data_pod("writer", "echo kept > /data/note; /bin/busybox chmod 0750 /data; echo written"));
    fleet.await_pod("writer", CHANGE_SECONDS, &["PersistentVolumeClaim data does not exist"]);
    fleet.apply(claim);
    fleet.await_pod("writer", BOOT_SECONDS, &["\"phase\":\"Succeeded\""]);
    let volumes = || {
        let entries = std::fs::read_dir(fleet.agent.data_dir().join("volumes"));
        entries.map(|e| e.flatten().map(|e| e.path()).collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!(volumes().len(), 1);
    fleet.delete(&["pod", "writer"]);
    fleet.await_nothing_left();
    let [volume] = &volumes()[..] else { panic!("the volume stays") };

    // Somebody takes the data away: nothing empty takes its place, and all goes on once it is back.
    let aside = fleet.cluster.dir().join("aside.img");
    std::fs::rename(volume, &aside).expect("moved away");
    let waits = "while [ ! -e /data/after ]; do /bin/busybox sleep 1; done";
    let script = format!("/bin/busybox cat /data/note; /bin/busybox stat -c %a /data; {waits}");
    fleet.apply(&data_pod("reader", &script));
    fleet.await_pod("reader", CHANGE_SECONDS, &["VolumeMissing", "PersistentVolumeClaim data was in use"]);
    assert!(volumes().is_empty(), "{:?}", volumes());
    std::fs::rename(&aside, volume).expect("moved back");
    fleet.await_pod("reader", BOOT_SECONDS, &["\"phase\":\"Running\""]);
    grow_and_snapshot(&fleet, claim);
    fleet.await_pod("reader", BOOT_SECONDS, &["\"phase\":\"Succeeded\""]);
    assert_eq!(fleet.logs(&["reader"]), "kept\n750\n");
    let claims = fleet.cluster.cli().run(&["get", "pvc"]).stdout;
    assert!(["data", "Bound", "node-1", "96Mi", "RWO"].iter().all(|word| claims.contains(word)), "{claims}");

    restore(&fleet);
    fleet.delete(&["pod", "reader"]);
    fleet.delete(&["pvc", "data"]);
    wait::until_true("no volume left", CHANGE_SECONDS, || volumes().is_empty());
    assert!(fleet.cluster.cli().object("pvc", "data").is_none(), "the claim goes once its data is gone");
}

/// A command line that reads `input`: exit code, output, complaints.
fn with_input(fleet: &Fleet, args: &[&str], input: &[u8]) -> (i32, Vec<u8>, String) {
    let mut command = fleet.cluster.cli().command(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.as_mut().expect("the program starts");
    let (mut stdin, input) = (child.stdin.take().expect("piped"), input.to_vec());
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let mut stdout = child.stdout.take().expect("piped");
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        stdout.read_to_end(&mut all).map(|_| all)
    });
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("read");
    let status = child.wait().expect("waited for");
    let _ = writing.join();
    let stdout = reading.join().expect("read").expect("read");
    (status.code().expect("no signal"), stdout, stderr)
}

/// A command line that runs on, and its output.
fn background(fleet: &Fleet, args: &[&str]) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut command = fleet.cluster.cli().command(args);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    (child, stdout)
}

fn line(of: &mut impl BufRead) -> String {
    let mut line = String::new();
    of.read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

#[test]
fn commands_connections_and_files_go_into_a_running_pod() {
    let Some(fleet) = fleet(&[]) else { return };
    let script =
        "/bin/busybox nc -ll -p 7000 -e /bin/busybox cat & while :; do echo tick; /bin/busybox sleep 1; done";
    // Free a moment ago, and nobody else of this machine binds it but by chance.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let ports = format!(
        "name: main\n      ports: [{{containerPort: 7000, hostPort: {}, hostIP: 127.0.0.1}}]",
        free.port()
    );
    fleet.apply(&pod("io", "Never", &[], script).replace("name: main", &ports));
    fleet.await_pod("io", BOOT_SECONDS, &["\"ready\":true"]);
    let connect = ["exec", "io", "--", "sh", "-c", "/bin/busybox nc 127.0.0.1 7000 </dev/null"];
    wait::until_true("the pod's server", CHANGE_SECONDS, || fleet.cluster.cli().run(&connect).code == 0);
    echoes(free, b'p');
    check_exec(&fleet);
    check_client_gone(&fleet);
    check_port_forward(&fleet);
    check_cp(&fleet);
    let (mut attached, mut output) = background(&fleet, &["attach", "io"]);
    assert_eq!(line(&mut output), "tick");
    attached.kill().expect("killed");
    attached.wait().expect("waited for");
    fleet.cluster.cli().run(&["attach", "-i", "io"]).refused(2, &["main reads no standard input"]);
    fleet.delete(&["pod", "io"]);
    fleet.await_nothing_left();
    assert!(TcpStream::connect(free).is_err(), "the node's port is closed with the guest");
}

fn check_exec(fleet: &Fleet) {
    let script = "/bin/busybox cat; echo bad >&2; exit 7";
    let input: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let (code, stdout, stderr) = with_input(fleet, &["exec", "-i", "io", "--", "sh", "-c", script], &input);
    assert_eq!((code, stderr.as_str()), (7, "bad\nerror: command terminated with exit code 7\n"));
    assert!(stdout == input, "{} bytes of {}", stdout.len(), input.len());
    let exec = |args: &[&str]| fleet.cluster.cli().run(&[&["exec", "io"], args].concat());
    assert_eq!(exec(&["--", "sh", "-c", "kill -9 $$"]).code, 137);
    exec(&["--", "nobody"]).refused(127, &["nobody: not found in the container's PATH"]);
    exec(&["-c", "other", "--", "sh"]).refused(3, &["the pod has no container other"]);
    let inside =
        exec(&["--", "sh", "-c", "/bin/busybox hostname; /bin/busybox cat /proc/1/comm /proc/self/cgroup"]);
    assert_eq!(inside.ok(), "io\nsh\n0::/\n");
    let terminal = exec(&["-t", "--", "sh", "-c", "/bin/busybox tty; echo $TERM; test -t 2 && exit 5"]);
    assert_eq!((terminal.code, terminal.stdout.as_str()), (5, "/dev/pts/0\r\nxterm\r\n"));
}

/// Of a client that is killed, the command ends: here by SIGKILL, because it does not listen to SIGHUP.
fn check_client_gone(fleet: &Fleet) {
    let script = "trap '' HUP; echo $$; while :; do /bin/busybox sleep 1; done";
    let (mut client, mut output) = background(fleet, &["exec", "io", "--", "sh", "-c", script]);
    let pid = line(&mut output);
    let lives =
        || fleet.cluster.cli().run(&["exec", "io", "--", "sh", "-c", &format!("kill -0 {pid}")]).code == 0;
    assert!(lives());
    client.kill().expect("killed");
    client.wait().expect("waited for");
    wait::until_true("the end of the command", CHANGE_SECONDS, || !lives());
}

/// What is sent to the pod's server comes back, after the end of what is sent, too.
fn echoes(address: std::net::SocketAddr, byte: u8) {
    let mut socket = TcpStream::connect(address).expect("connected");
    socket.write_all(&vec![byte; 50_000]).expect("written");
    socket.shutdown(std::net::Shutdown::Write).expect("half-closed");
    let mut all = Vec::new();
    socket.read_to_end(&mut all).expect("until the end");
    assert!(all == vec![byte; 50_000], "{} bytes", all.len());
}

fn check_port_forward(fleet: &Fleet) {
    let ports = [":7000", ":7001"];
    let args = [&["port-forward", "--address", "127.0.0.1", "io"], &ports[..]].concat();
    let (mut forwarding, mut output) = background(fleet, &args);
    let mut address = |remote: &str| {
        let line = line(&mut output);
        let found =
            line.strip_prefix("Forwarding from ").and_then(|l| l.strip_suffix(&format!(" -> {remote}")));
        found.unwrap_or_else(|| panic!("{line}")).to_owned()
    };
    let (open, closed) = (address("7000"), address("7001"));
    let open: std::net::SocketAddr = open.parse().expect("an address");
    std::thread::scope(|scope| (b'a'..=b'b').for_each(|byte| drop(scope.spawn(move || echoes(open, byte)))));
    let mut refused = TcpStream::connect(&closed).expect("accepted, at first");
    assert_eq!(refused.read(&mut [0; 8]).unwrap_or(0), 0);
    let complaint = line(&mut BufReader::new(forwarding.stderr.take().expect("piped")));
    assert!(complaint.contains("port 7001 in the pod: ") && complaint.contains("refused"), "{complaint}");
    forwarding.kill().expect("killed");
    forwarding.wait().expect("waited for");
}

fn check_cp(fleet: &Fleet) {
    let dir = fleet.cluster.dir();
    let (source, back) = (dir.join("source"), dir.join("back"));
    std::fs::create_dir_all(source.join("sub")).expect("made");
    let content: Vec<u8> = (0..200_000_u32).map(|n| (n % 241) as u8).collect();
    std::fs::write(source.join("sub/file"), &content).expect("written");
    let path = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let cli = fleet.cluster.cli();
    let _ = cli.run(&["cp", &path(&source), "io:/copied"]).ok();
    let (code, stdout, _) =
        with_input(fleet, &["exec", "io", "--", "/bin/busybox", "cat", "/copied/sub/file"], b"");
    assert!((code, &stdout) == (0, &content), "{code}, {} bytes", stdout.len());
    // Into what is there, and through no link of the container.
    let link = "/bin/busybox ln -s /proc/1/root /copied/link && /bin/busybox ln -s /copied /alias";
    let _ = cli.run(&["exec", "io", "--", "sh", "-c", link]).ok();
    let done = cli.run(&["cp", "io:/alias", &path(&back)]);
    assert!(done.code == 0 && done.stderr.contains("\"back/link\" is a link"), "{}", done.stderr);
    assert!(std::fs::read(back.join("sub/file")).expect("there") == content);
    assert!(std::fs::symlink_metadata(back.join("link")).is_err());
    cli.run(&["cp", "io:/nothing", &path(&back)]).refused(1, &["/nothing: No such file"]);
}

/// The folders of a process's control groups, as far as they are an agent's.
fn cgroups_of(pid: i32) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let ours = text.lines().filter_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        let roots = ["/sys/fs/cgroup".to_owned(), format!("/sys/fs/cgroup/{controllers}")];
        let found =
            roots.iter().map(|root| PathBuf::from(format!("{root}{group}"))).find(|path| path.is_dir());
        found.filter(|_| group.contains("/bulkhead/"))
    });
    ours.collect()
}

/// What a container says of its root file system, in bytes.
fn room_in(said: &str) -> u64 {
    let room = said.split("room of ").nth(1).and_then(|rest| rest.lines().next());
    let (blocks, block_bytes) =
        room.and_then(|room| room.split_once(" blocks of ")).expect("it says how much");
    blocks.parse::<u64>().expect("a number") * block_bytes.parse::<u64>().expect("a number")
}

#[test]
fn limits_hold_by_container_and_the_host_lets_no_guest_out() {
    let Some(fleet) = fleet(&[]) else { return };
    let grows = "exec /bin/busybox dd if=/dev/zero of=/dev/null bs=90M count=1";
    let grows = pod("grows", "Never", &[], grows).replace("memory: 64Mi", "memory: 48Mi");
    let room = "/bin/busybox stat -f -c 'room of %a blocks of %S' /";
    let beside = pod("x", "Never", &[], &format!("{room}; /bin/busybox sleep 20; echo fine"));
    let (_, beside) = beside.split_once("  containers:\n").expect("it has containers");
    fleet.apply(&(grows + &beside.replace("name: main", "name: beside").replace("64Mi", "96Mi")));
    let writes = format!(
        "{room}; /bin/busybox dd if=/dev/zero of=/file bs=1M count=40; while :; do /bin/busybox sleep 1; done"
    );
    let limit = "memory: 64Mi\n          ephemeral-storage: 16Mi";
    fleet.apply(&pod("writes", "Always", &[], &writes).replace("memory: 64Mi", limit));

    let node = wait::until("the node", CHANGE_SECONDS, || fleet.cluster.cli().object("node", "node-1"));
    let shut_in = !node.to_string().contains("run without");
    let guests = wait::until("two guests", BOOT_SECONDS, || {
        Some(fleet.agent.guests()).filter(|guests| guests.len() == 2)
    });
    let users = guests.iter().map(|pid| {
        let meta = std::fs::metadata(format!("/proc/{pid}")).expect("it lives");
        std::os::unix::fs::MetadataExt::uid(&meta)
    });
    let users: Vec<u32> = users.collect();
    let groups: Vec<PathBuf> = guests.iter().flat_map(|pid| cgroups_of(*pid)).collect();
    if shut_in {
        assert!(users[0] != users[1] && !users.contains(&0), "{users:?}");
    } else {
        skip(
            "who guests run as: this machine does not let them be shut in wholly; remedy: run the test as root",
        );
    }
    if !node.to_string().contains("have no limit") {
        assert!(!groups.is_empty(), "limits on the host");
    }

    let grown = fleet.await_pod("grows", BOOT_SECONDS, &["\"Failed\"", "\"OOMKilled\"", "\"exitCode\":137"]);
    assert_eq!(grown["status"]["phase"], "Failed", "{grown}");
    let said = fleet.logs(&["grows", "-c", "beside"]);
    assert!(said.contains("fine"), "the other container went on");
    assert!((9 << 30..10 << 30).contains(&room_in(&said)), "of a container without a limit: {said}");
    let line = fleet.cluster.cli().run(&["get", "pod", "grows"]).stdout;
    assert!(line.contains("OOMKilled"), "{line}");
    let words = ["\"Failed\"", "\"Evicted\"", "container main exceeded its ephemeral-storage limit"];
    fleet.await_pod("writes", BOOT_SECONDS, &words);
    let said = fleet.logs(&["writes"]);
    assert!((17 << 20..128 << 20).contains(&room_in(&said)), "a little more than its limit: {said}");
    fleet.delete(&["pod", "grows", "writes"]);
    fleet.await_nothing_left();
    let left: Vec<_> = groups.iter().filter(|group| group.is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
}
