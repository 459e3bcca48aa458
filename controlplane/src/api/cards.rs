//! What the nodes' cards do, for Prometheus, by the names that NVIDIA's DCGM exporter made known.
//!
//! A card in a guest is not with its host's driver: it has no number at all rather than 0, and `bulkhead_card_in_guest` says so.

use std::fmt::Write as _;

use bulkhead_controlplane_core::server::{CardUsage, Used};
use bulkhead_types::{DeviceUsage, Name};

const MIB: u64 = 1 << 20;

/// One family: name, what it is, and its value of a card in thousandths.
type Family = (&'static str, &'static str, fn(&DeviceUsage) -> Option<u64>);

const FAMILIES: [Family; 6] = [
    ("DCGM_FI_DEV_GPU_UTIL", "How busy the card is, in per cent", |one| {
        one.utilization_percent.map(|percent| u64::from(percent) * 1000)
    }),
    ("DCGM_FI_DEV_FB_USED", "Memory of the card that is used, in MiB", |one| {
        one.memory_used_bytes.map(|bytes| (bytes / MIB).saturating_mul(1000))
    }),
    ("DCGM_FI_DEV_FB_FREE", "Memory of the card that is free, in MiB", |one| {
        let free = one.memory_bytes?.saturating_sub(one.memory_used_bytes?);
        Some((free / MIB).saturating_mul(1000))
    }),
    ("DCGM_FI_DEV_GPU_TEMP", "How hot the card is, in degrees Celsius", |one| {
        one.temperature_celsius.map(|degrees| u64::from(degrees) * 1000)
    }),
    ("DCGM_FI_DEV_POWER_USAGE", "What the card draws, in watts", |one| one.power_milliwatts),
    ("bulkhead_card_in_guest", "1 when a guest has the card: then nothing of it is measured", |one| {
        Some(u64::from(one.in_guest) * 1000)
    }),
];

/// All of them; nothing where no node has a card.
pub(super) fn text(nodes: &[Used]) -> String {
    let mut text = String::new();
    for (name, help, value) in FAMILIES {
        let mut is_first = true;
        for node in nodes {
            for card in &node.devices {
                let Some(thousandths) = value(&card.usage) else { continue };
                if std::mem::take(&mut is_first) {
                    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
                }
                let labels = labels(&node.object.meta().name, card);
                let (whole, rest) = (thousandths / 1000, thousandths % 1000);
                let _ = match rest {
                    0 => writeln!(text, "{name}{{{labels}}} {whole}"),
                    rest => writeln!(text, "{name}{{{labels}}} {whole}.{rest:03}"),
                };
            }
        }
    }
    text
}

fn labels(node: &Name, card: &CardUsage) -> String {
    let usage = &card.usage;
    let (namespace, pod) = card.pod.clone().unzip();
    let index = usage.index.to_string();
    let pairs = [
        ("gpu", index.as_str()),
        ("UUID", usage.device.as_str()),
        ("pci_bus_id", usage.address.as_str()),
        ("modelName", usage.model.as_str()),
        ("Hostname", node.as_str()),
        ("namespace", namespace.as_ref().and_then(Option::as_ref).map_or("", Name::as_str)),
        ("pod", pod.as_ref().map_or("", Name::as_str)),
    ];
    let pair = |(name, value): &(&str, &str)| {
        format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
    };
    pairs.iter().map(pair).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulkhead_controlplane_core::reconcile::Sample;
    use bulkhead_types::{Node, NodeFacts, NodePhase, NodeSpec, NodeStatus, Object, ObjectMeta, Rare};

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn node(cards: Vec<CardUsage>) -> Used {
        let (meta, spec) = (ObjectMeta::new(None, name("n1")), NodeSpec::default());
        let status = NodeStatus {
            phase: NodePhase::Ready,
            phase_since_ms: 0,
            incarnation: 1,
            facts: NodeFacts::default(),
            pool: Rare::NONE,
            images: Rare::NONE,
            device_labels: Rare::NONE,
        };
        let sample =
            Sample { measured_at_ms: 0, window_ms: 0, cpu_millis: 0, memory_bytes: 0, containers: vec![] };
        Used { object: Object::Node(Arc::new(Node { meta, spec, status })), sample, devices: cards }
    }

    #[test]
    fn cards_have_the_names_of_dcgm_and_those_in_guests_no_numbers() {
        assert_eq!(text(&[node(vec![])]), "");
        let on_host = DeviceUsage {
            device: "GPU-1".into(),
            address: "0000:41:00.0".into(),
            model: "A \"card\"".into(),
            utilization_percent: Some(87),
            memory_used_bytes: Some(3 << 30),
            memory_bytes: Some(4 << 30),
            temperature_celsius: Some(61),
            power_milliwatts: Some(250_020),
            ..DeviceUsage::default()
        };
        let in_guest = DeviceUsage {
            device: "GPU-2".into(),
            address: "0000:42:00.0".into(),
            index: 1,
            in_guest: true,
            ..DeviceUsage::default()
        };
        let pod = Some((Some(name("ml")), name("train")));
        let cards = vec![CardUsage { usage: on_host, pod: None }, CardUsage { usage: in_guest, pod }];
        let text = text(&[node(cards)]);
        let first = "{gpu=\"0\",UUID=\"GPU-1\",pci_bus_id=\"0000:41:00.0\",modelName=\"A \\\"card\\\"\",Hostname=\"n1\",namespace=\"\",pod=\"\"}";
        let second = "{gpu=\"1\",UUID=\"GPU-2\",pci_bus_id=\"0000:42:00.0\",modelName=\"\",Hostname=\"n1\",namespace=\"ml\",pod=\"train\"}";
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            format!("DCGM_FI_DEV_GPU_UTIL{first} 87"),
            format!("DCGM_FI_DEV_FB_USED{first} 3072"),
            format!("DCGM_FI_DEV_FB_FREE{first} 1024"),
            format!("DCGM_FI_DEV_GPU_TEMP{first} 61"),
            format!("DCGM_FI_DEV_POWER_USAGE{first} 250.020"),
            format!("bulkhead_card_in_guest{first} 0"),
            format!("bulkhead_card_in_guest{second} 1"),
        ];
        assert_eq!(samples, expected);
        assert_eq!(text.matches("# TYPE ").count(), FAMILIES.len(), "each family says once what it is");
    }
}
