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

pub(crate) fn host(data: &Path, passthrough: Passthrough) -> Arc<Host> {
    let kernel = KernelSource::Folder(PathBuf::from("/nowhere"));
    Arc::new(Host {
        data: data.to_owned(),
        records: Records::new(data),
        images: ImageStore::open(data, ImageStoreOptions::default()).expect("a store"),
        registry_config: None,
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
        undying: crate::undying::Undying::default(),
        passthrough,
        kernel: Arc::new(crate::kernel_watch::FakeKernel::default()),
        network: None,
        accel: Accel::Tcg { multi: false },
        trial_deadline: std::time::Duration::from_secs(1),
        numa: crate::numa::Numa::default(),
        sandbox: false,
        container_backoff_ms: (0, 0),
        pod_pids_limit: 100,
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
        pull_credentials: Rare::NONE,
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
    assert_eq!(handle.send(Action::Prepare { pod: pod_with_card() }), None);
    assert_eq!(handle.send(Action::CleanUp { pod: POD, keep_logs: false }), None);
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

/// What a pod's guests said on their consoles is there as long as its logs are.
#[tokio::test]
async fn the_console_of_a_pod_that_ended_stays_with_its_logs() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let passthrough = Passthrough::open(dir.path(), KernelModel::new(&[]), "boot", &[]).expect("no notes");
    let host = host(dir.path(), passthrough);
    let pod_dir = host.records.pod_dir(POD);
    std::fs::create_dir_all(pod_dir.join("logs/main")).expect("made");
    for file in ["record.json", "console.log", "console.log.1", "else"] {
        std::fs::write(pod_dir.join(file), file).expect("written");
    }
    let left = |keep_logs: bool| {
        remove_all(&host, POD, keep_logs).expect("removed");
        let names = std::fs::read_dir(&pod_dir).expect("listed").flatten();
        let mut names: Vec<_> = names.map(|one| one.file_name().into_string().expect("text")).collect();
        names.sort();
        names
    };
    assert_eq!(left(true), ["console.log", "console.log.1", "logs", "record.json"]);
    assert_eq!(left(false), ["record.json"]);
}

/// A guest is told of its pod in one message, which has a bound; a pod beyond it says so and does not start.
#[test]
fn a_pod_of_which_no_guest_can_be_told_is_not_started() {
    use bulkhead_guest_protocol::host::{ContainerConfig, PodConfig};
    let check = |bytes: usize, expected: Result<(), &str>| {
        let container = ContainerConfig { env: vec!["x".repeat(bytes)], ..ContainerConfig::default() };
        let config = PodConfig { containers: vec![container], ..PodConfig::default() };
        let refused =
            start::check_length(&config).map_err(|error| format!("{}: {}", error.reason, error.message));
        match (refused, expected) {
            (Ok(()), Ok(())) => {}
            (Err(refused), Err(expected)) => assert!(refused.starts_with(expected), "{refused}"),
            other => panic!("{other:?}"),
        }
    };
    check(1_000_000, Ok(()));
    check(
        1 << 20,
        Err("CreateContainerConfigError: the commands, arguments and variables of its containers"),
    );
}

/// A registry that lets nobody in, and repeats what it was told.
fn shut_registry() -> String {
    use std::io::{BufRead as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let lines = std::io::BufReader::new(&stream).lines().map_while(Result::ok);
            let told: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let body = format!(r#"{{"errors":[{{"code":"DENIED","message":{:?}}}]}}"#, told.join(" "));
            let (status, more) = match told[0].contains("/manifests/") {
                true => ("403 Forbidden", ""),
                false => ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"r\"\r\n"),
            };
            let head = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\n", body.len());
            let _ =
                write!(&stream, "{head}Content-Type: application/json\r\nConnection: close\r\n\r\n{body}");
        }
    });
    address
}

#[tokio::test]
async fn a_pull_that_is_refused_says_so_without_what_it_was_tried_with() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let passthrough = Passthrough::open(dir.path(), KernelModel::new(&[]), "boot", &[]).expect("no notes");
    let address = shut_registry();
    let mut pod = PodIntent { devices: vec![], ..pod_with_card() };
    let mut spec = PodSpec::clone(&pod.spec);
    spec.containers[0].image = format!("{address}/team/app:1").into();
    spec.containers[0].image_pull_policy = ImagePullPolicy::Always;
    pod.spec = Shared::new(spec);
    let credential = bulkhead_types::RegistryCredential {
        registry: address.clone(),
        username: b"me".to_vec().into(),
        password: b"hunter2".to_vec().into(),
        secret: "keys".into(),
        ..Default::default()
    };
    pod.pull_credentials = Rare::some(bulkhead_types::PullCredentials {
        credentials: vec![credential],
        missing: vec!["gone".into()],
        problems: vec!["Secret other: is of no use".to_owned()],
    });
    let (inputs, mut told) = mpsc::channel(16);
    prepare::run(host(dir.path(), passthrough), pod, Images::default(), inputs).await;
    let Some(Input::ImageFailed { reason, message, .. }) = told.recv().await else { panic!("it fails") };
    assert_eq!(reason, "ErrImagePull");
    for words in [
        format!("unauthorized with the credentials for {address} of Secret keys"),
        "Unable to retrieve some image pull secrets (gone)".to_owned(),
        "Secret other: is of no use".to_owned(),
        "Basic ***".to_owned(),
    ] {
        assert!(message.contains(&words), "{words} is not in {message}");
    }
    assert!(!message.contains("hunter2") && !message.contains("bWU6aHVudGVyMg"), "{message}");
    assert!(told.recv().await.is_none());
}
