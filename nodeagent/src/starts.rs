//! The starts of this node's pods, step by step: kept for who describes a pod, and told to the collector of traces as each step ends.
//!
//! They are no part of what is reported: whoever wants them asks the agent ([`crate::podio`]). A start that is over is also in a file
//! of the pod, so that the next agent knows it; that file need not survive a crash of the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_guest_protocol::guest::Hello;
use bulkhead_nodeagent_core::{PhaseTime, StartPhase, StartPhases, text};
use bulkhead_types::ObjectId;
use opentelemetry::Context;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{clock, trace};

/// The file of a start that is over, in the pod's folder.
pub(crate) const FILE: &str = "start.json";

/// The starts of all pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Starts {
    pods: Arc<Mutex<BTreeMap<ObjectId, Start>>>,
}

#[derive(Debug)]
struct Start {
    phases: StartPhases,
    /// The span of the whole.
    span: Context,
}

impl Starts {
    /// The agent was told of a pod, or starts another guest for it.
    pub(crate) fn begin(&self, pod: ObjectId, span: &Span) {
        let phases = StartPhases::new(clock::boot_ms(), clock::unix_ms());
        self.lock().insert(pod, Start { phases, span: span.context() });
    }

    /// Whatever is known of the last start of a pod's guest, whose folder is `dir`.
    pub(crate) fn find(&self, pod: ObjectId, dir: &Path) -> Option<StartPhases> {
        let known = self.lock().get(&pod).map(|start| start.phases.clone());
        known.or_else(|| serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok())
    }

    /// Forgets a pod.
    pub(crate) fn remove(&self, pod: ObjectId) {
        self.lock().remove(&pod);
    }

    /// The guest was booted before, or is a copy of one that was: it has its disks now, and its first word is waited for.
    pub(crate) fn booted_before(&self, pod: ObjectId, copied: bool) {
        self.change(pod, |phases, now_ms| {
            (phases.from_pool, phases.from_template) = (!copied, copied);
            phases.end(StartPhase::Disks, Some(StartPhase::Qemu), now_ms).into_iter().collect()
        });
    }

    /// The guest is booted for the pod although there is a pool, or templates.
    pub(crate) fn booted_because(&self, pod: ObjectId, why: &str) {
        let why = text::message(why);
        self.change(pod, |phases, _| {
            phases.booted_because = Some(why);
            Vec::new()
        });
    }

    /// A step was over before anybody knew that it is one; it began then, by the clock since boot.
    pub(crate) fn was(&self, pod: ObjectId, phase: StartPhase, begun_ms: u64) {
        self.change(pod, |phases, now_ms| {
            phases.begin(phase, begun_ms);
            phases.end(phase, None, now_ms).into_iter().collect()
        });
    }

    /// A step begins.
    pub(crate) fn start(&self, pod: ObjectId, phase: StartPhase) {
        self.change(pod, |phases, now_ms| {
            phases.begin(phase, now_ms);
            Vec::new()
        });
    }

    /// A step ends, and another may begin. False if it never began, or had ended.
    pub(crate) fn end(&self, pod: ObjectId, phase: StartPhase, next: Option<StartPhase>) -> bool {
        self.change(pod, |phases, now_ms| phases.end(phase, next, now_ms).into_iter().collect())
    }

    /// Does something that is a step.
    pub(crate) async fn over<T>(&self, pod: ObjectId, phase: StartPhase, work: impl Future<Output = T>) -> T {
        self.start(pod, phase);
        let result = work.await;
        self.end(pod, phase, None);
        result
    }

    /// Those of one pod, for who watches its guest.
    pub(crate) fn of(&self, pod: ObjectId, dir: &Path) -> StartOf {
        StartOf { starts: self.clone(), pod, path: dir.join(FILE), spoke: AtomicBool::new(false) }
    }

    /// Changes what is known of a start; whether a step ended.
    fn change(&self, pod: ObjectId, change: impl FnOnce(&mut StartPhases, u64) -> Vec<PhaseTime>) -> bool {
        let mut pods = self.lock();
        let Some(start) = pods.get_mut(&pod) else { return false };
        let ended = change(&mut start.phases, clock::boot_ms());
        let any = !ended.is_empty();
        for time in ended {
            let at = |ms: u32| instant(start.phases.told_at_ms.saturating_add(u64::from(ms)));
            let end_ms = time.end_ms.unwrap_or(time.begin_ms);
            trace::step(&start.span, span_name(time.phase), at(time.begin_ms), at(end_ms));
        }
        any
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectId, Start>> {
        // No code panics while it holds the lock.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The start of one pod's guest.
#[derive(Debug, Default)]
pub(crate) struct StartOf {
    starts: Starts,
    pod: ObjectId,
    path: PathBuf,
    /// The first byte of output came: everything is known.
    spoke: AtomicBool,
}

impl StartOf {
    /// A step ends, and another may begin.
    pub(crate) fn end(&self, phase: StartPhase, next: Option<StartPhase>) {
        // Every piece of output comes here.
        if phase == StartPhase::Output && self.spoke.load(Ordering::Relaxed) {
            return;
        }
        let ended = self.starts.end(self.pod, phase, next);
        // Output may overtake the word that its container runs.
        if ended && phase == StartPhase::Output {
            self.spoke.store(true, Ordering::Relaxed);
        }
        if ended && matches!(phase, StartPhase::Container | StartPhase::Output) {
            self.keep();
        }
    }

    /// The guest said its first word.
    pub(crate) fn guest_spoke(&self, hello: &Hello) {
        self.starts
            .change(self.pod, |phases, now_ms| phases.guest_spoke(hello.boot_ms, hello.uptime_ms, now_ms));
    }

    fn keep(&self) {
        let phases = self.starts.lock().get(&self.pod).map(|start| start.phases.clone());
        let Some(phases) = phases.filter(StartPhases::is_over) else { return };
        let written =
            serde_json::to_vec(&phases).map_err(Into::into).and_then(|json| std::fs::write(&self.path, json));
        if let Err(error) = written {
            tracing::debug!(path = %self.path.display(), %error, "how the pod started is not kept");
        }
    }
}

fn instant(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unix_ms)
}

fn span_name(phase: StartPhase) -> &'static str {
    match phase {
        StartPhase::Image => "pod.start.image",
        StartPhase::Room => "pod.start.room",
        StartPhase::Devices => "pod.start.devices",
        StartPhase::Restore => "pod.start.restore",
        StartPhase::Disks => "pod.start.disks",
        StartPhase::Qemu => "pod.start.qemu",
        StartPhase::Firmware => "pod.start.firmware",
        StartPhase::Kernel => "pod.start.kernel",
        StartPhase::Guest => "pod.start.guest",
        StartPhase::Container => "pod.start.container",
        StartPhase::Output => "pod.start.output",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_agent_knows_a_start_that_is_over() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (pod, starts) = (ObjectId(7), Starts::default());
        let find = |starts: &Starts| starts.find(pod, dir.path());
        assert_eq!(find(&starts), None);
        starts.begin(pod, &Span::none());
        let of = starts.of(pod, dir.path());
        starts.start(pod, StartPhase::Qemu);
        of.end(StartPhase::Qemu, Some(StartPhase::Firmware));
        of.guest_spoke(&Hello { boot_ms: 1, uptime_ms: 2, ..Hello::default() });
        assert_eq!(find(&Starts::default()), None, "it goes on, and ended with its agent");
        of.end(StartPhase::Container, Some(StartPhase::Output));
        of.end(StartPhase::Output, None);
        let known = find(&starts).expect("it is in memory");
        assert!(known.is_over());
        assert_eq!(find(&Starts::default()), Some(known), "it is on disk");
        starts.remove(pod);
        std::fs::remove_file(dir.path().join(FILE)).expect("it was there");
        assert_eq!(find(&starts), None);
    }
}
