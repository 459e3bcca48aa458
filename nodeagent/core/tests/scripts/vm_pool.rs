//! Which pods may have a guest that was booted before them.

use bulkhead_nodeagent_core::{GuestSize, StartVm, VM_POOL_DISKS_MAX, unfit_for_pool};
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
        assert_eq!(unfit_for_pool(&start, disks, size), expected);
    };
    check(&|_| {}, VM_POOL_DISKS_MAX, None);
    check(&|_| {}, VM_POOL_DISKS_MAX + 1, Some("it has too many disks"));
    check(&|start| start.size.cpus += 1, 1, Some("it is of another size"));
    check(&|start| start.size.memory_bytes -= 1 << 20, 1, Some("it is of another size"));
    let guard = "it must be unique, which needs a guard from the start";
    check(&|start| start.lease_until_ms = Some(1), 1, Some(guard));
    let claim = ClaimIntent {
        claim_name: "data".into(),
        uid: uuid::Uuid::nil(),
        size_bytes: 1,
        used: false,
        read_only: false,
    };
    check(&|start| start.pod.claims.push(claim.clone()), 1, Some("it has volumes of claims"));
    let numa = "its memory is to be where its CPUs are";
    check(&|start| start.pod.cpus = Some("0-1".parse().expect("a set")), 1, Some(numa));
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
