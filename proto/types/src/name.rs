//! Names, label keys and label values as Kubernetes defines them.
//!
//! Source: "Object Names and IDs" and "Labels and Selectors" in the Kubernetes documentation (RFC 1123 labels).

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Longest name and longest label value, in bytes (RFC 1123 label).
pub const NAME_LENGTH_MAX: usize = 63;
/// Longest prefix of a label key, in bytes (RFC 1123 subdomain).
pub const LABEL_PREFIX_LENGTH_MAX: usize = 253;

/// A name is not acceptable; the text says what is and what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is invalid: {reason}")]
pub struct NameError {
    /// Which kind of name was checked.
    pub what: &'static str,
    /// The offending text, cut to 80 characters.
    pub value: String,
    /// What a valid one looks like.
    pub reason: &'static str,
}

fn error(what: &'static str, value: &str, reason: &'static str) -> NameError {
    NameError { what, value: value.chars().take(80).collect(), reason }
}

/// An object's name: 1 to 63 of `a-z`, `0-9` and `-`, starting and ending with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "SmolStr", into = "SmolStr")]
pub struct Name(SmolStr);

impl Name {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// When the text is not an RFC 1123 label.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
        let text = text.as_ref();
        if is_dns_label(text) {
            Ok(Self(SmolStr::new(text)))
        } else {
            Err(error(
                "name",
                text,
                "must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit",
            ))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<SmolStr> for Name {
    type Error = NameError;
    fn try_from(text: SmolStr) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;
    fn try_from(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Name> for SmolStr {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Whether the text is an RFC 1123 label.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    !bytes.is_empty()
        && bytes.len() <= NAME_LENGTH_MAX
        && bytes.iter().all(inner)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

/// Whether the text is an RFC 1123 subdomain: labels joined by dots, at most 253 bytes.
#[must_use]
pub fn is_dns_subdomain(text: &str) -> bool {
    !text.is_empty() && text.len() <= LABEL_PREFIX_LENGTH_MAX && text.split('.').all(is_dns_label)
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= NAME_LENGTH_MAX
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

/// Checks a label or annotation key: `[prefix/]name`.
///
/// # Errors
/// When prefix or name has a wrong form.
pub fn check_label_key(key: &str) -> Result<(), NameError> {
    let (prefix, part) = match key.split_once('/') {
        Some((prefix, part)) => (Some(prefix), part),
        None => (None, key),
    };
    if prefix.is_some_and(|p| !is_dns_subdomain(p)) {
        return Err(error(
            "label key",
            key,
            "the prefix must be a lower-case DNS subdomain of at most 253 characters",
        ));
    }
    if !is_qualified_part(part) {
        return Err(error(
            "label key",
            key,
            "the name must be 1 to 63 characters of letters, digits, '-', '_' and '.', starting and ending with a letter or digit",
        ));
    }
    Ok(())
}

/// Checks a label value: empty, or at most 63 characters.
///
/// # Errors
/// When it is too long or holds a character that is not allowed.
pub fn check_label_value(value: &str) -> Result<(), NameError> {
    if value.is_empty() || is_qualified_part(value) {
        Ok(())
    } else {
        Err(error(
            "label value",
            value,
            "must be empty or 1 to 63 characters of letters, digits, '-', '_' and '.', starting and ending with a letter or digit",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        for good in ["a", "web", "web-1", "0", &"a".repeat(63)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"a".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn label_keys_may_carry_a_dns_prefix() {
        for good in ["app", "app.kubernetes.io/name", "a/B_c.d"] {
            assert!(check_label_key(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "A.b/c", "a/b/c", "-a"] {
            assert!(check_label_key(bad).is_err(), "{bad}");
        }
        assert!(check_label_value("").is_ok());
        assert!(check_label_value("v1.2_x-y").is_ok());
        assert!(check_label_value("-x").is_err());
    }
}
