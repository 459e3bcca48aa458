//! An applied document over what is there: pure, on trees that know their lines.

use bulkhead_types::{FIELD_ITSELF, FieldSet};
use smol_str::SmolStr;

use crate::keys::{Piece, item_key, item_keys};
use crate::tree::{Key, Node, Place, Value};

impl Piece for Node {
    fn key(&self, name: &str) -> Option<String> {
        match &self.get(name)?.value {
            Value::Text(text) | Value::Number(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn items(&self) -> Option<Vec<&Self>> {
        match &self.value {
            Value::List(items) => Some(items.iter().collect()),
            _ => None,
        }
    }
}

/// What a document says, at the fields that users may set.
pub(crate) fn fields_of(document: &Node) -> FieldSet {
    let Value::Map(entries) = &document.value else { return FieldSet::default() };
    let mut set = FieldSet::default();
    for (key, node) in entries.iter().filter(|(_, node)| !node.is_null()) {
        match key.text.as_str() {
            "" | "apiVersion" | "kind" | "status" => {}
            "metadata" => {
                let mut below = FieldSet::default();
                for part in ["labels", "annotations"] {
                    let Some(node) = node.get(part).filter(|node| !node.is_null()) else { continue };
                    below.insert_below(part.into(), said(node, part));
                }
                if !below.is_empty() {
                    set.insert_below("metadata".into(), below);
                }
            }
            // What is written as plain text stands in `data`.
            name => {
                let name = if name == "stringData" { "data" } else { name };
                let mut part = FieldSet::default();
                part.insert_below(name.into(), said(node, name));
                set = set.union(&part);
            }
        }
    }
    set
}

/// What a piece says below itself; nothing when it is one value.
fn said(node: &Node, field: &str) -> FieldSet {
    let mut set = FieldSet::default();
    match &node.value {
        Value::Map(entries) => {
            // No field has an empty name: decoding says so.
            for (key, node) in entries.iter().filter(|(key, node)| !key.text.is_empty() && !node.is_null()) {
                set.insert_below(SmolStr::new(&key.text), said(node, &key.text));
            }
            if set.is_empty() {
                set.insert(&[FIELD_ITSELF]);
            }
        }
        Value::List(items) => {
            for (key, item) in item_keys(field, node).unwrap_or_default().into_iter().zip(items) {
                set.insert_below(key, said(item, ""));
            }
        }
        _ => {}
    }
    set
}

/// What is there, with all that the document says instead.
pub(crate) fn overlay(present: &Node, document: &Node, field: &str) -> Node {
    let value = match (&present.value, &document.value) {
        (Value::Map(old), Value::Map(new)) => Value::Map(overlay_map(old, new)),
        (Value::List(_), Value::List(new)) => match (item_keys(field, present), item_keys(field, document)) {
            (Some(old_keys), Some(new_keys)) => Value::List(overlay_list(present, &old_keys, new, &new_keys)),
            _ => document.value.clone(),
        },
        _ => document.value.clone(),
    };
    Node { place: document.place, value }
}

fn overlay_map(old: &[(Key, Node)], new: &[(Key, Node)]) -> Vec<(Key, Node)> {
    let mut merged: Vec<(Key, Node)> = Vec::with_capacity(old.len().max(new.len()));
    for (key, node) in old {
        let said = new.iter().find(|(name, _)| name.text == key.text);
        merged.push(match said {
            Some((key, said)) => (key.clone(), overlay(node, said, &key.text)),
            None => (key.clone(), node.clone()),
        });
    }
    let is_new = |(key, _): &&(Key, Node)| !old.iter().any(|(name, _)| name.text == key.text);
    merged.extend(new.iter().filter(is_new).cloned());
    merged
}

/// The items of the document take their own order among the places of those that are there already; others' items
/// stay where they are, and new ones come last. So two who apply items of one list never move each other's.
fn overlay_list(present: &Node, old_keys: &[SmolStr], new: &[Node], new_keys: &[SmolStr]) -> Vec<Node> {
    let Value::List(old) = &present.value else { return new.to_vec() };
    let merged_item = |position: usize| match old_keys.iter().position(|key| *key == new_keys[position]) {
        Some(at) => overlay(&old[at], &new[position], ""),
        None => new[position].clone(),
    };
    let mut said = (0..new.len()).map(merged_item);
    let mut merged = Vec::with_capacity(old.len() + new.len());
    for (key, item) in old_keys.iter().zip(old) {
        if new_keys.contains(key) {
            merged.extend(said.next());
        } else {
            merged.push(item.clone());
        }
    }
    merged.extend(said);
    merged
}

/// Takes out what is in `former` and has nothing left of `kept`.
pub(crate) fn prune(node: &mut Node, field: &str, former: &FieldSet, kept: &FieldSet) {
    for (step, below) in former.iter() {
        match kept.get(step) {
            None => remove(node, field, step),
            Some(kept) if !kept.is_empty() => {
                if let Some(part) = part_mut(node, field, step) {
                    prune(part, step, below, kept);
                }
            }
            Some(_) => {}
        }
    }
}

fn remove(node: &mut Node, field: &str, step: &SmolStr) {
    match &mut node.value {
        Value::Map(entries) => entries.retain(|(key, _)| key.text != *step),
        Value::List(items) => items.retain(|item| item_key(field, item).as_ref() != Some(step)),
        _ => {}
    }
}

fn part_mut<'n>(node: &'n mut Node, field: &str, step: &SmolStr) -> Option<&'n mut Node> {
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().find(|(key, _)| key.text == *step).map(|(_, node)| node),
        Value::List(items) => items.iter_mut().find(|item| item_key(field, *item).as_ref() == Some(step)),
        _ => None,
    }
}

/// Strategies have parts that only one type has: those go with their type, unless somebody manages them.
pub(crate) fn drop_parts_of_other_types(node: &mut Node, said: &FieldSet, others: &FieldSet) {
    for strategy in ["strategy", "updateStrategy"] {
        for (part, of) in
            [("rollingUpdate", "RollingUpdate"), ("canary", "Canary"), ("blueGreen", "BlueGreen")]
        {
            let path = ["spec", strategy, part];
            let is_managed = said.touches(&path) || others.touches(&path);
            let Some(spec) = part_mut(node, "", &"spec".into()) else { return };
            let Some(strategy) = part_mut(spec, "", &strategy.into()) else { continue };
            if !is_managed && strategy.key("type").is_some_and(|text| text != of) {
                remove(strategy, "", &part.into());
            }
        }
    }
}

impl Node {
    /// A value as a tree, all of it at one place.
    pub(crate) fn of_value(value: &serde_json::Value, place: Place) -> Self {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => Value::Number(n.to_string()),
            Json::String(s) => Value::Text(s.clone()),
            Json::Array(items) => Value::List(items.iter().map(|item| Self::of_value(item, place)).collect()),
            Json::Object(map) => Value::Map(
                map.iter()
                    .map(|(text, value)| (Key { text: text.clone(), place }, Self::of_value(value, place)))
                    .collect(),
            ),
        };
        Self { place, value }
    }

    /// The tree as a plain value.
    pub(crate) fn to_value(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Number(n) => n.parse().map_or_else(|_| Json::String(n.clone()), Json::Number),
            Value::Text(s) => Json::String(s.clone()),
            Value::List(items) => items.iter().map(Self::to_value).collect(),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|(key, node)| (key.text.clone(), node.to_value())).collect())
            }
        }
    }
}
