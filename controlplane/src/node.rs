//! The node thread: the one place that owns the core.
//!
//! It takes in what happened, several things at a time, and hands out what the core asks for: requests to the
//! log thread, messages to the peer links, replies to whoever waits, changes to watches and history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender};
use std::time::{SystemTime, UNIX_EPOCH};

use bulkhead_controlplane_core::intent::nodes_touched;
use bulkhead_controlplane_core::replica::Persist;
use bulkhead_controlplane_core::server::{
    AppliedEntry, Fatal, Input, Output, Reply, Server, ServerStatus, Ticket,
};
use bulkhead_types::MemberId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::handle::Message;
use crate::history::Job;
use crate::intents::IntentHub;
use crate::metrics::Metrics;
use crate::transport::Links;
use crate::view::View;
use crate::watch::WatchHub;

/// Most messages taken in before their output is taken: a bound on how long an answer waits for others.
const TAKE_IN_MAX: usize = 4096;

/// What the node thread hands its output to.
pub(crate) struct Outlets {
    pub(crate) persist: Sender<Persist>,
    pub(crate) history: SyncSender<Job>,
    pub(crate) links: Links,
    pub(crate) view: watch::Sender<View>,
    pub(crate) status: watch::Sender<Option<ServerStatus>>,
    pub(crate) watches: Arc<WatchHub>,
    pub(crate) intents: Arc<IntentHub>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The node thread's own things.
pub(crate) struct Node {
    server: Server,
    outlets: Outlets,
    waiting: BTreeMap<Ticket, oneshot::Sender<Reply>>,
    /// The leader as it was published last, and whether that is this server.
    published: (Option<MemberId>, bool),
}

/// Milliseconds since the epoch by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Node {
    pub(crate) fn new(server: Server, outlets: Outlets) -> Self {
        Self { server, outlets, waiting: BTreeMap::new(), published: (None, false) }
    }

    /// Runs until it is asked to stop, or the core cannot go on. What it was lent stays open, so that the caller can
    /// tell the reason before the other threads notice that nobody gives them work any more.
    pub(crate) fn run(&mut self, inbox: &mut mpsc::Receiver<Message>) -> Result<(), Fatal> {
        let mut ticked = true;
        let mut led_by = None;
        loop {
            let output = self.server.take_output(now_ms());
            let (fatal, unfinished) = (output.fatal.clone(), output.unfinished);
            let progressed = !output.applied.is_empty() || output.installed.is_some();
            // Whoever is answered now may ask at once who leads.
            let leadership = (self.server.leader(), self.server.is_leader());
            if leadership != self.published {
                self.published = leadership;
                self.publish_status();
            }
            self.hand_out(output);
            // Whoever waits out an election waits for the new leader's name.
            let moved = std::mem::replace(&mut led_by, self.server.leader()) != led_by;
            if ticked || progressed || moved {
                self.publish_status();
            }
            if let Some(fatal) = fatal {
                return Err(fatal);
            }
            ticked = false;
            let mut next = if unfinished {
                inbox.try_recv().ok()
            } else {
                let Some(first) = inbox.blocking_recv() else { return Ok(()) };
                Some(first)
            };
            let mut taken = 0;
            while let Some(message) = next {
                match message {
                    Message::Stop => return Ok(()),
                    Message::Input(input) => {
                        ticked |= matches!(input, Input::Tick);
                        self.server.handle(now_ms(), input);
                    }
                    Message::Ask(ticket, input, sender) => {
                        self.waiting.insert(ticket, sender);
                        self.server.handle(now_ms(), input);
                    }
                }
                taken += 1;
                next = if taken < TAKE_IN_MAX { inbox.try_recv().ok() } else { None };
            }
        }
    }

    fn hand_out(&mut self, output: Output) {
        for persist in output.persist {
            // The log thread ends only with the process; what it was told before is on disk.
            let _ = self.outlets.persist.send(persist);
        }
        for (to, message) in output.messages {
            self.outlets.links.send(to, message);
        }
        for send in output.send_snapshots {
            self.outlets.links.send_snapshot(send);
        }
        if let Some(state) = output.installed {
            self.installed(state);
        }
        self.applied(output.applied);
        for (ticket, reply) in output.replies {
            if let Some(sender) = self.waiting.remove(&ticket) {
                // Whoever asked may have gone: then nobody wants the answer.
                let _ = sender.send(reply);
            }
        }
        if let Some(save) = output.save_snapshot {
            self.job(Job::Snapshot(Box::new(save)));
        }
    }

    fn installed(&mut self, state: bulkhead_controlplane_core::State) {
        let revision = state.revision();
        self.job(Job::Jump(revision));
        self.outlets.watches.reset(revision);
        self.publish_view();
        self.outlets.intents.touch_all();
    }

    fn applied(&mut self, entries: Vec<AppliedEntry>) {
        if entries.is_empty() {
            return;
        }
        self.publish_view();
        self.outlets.watches.publish(entries.iter().flat_map(|entry| &entry.applied));
        let (mut transactions, mut touched) = (Vec::new(), std::collections::BTreeSet::new());
        for applied in entries.into_iter().flat_map(|entry| entry.applied) {
            self.outlets.metrics.submissions.inc();
            if applied.transaction.outcome.is_err() {
                self.outlets.metrics.refusals.inc();
            }
            let state = self.server.state();
            touched.extend(applied.changes.iter().flat_map(|change| nodes_touched(state, change)));
            if !applied.transaction.events.is_empty() {
                self.outlets.metrics.events.inc_by(applied.transaction.events.len() as u64);
                transactions.push(applied.transaction);
            }
        }
        for node in touched {
            self.outlets.intents.touch(node);
        }
        if !transactions.is_empty() {
            self.job(Job::Append(transactions));
        }
    }

    fn job(&self, job: Job) {
        // The history thread ends only after this one.
        let _ = self.outlets.history.send(job);
    }

    fn publish_view(&self) {
        let (index, term) = self.server.applied_point();
        let view = View { state: self.server.state().clone(), index, term };
        self.outlets.view.send_replace(view);
    }

    fn publish_status(&self) {
        let status = self.server.status();
        self.outlets.metrics.observe(&status, self.server.state());
        self.outlets.status.send_replace(Some(status));
    }
}
