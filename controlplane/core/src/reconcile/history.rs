//! ControllerRevisions of StatefulSets and DaemonSets: one per template, and those that nobody needs go.
//!
//! Source: `history.go` of the Kubernetes controllers.

use std::sync::Arc;

use bulkhead_types::{Command, ControllerRevision, Kind, Object, ObjectMeta, OwnerRef, PodTemplate};

use super::{View, names};
use crate::State;
use crate::workload;

/// Names tried for a new ControllerRevision in one run.
const NAME_TRIES: u32 = 16;

/// Whose history it is.
pub(super) struct History<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) owner: OwnerRef,
    pub(super) meta: &'a ObjectMeta,
    pub(super) template: &'a PodTemplate,
    pub(super) limit: u32,
}

/// Whether an owner's namespace ends: then nothing new may be made, and all that is left is the garbage collector's.
pub(super) fn is_doomed(state: &State, owner: &ObjectMeta) -> bool {
    let namespace = owner.namespace.as_ref().and_then(|name| state.find(Kind::Namespace, None, name));
    let namespace = namespace.and_then(|id| state.namespaces().get(id));
    owner.is_deleting() || namespace.is_none_or(|namespace| namespace.meta.is_deleting())
}

impl<'a> History<'a> {
    fn rows(&self) -> impl Iterator<Item = &'a Arc<ControllerRevision>> {
        let state = self.view.state;
        state
            .owned(self.owner.id, Kind::ControllerRevision)
            .filter_map(|id| state.controller_revisions().get(id))
    }

    /// The ControllerRevision of the wanted template. One of before gets the highest number again; a new one is asked
    /// for, with a name that is free: `collision_count` says from which on.
    pub(super) fn sync(
        &self,
        collision_count: &mut u32,
        commands: &mut Vec<Command>,
    ) -> Option<&'a Arc<ControllerRevision>> {
        let state = self.view.state;
        let highest = self.rows().map(|row| row.revision).max().unwrap_or(0);
        if let Some(found) = workload::wanted(state, self.owner.id, self.template) {
            if found.revision < highest {
                let revision = highest + 1;
                commands.push(Command::SetControllerRevision { id: found.meta.id, revision });
            }
            return Some(found);
        }
        let namespace = self.meta.namespace.as_ref();
        for count in (*collision_count..).take(NAME_TRIES as usize) {
            let hash = names::template_hash(self.template, count);
            let name = names::revision_name(&self.meta.name, &hash);
            *collision_count = count;
            if state.find(Kind::ControllerRevision, namespace, &name).is_some() {
                continue;
            }
            let mut meta = ObjectMeta::new(self.meta.namespace.clone(), name);
            meta.labels = self.template.labels.clone();
            let row = ControllerRevision { meta, revision: highest + 1, template: self.template.clone() };
            commands.push(Command::CreateOwned {
                owner: self.owner,
                generation: self.meta.generation,
                object: Object::ControllerRevision(Arc::new(row)),
            });
            return None;
        }
        // All taken: the count is kept in the status, and the next run goes on from there.
        *collision_count = collision_count.saturating_add(1);
        None
    }

    /// The oldest that are beyond the limit go, but for those that `is_live`.
    pub(super) fn clean_up(&self, is_live: impl Fn(&str) -> bool, commands: &mut Vec<Command>) {
        let mut old: Vec<_> = self.rows().filter(|row| !is_live(row.meta.name.as_str())).collect();
        let excess = old.len().saturating_sub(self.limit as usize);
        if excess == 0 {
            return;
        }
        old.sort_by_key(|row| (row.revision, row.meta.id));
        let objects = old[..excess].iter().map(|row| (Kind::ControllerRevision, row.meta.id)).collect();
        commands.push(Command::DeleteOwned { owner: self.owner, objects });
    }
}
