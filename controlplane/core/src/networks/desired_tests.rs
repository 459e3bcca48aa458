//! Tests of [`super`]: policies and NICs as a table, and what comes out.

use bulkhead_types::{
    Hex16, Name, NodePhase, NodeStatus, ObjectMeta, Rare, SriovDeviceType, SriovLinkType,
    SriovNetworkNodePolicySpec, SriovNicSelector, VENDOR_INTEL,
};
use expect_test::{Expect, expect};

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn nic(address: &str, name: &str, vendor: u16, total_vfs: u32) -> Device {
    let link_type = Some(SriovLinkType::Eth);
    let nic = NicFacts { name: name.into(), total_vfs, link_type, ..NicFacts::default() };
    let (id, device) = (address.into(), 0x1017);
    Device { id, address: address.into(), vendor, device, nic: Rare::some(nic), ..Device::default() }
}

/// Two Intel NICs and one of Mellanox.
fn slice() -> ResourceSlice {
    let devices = vec![
        nic("0000:3b:00.0", "eno1", VENDOR_INTEL, 32),
        nic("0000:3b:00.1", "eno2", VENDOR_INTEL, 32),
        nic("0000:61:00.0", "ib0", VENDOR_MELLANOX, 3),
    ];
    let meta = ObjectMeta::new(None, name("node-1"));
    let (node, cordoned, state) = (ObjectId(1), vec![], Rare::NONE);
    ResourceSlice { meta, node, incarnation: 1, sequence: 1, devices, cordoned, state }
}

fn policy(policy: &str, priority: u32, num_vfs: u32, pf_names: &[&str]) -> SriovNetworkNodePolicySpec {
    SriovNetworkNodePolicySpec {
        resource_name: policy.into(),
        priority,
        num_vfs,
        nic_selector: SriovNicSelector {
            vendor: pf_names.is_empty().then_some(Hex16(VENDOR_INTEL)),
            pf_names: pf_names.iter().map(|text| (*text).into()).collect(),
            ..SriovNicSelector::default()
        },
        device_type: SriovDeviceType::VfioPci,
        ..SriovNetworkNodePolicySpec::default()
    }
}

fn check(policies: &[SriovNetworkNodePolicySpec], expected: Expect) {
    check_with(policies, None, expected);
}

fn check_with(policies: &[SriovNetworkNodePolicySpec], supported: Option<&[(u16, u16)]>, expected: Expect) {
    let policies: Vec<_> = (policies.iter().zip(1u64..))
        .map(|(spec, at)| {
            let mut meta = ObjectMeta::new(Some(name("default")), name(&spec.resource_name));
            (meta.id, meta.generation) = (ObjectId(at), 1);
            Arc::new(SriovNetworkNodePolicy { meta, spec: spec.clone() })
        })
        .collect();
    let mut meta = ObjectMeta::new(None, name("node-1"));
    meta.labels.insert("sriov".into(), "yes".into());
    let facts = bulkhead_types::NodeFacts::default();
    let status = NodeStatus {
        phase: NodePhase::Ready,
        phase_since_ms: 0,
        incarnation: 1,
        facts,
        pool: Default::default(),
        images: Default::default(),
        device_labels: Default::default(),
    };
    let node = Node { meta, spec: Default::default(), status };
    let found = desired(&node, &slice(), &policies, |_| supported.map(<[_]>::to_vec));
    let mut text = String::new();
    for one in &found.spec.interfaces {
        let group = |group: &SriovVfGroup| format!("{}-{} {}", group.first, group.last, group.resource_name);
        let groups: Vec<_> = one.vf_groups.iter().map(group).collect();
        text += &format!("{} {} VFs, mtu {:?}: {}\n", one.name, one.num_vfs, one.mtu, groups.join(", "));
    }
    for problem in &found.problems {
        text += &format!("problem: {problem}\n");
    }
    if !found.is_selected {
        text += "not selected\n";
    }
    expected.assert_eq(&text);
}

#[test]
fn a_policy_means_the_nics_that_all_its_fields_mean() {
    check(
        &[policy("all", 99, 4, &[])],
        expect![[r#"
        eno1 4 VFs, mtu None: 0-3 all
        eno2 4 VFs, mtu None: 0-3 all
    "#]],
    );
    check(
        &[policy("one", 99, 4, &["eno2#1-2"])],
        expect![[r#"
        eno2 4 VFs, mtu None: 1-2 one
    "#]],
    );
    // What is nowhere is no mistake: the node's state has its version and nothing else.
    check(&[policy("none", 99, 4, &["eno9"])], expect![""]);
    let mut elsewhere = policy("all", 99, 4, &[]);
    elsewhere.node_selector.insert("sriov".into(), "no".into());
    check(
        &[elsewhere],
        expect![[r#"
        not selected
    "#]],
    );
    let mut ib = policy("ib", 99, 4, &[]);
    ib.link_type = Some(SriovLinkType::Ib);
    check(&[ib], expect![""]);
    let mut both = policy("both", 99, 4, &["eno1"]);
    both.nic_selector.root_devices = vec!["0000:3b:00.1".into()];
    check(
        &[both],
        expect![[r#"
        problem: policy both: pfNames and rootDevices name different NICs: eno1 is at 0000:3b:00.0
    "#]],
    );
}

#[test]
fn the_smaller_priority_wins_where_policies_mean_the_same_functions() {
    let strong = SriovNetworkNodePolicySpec { mtu: Some(9000), ..policy("strong", 10, 4, &["eno1#0-1"]) };
    // Beside what it does not overlap; the larger number of VFs holds.
    check(
        &[strong.clone(), policy("weak", 99, 8, &["eno1#2-7"])],
        expect![[r#"
        eno1 8 VFs, mtu Some(9000): 0-1 strong, 2-7 weak
    "#]],
    );
    // What overlaps is gone as a whole.
    check(
        &[strong.clone(), policy("weak", 99, 8, &["eno1"])],
        expect![[r#"
        eno1 4 VFs, mtu Some(9000): 0-1 strong
    "#]],
    );
    // Among equals the name decides.
    check(
        &[policy("b", 10, 8, &["eno1#0-3"]), policy("a", 10, 4, &["eno1#0-3"])],
        expect![[r#"
        eno1 8 VFs, mtu None: 0-3 b
    "#]],
    );
}

#[test]
fn as_many_functions_as_the_nic_can_have() {
    check(
        &[policy("many", 99, 33, &["eno1"])],
        expect![[r#"
        problem: policy many: eno1 can have 32 VFs, not 33
    "#]],
    );
    // Of Mellanox the firmware's present number says nothing.
    check(
        &[policy("mellanox", 99, 64, &["ib0"])],
        expect![[r#"
        ib0 64 VFs, mtu None: 0-63 mellanox
    "#]],
    );
    check(
        &[policy("mellanox", 99, 129, &["ib0"])],
        expect![[r#"
        problem: policy mellanox: ib0 of vendor 15b3 can have 128 VFs, not 129
    "#]],
    );
}

#[test]
fn nics_that_are_not_supported_are_left_as_they_are() {
    let mellanox: &[_] = &[(VENDOR_MELLANOX, 0x1017)];
    check_with(
        &[policy("named", 99, 2, &["eno1", "ib0"])],
        Some(mellanox),
        expect![[r#"
        ib0 2 VFs, mtu None: 0-1 named
        problem: policy named: eno1 is 8086:1017, which is not supported
    "#]],
    );
    // Who names none means those that are supported.
    check_with(&[policy("all", 99, 4, &[])], Some(mellanox), expect![""]);
    check_with(
        &[policy("all", 99, 4, &[])],
        Some(&[(VENDOR_INTEL, 0x1017)]),
        expect![[r#"
        eno1 4 VFs, mtu None: 0-3 all
        eno2 4 VFs, mtu None: 0-3 all
    "#]],
    );
}
