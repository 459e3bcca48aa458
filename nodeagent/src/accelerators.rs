//! A thread that asks a driver's library for its cards, and lets go of all of them while one goes to a guest or comes back.
//!
//! ```text
//!  thread: open ─► list, wait for faults, list … ─► let go ─► open …
//!             │                                        ▲
//!             └─► readings (the newest)        Pause: a card is bound; the library has all cards open while it is in use,
//!                                              and no driver lets go of a card that is
//! ```

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bulkhead_nodeagent_core::hardware::{Accelerators, Bdf, CardReading};
use tokio::sync::Notify;

/// How often cards are read.
const READ_EVERY: Duration = Duration::from_secs(10);
/// For this long at most the library is not let go of when it is asked for.
const WAIT_FOR_FAULTS: Duration = Duration::from_millis(200);
/// A library that cannot be used is tried again after this; one that is used is opened anew, to see cards that came.
const OPEN_AGAIN_AFTER: Duration = Duration::from_mins(5);

#[derive(Debug, Default)]
struct State {
    pauses: usize,
    is_open: bool,
    has_ended: bool,
    /// Somebody knows of cards that came.
    is_outdated: bool,
    readings: Option<Vec<CardReading>>,
    /// When they were.
    read_at: Option<Instant>,
    /// Cards were read, or could not be.
    was_tried: bool,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    /// Which cards there are, or what is wrong with one, is other than before.
    health: Notify,
}

/// See the module. Without a thread nothing is known of cards but what sysfs says.
#[derive(Clone, Debug, Default)]
pub(crate) struct CardWatch {
    inner: Arc<Inner>,
}

/// The library is not in use while this lives.
#[derive(Debug)]
pub(crate) struct Pause(Arc<Inner>);

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.lock().pauses -= 1;
        self.0.changed.notify_all();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CardWatch {
    /// Starts the thread; `tell` gets the faults of cards.
    pub(crate) fn start(
        &self,
        mut library: impl Accelerators + 'static,
        tell: impl Fn((Bdf, u32)) + Send + 'static,
    ) -> std::io::Result<()> {
        let inner = Arc::clone(&self.inner);
        let work = move || {
            let mut is_told = false;
            while inner.begin() {
                let outcome = library.open(&mut |cards| {
                    let since = Instant::now();
                    while since.elapsed() < OPEN_AGAIN_AFTER {
                        inner.read(cards.list());
                        inner.changed.notify_all();
                        let read = Instant::now();
                        while read.elapsed() < READ_EVERY {
                            if inner.must_let_go() {
                                return;
                            }
                            cards.wait_for_faults(WAIT_FOR_FAULTS).into_iter().for_each(&tell);
                        }
                    }
                });
                if let Err(error) = &outcome
                    && !std::mem::replace(&mut is_told, true)
                {
                    tracing::info!(
                        reason = error.reason,
                        remedy = error.remedy,
                        "cards are known by sysfs alone"
                    );
                }
                inner.end(outcome.is_err());
            }
        };
        std::thread::Builder::new().name("cards".to_owned()).spawn(work).map(drop)
    }

    /// What was read last; `None` where nothing was.
    pub(crate) fn readings(&self) -> Option<Vec<CardReading>> {
        self.inner.lock().readings.clone()
    }

    /// The same, with how long ago that was.
    pub(crate) fn aged_readings(&self) -> Option<(Vec<CardReading>, Duration)> {
        let state = self.inner.lock();
        Some((state.readings.clone()?, state.read_at?.elapsed()))
    }

    /// Waits until cards were read once or cannot be, for no longer than this: what they are known by shall not change at once.
    pub(crate) fn wait_until_read(&self, at_most: Duration) {
        let state = self.inner.lock();
        let is_waiting = |state: &mut State| !state.was_tried && !state.has_ended;
        drop(self.inner.changed.wait_timeout_while(state, at_most, is_waiting));
    }

    /// Waits until the library is not in use, and keeps it so.
    pub(crate) fn pause(&self) -> Pause {
        let mut state = self.inner.lock();
        state.pauses += 1;
        while state.is_open {
            state = self.inner.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        Pause(Arc::clone(&self.inner))
    }

    /// Waits until the library tells of other cards than before, or of something else that is wrong with one.
    pub(crate) async fn health_changed(&self) {
        self.inner.health.notified().await;
    }

    /// Cards came: the library knows only those that were there when it was opened.
    pub(crate) fn outdate(&self) {
        self.inner.lock().is_outdated = true;
        self.inner.changed.notify_all();
    }

    /// The thread ends, soon.
    pub(crate) fn stop(&self) {
        self.inner.lock().has_ended = true;
        self.inner.changed.notify_all();
    }
}

impl Inner {
    fn read(&self, readings: Vec<CardReading>) {
        let of_health = |all: &[CardReading]| {
            let one = |card: &CardReading| (card.address, card.uuid.clone(), card.ailments.clone());
            all.iter().map(one).collect::<Vec<_>>()
        };
        let mut state = self.lock();
        if state.readings.as_deref().map(of_health) != Some(of_health(&readings)) {
            self.health.notify_one();
        }
        (state.readings, state.was_tried, state.read_at) = (Some(readings), true, Some(Instant::now()));
    }

    /// Waits until the library may be used; false when it is not needed any more.
    fn begin(&self) -> bool {
        let mut state = self.lock();
        while state.pauses > 0 && !state.has_ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_open = !state.has_ended;
        state.is_outdated = false;
        state.is_open
    }

    fn must_let_go(&self) -> bool {
        let state = self.lock();
        state.pauses > 0 || state.has_ended || state.is_outdated
    }

    fn end(&self, has_failed: bool) {
        let mut state = self.lock();
        (state.is_open, state.was_tried) = (false, true);
        if has_failed {
            state.readings = None;
        }
        self.changed.notify_all();
        if has_failed && !state.has_ended && !state.is_outdated {
            let waited = self
                .changed
                .wait_timeout_while(state, OPEN_AGAIN_AFTER, |state| !state.has_ended && !state.is_outdated);
            drop(waited);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use bulkhead_nodeagent_core::hardware::{Cards, FakeAccelerators, Unavailable};

    use super::*;

    /// A library that tells when it is in use.
    struct Told(FakeAccelerators, mpsc::Sender<bool>);

    impl Accelerators for Told {
        fn open(&mut self, work: &mut dyn FnMut(&mut dyn Cards)) -> Result<(), Unavailable> {
            let _ = self.1.send(true);
            let outcome = self.0.open(work);
            let _ = self.1.send(false);
            outcome
        }
    }

    #[test]
    fn cards_are_read_faults_told_and_the_library_let_go_of_while_one_goes_to_a_guest() {
        let at: Bdf = "0000:41:00.0".parse().expect("an address");
        let fake =
            FakeAccelerators { cards: vec![CardReading::of(at)], faults: vec![(at, 79)], unavailable: None };
        let ((opened, is_open), (told, faults)) = (mpsc::channel(), mpsc::channel());
        let watch = CardWatch::default();
        assert_eq!(watch.readings(), None);
        watch.start(Told(fake, opened), move |fault| _ = told.send(fault)).expect("a thread");
        assert_eq!(is_open.recv(), Ok(true));
        assert_eq!(faults.recv(), Ok((at, 79)));
        assert_eq!(watch.readings(), Some(vec![CardReading::of(at)]));
        assert!(watch.aged_readings().is_some_and(|(all, age)| all.len() == 1 && age < READ_EVERY * 6));
        let pause = watch.pause();
        assert_eq!(is_open.recv(), Ok(false), "nothing of it is in use");
        assert!(is_open.try_recv().is_err());
        assert!(watch.readings().is_some(), "what is known stays known");
        drop(pause);
        assert_eq!(is_open.recv(), Ok(true));
        watch.outdate();
        assert_eq!([is_open.recv(), is_open.recv()], [Ok(false), Ok(true)], "opened anew");
        watch.stop();
        assert_eq!(is_open.recv(), Ok(false));
        assert!(is_open.recv().is_err(), "the thread has ended");
        drop(watch.pause());
    }

    #[test]
    fn without_a_library_nothing_is_known_and_nothing_waits() {
        let unavailable = Some(Unavailable { reason: "no driver".into(), remedy: "load it".into() });
        let watch = CardWatch::default();
        drop(watch.pause());
        let (opened, is_open) = mpsc::channel();
        let fake = FakeAccelerators { unavailable, ..FakeAccelerators::default() };
        watch.start(Told(fake, opened), |_| {}).expect("a thread");
        assert_eq!([is_open.recv(), is_open.recv()], [Ok(true), Ok(false)]);
        drop(watch.pause());
        watch.outdate();
        assert_eq!(
            [is_open.recv(), is_open.recv()],
            [Ok(true), Ok(false)],
            "tried again when something came"
        );
        assert_eq!(watch.readings(), None);
        watch.stop();
    }
}
