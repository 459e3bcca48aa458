//! Laws that hold whatever happens: random intents, faults, restarts and delays against a model of a host.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use bulkhead_nodeagent_core::{Action, Agent, AgentConfig, Input, RecoveredVm, VmRecord};
use bulkhead_types::{ObjectId, PodIntent, PodPhase, Resources, RestartPolicy};
use proptest::prelude::*;
use smol_str::SmolStr;
use support::*;

const PODS: u64 = 6;

/// What the random script may do.
#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    /// Bit n: pod n is intended; second mask: is being deleted.
    Intend(u8, u8),
    /// An intent of an old generation.
    IntendOld(u8),
    /// The host does the oldest thing asked of this pod; well, or not.
    Work(u64, bool),
    /// The guest of this pod boots, says hello, runs or ends, or answers nothing.
    Talk(u64, u8),
    /// The guest's process dies.
    Die(u64),
    Disconnect,
    Join,
    Ack,
    Restart,
    /// The host takes nothing more for this pod, or does again.
    Full(u64, bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1u64..20_000).prop_map(Op::Advance),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Op::Intend(a, a & b & b.rotate_left(3))),
        1 => any::<u8>().prop_map(Op::IntendOld),
        12 => (0..PODS, prop::bool::weighted(0.85)).prop_map(|(pod, well)| Op::Work(pod, well)),
        6 => (0..PODS, 0u8..6).prop_map(|(pod, what)| Op::Talk(pod, what)),
        1 => (0..PODS).prop_map(Op::Die),
        1 => Just(Op::Disconnect),
        2 => Just(Op::Join),
        5 => Just(Op::Ack),
        1 => Just(Op::Restart),
        2 => (0..PODS, any::<bool>()).prop_map(|(pod, full)| Op::Full(pod, full)),
    ]
}

/// Pods 0 to 3 live for ever, 1 and 3 are unique; 4 may fail, 5 must not restart. Any three of them fill the node.
fn model_pod(n: u64) -> PodIntent {
    let policy = match n {
        4 => RestartPolicy::OnFailure,
        5 => RestartPolicy::Never,
        _ => RestartPolicy::Always,
    };
    let spec = bulkhead_types::Shared::new(spec(230, policy));
    PodIntent { spec, unique: n % 2 == 1 && n < 4, ..pod(n + 10) }
}

/// A host: processes, records and what was asked but not done yet.
struct World {
    config: AgentConfig,
    agent: Agent,
    now_ms: u64,
    live: BTreeMap<ObjectId, u32>,
    records: BTreeMap<ObjectId, VmRecord>,
    /// What guests can send from: from the start of a guest until what is left of its pod is removed.
    taps: BTreeMap<ObjectId, Ipv4Addr>,
    lease: Option<u64>,
    asked: BTreeMap<ObjectId, VecDeque<Action>>,
    /// Pods for which it takes nothing more.
    full: BTreeSet<ObjectId>,
    /// Pods of which something was refused, and nothing taken since.
    behind: BTreeSet<ObjectId>,
    /// Starts that were refused once: leases go on meanwhile, and the guard looks at them.
    late: BTreeSet<(ObjectId, u32)>,
    unanswered: Vec<u64>,
    incarnation: u64,
    generation: u64,
    pods: Vec<PodIntent>,
    wants_join: bool,
    /// Ended pods, as the control plane learned from reports.
    ended: BTreeMap<ObjectId, PodPhase>,
}

impl World {
    fn new() -> Self {
        // One address fewer than there are pods.
        let pod_range = Some("10.0.0.0/29".parse().unwrap());
        let config = AgentConfig { pod_range, ..config() };
        let mut world = Self {
            agent: Agent::new(config.clone()),
            config,
            now_ms: 1,
            live: BTreeMap::new(),
            records: BTreeMap::new(),
            taps: BTreeMap::new(),
            lease: None,
            asked: BTreeMap::new(),
            full: BTreeSet::new(),
            behind: BTreeSet::new(),
            late: BTreeSet::new(),
            unanswered: vec![],
            incarnation: 0,
            generation: 10,
            pods: vec![],
            wants_join: false,
            ended: BTreeMap::new(),
        };
        world.handle(recovered());
        world
    }

    fn handle(&mut self, input: Input) {
        self.agent.handle(self.now_ms, input);
        self.drain();
    }

    fn request(&self) -> Resources {
        model_pod(0).spec.scheduling_request()
    }

    fn drain(&mut self) {
        while let Some(action) = self.agent.poll_action() {
            match action {
                Action::Join => self.wants_join = true,
                Action::Report(report) => {
                    self.unanswered.push(report.sent_at_ms);
                    for pod in report.pods.into_iter().filter(|pod| pod.status.phase.is_terminal()) {
                        self.ended.insert(pod.pod, pod.status.phase);
                    }
                }
                Action::PersistLease { until_ms } => self.lease = Some(until_ms),
                Action::Note(_)
                | Action::DeleteVolume { .. }
                | Action::VolumeTask { .. }
                | Action::SetGpuMode(_)
                | Action::SetNics(_) => {}
                Action::StartVm(start) => {
                    self.check_start(start.pod.id, start.instance);
                    self.check_address(start.pod.id, start.address);
                    self.ask(start.pod.id, Action::StartVm(start));
                }
                Action::ResizeVm(ref order) => self.ask(order.pod.id, action),
                Action::Prepare { ref pod } => self.ask(pod.id, action),
                Action::PersistRecord(ref record) => self.ask(record.pod, action),
                Action::ForgetRecord { pod }
                | Action::UpdateFiles { pod, .. }
                | Action::SetCpus { pod, .. }
                | Action::StopVm { pod, .. }
                | Action::KillVm { pod, .. }
                | Action::CleanUp { pod, .. } => self.ask(pod, action),
            }
        }
        self.check_lease();
    }

    /// The host takes it, unless it has no room.
    fn ask(&mut self, pod: ObjectId, action: Action) {
        if !self.full.contains(&pod) {
            self.behind.remove(&pod);
            return self.asked.entry(pod).or_default().push_back(action);
        }
        if let Action::StartVm(start) = &action {
            self.late.insert((pod, start.instance));
        }
        self.behind.insert(pod);
        assert!(self.agent.refused(self.now_ms, action));
        assert!(self.agent.next_deadline_ms().is_some(), "{pod} is not asked for again");
    }

    fn starting(&self) -> usize {
        self.asked.values().flatten().filter(|action| matches!(action, Action::StartVm(_))).count()
    }

    fn check_start(&self, pod: ObjectId, instance: u32) {
        assert!(!self.live.contains_key(&pod), "second guest {instance} of {pod} while one lives");
        let asked = self.asked.get(&pod).into_iter().flatten();
        assert!(!asked.clone().any(|a| matches!(a, Action::StartVm(_))), "{pod} started twice");
        let exist = u64::try_from(self.live.len() + self.starting() + 1).unwrap();
        let held = self.request().memory_bytes * exist;
        assert!(held <= self.config.allocatable.memory_bytes, "{exist} guests exist at once");
        assert!(!self.ended.contains_key(&pod), "{pod} ended and is started again");
        if model_pod(pod.0 - 10).unique && !self.late.contains(&(pod, instance)) {
            assert!(self.agent.lease_until_ms() > Some(self.now_ms), "{pod} started without a lease");
        }
    }

    /// Whoever may start has an address of the range that no other pod's guest can send from, and that no other may start with.
    fn check_address(&self, pod: ObjectId, address: Option<Ipv4Addr>) {
        let address = address.expect("the node has a range");
        assert!(self.config.pod_range.unwrap().offers(address), "{address}");
        let asked = self.asked.values().flatten().filter_map(|action| match action {
            Action::StartVm(start) => Some((start.pod.id, start.address.unwrap())),
            _ => None,
        });
        for (other, its) in self.taps.iter().map(|(pod, its)| (*pod, *its)).chain(asked) {
            assert!(other == pod || its != address, "{other} and {pod} have {address}");
        }
    }

    /// Without a lease every unique guest that lives has been asked to be killed.
    fn check_lease(&self) {
        if self.agent.lease_until_ms() > Some(self.now_ms) {
            return;
        }
        for pod in self.live.keys().filter(|pod| model_pod(pod.0 - 10).unique) {
            if self.behind.contains(pod) {
                continue;
            }
            let mut asked = self.asked.get(pod).into_iter().flatten();
            assert!(asked.any(|a| matches!(a, Action::KillVm { .. })), "{pod} outlives the lease");
        }
    }

    fn advance(&mut self, to_ms: u64) {
        while let Some(at) = self.agent.next_deadline_ms().filter(|&at| at <= to_ms) {
            self.now_ms = self.now_ms.max(at);
            self.agent.tick(self.now_ms);
            self.drain();
        }
        self.now_ms = to_ms;
        self.agent.tick(to_ms);
        self.drain();
    }

    /// The host does what was asked first of this pod.
    fn work(&mut self, pod: ObjectId, well: bool) {
        let Some(action) = self.asked.get_mut(&pod).and_then(VecDeque::pop_front) else { return };
        match action {
            Action::Prepare { pod: intent } if well => {
                let name = intent.spec.containers[0].name.clone();
                self.handle(Input::ImageReady { pod, container: name, digest: SmolStr::new("sha256:aa") });
            }
            Action::Prepare { .. } => self.handle(Input::ImageFailed {
                pod,
                container: SmolStr::new("main"),
                reason: SmolStr::new("ErrImagePull"),
                message: "refused".to_owned(),
            }),
            Action::PersistRecord(record) => {
                self.records.insert(pod, *record);
            }
            Action::ForgetRecord { .. } => {
                self.records.remove(&pod);
            }
            Action::StartVm(start) if well => {
                let record = self.records.get(&pod).expect("a record precedes the guest");
                assert_eq!(record.instance, start.instance);
                self.live.insert(pod, start.instance);
                assert_eq!(record.address, start.address);
                self.taps.insert(pod, start.address.unwrap());
                self.handle(started(pod.0, start.instance));
            }
            Action::StartVm(start) => self.handle(Input::VmStartFailed {
                pod,
                instance: start.instance,
                reason: SmolStr::new("QemuMissing"),
                message: String::new(),
            }),
            // A guest may ignore this.
            Action::StopVm { .. } if !well => {}
            Action::StopVm { instance, .. } | Action::KillVm { instance, .. } => {
                if self.live.get(&pod).is_none_or(|&live| live == instance) {
                    self.live.remove(&pod);
                    self.handle(exited(pod.0, instance));
                }
            }
            Action::CleanUp { .. } => {
                self.taps.remove(&pod);
                self.handle(gone(pod.0));
            }
            Action::UpdateFiles { .. } | Action::SetCpus { .. } => {}
            // These pods' sizes never change.
            Action::ResizeVm(_) => panic!("{pod} gets no other sizes"),
            Action::Join
            | Action::Report(_)
            | Action::PersistLease { .. }
            | Action::DeleteVolume { .. }
            | Action::VolumeTask { .. }
            | Action::SetGpuMode(_)
            | Action::SetNics(_)
            | Action::Note(_) => {}
        }
    }

    fn talk(&mut self, pod: ObjectId, what: u8) {
        let Some(&instance) = self.live.get(&pod) else { return };
        match what {
            0 => self.handle(hello(pod.0, instance)),
            1 => self.handle(runs(pod.0, instance)),
            2 => self.handle(ends(pod.0, instance, 0)),
            3 => self.handle(Input::GuestBoots { pod, instance }),
            4 => self.handle(Input::GuestSilent { pod, instance }),
            _ => self.handle(guest_pod(pod.0, instance, PodPhase::Failed)),
        }
    }

    fn die(&mut self, pod: ObjectId) {
        if let Some(instance) = self.live.remove(&pod) {
            self.handle(exited(pod.0, instance));
        }
    }

    /// The agent forgets everything but records; what was asked and not done is never done.
    fn restart(&mut self) {
        self.agent = Agent::new(self.config.clone());
        // The host lets go of what connected guests that died.
        self.taps.retain(|pod, _| self.live.contains_key(pod));
        self.asked.clear();
        (self.full, self.behind, self.late) = Default::default();
        self.unanswered.clear();
        let vms = self.records.values().map(|record| RecoveredVm {
            record: record.clone(),
            running: self.live.contains_key(&record.pod),
            started_at_ms: 1,
            last_console: String::new(),
            out_of_memory: None,
        });
        let vms: Vec<_> = vms.collect();
        assert!(self.live.keys().all(|pod| self.records.contains_key(pod)), "a guest without a record");
        self.handle(Input::Recovered { vms, lease_until_ms: self.lease });
    }

    fn join(&mut self) {
        if std::mem::take(&mut self.wants_join) {
            self.incarnation += 1;
            self.unanswered.clear();
            self.handle(joined(self.incarnation));
            self.send_intent(self.generation);
        }
    }

    fn send_intent(&mut self, generation: u64) {
        let ended = |pod: &PodIntent| self.ended.contains_key(&pod.id);
        let pods = self.pods.iter().map(|pod| PodIntent { ended: ended(pod), ..pod.clone() }).collect();
        self.handle(intent(self.incarnation, generation, pods));
    }

    fn intend(&mut self, mask: u8, deleting_mask: u8) {
        self.pods = (0..PODS)
            .filter(|n| mask & (1 << n) != 0)
            .map(|n| match deleting_mask & (1 << n) != 0 {
                true => deleting(model_pod(n), 1_000 * n),
                false => model_pod(n),
            })
            .collect();
        self.generation += 1;
        self.send_intent(self.generation);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Advance(ms) => self.advance(self.now_ms + ms),
            Op::Intend(mask, deleting_mask) => self.intend(mask, deleting_mask),
            Op::IntendOld(mask) => {
                let kept = std::mem::take(&mut self.pods);
                self.pods = (0..PODS).filter(|n| mask & (1 << n) != 0).map(model_pod).collect();
                self.send_intent(5);
                self.pods = kept;
            }
            Op::Work(pod, well) => self.work(ObjectId(pod + 10), well),
            Op::Talk(pod, what) => self.talk(ObjectId(pod + 10), what),
            Op::Die(pod) => self.die(ObjectId(pod + 10)),
            Op::Disconnect => self.handle(Input::Disconnected),
            Op::Join => self.join(),
            Op::Ack => {
                if let Some(sent_at_ms) = self.unanswered.pop() {
                    self.handle(ack(sent_at_ms));
                }
            }
            Op::Restart => self.restart(),
            Op::Full(pod, true) => _ = self.full.insert(ObjectId(pod + 10)),
            Op::Full(pod, false) => _ = self.full.remove(&ObjectId(pod + 10)),
        }
    }

    /// Faults end: everything asked is done, guests speak, servers answer.
    fn settle(&mut self) {
        self.full.clear();
        for _ in 0..400 {
            self.join();
            self.advance(self.now_ms + 1_000);
            while let Some(sent_at_ms) = self.unanswered.pop() {
                self.handle(ack(sent_at_ms));
            }
            self.send_intent(self.generation);
            for n in 0..PODS {
                let pod = ObjectId(n + 10);
                for _ in 0..4 {
                    self.work(pod, true);
                }
                self.talk(pod, 0);
                self.talk(pod, 1);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn laws_hold(ops in prop::collection::vec(op(), 0..250), last in 0u8..64) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        // Three of the six at most fit; fewer may have been chosen.
        let mut last = last;
        while last.count_ones() > 3 {
            last &= last - 1;
        }
        world.intend(last, 0);
        world.settle();
        for n in 0..PODS {
            let pod = ObjectId(n + 10);
            let wanted = last & (1 << n) != 0 && !world.ended.contains_key(&pod);
            prop_assert_eq!(world.live.contains_key(&pod), wanted, "pod {} after faults ended", pod);
            prop_assert_eq!(
                world.records.contains_key(&pod),
                last & (1 << n) != 0 && (wanted || world.records.contains_key(&pod)),
                "record of pod {} is left", pod
            );
        }
        let known = world.agent.pods().count();
        prop_assert_eq!(known, last.count_ones() as usize, "pods that the agent still knows");
        for (pod, status, _) in world.agent.pods() {
            prop_assert!(status.ready || world.ended.contains_key(&pod), "{} is {:?}", pod, status);
        }
    }
}
