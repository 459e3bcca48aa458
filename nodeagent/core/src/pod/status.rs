//! The status to report, and whether the control plane knows it.

use bulkhead_types::{PodAddresses, PodReport, PodStatus, PodUsage, Rare};
use smol_str::SmolStr;

use super::{Container, Phase, Pod, containers};
use crate::reason;

/// Least time between two reports of one pod, in milliseconds: a guest that changes its state all the time must not
/// fill the cluster's log. Ends of pods are not held back.
pub(crate) const POD_REPORT_INTERVAL_MS: u64 = 200;

/// What was reported of a pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Reporting {
    /// The last report that was sent in this session.
    sent: Option<PodReport>,
    sent_at_ms: u64,
    acknowledged: bool,
    /// An adopted guest first tells all that it knows; until then there is nothing true to report.
    hold_until_ms: u64,
}

impl Reporting {
    pub(super) fn hold_until(&mut self, until_ms: u64) {
        self.hold_until_ms = until_ms;
    }

    pub(super) fn gone_is_known(&self) -> bool {
        self.acknowledged && self.sent.as_ref().is_some_and(|report| report.gone)
    }
}

impl Pod {
    /// The status as it is now.
    pub(crate) fn current_status(&self) -> PodStatus {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        let policy = self.plan.restart_policy;
        let mut phase = containers::phase(&self.init_containers, &self.containers, policy);
        if phase.is_terminal() {
            // Not over before its guest is: a pod that is over holds nothing any more.
            phase = bulkhead_types::PodPhase::Running;
        }
        let serves = matches!(self.phase, Phase::Running { .. }) && self.without_room.is_none();
        let statuses = |list: &[Container]| list.iter().map(|c| c.status(serves)).collect::<Vec<_>>();
        PodStatus {
            phase,
            reason: match self.without_room {
                Some(_) => SmolStr::new_static(reason::DISK_PRESSURE),
                None => self.reason.clone(),
            },
            message: self.explanation(serves),
            ready: serves && self.is_ready(),
            started_at_ms: self.started_at_ms,
            sandbox_restarts: self.sandbox_restarts,
            init_containers: statuses(&self.init_containers),
            containers: statuses(&self.containers),
            addresses: Rare::from(self.addresses()),
            actual: self.actual_sizes(),
            ..PodStatus::default()
        }
    }

    /// Where it is reached, while it has an address.
    fn addresses(&self) -> Option<PodAddresses> {
        let address = self.address?;
        Some(PodAddresses { pod_ips: vec![address.into()], host_ip: self.host_ip })
    }

    /// Whether everything in it serves.
    fn is_ready(&self) -> bool {
        self.init_containers.iter().chain(&self.containers).all(Container::is_ready)
    }

    /// Its message or, when all is well but that its guest is about something or probes fail, that: the first of them.
    fn explanation(&self, guest_runs: bool) -> String {
        if let Some(disk) = &self.without_room {
            return format!(
                "the guest stands still: what it wrote to {disk} found no room on the node; it goes on once there is some"
            );
        }
        if !guest_runs || !self.message.is_empty() || !self.reason.is_empty() {
            return self.message.clone();
        }
        if !self.guest_waits_for.is_empty() {
            return self.guest_waits_for.clone();
        }
        let all = self.init_containers.iter().chain(&self.containers);
        all.filter_map(Container::complaint).next().unwrap_or_default()
    }

    /// Nothing is known of it that the control plane does not say itself.
    fn is_unreportable(&self) -> bool {
        let untold = matches!(self.phase, Phase::Booting(super::Boot { adopted: true, .. }));
        let unknown = matches!(self.desired, super::Desired::Unknown) && !self.process_may_exist();
        self.ended.is_none() && (untold || unknown)
    }

    fn differs_from_sent(&self) -> bool {
        match &self.report.sent {
            None => true,
            Some(sent) => sent.gone != self.gone || sent.status != self.current_status(),
        }
    }

    /// When a report of it is due because something changed, on the monotonic clock in milliseconds.
    pub(crate) fn report_due_ms(&self) -> Option<u64> {
        if self.is_unreportable() || !self.differs_from_sent() {
            return None;
        }
        let urgent = self.gone || self.ended.is_some() || self.report.sent.is_none();
        let calm = self.report.sent_at_ms.saturating_add(POD_REPORT_INTERVAL_MS);
        Some(if urgent { 0 } else { calm }.max(self.report.hold_until_ms))
    }

    /// Its part of a report, when it has one: changed and due, or sent and not acknowledged. `next_sequence` is
    /// called when the report is a new one.
    pub(crate) fn take_report(
        &mut self,
        now_ms: u64,
        next_sequence: impl FnOnce() -> u64,
    ) -> Option<PodReport> {
        if self.report_due_ms().is_some_and(|due| due <= now_ms) {
            let report = PodReport {
                pod: self.id,
                sequence: next_sequence(),
                status: self.current_status(),
                gone: self.gone,
            };
            let sent = Some(report.clone());
            self.report = Reporting { sent, sent_at_ms: now_ms, acknowledged: false, hold_until_ms: 0 };
            return Some(report);
        }
        if self.report.acknowledged { None } else { self.report.sent.clone() }
    }

    /// A report was acknowledged.
    pub(crate) fn acknowledge(&mut self, sequence: u64) {
        if self.report.sent.as_ref().is_some_and(|sent| sent.sequence == sequence) {
            self.report.acknowledged = true;
        }
    }

    /// A new session: everything is told again, with sequence numbers of that session.
    pub(crate) fn forget_reports(&mut self) {
        let hold_until_ms = self.report.hold_until_ms;
        self.report = Reporting { hold_until_ms, ..Reporting::default() };
    }

    /// What it used when it was measured last.
    pub(crate) fn usage(&self, now_ms: u64) -> Option<PodUsage> {
        let (measured_at_ms, usage) = self.usage.as_ref()?;
        Some(PodUsage { age_ms: now_ms.saturating_sub(*measured_at_ms), ..usage.clone() })
    }
}
