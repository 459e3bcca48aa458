//! What DeviceClasses say beside what devices are: labels of nodes, models that pods choose, and which containers see what.
//!
//! All of it is data: another vendor's words need another class, and no other code. Needs [`crate::DEVICE_RULES_LEVEL`].
//!
//! Sources: ACK's labels of nodes with cards, HAMi's annotations of pods, EasyStack's rule for Kunlun cards, Ascend's `npu-core`.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{DEVICE_MEMORY_UNIT_BYTES, Device, NAME_LENGTH_MAX, StringMap};

/// Labels that a node has while it has cards of a class, by their keys; of several models those of the one with the most cards,
/// the first by name among equals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceNodeLabels {
    /// How many cards, as `aliyun.accelerator/nvidia_count`.
    #[serde(default)]
    pub count: Option<SmolStr>,
    /// Memory of each card, as `12209MiB`; none where it is not known.
    #[serde(default)]
    pub memory: Option<SmolStr>,
    /// The model's name, as `Tesla-M40`.
    #[serde(default)]
    pub model: Option<SmolStr>,
}

impl DeviceNodeLabels {
    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &SmolStr> {
        self.count.iter().chain(&self.memory).chain(&self.model)
    }

    /// The labels of a node with these cards of the class; none of one without any.
    #[must_use]
    pub fn of(&self, cards: &[&Device]) -> StringMap {
        let name = |card: &Device| model_label(card);
        let count = |model: &SmolStr| cards.iter().filter(|card| name(card) == *model).count();
        let names = cards.iter().map(|card| name(card));
        let Some(model) = names.min_by_key(|model| (std::cmp::Reverse(count(model)), model.clone())) else {
            return StringMap::new();
        };
        let of_model = cards.iter().filter(|card| name(card) == model);
        let bytes = of_model.map(|card| card.capacity.memory_bytes).min().unwrap_or_default();
        let memory = format!("{}MiB", bytes / DEVICE_MEMORY_UNIT_BYTES);
        let pair = |key: &Option<SmolStr>, value: SmolStr| key.clone().map(|key| (key, value));
        let count = pair(&self.count, SmolStr::new(cards.len().to_string()));
        let memory = pair(&self.memory, memory.into()).filter(|_| bytes > 0);
        count.into_iter().chain(memory).chain(pair(&self.model, model)).collect()
    }
}

/// A model as the value of a label: what may not stand there is `-`. Of one without a name its PCI ids.
fn model_label(card: &Device) -> SmolStr {
    let may_stand = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let text: String = card.model.chars().map(|c| if may_stand(c) { c } else { '-' }).collect();
    let cut = &text[..text.len().min(NAME_LENGTH_MAX)];
    match cut.trim_matches(|c: char| !c.is_ascii_alphanumeric()) {
        "" => SmolStr::new(format!("{:04x}-{:04x}", card.vendor, card.device)),
        name => SmolStr::new(name),
    }
}

/// Annotations by which a pod chooses its cards, by their keys. Each is a list with commas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceSelection {
    /// Only cards of whose model's name one of these words is a part, in whatever case, as `nvidia.com/use-gputype`.
    #[serde(default)]
    pub use_models: Option<SmolStr>,
    /// No cards of whose model's name one of these words is a part, as `nvidia.com/nouse-gputype`.
    #[serde(default)]
    pub avoid_models: Option<SmolStr>,
    /// Only cards with one of these ids, as `nvidia.com/use-gpuuuid`.
    #[serde(default)]
    pub use_ids: Option<SmolStr>,
    /// No cards with one of these ids, as `nvidia.com/nouse-gpuuuid`.
    #[serde(default)]
    pub avoid_ids: Option<SmolStr>,
}

impl DeviceSelection {
    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &SmolStr> {
        self.use_models.iter().chain(&self.avoid_models).chain(&self.use_ids).chain(&self.avoid_ids)
    }

    /// What a pod with these annotations chooses; `None` when it chooses nothing.
    #[must_use]
    pub fn choice(&self, annotations: &StringMap) -> Option<DeviceChoice> {
        let words = |key: &Option<SmolStr>| -> Vec<SmolStr> {
            let text = key.as_ref().and_then(|key| annotations.get(key)).map_or("", SmolStr::as_str);
            text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(SmolStr::new).collect()
        };
        let models = |key| words(key).iter().map(|word| word.to_uppercase().into()).collect();
        let choice = DeviceChoice {
            use_models: models(&self.use_models),
            avoid_models: models(&self.avoid_models),
            use_ids: words(&self.use_ids),
            avoid_ids: words(&self.avoid_ids),
        };
        (choice != DeviceChoice::default()).then_some(choice)
    }
}

/// Which cards a pod chooses. Models are in upper case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceChoice {
    use_models: Vec<SmolStr>,
    avoid_models: Vec<SmolStr>,
    use_ids: Vec<SmolStr>,
    avoid_ids: Vec<SmolStr>,
}

impl DeviceChoice {
    /// Whether a device is one of those. A partition is named by its own id or by its card's.
    #[must_use]
    pub fn allows(&self, device: &Device) -> bool {
        let model = device.model.to_uppercase();
        let is_model = |word: &SmolStr| model.contains(word.as_str());
        let card = device.parent.as_ref().filter(|_| device.partition.get().is_some());
        let is_id = |id: &SmolStr| *id == device.id || Some(id) == card;
        (self.use_models.is_empty() || self.use_models.iter().any(is_model))
            && !self.avoid_models.iter().any(is_model)
            && (self.use_ids.is_empty() || self.use_ids.iter().any(is_id))
            && !self.avoid_ids.iter().any(is_id)
    }
}

/// Which of a pod's cards of a class a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VisibilityRule {
    /// Those that it asked for itself.
    #[default]
    Own = 1,
    /// Those that it names in the class' variable, by number among the pod's: they are its own. Who names none, or `all`, sees
    /// those that nobody names.
    Named = 2,
}

/// Something of partitioned cards that is counted for a node, as `huawei.com/npu-core`: what whole cards have of it is
/// allocatable, what cards with partitions have is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceCount {
    /// Under which name.
    pub extended_resource_name: SmolStr,
    /// What of the models' capacity.
    pub counts: SmolStr,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceCapacity, DevicePartition, Rare};

    fn card(id: &str, model: &str, mib: u64) -> Device {
        let capacity = DeviceCapacity { memory_bytes: mib << 20, cores: 100 };
        let (vendor, device) = (0x10de, 0x20b0);
        Device { id: id.into(), model: model.into(), vendor, device, capacity, ..Device::default() }
    }

    #[test]
    fn labels_follow_the_cards() {
        let rule = DeviceNodeLabels {
            count: Some("count".into()),
            memory: Some("memory".into()),
            model: Some("name".into()),
        };
        let check = |cards: &[Device], expected: &[(&str, &str)]| {
            let labels = rule.of(&cards.iter().collect::<Vec<_>>());
            let shown: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(shown, expected);
        };
        check(&[], &[]);
        // The document's example.
        check(
            &[card("a", "Tesla M40", 12209)],
            &[("count", "1"), ("memory", "12209MiB"), ("name", "Tesla-M40")],
        );
        check(
            &[card("a", "T4", 15079), card("b", "A100", 40960), card("c", "A100", 40536)],
            &[("count", "3"), ("memory", "40536MiB"), ("name", "A100")],
        );
        check(&[card("a", "T4", 0), card("b", "A100", 0)], &[("count", "2"), ("name", "A100")]);
        check(&[card("a", " (?) ", 0)], &[("count", "1"), ("name", "10de-20b0")]);
        check(&[card("a", &"x".repeat(99), 0)], &[("count", "1"), ("name", &"x".repeat(63))]);
        let none = DeviceNodeLabels::default();
        assert!(none.of(&[&card("a", "T4", 1)]).is_empty());
    }

    #[test]
    fn pods_choose_models_and_cards() {
        let rule = DeviceSelection {
            use_models: Some("use".into()),
            avoid_models: Some("nouse".into()),
            use_ids: Some("useid".into()),
            avoid_ids: Some("nouseid".into()),
        };
        let cards = [
            card("GPU-1", "NVIDIA A100-SXM4", 1),
            card("GPU-2", "Tesla T4", 1),
            card("GPU-3", "Tesla V100", 1),
        ];
        let check = |says: &[(&str, &str)], expected: &[&str]| {
            let annotations = says.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            let choice = rule.choice(&annotations);
            assert_eq!(choice.is_none(), expected.len() == 3, "{says:?}");
            let allowed =
                cards.iter().filter(|card| choice.as_ref().is_none_or(|choice| choice.allows(card)));
            assert_eq!(allowed.map(|card| card.id.as_str()).collect::<Vec<_>>(), expected, "{says:?}");
        };
        check(&[], &["GPU-1", "GPU-2", "GPU-3"]);
        check(&[("use", " , ")], &["GPU-1", "GPU-2", "GPU-3"]);
        check(&[("use", "a100, v100")], &["GPU-1", "GPU-3"]);
        check(&[("nouse", "Tesla")], &["GPU-1"]);
        check(&[("use", "tesla"), ("nouse", "T4")], &["GPU-3"]);
        check(&[("useid", "GPU-2,GPU-9")], &["GPU-2"]);
        check(&[("nouseid", "GPU-2")], &["GPU-1", "GPU-3"]);
        check(&[("use", "H100")], &[]);
        let part = Device {
            id: "MIG-1".into(),
            parent: Some("GPU-1".into()),
            partition: Rare::some(DevicePartition { profile: "1g".into(), start: 0 }),
            ..card("", "A100", 1)
        };
        for (id, expected) in [("GPU-1", true), ("MIG-1", true), ("GPU-2", false)] {
            let annotations = [("useid".into(), id.into())].into_iter().collect();
            assert_eq!(
                rule.choice(&annotations).is_some_and(|choice| choice.allows(&part)),
                expected,
                "{id}"
            );
        }
    }
}
