//! Which NICs policies may mean: those of a ConfigMap of the policy's namespace, else the product's.

use bulkhead_types::{CONFIG_MAP_SUPPORTED_NICS, Hex16, Kind, Name, SUPPORTED_NICS_DEFAULT};

use crate::State;

/// Vendor and device id of NICs that policies of a namespace may mean. Lines that are not two ids say nothing.
pub(crate) fn supported(state: &State, namespace: Option<&Name>) -> Vec<(u16, u16)> {
    let name = Name::new(CONFIG_MAP_SUPPORTED_NICS).ok();
    let id = name.and_then(|name| state.find(Kind::ConfigMap, namespace, &name));
    let Some(config_map) = id.and_then(|id| state.config_maps.get(id)) else {
        return SUPPORTED_NICS_DEFAULT.to_vec();
    };
    let ids = |line: &str| {
        let mut words = line.split_whitespace().map(|word| Hex16::try_from(word.to_owned()));
        Some((words.next()?.ok()?.0, words.next()?.ok()?.0))
    };
    config_map.data.values().filter_map(|line| ids(line)).collect()
}
