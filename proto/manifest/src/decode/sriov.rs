//! SR-IOV policies and networks.
//!
//! `ipam` and `capabilities` are JSON in a string, as the operator has them; their fields are known by path all the same.

use std::net::IpAddr;

use bulkhead_types::{
    Hex16, IpCidr, Ipam, Name, NetworkCapabilities, NetworkRoute, SRIOV_PRIORITY_MAX, SriovDeviceType,
    SriovIBNetworkSpec, SriovLinkType, SriovNetworkNodePolicySpec, SriovNetworkSpec, SriovNicSelector,
    VfLinkState,
};
use serde_json::{Map, Value as Json};

use super::decoder::{Decoder, Fields, Schema};
use crate::tree::Node;

const POLICY: Schema = Schema {
    known: &[
        "resourceName",
        "nodeSelector",
        "priority",
        "mtu",
        "numVfs",
        "nicSelector",
        "deviceType",
        "isRdma",
        "linkType",
    ],
    ..Schema::EMPTY
};
const NIC_SELECTOR: Schema =
    Schema { known: &["vendor", "deviceID", "pfNames", "rootDevices"], ..Schema::EMPTY };
const NETWORK: Schema = Schema {
    known: &[
        "resourceName",
        "networkNamespace",
        "ipam",
        "linkState",
        "capabilities",
        "vlan",
        "vlanQoS",
        "spoofChk",
        "trust",
        "minTxRate",
        "maxTxRate",
    ],
    ..Schema::EMPTY
};
const IB_NETWORK: Schema = Schema {
    known: &["resourceName", "networkNamespace", "ipam", "linkState", "capabilities"],
    ..Schema::EMPTY
};
const IPAM: [&str; 7] = ["type", "range", "range_start", "range_end", "exclude", "gateway", "routes"];
const DEVICE_TYPES: [(&str, SriovDeviceType); 2] =
    [("netdevice", SriovDeviceType::Netdevice), ("vfio-pci", SriovDeviceType::VfioPci)];
const LINK_TYPES: [(&str, SriovLinkType); 4] = [
    ("ETH", SriovLinkType::Eth),
    ("IB", SriovLinkType::Ib),
    ("eth", SriovLinkType::Eth),
    ("ib", SriovLinkType::Ib),
];
const LINK_STATES: [(&str, VfLinkState); 3] =
    [("auto", VfLinkState::Auto), ("enable", VfLinkState::Enable), ("disable", VfLinkState::Disable)];
const SWITCH: [(&str, bool); 2] = [("on", true), ("off", false)];
/// Numbers that are judged by the validation, which says what is allowed.
const NUMBER_MAX: u64 = u32::MAX as u64;

fn number(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Option<u32> {
    d.number(fields, name, NUMBER_MAX).and_then(|number| u32::try_from(number).ok())
}

/// What is wanted of nodes' NICs.
pub(super) fn policy(d: &mut Decoder<'_>, node: &Node) -> Option<SriovNetworkNodePolicySpec> {
    let fields = d.fields(node, "spec", &POLICY)?;
    let resource_name = d.required_text(&fields, "resourceName");
    for name in ["numVfs", "nicSelector"] {
        if fields.get(name).is_none() {
            d.missing(&fields, name);
        }
    }
    let num_vfs = number(d, &fields, "numVfs");
    let selector =
        fields.get("nicSelector").and_then(|node| nic_selector(d, node, &fields.path("nicSelector")));
    Some(SriovNetworkNodePolicySpec {
        node_selector: d.string_map(&fields, "nodeSelector"),
        priority: number(d, &fields, "priority").unwrap_or(SRIOV_PRIORITY_MAX),
        mtu: number(d, &fields, "mtu"),
        device_type: d.choice(&fields, "deviceType", &DEVICE_TYPES).unwrap_or_default(),
        is_rdma: d.boolean(&fields, "isRdma").unwrap_or(false),
        link_type: d.choice(&fields, "linkType", &LINK_TYPES),
        resource_name: resource_name?.into(),
        num_vfs: num_vfs?,
        nic_selector: selector?,
    })
}

fn nic_selector(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<SriovNicSelector> {
    let fields = d.fields(node, path, &NIC_SELECTOR)?;
    let (vendor, device_id) = (id(d, &fields, "vendor"), id(d, &fields, "deviceID"));
    let texts = |list: Vec<String>| list.into_iter().map(Into::into).collect();
    Some(SriovNicSelector {
        vendor,
        device_id,
        pf_names: texts(d.texts(&fields, "pfNames")),
        root_devices: texts(d.texts(&fields, "rootDevices")),
    })
}

fn id(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str) -> Option<Hex16> {
    match Hex16::try_from(d.text(fields, name)?) {
        Ok(id) => Some(id),
        Err(error) => {
            d.fail(fields.place(name), &fields.path(name), error);
            None
        }
    }
}

/// What is wanted of an Ethernet network.
pub(super) fn network(d: &mut Decoder<'_>, node: &Node) -> Option<SriovNetworkSpec> {
    let fields = d.fields(node, "spec", &NETWORK)?;
    let common = common(d, &fields);
    let spec = SriovNetworkSpec {
        vlan: number(d, &fields, "vlan").unwrap_or(0),
        vlan_qos: number(d, &fields, "vlanQoS").unwrap_or(0),
        spoof_chk: d.choice(&fields, "spoofChk", &SWITCH),
        trust: d.choice(&fields, "trust", &SWITCH),
        min_tx_rate: number(d, &fields, "minTxRate"),
        max_tx_rate: number(d, &fields, "maxTxRate"),
        ..common?.as_network()
    };
    Some(spec)
}

/// What is wanted of an InfiniBand network.
pub(super) fn ib_network(d: &mut Decoder<'_>, node: &Node) -> Option<SriovIBNetworkSpec> {
    let fields = d.fields(node, "spec", &IB_NETWORK)?;
    common(d, &fields)
}

/// What both kinds of networks have.
fn common(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<SriovIBNetworkSpec> {
    let resource_name = d.required_text(fields, "resourceName");
    let network_namespace = d.text(fields, "networkNamespace").filter(|text| !text.is_empty());
    let network_namespace = network_namespace.and_then(|text| match Name::new(text) {
        Ok(name) => Some(name),
        Err(error) => {
            d.fail(fields.place("networkNamespace"), &fields.path("networkNamespace"), error.to_string());
            None
        }
    });
    let ipam = ipam(d, fields);
    let capabilities = capabilities(d, fields).unwrap_or_default();
    let link_state = d.choice(fields, "linkState", &LINK_STATES).unwrap_or_default();
    Some(SriovIBNetworkSpec {
        resource_name: resource_name?.into(),
        network_namespace,
        ipam,
        link_state,
        capabilities,
    })
}

/// The JSON object in a string; unknown fields are told by path. Empty text is nothing.
fn json(d: &mut Decoder<'_>, fields: &Fields<'_>, name: &str, known: &[&str]) -> Option<Map<String, Json>> {
    let text = d.text(fields, name).filter(|text| !text.trim().is_empty())?;
    let (place, path) = (fields.place(name), fields.path(name));
    let object = match serde_json::from_str::<Json>(&text) {
        Ok(Json::Object(object)) => object,
        Ok(_) => {
            d.fail(place, &path, "expected a JSON object in a string");
            return None;
        }
        Err(error) => {
            d.fail(place, &path, format!("is no JSON: {error}"));
            return None;
        }
    };
    for field in object.keys().filter(|field| !known.contains(&field.as_str())) {
        let reason = format!("unknown field: there are {}", known.join(", "));
        d.fail(place, &format!("{path}.{field}"), reason);
    }
    Some(object)
}

/// A text of a JSON object, read as something.
fn part<T>(
    d: &mut Decoder<'_>,
    (fields, object): (&Fields<'_>, &Map<String, Json>),
    name: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let value = object.get(name).filter(|value| !value.is_null())?;
    let result = value.as_str().ok_or_else(|| "expected a string".to_owned()).and_then(read);
    match result {
        Ok(value) => Some(value),
        Err(reason) => {
            d.fail(fields.place("ipam"), &format!("{}.{name}", fields.path("ipam")), reason);
            None
        }
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no IP address"))
}

/// A network; a single address is a network of its own.
fn cidr_or_address(text: &str) -> Result<IpCidr, String> {
    let whole = |address: IpAddr| IpCidr::new(address, if address.is_ipv4() { 32 } else { 128 });
    text.parse().ok().and_then(whole).map_or_else(|| IpCidr::parse(text), Ok)
}

fn ipam(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<Ipam> {
    let object = json(d, fields, "ipam", &IPAM)?;
    if object.is_empty() {
        return None;
    }
    let (place, path) = (fields.place("ipam"), fields.path("ipam"));
    if object.get("type").and_then(Json::as_str) != Some("whereabouts") {
        let reason = "must be \"whereabouts\": other ways to give out addresses are not supported";
        d.fail(place, &format!("{path}.type"), reason);
    }
    if object.get("range").is_none_or(Json::is_null) {
        d.fail(place, &format!("{path}.range"), "is required");
    }
    let of = (fields, &object);
    let range = part(d, of, "range", |text| match text.contains('-') {
        true => Err(format!("{text:?}: say the bounds by range_start and range_end")),
        false => IpCidr::parse(text),
    });
    let (range_start, range_end) = (part(d, of, "range_start", address), part(d, of, "range_end", address));
    let gateway = part(d, of, "gateway", address);
    let mut exclude = Vec::new();
    match object.get("exclude").filter(|value| !value.is_null()) {
        None => {}
        Some(Json::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let text = item.as_str().ok_or_else(|| "expected a string".to_owned());
                match text.and_then(cidr_or_address) {
                    Ok(cidr) => exclude.push(cidr),
                    Err(reason) => d.fail(place, &format!("{path}.exclude[{index}]"), reason),
                }
            }
        }
        Some(_) => d.fail(place, &format!("{path}.exclude"), "expected a list of networks"),
    }
    let routes = Some(routes(d, of)).filter(|routes| !routes.is_empty()).into();
    Some(Ipam { range: range?, range_start, range_end, exclude, gateway, routes })
}

/// Routes as CNI has them: `dst`, and `gw` where the network's gateway is not meant.
fn routes(d: &mut Decoder<'_>, (fields, object): (&Fields<'_>, &Map<String, Json>)) -> Vec<NetworkRoute> {
    let (place, path) = (fields.place("ipam"), format!("{}.routes", fields.path("ipam")));
    let items = match object.get("routes").filter(|value| !value.is_null()) {
        None => return Vec::new(),
        Some(Json::Array(items)) => items,
        Some(_) => {
            d.fail(place, &path, "expected a list of routes");
            return Vec::new();
        }
    };
    let mut found = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match route(item) {
            Ok(route) => found.push(route),
            Err(reason) => d.fail(place, &format!("{path}[{index}]"), reason),
        }
    }
    found
}

fn route(item: &Json) -> Result<NetworkRoute, String> {
    let object = item.as_object().ok_or("expected an object with dst and gw")?;
    if let Some(field) = object.keys().find(|field| !["dst", "gw"].contains(&field.as_str())) {
        return Err(format!("unknown field {field:?}: there are dst, gw"));
    }
    let part = |name: &str| match object.get(name).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or_else(|| format!("{name}: expected a string")),
    };
    let destination = cidr_or_address(part("dst")?.ok_or("dst is required")?)?;
    Ok(NetworkRoute { destination, gateway: part("gw")?.map(address).transpose()? })
}

fn capabilities(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<NetworkCapabilities> {
    let object = json(d, fields, "capabilities", &["ips", "mac"])?;
    let mut flag = |name: &str| match object.get(name) {
        None | Some(Json::Null) => false,
        Some(Json::Bool(value)) => *value,
        Some(_) => {
            let path = format!("{}.{name}", fields.path("capabilities"));
            d.fail(fields.place("capabilities"), &path, "expected true or false");
            false
        }
    };
    Some(NetworkCapabilities { ips: flag("ips"), mac: flag("mac") })
}
