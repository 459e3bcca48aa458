//! What a new user tries after the first Deployment: defaults by Profile, priority, canaries, overflow, and what is
//! recommended. One guest is real, because only a real one tells what it uses; all others are stand-ins.

use std::os::unix::fs::symlink;

use bulkhead_tests::{Agent, Cli, Cluster, Stubs, build_layout, bulkhead, guest_environment, skip, wait};
use serde_json::Value;

/// How long anything here may take, on a busy machine.
const CHANGE_SECONDS: u64 = 120;
/// The same, for what the command line waits for.
const LIMIT: &str = "120s";

/// One server and three nodes: `near` and `far` with stand-ins for guests, `real` with a real one.
struct Fleet {
    // Agents first: their guests end with them.
    _agents: [Agent; 3],
    cluster: Cluster,
}

impl Fleet {
    fn start() -> Option<Self> {
        let cluster = Cluster::start(1);
        let parts = guest_environment().and_then(|_| build_layout(cluster.dir()));
        let layout = match parts {
            Ok(layout) => layout,
            Err(missing) => {
                skip(&missing);
                return None;
            }
        };
        let stubs = Stubs::make(cluster.dir());
        // By this name guests are found, and ended.
        let qemu = cluster.dir().join("qemu-system-stand-in");
        symlink(bulkhead().with_file_name("stand-in-qemu"), &qemu).expect("linked");
        let qemu = qemu.to_str().expect("a path in UTF-8");
        let agent = |name: &str, options: &[&str]| {
            let pool = format!("pool={name}");
            let options = [&["--labels", &pool], options].concat();
            let agent = Agent::prepare(cluster.dir(), name, &cluster.servers(), &options);
            for tag in ["v1", "v2"] {
                agent.import(&layout, tag, &format!("demo/web:{tag}"));
            }
            agent
        };
        let mut agents =
            [("near", true), ("far", true), ("real", false)].map(|(name, stands_in)| match stands_in {
                true => agent(name, &["--accel", "tcg", "--qemu", qemu]),
                // Nobody waits here for what is found out about KVM.
                false => agent(name, &["--accel", "tcg"]),
            });
        let [near, far, real] = &mut agents;
        real.start();
        near.start_with(&stubs);
        far.start_with(&stubs);
        let fleet = Self { _agents: agents, cluster };
        for name in ["near", "far"] {
            fleet.until(name, || fleet.cli().object("node", name).map(drop));
        }
        Some(fleet)
    }

    fn cli(&self) -> Cli {
        self.cluster.cli()
    }

    fn apply(&self, text: &str) {
        self.cli().apply(self.cluster.dir(), text);
    }

    fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        let pods = || self.cli().run(&["get", "pods", "-o", "wide"]).stdout;
        wait::until_or(what, CHANGE_SECONDS, look, || format!("\n{}", pods()))
    }

    fn wait_for(&self, object: &str, path: &str) {
        let condition = format!("jsonpath={path}");
        let _ = self.cli().run(&["wait", object, "--for", &condition, "--timeout", LIMIT]).ok();
    }

    fn rollout(&self, verb: &str, more: &[&str]) -> bulkhead_tests::Done {
        self.cli().run(&[&["rollout", verb, "deployment/web", "--timeout", LIMIT], more].concat())
    }

    /// Images of a Deployment's pods, those that end left out.
    fn images(&self, app: &str) -> Vec<String> {
        let list = self.cli().run(&["get", "pods", "-l", &format!("app={app}"), "-o", "json"]).ok();
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let pods = list["items"].as_array().expect("a list").iter();
        let image = |pod: &Value| pod["spec"]["containers"][0]["image"].as_str().map(str::to_owned);
        let mut images: Vec<_> =
            pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).filter_map(image).collect();
        images.sort();
        images
    }
}

/// A pod's spec of one container.
fn spec(pool: &str, cpu: &str) -> String {
    let selector = if pool.is_empty() { String::new() } else { format!("nodeSelector: {{pool: {pool}}}, ") };
    format!(
        "{{{selector}terminationGracePeriodSeconds: 1, containers: [{{name: web, image: 'demo/web:v1', \
         imagePullPolicy: Never, resources: {{requests: {{cpu: {cpu}, memory: 32Mi}}, limits: {{memory: 64Mi}}}}}}]}}"
    )
}

fn pod(name: &str, labels: &str, pool: &str, cpu: &str) -> String {
    let spec = spec(pool, cpu);
    format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {labels}}}\nspec: {spec}\n")
}

fn deployment(name: &str, more: &str, pool: &str) -> String {
    let template = format!("{{metadata: {{labels: {{app: {name}}}}}, spec: {}}}", spec(pool, "100m"));
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec: {{{more}\
         selector: {{matchLabels: {{app: {name}}}}}, template: {template}}}\n"
    )
}

/// Batch work is told by a label; the Profile gives it the rest.
const POLICIES: &str = "\
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: batch}
value: -100
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: usual}
value: 1000
globalDefault: true
---
apiVersion: bulkhead.io/v1
kind: Profile
metadata: {name: tenants}
spec:
  rules:
  - name: batch
    objectSelector: {matchLabels: {workload: batch}}
    effect:
      labels: {cost-center: batch}
      nodeSelector: {pool: near}
      priorityClassName: batch
";

/// Of two pods that wait the younger one is placed: the Profile made batch work of the other.
fn profiles_and_priorities(fleet: &Fleet) {
    fleet.apply(POLICIES);
    fleet.apply(&pod("filler", "{}", "near", "3500m"));
    fleet.wait_for("pod/filler", "{.status.phase}=Running");
    fleet.apply(&pod("low", "{workload: batch}", "", "3000m"));
    fleet.apply(&pod("high", "{}", "near", "3000m"));
    let low = fleet.cli().object("pod", "low").expect("there");
    assert_eq!(low["metadata"]["labels"]["cost-center"], "batch", "{low}");
    assert_eq!(low["spec"]["nodeSelector"]["pool"], "near", "{low}");
    assert_eq!(low["spec"]["priorityClassName"], "batch", "{low}");
    for name in ["low", "high"] {
        let waits = || fleet.cli().run(&["describe", "pod", name]).stdout.contains("Insufficient cpu");
        fleet.until(&format!("{name} waits"), || waits().then_some(()));
    }
    let _ = fleet.cli().run(&["delete", "pod", "filler", "--timeout", LIMIT]).ok();
    fleet.wait_for("pod/high", "{.status.phase}=Running");
    let low = fleet.cli().object("pod", "low").expect("there");
    assert_eq!(low["status"]["phase"], "Pending", "{low}");
    let _ = fleet.cli().run(&["delete", "pod", "low", "high", "--timeout", LIMIT]).ok();
}

/// One pod of the new template is looked at before the other follows; one that never becomes ready is taken back.
fn canaries(fleet: &Fleet) {
    let steps = "steps: [{setReplicas: 1}, {pause: {}}], maxSurge: 1, maxUnavailable: 0";
    let strategy = format!("strategy: {{type: Canary, canary: {{{steps}}}}}");
    fleet.apply(&deployment(
        "web",
        &format!("replicas: 2, progressDeadlineSeconds: 3, {strategy}, "),
        "near",
    ));
    let _ = fleet.rollout("status", &[]).ok();
    assert_eq!(fleet.images("web"), ["demo/web:v1"; 2]);

    let _ = fleet.cli().run(&["set", "image", "deploy/web", "web=demo/web:v2"]).ok();
    let pauses = || fleet.rollout("status", &["--watch=false"]).ok().contains("until it is promoted");
    fleet.until("the canary's pause", || pauses().then_some(()));
    assert_eq!(fleet.images("web"), ["demo/web:v1", "demo/web:v2"]);
    let _ = fleet.rollout("promote", &[]).ok();
    let _ = fleet.rollout("status", &[]).ok();
    assert_eq!(fleet.images("web"), ["demo/web:v2"; 2]);

    let _ = fleet.cli().run(&["set", "image", "deploy/web", "web=demo/web:none"]).ok();
    fleet.rollout("status", &[]).refused(1, &["gave its new template up", "FailureLimitExceeded"]);
    fleet.until("the stable pods", || (fleet.images("web") == ["demo/web:v2"; 2]).then_some(()));
    fleet.wait_for("deploy/web", "{.status.availableReplicas}=2");
}

/// What is beyond the Deployment's own share goes to the unit, and comes back first.
fn overflow(fleet: &Fleet) {
    let target = "sourceTarget: {apiVersion: apps/v1, kind: Deployment, name: shop, max: 2}";
    let unit = "elasticUnit: [{name: far, nodeSelector: {pool: far}, max: 3}]";
    let elastic = format!(
        "---\napiVersion: autoscaling.alibabacloud.com/v1beta1\nkind: ElasticWorkload\nmetadata: {{name: shop}}\n\
         spec: {{{target}, replicas: 1, {unit}}}\n"
    );
    fleet.apply(&(deployment("shop", "", "near") + &elastic));
    fleet.wait_for("deploy/shop", "{.status.availableReplicas}=1");
    let scale = |replicas: &str| fleet.cli().run(&["scale", "elasticworkload/shop", "--replicas", replicas]);
    let _ = scale("4").ok();
    fleet.wait_for("deploy/shop", "{.status.availableReplicas}=2");
    fleet.wait_for("deploy/shop-unit-far", "{.status.availableReplicas}=2");
    scale("6").refused(1, &["spec.replicas", "5"]);
    fleet.cli().run(&["scale", "deploy/shop", "--replicas", "1"]).refused(1, &["ElasticWorkload"]);
    let _ = scale("1").ok();
    fleet.wait_for("deploy/shop-unit-far", "{.status.replicas}=0");
    fleet.wait_for("deploy/shop", "{.status.replicas}=1");
}

/// By the time that it is asked for, the guest has told what it uses.
fn recommendation(fleet: &Fleet) {
    // Memory is known from the first measurement on.
    let used = || fleet.cli().run(&["top", "pods"]).stdout.contains("sized-").then_some(());
    fleet.until("what the guest uses", used);
    fleet.apply(
        "apiVersion: autoscaling.k8s.io/v1\nkind: VerticalPodAutoscaler\nmetadata: {name: sized}\nspec: \
         {targetRef: {apiVersion: apps/v1, kind: Deployment, name: sized}, updatePolicy: {updateMode: 'Off'}}\n",
    );
    let row = |text: &str, resource: &str| {
        let is_row = |line: &&str| line.starts_with("web ") && line.contains(resource);
        text.lines().find(is_row).map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let explain = || fleet.cli().run(&["explain", "vpa", "sized"]).ok();
    let memory = fleet.until("a recommendation", || row(&explain(), "memory"));
    assert!(explain().contains("recommends requests for the pods of Deployment sized"), "{}", explain());
    // Lower bound, target, upper bound, target without bounds, and of how many measurements it is.
    let [_, _, lower, target, _, _, samples] = &memory[..] else { panic!("{memory:?}") };
    assert!(lower.ends_with("Mi") && target.ends_with("Mi") && samples.parse::<u64>().is_ok(), "{memory:?}");
    let sized = fleet.cli().object("deployment", "sized").expect("there");
    let requests = &sized["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"];
    assert_eq!(requests["memory"], "32Mi", "Off changes nothing");
}

#[test]
fn a_new_user_goes_on() {
    let Some(fleet) = Fleet::start() else { return };
    // It boots, and is measured, while the others are looked at.
    fleet.apply(&deployment("sized", "", "real"));
    profiles_and_priorities(&fleet);
    canaries(&fleet);
    overflow(&fleet);
    recommendation(&fleet);
}
