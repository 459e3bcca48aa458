//! Label and field selectors.
//!
//! Source: "Labels and Selectors" and "Field Selectors" in the Kubernetes documentation.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{NameError, StringMap, check_label_key, check_label_value};

/// Most requirements of one selector.
pub const REQUIREMENTS_MAX: usize = 64;

/// Which objects, by their labels. All requirements must hold; an empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LabelSelector {
    /// Labels that must be there with just these values.
    pub match_labels: StringMap,
    /// Further requirements.
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LabelRequirement {
    /// The label's key.
    pub key: SmolStr,
    /// How its value is compared.
    pub operator: LabelOperator,
    /// The values, for `In` and `NotIn`.
    pub values: Vec<SmolStr>,
}

/// How a label's value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LabelOperator {
    /// The value is one of those given.
    In = 1,
    /// The label is missing, or its value is none of those given.
    NotIn = 2,
    /// The label is there.
    Exists = 3,
    /// The label is missing.
    DoesNotExist = 4,
}

/// Why a selector's text or form is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A key or a value has a wrong form.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The text cannot be read.
    #[error(
        "selector {text:?} cannot be read at {at:?}: expected key=value, key!=value, key in (a,b), key notin (a,b), key or !key, joined by commas"
    )]
    Syntax {
        /// The whole text.
        text: String,
        /// The part that cannot be read.
        at: String,
    },
    /// Values where none belong, or none where they are needed.
    #[error(
        "selector requirement on {0:?}: In and NotIn need at least one value, Exists and DoesNotExist take none"
    )]
    Values(SmolStr),
    /// Too many requirements.
    #[error("a selector has at most {REQUIREMENTS_MAX} requirements")]
    TooMany,
}

impl LabelRequirement {
    /// Whether the labels meet the requirement.
    #[must_use]
    pub fn matches(&self, labels: &StringMap) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|v| self.values.contains(v)),
            LabelOperator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

impl LabelSelector {
    /// A selector for exactly these labels.
    #[must_use]
    pub fn from_labels(labels: StringMap) -> Self {
        Self { match_labels: labels, match_expressions: Vec::new() }
    }

    /// Whether it has no requirement at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether the labels meet every requirement.
    #[must_use]
    pub fn matches(&self, labels: &StringMap) -> bool {
        self.match_labels.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.match_expressions.iter().all(|r| r.matches(labels))
    }

    /// Checks keys, values and their number.
    ///
    /// # Errors
    /// The first requirement that is not acceptable.
    pub fn validate(&self) -> Result<(), SelectorError> {
        if self.match_labels.len() + self.match_expressions.len() > REQUIREMENTS_MAX {
            return Err(SelectorError::TooMany);
        }
        for (key, value) in &self.match_labels {
            check_label_key(key)?;
            check_label_value(value)?;
        }
        for requirement in &self.match_expressions {
            check_label_key(&requirement.key)?;
            for value in &requirement.values {
                check_label_value(value)?;
            }
            let wants_values = matches!(requirement.operator, LabelOperator::In | LabelOperator::NotIn);
            if wants_values == requirement.values.is_empty() {
                return Err(SelectorError::Values(requirement.key.clone()));
            }
        }
        Ok(())
    }

    /// Reads the text form: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// When the text cannot be read or a key or value is not acceptable.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut selector = Self::default();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() && text.trim().is_empty() {
                continue;
            }
            let requirement = parse_requirement(part)
                .ok_or_else(|| SelectorError::Syntax { text: text.to_owned(), at: part.to_owned() })?;
            selector.match_expressions.push(requirement);
        }
        selector.validate()?;
        Ok(selector)
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Option<LabelRequirement> {
    let make = |key: &str, operator, values: Vec<SmolStr>| {
        Some(LabelRequirement { key: SmolStr::new(key.trim()), operator, values })
    };
    if let Some(key) = part.strip_prefix('!') {
        return make(key, LabelOperator::DoesNotExist, vec![]);
    }
    if let Some((key, value)) = part.split_once("!=") {
        return make(key, LabelOperator::NotIn, vec![SmolStr::new(value.trim())]);
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return make(key, LabelOperator::In, vec![SmolStr::new(value.trim())]);
    }
    let Some((key, rest)) = part.split_once(char::is_whitespace) else {
        return make(part, LabelOperator::Exists, vec![]);
    };
    let (operator, list) = part_operator(rest.trim())?;
    let list = list.trim().strip_prefix('(')?.strip_suffix(')')?;
    make(key, operator, list.split(',').map(|v| SmolStr::new(v.trim())).collect())
}

fn part_operator(rest: &str) -> Option<(LabelOperator, &str)> {
    if let Some(list) = rest.strip_prefix("notin") {
        return Some((LabelOperator::NotIn, list));
    }
    rest.strip_prefix("in").map(|list| (LabelOperator::In, list))
}

/// Which objects, by a few fixed fields: `metadata.name`, `metadata.namespace`, `spec.nodeName`, `status.phase`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FieldSelector {
    /// Field, whether it must be equal (`=`) or different (`!=`), value.
    pub requirements: Vec<(SmolStr, bool, SmolStr)>,
}

/// The fields that a field selector may name.
pub const SELECTABLE_FIELDS: [&str; 4] =
    ["metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"];

impl FieldSelector {
    /// Reads the text form: `status.phase=Running,spec.nodeName!=n1`.
    ///
    /// # Errors
    /// When the text cannot be read or names a field that cannot be selected on.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let syntax = || SelectorError::Syntax { text: text.to_owned(), at: part.to_owned() };
            let (key, equal, value) = if let Some((key, value)) = part.split_once("!=") {
                (key, false, value)
            } else {
                let (key, value) = part.split_once('=').ok_or_else(syntax)?;
                (key, true, value.strip_prefix('=').unwrap_or(value))
            };
            if !SELECTABLE_FIELDS.contains(&key.trim()) {
                return Err(syntax());
            }
            requirements.push((SmolStr::new(key.trim()), equal, SmolStr::new(value.trim())));
        }
        if requirements.len() > REQUIREMENTS_MAX {
            Err(SelectorError::TooMany)
        } else {
            Ok(Self { requirements })
        }
    }

    /// Whether an object whose fields `field` yields meets every requirement; a missing field is empty.
    #[must_use]
    pub fn matches(&self, field: impl Fn(&str) -> SmolStr) -> bool {
        self.requirements.iter().all(|(key, equal, value)| (field(key) == *value) == *equal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(k, v)| (SmolStr::new(k), SmolStr::new(v))).collect()
    }

    #[test]
    fn text_selectors_match_as_kubernetes_documents() {
        let check = |text: &str, pairs: &[(&str, &str)], expected: bool| {
            let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(&labels(pairs)), expected, "{text} on {pairs:?}");
        };
        check("", &[], true);
        check("app=web", &[("app", "web")], true);
        check("app==web", &[("app", "db")], false);
        check("app!=web", &[], true);
        check("app in (web, db)", &[("app", "db")], true);
        check("app notin (web)", &[("app", "web")], false);
        check("app,!old", &[("app", "x")], true);
        check("app,!old", &[("app", "x"), ("old", "")], false);
    }

    #[test]
    fn unreadable_selectors_are_refused() {
        for bad in ["a=b,,", "a in b", "a in ()x", "=b", "a b c", "a=-"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
        assert!(FieldSelector::parse("spec.secret=1").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }
    }
}
