//! A pod's task and the devices of its pod, on a kernel in memory.

use std::path::{Path, PathBuf};

use bulkhead_nodeagent_core::QemuUser;
use bulkhead_nodeagent_core::passthrough::KernelModel;
use bulkhead_nodeagent_core::qemu::Accel;
use bulkhead_types::{Container, DeviceHealth, DeviceIntent, ImagePullPolicy, Name, PodSpec, Rare, Shared};
use tokio::sync::watch;

use super::*;
use crate::cgroup::{Cgroups, KernelFiles};
use crate::confinement::Confinement;
use crate::host::Boot;
use crate::image::{ImageStore, ImageStoreOptions};
use crate::logs::LogStore;
use crate::passthrough::Passthrough;
use crate::records::Records;
use crate::streams::StreamStore;
use crate::{ConfinementChoice, KernelSource};

const POD: ObjectId = ObjectId(7);
const CARD: &str = "0000:42:00.0";

fn host(data: &Path, passthrough: Passthrough) -> Arc<Host> {
    let kernel = KernelSource::Folder(PathBuf::from("/nowhere"));
    Arc::new(Host {
        data: data.to_owned(),
        records: Records::new(data),
        images: ImageStore::open(data, ImageStoreOptions::default()).expect("a store"),
        logs: LogStore::default(),
        streams: StreamStore::default(),
        starts: crate::starts::Starts::default(),
        pool: crate::vm_pool::VmPoolHandle::default(),
        volumes: crate::volumes::Volumes::new(data, None),
        mem_merge: false,
        confinement: Confinement::none(QemuUser::Agent, data.join("root"), ConfinementChoice::Off),
        cgroups: Cgroups::open(Arc::new(KernelFiles), None, "agent"),
        boot: Boot::new(data.to_owned(), kernel, PathBuf::from("/nowhere")),
        qemu: PathBuf::from("/nowhere"),
        guard: Vec::new(),
        lease_until_ms: watch::Sender::new(0),
        passthrough,
        network: None,
        accel: Accel::Tcg { multi: false },
        numa: crate::numa::Numa::default(),
        sandbox: false,
        container_backoff_ms: (0, 0),
        silence_ms: 60_000,
    })
}

pub(super) fn pod_with_card() -> PodIntent {
    let container = Container {
        name: "main".into(),
        image: "nowhere/none:1".into(),
        image_pull_policy: ImagePullPolicy::Never,
        ..Container::default()
    };
    let device = DeviceIntent {
        container: "main".into(),
        resource: "example.com/card".into(),
        device: CARD.into(),
        address: CARD.into(),
        share: None,
        lost: false,
        visible_env: "CARDS".into(),
        visible_as: "0".into(),
    };
    PodIntent {
        id: POD,
        uid: uuid::Uuid::from_u128(7),
        namespace: Name::new("default").expect("a name"),
        name: Name::new("p").expect("a name"),
        spec: Shared::new(PodSpec { containers: vec![container], ..PodSpec::default() }),
        deletion: None,
        ended: false,
        unique: true,
        trace_context: None,
        resolved: Rare::NONE,
        claims: vec![],
        devices: vec![device],
        networks: vec![],
        cpus: None,
        batch: false,
        resizing: false,
        bandwidth: None,
    }
}

/// What a pod's task tells of a pod that is prepared and cleaned up, and the card after it.
async fn told(is_sick: bool) -> (Vec<&'static str>, DeviceHealth) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut kernel = KernelModel::new(&[]);
    kernel.function(CARD, "1d22:3684", "120000", Some(44), None, &[]);
    kernel.break_reset(CARD.parse().expect("an address"), is_sick);
    let passthrough = Passthrough::open(dir.path(), kernel, "boot", &[]).expect("no notes");
    let (inputs, mut told) = mpsc::channel(16);
    let handle = PodHandle::spawn(host(dir.path(), passthrough.clone()), POD, inputs, None, None);
    handle.send(Action::Prepare { pod: pod_with_card() });
    handle.send(Action::CleanUp { pod: POD, keep_logs: false });
    handle.into_task().await.expect("it ends");
    let mut kinds = Vec::new();
    while let Some(input) = told.recv().await {
        match input {
            Input::Devices(devices) => {
                assert!(matches!(devices[0].health, DeviceHealth::Unhealthy { .. }), "{devices:?}");
                kinds.push("devices");
            }
            Input::VmGone { .. } => kinds.push("gone"),
            // Its image is nowhere.
            _ => {}
        }
    }
    let left = std::fs::read_dir(dir.path().join("devices")).expect("listed").count();
    assert_eq!(left, 1, "no note but the quarantine's folder is left");
    let (_, devices) = passthrough.look(None).await;
    (kinds, devices[0].health.clone())
}

#[tokio::test]
async fn pain_30_devices_come_back_before_their_pod_is_gone_and_a_sick_one_is_told_first() {
    assert_eq!(told(false).await, (vec!["gone"], DeviceHealth::Healthy));
    let (kinds, health) = told(true).await;
    assert_eq!(kinds, ["devices", "gone"]);
    assert!(matches!(health, DeviceHealth::Unhealthy { .. }));
}

#[test]
fn a_container_knows_its_devices_by_its_variable() {
    let pod = pod_with_card();
    let second = DeviceIntent { visible_as: "2".into(), ..pod.devices[0].clone() };
    let others = DeviceIntent { container: "side".into(), visible_as: "9".into(), ..second.clone() };
    let pod = PodIntent { devices: vec![pod.devices[0].clone(), second, others], ..pod };
    let mut env = vec!["PATH=/bin".to_owned(), "CARDS=all".to_owned()];
    start::show_devices(&pod, &pod.spec.containers[0], &mut env);
    assert_eq!(env, ["PATH=/bin", "CARDS=0,2"]);
}
