//! NUMA nodes of this machine, for guests whose pods have CPUs of their own.

use std::collections::BTreeMap;
use std::path::Path;

use bulkhead_nodeagent_core::hardware::node_meminfo;
use bulkhead_nodeagent_core::qemu::{HostMemPolicy, MemoryBackendRam, Ram};
use bulkhead_nodeagent_core::{GuestNuma, RunsOn, StartVm, node_available_bytes, pin_plan};
use bulkhead_types::{CpuTopology, ObjectId};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::host;
use crate::machine::MachineTree;
use crate::vm::affinity;
use crate::volumes::VolumePort;

/// Memory of the backends with which QEMU is tried, in bytes.
const TRIAL_BYTES: u64 = 1 << 20;

/// What the agent knows of its machine's NUMA nodes.
#[derive(Debug, Default)]
pub(crate) struct Numa {
    /// Unset: they are not known, and guests are placed by their CPUs only.
    topology: Option<CpuTopology>,
    /// QEMU can bind memory to them here.
    binds: bool,
}

impl Numa {
    /// Tries once whether QEMU can bind memory to each of these NUMA nodes; with the warning when it cannot.
    pub(crate) async fn find_out(
        topology: Option<CpuTopology>,
        qemu: &Path,
        sandbox: bool,
    ) -> (Self, Option<String>) {
        let Some(known) = &topology else { return (Self::default(), None) };
        let with_memory = known.numa_nodes.iter().filter(|node| node.memory_bytes > 0);
        let backend = |node: &bulkhead_types::NumaNode| MemoryBackendRam {
            id: format!("mem{}", node.id),
            size_bytes: TRIAL_BYTES,
            host_node: node.id,
            policy: HostMemPolicy::Bind,
            prealloc: true,
        };
        let backends: Vec<String> = with_memory.flat_map(|node| backend(node).to_args()).collect();
        let binds = host::empty_machine_works(qemu, sandbox, &backends).await;
        let problem = (!binds).then(|| {
            "QEMU cannot bind memory to NUMA nodes here; memory of guests with CPUs of their own is wherever the kernel puts it"
                .to_owned()
        });
        (Self { topology, binds }, problem)
    }

    /// Whether it matters where memory is: there are several NUMA nodes, and QEMU can bind memory to them.
    pub(crate) fn is_several(&self) -> bool {
        let with_memory = |node: &&bulkhead_types::NumaNode| node.memory_bytes > 0;
        self.binds
            && self.topology.as_ref().is_some_and(|all| all.numa_nodes.iter().filter(with_memory).count() > 1)
    }

    /// Where a guest's memory comes from.
    pub(crate) fn ram(&self, start: &StartVm) -> Ram {
        let (Some(cpus), Some(topology), true) = (&start.pod.cpus, &self.topology, self.binds) else {
            return Ram::Board;
        };
        let pod = start.pod.id;
        let tree = MachineTree::new("/");
        let available = |node| node_available_bytes(&node_meminfo(&tree, node)?);
        match GuestNuma::place(topology, cpus, start.size, available) {
            Ok(placed) => {
                for node in placed.crowded() {
                    tracing::warn!(%pod, node, "the NUMA node has less memory left than the guest takes there: some may be elsewhere");
                }
                // All of it is pinned then anyway; so what is missing is known before the guest starts.
                placed.ram(!start.pod.devices.is_empty())
            }
            Err(why) => {
                tracing::warn!(%pod, %why, "the guest's memory is bound to no NUMA node");
                Ram::Board
            }
        }
    }

    /// Pins each virtual CPU of a guest as soon as QEMU says which thread it is. `pid` is QEMU's: it is believed of its own threads
    /// only. `None` where they are on the same CPUs together.
    pub(crate) fn pin(
        &self,
        (pod, pid): (ObjectId, i32),
        runs_on: RunsOn,
        port: VolumePort,
    ) -> Option<JoinHandle<()>> {
        let topology = self.topology.clone().filter(|_| runs_on.one_by_one)?;
        Some(tokio::spawn(async move {
            let pinned = async {
                let said =
                    port.call("query-cpus-fast", json!({})).await.map_err(|error| error.to_string())?;
                let plan = pin_plan(&topology, &runs_on.cpus, &threads(&said)?)?;
                affinity::pin(pid, &plan).map_err(|error| error.to_string())?;
                Ok::<_, String>(plan)
            };
            match pinned.await {
                Ok(plan) => tracing::debug!(%pod, ?plan, "threads of virtual CPUs are pinned to CPUs"),
                Err(reason) => tracing::warn!(%pod, reason, "virtual CPUs share the pod's CPUs"),
            }
        }))
    }
}

/// The thread of each virtual CPU, of what `query-cpus-fast` returns.
fn threads(said: &Value) -> Result<BTreeMap<u32, i32>, String> {
    let one = |cpu: &Value| {
        let index = u32::try_from(cpu.get("cpu-index")?.as_u64()?).ok()?;
        Some((index, i32::try_from(cpu.get("thread-id")?.as_i64()?).ok()?))
    };
    let all = said.as_array().and_then(|cpus| cpus.iter().map(one).collect::<Option<BTreeMap<_, _>>>());
    all.ok_or_else(|| "QEMU does not say which threads virtual CPUs are".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_known_by_what_qemu_says() {
        let cpu =
            |index: u64, thread: i64| json!({"cpu-index": index, "thread-id": thread, "target": "x86_64"});
        assert_eq!(threads(&json!([cpu(1, 71), cpu(0, 70)])), Ok([(0, 70), (1, 71)].into()));
        for bad in [json!({}), json!([{"cpu-index": 0}]), json!([cpu(0, 1 << 40)])] {
            assert!(threads(&bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_qemu_that_cannot_is_a_warning_and_guests_are_bound_nowhere() {
        let topology = CpuTopology {
            numa_nodes: vec![bulkhead_types::NumaNode {
                id: 0,
                memory_bytes: 1,
                huge_pages: bulkhead_types::HugePages::NONE,
                cores: Vec::new(),
            }],
            ..CpuTopology::default()
        };
        let (numa, problem) = Numa::find_out(Some(topology), Path::new("/bin/false"), true).await;
        assert!(!numa.binds && problem.is_some_and(|text| text.contains("NUMA")));
        let (numa, problem) = Numa::find_out(None, Path::new("/bin/false"), true).await;
        assert!(!numa.binds && problem.is_none(), "the agent has warned of that already");
    }
}
