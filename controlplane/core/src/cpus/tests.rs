//! Choices on nodes of the documents, and laws of choice, ledger and judge.

use bulkhead_types::{
    CpuBindPolicy, CpuCore, CpuHold, CpuNeeds, CpuSet, CpuTopology, HugePages, NumaNode, NumaPolicy,
    ObjectId, PodCpus,
};
use proptest::prelude::*;

use super::{Asks, NodeCpus, choose, may_take};

const MIB: u64 = 1 << 20;

fn set(text: &str) -> CpuSet {
    text.parse().expect("a set")
}

/// NUMA nodes of so many CPUs one after the other, so many threads to a core, 1 GiB each.
fn topology(nodes: &[u32], threads: u32, policy: NumaPolicy) -> CpuTopology {
    let mut next = 0;
    let node = |(id, count): (u32, &u32)| {
        let first = next;
        next += count;
        let core = |core: u32| CpuCore {
            package: id,
            core,
            cpus: (0..threads).map(|thread| first + core * threads + thread).collect(),
        };
        NumaNode {
            id,
            memory_bytes: 1024 * MIB,
            huge_pages: HugePages { two_mib_bytes: 64 * MIB, one_gib_bytes: 0 },
            cores: (0..count / threads).map(core).collect(),
        }
    };
    let numa_nodes = (0..).zip(nodes).map(node).collect();
    CpuTopology { numa_nodes, reserved: CpuSet::new(), policy }
}

fn needs(cpus: u32, policy: NumaPolicy) -> CpuNeeds {
    CpuNeeds {
        hold: CpuHold::Reserved,
        cpus,
        memory_bytes: 100 * MIB,
        huge_pages: HugePages::NONE,
        policy,
        bind: CpuBindPolicy::FullPCPUs,
        full_cores: false,
    }
}

fn chosen(needs: &CpuNeeds, ledger: &NodeCpus) -> Option<PodCpus> {
    let asks = Asks { cpus: Some(needs), devices: None };
    let chosen = choose(&asks, Some(ledger), None)?.cpus?;
    assert!(may_take(&asks, ledger, None, &chosen, &[]), "{chosen:?} was chosen and is refused");
    Some(chosen)
}

/// What pods of these needs get, one after the other.
fn check(topology: &CpuTopology, pods: &[(CpuNeeds, Option<&str>)]) -> NodeCpus {
    let mut ledger = NodeCpus::new(topology);
    for (number, (needs, expected)) in (1..).zip(pods) {
        let found = chosen(needs, &ledger);
        let cpus = found.as_ref().map(|found| found.cpus.to_string());
        assert_eq!(cpus.as_deref(), *expected, "pod {number}: {needs:?}");
        found.iter().for_each(|found| ledger.take(ObjectId(number), found));
    }
    ledger
}

/// Vector TV-23: a node of 16 CPUs; LSE gets 0-1, LSR 2-3, LS runs on 4-15, BE on all but 0-1.
#[test]
fn classes_have_the_documents_sets() {
    let spread = CpuNeeds { bind: CpuBindPolicy::SpreadByPCPUs, ..needs(2, NumaPolicy::None) };
    let exclusive = CpuNeeds { hold: CpuHold::Exclusive, ..spread };
    let ledger =
        check(&topology(&[16], 1, NumaPolicy::None), &[(exclusive, Some("0-1")), (spread, Some("2-3"))]);
    assert_eq!((ledger.shared(), ledger.batch()), (set("4-15"), set("2-15")));
    // What is bound only stays in the pool.
    let bound = CpuNeeds { hold: CpuHold::Bound, ..needs(4, NumaPolicy::None) };
    let ledger = check(&topology(&[8], 2, NumaPolicy::None), &[(bound, Some("0-3")), (bound, Some("4-7"))]);
    assert_eq!((ledger.shared(), ledger.batch()), (set("0-7"), set("0-7")));
}

#[test]
fn whole_cores_go_first_and_broken_ones_are_filled_up() {
    let any = |cpus| needs(cpus, NumaPolicy::None);
    let threads = topology(&[8], 2, NumaPolicy::None);
    check(&threads, &[(any(3), Some("0-2")), (any(1), Some("3")), (any(2), Some("4-5"))]);
    let spread = |cpus| CpuNeeds { bind: CpuBindPolicy::SpreadByPCPUs, ..any(cpus) };
    check(&threads, &[(spread(3), Some("0,2,4")), (any(3), Some("1,6-7")), (any(1), Some("3"))]);
    let full = |cpus| CpuNeeds { full_cores: true, ..any(cpus) };
    check(&threads, &[(any(1), Some("0")), (full(4), Some("2-5")), (full(4), None), (full(3), None)]);
}

#[test]
fn reserved_cpus_and_the_last_shared_one_are_nobodys() {
    let any = |cpus| needs(cpus, NumaPolicy::None);
    check(&topology(&[4], 1, NumaPolicy::None), &[(any(4), None), (any(3), Some("0-2")), (any(1), None)]);
    let reserving = CpuTopology { reserved: set("0"), ..topology(&[4], 1, NumaPolicy::None) };
    check(&reserving, &[(any(4), None), (any(3), Some("1-3")), (any(1), None)]);
}

/// The table of the document, section 2.5, second phase.
#[test]
fn policies_decide_whether_a_pod_may_be_on_several_numa_nodes() {
    use NumaPolicy::{BestEffort, Restricted, SingleNumaNode};
    let two = |policy| topology(&[8, 8], 2, policy);
    let first = needs(6, NumaPolicy::None);
    check(
        &two(BestEffort),
        &[(first, Some("0-5")), (needs(6, BestEffort), Some("8-13")), (needs(3, BestEffort), Some("6-7,14"))],
    );
    // One is large enough when it is empty, so several will not do.
    check(
        &two(Restricted),
        &[(first, Some("0-5")), (needs(6, Restricted), Some("8-13")), (needs(3, Restricted), None)],
    );
    // None is ever large enough, so several will do.
    check(&two(Restricted), &[(needs(10, Restricted), Some("0-9"))]);
    check(
        &two(SingleNumaNode),
        &[(needs(10, SingleNumaNode), None), (needs(8, SingleNumaNode), Some("0-7"))],
    );
    // The fullest that has room is taken, so that large pods find an empty one.
    check(
        &two(SingleNumaNode),
        &[(first, Some("0-5")), (needs(2, SingleNumaNode), Some("6-7")), (needs(8, SingleNumaNode), None)],
    );
}

#[test]
fn memory_counts_on_the_one_numa_node_that_a_pod_is_on() {
    let large = CpuNeeds { memory_bytes: 600 * MIB, ..needs(2, NumaPolicy::SingleNumaNode) };
    let ledger = check(
        &topology(&[8, 8], 2, NumaPolicy::SingleNumaNode),
        &[(large, Some("0-1")), (large, Some("8-9")), (large, None)],
    );
    assert!(ledger.uses().iter().all(|one| one.held_memory_bytes == 600 * MIB));
    // Who may be on several is not refused for that: the kernel takes the memory from where there is some.
    let lax = CpuNeeds { memory_bytes: 2048 * MIB, ..needs(2, NumaPolicy::BestEffort) };
    let found = chosen(&lax, &NodeCpus::new(&topology(&[8, 8], 2, NumaPolicy::BestEffort))).expect("room");
    assert_eq!((found.memory_bytes, found.numa_nodes), (0, vec![0]));
}

fn any_needs() -> impl Strategy<Value = CpuNeeds> {
    let holds = prop::sample::select(vec![CpuHold::Exclusive, CpuHold::Reserved, CpuHold::Bound]);
    let policies = prop::sample::select(NumaPolicy::NAMES.map(|(_, policy)| policy).to_vec());
    (holds, 1u32..12, 1u64..700, policies, any::<(bool, bool)>()).prop_map(
        |(hold, cpus, mib, policy, (is_spread, full_cores))| CpuNeeds {
            hold,
            cpus,
            memory_bytes: mib * MIB,
            huge_pages: HugePages { two_mib_bytes: (mib % 3) * 20 * MIB, one_gib_bytes: 0 },
            policy,
            bind: if is_spread { CpuBindPolicy::SpreadByPCPUs } else { CpuBindPolicy::FullPCPUs },
            full_cores: full_cores && !is_spread,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Pods come and go: no CPU is ever held twice, the pools are what the classes say, and a ledger made afresh is the same.
    #[test]
    fn no_cpu_has_two_holders(
        threads in 1u32..3, nodes in prop::collection::vec(1u32..7, 1..4), reserved in 0u32..3,
        steps in prop::collection::vec((any_needs(), any::<Option<prop::sample::Index>>()), 1..24),
    ) {
        let nodes: Vec<u32> = nodes.iter().map(|cores| cores * threads).collect();
        let shape = topology(&nodes, threads, NumaPolicy::None);
        let shape = CpuTopology { reserved: (0..reserved).collect::<CpuSet>().intersection(&shape.cpus()), ..shape };
        let mut ledger = NodeCpus::new(&shape);
        for (number, (needs, end)) in (1..).zip(&steps) {
            if let Some(given) = chosen(needs, &ledger) {
                prop_assert!(given.cpus.is_subset(&ledger.free()) && given.cpus.len() == needs.cpus);
                prop_assert!(needs.policy != NumaPolicy::SingleNumaNode || given.numa_nodes.len() == 1);
                ledger.take(ObjectId(number), &given);
                let asks = Asks { cpus: Some(needs), devices: None };
                prop_assert!(!may_take(&asks, &ledger, None, &given, &[]), "given twice");
            }
            let holders: Vec<(ObjectId, PodCpus)> = ledger.holders().map(|(pod, given)| (pod, given.clone())).collect();
            if let Some((pod, _)) = end.filter(|_| !holders.is_empty()).map(|end| end.get(&holders)) {
                ledger.release(*pod);
            }
            let mut afresh = NodeCpus::new(&shape);
            ledger.holders().for_each(|(pod, given)| afresh.take(pod, given));
            prop_assert_eq!(&afresh, &ledger);
            let held: u32 = ledger.holders().map(|(_, given)| given.cpus.len()).sum();
            prop_assert_eq!(held, ledger.taken().len());
            let of = |hold| ledger.holders().filter(move |(_, given)| given.hold == hold).map(|(_, given)| &given.cpus);
            prop_assert!(of(CpuHold::Exclusive).all(|cpus| cpus.is_disjoint(&ledger.batch()) && cpus.is_disjoint(&ledger.shared())));
            prop_assert!(of(CpuHold::Reserved).all(|cpus| cpus.is_disjoint(&ledger.shared()) && cpus.is_subset(&ledger.batch())));
            prop_assert!(ledger.shared().is_subset(&ledger.batch()) && !ledger.shared().is_empty());
            prop_assert!(ledger.uses().iter().all(|one| one.held_memory_bytes <= one.memory_bytes));
        }
    }
}
