//! Pods that ask for cards, whole ones and shares of them, among what clients ask for; and operators who keep cards back.

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    Command, ContainerOptions, ExtendedResources, FEATURE_LEVEL_MAX, Name, NodeGpu, PARTITIONS_LEVEL,
    PartitionStrategy, PodSpec, Rare, StringMap,
};
use smol_str::SmolStr;

use crate::devices::CARD_MIB;
use crate::rng::Rng;

/// The command that a cluster needs first, if it does.
pub(super) fn level(state: &State) -> Option<Command> {
    let is_low = state.feature_level() < PARTITIONS_LEVEL;
    is_low.then_some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX })
}

/// Lets the pods of a spec ask for cards.
pub(super) fn ask(rng: &mut Rng, spec: &mut PodSpec) {
    let name = SmolStr::new_static;
    let limits = match rng.range(0, 13) {
        10 => vec![(name("aliyun.com/gpu-mem"), rng.range(1, 8))],
        11 | 12 => vec![(name("nvidia.com/mig-3g.20gb"), 1)],
        13 => vec![(name("nvidia.com/mig-1g.5gb"), *rng.pick(&[1, 2]))],
        0..6 => vec![(name("nvidia.com/gpu"), *rng.pick(&[1, 1, 1, 2]))],
        6..=8 => vec![
            (name("nvidia.com/vgpu"), *rng.pick(&[1, 1, 2])),
            (name("nvidia.com/gpumem"), rng.range(1, CARD_MIB / 2)),
            (name("nvidia.com/gpucores"), *rng.pick(&[0, 30, 100])),
        ],
        // No class has it: such a pod waits for ever.
        _ => vec![(name("example.com/none"), 1)],
    };
    let extended = ExtendedResources { requests: Default::default(), limits: limits.into_iter().collect() };
    if let Some(container) = spec.containers.first_mut() {
        let present = container.options.get().cloned().unwrap_or_default();
        container.options = Rare::some(ContainerOptions { extended: Rare::some(extended), ..present });
    }
}

/// The annotation by which pods of NVIDIA cards say which they do not take.
pub(crate) const AVOIDED: &str = "nvidia.com/nouse-gpuuuid";

/// Lets some pods take no card of a node but its first, or not that.
pub(super) fn choose(rng: &mut Rng, annotations: &mut StringMap, agents: u32) {
    let avoided: Vec<String> = match rng.range(0, 9) {
        0 => (0..agents).map(|agent| format!("GPU-{agent}-0")).collect(),
        1 => (0..agents).flat_map(|agent| (1..4).map(move |card| format!("GPU-{agent}-{card}"))).collect(),
        _ => return,
    };
    annotations.insert(SmolStr::new_static(AVOIDED), SmolStr::new(avoided.join(",")));
}

/// An operator keeps a card back, or gives it back.
pub(super) fn cordon(rng: &mut Rng, node: Name, devices: u32) -> Command {
    let device = SmolStr::new(rng.range(0, u64::from(devices)).to_string());
    Command::SetDeviceCordoned { node, device, cordoned: rng.chance(400) }
}

/// An operator says how the cards of a node shall be used.
pub(super) fn gpu_mode(rng: &mut Rng, node: Name) -> Command {
    let mode =
        *rng.pick(&["whole", "shared", "all-3g.20gb", "3g.20gb-1g.5gb-1g.5gb", "all-1g.5gb", "unknown", ""]);
    let strategy = *rng.pick(&[PartitionStrategy::Mixed, PartitionStrategy::Single]);
    let gpu = (!mode.is_empty()).then(|| NodeGpu { mode: SmolStr::new_static(mode), strategy });
    Command::SetGpuMode { node, gpu }
}
