//! What the start of a guest spent its time with. Bookkeeping of times that others read from their clocks; nothing is decided by it.
//!
//! ```text
//!  told of the pod ─ image ─ room ─┬─ disks ───┬─ qemu ─ firmware ─ kernel ─ guest ─ container ─ output
//!                                  └─ devices ─┘         └── from what the guest says of its clock ──┘
//! ```
//!
//! Times are milliseconds since the agent was told of the pod, by the agent's clock. What a guest says of its own clock is hostile:
//! it can move the borders between firmware, kernel and guest, within the time that the agent saw pass, and nothing else.

use serde::{Deserialize, Serialize};

/// A step of a start, in the order in which steps end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartPhase {
    /// The images of all containers, fetched or found.
    Image,
    /// Waiting for room on the node, for the lease or for a volume that another guest has.
    Room,
    /// Devices of the host, bound and attached; only for pods that have some.
    Devices,
    /// QEMU with the state of a template, and the guest made one of its own; only for guests that are copies of one.
    Restore,
    /// The configuration, and the files of all disks. For a guest that was booted before also adding them to it.
    Disks,
    /// From the order to run QEMU to its first word on the control socket.
    Qemu,
    /// From there to the first instruction of the kernel, by the guest's clock. Nothing in guests that do not tell their clock.
    Firmware,
    /// From there to the first instruction of the guest's init.
    Kernel,
    /// From there to the guest's first word to the agent.
    Guest,
    /// From there to the first container that runs; init containers count.
    Container,
    /// From there to the first byte of output.
    Output,
}

impl StartPhase {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Image,
        Self::Room,
        Self::Devices,
        Self::Restore,
        Self::Disks,
        Self::Qemu,
        Self::Firmware,
        Self::Kernel,
        Self::Guest,
        Self::Container,
        Self::Output,
    ];

    /// Its name for people and in traces.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Room => "room",
            Self::Devices => "devices",
            Self::Restore => "restore",
            Self::Disks => "disks",
            Self::Qemu => "qemu",
            Self::Firmware => "firmware",
            Self::Kernel => "kernel",
            Self::Guest => "guest",
            Self::Container => "container",
            Self::Output => "output",
        }
    }
}

/// One step: when it began and ended, in milliseconds since the agent was told of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Which step.
    pub phase: StartPhase,
    /// When it began.
    pub begin_ms: u32,
    /// When it ended; `None` while it goes on.
    pub end_ms: Option<u32>,
}

/// The steps of one start of a pod's guest. A guest that is started again has new ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartPhases {
    /// When the agent was told of the pod, milliseconds since the epoch.
    pub told_at_ms: u64,
    /// The same on the agent's monotonic clock; of no use to another boot of the machine.
    told_boot_ms: u64,
    /// The guest was taken from the pool of guests that were booted in advance.
    #[serde(default)]
    pub from_pool: bool,
    /// The guest is a copy of one that was booted before.
    #[serde(default)]
    pub from_template: bool,
    /// Why the guest was booted for the pod although there is a pool, or templates; nothing where there is neither.
    #[serde(default)]
    pub booted_because: Option<String>,
    /// The steps that began, in the order in which they did.
    times: Vec<PhaseTime>,
}

impl StartPhases {
    /// A start of which the agent was told now: the monotonic clock, and milliseconds since the epoch.
    #[must_use]
    pub fn new(now_ms: u64, unix_ms: u64) -> Self {
        let times = Vec::with_capacity(StartPhase::ALL.len());
        let (from_pool, from_template, booted_because) = (false, false, None);
        Self { told_at_ms: unix_ms, told_boot_ms: now_ms, from_pool, from_template, booted_because, times }
    }

    /// A step begins. One that had begun goes on.
    pub fn begin(&mut self, phase: StartPhase, now_ms: u64) {
        if self.find(phase).is_none() {
            let begin_ms = self.since(now_ms);
            self.times.push(PhaseTime { phase, begin_ms, end_ms: None });
        }
    }

    /// A step ends, and the next one, if there is one, begins. The answer is what ended: nothing, if it never began or had ended.
    pub fn end(&mut self, phase: StartPhase, next: Option<StartPhase>, now_ms: u64) -> Option<PhaseTime> {
        let end_ms = self.since(now_ms);
        let time = self.times.iter_mut().find(|time| time.phase == phase && time.end_ms.is_none())?;
        time.end_ms = Some(end_ms.max(time.begin_ms));
        let ended = *time;
        if let Some(next) = next {
            self.begin(next, now_ms);
        }
        Some(ended)
    }

    /// The guest said its first word: that it took `boot_ms` from the kernel's start to its init, and that its clock shows
    /// `uptime_ms` now (0: it does not say). The answer is what has ended. A word after the first changes nothing.
    pub fn guest_spoke(&mut self, boot_ms: u64, uptime_ms: u64, now_ms: u64) -> Vec<PhaseTime> {
        let mut ended: Vec<PhaseTime> =
            self.end(StartPhase::Qemu, Some(StartPhase::Firmware), now_ms).into_iter().collect();
        let now = self.since(now_ms);
        let Some(from) = self.find(StartPhase::Firmware).filter(|time| time.end_ms.is_none()) else {
            return ended;
        };
        let from = from.begin_ms;
        let ago = |ms: u64| now.saturating_sub(u32::try_from(ms).unwrap_or(u32::MAX)).clamp(from, now);
        let (kernel, init) = match uptime_ms {
            0 => (from, from.saturating_add(u32::try_from(boot_ms).unwrap_or(u32::MAX)).min(now)),
            _ => (ago(uptime_ms), ago(uptime_ms.saturating_sub(boot_ms))),
        };
        self.times.retain(|time| time.phase != StartPhase::Firmware);
        let borders = [from, kernel, init, now];
        let phases = [StartPhase::Firmware, StartPhase::Kernel, StartPhase::Guest];
        for (phase, border) in phases.into_iter().zip(borders.windows(2)) {
            let time = PhaseTime { phase, begin_ms: border[0], end_ms: Some(border[1]) };
            self.times.push(time);
            ended.push(time);
        }
        self.begin(StartPhase::Container, now_ms);
        ended
    }

    /// The steps that have begun, in the order in which they did.
    #[must_use]
    pub fn times(&self) -> &[PhaseTime] {
        &self.times
    }

    /// Whether a container has run: the start is over, whether it says anything or not.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.find(StartPhase::Output).is_some()
    }

    fn find(&self, phase: StartPhase) -> Option<PhaseTime> {
        self.times.iter().find(|time| time.phase == phase).copied()
    }

    fn since(&self, now_ms: u64) -> u32 {
        u32::try_from(now_ms.saturating_sub(self.told_boot_ms)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A start up to a QEMU that answers at 140 ms, told at 1000.
    fn up_to_qemu() -> StartPhases {
        let mut phases = StartPhases::new(1_000, 50_000);
        phases.begin(StartPhase::Image, 1_000);
        phases.end(StartPhase::Image, Some(StartPhase::Room), 1_010);
        phases.end(StartPhase::Room, Some(StartPhase::Disks), 1_011);
        phases.begin(StartPhase::Devices, 1_012);
        phases.end(StartPhase::Devices, None, 1_030);
        phases.end(StartPhase::Disks, None, 1_040);
        phases.begin(StartPhase::Qemu, 1_041);
        phases.end(StartPhase::Qemu, Some(StartPhase::Firmware), 1_140);
        phases
    }

    /// Names with beginnings and ends, in order.
    fn shown(times: &[PhaseTime]) -> String {
        let one = |time: &PhaseTime| {
            let end = time.end_ms.map_or_else(|| "…".to_owned(), |end| end.to_string());
            format!("{} {}-{end}", time.phase.name(), time.begin_ms)
        };
        times.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_start_is_told_step_by_step() {
        let mut phases = up_to_qemu();
        let ended = phases.guest_spoke(800, 900, 2_200);
        assert_eq!(shown(&ended), "firmware 140-300, kernel 300-1100, guest 1100-1200");
        assert!(!phases.is_over());
        let ran = phases.end(StartPhase::Container, Some(StartPhase::Output), 2_260);
        assert_eq!(shown(&ran.into_iter().collect::<Vec<_>>()), "container 1200-1260");
        assert!(phases.is_over());
        phases.end(StartPhase::Output, None, 2_261);
        assert_eq!(
            shown(phases.times()),
            "image 0-10, room 10-11, disks 11-40, devices 12-30, qemu 41-140, firmware 140-300, kernel 300-1100, \
             guest 1100-1200, container 1200-1260, output 1260-1261"
        );
        assert_eq!(phases.end(StartPhase::Output, None, 9_000), None, "the first byte counts");
        let kept = serde_json::to_string(&phases).expect("JSON");
        assert_eq!(serde_json::from_str::<StartPhases>(&kept).expect("the same"), phases);
    }

    #[test]
    fn a_guest_moves_nothing_but_borders_within_the_time_that_passed() {
        let check = |boot_ms, uptime_ms, expected: &str| {
            let mut phases = up_to_qemu();
            assert_eq!(shown(&phases.guest_spoke(boot_ms, uptime_ms, 2_200)), expected);
            let before = phases.clone();
            assert_eq!(phases.guest_spoke(1, 1, 3_000), vec![], "the first word counts");
            assert_eq!(phases, before);
        };
        check(u64::MAX, u64::MAX, "firmware 140-140, kernel 140-1200, guest 1200-1200");
        check(u64::MAX, 1, "firmware 140-1199, kernel 1199-1200, guest 1200-1200");
        check(0, u64::MAX, "firmware 140-140, kernel 140-140, guest 140-1200");
        // An older guest does not tell its clock.
        check(800, 0, "firmware 140-140, kernel 140-940, guest 940-1200");
        check(u64::MAX, 0, "firmware 140-140, kernel 140-1200, guest 1200-1200");
    }

    #[test]
    fn what_never_began_does_not_end() {
        let mut phases = StartPhases::new(1_000, 50_000);
        assert_eq!(phases.end(StartPhase::Qemu, Some(StartPhase::Firmware), 1_001), None);
        assert_eq!(phases.guest_spoke(1, 2, 1_002), vec![]);
        assert_eq!(phases.times(), []);
    }
}
