//! Manifests of SR-IOV policies, networks, and pods that attach them.

mod kit;

use bulkhead_manifest::to_yaml;
use bulkhead_types::Object;
use expect_test::{Expect, expect};
use kit::{NAMES, check, read};

#[test]
fn the_example_is_read_whole_and_printed_as_the_same() {
    let objects = read(include_str!("../../../examples/sriov.yaml"));
    for object in &objects {
        assert_eq!(read(&to_yaml(object, NAMES)), std::slice::from_ref(object));
    }
    let [
        Object::SriovNetworkNodePolicy(policy),
        Object::SriovNetwork(network),
        Object::SriovIBNetwork(ib),
        Object::Pod(_),
    ] = &objects[..]
    else {
        panic!("a policy, two networks and a pod, not {objects:?}")
    };
    assert_eq!((policy.spec.priority, policy.spec.num_vfs), (10, 8));
    let ipam = network.spec.ipam.as_ref().expect("it gives out addresses");
    assert_eq!(ipam.gateway.map(|gateway| gateway.to_string()).as_deref(), Some("192.168.100.1"));
    assert_eq!(ib.spec.ipam.as_ref().expect("it gives out addresses").range.to_string(), "fd00:10::/64");
    let text = to_yaml(&objects[1], NAMES);
    assert!(text.contains("spoofChk: \"on\"") || text.contains("spoofChk: 'on'"), "in quotes: {text}");
}

#[track_caller]
fn check_spec(kind: &str, spec: &str, expected: Expect) {
    let head = "apiVersion: sriovnetwork.openshift.io/v1\nkind: ";
    check(&format!("{head}{kind}\nmetadata: {{name: n}}\nspec: {spec}\n"), expected);
}

#[test]
fn mistakes_of_policies_are_told_with_their_places() {
    let check = |spec: &str, expected| check_spec("SriovNetworkNodePolicy", spec, expected);
    check(
        "{resourceName: a, numVfs: 4, nicSelector: {vendor: '8086'}}",
        expect![[r#"
        accepted
    "#]],
    );
    check(
        "{resourceName: '', numVf: 4, nicSelector: {}}",
        expect![[r#"
        a.yaml:4:7 spec.numVfs: is required
        a.yaml:4:26 spec.numVf: unknown field: did you mean "numVfs"?
    "#]],
    );
    check(
        "{resourceName: a, numVfs: 0, priority: 100, mtu: 9001, isRdma: true, deviceType: vfio-pci, linkType: IB, \
         nicSelector: {vendor: '8086'}}",
        expect![[r#"
            a.yaml:4:25 spec.numVfs: must be from 1 to 1024
            a.yaml:4:36 spec.priority: must be from 0 to 99; the smaller one wins
            a.yaml:4:51 spec.mtu: must be from 1 to 9000
            a.yaml:4:62 spec.isRdma: must be false with deviceType vfio-pci: a guest brings up RDMA itself
            a.yaml:4:98 spec.linkType: must not be IB of vendor 8086: only NICs of vendor 15b3 speak InfiniBand
        "#]],
    );
    check(
        "{resourceName: a, numVfs: 129, nicSelector: {vendor: '15b3', pfNames: [a, 'a#1-2', 'b#3-1', 'c#0-129', 'd/e']}}",
        expect![[r#"
            a.yaml:4:25 spec.numVfs: must be from 1 to 128
            a.yaml:4:81 spec.nicSelector.pfNames[1]: repeats a
            a.yaml:4:90 spec.nicSelector.pfNames[2]: "b#3-1": the first VF is after the last
            a.yaml:4:99 spec.nicSelector.pfNames[3]: names VF 129, but numVfs is 129: the last is 128
            a.yaml:4:110 spec.nicSelector.pfNames[4]: "d/e" is no NIC's name: expected NAME or NAME#FIRST-LAST, such as eno1#0-3
        "#]],
    );
    check(
        "{resourceName: a, numVfs: 1, nicSelector: {rootDevices: ['61:00.0']}}",
        expect![[r#"
        a.yaml:4:50 spec.nicSelector.rootDevices: needs one of vendor, deviceID and pfNames as well: an address alone may be another device on another node
        a.yaml:4:64 spec.nicSelector.rootDevices[0]: "61:00.0" is no PCI address: expected DDDD:BB:DD.F, such as 0000:61:00.0
    "#]],
    );
    check(
        "{resourceName: a, numVfs: 1, deviceType: vfio, linkType: ib, nicSelector: {vendor: 8086, deviceID: 158}}",
        expect![[r#"
            a.yaml:4:48 spec.deviceType: "vfio" is not one of netdevice, vfio-pci
            a.yaml:4:90 spec.nicSelector.vendor: expected a string, found the number 8086: put it in quotes
            a.yaml:4:106 spec.nicSelector.deviceID: expected a string, found the number 158: put it in quotes
        "#]],
    );
}

#[test]
fn mistakes_of_networks_are_told_with_their_places() {
    let check = |spec: &str, expected| check_spec("SriovNetwork", spec, expected);
    check(
        "{resourceName: a}",
        expect![[r#"
        accepted
    "#]],
    );
    check(
        "{resourceName: a, spoofChk: on, trust: true, linkState: up, vlan: 4096, vlanQoS: 8}",
        expect![[r#"
            a.yaml:4:46 spec.trust: expected a string, found the boolean true: put it in quotes
            a.yaml:4:63 spec.linkState: "up" is not one of auto, enable, disable
            a.yaml:4:67 spec.vlan: must be from 0 to 4095; 0 is none
            a.yaml:4:79 spec.vlanQoS: must be from 0 to 7
        "#]],
    );
    check(
        "{resourceName: a, vlanQoS: 1, minTxRate: 10, maxTxRate: 5, networkNamespace: A}",
        expect![[r#"
        a.yaml:4:25 spec.vlanQoS: needs a vlan above 0: the priority is part of its tag
        a.yaml:4:37 spec.minTxRate: must be at most maxTxRate, which must be set as well
        a.yaml:4:84 spec.networkNamespace: name "A" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
    "#]],
    );
}

#[test]
fn mistakes_of_addresses_are_told_with_their_places() {
    let check = |spec: &str, expected| check_spec("SriovNetwork", spec, expected);
    check(
        r#"{resourceName: a, ipam: '{"type": "host-local", "subnet": "10.0.0.0/24"}'}"#,
        expect![[r#"
            a.yaml:4:31 spec.ipam.range: is required
            a.yaml:4:31 spec.ipam.subnet: unknown field: there are type, range, range_start, range_end, exclude, gateway, routes
            a.yaml:4:31 spec.ipam.type: must be "whereabouts": other ways to give out addresses are not supported
        "#]],
    );
    check(
        r#"{resourceName: a, ipam: '{', capabilities: '{"bandwidth": true, "mac": 1}'}"#,
        expect![[r#"
        a.yaml:4:31 spec.ipam: is no JSON: EOF while parsing an object at line 1 column 1
        a.yaml:4:50 spec.capabilities.bandwidth: unknown field: there are ips, mac
        a.yaml:4:50 spec.capabilities.mac: expected true or false
    "#]],
    );
    check(
        r#"{resourceName: a, ipam: '{"type": "whereabouts", "range": "10.0.0.0/31", "exclude": ["10.0.0.300"]}'}"#,
        expect![[r#"
            a.yaml:4:25 spec.ipam.range: 10.0.0.0/31 has no address to give out: leave at least 2 bits for hosts
            a.yaml:4:31 spec.ipam.exclude[0]: "10.0.0.300" is no network: expected ADDRESS/PREFIX, such as 192.168.100.0/24
        "#]],
    );
    check(
        r#"{resourceName: a, ipam: '{"type": "whereabouts", "range": "10.0.0.0/24", "range_start": "10.0.0.9", "range_end": "10.0.0.8", "gateway": "10.1.0.1", "exclude": ["10.0.0.9", "10.2.0.0/16"]}'}"#,
        expect![[r#"
            a.yaml:4:25 spec.ipam.exclude[1]: 10.2.0.0/16 excludes nothing of the range 10.0.0.0/24
            a.yaml:4:25 spec.ipam.gateway: 10.1.0.1 is not in the range 10.0.0.0/24
            a.yaml:4:25 spec.ipam.range_end: 10.0.0.8 is before range_start, 10.0.0.9
        "#]],
    );
    check(
        r#"{resourceName: a, ipam: '{"type": "whereabouts", "range": "10.0.0.5-10.0.0.9/24"}'}"#,
        expect![[r#"
            a.yaml:4:31 spec.ipam.range: "10.0.0.5-10.0.0.9/24": say the bounds by range_start and range_end
        "#]],
    );
    check_spec(
        "SriovIBNetwork",
        "{resourceName: a, vlan: 1}",
        expect![[r#"
        a.yaml:4:25 spec.vlan: unknown field
    "#]],
    );
    check_spec(
        "SriovNetworkNodeState",
        "{}",
        expect![[r#"
            a.yaml:2:7 kind: kind "SriovNetworkNodeState" is unknown: did you mean "SriovNetworkNodePolicy"?; there are Namespace, Node, Pod, ReplicaSet, Deployment, StatefulSet, DaemonSet, Job, CronJob, ConfigMap, Secret, HorizontalPodAutoscaler, CronHorizontalPodAutoscaler, PodDisruptionBudget, ElasticWorkload, VerticalPodAutoscaler, PriorityClass, Profile, PersistentVolumeClaim, ResourceQuota, LimitRange, Department, Project, PodGroup, Queue, DeviceClass, SriovNetworkNodePolicy, SriovNetwork, SriovIBNetwork, NodePool, NodeOperation, DeschedulerPolicy, ElasticQuotaTree, VolumeSnapshot, StorageClass, PersistentVolume
        "#]],
    );
}
