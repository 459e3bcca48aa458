//! `metadata` of objects and templates.

use bulkhead_types::{Kind, Name, ObjectMeta, StringMap};

use super::decoder::{Decoder, Fields, Schema};

const OBJECT_META: Schema = Schema {
    known: &["name", "namespace", "labels", "annotations", "resourceVersion"],
    ignored: &[
        "uid",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
        "ownerReferences",
    ],
    not_yet: &["generateName", "finalizers"],
    ..Schema::EMPTY
};
const TEMPLATE_META: Schema = Schema {
    known: &["labels", "annotations"],
    ignored: &["creationTimestamp"],
    not_yet: &["name", "namespace", "generateName", "finalizers", "ownerReferences"],
    ..Schema::EMPTY
};

/// An object's metadata; `None` when there is no usable name.
pub(super) fn object(
    d: &mut Decoder<'_>,
    object: &Fields<'_>,
    kind: Kind,
    default_namespace: Option<&Name>,
) -> Option<ObjectMeta> {
    let Some(node) = object.get("metadata") else {
        d.missing(object, "metadata");
        return None;
    };
    let fields = d.fields(node, "metadata", &OBJECT_META)?;
    if fields.get("name").is_none() {
        d.missing(&fields, "name");
    }
    let name = name(d, &fields, "name");
    let mut namespace = name_in_namespace(d, &fields);
    if kind.is_namespaced() && fields.get("namespace").is_none() {
        namespace = default_namespace.cloned();
    }
    let labels = d.string_map(&fields, "labels");
    let annotations = d.string_map(&fields, "annotations");
    Some(ObjectMeta { labels, annotations, ..ObjectMeta::new(namespace, name?) })
}

/// `metadata.resourceVersion`: as in Kubernetes an opaque string of the server's, here digits. An empty one, and `0`,
/// say nothing.
pub(super) fn resource_version(d: &mut Decoder<'_>, object: &Fields<'_>) -> Option<u64> {
    let fields = d.fields(object.get("metadata")?, "metadata", &OBJECT_META)?;
    fields.get("resourceVersion").filter(|node| !node.is_null())?;
    let text = d.text(&fields, "resourceVersion")?;
    if text.is_empty() {
        return None;
    }
    match text.parse() {
        Ok(revision) => Some(revision).filter(|revision| *revision > 0),
        Err(_) => {
            let reason = format!("{text:?} is no resourceVersion of this server: those are decimal numbers");
            d.fail(fields.place("resourceVersion"), &fields.path("resourceVersion"), reason);
            None
        }
    }
}

fn name_in_namespace(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<Name> {
    // What no namespace holds is often written with an empty one.
    if d.text(fields, "namespace").is_some_and(|text| text.is_empty()) {
        None
    } else {
        name(d, fields, "namespace")
    }
}

fn name(d: &mut Decoder<'_>, fields: &Fields<'_>, field: &str) -> Option<Name> {
    let text = d.text(fields, field)?;
    match Name::new(text) {
        Ok(name) => Some(name),
        Err(error) => {
            d.fail(fields.place(field), &fields.path(field), error.to_string());
            None
        }
    }
}

/// Labels and annotations of a template.
pub(super) fn template(d: &mut Decoder<'_>, template: &Fields<'_>) -> (StringMap, StringMap) {
    let fields =
        template.get("metadata").and_then(|node| d.fields(node, &template.path("metadata"), &TEMPLATE_META));
    let Some(fields) = fields else { return Default::default() };
    (d.string_map(&fields, "labels"), d.string_map(&fields, "annotations"))
}
