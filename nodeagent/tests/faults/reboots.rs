//! A machine that boots anew, and an agent that starts anew, under pods with devices.

use super::host::{FUNCTION, GPU};
use super::life::{Scenario, nic};
use super::machine::{Machine, id};

/// A machine with a pod that has a card and a function, and its agent.
async fn with_devices() -> Option<(Machine, bulkhead_types::PodIntent)> {
    let mut machine = Machine::new().await?;
    machine.have_host();
    machine.settings.is_confined = false;
    machine.server.intend_nics(vec![nic(2)]);
    machine.start(None).await;
    machine.until("two functions", || machine.host().nic().0 == 2).await;
    let pod = Scenario::Devices.pod(1);
    machine.server.intend(vec![pod.clone()]);
    machine.ready(id(&pod)).await;
    Some((machine, pod))
}

/// What the pod's function is told is what its network wants.
fn is_told(machine: &Machine) -> bool {
    let functions = machine.host().functions();
    let told = functions.lines().find(|line| line.starts_with("vf 1 ")).unwrap_or_default();
    let wanted = ["id: 100, qos: 3", "[2, 170, 0, 0, 0, 1]", "min_mbps: 10, max_mbps: 100", "Enable"];
    wanted.iter().all(|part| told.contains(part))
}

fn notes(machine: &Machine) -> String {
    let note = |address: &str| {
        let path = machine.settings.data.join(format!("devices/{address}.json"));
        std::fs::read_to_string(path).unwrap_or_default()
    };
    note(GPU) + &note(FUNCTION)
}

#[tokio::test]
async fn pain_12_after_a_boot_pods_with_devices_run_again_with_the_same_ones() {
    let Some((mut machine, pod)) = with_devices().await else { return };
    assert!(is_told(&machine));
    machine.reboot().await;
    let after = machine.host();
    assert_eq!((after.nic().0, after.taps()), (0, vec![]), "the kernel knows nothing of them any more");
    // Nobody says anything anew: what shall be is still what it was.
    let session = machine.server.incarnation();
    machine.start(None).await;
    let told = machine.server.first_devices(session + 1).await;
    assert!(
        told.iter().any(|address| address == FUNCTION),
        "a pod's function is lost to it if {told:?} are all there are"
    );
    let again = machine.ready(id(&pod)).await;
    assert!(again.status.sandbox_restarts >= 1, "{again:?}");
    let host = machine.host();
    assert!(host.nic().0 == 2 && is_told(&machine), "{}", host.functions());
    assert!(host.functions().contains(&format!("{GPU} Some(\"vfio-pci\")")), "{}", host.functions());
    assert!(host.taps().len() == 1 && host.taps()[0].1, "{:?}", host.taps());
    let notes = notes(&machine);
    assert!(notes.contains("boot-2") && !notes.contains("boot-1"), "{notes}");
    machine.delete(&[pod], 5_000).await;
    assert!(machine.host().resets(GPU) > 0 && !is_told(&machine));
}

#[tokio::test]
async fn pain_13_an_agent_that_starts_again_touches_no_device_of_a_guest_that_runs() {
    let Some((mut machine, pod)) = with_devices().await else { return };
    let (guests, functions) = (machine.guests(), machine.host().functions());
    for restart in 0..2 {
        machine.kill_agent().await;
        machine.start(None).await;
        let report = machine.ready(id(&pod)).await;
        assert_eq!(report.status.sandbox_restarts, 0, "{restart}: {report:?}");
        assert_eq!(machine.guests(), guests, "{restart}: the same guest");
        let host = machine.host();
        assert_eq!((host.functions(), host.resets(GPU)), (functions.clone(), 0), "{restart}");
        let touches =
            ["override-set", "function-unbound", "function-probed", "function-reset", "function-told"];
        let touched: Vec<_> =
            machine.reached().into_iter().filter(|(step, _)| touches.contains(&step.as_str())).collect();
        assert_eq!(touched, [], "{restart}: nothing is written under a guest");
    }
    machine.delete(&[pod], 5_000).await;
}

#[tokio::test]
async fn pain_14_what_was_noted_before_a_boot_is_not_believed_after_it() {
    let Some((mut machine, pod)) = with_devices().await else { return };
    assert!(notes(&machine).contains("Given"));
    machine.reboot().await;
    let before = machine.host().functions();
    // The pod is gone meanwhile, and nobody wants functions: the notes say of both that they are there.
    machine.server.intend(vec![]);
    machine.server.intend_nics(vec![]);
    machine.start(None).await;
    let session = machine.server.incarnation();
    let gone = |report: &bulkhead_types::PodReport| report.gone && report.sequence >> 32 >= session;
    machine.server.report(id(&pod), "its end", gone).await;
    machine.until("the end of all notes", || notes(&machine).is_empty()).await;
    // Functions that were kept for the boot go again once the server has said that nobody wants them.
    machine.until("the end of functions that nobody wants", || machine.host().functions() == before).await;
    assert_eq!(machine.host().resets(GPU), 0, "nothing is taken back that nobody has");
}
