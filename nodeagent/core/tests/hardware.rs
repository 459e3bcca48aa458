//! What a machine has, read from trees of sysfs as real machines show them.

use std::collections::BTreeMap;

use bulkhead_nodeagent_core::hardware::{
    Acs, Bdf, HUGE_PAGE_POOLS, Inventory, InventoryChange, KvmTrial, MemoryTree, Need, Outcome, PciId, Sriov,
    cpu_topology, device_class_of, discover, free_huge_pages, has_devices, huge_pages, missing_for_devices,
    node_huge_page_pools, node_preconditions, preconditions,
};
use bulkhead_nodeagent_core::passthrough::Known;
use bulkhead_types::{
    DeviceRole, HugePages, NamedDeviceClass, NodePreconditions, PciFacts, PciInfiniband, PciInterface,
    PciLink, PciTraits,
};
use expect_test::{Expect, expect};

const DEVICES: &str = "/sys/bus/pci/devices";

fn classes() -> Vec<NamedDeviceClass> {
    bulkhead_types::builtin_device_classes()
}

fn bdf(text: &str) -> Bdf {
    text.parse().expect("an address")
}

/// Puts a function below a bridge: its ids, class, and further files.
fn function(tree: &mut MemoryTree, at: &str, below: &str, ids: &str, class: &str, files: &[(&str, &str)]) {
    let dir = format!("/sys/devices/{below}/{at}");
    tree.symlink(&format!("{DEVICES}/{at}"), &format!("../../../devices/{below}/{at}"));
    let (vendor, device) = ids.split_once(':').expect("vendor:device");
    let standard = [
        ("vendor", format!("0x{vendor}\n")),
        ("device", format!("0x{device}\n")),
        ("subsystem_vendor", format!("0x{vendor}\n")),
        ("subsystem_device", "0x0001\n".to_owned()),
        ("class", format!("0x{class}\n")),
        ("driver_override", "(null)\n".to_owned()),
        ("numa_node", "-1\n".to_owned()),
    ];
    for (file, content) in standard {
        tree.file(&format!("{dir}/{file}"), content);
    }
    for (file, content) in files {
        match content.strip_prefix("-> ") {
            Some(target) => tree.symlink(&format!("{dir}/{file}"), target),
            None => tree.file(&format!("{dir}/{file}"), content),
        };
    }
}

/// A server with a GPU and its sound function behind one port, and a network card with two virtual functions behind another.
fn server() -> MemoryTree {
    let mut tree = MemoryTree::new();
    let (first, second) = ("pci0000:3a", "pci0000:85");
    let bus = "../../../bus/pci/drivers";
    function(&mut tree, "0000:3a:00.0", first, "8086:2030", "060400", &[]);
    function(&mut tree, "0000:85:00.0", second, "8086:2030", "060400", &[]);
    let port = format!("{first}/0000:3a:00.0");
    let link = [
        ("current_link_speed", "16.0 GT/s PCIe\n"),
        ("current_link_width", "16\n"),
        ("max_link_speed", "16.0 GT/s PCIe\n"),
        ("max_link_width", "16\n"),
    ];
    let resource = "0x00000000b8000000 0x00000000b8ffffff 0x0000000000040200\n\
                    0x0000203000000000 0x0000203fffffffff 0x000000000014220c\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x000000000000e000 0x000000000000e07f 0x0000000000040101\n";
    let nvidia = format!("-> {bus}/nvidia");
    let gpu = [
        ("numa_node", "0\n"),
        ("iommu_group", "-> ../../../../kernel/iommu_groups/42"),
        ("driver", nvidia.as_str()),
        ("reset_method", "flr bus\n"),
        ("resource", resource),
    ];
    function(&mut tree, "0000:3b:00.0", &port, "10de:20b5", "030200", &[&gpu[..], &link].concat());
    let sound = [("iommu_group", "-> ../../../../kernel/iommu_groups/42"), ("driver_override", "vfio-pci\n")];
    function(&mut tree, "0000:3b:00.1", &port, "10de:1aef", "040300", &sound);
    let port = format!("{second}/0000:85:00.0");
    let mlx5 = format!("-> {bus}/mlx5_core");
    let card = [
        ("numa_node", "1\n"),
        ("driver", mlx5.as_str()),
        ("sriov_totalvfs", "8\n"),
        ("sriov_numvfs", "2\n"),
        ("sriov_drivers_autoprobe", "0\n"),
        ("virtfn0", "-> ../0000:86:00.1"),
        ("virtfn1", "-> ../0000:86:00.2"),
        ("net/ib0/address", "80:00:02:08:fe:80\n"),
        ("net/ib0/mtu", "2044\n"),
        ("net/ib0/type", "32\n"),
        ("net/ib0/speed", "100000\n"),
        ("net/ib0/operstate", "up\n"),
        ("net/eth7/address", "b8:59:9f:00:00:01\n"),
        ("net/eth7/mtu", "9000\n"),
        ("net/eth7/type", "1\n"),
        ("net/eth7/speed", "-1\n"),
        ("net/eth7/operstate", "down\n"),
        ("infiniband/mlx5_0/node_guid", "b859:9f03:0000:0001\n"),
        ("infiniband/mlx5_0/sys_image_guid", "b859:9f03:0000:0000\n"),
    ];
    function(&mut tree, "0000:86:00.0", &port, "15b3:101b", "020700", &card);
    for (at, group) in [("0000:86:00.1", "50"), ("0000:86:00.2", "51")] {
        let group = format!("-> ../../../../kernel/iommu_groups/{group}");
        let files = [("physfn", "-> ../0000:86:00.0"), ("iommu_group", group.as_str())];
        function(&mut tree, at, &port, "15b3:101c", "020700", &files);
    }
    tree
}

#[test]
fn a_server_shows_its_functions() {
    let found = discover(&server());
    assert_eq!(found.problems, []);
    let gpu = &found.functions[&bdf("0000:3b:00.0")];
    expect![[r#"{"address":"0000:3b:00.0","vendor":4318,"device":8373,"subsystem_vendor":4318,"subsystem_device":1,"class":197120,"driver":"nvidia","driver_override":null,"numa_node":0,"root":"pci0000:3a","bridges":["0000:3a:00.0"],"iommu_group":42,"acs":"Unknown","is_answering":true,"reset_methods":["flr","bus"],"link":{"speed":"16.0 GT/s PCIe","width":16,"speed_max":"16.0 GT/s PCIe","width_max":16},"memory_bars_bytes":[16777216,68719476736],"sriov":"None","interfaces":[],"infiniband":[]}"#]].assert_eq(&serde_json::to_string(gpu).expect("JSON"));
    let card = &found.functions[&bdf("0000:86:00.0")];
    let parts = (&card.sriov, &card.interfaces, &card.infiniband);
    expect![[r#"[{"Physical":{"vfs_max":8,"vfs":["0000:86:00.1","0000:86:00.2"],"drivers_autoprobe":false}},[{"name":"eth7","mac":"b8:59:9f:00:00:01","mtu":9000,"link_type":"ETH","speed_mbps":null,"is_up":false},{"name":"ib0","mac":"80:00:02:08:fe:80","mtu":2044,"link_type":"IB","speed_mbps":100000,"is_up":true}],[{"name":"mlx5_0","node_guid":"b859:9f03:0000:0001","system_guid":"b859:9f03:0000:0000"}]]"#]].assert_eq(&serde_json::to_string(&parts).expect("JSON"));
    let vf = &found.functions[&bdf("0000:86:00.2")];
    assert_eq!(vf.sriov, Sriov::Virtual { physical: bdf("0000:86:00.0"), index: Some(1) });
    assert_eq!((vf.iommu_group, vf.root_port(), vf.numa_node), (Some(51), Some(bdf("0000:85:00.0")), None));
    assert_eq!(found.functions[&bdf("0000:3b:00.1")].driver_override.as_deref(), Some("vfio-pci"));
    assert_eq!(found.functions[&bdf("0000:3a:00.0")].acs, Acs::Unknown);
}

/// What can be attached to pods, by address.
fn attachable(found: &Inventory) -> String {
    let classes = classes();
    let of = |f| Some(format!("{} {}", device_class_of(&classes, f)?.spec.extended_resource_name, f.address));
    found.functions.values().filter_map(of).collect::<Vec<_>>().join(", ")
}

#[test]
fn classes_are_data() {
    let found = discover(&server());
    assert_eq!(
        attachable(&found),
        "nvidia.com/gpu 0000:3b:00.0, ecnf.io/sriov 0000:86:00.1, ecnf.io/sriov 0000:86:00.2"
    );
    let class = |selector: &str| {
        let spec = format!(r#"{{"extendedResourceName": "example.com/nvme", "selector": {selector}}}"#);
        serde_json::from_str::<NamedDeviceClass>(&format!(r#"{{"name": "lab", "spec": {spec}}}"#))
    };
    let own = class(r#"{"vendors": ["1b36"], "devices": ["0010"], "role": "Virtual"}"#);
    let own = own.expect("an administrator's class");
    assert_eq!((own.spec.selector.role, own.spec.selector.classes.len()), (DeviceRole::Virtual, 0));
    for (wrong, reason) in [
        (r#"{"vendors": ["0x10de"]}"#, "expected four hexadecimal digits"),
        (r#"{"vendors": ["10de"], "clases": []}"#, "unknown field `clases`"),
    ] {
        let refused = class(wrong).expect_err("a mistake");
        assert!(refused.to_string().contains(reason), "{refused}");
    }
}

#[test]
fn pain_02_what_the_host_or_another_driver_has_is_reported_as_used() {
    let devices = discover(&server()).devices();
    let shown: Vec<_> =
        devices.iter().map(|one| format!("{} {:?}", one.address, one.in_use_by.as_str())).collect();
    expect![[r#"
        0000:3b:00.0 "host driver nvidia"
        0000:3b:00.1 ""
        0000:86:00.0 "host driver mlx5_core"
        0000:86:00.1 ""
        0000:86:00.2 """#]]
    .assert_eq(&shown.join("\n"));
    let vf = &devices[4];
    assert_eq!((vf.index, vf.parent.as_deref(), vf.class()), (4, Some("0000:86:00.0"), 0x0207));
    assert!(devices.iter().all(|device| device.check().is_ok()));
}

/// What is told of a function, in short; a device that a server would refuse fails the test.
#[track_caller]
fn check_told(tree: &MemoryTree, address: &str, expected: Expect) {
    let devices = discover(tree).devices();
    let device = devices.iter().find(|one| one.address == address).expect("it is there");
    let facts = device.pci.get().expect("told");
    assert_eq!((device.check(), facts.check()), (Ok(()), Ok(())));
    let PciFacts { traits, serial_number, .. } = facts;
    let PciTraits { subsystem_vendor, subsystem_device, acs, reset_methods, link_max, memory_bars_bytes } =
        &**traits;
    let mut said = format!("{subsystem_vendor:04x}:{subsystem_device:04x} acs {} ", acs.as_str());
    said += &format!("reset {} regions {memory_bars_bytes:?} ", reset_methods.join(","));
    let link = |link: &Option<PciLink>| link.map_or("-".to_owned(), |link| link.to_string());
    said += &format!("serial {serial_number:x?} link {} of {}", link(&facts.link), link(link_max));
    for PciInterface { name, mac, mtu, link_type, link_speed_mbps, is_up } in facts.interfaces() {
        said += &format!("\n{name} {mac} {mtu} {link_type:?} {link_speed_mbps:?} {is_up}");
    }
    for PciInfiniband { name, node_guid, system_guid } in facts.infiniband() {
        said += &format!("\n{name} {node_guid:x} {system_guid:x}");
    }
    expected.assert_eq(&said);
}

#[test]
fn what_is_found_of_functions_is_told() {
    let mut tree = server();
    check_told(
        &tree,
        "0000:3b:00.0",
        expect![
            "10de:0001 acs unknown reset flr,bus regions [16777216, 68719476736] serial None link 16.0 GT/s x16 of 16.0 GT/s x16"
        ],
    );
    check_told(
        &tree,
        "0000:86:00.0",
        expect![[r#"
        15b3:0001 acs unknown reset  regions [] serial None link - of -
        eth7 b8:59:9f:00:00:01 9000 Some(Eth) None false
        ib0 80:00:02:08:fe:80 2044 Some(Ib) Some(100000) true
        mlx5_0 b8599f0300000001 b8599f0300000000"#]],
    );
    let card = "/sys/devices/pci0000:85/0000:85:00.0/0000:86:00.0";
    // Interfaces of virtual functions are there only between two pods.
    tree.file("/sys/devices/pci0000:85/0000:85:00.0/0000:86:00.1/net/eth9/operstate", "up\n");
    check_told(
        &tree,
        "0000:86:00.1",
        expect!["15b3:0001 acs unknown reset  regions [] serial None link - of -"],
    );
    // What a server would refuse is left out, and the rest is told.
    tree.file(&format!("{card}/net/ib0/address"), "\u{1b}[31m\n");
    tree.file(&format!("{card}/net/eth7/mtu"), "4294967295\n");
    tree.file(&format!("{card}/infiniband/mlx5_0/node_guid"), "none\n");
    tree.file(&format!("{card}/reset_method"), "flr ../../x PM bus\n");
    tree.file(&format!("{card}/current_link_speed"), "Unknown\n");
    tree.file(&format!("{card}/current_link_width"), "63\n");
    tree.file(&format!("{card}/max_link_speed"), "16.0 GT/s PCIe\n");
    tree.file(&format!("{card}/max_link_width"), "16\n");
    for index in 0..20 {
        tree.file(&format!("{card}/net/p{index:02}/operstate"), "up\n");
    }
    check_told(
        &tree,
        "0000:86:00.0",
        expect![[r#"
        15b3:0001 acs unknown reset flr,bus regions [] serial None link - of 16.0 GT/s x16
        ib0  2044 Some(Ib) Some(100000) true
        p00  0 None None true
        p01  0 None None true
        p02  0 None None true
        p03  0 None None true
        p04  0 None None true
        p05  0 None None true
        p06  0 None None true
        mlx5_0 0 b8599f0300000000"#]],
    );
}

#[test]
fn functions_of_what_is_no_network_card_are_policies_business_when_an_operator_says_so() {
    let mut tree = server();
    let gpu = "/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0";
    for (file, text) in
        [("sriov_totalvfs", "16\n"), ("sriov_numvfs", "0\n"), ("sriov_drivers_autoprobe", "1\n")]
    {
        tree.file(&format!("{gpu}/{file}"), text);
    }
    let found = discover(&tree);
    let (bindings, quarantined) = (BTreeMap::new(), BTreeMap::new());
    let check = |ids: &[&str], expected: &[(&str, u32)]| {
        let ids: Vec<PciId> = ids.iter().map(|id| id.parse().expect("ids")).collect();
        let foreign = BTreeMap::new();
        let known =
            Known { bindings: &bindings, quarantined: &quarantined, take_from: &[], foreign: &foreign };
        let devices = found.devices_as(known, &BTreeMap::new(), &ids);
        let told = devices.iter().filter_map(|one| Some((one.address.as_str(), one.nic.get()?.total_vfs)));
        assert_eq!(told.collect::<Vec<_>>(), expected, "{ids:?}");
    };
    let function = &found.functions[&bdf("0000:3b:00.0")];
    let id = format!("{:04x}:{:04x}", function.vendor, function.device);
    check(&[], &[("0000:86:00.0", 8)]);
    check(&[&id], &[("0000:3b:00.0", 16), ("0000:86:00.0", 8)]);
    check(&["ffff:0001"], &[("0000:86:00.0", 8)]);
}

/// What is said of a function that is not as it should be.
#[track_caller]
fn check_problem(change: impl FnOnce(&mut MemoryTree), expected: &str) {
    let mut tree = server();
    change(&mut tree);
    let found = discover(&tree);
    let problems: Vec<_> = found.problems.iter().map(|p| format!("{}: {}", p.name, p.reason)).collect();
    assert_eq!(problems.join("; "), expected);
    assert!(found.functions.len() >= 6, "the others are found");
}

#[test]
fn what_cannot_be_read_is_told_and_hides_nothing_else() {
    let gpu = "/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0";
    let card = "/sys/devices/pci0000:85/0000:85:00.0/0000:86:00.0";
    check_problem(
        |tree| _ = tree.file(&format!("{gpu}/class"), "three\n"),
        "0000:3b:00.0: class is \"three\", no hexadecimal number",
    );
    check_problem(
        |tree| _ = tree.file(&format!("{gpu}/vendor"), "0x12345\n"),
        "0000:3b:00.0: vendor is 0x12345, more than 16 bits",
    );
    check_problem(
        |tree| _ = tree.denied(&format!("{gpu}/device")),
        "0000:3b:00.0: device may not be read by this user",
    );
    check_problem(
        |tree| _ = tree.file(&format!("{card}/sriov_totalvfs"), "70000\n"),
        "0000:86:00.0: sriov_totalvfs is \"70000\"",
    );
    check_problem(
        |tree| _ = tree.symlink(&format!("{DEVICES}/pci-bus"), "../../../devices/pci0000:3a"),
        "pci-bus: \"pci-bus\" is no PCI address: expected dddd:bb:dd.f in hexadecimal, device below 20, function below 8",
    );
    // Texts of a device are shown to people and sent to servers: they are bounded, and hold no escapes.
    let mut tree = server();
    tree.file(&format!("{card}/net/ib0/address"), format!("\u{1b}[31m{}\nsecond", "x".repeat(1000)));
    let mac = &discover(&tree).functions[&bdf("0000:86:00.0")].interfaces[1].mac;
    assert_eq!(mac, &format!("[31m{}", "x".repeat(60)));
}

#[test]
fn a_machine_without_a_bus_has_nothing() {
    assert_eq!(discover(&MemoryTree::new()), Inventory::default());
}

#[test]
fn what_comes_and_goes_is_noticed() {
    let mut tree = server();
    let before = discover(&tree);
    assert_eq!(before.changes_since(&before), []);
    tree.remove(&format!("{DEVICES}/0000:3b:00.0"));
    tree.file("/sys/devices/pci0000:85/0000:85:00.0/0000:86:00.0/net/ib0/operstate", "down\n");
    function(&mut tree, "0000:3b:00.2", "pci0000:3a/0000:3a:00.0", "10de:1ad8", "0c0330", &[]);
    let after = discover(&tree);
    let changes = after.changes_since(&before);
    let said: Vec<_> = changes
        .iter()
        .map(|change| match change {
            InventoryChange::Added(function) => format!("+{}", function.address),
            InventoryChange::Changed(function) => format!("~{}", function.address),
            InventoryChange::Removed(address) => format!("-{address}"),
        })
        .collect();
    assert_eq!(said, ["-0000:3b:00.0", "+0000:3b:00.2", "~0000:86:00.0"]);
    let mut followed = before;
    followed.apply(changes);
    assert_eq!(followed, after);
}

/// A machine's preconditions, one a line.
#[track_caller]
fn check_preconditions(tree: &MemoryTree, expected: Expect) {
    let found = preconditions(tree, &discover(tree), &classes());
    for one in &found {
        let needs_remedy = matches!(one.outcome, Outcome::Missing | Outcome::Unknown);
        assert_eq!(one.remedy.is_empty(), !needs_remedy, "{one:?}");
    }
    // Those of the network are told beside their code.
    let lines: Vec<_> = (found.iter().filter(|one| one.need != Need::Network))
        .map(|one| format!("{}: {:?}, {}\n", one.name, one.outcome, one.found))
        .collect();
    expected.assert_eq(&lines.concat());
}

/// An agent says that it can attach devices when nothing of this is left.
#[test]
fn what_is_missing_for_devices_is_told_with_its_remedy() {
    let check = |tree: &MemoryTree, expected: &[&str]| {
        let missing = missing_for_devices(tree);
        assert!(missing.iter().all(|one| !one.remedy.is_empty()), "{missing:?}");
        assert_eq!(missing.iter().map(|one| one.name).collect::<Vec<_>>(), expected);
    };
    let mut tree = MemoryTree::new();
    check(&tree, &["iommu", "vfio", "vfio-file"]);
    tree.file("/sys/class/iommu/dmar0/intel-iommu/version", "1:0\n");
    check(&tree, &["vfio", "vfio-file"]);
    tree.file("/sys/bus/pci/drivers/vfio-pci/bind", "").file("/dev/vfio/vfio", "");
    check(&tree, &[]);
    let nothing = discover(&tree);
    assert!(!has_devices(&tree, &nothing, &classes()), "and warnings are for machines with devices");
    assert!(has_devices(&server(), &discover(&server()), &classes()));
}

/// What a node tells: what a guest told of KVM, and nothing that is so only just now.
#[test]
fn a_node_tells_its_preconditions_one_by_one() {
    let check = |tree: &MemoryTree, kvm: &KvmTrial, name: &str, expected: (Outcome, &str)| {
        let told = node_preconditions(tree, &discover(tree), &classes(), kvm);
        let known = NodePreconditions { preconditions: told.clone() };
        assert_eq!(known.check(), Ok(()));
        assert_eq!(told.len(), preconditions(tree, &discover(tree), &classes()).len());
        let one = told.iter().find(|one| one.name == name).expect("told");
        assert_eq!((one.outcome, one.found.as_str()), expected);
        assert_eq!(one.remedy.is_empty(), !one.outcome.wants_remedy(), "{one:?}");
    };
    let (ready, none) = (ready_server(), MemoryTree::new());
    let fails = KvmTrial::Fails("a guest said\nnothing for 10 s".to_owned());
    check(&ready, &KvmTrial::Runs, "kvm", (Outcome::Met, "a guest ran with KVM"));
    check(&ready, &fails, "kvm", (Outcome::Missing, "no guest runs with KVM: a guest said nothing for 10 s"));
    let said = "the agent emulates guests, as its operator says";
    check(&ready, &KvmTrial::NotWanted, "kvm", (Outcome::NotNeeded, said));
    let no_file = "there is no /dev/kvm: guests are emulated, which is slow";
    check(&none, &fails, "kvm", (Outcome::Missing, no_file));
    check(&none, &KvmTrial::NotWanted, "kvm", (Outcome::NotNeeded, said));
    check(&ready, &fails, "huge-pages", (Outcome::Met, "hugepages-1Gi: 64 pages"));
    check(&ready, &fails, "network-tun", (Outcome::Missing, "there is no /dev/net/tun: guests have no card"));
    // Of a class that nobody here knows, and somebody bound it for guests.
    let mut bound = MemoryTree::new();
    function(&mut bound, "0000:3b:00.0", "pci0000:3a", "1234:5678", "118000", &[]);
    let asked = |tree: &MemoryTree| preconditions(tree, &discover(tree), &classes())[4].outcome;
    assert_eq!(asked(&bound), Outcome::NotNeeded);
    bound.symlink("/sys/devices/pci0000:3a/0000:3b:00.0/driver", "../../../bus/pci/drivers/vfio-pci");
    assert_eq!(asked(&bound), Outcome::Missing);
}

/// Kernels before 5.15 do not name the ways to reset a function.
#[test]
fn an_old_kernel_can_reset_too() {
    let mut tree = MemoryTree::new();
    function(&mut tree, "0000:3b:00.0", "pci0000:3a", "10de:20b5", "030200", &[("reset", "")]);
    function(&mut tree, "0000:3c:00.0", "pci0000:3a", "10de:20b5", "030200", &[]);
    let found = discover(&tree);
    assert_eq!(found.functions[&bdf("0000:3b:00.0")].reset_methods, ["default"]);
    assert!(found.functions[&bdf("0000:3c:00.0")].reset_methods.is_empty());
}

/// A server that lacks nothing.
fn ready_server() -> MemoryTree {
    let mut ready = server();
    ready
        .file("/dev/kvm", "")
        .file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n")
        .file("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "64\n")
        .file("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "62\n")
        .file("/sys/kernel/mm/hugepages/hugepages-1048576kB/resv_hugepages", "2\n")
        .file("/sys/class/iommu/dmar0/intel-iommu/version", "1:0\n")
        .file("/sys/kernel/iommu_groups/42/type", "identity\n")
        .file("/sys/kernel/iommu_groups/50/type", "DMA-FQ\n")
        .file("/proc/cmdline", "quiet intel_iommu=on iommu=pt\n")
        .file("/proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n")
        .file("/sys/bus/pci/drivers/vfio-pci/bind", "")
        .file("/dev/vfio/vfio", "");
    ready
}

#[test]
fn each_precondition_is_told() {
    check_preconditions(
        &MemoryTree::new(),
        expect![[r#"
            kvm: Missing, there is no /dev/kvm: guests are emulated, which is slow
            cgroup-controllers: Missing, no controllers below /sys/fs/cgroup
            confinement: Unknown, what this user may do is not told
            huge-pages: Missing, the kernel has no huge pages
            iommu: NotNeeded, no IOMMU is on; no device that pods could have
            iommu-pass-through: NotNeeded, there are no IOMMU groups; no device that pods could have
            vfio: NotNeeded, the driver vfio-pci is not loaded; no device that pods could have
            vfio-file: NotNeeded, there is no /dev/vfio/vfio; no device that pods could have
            network-drivers: NotNeeded, no network card with virtual functions that pods could have
            sriov-firmware: NotNeeded, no network card with virtual functions that pods could have
            virtual-functions: NotNeeded, no network card with virtual functions that pods could have
        "#]],
    );
    check_preconditions(
        &server(),
        expect![[r#"
            kvm: Missing, there is no /dev/kvm: guests are emulated, which is slow
            cgroup-controllers: Missing, no controllers below /sys/fs/cgroup
            confinement: Unknown, what this user may do is not told
            huge-pages: Missing, the kernel has no huge pages
            iommu: Missing, no IOMMU is on
            iommu-pass-through: Missing, there are no IOMMU groups
            vfio: Missing, the driver vfio-pci is not loaded
            vfio-file: Missing, there is no /dev/vfio/vfio
            network-drivers: Met, mlx5_core
            sriov-firmware: Met, 0000:86:00.0 can have virtual functions
            virtual-functions: Met, 2 are there
        "#]],
    );
    let mut ready = ready_server();
    check_preconditions(
        &ready,
        expect![[r#"
            kvm: Unknown, /dev/kvm is there; the agent tries a guest when it starts
            cgroup-controllers: Met, cgroup version 2 with cpu, memory, pids, io
            confinement: Met, this user may make users, namespaces and nodes for guests
            huge-pages: Met, hugepages-1Gi: 64 pages, 60 free
            iommu: Met, dmar0
            iommu-pass-through: Met, iommu=pt; 1 of 2 groups are translated
            vfio: Met, vfio-pci is loaded
            vfio-file: Met, /dev/vfio/vfio is there
            network-drivers: Met, mlx5_core
            sriov-firmware: Met, 0000:86:00.0 can have virtual functions
            virtual-functions: Met, 2 are there
        "#]],
    );
    // Nothing but the card's firmware is missing.
    ready.remove("/sys/devices/pci0000:85/0000:85:00.0/0000:86:00.0/sriov_totalvfs");
    ready.remove("/sys/devices/pci0000:85/0000:85:00.0/0000:86:00.0/driver");
    ready.file("/proc/cmdline", "quiet intel_iommu=on\n");
    ready.file("/proc/self/status", "CapEff:\t0000000000000023\n");
    check_preconditions(
        &ready,
        expect![[r#"
            kvm: Unknown, /dev/kvm is there; the agent tries a guest when it starts
            cgroup-controllers: Met, cgroup version 2 with cpu, memory, pids, io
            confinement: Missing, this user lacks CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_SYS_ADMIN and 1 more
            huge-pages: Met, hugepages-1Gi: 64 pages, 60 free
            iommu: Met, dmar0
            iommu-pass-through: Missing, 1 of 2 groups are translated: the host's own devices pay for it
            vfio: Met, vfio-pci is loaded
            vfio-file: Met, /dev/vfio/vfio is there
            network-drivers: Missing, no driver has 0000:86:00.0
            sriov-firmware: Missing, no virtual functions of 0000:86:00.0
            virtual-functions: Unknown, none was made yet: only making one tells
        "#]],
    );
}

/// A machine of two NUMA nodes with two cores of two threads each.
fn two_numa_nodes() -> MemoryTree {
    let mut tree = MemoryTree::new();
    tree.file("/sys/devices/system/cpu/online", "0-7\n");
    for cpu in 0..8 {
        let base = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        tree.file(&format!("{base}/physical_package_id"), format!("{}\n", cpu / 2 % 2));
        tree.file(&format!("{base}/core_id"), format!("{}\n", cpu % 2));
    }
    for (node, cpus, kib) in [(0, "0-1,4-5", 1024), (1, "2-3,6-7", 2048)] {
        let base = format!("/sys/devices/system/node/node{node}");
        tree.file(&format!("{base}/cpulist"), format!("{cpus}\n"));
        tree.file(
            &format!("{base}/meminfo"),
            format!("Node {node} MemTotal:       {kib} kB\nNode {node} MemFree: 1 kB\n"),
        );
    }
    tree.file("/sys/devices/system/node/possible", "0-1\n");
    tree
}

#[test]
fn processors_are_told_by_numa_node_core_and_thread() {
    let shown = |tree: &MemoryTree, allowed: Option<&str>| {
        let allowed = allowed.map(|text| text.parse::<bulkhead_types::CpuSet>().expect("a set"));
        match cpu_topology(tree, allowed.as_ref()) {
            Err(problem) => problem.to_string(),
            Ok(topology) => {
                let core =
                    |core: &bulkhead_types::CpuCore| format!("{}/{}={}", core.package, core.core, core.cpus);
                let node = |node: &bulkhead_types::NumaNode| {
                    let cores: Vec<String> = node.cores.iter().map(core).collect();
                    format!("{}: {} {}", node.id, node.memory_bytes, cores.join(" "))
                };
                topology.numa_nodes.iter().map(node).collect::<Vec<_>>().join("; ")
            }
        }
    };
    let tree = two_numa_nodes();
    assert_eq!(shown(&tree, None), "0: 1048576 0/0=0,4 0/1=1,5; 1: 2097152 1/0=2,6 1/1=3,7");
    assert_eq!(shown(&tree, Some("0,4-6")), "0: 1048576 0/0=0,4 0/1=5; 1: 2097152 1/0=6");
    let changed = |change: &dyn Fn(&mut MemoryTree)| {
        let mut tree = two_numa_nodes();
        change(&mut tree);
        shown(&tree, None)
    };
    let cpus = "/sys/devices/system/cpu";
    assert_eq!(
        changed(&|tree| _ = tree.file(&format!("{cpus}/online"), "0-9\n")),
        "/sys/devices/system/cpu/cpu8/topology/physical_package_id: is not there"
    );
    assert!(
        changed(&|tree| _ = tree.file(&format!("{cpus}/online"), "0-2000\n"))
            .contains("no number below 1024")
    );
    assert!(
        changed(&|tree| _ = tree.file(&format!("{cpus}/cpu3/topology/core_id"), "x\n"))
            .contains("\"x\" is no number")
    );
    // Machines that do not know say so.
    let unknown =
        changed(&|tree| _ = tree.file(&format!("{cpus}/cpu0/topology/physical_package_id"), "-1\n"));
    assert!(unknown.starts_with("0: 1048576 0/0=0,4"), "{unknown}");
    let half = changed(&|tree| _ = tree.remove("/sys/devices/system/node/node1"));
    assert_eq!(half, "/sys/devices/system/node: CPUs 2-3,6-7 are on no NUMA node");
    let none = changed(&|tree| {
        tree.remove("/sys/devices/system/node").file("/proc/meminfo", "MemTotal:    4 kB\n");
    });
    assert_eq!(none, "0: 4096 0/0=0,4 0/1=1,5 1/0=2,6 1/1=3,7");
}

#[test]
fn huge_pages_are_told_by_numa_node_and_are_no_ordinary_memory() {
    let mut tree = two_numa_nodes();
    tree.file("/sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:       65536 kB\n");
    let pool = |node: u32| format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
    tree.file(&format!("{}/nr_hugepages", pool(0)), "16\n")
        .file(&format!("{}/free_hugepages", pool(0)), "5\n");
    // More than the kernel says that the node has cannot be taken from its memory.
    tree.file(&format!("{}/nr_hugepages", pool(1)), "16\n");
    let topology = cpu_topology(&tree, None).expect("a machine");
    let told: Vec<_> = topology.numa_nodes.iter().map(|n| (n.memory_bytes >> 20, n.huge_pages)).collect();
    let pages = HugePages { two_mib_bytes: 32 << 20, one_gib_bytes: 0 };
    assert_eq!(told, [(32, pages), (0, pages)]);
    let free = free_huge_pages(&tree, &node_huge_page_pools(0));
    assert_eq!(free, HugePages { two_mib_bytes: 10 << 20, one_gib_bytes: 0 });
    assert_eq!(huge_pages(&tree, HUGE_PAGE_POOLS), HugePages::NONE, "the machine's own pools are not there");
}
