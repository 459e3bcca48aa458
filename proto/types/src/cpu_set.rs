//! Sets of logical CPUs, in the form in which Linux and the kubelet write them: `0,10-15,25-31`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// CPU numbers are below this: what `sched_setaffinity(2)` takes in its usual mask.
pub const CPUS_MAX: u32 = 1024;
/// Longest text of a set, in bytes: every other CPU, with a comma between.
pub const CPU_SET_BYTES_MAX: usize = 4096;

/// A set of logical CPUs with numbers below [`CPUS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuSet(
    /// 64 CPUs in each, the lowest first; the last is never 0, so that equal sets are equal.
    Vec<u64>,
);

impl CpuSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a CPU. A number from [`CPUS_MAX`] on is no CPU's: `false`, as for one that is there already.
    pub fn insert(&mut self, cpu: u32) -> bool {
        if cpu >= CPUS_MAX || self.contains(cpu) {
            return false;
        }
        let at = (cpu / 64) as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (cpu % 64);
        true
    }

    /// Whether a CPU is in it.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.get((cpu / 64) as usize).is_some_and(|word| word & (1 << (cpu % 64)) != 0)
    }

    /// How many CPUs there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The CPUs, the lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..CPUS_MAX).take(64 * self.0.len()).filter(|cpu| self.contains(*cpu))
    }

    fn zip(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        let word = |set: &Self, at: usize| set.0.get(at).copied().unwrap_or(0);
        let mut words: Vec<u64> =
            (0..self.0.len().max(other.0.len())).map(|at| join(word(self, at), word(other, at))).collect();
        while words.last() == Some(&0) {
            words.pop();
        }
        Self(words)
    }

    /// What is in one of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// Whether nothing is in both.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a & b == 0)
    }

    /// Whether all of it is in the other.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.minus(other).is_empty()
    }
}

impl FromIterator<u32> for CpuSet {
    /// Numbers from [`CPUS_MAX`] on are left out.
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        let mut set = Self::new();
        for cpu in cpus {
            set.insert(cpu);
        }
        set
    }
}

impl fmt::Display for CpuSet {
    /// Runs with a dash, commas between, the lowest first; nothing for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while cpus.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            match last == first {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

/// A text is no set of CPUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CpuSetError(String);

impl FromStr for CpuSet {
    type Err = CpuSetError;

    /// Reads `0,10-15,25-31`, in any order; nothing is the empty set.
    fn from_str(text: &str) -> Result<Self, CpuSetError> {
        let bad =
            |item: &str, reason: &str| CpuSetError(format!("{item:?} {reason}: expected such as 0,10-15"));
        if text.len() > CPU_SET_BYTES_MAX {
            return Err(CpuSetError(format!("has more than {CPU_SET_BYTES_MAX} bytes")));
        }
        let number = |item: &str, digits: &str| match digits.parse::<u32>() {
            Ok(cpu) if digits.bytes().all(|byte| byte.is_ascii_digit()) && cpu < CPUS_MAX => Ok(cpu),
            Ok(_) => Err(bad(item, &format!("is no number below {CPUS_MAX}"))),
            Err(_) => Err(bad(item, "is no CPU")),
        };
        let mut set = Self::new();
        for item in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last) = (number(item, first)?, number(item, last)?);
            if last < first {
                return Err(bad(item, "ends before it begins"));
            }
            for cpu in first..=last {
                set.insert(cpu);
            }
        }
        Ok(set)
    }
}

impl TryFrom<String> for CpuSet {
    type Error = CpuSetError;
    fn try_from(text: String) -> Result<Self, CpuSetError> {
        text.parse()
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().expect("a set")
    }

    fn check(text: &str, expected: Result<(&str, u32), &str>) {
        match (text.parse::<CpuSet>(), expected) {
            (Ok(set), Ok((shown, count))) => {
                assert_eq!((set.to_string().as_str(), set.len()), (shown, count))
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text:?}: {error}"),
            (found, _) => panic!("{text:?} is {found:?}"),
        }
    }

    /// Vector TV-20: a kubelet's state of 32 CPUs, NUMA node 0 with 0-15 and 1 with 16-31.
    #[test]
    fn a_kubelets_state_is_read_as_it_is_meant() {
        check("0,10-15,25-31", Ok(("0,10-15,25-31", 14)));
        let (shared, a, b) = (set("0,10-15,25-31"), set("16-24"), set("1-9"));
        let (zero, one) = (set("0-15"), set("16-31"));
        assert_eq!((a.intersection(&one).len(), a.intersection(&zero).len()), (9, 0));
        assert_eq!((b.intersection(&zero).len(), b.intersection(&one).len()), (9, 0));
        assert_eq!(shared.union(&a).union(&b), zero.union(&one));
        assert!(shared.is_disjoint(&a) && shared.is_disjoint(&b) && a.is_disjoint(&b));
    }

    #[test]
    fn texts_are_read_or_refused() {
        check("", Ok(("", 0)));
        check("3,2-2,1", Ok(("1-3", 3)));
        check("1023", Ok(("1023", 1)));
        check("1024", Err("below 1024"));
        check("5-4", Err("ends before it begins"));
        check("1,,2", Err("no CPU"));
        check("+1", Err("below"));
        check("a-b", Err("no CPU"));
        check("1-2-3", Err("no CPU"));
        check(" 1", Err("no CPU"));
        check("-", Err("no CPU"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn sets_are_what_their_texts_say(
            a in prop::collection::btree_set(0..CPUS_MAX, 0..40), b in prop::collection::btree_set(0..CPUS_MAX, 0..40),
        ) {
            let (x, y): (CpuSet, CpuSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(&set(&x.to_string()), &x);
            prop_assert!(x.to_string().len() <= CPU_SET_BYTES_MAX);
            prop_assert_eq!(x.iter().collect::<Vec<_>>(), a.iter().copied().collect::<Vec<_>>());
            let check = |found: CpuSet, expected: Vec<u32>| found.iter().collect::<Vec<_>>() == expected;
            prop_assert!(check(x.union(&y), a.union(&b).copied().collect()));
            prop_assert!(check(x.minus(&y), a.difference(&b).copied().collect()));
            prop_assert!(check(x.intersection(&y), a.intersection(&b).copied().collect()));
            prop_assert_eq!(x.is_disjoint(&y), a.is_disjoint(&b));
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(x.minus(&x), CpuSet::new());
        }
    }
}
