//! Values as YAML that readers of YAML 1.1 and 1.2 understand alike.
//!
//! Written out here because YAML 1.1 emitters take U+2028 and its like for line breaks, which YAML 1.2 readers
//! keep as characters: what they print does not come back.

use serde_json::Value;

/// Words that some reader takes for a boolean or null.
const RESERVED: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
const INDENT: usize = 2;

/// A value as one document, in block style.
pub(super) fn print(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn pad(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', depth * INDENT));
}

/// A value that begins at the start of a line.
fn block(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (index, (key, value)) in map.iter().enumerate() {
                if index > 0 {
                    pad(depth, out);
                }
                out.push_str(&text(key));
                out.push(':');
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        out.push('\n');
                        pad(depth + 1, out);
                        block(value, depth + 1, out);
                    }
                    // Lists stand under their key, as kubectl prints them.
                    Value::Array(items) if !items.is_empty() => {
                        out.push('\n');
                        pad(depth, out);
                        block(value, depth, out);
                    }
                    _ => {
                        out.push(' ');
                        scalar(value, depth + 1, out);
                    }
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    pad(depth, out);
                }
                out.push_str("- ");
                block(item, depth + 1, out);
            }
        }
        _ => scalar(value, depth, out),
    }
}

fn scalar(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::String(s) if is_literal(s) => literal(s, depth.max(1), out),
        Value::String(s) => out.push_str(&text(s)),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => out.push_str(&other.to_string()),
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

/// Whether a text reads well, and the same everywhere, as a literal block.
fn is_literal(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\n'])
        && body.chars().all(|c| c == '\n' || is_printable(c))
}

fn literal(text: &str, depth: usize, out: &mut String) {
    out.push_str(if text.ends_with('\n') { "|\n" } else { "|-\n" });
    for line in text.lines() {
        if !line.is_empty() {
            pad(depth, out);
            out.push_str(line);
        }
        out.push('\n');
    }
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~')
}

/// A text on one line: plain when nobody can take it for something else, else quoted as in JSON.
fn text(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    for c in Value::from(text).to_string().chars() {
        if is_printable(c) || c.is_alphanumeric() {
            quoted.push(c);
        } else {
            // Beyond the basic plane, YAML wants eight digits where JSON has surrogates.
            let code = u32::from(c);
            quoted += &if code > 0xffff { format!("\\U{code:08x}") } else { format!("\\u{code:04x}") };
        }
    }
    quoted
}

fn is_plain(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '@');
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if first.is_ascii_alphabetic() || matches!(first, '_' | '/') => {
            chars.all(is_word)
                && !text.ends_with(':')
                && !RESERVED.contains(&text.to_ascii_lowercase().as_str())
        }
        Some(first) if first.is_ascii_digit() => {
            let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
            matches!(unit, "%" | "m" | "k" | "M" | "G" | "T" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei")
        }
        _ => false,
    }
}
