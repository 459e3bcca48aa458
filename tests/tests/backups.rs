//! Backups: saved, checked, restored as another cluster, and written by schedule.

use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_proto::v1;
use bulkhead_tests::{Cli, Cluster, wait};
use tonic::Code;
use v1::agents_client::AgentsClient;
use v1::peers_client::PeersClient;
use v1::queries_client::QueriesClient;

/// How long a server may take to refuse, and a backup to be due.
const SECONDS: u64 = 60;

fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn founders(cluster: &Cluster, count: u64) -> String {
    (1..=count).map(|id| format!("{id}={}", cluster.address(id))).collect::<Vec<_>>().join(",")
}

/// Makes a server's directory from a backup.
fn restore(cluster: &Cluster, id: u64, file: &Path) -> bulkhead_tests::Done {
    let (dir, id) = (cluster.data_dir(id), id.to_string());
    let founders = founders(cluster, 3);
    let args = ["snapshot", "restore", text(file), "--data-dir", text(&dir), "--id", &id];
    Cli::new(&[]).run(&[&args[..], &["--initial-cluster", &founders]].concat())
}

async fn status(cluster: &Cluster) -> v1::StatusResponse {
    cluster.status(cluster.await_leader()).await.expect("answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_cluster_becomes_a_new_one_that_the_old_one_cannot_mix_with() {
    let mut old = Cluster::start(3);
    old.cli().apply(old.dir(), &(namespace("first") + &namespace("second")));
    let file = old.dir().join("cluster.backup");
    let saved = old.cli().run(&["snapshot", "save", text(&file)]).ok();
    assert!(saved.contains("revision"), "{saved}");
    old.cli().run(&["snapshot", "save", text(&file)]).refused(1, &["exists already"]);
    old.cli().apply(old.dir(), &namespace("after-the-backup"));
    let before = status(&old).await;
    damaged_files_are_named(&file);

    let mut new = Cluster::prepare(3);
    for id in 1..=2 {
        let _ = restore(&new, id, &file).ok();
    }
    restore(&new, 1, &file).refused(1, &["is not empty", "only into an empty directory"]);
    new.start_server(1);
    new.start_server(2);
    new.await_leader();
    // A founder that was forgotten must not begin a cluster of its own beside it.
    let all = founders(&new, 3);
    let (code, output) = new.try_server(3, &["--initial-cluster", &all]).refused(SECONDS);
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("restore this one from the same backup"), "{output}");
    let _ = restore(&new, 3, &file).ok();
    new.start_server(3);

    let cli = new.cli();
    assert!(cli.object("namespace", "first").is_some() && cli.object("namespace", "second").is_some());
    assert!(cli.object("namespace", "after-the-backup").is_none(), "it came later");
    cli.apply(new.dir(), &namespace("new-life"));
    new.await_equal_digests().await;
    let after = status(&new).await;
    assert_ne!(after.cluster_id, before.cluster_id);
    assert!(after.revision > before.revision + 1_000_000_000, "{} {}", after.revision, before.revision);
    let _ = cli.run(&["debug", "check"]).ok();
    strangers_are_refused(&new, &before).await;
    // The directory belongs to the founders that it was restored for.
    new.take(3).terminate();
    let others = founders(&new, 2) + ",3=127.0.0.1:9";
    let (_, output) = new.try_server(3, &["--initial-cluster", &others]).refused(SECONDS);
    assert!(output.contains("belongs to cluster"), "{output}");
    old.take(1).terminate();
}

/// Whatever is wrong with a file is said with its place, by `verify` and `restore` alike.
fn damaged_files_are_named(file: &Path) {
    let cli = Cli::new(&[]);
    let whole = cli.run(&["snapshot", "verify", text(file)]).ok();
    assert!(whole.contains("whole and undamaged") && whole.contains("sha256"), "{whole}");
    let bytes = fs::read(file).expect("readable");
    let check = |name: &str, bytes: &[u8], words: &[&str]| {
        let bad = file.with_file_name(name);
        fs::write(&bad, bytes).expect("written");
        cli.run(&["snapshot", "verify", text(&bad)]).refused(1, words);
        let dir = file.with_file_name(format!("restored-{name}"));
        let args = ["snapshot", "restore", text(&bad), "--data-dir", text(&dir), "--id", "1"];
        cli.run(&[&args[..], &["--initial-cluster", "1=127.0.0.1:9"]].concat()).refused(1, words);
        assert!(!dir.exists(), "nothing was begun");
    };
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    check("flipped", &flipped, &["is damaged at byte", "chunk 0", "checksum"]);
    check("cut", &bytes[..bytes.len() - 40], &["is truncated", "ends at byte"]);
    let mut newer = bytes;
    newer[16] = 200;
    check("newer", &newer, &["has format 200", "reads up to 1"]);
    check("other", b"kind: Namespace", &["this is no backup"]);
}

/// Watchers, agents and servers of the old cluster.
async fn strangers_are_refused(new: &Cluster, old: &v1::StatusResponse) {
    let request = v1::WatchRequest {
        kind: v1::Kind::Namespace.into(),
        from_revision: old.revision,
        ..Default::default()
    };
    let mut queries = QueriesClient::new(new.channel(1));
    let refused = match queries.watch(request).await {
        Err(status) => status,
        Ok(stream) => stream.into_inner().message().await.expect_err("no revision of the old cluster"),
    };
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");

    let join = v1::JoinRequest {
        node: "node-1".to_owned(),
        facts: Some(v1::NodeFacts::default()),
        cluster_id: old.cluster_id.clone(),
    };
    let refused =
        AgentsClient::new(new.channel(1)).join(join).await.expect_err("an agent of the old cluster");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("--adopt-cluster"), "{refused}");

    let cluster_id = uuid_of(&old.cluster_id);
    let hello = v1::PeerHello { cluster_id: Some(cluster_id), from: 2, to: 1, ..Default::default() };
    let frame = v1::PeerFrame { frame: Some(v1::peer_frame::Frame::Hello(hello)) };
    let refused = PeersClient::new(new.channel(1)).raft(tokio_stream::iter([frame])).await;
    let refused = refused.expect_err("a server of the old cluster");
    assert!(refused.message().contains("this is cluster"), "{refused}");
}

fn uuid_of(text: &str) -> v1::Uuid {
    use bulkhead_proto::Field;
    let found: Option<v1::Uuid> = uuid::Uuid::parse_str(text).expect("a UUID").to_wire();
    found.expect("not nil")
}

/// The backups in a folder.
fn backups(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "backup"));
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_written_by_the_leader_alone_and_the_newest_are_kept() {
    let mut cluster = Cluster::prepare(3);
    let dir = cluster.dir().join("backups");
    let options = ["--backup-dir", text(&dir), "--backup-every", "1s", "--backup-keep", "2"];
    cluster.options.extend(options.map(str::to_owned));
    for id in 1..=3 {
        cluster.start_server(id);
    }
    cluster.await_leader();
    wait::until_true("two backups", SECONDS, || backups(&dir).len() >= 2);
    let first = backups(&dir)[0].clone();
    // The leader's going is no end of the backups.
    let leader = cluster.await_leader();
    cluster.take(leader).kill();
    cluster.await_leader();
    cluster.cli().apply(cluster.dir(), &namespace("kept"));
    let revision = status(&cluster).await.revision;
    let newest_has_it = || {
        let newest = backups(&dir).pop().expect("some");
        let name = newest.file_name().expect("a name").to_string_lossy().into_owned();
        name.split('-').nth(2).and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n >= revision)
    };
    wait::until_true("a backup by the next leader", SECONDS, newest_has_it);
    wait::until_true("the first one is gone, and no more than two are left", SECONDS, || {
        !first.exists() && backups(&dir).len() <= 2
    });
    let newest = status(&cluster).await.backup.expect("it makes backups");
    assert!(newest.failed == 0 && newest.last_error.is_empty(), "{newest:?}");
    for id in cluster.running() {
        cluster.take(id).terminate();
    }
    for file in backups(&dir) {
        let _ = Cli::new(&[]).run(&["snapshot", "verify", text(&file)]).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_fails_is_seen_and_hurts_nobody() {
    let mut cluster = Cluster::prepare(1);
    let in_the_way = cluster.dir().join("in-the-way");
    fs::write(&in_the_way, "a file").expect("written");
    let options = ["--backup-dir", text(&in_the_way), "--backup-every", "1s"];
    cluster.options.extend(options.map(str::to_owned));
    cluster.start_server(1);
    cluster.await_leader();
    let mut seen = None;
    for _ in 0..SECONDS * 10 {
        seen = status(&cluster).await.backup.filter(|b| b.failed > 0);
        if seen.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let seen = seen.expect("a failed attempt in the status");
    assert!(!seen.last_error.is_empty() && seen.written == 0, "{seen:?}");
    let shown = cluster.cli().run(&["cluster", "status"]).ok();
    assert!(shown.contains("the last backup failed"), "{shown}");
    cluster.cli().apply(cluster.dir(), &namespace("goes-on"));
}
