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
