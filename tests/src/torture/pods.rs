//! What agents run meanwhile: a Deployment that is scaled and rolled all the time, in guests of `stand-in-qemu`.
//!
//! Everything but the hypervisor is real: images, overlays, sockets, processes, records, adoption. In the end there must
//! be a guest for each pod, and nothing besides: no process, no folder, no overlay, no socket.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::v1;
use bulkhead_types::{Command as Change, Kind, Name, ObjectRef};
use tonic::{Request, Status};
use v1::commands_client::CommandsClient;
use v1::queries_client::QueriesClient;

use super::load::{Load, connect};
use super::rng::Rng;
use crate::image::{IMAGE_NAME, build_layout};
use crate::process::{bulkhead, find_program, pids_with};

/// The Deployment, and what the command line calls it.
const NAME: &str = "churned";
pub(crate) const TARGET: &str = "deployment/churned";
/// Most replicas while it is churned.
const REPLICAS_MAX: usize = 6;
/// Replicas in the end.
pub(crate) const REPLICAS_LAST: u32 = 3;
/// Between two changes, in milliseconds.
const CHANGE_MS: (u64, u64) = (1500, 4000);
/// Longest wait for one answer.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// An ELF header that passes for a static x86-64 program; nobody runs it.
const INIT: [u8; 64] = {
    let mut bytes = [0; 64];
    [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]] = *b"\x7fELF\x02\x01";
    bytes[18] = 62;
    bytes
};
/// Modules that a guest needs, all built into the kernel that nobody boots.
const MODULES: [&str; 10] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
];

/// What agents start guests with.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    qemu: PathBuf,
    kernel_dir: PathBuf,
    guest: PathBuf,
    layout: PathBuf,
}

/// A guest's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Guest {
    /// Its pod's id.
    pub(crate) pod: u64,
    pub(crate) instance: u32,
    pub(crate) pid: i32,
}

/// A pod as the servers know it.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) id: u64,
    /// The node's name; empty when it has none.
    pub(crate) node: String,
    pub(crate) is_running: bool,
    pub(crate) is_leaving: bool,
}

impl Parts {
    /// Makes them below `dir`.
    ///
    /// # Errors
    /// What is missing on this machine.
    pub(crate) fn prepare(dir: &Path) -> Result<Self, String> {
        for program in ["qemu-img", "mkfs.ext4"] {
            find_program(program).ok_or_else(|| format!("{program} is missing; remedy: make deps"))?;
        }
        let qemu = bulkhead().with_file_name("stand-in-qemu");
        if !qemu.is_file() {
            return Err(format!("{} is missing; remedy: cargo test -p bulkhead-tests", qemu.display()));
        }
        let (kernel_dir, guest) = (dir.join("kernel"), dir.join("guest-init"));
        let modules_dir = kernel_dir.join("lib/modules/0");
        let builtin: Vec<String> = MODULES.iter().map(|name| format!("kernel/{name}.ko\n")).collect();
        fs::create_dir_all(kernel_dir.join("boot"))
            .and_then(|()| fs::create_dir_all(&modules_dir))
            .and_then(|()| fs::write(kernel_dir.join("boot/vmlinuz-0"), "no kernel"))
            .and_then(|()| fs::write(modules_dir.join("modules.builtin"), builtin.concat()))
            .and_then(|()| fs::write(&guest, INIT))
            .map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self { qemu, kernel_dir, guest, layout: build_layout(dir)? })
    }

    /// The agent's switches.
    pub(crate) fn equip(&self, command: &mut Command) {
        command.arg("--qemu").arg(&self.qemu).arg("--kernel-dir").arg(&self.kernel_dir);
        command.arg("--guest").arg(&self.guest);
    }

    /// Puts the image into an agent's store.
    pub(crate) fn import(&self, data_dir: &Path) -> Result<(), String> {
        let mut command = Command::new(bulkhead());
        command.args(["image", "import", "--tag", "v1", "--name", IMAGE_NAME, "--data-dir"]).arg(data_dir);
        let done = command.arg(&self.layout).output().map_err(|error| error.to_string())?;
        let complaint = String::from_utf8_lossy(&done.stderr);
        if done.status.success() { Ok(()) } else { Err(format!("image import: {complaint}")) }
    }
}

/// The Deployment at its beginning.
pub(crate) fn manifest() -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {NAME}}}\nspec:\n  replicas: {REPLICAS_LAST}\n  \
         selector: {{matchLabels: {{app: {NAME}}}}}\n  template:\n    metadata: {{labels: {{app: {NAME}}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      containers:\n      - name: web\n        image: {IMAGE_NAME}\n        \
         imagePullPolicy: Never\n        resources: {{limits: {{cpu: 200m, memory: 64Mi}}}}\n"
    )
}

fn deployment() -> ObjectRef {
    let name = |text| Name::new(text).expect("a name");
    ObjectRef { kind: Kind::Deployment, namespace: Some(name("default")), name: name(NAME) }
}

/// Changes it now and then until the load is stopped; whoever waits for this task sees no change of it after that. A change that no server takes is left out.
pub(crate) async fn churn(load: Arc<Load>, mut rng: Rng) {
    while !load.is_stopped() {
        tokio::time::sleep(rng.millis(CHANGE_MS.0, CHANGE_MS.1)).await;
        if load.is_stopped() {
            return;
        }
        let change = if rng.below(3) == 0 {
            Change::RestartRollout {
                deployment: deployment(),
                restarted_at: format!("{:x}", rng.next()).into(),
            }
        } else {
            let replicas = u32::try_from(rng.below(REPLICAS_MAX + 1)).expect("a few");
            Change::Scale { object: deployment(), replicas }
        };
        let command = v1::UserCommand::try_from(&change).expect("a user's command");
        let request_id = uuid::Uuid::from_u64_pair(rng.next(), rng.next()).to_string();
        let mut request =
            Request::new(v1::SubmitRequest { request_id, commands: vec![command], ..Default::default() });
        request.set_timeout(ATTEMPT);
        let mut client = CommandsClient::new(connect(&load.pick_server(&mut rng)));
        // Faults go on meanwhile: what counts is what is there in the end.
        let _ = tokio::time::timeout(ATTEMPT, client.submit(request)).await;
    }
}

/// All pods, as a linearizable read has them.
pub(crate) async fn list(address: &str) -> Result<Vec<Pod>, Status> {
    let request = |kind: v1::Kind| {
        let mut request =
            Request::new(v1::ListRequest { kind: kind.into(), limit: 1000, ..Default::default() });
        request.set_timeout(ATTEMPT);
        request
    };
    let mut client = QueriesClient::new(connect(address));
    let nodes = client.list(request(v1::Kind::Node)).await?.into_inner().items;
    let pods = client.list(request(v1::Kind::Pod)).await?.into_inner().items;
    let node_name = |id: u64| {
        nodes.iter().find_map(|object| match &object.object {
            Some(v1::object::Object::Node(node)) => node.meta.as_ref().filter(|meta| meta.id == id),
            _ => None,
        })
    };
    let pod = |object: v1::Object| {
        let Some(v1::object::Object::Pod(pod)) = object.object else { return None };
        let node = pod.node.and_then(node_name).map(|meta| meta.name.clone()).unwrap_or_default();
        let is_running = pod.status.as_ref().is_some_and(|s| s.phase() == v1::PodPhase::Running && s.ready);
        let meta = pod.meta?;
        Some(Pod { id: meta.id, node, is_running, is_leaving: meta.deletion.is_some() })
    };
    Ok(pods.into_iter().filter_map(pod).collect())
}

/// The guests of an agent, by the pid files on their command lines.
pub(crate) fn guests(data_dir: &Path) -> Vec<Guest> {
    let pods = format!("{}/", data_dir.join("pods").display());
    let guest = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let file = line.split('\0').skip_while(|word| *word != "-pidfile").nth(1)?;
        let mut parts = file.strip_prefix(&pods)?.split('/');
        Some(Guest { pod: parts.next()?.parse().ok()?, instance: parts.next()?.parse().ok()?, pid })
    };
    let mut found: Vec<Guest> = pids_with(&["-pidfile", &pods]).into_iter().filter_map(guest).collect();
    found.sort_unstable();
    found
}

/// What is wrong with an agent that should run these pods: each with one guest, and nothing besides.
pub(crate) fn differences(agent: &str, data_dir: &Path, pods: &[Pod]) -> Vec<String> {
    let mut found = Vec::new();
    let intended: BTreeSet<u64> = pods.iter().filter(|pod| pod.node == agent).map(|pod| pod.id).collect();
    let guests = guests(data_dir);
    for pod in &intended {
        let count = guests.iter().filter(|guest| guest.pod == *pod).count();
        if count != 1 {
            found.push(format!("pod {pod} on {agent} has {count} guests"));
        }
    }
    let orphans = guests.iter().filter(|guest| !intended.contains(&guest.pod));
    found.extend(orphans.map(|guest| format!("{agent} runs {guest:?}, of no pod")));
    let kept: BTreeSet<PathBuf> =
        guests.iter().map(|guest| data_dir.join(format!("pods/{}/{}", guest.pod, guest.instance))).collect();
    for dir in folders(&data_dir.join("pods")) {
        let pod = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        if pod.is_none_or(|pod| !intended.contains(&pod)) {
            found.push(format!("{agent} keeps {}, of no pod", dir.display()));
        }
    }
    let remains = files_below(data_dir).into_iter().filter(|file| is_of_guest(file));
    let remains = remains.filter(|file| !file.parent().is_some_and(|dir| kept.contains(dir)));
    found.extend(remains.map(|file| format!("{agent} keeps {}, of no guest", file.display())));
    found
}

/// Whether a file is of a running guest, or of something that is being made.
fn is_of_guest(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    [".sock", ".qcow2", ".pid", ".tmp", ".partial"].iter().any(|ending| name.ends_with(ending))
        || name.starts_with(".tmp")
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let entries: Vec<PathBuf> = entries.unwrap_or_default();
    entries.into_iter().filter(|path| path.is_dir()).collect()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let (dirs, mut files): (Vec<_>, Vec<_>) =
        entries.flatten().map(|entry| entry.path()).partition(|path| path.is_dir() && !path.is_symlink());
    files.extend(dirs.iter().flat_map(|dir| files_below(dir)));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_pod_needs_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path();
        let pod = Pod { id: 7, node: "node-1".into(), is_running: true, is_leaving: false };
        let check = |pods: &[Pod], expected: &[&str]| {
            let found = differences("node-1", data, pods);
            let fits = |(found, words): (&String, &&str)| found.contains(*words);
            assert!(found.len() == expected.len() && found.iter().zip(expected).all(fits), "{found:#?}");
        };
        check(&[], &[]);
        check(std::slice::from_ref(&pod), &["pod 7 on node-1 has 0 guests"]);
        check(&[Pod { node: "node-2".into(), ..pod.clone() }], &[]);
        fs::create_dir_all(data.join("pods/9/0")).expect("made");
        check(&[], &["pods/9, of no pod"]);
        fs::write(data.join("pods/9/0/web.qcow2"), "").expect("written");
        check(&[], &["pods/9, of no pod", "web.qcow2, of no guest"]);
    }
}
