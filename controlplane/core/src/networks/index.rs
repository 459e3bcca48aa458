//! Networks by what pods call them, and what pods have of them, kept change by change. It follows from the objects alone and is
//! no part of a digest.

use std::borrow::Cow;

use bulkhead_types::{
    Kind, Name, NetworkAttachment, Object, ObjectId, ObjectMeta, Pod, SriovLinkType, SriovNetworkSpec,
};
use imbl::OrdMap;
use smol_str::SmolStr;

use super::Addresses;
use crate::State;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkIndex {
    /// By the namespace whose pods may attach, and name.
    by_name: OrdMap<(Name, Name), (Kind, ObjectId)>,
    pub(crate) addresses: Addresses,
    /// How many attachments a network has, by `NAMESPACE/NAME`.
    attached: OrdMap<SmolStr, u32>,
}

/// A network of either kind.
#[derive(Clone, Debug)]
pub(crate) struct Network<'a> {
    pub(crate) link_type: SriovLinkType,
    pub(crate) spec: Cow<'a, SriovNetworkSpec>,
}

/// What pods call a network: the namespace whose pods may attach, and its name.
pub(crate) fn called(meta: &ObjectMeta, network_namespace: Option<&Name>) -> Option<(Name, Name)> {
    Some((network_namespace.or(meta.namespace.as_ref())?.clone(), meta.name.clone()))
}

/// The same of an object, when it is a network.
pub(crate) fn called_object(object: &Object) -> Option<(Name, Name)> {
    match object {
        Object::SriovNetwork(one) => called(&one.meta, one.spec.network_namespace.as_ref()),
        Object::SriovIBNetwork(one) => called(&one.meta, one.spec.network_namespace.as_ref()),
        _ => None,
    }
}

/// `NAMESPACE/NAME`.
pub(crate) fn label(namespace: &Name, name: &Name) -> SmolStr {
    SmolStr::new(format!("{namespace}/{name}"))
}

/// What a pod has of networks: as long as it holds room.
fn held(pod: &Pod) -> &[NetworkAttachment] {
    if pod.node.is_none() || pod.status.phase.is_terminal() { &[] } else { pod.networks() }
}

fn as_pod(object: &Object) -> Option<&Pod> {
    match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    }
}

impl NetworkIndex {
    /// Takes an object's present self for its former one. Costs nothing but a look for what has no networks.
    pub(crate) fn change(&mut self, former: Option<&Object>, present: Option<&Object>) {
        match former.or(present) {
            Some(Object::Pod(_)) => {
                self.change_pod(former.and_then(as_pod), present.and_then(as_pod));
            }
            Some(Object::SriovNetwork(_) | Object::SriovIBNetwork(_)) => {
                if let Some((object, key)) = former.and_then(|object| Some((object, called_object(object)?)))
                    && self.by_name.get(&key).is_some_and(|(_, id)| *id == object.meta().id)
                {
                    self.by_name.remove(&key);
                }
                if let Some((object, key)) = present.and_then(|object| Some((object, called_object(object)?)))
                {
                    self.by_name.insert(key, (object.kind(), object.meta().id));
                }
            }
            _ => {}
        }
    }

    fn change_pod(&mut self, former: Option<&Pod>, present: Option<&Pod>) {
        let (was, is) = (former.map_or(&[][..], held), present.map_or(&[][..], held));
        if was == is {
            return;
        }
        for (pod, one) in former.into_iter().flat_map(|pod| was.iter().map(move |one| (pod, one))) {
            if let Some(address) = one.address {
                self.addresses.release(address, pod.meta.id);
            }
            let left = self.attached.get(&one.network).map_or(0, |count| count - 1);
            match left {
                0 => _ = self.attached.remove(&one.network),
                left => _ = self.attached.insert(one.network.clone(), left),
            }
        }
        for (pod, one) in present.into_iter().flat_map(|pod| is.iter().map(move |one| (pod, one))) {
            if let Some(address) = one.address {
                self.addresses.take(address, pod.meta.id);
            }
            let count = self.attached.get(&one.network).copied().unwrap_or(0);
            self.attached.insert(one.network.clone(), count + 1);
        }
    }

    /// How many attachments a network has.
    pub(crate) fn attached(&self, network: &str) -> u32 {
        self.attached.get(network).copied().unwrap_or(0)
    }

    /// The object that pods call so.
    pub(crate) fn find(&self, namespace: &Name, name: &Name) -> Option<(Kind, ObjectId)> {
        self.by_name.get(&(namespace.clone(), name.clone())).copied()
    }
}

/// The network that pods call so.
pub(crate) fn network<'a>(state: &'a State, namespace: &Name, name: &Name) -> Option<Network<'a>> {
    match state.networks.find(namespace, name)? {
        (Kind::SriovNetwork, id) => {
            let spec = Cow::Borrowed(&state.sriov_networks.get(id)?.spec);
            Some(Network { link_type: SriovLinkType::Eth, spec })
        }
        (_, id) => {
            let spec = Cow::Owned(state.sriov_ib_networks.get(id)?.spec.as_network());
            Some(Network { link_type: SriovLinkType::Ib, spec })
        }
    }
}
