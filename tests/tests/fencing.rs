//! A pod that must be unique, on a node whose agent dies: its guard ends it with the lease, and it comes back on another
//! node, without anybody's help and never twice.

use bulkhead_tests::{Agent, Cluster, IMAGE_NAME, Stubs, build_layout, skip, wait};

/// How long the control plane and the agents may take for anything here, on a busy machine.
const CHANGE_SECONDS: u64 = 120;
/// Short, so that the test is.
const LEASE_MS: &str = "3000";
const FENCE_KILL_MS: &str = "2000";

fn manifest() -> String {
    let web = include_str!("../../examples/web.yaml").replace("replicas: 2", "replicas: 1");
    let template = "  template:\n    metadata:\n";
    assert!(web.contains(template), "the example is as it was");
    let annotated = format!("{template}      annotations:\n        bulkhead.io/unique: \"true\"\n");
    web.replace(template, &annotated)
}

/// Two agents with guests that do nothing but live.
struct Fleet {
    // Agents first: their guests end with them.
    agents: [Agent; 2],
    cluster: Cluster,
    stubs: Stubs,
}

impl Fleet {
    fn start() -> Option<Self> {
        let mut cluster = Cluster::prepare(1);
        let options = ["--lease-ms", LEASE_MS, "--fence-kill-ms", FENCE_KILL_MS];
        cluster.options.extend(options.map(str::to_owned));
        cluster.start_server(1);
        cluster.await_all();
        let layout = match build_layout(cluster.dir()) {
            Ok(layout) => layout,
            Err(missing) => {
                skip(&missing);
                return None;
            }
        };
        let stubs = Stubs::make(cluster.dir());
        let agents = ["node-1", "node-2"].map(|name| {
            let mut agent = Agent::prepare(cluster.dir(), name, &cluster.servers(), &["--accel", "tcg"]);
            agent.import(&layout, "v1", IMAGE_NAME);
            agent.start_with(&stubs);
            agent
        });
        let fleet = Self { agents, cluster, stubs };
        for name in ["node-1", "node-2"] {
            wait::until_true("both nodes", CHANGE_SECONDS, || {
                fleet.cluster.cli().object("node", name).is_some()
            });
        }
        Some(fleet)
    }

    /// Guests by node; never more than one lives.
    fn guests(&self) -> [Vec<i32>; 2] {
        let guests = [self.agents[0].guests(), self.agents[1].guests()];
        assert!(guests.iter().map(Vec::len).sum::<usize>() <= 1, "unique, but {guests:?}");
        guests
    }

    fn await_guest(&self, what: &str, node: impl Fn(usize) -> bool) -> (usize, i32) {
        let look = || {
            let guests = self.guests();
            (0..2).filter(|&n| node(n)).find_map(|n| Some((n, *guests[n].first()?)))
        };
        wait::until_or(what, CHANGE_SECONDS, look, || self.explain())
    }

    fn explain(&self) -> String {
        let get = |what: &[&str]| self.cluster.cli().run(&[&["get"], what].concat()).stdout;
        let log = |name: &str| {
            std::fs::read_to_string(self.cluster.dir().join(format!("{name}.log"))).unwrap_or_default()
        };
        format!("\n{}{}{}{}", get(&["nodes"]), get(&["pods", "-o", "wide"]), log("node-1"), log("node-2"))
    }

    fn await_status(&self, node: usize, status: &str) {
        let name = self.agents[node].name.clone();
        let is_so = || {
            let shown = self.cluster.cli().run(&["get", "node", &name]).stdout;
            shown.split_whitespace().any(|word| word == status).then_some(())
        };
        wait::until_or(&format!("{name} {status}"), CHANGE_SECONDS, is_so, || self.explain());
    }
}

#[test]
fn a_unique_pod_comes_back_on_another_node_and_never_runs_twice() {
    let Some(mut fleet) = Fleet::start() else { return };
    fleet.cluster.cli().apply(fleet.cluster.dir(), &manifest());
    let (node, pid) = fleet.await_guest("a guest", |_| true);

    // The agent is dead before the lease ends: the guard ends the guest.
    fleet.agents[node].take().kill();
    let is_dead = || !fleet.guests()[node].contains(&pid);
    wait::until_true("the guest's end", CHANGE_SECONDS, is_dead);
    let (other, next) = fleet.await_guest("the pod on the other node", |n| n != node);
    fleet.await_status(node, "NotReady,Fenced");
    let pods = fleet.cluster.cli().run(&["get", "pods", "-o", "yaml"]).stdout;
    assert!(pods.contains("NodeFenced"), "{pods}");

    // The agent comes back: what it ran is over.
    fleet.agents[node].start_with(&fleet.stubs);
    fleet.await_status(node, "Ready");
    assert_eq!(fleet.guests()[other], [next], "the old node has nothing to run");
    let left = || fleet.agents[node].pod_dirs().iter().all(|dir| !dir.join("1").exists());
    wait::until_true("no disk of the old guest", CHANGE_SECONDS, left);
}
