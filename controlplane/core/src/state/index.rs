//! Secondary orders over the objects, kept by one function from each object's former and present self.

use bulkhead_types::{Kind, Name, Object, ObjectId, ObjectRef, Pod, PodGroupKey, Resources};
use imbl::{OrdMap, OrdSet};

/// What the pods bound to a node reserve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeUsage {
    /// Sum of their scheduling requests, overhead included.
    pub requests: Resources,
    /// How many they are.
    pub pods: u32,
}

impl NodeUsage {
    /// With one pod more.
    #[must_use]
    pub(crate) fn with(self, request: Resources) -> Self {
        Self { requests: self.requests.plus(request), pods: self.pods + 1 }
    }

    /// With one pod less, of those that it counts.
    #[must_use]
    pub(crate) fn without(self, request: Resources) -> Self {
        let requests = self.requests.checked_minus(request).expect("a usage is at least each pod's request");
        Self { requests, pods: self.pods - 1 }
    }

    /// Both together.
    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { requests: self.requests.plus(other.requests), pods: self.pods + other.pods }
    }
}

/// Namespace, kind and name of an object, whether or not it exists.
type NameKey = (Option<Name>, Kind, Name);

/// All secondary orders. What many entries would begin with is the key of a map of its own: it is there once, and no
/// map in a map is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Index {
    names: OrdMap<(Option<Name>, Kind), OrdMap<Name, ObjectId>>,
    owned: OrdMap<(ObjectId, Kind), OrdSet<ObjectId>>,
    active_pods: OrdMap<ObjectId, u32>,
    on_node: OrdMap<ObjectId, OrdSet<ObjectId>>,
    pub(super) node_usage: OrdMap<ObjectId, NodeUsage>,
    pub(super) pending: OrdSet<ObjectId>,
    /// Which pods that wait have room kept for them on which node, whether or not that exists.
    nominated: OrdMap<ObjectId, OrdSet<ObjectId>>,
    /// The pods of each group, whatever has become of them.
    groups: OrdMap<PodGroupKey, OrdSet<ObjectId>>,
    /// Who sets the size or the requests of which workload, or moves the bounds of which autoscaler, by the kind of who
    /// does.
    scalers: OrdSet<(NameKey, Kind, ObjectId)>,
    /// Which pods that are bound to a node refer to which ConfigMap, Secret or PersistentVolumeClaim, whether or not that
    /// exists.
    users: OrdMap<NameKey, OrdSet<ObjectId>>,
    /// Which claims are bound to which node.
    claims_on: OrdMap<ObjectId, OrdSet<ObjectId>>,
    /// Which snapshots are ready, and which volumes were left behind, on which node.
    kept_on: OrdMap<ObjectId, OrdSet<ObjectId>>,
    /// Which snapshots are still to be taken, and which bound claims are still to be filled, of which object.
    copies: OrdMap<NameKey, OrdSet<ObjectId>>,
}

/// Neither ending nor ended.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !pod.meta.is_deleting() && !pod.status.phase.is_terminal()
}

/// Holds room on its node: bound, and its guest may still live.
fn holds_room(pod: &Pod) -> Option<ObjectId> {
    pod.node.filter(|_| !pod.status.phase.is_terminal())
}

fn is_pending(pod: &Pod) -> bool {
    pod.node.is_none() && is_active(pod)
}

/// The node on which room is kept for a pod that waits.
pub(crate) fn nominated_node(pod: &Pod) -> Option<ObjectId> {
    pod.status.nominated_node.get().copied().filter(|_| is_pending(pod))
}

fn as_pod(object: Option<&Object>) -> Option<&Pod> {
    match object {
        Some(Object::Pod(pod)) => Some(pod),
        _ => None,
    }
}

/// What an object scales, in whatever direction, when it does.
fn scaler(object: &Object) -> Option<(NameKey, Kind, ObjectId)> {
    let (kind, name) = match object {
        Object::HorizontalPodAutoscaler(autoscaler) => {
            (autoscaler.spec.target.kind, &autoscaler.spec.target.name)
        }
        Object::CronHorizontalPodAutoscaler(scaler) => (scaler.spec.target.kind, &scaler.spec.target.name),
        Object::VerticalPodAutoscaler(vertical) => (vertical.spec.target.kind, &vertical.spec.target.name),
        Object::ElasticWorkload(workload) => (Kind::Deployment, &workload.spec.source.name),
        _ => return None,
    };
    let meta = object.meta();
    Some(((meta.namespace.clone(), kind, name.clone()), object.kind(), meta.id))
}

/// The node that a claim is bound to, and the claim.
fn bound_claim(object: &Object) -> Option<(ObjectId, ObjectId)> {
    match object {
        Object::PersistentVolumeClaim(claim) => Some((claim.bound_node()?, claim.meta.id)),
        _ => None,
    }
}

/// The node that keeps a snapshot or a retained volume, and that.
fn kept(object: &Object) -> Option<(ObjectId, ObjectId)> {
    match object {
        Object::VolumeSnapshot(snapshot) => Some((snapshot.status.node?, snapshot.meta.id)),
        Object::PersistentVolume(volume) => Some((volume.spec.node, volume.meta.id)),
        _ => None,
    }
}

/// What an object is still to be copied of, and the object.
fn copy(object: &Object) -> Option<(NameKey, ObjectId)> {
    let (kind, name) = match object {
        Object::VolumeSnapshot(snapshot) if snapshot.status.taken_at_ms == 0 => {
            (Kind::PersistentVolumeClaim, &snapshot.spec.claim_name)
        }
        Object::PersistentVolumeClaim(claim) if claim.bound_node().is_some() && claim.awaits_source() => {
            let source = claim.source.get()?;
            (source.kind.kind(), &source.name)
        }
        _ => return None,
    };
    let meta = object.meta();
    Some(((meta.namespace.clone(), kind, Name::new(name).ok()?), meta.id))
}

/// Adds to one of many sets.
fn add<K: Ord + Clone>(sets: &mut OrdMap<K, OrdSet<ObjectId>>, key: K, id: ObjectId) {
    sets.entry(key).or_default().insert(id);
}

/// Takes from one of many sets.
fn take<K: Ord + Clone>(sets: &mut OrdMap<K, OrdSet<ObjectId>>, key: &K, id: ObjectId) {
    let Some(set) = sets.get_mut(key) else { return };
    set.remove(&id);
    if set.is_empty() {
        sets.remove(key);
    }
}

impl Index {
    pub(super) fn id_of(&self, kind: Kind, namespace: Option<&Name>, name: &Name) -> Option<ObjectId> {
        self.names.get(&(namespace.cloned(), kind))?.get(name).copied()
    }

    pub(super) fn owned(
        &self,
        owner: ObjectId,
        kind: Kind,
    ) -> impl DoubleEndedIterator<Item = ObjectId> + '_ {
        self.owned.get(&(owner, kind)).into_iter().flatten().copied()
    }

    pub(super) fn active_pods(&self, owner: ObjectId) -> u32 {
        self.active_pods.get(&owner).copied().unwrap_or(0)
    }

    pub(crate) fn on_node(&self, node: ObjectId) -> impl Iterator<Item = ObjectId> + '_ {
        self.on_node.get(&node).into_iter().flatten().copied()
    }

    pub(super) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    pub(super) fn of_group(&self, group: &PodGroupKey) -> impl Iterator<Item = ObjectId> + use<'_> {
        self.groups.get(group).into_iter().flatten().copied()
    }

    pub(super) fn nominated_on(&self, node: ObjectId) -> impl Iterator<Item = ObjectId> + '_ {
        self.nominated.get(&node).into_iter().flatten().copied()
    }

    pub(super) fn in_namespace<'a>(
        &'a self,
        namespace: &'a Name,
    ) -> impl Iterator<Item = (Kind, ObjectId)> + 'a {
        self.names
            .range((Some(namespace.clone()), Kind::Namespace)..)
            .take_while(move |((ns, _), _)| ns.as_ref() == Some(namespace))
            .flat_map(|((_, kind), ids)| ids.values().map(move |id| (*kind, *id)))
    }

    /// The bound pods that refer to a ConfigMap, Secret or PersistentVolumeClaim, in id order.
    pub(super) fn users(&self, object: &ObjectRef) -> OrdSet<ObjectId> {
        let key = (object.namespace.clone(), object.kind, object.name.clone());
        self.users.get(&key).cloned().unwrap_or_default()
    }

    /// The claims that are bound to a node, in id order.
    pub(super) fn claims_on(&self, node: ObjectId) -> impl Iterator<Item = ObjectId> + '_ {
        self.claims_on.get(&node).into_iter().flatten().copied()
    }

    /// The snapshots that are ready on a node, and the volumes that claims left there, in id order.
    pub(super) fn kept_on(&self, node: ObjectId) -> impl Iterator<Item = ObjectId> + '_ {
        self.kept_on.get(&node).into_iter().flatten().copied()
    }

    /// What is still to be copied of an object, in id order.
    pub(super) fn copies_of(&self, source: &ObjectRef) -> OrdSet<ObjectId> {
        let key = (source.namespace.clone(), source.kind, source.name.clone());
        self.copies.get(&key).cloned().unwrap_or_default()
    }

    /// Whether the orders of what nodes keep and of copies are those of these objects.
    pub(super) fn copies_agree(&self, objects: impl Iterator<Item = Object>) -> bool {
        let (mut kept_on, mut copies) = (OrdMap::new(), OrdMap::new());
        for object in objects {
            if let Some((node, id)) = kept(&object) {
                add(&mut kept_on, node, id);
            }
            if let Some((key, id)) = copy(&object) {
                add(&mut copies, key, id);
            }
        }
        self.kept_on == kept_on && self.copies == copies
    }

    /// The objects of a kind in a namespace from a name on, by name.
    pub(super) fn named_from(
        &self,
        kind: Kind,
        namespace: Option<&Name>,
        from: Name,
    ) -> impl Iterator<Item = ObjectId> + use<'_> {
        let names = self.names.get(&(namespace.cloned(), kind));
        names.into_iter().flat_map(move |names| names.range(from.clone()..)).map(|(_, id)| *id)
    }

    /// The objects of a kind in a namespace, by name.
    pub(crate) fn of_kind<'s>(
        &'s self,
        kind: Kind,
        namespace: Option<&Name>,
    ) -> impl Iterator<Item = ObjectId> + use<'s> {
        self.names.get(&(namespace.cloned(), kind)).into_iter().flat_map(OrdMap::values).copied()
    }

    /// Who of a kind scales an object, in id order.
    pub(super) fn scalers(&self, target: &ObjectRef, kind: Kind) -> impl Iterator<Item = ObjectId> + '_ {
        let key = (target.namespace.clone(), target.kind, target.name.clone());
        let all = (key.clone(), kind, ObjectId(0))..=(key, kind, ObjectId(u64::MAX));
        self.scalers.range(all).map(|(_, _, id)| *id)
    }

    /// Moves every order from the object's former self to its present one.
    ///
    /// # Panics
    /// When a name would be given twice or a reservation would fall below zero: decide allowed what it must not.
    pub(super) fn change(&mut self, former: Option<&Object>, present: Option<&Object>) {
        if former.is_none() != present.is_none() {
            self.change_identity(former, present);
        }
        if let Some(scaler) = former.and_then(scaler) {
            self.scalers.remove(&scaler);
        }
        if let Some(scaler) = present.and_then(scaler) {
            self.scalers.insert(scaler);
        }
        if let Some((node, id)) = former.and_then(bound_claim) {
            take(&mut self.claims_on, &node, id);
        }
        if let Some((node, id)) = present.and_then(bound_claim) {
            add(&mut self.claims_on, node, id);
        }
        if let Some((node, id)) = former.and_then(kept) {
            take(&mut self.kept_on, &node, id);
        }
        if let Some((node, id)) = present.and_then(kept) {
            add(&mut self.kept_on, node, id);
        }
        if let Some((key, id)) = former.and_then(copy) {
            take(&mut self.copies, &key, id);
        }
        if let Some((key, id)) = present.and_then(copy) {
            add(&mut self.copies, key, id);
        }
        let (former, present) = (as_pod(former), as_pod(present));
        if former.is_some() || present.is_some() {
            self.change_pod(former, present);
        }
    }

    fn change_identity(&mut self, former: Option<&Object>, present: Option<&Object>) {
        if let Some(object) = former {
            let (kind, meta) = (object.kind(), object.meta());
            let key = (meta.namespace.clone(), kind);
            if let Some(names) = self.names.get_mut(&key) {
                names.remove(&meta.name);
                if names.is_empty() {
                    self.names.remove(&key);
                }
            }
            if let Some(owner) = meta.owner {
                take(&mut self.owned, &(owner.id, kind), meta.id);
            }
        }
        if let Some(object) = present {
            let (kind, meta) = (object.kind(), object.meta());
            let names = self.names.entry((meta.namespace.clone(), kind)).or_default();
            let taken = names.insert(meta.name.clone(), meta.id);
            assert!(taken.is_none(), "{} was created twice", object.object_ref());
            if let Some(owner) = meta.owner {
                add(&mut self.owned, (owner.id, kind), meta.id);
            }
        }
    }

    fn change_pod(&mut self, former: Option<&Pod>, present: Option<&Pod>) {
        let Some(id) = former.or(present).map(|p| p.meta.id) else { return };
        let owner = |pod: Option<&Pod>| pod.filter(|p| is_active(p)).and_then(|p| p.meta.owner).map(|o| o.id);
        match (owner(former), owner(present)) {
            (None, Some(owner)) => *self.active_pods.entry(owner).or_insert(0) += 1,
            (Some(owner), None) => self.drop_active(owner),
            _ => {}
        }
        match (former.is_some_and(is_pending), present.is_some_and(is_pending)) {
            (false, true) => _ = self.pending.insert(id),
            (true, false) => _ = self.pending.remove(&id),
            _ => {}
        }
        match (former.and_then(|p| p.node), present.and_then(|p| p.node)) {
            (None, Some(node)) => add(&mut self.on_node, node, id),
            (Some(node), None) => take(&mut self.on_node, &node, id),
            _ => {}
        }
        let group = |pod: &Pod| pod.group_key();
        let (was, is) = (former.and_then(group), present.and_then(group));
        if was != is {
            was.iter().for_each(|key| take(&mut self.groups, key, id));
            is.into_iter().for_each(|key| add(&mut self.groups, key, id));
        }
        let (was, is) = (former.and_then(nominated_node), present.and_then(nominated_node));
        if was != is {
            was.iter().for_each(|node| take(&mut self.nominated, node, id));
            is.into_iter().for_each(|node| add(&mut self.nominated, node, id));
        }
        self.change_users(id, former.filter(|p| p.node.is_some()), present.filter(|p| p.node.is_some()));
        match (former.and_then(holds_room), present.and_then(holds_room)) {
            (None, Some(node)) => {
                let pod = present.expect("a pod that holds room is present");
                let usage = self.node_usage.entry(node).or_default();
                *usage = usage.with(pod.spec.scheduling_request());
            }
            (Some(node), None) => self.release(node, former.expect("a pod that held room was there")),
            (Some(node), Some(_)) => {
                let (former, present) = (former.expect("it held room"), present.expect("it holds room"));
                self.resize(node, former, present);
            }
            (None, None) => {}
        }
    }

    /// A pod's references never change; they count while it is bound.
    fn change_users(&mut self, id: ObjectId, former: Option<&Pod>, present: Option<&Pod>) {
        let (pod, is_new) = match (former, present) {
            (None, Some(pod)) => (pod, true),
            (Some(pod), None) => (pod, false),
            _ => return,
        };
        let claims = pod.spec.claims().map(|name| (Kind::PersistentVolumeClaim, name));
        for (kind, name) in pod.spec.config_refs().map(|(kind, name)| (kind.kind(), name)).chain(claims) {
            let Ok(name) = Name::new(name) else { continue };
            let key = (pod.meta.namespace.clone(), kind, name);
            if is_new {
                add(&mut self.users, key, id);
            } else {
                take(&mut self.users, &key, id);
            }
        }
    }

    fn drop_active(&mut self, owner: ObjectId) {
        let count = self.active_pods.get(&owner).copied().expect("an owner with active pods has a count");
        if count == 1 {
            self.active_pods.remove(&owner);
        } else {
            self.active_pods.insert(owner, count - 1);
        }
    }

    /// A pod that keeps its room may hold another amount of it.
    fn resize(&mut self, node: ObjectId, former: &Pod, present: &Pod) {
        if former.spec == present.spec {
            return;
        }
        let (was, is) = (former.spec.scheduling_request(), present.spec.scheduling_request());
        let usage = self.node_usage.entry(node).or_default();
        *usage = usage.without(was).with(is);
    }

    fn release(&mut self, node: ObjectId, pod: &Pod) {
        let usage = self.node_usage.get(&node).copied().expect("a node with pods has a usage");
        let usage = usage.without(pod.spec.scheduling_request());
        if usage.pods == 0 {
            self.node_usage.remove(&node);
        } else {
            self.node_usage.insert(node, usage);
        }
    }
}
