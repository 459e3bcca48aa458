//! What PersistentVolumeClaims say about where pods may be: the one answer that both the scheduler and `decide` give.
//!
//! ```text
//!  claim is not there, ends, is lost, or is another's alone ──► no node suits, by name
//!  claim is bound ──────────────────────────────────────────► its node only
//!  claim waits for its first pod ───────────────────────────► any node whose agent keeps volumes; it is bound with the pod
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    AccessMode, ClaimPhase, Kind, LABEL_VOLUMES_MAX, Name, Node, ObjectId, ObjectRef, PersistentVolumeClaim,
    PersistentVolumeClaimStatus, Pod, PodSpec, Rare, SCORING_LEVEL, StatefulSet, VolumeClaimTemplate,
};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::placement::Misfit;
use crate::{State, snapshots};

/// Where the claims of a pod let it be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The claims, in the order of the pod's volumes.
    pub(crate) claims: Vec<ObjectId>,
    /// The node of those that are bound, with the name of the first of them.
    pinned: Option<Pinned>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pinned {
    node: ObjectId,
    node_name: SmolStr,
    claim: Name,
}

impl Place {
    /// Whether a node suits.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn check(&self, node: &Node) -> Result<(), Misfit> {
        if self.claims.is_empty() {
            return Ok(());
        }
        match &self.pinned {
            Some(pinned) if pinned.node != node.meta.id => {
                Err(Misfit::Volume { claim: pinned.claim.clone(), node: pinned.node_name.clone() })
            }
            _ if !node.status.facts.keeps_volumes() => Err(Misfit::NoVolumes),
            _ => Ok(()),
        }
    }
}

/// The claims that the pods of a node use, where their number is limited.
///
/// Source: "Node-specific Volume Limits" in the Kubernetes documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    max: usize,
    claims: BTreeSet<ObjectId>,
}

impl Attached {
    /// `None` when nothing limits them.
    pub(crate) fn of(state: &State, node: &Node) -> Option<Self> {
        if state.feature_level() < SCORING_LEVEL {
            return None;
        }
        let max = node.meta.labels.get(LABEL_VOLUMES_MAX)?.parse().ok()?;
        let pods = state.pods_on(node.meta.id).filter(|pod| !pod.status.phase.is_terminal());
        let claims = pods.flat_map(|pod| {
            let namespace = pod.meta.namespace.as_ref();
            pod.spec.claims().filter_map(move |name| Some(state.claim(namespace, name)?.meta.id))
        });
        Some(Self { max, claims: claims.collect() })
    }

    /// Whether these may be used as well, beside so many others.
    pub(crate) fn has_room(&self, claims: &[ObjectId], others: usize) -> bool {
        let new = claims.iter().filter(|claim| !self.claims.contains(claim)).count();
        claims.is_empty() || self.claims.len() + others + new <= self.max
    }

    /// A pod uses these from now on.
    pub(crate) fn take(&mut self, claims: &[ObjectId]) {
        self.claims.extend(claims);
    }
}

/// Where pods with such a spec may be by their claims, as things are now.
///
/// # Errors
/// Why no node suits, for people; it names the claim.
pub(crate) fn place(state: &State, namespace: Option<&Name>, spec: &PodSpec) -> Result<Place, String> {
    let mut place = Place::default();
    for name in spec.claims() {
        let Some(claim) = state.claim(namespace, name) else {
            return Err(format!(
                "PersistentVolumeClaim {name} does not exist: create it, or let the pod name another one"
            ));
        };
        if claim.meta.is_deleting() {
            return Err(format!("PersistentVolumeClaim {name} is being deleted"));
        }
        let PersistentVolumeClaimStatus { phase, node, node_name, .. } = &claim.status;
        if *phase == ClaimPhase::Lost {
            return Err(format!(
                "PersistentVolumeClaim {name} is lost with node {node_name}: delete it and create it anew"
            ));
        }
        if let Some(owner) = sole_user(state, claim) {
            return Err(format!(
                "PersistentVolumeClaim {name} is ReadWriteOncePod, and pod {} has it",
                owner.meta.name
            ));
        }
        place.claims.push(claim.meta.id);
        let pin = match node.filter(|_| *phase == ClaimPhase::Bound) {
            Some(node) => Some((node, node_name.clone())),
            // It is to be where its source is.
            None => snapshots::source_place(state, claim)?,
        };
        let Some((node, node_name)) = pin else { continue };
        match &place.pinned {
            Some(pinned) if pinned.node != node => {
                return Err(format!(
                    "PersistentVolumeClaim {} is on node {}, PersistentVolumeClaim {name} on node {node_name}",
                    pinned.claim, pinned.node_name
                ));
            }
            Some(_) => {}
            None => {
                let claim = claim.meta.name.clone();
                place.pinned = Some(Pinned { node, node_name, claim });
            }
        }
    }
    Ok(place)
}

/// The pod that nobody may share a claim with.
fn sole_user<'a>(state: &'a State, claim: &PersistentVolumeClaim) -> Option<&'a Arc<Pod>> {
    if claim.spec.access_mode != AccessMode::ReadWriteOncePod {
        return None;
    }
    live_users(state, claim).next()
}

/// The pods that have a node, use the claim and may have a guest.
pub(crate) fn live_users<'a>(
    state: &'a State,
    claim: &PersistentVolumeClaim,
) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
    let (namespace, name) = (claim.meta.namespace.clone(), claim.meta.name.clone());
    let reference = ObjectRef { kind: Kind::PersistentVolumeClaim, namespace, name };
    state.users_of(&reference).filter(|pod| !pod.status.phase.is_terminal())
}

/// Whether a claim's volume has to stay: a pod has it, or something is still to be copied of it.
pub(crate) fn is_in_use(state: &State, claim: &PersistentVolumeClaim) -> bool {
    live_users(state, claim).next().is_some() || snapshots::is_source(state, claim)
}

/// The claim's status once it is on a node. One that is made of something has the size of that at first.
pub(crate) fn bound(
    state: &State,
    claim: &PersistentVolumeClaim,
    node: &Node,
    cluster_id: Uuid,
) -> PersistentVolumeClaimStatus {
    PersistentVolumeClaimStatus {
        phase: ClaimPhase::Bound,
        node: Some(node.meta.id),
        node_name: SmolStr::new(node.meta.name.as_str()),
        capacity_bytes: snapshots::source_bytes(state, claim).unwrap_or(claim.spec.storage_bytes),
        volume: claim.meta.id.uid(cluster_id),
        first_used_at_ms: Rare::NONE,
        progress: Rare::NONE,
    }
}

/// What one command gives of claims to pods, on top of the State.
#[derive(Debug, Default)]
pub(crate) struct Given {
    nodes: BTreeMap<ObjectId, ObjectId>,
    /// By node, as far as it was asked.
    attached: BTreeMap<ObjectId, Option<Attached>>,
}

impl Given {
    /// The claims that a pod on this node binds, when its claims let it be there; they then count as given.
    pub(crate) fn give(&mut self, state: &State, pod: &Pod, node: &Node) -> Option<Vec<ObjectId>> {
        if pod.spec.claims().next().is_none() {
            return Some(Vec::new());
        }
        let place = place(state, pod.meta.namespace.as_ref(), &pod.spec).ok()?;
        place.check(node).ok()?;
        let claims = place.claims.iter().filter_map(|id| state.persistent_volume_claims.get(*id));
        let is_free = |claim: &Arc<PersistentVolumeClaim>| match self.nodes.get(&claim.meta.id) {
            Some(given) => *given == node.meta.id && claim.spec.access_mode != AccessMode::ReadWriteOncePod,
            None => true,
        };
        if !claims.clone().all(is_free) {
            return None;
        }
        let attached = self.attached.entry(node.meta.id).or_insert_with(|| Attached::of(state, node));
        if let Some(attached) = attached {
            if !attached.has_room(&place.claims, 0) {
                return None;
            }
            attached.take(&place.claims);
        }
        let is_new = |claim: &&Arc<PersistentVolumeClaim>| {
            claim.status.phase == ClaimPhase::Pending && !self.nodes.contains_key(&claim.meta.id)
        };
        let new = claims.filter(is_new).map(|claim| claim.meta.id).collect();
        self.nodes.extend(place.claims.iter().map(|id| (*id, node.meta.id)));
        Some(new)
    }
}

/// The claims of a StatefulSet's templates that there are, of whatever ordinal, with that.
pub(crate) fn claims_of<'a>(
    state: &'a State,
    set: &'a StatefulSet,
) -> impl Iterator<Item = (u32, &'a Arc<PersistentVolumeClaim>)> + 'a {
    let of_template = |template: &'a VolumeClaimTemplate| {
        // The first that digits may follow.
        let from = template.claim_name(&set.meta.name, 0);
        let claims = from.into_iter().flat_map(|from| {
            let prefix = from.as_str().trim_end_matches('0').to_owned();
            state
                .claims_from(set.meta.namespace.as_ref(), from)
                .take_while(move |claim| claim.meta.name.as_str().starts_with(&prefix))
        });
        claims.filter_map(|claim| Some((template.ordinal_of(&set.meta.name, &claim.meta.name)?, claim)))
    };
    set.spec.claim_templates().iter().flat_map(of_template)
}

/// What is wrong with a claim as something that a pod of a node uses; for [`crate::invariant::check`].
pub(crate) fn is_misplaced(state: &State, pod: &Pod) -> bool {
    let Some(node) = pod.node.filter(|_| !pod.status.phase.is_terminal()) else { return false };
    pod.spec.claims().any(|name| {
        let claim = state.claim(pod.meta.namespace.as_ref(), name);
        claim.is_none_or(|claim| {
            let is_shared = claim.spec.access_mode == AccessMode::ReadWriteOncePod
                && live_users(state, claim).any(|other| other.meta.id != pod.meta.id);
            claim.bound_node() != Some(node) || is_shared
        })
    })
}
