//! Secondary orders over the objects, kept by one function from each object's former and present self.

use bulkhead_types::{Kind, Name, Object, ObjectId, ObjectRef, Pod, Resources};
use imbl::{OrdMap, OrdSet};

/// What the pods bound to a node reserve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeUsage {
    /// Sum of their scheduling requests, overhead included.
    pub requests: Resources,
    /// How many they are.
    pub pods: u32,
}

type NameKey = (Option<Name>, Kind, Name);

/// All secondary orders.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Index {
    names: OrdMap<NameKey, ObjectId>,
    owned: OrdSet<(ObjectId, Kind, ObjectId)>,
    active_pods: OrdMap<ObjectId, u32>,
    on_node: OrdSet<(ObjectId, ObjectId)>,
    pub(super) node_usage: OrdMap<ObjectId, NodeUsage>,
    pub(super) pending: OrdSet<ObjectId>,
    /// Which pods that are bound to a node refer to which ConfigMap or Secret, whether or not that exists.
    config_users: OrdSet<(NameKey, ObjectId)>,
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

fn key(object: &Object) -> NameKey {
    let meta = object.meta();
    (meta.namespace.clone(), object.kind(), meta.name.clone())
}

impl Index {
    pub(super) fn id_of(&self, kind: Kind, namespace: Option<&Name>, name: &Name) -> Option<ObjectId> {
        self.names.get(&(namespace.cloned(), kind, name.clone())).copied()
    }

    pub(super) fn owned(&self, owner: ObjectId, kind: Kind) -> impl Iterator<Item = ObjectId> + '_ {
        let range = (owner, kind, ObjectId(0))..=(owner, kind, ObjectId(u64::MAX));
        self.owned.range(range).map(|(_, _, id)| *id)
    }

    pub(super) fn active_pods(&self, owner: ObjectId) -> u32 {
        self.active_pods.get(&owner).copied().unwrap_or(0)
    }

    pub(super) fn on_node(&self, node: ObjectId) -> impl Iterator<Item = ObjectId> + '_ {
        self.on_node.range((node, ObjectId(0))..=(node, ObjectId(u64::MAX))).map(|(_, id)| *id)
    }

    pub(super) fn in_namespace<'a>(
        &'a self,
        namespace: &'a Name,
    ) -> impl Iterator<Item = (Kind, ObjectId)> + 'a {
        // No real name is the empty string's successor of every kind, so the range starts at the first kind
        // and ends where the namespace changes.
        let first = (Some(namespace.clone()), Kind::Namespace, lowest_name());
        self.names
            .range(first..)
            .take_while(move |((ns, _, _), _)| ns.as_ref() == Some(namespace))
            .map(|((_, kind, _), id)| (*kind, *id))
    }

    /// The bound pods that refer to a ConfigMap or Secret, in id order.
    pub(super) fn config_users(&self, object: &ObjectRef) -> impl Iterator<Item = ObjectId> + '_ {
        let key = (object.namespace.clone(), object.kind, object.name.clone());
        self.config_users.range((key.clone(), ObjectId(0))..=(key, ObjectId(u64::MAX))).map(|(_, pod)| *pod)
    }

    /// Moves every order from the object's former self to its present one.
    ///
    /// # Panics
    /// When a name would be given twice or a reservation would fall below zero: decide allowed what it must not.
    pub(super) fn change(&mut self, former: Option<&Object>, present: Option<&Object>) {
        if former.is_none() != present.is_none() {
            self.change_identity(former, present);
        }
        let pod = |object: Option<&Object>| match object {
            Some(Object::Pod(pod)) => Some(pod.clone()),
            _ => None,
        };
        let (former, present) = (pod(former), pod(present));
        if former.is_some() || present.is_some() {
            self.change_pod(former.as_deref(), present.as_deref());
        }
    }

    fn change_identity(&mut self, former: Option<&Object>, present: Option<&Object>) {
        if let Some(object) = former {
            self.names.remove(&key(object));
            if let Some(owner) = object.meta().owner {
                self.owned.remove(&(owner.id, object.kind(), object.meta().id));
            }
        }
        if let Some(object) = present {
            let taken = self.names.insert(key(object), object.meta().id);
            assert!(taken.is_none(), "{} was created twice", object.object_ref());
            if let Some(owner) = object.meta().owner {
                self.owned.insert((owner.id, object.kind(), object.meta().id));
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
            (None, Some(node)) => _ = self.on_node.insert((node, id)),
            (Some(node), None) => _ = self.on_node.remove(&(node, id)),
            _ => {}
        }
        self.change_config_users(
            id,
            former.filter(|p| p.node.is_some()),
            present.filter(|p| p.node.is_some()),
        );
        match (former.and_then(holds_room), present.and_then(holds_room)) {
            (None, Some(node)) => {
                let pod = present.expect("a pod that holds room is present");
                let usage = self.node_usage.entry(node).or_default();
                usage.requests = usage.requests.plus(pod.spec.scheduling_request());
                usage.pods += 1;
            }
            (Some(node), None) => self.release(node, former.expect("a pod that held room was there")),
            _ => {}
        }
    }

    /// A pod's references never change; they count while it is bound.
    fn change_config_users(&mut self, id: ObjectId, former: Option<&Pod>, present: Option<&Pod>) {
        let (pod, is_new) = match (former, present) {
            (None, Some(pod)) => (pod, true),
            (Some(pod), None) => (pod, false),
            _ => return,
        };
        for (kind, name) in pod.spec.config_refs() {
            let Ok(name) = Name::new(name) else { continue };
            let user = ((pod.meta.namespace.clone(), kind.kind(), name), id);
            if is_new {
                self.config_users.insert(user);
            } else {
                self.config_users.remove(&user);
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

    fn release(&mut self, node: ObjectId, pod: &Pod) {
        let usage = self.node_usage.get(&node).copied().expect("a node with pods has a usage");
        let requests = usage
            .requests
            .checked_minus(pod.spec.scheduling_request())
            .expect("a node's usage is at least each pod's request");
        if usage.pods == 1 {
            self.node_usage.remove(&node);
        } else {
            self.node_usage.insert(node, NodeUsage { requests, pods: usage.pods - 1 });
        }
    }
}

fn lowest_name() -> Name {
    // '0' is the first name in byte order after '-', which no name starts with.
    Name::new("0").expect("0 is a DNS label")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_sorts_before_the_lowest() {
        for name in ["0", "00", "a", "0-a"] {
            assert!(Name::new(name).expect("a name") >= lowest_name(), "{name}");
        }
    }
}
