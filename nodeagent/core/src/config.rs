//! What an operator can set, with its defaults.

use std::net::IpAddr;

use bulkhead_types::Resources;
use smol_str::SmolStr;

use crate::network::PodRange;

/// First wait before a guest is started again, in milliseconds (Kubernetes' crash-loop back-off).
pub const BACKOFF_BASE_MS: u64 = 10_000;
/// Longest wait before a guest is started again, in milliseconds (Kubernetes' crash-loop back-off).
pub const BACKOFF_MAX_MS: u64 = 300_000;
/// How long a guest may take from the start of its process to its first word, in milliseconds. Emulated guests need
/// 3 s alone and several times that when many boot at once.
pub const BOOT_DEADLINE_MS: u64 = 120_000;
/// What a guest may take beyond its pod's grace before it is killed, in milliseconds.
pub const STOP_MARGIN_MS: u64 = 5_000;
/// How long a guest that said that everything in it ended may take to power off, in milliseconds.
pub const POWER_OFF_DEADLINE_MS: u64 = 15_000;
/// After this time without an answer a kill or a clean-up is asked for again, in milliseconds.
pub const RETRY_MS: u64 = 10_000;

/// The configuration of an [`crate::Agent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// The node's name, for notes.
    pub node_name: SmolStr,
    /// What guests may use together.
    pub allocatable: Resources,
    /// Most guests at a time.
    pub pods_max: u32,
    /// First wait before a guest is started again, in milliseconds.
    pub backoff_base_ms: u64,
    /// Longest wait before a guest is started again, in milliseconds.
    pub backoff_max_ms: u64,
    /// From the start of a guest's process to its first word, in milliseconds.
    pub boot_deadline_ms: u64,
    /// Beyond the pod's grace until a guest is killed, in milliseconds.
    pub stop_margin_ms: u64,
    /// From "everything ended" to the end of the guest's process, in milliseconds.
    pub power_off_deadline_ms: u64,
    /// Until a kill or a clean-up is asked for again, in milliseconds.
    pub retry_ms: u64,
    /// The addresses of guests; unset: guests have no network.
    pub pod_range: Option<PodRange>,
    /// The node's own address, which pods are told of.
    pub host_ip: Option<IpAddr>,
}

impl AgentConfig {
    /// The defaults for a node.
    #[must_use]
    pub fn new(node_name: impl Into<SmolStr>, allocatable: Resources, pods_max: u32) -> Self {
        Self {
            node_name: node_name.into(),
            allocatable,
            pods_max,
            backoff_base_ms: BACKOFF_BASE_MS,
            backoff_max_ms: BACKOFF_MAX_MS,
            boot_deadline_ms: BOOT_DEADLINE_MS,
            stop_margin_ms: STOP_MARGIN_MS,
            power_off_deadline_ms: POWER_OFF_DEADLINE_MS,
            retry_ms: RETRY_MS,
            pod_range: None,
            host_ip: None,
        }
    }

    /// The wait before attempt `failures + 1`: doubles with every failure in a row, from base to max.
    #[must_use]
    pub fn backoff_ms(&self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(32);
        self.backoff_base_ms.saturating_mul(1 << doublings).min(self.backoff_max_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let config = AgentConfig::new("n", Resources::ZERO, 1);
        let waits: Vec<u64> = (1..8).map(|n| config.backoff_ms(n) / 1000).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(config.backoff_ms(u32::MAX), BACKOFF_MAX_MS);
    }
}
