//! Lists whose items have keys: they are merged item by item; all others are one value.
//!
//! Source: `patchMergeKey` and `listMapKeys` of the Kubernetes API's types.

use std::fmt::Write as _;

use serde_json::Value;
use smol_str::SmolStr;

/// The lists by their field's name, with the keys of their items, and what a key is when it is not given.
const KEYED: [(&str, &[(&str, &str)]); 8] = [
    ("containers", &[("name", "")]),
    ("initContainers", &[("name", "")]),
    ("volumes", &[("name", "")]),
    ("env", &[("name", "")]),
    ("volumeMounts", &[("mountPath", "")]),
    ("imagePullSecrets", &[("name", "")]),
    ("hostAliases", &[("ip", "")]),
    ("ports", &[("containerPort", ""), ("protocol", "TCP")]),
];

/// What tells the items of a list apart, such as `name`; `None` for lists that are one value.
#[must_use]
pub fn merge_key(field: &str) -> Option<&'static str> {
    KEYED.iter().find(|(name, _)| *name == field).map(|(_, keys)| keys[0].0)
}

/// A piece of a document, whatever it is made of.
pub(crate) trait Piece {
    /// A map's entry as a key's text.
    fn key(&self, name: &str) -> Option<String>;
    /// A list's items.
    fn items(&self) -> Option<Vec<&Self>>;
}

impl Piece for Value {
    fn key(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn items(&self) -> Option<Vec<&Self>> {
        self.as_array().map(|items| items.iter().collect())
    }
}

/// The key of an item of a list, as it stands in a path: `[name=web]`.
pub(crate) fn item_key(field: &str, item: &impl Piece) -> Option<SmolStr> {
    let (_, keys) = KEYED.iter().find(|(name, _)| *name == field)?;
    let mut text = String::from("[");
    for (position, (key, default)) in keys.iter().enumerate() {
        let value = item.key(key).or_else(|| (!default.is_empty()).then(|| (*default).to_owned()))?;
        let comma = if position > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{key}={value}");
    }
    text.push(']');
    Some(text.into())
}

/// The keys of all items of a list; `None` when it is one value: some have none, or two have the same.
pub(crate) fn item_keys<P: Piece>(field: &str, list: &P) -> Option<Vec<SmolStr>> {
    let keys = list.items()?.into_iter().map(|item| item_key(field, item)).collect::<Option<Vec<_>>>()?;
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    sorted.dedup();
    (sorted.len() == keys.len() && !keys.is_empty()).then_some(keys)
}
