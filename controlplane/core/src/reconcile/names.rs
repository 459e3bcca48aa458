//! Names that the control plane gives: derived by hash, so that the same State leads to the same names.

use std::hash::Hash;

use bulkhead_types::{NAME_LENGTH_MAX, Name, digest128};

/// No vowels and no digits that look like letters: no name spells a word (Kubernetes' alphabet for suffixes).
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Characters of a pod's suffix.
const POD_SUFFIX_LENGTH: usize = 5;
/// Characters of a template's hash.
const TEMPLATE_HASH_LENGTH: usize = 10;
/// Longest name of a ReplicaSet that its pods' names can carry whole.
const SET_NAME_LENGTH_MAX: usize = NAME_LENGTH_MAX - POD_SUFFIX_LENGTH - 1;

/// A hash as characters of the alphabet.
fn suffix<T: Hash>(value: &T, length: usize) -> String {
    let mut rest = digest128(value);
    let mut text = String::with_capacity(length);
    for _ in 0..length {
        text.push(char::from(ALPHABET[(rest % 27) as usize]));
        rest /= 27;
    }
    text
}

/// `<base>-<suffix>`, with the base cut so that the whole is at most `length_max` bytes.
fn joined(base: &str, suffix: &str, length_max: usize) -> Name {
    // Names are ASCII, so that any byte may be the last.
    let base = &base[..base.len().min(length_max - suffix.len() - 1)];
    let base = base.trim_end_matches('-');
    Name::new(format!("{base}-{suffix}")).expect("a cut name with a suffix of letters is a name")
}

/// The `pod-template-hash` of a template.
pub(super) fn template_hash<T: Hash>(template: &T, collision_count: u32) -> String {
    suffix(&(template, collision_count), TEMPLATE_HASH_LENGTH)
}

/// The name of a Deployment's ReplicaSet.
pub(super) fn replica_set_name(deployment: &Name, template_hash: &str) -> Name {
    joined(deployment.as_str(), template_hash, SET_NAME_LENGTH_MAX)
}

/// The name of a ReplicaSet's pod.
pub(super) fn pod_name<T: Hash>(set: &Name, seed: &T) -> Name {
    joined(set.as_str(), &suffix(seed, POD_SUFFIX_LENGTH), NAME_LENGTH_MAX)
}

/// The name of a ControllerRevision.
pub(super) fn revision_name(owner: &Name, template_hash: &str) -> Name {
    joined(owner.as_str(), template_hash, NAME_LENGTH_MAX)
}

/// The name of a Job's pod: `<job>-<suffix>`, or `<job>-<index>-<suffix>`.
pub(super) fn job_pod_name<T: Hash>(job: &Name, index: Option<u32>, seed: &T) -> Name {
    let suffix = suffix(seed, POD_SUFFIX_LENGTH);
    match index {
        None => joined(job.as_str(), &suffix, NAME_LENGTH_MAX),
        // The job's name is cut, not the index.
        Some(index) => joined(job.as_str(), &format!("{index}-{suffix}"), NAME_LENGTH_MAX),
    }
}

/// The name of a CronJob's job for a time, as Kubernetes names them: by minutes since the epoch, or by seconds where
/// the schedule has them.
pub(super) fn cron_job_run_name(cron_job: &Name, run_ms: u64, has_seconds: bool) -> Name {
    let unit_ms = if has_seconds { 1000 } else { 60_000 };
    joined(cron_job.as_str(), &(run_ms / unit_ms).to_string(), NAME_LENGTH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_whatever_the_base() {
        for base in ["a", "web", &"x".repeat(63), &format!("{}-----y", "x".repeat(41))] {
            let base = Name::new(base).expect("a name");
            let set = replica_set_name(&base, &template_hash(&"template", 0));
            assert!(set.as_str().len() <= SET_NAME_LENGTH_MAX, "{set}");
            let pod = pod_name(&set, &(1, 2));
            assert!(pod.as_str().starts_with(set.as_str()), "{pod} carries {set} whole");
        }
    }

    #[test]
    fn hashes_differ_by_content_and_collision_count() {
        assert_eq!(template_hash(&"a", 0), template_hash(&"a", 0));
        assert_ne!(template_hash(&"a", 0), template_hash(&"a", 1));
        assert_ne!(template_hash(&"a", 0), template_hash(&"b", 0));
    }
}
