//! One task for each pod of the node: it does what the core asks for, in order.
//!
//! ```text
//!  driver ─ Action ─► Worker ─┬─ prepare.rs    images, in the background; ended by CleanUp
//!                             ├─ start.rs      disks, configuration, QEMU
//!                             └─ supervise.rs  process, console, control, guest channel ─ Input ─► driver
//! ```

mod disks;
mod host_pages;
mod network;
mod networks;
mod pooled;
mod prepare;
mod resize;
mod running;
mod silence;
mod start;
mod supervise;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_nodeagent_core::{Action, Input, ResizeVm, RunsOn, StartPhase, StartVm, reason};
use bulkhead_types::{ObjectId, PodIntent, VolumeOrder, VolumeResult};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;

use crate::host::Host;
use crate::image::Image;
use crate::steps::{Step, passed};
use crate::vm::affinity;
use crate::vm::console::CONSOLE_LOG;
use crate::volumes::VolumePort;
use crate::{clock, disk, starts, trace};
pub(crate) use silence::Boot;
pub(crate) use start::Launched;
pub(crate) use supervise::{Vm, answers};

/// Most actions that wait for one pod. The core keeps what comes beyond it.
const ACTIONS_MAX: usize = 64;

/// The images of a pod's containers, held as long as the pod uses them.
type Images = Arc<Mutex<BTreeMap<String, Image>>>;

/// The driver's end of a pod's task.
#[derive(Debug)]
pub(crate) struct PodHandle {
    sender: mpsc::Sender<Action>,
    task: JoinHandle<()>,
}

impl PodHandle {
    /// Starts the task of a pod. `vm` is a guest that was found; `before` the pod's former task.
    pub(crate) fn spawn(
        host: Arc<Host>,
        pod: ObjectId,
        inputs: mpsc::Sender<Input>,
        vm: Option<Vm>,
        before: Option<JoinHandle<()>>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(ACTIONS_MAX);
        let images = Images::default();
        let worker = Worker {
            host,
            pod,
            inputs,
            images,
            preparing: None,
            attaching: None,
            record_error: None,
            vm,
            starting: None,
            pinning: None,
            resizing: None,
        };
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            worker.run(receiver).await;
        });
        Self { sender, task }
    }

    /// Lets go of the task: it ends when everything that was asked is done.
    pub(crate) fn into_task(self) -> JoinHandle<()> {
        self.task
    }

    /// Asks for something; gives it back when there is no room.
    #[must_use]
    pub(crate) fn send(&self, action: Action) -> Option<Action> {
        let error = self.sender.try_send(action).err()?;
        tracing::warn!(%error, "a pod's task is behind; what it is to do is asked for again");
        Some(error.into_inner())
    }
}

struct Worker {
    host: Arc<Host>,
    pod: ObjectId,
    inputs: mpsc::Sender<Input>,
    images: Images,
    preparing: Option<JoinHandle<()>>,
    /// Binds the pod's devices beside its images; never cut short.
    attaching: Option<JoinHandle<()>>,
    /// The last record could not be written: nothing may start.
    record_error: Option<io::Error>,
    vm: Option<Vm>,
    /// The span of a start that is being prepared.
    starting: Option<Span>,
    /// Virtual CPUs are pinned once QEMU has said which threads they are.
    pinning: Option<AbortOnDropHandle<()>>,
    /// The guest gets other sizes.
    resizing: Option<AbortOnDropHandle<()>>,
}

impl Worker {
    async fn run(mut self, mut actions: mpsc::Receiver<Action>) {
        while let Some(action) = actions.recv().await {
            self.act(action).await;
        }
        self.stop_preparing().await;
        if let Some(vm) = self.vm.take() {
            vm.leave().await;
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Prepare { pod } => self.prepare(pod).await,
            Action::PersistRecord(record) => {
                let records = self.host.records.clone();
                self.record_error = blocking(move || records.save(&record)).await.err();
            }
            Action::ForgetRecord { pod } => {
                let records = self.host.records.clone();
                if let Err(error) = blocking(move || records.forget(pod)).await {
                    tracing::error!(%pod, %error, "the record cannot be forgotten; it is found again at the next start");
                }
            }
            Action::StartVm(start) => self.start(*start).await,
            Action::UpdateFiles { instance, volumes, .. } => {
                if let Some(vm) = self.vm.as_ref().filter(|vm| vm.instance == instance) {
                    vm.update_files(volumes);
                }
            }
            Action::SetCpus { instance, runs_on, .. } => self.set_cpus(instance, runs_on).await,
            Action::StopVm { instance, grace_ms, .. } => {
                if let Some(vm) = self.vm.as_ref().filter(|vm| vm.instance == instance) {
                    vm.stop(grace_ms);
                    passed(Step::StopAsked);
                }
            }
            Action::KillVm { instance, .. } => self.kill(instance).await,
            Action::VolumeTask { order, guest } => {
                let instance = guest.map(|(_, instance)| instance);
                let vm = self.vm.as_ref().filter(|vm| Some(vm.instance) == instance && vm.lives());
                self.run_volume_task(order, vm.map(Vm::volume_port));
            }
            Action::ResizeVm(order) => self.resize(*order).await,
            Action::CleanUp { keep_logs, .. } => self.clean_up(keep_logs).await,
            Action::Join
            | Action::Report(_)
            | Action::PersistLease { .. }
            | Action::DeleteVolume { .. }
            | Action::SetGpuMode(_)
            | Action::SetNics(_)
            | Action::Note(_) => {
                unreachable!("the driver keeps these for itself")
            }
        }
    }

    /// Brings the guest to other sizes, beside all else that is asked for.
    async fn resize(&mut self, order: ResizeVm) {
        // The next agent must know that the guest may be anything between.
        if let Some(error) = &self.record_error {
            let answer = resize::not_written(&order, error);
            let _ = self.inputs.send(Input::VmResized(Box::new(answer))).await;
            return;
        }
        let vm = self.vm.as_ref().filter(|vm| vm.instance == order.instance && vm.lives());
        // Its end is told by whoever watches it.
        let Some(vm) = vm else { return };
        let dir = self.host.records.instance_dir(self.pod, order.instance);
        let group = self.host.group_of(&dir, self.pod, order.instance);
        let guest = resize::Guest {
            host: Arc::clone(&self.host),
            group,
            machine: vm.volume_port(),
            words: vm.resize_port(),
        };
        let inputs = self.inputs.clone();
        // One at a time: an earlier one has given up by now, or its guest is gone.
        self.resizing = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let answer = resize::run(guest, order).await;
            let _ = inputs.send(Input::VmResized(Box::new(answer))).await;
            passed(Step::ResizeTold);
        })));
    }

    /// Moves all threads of the guest, and then pins its virtual CPUs where they have a CPU each.
    async fn set_cpus(&mut self, instance: u32, runs_on: RunsOn) {
        if let Some(pinning) = self.pinning.take() {
            pinning.abort();
            let _ = pinning.await;
        }
        let Some(vm) = self.vm.as_ref().filter(|vm| vm.instance == instance && vm.lives()) else { return };
        let (pid, pod, cpus) = (vm.pid, self.pod, runs_on.cpus.clone());
        match blocking(move || affinity::set(pid, &cpus)).await {
            Ok(()) => {
                tracing::debug!(%pod, instance, cpus = %runs_on, "the guest runs on these CPUs");
                self.pinning =
                    self.host.numa.pin((pod, pid), runs_on, vm.volume_port()).map(AbortOnDropHandle::new);
            }
            Err(error) => tracing::warn!(%pod, instance, %error, "the guest is not moved to its CPUs"),
        }
    }

    async fn prepare(&mut self, pod: PodIntent) {
        self.stop_preparing().await;
        let span = start_span(&pod);
        self.host.starts.begin(self.pod, &span);
        self.starting = Some(span);
        if !pod.devices.is_empty() {
            let (passthrough, id, devices) = (self.host.passthrough.clone(), pod.id, pod.devices.clone());
            let networks = pod.networks.clone();
            self.attaching = Some(tokio::spawn(async move {
                // The start does it again, and says what is wrong: another guest may still have one of them.
                if let Err(reason) = passthrough.attach_to(&networks, id, &devices).await {
                    tracing::debug!(pod = %id, reason, "devices are not ready yet");
                }
            }));
        }
        let (host, images, inputs) = (Arc::clone(&self.host), Arc::clone(&self.images), self.inputs.clone());
        self.preparing = Some(tokio::spawn(prepare::run(host, pod, images, inputs)));
    }

    async fn stop_preparing(&mut self) {
        if let Some(task) = self.preparing.take() {
            task.abort();
            let _ = task.await;
        }
        if let Some(task) = self.attaching.take() {
            let _ = task.await;
        }
    }

    async fn start(&mut self, start: StartVm) {
        let span = self.starting.take().unwrap_or_else(|| start_span(&start.pod));
        let instance = start.instance;
        span.record("instance", instance);
        self.host.starts.end(self.pod, StartPhase::Room, Some(StartPhase::Disks));
        let images = self.images.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let started = match self.record_error.take() {
            Some(error) => Err(start::StartError::new(
                if start::is_full(&error) { reason::DISK_PRESSURE } else { reason::RECORD_NOT_WRITTEN },
                format!("the record cannot be written: {error}"),
            )),
            None => start::run(&self.host, start, &images, &span).await,
        };
        let input = match started {
            Ok(launched) => {
                let started_at_ms = clock::unix_ms();
                // Before the guest can say a word.
                let input = Input::VmStarted { pod: self.pod, instance, started_at_ms };
                let _ = self.inputs.send(input).await;
                passed(Step::StartTold);
                let (host, inputs) = (Arc::clone(&self.host), self.inputs.clone());
                self.vm = Some(Vm::supervise(&host, launched, started_at_ms, inputs, Some(span)));
                return;
            }
            Err(error) => {
                if let Err(reason) = network::release(&self.host, self.pod).await {
                    tracing::warn!(pod = %self.pod, reason, "the guest's tap is not removed yet");
                }
                // Nothing half made stays until the next attempt, least of all on a disk that is full.
                let dir = self.host.records.instance_dir(self.pod, instance);
                if let Err(error) = blocking(move || disk::remove_dir(&dir)).await {
                    tracing::debug!(pod = %self.pod, %error, "what was begun of a guest stays until the next");
                }
                Input::VmStartFailed {
                    pod: self.pod,
                    instance,
                    reason: error.reason.into(),
                    message: error.message,
                }
            }
        };
        let _ = self.inputs.send(input).await;
    }

    /// Does something with a volume that the guest has, beside all else that is asked for.
    fn run_volume_task(&self, order: VolumeOrder, port: Option<VolumePort>) {
        let (volumes, inputs) = (self.host.volumes(), self.inputs.clone());
        tokio::spawn(async move {
            let result = match port {
                Some(port) => volumes.run(order, Some(port)).await,
                None => lost_volume_task(&order),
            };
            let _ = inputs.send(Input::VolumeTask(result)).await;
            passed(Step::VolumeTaskTold);
        });
    }

    async fn kill(&mut self, instance: u32) {
        match self.vm.as_ref().filter(|vm| vm.instance == instance && vm.lives()) {
            // Its end is told by whoever watches it.
            Some(vm) => vm.kill(),
            None => {
                let input = Input::VmExited {
                    pod: self.pod,
                    instance,
                    status: "no process".to_owned(),
                    at_ms: clock::unix_ms(),
                    last_console: String::new(),
                };
                let _ = self.inputs.send(input).await;
            }
        }
    }

    async fn clean_up(&mut self, keep_logs: bool) {
        self.stop_preparing().await;
        if let Some(vm) = self.vm.take() {
            vm.end().await;
        }
        passed(Step::CleanUpBegun);
        self.images.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let (host, pod) = (Arc::clone(&self.host), self.pod);
        if let Err(reason) = self.give_back_devices().await {
            // The core asks again.
            tracing::error!(%pod, reason, "the pod's devices cannot be given back");
            return;
        }
        // Before its address is another pod's.
        if let Err(reason) = network::release(&self.host, self.pod).await {
            tracing::error!(%pod, reason, "the pod's tap cannot be removed");
            return;
        }
        passed(Step::DevicesReleased);
        match blocking(move || remove_all(&host, pod, keep_logs)).await {
            Ok(()) => {
                let _ = self.inputs.send(Input::VmGone { pod }).await;
                passed(Step::CleanUpTold);
            }
            // The core asks again.
            Err(error) => tracing::error!(%pod, %error, "the pod's files cannot be removed"),
        }
    }

    /// Gives back the pod's devices, whose guest is gone. One that is sick by now is told of before the pod is: it must not be
    /// given away meanwhile.
    async fn give_back_devices(&self) -> Result<(), String> {
        let sick = self.host.passthrough.release(self.pod).await?;
        for device in self.host.passthrough.take_resets().await {
            let _ = self.inputs.send(Input::DeviceReset { device }).await;
        }
        if !sick.is_empty() {
            let (_, devices) = self.host.passthrough.look(None).await;
            let _ = self.inputs.send(Input::Devices(devices)).await;
        }
        Ok(())
    }
}

/// The span of a pod's start, from when the agent is told of it.
fn start_span(pod: &PodIntent) -> Span {
    let span = tracing::info_span!(
        "pod.start",
        pod = %pod.id, uid = %pod.uid, namespace = %pod.namespace, name = %pod.name,
        instance = tracing::field::Empty
    );
    trace::set_parent(&span, pod.trace_context.as_deref());
    span
}

/// What is answered where a guest was gone before anything was done.
pub(crate) fn lost_volume_task(order: &VolumeOrder) -> VolumeResult {
    let message = "the guest has ended, or the agent is busy: it is tried again".into();
    VolumeResult { id: order.id, task: order.task, size_bytes: 0, done: false, message }
}

/// Removes everything of a pod but its record and, if they are kept, its logs and its console.
fn remove_all(host: &Host, pod: ObjectId, keep_logs: bool) -> io::Result<()> {
    let dir = host.records.pod_dir(pod);
    // Those of a guest whose process was still being reaped when it ended.
    host.cgroups.remove_of(pod)?;
    if !keep_logs {
        host.logs.remove(pod);
        host.starts.remove(pod);
    }
    passed(Step::LogsRemoved);
    let entries = match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_name().to_str() {
            Some("record.json") => {}
            Some("logs" | starts::FILE) if keep_logs => {}
            // What the guest said last may be why the pod ended.
            Some(name) if keep_logs && name.starts_with(CONSOLE_LOG) => {}
            _ if entry.file_type()?.is_dir() || entry.file_type()?.is_symlink() => {
                disk::remove_linked_dir(&entry.path())?;
            }
            _ => disk::remove_file(&entry.path())?,
        }
        passed(Step::FileRemoved);
    }
    Ok(())
}

/// Runs file operations where they hold nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
