//! QEMU's option syntax: `value,key=value,…`, a comma inside a value written twice.

use std::fmt::Write as _;

/// One option argument under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opts(String);

impl Opts {
    /// Starts with the leading word, which has no key (`q35` in `-machine q35,…`).
    pub(crate) fn new(first: &str) -> Self {
        Self(escape(first))
    }

    /// Starts with a key, for options without a leading word (`-drive file=…`).
    pub(crate) fn keyed(key: &str, value: impl std::fmt::Display) -> Self {
        Self::default().set(key, value)
    }

    /// Adds `key=value`.
    pub(crate) fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        write!(self.0, "{key}={}", escape(&value.to_string())).expect("writing to a String cannot fail");
        self
    }

    /// Adds `key=value` when there is a value.
    pub(crate) fn set_if<T: std::fmt::Display>(self, key: &str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.set(key, value),
            None => self,
        }
    }

    /// Adds `key=on` or `key=off`.
    pub(crate) fn flag(self, key: &str, on: bool) -> Self {
        self.set(key, if on { "on" } else { "off" })
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads an option argument the way QEMU does.
    fn split(text: &str) -> Vec<String> {
        let (mut parts, mut part) = (Vec::new(), String::new());
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c != ',' {
                part.push(c);
            } else if chars.next_if_eq(&',').is_some() {
                part.push(',');
            } else {
                parts.push(std::mem::take(&mut part));
            }
        }
        parts.push(part);
        parts
    }

    proptest! {
        #[test]
        fn no_value_can_add_an_option(value in "[a,=/ ]{0,12}", other in "[b,=]{1,6}") {
            let text = Opts::new("first").set("file", &value).set("other", &other).finish();
            let expected = ["first".to_owned(), format!("file={value}"), format!("other={other}")];
            prop_assert_eq!(split(&text), expected);
        }
    }
}
