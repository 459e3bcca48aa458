//! Hard quotas: what is left at the levels above an object, and what does not fit.
//!
//! ```text
//!  new object ─► LimitRanges (pods, claims) ─► what must be stated ─► Ledger: every ResourceQuota of the namespace,
//!                                                                     its Project, its Department
//! ```
//!
//! `decide` asks before it creates anything; reconcilers ask the same before they propose, so that a workload waits with
//! the reason instead of trying. A command that creates several objects charges one [`Ledger`] with all of them.

mod pod;
mod sums;

use std::sync::Arc;

use bulkhead_types::{
    Kind, Measure, Name, Object, ObjectRef, PersistentVolumeClaim, Pod, QuotaAmounts, Rejection,
    RejectionCode,
};

use crate::State;
use crate::admission::{admit, check_namespace_defaults, has_namespace_defaults};
use crate::devices::Classes;
use crate::state::{Charge, QuotaLevel, QuotaUse};

pub(crate) use pod::ranges_of;
pub(crate) use sums::{check_moved, check_sums, exceeded_sums};

/// Why pods or objects of a workload are missing that do not fit in a quota, as Kubernetes calls it.
pub(crate) const REASON_FAILED_CREATE: &str = "FailedCreate";

/// One quota above an object.
struct Limit<'a> {
    /// Whose it is.
    object: ObjectRef,
    hard: &'a QuotaAmounts,
    used: &'a QuotaUse,
}

/// What is left for a namespace while a command is decided.
pub(crate) struct Ledger<'a> {
    state: &'a State,
    limits: Vec<Limit<'a>>,
    has_ranges: bool,
    /// The namespace says where its pods go.
    has_defaults: bool,
    /// What the command adds, as far as it was looked at.
    added: QuotaUse,
}

impl<'a> Ledger<'a> {
    /// Of the objects of a namespace. Costs nothing but the look while nothing is limited.
    pub(crate) fn of(state: &'a State, namespace: Option<&Name>) -> Self {
        let limits = namespace.map(|namespace| limits(state, namespace)).unwrap_or_default();
        let ranges = &mut state.index.of_kind(Kind::LimitRange, namespace);
        let has_ranges = !state.limit_ranges.is_empty() && ranges.next().is_some();
        let has_defaults = has_namespace_defaults(state, namespace);
        Self { state, limits, has_ranges, has_defaults, added: QuotaUse::NONE }
    }

    /// Whether everything fits.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.limits.is_empty() && !self.has_ranges && !self.has_defaults
    }

    /// Charges a new object.
    ///
    /// # Errors
    /// When it does not fit: then nothing was charged. The field is the object.
    pub(crate) fn take(&mut self, object: &Object) -> Result<(), Rejection> {
        if self.is_unlimited() {
            return Ok(());
        }
        match object {
            Object::Pod(pod) => self.take_pod(pod),
            Object::PersistentVolumeClaim(claim) => {
                pod::check_claim(self.state, claim)?;
                self.charge(&object.object_ref(), &Charge::of(object, self.classes()))
            }
            _ => self.charge(&object.object_ref(), &Charge::of(object, self.classes())),
        }
    }

    /// Charges what a claim takes more than it has.
    ///
    /// # Errors
    /// As [`Self::take`], and when a LimitRange does not allow the size.
    pub(crate) fn grow_claim(
        &mut self,
        present: &PersistentVolumeClaim,
        wanted: &PersistentVolumeClaim,
    ) -> Result<(), Rejection> {
        if self.is_unlimited() {
            return Ok(());
        }
        pod::check_claim(self.state, wanted)?;
        let more = wanted.spec.storage_bytes.saturating_sub(present.spec.storage_bytes);
        let reference = ObjectRef {
            kind: Kind::PersistentVolumeClaim,
            namespace: present.meta.namespace.clone(),
            name: present.meta.name.clone(),
        };
        self.charge(&reference, &Charge::of_growth(&present.spec, more))
    }

    /// Charges a pod as it would come to be, before profiles and defaults.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) fn take_pod(&mut self, pod: &Arc<Pod>) -> Result<(), Rejection> {
        if self.is_unlimited() {
            return Ok(());
        }
        check_namespace_defaults(self.state, pod)?;
        let pod = admit(self.state, pod);
        pod::check_bounds(self.state, &pod)?;
        for Limit { object, hard, .. } in &self.limits {
            pod::check_stated(&pod, object, hard)?;
        }
        let reference = Object::Pod(Arc::clone(&pod)).object_ref();
        self.charge(&reference, &Charge::of_pod(&pod, self.classes()))
    }

    /// Charges what a pod takes more than it has.
    ///
    /// # Errors
    /// As [`Self::take`], and when a LimitRange does not allow the size.
    pub(crate) fn grow_pod(&mut self, present: &Pod, wanted: &Pod) -> Result<(), Rejection> {
        if self.is_unlimited() {
            return Ok(());
        }
        pod::check_bounds(self.state, wanted)?;
        let more = Charge::of_pod(wanted, self.classes()).beyond(&Charge::of_pod(present, self.classes()));
        let (namespace, name) = (present.meta.namespace.clone(), present.meta.name.clone());
        self.charge(&ObjectRef { kind: Kind::Pod, namespace, name }, &more)
    }

    fn classes(&self) -> &'a Classes {
        &self.state.devices.classes
    }

    /// Charges several objects, all or none of them.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) fn take_all<'o>(
        &mut self,
        objects: impl IntoIterator<Item = &'o Object>,
    ) -> Result<(), Rejection> {
        if self.is_unlimited() {
            return Ok(());
        }
        let before = self.added.clone();
        let result = objects.into_iter().try_for_each(|object| self.take(object));
        if result.is_err() {
            self.added = before;
        }
        result
    }

    /// Where it stands, to go back to.
    pub(crate) fn mark(&self) -> Option<QuotaUse> {
        (!self.is_unlimited()).then(|| self.added.clone())
    }

    /// Takes back what was charged since.
    pub(crate) fn back_to(&mut self, mark: Option<QuotaUse>) {
        if let Some(mark) = mark {
            self.added = mark;
        }
    }

    fn charge(&mut self, object: &ObjectRef, charge: &Charge) -> Result<(), Rejection> {
        for limit in &self.limits {
            let wanting = charge.iter().filter_map(|(measure, amount)| {
                let hard = limit.hard.of(measure)?;
                let before = limit.used.of(measure) + self.added.of(measure);
                let is_too_much = before + u128::from(amount) > u128::from(hard);
                is_too_much.then(|| wanting(measure, amount, hard, before))
            });
            let wanting: Vec<String> = wanting.collect();
            if !wanting.is_empty() {
                let reason = format!("does not fit in {}: {}", limit.object, wanting.join("; "));
                return Err(Rejection::new(RejectionCode::NotAllowed, object.to_string(), reason)
                    .with_remedy("ask for less, end what is not needed, or raise that quota"));
            }
        }
        self.added.add(charge);
        Ok(())
    }
}

/// `requests.cpu: 500m asked for, 200m of 2 left`.
fn wanting(measure: &Measure, amount: u64, hard: u64, used: u128) -> String {
    let left = u64::try_from(u128::from(hard).saturating_sub(used)).unwrap_or(u64::MAX);
    let [amount, left, hard] = [amount, left, hard].map(|amount| measure.format_amount(amount));
    format!("{}: {amount} asked for, {left} of {hard} left", measure.name())
}

/// The quotas above a namespace's objects, from the bottom up; its own by name.
fn limits<'a>(state: &'a State, namespace: &Name) -> Vec<Limit<'a>> {
    if state.resource_quotas.is_empty() && state.projects.is_empty() {
        return Vec::new();
    }
    let mut limits = Vec::new();
    for level in state.quota_levels(namespace) {
        let used = state.quota_use(&level);
        let mut push = |object: Object, hard: &'a QuotaAmounts| {
            if !hard.is_empty() {
                limits.push(Limit { object: object.object_ref(), hard, used });
            }
        };
        match level {
            QuotaLevel::Namespace(name) => {
                for quota in quotas_of(state, &name) {
                    push(Object::ResourceQuota(Arc::clone(quota)), &quota.spec.hard);
                }
            }
            QuotaLevel::Project(name) => {
                if let Some(project) = project(state, &name) {
                    push(Object::Project(Arc::clone(project)), &project.spec.hard);
                }
            }
            QuotaLevel::Department(name) => {
                if let Some(department) = department(state, &name) {
                    push(Object::Department(Arc::clone(department)), &department.spec.hard);
                }
            }
        }
    }
    limits
}

/// A namespace's quotas, by name.
pub(crate) fn quotas_of<'a>(
    state: &'a State,
    namespace: &Name,
) -> impl Iterator<Item = &'a Arc<bulkhead_types::ResourceQuota>> + use<'a> {
    let ids = state.index.of_kind(Kind::ResourceQuota, Some(namespace));
    ids.filter_map(|id| state.resource_quotas.get(id))
}

/// A project by name.
pub(crate) fn project<'a>(state: &'a State, name: &Name) -> Option<&'a Arc<bulkhead_types::Project>> {
    state.projects.get(state.find(Kind::Project, None, name)?)
}

/// A department by name.
pub(crate) fn department<'a>(state: &'a State, name: &Name) -> Option<&'a Arc<bulkhead_types::Department>> {
    state.departments.get(state.find(Kind::Department, None, name)?)
}

/// Why a pod could not be created now; `None` when it could. The pod is as its owner makes it.
pub(crate) fn pod_refusal(
    state: &State,
    pod: impl FnOnce() -> Pod,
    namespace: Option<&Name>,
) -> Option<Rejection> {
    let mut ledger = Ledger::of(state, namespace);
    if ledger.is_unlimited() {
        return None;
    }
    ledger.take_pod(&Arc::new(pod())).err()
}

/// Why no further object of a kind could be created in a namespace; `None` when one could.
pub(crate) fn count_refusal(
    state: &State,
    kind: Kind,
    namespace: Option<&Name>,
    name: &Name,
) -> Option<Rejection> {
    let reference = ObjectRef { kind, namespace: namespace.cloned(), name: name.clone() };
    Ledger::of(state, namespace).charge(&reference, &Charge::one(Measure::Count(kind))).err()
}
