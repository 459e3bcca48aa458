//! Rules for PodDisruptionBudgets.

use super::{Path, Report, workload};
use crate::{DisruptionBound, DisruptionBudgetSpec, IntOrPercent, REPLICAS_MAX};

/// Checks what is wanted of a budget.
pub(super) fn budget(spec: &DisruptionBudgetSpec, path: &Path<'_>, report: &mut Report) {
    let (field, bound) = match spec.bound {
        DisruptionBound::MinAvailable(bound) => ("minAvailable", bound),
        DisruptionBound::MaxUnavailable(bound) => ("maxUnavailable", bound),
    };
    match bound {
        IntOrPercent::Percent(percent) if percent > 100 => {
            report.push(&path.field(field), "must be at most 100%");
        }
        IntOrPercent::Int(count) if count > REPLICAS_MAX => {
            report.push(&path.field(field), format!("must be at most {REPLICAS_MAX}"));
        }
        IntOrPercent::Int(_) | IntOrPercent::Percent(_) => {}
    }
    workload::requirements(&spec.selector, &path.field("selector"), report);
}
