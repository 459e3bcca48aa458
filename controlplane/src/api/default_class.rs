//! The StorageClass of claims whose manifests name none.
//!
//! Source: "Change the default StorageClass" and "DefaultStorageClass" (admission controllers) in the Kubernetes documentation:
//! a new claim without a class gets the default one, of several the newest; without one, here, it is `local`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_controlplane_core::State;
use bulkhead_manifest::Planned;
use bulkhead_types::{Object, PersistentVolumeClaimSpec, Rare, StorageClass, VolumeClaimTemplate};
use smol_str::SmolStr;

/// Gives new claims, and templates of claims, that name no class the default one as it is once the objects before them are
/// applied; those that are there keep the class that they got so.
pub(super) fn choose(before: &State, planned: &mut [Planned]) {
    let mut defaults = Defaults::of(before);
    for (position, one) in planned.iter_mut().enumerate() {
        let present = before.find_object(&one.parsed.object.object_ref());
        let says = &one.parsed.states_class;
        match &mut one.parsed.object {
            Object::StorageClass(class) => defaults.apply(position, class, present.as_ref()),
            Object::PersistentVolumeClaim(claim) if says.first() == Some(&false) => {
                let former = match &present {
                    Some(Object::PersistentVolumeClaim(present)) => Former::Was(&present.spec),
                    _ => Former::IsNew,
                };
                fill(&mut Arc::make_mut(claim).spec, former, &defaults);
            }
            Object::StatefulSet(set) if says.contains(&false) => {
                let Some(mut claims) = set.spec.claims.get().cloned() else { continue };
                for (template, _) in claims.templates.iter_mut().zip(says).filter(|(_, says)| !**says) {
                    let former = match &present {
                        Some(Object::StatefulSet(present)) => {
                            let same = |one: &&VolumeClaimTemplate| one.name == template.name;
                            // A template that is not there is refused, whatever its class.
                            let found = present.spec.claim_templates().iter().find(same);
                            found.map_or(Former::IsNew, |found| Former::Was(&found.spec))
                        }
                        _ => Former::IsNew,
                    };
                    fill(&mut template.spec, former, &defaults);
                }
                Arc::make_mut(set).spec.claims = Rare::some(claims);
            }
            _ => {}
        }
    }
}

/// What there is of a claim, or of a template of claims.
enum Former<'a> {
    IsNew,
    Was(&'a PersistentVolumeClaimSpec),
}

fn fill(spec: &mut PersistentVolumeClaimSpec, former: Former<'_>, defaults: &Defaults) {
    match former {
        // What has a class that is always there says so itself, or has none.
        Former::Was(present) => spec.class = present.class.clone(),
        Former::IsNew => spec.class = defaults.newest().into(),
    }
}

/// The default classes, by when they were created.
struct Defaults(BTreeMap<SmolStr, (u64, u64)>);

impl Defaults {
    fn of(state: &State) -> Self {
        let classes = state.storage_classes().iter().filter(|class| class.is_default());
        Self(classes.map(|class| (class.meta.name.as_str().into(), age(class))).collect())
    }

    /// A class as it will be; `position` orders those that are created together.
    fn apply(&mut self, position: usize, class: &StorageClass, present: Option<&Object>) {
        let name = class.meta.name.as_str();
        let created = match present {
            Some(Object::StorageClass(present)) => age(present),
            _ => (u64::MAX, position as u64),
        };
        match class.is_default() {
            true => self.0.insert(name.into(), created),
            false => self.0.remove(name),
        };
    }

    fn newest(&self) -> Option<SmolStr> {
        self.0.iter().max_by_key(|(_, created)| **created).map(|(name, _)| name.clone())
    }
}

fn age(class: &StorageClass) -> (u64, u64) {
    (class.meta.created_at_ms, class.meta.id.0)
}

#[cfg(test)]
mod tests {
    use bulkhead_controlplane_core::Machine;
    use bulkhead_manifest::{Edit, EditMode, Source, plan};
    use bulkhead_types::{Command, FEATURE_LEVEL_MAX, MemberId, Name, Stamped};
    use uuid::Uuid;

    use super::*;

    const CLAIM: &str = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\n\
        spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
    const SET: &str = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n  serviceName: db\n  \
        selector: {matchLabels: {app: db}}\n  template:\n    metadata: {labels: {app: db}}\n    \
        spec: {containers: [{name: db, image: 'db:1'}]}\n  volumeClaimTemplates:\n  \
        - metadata: {name: data}\n    spec: {accessModes: [ReadWriteOncePod], resources: {requests: {storage: 1Gi}}}\n";

    fn class(name: &str, is_default: bool) -> String {
        format!(
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: {name}\n  annotations: \
             {{storageclass.kubernetes.io/is-default-class: '{is_default}'}}\nprovisioner: local.bulkhead.io\n"
        )
    }

    struct Server(Machine, u64);

    impl Server {
        fn new() -> Self {
            let mut server = Self(Machine::default(), 0);
            let members = vec![(MemberId(1), "a:1".into())];
            server.submit(Command::InitCluster { cluster_id: Uuid::from_u128(7), members });
            server.submit(Command::RegisterMember {
                member: MemberId(1),
                storage_uid: Uuid::from_u128(8),
                address: "a:1".into(),
                version: "0.1.0".into(),
                feature_level_max: FEATURE_LEVEL_MAX,
            });
            server.submit(Command::RaiseFeatureLevel { level: FEATURE_LEVEL_MAX });
            server
        }

        fn submit(&mut self, command: Command) {
            self.1 += 1;
            let applied = self.0.apply_stamped(&Stamped {
                request_id: Uuid::from_u128(u128::from(self.1)),
                actor: "user:test".into(),
                proposed_at_ms: 1000 * self.1,
                trace_context: None,
                preconditions: Vec::new(),
                commands: vec![command],
            });
            assert!(applied.transaction.outcome.is_ok(), "{:?}", applied.transaction.outcome);
        }

        /// The classes that the claims of a text get, which is then applied.
        fn apply(&mut self, text: &str) -> Vec<String> {
            let files = [Source { name: "-".into(), text: text.into() }];
            let edit = Edit { manager: "test", mode: EditMode::Apply { force: false } };
            let state = self.0.state().clone();
            let namespace = Name::new("default").ok();
            let mut planned =
                plan(&files, namespace.as_ref(), edit, &|one| state.find_object(one)).expect("good");
            choose(&state, &mut planned);
            let mut classes = Vec::new();
            for one in planned {
                match &one.parsed.object {
                    Object::PersistentVolumeClaim(claim) => classes.push(claim.spec.class_name().to_owned()),
                    Object::StatefulSet(set) => classes.extend(
                        set.spec.claim_templates().iter().map(|one| one.spec.class_name().to_owned()),
                    ),
                    _ => {}
                }
                self.submit(Command::Update { object: one.parsed.object, seen: one.seen });
            }
            classes
        }
    }

    #[test]
    fn what_names_no_class_gets_the_newest_default_and_keeps_it() {
        let mut server = Server::new();
        assert_eq!(server.apply(CLAIM), ["local"]);
        // In one text with its class, and of several that of the newest.
        let both = format!("{}---\n{}---\n{SET}", class("first", true), class("no", false));
        assert_eq!(server.apply(&both), ["first"]);
        let named = |name: &str, more: &str| {
            CLAIM
                .replace("name: data", &format!("name: {name}"))
                .replace("spec: {", &format!("spec: {{{more}"))
        };
        assert_eq!(server.apply(&named("a", "")), ["first"]);
        server.apply(&class("second", true));
        assert_eq!(server.apply(&named("b", "")), ["second"]);
        assert_eq!(server.apply(&named("c", "storageClassName: local, ")), ["local"]);
        // Applied again they are what they are.
        for (text, class) in
            [(named("a", ""), "first"), (CLAIM.to_owned(), "local"), (SET.to_owned(), "first")]
        {
            assert_eq!(server.apply(&text), [class], "{text}");
        }
        server.apply(&class("second", false));
        assert_eq!(server.apply(&named("d", "")), ["first"]);
        server.apply(&class("first", false));
        assert_eq!(server.apply(&named("e", "")), ["local"]);
    }
}
