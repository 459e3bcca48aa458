//! What the pods of every queue use together: counted change by change, of pods that name a queue or are of a group.
//!
//! It follows from the objects alone, at every feature level, and is no part of a digest. Pods that are of no group and name
//! no queue are not counted here: binding them costs nothing, and what they use is what is left of the whole.

use std::sync::Arc;

use bulkhead_types::{Name, Object, Pod, PodGroupKey, QUEUE_DEFAULT};
use imbl::OrdMap;

use super::{Charge, QuotaUse, Table};
use crate::devices::Classes;

/// Pods that are always of one queue: their group, and the queue that they name themselves.
type Bucket = (Option<PodGroupKey>, Option<Name>);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct QueueIndex {
    /// The queue of each PodGroup.
    queue_of: OrdMap<PodGroupKey, Name>,
    buckets: OrdMap<Bucket, Arc<QuotaUse>>,
    /// Of all queues but the default one.
    queues: OrdMap<Name, Arc<QuotaUse>>,
}

/// As what a pod counts while it holds room.
fn bucket(pod: &Pod) -> Option<Bucket> {
    if pod.node.is_none() || pod.status.phase.is_terminal() {
        return None;
    }
    let bucket = (pod.group_key(), pod.own_queue());
    (bucket != (None, None)).then_some(bucket)
}

/// Whether a pod counts for another amount than before where it is.
pub(super) fn is_resized(former: Option<&Pod>, present: Option<&Pod>) -> bool {
    former.zip(present).is_some_and(|(former, present)| former.spec != present.spec)
}

fn as_pod(object: Option<&Object>) -> Option<&Pod> {
    match object {
        Some(Object::Pod(pod)) => Some(pod),
        _ => None,
    }
}

impl QueueIndex {
    /// What the pods of a queue use; nothing is known of the default one.
    pub(crate) fn of_queue(&self, queue: &Name) -> Option<&Arc<QuotaUse>> {
        self.queues.get(queue)
    }

    /// The same of every queue but the default one.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &QuotaUse> {
        self.queues.values().map(AsRef::as_ref)
    }

    /// What the pods of a group use.
    pub(crate) fn of_group(&self, key: &PodGroupKey) -> QuotaUse {
        let mut sum = QuotaUse::NONE;
        self.buckets_of(key).for_each(|(_, used)| sum.add_all(used));
        sum
    }

    fn buckets_of(&self, key: &PodGroupKey) -> impl Iterator<Item = (&Bucket, &Arc<QuotaUse>)> {
        let from = (Some(key.clone()), None);
        self.buckets.range(from..).take_while(|(bucket, _)| bucket.0.as_ref() == Some(key))
    }

    fn queue_of(&self, bucket: &Bucket) -> Option<Name> {
        let by_group = bucket.0.as_ref().and_then(|key| self.queue_of.get(key));
        by_group.or(bucket.1.as_ref()).filter(|name| name.as_str() != QUEUE_DEFAULT).cloned()
    }

    /// Takes an object's present self for its former one.
    pub(crate) fn change(&mut self, former: Option<&Object>, present: Option<&Object>, classes: &Classes) {
        match (former, present) {
            (Some(Object::Pod(_)), _) | (_, Some(Object::Pod(_))) => {
                let (former, present) = (as_pod(former), as_pod(present));
                let (was, is) = (former.and_then(bucket), present.and_then(bucket));
                if was == is && !is_resized(former, present) {
                    return;
                }
                if let (Some(bucket), Some(pod)) = (was, former) {
                    let charge = Charge::of_pod(pod, classes);
                    self.charge(&bucket, |sum| sum.subtract(&charge));
                }
                if let (Some(bucket), Some(pod)) = (is, present) {
                    let charge = Charge::of_pod(pod, classes);
                    self.charge(&bucket, |sum| sum.add(&charge));
                }
            }
            (Some(Object::PodGroup(group)), present) => {
                let queue = match present {
                    Some(Object::PodGroup(group)) => Some(&group.spec.queue),
                    _ => None,
                };
                self.move_group(&group.key(), queue);
            }
            (None, Some(Object::PodGroup(group))) => self.move_group(&group.key(), Some(&group.spec.queue)),
            _ => {}
        }
    }

    /// The resources of devices count as others: everything is counted afresh.
    pub(crate) fn recount(&mut self, classes: &Classes, pods: &Table<Pod>) {
        (self.buckets, self.queues) = Default::default();
        for pod in pods.iter() {
            if let Some(bucket) = bucket(pod) {
                let charge = Charge::of_pod(pod, classes);
                self.charge(&bucket, |sum| sum.add(&charge));
            }
        }
    }

    fn charge(&mut self, bucket: &Bucket, change: impl Fn(&mut QuotaUse)) {
        change_sum(&mut self.buckets, bucket, &change);
        if let Some(queue) = self.queue_of(bucket) {
            change_sum(&mut self.queues, &queue, &change);
        }
    }

    fn move_group(&mut self, key: &PodGroupKey, queue: Option<&Name>) {
        if self.queue_of.get(key) == queue {
            return;
        }
        let buckets: Vec<_> = self.buckets_of(key).map(|(at, sum)| (at.clone(), Arc::clone(sum))).collect();
        for (bucket, used) in &buckets {
            if let Some(queue) = self.queue_of(bucket) {
                change_sum(&mut self.queues, &queue, |sum| sum.subtract_all(used));
            }
        }
        match queue {
            Some(queue) => _ = self.queue_of.insert(key.clone(), queue.clone()),
            None => _ = self.queue_of.remove(key),
        }
        for (bucket, used) in &buckets {
            if let Some(queue) = self.queue_of(bucket) {
                change_sum(&mut self.queues, &queue, |sum| sum.add_all(used));
            }
        }
    }
}

/// No sum that is kept is of nothing.
fn change_sum<K: Ord + Clone>(
    sums: &mut OrdMap<K, Arc<QuotaUse>>,
    key: &K,
    change: impl FnOnce(&mut QuotaUse),
) {
    let mut sum = sums.get(key).cloned().unwrap_or_default();
    change(Arc::make_mut(&mut sum));
    if *sum == QuotaUse::NONE {
        sums.remove(key);
    } else {
        sums.insert(key.clone(), sum);
    }
}
