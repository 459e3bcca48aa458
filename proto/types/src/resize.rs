//! In-place resize: cpu and memory of containers change while their pod runs.
//!
//! ```text
//!  ResizePod ─► no room now: Deferred ─┐    never: Infeasible
//!            └► room: taken ───────────┴─► InProgress ─► the agent says that it is so: done
//! ```
//!
//! While a resize is under way `spec` holds, container by container, the larger of what was and of what is wanted: that is
//! what counts on the node and in quotas. What is wanted is in `status.resize`, what is so in `status.actual`.
//!
//! Source: KEP-1287, "Resize CPU and Memory Resources assigned to Containers" in the Kubernetes documentation.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Container, Pod, PodSpec, ResourceRequirements};

/// Most containers that a resize, or a report of one, names.
pub const RESIZED_CONTAINERS_MAX: usize = 256;

/// cpu and memory of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerSize {
    /// Its name.
    pub name: SmolStr,
    /// Its requests; nothing but cpu and memory.
    pub requests: ResourceRequirements,
    /// Its limits; nothing but cpu and memory.
    pub limits: ResourceRequirements,
}

/// Where a resize stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ResizeStage {
    /// Its node has no room now; it is tried again.
    Deferred = 1,
    /// Its node can never do it, or its guest cannot; it is not tried again.
    Infeasible = 2,
    /// Its node has the room, and its agent does it.
    InProgress = 3,
}

/// A resize that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodResize {
    /// What every container shall have, in the order of the spec, sidecars first.
    pub desired: Vec<ContainerSize>,
    /// Where it stands.
    pub stage: ResizeStage,
    /// Why, for people; may be empty.
    pub message: String,
    /// Log time since when it stands there, milliseconds since the epoch.
    pub since_ms: u64,
}

/// What an agent says of the sizes of a pod that was ever resized there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ActualSizes {
    /// What its containers have.
    pub containers: Vec<ContainerSize>,
    /// What they should have and do not, with `reason`; else empty.
    pub wanted: Vec<ContainerSize>,
    /// One CamelCase word on why they do not; empty when nothing is wrong.
    pub reason: SmolStr,
    /// The same for people; may be empty.
    pub message: String,
    /// It is of no use to try again.
    pub refused: bool,
}

/// Which resources of a container cannot change while it runs: it is restarted for them (`resizePolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResizePolicy {
    /// For its cpu.
    pub restart_for_cpu: bool,
    /// For its memory.
    pub restart_for_memory: bool,
}

/// cpu and memory of these amounts, without the rest.
fn sized(amounts: ResourceRequirements) -> ResourceRequirements {
    ResourceRequirements { ephemeral_storage_bytes: None, ..amounts }
}

/// The larger of two, where both say something; what only one says is what it is.
fn larger(a: ResourceRequirements, b: ResourceRequirements) -> ResourceRequirements {
    ResourceRequirements {
        cpu_millis: a.cpu_millis.max(b.cpu_millis),
        memory_bytes: a.memory_bytes.max(b.memory_bytes),
        ephemeral_storage_bytes: None,
    }
}

fn smaller(a: ResourceRequirements, b: ResourceRequirements) -> ResourceRequirements {
    ResourceRequirements {
        cpu_millis: a.cpu_millis.min(b.cpu_millis),
        memory_bytes: a.memory_bytes.min(b.memory_bytes),
        ephemeral_storage_bytes: None,
    }
}

impl ContainerSize {
    /// Of a container.
    #[must_use]
    pub fn of(container: &Container) -> Self {
        let (requests, limits) = (sized(container.requests), sized(container.limits));
        Self { name: container.name.clone(), requests, limits }
    }

    /// What is reserved for it: a missing request equals the limit.
    #[must_use]
    pub fn reserved(&self) -> ResourceRequirements {
        sized(self.requests.or(self.limits))
    }

    /// The larger of two sizes of a container. Requests are said where they would otherwise follow a limit.
    fn larger(&self, other: &Self) -> Self {
        let limits = larger(self.limits, other.limits);
        let requests = larger(self.reserved(), other.reserved());
        // A request that equals its limit need not be said.
        let said = |a: Option<u64>, b: Option<u64>, request: Option<u64>, limit| {
            if a.is_none() && b.is_none() && request == limit { None } else { request }
        };
        let (a, b) = (self.requests, other.requests);
        let requests = ResourceRequirements {
            cpu_millis: said(a.cpu_millis, b.cpu_millis, requests.cpu_millis, limits.cpu_millis),
            memory_bytes: said(a.memory_bytes, b.memory_bytes, requests.memory_bytes, limits.memory_bytes),
            ephemeral_storage_bytes: None,
        };
        Self { name: self.name.clone(), requests, limits }
    }

    /// The smaller of two sizes of a container; what one of them does not say is not said.
    fn smaller(&self, other: &Self) -> Self {
        let requests = smaller(self.reserved(), other.reserved());
        Self { name: self.name.clone(), requests, limits: smaller(self.limits, other.limits) }
    }

    /// This size, where the other says nothing (a partial one).
    #[must_use]
    pub fn changed_by(&self, change: &Self) -> Self {
        let requests = sized(change.requests.or(self.requests));
        Self { name: self.name.clone(), requests, limits: sized(change.limits.or(self.limits)) }
    }
}

/// Container by container the larger of two; `a` says which there are.
#[must_use]
pub fn larger_sizes(a: &[ContainerSize], b: &[ContainerSize]) -> Vec<ContainerSize> {
    let with = |one: &ContainerSize| match b.iter().find(|other| other.name == one.name) {
        Some(other) => one.larger(other),
        None => one.clone(),
    };
    a.iter().map(with).collect()
}

/// Container by container the smaller of two; `a` says which there are.
#[must_use]
pub fn smaller_sizes(a: &[ContainerSize], b: &[ContainerSize]) -> Vec<ContainerSize> {
    let with = |one: &ContainerSize| match b.iter().find(|other| other.name == one.name) {
        Some(other) => one.smaller(other),
        None => one.clone(),
    };
    a.iter().map(with).collect()
}

impl PodSpec {
    /// The sizes of the containers that can be resized: sidecars, then containers, in order.
    #[must_use]
    pub fn sizes(&self) -> Vec<ContainerSize> {
        self.sidecars().chain(&self.containers).map(ContainerSize::of).collect()
    }

    /// The same spec with other sizes; of containers that these do not name the present ones.
    #[must_use]
    pub fn resized(&self, sizes: &[ContainerSize]) -> Self {
        let mut spec = self.clone();
        for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
            let Some(size) = sizes.iter().find(|size| size.name == container.name) else { continue };
            for (present, wanted) in
                [(&mut container.requests, size.requests), (&mut container.limits, size.limits)]
            {
                (present.cpu_millis, present.memory_bytes) = (wanted.cpu_millis, wanted.memory_bytes);
            }
        }
        spec
    }

    /// The pod's class (Kubernetes' rule over cpu and memory of all containers).
    #[must_use]
    pub fn qos_class(&self) -> PodQosClass {
        let all = || self.init_containers.iter().chain(&self.containers);
        let says = |one: &ResourceRequirements| one.cpu_millis.is_some() || one.memory_bytes.is_some();
        if !all().any(|one| says(&one.requests) || says(&one.limits)) {
            return PodQosClass::BestEffort;
        }
        let guaranteed = |one: &Container| {
            let (reserved, limits) = (sized(one.requests.or(one.limits)), sized(one.limits));
            limits.cpu_millis.is_some() && limits.memory_bytes.is_some() && reserved == limits
        };
        if all().all(guaranteed) { PodQosClass::Guaranteed } else { PodQosClass::Burstable }
    }
}

/// Kubernetes' classes of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodQosClass {
    /// Every container has limits of cpu and memory, and requests as much.
    Guaranteed,
    /// Neither.
    Burstable,
    /// Nothing is requested or limited.
    BestEffort,
}

impl Container {
    /// For which resources it is restarted when they change.
    #[must_use]
    pub fn resize_policy(&self) -> ResizePolicy {
        self.options.get().and_then(|options| options.resize_policy.get()).copied().unwrap_or_default()
    }
}

impl Pod {
    /// The resize that is not done, if there is one.
    #[must_use]
    pub fn resize(&self) -> Option<&PodResize> {
        self.status.resize.get()
    }

    /// What its containers shall have in the end: `spec` in Kubernetes' sense.
    #[must_use]
    pub fn desired_spec(&self) -> std::borrow::Cow<'_, PodSpec> {
        match self.resize() {
            Some(resize) => std::borrow::Cow::Owned(self.spec.resized(&resize.desired)),
            None => std::borrow::Cow::Borrowed(&self.spec),
        }
    }

    /// What its containers have: as its agent said, else what they were given.
    #[must_use]
    pub fn actual_sizes(&self) -> Vec<ContainerSize> {
        match self.status.actual.get() {
            Some(actual) => actual.containers.clone(),
            None => self.spec.sizes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerOptions, Rare};

    /// `requests cpu, memory / limits cpu, memory`, `-` for what is not said.
    fn size(text: &str) -> ContainerSize {
        let amounts = |text: &str| {
            let mut words = text.split_whitespace().map(|word| word.parse().ok());
            let (cpu_millis, memory_bytes) = (words.next().expect("cpu"), words.next().expect("memory"));
            ResourceRequirements { cpu_millis, memory_bytes, ephemeral_storage_bytes: None }
        };
        let (requests, limits) = text.split_once('/').expect("a slash");
        ContainerSize { name: "a".into(), requests: amounts(requests), limits: amounts(limits) }
    }

    #[test]
    fn what_is_held_is_the_larger_of_both() {
        let check = |a: &str, b: &str, expected: &str| {
            let both = [larger_sizes(&[size(a)], &[size(b)]), larger_sizes(&[size(b)], &[size(a)])];
            assert_eq!(both, [vec![size(expected)], vec![size(expected)]], "{a} and {b}");
        };
        check("100 10 / 200 20", "150 5 / 160 30", "150 10 / 200 30");
        check("- - / 200 20", "- - / 100 30", "- - / 200 30");
        check("- - / 200 20", "300 - / 400 10", "300 - / 400 20");
        check("50 - / - -", "- - / - -", "50 - / - -");
    }

    #[test]
    fn what_may_have_been_taken_back_is_the_smaller_of_both() {
        let check = |a: &str, b: &str, expected: &str| {
            let both = [smaller_sizes(&[size(a)], &[size(b)]), smaller_sizes(&[size(b)], &[size(a)])];
            assert_eq!(both, [vec![size(expected)], vec![size(expected)]], "{a} and {b}");
        };
        check("100 10 / 200 20", "150 5 / 160 30", "100 5 / 160 20");
        check("- - / 200 20", "300 - / - 10", "200 10 / - 10");
        check("- - / 200 20", "100 - / 200 20", "100 20 / 200 20");
    }

    #[test]
    fn sizes_go_into_a_spec_and_leave_the_rest() {
        let storage = ResourceRequirements { ephemeral_storage_bytes: Some(7), ..Default::default() };
        let container = |name: &str| Container { name: name.into(), limits: storage, ..Container::default() };
        let options = ContainerOptions { sidecar: true, ..ContainerOptions::default() };
        let side = Container { options: Rare::some(options), ..container("side") };
        let spec = PodSpec {
            init_containers: vec![container("init"), side],
            containers: vec![container("a")],
            ..PodSpec::default()
        };
        assert_eq!(spec.sizes().iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["side", "a"]);
        let resized = spec.resized(&[size("1 2 / 3 4")]);
        let limits = resized.containers[0].limits;
        assert_eq!((limits.cpu_millis, limits.ephemeral_storage_bytes), (Some(3), Some(7)));
        assert_eq!(resized.init_containers, spec.init_containers);
        assert_eq!(resized.resized(&spec.sizes()), spec);
        let amounts = ResourceRequirements { memory_bytes: Some(9), ..Default::default() };
        let change = ContainerSize { name: "a".into(), requests: amounts, limits: amounts };
        assert_eq!(size("1 2 / 3 4").changed_by(&change), size("1 9 / 3 9"));
    }

    #[test]
    fn classes_are_those_of_kubernetes() {
        let check = |sizes: &[&str], expected| {
            let spec = PodSpec {
                containers: sizes
                    .iter()
                    .map(|text| Container {
                        requests: size(text).requests,
                        limits: size(text).limits,
                        ..Container::default()
                    })
                    .collect(),
                ..PodSpec::default()
            };
            assert_eq!(spec.qos_class(), expected, "{sizes:?}");
        };
        check(&["- - / - -"], PodQosClass::BestEffort);
        check(&["- - / 1 2", "1 2 / 1 2"], PodQosClass::Guaranteed);
        check(&["- - / 1 2", "- - / - -"], PodQosClass::Burstable);
        check(&["1 2 / 1 3"], PodQosClass::Burstable);
        check(&["- 2 / - -"], PodQosClass::Burstable);
    }
}
