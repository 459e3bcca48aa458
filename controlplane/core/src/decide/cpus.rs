//! CPUs that pods want for themselves: what can be known when a pod or template is created or changed.

use bulkhead_types::{NUMA_LEVEL, Object, PodSpec, Rejection, RejectionCode, StringMap, cpu_needs};

use crate::State;

/// Refuses pods and templates whose labels and annotations ask for CPUs in a way that no node could ever meet.
pub(super) fn check(state: &State, object: &Object) -> Result<(), Rejection> {
    if state.feature_level() < NUMA_LEVEL {
        return Ok(());
    }
    let Some((path, labels, annotations, spec)) = pods_of(object) else { return Ok(()) };
    let Err(problem) = cpu_needs(labels, annotations, spec) else { return Ok(()) };
    let field = format!("{}: {path}{}", object.object_ref(), problem.field);
    Err(Rejection::new(RejectionCode::Invalid, field, problem.reason).with_remedy(problem.remedy))
}

/// The pod that an object is or makes: where it stands, its labels, annotations and spec.
fn pods_of(object: &Object) -> Option<(&'static str, &StringMap, &StringMap, &PodSpec)> {
    const TEMPLATE: &str = "spec.template.";
    let (path, template) = match object {
        Object::Pod(pod) => return Some(("", &pod.meta.labels, &pod.meta.annotations, &pod.spec)),
        Object::ReplicaSet(one) => (TEMPLATE, &one.spec.template),
        Object::Deployment(one) => (TEMPLATE, &one.spec.template),
        Object::StatefulSet(one) => (TEMPLATE, &one.spec.template),
        Object::DaemonSet(one) => (TEMPLATE, &one.spec.template),
        Object::Job(one) => (TEMPLATE, &one.spec.template),
        Object::CronJob(one) => ("spec.jobTemplate.spec.template.", &one.spec.job_template.spec.template),
        _ => return None,
    };
    Some((path, &template.labels, &template.annotations, &template.spec))
}
