//! Processors: which CPUs are online, their cores, and the NUMA nodes with their memory.
//!
//! Source: `Documentation/admin-guide/cputopology.rst` and `numastat.rst` of the Linux kernel.

use std::collections::BTreeMap;

use bulkhead_types::{CpuCore, CpuSet, CpuTopology, NUMA_NODES_MAX, NumaNode, NumaPolicy};

use super::{HUGE_PAGE_POOLS, MEMINFO, Tree, huge_pages, meminfo_bytes, node_huge_page_pools};

const CPUS: &str = "/sys/devices/system/cpu";
const NODES: &str = "/sys/devices/system/node";

/// Why the processors cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct CpuProblem {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

fn problem(path: &str, reason: impl ToString) -> CpuProblem {
    CpuProblem { path: path.to_owned(), reason: reason.to_string() }
}

fn text(tree: &dyn Tree, path: &str) -> Result<String, CpuProblem> {
    let bytes = tree.read(path).map_err(|error| problem(path, error))?;
    String::from_utf8(bytes).map(|text| text.trim().to_owned()).map_err(|_| problem(path, "is no text"))
}

fn set(tree: &dyn Tree, path: &str) -> Result<CpuSet, CpuProblem> {
    text(tree, path)?.parse().map_err(|error| problem(path, error))
}

/// A number; machines that do not know it say -1, which counts as 0.
fn number(tree: &dyn Tree, path: &str) -> Result<u32, CpuProblem> {
    let text = text(tree, path)?;
    let number: i64 = text.parse().map_err(|_| problem(path, format!("{text:?} is no number")))?;
    u32::try_from(number.max(0)).map_err(|_| problem(path, format!("{number} is too large")))
}

/// The memory that a file tells of in the form of `/proc/meminfo`, in bytes.
fn memory_bytes(tree: &dyn Tree, path: &str) -> Result<u64, CpuProblem> {
    let text = text(tree, path)?;
    meminfo_bytes(&text, "MemTotal").ok_or_else(|| problem(path, "has no MemTotal in kB"))
}

/// The processors of a machine, of which only `allowed` count when that is given. Policy and reserved CPUs are an operator's to say.
///
/// # Errors
/// With the first file that cannot be read or says what no machine is like.
pub fn cpu_topology(tree: &dyn Tree, allowed: Option<&CpuSet>) -> Result<CpuTopology, CpuProblem> {
    let online = set(tree, &format!("{CPUS}/online"))?;
    let online = allowed.map_or(online.clone(), |allowed| online.intersection(allowed));
    let mut cores = BTreeMap::<(u32, u32), CpuSet>::new();
    for cpu in online.iter() {
        let package = number(tree, &format!("{CPUS}/cpu{cpu}/topology/physical_package_id"))?;
        let core = number(tree, &format!("{CPUS}/cpu{cpu}/topology/core_id"))?;
        cores.entry((package, core)).or_default().insert(cpu);
    }
    let mut left = online.clone();
    let mut numa_nodes = Vec::new();
    for (id, cpus, memory_bytes) in nodes(tree, &online)? {
        let pools = match tree.list(NODES) {
            Ok(names) if !names.is_empty() => node_huge_page_pools(id),
            _ => HUGE_PAGE_POOLS.to_owned(),
        };
        let huge_pages = huge_pages(tree, &pools);
        let memory_bytes = memory_bytes.saturating_sub(huge_pages.total_bytes());
        let own = cpus.intersection(&left);
        left = left.minus(&own);
        // Cores do not reach over NUMA nodes; what says so is taken apart.
        let of_node = cores.iter().map(|((package, core), cpus)| CpuCore {
            package: *package,
            core: *core,
            cpus: cpus.intersection(&own),
        });
        let cores = of_node.filter(|core| !core.cpus.is_empty()).collect();
        numa_nodes.push(NumaNode { id, memory_bytes, huge_pages, cores });
    }
    if !left.is_empty() {
        return Err(problem(NODES, format!("CPUs {left} are on no NUMA node")));
    }
    let topology = CpuTopology { numa_nodes, reserved: CpuSet::new(), policy: NumaPolicy::None };
    topology.check().map_err(|reason| problem(CPUS, reason))?;
    Ok(topology)
}

/// The NUMA nodes by number, with their CPUs and memory; one with everything where the kernel knows of none.
fn nodes(tree: &dyn Tree, online: &CpuSet) -> Result<Vec<(u32, CpuSet, u64)>, CpuProblem> {
    let names = tree.list(NODES).unwrap_or_default();
    let mut ids: Vec<u32> = names.iter().filter_map(|name| name.strip_prefix("node")?.parse().ok()).collect();
    ids.sort_unstable();
    if ids.is_empty() {
        return Ok(vec![(0, online.clone(), memory_bytes(tree, MEMINFO)?)]);
    }
    if ids.len() > NUMA_NODES_MAX {
        return Err(problem(
            NODES,
            format!("has {} NUMA nodes: at most {NUMA_NODES_MAX} are told", ids.len()),
        ));
    }
    let node = |id: u32| {
        let cpus = set(tree, &format!("{NODES}/node{id}/cpulist"))?;
        Ok((id, cpus, memory_bytes(tree, &format!("{NODES}/node{id}/meminfo"))?))
    };
    ids.into_iter().map(node).collect()
}
