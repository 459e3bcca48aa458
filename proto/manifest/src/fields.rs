//! Values by field paths: what stands at a path, and which paths of two values differ.

use bulkhead_types::{FIELD_ITSELF, FieldPath, FieldSet};
use serde_json::{Map, Value};
use smol_str::SmolStr;

use crate::keys::{item_key, item_keys};

/// What users may set of an object: all but its identity, and what the control plane says of it.
pub(crate) fn editable(value: &Value) -> Value {
    let Value::Object(map) = value else { return Value::Null };
    let mut kept = Map::new();
    for (name, value) in map {
        match name.as_str() {
            "apiVersion" | "kind" | "status" => {}
            "metadata" => {
                let known = ["labels", "annotations"].map(|part| (part.to_owned(), value.get(part).cloned()));
                let parts = known.into_iter().filter_map(|(part, value)| Some((part, value?)));
                kept.insert(name.clone(), Value::Object(parts.collect()));
            }
            _ => _ = kept.insert(name.clone(), value.clone()),
        }
    }
    Value::Object(kept)
}

/// What stands at a path.
pub(crate) fn at<'v>(value: &'v Value, path: &[SmolStr]) -> Option<&'v Value> {
    let (mut found, mut field) = (value, "");
    for step in path {
        found = match found {
            // There or not is all that matters of a map itself.
            Value::Object(_) if step == FIELD_ITSELF => &Value::Null,
            Value::Object(map) => map.get(step.as_str())?,
            Value::Array(items) => items.iter().find(|item| item_key(field, *item).as_ref() == Some(step))?,
            _ => return None,
        };
        field = step;
    }
    Some(found)
}

/// Every field of a value.
pub(crate) fn all(value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    differing(&Value::Null, value, "", &mut Vec::new(), &mut |path, _| set.insert(path));
    set
}

/// Calls for every path at which two values differ, with whether the second has something there.
pub(crate) fn differing(
    before: &Value,
    after: &Value,
    field: &str,
    path: &mut FieldPath,
    found: &mut dyn FnMut(&FieldPath, bool),
) {
    if before == after {
        return;
    }
    let steps = match (parts(before, field), parts(after, field)) {
        (Some(before), Some(after)) => Some((before, after)),
        (None, Some(after)) if before.is_null() && !after.is_empty() => Some((Vec::new(), after)),
        (Some(before), None) if after.is_null() && !before.is_empty() => Some((before, Vec::new())),
        _ => None,
    };
    let Some((before_parts, after_parts)) = steps.filter(|(a, b)| !a.is_empty() || !b.is_empty()) else {
        if !path.is_empty() {
            found(path, !after.is_null());
        }
        return;
    };
    let null = Value::Null;
    let of = |parts: &[(SmolStr, &Value)], step: &SmolStr| parts.iter().position(|(name, _)| name == step);
    for (step, old) in &before_parts {
        let new = of(&after_parts, step).map_or(&null, |at| after_parts[at].1);
        path.push(step.clone());
        differing(old, new, step, path, found);
        path.pop();
    }
    for (step, new) in after_parts.iter().filter(|(step, _)| of(&before_parts, step).is_none()) {
        path.push(step.clone());
        differing(&null, new, step, path, found);
        path.pop();
    }
}

/// The named parts of a map, or of a list whose items have keys.
fn parts<'v>(value: &'v Value, field: &str) -> Option<Vec<(SmolStr, &'v Value)>> {
    match value {
        Value::Object(map) => Some(map.iter().map(|(name, value)| (SmolStr::new(name), value)).collect()),
        Value::Array(items) => item_keys(field, value).map(|keys| keys.into_iter().zip(items).collect()),
        _ => None,
    }
}
