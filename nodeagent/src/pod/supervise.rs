//! A guest that runs: its process, console, control channel and guest channel, until its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_guest_protocol::host::PodConfig;
use bulkhead_nodeagent_core::{GuestTimes, Input};
use bulkhead_types::VolumeFiles;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;

use super::start::Launched;
use super::{network, silence};
use crate::channel::{ResizeOrder, Talk};
use crate::host::Host;
use crate::qmp::{Qmp, QmpError};
use crate::steps::{Step, passed};
use crate::vm::command::{GUEST_SOCKET, QMP_SOCKET};
use crate::vm::console::{self, CONSOLE_LOG};
use crate::vm::guarded;
use crate::vm::process::Killer;
use crate::vm::socket;
use crate::volumes::{MachineCall, Still, VolumePort};
use crate::{clock, disk, host_ports};

/// How long what a guest said before its end may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A guest of a pod.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) instance: u32,
    /// Of QEMU.
    pub(crate) pid: i32,
    killer: Killer,
    stop: watch::Sender<Option<u64>>,
    files: watch::Sender<Vec<VolumeFiles>>,
    port: VolumePort,
    resize: mpsc::Sender<ResizeOrder>,
    /// Ends with its owner, the guest does not.
    task: AbortOnDropHandle<()>,
}

impl Vm {
    /// Watches a guest from now on. Its end is told once, after everything that it said. `start` is the span of the
    /// pod's start.
    pub(crate) fn supervise(
        host: &Arc<Host>,
        launched: Launched,
        started_at_ms: u64,
        inputs: mpsc::Sender<Input>,
        start: Option<Span>,
    ) -> Self {
        let (stop, stopped) = watch::channel(None);
        let (files, files_changed) = watch::channel(launched.files.clone());
        let (machine, calls) = mpsc::channel(MACHINE_CALLS_MAX);
        let (guest, volume_orders) = mpsc::channel(MACHINE_CALLS_MAX);
        let (resize, resizing) = mpsc::channel(MACHINE_CALLS_MAX);
        let disks = disks_of(&launched.config);
        let still: Arc<Still> = Arc::default();
        let port = VolumePort { machine, guest, still: Arc::clone(&still), disks };
        let killer = launched.process.killer().expect("a descriptor more can be had: the limit is far away");
        let (instance, pid) = (launched.instance, launched.process.pid);
        let pod_dir = host.records.pod_dir(launched.pod);
        let streams = host.streams.begin(launched.pod);
        let talk = Talk {
            pod: launched.pod,
            instance,
            config: launched.config.clone(),
            logs: host.logs.pod(launched.pod, &pod_dir.join("logs")),
            streams,
            inputs: inputs.clone(),
            stop: stopped,
            files: files_changed,
            volume_orders,
            times: GuestTimes::new(started_at_ms, clock::both()),
            resizing,
            start,
            starts: Arc::new(host.starts.of(launched.pod, &pod_dir)),
            look_every: host.look_every(),
            still,
        };
        let task = watched(watch_over(Arc::clone(host), launched, (talk, calls), inputs));
        Self { instance, pid, killer, stop, files, port, resize, task }
    }

    pub(crate) fn lives(&self) -> bool {
        !self.task.is_finished()
    }

    pub(crate) fn stop(&self, grace_ms: u64) {
        self.stop.send_replace(Some(grace_ms));
    }

    /// Gives the guest files of volumes; an older change that it was not told yet is passed over.
    pub(crate) fn update_files(&self, volumes: Vec<VolumeFiles>) {
        self.files.send_replace(volumes);
    }

    /// The way to do something with its volumes while it runs.
    pub(crate) fn volume_port(&self) -> VolumePort {
        self.port.clone()
    }

    /// The way to ask the guest for other sizes.
    pub(crate) fn resize_port(&self) -> mpsc::Sender<ResizeOrder> {
        self.resize.clone()
    }

    pub(crate) fn kill(&self) {
        if let Err(error) = self.killer.kill() {
            tracing::error!(%error, "the guest cannot be killed");
        }
        passed(Step::Killed);
    }

    /// Stops watching; the guest goes on.
    pub(crate) async fn leave(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Kills what is left and waits for its end.
    pub(crate) async fn end(self) {
        self.kill();
        let _ = self.task.await;
    }
}

/// A task that ends when nobody holds it any more.
fn watched<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

async fn watch_over(
    host: Arc<Host>,
    launched: Launched,
    (talk, calls): (Talk, mpsc::Receiver<MachineCall>),
    inputs: mpsc::Sender<Input>,
) {
    let Launched { process, instance, pod, dir, ports, bound, .. } = launched;
    let pod_dir = host.records.pod_dir(pod);
    let lease_until_ms = host.lease_until_ms.subscribe();
    let exited = CancellationToken::new();
    let (logs, streams) = (talk.logs.clone(), talk.streams.clone());
    let log = pod_dir.join(CONSOLE_LOG);
    let boots = silence::Boot::new(pod, instance, inputs.clone());
    let mut console = watched(console::record(dir.clone(), log, exited.clone(), boots));
    let (starts, every, disks) = (Arc::clone(&talk.starts), host.look_every(), disks_of(&talk.config));
    let still = Arc::clone(&talk.still);
    let watch = silence::Watch { pod, instance, every, inputs: inputs.clone(), starts, still, disks };
    let control = watched(silence::control(dir.join(QMP_SOCKET), watch, calls));
    let ports = watched(host_ports::keep(streams.clone(), ports, bound));
    let renewals = watched(guarded::renew(dir.clone(), lease_until_ms));
    let mut channel = watched(converse(talk, dir.join(GUEST_SOCKET), exited.clone()));
    let status = process.wait().await;
    passed(Step::ProcessEnded);
    exited.cancel();
    drop(ports);
    // The sockets are closed now: what is still in them is read to the end.
    let read_out = async { tokio::join!(&mut channel, &mut console) };
    let _ = tokio::time::timeout(LAST_WORDS, read_out).await;
    drop((channel, console, control, renewals));
    logs.end_all();
    streams.end("the pod's guest has ended");
    let last_console = console::last_lines(&pod_dir, &dir);
    passed(Step::LastWordsRead);
    tracing::info!(%pod, instance, status, "guest ended");
    // Disks and sockets of a guest that ended are of no use to anybody.
    if let Err(error) = disk::remove_dir(&dir) {
        tracing::warn!(%pod, %error, "the guest's files cannot be removed yet");
    }
    passed(Step::FolderRemoved);
    if let Err(reason) = network::release(&host, pod).await {
        tracing::warn!(%pod, reason, "the guest's tap cannot be removed yet");
    }
    let group = host.group_of(&dir, pod, instance);
    if let Some(limit_bytes) = host.cgroups.out_of_memory(&group) {
        tracing::warn!(%pod, instance, limit_bytes, "the kernel killed the guest for want of memory");
        let _ = inputs.send(Input::VmOutOfMemory { pod, instance, limit_bytes }).await;
    }
    let of_guest = Arc::clone(&host);
    if let Err(error) = super::blocking(move || of_guest.cgroups.remove_once_empty(&group)).await {
        // The pod's removal tries again.
        tracing::warn!(%pod, %error, "the guest's control group cannot be removed yet");
    }
    passed(Step::CgroupRemoved);
    let input = Input::VmExited { pod, instance, status, at_ms: clock::unix_ms(), last_console };
    let _ = inputs.send(input).await;
    passed(Step::EndTold);
}

/// Talks with the guest until its process has ended and everything was read.
async fn converse(mut talk: Talk, socket: PathBuf, exited: CancellationToken) {
    loop {
        let stream = tokio::select! {
            stream = socket::connect_when_there(&socket) => stream,
            () = exited.cancelled() => return,
        };
        passed(Step::ChannelOpen);
        if let Err(error) = talk.run(stream).await {
            tracing::debug!(pod = %talk.pod, %error, "the guest channel broke");
        }
        if exited.is_cancelled() {
            return;
        }
        // QEMU closed it: its process is about to end.
        tokio::select! {
            () = exited.cancelled() => return,
            () = tokio::time::sleep(RECONNECT) => {}
        }
    }
}

/// After the guest channel broke while the process lives.
const RECONNECT: Duration = Duration::from_millis(200);

/// QEMU's word for a guest that stands still because somebody said so.
const PAUSED: &str = "paused";
/// Most commands that wait for QEMU, or wishes for a guest.
const MACHINE_CALLS_MAX: usize = 8;

/// What each of a guest's disks is of, in QEMU's order: containers first, then the volumes that have one.
fn disks_of(config: &PodConfig) -> Vec<Option<String>> {
    let containers = config.init_containers.iter().chain(&config.containers).map(|_| None);
    let volumes = config.volumes.iter().filter(|volume| !volume.disk_serial.is_empty());
    containers.chain(volumes.map(|volume| Some(volume.name.clone()))).collect()
}

/// Whether QEMU answers on its control socket: a process that does not is of no use.
pub(crate) async fn answers(dir: &std::path::Path) -> bool {
    let status = async {
        let mut qmp = Qmp::negotiate(socket::connect(&dir.join(QMP_SOCKET)).await?).await?;
        let status = qmp.query_status().await?;
        // The agent's last life ended while it copied a volume of the guest.
        if status == PAUSED {
            qmp.execute("cont", serde_json::json!({})).await?;
        }
        Ok::<_, QmpError>(status)
    };
    match status.await {
        Ok(status) => {
            tracing::debug!(status, "adopted machine");
            true
        }
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "a guest was found, but QEMU does not answer");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::UnixListener;

    use super::*;

    /// What a QEMU is asked that says this of its machine, and whether it is of use.
    async fn asked(status: &str) -> (bool, Vec<String>) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let listener = UnixListener::bind(dir.path().join(QMP_SOCKET)).expect("bound");
        let qemu = async {
            let (stream, _) = listener.accept().await.expect("the agent connects");
            let (reader, mut writer) = stream.into_split();
            writer.write_all(b"{\"QMP\": {}}\n").await.expect("the agent reads");
            let (mut lines, mut commands) = (BufReader::new(reader).lines(), Vec::new());
            while let Some(line) = lines.next_line().await.expect("the agent writes") {
                let request: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                let command = request["execute"].as_str().expect("a command").to_owned();
                let answer = match command.as_str() {
                    "query-status" => serde_json::json!({ "status": status }),
                    _ => serde_json::json!({}),
                };
                let answer = serde_json::json!({ "return": answer, "id": request["id"] });
                writer.write_all(format!("{answer}\n").as_bytes()).await.expect("the agent reads");
                commands.push(command);
            }
            commands
        };
        tokio::join!(answers(dir.path()), qemu)
    }

    /// The agent's last life ended while it copied a volume.
    #[tokio::test]
    async fn a_guest_that_is_found_standing_still_goes_on() {
        let (is_of_use, commands) = asked("paused").await;
        assert!(is_of_use);
        assert_eq!(commands, ["qmp_capabilities", "query-status", "cont"]);
        // One that stands still for another reason is not touched.
        for status in ["running", "guest-panicked", "io-error"] {
            let (is_of_use, commands) = asked(status).await;
            assert!(is_of_use, "{status}");
            assert_eq!(commands, ["qmp_capabilities", "query-status"], "{status}");
        }
    }
}
