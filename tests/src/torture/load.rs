//! Clients and watchers: what they ask and what they are told, kept as a [`History`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bulkhead_proto::v1;
use bulkhead_types::{Command, Name, Namespace, Object, ObjectMeta};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use v1::commands_client::CommandsClient;
use v1::queries_client::QueriesClient;

use super::history::{Answer, Asked, History, Operation, Seen, Stretch};
use super::rng::Rng;

/// Objects that clients fight over.
const KEYS: usize = 10;
/// The annotation that holds an object's value.
const VALUE: &str = "torture/value";
/// Longest wait for one answer; then the same request goes to another server.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// Between two attempts.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// A watch that says nothing for so long is opened elsewhere; it has a bookmark every second.
const SILENCE: Duration = Duration::from_secs(4);
/// After so many servers in a row that do not keep what a watch wants next, it begins anew from a list.
const COMPACTED_MAX: usize = 12;

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Load {
    began: Instant,
    servers: Vec<String>,
    history: Mutex<History>,
    findings: Mutex<Vec<String>>,
    /// No new operations.
    stop: AtomicBool,
    /// No more attempts at those that are open.
    give_up: AtomicBool,
    /// Watches end once they have everything up to here; 0 while the load goes on.
    watch_until: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) attempts: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) watched: AtomicU64,
    pub(crate) relists: AtomicU64,
    pub(crate) resumed: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name of a contended object.
fn key(number: usize) -> String {
    format!("contended-{number}")
}

/// A connection that notices when the other end is gone.
pub(crate) fn connect(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .connect_lazy()
}

fn namespace(name: &str, value: &str) -> Object {
    let mut meta = ObjectMeta::new(None, Name::new(name).expect("a name"));
    meta.annotations = [(VALUE.into(), value.into())].into_iter().collect();
    Object::Namespace(Arc::new(Namespace { meta }))
}

/// Name, revision and value of an object of this load; `None` for others.
pub(crate) fn read_object(object: v1::Object) -> Option<(String, u64, String)> {
    let object = Object::try_from(object).expect("an object that can be read");
    let meta = object.meta();
    let value = meta.annotations.get(VALUE)?;
    Some((meta.name.to_string(), meta.revision, value.to_string()))
}

/// Whether a refusal leaves it open what happened, or says to come back.
fn is_open(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::Aborted
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
    )
}

impl Load {
    pub(crate) fn new(servers: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            servers,
            history: Mutex::default(),
            findings: Mutex::default(),
            stop: AtomicBool::new(false),
            give_up: AtomicBool::new(false),
            watch_until: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            watched: AtomicU64::new(0),
            relists: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
        })
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn give_up(&self) {
        self.give_up.store(true, Ordering::Relaxed);
    }

    pub(crate) fn watch_until(&self, revision: u64) {
        self.watch_until.store(revision, Ordering::Relaxed);
    }

    pub(crate) fn take_history(&self) -> History {
        std::mem::take(&mut lock(&self.history))
    }

    pub(crate) fn take_findings(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.findings))
    }

    fn found(&self, finding: String) {
        lock(&self.findings).push(finding);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("centuries")
    }

    pub(crate) fn pick_server(&self, rng: &mut Rng) -> String {
        rng.pick(&self.servers)
    }
}

/// One client's own things.
struct Client {
    number: usize,
    load: Arc<Load>,
    rng: Rng,
    channels: BTreeMap<String, Channel>,
    /// The last revision of each object that it knows of.
    known: BTreeMap<String, u64>,
    writes: u64,
}

/// Makes the contended objects, and gives the revision after that.
pub(crate) async fn prepare(load: &Arc<Load>, rng: Rng) -> u64 {
    let mut client = Client::new(usize::MAX, load, rng);
    let mut revision = 0;
    for number in 0..KEYS {
        client.write(key(number), None, false).await;
        revision = client.known.values().copied().max().unwrap_or(0);
    }
    revision
}

/// One client until it is stopped.
pub(crate) async fn client(number: usize, load: Arc<Load>, rng: Rng) {
    let mut client = Client::new(number, &load, rng);
    while !load.stop.load(Ordering::Relaxed) {
        let key = key(client.rng.below(KEYS));
        match client.rng.below(10) {
            0..3 => client.write(key, None, false).await,
            3..6 => client.read(key).await,
            6..9 => {
                let expected = client.known.get(&key).copied();
                client.write(key, expected, false).await;
            }
            _ => {
                let once = format!("once-{number}-{}", client.writes);
                client.write(once, None, true).await;
            }
        }
    }
}

impl Client {
    fn new(number: usize, load: &Arc<Load>, rng: Rng) -> Self {
        let (channels, known) = (BTreeMap::new(), BTreeMap::new());
        Self { number, load: Arc::clone(load), rng, channels, known, writes: 0 }
    }

    fn channel(&mut self) -> Channel {
        let server = self.load.pick_server(&mut self.rng);
        self.channels.entry(server).or_insert_with_key(|server| connect(server)).clone()
    }

    /// Asks one server after the other until an answer is final; `None` when it was told to give up.
    async fn insist<T, F: Future<Output = Result<T, Status>>>(
        &mut self,
        attempt: impl Fn(Channel) -> F,
    ) -> Option<Result<T, Status>> {
        while !self.load.give_up.load(Ordering::Relaxed) {
            let channel = self.channel();
            self.load.attempts.fetch_add(1, Ordering::Relaxed);
            match tokio::time::timeout(ATTEMPT, attempt(channel)).await {
                Ok(Ok(answer)) => return Some(Ok(answer)),
                Ok(Err(status)) if !is_open(&status) => return Some(Err(status)),
                // No answer or none that settles it: once more, with the same request id.
                Ok(Err(_)) | Err(_) => tokio::time::sleep(RETRY_AFTER).await,
            }
        }
        None
    }

    fn note(&mut self, key: String, asked: Asked, invoked: u64, answer: Answer) {
        let completed = match answer {
            Answer::Unknown => u64::MAX,
            _ => self.load.now(),
        };
        let counter = if answer == Answer::Unknown { &self.load.unknown } else { &self.load.acknowledged };
        counter.fetch_add(1, Ordering::Relaxed);
        let operation = Operation { client: self.number, key, asked, invoked, completed, answer };
        lock(&self.load.history).operations.push(operation);
    }

    async fn write(&mut self, key: String, expected: Option<u64>, create: bool) {
        self.writes += 1;
        let value = format!("{}-{}", self.number, self.writes);
        let object = namespace(&key, &value);
        let command = if create { Command::Create(object) } else { Command::Apply(object) };
        let object =
            v1::ObjectRef { kind: v1::Kind::Namespace.into(), name: key.clone(), ..Default::default() };
        let precondition = |revision| v1::Precondition { object: Some(object), revision: Some(revision) };
        let request = v1::SubmitRequest {
            request_id: uuid::Uuid::from_u64_pair(self.rng.next(), self.rng.next()).to_string(),
            preconditions: expected.map(precondition).into_iter().collect(),
            commands: vec![v1::UserCommand::try_from(&command).expect("a user's command")],
            ..Default::default()
        };
        let asked = match expected {
            Some(expected) => Asked::CompareAndSet { expected, value },
            None => Asked::Put { value },
        };
        let invoked = self.load.now();
        let submit = |channel| {
            let mut request = Request::new(request.clone());
            request.set_timeout(ATTEMPT);
            async move { CommandsClient::new(channel).submit(request).await }
        };
        let answer = match self.insist(submit).await {
            None => Answer::Unknown,
            Some(Ok(answer)) => {
                let revision = answer.into_inner().revision;
                self.known.insert(key.clone(), revision);
                Answer::Written(revision)
            }
            Some(Err(status)) if status.code() == Code::Aborted && expected.is_some() => {
                self.known.remove(&key);
                Answer::Conflict
            }
            Some(Err(status)) => {
                self.load.found(format!("{key}, {asked:?} was refused: {status}"));
                Answer::Unknown
            }
        };
        self.note(key, asked, invoked, answer);
    }

    async fn read(&mut self, key: String) {
        let request =
            v1::GetRequest { kind: v1::Kind::Namespace.into(), name: key.clone(), ..Default::default() };
        let invoked = self.load.now();
        let get = |channel| {
            let mut request = Request::new(request.clone());
            request.set_timeout(ATTEMPT);
            async move { QueriesClient::new(channel).get(request).await }
        };
        let answer = match self.insist(get).await {
            None => Answer::Unknown,
            Some(Ok(answer)) => {
                let answer = answer.into_inner();
                let object =
                    answer.object.and_then(read_object).map(|(_, revision, value)| (revision, value));
                if let Some((revision, _)) = &object {
                    self.known.insert(key.clone(), *revision);
                }
                Answer::Read { state_revision: answer.revision, object }
            }
            Some(Err(status)) => {
                self.load.found(format!("{key} cannot be read: {status}"));
                Answer::Unknown
            }
        };
        self.note(key, Asked::Get, invoked, answer);
    }
}

/// One watcher of everything, from a revision on, at one server after the other.
pub(crate) async fn watcher(load: Arc<Load>, from: u64, mut rng: Rng) {
    let mut stretch = Stretch { from, to: from, seen: Vec::new() };
    let mut compacted = 0;
    let is_done = |stretch: &Stretch| {
        let until = load.watch_until.load(Ordering::Relaxed);
        until > 0 && stretch.to >= until
    };
    while !is_done(&stretch) {
        if load.give_up.load(Ordering::Relaxed) {
            load.found(format!("a watch got no further than revision {}", stretch.to));
            break;
        }
        let channel = connect(&load.pick_server(&mut rng));
        let request = v1::WatchRequest {
            kind: v1::Kind::Namespace.into(),
            from_revision: stretch.to,
            bookmark_interval_ms: 1000,
            ..Default::default()
        };
        let before = stretch.to;
        let refused = follow(&load, channel.clone(), request, &mut stretch, &is_done).await;
        load.resumed.fetch_add(1, Ordering::Relaxed);
        compacted = match refused {
            Some(Code::OutOfRange) if stretch.to == before => compacted + 1,
            _ => 0,
        };
        if compacted >= COMPACTED_MAX
            && let Some(revision) = list_revision(channel).await
        {
            load.relists.fetch_add(1, Ordering::Relaxed);
            let next = Stretch { from: revision, to: revision, seen: Vec::new() };
            lock(&load.history).stretches.push(std::mem::replace(&mut stretch, next));
            compacted = 0;
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
    lock(&load.history).stretches.push(stretch);
}

/// Takes what a watch delivers until it breaks; the code when it was refused.
async fn follow(
    load: &Load,
    channel: Channel,
    request: v1::WatchRequest,
    stretch: &mut Stretch,
    is_done: &impl Fn(&Stretch) -> bool,
) -> Option<Code> {
    let mut client = QueriesClient::new(channel);
    let mut changes = match tokio::time::timeout(SILENCE, client.watch(request)).await {
        Ok(Ok(changes)) => changes.into_inner(),
        Ok(Err(status)) => return Some(status.code()),
        Err(_) => return None,
    };
    while !is_done(stretch) && !load.give_up.load(Ordering::Relaxed) {
        let change = match tokio::time::timeout(SILENCE, changes.message()).await {
            Ok(Ok(Some(change))) => change,
            Ok(Err(status)) => return Some(status.code()),
            Ok(Ok(None)) | Err(_) => return None,
        };
        let kind = change.r#type();
        if let Some((key, revision, value)) = change.object.and_then(read_object) {
            let deleted = kind == v1::WatchType::Deleted;
            if !deleted && revision != change.revision {
                load.found(format!("a watch gave {key} of revision {revision} at {}", change.revision));
            }
            let value = (!deleted).then_some(value);
            stretch.seen.push(Seen { revision: change.revision, key, value });
            load.watched.fetch_add(1, Ordering::Relaxed);
        }
        if change.revision < stretch.to {
            load.found(format!("a watch went back from revision {} to {}", stretch.to, change.revision));
        }
        stretch.to = stretch.to.max(change.revision);
    }
    None
}

async fn list_revision(channel: Channel) -> Option<u64> {
    let request = v1::ListRequest { kind: v1::Kind::Namespace.into(), limit: 1, ..Default::default() };
    let mut request = Request::new(request);
    request.set_timeout(ATTEMPT);
    QueriesClient::new(channel).list(request).await.ok().map(|answer| answer.into_inner().revision)
}
