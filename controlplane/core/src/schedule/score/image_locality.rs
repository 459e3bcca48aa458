//! Prefers nodes that have the pod's images already.
//!
//! Source: the plugin `ImageLocality` of Kubernetes' scheduler: the sizes of those that a node has, each scaled by the share of
//! nodes that have it, so that a node is not filled because it was first; summed, between the thresholds.

use std::collections::BTreeMap;

use bulkhead_types::{NodeImages, PodSpec, whole_image_name};
use smol_str::SmolStr;

use super::WHOLE;

/// Below this sum nothing counts, in bytes.
const MIN_BYTES: u64 = 23 << 20;
/// For each container: what is above counts no more, in bytes.
const MAX_BYTES_PER_CONTAINER: u64 = 1000 << 20;
/// Shares that differ by less than one of so many parts are not found anew.
const PARTS: u64 = 32;

/// The images of one node by name and by digest, with their sizes in bytes.
pub(crate) type ImageSizes = BTreeMap<SmolStr, u64>;

/// What a node told, by name and by digest; `None` of one that told of none.
pub(crate) fn sizes(images: Option<&NodeImages>) -> Option<ImageSizes> {
    let images = images.filter(|images| !images.images.is_empty())?;
    let named = images.images.iter().flat_map(|image| {
        image.names.iter().chain([&image.digest]).map(|name| (name.clone(), image.size_bytes))
    });
    Some(named.collect())
}

/// On how many nodes each image is.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageSpread {
    counts: BTreeMap<SmolStr, u32>,
}

impl ImageSpread {
    /// A node has other images than before.
    pub(crate) fn change(&mut self, former: Option<&ImageSizes>, present: Option<&ImageSizes>) {
        for name in present.into_iter().flat_map(BTreeMap::keys) {
            *self.counts.entry(name.clone()).or_insert(0) += 1;
        }
        for name in former.into_iter().flat_map(BTreeMap::keys) {
            let Some(count) = self.counts.get_mut(name) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(name);
            }
        }
    }

    /// The images of a pod that some of so many nodes have, and not all: only those tell nodes apart. Costs nothing while no
    /// node has told of any.
    pub(crate) fn telling(&self, spec: &PodSpec, nodes: usize) -> Vec<SmolStr> {
        if self.counts.is_empty() {
            return Vec::new();
        }
        let names =
            spec.init_containers.iter().chain(&spec.containers).map(|one| whole_image_name(&one.image));
        names.filter(|name| self.counts.get(name).is_some_and(|count| (*count as usize) < nodes)).collect()
    }
}

/// The images that pods of one shape want, as they were spread when that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedImages {
    /// Each with the number of nodes that have it.
    images: Vec<(SmolStr, u32)>,
    nodes: u32,
    containers: u32,
}

impl WantedImages {
    /// `None` of a shape whose images tell no nodes apart.
    pub(crate) fn new(names: &[SmolStr], spec: &PodSpec, spread: &ImageSpread, nodes: usize) -> Option<Self> {
        if names.is_empty() {
            return None;
        }
        let count = |name: &SmolStr| (name.clone(), spread.counts.get(name).copied().unwrap_or(0));
        let containers = (spec.init_containers.len() + spec.containers.len()) as u32;
        Some(Self { images: names.iter().map(count).collect(), nodes: (nodes as u32).max(1), containers })
    }

    /// Whether the images are spread so alike that nodes need not be scored anew.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let part = |one: &Self, count: u32| u64::from(count) * PARTS / u64::from(one.nodes);
        self.images.len() == other.images.len()
            && self
                .images
                .iter()
                .zip(&other.images)
                .all(|(own, theirs)| own.0 == theirs.0 && part(self, own.1) == part(other, theirs.1))
    }

    /// In ten thousandths, for a node with these images.
    pub(super) fn score(&self, present: Option<&ImageSizes>) -> u64 {
        let Some(present) = present else { return 0 };
        let scaled = self.images.iter().filter_map(|(name, count)| {
            let bytes = u128::from(*present.get(name)?) * u128::from(*count) / u128::from(self.nodes);
            Some(u64::try_from(bytes).unwrap_or(u64::MAX))
        });
        let most = MAX_BYTES_PER_CONTAINER * u64::from(self.containers);
        let sum = scaled.fold(0u64, u64::saturating_add).clamp(MIN_BYTES, most);
        (sum - MIN_BYTES) * WHOLE / (most - MIN_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{Container, NodeImage};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn node(images: &[(&str, u64)]) -> Option<ImageSizes> {
        let image = |(name, mib): &(&str, u64)| NodeImage {
            digest: format!("sha256:{name}").into(),
            names: vec![whole_image_name(name)],
            size_bytes: mib * MIB,
        };
        sizes(Some(&NodeImages { images: images.iter().map(image).collect() }))
    }

    /// The scores, in per cent as Kubernetes cuts them, of a pod with these images on each of the nodes.
    fn check(images: &[&str], nodes: &[Option<ImageSizes>], expected: &[u64]) {
        let mut spread = ImageSpread::default();
        nodes.iter().for_each(|node| spread.change(None, node.as_ref()));
        let container = |image: &&str| Container { image: (*image).into(), ..Container::default() };
        let spec = PodSpec { containers: images.iter().map(container).collect(), ..PodSpec::default() };
        let wanted = WantedImages::new(&spread.telling(&spec, nodes.len()), &spec, &spread, nodes.len());
        let score = |node: &Option<ImageSizes>| {
            wanted.as_ref().map_or(0, |wanted| wanted.score(node.as_ref())) * 100 / WHOLE
        };
        assert_eq!(nodes.iter().map(score).collect::<Vec<_>>(), expected, "{images:?}");
        nodes.iter().for_each(|node| spread.change(node.as_ref(), None));
        assert!(spread.counts.is_empty());
    }

    /// The figures of Kubernetes' own test of the plugin.
    #[test]
    fn the_worked_figures_come_out() {
        let (one, two) =
            (node(&[("g/40", 40), ("g/300", 300), ("g/2000", 2000)]), node(&[("g/250", 250), ("g/10", 10)]));
        // 40 MiB on one of two nodes are 20: below the threshold. 250 are 125: 100 × (125 − 23) / (2000 − 23).
        check(&["g/40", "g/250"], &[one.clone(), two.clone()], &[0, 5]);
        // 300 are 150: 100 × (20 + 150 − 23) / (2000 − 23).
        check(&["g/40", "g/300"], &[one.clone(), two.clone()], &[7, 0]);
        // 2000 are 1000 of three nodes 666: 100 × (666 − 23) / (2000 − 23), and 10 are too few.
        check(&["g/10", "g/2000"], &[one, two, None], &[32, 0, 0]);
    }

    #[test]
    fn images_that_all_or_no_nodes_have_tell_nothing() {
        let same = node(&[("web", 500)]);
        check(&["web"], &[same.clone(), same.clone()], &[0, 0]);
        check(&["other"], &[same.clone(), None], &[0, 0]);
        check(&["web:latest"], &[same.clone(), None], &[23, 0]);
        check(&["docker.io/library/web@sha256:web"], &[same, None], &[23, 0]);
    }
}
