//! A guest that boots: how long it may, and what is told of it meanwhile.
//!
//! What a boot takes depends on how the guest is run and on its size, and only a guest that gives no sign of life at all is worth
//! ending: whoever writes to its console has a deadline more, up to [`BOOT_DEADLINES_MAX`] of them. Meanwhile the pod says how long
//! it has booted, so that nobody takes it for lost.

use smol_str::SmolStr;

use super::{Env, Phase, Pod};
use crate::config::{BOOT_DEADLINES_MAX, BOOT_TOLD_MS, PIN_MS_PER_GIB};
use crate::{AgentConfig, reason};

/// Times on the monotonic clock, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Boot {
    since_ms: u64,
    /// How long it may be silent.
    patience_ms: u64,
    /// When it is ended if it gives no sign of life.
    pub(super) deadline_ms: u64,
    /// When the pod says the next time how long it has booted.
    pub(super) tell_at_ms: u64,
    /// It was found by this agent, and had spoken to another.
    pub(super) adopted: bool,
}

impl Boot {
    pub(super) fn begin(now_ms: u64, patience_ms: u64, adopted: bool) -> Self {
        let deadline_ms = now_ms.saturating_add(patience_ms);
        // What is true of an adopted guest is not known before it says so.
        let tell_at_ms = if adopted { u64::MAX } else { now_ms.saturating_add(BOOT_TOLD_MS) };
        Self { since_ms: now_ms, patience_ms, deadline_ms, tell_at_ms, adopted }
    }

    fn shows_life(&mut self, now_ms: u64) {
        let last_ms = self.since_ms.saturating_add(self.patience_ms.saturating_mul(BOOT_DEADLINES_MAX));
        let until_ms = now_ms.saturating_add(self.patience_ms).min(last_ms);
        self.deadline_ms = self.deadline_ms.max(until_ms);
    }
}

impl Pod {
    /// How long a guest of this pod may boot without a sign of life: one with devices has all of its memory pinned first, and all
    /// of its huge pages are cleared.
    pub(super) fn boot_patience_ms(&self, config: &AgentConfig) -> u64 {
        let has_devices = self.intent.as_ref().is_some_and(|intent| !intent.devices.is_empty());
        let pinned_gib = if has_devices { self.plan.request.memory_bytes.div_ceil(1 << 30) } else { 0 };
        let pages_gib = self.plan.request.huge_pages.total_bytes().div_ceil(1 << 30);
        let gib = pinned_gib.saturating_add(pages_gib);
        config.boot_deadline_ms.saturating_add(gib.saturating_mul(PIN_MS_PER_GIB))
    }

    /// The guest wrote to its console.
    pub(crate) fn guest_boots(&mut self, instance: u32, env: &Env<'_>) {
        if let Phase::Booting(boot) = &mut self.phase
            && instance == self.instance
        {
            boot.shows_life(env.now_ms);
        }
    }

    /// Says how long it has booted; each time after twice as long, because everything that is told is kept.
    pub(super) fn tell_of_boot(&mut self, mut boot: Boot, env: &Env<'_>) -> bool {
        let age_ms = env.now_ms.saturating_sub(boot.since_ms);
        boot.tell_at_ms = env.now_ms.saturating_add(age_ms.max(BOOT_TOLD_MS));
        let left_ms = boot.deadline_ms.saturating_sub(env.now_ms);
        self.phase = Phase::Booting(boot);
        self.reason = SmolStr::new_static(reason::GUEST_BOOTING);
        self.message = format!(
            "the guest has been booting for {} s; without a sign of life it is ended in {} s",
            age_ms / 1000,
            left_ms / 1000
        );
        true
    }

    /// How long the guest has been booting, in milliseconds.
    pub(super) fn boot_age_ms(&self, now_ms: u64) -> u64 {
        match &self.phase {
            Phase::Booting(boot) => now_ms.saturating_sub(boot.since_ms),
            _ => 0,
        }
    }

    /// The boot is over, one way or the other.
    pub(super) fn forget_boot(&mut self) {
        if self.reason == reason::GUEST_BOOTING {
            self.clear_reason();
        }
    }
}
