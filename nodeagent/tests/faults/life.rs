//! How a pod of each scenario lives and ends, on a machine in memory, whoever the agent is meanwhile.

use std::cell::Cell;

use bulkhead_nodeagent::steps::Step;
use bulkhead_nodeagent_core::{GuestSize, HostLimits};
use bulkhead_types::{
    ClaimIntent, ContainerPort, DeviceIntent, HostPort, NetworkAttachment, PodIntent, PodOptions, PodReport,
    Protocol, Rare, Shared, SriovDeviceType, SriovInterface, SriovLinkType, SriovVfGroup, VfLinkState,
    Volume, VolumeSource,
};

use super::host::{BROKEN, Change, FUNCTION, GPU, Host, NIC};
use super::machine::{Machine, id, named, web};
use super::stored::Stored;
use crate::resize::sized;

/// How a pod lives and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// It is asked to end, and does.
    Plain,
    /// It must be unique, has a port of the node, disks of its own and a claim's volume. The guests' bridge is there, with an address
    /// too many.
    Rich,
    /// Its guest does not end when it is asked to.
    Stubborn,
    /// It has a card with what is on it, and a virtual function that attaches it to a network and that a policy makes first.
    Devices,
    /// It has a card that cannot be reset.
    Sick,
    /// It gets more while it runs, and then less than it began with.
    Resized,
    /// Its guest was booted before it, and the next one is by then. It must be unique, and has what [`Self::Rich`] has.
    Pooled,
    /// A template is made of its guest's size, and its next guest is a copy of that.
    Copied,
    /// Things are done with its volume, while it runs and when it does not any more; then that is deleted.
    Stored,
}

impl Scenario {
    pub const ALL: [Self; 9] = [
        Self::Plain,
        Self::Rich,
        Self::Stubborn,
        Self::Devices,
        Self::Sick,
        Self::Resized,
        Self::Pooled,
        Self::Copied,
        Self::Stored,
    ];

    pub fn pod(self, number: u64) -> PodIntent {
        match self {
            Self::Plain | Self::Resized | Self::Copied => web(number),
            Self::Rich | Self::Pooled => rich(number),
            Self::Stored => Stored::new(number).pod(),
            Self::Stubborn => named(web(number), &format!("ignores-stop-{number}")),
            Self::Devices => {
                PodIntent { networks: vec![network()], ..with_devices(number, &[GPU, FUNCTION]) }
            }
            Self::Sick => with_devices(number, &[BROKEN]),
        }
    }

    /// Of the pod's deletion, in milliseconds. Without one a guest is killed.
    pub fn grace_ms(self) -> u64 {
        match self {
            Self::Stubborn => 0,
            _ => 5_000,
        }
    }

    /// How many guests wait for pods.
    fn waiting(self) -> usize {
        usize::from(self == Self::Pooled)
    }

    fn has_devices(self) -> bool {
        matches!(self, Self::Devices | Self::Sick)
    }

    /// How many virtual functions the machine's NIC gets.
    fn functions(self) -> usize {
        if self == Self::Devices { 2 } else { 0 }
    }
}

fn rich(number: u64) -> PodIntent {
    let mut pod = web(number);
    let mut spec = (*pod.spec).clone();
    let volume = |name: &str, source| Volume { name: name.into(), source };
    let empty =
        VolumeSource::EmptyDir { memory: false, size_limit_bytes: Some(8 << 20), huge_pages: Rare::NONE };
    let claim = VolumeSource::PersistentVolumeClaim { claim_name: "data".into(), read_only: false };
    let volumes = vec![volume("scratch", empty), volume("data", claim)];
    spec.options = Rare::some(PodOptions { volumes, ..PodOptions::default() });
    spec.containers[0].ports = vec![ContainerPort {
        name: None,
        container_port: 80,
        protocol: Protocol::Tcp,
        host: Rare::some(HostPort { port: free_port(), ip: Some([127, 0, 0, 1].into()) }),
    }];
    pod.spec = Shared::new(spec);
    pod.unique = true;
    // It outlives the pod.
    let uid = uuid::Uuid::from_u128(u128::from(number));
    pod.claims = vec![ClaimIntent {
        claim_name: "data".into(),
        uid,
        size_bytes: 8 << 20,
        used: false,
        read_only: false,
    }];
    pod
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

fn with_devices(number: u64, addresses: &[&str]) -> PodIntent {
    let device = |address: &&str| DeviceIntent {
        container: "main".into(),
        resource: "example.com/card".into(),
        device: (*address).into(),
        address: (*address).into(),
        share: None,
        lost: false,
        visible_env: Default::default(),
        visible_as: Default::default(),
    };
    PodIntent { unique: true, devices: addresses.iter().map(device).collect(), ..web(number) }
}

fn network() -> NetworkAttachment {
    NetworkAttachment {
        network: "default/blue".into(),
        interface: "net1".into(),
        device: FUNCTION.into(),
        address: Some([10, 9, 0, 2].into()),
        prefix: 16,
        gateway: None,
        mac: "02:aa:00:00:00:01".into(),
        vlan: 100,
        vlan_qos: 3,
        spoof_chk: Some(false),
        trust: Some(true),
        min_tx_rate: Some(10),
        max_tx_rate: Some(100),
        link_state: VfLinkState::Enable,
        link_type: SriovLinkType::Eth,
        mtu: None,
        routes: Rare::NONE,
    }
}

/// What a policy makes of the NIC.
pub fn nic(functions: usize) -> SriovInterface {
    let num_vfs = u32::try_from(functions).expect("few");
    let group = SriovVfGroup {
        resource_name: "net".into(),
        policy_name: "p".into(),
        first: 0,
        last: num_vfs.saturating_sub(1),
        device_type: SriovDeviceType::VfioPci,
        is_rdma: false,
        mtu: None,
    };
    let (mtu, vf_groups) = (Some(if functions > 0 { 9000 } else { 1500 }), vec![group]);
    let vf_groups = if functions > 0 { vf_groups } else { vec![] };
    SriovInterface {
        pci_address: NIC.into(),
        name: Default::default(),
        num_vfs,
        mtu,
        link_type: None,
        vf_groups,
    }
}

/// How far a life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The NIC gets its virtual functions.
    Functions,
    /// The pod starts.
    Start,
    /// Its guest dies, and the next one starts.
    Again,
    /// It gets more.
    Grow,
    /// It has less than it began with.
    Shrink,
    /// Things are done with its volume.
    Beside,
    /// It ends.
    End,
    /// More is done with the volume, which no guest has.
    Alone,
    /// The volume is deleted, and what was made of it.
    Deletion,
    /// The NIC loses its virtual functions.
    NoFunctions,
    /// There is nothing of it any more.
    Over,
}

/// One pod's life.
#[derive(Debug)]
pub struct Life {
    pub scenario: Scenario,
    pub pod: PodIntent,
    stored: Stored,
    phase: Cell<Phase>,
    /// How many control groups the guest had.
    groups: Cell<Option<usize>>,
    /// The process of the guest that was up.
    guest: Cell<Option<i32>>,
}

impl Life {
    /// Its machine is as it always was.
    pub fn new(machine: &mut Machine, scenario: Scenario, number: u64, bridge: Option<&str>) -> Self {
        machine.have_host();
        machine.settings.is_confined = !scenario.has_devices();
        machine.settings.vm_pool = u32::try_from(scenario.waiting()).expect("few");
        machine.settings.templates = scenario == Scenario::Copied;
        let log = machine.settings.host.clone().expect("it has one");
        let _ = std::fs::remove_dir_all(machine.settings.data.join("devices"));
        let _ = std::fs::remove_file(machine.settings.data.join("cards.json"));
        if let Some(bridge) = bridge.filter(|_| scenario == Scenario::Rich) {
            let changes = [
                Change::AddBridge(bridge.to_owned(), String::new()),
                Change::AddAddress(bridge.to_owned(), [10, 128, 99, 1].into(), 24),
                Change::AddAddress(bridge.to_owned(), [10, 77, 0, 1].into(), 24),
            ];
            Host::change(&log, &changes);
        }
        let (groups, guest, stored) = (Cell::new(None), Cell::new(None), Stored::new(number));
        let phase = Cell::new(Phase::Functions);
        Self { scenario, pod: scenario.pod(number), stored, phase, groups, guest }
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Goes on until the phase is over.
    pub async fn pass(&self, machine: &Machine, what: &str) {
        match self.phase.get() {
            Phase::Functions => {
                let functions = self.scenario.functions();
                if functions > 0 {
                    machine.server.intend_nics(vec![nic(functions)]);
                    let wanted = (functions, "9000".to_owned(), "0x1003".to_owned());
                    machine.until(what, || machine.host().nic() == wanted).await;
                }
                self.phase.set(Phase::Start);
            }
            Phase::Start => {
                self.settle(machine, what).await;
                machine.server.intend(vec![self.pod.clone()]);
                machine.ready(self.pod.id.0).await;
                // What is done beside the start has been done once QEMU was asked.
                let asked = || machine.reached().iter().any(|(step, _)| *step == Step::ControlOpen.name());
                machine.until(what, asked).await;
                self.settle(machine, what).await;
                self.check_runs(machine, what);
                self.guest.set(machine.guests().first().copied());
                self.phase.set(Phase::Again);
            }
            Phase::Again => {
                self.begin_again(machine, what).await;
                self.phase.set(Phase::Grow);
            }
            Phase::Grow => {
                self.resize(machine, (2500, 400), what).await;
                self.phase.set(Phase::Shrink);
            }
            Phase::Shrink => {
                self.resize(machine, (500, 64), what).await;
                self.phase.set(Phase::Beside);
            }
            Phase::Beside => {
                self.work_beside(machine, what).await;
                self.phase.set(Phase::End);
            }
            Phase::End => {
                self.end(machine, what).await;
                self.phase.set(Phase::Alone);
            }
            Phase::Alone => {
                if self.scenario == Scenario::Stored {
                    self.stored.work_alone(machine, what).await;
                }
                self.phase.set(Phase::Deletion);
            }
            Phase::Deletion => {
                if self.scenario == Scenario::Stored {
                    self.stored.delete(machine, what).await;
                }
                self.phase.set(Phase::NoFunctions);
            }
            Phase::NoFunctions => {
                if self.scenario.functions() > 0 {
                    machine.server.intend_nics(vec![nic(0)]);
                    let is_bare =
                        |(functions, mtu, _): (usize, String, String)| functions == 0 && mtu == "1500";
                    machine.until(what, || is_bare(machine.host().nic())).await;
                }
                machine.server.intend_nics(vec![]);
                self.phase.set(Phase::Over);
            }
            Phase::Over => {}
        }
    }

    async fn work_beside(&self, machine: &Machine, what: &str) {
        if self.scenario != Scenario::Stored {
            return;
        }
        machine.ready(self.pod.id.0).await;
        self.stored.work_beside(machine, &self.pod, what).await;
        self.check_runs(machine, what);
        assert_eq!(machine.guests().first().copied(), self.guest.get(), "{what}: another guest");
    }

    async fn end(&self, machine: &Machine, what: &str) {
        machine.delete(std::slice::from_ref(&self.pod), self.scenario.grace_ms()).await;
        let begun_is_done = || {
            let reached = machine.reached();
            let count = |wanted: Step| reached.iter().filter(|(step, _)| *step == wanted.name()).count();
            count(Step::RecordRemoved) == count(Step::RecordForgotten)
        };
        machine.until(what, begun_is_done).await;
        self.settle(machine, what).await;
        self.check_gone(machine, what);
    }

    /// Waits until as many guests wait for pods as should, and templates are made that were begun.
    async fn settle(&self, machine: &Machine, what: &str) {
        let is_settled = || {
            let reached = machine.reached();
            let count = |wanted: Step| reached.iter().filter(|(step, _)| *step == wanted.name()).count();
            count(Step::PooledWaits) == count(Step::PooledTaken) + self.scenario.waiting()
                && count(Step::TemplateBegun) == count(Step::TemplatesTold)
        };
        if matches!(self.scenario, Scenario::Pooled | Scenario::Copied) {
            machine.until(what, is_settled).await;
        }
    }

    /// The guest of the pod of the scenario dies, and another one comes.
    async fn begin_again(&self, machine: &Machine, what: &str) {
        if self.scenario != Scenario::Copied {
            return;
        }
        let before = machine.ready(self.pod.id.0).await.status.sandbox_restarts;
        // One that becomes a template is left alone.
        self.settle(machine, what).await;
        for guest in machine.guests() {
            let pid = rustix::process::Pid::from_raw(guest).expect("not 0");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let is_other = |report: &PodReport| report.status.ready && report.status.sandbox_restarts > before;
        machine.server.report(self.pod.id.0, what, is_other).await;
        self.settle(machine, what).await;
        self.check_runs(machine, what);
    }

    /// What there is of the volume is whole, whenever somebody looks.
    pub fn check_stored(&self, machine: &Machine, what: &str) {
        self.stored.check_whole(machine, what);
    }

    /// The agent ends; of the scenario's pool, what an agent that was killed leaves, the next one removes, which has none.
    pub async fn close(&self, machine: &mut Machine) {
        machine.kill_agent().await;
        if matches!(self.scenario, Scenario::Pooled | Scenario::Copied) {
            (machine.settings.vm_pool, machine.settings.templates) = (0, false);
            machine.start(None).await;
            machine.kill_agent().await;
        }
    }

    /// The pod of the scenario with other sizes gets these: in the guest that runs, its machine and its control groups.
    async fn resize(&self, machine: &Machine, (cpu_millis, memory_mib): (u64, u64), what: &str) {
        if self.scenario != Scenario::Resized {
            return;
        }
        let pod = sized(&self.pod, cpu_millis, memory_mib);
        let (sizes, session) = (pod.spec.sizes(), machine.server.incarnation());
        machine.server.intend(vec![pod.clone()]);
        let is_so = |report: &PodReport| {
            let actual = report.status.actual.get();
            let is_done = actual.is_some_and(|actual| actual.containers == sizes && actual.reason.is_empty());
            is_done && report.sequence >> 32 >= session
        };
        machine.server.report(id(&pod), what, is_so).await;
        self.check_runs(machine, what);
        assert_eq!(machine.guests().first().copied(), self.guest.get(), "{what}: another guest");
        let size = GuestSize::new(&pod.spec);
        let (mib, first_mib) = (size.memory_bytes >> 20, GuestSize::new(&self.pod.spec).memory_bytes >> 20);
        // What is added comes in blocks of 128 MiB.
        let mib = mib.min(first_mib) + mib.saturating_sub(first_mib).next_multiple_of(128);
        let limits = serde_json::json!({ "main": [cpu_millis, memory_mib << 20] });
        let expected = serde_json::json!({ "cpus": size.cpus, "mib": mib, "limits": limits });
        assert_eq!(machine.hardware(), [expected], "{what}");
        let most_bytes = HostLimits::new(&pod, size, true).memory_bytes;
        assert!(machine.memory_limits().iter().all(|found| found / 4096 == most_bytes / 4096), "{what}");
    }

    /// Lives to its end, by the agent that runs.
    pub async fn live(&self, machine: &Machine, what: &str) {
        while self.phase.get() < Phase::Over {
            self.pass(machine, what).await;
        }
    }

    /// There is one guest of this pod with what it is to have, and nothing of another.
    fn check_runs(&self, machine: &Machine, what: &str) {
        let host = machine.host();
        let waiting = self.scenario.waiting();
        assert_eq!(machine.guests().len(), 1 + waiting, "{what}: guests");
        // Who waits has a guard.
        assert_eq!(machine.guards().len(), usize::from(self.pod.unique) + waiting, "{what}: guards");
        assert_eq!(machine.guest_folders(), 1, "{what}: folders");
        let groups = machine.guest_groups();
        assert_eq!(self.groups.get().unwrap_or(groups), groups, "{what}: control groups");
        self.groups.set(Some(groups));
        let taps = host.taps();
        assert!(taps.len() == 1 && taps[0].1, "{what}: {taps:?}");
        let functions = host.functions();
        let is_given = |address: &str| functions.contains(&format!("{address} Some(\"vfio-pci\")"));
        assert!(self.pod.devices.iter().all(|device| is_given(&device.address)), "{what}: {functions}");
        let is_told = functions.contains("VfVlan { id: 100, qos: 3");
        assert_eq!(is_told, self.scenario == Scenario::Devices, "{what}: {functions}");
    }

    /// Nothing of the pod is there, and only what waits for others.
    fn check_gone(&self, machine: &Machine, what: &str) {
        let waiting = self.scenario.waiting();
        if waiting == 0 {
            check_no_guest(machine, what);
        }
        let guests = (machine.guests().len(), machine.guards().len(), machine.guest_folders());
        assert_eq!(guests, (waiting, waiting, 0), "{what}: guests, guards, folders");
        assert_eq!(machine.host().taps(), [], "{what}: taps");
        // Before any agent clears it.
        let pooled = names(&machine.settings.data.join("vm-pool"));
        assert_eq!(pooled.len(), waiting, "{what}: {pooled:?}");
    }

    /// Everything is as it was before, but what a reset changed.
    pub fn check_over(&self, machine: &Machine, before: &Picture, what: &str) {
        check_no_guest(machine, what);
        self.stored.check_over(machine, what);
        assert_eq!(names(&machine.settings.data.join("vm-pool")), [""; 0], "{what}: of the pool");
        let after = Picture::of(machine);
        assert_eq!(after, *before, "{what}");
        let (host, notes) = (machine.host(), machine.settings.data.join("devices"));
        assert_eq!(host.wrong(), [""; 0], "{what}");
        let is_sick = self.scenario == Scenario::Sick;
        let quarantined = names(&notes.join("quarantine"));
        assert_eq!(quarantined.len(), usize::from(is_sick), "{what}: {quarantined:?}");
        assert_eq!(names(&notes), ["quarantine"], "{what}");
        // A boot of the machine resets everything.
        if self.scenario == Scenario::Devices && !machine.has_booted() {
            assert!(host.resets(GPU) > 0, "{what}: a guest had it");
        }
    }
}

/// Nothing of a guest is there.
pub fn check_no_guest(machine: &Machine, what: &str) {
    assert_eq!((machine.guests(), machine.guards()), (vec![], vec![]), "{what}: processes");
    assert_eq!((machine.guest_folders(), machine.guest_groups()), (0, 0), "{what}: folders, control groups");
    assert_eq!(machine.host().taps(), [], "{what}: taps");
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What a machine is when nobody has anything of it: functions, links and rules.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture {
    functions: String,
    network: String,
}

impl Picture {
    pub fn of(machine: &Machine) -> Self {
        let host = machine.host();
        // A card that cannot be reset stays with the driver that no guest can be told from.
        let of_broken = |line: &&str| !line.starts_with(BROKEN);
        let functions = host.functions().lines().filter(of_broken).collect::<Vec<_>>().join("\n");
        let (links, rules) = host.network();
        // Limits are told only when they change: the last file may have them or not.
        let end = rules.find("-rates").and_then(|at| rules[..at].rfind("add table")).unwrap_or(rules.len());
        Self { functions, network: format!("{links:?} {}", &rules[..end]) }
    }
}
