//! A kernel in memory that says what a test has it say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bulkhead_nodeagent_core::hardware::{
    KernelMessage, KernelMessages, KernelWatch, RECORD_BYTES_MAX, TreeError, UEVENT_BYTES_MAX,
};

/// Most messages that wait in one source before some are lost, as in the kernel's buffers.
const WAITING_MAX: usize = 64;

/// What one listener has not taken yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<KernelMessage>,
    has_ended: bool,
    waker: Option<Waker>,
}

impl Waiting {
    fn push(&mut self, message: KernelMessage) {
        match self.messages.len() {
            0..WAITING_MAX => self.messages.push_back(message),
            _ => *self.messages.back_mut().expect("it is full") = KernelMessage::Lost,
        }
    }
}

impl Source {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let waker = {
            let mut waiting = self.waiting();
            change(&mut waiting);
            waiting.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Where messages are said, to all who listen.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    bytes_max: usize,
    /// Who comes later hears what was said before.
    keeps: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    listeners: Vec<Source>,
    kept: Vec<KernelMessage>,
}

impl Channel {
    fn new(bytes_max: usize, keeps: bool) -> Self {
        Self { bytes_max, keeps, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self) -> Source {
        let source = Source::default();
        let mut state = self.state();
        source.change(|waiting| state.kept.iter().for_each(|message| waiting.push(message.clone())));
        state.listeners.push(source.clone());
        source
    }

    /// Has somebody say something; 0 is the kernel. What is too long, or has no room, is lost.
    pub(crate) fn say(&self, sender: u32, bytes: &[u8]) {
        let message = match bytes.len() <= self.bytes_max {
            true => KernelMessage::Said { sender, bytes: bytes.to_vec() },
            false => KernelMessage::Lost,
        };
        let mut state = self.state();
        state.listeners.iter().for_each(|one| one.change(|waiting| waiting.push(message.clone())));
        if self.keeps {
            state.kept.push(message);
        }
    }

    /// No more messages come, once those that wait are taken.
    pub(crate) fn end(&self) {
        self.state().listeners.iter().for_each(|one| one.change(|waiting| waiting.has_ended = true));
    }
}

impl KernelMessages for Source {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<KernelMessage, TreeError>> {
        let mut waiting = self.waiting();
        match waiting.messages.pop_front() {
            Some(message) => Poll::Ready(Ok(message)),
            None if waiting.has_ended => Poll::Ready(Err(TreeError::Other("no more messages".to_owned()))),
            None => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct FakeKernel {
    pub(crate) uevents: Channel,
    pub(crate) log: Channel,
    /// This process may listen to nothing.
    pub(crate) is_silent: bool,
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self {
            uevents: Channel::new(UEVENT_BYTES_MAX, false),
            log: Channel::new(RECORD_BYTES_MAX, true),
            is_silent: false,
        }
    }
}

impl FakeKernel {
    fn opened(&self, channel: &Channel) -> Result<Box<dyn KernelMessages>, TreeError> {
        if self.is_silent { Err(TreeError::Denied) } else { Ok(Box::new(channel.listen())) }
    }
}

impl KernelWatch for FakeKernel {
    fn uevents(&self) -> Result<Box<dyn KernelMessages>, TreeError> {
        self.opened(&self.uevents)
    }

    fn log(&self) -> Result<Box<dyn KernelMessages>, TreeError> {
        self.opened(&self.log)
    }
}
