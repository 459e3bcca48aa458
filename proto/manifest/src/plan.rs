//! What an apply, or another edit, makes of what is there: the decision, before anybody submits it.
//!
//! ```text
//!  document ─┬─► fields that it says ───────────────────┐
//!            └─► over what is there, without what       ├─► conflicts, or managers
//!                its manager no longer says ─► decode ──┘       └─► Planned
//! ```
//!
//! Source: "Server-Side Apply" in the Kubernetes documentation.

use bulkhead_types::{
    FIELD_ITSELF, FieldPath, FieldSet, MANAGER_BYTES_MAX, ManagerOperation, Managers, Name, Object,
    ObjectRef, show_path,
};
use serde_json::Value;

use crate::tree::{self, Node};
use crate::{ManifestError, Names, Parsed, Source, decode, error, fields, merge, to_value};

/// Who edits, and how.
#[derive(Clone, Copy, Debug)]
pub struct Edit<'a> {
    /// The manager's name; 1 to [`MANAGER_BYTES_MAX`] bytes.
    pub manager: &'a str,
    /// How documents change what is there.
    pub mode: EditMode,
}

/// How a document changes what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditMode {
    /// It says what its manager wants; everything else is left alone.
    Apply {
        /// Whether to take over what others manage and have otherwise.
        force: bool,
    },
    /// It is the whole object.
    Replace,
}

/// One object as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The object with its managers, and where it stood.
    pub parsed: Parsed,
    /// [`bulkhead_types::ObjectMeta::edit_digest`] of what was there.
    pub seen: Option<u128>,
}

/// A field that somebody else manages, and has otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldConflict {
    /// The object.
    pub object: ObjectRef,
    /// The field's path.
    pub field: String,
    /// Who manages it.
    pub manager: String,
}

/// Why nothing is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// Mistakes in the documents.
    Mistakes(Vec<ManifestError>),
    /// Fields that others manage.
    Conflicts(Vec<FieldConflict>),
}

/// What becomes of `present` by the documents of all files. `present` says what is there.
///
/// # Errors
/// Every mistake, or every conflict of every object.
pub fn plan(
    files: &[Source],
    default_namespace: Option<&Name>,
    edit: Edit<'_>,
    present: &dyn Fn(&ObjectRef) -> Option<Object>,
) -> Result<Vec<Planned>, PlanError> {
    let (mut parsed, mut planned, mut errors, mut conflicts) = (vec![], vec![], vec![], vec![]);
    for source in files {
        let (documents, syntax) = tree::read(source);
        errors.extend(syntax);
        for document in &documents {
            decode::each_object(document, &source.name, &mut errors, &mut |root, prefix, errors| {
                let reference = decode::reference(root, default_namespace);
                let present = reference.as_ref().and_then(present);
                let merge = Merge::new(edit, present.as_ref(), root, default_namespace);
                let decoded = decode::one(&merge.root, &source.name, prefix, default_namespace, errors);
                let Some(mut one) = decoded else { return };
                parsed.push(one.clone());
                if !errors.is_empty() {
                    return;
                }
                match merge.settle(&one.object) {
                    Ok(managers) => {
                        let seen = present.as_ref().map(|present| present.meta().edit_digest());
                        one.object.meta_mut().set_managers(managers);
                        planned.push(Planned { parsed: one, seen });
                    }
                    Err(found) => conflicts.extend(found),
                }
            });
        }
    }
    decode::refuse_repeated(&parsed, &mut errors);
    check_manager(edit.manager, &mut errors);
    match (errors.is_empty(), conflicts.is_empty()) {
        (false, _) => Err(PlanError::Mistakes(error::arrange(errors, files))),
        (true, false) => Err(PlanError::Conflicts(conflicts)),
        (true, true) => Ok(planned),
    }
}

/// Who manages a whole object's fields after an edit that is no apply: what changed is the editor's.
#[must_use]
pub fn managers_after(present: &Object, wanted: &Object, manager: &str) -> Managers {
    let mut managers = present.meta().managers.get().cloned().unwrap_or_default();
    let (mut set, mut gone): (Vec<FieldPath>, Vec<FieldPath>) = Default::default();
    let (before, after) = (shown(present), shown(wanted));
    fields::differing(&before, &after, "", &mut Vec::new(), &mut |path, stays| {
        if stays { &mut set } else { &mut gone }.push(path.clone());
    });
    managers.take(&gone, |_| true);
    managers.update(manager, &set);
    managers
}

fn check_manager(manager: &str, errors: &mut Vec<ManifestError>) {
    if manager.is_empty() || manager.len() > MANAGER_BYTES_MAX || manager.chars().any(char::is_control) {
        let reason =
            format!("the field manager must have 1 to {MANAGER_BYTES_MAX} bytes, and only what prints");
        let (file, path) = (String::new(), String::new());
        errors.push(ManifestError { file, line: 0, column: 0, path, reason });
    }
}

/// An object as users may set it.
fn shown(object: &Object) -> Value {
    let names = Names { cluster_id: None, name_of: &|_, _| None };
    fields::editable(&to_value(object, names))
}

/// One document on its way over what is there.
struct Merge<'a> {
    edit: Edit<'a>,
    present: Option<&'a Object>,
    managers: Managers,
    said: FieldSet,
    /// What shall be read.
    root: Node,
}

impl<'a> Merge<'a> {
    fn new(
        edit: Edit<'a>,
        present: Option<&'a Object>,
        document: &Node,
        default_namespace: Option<&Name>,
    ) -> Self {
        let managers = present.and_then(|p| p.meta().managers.get().cloned()).unwrap_or_default();
        let mut merge =
            Self { edit, present, managers, said: merge::fields_of(document), root: document.clone() };
        if let (Some(present), EditMode::Apply { .. }) = (present, edit.mode) {
            let is_complete = || {
                let mut errors = Vec::new();
                let read = decode::one(document, "", String::new(), default_namespace, &mut errors);
                read.is_some() && errors.is_empty()
            };
            merge.root = merge.merged(present, document, &is_complete);
        }
        merge
    }

    /// What all others manage.
    fn others(&self) -> FieldSet {
        let own = |m: &&bulkhead_types::FieldManager| {
            m.manager == self.edit.manager && m.operation == ManagerOperation::Apply
        };
        let others = self.managers.managers.iter().filter(|m| !own(m));
        others.fold(FieldSet::default(), |all, m| all.union(&m.set()))
    }

    fn merged(&self, present: &Object, document: &Node, is_complete: &dyn Fn() -> bool) -> Node {
        let value = shown(present);
        let others = self.others();
        let applied = |m: &bulkhead_types::FieldManager| m.operation == ManagerOperation::Apply;
        // Who applies a whole manifest to what nobody has applied so far takes it over.
        let former = if !self.managers.managers.iter().any(applied) && is_complete() {
            fields::all(&value)
        } else {
            self.managers.fields_of(self.edit.manager, ManagerOperation::Apply)
        };
        let mut base = Node::of_value(&value, document.place);
        merge::prune(&mut base, "", &former, &self.said.clone().union(&others));
        let mut merged = merge::overlay(&base, document, "");
        merge::drop_parts_of_other_types(&mut merged, &self.said, &others);
        merged
    }

    /// Who manages what when the document has become `object`.
    fn settle(self, object: &Object) -> Result<Managers, Vec<FieldConflict>> {
        let EditMode::Apply { force } = self.edit.mode else {
            return Ok(self.present.map_or(self.managers, |p| managers_after(p, object, self.edit.manager)));
        };
        let (mut managers, said) = (self.managers, self.said);
        let is_other = |m: &bulkhead_types::FieldManager| m.manager != self.edit.manager;
        if let Some(present) = self.present {
            let (before, after) = (shown(present), shown(object));
            let mut changed = said.paths();
            // A map itself has no value that two could disagree on.
            changed.retain(|path| path.last().is_none_or(|step| step != FIELD_ITSELF));
            changed.retain(|path| fields::at(&before, path) != fields::at(&after, path));
            let mut conflicts = Vec::new();
            for other in managers.managers.iter().filter(|m| is_other(m) && !force) {
                let theirs = other.set();
                for path in changed.iter().filter(|path| theirs.touches(path)) {
                    conflicts.push(FieldConflict {
                        object: object.object_ref(),
                        field: show_path(path),
                        manager: other.manager.to_string(),
                    });
                }
            }
            if !conflicts.is_empty() {
                return Err(conflicts);
            }
            managers.take(&changed, |_| true);
        }
        managers.set(self.edit.manager, ManagerOperation::Apply, said);
        Ok(managers)
    }
}
