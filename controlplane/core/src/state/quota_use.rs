//! How much of what every namespace, project and department has: counted change by change.
//!
//! It follows from the objects alone, at every feature level, and is no part of a digest: a State made from a snapshot
//! counts the same.

use std::sync::Arc;

use bulkhead_types::{LABEL_PROJECT, Measure, Name, Namespace, Object, PersistentVolumeClaim, Pod, Project};
use imbl::{OrdMap, OrdSet};

/// Most measures that one object counts for.
const CHARGES_MAX: usize = 8;

/// What one object counts for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    entries: [(Measure, u64); CHARGES_MAX],
    len: usize,
}

impl Charge {
    const NONE: Self = Self { entries: [(Measure::Pods, 0); CHARGES_MAX], len: 0 };

    fn add(&mut self, measure: Measure, amount: u64) {
        if amount > 0 {
            self.entries[self.len] = (measure, amount);
            self.len += 1;
        }
    }

    /// Of an object of a namespace; others count for nothing, and so do ControllerRevisions: no quota names them.
    pub(crate) fn of(object: &Object) -> Self {
        match object {
            Object::Pod(pod) => Self::of_pod(pod),
            Object::PersistentVolumeClaim(claim) => Self::of_claim(claim),
            Object::ControllerRevision(_) => Self::NONE,
            other if other.kind().is_namespaced() => Self::one(Measure::Count(other.kind())),
            _ => Self::NONE,
        }
    }

    /// Of an object of a kind about which nothing but the number is counted.
    pub(crate) fn one(measure: Measure) -> Self {
        let mut charge = Self::NONE;
        charge.add(measure, 1);
        charge
    }

    /// Of a pod. One that has ended is counted as an object only (Kubernetes' rule).
    pub(crate) fn of_pod(pod: &Pod) -> Self {
        let mut charge = Self::one(Measure::Count(bulkhead_types::Kind::Pod));
        if pod.status.phase.is_terminal() {
            return charge;
        }
        let (requests, limits) = (pod.spec.scheduling_request(), pod.spec.limits_with_overhead());
        charge.add(Measure::Pods, 1);
        charge.add(Measure::RequestsCpu, requests.cpu_millis);
        charge.add(Measure::RequestsMemory, requests.memory_bytes);
        charge.add(Measure::RequestsEphemeralStorage, requests.ephemeral_storage_bytes);
        charge.add(Measure::LimitsCpu, limits.cpu_millis);
        charge.add(Measure::LimitsMemory, limits.memory_bytes);
        charge.add(Measure::LimitsEphemeralStorage, limits.ephemeral_storage_bytes);
        charge
    }

    /// Of a claim.
    pub(crate) fn of_claim(claim: &PersistentVolumeClaim) -> Self {
        let (bytes, class) = (claim.spec.storage_bytes, claim.spec.storage_class);
        let mut charge = Self::one(Measure::Count(bulkhead_types::Kind::PersistentVolumeClaim));
        charge.add(Measure::Claims, 1);
        charge.add(Measure::ClassClaims(class), 1);
        charge.add(Measure::RequestsStorage, bytes);
        charge.add(Measure::ClassStorage(class), bytes);
        charge
    }

    /// Each measure with its amount, none of them 0.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Measure, u64)> + '_ {
        self.entries[..self.len].iter().copied()
    }
}

/// Sums by measure. 128 bits, because amounts of single containers go up to 2^53 and no node bounds what waits.
#[derive(Clone, PartialEq, Eq)]
pub struct QuotaUse([u128; Measure::LEN]);

impl Default for QuotaUse {
    fn default() -> Self {
        Self::NONE
    }
}

impl std::fmt::Debug for QuotaUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = Measure::all().map(|measure| (measure.name(), self.of(measure)));
        f.debug_map().entries(entries.filter(|(_, amount)| *amount > 0)).finish()
    }
}

impl QuotaUse {
    /// Nothing.
    pub const NONE: Self = Self([0; Measure::LEN]);

    /// The sum of a measure.
    #[must_use]
    pub fn of(&self, measure: Measure) -> u128 {
        self.0[measure.index()]
    }

    pub(crate) fn add(&mut self, charge: &Charge) {
        charge.iter().for_each(|(measure, amount)| self.0[measure.index()] += u128::from(amount));
    }

    fn subtract(&mut self, charge: &Charge) {
        for (measure, amount) in charge.iter() {
            let sum = &mut self.0[measure.index()];
            *sum = sum.checked_sub(u128::from(amount)).expect("what ends was counted when it came");
        }
    }

    fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, amount)| *sum += amount);
    }

    fn subtract_all(&mut self, other: &Self) {
        for (sum, amount) in self.0.iter_mut().zip(other.0) {
            *sum = sum.checked_sub(amount).expect("a project's use is at least each namespace's");
        }
    }
}

/// Which of the three levels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuotaLevel {
    /// Of this name.
    Namespace(Name),
    /// Of this name, whether or not it exists.
    Project(Name),
    /// Of this name, whether or not it exists.
    Department(Name),
}

/// All sums, and who belongs to whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct QuotaIndex {
    /// No sum is nothing.
    sums: OrdMap<QuotaLevel, Arc<QuotaUse>>,
    project_of: OrdMap<Name, Name>,
    department_of: OrdMap<Name, Name>,
    namespaces_of: OrdMap<Name, OrdSet<Name>>,
    projects_of: OrdMap<Name, OrdSet<Name>>,
}

/// The project that a namespace says it belongs to.
pub(crate) fn project_label(namespace: &Namespace) -> Option<Name> {
    namespace.meta.labels.get(LABEL_PROJECT).and_then(|name| Name::new(name).ok())
}

/// Whether the former and the present self of an object may count for different things.
fn may_differ(former: Option<&Object>, present: Option<&Object>) -> bool {
    match (former, present) {
        (Some(Object::Pod(former)), Some(Object::Pod(present))) => {
            former.status.phase.is_terminal() != present.status.phase.is_terminal()
        }
        (Some(Object::PersistentVolumeClaim(former)), Some(Object::PersistentVolumeClaim(present))) => {
            former.spec != present.spec
        }
        (Some(_), Some(_)) => false,
        _ => true,
    }
}

impl QuotaIndex {
    pub(super) fn sum(&self, level: &QuotaLevel) -> Option<&QuotaUse> {
        self.sums.get(level).map(AsRef::as_ref)
    }

    pub(super) fn namespaces_of(&self, project: &Name) -> impl Iterator<Item = &Name> {
        self.namespaces_of.get(project).into_iter().flatten()
    }

    pub(super) fn projects_of(&self, department: &Name) -> impl Iterator<Item = &Name> {
        self.projects_of.get(department).into_iter().flatten()
    }

    /// Counts an object's present self instead of its former one.
    pub(crate) fn change(&mut self, former: Option<&Object>, present: Option<&Object>) {
        match (former, present) {
            (Some(Object::Namespace(_)), _) | (_, Some(Object::Namespace(_))) => {
                self.change_namespace(as_namespace(former), as_namespace(present));
            }
            (Some(Object::Project(_)), _) | (_, Some(Object::Project(_))) => {
                self.change_project(as_project(former), as_project(present));
            }
            _ if may_differ(former, present) => {
                if let Some(object) = former {
                    self.charge(object, |sum, charge| sum.subtract(charge));
                }
                if let Some(object) = present {
                    self.charge(object, |sum, charge| sum.add(charge));
                }
            }
            _ => {}
        }
    }

    fn charge(&mut self, object: &Object, change: fn(&mut QuotaUse, &Charge)) {
        let Some(namespace) = &object.meta().namespace else { return };
        let charge = Charge::of(object);
        for level in self.levels(namespace) {
            self.change_sum(level, |sum| change(sum, &charge));
        }
    }

    /// A namespace and what is above it, from the bottom up.
    pub(super) fn levels(&self, namespace: &Name) -> impl Iterator<Item = QuotaLevel> + use<> {
        let project = self.project_of.get(namespace).cloned();
        let department = project.as_ref().and_then(|project| self.department_of.get(project)).cloned();
        let above =
            project.map(QuotaLevel::Project).into_iter().chain(department.map(QuotaLevel::Department));
        std::iter::once(QuotaLevel::Namespace(namespace.clone())).chain(above)
    }

    fn change_sum(&mut self, level: QuotaLevel, change: impl FnOnce(&mut QuotaUse)) {
        let sum = self.sums.entry(level.clone()).or_default();
        change(Arc::make_mut(sum));
        if **sum == QuotaUse::NONE {
            self.sums.remove(&level);
        }
    }

    fn change_namespace(&mut self, former: Option<&Namespace>, present: Option<&Namespace>) {
        let Some(name) = former.or(present).map(|namespace| namespace.meta.name.clone()) else { return };
        let (was, is) = (former.and_then(project_label), present.and_then(project_label));
        if was == is {
            return;
        }
        let moved = self.sums.get(&QuotaLevel::Namespace(name.clone())).cloned();
        if let Some(project) = was {
            self.move_from_project(&project, moved.as_deref(), QuotaUse::subtract_all);
            self.project_of.remove(&name);
            take(&mut self.namespaces_of, &project, &name);
        }
        if let Some(project) = is {
            self.move_from_project(&project, moved.as_deref(), QuotaUse::add_all);
            self.namespaces_of.entry(project.clone()).or_default().insert(name.clone());
            self.project_of.insert(name, project);
        }
    }

    fn move_from_project(
        &mut self,
        project: &Name,
        moved: Option<&QuotaUse>,
        change: fn(&mut QuotaUse, &QuotaUse),
    ) {
        let Some(moved) = moved else { return };
        self.change_sum(QuotaLevel::Project(project.clone()), |sum| change(sum, moved));
        if let Some(department) = self.department_of.get(project).cloned() {
            self.change_sum(QuotaLevel::Department(department), |sum| change(sum, moved));
        }
    }

    fn change_project(&mut self, former: Option<&Project>, present: Option<&Project>) {
        let Some(name) = former.or(present).map(|project| project.meta.name.clone()) else { return };
        let department = |project: Option<&Project>| project.and_then(|one| one.spec.department.clone());
        let (was, is) = (department(former), department(present));
        if was == is {
            return;
        }
        let moved = self.sums.get(&QuotaLevel::Project(name.clone())).cloned();
        if let Some(department) = was {
            if let Some(moved) = &moved {
                self.change_sum(QuotaLevel::Department(department.clone()), |sum| sum.subtract_all(moved));
            }
            self.department_of.remove(&name);
            take(&mut self.projects_of, &department, &name);
        }
        if let Some(department) = is {
            if let Some(moved) = &moved {
                self.change_sum(QuotaLevel::Department(department.clone()), |sum| sum.add_all(moved));
            }
            self.projects_of.entry(department.clone()).or_default().insert(name.clone());
            self.department_of.insert(name, department);
        }
    }
}

fn as_namespace(object: Option<&Object>) -> Option<&Namespace> {
    match object {
        Some(Object::Namespace(namespace)) => Some(namespace),
        _ => None,
    }
}

fn as_project(object: Option<&Object>) -> Option<&Project> {
    match object {
        Some(Object::Project(project)) => Some(project),
        _ => None,
    }
}

fn take(sets: &mut OrdMap<Name, OrdSet<Name>>, key: &Name, name: &Name) {
    let Some(set) = sets.get_mut(key) else { return };
    set.remove(name);
    if set.is_empty() {
        sets.remove(key);
    }
}
