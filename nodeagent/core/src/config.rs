//! What an operator can set, with its defaults.

use std::net::IpAddr;

use bulkhead_types::Resources;
use smol_str::SmolStr;

use crate::network::PodRange;
use crate::qemu::Accel;

/// First wait before a guest is started again, in milliseconds (Kubernetes' crash-loop back-off).
pub const BACKOFF_BASE_MS: u64 = 10_000;
/// Longest wait before a guest is started again, in milliseconds (Kubernetes' crash-loop back-off).
pub const BACKOFF_MAX_MS: u64 = 300_000;
/// So many questions in a row that a guest, or its QEMU, does not answer make it silent.
pub const SILENT_QUESTIONS: u32 = 6;
/// The longest boot, in boot deadlines: a guest that goes on writing to its console is given so much in all.
pub const BOOT_DEADLINES_MAX: u64 = 5;
/// For each GiB of a guest whose memory is pinned at its start, because it has devices, in milliseconds beyond the boot deadline.
pub const PIN_MS_PER_GIB: u64 = 1_000;
/// When a boot is told of first, in milliseconds after the start; then each time that it has taken twice as long.
pub const BOOT_TOLD_MS: u64 = 10_000;
/// How long a guest may take from the start of its process to its first word, in milliseconds, when nobody says how it is run.
pub const BOOT_DEADLINE_MS: u64 = Deadlines::EMULATED.boot_ms;

/// How long a guest may be silent, by how it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the start of its process, or its last output, to its first word, in milliseconds.
    pub boot_ms: u64,
    /// Without an answer once it has spoken, in milliseconds.
    pub silence_ms: u64,
}

impl Deadlines {
    /// KVM runs a guest up to its first word in about a second.
    pub const KVM: Self = Self { boot_ms: 60_000, silence_ms: 60_000 };
    /// Emulated guests need 3 s alone, and many times that when many boot at once.
    pub const EMULATED: Self = Self { boot_ms: 120_000, silence_ms: 300_000 };

    /// Those of guests that are run like this.
    #[must_use]
    pub fn of(accel: Accel) -> Self {
        match accel {
            Accel::Kvm => Self::KVM,
            Accel::Tcg { .. } => Self::EMULATED,
        }
    }
}
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
    /// From the start of a guest's process, or its last output, to its first word, in milliseconds.
    pub boot_deadline_ms: u64,
    /// How long a guest that spoke, or its QEMU, may answer nothing, in milliseconds: who asks counts it, this says it.
    pub silence_ms: u64,
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
            silence_ms: Deadlines::EMULATED.silence_ms,
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
