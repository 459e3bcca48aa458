//! A control plane of one process for tests: takes registrations, sends the intent that the test sets, acknowledges
//! and keeps every report.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bulkhead_proto::v1;
use bulkhead_proto::v1::agents_server::{Agents, AgentsServer};
use bulkhead_types::{AgentAck, AgentReport, Intent, NodeFacts, ObjectId, PodIntent, PodReport};
use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

const NODE: ObjectId = ObjectId(3);
const LEASE_MS: u64 = 10_000;
const HEARTBEAT_MS: u64 = 500;

/// What a test sees and sets.
#[derive(Clone)]
pub struct FakeServer {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    facts: Mutex<Option<NodeFacts>>,
    incarnation: watch::Sender<u64>,
    /// Generation and pods.
    intent: watch::Sender<(u64, Vec<PodIntent>)>,
    /// The newest report of each pod.
    reports: watch::Sender<BTreeMap<ObjectId, PodReport>>,
    usage: watch::Sender<BTreeMap<ObjectId, u64>>,
    orders: Mutex<Vec<bulkhead_types::VolumeOrder>>,
    /// Volumes that shall be deleted.
    doomed: Mutex<Vec<bulkhead_types::DeletedVolume>>,
    /// What was said of volumes in each session.
    said: watch::Sender<Vec<(u64, VolumeWord)>>,
    nics: Mutex<Vec<bulkhead_types::SriovInterface>>,
    /// The addresses of the first devices that each session told of.
    devices: watch::Sender<BTreeMap<u64, Vec<String>>>,
    /// What came of them.
    results: watch::Sender<Vec<bulkhead_types::VolumeResult>>,
}

impl FakeServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State {
            facts: Mutex::default(),
            incarnation: watch::Sender::new(0),
            intent: watch::Sender::new((1, Vec::new())),
            reports: watch::Sender::new(BTreeMap::new()),
            usage: watch::Sender::new(BTreeMap::new()),
            orders: Mutex::default(),
            doomed: Mutex::default(),
            said: watch::Sender::new(Vec::new()),
            nics: Mutex::default(),
            devices: watch::Sender::new(BTreeMap::new()),
            results: watch::Sender::new(Vec::new()),
        });
        let service = AgentsServer::new(Service { state: Arc::clone(&state) });
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self { address, state }
    }

    pub fn facts(&self) -> NodeFacts {
        self.state.facts.lock().expect("no panic").clone().expect("joined")
    }

    /// Counts the sessions.
    pub fn incarnation(&self) -> u64 {
        *self.state.incarnation.borrow()
    }

    /// Waits for a session after this one.
    pub async fn joined(&self, after: u64) {
        let mut incarnation = self.state.incarnation.subscribe();
        let newer = incarnation.wait_for(|now| *now > after);
        tokio::time::timeout(super::DEADLINE, newer).await.expect("a session").expect("kept");
    }

    /// Sets what should run.
    pub fn intend(&self, pods: Vec<PodIntent>) {
        self.state.intent.send_modify(|(generation, intended)| {
            *generation += 1;
            *intended = pods;
        });
    }

    /// Waits until the newest report of a pod is like this.
    pub async fn report(&self, pod: u64, what: &str, like: impl Fn(&PodReport) -> bool) -> PodReport {
        let mut reports = self.state.reports.subscribe();
        let found = reports.wait_for(|reports| reports.get(&ObjectId(pod)).is_some_and(&like));
        let found = tokio::time::timeout(super::DEADLINE, found)
            .await
            .map(|found| found.expect("kept")[&ObjectId(pod)].clone());
        found.unwrap_or_else(|_| panic!("{what} never came; last: {:#?}", self.state.reports.borrow()))
    }

    /// Sets what should run, and what is to be done with volumes.
    pub fn intend_with(&self, pods: Vec<PodIntent>, orders: Vec<bulkhead_types::VolumeOrder>) {
        *self.state.orders.lock().expect("no panic") = orders;
        self.intend(pods);
    }

    /// Sets which volumes shall be deleted.
    pub fn delete_volumes(&self, volumes: Vec<bulkhead_types::DeletedVolume>) {
        *self.state.doomed.lock().expect("no panic") = volumes;
        self.state.intent.send_modify(|(generation, _)| *generation += 1);
    }

    /// Waits until this session, or a later one, says something of a volume.
    pub async fn said_of_volumes(&self, incarnation: u64, what: &str, is_it: impl Fn(&VolumeWord) -> bool) {
        let mut said = self.state.said.subscribe();
        let found = said.wait_for(|all| all.iter().any(|(of, word)| *of >= incarnation && is_it(word)));
        let found =
            tokio::time::timeout(super::DEADLINE, found).await.map(|found| drop(found.expect("kept")));
        found.unwrap_or_else(|_| panic!("{what}: never said; said: {:#?}", self.state.said.borrow()))
    }

    /// Sets what NICs shall be.
    pub fn intend_nics(&self, nics: Vec<bulkhead_types::SriovInterface>) {
        *self.state.nics.lock().expect("no panic") = nics;
        self.state.intent.send_modify(|(generation, _)| *generation += 1);
    }

    /// Waits for the first word of this session, or the next one, about devices: the addresses of those that are there.
    pub async fn first_devices(&self, incarnation: u64) -> Vec<String> {
        let mut devices = self.state.devices.subscribe();
        let found = devices.wait_for(|known| known.range(incarnation..).next().is_some());
        let found =
            tokio::time::timeout(super::DEADLINE, found).await.expect("devices are told of").expect("kept");
        found.range(incarnation..).next().map(|(_, addresses)| addresses.clone()).unwrap_or_default()
    }

    /// Waits until something with a volume is done.
    pub async fn done(&self, task: bulkhead_types::VolumeTask) {
        let mut results = self.state.results.subscribe();
        let found = results.wait_for(|results| results.iter().any(|one| one.task == task && one.done));
        let found =
            tokio::time::timeout(super::DEADLINE, found).await.map(|found| drop(found.expect("kept")));
        found.unwrap_or_else(|_| panic!("{task:?} never done; said: {:#?}", self.state.results.borrow()))
    }

    /// Waits until a pod's memory in use is reported.
    pub async fn usage(&self, pod: u64) -> u64 {
        let mut usage = self.state.usage.subscribe();
        let found = usage.wait_for(|usage| usage.contains_key(&ObjectId(pod)));
        tokio::time::timeout(super::DEADLINE, found).await.expect("usage").expect("kept")[&ObjectId(pod)]
    }
}

/// What an agent says of a volume.
#[derive(Clone, Debug)]
pub enum VolumeWord {
    /// What came of an order.
    Result(bulkhead_types::VolumeResult),
    /// That of this claim is gone.
    Deleted(ObjectId),
}

struct Service {
    state: Arc<State>,
}

#[tonic::async_trait]
impl Agents for Service {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let facts = request.into_inner().facts.expect("facts").try_into().expect("facts");
        *self.state.facts.lock().expect("no panic") = Some(facts);
        self.state.incarnation.send_modify(|incarnation| *incarnation += 1);
        let incarnation = *self.state.incarnation.borrow();
        Ok(Response::new(v1::JoinResponse {
            node: NODE.0,
            incarnation,
            lease_ms: LEASE_MS,
            heartbeat_ms: HEARTBEAT_MS,
            cluster_id: String::new(),
        }))
    }

    type ConnectStream = Pin<Box<dyn Stream<Item = Result<v1::ServerMessage, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(serve(Arc::clone(&self.state), request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn report(&self, _: Request<v1::AgentReport>) -> Result<Response<v1::AgentAck>, Status> {
        Err(Status::unimplemented("agents connect"))
    }
}

async fn serve(
    state: Arc<State>,
    mut messages: Streaming<v1::AgentMessage>,
    sender: mpsc::Sender<Result<v1::ServerMessage, Status>>,
) {
    let mut intents = state.intent.subscribe();
    intents.mark_changed();
    let incarnation = *state.incarnation.borrow();
    loop {
        let message = tokio::select! {
            changed = intents.changed() => {
                changed.expect("kept");
                let (generation, pods) = intents.borrow_and_update().clone();
                let intent = Intent { node: NODE, incarnation, generation, pods, deleted_volumes: state.doomed.lock().expect("no panic").clone(), gpu: None, cpu_pools: None, nics: state.nics.lock().expect("no panic").clone(), volume_orders: state.orders.lock().expect("no panic").clone() };
                v1::server_message::Message::Intent((&intent).into())
            }
            message = messages.message() => {
                let Ok(Some(v1::AgentMessage { message: Some(message) })) = message else { return };
                let v1::agent_message::Message::Report(report) = message;
                let report: AgentReport = report.try_into().expect("a report");
                assert_eq!(report.incarnation, incarnation);
                state.reports.send_modify(|known| {
                    for pod in report.pods {
                        let newer = known.get(&pod.pod).is_none_or(|old| old.sequence < pod.sequence);
                        if newer {
                            known.insert(pod.pod, pod);
                        }
                    }
                });
                if let Some(devices) = report.devices.get() {
                    let addresses = devices.devices.iter().map(|device| device.address.to_string()).collect();
                    state.devices.send_modify(|known| _ = known.entry(incarnation).or_insert(addresses));
                }
                let results = report.volume_results.iter().cloned().map(VolumeWord::Result);
                let words = results.chain(report.deleted_volumes.into_iter().map(VolumeWord::Deleted));
                let words: Vec<_> = words.map(|word| (incarnation, word)).collect();
                state.said.send_modify(|said| said.extend(words));
                state.results.send_modify(|known| known.extend(report.volume_results));
                state.usage.send_modify(|known| {
                    known.extend(report.usage.iter().map(|usage| (usage.pod, usage.memory_bytes)));
                });
                let ack = AgentAck { sent_at_ms: report.sent_at_ms, lease_ms: LEASE_MS, devices_unknown: false };
                v1::server_message::Message::Ack((&ack).into())
            }
        };
        if sender.send(Ok(v1::ServerMessage { message: Some(message) })).await.is_err() {
            return;
        }
    }
}
