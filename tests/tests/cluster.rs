//! Three servers: forwarding, a killed leader, a lost quorum.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::v1;
use bulkhead_tests::Cluster;
use bulkhead_types::{Command, Name, Namespace, Object, ObjectMeta};
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use v1::commands_client::CommandsClient;
use v1::queries_client::QueriesClient;

const WRITERS: usize = 4;
/// Acknowledged writes of all writers before the leader is killed, and in all.
const WRITES_BEFORE: usize = 40;
const WRITES: usize = 200;
/// Later writes wait until the leader is being killed, so that it is killed in the middle.
const WRITES_AFTER_KILL: usize = 100;
/// Attempts at one write; each waits for an answer or two seconds.
const ATTEMPTS_MAX: usize = 90;

fn create(name: &str, request_id: &str) -> v1::SubmitRequest {
    let meta = ObjectMeta::new(None, Name::new(name).expect("a name"));
    let command = Command::Create(Object::Namespace(Arc::new(Namespace { meta })));
    v1::SubmitRequest {
        request_id: request_id.to_owned(),
        commands: vec![v1::UserCommand::try_from(&command).expect("a user's command")],
        ..Default::default()
    }
}

async fn names(channel: Channel) -> Result<Vec<String>, Status> {
    let request = v1::ListRequest { kind: v1::Kind::Namespace.into(), limit: 10_000, ..Default::default() };
    let list = QueriesClient::new(channel).list(request).await?.into_inner();
    let name = |object| Object::try_from(object).expect("an object").meta().name.to_string();
    Ok(list.items.into_iter().map(name).collect())
}

/// How often each namespace was created, as the history has it.
async fn creations(channel: Channel) -> BTreeMap<String, usize> {
    let request = v1::ListEventsRequest { limit: 100_000, ..Default::default() };
    let mut entries = QueriesClient::new(channel).list_events(request).await.expect("history").into_inner();
    let mut counts = BTreeMap::new();
    while let Some(entry) = entries.message().await.expect("goes on") {
        if let Some(object) = entry.object.filter(|o| o.kind() == v1::Kind::Namespace) {
            *counts.entry(object.name).or_default() += 1;
        }
    }
    counts
}

/// Submits with the same request id at one server after the other until one acknowledges. `ALREADY_EXISTS` would
/// mean that the same request was taken for another one.
async fn insist(channels: &[Channel], first: usize, request: &v1::SubmitRequest) {
    let mut last = None;
    for attempt in 0..ATTEMPTS_MAX {
        let channel = channels[(first + attempt) % channels.len()].clone();
        let mut timed = Request::new(request.clone());
        timed.set_timeout(Duration::from_secs(2));
        match CommandsClient::new(channel).submit(timed).await {
            Ok(_) => return,
            Err(status) if status.code() == Code::AlreadyExists => panic!("applied twice: {status}"),
            Err(status) => last = Some(status),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never acknowledged: {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_takes_commands_and_serves_reads() {
    let cluster = Cluster::start(3);
    for id in 1..=3 {
        let request = create(&format!("from-{id}"), "");
        CommandsClient::new(cluster.channel(id)).submit(request).await.expect("forwarded");
        for reader in 1..=3 {
            let names = names(cluster.channel(reader)).await.expect("reads");
            assert!(names.contains(&format!("from-{id}")), "server {reader}: {names:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_loses_no_acknowledged_write_and_applies_none_twice() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.await_leader();
    let (acknowledged, mut progress) = watch::channel(0_usize);
    let (killed, kill) = watch::channel(false);
    let acknowledged = Arc::new(acknowledged);
    let channels: Vec<Channel> = (1..=3).map(|id| cluster.channel(id)).collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (channels, acknowledged) = (channels.clone(), Arc::clone(&acknowledged));
            let mut kill = kill.clone();
            tokio::spawn(async move {
                for n in (writer..WRITES).step_by(WRITERS) {
                    if n >= WRITES_AFTER_KILL {
                        kill.wait_for(|killed| *killed).await.expect("it is killed");
                    }
                    // Made from the write's number: a retry after any failure is the same request.
                    let id = format!("00000000-0000-4000-8000-{n:012x}");
                    insist(&channels, n, &create(&format!("write-{n}"), &id)).await;
                    acknowledged.send_modify(|count| *count += 1);
                }
            })
        })
        .collect();
    progress.wait_for(|count| *count >= WRITES_BEFORE).await.expect("writers go on");
    let mut process = cluster.take(leader);
    process.signal(Signal::SIGKILL);
    killed.send_replace(true);
    process.kill();
    for writer in writers {
        writer.await.expect("every write is acknowledged in the end");
    }
    cluster.start_server(leader);
    cluster.await_all();
    cluster.await_equal_digests().await;
    for id in 1..=3 {
        let names = names(cluster.channel(id)).await.expect("reads");
        let counts = creations(cluster.channel(id)).await;
        for n in 0..WRITES {
            let name = format!("write-{n}");
            assert_eq!(names.iter().filter(|found| **found == name).count(), 1, "server {id}: {name}");
            assert_eq!(counts.get(&name), Some(&1), "server {id}: {name}");
        }
    }
    let _ = cluster.cli().run(&["debug", "check"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_writes_are_refused_in_time_and_a_retry_counts_once() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.await_leader();
    let others: Vec<u64> = cluster.running().into_iter().filter(|id| *id != leader).collect();
    for id in &others {
        cluster.take(*id).kill();
    }
    let request = create("undecided", "00000000-0000-4000-8000-00000000abcd");
    let mut timed = Request::new(request.clone());
    timed.set_timeout(Duration::from_secs(5));
    let refused = CommandsClient::new(cluster.channel(leader)).submit(timed).await.expect_err("no quorum");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("same request id"), "a hint: {refused}");
    for id in &others {
        cluster.start_server(*id);
    }
    cluster.await_all();
    let channels: Vec<Channel> = (1..=3).map(|id| cluster.channel(id)).collect();
    insist(&channels, 0, &request).await;
    insist(&channels, 1, &request).await;
    cluster.await_equal_digests().await;
    for id in 1..=3 {
        assert_eq!(creations(cluster.channel(id)).await.get("undecided"), Some(&1), "server {id}");
    }
}
