//! Guests and QEMUs that misbehave, a full disk, a machine that boots anew, clocks that jump.

use std::io::Write as _;
use std::time::{Duration, Instant};

use bulkhead_types::{ContainerState, PodIntent, PodPhase, PodReport, RestartPolicy};
use rustix::process::{Pid, Signal, kill_process};

use super::machine::{Machine, named, web};
use crate::{deleting, pod};

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("not 0"), signal).expect("it lives");
}

fn because(reason: &str) -> impl Fn(&PodReport) -> bool + '_ {
    move |report| report.status.reason == reason
}

/// A guest with such a name is ended for this reason, with these words, and another one is started.
async fn check_ended(machine: &Machine, number: u64, fault: &str, reason: &str, words: &str) {
    let pod = named(web(number), &format!("{fault}-{number}"));
    machine.server.intend(vec![pod.clone()]);
    let ended = machine.server.report(number, reason, because(reason)).await;
    assert!(!ended.status.ready && ended.status.message.contains(words), "{ended:?}");
    machine.server.report(number, "another one", |report| report.status.sandbox_restarts >= 2).await;
    machine.delete(&[pod], 0).await;
    assert_eq!((machine.guests(), machine.guest_groups()), (vec![], 0), "{fault}");
}

#[tokio::test]
async fn guests_and_qemus_that_say_nothing_are_ended_in_time_and_say_why() {
    let Some(mut machine) = Machine::new().await else { return };
    // The pod's back-off keeps the reason to be seen.
    (machine.settings.silence_ms, machine.settings.backoff_ms) = (900, (400, 400));
    machine.start(None).await;
    check_ended(&machine, 1, "turns-silent", "GuestNotResponding", "the guest answered nothing for 900 ms")
        .await;
    check_ended(&machine, 2, "qemu-hangs", "QemuNotResponding", "QEMU answered nothing for 900 ms").await;
    check_ended(&machine, 3, "panics", "GuestPanicked", "Attempted to kill init!").await;
    // One that answers is left alone for as long.
    machine.server.intend(vec![web(4)]);
    let before = machine.ready(4).await;
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    let now = machine.server.report(4, "a pod", |report| report.status.ready).await;
    assert_eq!((now.status.sandbox_restarts, before.status.sandbox_restarts), (0, 0));
}

#[tokio::test]
async fn pain_28_a_guest_that_boots_is_waited_for_and_one_that_does_not_is_not() {
    let Some(mut machine) = Machine::new().await else { return };
    // The slow one needs nearly twice that, and writes to its console all the time.
    (machine.settings.boot_deadline_ms, machine.settings.backoff_ms) = (1_800, (400, 400));
    machine.start(None).await;
    machine.server.intend(vec![named(web(1), "slow-1")]);
    let slow = machine.ready(1).await;
    assert_eq!(slow.status.sandbox_restarts, 0, "{slow:?}");
    machine.delete(&[named(web(1), "slow-1")], 0).await;
    check_ended(&machine, 2, "mute", "GuestNotReporting", "the guest said nothing for").await;
}

#[tokio::test]
async fn pain_29_a_qemu_that_dies_is_noticed_and_one_whose_pod_is_gone_does_not_stay() {
    let Some(mut machine) = Machine::new().await else { return };
    machine.settings.backoff_ms = (500, 500);
    machine.start(None).await;
    // It dies: the pod is not ready any more, at once and with the reason, and runs again.
    machine.server.intend(vec![web(1)]);
    machine.ready(1).await;
    let died_at = Instant::now();
    signal(machine.guests()[0], Signal::KILL);
    let died = machine.server.report(1, "its end", because("GuestDied")).await;
    // By the process itself and not by a time-out; the shortest of those is the heartbeat of the session.
    assert!(died_at.elapsed() < Duration::from_secs(5), "{:?}", died_at.elapsed());
    assert!(!died.status.ready && died.status.message.contains("SIGKILL"), "{died:?}");
    let ContainerState::Waiting { reason, .. } = &died.status.containers[0].state else { panic!("{died:?}") };
    assert_eq!(reason, "GuestDied", "nothing of it runs: {died:?}");
    machine
        .server
        .report(1, "another", |report| report.status.ready && report.status.sandbox_restarts == 1)
        .await;

    // It hangs when an agent finds it: it is of no use, and does not stay beside the next.
    let hung = machine.guests();
    signal(hung[0], Signal::STOP);
    machine.kill_agent().await;
    machine.start(None).await;
    machine.ready(1).await;
    let guests = machine.guests();
    assert!(guests.len() == 1 && guests != hung, "{guests:?}, {hung:?} hung");

    // It does not run at all (it hangs in the kernel, say) when its pod is deleted: it ends nevertheless.
    signal(machine.guests()[0], Signal::STOP);
    machine.delete(&[web(1)], 1).await;
    assert_eq!((machine.guests(), machine.guest_groups()), (vec![], 0));

    // Its pod is deleted, and QEMU dies, while the agent is away; and the other way round: the pod is gone and QEMU stays.
    machine.server.intend(vec![web(2), web(3)]);
    machine.ready(2).await;
    machine.ready(3).await;
    machine.kill_agent().await;
    signal(machine.guests()[0], Signal::KILL);
    machine.server.intend(vec![]);
    machine.start(None).await;
    machine.until("the end of all", || machine.guests().is_empty() && machine.guest_groups() == 0).await;
    machine.server.report(2, "its end", |report| report.gone).await;
    machine.server.report(3, "its end", |report| report.gone).await;

    // What may run only once is never called a success because its QEMU was killed.
    let once = pod(4, "sleep 1000", RestartPolicy::Never);
    machine.server.intend(vec![once]);
    machine.ready(4).await;
    signal(machine.guests()[0], Signal::KILL);
    let failed = machine.server.report(4, "its end", |report| report.gone).await;
    assert_eq!(
        (failed.status.phase, failed.status.reason.as_str()),
        (PodPhase::Failed, "GuestDied"),
        "{failed:?}"
    );
}

/// A process that the kernel does not let go: in a group that is frozen, of version 1, it dies only once that is not any more.
struct Frozen(std::path::PathBuf);

impl Frozen {
    /// `None` where there are no such groups.
    fn new(pid: i32) -> Option<Self> {
        let group = std::path::PathBuf::from(format!("/sys/fs/cgroup/freezer/bulkhead-test-{pid}"));
        std::fs::create_dir(&group).ok()?;
        let frozen = Self(group);
        std::fs::write(frozen.0.join("cgroup.procs"), pid.to_string()).ok()?;
        std::fs::write(frozen.0.join("freezer.state"), "FROZEN").ok()?;
        Some(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
        // It ends now; its group can go once it has.
        for _ in 0..1000 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[tokio::test]
async fn a_guest_that_does_not_die_holds_up_its_own_pod_and_no_other_and_the_node_says_so() {
    let Some(mut machine) = Machine::new().await else { return };
    machine.start(None).await;
    machine.server.intend(vec![web(1)]);
    machine.ready(1).await;
    let stuck = machine.guests()[0];
    let Some(frozen) = Frozen::new(stuck) else {
        return eprintln!("skipped: there are no control groups of version 1 that can be frozen");
    };
    machine.server.intend(vec![web(1), web(2)]);
    machine.ready(2).await;
    machine.kill_agent().await;
    // Waiting for it has an end, which comes sooner where less silence is borne.
    machine.settings.silence_ms = 900;
    machine.start(None).await;
    machine.ready(2).await;
    machine.server.intend(vec![web(1), web(2), web(3)]);
    machine.ready(3).await;
    let said = format!("(process {stuck}) was killed and does not end");
    let warns = || machine.server.facts().warnings.iter().any(|warning| warning.contains(&said));
    machine.until("a warning of the node", warns).await;
    // Another guest of the pod would be a second one.
    assert_eq!(machine.guests().len(), 3);
    let report = machine.server.report(1, "a pod", |_| true).await;
    assert_eq!(report.status.sandbox_restarts, 0, "{report:?}");
    drop(frozen);
    let again = machine.ready(1).await;
    assert_eq!(again.status.sandbox_restarts, 1, "{again:?}");
    assert!(!machine.guests().contains(&stuck) && machine.guests().len() == 3);
    machine.delete(&[web(1), web(2), web(3)], 0).await;
}

#[tokio::test]
async fn a_full_disk_is_named_and_pods_start_once_there_is_room() {
    let Some(mut machine) = Machine::with_disk(Some(48)).await else { return };
    machine.settings.backoff_ms = (500, 500);
    machine.start(None).await;
    machine.server.intend(vec![web(1)]);
    machine.ready(1).await;
    // Everything is taken.
    let filler = machine.settings.data.join("filler");
    let mut file = std::fs::File::create(&filler).expect("there is room");
    while file.write_all(&[1; 4096]).is_ok() {}
    machine.server.intend(vec![web(1), web(2)]);
    let full = machine.server.report(2, "DiskPressure", because("DiskPressure")).await;
    assert_eq!(full.status.phase, PodPhase::Pending, "{full:?}");
    let other = machine.server.report(1, "a pod", |report| report.status.ready).await;
    assert_eq!(other.status.sandbox_restarts, 0, "whoever runs goes on");
    assert_eq!((machine.guests().len(), machine.guest_folders()), (1, 1));
    std::fs::remove_file(&filler).expect("removed");
    drop(file);
    let there = machine.ready(2).await;
    assert_eq!(there.status.reason, "", "{there:?}");
    machine.delete(&[web(1), web(2)], 0).await;
}

#[tokio::test]
async fn a_guest_without_room_for_what_it_writes_stands_still_until_there_is_some() {
    let Some(mut machine) = Machine::new().await else { return };
    // Less than a guest stands still that is let go on in vain ten times, at every third of this.
    machine.settings.silence_ms = 600;
    machine.start(None).await;
    let pod = named(web(1), "no-room-1");
    machine.server.intend(vec![pod.clone()]);
    let stands = machine.server.report(1, "DiskPressure", because("DiskPressure")).await;
    assert!(!stands.status.ready && stands.status.phase == PodPhase::Running, "{stands:?}");
    assert!(stands.status.message.contains("wrote to its disk found no room"), "{stands:?}");
    let goes_on = machine.server.report(1, "a pod that goes on", |report| report.status.ready).await;
    assert_eq!((goes_on.status.sandbox_restarts, goes_on.status.reason.as_str()), (0, ""), "{goes_on:?}");
    machine.delete(&[pod], 0).await;
}

#[tokio::test]
async fn after_a_reboot_guests_run_again_as_their_policies_say_and_leases_mean_nothing() {
    let Some(mut machine) = Machine::new().await else { return };
    machine.start(None).await;
    let once = pod(2, "sleep 1000", RestartPolicy::Never);
    let unique = PodIntent { unique: true, ..web(3) };
    let gone = web(4);
    machine.server.intend(vec![web(1), once.clone(), unique.clone(), gone.clone()]);
    for number in 1..=4 {
        machine.ready(number).await;
    }
    let boot = machine.server.facts().boot_id;
    machine.reboot().await;
    // Nobody is there yet; meanwhile one of them is deleted.
    assert_eq!((machine.guests(), machine.guards()), (vec![], vec![]));
    machine.server.intend(vec![web(1), once.clone(), unique.clone(), deleting(gone, 0)]);
    machine.start(None).await;
    assert_ne!(machine.server.facts().boot_id, boot, "the control plane is told");
    for number in [1, 3] {
        let again = machine.ready(number).await;
        assert_eq!(again.status.sandbox_restarts, 1, "{again:?}");
    }
    let session = machine.server.incarnation();
    let failed =
        machine.server.report(2, "its end", |report| report.gone && report.sequence >> 32 >= session).await;
    assert_eq!(
        (failed.status.phase, failed.status.reason.as_str()),
        (PodPhase::Failed, "GuestDied"),
        "{failed:?}"
    );
    machine.server.report(4, "its end", |report| report.gone && report.sequence >> 32 >= session).await;
    assert_eq!((machine.guests().len(), machine.guards().len(), machine.guest_folders()), (2, 1, 2));
    machine.delete(&[web(1), once, unique], 0).await;
    assert_eq!((machine.guests(), machine.guards(), machine.guest_groups()), (vec![], vec![], 0));
}

#[tokio::test]
async fn a_calendar_that_jumps_ends_no_guest_and_no_lease() {
    let Some(mut machine) = Machine::new().await else { return };
    machine.start(None).await;
    let unique = PodIntent { unique: true, ..web(1) };
    machine.server.intend(vec![unique.clone(), web(2)]);
    machine.ready(1).await;
    machine.ready(2).await;
    let guests = machine.guests();
    // A day ahead, and then a day behind what is true; the clock since boot goes on.
    for (number, jump_ms) in [(3, 86_400_000_i64), (4, -86_400_000)] {
        machine.jump(jump_ms);
        // The agent goes on with its work meanwhile, by its new calendar.
        machine.server.intend(vec![unique.clone(), web(2), web(number)]);
        let started = machine.ready(number).await.status.started_at_ms;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_millis();
        let off_ms = i64::try_from(started).expect("fits") - i64::try_from(now).expect("fits") - jump_ms;
        assert!(off_ms.abs() < 600_000, "{number}: {off_ms}");
        for number in [1, 2] {
            let report = machine.server.report(number, "a pod", |report| report.status.ready).await;
            assert_eq!(report.status.sandbox_restarts, 0, "{report:?}");
        }
        machine.server.intend(vec![unique.clone(), web(2)]);
        let pid = |pid: &i32| guests.contains(pid);
        machine.until("the end of the other", || machine.guests().len() == 2).await;
        assert!(machine.guests().iter().all(pid), "the same guests");
    }
    machine.delete(&[unique, web(2)], 0).await;
}
