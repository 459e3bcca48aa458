//! Functions over a kernel in memory, with notes on disk and agents that come and go.

use bulkhead_nodeagent_core::passthrough::{KernelModel, VFIO_PCI};
use bulkhead_types::{DeviceHealth, DeviceShare, SriovDeviceType, SriovInterface, SriovVfGroup};

use super::*;

pub(crate) mod stalls;

const POD: ObjectId = ObjectId(7);
const CARD: &str = "0000:42:00.0";
const NIC: &str = "0000:86:00.0";

fn kernel() -> KernelModel {
    let mut kernel = KernelModel::new(&["nvme", "mlx5_core"]);
    kernel.function(CARD, "1d22:3684", "120000", Some(44), None, &[("resource", "0x1000 0x1fff 0x200\n")]);
    kernel.function("0000:41:00.0", "144d:a80a", "010802", Some(43), Some("nvme"), &[]);
    let nic = [("sriov_totalvfs", "8\n"), ("sriov_numvfs", "0\n"), ("sriov_drivers_autoprobe", "1\n")];
    kernel.function(NIC, "15b3:101b", "020000", Some(45), Some("mlx5_core"), &nic);
    kernel
}

fn at(text: &str) -> Bdf {
    text.parse().expect("an address")
}

fn intent(address: &str) -> DeviceIntent {
    DeviceIntent {
        container: "main".into(),
        resource: "example.com/card".into(),
        device: address.into(),
        address: address.into(),
        share: None,
        lost: false,
        visible_env: SmolStr::default(),
        visible_as: SmolStr::default(),
    }
}

fn open(data: &Path, kernel: KernelModel) -> Passthrough {
    Passthrough::open(data, kernel, "boot", &[]).expect("readable notes")
}

/// The machine, and who it is told to be with.
impl Passthrough {
    fn change<T>(&self, change: impl FnOnce(&mut dyn Machine) -> T) -> T {
        change(&mut self.inner.try_lock().expect("nobody works").machine)
    }

    fn take_machine(&self) -> Stepped {
        let another = Stepped::new(kernel(), Running::new(STEP_WITHIN));
        std::mem::replace(&mut self.inner.try_lock().expect("nobody works").machine, another)
    }

    fn driver(&self, address: &str) -> Option<String> {
        self.change(|machine| core::Seen::of(machine, at(address))).expect("it is there").driver
    }

    async fn device(&self, address: &str) -> Device {
        let (_, devices) = self.look(None).await;
        devices.into_iter().find(|device| device.address == address).expect("it is told")
    }
}

#[tokio::test]
async fn devices_go_to_a_guest_and_come_back_and_the_next_agent_knows_of_both() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let first = open(dir.path(), kernel());
    let before = first.device(CARD).await;
    let given = first.attach(POD, &[intent(CARD)]).await.expect("it is free");
    assert_eq!((given.len(), given[0].memory_bars_bytes.as_slice()), (1, &[4096][..]));
    assert_eq!(first.device(CARD).await, before, "what is told of a device does not change with its guests");
    let taken = first.attach(ObjectId(8), &[intent(CARD)]).await.expect_err("it is taken");
    assert!(taken.contains("is held by pod #7"), "{taken}");
    // An agent that starts again, on the same machine.
    let machine = first.take_machine();
    drop(first);
    let second = Passthrough::open(dir.path(), machine, "boot", &[]).expect("readable notes");
    assert_eq!(second.recover([POD].into()).await, Ok(vec![]));
    assert_eq!(second.driver(CARD).as_deref(), Some(VFIO_PCI), "its guest may run");
    assert_eq!(second.release(POD).await, Ok(vec![]));
    assert_eq!(second.driver(CARD), None);
    assert_eq!(
        std::fs::read_dir(dir.path().join("devices")).expect("listed").count(),
        1,
        "only the quarantine is left"
    );
    assert_eq!(second.release(POD).await, Ok(vec![]), "again is nothing");
}

#[tokio::test]
async fn pain_30_a_sick_device_is_told_until_its_note_is_removed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut sick = kernel();
    sick.break_reset(at(CARD), true);
    let agent = open(dir.path(), sick);
    agent.attach(POD, &[intent(CARD)]).await.expect("it is free");
    assert_eq!(agent.release(POD).await, Ok(vec![at(CARD)]));
    let told = agent.device(CARD).await;
    let DeviceHealth::Unhealthy { code, since_ms } = told.health else { panic!("{told:?}") };
    assert!(code == "ResetFailed" && since_ms > 0);
    let refused = agent.attach(POD, &[intent(CARD)]).await.expect_err("it goes to nobody");
    assert!(refused.contains("quarantine (ResetFailed): reset (flr) failed"), "{refused}");
    std::fs::remove_file(dir.path().join(format!("devices/quarantine/{CARD}.json")))
        .expect("an operator's hand");
    assert_eq!(agent.device(CARD).await.health, DeviceHealth::Healthy);
    agent.attach(POD, &[intent(CARD)]).await.expect("it is well again");
}

#[tokio::test]
async fn what_the_host_has_is_told_and_shares_are_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let agent = open(dir.path(), kernel());
    assert_eq!(agent.device("0000:41:00.0").await.in_use_by, "host driver nvme");
    let refused = agent.attach(POD, &[intent("0000:41:00.0")]).await.expect_err("the host has it");
    assert!(refused.contains("--take-devices-from nvme"), "{refused}");
    let share = Some(DeviceShare { cores: 10, memory_bytes: 1 << 30 });
    let refused = agent.attach(POD, &[DeviceIntent { share, ..intent(CARD) }]).await.expect_err("a share");
    assert!(refused.contains("a guest gets whole devices only"), "{refused}");
    let dir = tempfile::tempdir().expect("temporary directory");
    let taking =
        Passthrough::open(dir.path(), kernel(), "boot", &["nvme".to_owned()]).expect("readable notes");
    assert_eq!(taking.device("0000:41:00.0").await.in_use_by, "");
    taking.attach(POD, &[intent("0000:41:00.0")]).await.expect("the operator lets it");
    assert_eq!(taking.device("0000:41:00.0").await.driver, "nvme", "that is what it is when no guest has it");
    assert_eq!(taking.release(POD).await, Ok(vec![]));
    assert_eq!(taking.driver("0000:41:00.0").as_deref(), Some("nvme"));
}

#[tokio::test]
async fn a_note_that_cannot_be_read_ends_the_agent() {
    let dir = tempfile::tempdir().expect("temporary directory");
    open(dir.path(), kernel()).attach(POD, &[intent(CARD)]).await.expect("it is free");
    std::fs::write(dir.path().join(format!("devices/{CARD}.json")), b"{").expect("written");
    assert!(Passthrough::open(dir.path(), kernel(), "boot", &[]).is_err());
}

#[tokio::test]
async fn functions_of_nics_are_made_and_told() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let agent = open(dir.path(), kernel());
    let group = SriovVfGroup {
        resource_name: "net".into(),
        policy_name: "p".into(),
        first: 0,
        last: 1,
        device_type: SriovDeviceType::VfioPci,
        is_rdma: false,
        mtu: None,
    };
    let wanted = |num_vfs| SriovInterface {
        pci_address: NIC.into(),
        name: SmolStr::default(),
        num_vfs,
        mtu: None,
        link_type: None,
        vf_groups: vec![group.clone()],
    };
    let (_, progress) = agent.advance(NicWork::new(wanted(2))).await;
    assert_eq!(progress, Progress::Settled);
    assert_eq!(agent.device(NIC).await.nic().expect("a NIC").num_vfs, 2);
    agent.attach(POD, &[intent("0000:86:00.1")]).await.expect("it is free");
    let (_, progress) = agent.advance(NicWork::new(wanted(4))).await;
    assert_eq!(progress, Progress::Blocked { pods: vec![POD], foreign: BTreeMap::new() });
    let (_, failed) = agent.advance(NicWork::new(wanted(9))).await;
    let reports = [(at(NIC), NicReport::from(&failed))].into();
    let (_, devices) = agent.look(Some(reports)).await;
    let told = devices.iter().find(|device| device.address == NIC).and_then(Device::nic).expect("a NIC");
    assert_eq!((told.step.as_str(), told.num_vfs), ("Check", 2));
    assert!(told.sync_error.contains("can have 8 virtual functions, not 9"), "{}", told.sync_error);
}

/// What a function was told before is noted on disk before it is told anything: the next agent takes it back, or goes on.
#[tokio::test]
async fn settings_of_functions_outlive_the_agent_that_made_them() {
    const VF: &str = "0000:86:00.2";
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut machine = kernel();
    for (name, content) in [("ifindex", "7\n"), ("type", "1\n"), ("mtu", "1500\n")] {
        machine.add_file(at(NIC), &format!("net/eth7/{name}"), content);
    }
    let first = open(dir.path(), machine);
    let group = SriovVfGroup {
        resource_name: "net".into(),
        policy_name: "p".into(),
        first: 0,
        last: 1,
        device_type: SriovDeviceType::VfioPci,
        is_rdma: false,
        mtu: None,
    };
    let wanted = SriovInterface {
        pci_address: NIC.into(),
        name: SmolStr::default(),
        num_vfs: 2,
        mtu: None,
        link_type: None,
        vf_groups: vec![group],
    };
    assert_eq!(first.advance(NicWork::new(wanted)).await.1, Progress::Settled);
    let told = |agent: &Passthrough| agent.change(|machine| machine.vf(7, 1).expect("it is there"));
    let before = told(&first);
    let network = NetworkAttachment {
        network: "default/blue".into(),
        interface: "net1".into(),
        device: VF.into(),
        address: None,
        prefix: 0,
        gateway: None,
        mac: "02:aa:00:00:00:01".into(),
        vlan: 100,
        vlan_qos: 0,
        spoof_chk: Some(false),
        trust: None,
        min_tx_rate: None,
        max_tx_rate: None,
        link_state: bulkhead_types::VfLinkState::Enable,
        link_type: bulkhead_types::SriovLinkType::Eth,
        mtu: None,
        routes: Default::default(),
    };
    let stranger = first.attach_to(std::slice::from_ref(&network), POD, &[intent(CARD)]).await;
    assert_eq!(stranger, Err(format!("network default/blue: the pod has no device {VF}")));
    first.attach_to(&[network], POD, &[intent(VF)]).await.expect("it is free");
    assert_eq!(told(&first).mac, Some([2, 0xaa, 0, 0, 0, 1]));
    let note = std::fs::read_to_string(dir.path().join(format!("devices/{VF}.json"))).expect("a note");
    assert!(note.contains("\"physical\": \"0000:86:00.0\""), "{note}");
    let machine = first.take_machine();
    drop(first);
    let second = Passthrough::open(dir.path(), machine, "boot", &[]).expect("readable notes");
    assert_eq!(second.recover([POD].into()).await, Ok(vec![]));
    assert_ne!(told(&second), before, "its guest may run");
    assert_eq!(second.recover([].into()).await, Ok(vec![]));
    assert_eq!(told(&second), before, "its pod is not there any more");
}

/// What a card's configuration space says of its number.
fn with_serial(number: u8) -> KernelModel {
    let mut kernel = kernel();
    let mut space = vec![0; 4096];
    space[0x100..0x104].copy_from_slice(&[3, 0, 1, 0]);
    space[0x104] = number;
    space[..4].copy_from_slice(&[0x22, 0x1d, 0x84, 0x36]);
    kernel.function(CARD, "1d22:3684", "120000", Some(44), None, &[]);
    // Its region is where `resource` says.
    space[0x10..0x14].copy_from_slice(&0x1000_u32.to_le_bytes());
    kernel.add_bytes(at(CARD), "config", &space);
    kernel
}

#[tokio::test]
async fn a_replaced_card_is_not_in_the_quarantine_of_the_one_before_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let first = open(dir.path(), with_serial(1));
    first.attach(POD, &[intent(CARD)]).await.expect("it is free");
    first.device(CARD).await;
    let sick = |devices: &Device| matches!(devices.health, DeviceHealth::Unhealthy { .. });
    {
        let mut inner = first.inner.try_lock().expect("nobody works");
        inner.notes.quarantine(at(CARD), core::RESET_FAILED, "it is broken").expect("written");
        inner.notes.remove(at(CARD)).expect("removed");
    }
    assert!(sick(&first.device(CARD).await));
    drop(first);
    // The machine was off meanwhile: the same card is still sick, another one is not.
    let same = Passthrough::open(dir.path(), with_serial(1), "second", &[]).expect("readable notes");
    assert!(sick(&same.device(CARD).await), "it is the same card");
    drop(same);
    let other = Passthrough::open(dir.path(), with_serial(2), "third", &[]).expect("readable notes");
    assert!(!sick(&other.device(CARD).await));
    drop(other);
    let next = Passthrough::open(dir.path(), with_serial(2), "third", &[]).expect("readable notes");
    assert!(!sick(&next.device(CARD).await), "nor for the next agent");
    next.attach(POD, &[intent(CARD)]).await.expect("it goes to guests");
    assert_eq!(next.release(POD).await, Ok(vec![]));
    assert_eq!(next.take_resets().await, [CARD], "a reset is told, and ends what a fault began");
    assert_eq!(next.take_resets().await, [""; 0]);
    let gone = DeviceIntent { device: "GPU-before".into(), ..intent(CARD) };
    let refused = next.attach(POD, &[gone]).await.expect_err("another card");
    assert!(refused.contains("GPU-before is not at 0000:42:00.0 any more"), "{refused}");
}

#[tokio::test]
async fn nor_is_it_in_that_of_what_went_with_the_one_before_it() {
    const SOUND: &str = "0000:42:00.1";
    let dir = tempfile::tempdir().expect("temporary directory");
    let open = |number: u8, boot: &str| {
        let mut kernel = with_serial(number);
        kernel.function(SOUND, "1d22:3685", "040300", Some(44), None, &[]);
        Passthrough::open(dir.path(), kernel, boot, &[]).expect("readable notes")
    };
    let sick = |device: &Device| matches!(device.health, DeviceHealth::Unhealthy { .. });
    let first = open(1, "first");
    assert!(!sick(&first.device(CARD).await));
    let kept = first.inner.lock().await.notes.quarantine(at(SOUND), core::RESET_FAILED, "it is broken");
    kept.expect("written");
    assert!(sick(&first.device(CARD).await), "nobody gets the card without it");
    drop(first);
    assert!(sick(&open(1, "second").device(CARD).await), "it is the same card");
    assert!(!sick(&open(2, "third").device(CARD).await));
}
