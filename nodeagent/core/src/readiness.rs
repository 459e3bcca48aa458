//! What a machine permits is looked at again while the agent runs: when, what became of it, and what its node says of itself then. Pure.
//!
//! ```text
//!  a minute, a uevent, the operator (SIGUSR1) ──► LookPlan ─► look at files ─┐
//!  six hours, the operator, /dev/kvm came or went ────┴─────► run a guest ───┴─► Readiness ─► changes, told in the log
//!                                                                                    └─► NodeFacts, other than before: register anew
//! ```

use bulkhead_types::{LABEL_DEVICES, LABEL_NETWORKS, NodeFacts, NodePrecondition, NodePreconditions, Rare};
use smol_str::SmolStr;

/// How often files of the machine are looked at, in milliseconds.
pub const LOOK_EVERY_MS: u64 = 60_000;
/// Least time between two such looks, whatever happens, in milliseconds.
pub const LOOKS_APART_MS: u64 = 2_000;
/// How often a guest is run to see whether KVM does it, in milliseconds.
pub const TRIAL_EVERY_MS: u64 = 6 * 3_600_000;
/// Least time between two such guests, in milliseconds.
pub const TRIALS_APART_MS: u64 = 60_000;
/// Least time between two registrations because of what was found, in milliseconds: a machine that changes back and forth is told of once
/// in a while.
pub const TOLD_APART_MS: u64 = 60_000;

/// Why the machine is to be looked at before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookCause {
    /// The kernel told of devices, or of modules for them.
    Uevent,
    /// `/dev/kvm` came or went.
    KvmFile,
    /// The kernel does not come back from a step of device work, or does again.
    DeviceStep,
    /// A process that was killed does not end, or has at last.
    Process,
    /// An operator asked.
    Operator,
}

/// What is to be looked at now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// A guest is run, too.
    pub trial: bool,
}

/// When the machine is looked at. Times are milliseconds on a clock that never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookPlan {
    looked_ms: u64,
    tried_ms: u64,
    told_ms: Option<u64>,
    wants_look: bool,
    wants_trial: bool,
}

impl LookPlan {
    /// Everything was looked at when the agent started.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { looked_ms: now_ms, tried_ms: now_ms, told_ms: None, wants_look: false, wants_trial: false }
    }

    /// Takes a reason to look sooner.
    pub fn note(&mut self, cause: LookCause) {
        self.wants_look = true;
        self.wants_trial |= !matches!(cause, LookCause::Uevent | LookCause::DeviceStep | LookCause::Process);
    }

    /// When the next look is due.
    #[must_use]
    pub fn due_ms(&self) -> u64 {
        let look = if self.wants_look { LOOKS_APART_MS } else { LOOK_EVERY_MS };
        self.looked_ms
            .saturating_add(look)
            .min(self.trial_due_ms().max(self.looked_ms.saturating_add(LOOKS_APART_MS)))
    }

    fn trial_due_ms(&self) -> u64 {
        let trial = if self.wants_trial { TRIALS_APART_MS } else { TRIAL_EVERY_MS };
        self.tried_ms.saturating_add(trial)
    }

    /// What is to be looked at now; `None` when nothing is due.
    pub fn take(&mut self, now_ms: u64) -> Option<Look> {
        if now_ms < self.due_ms() {
            return None;
        }
        (self.looked_ms, self.wants_look) = (now_ms, false);
        let trial = now_ms >= self.trial_due_ms();
        if trial {
            (self.tried_ms, self.wants_trial) = (now_ms, false);
        }
        Some(Look { trial })
    }

    /// Whether what is new may be told now; then it is. What is not is told by a later look, if it is still so.
    pub fn may_tell(&mut self, now_ms: u64) -> bool {
        let may = self.told_ms.is_none_or(|told| now_ms.saturating_sub(told) >= TOLD_APART_MS);
        if may {
            self.told_ms = Some(now_ms);
        }
        may
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Devices can be attached to guests.
    pub attaches_devices: bool,
    /// And functions of NICs can be told what networks want.
    pub attaches_networks: bool,
    /// What keeps devices from guests, each with what to do.
    pub obstacles: Vec<String>,
    /// What there is to say of KVM.
    pub kvm: Option<String>,
    /// What there is to say of where volumes are made.
    pub volumes: Option<String>,
    /// Everything that the machine needs, one by one.
    pub preconditions: Vec<NodePrecondition>,
}

/// Something that is other than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessChange {
    /// It is better than before.
    pub is_better: bool,
    /// What, for people.
    pub text: String,
}

impl Readiness {
    /// What is other than before.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<ReadinessChange> {
        let change = |is_better, text| ReadinessChange { is_better, text };
        let gone = before.warnings().filter(|one| !self.warnings().any(|now| now == *one));
        let came = self.warnings().filter(|one| !before.warnings().any(|was| was == *one));
        let mut changes: Vec<_> = gone.map(|one| change(true, format!("no more: {one}"))).collect();
        changes.extend(came.map(|one| change(false, one.clone())));
        let able = [
            (before.attaches_devices, self.attaches_devices, "devices can be attached to guests"),
            (before.attaches_networks, self.attaches_networks, "pods can be attached to SR-IOV networks"),
        ];
        for (was, is, what) in able.into_iter().filter(|(was, is, _)| was != is) {
            let again = if was { "no more: " } else { "" };
            changes.push(change(is, format!("{again}{what}")));
        }
        for now in &self.preconditions {
            let was = before.preconditions.iter().find(|one| one.name == now.name).map(|one| one.outcome);
            if was.is_some_and(|was| was != now.outcome) {
                let remedy = if now.remedy.is_empty() { String::new() } else { format!("; {}", now.remedy) };
                let text = format!("{} is {} now: {}{remedy}", now.name, now.outcome.as_str(), now.found);
                changes.push(change(!now.outcome.wants_remedy(), text));
            }
        }
        changes
    }

    /// Whether the node is to be told of anew, of which this was told. What was found where nothing is amiss may change with every pod
    /// (a driver, how many functions there are): that alone is no reason.
    #[must_use]
    pub fn is_news_after(&self, told: &Self) -> bool {
        let lasting = |of: &Self| {
            let mut of = of.clone();
            let fine = of.preconditions.iter_mut().filter(|one| !one.outcome.wants_remedy());
            fine.for_each(|one| one.found = SmolStr::default());
            of
        };
        lasting(self) != lasting(told)
    }

    fn warnings(&self) -> impl Iterator<Item = &String> {
        self.obstacles.iter().chain(&self.kvm).chain(&self.volumes)
    }

    /// The facts of a node without all of this.
    #[must_use]
    pub fn taken_from(&self, mut facts: NodeFacts) -> NodeFacts {
        facts.warnings.retain(|one| !self.warnings().any(|own| own.as_str() == one.as_str()));
        for label in [LABEL_DEVICES, LABEL_NETWORKS] {
            facts.labels.remove(label);
        }
        facts.preconditions = Rare::NONE;
        facts
    }

    /// The facts of a node with all of this.
    #[must_use]
    pub fn added_to(&self, mut facts: NodeFacts) -> NodeFacts {
        facts.warnings.extend(self.warnings().map(SmolStr::new));
        let preconditions = self.preconditions.clone();
        facts.preconditions = Rare::unless_default(NodePreconditions { preconditions });
        for (label, is_so) in
            [(LABEL_DEVICES, self.attaches_devices), (LABEL_NETWORKS, self.attaches_networks)]
        {
            if is_so {
                facts.labels.insert(SmolStr::new_static(label), SmolStr::new_static("true"));
            }
        }
        facts
    }
}

/// What there is to say of KVM, when guests run with it or by emulation, and a guest was run with it: why that failed, if it did.
#[must_use]
pub fn kvm_warning(is_in_use: bool, fails: Option<&str>) -> Option<String> {
    match (is_in_use, fails) {
        (true, None) => None,
        (true, Some(reason)) => Some(format!("no guest starts with KVM any more: {reason}")),
        (false, None) => Some(
            "guests run by emulation (TCG) and are slow, and KVM runs guests now: start the agent anew"
                .to_owned(),
        ),
        (false, Some(reason)) => {
            Some(format!("guests run by emulation (TCG) and are slow: no guest runs with KVM, {reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{PreconditionNeed, PreconditionOutcome as Outcome};

    use super::*;

    /// The looks that follow in this time, in seconds, when this happens at these times: `12` a look, `60+` one with a guest.
    fn check_plan(events: &[(u64, LookCause)], seconds: std::ops::Range<u64>, expected: &str) {
        let mut plan = LookPlan::new(0);
        let mut looks = Vec::new();
        for ms in (0..seconds.end * 1000).step_by(500) {
            events.iter().filter(|(at, _)| at * 1000 == ms).for_each(|(_, cause)| plan.note(*cause));
            if let Some(look) = plan.take(ms)
                && ms >= seconds.start * 1000
            {
                looks.push(format!("{}{}", ms / 1000, if look.trial { "+" } else { "" }));
            }
        }
        assert_eq!(looks.join(" "), expected);
    }

    #[test]
    fn files_are_looked_at_often_and_guests_run_rarely() {
        use LookCause::{KvmFile, Operator, Uevent};
        check_plan(&[], 0..185, "60 120 180");
        check_plan(&[(10, Uevent), (11, Uevent)], 0..75, "10 12 72");
        check_plan(&[(70, Operator)], 0..135, "60 70+ 130");
        // A guest is not run again at once, but it is run.
        check_plan(&[(70, Operator), (75, Operator), (80, KvmFile)], 0..150, "60 70+ 75 80 130+");
        check_plan(&[], 21_590..21_670, "21600+ 21660");
    }

    #[test]
    fn what_changes_back_and_forth_is_told_once_in_a_while() {
        let mut plan = LookPlan::new(0);
        let told = [0, 10_000, 59_999, 60_000, 90_000, 120_000].map(|now_ms| plan.may_tell(now_ms));
        assert_eq!(told, [true, false, false, true, false, true]);
    }

    fn without_module() -> Readiness {
        Readiness {
            obstacles: vec!["vfio: not loaded; modprobe vfio-pci".to_owned()],
            ..Readiness::default()
        }
    }

    #[test]
    fn changes_are_told_and_nothing_else() {
        let ready = Readiness { attaches_devices: true, attaches_networks: true, ..Readiness::default() };
        let check = |before: &Readiness, now: &Readiness, expected: &[(bool, &str)]| {
            let changes = now.changes_since(before);
            let found: Vec<_> = changes.iter().map(|one| (one.is_better, one.text.as_str())).collect();
            assert_eq!(found, expected);
        };
        check(&ready, &ready, &[]);
        check(
            &ready,
            &without_module(),
            &[
                (false, "vfio: not loaded; modprobe vfio-pci"),
                (false, "no more: devices can be attached to guests"),
                (false, "no more: pods can be attached to SR-IOV networks"),
            ],
        );
        check(
            &without_module(),
            &ready,
            &[
                (true, "no more: vfio: not loaded; modprobe vfio-pci"),
                (true, "devices can be attached to guests"),
                (true, "pods can be attached to SR-IOV networks"),
            ],
        );
        let kvm = kvm_warning(true, Some("a guest said nothing for 10 s"));
        let no_kvm = Readiness { kvm, ..ready.clone() };
        check(
            &ready,
            &no_kvm,
            &[(false, "no guest starts with KVM any more: a guest said nothing for 10 s")],
        );
        assert_eq!(kvm_warning(true, None), None);
        assert!(kvm_warning(false, None).is_some_and(|text| text.contains("start the agent anew")));
        check(
            &with(&[("iommu", Outcome::Met, "dmar0"), ("huge-pages", Outcome::Missing, "none")]),
            &with(&[("iommu", Outcome::Missing, "no IOMMU"), ("huge-pages", Outcome::Met, "4 pages")]),
            &[(false, "iommu is missing now: no IOMMU; mend iommu"), (true, "huge-pages is ok now: 4 pages")],
        );
    }

    fn with(preconditions: &[(&str, Outcome, &str)]) -> Readiness {
        let one = |(name, outcome, found): &(&str, Outcome, &str)| NodePrecondition {
            name: (*name).into(),
            need: PreconditionNeed::Speed,
            outcome: *outcome,
            found: (*found).into(),
            remedy: if outcome.wants_remedy() { format!("mend {name}").into() } else { "".into() },
        };
        Readiness { preconditions: preconditions.iter().map(one).collect(), ..Readiness::default() }
    }

    #[test]
    fn a_node_is_told_of_anew_when_something_is_amiss_or_no_more() {
        let check = |told: (Outcome, &str), now: (Outcome, &str), expected: bool| {
            let of = |(outcome, found)| with(&[("vfio", outcome, found)]);
            assert_eq!(of(now).is_news_after(&of(told)), expected, "{told:?} {now:?}");
        };
        check((Outcome::Met, "2 are there"), (Outcome::Met, "3 are there"), false);
        check((Outcome::NotNeeded, "a"), (Outcome::NotNeeded, "b"), false);
        check((Outcome::Missing, "no driver has A"), (Outcome::Missing, "no driver has A, B"), true);
        check((Outcome::Missing, "a"), (Outcome::Missing, "a"), false);
        check((Outcome::Met, "a"), (Outcome::Unknown, "a"), true);
        let able = Readiness { attaches_devices: true, ..Readiness::default() };
        assert!(able.is_news_after(&Readiness::default()));
        assert!(with(&[("vfio", Outcome::Met, "")]).is_news_after(&Readiness::default()));
    }

    #[test]
    fn a_nodes_facts_follow_and_the_rest_of_them_stays() {
        let mut facts = NodeFacts { warnings: vec!["disk is slow".into()], ..NodeFacts::default() };
        facts.labels.insert("zone".into(), "a".into());
        let ready = Readiness { attaches_devices: true, ..Readiness::default() };
        let at_start = without_module().added_to(facts.clone());
        assert_eq!(at_start.warnings.len(), 2);
        let base = without_module().taken_from(at_start);
        assert_eq!(base, facts);
        assert!(base.preconditions.get().is_none());
        let told = with(&[("kvm", Outcome::Met, "a guest ran with KVM")]);
        let known = told.added_to(base.clone());
        let known = known.preconditions.get().expect("told");
        assert_eq!((known.preconditions[0].name.as_str(), known.check()), ("kvm", Ok(())));
        assert_eq!(told.taken_from(told.added_to(base.clone())), base);
        let now = ready.added_to(base);
        assert_eq!(now.warnings, facts.warnings);
        assert_eq!(now.labels.get(LABEL_DEVICES).map(SmolStr::as_str), Some("true"));
        assert_eq!(now.labels.get("zone").map(SmolStr::as_str), Some("a"));
        assert_eq!(ready.taken_from(now), facts);
    }
}
