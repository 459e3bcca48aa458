//! Devices on the command line.

use bulkhead_proto::v1;
use expect_test::expect;

use super::{Fake, bulkhead_on, check, text};

/// A node with three cards: one whole in use, one that is sick, one that is kept back.
async fn with_devices() -> Fake {
    let fake = Fake::start().await;
    fake.put_running_pod("train", "node-1");
    let classes =
        bulkhead_types::builtin_device_classes().into_iter().find(|class| class.name == "nvidia-gpu");
    let class = classes.expect("the class of these cards");
    let meta = bulkhead_types::ObjectMeta::new(None, bulkhead_types::Name::new(&class.name).expect("a name"));
    let class = bulkhead_types::Object::DeviceClass(std::sync::Arc::new(bulkhead_types::DeviceClass {
        meta,
        spec: class.spec,
    }));
    let names = bulkhead_manifest::Names { cluster_id: None, name_of: &|_, _| None };
    fake.put_manifest(&bulkhead_manifest::to_yaml(&class, names));
    let card = |index: u32| v1::Device {
        id: format!("GPU-{index}"),
        address: format!("0000:3{index}:00.0"),
        index,
        vendor: 0x10de,
        device: 0x20b5,
        class_code: 0x03_0200,
        numa_node: Some(0),
        capacity: Some(v1::DeviceCapacity { memory_bytes: 16 << 30, cores: 100 }),
        health: Some(v1::DeviceHealth {
            variant: Some(v1::device_health::Variant::Healthy(v1::device_health::Healthy {})),
        }),
        ..v1::Device::default()
    };
    let mut devices = vec![card(0), card(1), card(2)];
    let unhealthy = v1::device_health::Unhealthy { code: "Xid79".to_owned(), since_ms: 1 };
    devices[1].health =
        Some(v1::DeviceHealth { variant: Some(v1::device_health::Variant::Unhealthy(unhealthy)) });
    fake.put_slice("node-1", devices, &["GPU-2"]);
    fake.change_objects(|object| {
        if let v1::object::Object::Pod(pod) = object {
            let given = v1::AllocatedDevice {
                container: "web".to_owned(),
                resource: "nvidia.com/gpu".to_owned(),
                device: "GPU-0".to_owned(),
                share: None,
            };
            pod.status.get_or_insert_default().devices = Some(v1::AllocatedDevices { devices: vec![given] });
        }
    });
    fake
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_shown_with_who_has_them_and_what_keeps_them_from_pods() {
    let fake = with_devices().await;
    check(&fake, &["get", "devices"], expect![[r#"
        exit 0
        NODE     INDEX   DEVICE   RESOURCE         ID          NUMA   STATUS                       HOLDER          MEMORY
        node-1   0       GPU-0    nvidia.com/gpu   10de:20b5   0      Healthy                      default/train   16Gi
        node-1   1       GPU-1    nvidia.com/gpu   10de:20b5   0      Unhealthy: Xid79             -               16Gi
        node-1   2       GPU-2    nvidia.com/gpu   10de:20b5   0      Healthy,SchedulingDisabled   -               16Gi
    "#]]).await;
    check(
        &fake,
        &["get", "devices", "node-9"],
        expect![[r#"
        exit 0
        No devices: no node reports any.
    "#]],
    )
    .await;
    let output = bulkhead_on(&fake.address, &["describe", "node", "node-1"]).await;
    let described = text(&output.stdout);
    let from = described.find("Device resources").expect("what the node has");
    let to = described.find("Events").expect("the end");
    expect![[r#"
        Device resources:
          RESOURCE              CAPACITY   ALLOCATABLE   ALLOCATED   USED
          aliyun.com/gpu-mem    48         0             0           0%
          nvidia.com/gpu        3          1             1           33%
          nvidia.com/gpucores   300        0             0           0%
          nvidia.com/gpumem     49152      0             0           0%
          nvidia.com/vgpu       30         0             0           0%
        Devices:
          INDEX   DEVICE   RESOURCE         ID          NUMA   STATUS                       HOLDER          MEMORY
          0       GPU-0    nvidia.com/gpu   10de:20b5   0      Healthy                      default/train   16Gi
          1       GPU-1    nvidia.com/gpu   10de:20b5   0      Unhealthy: Xid79             -               16Gi
          2       GPU-2    nvidia.com/gpu   10de:20b5   0      Healthy,SchedulingDisabled   -               16Gi
    "#]].assert_eq(&described[from..to]);
}

/// A network card with everything that is told of functions, and a virtual function of which little is.
async fn with_functions() -> Fake {
    let fake = Fake::start().await;
    fake.put_running_pod("web", "node-1");
    let link = |lane_megatransfers, lanes| Some(v1::PciLink { lane_megatransfers, lanes });
    let interface = |name: &str, link_speed_mbps: Option<u32>| v1::PciInterface {
        name: name.to_owned(),
        mac: "b8:59:9f:00:00:01".to_owned(),
        mtu: 9000,
        link_type: Some(v1::SriovLinkType::Eth.into()),
        link_speed_mbps,
        is_up: link_speed_mbps.is_some(),
    };
    let infiniband = v1::PciInfiniband {
        name: "mlx5_0".to_owned(),
        node_guid: 0xb859_9f03_0000_0001,
        system_guid: 0xb859_9f03_0000_0000,
    };
    let traits = v1::PciTraits {
        subsystem_vendor: 0x15b3,
        subsystem_device: 7,
        acs: v1::PciAcs::On.into(),
        reset_methods: vec!["flr".to_owned(), "bus".to_owned()],
        link_max: link(16_000, 16),
        memory_bars_bytes: vec![32 << 20],
    };
    let card = v1::PciFacts {
        traits: Some(traits),
        serial_number: Some(0xb8ce_f603_00aa_bbcc),
        link: link(8000, 8),
        ports: Some(v1::PciPorts {
            interfaces: vec![interface("eth0", Some(100_000)), interface("eth1", None)],
            infiniband: vec![infiniband],
        }),
    };
    let traits = v1::PciTraits { acs: v1::PciAcs::Unknown.into(), ..v1::PciTraits::default() };
    let function = v1::PciFacts { traits: Some(traits), ..v1::PciFacts::default() };
    let device = |index: u32, pci| v1::Device {
        id: format!("0000:86:00.{index}"),
        address: format!("0000:86:00.{index}"),
        index,
        vendor: 0x15b3,
        device: 0x1017,
        class_code: 0x02_0000,
        pcie_root: "pci0000:85".to_owned(),
        iommu_group: (index == 0).then_some(42),
        capacity: Some(v1::DeviceCapacity { memory_bytes: 0, cores: 100 }),
        health: Some(v1::DeviceHealth {
            variant: Some(v1::device_health::Variant::Healthy(v1::device_health::Healthy {})),
        }),
        pci: Some(pci),
        ..v1::Device::default()
    };
    let mut devices = vec![device(0, card), device(1, function)];
    devices[0].driver = "mlx5_core".to_owned();
    devices[0].nic = Some(v1::NicFacts { total_vfs: 8, num_vfs: 1, ..v1::NicFacts::default() });
    devices[1].parent = Some("0000:86:00.0".to_owned());
    fake.put_slice("node-1", devices, &[]);
    fake
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_functions_is_shown() {
    let fake = with_functions().await;
    let output = bulkhead_on(&fake.address, &["describe", "node", "node-1"]).await;
    let described = text(&output.stdout);
    let from = described.find("PCI functions").expect("what is told");
    let to = described.find("Events").expect("the end");
    expect![[r#"
        PCI functions:
          DEVICE         CLASS   DRIVER      ROOT         GROUP   ACS       RESET     LINK                           REGIONS   VFS   SERIAL
          0000:86:00.0   0200    mlx5_core   pci0000:85   42      on        flr,bus   8.0 GT/s x8 of 16.0 GT/s x16   32Mi      1/8   b8-ce-f6-03-00-aa-bb-cc
          0000:86:00.1   0200    -           pci0000:85   -       unknown   -         -                              -         -     -
        Network interfaces:
          DEVICE         NAME   TYPE   STATE   SPEED         MTU    MAC
          0000:86:00.0   eth0   ETH    up      100000 Mb/s   9000   b8:59:9f:00:00:01
          0000:86:00.0   eth1   ETH    down    -             9000   b8:59:9f:00:00:01
        InfiniBand devices:
          DEVICE         NAME     NODE GUID             SYSTEM IMAGE GUID
          0000:86:00.0   mlx5_0   b859:9f03:0000:0001   b859:9f03:0000:0000
    "#]].assert_eq(&described[from..to]);
    let output = bulkhead_on(&fake.address, &["get", "devices", "node-1", "-o", "json"]).await;
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let items = list["items"].as_array().expect("items");
    let said: Vec<String> = items.iter().map(ToString::to_string).collect();
    expect![[r#"
        {"address":"0000:86:00.0","class":"0200","device":"1017","driver":"mlx5_core","health":"Healthy","holders":[],"id":"0000:86:00.0","index":0,"iommuGroup":42,"nodeName":"node-1","numVfs":1,"pci":{"acs":"on","infiniband":[{"name":"mlx5_0","nodeGUID":"b859:9f03:0000:0001","systemImageGUID":"b859:9f03:0000:0000"}],"interfaces":[{"linkSpeed":"100000 Mb/s","linkType":"ETH","mac":"b8:59:9f:00:00:01","mtu":9000,"name":"eth0","operState":"up"},{"linkType":"ETH","mac":"b8:59:9f:00:00:01","mtu":9000,"name":"eth1","operState":"down"}],"link":{"speed":"8.0 GT/s","width":8},"linkMax":{"speed":"16.0 GT/s","width":16},"memoryBars":["32Mi"],"resetMethods":["flr","bus"],"serialNumber":"b8-ce-f6-03-00-aa-bb-cc","subsystem":"15b3:0007"},"pcieRoot":"pci0000:85","status":"Healthy,split into parts","totalvfs":8,"vendor":"15b3"}
        {"address":"0000:86:00.1","class":"0200","device":"1017","health":"Healthy","holders":[],"id":"0000:86:00.1","index":1,"nodeName":"node-1","parent":"0000:86:00.0","pci":{"acs":"unknown","subsystem":"0000:0000"},"pcieRoot":"pci0000:85","status":"Healthy","vendor":"15b3"}"#]]
    .assert_eq(&said.join("\n"));
    let output = bulkhead_on(&fake.address, &["get", "devices", "node-1", "-o", "yaml"]).await;
    let yaml = text(&output.stdout);
    assert!(yaml.contains("linkSpeed: \"100000 Mb/s\"") && yaml.contains("totalvfs: 8"), "{yaml}");
    let output = bulkhead_on(&fake.address, &["get", "resourceslices", "node-1", "-o", "json"]).await;
    let slice: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let pci = &slice["spec"]["devices"][0]["pci"];
    assert_eq!(pci["interfaces"][0]["linkSpeed"], "100000 Mb/s", "{slice}");
    check(
        &fake,
        &["get", "devices", "-o", "name"],
        expect![[r#"
        exit 2
        error: devices are no objects: -o name has nothing to say of them
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_needs_is_shown_with_what_to_do() {
    let fake = Fake::start().await;
    fake.put_running_pod("web", "node-1");
    let one =
        |name: &str, outcome: v1::PreconditionOutcome, found: &str, remedy: &str| v1::NodePrecondition {
            name: name.to_owned(),
            need: v1::PreconditionNeed::Devices.into(),
            outcome: outcome.into(),
            found: found.to_owned(),
            remedy: remedy.to_owned(),
        };
    let missing = one("iommu", v1::PreconditionOutcome::Missing, "no IOMMU is on", "turn VT-d on");
    let preconditions = vec![
        one("vfio", v1::PreconditionOutcome::Met, "vfio-pci is loaded", ""),
        missing,
        one("sriov-firmware", v1::PreconditionOutcome::NotNeeded, "no card", ""),
    ];
    fake.change_objects(|object| {
        if let v1::object::Object::Node(node) = object {
            let facts = node.status.get_or_insert_default().facts.get_or_insert_default();
            facts.preconditions = Some(v1::NodePreconditions { preconditions: preconditions.clone() });
        }
    });
    let output = bulkhead_on(&fake.address, &["describe", "node", "node-1"]).await;
    let described = text(&output.stdout);
    let from = described.find("Preconditions").expect("what it needs");
    let table: Vec<&str> = described[from..].lines().take(5).collect();
    expect![[r#"
        Preconditions:
          NAME             OUTCOME      FOUND                REMEDY
          vfio             ok           vfio-pci is loaded   -
          iommu            missing      no IOMMU is on       turn VT-d on
          sriov-firmware   not needed   no card              -
    "#]]
    .assert_eq(&(table.join("\n") + "\n"));
    let output = bulkhead_on(&fake.address, &["get", "node", "node-1", "-o", "json"]).await;
    let node: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let told = &node["status"]["preconditions"];
    assert_eq!(told.as_array().map(Vec::len), Some(3), "{node}");
    let expected = serde_json::json!({
        "name": "iommu", "need": "Devices", "outcome": "Missing", "found": "no IOMMU is on", "remedy": "turn VT-d on",
    });
    assert_eq!(told[1], expected);
}
