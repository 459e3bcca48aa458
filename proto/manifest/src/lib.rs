//! Manifests: Kubernetes-shaped YAML in, domain objects or a list of mistakes out; and objects as text again.
//!
//! ```text
//!  text ─► tree (every node knows its line) ─► decode ─► bulkhead_types::Object ─► validate ─► Parsed
//!                        ▲                        │                                   │
//!                        └── path to line ────────┴───────────── ManifestError ◄──────┘
//!
//!  Object ─► to_value (JSON, for -o json) ─► to_yaml (for -o yaml); what it prints, parse reads again
//! ```
//!
//! Entry points: [`parse`], [`plan`] (an edit of what is there), [`to_value`], [`to_yaml`].
//!
//! Nothing of a text is dropped silently: a field that is unknown, or known to Kubernetes but not offered here
//! yet, is an error with file, line and path, and all errors of all files are reported together. This crate
//! never does IO, and text of any form costs bounded time and memory.

mod decode;
mod encode;
mod error;
mod fields;
mod keys;
mod merge;
mod plan;
mod strategic;
mod tree;

use bulkhead_types::{Name, Object};

pub use encode::{Names, device_value, to_value, to_yaml, value_to_yaml};
pub use error::{ERRORS_MAX, ManifestError};
pub use keys::merge_key;
pub use plan::{Edit, EditMode, FieldConflict, PlanError, Planned, managers_after, plan};
pub use strategic::strategic_merge;
pub use tree::{DEPTH_MAX, DOCUMENTS_MAX, NODES_MAX, SOURCE_BYTES_MAX};

/// A text and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// For messages: a path, or `-` for standard input.
    pub name: String,
    /// YAML, which JSON is too; one or more documents.
    pub text: String,
}

/// An object and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The object, with every default filled in, as a client submits it.
    pub object: Object,
    /// `metadata.resourceVersion`, when given: the revision that the object must still have.
    pub resource_version: Option<u64>,
    /// Whether `spec.replicas` is given: what is left out is left to an autoscaler, where there is one.
    pub states_replicas: bool,
    /// Whether the document says the StorageClass: of a claim, or of each template of claims of a StatefulSet, in their order.
    /// Empty for other objects.
    pub states_class: Vec<bool>,
    /// [`Source::name`] of its text.
    pub file: String,
    /// The line on which it begins, from 1.
    pub line: usize,
}

/// Reads the documents of a text as plain values, whatever they mean.
///
/// # Errors
/// What is wrong with the text's form.
pub fn read_values(source: &Source) -> Result<Vec<serde_json::Value>, Vec<ManifestError>> {
    let (documents, errors) = tree::read(source);
    if errors.is_empty() { Ok(documents.iter().map(tree::Node::to_value).collect()) } else { Err(errors) }
}

/// Reads all objects of all texts, in their order.
///
/// A namespaced object that names no namespace gets `default_namespace`.
///
/// # Errors
/// Every mistake, sorted by file (in the order given) and line; at most [`ERRORS_MAX`], the last of which then
/// says how many more there are.
pub fn parse(files: &[Source], default_namespace: Option<&Name>) -> Result<Vec<Parsed>, Vec<ManifestError>> {
    let mut parsed = Vec::new();
    let mut errors = Vec::new();
    for source in files {
        let (documents, syntax) = tree::read(source);
        errors.extend(syntax);
        for document in &documents {
            decode::document(document, &source.name, default_namespace, &mut parsed, &mut errors);
        }
    }
    decode::refuse_repeated(&parsed, &mut errors);
    if errors.is_empty() { Ok(parsed) } else { Err(error::arrange(errors, files)) }
}
