//! What the machine's cards do now, and which pod has each: what a driver's library tells, and who holds what.
//!
//! A card in a guest is not with the host's driver, so its library knows nothing of it: that is said, not told as 0. What such a card does
//! is known to the driver in its guest alone.

use std::collections::BTreeMap;

use bulkhead_types::{Device, DeviceUsage};

use super::{Bdf, CardReading, KnownCards};
use crate::passthrough::Binding;

/// Base classes of cards that compute: display controllers and processing accelerators. PCI Code and ID Assignment Specification, section 1.
const CLASSES_OF_CARDS: [u32; 2] = [0x03, 0x12];

/// What is told of the cards among devices. `readings` are what the library told, and how long ago, in milliseconds.
#[must_use]
pub fn card_usage(
    devices: &[Device],
    readings: Option<(&[CardReading], u64)>,
    bindings: &BTreeMap<Bdf, Binding>,
    known: &KnownCards,
) -> Vec<DeviceUsage> {
    let (readings, age_ms) = readings.unwrap_or_default();
    let readings: BTreeMap<Bdf, &CardReading> = readings.iter().map(|one| (one.address, one)).collect();
    let usage = |device: &Device| {
        let address: Bdf = device.address.parse().ok()?;
        let (reading, binding) = (readings.get(&address), bindings.get(&address));
        let is_card = reading.is_some() || CLASSES_OF_CARDS.contains(&(device.class_code >> 16));
        // What only goes with a card is none itself.
        if !is_card || binding.is_some_and(|binding| binding.companion_of.is_some()) {
            return None;
        }
        let last_reset = known.last_reset(address);
        let memory_bytes = Some(device.capacity.memory_bytes).filter(|bytes| *bytes > 0);
        let told = DeviceUsage {
            device: device.id.clone(),
            address: device.address.clone(),
            index: device.index,
            model: device.model.clone(),
            pod: binding.map(|binding| binding.pod),
            in_guest: binding.is_some(),
            memory_bytes,
            last_reset: last_reset.map(|last| last.method.clone()).unwrap_or_default(),
            last_reset_at_ms: last_reset.map_or(0, |last| last.at_ms),
            ..DeviceUsage::default()
        };
        Some(match reading.filter(|_| !told.in_guest) {
            None => told,
            Some(reading) => DeviceUsage {
                utilization_percent: reading.utilization_percent,
                memory_used_bytes: reading.memory_used_bytes,
                memory_bytes: reading.memory_bytes.or(memory_bytes),
                temperature_celsius: reading.temperature_celsius,
                power_milliwatts: reading.power_milliwatts,
                age_ms,
                ..told
            },
        })
    };
    devices.iter().filter_map(usage).collect()
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{DeviceCapacity, ObjectId};

    use super::*;
    use crate::passthrough::Stage;

    const A: &str = "0000:41:00.0";
    const B: &str = "0000:42:00.0";
    const SOUND: &str = "0000:42:00.1";
    const NIC: &str = "0000:86:00.0";

    fn at(text: &str) -> Bdf {
        text.parse().expect("an address")
    }

    fn device(address: &str, class_code: u32, memory_bytes: u64) -> Device {
        Device {
            id: address.into(),
            address: address.into(),
            class_code,
            capacity: DeviceCapacity { memory_bytes, cores: 100 },
            ..Device::default()
        }
    }

    fn binding(address: &str, companion_of: Option<&str>) -> (Bdf, Binding) {
        let binding = Binding {
            address: at(address),
            pod: ObjectId(7),
            companion_of: companion_of.map(at),
            driver: None,
            driver_override: None,
            stage: Stage::Given,
            boot_id: "boot".into(),
            vf: None,
        };
        (at(address), binding)
    }

    /// What is told of two cards, what goes with one of them, and a NIC.
    fn check(readings: Option<&[CardReading]>, bindings: &[(Bdf, Binding)], expected: &str) {
        let devices = [
            device(A, 0x03_0200, 80 << 30),
            device(B, 0x12_0000, 0),
            device(SOUND, 0x03_0000, 0),
            device(NIC, 0x02_0000, 0),
        ];
        let mut known = KnownCards::default();
        known.note_reset(at(B), "flr", 9);
        let told =
            card_usage(&devices, readings.map(|all| (all, 5)), &bindings.iter().cloned().collect(), &known);
        let or = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        let line = |one: &DeviceUsage| {
            assert!(one.is_sound(), "{one:?}");
            format!(
                "{} {} {}% {}/{} {}C {}mW {}@{} {}",
                one.address,
                if one.in_guest {
                    format!("in guest {:?}", one.pod.map(|pod| pod.0))
                } else {
                    "host".to_owned()
                },
                or(one.utilization_percent.map(u64::from)),
                or(one.memory_used_bytes),
                or(one.memory_bytes.map(|bytes| bytes >> 30)),
                or(one.temperature_celsius.map(u64::from)),
                or(one.power_milliwatts),
                one.last_reset,
                one.last_reset_at_ms,
                one.age_ms,
            )
        };
        assert_eq!(told.iter().map(line).collect::<Vec<_>>().join("\n"), expected);
    }

    #[test]
    fn a_card_in_a_guest_is_said_to_be_there_and_not_idle() {
        let reading = CardReading {
            memory_bytes: Some(80 << 30),
            memory_used_bytes: Some(3),
            utilization_percent: Some(87),
            temperature_celsius: Some(61),
            power_milliwatts: Some(250_000),
            ..CardReading::of(at(A))
        };
        let host = "0000:41:00.0 host 87% 3/80 61C 250000mW @0 5";
        let rest = "0000:42:00.0 host ?% ?/? ?C ?mW flr@9 0\n0000:42:00.1 host ?% ?/? ?C ?mW @0 0";
        check(Some(std::slice::from_ref(&reading)), &[], &format!("{host}\n{rest}"));
        // Without a library nothing is known, which is not nothing.
        check(None, &[], &format!("0000:41:00.0 host ?% ?/80 ?C ?mW @0 0\n{rest}"));
        // What the library told before the card went to its guest is not told of it any more.
        let unbound = "0000:42:00.0 in guest Some(7) ?% ?/? ?C ?mW flr@9 0";
        let bindings = [binding(A, None), binding(B, None), binding(SOUND, Some(B))];
        let guest = format!("0000:41:00.0 in guest Some(7) ?% ?/80 ?C ?mW @0 0\n{unbound}");
        check(Some(&[reading]), &bindings, &guest);
    }
}
