//! What the control plane is told of the machine's devices: everything at the beginning of a session, then what changes.
//!
//! ```text
//!  host: Input::Devices ─► present ── differs from told ──► report (one under way) ── acknowledged ──► told
//!                                                             └── never answered ──► told = nothing: everything again
//! ```

use std::collections::BTreeMap;

use bulkhead_types::{DEVICES_MAX, Device, DeviceReport};
use smol_str::SmolStr;

type Devices = BTreeMap<SmolStr, Device>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceNews {
    /// What the host said last; `None` before it said anything: then nobody is told anything.
    present: Option<Devices>,
    /// What the control plane knows in this session; `None` before its first answer.
    told: Option<Devices>,
    /// What is under way, by when it was sent.
    sent: Option<(u64, Devices)>,
    sequence: u64,
}

impl DeviceNews {
    /// Takes over what the host found. More devices than the control plane keeps are left out, those with the last ids.
    pub(crate) fn set(&mut self, devices: Vec<Device>) {
        let all = devices.into_iter().map(|device| (device.id.clone(), device));
        self.present = Some(all.collect::<Devices>().into_iter().take(DEVICES_MAX).collect());
    }

    /// A new session: nothing is known there yet.
    pub(crate) fn forget_reports(&mut self) {
        (self.told, self.sent, self.sequence) = (None, None, 0);
    }

    /// Whether something is to be told that no report has said.
    pub(crate) fn has_news(&self) -> bool {
        let Some(present) = &self.present else { return false };
        self.sent.is_none() && self.told.as_ref() != Some(present)
    }

    /// What a report says that is sent now.
    pub(crate) fn take_report(&mut self, now_ms: u64) -> Option<DeviceReport> {
        let present = self.present.as_ref().filter(|_| self.has_news())?;
        self.sequence += 1;
        let (sequence, sent) = (self.sequence, present.clone());
        let report = match &self.told {
            None => {
                let devices = present.values().cloned().collect();
                DeviceReport { sequence, snapshot: true, devices, removed: Vec::new() }
            }
            Some(told) => DeviceReport {
                sequence,
                snapshot: false,
                devices: present.values().filter(|one| told.get(&one.id) != Some(one)).cloned().collect(),
                removed: told.keys().filter(|id| !present.contains_key(*id)).cloned().collect(),
            },
        };
        self.sent = Some((now_ms, sent));
        Some(report)
    }

    /// A report was answered. What was sent before it and was not may have been lost, or the control plane says that it does not
    /// know what it was told, as before its servers knew of devices: then everything is told again.
    pub(crate) fn acknowledge(&mut self, sent_at_ms: u64, unknown: bool) {
        if unknown && self.sent.is_none() && self.present.as_ref().is_some_and(|present| !present.is_empty())
        {
            self.told = None;
        }
        match &self.sent {
            Some((at, _)) if *at == sent_at_ms => self.told = self.sent.take().map(|(_, devices)| devices),
            Some((at, _)) if *at < sent_at_ms => (self.told, self.sent) = (None, None),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn everything_is_told_once_and_then_what_differs() {
        let mut news = DeviceNews::default();
        assert_eq!(said(&mut news, 1), "nothing", "before the host was looked at");
        news.set(vec![device("b", 1), device("a", 0)]);
        assert_eq!(said(&mut news, 2), "1 all a0 b1 gone ");
        assert_eq!(said(&mut news, 3), "nothing", "one is under way");
        news.acknowledge(1, true);
        assert!(!news.has_news(), "one is under way");
        news.acknowledge(2, false);
        assert!(!news.has_news());
        news.set(vec![device("a", 5), device("c", 2)]);
        assert_eq!(said(&mut news, 4), "2 new a5 c2 gone b");
        news.acknowledge(5, false);
        assert_eq!(said(&mut news, 6), "3 all a5 c2 gone ", "the other one may be lost");
        news.forget_reports();
        assert_eq!(said(&mut news, 7), "1 all a5 c2 gone ", "another session");
        news.acknowledge(7, false);
        news.acknowledge(8, true);
        assert_eq!(said(&mut news, 9), "2 all a5 c2 gone ", "nobody knew of devices");
        news.acknowledge(9, false);
        news.set(Vec::new());
        assert_eq!(said(&mut news, 10), "3 new  gone a5 c2".replace("a5 c2", "a c"));
        news.acknowledge(10, false);
        news.acknowledge(11, true);
        assert!(!news.has_news(), "nothing is nothing, known or not");
    }
}
