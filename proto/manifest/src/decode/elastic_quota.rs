//! ElasticQuotaTrees.

use bulkhead_types::{ELASTIC_QUOTA_DEPTH_MAX, ElasticQuota, ElasticQuotaTreeSpec, Name};

use super::decoder::{Decoder, Fields, Schema};
use super::queue::amounts;
use crate::tree::Node;

const TREE: Schema = Schema { known: &["root"], ..Schema::EMPTY };
const LEVEL: Schema = Schema {
    known: &["name", "max", "min", "children", "namespaces"],
    not_yet: &["attributes", "scale"],
    ..Schema::EMPTY
};

/// What is wanted of a tree.
pub(super) fn tree(d: &mut Decoder<'_>, node: &Node) -> Option<ElasticQuotaTreeSpec> {
    let fields = d.fields(node, "spec", &TREE)?;
    let Some(root) = fields.get("root") else {
        d.missing(&fields, "root");
        return None;
    };
    Some(ElasticQuotaTreeSpec { root: level(d, root, &fields.path("root"), 1)? })
}

fn level(d: &mut Decoder<'_>, node: &Node, path: &str, depth: usize) -> Option<ElasticQuota> {
    let fields = d.fields(node, path, &LEVEL)?;
    let name = d.required_text(&fields, "name").unwrap_or_default();
    let children = if depth > ELASTIC_QUOTA_DEPTH_MAX {
        // What is below is told to be too deep by the rules for the whole.
        Vec::new()
    } else {
        d.each(&fields, "children", |d, node, path| level(d, node, path, depth + 1))
    };
    Some(ElasticQuota {
        name: name.into(),
        max: amounts(d, &fields, "max"),
        min: amounts(d, &fields, "min"),
        children,
        namespaces: namespaces(d, &fields),
    })
}

fn namespaces(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Vec<Name> {
    let mut names = Vec::new();
    for text in d.texts(fields, "namespaces") {
        match Name::new(text) {
            Ok(name) => names.push(name),
            Err(error) => d.fail(fields.place("namespaces"), &fields.path("namespaces"), error.to_string()),
        }
    }
    names
}
