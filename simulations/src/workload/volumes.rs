//! Claims, snapshots of them, and pods that use them.

use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_types::{
    AccessMode, BuiltinClass, ClaimSource, ClaimSourceKind, Command, Container, FEATURE_LEVEL_MAX, Kind,
    Name, Object, ObjectMeta, ObjectRef, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    Pod, PodOptions, PodSpec, PodStatus, Rare, SHARED_VOLUMES_LEVEL, Shared, StorageClass, StorageClassSpec,
    Volume, VolumeSnapshot, VolumeSnapshotSpec, VolumeSource,
};

use super::name;
use crate::rng::Rng;

/// How many claims, snapshots and pods there are at most, each.
const NAMES: u64 = 4;
const GIB: u64 = 1 << 30;

/// The command that a cluster needs first, if it does.
pub(super) fn level(state: &State) -> Option<Command> {
    let is_low = state.feature_level() < SHARED_VOLUMES_LEVEL;
    is_low.then_some(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX })
}

/// Something comes, grows or goes.
pub(super) fn command(rng: &mut Rng, state: &State) -> Command {
    let namespace = Some(name("default"));
    let one_of = |rng: &mut Rng, letter: &str| name(&format!("{letter}-{}", rng.range(0, NAMES - 1)));
    let delete = |kind, name| {
        let object = ObjectRef { kind, namespace: namespace.clone(), name };
        Command::Delete { object, grace_ms: None, force: false }
    };
    match rng.range(0, 99) {
        0..30 => {
            let (pod, claim) = (one_of(rng, "vol"), one_of(rng, "claim"));
            Command::Create(user(namespace, pod, claim, rng.chance(400)))
        }
        30..45 => {
            let kind = *rng.pick(&[ClaimSourceKind::VolumeSnapshot, ClaimSourceKind::PersistentVolumeClaim]);
            let letter = if kind == ClaimSourceKind::VolumeSnapshot { "snap" } else { "claim" };
            let of = one_of(rng, letter).as_str().into();
            let source = rng.chance(400).then_some(ClaimSource { kind, name: of });
            let meta = ObjectMeta::new(namespace, one_of(rng, "claim"));
            let spec = PersistentVolumeClaimSpec {
                access_mode: match &source {
                    Some(_) => *rng.pick(&AccessMode::ALL),
                    None => *rng.pick(&[AccessMode::ReadWriteOnce, AccessMode::ReadWriteOnceReadOnlyMany]),
                },
                storage_bytes: rng.range(1, 3) * GIB,
                storage_class: *rng.pick(&[
                    BuiltinClass::Local,
                    BuiltinClass::Local,
                    BuiltinClass::LocalRetain,
                ]),
                volume_name: Rare::NONE,
                class: rng.chance(300).then(|| smol_str::SmolStr::new("class")).into(),
            };
            let (source, status) = (Rare::from(source), Default::default());
            Command::Create(Object::PersistentVolumeClaim(Arc::new(PersistentVolumeClaim {
                meta,
                spec,
                source,
                status,
            })))
        }
        45..60 => {
            let meta = ObjectMeta::new(namespace, one_of(rng, "snap"));
            let spec = VolumeSnapshotSpec { claim_name: one_of(rng, "claim").as_str().into() };
            let status = Default::default();
            Command::Create(Object::VolumeSnapshot(Arc::new(VolumeSnapshot { meta, spec, status })))
        }
        60..75 => {
            let wanted = one_of(rng, "claim");
            match state.claim(namespace.as_ref(), wanted.as_str()) {
                Some(claim) => {
                    let mut grown = PersistentVolumeClaim::clone(claim);
                    grown.spec.storage_bytes += rng.range(0, 2) * GIB;
                    Command::Apply(Object::PersistentVolumeClaim(Arc::new(grown)))
                }
                None => delete(Kind::PersistentVolumeClaim, wanted),
            }
        }
        75..82 => of_classes(rng, state).unwrap_or_else(|| delete(Kind::VolumeSnapshot, one_of(rng, "snap"))),
        82..88 => delete(Kind::PersistentVolumeClaim, one_of(rng, "claim")),
        _ => delete(Kind::Pod, one_of(rng, "vol")),
    }
}

/// A class comes or goes, or something with what a claim left behind, if there is any.
fn of_classes(rng: &mut Rng, state: &State) -> Option<Command> {
    let of_cluster = |kind, name| ObjectRef { kind, namespace: None, name };
    let delete = |object| Command::Delete { object, grace_ms: None, force: false };
    let object = match rng.range(0, 6) {
        0 => return Some(delete(of_cluster(Kind::StorageClass, name("class")))),
        1..3 => {
            let reclaim = *rng.pick(&BuiltinClass::ALL);
            let spec = StorageClassSpec { reclaim, allow_volume_expansion: rng.chance(700) };
            Object::StorageClass(Arc::new(StorageClass { meta: ObjectMeta::new(None, name("class")), spec }))
        }
        3 => {
            let volume = retained(rng, state)?;
            return Some(delete(of_cluster(Kind::PersistentVolume, volume.meta.name.clone())));
        }
        4 => {
            let mut volume = PersistentVolume::clone(retained(rng, state)?);
            (volume.spec.claim_namespace, volume.spec.claim_name) = Default::default();
            return Some(Command::Apply(Object::PersistentVolume(Arc::new(volume))));
        }
        _ => {
            let volume = retained(rng, state)?;
            let claim = name(&format!("claim-{}", rng.range(0, NAMES - 1)));
            let spec = PersistentVolumeClaimSpec {
                access_mode: *rng.pick(&AccessMode::ALL),
                storage_bytes: rng.range(1, 3) * GIB,
                storage_class: BuiltinClass::LocalRetain,
                class: volume.spec.class.clone(),
                volume_name: Rare::some(volume.meta.name.as_str().into()),
            };
            let (meta, status) = (ObjectMeta::new(Some(name("default")), claim), Default::default());
            let claim = PersistentVolumeClaim { meta, spec, source: Rare::NONE, status };
            Object::PersistentVolumeClaim(Arc::new(claim))
        }
    };
    Some(Command::Create(object))
}

/// Something that a claim left behind.
fn retained<'s>(rng: &mut Rng, state: &'s State) -> Option<&'s Arc<PersistentVolume>> {
    let count = state.persistent_volumes().iter().count() as u64;
    let chosen = count.checked_sub(1).map(|last| rng.range(0, last))?;
    state.persistent_volumes().iter().nth(usize::try_from(chosen).ok()?)
}

fn user(namespace: Option<Name>, pod: Name, claim: Name, read_only: bool) -> Object {
    let source = VolumeSource::PersistentVolumeClaim { claim_name: claim.as_str().into(), read_only };
    let volumes = vec![Volume { name: "v".into(), source }];
    let container = Container { name: "c".into(), image: "i:1".into(), ..Container::default() };
    let spec = PodSpec {
        containers: vec![container],
        options: Rare::some(PodOptions { volumes, ..PodOptions::default() }),
        ..PodSpec::default()
    };
    let meta = ObjectMeta::new(namespace, pod);
    let (spec, status) = (Shared::new(spec), PodStatus::default());
    Object::Pod(Arc::new(Pod { meta, spec, node: None, status }))
}
