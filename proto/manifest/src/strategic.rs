//! Strategic merge patches: a patch that knows which lists have keys.
//!
//! Source: "Update API Objects in Place Using kubectl patch" and "Strategic Merge Patch" of the Kubernetes documentation.

use serde_json::{Map, Value};

use crate::keys::merge_key;

const DIRECTIVE: &str = "$patch";

/// Patches a value: maps are merged, `null` removes, lists with keys are merged item by item, others are replaced.
/// `$patch: replace` takes a map or list as it is, `$patch: delete` removes a map or an item.
///
/// # Errors
/// What in the patch is not understood, with its path.
pub fn strategic_merge(target: &mut Value, patch: &Value) -> Result<(), String> {
    merge(target, patch, "", "")
}

fn merge(target: &mut Value, patch: &Value, field: &str, path: &str) -> Result<(), String> {
    match patch {
        Value::Object(patch) => merge_map(target, patch, path),
        Value::Array(items) => match merge_key(field) {
            Some(key) => merge_list(target, items, key, path),
            None => {
                *target = patch.clone();
                Ok(())
            }
        },
        _ => {
            *target = patch.clone();
            Ok(())
        }
    }
}

fn merge_map(target: &mut Value, patch: &Map<String, Value>, path: &str) -> Result<(), String> {
    match directive(patch, path)? {
        Some("replace") => *target = without_directive(patch),
        Some(_) => *target = Value::Null,
        None => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            let Value::Object(map) = target else { unreachable!("it was made one") };
            for (name, value) in patch {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                if name.starts_with('$') {
                    return Err(format!(
                        "{path}: is not supported; there are `$patch: replace` and `$patch: delete`"
                    ));
                }
                let part = map.entry(name.clone()).or_insert(Value::Null);
                merge(part, value, name, &path)?;
                if part.is_null() {
                    map.remove(name);
                }
            }
        }
    }
    Ok(())
}

fn merge_list(target: &mut Value, patch: &[Value], key: &str, path: &str) -> Result<(), String> {
    let mut items = match target.take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    if patch.iter().any(|item| item.get(DIRECTIVE).is_some_and(|d| d == "replace") && item.get(key).is_none())
    {
        items.clear();
    }
    for (index, item) in patch.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Value::Object(map) = item else { return Err(format!("{path}: expected a map with {key}")) };
        let wanted = directive(map, &path)?;
        let Some(id) = map.get(key) else {
            // The sign that the list is replaced stands for itself.
            if wanted == Some("replace") && map.len() == 1 {
                continue;
            }
            return Err(format!("{path}: lacks {key}, which tells items apart"));
        };
        let at = items.iter().position(|present| present.get(key) == Some(id));
        match (wanted, at) {
            (Some("delete"), Some(at)) => _ = items.remove(at),
            (Some("delete"), None) => {}
            (_, Some(at)) => merge(&mut items[at], item, "", &path)?,
            (_, None) => {
                let mut fresh = Value::Null;
                merge(&mut fresh, item, "", &path)?;
                items.push(fresh);
            }
        }
    }
    *target = Value::Array(items);
    Ok(())
}

fn directive<'v>(patch: &'v Map<String, Value>, path: &str) -> Result<Option<&'v str>, String> {
    match patch.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(text)) if ["replace", "delete", "merge"].contains(&text.as_str()) => {
            Ok((text != "merge").then_some(text.as_str()))
        }
        Some(other) => Err(format!("{path}.$patch: {other} is none of replace, delete")),
    }
}

fn without_directive(patch: &Map<String, Value>) -> Value {
    Value::Object(
        patch.iter().filter(|(name, _)| *name != DIRECTIVE).map(|(n, v)| (n.clone(), v.clone())).collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(target: Value, patch: Value, expected: Result<Value, &str>) {
        let mut found = target;
        let result = strategic_merge(&mut found, &patch).map(|()| found);
        assert_eq!(result, expected.map_err(str::to_owned), "{patch}");
    }

    #[test]
    fn lists_with_keys_are_merged_and_others_replaced() {
        let spec = || json!({"containers": [{"name": "a", "image": "a:1", "args": ["x"]}, {"name": "b"}], "replicas": 1});
        check(
            spec(),
            json!({"containers": [{"name": "a", "image": "a:2"}, {"name": "c", "image": "c"}]}),
            Ok(
                json!({"containers": [{"name": "a", "image": "a:2", "args": ["x"]}, {"name": "b"}, {"name": "c", "image": "c"}], "replicas": 1}),
            ),
        );
        check(
            spec(),
            json!({"containers": [{"name": "b", "$patch": "delete"}], "replicas": null}),
            Ok(json!({"containers": [{"name": "a", "image": "a:1", "args": ["x"]}]})),
        );
        check(
            spec(),
            json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
            Ok(json!({"containers": [{"name": "z"}], "replicas": 1})),
        );
        check(json!({"args": ["x", "y"]}), json!({"args": ["z"]}), Ok(json!({"args": ["z"]})));
        check(
            json!({"selector": {"a": 1, "b": 2}}),
            json!({"selector": {"$patch": "replace", "c": 3}}),
            Ok(json!({"selector": {"c": 3}})),
        );
        check(json!({"a": {"b": 1}}), json!({"a": {"$patch": "delete"}}), Ok(json!({})));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_path() {
        check(
            json!({}),
            json!({"containers": [{"image": "x"}]}),
            Err("containers[0]: lacks name, which tells items apart"),
        );
        check(
            json!({}),
            json!({"spec": {"$patch": "drop"}}),
            Err("spec.$patch: \"drop\" is none of replace, delete"),
        );
        check(
            json!({}),
            json!({"spec": {"$setElementOrder/containers": []}}),
            Err(
                "spec.$setElementOrder/containers: is not supported; there are `$patch: replace` and `$patch: delete`",
            ),
        );
    }
}
