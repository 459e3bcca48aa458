//! Disks without room: who refuses, who goes on, what is kept, and that service resumes by itself.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use bulkhead_tests::{Cli, Cluster, skip, wait};

/// Room on each server's file system; a server refuses writes below 64 MiB.
const DISK_MIB: u64 = 128;
/// What is left of it when it is "full".
const LEFT_MIB: u64 = 40;
/// How long servers may take to notice, and to resume.
const CHANGE_SECONDS: u64 = 120;

fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

/// Whether this process may mount a file system in a mount namespace of its own.
fn can_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    tried.is_ok_and(|output| output.status.success())
}

/// A file on a server's disk that only that server sees, under its root as the kernel shows it.
fn ballast(cluster: &Cluster, id: u64) -> PathBuf {
    let seen_by = PathBuf::from(format!("/proc/{}/root", cluster.pid(id)));
    seen_by.join(cluster.data_dir(id).strip_prefix("/").expect("absolute")).join("ballast")
}

fn free_mib(file: &std::path::Path) -> u64 {
    let stat = nix::sys::statvfs::statvfs(file.parent().expect("a folder")).expect("asked");
    (stat.blocks_available() * stat.fragment_size()) >> 20
}

fn fill(cluster: &Cluster, id: u64) {
    let path = ballast(cluster, id);
    let file = File::create(&path).expect("made");
    let bytes = free_mib(&path).saturating_sub(LEFT_MIB) << 20;
    nix::fcntl::posix_fallocate(file, 0, i64::try_from(bytes).expect("small")).expect("room for it");
    assert!(free_mib(&path) <= LEFT_MIB, "server {id} has {} MiB", free_mib(&path));
}

fn empty(cluster: &Cluster, id: u64) {
    fs::remove_file(ballast(cluster, id)).expect("removed");
}

/// Waits until `debug check` names exactly these servers with an alarm.
fn await_alarms(cluster: &Cluster, full: &[u64]) {
    let mut seen = String::new();
    let look = || {
        let done = cluster.cli().run(&["debug", "check"]);
        let alarms = |id: &u64| done.stderr.contains(&format!("{}: alarm: disk full", cluster.address(*id)));
        let right = cluster.running().iter().all(|id| alarms(id) == full.contains(id));
        seen = done.stderr;
        right.then_some(())
    };
    wait::until(&format!("alarms of {full:?}"), CHANGE_SECONDS, look);
    assert_eq!(seen.is_empty(), full.is_empty(), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_without_room_refuse_and_resume_and_one_of_them_hurts_nobody() {
    if !can_mount() {
        return skip("a file system cannot be mounted here; remedy: run as root with CAP_SYS_ADMIN");
    }
    let mut cluster = Cluster::prepare(3);
    cluster.disk_mib = Some(DISK_MIB);
    for id in 1..=3 {
        cluster.start_server(id);
    }
    cluster.await_all();
    cluster.cli().apply(cluster.dir(), &namespace("before"));

    // One follower's: the others go on.
    let leader = cluster.await_leader();
    let follower = cluster.running().into_iter().find(|id| *id != leader).expect("a follower");
    fill(&cluster, follower);
    cluster.cli().apply(cluster.dir(), &namespace("two-of-three"));
    await_alarms(&cluster, &[follower]);
    // It is behind, and says so; whoever knows another server as well goes on there.
    let by_way_of_it = [cluster.address(follower).to_owned(), cluster.address(leader).to_owned()];
    Cli::new(&by_way_of_it[..1]).run(&["--timeout", "5s", "get", "namespaces"]).refused(4, &["disk full"]);
    Cli::new(&by_way_of_it).apply(cluster.dir(), &namespace("through-the-full-one"));
    let table = cluster.cli().run(&["member", "list"]).ok();
    assert!(table.contains("Mi of 128Mi"), "{table}");

    // Everybody's: refused with the reason and the remedy, in time.
    let full = cluster.running();
    for id in full.iter().filter(|id| **id != follower) {
        fill(&cluster, *id);
    }
    let file = cluster.dir().join("refused.yaml");
    fs::write(&file, namespace("refused")).expect("written");
    let apply = ["--timeout", "6s", "apply", "-f", file.to_str().expect("UTF-8")];
    // What the last leader took in before it noticed may have been waiting: the next one is refused at once.
    cluster.cli().run(&apply).refused(4, &["disk full", "remedy: free space"]);
    await_alarms(&cluster, &full);
    for id in &full {
        let only = Cli::new(&[cluster.address(*id).to_owned()]);
        only.run(&["--timeout", "4s", "apply", "-f", apply[4]])
            .refused(4, &["disk full", "remedy: free space"]);
    }

    // Room again: nothing has to be done, and nothing that was acknowledged is lost.
    for id in &full {
        empty(&cluster, *id);
    }
    cluster.await_all();
    cluster.cli().apply(cluster.dir(), &namespace("after"));
    cluster.await_equal_digests().await;
    for name in ["before", "two-of-three", "through-the-full-one", "after"] {
        assert!(cluster.cli().object("namespace", name).is_some(), "{name}");
    }
    await_alarms(&cluster, &[]);
}

/// Gives a server's file system another size.
fn resize(cluster: &Cluster, id: u64, mib: u64) {
    let (pid, dir) = (cluster.pid(id).to_string(), cluster.data_dir(id).display().to_string());
    let size = format!("remount,size={mib}m");
    let done = Command::new("nsenter").args(["-t", &pid, "-m", "mount", "-o", &size, &dir]).output();
    let done = done.expect("nsenter starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_server_started_on_a_full_disk_refuses_by_name_and_serves_once_there_is_room() {
    if !can_mount() {
        return skip("a file system cannot be mounted here; remedy: run as root with CAP_SYS_ADMIN");
    }
    let mut cluster = Cluster::prepare(1);
    cluster.disk_mib = Some(LEFT_MIB);
    cluster.start_server(1);
    let refused = ["disk full", "remedy: free space"];
    wait::until("a refusal", CHANGE_SECONDS, || {
        let done = cluster.cli().run(&["--timeout", "2s", "get", "namespaces"]);
        (done.code == 4 && refused.iter().all(|words| done.stderr.contains(words))).then_some(())
    });
    resize(&cluster, 1, DISK_MIB);
    cluster.await_all();
    cluster.cli().apply(cluster.dir(), &namespace("after"));
    cluster.take(1).terminate();
}
