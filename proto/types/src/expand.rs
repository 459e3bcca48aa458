//! `$(NAME)` in values of environment variables, commands and arguments.

use std::collections::BTreeMap;

/// Replaces `$(NAME)` where the name is known; `$$` is one `$`, so `$$(NAME)` becomes `$(NAME)`. Everything else
/// stays as it is (Kubernetes' rules).
#[must_use]
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env() -> BTreeMap<String, String> {
        [("A", "1"), ("B", "$(A)"), ("", "empty")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn kubernetes_rules() {
        let check = |text: &str, expected: &str| assert_eq!(expand(text, &env()), expected, "{text}");
        check("", "");
        check("$(A)", "1");
        check("x$(A)y$(A)", "x1y1");
        check("$(B)", "$(A)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
        check("$$$$(A)", "$$(A)");
        check("$(NO)", "$(NO)");
        check("$(NO$(A))", "$(NO$(A))");
        check("$(A", "$(A");
        check("$A $", "$A $");
        check("$()", "empty");
        check("ä$(A)ö", "ä1ö");
    }

    /// Kubernetes' algorithm, byte by byte over one cursor, as `third_party/forked/golang/expansion` has it.
    fn model(input: &str, env: &BTreeMap<String, String>) -> String {
        let chars: Vec<char> = input.chars().collect();
        let (mut out, mut cursor) = (String::new(), 0);
        while cursor < chars.len() {
            if chars[cursor] != '$' || cursor + 1 == chars.len() {
                out.push(chars[cursor]);
                cursor += 1;
                continue;
            }
            match chars[cursor + 1] {
                '$' => {
                    out.push('$');
                    cursor += 2;
                }
                '(' => match chars[cursor + 2..].iter().position(|c| *c == ')') {
                    Some(length) => {
                        let name: String = chars[cursor + 2..cursor + 2 + length].iter().collect();
                        match env.get(&name) {
                            Some(value) => out.push_str(value),
                            None => out.push_str(&format!("$({name})")),
                        }
                        cursor += length + 3;
                    }
                    None => {
                        out.push_str("$(");
                        cursor += 2;
                    }
                },
                other => {
                    out.push('$');
                    out.push(other);
                    cursor += 2;
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn as_the_model(text in "[$()ABC ]{0,24}") {
            prop_assert_eq!(expand(&text, &env()), model(&text, &env()));
        }

        #[test]
        fn what_is_escaped_stays(text in "[$()AB]{0,16}") {
            prop_assert_eq!(expand(&text.replace('$', "$$"), &env()), text);
        }
    }
}
