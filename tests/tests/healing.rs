//! What an operator does when a server is damaged, has diverged or is too old, and when a majority is gone for good.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bulkhead_controlplane_core::Machine;
use bulkhead_controlplane_core::replica::SnapshotPoint;
use bulkhead_controlplane_disk::{point_of, save_snapshot, survivor};
use bulkhead_proto::ProtoCodec;
use bulkhead_tests::{Cli, Cluster, Process, free_addresses, wait};
use bulkhead_types::{Command, LogRecord, Name, Namespace, Object, ObjectMeta, Stamped};

/// How long a server may take to stop, refuse or catch up.
const SECONDS: u64 = 90;

fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn follower(cluster: &Cluster) -> u64 {
    let leader = cluster.await_leader();
    cluster.running().into_iter().find(|id| *id != leader).expect("a follower")
}

fn assert_words(output: &str, words: &[&str]) {
    for word in words {
        assert!(output.contains(word), "{word:?} is not in:\n{output}");
    }
}

/// The documented command, from a lost member to its successor. It is cut short once, and run again.
async fn replace(cluster: &mut Cluster, lost: u64) -> u64 {
    let address = cluster.address(lost).to_owned();
    let lost = lost.to_string();
    let words = ["member", "replace", &lost, "--timeout", "90s"];
    let added = || {
        let list = cluster.cli().run(&["member", "list", "-o", "json"]);
        let list: serde_json::Value = serde_json::from_str(&list.stdout).ok()?;
        let learner = list["members"].as_array()?.iter().find(|m| m["role"] == "learner").cloned()?;
        learner["id"].as_u64()
    };
    let first = Process::start(cluster.dir(), "replace", &mut cluster.cli().command(&words));
    let new = wait::until("the learner", SECONDS, added);
    first.kill();
    let others = cluster.servers().join(",");
    cluster.start_new(new, &address, &["--join", &others]);
    let done = cluster.cli().run(&words).ok();
    assert_words(&done, &["as begun before", &format!("member {new} has taken the place of member {lost}")]);
    let again = cluster.cli().run(&words);
    again.refused(3, &["has no member"]);
    new
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_damaged_record_refuses_and_is_replaced_by_one_command() {
    let mut cluster = Cluster::start(3);
    cluster.cli().apply(cluster.dir(), &namespace("kept-for-ever"));
    let damaged = follower(&cluster);
    cluster.await_equal_digests().await;
    cluster.take(damaged).terminate();
    damage(&cluster.data_dir(damaged).join("db"), b"kept-for-ever");
    let all: Vec<String> = (1..=3).map(|id| format!("{id}={}", cluster.address(id))).collect();
    let refused = cluster.try_server(damaged, &["--initial-cluster", &all.join(",")]);
    let (code, output) = refused.refused(SECONDS);
    assert_eq!(code, 1, "{output}");
    assert_words(&output, &["tree ", "remedy", "bulkhead member replace"]);
    let new = replace(&mut cluster, damaged).await;
    cluster.cli().apply(cluster.dir(), &namespace("healed"));
    cluster.await_equal_digests().await;
    // The new one counts: with it and one more, two of three, writes go on.
    let leader = cluster.await_leader();
    let other = cluster.running().into_iter().find(|id| *id != leader && *id != new);
    if let Some(other) = other {
        cluster.take(other).kill();
    }
    cluster.cli().apply(cluster.dir(), &namespace("two-of-three"));
}

/// Flips bits wherever these words are in the largest file of a folder.
fn damage(dir: &Path, words: &[u8]) {
    let files = fs::read_dir(dir).expect("a folder").flatten().map(|entry| entry.path());
    let size = |path: &std::path::PathBuf| fs::metadata(path).map(|m| m.len()).unwrap_or_default();
    let path = files.filter(|path| path.is_file()).max_by_key(size).expect("a file");
    let mut bytes = fs::read(&path).expect("read");
    let places: Vec<usize> =
        (0..bytes.len() - words.len()).filter(|at| bytes[*at..].starts_with(words)).collect();
    assert!(!places.is_empty(), "the words are in {}", path.display());
    for at in places {
        bytes[at] ^= 0xff;
    }
    fs::write(&path, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_that_a_running_server_meets_ends_it_by_name() {
    let mut cluster = Cluster::prepare(3);
    // What a snapshot covers is not read to start.
    cluster.options.extend(["--snapshot-entries", "4"].map(str::to_owned));
    for id in 1..=3 {
        cluster.start_server(id);
    }
    cluster.await_all();
    for name in ["one", "two", "three", "four", "five"] {
        cluster.cli().apply(cluster.dir(), &namespace(name));
    }
    let damaged = follower(&cluster);
    cluster.await_equal_digests().await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(SECONDS);
    while cluster.status(damaged).await.is_none_or(|status| status.snapshot_index < 5) {
        assert!(std::time::Instant::now() < deadline, "no snapshot");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    cluster.take(damaged).terminate();
    damage_event(&cluster.data_dir(damaged));
    cluster.start_server(damaged);
    // It starts; whoever in it reads the record first (a client's request, or the keeper of the history) ends it.
    let words = ["tree events", "remedy", "bulkhead member replace"];
    let (code, output) = cluster.take(damaged).refused(SECONDS);
    assert_eq!(code, 1, "{output}");
    assert_words(&output, &words);
    cluster.cli().apply(cluster.dir(), &namespace("others-go-on"));
    assert!(cluster.cli().run(&["events", "-A"]).ok().contains("others-go-on"));
    let _ = replace(&mut cluster, damaged).await;
}

/// Flips a bit of a stopped server's second event, below its checksum and above the database's own.
fn damage_event(data_dir: &Path) {
    let config = sled::Config::new().path(data_dir.join("db")).segment_size(8 << 20);
    let events = config.open().and_then(|db| db.open_tree("events")).expect("opens");
    let (key, value) = events.iter().nth(1).expect("there are some").expect("readable");
    let mut value = value.to_vec();
    *value.last_mut().expect("bytes") ^= 1;
    events.insert(key, value).expect("written");
    events.flush().expect("flushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diverged_server_stops_and_says_where_and_the_others_go_on() {
    let mut cluster = Cluster::prepare(3);
    cluster.options.extend(["--digest-entries", "10"].map(str::to_owned));
    for id in 1..=3 {
        cluster.start_server(id);
    }
    cluster.await_leader();
    cluster.cli().apply(cluster.dir(), &namespace("before"));
    cluster.await_equal_digests().await;
    let astray = follower(&cluster);
    cluster.take(astray).terminate();
    lead_astray(&cluster.data_dir(astray));
    cluster.start_server(astray);
    let mut process = cluster.take(astray);
    let mut written = 0;
    while process.ended().is_none() {
        assert!(written < 200, "it never stopped:\n{}", process.output());
        cluster.cli().apply(cluster.dir(), &namespace(&format!("n{written}")));
        written += 1;
    }
    let (code, output) = process.refused(SECONDS);
    assert_eq!(code, 1, "{output}");
    assert_words(&output, &["after entry ", "diverged and stops", "bulkhead member replace"]);
    cluster.cli().apply(cluster.dir(), &namespace("others-go-on"));
    let _ = replace(&mut cluster, astray).await;
    cluster.await_equal_digests().await;
}

/// Makes a stopped server's State another one than the log leads to, with every checksum right: what a fault in
/// memory or a bug would do.
fn lead_astray(data_dir: &Path) {
    let mut stores = bulkhead_storage::open(data_dir, None).expect("opens");
    let found = survivor(&mut stores, &ProtoCodec).expect("readable");
    let mut machine = Machine::new(found.state);
    let meta = ObjectMeta::new(None, Name::new("astray").expect("a name"));
    let stamped = Stamped {
        request_id: uuid::Uuid::from_u128(1),
        actor: "user:nobody".into(),
        proposed_at_ms: 0,
        trace_context: None,
        preconditions: Vec::new(),
        commands: vec![Command::Create(Object::Namespace(Arc::new(Namespace { meta })))],
    };
    let _ = machine.apply(&LogRecord::Batch(vec![stamped]));
    let latest = stores.snapshots.latest().expect("readable").expect("there is one");
    let conf_state = point_of(&latest.meta).expect("readable").conf_state;
    let point = SnapshotPoint { index: found.last, term: found.term, conf_state };
    save_snapshot(&*stores.snapshots, &ProtoCodec, &point, machine.state()).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_survivor_goes_on_alone_after_its_directory_is_archived() {
    let mut cluster = Cluster::start(3);
    cluster.cli().apply(cluster.dir(), &namespace("kept"));
    cluster.await_equal_digests().await;
    let before = cluster.status(1).await.expect("answers");
    let (dir, address) = (cluster.data_dir(1), cluster.address(1).to_owned());
    let offline = Cli::new(&[]);
    let words = ["recover", "--data-dir", text(&dir), "--advertise", &address];
    let sure = [&words[..], &["--new-cluster-of-one"]].concat();
    offline.run(&words).refused(2, &["acknowledged may be missing", "--new-cluster-of-one"]);
    offline.run(&sure).refused(1, &["is in use by another process"]);
    for id in 1..=3 {
        cluster.take(id).kill();
    }
    let done = offline.run(&sure).ok();
    assert_words(&done, &["archived: ", "may be lost", "by members 2, 3", "--adopt-cluster", "revision "]);
    let archive = cluster.dir().join("server-1.before-recovery");
    assert!(archive.join("identity").is_file() && archive.join("db").is_dir());
    offline.run(&sure).refused(1, &["exists already", "--archive"]);

    // The others come back after all, with their old configuration: they are another cluster.
    for id in 2..=3 {
        cluster.start_server(id);
    }
    cluster.start_with(1, &[]);
    let alone = Cli::new(std::slice::from_ref(&address));
    wait::until_true("the survivor serves", SECONDS, || {
        alone.run(&["--timeout", "5s", "get", "namespace", "kept"]).code == 0
    });
    let after = cluster.status(1).await.expect("answers");
    assert_ne!(after.cluster_id, before.cluster_id);
    assert!(after.revision > before.revision + 1_000_000_000, "{after:?}");
    alone.apply(cluster.dir(), &namespace("new-life"));
    let members = alone.run(&["member", "list", "-o", "json"]).ok();
    let members: serde_json::Value = serde_json::from_str(&members).expect("JSON");
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
    for id in 2..=3 {
        assert!(cluster.status(id).await.is_none_or(|s| s.cluster_id == before.cluster_id));
        cluster.take(id).kill();
    }
    let new = cluster.join();
    let _ = cluster.cli().run(&["member", "promote", &new.to_string(), "--timeout", "60s"]).ok();
    cluster.await_equal_digests().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_cluster_runs_at_the_lower_level_and_there_is_no_way_back() {
    let mut cluster = Cluster::prepare(3);
    let all: Vec<String> = (1..=3).map(|id| format!("{id}={}", cluster.address(id))).collect();
    let all = all.join(",");
    let older = ["--initial-cluster", &all, "--feature-level-max", "1"];
    cluster.start_server(1);
    cluster.start_server(2);
    cluster.start_with(3, &older);
    cluster.await_leader();
    let level = |cluster: &Cluster| cluster.cli().run(&["cluster", "feature-level", "get"]).stdout;
    wait::until_true("level 1", SECONDS, || level(&cluster).contains("feature level 1\n"));
    let set = |cluster: &Cluster, level: &str| cluster.cli().run(&["cluster", "feature-level", "set", level]);
    set(&cluster, "2").refused(1, &["member 3 supports up to level 1", "upgrade or remove that member"]);
    let leader = cluster.await_leader();
    let other = (1..=2).find(|id| *id != leader).expect("one").to_string();
    let forced = cluster.cli().run(&["member", "remove", &other, "--force-unsafe"]);
    forced.refused(1, &["needs level 2, the cluster runs at level 1", "feature-level set 2"]);
    cluster.cli().apply(cluster.dir(), &namespace("at-level-1"));

    cluster.take(3).terminate();
    cluster.start_server(3);
    wait::until_true("level 2", SECONDS, || set(&cluster, "2").code == 0);
    set(&cluster, "1").refused(1, &["going back to 1 is not possible"]);
    cluster.await_equal_digests().await;
    cluster.take(3).terminate();
    let (code, output) = cluster.try_server(3, &older).refused(SECONDS);
    assert_eq!(code, 1, "{output}");
    let too_old = ["runs at feature level 2", "supports up to 1", "too old"];
    assert_words(&output, &too_old);
    let address = free_addresses(1).remove(0);
    let _ = cluster.cli().run(&["member", "add", &address, "--id", "9"]).ok();
    let mut joining = cluster.server_command(9, &address, &cluster.data_dir(9));
    joining.args(["--join", &cluster.servers().join(","), "--feature-level-max", "1"]);
    let (code, output) = Process::start(cluster.dir(), "server-9", &mut joining).refused(SECONDS);
    assert_eq!(code, 1, "{output}");
    assert_words(&output, &too_old);
}
