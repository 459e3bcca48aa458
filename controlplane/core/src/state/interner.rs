//! Equal parts of different objects become one in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulkhead_types::{
    Name, Object, ObjectMeta, PciTraits, Pod, PodSpec, PodTemplate, Shared, StringMap, digest128,
    share_pci_traits,
};
use smol_str::SmolStr;

/// What was seen so far. Objects that come from bytes share nothing with each other, though pods of one template did
/// before they became bytes.
#[derive(Debug, Default)]
pub(super) struct Interner {
    /// By digest.
    specs: BTreeMap<u128, Shared<PodSpec>>,
    /// By digest.
    traits: BTreeMap<u128, Shared<PciTraits>>,
    /// By digest.
    maps: BTreeMap<u128, StringMap>,
    namespaces: BTreeSet<Name>,
    /// Those that are too long to be kept in place.
    texts: BTreeSet<SmolStr>,
}

impl Interner {
    /// The same object, with what it has in common with earlier ones shared.
    pub(super) fn intern(&mut self, object: Object) -> Object {
        match object {
            Object::Pod(mut pod) => {
                let Pod { meta, spec, status, .. } = Arc::make_mut(&mut pod);
                self.meta(meta);
                self.spec(spec);
                for container in status.init_containers.iter_mut().chain(&mut status.containers) {
                    self.text(&mut container.image_digest);
                }
                Object::Pod(pod)
            }
            Object::ReplicaSet(row) => {
                Object::ReplicaSet(self.templated(row, |row| (&mut row.meta, &mut row.spec.template)))
            }
            Object::Deployment(row) => {
                Object::Deployment(self.templated(row, |row| (&mut row.meta, &mut row.spec.template)))
            }
            Object::StatefulSet(row) => {
                Object::StatefulSet(self.templated(row, |row| (&mut row.meta, &mut row.spec.template)))
            }
            Object::DaemonSet(row) => {
                Object::DaemonSet(self.templated(row, |row| (&mut row.meta, &mut row.spec.template)))
            }
            Object::Job(row) => {
                Object::Job(self.templated(row, |row| (&mut row.meta, &mut row.spec.template)))
            }
            Object::CronJob(row) => Object::CronJob(
                self.templated(row, |row| (&mut row.meta, &mut row.spec.job_template.spec.template)),
            ),
            Object::ControllerRevision(row) => {
                Object::ControllerRevision(self.templated(row, |row| (&mut row.meta, &mut row.template)))
            }
            Object::ResourceSlice(mut slice) => {
                share_pci_traits(&mut Arc::make_mut(&mut slice).devices, &mut self.traits);
                Object::ResourceSlice(slice)
            }
            other => other,
        }
    }

    /// What has a template for pods, and where its parts are.
    fn templated<T: Clone>(
        &mut self,
        mut row: Arc<T>,
        parts: impl FnOnce(&mut T) -> (&mut ObjectMeta, &mut PodTemplate),
    ) -> Arc<T> {
        let (meta, template) = parts(Arc::make_mut(&mut row));
        self.meta(meta);
        self.template(template);
        row
    }

    fn meta(&mut self, meta: &mut ObjectMeta) {
        if let Some(namespace) = &mut meta.namespace {
            one(&mut self.namespaces, namespace);
        }
        self.map(&mut meta.labels);
        self.map(&mut meta.annotations);
        if let Some(trace_context) = &mut meta.trace_context {
            self.text(trace_context);
        }
    }

    fn template(&mut self, template: &mut PodTemplate) {
        self.map(&mut template.labels);
        self.map(&mut template.annotations);
        self.spec(&mut template.spec);
    }

    fn spec(&mut self, spec: &mut Shared<PodSpec>) {
        debug_assert_eq!(spec.digest(), digest128(&**spec));
        let known = self.specs.entry(spec.digest()).or_insert_with(|| spec.clone());
        // The digest does not tell a readiness probe from a liveness probe (`Rare`), and users choose what is hashed.
        if known == spec {
            spec.clone_from(known);
        }
    }

    fn map(&mut self, map: &mut StringMap) {
        if map.is_empty() {
            return;
        }
        let known = self.maps.entry(digest128(map)).or_insert_with(|| map.clone());
        // Users choose what is hashed here: equal digests are believed only with equal content.
        if known == map {
            map.clone_from(known);
        }
    }

    fn text(&mut self, text: &mut SmolStr) {
        if text.is_heap_allocated() {
            one(&mut self.texts, text);
        }
    }
}

/// The value as it is known already, or known from now on.
fn one<T: Ord + Clone>(known: &mut BTreeSet<T>, value: &mut T) {
    match known.get(value) {
        Some(present) => value.clone_from(present),
        None => _ = known.insert(value.clone()),
    }
}
