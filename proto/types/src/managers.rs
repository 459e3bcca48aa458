//! Who manages which fields of an object.
//!
//! Source: "Server-Side Apply" in the Kubernetes documentation.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{FieldSet, ObjectMeta, Rare};

/// Longest name of a manager, in bytes (Kubernetes' limit).
pub const MANAGER_BYTES_MAX: usize = 128;
/// Most managers of one object.
pub const MANAGERS_MAX: usize = 16;
/// Most managers of one object that changed it by other ways than apply; the names of more are not kept apart.
pub const UPDATERS_MAX: usize = 8;
/// Most bytes of one manager's fields as text; see [`FieldSet::within`].
pub const FIELDS_BYTES_MAX: usize = 16 << 10;
/// Who manages what managers did of whom there were too many.
pub const MANAGER_OTHERS: &str = "others";
/// Who manages what `scale` sets.
pub const MANAGER_SCALE: &str = "scale";
/// Who manages a size that an autoscaler has set.
pub const MANAGER_AUTOSCALER: &str = "autoscaler";
/// Who manages what commands set that are about a workload's life: stop, pause, suspend, restart.
pub const MANAGER_LIFE: &str = "lifecycle";

/// How a manager came to its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ManagerOperation {
    /// It applied a manifest, and what it does not say any more goes.
    Apply = 1,
    /// It changed them some other way.
    Update = 2,
}

/// One manager of an object's fields.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FieldManager {
    /// Its name.
    pub manager: SmolStr,
    /// How it came to them.
    pub operation: ManagerOperation,
    /// [`FieldSet::text`] of its fields; never empty.
    pub fields: SmolStr,
}

/// Everybody who manages fields of an object, in order of name and operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Managers {
    /// Each of them.
    pub managers: Vec<FieldManager>,
}

impl FieldManager {
    /// Its fields.
    ///
    /// # Panics
    /// When the text is none of a set: conversions let no such thing in.
    #[must_use]
    pub fn set(&self) -> FieldSet {
        FieldSet::parse(&self.fields).expect("what is stored was written by a set")
    }
}

impl Managers {
    fn position(&self, manager: &str, operation: ManagerOperation) -> Result<usize, usize> {
        self.managers.binary_search_by(|m| (m.manager.as_str(), m.operation).cmp(&(manager, operation)))
    }

    /// One manager's fields; nothing when it has none.
    #[must_use]
    pub fn fields_of(&self, manager: &str, operation: ManagerOperation) -> FieldSet {
        self.position(manager, operation).map_or_else(|_| FieldSet::default(), |at| self.managers[at].set())
    }

    /// Sets one manager's fields.
    pub fn set(&mut self, manager: &str, operation: ManagerOperation, fields: FieldSet) {
        let text = SmolStr::from(fields.within(FIELDS_BYTES_MAX).text());
        match (self.position(manager, operation), text.is_empty()) {
            (Ok(at), true) => _ = self.managers.remove(at),
            (Ok(at), false) => self.managers[at].fields = text,
            (Err(_), true) => {}
            (Err(at), false) => {
                let manager = SmolStr::new(manager);
                self.managers.insert(at, FieldManager { manager, operation, fields: text });
            }
        }
    }

    /// Takes paths from everybody of whom `from` is true.
    pub fn take<S: AsRef<str>>(&mut self, paths: &[Vec<S>], from: impl Fn(&FieldManager) -> bool) {
        for manager in self.managers.iter_mut().filter(|m| from(m)) {
            let mut fields = manager.set();
            paths.iter().for_each(|path| fields.remove(path));
            manager.fields = fields.text().into();
        }
        self.managers.retain(|m| !m.fields.is_empty());
    }

    /// Somebody set fields by another way than apply: they are its own now.
    pub fn update<S: AsRef<str>>(&mut self, manager: &str, paths: &[Vec<S>]) {
        self.take(paths, |_| true);
        let mut fields = self.fields_of(manager, ManagerOperation::Update);
        paths.iter().for_each(|path| fields.insert(path));
        self.set(manager, ManagerOperation::Update, fields);
        self.gather_updaters();
    }

    /// What too many managers changed becomes that of one.
    fn gather_updaters(&mut self) {
        let is_gathered = |m: &FieldManager| {
            m.operation == ManagerOperation::Update
                && ![MANAGER_SCALE, MANAGER_AUTOSCALER, MANAGER_LIFE].contains(&m.manager.as_str())
        };
        if self.managers.iter().filter(|m| is_gathered(m)).count() <= UPDATERS_MAX {
            return;
        }
        let (gathered, kept) =
            std::mem::take(&mut self.managers).into_iter().partition::<Vec<_>, _>(is_gathered);
        self.managers = kept;
        let all = gathered.iter().fold(FieldSet::default(), |all, m| all.union(&m.set()));
        self.set(MANAGER_OTHERS, ManagerOperation::Update, all);
    }
}

impl ObjectMeta {
    /// Everybody who manages its fields after a command set `path`; `None` when that changes nothing.
    #[must_use]
    pub fn managers_after(&self, manager: &str, path: &[&str]) -> Option<Managers> {
        let present = self.managers.get().cloned().unwrap_or_default();
        let mut managers = present.clone();
        managers.update(manager, &[path.to_vec()]);
        (managers != present).then_some(managers)
    }

    /// What an edit is decided on: it may only be applied to an object of which this is still the same.
    #[must_use]
    pub fn edit_digest(&self) -> u128 {
        crate::digest128(&(self.id, self.generation, &self.labels, &self.annotations, &self.managers))
    }

    /// Sets who manages its fields.
    pub fn set_managers(&mut self, managers: Managers) {
        self.managers = Rare::unless_default(managers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(paths: &[&str]) -> FieldSet {
        let mut set = FieldSet::default();
        paths.iter().for_each(|path| set.insert(&path.split('.').collect::<Vec<_>>()));
        set
    }

    fn show(managers: &Managers) -> Vec<String> {
        managers.managers.iter().map(|m| format!("{} {:?} {}", m.manager, m.operation, m.fields)).collect()
    }

    #[test]
    fn who_sets_a_field_has_it_alone() {
        let mut managers = Managers::default();
        managers.set("cli", ManagerOperation::Apply, fields(&["spec.replicas", "spec.paused"]));
        managers.update(MANAGER_SCALE, &[vec!["spec", "replicas"]]);
        assert_eq!(show(&managers), ["cli Apply spec{paused}", "scale Update spec{replicas}"]);
        managers.update(MANAGER_LIFE, &[vec!["spec", "paused"]]);
        assert_eq!(show(&managers), ["lifecycle Update spec{paused}", "scale Update spec{replicas}"]);
    }

    #[test]
    fn there_are_never_many_who_update() {
        let mut managers = Managers::default();
        for n in 0..100 {
            managers.update(&format!("tool-{n:03}"), &[vec!["spec".to_owned(), format!("field{n}")]]);
            assert!(managers.managers.len() <= UPDATERS_MAX, "{:?}", show(&managers));
        }
        assert!(managers.fields_of(MANAGER_OTHERS, ManagerOperation::Update).touches(&["spec", "field0"]));
    }
}
