//! What ResourceQuotas, Projects and Departments say of their use. Nothing relies on it: `decide` looks for itself.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::{Command, Name, Object, ObjectId, ObjectStatus, QuotaAmounts, QuotaStatus};

use super::{Queue, Reconciler, View, work_off};
use crate::quota::{department, project, quotas_of};
use crate::state::{QuotaLevel, QuotaUse};
use crate::{Change, ChangeType, State};

/// A level is told no more often than so, in milliseconds.
const TELL_MS: u64 = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    queue: Queue,
    /// How many there are to tell of.
    levels: BTreeSet<ObjectId>,
    /// Namespaces in which something came or went.
    touched: BTreeSet<Name>,
    /// Who belongs to whom changed, or quotas did: all are looked at.
    all: bool,
    /// When each was told last, milliseconds since the epoch.
    told_ms: BTreeMap<ObjectId, u64>,
}

impl Quotas {
    fn note(&mut self, id: ObjectId, gone: bool) {
        if gone {
            self.levels.remove(&id);
            self.told_ms.remove(&id);
            self.queue.forget(id);
        } else {
            self.levels.insert(id);
            self.queue.mark(id);
        }
    }

    /// Marks the levels above what changed.
    fn spread(&mut self, state: &State) {
        let touched = std::mem::take(&mut self.touched);
        if std::mem::take(&mut self.all) {
            self.levels.iter().for_each(|id| self.queue.keep(*id));
            return;
        }
        let levels: BTreeSet<QuotaLevel> = touched.iter().flat_map(|one| state.quota_levels(one)).collect();
        for level in levels {
            match level {
                QuotaLevel::Namespace(name) => {
                    quotas_of(state, &name).for_each(|quota| self.queue.keep(quota.meta.id));
                }
                QuotaLevel::Project(name) => {
                    project(state, &name).into_iter().for_each(|one| self.queue.keep(one.meta.id));
                }
                QuotaLevel::Department(name) => {
                    department(state, &name).into_iter().for_each(|one| self.queue.keep(one.meta.id));
                }
            }
        }
    }
}

impl Reconciler for Quotas {
    fn name(&self) -> &'static str {
        "quota"
    }

    fn reset(&mut self, state: &State) {
        *self = Self::default();
        state.resource_quotas().iter().for_each(|one| self.note(one.meta.id, false));
        state.projects().iter().for_each(|one| self.note(one.meta.id, false));
        state.departments().iter().for_each(|one| self.note(one.meta.id, false));
    }

    fn observe(&mut self, change: &Change) {
        let gone = change.change_type == ChangeType::Deleted;
        match (&change.object, &change.former) {
            (Object::Project(_) | Object::Department(_), former) => {
                self.note(change.object.meta().id, gone);
                let department = |object: &Object| match object {
                    Object::Project(project) => project.spec.department.clone(),
                    _ => None,
                };
                let was = former.as_ref().and_then(department);
                self.all |= gone || was != department(&change.object);
            }
            (Object::Namespace(new), Some(Object::Namespace(old))) if !gone => {
                self.all |= new.meta.labels != old.meta.labels;
            }
            (Object::Pod(new), Some(Object::Pod(old)))
                if !gone
                    && new.status.phase.is_terminal() == old.status.phase.is_terminal()
                    && new.spec == old.spec => {}
            (object, _) => {
                let is_quota = matches!(object, Object::ResourceQuota(_));
                if is_quota {
                    self.note(object.meta().id, gone);
                }
                let counts = change.change_type != ChangeType::Modified || matches!(object, Object::Pod(_));
                if counts && !self.levels.is_empty() {
                    self.touched.extend(object.meta().namespace.clone());
                }
            }
        }
    }

    fn reconcile(&mut self, view: &View<'_>) -> Vec<Command> {
        self.queue.begin(view.now_ms);
        self.spread(view.state);
        work_off(
            self,
            |this| &mut this.queue,
            |this, id, commands| {
                let Some((present, status)) = status_of(view.state, id) else { return };
                let said = quota_status(&status);
                if said == present {
                    return;
                }
                let is_seen = said.hard == present.hard;
                let next_ms = this.told_ms.get(&id).map_or(0, |at_ms| at_ms + TELL_MS);
                if is_seen && view.now_ms < next_ms {
                    this.queue.wake_at(id, next_ms);
                    return;
                }
                this.told_ms.insert(id, view.now_ms);
                commands.push(Command::SetStatus { id, status });
            },
        )
    }

    fn next_wake_ms(&self) -> Option<u64> {
        let has_news = self.all || !self.touched.is_empty();
        if has_news && !self.levels.is_empty() { Some(0) } else { self.queue.next_wake_ms() }
    }
}

fn quota_status(status: &ObjectStatus) -> &QuotaStatus {
    match status {
        ObjectStatus::ResourceQuota(status)
        | ObjectStatus::Project(status)
        | ObjectStatus::Department(status) => status,
        other => unreachable!("a {} is no quota", other.kind()),
    }
}

/// What is said of a level, and what is true.
fn status_of(state: &State, id: ObjectId) -> Option<(&QuotaStatus, ObjectStatus)> {
    if let Some(quota) = state.resource_quotas().get(id) {
        let level = QuotaLevel::Namespace(quota.meta.namespace.clone()?);
        let status = counted(&quota.spec.hard, state.quota_use(&level));
        return Some((&quota.status, ObjectStatus::ResourceQuota(status)));
    }
    if let Some(project) = state.projects().get(id) {
        let level = QuotaLevel::Project(project.meta.name.clone());
        let status = counted(&project.spec.hard, state.quota_use(&level));
        return Some((&project.status, ObjectStatus::Project(status)));
    }
    let department = state.departments().get(id)?;
    let level = QuotaLevel::Department(department.meta.name.clone());
    let status = counted(&department.spec.hard, state.quota_use(&level));
    Some((&department.status, ObjectStatus::Department(status)))
}

fn counted(hard: &QuotaAmounts, used: &QuotaUse) -> QuotaStatus {
    let used = hard.iter().map(|(resource, _)| {
        (resource.clone(), u64::try_from(used.of(resource.measure())).unwrap_or(u64::MAX))
    });
    QuotaStatus { hard: hard.clone(), used: used.collect() }
}
