//! How well pods are placed: how many find no node, and how many nodes they take, beside an optimum and beside first fit.
//!
//! ```text
//!  a seed ─► nodes and pods ─┬─► the real scheduler, as on a leader
//!                            ├─► first fit: each pod, in its turn, on the first node with room
//!                            └─► the optimum: of all ways to place them (few nodes and pods only)
//! ```
//!
//! The scheduler sees all pods at once but takes them in the order in which they came, as it must; the optimum may leave out
//! an early one for two later ones. So its figure is a bound, and none that a fair scheduler reaches.

mod optimum;

use std::collections::BTreeSet;

use bulkhead_types::ScoringStrategy;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::leader::Leader;
use super::sorts;
use crate::commands::bench::results::{Figure, Results};
use crate::failure::Failure;
use crate::progress::Progress;

const SMALL: &str = "sched.quality.small";
const LARGE: &str = "sched.quality.large";
/// Small mixes, one for each seed; small enough that every way to place them can be looked at.
const SMALL_MIXES: u64 = 200;
const SMALL_NODES: usize = 4;
const SMALL_PODS: usize = 9;
/// Large mixes.
const LARGE_MIXES: u64 = 5;
const LARGE_NODES: usize = 500;
/// How much of a large mix' processor time and memory its pods ask for together, in per cent: more than there is, and less.
const OVER_PERCENT: u64 = 115;
const UNDER_PERCENT: u64 = 50;

/// Processor time in cores, memory in GiB, and cards: of a node, or of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) cpu: u64,
    pub(super) memory: u64,
    pub(super) cards: u64,
}

impl Size {
    fn has_room_for(self, pod: Self) -> bool {
        pod.cpu <= self.cpu && pod.memory <= self.memory && pod.cards <= self.cards
    }

    fn less(self, pod: Self) -> Self {
        let Self { cpu, memory, cards } = pod;
        Self { cpu: self.cpu - cpu, memory: self.memory - memory, cards: self.cards - cards }
    }
}

/// Nodes, and pods in the order in which they come.
#[derive(Clone, Debug)]
struct Mix {
    nodes: Vec<Size>,
    pods: Vec<Size>,
}

/// Where the pods of a mix are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    rejected: usize,
    nodes_used: usize,
}

impl Mix {
    fn draw(seed: u64, nodes: usize, is_enough: impl Fn(&[Size], &[Size]) -> bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let node = |rng: &mut ChaCha8Rng| {
            let cpu = 1 << rng.random_range(3..=6);
            let memory = cpu * (1 << rng.random_range(1..=3));
            // Machines with cards have eight.
            Size { cpu, memory, cards: if rng.random_ratio(1, 3) { 8 } else { 0 } }
        };
        let nodes: Vec<Size> = (0..nodes).map(|_| node(&mut rng)).collect();
        let mut pods = Vec::new();
        while !is_enough(&nodes, &pods) {
            let cpu = 1 << rng.random_range(0..=4);
            let memory = cpu * (1 << rng.random_range(1..=3));
            let cards = if rng.random_ratio(1, 4) { 1 << rng.random_range(0..=3) } else { 0 };
            pods.push(Size { cpu, memory, cards });
        }
        Self { nodes, pods }
    }

    /// As few that every way to place them can be looked at.
    fn small(seed: u64) -> Self {
        Self::draw(seed, SMALL_NODES, |_, pods| pods.len() == SMALL_PODS)
    }

    /// Pods that ask for so much of the processor time together.
    fn large(seed: u64, percent: u64) -> Self {
        Self::draw(seed, LARGE_NODES, |nodes, pods| {
            let cpu = |sizes: &[Size]| sizes.iter().map(|size| size.cpu).sum::<u64>();
            100 * cpu(pods) >= percent * cpu(nodes)
        })
    }

    /// What the scheduler makes of it.
    fn scheduled(&self, strategy: ScoringStrategy) -> anyhow::Result<Outcome> {
        let mut leader = Leader::of(&self.nodes)?;
        leader.score_by(strategy)?;
        leader.renew()?;
        for pod in &self.pods {
            leader.create(&[sorts::sized(*pod)], 1)?;
        }
        leader.run()?;
        let rejected = leader.state().pending_pods().len();
        let used: BTreeSet<_> = leader.state().pods().iter().filter_map(|pod| pod.node).collect();
        Ok(Outcome { rejected, nodes_used: used.len() })
    }

    fn first_fit(&self) -> Outcome {
        let (mut free, mut rejected) = (self.nodes.clone(), 0);
        for pod in &self.pods {
            match free.iter_mut().find(|node| node.has_room_for(*pod)) {
                Some(node) => *node = node.less(*pod),
                None => rejected += 1,
            }
        }
        let nodes_used = free.iter().zip(&self.nodes).filter(|(free, all)| free != all).count();
        Outcome { rejected, nodes_used }
    }
}

/// Measures what is wanted, by the beginning of its name.
pub(super) fn measure(results: &mut Results, wants: impl Fn(&str) -> bool) -> Result<(), Failure> {
    if wants(SMALL) {
        let _progress =
            Progress::start(format!("placing {SMALL_MIXES} small mixes, and looking for their optimum"));
        let mixes: Vec<Mix> = (0..SMALL_MIXES).map(Mix::small).collect();
        let best: usize = mixes.iter().map(|mix| optimum::rejected(&mix.nodes, &mix.pods)).sum();
        let first_fit: usize = mixes.iter().map(|mix| mix.first_fit().rejected).sum();
        for (name, strategy) in strategies() {
            let outcomes: Vec<_> =
                mixes.iter().map(|mix| mix.scheduled(strategy)).collect::<anyhow::Result<_>>()?;
            let rejected: usize = outcomes.iter().map(|outcome| outcome.rejected).sum();
            if rejected < best {
                return Err(Failure::failed("fewer rejected than any way to place them rejects"));
            }
            let figure = Figure::new(&format!("{SMALL}.{name}.rejected"), rejected as f64, "pods");
            results.add(figure.beside("optimum", best as f64))?;
            let figure = Figure::new(&format!("{SMALL}.{name}.rejected"), rejected as f64, "pods");
            results.add(figure.beside("first fit", first_fit as f64))?;
        }
    }
    if wants(LARGE) {
        let _progress = Progress::start(format!("placing large mixes on {LARGE_NODES} nodes"));
        for (name, strategy) in strategies() {
            let over = total(OVER_PERCENT, strategy)?;
            let figure = Figure::new(&format!("{LARGE}.{name}.rejected"), over.0.rejected as f64, "pods");
            results.add(figure.beside("first fit", over.1.rejected as f64))?;
            let under = total(UNDER_PERCENT, strategy)?;
            let figure =
                Figure::new(&format!("{LARGE}.{name}.nodes_used"), under.0.nodes_used as f64, "nodes");
            results.add(figure.beside("first fit", under.1.nodes_used as f64))?;
        }
    }
    Ok(())
}

fn strategies() -> [(&'static str, ScoringStrategy); 2] {
    [("least_allocated", ScoringStrategy::LeastAllocated), ("most_allocated", ScoringStrategy::MostAllocated)]
}

/// The scheduler's outcome and that of first fit, over all large mixes.
fn total(percent: u64, strategy: ScoringStrategy) -> anyhow::Result<(Outcome, Outcome)> {
    let none = Outcome { rejected: 0, nodes_used: 0 };
    let sum = |a: Outcome, b: Outcome| Outcome {
        rejected: a.rejected + b.rejected,
        nodes_used: a.nodes_used + b.nodes_used,
    };
    (0..LARGE_MIXES).try_fold((none, none), |(ours, theirs), seed| {
        let mix = Mix::large(seed, percent);
        Ok((sum(ours, mix.scheduled(strategy)?), sum(theirs, mix.first_fit())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_mixes_lose_little_to_the_optimum_and_none_is_beaten() {
        let mixes: Vec<Mix> = (0..40).map(Mix::small).collect();
        let mut lost = 0;
        for (seed, mix) in mixes.iter().enumerate() {
            let best = optimum::rejected(&mix.nodes, &mix.pods);
            for (_, strategy) in strategies() {
                let ours = mix.scheduled(strategy).expect("a cluster at rest").rejected;
                assert!(ours >= best, "seed {seed}: {ours} rejected, {best} at best");
                lost += ours - best;
            }
            assert!(mix.first_fit().rejected >= best);
        }
        // Of 720 pods: a scheduler that leaves room unused would be far above.
        assert!(lost <= 72, "{lost} pods more than at best found no node");
    }

    #[test]
    fn packing_takes_no_more_nodes_than_spreading() {
        // Alike: of nodes of different sizes binpack fills the small ones first, and those are many.
        let nodes = vec![Size { cpu: 64, memory: 512, cards: 8 }; 40];
        let mix = Mix { nodes, ..Mix::draw(7, 40, |nodes, pods| pods.len() == nodes.len()) };
        let used = |strategy| mix.scheduled(strategy).expect("a cluster at rest").nodes_used;
        let (packed, spread) = (used(ScoringStrategy::MostAllocated), used(ScoringStrategy::LeastAllocated));
        assert!(packed < spread, "{packed} nodes packed, {spread} spread");
    }
}
