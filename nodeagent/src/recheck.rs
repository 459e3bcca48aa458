//! Looks at what the machine permits while the agent runs, as it did at the start, and has the node registered anew when that is other.
//!
//! When, and what follows from it, is decided in `bulkhead_nodeagent_core::LookPlan` and `Readiness`. SIGUSR1 asks for a look with a guest.

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
        let late_step = host.passthrough.late_step();
        (Self { host, trial, boot_id, base, told_of, found, told, memory, inputs, late_step }, receiver)
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
