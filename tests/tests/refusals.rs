//! Data directories that a server must not use: it ends with what is wrong and what helps.

use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_tests::{Cluster, Process};

/// How long a refusal may take.
const REFUSED_SECONDS: u64 = 120;

/// Starts a server and insists that it ends with these words.
#[track_caller]
fn check(cluster: &Cluster, id: u64, data_dir: &Path, founders: &str, words: &[&str]) {
    let mut command = cluster.server_command(id, cluster.address(1), data_dir);
    let name = format!("refused-{}", words[0].replace([' ', '/'], "-"));
    let process = Process::start(cluster.dir(), &name, command.args(["--initial-cluster", founders]));
    let (code, output) = process.refused(REFUSED_SECONDS);
    assert_eq!(code, 1, "{output}");
    for word in words {
        assert!(output.contains(word), "{word:?} is not in:\n{output}");
    }
}

#[test]
fn a_snapshot_that_lacks_a_chunk_is_refused() {
    let mut cluster = Cluster::start(1);
    cluster.cli().apply(cluster.dir(), "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: kept\n");
    let _ = cluster.cli().run(&["debug", "snapshot"]).ok();
    cluster.take(1).terminate();
    let data_dir = cluster.data_dir(1);
    // As the server opens it.
    let config = sled::Config::new().path(data_dir.join("db")).segment_size(8 << 20);
    let database = config.mode(sled::Mode::HighThroughput).open().expect("opened");
    let snapshots = database.open_tree("snapshots").expect("a tree");
    let keys: Vec<sled::IVec> = snapshots.scan_prefix(b"c").keys().map(|key| key.expect("read")).collect();
    let newest = keys.last().expect("chunks");
    let index = u64::from_be_bytes(newest[1..9].try_into().expect("an index"));
    assert!(index > 1, "not the first of all");
    snapshots.remove(newest).expect("removed");
    database.flush().expect("flushed");
    drop((snapshots, database));
    let founders = format!("1={}", cluster.address(1));
    let words = [
        &format!("snapshot {index}: chunk 0 of 1 is missing"),
        "remedy: run `bulkhead member replace`",
        "joins under a new id",
    ];
    check(&cluster, 1, &data_dir, &founders, &words);
}

/// The largest file of a folder.
fn largest(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).expect("a folder").flatten().map(|entry| entry.path());
    let size = |path: &PathBuf| fs::metadata(path).map(|m| m.len()).unwrap_or_default();
    files.filter(|path| path.is_file()).max_by_key(size).expect("a file")
}

#[test]
fn a_foreign_newer_damaged_or_busy_directory_is_refused() {
    let mut cluster = Cluster::start(1);
    cluster.cli().apply(cluster.dir(), "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: kept-for-ever\n");
    let founders = format!("1={}", cluster.address(1));
    let data_dir = cluster.data_dir(1);
    check(
        &cluster,
        1,
        &data_dir,
        &founders,
        &["is in use by another process", "remedy: stop the other server"],
    );
    cluster.take(1).terminate();

    let as_two = format!("{founders},2=127.0.0.1:9");
    check(&cluster, 2, &data_dir, &as_two, &["belongs to member 1", "configured as member 2", "remedy"]);

    // Founders say on every start which cluster they mean: this one would have another member.
    let words = ["belongs to cluster", "was configured for cluster", "remedy: correct the configuration"];
    check(&cluster, 1, &data_dir, &format!("{founders},9=127.0.0.1:9"), &words);

    let identity = data_dir.join("identity");
    let kept = fs::read_to_string(&identity).expect("text");
    let format = kept.lines().next().expect("a first line");
    fs::write(&identity, kept.replacen(format, "format = 999", 1)).expect("written");
    check(&cluster, 1, &data_dir, &founders, &["on-disk format 999", "remedy: run the version that wrote"]);
    fs::write(&identity, &kept).expect("written");

    let database = largest(&data_dir.join("db"));
    let mut bytes = fs::read(&database).expect("read");
    let words = b"kept-for-ever";
    let places: Vec<usize> =
        (0..bytes.len() - words.len()).filter(|at| bytes[*at..].starts_with(words)).collect();
    assert!(!places.is_empty(), "the namespace is in {}", database.display());
    for at in places {
        bytes[at] ^= 0xff;
    }
    fs::write(&database, bytes).expect("written");
    check(&cluster, 1, &data_dir, &founders, &["remedy"]);
}
