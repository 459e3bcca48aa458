//! A guest of the pool becomes a pod's: its disks are made in the guest's folder, opened here, and added by descriptor; then the pod gets
//! a link to that folder, and with it the guest is the pod's, also for the next agent.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bulkhead_nodeagent_core::qemu::{Accel, BlockDriver, spare_port};
use bulkhead_nodeagent_core::{HostLimits, StartPhase, StartVm, VM_POOL_DISKS_MAX, needs_own_boot};
use serde_json::json;

use super::disks::PlannedDisk;
use super::start::{StartError, Written, clear_pod, fill};
use super::{blocking, network};
use crate::clock;
use crate::error::chain;
use crate::host::Host;
use crate::network::Connection;
use crate::qmp::Qmp;
use crate::steps::{Step, passed};
use crate::vm::guarded;
use crate::vm::process::Process;
use crate::vm::session::open_tap;
use crate::vm_pool::PooledVm;

/// A guest for this pod, with its disks, if the pool has one that fits: its folder and its process. One that cannot be furnished ends, and the pod gets a guest of its
/// own.
pub(super) async fn take(
    host: &Host,
    start: &StartVm,
    disks: &Arc<Vec<PlannedDisk>>,
    written: &Arc<Written>,
) -> Option<(PathBuf, Process)> {
    if !host.pool.is_there() {
        return None;
    }
    let (pod, begun_ms) = (start.pod.id, clock::boot_ms());
    let taken = match needs_own_boot(start, disks.len(), host.numa.is_several()) {
        Some(why) => Err(why.to_owned()),
        None => host.pool.take(start.size, start.lease_until_ms.is_some()).await,
    };
    let mut vm = match taken {
        Ok(vm) => vm,
        Err(why) => {
            tracing::debug!(%pod, why, "the pod's guest is booted for it");
            host.starts.booted_because(pod, &why);
            return None;
        }
    };
    if vm.copied {
        host.starts.was(pod, StartPhase::Restore, begun_ms);
    }
    match furnish(host, start, &mut vm, disks, written).await {
        Ok(()) => {
            host.starts.booted_before(pod, vm.copied);
            let (dir, process) = (vm.dir.clone(), vm.into_process());
            tracing::info!(pid = process.pid, dir = %dir.display(), "a guest of the pool is the pod's");
            Some((dir, process))
        }
        Err(error) => {
            tracing::warn!(%pod, error = error.message, "a guest of the pool is of no use");
            host.starts.booted_because(
                pod,
                &format!("the guest that was booted before is of no use: {}", error.message),
            );
            let (dir, group) = (vm.dir.clone(), vm.group());
            vm.end().await;
            let _ = host.cgroups.remove(&group);
            let removed = blocking(move || crate::disk::remove_dir(&dir)).await;
            if let Err(error) = removed {
                tracing::debug!(%error, "what it left is removed by the next agent");
            }
            None
        }
    }
}

async fn furnish(
    host: &Host,
    start: &StartVm,
    vm: &mut PooledVm,
    disks: &Arc<Vec<PlannedDisk>>,
    written: &Arc<Written>,
) -> Result<(), StartError> {
    let mut qmp = vm.qmp.take().ok_or_else(|| io::Error::other("it was furnished before"))?;
    let (pod_dir, dir) = (host.records.pod_dir(start.pod.id), vm.dir.clone());
    // Before it has anything of the pod.
    match start.lease_until_ms {
        Some(until_ms) if vm.guarded => {
            let newest_ms = *host.lease_until_ms.borrow();
            guarded::bind(&dir, until_ms.max(newest_ms)).await?;
        }
        Some(_) => return Err(io::Error::other("it has no guard").into()),
        None if vm.guarded => guarded::let_go(&dir)?,
        None => {}
    }
    passed(Step::PooledBound);
    let made = {
        let (disks, written) = (Arc::clone(disks), Arc::clone(written));
        blocking(move || {
            Ok(clear_pod(&pod_dir).map_err(StartError::from).and_then(|()| fill(&dir, &disks, &written)))
        })
    };
    made.await??;
    let limits = HostLimits::new(&start.pod, start.size, host.accel != Accel::Kvm);
    host.cgroups.change(&vm.group(), limits)?;
    passed(Step::PooledLimited);
    for (number, disk) in disks.iter().enumerate() {
        add(&mut qmp, vm, number, disk).await.map_err(|error| io::Error::other(chain(&*error)))?;
    }
    if let Some(connection) = network::connection(host, start) {
        network::connect(host, start).await?;
        connect(&mut qmp, host, connection).await.map_err(|error| io::Error::other(chain(&*error)))?;
    }
    let link = host.records.pod_dir(start.pod.id).join(start.instance.to_string());
    std::os::unix::fs::symlink(&vm.dir, link)?;
    passed(Step::PooledLinked);
    Ok(())
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Adds one disk. QEMU is given open files: paths mean nothing in its jail.
async fn add(qmp: &mut Qmp, vm: &PooledVm, number: usize, planned: &PlannedDisk) -> Result<(), AnyError> {
    let disk = &planned.disk;
    // Nobody but the agent can make a file of this name there: it was made anew.
    let file = OpenOptions::new().read(true).write(true).open(vm.dir.join(&disk.file))?;
    let filename = qmp.add_file(&file, &disk.file).await?;
    let node = format!("file{number}");
    let driver = match disk.driver {
        BlockDriver::Raw | BlockDriver::HostDevice => "raw",
        BlockDriver::Qcow2 => "qcow2",
    };
    let cache = disk.cache();
    let mut backend = json!({
        "driver": driver,
        "node-name": node,
        "discard": "unmap",
        "cache": { "direct": cache.direct, "no-flush": cache.no_flush },
        "file": { "driver": protocol(&file)?, "filename": filename },
    });
    if let Some(image) = planned.image() {
        let file = File::open(&image)?;
        let filename = qmp.add_file(&file, &image.to_string_lossy()).await?;
        backend["backing"] = json!({
            "driver": "raw",
            "read-only": true,
            "file": { "driver": protocol(&file)?, "filename": filename, "read-only": true },
        });
    }
    qmp.execute("blockdev-add", backend).await?;
    passed(Step::PooledDiskKnown);
    let device = json!({
        "driver": "virtio-blk-pci",
        "id": format!("disk{number}"),
        "bus": spare_port(number),
        "drive": node,
        "serial": disk.serial,
    });
    qmp.execute("device_add", device).await?;
    passed(Step::PooledDiskAdded);
    Ok(())
}

/// What QEMU reads an open file with.
fn protocol(file: &File) -> io::Result<&'static str> {
    Ok(if file.metadata()?.file_type().is_block_device() { "host_device" } else { "file" })
}

/// Adds the network card, on its pod's tap.
async fn connect(qmp: &mut Qmp, host: &Host, connection: Connection) -> Result<(), AnyError> {
    // A tap in memory only is none that could be opened.
    if let Some(tap) = host.network.as_ref().and_then(|network| network.to_open(connection.tap)) {
        let tap = File::from(open_tap(&CString::new(tap)?)?);
        qmp.name_file("tap", &tap).await?;
    }
    qmp.execute("netdev_add", json!({ "type": "tap", "id": "net0", "fd": "tap" })).await?;
    let device = json!({
        "driver": "virtio-net-pci",
        "id": "nic0",
        "bus": spare_port(VM_POOL_DISKS_MAX),
        "netdev": "net0",
        "mac": connection.mac,
        "romfile": "",
    });
    qmp.execute("device_add", device).await?;
    passed(Step::PooledNicAdded);
    Ok(())
}
