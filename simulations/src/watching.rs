//! Watchers and what servers send them: the real watch log and the real watch, over streams that break.
//!
//! A watcher has its stream from one server at a time. It goes on at another one when it hears nothing for a
//! while, or just so, from where it was; what it is told is held against the one history.

use std::collections::BTreeMap;

use bulkhead_controlplane_core::query::Selection;
use bulkhead_controlplane_core::server::{Input, Output, Reply};
use bulkhead_controlplane_core::watch::{Compacted, Watch, WatchEvent};
use bulkhead_types::{FieldSelector, Kind, LabelSelector, MemberId, Name, ObjectRef, Revision, digest128};
use smol_str::SmolStr;

use crate::clock::Micros;
use crate::invariants::watch::Stream;
use crate::message::{Body, Call, Envelope, Response};
use crate::network::Host;
use crate::rng::Rng;
use crate::script::What;
use crate::timeline::Wanted;
use crate::workload::node_name;
use crate::world::{CLIENT_RANK, Event, Phase, World};

/// A watcher that hears nothing for so long goes elsewhere, in microseconds.
const PATIENCE_US: Micros = 4_000_000;
/// How often a watcher goes elsewhere just so, in thousandths of what it hears.
const WANDER_PERMILLE: u64 = 10;
/// Every so-manieth turn of a stream ends with a bookmark, when there is nothing else to tell.
const BOOKMARK_TURNS: u32 = 3;

/// What watchers and servers say to each other. Each stream has its number, and so has each of its messages.
#[derive(Debug)]
pub(crate) enum WatchMessage {
    /// A watcher wants a stream, after a revision; 0 for a list first.
    Open { stream: u64, wanted: Box<Wanted>, after: Revision },
    /// What comes next.
    Events { stream: u64, number: u32, events: Vec<WatchEvent> },
    /// The server does not have what comes next.
    Refused { stream: u64, after: Revision, compacted: Compacted },
    /// The server cannot serve it now.
    Closed { stream: u64 },
}

impl WatchMessage {
    /// A number that stands for its content.
    pub(crate) fn digest(&self) -> u128 {
        match self {
            Self::Open { stream, wanted, after } => digest128(&(stream, wanted, after)),
            Self::Events { stream, number, events } => {
                let last = events.last().map_or(0, |event| match event {
                    WatchEvent::Change { revision, .. } | WatchEvent::Bookmark(revision) => *revision,
                });
                digest128(&(stream, number, events.len(), last))
            }
            Self::Refused { stream, after, compacted } => digest128(&(stream, after, compacted.oldest)),
            Self::Closed { stream } => u128::from(*stream),
        }
    }
}

/// One watcher.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// Its number among all clients.
    pub(crate) number: u32,
    rng: Rng,
    /// When it begins, unless it is told, in microseconds.
    begins_us: Micros,
    /// Whether it began to watch.
    pub(crate) has_begun: bool,
    pub(crate) stream: Stream,
    /// The stream that it listens to.
    open: u64,
    /// The message that comes next, and those that came before it.
    next: u32,
    early: BTreeMap<u32, Vec<WatchEvent>>,
    alarm: u64,
}

/// A stream at a server.
#[derive(Debug)]
pub(crate) struct Serving {
    to: Host,
    selection: Selection,
    watch: Option<Watch>,
    number: u32,
    turns: u32,
}

/// What follows once a server may read.
#[derive(Debug)]
pub(crate) enum AfterRead {
    /// Somebody wants an object.
    Get { origin: Host, call: Call, object: ObjectRef },
    /// A stream begins with a list.
    List { stream: u64 },
    /// A stream goes on after a revision.
    Resume { stream: u64, after: Revision },
}

/// The watchers of a run. `first` is the number of the first of them among all clients.
pub(crate) fn watchers(seed: u64, first: u32, count: u32, agents: u32) -> Vec<Watcher> {
    let watcher = |n| {
        let mut rng = Rng::child(seed, "watcher", u64::from(n));
        let wanted = draw_wanted(&mut rng, agents);
        let begins_us = rng.range(1, 5_000_000);
        let (open, next, alarm) = (0, 0, 0);
        let (number, stream) = (first + n, Stream::begin(wanted));
        let (has_begun, early) = (false, BTreeMap::new());
        Watcher { number, rng, begins_us, has_begun, stream, open, next, early, alarm }
    };
    (0..count).map(watcher).collect()
}

fn draw_wanted(rng: &mut Rng, agents: u32) -> Wanted {
    let all = Wanted::default();
    let label = |key: &str, value: &str| Some((SmolStr::new(key), SmolStr::new(value)));
    let namespace = Name::new("default").expect("a valid name");
    match rng.range(0, 6) {
        0 | 1 => all,
        2 => Wanted { kind: Some(*rng.pick(&Kind::ALL)), ..all },
        3 => Wanted { kind: Some(Kind::Pod), namespace: Some(namespace), ..all },
        4 => Wanted { kind: Some(Kind::Pod), label: label("app", "web-1"), ..all },
        5 => Wanted { label: label("app", "web-2"), ..all },
        _ => {
            let node = node_name(rng.range(0, u64::from(agents) - 1) as u32);
            Wanted { kind: Some(Kind::Pod), node: Some(node), ..all }
        }
    }
}

fn selection(wanted: &Wanted) -> Selection {
    let fields = wanted.node.iter().map(|name| format!("spec.nodeName={name}")).collect::<String>();
    Selection {
        kind: wanted.kind,
        namespace: wanted.namespace.clone(),
        labels: LabelSelector {
            match_labels: wanted.label.iter().cloned().collect(),
            match_expressions: Vec::new(),
        },
        fields: FieldSelector::parse(&fields).expect("the simulation makes valid selectors"),
    }
}

impl World {
    pub(crate) fn start_watchers(&mut self) {
        for index in 0..self.watchers.len() {
            let watcher = &self.watchers[index];
            let (at_us, rank) = (watcher.begins_us, CLIENT_RANK + watcher.number);
            self.queue.push_ranked(at_us, rank, Event::NextWatch { watcher: index as u32 });
        }
    }

    /// A watcher decides to begin.
    pub(crate) fn next_watch(&mut self, watcher: u32) {
        if self.phase == Phase::Safety {
            let wanted = Box::new(self.watchers[watcher as usize].stream.wanted().clone());
            self.record(What::Watch { watcher, wanted: wanted.clone() });
            self.watch(watcher, *wanted);
        }
    }

    /// A watcher begins.
    pub(crate) fn watch(&mut self, watcher: u32, wanted: Wanted) {
        let index = watcher as usize;
        let Some(watcher) = self.watchers.get_mut(index) else { return };
        (watcher.has_begun, watcher.stream) = (true, Stream::begin(wanted));
        self.open_watch(index);
    }

    fn set_watcher_alarm(&mut self, index: usize, after_us: Micros) {
        let watcher = &mut self.watchers[index];
        watcher.alarm += 1;
        let alarm = watcher.alarm;
        self.queue.push(self.now_us + after_us, Event::Watcher { watcher: index as u32, alarm });
    }

    /// A watcher has waited for long enough: it goes elsewhere.
    pub(crate) fn wake_watcher(&mut self, number: u32, alarm: u64) {
        if self.watchers[number as usize].alarm == alarm {
            self.open_watch(number as usize);
        }
    }

    fn open_watch(&mut self, index: usize) {
        self.next_call += 1;
        let stream = self.next_call;
        let members: Vec<MemberId> = self.servers.keys().copied().collect();
        let watcher = &mut self.watchers[index];
        watcher.stream.interrupt();
        (watcher.open, watcher.next) = (stream, 0);
        watcher.early.clear();
        let server = *watcher.rng.pick(&members);
        let (wanted, after) = (Box::new(watcher.stream.wanted().clone()), watcher.stream.resume_after());
        let from = Host::Client(watcher.number);
        let message = WatchMessage::Open { stream, wanted, after };
        self.send(from, Host::Server(server), Body::Watch(message));
        self.set_watcher_alarm(index, PATIENCE_US);
    }

    /// A watcher hears something: messages of a stream are taken in their order.
    pub(crate) fn tell_watcher(&mut self, index: usize, message: WatchMessage) {
        let watcher = &mut self.watchers[index];
        let timeline = self.chronicle.timeline();
        let verdict = match message {
            WatchMessage::Events { stream, number, events } if stream == watcher.open => {
                watcher.early.insert(number, events);
                let mut verdict = Ok(());
                while let Some(events) = watcher.early.remove(&watcher.next) {
                    watcher.next += 1;
                    self.counts.watched += events.len() as u64;
                    verdict = verdict.and_then(|()| watcher.stream.take(timeline, &events));
                }
                let patience_us = if watcher.rng.chance(WANDER_PERMILLE) { 1 } else { PATIENCE_US };
                self.set_watcher_alarm(index, patience_us);
                verdict
            }
            WatchMessage::Refused { stream, after, compacted } if stream == watcher.open => {
                self.counts.watches_refused += 1;
                let verdict = watcher.stream.refuse(after, compacted);
                // What the stream still has under way is not part of the list that follows.
                watcher.open = 0;
                self.set_watcher_alarm(index, 1000);
                verdict
            }
            WatchMessage::Closed { stream } if stream == watcher.open => {
                self.set_watcher_alarm(index, 200_000);
                Ok(())
            }
            _ => Ok(()),
        };
        self.judge(verdict);
    }

    /// A watcher wants a stream from a server.
    pub(crate) fn serve_watch(&mut self, member: MemberId, to: Host, message: WatchMessage) {
        let WatchMessage::Open { stream, wanted, after } = message else { return };
        let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut()) else { return };
        let selection = selection(&wanted);
        up.watches.insert(stream, Serving { to, selection, watch: None, number: 0, turns: 0 });
        if after == 0 {
            return self.read_then(member, AfterRead::List { stream });
        }
        match up.watch_log.check(after) {
            Err(compacted) => self.refuse_watch(member, stream, after, compacted),
            Ok(()) => self.read_at_least(member, after, AfterRead::Resume { stream, after }),
        }
    }

    fn refuse_watch(&mut self, member: MemberId, stream: u64, after: Revision, compacted: Compacted) {
        let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut()) else { return };
        let Some(serving) = up.watches.remove(&stream) else { return };
        let message = WatchMessage::Refused { stream, after, compacted };
        self.send(Host::Server(member), serving.to, Body::Watch(message));
    }

    /// A linearizable read, and then this.
    pub(crate) fn read_then(&mut self, member: MemberId, then: AfterRead) {
        let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut()) else { return };
        let ticket = up.take_ticket();
        up.after_read.insert(ticket, then);
        self.give(member, Input::Read { ticket });
    }

    /// This, once the server's State has a revision.
    pub(crate) fn read_at_least(&mut self, member: MemberId, revision: Revision, then: AfterRead) {
        let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut()) else { return };
        if up.server.state().revision() >= revision {
            return self.follow_read(member, then, true);
        }
        up.late_reads.push((revision, then));
    }

    /// A read is answered.
    pub(crate) fn answer_read(&mut self, member: MemberId, then: AfterRead, reply: &Reply) {
        self.follow_read(member, then, matches!(reply, Reply::ReadReady));
    }

    fn follow_read(&mut self, member: MemberId, then: AfterRead, ready: bool) {
        let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut()) else { return };
        let state = up.server.state().clone();
        let stream = match then {
            AfterRead::Get { origin, call, object } => {
                let content = if ready {
                    let object = state.find_object(&object).map(Box::new);
                    Response::Got { revision: state.revision(), object }
                } else {
                    Response::NotLeader(None)
                };
                let answer = Envelope { origin, call, via: None, content };
                return self.send(Host::Server(member), origin, Body::Response(answer));
            }
            AfterRead::List { stream } | AfterRead::Resume { stream, .. } => stream,
        };
        let Some(serving) = up.watches.get_mut(&stream) else { return };
        let to = serving.to;
        if !ready {
            up.watches.remove(&stream);
            return self.send(Host::Server(member), to, Body::Watch(WatchMessage::Closed { stream }));
        }
        let selection = serving.selection.clone();
        let events: Vec<WatchEvent> = match then {
            AfterRead::Resume { after, .. } => {
                serving.watch = Some(Watch::resume(selection, after));
                Vec::new()
            }
            _ => {
                let (watch, listed) = Watch::begin(selection, &state);
                serving.watch = Some(watch);
                listed.collect()
            }
        };
        self.send_events(member, stream, events);
        self.schedule_watch(member, stream);
    }

    fn send_events(&mut self, member: MemberId, stream: u64, events: Vec<WatchEvent>) {
        if events.is_empty() {
            return;
        }
        let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut()) else { return };
        let Some(serving) = up.watches.get_mut(&stream) else { return };
        let (to, number) = (serving.to, serving.number);
        serving.number += 1;
        self.send(Host::Server(member), to, Body::Watch(WatchMessage::Events { stream, number, events }));
    }

    fn schedule_watch(&mut self, member: MemberId, stream: u64) {
        let turn_us_max = self.options.observers.watch_turn_us_max;
        let Some(host) = self.servers.get_mut(&member) else { return };
        let life = host.life;
        let after_us = self.rng.range(turn_us_max / 4, turn_us_max);
        self.queue.push(self.now_us + after_us, Event::WatchTurn { member, life, stream });
    }

    /// A server turns to one of its streams.
    pub(crate) fn turn_to_watch(&mut self, member: MemberId, life: u32, stream: u64) {
        let Some(up) = self.running(member, life) else { return };
        let Some(serving) = up.watches.get_mut(&stream) else { return };
        let Some(watch) = serving.watch.as_mut() else { return };
        let after = watch.after();
        match watch.next(&up.watch_log, up.server.state()) {
            Ok(mut events) => {
                if events.is_empty() && serving.turns.is_multiple_of(BOOKMARK_TURNS) {
                    events.push(watch.bookmark());
                }
                serving.turns += 1;
                self.send_events(member, stream, events);
                self.schedule_watch(member, stream);
            }
            Err(compacted) => self.refuse_watch(member, stream, after, compacted),
        }
    }

    /// A server's State moved on: its log of changes too, and reads that waited for it.
    pub(crate) fn follow_state(&mut self, member: MemberId, output: &Output) {
        let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut()) else { return };
        if let Some(installed) = &output.installed {
            up.watch_log.reset(installed.revision());
        }
        for one in output.applied.iter().flat_map(|entry| &entry.applied) {
            up.watch_log.publish(one);
        }
        if up.late_reads.is_empty() {
            return;
        }
        let revision = up.server.state().revision();
        let (due, late) = std::mem::take(&mut up.late_reads).into_iter().partition(|(at, _)| *at <= revision);
        up.late_reads = late;
        let due: Vec<(Revision, AfterRead)> = due;
        for (_, then) in due {
            self.follow_read(member, then, true);
        }
    }

    /// What a server sends a watcher cannot be delivered: its stream ends.
    pub(crate) fn cut_watch(&mut self, member: MemberId, message: &WatchMessage) {
        if let WatchMessage::Events { stream, .. } = message
            && let Some(up) = self.servers.get_mut(&member).and_then(|h| h.up.as_mut())
        {
            up.watches.remove(stream);
        }
    }
}
