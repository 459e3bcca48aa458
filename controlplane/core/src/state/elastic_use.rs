//! What the pods of every level of the elastic quota tree use together, counted change by change: of those with a node, of those
//! of them that end, and of those that wait while room is kept for them.
//!
//! It follows from the objects alone and is no part of a digest. Without a tree nothing is counted, and a change of a pod costs
//! a look.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{ELASTIC_QUOTA_NAMESPACE, ElasticQuotaTree, Measure, Name, Object, Pod};
use imbl::OrdMap;
use smol_str::SmolStr;

use super::queue_use::is_resized;
use super::{Charge, Table, is_active, nominated_node};
use crate::devices::Classes;

/// An amount of every resource that the root names, in their order.
pub(crate) type Amounts = Vec<u128>;

/// A level by its place among [`Levels::all`].
pub(crate) type LevelKey = u32;

/// One level, without those below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) name: SmolStr,
    pub(crate) parent: Option<LevelKey>,
    pub(crate) min: Amounts,
    /// `None` of what only the levels above bound.
    pub(crate) max: Vec<Option<u128>>,
}

/// A tree in a form that is quick to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    pub(crate) measures: Vec<Measure>,
    /// Those above before those below.
    pub(crate) all: Vec<Level>,
    leaf_of: BTreeMap<Name, LevelKey>,
}

impl Levels {
    fn of(tree: &ElasticQuotaTree) -> Self {
        let root = &tree.spec.root;
        let measures: Vec<Measure> = root.max.measures().cloned().collect();
        let (mut all, mut leaf_of) = (Vec::<Level>::new(), BTreeMap::new());
        let mut above: Vec<LevelKey> = Vec::new();
        for (depth, quota) in root.levels() {
            let key = all.len() as LevelKey;
            above.truncate(depth);
            let parent = above.last().copied();
            above.push(key);
            let min = measures.iter().map(|measure| quota.min.of(measure).unwrap_or(0).into()).collect();
            let max = measures.iter().map(|measure| quota.max.of(measure).map(Into::into)).collect();
            all.push(Level { name: quota.name.clone(), parent, min, max });
            leaf_of.extend(quota.namespaces.iter().map(|name| (name.clone(), key)));
        }
        Self { measures, all, leaf_of }
    }

    /// The leaf of a namespace.
    pub(crate) fn leaf_of(&self, namespace: Option<&Name>) -> Option<LevelKey> {
        self.leaf_of.get(namespace?).copied()
    }

    /// The namespaces of leaves, by name.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (&Name, LevelKey)> {
        self.leaf_of.iter().map(|(name, key)| (name, *key))
    }

    pub(crate) fn get(&self, key: LevelKey) -> &Level {
        &self.all[key as usize]
    }

    /// A level and all above it, from the bottom up.
    pub(crate) fn path(&self, key: LevelKey) -> impl Iterator<Item = LevelKey> + '_ {
        std::iter::successors(Some(key), |key| self.get(*key).parent)
    }

    /// What something counts for.
    pub(crate) fn amounts(&self, charge: &Charge) -> Amounts {
        let of = |measure: &Measure| {
            charge.iter().filter(|(one, _)| *one == measure).map(|(_, amount)| u128::from(amount)).sum()
        };
        self.measures.iter().map(of).collect()
    }
}

/// Sums by level; none that is kept is of nothing.
pub(crate) type Sums = OrdMap<LevelKey, Arc<Amounts>>;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ElasticIndex {
    levels: Option<Arc<Levels>>,
    /// Of pods with a node that have not ended.
    pub(crate) placed: Sums,
    /// Of those of them that end.
    pub(crate) ending: Sums,
    /// Of pods that wait while room is kept for them.
    pub(crate) kept: Sums,
}

/// As what a pod counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Kept,
    Placed,
    Ending,
}

fn standing(pod: &Pod) -> Option<Standing> {
    match pod.node {
        _ if pod.status.phase.is_terminal() => None,
        Some(_) if pod.meta.is_deleting() => Some(Standing::Ending),
        Some(_) => Some(Standing::Placed),
        None => nominated_node(pod).filter(|_| is_active(pod)).map(|_| Standing::Kept),
    }
}

fn as_pod(object: Option<&Object>) -> Option<&Pod> {
    match object {
        Some(Object::Pod(pod)) => Some(pod),
        _ => None,
    }
}

impl ElasticIndex {
    /// The tree, if there is one.
    pub(crate) fn levels(&self) -> Option<&Arc<Levels>> {
        self.levels.as_ref()
    }

    /// Takes an object's present self for its former one.
    pub(crate) fn change(
        &mut self,
        former: Option<&Object>,
        present: Option<&Object>,
        (classes, pods): (&Classes, &Table<Pod>),
    ) {
        match (former, present) {
            (Some(Object::Pod(_)), _) | (_, Some(Object::Pod(_))) if self.levels.is_some() => {
                self.change_pod(as_pod(former), as_pod(present), classes);
            }
            (Some(Object::ElasticQuotaTree(former)), Some(Object::ElasticQuotaTree(present)))
                if former.spec == present.spec => {}
            (_, Some(Object::ElasticQuotaTree(tree))) => {
                let namespace = tree.meta.namespace.as_ref().map(Name::as_str);
                if namespace == Some(ELASTIC_QUOTA_NAMESPACE) {
                    self.levels = Some(Arc::new(Levels::of(tree)));
                    self.recount(classes, pods);
                }
            }
            (Some(Object::ElasticQuotaTree(_)), None) => *self = Self::default(),
            _ => {}
        }
    }

    fn change_pod(&mut self, former: Option<&Pod>, present: Option<&Pod>, classes: &Classes) {
        let (was, is) = (former.and_then(standing), present.and_then(standing));
        if was == is && !is_resized(former, present) {
            return;
        }
        for (pod, standing, adds) in [(former, was, false), (present, is, true)] {
            if let Some((pod, standing)) = pod.zip(standing) {
                self.count(pod, standing, adds, classes);
            }
        }
    }

    fn count(&mut self, pod: &Pod, standing: Standing, adds: bool, classes: &Classes) {
        let Some(levels) = self.levels.clone() else { return };
        let Some(leaf) = levels.leaf_of(pod.meta.namespace.as_ref()) else { return };
        let amounts = levels.amounts(&Charge::of_pod(pod, classes));
        for level in levels.path(leaf) {
            match standing {
                Standing::Kept => change_sum(&mut self.kept, level, &amounts, adds),
                Standing::Placed => change_sum(&mut self.placed, level, &amounts, adds),
                Standing::Ending => {
                    change_sum(&mut self.placed, level, &amounts, adds);
                    change_sum(&mut self.ending, level, &amounts, adds);
                }
            }
        }
    }

    /// The tree, or what a device is, changed: everything is counted afresh.
    pub(crate) fn recount(&mut self, classes: &Classes, pods: &Table<Pod>) {
        (self.placed, self.ending, self.kept) = Default::default();
        if self.levels.is_none() {
            return;
        }
        for pod in pods.iter() {
            if let Some(standing) = standing(pod) {
                self.count(pod, standing, true, classes);
            }
        }
    }
}

fn change_sum(sums: &mut Sums, level: LevelKey, amounts: &Amounts, adds: bool) {
    let mut sum = sums.get(&level).cloned().unwrap_or_else(|| Arc::new(vec![0; amounts.len()]));
    for (sum, amount) in Arc::make_mut(&mut sum).iter_mut().zip(amounts) {
        *sum = match adds {
            true => *sum + amount,
            false => sum.checked_sub(*amount).expect("what ends was counted when it came"),
        };
    }
    if sum.iter().all(|amount| *amount == 0) {
        sums.remove(&level);
    } else {
        sums.insert(level, sum);
    }
}
