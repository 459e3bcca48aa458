//! Who manages a field that a command sets: apply leaves it alone from then on, unless it is told to take it over.

use bulkhead_types::{EventKind, Kind, ObjectMeta, WORKLOADS_LEVEL};

use super::Emit;
use crate::State;

/// Notes that a command set one field, when the cluster's level lets it.
pub(super) fn manage(
    state: &State,
    kind: Kind,
    meta: &ObjectMeta,
    manager: &str,
    path: &[&str],
    emit: &mut Emit<'_>,
) {
    if state.feature_level() < WORKLOADS_LEVEL {
        return;
    }
    if let Some(managers) = meta.managers_after(manager, path) {
        emit.push(EventKind::ManagersChanged { kind, id: meta.id, managers });
    }
}
