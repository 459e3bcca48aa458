//! Servers that join, leave, lag behind, and come back with nothing.

use std::time::{Duration, Instant};

use bulkhead_proto::v1;
use bulkhead_tests::{Cluster, Process, wait};

/// How long a member may take to catch up, or to notice that it was removed.
const CHANGE_SECONDS: u64 = 120;

/// How often the one that is to be removed may be elected just then.
const TRANSFERS_MAX: usize = 20;

fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

/// Removes a voter that is neither the leader nor `spared`, whoever leads by then. Gives its id and its process.
fn remove_a_follower(cluster: &mut Cluster, spared: u64) -> (u64, Process) {
    let leader = cluster.await_leader();
    let old =
        cluster.running().into_iter().find(|id| *id != leader && *id != spared).expect("an old follower");
    let process = cluster.take(old);
    for _ in 0..TRANSFERS_MAX {
        let done = cluster.cli().run(&["--timeout", "90s", "member", "remove", &old.to_string()]);
        if done.code == 0 {
            return (old, process);
        }
        // It may have been elected meanwhile: then it hands over first.
        done.refused(1, &["leads the cluster", "transfer the leadership first"]);
        let other = cluster.running()[0].to_string();
        let _ = cluster.cli().run(&["--timeout", "90s", "member", "transfer", &other]).ok();
    }
    panic!("server {old} was elected again and again");
}

/// Waits until a server says this of itself.
async fn await_status(cluster: &Cluster, id: u64, is_so: impl Fn(&v1::StatusResponse) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(CHANGE_SECONDS);
    let mut seen = None;
    while Instant::now() < deadline {
        seen = cluster.status(id).await.or(seen);
        if seen.as_ref().is_some_and(&is_so) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("server {id} is not as it should be: {seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_joins_is_promoted_and_an_old_one_leaves() {
    let mut cluster = Cluster::start(3);
    cluster.cli().apply(cluster.dir(), &namespace("before"));
    let new = cluster.join();
    // At once: the command itself waits until the learner has caught up.
    let promote = ["member", "promote", &new.to_string(), "--timeout", "90s"];
    let _ = cluster.cli().run(&promote).ok();
    // Once more is no mistake: the answer to the first may have been lost.
    let _ = cluster.cli().run(&promote).ok();
    cluster.cli().apply(cluster.dir(), &namespace("after"));
    let promoted = cluster.await_member(new, |_| true).await;
    assert_eq!(promoted.role(), v1::MemberRole::Voter, "{promoted:?}");
    cluster.await_equal_digests().await;
    cluster.await_member(new, |m| m.leader || m.match_index > Some(0)).await;

    let (old, mut process) = remove_a_follower(&mut cluster, new);
    let status = process.wait(CHANGE_SECONDS);
    let output = process.output();
    assert!(output.contains("was removed from the cluster"), "{status}\n{output}");
    cluster.await_leader();
    cluster.cli().apply(cluster.dir(), &namespace("without"));

    // Its id is never used again, and its data gives it no way back.
    let (code, output) = cluster.try_server(old, &[]).refused(CHANGE_SECONDS);
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("was removed from the cluster"), "{output}");
    let add = ["--timeout", "90s", "member", "add", cluster.address(old), "--id", &old.to_string()];
    cluster.cli().run(&add).refused(1, &["never used again"]);
    // The new one votes: with it and one more, two of three, writes go on.
    let other = cluster.running().into_iter().find(|id| *id != new).expect("two old ones are left");
    cluster.take(other).kill();
    cluster.await_leader();
    cluster.cli().apply(cluster.dir(), &namespace("two-of-three"));
    cluster.await_equal_digests().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_member_is_not_let_back_in() {
    let mut cluster = Cluster::start(3);
    cluster.cli().apply(cluster.dir(), &namespace("kept"));
    let leader = cluster.await_leader();
    let emptied = cluster.running().into_iter().find(|id| *id != leader).expect("a follower");
    // Known by its data directory, which every member has made known once it is in the log.
    cluster.await_member(emptied, |m| !m.storage_uid.is_empty()).await;
    cluster.await_equal_digests().await;
    cluster.take(emptied).kill();
    std::fs::remove_dir_all(cluster.data_dir(emptied)).expect("emptied");
    let founders: Vec<String> = (1..=3).map(|id| format!("{id}={}", cluster.address(id))).collect();
    let process = cluster.try_server(emptied, &["--initial-cluster", &founders.join(",")]);
    let (code, output) = process.refused(CHANGE_SECONDS);
    assert_eq!(code, 1, "{output}");
    for words in ["another data directory", "remove the member, add it under a new id", "--join"] {
        assert!(output.contains(words), "{words:?} is not in:\n{output}");
    }
    // Nor by the other door.
    let leader = cluster.address(leader).to_owned();
    let (code, output) = cluster.try_server(emptied, &["--join", &leader]).refused(CHANGE_SECONDS);
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("is known to the cluster with another data directory"), "{output}");
    cluster.cli().apply(cluster.dir(), &namespace("goes-on"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_member_gets_a_snapshot() {
    const BATCHES: usize = 60;
    let mut cluster = Cluster::prepare(3);
    cluster.options.extend(["--snapshot-entries".to_owned(), "20".to_owned()]);
    for id in 1..=3 {
        cluster.start_server(id);
    }
    cluster.await_all();
    let leader = cluster.await_leader();
    let lagging = cluster.running().into_iter().find(|id| *id != leader).expect("a follower");
    let last = cluster.status(lagging).await.expect("answers").last_index;
    cluster.take(lagging).kill();
    for batch in 0..BATCHES {
        cluster.cli().apply(cluster.dir(), &namespace(&format!("batch-{batch}")));
    }
    // Whoever leads when it comes back has compacted the log beyond what it has.
    for id in cluster.running() {
        await_status(&cluster, id, |s| s.first_index > last + 1 && s.snapshot_index > last + 20).await;
    }
    cluster.start_server(lagging);
    cluster.await_equal_digests().await;
    await_status(&cluster, lagging, |s| s.snapshot_index > last).await;
    let cli = bulkhead_tests::Cli::new(&[cluster.address(lagging).to_owned()]);
    wait::until_true("the last namespace", CHANGE_SECONDS, || {
        cli.object("namespace", &format!("batch-{}", BATCHES - 1)).is_some()
    });
    let _ = cluster.cli().run(&["debug", "check"]).ok();
}
