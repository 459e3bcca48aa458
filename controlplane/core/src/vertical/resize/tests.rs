use bulkhead_types::{
    ContainerRecommendation, ContainerResourcePolicy, ContainerScalingMode, ControlledValues, Name,
    ScaleTarget,
};
use proptest::prelude::*;

use super::*;

fn amounts(cpu_millis: impl Into<Option<u64>>, memory_bytes: impl Into<Option<u64>>) -> ResourceRequirements {
    ResourceRequirements {
        cpu_millis: cpu_millis.into(),
        memory_bytes: memory_bytes.into(),
        ephemeral_storage_bytes: None,
    }
}

fn container(requests: ResourceRequirements, limits: ResourceRequirements) -> Container {
    Container { name: "app".into(), requests, limits, ..Container::default() }
}

fn policy() -> ContainerResourcePolicy {
    ContainerResourcePolicy {
        container: "app".into(),
        mode: ContainerScalingMode::Auto,
        min_allowed: amounts(None, None),
        max_allowed: amounts(None, None),
        controlled_resources: RECOMMENDED_RESOURCES.to_vec(),
        controlled_values: ControlledValues::RequestsAndLimits,
    }
}

fn spec(policies: Vec<ContainerResourcePolicy>) -> VerticalAutoscalerSpec {
    let name = Name::new("web").expect("a name");
    let target = ScaleTarget { kind: Kind::Deployment, name };
    VerticalAutoscalerSpec { target, update_mode: UpdateMode::Auto, min_replicas: 2, policies }
}

fn recommended(cpu: u64, memory: u64) -> VerticalAutoscalerStatus {
    let estimate = |target| Some(ResourceEstimate { lower: target / 2, target, upper: target * 2 });
    let one = ContainerRecommendation {
        container: "app".into(),
        cpu_millis: estimate(cpu),
        memory_bytes: estimate(memory),
        samples: 10,
    };
    VerticalAutoscalerStatus { containers: vec![one], ..VerticalAutoscalerStatus::default() }
}

/// Requests and limits (cpu, memory) of a container for which 300 of cpu and 900 of memory are recommended.
fn check(
    change: impl Fn(&mut ContainerResourcePolicy),
    before: [(Option<u64>, Option<u64>); 2],
    after: [(Option<u64>, Option<u64>); 2],
) {
    let mut policy = policy();
    change(&mut policy);
    let [requests, limits] = before.map(|(cpu, memory)| amounts(cpu, memory));
    let found = fit(&spec(vec![policy]), &recommended(300, 900), &container(requests, limits));
    let [requests, limits] = after.map(|(cpu, memory)| amounts(cpu, memory));
    assert_eq!(found, Resized { requests, limits }, "{before:?}");
}

#[test]
fn requests_are_what_is_recommended_and_limits_keep_their_proportion() {
    let none = (None, None);
    let as_it_is = |_: &mut ContainerResourcePolicy| ();
    let got = (Some(300), Some(900));
    check(as_it_is, [none, none], [got, none]);
    check(as_it_is, [(Some(100), Some(100)), none], [got, none]);
    check(as_it_is, [(Some(100), Some(100)), (Some(200), Some(150))], [got, (Some(600), Some(1350))]);
    // A missing request equals the limit.
    check(as_it_is, [none, (Some(200), Some(150))], [got, got]);
    // Of a request for nothing there is no proportion.
    check(as_it_is, [(Some(0), Some(0)), (Some(200), Some(5000))], [got, (Some(300), Some(5000))]);
}

#[test]
fn policies_hold() {
    let (none, small) = ((None, None), (Some(100), Some(100)));
    let bounded = |policy: &mut ContainerResourcePolicy| {
        policy.min_allowed = amounts(400, None);
        policy.max_allowed = amounts(None, 700);
    };
    check(bounded, [small, none], [(Some(400), Some(700)), none]);
    let only_cpu = |policy: &mut ContainerResourcePolicy| {
        policy.controlled_resources = vec![MeasuredResource::Cpu];
    };
    check(only_cpu, [small, small], [(Some(300), Some(100)), (Some(300), Some(100))]);
    check(|policy| policy.mode = ContainerScalingMode::Off, [small, small], [small, small]);
    check(|policy| policy.container = "other".into(), [small, none], [(Some(300), Some(900)), none]);
    let only_requests = |policy: &mut ContainerResourcePolicy| {
        policy.controlled_values = ControlledValues::RequestsOnly;
    };
    let limits = (Some(200), Some(5000));
    check(only_requests, [small, limits], [(Some(200), Some(900)), limits]);
    check(|policy| policy.container = "*".into(), [small, none], [(Some(300), Some(900)), none]);
}

proptest! {
    /// What fits once fits: a pod is never replaced by one like it.
    #[test]
    fn what_fits_stays(
        cpu in 1u64..1_000_000, memory in 1u64..1 << 40, requests in any::<[Option<u32>; 2]>(),
        limits in any::<[Option<u32>; 2]>(), only_requests in any::<bool>(),
    ) {
        let [requests, limits] = [requests, limits].map(|[a, b]| amounts(a.map(u64::from), b.map(u64::from)));
        let mut policy = policy();
        if only_requests {
            policy.controlled_values = ControlledValues::RequestsOnly;
        }
        let (spec, status) = (spec(vec![policy]), recommended(cpu, memory));
        let once = fit(&spec, &status, &container(requests, limits));
        let twice = fit(&spec, &status, &container(once.requests, once.limits));
        prop_assert_eq!(once, twice);
        for resource in RECOMMENDED_RESOURCES {
            let (request, limit) = (resource_of(once.requests, resource), resource_of(once.limits, resource));
            prop_assert!(limit.is_none_or(|limit| request.is_some_and(|request| request <= limit)));
        }
    }
}
