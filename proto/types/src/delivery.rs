//! Progressive delivery: a Deployment's way to a new template in steps, and where it stands on it.
//!
//! Names are those of Argo Rollouts (`canary`, `blueGreen`) and OpenKruise (`partition`, batches).

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{IntOrPercent, ObjectId};

/// Most steps of a canary.
pub const CANARY_STEPS_MAX: usize = 64;
/// Highest `failureLimit`.
pub const FAILURE_LIMIT_MAX: u32 = 100;
/// `scaleDownDelaySeconds` when not given, in milliseconds.
pub const SCALE_DOWN_DELAY_MS_DEFAULT: u64 = 30_000;
/// Why a delivery ended: somebody ended it.
pub const REASON_ABORTED: &str = "RolloutAborted";
/// Why a delivery ended: more new pods failed than `failureLimit` tolerates.
pub const REASON_FAILURE_LIMIT: &str = "FailureLimitExceeded";

/// One step of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CanaryStep {
    /// So many pods are of the new template; done when they are available.
    SetReplicas {
        /// A number, or a share of the wanted replicas, rounded up.
        replicas: IntOrPercent,
    },
    /// Nothing moves.
    Pause {
        /// For how long, in milliseconds of log time; until somebody promotes when unset.
        duration_ms: Option<u64>,
    },
}

/// How long a batch stands before the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BatchPause {
    /// In milliseconds of log time; until somebody promotes when unset.
    pub duration_ms: Option<u64>,
}

/// How a Deployment's pods go over to a new template, beyond the bounds of its strategy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Delivery {
    /// A rolling update that stops early, or goes batch by batch.
    Batches {
        /// How many pods keep the old template; a share rounds up.
        partition: IntOrPercent,
        /// New pods of one batch; a share rounds up, and is at least one. All at once when unset.
        size: Option<IntOrPercent>,
        /// What is between two batches, beside that the first one must be available.
        pause: Option<BatchPause>,
    },
    /// Step by step, back to the stable template when too many new pods fail.
    Canary {
        /// At most [`CANARY_STEPS_MAX`]; after the last one all pods are of the new template.
        steps: Vec<CanaryStep>,
        /// How many new pods may fail, at most [`FAILURE_LIMIT_MAX`].
        failure_limit: u32,
    },
    /// A whole new set beside the old one, and one switch.
    BlueGreen {
        /// How long the new set must have been available before the switch, in milliseconds of log time; until
        /// somebody promotes when unset.
        auto_promotion_ms: Option<u64>,
        /// How long the old set stays after the switch, in milliseconds of log time.
        scale_down_delay_ms: u64,
        /// New pods before the promotion; all when unset.
        preview_replicas: Option<u32>,
    },
}

/// One step of any delivery, for a wanted number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryStep {
    /// So many new pods; done when they are available.
    Size(u32),
    /// So many milliseconds, or until somebody promotes.
    Pause(Option<u64>),
}

impl Delivery {
    /// How many new pods there are in the end, of `desired` wanted ones.
    #[must_use]
    pub fn goal(&self, desired: u32) -> u32 {
        match self {
            Self::Batches { partition, .. } => desired.saturating_sub(partition.resolve(desired, true)),
            Self::Canary { .. } | Self::BlueGreen { .. } => desired,
        }
    }

    /// How many steps there are.
    #[must_use]
    pub fn steps(&self, desired: u32) -> u32 {
        match self {
            Self::Batches { size, pause, .. } => {
                let batches = size.map_or(0, |size| self.goal(desired).div_ceil(batch(size, desired)));
                if pause.is_some() { (2 * batches).saturating_sub(1) } else { batches }
            }
            Self::Canary { steps, .. } => u32::try_from(steps.len()).unwrap_or(u32::MAX),
            Self::BlueGreen { .. } => 3,
        }
    }

    /// The step of that index, from 0; `None` after the last one.
    #[must_use]
    pub fn step(&self, index: u32, desired: u32) -> Option<DeliveryStep> {
        if index >= self.steps(desired) {
            return None;
        }
        Some(match self {
            Self::Batches { size, pause, .. } => {
                let number = if pause.is_some() { index / 2 } else { index };
                match (pause, size) {
                    (Some(pause), _) if index % 2 == 1 => DeliveryStep::Pause(pause.duration_ms),
                    (_, Some(size)) => {
                        let upto = u64::from(batch(*size, desired)) * (u64::from(number) + 1);
                        let upto = u32::try_from(upto).unwrap_or(u32::MAX);
                        DeliveryStep::Size(upto.min(self.goal(desired)))
                    }
                    (_, None) => return None,
                }
            }
            Self::Canary { steps, .. } => match steps.get(index as usize)? {
                CanaryStep::SetReplicas { replicas } => {
                    DeliveryStep::Size(replicas.resolve(desired, true).min(desired))
                }
                CanaryStep::Pause { duration_ms } => DeliveryStep::Pause(*duration_ms),
            },
            Self::BlueGreen { auto_promotion_ms, preview_replicas, .. } => match index {
                0 => DeliveryStep::Size(preview_replicas.unwrap_or(desired).min(desired)),
                1 => DeliveryStep::Pause(*auto_promotion_ms),
                _ => DeliveryStep::Size(desired),
            },
        })
    }

    /// How many new pods are allowed at that step.
    #[must_use]
    pub fn new_max(&self, index: u32, desired: u32) -> u32 {
        if index >= self.steps(desired) {
            return self.goal(desired);
        }
        let sizes = (0..=index).rev().filter_map(|at| match self.step(at, desired) {
            Some(DeliveryStep::Size(size)) => Some(size),
            _ => None,
        });
        sizes.take(1).next().unwrap_or(0)
    }

    /// The step that follows a promotion of everything that is left: no pause comes after it.
    #[must_use]
    pub fn last_step(&self, desired: u32) -> u32 {
        match self {
            // The new set must be whole before the switch.
            Self::BlueGreen { .. } => 2,
            _ => self.steps(desired),
        }
    }

    /// How many failed new pods are tolerated; `None` when they are not counted.
    #[must_use]
    pub fn failure_limit(&self) -> Option<u32> {
        match self {
            Self::Canary { failure_limit, .. } => Some(*failure_limit),
            _ => None,
        }
    }
}

fn batch(size: IntOrPercent, desired: u32) -> u32 {
    size.resolve(desired, true).max(1)
}

/// Where a delivery stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeliveryStatus {
    /// The ReplicaSet that was delivered whole the last time; empty before the first one was.
    pub stable: SmolStr,
    /// The ReplicaSet that the steps are about; the stable one when nothing is under way.
    pub update: SmolStr,
    /// The present step, from 0; the number of steps after the last one.
    pub step: u32,
    /// Log time of its begin, milliseconds since the epoch.
    pub step_started_ms: u64,
    /// Why it was ended; empty when it was not.
    pub abort_reason: SmolStr,
    /// New pods that failed, each once, in order of creation; at most one more than is tolerated.
    pub failed_pods: Vec<ObjectId>,
}

impl DeliveryStatus {
    /// Whether a new template is on its way by steps, or was when it was ended.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        !self.stable.is_empty() && self.stable != self.update
    }

    /// Whether it was ended, and goes back, or went back, to the stable template.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        !self.abort_reason.is_empty()
    }

    /// The ReplicaSet that counts as the active one: with BlueGreen the old one up to the switch, else the one that
    /// the last pods go to.
    #[must_use]
    pub fn active(&self, delivery: &Delivery, desired: u32) -> &SmolStr {
        let switched = self.step >= delivery.steps(desired) && !self.is_aborted();
        if self.is_under_way() && !switched { &self.stable } else { &self.update }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(delivery: &Delivery, desired: u32, expected: &str) {
        let steps: Vec<String> = (0..delivery.steps(desired) + 1)
            .map(|index| {
                let max = delivery.new_max(index, desired);
                match delivery.step(index, desired) {
                    Some(DeliveryStep::Size(size)) => format!("size {size} max {max}"),
                    Some(DeliveryStep::Pause(Some(ms))) => format!("pause {ms} max {max}"),
                    Some(DeliveryStep::Pause(None)) => format!("pause max {max}"),
                    None => format!("end max {max}"),
                }
            })
            .collect();
        assert_eq!(steps.join(", "), expected, "{delivery:?} of {desired}");
    }

    #[test]
    fn deliveries_are_steps() {
        use IntOrPercent::{Int, Percent};
        let steps = vec![
            CanaryStep::Pause { duration_ms: Some(5) },
            CanaryStep::SetReplicas { replicas: Percent(10) },
            CanaryStep::Pause { duration_ms: None },
            CanaryStep::SetReplicas { replicas: Int(50) },
        ];
        let canary = Delivery::Canary { steps, failure_limit: 0 };
        check(&canary, 15, "pause 5 max 0, size 2 max 2, pause max 2, size 15 max 15, end max 15");
        check(&canary, 0, "pause 5 max 0, size 0 max 0, pause max 0, size 0 max 0, end max 0");
        let batches = |partition, size, pause| Delivery::Batches { partition, size, pause };
        check(&batches(Percent(40), None, None), 9, "end max 5");
        check(&batches(Int(20), None, None), 9, "end max 0");
        check(&batches(Int(1), Some(Percent(40)), None), 9, "size 4 max 4, size 8 max 8, end max 8");
        let pause = Some(BatchPause { duration_ms: None });
        check(&batches(Int(0), Some(Int(2)), pause), 3, "size 2 max 2, pause max 2, size 3 max 3, end max 3");
        check(&batches(Int(0), Some(Int(2)), pause), 0, "end max 0");
        let blue_green = |preview_replicas| Delivery::BlueGreen {
            auto_promotion_ms: None,
            scale_down_delay_ms: 1,
            preview_replicas,
        };
        check(&blue_green(None), 4, "size 4 max 4, pause max 4, size 4 max 4, end max 4");
        check(&blue_green(Some(1)), 4, "size 1 max 1, pause max 1, size 4 max 4, end max 4");
    }
}
