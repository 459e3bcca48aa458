//! Which pool of nodes to grow so that what waits has room, and which nodes could go.
//!
//! ```text
//!  pods that wait ─► for each pool: so many nodes like its newest ─► a trial ─► the fewest with which as many pods have room
//!                                                                  ─► the expander's order
//!  nodes that do little ─► a trial without those found so far and this one ─► it could go, or what is in the way
//! ```
//!
//! Source: "FAQ" of Kubernetes' cluster-autoscaler (expanders `least-waste`, `priority`, `most-pods`, `random`; nodes below half of their
//! resources whose pods have room elsewhere could go). Bulkhead makes and ends no machines: this is advice. Every trial is that of
//! [`ask`](super::ask): the real rules, budgets and quotas.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{Name, Node, NodePhase, Rejection, Resources, digest128};
use smol_str::SmolStr;

use super::trial::Trial;
use super::{AddedNodes, Answer, Fate, NodeShape, answer};
use crate::State;

/// Nodes by which one pool may be said to grow, at most.
pub const GROWTH_MAX: u32 = 1000;
/// Pools that are tried, at most: those with the most nodes.
const POOLS_MAX: usize = 32;
/// Nodes of which it is tried whether they could go, at most: those that do least.
const REMOVALS_MAX: usize = 50;
/// A part of one, in thousandths.
const WHOLE: u64 = 1000;

/// Which pool comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expander {
    /// The one of whose new nodes least is left over, of processor time and memory on average.
    #[default]
    LeastWaste,
    /// The one with the highest of these; those that are not named come last. Then the one with least waste.
    Priority(BTreeMap<SmolStr, i32>),
    /// The one whose new nodes take the most pods. Then the one with least waste.
    MostPods,
    /// Any, by a hash of this number and the pool's name.
    Random(u64),
}

/// What advice is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdviceQuestion {
    /// Which pool comes first.
    pub expander: Expander,
    /// Nodes by which a pool may grow, from 1 to [`GROWTH_MAX`].
    pub growth_max: u32,
    /// Nodes on which less than so much of processor time and of memory is reserved could go, in per cent.
    pub idle_percent: u32,
}

impl Default for AdviceQuestion {
    fn default() -> Self {
        Self { expander: Expander::default(), growth_max: 100, idle_percent: 50 }
    }
}

/// What would come of a pool with more nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Its name.
    pub pool: SmolStr,
    /// The node that new ones are like.
    pub like: Name,
    /// The fewest with which as many pods as can have room.
    pub nodes: u32,
    /// Pods that wait now and would be placed, wherever.
    pub pods: u32,
    /// Pods that would wait still.
    pub left: u32,
    /// What would be left over of the new nodes, of processor time and memory on average, in thousandths.
    pub waste_permille: u32,
}

/// Whether a node could go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Its name.
    pub node: Name,
    /// How much is reserved on it, of processor time or memory, whichever is more, in per cent.
    pub used_percent: u32,
    /// Pods that would be started elsewhere.
    pub pods: u32,
    /// What is in the way; `None` when it could go, together with all others that could.
    pub obstacle: Option<String>,
}

/// Advice about a State.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// Pods that wait for room.
    pub waiting: u32,
    /// Pools that help, the best first. Each of them alone.
    pub growth: Vec<Growth>,
    /// Nodes that do little, those that do least first.
    pub removals: Vec<Removal>,
    /// All was tried. Otherwise there was no time for some of it.
    pub is_whole: bool,
}

/// Advises about a State. `may_go_on` is asked now and then, and ends it with what is found by then.
///
/// # Errors
/// Why the question cannot be asked.
pub fn advise(
    state: &State,
    question: &AdviceQuestion,
    now_ms: u64,
    may_go_on: &mut dyn FnMut() -> bool,
) -> Result<Advice, Rejection> {
    let mut advisor = Advisor { state, now_ms, may_go_on };
    let Some(present) = advisor.waits(None)? else { return Ok(Advice::default()) };
    let mut advice = Advice { waiting: present, is_whole: true, ..Advice::default() };
    for (pool, like) in if present > 0 { pools(state) } else { Vec::new() } {
        match advisor.growth(&pool, &like, present, question.growth_max)? {
            Found::Some(growth) => advice.growth.push(growth),
            Found::Nothing => {}
            Found::NoTime => advice.is_whole = false,
        }
    }
    order(&mut advice.growth, &question.expander);
    advisor.removals(question.idle_percent, present, &mut advice)?;
    Ok(advice)
}

/// Pools with the node that their next one is like: the newest of those that are ready.
fn pools(state: &State) -> Vec<(SmolStr, Name)> {
    let mut found = BTreeMap::<SmolStr, (u32, &Arc<Node>)>::new();
    for node in state.nodes().iter().filter(|node| node.status.phase == NodePhase::Ready) {
        let (count, newest) = found.entry(SmolStr::new(node.pool())).or_insert((0, node));
        *count += 1;
        if newest.meta.id < node.meta.id {
            *newest = node;
        }
    }
    let mut pools: Vec<_> = found.into_iter().collect();
    pools.sort_by_key(|(_, (count, _))| Reverse(*count));
    pools.truncate(POOLS_MAX);
    pools.into_iter().map(|(pool, (_, newest))| (pool, newest.meta.name.clone())).collect()
}

fn order(growth: &mut [Growth], expander: &Expander) {
    growth.sort_by_cached_key(|one| {
        let first = match expander {
            Expander::LeastWaste => 0,
            Expander::Priority(priorities) => {
                -priorities.get(&one.pool).map_or(i128::from(i32::MIN), |p| (*p).into())
            }
            Expander::MostPods => -i128::from(one.pods),
            Expander::Random(seed) => i128::from(digest128(&(seed, &one.pool)) as u64),
        };
        (first, one.waste_permille, one.nodes, one.pool.clone())
    });
}

enum Found<T> {
    Some(T),
    Nothing,
    NoTime,
}

struct Advisor<'a> {
    state: &'a State,
    now_ms: u64,
    may_go_on: &'a mut dyn FnMut() -> bool,
}

impl Advisor<'_> {
    /// What would happen with nodes more, or without some; `None` when there is no time.
    fn tried(&mut self, added: Option<AddedNodes>, drained: &[Name]) -> Result<Option<Answer>, Rejection> {
        let mut trial = Trial::new(self.state.clone(), self.now_ms);
        trial.add(added.as_slice())?;
        trial.drain(drained)?;
        let at_rest = trial.run(self.may_go_on);
        Ok(at_rest.then(|| answer::compare(self.state, &trial, at_rest)))
    }

    /// How many pods would wait.
    fn waits(&mut self, added: Option<AddedNodes>) -> Result<Option<u32>, Rejection> {
        Ok(self.tried(added, &[])?.map(|answer| waiting(&answer)))
    }

    /// The fewest nodes of a pool that help as much as the most would.
    fn growth(
        &mut self,
        pool: &SmolStr,
        like: &Name,
        present: u32,
        most: u32,
    ) -> Result<Found<Growth>, Rejection> {
        let nodes = |count| Some(AddedNodes { count, shape: NodeShape::Like(like.clone()) });
        // More nodes than pods help nobody.
        let (mut low, mut high) = (1, present.clamp(1, most.clamp(1, GROWTH_MAX)));
        let Some(left) = self.waits(nodes(high))? else { return Ok(Found::NoTime) };
        if left >= present {
            return Ok(Found::Nothing);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(with) = self.waits(nodes(middle))? else { return Ok(Found::NoTime) };
            if with <= left { high = middle } else { low = middle + 1 }
        }
        let Some(answer) = self.tried(nodes(high), &[])? else { return Ok(Found::NoTime) };
        let left = waiting(&answer);
        Ok(Found::Some(Growth {
            pool: pool.clone(),
            like: like.clone(),
            nodes: high,
            pods: present.saturating_sub(left),
            left,
            waste_permille: waste_permille(&answer),
        }))
    }

    /// Adds to the advice which nodes could go, all of them at once.
    fn removals(&mut self, idle_percent: u32, present: u32, advice: &mut Advice) -> Result<(), Rejection> {
        let ready = self.state.nodes().iter().filter(|node| node.status.phase == NodePhase::Ready);
        let used = ready.map(|node| (used_percent(self.state, node), node.meta.name.clone()));
        let mut idle: Vec<_> = used.filter(|(used, _)| *used < idle_percent).collect();
        idle.sort();
        if idle.len() > REMOVALS_MAX {
            idle.truncate(REMOVALS_MAX);
            advice.is_whole = false;
        }
        let mut going = Vec::<Name>::new();
        let mut moved = 0;
        for (used_percent, node) in idle {
            going.push(node.clone());
            let Some(answer) = self.tried(None, &going)? else {
                advice.is_whole = false;
                return Ok(());
            };
            let all = answer.pods.iter().filter(|pod| matches!(pod.fate, Fate::Ends { .. })).count() as u32;
            let obstacle = obstacle(&answer, present);
            let pods = if obstacle.is_none() { all.saturating_sub(moved) } else { 0 };
            match &obstacle {
                None => moved = all,
                Some(_) => drop(going.pop()),
            }
            advice.removals.push(Removal { node, used_percent, pods, obstacle });
        }
        Ok(())
    }
}

fn waiting(answer: &Answer) -> u32 {
    answer.pods.iter().filter(|pod| matches!(pod.fate, Fate::Waits { .. })).count() as u32
}

/// What of new nodes nobody would have.
fn waste_permille(answer: &Answer) -> u32 {
    let (mut has, mut used) = (Resources::ZERO, Resources::ZERO);
    for node in answer.nodes.iter().filter(|node| node.is_new) {
        (has, used) = (has.plus(node.allocatable), used.plus(node.after.requests));
    }
    let left = |has: u64, used: u64| {
        let part = u128::from(has.saturating_sub(used)) * u128::from(WHOLE);
        part.checked_div(has.into()).unwrap_or(0) as u32
    };
    (left(has.cpu_millis, used.cpu_millis) + left(has.memory_bytes, used.memory_bytes)) / 2
}

fn used_percent(state: &State, node: &Node) -> u32 {
    let (used, has) = (state.node_usage(node.meta.id).requests, node.status.facts.allocatable);
    let percent =
        |used: u64, has: u64| (u128::from(used) * 100).checked_div(has.into()).unwrap_or(100) as u32;
    percent(used.cpu_millis, has.cpu_millis).max(percent(used.memory_bytes, has.memory_bytes))
}

/// What keeps the nodes of a trial from going.
fn obstacle(answer: &Answer, present: u32) -> Option<String> {
    let stays = answer.pods.iter().find_map(|pod| match &pod.fate {
        // It goes with its node, as a drain leaves it.
        Fate::Stays { reason, .. } if !reason.contains("DaemonSet") => {
            Some(format!("{} stays: {reason}", pod.pod))
        }
        _ => None,
    });
    stays.or_else(|| {
        let waits = answer.pods.iter().filter(|pod| pod.is_new).find_map(|pod| match &pod.fate {
            Fate::Waits { reason } => Some(format!("{} would wait: {reason}", pod.pod)),
            _ => None,
        });
        waits.filter(|_| waiting(answer) > present)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expander: &Expander, expected: [&str; 3]) {
        let growth = |pool: &'static str, pods, waste_permille| Growth {
            pool: pool.into(),
            like: Name::new("n").expect("a name"),
            nodes: 1,
            pods,
            left: 0,
            waste_permille,
        };
        let mut all = [growth("a", 3, 700), growth("b", 9, 500), growth("c", 3, 100)];
        order(&mut all, expander);
        assert_eq!(all.each_ref().map(|one| one.pool.as_str()), expected, "{expander:?}");
    }

    #[test]
    fn expanders_order_pools() {
        check(&Expander::LeastWaste, ["c", "b", "a"]);
        check(&Expander::MostPods, ["b", "c", "a"]);
        check(
            &Expander::Priority([("a".into(), 10), ("b".into(), -1)].into_iter().collect()),
            ["a", "b", "c"],
        );
        check(&Expander::Priority(BTreeMap::new()), ["c", "b", "a"]);
        let firsts: std::collections::BTreeSet<u8> = (0..32)
            .map(|seed| {
                let hash = |pool: &'static str| digest128(&(seed as u64, &SmolStr::new_static(pool))) as u64;
                ["a", "b", "c"].into_iter().min_by_key(|pool| hash(pool)).expect("three").as_bytes()[0]
            })
            .collect();
        assert_eq!(firsts.len(), 3, "each is first for some number");
    }
}
