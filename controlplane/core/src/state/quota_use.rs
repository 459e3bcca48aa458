//! How much of what every namespace, project and department has: counted change by change.
//!
//! It follows from the objects alone, at every feature level, and is no part of a digest: a State made from a snapshot
//! counts the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{
    LABEL_PROJECT, Measure, Name, Namespace, Object, ObjectId, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, Pod, Project,
};
use imbl::{OrdMap, OrdSet};
use smol_str::SmolStr;

use super::Table;
use crate::devices::Classes;

/// Most measures that one object counts for.
const CHARGES_MAX: usize = 8;

/// What one object counts for.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    entries: [(Measure, u64); CHARGES_MAX],
    len: usize,
    /// Those by the names of extended resources, which few pods ask for, and of StorageClasses.
    named: Vec<(Measure, u64)>,
}

impl Charge {
    const NONE: Self =
        Self { entries: [const { (Measure::Pods, 0) }; CHARGES_MAX], len: 0, named: Vec::new() };

    fn add(&mut self, measure: Measure, amount: u64) {
        if amount > 0 {
            self.entries[self.len] = (measure, amount);
            self.len += 1;
        }
    }

    /// Of an object of a namespace; others count for nothing, and so do ControllerRevisions: no quota names them.
    pub(crate) fn of(object: &Object, classes: &Classes) -> Self {
        match object {
            Object::Pod(pod) => Self::of_pod(pod, classes),
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
    pub(crate) fn of_pod(pod: &Pod, classes: &Classes) -> Self {
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
        charge.named = extended(pod, classes);
        let pages = requests.huge_pages.sizes();
        charge.named.extend(pages.map(|(size, bytes)| (Measure::of_huge_pages(size), bytes)));
        charge
    }

    /// Of a claim.
    pub(crate) fn of_claim(claim: &PersistentVolumeClaim) -> Self {
        let mut charge = Self::one(Measure::Count(bulkhead_types::Kind::PersistentVolumeClaim));
        charge.add(Measure::Claims, 1);
        match claim.spec.class.get() {
            None => charge.add(Measure::ClassClaims(claim.spec.storage_class), 1),
            Some(class) => charge.named.push((Measure::class_claims(class), 1)),
        }
        charge.add_storage(&claim.spec, claim.spec.storage_bytes);
        charge
    }

    /// Of what a claim takes more than it has, in bytes.
    pub(crate) fn of_growth(claim: &PersistentVolumeClaimSpec, bytes: u64) -> Self {
        let mut charge = Self::NONE;
        charge.add_storage(claim, bytes);
        charge
    }

    /// What this is more than another one, measure by measure; devices never change while a pod is there.
    pub(crate) fn beyond(&self, other: &Self) -> Self {
        let mut more = Self::NONE;
        for (measure, amount) in &self.entries[..self.len] {
            let known = other.entries[..other.len].iter().find(|(one, _)| one == measure);
            more.add(measure.clone(), amount.saturating_sub(known.map_or(0, |(_, amount)| *amount)));
        }
        more
    }

    fn add_storage(&mut self, claim: &PersistentVolumeClaimSpec, bytes: u64) {
        self.add(Measure::RequestsStorage, bytes);
        match claim.class.get() {
            None => self.add(Measure::ClassStorage(claim.storage_class), bytes),
            Some(class) if bytes > 0 => self.named.push((Measure::class_storage(class), bytes)),
            Some(_) => {}
        }
    }

    /// Each measure with its amount, none of them 0.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Measure, u64)> + '_ {
        self.entries[..self.len].iter().chain(&self.named).map(|(measure, amount)| (measure, *amount))
    }
}

/// What a pod asks for of extended resources, by name: what is for each of several devices counts that often.
fn extended(pod: &Pod, classes: &Classes) -> Vec<(Measure, u64)> {
    let mut sums = BTreeMap::<&SmolStr, u64>::new();
    for container in &pod.spec.containers {
        for (resource, amount) in container.extended_resources() {
            let counter = classes.counted_by(resource);
            let devices =
                counter.and_then(|counter| container.extended_resources().find(|(name, _)| *name == counter));
            let unsaid = || counter.and_then(|counter| classes.default_count(counter)).map_or(1, u64::from);
            let amount = amount.saturating_mul(devices.map_or_else(unsaid, |(_, count)| count));
            let sum = sums.entry(resource).or_insert(0);
            *sum = sum.saturating_add(amount);
        }
    }
    sums.into_iter().map(|(resource, sum)| (Measure::Extended(resource.clone()), sum)).collect()
}

/// Sums by measure. 128 bits, because amounts of single containers go up to 2^53 and no node bounds what waits.
#[derive(Clone, PartialEq, Eq)]
pub struct QuotaUse {
    sums: [u128; Measure::LEN],
    /// By the names of extended resources; no sum is 0.
    extended: BTreeMap<SmolStr, u128>,
    /// By the names of StorageClasses' measures; no sum is 0.
    classes: BTreeMap<SmolStr, u128>,
}

impl Default for QuotaUse {
    fn default() -> Self {
        Self::NONE
    }
}

impl std::fmt::Debug for QuotaUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let extended = self.extended.keys().map(|resource| Measure::Extended(resource.clone()));
        let classes = self.classes.keys().map(|name| Measure::Named(name.clone()));
        let entries =
            Measure::all().chain(extended).chain(classes).map(|measure| (measure.name(), self.of(&measure)));
        f.debug_map().entries(entries.filter(|(_, amount)| *amount > 0)).finish()
    }
}

impl QuotaUse {
    /// Nothing.
    pub const NONE: Self =
        Self { sums: [0; Measure::LEN], extended: BTreeMap::new(), classes: BTreeMap::new() };

    /// The sums of a kind of names, with the name.
    fn named<'m>(&mut self, measure: &'m Measure) -> Option<(&mut BTreeMap<SmolStr, u128>, &'m SmolStr)> {
        match measure {
            Measure::Extended(name) => Some((&mut self.extended, name)),
            Measure::Named(name) => Some((&mut self.classes, name)),
            _ => None,
        }
    }

    /// The sum of a measure.
    #[must_use]
    pub fn of(&self, measure: &Measure) -> u128 {
        match (measure.index(), measure) {
            (Some(index), _) => self.sums[index],
            (None, Measure::Extended(resource)) => self.extended.get(resource).copied().unwrap_or(0),
            (None, Measure::Named(name)) => self.classes.get(name).copied().unwrap_or(0),
            (None, _) => 0,
        }
    }

    pub(crate) fn add(&mut self, charge: &Charge) {
        charge.iter().for_each(|(measure, amount)| self.add_amount(measure, amount));
    }

    pub(super) fn subtract(&mut self, charge: &Charge) {
        for (measure, amount) in charge.iter() {
            if let Some(index) = measure.index() {
                let sum = &mut self.sums[index];
                *sum = sum.checked_sub(u128::from(amount)).expect("what ends was counted when it came");
            } else if let Some((sums, name)) = self.named(measure) {
                subtract_named(sums, name, u128::from(amount));
            }
        }
    }

    /// The names of extended resources of which something is counted.
    pub(crate) fn extended(&self) -> impl Iterator<Item = &SmolStr> {
        self.extended.keys()
    }

    pub(crate) fn add_amount(&mut self, measure: &Measure, amount: u64) {
        if let Some(index) = measure.index() {
            self.sums[index] += u128::from(amount);
        } else if let Some((sums, name)) = self.named(measure).filter(|_| amount > 0) {
            *sums.entry(name.clone()).or_insert(0) += u128::from(amount);
        }
    }

    /// Less what another sum counts, of what this one does.
    pub(crate) fn subtract_all_of(&mut self, other: &Self) {
        for (sum, amount) in self.sums.iter_mut().zip(other.sums) {
            *sum = sum.saturating_sub(amount);
        }
        for (sums, others) in [(&mut self.extended, &other.extended), (&mut self.classes, &other.classes)] {
            for (name, sum) in sums {
                *sum = sum.saturating_sub(others.get(name).copied().unwrap_or(0));
            }
        }
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, amount)| *sum += amount);
        for (sums, others) in [(&mut self.extended, &other.extended), (&mut self.classes, &other.classes)] {
            for (name, amount) in others {
                *sums.entry(name.clone()).or_insert(0) += amount;
            }
        }
    }

    pub(super) fn subtract_all(&mut self, other: &Self) {
        for (sum, amount) in self.sums.iter_mut().zip(other.sums) {
            *sum = sum.checked_sub(amount).expect("a project's use is at least each namespace's");
        }
        for (sums, others) in [(&mut self.extended, &other.extended), (&mut self.classes, &other.classes)] {
            others.iter().for_each(|(name, amount)| subtract_named(sums, name, *amount));
        }
    }
}

fn subtract_named(sums: &mut BTreeMap<SmolStr, u128>, name: &SmolStr, amount: u128) {
    let sum = sums.get_mut(name).expect("what ends was counted when it came");
    *sum = sum.checked_sub(amount).expect("what ends was counted when it came");
    if *sum == 0 {
        sums.remove(name);
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
    /// What says how many devices a request is for.
    classes: Arc<Classes>,
    /// The pods that count for extended resources.
    of_devices: OrdSet<ObjectId>,
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
                || former.spec != present.spec
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
                    self.note_devices(object, false);
                }
                if let Some(object) = present {
                    self.charge(object, |sum, charge| sum.add(charge));
                    self.note_devices(object, true);
                }
            }
            _ => {}
        }
    }

    fn charge(&mut self, object: &Object, change: fn(&mut QuotaUse, &Charge)) {
        let Some(namespace) = &object.meta().namespace else { return };
        let charge = Charge::of(object, &self.classes);
        for level in self.levels(namespace) {
            self.change_sum(level, |sum| change(sum, &charge));
        }
    }

    fn note_devices(&mut self, object: &Object, counts: bool) {
        let Object::Pod(pod) = object else { return };
        if !pod.spec.asks_for_devices() || pod.status.phase.is_terminal() {
            return;
        }
        if counts {
            self.of_devices.insert(pod.meta.id);
        } else {
            self.of_devices.remove(&pod.meta.id);
        }
    }

    /// Counts the pods that ask for devices anew, by other classes: sums follow from the objects that there are, whichever
    /// came first.
    pub(crate) fn follow_classes(&mut self, classes: &Arc<Classes>, pods: &Table<Pod>) {
        let asking: Vec<Object> =
            self.of_devices.iter().filter_map(|id| pods.get(*id)).cloned().map(Object::Pod).collect();
        asking.iter().for_each(|pod| self.charge(pod, |sum, charge| sum.subtract(charge)));
        self.classes = Arc::clone(classes);
        asking.iter().for_each(|pod| self.charge(pod, |sum, charge| sum.add(charge)));
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
