//! Other sizes for pods that run: larger, smaller, more than a node has, and what cannot be.

use bulkhead_controlplane_core::State;
use bulkhead_types::{Command, ContainerSize, FEATURE_LEVEL_MAX, Object, RESIZE_LEVEL, ResourceRequirements};

use crate::rng::Rng;

/// Amounts of cpu, in thousandths; the last is more than any node has.
const CPU_MILLIS: [u64; 6] = [50, 100, 400, 900, 1500, 1 << 40];
/// Amounts of memory, in MiB.
const MEMORY_MIB: [u64; 5] = [16, 64, 128, 300, 700];

/// The command that a cluster needs first, if it does.
pub(super) fn level(state: &State) -> Option<Command> {
    let is_low = state.feature_level() < RESIZE_LEVEL;
    is_low.then_some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX })
}

/// A resize of some pod that has a node; `None` when there is none.
pub(super) fn command(rng: &mut Rng, state: &State) -> Option<Command> {
    let placed: Vec<_> = state.pods().iter().filter(|pod| pod.node.is_some()).collect();
    if placed.is_empty() {
        return None;
    }
    let pod = placed[rng.range(0, placed.len() as u64 - 1) as usize];
    let sizes = pod.desired_spec().sizes();
    let present = &sizes[rng.range(0, sizes.len() as u64 - 1) as usize];
    let amount = |there: Option<u64>, amount: u64| there.map(|_| amount);
    // What it says now it says with another amount: its QoS class stays.
    let (cpu, memory) = (*rng.pick(&CPU_MILLIS), *rng.pick(&MEMORY_MIB) << 20);
    let of = |said: ResourceRequirements| ResourceRequirements {
        cpu_millis: amount(said.cpu_millis, cpu),
        memory_bytes: amount(said.memory_bytes, memory),
        ephemeral_storage_bytes: None,
    };
    let change = ContainerSize {
        name: present.name.clone(),
        requests: of(present.requests),
        limits: of(present.limits),
    };
    Some(Command::ResizePod { pod: Object::Pod(pod.clone()).object_ref(), containers: vec![change] })
}
