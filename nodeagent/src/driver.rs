//! The loop that owns the core: whatever happens becomes an input, every action goes to who does it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_nodeagent_core::{Action, Agent, Input, RecoveredVm, VmRecord};
use bulkhead_types::{GpuIntent, ObjectId, VolumeOrder};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::clock;
use crate::devices::NicsWanted;
use crate::error::{AgentError, At as _};
use crate::host::Host;
use crate::network::GuestCard;
use crate::pod::{Launched, PodHandle, Vm, answers, lost_volume_task};
use crate::podio::Names;
use crate::session::Order;
use crate::steps::{Step, passed};
use crate::undying::END_WITHIN;
use crate::vm::process::Process;
use crate::vm::{console, process};

/// The loop looks at the clock at least this often.
const TICK_MAX: Duration = Duration::from_secs(60);

/// How long what is under way may take when the agent ends.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Places in the session's queue that reports leave free.
const ORDERS_RESERVED: usize = 16;

/// Where the loop sends what it does not do itself.
pub(crate) struct Outlets {
    /// To the session.
    pub(crate) orders: mpsc::Sender<Order>,
    /// To the loop itself, for those who do things.
    pub(crate) inputs: mpsc::Sender<Input>,
    /// To who looks after NICs.
    pub(crate) nics: watch::Sender<NicsWanted>,
}

/// What the loop holds.
pub(crate) struct Driver {
    agent: Agent,
    host: Arc<Host>,
    boot_id: String,
    names: Names,
    pods: BTreeMap<ObjectId, PodHandle>,
    /// Tasks of pods that are forgotten, until they have ended.
    retired: BTreeMap<ObjectId, JoinHandle<()>>,
    orders: mpsc::Sender<Order>,
    inputs: mpsc::Sender<Input>,
    nics: watch::Sender<NicsWanted>,
}

impl Driver {
    pub(crate) fn new(
        agent: Agent,
        host: Arc<Host>,
        boot_id: String,
        names: Names,
        outlets: Outlets,
    ) -> Self {
        let (pods, retired) = (BTreeMap::new(), BTreeMap::new());
        let Outlets { orders, inputs, nics } = outlets;
        Self { agent, host, boot_id, names, pods, retired, orders, inputs, nics }
    }

    /// Runs until `shutdown` is done. Guests go on; the next agent adopts them.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Input>, shutdown: impl Future<Output = ()>) {
        self.drive(&mut events, shutdown).await;
        // Nobody may wait for room in it.
        drop(events);
        let pods = std::mem::take(&mut self.pods).into_values().map(PodHandle::into_task);
        let ending = futures::future::join_all(pods.chain(std::mem::take(&mut self.retired).into_values()));
        if tokio::time::timeout(END_TIMEOUT, ending).await.is_err() {
            tracing::warn!(
                "some pods are still being started or removed; the next agent finds them as they are"
            );
        }
    }

    async fn drive(&mut self, events: &mut mpsc::Receiver<Input>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            self.dispatch().await;
            let now_ms = clock::boot_ms();
            let wait = self
                .agent
                .next_deadline_ms()
                .map_or(TICK_MAX, |at| Duration::from_millis(at.saturating_sub(now_ms)).min(TICK_MAX));
            tokio::select! {
                () = &mut shutdown => return,
                input = events.recv() => match input {
                    Some(input) => self.handle(input),
                    None => return,
                },
                () = tokio::time::sleep(wait) => self.agent.tick(clock::boot_ms()),
            }
        }
    }

    /// Whole and shared cards are the same to a machine. This agent carves no partitions: it stays in the mode that it is in, and
    /// the control plane gives none of the cards away meanwhile.
    fn set_gpu_mode(&mut self, gpu: GpuIntent) {
        let GpuIntent { mode, cards } = gpu;
        if cards.is_empty() {
            self.handle(Input::GpuMode { mode, devices: None });
        } else {
            tracing::warn!(%mode, cards = cards.len(), "the agent cannot partition cards: choose the mode whole or shared");
        }
    }

    fn handle(&mut self, input: Input) {
        if let Input::Intent(intent) = &input {
            intent.pods.iter().for_each(|pod| self.names.intend(pod));
        }
        self.agent.handle(clock::boot_ms(), input);
    }

    /// Finds what the agent's last life left and gives it to the core.
    pub(crate) async fn recover(&mut self) -> Result<(), AgentError> {
        let lease_until_ms = self.host.records.load_lease(&self.boot_id);
        // Before anything tells a guard of it.
        self.host.lease_until_ms.send_replace(lease_until_ms.unwrap_or(0));
        let records = self.host.records.load().at("read the records below", &self.host.data)?;
        let mut vms = Vec::new();
        for record in records {
            let found = Launched::find(&self.host, record.pod, record.instance);
            let launched = found.at("look for a guest of", &self.host.records.pod_dir(record.pod))?;
            let vm = match launched {
                Some(launched) if record.ended.is_none() && answers(&launched.dir).await => {
                    let started_at_ms = launched.process.started_at_ms();
                    let vm = Vm::supervise(&self.host, launched, started_at_ms, self.inputs.clone(), None);
                    Some((vm, started_at_ms))
                }
                _ => None,
            };
            let pod_dir = self.host.records.pod_dir(record.pod);
            let containers = record.plan.init_containers.iter().chain(&record.plan.containers);
            self.names.add(
                record.pod,
                record.namespace.as_str(),
                record.name.as_str(),
                containers.map(ToString::to_string).collect(),
            );
            let running = vm.is_some();
            let (vm, started_at_ms) = vm.map_or((None, 0), |(vm, at)| (Some(vm), at));
            let instance_dir = self.host.records.instance_dir(record.pod, record.instance);
            let last_console =
                if running { String::new() } else { console::last_lines(&pod_dir, &instance_dir) };
            if vm.is_some() {
                self.spawn(record.pod, vm);
            }
            let group = self.host.group_of(&instance_dir, record.pod, record.instance);
            let out_of_memory = self.host.cgroups.out_of_memory(&group).filter(|_| !running);
            vms.push(RecoveredVm { record, running, started_at_ms, last_console, out_of_memory });
        }
        let undying = self.kill_strangers(&vms).await?;
        // Only now does no process have any device whose pod is not known any more, but what does not die.
        let mut pods: BTreeSet<ObjectId> = vms.iter().map(|vm| vm.record.pod).collect();
        pods.extend(undying.iter().filter_map(|dir| self.host.records.pod_of(dir)));
        self.watch_undying(&undying, &mut vms);
        if let Err(reason) = self.host.passthrough.recover(pods).await {
            tracing::error!(
                reason,
                "devices that no pod has any more are not given back; the next start tries again"
            );
        }
        self.recover_network(&vms).await;
        let live = vms.iter().filter(|vm| vm.running);
        let live = live.map(|vm| {
            let (pod, instance) = (vm.record.pod, vm.record.instance);
            self.host.group_of(&self.host.records.instance_dir(pod, instance), pod, instance)
        });
        let live = live.collect();
        self.host.cgroups.keep_only(&live);
        self.agent.handle(clock::boot_ms(), Input::Recovered { vms, lease_until_ms });
        Ok(())
    }

    /// What connects guests is brought to where it shall be. What the host does not do then is tried again by the next start.
    async fn recover_network(&self, vms: &[RecoveredVm]) {
        let Some(network) = self.host.network.clone() else { return };
        let live = vms.iter().filter(|vm| vm.running);
        let card = |record: &VmRecord| {
            let bandwidth = record.bandwidth.unwrap_or_default();
            Some((record.pod, record.instance, GuestCard { address: record.address?, bandwidth }))
        };
        let live: Vec<_> = live.filter_map(|vm| card(&vm.record)).collect();
        let recovered = tokio::task::spawn_blocking(move || network.recover(&live)).await;
        match recovered {
            Ok(Ok(lost)) => lost.iter().for_each(|tap| {
                tracing::error!(tap, "the tap of a guest is gone: it has no network until it starts again");
            }),
            Ok(Err(error)) => tracing::error!(%error, "guests may have no network"),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Processes in this data directory that were not adopted have no place here. The folders of those that do not die are the answer.
    async fn kill_strangers(&self, adopted: &[RecoveredVm]) -> Result<Vec<PathBuf>, AgentError> {
        let mut undying = self.kill_strange_guards(adopted).await?;
        let mut killed = Vec::new();
        let found = process::find_below(&self.host.data).at("look for guests in", &self.host.data)?;
        for path in found {
            let dir = path.parent().unwrap_or(&path);
            let is_adopted = |vm: &RecoveredVm| {
                vm.running && self.host.records.instance_dir(vm.record.pod, vm.record.instance) == dir
            };
            if adopted.iter().any(is_adopted) {
                continue;
            }
            if let Some(process) = process::Process::find(dir, |_| true).at("look for a guest in", dir)? {
                tracing::warn!(dir = %dir.display(), pid = process.pid, "a guest that nobody knows is killed");
                let killer = process.killer().at("open the process of", dir)?;
                killer.kill().at("kill the guest in", dir)?;
                killed.push((dir.to_owned(), format!("the guest in {}", dir.display()), process));
            }
        }
        undying.extend(self.ended(killed).await?);
        Ok(undying)
    }

    /// Waits for the end of processes that were killed, and of all of them together: many may be there. Those that do not end in time.
    async fn ended(&self, killed: Vec<(PathBuf, String, Process)>) -> Result<Vec<PathBuf>, AgentError> {
        let within = END_WITHIN.min(Duration::from_millis(self.host.silence_ms));
        self.host.undying.wait(killed, within).await.at("watch guests in", &self.host.data)
    }

    /// A guest that does not die is its pod's still: no other one of the pod starts before it has ended, and nothing that it has is given
    /// away. Other pods go on.
    fn watch_undying(&mut self, undying: &[PathBuf], vms: &mut [RecoveredVm]) {
        for vm in vms.iter_mut().filter(|vm| !vm.running) {
            let (pod, instance) = (vm.record.pod, vm.record.instance);
            if !undying.contains(&self.host.records.instance_dir(pod, instance)) {
                continue;
            }
            match Launched::find(&self.host, pod, instance) {
                Ok(Some(launched)) => {
                    let started_at_ms = launched.process.started_at_ms();
                    let watched =
                        Vm::supervise(&self.host, launched, started_at_ms, self.inputs.clone(), None);
                    self.spawn(pod, Some(watched));
                    // Of one that the core knows to have ended it waits for nothing but its end when it cleans up.
                    (vm.running, vm.started_at_ms) = (vm.record.ended.is_none(), started_at_ms);
                }
                // It has ended meanwhile.
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%pod, instance, %error, "a guest that does not die is not watched")
                }
            }
        }
    }

    /// A guard whose guest was not adopted may be about to start it. The guest ends with it.
    async fn kill_strange_guards(&self, adopted: &[RecoveredVm]) -> Result<Vec<PathBuf>, AgentError> {
        let mut killed = Vec::new();
        // Those of the pool have their folders elsewhere below it.
        let data = &self.host.data;
        for (dir, guard) in process::guards_below(data).at("look for guards in", data)? {
            let is_adopted = |vm: &RecoveredVm| {
                vm.running && self.host.records.instance_dir(vm.record.pod, vm.record.instance) == dir
            };
            if adopted.iter().any(is_adopted) {
                continue;
            }
            tracing::warn!(dir = %dir.display(), pid = guard.pid, "a guard that nobody knows is killed");
            let killer = guard.killer().at("open the guard of", &dir)?;
            killer.kill().at("kill the guard of", &dir)?;
            let what = format!("the guard of the guest in {}", dir.display());
            killed.push((dir, what, guard));
        }
        self.ended(killed).await
    }

    async fn dispatch(&mut self) {
        while let Some(action) = self.agent.poll_action() {
            match action {
                Action::Join => self.order(Order::Join).await,
                // The core repeats what is lost; the loop never waits for a session that is stuck.
                Action::Report(report) if self.orders.capacity() > ORDERS_RESERVED => {
                    self.order(Order::Report(Box::new(report))).await;
                }
                Action::Report(_) => tracing::debug!("a report is left out: the session is behind"),
                Action::PersistLease { until_ms } => {
                    // The guards first: a disk may take its time.
                    self.host.lease_until_ms.send_replace(until_ms);
                    if let Err(error) = self.host.records.save_lease(&self.boot_id, until_ms) {
                        tracing::warn!(%error, "the lease is not remembered");
                    }
                }
                Action::DeleteVolume { claim, volume } => self.delete_volume(claim, volume),
                Action::VolumeTask { order, guest: None } => self.run_volume_task(order),
                Action::VolumeTask { order, guest: Some((pod, _)) } => {
                    let answer = lost_volume_task(&order);
                    if self.pod(pod).send(action).is_some() {
                        self.handle(Input::VolumeTask(answer));
                    }
                }
                Action::Note(note) => tracing::info!("{note}"),
                Action::SetNics(nics) => _ = self.nics.send_replace(Some(nics)),
                Action::SetGpuMode(gpu) => self.set_gpu_mode(gpu),
                Action::Prepare { ref pod } => self.hand_on(pod.id, action),
                Action::ResizeVm(ref order) => self.hand_on(order.pod.id, action),
                Action::StartVm(ref start) => self.hand_on(start.pod.id, action),
                Action::PersistRecord(ref record) => self.hand_on(record.pod, action),
                Action::ForgetRecord { pod }
                | Action::UpdateFiles { pod, .. }
                | Action::SetCpus { pod, .. }
                | Action::StopVm { pod, .. }
                | Action::KillVm { pod, .. }
                | Action::CleanUp { pod, .. } => self.hand_on(pod, action),
            }
        }
        self.retire();
    }

    /// Gives an order to a pod's task, or back to the core: it is never lost.
    fn hand_on(&mut self, pod: ObjectId, action: Action) {
        if let Some(action) = self.pod(pod).send(action) {
            let is_kept = self.agent.refused(clock::boot_ms(), action);
            assert!(is_kept, "it is about a pod");
        }
    }

    fn run_volume_task(&self, order: VolumeOrder) {
        let (volumes, inputs) = (self.host.volumes(), self.inputs.clone());
        tokio::spawn(async move {
            // The loop has ended when nobody takes it; the next agent is asked again.
            let _ = inputs.send(Input::VolumeTask(volumes.run(order, None).await)).await;
            passed(Step::VolumeTaskTold);
        });
    }

    fn delete_volume(&self, claim: ObjectId, volume: Uuid) {
        let (volumes, inputs) = (self.host.volumes(), self.inputs.clone());
        tokio::task::spawn_blocking(move || match volumes.delete(volume) {
            Ok(()) => {
                tracing::info!(%claim, %volume, "the volume is deleted");
                // The loop has ended when nobody takes it; the next agent is asked again.
                let _ = inputs.blocking_send(Input::VolumeDeleted { claim });
                passed(Step::VolumeRemovalTold);
            }
            // The core asks again.
            Err(error) => tracing::error!(%claim, %volume, %error, "the volume cannot be deleted"),
        });
    }

    async fn order(&self, order: Order) {
        if self.orders.send(order).await.is_err() {
            tracing::error!("the session's task has ended");
        }
    }

    fn pod(&mut self, pod: ObjectId) -> &PodHandle {
        if !self.pods.contains_key(&pod) {
            self.spawn(pod, None);
        }
        &self.pods[&pod]
    }

    fn spawn(&mut self, pod: ObjectId, vm: Option<Vm>) {
        let before = self.retired.remove(&pod);
        let handle = PodHandle::spawn(Arc::clone(&self.host), pod, self.inputs.clone(), vm, before);
        self.pods.insert(pod, handle);
    }

    /// Lets go of pods that the core has forgotten.
    fn retire(&mut self) {
        self.retired.retain(|_, task| !task.is_finished());
        let forgotten: Vec<ObjectId> =
            self.pods.keys().filter(|pod| !self.agent.knows(**pod)).copied().collect();
        for pod in forgotten {
            self.names.remove(pod);
            if let Some(handle) = self.pods.remove(&pod) {
                self.retired.insert(pod, handle.into_task());
            }
        }
    }
}
