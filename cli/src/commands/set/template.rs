//! `set image`, `set resources`, `set env`, `set scheduling`: parts of a template.

use clap::Args;
use serde_json::{Map, Value, json};

use super::Common;
use crate::failure::{Class, Failure};

/// All containers.
const ALL: &str = "*";
const LISTS: [&str; 2] = ["initContainers", "containers"];

type Spec = Map<String, Value>;

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// KIND NAME... or KIND/NAME..., then CONTAINER=IMAGE...
    #[arg(required = true, value_name = "KIND NAME CONTAINER=IMAGE")]
    pub(super) words: Vec<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct ResourcesArgs {
    /// KIND NAME... or KIND/NAME...
    #[arg(required = true, value_name = "KIND NAME")]
    pub(super) what: Vec<String>,
    /// Which containers; all when not given
    #[arg(long = "containers", short = 'c', value_delimiter = ',', value_name = "NAME,...")]
    pub(super) containers: Vec<String>,
    /// What is reserved, such as cpu=500m,memory=1Gi; cpu= takes it out
    #[arg(long, value_delimiter = ',', value_name = "RESOURCE=AMOUNT,...")]
    requests: Vec<String>,
    /// What may be used at most
    #[arg(long, value_delimiter = ',', value_name = "RESOURCE=AMOUNT,...")]
    limits: Vec<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct EnvArgs {
    /// KIND NAME... or KIND/NAME..., then NAME=VALUE to set and NAME- to remove
    #[arg(required = true, value_name = "KIND NAME NAME=VALUE|NAME-")]
    pub(super) words: Vec<String>,
    /// Which containers; all when not given
    #[arg(long = "containers", short = 'c', value_delimiter = ',', value_name = "NAME,...")]
    pub(super) containers: Vec<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct SchedulingArgs {
    /// KIND NAME... or KIND/NAME...
    #[arg(required = true, value_name = "KIND NAME")]
    pub(super) what: Vec<String>,
    /// Labels that a node must have: KEY=VALUE to set, KEY- to remove
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE|KEY-,...")]
    node_selector: Vec<String>,
    /// Taints that are tolerated, KEY[=VALUE][:EFFECT]; in the place of those that were. An empty one takes all out
    #[arg(long, value_delimiter = ',', value_name = "KEY[=VALUE][:EFFECT],...")]
    toleration: Vec<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Reads NAME=VALUE.
pub(super) fn pair(text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("{text:?} is not NAME=VALUE"))),
    }
}

/// The containers of these names, init containers too; all when no name is given.
fn containers<'s>(spec: &'s mut Spec, names: &[String]) -> Result<Vec<&'s mut Value>, Failure> {
    let is_named = |container: &Value, name: &String| container["name"] == **name;
    let has = |name: &&String| {
        LISTS.iter().filter_map(|list| spec.get(*list)?.as_array()).flatten().any(|c| is_named(c, name))
    };
    if let Some(unknown) = names.iter().find(|name| !has(name)) {
        return Err(Failure::new(Class::NotFound, format!("there is no container {unknown:?}")));
    }
    let mut found = Vec::new();
    for (list, value) in spec.iter_mut().filter(|(list, _)| LISTS.contains(&list.as_str())) {
        // Without names the containers that stay are meant, as in kubectl.
        let all = names.is_empty() && list == "containers";
        let items = value.as_array_mut().into_iter().flatten();
        found.extend(items.filter(|c| all || names.iter().any(|name| is_named(c, name))));
    }
    Ok(found)
}

pub(super) fn set_images(spec: &mut Spec, images: &[(String, String)]) -> Result<(), Failure> {
    for (name, image) in images {
        let names = if name == ALL { Vec::new() } else { vec![name.clone()] };
        for container in containers(spec, &names)? {
            container["image"] = image.as_str().into();
        }
    }
    Ok(())
}

/// What `set resources` was asked for.
pub(super) struct Amounts(Vec<(&'static str, String, String)>);

impl Amounts {
    pub(super) fn read(args: &ResourcesArgs) -> Result<Self, Failure> {
        let mut amounts = Vec::new();
        for (part, texts) in [("requests", &args.requests), ("limits", &args.limits)] {
            for text in texts {
                let (name, value) = pair(text)?;
                amounts.push((part, name, value));
            }
        }
        if amounts.is_empty() {
            return Err(Failure::usage("nothing to set: --requests or --limits"));
        }
        Ok(Self(amounts))
    }
}

pub(super) fn set_resources(spec: &mut Spec, names: &[String], amounts: &Amounts) -> Result<(), Failure> {
    for container in containers(spec, names)? {
        for (part, name, value) in &amounts.0 {
            let resources = &mut container["resources"][part];
            match (value.is_empty(), resources.as_object_mut()) {
                (true, Some(resources)) => drop(resources.remove(name)),
                (true, None) => {}
                (false, _) => resources[name] = value.as_str().into(),
            }
        }
    }
    Ok(())
}

pub(super) fn set_env(spec: &mut Spec, names: &[String], edits: &[String]) -> Result<(), Failure> {
    for container in containers(spec, names)? {
        let mut env = match container["env"].take() {
            Value::Array(env) => env,
            _ => Vec::new(),
        };
        for edit in edits {
            match edit.split_once('=') {
                Some((name, value)) => {
                    let fresh = json!({"name": name, "value": value});
                    match env.iter_mut().find(|var| var["name"] == name) {
                        Some(var) => *var = fresh,
                        None => env.push(fresh),
                    }
                }
                None => env.retain(|var| var["name"] != edit.trim_end_matches('-')),
            }
        }
        container["env"] = env.into();
    }
    Ok(())
}

pub(super) fn set_scheduling(spec: &mut Spec, args: &SchedulingArgs) -> Result<(), Failure> {
    if args.node_selector.is_empty() && args.toleration.is_empty() {
        return Err(Failure::usage("nothing to set: --node-selector or --toleration"));
    }
    let mut selector = match spec.remove("nodeSelector") {
        Some(Value::Object(selector)) => selector,
        _ => Map::new(),
    };
    for edit in &args.node_selector {
        match edit.split_once('=') {
            Some((key, value)) => _ = selector.insert(key.to_owned(), value.into()),
            None => match edit.strip_suffix('-') {
                Some(key) => _ = selector.remove(key),
                None => return Err(Failure::usage(format!("{edit:?} is neither KEY=VALUE nor KEY-"))),
            },
        }
    }
    if !selector.is_empty() {
        spec.insert("nodeSelector".to_owned(), Value::Object(selector));
    }
    if !args.toleration.is_empty() {
        let given = args.toleration.iter().filter(|text| !text.is_empty());
        let tolerations: Vec<Value> = given.map(|text| toleration(text)).collect();
        spec.insert("tolerations".to_owned(), tolerations.into());
    }
    Ok(())
}

fn toleration(text: &str) -> Value {
    let (rest, effect) = text.rsplit_once(':').map_or((text, None), |(rest, effect)| (rest, Some(effect)));
    let mut toleration = match rest.split_once('=') {
        Some((key, value)) => json!({"key": key, "operator": "Equal", "value": value}),
        None => json!({"key": rest, "operator": "Exists"}),
    };
    if let Some(effect) = effect {
        toleration["effect"] = effect.into();
    }
    toleration
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        let value = json!({
            "initContainers": [{"name": "init", "image": "i:1"}],
            "containers": [{"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b:1"}],
        });
        value.as_object().cloned().unwrap_or_default()
    }

    fn check(edit: impl Fn(&mut Spec) -> Result<(), Failure>, path: &str, expected: Value) {
        let mut spec = spec();
        edit(&mut spec).expect("an edit that fits");
        assert_eq!(Value::Object(spec).pointer(path).cloned().unwrap_or_default(), expected, "{path}");
    }

    #[test]
    fn one_concern_changes_and_nothing_else() {
        let images = |name: &str| vec![(name.to_owned(), "new:2".to_owned())];
        check(|spec| set_images(spec, &images("b")), "/containers/1/image", json!("new:2"));
        check(|spec| set_images(spec, &images("b")), "/containers/0/image", json!("a:1"));
        check(|spec| set_images(spec, &images("init")), "/initContainers/0/image", json!("new:2"));
        check(|spec| set_images(spec, &images("*")), "/containers/0/image", json!("new:2"));
        check(|spec| set_images(spec, &images("*")), "/initContainers/0/image", json!("i:1"));
        let unknown = set_images(&mut spec(), &images("z")).expect_err("no such container");
        assert_eq!(unknown.class, Class::NotFound);
        let edits = ["X-".to_owned(), "Y=a=b".to_owned()];
        check(|spec| set_env(spec, &[], &edits), "/containers/0/env", json!([{"name": "Y", "value": "a=b"}]));
        let only = ["b".to_owned()];
        check(|spec| set_env(spec, &only, &edits), "/containers/0/env/0/name", json!("X"));
        let amounts = Amounts(vec![("limits", "cpu".to_owned(), "2".to_owned())]);
        check(
            |spec| set_resources(spec, &only, &amounts),
            "/containers/1/resources",
            json!({"limits": {"cpu": "2"}}),
        );
        check(|spec| set_resources(spec, &only, &amounts), "/containers/0/resources", Value::Null);
    }

    #[test]
    fn tolerations_are_read_as_taints_are_written() {
        let full = json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"});
        assert_eq!(toleration("a=b:NoSchedule"), full);
        assert_eq!(toleration("a"), json!({"key": "a", "operator": "Exists"}));
    }
}
