//! Manifests to objects and back, for the tests of one kind each.

use bulkhead_manifest::{ManifestError, Names, Parsed, Source, parse};
use bulkhead_types::{Kind, Name, Object, ObjectId};
use expect_test::Expect;
use uuid::Uuid;

fn no_name(_: Kind, _: ObjectId) -> Option<Name> {
    None
}

/// Nobody has an owner.
pub(crate) const NAMES: Names<'static> = Names { cluster_id: Some(Uuid::nil()), name_of: &no_name };

fn parsed(text: &str) -> Result<Vec<Parsed>, Vec<ManifestError>> {
    let source = Source { name: "a.yaml".to_owned(), text: text.to_owned() };
    parse(&[source], Some(&Name::new("default").expect("a name")))
}

/// The objects of a text without mistakes.
pub(crate) fn read(text: &str) -> Vec<Object> {
    let parsed = parsed(text).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
    parsed.into_iter().map(|parsed| parsed.object).collect()
}

/// What is wrong with a text, a line each.
pub(crate) fn check(text: &str, expected: Expect) {
    let found: String = match parsed(text) {
        Ok(_) => "accepted\n".to_owned(),
        Err(errors) => errors.iter().map(|error| format!("{error}\n")).collect(),
    };
    expected.assert_eq(&found);
}
