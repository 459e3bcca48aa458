//! The agent's side of the channel against guests made here, good and hostile.

use super::*;
use crate::logs::{LogStore, Selection, read};
use bulkhead_guest_protocol::host::ContainerConfig;
use bulkhead_nodeagent_core::CLOCK_AHEAD_MS_MAX;
use std::sync::atomic::Ordering;
use tokio::io::AsyncWriteExt as _;

/// A guest that sends these bytes and closes; what the core is told, and the output that was kept.
async fn hear(bytes: Vec<u8>) -> (Vec<Input>, String) {
    let container = ContainerConfig { name: "main".to_owned(), ..ContainerConfig::default() };
    hear_for(container, bytes).await
}

/// The agent's side of a guest that runs this container, and what the core is told.
fn talk(
    container: ContainerConfig,
    logs: PodLogs,
) -> (Talk, mpsc::Receiver<Input>, watch::Sender<Option<u64>>) {
    let (inputs, told) = mpsc::channel(1000);
    let (stop, stopped) = watch::channel(None);
    let talk = Talk {
        pod: ObjectId(7),
        instance: 2,
        config: PodConfig { containers: vec![container], ..PodConfig::default() },
        logs,
        streams: GuestStreams::default(),
        inputs,
        files: watch::channel(Vec::new()).1,
        volume_orders: mpsc::channel(1).1,
        resizing: mpsc::channel(1).1,
        stop: stopped,
        times: GuestTimes::new(1_000, clock::both()),
        start: None,
        starts: std::sync::Arc::default(),
        look_every: Duration::from_secs(60),
        still: std::sync::Arc::default(),
    };
    (talk, told, stop)
}

/// What a container's log holds.
async fn kept(logs: PodLogs) -> String {
    let (sender, mut records) = mpsc::channel(1000);
    let _ = read(logs, "main".to_owned(), Selection::default(), sender).await;
    let mut text = String::new();
    while let Some(record) = records.recv().await {
        text.push_str(&String::from_utf8_lossy(&record.data));
    }
    text
}

/// The same for a guest that runs this container.
async fn hear_for(container: ContainerConfig, bytes: Vec<u8>) -> (Vec<Input>, String) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let logs = LogStore::default().pod(ObjectId(7), dir.path());
    let (mut talk, mut told, _stop) = talk(container, logs.clone());
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let guest = tokio::spawn(async move {
        theirs.write_all(&bytes).await.expect("read");
        theirs.shutdown().await.expect("closed");
        theirs
    });
    talk.run(ours).await.expect("ends with the guest");
    drop((talk, guest.await));
    let mut inputs = Vec::new();
    while let Some(input) = told.recv().await {
        inputs.push(input);
    }
    (inputs, kept(logs).await)
}

fn frames(messages: &[GuestMessage]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| encode(message, &mut bytes).expect("short enough"));
    bytes
}

fn greeting(protocol_version: u32) -> GuestMessage {
    GuestMessage::Hello(guest::Hello { protocol_version, configured: true, ..guest::Hello::default() })
}

fn output(container: &str, offset: u64, text: &str) -> GuestMessage {
    GuestMessage::LogChunk(guest::LogChunk {
        container: container.to_owned(),
        offset,
        data: text.as_bytes().to_vec(),
        ..guest::LogChunk::default()
    })
}

fn state(container: &str, started_at_ms: u64) -> GuestMessage {
    GuestMessage::ContainerState(guest::ContainerState {
        container: container.to_owned(),
        kind: guest::ContainerStateKind::Running.into(),
        started_at_ms,
        ..guest::ContainerState::default()
    })
}

fn started_at_ms(input: &Input) -> u64 {
    match input {
        Input::GuestContainer {
            status: ContainerStatus { state: ContainerState::Running { started_at_ms }, .. },
            ..
        } => *started_at_ms,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_guest_is_heard_through_garbage_and_repetitions() {
    let mut bytes = b"noise BKHD noise".to_vec();
    bytes.extend(frames(&[
        greeting(PROTOCOL_VERSION),
        greeting(PROTOCOL_VERSION),
        state("main", 5_000),
        output("main", 0, "one\n"),
        output("main", 2, "e\ntwo\n"),
    ]));
    let (inputs, text) = hear(bytes).await;
    assert_eq!(inputs.len(), 2, "{inputs:?}");
    assert_eq!(inputs[0], Input::GuestHello { pod: ObjectId(7), instance: 2 });
    assert_eq!(started_at_ms(&inputs[1]), 5_000);
    assert_eq!(text, "one\ntwo\n");
}

#[tokio::test]
async fn what_a_guest_must_not_say_is_not_heard() {
    let check = async |messages: &[GuestMessage]| {
        let (inputs, text) = hear(frames(messages)).await;
        assert!(inputs.iter().all(|input| matches!(input, Input::GuestHello { .. })), "{inputs:?}");
        assert_eq!(text, "");
    };
    check(&[state("main", 5_000), output("main", 0, "before the greeting\n")]).await;
    check(&[greeting(PROTOCOL_VERSION + 1), state("main", 5_000)]).await;
    check(&[greeting(PROTOCOL_VERSION), state("other", 1), output("../../etc", 0, "x\n")]).await;
}

#[tokio::test]
async fn a_guests_clock_is_not_believed() {
    let times = [1, u64::MAX, 0].map(|time| state("main", time));
    let (inputs, _) = hear(frames(&[&[greeting(PROTOCOL_VERSION)], times.as_slice()].concat())).await;
    let heard: Vec<u64> = inputs[1..].iter().map(started_at_ms).collect();
    assert_eq!((heard[0], heard[2]), (1_000, 0));
    assert!(heard[1] <= clock::unix_ms() + CLOCK_AHEAD_MS_MAX, "{heard:?}");
}

#[tokio::test]
async fn a_guest_that_knows_no_https_probes_is_not_given_any() {
    use bulkhead_guest_protocol::host::{Check, CheckConfig, HttpCheck};
    let check = async |asks: bool, can: bool, expected: Option<&str>| {
        let get = HttpCheck { port: 443, path: "/".to_owned(), headers: Vec::new() };
        let kind = Some(if asks { Check::Https(get) } else { Check::Http(get) });
        let container = ContainerConfig {
            name: "main".to_owned(),
            pre_stop: kind.map(CheckConfig::of),
            ..ContainerConfig::default()
        };
        let hello = guest::Hello {
            protocol_version: PROTOCOL_VERSION,
            hands_over_https: can,
            ..guest::Hello::default()
        };
        let (inputs, _) = hear_for(container, frames(&[GuestMessage::Hello(hello)])).await;
        let failed = inputs.iter().find_map(|input| match input {
            Input::GuestPod { phase: PodPhase::Failed, reason, message, .. } => Some((reason, message)),
            _ => None,
        });
        assert_eq!(failed.map(|(reason, _)| reason.as_str()), expected);
        assert!(failed.is_none_or(|(_, message)| message.contains("HTTPS probe or hook")), "{failed:?}");
    };
    check(true, true, None).await;
    check(false, false, None).await;
    check(true, false, Some("GuestTooOld")).await;
}

#[test]
fn what_a_guest_says_of_an_earlier_wish_is_no_answer() {
    let mut talk = Conversation { freezes_volumes: true, ..Conversation::default() };
    let wish = |talk: &mut Conversation, task| {
        let (answer, answered) = tokio::sync::oneshot::channel();
        talk.order(GuestOrder { volume: "data".to_owned(), task, answer });
        answered
    };
    let says =
        |frozen, error: &str| guest::VolumeFrozen { volume: "data".into(), frozen, error: error.into() };
    let mut frozen = wish(&mut talk, GuestTask::Freeze { for_ms: 5 });
    talk.frozen(says(true, ""));
    assert_eq!(frozen.try_recv(), Ok(Ok(())));
    // One that took too long says so only now.
    let mut thawed = wish(&mut talk, GuestTask::Thaw);
    talk.frozen(says(true, ""));
    assert!(thawed.try_recv().is_err(), "it stands still yet");
    talk.frozen(says(false, ""));
    assert_eq!(thawed.try_recv(), Ok(Ok(())));
    let mut late = wish(&mut talk, GuestTask::Thaw);
    talk.frozen(says(false, "its time was over"));
    assert_eq!(late.try_recv(), Ok(Err("its time was over".to_owned())));
    // Nobody asked; and a guest of an earlier agent is not asked.
    talk.frozen(says(true, ""));
    talk.freezes_volumes = false;
    let mut refused = wish(&mut talk, GuestTask::Freeze { for_ms: 5 });
    assert!(refused.try_recv().is_ok_and(|answer| answer.is_err_and(|why| why.contains("earlier version"))));
}

fn main_container() -> ContainerConfig {
    ContainerConfig { name: "main".to_owned(), ..ContainerConfig::default() }
}

/// The guest's end of a conversation.
struct Guest {
    stream: UnixStream,
    reader: FrameReader,
}

impl Guest {
    async fn say(&mut self, messages: &[GuestMessage]) {
        self.stream.write_all(&frames(messages)).await.expect("read");
    }

    /// The next message of a kind.
    async fn hears<T>(&mut self, wanted: impl Fn(HostMessage) -> Option<T>) -> T {
        use tokio::io::AsyncReadExt as _;
        loop {
            while let Some(frame) = self.reader.next_frame() {
                if let Some(found) = wanted(decode(&frame.expect("whole")).expect("a message")) {
                    return found;
                }
            }
            let mut buffer = [0; 4096];
            let length = self.stream.read(&mut buffer).await.expect("read");
            assert!(length > 0, "the agent left");
            self.reader.push(&buffer[..length]);
        }
    }
}

/// The disk does not take a piece of output, and takes those behind it: nothing is lost, because the guest is asked for it again.
#[tokio::test]
async fn output_that_cannot_be_kept_is_asked_for_again_and_nothing_behind_it_takes_its_place() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let logs = LogStore::default().pod(ObjectId(7), dir.path());
    let (mut talk, _told, _stop) = talk(main_container(), logs.clone());
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let mut guest = Guest { stream: theirs, reader: FrameReader::new() };
    let talking = tokio::spawn(async move { talk.run(ours).await });
    // No folder can be made where a file is.
    let in_the_way = dir.path().join("main");
    std::fs::write(&in_the_way, "").expect("written");
    let asked = |message| match message {
        HostMessage::ResumeLogs(wish) => Some((wish.container, wish.from_offset)),
        _ => None,
    };
    let acknowledged = |message| match message {
        HostMessage::AckLogs(ack) => Some(ack.up_to_offset),
        _ => None,
    };
    guest.say(&[greeting(PROTOCOL_VERSION), output("main", 0, "one\n"), output("main", 4, "two\n")]).await;
    assert_eq!(guest.hears(asked).await, ("main".to_owned(), 0));
    std::fs::remove_file(&in_the_way).expect("removed");
    // It was on its way already.
    guest.say(&[output("main", 8, "three\n")]).await;
    guest.say(&[output("main", 0, "one\n"), output("main", 4, "two\n"), output("main", 8, "three\n")]).await;
    while guest.hears(acknowledged).await < 14 {}
    drop(guest);
    let _ = talking.await.expect("no panic");
    assert_eq!(kept(logs).await, "one\ntwo\nthree\n");
}

/// Nobody takes the silence of a guest for its end while it stands still: a volume of it is copied, or there is no room for what it wrote.
#[tokio::test]
async fn a_guest_that_stands_still_for_the_agent_is_not_silent() {
    let silent = async |for_copy: bool, without_room: bool| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let logs = LogStore::default().pod(ObjectId(7), dir.path());
        let (mut talk, mut told, _stop) = talk(main_container(), logs);
        talk.look_every = Duration::from_millis(2);
        let still = Arc::clone(&talk.still);
        let _held = if for_copy { Some(still.for_copy.lock().await) } else { None };
        still.without_room.store(without_room, Ordering::Relaxed);
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        // Many times what it takes.
        let long = Duration::from_millis(if for_copy || without_room { 200 } else { 20_000 });
        let heard = async { while !matches!(told.recv().await, Some(Input::GuestSilent { .. })) {} };
        tokio::select! {
            _ = talk.run(ours) => panic!("nobody closed it"),
            heard = tokio::time::timeout(long, heard) => heard.is_ok(),
        }
    };
    assert!(silent(false, false).await);
    assert!(!silent(true, false).await);
    assert!(!silent(false, true).await);
}
