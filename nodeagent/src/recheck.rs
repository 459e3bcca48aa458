//! Looks at what the machine permits while the agent runs, as it did at the start, and has the node registered anew when that is other.
//!
//! When, and what follows from it, is decided in `bulkhead_nodeagent_core::LookPlan` and `Readiness`. SIGUSR1 asks for a look with a guest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_nodeagent_core::hardware::{KvmTrial, devices_changed};
use bulkhead_nodeagent_core::qemu::Accel;
use bulkhead_nodeagent_core::{Input, LookCause, LookPlan, Readiness, kvm_warning};
use bulkhead_types::{HugePageSize, HugePages, NodeFacts};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::facts::OrdinaryMemory;
use crate::host::{self, Host};
use crate::kernel_watch::or_never;
use crate::passthrough::RunningStep;
use crate::volumes::POOL_WARNING;
use crate::{clock, facts, probe};

/// What is looked at, and who is told.
#[derive(Debug)]
pub(crate) struct Recheck {
    host: Arc<Host>,
    /// What the last guest with KVM told, if any is run.
    trial: KvmTrial,
    boot_id: String,
    /// The node's facts without what is looked at.
    base: NodeFacts,
    /// What was found last.
    found: Readiness,
    /// What was told.
    told_of: (Readiness, HugePages),
    told: watch::Sender<NodeFacts>,
    /// What huge pages are taken from.
    memory: OrdinaryMemory,
    /// Hears what pods may have, once that is other.
    inputs: mpsc::Sender<Input>,
    /// The step of device work from which the kernel does not come back.
    late_step: watch::Receiver<Option<RunningStep>>,
    /// Processes of earlier guests that do not end.
    undying: watch::Receiver<BTreeMap<i32, String>>,
}

impl Recheck {
    /// From what was found at the start; with who is told.
    pub(crate) fn new(
        host: Arc<Host>,
        trial: KvmTrial,
        boot_id: &str,
        facts: NodeFacts,
        memory: OrdinaryMemory,
        inputs: mpsc::Sender<Input>,
    ) -> (Self, watch::Receiver<NodeFacts>) {
        let is_kvm = |text: &&smol_str::SmolStr| text.starts_with(probe::EMULATED);
        let kvm = facts.warnings.iter().find(is_kvm).map(ToString::to_string);
        let is_pool = |text: &&smol_str::SmolStr| text.starts_with(POOL_WARNING);
        let volumes = facts.warnings.iter().find(is_pool).map(ToString::to_string);
        let found = Readiness { kvm, volumes, ..facts::readiness(&trial) };
        let base = found.taken_from(facts.clone());
        let told_of = (found.clone(), facts.allocatable.huge_pages);
        let (told, receiver) = watch::channel(facts);
        let boot_id = boot_id.to_owned();
        let (late_step, undying) = (host.passthrough.late_step(), host.undying.told());
        let recheck =
            Self { host, trial, boot_id, base, told_of, found, told, memory, inputs, late_step, undying };
        (recheck, receiver)
    }

    /// Runs until nobody is told any more.
    pub(crate) async fn run(mut self) {
        let mut plan = LookPlan::new(clock::boot_ms());
        let mut uevents = self.host.kernel.uevents().ok();
        let mut asked = signal(SignalKind::user_defined1()).ok();
        let mut has_kvm = probe::has_kvm();
        loop {
            let pause = Duration::from_millis(plan.due_ms().saturating_sub(clock::boot_ms()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.told.closed() => return,
                changed = or_never(uevents.as_deref_mut().map(devices_changed)) => {
                    if changed.is_err() {
                        uevents = None;
                    }
                    plan.note(LookCause::Uevent);
                }
                // Who tells it is the host's, which is here.
                _ = self.late_step.changed() => plan.note(LookCause::DeviceStep),
                _ = self.undying.changed() => plan.note(LookCause::Process),
                () = next_signal(asked.as_mut()) => {
                    tracing::info!("an operator asks to look at the machine again");
                    plan.note(LookCause::Operator);
                }
            }
            if probe::has_kvm() != has_kvm {
                has_kvm = !has_kvm;
                plan.note(LookCause::KvmFile);
            }
            if let Some(look) = plan.take(clock::boot_ms()) {
                self.look(look.trial, &mut plan).await;
            }
        }
    }

    async fn look(&mut self, with_guest: bool, plan: &mut LookPlan) {
        let mut kvm = self.found.kvm.clone();
        if with_guest
            && self.trial != KvmTrial::NotWanted
            && let Some(trial) = self.try_kvm().await
        {
            let fails = match &trial {
                KvmTrial::Fails(reason) => Some(reason.as_str()),
                KvmTrial::Runs | KvmTrial::NotWanted => None,
            };
            kvm = kvm_warning(self.host.accel == Accel::Kvm, fails);
            self.trial = trial;
        }
        let (trial, volumes) = (self.trial.clone(), self.host.volumes.clone());
        let look = move || Readiness { volumes: volumes.warning(), ..facts::readiness(&trial) };
        let Ok(mut files) = tokio::task::spawn_blocking(look).await else { return };
        files.obstacles.extend(self.late_step.borrow().as_ref().map(late_warning));
        files.obstacles.extend(self.undying.borrow().values().cloned());
        let now = Readiness { kvm, ..files };
        for change in now.changes_since(&self.found) {
            match change.is_better {
                true => tracing::info!("{}", change.text),
                false => tracing::warn!("{}", change.text),
            }
        }
        self.found = now;
        self.follow_pools().await;
        let (told, pages) = (&self.told_of, self.base.allocatable.huge_pages);
        let is_news = self.found.is_news_after(&told.0) || pages != told.1;
        if is_news && plan.may_tell(clock::boot_ms()) {
            self.told_of = (self.found.clone(), pages);
            self.told.send_replace(self.found.added_to(self.base.clone()));
        }
    }

    /// What is told of the machine follows its huge pages.
    async fn follow_pools(&mut self) {
        let (before, now) = (self.base.allocatable.huge_pages, facts::huge_pages_now());
        if now == before {
            return;
        }
        let shown = |of: HugePages| {
            HugePageSize::ALL
                .map(|size| format!("{} {}", size.resource(), of.of(size) / size.bytes()))
                .join(", ")
        };
        tracing::info!(before = shown(before), now = shown(now), "the machine has other huge pages");
        facts::follow_huge_pages(&mut self.base, now, self.memory);
        let _ = self.inputs.send(Input::Allocatable(self.base.allocatable)).await;
    }

    /// Runs a guest with KVM; nothing where that cannot be tried: then it is as it was.
    async fn try_kvm(&self) -> Option<KvmTrial> {
        let host = &self.host;
        let (Ok(version), Ok(boot)) = (host::qemu_version(&host.qemu).await, host.boot.assets().await) else {
            return None;
        };
        let trial = probe::Trial {
            data: &host.data,
            qemu: &host.qemu,
            qemu_version: &version,
            boot_id: &self.boot_id,
            boot: &boot,
            sandbox: host.sandbox,
            confinement: &host.confinement,
            deadline: host.trial_deadline,
        };
        Some(probe::try_again(trial).await.map_or(KvmTrial::Runs, KvmTrial::Fails))
    }
}

/// What the node says of a step of device work from which the kernel does not come back.
fn late_warning(step: &RunningStep) -> String {
    format!("devices are neither attached nor given back: {step}")
}

/// Waits for ever where there is nothing to wait for, and where no more signals come.
async fn next_signal(signals: Option<&mut Signal>) {
    if let Some(signals) = signals
        && signals.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use bulkhead_types::ObjectId;

    use super::*;
    use crate::passthrough::tests::stalls::stalling_card;
    use crate::{AgentConfig, pod};

    /// What the node says first that is like this, or is not.
    async fn told(facts: &mut watch::Receiver<NodeFacts>, start: &str, is_told: bool) -> Option<String> {
        let warning = |facts: &NodeFacts| {
            facts.warnings.iter().find(|one| one.starts_with(start)).map(ToString::to_string)
        };
        // The next look is due later than that.
        let early = Duration::from_millis(bulkhead_nodeagent_core::LOOK_EVERY_MS / 2);
        let facts = facts.wait_for(|facts| warning(facts).is_some() == is_told);
        let facts = tokio::time::timeout(early, facts).await.expect("it is told in time");
        warning(&facts.expect("it is told"))
    }

    fn recheck(host: &Arc<Host>) -> (Recheck, watch::Receiver<NodeFacts>) {
        let config = AgentConfig::new("node-1", Vec::new(), host.data.clone());
        let accelerator = probe::Accelerator {
            accel: Accel::Tcg { multi: false },
            warnings: Vec::new(),
            kvm: KvmTrial::NotWanted,
        };
        let facts = facts::gather(&config, "127.0.0.1:1", &accelerator);
        let memory = OrdinaryMemory::now(&config);
        // Nobody takes what is told of huge pages, which do not change.
        let inputs = mpsc::channel(1).0;
        Recheck::new(Arc::clone(host), KvmTrial::NotWanted, "boot", facts, memory, inputs)
    }

    #[tokio::test]
    async fn a_step_that_is_late_is_a_warning_of_the_node_until_it_returns() {
        const START: &str = "devices are neither attached nor given back: ";
        let dir = tempfile::tempdir().expect("temporary directory");
        let (devices, card, shut) = stalling_card(dir.path());
        let _watching = devices.watch_steps();
        let host = pod::tests::host(dir.path(), devices);
        let (mut recheck, mut facts) = recheck(&host);
        assert_eq!(told(&mut facts, START, false).await, None);
        host.passthrough.attach(ObjectId(7), &[card]).await.expect_err("it stalls");
        let late = recheck.late_step.wait_for(Option::is_some).await.is_ok();
        assert!(late, "it is watched");
        let mut plan = LookPlan::new(0);
        recheck.look(false, &mut plan).await;
        let warning = told(&mut facts, START, true).await.expect("it is told");
        assert!(warning.contains("driver_override of 0000:42:00.0 has not returned since 20"), "{warning}");
        // The kernel comes back, and there is nothing to say any more.
        drop(shut);
        assert!(recheck.late_step.wait_for(Option::is_none).await.is_ok());
        let mut later = LookPlan::new(0);
        recheck.look(false, &mut later).await;
        assert_eq!(told(&mut facts, START, false).await, None);
    }

    /// The loop itself looks when it is told of one, long before its time.
    #[tokio::test]
    async fn a_late_step_is_looked_at_at_once() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (devices, card, _shut) = stalling_card(dir.path());
        let _watching = devices.watch_steps();
        let host = pod::tests::host(dir.path(), devices);
        let (recheck, mut facts) = recheck(&host);
        let running = tokio::spawn(recheck.run());
        host.passthrough.attach(ObjectId(7), &[card]).await.expect_err("it stalls");
        told(&mut facts, "devices are neither attached", true).await.expect("by a look of its own");
        drop(facts);
        running.await.expect("it ends when nobody listens");
    }
}
