//! Guests and QEMUs that say nothing any more, and those that still boot.
//!
//! QEMU is asked for its status again and again; the guest is asked by `channel.rs`. What they leave unanswered is counted in
//! questions and not in time, so an agent that did not run for a while accuses nobody. The core decides what follows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead_nodeagent_core::{Input, SILENT_QUESTIONS, StartPhase};
use bulkhead_types::ObjectId;
use serde_json::{Value, json};
use smol_str::SmolStr;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::qmp::{Qmp, QmpError, QmpEvent};
use crate::starts::StartOf;
use crate::steps::{Step, passed};
use crate::vm::socket;
use crate::volumes::{MachineCall, Still};

/// Output of a guest that boots is told this often, at most.
const BOOT_TELLS: Duration = Duration::from_secs(1);

/// Whose QEMU is asked how often, and who is told.
pub(super) struct Watch {
    pub(super) pod: ObjectId,
    pub(super) instance: u32,
    pub(super) every: Duration,
    pub(super) inputs: mpsc::Sender<Input>,
    /// What the start of its guest spends its time with.
    pub(super) starts: Arc<StartOf>,
    pub(super) still: Arc<Still>,
    /// What each of its disks is of, as [`crate::volumes::VolumePort`] has it.
    pub(super) disks: Vec<Option<String>>,
}

/// Listens to what QEMU tells of the machine, passes on what others have to say to it, and asks whether it still answers, until it
/// closes the socket.
pub(super) async fn control(path: PathBuf, watch: Watch, mut calls: mpsc::Receiver<MachineCall>) {
    let mut unanswered = 0;
    loop {
        let connected = async { Qmp::negotiate(socket::connect_when_there(&path).await).await };
        match timeout(watch.every, connected).await {
            Ok(Ok(qmp)) => {
                passed(Step::ControlOpen);
                watch.starts.end(StartPhase::Qemu, Some(StartPhase::Firmware));
                let ended = listen(qmp, &watch, &mut calls).await;
                tracing::debug!(pod = %watch.pod, error = %ended, "QEMU's control socket is closed");
                // Its process is about to end; otherwise the next connection says so.
                unanswered = 0;
                tokio::time::sleep(watch.every).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(pod = %watch.pod, %error, "QEMU cannot be controlled yet");
                tokio::time::sleep(watch.every).await;
                unanswered += 1;
            }
            Err(_) => unanswered += 1,
        }
        watch.judge(unanswered).await;
    }
}

/// Until the connection is of no use any more.
async fn listen(mut qmp: Qmp, watch: &Watch, calls: &mut mpsc::Receiver<MachineCall>) -> QmpError {
    let mut unanswered = 0;
    let mut look = tokio::time::interval(watch.every);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = qmp.next_event() => match event {
                Ok(event) => {
                    unanswered = 0;
                    tracing::debug!(pod = %watch.pod, event = event.event, data = %event.data, "machine event");
                    if let Some(node) = without_room(&event) {
                        watch.found_no_room(node).await;
                    }
                }
                Err(error) => return error,
            },
            Some(MachineCall { command, arguments, answer }) = calls.recv() => {
                // Who asked may have given up. A connection that is of no use says so with the next question.
                let _ = answer.send(qmp.execute(command, arguments).await);
            }
            _ = look.tick() => {
                match timeout(watch.every, qmp.query_status()).await {
                    Ok(Ok(status)) => {
                        unanswered = 0;
                        if let Err(error) = watch.look_for_room(&status, &mut qmp).await {
                            return error;
                        }
                    }
                    Ok(Err(QmpError::Refused { .. })) => unanswered = 0,
                    Ok(Err(QmpError::Timeout)) | Err(_) => unanswered += 1,
                    Ok(Err(error)) => return error,
                }
                watch.judge(unanswered).await;
            }
        }
    }
}

/// QEMU's word for a guest that it stopped because a disk failed; by its default only for want of room (`werror=enospc`).
const IO_ERROR: &str = "io-error";

/// Its word for one that runs.
const RUNNING: &str = "running";

/// The node of the disk for which there was no room, if that is what QEMU tells; a guest that stands still for anything else is
/// nobody's that this agent started.
fn without_room(event: &QmpEvent) -> Option<&str> {
    let is_that = event.event == "BLOCK_IO_ERROR"
        && event.data.get("nospace").and_then(Value::as_bool) == Some(true)
        && event.data.get("action").and_then(Value::as_str) == Some("stop");
    is_that.then(|| event.data.get("node-name").and_then(Value::as_str).unwrap_or_default())
}

impl Watch {
    /// A guest that stands still is told once, and let go on with each look: QEMU tries the write again, and stops it again while there is
    /// no room. It goes on when it ran from one look to the next.
    async fn look_for_room(&self, status: &str, qmp: &mut Qmp) -> Result<(), QmpError> {
        if status != IO_ERROR {
            // Held for a copy it neither goes on nor has room.
            if status == RUNNING && self.still.without_room.swap(false, Ordering::Relaxed) {
                tracing::info!(pod = %self.pod, "the guest has room for what it writes, and goes on");
                let (pod, instance) = (self.pod, self.instance);
                let _ = self.inputs.send(Input::GuestGoesOn { pod, instance }).await;
            }
            return Ok(());
        }
        self.found_no_room("").await;
        // Whoever copies a volume of it has it go on afterwards.
        let Ok(_held) = self.still.for_copy.try_lock() else { return Ok(()) };
        match qmp.execute("cont", json!({})).await {
            Ok(_) | Err(QmpError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn found_no_room(&self, node: &str) {
        if self.still.without_room.swap(true, Ordering::Relaxed) {
            return;
        }
        let number = node.strip_prefix("file").and_then(|number| number.parse::<usize>().ok());
        let volume = number.and_then(|number| self.disks.get(number)?.as_deref());
        tracing::warn!(pod = %self.pod, node, volume, "the guest stands still: there is no room for what it writes");
        let (pod, instance, volume) = (self.pod, self.instance, volume.map(SmolStr::from));
        let _ = self.inputs.send(Input::GuestWithoutRoom { pod, instance, volume }).await;
    }

    async fn judge(&self, unanswered: u32) {
        if unanswered >= SILENT_QUESTIONS {
            let input = Input::QemuSilent { pod: self.pod, instance: self.instance };
            // Nobody listens when the agent is about to end.
            let _ = self.inputs.send(input).await;
        }
    }
}

/// Tells of a guest that boots, as long as it writes to its console.
pub(crate) struct Boot {
    pod: ObjectId,
    instance: u32,
    inputs: mpsc::Sender<Input>,
    told: Option<Instant>,
}

impl Boot {
    pub(super) fn new(pod: ObjectId, instance: u32, inputs: mpsc::Sender<Input>) -> Self {
        Self { pod, instance, inputs, told: None }
    }

    /// It wrote something. What finds no room to be told is told with what it writes next.
    pub(crate) fn wrote(&mut self) {
        if self.told.is_none_or(|at| at.elapsed() >= BOOT_TELLS) {
            let input = Input::GuestBoots { pod: self.pod, instance: self.instance };
            if self.inputs.try_send(input).is_ok() {
                self.told = Some(Instant::now());
            }
        }
    }
}
