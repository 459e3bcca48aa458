//! Agents' reports: leases and usage are soft state, statuses become log entries.

use bulkhead_types::{
    AgentAck, AgentReport, Command, DEVICES_LEVEL, IMAGES_LEVEL, ITEMS_MAX, Kind, PARTITIONS_LEVEL,
    PCI_FACTS_LEVEL, POD_NETWORK_LEVEL, RESIZE_LEVEL, Rare, Rejection, RejectionCode, ResourceSlice, Stamped,
    VOLUMES_LEVEL,
};
use smol_str::SmolStr;

use super::leader::{Leadership, own_submission};
use super::proposals::Origin;
use super::reads::Reader;
use super::{Reply, Server, Ticket};
use crate::decide::{are_images_news, check_device_report, check_images, check_not_fenced};
use crate::reconcile::MetricAnswer;

impl Server {
    /// A report renews the node's lease, counted from when the agent sent it. The answer waits until this
    /// server is known to lead still: by a read round, or by the report's own entry being applied. Otherwise a
    /// deposed leader could go on renewing leases that the new one counts as run out.
    pub(super) fn handle_agent(&mut self, ticket: Ticket, report: AgentReport) {
        if let Some(refusal) = self.refuse_submission() {
            return self.reply(ticket, refusal);
        }
        if let Err(rejection) = self.check_session(&report) {
            return self.reply(ticket, Reply::Rejected(rejection));
        }
        let (now_ms, up_ms) = (self.leader_clock_ms(), self.up_at_most_ms());
        let lease_ms = self.config.reconcile.lease_ms;
        let Some(leader) = self.leader.as_mut().filter(|l| l.is_active()) else {
            return self.reply(ticket, Reply::NotLeader(None));
        };
        let AgentReport { node, incarnation, sent_at_ms, pods, usage, deleted_volumes, .. } = report;
        let AgentReport { devices, images, volume_results, device_usage, has_pci_facts, .. } = report;
        let state = self.machine.state();
        // Images are told again and again; only what is new of them goes into the log.
        let has_images = state.feature_level() >= IMAGES_LEVEL;
        let known = state.nodes().get(node);
        let images = images
            .get()
            .filter(|images| has_images && known.is_some_and(|node| are_images_news(node, images)));
        let images = images.cloned();
        // Before the cluster has the level for devices a node has none.
        let has_level = state.feature_level() >= DEVICES_LEVEL;
        let devices = devices.get().filter(|_| has_level).cloned();
        // Of partitions, modes and faults nothing is taken before their level; what was told by then is told again.
        let has_partitions = state.feature_level() >= PARTITIONS_LEVEL;
        let devices = devices.map(|report| if has_partitions { report } else { report.below_partitions() });
        // The same of what is told of PCI functions.
        let has_pci = state.feature_level() >= PCI_FACTS_LEVEL;
        let devices = devices.map(|report| if has_pci { report } else { report.below_pci_facts() });
        let lacks_pci = |slice: &ResourceSlice| {
            has_pci && has_pci_facts && slice.devices.iter().all(|device| device.pci.get().is_none())
        };
        let is_known = state.resource_slice_of(node).is_some_and(|slice| {
            let knows_modes = !has_partitions || slice.state.get().is_some();
            slice.incarnation == incarnation && knows_modes && !lacks_pci(slice)
        });
        let devices_unknown = has_level && devices.is_none() && !is_known;
        // What the log cannot hold yet is told again by the next session's agents.
        let mut pods = pods;
        if state.feature_level() < POD_NETWORK_LEVEL {
            pods.iter_mut().for_each(|report| report.status.addresses = Rare::NONE);
        }
        if state.feature_level() < RESIZE_LEVEL {
            pods.iter_mut().for_each(|report| report.status.actual = Rare::NONE);
        }
        leader.soft.heartbeat(node, now_ms, up_ms);
        leader.soft.set_usage(node, now_ms, usage);
        leader.soft.set_device_usage(node, now_ms, device_usage);
        let ack = AgentAck { sent_at_ms, lease_ms, devices_unknown };
        // Below that level nothing was wanted.
        let has_results = state.feature_level() >= VOLUMES_LEVEL && !volume_results.is_empty();
        let has_volumes = has_results || !deleted_volumes.is_empty();
        // A node that an entry under way calls unreachable, or fences, gets no lease before that entry has had its
        // effect: its heartbeat goes behind it, through the log.
        let has_news = !pods.is_empty() || has_volumes || devices.is_some() || images.is_some();
        if !has_news && !leader.being_lost.contains(&node) {
            return self.reads.ask(Reader::Heartbeat(ticket, ack));
        }
        let mut stamped = Stamped {
            actor: SmolStr::new(format!("agent:{node}")),
            ..own_submission("agents", now_ms, Command::ReportPods { node, incarnation, reports: pods })
        };
        if !deleted_volumes.is_empty() {
            // After the pods: it may be the last word about them that the claims wait for.
            stamped.commands.push(Command::ReportVolumes { node, incarnation, deleted: deleted_volumes });
        }
        if has_results {
            let results = volume_results;
            stamped.commands.push(Command::ReportVolumeTasks { node, incarnation, results });
        }
        if let Some(images) = images {
            stamped.commands.push(Command::ReportImages { node, incarnation, images });
        }
        if let Some(report) = devices {
            // Before the pods: that a device is gone is known before its pod ends of it.
            stamped.commands.insert(0, Command::ReportDevices { node, incarnation, report });
        }
        self.proposals.push_own(stamped, Origin::Agent(ticket, ack));
    }

    /// Notes what the metrics endpoint said. Who leads no more has no use for it.
    pub(super) fn handle_metrics(&mut self, answers: Vec<(String, MetricAnswer)>) {
        let now_ms = self.leader_clock_ms();
        if let Some(leader) = self.leader.as_mut().filter(|l| l.is_active()) {
            leader.soft.set_metrics(now_ms, answers);
        }
    }

    fn check_session(&self, report: &AgentReport) -> Result<(), Rejection> {
        let volumes = report.deleted_volumes.len().max(report.volume_results.len());
        let lengths = [report.pods.len(), report.usage.len(), volumes];
        if lengths.into_iter().any(|length| length > ITEMS_MAX) {
            let reason = format!("at most {ITEMS_MAX} pods, and as many volumes, are allowed in one report");
            return Err(Rejection::new(RejectionCode::Invalid, "report", reason));
        }
        let state = self.machine.state();
        let Some(node) = state.nodes().get(report.node) else {
            return Err(Rejection::new(
                RejectionCode::NotFound,
                format!("{} {}", Kind::Node, report.node),
                "does not exist",
            )
            .with_remedy("register again"));
        };
        if node.status.incarnation != report.incarnation {
            let reason = format!("is at incarnation {}, not {}", node.status.incarnation, report.incarnation);
            return Err(Rejection::new(
                RejectionCode::StaleIncarnation,
                format!("Node {}", node.meta.name),
                reason,
            )
            .with_remedy("register again, unless another agent runs under this name"));
        }
        if let Some(devices) = report.devices.get() {
            check_device_report(&node.meta.name, devices)?;
        }
        if let Some(images) = report.images.get() {
            check_images(&node.meta.name, images)?;
        }
        check_not_fenced(node)
    }

    /// When each node was last heard of, milliseconds since the epoch; on a leader only.
    #[must_use]
    pub fn soft_state(&self) -> Option<&crate::reconcile::SoftState> {
        self.leader.as_ref().filter(|l| Leadership::is_active(l)).map(|l| &l.soft)
    }
}
