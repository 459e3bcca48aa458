//! What is promised below a level is never more than the level has.

use bulkhead_types::{Measure, Name, Object, ObjectRef, QuotaAmounts, Rejection, RejectionCode};

use super::{department, project, quotas_of};
use crate::State;
use crate::state::{QuotaLevel, QuotaUse};

/// A sum above what its level has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    measure: Measure,
    sum: u128,
    hard: u64,
}

/// What a namespace may have of a measure: the lowest of its quotas.
fn of_namespace(state: &State, namespace: &Name, measure: &Measure) -> Option<u64> {
    quotas_of(state, namespace).filter_map(|quota| quota.spec.hard.of(measure)).min()
}

/// Whether nothing new may come into a namespace: what it was promised is free again.
fn is_ending(state: &State, namespace: &Name) -> bool {
    let id = state.find(bulkhead_types::Kind::Namespace, None, namespace);
    id.and_then(|id| state.namespaces.get(id)).is_none_or(|namespace| namespace.meta.is_deleting())
}

fn first_above(hard: &QuotaAmounts, sum: impl Fn(&Measure) -> u128) -> Option<Exceeded> {
    hard.measures().find_map(|measure| {
        let hard = hard.of(measure)?;
        let sum = sum(measure);
        (sum > u128::from(hard)).then_some(Exceeded { measure: measure.clone(), sum, hard })
    })
}

fn above_in_project(state: &State, name: &Name) -> Option<Exceeded> {
    let hard = &project(state, name)?.spec.hard;
    first_above(hard, |measure| {
        let namespaces = state.namespaces_of(name).filter(|namespace| !is_ending(state, namespace));
        namespaces.map(|one| u128::from(of_namespace(state, one, measure).unwrap_or(0))).sum()
    })
}

fn above_in_department(state: &State, name: &Name) -> Option<Exceeded> {
    let hard = &department(state, name)?.spec.hard;
    first_above(hard, |measure| {
        let projects = state.projects_of(name).filter_map(|name| project(state, name));
        projects.map(|project| u128::from(project.spec.hard.of(measure).unwrap_or(0))).sum()
    })
}

/// The projects and departments below which more is promised than they have: none, always.
pub(crate) fn exceeded_sums(state: &State) -> Vec<ObjectRef> {
    let projects = state.projects.iter().filter(|one| above_in_project(state, &one.meta.name).is_some());
    let projects = projects.map(|one| Object::Project(one.clone()).object_ref());
    let departments =
        state.departments.iter().filter(|one| above_in_department(state, &one.meta.name).is_some());
    projects.chain(departments.map(|one| Object::Department(one.clone()).object_ref())).collect()
}

/// Refuses a State in which more would be promised below a level than it has. `field` is what is being changed.
pub(crate) fn check_sums<'l>(
    scratch: &State,
    levels: impl IntoIterator<Item = &'l QuotaLevel>,
    field: &str,
) -> Result<(), Rejection> {
    for level in levels {
        let (above, who, whose) = match level {
            QuotaLevel::Namespace(_) => continue,
            QuotaLevel::Project(name) => {
                (above_in_project(scratch, name), format!("Project {name}"), "quotas of its namespaces")
            }
            QuotaLevel::Department(name) => {
                (above_in_department(scratch, name), format!("Department {name}"), "quotas of its projects")
            }
        };
        let Some(Exceeded { measure, sum, hard }) = above else { continue };
        let sum = measure.format_amount(u64::try_from(sum).unwrap_or(u64::MAX));
        let reason = format!(
            "would make the {whose} {sum} of {} together, and {who} has {}",
            measure.name(),
            measure.format_amount(hard)
        );
        return Err(Rejection::new(RejectionCode::NotAllowed, field, reason)
            .with_remedy(format!("give less, lower others, or raise {who} first")));
    }
    Ok(())
}

/// Refuses a State in which something that moves there takes a level above what it has.
pub(crate) fn check_moved<'l>(
    scratch: &State,
    levels: impl IntoIterator<Item = &'l QuotaLevel>,
    moved: &QuotaUse,
    field: &str,
) -> Result<(), Rejection> {
    for level in levels {
        let (hard, who) = match level {
            QuotaLevel::Namespace(_) => continue,
            QuotaLevel::Project(name) => {
                (project(scratch, name).map(|one| &one.spec.hard), format!("Project {name}"))
            }
            QuotaLevel::Department(name) => {
                (department(scratch, name).map(|one| &one.spec.hard), format!("Department {name}"))
            }
        };
        let Some(hard) = hard else { continue };
        let used = scratch.quota_use(level);
        let comes = |measure: &Measure| if moved.of(measure) == 0 { 0 } else { used.of(measure) };
        let Some(Exceeded { measure, sum, hard }) = first_above(hard, comes) else { continue };
        let show = |amount: u128| measure.format_amount(u64::try_from(amount).unwrap_or(u64::MAX));
        let reason = format!(
            "what is there already does not fit in {who}: {}: {} would come, {} of {} left",
            measure.name(),
            show(moved.of(&measure)),
            show(u128::from(hard).saturating_sub(sum - moved.of(&measure))),
            show(u128::from(hard))
        );
        return Err(Rejection::new(RejectionCode::NotAllowed, field, reason)
            .with_remedy("end some of it first, or raise that quota"));
    }
    Ok(())
}
