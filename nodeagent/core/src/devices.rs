//! What the control plane is told of the machine's devices: everything at the beginning of a session, then what changes.
//!
//! ```text
//!  host: Input::Devices ─► damping ─► present ── differs from told ──► report (one under way) ── acknowledged ──► told
//!                                                                        └── never answered ──► told = nothing: everything again
//! ```

use std::collections::VecDeque;

use bulkhead_types::{DEVICES_MAX, Device, DeviceFault, DeviceReport, FAULTS_PER_REPORT_MAX, GpuIntent};
use smol_str::SmolStr;

use crate::device_damping::{DeviceDamping, Devices};

/// What there is, or what is known of it.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    devices: Devices,
    gpu_mode: Option<SmolStr>,
}

/// A report that is under way.
#[derive(Clone, Debug)]
struct Sent {
    at_ms: u64,
    view: View,
    faults: usize,
    resets: usize,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceNews {
    /// What the host said last, as far as it may be told; `None` before it said anything: then nobody is told anything.
    present: Option<View>,
    /// What the control plane knows in this session; `None` before its first answer.
    told: Option<View>,
    /// What is under way.
    sent: Option<Sent>,
    sequence: u64,
    /// What happened and was not acknowledged yet, oldest first.
    faults: VecDeque<DeviceFault>,
    resets: VecDeque<SmolStr>,
    /// The mode that is wanted.
    wanted: Option<GpuIntent>,
    /// What may be told when.
    damping: DeviceDamping,
}

impl DeviceNews {
    /// Takes over what the host found. More devices than the control plane keeps are left out, those with the last ids.
    pub(crate) fn set(&mut self, now_ms: u64, devices: Vec<Device>) {
        let all = devices.into_iter().map(|device| (device.id.clone(), device));
        let devices = all.collect::<Devices>().into_iter().take(DEVICES_MAX).collect();
        let present = self.present.get_or_insert_default();
        present.devices = self.damping.take(now_ms, &present.devices, devices);
    }

    /// Time passes: what waited may be told.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        let Some(present) = &mut self.present else { return };
        if let Some(devices) = self.damping.release(now_ms, &present.devices) {
            present.devices = devices;
        }
    }

    /// When [`Self::tick`] must be called.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.damping.due_ms()
    }

    /// Whether anything is told of PCI functions that older servers do not know.
    pub(crate) fn has_pci_facts(&self) -> bool {
        let mut devices = self.present.iter().flat_map(|present| present.devices.values());
        devices.any(|device| device.pci.get().is_some())
    }

    /// The cards are in a mode, with these devices or those that there were.
    pub(crate) fn set_mode(&mut self, now_ms: u64, mode: SmolStr, devices: Option<Vec<Device>>) {
        if let Some(devices) = devices {
            self.set(now_ms, devices);
        }
        // Before the host was looked at, what it has in that mode is not known.
        if let Some(present) = &mut self.present {
            present.gpu_mode = Some(mode);
        }
    }

    /// Notes a fault; of more than a report takes the oldest is left out.
    pub(crate) fn fault(&mut self, fault: DeviceFault) {
        push(&mut self.faults, fault, FAULTS_PER_REPORT_MAX, self.sent.as_mut().map(|sent| &mut sent.faults));
    }

    /// Notes that a device was reset.
    pub(crate) fn reset(&mut self, device: SmolStr) {
        push(&mut self.resets, device, DEVICES_MAX, self.sent.as_mut().map(|sent| &mut sent.resets));
    }

    /// Takes over which mode is wanted. Tells what is to be done, when that is new.
    pub(crate) fn want(&mut self, gpu: Option<&GpuIntent>) -> Option<GpuIntent> {
        let is_new = self.wanted.as_ref() != gpu;
        self.wanted = gpu.cloned();
        gpu.filter(|_| is_new).cloned()
    }

    /// A new session: nothing is known there yet, and the mode is asked for anew.
    pub(crate) fn forget_reports(&mut self) {
        (self.told, self.sent, self.sequence, self.wanted) = (None, None, 0, None);
    }

    /// Whether something is to be told that no report has said.
    pub(crate) fn has_news(&self) -> bool {
        let Some(present) = &self.present else { return false };
        let happened = !self.faults.is_empty() || !self.resets.is_empty();
        self.sent.is_none() && (happened || self.told.as_ref() != Some(present))
    }

    /// What a report says that is sent now.
    pub(crate) fn take_report(&mut self, now_ms: u64) -> Option<DeviceReport> {
        let present = self.present.as_ref().filter(|_| self.has_news())?;
        self.sequence += 1;
        let known = DeviceReport {
            sequence: self.sequence,
            gpu_mode: present.gpu_mode.clone(),
            faults: self.faults.iter().cloned().collect(),
            resets: self.resets.iter().cloned().collect(),
            ..DeviceReport::default()
        };
        let report = match &self.told {
            None => {
                let devices = present.devices.values().cloned().collect();
                DeviceReport { snapshot: true, devices, ..known }
            }
            Some(View { devices: told, .. }) => {
                let is_new = |one: &&Device| told.get(&one.id) != Some(*one);
                let is_gone = |id: &&SmolStr| !present.devices.contains_key(*id);
                DeviceReport {
                    devices: present.devices.values().filter(is_new).cloned().collect(),
                    removed: told.keys().filter(is_gone).cloned().collect(),
                    ..known
                }
            }
        };
        let (view, faults, resets) = (present.clone(), self.faults.len(), self.resets.len());
        self.sent = Some(Sent { at_ms: now_ms, view, faults, resets });
        Some(report)
    }

    /// A report was answered. What was sent before it and was not may have been lost, or the control plane says that it does not
    /// know what it was told, as before its servers knew of devices: then everything is told again.
    pub(crate) fn acknowledge(&mut self, sent_at_ms: u64, unknown: bool) {
        let has_any = self.present.as_ref().is_some_and(|present| !present.devices.is_empty());
        if unknown && self.sent.is_none() && has_any {
            self.told = None;
        }
        match self.sent.take_if(|sent| sent.at_ms <= sent_at_ms) {
            Some(sent) if sent.at_ms == sent_at_ms => {
                self.faults.drain(..sent.faults);
                self.resets.drain(..sent.resets);
                self.told = Some(sent.view);
            }
            Some(_) => self.told = None,
            None => {}
        }
    }
}

/// Adds to a list of at most so many; what is under way of it is at its front.
fn push<T>(list: &mut VecDeque<T>, item: T, most: usize, sent: Option<&mut usize>) {
    if list.len() == most {
        list.pop_front();
        if let Some(sent) = sent {
            *sent = sent.saturating_sub(1);
        }
    }
    list.push_back(item);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device(id: &str, index: u32) -> Device {
        Device { id: id.into(), index, ..Device::default() }
    }

    /// A report in short: its number, whether it is everything, devices with their index, and what is gone.
    fn said(news: &mut DeviceNews, now_ms: u64) -> String {
        let Some(report) = news.take_report(now_ms) else { return "nothing".to_owned() };
        let devices: Vec<_> = report.devices.iter().map(|one| format!("{}{}", one.id, one.index)).collect();
        let kind = if report.snapshot { "all" } else { "new" };
        format!("{} {kind} {} gone {}", report.sequence, devices.join(" "), report.removed.join(" "))
    }

    /// What the control plane makes of reports: a snapshot, then deltas that follow each other.
    #[derive(Default)]
    struct Kept {
        sequence: Option<u64>,
        devices: Devices,
    }

    impl Kept {
        fn take(&mut self, report: &DeviceReport) {
            let follows = self.sequence.is_some_and(|last| report.sequence == last + 1);
            assert!(report.snapshot || follows || self.sequence >= Some(report.sequence), "{report:?}");
            if report.snapshot {
                self.devices.clear();
            }
            self.devices.extend(report.devices.iter().map(|one| (one.id.clone(), one.clone())));
            report.removed.iter().for_each(|id| _ = self.devices.remove(id));
            self.sequence = Some(report.sequence);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Whatever comes, goes, falls ill, and whichever reports and answers are lost: what is kept becomes what there is.
        #[test]
        fn a_snapshot_and_its_deltas_are_what_there_is(
            looks in prop::collection::vec((prop::collection::btree_map(0u8..6, 0u32..3, 0..6), 0u8..4), 1..24),
        ) {
            let (mut news, mut kept) = (DeviceNews::default(), Kept::default());
            let mut now_ms = 0;
            let mut present = Devices::new();
            for (devices, fate) in looks {
                // A device of another index is one that is ill, or well again: it differs.
                let all: Vec<_> = devices.iter().map(|(id, index)| device(&format!("d{id}"), *index)).collect();
                present = all.iter().map(|one| (one.id.clone(), one.clone())).collect();
                news.set(0, all);
                now_ms += 2;
                let report = news.take_report(now_ms);
                match (report, fate) {
                    // The session breaks; the next one begins anew.
                    (_, 3) => {
                        news.forget_reports();
                        kept = Kept::default();
                    }
                    // The report is lost: a later heartbeat is answered.
                    (Some(_), 2) => news.acknowledge(now_ms + 1, false),
                    // Its answer is lost.
                    (Some(report), 1) => {
                        kept.take(&report);
                        news.acknowledge(now_ms + 1, false);
                    }
                    (Some(report), _) => {
                        kept.take(&report);
                        news.acknowledge(now_ms, false);
                    }
                    (None, _) => {}
                }
            }
            while let Some(report) = news.take_report(now_ms + 2) {
                now_ms += 2;
                kept.take(&report);
                news.acknowledge(now_ms, false);
            }
            prop_assert_eq!(kept.devices, present);
        }
    }

    #[test]
    fn everything_is_told_once_and_then_what_differs() {
        let mut news = DeviceNews::default();
        assert_eq!(said(&mut news, 1), "nothing", "before the host was looked at");
        news.set(0, vec![device("b", 1), device("a", 0)]);
        assert_eq!(said(&mut news, 2), "1 all a0 b1 gone ");
        assert_eq!(said(&mut news, 3), "nothing", "one is under way");
        news.acknowledge(1, true);
        assert!(!news.has_news(), "one is under way");
        news.acknowledge(2, false);
        assert!(!news.has_news());
        news.set(0, vec![device("a", 5), device("c", 2)]);
        assert_eq!(said(&mut news, 4), "2 new a5 c2 gone b");
        news.acknowledge(5, false);
        assert_eq!(said(&mut news, 6), "3 all a5 c2 gone ", "the other one may be lost");
        news.forget_reports();
        assert_eq!(said(&mut news, 7), "1 all a5 c2 gone ", "another session");
        news.acknowledge(7, false);
        news.acknowledge(8, true);
        assert_eq!(said(&mut news, 9), "2 all a5 c2 gone ", "nobody knew of devices");
        news.acknowledge(9, false);
        news.set(0, Vec::new());
        assert_eq!(said(&mut news, 10), "3 new  gone a5 c2".replace("a5 c2", "a c"));
        news.acknowledge(10, false);
        news.acknowledge(11, true);
        assert!(!news.has_news(), "nothing is nothing, known or not");
    }

    #[test]
    fn faults_and_modes_are_told_until_they_are_acknowledged() {
        let mut news = DeviceNews::default();
        let fault = |code| DeviceFault { device: "a".into(), code, at_ms: 1, pod: None };
        let told = |news: &mut DeviceNews, now_ms| {
            let report = news.take_report(now_ms).expect("news");
            let codes: Vec<u32> = report.faults.iter().map(|fault| fault.code).collect();
            (codes, report.resets.len(), report.gpu_mode.unwrap_or_default().to_string())
        };
        news.set(0, vec![device("a", 0)]);
        news.fault(fault(13));
        assert_eq!(told(&mut news, 1), (vec![13], 0, String::new()));
        news.fault(fault(48));
        news.reset("a".into());
        news.acknowledge(2, false);
        assert_eq!(told(&mut news, 3), (vec![13, 48], 1, String::new()), "the first may be lost");
        news.fault(fault(79));
        news.acknowledge(3, false);
        news.set_mode(0, "shared".into(), None);
        assert_eq!(told(&mut news, 4), (vec![79], 0, "shared".to_owned()));
        news.acknowledge(4, false);
        assert!(!news.has_news());
        for code in 0..100 {
            news.fault(fault(code));
        }
        assert_eq!(told(&mut news, 5).0.len(), FAULTS_PER_REPORT_MAX);
        let gpu = |mode: &str| GpuIntent { mode: mode.into(), cards: Vec::new() };
        assert_eq!(news.want(Some(&gpu("whole"))), Some(gpu("whole")));
        assert_eq!(news.want(Some(&gpu("whole"))), None, "it is asked for once");
        assert_eq!(news.want(None), None);
        news.forget_reports();
        assert_eq!(news.want(Some(&gpu("whole"))), Some(gpu("whole")), "and in each session");
    }
}
