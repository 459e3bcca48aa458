//! DeviceClasses, ResourceSlices, and the devices of pods.

use bulkhead_types::{
    AllocatedDevice, Device, DeviceClassSpec, DeviceHealth, DeviceRole, DeviceSharing, Hex16, PciFacts,
    PciInfiniband, PciInterface, PciLink, ResourceSlice, SchedulerPolicy, format_bytes, format_guid,
    format_serial_number,
};
use serde_json::Value;
use smol_str::SmolStr;

use super::Fields;
use super::sriov::{link_speed, link_type};

/// What is wanted of a class.
pub(super) fn class_spec(spec: &DeviceClassSpec) -> Value {
    let ids =
        |list: &[Hex16]| list.iter().map(|id| Value::from(String::from(*id))).collect::<Vec<_>>().into_iter();
    let texts =
        |list: &[SmolStr]| list.iter().map(|one| Value::from(one.as_str())).collect::<Vec<_>>().into_iter();
    let selector = Fields::new()
        .list("vendors", ids(&spec.selector.vendors))
        .list("devices", ids(&spec.selector.devices))
        .list("classes", ids(&spec.selector.classes))
        .list("models", texts(&spec.selector.models))
        .list("drivers", texts(&spec.selector.drivers))
        .text(
            "role",
            match spec.selector.role {
                DeviceRole::Whole => "Whole",
                DeviceRole::Virtual => "Virtual",
            },
        );
    let fields = Fields::new()
        .text("extendedResourceName", &spec.extended_resource_name)
        .set("selector", selector.finish());
    let fields = match &spec.sharing {
        Some(shared) => fields.set("sharing", sharing(shared)),
        None => fields,
    };
    fields
        .maybe("partitioning", spec.partitioning.get().map(|one| plain(serde_json::to_value(one))))
        .maybe("faults", spec.faults.get().map(|one| plain(serde_json::to_value(one))))
        .maybe("visibility", spec.visibility.get().map(|one| plain(serde_json::to_value(one))))
        .optional("memoryResourceName", spec.memory_resource_name.get().map(SmolStr::as_str))
        .maybe("nodeLabels", spec.node_labels.get().map(|one| plain(serde_json::to_value(one))))
        .maybe("selection", spec.selection.get().map(|one| plain(serde_json::to_value(one))))
        .finish()
}

/// What has the same names in manifests as everywhere, without what is not set.
fn plain(part: Result<Value, serde_json::Error>) -> Value {
    fn set_only(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let is_set =
                    |value: &Value| !value.is_null() && value.as_array().is_none_or(|all| !all.is_empty());
                let fields = fields.into_iter().map(|(name, value)| (name, set_only(value)));
                Value::Object(fields.filter(|(_, value)| is_set(value)).collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(set_only).collect()),
            other => other,
        }
    }
    set_only(part.unwrap_or_default())
}

fn policy(policy: SchedulerPolicy) -> &'static str {
    match policy {
        SchedulerPolicy::Binpack => "Binpack",
        SchedulerPolicy::Spread => "Spread",
    }
}

fn sharing(sharing: &DeviceSharing) -> Value {
    Fields::new()
        .text("extendedResourceName", &sharing.extended_resource_name)
        .text("memoryResourceName", &sharing.memory_resource_name)
        .text("coresResourceName", &sharing.cores_resource_name)
        .set("splitCount", sharing.split_count.into())
        .set("memoryScalingPercent", sharing.memory_scaling_percent.into())
        .set("coreScalingPercent", sharing.core_scaling_percent.into())
        .text("nodeSchedulerPolicy", policy(sharing.node_scheduler_policy))
        .text("deviceSchedulerPolicy", policy(sharing.device_scheduler_policy))
        .maybe("memoryUnits", sharing.memory_units.get().map(|one| plain(serde_json::to_value(one))))
        .optional("slotsResourceName", sharing.slots_resource_name.get().map(SmolStr::as_str))
        .maybe("defaultCount", sharing.default_count.get().map(|count| (*count).into()))
        .finish()
}

/// The devices of a node.
pub(super) fn slice_spec(slice: &ResourceSlice) -> Value {
    Fields::new()
        .text("nodeName", slice.meta.name.as_str())
        .list("devices", slice.devices.iter().map(|one| device(slice, one)))
        .optional("gpuMode", slice.gpu_mode().map(SmolStr::as_str))
        .finish()
}

fn device(slice: &ResourceSlice, device: &Device) -> Value {
    let health = match &device.health {
        DeviceHealth::Healthy => "Healthy".to_owned(),
        DeviceHealth::Unhealthy { code, .. } => format!("Unhealthy: {code}"),
        DeviceHealth::Lost { .. } => "Lost".to_owned(),
    };
    let link = |link: &bulkhead_types::DeviceLink| {
        Fields::new()
            .text("peer", &link.peer)
            .text("type", &link.link_type)
            .set("count", link.count.into())
            .finish()
    };
    let fields = Fields::new()
        .text("id", &device.id)
        .text("address", &device.address)
        .set("index", device.index.into())
        .text("vendor", &format!("{:04x}", device.vendor))
        .text("device", &format!("{:04x}", device.device))
        .text("class", &format!("{:04x}", device.class()))
        .nonempty("model", &device.model)
        .nonempty("driver", &device.driver)
        .nonempty("pcieRoot", &device.pcie_root)
        .optional("parent", device.parent.as_deref())
        .nonempty("inUseBy", &device.in_use_by)
        .text("health", &health)
        .list("links", device.links.iter().map(link));
    let fields = match device.partition.get() {
        Some(partition) => fields.set("partition", plain(serde_json::to_value(partition))),
        None => fields,
    };
    let fields = match slice.fence(&device.id) {
        Some(fence) => fields.set(
            "fence",
            Fields::new().text("action", fence.action.as_str()).set("code", fence.code.into()).finish(),
        ),
        None => fields,
    };
    let nic = device.nic.get();
    let fields = fields
        .number("totalvfs", nic.map(|nic| nic.total_vfs.into()))
        .number("numVfs", nic.map(|nic| nic.num_vfs.into()))
        .number("iommuGroup", device.iommu_group.map(Into::into))
        .maybe("pci", device.pci.get().map(pci));
    let fields = match device.numa_node {
        Some(node) => fields.set("numaNode", node.into()),
        None => fields,
    };
    let fields = match device.capacity.memory_bytes {
        0 => fields,
        bytes => fields.text("memory", &bulkhead_types::format_bytes(bytes)),
    };
    if slice.is_cordoned(&device.id) { fields.set("unschedulable", true.into()) } else { fields }.finish()
}

/// What is told of a function for operators. Names of interfaces' fields are those of SriovNetworkNodeState.
fn pci(facts: &PciFacts) -> Value {
    let traits = &*facts.traits;
    let link = |link: PciLink| {
        let speed = (link.lane_megatransfers > 0).then(|| link.speed());
        let lanes = (link.lanes > 0).then_some(link.lanes.into());
        Fields::new().optional("speed", speed.as_deref()).number("width", lanes).finish()
    };
    let subsystem = format!("{:04x}:{:04x}", traits.subsystem_vendor, traits.subsystem_device);
    Fields::new()
        .text("subsystem", &subsystem)
        .text("acs", traits.acs.as_str())
        .list("resetMethods", traits.reset_methods.iter().map(|method| Value::from(method.as_str())))
        .maybe("link", facts.link.map(link))
        .maybe("linkMax", traits.link_max.map(link))
        .list("memoryBars", traits.memory_bars_bytes.iter().map(|bytes| format_bytes(*bytes).into()))
        .optional("serialNumber", facts.serial_number.map(format_serial_number).as_deref())
        .list("interfaces", facts.interfaces().iter().map(interface))
        .list("infiniband", facts.infiniband().iter().map(infiniband))
        .finish()
}

fn interface(one: &PciInterface) -> Value {
    Fields::new()
        .text("name", &one.name)
        .nonempty("mac", &one.mac)
        .number("mtu", (one.mtu > 0).then_some(one.mtu.into()))
        .optional("linkType", one.link_type.map(link_type))
        .optional("linkSpeed", one.link_speed_mbps.map(link_speed).as_deref())
        .text("operState", if one.is_up { "up" } else { "down" })
        .finish()
}

fn infiniband(one: &PciInfiniband) -> Value {
    let guid = |guid: u64| (guid != 0).then(|| format_guid(guid));
    Fields::new()
        .text("name", &one.name)
        .optional("nodeGUID", guid(one.node_guid).as_deref())
        .optional("systemImageGUID", guid(one.system_guid).as_deref())
        .finish()
}

/// One device of a node, with the node's name, as `get devices` prints it.
#[must_use]
pub fn device_value(slice: &ResourceSlice, of: &Device) -> Value {
    let mut value = device(slice, of);
    value["nodeName"] = slice.meta.name.as_str().into();
    value
}

/// One device that a pod has.
pub(super) fn allocated(device: &AllocatedDevice) -> Value {
    let fields = Fields::new()
        .text("container", &device.container)
        .text("resource", &device.resource)
        .text("device", &device.device);
    match &device.share {
        None => fields,
        Some(share) => fields
            .text("memory", &bulkhead_types::format_bytes(share.memory_bytes))
            .set("cores", share.cores.into()),
    }
    .finish()
}
