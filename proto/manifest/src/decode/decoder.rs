//! Walks a tree and collects what is wrong with it, instead of stopping at the first mistake.

use bulkhead_types::StringMap;

use crate::ManifestError;
use crate::tree::{Node, Place, Value};

/// Which fields a map may have.
pub(super) struct Schema {
    /// Those that are read.
    pub(super) known: &'static [&'static str],
    /// The control plane's own: what `get -o yaml` prints may be applied again.
    pub(super) ignored: &'static [&'static str],
    /// Fields of Kubernetes that are accepted while they ask for what Bulkhead does anyway.
    pub(super) fixed: &'static [(&'static str, Fixed)],
    /// Other fields of Kubernetes: accepted while they ask for nothing (null, or empty).
    pub(super) not_yet: &'static [&'static str],
}

/// The one value of a field that is accepted.
pub(super) enum Fixed {
    Text(&'static str),
    Bool(bool),
    Number(&'static str),
}

impl Schema {
    pub(super) const EMPTY: Self = Self { known: &[], ignored: &[], fixed: &[], not_yet: &[] };
}

/// A map whose field names were checked.
#[derive(Clone)]
pub(super) struct Fields<'n> {
    node: &'n Node,
    path: String,
}

impl<'n> Fields<'n> {
    /// The field's value; null counts as missing.
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.node.get(name).filter(|node| !node.is_null())
    }

    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The field's place; the map's own when the field is missing.
    pub(super) fn place(&self, name: &str) -> Place {
        self.node.get(name).map_or(self.node.place, |node| node.place)
    }
}

pub(super) struct Decoder<'a> {
    file: &'a str,
    root: &'a Node,
    /// Where the object stands in its document, such as `items[2]`; empty for the document itself.
    prefix: String,
    pub(super) errors: Vec<ManifestError>,
    /// The paths of `errors`, without the prefix.
    failed: Vec<String>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(file: &'a str, root: &'a Node, prefix: String) -> Self {
        Self { file, root, prefix, errors: Vec::new(), failed: Vec::new() }
    }

    pub(super) fn fail(&mut self, place: Place, path: &str, reason: impl Into<String>) {
        let full = match (self.prefix.as_str(), path) {
            ("", path) => path.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}.{path}"),
        };
        self.failed.push(path.to_owned());
        self.errors.push(ManifestError {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            path: full,
            reason: reason.into(),
        });
    }

    /// Adds what the validation of the finished object found, unless an error of the text already explains it:
    /// a field that could not be read has its default, and complaints about that would mislead.
    pub(super) fn add_unless_explained(&mut self, path: &str, reason: String) {
        let related = |failed: &String| is_within(failed, path) || is_within(path, failed);
        let selection = ["spec.selector", "spec.template.metadata.labels"];
        let is_selection = path == "spec.template.metadata.labels" || path == "spec.selector";
        let explains = |failed: &String| {
            related(failed) || (is_selection && selection.iter().any(|s| is_within(failed, s)))
        };
        if !self.failed.iter().any(explains) {
            let place = self.root.locate(path);
            let failed = self.failed.len();
            self.fail(place, path, reason);
            // Findings of the validation do not explain each other.
            self.failed.truncate(failed);
        }
    }

    pub(super) fn missing(&mut self, fields: &Fields<'_>, name: &str) {
        self.fail(fields.node.place, &fields.path(name), "is required");
    }

    fn wrong_type(&mut self, node: &Node, path: &str, expected: &str) {
        let hint = match (&node.value, expected) {
            (Value::Number(_) | Value::Bool(_), "a string") => ": put it in quotes",
            _ => "",
        };
        self.fail(node.place, path, format!("expected {expected}, found {}{hint}", node.describe()));
    }

    /// Checks the field names of a map.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, path: &str, schema: &Schema) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, path, "a map");
            return None;
        };
        let fields = Fields { node, path: path.to_owned() };
        for (key, value) in entries {
            let name = key.text.as_str();
            if schema.known.contains(&name) || schema.ignored.contains(&name) {
                continue;
            }
            let path = fields.path(name);
            if let Some((_, fixed)) = schema.fixed.iter().find(|(field, _)| *field == name) {
                if let Some(accepted) = fixed.differs(value) {
                    self.fail(
                        value.place,
                        &path,
                        format!("not supported yet: only the default, {accepted}, is accepted"),
                    );
                }
            } else if schema.not_yet.contains(&name) {
                if !asks_for_nothing(value) {
                    self.fail(key.place, &path, "not supported yet");
                }
            } else {
                let names = schema.known.iter().copied();
                self.fail(key.place, &path, format!("unknown field{}", suggestion(name, names)));
            }
        }
        Some(fields)
    }

    pub(super) fn text(&mut self, fields: &Fields<'_>, name: &str) -> Option<String> {
        fields.get(name).and_then(|node| self.text_of(node, &fields.path(name)))
    }

    pub(super) fn text_of(&mut self, node: &Node, path: &str) -> Option<String> {
        if let Value::Text(text) = &node.value {
            Some(text.clone())
        } else {
            self.wrong_type(node, path, "a string");
            None
        }
    }

    pub(super) fn required_text(&mut self, fields: &Fields<'_>, name: &str) -> Option<String> {
        if fields.get(name).is_none() {
            self.missing(fields, name);
        }
        self.text(fields, name)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(fields, name)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let reason = format!("{text:?} is not one of {}", words.join(", "));
            self.fail(fields.place(name), &fields.path(name), reason);
        }
        found
    }

    pub(super) fn boolean(&mut self, fields: &Fields<'_>, name: &str) -> Option<bool> {
        let node = fields.get(name)?;
        if let Value::Bool(value) = node.value {
            Some(value)
        } else {
            self.wrong_type(node, &fields.path(name), "true or false");
            None
        }
    }

    /// A whole number from 0 to `most`.
    pub(super) fn number(&mut self, fields: &Fields<'_>, name: &str, most: u64) -> Option<u64> {
        self.whole(fields, name, 0, i128::from(most)).and_then(|n| u64::try_from(n).ok())
    }

    /// A whole number from `least` to `most`.
    pub(super) fn number_between(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        least: i64,
        most: i64,
    ) -> Option<i64> {
        self.whole(fields, name, i128::from(least), i128::from(most)).and_then(|n| i64::try_from(n).ok())
    }

    fn whole(&mut self, fields: &Fields<'_>, name: &str, least: i128, most: i128) -> Option<i128> {
        let (node, path) = (fields.get(name)?, fields.path(name));
        let Value::Number(text) = &node.value else {
            self.wrong_type(node, &path, "a whole number");
            return None;
        };
        match text.parse::<i128>() {
            Ok(n) if (least..=most).contains(&n) => Some(n),
            Ok(n) => {
                self.fail(
                    node.place,
                    &path,
                    format!("{n} is out of range: must be between {least} and {most}"),
                );
                None
            }
            Err(_) => {
                self.wrong_type(node, &path, "a whole number");
                None
            }
        }
    }

    /// A duration in whole seconds, as milliseconds.
    pub(super) fn seconds(&mut self, fields: &Fields<'_>, name: &str) -> Option<u64> {
        self.number(fields, name, i32::MAX as u64).map(|s| s * 1000)
    }

    pub(super) fn list<'n>(&mut self, fields: &Fields<'n>, name: &str) -> Option<&'n [Node]> {
        let node = fields.get(name)?;
        if let Value::List(items) = &node.value {
            Some(items)
        } else {
            self.wrong_type(node, &fields.path(name), "a list");
            None
        }
    }

    /// A list of strings; empty when missing.
    pub(super) fn texts(&mut self, fields: &Fields<'_>, name: &str) -> Vec<String> {
        let path = fields.path(name);
        let items = self.list(fields, name).unwrap_or_default();
        self.collect(items, path, Self::text_of)
    }

    /// A map of strings; empty when missing.
    pub(super) fn string_map(&mut self, fields: &Fields<'_>, name: &str) -> StringMap {
        let path = fields.path(name);
        let Some(node) = fields.get(name) else { return StringMap::new() };
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, &path, "a map of strings");
            return StringMap::new();
        };
        let mut map = StringMap::new();
        for (key, value) in entries {
            if let Some(text) = self.text_of(value, &format!("{path}[{}]", key.text)) {
                map.insert(key.text.as_str().into(), text.into());
            }
        }
        map
    }

    /// Reads each item of a list of maps; empty when missing.
    pub(super) fn each<T>(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        read: impl Fn(&mut Self, &Node, &str) -> Option<T>,
    ) -> Vec<T> {
        let path = fields.path(name);
        let items = self.list(fields, name).unwrap_or_default();
        self.collect(items, path, read)
    }

    fn collect<T>(
        &mut self,
        items: &[Node],
        path: String,
        read: impl Fn(&mut Self, &Node, &str) -> Option<T>,
    ) -> Vec<T> {
        let mut found = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            found.extend(read(self, item, &format!("{path}[{index}]")));
        }
        if found.len() < items.len() {
            // What was left out shifts the others: findings about them would name the wrong one.
            self.failed.push(path);
        }
        found
    }
}

impl Fixed {
    /// The accepted value in words, when `node` is another one.
    fn differs(&self, node: &Node) -> Option<String> {
        match (self, &node.value) {
            (_, Value::Null) => None,
            (Self::Text(accepted), Value::Text(found)) if accepted == found => None,
            (Self::Bool(accepted), Value::Bool(found)) if accepted == found => None,
            (Self::Number(accepted), Value::Number(found)) if accepted == found => None,
            (Self::Text(accepted) | Self::Number(accepted), _) => Some((*accepted).to_owned()),
            (Self::Bool(accepted), _) => Some(accepted.to_string()),
        }
    }
}

fn asks_for_nothing(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        _ => false,
    }
}

/// Whether `path` is `outer` or something below it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || outer.is_empty() || rest.starts_with(['.', '[']))
}

/// `: did you mean "x"?`, when a known name is close enough.
pub(super) fn suggestion<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    if name.len() > 64 {
        return String::new();
    }
    let lower = name.to_lowercase();
    let near = known
        .into_iter()
        .map(|k| (strsim::osa_distance(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= k.len().div_ceil(4))
        .min();
    near.map_or_else(String::new, |(_, k)| format!(": did you mean {k:?}?"))
}
