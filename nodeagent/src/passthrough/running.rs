//! The step that the machine is doing now, and since when.
//!
//! The kernel does what is written into sysfs before the write returns, and some of that never returns: a driver that does not let go, a
//! process that has a function open by VFIO, a NIC whose firmware is silent. Nothing can end such a write. So a step that takes longer than
//! it may is late: it is told, and whoever waits for the machine is told which it is and asks again, instead of waiting for ever.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::clock;

/// A step that takes longer is late. The longest that is known to return is a NIC that makes its most functions: some take half a minute.
pub(crate) const STEP_WITHIN: Duration = Duration::from_secs(30);

/// One step that the machine does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunningStep {
    /// The file that was written, or the call.
    name: String,
    /// Whose it is: an address, or what the kernel calls it.
    device: String,
    since: Instant,
    since_unix_ms: u64,
}

impl fmt::Display for RunningStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = clock::utc_text(self.since_unix_ms);
        write!(
            f,
            "{} of {} has not returned since {since}: see dmesg, and who has it open (fuser -v /dev/vfio/*)",
            self.name, self.device
        )
    }
}

/// Says which step the machine does. One at a time: who has the machine has it alone.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    now: watch::Sender<Option<RunningStep>>,
    late: watch::Sender<Option<RunningStep>>,
    within: Duration,
}

impl Running {
    pub(super) fn new(within: Duration) -> Self {
        Self { now: watch::Sender::new(None), late: watch::Sender::new(None), within }
    }

    /// A step begins; it has returned once the guard is gone.
    pub(super) fn begin(&self, name: &str, device: &str) -> RunningGuard<'_> {
        let (name, device) = (name.to_owned(), device.to_owned());
        let (since, since_unix_ms) = (Instant::now(), clock::unix_ms());
        self.now.send_replace(Some(RunningStep { name, device, since, since_unix_ms }));
        RunningGuard(self)
    }

    /// Waits until a step is late.
    pub(super) async fn late(&self) -> RunningStep {
        let mut now = self.now.subscribe();
        loop {
            // Nothing ends this: the sender is here.
            let begun = now.wait_for(Option::is_some).await.ok().and_then(|step| step.clone());
            let Some(step) = begun else { continue };
            let returned = now.wait_for(|now| now.as_ref() != Some(&step));
            if timeout_at(step.since + self.within, returned).await.is_err() {
                return step;
            }
        }
    }

    /// Waits until a step is not the one that runs any more.
    pub(super) async fn returned(&self, step: &RunningStep) {
        let mut now = self.now.subscribe();
        drop(now.wait_for(|now| now.as_ref() != Some(step)).await);
    }

    /// Tells every step that is late, and that it returned; for ever.
    pub(super) async fn watch(&self) {
        loop {
            let step = self.late().await;
            tracing::warn!(
                step = step.name,
                device = step.device,
                since = clock::utc_text(step.since_unix_ms),
                "the kernel does not come back from a step of device work; nobody gets or gives back devices meanwhile"
            );
            self.late.send_replace(Some(step.clone()));
            self.returned(&step).await;
            let took_ms = u64::try_from(step.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(
                step = step.name,
                device = step.device,
                took_ms,
                "the kernel came back; device work goes on"
            );
            self.late.send_replace(None);
        }
    }

    /// The step that is late, as [`Self::watch`] finds it.
    pub(super) fn told(&self) -> watch::Receiver<Option<RunningStep>> {
        self.late.subscribe()
    }
}

/// See [`Running::begin`].
pub(super) struct RunningGuard<'a>(&'a Running);

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        self.0.now.send_replace(None);
    }
}
