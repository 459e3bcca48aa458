//! The last thing on a small cluster: one workload takes all the room that is left, and is rolled out once more. The
//! rollout has no room to spare and must end all the same.

use std::sync::Arc;

use bulkhead_types::{
    Command, Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, IntOrPercent, Kind,
    LabelSelector, Name, Node, Object, ObjectMeta, ObjectRef, PodSpec, PodTemplate, RestartPolicy, Shared,
    StringMap,
};
use smol_str::SmolStr;

use crate::invariants::{Verdict, ensure};
use crate::rng::Rng;
use crate::workload::{pod_spec, submission};
use crate::world::World;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filling {
    /// It has not begun, and begins when all else is at rest.
    Waits,
    /// The workload is there.
    Filled,
    /// It is rolled out once more.
    Rolled,
    /// There is nothing to do, or nothing left to do.
    Over,
}

fn reference() -> ObjectRef {
    let name = |text| Name::new(text).expect("the simulation makes valid names");
    ObjectRef { kind: Kind::Deployment, namespace: Some(name("default")), name: name("fill") }
}

/// A Deployment whose rollouts may always take a pod down.
fn deployment(rng: &mut Rng, replicas: u32, spec: PodSpec) -> Deployment {
    let ObjectRef { namespace, name, .. } = reference();
    let labels: StringMap = [(SmolStr::new_static("app"), SmolStr::new_static("fill"))].into();
    let strategy = DeploymentStrategy::RollingUpdate {
        max_surge: IntOrPercent::Int(rng.range(0, 2) as u32),
        max_unavailable: IntOrPercent::Int((replicas / 4).max(1)),
    };
    let template =
        PodTemplate { labels: labels.clone(), annotations: StringMap::new(), spec: Shared::new(spec) };
    let spec = DeploymentSpec {
        replicas,
        selector: LabelSelector { match_labels: labels, match_expressions: Vec::new() },
        template,
        strategy,
        min_ready_ms: 0,
        progress_deadline_ms: 60_000,
        revision_history_limit: 1,
        paused: false,
    };
    Deployment { meta: ObjectMeta::new(namespace, name), spec, status: DeploymentStatus::default() }
}

impl World {
    /// All is at rest, and the first client has nothing to do: the next step is taken.
    pub(crate) fn fill_on(&mut self) {
        let command = match self.filling {
            Filling::Waits => match self.free_places() {
                0 => None,
                free => {
                    let spec = pod_spec(&mut self.operator_rng, RestartPolicy::Always, "fill:1");
                    let deployment = deployment(&mut self.operator_rng, free, spec);
                    Some((Filling::Filled, Command::Apply(Object::Deployment(Arc::new(deployment)))))
                }
            },
            Filling::Filled => {
                let restarted_at = SmolStr::new_static("full");
                let command = Command::RestartRollout { deployment: reference(), restarted_at };
                Some((Filling::Rolled, command))
            }
            Filling::Rolled | Filling::Over => None,
        };
        let Some((next, command)) = command else {
            self.filling = Filling::Over;
            return;
        };
        (self.filling, self.calm_since_us, self.awaited_since_us) = (next, None, self.now_us);
        let stamped = submission(&mut self.operator_rng, 0, vec![command]);
        self.begin(0, Some(stamped));
    }

    /// How many more pods the nodes may have.
    fn free_places(&self) -> u32 {
        let state = self.chronicle.state();
        let free =
            |node: &Node| node.status.facts.pods_max.saturating_sub(state.node_usage(node.meta.id).pods);
        state.nodes().iter().map(|node| free(node)).sum()
    }

    /// The rollout on the full cluster has ended, if it began.
    pub(crate) fn check_filling(&self) -> Verdict {
        let Some(Object::Deployment(deployment)) = self.chronicle.state().find_object(&reference()) else {
            return Ok(());
        };
        if self.filling == Filling::Rolled { has_ended(&deployment) } else { Ok(()) }
    }
}

/// Checks that a rollout has ended.
fn has_ended(deployment: &Deployment) -> Verdict {
    let (status, wanted) = (&deployment.status, deployment.spec.replicas);
    let ended = status.observed_generation == deployment.meta.generation
        && [status.replicas, status.updated_replicas, status.available_replicas] == [wanted; 3];
    ensure(ended, "progress", || {
        format!("the rollout on a full cluster has not ended: {wanted} are wanted, it is at {status:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_that_stands_still_is_noticed() {
        let mut rolled = deployment(&mut Rng::child(1, "test", 0), 3, PodSpec::default());
        let counts = |replicas, updated_replicas, available_replicas| DeploymentStatus {
            observed_generation: 2,
            replicas,
            updated_replicas,
            available_replicas,
            ..DeploymentStatus::default()
        };
        rolled.meta.generation = 2;
        let mut check = |status, good| {
            rolled.status = status;
            let verdict = has_ended(&rolled);
            assert_eq!(verdict.is_ok(), good, "{verdict:?}");
        };
        check(counts(3, 3, 3), true);
        check(counts(4, 1, 3), false);
        check(counts(3, 3, 2), false);
        check(DeploymentStatus { observed_generation: 1, ..counts(3, 3, 3) }, false);
    }
}
