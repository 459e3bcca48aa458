//! What a new pod gets of the cluster's Profiles, of its namespace, and then of its workload's VerticalPodAutoscaler.
//!
//! It is a part of how a pod comes to be, so it happens where events are applied: whoever creates the pod, and from
//! whatever template, the same rules count, and every replica sees the same profiles.

use std::sync::Arc;

use bulkhead_types::{
    ANNOTATION_NODE_SELECTOR, ANNOTATION_TOLERATIONS_WHITELIST, Container, GuestMemory, Kind, LimitType,
    Name, NamespaceDefaults, PINNED_MEMORY_LEVEL, Pod, PodOptions, PodSpec, Profile, ProfileEffect,
    ProfileRule, Rare, Rejection, RejectionCode, RequestFromLimit, ResourceRequirements, SCORING_LEVEL,
    Shared, StringMap, UpdateMode,
};
use smol_str::SmolStr;

use crate::State;
use crate::quota::ranges_of;
use crate::vertical::{Resized, fit, workload_of};

/// The pod as it comes to be: profiles first, so that what they make of requests and limits is the proportion that a
/// recommendation keeps. Costs nothing while there are neither.
pub(crate) fn admit(state: &State, pod: &Arc<Pod>) -> Arc<Pod> {
    let defaults = namespace_defaults(state, pod);
    if defaults.is_none()
        && !says_of_memory(state, pod)
        && state.profiles.is_empty()
        && state.vertical_pod_autoscalers.is_empty()
        && state.limit_ranges.is_empty()
    {
        return Arc::clone(pod);
    }
    let admitted = with_profiles(state, Pod::clone(pod));
    let admitted = defaults.iter().fold(admitted, with_namespace);
    let admitted = with_limit_defaults(state, admitted);
    let admitted = with_recommendation(state, admitted);
    let mut admitted = with_guest_memory(state, admitted);
    if admitted == **pod {
        return Arc::clone(pod);
    }
    share_with_sibling(state, &mut admitted);
    Arc::new(admitted)
}

/// How the memory of a pod's guest is to be had: pinned where it has devices of the host, of huge pages where it says so. Below
/// that level nothing is said of it.
fn guest_memory(state: &State, pod: &Pod) -> Option<GuestMemory> {
    // Networks are attached by devices as well.
    (state.feature_level() >= PINNED_MEMORY_LEVEL)
        .then(|| GuestMemory::of(&pod.meta.annotations, pod.spec.asks_for_devices()))
}

/// Whether a pod comes with something else than it is to say of its guest's memory.
fn says_of_memory(state: &State, pod: &Pod) -> bool {
    guest_memory(state, pod).is_some_and(|how| how != pod.spec.guest_memory())
}

/// Says of a pod how the memory of its guest is had, whatever who made it said of that.
fn with_guest_memory(state: &State, mut pod: Pod) -> Pod {
    if let Some(how) = guest_memory(state, &pod).filter(|how| *how != pod.spec.guest_memory()) {
        let mut spec = PodSpec::clone(&pod.spec);
        let options = spec.options.get().cloned().unwrap_or_default();
        spec.options =
            Rare::unless_default(PodOptions { guest_memory: Rare::unless_default(how), ..options });
        pod.spec = Shared::new(spec);
    }
    pod
}

/// What a pod's namespace says about where its pods go, if it does. From before that level annotations may be malformed: then
/// they say nothing.
fn namespace_defaults(state: &State, pod: &Pod) -> Option<NamespaceDefaults> {
    if state.feature_level() < SCORING_LEVEL {
        return None;
    }
    let id = state.find(Kind::Namespace, None, pod.meta.namespace.as_ref()?)?;
    let meta = &state.namespaces.get(id)?.meta;
    NamespaceDefaults::are_in(meta).then(|| NamespaceDefaults::of(meta).ok()).flatten()
}

/// Adds a namespace's tolerations, and its node selector to pods that choose among nodes: a DaemonSet has chosen already.
fn with_namespace(mut pod: Pod, defaults: &NamespaceDefaults) -> Pod {
    let mut spec = PodSpec::clone(&pod.spec);
    for toleration in &defaults.tolerations {
        if !spec.tolerations.contains(toleration) {
            spec.tolerations.push(toleration.clone());
        }
    }
    if !is_daemon(&pod) {
        append(&mut spec.node_selector, &defaults.node_selector);
    }
    if spec != *pod.spec {
        pod.spec = Shared::new(spec);
    }
    pod
}

/// Refuses a pod that wants what its namespace does not let its pods have.
///
/// # Errors
/// A toleration that is not on the whitelist, or a node selector that contradicts the namespace's.
pub(crate) fn check_namespace_defaults(state: &State, pod: &Pod) -> Result<(), Rejection> {
    let Some(defaults) = namespace_defaults(state, pod) else { return Ok(()) };
    let (name, namespace) = (&pod.meta.name, pod.meta.namespace.as_ref().map_or("", Name::as_str));
    if let Some(toleration) = defaults.refused(&pod.spec.tolerations) {
        let field = format!("Pod {namespace}/{name}: spec.tolerations");
        let key = if toleration.key.is_empty() { "every taint" } else { toleration.key.as_str() };
        let reason = format!("tolerates {key}, which namespace {namespace} does not let its pods tolerate");
        return Err(Rejection::new(RejectionCode::NotAllowed, field, reason).with_remedy(format!(
            "leave it out, or add it to the namespace's {ANNOTATION_TOLERATIONS_WHITELIST}"
        )));
    }
    let contradicts = |(key, value): &(&SmolStr, &SmolStr)| {
        defaults.node_selector.get(*key).is_some_and(|wanted| wanted != *value)
    };
    if let Some((key, value)) = pod.spec.node_selector.iter().find(contradicts).filter(|_| !is_daemon(pod)) {
        let field = format!("Pod {namespace}/{name}: spec.nodeSelector[{key}]");
        let reason = format!("is {value}, which contradicts the node selector of namespace {namespace}");
        return Err(Rejection::new(RejectionCode::NotAllowed, field, reason)
            .with_remedy(format!("leave it out, or change the namespace's {ANNOTATION_NODE_SELECTOR}")));
    }
    Ok(())
}

/// Whether a namespace says anything of where its pods go.
pub(crate) fn has_namespace_defaults(state: &State, namespace: Option<&Name>) -> bool {
    let id = namespace.and_then(|name| state.find(Kind::Namespace, None, name));
    let meta = id.and_then(|id| state.namespaces.get(id)).map(|namespace| &namespace.meta);
    state.feature_level() >= SCORING_LEVEL && meta.is_some_and(NamespaceDefaults::are_in)
}

fn is_daemon(pod: &Pod) -> bool {
    pod.meta.owner.is_some_and(|owner| owner.kind == Kind::DaemonSet)
}

/// Requests, and limits in proportion, as they are recommended for the pods of its workload.
fn with_recommendation(state: &State, mut pod: Pod) -> Pod {
    if state.vertical_pod_autoscalers.is_empty() {
        return pod;
    }
    let workload = workload_of(state, &pod);
    let vertical = workload.as_ref().and_then(|target| state.vertical_autoscaler_of(target));
    let Some(vertical) = vertical.filter(|one| one.spec.update_mode != UpdateMode::Off) else { return pod };
    let mut spec = PodSpec::clone(&pod.spec);
    for container in &mut spec.containers {
        let Resized { requests, limits } = fit(&vertical.spec, &vertical.status, container);
        (container.requests, container.limits) = (requests, limits);
    }
    if spec != *pod.spec {
        pod.spec = Shared::new(spec);
    }
    pod
}

/// Requests and limits that the namespace's LimitRanges give to containers without: the first of them by name counts.
/// A container with a limit requests that (Kubernetes' rule), so it gets no other request.
fn with_limit_defaults(state: &State, mut pod: Pod) -> Pod {
    if state.limit_ranges.is_empty() {
        return pod;
    }
    let (mut requests, mut limits) = (ResourceRequirements::default(), ResourceRequirements::default());
    for range in ranges_of(state, pod.meta.namespace.as_ref()) {
        for item in range.spec.limits.iter().filter(|item| item.limit_type == LimitType::Container) {
            requests = requests.or(item.default_requests());
            limits = limits.or(item.default_limits());
        }
    }
    if (requests, limits) == Default::default() {
        return pod;
    }
    let mut spec = PodSpec::clone(&pod.spec);
    for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        container.requests = container.requests.or(container.limits).or(requests);
        container.limits = container.limits.or(limits);
    }
    if spec != *pod.spec {
        pod.spec = Shared::new(spec);
    }
    pod
}

/// Adds to a new pod what profiles say and it does not.
fn with_profiles(state: &State, mut pod: Pod) -> Pod {
    if state.profiles.is_empty() {
        return pod;
    }
    let namespace = pod.meta.namespace.as_ref().and_then(|name| state.find(Kind::Namespace, None, name));
    let namespace = namespace.and_then(|id| state.namespaces.get(id));
    let no_labels = StringMap::new();
    let labels = namespace.map_or(&no_labels, |namespace| &namespace.meta.labels);
    let rules = matching(state, labels, &pod.meta.labels);
    if rules.is_empty() {
        return pod;
    }
    for rule in &rules {
        append(&mut pod.meta.labels, &rule.effect.labels);
        append(&mut pod.meta.annotations, &rule.effect.annotations);
    }
    let effects = rules.iter().map(|rule| &rule.effect);
    let spec = effective_spec(&pod.spec, effects, is_daemon(&pod));
    if spec != *pod.spec {
        pod.spec = Shared::new(spec);
    }
    pod
}

/// The rules that are about a pod, in the order in which they count.
fn matching<'a>(state: &'a State, namespace: &StringMap, pod: &StringMap) -> Vec<&'a ProfileRule> {
    let mut profiles: Vec<&Arc<Profile>> = state.profiles.iter().collect();
    profiles.sort_unstable_by_key(|profile| &profile.meta.name);
    let rules = profiles.into_iter().flat_map(|profile| &profile.spec.rules);
    rules.filter(|rule| rule.matches(namespace, pod)).collect()
}

fn append(present: &mut StringMap, more: &StringMap) {
    for (key, value) in more {
        if !present.contains_key(key) {
            present.insert(key.clone(), value.clone());
        }
    }
}

/// The spec with what the effects add to it, the first of them first.
fn effective_spec<'a>(
    spec: &PodSpec,
    effects: impl Iterator<Item = &'a ProfileEffect>,
    is_daemon: bool,
) -> PodSpec {
    let mut spec = spec.clone();
    let mut share = RequestFromLimit::default();
    let mut class = spec.priority_class().cloned();
    for effect in effects {
        if !is_daemon {
            append(&mut spec.node_selector, &effect.node_selector);
        }
        for toleration in &effect.tolerations {
            if !spec.tolerations.contains(toleration) {
                spec.tolerations.push(toleration.clone());
            }
        }
        class = class.or_else(|| effect.priority_class_name.clone());
        share.cpu_percent = share.cpu_percent.or(effect.request_from_limit.cpu_percent);
        share.memory_percent = share.memory_percent.or(effect.request_from_limit.memory_percent);
    }
    if spec.priority_class() != class.as_ref() {
        let options = spec.options.get().cloned().unwrap_or_default();
        spec.options = Rare::some(PodOptions { priority_class: class.into(), ..options });
    }
    if share != RequestFromLimit::default() {
        spec.init_containers.iter_mut().chain(&mut spec.containers).for_each(|c| overcommit(c, share));
    }
    spec
}

/// Requests become a share of the limits; what has no limit stays.
fn overcommit(container: &mut Container, share: RequestFromLimit) {
    // Rounded up: a share of a limit is never a request for nothing.
    let of = |limit: Option<u64>, percent: Option<u32>| {
        let (limit, percent) = (limit?, u128::from(percent?));
        u64::try_from((u128::from(limit) * percent).div_ceil(100)).ok()
    };
    let ResourceRequirements { cpu_millis, memory_bytes, ephemeral_storage_bytes } = container.requests;
    container.requests = ResourceRequirements {
        cpu_millis: of(container.limits.cpu_millis, share.cpu_percent).or(cpu_millis),
        memory_bytes: of(container.limits.memory_bytes, share.memory_percent).or(memory_bytes),
        ephemeral_storage_bytes,
    };
}

/// What is equal in pods of one owner is in memory once.
fn share_with_sibling(state: &State, pod: &mut Pod) {
    // The youngest of them: profiles may have changed since the oldest came.
    let Some(sibling) = pod.meta.owner.and_then(|owner| state.pods_of(owner.id).next_back()) else { return };
    // Not by the digest alone: pods of a StatefulSet's old and new template may differ by where a probe is (`Rare`).
    if sibling.spec == pod.spec {
        pod.spec = sibling.spec.clone();
    }
    for (known, present) in
        [(&sibling.meta.labels, &mut pod.meta.labels), (&sibling.meta.annotations, &mut pod.meta.annotations)]
    {
        if known == present {
            present.clone_from(known);
        }
    }
}
