//! YAML as a tree whose nodes know where they stand.
//!
//! Built from the parser's events rather than from a finished document, so that depth, nodes and expanded
//! aliases are bounded before they take memory, and a repeated key is an error with its own line.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use crate::{ManifestError, Source};

/// Most bytes of one text.
pub const SOURCE_BYTES_MAX: usize = 4 << 20;
/// Most documents of one text.
pub const DOCUMENTS_MAX: usize = 1024;
/// Deepest nesting of one document.
pub const DEPTH_MAX: usize = 32;
/// Most nodes of one text, those that aliases repeat included.
pub const NODES_MAX: usize = 200_000;

/// Most entries of one map: repeated keys are looked for one by one.
const ENTRIES_MAX: usize = 4096;

/// A place in a text, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A piece of a document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// An integer or a fraction, as written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The name of a map's entry.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) place: Place,
}

impl Node {
    /// What the node is, for messages.
    pub(crate) fn describe(&self) -> String {
        let cut = |text: &str| text.chars().take(40).collect::<String>();
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(b) => format!("the boolean {b}"),
            Value::Number(n) => format!("the number {}", cut(n)),
            Value::Text(t) => format!("the string {:?}", cut(t)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The value of a map's entry.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }

    /// The place of the field that a path such as `spec.containers[0].image` or `metadata.labels[a.b/c]` names,
    /// or of the nearest thing around it that is there.
    pub(crate) fn locate(&self, path: &str) -> Place {
        let (mut place, mut node, mut rest) = (self.place, self, path);
        while let Some((step, tail)) = next_step(rest) {
            match &node.value {
                Value::Map(entries) => {
                    let Some((key, value)) = entries.iter().find(|(key, _)| key.text == step) else { break };
                    (place, node) = (key.place, value);
                }
                Value::List(items) => {
                    let Some(item) = step.parse::<usize>().ok().and_then(|n| items.get(n)) else { break };
                    (place, node) = (item.place, item);
                }
                _ => break,
            }
            rest = tail;
        }
        place
    }
}

/// The first step of a path, and the others.
fn next_step(path: &str) -> Option<(&str, &str)> {
    if path.is_empty() {
        return None;
    }
    if let Some(inner) = path.strip_prefix('[') {
        let (step, tail) = inner.split_once(']')?;
        return Some((step, tail.strip_prefix('.').unwrap_or(tail)));
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (step, tail) = path.split_at(end);
    Some((step, tail.strip_prefix('.').unwrap_or(tail)))
}

/// Reads a text as far as it can be read: its documents, and what is wrong with their form.
pub(crate) fn read(source: &Source) -> (Vec<Node>, Vec<ManifestError>) {
    let mut reader = Reader {
        file: &source.name,
        documents: Vec::new(),
        errors: Vec::new(),
        open: Vec::new(),
        anchors: BTreeMap::new(),
        nodes: 0,
    };
    if source.text.len() > SOURCE_BYTES_MAX {
        let reason = format!("has {} bytes: at most {SOURCE_BYTES_MAX} are read", source.text.len());
        reader.fail(Place { line: 0, column: 0 }, reason);
        return (reader.documents, reader.errors);
    }
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let stop = match event {
            Ok((event, span)) => reader.event(event, span),
            Err(error) => Err(syntax_error(&error)),
        };
        if let Err((place, reason)) = stop {
            reader.fail(place, reason);
            break;
        }
    }
    (reader.documents, reader.errors)
}

fn place_of(span: Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

fn syntax_error(error: &ScanError) -> (Place, String) {
    let marker = error.marker();
    let place = Place { line: marker.line(), column: marker.col() + 1 };
    (place, format!("not YAML: {}", error.info()))
}

/// A list or map that is not complete yet.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<Key>,
}

struct Reader<'s> {
    file: &'s str,
    documents: Vec<Node>,
    errors: Vec<ManifestError>,
    open: Vec<Open>,
    /// Complete nodes by the parser's anchor number, with their size.
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
}

/// Why reading stops, and where.
type Stop = Result<(), (Place, String)>;

impl Reader<'_> {
    fn fail(&mut self, place: Place, reason: impl Into<String>) {
        self.errors.push(ManifestError {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            path: String::new(),
            reason: reason.into(),
        });
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Stop {
        let place = place_of(span);
        match event {
            Event::DocumentStart(_) if self.documents.len() >= DOCUMENTS_MAX => {
                Err((place, format!("has more than {DOCUMENTS_MAX} documents")))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = match tag {
                    Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Value::Text(text.into()),
                    Some(tag) => return Err((place, format!("tag {tag} is not supported"))),
                    None if style == ScalarStyle::Plain => resolve(&text),
                    None => Value::Text(text.into_owned()),
                };
                self.complete(Node { place, value }, anchor, 1)
            }
            Event::SequenceStart(anchor, _) => self.begin(Node { place, value: Value::List(vec![]) }, anchor),
            Event::MappingStart(anchor, _) => self.begin(Node { place, value: Value::Map(vec![]) }, anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser ends only what it began");
                let anchor = open.anchor;
                let size = if anchor > 0 { size_of(&open.node) } else { 0 };
                self.complete(open.node, anchor, size)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((node, size)) => {
                    let (node, size) = (node.clone(), *size);
                    self.count(place, size)?;
                    self.complete(node, 0, 0)
                }
                None => Err((place, "alias inside of what it stands for".to_owned())),
            },
            _ => Ok(()),
        }
    }

    fn count(&mut self, place: Place, nodes: usize) -> Stop {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err((place, format!("has more than {NODES_MAX} nodes, aliases included")));
        }
        Ok(())
    }

    fn begin(&mut self, node: Node, anchor: usize) -> Stop {
        if self.open.len() >= DEPTH_MAX {
            return Err((node.place, format!("is nested more than {DEPTH_MAX} deep")));
        }
        self.count(node.place, 1)?;
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    /// Puts a complete node where it belongs; `size` counts its nodes when it is a scalar or has an anchor.
    fn complete(&mut self, node: Node, anchor: usize, size: usize) -> Stop {
        if !matches!(node.value, Value::List(_) | Value::Map(_)) && size > 0 {
            self.count(node.place, size)?;
        }
        if anchor > 0 {
            // Its memory counts too: the copy is there whether or not an alias follows.
            self.count(node.place, size)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(parent) = self.open.last_mut() else {
            if !node.is_null() {
                self.documents.push(node);
            }
            self.anchors.clear();
            return Ok(());
        };
        match &mut parent.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match parent.key.take() {
                None => parent.key = Some(key_of(node)?),
                Some(key) if entries.len() >= ENTRIES_MAX => {
                    return Err((key.place, format!("a map has more than {ENTRIES_MAX} entries")));
                }
                Some(key) if entries.iter().any(|(k, _)| k.text == key.text) => {
                    let reason = format!("key {:?} is given twice", key.text);
                    self.fail(key.place, reason);
                }
                Some(key) => entries.push((key, node)),
            },
            _ => unreachable!("only lists and maps are opened"),
        }
        Ok(())
    }
}

fn key_of(node: Node) -> Result<Key, (Place, String)> {
    let place = node.place;
    let text = match node.value {
        Value::Text(text) | Value::Number(text) => text,
        Value::Bool(b) => b.to_string(),
        Value::Null | Value::List(_) | Value::Map(_) => {
            return Err((place, "the key of a map must be a string".to_owned()));
        }
    };
    if text == "<<" {
        return Err((place, "merge keys (<<) are not supported: write the fields out".to_owned()));
    }
    Ok(Key { text, place })
}

fn size_of(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size_of).sum(),
        Value::Map(entries) => entries.iter().map(|(_, node)| 1 + size_of(node)).sum::<usize>(),
        _ => 0,
    }
}

/// What a plain scalar means (YAML 1.2, core schema).
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let begins_as_number =
        unsigned.strip_prefix('.').unwrap_or(unsigned).starts_with(|c: char| c.is_ascii_digit());
    let is_radix = |prefix, radix| {
        text.strip_prefix(prefix).is_some_and(|d: &str| !d.is_empty() && d.chars().all(|c| c.is_digit(radix)))
    };
    (begins_as_number && text.parse::<f64>().is_ok()) || is_radix("0x", 16) || is_radix("0o", 8)
}
