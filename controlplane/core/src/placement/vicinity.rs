//! Who is near whom: pods counted by domain, for every question that a pod asks about others, and for nothing else.
//!
//! ```text
//!  pod ──► Class (namespace, labels): on which nodes how many ──► counters that count such pods      ┐ Counter:
//!   └────► Kind (what it says about others): its Rules ─────────► counters of pods that say the same ┘ domain ─► pods
//! ```
//!
//! It is a part of the State, and kept while any pod says anything about others; a cluster without such pods pays nothing.
//! The first such pod costs a look at every pod, the first of a new kind a look at every class. From then on a pod that
//! comes or goes costs time in proportion to the counters that count it, and a question costs a look into a map.
//! It is persistent: a copy costs nothing, so that `decide` and the scheduler count what they are about to bind on a copy.

mod class;
mod counter;

use bulkhead_canary::planted;
use bulkhead_types::{Name, Node, Object, ObjectId, Pod, StringMap, digest128};
use imbl::OrdMap;
use smol_str::SmolStr;
use std::sync::Arc;

use super::rules::{Matcher, namespace_of};
use super::{Misfit, Rules, Spread, Term, pod_affinity, topology_spread};
use crate::state::{Index, Table};
use class::Class;
use counter::Counter;
pub(crate) use counter::{Counted, CounterKey, CounterSpec};

/// What the index is made of.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) pods: &'a Table<Pod>,
    pub(crate) nodes: &'a Table<Node>,
    pub(crate) namespaces: &'a Table<bulkhead_types::Namespace>,
    pub(crate) index: &'a Index,
}

/// Pods that are counted alike: a kind, or a class of pods that say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mover(u128);

/// Pods that say the same about others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kind {
    pods: u32,
    /// Their class.
    class: u128,
    rules: Arc<Rules>,
}

/// Grows with every change after which what was asked before must be asked anew; says nothing about the content.
#[derive(Clone, Copy, Debug, Default)]
struct Epoch(u64);

impl PartialEq for Epoch {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Vicinity {
    /// Pods that say anything about others; without any nothing else is kept.
    sayers: u32,
    namespaces: OrdMap<SmolStr, StringMap>,
    classes: OrdMap<u128, Arc<Class>>,
    kinds: OrdMap<u128, Kind>,
    counters: OrdMap<CounterKey, Arc<Counter>>,
    /// The rules of pods that say nothing.
    silent: Arc<Rules>,
    /// Who is met by whom changed, for classes that were there before.
    meetings: Epoch,
    /// Everything was counted anew.
    rebuilds: Epoch,
}

/// What matters of other pods to one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outlook {
    rules: Arc<Rules>,
    met_by: Arc<Vec<Term>>,
}

impl Outlook {
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Counters of pods that say something about this one: a weight of 0 keeps it off.
    pub(crate) fn met_by(&self) -> &[Term] {
        &self.met_by
    }
}

/// Whether a pod says anything about others.
pub(crate) fn says(pod: &Pod) -> bool {
    pod.spec.placement().is_some_and(bulkhead_types::PodPlacement::looks_at_pods)
}

/// What ended counts nowhere.
fn counts(pod: &Pod) -> bool {
    !pod.status.phase.is_terminal()
}

/// The class of a pod.
pub(crate) fn class_key(pod: &Pod) -> u128 {
    digest128(&(&pod.meta.namespace, &pod.meta.labels))
}

/// How a pod is counted: its class, and its kind if it says anything about others. What is made of it costs a hash of its
/// labels each time.
#[derive(Clone, Copy, Debug)]
struct Keys {
    class: u128,
    kind: Option<u128>,
}

impl Keys {
    fn of(pod: &Pod) -> Self {
        Self { class: class_key(pod), kind: says(pod).then(|| kind_key(pod)) }
    }

    fn mover(self) -> Mover {
        Mover(self.kind.unwrap_or(self.class))
    }
}

fn kind_key(pod: &Pod) -> u128 {
    digest128(&(pod.spec.digest(), &pod.meta.namespace, &pod.meta.labels))
}

fn as_pod(object: Option<&Object>) -> Option<&Pod> {
    match object {
        Some(Object::Pod(pod)) => Some(&**pod).filter(|pod| counts(pod)),
        _ => None,
    }
}

impl Vicinity {
    /// Whether anything is kept at all.
    pub(crate) fn is_kept(&self) -> bool {
        self.sayers > 0
    }

    /// Changes when pods may be met by others than before.
    pub(crate) fn meetings(&self) -> (u64, u64) {
        (self.rebuilds.0, self.meetings.0)
    }

    /// Changes when everything was counted anew.
    pub(crate) fn rebuilds(&self) -> u64 {
        self.rebuilds.0
    }

    /// Follows an object from its former self to its present one. `world` is what is after the change.
    pub(crate) fn change(&mut self, former: Option<&Object>, present: Option<&Object>, world: World<'_>) {
        match former.or(present) {
            Some(Object::Pod(_)) => self.change_pod(as_pod(former), as_pod(present), world),
            Some(Object::Node(_)) if self.is_kept() => {
                let node = |object: Option<&Object>| match object {
                    Some(Object::Node(node)) => Some(node.clone()),
                    _ => None,
                };
                self.change_node(node(former).as_deref(), node(present).as_deref(), world);
            }
            Some(Object::Namespace(_)) if self.is_kept() => {
                let labels = present.map(|object| &object.meta().labels);
                let Some(object) = former.or(present) else { return };
                self.change_namespace(&object.meta().name, labels, world);
            }
            _ => {}
        }
    }

    fn change_pod(&mut self, former: Option<&Pod>, present: Option<&Pod>, world: World<'_>) {
        let (said, says) = (former.is_some_and(says), present.is_some_and(says));
        let sayers = self.sayers + u32::from(says) - u32::from(said);
        if sayers == 0 {
            if self.is_kept() {
                *self = Self { rebuilds: Epoch(self.rebuilds.0 + 1), ..Self::default() };
            }
            return;
        }
        if self.sayers == 0 {
            self.rebuild(world);
            return;
        }
        let is_same = |a: &Pod, b: &Pod| {
            a.node == b.node
                && a.meta.is_deleting() == b.meta.is_deleting()
                && a.meta.labels == b.meta.labels
                && a.spec.digest() == b.spec.digest()
        };
        if former.zip(present).is_some_and(|(a, b)| is_same(a, b)) {
            return;
        }
        self.sayers = sayers;
        // What both need is not given up in between.
        if let Some(pod) = present {
            let keys = Keys::of(pod);
            self.enter(pod, keys, world.nodes);
            self.count_pod(pod, keys, world.nodes, true);
        }
        if let Some(pod) = former {
            let keys = Keys::of(pod);
            self.count_pod(pod, keys, world.nodes, false);
            self.leave(keys);
        }
    }

    /// Counts everything afresh.
    pub(crate) fn rebuild(&mut self, world: World<'_>) {
        let sayers = world.pods.iter().filter(|pod| counts(pod) && says(pod)).count();
        let rebuilds = Epoch(self.rebuilds.0 + 1);
        *self = Self { sayers: sayers as u32, rebuilds, meetings: self.meetings, ..Self::default() };
        if sayers == 0 {
            return;
        }
        for namespace in world.namespaces.iter() {
            self.namespaces.insert(SmolStr::new(namespace.meta.name.as_str()), namespace.meta.labels.clone());
        }
        // First who is there, then where: no counter comes too late for what it counts.
        let pods = || world.pods.iter().filter(|pod| counts(pod));
        pods().for_each(|pod| self.enter(pod, Keys::of(pod), world.nodes));
        pods().for_each(|pod| self.count_pod(pod, Keys::of(pod), world.nodes, true));
    }

    fn change_node(&mut self, former: Option<&Node>, present: Option<&Node>, world: World<'_>) {
        let is_same = |a: &Node, b: &Node| {
            a.meta.labels == b.meta.labels && a.spec == b.spec && a.status.phase == b.status.phase
        };
        if former.zip(present).is_some_and(|(a, b)| is_same(a, b)) {
            return;
        }
        let Some(id) = former.or(present).map(|node| node.meta.id) else { return };
        let pods: Vec<_> = world.index.on_node(id).filter_map(|id| world.pods.get(id)).collect();
        for (node, is_more) in [(former, false), (present, true)] {
            let Some(node) = node else { continue };
            let by_node: Vec<_> = self.counters.iter().filter(|(_, one)| one.spec.filter.is_some()).collect();
            let keys: Vec<_> = by_node.into_iter().map(|(key, _)| *key).collect();
            if is_more {
                keys.iter().for_each(|key| self.counter_mut(*key).add_node(node, true));
            }
            for pod in pods.iter().filter(|pod| counts(pod)) {
                self.tally(Keys::of(pod), node, pod.meta.is_deleting(), is_more);
            }
            if !is_more {
                keys.iter().for_each(|key| self.counter_mut(*key).add_node(node, false));
            }
        }
    }

    fn change_namespace(&mut self, name: &Name, labels: Option<&StringMap>, world: World<'_>) {
        let name = SmolStr::new(name.as_str());
        if self.namespaces.get(&name) == labels {
            return;
        }
        match labels {
            Some(labels) => _ = self.namespaces.insert(name.clone(), labels.clone()),
            None => _ = self.namespaces.remove(&name),
        }
        let matters = self.counters.values().any(|counter| counter.selects_namespaces());
        if matters && self.classes.values().any(|class| class.namespace == name) {
            self.rebuild(world);
        }
    }

    fn of_namespace(&self, namespace: &str) -> StringMap {
        self.namespaces.get(namespace).cloned().unwrap_or_default()
    }

    fn counter_mut(&mut self, key: CounterKey) -> &mut Counter {
        Arc::make_mut(self.counters.get_mut(&key).expect("a counter that somebody needs"))
    }

    /// A pod is there.
    fn enter(&mut self, pod: &Pod, keys: Keys, nodes: &Table<Node>) {
        match self.classes.get_mut(&keys.class) {
            Some(class) => Arc::make_mut(class).pods += 1,
            None => _ = self.classes.insert(keys.class, Arc::new(self.new_class(pod))),
        }
        let Some(key) = keys.kind else { return };
        if let Some(kind) = self.kinds.get_mut(&key) {
            kind.pods += 1;
            return;
        }
        let rules = Arc::new(Rules::of(pod, &self.of_namespace(&namespace_of(pod))));
        self.kinds.insert(key, Kind { pods: 1, class: keys.class, rules: rules.clone() });
        for (key, spec) in rules.reads.iter().chain(&rules.holds) {
            self.register(*key, spec, nodes);
        }
    }

    /// A pod is not there any more, or not as such.
    fn leave(&mut self, keys: Keys) {
        if let Some(key) = keys.kind {
            let kind = self.kinds.get_mut(&key).expect("a kind whose pods entered");
            kind.pods -= 1;
            if kind.pods == 0 {
                let rules = kind.rules.clone();
                self.kinds.remove(&key);
                rules.reads.iter().chain(&rules.holds).for_each(|(key, _)| self.unregister(*key));
            }
        }
        let class = Arc::make_mut(self.classes.get_mut(&keys.class).expect("a class whose pods entered"));
        class.pods -= 1;
        if class.pods == 0 {
            self.classes.remove(&keys.class);
        }
    }

    fn new_class(&self, pod: &Pod) -> Class {
        let (namespace, labels) = (namespace_of(pod), pod.meta.labels.clone());
        let mut class = Class { namespace, labels, pods: 1, ..Class::default() };
        let of_namespace = self.of_namespace(&class.namespace);
        for (key, counter) in &self.counters {
            if concerns(&counter.spec, &class, &of_namespace) {
                meet(&mut class, *key, &counter.spec);
            }
        }
        class
    }

    /// A kind needs a counter: the first one has it counted.
    fn register(&mut self, key: CounterKey, spec: &CounterSpec, nodes: &Table<Node>) {
        if self.counters.contains_key(&key) {
            self.counter_mut(key).kinds += 1;
            return;
        }
        let mut counter = Counter::new(spec.clone());
        if spec.filter.is_some() {
            nodes.iter().for_each(|node| counter.add_node(node, true));
        }
        let is_met = |class: &Class| concerns(spec, class, &self.of_namespace(&class.namespace));
        let met: Vec<_> =
            self.classes.iter().filter(|(_, class)| is_met(class)).map(|(key, _)| *key).collect();
        for class in met {
            let class = Arc::make_mut(self.classes.get_mut(&class).expect("a class that was just met"));
            meet(class, key, spec);
            if let Counted::Saying { .. } = spec.counted {
                continue;
            }
            for (node, count) in &class.on {
                let ending = if counter.counts_ending() { count.ending } else { 0 };
                if let Some(node) = nodes.get(*node) {
                    counter.add_pods(node, count.staying + ending, true);
                }
            }
        }
        self.note_meeting(spec);
        self.counters.insert(key, Arc::new(counter));
    }

    fn unregister(&mut self, key: CounterKey) {
        let counter = self.counter_mut(key);
        counter.kinds -= 1;
        if counter.kinds > 0 {
            return;
        }
        let spec = counter.spec.clone();
        self.counters.remove(&key);
        let knowing: Vec<_> =
            self.classes.iter().filter(|(_, class)| class.knows(key)).map(|(key, _)| *key).collect();
        for class in knowing {
            let class = self.classes.get_mut(&class).expect("a class that was just found");
            Arc::make_mut(class).forget(key);
        }
        self.note_meeting(&spec);
    }

    fn note_meeting(&mut self, spec: &CounterSpec) {
        if let Counted::Saying { .. } = spec.counted {
            self.meetings.0 += 1;
        }
    }

    fn count_pod(&mut self, pod: &Pod, keys: Keys, nodes: &Table<Node>, is_more: bool) {
        let Some(id) = pod.node else { return };
        let node = nodes.get(id).map(|node| &**node);
        self.count_at(pod, keys, (id, node), is_more);
    }

    fn count_at(&mut self, pod: &Pod, keys: Keys, (id, node): (ObjectId, Option<&Node>), is_more: bool) {
        let is_ending = pod.meta.is_deleting();
        let class = self.classes.get_mut(&keys.class).expect("a class whose pods entered");
        Arc::make_mut(class).add(id, is_ending, is_more);
        if let Some(node) = node {
            self.tally(keys, node, is_ending, is_more);
        }
    }

    fn tally(&mut self, keys: Keys, node: &Node, is_ending: bool, is_more: bool) {
        let class = self.classes.get(&keys.class).expect("a class whose pods entered").clone();
        for key in &class.counted_by {
            let counter = self.counter_mut(*key);
            if !is_ending || counter.counts_ending() {
                counter.add_pods(node, 1, is_more);
            }
        }
        if let Some(kind) = keys.kind {
            let rules = self.kinds.get(&kind).expect("a kind whose pods entered").rules.clone();
            rules.holds.iter().for_each(|(key, _)| self.counter_mut(*key).add_pods(node, 1, is_more));
        }
    }

    /// Counts a pod that waits as if it were bound: for copies on which bindings are tried out.
    pub(crate) fn bind(&mut self, pod: &Pod, node: &Node) -> Mover {
        let keys = if self.is_kept() { Keys::of(pod) } else { return Mover::default() };
        if !self.classes.contains_key(&keys.class) {
            return Mover::default();
        }
        self.count_at(pod, keys, (node.meta.id, Some(node)), true);
        keys.mover()
    }

    /// Counts a pod that is on a node as if it had gone: for copies as well.
    pub(crate) fn release(&mut self, pod: &Pod, node: &Node) {
        if !self.is_kept() {
            return;
        }
        let keys = Keys::of(pod);
        if self.classes.contains_key(&keys.class) {
            self.count_at(pod, keys, (node.meta.id, Some(node)), false);
        }
    }

    /// Whether any of these counters, in order, counts a mover's pods.
    pub(crate) fn counts_any(&self, mover: Mover, counters: &[CounterKey]) -> bool {
        let kind = self.kinds.get(&mover.0);
        let class = self.classes.get(&kind.map_or(mover.0, |kind| kind.class));
        let is_one = |counter: &CounterKey| counters.binary_search(counter).is_ok();
        class.is_some_and(|class| class.counted_by.iter().any(is_one))
            || kind.is_some_and(|kind| kind.rules.holds.iter().any(|(counter, _)| is_one(counter)))
    }

    /// What pods of a class are met by, to compare.
    pub(crate) fn met_by(&self, class: u128) -> Option<&Arc<Vec<Term>>> {
        self.classes.get(&class).map(|class| &class.met_by)
    }

    /// What matters of other pods to a pod of the State; `None` when nothing does.
    pub(crate) fn outlook(&self, pod: &Pod) -> Option<Outlook> {
        if !self.is_kept() {
            return None;
        }
        let mut met_by = self.classes.get(&class_key(pod))?.met_by.clone();
        if planted!("canary_one_sided_anti_affinity") {
            met_by = Arc::default();
        }
        let kind = if says(pod) { self.kinds.get(&kind_key(pod)) } else { None };
        if kind.is_none() && met_by.is_empty() {
            return None;
        }
        let rules = kind.map_or_else(|| self.silent.clone(), |kind| kind.rules.clone());
        Some(Outlook { rules, met_by })
    }

    /// Whether other pods let a pod be on a node.
    ///
    /// # Errors
    /// The first reason against it.
    pub(crate) fn check(&self, outlook: &Outlook, node: &Node) -> Result<(), Misfit> {
        topology_spread::check(self, outlook, node)?;
        pod_affinity::check(self, outlook, node)
    }

    /// How many pods a domain has.
    pub(crate) fn count(&self, counter: CounterKey, domain: &str) -> u32 {
        self.counters.get(&counter).map_or(0, |counter| counter.count(domain))
    }

    /// How many pods each of some domains has.
    pub(crate) fn counts(&self, counter: CounterKey, domains: &[SmolStr]) -> Vec<u32> {
        let counter = self.counters.get(&counter);
        domains.iter().map(|domain| counter.map_or(0, |counter| counter.count(domain))).collect()
    }

    /// The fewest pods of any domain.
    pub(crate) fn fewest(&self, spread: &Spread) -> u32 {
        self.counters.get(&spread.counter).map_or(0, |counter| counter.fewest(spread.min_domains))
    }

    /// How many domains there are.
    pub(crate) fn domains_len(&self, counter: CounterKey) -> usize {
        self.counters.get(&counter).map_or(0, |counter| counter.domains_len())
    }

    /// Whether a pod may be where none is that it wants to be near: there is none at all, and it wants its like.
    pub(crate) fn may_be_first(&self, outlook: &Outlook) -> bool {
        let rules = outlook.rules();
        let mut counters = rules.affinity.iter().filter_map(|term| self.counters.get(&term.counter));
        rules.is_its_own_neighbour && counters.all(|counter| counter.total() == 0)
    }
}

/// Whether a counter has anything to do with pods of a class: it counts them, or those that it counts say something about
/// them.
fn concerns(spec: &CounterSpec, class: &Class, of_namespace: &StringMap) -> bool {
    let matches = |one: &Matcher| one.matches(&class.namespace, of_namespace, &class.labels);
    match &spec.counted {
        Counted::Matching { all, .. } => all.iter().all(matches),
        Counted::Saying { matcher, .. } => matches(matcher),
    }
}

/// Notes that a counter concerns a class.
fn meet(class: &mut Class, key: CounterKey, spec: &CounterSpec) {
    match &spec.counted {
        Counted::Matching { .. } => class.is_counted_by(key),
        Counted::Saying { weight, .. } => {
            let topology_key = spec.topology_key.clone();
            class.is_met_by(Term { counter: key, topology_key, weight: weight.unwrap_or(0) });
        }
    }
}
