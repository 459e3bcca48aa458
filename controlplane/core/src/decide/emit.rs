//! Collects the events of one command and gives them their revisions.

use bulkhead_types::{Event, EventKind, Object, ObjectId, Revision};
use smol_str::SmolStr;

use crate::State;

/// The events of one command so far.
pub(crate) struct Emit<'a> {
    revision: Revision,
    at_ms: u64,
    trace_context: Option<&'a SmolStr>,
    events: Vec<Event>,
}

impl<'a> Emit<'a> {
    pub(crate) fn new(state: &State, trace_context: Option<&'a SmolStr>) -> Self {
        Self { revision: state.revision, at_ms: state.now_ms, trace_context, events: Vec::new() }
    }

    /// Log time, milliseconds since the epoch.
    pub(crate) fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// The trace of the submission.
    pub(crate) fn trace_context(&self) -> Option<&'a SmolStr> {
        self.trace_context
    }

    /// Adds an event.
    pub(crate) fn push(&mut self, kind: EventKind) {
        self.revision += 1;
        self.events.push(Event { revision: self.revision, kind });
    }

    /// Adds the creation of an object, completed with its id and times.
    pub(crate) fn create(&mut self, mut object: Object) {
        let revision = self.revision + 1;
        let at_ms = self.at_ms;
        let meta = object.meta_mut();
        meta.id = ObjectId(revision);
        meta.revision = revision;
        meta.generation = 1;
        meta.created_at_ms = at_ms;
        meta.deletion = None;
        self.push(EventKind::ObjectCreated(object));
    }

    pub(crate) fn finish(self) -> Vec<Event> {
        self.events
    }
}
