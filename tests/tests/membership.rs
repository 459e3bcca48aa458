//! Servers that join, leave, lag behind, and come back with nothing.

use bulkhead_proto::v1;
use bulkhead_tests::{Cluster, wait};
use v1::cluster_client::ClusterClient;

/// How long a member may take to catch up, or to notice that it was removed.
const CHANGE_SECONDS: u64 = 40;

fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

/// What the leader knows of a member.
async fn member(cluster: &Cluster, of: u64) -> Option<v1::Member> {
    for id in cluster.running() {
        let mut client = ClusterClient::new(cluster.channel(id));
        let Ok(answer) = client.members(v1::MembersRequest::default()).await else { continue };
        let found = answer.into_inner().members.into_iter().find(|m| m.id == of);
        if found.as_ref().is_some_and(|m| m.match_index.is_some()) {
            return found;
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_joins_is_promoted_and_an_old_one_leaves() {
    let mut cluster = Cluster::start(3);
    cluster.cli().apply(cluster.dir(), &namespace("before"));
    let new = cluster.join();
    // At once: the command itself waits until the learner has caught up.
    let promote = ["member", "promote", &new.to_string(), "--timeout", "40s"];
    let _ = cluster.cli().run(&promote).ok();
    cluster.cli().apply(cluster.dir(), &namespace("after"));
    let promoted = member(&cluster, new).await.expect("the leader knows it");
    assert_eq!(promoted.role(), v1::MemberRole::Voter, "{promoted:?}");
    cluster.await_equal_digests().await;
    let caught_up = member(&cluster, new).await.expect("the leader knows it");
    assert!(caught_up.match_index > Some(0), "{caught_up:?}");

    let leader = cluster.await_leader();
    let refused = cluster.cli().run(&["member", "remove", &leader.to_string()]);
    refused.refused(1, &["leads the cluster", "transfer the leadership first"]);
    let old = cluster.running().into_iter().find(|id| *id != leader && *id != new).expect("an old follower");
    let mut process = cluster.take(old);
    let _ = cluster.cli().run(&["member", "remove", &old.to_string()]).ok();
    let status = process.wait(CHANGE_SECONDS);
    let output = process.output();
    assert!(output.contains("was removed from the cluster"), "{status}\n{output}");
    cluster.await_leader();
    cluster.cli().apply(cluster.dir(), &namespace("without"));

    // Its id is never used again, and its data gives it no way back.
    let (code, output) = cluster.try_server(old, &[]).refused(CHANGE_SECONDS);
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("was removed from the cluster"), "{output}");
    let again = cluster.cli().run(&["member", "add", cluster.address(old), "--id", &old.to_string()]);
    assert_ne!(again.code, 0, "an id is never used again");
    // The new one votes: with it and one more, two of three, writes go on.
    let other = cluster.running().into_iter().find(|id| *id != new).expect("two old ones are left");
    cluster.take(other).kill();
    cluster.await_leader();
    cluster.cli().apply(cluster.dir(), &namespace("two-of-three"));
    cluster.await_equal_digests().await;
}

/// How often a member's registration is looked for, 50 ms apart: it follows the first election.
const REGISTRATION_POLLS: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_member_is_not_let_back_in() {
    let mut cluster = Cluster::start(3);
    cluster.cli().apply(cluster.dir(), &namespace("kept"));
    let leader = cluster.await_leader();
    let emptied = cluster.running().into_iter().find(|id| *id != leader).expect("a follower");
    // Known by its data directory, which every member has made known once it is in the log.
    let mut known = member(&cluster, emptied).await.expect("known");
    for _ in 0..REGISTRATION_POLLS {
        if !known.storage_uid.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        known = member(&cluster, emptied).await.expect("known");
    }
    assert!(!known.storage_uid.is_empty(), "{known:?}");
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
    let leader = cluster.await_leader();
    let lagging = cluster.running().into_iter().find(|id| *id != leader).expect("a follower");
    let last = cluster.status(lagging).await.expect("answers").last_index;
    cluster.take(lagging).kill();
    for batch in 0..BATCHES {
        cluster.cli().apply(cluster.dir(), &namespace(&format!("batch-{batch}")));
    }
    let leader = cluster.await_leader();
    let snapshot = cluster.status(leader).await.expect("answers").snapshot_index;
    assert!(snapshot > last + 20, "the log was compacted beyond what it has: {snapshot}, {last}");
    cluster.start_server(lagging);
    cluster.await_equal_digests().await;
    let status = cluster.status(lagging).await.expect("answers");
    assert!(status.snapshot_index > last, "{status:?}");
    let cli = bulkhead_tests::Cli::new(&[cluster.address(lagging).to_owned()]);
    wait::until_true("the last namespace", CHANGE_SECONDS, || {
        cli.object("namespace", &format!("batch-{}", BATCHES - 1)).is_some()
    });
    let _ = cluster.cli().run(&["debug", "check"]).ok();
}
