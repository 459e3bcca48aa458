//! How fast a pod's guest may send and receive on its node's network, as the pod's annotations say.
//!
//! Source: "Support traffic shaping" of "Network Plugins" in the Kubernetes documentation (the annotations), and
//! `pkg/util/bandwidth` of Kubernetes (their range).

use serde::{Deserialize, Serialize};

use crate::{StringMap, parse_units};

/// The annotation with what a pod may receive, in bits per second, as a quantity: `10M` (Kubernetes' name).
pub const ANNOTATION_INGRESS_BANDWIDTH: &str = "kubernetes.io/ingress-bandwidth";
/// The annotation with what a pod may send, in bits per second, as a quantity: `10M` (Kubernetes' name).
pub const ANNOTATION_EGRESS_BANDWIDTH: &str = "kubernetes.io/egress-bandwidth";
/// Least bits per second that a pod may be limited to (Kubernetes' bound).
pub const BANDWIDTH_MIN_BITS_PER_SECOND: u64 = 1_000;
/// Most bits per second that a pod may be limited to (Kubernetes' bound).
pub const BANDWIDTH_MAX_BITS_PER_SECOND: u64 = 1_000_000_000_000_000;

/// How fast a guest may send and receive; unset: as fast as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodBandwidth {
    /// What it may receive, in bits per second.
    pub ingress_bits_per_second: Option<u64>,
    /// What it may send, in bits per second.
    pub egress_bits_per_second: Option<u64>,
}

impl PodBandwidth {
    /// What annotations say; one that cannot be read says nothing, as those from before [`crate::BANDWIDTH_LEVEL`] may.
    /// `None` when nothing is limited.
    #[must_use]
    pub fn of(annotations: &StringMap) -> Option<Self> {
        let read = |key| bandwidth(annotations, key).ok().flatten();
        let found = Self {
            ingress_bits_per_second: read(ANNOTATION_INGRESS_BANDWIDTH),
            egress_bits_per_second: read(ANNOTATION_EGRESS_BANDWIDTH),
        };
        (found != Self::default()).then_some(found)
    }
}

/// What one of the annotations says, in bits per second; `None` without it.
///
/// # Errors
/// Why it cannot be read, with what would be acceptable.
pub fn bandwidth(annotations: &StringMap, key: &str) -> Result<Option<u64>, String> {
    let Some(text) = annotations.get(key) else { return Ok(None) };
    let bits = parse_units(text).map_err(|error| format!("{error}: write bits per second, such as 10M"))?;
    if (BANDWIDTH_MIN_BITS_PER_SECOND..=BANDWIDTH_MAX_BITS_PER_SECOND).contains(&bits) {
        return Ok(Some(bits));
    }
    Err(format!("{text:?} is out of range: write bits per second from 1k to 1P, such as 10M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<u64, &str>) {
        let annotations: StringMap =
            [(ANNOTATION_EGRESS_BANDWIDTH.into(), text.into())].into_iter().collect();
        let found = bandwidth(&annotations, ANNOTATION_EGRESS_BANDWIDTH);
        assert_eq!(found, expected.map(Some).map_err(str::to_owned), "{text}");
        assert_eq!(bandwidth(&annotations, ANNOTATION_INGRESS_BANDWIDTH), Ok(None));
        let both = PodBandwidth { egress_bits_per_second: expected.ok(), ..PodBandwidth::default() };
        assert_eq!(PodBandwidth::of(&annotations), expected.is_ok().then_some(both));
    }

    #[test]
    fn amounts_are_bits_per_second_within_bounds() {
        check("10M", Ok(10_000_000));
        check("1k", Ok(1_000));
        check("1Mi", Ok(1 << 20));
        check("1P", Ok(BANDWIDTH_MAX_BITS_PER_SECOND));
        let range = |text: &str| {
            let reason =
                format!("{text:?} is out of range: write bits per second from 1k to 1P, such as 10M");
            check(text, Err(&reason));
        };
        ["0", "999", "1Pi", "2P"].into_iter().for_each(range);
        check(
            "-1M",
            Err("\"-1M\" is negative: a quantity must be zero or more: write bits per second, such as 10M"),
        );
        check(
            "10Mbit",
            Err("\"10Mbit\" is not a quantity: expected a number with an optional suffix \
                 (m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei): write bits per second, such as 10M"),
        );
        assert_eq!(PodBandwidth::of(&StringMap::new()), None);
    }
}
