//! One task for each pod of the node: it does what the core asks for, in order.
//!
//! ```text
//!  driver ─ Action ─► Worker ─┬─ prepare.rs    images, in the background; ended by CleanUp
//!                             ├─ start.rs      disks, configuration, QEMU
//!                             └─ supervise.rs  process, console, control, guest channel ─ Input ─► driver
//! ```

mod disks;
mod prepare;
mod running;
mod start;
mod supervise;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_nodeagent_core::{Action, Input, StartVm, reason};
use bulkhead_types::{ObjectId, PodIntent};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::host::Host;
use crate::image::Image;
use crate::vm::affinity;
use crate::{clock, disk, trace};
pub(crate) use start::Launched;
pub(crate) use supervise::{Vm, answers};

/// Most actions that wait for one pod. The core repeats what gets lost beyond it.
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
        let worker =
            Worker { host, pod, inputs, images, preparing: None, attaching: None, record_error: None, vm };
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

    /// Asks for something.
    pub(crate) fn send(&self, action: Action) {
        if let Err(error) = self.sender.try_send(action) {
            tracing::warn!(%error, "a pod's task is behind; an action is left out and will be asked for again");
        }
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
            Action::SetCpus { instance, cpus, .. } => {
                if let Some(vm) = self.vm.as_ref().filter(|vm| vm.instance == instance && vm.lives()) {
                    let (pid, pod) = (vm.pid, self.pod);
                    match blocking(move || affinity::set(pid, &cpus).map(|()| cpus)).await {
                        Ok(cpus) => tracing::debug!(%pod, instance, %cpus, "the guest runs on these CPUs"),
                        Err(error) => {
                            tracing::warn!(%pod, instance, %error, "the guest is not moved to its CPUs")
                        }
                    }
                }
            }
            Action::StopVm { instance, grace_ms, .. } => {
                if let Some(vm) = self.vm.as_ref().filter(|vm| vm.instance == instance) {
                    vm.stop(grace_ms);
                }
            }
            Action::KillVm { instance, .. } => self.kill(instance).await,
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

    async fn prepare(&mut self, pod: PodIntent) {
        self.stop_preparing().await;
        if !pod.devices.is_empty() {
            let (passthrough, id, devices) = (self.host.passthrough.clone(), pod.id, pod.devices.clone());
            self.attaching = Some(tokio::spawn(async move {
                // The start does it again, and says what is wrong: another guest may still have one of them.
                if let Err(reason) = passthrough.attach(id, &devices).await {
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
        let span = tracing::info_span!(
            "pod.start",
            pod = %start.pod.id, uid = %start.pod.uid, namespace = %start.pod.namespace, name = %start.pod.name,
            instance = start.instance
        );
        trace::set_parent(&span, start.pod.trace_context.as_deref());
        let instance = start.instance;
        let images = self.images.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let started = match self.record_error.take() {
            Some(error) => Err(start::StartError::new(
                reason::RECORD_NOT_WRITTEN,
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
                let (host, inputs) = (Arc::clone(&self.host), self.inputs.clone());
                self.vm = Some(Vm::supervise(&host, launched, started_at_ms, inputs, Some(span)));
                return;
            }
            Err(error) => Input::VmStartFailed {
                pod: self.pod,
                instance,
                reason: error.reason.into(),
                message: error.message,
            },
        };
        let _ = self.inputs.send(input).await;
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
        self.images.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let (host, pod) = (Arc::clone(&self.host), self.pod);
        if let Err(reason) = self.give_back_devices().await {
            // The core asks again.
            tracing::error!(%pod, reason, "the pod's devices cannot be given back");
            return;
        }
        match blocking(move || remove_all(&host, pod, keep_logs)).await {
            Ok(()) => {
                let _ = self.inputs.send(Input::VmGone { pod }).await;
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

/// Removes everything of a pod but its record and, if they are kept, its logs.
fn remove_all(host: &Host, pod: ObjectId, keep_logs: bool) -> io::Result<()> {
    let dir = host.records.pod_dir(pod);
    if !keep_logs {
        host.logs.remove(pod);
    }
    let entries = match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_name().to_str() {
            Some("record.json") => {}
            Some("logs") if keep_logs => {}
            _ if entry.file_type()?.is_dir() => disk::remove_dir(&entry.path())?,
            _ => disk::remove_file(&entry.path())?,
        }
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
mod tests;
