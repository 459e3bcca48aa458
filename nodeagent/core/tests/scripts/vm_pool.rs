//! Which pods may have a guest that was booted before them.

use bulkhead_nodeagent_core::{GuestSize, StartVm, VM_POOL_DISKS_MAX, needs_own_boot};
use bulkhead_types::{ClaimIntent, DeviceIntent};

use super::support::*;

#[test]
fn only_what_needs_nothing_from_the_start_has_a_guest_of_the_pool() {
    let size = GuestSize::new(&pod(1).spec);
    let check = |change: &dyn Fn(&mut StartVm), disks, expected: Option<&str>| {
        let (pod, images) = (pod(1), std::collections::BTreeMap::new());
        let lease_until_ms = None;
        let mut start =
            StartVm { pod, instance: 1, size, images, lease_until_ms, address: None, host_ip: None };
        change(&mut start);
        for several_numa_nodes in [false, true] {
            let why = needs_own_boot(&start, disks, several_numa_nodes);
            let expected = expected.filter(|why| several_numa_nodes || !why.contains("NUMA"));
            assert!(why.is_some() == expected.is_some(), "{why:?}, not {expected:?}");
            assert!(why.unwrap_or_default().contains(expected.unwrap_or_default()), "{why:?}");
        }
    };
    check(&|_| {}, VM_POOL_DISKS_MAX, None);
    check(&|_| {}, VM_POOL_DISKS_MAX + 1, Some("more disks"));
    check(&|start| start.lease_until_ms = Some(1), 1, None);
    let claim = ClaimIntent {
        claim_name: "data".into(),
        uid: uuid::Uuid::nil(),
        size_bytes: 1,
        used: false,
        read_only: false,
    };
    check(&|start| start.pod.claims.push(claim.clone()), 1, None);
    check(&|start| start.pod.cpus = Some("0-1".parse().expect("a set")), 1, Some("NUMA node"));
    let device = DeviceIntent {
        container: "main".into(),
        resource: "nvidia.com/gpu".into(),
        device: "gpu-0".into(),
        address: "0000:01:00.0".into(),
        share: None,
        lost: false,
        visible_env: "".into(),
        visible_as: "".into(),
    };
    check(&|start| start.pod.devices.push(device.clone()), 1, Some("it has devices of the host"));
}
