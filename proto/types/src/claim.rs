//! PersistentVolumeClaims: volumes that outlive pods, on the node where their first pod was placed; as in `v1`.
//!
//! Source: "Persistent Volumes" and "Storage Classes" in the Kubernetes documentation. There are no PersistentVolumes: a
//! bound claim is its volume.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::{
    ClaimSource, Name, ObjectId, ObjectMeta, PodOptions, PodSpec, Rare, Shared, StatefulSetSpec, StringMap,
    Volume, VolumeProgress, VolumeSource,
};

/// The label by which an agent says that it keeps volumes of claims: pods with claims are placed on such nodes only.
pub const LABEL_LOCAL_VOLUMES: &str = "node.bulkhead.io/local-volumes";
/// The label of a node with how many claims its pods may use together; without it, or without a number, there is no limit.
pub const LABEL_VOLUMES_MAX: &str = "node.bulkhead.io/volumes-max";

/// Who may have a volume at a time, which is local to one node whatever this says: ReadOnlyMany is for many pods of it, and
/// ReadWriteMany is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AccessMode {
    /// Pods of one node. Their guests cannot share a disk: one has it, the others wait for it there.
    ReadWriteOnce = 1,
    /// One pod: others are not even placed while it lives.
    ReadWriteOncePod = 2,
    /// Pods of one node, all of which only read. Since [`crate::SHARED_VOLUMES_LEVEL`].
    ReadOnlyMany = 3,
    /// ReadWriteOnce and ReadOnlyMany: one guest writes, or several read. Since [`crate::SHARED_VOLUMES_LEVEL`].
    ReadWriteOnceReadOnlyMany = 5,
}

impl AccessMode {
    /// Every mode, or set of modes.
    pub const ALL: [Self; 4] =
        [Self::ReadWriteOnce, Self::ReadWriteOncePod, Self::ReadOnlyMany, Self::ReadWriteOnceReadOnlyMany];

    /// The names as in a manifest.
    #[must_use]
    pub fn modes(self) -> &'static [&'static str] {
        match self {
            Self::ReadWriteOnce => &["ReadWriteOnce"],
            Self::ReadWriteOncePod => &["ReadWriteOncePod"],
            Self::ReadOnlyMany => &["ReadOnlyMany"],
            Self::ReadWriteOnceReadOnlyMany => &["ReadWriteOnce", "ReadOnlyMany"],
        }
    }

    /// Whether a pod may write, if it does not say that it only reads.
    #[must_use]
    pub fn may_write(self) -> bool {
        self != Self::ReadOnlyMany
    }

    /// Whether a pod that says so, or that cannot do else, reads beside others that read.
    #[must_use]
    pub fn may_share(self) -> bool {
        self != Self::ReadWriteOncePod
    }

    /// The short name that Kubernetes' tables show.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "RWO",
            Self::ReadWriteOncePod => "RWOP",
            Self::ReadOnlyMany => "ROX",
            Self::ReadWriteOnceReadOnlyMany => "RWO,ROX",
        }
    }
}

/// What becomes of the data of a claim that is deleted, and the class that there always is of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BuiltinClass {
    /// It is deleted with the claim.
    #[default]
    Local = 1,
    /// The file stays on its node, for people.
    LocalRetain = 2,
}

impl BuiltinClass {
    /// Every class.
    pub const ALL: [Self; 2] = [Self::Local, Self::LocalRetain];

    /// The name as in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::LocalRetain => "local-retain",
        }
    }
}

/// A volume that outlives pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PersistentVolumeClaim {
    /// Standard metadata.
    pub meta: ObjectMeta,
    /// What is wanted; nothing of it can change after creation but the size, which can grow.
    pub spec: PersistentVolumeClaimSpec,
    /// What its volume begins with; cannot change after creation. Since [`crate::VOLUMES_LEVEL`].
    pub source: Rare<ClaimSource>,
    /// What is known.
    pub status: PersistentVolumeClaimStatus,
}

/// What is wanted of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PersistentVolumeClaimSpec {
    /// Who may have it at a time.
    pub access_mode: AccessMode,
    /// How much it takes at most, in bytes, from 1 to 2^53. It uses what is written, and is not counted when pods are
    /// placed.
    pub storage_bytes: u64,
    /// What becomes of its data. Where a class is named this is as that said when the claim was created.
    pub storage_class: BuiltinClass,
    /// The name of its StorageClass, when that is not `storage_class` itself. Since [`crate::STORAGE_CLASS_LEVEL`].
    pub class: Rare<SmolStr>,
    /// The PersistentVolume that it takes over when it is created. Since [`crate::STORAGE_CLASS_LEVEL`].
    pub volume_name: Rare<SmolStr>,
}

impl PersistentVolumeClaimSpec {
    /// Whether it says what no cluster below [`crate::SHARED_VOLUMES_LEVEL`] knows.
    #[must_use]
    pub fn needs_sharing(&self) -> bool {
        matches!(self.access_mode, AccessMode::ReadOnlyMany | AccessMode::ReadWriteOnceReadOnlyMany)
    }

    /// Whether it says what no cluster below [`crate::STORAGE_CLASS_LEVEL`] knows.
    #[must_use]
    pub fn needs_classes(&self) -> bool {
        self.class.get().is_some() || self.volume_name.get().is_some()
    }

    /// The name of its class.
    #[must_use]
    pub fn class_name(&self) -> &str {
        self.class.get().map_or(self.storage_class.as_str(), SmolStr::as_str)
    }
}

/// Where a claim stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClaimPhase {
    /// It waits for its first pod.
    #[default]
    Pending = 1,
    /// It has its node.
    Bound = 2,
    /// Its node is gone, and the data with it.
    Lost = 3,
}

impl ClaimPhase {
    /// The name as Kubernetes shows it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Bound => "Bound",
            Self::Lost => "Lost",
        }
    }
}

/// What is known of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PersistentVolumeClaimStatus {
    /// Where it stands.
    pub phase: ClaimPhase,
    /// The node that keeps it, once it is bound; it stays when that is gone.
    pub node: Option<ObjectId>,
    /// That node's name; else empty.
    pub node_name: SmolStr,
    /// Its size, once it is bound, in bytes.
    pub capacity_bytes: u64,
    /// What its file is named by, once it is bound: the claim's UUID then. A cluster that was restored is another one,
    /// in which the claim has another UUID.
    pub volume: Uuid,
    /// When a container with it was first reported to have begun, in Unix milliseconds of log time: what its node keeps then
    /// is data, and is never made anew. Missing before, and below [`crate::PLACEMENT_LEVEL`].
    pub first_used_at_ms: Rare<u64>,
    /// What its node has done of what is wanted beside that; from [`crate::VOLUMES_LEVEL`] on.
    pub progress: Rare<VolumeProgress>,
}

impl PersistentVolumeClaim {
    /// Whether its volume is still to be made of its source.
    #[must_use]
    pub fn awaits_source(&self) -> bool {
        self.source.get().is_some() && !self.status.progress.get().is_some_and(|progress| progress.populated)
    }

    /// What its volume shall have beyond what it has, once it is on a node, in bytes. A file system grows in a guest that
    /// writes to it only.
    #[must_use]
    pub fn grows_to(&self) -> Option<u64> {
        let wanted = self.spec.storage_bytes;
        let may_grow = self.bound_node().is_some() && self.spec.access_mode.may_write();
        (may_grow && wanted > self.status.capacity_bytes).then_some(wanted)
    }

    /// The node that keeps its data, while there is one.
    #[must_use]
    pub fn bound_node(&self) -> Option<ObjectId> {
        self.status.node.filter(|_| self.status.phase == ClaimPhase::Bound)
    }

    /// The node that must delete its data before it may go.
    #[must_use]
    pub fn reclaimed_by(&self) -> Option<ObjectId> {
        self.bound_node().filter(|_| self.spec.storage_class == BuiltinClass::Local)
    }
}

/// What becomes of a StatefulSet's claims when their pod is not wanted any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClaimRetention {
    /// They stay.
    #[default]
    Retain = 1,
    /// They are deleted.
    Delete = 2,
}

impl ClaimRetention {
    /// The name as in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retain => "Retain",
            Self::Delete => "Delete",
        }
    }
}

/// The claims that each pod of a StatefulSet has of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeClaims {
    /// One claim each; cannot change after creation; at most [`crate::VOLUMES_MAX`].
    pub templates: Vec<VolumeClaimTemplate>,
    /// When the set is deleted.
    pub when_deleted: ClaimRetention,
    /// When their ordinal is above the wanted ones.
    pub when_scaled: ClaimRetention,
}

/// What the claims of one volume look like.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeClaimTemplate {
    /// The volume's name in the pod, and the beginning of the claims' names; unique in the set; a DNS label.
    pub name: SmolStr,
    /// Labels of the claims, beside those that the set's selector wants.
    pub labels: StringMap,
    /// Annotations of the claims.
    pub annotations: StringMap,
    /// What is wanted of each.
    pub spec: PersistentVolumeClaimSpec,
}

impl VolumeClaimTemplate {
    /// The name of an ordinal's claim, as Kubernetes makes it: `data-web-0`. `None` when it is too long.
    #[must_use]
    pub fn claim_name(&self, set: &Name, ordinal: u32) -> Option<Name> {
        Name::new(format!("{}-{set}-{ordinal}", self.name)).ok()
    }

    /// The ordinal that a claim of this template is for; `None` when it is none of them.
    #[must_use]
    pub fn ordinal_of(&self, set: &Name, claim: &Name) -> Option<u32> {
        let rest = claim.as_str().strip_prefix(self.name.as_str())?.strip_prefix('-')?;
        let digits = rest.strip_prefix(set.as_str())?.strip_prefix('-')?;
        let ordinal = digits.parse().ok()?;
        // "01" is nobody's, and "+1" not even a name.
        (self.claim_name(set, ordinal).as_ref() == Some(claim)).then_some(ordinal)
    }
}

impl StatefulSetSpec {
    /// What the claims of each pod look like.
    #[must_use]
    pub fn claim_templates(&self) -> &[VolumeClaimTemplate] {
        self.claims.get().map_or(&[], |claims| &claims.templates)
    }

    /// A template's pod with the volumes of an ordinal's own claims; such a volume takes the place of one of its name
    /// (Kubernetes' rule).
    #[must_use]
    pub fn with_claims(&self, template: &Shared<PodSpec>, set: &Name, ordinal: u32) -> Shared<PodSpec> {
        if self.claim_templates().is_empty() {
            return template.clone();
        }
        let mut spec = PodSpec::clone(template);
        let mut options = spec.options.get().cloned().unwrap_or_default();
        for claim in self.claim_templates() {
            // One that is too long is refused before there is such a set.
            let claim_name = claim.claim_name(set, ordinal);
            let claim_name = claim_name.map_or_else(|| claim.name.clone(), |name| name.as_str().into());
            let source = VolumeSource::PersistentVolumeClaim { claim_name, read_only: false };
            match options.volumes.iter_mut().find(|volume| volume.name == claim.name) {
                Some(volume) => volume.source = source,
                None => options.volumes.push(Volume { name: claim.name.clone(), source }),
            }
        }
        spec.options = Rare::<PodOptions>::some(options);
        Shared::new(spec)
    }
}

impl StatefulSetSpec {
    /// The claims that all of its pods use, each with whether they only read.
    pub fn shared_claims(&self) -> impl Iterator<Item = (&SmolStr, bool)> {
        let is_own = |name: &str| self.claim_templates().iter().any(|template| template.name == name);
        let volumes = self.template.spec.volumes().iter().filter(move |volume| !is_own(&volume.name));
        volumes.filter_map(Volume::claim)
    }
}

impl Volume {
    /// The claim that it is of, with whether the pod only reads.
    #[must_use]
    pub fn claim(&self) -> Option<(&SmolStr, bool)> {
        match &self.source {
            VolumeSource::PersistentVolumeClaim { claim_name, read_only } => Some((claim_name, *read_only)),
            _ => None,
        }
    }
}

impl PodSpec {
    /// The names of the claims to which it may write, as far as it says itself.
    pub fn written_claims(&self) -> impl Iterator<Item = &SmolStr> {
        let claims = self.volumes().iter().filter_map(Volume::claim);
        claims.filter(|(_, read_only)| !read_only).map(|(name, _)| name)
    }

    /// The names of the claims that it uses.
    pub fn claims(&self) -> impl Iterator<Item = &SmolStr> {
        self.volumes().iter().filter_map(|volume| match &volume.source {
            VolumeSource::PersistentVolumeClaim { claim_name, .. } => Some(claim_name),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, set: &str, claim: &str, ordinal: Option<u32>) {
        let spec = PersistentVolumeClaimSpec {
            access_mode: AccessMode::ReadWriteOnce,
            storage_bytes: 1,
            storage_class: BuiltinClass::Local,
            class: Rare::NONE,
            volume_name: Rare::NONE,
        };
        let (labels, annotations) = (StringMap::new(), StringMap::new());
        let template = VolumeClaimTemplate { name: template.into(), labels, annotations, spec };
        let name = |text| Name::new(text).expect("a name");
        assert_eq!(template.ordinal_of(&name(set), &name(claim)), ordinal, "{claim}");
    }

    #[test]
    fn claims_are_told_by_their_names() {
        check("data", "web", "data-web-0", Some(0));
        check("data", "web", "data-web-17", Some(17));
        check("data", "web", "data-web-017", None);
        check("data", "web", "data-web-1-0", None);
        check("data", "web", "data-web", None);
        check("data", "web", "log-web-0", None);
    }
}
