//! A node: the real agent core, its session with a server, and its clocks.
//!
//! The agent's process can die and come back, with the guests living on; the machine can lose power, and its
//! guests with it.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_nodeagent_core::network::PodRange;
use bulkhead_nodeagent_core::{Action, Agent, AgentConfig, Input};
use bulkhead_types::{
    AgentAck, AgentReport, Device, GpuIntent, LABEL_DEVICES, LABEL_FENCE_GUARD, LABEL_HOST_PORTS,
    LABEL_LOCAL_VOLUMES, LABEL_NETWORKS, MemberId, NodeFacts, NodePrecondition, NodePreconditions, ObjectId,
    PodReport, PreconditionNeed, PreconditionOutcome, Rare, Resources, StringMap, digest128,
};
use smol_str::SmolStr;

use crate::clock::{HostClock, Micros};
use crate::cpus;
use crate::devices::built;
use crate::fencing::Reports;
use crate::guest_life::GuestEvent;
use crate::hypervisor::Hypervisor;
use crate::invariants::reports;
use crate::message::{Body, Call, Envelope, Request, Response};
use crate::network::Host;
use crate::rng::Rng;
use crate::usage;
use crate::workload::node_name;
use crate::world::{Event, Phase, World};

/// How long an agent waits for the answer to its registration, in microseconds.
const JOIN_TIMEOUT_US: Micros = 2_000_000;
/// How long it waits before it asks the next server, in microseconds.
const JOIN_RETRY_US: Micros = 200_000;
const MIB: u64 = 1 << 20;

/// What every simulated machine needs and has: told where the level is there, and not before.
fn preconditions() -> NodePreconditions {
    let kvm = NodePrecondition {
        name: SmolStr::new_static("kvm"),
        need: PreconditionNeed::Speed,
        outcome: PreconditionOutcome::Met,
        found: SmolStr::new_static("simulated"),
        remedy: SmolStr::default(),
    };
    NodePreconditions { preconditions: vec![kvm] }
}

/// A node.
pub(crate) struct AgentHost {
    pub(crate) number: u32,
    pub(crate) clock: HostClock,
    pub(crate) rng: Rng,
    /// Counts the agent's starts.
    pub(crate) life: u32,
    /// Counts the machine's starts.
    pub(crate) boot: u32,
    pub(crate) agent: Option<Agent>,
    pub(crate) hypervisor: Hypervisor,
    /// The server that the session is with.
    session: Option<MemberId>,
    /// The registration that is waited for.
    joining: Option<(Call, MemberId)>,
    /// What was reported of pods and not acknowledged yet, by send time; and whether it had to end the pod.
    reported: BTreeMap<u64, Vec<(PodReport, bool)>>,
    /// When reports were sent, in true time.
    pub(crate) reports: Reports,
    /// The server that was asked last.
    asked: u64,
    /// The node's key, once known.
    pub(crate) node: Option<ObjectId>,
    /// When the last thing asked for about a pod will be done: they are done in order.
    pub(crate) busy_until_us: BTreeMap<ObjectId, Micros>,
    /// When the agent's timer goes off.
    wake_us: Option<Micros>,
    pub(crate) allocatable: Resources,
    pub(crate) pods_max: u32,
    /// Whether it is built with cards.
    has_devices: bool,
    has_functions: bool,
    /// How many NUMA nodes it tells of.
    numa_nodes: u32,
    /// The cards that the machine has now.
    pub(crate) devices: BTreeMap<SmolStr, Device>,
    /// The images that the machine has, by whole name.
    pub(crate) images: BTreeSet<SmolStr>,
    /// The mode that the cards are in.
    pub(crate) gpu: Option<GpuIntent>,
}

/// The addresses of a node's guests: the smallest range in which each of its pods has one.
fn pod_range(number: u32, pods_max: u32) -> PodRange {
    let fits = |prefix: &u32| (1u32 << (32 - prefix)) - 3 >= pods_max;
    let prefix = (24..=30).rev().find(fits).unwrap_or(24);
    let text = format!("10.{}.{}.0/{prefix}", 200 + number / 256, number % 256);
    text.parse().expect("a range")
}

impl AgentHost {
    pub(crate) fn host(&self) -> Host {
        Host::Agent(self.number)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.agent.is_some()
    }

    fn config(&self) -> AgentConfig {
        // Short waits: a virtual minute is as long as a test has.
        AgentConfig {
            backoff_base_ms: 500,
            backoff_max_ms: 5000,
            boot_deadline_ms: 8000,
            stop_margin_ms: 1000,
            power_off_deadline_ms: 3000,
            retry_ms: 2000,
            // Nodes' ranges are apart; as small as the node's pods allow, so that addresses are used again soon.
            pod_range: Some(pod_range(self.number, self.pods_max)),
            ..AgentConfig::new(node_name(self.number).as_str(), self.allocatable, self.pods_max)
        }
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            capacity: self.allocatable,
            allocatable: self.allocatable,
            pods_max: self.pods_max,
            address: SmolStr::new(format!("node-{}:7500", self.number)),
            boot_id: SmolStr::new(format!("boot-{}", self.boot)),
            agent_version: SmolStr::new_static("simulated"),
            kernel_version: SmolStr::new_static("6.1"),
            accelerator: SmolStr::new_static("kvm"),
            warnings: Vec::new(),
            labels: self.labels(),
            cpus: Rare::from(cpus::topology(self.number, self.numa_nodes, self.allocatable)),
            preconditions: Rare::some(preconditions()),
        }
    }

    fn labels(&self) -> StringMap {
        let mut labels = StringMap::from([
            (SmolStr::new_static(LABEL_FENCE_GUARD), SmolStr::new_static("true")),
            (SmolStr::new_static("zone"), SmolStr::new((self.number % 2).to_string())),
        ]);
        if self.has_devices {
            labels.insert(SmolStr::new_static(LABEL_DEVICES), SmolStr::new_static("true"));
        }
        // Every third agent cannot.
        if self.number % 3 != 2 {
            labels.insert(SmolStr::new_static(LABEL_HOST_PORTS), SmolStr::new_static("true"));
        }
        if self.number % 4 != 3 {
            labels.insert(SmolStr::new_static(LABEL_LOCAL_VOLUMES), SmolStr::new_static("true"));
        }
        if self.has_functions {
            labels.insert(SmolStr::new_static(LABEL_NETWORKS), SmolStr::new_static("true"));
        }
        labels
    }
}

impl World {
    /// A machine that is switched on.
    pub(crate) fn add_agent(&mut self, number: u32) {
        let options = &self.options.node;
        let allocatable = Resources {
            cpu_millis: options.cpu_millis,
            memory_bytes: options.memory_mib * MIB,
            ephemeral_storage_bytes: 1 << 40,
            huge_pages: bulkhead_types::HugePages {
                two_mib_bytes: options.huge_pages_mib * MIB,
                one_gib_bytes: 0,
            },
            // Some operators tell of more memory than there is.
            pinned_memory_bytes: if options.huge_pages_mib > 0 && number.is_multiple_of(3) {
                options.memory_mib * MIB / 2
            } else {
                0
            },
        };
        let host = AgentHost {
            number,
            clock: self.draw_clock(),
            rng: Rng::child(self.options.seed, "agent", u64::from(number)),
            life: 0,
            boot: 0,
            agent: None,
            hypervisor: Hypervisor::default(),
            session: None,
            joining: None,
            reported: BTreeMap::new(),
            reports: Reports::default(),
            asked: u64::from(number),
            node: None,
            busy_until_us: BTreeMap::new(),
            wake_us: None,
            allocatable,
            pods_max: self.options.node.pods_max,
            has_devices: self.options.node.devices + self.options.node.functions > 0,
            has_functions: self.options.node.functions > 0,
            numa_nodes: self.options.node.numa_nodes,
            devices: built(number, &self.options.node, None),
            images: BTreeSet::new(),
            gpu: None,
        };
        self.agents.push(host);
        let at_us = self.now_us + self.rng.range(0, 3_000_000);
        self.queue.push(at_us, Event::AgentStart { agent: number });
    }

    /// The agent's process starts, and finds what the last one left.
    pub(crate) fn start_agent(&mut self, number: u32) {
        let host = &mut self.agents[number as usize];
        if host.is_up() || self.lost.is_some_and(|lost| lost.keeps_down(number)) {
            return;
        }
        host.life += 1;
        host.session = None;
        host.joining = None;
        host.reported.clear();
        host.wake_us = None;
        host.busy_until_us.clear();
        host.hypervisor.tasks.clear();
        host.agent = Some(Agent::new(host.config()));
        let vms = host.hypervisor.inventory();
        let (life, lease_until_ms) = (host.life, host.hypervisor.lease_until_ms);
        self.note(Host::Agent(number), "agent starts", vms.len() as u128, || {
            format!(
                "life {life}, {} records, {} running",
                vms.len(),
                vms.iter().filter(|v| v.running).count()
            )
        });
        self.tell_agent(number, Input::Recovered { vms, lease_until_ms });
        self.tell_devices(number);
        self.tell_images(number);
        self.adopted_guests_speak(number);
    }

    /// The agent's process dies; its guests live on. Tells whether it lived.
    pub(crate) fn crash_agent(&mut self, number: u32, restart_after_us: Micros) -> bool {
        let Some(host) = self.agents.get_mut(number as usize) else { return false };
        if host.agent.take().is_none() {
            return false;
        }
        self.note(Host::Agent(number), "agent crash", 0, String::new);
        self.queue.push(self.now_us + restart_after_us, Event::AgentStart { agent: number });
        true
    }

    /// The machine loses power, and everything on it but its disk. Tells whether there is such a machine.
    pub(crate) fn reboot_node(&mut self, number: u32, restart_after_us: Micros) -> bool {
        self.check_all_unique();
        let now_us = self.now_us;
        let Some(host) = self.agents.get_mut(number as usize) else { return false };
        host.boot += 1;
        host.reports.reboot();
        host.hypervisor.reboot();
        host.clock.reboot(now_us);
        let was_up = host.agent.take().is_some();
        self.note(Host::Agent(number), "node reboot", 0, String::new);
        if was_up {
            self.queue.push(now_us + restart_after_us, Event::AgentStart { agent: number });
        }
        true
    }

    /// Hands an observation to a running agent, and does what it wants.
    pub(crate) fn tell_agent(&mut self, number: u32, input: Input) {
        let now_us = self.now_us;
        let host = &mut self.agents[number as usize];
        let Some(agent) = host.agent.as_mut() else { return };
        agent.handle(host.clock.monotonic_ms(now_us), input);
        self.follow_agent(number);
    }

    /// The agent's timer goes off.
    pub(crate) fn wake_agent(&mut self, number: u32, life: u32) {
        let now_us = self.now_us;
        let host = &mut self.agents[number as usize];
        if host.life != life || host.wake_us != Some(now_us) {
            return;
        }
        host.wake_us = None;
        let Some(agent) = host.agent.as_mut() else { return };
        agent.tick(host.clock.monotonic_ms(now_us));
        self.follow_agent(number);
    }

    fn follow_agent(&mut self, number: u32) {
        loop {
            let host = &mut self.agents[number as usize];
            let Some(action) = host.agent.as_mut().and_then(Agent::poll_action) else { break };
            self.act(number, action);
        }
        let now_us = self.now_us;
        let host = &mut self.agents[number as usize];
        let Some(deadline_ms) = host.agent.as_ref().and_then(Agent::next_deadline_ms) else { return };
        let at_us = host.clock.true_us(deadline_ms).max(now_us + 1);
        if host.wake_us.is_none_or(|present| at_us < present) {
            host.wake_us = Some(at_us);
            let life = host.life;
            self.queue.push(at_us, Event::AgentWake { agent: number, life });
        }
    }

    fn act(&mut self, number: u32, action: Action) {
        match action {
            Action::Join => self.join(number),
            Action::Report(report) => self.report(number, report),
            Action::PersistLease { until_ms } => {
                self.agents[number as usize].hypervisor.lease_until_ms = Some(until_ms);
                self.renew_guards(number, until_ms);
            }
            Action::Note(note) => {
                self.note(Host::Agent(number), "note", digest128(&note.to_string()), || note.to_string());
            }
            Action::DeleteVolume { claim, volume } => self.delete_volume(number, claim, volume),
            Action::VolumeTask { order, guest } => self.begin_volume_task(number, order, guest),
            Action::SetGpuMode(gpu) => self.set_gpu_mode(number, gpu),
            // The NICs of simulated machines have as many functions as they have.
            Action::SetNics(_) => {}
            about_a_pod => self.act_on_pod(number, about_a_pod),
        }
    }

    /// Registers with the next server.
    fn join(&mut self, number: u32) {
        self.next_call += 1;
        let call = self.next_call;
        let members: Vec<MemberId> = self.servers.keys().copied().collect();
        let host = &mut self.agents[number as usize];
        host.session = None;
        host.asked += 1;
        let server = members[(host.asked % members.len() as u64) as usize];
        host.joining = Some((call, server));
        let request_id = host.rng.uuid();
        let facts = Box::new(host.facts());
        let (from, life) = (host.host(), host.life);
        let content = Request::Join { request_id, name: node_name(number), facts };
        let request = Envelope { origin: from, call, via: None, content };
        self.send(from, Host::Server(server), Body::Request(request));
        self.queue.push(self.now_us + JOIN_TIMEOUT_US, Event::JoinLate { agent: number, life, call });
    }

    /// No answer to a registration, or a useless one: the next server is asked.
    pub(crate) fn join_late(&mut self, number: u32, life: u32, call: Call) {
        let host = &self.agents[number as usize];
        if host.is_up() && host.life == life && host.joining.is_some_and(|(waits_for, _)| waits_for == call) {
            self.join(number);
        }
    }

    fn report(&mut self, number: u32, mut report: AgentReport) {
        let now_us = self.now_us;
        let load = usage::load(now_us, self.phase == Phase::Liveness);
        report.usage = usage::of_guests(&self.agents[number as usize].hypervisor, load);
        let host = &mut self.agents[number as usize];
        let Some(server) = host.session else { return };
        host.reports.send(report.sent_at_ms, now_us);
        let state = self.chronicle.state();
        let reported = report.pods.iter().map(|pod| (pod.clone(), reports::must_end(state, pod))).collect();
        host.reported.insert(report.sent_at_ms, reported);
        let from = host.host();
        let content = Request::Report(Box::new(report));
        let request = Envelope { origin: from, call: 0, via: None, content };
        self.send(from, Host::Server(server), Body::Request(request));
    }

    /// Something arrives at a node.
    pub(crate) fn deliver_to_agent(&mut self, number: u32, from: Host, body: Body) {
        let host = &self.agents[number as usize];
        let Some(agent) = host.agent.as_ref() else { return };
        match body {
            Body::Intent(intent) => self.tell_agent(number, Input::Intent(*intent)),
            Body::Disconnected { incarnation }
                if agent.joined().is_some_and(|joined| joined.incarnation == incarnation) =>
            {
                self.tell_agent(number, Input::Disconnected);
            }
            Body::Response(answer) => self.answer_agent(number, from, answer),
            _ => {}
        }
    }

    fn answer_agent(&mut self, number: u32, from: Host, answer: Envelope<Response>) {
        let host = &mut self.agents[number as usize];
        let joins = host.joining.filter(|(call, _)| *call == answer.call);
        match (answer.content, joins) {
            (Response::Joined(joined), Some((_, server))) => {
                host.joining = None;
                host.session = Some(server);
                host.node = Some(joined.node);
                let connect = Body::Connect { node: joined.node, incarnation: joined.incarnation };
                self.send(Host::Agent(number), Host::Server(server), connect);
                self.tell_agent(number, Input::Joined(joined));
            }
            (Response::Ack(ack), None) => self.acknowledge_report(number, ack),
            // A report of a session that was replaced.
            (Response::Refused(_), None) if host.session.map(Host::Server) == Some(from) => {
                self.tell_agent(number, Input::Disconnected);
            }
            (Response::Joined(_) | Response::Ack(_), _) | (_, None) => {}
            (_, Some((call, _))) => {
                let life = host.life;
                self.queue.push(self.now_us + JOIN_RETRY_US, Event::JoinLate { agent: number, life, call });
            }
        }
    }

    fn acknowledge_report(&mut self, number: u32, ack: AgentAck) {
        let host = &mut self.agents[number as usize];
        let pods = host.reported.remove(&ack.sent_at_ms).unwrap_or_default();
        host.reported.retain(|sent_at_ms, _| *sent_at_ms > ack.sent_at_ms);
        if let Some(node) = host.node {
            let state = self.chronicle.state();
            let verdict =
                pods.iter().try_for_each(|(report, ends)| reports::check(state, node, report, *ends));
            self.judge(verdict);
        }
        self.tell_agent(number, Input::Ack(ack));
    }

    /// Lets something happen to a guest later.
    pub(crate) fn later(&mut self, number: u32, after_us: Micros, event: GuestEvent) {
        let boot = self.agents[number as usize].boot;
        self.queue.push(self.now_us + after_us, Event::Guest { agent: number, boot, event: Box::new(event) });
    }
}
