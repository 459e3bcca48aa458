//! A kernel that does not come back from a step.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bulkhead_nodeagent_core::hardware::TreeError;
use bulkhead_nodeagent_core::passthrough::{Before, Wrapped};

use super::*;

/// Long enough for every step of a kernel in memory.
const WITHIN: Duration = Duration::from_millis(300);

/// A kernel in memory that does not come back from writes to a file until nobody holds the gate shut any more.
struct Stalling {
    kernel: KernelModel,
    file: &'static str,
    gate: Receiver<()>,
}

impl Before for Stalling {
    fn look<T>(&self, look: impl FnOnce(&dyn Machine) -> T) -> T {
        look(&self.kernel)
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut dyn Machine) -> T) -> T {
        act(&mut self.kernel)
    }

    fn write(&mut self, path: &str, text: &str) -> Result<(), TreeError> {
        if path.ends_with(self.file) {
            let _ = self.gate.recv();
        }
        self.kernel.write(path, text)
    }
}

/// Devices of which one cannot be attached, with the card that it is and the gate that holds it up.
pub(crate) fn stalling_card(data: &Path) -> (Passthrough, DeviceIntent, Sender<()>) {
    let (agent, shut) = stalling(data, kernel(), "/driver_override");
    (agent, intent(CARD), shut)
}

fn stalling(data: &Path, kernel: KernelModel, file: &'static str) -> (Passthrough, Sender<()>) {
    let (shut, gate) = channel();
    let machine = Wrapped(Stalling { kernel, file, gate });
    (Passthrough::open_within(data, machine, "boot", &[], WITHIN).expect("readable notes"), shut)
}

#[tokio::test]
async fn nobody_waits_for_ever_for_a_step_that_does_not_return() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (agent, shut) = stalling(dir.path(), kernel(), "/driver_override");
    let _watching = agent.watch_steps();
    let mut told = agent.late_step();
    let (before, usage) = (agent.look(None).await, agent.card_usage());
    let check = |refused: String| {
        let late = refused.starts_with("driver_override of 0000:42:00.0 has not returned since 20");
        assert!(late && refused.contains("Z: see dmesg"), "{refused}");
    };
    check(agent.attach(POD, &[intent(CARD)]).await.expect_err("it stalls"));
    let late = told.wait_for(Option::is_some).await.expect("it is watched").clone();
    check(late.expect("a step").to_string());
    // Whoever comes now is told the same at once, and asks again.
    check(agent.attach(ObjectId(8), &[intent("0000:41:00.0")]).await.expect_err("it waits"));
    for _ in 0..2 {
        check(agent.release(POD).await.expect_err("it was begun, so there is something to give back"));
    }
    assert_eq!(agent.release(ObjectId(9)).await, Ok(vec![]), "who has nothing waits for nothing");
    check(agent.recover([POD].into()).await.expect_err("it waits"));
    // Looks go on with what there was; what became of the NICs is told all the same.
    assert_eq!(agent.look(None).await, before);
    assert_eq!(agent.inventory().await, before.0);
    assert_eq!((agent.card_usage(), agent.is_in_doubt().await), (usage, false));
    let wanted = SriovInterface {
        pci_address: NIC.into(),
        name: SmolStr::default(),
        num_vfs: 2,
        mtu: None,
        link_type: None,
        vf_groups: vec![],
    };
    let (work, progress) = agent.advance(NicWork::new(wanted)).await;
    let Progress::Failed { step: STALLED, reason } = &progress else { panic!("{progress:?}") };
    check(reason.clone());
    let (_, devices) = agent.look(Some([(at(NIC), NicReport::from(&progress))].into())).await;
    let nic = devices.iter().find(|device| device.address == NIC).and_then(Device::nic).expect("a NIC");
    assert_eq!(nic.step, STALLED);
    assert!(nic.sync_error.starts_with("Stalled: driver_override of 0000:42:00.0"), "{}", nic.sync_error);
    // The kernel comes back: what was begun is there, and everybody goes on.
    drop(shut);
    assert!(told.wait_for(Option::is_none).await.is_ok());
    assert_eq!(agent.release(POD).await, Ok(vec![]));
    assert_eq!(agent.driver(CARD), None);
    assert_eq!(agent.take_resets().await, [CARD], "a guest may have had it");
    agent.attach(POD, &[intent(CARD)]).await.expect("it is free");
    assert_eq!(agent.advance(work).await.1, Progress::Settled);
}

/// Whoever gave up a release is told by the next what became of it.
#[tokio::test]
async fn what_is_sick_after_a_release_that_stalled_is_told_by_the_next() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut sick = kernel();
    sick.break_reset(at(CARD), true);
    let (agent, shut) = stalling(dir.path(), sick, "/reset");
    agent.attach(POD, &[intent(CARD)]).await.expect("it is free");
    let late = agent.release(POD).await.expect_err("it stalls");
    assert!(late.starts_with("reset of 0000:42:00.0 has not returned"), "{late}");
    let late = agent.running.late().await;
    drop(shut);
    agent.running.returned(&late).await;
    assert_eq!(agent.release(POD).await, Ok(vec![at(CARD)]));
    assert_eq!(agent.release(POD).await, Ok(vec![]));
    assert!(matches!(agent.device(CARD).await.health, DeviceHealth::Unhealthy { .. }));
}

/// A device that was not looked for is not said to be gone.
#[tokio::test]
async fn the_first_look_waits_for_the_kernel() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (agent, shut) = stalling(dir.path(), kernel(), "/driver_override");
    agent.attach(POD, &[intent(CARD)]).await.expect_err("it stalls");
    tokio::select! {
        biased;
        (found, devices) = agent.look(None) => panic!("{found:?} {devices:?}"),
        found = agent.inventory() => panic!("{found:?}"),
        _ = agent.running.late() => {}
    }
    drop(shut);
    let (found, devices) = agent.look(None).await;
    assert_eq!((agent.inventory().await, devices.len()), (found, 3));
}
