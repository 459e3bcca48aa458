//! SR-IOV: policies, the states of nodes, networks, addresses and pods, over a real machine.

use std::sync::Arc;

use bulkhead_controlplane_core::intent::intent_of;
use bulkhead_controlplane_core::reconcile::ReconcileConfig;
use bulkhead_controlplane_core::reconcile::fencing::fence_after_ms;
use bulkhead_types::{
    ANNOTATION_ENABLE_SRIOV, Binding, Command, ConfigMap, DEFAULT_ROUTE_LEVEL, Hex16, IpCidr, Kind,
    LABEL_DEVICES, NetworkRoute, NicFacts, NodeFacts, Object, ObjectId, ObjectMeta, PodPhase, PodReport,
    PodStatus, Rare, RejectionCode, SriovDeviceType, SriovSyncStatus,
};

use crate::device_kit::asking;
use crate::kit::{Cluster, GIB, facts, map, name, pod, reference};
use crate::network_kit::{
    attaching, network, network_object, nic, nic_with, plain_spec, policy, policy_object, vf, with_networks,
};

const VF: &str = "ecnf.io/eth";

fn create(cluster: &mut Cluster, objects: impl IntoIterator<Item = Object>) {
    objects.into_iter().for_each(|object| cluster.ok(Command::Create(object)));
}

fn delete(cluster: &mut Cluster, kind: Kind, text: &str) {
    cluster.ok(Command::Delete { object: reference(kind, text), grace_ms: None, force: false });
}

/// A cluster with a node of one NIC with so many functions, a policy and a network.
fn cluster_with(vfs: u32, range: &str) -> (Cluster, ObjectId) {
    let mut cluster = Cluster::new();
    let node = cluster.nic_node("node-0", nic_with(0, vfs));
    create(&mut cluster, [policy_object("p", "eth", vfs, &["eno0"]), network_object("net", "eth", range)]);
    cluster.rest();
    (cluster, node)
}

/// What an agent says of a pod: that it ended by itself, or that nothing of it is left.
fn report(cluster: &mut Cluster, text: &str, gone: bool) {
    let pod = cluster.pod_named(text);
    let node = pod.node.expect("it has a node");
    let incarnation = cluster.state().nodes().get(node).unwrap().status.incarnation;
    let status = PodStatus { phase: PodPhase::Succeeded, ..PodStatus::default() };
    let report = PodReport { pod: pod.meta.id, sequence: pod.status.report_sequence + 1, status, gone };
    cluster.ok(Command::ReportPods { node, incarnation, reports: vec![report] });
}

#[test]
fn a_policy_makes_functions_a_resource_and_pods_attach_networks_by_them() {
    let (mut cluster, node) = cluster_with(2, "192.168.100.0/24");
    assert_eq!(cluster.counts(node, VF), "2/2/0");
    assert_eq!(cluster.nics(node).status.sync_status, SriovSyncStatus::Succeeded);
    create(&mut cluster, [attaching("a", VF, 1, "default/net"), attaching("b", VF, 1, "net@ib0")]);
    create(&mut cluster, [attaching("c", VF, 1, "net")]);
    cluster.rest();
    assert_eq!(cluster.attached("a"), "default/net 192.168.100.1 by 0000:60:00.1");
    assert_eq!(cluster.attached("b"), "default/net 192.168.100.2 by 0000:60:00.2");
    assert_eq!(cluster.attached("c"), "Unschedulable 0/1 nodes are available: 1 Insufficient ecnf.io/eth.");
    // The agent is told everything that it needs.
    let intent = intent_of(cluster.state(), node).expect("it is there");
    let told = intent.pods.iter().find(|one| one.name == name("b")).expect("it runs there");
    assert_eq!(told.networks, cluster.pod_named("b").networks());
    assert_eq!((told.networks[0].interface.as_str(), told.networks[0].prefix), ("ib0", 24));
    assert!(told.networks[0].mac.starts_with("02:"));
    assert!(told.unique, "whoever has a function and an address is alone");
    assert_eq!((&intent.nics, intent.nics.len()), (&cluster.nics(node).spec.interfaces, 1));
    // A pod that ends gives both back, and who waits is woken.
    report(&mut cluster, "a", false);
    cluster.rest();
    assert_eq!(cluster.attached("c"), "default/net 192.168.100.1 by 0000:60:00.1");
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

/// Secure Container Service, 7.4: range 192.168.100.0/24, gateway .1, the first 64 excluded.
#[test]
fn the_documents_sample_begins_behind_what_it_excludes() {
    let mut cluster = Cluster::new();
    cluster.nic_node("node-0", nic_with(0, 2));
    let mut sample = network("net", "eth", "192.168.100.0/24");
    let ipam = sample.spec.ipam.as_mut().expect("it gives out addresses");
    ipam.gateway = Some("192.168.100.1".parse().expect("an address"));
    ipam.exclude = vec![IpCidr::parse("192.168.100.0/26").expect("a network")];
    create(&mut cluster, [policy_object("p", "eth", 2, &["eno0"]), Object::SriovNetwork(Arc::new(sample))]);
    create(&mut cluster, [attaching("a", VF, 1, "net"), attaching("b", VF, 1, "net")]);
    cluster.rest();
    assert_eq!(cluster.attached("a"), "default/net 192.168.100.64 by 0000:60:00.1");
    assert_eq!(cluster.attached("b"), "default/net 192.168.100.65 by 0000:60:00.2");
    assert_eq!(cluster.pod_named("a").networks()[0].gateway, "192.168.100.1".parse().ok());
}

#[test]
fn a_pods_default_route_leads_by_the_network_that_it_names() {
    let mut cluster = Cluster::new();
    let node = cluster.nic_node("node-0", nic_with(0, 2));
    let ip = |text: &str| text.parse().expect("an address");
    let route = |destination: &str, gateway: Option<&str>| NetworkRoute {
        destination: IpCidr::parse(destination).expect("a network"),
        gateway: gateway.map(ip),
    };
    let mut routed = network("net", "eth", "10.9.0.0/24");
    let ipam = routed.spec.ipam.as_mut().expect("it gives out addresses");
    ipam.gateway = Some(ip("10.9.0.254"));
    ipam.routes = Rare::some(vec![route("10.8.0.0/16", None), route("10.7.0.0/16", Some("10.9.0.7"))]);
    create(&mut cluster, [policy_object("p", "eth", 2, &["eno0"]), Object::SriovNetwork(Arc::new(routed))]);
    let wish = r#"[{"name": "net", "default-route": ["10.9.0.1"]}]"#;
    create(&mut cluster, [attaching("a", VF, 1, wish), attaching("b", VF, 1, "net")]);
    cluster.rest();
    let intent = intent_of(cluster.state(), node).expect("it is there");
    for (text, gateways) in [("a", vec![ip("10.9.0.1")]), ("b", vec![])] {
        let told = intent.pods.iter().find(|one| one.name == name(text)).expect("it runs there");
        let found = told.networks[0].routes.get().expect("routes");
        assert_eq!(found.default_gateways, gateways, "{text}");
        // A route without a gateway leads over the network's.
        let expected = [route("10.8.0.0/16", Some("10.9.0.254")), route("10.7.0.0/16", Some("10.9.0.7"))];
        assert_eq!(found.routes, expected, "{text}");
    }
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
    // Replicas of an earlier version know nothing of it.
    let mut earlier = Cluster::at_level(ReconcileConfig::default(), DEFAULT_ROUTE_LEVEL - 1);
    let refused = earlier.submit(vec![Command::Create(attaching("a", VF, 1, wish))]).expect_err("refused");
    assert!(refused.to_string().contains("which needs feature level 13"), "{refused}");
}

#[test]
fn addresses_run_out_and_come_back() {
    let (mut cluster, _) = cluster_with(4, "10.0.0.0/30");
    create(&mut cluster, ["a", "b", "c"].map(|text| attaching(text, VF, 1, "net")));
    cluster.rest();
    let waits =
        "Unschedulable network default/net: no address of range 10.0.0.0/30 is free; one is when a pod ends";
    assert_eq!(cluster.attached("c"), waits);
    delete(&mut cluster, Kind::Pod, "b");
    cluster.rest();
    assert_eq!(cluster.attached("c"), waits, "its guest may still live");
    report(&mut cluster, "b", true);
    cluster.rest();
    assert_eq!(cluster.attached("c"), "default/net 10.0.0.2 by 0000:60:00.2");
    assert_eq!(cluster.state().addresses_len(), 2);
}

#[test]
fn ranges_that_overlap_never_give_an_address_twice() {
    let (mut cluster, _) = cluster_with(6, "10.0.0.0/29");
    create(&mut cluster, [network_object("other", "eth", "10.0.0.0/30")]);
    create(
        &mut cluster,
        [attaching("a", VF, 1, "net"), attaching("b", VF, 1, "other"), attaching("c", VF, 2, "net,net")],
    );
    cluster.rest();
    assert!(cluster.attached("a").contains(" 10.0.0.1 "));
    assert!(cluster.attached("b").contains(" 10.0.0.2 "));
    assert_eq!(
        cluster.attached("c"),
        "default/net 10.0.0.3 by 0000:60:00.3, default/net 10.0.0.4 by 0000:60:00.4"
    );
}

#[test]
fn pain_02_no_binding_gives_an_address_or_a_function_that_somebody_has() {
    let (mut cluster, node) = cluster_with(4, "10.0.0.0/29");
    create(&mut cluster, [attaching("a", VF, 1, "net")]);
    cluster.rest();
    let held = cluster.pod_named("a");
    // Nobody schedules it: a stale leader's bindings arrive instead.
    let taint = |cluster: &mut Cluster, unschedulable| {
        cluster.ok(Command::SetUnschedulable { node: name("node-0"), unschedulable });
    };
    taint(&mut cluster, true);
    create(&mut cluster, [attaching("b", VF, 1, "net")]);
    cluster.rest();
    taint(&mut cluster, false);
    let id = cluster.pod_named("b").meta.id;
    let mut bind = |change: &dyn Fn(&mut Binding)| {
        let mut devices = held.devices().to_vec();
        devices[0].device = "0000:60:00.2".into();
        let mut networks = held.networks().to_vec();
        (networks[0].device, networks[0].address) =
            ("0000:60:00.2".into(), Some("10.0.0.2".parse().unwrap()));
        let mut binding = Binding {
            pod: id,
            node,
            nodes_considered: 1,
            score: 0,
            devices,
            networks,
            cpus: Default::default(),
        };
        change(&mut binding);
        cluster.ok(Command::BindPods { bindings: vec![binding] });
        cluster.pod_named("b").node.is_some()
    };
    let at = |text: &'static str| move |b: &mut Binding| b.networks[0].address = Some(text.parse().unwrap());
    assert!(!bind(&at("10.0.0.1")), "somebody has it");
    assert!(!bind(&at("10.0.0.0")), "the network's own");
    assert!(!bind(&at("10.0.0.7")), "the broadcast");
    assert!(!bind(&at("10.0.1.1")), "of no such range");
    assert!(!bind(&|b| b.networks.clear()), "without its network");
    assert!(!bind(&|b| b.networks[0].vlan = 7), "another VLAN than the network's");
    assert!(!bind(&|b| b.networks[0].mac = held.networks()[0].mac.clone()), "another pod's MAC address");
    assert!(!bind(&|b| b.networks[0].device = "0000:60:00.1".into()), "another pod's function");
    assert!(!bind(&|b| b.devices[0].device = "0000:60:00.1".into()), "another pod's function");
}

#[test]
fn pods_that_break_a_rule_are_refused_and_others_wait_with_the_reason() {
    let (mut cluster, _) = cluster_with(2, "10.0.0.0/29");
    let refused = |cluster: &mut Cluster, object: Object, expected: &str| {
        let refused = cluster.submit(vec![Command::Create(object)]).expect_err("refused");
        assert_eq!(refused.code, RejectionCode::Invalid);
        assert!(refused.to_string().contains(expected), "{refused}");
    };
    refused(
        &mut cluster,
        attaching("x", VF, 1, "kube-system/net"),
        "names a network of namespace kube-system",
    );
    refused(
        &mut cluster,
        attaching("x", VF, 2, "net"),
        "limits[ecnf.io/eth]: is 2, but 1 networks are attached",
    );
    refused(&mut cluster, attaching("x", "ecnf.io/sriov", 1, "net"), "limits[ecnf.io/eth]: is 0, but 1");
    refused(&mut cluster, with_networks(pod("x", plain_spec()), "net"), "limits[ecnf.io/eth]: is 0, but 1");
    refused(&mut cluster, attaching("x", VF, 1, "net@eth0"), "annotations[k8s.v1.cni.cncf.io/networks]");
    refused(
        &mut cluster,
        attaching("x", VF, 1, r#"[{"name": "net", "mac": "02:00:00:00:00:01"}]"#),
        "does not allow",
    );
    let Object::Pod(mut bare) = attaching("x", VF, 1, "net") else { panic!("a pod") };
    Arc::make_mut(&mut bare).meta.annotations.remove(ANNOTATION_ENABLE_SRIOV);
    refused(&mut cluster, Object::Pod(bare), "enable_sriov]: must be \"true\"");
    // What may come is waited for.
    create(&mut cluster, [attaching("a", "ecnf.io/new", 1, "later")]);
    cluster.rest();
    assert_eq!(
        cluster.attached("a"),
        "Unschedulable network default/later does not exist: create a SriovNetwork or SriovIBNetwork later whose \
         networkNamespace is default"
    );
    create(&mut cluster, [network_object("later", "new", "10.1.0.0/24")]);
    cluster.rest();
    assert_eq!(
        cluster.attached("a"),
        "Unschedulable network default/later: no SriovNetworkNodePolicy has resourceName new: create one"
    );
    let mut of_host = policy("new", "new", 2, &["eno1"]);
    of_host.spec.device_type = SriovDeviceType::Netdevice;
    cluster.ok(Command::Apply(Object::SriovNetworkNodePolicy(Arc::new(of_host))));
    cluster.rest();
    assert!(
        cluster.attached("a").contains("has deviceType vfio-pci, which pods of runtimeClassName rune need")
    );
    cluster.ok(Command::Apply(policy_object("new", "new", 2, &["eno1"])));
    let labels = map(&[(LABEL_DEVICES, "true")]);
    let node = cluster.node("node-1", NodeFacts { labels, ..facts(64_000, 256 * GIB, 100) });
    cluster.tell_devices(node, nic_with(1, 2));
    cluster.rest();
    // A reason whose figures changed is told again after a while only.
    cluster.advance(31_000);
    assert_eq!(
        cluster.attached("a"),
        "Unschedulable 0/2 nodes are available: 1 Insufficient ecnf.io/new, 1 node(s) cannot attach networks."
    );
    let node = cluster.nic_node("node-2", nic_with(1, 2));
    cluster.rest();
    assert_eq!(cluster.counts(node, "ecnf.io/new"), "2/2/1");
    assert_eq!(cluster.attached("a"), "default/later 10.1.0.1 by 0000:61:00.1");
}

#[test]
fn only_supported_nics_are_named_and_which_those_are_is_data() {
    let mut cluster = Cluster::new();
    let mut of_sample = policy("p", "ib", 3, &[]);
    of_sample.spec.nic_selector.vendor = Some(Hex16(0x15b3));
    of_sample.spec.nic_selector.device_id = Some(Hex16(0x1013));
    let object = Object::SriovNetworkNodePolicy(Arc::new(of_sample));
    let refused = cluster.submit(vec![Command::Create(object.clone())]).expect_err("refused");
    assert!(
        refused.to_string().contains("spec.nicSelector.deviceID: is not supported: there are 8086:158b"),
        "{refused}"
    );
    let config = ConfigMap {
        meta: ObjectMeta::new(Some(name("default")), name("supported-nic-ids")),
        immutable: false,
        data: [("sample".into(), "15b3 1013 1014".into())].into_iter().collect(),
        binary_data: Default::default(),
    };
    cluster.ok(Command::Create(Object::ConfigMap(Arc::new(config))));
    cluster.ok(Command::Create(object));
}

#[test]
fn what_pods_are_attached_to_does_not_change_under_them() {
    let (mut cluster, _) = cluster_with(2, "10.0.0.0/29");
    create(&mut cluster, [attaching("a", VF, 1, "net")]);
    cluster.rest();
    let mut other = network("net", "eth", "10.0.0.0/29");
    other.spec.vlan = 100;
    let other = Object::SriovNetwork(Arc::new(other));
    let check = |cluster: &mut Cluster, command: Command| {
        let refused = cluster.submit(vec![command]).expect_err("refused");
        assert!(
            refused.to_string().contains("1 attachments of pods of namespace default are to it"),
            "{refused}"
        );
    };
    check(&mut cluster, Command::Apply(other.clone()));
    let object = reference(Kind::SriovNetwork, "net");
    check(&mut cluster, Command::Delete { object, grace_ms: None, force: false });
    // Two networks that pods would call the same.
    let mut ib = network("net", "eth", "10.9.0.0/29");
    ib.spec.network_namespace = Some(name("default"));
    let ib = bulkhead_types::SriovIBNetwork {
        meta: ib.meta.clone(),
        spec: bulkhead_types::SriovIBNetworkSpec { resource_name: "eth".into(), ..Default::default() },
    };
    let refused =
        cluster.submit(vec![Command::Create(Object::SriovIBNetwork(Arc::new(ib)))]).expect_err("refused");
    assert!(refused.to_string().contains("call SriovNetwork default/net by this name already"), "{refused}");
    report(&mut cluster, "a", false);
    cluster.ok(Command::Apply(other));
    delete(&mut cluster, Kind::SriovNetwork, "net");
}

#[test]
fn pain_18_and_21_a_policy_waits_for_the_holders_of_functions_and_nobody_else_is_disturbed() {
    let mut cluster = Cluster::new();
    let devices = [nic_with(0, 2), nic_with(1, 2)].concat();
    let node = cluster.nic_node("node-0", devices);
    create(
        &mut cluster,
        [policy_object("p", "eth", 2, &["eno0", "eno1"]), network_object("net", "eth", "10.0.0.0/24")],
    );
    create(&mut cluster, [attaching("a", VF, 1, "net"), pod("plain", plain_spec())]);
    cluster.rest();
    assert_eq!(cluster.attached("a"), "default/net 10.0.0.1 by 0000:60:00.1");
    let before = cluster.nics(node);
    cluster.ok(Command::Apply(policy_object("p", "eth", 4, &["eno0", "eno1"])));
    cluster.rest();
    let state = cluster.nics(node);
    // The NIC that nobody has functions of is changed, the other one waits and says for whom.
    let vfs: Vec<u32> = state.spec.interfaces.iter().map(|one| one.num_vfs).collect();
    assert_eq!(vfs, [2, 4]);
    assert_eq!(state.spec.interfaces[0], before.spec.interfaces[0]);
    assert_eq!(
        (state.status.sync_status, state.status.step.as_str()),
        (SriovSyncStatus::Blocked, "Draining")
    );
    assert_eq!(state.status.blocked.len(), 1);
    assert_eq!(state.status.blocked[0].pci_address, "0000:60:00.0");
    assert_eq!(state.status.blocked[0].holders, ["default/a"]);
    // Nobody ends, the node takes pods, and nobody new gets a function of that NIC.
    create(&mut cluster, [attaching("b", VF, 1, "net"), pod("more", plain_spec())]);
    cluster.rest();
    assert_eq!(cluster.attached("b"), "default/net 10.0.0.2 by 0000:61:00.1");
    assert!(["a", "plain", "more"].iter().all(|text| !cluster.pod_named(text).meta.is_deleting()));
    // A leader of before must not change it either.
    let mut spec = state.spec.clone();
    spec.interfaces[0].num_vfs = 4;
    let command = Command::SetSriovNodeState { node, spec, status: state.status.clone() };
    let refused = cluster.submit(vec![command]).expect_err("refused");
    assert!(refused.to_string().contains("NIC 0000:60:00.0 cannot change"), "{refused}");
    // Once its holder has ended the NIC changes, once.
    report(&mut cluster, "a", false);
    cluster.rest();
    let state = cluster.nics(node);
    assert_eq!(state.spec.interfaces[0].num_vfs, 4);
    assert_eq!(state.status.sync_status, SriovSyncStatus::InProgress, "the agent has not made them");
    let revision = cluster.state().revision();
    cluster.rest();
    assert_eq!(cluster.state().revision(), revision, "nothing goes on and on");
}

/// Only its agent knows of a process of the host that has VFs: the state says so as it does of pods.
#[test]
fn pain_02_a_nic_waits_for_who_else_on_its_host_has_functions() {
    let (mut cluster, node) = cluster_with(2, "10.0.0.0/29");
    let mut told = |step: &str, sync_error: &str| {
        let mut devices = nic_with(0, 2);
        let facts = NicFacts {
            step: step.into(),
            sync_error: sync_error.into(),
            ..devices[0].nic().expect("a NIC").clone()
        };
        devices[0].nic = Rare::some(facts);
        cluster.tell_devices(node, devices);
        cluster.rest();
        let status = cluster.nics(node).status.clone();
        (status.sync_status, status.step.to_string(), status.last_sync_error)
    };
    let owner = "0000:60:00.1: process 4711 has /dev/vfio/101 open";
    let waits = (SriovSyncStatus::Blocked, "Draining".to_owned(), format!("eno0: {owner}"));
    assert_eq!(told("Draining", owner), waits);
    let failed = (SriovSyncStatus::Failed, "Mtu".to_owned(), "eno0: Mtu: no".to_owned());
    assert_eq!(told("Mtu", "Mtu: no"), failed);
    assert_eq!(told("", ""), (SriovSyncStatus::Succeeded, String::new(), String::new()));
}

#[test]
fn pain_19_functions_of_a_policy_that_is_gone_are_not_called_succeeded() {
    let (mut cluster, node) = cluster_with(2, "10.0.0.0/29");
    delete(&mut cluster, Kind::SriovNetworkNodePolicy, "p");
    cluster.rest();
    let state = cluster.nics(node);
    assert_eq!(state.spec.interfaces[0].num_vfs, 0);
    assert_eq!(state.status.sync_status, SriovSyncStatus::InProgress);
    assert_eq!(cluster.counts(node, VF), "0/0/0");
    let told = intent_of(cluster.state(), node).expect("it is there").nics;
    assert_eq!(told.iter().map(|nic| nic.num_vfs).collect::<Vec<_>>(), [0], "its agent is to take them away");
    cluster.tell_devices(node, vec![nic(0, 0)]);
    cluster.rest();
    let state = cluster.nics(node);
    assert!(state.spec.interfaces.is_empty());
    assert_eq!(state.status.sync_status, SriovSyncStatus::Succeeded);
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn pain_17_a_function_is_near_the_other_devices_of_its_pod() {
    let mut cluster = Cluster::new();
    let gpu = bulkhead_types::Device {
        numa_node: Some(1),
        pcie_root: "pci0000:1".into(),
        ..crate::device_kit::card(0)
    };
    cluster.nic_node("node-0", [nic_with(0, 2), nic_with(1, 2), vec![gpu]].concat());
    create(
        &mut cluster,
        [policy_object("p", "eth", 2, &["eno0", "eno1"]), network_object("net", "eth", "10.0.0.0/24")],
    );
    create(&mut cluster, [with_networks(pod("a", asking(&[(VF, 1), ("nvidia.com/gpu", 1)])), "net")]);
    cluster.rest();
    assert_eq!(cluster.attached("a"), "default/net 10.0.0.1 by 0000:61:00.1");
}

#[test]
fn an_address_on_a_silent_node_is_given_again_only_once_the_node_is_fenced() {
    let (mut cluster, node) = cluster_with(2, "10.0.0.0/30");
    create(&mut cluster, ["a", "b"].map(|text| attaching(text, VF, 1, "net")));
    cluster.rest();
    let mut devices = nic_with(0, 2);
    devices.truncate(3);
    let other = cluster.nic_node("node-1", devices);
    create(&mut cluster, [attaching("c", VF, 1, "net")]);
    cluster.rest();
    assert!(cluster.attached("c").contains("no address of range"));
    let config = ReconcileConfig::default();
    let fence_ms = fence_after_ms(config.lease_ms, config.fence_kill_ms);
    cluster.silent.push(node);
    cluster.advance(config.lease_ms + 1000);
    delete(&mut cluster, Kind::Pod, "a");
    cluster.advance(fence_ms - config.lease_ms - 4000);
    assert!(cluster.attached("c").contains("no address of range"), "the guest may live on the silent node");
    cluster.advance(10_000);
    assert_eq!(cluster.pod_named("c").node, Some(other));
    assert!(cluster.attached("c").starts_with("default/net 10.0.0."), "{}", cluster.attached("c"));
    assert_eq!(cluster.replayed().digest(), cluster.state().digest());
}

#[test]
fn functions_that_no_policy_means_are_what_their_class_says() {
    let mut cluster = Cluster::new();
    let node = cluster.nic_node("node-0", nic_with(0, 3));
    create(&mut cluster, [policy_object("p", "eth", 3, &["eno0#1-1"])]);
    cluster.rest();
    assert_eq!(
        (cluster.counts(node, VF), cluster.counts(node, "ecnf.io/sriov")),
        ("1/1/0".into(), "0/0/0".into())
    );
    cluster.tell_changes(node, vec![nic(1, 1), vf(1, 0)], &[]);
    cluster.rest();
    assert_eq!(cluster.counts(node, "ecnf.io/sriov"), "1/1/0", "of the other NIC");
}
