//! What clients and watchers saw, and whether one order of everything explains it.
//!
//! Every change has a revision, every read says at which revision of the whole state it was made, so the order is
//! given: the check is that it is *one* order for all observers, that it respects real time, and that each answer is
//! what it makes of it. (This is linearizability with the order of the witnesses known; no search is needed.)
//!
//! ```text
//!   acknowledged writes ─┐
//!   watch events ────────┼─► truth: key ─► revision ─► value ─► each answer is held against it
//!   objects in reads ────┘
//! ```
//!
//! Rules, each with a broken history in the tests below:
//! 1. one revision of a key has one value, whoever saw it; one value (they are unique) has one revision: nothing is
//!    applied twice;
//! 2. what was acknowledged at a revision is there, with that value, and nothing else at that revision;
//! 3. real time: an answer that began after another one came is not from before it (a later write has a higher
//!    revision, a later read is of a state at least as new);
//! 4. a read gives the newest value at its revision;
//! 5. a compare-and-set that succeeded had nothing between the revision it compared with and its own; one that was
//!    refused had something after it;
//! 6. a watch is in order, without duplicate, and has everything between its ends.

use std::collections::{BTreeMap, BTreeSet};

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Writes a value, whatever is there.
    Put {
        /// Unique in the whole run.
        value: String,
    },
    /// Writes a value if the key still has a revision.
    CompareAndSet {
        /// The revision that the key must have.
        expected: u64,
        /// Unique in the whole run.
        value: String,
    },
    /// A linearizable read.
    Get,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A write was acknowledged at this revision.
    Written(u64),
    /// A compare-and-set was refused.
    Conflict,
    /// A read of the state at `state_revision`; the object, if there is one, with its own revision and value.
    Read {
        /// The revision of the whole state.
        state_revision: u64,
        /// Revision and value of the object.
        object: Option<(u64, String)>,
    },
    /// Nobody knows: it may have happened, or may still.
    Unknown,
}

/// One operation of one client. Times are nanoseconds since the run began.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Which client.
    pub client: usize,
    /// Name of the object.
    pub key: String,
    /// What was asked.
    pub asked: Asked,
    /// When the first attempt began.
    pub invoked: u64,
    /// When the answer came; `u64::MAX` for none.
    pub completed: u64,
    /// The answer.
    pub answer: Answer,
}

/// One change that a watch delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its revision.
    pub revision: u64,
    /// Name of the object.
    pub key: String,
    /// The object's value after it; `None` when it was deleted.
    pub value: Option<String>,
}

/// An uninterrupted (or resumed) stretch of a watch: everything after `from` up to `to`.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// It began after this revision.
    pub from: u64,
    /// It is complete up to this revision.
    pub to: u64,
    /// What it delivered.
    pub seen: Vec<Seen>,
}

/// Everything that was seen in a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What clients did.
    pub operations: Vec<Operation>,
    /// What watchers saw.
    pub stretches: Vec<Stretch>,
}

/// Most findings that are reported; more would not help.
const FINDINGS_MAX: usize = 20;

/// Revisions of one key and what they hold: `None` for deleted.
type Versions = BTreeMap<u64, Option<String>>;

#[derive(Default)]
struct Checker {
    truth: BTreeMap<String, Versions>,
    findings: Vec<String>,
}

impl History {
    /// Holds everything against the rules. Empty when all is well.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut checker = Checker::default();
        checker.gather(self);
        checker.values_are_unique();
        checker.real_time(&self.operations);
        self.operations.iter().for_each(|operation| checker.answer(operation));
        self.stretches.iter().for_each(|stretch| checker.stretch(stretch));
        checker.findings.truncate(FINDINGS_MAX);
        checker.findings
    }

    /// The name of the object that is known to have changed at each revision.
    #[must_use]
    pub fn changes(&self) -> BTreeMap<u64, String> {
        let mut checker = Checker::default();
        checker.gather(self);
        let all = checker.truth.into_iter();
        all.flat_map(|(key, versions)| versions.into_keys().map(move |revision| (revision, key.clone())))
            .collect()
    }

    /// The newest known revision and value of each object that is there.
    #[must_use]
    pub fn newest(&self) -> BTreeMap<String, (u64, String)> {
        let mut checker = Checker::default();
        checker.gather(self);
        let newest = |versions: Versions| versions.into_iter().next_back();
        let last = checker.truth.into_iter().filter_map(|(key, versions)| Some((key, newest(versions)?)));
        last.filter_map(|(key, (revision, value))| Some((key, (revision, value?)))).collect()
    }
}

impl Checker {
    fn found(&mut self, finding: String) {
        self.findings.push(finding);
    }

    fn learn(&mut self, key: &str, revision: u64, value: Option<&String>, witness: &str) {
        let versions = self.truth.entry(key.to_owned()).or_default();
        let known = versions.entry(revision).or_insert_with(|| value.cloned());
        if known.as_ref() != value {
            let known = known.clone();
            self.found(format!("{key} at revision {revision} is {known:?}, but {witness} saw {value:?}"));
        }
    }

    fn gather(&mut self, history: &History) {
        for operation in &history.operations {
            let witness = format!("client {}", operation.client);
            match (&operation.asked, &operation.answer) {
                (Asked::Put { value } | Asked::CompareAndSet { value, .. }, Answer::Written(revision)) => {
                    self.learn(&operation.key, *revision, Some(value), &witness)
                }
                (Asked::Get, Answer::Read { object: Some((revision, value)), .. }) => {
                    self.learn(&operation.key, *revision, Some(value), &witness);
                }
                _ => {}
            }
        }
        for seen in history.stretches.iter().flat_map(|stretch| &stretch.seen) {
            self.learn(&seen.key, seen.revision, seen.value.as_ref(), "a watch");
        }
    }

    fn values_are_unique(&mut self) {
        let mut at: BTreeMap<&String, Vec<u64>> = BTreeMap::new();
        for versions in self.truth.values() {
            for (revision, value) in versions {
                if let Some(value) = value {
                    at.entry(value).or_default().push(*revision);
                }
            }
        }
        let twice: Vec<String> = at
            .iter()
            .filter(|(_, revisions)| revisions.len() > 1)
            .map(|(value, revisions)| {
                format!("{value} was applied {} times, at {revisions:?}", revisions.len())
            })
            .collect();
        self.findings.extend(twice);
    }

    /// Sweeps over all beginnings and ends in order of time.
    fn real_time(&mut self, operations: &[Operation]) {
        let point = |operation: &Operation| match &operation.answer {
            Answer::Written(revision) => Some((*revision, true)),
            Answer::Read { state_revision, .. } => Some((*state_revision, false)),
            Answer::Conflict | Answer::Unknown => None,
        };
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (n, operation) in operations.iter().enumerate() {
            if point(operation).is_some() {
                moments.push((operation.invoked, false, n));
                moments.push((operation.completed, true, n));
            }
        }
        moments.sort_unstable();
        let mut floors = vec![0; operations.len()];
        let mut floor = 0;
        for (_, is_end, n) in moments {
            let (revision, is_write) = point(&operations[n]).expect("filtered above");
            if !is_end {
                floors[n] = floor;
                continue;
            }
            if revision < floors[n] || is_write && revision == floors[n] {
                self.found(format!(
                    "real time: {:?} began after revision {} was acknowledged",
                    operations[n], floors[n]
                ));
            }
            floor = floor.max(revision);
        }
    }

    fn answer(&mut self, operation: &Operation) {
        let nothing = Versions::new();
        let versions = self.truth.get(&operation.key).unwrap_or(&nothing);
        let newest = |up_to: u64| versions.range(..=up_to).next_back();
        let wrong = match (&operation.asked, &operation.answer) {
            (Asked::Get, Answer::Read { state_revision, object }) => {
                let there = newest(*state_revision).and_then(|(r, v)| Some((*r, v.clone()?)));
                (there != *object).then(|| format!("a read that should give {there:?}: {operation:?}"))
            }
            (Asked::CompareAndSet { expected, .. }, Answer::Written(revision)) => {
                let between = versions.range(expected + 1..*revision).next();
                between.map(|between| format!("a compare-and-set over {between:?}: {operation:?}"))
            }
            (Asked::CompareAndSet { expected, .. }, Answer::Conflict) => {
                let later = versions.range(expected + 1..).next();
                later.is_none().then(|| format!("a compare-and-set refused for nothing: {operation:?}"))
            }
            _ => None,
        };
        self.findings.extend(wrong);
    }

    fn stretch(&mut self, stretch: &Stretch) {
        let disorder =
            stretch.seen.windows(2).find(|two| two[0].revision >= two[1].revision).map(<[Seen]>::to_vec);
        if let Some(two) = disorder {
            self.found(format!("a watch out of order: {two:?}"));
        }
        let outside =
            stretch.seen.iter().find(|s| s.revision <= stretch.from || s.revision > stretch.to).cloned();
        if let Some(seen) = outside {
            self.found(format!("a watch from {} to {} delivered {seen:?}", stretch.from, stretch.to));
        }
        let seen: BTreeSet<(u64, &str)> = stretch.seen.iter().map(|s| (s.revision, s.key.as_str())).collect();
        let missed: Vec<String> = self
            .truth
            .iter()
            .flat_map(|(key, versions)| {
                versions.range(stretch.from + 1..=stretch.to).map(move |(r, _)| (*r, key))
            })
            .filter(|(revision, key)| !seen.contains(&(*revision, key.as_str())))
            .take(3)
            .map(|(revision, key)| {
                format!("a gap: the watch from {} to {} lacks {key} at {revision}", stretch.from, stretch.to)
            })
            .collect();
        self.findings.extend(missed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(asked: Asked, invoked: u64, completed: u64, answer: Answer) -> Operation {
        Operation { client: 1, key: "k".to_owned(), asked, invoked, completed, answer }
    }

    fn put(value: &str, invoked: u64, completed: u64, revision: u64) -> Operation {
        operation(Asked::Put { value: value.to_owned() }, invoked, completed, Answer::Written(revision))
    }

    fn get(invoked: u64, completed: u64, state_revision: u64, object: Option<(u64, &str)>) -> Operation {
        let object = object.map(|(revision, value)| (revision, value.to_owned()));
        operation(Asked::Get, invoked, completed, Answer::Read { state_revision, object })
    }

    fn cas(expected: u64, value: &str, invoked: u64, answer: Answer) -> Operation {
        let asked = Asked::CompareAndSet { expected, value: value.to_owned() };
        operation(asked, invoked, invoked + 1, answer)
    }

    fn watch(from: u64, to: u64, seen: &[(u64, &str)]) -> Stretch {
        let seen = seen
            .iter()
            .map(|(revision, value)| Seen {
                revision: *revision,
                key: "k".to_owned(),
                value: Some((*value).to_owned()),
            })
            .collect();
        Stretch { from, to, seen }
    }

    /// Checks a history and expects findings with these words, or none at all.
    fn check(operations: Vec<Operation>, stretches: Vec<Stretch>, expected: Option<&str>) {
        let findings = History { operations, stretches }.check();
        match expected {
            None => assert_eq!(findings, Vec::<String>::new()),
            Some(words) => {
                assert!(findings.iter().any(|f| f.contains(words)), "{words:?} is not in {findings:?}")
            }
        }
    }

    #[test]
    fn a_sound_history_has_no_findings() {
        let operations = vec![
            put("a", 0, 10, 5),
            put("b", 5, 20, 6),
            get(12, 22, 5, Some((5, "a"))),
            get(21, 30, 7, Some((6, "b"))),
            cas(6, "c", 40, Answer::Written(9)),
            cas(6, "d", 42, Answer::Conflict),
            operation(Asked::Put { value: "e".to_owned() }, 50, u64::MAX, Answer::Unknown),
            get(60, 61, 12, Some((11, "e"))),
        ];
        check(
            operations,
            vec![watch(0, 12, &[(5, "a"), (6, "b"), (9, "c"), (11, "e")]), watch(6, 10, &[(9, "c")])],
            None,
        );
    }

    #[test]
    fn each_broken_rule_is_found() {
        check(
            vec![put("a", 0, 1, 5), put("b", 0, 1, 5)],
            vec![],
            Some("is Some(\"a\"), but client 1 saw Some(\"b\")"),
        );
        check(
            vec![put("a", 0, 1, 5)],
            vec![watch(0, 9, &[(5, "a"), (7, "a")])],
            Some("a was applied 2 times"),
        );
        check(vec![put("a", 0, 1, 5)], vec![watch(0, 9, &[(5, "x")])], Some("a watch saw Some(\"x\")"));
        check(vec![put("a", 0, 1, 5), put("b", 2, 3, 4)], vec![], Some("real time"));
        check(vec![put("a", 0, 1, 5), get(2, 3, 4, None)], vec![], Some("real time"));
        check(
            vec![put("a", 0, 1, 5), get(2, 3, 6, None)],
            vec![],
            Some("a read that should give Some((5, \"a\"))"),
        );
        check(
            vec![put("a", 0, 1, 5), put("b", 2, 3, 6), get(4, 5, 7, Some((5, "a")))],
            vec![],
            Some("a read that should give"),
        );
        check(
            vec![put("a", 0, 1, 5), put("b", 2, 3, 6), cas(5, "c", 4, Answer::Written(7))],
            vec![],
            Some("a compare-and-set over"),
        );
        check(vec![put("a", 0, 1, 5), cas(5, "c", 4, Answer::Conflict)], vec![], Some("refused for nothing"));
        check(vec![], vec![watch(0, 9, &[(6, "b"), (5, "a")])], Some("out of order"));
        check(vec![put("a", 0, 1, 5)], vec![watch(0, 9, &[])], Some("a gap"));
        check(vec![], vec![watch(6, 9, &[(6, "b")])], Some("delivered"));
    }
}
