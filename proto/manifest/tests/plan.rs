//! What an apply makes of what is there: whose fields stay, which go, and who is in whose way.
#![allow(clippy::unwrap_used)]

use bulkhead_manifest::{Edit, EditMode, Names, PlanError, Source, managers_after, plan, to_value};
use bulkhead_types::{MANAGER_SCALE, ManagerOperation, Name, Object};
use proptest::prelude::*;
use serde_json::Value;

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web, tier: front}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'web:1', env: [{name: A, value: a}, {name: B, value: b}]}
";

const APPLY: EditMode = EditMode::Apply { force: false };
const FORCE: EditMode = EditMode::Apply { force: true };

fn edit(present: Option<&Object>, manager: &str, mode: EditMode, text: &str) -> Result<Object, PlanError> {
    let source = Source { name: "-".to_owned(), text: text.to_owned() };
    let namespace = Name::new("default").unwrap();
    let found = plan(&[source], Some(&namespace), Edit { manager, mode }, &|_| present.cloned())?;
    let [planned] = &found[..] else { panic!("one document, {} objects", found.len()) };
    assert_eq!(planned.seen, present.map(|present| present.meta().edit_digest()));
    Ok(planned.parsed.object.clone())
}

fn value(object: &Object) -> Value {
    to_value(object, Names { cluster_id: None, name_of: &|_, _| None })
}

/// Applies documents one after the other, each as `manager: document`; `!manager` forces.
fn applied(steps: &[(&str, &str)]) -> Object {
    let mut object = None;
    for (manager, text) in steps {
        let (manager, mode) = manager.strip_prefix('!').map_or((*manager, APPLY), |name| (name, FORCE));
        let next = edit(object.as_ref(), manager, mode, text);
        object = Some(next.unwrap_or_else(|e| panic!("{manager}: {e:?}")));
    }
    object.unwrap()
}

/// What stands at paths (JSON pointers), as one line.
fn at(object: &Object, paths: &[&str]) -> String {
    let value = value(object);
    let shown = paths.iter().map(|path| value.pointer(path).unwrap_or(&Value::Null).to_string());
    shown.collect::<Vec<_>>().join(" ")
}

fn managers(object: &Object) -> Vec<String> {
    let managers = object.meta().managers.get().cloned().unwrap_or_default();
    managers.managers.iter().map(|m| format!("{} {:?}: {}", m.manager, m.operation, m.fields)).collect()
}

fn conflicts(present: &Object, manager: &str, text: &str) -> Vec<String> {
    match edit(Some(present), manager, APPLY, text) {
        Err(PlanError::Conflicts(found)) => {
            found.iter().map(|c| format!("{}: {} is {}'s", c.object, c.field, c.manager)).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// A document of the Deployment that says only this of its spec.
fn spec(spec: &str) -> String {
    format!("{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {spec}}}")
}

#[test]
fn what_a_document_says_is_its_managers() {
    let web = applied(&[("cli", WEB)]);
    assert_eq!(
        managers(&web),
        [
            "cli Apply: metadata{labels{app,tier}},spec{replicas,selector{matchLabels{app}},template{metadata{labels{app}},\
          spec{containers{[name=web]{env{[name=A]{name,value},[name=B]{name,value}},image,name}}}}}"
        ]
    );
}

#[test]
fn a_line_that_goes_from_the_manifest_goes_from_the_object() {
    let without =
        WEB.replace(", tier: front", "").replace(", {name: B, value: b}", "").replace("  replicas: 2\n", "");
    let web = applied(&[("cli", WEB), ("cli", &without)]);
    let paths = ["/metadata/labels", "/spec/replicas", "/spec/template/spec/containers/0/env"];
    assert_eq!(at(&web, &paths), r#"{"app":"web"} 1 [{"name":"A","value":"a"}]"#);
}

#[test]
fn what_others_manage_stays() {
    let labels = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, labels: {team: a}}}";
    let side = spec("{template: {spec: {containers: [{name: side, image: 'side:1'}]}}}");
    let web = applied(&[("cli", WEB), ("team", labels), ("mesh", &side), ("cli", WEB)]);
    let paths = [
        "/metadata/labels/team",
        "/spec/template/spec/containers/0/name",
        "/spec/template/spec/containers/1/name",
    ];
    assert_eq!(at(&web, &paths), r#""a" "web" "side""#);
    // Whoever says the same shares the field, and it stays until nobody says it.
    let same =
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, labels: {team: a, tier: front}}}";
    let web = applied(&[("cli", WEB), ("team", same), ("cli", &WEB.replace(", tier: front", ""))]);
    assert_eq!(at(&web, &["/metadata/labels/tier"]), r#""front""#);
}

#[test]
fn replicas_that_scale_set_stay_unless_the_manifest_says_some() {
    let without = WEB.replace("  replicas: 2\n", "");
    let mut web = applied(&[("cli", &without)]);
    let Object::Deployment(deployment) = &mut web else { unreachable!() };
    std::sync::Arc::make_mut(deployment).spec.replicas = 7;
    let managers = web.meta().managers_after(MANAGER_SCALE, &["spec", "replicas"]).unwrap();
    web.meta_mut().set_managers(managers);
    let again = edit(Some(&web), "cli", APPLY, &without).unwrap();
    assert_eq!(at(&again, &["/spec/replicas"]), "7");
    assert_eq!(conflicts(&web, "cli", WEB), ["Deployment default/web: spec.replicas is scale's"]);
    let forced = edit(Some(&web), "cli", FORCE, WEB).unwrap();
    assert_eq!(at(&forced, &["/spec/replicas"]), "2");
    assert!(!managers_of(&forced).contains("scale"), "{}", managers_of(&forced));
}

fn managers_of(object: &Object) -> String {
    managers(object).join("\n")
}

#[test]
fn conflicts_name_field_and_manager_and_equal_amounts_are_none() {
    let first = WEB.replace("env:", "resources: {requests: {cpu: 500m, memory: 1Gi}}, env:");
    let web = applied(&[("cli", &first)]);
    let other = spec(
        "{template: {spec: {containers: [{name: web, image: 'web:2', resources: {requests: {memory: 1024Mi, cpu: '1'}}}]}}}",
    );
    assert_eq!(
        conflicts(&web, "ci", &other),
        [
            "Deployment default/web: spec.template.spec.containers[name=web].image is cli's",
            "Deployment default/web: spec.template.spec.containers[name=web].resources.requests.cpu is cli's",
        ]
    );
}

#[test]
fn the_first_whole_manifest_takes_over_what_nobody_applied() {
    let mut web = applied(&[("cli", WEB)]);
    web.meta_mut().set_managers(Default::default());
    let without = WEB.replace(", tier: front", "");
    let taken = edit(Some(&web), "cli", APPLY, &without).unwrap();
    assert_eq!(at(&taken, &["/metadata/labels"]), r#"{"app":"web"}"#);
    // A part of one adds to it.
    let part = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, labels: {team: a}}}";
    let added = edit(Some(&web), "team", APPLY, part).unwrap();
    assert_eq!(at(&added, &["/metadata/labels/tier", "/metadata/labels/team"]), r#""front" "a""#);
}

#[test]
fn another_type_of_strategy_or_volume_leaves_nothing_of_the_first() {
    let recreate = WEB.replace("  replicas: 2\n", "  replicas: 2\n  strategy: {type: Recreate}\n");
    let web = applied(&[("cli", WEB), ("cli", &recreate), ("cli", WEB)]);
    assert_eq!(at(&web, &["/spec/strategy/type"]), r#""RollingUpdate""#);
    let volume = |source: &str| {
        WEB.replace(
            "      containers:",
            &format!("      volumes: [{{name: v, {source}}}]\n      containers:"),
        )
    };
    let web = applied(&[("cli", &volume("configMap: {name: c}")), ("cli", &volume("emptyDir: {}"))]);
    assert_eq!(at(&web, &["/spec/template/spec/volumes"]), r#"[{"emptyDir":{},"name":"v"}]"#);
}

#[test]
fn a_document_that_lacks_what_the_object_needs_is_refused_with_its_line() {
    let missing = edit(None, "team", APPLY, &spec("{replicas: 2}"));
    let Err(PlanError::Mistakes(errors)) = missing else { panic!("{missing:?}") };
    assert!(errors.iter().any(|e| e.path == "spec.template" && e.line == 1), "{errors:?}");
    let web = applied(&[("cli", WEB)]);
    let wrong = edit(
        Some(&web),
        "team",
        APPLY,
        "\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replcas: 2\n",
    );
    let Err(PlanError::Mistakes(errors)) = wrong else { panic!("{wrong:?}") };
    assert_eq!((errors[0].line, errors[0].path.as_str()), (6, "spec.replcas"));
}

#[test]
fn who_replaces_has_what_changed() {
    let web = applied(&[("cli", WEB)]);
    let text = bulkhead_manifest::value_to_yaml(&value(&web))
        .replace("web:1", "web:2")
        .replace("    tier: front\n", "");
    let replaced = edit(Some(&web), "bulkhead-edit", EditMode::Replace, &text).unwrap();
    assert_eq!(managers_after(&web, &replaced, "bulkhead-edit"), *replaced.meta().managers.get().unwrap());
    let shown = managers(&replaced);
    assert_eq!(shown[0], "bulkhead-edit Update: spec{template{spec{containers{[name=web]{image}}}}}");
    assert!(!shown[1].contains("image") && !shown[1].contains("tier"), "{shown:?}");
    assert_eq!(
        conflicts(&replaced, "cli", WEB),
        ["Deployment default/web: spec.template.spec.containers[name=web].image is bulkhead-edit's"]
    );
}

#[test]
fn plain_text_of_a_secret_is_managed_as_its_data() {
    let text = "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {a: '1', b: '2'}}";
    let secret = applied(&[("cli", text), ("cli", &text.replace(", b: '2'", ""))]);
    assert_eq!(managers(&secret), ["cli Apply: data{a}"]);
    assert_eq!(at(&secret, &["/data"]), r#"{"a":"MQ=="}"#);
}

#[derive(Clone, Debug)]
struct Doc {
    labels: Vec<(u8, u8)>,
    env: Vec<(u8, u8)>,
    replicas: Option<u8>,
    paused: Option<bool>,
    recreate: bool,
}

fn any_doc() -> impl Strategy<Value = Doc> {
    let pairs = || prop::collection::btree_map(0..5u8, 0..3u8, 0..4).prop_map(|m| m.into_iter().collect());
    let fields = (pairs(), pairs(), prop::option::of(0..4u8), prop::option::of(any::<bool>()), any::<bool>());
    fields.prop_map(|(labels, env, replicas, paused, recreate)| Doc {
        labels,
        env,
        replicas,
        paused,
        recreate,
    })
}

impl Doc {
    /// As a whole manifest; names of labels and variables begin with `prefix`.
    fn text(&self, prefix: &str) -> String {
        let labels: Vec<_> = self.labels.iter().map(|(k, v)| format!("{prefix}{k}: v{v}")).collect();
        let env: Vec<_> =
            self.env.iter().map(|(k, v)| format!("{{name: {prefix}{k}, value: v{v}}}")).collect();
        let replicas = self.replicas.map_or(String::new(), |n| format!("replicas: {n}, "));
        let paused = self.paused.map_or(String::new(), |b| format!("paused: {b}, "));
        let strategy = if self.recreate { "strategy: {type: Recreate}, " } else { "" };
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, labels: {{{}}}}}\n\
             spec: {{{replicas}{paused}{strategy}selector: {{matchLabels: {{app: web}}}}, template: {{\
             metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: web, image: i, env: [{}]}}]}}}}}}\n",
            labels.join(", "),
            env.join(", ")
        )
    }

    /// Only what is between managers: labels, and one of the plain fields.
    fn part(&self, prefix: &str, field: &str) -> String {
        let labels: Vec<_> = self.labels.iter().map(|(k, v)| format!("{prefix}{k}: v{v}")).collect();
        let field = match (field, self.replicas, self.paused) {
            ("replicas", Some(n), _) => format!("replicas: {n}"),
            ("paused", _, Some(b)) => format!("paused: {b}"),
            _ => String::new(),
        };
        let metadata = format!("{{name: web, labels: {{{}}}}}", labels.join(", "));
        format!("apiVersion: apps/v1\nkind: Deployment\nmetadata: {metadata}\nspec: {{{field}}}\n")
    }
}

proptest! {
    /// Applying again changes nothing; and what one manager applied last is what a new object of it would be.
    #[test]
    fn apply_is_idempotent_and_forgets(docs in prop::collection::vec(any_doc(), 1..4)) {
        let mut object = None;
        for doc in &docs {
            object = Some(edit(object.as_ref(), "cli", APPLY, &doc.text("x")).unwrap());
        }
        let object = object.unwrap();
        let last = docs.last().unwrap().text("x");
        prop_assert_eq!(&edit(Some(&object), "cli", APPLY, &last).unwrap(), &object);
        prop_assert_eq!(&edit(None, "cli", APPLY, &last).unwrap(), &object);
    }

    /// Two managers of disjoint fields never conflict, and their order does not matter.
    #[test]
    fn managers_of_disjoint_fields_commute(base in any_doc(), a in any_doc(), b in any_doc(), a2 in any_doc()) {
        let base = Doc { replicas: None, paused: None, ..base };
        let base = edit(None, "base", APPLY, &base.text("x")).unwrap();
        let a = |present: &Object| edit(Some(present), "a", APPLY, &a.part("a", "replicas")).unwrap();
        let b = |present: &Object| edit(Some(present), "b", APPLY, &b.part("b", "paused")).unwrap();
        let a2 = |present: &Object| edit(Some(present), "a", APPLY, &a2.part("a", "replicas")).unwrap();
        prop_assert_eq!(a(&b(&base)), b(&a(&base)));
        prop_assert_eq!(a2(&b(&a(&base))), b(&a2(&base)));
    }

    /// With force the document always holds, and whoever else said something of it has it no more.
    #[test]
    fn force_always_holds(a in any_doc(), b in any_doc()) {
        let first = edit(None, "a", APPLY, &a.text("x")).unwrap();
        let forced = edit(Some(&first), "b", FORCE, &b.text("x")).unwrap();
        prop_assert_eq!(&edit(Some(&forced), "b", APPLY, &b.text("x")).unwrap(), &forced);
        let ours = forced.meta().managers.get().unwrap().fields_of("b", ManagerOperation::Apply);
        prop_assert!(ours.touches(&["spec", "template"]));
        for (key, value) in &b.labels {
            let found = forced.meta().labels.get(format!("x{key}").as_str()).map(|v| v.to_string());
            prop_assert_eq!(found, Some(format!("v{value}")));
        }
    }
}

#[test]
fn claims_that_are_applied_again_stay_as_they_are() {
    let claim = include_str!("../../../examples/persistent-volume-claim.yaml").split("---\n").next().unwrap();
    for text in [claim, include_str!("../../../examples/statefulset-volumes.yaml")] {
        let once = applied(&[("a", text)]);
        assert_eq!(value(&applied(&[("a", text), ("a", text)])), value(&once));
    }
}
