//! What the kernel says while it happens, as messages: uevents, and its log.
//!
//! ```text
//!  KernelWatch ─► uevents: KernelMessages ─► devices_changed   the machine is to be looked at
//!        └──────► log:     KernelMessages ─► next_record       what the kernel says of a device
//! ```
//! A source is asked and wakes whoever asked, so nothing here waits, and none has to be the kernel's: the agent has one over a socket
//! and a file, and one in memory. Both pass one suite (`nodeagent/src/kernel_watch/conformance.rs`).

use std::fmt::Debug;
use std::future::poll_fn;
use std::task::{Context, Poll};

use super::{KernelRecord, TreeError, kernel_record, uevent};

/// What a source gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelMessage {
    /// Something was said.
    Said {
        /// Who said it, as netlink names it; 0: the kernel. Of its log always 0: each record says itself whose it is.
        sender: u32,
        /// The message, whole: no longer than the longest that is looked at of its kind.
        bytes: Vec<u8>,
    },
    /// One or more were lost or are too long: nobody knows what they said.
    Lost,
}

/// Messages of the kernel, in the order in which they were said, each once.
pub trait KernelMessages: Debug + Send {
    /// The next message; pending while there is none, and then the task is woken once there is.
    ///
    /// # Errors
    /// When none comes any more.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<KernelMessage, TreeError>>;
}

/// Where a machine's kernel is listened to.
pub trait KernelWatch: Debug + Send + Sync {
    /// Uevents, from now on.
    ///
    /// # Errors
    /// When this process may not listen.
    fn uevents(&self) -> Result<Box<dyn KernelMessages>, TreeError>;

    /// The kernel's log, from its beginning.
    ///
    /// # Errors
    /// When this process may not read it.
    fn log(&self) -> Result<Box<dyn KernelMessages>, TreeError>;
}

impl KernelMessage {
    /// Whether, as a uevent, it means that the machine's devices may be others than before. What was lost may have meant it; what
    /// somebody else than the kernel said does not.
    #[must_use]
    pub fn may_be_of_devices(&self) -> bool {
        match self {
            Self::Lost => true,
            Self::Said { sender: 0, bytes } => uevent(bytes).is_some_and(|event| event.is_of_devices()),
            Self::Said { .. } => false,
        }
    }

    /// The record that it is, as one of the kernel's log.
    #[must_use]
    pub fn record(&self) -> Option<KernelRecord> {
        match self {
            Self::Said { sender: 0, bytes } => kernel_record(bytes),
            Self::Said { .. } | Self::Lost => None,
        }
    }
}

/// Waits until devices may be others than before. What was not awaited is not lost.
///
/// # Errors
/// When no uevents come any more.
pub async fn devices_changed(uevents: &mut (impl KernelMessages + ?Sized)) -> Result<(), TreeError> {
    while !poll_fn(|context| uevents.poll_next(context)).await?.may_be_of_devices() {}
    Ok(())
}

/// Waits for the next record of the log. What was not awaited is not lost.
///
/// # Errors
/// When none comes any more.
pub async fn next_record(log: &mut (impl KernelMessages + ?Sized)) -> Result<KernelRecord, TreeError> {
    loop {
        if let Some(record) = poll_fn(|context| log.poll_next(context)).await?.record() {
            return Ok(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RECORD_BYTES_MAX, UEVENT_BYTES_MAX};
    use super::*;

    fn said(sender: u32, bytes: &[u8]) -> KernelMessage {
        KernelMessage::Said { sender, bytes: bytes.to_vec() }
    }

    #[test]
    fn only_the_kernel_is_believed_and_what_was_lost_may_have_been_anything() {
        let check = |message: KernelMessage, expected: bool| {
            assert_eq!(message.may_be_of_devices(), expected, "{message:?}");
        };
        let card = b"add@/devices/pci0000:3a/0000:3b:00.0\0SUBSYSTEM=pci\0";
        check(said(0, card), true);
        check(said(4711, card), false);
        check(said(0, b"add@/devices/virtual/mem/null\0SUBSYSTEM=mem\0"), false);
        check(said(0, b""), false);
        check(said(0, &[0xff; UEVENT_BYTES_MAX + 1]), false);
        check(KernelMessage::Lost, true);
    }

    #[test]
    fn records_are_read_and_what_is_none_is_passed_over() {
        let check = |message: KernelMessage, expected: Option<(u64, bool)>| {
            let found = message.record().map(|record| (record.sequence, record.event.is_some()));
            assert_eq!(found, expected, "{message:?}");
        };
        let fault = b"4,17,2,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1";
        check(said(0, fault), Some((17, true)));
        check(said(0, b"14,18,2,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1"), Some((18, false)));
        check(said(9, fault), None);
        check(said(0, &[b';'; RECORD_BYTES_MAX + 1]), None);
        check(KernelMessage::Lost, None);
    }

    /// Says these, and then that no more come.
    #[derive(Debug)]
    struct Script(Vec<KernelMessage>);

    impl KernelMessages for Script {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<KernelMessage, TreeError>> {
            Poll::Ready(if self.0.is_empty() { Err(TreeError::NotFound) } else { Ok(self.0.remove(0)) })
        }
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("nothing waits"),
        }
    }

    #[test]
    fn what_means_nothing_ends_no_wait_and_the_end_does() {
        let card = said(0, b"remove@/devices/pci0000:3a/0000:3b:00.0\0SUBSYSTEM=pci\0");
        let mut uevents =
            Script(vec![said(0, b"junk"), said(7, b"a@b\0SUBSYSTEM=pci\0"), card.clone(), card]);
        assert_eq!(now(devices_changed(&mut uevents)), Ok(()));
        assert_eq!(uevents.0.len(), 1, "one at a time");
        assert_eq!(now(devices_changed(&mut uevents)), Ok(()));
        assert_eq!(now(devices_changed(&mut uevents)), Err(TreeError::NotFound));
        let mut log = Script(vec![KernelMessage::Lost, said(0, b"junk"), said(0, b"6,5,1,-;hello")]);
        assert_eq!(now(next_record(&mut log)), Ok(KernelRecord { sequence: 5, event: None }));
        assert_eq!(now(next_record(&mut log)), Err(TreeError::NotFound));
    }
}
