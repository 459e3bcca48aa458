//! What counts for pods of one shape: the cluster's configuration, and what the pods say themselves.

use bulkhead_types::{
    ANNOTATION_LOAD_AWARE, ANNOTATION_SCORING_STRATEGY, Pod, Resources, SchedulerConfig, ScoringStrategy,
};
use smol_str::SmolStr;

use super::most_allocated::Part;
use super::{
    SCORE_MAX, WHOLE, WantedImages, balanced_allocation, least_allocated, load_aware, most_allocated,
    shares_after,
};
use crate::devices::{Ask, Needs};
use crate::schedule::index::NodeEntry;

/// What pods say of how nodes are scored for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Wishes {
    /// Their own strategy.
    pub(crate) strategy: Option<ScoringStrategy>,
    /// Whether measured load counts.
    pub(crate) load_aware: bool,
}

impl Wishes {
    /// Of a pod. A word that is no strategy is as none: preferences refuse no pod.
    pub(crate) fn of(pod: &Pod) -> Self {
        let annotations = &pod.meta.annotations;
        if annotations.is_empty() {
            return Self::default();
        }
        let strategy = annotations.get(ANNOTATION_SCORING_STRATEGY);
        Self {
            strategy: strategy.and_then(|word| ScoringStrategy::of(word)),
            load_aware: annotations.get(ANNOTATION_LOAD_AWARE).is_some_and(|value| value == "true"),
        }
    }
}

/// A resource that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Counted {
    Cpu,
    Memory,
    /// So many whole devices, as the pods ask for.
    Devices(SmolStr, u32),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scorer {
    /// `None` is by default: least allocated and balanced, alike, of processor time and memory.
    own: Option<Box<Own>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    strategy: ScoringStrategy,
    resources: Vec<(Counted, u32)>,
    fit: u32,
    balanced: u32,
    /// 0 unless the pods ask for it.
    load: u32,
    /// 0 unless images tell nodes apart.
    image: u32,
    images: Option<WantedImages>,
}

impl Scorer {
    pub(crate) fn new(
        config: &SchedulerConfig,
        wishes: Wishes,
        needs: Option<&Needs>,
        images: Option<WantedImages>,
    ) -> Self {
        let strategy = wishes.strategy.unwrap_or(config.strategy);
        let load = if wishes.load_aware { config.load_weight } else { 0 };
        let image = if images.is_some() { config.image_weight } else { 0 };
        let plain = SchedulerConfig::default();
        let (fit, balanced) = (config.fit_weight, config.balanced_weight);
        let is_plain = strategy == plain.strategy
            && load == 0
            && image == 0
            && (fit, balanced) == (plain.fit_weight, plain.balanced_weight)
            && config.resources == plain.resources;
        if is_plain {
            return Self::default();
        }
        let asked = |name: &SmolStr| {
            let asks = needs.map(|needs| needs.asks.as_slice()).unwrap_or_default().iter();
            let whole = asks.filter(|ask| ask.share.is_none() && ask.resource == *name);
            whole.map(|ask: &Ask| ask.count).sum::<u32>()
        };
        let counted = |(name, weight): (&SmolStr, &u32)| {
            let counted = match name.as_str() {
                "cpu" => Counted::Cpu,
                "memory" => Counted::Memory,
                _ => Counted::Devices(name.clone(), asked(name)),
            };
            (counted, *weight)
        };
        let is_asked = |(counted, _): &(Counted, u32)| !matches!(counted, Counted::Devices(_, 0));
        let resources = config.resources.iter().map(counted).filter(is_asked).collect();
        Self { own: Some(Box::new(Own { strategy, resources, fit, balanced, load, image, images })) }
    }

    /// The images that count, as they were spread when that was looked at.
    pub(crate) fn images(&self) -> Option<&WantedImages> {
        self.own.as_ref()?.images.as_ref()
    }

    /// How good a node is for what is and will be reserved on it: 0 to twice [`SCORE_MAX`].
    pub(super) fn score(&self, request: Resources, entry: &NodeEntry) -> u32 {
        let shares = shares_after(request, entry);
        let Some(own) = &self.own else {
            return least_allocated::score(shares) + balanced_allocation::score(shares);
        };
        let fit = match own.strategy {
            ScoringStrategy::MostAllocated => most_allocated::score(own.parts(request, entry)),
            ScoringStrategy::LeastAllocated => least_allocated::weighted(own.parts(request, entry)),
        };
        let balanced = WHOLE / u64::from(SCORE_MAX) * u64::from(balanced_allocation::score(shares));
        let load = if own.load > 0 { load_aware::score(request, entry) } else { 0 };
        let images = own.images.as_ref().filter(|_| own.image > 0);
        let image = images.map_or(0, |wanted| wanted.score(entry.images.as_deref()));
        let weighted = [(own.fit, fit), (own.balanced, balanced), (own.load, load), (own.image, image)];
        let weights: u64 = weighted.iter().map(|(weight, _)| u64::from(*weight)).sum();
        let sum: u64 = weighted.iter().map(|(weight, score)| u64::from(*weight) * score).sum();
        (2 * u64::from(SCORE_MAX) * sum / (weights.max(1) * WHOLE)) as u32
    }
}

impl Own {
    /// The resources that count, as they will be on a node.
    fn parts(&self, request: Resources, entry: &NodeEntry) -> impl Iterator<Item = Part> {
        let (used, has) = (entry.usage.requests, entry.allocatable);
        self.resources.iter().map(move |(counted, weight)| {
            let (asked, used, has) = match counted {
                Counted::Cpu => (request.cpu_millis, used.cpu_millis, has.cpu_millis),
                Counted::Memory => (request.memory_bytes, used.memory_bytes, has.memory_bytes),
                Counted::Devices(name, count) => {
                    let (used, has) = entry.devices.as_ref().map_or((0, 0), |devices| devices.used_of(name));
                    (u64::from(*count), used, has)
                }
            };
            Part { weight: u64::from(*weight), asked, used, has }
        })
    }
}
