//! Whole guests in QEMU: kernel, initramfs, image, overlay, container, logs, restart, stop.
//!
//! Needs `qemu-system-x86_64`, `/bin/busybox` (static), a kernel directory in `BULKHEAD_KERNEL_DIR` (see
//! `scripts/fetch-kernel.sh`) and the static guest binary in `BULKHEAD_GUEST`; where one is missing, the tests say so
//! and pass.

mod support;

use std::path::{Path, PathBuf};

use bulkhead_guest_protocol::guest::{ContainerState, ContainerStateKind, GuestMessage, LogStream, PodPhase};
use bulkhead_guest_protocol::host::{
    ContainerConfig, HostMessage, InterfaceConfig, Ping, PodConfig, RestartPolicy, ResumeLogs, RouteConfig,
    Stop,
};
use bulkhead_nodeagent::boot::{BootAssets, BootSources};
use bulkhead_nodeagent::image::{
    ImageStore, ImageStoreOptions, ProcessOverrides, create_overlay, resolve_process,
};
use bulkhead_nodeagent_core::qemu::{
    Accel, Cpu, HostDevice, HostMemPolicy, Kernel, Machine, MachineType, MachineUuid, Memory,
    MemoryBackendRam, Name, NumaNode, PortPlan, QemuCommand, Ram, Smp,
};
use serde_json::json;
use support::layout::{LayoutMaker, Node, layer};
use support::{Disk, Guest, SECOND_NETDEV};

/// Programs of the test image; all are busybox.
const APPLETS: &[&str] =
    &["sh", "cat", "echo", "id", "hostname", "seq", "sleep", "ls", "mount", "touch", "tail", "ip"];

/// One container of a test pod: a name and a shell script, or a command that is no script.
struct Script<'a>(&'a str, &'a [&'a str]);

/// What all tests need; `None` where this machine lacks something.
struct Lab {
    dir: tempfile::TempDir,
    assets: BootAssets,
    store: ImageStore,
    disks: Vec<Disk>,
}

impl Lab {
    async fn new() -> Option<Self> {
        let kernel =
            present("BULKHEAD_KERNEL_DIR", std::env::var_os("BULKHEAD_KERNEL_DIR").map(PathBuf::from))?;
        let guest = present("BULKHEAD_GUEST", std::env::var_os("BULKHEAD_GUEST").map(PathBuf::from))?;
        present("/bin/busybox", Some("/bin/busybox".into()))?;
        present("qemu-system-x86_64", Some("/usr/bin/qemu-system-x86_64".into()))?;
        let dir = tempfile::tempdir().expect("a directory");
        let sources = BootSources::from_kernel_dir(&kernel, &guest).expect("a kernel");
        let assets = BootAssets::prepare(dir.path(), &sources).expect("prepared");
        let options = ImageStoreOptions { free_bytes: 64 << 20, ..Default::default() };
        let store = ImageStore::open(dir.path(), options).expect("opened");
        import_busybox(dir.path(), &store).await;
        Some(Self { dir, assets, store, disks: Vec::new() })
    }

    /// A container of the test image with a disk of its own.
    fn container(&mut self, script: &Script<'_>) -> ContainerConfig {
        let Script(name, argv) = script;
        let image = self.store.find("busybox").expect("a name").expect("imported");
        let disk = self.dir.path().join(format!("{name}.qcow2"));
        create_overlay(&image.path, &disk, 0).expect("made");
        self.disks.push(Disk { path: disk, serial: format!("disk-{name}") });
        let overrides = ProcessOverrides {
            command: argv.iter().map(ToString::to_string).collect(),
            env: vec![("GREETING".into(), "hello".into())],
            hostname: "web-0".into(),
            ..Default::default()
        };
        let process = resolve_process(&image.config, &overrides).expect("resolved");
        ContainerConfig {
            name: name.to_string(),
            disk_serial: format!("disk-{name}"),
            argv: process.argv,
            env: process.env,
            working_dir: process.working_dir,
            uid: process.uid,
            gid: process.gid,
            additional_gids: process.additional_gids,
            ..Default::default()
        }
    }

    fn pod(&mut self, policy: RestartPolicy, init: &[Script<'_>], main: &[Script<'_>]) -> PodConfig {
        PodConfig {
            hostname: "web-0".into(),
            sandbox_id: "sandbox-1".into(),
            trace_context: "00-aa-bb-01".into(),
            init_containers: init.iter().map(|script| self.container(script)).collect(),
            containers: main.iter().map(|script| self.container(script)).collect(),
            restart_policy: policy as i32,
            termination_grace_ms: 30_000,
            interfaces: vec![InterfaceConfig {
                mac: "52:54:00:12:34:56".into(),
                address: "10.0.2.15/24".into(),
                gateway: "10.0.2.2".into(),
                mtu: 1400,
                ..Default::default()
            }],
            nameservers: vec!["10.0.2.3".into()],
            ..Default::default()
        }
    }

    fn start(&self) -> Guest {
        Guest::start(self.dir.path(), &self.assets, &self.disks, 160)
    }
}

fn present(what: &str, path: Option<PathBuf>) -> Option<PathBuf> {
    match path {
        Some(path) if path.exists() => Some(path),
        _ => {
            println!("skipped: {what} is missing or names nothing on this machine");
            None
        }
    }
}

async fn import_busybox(dir: &Path, store: &ImageStore) {
    let busybox = std::fs::read("/bin/busybox").expect("readable");
    let links: Vec<String> = APPLETS.iter().map(|name| format!("bin/{name}")).collect();
    let mut nodes = vec![
        Node::Dir("bin"),
        Node::File("bin/busybox", 0o755, &busybox),
        Node::Dir("etc"),
        Node::File("etc/passwd", 0o644, b"root:x:0:0::/:\nweb:x:33:34::/srv:\n"),
        Node::File("etc/group", 0o644, b"log:x:40:web\n"),
        Node::File("etc/noexec", 0o644, b"no program"),
        // A link that would lead to the guest's own files if it were followed outside of the container.
        Node::Link("etc/resolv.conf", "/proc/1/root/run/x"),
    ];
    nodes.extend(links.iter().map(|link| Node::Link(link, "busybox")));
    let mut layout = LayoutMaker::new(&dir.join("layout"));
    let config =
        json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["true"], "WorkingDir": "/srv/app", "User": "web"});
    layout.image("latest", "amd64", config, &[layer(&nodes)]);
    store.import_layout(&layout.dir, None, "busybox").await.expect("imported");
}

fn ended(name: &'static str) -> impl Fn(&ContainerState) -> bool {
    move |state| state.container == name && state.kind() == ContainerStateKind::Terminated
}

/// A second network, by a device that is known by its root port, and gets the network's MAC address.
fn attach_second_network(pod: &mut PodConfig, pci_port: String) {
    let route = RouteConfig { destination: "10.10.0.0/16".into(), gateway: "10.9.255.1".into() };
    pod.interfaces.push(InterfaceConfig {
        mac: "02:aa:00:00:00:01".into(),
        address: "10.9.0.7/16".into(),
        mtu: 1300,
        pci_port,
        name: "net1".into(),
        more_addresses: vec!["fd00::7/64".into()],
        routes: vec![route],
        ..Default::default()
    });
}

/// What a container sees of itself, its files about names, and the pod's interfaces.
const SHOWN: &[&str] = &[
    "hello\n",
    "uid=33(web) gid=34 groups=40(log)\n",
    "\nweb-0\n",
    "/srv/app\n",
    "10.0.2.15\tweb-0\n",
    "nameserver 10.0.2.3\n",
    "bad\n",
    "refused\n",
    "more\n",
    "inet 10.0.2.15/24",
    "mtu 1400",
    "default via 10.0.2.2 dev eth0",
    "net1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1300",
    "link/ether 02:aa:00:00:00:01",
    "inet 10.9.0.7/16",
    "inet6 fd00::7/64",
    "10.10.0.0/16 via 10.9.255.1 dev net1",
];

#[tokio::test]
async fn a_pod_runs_to_its_end() {
    let Some(mut lab) = Lab::new().await else { return };
    let show = "echo $GREETING; id; hostname; pwd; cat /etc/hosts /etc/resolv.conf; ls /dev; echo bad >&2; \
                touch /etc/mine || echo refused; echo more > /dev/stdout; ip addr show; ip route show; exit 3";
    let mut pod = lab.pod(
        RestartPolicy::Never,
        &[Script("init", &["/bin/sh", "-c", "echo prepared"])],
        &[
            Script("app", &["sh", "-c", show]),
            Script("root", &["sh", "-c", "echo $$$$; touch /written; mount; sleep 1"]),
        ],
    );
    (pod.containers[1].uid, pod.containers[1].read_only_root) = (0, true);
    attach_second_network(&mut pod, PortPlan::new(&[None], &Ram::Board).guest_port(0));
    pod.usage_interval_ms = 200;
    let mut guest = lab.start();
    let hello = guest.hello();
    println!("exec to Hello: {} ms (kernel to init: {} ms)", guest.elapsed_ms(), hello.boot_ms);
    assert!(!hello.configured && hello.kernel_release.starts_with(|c: char| c.is_ascii_digit()));
    guest.configure(pod);
    guest.wait_output("init", "prepared\n");
    println!("exec to the first line of output: {} ms", guest.elapsed_ms());
    guest.wait_state("init to end", ended("init"));
    guest.wait_phase(PodPhase::Running);
    let app = guest.wait_state("app to end", ended("app"));
    assert_eq!((app.exit_code, app.reason.as_str(), app.restart_count), (Some(3), "Error", 0));
    assert!(app.started_at_ms > 0 && app.finished_monotonic_ms >= app.started_monotonic_ms);
    guest.wait_phase(PodPhase::Failed);
    for name in ["init", "app", "root"] {
        guest.ack(name);
    }
    let stopping = guest.wait("Stopping", |message| match message {
        GuestMessage::Stopping(stopping) => Some(stopping.clone()),
        _ => None,
    });
    assert_eq!((stopping.reason.as_str(), stopping.message.as_str()), ("Completed", ""));
    guest.wait_exit();
    println!("exec to the end of QEMU: {} ms", guest.elapsed_ms());

    let output = guest.output("app");
    for expected in SHOWN {
        assert!(output.contains(expected), "{expected:?} in {output}");
    }
    assert!(!output.contains("vda") && !output.contains("vport"), "no device of the guest: {output}");
    let root = guest.output("root");
    assert!(root.starts_with("1\n"), "a pid namespace of its own: {root}");
    assert!(root.contains("Read-only file system") && root.contains("/dev/vdc on / type ext4 (ro"), "{root}");
    let stderr = guest.messages.iter().any(|message| {
        matches!(message, GuestMessage::LogChunk(c) if c.stream() == LogStream::Stderr && c.data.starts_with(b"bad"))
    });
    assert!(stderr, "standard error is marked as such");
    let usage = |name: &str| {
        guest.messages.iter().any(|message| {
            matches!(message, GuestMessage::Usage(u) if u.container == name && u.cpu_usec > 0 && u.memory_bytes > 0)
        })
    };
    assert!(usage("") && usage("root"), "usage of the pod and of a container");
}

/// A region of a device that is larger than what the board keeps for all of them: that of a graphics card's memory.
const LARGE_BAR_BYTES: u64 = 64 << 30;

/// Emulated devices for devices of the host, each with the NUMA node of the host that it is near to and with what it maps, in bytes, where
/// that is much.
fn stand_ins() -> [(String, Option<u32>, Vec<u64>); 5] {
    [
        (format!("virtio-net-pci,netdev={SECOND_NETDEV},romfile=,mac=52:54:00:12:34:57"), Some(4), vec![]),
        ("nvme,serial=near-to-1".to_owned(), Some(1), vec![]),
        ("virtio-rng-pci".to_owned(), Some(4), vec![]),
        ("virtio-balloon-pci".to_owned(), None, vec![]),
        (format!("pci-testdev,membar={LARGE_BAR_BYTES}"), Some(4), vec![LARGE_BAR_BYTES]),
    ]
}

/// The command line of a guest on NUMA nodes 1 and 4 of a host, as far as it is about memory, processors and devices of the host. This
/// machine need not have these NUMA nodes, nor these devices.
fn board(devices: &[(String, Option<u32>, Vec<u64>)]) -> (Vec<String>, PortPlan) {
    let node = |(first_cpu, host_node): (u32, u32)| {
        let (id, size_bytes) = (format!("mem{first_cpu}"), 96 << 20);
        let memdev =
            MemoryBackendRam { id, size_bytes, host_node, policy: HostMemPolicy::Bind, prealloc: false };
        NumaNode { first_cpu, cpus: 1, memdev }
    };
    let mut command = QemuCommand {
        name: Name { guest: "numa".to_owned(), debug_threads: true },
        uuid: MachineUuid(uuid::Uuid::from_u128(1)),
        machine: Machine {
            machine_type: MachineType::Q35,
            usb: false,
            dump_guest_core: false,
            mem_merge: false,
        },
        accel: Accel::Tcg { multi: true },
        cpu: Cpu::Max,
        smp: Smp { cpus: 2 },
        memory: Memory { size_bytes: 192 << 20 },
        ram: Ram::Nodes([(0, 1), (1, 4)].map(node).into()),
        kernel: Kernel { kernel: String::new(), initrd: String::new(), append: vec![] },
        incoming: false,
        growth: None,
        chardevs: vec![],
        serial: None,
        qmp: None,
        blockdevs: vec![],
        netdevs: vec![],
        devices: vec![],
        pci_hole64_bytes: None,
        sandbox: None,
        pidfile: None,
    };
    let host_device = |(number, (_, numa_node, bars)): (usize, &(String, Option<u32>, Vec<u64>))| {
        let address = format!("0000:{number:02x}:00.0").parse().expect("an address");
        HostDevice { address, numa_node: *numa_node, memory_bars_bytes: bars.clone() }
    };
    command.pass_through(&devices.iter().enumerate().map(host_device).collect::<Vec<_>>());
    let args = command.to_args();
    let pairs = args.windows(2).filter(|pair| {
        matches!(pair[0].as_str(), "-smp" | "-m" | "-object" | "-numa" | "-global" | "-device")
    });
    let numa_nodes: Vec<_> = devices.iter().map(|(_, node, _)| *node).collect();
    let emulated = |text: &String| match text.strip_prefix("vfio-pci,") {
        Some(rest) => {
            let (before, bus) = rest.rsplit_once("bus=port").expect("it is behind a port");
            assert!(before.starts_with("id=hostdev"), "{before}");
            format!("{},bus=port{bus}", devices[bus.parse::<usize>().expect("a number")].0)
        }
        None => text.replace(",host-nodes=1,policy=bind", "").replace(",host-nodes=4,policy=bind", ""),
    };
    let args = pairs.flat_map(|pair| [pair[0].clone(), emulated(&pair[1])]).collect();
    (args, PortPlan::new(&numa_nodes, &command.ram))
}

/// The guest's kernel says that a device is near to the NUMA node that stands for the host's, and finds it behind the port that was told.
#[tokio::test]
async fn devices_are_on_the_guests_numa_nodes() {
    let Some(mut lab) = Lab::new().await else { return };
    let (args, ports) = board(&stand_ins());
    let function = |number: usize| format!("/sys/bus/pci/devices/{}/0*", ports.guest_port(number));
    let shown: Vec<String> = (0..5).map(|number| format!("cat {}/numa_node", function(number))).collect();
    let show = format!(
        "{}; ip addr show net1; cat /sys/devices/system/node/online; while read first last flags; do \
         echo region $$((last - first + 1)) above $$((first >> 32)); done < $$(echo {}/resource)",
        shown.join("; "),
        function(4)
    );
    let mut pod = lab.pod(RestartPolicy::Never, &[], &[Script("app", &["sh", "-c", &show])]);
    attach_second_network(&mut pod, ports.guest_port(0));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut guest = Guest::start_on(lab.dir.path(), &lab.assets, &lab.disks, &args);
    guest.hello();
    guest.configure(pod);
    guest.wait_state("app to end", ended("app"));
    guest.wait_phase(PodPhase::Succeeded);
    let output = guest.output("app");
    assert!(output.starts_with("1\n0\n1\n-1\n1\n"), "{args:?} {output}");
    let line = output.lines().find_map(|line| line.strip_prefix(&format!("region {LARGE_BAR_BYTES} above ")));
    let above = line.and_then(|line| line.parse::<u64>().ok());
    assert!(above.is_some_and(|above| above > 0), "a large region is above 4 GiB, and whole: {output}");
    assert!(output.contains("link/ether 02:aa:00:00:00:01") && output.contains("0-1\n"), "{output}");
    guest.ack("app");
    guest.wait_exit();
}

#[tokio::test]
async fn failures_are_told_apart() {
    let Some(mut lab) = Lab::new().await else { return };
    let hog = "sleep 0.1; tail /dev/zero; echo not reached";
    let mut pod = lab.pod(
        RestartPolicy::Never,
        &[],
        &[
            Script("missing", &["no-such-command"]),
            Script("noexec", &["/etc/noexec"]),
            Script("hog", &["sh", "-c", hog]),
            Script("killed", &["sh", "-c", "(sleep 0.2; kill -9 1) & kill -SEGV $$$$; sleep 0.3; exit 7"]),
            Script("nodisk", &["true"]),
        ],
    );
    pod.containers[2].memory_bytes = 12 << 20;
    pod.containers[4].disk_serial = "elsewhere".into();
    let mut guest = lab.start();
    guest.hello();
    guest.configure(pod);
    guest.wait_phase(PodPhase::Failed);
    let last = |name: &str| {
        let states = guest.messages.iter().rev();
        let state = states.filter_map(|message| match message {
            GuestMessage::ContainerState(state) if state.container == name => Some(state),
            _ => None,
        });
        let state = state.clone().next().expect("a state");
        (state.exit_code.unwrap_or(-1), state.reason.clone(), state.message.clone())
    };
    let check = |name: &str, code: i32, reason: &str, message: &str| {
        let (got_code, got_reason, got_message) = last(name);
        assert_eq!((got_code, got_reason.as_str()), (code, reason), "{name}: {got_message}");
        assert!(got_message.starts_with(message), "{name}: {got_message}");
    };
    check("missing", 127, "ContainerCannotRun", "no-such-command: not found in the container's PATH");
    check("noexec", 126, "ContainerCannotRun", "/etc/noexec: Permission denied");
    check("hog", 137, "OOMKilled", "it used more memory than its limit");
    check("killed", 7, "Error", "");
    check(
        "nodisk",
        128,
        "ContainerCannotRun",
        "no virtio-blk disk with serial elsewhere; present: [disk-hog, disk-killed",
    );
    for name in ["missing", "noexec", "hog", "killed", "nodisk"] {
        guest.ack(name);
    }
    guest.wait_exit();
}

#[tokio::test]
async fn a_crash_loop_survives_a_restart_of_the_agent() {
    let Some(mut lab) = Lab::new().await else { return };
    let script = "echo run; exit 5";
    let mut pod = lab.pod(
        RestartPolicy::Always,
        &[],
        &[Script("app", &["sh", "-c", script]), Script("steady", &["sh", "-c", "echo steady; sleep 1000"])],
    );
    (pod.backoff_base_ms, pod.backoff_max_ms) = (100, 400);
    let mut guest = lab.start();
    guest.hello();
    guest.configure(pod);
    let waiting = guest.wait_state("CrashLoopBackOff", |state| state.reason == "CrashLoopBackOff");
    assert_eq!((waiting.kind(), waiting.exit_code), (ContainerStateKind::Waiting, Some(5)));
    assert_eq!(waiting.last_reason, "Error");
    guest.wait_state("a third restart", |state| state.restart_count >= 3);
    guest.wait_output("steady", "steady\n");
    guest.ack("steady");
    guest.wait_output("app", "run\nrun\nrun\n");

    // The agent dies in the middle of a message; the next one starts with nothing.
    let mut half = Vec::new();
    let text = "x".repeat(60);
    let resume = HostMessage::ResumeLogs(ResumeLogs { container: text, from_offset: 1 });
    bulkhead_guest_protocol::encode(&resume, &mut half).expect("fits");
    guest.send_raw(&half[..30]);
    guest.reconnect();
    let hello = guest.hello();
    assert!(hello.configured && hello.container_count == 2);
    assert_eq!((hello.sandbox_id.as_str(), hello.trace_context.as_str()), ("sandbox-1", "00-aa-bb-01"));
    guest.wait_phase(PodPhase::Running);
    let steady = guest.messages.iter().any(|message| {
        matches!(message, GuestMessage::ContainerState(s) if s.container == "steady" && s.kind() == ContainerStateKind::Running)
    });
    assert!(steady, "the answer holds all states: {:#?}", guest.messages);
    guest.wait_output("app", "run\nrun\nrun\n");
    assert_eq!(guest.output("steady"), "", "acknowledged output does not come again");

    // An agent that knows how far it had come.
    let end = guest.log_end("app");
    guest.reconnect();
    guest.hello();
    guest.send(HostMessage::ResumeLogs(ResumeLogs { container: "app".into(), from_offset: end }));
    guest.send(HostMessage::Ping(Ping { number: 7 }));
    guest.wait("Pong", |message| {
        matches!(message, GuestMessage::Pong(pong) if pong.number == 7).then_some(())
    });
    guest.wait_output("app", "run\n");
    guest.send(HostMessage::Stop(Stop { grace_ms: Some(0) }));
    guest.wait_phase(PodPhase::Failed);
    guest.ack("app");
    guest.wait_exit();
}

#[tokio::test]
async fn stop_asks_first_and_then_kills() {
    let Some(mut lab) = Lab::new().await else { return };
    // Its image wants another signal.
    let polite = "trap 'echo bye; exit 0' QUIT; echo ready; while :; do sleep 0.1; done";
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let mut pod = lab.pod(
        RestartPolicy::Always,
        &[],
        &[Script("polite", &["sh", "-c", polite]), Script("deaf", &["sh", "-c", deaf])],
    );
    pod.containers[0].stop_signal = 3;
    let mut guest = lab.start();
    guest.hello();
    guest.configure(pod);
    guest.wait_output("polite", "ready\n");
    guest.wait_output("deaf", "ready\n");
    guest.send(HostMessage::Stop(Stop { grace_ms: Some(1_500) }));
    let polite = guest.wait_state("polite to end", ended("polite"));
    assert_eq!((polite.exit_code, polite.reason.as_str()), (Some(0), "Completed"));
    let deaf = guest.wait_state("deaf to end", ended("deaf"));
    assert_eq!((deaf.exit_code, deaf.signal, deaf.reason.as_str()), (Some(137), 9, "Error"));
    assert!(deaf.finished_monotonic_ms >= polite.finished_monotonic_ms);
    let state = guest.wait_phase(PodPhase::Failed);
    assert_eq!(state.reason, "Stopped");
    guest.wait_output("polite", "bye\n");
    guest.ack("polite");
    guest.ack("deaf");
    guest.wait_exit();
}

#[tokio::test]
async fn a_flood_of_output_arrives_whole() {
    let Some(mut lab) = Lab::new().await else { return };
    // More than the guest keeps, faster than the port carries it.
    let pod = lab.pod(RestartPolicy::Never, &[], &[Script("app", &["sh", "-c", "seq 1 300000"])]);
    let mut guest = lab.start();
    guest.hello();
    guest.configure(pod);
    let expected: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
    while guest.log_end("app") < expected.len() as u64 {
        guest.wait("more output", |message| matches!(message, GuestMessage::LogChunk(_)).then_some(()));
        guest.ack("app");
    }
    println!("exec to the last of {} bytes: {} ms", expected.len(), guest.elapsed_ms());
    assert!(guest.output("app") == expected, "every byte once and in order");
    let gap = guest.messages.iter().any(|message| matches!(message, GuestMessage::LogGap(_)));
    assert!(!gap, "a host that acknowledges loses nothing");
    guest.wait_phase(PodPhase::Succeeded);
    guest.wait_exit();
}
