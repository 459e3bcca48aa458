//! A pod whose containers should have other sizes than its guest was started with.
//!
//! ```text
//!  intent says other sizes ─► room on the node? ─► record: begun, the larger of both held ─► ResizeVm ─► Resized: record
//! ```
//!
//! What is held, and that it was begun, is durable before anything changes: whatever the next life of the agent is told, it brings
//! the guest to it, and holds enough meanwhile.

use bulkhead_types::{
    ActualSizes, ContainerSize, PodSpec, Rare, Resources, Shared, larger_sizes, smaller_sizes,
};

use super::{Env, Phase, Pod};
use crate::{
    Action, GuestSize, RESIZE_ANSWER_MS, ResizeFailure, ResizeVm, Resized, VmRecord, spec_digest_text, text,
};

/// Where the sizes of a pod's guest stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Sizes {
    /// What its containers have: those with which the digest of its spec was made. Empty in records of earlier versions, until
    /// an intent with that digest comes.
    pub(super) now: Vec<ContainerSize>,
    /// Something was asked for and is not known to be done: the guest may be anything between.
    pub(super) begun: bool,
    /// Container by container the most of all that was begun since; empty when nothing was.
    pub(super) most: Vec<ContainerSize>,
    /// The least, by the same.
    pub(super) least: Vec<ContainerSize>,
    /// The control plane waits to be told of them.
    pub(super) told: bool,
    asked: Option<Asked>,
    failure: Option<Failure>,
    failures: u32,
}

/// What was asked for.
#[derive(Clone, Debug)]
struct Asked {
    sizes: Vec<ContainerSize>,
    /// Until when an answer may come, on the monotonic clock in milliseconds.
    until_ms: u64,
    /// Something had been begun before.
    begun_before: bool,
}

#[derive(Clone, Debug)]
struct Failure {
    wanted: Vec<ContainerSize>,
    why: ResizeFailure,
    /// When it is tried again, on the monotonic clock in milliseconds.
    retry_at_ms: u64,
}

impl Sizes {
    pub(super) fn of(now: Vec<ContainerSize>, begun: bool, told: bool) -> Self {
        Self { now, begun, told, ..Self::default() }
    }

    /// As the agent's last life wrote them down.
    pub(super) fn recorded(record: &VmRecord) -> Self {
        let (most, least) = (record.resize_most.clone(), record.resize_least.clone());
        Self { most, least, ..Self::of(record.sizes.clone(), record.resize_begun, record.resized) }
    }

    /// The most that the guest's containers may have.
    fn most(&self) -> &[ContainerSize] {
        if self.most.is_empty() { &self.now } else { &self.most }
    }

    /// The least.
    fn least(&self) -> &[ContainerSize] {
        if self.least.is_empty() { &self.now } else { &self.least }
    }
}

impl Pod {
    /// Whether a spec is the one that the guest runs, but for the sizes of its containers.
    pub(super) fn is_same_but_sizes(&self, spec: &Shared<PodSpec>) -> bool {
        if spec_digest_text(spec.digest()) == self.spec_digest {
            return true;
        }
        let with_own = || Shared::new(spec.resized(&self.sizes.now));
        !self.sizes.now.is_empty() && spec_digest_text(with_own().digest()) == self.spec_digest
    }

    /// Notes what an intent says: that somebody waits for sizes, and which those of an earlier version's guest are.
    pub(super) fn hear_sizes(&mut self) {
        let Some(intent) = &self.intent else { return };
        self.sizes.told |= intent.resizing;
        if self.sizes.now.is_empty() && spec_digest_text(intent.spec.digest()) == self.spec_digest {
            self.sizes.now = intent.spec.sizes();
        }
    }

    /// Without a guest, other sizes are what the next one starts with.
    pub(super) fn adopt_sizes(&mut self) {
        let Some(intent) = self.intent.clone() else { return };
        if self.process_may_exist() || !self.is_same_but_sizes(&intent.spec) {
            return;
        }
        self.spec_digest = spec_digest_text(intent.spec.digest());
        self.sizes = Sizes::of(intent.spec.sizes(), false, self.sizes.told || intent.resizing);
        self.plan.request = intent.spec.scheduling_request();
    }

    /// Brings a running guest to the sizes of its intent, where it has others.
    pub(super) fn update_sizes(&mut self, env: &mut Env<'_>) -> bool {
        let Some(intent) = self.intent.clone() else { return false };
        if !matches!(self.phase, Phase::Running { exit_by_ms: None, .. }) || self.sizes.now.is_empty() {
            return false;
        }
        let wanted = intent.spec.sizes();
        if let Some(asked) = &self.sizes.asked {
            if env.now_ms < asked.until_ms {
                return false;
            }
            self.sizes.asked = None;
        }
        if wanted == self.sizes.now && !self.sizes.begun {
            self.sizes.failure = None;
            return false;
        }
        if let Some(failure) = self.sizes.failure.as_ref().filter(|failure| failure.wanted == wanted)
            && (failure.why.refused || env.now_ms < failure.retry_at_ms)
        {
            return false;
        }
        let both = intent.spec.resized(&larger_sizes(&self.sizes.now, &wanted)).scheduling_request();
        let held = self.plan.request.max(both);
        let more = held.checked_minus(self.plan.request).unwrap_or(Resources::ZERO);
        let Some(free) = env.free.checked_minus(more) else {
            // Guests that end hold it still; when they have, this is looked at again.
            return false;
        };
        env.free = free;
        self.plan.request = held;
        let begun_before = std::mem::replace(&mut self.sizes.begun, true);
        let (most, least) = (self.sizes.most().to_vec(), self.sizes.least().to_vec());
        self.sizes.most = larger_sizes(&most, &wanted);
        self.sizes.least = smaller_sizes(&least, &wanted);
        self.persist(env);
        let of = |spec: &PodSpec| GuestSize::new(spec);
        let (was, size) = (of(&intent.spec.resized(&self.sizes.now)), of(&intent.spec));
        let until_ms = env.now_ms.saturating_add(RESIZE_ANSWER_MS);
        self.sizes.asked = Some(Asked { sizes: wanted, until_ms, begun_before });
        let (from, instance) = (self.sizes.now.clone(), self.instance);
        env.actions.push_back(Action::ResizeVm(Box::new(ResizeVm {
            pod: intent,
            instance,
            from,
            most,
            least,
            was,
            size,
        })));
        true
    }

    /// What came of it.
    pub(crate) fn resized(&mut self, answer: Resized, env: &mut Env<'_>) {
        let asked = self.sizes.asked.as_ref().filter(|asked| asked.sizes == answer.sizes);
        let Some(begun_before) = asked.map(|asked| asked.begun_before) else { return };
        if answer.instance != self.instance || !self.process_may_exist() {
            return;
        }
        self.sizes.asked = None;
        match answer.result {
            Ok(()) => {
                let Some(intent) = self.intent.clone() else { return };
                let spec = Shared::new(intent.spec.resized(&answer.sizes));
                self.spec_digest = spec_digest_text(spec.digest());
                self.plan.request = spec.scheduling_request();
                self.sizes = Sizes::of(answer.sizes, false, true);
                self.persist(env);
            }
            Err(why) => {
                self.sizes.failures = self.sizes.failures.saturating_add(1);
                self.sizes.told = true;
                let wait_ms = env.config.backoff_ms(self.sizes.failures);
                let retry_at_ms = env.now_ms.saturating_add(wait_ms);
                if why.refused && !begun_before {
                    // Nothing was changed, so nothing more is held than before.
                    self.sizes.begun = false;
                    self.sizes.most.clear();
                    self.sizes.least.clear();
                    let present = intent_request(self);
                    self.plan.request = present.unwrap_or(self.plan.request);
                    self.persist(env);
                }
                let why = ResizeFailure { message: text::message(&why.message), ..why };
                self.sizes.failure = Some(Failure { wanted: answer.sizes, why, retry_at_ms });
            }
        }
    }

    /// The guest is gone, and with it whatever was begun.
    pub(super) fn forget_resize(&mut self) {
        (self.sizes.asked, self.sizes.failure, self.sizes.failures) = Default::default();
        self.sizes.begun = false;
        self.sizes.most.clear();
        self.sizes.least.clear();
    }

    /// What the control plane is told.
    pub(super) fn actual_sizes(&self) -> Rare<ActualSizes> {
        if !self.sizes.told || self.sizes.now.is_empty() {
            return Rare::NONE;
        }
        let mut actual = ActualSizes { containers: self.sizes.now.clone(), ..ActualSizes::default() };
        if let Some(failure) = &self.sizes.failure {
            actual.wanted = failure.wanted.clone();
            actual.reason = text::reason(&failure.why.reason);
            actual.message = failure.why.message.clone();
            actual.refused = failure.why.refused;
        }
        Rare::some(actual)
    }

    /// When time alone lets a resize go on, on the monotonic clock in milliseconds.
    pub(super) fn resize_deadline_ms(&self) -> Option<u64> {
        if !matches!(self.phase, Phase::Running { exit_by_ms: None, .. }) {
            return None;
        }
        let asked = self.sizes.asked.as_ref().map(|asked| asked.until_ms);
        // Another wish than the one that failed waits for room, which no time makes.
        let is_wanted = |failure: &&Failure| {
            self.intent.as_ref().is_some_and(|intent| intent.spec.sizes() == failure.wanted)
        };
        let failure = self.sizes.failure.as_ref().filter(|failure| !failure.why.refused).filter(is_wanted);
        asked.or(failure.map(|failure| failure.retry_at_ms))
    }
}

/// What a pod counts for with the sizes that it has.
fn intent_request(pod: &Pod) -> Option<Resources> {
    let intent = pod.intent.as_ref()?;
    Some(intent.spec.resized(&pod.sizes.now).scheduling_request())
}
