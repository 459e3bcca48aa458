//! Clients' streams with guests: commands, connections, archives.
//!
//! ```text
//!  podio, host ports ─ GuestStream ─┐                        ┌─ channel: next_message ─► guest
//!     read, write, finish, drop     └─► HostStreams (pure) ◄─┘           hear ◄───────── guest
//! ```
//! Nothing here holds more than the windows of the streams: who writes waits for the guest's room, and what a client
//! does not read stays in the guest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_guest_protocol::stream::{StreamKind, TerminalSize};
use bulkhead_guest_protocol::{GuestMessage, HostMessage, HostStreams, OpenError, StreamEvent};
use bulkhead_types::ObjectId;
use tokio::sync::Notify;

/// Streams of all guests of this node.
#[derive(Debug, Default)]
pub(crate) struct StreamStore(Mutex<BTreeMap<ObjectId, GuestStreams>>);

impl StreamStore {
    /// The streams of a pod's new guest.
    pub(crate) fn begin(&self, pod: ObjectId) -> GuestStreams {
        let streams = GuestStreams::default();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| !one.lock().is_over);
        all.insert(pod, streams.clone());
        streams
    }

    /// The streams of a pod's guest, if it has had one.
    pub(crate) fn find(&self, pod: ObjectId) -> Option<GuestStreams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&pod).cloned()
    }
}

/// Streams of one guest.
#[derive(Clone, Debug, Default)]
pub struct GuestStreams(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There may be something for the guest.
    talk: Notify,
}

#[derive(Debug, Default)]
struct State {
    streams: HostStreams,
    signals: BTreeMap<u64, Arc<Signal>>,
    is_over: bool,
}

/// Who waits for something of one stream.
#[derive(Debug, Default)]
struct Signal {
    reader: Notify,
    writer: Notify,
}

impl Signal {
    fn wake(&self) {
        self.reader.notify_one();
        self.writer.notify_one();
    }
}

impl GuestStreams {
    /// Begins a stream. Its first event says what came of it.
    ///
    /// # Errors
    /// [`OpenError`] when there may be no more, or the guest has ended.
    pub fn open(&self, kind: StreamKind) -> Result<GuestStream, OpenError> {
        self.begin(|streams| streams.open(kind))
    }

    fn begin(
        &self,
        open: impl FnOnce(&mut HostStreams) -> Result<u64, OpenError>,
    ) -> Result<GuestStream, OpenError> {
        let mut state = self.lock();
        let number = open(&mut state.streams)?;
        let signal = Arc::<Signal>::default();
        state.signals.insert(number, Arc::clone(&signal));
        drop(state);
        self.0.talk.notify_one();
        Ok(GuestStream { streams: self.clone(), number, signal })
    }

    /// Connects to a port of the pod's own address, or of the loopback, in the guest for a probe, and waits until the guest has; however long that takes.
    ///
    /// # Errors
    /// Why there is no connection, for people.
    pub(crate) async fn connect_for_probe(
        &self,
        port: u16,
        own_address: bool,
    ) -> Result<GuestStream, String> {
        let stream = self.begin(|streams| streams.open_for_probe(port, own_address));
        let stream = stream.map_err(|error| error.to_string())?;
        match stream.next().await {
            StreamEvent::Opened => Ok(stream),
            StreamEvent::Closed(closed) => Err(closed.message),
            _ => Err("the pod's guest broke the rules of the stream".to_owned()),
        }
    }

    /// The guest knows how to attach, or does not.
    pub(crate) fn set_can_attach(&self, can_attach: bool) {
        self.lock().streams.set_can_attach(can_attach);
    }

    /// Waits until there may be something for the guest.
    pub(crate) async fn wanted(&self) {
        self.0.talk.notified().await;
    }

    /// The next message for the guest.
    pub(crate) fn next_message(&self) -> Option<HostMessage> {
        self.lock().streams.next_message()
    }

    /// What the guest said of a stream.
    pub(crate) fn hear(&self, message: GuestMessage) {
        let mut state = self.lock();
        if let Some(number) = state.streams.hear(message)
            && let Some(signal) = state.signals.get(&number)
        {
            signal.wake();
        }
    }

    /// The conversation with the guest is over; there may be another.
    pub(crate) fn fail_all(&self, why: &str) {
        let mut state = self.lock();
        state.streams.fail_all(why);
        state.signals.values().for_each(|signal| signal.wake());
    }

    /// There are no streams any more.
    pub(crate) fn end(&self, why: &str) {
        let mut state = self.lock();
        state.streams.end(why);
        state.is_over = true;
        state.signals.values().for_each(|signal| signal.wake());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, but by a mistake that is better met by the next who asks.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream, for its client. Dropping it ends it in the guest.
#[derive(Debug)]
pub struct GuestStream {
    streams: GuestStreams,
    number: u64,
    signal: Arc<Signal>,
}

impl GuestStream {
    /// The next event; [`StreamEvent::Closed`] again and again at the end. For one caller at a time.
    pub async fn next(&self) -> StreamEvent {
        loop {
            let event = self.streams.lock().streams.read(self.number);
            if let Some(event) = event {
                // There is room again, of which the guest may have to be told.
                self.streams.0.talk.notify_one();
                return event;
            }
            self.signal.reader.notified().await;
        }
    }

    /// Writes all of it, as the guest has room. False when nobody takes it any more. For one caller at a time.
    pub async fn write(&self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let written = self.streams.lock().streams.write(self.number, data);
            match written {
                None => return false,
                Some(0) => self.signal.writer.notified().await,
                Some(length) => {
                    self.streams.0.talk.notify_one();
                    data = &data[length..];
                }
            }
        }
        true
    }

    /// Nothing more is written.
    pub fn finish(&self) {
        self.streams.lock().streams.finish(self.number);
        self.streams.0.talk.notify_one();
    }

    /// The terminal has another size.
    pub fn resize(&self, size: TerminalSize) {
        self.streams.lock().streams.resize(self.number, size);
        self.streams.0.talk.notify_one();
    }
}

impl Drop for GuestStream {
    fn drop(&mut self) {
        let mut state = self.streams.lock();
        state.streams.abandon(self.number);
        state.signals.remove(&self.number);
        drop(state);
        self.streams.0.talk.notify_one();
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
